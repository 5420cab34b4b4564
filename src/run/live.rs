//! What the HTTP server is told: how things stand, and what is known of one account.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::orders::Order;
use super::shared::{Board, Shared, Stage};
use crate::event::Timestamp;
use crate::kafka::outlet::now_ms;
use crate::kafka::partitioner::partition_of;
use crate::kafka::restore::Reader;
use crate::telemetry::status::{
    AccountAnswer, ControlStatus, Halted, Live, PartitionState, PartitionStatus, Restore, State, Status, Totals,
};

/// The poll thread turns many times a second; where it has not for so long, it hangs. Longer than a drain, which it waits for.
const HANGS: Duration = Duration::from_secs(90);
/// A worker answers between two batches.
const ANSWER: Duration = Duration::from_millis(1500);

/// The instance, as the server sees it.
pub(super) struct LiveView {
    shared: Arc<Shared>,
    instance: String,
    started: Timestamp,
}

impl LiveView {
    pub fn new(shared: &Arc<Shared>, instance: String) -> Self {
        Self { shared: Arc::clone(shared), instance, started: Timestamp(now_ms()) }
    }

    fn stages(&self) -> Vec<(i32, Stage)> {
        self.shared.boards().iter().map(|(p, b)| (*p, b.stage())).collect()
    }

    /// The HTTP address of whoever has a partition, as its client id says.
    fn owner(&self, partition: i32) -> Option<String> {
        let kafka = &self.shared.kafka;
        let client_id = Reader::new(kafka).ok()?.owner(&kafka.group, &kafka.topics.events, partition)?;
        client_id.rsplit(' ').next().filter(|a| !a.is_empty()).map(str::to_owned)
    }
}

impl Live for LiveView {
    fn status(&self) -> Status {
        let shared = &self.shared;
        let epoch = shared.epoch();
        let boards = shared.boards();
        let stages: Vec<Stage> = boards.iter().map(|(_, b)| b.stage()).collect();
        let state = if shared.is_stopping() {
            State::Draining
        } else if boards.is_empty() {
            State::Starting
        } else if stages.contains(&Stage::Restoring) {
            State::Restoring
        } else {
            State::Running
        };
        let m = &shared.metrics;
        let sum = |of: &crate::telemetry::metrics::PerPartition<prometheus_client::metrics::counter::Counter>| {
            boards.iter().map(|(p, _)| of.at(*p).get()).sum()
        };
        let t = &shared.kafka.topics;
        let topics = [
            ("events", &t.events),
            ("state", &t.state),
            ("alerts", &t.alerts),
            ("control", &t.control),
            ("desk", &t.desk),
            ("rejects", &t.rejects),
        ];
        Status {
            version: env!("CARGO_PKG_VERSION"),
            config_digest: epoch.digest.clone(),
            instance: self.instance.clone(),
            group: shared.kafka.group.clone(),
            started: self.started,
            state,
            workers: shared.workers.len(),
            totals: Totals {
                events: sum(&m.events),
                rejects: boards.iter().map(|(_, b)| b.rejects.load(Ordering::Relaxed)).sum(),
                duplicates: sum(&m.duplicates),
                late: sum(&m.late),
                alerts: m.alerts_sent.get(),
                checkpoints: shared.checkpoints.load(Ordering::Relaxed),
            },
            partitions: boards.iter().map(|(p, b)| partition_status(*p, b)).collect(),
            control: ControlStatus {
                read_to: shared.control.is_ready().then(|| shared.control.next_offset.load(Ordering::Relaxed)),
                records: shared.control.all().len() as u64,
            },
            topics: topics.into_iter().map(|(what, name)| (what, name.clone())).collect::<BTreeMap<_, _>>(),
        }
    }

    fn healthy(&self) -> Result<(), String> {
        let since = self.shared.since_turn();
        if since > HANGS {
            return Err(format!("the poll thread has not turned for {} s", since.as_secs()));
        }
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        if self.shared.is_stopping() {
            return Err("stopping".to_owned());
        }
        if self.shared.membership().is_none() {
            return Err("the group has not given this instance its partitions yet".to_owned());
        }
        let mut why = Vec::new();
        for (partition, stage) in self.stages() {
            match stage {
                Stage::Running => {}
                Stage::Restoring => why.push(format!("partition {partition} is being restored")),
                Stage::Halted(_, words) => why.push(format!("partition {partition} is halted: {words}")),
            }
        }
        if why.is_empty() { Ok(()) } else { Err(why.join("; ")) }
    }

    fn account(&self, name: &str) -> AccountAnswer {
        let shared = &self.shared;
        let partition = partition_of(name.as_bytes(), shared.partitions);
        if shared.board(partition).is_none() {
            return AccountAnswer::Elsewhere { partition, instance: self.owner(partition) };
        }
        let (reply, answer) = crossbeam_channel::bounded(1);
        let order = Order::Account { name: name.to_owned(), partition, reply };
        let sent = shared.workers[shared.worker_of(partition)].send(order).is_ok();
        match answer.recv_timeout(ANSWER) {
            Ok(answer) if sent => answer,
            _ => AccountAnswer::NotReady(format!("the worker of partition {partition} is busy; ask again")),
        }
    }
}

fn partition_status(partition: i32, board: &Board) -> PartitionStatus {
    let stage = board.stage();
    let known = |offset: i64| (offset >= 0).then_some(offset);
    let next_offset = board.next_offset.load(Ordering::Relaxed);
    let high = known(board.high.load(Ordering::Relaxed));
    let newest_ms = board.newest_ms.load(Ordering::Relaxed);
    let lag = board.lag();
    let (state, halted, restore) = match &stage {
        Stage::Restoring => {
            let p = &board.progress;
            let (read, of) = (p.read.load(Ordering::Relaxed), p.of.load(Ordering::Relaxed));
            (PartitionState::Restoring, None, Some(Restore::new(read, of)))
        }
        Stage::Running => (PartitionState::Running, None, None),
        Stage::Halted(reason, cure) => {
            (PartitionState::Halted, Some(Halted { reason: (*reason).to_owned(), cure: cure.clone() }), None)
        }
    };
    PartitionStatus {
        partition,
        state,
        next_offset: Some(next_offset),
        high_watermark: high,
        lag_messages: lag,
        lag_seconds: (newest_ms > i64::MIN)
            .then(|| if lag == Some(0) { 0.0 } else { (now_ms() - newest_ms).max(0) as f64 / 1000.0 }),
        checkpoint_offset: known(board.stored_offset.load(Ordering::Relaxed)),
        checkpoint_age_s: board.stored_age().map(|age| (age.as_secs_f64() * 1000.0).round() / 1000.0),
        accounts: board.accounts.load(Ordering::Relaxed),
        account_bytes: board.bytes.load(Ordering::Relaxed),
        open_incidents: board.open.load(Ordering::Relaxed),
        newest_event: (newest_ms > i64::MIN).then_some(Timestamp(newest_ms)),
        rejects: board.rejects.load(Ordering::Relaxed),
        halted,
        restore,
    }
}
