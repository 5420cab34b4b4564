//! What makes a message at a `grouped` endpoint, so that a bad hour is read and not drowned in.
//!
//! * An incident has one message while that waits: further alerts of the incident are folded into it. Once an attempt has begun
//!   the message stays as it is, and the next alert makes a further one.
//! * No more than [`News::per_minute`] (M) messages begin an incident within a minute, and no more wait. Further incidents are
//!   folded into one storm message, with counts, the worst accounts and a link to all alerts. A storm is gathered for
//!   [`GATHER_MS`] before it is sent, and one follows another after [`STORM_MS`] at the earliest.
//! * In an anomaly of the stream an incident that nobody was told of has no message of its own: after the anomaly itself its
//!   alerts are told by storms of the anomaly, each gathered for [`ANOMALY_MS`]. So a hijack that has nothing to do with the
//!   anomaly is counted, named where it is among the worst, and behind the link, ten minutes late at most. To be told of each
//!   at once is what `every` endpoints are for.
//! * What was told in storms ends with their row ([`super::storm`]): an end by itself is no message, and never a new storm's cause
//!   to wake somebody.
//!
//! The bound: in any T seconds at most (M + 1) · (⌊T / 60⌋ + 1) messages begin something, however many alerts come, and as many
//! rows end as begin; besides them there is at most one message for each further alert of an incident that has a message of its
//! own.
//!
//! A `digest` endpoint has one message a day, into which everything is folded ([`super::digest`]).
//!
//! Groups are recorded (JSON) before the outbox is asked for what is due. What was restored is not folded into any more, but for
//! a digest and a row's end that are not due yet ([`Grouping::restore`]).

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::core::alert::Severity;
use crate::event::Timestamp;

use super::digest::{DIGEST_LANE, Digest};
use super::outbox::Outbox;
use super::record::Delivery;
use super::sign::webhook_id;
use super::storm::{Row, Storm};

/// How long a storm is gathered, in milliseconds.
pub const GATHER_MS: i64 = 10_000;
/// From one storm to the next, in milliseconds.
pub const STORM_MS: i64 = 60_000;
/// How long what happens in an anomaly is gathered, in milliseconds.
pub const ANOMALY_MS: i64 = 600_000;
/// What is done to an account, as the desk tells it: it comes behind what is told of the incident, and is a message of its own. Of an
/// incident that was told in a storm a stop is counted in storms, and that it ends is no message.
const DONE: [&str; 2] = ["account.stopped", RELEASED];
const RELEASED: &str = "account.released";

/// The kind of an incident's end.
pub(super) const CLEARED: &str = "account.cleared";
/// A row's end comes behind all its storms.
const END_SEQ: u64 = (1 << 53) - 1;
/// Accounts that a storm names.
pub const TOP_MAX: usize = 10;
/// Kinds that a storm or a digest counts by name; further ones are `other`.
pub(super) const KINDS_MAX: usize = 32;
/// Alerts of an incident that its message holds, the newest.
const ALERTS_MAX: usize = 16;
const MINUTE_MS: i64 = 60_000;

/// What an endpoint knows of an incident so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// Nothing.
    Nothing,
    /// It was counted in storms of the row with this [`Row::number`].
    InStorm(u64),
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
    /// The anomaly that its incident was flagged in.
    pub anomaly: Option<&'a str>,
    /// [`super::settings::Endpoint::not_before_ms`].
    pub not_before_ms: i64,
    /// [`super::settings::Endpoint::begins_per_minute`].
    pub per_minute: usize,
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
    Storm(Box<Storm>),
    /// The end of many.
    Row(Row),
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
            (Holds::Storm(storm), _) => Told::InStorm(storm.row.number),
            (Holds::Digest(digest), Told::Nothing) => Told::InDigest(digest.first_seq),
            (Holds::Digest(_) | Holds::Row(_), before) => before,
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

/// Whether something was done to an account that is told already: it is counted, and makes nothing worse.
pub(super) fn is_done(kind: &str) -> bool {
    DONE.contains(&kind)
}

