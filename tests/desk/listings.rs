//! What an answer of a blocklist leads to at the desk: said once, whoever is the desk, and with whose mail went over the relay.

use mailfuse::core::alert::{Action, Alert, Severity};
use mailfuse::desk::book::Book;
use mailfuse::desk::in_time::InTime;
use mailfuse::desk::listings::{Listings, Taken, targets};
use mailfuse::desk::measures::{Measures, Unexposed};
use mailfuse::desk::notice::{Notice, NoticeKind};
use mailfuse::desk::record::Record;
use mailfuse::event::Timestamp;
use mailfuse::relays::Settings;
use mailfuse::relays::listing::Change;
use mailfuse::relays::listing::schedule::Target;
use mailfuse::relays::measure::Measure;

const NOW: i64 = 1_790_000_000_000;
const MINUTE: i64 = 60_000;
const ZONE: &str = "zen.spamhaus.org";

/// A desk with one incident, whose burst began two minutes ago.
struct Desk {
    settings: Settings,
    book: Book,
    measures: Measures,
    listings: Listings,
    topic: Vec<Record>,
    said: Vec<Notice>,
    taken: Vec<Taken>,
}

impl Desk {
    fn new() -> Self {
        let settings: Settings = toml::from_str(
            "[listing]\nserver = \"127.0.0.1:53\"\n[[listing.zone]]\nname = \"zen.spamhaus.org\"\n\
             codes = { \"127.0.0.2\" = \"SBL\", \"127.0.0.3\" = \"CSS\" }\n\
             [[pool]]\nname = \"p\"\nmember = [\n\
             { relay = \"out-1\", log_host = \"log-1\", address = [\"192.0.2.1\", \"2001:db8::1\"] },\n\
             { relay = \"out-2\", address = [\"192.0.2.2\"], tenant = \"shop.example\" }]\n",
        )
        .unwrap();
        settings.check().unwrap();
        let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
        let mut alert: Alert = serde_json::from_str(line).unwrap();
        alert.burst.as_mut().unwrap().first_ts = Timestamp(NOW - 2 * MINUTE);
        alert.relays[0].relay = "log-1".to_owned();
        alert.severity = Severity::Critical;
        let mut book = Book::default();
        book.take(alert, NOW - MINUTE, "");
        let measures = Measures::new(&settings, Box::<Unexposed>::default(), "test");
        let (topic, said, taken) = (Vec::new(), Vec::new(), Vec::new());
        Self { settings, book, measures, listings: Listings::default(), topic, said, taken }
    }

    fn change(&mut self, relay: &str, address: &str, is_listed: bool, at_ms: i64) {
        let change = Change {
            relay: relay.to_owned(),
            address: address.parse().unwrap(),
            zone: ZONE.to_owned(),
            codes: vec!["127.0.0.3".parse().unwrap()],
            listed: is_listed,
            at: Timestamp(at_ms),
        };
        let taken = self.listings.take(&change, &self.settings, &self.book, &self.measures, "test");
        self.topic.extend(taken.written.records.iter().cloned());
        self.said.extend(taken.written.notices.iter().cloned());
        self.taken.push(taken);
    }

    fn answered(&mut self, relay: &str, address: &str, at_ms: i64) {
        self.listings.answered(&target(relay, address), ZONE, Timestamp(at_ms));
    }

    /// Another desk takes over, from what was written.
    fn take_over(&mut self) {
        self.listings = Listings::default();
        for record in &self.topic {
            let read = Record::read(record.key().as_bytes(), record.value().unwrap().as_deref()).unwrap();
            assert_eq!(&read, record, "what is written is what is read");
            self.listings.restore(&read);
        }
    }

    fn pulled(&mut self, state: &str, since_ms: i64) {
        let measure: Measure = serde_json::from_value(serde_json::json!({ "v": 1, "id": format!("m-{since_ms}"),
            "kind": "pull", "subject": "out-1", "tenant": "", "incident": "p-1", "state": state,
            "ts": "2026-09-21T13:33:20.000Z", "made_ms": since_ms, "since_ms": since_ms, "until_ms": NOW * 2,
            "by": "mailfuse", "why": "" }))
        .unwrap();
        self.measures.restore(&Record::Measure(Box::new(measure)));
    }
}

fn target(relay: &str, address: &str) -> Target {
    Target { relay: relay.to_owned(), address: address.parse().unwrap() }
}

