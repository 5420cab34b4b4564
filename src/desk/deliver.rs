//! What the active desk has to deliver: which alerts go to which endpoint, in which message, and what is recorded of it. No I/O;
//! time and chance are arguments.

mod behind;
mod ended;
mod said;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::book::About;
use super::feedback::record::Word;
use super::index::query;
use super::notice::{NoticeKind, Said};
use super::record::{self, BEHIND, DELIVERY, GROUP, Record};
use super::webhook::body::{IncidentState, Message, What};
use super::webhook::digest::CLOCKS_MS;
use super::webhook::grouping::{self, Group, Grouping, Holds, News, Plan, Taken, Told, alerts_since};
use super::webhook::outbox::{Limits, NotAdded, Outbox};
use super::webhook::outcome::Outcome;
use super::webhook::record::{Attempt, Change, Delivery, DeliveryRecord, Last, State};
use super::webhook::settings::{Deliver, Endpoint, Facts, Format};
use super::webhook::sign::webhook_id;
use super::webhook::storm::incidents_of;
use crate::core::alert::{Alert, Severity};
use crate::directory::Facts as Customer;
pub use behind::Lost;
use ended::Complaints;
use said::{facts, incident, kind, news, severity};

/// Messages that wait at an endpoint; beyond them alerts wait in the desk topic until there is room.
pub const PENDING_MAX: usize = 10_000;
/// What a message is called that says who looks after an incident.
pub const ACKNOWLEDGED: &str = "incident.acknowledged";
/// What waits for an endpoint that is not configured is given up at this age, in milliseconds: while a new configuration is rolled
/// out, a desk that has the old one may be active for a time.
const ASTRAY_MS: i64 = 3_600_000;
/// An alert makes at most so many messages at an endpoint.
const ROOM: usize = 4;

/// What is to be delivered, and to whom.
#[derive(Debug)]
pub struct Deliveries {
    endpoints: Vec<Endpoint>,
    /// Where people see more, a URL; empty: nowhere.
    link: String,
    outbox: Outbox,
    grouping: Grouping,
    /// By endpoint and webhook id, what the messages that wait are made of.
    groups: HashMap<(String, String), Group>,
    /// Alerts that messages which wait are made of, and how many such messages.
    alerts: HashMap<String, (Arc<Said>, usize)>,
    /// What the topic has, while it is being read.
    restoring: HashMap<(String, String), DeliveryRecord>,
    /// What was delivered or is dead, by when.
    finished: BTreeSet<(i64, String, String)>,
    /// What waits for endpoints that are not configured.
    astray: Vec<DeliveryRecord>,
    /// By endpoint at which too much waits, the number of the first alert that no message for it was made of. From there on it gets
    /// everything by [`Deliveries::catch_up`], so that the order stays.
    behind: BTreeMap<String, u64>,
    complaints: Complaints,
}

impl Deliveries {
    /// With nothing to do yet.
    pub fn new(endpoints: &[Endpoint], link: &str) -> Self {
        let limits = Limits { pending_max: PENDING_MAX, ..Limits::default() };
        Self {
            endpoints: endpoints.to_vec(),
            link: link.trim_end_matches('/').to_owned(),
            outbox: Outbox::new(endpoints, limits),
            grouping: Grouping::default(),
            groups: HashMap::new(),
            alerts: HashMap::new(),
            restoring: HashMap::new(),
            finished: BTreeSet::new(),
            astray: Vec::new(),
            behind: BTreeMap::new(),
            complaints: Complaints::default(),
        }
    }

