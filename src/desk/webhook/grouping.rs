//! What makes a message at a `grouped` endpoint, so that a bad hour is read and not drowned in.
//!
//! * An incident has one message while that waits: further alerts of the incident are folded into it. Once an attempt has begun
//!   the message stays as it is, and the next alert makes a further one.
//! * No more than [`Limits::per_minute`] (M) messages begin an incident within a minute, and no more wait. Further incidents are
//!   folded into one storm message, with counts, the accounts that send most and a link to all alerts. A storm is gathered for
//!   [`GATHER_MS`] before it is sent, and one follows another after [`STORM_MS`] at the earliest.
//!
//! The bound: in any T seconds at most (M + 1) · (⌊T / 60⌋ + 1) messages begin something, however many alerts come; besides them
//! there is at most one message for each further alert of an incident that has a message of its own.
//!
//! A `digest` endpoint has one message a day, into which everything is folded ([`super::digest`]).
//!
//! Groups are recorded (JSON) before the outbox is asked for what is due. What was restored is not folded into any more, but for
//! a digest that is not due yet ([`Grouping::restore`]).

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::core::alert::Severity;
use crate::event::Timestamp;

use super::digest::{DIGEST_LANE, Digest};
use super::outbox::Outbox;
use super::record::Delivery;
use super::sign::webhook_id;

/// The incident of every storm: they are sent in order, and refer to each other.
pub const STORM_LANE: &str = "mailfuse-storm";
/// How long a storm is gathered, in milliseconds.
pub const GATHER_MS: i64 = 10_000;
/// From one storm to the next, in milliseconds.
pub const STORM_MS: i64 = 60_000;
/// Accounts that a storm names.
pub const TOP_MAX: usize = 10;
/// Kinds that a storm or a digest counts by name; further ones are `other`.
pub(super) const KINDS_MAX: usize = 32;
/// Alerts of an incident that its message holds, the newest.
const ALERTS_MAX: usize = 16;
const MINUTE_MS: i64 = 60_000;

/// Bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Incidents that get a message of their own, at an endpoint within a minute, and waiting at one time.
    pub per_minute: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_minute: 20 }
    }
}

/// What an endpoint knows of an incident so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Nothing.
    Nothing,
    /// It was counted in a storm.
    InStorm,
    /// It began in the digest with this [`Digest::first_seq`].
    InDigest(u64),
    /// There was a message of its own.
    Itself,
}

/// An alert that an endpoint gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News<'a> {
    /// The endpoint's name.
    pub endpoint: &'a str,
    /// The alert's id.
    pub alert: &'a str,
    /// Its incident.
    pub incident: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// How bad.
    pub severity: Severity,
    /// The account; empty where it concerns none.
    pub account: &'a str,
    /// The customer; empty where it concerns none.
    pub tenant: &'a str,
    /// Recipients of the burst so far.
    pub recipients: u64,
    /// The alert's place among all, ascending: its offset.
    pub seq: u64,
    /// Its event time.
    pub at: Timestamp,
    /// What the endpoint knows of the incident.
    pub told: Told,
    /// [`super::settings::Endpoint::not_before_ms`].
    pub not_before_ms: i64,
}

/// What a message is made of, as it is recorded, JSON. The newest record of an `(endpoint, id)` counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Version of this shape: 1.
    pub v: u8,
    /// The endpoint's name.
    pub endpoint: String,
    /// The webhook id.
    pub id: String,
    /// What it holds.
    pub holds: Holds,
}

/// What a group holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Holds {
    /// Alerts of an incident by id, oldest first; at most 16, the newest.
    Incident {
        /// Which.
        incident: String,
        /// Ids.
        alerts: Vec<String>,
    },
    /// Many incidents.
    Storm(Storm),
    /// What happened in a day.
    Digest(Digest),
    /// Somebody looks after an incident.
    Taken(Taken),
}

/// Somebody looks after an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// Which.
    pub incident: String,
    /// Its account.
    pub account: String,
    /// The customer.
    pub tenant: String,
    /// How bad it is.
    pub severity: Severity,
    /// Who.
    pub by: String,
    /// Since when, by the desk's clock.
    pub at: Timestamp,
    /// What they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Taken {
    /// In a sentence.
    pub fn summary(&self) -> String {
        let note = self.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
        format!("{} looks after {}{note}", self.by, self.account)
    }
}

/// Many alerts in one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// Place of the first alert among all.
    pub first_seq: u64,
    /// Event time of the earliest.
    pub first_ts: Timestamp,
    /// Event time of the latest.
    pub last_ts: Timestamp,
    /// Alerts by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Alerts that are critical.
    pub critical: u64,
    /// Alerts that are warnings.
    pub warning: u64,
    /// Recipients, summed over the alerts.
    pub recipients: u64,
    /// The accounts that send most, most recipients first; at most [`TOP_MAX`].
    pub top: Vec<Top>,
}

/// An account of a storm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Top {
    /// The account.
    pub account: String,
    /// The customer.
    pub tenant: String,
    /// Its incident.
    pub incident: String,
    /// How bad.
    pub severity: Severity,
    /// Recipients of its burst.
    pub recipients: u64,
}

