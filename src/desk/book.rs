//! The book: every incident that the desk knows. Pure; the active desk keeps it in memory, and the `desk` topic is its truth.
//!
//! An alert may come any number of times, and comes again whenever a partition is read again after a crash: by its id it counts
//! once.

use hashbrown::HashMap;

use super::record::{ALERT, INCIDENT, Incident, Kept, Record, Stage, State};
use crate::core::alert::{Alert, AlertKind};

/// Incidents that are known at a time: those that are over longest make room. One takes some 700 bytes.
pub const INCIDENTS_MAX: usize = 200_000;

/// The book of incidents.
#[derive(Debug, Default)]
pub struct Book {
    incidents: HashMap<String, Incident>,
    /// The number of the next alert.
    next: u64,
    open: usize,
}

impl Book {
    /// Takes an alert. Returns what must be written: nothing where it was known.
    pub fn take(&mut self, alert: Alert, now_ms: i64) -> Vec<Record> {
        let known = self.incidents.get_mut(&alert.incident);
        if known.as_ref().is_some_and(|i| i.alerts.iter().any(|s| s.id == alert.id)) {
            return Vec::new();
        }
        let n = self.next;
        self.next += 1;
        let stage = Stage { n, id: alert.id.clone(), kind: alert.kind, ts: alert.ts };
        let was_open = known.as_ref().is_some_and(|i| i.state == State::Open);
        let incident = match known {
            Some(known) => {
                known.count(&alert, stage, now_ms);
                known.clone()
            }
            None => {
                let incident = Incident::new(&alert, stage, now_ms);
                self.incidents.insert(incident.id.clone(), incident.clone());
                incident
            }
        };
        self.open = self.open + usize::from(incident.state == State::Open) - usize::from(was_open);
        let kept = Kept { v: 1, n, taken_ms: now_ms, alert };
        vec![Record::Alert(Box::new(kept)), Record::Incident(Box::new(incident))]
    }

    /// Takes in what the topic has.
    pub fn restore(&mut self, record: Record) {
        match record {
            Record::Alert(kept) => self.next = self.next.max(kept.n + 1),
            Record::Incident(incident) => {
                let last = incident.alerts.iter().map(|s| s.n + 1).max().unwrap_or(0);
                self.next = self.next.max(last);
                let open = usize::from(incident.state == State::Open);
                let before = self.incidents.insert(incident.id.clone(), *incident);
                self.open = self.open + open - before.map_or(0, |b| usize::from(b.state == State::Open));
            }
            Record::Gone(key) => {
                if let Some(id) = key.strip_prefix(INCIDENT)
                    && let Some(gone) = self.incidents.remove(id)
                {
                    self.open -= usize::from(gone.state == State::Open);
                }
            }
            Record::Unknown => {}
        }
    }

    /// Forgets what has been over since before `before_ms`, and what is too much. Returns what must be written.
    pub fn forget(&mut self, before_ms: i64) -> Vec<Record> {
        let over = |i: &&Incident| i.state == State::Over;
        let mut gone: Vec<String> =
            self.incidents.values().filter(over).filter(|i| i.updated_ms < before_ms).map(|i| i.id.clone()).collect();
        let rest = self.incidents.len() - gone.len();
        if rest > INCIDENTS_MAX {
            let mut oldest: Vec<(i64, &str)> = self
                .incidents
                .values()
                .filter(over)
                .filter(|i| i.updated_ms >= before_ms)
                .map(|i| (i.updated_ms, &*i.id))
                .collect();
            oldest.sort_unstable();
            gone.extend(oldest.iter().take(rest - INCIDENTS_MAX).map(|(_, id)| (*id).to_owned()));
        }
        gone.sort_unstable();
        let mut records = Vec::new();
        for id in gone {
            let Some(incident) = self.incidents.remove(&id) else { continue };
            records.extend(incident.alerts.iter().map(|s| Record::Gone(format!("{ALERT}{}", s.id))));
            records.push(Record::Gone(format!("{INCIDENT}{id}")));
        }
        records
    }

    /// One incident.
    pub fn incident(&self, id: &str) -> Option<&Incident> {
        self.incidents.get(id)
    }

    /// Incidents known.
    pub fn len(&self) -> usize {
        self.incidents.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.incidents.is_empty()
    }

