//! One line each.

use super::super::line::*;

#[test]
fn queue_ids() {
    let check = |text: &str, expected: bool| assert_eq!(QueueId::parse(text.as_bytes()).is_some(), expected, "{text}");
    check("718F4DF04E9", true);
    check("4G6yC35YlszCx5Pk", true);
    check("CACACA", true);
    check("NOQUEUE", false);
    check("warning", false);
    check("statistics", false);
    check("4G6a", false);
    check("4G6yC35YlszCx5Pk4G6yC35YlszCx5Pk", false);
    check("718f4df04e9", false);
}

#[test]
fn names_and_daemons() {
    let check = |text: &str, expected: Option<(&str, Daemon)>| {
        let found = match split(text.as_bytes()) {
            Split::Postfix(line) => Some((std::str::from_utf8(line.instance).unwrap(), line.daemon)),
            Split::Foreign => None,
        };
        assert_eq!(found, expected, "{text}");
    };
    check("h postfix/smtpd[1]: x", Some(("postfix", Daemon::Smtpd)));
    check("h postfix/submission/smtpd[1]: x", Some(("postfix", Daemon::Smtpd)));
    check("h postfix-out/smtp[1]: x", Some(("postfix-out", Daemon::Smtp)));
    check("h postfix-170.55.103.23/qmgr[1]: x", Some(("postfix-170.55.103.23", Daemon::Qmgr)));
    check("h mta/relay/smtp[1]: x", Some(("mta", Daemon::Smtp)));
    check("h postfix/postfix-script[1]: x", Some(("postfix", Daemon::Other)));
    check("h /postfix-script[1]: x", Some(("", Daemon::Other)));
    check("h lightmeter/headers[1]: x", None);
    check("h opendkim[1]: x", None);
    check("h dovecot: lmtp(1): postfix/smtpd[1]: x", None);
    check("h last message repeated 3 times", None);
    check("h", None);
    check(" postfix/smtpd[1]: x", None);
}

#[test]
fn clients() {
    let check = |text: &str, address: &str, username: &str| {
        let found = client(text.as_bytes());
        assert_eq!(found.address, address.as_bytes(), "{text}");
        assert_eq!(found.username, username.as_bytes(), "{text}");
    };
    check("unknown[1.2.3.4], sasl_method=PLAIN, sasl_username=a@b", "1.2.3.4", "a@b");
    check("unknown[1.2.3.4]:4711, sasl_method=PLAIN, sasl_username=a@b, sasl_sender=<x>", "1.2.3.4", "a@b");
    check("unknown[2a02:168::15e2], sasl_username=a, b, sasl_sender=<x>", "2a02:168::15e2", "a, b");
    check("localhost[127.0.0.1], orig_queue_id=4F5C64474F, orig_client=unknown[28.55.140.112]", "127.0.0.1", "");
    check("unknown[unknown", "", "");
    check("a[1.2.3.4], sasl_username=", "1.2.3.4", "");
    let orig = client(b"localhost[127.0.0.1], orig_queue_id=4F5C64474F, orig_client=unknown[28.55.140.112]");
    assert_eq!(orig.orig_queue_id, QueueId::parse(b"4F5C64474F"));
}

#[test]
fn deliveries() {
    let check = |text: &str, expected: Option<[&str; 5]>| {
        let found = delivery(text.as_bytes()).map(|d| [d.rcpt, d.relay, d.dsn, d.status, d.reply]);
        assert_eq!(found, expected.map(|e| e.map(str::as_bytes)), "{text}");
    };
    check(
        "<a@b>, relay=mx.b[1.2.3.4]:25, conn_use=2, delay=1, delays=0/0/1/0, dsn=2.0.0, status=sent (250 ok (x))",
        Some(["a@b", "mx.b[1.2.3.4]:25", "2.0.0", "sent", "250 ok (x)"]),
    );
    check(
        "<\"a>, relay=x\"@b>, orig_to=<c>, relay=none, delay=1, dsn=4.4.1, status=deferred (connect to b: timed out",
        Some(["\"a>, relay=x\"@b", "none", "4.4.1", "deferred", "connect to b: timed out"]),
    );
    check(
        "<\"a> b\"@b>, orig_to=<c>, relay=none, dsn=4.4.1, status=deferred (connect to b: timed out",
        Some(["\"a> b\"@b", "none", "4.4.1", "deferred", "connect to b: timed out"]),
    );
    check("<a@b>, relay=local, dsn=2.0.0, status=sent", Some(["a@b", "local", "2.0.0", "sent", ""]));
    check("<a@b>, relay=mx.b[1.2.3.4]:25, delay=1, dsn=2.", None);
    check("<a@b", None);
}

#[test]
fn rejects() {
    let text = b"RCPT from unknown[1.2.3.4]: 550 5.1.1 <x@y>: User unknown; from=<a@b> to=<x@y> proto=ESMTP helo=<h> sasl_username=<A@b>";
    let found = reject(text).unwrap();
    assert_eq!(
        (found.class, found.dsn, found.rcpt, found.username),
        (Some(5), &b"5.1.1"[..], &b"x@y"[..], &b"A@b"[..])
    );
    let text =
        b"END-OF-MESSAGE from h[254.65.43.194]:25: 4.7.1 Try again later; from=<b> to=<c@d> proto=ESMTP helo=<h>";
    let found = reject(text).unwrap();
    assert_eq!((found.class, found.dsn, found.rcpt), (Some(4), &b"4.7.1"[..], &b"c@d"[..]));
    assert_eq!(reject(b"RCPT from unknown[1.2.3.4]: 450 4.7.1 cut off"), None);
}

#[test]
fn failed_log_ins() {
    let check = |text: &str, expected: Option<[&str; 3]>| {
        let found = auth_failure(text.as_bytes()).map(|a| [a.address, a.method, a.username]);
        assert_eq!(found, expected.map(|e| e.map(str::as_bytes)), "{text}");
    };
    check("unknown[1.2.3.4]: SASL LOGIN authentication failed: UGFzc3dvcmQ6", Some(["1.2.3.4", "LOGIN", ""]));
    check(
        "unknown[::1]:99: SASL PLAIN authentication failed: (reason unavailable), sasl_username=Foo@bar",
        Some(["::1", "PLAIN", "Foo@bar"]),
    );
    check("unknown[1.2.3.4]: SASL LOGIN authentication aborted", None);
    check("1.2.3.4: hostname x verification failed", None);
}
