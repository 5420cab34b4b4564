//! What endpoints hear of many accounts at once: campaigns, anomalies, storms and their ends.

use crate::desk_webhook_support;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use desk_webhook_support::{alert, endpoint, keys};
use mailfuse::core::alert::{Alert, AlertKind, Severity};
use mailfuse::desk::book::Book;
use mailfuse::desk::deliver::Deliveries;
use mailfuse::desk::feedback::ledger::Ledger;
use mailfuse::desk::index::{self, Index, Place, query};
use mailfuse::desk::measures::{Measures, Unexposed, Written};
use mailfuse::desk::notice::Said;
use mailfuse::desk::record::{Kept, Record};
use mailfuse::desk::webhook::body::{Message, What, render};
use mailfuse::desk::webhook::outcome::Outcome;
use mailfuse::desk::webhook::settings::{Deliver, Endpoint, Format};
use mailfuse::event::Timestamp;
use mailfuse::relays::Settings;

const LINK: &str = "https://desk.example/";
pub const BEGIN_MS: i64 = 1_772_438_400_000;

/// A desk that keeps nothing but what it recorded. What it says comes back to it at once.
pub struct Desk {
    endpoints: Vec<Endpoint>,
    topic: BTreeMap<String, Vec<u8>>,
    pub book: Book,
    deliveries: Deliveries,
    pub measures: Measures,
    pub ledger: Ledger,
    /// What receivers got: when, which endpoint, what.
    got: Vec<(i64, String, Message)>,
}

impl Desk {
    pub fn new(endpoints: Vec<Endpoint>) -> Self {
        Self::with(endpoints, Measures::new(&Settings::default(), Box::<Unexposed>::default(), "test"))
    }

    /// One that does something about accounts and relays, too.
    pub fn with(endpoints: Vec<Endpoint>, measures: Measures) -> Self {
        let deliveries = Deliveries::new(&endpoints, LINK);
        Self {
            endpoints,
            topic: BTreeMap::new(),
            book: Book::default(),
            deliveries,
            measures,
            ledger: Ledger::default(),
            got: Vec::new(),
        }
    }

    fn write(&mut self, records: Vec<Record>) {
        for record in records {
            match record.value().unwrap() {
                Some(value) => self.topic.insert(record.key(), value),
                None => self.topic.remove(&record.key()),
            };
        }
    }

    fn record(&mut self, records: Vec<Record>, now_ms: i64) {
        for record in records {
            if let Record::Alert(kept) = &record {
                let said = Arc::new(kept.alert.clone());
                let mut told = self.book.incident(said.thread()).map(|i| i.told.clone()).unwrap_or_default();
                let about = self.book.about(&said);
                let records = self.deliveries.take(&said, kept.n, &about, &mut told, now_ms);
                self.book.tell(said.thread(), told);
                self.write(records);
            }
            let now = match &record {
                Record::Incident(incident) => self.book.incident(&incident.id).cloned(),
                _ => None,
            };
            self.write(vec![now.map_or(record, |incident| Record::Incident(Box::new(incident)))]);
        }
    }

    pub fn take(&mut self, alert: Alert, now_ms: i64) {
        self.hear(VecDeque::from([Said::Account(Box::new(alert))]), now_ms);
    }

    /// Looks at relays, and at what expires.
    pub fn look(&mut self, now_ms: i64) {
        let written = self.measures.look(&self.book, &mut self.ledger, now_ms);
        self.done(written, now_ms);
    }

    /// Writes down what was done.
    pub fn done(&mut self, written: Written, now_ms: i64) {
        self.write(written.records);
        self.hear(written.notices.into_iter().map(|notice| Said::Fleet(Box::new(notice))).collect(), now_ms);
    }

