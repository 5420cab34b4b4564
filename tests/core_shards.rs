//! A verdict is a function of the account's own events: however many shards there are, however often it runs, and wherever the
//! state was saved and loaded. And what is said keeps to the contract.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

mod common;
mod core_support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use common::{Dice, shared};
use core_support::stream::{ACCOUNTS, DAYS, SEED, name, stream};
use core_support::{BEGIN_S, DAY_S, at, complaint, outcome, policy, send, stored};
use mailfuse::core::alert::{Alert, AlertKind, Severity, Signal};
use mailfuse::core::decided::Bar;
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::shard::Shard;
use mailfuse::core::verdict;
use mailfuse::event::{Event, Kind, Timestamp};
use mailfuse::logs::postfix::{Options, Postfix};
use mailfuse::logs::stamp::{StampOptions, Stamper};
use mailfuse::state;

/// What came of a stream: alerts of each account in their order, and the state at the end.
#[derive(PartialEq)]
struct Ran {
    /// In the order in which they were written.
    written: Vec<String>,
    alerts: BTreeMap<String, Vec<String>>,
    states: Vec<Vec<u8>>,
    duplicates: usize,
}

/// FNV-1a: which shard an account goes to.
fn hash(account: &str) -> u64 {
    account.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3))
}

/// Puts the stream through `shards` shards; after as many events as `saves` say, all are saved and loaded.
fn run(events: &[Event<'_>], policy: &Arc<Policy>, shards: usize, saves: &[usize]) -> Ran {
    let since = events.iter().map(|e| e.ts).min_by_key(|t| t.0).unwrap();
    let newest = events.iter().map(|e| e.ts).max_by_key(|t| t.0).unwrap();
    let mut all: Vec<Shard> = (0..shards).map(|_| Shard::new(Arc::clone(policy), since)).collect();
    let (mut out, mut duplicates) = (Vec::new(), 0);
    for (i, event) in events.iter().enumerate() {
        if saves.contains(&i) {
            for shard in &mut all {
                *shard = state::read(&stored(shard, policy)[..], policy).unwrap();
            }
        }
        let shard = (hash(event.account.as_deref().unwrap()) % shards as u64) as usize;
        duplicates += usize::from(all[shard].step(event, &mut out).duplicate);
    }
    for shard in &mut all {
        shard.tick(newest, &mut out);
    }
    let mut alerts = BTreeMap::<String, Vec<String>>::new();
    for alert in &out {
        alerts.entry(alert.account.clone()).or_default().push(serde_json::to_string(alert).unwrap());
    }
    let written = out.iter().map(|a| serde_json::to_string(a).unwrap()).collect();
    Ran { written, alerts, states: all.iter().map(|s| stored(s, policy)).collect(), duplicates }
}

/// The default policy, and one whose bounds are met again and again.
fn policies() -> [(&'static str, Arc<Policy>); 2] {
    let tight = Detect { sends_max: 40, repeat_s: 600, quiet_s: 3 * 3600, ..Detect::default() };
    [("default", policy(Detect::default())), ("tight bounds", policy(tight))]
}

fn assert_same_alerts(what: &str, a: &Ran, b: &Ran) {
    assert_eq!(a.alerts.keys().collect::<Vec<_>>(), b.alerts.keys().collect::<Vec<_>>(), "{what}");
    for (account, alerts) in &a.alerts {
        assert_eq!(alerts, &b.alerts[account], "{what}: {account}");
    }
}

fn parsed(result: &Ran) -> Vec<Alert> {
    result.alerts.values().flatten().map(|a| serde_json::from_str(a).unwrap()).collect()
}

/// Without this the tests below could hold because nothing happens.
#[test]
fn the_stream_has_what_it_is_made_for() {
    let events = stream();
    let mut newest_ms = i64::MIN;
    let late = events.iter().map(|e| {
        newest_ms = newest_ms.max(e.ts.0);
        newest_ms - e.ts.0
    });
    assert!((290_000..=300_000).contains(&late.max().unwrap()));
    for (what, policy) in policies() {
        let result = run(&events, &policy, 1, &[]);
        let alerts = parsed(&result);
        let count = |kind| alerts.iter().filter(|a| a.kind == kind).count();
        let kinds = [AlertKind::Flagged, AlertKind::Escalated, AlertKind::Cleared].map(count);
        let first = |severity| alerts.iter().any(|a| a.kind == AlertKind::Flagged && a.severity == severity);
        assert!(kinds[0] >= 15 && kinds[1] >= 3 && kinds[2] >= 10, "{what}: {kinds:?}");
        assert!(first(Severity::Warning) && first(Severity::Critical), "{what}");
        let signals: BTreeSet<Signal> = alerts.iter().flat_map(|a| &a.evidence).map(|e| e.signal).collect();
        assert_eq!(signals.len(), 5, "{what}: {signals:?}");
        assert!(result.duplicates > 50, "{what}: {} repeats", result.duplicates);
        assert!(result.alerts.len() < ACCOUNTS as usize / 2, "{what}: the innocent are flagged");
        let sends = events.iter().filter(|e| matches!(e.kind, Kind::Send(_))).count();
        assert!(sends > 5_000, "{what}: {sends}");
    }
}

#[test]
fn alerts_do_not_depend_on_the_number_of_shards() {
    let events = stream();
    for (what, policy) in policies() {
        let one = run(&events, &policy, 1, &[]);
        for shards in [4, 12] {
            assert_same_alerts(&format!("{what}, {shards} shards"), &one, &run(&events, &policy, shards, &[]));
        }
    }
}

#[test]
fn two_runs_give_the_same_bytes() {
    let events = stream();
    for (what, policy) in policies() {
        let (one, two) = (run(&events, &policy, 4, &[]), run(&events, &policy, 4, &[]));
        assert_same_alerts(what, &one, &two);
        assert!(one.written == two.written, "{what}: another order");
        assert!(one.states == two.states, "{what}: the states differ");
    }
}

#[test]
fn saving_and_loading_in_between_changes_nothing() {
    let events = stream();
    let n = events.len();
    for (what, policy) in policies() {
        let whole = run(&events, &policy, 1, &[]);
        // At odd places, in the thick of the bursts, and right before the end.
        for saves in [[n / 5, n / 2 + 1, n * 4 / 5], [n * 11 / 20, n * 11 / 20 + 1, n * 3 / 4], [1, n * 13 / 20, n - 1]]
        {
            let broken = run(&events, &policy, 1, &saves);
            assert_same_alerts(&format!("{what}, saved at {saves:?}"), &whole, &broken);
            assert!(whole.written == broken.written, "{what}, saved at {saves:?}: another order");
            assert_eq!(whole.duplicates, broken.duplicates, "{what}, saved at {saves:?}");
            assert!(whole.states == broken.states, "{what}, saved at {saves:?}: the states differ");
        }
    }
}

/// A real provider's day. Where the log is missing the test fails under CI and is skipped elsewhere.
#[test]
fn a_real_day_does_not_depend_on_shards_and_restores() {
    const NAME: &str = "jino-2012-07-10.pseudo.maillog.gz";
    let Some(path) = shared(&format!("data/logs/{NAME}")) else { return };
    let mut log = Vec::new();
    flate2::read::GzDecoder::new(&std::fs::read(path).unwrap()[..]).read_to_end(&mut log).unwrap();
    let mut stamper = Stamper::new(StampOptions { file_name: Some(NAME), ..StampOptions::default() });
    let (mut postfix, mut events) = (Postfix::new(Options::default()), Vec::new());
    for line in log.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let (ts, host) = stamper.stamp(line).unwrap();
        postfix.push(ts, &line[host..], &mut |event| events.push(event.clone().into_owned()));
    }
    postfix.finish(&mut |event| events.push(event.clone().into_owned()));
    events.retain(|event| event.account.is_some());
    let policy = policy(Detect::default());
    let one = run(&events, &policy, 1, &[]);
    assert!(one.written.len() >= 3, "{:?}", one.written);
    for shards in [4, 12] {
        assert_same_alerts(&format!("{shards} shards"), &one, &run(&events, &policy, shards, &[]));
    }
    let n = events.len();
    let saved = run(&events, &policy, 1, &[n / 3, n * 2 / 3, n - 1]);
    assert!(one.written == saved.written && one.states == saved.states, "saving left a trace");
}

/// Stamps of a log are whole seconds: many incidents end at one moment, and nothing may depend on who was met first.
#[test]
fn clears_of_one_moment_come_in_an_order_of_their_own() {
    let policy = policy(Detect::default());
    let mut events = Vec::new();
    // Met in falling order of their names, flagged in the same seconds.
    for i in 0..60 {
        for a in (0..20).rev() {
            let (ts, rcpts) = (at(BEGIN_S + 60 + i), [format!("stranger{a}.{i}@far.example")]);
            events.push(send(ts, &format!("user{a:02}@customer.example"), "10.0.0.7", "", "out-1", &rcpts));
        }
    }
    events.push(send(at(BEGIN_S + 2 * DAY_S), "other@customer.example", "", "", "", &["x@far.example".to_owned()]));
    let whole = run(&events, &policy, 1, &[]);
    let clears = whole.written.iter().filter(|a| a.contains("account.cleared")).count();
    assert_eq!(clears, 20);
    let saved = run(&events, &policy, 1, &[events.len() - 5]);
    assert!(whole.written == saved.written, "another order after loading");
}

/// Small doings of every kind, by accounts with a past: few strangers or more, taken or refused, from home or not, complained
/// about or not.
fn small_doings() -> Vec<Event<'static>> {
    let mut random = Dice(SEED);
    let mut events = Vec::new();
    for round in 0..4 {
        for a in 0..ACCOUNTS {
            let (strangers, refused_in_100) = (1 + random.below(16), 25 * random.below(5));
            let (networks, complaints) = (random.below(4), random.below(8).saturating_sub(4));
            let begin_ms = (BEGIN_S + (DAYS + 8 * round) * DAY_S + 60 * a as i64) * 1000;
            for i in 0..strangers {
                let ms = begin_ms + i as i64 * 1000;
                let home = format!("10.{a}.0.7");
                let ip = if networks == 0 {
                    home
                } else {
                    format!("172.{}.0.7", round * 60 + random.below(networks) as i64)
                };
                let (queue_id, rcpt) = (format!("S{round}.{a}.{i}"), format!("small{}@far.example", random.next()));
                events.push(send(Timestamp(ms), &name(a), &ip, &queue_id, "", std::slice::from_ref(&rcpt)));
                let reply = if random.below(100) < refused_in_100 { "550 5.1.1 user unknown" } else { "" };
                events.push(outcome(Timestamp(ms + 500), &name(a), &queue_id, "", &rcpt, reply));
            }
            events.extend((0..complaints).map(|i| complaint(Timestamp(begin_ms + 30_000 + i as i64), &name(a))));
        }
    }
    events
}

