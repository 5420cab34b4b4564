//! Whole small logs in, events out, one a line: what, account, queue id on the first host, and the rest.

use super::*;
use crate::event::Timestamp;

mod bounds;
mod hops;
mod line;

/// Reads lines of `HH:MM:SS host …`; empty lines and indentation are nothing.
fn read_with(options: Options, log: &str) -> (Vec<String>, Stats) {
    let mut postfix = Postfix::new(options);
    let mut events = Vec::new();
    let mut sink = |event: &Event<'_>| events.push(show(event));
    for line in log.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (time, rest) = line.split_once(' ').unwrap();
        let ts = Timestamp::parse(&format!("2024-05-01T{time}Z")).unwrap();
        postfix.push(ts, rest.as_bytes(), &mut sink);
    }
    postfix.finish(&mut sink);
    assert_eq!((postfix.open_messages(), postfix.recipients_kept()), (0, 0), "something was left over");
    (events, postfix.stats().clone())
}

fn read(log: &str) -> (Vec<String>, Stats) {
    read_with(Options::default(), log)
}

/// `expected` is one event a line.
fn check(log: &str, expected: &str) -> Stats {
    let (events, stats) = read(log);
    assert_same(&events, expected);
    stats
}

#[track_caller]
fn assert_same(events: &[String], expected: &str) {
    let expected: Vec<_> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(events, expected, "\n{}\n", events.join("\n"));
}

fn show(event: &Event<'_>) -> String {
    let or = |text: &Option<Cow<'_, str>>| text.as_deref().unwrap_or("-").to_owned();
    let account = or(&event.account);
    let time = event.ts.to_string()[11..19].to_owned();
    match &event.kind {
        Kind::Send(s) => {
            let ip = s.client_ip.map_or("-".to_owned(), |ip| ip.to_string());
            assert!(s.rcpts.named.is_empty());
            format!("{time} send {account} {} via {} to {} from {ip}", or(&s.queue_id), or(&s.relay), s.rcpts.count)
        }
        Kind::Outcome(o) => {
            let status = format!("{:?}", o.status).to_ascii_lowercase();
            let (id, dsn) = (or(&o.queue_id), or(&o.dsn));
            format!("{time} {status} {account} {id} via {} to {} {dsn}", or(&o.relay), o.rcpt)
        }
        Kind::Auth(a) => {
            let ip = a.client_ip.map_or("-".to_owned(), |ip| ip.to_string());
            format!("{time} auth {account} {} {} from {ip}", a.ok, or(&a.method))
        }
        Kind::Complaint(_) => "complaint".to_owned(),
    }
}

#[test]
fn a_message_deferred_then_sent_is_one_send() {
    let log = "
        10:00:00 mx postfix/submission/smtpd[1]: AAAAAA: client=c.example[192.0.2.7]:5555, sasl_method=PLAIN, sasl_username=Info@Shop.example
        10:00:00 mx postfix/cleanup[2]: AAAAAA: message-id=<1@shop>
        10:00:01 mx postfix/qmgr[3]: AAAAAA: from=<info@shop.example>, size=100, nrcpt=2 (queue active)
        10:00:02 mx postfix/smtp[4]: AAAAAA: to=<a@x.example>, relay=mx.x.example[203.0.113.1]:25, delay=2, delays=1/0/1/0, dsn=2.0.0, status=sent (250 ok)
        10:00:02 mx postfix/smtp[4]: AAAAAA: to=<b@y.example>, relay=none, delay=2, delays=1/0/1/0, dsn=4.4.1, status=deferred (connect to y: timed out)
        10:30:00 mx postfix/qmgr[3]: AAAAAA: from=<info@shop.example>, size=100, nrcpt=2 (queue active)
        10:30:02 mx postfix/smtp[4]: AAAAAA: to=<b@y.example>, orig_to=<c@y>, relay=mx.y[203.0.113.2]:25, conn_use=2, delay=2, delays=1/0/1/0, dsn=2.0.0, status=sent (250 ok)
        10:30:02 mx postfix/qmgr[3]: AAAAAA: removed";
    let stats = check(
        log,
        "10:00:00 auth info@shop.example true PLAIN from 192.0.2.7
         10:00:01 send info@shop.example AAAAAA via mx to 2 from 192.0.2.7
         10:00:02 delivered info@shop.example AAAAAA via mx to a@x.example 2.0.0
         10:00:02 deferred info@shop.example AAAAAA via mx to b@y.example 4.4.1
         10:30:02 delivered info@shop.example AAAAAA via mx to b@y.example 2.0.0",
    );
    assert_eq!((stats.messages, stats.attempts, stats.lines_unparsed), (1, 3, 0));
}

