//! The poll thread: takes records from librdkafka and hands them to the workers, and answers the group's rebalances.
//!
//! It never decodes and never waits for long, except for a worker whose queue is full: then nothing is polled, which is the
//! backpressure; only when that lasts are partitions paused, because a pause throws away what was fetched ahead.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, TrySendError};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};

use super::batch::{Batch, Record};
use super::orders::{Order, PollOrder, RestoreOrder};
use super::settings::Start;
use super::shared::{Route, Shared};
use crate::kafka::client::{self, COORDINATOR_MS, LastTrouble, client_config, complain, cure};
use crate::kafka::group::seek;
use crate::telemetry::Rebalance;

/// A worker whose queue has been full for so long has its partitions paused.
const PAUSE_AFTER: Duration = Duration::from_secs(3);
/// The longest wait for a record.
const POLL: Duration = Duration::from_millis(20);
/// The same complaint is said once in so long.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Answers rebalances and statistics on the poll thread.
struct Context {
    shared: Arc<Shared>,
    trouble: LastTrouble,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        client::log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            self.shared.metrics.broker_error(kind(&error));
        }
        complain(&self.trouble, &error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        super::lag::note(&self.shared, statistics);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match what {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        }
    }
}

fn kind(error: &KafkaError) -> &'static str {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::SSL) => {
            "authentication"
        }
        Some(RDKafkaErrorCode::AllBrokersDown) => "all_down",
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve) => "transport",
        Some(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut) => "time_out",
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition,
        ) => "unknown_topic",
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed,
        ) => "authorization",
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => "out_of_range",
        _ => "other",
    }
}

impl Context {
    /// New partitions: they are ours at once, paused, and read once they are restored.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        self.shared.metrics.rebalanced(Rebalance::Assign);
        let partitions: Vec<i32> = list.elements().iter().map(|e| e.partition()).collect();
        if let Some(p) = partitions.iter().find(|p| **p >= self.shared.partitions) {
            self.shared.fail(super::more_partitions(&self.shared.kafka, self.shared.partitions, *p + 1));
        }
        // Where they begin is known when they are restored; until then they are paused, and this is only a place that exists.
        for mut element in list.elements() {
            if let Err(e) = element.set_offset(Offset::Beginning) {
                tracing::warn!("{e}");
            }
        }
        let assigned = consumer.incremental_assign(list).and_then(|()| consumer.pause(list));
        if let Err(e) = assigned {
            self.shared.fail(anyhow::anyhow!("the assignment was not taken: {e}"));
            return;
        }
        // As soon as it is known, and only from here: see `Shared::membership`.
        self.shared.set_membership(consumer.group_metadata());
        if !partitions.is_empty() {
            tracing::info!(?partitions, "assigned");
        }
        for partition in partitions {
            let lease = self.shared.begin(partition);
            let _ = self.shared.restorers.send(RestoreOrder { lease, tries: 0 });
        }
    }

    /// Partitions that go elsewhere: a last checkpoint while they are still ours, or none where they are lost already.
    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|e| e.partition()).collect();
        if consumer.assignment_lost() {
            self.shared.metrics.rebalanced(Rebalance::Lost);
            tracing::warn!(?partitions, "lost: the group took this instance for dead");
            for partition in &partitions {
                if let Some(route) = self.shared.end(*partition) {
                    let _ = self.shared.workers[route.worker].send(Order::Drop(route.lease));
                }
            }
            self.shared.set_membership(None);
        } else {
            self.shared.metrics.rebalanced(Rebalance::Revoke);
            tracing::info!(?partitions, "revoked");
            drain(&self.shared, &partitions);
        }
        if let Err(e) = consumer.incremental_unassign(list) {
            tracing::warn!("the partitions were not given back: {e}");
        }
    }
}

