//! Messages that pass several own hosts.

use super::*;

/// The submission host's half, but for the delivery line.
const FIRST: &str = "
    10:00:00 sub postfix/submission/smtpd[1]: AAAAAA: client=c[192.0.2.7], sasl_method=PLAIN, sasl_username=a@x
    10:00:00 sub postfix/cleanup[2]: AAAAAA: message-id=<1@x>
    10:00:00 sub postfix/qmgr[3]: AAAAAA: from=<a@x>, size=100, nrcpt=1 (queue active)";

fn handed_over(time: &str, relay: &str, reply: &str) -> String {
    format!(
        "{time} sub postfix/smtp[4]: AAAAAA: to=<1@y>, relay={relay}, delay=2, dsn=2.0.0, status=sent ({reply})
         {time} sub postfix/qmgr[3]: AAAAAA: removed"
    )
}

/// The relay's half of a message that bounces at the recipient's.
fn second(time: &str, host: &str, client: &str, id: &str, message_id: &str) -> String {
    format!(
        "{time} {host}/smtpd[1]: {id}: client={client}
         {time} {host}/cleanup[1]: {id}: message-id=<{message_id}>
         {time} {host}/qmgr[1]: {id}: from=<a@x>, size=100, nrcpt=1 (queue active)
         {time} {host}/smtp[1]: {id}: to=<1@y>, relay=mx.y[203.0.113.1]:25, delay=2, dsn=5.1.1, status=bounced (no)
         {time} {host}/qmgr[1]: {id}: removed"
    )
}

const SENT: &str = "10:00:00 auth a@x true PLAIN from 192.0.2.7
                    10:00:00 send a@x AAAAAA via sub to 1 from 192.0.2.7";

/// One bounce of the account's message through `relay`, and nothing else after log-in and send.
#[track_caller]
fn check_bounce(options: Options, log: &str, sent_via: &str, relay: &str) -> Stats {
    let (events, stats) = read_with(options, log);
    let time = events.last().unwrap()[..8].to_owned();
    let sent = SENT.replace("via sub", &format!("via {sent_via}"));
    assert_same(&events, &format!("{sent}\n{time} bounced a@x AAAAAA via {relay} to 1@y 5.1.1"));
    assert_eq!((stats.handovers_tied, stats.handovers_unmatched), (1, 0));
    assert_eq!((stats.messages_without_account, stats.held_dropped), (0, 0));
    stats
}

fn own(hosts: &[&str]) -> Options {
    Options { own_hosts: hosts.iter().map(|h| (*h).to_owned()).collect(), ..Options::default() }
}

#[test]
fn whichever_half_comes_first() {
    // Neither host is configured: the relay's is known by its name in these logs or by its first label.
    for relay in ["out1[10.0.0.2]:25", "out1.example.com[10.0.0.2]:25", "balancer[10.0.0.9]:25"] {
        let hand_over = handed_over("10:00:01", relay, "250 2.0.0 Ok: queued as BBBBBB");
        let next = second("10:00:01", "out1 postfix", "sub[10.0.0.1]", "BBBBBB", "1@x");
        check_bounce(Options::default(), &format!("{FIRST}\n{next}\n{hand_over}"), "sub", "out1");
        check_bounce(Options::default(), &format!("{FIRST}\n{hand_over}\n{next}"), "sub", "out1");
    }
}

#[test]
fn a_configured_relay_is_waited_for() {
    for (host, relay) in [
        ("out1", "out1.example.com[10.0.0.2]:25"),
        ("10.0.0.2", "vip[10.0.0.2]:25"),
        ("OUT1.example.com", "out1[10.0.0.2]:25"),
    ] {
        let hand_over = handed_over("10:00:01", relay, "250 2.0.0 Ok: queued as BBBBBB");
        let next = second("10:00:50", "out1 postfix", "sub[10.0.0.1]", "BBBBBB", "1@x");
        check_bounce(own(&[host]), &format!("{FIRST}\n{hand_over}\n{next}"), "-", "out1");
    }
}