/// Tail probabilities cost; what is left out to save them must not change a verdict.
#[test]
fn no_shortcut_changes_a_verdict() {
    let policy = policy(Detect::default());
    let (mut severe, mut barely, mut looked) = (0, 0, 0);
    let events: Vec<Event<'static>> = stream().into_iter().chain(small_doings()).collect();
    let (mut shard, mut out) = (Shard::new(Arc::clone(&policy), events[0].ts), Vec::new());
    for (i, event) in events.iter().enumerate() {
        shard.step(event, &mut out);
        let account = shard.account(event.account.as_deref().unwrap()).unwrap();
        let (bar, t) = (Bar::plain(&policy, account.stratum()), verdict::threshold(&policy, account.stratum()));
        let windows = (0..policy.spans.all_s().len())
            .filter(|&w| policy.spans.all_s()[w] >= policy.detect.decide_from_s)
            .map(|w| verdict::weigh(&account, &policy, &bar, w));
        let expected = windows.filter_map(|w| Some((w.severity(t)?, w.new_raw))).max_by(|a, b| a.0.cmp(&b.0));
        let got = verdict::strongest(&account, &policy, &bar).map(|(_, severity)| severity);
        assert_eq!(got, expected.map(|e| e.0), "event {i} of {}", account.name());
        severe += usize::from(got.is_some());
        barely += usize::from(expected.is_some_and(|e| e.1 < 3.0));
        looked += 1;
    }
    // Also where few strangers, refused and from elsewhere, amount to something.
    assert!(severe > 200 && barely > 20, "{severe}, {barely} of {looked}");
}

