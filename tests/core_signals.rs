//! Signals: what shards say about relays is what a count by hand says, for any number of shards, over checkpoints and crashes; and
//! whoever reads them gets the same sums in whatever order they come.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

mod common;
mod core_support;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use common::Dice;
use core_support::stream::stream;
use core_support::{BEGIN_S, Detector, at, outcome, policy, send, send_unnamed, stored};
use mailfuse::core::alert::{Alert, AlertKind};
use mailfuse::core::beat;
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::replies::Family;
use mailfuse::core::shard::{Kept, Shard, Wanted};
use mailfuse::core::signal::{
    BurstKind, BurstMinute, MINUTE_MS, Part, RelayCount, RelayMinute, RelaysKind, Signal, minute_of,
};
use mailfuse::core::tally::{OTHER, RELAYS_MAX};
use mailfuse::event::{Event, Kind, Timestamp};
use mailfuse::relays::exposure::Exposure;
use mailfuse::state;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Of each key the record that counts.
#[derive(Default)]
struct Topic(BTreeMap<String, Signal>);

fn seq(signal: &Signal) -> u64 {
    match signal {
        Signal::Relays(r) => r.seq,
        Signal::Burst(b) => b.seq,
    }
}

impl Topic {
    fn take(&mut self, signals: &mut Vec<Signal>) {
        for signal in signals.drain(..) {
            // As it is written and read.
            let (key, json) = (signal.key(), serde_json::to_vec(&signal).unwrap());
            let read = Signal::read(key.as_bytes(), &json).unwrap();
            assert_eq!(read, signal);
            match self.0.get(&key) {
                Some(known) if seq(known) == seq(&signal) => assert_eq!(*known, signal, "one seq, two contents"),
                Some(known) if seq(known) > seq(&signal) => {}
                _ => _ = self.0.insert(key, signal),
            }
        }
    }

    /// Messages, recipients and refusals by relay and minute, over all parts.
    fn carried(&self) -> Carried {
        let mut carried = Carried::new();
        for signal in self.0.values() {
            let Signal::Relays(minute) = signal else { continue };
            for count in &minute.relays {
                let entry = carried.entry((minute_of(minute.minute.0), count.relay.clone())).or_default();
                entry.0 += count.messages;
                entry.1 += count.recipients;
                for (family, n) in &count.refused {
                    *entry.2.entry(*family).or_default() += n;
                }
            }
        }
        without_nothing(carried)
    }

    /// Bursts: by incident, minute and relay.
    fn bursts(&self) -> BTreeMap<(String, i64, String), (i64, i64)> {
        let mut bursts = BTreeMap::new();
        for signal in self.0.values() {
            let Signal::Burst(burst) = signal else { continue };
            for count in &burst.relays {
                let key = (burst.incident.clone(), minute_of(burst.minute.0), count.relay.clone());
                assert!(bursts.insert(key, (count.messages, count.recipients)).is_none());
            }
        }
        bursts
    }
}

type Carried = BTreeMap<(i64, String), (i64, i64, BTreeMap<Family, u64>)>;

fn without_nothing(mut carried: Carried) -> Carried {
    carried.retain(|_, (messages, recipients, refused)| (*messages, *recipients) != (0, 0) || !refused.is_empty());
    carried
}

