//! Digests: what they count, when they come, and that crashes change nothing.

use crate::desk_webhook_support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use desk_webhook_support::{alert, endpoint};
use mailfuse::core::alert::{Alert, AlertKind, Severity};
use mailfuse::desk::book::Book;
use mailfuse::desk::deliver::Deliveries;
use mailfuse::desk::record::Record;
use mailfuse::desk::webhook::body::{Message, What};
use mailfuse::desk::webhook::digest::{CLOCKS_MS, Digest};
use mailfuse::desk::webhook::outcome::Outcome;
use mailfuse::desk::webhook::settings::{Deliver, DigestAt, Endpoint, Format};
use mailfuse::event::Timestamp;

const MINUTE_MS: i64 = 60_000;
const LINK: &str = "https://desk.example/";

fn ms(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

fn daily(min_severity: Severity) -> Endpoint {
    let digest_at = DigestAt { time: "08:00".into(), zone: "Europe/Berlin".into() };
    Endpoint { deliver: Deliver::Digest, digest_at, min_severity, ..endpoint(Format::Native, "https://example.org") }
}

/// A desk that keeps nothing but what it recorded.
struct Desk {
    endpoint: Endpoint,
    topic: BTreeMap<String, Vec<u8>>,
    book: Book,
    deliveries: Deliveries,
    /// What the receiver got, by id, and when first.
    got: BTreeMap<String, (i64, Message)>,
}

impl Desk {
    fn new(endpoint: Endpoint) -> Self {
        let deliveries = Deliveries::new(std::slice::from_ref(&endpoint), LINK);
        Self { endpoint, topic: BTreeMap::new(), book: Book::default(), deliveries, got: BTreeMap::new() }
    }

    fn write(&mut self, records: Vec<Record>) {
        for record in records {
            match record.value().unwrap() {
                Some(value) => self.topic.insert(record.key(), value),
                None => self.topic.remove(&record.key()),
            };
        }
    }

    fn take(&mut self, kind: AlertKind, severity: Severity, n: usize, now_ms: i64) {
        let mut alert: Alert = alert(kind, severity, &format!("user{n}@example.org"));
        (alert.incident, alert.id) = (format!("in-{n}"), format!("al-{n}-{kind:?}"));
        (alert.tenant, alert.ts) = (format!("tenant-{}", n % 30), Timestamp(now_ms));
        alert.burst.as_mut().unwrap().recipients = n as u64;
        for record in self.book.take(alert, now_ms, "").records {
            if let Record::Alert(kept) = &record {
                let said = Arc::new(kept.alert.clone());
                let mut told = self.book.incident(said.incident()).unwrap().told.clone();
                let about = self.book.about(&said);
                let records = self.deliveries.take(&said, kept.n, &about, &mut told, now_ms);
                self.book.tell(said.incident(), told);
                self.write(records);
            }
            let now = self.book.incident(&format!("in-{n}")).cloned().unwrap();
            self.write(vec![record, Record::Incident(Box::new(now))]);
        }
    }

    fn send(&mut self, outcome: &Outcome, now_ms: i64) {
        for (attempt, message) in self.deliveries.due(now_ms, &|_| None) {
            if matches!(outcome, Outcome::Delivered { .. }) {
                let (_, got) = self.got.entry(message.id.clone()).or_insert((now_ms, message.clone()));
                assert_eq!(*got, message, "the same id, the same message");
            }
            let records = self.deliveries.done(attempt.attempt, outcome, now_ms, &mut || 1 << 63);
            self.write(records);
        }
    }

    fn crash(&mut self, now_ms: i64) {
        (self.book, self.deliveries) = (Book::default(), Deliveries::new(std::slice::from_ref(&self.endpoint), LINK));
        for (key, value) in &self.topic {
            let record = Record::read(key.as_bytes(), Some(value)).unwrap();
            self.deliveries.restore(&record);
            self.book.restore(record);
        }
        self.book.restored();
        assert!(self.deliveries.restored(now_ms).is_empty(), "a digest holds no alerts");
    }

    fn digests(&self) -> Vec<(i64, Digest)> {
        let digest = |(at, message): &(i64, Message)| match &message.what {
            What::Digest(digest) => (*at, (**digest).clone()),
            other => panic!("{other:?}"),
        };
        let mut digests: Vec<_> = self.got.values().map(digest).collect();
        digests.sort_by_key(|(at, _)| *at);
        digests
    }
}

/// splitmix64, as a source of chance that is the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

fn up() -> Outcome {
    Outcome::of(200, None)
}

/// What a digest must say, counted from the alerts of its time.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    begun: BTreeMap<usize, (Severity, bool)>,
    earlier_escalated: u64,
    earlier_over: u64,
    alerts: u64,
}