    /// Takes in what the topic has. When all of it is in, [`Deliveries::restored`].
    pub fn restore(&mut self, record: &Record) {
        match record {
            Record::Delivery(r) => {
                self.restoring.insert((r.endpoint.clone(), r.id.clone()), (**r).clone());
            }
            Record::Group(group) => {
                self.groups.insert((group.endpoint.clone(), group.id.clone()), (**group).clone());
            }
            Record::Endpoint(record) => self.outbox.restore_endpoint(record),
            Record::Behind(record) => _ = self.behind.insert(record.endpoint.clone(), record.from),
            Record::Gone(key) => {
                let of = |prefix| key.strip_prefix(prefix).and_then(|k| k.split_once('/'));
                let owned = |(endpoint, id): (&str, &str)| (endpoint.to_owned(), id.to_owned());
                if let Some(key) = of(DELIVERY) {
                    self.restoring.remove(&owned(key));
                } else if let Some(key) = of(GROUP) {
                    self.groups.remove(&owned(key));
                } else if let Some(endpoint) = key.strip_prefix(BEHIND) {
                    self.behind.remove(endpoint);
                }
            }
            _ => {}
        }
    }

    /// Everything is in. Returns the ids of the alerts that messages which wait are made of, and of how many such messages: to be
    /// given back with [`Deliveries::give`].
    pub fn restored(&mut self, now_ms: i64) -> HashMap<String, usize> {
        let mut unknown = BTreeMap::<String, usize>::new();
        for (key, record) in std::mem::take(&mut self.restoring) {
            if record.state == State::Pending {
                if self.outbox.restore(record.clone()) {
                    continue;
                }
                *unknown.entry(key.0.clone()).or_default() += 1;
                self.astray.push(record);
            } else {
                let finished_ms = record.last.as_ref().map_or(record.created_ms, |l| l.at_ms);
                self.finished.insert((finished_ms, record.endpoint, record.id));
            }
            self.groups.remove(&key);
        }
        for (endpoint, messages) in unknown {
            tracing::warn!(
                endpoint,
                messages,
                "messages wait for an endpoint that is configured no more: they are not sent, and given up after an hour"
            );
        }
        for group in self.groups.values().filter(|group| matches!(group.holds, Holds::Digest(_) | Holds::Row(_))) {
            if self.outbox.reopen(&group.endpoint, &group.id, now_ms.saturating_add(CLOCKS_MS)) {
                self.grouping.restore(group);
            }
        }
        let mut wanting = HashMap::new();
        for id in self.groups.values().flat_map(alerts_of) {
            *wanting.entry(id.clone()).or_default() += 1;
        }
        wanting
    }

    /// Gives back an alert that was asked for, with the number of messages.
    pub fn give(&mut self, said: Said, messages: usize) {
        self.alerts.insert(said.id().to_owned(), (Arc::new(said), messages));
    }

    /// Takes an alert with its number. `told` is what each endpoint knows of its incident, and learns of it. Returns what must be
    /// recorded before anything is sent. Endpoints at which too much waits fall behind; the others do not wait for them.
    pub fn take(
        &mut self,
        said: &Arc<Said>,
        n: u64,
        about: &About,
        told: &mut BTreeMap<String, Told>,
        now_ms: i64,
    ) -> Vec<Record> {
        let mut records = Vec::new();
        for i in 0..self.endpoints.len() {
            let name = &self.endpoints[i].name;
            if self.behind.contains_key(name) || !self.wants(i, said, about, told) {
                continue;
            }
            if self.is_full(name) {
                let name = name.clone();
                records.push(self.falls_behind(&name, n));
            } else {
                records.extend(self.offer(i, said, n, about, told, now_ms));
            }
        }
        records
    }

    fn wants(&self, i: usize, said: &Said, about: &About, told: &BTreeMap<String, Told>) -> bool {
        let endpoint = &self.endpoints[i];
        let knows = told.get(&endpoint.name).is_some_and(|t| *t != Told::Nothing);
        let tenants: Vec<&str> = about.tenants.iter().map(String::as_str).collect();
        endpoint.wants(&facts(said, &kind(said), &tenants), knows)
    }