/// The count by hand, without windows, packing or bounds.
fn by_hand(events: &[Event<'_>]) -> Carried {
    let (mut carried, mut ids) = (Carried::new(), HashSet::new());
    // Of a message: its relay, whether an outcome has said it, recipients.
    let mut messages: HashMap<(String, String), (Option<String>, bool, i64)> = HashMap::new();
    for event in events {
        let account = event.account.as_deref().unwrap().to_owned();
        // The stream repeats within minutes, and no id twice otherwise.
        if event.id.as_deref().is_some_and(|id| !ids.insert((account.clone(), id.to_owned()))) {
            continue;
        }
        let minute = event.ts.0.div_euclid(60_000);
        let mut add = |relay: &str, messages: i64, recipients: i64| {
            let entry = carried.entry((minute, relay.to_owned())).or_default();
            entry.0 += messages;
            entry.1 += recipients;
        };
        match &event.kind {
            Kind::Send(send) => {
                let (relay, n) = (send.relay.as_deref().map(str::to_owned), send.rcpts.count as i64);
                if let Some(relay) = &relay {
                    add(relay, 1, n);
                }
                messages.insert((account, send.queue_id.as_deref().unwrap().to_owned()), (relay, false, n));
            }
            Kind::Outcome(outcome) => {
                let relay = outcome.relay.as_deref().unwrap();
                let queue_id = outcome.queue_id.as_deref().unwrap().to_owned();
                if let Some((known, is_sure, n)) = messages.get_mut(&(account, queue_id))
                    && !*is_sure
                {
                    *is_sure = true;
                    if known.as_deref() != Some(relay) {
                        if let Some(from) = known.take() {
                            add(&from, -1, -*n);
                        }
                        add(relay, 1, *n);
                        *known = Some(relay.to_owned());
                    }
                }
                if outcome.reply.as_deref().is_some_and(|r| r.contains("zen.spamhaus.org")) {
                    let entry = carried.entry((minute, relay.to_owned())).or_default();
                    *entry.2.entry(Family::Spamhaus).or_default() += 1;
                }
            }
            Kind::Complaint(_) | Kind::Auth(_) => {}
        }
    }
    without_nothing(carried)
}

/// FNV-1a: which shard an account goes to.
fn hash(account: &str) -> u64 {
    account.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3))
}

/// A shard, and the checkpoint that it would come back from.
struct Half {
    shard: Shard,
    stored: Vec<u8>,
    kept: String,
    /// Its events since the checkpoint.
    since: Vec<usize>,
}

fn fresh(policy: &Arc<Policy>, part: Part) -> Half {
    let mut shard = Shard::new(Arc::clone(policy), at(BEGIN_S));
    shard.tell_signals(part, Kept::default());
    let stored = stored(&shard, policy);
    Half { shard, stored, kept: serde_json::to_string(&Kept::default()).unwrap(), since: Vec::new() }
}

/// Puts the stream through so many shards. One in `crashes` events kills a shard: it goes on from its last checkpoint, and what it has
/// told since stays told.
fn run(events: &[Event<'_>], policy: &Arc<Policy>, shards: u64, crashes: u64, seed: u64) -> (Topic, Vec<Alert>) {
    let mut dice = Dice(seed);
    let part = |partition| Part { partitions: shards as i32, partition: partition as i32 };
    let mut all: Vec<Half> = (0..shards).map(|s| fresh(policy, part(s))).collect();
    let (mut topic, mut out, mut signals) = (Topic::default(), Vec::new(), Vec::new());
    for (i, event) in events.iter().enumerate() {
        let of = hash(event.account.as_deref().unwrap()) % shards;
        let half = &mut all[of as usize];
        half.shard.step(event, &mut out);
        half.since.push(i);
        let draw = if crashes == 0 { 1 } else { dice.below(crashes) };
        if crashes > 0 && draw % 200 == 3 {
            half.shard.signals(if draw % 3 == 0 { Wanted::All } else { Wanted::Bursts }, &mut signals);
            topic.take(&mut signals);
        }
        if crashes > 0 && draw % 500 == 7 {
            half.shard.signals(Wanted::All, &mut signals);
            topic.take(&mut signals);
            half.stored = stored(&half.shard, policy);
            half.kept = serde_json::to_string(half.shard.kept().unwrap()).unwrap();
            half.since.clear();
        }
        if crashes > 0 && draw == 0 {
            half.shard = state::read(&half.stored[..], policy).unwrap();
            half.shard.tell_signals(part(of), serde_json::from_str(&half.kept).unwrap());
            for &i in &half.since {
                half.shard.step(&events[i], &mut out);
            }
        }
    }
    for half in &mut all {
        half.shard.signals(Wanted::All, &mut signals);
        topic.take(&mut signals);
    }
    (topic, out)
}

fn events() -> &'static [Event<'static>] {
    static EVENTS: OnceLock<Vec<Event<'static>>> = OnceLock::new();
    EVENTS.get_or_init(stream)
}

