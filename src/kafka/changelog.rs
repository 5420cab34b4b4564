//! The writing end of one partition of a compacted topic: what is written is one transaction with a group's offset.
//!
//! So the detector stores a partition's checkpoints, and the desk what became of alerts. Each [`Place`] has a transactional id of its own, so that whoever takes it over fences whoever had it before, at once and
//! whatever the group thinks: `init_transactions` raises the producer's epoch and ends the old owner's open transaction, so a
//! restore never waits for a time-out. The group's metadata (KIP-447) fences a second time: a member that the group has
//! given up cannot move the offset.

use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::client::{self, Context, client_config};
use super::settings::Kafka;

/// Why nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another instance has taken the partition over, or the producer is dead: this owner must stop and restore.
    #[error("{0}")]
    Fenced(String),
    /// Nothing was stored; try again.
    #[error("{0}")]
    Aborted(String),
    /// Given up because nobody waits for it any more.
    #[error("given up: the partition is no longer ours")]
    GivenUp,
    /// No client.
    #[error(transparent)]
    Client(#[from] client::Error),
}

/// A transaction must be over after this, or the broker ends it.
const TRANSACTION_TIMEOUT_MS: u32 = 60_000;
/// One call waits this long before it looks whether anybody still wants the result.
const CALL: Duration = Duration::from_secs(2);

/// What is read, and where it is written what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The transactional id: whoever opens it fences whoever had it.
    pub id: String,
    /// The topic whose offset is moved.
    pub from: String,
    /// The compacted topic that is written.
    pub into: String,
    /// The partition, of both.
    pub partition: i32,
}

impl Place {
    /// A partition of the events, and its state.
    pub fn of_state(kafka: &Kafka, partition: i32) -> Self {
        let t = &kafka.topics;
        let id = format!("{}-{}-{partition}", kafka.group, t.events);
        Self { id, from: t.events.clone(), into: t.state.clone(), partition }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.into, self.partition)
    }
}

fn record<'r>(topic: &'r str, partition: i32, key: &'r [u8], value: Option<&'r [u8]>) -> BaseRecord<'r, [u8], [u8]> {
    let record = BaseRecord::to(topic).partition(partition).key(key);
    match value {
        Some(value) => record.payload(value),
        None => record,
    }
}

/// The transactional producer of one place.
pub struct Changelog {
    producer: BaseProducer<Context>,
    place: Place,
    open: bool,
}

