//! Incidents of streams made by hand: what is said when, and what is not held against an account.

use crate::core_support;

use std::sync::Arc;

use core_support::{BEGIN_S, DAY_S, Detector, at, complaint, outcome, policy, send, send_unnamed};
use mailfuse::core::alert::{Alert, AlertKind, Severity};
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::verdict::Stratum;
use mailfuse::core::window::Counters;

const WHO: &str = "info@customer.example";
const HOME: &str = "10.1.0.7";
const UNKNOWN_USER: &str = "550 5.1.1 user unknown";
/// Eight in the morning of the eleventh day, ten of history behind.
const DAY_11_S: i64 = BEGIN_S + 10 * DAY_S + 8 * 3600;

fn default_policy() -> Arc<Policy> {
    policy(Detect::default())
}

fn stranger(i: i64) -> String {
    format!("stranger{i}@far{}.example", i % 5)
}

fn colleague(i: i64) -> String {
    format!("colleague{i}@customer.example")
}

/// Ten days of four messages each to six colleagues, delivered.
fn with_a_past(policy: &Arc<Policy>) -> Detector {
    let mut d = Detector::new(policy, BEGIN_S);
    for day in 0..10 {
        for i in 0..4 {
            let (ts, rcpt, queue_id) =
                (BEGIN_S + day * DAY_S + 9 * 3600 + i * 7000, colleague((day + i) % 6), format!("P{day}.{i}"));
            d.step(&send(at(ts), WHO, HOME, &queue_id, "", std::slice::from_ref(&rcpt)));
            d.step(&outcome(at(ts + 5), WHO, &queue_id, "out-1", &rcpt, ""));
        }
    }
    assert!(d.alerts.is_empty(), "{:?}", d.alerts);
    d
}

/// One message each to `count` strangers from number `first` on, `pause_s` apart. Returns when the last was sent.
fn strangers(d: &mut Detector, begin_s: i64, first: i64, count: i64, pause_s: i64) -> i64 {
    for i in first..first + count {
        let ts = begin_s + (i - first) * pause_s;
        d.step(&send(at(ts), WHO, HOME, &format!("B{i}"), "", &[stranger(i)]));
    }
    begin_s + (count - 1) * pause_s
}

fn said(alerts: &[Alert]) -> Vec<(AlertKind, Severity)> {
    alerts.iter().map(|a| (a.kind, a.severity)).collect()
}

/// Strangers until it is a warning; returns how many it took.
fn until_warning(d: &mut Detector, begin_s: i64) -> i64 {
    let before = d.alerts.len();
    let taken = (0..60).find(|&i| {
        strangers(d, begin_s + 20 * i, i, 1, 0);
        d.alerts.len() > before
    });
    assert_eq!(said(&d.alerts[before..]), [(AlertKind::Flagged, Severity::Warning)]);
    taken.unwrap() + 1
}

#[test]
fn a_warning_that_becomes_critical_is_one_incident() {
    let mut d = with_a_past(&default_policy());
    let taken = until_warning(&mut d, DAY_11_S);
    // Then the answers come, and most are refusals.
    for i in 0..taken {
        let ts = DAY_11_S + 20 * taken + i;
        d.step(&outcome(at(ts), WHO, &format!("B{i}"), "out-1", &stranger(i), UNKNOWN_USER));
    }
    // And more of the same: there is nothing left to say.
    strangers(&mut d, DAY_11_S + 3_000, 1_000, 30, 70);
    let expected = [(AlertKind::Flagged, Severity::Warning), (AlertKind::Escalated, Severity::Critical)];
    assert_eq!(said(&d.alerts), expected);
    assert_eq!(d.alerts[0].incident, d.alerts[1].incident);
    assert_ne!(d.alerts[0].id, d.alerts[1].id);
}

