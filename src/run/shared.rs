//! What all threads of `run` know together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rdkafka::consumer::ConsumerGroupMetadata;

use super::lease::Lease;
use super::orders::{Job, Order, PollOrder, RestoreOrder};
use super::settings::Run;
use crate::core::policy::Policy;
use crate::event::Limits;
use crate::kafka::Kafka;
use crate::kafka::control::Control;
use crate::kafka::history::History;
use crate::kafka::outlet::Outlet;
use crate::kafka::restore::{Allowed, Progress};
use crate::telemetry::Metrics;

/// The configuration in force, from one reload to the next.
#[derive(Debug, Clone, PartialEq)]
pub struct Epoch {
    /// The detector's.
    pub policy: Arc<Policy>,
    /// Bounds on one event.
    pub limits: Limits,
    /// The consumer's.
    pub run: Run,
    /// The digest of what decides.
    pub digest: String,
}

/// Where the records of a partition go.
#[derive(Debug, Clone)]
pub struct Route {
    /// The ownership.
    pub lease: Arc<Lease>,
    /// Which worker.
    pub worker: usize,
}

/// What is known of a partition, for whoever looks.
#[derive(Debug)]
pub struct Board {
    /// The offset of the next event.
    pub next_offset: AtomicI64,
    /// The next one to be written to the partition; -1 where it is not known yet.
    pub high: AtomicI64,
    /// The largest event time met.
    pub newest_ms: AtomicI64,
    /// The offset of the last checkpoint; -1 where there is none.
    pub stored_offset: AtomicI64,
    /// Accounts held.
    pub accounts: AtomicU64,
    /// Accounts that have enough history.
    pub known: AtomicU64,
    /// Bytes they take.
    pub bytes: AtomicU64,
    /// Open incidents.
    pub open: AtomicU64,
    /// It has been read to its end. The offsets do not say so where the last ones are marks of transactions.
    pub at_end: AtomicBool,
    /// Records that could not be read.
    pub rejects: AtomicU64,
    /// How far the restore is.
    pub progress: Progress,
    rest: Mutex<Standing>,
}

/// Where a partition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Being restored.
    Restoring,
    /// Read and detected.
    Running,
    /// Stopped: why, in a word and in a sentence with the cure.
    Halted(&'static str, String),
}

#[derive(Debug)]
struct Standing {
    stage: Stage,
    stored: Option<Instant>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            next_offset: AtomicI64::new(0),
            high: AtomicI64::new(-1),
            newest_ms: AtomicI64::new(i64::MIN),
            stored_offset: AtomicI64::new(-1),
            accounts: AtomicU64::new(0),
            known: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            open: AtomicU64::new(0),
            at_end: AtomicBool::new(false),
            rejects: AtomicU64::new(0),
            progress: Progress::default(),
            rest: Mutex::new(Standing { stage: Stage::Restoring, stored: None }),
        }
    }
}

impl Board {
    /// How many records are still to be read; `None` where the end is not known yet.
    pub fn lag(&self) -> Option<i64> {
        let high = self.high.load(Ordering::Relaxed);
        let behind = (high - self.next_offset.load(Ordering::Relaxed)).max(0);
        (high >= 0).then_some(if self.at_end.load(Ordering::Relaxed) { 0 } else { behind })
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).stage.clone()
    }

    /// Says where it stands.
    pub fn set_stage(&self, stage: Stage) {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).stage = stage;
    }

    /// Says that a checkpoint was stored.
    pub fn set_stored(&self, offset: i64) {
        self.stored_offset.store(offset, Ordering::Relaxed);
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).stored = Some(Instant::now());
    }

    /// How old the last checkpoint is.
    pub fn stored_age(&self) -> Option<Duration> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner).stored.map(|at| at.elapsed())
    }
}

