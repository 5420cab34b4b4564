//! What endpoints hear of many accounts at once: campaigns, anomalies, storms and their ends.

use crate::desk_webhook_support;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use desk_webhook_support::{alert, endpoint};
use mailfuse::core::alert::{Alert, AlertKind, Severity};
use mailfuse::desk::book::Book;
use mailfuse::desk::deliver::Deliveries;
use mailfuse::desk::notice::Said;
use mailfuse::desk::record::Record;
use mailfuse::desk::webhook::body::Message;
use mailfuse::desk::webhook::outcome::Outcome;
use mailfuse::desk::webhook::settings::{Endpoint, Format};
use mailfuse::event::Timestamp;

const LINK: &str = "https://desk.example/";
const BEGIN_MS: i64 = 1_772_438_400_000;

/// A desk that keeps nothing but what it recorded. What it says comes back to it at once.
struct Desk {
    endpoints: Vec<Endpoint>,
    topic: BTreeMap<String, Vec<u8>>,
    book: Book,
    deliveries: Deliveries,
    /// What receivers got: when, which endpoint, what.
    got: Vec<(i64, String, Message)>,
}

impl Desk {
    fn new(endpoints: Vec<Endpoint>) -> Self {
        let deliveries = Deliveries::new(&endpoints, LINK);
        Self { endpoints, topic: BTreeMap::new(), book: Book::default(), deliveries, got: Vec::new() }
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
                let mut told = self.book.incident(said.incident()).map(|i| i.told.clone()).unwrap_or_default();
                let about = self.book.about(&said);
                let records = self.deliveries.take(&said, kept.n, &about, &mut told, now_ms);
                self.book.tell(said.incident(), told);
                self.write(records);
            }
            let now = match &record {
                Record::Incident(incident) => self.book.incident(&incident.id).cloned(),
                _ => None,
            };
            self.write(vec![now.map_or(record, |incident| Record::Incident(Box::new(incident)))]);
        }
    }

    fn take(&mut self, alert: Alert, now_ms: i64) {
        let mut said = VecDeque::from([Said::Account(Box::new(alert))]);
        while let Some(said_now) = said.pop_front() {
            let records = match said_now {
                Said::Account(alert) => {
                    let taken = self.book.take(*alert, now_ms, "test");
                    said.extend(taken.notices.into_iter().map(|notice| Said::Fleet(Box::new(notice))));
                    taken.records
                }
                Said::Fleet(notice) => self.book.take_notice(*notice, now_ms).into_iter().collect(),
            };
            self.record(records, now_ms);
        }
    }

    /// Everything that is due arrives.
    fn send(&mut self, now_ms: i64) {
        loop {
            let due = self.deliveries.due(now_ms);
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

    fn got(&self, endpoint: &str) -> Vec<&Message> {
        self.got.iter().filter(|(_, name, _)| name == endpoint).map(|(.., message)| message).collect()
    }
}

fn to(name: &str) -> Endpoint {
    Endpoint { name: name.to_owned(), ..endpoint(Format::Native, "https://example.org") }
}

/// An alert of an account of its own, of a network of its own.
fn one(kind: AlertKind, severity: Severity, n: u32, at_ms: i64) -> Alert {
    let mut alert = alert(kind, severity, &format!("user{n}@t{n}.example"));
    (alert.incident, alert.id) = (format!("in-{n}"), format!("al-{n}-{kind:?}"));
    (alert.tenant, alert.ts) = (format!("t{n}.example"), Timestamp(at_ms));
    alert.burst.as_mut().unwrap().client_ips = vec![format!("10.{}.{}.1", n / 250, n % 250)];
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
