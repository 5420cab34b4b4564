//! *Were we in time?*: the moments of an incident, and the judgement about its relays.

use mailfuse::core::alert::{Alert, RelayShare};
use mailfuse::desk::book::Book;
use mailfuse::desk::in_time::{InTime, Moments, OfRelay, SPAN_MS, moments};
use mailfuse::desk::index::moments::whole;
use mailfuse::desk::index::{self, Index, Place};
use mailfuse::desk::record::{Incident, Record};
use mailfuse::event::Timestamp;
use mailfuse::relays::Settings;
use mailfuse::relays::listing::record::{Listing, Span, Watched};
use mailfuse::relays::measure::Measure;
use serde_json::json;

/// The first send of the burst.
const FIRST: i64 = 1_790_000_000_000;
const MINUTE: i64 = 60_000;

fn incident(relays: &[&str]) -> Incident {
    let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
    let mut alert: Alert = serde_json::from_str(line).unwrap();
    alert.burst.as_mut().unwrap().first_ts = Timestamp(FIRST);
    alert.ts = Timestamp(FIRST + 20_000);
    let share = |relay: &&str| RelayShare { relay: (*relay).to_owned(), messages: 1, recipients: 7 };
    alert.relays = relays.iter().map(share).collect();
    let id = alert.incident.clone();
    let mut book = Book::default();
    book.take(alert, FIRST + 21_000, "");
    book.incident(&id).unwrap().clone()
}

/// In force from `since_ms` on, or in shadow.
fn measure(kind: &str, subject: &str, incident: &str, state: &str, since_ms: i64) -> Measure {
    let value = json!({ "v": 1, "id": format!("m-{since_ms}"), "kind": kind, "subject": subject, "tenant": "",
        "incident": incident, "state": state, "ts": "2026-09-21T13:33:20.000Z", "made_ms": since_ms,
        "since_ms": since_ms, "until_ms": since_ms * 2, "by": "mailfuse", "why": "" });
    serde_json::from_value(value).unwrap()
}

fn ended(was: &str, since_ms: i64, at_ms: i64) -> Measure {
    let mut value = serde_json::to_value(measure("pull", "out-1", "p-1", "ended", since_ms)).unwrap();
    value["ended"] = json!({ "at_ms": at_ms, "by": "mailfuse", "why": "", "was": was });
    serde_json::from_value(value).unwrap()
}

fn pull(state: &str, since_ms: i64) -> Measure {
    measure("pull", "out-1", "p-1", state, since_ms)
}

/// Heard at `since_ms`; the answer before came ten minutes earlier.
fn listing(zone: &str, since_ms: i64) -> Listing {
    Listing {
        v: 1,
        id: format!("l-{zone}-{since_ms}"),
        relay: "out-1".to_owned(),
        address: "192.0.2.1".parse().unwrap(),
        zone: zone.to_owned(),
        codes: vec!["127.0.0.3".parse().unwrap()],
        reasons: vec![],
        tenant: String::new(),
        accounts: vec![],
        clean: Some(Timestamp(since_ms - 10 * MINUTE)),
        since: Timestamp(since_ms),
        until: None,
        unwatched: false,
    }
}

fn asked(zone: &str, since_ms: i64, until_ms: i64) -> Span {
    let address = "192.0.2.1".parse().unwrap();
    Span { address, zone: zone.to_owned(), since: Timestamp(since_ms), until: Timestamp(until_ms) }
}

fn relay(pulls: Vec<Measure>, listings: Vec<Listing>, spans: Vec<Span>) -> OfRelay {
    OfRelay { host: "log-1".to_owned(), relay: Some("out-1".to_owned()), pulls, listings, spans }
}

const OVER: i64 = FIRST + SPAN_MS + MINUTE;

/// Of one relay.
#[track_caller]
fn check(of: OfRelay, now_ms: i64, wanted: InTime, why: &str) -> Moments {
    let found = moments(&incident(&["log-1"]), &[], &[of], now_ms);
    assert_eq!((found.in_time, found.relays[0].in_time), (wanted, wanted), "{found:?}");
    assert!(found.relays[0].why.contains(why), "{found:?}");
    found
}

#[test]
fn one_that_was_not_listed_within_a_day_was_in_time_if_somebody_looked() {
    let whole = || vec![asked("a.example", FIRST - MINUTE, OVER)];
    check(relay(vec![], vec![], whole()), OVER, InTime::Yes, "not listed within a day");
    check(relay(vec![], vec![], whole()), OVER - 2 * MINUTE, InTime::Unknown, "is not over");
    check(relay(vec![], vec![], vec![]), OVER, InTime::Unknown, "no list was asked");
    let late = vec![asked("a.example", FIRST + 1, OVER)];
    check(relay(vec![], vec![], late), OVER, InTime::Unknown, "no list was asked");
    let two = vec![asked("a.example", FIRST - MINUTE, FIRST + MINUTE), asked("a.example", FIRST + 2 * MINUTE, OVER)];
    check(relay(vec![], vec![], two), OVER, InTime::Unknown, "no list was asked");
    let nobodys = OfRelay { relay: None, ..relay(vec![], vec![], vec![]) };
    check(nobodys, OVER, InTime::Unknown, "no pool has it");
}

