//! What people decide about an account: it counts from its moment to its end, whenever it was read, and it changes what is
//! raised, never what is learned.

use crate::core_support;

use std::sync::Arc;

use core_support::stream::{name, stream};
use core_support::{BEGIN_S, DAY_S, Detector, at, outcome, policy, send, stored};
use mailfuse::core::alert::{Alert, AlertKind, Signal};
use mailfuse::core::decided::Bar;
use mailfuse::core::decision::{BadDecisions, Decisions, What};
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::scope::Scope;
use mailfuse::core::verdict::Stratum;
use mailfuse::core::window::Counters;
use mailfuse::event::{Event, Timestamp};
use proptest::prelude::*;
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

fn text(alerts: &[Alert]) -> Vec<String> {
    alerts.iter().map(|a| serde_json::to_string(a).unwrap()).collect()
}

/// Mail to a few colleagues on each of twelve days, and then `n` messages to strangers from where it always is.
fn strangers(account: &str, ip: &str, n: u32, kind: impl Fn(u32) -> Vec<String>) -> Vec<Event<'static>> {
    let mut events = Vec::new();
    for day in 0..12 {
        for i in 0..5 {
            let rcpts = [format!("colleague{i}@customer.example")];
            let ts = at(BEGIN_S + day * DAY_S + 36_000 + i * 600);
            events.push(send(ts, account, "10.1.0.7", &format!("d{day}-{i}"), "out-1", &rcpts));
            events.push(outcome(ts, account, &format!("d{day}-{i}"), "out-1", &rcpts[0], ""));
        }
    }
    for i in 0..n {
        let ts = Timestamp((BEGIN_S + 12 * DAY_S + 36_000) * 1000 + i64::from(i) * 50);
        events.push(send(ts, account, ip, &format!("s{i}"), "out-1", &kind(i)));
    }
    events
}

fn one_stranger(i: u32) -> Vec<String> {
    vec![format!("stranger{i}@far{}.example", i % 5)]
}

