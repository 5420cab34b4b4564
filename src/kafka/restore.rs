//! The reading end of the `state` topic: a shard as its last checkpoint left it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::client::{self, COORDINATOR_MS, Context, client_config};
use super::settings::Kafka;
use crate::core::policy::Policy;
use crate::core::shard::{Kept, Shard};
use crate::event::Timestamp;
use crate::state::record::{Mismatch, SHARD_KEY, ShardRecord};

/// Nothing came for so long: give up.
const STALLED: Duration = Duration::from_secs(60);

/// Why a partition was not restored. Places are topic, partition and offset.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The brokers did not answer, or not what was asked: try again.
    #[error("{0}")]
    Broker(String),
    /// The shard's record does not go with program, configuration or topic.
    #[error("{topic}:{partition}: {source}")]
    Mismatch {
        /// The state topic.
        topic: String,
        /// Which partition.
        partition: i32,
        /// What does not go together.
        source: Mismatch,
    },
    /// A stored account cannot be read.
    #[error(
        "{topic}:{partition}:{offset}: the stored account {key} cannot be read ({why}). Use the program that wrote it, or begin \
         without what it knew of this account: `mailfuse run --forget-unreadable`"
    )]
    Unreadable {
        /// The state topic.
        topic: String,
        /// Which partition.
        partition: i32,
        /// Where.
        offset: i64,
        /// The account.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// Offset and state are not of one checkpoint.
    #[error(
        "partition {partition}: the group `{group}` stands at offset {committed}, the state in {topic} at {state}: one of them was \
         changed from outside. Set the group's offset to that of the state (kafka-consumer-groups --reset-offsets --to-offset), or \
         delete both and begin anew"
    )]
    Apart {
        /// Which partition.
        partition: i32,
        /// The group.
        group: String,
        /// The group's offset.
        committed: i64,
        /// The state topic.
        topic: String,
        /// What the state says.
        state: String,
    },
    /// Accounts without the shard's record.
    #[error(
        "{topic}:{partition}: {accounts} stored accounts, but no record of the shard: an import was broken off. Make the topic anew and \
         import again, or begin without them: `mailfuse run --forget-unreadable`"
    )]
    Headless {
        /// The state topic.
        topic: String,
        /// Which partition.
        partition: i32,
        /// How many.
        accounts: usize,
    },
    /// The offset is not in the partition any more.
    #[error(
        "{topic}:{partition}: the next event to read is {offset}, the partition holds {low} to {high}: retention ran past it, or the \
         topic was made anew. `mailfuse run --accept-gap` goes on at {low}; what lies between is lost"
    )]
    OutOfRange {
        /// The events topic.
        topic: String,
        /// Which partition.
        partition: i32,
        /// Where we stand.
        offset: i64,
        /// The first offset there is.
        low: i64,
        /// The next one to be written.
        high: i64,
    },
    /// Given up because nobody waits for it any more.
    #[error("given up: the partition is no longer ours")]
    GivenUp,
    /// No client.
    #[error(transparent)]
    Client(#[from] client::Error),
}

impl Error {
    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Broker(_))
    }

    /// A short name, for a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Broker(_) => "broker",
            Self::Mismatch { .. } => "state_mismatch",
            Self::Unreadable { .. } | Self::Headless { .. } => "state_unreadable",
            Self::Apart { .. } => "offset_apart",
            Self::OutOfRange { .. } => "offset_out_of_range",
            Self::GivenUp => "given_up",
            Self::Client(_) => "client",
        }
    }
}

/// A transaction's offset is waited for so long: the fence before has ended all there were.
const PENDING: Duration = Duration::from_secs(8);

/// What an operator has allowed beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowed {
    /// Go on at the oldest event where retention ran past the offset.
    pub gap: bool,
    /// Begin without accounts whose stored form cannot be read.
    pub unreadable: bool,
}

