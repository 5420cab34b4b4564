//! What is kept of a delivery, and what must be recorded of it.

use serde::{Deserialize, Serialize};

/// A message for an endpoint. Its body is not here: it is rendered when an attempt begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The endpoint's name.
    pub endpoint: String,
    /// The webhook id, the same at every attempt and for ever.
    pub id: String,
    /// Deliveries of one incident at one endpoint are sent in order.
    pub incident: String,
    /// Their order within the incident, ascending; gaps are fine. The offset of the alert is such a number.
    pub seq: u64,
    /// When it was made, in Unix milliseconds: its age is counted from here.
    pub created_ms: i64,
    /// Not sent before, in Unix milliseconds (quiet hours, a storm that is gathered).
    pub not_before_ms: i64,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits, or is under way.
    Pending,
    /// Confirmed by the receiver.
    Delivered,
    /// Given up: the schedule is over, or it was too old.
    Dead,
}

/// How the last attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// When, in Unix milliseconds.
    pub at_ms: i64,
    /// The receiver's status, where it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A delivery as it is recorded, JSON. The newest record of an `(endpoint, id)` counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryRecord {
    /// Version of this shape: 1.
    pub v: u8,
    /// The endpoint's name.
    pub endpoint: String,
    /// The webhook id.
    pub id: String,
    /// What it is about.
    pub incident: String,
    /// The order within the incident.
    pub seq: u64,
    /// When it was made, in Unix milliseconds.
    pub created_ms: i64,
    /// Attempts of the schedule that are used up.
    pub attempts: u32,
    /// When the next one is due, in Unix milliseconds. Without meaning once it is delivered or dead.
    pub next_ms: i64,
    /// Where it stands.
    pub state: State,
    /// The last attempt; `None` before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
}

impl DeliveryRecord {
    /// Of a delivery that was not attempted.
    pub fn new(delivery: &Delivery) -> Self {
        Self {
            v: 1,
            endpoint: delivery.endpoint.clone(),
            id: delivery.id.clone(),
            incident: delivery.incident.clone(),
            seq: delivery.seq,
            created_ms: delivery.created_ms,
            attempts: 0,
            next_ms: delivery.not_before_ms,
            state: State::Pending,
            last: None,
        }
    }
}

/// Whether an endpoint is disabled, as it is recorded, JSON. The newest record of an endpoint counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointRecord {
    /// Version of this shape: 1.
    pub v: u8,
    /// The endpoint's name.
    pub endpoint: String,
    /// Since when its receiver wants nothing more, in Unix milliseconds; `None`: enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_ms: Option<i64>,
}

/// How far an endpoint is behind, as it is recorded, JSON: too much waits there. The newest record of an endpoint counts, and is taken
/// away when it has caught up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BehindRecord {
    /// Version of this shape: 1.
    pub v: u8,
    /// The endpoint's name.
    pub endpoint: String,
    /// The number of the first alert that no message for it was made of.
    pub from: u64,
}

/// What must be recorded durably before the outbox is asked again for what is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The receiver confirmed it.
    Delivered(DeliveryRecord),
    /// An attempt failed; another follows.
    Failed(DeliveryRecord),
    /// It is given up. That is the one way in which a message can be lost: say so.
    Dead(DeliveryRecord),
    /// The receiver answered 410: what waits is held until the endpoint is enabled.
    Disabled(EndpointRecord),
    /// Somebody enabled it again.
    Enabled(EndpointRecord),
    /// Somebody wants it sent again.
    Resent(DeliveryRecord),
}

/// An attempt to begin now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Names the attempt to [`super::outbox::Outbox::done`].
    pub attempt: u64,
    /// The endpoint's name.
    pub endpoint: String,
    /// The webhook id.
    pub id: String,
    /// What it is about.
    pub incident: String,
    /// The order within the incident.
    pub seq: u64,
    /// Attempts of the schedule before this one.
    pub attempts: u32,
    /// Whether it asks if the receiver is back; it then does not count in the schedule, unless the receiver refuses it.
    pub probe: bool,
}
