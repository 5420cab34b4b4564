//! The live view of an account: it must say what the verdict rests on, in the verdict's own numbers.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

mod common;
mod core_support;

use std::sync::Arc;

use core_support::{BEGIN_S, DAY_S, Detector, at, outcome, policy, send};
use mailfuse::core::alert::Severity;
use mailfuse::core::decision::Decisions;
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::telemetry::account::AccountView;
use serde_json::{Value, json};

const ACCOUNT: &str = "ann@a.example";

/// Three weeks of mail to a few friends, from one network.
fn quiet(policy: &Arc<Policy>) -> Detector {
    let mut detector = Detector::new(policy, BEGIN_S - 60 * DAY_S);
    for day in 0..21 {
        let ts = at(BEGIN_S + day * DAY_S + 9 * 3600);
        let rcpts = [format!("friend{}@b.example", day % 5)];
        detector.step(&send(ts, ACCOUNT, "192.0.2.1", &format!("q{day}"), "mx1", &rcpts));
        detector.step(&outcome(ts, ACCOUNT, &format!("q{day}"), "mx1", &rcpts[0], ""));
    }
    detector
}

/// Then strangers, one a message, over a network from elsewhere; every third refused.
fn hijacked(policy: &Arc<Policy>) -> Detector {
    let mut detector = quiet(policy);
    for i in 0..60 {
        let ts = at(BEGIN_S + 21 * DAY_S + 10 * 3600 + i * 5);
        let rcpts = [format!("stranger{i}@c{}.example", i % 7)];
        detector.step(&send(ts, ACCOUNT, "198.51.100.9", &format!("h{i}"), "mx2", &rcpts));
        let reply = if i % 3 == 0 { "550 5.1.1 user unknown" } else { "" };
        detector.step(&outcome(ts, ACCOUNT, &format!("h{i}"), "mx2", &rcpts[0], reply));
    }
    detector
}

fn view(detector: &Detector, now_s: i64) -> AccountView {
    AccountView::new(&detector.shard.account(ACCOUNT).unwrap(), &detector.shard, at(now_s))
}

/// No number has more than three decimals, those of the configuration and the core's own evidence included.
fn check_rounded(value: &Value, path: &str) {
    match value {
        Value::Number(n) => {
            let x = n.as_f64().unwrap();
            assert!((x * 1000.0 - (x * 1000.0).round()).abs() < 1e-6, "{path}: {x}");
        }
        Value::Array(a) => a.iter().for_each(|v| check_rounded(v, path)),
        Value::Object(o) => o.iter().for_each(|(k, v)| check_rounded(v, &format!("{path}.{k}"))),
        _ => {}
    }
}

#[test]
fn a_quiet_account_is_so_far_from_a_warning() {
    let policy = policy(Detect::default());
    let detector = quiet(&policy);
    let clock_s = BEGIN_S + 20 * DAY_S + 9 * 3600;
    let view = view(&detector, clock_s + 90);
    assert_eq!((view.stratum, view.clock, view.idle_s), ("established", at(clock_s), 90));
    assert_eq!((view.first_seen, view.cleared), (at(BEGIN_S + 9 * 3600), None));
    assert_eq!((view.baseline.contacts_known, view.baseline.active_days), (5, 20));
    assert!(view.baseline.refused_share < 0.05 && view.baseline.foreign_network_share < 0.05, "{:?}", view.baseline);
    assert!(view.incident.is_none() && view.decisions.is_empty());
    let strongest = view.strongest.as_ref().unwrap();
    assert_eq!(strongest.severity, None);
    assert!(view.short_of_warning > 3.0 && view.verdict.starts_with("not flagged: "), "{}", view.verdict);
    assert_eq!(view.windows.iter().map(|w| w.window_s).collect::<Vec<_>>(), policy.spans.all_s());
    assert_eq!(view.windows.iter().map(|w| w.decides).collect::<Vec<_>>(), [false, true, true, true, true, true]);
    // What is expected grows with the span, and is there although nothing new was counted.
    assert!(view.windows.iter().all(|w| w.new_recipients == 0 && w.new_recipients_expected > 0.0));
    assert!(view.windows.windows(2).all(|w| w[0].new_recipients_expected < w[1].new_recipients_expected));
    let week = view.windows.last().unwrap();
    assert_eq!((week.messages, week.answered, week.refused, week.distinct.recipients), (7, 7, 0, 5));
    check_rounded(&serde_json::to_value(&view).unwrap(), "");
}