#[test]
fn a_balancer_before_two_relays_that_use_the_same_id_at_the_same_time() {
    let hand_over = handed_over("10:00:01", "haproxy[10.0.0.9]:25", "250 2.0.0 Ok: queued as BBBBBB");
    let other = second("10:00:00", "out1 postfix", "sub[10.0.0.9]", "BBBBBB", "other@x");
    let ours = second("10:00:00", "out2 postfix", "sub[10.0.0.9]", "BBBBBB", "1@x");
    for log in [format!("{FIRST}\n{other}\n{ours}\n{hand_over}"), format!("{FIRST}\n{ours}\n{other}\n{hand_over}")] {
        let (events, stats) = read(&log);
        assert_same(&events[2..], "10:00:00 bounced a@x AAAAAA via out2 to 1@y 5.1.1");
        assert_eq!((stats.handovers_tied, stats.messages_without_account), (1, 1));
    }
}

#[test]
fn once_a_host_hands_over_its_sends_name_no_relay() {
    let hand_over = handed_over("10:00:01", "out1[10.0.0.2]:25", "250 2.0.0 Ok: queued as BBBBBB");
    let next = second("10:00:01", "out1 postfix", "sub[10.0.0.1]", "BBBBBB", "1@x");
    let log = format!("{FIRST}\n{next}\n{hand_over}\n{}", FIRST.replace("10:00:00", "10:00:02"));
    let (events, _) = read(&log);
    assert_eq!(events.last().unwrap(), "10:00:02 send a@x AAAAAA via - to 1 from 192.0.2.7");
}

#[test]
fn a_filter_on_the_same_host() {
    let reply = "250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as BBBBBB";
    let hand_over = handed_over("10:00:01", "127.0.0.1[127.0.0.1]:10024", reply);
    let next = second("10:00:01", "sub postfix", "localhost[127.0.0.1]", "BBBBBB", "1@x");
    check_bounce(Options::default(), &format!("{FIRST}\n{next}\n{hand_over}"), "sub", "sub");
    check_bounce(Options::default(), &format!("{FIRST}\n{hand_over}\n{next}"), "sub", "sub");
    // The first queue knows no Message-ID, the filter adds one.
    let nameless = FIRST.replace("<1@x>", "<>");
    check_bounce(Options::default(), &format!("{nameless}\n{next}\n{hand_over}"), "sub", "sub");
    check_bounce(Options::default(), &format!("{nameless}\n{hand_over}\n{next}"), "sub", "sub");
}

#[test]
fn a_filter_that_names_no_id_is_followed_by_message_id() {
    let hand_over = handed_over("10:00:01", "127.0.0.1[127.0.0.1]:10024", "250 accepted");
    let next = second("10:00:01", "sub postfix", "localhost[127.0.0.1]", "BBBBBB", "1@x");
    let stats = check_bounce(Options::default(), &format!("{FIRST}\n{next}\n{hand_over}"), "sub", "sub");
    assert_eq!(stats.tied_by_message_id, 1);
    let stats = check_bounce(Options::default(), &format!("{FIRST}\n{hand_over}\n{next}"), "sub", "sub");
    assert_eq!(stats.tied_by_message_id, 1);
    // It names an id of its own, that no log knows.
    let reply = "250 queued as 12345678";
    let hand_over = handed_over("10:00:01", "127.0.0.1[127.0.0.1]:10024", reply);
    let stats = check_bounce(Options::default(), &format!("{FIRST}\n{hand_over}\n{next}"), "sub", "sub");
    assert_eq!(stats.tied_by_message_id, 1);
}

#[test]
fn a_filter_that_tells_the_id_before() {
    let next = second(
        "10:00:01",
        "sub postfix",
        "localhost[127.0.0.1], orig_queue_id=AAAAAA, orig_client=c[192.0.2.7]",
        "BBBBBB",
        "2@x",
    );
    let (events, stats) = read(&format!("{FIRST}\n{next}"));
    assert_same(&events[2..], "10:00:01 bounced a@x AAAAAA via sub to 1@y 5.1.1");
    assert_eq!(stats.messages_without_account, 0);
}

