//! What stands in the `desk` topic: compacted, so that the last record of a key counts, and none of it is anywhere else.
//!
//! | key | value |
//! | --- | --- |
//! | `alert/ID` | [`Kept`]: an alert, and its number |
//! | `incident/ID` | [`Incident`]: what its alerts amount to |
//! | `anomaly` | [`Anomaly`]: the last one |
//! | `group/ENDPOINT/ID` | [`Group`]: what a message is made of |
//! | `delivery/ENDPOINT/ID` | [`DeliveryRecord`]: where it stands |
//! | `endpoint/NAME` | [`EndpointRecord`]: whether its receiver wants anything |
//! | `behind/NAME` | [`BehindRecord`]: which alerts it has not had yet, because too much waits there |
//! | `decision/ID` | [`Decided`]: what somebody decided about accounts |
//! | `rename/ACCOUNT` | [`Renamed`]: an account that has another name, by the new one |
//! | `audit/NUMBER` | [`Entry`]: who did what |
//! | `measure/ID` | [`Measure`]: an account stopped, a relay pulled |
//! | `known/ID` | whom a throttled account has written to before ([`crate::relays::known`]); not by the desk, and nothing to it |
//! | `hook/NAME/MEASURE/VERB` | [`Call`]: what a program was told of it |
//! | `hold` | [`Hold`]: nothing is pulled without a person |
//! | `listing/ID` | [`Listing`]: a relay's address in a blocklist |
//! | `watched/RELAY` | [`Watched`]: since when blocklists are asked for it |
//!
//! A record without a value takes its key away.

use serde::{Deserialize, Serialize};

use std::collections::BTreeMap;

use super::feedback::record::{Acted, Decided, Entry, Resolved, Word};
use super::notice::Said;
use super::renames::Renamed;
use super::webhook::grouping::{Group, Told};
use super::webhook::record::{BehindRecord, DeliveryRecord, EndpointRecord};
use crate::core::alert::{AlertKind, Pattern, RelayShare, Severity};
use crate::directory::Facts;
use crate::event::Timestamp;
use crate::relays::decide::Hold;
use crate::relays::hands::hook::Call;
use crate::relays::listing::record::{Listing, Watched};
use crate::relays::measure::Measure;

/// The keys of alerts begin so.
pub const ALERT: &str = "alert/";
/// The keys of incidents begin so.
pub const INCIDENT: &str = "incident/";
/// The keys of deliveries begin so.
pub const DELIVERY: &str = "delivery/";
/// The keys of what messages are made of begin so.
pub const GROUP: &str = "group/";
/// The keys of endpoints begin so.
pub const ENDPOINT: &str = "endpoint/";
/// The keys of how far endpoints are behind begin so.
pub const BEHIND: &str = "behind/";
/// The keys of decisions begin so.
pub const DECISION: &str = "decision/";
/// The keys of renames begin so.
pub const RENAME: &str = "rename/";
/// The keys of the audit's lines begin so; the number has 20 digits.
pub const AUDIT: &str = "audit/";
/// The keys of measures begin so.
pub const MEASURE: &str = "measure/";
/// The keys of calls of hooks begin so.
pub const HOOK: &str = "hook/";
/// The key of the order that nothing is pulled without a person.
pub const HOLD: &str = "hold";
/// The keys of listings begin so.
pub const LISTING: &str = "listing/";
/// The keys of what is watched begin so.
pub const WATCHED: &str = "watched/";
/// The key of the last anomaly.
pub const ANOMALY: &str = "anomaly";

/// An alert that the desk has taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Always 1.
    pub v: u8,
    /// Its number: they go up by one in the order in which the desk took alerts.
    pub n: u64,
    /// When the desk took it, in milliseconds since 1970.
    pub taken_ms: i64,
    /// The alert as it was written.
    pub alert: Said,
}

