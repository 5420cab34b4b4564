//! An account that is called otherwise from now on goes on with what it had learned.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

mod common;
mod core_support;

use std::sync::Arc;

use common::Dice;
use core_support::{BEGIN_S, DAY_S, Detector, at, outcome, policy, send, stored};
use mailfuse::core::alert::{Alert, AlertKind};
use mailfuse::core::decision::Decisions;
use mailfuse::core::fingerprint::Fingerprint;
use mailfuse::core::inherit::Learned;
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::event::{Event, Timestamp};
use serde_json::json;

const OLD: &str = "news@old.example";
const NEW: &str = "news@new.example";
/// The day on which it is renamed, and that of the burst: by then no window remembers the rename.
const RENAMED: i64 = 40;
const BURST: i64 = 49;

/// A newsletter: on every day to some hundred subscribers of five hundred, and to a few who are new.
fn newsletter(days: std::ops::Range<i64>, who: &str) -> Vec<Event<'static>> {
    let message = |day: i64, i: i64, mut dice: Dice| {
        let whom = if i % 25 == 24 { 500 + day * 4 + i / 25 } else { dice.below(500) as i64 };
        let rcpt = [format!("reader{whom}@b{}.example", whom % 9)];
        let (ts, id) = (at(BEGIN_S + day * DAY_S + 8 * 3600 + i * 20), format!("n{day}-{i}"));
        [send(ts, who, "192.0.2.1", &id, "mx1", &rcpt), outcome(ts, who, &id, "mx1", &rcpt[0], "")]
    };
    days.flat_map(|day| (0..100).flat_map(move |i| message(day, i, Dice((day * 1000 + i) as u64)))).collect()
}

/// A hijack, from elsewhere to strangers, some of whom do not exist.
fn burst(who: &str) -> Vec<Event<'static>> {
    let message = |i: i64| {
        let rcpt = [format!("victim{i}@c{}.example", i % 7)];
        let (ts, id) = (at(BEGIN_S + BURST * DAY_S + 14 * 3600 + i * 7), format!("v{i}"));
        let reply = if i % 3 == 0 { "550 5.1.1 user unknown" } else { "" };
        [send(ts, who, "198.51.100.9", &id, "mx2", &rcpt), outcome(ts, who, &id, "mx2", &rcpt[0], reply)]
    };
    (0..300).flat_map(message).collect()
}

fn whole(who: &str, from: i64) -> Vec<Event<'static>> {
    let mut events = newsletter(from..BURST, who);
    events.extend(burst(who));
    events
}

fn learned(policy: &Policy, events: &[Event<'_>]) -> Learned {
    let mut d = detector(policy);
    events.iter().for_each(|e| _ = d.step(e));
    d.shard.account(OLD).unwrap().learned(&Fingerprint::new(&policy.key))
}

fn detector(policy: &Policy) -> Detector {
    Detector::new(&Arc::new(policy.clone()), BEGIN_S)
}

fn inherit(learned: &Learned, from: Timestamp) -> Arc<Decisions> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(learned.bytes());
    let until = Timestamp(from.0 + 30 * DAY_S * 1000);
    let record = json!({"v": 1, "account": NEW, "decisions": [
        {"what": "inherit", "account_before": OLD, "learned": text, "from": from, "until": until, "by": "ann"}]});
    let read = Decisions::parse(record.to_string().as_bytes()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), record, "as it was written");
    Arc::new(read)
}

/// When each alert since the rename came, what it said, how sure it was.
fn verdicts(alerts: &[Alert]) -> Vec<(AlertKind, Timestamp, u64)> {
    let since = alerts.iter().filter(|a| a.ts >= at(BEGIN_S + RENAMED * DAY_S));
    since.map(|a| (a.kind, a.ts, (a.score * 1000.0) as u64)).collect()
}

