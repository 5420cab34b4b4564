//! One partition in the hands of a worker: its shard, how far it is, and the checkpoint that is under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError};

use super::lease::Lease;
use super::one::send_signals;
use super::orders::{Accounts, Chunk, Installed, Job, Order};
use super::poison::Poison;
use super::shared::{Board, Epoch, Shared};
use crate::core::shard::{Shard, Wanted};
use crate::kafka::changelog::Changelog;
use crate::kafka::outlet::Tracker;
use crate::state::record::ShardRecord;

/// Accounts of a chunk, at most: some hundred microseconds of work.
const CHUNK_ACCOUNTS: usize = 64;
/// Chunks that wait for the checkpointer.
const CHUNKS: usize = 16;
/// The wait after a checkpoint that did not succeed.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A partition.
#[derive(Debug)]
pub(super) struct Held {
    pub lease: Arc<Lease>,
    pub board: Arc<Board>,
    /// `None` while there is no event at all.
    pub shard: Option<Shard>,
    /// The offset of the next event.
    pub next_offset: i64,
    /// When the last event came.
    pub arrived: Instant,
    /// It has been read to its end.
    pub at_end: bool,
    /// What cannot be read, lately.
    pub poison: Poison,
    /// Halted: nothing more counts.
    pub is_halted: bool,
    /// Who waits for the last checkpoint.
    pub drain: Option<Sender<(i32, bool)>>,
    /// When signals of bursts were last sent, and those of all relays.
    pub told_bursts: Instant,
    pub told_all: Instant,
    /// What was sent since the last checkpoint began.
    pub tracker: Arc<Tracker>,
    /// What was sent before, and is not covered yet.
    uncovered: Vec<Arc<Tracker>>,
    changelog: Option<Changelog>,
    is_stateless: bool,
    under_way: Option<UnderWay>,
    /// Since when the next checkpoint is waited for, and how many events came since.
    since: Instant,
    is_first: bool,
    pub events_since: u64,
    not_before: Instant,
    stored_offset: Option<i64>,
}

/// A checkpoint under way.
#[derive(Debug)]
struct UnderWay {
    chunks: Sender<Chunk>,
    /// What it ends with; taken when it has been given.
    record: Option<ShardRecord>,
}

impl Held {
    pub fn new(installed: Installed, board: Arc<Board>, poison: Poison) -> Self {
        let now = Instant::now();
        Self {
            lease: installed.lease,
            board,
            shard: installed.shard,
            next_offset: installed.next_offset,
            arrived: now,
            at_end: false,
            poison,
            is_halted: false,
            drain: None,
            told_bursts: now,
            told_all: now,
            tracker: Arc::default(),
            uncovered: Vec::new(),
            is_stateless: installed.changelog.is_none(),
            changelog: installed.changelog,
            under_way: None,
            since: now,
            is_first: true,
            events_since: 0,
            not_before: now,
            stored_offset: installed.is_stored.then_some(installed.next_offset),
        }
    }

    /// Whether everything it knows is stored, and nothing is under way.
    pub fn is_stored(&self) -> bool {
        let nothing_to_store =
            self.is_stateless || self.shard.is_none() || self.stored_offset == Some(self.next_offset);
        self.under_way.is_none() && nothing_to_store
    }

    /// Whether a checkpoint is due.
    pub fn is_due(&self, checkpoint_ms: u32, checkpoint_events: u64) -> bool {
        if self.under_way.is_some() || self.is_stored() || self.is_halted || Instant::now() < self.not_before {
            return false;
        }
        self.drain.is_some()
            // The first one says that there is a state, and since when there is history.
            || self.stored_offset.is_none()
            || self.since.elapsed() >= self.wait(checkpoint_ms)
            || self.events_since >= checkpoint_events
    }

    /// Partitions that became ours together would for ever be stored together, and events wait for all of them at once: each has
    /// its own first wait.
    fn wait(&self, checkpoint_ms: u32) -> Duration {
        let every = Duration::from_millis(checkpoint_ms.into());
        if self.is_first { every.mul_f64(phase(self.lease.partition)) } else { every }
    }