impl Storm {
    fn of(news: &News<'_>) -> Self {
        let mut storm = Self {
            first_seq: news.seq,
            first_ts: news.at,
            last_ts: news.at,
            kinds: BTreeMap::new(),
            critical: 0,
            warning: 0,
            recipients: 0,
            top: Vec::new(),
        };
        storm.count(news);
        storm
    }

    fn count(&mut self, news: &News<'_>) {
        self.first_seq = self.first_seq.min(news.seq);
        (self.first_ts, self.last_ts) = (self.first_ts.min(news.at), self.last_ts.max(news.at));
        let named = self.kinds.contains_key(news.kind) || self.kinds.len() < KINDS_MAX;
        *self.kinds.entry(if named { news.kind } else { "other" }.to_owned()).or_default() += 1;
        *match news.severity {
            Severity::Critical => &mut self.critical,
            Severity::Warning => &mut self.warning,
        } += 1;
        self.recipients = self.recipients.saturating_add(news.recipients);
        if news.account.is_empty() {
            return;
        }
        self.top.retain(|top| top.incident != news.incident);
        let place = self.top.partition_point(|top| top.recipients >= news.recipients);
        if place < TOP_MAX {
            let (account, tenant, incident) = (news.account.into(), news.tenant.into(), news.incident.into());
            let (severity, recipients) = (news.severity, news.recipients);
            self.top.insert(place, Top { account, tenant, incident, severity, recipients });
            self.top.truncate(TOP_MAX);
        }
    }

    /// How many alerts it holds.
    pub fn alerts(&self) -> u64 {
        self.critical + self.warning
    }

    /// The worst of them.
    pub fn severity(&self) -> Severity {
        if self.critical > 0 { Severity::Critical } else { Severity::Warning }
    }

    /// Where all of them are to be seen, on a server at `base`.
    pub fn link(&self, base: &str) -> String {
        alerts_since(base, self.first_seq)
    }
}

/// Where the alerts from a place on are to be seen, on a server at `base`.
pub fn alerts_since(base: &str, first_seq: u64) -> String {
    let base = base.trim_end_matches('/');
    match first_seq.checked_sub(1) {
        Some(after) => format!("{base}/v1/alerts?after={after}"),
        None => format!("{base}/v1/alerts"),
    }
}

impl Group {
    /// What an endpoint knows of an incident with this message, where it knew `before`.
    pub fn tells(&self, before: Told) -> Told {
        match (&self.holds, before) {
            (Holds::Incident { .. } | Holds::Taken(_), _) => Told::Itself,
            (Holds::Storm(_), Told::Itself) => Told::Itself,
            (Holds::Storm(_), _) => Told::InStorm,
            (Holds::Digest(digest), Told::Nothing) => Told::InDigest(digest.first_seq),
            (Holds::Digest(_), before) => before,
        }
    }
}

/// What becomes of an alert at a grouped endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// A new message: record both, and add the delivery to the outbox before the next alert comes. Where the outbox is full, add
    /// it once something has left; what comes meanwhile is then a message of its own.
    New {
        /// The delivery.
        delivery: Delivery,
        /// Its message.
        group: Group,
    },
    /// A message that waits has grown: record it, and call [`Outbox::hasten`] for its id.
    Folded {
        /// The message.
        group: Group,
        /// Not to be sent later than so, in Unix milliseconds.
        not_before_ms: i64,
    },
}

/// The delivery of an alert by itself, as an `every` endpoint gets it.
pub fn every(news: &News<'_>, now_ms: i64) -> Delivery {
    Delivery {
        endpoint: news.endpoint.to_owned(),
        id: webhook_id(news.endpoint, news.alert),
        incident: news.incident.to_owned(),
        seq: news.seq,
        created_ms: now_ms,
        not_before_ms: news.not_before_ms,
    }
}

#[derive(Debug, Default)]
struct Line {
    /// By incident, messages that begin one and may still change; at most as many as a minute may have.
    begun: BTreeMap<String, Group>,
    /// The same of further messages of incidents, with some that may no longer change.
    further: BTreeMap<String, Group>,
    /// At how many further ones to look for those that may no longer change.
    sweep_at: usize,
    /// When the last messages that begin an incident were made; at most as many as a minute may have.
    begun_ms: VecDeque<i64>,
    storm: Option<Group>,
    digest: Option<Group>,
    /// When the open storm has been gathered.
    gathered_ms: i64,
    next_storm_ms: i64,
}

/// What waits at grouped endpoints and may still change.
#[derive(Debug, Default)]
pub struct Grouping {
    limits: Limits,
    lines: BTreeMap<String, Line>,
}

impl Grouping {
    /// One that knows of nothing.
    pub fn new(limits: Limits) -> Self {
        Self { limits, lines: BTreeMap::new() }
    }