/// What all threads know.
pub struct Shared {
    /// The brokers.
    pub kafka: Kafka,
    /// Partitions of the events topic.
    pub partitions: i32,
    /// What the operator has allowed.
    pub allowed: Allowed,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The way out.
    pub outlet: Outlet,
    /// What people decided.
    pub control: Control,
    /// When history began.
    pub history: History,
    /// Without a state: nothing is stored, as the demo does.
    pub is_stateless: bool,
    /// The way to each worker.
    pub workers: Vec<Sender<Order>>,
    /// The way to the poll thread.
    pub poll: Sender<PollOrder>,
    /// The way to the restorers.
    pub restorers: Sender<RestoreOrder>,
    /// The way to the checkpointer.
    pub checkpointer: Sender<Job>,
    epoch: RwLock<Arc<Epoch>>,
    boards: RwLock<HashMap<i32, Arc<Board>>>,
    routes: Mutex<HashMap<i32, Route>>,
    /// Grows with every change of the routes, so that the poll thread can keep a copy.
    routes_version: AtomicU64,
    membership: Mutex<Option<Arc<ConsumerGroupMetadata>>>,
    stopping: AtomicBool,
    failure: Mutex<Option<anyhow::Error>>,
    /// When the poll thread last turned, in milliseconds since the program began.
    turned_ms: AtomicU64,
    /// Checkpoints stored.
    pub checkpoints: AtomicU64,
    /// When the program began.
    pub started: Instant,
}

/// What [`Shared`] is made of.
pub struct Parts {
    /// See [`Shared`].
    pub kafka: Kafka,
    /// See [`Shared`].
    pub partitions: i32,
    /// See [`Shared`].
    pub allowed: Allowed,
    /// See [`Shared`].
    pub metrics: Arc<Metrics>,
    /// See [`Shared`].
    pub outlet: Outlet,
    /// See [`Shared`].
    pub is_stateless: bool,
    /// See [`Shared`].
    pub workers: Vec<Sender<Order>>,
    /// See [`Shared`].
    pub poll: Sender<PollOrder>,
    /// See [`Shared`].
    pub restorers: Sender<RestoreOrder>,
    /// See [`Shared`].
    pub checkpointer: Sender<Job>,
    /// The configuration to begin with.
    pub epoch: Epoch,
}

