//! Small real logs, each for something that is hard to read, against counts taken by reading them.

use crate::common;

use bstr::ByteSlice;
use common::shared;
use flate2::read::GzDecoder;
use mailfuse::event::{Event, Kind};
use mailfuse::logs::postfix::{Options, Postfix, Stats};
use mailfuse::logs::stamp::{StampOptions, Stamper};
use std::collections::BTreeMap;
use std::io::Read;

/// Name, and what reading the log by eye gives. Messages are those of every queue that they pass: a filter on the
/// same host makes two of one. A tied recipient was handed over and found again; `taken` are messages that the queue
/// manager took, `bare` those of them without an account, `mid` those whose beginning is not in the log.
#[rustfmt::skip]
const EXPECTED: &[(&str, &str)] = &[
    ("1_bounce_simple", "messages 3 taken 3 bare 1 attempts 3 sends 1 bounced 1 auth_ok 1 tied 1"),
    ("2_multiple_recipients_some_bounces", "messages 3 taken 3 bare 1 attempts 11 sends 1 delivered 2 bounced 3 auth_ok 1 tied 5"),
    ("2_multiple_recipients_some_bounces_no_last_remove", "messages 3 taken 3 bare 1 attempts 11 sends 1 delivered 2 bounced 3 auth_ok 1 tied 5"),
    ("3_local_delivery", "messages 2 taken 2 attempts 2 sends 1 delivered 1 auth_ok 1 tied 1"),
    ("4_lost_queue", "messages 8 taken 8 attempts 8 sends 4 delivered 4 auth_ok 4 tied 4"),
    ("5_zimbra_amavisd", "messages 3 taken 3 attempts 3 sends 1 delivered 1 auth_ok 1 tied 2"),
    ("6_deferred_message_retry", "messages 6 mid 5 taken 3 bare 3 attempts 7"),
    ("7_only_connections_and_disconnections", ""),
    ("8_weird_log_file", "messages 2 taken 2 bare 2 attempts 2"),
    ("9_mixed_messages", "messages 6 taken 6 bare 2 attempts 14 sends 2 delivered 2 bounced 4 auth_ok 2 tied 6"),
    ("10_pickup", "messages 2 taken 2 bare 2 attempts 2"),
    ("11_single_successful_delivery", "messages 2 taken 2 attempts 2 sends 1 delivered 1 auth_ok 1 tied 1"),
    ("12_two_independent_deliveries_in_the_same_smtpd_process_in_order", "messages 4 taken 4 attempts 4 sends 2 delivered 2 auth_ok 2 tied 2"),
    ("12_two_independent_deliveries_in_the_same_smtpd_process_mixed", "messages 4 taken 4 attempts 4 sends 2 delivered 2 auth_ok 2 tied 2"),
    ("13_empty_msgid_issue_388", "messages 2 taken 2 attempts 2 sends 1 delivered 1 auth_ok 1 tied 1"),
    ("14_reuse_of_queueid", "messages 72 taken 72 bare 72 attempts 67"),
    ("15_milter-reject", "messages 1"),
    ("16_corrupted_messageid", "messages 1 taken 1 bare 1 attempts 1 auth_failed 1"),
    ("17-smtpd-reject", "messages 1 rejected 1 auth_ok 1 never_accepted 1"),
    ("17-smtpd-reject-with-milter-reject", "messages 1"),
    ("18_expired", "messages 3 mid 1 taken 2 bare 2 attempts 7"),
    ("18_pickup2", "messages 1 taken 1 bare 1 attempts 1"),
    ("19_postfix_version", ""),
    ("20_rejected", "messages 1 deferred 1 auth_ok 1 never_accepted 1"),
    ("21_deliveries_with_local_daemon", "messages 5 taken 5 bare 5 attempts 5"),
    ("22_virtual_delivery", "messages 1 taken 1 bare 1 attempts 1"),
    ("25_authclean_cleanup", "messages 1 taken 1 attempts 1 sends 1 delivered 1 auth_ok 1"),
    ("26_two_recipients", "messages 1 taken 1 attempts 2 sends 1 delivered 2 auth_ok 1"),
    ("27_one_sent_one_received", "messages 2 taken 2 bare 1 attempts 2 sends 1 delivered 1 auth_ok 1"),
    ("28_received_bounce", "messages 1 taken 1 bare 1 attempts 1"),
    ("29_inbound_relayed_message_server_1", "messages 1 taken 1 attempts 1 sends 1 delivered 1 auth_ok 1"),
    ("29_inbound_relayed_message_server_2", "messages 1 taken 1 bare 1 attempts 1"),
    ("30_in_reply_to_header", "messages 1 taken 1 attempts 1 sends 1 delivered 1 auth_ok 1"),
    ("31_inbound_reply", "messages 2 taken 2 bare 1 attempts 2 sends 1 delivered 1 auth_ok 1"),
    ("31_relayed_bounce", "messages 2 taken 2 bare 1 attempts 2 sends 1 delivered 1 auth_ok 1"),
    ("33_delivery_with_remote_id", "messages 1 taken 1 attempts 1 sends 1 delivered 1 auth_ok 1"),
];

