//! The book: every incident that the desk knows. Pure; the active desk keeps it in memory, and the `desk` topic is its truth.
//!
//! An alert may come any number of times, and comes again whenever a partition is read again after a crash: by its id it counts
//! once.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::groups::{Groups, contents, networks};
use super::notice::{ACCOUNTS_MAX, Notice, NoticeKind, Said};
use super::record::{ALERT, INCIDENT, Incident, Kept, Record, Stage, State};
use super::webhook::grouping::Told;
use crate::core::alert::{Alert, AlertKind, Severity};
use crate::directory::Directory;
use crate::event::Timestamp;

/// Incidents that are known at a time: those that are over longest make room, but for what waits to be delivered. One takes some
/// 700 bytes.
pub const INCIDENTS_MAX: usize = 200_000;

/// The book of incidents.
#[derive(Debug, Default)]
pub struct Book {
    incidents: HashMap<String, Incident>,
    /// By its id.
    notices: HashMap<String, Noticed>,
    groups: Groups,
    directory: Arc<Directory>,
    /// The number of the next alert.
    next: u64,
    open: usize,
}

/// What the book knows of whom an alert is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// Its customers, each once; empty where it names nobody. A customer without a name is one that is not known.
    pub tenants: Vec<String>,
    /// The anomaly that its incident was flagged in.
    pub anomaly: Option<String>,
}

/// What an alert leads to.
#[derive(Debug, Default)]
pub struct Taken {
    /// What must be written to the desk topic.
    pub records: Vec<Record>,
    /// What must be written to the alerts topic; it comes back from there, and is taken as the detector's alerts are.
    pub notices: Vec<Notice>,
}

/// What is remembered of a notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noticed {
    /// Its number.
    pub n: u64,
    /// When it was taken, in Unix milliseconds.
    pub taken_ms: i64,
    /// What it says.
    pub kind: NoticeKind,
    /// How bad it is.
    pub severity: Severity,
    /// The customer, where it is about one.
    pub tenant: Option<String>,
}

/// What was forgotten.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// What must be written.
    pub records: Vec<Record>,
    /// Incidents.
    pub incidents: Vec<Incident>,
    /// Incidents among them whose time had not come: too many are known.
    pub early: usize,
    /// Notices.
    pub notices: Vec<Noticed>,
}

impl Book {
    /// Takes over a directory: what it says is noted of incidents from now on.
    pub fn know(&mut self, directory: Arc<Directory>) {
        self.directory = directory;
    }

    /// Takes an alert of the detector. Nothing comes of one that was known. `by` names the program, for what the desk says itself.
    pub fn take(&mut self, alert: Alert, now_ms: i64, by: &str) -> Taken {
        let mut taken = Taken::default();
        let known = self.incidents.get_mut(&alert.incident);
        let is_new = known.is_none();
        if known.as_ref().is_some_and(|i| i.alerts.iter().any(|s| s.id == alert.id)) {
            return taken;
        }
        let n = self.next;
        self.next += 1;
        let stage = Stage { n, id: alert.id.clone(), kind: alert.kind, ts: alert.ts };
        let was_open = known.as_ref().is_some_and(|i| i.state == State::Open);
        let mut incident = match known {
            Some(known) => {
                known.count(&alert, stage, now_ms);
                known.clone()
            }
            None => {
                let mut new = Incident::new(&alert, stage, now_ms);
                new.directory = self.directory.facts(&new.account, &new.tenant).map(Box::new);
                if let Some(tenant) = new.directory.as_ref().and_then(|d| d.tenant.clone()) {
                    new.tenant = tenant;
                }
                new
            }
        };
        self.open = self.open + usize::from(incident.state == State::Open) - usize::from(was_open);
        if is_new {
            let ended = self.groups.settle(alert.ts);
            incident.anomaly = self.groups.anomaly().map(|a| a.id.clone());
            let grouped = self.groups.take(&incident, &alert, by);
            self.incidents.insert(incident.id.clone(), incident.clone());
            let mut changed: Vec<String> = Vec::new();
            for (id, campaign) in grouped.joined {
                if let Some(member) = self.incidents.get_mut(&id) {
                    member.campaign = Some(campaign);
                    changed.push(id);
                }
            }
            for id in grouped.caught {
                if let (Some(member), Some(anomaly)) = (self.incidents.get_mut(&id), &grouped.anomaly) {
                    member.anomaly = Some(anomaly.id.clone());
                    changed.push(id);
                }
            }
            changed.retain(|id| *id != incident.id);
            changed.sort_unstable();
            changed.dedup();
            if let Some(ours) = self.incidents.get(&incident.id) {
                incident.clone_from(ours);
            }
            let others = changed.iter().filter_map(|id| self.incidents.get(id));
            taken.records.extend(others.map(|i| Record::Incident(Box::new(i.clone()))));
            taken.notices = grouped.notices;
            taken.records.extend(grouped.anomaly.or(ended).map(|a| Record::Anomaly(Box::new(a))));
        }
        let kept = Kept { v: 1, n, taken_ms: now_ms, alert: Said::Account(Box::new(alert)) };
        taken.records.extend([Record::Alert(Box::new(kept)), Record::Incident(Box::new(incident))]);
        taken
    }