#[test]
fn each_address_of_each_member_is_asked_for() {
    let all = targets(&Desk::new().settings);
    assert_eq!(all, [target("out-1", "192.0.2.1"), target("out-1", "2001:db8::1"), target("out-2", "192.0.2.2")]);
}

#[test]
fn a_listing_is_said_once_and_so_is_its_end_whoever_is_the_desk() {
    let mut desk = Desk::new();
    desk.change("out-1", "192.0.2.1", true, NOW);
    let listed = desk.said[0].clone();
    assert_eq!(
        (listed.kind, listed.relay.as_deref(), listed.action),
        (NoticeKind::Listed, Some("out-1"), Action::PullRelay)
    );
    assert!(listed.evidence[0].text.contains("192.0.2.1 is listed by zen.spamhaus.org (127.0.0.3: CSS)"), "{listed:?}");
    // Whose mail went over it, by the name that events have for the relay.
    assert_eq!(listed.accounts.len(), 1);
    assert_eq!(listed.evidence[1].observed, listed.accounts[0].recipients as f64);

    desk.take_over();
    assert_eq!((desk.listings.standing().len(), desk.listings.standing_in(ZONE)), (1, 1));
    desk.change("out-1", "192.0.2.1", true, NOW + MINUTE);
    assert_eq!(desk.said.len(), 1, "it is known");
    desk.change("out-1", "192.0.2.1", false, NOW + 2 * MINUTE);
    desk.take_over();
    desk.change("out-1", "192.0.2.1", false, NOW + 3 * MINUTE);
    assert_eq!((desk.said.len(), desk.said[1].kind), (2, NoticeKind::Delisted));
    // Whoever heard of the one hears of the other, and knows that they are one.
    assert_eq!((&desk.said[1].accounts, &desk.said[1].incident), (&listed.accounts, &listed.incident));
    assert_eq!(desk.listings.standing(), []);

    // Another time is another listing.
    desk.change("out-1", "192.0.2.1", true, NOW + 4 * MINUTE);
    assert_ne!(desk.said[2].incident, listed.incident);
    assert_ne!(desk.said[2].id, listed.id);
}

#[test]
fn a_relay_that_no_burst_burdened_is_told_of_with_its_customer() {
    let mut desk = Desk::new();
    desk.change("out-2", "192.0.2.2", true, NOW);
    let listed = &desk.said[0];
    assert_eq!((listed.tenant.as_deref(), listed.accounts.len(), listed.evidence.len()), (Some("shop.example"), 0, 1));
    assert_eq!(desk.taken[0].listed, Some((InTime::Unknown, vec![])));
}

#[test]
fn whether_the_relay_was_out_is_counted() {
    // When it was pulled, in force or not, and when the list last said that it is not listed: an answer a minute from now.
    for (pull, clean_ms, wanted) in [
        (None, Some(NOW), InTime::No),
        (Some(("in_force", NOW - 1000)), Some(NOW), InTime::Yes),
        (Some(("in_force", NOW + 1000)), Some(NOW), InTime::Unknown),
        (Some(("in_force", NOW - 1000)), None, InTime::Unknown),
        (Some(("shadow", NOW - 1000)), Some(NOW), InTime::No),
    ] {
        let mut desk = Desk::new();
        if let Some((state, since_ms)) = pull {
            desk.pulled(state, since_ms);
        }
        if let Some(clean_ms) = clean_ms {
            desk.answered("out-1", "192.0.2.1", clean_ms);
        }
        desk.change("out-1", "192.0.2.1", true, NOW + MINUTE);
        assert_eq!(desk.taken[0].listed, Some((wanted, vec![Timestamp(NOW - 2 * MINUTE)])), "{pull:?} {clean_ms:?}");
        let is_out = pull.is_some_and(|(state, _)| state == "in_force");
        assert_eq!(desk.said[0].action, if is_out { Action::None } else { Action::PullRelay });
    }
}

#[test]
fn what_nobody_asks_for_any_more_does_not_stand_for_ever() {
    let mut desk = Desk::new();
    desk.change("out-1", "192.0.2.1", true, NOW);
    desk.change("out-2", "192.0.2.2", true, NOW);
    let written = desk.listings.begin(&|target, _| target.relay == "out-2", "test", NOW + MINUTE);
    assert_eq!((written.records.len(), written.notices.len()), (1, 1));
    assert!(written.notices[0].evidence[0].text.contains("not known"), "{written:?}");
    assert_eq!((written.notices[0].kind, desk.listings.standing_in(ZONE)), (NoticeKind::Delisted, 1));
    assert!(desk.listings.begin(&|target, _| target.relay == "out-2", "test", NOW + MINUTE).records.is_empty());
}

