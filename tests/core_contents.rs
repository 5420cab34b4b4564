//! What a burst says and whom it goes to: carried by the alerts as fingerprints, bounded, and never more than that.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

mod common;
mod core_support;

use std::sync::Arc;

use core_support::{BEGIN_S, DAY_S, Detector, at, outcome, policy, saying, send, send_unnamed, stored};
use mailfuse::core::alert::{Alert, Burst};
use mailfuse::core::fingerprint::Fingerprint;
use mailfuse::core::policy::{Detect, PUBLIC_KEY, Policy};
use mailfuse::state;

const WHO: &str = "info@customer.example";
const HOME: &str = "10.1.0.7";
/// Eight in the morning of the eleventh day, ten of history behind.
const BURST_S: i64 = BEGIN_S + 10 * DAY_S + 8 * 3600;

fn ours() -> Arc<Policy> {
    policy(Detect::default())
}

fn print(policy: &Policy, text: &str) -> String {
    format!("{:08x}", Fingerprint::new(&policy.key).of(text) >> 32)
}

/// Ten days of four messages each to six colleagues, all of which say `habit`.
fn with_a_past(policy: &Arc<Policy>, habit: &str) -> Detector {
    let mut d = Detector::new(policy, BEGIN_S);
    for day in 0..10 {
        for i in 0..4 {
            let ts = BEGIN_S + day * DAY_S + 9 * 3600 + i * 7000;
            let colleague = format!("colleague{}@customer.example", (day + i) % 6);
            d.step(&saying(send(at(ts), WHO, HOME, "", "", &[colleague]), habit));
        }
        // A stranger every third day, so that the account's own contents are remembered for longer than outcomes take.
        if day % 3 == 0 {
            let ts = BEGIN_S + day * DAY_S + 17 * 3600;
            d.step(&saying(send(at(ts), WHO, HOME, "", "", &[format!("guest{day}@far.example")]), habit));
        }
    }
    assert!(d.alerts.is_empty(), "{:?}", d.alerts);
    d
}

fn stranger(i: i64) -> String {
    format!("stranger{i}@far{}.example", i % 5)
}

/// A message each to the strangers of `range`, ten seconds apart, saying what `content` gives.
fn burst(d: &mut Detector, range: std::ops::Range<i64>, content: impl Fn(i64) -> String) {
    for i in range {
        d.step(&saying(send(at(BURST_S + 10 * i), WHO, HOME, "", "", &[stranger(i)]), &content(i)));
    }
}

/// Of the last alert, after the end of the incident.
fn at_its_end(d: &mut Detector) -> Burst {
    assert!(!d.alerts.is_empty(), "never flagged");
    d.tick(BURST_S + 30 * DAY_S);
    d.alerts.last().unwrap().burst.clone().unwrap()
}

fn shares(burst: &Burst) -> Vec<(String, u64)> {
    burst.contents.iter().map(|c| (c.fingerprint.clone(), c.messages)).collect()
}

/// The sixteen smallest, sorted by the whole list.
fn smallest(policy: &Policy, rcpts: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = rcpts.map(|rcpt| print(policy, &rcpt)).collect();
    all.sort_unstable();
    all.truncate(16);
    all
}

#[test]
fn a_burst_tells_what_it_says_and_to_whom_as_fingerprints() {
    let policy = ours();
    let mut d = with_a_past(&policy, "habit");
    burst(&mut d, 0..40, |i| if i % 4 == 3 { "second".to_owned() } else { "first".to_owned() });
    let flag = d.alerts[0].burst.clone().unwrap();
    assert_eq!(flag.contents[0].fingerprint, print(&policy, "first"));
    assert_eq!(flag.contents.iter().map(|c| c.messages).sum::<u64>(), flag.messages);
    let flagged = flag.new_recipients as i64;
    assert_eq!(flag.new_recipient_fingerprints, smallest(&policy, (0..flagged).map(stranger)));
    let end = at_its_end(&mut d);
    assert_eq!(shares(&end), [(print(&policy, "first"), 30), (print(&policy, "second"), 10)]);
    assert_eq!(end.new_recipient_fingerprints, smallest(&policy, (0..40).map(stranger)));
    let json = serde_json::to_string(&d.alerts).unwrap();
    assert!(!json.contains("stranger") && !json.contains("second"), "{json}");
}

#[test]
fn recipients_that_only_outcomes_name_are_told_too() {
    let policy = ours();
    let mut d = with_a_past(&policy, "habit");
    for i in 0..40 {
        let queue_id = format!("U{i}");
        d.step(&saying(send_unnamed(at(BURST_S + 10 * i), WHO, HOME, &queue_id, 2), "spam"));
        for k in [2 * i, 2 * i + 1] {
            d.step(&outcome(at(BURST_S + 10 * i + 1), WHO, &queue_id, "out-1", &stranger(k), "550 5.1.1 user unknown"));
        }
    }
    let end = at_its_end(&mut d);
    assert_eq!(shares(&end), [(print(&policy, "spam"), 40)]);
    assert_eq!(end.new_recipient_fingerprints, smallest(&policy, (0..80).map(stranger)));
}

