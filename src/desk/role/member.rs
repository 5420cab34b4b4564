//! The desk as a member of its group: whether the alerts are ours, and how many there are.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::Error;
use crate::desk::shared::Shared;
use crate::kafka::client::{self, COORDINATOR_MS, LastTrouble, client_config, complain};
use crate::kafka::statistics;

/// Knows whether the alerts are ours.
pub(super) struct Context {
    pub(super) is_ours: AtomicBool,
    /// Who we were when the alerts became ours. Asked for later it might be who we are after they went elsewhere.
    pub(super) membership: Mutex<Option<ConsumerGroupMetadata>>,
    pub(super) trouble: LastTrouble,
    /// The alerts topic.
    topic: String,
    /// Its end, as far as it is known.
    pub(super) end: AtomicI64,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        client::log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        complain(&self.trouble, &error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if let Some(end) = statistics::ends(statistics, &self.topic).get(&0) {
            self.end.store(*end, Ordering::Relaxed);
        }
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let done = if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // Where to go on is known later; until then it is paused, and this is only a place that exists.
            for mut element in list.elements() {
                let _ = element.set_offset(Offset::Beginning);
            }
            let done = consumer.incremental_assign(list).and_then(|()| consumer.pause(list));
            if list.count() > 0 && done.is_ok() {
                *self.membership.lock().unwrap_or_else(PoisonError::into_inner) = consumer.group_metadata();
                self.is_ours.store(true, Ordering::Release);
            }
            done
        } else {
            if list.count() > 0 {
                self.is_ours.store(false, Ordering::Release);
            }
            consumer.incremental_unassign(list)
        };
        if let Err(e) = done {
            tracing::warn!("the desk's alerts were not taken or given back: {e}");
        }
    }
}

pub(super) fn consumer(shared: &Shared) -> Result<BaseConsumer<Context>, Error> {
    let mut config = client_config(&shared.kafka)?;
    let session_ms = shared.session_timeout_ms;
    config
        .set("client.id", &shared.client_id)
        .set("group.id", &shared.kafka.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", session_ms.to_string())
        .set("heartbeat.interval.ms", (session_ms / 10).clamp(100, 3000).to_string())
        .set("max.poll.interval.ms", session_ms.max(300_000).to_string())
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .set("coordinator.query.interval.ms", COORDINATOR_MS)
        .set("enable.partition.eof", "true")
        .set("statistics.interval.ms", "1000")
        .set("fetch.wait.max.ms", "100");
    if !shared.instance.is_empty() {
        config.set("group.instance.id", &shared.instance);
    }
    let context = Context {
        is_ours: AtomicBool::new(false),
        membership: Mutex::default(),
        trouble: LastTrouble::default(),
        topic: shared.kafka.topics.alerts.clone(),
        end: AtomicI64::new(-1),
    };
    let consumer: BaseConsumer<Context> = config.create_with_context(context).map_err(client::Error::from)?;
    consumer.subscribe(&[&shared.kafka.topics.alerts]).map_err(client::Error::from)?;
    Ok(consumer)
}
