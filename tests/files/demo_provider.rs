//! The generated provider through the core alone: the hijack is found, and nobody else.

use crate::core_support;

use std::collections::BTreeSet;

use core_support::{DAY_S, Detector, at, policy};
use mailfuse::core::alert::Severity;
use mailfuse::core::policy::Detect;
use mailfuse::demo::{Plan, Provider};
use mailfuse::event::{Event, Kind, Timestamp};

/// 2026-03-18T09:00:00Z, a Wednesday.
const START_S: i64 = 1_773_824_400;

/// Recipients that have had spam when the account is flagged as critical, at most.
const LEAKED_MAX: u64 = 15;

#[test]
fn the_hijack_is_flagged_within_its_first_messages_and_nobody_else_is_critical() {
    let policy = policy(Detect::default());
    let mut figures = Vec::new();
    for seed in 1..=5 {
        let provider = Provider::new(Plan::new(seed, at(START_S)));
        let victim = provider.victim().unwrap().to_owned();
        let begin = provider.hijacked_at().unwrap();
        let until = Timestamp(begin.0 + 3_600_000);
        let (mut detector, mut history, mut events, mut messages, mut leaked) = (None, 0, 0, 0, 0);
        let mut last = Timestamp(i64::MIN);
        for event in provider.take_while(|event| event.ts < until) {
            assert!(event.ts >= last, "out of order");
            last = event.ts;
            events += 1;
            history += u64::from(event.ts < at(START_S));
            let detector = detector.get_or_insert_with(|| Detector::new(&policy, event.ts.seconds()));
            detector.step(&event);
            // What the flag stopped: the spam that had been sent before it.
            let flagged = detector.alerts.iter().any(|a| a.account == victim && a.severity == Severity::Critical);
            if let (Kind::Send(send), false, true) = (&event.kind, flagged, event.ts > begin)
                && is_of(&event, &victim)
            {
                messages += 1;
                leaked += send.rcpts.count;
            }
        }
        let alerts = detector.unwrap().alerts;
        let critical: BTreeSet<&str> =
            alerts.iter().filter(|a| a.severity == Severity::Critical).map(|a| a.account.as_str()).collect();
        // Nobody can know a newsletter before its first mailing; later ones are quiet.
        let warned: BTreeSet<&str> = alerts.iter().map(|a| a.account.as_str()).filter(|a| *a != victim).collect();
        assert!(warned.iter().all(|a| a.starts_with("news@")), "seed {seed}: {warned:?}");
        let newest = alerts.iter().filter(|a| a.account != victim).map(|a| a.ts).max();
        assert!(newest < Some(at(START_S - 7 * DAY_S)), "seed {seed}: {newest:?}");
        let flag = alerts.iter().find(|a| a.account == victim && a.severity == Severity::Critical);
        let after_s = flag.map(|flag| (flag.ts.0 - begin.0) as f64 / 1000.0);
        figures.push((seed, history, events, messages, leaked, after_s, warned.len()));
        println!("seed, history, events, messages, leaked, after s, accounts with an alert: {:?}", figures.last());
        assert_eq!(critical, BTreeSet::from([victim.as_str()]), "seed {seed}");
        assert!((1..=LEAKED_MAX).contains(&leaked) && messages <= 12, "{figures:?}");
        assert!((300_000..450_000).contains(&history), "{figures:?}");
    }
}

fn is_of(event: &Event<'_>, account: &str) -> bool {
    event.account.as_deref() == Some(account)
}

#[test]
fn the_same_plan_gives_the_same_events_and_another_seed_others() {
    let some =
        |seed| Provider::new(Plan { accounts: 60, ..Plan::new(seed, at(START_S)) }).take(2000).collect::<Vec<_>>();
    assert!(some(1) == some(1));
    assert!(some(1) != some(2));
}