/// A shard as it was, and where it goes on.
#[derive(Debug)]
pub struct Restored {
    /// The shard; `None` where nothing is stored.
    pub shard: Option<Shard>,
    /// What was counted per relay in the minutes that were open.
    pub minutes: Option<Kept>,
    /// The offset of the next event; `None` where nothing is stored or committed.
    pub next_offset: Option<i64>,
    /// Records that were read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// How far a restore is, for whoever looks.
#[derive(Debug, Default)]
pub struct Progress {
    /// Offsets behind us.
    pub read: std::sync::atomic::AtomicU64,
    /// Offsets there are.
    pub of: std::sync::atomic::AtomicU64,
}

/// A consumer that is assigned by hand and never joins the group: it reads what is committed, to the end.
pub struct Reader {
    consumer: BaseConsumer<Context>,
    kafka: Kafka,
}

impl Reader {
    /// Connects.
    ///
    /// # Errors
    /// Where the properties cannot be used.
    pub fn new(kafka: &Kafka) -> Result<Self, client::Error> {
        let mut config = client_config(kafka)?;
        config
            .set("group.id", &kafka.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("fetch.message.max.bytes", "8388608")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.wait.max.ms", "100")
            .set("coordinator.query.interval.ms", COORDINATOR_MS);
        let consumer = config.create_with_context(Context::default())?;
        Ok(Self { consumer, kafka: kafka.clone() })
    }

    /// The consumer itself.
    pub(super) fn consumer(&self) -> &BaseConsumer<Context> {
        &self.consumer
    }

    /// What failed, and what to do about it.
    pub fn broker(&self, what: &str, error: &KafkaError) -> Error {
        // Complaints wait in the queue until somebody polls.
        for _ in 0..16 {
            if self.consumer.poll(Duration::ZERO).is_none() {
                break;
            }
        }
        Error::Broker(self.consumer.context().trouble.explain(what, error))
    }

    /// The partitions of a topic.
    ///
    /// # Errors
    /// Where the brokers do not answer or there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<i32, Error> {
        let metadata = self
            .consumer
            .fetch_metadata(Some(topic), self.kafka.timeout())
            .map_err(|e| self.broker(&format!("the topic {topic} was not found out about"), &e))?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        match found.map(|t| (t.error(), t.partitions().len())) {
            Some((None, n)) if n > 0 => Ok(n as i32),
            Some((Some(error), _)) => {
                let error = KafkaError::MetadataFetch(error.into());
                Err(self.broker(&format!("the topic {topic}"), &error))
            }
            _ => Err(Error::Broker(format!(
                "the topic {topic} does not exist: `mailfuse topics create` makes what is missing"
            ))),
        }
    }

    /// The first offset there is and the next one to be written.
    ///
    /// # Errors
    /// Where the brokers do not answer.
    pub fn range(&self, topic: &str, partition: i32) -> Result<(i64, i64), Error> {
        self.consumer
            .fetch_watermarks(topic, partition, self.kafka.timeout())
            .map_err(|e| self.broker(&format!("{topic}:{partition}: its ends are not known"), &e))
    }

    /// The group's offset.
    ///
    /// The brokers do not say it while a transaction with another one is pending, and after a broker was stopped one may stay
    /// pending for ever, though its transaction has ended. What is committed is known all the same, and it is the truth for
    /// whoever has fenced every writer before, as each restore does.
    ///
    /// # Errors
    /// Where the brokers do not answer.
    pub fn committed(&self, topic: &str, partition: i32) -> Result<Option<i64>, Error> {
        Ok(self.committed_or_pending(topic, partition)?.0)
    }

