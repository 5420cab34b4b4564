//! A worker: one loop over orders and batches. It owns the shards of its partitions. It waits for a broker only where an
//! outlet is full, where decisions may be about an event, and once, for the beginning of history, where a topic was empty.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::batch::Batch;
use super::held::Held;
use super::lease::Lease;
use super::one::{Counts, concerns, one, send_alerts, send_due_signals};
use super::orders::{Installed, NotStored, Order, PollOrder, Stored};
use super::poison::Poison;
use super::shared::{Epoch, Shared, Stage};
use crate::core::alert::Alert;
use crate::core::decision::Decisions;
use crate::core::shard::{Ahead, Shard};
use crate::event::Timestamp;
use crate::kafka::outlet;
use crate::telemetry::{AccountAnswer, AccountView};

/// A partition that has been read to its end is ticked this often.
const TICK: Duration = Duration::from_secs(1);
/// Why a partition is halted that has no memory left.
const MEMORY: &str = "memory";
/// The configuration changes at a checkpoint; where none succeeds within this, without one.
const NEW_EPOCH: Duration = Duration::from_secs(10);

/// A worker.
pub(super) struct Worker {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    me: Sender<Order>,
    full: Receiver<Batch>,
    empty: Sender<Batch>,
    held: HashMap<i32, Held>,
    epoch: Arc<Epoch>,
    next_epoch: Option<(Arc<Epoch>, Instant)>,
    ticked: Instant,
    /// Until when no event waits for decisions.
    hasty_until: Option<Instant>,
    alerts: Vec<Alert>,
    ahead: Ahead,
}

