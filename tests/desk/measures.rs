//! What flags lead to at the desk: whose bursts count against relays, what is stopped, and how much of it is told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use mailfuse::core::alert::{AlertKind, Severity};
use mailfuse::desk::feedback::record::{Resolution, Resolved, Word};
use mailfuse::desk::feedback::wish::{MeasureWish, Rights};
use mailfuse::desk::measures::{Exposure, Measures};
use mailfuse::event::Timestamp;
use mailfuse::relays::Settings;
use mailfuse::relays::decide::{Burden, BurstShare};
use mailfuse::relays::measure::{Kind, Measure, Mode, State};
use mailfuse::relays::settings::{Member, Pool};

use crate::desk_webhook_support::endpoint;
use crate::fleet::{BEGIN_MS, Desk, HOUR_MS, asked, one, to};
use mailfuse::desk::webhook::settings::{Endpoint, Format};

const MINUTE_MS: i64 = 60_000;

/// What relays bear, as a test says.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Option<Vec<Burden>>>>);

impl Exposure for Told {
    fn burdens(&mut self, _: u32, _: i64) -> Option<Vec<Burden>> {
        self.0.lock().unwrap().clone()
    }

    fn active(&mut self, since_ms: i64) -> Vec<(String, i64)> {
        let known = self.0.lock().unwrap();
        let shares = known.iter().flatten().flat_map(|burden| &burden.burst);
        shares.filter(|s| s.ts.0 > since_ms).map(|s| (s.incident.clone(), s.ts.0)).collect()
    }
}

impl Told {
    /// The burst of account `n` put 300 recipients on the first relay, the last at `ts_ms`.
    fn bursts(&self, ns: &[u32], ts_ms: i64) {
        let share = |n: &u32| BurstShare {
            account: format!("user{n}@t{n}.example"),
            tenant: format!("t{n}.example"),
            incident: format!("in-{n}"),
            recipients: 300,
            ts: Timestamp(ts_ms),
        };
        let burst = ns.iter().map(share).collect();
        let burden = Burden { relay: "out-1".to_owned(), carried: 10_000, burst, ..Burden::default() };
        *self.0.lock().unwrap() = Some(vec![burden]);
    }
}

fn desk(mode: Mode, endpoints: Vec<Endpoint>) -> (Desk, Told) {
    let member = (1..=4).map(|n| Member { relay: format!("out-{n}"), ..Member::default() }).collect();
    let pool = Pool { name: "shared".to_owned(), mode: None, member };
    let (settings, told) = (Settings { mode, pool: vec![pool], ..Settings::default() }, Told::default());
    (Desk::with(endpoints, Measures::new(&settings, Box::new(told.clone()), "test")), told)
}

fn open(desk: &Desk, kind: Kind, subject: &str) -> Option<Measure> {
    desk.measures.all().find(|m| m.kind == kind && m.subject == subject && m.is_open()).cloned()
}

fn flag(desk: &mut Desk, n: u32, severity: Severity, ts_ms: i64, now_ms: i64) {
    desk.take(one(AlertKind::Flagged, severity, n, ts_ms), now_ms);
}

#[test]
fn a_warning_pulls_no_relay_unless_its_account_is_stopped() {
    let (mut desk, told) = desk(Mode::Auto, vec![to("duty")]);
    flag(&mut desk, 1, Severity::Warning, BEGIN_MS, BEGIN_MS);
    let mut now_ms = BEGIN_MS;
    let mut look = |desk: &mut Desk, ns: &[u32]| {
        now_ms += MINUTE_MS;
        told.bursts(ns, now_ms);
        desk.look(now_ms);
        (now_ms, open(desk, Kind::Pull, "out-1").is_some())
    };
    // The newsletter of a customer, on a provider's first day: nobody stops it, and no relay goes for it.
    assert!((0..10).all(|_| !look(&mut desk, &[1]).1));
    // A person stops it: it was spam.
    let (now_ms, _) = look(&mut desk, &[1]);
    let order = serde_json::json!({ "kind": "stop", "subject": "user1@t1.example", "note": "spam by telephone" });
    let wish = MeasureWish::Order(serde_json::from_value(order).unwrap());
    let (written, _) = desk.measures.grant(wish, "ann", &desk.book, &mut desk.ledger, now_ms).unwrap();
    desk.done(written, now_ms);
    look(&mut desk, &[1]);
    assert!(look(&mut desk, &[1]).1, "stopped, and after its grace");
}