fn show(stats: &Stats) -> String {
    let figures = [
        ("messages", stats.messages),
        ("mid", stats.messages_without_start),
        ("taken", stats.messages_taken),
        ("bare", stats.messages_without_account),
        ("attempts", stats.attempts),
        ("sends", stats.sends),
        ("delivered", stats.delivered),
        ("bounced", stats.bounced),
        ("deferred", stats.deferred),
        ("rejected", stats.rejected),
        ("expired", stats.expired),
        ("auth_ok", stats.auth_ok),
        ("auth_failed", stats.auth_failed),
        ("tied", stats.handovers_tied),
        ("never_accepted", stats.never_accepted),
        ("unmatched", stats.handovers_unmatched),
        ("unparsed", stats.lines_unparsed),
        ("reused", stats.ids_reused),
        ("given_up", stats.given_up_idle + stats.given_up_full + stats.held_dropped + stats.recipients_untracked),
    ];
    let some = figures.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}"));
    some.collect::<Vec<_>>().join(" ")
}

fn unpack() -> Option<BTreeMap<String, Vec<u8>>> {
    let file = std::fs::File::open(shared("data/logs/lightmeter-individual_files.tar.gz")?).unwrap();
    let mut logs = BTreeMap::new();
    for entry in tar::Archive::new(GzDecoder::new(file)).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        if path.extension().is_some_and(|e| e == "log") {
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            logs.insert(path.file_stem().unwrap().to_string_lossy().into_owned(), text);
        }
    }
    Some(logs)
}

/// Reads logs merged by their stamps, the first one's lines first where they are equal.
fn read(logs: &[&[u8]], sink: &mut impl FnMut(&Event<'_>)) -> Stats {
    let mut lines = Vec::new();
    for log in logs {
        let mut stamper = Stamper::new(StampOptions { year: Some(2022), ..StampOptions::default() });
        for line in log.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            match stamper.stamp(line) {
                Some((ts, at)) => lines.push((ts, &line[at..])),
                // One line of 18_expired is broken in two.
                None => assert!(matches!(line.trim_ascii(), b"" | b"ir/)"), "{:?} has no stamp", line.as_bstr()),
            }
        }
    }
    if logs.len() > 1 {
        lines.sort_by_key(|(ts, _)| *ts);
    }
    let mut postfix = Postfix::new(Options::default());
    for (ts, rest) in lines {
        postfix.push(ts, rest, sink);
    }
    postfix.finish(sink);
    postfix.stats().clone()
}

#[test]
fn what_each_log_comes_to() {
    let Some(logs) = unpack() else { return };
    let names: Vec<_> = logs.keys().map(String::as_str).collect();
    let mut expected: Vec<_> = EXPECTED.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected, "the logs are not the ones that were read");
    let wrong = EXPECTED.iter().filter_map(|(name, expected)| {
        let found = show(&read(&[&logs[*name]], &mut |_| {}));
        (found != *expected).then(|| format!("{name}\n  read     {expected}\n  computed {found}\n"))
    });
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.concat());
}

#[test]
fn two_hosts_logs_together() {
    let Some(logs) = unpack() else { return };
    let (first, second) = (&logs["29_inbound_relayed_message_server_1"], &logs["29_inbound_relayed_message_server_2"]);
    for order in [[&first[..], &second[..]], [&second[..], &first[..]]] {
        let mut outcomes = Vec::new();
        let stats = read(&order, &mut |event| {
            if let Kind::Outcome(o) = &event.kind {
                outcomes.push(format!("{:?} {:?} {:?} {:?}", event.account, o.relay, o.queue_id, o.rcpt));
            }
        });
        let whole = "messages 2 taken 2 attempts 2 sends 1 delivered 1 auth_ok 1 tied 1";
        assert_eq!(show(&stats), whole);
        assert_eq!(
            outcomes,
            [r#"Some("sender@sender.com") Some("mail2") Some("670FCA58C8") "recipient@recipient.com""#]
        );
    }
}