impl Worker {
    pub(super) fn new(
        shared: &Arc<Shared>,
        orders: Receiver<Order>,
        me: Sender<Order>,
        full: Receiver<Batch>,
        empty: Sender<Batch>,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            orders,
            me,
            full,
            empty,
            held: HashMap::new(),
            epoch: shared.epoch(),
            next_epoch: None,
            ticked: Instant::now(),
            hasty_until: None,
            alerts: Vec::new(),
            ahead: Ahead::default(),
        }
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self) {
        loop {
            let is_busy = self.checkpoints();
            if self.ticked.elapsed() >= TICK {
                self.ticked = Instant::now();
                self.tick();
            }
            // Orders first: a partition is installed before its batches are looked at.
            while let Ok(order) = self.orders.try_recv() {
                if !self.obey(order) {
                    return;
                }
            }
            if self.next_epoch.is_some() {
                // Nothing is read between the checkpoint and the change.
                if !self.is_switched() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                continue;
            }
            let wait = Duration::from_millis(if is_busy { 0 } else { 10 });
            select! {
                recv(self.orders) -> order => match order {
                    Ok(order) => if !self.obey(order) { return },
                    Err(_) => return,
                },
                recv(self.full) -> batch => match batch {
                    Ok(batch) => self.batch(batch),
                    Err(_) => return,
                },
                default(wait) => {}
            }
        }
    }

    /// Returns whether to go on.
    fn obey(&mut self, order: Order) -> bool {
        match order {
            Order::Install(installed) => self.install(*installed),
            Order::Drain { lease, done } => self.drain(&lease, done),
            Order::Drop(lease) => {
                if self.held.get(&lease.partition).is_some_and(|h| *h.lease == *lease) {
                    self.held.remove(&lease.partition);
                }
            }
            Order::Decisions(decisions) => self.decide(&decisions),
            Order::Epoch(epoch) => self.next_epoch = Some((epoch, Instant::now() + NEW_EPOCH)),
            Order::Stored(stored) => self.stored(*stored),
            Order::Account { name, partition, reply } => {
                let _ = reply.send(self.account(&name, partition));
            }
            Order::Contacts { name, partition, incident, reply } => {
                let shard = self.held.get(&partition).and_then(|held| held.shard.as_ref());
                let account = shard.and_then(|shard| shard.account(&name));
                let _ = reply.send(account.map(|account| account.contacts_before(&incident).clone()));
            }
            Order::Stop => return false,
        }
        true
    }

    fn install(&mut self, mut installed: Installed) {
        let partition = installed.lease.partition;
        let Some(board) = self.shared.board(partition).filter(|_| installed.lease.is_valid()) else { return };
        if let Some(shard) = &mut installed.shard {
            self.prepare(shard, partition);
        }
        let run = &self.epoch.run;
        let poison = Poison::new(run.rejects_window, run.rejects_max_share);
        let held = Held::new(installed, board, poison);
        if let Some(shard) = &held.shard {
            show(&held, shard);
        }
        self.held.insert(partition, held);
    }

    /// A shard that begins learns what stands about its accounts, and which configuration is in force here.
    fn prepare(&self, shard: &mut Shard, partition: i32) {
        if let Err(e) = shard.set_policy(Arc::clone(&self.epoch.policy)) {
            // What a state may not change was held against the configuration when it was read.
            tracing::error!(partition, "{e}");
        }
        for decisions in self.shared.control.all() {
            if concerns(&decisions, partition, self.shared.partitions) {
                shard.decide(decisions);
            }
        }
    }

    fn decide(&mut self, decisions: &Arc<Decisions>) {
        let partitions = self.shared.partitions;
        for (_, held) in self.held.iter_mut().filter(|(partition, _)| concerns(decisions, **partition, partitions)) {
            if let Some(shard) = &mut held.shard {
                shard.decide(Arc::clone(decisions));
            }
        }
    }

    fn drain(&mut self, lease: &Lease, done: Sender<(i32, bool)>) {
        // What was read before the order still counts: it is in the queue by now.
        while let Ok(batch) = self.full.try_recv() {
            self.batch(batch);
        }
        match self.held.get_mut(&lease.partition) {
            Some(held) if *held.lease == *lease && !held.is_halted => held.drain = Some(done),
            Some(held) if *held.lease == *lease => {
                let _ = done.send((lease.partition, false));
            }
            // Not restored yet: nothing to store.
            _ => {
                let _ = done.send((lease.partition, true));
            }
        }
    }

    fn stored(&mut self, stored: Stored) {
        let lease = &stored.lease;
        let Some(held) = self.held.get_mut(&lease.partition).filter(|h| *h.lease == **lease) else { return };
        match stored.outcome {
            Ok(offset) => {
                held.stored(offset, stored.changelog);
                self.shared.checkpoints.fetch_add(1, Ordering::Relaxed);
                self.shared.metrics.checkpointed(lease.partition, Instant::now());
                if let Some(shard) = &held.shard {
                    show(held, shard);
                }
                self.watch_memory();
            }
            Err(NotStored::TryAgain(why)) => {
                tracing::warn!(partition = lease.partition, "no checkpoint, tried again: {why}");
                held.not_stored(stored.changelog);
            }
            Err(NotStored::GoBack(why)) => {
                tracing::warn!(partition = lease.partition, "goes back to its last checkpoint: {why}");
                held.not_stored(None);
                self.go_back(lease.partition);
            }
            Err(NotStored::GivenUp) => {
                held.not_stored(None);
                if held.lease.is_valid() {
                    self.go_back(lease.partition);
                }
            }
        }
    }

    fn go_back(&mut self, partition: i32) {
        let Some(held) = self.held.remove(&partition) else { return };
        if let Some(done) = &held.drain {
            let _ = done.send((partition, false));
        }
        super::restorer::again(&self.shared, &held.lease, 2);
    }

    /// Begins what is due, gives on what is under way, lets go what is drained. Returns whether there is more to do at once.
    fn checkpoints(&mut self) -> bool {
        let mut is_busy = false;
        let is_switching = self.next_epoch.is_some();
        let run = &self.epoch.run;
        let (every_ms, every_events) = if is_switching { (0, 1) } else { (run.checkpoint_ms, run.checkpoint_events) };
        for held in self.held.values_mut() {
            if held.is_due(every_ms, every_events) && held.can_store() {
                held.begin(&self.shared, &self.epoch, &self.me);
            }
            is_busy |= held.give();
            if held.is_stored()
                && let Some(done) = held.drain.take()
            {
                held.is_halted = true;
                let _ = done.send((held.lease.partition, true));
            }
        }
        is_busy
    }

    /// The new configuration, once everything under the old one is stored.
    fn is_switched(&mut self) -> bool {
        let Some((epoch, deadline)) = &self.next_epoch else { return true };
        let is_late = Instant::now() > *deadline;
        if !is_late && !self.held.values().all(|h| h.is_stored() || h.is_halted) {
            return false;
        }
        if is_late {
            tracing::warn!(
                "the configuration changes without a checkpoint: after a crash, what came since the last one is judged anew"
            );
        }
        for held in self.held.values_mut() {
            let run = &epoch.run;
            held.poison = Poison::new(run.rejects_window, run.rejects_max_share);
            if let Some(shard) = &mut held.shard
                && let Err(e) = shard.set_policy(Arc::clone(&epoch.policy))
            {
                tracing::error!(partition = held.lease.partition, "{e}");
            }
        }
        self.epoch = Arc::clone(epoch);
        self.next_epoch = None;
        self.resume_for_memory();
        true
    }

    /// Partitions that were halted for want of memory go on where the limit allows it now.
    fn resume_for_memory(&self) {
        if self.is_over_memory() {
            return;
        }
        for held in self.held.values() {
            if matches!(held.board.stage(), Stage::Halted(MEMORY, _)) {
                tracing::info!(partition = held.lease.partition, "goes on: the limit of memory was raised");
                held.board.set_stage(Stage::Running);
                self.shared.metrics.halted(held.lease.partition, None);
                let _ = self.shared.poll.send(PollOrder::Resume(Arc::clone(&held.lease), held.next_offset));
            }
        }
    }

    fn is_over_memory(&self) -> bool {
        let max = self.epoch.run.memory_max_mib << 20;
        max > 0 && self.shared.account_bytes() > max
    }

    /// A partition that has been read to its end: event time goes on as the clock does, for what is due to be cleared.
    fn tick(&mut self) {
        let mut alerts = std::mem::take(&mut self.alerts);
        for held in self.held.values_mut() {
            let Some(shard) = &mut held.shard else { continue };
            if held.at_end && !held.is_halted && shard.newest().0 > i64::MIN {
                let idle_ms = i64::try_from(held.arrived.elapsed().as_millis()).unwrap_or(i64::MAX);
                shard.tick(Timestamp(shard.newest().0.saturating_add(idle_ms)), &mut alerts);
                let _ = send_alerts(&self.shared, held, &mut alerts, 0);
            }
            // Where the lease has ended nothing counts any more.
            if !held.is_halted {
                let _ = send_due_signals(&self.shared, held);
            }
            if let Some(shard) = &held.shard {
                show(held, shard);
                let (p, m) = (held.lease.partition, &self.shared.metrics);
                m.accounts.at(p).set(shard.accounts() as i64);
                m.account_bytes.at(p).set(shard.bytes() as i64);
                m.open_incidents.at(p).set(shard.open() as i64);
            }
        }
        self.alerts = alerts;
    }

    fn watch_memory(&self) {
        if !self.is_over_memory() {
            return;
        }
        let words = format!(
            "the accounts take {} MiB, run.memory_max_mib allows {}: raise it and reload (SIGHUP), or add an instance",
            self.shared.account_bytes() >> 20,
            self.epoch.run.memory_max_mib
        );
        for held in self.held.values().filter(|h| h.board.stage() == Stage::Running) {
            self.shared.halt(&held.lease, MEMORY, words.clone());
        }
    }

    fn account(&self, name: &str, partition: i32) -> AccountAnswer {
        let Some(held) = self.held.get(&partition) else {
            return AccountAnswer::NotReady(format!("partition {partition} is being restored"));
        };
        let found = held.shard.as_ref().and_then(|shard| Some((shard, shard.account(name)?)));
        match found {
            Some((shard, account)) => {
                let now = Timestamp(outlet::now_ms());
                AccountAnswer::Here(Box::new(AccountView::new(&account, shard, now)))
            }
            None => AccountAnswer::Unknown { partition },
        }
    }

    fn batch(&mut self, batch: Batch) {
        let partition = batch.lease.partition;
        if let Some(held) =
            self.held.get_mut(&partition).filter(|h| *h.lease == *batch.lease && !h.is_halted && h.drain.is_none())
            && batch.lease.is_valid()
        {
            let began = Instant::now();
            let mut counts = Counts::default();
            let shared = &self.shared;
            if let Some(shard) = &held.shard {
                // The key is the account, so that it is known before anything is decoded.
                shard.look_ahead(batch.records().map(|r| r.key), &mut self.ahead);
            }
            for record in batch.records() {
                let result =
                    one(shared, &self.epoch, held, record, &mut self.alerts, &mut counts, &mut self.hasty_until);
                if result.is_err() {
                    // What comes behind a record that does not count must not count either: it is read again.
                    held.is_halted = true;
                    break;
                }
            }
            if !held.is_halted && send_due_signals(shared, held).is_err() {
                held.is_halted = true;
            }
            if batch.len() > 0 {
                held.arrived = Instant::now();
                shared.metrics.decide_seconds.observe(began.elapsed().as_secs_f64() / batch.len() as f64);
            }
            held.at_end = batch.at_end;
            held.board.at_end.store(batch.at_end, Ordering::Relaxed);
            held.events_since += batch.len() as u64;
            held.board.next_offset.store(held.next_offset, Ordering::Relaxed);
            if let Some(shard) = &held.shard {
                held.board.newest_ms.store(shard.newest().0, Ordering::Relaxed);
            }
            counts.tell(shared, partition);
        }
        let _ = self.empty.try_send(batch);
    }
}

fn show(held: &Held, shard: &Shard) {
    let board = &held.board;
    board.accounts.store(shard.accounts() as u64, Ordering::Relaxed);
    board.bytes.store(shard.bytes() as u64, Ordering::Relaxed);
    board.known.store(shard.known_long() as u64, Ordering::Relaxed);
    board.open.store(shard.open() as u64, Ordering::Relaxed);
    board.newest_ms.store(shard.newest().0, Ordering::Relaxed);
}