impl Shared {
    /// Puts it together.
    pub fn new(parts: Parts) -> Self {
        Self {
            kafka: parts.kafka,
            partitions: parts.partitions,
            allowed: parts.allowed,
            metrics: parts.metrics,
            outlet: parts.outlet,
            control: Control::default(),
            history: History::default(),
            is_stateless: parts.is_stateless,
            workers: parts.workers,
            poll: parts.poll,
            restorers: parts.restorers,
            checkpointer: parts.checkpointer,
            epoch: RwLock::new(Arc::new(parts.epoch)),
            boards: RwLock::default(),
            routes: Mutex::default(),
            routes_version: AtomicU64::new(0),
            membership: Mutex::new(None),
            stopping: AtomicBool::new(false),
            failure: Mutex::new(None),
            turned_ms: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// The configuration in force.
    pub fn epoch(&self) -> Arc<Epoch> {
        Arc::clone(&self.epoch.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another configuration in force, and tells the workers.
    pub fn set_epoch(&self, epoch: Epoch) {
        let epoch = Arc::new(epoch);
        *self.epoch.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&epoch);
        for worker in &self.workers {
            let _ = worker.send(Order::Epoch(Arc::clone(&epoch)));
        }
    }

    /// What is known of a partition that is ours.
    pub fn board(&self, partition: i32) -> Option<Arc<Board>> {
        self.boards.read().unwrap_or_else(PoisonError::into_inner).get(&partition).cloned()
    }

    /// What is known of all partitions that are ours, in their order.
    pub fn boards(&self) -> Vec<(i32, Arc<Board>)> {
        let boards = self.boards.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = boards.iter().map(|(p, b)| (*p, Arc::clone(b))).collect();
        all.sort_by_key(|(p, _)| *p);
        all
    }

    /// Which worker has a partition, whenever it is ours.
    pub fn worker_of(&self, partition: i32) -> usize {
        partition as usize % self.workers.len().max(1)
    }

    /// A partition is ours from now on.
    pub fn begin(&self, partition: i32) -> Arc<Lease> {
        let lease = Arc::new(Lease::new(partition));
        let route = Route { lease: Arc::clone(&lease), worker: self.worker_of(partition) };
        let before = self.change_routes(|routes| routes.insert(partition, route));
        if let Some(before) = before {
            before.lease.end();
        }
        self.boards.write().unwrap_or_else(PoisonError::into_inner).insert(partition, Arc::default());
        self.metrics.meet_partition(partition);
        self.metrics.partitions_assigned.set(self.boards().len() as i64);
        lease
    }

    /// The partition of this lease goes back to its last checkpoint, under a lease of its own. `None` where it is no longer ours.
    pub fn renew(&self, old: &Lease) -> Option<Arc<Lease>> {
        let lease = Arc::new(Lease::new(old.partition));
        let renewed = self.change_routes(|routes| {
            let route = routes.get_mut(&old.partition).filter(|r| *r.lease == *old)?;
            route.lease.end();
            route.lease = Arc::clone(&lease);
            Some(Arc::clone(&lease))
        })?;
        if let Some(board) = self.board(old.partition) {
            board.set_stage(Stage::Restoring);
        }
        Some(renewed)
    }

    /// A partition is no longer ours.
    pub fn end(&self, partition: i32) -> Option<Route> {
        let route = self.change_routes(|routes| routes.remove(&partition))?;
        route.lease.end();
        self.boards.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        self.metrics.forget_partition(partition);
        self.metrics.partitions_assigned.set(self.boards().len() as i64);
        Some(route)
    }

    fn change_routes<T>(&self, change: impl FnOnce(&mut HashMap<i32, Route>) -> T) -> T {
        let result = change(&mut self.routes.lock().unwrap_or_else(PoisonError::into_inner));
        self.routes_version.fetch_add(1, Ordering::Release);
        result
    }

    /// The routes, and their version.
    pub fn routes(&self) -> (u64, HashMap<i32, Route>) {
        let version = self.routes_version();
        (version, self.routes.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Grows with every change of the routes.
    pub fn routes_version(&self) -> u64 {
        self.routes_version.load(Ordering::Acquire)
    }

    /// Halts a partition: it is read no further, and the reason is said wherever somebody looks.
    pub fn halt(&self, lease: &Arc<Lease>, reason: &'static str, words: String) {
        if !lease.is_valid() {
            return;
        }
        let partition = lease.partition;
        tracing::error!(partition, reason, "partition halted: {words}");
        self.metrics.halted(partition, Some(reason));
        if let Some(board) = self.board(partition) {
            board.set_stage(Stage::Halted(reason, words));
        }
        let _ = self.poll.send(PollOrder::Pause(Arc::clone(lease)));
    }

    /// What the group knows us by, as of its last assignment. It is taken there and nowhere else: a member that the group has
    /// given up would get a blank one, which the brokers do not check.
    pub fn membership(&self) -> Option<Arc<ConsumerGroupMetadata>> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets what the group knows us by.
    pub fn set_membership(&self, membership: Option<ConsumerGroupMetadata>) {
        *self.membership.lock().unwrap_or_else(PoisonError::into_inner) = membership.map(Arc::new);
    }

    /// Asks everybody to stop.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Whether to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Stops with an error.
    pub fn fail(&self, error: anyhow::Error) {
        tracing::error!("{error:#}");
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop();
    }

    /// The error to stop with.
    pub fn failure(&self) -> Option<anyhow::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The poll thread turns.
    pub fn turn(&self) {
        self.turned_ms.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// How long ago the poll thread last turned.
    pub fn since_turn(&self) -> Duration {
        let turned = Duration::from_millis(self.turned_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(turned)
    }

    /// Bytes that the accounts of all partitions take.
    pub fn account_bytes(&self) -> u64 {
        self.boards().iter().map(|(_, b)| b.bytes.load(Ordering::Relaxed)).sum()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}