#[test]
fn an_incident_is_cleared_after_the_quiet_time_since_its_last_activity() {
    let policy = default_policy();
    let (quiet_s, lateness_s) = (i64::from(policy.detect.quiet_s), i64::from(policy.detect.lateness_s));
    let mut d = with_a_past(&policy);
    let taken = until_warning(&mut d, DAY_11_S);
    let last_s = strangers(&mut d, DAY_11_S + 20 * taken, 500, 3, 90);
    // Mail to colleagues is no activity of an incident.
    d.step(&send(at(last_s + 3_000), WHO, HOME, "", "", &[colleague(1)]));
    let before = said(&d.alerts);
    // The shard allows for late events before it says that all was quiet.
    d.tick(last_s + quiet_s + lateness_s - 1);
    assert_eq!(said(&d.alerts), before, "cleared too early");
    d.tick(last_s + quiet_s + lateness_s);
    let cleared = d.alerts.last().unwrap();
    assert_eq!((d.alerts.len(), cleared.kind), (before.len() + 1, AlertKind::Cleared));
    assert_eq!(cleared.ts, at(last_s + quiet_s));
    assert_eq!(cleared.incident, d.alerts[0].incident);
    assert!(cleared.evidence.is_empty());
    d.tick(last_s + 30 * DAY_S);
    assert_eq!(d.alerts.len(), before.len() + 1, "cleared twice");
}

/// Its own later event ends the quiet time as well as the shard's clock does, and at the same moment.
#[test]
fn an_event_of_the_account_clears_as_the_clock_does() {
    let policy = default_policy();
    let mut d = with_a_past(&policy);
    let taken = until_warning(&mut d, DAY_11_S);
    let due_s = DAY_11_S + 20 * (taken - 1) + i64::from(policy.detect.quiet_s);
    d.step(&send(at(due_s - 1), WHO, HOME, "", "", &[colleague(1)]));
    assert_eq!(d.alerts.len(), 1, "cleared too early");
    d.step(&send(at(due_s), WHO, HOME, "", "", &[colleague(1)]));
    assert_eq!((d.alerts.len(), d.alerts[1].kind, d.alerts[1].ts), (2, AlertKind::Cleared, at(due_s)));
}

#[test]
fn after_a_clear_a_new_burst_is_a_new_incident() {
    let mut d = with_a_past(&default_policy());
    strangers(&mut d, DAY_11_S, 0, 60, 20);
    d.tick(DAY_11_S + DAY_S);
    let first = d.alerts.len();
    assert_eq!(d.alerts[first - 1].kind, AlertKind::Cleared);
    // A single stranger is no burst: what the first one accounted for opens nothing.
    strangers(&mut d, DAY_11_S + DAY_S, 900, 1, 0);
    assert_eq!(d.alerts.len(), first);
    strangers(&mut d, DAY_11_S + DAY_S + 3600, 2_000, 80, 20);
    d.tick(DAY_11_S + 3 * DAY_S);
    let (old, new) = d.alerts.split_at(first);
    assert_eq!((new[0].kind, new.last().unwrap().kind), (AlertKind::Flagged, AlertKind::Cleared));
    assert!(new.iter().all(|a| a.incident == new[0].incident && a.incident != old[0].incident));
    // Nor does the new burst count the old one's messages.
    assert!(new.last().unwrap().burst.as_ref().unwrap().messages <= 81);
}

/// An announcement: one message to all of `rcpts`, named at the send or by the outcomes only; all take it.
fn announce(d: &mut Detector, ts: i64, rcpts: &[String], named: bool) {
    let queue_id = format!("A{ts}");
    if named {
        d.step(&send(at(ts), WHO, HOME, &queue_id, "", rcpts));
    } else {
        d.step(&send_unnamed(at(ts), WHO, HOME, &queue_id, rcpts.len() as u64));
    }
    for rcpt in rcpts {
        d.step(&outcome(at(ts + 3), WHO, &queue_id, "out-1", rcpt, ""));
    }
}

#[test]
fn a_mail_to_a_hundred_colleagues_flags_nothing() {
    for named in [true, false] {
        let mut d = with_a_past(&default_policy());
        let all: Vec<String> = (0..100).map(colleague).collect();
        // Met ten a day, in one message each; then all are written to at once, and again.
        for (day, ten) in (0..).zip(all.chunks(10)) {
            announce(&mut d, DAY_11_S + day * DAY_S, ten, named);
        }
        for round in 0..3 {
            announce(&mut d, DAY_11_S + 10 * DAY_S + round * 1_000, &all, named);
        }
        d.tick(DAY_11_S + 13 * DAY_S);
        assert_eq!(said(&d.alerts), [], "named at the send: {named}");
    }
}