#[test]
fn under_its_new_name_an_account_is_judged_as_it_would_have_been() {
    let policy = policy(Detect::default());
    let mut as_ever = detector(&policy);
    whole(OLD, 0).iter().for_each(|e| _ = as_ever.step(e));
    let wanted = verdicts(&as_ever.alerts);
    assert!(!wanted.is_empty() && wanted.iter().all(|v| v.1 >= at(BEGIN_S + BURST * DAY_S)), "{wanted:?}");

    let learned = learned(&policy, &newsletter(0..RENAMED, OLD));
    let mut renamed = detector(&policy);
    renamed.shard.decide(inherit(&learned, at(BEGIN_S + RENAMED * DAY_S)));
    let took: Vec<bool> = whole(NEW, RENAMED).iter().map(|e| renamed.step(e).inherited).collect();
    assert_eq!(took.iter().filter(|t| **t).count(), 1);
    assert!(took[0], "with its first event");
    assert_eq!(verdicts(&renamed.alerts), wanted);
    let account = renamed.shard.account(NEW).unwrap().into_owned();
    let before = as_ever.shard.account(OLD).unwrap().into_owned();
    assert_eq!(account.baseline(), before.baseline());
    assert_eq!((account.first_s(), account.contacts()), (before.first_s(), before.contacts()));

    // Without it the newsletter itself is flagged.
    let mut cold = detector(&policy);
    newsletter(RENAMED..BURST, NEW).iter().for_each(|e| _ = cold.step(e));
    assert!(!cold.alerts.is_empty());
}

#[test]
fn it_happens_once_and_the_same_wherever_the_account_rests() {
    let policy = policy(Detect::default());
    let learned = learned(&policy, &newsletter(0..RENAMED, OLD));
    // The decision comes in the middle of a day.
    let decided = inherit(&learned, at(BEGIN_S + RENAMED * DAY_S + 8 * 3600 + 500));
    let events = whole(NEW, RENAMED);
    let mut plain = detector(&policy);
    plain.shard.decide(Arc::clone(&decided));
    let took: Vec<usize> = (0..events.len()).filter(|&i| plain.step(&events[i]).inherited).collect();
    assert_eq!(took, [events.iter().position(|e| e.ts >= decided.decisions[0].from).unwrap()]);
    let mut moved = detector(&policy);
    for (i, event) in events.iter().enumerate() {
        if i % 97 == 0 {
            // Read again, packed, and loaded by another shard.
            let packed = moved.shard.account(NEW).map(|a| {
                let mut bytes = Vec::new();
                mailfuse::core::packed::pack(&a, &Fingerprint::new(&policy.key), &mut bytes);
                bytes
            });
            let mut other = detector(&policy);
            other.shard.restore_clock(moved.shard.newest());
            if let Some(packed) = packed {
                other.shard.restore_packed(NEW, &packed).unwrap();
            }
            other.shard.decide(Arc::clone(&decided));
            other.alerts = std::mem::take(&mut moved.alerts);
            moved = other;
        }
        moved.step(event);
    }
    assert_eq!(moved.alerts, plain.alerts);
    assert!(stored(&moved.shard, &policy) == stored(&plain.shard, &policy));
}

