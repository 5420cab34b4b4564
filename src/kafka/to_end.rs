//! A topic from its beginning to the end that it had when the reading began.

use std::time::Instant;

use rdkafka::config::FromClientConfigAndContext as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{Message as _, client::Client};

use super::client::{self, Context};
use super::settings::Kafka;

/// Why a topic could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no client.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The topic is not there.
    #[error("there is no topic `{0}`: `mailfuse topics create` makes it")]
    NoTopic(String),
    /// With what failed, why, and what to do about it.
    #[error("{0}")]
    Kafka(String),
}

/// Passes every committed record of `topic` to `each`, partition by partition in their order. Takes part in no group and
/// commits nothing. Returns how many records there were.
///
/// # Errors
/// Where the topic is missing or no broker answers for `kafka.timeout_s`.
pub fn read_to_end(kafka: &Kafka, topic: &str, each: &mut dyn FnMut(&BorrowedMessage<'_>)) -> Result<u64, Error> {
    let mut config = client::client_config(kafka)?;
    config
        // Only because librdkafka assigns nothing without one: with offsets of its own it asks the group for nothing.
        .set("group.id", &kafka.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        // Where compaction, retention or markers of transactions take the last offsets, only this tells the end.
        .set("enable.partition.eof", "true");
    let consumer = BaseConsumer::from_config_and_context(&config, Context::default()).map_err(client::Error::from)?;
    let trouble = consumer.context().trouble.clone();
    let failed = |what: &str, error: &KafkaError| Error::Kafka(trouble.explain(what, error));
    let mut open = ends(consumer.client(), kafka, topic)?;
    if open.is_empty() {
        return Ok(0);
    }
    let mut list = TopicPartitionList::new();
    for &(partition, _) in &open {
        let added = list.add_partition_offset(topic, partition, Offset::Beginning);
        added.map_err(|e| failed(topic, &e))?;
    }
    consumer.assign(&list).map_err(|e| failed(topic, &e))?;
    let mut heard = Instant::now();
    let mut records = 0;
    while !open.is_empty() {
        match consumer.poll(kafka.timeout() / 10) {
            None if heard.elapsed() < kafka.timeout() => {}
            None => {
                let silence = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
                return Err(failed(&format!("reading {topic}"), &silence));
            }
            Some(Ok(message)) => {
                heard = Instant::now();
                let end = open.iter().position(|(p, _)| *p == message.partition());
                let Some(end) = end else { continue };
                // What came since is the next reader's: a topic that is written to all the time has an end, too.
                if message.offset() < open[end].1 {
                    records += 1;
                    each(&message);
                }
                if message.offset() + 1 >= open[end].1 {
                    open.swap_remove(end);
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = Instant::now();
                open.retain(|(p, _)| *p != partition);
            }
            Some(Err(error)) if is_passing(&error) && heard.elapsed() < kafka.timeout() => {
                client::complain(&trouble, &error, "");
            }
            Some(Err(error)) => return Err(failed(&format!("reading {topic}"), &error)),
        }
    }
    Ok(records)
}

/// The partitions that hold something, and where each ends.
fn ends(client: &Client<Context>, kafka: &Kafka, topic: &str) -> Result<Vec<(i32, i64)>, Error> {
    let failed = |what: &str, error: &KafkaError| Error::Kafka(client.context().trouble.explain(what, error));
    // Of all topics: a broker that makes topics when they are asked for would make this one.
    let metadata = client.fetch_metadata(None, kafka.timeout());
    let metadata = metadata.map_err(|e| failed(&format!("asking {} for topics", kafka.bootstrap_servers), &e))?;
    let found = metadata.topics().iter().find(|t| t.name() == topic).filter(|t| !t.partitions().is_empty());
    let Some(found) = found else { return Err(Error::NoTopic(topic.to_owned())) };
    let mut ends = Vec::new();
    for partition in found.partitions() {
        let (low, high) = client
            .fetch_watermarks(topic, partition.id(), kafka.timeout())
            .map_err(|e| failed(&format!("asking for the end of {topic}:{}", partition.id()), &e))?;
        if low < high {
            ends.push((partition.id(), high));
        }
    }
    Ok(ends)
}

/// Errors that librdkafka gets over by itself.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as E;
    error.rdkafka_error_code().is_some_and(|code| {
        matches!(code, E::BrokerTransportFailure | E::AllBrokersDown | E::OperationTimedOut | E::Resolve)
    })
}
