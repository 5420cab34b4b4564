//! Producing: one producer, driven on the caller's thread, that tells of every record which did not arrive.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig};

use super::client::{self, LastTrouble};
use super::settings::Kafka;
use crate::event::{Auth, Event, Kind};

/// Properties of producers that `[kafka.properties]` may override, each under all of its names.
const DEFAULTS: &[(&[&str], &str)] = &[
    // A batch waits for company: on the wire it is compressed as one.
    (&["linger.ms", "queue.buffering.max.ms"], "50"),
    (&["batch.size"], "1000000"),
    (&["batch.num.messages"], "10000"),
    (&["message.max.bytes"], "1000000"),
    (&["queue.buffering.max.messages"], "500000"),
    (&["queue.buffering.max.kbytes"], "131072"),
    (&["compression.type", "compression.codec"], "lz4"),
    // As long as Java's clients try.
    (&["delivery.timeout.ms", "message.timeout.ms"], "120000"),
    (&["max.in.flight.requests.per.connection", "max.in.flight"], "5"),
];

/// How long one wait for room in the queue takes.
const WAIT: Duration = Duration::from_millis(5);

/// The properties of a producer: nothing is lost, doubled or put out of order by it, and an account stays on the partition
/// where Java's clients put it.
///
/// # Errors
/// As [`client::client_config`].
pub fn producer_config(kafka: &Kafka) -> Result<ClientConfig, client::Error> {
    let mut config = client::client_config(kafka)?;
    for (names, value) in DEFAULTS {
        if !names.iter().any(|name| kafka.properties.contains_key(*name)) {
            config.set(names[0], *value);
        }
    }
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        // What is not reported as failed has arrived; half a million reports a second that all is well would cost a core.
        .set("delivery.report.only.error", "true");
    Ok(config)
}

/// The key of an event's record: its account, else the network of the client, `198.51.100.0/24` or `2001:db8:1::/48`.
/// `buffer` is for the latter. `None` where there is neither: then any partition will do.
pub fn key<'k>(event: &'k Event<'_>, buffer: &'k mut Vec<u8>) -> Option<&'k [u8]> {
    if let Some(account) = &event.account {
        return Some(account.as_bytes());
    }
    let Kind::Auth(Auth { client_ip: Some(ip), .. }) = event.kind else { return None };
    let bits = if ip.is_ipv4() { 24 } else { 48 };
    let network = IpNet::new(IpAddr::to_canonical(&ip), bits).ok()?.trunc();
    buffer.clear();
    write!(buffer, "{network}").ok()?;
    Some(buffer)
}

/// The records that did not arrive.
#[derive(Debug, Default)]
struct Deliveries {
    trouble: LastTrouble,
    failed: AtomicU64,
    first: Mutex<Option<Failed>>,
}

/// The first record that did not arrive.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The number under which it was offered, the smallest of all that failed.
    pub number: usize,
    /// Why.
    pub error: KafkaError,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        client::log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::complain(&self.trouble, &error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let Err((error, message)) = result else { return };
        // The first tells why; a record that was purged because of it does not.
        tracing::debug!(target: "kafka", topic = message.topic(), number, %error, "not delivered");
        self.failed.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *first {
            None => *first = Some(Failed { number, error: error.clone() }),
            Some(known) => known.number = known.number.min(number),
        }
    }
}

/// A record to be produced.
pub type Record<'a> = BaseRecord<'a, [u8], [u8], usize>;

/// A record of `topic` with this key and value. `number` is for telling which one failed.
pub fn record<'a>(topic: &'a str, number: usize, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Record<'a> {
    let mut record = Record::with_opaque_to(topic, number);
    record.key = key;
    record.payload = value;
    record
}

/// The same with headers.
pub fn record_with<'a>(
    topic: &'a str,
    number: usize,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: OwnedHeaders,
) -> Record<'a> {
    record(topic, number, key, value).headers(headers)
}

/// A producer that is driven on the thread which calls it: nothing happens behind its back but sending.
pub struct Publisher {
    producer: BaseProducer<Deliveries>,
}

impl Publisher {
    /// Connects, lazily: that no broker answers shows at the first question.
    ///
    /// # Errors
    /// Where the properties cannot be used.
    pub fn new(config: &ClientConfig) -> Result<Self, client::Error> {
        Ok(Self { producer: BaseProducer::from_config_and_context(config, Deliveries::default())? })
    }

    /// How many partitions the topic has; `None` where there is no such topic.
    ///
    /// # Errors
    /// Where no broker answers.
    pub fn partitions(&self, topic: &str, timeout: Duration) -> Result<Option<usize>, KafkaError> {
        // Of all topics: a broker that makes topics when they are asked for would make this one.
        let metadata = self.producer.client().fetch_metadata(None, timeout).inspect_err(|_| {
            // What the client has to say about it waits in its queue.
            self.producer.poll(WAIT);
        })?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        Ok(found.map(|t| t.partitions().len()).filter(|n| *n > 0))
    }