#[test]
fn what_it_has_learned_under_the_new_name_stays() {
    let policy = policy(Detect::default());
    let learned = learned(&policy, &newsletter(0..RENAMED, OLD));
    let mut d = detector(&policy);
    let day = BEGIN_S + RENAMED * DAY_S;
    d.shard.decide(inherit(&learned, at(day + 60)));
    let message = |s: i64, ip: &str, rcpt: &str| send(at(day + s), NEW, ip, "", "mx1", &[rcpt.to_owned()]);
    d.step(&message(0, "192.0.2.1", "stranger@b.example"));
    d.step(&message(1, "203.0.113.1", "reader1@b1.example"));
    let windows = d.shard.account(NEW).unwrap().windows().clone();
    let one = d.step(&message(61, "203.0.113.1", "stranger@b.example"));
    assert!(one.inherited && one.new_recipients == 0, "met before the handover");
    let account = d.shard.account(NEW).unwrap().into_owned();
    assert_ne!(account.windows(), &windows, "they go on");
    assert_eq!(account.distinct_since(0)[0], 2, "and begin before the handover");
    assert_eq!(account.networks().count_since(0), 2, "192.0 is that of the old name");
    assert!(
        account
            .networks()
            .is_foreign(mailfuse::core::networks::network("203.0.113.1".parse().unwrap()), account.now_s())
    );
    // Somebody who was there before the old name was does not become younger by it.
    let mut old = detector(&policy);
    old.step(&send(at(BEGIN_S - DAY_S), NEW, "192.0.2.7", "", "mx1", &["friend@b.example".to_owned()]));
    old.shard.decide(inherit(&learned, at(day)));
    assert!(!old.step(&message(0, "192.0.2.1", "stranger@b.example")).inherited);
    // Fingerprints of another key say nothing.
    let other = Arc::new(Policy::new(Detect::default(), *b"another test key", "mailfuse test".to_owned()).unwrap());
    let mut other = Detector::new(&other, BEGIN_S - 60 * DAY_S);
    other.shard.decide(inherit(&learned, at(day)));
    assert!(!other.step(&message(0, "192.0.2.1", "stranger@b.example")).inherited);
    // After `until` it is too late.
    let mut late = detector(&policy);
    late.shard.decide(inherit(&learned, at(day)));
    assert!(!late.step(&message(30 * DAY_S, "192.0.2.1", "stranger@b.example")).inherited);
}

/// While an incident goes on, the new name inherits what the account was before.
#[test]
fn a_thief_s_lessons_are_not_inherited() {
    let policy = policy(Detect::default());
    let clean = newsletter(0..BURST, OLD);
    let mut events = clean.clone();
    events.extend(burst(OLD));
    let mut d = detector(&policy);
    events.iter().for_each(|e| _ = d.step(e));
    let account = d.shard.account(OLD).unwrap().into_owned();
    assert!(account.incident.is_some());
    let mut heir = detector(&policy);
    let from = at(BEGIN_S + (BURST + 1) * DAY_S);
    heir.shard.decide(inherit(&account.learned(&Fingerprint::new(&policy.key)), from));
    heir.step(&send(from, NEW, "192.0.2.1", "", "mx1", &["reader1@b1.example".to_owned()]));
    let heir = heir.shard.account(NEW).unwrap().into_owned();
    let before = account.contacts().len() - heir.contacts().len();
    assert!(before > 200, "{before} of 300 victims are not among its contacts");
    assert!(!heir.networks().is_foreign(mailfuse::core::networks::network("192.0.2.1".parse().unwrap()), heir.now_s()));
    assert_eq!(heir.networks().count_since(0), 1, "the thief's is not among its networks");
}

#[test]
fn what_is_damaged_is_refused() {
    let policy = policy(Detect::default());
    let learned = learned(&policy, &newsletter(0..3, OLD));
    assert_eq!(Learned::read(learned.bytes()).unwrap(), learned);
    for len in 0..learned.bytes().len() {
        assert!(Learned::read(&learned.bytes()[..len]).is_err(), "{len}");
    }
    let mut more = learned.bytes().to_vec();
    more.push(0);
    assert!(Learned::read(&more).is_err());
    let mut dice = Dice(7);
    for _ in 0..2000 {
        let mut bytes = learned.bytes().to_vec();
        let place = dice.below(bytes.len() as u64) as usize;
        bytes[place] ^= 1 << dice.below(8);
        // Whatever it is by now, it is read or refused.
        let _ = Learned::read(&bytes);
    }
    let record = |text: &str| {
        let entry = json!({"what": "inherit", "account_before": OLD, "learned": text, "from": 1, "until": 2});
        json!({"v": 1, "account": NEW, "decisions": [entry]}).to_string()
    };
    for text in ["", "AA==", "no base64!", &"A".repeat(700_000)] {
        let error = Decisions::parse(record(text).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("decision 1: `learned`"), "{error}");
    }
}
