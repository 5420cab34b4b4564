//! The outbox under simulated time: receivers that fail in every way, crashes at every moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mailfuse::desk::webhook::outbox::{Added, Limits, NotAdded, Outbox, PROBE_MS_MAX, SCHEDULE_MS};
use mailfuse::desk::webhook::outcome::Outcome;
use mailfuse::desk::webhook::record::{Attempt, Change, Delivery, DeliveryRecord, EndpointRecord, State};
use mailfuse::desk::webhook::settings::{Endpoint, Url};

const BEGIN_MS: i64 = 1_772_438_400_000;
const HOUR_MS: i64 = 3_600_000;

/// splitmix64, as a source of chance that is the same every time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn endpoint(name: &str, concurrency: u32) -> Endpoint {
    Endpoint { name: name.into(), url: Url("https://example.org".into()), concurrency, ..Endpoint::default() }
}

fn delivery(n: u64, incident: &str, seq: u64, now_ms: i64) -> Delivery {
    Delivery {
        endpoint: "a".into(),
        id: format!("msg_{n}"),
        incident: incident.into(),
        seq,
        created_ms: now_ms,
        not_before_ms: now_ms,
    }
}

fn delivered() -> Outcome {
    Outcome::of(200, None)
}

fn down() -> Outcome {
    Outcome::Retry { status: None, after: None, why: "no connection".into() }
}

fn one() -> Outbox {
    Outbox::new(&[endpoint("a", 4)], Limits::default())
}

/// The circuit out of the way.
fn by_schedule() -> Outbox {
    Outbox::new(&[endpoint("a", 4)], Limits { circuit_after: u32::MAX, ..Limits::default() })
}

fn ids(attempts: &[Attempt]) -> Vec<&str> {
    attempts.iter().map(|a| a.id.as_str()).collect()
}

fn record(change: &Change) -> Option<&DeliveryRecord> {
    match change {
        Change::Delivered(r) | Change::Failed(r) | Change::Dead(r) | Change::Resent(r) => Some(r),
        Change::Disabled(_) | Change::Enabled(_) => None,
    }
}

#[test]
fn the_schedule_ends_after_75_35_05_within_its_jitter() {
    assert_eq!(SCHEDULE_MS.iter().sum::<i64>(), ((75 * 60 + 35) * 60 + 5) * 1000);
    for (rng, low, high) in [(0, 0.9, 0.9001), (u64::MAX, 1.0999, 1.1), (u64::MAX / 2, 0.9999, 1.0001)] {
        let (mut outbox, mut now, mut times) = (by_schedule(), BEGIN_MS, Vec::new());
        outbox.add(delivery(1, "i", 1, now)).unwrap();
        loop {
            let due = outbox.due(now);
            assert_eq!(ids(&due), ["msg_1"]);
            times.push(now);
            assert!(outbox.due(now).is_empty());
            match outbox.done(due[0].attempt, &down(), now, &mut || rng).remove(0) {
                Change::Failed(r) => assert_eq!((r.attempts as usize, r.state), (times.len(), State::Pending)),
                Change::Dead(r) => {
                    assert_eq!((r.attempts, r.state), (10, State::Dead));
                    break;
                }
                other => panic!("{other:?}"),
            }
            let next = outbox.next_ms().unwrap();
            assert!(outbox.due(next - 1).is_empty());
            now = next;
        }
        assert_eq!(times.len(), 10);
        let sum = (times[9] - BEGIN_MS) as f64;
        let expected = SCHEDULE_MS.iter().sum::<i64>() as f64;
        assert!((low * expected..=high * expected).contains(&sum), "{} of 75:35:05", sum / expected);
        assert_eq!(outbox.next_ms(), None);
        assert_eq!(outbox.health("a").unwrap().pending, 0);
    }
}