    /// The same, and whether another one is pending.
    fn committed_or_pending(&self, topic: &str, partition: i32) -> Result<(Option<i64>, bool), Error> {
        let what = format!("{topic}:{partition}: the offset of the group {} is not known", self.kafka.group);
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let (list, is_pending) = match self.consumer.committed_offsets(list.clone(), PENDING.min(self.kafka.timeout()))
        {
            Ok(list) => (list, false),
            Err(e) if e.rdkafka_error_code() != Some(RDKafkaErrorCode::OperationTimedOut) => {
                return Err(self.broker(&what, &e));
            }
            Err(_) => {
                let mut config = client_config(&self.kafka)?;
                config
                    .set("group.id", &self.kafka.group)
                    .set("enable.auto.commit", "false")
                    .set("isolation.level", "read_uncommitted")
                    .set("coordinator.query.interval.ms", COORDINATOR_MS);
                let consumer: BaseConsumer<Context> =
                    config.create_with_context(Context::default()).map_err(client::Error::from)?;
                let list =
                    consumer.committed_offsets(list, self.kafka.timeout()).map_err(|e| self.broker(&what, &e))?;
                tracing::warn!(
                    "{topic}:{partition}: an offset stays pending that nobody commits any more: it is passed over"
                );
                (list, true)
            }
        };
        let Some(found) = list.find_partition(topic, partition) else { return Ok((None, is_pending)) };
        found.error().map_err(|e| self.broker(&what, &e))?;
        let offset = match found.offset() {
            Offset::Offset(n) => Some(n),
            _ => None,
        };
        Ok((offset, is_pending))
    }

    /// Reads a partition from `from` to its present end, or until `each` says that it is enough.
    ///
    /// # Errors
    /// Where the brokers stop answering, `each` fails, or nobody waits any more.
    pub fn read(
        &self,
        topic: &str,
        partition: i32,
        from: i64,
        wanted: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&rdkafka::message::BorrowedMessage<'_>) -> Result<Read, Error>,
    ) -> Result<(), Error> {
        let what = || format!("{topic}:{partition} is not readable");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(from)).map_err(|e| self.broker(&what(), &e))?;
        self.consumer.assign(&list).map_err(|e| self.broker(&what(), &e))?;
        let result = self.read_assigned(partition, &what, wanted, each);
        if let Err(e) = self.consumer.unassign() {
            tracing::warn!("{}: {e}", what());
        }
        result
    }

    fn read_assigned(
        &self,
        partition: i32,
        what: &dyn Fn() -> String,
        wanted: &dyn Fn() -> bool,
        each: &mut dyn FnMut(&rdkafka::message::BorrowedMessage<'_>) -> Result<Read, Error>,
    ) -> Result<(), Error> {
        let mut last = Instant::now();
        loop {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last = Instant::now();
                    if each(&message)? == Read::Enough {
                        return Ok(());
                    }
                }
                // The end as the broker has it now: what was written before this began lies before it. A position would not
                // do: the markers of transactions at the end are never delivered.
                Some(Err(KafkaError::PartitionEOF(p))) if p == partition => return Ok(()),
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(e)) if last.elapsed() > STALLED || e.rdkafka_error_code().is_some_and(is_lasting) => {
                    return Err(self.broker(&what(), &e));
                }
                Some(Err(_)) => {}
                None if last.elapsed() > STALLED => {
                    return Err(Error::Broker(format!("{}: nothing came for {} s", what(), STALLED.as_secs())));
                }
                None => {}
            }
            if !wanted() {
                return Err(Error::GivenUp);
            }
        }
    }

    /// Restores one partition.
    ///
    /// # Errors
    /// As [`Error`] says; what passes may be tried again.
    pub fn restore(
        &self,
        partition: i32,
        partitions: i32,
        policy: &Arc<Policy>,
        allowed: Allowed,
        progress: &Progress,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Restored, Error> {
        use std::sync::atomic::Ordering::Relaxed;
        let kafka = &self.kafka;
        let topic = &kafka.topics.state;
        let (committed, is_pending) = self.committed_or_pending(&kafka.topics.events, partition)?;
        let (low, high) = self.range(topic, partition)?;
        progress.of.store((high - low) as u64, Relaxed);
        let mut loaded = Loaded { shard: Shard::new(Arc::clone(policy), Timestamp(0)), record: None };
        let (mut records, mut bytes) = (0, 0);
        if high > low {
            self.read(topic, partition, low, wanted, &mut |message| {
                records += 1;
                bytes += message.payload_len() as u64 + message.key_len() as u64;
                progress.read.store((message.offset() + 1 - low) as u64, Relaxed);
                loaded.take(message, policy, partitions, allowed)?;
                Ok(Read::On)
            })?;
        }
        if loaded.record.is_none() && loaded.shard.accounts() > 0 && !allowed.unreadable {
            return Err(Error::Headless { topic: topic.clone(), partition, accounts: loaded.shard.accounts() });
        }
        let next_offset = match (committed, loaded.record.as_ref().map(|r| r.offset)) {
            (Some(committed), Some(state)) if committed == state => Some(committed),
            (None, state) => state,
            // Both were written in one transaction: where its state is to be seen, its offset counts, be it pending.
            (Some(_), Some(state)) if is_pending => Some(state),
            (Some(committed), state) => {
                return Err(Error::Apart {
                    partition,
                    group: self.kafka.group.clone(),
                    committed,
                    topic: topic.clone(),
                    state: state.map_or_else(|| "nothing".to_owned(), |s| s.to_string()),
                });
            }
        };
        let next_offset = next_offset.map(|n| self.in_range(partition, n, allowed)).transpose()?;
        let minutes = loaded.record.as_mut().and_then(|record| record.minutes.take());
        let shard = loaded.record.map(|record| {
            let mut shard = loaded.shard;
            shard.restore_history(Timestamp(record.history_since_ms));
            shard.restore_clock(Timestamp(record.newest_ms()));
            shard
        });
        Ok(Restored { shard, minutes, next_offset, records, bytes })
    }

    fn in_range(&self, partition: i32, offset: i64, allowed: Allowed) -> Result<i64, Error> {
        let topic = &self.kafka.topics.events;
        let (low, high) = self.range(topic, partition)?;
        if (low..=high).contains(&offset) {
            return Ok(offset);
        }
        if allowed.gap {
            tracing::error!(
                "{topic}:{partition}: offset {offset} is not there any more; going on at {low}, as --accept-gap allows"
            );
            return Ok(low);
        }
        Err(Error::OutOfRange { topic: topic.clone(), partition, offset, low, high })
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("group", &self.kafka.group).finish_non_exhaustive()
    }
}