#[test]
fn days_are_counted_once_whatever_crashes() {
    use AlertKind::{Cleared, Escalated, Flagged};
    use Severity::{Critical, Warning};
    // Over the night in which the clocks go forward; on 31 March nothing happens. Alerts come at :05, digests at :00.
    let (begin, end) = (ms("2026-03-27T06:05:00Z"), ms("2026-04-03T06:05:00Z"));
    let dues: Vec<i64> = ["27T07", "28T07", "29T06", "30T06", "31T06"]
        .map(|day| ms(&format!("2026-03-{day}:00:00Z")))
        .into_iter()
        .chain(["01T06", "02T06", "03T06"].map(|day| ms(&format!("2026-04-{day}:00:00Z"))))
        .collect();
    for (seed, crashes) in [(1u64, false), (1, true), (2, true), (3, true)] {
        let mut dice = Dice(seed);
        let mut desk = Desk::new(daily(Warning));
        let mut expected: BTreeMap<i64, Expected> = BTreeMap::new();
        let mut open: BTreeMap<usize, Severity> = BTreeMap::new();
        let (mut next, mut now) = (0, begin);
        while now < end {
            let quiet = (ms("2026-03-30T06:00:00Z")..ms("2026-03-31T06:00:00Z")).contains(&now);
            let due = *dues.iter().find(|due| **due > now).unwrap();
            if !quiet {
                for _ in 0..dice.below(3) {
                    let day = expected.entry(due).or_default();
                    day.alerts += 1;
                    let one = open.keys().copied().nth(dice.below(20) as usize);
                    let (kind, severity, n) = match one {
                        Some(n) if open[&n] == Warning && dice.below(2) == 0 => (Escalated, Critical, n),
                        Some(n) => (Cleared, open[&n], n),
                        None => (Flagged, if dice.below(2) == 0 { Critical } else { Warning }, next),
                    };
                    match (kind, day.begun.get_mut(&n)) {
                        (Flagged, _) => {
                            next += 1;
                            day.begun.insert(n, (severity, true));
                        }
                        (Escalated, Some(begun)) => begun.0 = Critical,
                        (Escalated, None) => day.earlier_escalated += 1,
                        (Cleared, Some(begun)) => begun.1 = false,
                        (Cleared, None) => day.earlier_over += 1,
                    }
                    if kind == Cleared {
                        open.remove(&n)
                    } else {
                        open.insert(n, severity)
                    };
                    desk.take(kind, severity, n, now);
                }
            }
            if crashes && dice.below(4) == 0 {
                desk.crash(now + MINUTE_MS);
            }
            now += 10 * MINUTE_MS;
            desk.send(&up(), now - 5 * MINUTE_MS);
        }
        let digests = desk.digests();
        assert!(expected.len() == 7 && digests.len() == 7, "none for the quiet day: {}", digests.len());
        for ((at, digest), (due, day)) in digests.iter().zip(&expected) {
            assert_eq!((*at, digest.due.0), (*due, *due), "at its hour");
            let count = |one: Severity| day.begun.values().filter(|(s, _)| *s == one).count() as u64;
            assert_eq!((digest.critical, digest.warning), (count(Critical), count(Warning)), "{digest:?}");
            assert_eq!(digest.open, day.begun.values().filter(|(_, open)| *open).count() as u64);
            assert_eq!((digest.earlier_escalated, digest.earlier_over), (day.earlier_escalated, day.earlier_over));
            assert_eq!(digest.kinds.values().sum::<u64>(), day.alerts);
            let tenants: u64 = digest.tenants.iter().map(|t| t.critical + t.warning).sum();
            assert_eq!(tenants + digest.other_tenants, day.begun.len() as u64);
            assert!(digest.tenants.len() <= 20 && digest.top.len() <= 10);
            assert!(digest.top.is_sorted_by(|a, b| (a.severity, a.recipients) >= (b.severity, b.recipients)));
            let first = digest.first_seq;
            let link = &desk.got.values().find(|(sent, _)| sent == at).unwrap().1.link;
            let after = first.checked_sub(1).map_or(String::new(), |after| format!("?after={after}"));
            assert_eq!(*link, format!("https://desk.example/v1/alerts{after}"));
        }
    }
}