#[test]
fn an_incident_goes_in_order_and_others_do_not_wait_for_it() {
    let mut outbox = by_schedule();
    for (n, incident, seq) in [(1, "i", 10), (2, "i", 20), (3, "j", 15)] {
        assert_eq!(outbox.add(delivery(n, incident, seq, BEGIN_MS)), Ok(Added::New));
    }
    assert_eq!(outbox.add(delivery(1, "i", 10, BEGIN_MS)), Ok(Added::Known));
    let due = outbox.due(BEGIN_MS);
    assert_eq!(ids(&due), ["msg_1", "msg_3"]);
    outbox.done(due[0].attempt, &down(), BEGIN_MS, &mut || 0);
    outbox.done(due[1].attempt, &delivered(), BEGIN_MS, &mut || 0);
    assert!(outbox.due(BEGIN_MS + 4000).is_empty());
    let due = outbox.due(BEGIN_MS + 4500);
    assert_eq!(ids(&due), ["msg_1"]);
    outbox.done(due[0].attempt, &delivered(), BEGIN_MS + 5000, &mut || 0);
    assert_eq!(ids(&outbox.due(BEGIN_MS + 5000)), ["msg_2"]);
}

#[test]
fn a_circuit_probes_one_at_a_time_and_uses_up_nothing() {
    let mut outbox = one();
    for n in 1..=20 {
        outbox.add(delivery(n, &format!("i{n}"), n, BEGIN_MS)).unwrap();
    }
    let (mut now, mut probes) = (BEGIN_MS, Vec::new());
    let first = outbox.due(now);
    assert_eq!(first.len(), 4);
    for a in &first {
        outbox.done(a.attempt, &down(), now, &mut || 0);
    }
    // An hour: 1, 2, 4, … 60 s, then each minute.
    while now < BEGIN_MS + HOUR_MS {
        now = outbox.next_ms().unwrap();
        let due = outbox.due(now);
        assert_eq!(due.len(), 1);
        assert!(due[0].probe && outbox.next_ms() == Some(BEGIN_MS + Limits::default().age_max_ms));
        let change = outbox.done(due[0].attempt, &down(), now, &mut || 0).remove(0);
        assert!(record(&change).unwrap().attempts <= 1);
        probes.push((now, due[0].id.clone()));
    }
    let gaps: Vec<i64> = probes.windows(2).map(|w| (w[1].0 - w[0].0) / 1000).collect();
    assert_eq!(gaps[..6], [2, 4, 8, 16, 32, 60]);
    assert!(gaps[6..].iter().all(|&gap| gap == PROBE_MS_MAX / 1000));
    // Every one gets its turn, first who was never tried.
    assert_eq!(probes[..16].iter().map(|p| &p.1).collect::<BTreeSet<_>>().len(), 16);
    assert_eq!(probes[0].1, "msg_5");
    // Two that their schedule would send tomorrow; one of them is the next probe.
    for n in [21, 22] {
        let new = DeliveryRecord::new(&delivery(n, &format!("i{n}"), n, now));
        assert!(outbox.restore(DeliveryRecord { attempts: 8, next_ms: now + 24 * HOUR_MS, ..new }));
    }
    // It is back: everything at once, but for the bound.
    let due = outbox.due(outbox.next_ms().unwrap());
    outbox.done(due[0].attempt, &delivered(), now, &mut || 0);
    let mut arrived = 1;
    loop {
        let due = outbox.due(now);
        if due.is_empty() {
            break;
        }
        assert!(due.len() <= 4 && due.iter().all(|a| !a.probe));
        for a in due {
            outbox.done(a.attempt, &delivered(), now, &mut || 0);
            arrived += 1;
        }
    }
    assert_eq!(arrived, 22);
}

#[test]
fn a_message_that_is_never_taken_does_not_keep_the_circuit_open() {
    let mut outbox = one();
    outbox.add(delivery(1, "poison", 1, BEGIN_MS)).unwrap();
    let mut now = BEGIN_MS;
    while !outbox.health("a").unwrap().circuit_open {
        now = outbox.next_ms().unwrap();
        let due = outbox.due(now);
        outbox.done(due[0].attempt, &Outcome::of(500, None), now, &mut || 0);
    }
    outbox.add(delivery(2, "good", 1, now)).unwrap();
    now = outbox.next_ms().unwrap();
    let due = outbox.due(now);
    assert_eq!(ids(&due), ["msg_2"]);
    outbox.done(due[0].attempt, &delivered(), now, &mut || 0);
    assert!(!outbox.health("a").unwrap().circuit_open);
}