/// A last checkpoint of some partitions, within the deadline; then they are nobody's.
fn drain(shared: &Shared, partitions: &[i32]) {
    let deadline = Instant::now() + Duration::from_secs(shared.epoch().run.drain_s.into());
    let (done, drained) = crossbeam_channel::unbounded();
    let (_, routes) = shared.routes();
    let mut waiting = 0;
    for partition in partitions {
        let Some(route) = routes.get(partition) else { continue };
        let order = Order::Drain { lease: Arc::clone(&route.lease), done: done.clone() };
        if shared.workers[route.worker].send(order).is_ok() {
            waiting += 1;
        }
    }
    drop(done);
    let mut unstored = Vec::new();
    while waiting > 0 {
        match drained.recv_deadline(deadline) {
            Ok((_, true)) => waiting -= 1,
            Ok((partition, false)) => {
                waiting -= 1;
                unstored.push(partition);
            }
            Err(_) => break,
        }
    }
    if waiting > 0 || !unstored.is_empty() {
        tracing::warn!(
            late = waiting,
            ?unstored,
            "no last checkpoint of some partitions: what came since the one before is read again by the next owner"
        );
    }
    for partition in partitions {
        if let Some(route) = shared.end(*partition) {
            let _ = shared.workers[route.worker].send(Order::Drop(route.lease));
        }
    }
}

/// The way of batches to a worker, and of empty ones back.
#[derive(Debug)]
pub(super) struct Lane {
    /// Full ones.
    pub full: Sender<Batch>,
    /// Empty ones.
    pub empty: Receiver<Batch>,
}

/// One partition, as the poll thread sees it.
struct Reading {
    route: Route,
    running: bool,
    batch: Option<Batch>,
}

/// The poll thread.
pub(super) struct Poll {
    shared: Arc<Shared>,
    consumer: BaseConsumer<Context>,
    orders: Receiver<PollOrder>,
    lanes: Vec<Lane>,
    version: u64,
    partitions: HashMap<i32, Reading>,
    /// Partitions with a batch begun.
    begun: Vec<i32>,
    /// Batches that a full queue did not take, by worker, with the moment since when.
    held: Vec<Option<(Instant, Vec<Batch>)>>,
    paused: bool,
    said: HashMap<&'static str, Instant>,
}

impl Poll {
    pub(super) fn new(
        shared: &Arc<Shared>,
        orders: Receiver<PollOrder>,
        lanes: Vec<Lane>,
        client_id: &str,
    ) -> anyhow::Result<Self> {
        let run = &shared.epoch().run;
        let mut config = client_config(&shared.kafka)?;
        config
            .set("client.id", client_id)
            .set("group.id", &shared.kafka.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", run.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (run.session_timeout_ms / 10).clamp(100, 3000).to_string())
            .set("max.poll.interval.ms", run.session_timeout_ms.max(300_000).to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A restore says where to begin. An offset that is not there is an error, never a jump.
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("coordinator.query.interval.ms", COORDINATOR_MS)
            .set("statistics.interval.ms", "1000");
        // A named instance that comes back has its partitions at once, and its older self is fenced (KIP-345).
        if !run.instance.is_empty() {
            config.set("group.instance.id", &run.instance);
        }
        for (key, value) in [
            // Little waiting where little comes, few requests where much does.
            ("fetch.wait.max.ms", "100"),
            ("fetch.min.bytes", "1"),
            ("fetch.message.max.bytes", "4194304"),
            ("queued.min.messages", "100000"),
            ("queued.max.messages.kbytes", "65536"),
            // What a full queue waits before it is filled again: the default of a second would be a second of idleness.
            ("fetch.queue.backoff.ms", "5"),
        ] {
            if !shared.kafka.properties.contains_key(key) {
                config.set(key, value);
            }
        }
        let context = Context { shared: Arc::clone(shared), trouble: LastTrouble::default() };
        let consumer: BaseConsumer<Context> = config.create_with_context(context)?;
        consumer.subscribe(&[&shared.kafka.topics.events])?;
        let held = lanes.iter().map(|_| None).collect();
        Ok(Self {
            shared: Arc::clone(shared),
            consumer,
            orders,
            lanes,
            version: u64::MAX,
            partitions: HashMap::new(),
            begun: Vec::new(),
            held,
            paused: false,
            said: HashMap::new(),
        })
    }

    /// Until somebody asks to stop; then a last checkpoint of everything.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while !shared.is_stopping() {
            shared.turn();
            self.follow_routes();
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
            if self.is_held_back() {
                continue;
            }
            self.poll();
        }
        let partitions: Vec<i32> = shared.routes().1.into_keys().collect();
        tracing::info!(partitions = partitions.len(), "stopping: a last checkpoint");
        drain(&shared, &partitions);
        self.consumer.unsubscribe();
        // Leaves the group; its callbacks find nothing to do.
    }

