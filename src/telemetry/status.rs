//! What `/v1/status` and `/v1/accounts/…` answer, and who is asked for it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::account::AccountView;
use crate::event::Timestamp;

/// Who knows how things stand. Called from threads that may block, several at a time; what takes longer than two seconds is
/// answered to the client without it.
pub trait Live: Send + Sync + 'static {
    /// Everything at a glance.
    fn status(&self) -> Status;

    /// Whether the main loop turns.
    ///
    /// # Errors
    /// What it hangs in, in a sentence.
    fn healthy(&self) -> Result<(), String>;

    /// Whether every partition of ours is read.
    ///
    /// # Errors
    /// What is not, in a sentence: what is restored, what is halted and why.
    fn ready(&self) -> Result<(), String>;

    /// One account; `name` is folded.
    fn account(&self, name: &str) -> AccountAnswer;
}

/// What is known here of an account.
#[derive(Debug, Clone, PartialEq)]
pub enum AccountAnswer {
    /// It is ours.
    Here(Box<AccountView>),
    /// Its partition is not ours.
    Elsewhere {
        /// Which one that is.
        partition: i32,
        /// The HTTP address of the instance that has it, where that is known.
        instance: Option<String>,
    },
    /// Its partition is ours, and has no event of it.
    Unknown {
        /// Which one that is.
        partition: i32,
    },
    /// Accounts are not known here at all, and who knows them, in a sentence.
    Nowhere(String),
    /// Nobody can say yet, and why.
    NotReady(String),
}

/// How the program stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Before the first assignment.
    Starting,
    /// Some partition of ours is still being restored.
    Restoring,
    /// Every partition of ours is read, or halted.
    Running,
    /// On the way out.
    Draining,
}

/// How a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionState {
    /// Its state is being read.
    Restoring,
    /// Its events are being read.
    Running,
    /// It stands still until somebody does something.
    Halted,
}

/// Everything at a glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Of the program.
    pub version: &'static str,
    /// Of the configuration in force.
    pub config_digest: String,
    /// Our name.
    pub instance: String,
    /// The consumer group.
    pub group: String,
    /// When the program began.
    pub started: Timestamp,
    /// How it stands.
    pub state: State,
    /// Threads that decide.
    pub workers: usize,
    /// Since the program began.
    pub totals: Totals,
    /// Of the partitions that are ours, by number.
    pub partitions: Vec<PartitionStatus>,
    /// The control topic.
    pub control: ControlStatus,
    /// Topics by what they are for: `events`, `state`, `alerts`, …
    pub topics: BTreeMap<&'static str, String>,
}

/// What was done since the program began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Totals {
    /// Events counted.
    pub events: u64,
    /// Records that were no event.
    pub rejects: u64,
    /// Repeats.
    pub duplicates: u64,
    /// Events older than every window.
    pub late: u64,
    /// Alerts acknowledged by the broker.
    pub alerts: u64,
    /// Checkpoints committed.
    pub checkpoints: u64,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: i32,
    /// How it stands.
    pub state: PartitionState,
    /// The next record to read.
    pub next_offset: Option<i64>,
    /// One past the last record there is.
    pub high_watermark: Option<i64>,
    /// Records not yet read.
    pub lag_messages: Option<i64>,
    /// How far the newest event's time is behind now.
    pub lag_seconds: Option<f64>,
    /// The first record that the last checkpoint does not cover.
    pub checkpoint_offset: Option<i64>,
    /// How long ago that was, in seconds.
    pub checkpoint_age_s: Option<f64>,
    /// Accounts held.
    pub accounts: u64,
    /// Bytes that they take.
    pub account_bytes: u64,
    /// Incidents that are open.
    pub open_incidents: u64,
    /// The largest event time met.
    pub newest_event: Option<Timestamp>,
    /// Records that were no event.
    pub rejects: u64,
    /// Why it stands still.
    pub halted: Option<Halted>,
    /// How much of its state is read.
    pub restore: Option<Restore>,
}

/// Why a partition stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Halted {
    /// What happened.
    pub reason: String,
    /// What to do about it.
    pub cure: String,
}

/// How much of a partition's state is read, in records.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Restore {
    /// So many.
    pub read: u64,
    /// Of so many.
    pub of: u64,
    /// That is, in hundredths; of nothing, all.
    pub percent: f64,
}

impl Restore {
    /// `read` of `of` records. Of a compacted topic offsets are skipped, so that both are usually differences of offsets.
    pub fn new(read: u64, of: u64) -> Self {
        let percent = if of == 0 { 100.0 } else { (read as f64 / of as f64 * 1000.0).round().min(1000.0) / 10.0 };
        Self { read, of, percent }
    }
}

/// The control topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct ControlStatus {
    /// The next record to read; none where it has not been read to its first end.
    pub read_to: Option<i64>,
    /// Records in force.
    pub records: u64,
}