#[test]
fn ids_come_again() {
    let log = "
        10:00:00 mx postfix/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=LOGIN, sasl_username=one
        10:00:00 mx postfix/qmgr[3]: AAAAAA: from=<one@x>, size=100, nrcpt=1 (queue active)
        10:00:01 mx postfix/qmgr[3]: AAAAAA: removed
        10:00:01 mx postfix/cleanup[2]: AAAAAA: message-id=<bounce@mx>
        10:00:01 mx postfix/qmgr[3]: AAAAAA: from=<>, size=100, nrcpt=1 (queue active)
        10:00:02 mx postfix/smtp[4]: AAAAAA: to=<nobody@x>, relay=mx.x[203.0.113.1]:25, delay=2, dsn=5.1.1, status=bounced (no)
        10:00:02 mx postfix/qmgr[3]: AAAAAA: removed
        10:00:03 mx postfix/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=LOGIN, sasl_username=two
        10:00:03 mx postfix/qmgr[3]: AAAAAA: from=<two@x>, size=100, nrcpt=1 (queue active)
        10:00:04 mx postfix/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=LOGIN, sasl_username=three
        10:00:05 mx postfix/qmgr[3]: AAAAAA: from=<three@x>, size=100, nrcpt=1 (queue active)
        10:00:06 mx postfix/pickup[5]: AAAAAA: uid=0 from=<root>
        10:00:06 mx postfix/qmgr[3]: AAAAAA: from=<root@mx>, size=100, nrcpt=1 (queue active)
        10:00:07 mx postfix/local[4]: AAAAAA: to=<root@mx>, orig_to=<root>, relay=local, delay=2, dsn=2.0.0, status=sent (delivered to mailbox)
        10:00:08 mx postfix/smtpd[1]: BBBBBB: client=c[192.0.2.7], sasl_method=LOGIN, sasl_username=four
        10:00:09 mx postfix/smtpd[1]: BBBBBB: client=c[192.0.2.7], sasl_method=LOGIN, sasl_username=five";
    let stats = check(
        log,
        "10:00:00 auth one true LOGIN from 192.0.2.7
         10:00:00 send one AAAAAA via mx to 1 from 192.0.2.7
         10:00:03 auth two true LOGIN from 192.0.2.7
         10:00:03 send two AAAAAA via mx to 1 from 192.0.2.7
         10:00:04 auth three true LOGIN from 192.0.2.7
         10:00:05 send three AAAAAA via mx to 1 from 192.0.2.7
         10:00:08 auth four true LOGIN from 192.0.2.7
         10:00:09 auth five true LOGIN from 192.0.2.7",
    );
    assert_eq!((stats.messages, stats.ids_reused, stats.never_accepted), (7, 3, 2));
    assert_eq!(stats.messages_without_account, 2);
}

#[test]
fn expiry_ends_the_recipients_that_were_only_deferred() {
    let log = "
        10:00:00 mx postfix/smtpd[1]: 4G6yC35YlszCx5Pk: client=c[2001:db8::7], sasl_method=PLAIN, sasl_username=a@x
        10:00:00 mx postfix/qmgr[3]: 4G6yC35YlszCx5Pk: from=<a@x>, size=100, nrcpt=3 (queue active)
        10:00:01 mx postfix/smtp[4]: 4G6yC35YlszCx5Pk: to=<1@y>, relay=none, delay=2, dsn=4.4.1, status=deferred (no)
        10:00:01 mx postfix/smtp[4]: 4G6yC35YlszCx5Pk: to=<2@y>, relay=none, delay=2, dsn=4.4.1, status=deferred (no)
        10:00:01 mx postfix/smtp[4]: 4G6yC35YlszCx5Pk: to=<3@y>, relay=y[203.0.113.1]:25, delay=2, dsn=5.1.1, status=bounced (no)
        11:00:01 mx postfix/qmgr[3]: 4G6yC35YlszCx5Pk: to=<1@y>, relay=none, delay=2, dsn=4.4.1, status=deferred (delivery temporarily suspended)
        11:00:01 mx postfix/smtp[4]: 4G6yC35YlszCx5Pk: to=<2@y>, relay=y[203.0.113.1]:25, delay=2, dsn=2.0.0, status=sent (ok)
        12:00:01 mx postfix/qmgr[3]: 4G6yC35YlszCx5Pk: from=<a@x>, status=expired, returned to sender
        12:00:01 mx postfix/qmgr[3]: 4G6yC35YlszCx5Pk: removed";
    check(
        log,
        "10:00:00 auth a@x true PLAIN from 2001:db8::7
         10:00:00 send a@x 4G6yC35YlszCx5Pk via mx to 3 from 2001:db8::7
         10:00:01 deferred a@x 4G6yC35YlszCx5Pk via mx to 1@y 4.4.1
         10:00:01 deferred a@x 4G6yC35YlszCx5Pk via mx to 2@y 4.4.1
         10:00:01 bounced a@x 4G6yC35YlszCx5Pk via mx to 3@y 5.1.1
         11:00:01 deferred a@x 4G6yC35YlszCx5Pk via mx to 1@y 4.4.1
         11:00:01 delivered a@x 4G6yC35YlszCx5Pk via mx to 2@y 2.0.0
         12:00:01 expired a@x 4G6yC35YlszCx5Pk via mx to 1@y -",
    );
}