    /// Polls until there is nothing to take, or enough has been taken to look at everything else again.
    fn poll(&mut self) {
        let mut wait = POLL;
        for _ in 0..4096 {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    if self.version != self.shared.routes_version() {
                        break_off(&mut self.partitions, &self.shared, &mut self.version);
                    }
                    let full = take(&mut self.partitions, &mut self.begun, &self.lanes, &message);
                    drop(message);
                    if let Some((worker, full)) = full
                        && !self.hand(worker, full)
                    {
                        return;
                    }
                    wait = Duration::ZERO;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.hand_begun();
                    self.hand_end(partition);
                }
                Some(Err(error)) => self.trouble(&error),
                None => {
                    self.hand_begun();
                    return;
                }
            }
        }
        self.hand_begun();
    }

    /// Hands over what was begun: nothing waits for a batch to be full.
    fn hand_begun(&mut self) {
        for partition in std::mem::take(&mut self.begun) {
            let Some(reading) = self.partitions.get_mut(&partition) else { continue };
            let worker = reading.route.worker;
            if let Some(batch) = reading.batch.take() {
                self.hand(worker, batch);
            }
        }
    }

    /// Says that a partition has been read to its end.
    fn hand_end(&mut self, partition: i32) {
        let Some(reading) = self.partitions.get(&partition).filter(|r| r.running) else { return };
        let mut batch = Batch::new(Arc::clone(&reading.route.lease), None);
        batch.at_end = true;
        let worker = reading.route.worker;
        self.hand(worker, batch);
    }

    /// Gives a batch to a worker, or keeps it where its queue is full. Returns whether it was taken.
    fn hand(&mut self, worker: usize, batch: Batch) -> bool {
        if !batch.lease.is_valid() {
            return true;
        }
        if let Some((_, held)) = &mut self.held[worker] {
            held.push(batch);
            return false;
        }
        match self.lanes[worker].full.try_send(batch) {
            Ok(()) => true,
            Err(TrySendError::Full(batch)) => {
                self.held[worker] = Some((Instant::now(), vec![batch]));
                false
            }
            Err(TrySendError::Disconnected(_)) => {
                self.shared.fail(anyhow::anyhow!("a worker has ended; this is a bug"));
                true
            }
        }
    }

    /// Offers what is kept again. Returns whether anything is still kept, so that nothing more is polled.
    fn is_held_back(&mut self) -> bool {
        let mut since = None;
        for worker in 0..self.held.len() {
            let Some((at, batches)) = self.held[worker].take() else { continue };
            let mut batches = batches.into_iter().filter(|b| b.lease.is_valid());
            let mut left = Vec::new();
            for batch in batches.by_ref() {
                match self.lanes[worker].full.send_timeout(batch, Duration::from_millis(10)) {
                    Ok(()) => {}
                    Err(SendTimeoutError::Timeout(batch) | SendTimeoutError::Disconnected(batch)) => {
                        left.push(batch);
                        break;
                    }
                }
            }
            left.extend(batches);
            if !left.is_empty() {
                since = Some(since.map_or(at, |s: Instant| s.min(at)));
                self.held[worker] = Some((at, left));
            }
        }
        match since {
            Some(at) if at.elapsed() > PAUSE_AFTER && !self.paused => {
                tracing::warn!("the workers do not keep up: reading pauses");
                self.paused = true;
                self.pause_running(true);
            }
            None if self.paused => {
                self.paused = false;
                self.pause_running(false);
            }
            _ => {}
        }
        if since.is_some() {
            self.shared.metrics.paused_seconds.inc_by(0.01);
        }
        if self.paused {
            // Paused partitions give nothing; the group wants to be polled all the same.
            match self.consumer.poll(Duration::from_millis(10)) {
                Some(Err(error)) if !matches!(error, KafkaError::PartitionEOF(_)) => self.trouble(&error),
                _ => {}
            }
        }
        since.is_some()
    }

    fn pause_running(&mut self, pause: bool) {
        let mut list = TopicPartitionList::new();
        for partition in self.partitions.iter().filter(|(_, r)| r.running).map(|(p, _)| *p) {
            list.add_partition(&self.shared.kafka.topics.events, partition);
        }
        let result = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(e) = result {
            tracing::warn!("{e}");
        }
    }

    fn follow_routes(&mut self) {
        if self.version != self.shared.routes_version() {
            break_off(&mut self.partitions, &self.shared, &mut self.version);
        }
    }

    fn obey(&mut self, order: PollOrder) {
        self.follow_routes();
        let (lease, offset) = match order {
            PollOrder::Resume(lease, offset) => (lease, Some(offset)),
            PollOrder::Pause(lease) => (lease, None),
        };
        let topic = self.shared.kafka.topics.events.clone();
        let Some(reading) = self.partitions.get_mut(&lease.partition).filter(|r| *r.route.lease == *lease) else {
            return;
        };
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, lease.partition);
        let Some(offset) = offset else {
            reading.running = false;
            reading.batch = None;
            if let Err(e) = self.consumer.pause(&list) {
                tracing::warn!("{topic}:{}: not paused: {e}", lease.partition);
            }
            return;
        };
        match seek(&self.consumer, &topic, lease.partition, offset, &|| lease.is_valid())
            .and_then(|()| self.consumer.resume(&list))
        {
            Ok(()) => reading.running = true,
            Err(e) => {
                let words = self
                    .consumer
                    .context()
                    .trouble
                    .explain(&format!("{topic}:{}: not readable from {offset}", lease.partition), &e);
                tracing::warn!("{words}; it is restored again");
                super::restorer::again(&self.shared, &lease, 1);
            }
        }
    }

    /// What librdkafka reports of the topic. It goes on trying by itself.
    fn trouble(&mut self, error: &KafkaError) {
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            let words = self.consumer.context().trouble.explain("the consumer cannot go on", error);
            self.shared.fail(anyhow::anyhow!("{words}"));
            return;
        }
        let kind = kind(error);
        self.shared.metrics.broker_error(kind);
        if kind == "out_of_range" {
            // It does not say which: whoever is not in range any more finds out when it is restored.
            for reading in self.partitions.values().filter(|r| r.running) {
                super::restorer::check_range(&self.shared, &reading.route.lease);
            }
        }
        let said = self.said.get(kind).is_some_and(|at| at.elapsed() < SAY_AGAIN);
        if !said {
            self.said.insert(kind, Instant::now());
            let words = error.to_string();
            let cure = error.rdkafka_error_code().and_then(cure).unwrap_or("It is tried again");
            tracing::error!(kind, "{}: {words}. {cure}", self.shared.kafka.topics.events);
        }
    }
}