#[test]
fn refusals_follow_the_schedule_and_open_no_circuit() {
    let (mut outbox, mut now, mut attempts) = (one(), BEGIN_MS, 0);
    outbox.add(delivery(1, "i", 1, now)).unwrap();
    while let Some(next) = outbox.next_ms() {
        now = next;
        let due = outbox.due(now);
        attempts += 1;
        outbox.done(due[0].attempt, &Outcome::of(404, None), now, &mut || u64::MAX / 2);
        assert!(!outbox.health("a").unwrap().circuit_open);
    }
    assert_eq!((attempts, (now - BEGIN_MS) / HOUR_MS), (10, 75));
}

#[test]
fn retry_after_holds_the_endpoint_and_uses_up_nothing() {
    let mut outbox = Outbox::new(&[endpoint("a", 1), endpoint("b", 1)], Limits::default());
    outbox.add(delivery(1, "i", 1, BEGIN_MS)).unwrap();
    outbox.add(delivery(2, "j", 1, BEGIN_MS)).unwrap();
    outbox.add(Delivery { endpoint: "b".into(), ..delivery(3, "k", 1, BEGIN_MS + 1000) }).unwrap();
    let due = outbox.due(BEGIN_MS);
    let change = outbox.done(due[0].attempt, &Outcome::of(429, Some(Duration::from_secs(30))), BEGIN_MS, &mut || 0);
    let r = record(&change[0]).unwrap();
    assert_eq!((r.attempts, r.next_ms, r.last.as_ref().unwrap().status), (0, BEGIN_MS + 30_000, Some(429)));
    assert_eq!(ids(&outbox.due(BEGIN_MS + 29_999)), ["msg_3"]);
    assert_eq!(ids(&outbox.due(BEGIN_MS + 30_000)), ["msg_2"]);
}

#[test]
fn gone_holds_what_waits_until_somebody_enables_it() {
    let mut outbox = one();
    outbox.add(delivery(1, "i", 1, BEGIN_MS)).unwrap();
    outbox.add(delivery(2, "i", 2, BEGIN_MS)).unwrap();
    let due = outbox.due(BEGIN_MS);
    let changes = outbox.done(due[0].attempt, &Outcome::Gone, BEGIN_MS, &mut || 0);
    let disabled = EndpointRecord { v: 1, endpoint: "a".into(), disabled_ms: Some(BEGIN_MS) };
    assert!(
        matches!(&changes[0], Change::Failed(r) if r.attempts == 0 && r.last.as_ref().unwrap().status == Some(410))
    );
    assert_eq!(changes[1], Change::Disabled(disabled.clone()));
    assert!(outbox.due(BEGIN_MS + HOUR_MS).is_empty());
    let dies = BEGIN_MS + Limits::default().age_max_ms;
    assert_eq!(outbox.next_ms(), Some(dies));
    // Also after a restart.
    let mut again = one();
    again.restore_endpoint(&disabled);
    assert!(again.restore(record(&changes[0]).unwrap().clone()));
    again.add(delivery(2, "i", 2, BEGIN_MS)).unwrap();
    assert!(again.due(BEGIN_MS + HOUR_MS).is_empty());
    assert!(again.expire(dies - 1).is_empty());
    assert!(matches!(again.enable("a", dies - 1)[0], Change::Enabled(_)));
    assert!(again.enable("a", dies - 1).is_empty());
    assert_eq!(ids(&again.due(dies - 1)), ["msg_1"]);
    // The other instance never is enabled: by age they die, and it is said.
    let dead = outbox.expire(dies);
    assert!(dead.len() == 2 && dead.iter().all(|c| matches!(c, Change::Dead(_))), "{dead:?}");
    assert_eq!(outbox.next_ms(), None);
}