    /// Makes an alert into a message of an endpoint, or part of one.
    fn offer(
        &mut self,
        i: usize,
        said: &Arc<Said>,
        n: u64,
        about: &About,
        told: &mut BTreeMap<String, Told>,
        now_ms: i64,
    ) -> Vec<Record> {
        let mut records = Vec::new();
        let endpoint = &self.endpoints[i];
        let knows = told.get(&endpoint.name).copied().unwrap_or(Told::Nothing);
        let (name, deliver) = (endpoint.name.clone(), endpoint.deliver);
        let not_before_ms = endpoint.not_before_ms(severity(said), now_ms);
        let kind = kind(said);
        let tenant = about.tenants.first().filter(|_| matches!(**said, Said::Account(_))).map_or("", |t| t);
        let anomaly = about.anomaly.as_deref();
        let per_minute = endpoint.begins_per_minute();
        let news = News { anomaly, tenant, per_minute, ..news(said, &name, &kind, n, knows, not_before_ms) };
        let plans = match deliver {
            Deliver::Every => {
                let delivery = grouping::every(&news, now_ms);
                let holds = Holds::Incident { incident: news.incident.to_owned(), alerts: vec![news.alert.to_owned()] };
                let group = Group { v: 1, endpoint: name.clone(), id: delivery.id.clone(), holds };
                vec![Plan::New { delivery, group }]
            }
            Deliver::Grouped => self.grouping.add(&news, now_ms, &self.outbox),
            Deliver::Digest => vec![self.grouping.digest(&news, now_ms, &self.outbox)],
        };
        let message = plans.first().map(|(Plan::New { group, .. } | Plan::Folded { group, .. })| group);
        told.insert(name, message.map_or(knows, |group| group.tells(knows)));
        for plan in plans {
            let (delivery, group) = match plan {
                Plan::New { delivery, group } => (Some(delivery), group),
                Plan::Folded { group, not_before_ms } => {
                    let changed = self.outbox.hasten(&group.endpoint, &group.id, not_before_ms);
                    records.extend(changed.map(|r| Record::Delivery(Box::new(r))));
                    (None, group)
                }
            };
            self.hold(&group, said);
            if let Some(delivery) = delivery {
                records.push(Record::Delivery(Box::new(self.add(delivery))));
            }
            records.push(Record::Group(Box::new(group)));
        }
        records
    }