#[test]
fn what_was_asked_is_recorded_and_a_pause_is_seen() {
    let mut desk = Desk::new();
    assert!(desk.listings.begin(&|_, _| true, "test", NOW).records.is_empty());
    let hours = |h: i64| NOW + h * 60 * MINUTE;
    for h in [0, 1, 2, 3, 9, 10] {
        desk.answered("out-1", "192.0.2.1", hours(h));
    }
    desk.answered("out-1", "2001:db8::1", hours(10));
    assert_eq!(desk.listings.record(NOW + 20 * MINUTE), [], "not so often");
    let records = desk.listings.record(hours(10) + 1);
    let [Record::Watched(watched)] = &records[..] else { panic!("{records:?}") };
    let spans: Vec<(String, i64, i64)> =
        watched.spans.iter().map(|s| (s.address.to_string(), s.since.0, s.until.0)).collect();
    let v4 = "192.0.2.1".to_owned();
    let wanted =
        [(v4.clone(), hours(0), hours(3)), (v4, hours(9), hours(10)), ("2001:db8::1".into(), hours(10), hours(10))];
    assert_eq!(spans, wanted);
    assert_eq!(desk.listings.record(hours(20)), [], "nothing was asked since");

    desk.topic.extend(records);
    desk.take_over();
    desk.answered("out-1", "192.0.2.1", hours(11));
    let Some(Record::Watched(watched)) = desk.listings.record(hours(30)).pop() else { panic!("it was asked") };
    assert_eq!((watched.spans[1].since.0, watched.spans[1].until.0), (hours(9), hours(11)), "it goes on");
}

#[test]
fn what_is_over_is_forgotten_and_what_stands_is_not() {
    let mut desk = Desk::new();
    desk.change("out-1", "192.0.2.1", true, NOW);
    desk.change("out-2", "192.0.2.2", true, NOW);
    desk.change("out-1", "192.0.2.1", false, NOW + MINUTE);
    desk.answered("out-1", "192.0.2.1", NOW);
    assert_eq!(desk.listings.forget(NOW), []);
    let gone: Vec<String> = desk.listings.forget(NOW + 2 * MINUTE).iter().map(Record::key).collect();
    assert_eq!(gone, [desk.topic[0].key(), "watched/out-1".to_owned()]);
    assert_eq!(desk.listings.standing_in(ZONE), 1);
}

#[test]
fn each_incident_is_judged_once_when_its_day_is_over() {
    const HOUR: i64 = 60 * MINUTE;
    // What lists say of the relay meanwhile, and whether it was pulled.
    let cases = [
        (true, None, false, InTime::Yes),
        (true, Some(NOW + HOUR), false, InTime::No),
        (true, Some(NOW + HOUR), true, InTime::Yes),
        (false, None, false, InTime::Unknown),
    ];
    for (is_asked, listed_ms, is_pulled, expected) in cases {
        let mut desk = Desk::new();
        if is_pulled {
            desk.pulled("in_force", NOW);
        }
        assert!(desk.listings.begin(&|_, _| true, "test", NOW - HOUR).records.is_empty());
        let mut judged = Vec::new();
        for minute in -60..28 * 60 {
            let now_ms = NOW + minute * MINUTE;
            if is_asked && minute % 30 == 0 && listed_ms.is_none_or(|at_ms| now_ms < at_ms) {
                desk.answered("out-1", "192.0.2.1", now_ms);
            }
            if listed_ms == Some(now_ms) {
                desk.change("out-1", "192.0.2.1", true, now_ms);
            }
            let new = desk.listings.judge(&desk.settings, &desk.book, &desk.measures, now_ms);
            judged.extend(new.into_iter().map(|in_time| (minute, in_time)));
        }
        // Two minutes before NOW it began.
        assert_eq!(judged, [(26 * 60 - 1, expected)], "{is_asked} {listed_ms:?} {is_pulled}");
        // Whoever takes over later does not count it again.
        desk.take_over();
        desk.listings.begin(&|_, _| true, "test", NOW + 28 * HOUR);
        assert_eq!(desk.listings.judge(&desk.settings, &desk.book, &desk.measures, NOW + 29 * HOUR), []);
    }
}
