//! However long and strange the log: no panic, bounded state.

use super::*;
use proptest::prelude::*;

#[test]
fn the_longest_idle_message_is_given_up() {
    let options = Options { max_open_messages: 2, ..Options::default() };
    let log = "
        10:00:00 mx postfix/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=a@x
        10:00:00 mx postfix/qmgr[3]: AAAAAA: from=<a@x>, size=100, nrcpt=1 (queue active)
        10:00:01 mx postfix/smtpd[1]: BBBBBB: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=b@x
        10:00:01 mx postfix/qmgr[3]: BBBBBB: from=<b@x>, size=100, nrcpt=1 (queue active)
        10:00:02 mx postfix/smtp[4]: AAAAAA: to=<1@y>, relay=none, delay=2, dsn=4.4.1, status=deferred (no)
        10:00:03 mx postfix/smtpd[1]: CCCCCC: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=c@x
        10:00:04 mx postfix/smtp[4]: AAAAAA: to=<1@y>, relay=none, delay=2, dsn=4.4.1, status=deferred (no)
        10:00:04 mx postfix/smtp[4]: BBBBBB: to=<1@y>, relay=none, delay=2, dsn=4.4.1, status=deferred (no)";
    let (events, stats) = read_with(options, log);
    assert_eq!(events.iter().filter(|e| e.contains("deferred a@x")).count(), 2);
    assert_eq!(events.iter().filter(|e| e.contains("deferred b@x")).count(), 0);
    assert_eq!(stats.given_up_full, 2);
}

#[test]
fn a_message_is_given_up_for_silence_in_event_time() {
    let options = Options { idle_s: 600, ..Options::default() };
    let log = "
        10:00:00 mx postfix/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=a@x
        10:00:00 mx postfix/qmgr[3]: AAAAAA: from=<a@x>, size=100, nrcpt=1 (queue active)
        10:09:59 mx postfix/smtp[4]: AAAAAA: to=<1@y>, relay=none, delay=2, dsn=4.4.1, status=deferred (no)
        10:30:00 mx postfix/smtp[4]: AAAAAA: to=<1@y>, relay=none, delay=2, dsn=4.4.1, status=deferred (no)";
    let (events, stats) = read_with(options, log);
    assert_eq!(events.len(), 3);
    assert_eq!(stats.given_up_idle, 1);
}

#[test]
fn recipients_are_kept_up_to_a_bound() {
    let options = Options { max_recipients: 3, ..Options::default() };
    let mut log = "
        10:00:00 mx postfix/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=a@x
        10:00:00 mx postfix/qmgr[3]: AAAAAA: from=<a@x>, size=100, nrcpt=5 (queue active)\n"
        .to_owned();
    for i in 0..5 {
        log += &format!(
            "10:00:0{i} mx postfix/smtp[4]: AAAAAA: to=<{i}@y>, relay=none, delay=2, dsn=4.4.1, status=deferred (no)\n"
        );
    }
    log += "10:00:09 mx postfix/qmgr[3]: AAAAAA: from=<a@x>, status=expired, returned to sender";
    let (_, stats) = read_with(options, &log);
    assert_eq!((stats.deferred, stats.expired, stats.recipients_untracked), (5, 3, 2));
}

