//! What has been in the events topic since some time: read again on demand, by a consumer that takes part in no group.
//!
//! Where a stretch of time begins is asked for by the time of the records (`offsetsForTimes`), which is not that of the events:
//! with `LogAppendTime` no event is older than its record by more than it was late, nor younger by more than
//! [`FUTURE_MS`](super::FUTURE_MS).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use serde::Serialize;

use super::restore::{Error, Reader};
use super::settings::Kafka;
use crate::event::Timestamp;

/// Nothing came for so long: give up.
const STALLED: Duration = Duration::from_secs(20);
/// Records between two looks at whether it is still wanted.
const LOOK: u64 = 1_024;

/// Which records.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    /// The partition; `None`: all.
    pub partition: Option<i32>,
    /// From the first record of this time on, in milliseconds since 1970.
    pub from_ms: i64,
    /// Of each partition until a record is younger, in milliseconds since 1970; in any case no further than the end that it had
    /// when the reading began.
    pub until_ms: Option<i64>,
}

/// How much is read at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Records.
    pub records: u64,
    /// When it ends.
    pub until: Instant,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Covered {
    /// Records looked at.
    pub records: u64,
    /// Partitions looked at.
    pub partitions: usize,
    /// Records from this time on.
    pub from: Timestamp,
    /// As of when.
    pub read_at: Timestamp,
    /// Why it is not all; empty where it is.
    pub cut: Vec<String>,
}

impl Covered {
    /// The same with what another reading for the same question has covered.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.records += other.records;
        self.partitions = self.partitions.max(other.partitions);
        self.from = self.from.min(other.from);
        self.read_at = self.read_at.min(other.read_at);
        self.cut.extend(other.cut);
        self.cut.sort();
        self.cut.dedup();
        self
    }
}

/// How far a reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Progress {
    /// Records read.
    pub records: u64,
    /// Records there are, at most.
    pub of: u64,
}

/// Passes the records of a stretch of the events topic to `each`; those of a partition come in their order. `tell` hears now and
/// then how far it is, and says whether anybody still waits.
///
/// # Errors
/// Where the brokers do not answer, or nobody waits any more.
pub fn look_back(
    kafka: &Kafka,
    stretch: Stretch,
    bounds: Bounds,
    tell: &dyn Fn(Progress) -> bool,
    each: &mut dyn FnMut(&BorrowedMessage<'_>),
) -> Result<Covered, Error> {
    let reader = Reader::new(kafka)?;
    let topic = &kafka.topics.events;
    let partitions = match stretch.partition {
        Some(partition) => vec![partition],
        None => (0..reader.partitions(topic)?).collect(),
    };
    let mut covered = Covered {
        records: 0,
        partitions: partitions.len(),
        from: Timestamp(stretch.from_ms),
        read_at: Timestamp(super::outlet::now_ms()),
        cut: Vec::new(),
    };
    let begins = begins(&reader, kafka, &partitions, stretch.from_ms)?;
    // The end of each that is still to be read.
    let mut open = HashMap::new();
    let mut list = TopicPartitionList::new();
    let mut of = 0;
    for (partition, from) in begins {
        let (low, high) = reader.range(topic, partition)?;
        let Some(from) = from else { continue };
        if low > 0 && from <= low {
            covered.cut.push(format!("retention has taken records of partition {partition} away"));
        }
        if from.max(low) < high {
            list.add_partition_offset(topic, partition, Offset::Offset(from.max(low)))
                .map_err(|e| reader.broker(topic, &e))?;
            open.insert(partition, high);
            of += u64::try_from(high - from.max(low)).unwrap_or(0);
        }
        if Instant::now() >= bounds.until {
            covered.cut.push("its time was over".to_owned());
            return Ok(covered);
        }
    }
    if open.is_empty() {
        return Ok(covered);
    }
    let failed = |e: &KafkaError| reader.broker(&format!("reading {topic}"), e);
    reader.consumer().assign(&list).map_err(|e| failed(&e))?;
    let mut heard = Instant::now();
    while !open.is_empty() {
        let polled = reader.consumer().poll(Duration::from_millis(100));
        match &polled {
            Some(Ok(message)) => {
                heard = Instant::now();
                let Some(high) = open.get(&message.partition()).copied() else { continue };
                if message.offset() < high {
                    covered.records += 1;
                    let is_past = stretch.until_ms.is_some_and(|until| record_ms(message).is_some_and(|ms| ms > until));
                    if !is_past {
                        each(message);
                    }
                    if is_past || message.offset() + 1 >= high {
                        close(&reader, topic, message.partition(), &mut open);
                    }
                } else {
                    close(&reader, topic, message.partition(), &mut open);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = Instant::now();
                open.remove(partition);
            }
            Some(Err(e)) if heard.elapsed() > STALLED => return Err(failed(e)),
            Some(Err(_)) => {}
            None if heard.elapsed() > STALLED => {
                return Err(Error::Broker(format!("reading {topic}: nothing came for {} s", STALLED.as_secs())));
            }
            None => {}
        }
        if covered.records >= bounds.records && !open.is_empty() {
            covered.cut.push(format!("{} records were read, no more may be", covered.records));
            break;
        }
        if covered.records.is_multiple_of(LOOK) || polled.is_none() {
            if !tell(Progress { records: covered.records, of }) {
                return Err(Error::GivenUp);
            }
            if Instant::now() >= bounds.until {
                covered.cut.push("its time was over".to_owned());
                break;
            }
        }
    }
    Ok(covered)
}

/// When a record was written, in milliseconds since 1970.
pub fn record_ms(message: &BorrowedMessage<'_>) -> Option<i64> {
    message.timestamp().to_millis()
}

/// Where each partition's first record of this time is; `None`: there is none.
fn begins(reader: &Reader, kafka: &Kafka, partitions: &[i32], from_ms: i64) -> Result<Vec<(i32, Option<i64>)>, Error> {
    let topic = &kafka.topics.events;
    let failed = |e: &KafkaError| reader.broker(&format!("{topic}: where a time begins is not known"), e);
    let mut times = TopicPartitionList::new();
    for partition in partitions {
        times.add_partition_offset(topic, *partition, Offset::Offset(from_ms.max(0))).map_err(|e| failed(&e))?;
    }
    let found = reader.consumer().offsets_for_times(times, kafka.timeout()).map_err(|e| failed(&e))?;
    let mut begins = Vec::new();
    for element in found.elements() {
        element.error().map_err(|e| failed(&e))?;
        let offset = match element.offset() {
            Offset::Offset(n) => Some(n),
            _ => None,
        };
        begins.push((element.partition(), offset));
    }
    Ok(begins)
}

/// No more of a partition is wanted.
fn close(reader: &Reader, topic: &str, partition: i32, open: &mut HashMap<i32, i64>) {
    open.remove(&partition);
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    // Else its records come for nothing, which costs time alone.
    if let Err(e) = reader.consumer().pause(&list) {
        tracing::debug!("{topic}:{partition}: {e}");
    }
}