/// A message of one alert.
fn alone(news: &News<'_>, now_ms: i64) -> (Delivery, Group) {
    let delivery = every(news, now_ms);
    let holds = Holds::Incident { incident: news.incident.to_owned(), alerts: vec![news.alert.to_owned()] };
    let group = Group { v: 1, endpoint: delivery.endpoint.clone(), id: delivery.id.clone(), holds };
    (delivery, group)
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
    storm: Gathering,
    /// The same of an anomaly.
    anomaly: Gathering,
    /// By number, the ends of rows that wait.
    rows: BTreeMap<u64, Group>,
    digest: Option<Group>,
}

/// A storm that is gathered.
#[derive(Debug, Default)]
struct Gathering {
    group: Option<Group>,
    /// When it has been gathered.
    until_ms: i64,
    /// When the next one may be, at the earliest.
    next_ms: i64,
}

/// What waits at grouped endpoints and may still change.
#[derive(Debug, Default)]
pub struct Grouping {
    lines: BTreeMap<String, Line>,
}

impl Grouping {
    /// Decides what becomes of an alert: its message comes first, then what else changes with it. `now_ms`: Unix milliseconds;
    /// `outbox`: the one that its deliveries are in.
    pub fn add(&mut self, news: &News<'_>, now_ms: i64, outbox: &Outbox) -> Vec<Plan> {
        let line = self.lines.entry(news.endpoint.to_owned()).or_default();
        line.forget(|group| outbox.is_open(news.endpoint, &group.id));
        if is_done(news.kind) {
            return match (news.told, news.kind == RELEASED) {
                (Told::InStorm(_), true) => Vec::new(),
                (Told::InStorm(_), false) => line.storm(news, now_ms),
                _ => {
                    let (delivery, group) = alone(news, now_ms);
                    vec![Plan::New { delivery, group }]
                }
            };
        }
        let open = line.begun.get_mut(news.incident).or_else(|| line.further.get_mut(news.incident));
        if let Some(group) = open.filter(|group| outbox.is_open(news.endpoint, &group.id)) {
            if let Holds::Incident { alerts, .. } = &mut group.holds
                && !alerts.iter().any(|id| id == news.alert)
            {
                alerts.push(news.alert.to_owned());
                alerts.drain(..alerts.len().saturating_sub(ALERTS_MAX));
            }
            return vec![Plan::Folded { group: group.clone(), not_before_ms: news.not_before_ms }];
        }
        let ends_in_row = matches!(news.told, Told::InStorm(_)) && news.kind == CLEARED;
        let alone = news.told == Told::Itself
            || (news.anomaly.is_none() && !ends_in_row && line.may_begin(now_ms, news.per_minute));
        if alone {
            let said = line.say(news, now_ms);
            return [said].into_iter().chain(line.leave(news)).collect();
        }
        if news.kind == CLEARED { line.end(news, now_ms) } else { line.storm(news, now_ms) }
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

    /// Takes back a digest or a row's end that was recorded before a restart and that the outbox has opened again.
    pub fn restore(&mut self, group: &Group) {
        let line = self.lines.entry(group.endpoint.clone()).or_default();
        match &group.holds {
            Holds::Digest(_) => line.digest = Some(group.clone()),
            Holds::Row(row) => {
                line.rows.insert(row.number, group.clone());
            }
            Holds::Incident { .. } | Holds::Storm(_) | Holds::Taken(_) => {}
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
        self.rows.retain(|_, group| is_open(group));
        for gathering in [&mut self.storm, &mut self.anomaly] {
            gathering.group = gathering.group.take().filter(|group| is_open(group));
        }
        if self.further.len() >= self.sweep_at {
            self.further.retain(|_, group| is_open(group));
            self.sweep_at = 2 * self.further.len() + 64;
        }
    }

    /// A message of its own.
    fn say(&mut self, news: &News<'_>, now_ms: i64) -> Plan {
        let (delivery, group) = alone(news, now_ms);
        if news.told == Told::Itself {
            self.further.insert(news.incident.to_owned(), group.clone());
        } else {
            self.begun_ms.push_back(now_ms);
            self.begun.insert(news.incident.to_owned(), group.clone());
        }
        Plan::New { delivery, group }
    }

    /// The row whose storms tell of an incident by now, where there is one: its end counts.
    fn row(&mut self, news: &News<'_>, now_ms: i64) -> Option<&mut Group> {
        let takes = |group: &&mut Group| matches!(&group.holds, Holds::Row(row) if row.takes(news.anomaly, now_ms));
        self.rows.values_mut().rev().find(takes)
    }

    /// Takes an incident out of the row that it was counted in: it is over, or is told elsewhere.
    fn leave(&mut self, news: &News<'_>) -> Option<Plan> {
        let Told::InStorm(number) = news.told else { return None };
        let group = self.rows.get_mut(&number)?;
        let Holds::Row(row) = &mut group.holds else { return None };
        row.leave(news);
        let not_before_ms = if row.open == 0 { news.not_before_ms } else { row.due.0 };
        Some(Plan::Folded { group: group.clone(), not_before_ms })
    }

    /// The end of an incident that has no message of its own.
    fn end(&mut self, news: &News<'_>, now_ms: i64) -> Vec<Plan> {
        if let Some(plan) = self.leave(news) {
            return vec![plan];
        }
        if let Some(group) = self.row(news, now_ms)
            && let Holds::Row(row) = &mut group.holds
        {
            row.end_of_another(news);
            return vec![Plan::Folded { not_before_ms: row.due.0, group: group.clone() }];
        }
        // Its row has ended, and nothing goes on that it could be said with.
        let mut row = Row::of(news, now_ms);
        row.end_of_another(news);
        vec![self.gather(news, now_ms, row)]
    }

    /// One of many: in a storm, and in its row.
    fn storm(&mut self, news: &News<'_>, now_ms: i64) -> Vec<Plan> {
        let (row, plan) = match self.row(news, now_ms) {
            Some(group) => {
                let Holds::Row(row) = &mut group.holds else { return Vec::new() };
                if news.told == Told::InStorm(row.number) {
                    row.worsen(news);
                } else {
                    row.begin(news, now_ms);
                }
                (row.clone(), Plan::Folded { not_before_ms: row.due.0, group: group.clone() })
            }
            None => self.begin_row(news, now_ms),
        };
        // What another row counted, this one does from now on.
        let left = if news.told == Told::InStorm(row.number) { None } else { self.leave(news) };
        [self.gather(news, now_ms, row), plan].into_iter().chain(left).collect()
    }

    fn begin_row(&mut self, news: &News<'_>, now_ms: i64) -> (Row, Plan) {
        let mut row = Row::of(news, now_ms);
        row.begin(news, now_ms);
        let delivery = Delivery {
            id: webhook_id(news.endpoint, &format!("row {}", news.alert)),
            incident: row.incident.clone(),
            seq: END_SEQ,
            not_before_ms: row.due.0,
            ..every(news, now_ms)
        };
        let holds = Holds::Row(row.clone());
        let group = Group { v: 1, endpoint: delivery.endpoint.clone(), id: delivery.id.clone(), holds };
        self.rows.insert(row.number, group.clone());
        (row, Plan::New { delivery, group })
    }

    fn gather(&mut self, news: &News<'_>, now_ms: i64, row: Row) -> Plan {
        let (gathering, gather_ms, apart_ms) = match news.anomaly {
            None => (&mut self.storm, GATHER_MS, STORM_MS),
            Some(_) => (&mut self.anomaly, ANOMALY_MS, 0),
        };
        if let Some(group) = &mut gathering.group
            && let Holds::Storm(storm) = &mut group.holds
            // An end without a row goes with whatever waits, and what begins a row takes such ends along.
            && (storm.row.incident == row.incident || row.incidents == 0 || storm.row.incidents == 0)
        {
            let row = if row.incidents == 0 { storm.row.clone() } else { row };
            storm.count(news, row);
            let not_before_ms = news.not_before_ms.max(gathering.until_ms);
            return Plan::Folded { group: group.clone(), not_before_ms };
        }
        gathering.until_ms = now_ms.saturating_add(gather_ms).max(gathering.next_ms);
        gathering.next_ms = gathering.until_ms.saturating_add(apart_ms);
        let delivery = Delivery {
            id: webhook_id(news.endpoint, &format!("storm {}", news.alert)),
            incident: row.incident.clone(),
            not_before_ms: news.not_before_ms.max(gathering.until_ms),
            ..every(news, now_ms)
        };
        let holds = Holds::Storm(Box::new(Storm::of(news, row)));
        let group = Group { v: 1, endpoint: delivery.endpoint.clone(), id: delivery.id.clone(), holds };
        gathering.group = Some(group.clone());
        Plan::New { delivery, group }
    }
}