#[test]
fn the_sums_are_those_of_a_count_by_hand_for_any_number_of_shards_and_over_crashes() {
    let policy = policy(Detect::default());
    let wanted = by_hand(events());
    let relays: BTreeSet<&str> = wanted.keys().map(|(_, relay)| &**relay).collect();
    assert_eq!(relays.len(), 5, "the gateway, too, from which messages move: {relays:?}");
    assert!(wanted.values().any(|c| c.0 < 0) && wanted.values().any(|c| !c.2.is_empty()));
    let mut bursts: Option<BTreeMap<_, _>> = None;
    for (shards, crashes) in [(1, 0), (4, 0), (12, 0), (1, 2000), (12, 2000)] {
        let (topic, alerts) = run(events(), &policy, shards, crashes, 7 + shards);
        let ours = topic.carried();
        for (key, count) in &wanted {
            assert_eq!(ours.get(key), Some(count), "{shards} shards, {crashes}: {key:?}");
        }
        assert_eq!(ours.len(), wanted.len(), "{shards} shards, {crashes}");
        let ours = topic.bursts();
        check_bursts(&ours, &alerts);
        match &bursts {
            Some(before) => assert_eq!(*before, ours, "{shards} shards, {crashes}"),
            None => bursts = Some(ours),
        }
    }
}