/// How many of the messages to strangers it takes to the first flag.
fn messages_to_flag(events: &[Event<'_>], policy: &Arc<Policy>, decided: &[Arc<Decisions>]) -> Option<(u32, Alert)> {
    let mut d = Detector::new(policy, BEGIN_S - 90 * DAY_S);
    decided.iter().for_each(|one| d.shard.decide(Arc::clone(one)));
    let mut strangers = 0;
    for event in events {
        strangers += d.step(event).new_recipients.min(1) * u32::from(event.ts >= at(BEGIN_S + 12 * DAY_S));
        if let Some(alert) = d.alerts.pop() {
            return Some((strangers, alert));
        }
    }
    None
}

fn exempt(factor: Value, until_s: i64) -> Value {
    json!([{"what": "exempt", "factor": factor, "from": 0, "until": until_s, "by": "ann"}])
}

const LONG_S: i64 = BEGIN_S + 63 * DAY_S;

#[test]
fn an_exemption_multiplies_the_limit_and_what_goes_beyond_says_so() {
    let policy = default_policy();
    let who = "info@customer.example";
    let events = strangers(who, "10.1.0.7", 1200, one_stranger);
    let (plain, alert) = messages_to_flag(&events, &policy, &[]).unwrap();
    assert!(plain > 3, "{plain}");
    assert_eq!(alert.exempt, None);
    assert!(!serde_json::to_string(&alert).unwrap().contains("exempt"));
    for factor in [2.0, 4.0, 10.0] {
        let decided = [decisions(who, exempt(json!(factor), LONG_S))];
        let (with, alert) = messages_to_flag(&events, &policy, &decided).unwrap();
        // The limit lies somewhere above one message less.
        let factor_whole = factor as u32;
        assert!((plain - 1) * factor_whole < with && with <= plain * factor_whole, "{plain}, {with} at {factor}");
        let told = alert.exempt.as_ref().unwrap();
        assert_eq!((&*told.scope, &*told.name, told.factor, told.until), ("account", who, factor, at(LONG_S)));
        assert_eq!(told.by.as_deref(), Some("ann"));
        let new = alert.evidence.iter().find(|e| e.signal == Signal::NewRecipients).unwrap();
        assert_eq!(new.observed, f64::from(with));
        assert!([with - 1, with].map(f64::from).contains(&new.limit), "{new:?}");
        let says = format!("(limits times {factor}: exempt until 2026-03-09)");
        assert!(new.text.contains(&says), "{}", new.text);
    }
    // Without a factor it is ten; of several the largest counts, never the product.
    let list = json!([
        {"what": "exempt", "factor": 3, "from": 0, "until": LONG_S},
        {"what": "exempt", "from": 0, "until": LONG_S},
    ]);
    let ten = messages_to_flag(&events, &policy, &[decisions(who, exempt(json!(10), LONG_S))]).unwrap().0;
    assert_eq!(messages_to_flag(&events, &policy, &[decisions(who, list)]).unwrap().0, ten);
    // It counts until its end, and of another account it says nothing.
    let over =
        [decisions(who, exempt(json!(10), BEGIN_S + 12 * DAY_S)), decisions("a@b.example", exempt(json!(10), LONG_S))];
    assert_eq!(messages_to_flag(&events, &policy, &over).unwrap().0, plain);
}

/// Whatever the factor: what is counted divided by it is what would be counted without it, and one less is not.
#[test]
fn limits_of_all_counts_are_multiplied() {
    let policy = default_policy();
    let mut detector = Detector::new(&policy, BEGIN_S - 90 * DAY_S);
    let who = "info@customer.example";
    strangers(who, "10.1.0.7", 1, one_stranger).iter().for_each(|e| _ = detector.step(e));
    let account = detector.shard.account(who).unwrap();
    proptest!(|(whole in 1_u32..100_000, factor in 1.01_f64..10.0)| {
        let factor = (factor * 100.0).round() / 100.0;
        // The smallest count that is `whole` times the factor.
        let needed = (f64::from(whole) * factor - 1e-6).ceil() as u32;
        let mut d = Detector::new(&policy, BEGIN_S - 90 * DAY_S);
        d.shard.decide(decisions(who, exempt(json!(factor), LONG_S)));
        let bar = d.shard.bar(&account);
        let all = |n: u32| Counters {
            messages: n, recipients: n, volume: n, new_recipients: n, new_damped: n, new_foreign: n,
            refused_quarters: 4 * n, refused: n, answered: n, complaints: n,
        };
        let (at_limit, below) = (bar.counts_as(&account, 0, all(needed)), bar.counts_as(&account, 0, all(needed - 1)));
        prop_assert_eq!(at_limit.new_damped, whole);
        prop_assert_eq!(below.new_damped, whole - 1);
        for (c, n) in [(at_limit, whole), (below, whole - 1)] {
            prop_assert_eq!([c.messages, c.recipients, c.volume, c.new_recipients, c.new_foreign, c.refused, c.complaints], [n; 7]);
            prop_assert_eq!(c.refused_quarters, 4 * n);
            prop_assert!(c.answered >= n && c.answered <= n + 1);
        }
        prop_assert_eq!(Bar::plain(&policy, Stratum::New).counts_as(&account, 0, all(whole)), all(whole));
    });
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
    d.shard.decide(Arc::new(Decisions::none(Scope::new("account", who).unwrap())));
    assert!(d.shard.decisions(&d.shard.account(who).unwrap()).is_empty());
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
        {"what":"close","incident":"i-1","from":1700000000123,"until":"no time","note":"caf\u00e9"},
        {"id":"d-1","what":"hijack","incident":"i-1","from":1700000000123},
        {"what":"exempt","factor":null,"from":1,"until":2}]}"#;
    let read = Decisions::parse(record).unwrap();
    assert_eq!(read.scope, Scope::Account("a@b.example".into()));
    assert_eq!(read.decisions[0].what, What::Tolerate { decades: 2.0 });
    assert_eq!(read.decisions[0].from.to_string(), "2026-03-02T07:00:00.000Z");
    assert_eq!(read.decisions[1].what, What::Pin { stratum: Stratum::Established });
    assert_eq!((read.decisions[2].until, read.decisions[2].note.as_deref()), (None, Some("café")));
    assert_eq!(read.decisions[3].what, What::Hijack { incident: "i-1".to_owned() });
    assert_eq!((read.decisions[3].until, read.decisions[3].id.as_deref()), (None, Some("d-1")));
    assert_eq!(read.decisions[4].what, What::Exempt { factor: 10.0 });
    assert_eq!(Decisions::parse(serde_json::to_string(&read).unwrap().as_bytes()).unwrap(), read);
    let long = "x".repeat(1025);
    let one = |decision: &str| format!(r#"{{"v":1,"account":"a@b.c","decisions":[{decision}]}}"#);
    let about = |scope: &str, decision: &str| {
        one(decision).replace(r#""account":"a@b.c""#, &format!(r#""{scope}":"a.example""#))
    };
    for (record, message) in [
        ("{".to_owned(), "no control record: EOF"),
        ("[1,\"a@b.c\",[]]".to_owned(), "no control record: not a JSON object"),
        ("\u{1}".to_owned(), "no control record: "),
        (r#"{"account":"a@b.c","decisions":[]}"#.to_owned(), "`v` is not 1"),
        (r#"{"v":2,"account":"a@b.c","decisions":[]}"#.to_owned(), "`v` is not 1"),
        (r#"{"v":1,"decisions":[]}"#.to_owned(), "must be about one of `account`, `tenant`, `domain` and `network`"),
        (r#"{"v":1,"account":"a","tenant":"b","decisions":[]}"#.to_owned(), "must be about one of"),
        (r#"{"v":1,"account":7,"decisions":[]}"#.to_owned(), "`account`: must be a name"),
        (r#"{"v":1,"account":"scope:x","decisions":[]}"#.to_owned(), "`account`: must be a name that does not"),
        (r#"{"v":1,"domain":"a@b","decisions":[]}"#.to_owned(), "`domain`: must be a domain"),
        (r#"{"v":1,"network":"192.0.2.1","decisions":[]}"#.to_owned(), "`network`: must be a network"),
        (r#"{"v":1,"account":"a@b.c"}"#.to_owned(), "`decisions`: must be a list of at most 100"),
        (one(r#"{"from":1,"until":2}"#), "decision 1: `what`: must be exempt, tolerate, pin, close, hijack or inherit"),
        (one("[1]"), "no control record: not a JSON object"),
        (
            about("tenant", r#"{"what":"close","incident":"i","from":1}"#),
            "decision 1: `what`: about a tenant or a domain",
        ),
        (
            about("domain", r#"{"what":"hijack","incident":"i","from":1}"#),
            "decision 1: `what`: about a tenant or a domain",
        ),
        (
            about("network", r#"{"what":"tolerate","decades":1,"from":1,"until":2}"#).replace("a.example", "::/8"),
            "decision 1: `what`: about a network it must be exempt",
        ),
        (one(r#"{"what":"exempt","factor":1,"from":1,"until":2}"#), "decision 1: `factor`: must be a number above 1"),
        (one(r#"{"what":"exempt","factor":10.5,"from":1,"until":2}"#), "decision 1: `factor`: "),
        (one(r#"{"what":"exempt","factor":"2","from":1,"until":2}"#), "decision 1: `factor`: "),
        (one(r#"{"what":"hijack","from":1}"#), "decision 1: `incident`: "),
        (one(&format!(r#"{{"id":"{}","what":"exempt","from":1,"until":2}}"#, &long[..65])), "decision 1: `id`: "),
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

/// A newer program's record: what is not known changes nothing, is kept as it is, and the rest counts.
#[test]
fn a_decision_of_an_unknown_kind_leaves_the_others_in_force() {
    let record = r#"{"v":1,"account":"a@b.c","decisions":[{"what":"forgive","how":[1,{"much":2}]},{"what":"exempt","from":1,"until":2}]}"#;
    let read = Decisions::parse(record.as_bytes()).unwrap();
    assert_eq!((read.decisions.len(), &read.unknown), (1, &vec![json!({"what": "forgive", "how": [1, {"much": 2}]})]));
    assert!(!read.is_empty());
    assert_eq!(Decisions::parse(serde_json::to_string(&read).unwrap().as_bytes()).unwrap(), read);
}