#[test]
fn a_hijacked_account_says_what_its_alert_said() {
    let policy = policy(Detect::default());
    let detector = hijacked(&policy);
    let view = view(&detector, 0);
    assert_eq!((view.short_of_warning, &*view.verdict, view.idle_s), (0.0, "critical", 0));
    let strongest = view.strongest.as_ref().unwrap();
    assert_eq!(strongest.severity, Some(Severity::Critical));
    assert!(strongest.evidence.iter().any(|e| e.text.contains("new recipients in")), "{:?}", strongest.evidence);
    let alert = detector.alerts.last().unwrap();
    let incident = view.incident.as_ref().unwrap();
    assert_eq!((&incident.incident, incident.severity), (&alert.incident, Severity::Critical));
    assert_eq!((incident.score, incident.pattern), (alert.score, alert.pattern));
    assert_eq!(incident.clears.0 - incident.active.0, i64::from(policy.detect.quiet_s) * 1000);
    assert_eq!(incident.relays[0].relay, "mx2");
    assert!(incident.burst.as_ref().unwrap().new_recipients >= alert.burst.as_ref().unwrap().new_recipients);

    let ten = view.windows.iter().find(|w| w.window_s == 600).unwrap();
    assert_eq!((ten.messages, ten.new_recipients, ten.refused, ten.answered), (60, 60, 20, 60));
    assert_eq!(
        (ten.distinct.recipients, ten.distinct.networks, ten.distinct.domains, ten.distinct.relays),
        (60, 1, 7, 1)
    );
    assert!(ten.corroborated && ten.score >= ten.critical && ten.severity == Some(Severity::Critical), "{ten:?}");
    let p = ten.parts;
    let sum = p.new_recipients + p.refusals + p.networks + p.complaints + p.volume;
    assert!((sum - ten.score).abs() < 0.004, "{sum} is not {}", ten.score);
    let written = serde_json::to_value(&view).unwrap();
    assert_eq!(
        (&written["windows"][1]["severity"], &written["strongest"]["pattern"]),
        (&json!("critical"), &json!("hijack"))
    );
    check_rounded(&written, "");
}

#[test]
fn what_no_number_would_reach_is_null() {
    let policy = policy(Detect::default());
    let mut detector = Detector::new(&policy, BEGIN_S);
    detector.step(&send(at(BEGIN_S), ACCOUNT, "192.0.2.1", "q", "mx1", &["x@b.example".to_owned()]));
    let view = view(&detector, BEGIN_S);
    assert_eq!(view.stratum, "unknown");
    // New recipients alone are never critical there.
    assert_eq!(serde_json::to_value(&view).unwrap()["windows"][1]["alone"], Value::Null);
}

/// What is shown is weighed as the detector weighs it, with everything that is decided.
#[test]
fn decisions_of_every_scope_are_shown_and_count() {
    let policy = policy(Detect::default());
    let mut detector = hijacked(&policy);
    let plain = view(&detector, 0);
    assert_eq!(plain.can_be_put_back.len(), 1);
    assert_eq!(plain.can_be_put_back[0].incident, plain.incident.as_ref().unwrap().incident);
    let until = "2030-01-01T00:00:00Z";
    for record in [
        json!({"v": 1, "tenant": "a.example", "decisions": [
            {"what": "tolerate", "decades": 2, "from": 0, "until": until}, {"what": "exempt", "factor": 2, "from": 0, "until": 1}]}),
        json!({"v": 1, "network": "198.51.100.0/24", "decisions": [{"what": "exempt", "from": 0, "until": until, "id": "x"}]}),
        json!({"v": 1, "network": "203.0.113.0/24", "decisions": [{"what": "exempt", "from": 0, "until": until}]}),
    ] {
        detector.shard.decide(Arc::new(Decisions::parse(record.to_string().as_bytes()).unwrap()));
    }
    let view = view(&detector, 0);
    let shown: Vec<_> = view.decisions.iter().map(|d| (d.scope, &*d.name, d.stands)).collect();
    let expected =
        [("tenant", "a.example", true), ("tenant", "a.example", false), ("network", "198.51.100.0/24", true)];
    assert_eq!(shown, expected);
    assert_eq!(serde_json::to_value(&view).unwrap()["decisions"][2]["id"], "x");
    assert_eq!(view.thresholds.warning, plain.thresholds.warning + 2.0);
    let ten = |v: &AccountView| v.windows.iter().find(|w| w.window_s == 600).unwrap().clone();
    // Counted is what was counted; it weighs a tenth.
    assert_eq!(ten(&view).new_recipients, ten(&plain).new_recipients);
    assert!(ten(&view).new_recipients_uncapped < ten(&plain).new_recipients_uncapped / 2.0, "{:?}", ten(&view));
}
