//! What people decide about an account: it counts from its moment to its end, whenever it was read, and it changes what is
//! raised, never what is learned.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

mod common;
mod core_support;

use std::sync::Arc;

use core_support::stream::{name, stream};
use core_support::{BEGIN_S, DAY_S, Detector, at, policy, send, stored};
use mailfuse::core::alert::{Alert, AlertKind, Severity, Signal};
use mailfuse::core::decision::{BadDecisions, Decisions, What};
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::verdict::Stratum;
use mailfuse::event::{Event, Timestamp};
use serde_json::{Value, json};

fn default_policy() -> Arc<Policy> {
    policy(Detect::default())
}

fn decisions(account: &str, list: Value) -> Arc<Decisions> {
    let record = json!({ "v": 1, "account": account, "decisions": list });
    Arc::new(Decisions::parse(record.to_string().as_bytes()).unwrap())
}

fn time(ms: i64) -> Value {
    json!(Timestamp(ms).to_string())
}

/// The events of one hijacked account.
fn of(account: &str) -> Vec<Event<'static>> {
    stream().into_iter().filter(|e| e.account.as_deref() == Some(account)).collect()
}

/// All alerts and the state at the end, `decided` read before the first event.
fn run(events: &[Event<'_>], policy: &Arc<Policy>, decided: &[Arc<Decisions>]) -> (Vec<Alert>, Detector) {
    let mut d = Detector::new(policy, BEGIN_S);
    decided.iter().for_each(|one| d.shard.decide(Arc::clone(one)));
    for event in events {
        d.step(event);
    }
    d.tick(BEGIN_S + 60 * DAY_S);
    (std::mem::take(&mut d.alerts), d)
}

fn kinds(alerts: &[Alert]) -> Vec<(AlertKind, Severity)> {
    alerts.iter().map(|a| (a.kind, a.severity)).collect()
}

fn text(alerts: &[Alert]) -> Vec<String> {
    alerts.iter().map(|a| serde_json::to_string(a).unwrap()).collect()
}

#[test]
fn an_exempt_account_raises_nothing_and_learns_all_the_same() {
    let policy = default_policy();
    let who = name(0);
    let events = of(&who);
    let (alerts, _) = run(&events, &policy, &[]);
    let flags: Vec<&Alert> = alerts.iter().filter(|a| a.kind == AlertKind::Flagged).collect();
    assert!(flags.len() >= 2, "{:?}", kinds(&alerts));
    let all = json!([{"what": "exempt", "from": time(BEGIN_S * 1000), "until": time((BEGIN_S + 90 * DAY_S) * 1000)}]);
    let (none, exempt) = run(&events, &policy, &[decisions(&who, all)]);
    assert_eq!(kinds(&none), []);
    let account = exempt.shard.account(&who).unwrap();
    assert!(account.contacts().len() > 100, "{}", account.contacts().len());
    // Until right before the second flag, or to it: `until` is the first moment that does not count.
    for (until_ms, said) in [(flags[1].ts.0, true), (flags[1].ts.0 + 1, false)] {
        let list = json!([{"what": "exempt", "from": time(BEGIN_S * 1000), "until": time(until_ms)}]);
        let (alerts, _) = run(&events, &policy, &[decisions(&who, list)]);
        assert_eq!(alerts.first().is_some_and(|a| a.ts == flags[1].ts), said, "{:?}", alerts.first());
    }
    // Of another account it says nothing.
    let other = json!([{"what": "exempt", "from": 0, "until": 9_999_999_999_u64}]);
    assert_eq!(text(&run(&events, &policy, &[decisions(&name(5), other)]).0), text(&alerts));
}

#[test]
fn a_tolerance_raises_every_bar_and_the_evidence_says_so() {
    let policy = default_policy();
    let who = name(0);
    let events = of(&who);
    let (alerts, _) = run(&events, &policy, &[]);
    let tolerate = |decades: f64| {
        let list = json!([
            {"what": "tolerate", "decades": decades, "from": 0, "until": 9_999_999_999_u64},
            {"what": "tolerate", "decades": decades / 2.0, "from": 0, "until": 9_999_999_999_u64},
        ]);
        run(&events, &policy, &[decisions(&who, list)]).0
    };
    // The same as a configuration with higher bars says, but for its name.
    let raised = |decades: f64| {
        let mut detect = Detect::default();
        let t = &mut detect.thresholds;
        for t in [&mut t.unknown, &mut t.new, &mut t.established, &mut t.bulk] {
            *t = t.raised(decades);
        }
        run(&events, &core_support::policy(detect), &[]).0
    };
    for decades in [0.5, 2.0, 4.0] {
        assert_eq!(text(&tolerate(decades)), text(&raised(decades)), "{decades}");
    }
    assert_ne!(text(&tolerate(2.0)), text(&alerts));
    assert!(tolerate(99.0).len() < alerts.len());
    let limit = |alerts: &[Alert]| {
        let mut new = alerts[0].evidence.iter().filter(|e| e.signal == Signal::NewRecipients);
        new.next().unwrap().limit
    };
    assert!(limit(&tolerate(2.0)) > limit(&alerts), "{} {}", limit(&tolerate(2.0)), limit(&alerts));
}

#[test]
fn a_pin_changes_the_verdict_and_not_the_account() {
    let policy = default_policy();
    let events = of(&name(3));
    let (alerts, plain) = run(&events, &policy, &[]);
    assert!(!alerts.is_empty());
    let pin = |stratum: &str| {
        let list = json!([{"what": "pin", "stratum": stratum, "from": 0, "until": 9_999_999_999_u64}]);
        run(&events, &policy, &[decisions(&name(3), list)])
    };
    let mut detect = Detect::default();
    let t = &mut detect.thresholds;
    (t.unknown, t.new, t.established) = (t.bulk.clone(), t.bulk.clone(), t.bulk.clone());
    let (bulk, pinned) = pin("bulk");
    let same =
        |alerts: &[Alert]| alerts.iter().map(|a| (a.kind, a.severity, a.ts, a.score.to_bits())).collect::<Vec<_>>();
    assert_eq!(same(&bulk), same(&run(&events, &core_support::policy(detect), &[]).0));
    let strata = [&plain, &pinned].map(|d| d.shard.account(&name(3)).unwrap().stratum());
    assert_eq!(strata[0], strata[1]);
    assert_ne!(text(&bulk), text(&alerts));
    // As for the moment before it counts, and after.
    let never = json!([{"what": "pin", "stratum": "bulk", "from": 1, "until": 2}]);
    assert_eq!(text(&run(&events, &policy, &[decisions(&name(3), never)]).0), text(&alerts));
}

/// A close by hand gives the same bytes whether it was read before the first event, when it was written, or late but in time.
#[test]
fn a_close_is_the_same_whenever_it_was_read() {
    let policy = default_policy();
    let who = name(0);
    let events = of(&who);
    let (alerts, _) = run(&events, &policy, &[]);
    let flag = alerts.iter().find(|a| a.kind == AlertKind::Flagged).unwrap();
    let quiet = alerts.iter().find(|a| a.kind == AlertKind::Cleared).unwrap();
    for after_ms in [1, 20_000, 600_000, 3_600_000] {
        let from = Timestamp(flag.ts.0 + after_ms);
        assert!(from < quiet.ts);
        let list = json!([{"what": "close", "incident": flag.incident, "from": time(from.0), "by": "ann"}]);
        let decided = decisions(&who, list);
        let (before, whole) = run(&events, &policy, &[Arc::clone(&decided)]);
        let cleared = before.iter().find(|a| a.kind == AlertKind::Cleared && a.incident == flag.incident).unwrap();
        assert_eq!(cleared.ts, from);
        assert_eq!(cleared.id, quiet.id);
        // Live: read when the account's clock is past the flag, and not yet at `from`.
        let mut d = Detector::new(&policy, BEGIN_S);
        let mut told = false;
        for event in &events {
            if !told && event.ts >= from {
                d.shard.decide(Arc::clone(&decided));
                told = true;
            }
            d.step(event);
        }
        d.tick(BEGIN_S + 60 * DAY_S);
        assert_eq!(text(&d.alerts), text(&before), "after {after_ms} ms");
        assert!(stored(&d.shard, &policy) == stored(&whole.shard, &policy), "after {after_ms} ms");
    }
    // Never before the flag; and another incident's id closes nothing.
    let early = json!([{"what": "close", "incident": flag.incident, "from": 0}]);
    let (alerts_early, _) = run(&events, &policy, &[decisions(&who, early)]);
    let cleared = alerts_early.iter().find(|a| a.incident == flag.incident && a.kind == AlertKind::Cleared).unwrap();
    assert_eq!(cleared.ts, flag.ts);
    let other = json!([{"what": "close", "incident": "i-0", "from": 0}]);
    assert_eq!(text(&run(&events, &policy, &[decisions(&who, other)]).0), text(&alerts));
}

#[test]
fn a_list_replaces_the_one_before_and_an_open_incident_notices() {
    let policy = default_policy();
    let who = "info@customer.example";
    let mut d = Detector::new(&policy, BEGIN_S);
    for i in 0..200 {
        d.step(&send(at(BEGIN_S + i), who, "10.0.0.7", "", "", &[format!("stranger{i}@far.example")]));
    }
    let (account, incident) = d.shard.open_incidents().next().unwrap();
    let (id, active_ms) = (incident.id.to_string(), incident.active_ms);
    assert_eq!(account.name(), who);
    let close = |from_ms: i64| decisions(who, json!([{"what": "close", "incident": id, "from": time(from_ms)}]));
    let said = d.alerts.len();
    d.shard.decide(close(active_ms + 60_000));
    d.shard.decide(close(active_ms + 7_200_000));
    d.tick((active_ms + 60_000) / 1000 + 400);
    assert_eq!(d.alerts.len(), said, "the first list is gone");
    d.shard.decide(Arc::new(Decisions::none(who)));
    assert!(d.shard.decisions(who).is_none());
    d.tick(active_ms / 1000 + 7200 + 400);
    assert_eq!(d.alerts.len(), said, "the list was taken back");
    d.shard.decide(close(active_ms + 10_800_000));
    d.tick(active_ms / 1000 + 10_800 + 400);
    assert_eq!(d.alerts.last().map(|a| (a.kind, a.ts.0)), Some((AlertKind::Cleared, active_ms + 10_800_000)));
    assert_eq!(d.shard.open_incidents().count(), 0);
}

#[test]
fn records_are_read_and_written_and_errors_name_the_place() {
    let record = br#"{"v":1.0,"account":"A@B.example","more":[1],"decisions":[
        {"what":"tolerate","decades":2,"from":"2026-03-02T08:00:00+01:00","until":1800000000.5,"x":{}},
        {"what":"pin","stratum":"established","from":1700000000,"until":1700000000001,"by":null},
        {"what":"close","incident":"i-1","from":1700000000123,"until":"no time","note":"caf\u00e9"}]}"#;
    let read = Decisions::parse(record).unwrap();
    assert_eq!(&*read.account, "a@b.example");
    assert_eq!(read.decisions[0].what, What::Tolerate { decades: 2.0 });
    assert_eq!(read.decisions[0].from.to_string(), "2026-03-02T07:00:00.000Z");
    assert_eq!(read.decisions[1].what, What::Pin { stratum: Stratum::Established });
    assert_eq!((read.decisions[2].until, read.decisions[2].note.as_deref()), (None, Some("café")));
    assert_eq!(Decisions::parse(serde_json::to_string(&read).unwrap().as_bytes()).unwrap(), read);
    let long = "x".repeat(1025);
    let one = |decision: &str| format!(r#"{{"v":1,"account":"a@b.c","decisions":[{decision}]}}"#);
    for (record, message) in [
        ("{".to_owned(), "no control record: EOF"),
        ("[1,\"a@b.c\",[]]".to_owned(), "no control record: not a JSON object"),
        ("\u{1}".to_owned(), "no control record: "),
        (r#"{"account":"a@b.c","decisions":[]}"#.to_owned(), "`v` is not 1"),
        (r#"{"v":2,"account":"a@b.c","decisions":[]}"#.to_owned(), "`v` is not 1"),
        (r#"{"v":1,"decisions":[]}"#.to_owned(), "`account`: must be a name"),
        (r#"{"v":1,"account":"a@b.c"}"#.to_owned(), "`decisions`: must be a list of at most 100"),
        (one(r#"{"what":"forgive","from":1,"until":2}"#), "decision 1: `what`: must be exempt, tolerate, pin or close"),
        (one(r#"{"from":1,"until":2}"#), "decision 1: `what`: "),
        (one(r#"{"what":"exempt","until":2}"#), "decision 1: `from`: must be a time"),
        (one(r#"{"what":"exempt","from":1}"#), "decision 1: `until`: must be a time"),
        (one(r#"{"what":"exempt","from":2,"until":2}"#), "decision 1: `until`: must be after `from`"),
        (one(r#"{"what":"tolerate","from":1,"until":2}"#), "decision 1: `decades`: "),
        (one(r#"{"what":"tolerate","decades":-1,"from":1,"until":2}"#), "decision 1: `decades`: "),
        (one(r#"{"what":"tolerate","decades":1e300,"from":1,"until":2}"#), "decision 1: `decades`: "),
        (one(r#"{"what":"pin","stratum":"new","from":1,"until":2}"#), "decision 1: `stratum`: "),
        (one(r#"{"what":"close","from":1}"#), "decision 1: `incident`: "),
        (one(&format!(r#"{{"what":"exempt","from":1,"until":2,"note":"{long}"}}"#)), "decision 1: `note`: "),
        (one(&[r#"{"what":"exempt","from":1,"until":2}"#; 101].join(",")), "`decisions`: "),
    ] {
        let error = Decisions::parse(record.as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with(message), "{record}: {error}");
    }
    let twice = Decisions::parse(one(r#"{"what":"exempt","what":"close","from":1,"until":2}"#).as_bytes());
    assert!(matches!(twice, Err(BadDecisions::Json(_))));
}
