//! Signals: what shards tell the desk about relays, as absolute totals of a minute of event time. The shape that is written
//! (`schemas/signal.schema.json`).
//!
//! A record is the whole truth of its key, and `seq` grows with every change of it. So of two with one key that with the larger
//! `seq` counts, and repeats, late ones, those of a shard that was restored and those of an owner that is none any more do no harm.
//! Numbers may be negative: a message that seemed to go over one relay and went over another is taken from the first in the minute in
//! which that was learned. Only sums over spans mean something; where one is below zero it is zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::replies::Family;
use crate::event::Timestamp;

/// Milliseconds of a minute.
pub const MINUTE_MS: i64 = 60_000;

/// The minute that holds a moment, in minutes since 1970.
pub fn minute_of(ts_ms: i64) -> i64 {
    ts_ms.div_euclid(MINUTE_MS)
}

/// The part of the events that a shard counts. Minutes of different parts are different records, and all of them are added up; so those
/// of an events topic that was made anew with another number of partitions do not hide those from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Part {
    /// How many parts there are.
    pub partitions: i32,
    /// Which one.
    pub partition: i32,
}

impl Part {
    /// All there is: of files.
    pub const ALL: Self = Self { partitions: 1, partition: 0 };
}

/// What went over one relay in one minute, or of one burst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayCount {
    /// The relay, as events call it; [`super::tally::OTHER`] for all beyond the bound.
    pub relay: String,
    /// Messages.
    pub messages: i64,
    /// Recipients.
    pub recipients: i64,
    /// Refusals for its address, by who refuses. Not of bursts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<Family, u64>,
}

/// What one part carried in one minute, over all relays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayMinute {
    /// Always 1.
    pub v: u8,
    /// Always `relays`.
    pub kind: RelaysKind,
    /// Of which part of the events.
    #[serde(flatten)]
    pub part: Part,
    /// The minute's beginning.
    pub minute: Timestamp,
    /// Grows with every change of this record.
    pub seq: u64,
    /// By name.
    pub relays: Vec<RelayCount>,
}

/// What one incident's burst put out in one minute of the account's clock: before the flag by the time of the messages, since then by
/// the moment at which they turned out to be of the burst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BurstMinute {
    /// Always 1.
    pub v: u8,
    /// Always `burst`.
    pub kind: BurstKind,
    /// The incident.
    pub incident: String,
    /// The account as folded.
    pub account: String,
    /// Its customer.
    pub tenant: String,
    /// The minute's beginning. More than an hour before the flag: the hour's.
    pub minute: Timestamp,
    /// Grows with every change of this record.
    pub seq: u64,
    /// By name.
    pub relays: Vec<RelayCount>,
}

/// The kind of a [`RelayMinute`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelaysKind {
    /// The only one.
    Relays,
}

/// The kind of a [`BurstMinute`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BurstKind {
    /// The only one.
    Burst,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Signal {
    /// What a part carried.
    Relays(RelayMinute),
    /// What a burst put out.
    Burst(BurstMinute),
}

/// A record of the signals topic that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignal {
    /// A key that none has.
    #[error("nobody's key: {}", .0.escape_debug())]
    Key(String),
    /// A value that is none.
    #[error("no signal ({0})")]
    Value(String),
    /// Of a newer program.
    #[error("a signal of version {0}: use the program that wrote it")]
    Version(u8),
}

const RELAYS: &str = "relays/";
const BURST: &str = "burst/";

impl Signal {
    /// The key of its record: what it is about, and the minute in minutes since 1970.
    pub fn key(&self) -> String {
        match self {
            Self::Relays(r) => {
                format!("{RELAYS}{}/{}/{}", r.part.partitions, r.part.partition, minute_of(r.minute.0))
            }
            Self::Burst(b) => format!("{BURST}{}/{}", b.incident, minute_of(b.minute.0)),
        }
    }

    /// Reads a record. The key says of which kind the value is.
    ///
    /// # Errors
    /// Where key or value are not what they must be.
    pub fn read(key: &[u8], value: &[u8]) -> Result<Self, BadSignal> {
        let bad = |e: serde_json::Error| BadSignal::Value(e.to_string());
        let (signal, v) = if key.starts_with(RELAYS.as_bytes()) {
            let relays: RelayMinute = serde_json::from_slice(value).map_err(bad)?;
            let v = relays.v;
            (Self::Relays(relays), v)
        } else if key.starts_with(BURST.as_bytes()) {
            let burst: BurstMinute = serde_json::from_slice(value).map_err(bad)?;
            let v = burst.v;
            (Self::Burst(burst), v)
        } else {
            return Err(BadSignal::Key(String::from_utf8_lossy(key).chars().take(256).collect()));
        };
        if v == 1 { Ok(signal) } else { Err(BadSignal::Version(v)) }
    }
}
