//! The state topic into a file and back: for another number of partitions, for another cluster, and for beginning with what a
//! replay has learned.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::Message;
use rdkafka::consumer::Consumer;

use super::changelog::{self, Changelog, Place};
use super::client;
use super::partitioner::partition_of;
use super::restore::{self, Read, Reader};
use super::settings::Kafka;
use super::to_end::{self, read_to_end};
use crate::core::policy::Policy;
use crate::core::shard::Shard;
use crate::event::Timestamp;
use crate::run::settings::Start;
use crate::state::record::{Mismatch, SHARD_KEY, ShardRecord};

/// Accounts of one transaction: it must be over before it times out.
const ACCOUNTS: usize = 100_000;

/// Why a state was not exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] to_end::Error),
    /// The brokers did not answer.
    #[error(transparent)]
    Broker(#[from] restore::Error),
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] changelog::Error),
    /// No client.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A shard's record does not go with the configuration.
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
    #[error("{place}: the stored account cannot be read ({why}): use the program that wrote it")]
    Unreadable {
        /// Topic, partition and offset.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// There is nothing to export.
    #[error("{0} holds no checkpoint: there is nothing to export")]
    Nothing(String),
    /// The topic is not empty.
    #[error(
        "{0} is not empty: an import would mix two states. Make the topic anew (kafka-topics --delete, then `mailfuse topics create`)"
    )]
    NotEmpty(String),
    /// Instances are running.
    #[error(
        "the group {0} has {1} members: stop all instances first, or they go on with what they have and undo the import"
    )]
    Running(String, usize),
    /// The topics do not go together.
    #[error("{events} has {0} partitions, {state} has {1}; they must be as many: `mailfuse topics check` says more", .of.0, .of.1)]
    Partitions {
        /// The events topic.
        events: String,
        /// The state topic.
        state: String,
        /// How many each has.
        of: (i32, i32),
    },
}

/// Reads all partitions of the state topic into one shard, as a replay would have it.
///
/// # Errors
/// Where something is not readable, or does not go with `policy`.
pub fn export(kafka: &Kafka, policy: &Arc<Policy>) -> Result<Shard, Error> {
    let topic = &kafka.topics.state;
    // In each partition a later record of an account replaces the one before. An account is in one partition only.
    let mut shard = Shard::new(Arc::clone(policy), Timestamp(0));
    let mut records: BTreeMap<i32, ShardRecord> = BTreeMap::new();
    let mut failed = None;
    read_to_end(kafka, topic, &mut |message| {
        if failed.is_none()
            && let Err(e) = take(message, policy, &mut shard, &mut records)
        {
            failed = Some(e);
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let since = records.values().map(|r| r.history_since_ms).min().ok_or_else(|| Error::Nothing(topic.clone()))?;
    shard.restore_history(Timestamp(since));
    let newest = records.values().map(ShardRecord::newest_ms).max().unwrap_or(i64::MIN);
    shard.restore_clock(Timestamp(newest));
    Ok(shard)
}

fn take(
    message: &rdkafka::message::BorrowedMessage<'_>,
    policy: &Policy,
    shard: &mut Shard,
    records: &mut BTreeMap<i32, ShardRecord>,
) -> Result<(), Error> {
    let partition = message.partition();
    let key = message.key().unwrap_or_default();
    let value = message.payload();
    if key == SHARD_KEY {
        let mismatch = |source| Error::Mismatch { topic: message.topic().to_owned(), partition, source };
        let record = ShardRecord::parse(value.unwrap_or_default()).map_err(mismatch)?;
        // With whatever number of partitions: that is what an export is for.
        let of = record.partitions;
        records.insert(partition, ShardRecord::read(&record.bytes(), policy, of).map_err(mismatch)?);
        return Ok(());
    }
    let unreadable =
        |why: String| Error::Unreadable { place: format!("{}:{partition}:{}", message.topic(), message.offset()), why };
    let name = std::str::from_utf8(key).map_err(|e| unreadable(e.to_string()))?;
    match value {
        Some(packed) => shard.restore_packed(name, packed).map_err(|e| unreadable(e.to_string()))?,
        None => shard.forget(name),
    }
    Ok(())
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Accounts.
    pub accounts: usize,
    /// Partitions, each with the offset that it goes on at.
    pub offsets: Vec<i64>,
}

/// Writes a shard into the state topic, each account into the partition that its events are in.
///
/// Each partition goes on where the group stands; where it stands nowhere, at the oldest or the next event, as `start` says.
///
/// # Errors
/// Where the topic is not empty, instances are running, or the brokers refuse.
pub fn import(kafka: &Kafka, policy: &Policy, shard: &Shard, start: Start) -> Result<Imported, Error> {
    let reader = Reader::new(kafka)?;
    let t = &kafka.topics;
    let of = (reader.partitions(&t.events)?, reader.partitions(&t.state)?);
    if of.0 != of.1 {
        return Err(Error::Partitions { events: t.events.clone(), state: t.state.clone(), of });
    }
    let partitions = of.0;
    let members = reader.members(&kafka.group);
    if members > 0 {
        return Err(Error::Running(kafka.group.clone(), members));
    }
    let wanted = || true;
    for partition in 0..partitions {
        let (low, high) = reader.range(&t.state, partition)?;
        // Ends alone do not tell: `topics check` leaves the marker of a transaction that it has broken off.
        let mut is_empty = true;
        if high > low {
            reader.read(&t.state, partition, low, &wanted, &mut |_| {
                is_empty = false;
                Ok(Read::Enough)
            })?;
        }
        if !is_empty {
            return Err(Error::NotEmpty(t.state.clone()));
        }
    }
    let group = reader.consumer().group_metadata();
    let mut offsets = Vec::new();
    for partition in 0..partitions {
        let offset = match reader.committed(&t.events, partition)? {
            Some(offset) => offset,
            None => {
                let (low, high) = reader.range(&t.events, partition)?;
                match start {
                    Start::Earliest => low,
                    Start::Latest => high,
                }
            }
        };
        let mut changelog = Changelog::open(kafka, Place::of_state(kafka, partition), &wanted)?;
        changelog.begin()?;
        let mut in_transaction = 0;
        let mut result = Ok(());
        shard.give_all(&mut |name, packed| {
            if result.is_err() || partition_of(name.as_bytes(), partitions) != partition {
                return;
            }
            result = changelog.put(name.as_bytes(), Some(packed), &wanted);
            in_transaction += 1;
            if in_transaction == ACCOUNTS && result.is_ok() {
                in_transaction = 0;
                result = changelog.commit_part(&wanted);
            }
        });
        result?;
        // Last, and with the offset: without it a restore says that the import was broken off.
        let record = ShardRecord::new(policy, partitions, offset, shard.newest().0, shard.history_since().0);
        changelog.put(SHARD_KEY, Some(&record.bytes()), &wanted)?;
        let group = group.as_ref().ok_or_else(|| restore::Error::Broker("the group is not known".to_owned()))?;
        changelog.commit(offset, group, &wanted)?;
        offsets.push(offset);
    }
    Ok(Imported { accounts: shard.accounts(), offsets })
}