    fn hear(&mut self, mut said: VecDeque<Said>, now_ms: i64) {
        while let Some(said_now) = said.pop_front() {
            let records = match said_now {
                Said::Account(alert) => {
                    let taken = self.book.take((*alert).clone(), now_ms, "test");
                    let done = self.measures.take(&alert, &self.book, &mut self.ledger, now_ms);
                    let notices = taken.notices.into_iter().chain(done.notices);
                    said.extend(notices.map(|notice| Said::Fleet(Box::new(notice))));
                    taken.records.into_iter().chain(done.records).collect()
                }
                Said::Fleet(notice) => self.book.take_notice(*notice, now_ms).into_iter().collect(),
            };
            self.record(records, now_ms);
        }
    }

    /// Everything that is due arrives.
    pub fn send(&mut self, now_ms: i64) {
        loop {
            let due = self.deliveries.due(now_ms, &|_| None);
            if due.is_empty() {
                return;
            }
            for (attempt, message) in due {
                self.got.push((now_ms, attempt.endpoint.clone(), message));
                let records = self.deliveries.done(attempt.attempt, &Outcome::of(200, None), now_ms, &mut || 1 << 63);
                self.write(records);
            }
        }
    }

    fn crash(&mut self, now_ms: i64) {
        (self.book, self.deliveries) = (Book::default(), Deliveries::new(&self.endpoints, LINK));
        for (key, value) in &self.topic {
            let record = Record::read(key.as_bytes(), Some(value)).unwrap();
            self.deliveries.restore(&record);
            self.book.restore(record);
        }
        self.book.restored();
        let mut wanting = self.deliveries.restored(now_ms);
        for value in self.topic.values() {
            let Ok(kept) = serde_json::from_slice::<Kept>(value) else { continue };
            if let Some(messages) = wanting.remove(kept.alert.id()) {
                self.deliveries.give(kept.alert, messages);
            }
        }
        assert!(wanting.is_empty());
    }

    pub fn got(&self, endpoint: &str) -> Vec<&Message> {
        self.got.iter().filter(|(_, name, _)| name == endpoint).map(|(.., message)| message).collect()
    }
}

pub fn to(name: &str) -> Endpoint {
    Endpoint { name: name.to_owned(), ..endpoint(Format::Native, "https://example.org") }
}

/// An alert of an account of its own, of a network of its own.
pub fn one(kind: AlertKind, severity: Severity, n: u32, at_ms: i64) -> Alert {
    let mut alert = alert(kind, severity, &format!("user{n}@t{n}.example"));
    (alert.incident, alert.id) = (format!("in-{n}"), format!("al-{n}-{kind:?}"));
    (alert.tenant, alert.ts) = (format!("t{n}.example"), Timestamp(at_ms));
    let burst = alert.burst.as_mut().unwrap();
    burst.client_ips = vec![format!("10.{}.{}.1", n / 250, n % 250)];
    // They have nothing in common.
    (burst.contents, burst.new_recipient_fingerprints) = (Vec::new(), Vec::new());
    alert
}

#[test]
fn a_campaign_is_told_only_to_whom_all_its_customers_belong() {
    let tenants = |name: &str, tenants: &[&str]| Endpoint {
        tenants: tenants.iter().map(|t| (*t).to_owned()).collect(),
        ..to(name)
    };
    let mut desk = Desk::new(vec![
        to("all"),
        tenants("two", &["t0.example", "t1.example"]),
        tenants("three", &["t0.example", "t1.example", "t2.example"]),
        tenants("other", &["t9.example"]),
    ]);
    for n in 0..3 {
        let mut alert = one(AlertKind::Flagged, Severity::Critical, n, BEGIN_MS + i64::from(n));
        alert.burst.as_mut().unwrap().client_ips = vec!["203.0.113.7".into()];
        desk.take(alert, BEGIN_MS);
    }
    desk.send(BEGIN_MS);
    let campaigns = |name: &str| desk.got(name).iter().filter(|m| m.kind == "campaign").count();
    assert_eq!(["all", "two", "three", "other"].map(campaigns), [1, 0, 1, 0]);
    assert_eq!(desk.got("other").len(), 0);
}

pub const HOUR_MS: i64 = 3_600_000;

