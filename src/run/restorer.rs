//! Restoring partitions: a thread or two that fence the old owner, read the state, and hand the shard to its worker.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::lease::Lease;
use super::orders::{Installed, Order, PollOrder, RestoreOrder};
use super::settings::Start;
use super::shared::{Shared, Stage};
use crate::core::shard::Shard;
use crate::core::signal::Part;
use crate::event::Timestamp;
use crate::kafka::changelog::{self, Changelog, Place};
use crate::kafka::restore::{Error, Reader, Restored};

/// The wait after the n-th failure in a row, at most.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a restore says how far it is.
const SAY: Duration = Duration::from_secs(5);

/// Sends a partition back to its last checkpoint.
pub(super) fn again(shared: &Shared, lease: &Arc<Lease>, tries: u32) {
    let Some(renewed) = shared.renew(lease) else { return };
    let _ = shared.poll.send(PollOrder::Pause(Arc::clone(&renewed)));
    let _ = shared.workers[shared.worker_of(lease.partition)].send(Order::Drop(Arc::clone(lease)));
    let _ = shared.restorers.send(RestoreOrder { lease: renewed, tries });
}

/// librdkafka found an offset that is not there, of whichever partition: each looks for itself when it is restored again.
pub(super) fn check_range(shared: &Shared, lease: &Arc<Lease>) {
    again(shared, lease, 1);
}

/// One restoring thread, until the orders end.
pub(super) fn run(shared: &Shared, orders: &Receiver<RestoreOrder>) {
    let mut reader: Option<Reader> = None;
    for RestoreOrder { lease, tries } in orders {
        if !lease.is_valid() || shared.is_stopping() {
            continue;
        }
        wait(tries, &lease, shared);
        let ours = match reader.take() {
            Some(reader) => Ok(reader),
            None => Reader::new(&shared.kafka),
        };
        let ours = match ours {
            Ok(ours) => reader.insert(ours),
            Err(e) => {
                shared.fail(e.into());
                return;
            }
        };
        let began = Instant::now();
        match restore(shared, ours, &lease) {
            Ok(installed) => install(shared, installed, began),
            Err(Error::GivenUp) => {}
            Err(e) if e.is_passing() => {
                tracing::warn!(partition = lease.partition, "not restored yet: {e}");
                // A client that met a broker on its way out may wait for that one long after it is back: a new one asks anew.
                reader = None;
                let _ = shared.restorers.send(RestoreOrder { lease, tries: tries + 1 });
            }
            Err(e) => {
                shared.metrics.restoring(lease.partition, None);
                shared.halt(&lease, e.reason(), e.to_string());
            }
        }
    }
}

fn wait(tries: u32, lease: &Lease, shared: &Shared) {
    if tries == 0 {
        return;
    }
    let wait = Duration::from_millis(200).saturating_mul(1 << tries.min(10)).min(WAIT_MAX);
    let until = Instant::now() + wait;
    while Instant::now() < until && lease.is_valid() && !shared.is_stopping() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn restore(shared: &Shared, reader: &Reader, lease: &Arc<Lease>) -> Result<Installed, Error> {
    let partition = lease.partition;
    let wanted = || lease.is_valid() && !shared.is_stopping();
    let epoch = shared.epoch();
    let board = shared.board(partition).ok_or(Error::GivenUp)?;
    board.set_stage(Stage::Restoring);
    let (changelog, restored) = if shared.is_stateless {
        (None, Restored { shard: None, minutes: None, next_offset: None, records: 0, bytes: 0 })
    } else {
        // First the fence: whatever the owner before us had begun has ended when this returns.
        let changelog = Changelog::open(&shared.kafka, Place::of_state(&shared.kafka, partition), &wanted).map_err(
            |e| match e {
                changelog::Error::GivenUp => Error::GivenUp,
                changelog::Error::Client(e) => Error::Client(e),
                e => Error::Broker(e.to_string()),
            },
        )?;
        let said = std::cell::Cell::new(Instant::now());
        let wanted_and_said = || {
            if said.get().elapsed() > SAY {
                said.set(Instant::now());
                say(shared, partition);
            }
            wanted()
        };
        let restored = reader.restore(
            partition,
            shared.partitions,
            &epoch.policy,
            shared.allowed,
            &board.progress,
            &wanted_and_said,
        )?;
        (Some(changelog), restored)
    };
    shared.metrics.restore_records.inc_by(restored.records);
    shared.metrics.restore_bytes.inc_by(restored.bytes);
    let is_stored = restored.shard.is_some();
    let (low, high) = reader.range(&shared.kafka.topics.events, partition)?;
    let start = if shared.is_stateless { Start::Earliest } else { epoch.run.start };
    let next_offset = restored.next_offset.unwrap_or_else(|| super::poll::start_offset(start, low, high));
    let shard = match restored.shard {
        Some(shard) => Some(shard),
        None if start == Start::Latest => {
            let since = crate::kafka::outlet::now_ms();
            Some(Shard::new(Arc::clone(&epoch.policy), Timestamp(since)))
        }
        None => shared
            .history
            .since(reader, &shared.kafka, shared.partitions, &epoch.limits, &wanted)?
            .map(|since| Shard::new(Arc::clone(&epoch.policy), since)),
    };
    let shard = shard.map(|mut shard| {
        if !shared.is_stateless {
            shard.tell_signals(Part { partitions: shared.partitions, partition }, restored.minutes.unwrap_or_default());
        }
        shard
    });
    Ok(Installed { lease: Arc::clone(lease), shard, is_stored, next_offset, changelog })
}

fn say(shared: &Shared, partition: i32) {
    let Some(board) = shared.board(partition) else { return };
    let (read, of) = (board.progress.read.load(Ordering::Relaxed), board.progress.of.load(Ordering::Relaxed));
    let part = read as f64 / of.max(1) as f64;
    shared.metrics.restoring(partition, Some(part));
    tracing::info!(partition, read, of, "restoring: {:.0} %", part * 100.0);
}

fn install(shared: &Shared, installed: Installed, began: Instant) {
    let (lease, next_offset) = (Arc::clone(&installed.lease), installed.next_offset);
    let partition = lease.partition;
    shared.metrics.restore_seconds.observe(began.elapsed().as_secs_f64());
    shared.metrics.restoring(partition, None);
    shared.metrics.halted(partition, None);
    if let Some(board) = shared.board(partition) {
        board.next_offset.store(next_offset, Ordering::Relaxed);
        if installed.is_stored {
            board.set_stored(next_offset);
        }
        board.set_stage(Stage::Running);
    }
    tracing::info!(
        partition,
        next_offset,
        accounts = installed.shard.as_ref().map_or(0, Shard::accounts),
        ms = began.elapsed().as_millis() as u64,
        "{}",
        if installed.is_stored { "restored" } else { "begins without a state" }
    );
    // The worker first: orders are obeyed before batches are looked at.
    if shared.workers[shared.worker_of(partition)].send(Order::Install(Box::new(installed))).is_ok() {
        let _ = shared.poll.send(PollOrder::Resume(lease, next_offset));
    }
}