    /// Tells everybody who has had a message of an incident that somebody looks after it. Returns what must be recorded.
    pub fn acknowledged(&mut self, incident: &record::Incident, word: &Word, now_ms: i64) -> Vec<Record> {
        let mut records = Vec::new();
        for i in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[i];
            let (tenants, pattern) = ([&*incident.tenant], Some(incident.pattern));
            let facts = Facts { kind: ACKNOWLEDGED, severity: incident.severity, tenants: &tenants, pattern };
            let knows = incident.told.get(&endpoint.name) == Some(&Told::Itself);
            // An alert manager knows alerts, not who looks after them.
            if !knows || endpoint.format == Format::Alertmanager || !endpoint.wants(&facts, true) {
                continue;
            }
            let delivery = Delivery {
                endpoint: endpoint.name.clone(),
                id: webhook_id(&endpoint.name, &format!("acknowledged {}", incident.id)),
                incident: incident.id.clone(),
                seq: incident.alerts.last().map_or(0, |s| s.n),
                created_ms: now_ms,
                not_before_ms: endpoint.not_before_ms(incident.severity, now_ms),
            };
            let taken = Taken {
                incident: incident.id.clone(),
                account: incident.account.clone(),
                tenant: incident.tenant.clone(),
                severity: incident.severity,
                by: word.by.clone(),
                at: word.at,
                note: word.note.clone(),
            };
            let group = Group {
                v: 1,
                endpoint: delivery.endpoint.clone(),
                id: delivery.id.clone(),
                holds: Holds::Taken(taken),
            };
            self.groups.insert((group.endpoint.clone(), group.id.clone()), group.clone());
            records.push(Record::Delivery(Box::new(self.add(delivery))));
            records.push(Record::Group(Box::new(group)));
        }
        records
    }

    fn add(&mut self, delivery: Delivery) -> DeliveryRecord {
        let record = DeliveryRecord::new(&delivery);
        if let Err(NotAdded::Full { .. }) = self.outbox.add(delivery) {
            // The caller has looked for room; what comes through all the same is bounded by what one alert makes.
            self.outbox.restore(record.clone());
        }
        record
    }

    /// Holds on to what a message is made of: `said` is part of it by now.
    fn hold(&mut self, group: &Group, said: &Arc<Said>) {
        let key = (group.endpoint.clone(), group.id.clone());
        let before = self.groups.insert(key, group.clone());
        // What it held, and holds no more.
        for id in before.iter().flat_map(alerts_of).filter(|id| !alerts_of(group).any(|now| now == *id)) {
            self.let_go(id);
        }
        if alerts_of(group).any(|id| id == said.id()) {
            let held = self.alerts.entry(said.id().to_owned()).or_insert_with(|| (Arc::clone(said), 0));
            held.1 += 1;
        }
    }

    fn let_go(&mut self, id: &str) {
        if let Some((_, users)) = self.alerts.get_mut(id) {
            *users = users.saturating_sub(1);
            if *users == 0 {
                self.alerts.remove(id);
            }
        }
    }

    /// What to send now; `customer` says what the directory said of an incident. Everything that was returned before must be
    /// recorded.
    pub fn due(&mut self, now_ms: i64, customer: &dyn Fn(&str) -> Option<Box<Customer>>) -> Vec<(Attempt, Message)> {
        let attempts = self.outbox.due(now_ms);
        attempts
            .into_iter()
            .map(|attempt| {
                let mut message = self.message(&attempt);
                message.customer = customer(&attempt.incident);
                if let (Some(tenant), What::Incident(incident)) =
                    (message.customer.as_ref().and_then(|c| c.tenant.clone()), &mut message.what)
                {
                    incident.tenant = tenant;
                }
                (attempt, message)
            })
            .collect()
    }

    /// Takes how an attempt ended. Returns what must be recorded.
    pub fn done(&mut self, attempt: u64, outcome: &Outcome, now_ms: i64, rng: &mut dyn FnMut() -> u64) -> Vec<Record> {
        let changes = self.outbox.done(attempt, outcome, now_ms, rng);
        self.recorded(changes, now_ms)
    }

    /// Gives up what is too old. Returns what must be recorded.
    pub fn expire(&mut self, now_ms: i64) -> Vec<Record> {
        let changes = self.outbox.expire(now_ms);
        self.recorded(changes, now_ms)
    }

    /// Holds what waits for an endpoint whose receiver has answered a heartbeat with 410. Returns what must be recorded.
    pub fn disable(&mut self, endpoint: &str, now_ms: i64) -> Vec<Record> {
        let change = self.outbox.disable(endpoint, now_ms);
        self.recorded(change.into_iter().collect(), now_ms)
    }

    /// Whether the receiver of an endpoint wants nothing (410).
    pub fn is_disabled(&self, endpoint: &str) -> bool {
        self.outbox.health(endpoint).is_some_and(|h| h.disabled_ms.is_some())
    }

    /// Enables an endpoint again that had said 410. Empty where it was enabled, `None` where there is none.
    pub fn enable(&mut self, endpoint: &str, now_ms: i64) -> Option<Vec<Record>> {
        self.outbox.health(endpoint)?;
        let changes = self.outbox.enable(endpoint, now_ms);
        Some(self.recorded(changes, now_ms))
    }

    /// Sends a message again. Returns what must be recorded; `None` where there is no such endpoint, or it is under way.
    pub fn resend(&mut self, message: query::Message, now_ms: i64) -> Option<Vec<Record>> {
        let query::Message { delivery, group, alerts } = message;
        let finished_ms = delivery.last.as_ref().map_or(delivery.created_ms, |l| l.at_ms);
        let key = (finished_ms, delivery.endpoint.clone(), delivery.id.clone());
        let change = self.outbox.resend(delivery, now_ms)?;
        self.finished.remove(&key);
        // Of one that waits it is held already.
        if !self.groups.contains_key(&(group.endpoint.clone(), group.id.clone())) {
            for said in alerts {
                self.hold(&group, &Arc::new(said));
            }
            // Not all have alerts to hold.
            self.groups.insert((group.endpoint.clone(), group.id.clone()), group);
        }
        Some(self.recorded(vec![change], now_ms))
    }

    /// Forgets what was finished before, and gives up what waits for endpoints that are not configured. Returns what must be recorded.
    pub fn forget(&mut self, before_ms: i64, now_ms: i64) -> Vec<Record> {
        let is_lost = |r: &mut DeliveryRecord| r.created_ms <= now_ms.saturating_sub(ASTRAY_MS);
        let mut changes = Vec::new();
        for mut record in self.astray.extract_if(.., is_lost) {
            let status = record.last.as_ref().and_then(|l| l.status);
            let error = Some("the endpoint is not configured any more".to_owned());
            (record.state, record.last) = (State::Dead, Some(Last { at_ms: now_ms, status, error }));
            changes.push(Change::Dead(record));
        }
        let mut records = self.recorded(changes, now_ms);
        while self.finished.first().is_some_and(|(at_ms, ..)| *at_ms < before_ms) {
            let Some((_, endpoint, id)) = self.finished.pop_first() else { break };
            for prefix in [DELIVERY, GROUP] {
                records.push(Record::Gone(format!("{prefix}{endpoint}/{id}")));
            }
        }
        records
    }

    /// Ids of the incidents and alerts of which something waits. Without them whoever takes over could not say what was to be said.
    pub fn needs(&self) -> HashSet<&str> {
        let incidents = self.groups.values().filter_map(|group| match &group.holds {
            Holds::Incident { incident, .. } => Some(&**incident),
            Holds::Taken(taken) => Some(&*taken.incident),
            // These hold all that they say.
            Holds::Storm(_) | Holds::Row(_) | Holds::Digest(_) => None,
        });
        let astray = self.astray.iter().map(|r| &*r.incident);
        incidents.chain(astray).chain(self.alerts.keys().map(String::as_str)).collect()
    }

    /// When there is something to do without an attempt having ended.
    pub fn next_ms(&self) -> Option<i64> {
        self.outbox.next_ms()
    }

    /// The endpoints.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Everything that waits.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The message of an attempt: of the same group always the same.
    fn message(&self, attempt: &Attempt) -> Message {
        let group = self.groups.get(&(attempt.endpoint.clone(), attempt.id.clone()));
        let is_every = self.endpoints.iter().any(|e| e.name == attempt.endpoint && e.deliver == Deliver::Every);
        let parts: Vec<&Said> = group
            .iter()
            .flat_map(|g| alerts_of(g))
            .filter_map(|id| self.alerts.get(id).map(|(said, _)| &**said))
            .collect();
        let accounts: Vec<&Alert> = parts
            .iter()
            .filter_map(|said| match said {
                Said::Account(alert) => Some(&**alert),
                Said::Fleet(_) => None,
            })
            .collect();
        let id = attempt.id.clone();
        match (group.map(|g| &g.holds), parts.last()) {
            (Some(Holds::Storm(storm)), _) => Message {
                id,
                kind: "storm".to_owned(),
                at: storm.last_ts,
                severity: storm.severity(),
                incident: storm.row.incident.clone(),
                link: if self.link.is_empty() { String::new() } else { storm.link(&self.link) },
                customer: None,
                what: What::Storm(storm.clone()),
            },
            (Some(Holds::Row(row)), _) => Message {
                id,
                kind: "storm.over".to_owned(),
                at: row.last_ts,
                severity: row.severity(),
                incident: row.incident.clone(),
                link: if self.link.is_empty() { String::new() } else { row.link(&self.link) },
                customer: None,
                what: What::StormOver(Box::new(row.clone())),
            },
            (Some(Holds::Digest(digest)), _) => Message {
                id,
                kind: "digest".to_owned(),
                at: digest.due,
                severity: digest.severity,
                incident: digest.incident(),
                link: if self.link.is_empty() { String::new() } else { alerts_since(&self.link, digest.first_seq) },
                customer: None,
                what: What::Digest(Box::new(digest.clone())),
            },
            (Some(Holds::Taken(taken)), _) => Message {
                id,
                kind: ACKNOWLEDGED.to_owned(),
                at: taken.at,
                severity: taken.severity,
                incident: taken.incident.clone(),
                link: self.link_to(&taken.incident),
                customer: None,
                what: What::Other {
                    summary: taken.summary(),
                    state: IncidentState::Acknowledged,
                    data: serde_json::to_value(taken).unwrap_or_default(),
                },
            },
            (_, Some(Said::Account(last))) => Message {
                id,
                kind: kind(parts[parts.len() - 1]),
                at: last.ts,
                severity: accounts.iter().map(|a| a.severity).max().unwrap_or(last.severity),
                incident: last.incident.clone(),
                link: self.link_to(&last.incident),
                customer: None,
                what: if is_every {
                    What::Alert(last.clone())
                } else {
                    What::Incident(Box::new(incident(last, &accounts)))
                },
            },
            (_, Some(Said::Fleet(notice))) => Message {
                id,
                kind: kind(parts[parts.len() - 1]),
                at: notice.ts,
                severity: notice.severity,
                incident: notice.thread().to_owned(),
                link: match notice.kind {
                    _ if self.link.is_empty() => String::new(),
                    NoticeKind::Campaign => incidents_of(&self.link, "campaign", &notice.incident),
                    // No change of the stream: a hook fails.
                    NoticeKind::Anomaly if notice.evidence.iter().any(|r| r.signal == "hook") => {
                        format!("{}/v1/measures", self.link)
                    }
                    NoticeKind::Anomaly => incidents_of(&self.link, "anomaly", &notice.incident),
                    NoticeKind::Listed | NoticeKind::Delisted => format!("{}/v1/listings?standing=true", self.link),
                    _ => format!("{}/v1/measures?open=true", self.link),
                },
                customer: None,
                what: What::Other {
                    summary: notice.evidence.first().map(|r| r.text.clone()).unwrap_or_default(),
                    state: match notice.kind {
                        NoticeKind::Released | NoticeKind::Restore | NoticeKind::Delisted => IncidentState::Cleared,
                        _ => IncidentState::Open,
                    },
                    data: serde_json::to_value(notice).unwrap_or_default(),
                },
            },
            // Its alert is not in the topic, as where somebody else has written there: that it was can still be said.
            (_, None) => Message {
                id,
                kind: "account.flagged".to_owned(),
                at: crate::event::Timestamp(0),
                severity: Severity::Critical,
                incident: attempt.incident.clone(),
                link: self.link_to(&attempt.incident),
                customer: None,
                what: What::Other {
                    summary: format!("incident {}: its alerts are not stored any more", attempt.incident),
                    state: IncidentState::Open,
                    data: serde_json::Value::Null,
                },
            },
        }
    }

    fn link_to(&self, incident: &str) -> String {
        if self.link.is_empty() { String::new() } else { format!("{}/v1/incidents/{incident}", self.link) }
    }
}

fn alerts_of(group: &Group) -> std::slice::Iter<'_, String> {
    match &group.holds {
        Holds::Incident { alerts, .. } => alerts.iter(),
        Holds::Storm(_) | Holds::Row(_) | Holds::Digest(_) | Holds::Taken(_) => [].iter(),
    }
}