#[test]
fn a_full_endpoint_hands_the_delivery_back() {
    let mut outbox = Outbox::new(&[endpoint("a", 4)], Limits { pending_max: 2, ..Limits::default() });
    outbox.add(delivery(1, "i", 1, BEGIN_MS)).unwrap();
    outbox.add(delivery(2, "i", 2, BEGIN_MS)).unwrap();
    let third = delivery(3, "i", 3, BEGIN_MS);
    assert_eq!(outbox.add(third.clone()), Err(NotAdded::Full { delivery: Box::new(third.clone()), pending: 2 }));
    let due = outbox.due(BEGIN_MS);
    outbox.done(due[0].attempt, &delivered(), BEGIN_MS, &mut || 0);
    assert_eq!(outbox.add(third), Ok(Added::New));
    let lost = Delivery { endpoint: "z".into(), ..delivery(4, "i", 4, BEGIN_MS) };
    assert!(matches!(outbox.add(lost), Err(NotAdded::Unknown { .. })));
}

#[test]
fn quiet_hours_hold_a_warning_until_something_urgent_follows() {
    let held = Delivery { not_before_ms: BEGIN_MS + HOUR_MS, ..delivery(1, "i", 1, BEGIN_MS) };
    let mut outbox = one();
    outbox.add(held.clone()).unwrap();
    outbox.add(Delivery { not_before_ms: BEGIN_MS + HOUR_MS, ..delivery(3, "j", 1, BEGIN_MS) }).unwrap();
    assert!(outbox.due(BEGIN_MS).is_empty());
    assert_eq!(outbox.next_ms(), Some(BEGIN_MS + HOUR_MS));
    outbox.add(delivery(2, "i", 2, BEGIN_MS + 1)).unwrap();
    let due = outbox.due(BEGIN_MS + 1);
    assert_eq!(ids(&due), ["msg_1"]);
    outbox.done(due[0].attempt, &delivered(), BEGIN_MS + 1, &mut || 0);
    assert_eq!(ids(&outbox.due(BEGIN_MS + 1)), ["msg_2"]);
    // The same when they are restored the other way round.
    let mut again = one();
    again.restore(DeliveryRecord::new(&delivery(2, "i", 2, BEGIN_MS + 1)));
    again.restore(DeliveryRecord::new(&held));
    assert_eq!(ids(&again.due(BEGIN_MS + 1)), ["msg_1"]);
    // One that becomes urgent by itself.
    assert_eq!(outbox.hasten("a", "msg_3", BEGIN_MS + 2).unwrap().next_ms, BEGIN_MS + 2);
    assert_eq!(ids(&outbox.due(BEGIN_MS + 2)), ["msg_3"]);
}

#[test]
fn what_is_sent_again_keeps_its_id_and_begins_anew() {
    let mut outbox = by_schedule();
    outbox.add(delivery(1, "i", 1, BEGIN_MS)).unwrap();
    let due = outbox.due(BEGIN_MS);
    let under_way = DeliveryRecord::new(&delivery(1, "i", 1, BEGIN_MS));
    assert_eq!(outbox.resend(under_way.clone(), BEGIN_MS), None);
    outbox.done(due[0].attempt, &Outcome::of(404, None), BEGIN_MS, &mut || 0);
    assert!(outbox.due(BEGIN_MS + 1).is_empty());
    let Some(Change::Resent(r)) = outbox.resend(under_way, BEGIN_MS + 1) else { panic!() };
    assert_eq!((r.id.as_str(), r.attempts, r.next_ms), ("msg_1", 0, BEGIN_MS + 1));
    let due = outbox.due(BEGIN_MS + 1);
    let changes = outbox.done(due[0].attempt, &delivered(), BEGIN_MS + 1, &mut || 0);
    let r = record(&changes[0]).unwrap().clone();
    assert_eq!((r.state, outbox.next_ms()), (State::Delivered, None));
    let again = outbox.resend(r, BEGIN_MS + 2).unwrap();
    assert_eq!(record(&again).unwrap().state, State::Pending);
    assert_eq!(ids(&outbox.due(BEGIN_MS + 2)), ["msg_1"]);
}