#[test]
fn instances_on_one_host() {
    let hand_over = handed_over("10:00:01", "127.0.0.2[127.0.0.2]:2525", "250 2.0.0 Ok: queued as BBBBBB");
    let ours = second("10:00:01", "sub postfix-out2", "localhost[127.0.0.1]", "BBBBBB", "1@x");
    let other = second("10:00:01", "sub postfix-out1", "localhost[127.0.0.1]", "BBBBBB", "3@x");
    for log in [format!("{FIRST}\n{other}\n{ours}\n{hand_over}"), format!("{FIRST}\n{hand_over}\n{other}\n{ours}")] {
        let (events, stats) = read(&log);
        assert_same(&events[2..], "10:00:01 bounced a@x AAAAAA via sub/postfix-out2 to 1@y 5.1.1");
        assert_eq!(stats.handovers_tied, 1);
    }
}

#[test]
fn three_hosts_in_any_order() {
    let a = format!("{FIRST}\n{}", handed_over("10:00:01", "filter[10.0.0.2]:25", "250 2.0.0 Ok: queued as BBBBBB"));
    let b = "10:00:01 filter postfix/smtpd[1]: BBBBBB: client=sub[10.0.0.1]
             10:00:01 filter postfix/cleanup[1]: BBBBBB: message-id=<1@x>
             10:00:01 filter postfix/qmgr[1]: BBBBBB: from=<a@x>, size=100, nrcpt=1 (queue active)
             10:00:01 filter postfix/smtp[1]: BBBBBB: to=<1@y>, relay=out1[10.0.0.3]:25, delay=2, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as CCCCCC)
             10:00:01 filter postfix/qmgr[1]: BBBBBB: removed";
    let c = second("10:00:01", "out1 postfix", "filter[10.0.0.2]", "CCCCCC", "1@x");
    let hello = "09:59:59 out1 postfix/smtpd[1]: connect from sub[10.0.0.1]";
    let b = b.to_owned();
    for parts in [[&a, &b, &c], [&a, &c, &b], [&b, &a, &c], [&b, &c, &a], [&c, &a, &b], [&c, &b, &a]] {
        let log = format!("{hello}\n{}\n{}\n{}", parts[0], parts[1], parts[2]);
        let (events, stats) = read_with(own(&["filter", "out1"]), &log);
        let bounces: Vec<_> = events.iter().filter(|e| !e.contains("auth") && !e.contains("send")).cloned().collect();
        assert_same(&bounces, "10:00:01 bounced a@x AAAAAA via out1 to 1@y 5.1.1");
        assert_eq!(stats.handovers_tied, 2, "{log}");
    }
}

#[test]
fn a_hand_over_whose_other_half_is_missing_counts_as_delivered() {
    let hand_over = handed_over("10:00:01", "127.0.0.1[127.0.0.1]:10024", "250 2.0.0 Ok: queued as BBBBBB");
    let later = "10:05:00 sub postfix/smtpd[1]: connect from c[192.0.2.7]";
    for log in [format!("{FIRST}\n{hand_over}"), format!("{FIRST}\n{hand_over}\n{later}")] {
        let stats = check(&log, &format!("{SENT}\n10:00:01 delivered a@x AAAAAA via - to 1@y 2.0.0"));
        assert_eq!((stats.handovers_unmatched, stats.handovers_tied), (1, 0));
    }
}

#[test]
fn a_foreign_server_cannot_make_its_deliveries_vanish() {
    // It names an id of ours that is open, of another message.
    let other = second("10:00:00", "sub postfix", "c[192.0.2.9]", "BBBBBB", "other@x");
    let hand_over = handed_over("10:00:01", "mx.evil[203.0.113.66]:25", "250 2.0.0 Ok: queued as BBBBBB");
    let expected = format!("{SENT}\n10:00:01 delivered a@x AAAAAA via sub to 1@y 2.0.0");
    check(&format!("{FIRST}\n{other}\n{hand_over}"), &expected);
    // It names the message's own id.
    let hand_over = handed_over("10:00:01", "mx.evil[203.0.113.66]:25", "250 2.0.0 Ok: queued as AAAAAA");
    check(&format!("{FIRST}\n{hand_over}"), &expected);
    // With logs of several hosts it waits two seconds, for the lines of the same second.
    let two = "09:00:00 out1 postfix/smtpd[1]: connect from c[192.0.2.7]";
    check(&format!("{two}\n{FIRST}\n{hand_over}"), &expected);
}