#[test]
fn a_listing_before_or_long_after_says_nothing_about_the_burst() {
    let spans = || vec![asked("a.example", FIRST - 60 * MINUTE, OVER), asked("b.example", FIRST - MINUTE, OVER)];
    let after = vec![listing("a.example", FIRST + SPAN_MS + 1)];
    let found = check(relay(vec![], after, spans()), OVER, InTime::Yes, "not listed");
    assert_eq!(found.relays[0].listings, []);
    // One list named it before: the other one says that it has not become worse.
    let before = || vec![listing("a.example", FIRST - MINUTE)];
    check(relay(vec![], before(), spans()), OVER, InTime::Yes, "not listed");
    check(relay(vec![], before(), spans()[..1].to_vec()), OVER, InTime::Unknown, "no list was asked");
    let gone = Listing { until: Some(Timestamp(FIRST - 1)), ..listing("a.example", FIRST - MINUTE) };
    check(relay(vec![], vec![gone], spans()[..1].to_vec()), OVER, InTime::Yes, "not listed");
}

#[test]
fn of_pull_and_listing_the_earlier_one_decides() {
    // Heard half an hour after the first spam; twenty minutes after it the list said that it is not listed.
    let heard = FIRST + 30 * MINUTE;
    for (pulls, wanted) in [
        (vec![], InTime::No),
        (vec![pull("in_force", FIRST + MINUTE)], InTime::Yes),
        (vec![pull("in_force", FIRST + 20 * MINUTE)], InTime::Yes),
        (vec![pull("in_force", FIRST + 20 * MINUTE + 1)], InTime::Unknown),
        (vec![pull("in_force", heard)], InTime::Unknown),
        (vec![pull("in_force", heard + 1)], InTime::No),
        // What is not done helps nobody.
        (vec![pull("shadow", FIRST + MINUTE)], InTime::No),
        (vec![pull("asked", FIRST + MINUTE)], InTime::No),
        (vec![ended("shadow", FIRST + MINUTE, FIRST + 2 * MINUTE)], InTime::No),
        // What went before the listing was in time, although it is over.
        (vec![ended("in_force", FIRST + MINUTE, FIRST + 10 * MINUTE)], InTime::Yes),
        // What was over before the burst had to do with another one.
        (vec![ended("in_force", FIRST - 9 * MINUTE, FIRST)], InTime::No),
        // It was out already.
        (vec![pull("in_force", FIRST - MINUTE)], InTime::Yes),
        (vec![pull("in_force", heard + 1), pull("in_force", FIRST + MINUTE)], InTime::Yes),
    ] {
        // A day need not pass: it is known as soon as it is listed.
        let found = check(relay(pulls, vec![listing("a.example", heard)], vec![]), heard + 1, wanted, "it was");
        assert_eq!(found.relays[0].listings[0].since, Timestamp(heard));
    }
}

#[test]
fn of_several_lists_the_first_one_counts() {
    let pulls = vec![pull("in_force", FIRST + 40 * MINUTE)];
    let lists = vec![listing("b.example", FIRST + 90 * MINUTE), listing("a.example", FIRST + 20 * MINUTE)];
    let found = check(relay(pulls, lists, vec![]), OVER, InTime::No, "listed before it was pulled");
    let zones: Vec<&str> = found.relays[0].listings.iter().map(|l| &*l.zone).collect();
    assert_eq!(zones, ["a.example", "b.example"]);
}

#[test]
fn of_several_relays_the_worst_one_counts() {
    let good = || relay(vec![pull("in_force", FIRST)], vec![listing("a.example", FIRST + 30 * MINUTE)], vec![]);
    let bad = || relay(vec![], vec![listing("a.example", FIRST + 30 * MINUTE)], vec![]);
    let open = || relay(vec![], vec![], vec![]);
    let of = |relays: &[OfRelay]| moments(&incident(&["log-1"]), &[], relays, OVER).in_time;
    assert_eq!(of(&[good(), good()]), InTime::Yes);
    assert_eq!(of(&[good(), open()]), InTime::Unknown);
    assert_eq!(of(&[good(), open(), bad()]), InTime::No);
    assert_eq!(of(&[]), InTime::Unknown);
}