    /// Begins a checkpoint of everything up to the next event.
    pub fn begin(&mut self, shared: &Shared, epoch: &Epoch, worker: &Sender<Order>) {
        // What is stored of relays must have been told: nobody would tell it after a crash.
        if self.shard.is_none() || self.changelog.is_none() || send_signals(shared, self, Wanted::All).is_err() {
            return;
        }
        let (Some(shard), Some(changelog)) = (&mut self.shard, self.changelog.take()) else { return };
        shard.begin_checkpoint();
        // Of the worker: another one may be in force already, but not here.
        let mut record = ShardRecord::new(
            &epoch.policy,
            shared.partitions,
            self.next_offset,
            shard.newest().0,
            shard.history_since().0,
        );
        record.minutes = shard.kept().cloned();
        record.control_offset = shared.control.next_offset.load(std::sync::atomic::Ordering::Relaxed);
        self.uncovered.push(std::mem::take(&mut self.tracker));
        // The very first one says no more than that there is a state.
        self.is_first &= self.stored_offset.is_none();
        self.since = Instant::now();
        self.events_since = 0;
        let (chunks, given) = crossbeam_channel::bounded(CHUNKS);
        self.under_way = Some(UnderWay { chunks, record: Some(record) });
        let job = Job { lease: Arc::clone(&self.lease), changelog, chunks: given, worker: worker.clone() };
        // Where the checkpointer is gone the program stops; nothing is lost by that.
        let _ = shared.checkpointer.send(job);
    }

    /// Gives the next part of the checkpoint under way. Returns whether there is more to give at once.
    pub fn give(&mut self) -> bool {
        let (Some(shard), Some(way)) = (&mut self.shard, &mut self.under_way) else { return false };
        if way.record.is_none() || way.chunks.is_full() {
            return false;
        }
        let mut accounts = Accounts::default();
        let left = shard.give_changed(CHUNK_ACCOUNTS, &mut |name, packed| accounts.push(name, packed));
        if !accounts.is_empty() && !offer(&way.chunks, Chunk::Accounts(accounts)) {
            way.record = None;
            return false;
        }
        if left > 0 {
            return true;
        }
        if way.chunks.is_full() {
            return true;
        }
        if let Some(record) = way.record.take() {
            offer(&way.chunks, Chunk::Finish(record, self.uncovered.clone()));
        }
        false
    }

    /// The checkpoint under way was stored.
    pub fn stored(&mut self, offset: i64, changelog: Option<Changelog>) {
        self.under_way = None;
        self.changelog = changelog;
        self.uncovered.clear();
        self.stored_offset = Some(offset);
        self.board.set_stored(offset);
        if let Some(shard) = &mut self.shard {
            shard.finish_checkpoint();
        }
    }

    /// It was not, and is to be tried again.
    pub fn not_stored(&mut self, changelog: Option<Changelog>) {
        self.under_way = None;
        self.changelog = changelog;
        self.not_before = Instant::now() + TRY_AGAIN;
        if let Some(shard) = &mut self.shard {
            shard.abandon_checkpoint();
        }
    }

    /// Whether the writing end is there or comes back.
    pub fn can_store(&self) -> bool {
        self.is_stateless || self.changelog.is_some() || self.under_way.is_some()
    }
}

/// Where a partition's checkpoints lie between two of another: multiples of the golden ratio are spread evenly, however many
/// partitions there are.
fn phase(partition: i32) -> f64 {
    (f64::from(partition) * 0.618_033_988_749_895).fract()
}

/// Offers a chunk to the checkpointer. False where it has given up: it will say so.
fn offer(chunks: &Sender<Chunk>, chunk: Chunk) -> bool {
    match chunks.try_send(chunk) {
        Ok(()) => true,
        // The caller has looked, and nobody else fills it.
        Err(TrySendError::Full(_)) | Err(TrySendError::Disconnected(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::phase;

    #[test]
    fn checkpoints_of_few_and_of_many_partitions_lie_apart() {
        for partitions in [2, 3, 12, 48, 400] {
            let mut phases: Vec<f64> = (0..partitions).map(phase).collect();
            phases.sort_by(f64::total_cmp);
            phases.push(1.0);
            let nearest = phases.windows(2).map(|w| w[1] - w[0]).fold(1.0, f64::min);
            assert!(nearest > 0.3 / f64::from(partitions), "{partitions} partitions: {nearest}");
        }
    }
}