#[test]
fn one_wrong_stamp_does_not_end_the_open_messages() {
    let mut postfix = Postfix::new(Options::default());
    let mut events = 0;
    let mut push = |s: i64, line: &str| {
        postfix.push(Timestamp(s * 1000), line.as_bytes(), &mut |_: &Event<'_>| events += 1);
        postfix.open_messages()
    };
    push(1, "mx postfix/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=a@x");
    assert_eq!(push(900_000_000, "mx postfix/smtpd[1]: connect from c[192.0.2.7]"), 1);
    assert_eq!(push(2, "mx postfix/smtpd[1]: connect from c[192.0.2.7]"), 1);
    push(900_000_000, "mx postfix/smtpd[1]: connect from c[192.0.2.7]");
    assert_eq!(push(900_000_001, "mx postfix/smtpd[1]: connect from c[192.0.2.7]"), 0);
}

#[test]
fn a_log_that_begins_with_a_wrong_stamp_does_not_wait_for_it() {
    let mut postfix = Postfix::new(Options::default());
    let mut events = 0;
    let mut push = |s: i64, line: &str| {
        postfix.push(Timestamp(s * 1000), line.as_bytes(), &mut |_: &Event<'_>| events += 1);
        postfix.open_messages()
    };
    assert_eq!(push(900_000_000, "mx postfix/smtpd[1]: AAAAAA: client=c[192.0.2.7]"), 1);
    assert_eq!(push(1, "mx postfix/smtpd[1]: BBBBBB: client=c[192.0.2.7]"), 2);
    assert_eq!(push(2, "mx postfix/smtpd[1]: CCCCCC: client=c[192.0.2.7]"), 3);
    assert_eq!(push(3_603, "mx postfix/smtpd[1]: connect from c[192.0.2.7]"), 0);
}

/// Lines as they are, with a place for ids; few hosts, ids and Message-IDs, so that they meet.
const LINES: &[&str] = &[
    "postfix/smtpd[1]: ID: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=A@x",
    "postfix/smtpd[1]: ID: client=localhost[127.0.0.1]",
    "postfix/smtpd[1]: ID: client=localhost[127.0.0.1], orig_queue_id=ID, orig_client=c[192.0.2.7]",
    "smtps/smtpd[1]: ID: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=b@x, sasl_sender=<x>",
    "postfix/pickup[1]: ID: uid=0 from=<root>",
    "postfix/cleanup[1]: ID: message-id=<1@x>",
    "postfix/cleanup[1]: ID: message-id=<2@x>",
    "postfix/cleanup[1]: ID: message-id=<>",
    "postfix/cleanup[1]: ID: milter-reject: END-OF-MESSAGE from c[192.0.2.7]: 5.7.1 no; from=<x@x> to=<yes@x> proto=ESMTP helo=<c>",
    "postfix/qmgr[1]: ID: from=<a@x>, size=100, nrcpt=2 (queue active)",
    "postfix/qmgr[1]: ID: from=<>, size=100, nrcpt=1 (queue active)",
    "postfix/qmgr[1]: ID: from=<a@x>, status=expired, returned to sender",
    "postfix/qmgr[1]: ID: removed",
    "postfix/smtp[1]: ID: to=<1@y>, relay=none, delay=2, dsn=4.4.1, status=deferred (no)",
    "postfix/smtp[1]: ID: to=<2@y>, orig_to=<z>, relay=y[203.0.113.1]:25, conn_use=2, delay=2, dsn=4.4.1, status=deferred (no)",
    "postfix/smtp[1]: ID: to=<1@y>, relay=y[203.0.113.1]:25, delay=2, dsn=5.1.1, status=bounced (no)",
    "postfix/smtp[1]: ID: to=<1@y>, relay=127.0.0.1[127.0.0.1]:10024, delay=2, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as ID)",
    "postfix/smtp[1]: ID: to=<2@y>, relay=vip[10.0.0.9]:25, delay=2, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as ID)",
    "postfix/smtp[1]: ID: to=<2@y>, relay=h1[10.0.0.9]:25, delay=2, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as ID)",
    "postfix/smtp[1]: ID: to=<2@y>, relay=127.0.0.1[127.0.0.1]:10024, delay=2, dsn=2.0.0, status=sent (250 ok)",
    "postfix/lmtp[1]: ID: to=<2@y>, relay=h1[private/dovecot], delay=2, dsn=2.0.0, status=sent (250 ok)",
    "postfix/smtpd[1]: warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: x, sasl_username=y",
    "postfix/smtpd[1]: NOQUEUE: reject: RCPT from c[192.0.2.7]: 450 4.7.1 <x@x>: no; from=<x@x> to=<a@b> proto=ESMTP helo=<c> sasl_username=<B@x>",
    "postfix-out1/qmgr[1]: ID: removed",
    "postfix-out1/smtpd[1]: ID: client=localhost[127.0.0.1]",
    "postfix-out1/cleanup[1]: ID: message-id=<1@x>",
    "dovecot: lmtp(1): x",
];

#[derive(Debug, Clone)]
struct Step {
    wait_ms: i64,
    host: u8,
    line: usize,
    ids: (u8, u8),
    /// Where the line is broken, and by what byte.
    broken: Option<(usize, u8)>,
    cut: Option<usize>,
}

fn step() -> impl Strategy<Value = Step> {
    let wait = prop_oneof![8 => -500i64..1_500, 1 => -200_000_000i64..200_000_000];
    let broken = prop::option::weighted(0.1, (0usize..200, any::<u8>()));
    let cut = prop::option::weighted(0.05, 0usize..200);
    (wait, 0u8..3, 0..LINES.len(), (0u8..5, 0u8..5), broken, cut)
        .prop_map(|(wait_ms, host, line, ids, broken, cut)| Step { wait_ms, host, line, ids, broken, cut })
}

impl Step {
    fn text(&self) -> Vec<u8> {
        let id = |n: u8| format!("{n}BCDEF");
        let text = LINES[self.line].replacen("ID", &id(self.ids.0), 1).replacen("ID", &id(self.ids.1), 1);
        let mut text = format!("h{} {text}", self.host).into_bytes();
        if let Some((at, byte)) = self.broken {
            let len = text.len();
            text[at % len] = byte;
        }
        if let Some(at) = self.cut {
            text.truncate(at);
        }
        text
    }
}

fn run(options: Options, steps: &[Step]) -> (Vec<String>, Stats) {
    let (open_max, kept_max) = (options.max_open_messages.max(1) as usize, options.max_recipients_total as usize);
    let mut postfix = Postfix::new(options);
    let mut events = Vec::new();
    let mut ts = 1_700_000_000_000;
    for step in steps {
        ts += step.wait_ms;
        postfix.push(Timestamp(ts), &step.text(), &mut |event: &Event<'_>| events.push(show(event)));
        assert!(postfix.open_messages() <= open_max, "{} open", postfix.open_messages());
        assert!(postfix.recipients_kept() <= kept_max, "{} kept", postfix.recipients_kept());
    }
    postfix.finish(&mut |event: &Event<'_>| events.push(show(event)));
    assert_eq!((postfix.open_messages(), postfix.recipients_kept()), (0, 0));
    let stats = postfix.stats().clone();
    let sum = stats.delivered + stats.bounced + stats.deferred + stats.rejected + stats.expired;
    assert_eq!((stats.outcomes, stats.lines), (sum, steps.len() as u64));
    assert_eq!(events.len() as u64, stats.outcomes + stats.sends + stats.auth_ok + stats.auth_failed);
    (events, stats)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..40)) {
        let mut postfix = Postfix::new(Options::default());
        for line in &lines {
            postfix.push(Timestamp(0), line, &mut |_: &Event<'_>| {});
        }
        postfix.finish(&mut |_: &Event<'_>| {});
    }

    #[test]
    fn mixed_and_broken_lines(steps in prop::collection::vec(step(), 0..300), open in 0u32..6, kept in 0u32..6) {
        let small = Options { max_open_messages: open, max_recipients: kept, max_recipients_total: kept * 2, ..Options::default() };
        run(small, &steps);
        let (events, _) = run(Options::default(), &steps);
        // The same input gives the same events, though hash tables are seeded anew.
        prop_assert_eq!(events, run(Options::default(), &steps).0);
    }

    #[test]
    fn no_more_outcomes_than_attempts_and_one_send_per_log_in(steps in prop::collection::vec(step(), 0..300)) {
        let (_, stats) = run(Options::default(), &steps);
        prop_assert!(stats.delivered + stats.bounced <= stats.attempts);
        prop_assert!(stats.sends <= stats.auth_ok);
    }
}