    /// Incidents that go on.
    pub fn open(&self) -> usize {
        self.open
    }
}

impl Incident {
    fn new(alert: &Alert, stage: Stage, now_ms: i64) -> Self {
        let mut incident = Self {
            v: 1,
            id: alert.incident.clone(),
            account: alert.account.clone(),
            tenant: alert.tenant.clone(),
            state: State::Open,
            severity: alert.severity,
            score: alert.score,
            pattern: alert.pattern,
            flagged: alert.ts,
            cleared: None,
            recipients: 0,
            messages: 0,
            updated_ms: now_ms,
            alerts: Vec::with_capacity(3),
        };
        incident.count(alert, stage, now_ms);
        incident
    }

    fn count(&mut self, alert: &Alert, stage: Stage, now_ms: i64) {
        self.severity = self.severity.max(alert.severity);
        self.score = self.score.max(alert.score);
        self.flagged = self.flagged.min(alert.ts);
        if !alert.evidence.is_empty() {
            self.pattern = alert.pattern;
        }
        if let Some(burst) = &alert.burst {
            self.recipients = self.recipients.max(burst.recipients);
            self.messages = self.messages.max(burst.messages);
        }
        if alert.kind == AlertKind::Cleared {
            self.state = State::Over;
            self.cleared = Some(alert.ts);
        }
        self.updated_ms = now_ms;
        self.alerts.push(stage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The alerts of the schema's examples, one incident: flagged, escalated, cleared.
    fn alert(kind: AlertKind, incident: u32) -> Alert {
        let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
        let mut alert: Alert = serde_json::from_str(line).unwrap();
        alert.incident = format!("i-{incident}");
        alert.id = format!("a-{incident}-{kind:?}");
        alert.kind = kind;
        alert
    }

    #[test]
    fn an_alert_counts_once_however_often_it_comes() {
        let mut book = Book::default();
        assert_eq!(book.take(alert(AlertKind::Flagged, 1), 10).len(), 2);
        assert_eq!(book.take(alert(AlertKind::Flagged, 1), 11), []);
        assert_eq!(book.take(alert(AlertKind::Escalated, 1), 12).len(), 2);
        assert_eq!((book.len(), book.open()), (1, 1));
        book.take(alert(AlertKind::Cleared, 1), 13);
        assert_eq!(book.take(alert(AlertKind::Cleared, 1), 14), []);
        assert_eq!(book.take(alert(AlertKind::Flagged, 1), 15), []);
        let incident = book.incident("i-1").unwrap();
        assert_eq!((incident.state, incident.updated_ms, incident.alerts.len()), (State::Over, 13, 3));
        assert_eq!(incident.alerts.iter().map(|s| s.n).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((book.len(), book.open()), (1, 0));
    }

    #[test]
    fn what_was_written_is_the_book() {
        let (mut book, mut topic) = (Book::default(), Vec::new());
        for n in 0..50 {
            topic.extend(book.take(alert(AlertKind::Flagged, n), i64::from(n)));
            if n % 3 == 0 {
                topic.extend(book.take(alert(AlertKind::Cleared, n), i64::from(n)));
            }
        }
        topic.extend(book.forget(20));
        let mut restored = Book::default();
        for record in topic {
            let (key, value) = (record.key(), record.value().unwrap());
            let read = Record::read(key.as_bytes(), value.as_deref()).unwrap();
            assert_eq!(read, record);
            restored.restore(read);
        }
        assert_eq!(restored.incidents, book.incidents);
        assert_eq!((restored.open, restored.next), (book.open, book.next));
        assert_eq!(book.len(), 50 - 7, "0, 3, …, 18 were over before 20");
    }

    #[test]
    fn what_goes_on_is_never_forgotten() {
        let mut book = Book::default();
        book.take(alert(AlertKind::Flagged, 1), 0);
        assert_eq!(book.forget(i64::MAX), []);
        book.take(alert(AlertKind::Cleared, 1), 5);
        assert_eq!(book.forget(5), []);
        let gone = book.forget(6);
        let keys: Vec<String> = gone.iter().map(Record::key).collect();
        assert_eq!(keys, ["alert/a-1-Flagged", "alert/a-1-Cleared", "incident/i-1"]);
        assert!(book.is_empty());
    }
}