#[test]
fn the_moments_are_those_of_the_records() {
    let incident = incident(&["log-1"]);
    let mut stop = measure("stop", &incident.account, &incident.id, "in_force", FIRST + 22_000);
    stop.done_ms = Some(FIRST + 23_000);
    let other = measure("stop", &incident.account, "i-other", "in_force", FIRST + 1);
    let pulls = vec![pull("shadow", FIRST + 24_000), pull("in_force", FIRST + 25_000)];
    let found = moments(&incident, &[other, stop], &[relay(pulls, vec![], vec![])], OVER);
    assert_eq!((found.first_spam, found.flagged), (Some(Timestamp(FIRST)), Timestamp(FIRST + 20_000)));
    assert_eq!(found.taken, Some(Timestamp(FIRST + 21_000)));
    let stop = found.stop.unwrap();
    assert_eq!((stop.in_force, stop.confirmed), (Some(Timestamp(FIRST + 22_000)), Some(Timestamp(FIRST + 23_000))));
    let pull = found.relays[0].pull.as_ref().unwrap();
    assert_eq!((pull.in_force, found.relays[0].recipients), (Some(Timestamp(FIRST + 25_000)), 7));
}

/// What a page of the incident says: out of the records of the topic, by the index.
#[test]
fn the_page_of_an_incident_has_its_moments() {
    let settings: Settings = toml::from_str(
        "[[pool]]\nname = \"p\"\nmember = [{ relay = \"out-1\", log_host = \"log-1\" }, { relay = \"out-2\" }]\n",
    )
    .unwrap();
    let incident = incident(&["log-1", "elsewhere"]);
    let id = incident.id.clone();
    let of_other = Listing { relay: "out-2".to_owned(), ..listing("a.example", FIRST + 2) };
    let next_week = listing("b.example", FIRST + 7 * SPAN_MS);
    let stop = measure("stop", &incident.account, &id, "in_force", FIRST + 22_000);
    let watched = Watched { v: 1, relay: "out-1".to_owned(), spans: vec![asked("a.example", FIRST - MINUTE, OVER)] };
    let mut records = vec![
        Record::Incident(Box::new(incident)),
        Record::Measure(Box::new(stop)),
        Record::Measure(Box::new(pull("in_force", FIRST + 25_000))),
        Record::Listing(Box::new(of_other)),
        Record::Listing(Box::new(next_week)),
        Record::Watched(Box::new(watched)),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("desk.sqlite");
    let mut index = Index::open(&path).unwrap();
    let mut shown = |records: &[Record]| {
        index.apply(records, &Place { topic: "desk".into(), next_offset: 1, at_ms: 1, is_whole: true }).unwrap();
        let whole = whole(&index::reader(&path).unwrap(), &id, &settings, OVER).unwrap().unwrap();
        serde_json::to_value(whole).unwrap()["moments"].clone()
    };
    let moments = shown(&records);
    assert_eq!(
        (&moments["relays"][0]["in_time"], &moments["relays"][1]["in_time"]),
        (&json!("yes"), &json!("unknown"))
    );
    assert_eq!(moments["in_time"], "unknown", "one of its relays is in no pool");
    let stamp = |ms: i64| json!(Timestamp(ms));
    assert_eq!(moments["stop"]["in_force"], stamp(FIRST + 22_000));
    assert_eq!(
        (&moments["relays"][0]["relay"], &moments["relays"][0]["pull"]["in_force"]),
        (&json!("out-1"), &stamp(FIRST + 25_000))
    );
    assert_eq!(moments["relays"][0]["listings"], json!([]));

    let named = Listing { clean: None, ..listing("a.example", FIRST + 5_000) };
    records = vec![Record::Listing(Box::new(named.clone()))];
    let moments = shown(&records);
    assert_eq!(
        (&moments["in_time"], &moments["relays"][0]["listings"][0]["since"]),
        (&json!("no"), &stamp(FIRST + 5_000))
    );
    // Forgotten, it is as before.
    records = vec![Record::Gone(Record::Listing(Box::new(named)).key())];
    assert_eq!(shown(&records)["relays"][0]["in_time"], "yes");
}

#[test]
fn an_incident_that_an_older_program_took_is_told_of_without_a_judgement() {
    let mut value = serde_json::to_value(incident(&["log-1"])).unwrap();
    for field in ["first", "taken", "relays"] {
        assert!(value.as_object_mut().unwrap().remove(field).is_some(), "{field}");
    }
    let old: Incident = serde_json::from_value(value).unwrap();
    let found = moments(&old, &[], &[], OVER);
    assert_eq!((found.first_spam, found.in_time), (None, InTime::Unknown));
    let of = relay(vec![], vec![listing("a.example", FIRST + MINUTE)], vec![]);
    assert_eq!(moments(&old, &[], &[of], OVER).relays[0].why, "when the burst began is not known");
}