/// What PagerDuty is asked to do: action, key, severity.
pub fn asked(message: &Message) -> (String, String, String) {
    let body = render(&endpoint(Format::Pagerduty, ""), &keys(), message).unwrap();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (text(&body["event_action"]), text(&body["dedup_key"]), text(&body["payload"]["severity"]))
}

fn is_storm(message: &&&Message) -> bool {
    message.kind.starts_with("storm")
}

/// A wave of flags, slow enough to be no anomaly: 25 at once, of which 5 are too many for messages of their own.
fn wave(desk: &mut Desk, from: u32, at_ms: i64) {
    for n in from..from + 25 {
        desk.take(one(AlertKind::Flagged, Severity::Critical, n, at_ms), at_ms);
    }
    for second in 0..100 {
        desk.send(at_ms + second * 1000);
    }
}

fn clear(desk: &mut Desk, ns: std::ops::Range<u32>, at_ms: i64) {
    for n in ns {
        desk.take(one(AlertKind::Cleared, Severity::Critical, n, at_ms), at_ms);
    }
    for second in 0..200 {
        desk.send(at_ms + second * 1000);
    }
}

#[test]
fn each_row_of_storms_is_an_incident_that_ends() {
    for crashes in [false, true] {
        let mut desk = Desk::new(vec![to("duty")]);
        let thursday = BEGIN_MS + 3 * 24 * HOUR_MS;
        wave(&mut desk, 0, BEGIN_MS);
        // Within the hour, the same row, whoever takes over.
        if crashes {
            desk.crash(BEGIN_MS + HOUR_MS / 4);
        }
        wave(&mut desk, 100, BEGIN_MS + HOUR_MS / 2);
        clear(&mut desk, 0..25, BEGIN_MS + 12 * HOUR_MS);
        if crashes {
            desk.crash(BEGIN_MS + 13 * HOUR_MS);
        }
        clear(&mut desk, 100..125, BEGIN_MS + 14 * HOUR_MS);
        wave(&mut desk, 200, thursday);
        let storms: Vec<_> = desk.got("duty").iter().filter(is_storm).map(|m| asked(m)).collect();
        let (monday, later) = ("mailfuse-storm-20", "mailfuse-storm-120");
        let all = |action: &str, key: &str, severity: &str| (action.to_owned(), key.to_owned(), severity.to_owned());
        assert_eq!(
            storms,
            [
                all("trigger", monday, "critical"),
                all("trigger", monday, "critical"),
                all("resolve", monday, ""),
                all("trigger", later, "critical"),
            ],
            "crashes: {crashes}"
        );
        let over = desk.got("duty").into_iter().find(|m| m.kind == "storm.over").unwrap();
        let What::StormOver(row) = &over.what else { panic!("{over:?}") };
        assert_eq!((row.incidents, row.critical, row.open, row.over), (10, 10, 0, 10));
        assert_eq!(over.link, "https://desk.example/v1/alerts?after=19");
    }
}

#[test]
fn the_ends_of_a_storm_page_nobody() {
    let mut desk = Desk::new(vec![to("duty")]);
    wave(&mut desk, 0, BEGIN_MS);
    // So late that the row has been given up before they come.
    desk.send(BEGIN_MS + 6 * 24 * HOUR_MS);
    let before = desk.got.len();
    clear(&mut desk, 0..25, BEGIN_MS + 7 * 24 * HOUR_MS);
    let ends: Vec<_> = desk.got[before..].iter().map(|(.., m)| asked(m)).collect();
    assert_eq!(ends.len(), 21, "20 by themselves, and one for the others");
    assert!(ends.iter().all(|(action, ..)| action == "resolve"), "{ends:?}");
}