#[test]
fn messages_to_many_are_told_by_the_smallest_of_all() {
    let policy = ours();
    let mut d = with_a_past(&policy, "habit");
    let rcpts = |i: i64| (0..200).map(move |k| stranger(1000 * i + k));
    for i in 0..30 {
        let rcpts: Vec<String> = rcpts(i).collect();
        d.step(&send(at(BURST_S + 60 * i), WHO, HOME, "", "", &rcpts));
    }
    let end = at_its_end(&mut d);
    assert_eq!(end.messages, 30);
    assert_eq!(end.new_recipient_fingerprints, smallest(&policy, (0..30).flat_map(rcpts)));
    assert!(end.contents.is_empty(), "nothing was said of contents: {:?}", end.contents);
}

#[test]
fn what_the_account_has_long_sent_is_its_own_and_what_a_thief_tried_first_is_not() {
    let policy = ours();
    let mut d = with_a_past(&policy, "habit");
    // Two hours before, to somebody new.
    d.step(&saying(send(at(BURST_S - 7200), WHO, HOME, "", "", &["drop@box.example".to_owned()]), "spam"));
    burst(&mut d, 0..40, |i| ["habit", "spam"][i as usize % 2].to_owned());
    let end = at_its_end(&mut d);
    let names: Vec<String> = shares(&end).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [print(&policy, "spam")]);
    assert!(end.contents[0].messages >= 20, "{end:?}");
}

#[test]
fn contents_of_every_kind_are_bounded() {
    let policy = ours();
    let mut d = with_a_past(&policy, "habit");
    // Each another one, long, with what must not be shown as it is.
    burst(&mut d, 0..300, |i| format!("{i}\u{0}\u{202E}\"\\{}", "x".repeat(4000)));
    for alert in &d.alerts {
        let burst = alert.burst.as_ref().unwrap();
        assert!(burst.contents.len() <= 8 && burst.new_recipient_fingerprints.len() <= 16, "{burst:?}");
        let all = burst.contents.iter().map(|c| &c.fingerprint).chain(&burst.new_recipient_fingerprints);
        assert!(all.clone().all(|p| p.len() == 8 && p.bytes().all(|b| b.is_ascii_hexdigit())), "{burst:?}");
    }
    let end = at_its_end(&mut d);
    assert!(end.contents.iter().all(|c| c.messages == 1), "{end:?}");
    // Those that came after the bound are not counted; those before it still are.
    let mut d = with_a_past(&policy, "habit");
    burst(&mut d, 0..300, |i| if i % 3 == 0 { "common".to_owned() } else { format!("{i}") });
    assert_eq!(shares(&at_its_end(&mut d))[0], (print(&policy, "common"), 100));
}

#[test]
fn a_store_in_between_changes_nothing() {
    let policy = ours();
    let content = |i: i64| ["habit", "spam", "more spam", ""][i as usize % 4].to_owned();
    let whole = {
        let mut d = with_a_past(&policy, "habit");
        burst(&mut d, 0..60, content);
        at_its_end(&mut d);
        d.alerts
    };
    for cut in [1, 7, 20, 45] {
        let mut d = with_a_past(&policy, "habit");
        burst(&mut d, 0..cut, content);
        d.shard = state::read(&stored(&d.shard, &policy)[..], &policy).unwrap();
        burst(&mut d, cut..60, content);
        at_its_end(&mut d);
        assert_eq!(lines(&d.alerts), lines(&whole), "stored after {cut}");
    }
}

fn lines(alerts: &[Alert]) -> Vec<String> {
    alerts.iter().map(|a| serde_json::to_string(a).unwrap()).collect()
}

#[test]
fn under_the_key_that_everybody_has_no_recipient_is_told() {
    let policy = Arc::new(Policy::new(Detect::default(), PUBLIC_KEY, "mailfuse test".to_owned()).unwrap());
    let mut d = with_a_past(&policy, "habit");
    burst(&mut d, 0..40, |_| "spam".to_owned());
    let end = at_its_end(&mut d);
    assert_eq!(shares(&end), [(print(&policy, "spam"), 40)]);
    assert!(d.alerts.iter().all(|a| a.burst.as_ref().unwrap().new_recipient_fingerprints.is_empty()));
}

#[test]
fn alerts_of_messages_without_a_hash_have_the_bytes_that_they_had() {
    let policy = Arc::new(Policy::new(Detect::default(), PUBLIC_KEY, "mailfuse test".to_owned()).unwrap());
    let mut d = with_a_past(&policy, "");
    burst(&mut d, 0..40, |_| String::new());
    let json = serde_json::to_value(&d.alerts[0]).unwrap();
    let mut keys: Vec<&str> = json["burst"].as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let known =
        ["bounced", "client_ips", "first_ts", "messages", "new_recipients", "queue_ids", "recipients", "top_domains"];
    assert_eq!(keys, known);
}
