//! A heartbeat of the desk is flagged by the detector's ordinary rules, each time, whatever it has learned.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

mod common;
mod core_support;

use core_support::{BEGIN_S, Detector, at, policy, stored};
use mailfuse::core::alert::{Action, Alert, AlertKind, Severity};
use mailfuse::core::beat::is_beat;
use mailfuse::core::policy::Detect;
use mailfuse::desk::heartbeat::{Heart, Record};
use mailfuse::event::{Decoded, Limits, decode};

const PARTITIONS: i32 = 3;

fn step(detector: &mut Detector, records: &[Record]) {
    for record in records {
        let Ok(Decoded::Event(event, _)) = decode(&record.value, &Limits::default(), None) else { panic!() };
        assert_eq!(event.account.as_deref(), Some(record.key.as_str()));
        detector.step(&event);
    }
}

/// What is said of one beat.
fn flags(alerts: &[Alert]) -> Vec<(&str, AlertKind, Severity)> {
    alerts.iter().map(|a| (&*a.account, a.kind, a.severity)).collect()
}

fn check(interval_s: i64, since_s: i64, beats: i64) {
    let policy = policy(Detect::default());
    let mut detector = Detector::new(&policy, since_s);
    let mut again = Detector::new(&policy, since_s);
    let mut heart = Heart::new(interval_s * 1000, Vec::new(), BEGIN_S * 1000);
    for n in 1..=beats {
        let now_ms = (BEGIN_S + n * interval_s) * 1000 + 321;
        assert!(heart.is_due(now_ms));
        heart.end(now_ms);
        let records = heart.begin(PARTITIONS, now_ms).unwrap();
        step(&mut detector, &records);
        let alerts = std::mem::take(&mut detector.alerts);
        let flagged: Vec<_> = alerts.iter().filter(|a| a.kind == AlertKind::Flagged).collect();
        assert_eq!(flagged.len(), PARTITIONS as usize, "every {interval_s} s, beat {n}: {:?}", flags(&alerts));
        for alert in &alerts {
            assert!(alert.heartbeat && is_beat(&alert.account) && alert.action == Action::None, "{alert:?}");
        }
        // It reaches critical: what it shows is the whole of the detector.
        let told = alerts.iter().filter(|a| a.kind != AlertKind::Cleared);
        let critical = told.filter(|a| a.severity == Severity::Critical).count();
        assert_eq!(critical, PARTITIONS as usize, "beat {n}: {:?}", flags(&alerts));
        let complete = flagged.iter().filter_map(|alert| heart.answer(alert, now_ms + 10)).count();
        assert_eq!(complete, 1);
        // A detector that was saved and loaded in between says the same.
        step(&mut again, &records);
        assert_eq!(std::mem::take(&mut again.alerts), alerts);
        if n % 7 == 0 {
            let bytes = stored(&again.shard, &policy);
            again.shard = mailfuse::state::read(&bytes[..], &policy).unwrap();
        }
        assert_eq!(detector.shard.accounts(), PARTITIONS as usize, "no account more for each beat");
    }
    assert_eq!(detector.shard.open(), 0, "they are nobody's incidents");
    // When beats end, nothing is said: a silent stream must not look like an answer.
    detector.tick(BEGIN_S + beats * interval_s + 10 * 86_400);
    assert_eq!(detector.alerts, []);
    assert_eq!(detector.shard.open_incidents().count(), 0);
}

#[test]
fn each_beat_is_flagged_in_the_first_week_and_later() {
    check(10, BEGIN_S, 100);
    check(300, BEGIN_S, 300);
    check(300, BEGIN_S - 100 * 86_400, 300);
    check(86_400, BEGIN_S, 30);
}

#[test]
fn nobody_elses_alert_is_marked() {
    let policy = policy(Detect::default());
    let mut detector = Detector::new(&policy, BEGIN_S - 100 * 86_400);
    let mut heart = Heart::new(60_000, Vec::new(), BEGIN_S * 1000);
    heart.end(BEGIN_S * 1000 + 60_000);
    for record in heart.begin(1, BEGIN_S * 1000 + 60_000).unwrap() {
        let Ok(Decoded::Event(mut event, _)) = decode(&record.value, &Limits::default(), None) else { panic!() };
        event.account = Some("anna@example.org".into());
        detector.step(&event);
    }
    let line = serde_json::to_string(&detector.alerts[0]).unwrap();
    assert!(!line.contains("heartbeat\":"), "{line}");
    assert_ne!(detector.alerts[0].action, Action::None);
    assert_eq!(detector.shard.newest().0 / 1000, at(BEGIN_S + 60).0 / 1000);
}

#[test]
fn replay_marks_them_and_leaves_them_out_of_the_summary() {
    let mut heart = Heart::new(60_000, Vec::new(), BEGIN_S * 1000);
    heart.end(BEGIN_S * 1000 + 60_000);
    let records = heart.begin(1, BEGIN_S * 1000 + 60_000).unwrap();
    let lines: String = records.iter().map(|r| String::from_utf8(r.value.clone()).unwrap() + "\n").collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    for (domain, is_marked) in [("heartbeat.mailfuse.invalid", true), ("other.example", false)] {
        std::fs::write(file.path(), lines.replace("@heartbeat.mailfuse.invalid\",\"id", &format!("@{domain}\",\"id")))
            .unwrap();
        let mut replay = std::process::Command::new(env!("CARGO_BIN_EXE_mailfuse"));
        let ran = replay.arg("replay").arg(file.path()).output().unwrap();
        let (out, err) = (String::from_utf8(ran.stdout).unwrap(), String::from_utf8(ran.stderr).unwrap());
        assert!(ran.status.success() && out.contains(domain), "{err}");
        assert!(out.lines().all(|line| line.contains("\"heartbeat\":true") == is_marked), "{out}");
        assert_eq!(err.contains(&format!("@{domain}")), !is_marked, "{err}");
    }
}