impl Changelog {
    /// Takes the partition over: fences whoever wrote to it before. `wanted` says whether somebody still waits for it.
    ///
    /// # Errors
    /// Where the brokers refuse, or nobody waits any more.
    pub fn open(kafka: &Kafka, place: Place, wanted: &dyn Fn() -> bool) -> Result<Self, Error> {
        let mut config = client_config(kafka)?;
        config
            .set("transactional.id", &place.id)
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string())
            .set("message.timeout.ms", TRANSACTION_TIMEOUT_MS.to_string())
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("message.max.bytes", "8388608")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "65536");
        let producer: BaseProducer<Context> =
            config.create_with_context(Context::default()).map_err(client::Error::from)?;
        let changelog = Self { producer, place, open: false };
        let deadline = Instant::now() + kafka.timeout();
        changelog.call("no transaction can be had", deadline, wanted, || changelog.producer.init_transactions(CALL))?;
        Ok(changelog)
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// As the brokers say.
    pub fn begin(&mut self) -> Result<(), Error> {
        self.producer.begin_transaction().map_err(|e| self.failed("a transaction did not begin", &e))?;
        self.open = true;
        Ok(())
    }

    /// Adds a record; `None` is a tombstone. Waits where the queue is full.
    ///
    /// # Errors
    /// As the brokers say, or where nobody waits any more.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>, wanted: &dyn Fn() -> bool) -> Result<(), Error> {
        self.send(record(&self.place.into, self.place.partition, key, value), wanted)
    }

    /// Adds a record to another topic of one partition; `None` is a tombstone.
    ///
    /// # Errors
    /// As [`Changelog::put`].
    pub fn put_beside(
        &mut self,
        topic: &str,
        key: &[u8],
        value: Option<&[u8]>,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.send(record(topic, 0, key, value), wanted)
    }

    fn send(&self, mut record: BaseRecord<'_, [u8], [u8]>, wanted: &dyn Fn() -> bool) -> Result<(), Error> {
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    if !wanted() {
                        return Err(Error::GivenUp);
                    }
                    self.producer.poll(Duration::from_millis(20));
                    record = back;
                }
                Err((error, _)) => return Err(self.failed("a record was not taken", &error)),
            }
        }
    }

    /// Ends the transaction: the records and the offset of the next event become visible together, or not at all.
    ///
    /// # Errors
    /// Where they did not; then nothing is visible, and [`Changelog::abort`] makes ready for the next.
    pub fn commit(
        &mut self,
        next_offset: i64,
        group: &ConsumerGroupMetadata,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + Duration::from_millis(TRANSACTION_TIMEOUT_MS.into());
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset(&self.place.from, self.place.partition, Offset::Offset(next_offset))
            .map_err(|e| self.failed("an offset was not taken", &e))?;
        self.call("the group did not take the offset", deadline, wanted, || {
            self.producer.send_offsets_to_transaction(&offsets, group, CALL)
        })?;
        self.call("what was written was not committed", deadline, wanted, || self.producer.commit_transaction(CALL))?;
        self.open = false;
        Ok(())
    }

    /// Ends a part of something long, and begins the next one.
    ///
    /// # Errors
    /// As [`Changelog::commit`].
    pub fn commit_part(&mut self, wanted: &dyn Fn() -> bool) -> Result<(), Error> {
        let deadline = Instant::now() + Duration::from_millis(TRANSACTION_TIMEOUT_MS.into());
        self.call("a part was not committed", deadline, wanted, || self.producer.commit_transaction(CALL))?;
        self.open = false;
        self.begin()
    }

    /// Takes an open transaction back.
    ///
    /// # Errors
    /// Where even that fails: the producer is of no more use.
    pub fn abort(&mut self, wanted: &dyn Fn() -> bool) -> Result<(), Error> {
        if !self.open {
            return Ok(());
        }
        let deadline = Instant::now() + Duration::from_millis(TRANSACTION_TIMEOUT_MS.into());
        self.call("what was written was not taken back", deadline, wanted, || self.producer.abort_transaction(CALL))?;
        self.open = false;
        Ok(())
    }

    /// Calls until it succeeds, the error is none to wait out, or nobody waits any more.
    fn call(
        &self,
        what: &str,
        deadline: Instant,
        wanted: &dyn Fn() -> bool,
        mut f: impl FnMut() -> Result<(), KafkaError>,
    ) -> Result<(), Error> {
        loop {
            let Err(error) = f() else { return Ok(()) };
            if !is_retriable(&error) || Instant::now() > deadline {
                return Err(self.failed(what, &error));
            }
            if !wanted() {
                return Err(Error::GivenUp);
            }
            // Some errors come back at once.
            self.producer.poll(Duration::from_millis(50));
        }
    }

    fn failed(&self, what: &str, error: &KafkaError) -> Error {
        let words = self.producer.context().trouble.explain(&format!("{}: {what}", self.place), error);
        let fatal = match error {
            KafkaError::Transaction(e) => e.is_fatal(),
            _ => false,
        };
        let code = error.rdkafka_error_code();
        let fenced = matches!(
            code,
            Some(
                RDKafkaErrorCode::Fenced
                    | RDKafkaErrorCode::ProducerFenced
                    | RDKafkaErrorCode::InvalidProducerEpoch
                    | RDKafkaErrorCode::Fatal
            )
        );
        if fatal || fenced || self.producer.client().fatal_error().is_some() {
            Error::Fenced(words)
        } else {
            Error::Aborted(words)
        }
    }
}

fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(e) => e.is_retriable(),
        _ => false,
    }
}

impl std::fmt::Debug for Changelog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changelog").field("place", &self.place).field("open", &self.open).finish_non_exhaustive()
    }
}