/// Adds a record to the batch of its partition. Returns the batch, and for which worker, where it is full.
fn take(
    partitions: &mut HashMap<i32, Reading>,
    begun: &mut Vec<i32>,
    lanes: &[Lane],
    message: &rdkafka::message::BorrowedMessage<'_>,
) -> Option<(usize, Batch)> {
    let partition = message.partition();
    // What comes before a partition is restored comes again: it is sought to where it goes on.
    let reading = partitions.get_mut(&partition).filter(|r| r.running)?;
    let worker = reading.route.worker;
    let batch = match &mut reading.batch {
        Some(batch) => batch,
        none => {
            begun.push(partition);
            let used = lanes[worker].empty.try_recv().ok();
            none.insert(Batch::new(Arc::clone(&reading.route.lease), used))
        }
    };
    batch.push(Record {
        offset: message.offset(),
        appended_ms: message.timestamp().to_millis().unwrap_or(0),
        key: message.key().unwrap_or_default(),
        value: message.payload().unwrap_or_default(),
    });
    if !batch.is_full() {
        return None;
    }
    begun.retain(|p| *p != partition);
    reading.batch.take().map(|full| (worker, full))
}

/// Takes over the routes as they are now; what was begun for an ended lease is dropped, because its next owner reads it again.
fn break_off(partitions: &mut HashMap<i32, Reading>, shared: &Shared, version: &mut u64) {
    let (now, routes) = shared.routes();
    *version = now;
    partitions.retain(|p, r| routes.get(p).is_some_and(|route| *route.lease == *r.route.lease));
    for (partition, route) in routes {
        partitions.entry(partition).or_insert(Reading { route, running: false, batch: None });
    }
}

/// Where a fresh partition begins.
pub(super) fn start_offset(start: Start, low: i64, high: i64) -> i64 {
    match start {
        Start::Earliest => low,
        Start::Latest => high,
    }
}

impl Poll {
    /// The largest offsets known, for a last word.
    pub(super) fn describe(shared: &Shared) -> String {
        let boards = shared.boards();
        let lag: i64 = boards.iter().filter_map(|(_, b)| b.lag()).sum();
        format!("{} partitions, {lag} messages behind", boards.len())
    }
}