    /// Notes what endpoints were told of an incident.
    pub fn tell(&mut self, id: &str, told: BTreeMap<String, Told>) {
        if let Some(incident) = self.incidents.get_mut(id) {
            incident.told = told;
        }
    }

    /// Takes what a desk has said, this one or one before it.
    pub fn take_notice(&mut self, notice: Notice, now_ms: i64) -> Option<Record> {
        if self.notices.contains_key(&notice.id) {
            return None;
        }
        let n = self.next;
        self.next += 1;
        self.notices.insert(notice.id.clone(), noticed(&notice, n, now_ms));
        Some(Record::Alert(Box::new(Kept { v: 1, n, taken_ms: now_ms, alert: Said::Fleet(Box::new(notice)) })))
    }

    /// Whom an alert is about. It was taken before.
    pub fn about(&self, said: &Said) -> About {
        let incident = self.incidents.get(said.thread());
        let anomaly = incident.and_then(|i| i.anomaly.clone());
        let notice = match said {
            // The incident's is the directory's, where that knows better.
            Said::Account(alert) => {
                return About { tenants: vec![incident.map_or(&alert.tenant, |i| &i.tenant).clone()], anomaly };
            }
            Said::Fleet(notice) => notice,
        };
        if let Some(tenant) = &notice.tenant {
            return About { tenants: vec![tenant.clone()], anomaly };
        }
        let tenant = |id: &str| self.incidents.get(id).map(|i| i.tenant.clone()).unwrap_or_default();
        let mut tenants: Vec<String> = notice.accounts.iter().map(|share| tenant(&share.incident)).collect();
        if notice.accounts.len() >= ACCOUNTS_MAX {
            // Who else belongs to it is not said.
            tenants.push(String::new());
        }
        tenants.sort_unstable();
        tenants.dedup();
        About { tenants, anomaly }
    }

    /// Takes in what the topic has. When all of it is in, [`Book::restored`].
    pub fn restore(&mut self, record: Record) {
        match record {
            Record::Alert(kept) => {
                self.next = self.next.max(kept.n + 1);
                if let Said::Fleet(notice) = kept.alert {
                    let known = noticed(&notice, kept.n, kept.taken_ms);
                    self.notices.insert(notice.id, known);
                }
            }
            Record::Incident(incident) => {
                let last = incident.alerts.iter().map(|s| s.n + 1).max().unwrap_or(0);
                self.next = self.next.max(last);
                let open = usize::from(incident.state == State::Open);
                let before = self.incidents.insert(incident.id.clone(), *incident);
                self.open = self.open + open - before.map_or(0, |b| usize::from(b.state == State::Open));
            }
            Record::Anomaly(anomaly) => self.groups.restore_anomaly(*anomaly),
            Record::Gone(key) => {
                if let Some(id) = key.strip_prefix(INCIDENT)
                    && let Some(gone) = self.incidents.remove(id)
                {
                    self.open -= usize::from(gone.state == State::Open);
                } else if let Some(id) = key.strip_prefix(ALERT) {
                    self.notices.remove(id);
                }
            }
            _ => {}
        }
    }