/// Flagged, escalated and cleared of one burst.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Always 1.
    pub v: u8,
    /// As its alerts have it.
    pub id: String,
    /// The account as folded.
    pub account: String,
    /// The customer: as the directory has it, else as the alert.
    pub tenant: String,
    /// What the directory said when it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<Box<Facts>>,
    /// Whether it goes on.
    pub state: State,
    /// The worst so far.
    pub severity: Severity,
    /// The highest score so far.
    pub score: f64,
    /// What the evidence looks like, as the last alert that had some says.
    pub pattern: Pattern,
    /// Event time of its first alert.
    pub flagged: Timestamp,
    /// Event time of the first send of its burst; none of incidents that an older program has taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    /// When the desk took its first alert; none as with `first`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Timestamp>,
    /// What the burst put on each relay so far, by the names that events have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relays: Vec<RelayShare>,
    /// Event time of its end.
    pub cleared: Option<Timestamp>,
    /// Recipients of the burst so far.
    pub recipients: u64,
    /// Messages of the burst so far.
    pub messages: u64,
    /// Client networks that the burst came from: /24 and /48.
    pub networks: Vec<String>,
    /// Contents that carried it when it was flagged, by their fingerprints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<String>,
    /// The smallest fingerprints of its new recipients when it was flagged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub new_recipient_fingerprints: Vec<String>,
    /// The campaign that it belongs to.
    pub campaign: Option<String>,
    /// The anomaly that it was flagged in.
    pub anomaly: Option<String>,
    /// What each endpoint was told of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub told: BTreeMap<String, Told>,
    /// Who looks after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Word>,
    /// What it turned out to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// What people wrote about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Word>,
    /// What outside systems did about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Acted>,
    /// When anything changed, in milliseconds since 1970.
    pub updated_ms: i64,
    /// Its alerts, in the order in which they came.
    pub alerts: Vec<Stage>,
}

/// One alert of an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its number.
    pub n: u64,
    /// Its id.
    pub id: String,
    /// What it says.
    pub kind: AlertKind,
    /// Its event time.
    pub ts: Timestamp,
}

/// Whether an incident goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The burst goes on.
    Open,
    /// It has been quiet for the configured time.
    Over,
}

impl State {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Over => "over",
        }
    }
}

/// A time in which the stream itself had changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Always 1.
    pub v: u8,
    /// Its id.
    pub id: String,
    /// Event time of its beginning.
    pub since: Timestamp,
    /// Event time of its end.
    pub until: Option<Timestamp>,
    /// Incidents flagged in it so far.
    pub incidents: u64,
}

/// Any record of the topic.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// An alert.
    Alert(Box<Kept>),
    /// An incident.
    Incident(Box<Incident>),
    /// The last anomaly.
    Anomaly(Box<Anomaly>),
    /// What a message is made of.
    Group(Box<Group>),
    /// Where a message stands.
    Delivery(Box<DeliveryRecord>),
    /// Whether an endpoint's receiver wants anything.
    Endpoint(Box<EndpointRecord>),
    /// How far an endpoint is behind.
    Behind(Box<BehindRecord>),
    /// What somebody decided about accounts.
    Decision(Box<Decided>),
    /// An account that has another name.
    Renamed(Box<Renamed>),
    /// Who did what.
    Audit(Box<Entry>),
    /// An account stopped, a relay pulled.
    Measure(Box<Measure>),
    /// What a program was told of a measure.
    Hook(Box<Call>),
    /// Nothing is pulled without a person.
    Hold(Box<Hold>),
    /// A relay's address in a blocklist.
    Listing(Box<Listing>),
    /// Since when blocklists are asked for a relay.
    Watched(Box<Watched>),
    /// The key stands for nothing any more.
    Gone(String),
    /// Written by a newer program: kept, and not looked at.
    Unknown,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The key is no text.
    #[error("its key is not UTF-8")]
    Key,
    /// The value does not fit its key.
    #[error("{0}")]
    Value(#[from] serde_json::Error),
}

