//! The way out for what does not wait for a checkpoint: alerts, signals and dead letters, each delivery accounted for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::client::{self, LastTrouble, client_config, complain};
use super::settings::Kafka;
use crate::telemetry::Metrics;

/// The largest record that is sent, in bytes: `mailfuse topics create` lets as much through.
pub const RECORD_BYTES_MAX: usize = 8 << 20;

/// What one span between two checkpoints has sent and not yet seen acknowledged.
#[derive(Debug, Default)]
pub struct Tracker {
    outstanding: AtomicU64,
    failed: AtomicBool,
    error: Mutex<Option<String>>,
}

/// How far a tracker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// All is acknowledged.
    All,
    /// Some are under way.
    Waiting(u64),
    /// One was refused for good; why.
    Failed(String),
}

impl Tracker {
    /// How far it is.
    pub fn state(&self) -> Delivered {
        if self.failed.load(Ordering::Acquire) {
            let error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
            return Delivered::Failed(error.clone().unwrap_or_default());
        }
        match self.outstanding.load(Ordering::Acquire) {
            0 => Delivered::All,
            n => Delivered::Waiting(n),
        }
    }

    fn fail(&self, why: String) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        self.failed.store(true, Ordering::Release);
    }
}

/// What is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An alert, and when the event that caused it was appended, in milliseconds since 1970.
    Alert {
        /// 0 where that is not known.
        appended_ms: i64,
    },
    /// What went over which relay.
    Signal,
    /// A record that could not be read.
    Reject,
}

/// What comes back with a delivery.
#[derive(Debug)]
pub struct Delivery {
    tracker: Arc<Tracker>,
    what: What,
}

/// Counts deliveries.
#[derive(Debug)]
pub struct OutletContext {
    trouble: LastTrouble,
    metrics: Arc<Metrics>,
}

impl ClientContext for OutletContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        client::log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        complain(&self.trouble, &error, reason);
    }
}

impl ProducerContext for OutletContext {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Self::DeliveryOpaque) {
        match result {
            Ok(_) => match delivery.what {
                What::Alert { appended_ms } => {
                    self.metrics.alerts_sent.inc();
                    if appended_ms > 0 {
                        let took_ms = (now_ms() - appended_ms).max(0);
                        self.metrics.event_to_alert_seconds.observe(took_ms as f64 / 1000.0);
                    }
                }
                What::Signal => {
                    self.metrics.signals_sent.inc();
                }
                What::Reject => {
                    self.metrics.rejects_sent.inc();
                }
            },
            Err((error, _)) => {
                self.metrics.alerts_failed.inc();
                let what = match delivery.what {
                    What::Alert { .. } => "an alert was not taken",
                    What::Signal => "a signal was not taken",
                    What::Reject => "a dead letter was not taken",
                };
                let why = self.trouble.explain(what, error);
                tracing::error!("{why}; its partition goes back to its last checkpoint");
                delivery.tracker.fail(why);
            }
        }
        delivery.tracker.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The wall clock, in milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An idempotent producer, shared by all partitions.
pub struct Outlet {
    producer: ThreadedProducer<OutletContext>,
}

/// The outlet's queue is full: the caller must hold back, which holds back the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Outlet {
    /// Connects.
    ///
    /// # Errors
    /// Where the properties cannot be used.
    pub fn new(kafka: &Kafka, metrics: Arc<Metrics>) -> Result<Self, client::Error> {
        let mut config = client_config(kafka)?;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            // An alert goes at once; a burst of them still travels together.
            .set("linger.ms", "1")
            .set("compression.type", "lz4")
            .set("message.max.bytes", (RECORD_BYTES_MAX + 1024).to_string())
            // Longer than brokers are away when they are restarted. What times out is made again from the checkpoint.
            .set("message.timeout.ms", "300000")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "131072");
        let context = OutletContext { trouble: LastTrouble::default(), metrics };
        Ok(Self { producer: config.create_with_context(context)? })
    }

    /// Sends one record; `tracker` learns what becomes of it.
    ///
    /// # Errors
    /// Where the queue is full. Whatever else is wrong, the tracker fails.
    pub fn send(
        &self,
        topic: &str,
        key: &[u8],
        value: &[u8],
        headers: Option<OwnedHeaders>,
        what: What,
        tracker: &Arc<Tracker>,
    ) -> Result<(), Full> {
        let delivery = Box::new(Delivery { tracker: Arc::clone(tracker), what });
        let mut record = BaseRecord::with_opaque_to(topic, delivery).key(key).payload(value);
        if let Some(headers) = headers {
            record = record.headers(headers);
        }
        tracker.outstanding.fetch_add(1, Ordering::AcqRel);
        match self.producer.send(record) {
            Ok(()) => Ok(()),
            Err((error, _)) => {
                tracker.outstanding.fetch_sub(1, Ordering::AcqRel);
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                    return Err(Full);
                }
                let why = self.producer.context().trouble.explain(&format!("{topic} takes no record"), &error);
                tracing::error!("{why}");
                tracker.fail(why);
                Ok(())
            }
        }
    }

    /// Waits until everything is acknowledged, at most so long.
    pub fn flush(&self, timeout: Duration) {
        if let Err(e) = self.producer.flush(timeout) {
            tracing::warn!("not everything that was sent has been acknowledged: {e}");
        }
    }
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}