#[test]
fn a_record_is_json_of_a_fixed_shape() {
    let mut r = DeliveryRecord::new(&delivery(7, "i", 3, BEGIN_MS));
    let text = serde_json::to_string(&r).unwrap();
    let expected = r#"{"v":1,"endpoint":"a","id":"msg_7","incident":"i","seq":3,"created_ms":1772438400000,"attempts":0,"next_ms":1772438400000,"state":"pending"}"#;
    assert_eq!(text, expected);
    assert_eq!(serde_json::from_str::<DeliveryRecord>(&text).unwrap(), r);
    let mut outbox = one();
    outbox.restore(r.clone());
    let due = outbox.due(BEGIN_MS);
    let changes = outbox.done(due[0].attempt, &Outcome::of(503, None), BEGIN_MS, &mut || 0);
    r = record(&changes[0]).unwrap().clone();
    let text = serde_json::to_string(&r).unwrap();
    assert!(text.contains(r#""last":{"at_ms":1772438400000,"status":503,"error":"answered 503"}"#), "{text}");
    assert_eq!(serde_json::from_str::<DeliveryRecord>(&text).unwrap(), r);
}

/// What is on disk, and the receiver that sees every attempt that reaches it.
#[derive(Default)]
struct World {
    records: BTreeMap<String, DeliveryRecord>,
    disabled: Option<EndpointRecord>,
    /// By incident, in the order in which the receiver said yes, without those that it knew by id.
    taken: BTreeMap<String, Vec<u64>>,
    seen: BTreeSet<String>,
    dead: BTreeSet<String>,
}

impl World {
    fn write(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Disabled(r) | Change::Enabled(r) => self.disabled = Some(r.clone()),
                _ => {
                    let r = record(change).unwrap();
                    let before = self.records.insert(r.id.clone(), r.clone()).unwrap();
                    assert_eq!((&before.incident, before.seq, before.created_ms), (&r.incident, r.seq, r.created_ms));
                    if r.state == State::Dead {
                        self.dead.insert(r.id.clone());
                    }
                }
            }
        }
    }

    fn restart(&self, endpoints: &[Endpoint], dice: &mut Dice) -> Outbox {
        let mut outbox = Outbox::new(endpoints, Limits::default());
        let mut records: Vec<_> = self.records.values().cloned().collect();
        for i in (1..records.len()).rev() {
            records.swap(i, dice.below(i as u64 + 1) as usize);
        }
        for r in records {
            assert!(outbox.restore(r));
        }
        self.disabled.iter().for_each(|r| outbox.restore_endpoint(r));
        outbox
    }
}

#[test]
fn through_failures_and_crashes_nothing_is_lost_and_order_is_kept() {
    for seed in 0..60 {
        simulate(seed);
    }
}