    /// Everything is in: what is grouped with what is known from now on.
    pub fn restored(&mut self) {
        let mut incidents: Vec<&Incident> = self.incidents.values().collect();
        // As they were taken.
        incidents.sort_unstable_by_key(|i| i.alerts.first().map_or(0, |s| s.n));
        for incident in incidents {
            self.groups.restore(incident);
        }
    }

    /// Forgets what has been over since before `before_ms`, and what is too much; `is_needed` says of which incidents and alerts, by
    /// id, something waits to be delivered: these stay. So does the alert with the highest number: whoever restores the book goes on
    /// behind it, so that no number comes twice.
    pub fn forget(&mut self, before_ms: i64, is_needed: &dyn Fn(&str) -> bool) -> Forgotten {
        let next = self.next;
        let is_last = |n: u64| n + 1 == next;
        let stays = |i: &Incident| is_needed(&i.id) || i.alerts.iter().any(|s| is_last(s.n) || is_needed(&s.id));
        let (mut gone, mut others) = (Vec::<String>::new(), Vec::<(i64, &str)>::new());
        for incident in self.incidents.values().filter(|i| i.state == State::Over && !stays(i)) {
            if incident.updated_ms < before_ms {
                gone.push(incident.id.clone());
            } else {
                others.push((incident.updated_ms, &incident.id));
            }
        }
        let too_many = (self.incidents.len() - gone.len()).saturating_sub(INCIDENTS_MAX);
        let mut forgotten = Forgotten { early: too_many.min(others.len()), ..Forgotten::default() };
        if forgotten.early > 0 {
            others.sort_unstable();
            gone.extend(others.iter().take(forgotten.early).map(|(_, id)| (*id).to_owned()));
        }
        gone.sort_unstable();
        for id in gone {
            let Some(incident) = self.incidents.remove(&id) else { continue };
            forgotten.records.extend(incident.alerts.iter().map(|s| Record::Gone(format!("{ALERT}{}", s.id))));
            forgotten.records.push(Record::Gone(format!("{INCIDENT}{id}")));
            forgotten.incidents.push(incident);
        }
        let is_old =
            |id: &String, notice: &mut Noticed| notice.taken_ms < before_ms && !is_last(notice.n) && !is_needed(id);
        let mut notices: Vec<(String, Noticed)> = self.notices.extract_if(is_old).collect();
        notices.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        for (id, notice) in notices {
            forgotten.records.push(Record::Gone(format!("{ALERT}{id}")));
            forgotten.notices.push(notice);
        }
        forgotten
    }

    /// The number of the next alert.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether an alert is known, and not forgotten.
    pub fn has(&self, said: &Said) -> bool {
        match said {
            Said::Account(alert) => self.incidents.contains_key(&alert.incident),
            Said::Fleet(notice) => self.notices.contains_key(&notice.id),
        }
    }

    /// One incident.
    pub fn incident(&self, id: &str) -> Option<&Incident> {
        self.incidents.get(id)
    }

    /// One incident, to be changed: what goes on and what is over stays so.
    pub fn incident_mut(&mut self, id: &str) -> Option<&mut Incident> {
        self.incidents.get_mut(id)
    }

    /// The newest incident of an account that goes on.
    pub fn newest_open(&self, account: &str) -> Option<&Incident> {
        let open = self.incidents.values().filter(|i| i.state == State::Open && i.account == account);
        open.max_by_key(|i| i.alerts.first().map_or(0, |s| s.n))
    }

