//! An incident that people call a hijack: the account goes back to what it had learned before, and the next thief is seen as
//! early as the first one was.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

mod common;
mod core_support;

use std::collections::BTreeMap;
use std::sync::Arc;

use core_support::stream::stream;
use core_support::{BEGIN_S, DAY_S, Detector, at, outcome, policy, send, stored};
use mailfuse::core::alert::{Alert, AlertKind, Severity};
use mailfuse::core::decision::Decisions;
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::shard::Shard;
use mailfuse::event::{Event, Timestamp};
use serde_json::{Value, json};

const WHO: &str = "ann@a.example";

fn decisions(account: &str, list: Value) -> Arc<Decisions> {
    let record = json!({ "v": 1, "account": account, "decisions": list });
    Arc::new(Decisions::parse(record.to_string().as_bytes()).unwrap())
}

fn hijack(incident: &str, from: Timestamp) -> Value {
    json!({"what": "hijack", "incident": incident, "from": from.to_string(), "by": "ben"})
}

/// Mail to a few friends on a day.
fn ordinary(day: i64) -> Vec<Event<'static>> {
    let one = |i: i64| {
        let rcpts = [format!("friend{}@b.example", (day + i) % 5)];
        let (ts, id) = (at(BEGIN_S + day * DAY_S + 8 * 3600 + i * 1800), format!("o{day}-{i}"));
        [send(ts, WHO, "192.0.2.1", &id, "mx1", &rcpts), outcome(ts, WHO, &id, "mx1", &rcpts[0], "")]
    };
    (0..4).flat_map(one).collect()
}

/// A burst from elsewhere to `n` people called `whom`, some of which do not exist.
fn burst(day: i64, whom: &str, n: i64) -> Vec<Event<'static>> {
    let one = |i: i64| {
        let rcpts = [format!("{whom}{i}@c{}.example", i % 7)];
        let (ts, id) = (at(BEGIN_S + day * DAY_S + 14 * 3600 + i * 7), format!("{whom}{i}"));
        let reply = if i % 3 == 0 { "550 5.1.1 user unknown" } else { "" };
        [send(ts, WHO, "198.51.100.9", &id, "mx2", &rcpts), outcome(ts, WHO, &id, "mx2", &rcpts[0], reply)]
    };
    (0..n).flat_map(one).collect()
}

/// Three weeks of mail, two days of a burst, ten more days, and a burst over the same network.
fn story() -> Vec<Event<'static>> {
    let mut events: Vec<_> = (0..21).flat_map(ordinary).collect();
    events.extend(burst(20, "first", 300));
    events.extend(ordinary(21));
    events.extend(burst(21, "more", 300));
    events.extend((22..32).flat_map(ordinary));
    events.extend(burst(32, "second", 300));
    events
}