/// The same over a hundred times as many relays.
fn over_hundreds(event: &Event<'static>) -> Event<'static> {
    let mut event = event.clone();
    let (relay, queue_id) = match &mut event.kind {
        Kind::Send(send) => (&mut send.relay, &send.queue_id),
        Kind::Outcome(outcome) => (&mut outcome.relay, &outcome.queue_id),
        Kind::Complaint(_) | Kind::Auth(_) => return event,
    };
    if let (Some(relay), Some(queue_id)) = (relay, queue_id)
        && relay.starts_with("out-")
    {
        *relay = format!("{relay}-{}", hash(queue_id) % 100).into();
    }
    event
}

#[test]
fn a_pool_of_hundreds_is_told_apart_relay_by_relay() {
    let policy = policy(Detect::default());
    let events: Vec<Event<'static>> = events().iter().map(over_hundreds).collect();
    let wanted = by_hand(&events);
    let relays: BTreeSet<&str> = wanted.keys().map(|(_, relay)| &**relay).collect();
    assert_eq!(relays.len(), 401);
    let mut bursts: Option<BTreeMap<_, _>> = None;
    for (shards, crashes) in [(1, 0), (4, 0), (12, 2000)] {
        let (topic, alerts) = run(&events, &policy, shards, crashes, 7 + shards);
        assert!(topic.carried() == wanted, "{shards} shards, {crashes}");
        let ours = topic.bursts();
        check_bursts(&ours, &alerts);
        let most = alerts.iter().map(|a| a.relays.len()).max().unwrap();
        assert!(most > 32 && ours.keys().all(|(_, _, relay)| relay != OTHER), "{most} relays in one burst");
        match &bursts {
            Some(before) => assert_eq!(*before, ours, "{shards} shards, {crashes}"),
            None => bursts = Some(ours),
        }
    }
}

#[test]
fn an_account_knows_names_of_relays_as_long_as_anything_speaks_of_them() {
    let policy = policy(Detect::default());
    let mut detector = Detector::new(&policy, BEGIN_S);
    let (account, friend) = ("ann@a.example", ["bob@b.example".to_owned()]);
    let names = |detector: &Detector| -> Vec<String> {
        let account = detector.shard.account(account).unwrap();
        account.relay_names().iter().map(str::to_owned).collect()
    };
    // Through 400 relays in turn, a message an hour to somebody it knows: few are remembered at a time.
    for i in 0..2000 {
        let relay = format!("out-{}", i % 400);
        detector.step(&send(at(BEGIN_S + i * 3600), account, "10.0.0.1", &format!("Q{i}"), &relay, &friend));
    }
    let quiet = names(&detector);
    assert!(quiet.len() <= 64 && quiet.contains(&"out-399".to_owned()), "{quiet:?}");
    // Four hundred strangers within minutes: of each its relay is known, so that an outcome names none wrongly.
    let later = BEGIN_S + 2000 * 3600;
    for i in 0..400 {
        let stranger = [format!("s{i}@far.example")];
        detector.step(&send(at(later + i), account, "192.0.2.1", &format!("S{i}"), &format!("out-{i}"), &stranger));
    }
    let busy: BTreeSet<String> = names(&detector).into_iter().collect();
    assert_eq!(busy, (0..400).map(|i| format!("out-{i}")).collect());
    let size = |detector: &Detector| {
        let mut size = 0;
        detector.shard.give_all(&mut |_, packed| size = packed.len());
        size
    };
    println!("{} bytes packed, {} names", size(&detector), busy.len());
    // Beyond the bound all further ones are one.
    for i in 400..700 {
        let stranger = [format!("s{i}@far.example")];
        detector.step(&send(at(later + i), account, "192.0.2.1", &format!("S{i}"), &format!("out-{i}"), &stranger));
    }
    let all = names(&detector);
    assert!(all.len() == 512 && all.contains(&OTHER.to_owned()), "{}", all.len());
}

/// What the alerts say in the end, and nothing before the burst began.
fn check_bursts(bursts: &BTreeMap<(String, i64, String), (i64, i64)>, alerts: &[Alert]) {
    let mut sums: BTreeMap<(&str, &str), (i64, i64)> = BTreeMap::new();
    let mut first: BTreeMap<&str, i64> = BTreeMap::new();
    for ((incident, minute, relay), (messages, recipients)) in bursts {
        let sum = sums.entry((incident, relay)).or_default();
        *sum = (sum.0 + messages, sum.1 + recipients);
        let first = first.entry(incident).or_insert(*minute);
        *first = (*minute).min(*first);
    }
    sums.retain(|_, sum| *sum != (0, 0));
    let (mut cleared, mut before_flag) = (0, 0);
    for alert in alerts.iter().filter(|a| a.kind == AlertKind::Cleared) {
        cleared += 1;
        let of: BTreeMap<&str, (i64, i64)> =
            sums.iter().filter(|((i, _), _)| *i == alert.incident).map(|((_, r), s)| (*r, *s)).collect();
        let wanted: BTreeMap<&str, (i64, i64)> =
            alert.relays.iter().map(|r| (&*r.relay, (r.messages as i64, r.recipients as i64))).collect();
        assert_eq!(of, wanted, "{}", alert.incident);
        let began = alert.burst.as_ref().unwrap().first_ts.0;
        assert!(first[&*alert.incident] >= minute_of(began) - 60);
        let flag = alerts.iter().find(|a| a.incident == alert.incident && a.kind == AlertKind::Flagged).unwrap();
        before_flag += usize::from(first[&*alert.incident] < minute_of(flag.ts.0));
    }
    assert!(cleared >= 10 && before_flag >= 5, "{cleared} {before_flag}");
}

#[test]
fn the_totals_of_an_open_incident_are_told_at_once_and_those_of_heartbeats_never() {
    let policy = policy(Detect::default());
    let hijack = |detector: &mut Detector, account: &str| {
        for i in 0..60 {
            let t = BEGIN_S + 30 * 86_400 + i;
            let rcpt = format!("stranger{i}@far.example");
            let (queue_id, ip) = (format!("Q{i}"), format!("192.0.{i}.2"));
            detector.step(&send(at(t), account, &ip, &queue_id, "out-1", std::slice::from_ref(&rcpt)));
            detector.step(&outcome(at(t), account, &queue_id, "out-1", &rcpt, "550 5.1.1 user unknown"));
        }
    };
    let (mut detector, mut signals) = (Detector::new(&policy, BEGIN_S), Vec::new());
    detector.shard.tell_signals(Part::ALL, Kept::default());
    hijack(&mut detector, &format!("beat-0@{}", beat::DOMAIN));
    assert!(detector.alerts.iter().any(|a| a.heartbeat));
    assert!(!detector.shard.has_urgent_signals());
    detector.shard.signals(Wanted::All, &mut signals);
    assert_eq!(signals, []);

    hijack(&mut detector, "ann@a.example");
    assert!(detector.shard.has_urgent_signals());
    detector.shard.signals(Wanted::Bursts, &mut signals);
    let [Signal::Burst(burst)] = &signals[..] else { panic!("{signals:?}") };
    assert_eq!((&*burst.account, burst.relays.len(), burst.relays[0].messages), ("ann@a.example", 1, 60));
    assert!(!detector.shard.has_urgent_signals());
    signals.clear();
    detector.shard.signals(Wanted::Bursts, &mut signals);
    assert_eq!(signals, [], "what has not changed is not told again");
}

#[test]
fn what_is_late_what_has_no_relay_and_what_has_too_many() {
    let policy = policy(Detect::default());
    let (mut detector, mut signals) = (Detector::new(&policy, BEGIN_S), Vec::new());
    detector.shard.tell_signals(Part::ALL, Kept::default());
    let relay = |i: usize| format!("out-{i}");
    let mut told = |detector: &mut Detector| {
        detector.shard.signals(Wanted::All, &mut signals);
        let mut topic = Topic::default();
        topic.take(&mut signals);
        topic.carried()
    };
    let rcpt = ["bob@b.example".to_owned()];
    // No relay is named: it counts when one is, and where nobody knows the message, never.
    detector.step(&send_unnamed(at(BEGIN_S), "a@a.example", "10.0.0.1", "Q1", 5));
    detector.step(&outcome(at(BEGIN_S + 60), "a@a.example", "Q1", "out-0", "bob@b.example", ""));
    detector.step(&outcome(at(BEGIN_S + 60), "a@a.example", "Q1", "out-1", "ann@b.example", ""));
    detector.step(&outcome(at(BEGIN_S + 60), "a@a.example", "Q2", "out-2", "bob@b.example", ""));
    let minute = minute_of(BEGIN_S * 1000);
    let wanted = [((minute + 1, relay(0)), (1, 5, BTreeMap::new()))];
    assert_eq!(told(&mut detector), wanted.into());
    // Further behind than 300 s, whole minutes aside.
    detector.step(&send(at(BEGIN_S + 660), "a@a.example", "", "Q3", "out-0", &rcpt));
    detector.step(&send(at(BEGIN_S + 360), "b@a.example", "", "Q4", "out-0", &rcpt));
    detector.step(&send(at(BEGIN_S + 299), "c@a.example", "", "Q5", "out-0", &rcpt));
    let told_minutes: Vec<i64> = told(&mut detector).keys().map(|(m, _)| m - minute).collect();
    assert_eq!(told_minutes, [6, 11]);
    // A deferral that says whom it blames, one that does not, and a domain.
    for (reply, n) in [
        ("421 4.7.0 [TSS04] Messages from 203.0.113.7 temporarily deferred due to unexpected volume", 1),
        ("450 4.7.1 Client host rejected: cannot find your hostname", 0),
        ("421 4.7.0 very low reputation of the sending domain", 0),
    ] {
        let mut event = outcome(at(BEGIN_S + 900 + n), "a@a.example", "Q3", "out-0", "bob@b.example", reply);
        if let Kind::Outcome(outcome) = &mut event.kind {
            outcome.status = mailfuse::event::Status::Deferred;
        }
        detector.step(&event);
    }
    let refused: Vec<_> = told(&mut detector).into_values().map(|c| c.2).collect();
    assert_eq!(refused, [BTreeMap::from([(Family::Yahoo, 1)])]);
    // All beyond the bound are one, and once the minutes are closed there is room again.
    let mut detector = Detector::new(&policy, BEGIN_S);
    detector.shard.tell_signals(Part::ALL, Kept::default());
    let later = BEGIN_S + 7200;
    for i in 0..RELAYS_MAX + 50 {
        detector.step(&send(at(later), &format!("{i}@a.example"), "", "Q", &format!("many-{i}"), &rcpt));
    }
    let many = told(&mut detector);
    assert_eq!(many.len(), RELAYS_MAX);
    assert_eq!(many[&(minute_of(later * 1000), OTHER.to_owned())].0, 51);
    detector.step(&send(at(later + 900), "a@a.example", "", "Q9", "out-0", &rcpt));
    detector.step(&send(at(later + 900), "a@a.example", "", "Q9", "new", &rcpt));
    let after = told(&mut detector);
    assert_eq!(after[&(minute_of((later + 900) * 1000), "new".to_owned())].0, 1);
}

/// What somebody might find in the topic: any keys, any order, `seq` once for each content of a key.
fn signals() -> impl Strategy<Value = Vec<Signal>> {
    let count = (0u8..4, -5i64..20, -5i64..20, 0u64..3).prop_map(|(relay, messages, recipients, refused)| {
        let refused = if refused > 0 { BTreeMap::from([(Family::Google, refused)]) } else { BTreeMap::new() };
        RelayCount { relay: format!("out-{relay}"), messages, recipients, refused }
    });
    let counts = proptest::collection::btree_map(0u8..4, count, 0..4).prop_map(|counts| {
        let of = counts.into_iter().map(|(relay, c)| RelayCount { relay: format!("out-{relay}"), ..c });
        of.collect::<Vec<_>>()
    });
    let signal = (any::<bool>(), 0i32..3, 0i64..6, counts).prop_map(|(is_burst, who, minute, mut relays)| {
        let minute = Timestamp(minute * MINUTE_MS);
        if is_burst {
            relays.iter_mut().for_each(|r| r.refused.clear());
            let (incident, account) = (format!("i-{who}"), format!("a{who}@a.example"));
            let tenant = "a.example".to_owned();
            Signal::Burst(BurstMinute {
                v: 1,
                kind: BurstKind::Burst,
                incident,
                account,
                tenant,
                minute,
                seq: 0,
                relays,
            })
        } else {
            let part = Part { partitions: 3, partition: who };
            Signal::Relays(RelayMinute { v: 1, kind: RelaysKind::Relays, part, minute, seq: 0, relays })
        }
    });
    proptest::collection::vec(signal, 1..60).prop_map(|mut all| {
        for (i, signal) in all.iter_mut().enumerate() {
            match signal {
                Signal::Relays(r) => r.seq = i as u64 + 1,
                Signal::Burst(b) => b.seq = i as u64 + 1,
            }
        }
        all
    })
}

/// The last of each key, and then sums.
#[allow(clippy::type_complexity)]
fn naive(signals: &[Signal], from: i64, to: i64) -> BTreeMap<String, (u64, u64, Vec<(String, u64, u64)>, u64)> {
    let last: BTreeMap<String, &Signal> = signals.iter().map(|s| (s.key(), s)).collect();
    let mut sums: BTreeMap<(String, Option<String>), (i64, i64, u64)> = BTreeMap::new();
    for signal in last.values() {
        let (minute, incident, relays) = match signal {
            Signal::Relays(r) => (r.minute, None, &r.relays),
            Signal::Burst(b) => (b.minute, Some(b.incident.clone()), &b.relays),
        };
        if (from..=to).contains(&minute_of(minute.0)) {
            for count in relays {
                let sum = sums.entry((count.relay.clone(), incident.clone())).or_default();
                let refused: u64 = count.refused.values().sum();
                *sum = (sum.0 + count.messages, sum.1 + count.recipients, sum.2 + refused);
            }
        }
    }
    let mut loads = BTreeMap::<String, (u64, u64, Vec<(String, u64, u64)>, u64)>::new();
    for ((relay, incident), (messages, recipients, refused)) in sums {
        let (m, r) = (messages.max(0) as u64, recipients.max(0) as u64);
        if (m, r, refused) == (0, 0, 0) || incident.as_deref() == Some("i-1") {
            continue;
        }
        let load = loads.entry(relay).or_default();
        match incident {
            None => (load.0, load.1, load.3) = (m, r, refused),
            Some(incident) => load.2.push((incident, m, r)),
        }
    }
    loads
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    })]

    #[test]
    fn in_any_order_and_again_the_sums_are_those_of_the_last_records(
        signals in signals(),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..120),
        span in 1u32..6,
        forget in any::<bool>(),
    ) {
        let mut exposure = Exposure::new(6 * 60);
        // Some first, in any order and more than once; then all, backwards.
        for i in order {
            exposure.take(i.get(&signals));
        }
        for signal in signals.iter().rev() {
            exposure.take(signal);
        }
        if forget {
            exposure.forget(5 * MINUTE_MS + 1);
            exposure.forget(0);
        }
        // One incident was called no hijack.
        let loads = exposure.loads(5 * MINUTE_MS, span * 60, &|incident| incident != "i-1");
        let wanted = naive(&signals, 5 - i64::from(span), 5);
        let ours: BTreeMap<String, _> = loads
            .into_iter()
            .map(|(relay, load)| {
                let mut bursts: Vec<_> =
                    load.bursts.iter().map(|b| (b.incident.clone(), b.messages, b.recipients)).collect();
                prop_assert_eq!(load.burst_recipients(), bursts.iter().map(|b| b.2).sum::<u64>());
                bursts.sort();
                let refused: u64 = load.refused.values().sum();
                Ok((relay.to_owned(), (load.messages, load.recipients, bursts, refused)))
            })
            .collect::<Result<_, _>>()?;
        prop_assert_eq!(ours, wanted);
    }
}
