//! Brings the signals topic into an [`Exposure`], and tells of stops that were served, a few records at a time, for who has a loop of his own.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::exposure::Exposure;
use super::served::Served;
use crate::core::signal::Signal;
use crate::kafka::client::{self, Context, client_config};
use crate::kafka::settings::Kafka;

/// A record may have been written this much before the minute that it is about, in milliseconds: clocks differ, and an event may come
/// from the near future.
const AHEAD_MS: i64 = 600_000;

/// Why the topic cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The brokers do not answer, or not with what was asked for; with the cure where there is one.
    #[error("{0}")]
    Broker(String),
}

/// A place in the signals topic.
pub struct Follower {
    consumer: BaseConsumer<Context>,
    topic: String,
    is_caught_up: bool,
    /// Records that could not be used.
    unusable: u64,
}

impl Follower {
    /// Begins where the records begin that `exposure` keeps, seen from `now_ms`, in milliseconds since 1970. It is in no group, and
    /// commits nothing.
    ///
    /// # Errors
    /// Where the properties cannot be used or the brokers do not answer within `kafka.timeout_s`.
    pub fn new(kafka: &Kafka, exposure: &Exposure, now_ms: i64) -> Result<Self, Error> {
        let mut config = client_config(kafka)?;
        config
            // Only because librdkafka assigns nothing without one.
            .set("group.id", &kafka.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("fetch.message.max.bytes", "8388608")
            .set("queued.max.messages.kbytes", "16384")
            .set("fetch.wait.max.ms", "100");
        let consumer: BaseConsumer<Context> =
            config.create_with_context(Context::default()).map_err(client::Error::from)?;
        let topic = kafka.topics.signals.clone();
        let failed = |what: &str, e: &KafkaError| {
            let trouble = &consumer.context().trouble;
            Error::Broker(trouble.explain(&format!("{topic}: {what}; `mailfuse topics check` says more"), e))
        };
        let mut list = TopicPartitionList::new();
        let from_ms = now_ms - i64::from(exposure.keep_s()) * 1000 - AHEAD_MS;
        list.add_partition_offset(&topic, 0, Offset::Offset(from_ms.max(0)))
            .map_err(|e| failed("no place in it", &e))?;
        let found =
            consumer.offsets_for_times(list, kafka.timeout()).map_err(|e| failed("its times are not known", &e))?;
        // Where nothing is as young, at its end, whatever is written from now on.
        let begin = match found.find_partition(&topic, 0).map(|p| p.offset()) {
            Some(Offset::Offset(n)) if n >= 0 => Offset::Offset(n),
            _ => {
                let ends = consumer.fetch_watermarks(&topic, 0, kafka.timeout());
                Offset::Offset(ends.map_err(|e| failed("its end is not known", &e))?.1)
            }
        };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, begin)
            .and_then(|()| consumer.assign(&list))
            .map_err(|e| failed("it cannot be read", &e))?;
        Ok(Self { consumer, topic, is_caught_up: false, unusable: 0 })
    }

    /// Takes what has come, at most `max` records, and does not wait for more. Stops that were served go to `served`. Returns how
    /// many records there were.
    ///
    /// # Errors
    /// Where the topic is gone, was made anew, or may not be read: begin anew with an empty [`Exposure`]. What passes by itself is
    /// waited out.
    pub fn take(
        &mut self,
        exposure: &mut Exposure,
        served: &mut dyn FnMut(Served),
        max: usize,
    ) -> Result<usize, Error> {
        for taken in 0..max {
            match self.consumer.poll(Duration::ZERO) {
                None => return Ok(taken),
                Some(Ok(message)) => {
                    let Some(value) = message.payload() else { continue };
                    let key = message.key().unwrap_or_default();
                    let read = if Served::is_key(key) {
                        Served::read(value).map(&mut *served)
                    } else {
                        Signal::read(key, value).map(|signal| exposure.take(&signal)).map_err(|e| e.to_string())
                    };
                    match read {
                        Ok(()) => {}
                        Err(e) => {
                            self.unusable += 1;
                            // The first tells it; all of them would fill a disk.
                            if self.unusable == 1 {
                                tracing::warn!(
                                    "{}:0:{}: {e}: it is passed over, and so are others like it: look at who else writes there",
                                    self.topic,
                                    message.offset()
                                );
                            }
                        }
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.is_caught_up = true,
                Some(Err(e)) if e.rdkafka_error_code().is_some_and(is_lasting) => {
                    let trouble = &self.consumer.context().trouble;
                    return Err(Error::Broker(trouble.explain(&format!("{} is not readable", self.topic), &e)));
                }
                Some(Err(_)) => {}
            }
        }
        Ok(max)
    }

    /// Whether the end has been met once: what was told before this began is known.
    pub fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }
}

fn is_lasting(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
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

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("topic", &self.topic).finish_non_exhaustive()
    }
}