fn run(events: &[Event<'_>], policy: &Arc<Policy>, decided: &[Arc<Decisions>]) -> Detector {
    let mut d = Detector::new(policy, BEGIN_S - 60 * DAY_S);
    decided.iter().for_each(|one| d.shard.decide(Arc::clone(one)));
    events.iter().for_each(|e| _ = d.step(e));
    d
}

fn flag_of(alerts: &[Alert], day: i64) -> Option<&Alert> {
    let since = at(BEGIN_S + day * DAY_S);
    alerts.iter().find(|a| a.kind == AlertKind::Flagged && a.ts >= since)
}

/// When after the beginning of the burst of a day each alert came, and how severe it was.
fn after(alerts: &[Alert], day: i64) -> Vec<(AlertKind, Severity, i64)> {
    let begin = BEGIN_S * 1000 + (day * DAY_S + 14 * 3600) * 1000;
    let said =
        alerts.iter().filter(|a| a.kind != AlertKind::Cleared && a.ts.0 >= begin && a.ts.0 < begin + DAY_S * 1000 / 3);
    said.map(|a| (a.kind, a.severity, a.ts.0 - begin)).collect()
}

/// The network of the thief, his recipients and his numbers are unlearned: the same burst again is as surprising as it was.
#[test]
fn after_a_hijack_the_next_burst_is_seen_as_early_as_the_first() {
    let policy = policy(Detect::default());
    let events = story();
    let plain = run(&events, &policy, &[]);
    let first = flag_of(&plain.alerts, 20).unwrap();
    let from = at(BEGIN_S + 22 * DAY_S);
    let decided = decisions(WHO, json!([hijack(&first.incident, from)]));
    let put_back = run(&events, &policy, &[Arc::clone(&decided)]);
    assert!(!after(&plain.alerts, 20).is_empty());
    assert_eq!(after(&put_back.alerts, 32), after(&plain.alerts, 20));
    // Without the decision it is later, because the account is taken for one that writes to strangers.
    let time = |alerts: &[Alert]| after(alerts, 32).first().map_or(i64::MAX, |a| a.2);
    assert!(time(&plain.alerts) > time(&put_back.alerts), "{:?}", after(&plain.alerts, 32));
    let view = |d: &Detector| {
        let account = d.shard.account(WHO).unwrap().into_owned();
        (account.baseline().active_days, account.contacts().len())
    };
    // Contacts: what was written to in the bursts of the first days is gone, but for what came before the flag.
    let until_then = run(&events[..events.len() - 600], &policy, &[decided]);
    let sent_before = run(&burst_less(&events, first.ts), &policy, &[]);
    assert_eq!(view(&until_then).1, view(&sent_before).1);
    assert!(view(&until_then).1 < 50, "{:?}", view(&until_then));
}

/// What the account was sent until the flag, and only ordinary mail since.
fn burst_less(events: &[Event<'static>], flag: Timestamp) -> Vec<Event<'static>> {
    events.iter().filter(|e| e.ts <= flag || matches!(e.ts.0 / 1000 % DAY_S / 3600, 8..=9)).cloned().collect()
}

/// The step that puts back says so, once; a second decision, or the same one read again, changes nothing more.
#[test]
fn it_happens_once_whatever_is_decided_again() {
    let policy = policy(Detect::default());
    let events = story();
    let first = flag_of(&run(&events, &policy, &[]).alerts, 20).unwrap().incident.clone();
    let from = at(BEGIN_S + 22 * DAY_S);
    let once = decisions(WHO, json!([hijack(&first, from)]));
    let twice = decisions(WHO, json!([hijack(&first, from), hijack(&first, at(BEGIN_S + 25 * DAY_S))]));
    let mut d = Detector::new(&policy, BEGIN_S - 60 * DAY_S);
    d.shard.decide(Arc::clone(&once));
    let mut steps = Vec::new();
    for event in &events {
        if event.ts > at(BEGIN_S + 26 * DAY_S) {
            d.shard.decide(Arc::clone(&once));
        }
        if d.step(event).put_back {
            steps.push(event.ts);
        }
    }
    assert_eq!(steps, [ordinary(22)[0].ts]);
    let again = run(&events, &policy, &[twice]);
    assert!(stored(&d.shard, &policy) == stored(&again.shard, &policy));
    // Of an incident that the account does not remember it says nothing.
    let other = run(&events, &policy, &[decisions(WHO, json!([hijack("i-0", from)]))]);
    assert!(stored(&other.shard, &policy) == stored(&run(&events, &policy, &[]).shard, &policy));
}

/// An open incident is closed first, and what comes then is weighed against what was before.
#[test]
fn an_open_incident_is_closed_and_its_account_put_back() {
    let policy = policy(Detect::default());
    let mut events: Vec<_> = (0..21).flat_map(ordinary).collect();
    events.extend(burst(20, "first", 300));
    let first = flag_of(&run(&events, &policy, &[]).alerts, 20).unwrap().clone();
    let from = Timestamp(first.ts.0 + 100_000);
    let d = run(&events, &policy, &[decisions(WHO, json!([hijack(&first.incident, from)]))]);
    let cleared: Vec<_> =
        d.alerts.iter().filter(|a| a.kind == AlertKind::Cleared).map(|a| (&*a.incident, a.ts)).collect();
    assert_eq!(cleared, [(&*first.incident, from)]);
    // The burst went on, and is a new incident.
    let next = d.alerts.iter().find(|a| a.kind == AlertKind::Flagged && a.ts > from).unwrap();
    assert_ne!(next.incident, first.incident);
    // Both called hijacks at once: back to before the first. The first alone: a second decision about the second later goes
    // to the same.
    let both = [hijack(&first.incident, from), hijack(&next.incident, at(BEGIN_S + 22 * DAY_S))];
    events.extend((22..25).flat_map(ordinary));
    let d = run(&events, &policy, &[decisions(WHO, json!(both))]);
    let account = d.shard.account(WHO).unwrap();
    assert!(account.before().is_empty() && account.contacts().len() < 50, "{}", account.contacts().len());
}

/// What is remembered is dropped thirty days after the flag, and at most two are kept.
#[test]
fn what_is_kept_is_bounded() {
    let policy = policy(Detect::default());
    let mut events: Vec<_> = (0..21).flat_map(ordinary).collect();
    for (i, day) in [20, 24, 28].into_iter().enumerate() {
        events.extend(burst(day, &format!("wave{i}-"), 300));
        events.extend((day + 1..day + 4).flat_map(ordinary));
    }
    events.sort_by_key(|e| e.ts);
    let mut d = run(&events, &policy, &[]);
    let kept = |d: &Detector| d.shard.account(WHO).unwrap().before().len();
    let flags: Vec<_> = d.alerts.iter().filter(|a| a.kind == AlertKind::Flagged).map(|a| a.ts).collect();
    assert!(flags.len() >= 3 && kept(&d) == 2, "{flags:?} {}", kept(&d));
    let last = *flags.last().unwrap();
    let mut before_end = (31..).flat_map(ordinary);
    let mut kept_last = false;
    for event in before_end.by_ref() {
        d.step(&event);
        if event.ts.0 >= last.0 + 30 * DAY_S * 1000 {
            break;
        }
        kept_last = kept(&d) > 0;
    }
    // At the first event of the next day at the latest.
    ordinary(62).iter().for_each(|e| _ = d.step(e));
    assert!(kept_last && kept(&d) == 0);
}

/// The same alerts and the same state, however the accounts are spread, and whenever they are packed, stored and loaded.
#[test]
fn shards_checkpoints_and_rests_change_nothing() {
    let policy = policy(Detect::default());
    let events = stream();
    let mut plain = Detector::new(&policy, BEGIN_S);
    events.iter().for_each(|e| _ = plain.step(e));
    let mut lists: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for flag in plain.alerts.iter().filter(|a| a.kind == AlertKind::Flagged) {
        lists.entry(flag.account.clone()).or_default().push(hijack(&flag.incident, Timestamp(flag.ts.0 + 600_000)));
    }
    let decided: Vec<_> = lists.into_iter().map(|(account, list)| decisions(&account, json!(list))).collect();
    assert!(decided.len() > 5);
    let shard = || {
        let shard = Shard::new(Arc::clone(&policy), at(BEGIN_S));
        decided.iter().fold(shard, |mut shard, d| {
            shard.decide(Arc::clone(d));
            shard
        })
    };
    let text = |alerts: &[Alert]| {
        let mut lines: Vec<_> = alerts.iter().map(|a| serde_json::to_string(a).unwrap()).collect();
        lines.sort();
        lines
    };
    let (mut one, mut alerts, mut put_back) = (shard(), Vec::new(), 0);
    for event in &events {
        put_back += u32::from(one.step(event, &mut alerts).put_back);
    }
    assert!(put_back > 5, "{put_back}");
    one.tick(at(BEGIN_S + 60 * DAY_S), &mut alerts);
    let (mut four, mut of_four) = ([(); 4].map(|()| shard()), Vec::new());
    for (i, event) in events.iter().enumerate() {
        let place = event.account.as_deref().unwrap().len() + event.account.as_deref().unwrap().as_bytes()[4] as usize;
        let shard = &mut four[place % 4];
        shard.step(event, &mut of_four);
        if i % 17 == 0 {
            shard.rest();
        }
    }
    four.iter_mut().for_each(|s| s.tick(at(BEGIN_S + 60 * DAY_S), &mut of_four));
    assert_eq!(text(&of_four), text(&alerts));
    // Stored and loaded on the way, decisions read again.
    let (mut loaded, mut of_loaded) = (shard(), Vec::new());
    for (i, event) in events.iter().enumerate() {
        loaded.step(event, &mut of_loaded);
        if i % 997 == 0 {
            let mut next = shard();
            loaded.give_all(&mut |name, packed| next.restore_packed(name, packed).unwrap());
            next.restore_clock(loaded.newest());
            loaded = next;
        }
    }
    loaded.tick(at(BEGIN_S + 60 * DAY_S), &mut of_loaded);
    assert_eq!(text(&of_loaded), text(&alerts));
    assert!(stored(&loaded, &policy) == stored(&one, &policy));
}

/// An ordinary account pays some hundred bytes, and one that was never flagged none.
#[test]
fn what_is_kept_costs_little() {
    let policy = policy(Detect::default());
    let packed = |d: &Detector| {
        let mut bytes = 0;
        d.shard.give_all(&mut |_, packed| bytes += packed.len());
        bytes
    };
    let mut events: Vec<_> = (0..21).flat_map(ordinary).collect();
    events.extend(burst(20, "first", 300));
    events.extend((21..51).flat_map(ordinary));
    let with = run(&events, &policy, &[]);
    assert_eq!(with.shard.account(WHO).unwrap().before().len(), 1);
    let mut without = run(&events, &policy, &[]);
    ordinary(51).iter().for_each(|e| _ = without.step(e));
    assert!(without.shard.account(WHO).unwrap().before().is_empty());
    let cost = packed(&with).saturating_sub(packed(&without));
    println!("{cost} bytes more of {}", packed(&with));
    assert!((60..400).contains(&cost), "{cost}");
}