#[test]
fn what_was_flagged_in_an_anomaly_counts_once_a_person_says_that_it_was_a_hijack() {
    let (mut desk, told) = desk(Mode::Auto, vec![to("duty")]);
    for n in 0..100 {
        flag(&mut desk, n, Severity::Critical, BEGIN_MS, BEGIN_MS);
    }
    assert!(desk.book.is_anomaly_open() && desk.book.incident("in-90").unwrap().anomaly.is_some());
    let look = |desk: &mut Desk, minute: i64| {
        told.bursts(&[90], BEGIN_MS + minute * MINUTE_MS);
        desk.look(BEGIN_MS + minute * MINUTE_MS);
        open(desk, Kind::Pull, "out-1").map(|m| m.state)
    };
    assert_eq!((1..10).find_map(|minute| look(&mut desk, minute)), None);
    let by = Word { by: "ann".to_owned(), at: Timestamp(BEGIN_MS), note: None };
    let resolved = Resolved { kind: Resolution::Hijack, word: by };
    desk.book.incident_mut("in-90").unwrap().resolved = Some(resolved);
    // While the stream itself has changed a person confirms that, too.
    assert_eq!(look(&mut desk, 10), Some(State::Asked));
}

#[test]
fn a_late_flag_stops_its_account_once_the_burst_is_seen_to_go_on_and_no_relay_goes_before() {
    let (mut desk, told) = desk(Mode::Auto, vec![to("duty")]);
    // The detectors are twenty minutes behind.
    let behind_ms = BEGIN_MS - 20 * MINUTE_MS;
    flag(&mut desk, 1, Severity::Critical, behind_ms, BEGIN_MS);
    told.bursts(&[1], behind_ms);
    desk.look(BEGIN_MS + 1000);
    desk.send(BEGIN_MS + 1000);
    assert!(open(&desk, Kind::Stop, "user1@t1.example").is_some_and(|m| m.came_too_late()));
    assert!(open(&desk, Kind::Pull, "out-1").is_none_or(|m| m.state == State::Shadow));
    // They have caught up, and the hijacker still sends.
    let now_ms = BEGIN_MS + 2 * MINUTE_MS;
    told.bursts(&[1], now_ms);
    desk.look(now_ms);
    desk.send(now_ms);
    assert_eq!(open(&desk, Kind::Stop, "user1@t1.example").map(|m| m.state), Some(State::InForce));
    assert!(open(&desk, Kind::Pull, "out-1").is_none_or(|m| m.state == State::Shadow), "the account goes first");
    let grace_ms = now_ms + MINUTE_MS;
    told.bursts(&[1], grace_ms);
    desk.look(grace_ms);
    assert_eq!(open(&desk, Kind::Pull, "out-1").map(|m| m.state), Some(State::InForce));
    desk.send(grace_ms);
    let kinds: Vec<&str> = desk.got("duty").iter().map(|m| &*m.kind).collect();
    assert_eq!(kinds, ["account.flagged", "account.stopped", "relay.pull"]);
    // What was acquitted meanwhile is not stopped, whatever its account still sends.
    flag(&mut desk, 2, Severity::Critical, behind_ms, grace_ms);
    let by = Word { by: "ann".to_owned(), at: Timestamp(BEGIN_MS), note: None };
    desk.book.incident_mut("in-2").unwrap().resolved = Some(Resolved { kind: Resolution::FalsePositive, word: by });
    told.bursts(&[2], grace_ms + MINUTE_MS);
    desk.look(grace_ms + MINUTE_MS);
    assert!(open(&desk, Kind::Stop, "user2@t2.example").is_some_and(|m| m.came_too_late()));
}

#[test]
fn a_relay_is_not_put_back_because_nothing_is_known_of_it() {
    let (mut desk, told) = desk(Mode::Auto, vec![to("duty")]);
    flag(&mut desk, 1, Severity::Critical, BEGIN_MS, BEGIN_MS);
    told.bursts(&[1], BEGIN_MS + MINUTE_MS);
    desk.look(BEGIN_MS + MINUTE_MS);
    let pulled = open(&desk, Kind::Pull, "out-1").unwrap();
    assert_eq!(pulled.state, State::InForce);
    // The detectors are away: it stays out until it expires, and no longer.
    *told.0.lock().unwrap() = None;
    for minute in 2..60 {
        desk.look(BEGIN_MS + minute * MINUTE_MS);
        assert!(open(&desk, Kind::Pull, "out-1").is_some(), "{minute}");
    }
    desk.look(pulled.until_ms);
    assert!(open(&desk, Kind::Pull, "out-1").is_none());
}

