//! A shard: what one partition owns. Its accounts, its clock, the step that an event takes.

use std::sync::Arc;

use super::alert::Alert;
use crate::event::{Event, Timestamp};

/// What the detector is told once: limits, prior, thresholds. Built from the configuration.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Program version and configuration digest, written into every alert.
    pub by: String,
}

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// A repeat of an `id` of this account: nothing was counted.
    pub duplicate: bool,
    /// Older than every window: counted as late, nowhere else.
    pub late: bool,
    /// On a send, or on an outcome that names a recipient first: how many recipients the account had never written to.
    pub new_recipients: u32,
    /// On an outcome: a refusal that speaks about the account (see `core/refusal.rs`).
    pub refused: bool,
}

/// The accounts of one partition.
#[derive(Debug)]
pub struct Shard {
    policy: Arc<Policy>,
}

impl Shard {
    /// An empty shard. `history_since` is when the first event of all history happened, the same for every shard.
    pub fn new(policy: Arc<Policy>, _history_since: Timestamp) -> Self {
        Self { policy }
    }

    /// Counts one event, and appends the alerts that it causes to `out`.
    pub fn step(&mut self, _event: &Event<'_>, _out: &mut Vec<Alert>) -> Step {
        let _ = &self.policy;
        Step::default()
    }

    /// Says that the input has been read up to `now`: writes what is due by then (`account.cleared`).
    pub fn tick(&mut self, _now: Timestamp, _out: &mut Vec<Alert>) {}

    /// Accounts held.
    pub fn accounts(&self) -> usize {
        0
    }
}