/// One message is one event, however many read it: where nothing is known of an account, a hundred strangers at once flag
/// nothing, and where it has always kept to a few people, they are worth a look, but never a suspension.
#[test]
fn a_mail_to_a_hundred_strangers_is_at_most_a_warning() {
    let policy = default_policy();
    for named in [true, false] {
        let all: Vec<String> = (0..100).map(stranger).collect();
        let mut young = Detector::new(&policy, DAY_11_S);
        let mut new = Detector::new(&policy, BEGIN_S);
        let mut settled = with_a_past(&policy);
        for d in [&mut young, &mut new, &mut settled] {
            announce(d, DAY_11_S, &all, named);
            d.tick(DAY_11_S + 3 * DAY_S);
        }
        assert_eq!(young.shard.account(WHO).unwrap().stratum(), Stratum::Unknown);
        assert_eq!(new.shard.account(WHO).unwrap().stratum(), Stratum::New);
        assert_eq!(settled.shard.account(WHO).unwrap().stratum(), Stratum::Established);
        assert_eq!(said(&young.alerts), [], "on the first day, named at the send: {named}");
        for d in [new, settled] {
            assert!(
                d.alerts.iter().all(|a| a.severity == Severity::Warning),
                "named at the send {named}: {:?}",
                d.alerts
            );
        }
    }
}

/// On the first day of all history everybody is new to everybody: strangers alone cannot convict, however many.
#[test]
fn on_the_first_day_a_flood_without_refusals_is_a_warning() {
    let mut d = Detector::new(&default_policy(), BEGIN_S);
    for i in 0..3_000 {
        let ts = BEGIN_S + 600 + 5 * i;
        d.step(&send(at(ts), WHO, HOME, &format!("B{i}"), "", &[stranger(i)]));
        d.step(&outcome(at(ts + 2), WHO, &format!("B{i}"), "out-1", &stranger(i), ""));
    }
    assert_eq!(d.shard.account(WHO).unwrap().stratum(), Stratum::Unknown);
    assert_eq!(said(&d.alerts), [(AlertKind::Flagged, Severity::Warning)]);
}

fn counted(d: &Detector, policy: &Policy, window: usize) -> Counters {
    let account = d.shard.account(WHO).unwrap();
    account.windows().sum(&policy.spans, window, account.now_s())
}

#[test]
fn recipients_named_by_outcomes_count_as_if_named_at_the_send() {
    let policy = default_policy();
    for sizes in [&[1i64][..], &[5], &[100], &[1, 2, 3, 40]] {
        let [mut at_send, mut by_outcomes] = [with_a_past(&policy), with_a_past(&policy)];
        let mut next = 0;
        for (m, &size) in sizes.iter().enumerate() {
            let (ts, queue_id) = (at(DAY_11_S + m as i64), format!("M{m}"));
            let all: Vec<String> = (next..next + size).map(stranger).collect();
            next += size;
            at_send.step(&send(ts, WHO, HOME, &queue_id, "", &all));
            by_outcomes.step(&send_unnamed(ts, WHO, HOME, &queue_id, size as u64));
            for rcpt in &all {
                // The answers differ; that they name somebody new does not.
                let reply = if rcpt.ends_with("far1.example") { "452 4.2.2 mailbox full" } else { "" };
                let ts = at(DAY_11_S + 10 + m as i64);
                assert_eq!(at_send.step(&outcome(ts, WHO, &queue_id, "", rcpt, reply)).new_recipients, 0);
                assert_eq!(by_outcomes.step(&outcome(ts, WHO, &queue_id, "", rcpt, reply)).new_recipients, 1);
            }
        }
        for window in 0..policy.spans.all_s().len() {
            let counts = [&at_send, &by_outcomes].map(|d| counted(d, &policy, window));
            assert_eq!(counts[0], counts[1], "{sizes:?}, window {window}");
        }
        assert_eq!(i64::from(counted(&at_send, &policy, 1).new_recipients), next);
    }
}

