//! What people decided, as it comes: the `control` topic, read to its end before the first event and followed from then on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::client::{self, Context, client_config};
use super::settings::Kafka;
use crate::core::decision::{BadDecisions, Decisions};
use crate::core::scope::Scope;

/// A decision must begin this long after it was written, so that every instance knows it before its first event.
pub const GRACE_MS: i64 = 10_000;
/// A transaction that is open for longer is spoken of; those of the desk end within a minute.
const LONG: Duration = Duration::from_secs(90);
/// How often the end of the topic is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A record of the control topic that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// No account, tenant, domain or network has such a key.
    #[error("nobody's key: {}", .0.escape_debug())]
    NoKey(String),
    /// The key is not that of the scope that the value names.
    #[error("its key should be {}", .0.escape_debug())]
    OtherKey(String),
    /// The value.
    #[error("no control record ({0})")]
    Value(#[from] BadDecisions),
}

/// Reads a record of the control topic. One without a value says that nothing is decided any more.
///
/// # Errors
/// Where key or value are not what they must be, or do not belong together.
pub fn read(key: &[u8], value: Option<&[u8]>) -> Result<Decisions, BadRecord> {
    let key = String::from_utf8_lossy(key);
    let scope = Scope::of_key(&key).ok_or_else(|| BadRecord::NoKey(key.chars().take(256).collect()))?;
    let Some(value) = value else { return Ok(Decisions::none(scope)) };
    let decisions = Decisions::parse(value)?;
    if decisions.scope == scope { Ok(decisions) } else { Err(BadRecord::OtherKey(decisions.key().into_owned())) }
}

/// What is known of the control topic.
#[derive(Debug, Default)]
pub struct Control {
    by_scope: RwLock<HashMap<Scope, Arc<Decisions>>>,
    /// Everything written before this moment is known, in milliseconds since 1970.
    read_until_ms: AtomicI64,
    /// The offset of the next record.
    pub next_offset: AtomicI64,
    /// Records read.
    pub records: AtomicU64,
}

impl Control {
    /// Everything in force, for a shard that begins.
    pub fn all(&self) -> Vec<Arc<Decisions>> {
        self.by_scope.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What stands about one account, tenant, domain or network.
    pub fn of(&self, scope: &Scope) -> Option<Arc<Decisions>> {
        self.by_scope.read().unwrap_or_else(PoisonError::into_inner).get(scope).cloned()
    }

    /// Whether every decision that may count for an event at `ts_ms` is known.
    pub fn is_known_for(&self, ts_ms: i64) -> bool {
        ts_ms - GRACE_MS <= self.read_until_ms.load(Ordering::Acquire)
    }

    /// Whether the topic has been read to its end once.
    pub fn is_ready(&self) -> bool {
        self.read_until_ms.load(Ordering::Acquire) > 0
    }

    fn take(&self, message: &rdkafka::message::BorrowedMessage<'_>) -> Option<Arc<Decisions>> {
        let place = || format!("{}:{}:{}", message.topic(), message.partition(), message.offset());
        self.records.fetch_add(1, Ordering::Relaxed);
        let decisions = match read(message.key().unwrap_or_default(), message.payload()) {
            Ok(decisions) => decisions,
            Err(e) => {
                tracing::error!("{}: {e}: not used; write the whole list again", place());
                return None;
            }
        };
        if !decisions.unknown.is_empty() {
            tracing::warn!(
                "{}: {} decisions of a kind that this version does not know change nothing here; the others of the record count",
                place(),
                decisions.unknown.len()
            );
        }
        if let Some(written_ms) = message.timestamp().to_millis()
            && decisions.decisions.iter().any(|d| (written_ms - 60_000..written_ms + GRACE_MS).contains(&d.from.0))
        {
            tracing::warn!(
                "{}: a decision begins less than {} s after it was written: instances may differ on events in between",
                place(),
                GRACE_MS / 1000
            );
        }
        let decisions = Arc::new(decisions);
        let mut by_scope = self.by_scope.write().unwrap_or_else(PoisonError::into_inner);
        if decisions.is_empty() {
            by_scope.remove(&decisions.scope);
        } else {
            by_scope.insert(decisions.scope.clone(), Arc::clone(&decisions));
        }
        Some(decisions)
    }

    /// Follows the topic until `stop`; `each` is told of every change.
    ///
    /// # Errors
    /// Where there is no client. Troubles of the brokers are waited out.
    pub fn follow(
        &self,
        kafka: &Kafka,
        stop: &dyn Fn() -> bool,
        each: &dyn Fn(Arc<Decisions>),
    ) -> Result<(), client::Error> {
        let mut config = client_config(kafka)?;
        config
            .set("group.id", &kafka.group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "100");
        let consumer: BaseConsumer<Context> = config.create_with_context(Context::default())?;
        // Of a topic it knows the end that open transactions have, too.
        config.set("isolation.level", "read_uncommitted");
        let ends: BaseConsumer<Context> = config.create_with_context(Context::default())?;
        let topic = &kafka.topics.control;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&list)?;
        let (mut at_end, mut looked, mut before) = (false, Instant::now() - LOOK, None);
        let mut in_transaction: Option<Instant> = None;
        while !stop() {
            match consumer.poll(Duration::from_millis(50)) {
                Some(Ok(message)) => {
                    at_end = false;
                    if let Some(decisions) = self.take(&message) {
                        each(decisions);
                    }
                    self.next_offset.store(message.offset() + 1, Ordering::Release);
                    continue;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => at_end = true,
                Some(Err(e)) => {
                    tracing::warn!("{}", consumer.context().trouble.explain(&format!("{topic} is not readable"), &e))
                }
                None => {}
            }
            let is_new = self.read_until_ms.load(Ordering::Acquire) == 0;
            if !at_end || (looked.elapsed() < LOOK && !is_new) {
                continue;
            }
            looked = Instant::now();
            let now_ms = super::outlet::now_ms();
            let Ok((_, end)) = ends.fetch_watermarks(topic, 0, Duration::from_secs(5)) else { continue };
            let Ok((_, high)) = consumer.fetch_watermarks(topic, 0, Duration::from_secs(5)) else { continue };
            if high < end {
                // What an open transaction holds was written before now, and comes when it is over.
                let since = *in_transaction.get_or_insert(looked);
                if since.elapsed() > LONG {
                    tracing::warn!(
                        "{topic}: a transaction has been open for more than {} s, and events wait for what it holds: look who \
                         writes there (kafka-transactions.sh find-hanging)",
                        LONG.as_secs()
                    );
                    in_transaction = Some(looked);
                }
                continue;
            }
            in_transaction = None;
            if self.next_offset.load(Ordering::Acquire) >= high {
                self.read_until_ms.store(now_ms, Ordering::Release);
            } else if let Some((then_ms, h)) = before
                && h == high
                && now_ms - then_ms >= LOOK.as_millis() as i64
            {
                // Nothing has come since the last look, and the end has not moved: what is missing was compacted away, or is
                // a marker of a transaction.
                self.read_until_ms.store(then_ms, Ordering::Release);
            }
            if before.is_none_or(|(then_ms, h)| h != high || now_ms - then_ms >= LOOK.as_millis() as i64) {
                before = Some((now_ms, high));
            }
        }
        Ok(())
    }
}