#[test]
fn an_anomaly_is_one_thing_to_read_and_ends_as_one() {
    for crashes in [false, true] {
        let every = Endpoint { deliver: Deliver::Every, ..to("every") };
        let mut desk = Desk::new(vec![to("duty"), every]);
        // A fleet with a past, then a receiver is out for an hour: ten accounts a minute.
        for n in 0..40 {
            let now_ms = BEGIN_MS + i64::from(n) * HOUR_MS;
            desk.take(one(AlertKind::Flagged, Severity::Warning, n, now_ms), now_ms);
            desk.send(now_ms);
        }
        let out_ms = BEGIN_MS + 50 * HOUR_MS;
        let before = desk.got("duty").len();
        for n in 0..600_u32 {
            let now_ms = out_ms + i64::from(n) * 6_000;
            let severity = if n == 300 { Severity::Critical } else { Severity::Warning };
            desk.take(one(AlertKind::Flagged, severity, 1000 + n, now_ms), now_ms);
            desk.send(now_ms);
            if crashes && n % 200 == 150 {
                desk.crash(now_ms);
            }
        }
        let hour_ms = out_ms + HOUR_MS;
        for minute in 0..30 {
            desk.send(hour_ms + minute * 60_000);
        }
        let duty: Vec<&Message> = desk.got("duty").split_off(before);
        let notices = duty.iter().filter(|m| m.kind == "stream.anomaly").count();
        let alone = duty.iter().filter(|m| m.kind == "account.flagged").count();
        let storms: Vec<_> = duty.iter().filter(is_storm).collect();
        assert_eq!(notices, 1);
        assert!(alone <= 31, "{alone} before anybody could know that it is one");
        let takeovers = if crashes { 3 } else { 0 };
        assert!((6..=7 + takeovers).contains(&storms.len()), "{} storms", storms.len());
        let anomaly = duty.iter().find(|m| m.kind == "stream.anomaly").unwrap().incident.clone();
        assert!(storms.iter().all(|m| m.incident == anomaly && m.link.ends_with(&format!("anomaly={anomaly}"))));
        // The critical one among them is named within ten minutes, and first.
        let named: Vec<_> = storms
            .iter()
            .filter_map(|m| match &m.what {
                What::Storm(storm) if storm.critical > 0 => Some(storm),
                _ => None,
            })
            .collect();
        assert_eq!((named.len(), &*named[0].top[0].account), (1, "user1300@t1300.example"));
        let What::Storm(last) = &storms.last().unwrap().what else { panic!("an end before anything ended") };
        assert_eq!(last.row.incidents + alone as u64, 600, "everybody is counted");
        assert_eq!(last.row.open, last.row.incidents);
        assert_eq!(desk.got("every").iter().filter(|m| m.kind == "account.flagged").count(), 640);
        // Half a day later all are over.
        let over_ms = hour_ms + 12 * HOUR_MS;
        let before = desk.got("duty").len();
        clear(&mut desk, 1000..1600, over_ms);
        let ends: Vec<&Message> = desk.got("duty").split_off(before);
        assert_eq!(ends.iter().filter(is_storm).count(), 1);
        assert_eq!(ends.len(), alone + 1);
        assert!(ends.iter().all(|m| asked(m).0 == "resolve"), "{ends:?}");
    }
}