    /// Takes a record, or gives it back where the queue is full: then [`Publisher::wait`], and offer it again.
    ///
    /// # Errors
    /// Where this record can never be sent.
    pub fn offer<'a>(&self, record: Record<'a>) -> Result<Option<Record<'a>>, KafkaError> {
        match self.producer.send(record) {
            Ok(()) => Ok(None),
            Err((error, record)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => Ok(Some(record)),
            Err((error, _)) => Err(error),
        }
    }

    /// Takes a record, waiting for room as long as it takes: records leave the queue when they have arrived or failed.
    ///
    /// # Errors
    /// As [`Publisher::offer`].
    pub fn send(&self, mut record: Record<'_>) -> Result<(), KafkaError> {
        while let Some(back) = self.offer(record)? {
            self.wait();
            record = back;
        }
        Ok(())
    }

    /// Waits a moment for room, and hears what failed.
    pub fn wait(&self) {
        self.producer.poll(WAIT);
    }

    /// Hears what failed, without waiting. To be called now and then.
    pub fn hear(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Sends what is queued and waits until all of it has arrived or failed. What is left after `patience` is given up, and
    /// counts as failed; without it every record ends within its own time-out.
    pub fn flush(&self, patience: Option<Duration>) {
        let begun = Instant::now();
        let mut purged = false;
        // Reports of failures that nobody has heard yet are in this count as well.
        while self.producer.in_flight_count() > 0 {
            if self.producer.flush(Duration::from_millis(100)).is_ok() {
                self.wait();
            }
            if !purged && patience.is_some_and(|patience| begun.elapsed() >= patience) {
                self.producer.purge(PurgeConfig::default().queue().inflight());
                purged = true;
            }
        }
        self.hear();
    }

    /// How many records did not arrive, so far.
    pub fn failed(&self) -> u64 {
        self.producer.context().failed.load(Ordering::Relaxed)
    }

    /// The first of them.
    pub fn first_failed(&self) -> Option<Failed> {
        self.producer.context().first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What failed, why, and what to do about it.
    pub fn explain(&self, what: &str, error: &KafkaError) -> String {
        self.producer.context().trouble.explain(what, error)
    }

    /// The producer as it is, for transactions.
    pub(super) fn producer(&self) -> &BaseProducer<impl ProducerContext<DeliveryOpaque = usize> + use<>> {
        &self.producer
    }
}

/// Keeps to a pace.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// So many events a second, evenly.
    Rate(f64),
    /// As the events happened, so many times as fast.
    Speed(f64),
}

/// When the next event is due.
#[derive(Debug)]
pub struct Pacer {
    pace: Pace,
    begun: Instant,
    events: u64,
    first_ms: Option<i64>,
}

impl Pacer {
    /// Begins now.
    pub fn new(pace: Pace) -> Self {
        Self { pace, begun: Instant::now(), events: 0, first_ms: None }
    }

    /// How long to wait before the next event, which happened at `ts_ms`.
    pub fn next(&mut self, ts_ms: i64) -> Duration {
        let due_s = match self.pace {
            Pace::Rate(rate) => self.events as f64 / rate,
            Pace::Speed(speed) => {
                let first_ms = *self.first_ms.get_or_insert(ts_ms);
                ts_ms.saturating_sub(first_ms).max(0) as f64 / 1000.0 / speed
            }
        };
        self.events += 1;
        // A log with an event of the year 9999 is waited for until somebody ends it; the number must only be one.
        Duration::from_secs_f64(due_s.min(1e9)).saturating_sub(self.begun.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Decoded, Limits, decode};

    #[test]
    fn the_key_is_the_account_else_the_clients_network() {
        for (line, expected) in [
            (
                r#"{"v":1,"kind":"auth","ts":1,"account":"A@X.example","client_ip":"192.0.2.7","ok":false}"#,
                "a@x.example",
            ),
            (r#"{"v":1,"kind":"auth","ts":1,"client_ip":"192.0.2.7","ok":false}"#, "192.0.2.0/24"),
            (r#"{"v":1,"kind":"auth","ts":1,"client_ip":"::ffff:192.0.2.7","ok":false}"#, "192.0.2.0/24"),
            (r#"{"v":1,"kind":"auth","ts":1,"client_ip":"2001:db8:1:2::9","ok":false}"#, "2001:db8:1::/48"),
        ] {
            let Ok(Decoded::Event(event, _)) = decode(line.as_bytes(), &Limits::default(), None) else {
                panic!("{line}")
            };
            let mut buffer = Vec::new();
            assert_eq!(key(&event, &mut buffer), Some(expected.as_bytes()), "{line}");
        }
    }

    #[test]
    fn properties_override_the_defaults_under_any_of_their_names() {
        let mut kafka = Kafka::default();
        kafka.properties.insert("compression.codec".to_owned(), "zstd".to_owned());
        let config = producer_config(&kafka).unwrap();
        assert_eq!((config.get("compression.type"), config.get("compression.codec")), (None, Some("zstd")));
        assert_eq!((config.get("linger.ms"), config.get("acks")), (Some("50"), Some("all")));
    }

    #[test]
    fn a_pace_is_kept() {
        let mut pacer = Pacer::new(Pace::Speed(60.0));
        assert_eq!(pacer.next(5_000), Duration::ZERO);
        let due = pacer.next(65_000);
        assert!(due > Duration::from_millis(500) && due <= Duration::from_secs(1), "{due:?}");
        let mut pacer = Pacer::new(Pace::Rate(10.0));
        assert_eq!(pacer.next(0), Duration::ZERO);
        assert!(pacer.next(0) > Duration::from_millis(50));
    }
}