    /// Decides what becomes of an alert. `now_ms`: Unix milliseconds; `outbox`: the one that its deliveries are in.
    pub fn add(&mut self, news: &News<'_>, now_ms: i64, outbox: &Outbox) -> Plan {
        let limit = self.limits.per_minute;
        let line = self.lines.entry(news.endpoint.to_owned()).or_default();
        line.forget(|group| outbox.is_open(news.endpoint, &group.id));
        let open = line.begun.get_mut(news.incident).or_else(|| line.further.get_mut(news.incident));
        if let Some(group) = open.filter(|group| outbox.is_open(news.endpoint, &group.id)) {
            if let Holds::Incident { alerts, .. } = &mut group.holds
                && !alerts.iter().any(|id| id == news.alert)
            {
                alerts.push(news.alert.to_owned());
                alerts.drain(..alerts.len().saturating_sub(ALERTS_MAX));
            }
            return Plan::Folded { group: group.clone(), not_before_ms: news.not_before_ms };
        }
        let ends_unnoticed = news.told == Told::InStorm && news.kind == "account.cleared";
        if news.told == Told::Itself || (!ends_unnoticed && line.may_begin(now_ms, limit)) {
            return line.say(news, now_ms);
        }
        line.storm(news, now_ms)
    }

    /// Decides what becomes of an alert at an endpoint that wants digests: [`News::not_before_ms`] is when the next one is due.
    pub fn digest(&mut self, news: &News<'_>, now_ms: i64, outbox: &Outbox) -> Plan {
        let line = self.lines.entry(news.endpoint.to_owned()).or_default();
        line.digest = line.digest.take().filter(|group| outbox.is_open(news.endpoint, &group.id));
        if let Some(group) = &mut line.digest
            && let Holds::Digest(digest) = &mut group.holds
        {
            digest.count(news);
            // Where the hour was changed, the one that waits keeps its own.
            let not_before_ms = digest.due.0;
            return Plan::Folded { group: group.clone(), not_before_ms };
        }
        let delivery = Delivery {
            id: webhook_id(news.endpoint, &format!("digest {}", news.alert)),
            incident: DIGEST_LANE.to_owned(),
            ..every(news, now_ms)
        };
        let holds = Holds::Digest(Digest::of(news));
        let group = Group { v: 1, endpoint: delivery.endpoint.clone(), id: delivery.id.clone(), holds };
        line.digest = Some(group.clone());
        Plan::New { delivery, group }
    }

    /// Takes back a digest that was recorded before a restart and that the outbox has opened again.
    pub fn restore(&mut self, group: &Group) {
        if matches!(group.holds, Holds::Digest(_)) {
            self.lines.entry(group.endpoint.clone()).or_default().digest = Some(group.clone());
        }
    }
}

impl Line {
    /// Whether an incident may have a message of its own.
    fn may_begin(&mut self, now_ms: i64, limit: usize) -> bool {
        while self.begun_ms.front().is_some_and(|&at| now_ms.saturating_sub(at) >= MINUTE_MS) {
            self.begun_ms.pop_front();
        }
        self.begun_ms.len() < limit && self.begun.len() < limit
    }

    /// Lets go of what may no longer change. Of further ones only now and then: there may be as many as incidents are open.
    fn forget(&mut self, is_open: impl Fn(&Group) -> bool) {
        self.begun.retain(|_, group| is_open(group));
        self.storm = self.storm.take().filter(|group| is_open(group));
        if self.further.len() >= self.sweep_at {
            self.further.retain(|_, group| is_open(group));
            self.sweep_at = 2 * self.further.len() + 64;
        }
    }

    /// A message of its own.
    fn say(&mut self, news: &News<'_>, now_ms: i64) -> Plan {
        let delivery = every(news, now_ms);
        let holds = Holds::Incident { incident: news.incident.to_owned(), alerts: vec![news.alert.to_owned()] };
        let group = Group { v: 1, endpoint: delivery.endpoint.clone(), id: delivery.id.clone(), holds };
        if news.told == Told::Itself {
            self.further.insert(news.incident.to_owned(), group.clone());
        } else {
            self.begun_ms.push_back(now_ms);
            self.begun.insert(news.incident.to_owned(), group.clone());
        }
        Plan::New { delivery, group }
    }

    fn storm(&mut self, news: &News<'_>, now_ms: i64) -> Plan {
        if let Some(group) = &mut self.storm
            && let Holds::Storm(storm) = &mut group.holds
        {
            storm.count(news);
            return Plan::Folded { group: group.clone(), not_before_ms: news.not_before_ms.max(self.gathered_ms) };
        }
        self.gathered_ms = now_ms.saturating_add(GATHER_MS).max(self.next_storm_ms);
        self.next_storm_ms = self.gathered_ms.saturating_add(STORM_MS);
        let delivery = Delivery {
            id: webhook_id(news.endpoint, &format!("storm {}", news.alert)),
            incident: STORM_LANE.to_owned(),
            not_before_ms: news.not_before_ms.max(self.gathered_ms),
            ..every(news, now_ms)
        };
        let holds = Holds::Storm(Storm::of(news));
        let group = Group { v: 1, endpoint: delivery.endpoint.clone(), id: delivery.id.clone(), holds };
        self.storm = Some(group.clone());
        Plan::New { delivery, group }
    }
}