#[test]
fn failed_log_ins_and_what_our_own_host_refuses() {
    let log = "
        10:00:00 mx postfix/smtpd[1]: warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: UGFzc3dvcmQ6
        10:00:01 mx postfix/submission/smtpd[1]: warning: unknown[192.0.2.7]: SASL PLAIN authentication failed: (reason unavailable), sasl_username=Boss@x
        10:00:02 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from c[192.0.2.7]: 554 5.7.1 <a@b>: Relay access denied; from=<x@x> to=<a@b> proto=ESMTP helo=<c>
        10:00:03 mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from c[192.0.2.7]: 450 4.7.1 <x@x>: too many; from=<x@x> to=<a@b> proto=ESMTP helo=<c> sasl_username=<Boss@x>
        10:00:04 mx postfix/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=boss@x
        10:00:05 mx postfix/smtpd[1]: AAAAAA: reject: RCPT from c[192.0.2.7]: 550 5.1.1 <no@x>: User unknown; from=<x@x> to=<no@x> proto=ESMTP helo=<c>
        10:00:06 mx postfix/cleanup[1]: AAAAAA: milter-reject: END-OF-MESSAGE from c[192.0.2.7]: 5.7.1 Spam message rejected; from=<x@x> to=<yes@x> proto=ESMTP helo=<c>
        10:00:07 mx postfix/smtpd[1]: BBBBBB: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=boss@x
        10:00:07 mx postfix/cleanup[1]: BBBBBB: reject: header Subject: free from here; from=<no> to=<no> from c[192.0.2.7]; from=<x@x> to=<yes@x> proto=ESMTP helo=<c>: 5.7.1 no spam
        10:00:08 mx postfix/smtpd[1]: CCCCCC: client=c[192.0.2.7]
        10:00:08 mx postfix/smtpd[1]: CCCCCC: reject: RCPT from c[192.0.2.7]: 550 5.1.1 <no@x>: User unknown; from=<x@x> to=<no@x> proto=ESMTP helo=<c>";
    let stats = check(
        log,
        "10:00:00 auth - false LOGIN from 192.0.2.7
         10:00:01 auth boss@x false PLAIN from 192.0.2.7
         10:00:03 deferred boss@x - via - to a@b 4.7.1
         10:00:04 auth boss@x true PLAIN from 192.0.2.7
         10:00:05 rejected boss@x AAAAAA via - to no@x 5.1.1
         10:00:06 rejected boss@x AAAAAA via - to yes@x 5.7.1
         10:00:07 auth boss@x true PLAIN from 192.0.2.7
         10:00:07 rejected boss@x BBBBBB via - to yes@x 5.7.1",
    );
    assert_eq!((stats.never_accepted, stats.auth_failed, stats.rejected), (2, 2, 3));
}

#[test]
fn a_log_that_begins_in_the_middle() {
    let log = "
        10:00:00 mx postfix/smtp[4]: AAAAAA: to=<1@y>, relay=y[203.0.113.1]:25, delay=2, dsn=2.0.0, status=sent (250 ok)
        10:00:00 mx postfix/qmgr[3]: AAAAAA: removed
        10:00:01 mx postfix/qmgr[3]: BBBBBB: removed
        10:00:02 mx postfix/qmgr[3]: CCCCCC: from=<a@x>, size=100, nrcpt=3 (queue active)
        10:00:03 mx postfix/qmgr[3]: DDDDDD: from=<a@x>, status=expired, returned to sender";
    let stats = check(log, "");
    assert_eq!((stats.messages, stats.messages_without_start, stats.messages_without_account), (2, 2, 1));
}