/// Thirty answers that an account gets for messages to people it knows: which of them speak about it.
#[test]
fn only_refusals_about_the_account_count_against_it() {
    let policy = default_policy();
    for (reply, refused, answered) in [
        ("550 5.7.1 blocked using zen.spamhaus.org", 0, 0),
        ("554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked", 0, 0),
        ("550 5.7.1 poor reputation of your IP", 0, 0),
        ("552 5.2.2 mailbox full", 0, 0),
        ("552 5.2.2 over quota", 0, 0),
        ("552 5.3.4 message too large", 0, 0),
        ("", 0, 30),
        (UNKNOWN_USER, 30, 30),
        ("550 5.7.1 message content rejected as spam", 30, 30),
        ("550 5.0.0 no", 30, 30),
    ] {
        let mut d = with_a_past(&policy);
        for i in 0..30 {
            let (ts, queue_id, rcpt) = (DAY_11_S + 5 * i, format!("R{i}"), colleague(i % 6));
            d.step(&send(at(ts), WHO, HOME, &queue_id, "", std::slice::from_ref(&rcpt)));
            d.step(&outcome(at(ts + 1), WHO, &queue_id, "out-1", &rcpt, reply));
        }
        let c = counted(&d, &policy, 2);
        assert_eq!((c.refused, c.answered), (refused, answered), "{reply}");
        assert!(refused > 0 || d.alerts.is_empty(), "{reply}: {:?}", said(&d.alerts));
    }
}

/// A listed relay must not make its victims look guilty: with such refusals the verdict is the one without any answers.
#[test]
fn a_listed_relay_does_not_convict() {
    let policy = default_policy();
    let scores = ["550 5.7.1 blocked using zen.spamhaus.org", "552 5.2.2 mailbox full", UNKNOWN_USER].map(|reply| {
        let mut d = with_a_past(&policy);
        for i in 0..8 {
            strangers(&mut d, DAY_11_S + 30 * i, i, 1, 0);
            d.step(&outcome(at(DAY_11_S + 30 * i + 2), WHO, &format!("B{i}"), "out-1", &stranger(i), reply));
        }
        said(&d.alerts)
    });
    let mut quiet = with_a_past(&policy);
    strangers(&mut quiet, DAY_11_S, 0, 8, 30);
    assert_eq!(scores[0], said(&quiet.alerts));
    assert_eq!(scores[1], said(&quiet.alerts));
    assert_ne!(scores[2], said(&quiet.alerts), "eight refusals say nothing: the test has lost its teeth");
}

#[test]
fn complaints_corroborate() {
    let mut d = with_a_past(&default_policy());
    let taken = until_warning(&mut d, DAY_11_S);
    for i in 0..3 {
        d.step(&complaint(at(DAY_11_S + 20 * taken + i), WHO));
    }
    assert_eq!(d.alerts.last().map(|a| (a.kind, a.severity)), Some((AlertKind::Escalated, Severity::Critical)));
}

/// The send may only know the first host; the outcome knows which one talked to the outside, before the flag and after it.
#[test]
fn an_outcome_corrects_the_relay_that_a_send_claimed() {
    let mut d = with_a_past(&default_policy());
    let count = 60;
    for i in 0..count {
        let (ts, queue_id) = (DAY_11_S + 20 * i, format!("B{i}"));
        d.step(&send(at(ts), WHO, HOME, &queue_id, "gateway", &[stranger(i)]));
        // The last message stays without an answer. A second answer of another host moves nothing: the first was sure.
        if i < count - 1 {
            d.step(&outcome(at(ts + 1), WHO, &queue_id, &format!("out-{}", i % 2), &stranger(i), ""));
            d.step(&outcome(at(ts + 2), WHO, &queue_id, "out-9", &stranger(i), ""));
        }
    }
    d.tick(DAY_11_S + 2 * DAY_S);
    let flagged_after = d.alerts[0].burst.as_ref().unwrap().messages;
    assert!(
        flagged_after > 1 && flagged_after < 40,
        "nothing was counted before the flag or after it: {flagged_after}"
    );
    let cleared = d.alerts.last().unwrap();
    assert_eq!(cleared.kind, AlertKind::Cleared);
    let relays: Vec<_> = cleared.relays.iter().map(|r| (r.relay.as_str(), r.messages, r.recipients)).collect();
    assert_eq!(relays, [("out-0", 30, 30), ("out-1", 29, 29), ("gateway", 1, 1)]);
}