#[test]
fn a_receiver_that_is_away_gets_each_day_by_itself() {
    let mut desk = Desk::new(daily(Severity::Warning));
    let (first, second) = (ms("2026-07-01T06:00:00Z"), ms("2026-07-02T06:00:00Z"));
    let down = Outcome::Retry { status: None, after: None, why: "no connection".into() };
    desk.take(AlertKind::Flagged, Severity::Critical, 1, first - 10 * MINUTE_MS);
    let mut now = first;
    while now < first + 3 * 60 * MINUTE_MS {
        desk.send(&down, now);
        now += MINUTE_MS;
    }
    // The first one may no longer change: what comes is the second day's.
    desk.take(AlertKind::Flagged, Severity::Warning, 2, now);
    desk.crash(now);
    desk.take(AlertKind::Flagged, Severity::Warning, 3, now + 1);
    for at in [now + 2, now + 60 * MINUTE_MS, second] {
        desk.take(AlertKind::Cleared, Severity::Critical, 1, now + 2);
        desk.send(&up(), at);
        desk.crash(at);
    }
    let digests: Vec<(u64, u64, u64)> =
        desk.digests().iter().map(|(_, d)| (d.critical, d.warning, d.earlier_over)).collect();
    assert_eq!(digests, [(1, 0, 0), (0, 2, 1)]);
    assert_eq!(desk.digests()[1].0, second);
}

#[test]
fn just_before_the_hour_no_desk_changes_what_another_may_be_sending() {
    let due = ms("2026-07-01T06:00:00Z");
    let mut desk = Desk::new(daily(Severity::Warning));
    desk.take(AlertKind::Flagged, Severity::Critical, 1, due - 10 * MINUTE_MS);
    desk.crash(due - CLOCKS_MS);
    desk.take(AlertKind::Flagged, Severity::Critical, 2, due - CLOCKS_MS + 1);
    desk.send(&up(), due);
    assert_eq!(desk.digests().iter().map(|(_, d)| d.critical).collect::<Vec<_>>(), [1]);
    desk.send(&up(), ms("2026-07-02T06:00:00Z"));
    let dues: BTreeSet<i64> = desk.digests().iter().map(|(_, d)| d.due.0).collect();
    assert_eq!((dues.len(), desk.digests().len()), (2, 2));
}

#[test]
fn whoever_wants_critical_ones_is_told_of_a_warning_that_becomes_one() {
    let due = ms("2026-07-01T06:00:00Z");
    let mut desk = Desk::new(daily(Severity::Critical));
    desk.take(AlertKind::Flagged, Severity::Warning, 1, due - 30 * MINUTE_MS);
    desk.send(&up(), due);
    assert!(desk.got.is_empty());
    desk.take(AlertKind::Escalated, Severity::Critical, 1, due + MINUTE_MS);
    desk.take(AlertKind::Cleared, Severity::Critical, 1, due + 2 * MINUTE_MS);
    desk.send(&up(), ms("2026-07-02T06:00:00Z"));
    let (_, digest) = &desk.digests()[0];
    assert_eq!((digest.critical, digest.open, digest.earlier_escalated), (1, 0, 0));
}