/// Whether to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// To the end.
    On,
    /// No further.
    Enough,
}

fn is_lasting(code: rdkafka::error::RDKafkaErrorCode) -> bool {
    use rdkafka::error::RDKafkaErrorCode as E;
    matches!(
        code,
        E::UnknownTopic
            | E::UnknownTopicOrPartition
            | E::UnknownPartition
            | E::TopicAuthorizationFailed
            | E::AutoOffsetReset
            | E::OffsetOutOfRange
            | E::Fatal
    )
}

/// What has been read so far.
struct Loaded {
    shard: Shard,
    record: Option<ShardRecord>,
}

impl Loaded {
    fn take(
        &mut self,
        message: &rdkafka::message::BorrowedMessage<'_>,
        policy: &Policy,
        partitions: i32,
        allowed: Allowed,
    ) -> Result<(), Error> {
        let (topic, partition, offset) = (message.topic().to_owned(), message.partition(), message.offset());
        let key = message.key().unwrap_or_default();
        if key == SHARD_KEY {
            let record = ShardRecord::read(message.payload().unwrap_or_default(), policy, partitions)
                .map_err(|source| Error::Mismatch { topic, partition, source })?;
            self.record = Some(record);
            return Ok(());
        }
        let unreadable = |why: String| Error::Unreadable {
            topic,
            partition,
            offset,
            key: String::from_utf8_lossy(key).escape_debug().to_string(),
            why,
        };
        let result = match (std::str::from_utf8(key), message.payload()) {
            (Ok(name), Some(packed)) => self.shard.restore_packed(name, packed).map_err(|e| unreadable(e.to_string())),
            (Ok(name), None) => {
                self.shard.forget(name);
                Ok(())
            }
            (Err(e), _) => Err(unreadable(e.to_string())),
        };
        match result {
            Err(e) if allowed.unreadable => {
                tracing::error!("{e}: it is forgotten, as --forget-unreadable allows");
                Ok(())
            }
            other => other,
        }
    }
}