    /// Whether the stream itself has changed, and has not settled yet.
    pub fn is_anomaly_open(&self) -> bool {
        self.groups.anomaly().is_some_and(|a| a.until.is_none())
    }

    /// All incidents, in no order.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
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

fn noticed(notice: &Notice, n: u64, taken_ms: i64) -> Noticed {
    Noticed { n, taken_ms, kind: notice.kind, severity: notice.severity, tenant: notice.tenant.clone() }
}

impl Incident {
    fn new(alert: &Alert, stage: Stage, now_ms: i64) -> Self {
        let mut incident = Self {
            v: 1,
            id: alert.incident.clone(),
            account: alert.account.clone(),
            tenant: alert.tenant.clone(),
            directory: None,
            state: State::Open,
            severity: alert.severity,
            score: alert.score,
            pattern: alert.pattern,
            flagged: alert.ts,
            first: None,
            taken: Some(Timestamp(now_ms)),
            relays: Vec::new(),
            cleared: None,
            recipients: 0,
            messages: 0,
            networks: networks(alert),
            contents: contents(alert),
            new_recipient_fingerprints: alert
                .burst
                .iter()
                .flat_map(|b| &b.new_recipient_fingerprints)
                .cloned()
                .collect(),
            campaign: None,
            anomaly: None,
            told: BTreeMap::new(),
            acknowledged: None,
            resolved: None,
            notes: Vec::new(),
            actions: Vec::new(),
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
            self.first = Some(self.first.map_or(burst.first_ts, |first| first.min(burst.first_ts)));
        }
        if !alert.relays.is_empty() {
            self.relays.clone_from(&alert.relays);
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
pub(super) mod tests {
    use super::*;
    use crate::desk::record::ANOMALY;

    /// A flag of an account of its own, at a time.
    pub fn flagged(n: u32, at_ms: i64) -> Alert {
        let mut alert = alert(AlertKind::Flagged, n);
        alert.account = format!("user{n}@t{n}.example");
        alert.tenant = format!("t{n}.example");
        alert.ts = Timestamp(1_700_000_000_000 + at_ms);
        alert
    }

    /// The alerts of the schema's examples, one incident: flagged, escalated, cleared.
    fn alert(kind: AlertKind, incident: u32) -> Alert {
        let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
        let mut alert: Alert = serde_json::from_str(line).unwrap();
        alert.incident = format!("i-{incident}");
        alert.account = format!("user{incident}@example.se");
        alert.id = format!("a-{incident}-{kind:?}");
        alert.kind = kind;
        alert
    }

    #[test]
    fn an_alert_counts_once_however_often_it_comes() {
        let mut book = Book::default();
        assert_eq!(book.take(alert(AlertKind::Flagged, 1), 10, "").records.len(), 2);
        assert_eq!(book.take(alert(AlertKind::Flagged, 1), 11, "").records, []);
        assert_eq!(book.take(alert(AlertKind::Escalated, 1), 12, "").records.len(), 2);
        assert_eq!((book.len(), book.open()), (1, 1));
        book.take(alert(AlertKind::Cleared, 1), 13, "");
        assert_eq!(book.take(alert(AlertKind::Cleared, 1), 14, "").records, []);
        assert_eq!(book.take(alert(AlertKind::Flagged, 1), 15, "").records, []);
        let incident = book.incident("i-1").unwrap();
        assert_eq!((incident.state, incident.updated_ms, incident.alerts.len()), (State::Over, 13, 3));
        assert_eq!(incident.alerts.iter().map(|s| s.n).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!((book.len(), book.open()), (1, 0));
    }

    #[test]
    fn what_was_written_is_the_book() {
        let (mut book, mut topic) = (Book::default(), Vec::new());
        for n in 0..50u32 {
            topic.extend(book.take(alert(AlertKind::Flagged, n), i64::from(n), "").records);
            if n % 3 == 0 {
                topic.extend(book.take(alert(AlertKind::Cleared, n), i64::from(n), "").records);
            }
        }
        topic.extend(book.forget(20, &|_| false).records);
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

    /// The keys of what is forgotten where nothing waits.
    fn forgotten(book: &mut Book, before_ms: i64) -> Vec<String> {
        book.forget(before_ms, &|_| false).records.iter().map(Record::key).collect()
    }

    #[test]
    fn what_waits_to_be_delivered_is_not_forgotten_even_where_there_is_too_much() {
        let mut book = Book::default();
        let all = INCIDENTS_MAX as u32 + 1_000;
        let stage = |n: u32| Stage { n: n.into(), id: format!("a-{n}"), kind: AlertKind::Cleared, ts: Timestamp(0) };
        let one = Incident::new(&alert(AlertKind::Cleared, 0), stage(0), 0);
        for n in 0..all {
            let (id, updated_ms) = (format!("i-{n}"), i64::from(n));
            let incident = Incident { id, updated_ms, alerts: vec![stage(n)], ..one.clone() };
            book.restore(Record::Incident(Box::new(incident)));
        }
        // Of every other old one something waits: of its incident, or of its alert.
        let waits: std::collections::HashSet<String> =
            (0..3_000).map(|n| format!("{}-{}", if n % 2 == 0 { "i" } else { "a" }, 2 * n)).collect();
        let gone = book.forget(500, &|id| waits.contains(id));
        assert_eq!((gone.early, book.len()), (750, INCIDENTS_MAX), "a quarter thousand was old");
        assert_eq!(gone.incidents.len(), 1_000);
        assert!((0..3_000).all(|n| book.incident(&format!("i-{}", 2 * n)).is_some()));
        assert!(gone.incidents.iter().all(|i| i.updated_ms < 2_000), "the oldest of the others went");
        // What has left waits no more.
        assert_eq!(book.forget(500, &|_| false).incidents.len(), 250);
    }

    #[test]
    fn what_goes_on_is_never_forgotten() {
        let mut book = Book::default();
        book.take(alert(AlertKind::Flagged, 1), 0, "");
        assert_eq!(forgotten(&mut book, i64::MAX), [""; 0]);
        book.take(alert(AlertKind::Cleared, 1), 5, "");
        // Another one has the highest number now.
        book.take(alert(AlertKind::Flagged, 2), 5, "");
        assert_eq!(forgotten(&mut book, 5), [""; 0]);
        assert_eq!(forgotten(&mut book, 6), ["alert/a-1-Flagged", "alert/a-1-Cleared", "incident/i-1"]);
        assert_eq!(book.len(), 1);
    }

    #[test]
    fn no_number_comes_twice_however_much_was_forgotten() {
        let mut book = Book::default();
        let mut topic = Vec::new();
        for n in 0..20 {
            topic.extend(book.take(alert(AlertKind::Flagged, n), 1, "").records);
            topic.extend(book.take(alert(AlertKind::Cleared, n), 2, "").records);
        }
        topic.extend(book.forget(i64::MAX, &|_| false).records);
        // As compaction leaves it.
        let mut left = std::collections::BTreeMap::new();
        for record in topic {
            match record {
                Record::Gone(key) => _ = left.remove(&key),
                record => _ = left.insert(record.key(), record),
            }
        }
        left.remove(ANOMALY);
        assert_eq!(left.len(), 3, "two alerts and their incident: {:?}", left.keys());
        let mut restored = Book::default();
        left.into_values().for_each(|record| restored.restore(record));
        let records = restored.take(alert(AlertKind::Flagged, 99), 3, "").records;
        assert!(records.iter().any(|r| matches!(r, Record::Alert(kept) if kept.n == 40)), "{records:?}");
    }
}