#[test]
fn every_receiver_reads_whose_campaign_it_is_and_finds_it() {
    let mut desk = Desk::new(vec![to("desk")]);
    for n in 0..4 {
        let mut alert = one(AlertKind::Flagged, Severity::Critical, n, BEGIN_MS);
        alert.burst.as_mut().unwrap().client_ips = vec!["203.0.113.7".into()];
        alert.account = format!("<!channel>{n}\u{202E}@t{n}.example");
        desk.take(alert, BEGIN_MS);
    }
    desk.send(BEGIN_MS);
    let campaign = desk.got("desk").into_iter().find(|m| m.kind == "campaign").unwrap();
    assert_eq!(campaign.link, format!("https://desk.example/v1/incidents?campaign={}", campaign.incident));
    for format in [Format::Slack, Format::Pagerduty, Format::Alertmanager] {
        let body =
            String::from_utf8(render(&endpoint(format, "https://example.org"), &keys(), campaign).unwrap()).unwrap();
        let shown = if format == Format::Slack {
            "&lt;!channel&gt;2\u{FFFD}@t2.example"
        } else {
            "<!channel>2\u{FFFD}@t2.example"
        };
        assert!(body.contains(&format!("{shown}: 310 recipients")), "{format:?}: {body}");
        assert!(
            body.contains("930") && body.contains(&format!("campaign={}", campaign.incident)),
            "{format:?}: {body}"
        );
        assert!(!body.contains('\u{202E}'));
    }
    // Where the link leads.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("desk.sqlite");
    let records: Vec<Record> =
        desk.topic.iter().map(|(key, value)| Record::read(key.as_bytes(), Some(value)).unwrap()).collect();
    Index::open(&path)
        .unwrap()
        .apply(&records, &Place { topic: "desk".into(), next_offset: 1, at_ms: 1, is_whole: true })
        .unwrap();
    let found = |campaign: Option<&str>, anomaly: Option<&str>| {
        let q = query::Incidents {
            campaign: campaign.map(str::to_owned),
            anomaly: anomaly.map(str::to_owned),
            ..Default::default()
        };
        query::incidents(&index::reader(&path).unwrap(), &q, &[]).unwrap().items.len()
    };
    let id = Some(campaign.incident.as_str());
    assert_eq!((found(id, None), found(Some("c-none"), None), found(None, id), found(None, None)), (4, 0, 0, 4));
}

#[test]
fn a_listing_is_told_as_one_thing_that_ends() {
    let pages = |name: &str| Endpoint { name: name.to_owned(), ..endpoint(Format::Pagerduty, "") };
    let mut desk = Desk::new(vec![to("desk"), pages("pager")]);
    let notices: Vec<Said> = include_str!("../../schemas/examples/notices.jsonl")
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let mut at_ms = BEGIN_MS;
    for kind in ["relay.listed", "relay.delisted"] {
        let of_kind = |said: &&Said| serde_json::to_value(said).unwrap()["kind"] == kind;
        let Said::Fleet(notice) = notices.iter().find(of_kind).unwrap() else { panic!("{kind} is a notice") };
        // It comes again after a crash.
        for _ in 0..2 {
            at_ms += HOUR_MS;
            let records = desk.book.take_notice((**notice).clone(), at_ms).into_iter().collect();
            desk.record(records, at_ms);
            desk.send(at_ms);
            desk.crash(at_ms);
        }
    }
    let told = desk.got("desk");
    assert_eq!(told.iter().map(|m| &*m.kind).collect::<Vec<_>>(), ["relay.listed", "relay.delisted"]);
    assert_eq!(told[0].link, "https://desk.example/v1/listings?standing=true");
    let slack = render(&endpoint(Format::Slack, "https://example.org"), &keys(), told[0]).unwrap();
    assert!(String::from_utf8(slack).unwrap().contains("192.0.2.3 is listed by zen.spamhaus.org"));
    let paged: Vec<_> = desk.got("pager").into_iter().map(asked).collect();
    let actions: Vec<&str> = paged.iter().map(|(action, ..)| &**action).collect();
    assert_eq!((actions, &paged[0].1), (vec!["trigger", "resolve"], &paged[1].1));
}

#[test]
fn an_anomaly_names_nobody_wherever_it_is_told() {
    let chosen = Endpoint { tenants: vec!["a.example".into()], ..to("chosen") };
    let mut desk = Desk::new(vec![chosen]);
    for n in 0..40 {
        desk.take(one(AlertKind::Flagged, Severity::Warning, n, BEGIN_MS), BEGIN_MS);
    }
    desk.send(BEGIN_MS + HOUR_MS);
    let got = desk.got("chosen");
    assert_eq!(got.iter().map(|m| &*m.kind).collect::<Vec<_>>(), ["stream.anomaly"]);
    for format in [Format::Native, Format::Slack, Format::Pagerduty, Format::Alertmanager] {
        let body =
            String::from_utf8(render(&endpoint(format, "https://example.org"), &keys(), got[0]).unwrap()).unwrap();
        assert!(body.contains("accounts were flagged") && !body.contains("user"), "{format:?}: {body}");
    }
}
