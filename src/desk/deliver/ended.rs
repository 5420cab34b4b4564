//! What is recorded and said of how attempts ended.

use std::collections::BTreeMap;

use super::{Deliveries, alerts_of};
use crate::desk::record::Record;
use crate::desk::webhook::record::{Change, DeliveryRecord, EndpointRecord, State};

/// Of one kind of trouble at one endpoint one line is said in so many milliseconds.
const SAID_MS: i64 = 60_000;

/// When it was last said what goes wrong, so that an endpoint at which much waits does not fill the log.
#[derive(Debug, Default)]
pub(super) struct Complaints(BTreeMap<(String, &'static str), (i64, u64)>);

impl Complaints {
    /// Whether it is said now; with how many were left out since the last one.
    fn is_said(&mut self, endpoint: &str, what: &'static str, now_ms: i64) -> Option<u64> {
        let (said_ms, left_out) = self.0.entry((endpoint.to_owned(), what)).or_insert((i64::MIN, 0));
        if now_ms < said_ms.saturating_add(SAID_MS) {
            *left_out += 1;
            return None;
        }
        *said_ms = now_ms;
        Some(std::mem::take(left_out))
    }
}

impl Deliveries {
    pub(super) fn recorded(&mut self, changes: Vec<Change>, now_ms: i64) -> Vec<Record> {
        let mut records = Vec::new();
        for change in changes {
            match change {
                Change::Delivered(r) | Change::Dead(r) => {
                    if r.state == State::Dead {
                        self.given_up(&r, now_ms);
                    }
                    let group = self.groups.remove(&(r.endpoint.clone(), r.id.clone()));
                    group.iter().flat_map(alerts_of).for_each(|id| self.let_go(id));
                    self.finished.insert((now_ms, r.endpoint.clone(), r.id.clone()));
                    records.push(Record::Delivery(Box::new(r)));
                }
                Change::Failed(r) => {
                    self.not_delivered(&r, now_ms);
                    records.push(Record::Delivery(Box::new(r)));
                }
                Change::Resent(r) => records.push(Record::Delivery(Box::new(r))),
                Change::Disabled(r) => {
                    tracing::error!(
                        endpoint = r.endpoint,
                        "the receiver wants nothing more (410): what waits is held, until `mailfuse webhook enable`"
                    );
                    records.push(endpoint(r));
                }
                Change::Enabled(r) => records.push(endpoint(r)),
            }
        }
        records
    }

    /// Says that a heartbeat did not arrive.
    pub fn no_heartbeat(&mut self, endpoint: &str, why: &str, now_ms: i64) {
        if let Some(left_out) = self.complaints.is_said(endpoint, "heartbeat", now_ms) {
            tracing::warn!(endpoint, left_out, "a heartbeat was not delivered: {why}");
        }
    }

    fn not_delivered(&mut self, r: &DeliveryRecord, now_ms: i64) {
        if let Some(left_out) = self.complaints.is_said(&r.endpoint, "failed", now_ms) {
            let (endpoint, id, incident, attempts) = (&r.endpoint, &r.id, &r.incident, r.attempts);
            tracing::warn!(endpoint, id, incident, attempts, left_out, "not delivered: {}", why(r));
        }
    }

    fn given_up(&mut self, r: &DeliveryRecord, now_ms: i64) {
        if let Some(left_out) = self.complaints.is_said(&r.endpoint, "given up", now_ms) {
            let (endpoint, id, incident) = (&r.endpoint, &r.id, &r.incident);
            tracing::error!(
                endpoint,
                id,
                incident,
                left_out,
                "given up: {}; /v1/alerts has it, /v1/deliveries?state=dead all of them",
                why(r)
            );
        }
    }
}

fn why(r: &DeliveryRecord) -> &str {
    r.last.as_ref().and_then(|l| l.error.as_deref()).unwrap_or("no answer")
}

fn endpoint(record: EndpointRecord) -> Record {
    Record::Endpoint(Box::new(record))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap as Map;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::desk::book::Book;
    use crate::desk::book::tests::flagged;
    use crate::desk::webhook::outcome::Outcome;
    use crate::desk::webhook::settings::{Deliver, Endpoint};

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_receiver_that_refuses_everything_is_a_line_a_minute_that_names_a_message() {
        let endpoint = |name: &str| Endpoint { name: name.to_owned(), deliver: Deliver::Every, ..Endpoint::default() };
        let (mut book, mut deliveries) = (Book::default(), Deliveries::new(&[endpoint("siem"), endpoint("pager")], ""));
        for n in 0..500 {
            for record in book.take(flagged(n, i64::from(n)), 0, "").records {
                if let Record::Alert(kept) = record {
                    let said = Arc::new(kept.alert);
                    deliveries.take(&said, kept.n, &book.about(&said), &mut Map::new(), 0);
                }
            }
        }
        let log = Log::default();
        let written = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish();
        let mut attempts = 0;
        tracing::subscriber::with_default(subscriber, || {
            // Two minutes, a second a step.
            for now_ms in (0..120_000).step_by(1_000) {
                for (attempt, _) in deliveries.due(now_ms, &|_| None) {
                    attempts += 1;
                    let outcome = Outcome::Refused { status: 404, why: "answered 404".to_owned() };
                    deliveries.done(attempt.attempt, &outcome, now_ms, &mut || 0);
                }
            }
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().filter(|l| l.contains("not delivered")).collect();
        assert!(attempts > 400, "{attempts}");
        assert_eq!(lines.len(), 4, "{text}");
        assert!(
            lines.iter().all(|l| l.contains("id=") && l.contains("incident=") && l.contains("answered 404")),
            "{text}"
        );
        assert!(lines.iter().filter(|l| l.contains("siem") && !l.contains("left_out=0")).count() == 1, "{text}");
        let mut complaints = Complaints::default();
        let said: Vec<_> = [0, 1, 59_999, 60_000].map(|at| complaints.is_said("siem", "failed", at)).into();
        assert_eq!(said, [Some(0), None, None, Some(2)]);
    }
}