fn simulate(seed: u64) {
    let mut dice = Dice(seed);
    let concurrency = 1 + dice.below(4) as u32;
    let endpoints = [endpoint("a", concurrency)];
    let mut outbox = Outbox::new(&endpoints, Limits::default());
    let (mut world, mut now, mut made) = (World::default(), BEGIN_MS, 0);
    let mut under_way: Vec<(i64, Attempt)> = Vec::new();
    // How bad the receiver is, of 100; it ends well.
    let bad = 30 + dice.below(70);
    for step in 0..5000 {
        let over = step > 600;
        if made < 80 && dice.below(4) == 0 {
            made += 1;
            let d = delivery(made, &format!("i{}", dice.below(12)), made, now);
            world.records.insert(d.id.clone(), DeliveryRecord::new(&d));
            outbox.add(d).unwrap();
        }
        if !over && dice.below(40) == 0 {
            // What was under way may or may not have arrived.
            for (_, a) in under_way.drain(..) {
                if dice.below(2) == 0 {
                    receive(&mut world, &a);
                }
            }
            outbox = world.restart(&endpoints, &mut dice);
        }
        if outbox.health("a").unwrap().disabled_ms.is_some() && (over || dice.below(10) == 0) {
            world.write(&outbox.enable("a", now));
        }
        world.write(&outbox.expire(now));
        let due = outbox.due(now);
        under_way.extend(due.into_iter().map(|a| (now + 1 + dice.below(20_000) as i64, a)));
        assert!(under_way.len() <= concurrency as usize);
        let lanes: BTreeSet<_> = under_way.iter().map(|(_, a)| &a.incident).collect();
        assert_eq!(lanes.len(), under_way.len(), "two of one incident at a time");
        under_way.sort_by_key(|(at, a)| (*at, a.attempt));
        let ends = under_way.first().map(|(at, _)| *at);
        let wakes = outbox.next_ms().filter(|_| ends.is_none_or(|at| at > outbox.next_ms().unwrap()));
        match (wakes, ends) {
            (Some(at), _) => now = now.max(at.min(now + 1 + dice.below(3 * HOUR_MS as u64) as i64)),
            (None, Some(at)) => {
                now = now.max(at);
                let (_, a) = under_way.remove(0);
                let outcome = if over { delivered() } else { any_outcome(&mut dice, bad) };
                if outcome == delivered() {
                    receive(&mut world, &a);
                }
                world.write(&outbox.done(a.attempt, &outcome, now, &mut || dice.next()));
            }
            (None, None) if made == 80 && over => break,
            (None, None) => now += 1 + dice.below(60_000) as i64,
        }
    }
    assert_eq!(outbox.health("a").unwrap().pending, 0, "seed {seed}");
    assert_eq!((world.records.len(), made), (80, 80), "seed {seed}");
    for r in world.records.values() {
        match r.state {
            State::Delivered => assert!(world.seen.contains(&r.id), "seed {seed}: {r:?}"),
            // Never silently: the schedule was used up, or it was old.
            State::Dead => assert!(r.attempts == 10 || now - r.created_ms >= Limits::default().age_max_ms),
            State::Pending => panic!("seed {seed}: {r:?}"),
        }
    }
    for (incident, seqs) in &world.taken {
        assert!(seqs.is_sorted(), "seed {seed}: {incident} {seqs:?}");
    }
}

fn receive(world: &mut World, a: &Attempt) {
    let r = &world.records[&a.id];
    assert_eq!((&r.incident, r.seq), (&a.incident, a.seq));
    assert_ne!(r.state, State::Delivered, "sent again though it was confirmed");
    if world.seen.insert(a.id.clone()) {
        world.taken.entry(a.incident.clone()).or_default().push(a.seq);
    }
}

fn any_outcome(dice: &mut Dice, bad: u64) -> Outcome {
    if dice.below(100) >= bad {
        return delivered();
    }
    match dice.below(12) {
        0 => Outcome::Gone,
        1 => Outcome::of(429, Some(Duration::from_secs(dice.below(4000)))),
        2 => Outcome::of(302, None),
        3 => Outcome::of(401, None),
        4 => Outcome::Blocked { why: "private".into() },
        5 => Outcome::of(503, Some(Duration::from_secs(dice.below(60)))),
        _ => down(),
    }
}

#[test]
fn ten_thousand_that_wait_are_sent_in_turn() {
    let mut outbox = one();
    for n in 0..10_000 {
        outbox.add(delivery(n, &format!("i{}", n % 5000), n, BEGIN_MS)).unwrap();
    }
    let mut arrived = 0;
    while outbox.health("a").unwrap().pending > 0 {
        for a in outbox.due(BEGIN_MS) {
            outbox.done(a.attempt, &delivered(), BEGIN_MS, &mut || 0);
            arrived += 1;
        }
    }
    assert_eq!(arrived, 10_000);
}