#[test]
fn an_incident_says_each_thing_once_and_in_order() {
    let events = stream();
    for (what, policy) in policies() {
        let (mut ids, mut incidents) = (BTreeSet::new(), BTreeMap::<String, Vec<Alert>>::new());
        for alert in parsed(&run(&events, &policy, 1, &[])) {
            assert!(ids.insert(alert.id.clone()), "{what}: {} twice", alert.id);
            incidents.entry(alert.incident.clone()).or_default().push(alert);
        }
        for (incident, alerts) in incidents {
            if let [.., before, cleared] = &alerts[..]
                && cleared.kind == AlertKind::Cleared
            {
                // A clear says what had been reached.
                assert_eq!(cleared.severity, before.severity, "{what}: {incident}");
                assert_eq!((cleared.score, cleared.pattern), (before.score, before.pattern), "{what}: {incident}");
            }
            let kinds: Vec<AlertKind> = alerts.iter().map(|a| a.kind).collect();
            assert_eq!(kinds[0], AlertKind::Flagged, "{what}: {incident}");
            assert!(kinds.windows(2).all(|k| k[0] < k[1]), "{what}: {incident}: {kinds:?}");
            assert!(
                alerts.windows(2).all(|a| a[0].account == a[1].account && a[0].ts.0 <= a[1].ts.0),
                "{what}: {incident}"
            );
        }
    }
}

