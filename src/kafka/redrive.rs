//! Publishing again what could not be read before.
//!
//! Events and the markers that say they were published go into one transaction, and a transaction is begun only by who read the
//! markers after becoming the only one that may write them: so each origin is published once, whoever is killed when.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::Producer as _;

use super::client;
use super::publish::{self, Publisher, key, record, record_with};
use super::rejects::{self, Rejected, Rejects, Wanted};
use super::settings::Kafka;
use super::to_end::{self, read_to_end};
use crate::event::{Decoded, Limits, Timestamp, decode};

/// Events that a transaction publishes at most: what a crash makes us read again.
const CHUNK: usize = 1000;

/// Why there was no redrive, or only a part of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no client.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The rejects could not be read.
    #[error(transparent)]
    Read(#[from] to_end::Error),
    /// With what failed, why, and what to do about it.
    #[error("{0}")]
    Kafka(String),
}

/// What a redrive did, or with `dry_run` would have done.
#[derive(Debug, Default)]
pub struct Redriven {
    /// Records published again, by the reason that they had been rejected for.
    pub published: BTreeMap<String, u64>,
    /// Records that still cannot be read, by today's reason, with today's sentence about the first of them.
    pub still: BTreeMap<String, (u64, String)>,
    /// What the topic held.
    pub rejects: Rejects,
}

/// Decodes the wanted rejects again, and publishes those that are readable now.
///
/// # Errors
/// Where no broker answers, a topic is missing or a transaction fails; what earlier transactions published stays published, and
/// is not published again by the next redrive.
pub fn redrive(
    kafka: &Kafka,
    limits: &Limits,
    wanted: Wanted,
    now: Timestamp,
    dry_run: bool,
) -> Result<Redriven, Error> {
    let writer = if dry_run { None } else { Some(Writer::new(kafka)?) };
    let mut rejects = Rejects::new(wanted);
    read_to_end(kafka, &kafka.topics.rejects, &mut |message| rejects.push(message))?;
    let mut done = Redriven::default();
    let not_after = Some(Timestamp(now.0.saturating_add(super::FUTURE_MS)));
    let mut readable = Vec::new();
    for rejected in rejects.open() {
        match again(rejected, limits, not_after) {
            Ok(key) => readable.push((rejected, key)),
            Err((reason, detail)) => done.still.entry(reason.to_owned()).or_insert((0, detail)).0 += 1,
        }
    }
    for chunk in readable.chunks(CHUNK) {
        if let Some(writer) = &writer {
            writer.write(chunk)?;
        }
        for (rejected, _) in chunk {
            *done.published.entry(rejected.reason.clone()).or_default() += 1;
        }
    }
    drop(readable);
    done.rejects = rejects;
    Ok(done)
}

/// The key of a record that is readable now; why it is not, where it still is not.
fn again(
    rejected: &Rejected,
    limits: &Limits,
    not_after: Option<Timestamp>,
) -> Result<Option<Vec<u8>>, (&'static str, String)> {
    if let Some(bytes) = rejected.cut_from_bytes {
        return Err(("cut", format!("only a part of its {bytes} bytes was kept")));
    }
    match decode(rejected.value.as_deref().unwrap_or_default(), limits, not_after) {
        Ok(Decoded::Event(event, _)) => Ok(key(&event, &mut Vec::new()).map(<[u8]>::to_vec)),
        Ok(Decoded::UnknownKind) => Err(("unknown_kind", "a kind that this version does not know".to_owned())),
        Err(reject) => Err((reject.reason(), reject.to_string())),
    }
}

/// The only one that may write markers.
struct Writer<'a> {
    publisher: Publisher,
    kafka: &'a Kafka,
}

impl<'a> Writer<'a> {
    fn new(kafka: &'a Kafka) -> Result<Self, Error> {
        let mut config = publish::producer_config(kafka)?;
        config.set("transactional.id", format!("{}.redrive", kafka.group));
        if !kafka.properties.contains_key("transaction.timeout.ms") {
            // librdkafka wants it above the time for a delivery.
            config.set("transaction.timeout.ms", "180000");
        }
        let writer = Self { publisher: Publisher::new(&config)?, kafka };
        let events = &kafka.topics.events;
        match writer.publisher.partitions(events, kafka.timeout()) {
            Ok(Some(_)) => {}
            Ok(None) => return Err(to_end::Error::NoTopic(events.clone()).into()),
            Err(error) => {
                return Err(writer.failed(&format!("asking {} for topics", kafka.bootstrap_servers), &error));
            }
        }
        // Whoever else is at it is fenced off, and what they left open is aborted.
        let producer = writer.publisher.producer();
        producer.init_transactions(kafka.timeout()).map_err(|e| writer.failed("beginning with transactions", &e))?;
        Ok(writer)
    }

    fn failed(&self, what: &str, error: &KafkaError) -> Error {
        Error::Kafka(self.publisher.explain(what, error))
    }

    fn write(&self, chunk: &[(&Rejected, Option<Vec<u8>>)]) -> Result<(), Error> {
        let producer = self.publisher.producer();
        producer.begin_transaction().map_err(|e| self.failed("beginning a transaction", &e))?;
        let written = self.send(chunk).and_then(|()| producer.commit_transaction(self.kafka.timeout()));
        if let Err(error) = written {
            // The first record that did not arrive says more than the commit that could not be because of it.
            let cause = self.publisher.first_failed().map_or(error, |failed| failed.error);
            let failed = self.failed("publishing again", &cause);
            // It would be aborted by the next redrive, too.
            if let Err(error) = producer.abort_transaction(Duration::from_secs(5)) {
                tracing::warn!(target: "kafka", %error, "a transaction was left open");
            }
            return Err(failed);
        }
        Ok(())
    }

    fn send(&self, chunk: &[(&Rejected, Option<Vec<u8>>)]) -> Result<(), KafkaError> {
        let topics = &self.kafka.topics;
        for (number, (rejected, key)) in chunk.iter().enumerate() {
            self.publisher.send(record(&topics.events, number, key.as_deref(), rejected.value.as_deref()))?;
            let marker = rejects::redriven(&rejected.source);
            // By its origin, so that markers are spread, and none is dropped where a topic refuses records without keys.
            let origin = rejected.source.to_string();
            self.publisher.send(record_with(&topics.rejects, number, Some(origin.as_bytes()), None, marker))?;
        }
        Ok(())
    }
}