impl Record {
    /// Reads one.
    ///
    /// # Errors
    /// Where key or value are not what they should be.
    pub fn read(key: &[u8], value: Option<&[u8]>) -> Result<Self, Unreadable> {
        let key = std::str::from_utf8(key).map_err(|_| Unreadable::Key)?;
        let Some(value) = value else { return Ok(Self::Gone(key.to_owned())) };
        Ok(if key.starts_with(ALERT) {
            Self::Alert(serde_json::from_slice(value)?)
        } else if key.starts_with(INCIDENT) {
            Self::Incident(serde_json::from_slice(value)?)
        } else if key == ANOMALY {
            Self::Anomaly(serde_json::from_slice(value)?)
        } else if key.starts_with(GROUP) {
            Self::Group(serde_json::from_slice(value)?)
        } else if key.starts_with(DELIVERY) {
            Self::Delivery(serde_json::from_slice(value)?)
        } else if key.starts_with(ENDPOINT) {
            Self::Endpoint(serde_json::from_slice(value)?)
        } else if key.starts_with(BEHIND) {
            Self::Behind(serde_json::from_slice(value)?)
        } else if key.starts_with(DECISION) {
            Self::Decision(serde_json::from_slice(value)?)
        } else if key.starts_with(RENAME) {
            Self::Renamed(serde_json::from_slice(value)?)
        } else if key.starts_with(AUDIT) {
            Self::Audit(serde_json::from_slice(value)?)
        } else if key.starts_with(MEASURE) {
            Self::Measure(serde_json::from_slice(value)?)
        } else if key.starts_with(HOOK) {
            Self::Hook(serde_json::from_slice(value)?)
        } else if key == HOLD {
            Self::Hold(serde_json::from_slice(value)?)
        } else if key.starts_with(LISTING) {
            Self::Listing(serde_json::from_slice(value)?)
        } else if key.starts_with(WATCHED) {
            Self::Watched(serde_json::from_slice(value)?)
        } else {
            Self::Unknown
        })
    }

    /// Its key; of [`Record::Unknown`] none.
    pub fn key(&self) -> String {
        match self {
            Self::Alert(kept) => format!("{ALERT}{}", kept.alert.id()),
            Self::Incident(incident) => format!("{INCIDENT}{}", incident.id),
            Self::Anomaly(_) => ANOMALY.to_owned(),
            Self::Group(group) => format!("{GROUP}{}/{}", group.endpoint, group.id),
            Self::Delivery(delivery) => format!("{DELIVERY}{}/{}", delivery.endpoint, delivery.id),
            Self::Endpoint(endpoint) => format!("{ENDPOINT}{}", endpoint.endpoint),
            Self::Behind(behind) => format!("{BEHIND}{}", behind.endpoint),
            Self::Decision(decided) => format!("{DECISION}{}", decided.id),
            Self::Renamed(renamed) => format!("{RENAME}{}", renamed.to),
            Self::Audit(entry) => format!("{AUDIT}{:020}", entry.n),
            Self::Measure(measure) => format!("{MEASURE}{}", measure.id),
            Self::Hook(call) => call.record_key(),
            Self::Hold(_) => HOLD.to_owned(),
            Self::Listing(listing) => format!("{LISTING}{}", listing.id),
            Self::Watched(watched) => format!("{WATCHED}{}", watched.relay),
            Self::Gone(key) => key.clone(),
            Self::Unknown => String::new(),
        }
    }

    /// Its value; `None` where it takes its key away.
    ///
    /// # Errors
    /// Where it cannot be written as JSON, which would be a defect.
    pub fn value(&self) -> Result<Option<Vec<u8>>, serde_json::Error> {
        match self {
            Self::Alert(kept) => serde_json::to_vec(kept).map(Some),
            Self::Incident(incident) => serde_json::to_vec(incident).map(Some),
            Self::Anomaly(anomaly) => serde_json::to_vec(anomaly).map(Some),
            Self::Group(group) => serde_json::to_vec(group).map(Some),
            Self::Delivery(delivery) => serde_json::to_vec(delivery).map(Some),
            Self::Endpoint(endpoint) => serde_json::to_vec(endpoint).map(Some),
            Self::Behind(behind) => serde_json::to_vec(behind).map(Some),
            Self::Decision(decided) => serde_json::to_vec(decided).map(Some),
            Self::Renamed(renamed) => serde_json::to_vec(renamed).map(Some),
            Self::Audit(entry) => serde_json::to_vec(entry).map(Some),
            Self::Measure(measure) => serde_json::to_vec(measure).map(Some),
            Self::Hook(call) => serde_json::to_vec(call).map(Some),
            Self::Hold(hold) => serde_json::to_vec(hold).map(Some),
            Self::Listing(listing) => serde_json::to_vec(listing).map(Some),
            Self::Watched(watched) => serde_json::to_vec(watched).map(Some),
            Self::Gone(_) | Self::Unknown => Ok(None),
        }
    }
}