#[test]
fn what_is_done_about_an_account_is_read_with_its_incident() {
    let pager = Endpoint { name: "pager".to_owned(), ..endpoint(Format::Pagerduty, "") };
    for mode in [Mode::Auto, Mode::Confirm] {
        let (mut desk, _) = desk(mode, vec![pager.clone()]);
        flag(&mut desk, 1, Severity::Critical, BEGIN_MS, BEGIN_MS);
        desk.send(BEGIN_MS);
        let stop = open(&desk, Kind::Stop, "user1@t1.example").unwrap();
        let end = MeasureWish::End {
            id: stop.id,
            note: Some("new password".to_owned()),
            rights: Rights { accounts: true, relays: true },
        };
        let later_ms = BEGIN_MS + HOUR_MS;
        let (written, _) = desk.measures.grant(end, "ann", &desk.book, &mut desk.ledger, later_ms).unwrap();
        desk.done(written, later_ms);
        desk.take(one(AlertKind::Cleared, Severity::Critical, 1, later_ms + 1), later_ms + 1);
        desk.send(later_ms + 1);
        let got: Vec<_> = desk.got("pager").into_iter().map(|m| (m.kind.clone(), asked(m))).collect();
        let mut expected = vec![("account.flagged", "trigger"), ("account.stopped", "trigger")];
        // What was only asked about has nothing to be released.
        expected.extend((mode == Mode::Auto).then_some(("account.released", "resolve")));
        expected.push(("account.cleared", "resolve"));
        let is: Vec<_> = got.iter().map(|(kind, (action, ..))| (&**kind, &**action)).collect();
        assert_eq!(is, expected, "{mode:?}");
        assert!(got.iter().all(|(_, (_, key, _))| *key == got[0].1.1), "one page: {got:?}");
    }
}

/// A changed log format, or a receiver's outage: 5,000 accounts look guilty within so many minutes, on a provider with a past.
#[test]
fn five_thousand_that_look_guilty_stop_as_many_as_the_cap_and_page_a_few_times() {
    for minutes in [1, 10, 60] {
        let pager = Endpoint { name: "pager".to_owned(), ..endpoint(Format::Pagerduty, "") };
        let (mut desk, told) = desk(Mode::Auto, vec![pager]);
        for n in 0..40 {
            flag(&mut desk, 10_000 + n, Severity::Warning, BEGIN_MS, BEGIN_MS + i64::from(n) * HOUR_MS);
        }
        let out_ms = BEGIN_MS + 50 * HOUR_MS;
        desk.send(out_ms - 1);
        let before = desk.got("pager").len();
        for n in 0..5000_u32 {
            let now_ms = out_ms + i64::from(n) * minutes * MINUTE_MS / 5000;
            flag(&mut desk, n, Severity::Critical, now_ms, now_ms);
            told.bursts(&[n], now_ms);
            desk.look(now_ms);
            desk.send(now_ms);
        }
        for minute in 0..30 {
            desk.send(out_ms + (minutes + minute) * MINUTE_MS);
        }
        let stopped = desk.measures.all().filter(|m| m.kind == Kind::Stop && m.state == State::InForce).count();
        let asked_about = desk.measures.all().filter(|m| m.kind == Kind::Stop && m.state == State::Asked).count();
        assert_eq!((stopped, stopped + asked_about), (20, 5000), "in {minutes} min");
        let pulled = desk.measures.all().filter(|m| m.kind == Kind::Pull && m.state == State::InForce).count();
        let got = desk.got("pager").split_off(before);
        let pages: BTreeSet<String> =
            got.iter().map(|m| asked(m)).filter(|(action, ..)| action == "trigger").map(|(_, key, _)| key).collect();
        eprintln!("in {minutes} min: {} pages, {} messages", pages.len(), got.len());
        // Three that began before anybody could know, what began with them, the cap, and the anomaly.
        assert!(pages.len() <= 6, "in {minutes} min: {pages:?}");
        assert_eq!(pulled, 0, "in {minutes} min");
    }
}