#[test]
fn smtpd_and_agents_that_log_under_a_name_of_their_own() {
    let log = "
        10:00:00 mx smtps/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=a@x
        10:00:00 mx postfix/cleanup[2]: AAAAAA: message-id=<1@x>
        10:00:00 mx postfix/qmgr[3]: AAAAAA: from=<a@x>, size=100, nrcpt=1 (queue active)
        10:00:00 mx slow/smtp[3]: AAAAAA: to=<1@y>, relay=y[203.0.113.1]:25, delay=2, dsn=2.0.0, status=sent (250 ok)
        10:00:00 mx postfix/qmgr[3]: AAAAAA: removed
        10:00:01 mx smtps/smtpd[1]: BBBBBB: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=a@x
        10:00:01 mx postfix/qmgr[3]: BBBBBB: from=<a@x>, size=100, nrcpt=1 (queue active)";
    let stats = check(
        log,
        "10:00:00 auth a@x true PLAIN from 192.0.2.7
         10:00:00 send a@x AAAAAA via mx to 1 from 192.0.2.7
         10:00:00 delivered a@x AAAAAA via mx to 1@y 2.0.0
         10:00:01 auth a@x true PLAIN from 192.0.2.7
         10:00:01 send a@x BBBBBB via mx to 1 from 192.0.2.7",
    );
    assert_eq!((stats.messages, stats.messages_without_start), (2, 0));
}

#[test]
fn broken_lines_are_counted_and_harm_nothing() {
    let mut postfix = Postfix::new(Options::default());
    let mut events = Vec::new();
    let mut sink = |event: &Event<'_>| events.push(show(event));
    let lines: [&[u8]; 9] = [
        b"mx postfix/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=J\xf6rg@x\r\n",
        b"mx postfix/qmgr[3]: AAAAAA: from=<a@x>, size=100, nr",
        b"mx postfix/qmgr[3]: AAAAAA: from=<a@x>, size=100, nrcpt=1 (queue active)\r",
        b"mx postfix/smtp[4]: AAAAAA: to=<1@y>, relay=y[203.0.113.1]:25, delay=2, dsn=2.",
        b"mx postfix/smtp[4]: AAAAAA: to=<\xff@y>, relay=y[203.0.113.1]:25, delay=2, dsn=2.0.0, status=sent (250 \xff",
        b"mx postfix/smtpd[1]: BBBBBB: client=",
        b"mx postfix/smtpd[1]: NOQUEUE: reject: RCPT from c[192.0.2.7]: 554 5.7.1 <a@",
        b"mx",
        b"",
    ];
    for line in lines {
        postfix.push(Timestamp(1_000), line, &mut sink);
    }
    let stats = postfix.stats().clone();
    assert_eq!((stats.lines, stats.lines_unparsed, stats.lines_foreign), (9, 3, 2));
    assert_eq!(events.len(), 3);
    assert!(events[2].contains("to \u{fffd}@y"), "{}", events[2]);
    assert!(events[0].contains("j\u{fffd}rg@x"), "{}", events[0]);
}

#[test]
fn probes_deliver_nothing_and_soft_bounces_are_tried_again() {
    let log = "
        10:00:00 mx postfix/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=a@x
        10:00:00 mx postfix/qmgr[3]: AAAAAA: from=<a@x>, size=100, nrcpt=1 (queue active)
        10:00:00 mx postfix/smtp[3]: AAAAAA: to=<1@y>, relay=y[203.0.113.1]:25, delay=2, dsn=5.1.1, status=undeliverable (no)
        10:00:00 mx postfix/smtp[3]: AAAAAA: to=<1@y>, relay=y[203.0.113.1]:25, delay=2, dsn=5.1.1, status=SOFTBOUNCE (no)
        10:00:00 mx postfix/smtp[3]: AAAAAA: to=<1@y>, relay=y[203.0.113.1]:25, delay=2, dsn=5.1.1, status=strange (no)";
    let (events, stats) = read(log);
    assert_same(&events[2..], "10:00:00 deferred a@x AAAAAA via mx to 1@y 5.1.1");
    assert_eq!((stats.probes, stats.lines_unparsed), (1, 1));
}