#[test]
fn every_alert_validates() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../schemas/alert.schema.json")).unwrap();
    let schema = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let events = stream();
    for (what, policy) in policies() {
        for text in run(&events, &policy, 4, &[]).alerts.values().flatten() {
            let errors: Vec<String> =
                schema.iter_errors(&serde_json::from_str(text).unwrap()).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{what}: {errors:?} in {text}");
        }
    }
}

/// The window in words, as the sentences have it.
fn window_words(span_s: u32) -> String {
    match span_s {
        600 => "10 min".to_owned(),
        3_600 => "1 h".to_owned(),
        21_600 => "6 h".to_owned(),
        86_400 => "1 d".to_owned(),
        604_800 => "7 d".to_owned(),
        other => panic!("a window of {other} s decides"),
    }
}

#[test]
fn every_number_of_a_sentence_is_a_field_beside_it() {
    let events = stream();
    for (what, policy) in policies() {
        let mut numbers = 0;
        for evidence in parsed(&run(&events, &policy, 1, &[])).iter().flat_map(|a| &a.evidence) {
            let window = format!(" in {};", window_words(evidence.window_s));
            assert_eq!(evidence.text.matches(&window).count(), 1, "{what}: {}", evidence.text);
            let rest = evidence.text.replacen(&window, ";", 1);
            for word in rest
                .split(|c: char| !c.is_ascii_digit() && c != '.')
                .filter(|w| w.contains(|c: char| c.is_ascii_digit()))
            {
                let number: f64 = word.trim_end_matches('.').parse().unwrap();
                let fields = [evidence.observed, evidence.expected, evidence.limit];
                assert!(fields.contains(&number), "{what}: {number} is none of {fields:?}: {}", evidence.text);
                numbers += 1;
            }
        }
        assert!(numbers > 100, "{what}: {numbers}");
    }
}