#[test]
fn mail_of_no_account_stays_so_and_its_host_may_be_called_like_a_foreign_one() {
    let first = FIRST.replace("sub ", "mail ");
    let other = second("10:00:00", "relay postfix", "c[192.0.2.9]", "BBBBBB", "other@x");
    let hand_over = handed_over("10:00:01", "mail.big.example[203.0.113.66]:25", "250 2.0.0 Ok: queued as DDDDDD");
    let (events, stats) = read(&format!("{first}\n{other}\n{}", hand_over.replace("sub ", "mail ")));
    assert_same(&events[2..], "10:00:01 delivered a@x AAAAAA via mail to 1@y 2.0.0");
    assert_eq!((stats.messages_without_account, stats.outcomes), (1, 1));
}

#[test]
fn a_refusal_by_an_own_relay_is_an_outcome_without_a_relay() {
    let log = format!(
        "{FIRST}
         10:00:01 sub postfix/smtp[4]: AAAAAA: to=<1@y>, relay=out1[10.0.0.2]:25, delay=2, dsn=5.1.1, status=bounced (host out1 said: 550 no)"
    );
    let (events, _) = read_with(own(&["out1"]), &log);
    assert_same(&events[2..], "10:00:01 bounced a@x AAAAAA via - to 1@y 5.1.1");
}

#[test]
fn a_host_that_shows_up_after_the_hand_over_keeps_the_account() {
    // The first host has logged alone for a while: its delivery is believed, once.
    let hello = "09:00:00 sub postfix/smtpd[1]: connect from c[192.0.2.7]";
    let hand_over = handed_over("10:00:01", "out1[10.0.0.2]:25", "250 2.0.0 Ok: queued as BBBBBB");
    let next = second("10:00:01", "out1 postfix", "sub[10.0.0.1]", "BBBBBB", "1@x");
    let (events, stats) = read(&format!("{hello}\n{FIRST}\n{hand_over}\n{next}"));
    assert_same(
        &events[2..],
        "10:00:01 delivered a@x AAAAAA via sub to 1@y 2.0.0
         10:00:01 bounced a@x AAAAAA via out1 to 1@y 5.1.1",
    );
    assert_eq!((stats.tied_late, stats.messages_without_account), (1, 0));
}

#[test]
fn a_filter_that_names_no_id_gets_several_recipients() {
    let two: String = (1..=2)
        .map(|i| format!("10:00:01 sub postfix/smtp[4]: AAAAAA: to=<{i}@y>, relay=127.0.0.1[127.0.0.1]:10024, delay=2, dsn=2.0.0, status=sent (250 ok)\n"))
        .collect();
    let next = second("10:00:01", "sub postfix", "localhost[127.0.0.1]", "BBBBBB", "1@x");
    let other_part = second("10:00:01", "sub postfix", "localhost[127.0.0.1]", "CCCCCC", "1@x");
    for log in [format!("{FIRST}\n{two}\n{next}\n{other_part}"), format!("{FIRST}\n{next}\n{two}\n{other_part}")] {
        let (events, stats) = read(&log);
        let bounce = "10:00:01 bounced a@x AAAAAA via sub to 1@y 5.1.1";
        assert_same(&events[2..], &format!("{bounce}\n{bounce}"));
        assert_eq!((stats.handovers_tied, stats.messages_without_account), (2, 0));
    }
}

#[test]
fn several_recipients_wait_together() {
    let five: String = (1..=5)
        .map(|i| format!("10:00:01 sub postfix/smtp[4]: AAAAAA: to=<{i}@y>, relay=127.0.0.1[127.0.0.1]:10024, delay=2, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as BBBBBB)\n"))
        .collect();
    let next = second("10:00:02", "sub postfix", "localhost[127.0.0.1]", "BBBBBB", "1@x");
    let (events, stats) = read(&format!("{FIRST}\n{five}\n{next}"));
    assert_same(&events[2..], "10:00:02 bounced a@x AAAAAA via sub to 1@y 5.1.1");
    assert_eq!(stats.handovers_tied, 5);
}
