//! What this user may do, found out by doing it: there is no call of librdkafka's that lists a user's own rights.
//!
//! Nothing is left behind. A right to write is tried where it leaves no trace: on a compacted topic a record without a key is
//! refused, but only after the right to write has been looked at. Other topics would keep the record.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::sync::{Mutex, PoisonError};

use super::cluster::{Cluster, Seen};
use super::{Error, Finding, Role, tool};
use crate::kafka::client::{self, client_config};
use crate::kafka::settings::Kafka;

/// The beginning of the command that gives this user a right.
pub(super) fn grant(kafka: &Kafka) -> String {
    let user = if kafka.username.is_empty() { "NAME" } else { &kafka.username };
    format!("{} --add --allow-principal User:{user}", tool("kafka-acls", kafka))
}

/// Tries what `mailfuse run` does.
pub(super) fn check(cluster: &Cluster, kafka: &Kafka, seen: &BTreeMap<Role, Seen>) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for (role, seen) in seen {
        let topic = role.topic(kafka);
        let operation = match role {
            Role::Events | Role::Control => "Read",
            Role::State => "All",
            Role::Alerts | Role::Rejects => "Write",
        };
        if *seen == Seen::Forbidden {
            let cure = format!("{} --operation {operation} --topic {topic}", grant(kafka));
            findings.push(missing(topic, "DESCRIBE", "this user may not even look at the topic", cure));
        }
    }
    let is_there = |role: Role| seen.get(&role).and_then(Seen::partitions).is_some_and(|n| n > 0);
    for role in [Role::Events, Role::State, Role::Control] {
        if is_there(role) {
            findings.extend(read(kafka, role.topic(kafka))?);
        }
    }
    if is_there(Role::Events) {
        findings.push(group(cluster, kafka)?);
    }
    if is_there(Role::State) {
        findings.extend(write(kafka, &kafka.topics.state)?);
    }
    Ok(findings)
}

fn missing(topic: &str, right: &str, why: &str, cure: String) -> Finding {
    Finding::ok(topic, right, "allowed", "forbidden").wrong(why, cure)
}

/// Whether records can be fetched: to fetch the end is enough.
fn read(kafka: &Kafka, topic: &str) -> Result<Option<Finding>, Error> {
    let mut config = client_config(kafka)?;
    config.set("group.id", &kafka.group).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    let consumer: BaseConsumer<client::Context> =
        config.create_with_context(client::Context::default()).map_err(client::Error::from)?;
    let mut list = TopicPartitionList::new();
    let assigned = list.add_partition_offset(topic, 0, Offset::End).and_then(|()| consumer.assign(&list));
    let what = format!("{topic} cannot be read");
    assigned.map_err(|e| Error::Broker(format!("{what}: {e}")))?;
    let began = Instant::now();
    while began.elapsed() < kafka.timeout() {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => {
                return Ok(Some(Finding::ok(topic, "READ", "allowed", "allowed")));
            }
            Some(Err(e)) if e.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                let cure = format!("{} --operation Read --topic {topic}", grant(kafka));
                return Ok(Some(missing(topic, "READ", "`mailfuse run` reads this topic", cure)));
            }
            Some(Err(_)) => {}
        }
    }
    let error = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
    Err(Error::Broker(consumer.context().trouble.explain(&what, &error)))
}

/// Whether the group's offsets can be seen.
fn group(cluster: &Cluster, kafka: &Kafka) -> Result<Finding, Error> {
    let name = format!("group {}", kafka.group);
    let mut list = TopicPartitionList::new();
    list.add_partition(&kafka.topics.events, 0);
    let committed = cluster.consumer.committed_offsets(list, kafka.timeout());
    match committed.and_then(|list| list.elements().iter().try_for_each(|e| e.error())) {
        Ok(()) => Ok(Finding::ok(&name, "READ", "allowed", "allowed")),
        Err(e) if e.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
            let cure = format!("{} --operation Read --group {}", grant(kafka), kafka.group);
            Ok(missing(&name, "READ", "`mailfuse run` is a member of this group and keeps its offsets there", cure))
        }
        Err(e) => Err(cluster.failed("the group's offsets cannot be read", &e)),
    }
}

/// What became of the record.
#[derive(Debug, Default)]
struct Probe {
    client: client::Context,
    outcome: Mutex<Option<KafkaError>>,
}

impl ClientContext for Probe {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, words: &str) {
        // The refusal is what this is about: it is no news.
        tracing::debug!(target: "kafka", ?level, facility, "{words}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.client.trouble.note(code, reason);
        }
    }
}

impl ProducerContext for Probe {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
    }
}

/// Whether transactions can be had, and the topic be written.
fn write(kafka: &Kafka, topic: &str) -> Result<Vec<Finding>, Error> {
    let id = format!("{}-check", kafka.group);
    let mut config = client_config(kafka)?;
    config.set("transactional.id", &id).set("message.timeout.ms", "10000").set("transaction.timeout.ms", "15000");
    let producer: BaseProducer<Probe> = config.create_with_context(Probe::default()).map_err(client::Error::from)?;
    let name = format!("transactional id {}-", kafka.group);
    let failed = |what: &str, e: &KafkaError| Error::Broker(producer.context().client.trouble.explain(what, e));
    let began = producer.init_transactions(kafka.timeout()).and_then(|()| producer.begin_transaction());
    if let Err(e) = began {
        if e.rdkafka_error_code() == Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) {
            let cure = format!(
                "{} --operation Write --operation Describe --transactional-id {}- --resource-pattern-type prefixed",
                grant(kafka),
                kafka.group
            );
            let why = "a checkpoint is a transaction; each partition has an id that begins with the group's name";
            return Ok(vec![missing(&name, "WRITE", why, cure)]);
        }
        return Err(failed("no transaction can be had", &e));
    }
    let mut findings = vec![Finding::ok(&name, "WRITE", "allowed", "allowed")];
    let sent = producer.send(BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(b"mailfuse topics check"));
    if let Err((e, _)) = sent {
        return Err(failed(&format!("{topic} takes no record"), &e));
    }
    // That the record is refused is expected; what it was refused for is the answer.
    let _ = producer.flush(Duration::from_secs(12));
    let _ = producer.abort_transaction(kafka.timeout());
    let outcome = producer.context().outcome.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let forbidden = outcome.is_some_and(|e| e.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed));
    findings.push(if forbidden {
        let cure = format!("{} --operation Write --topic {topic}", grant(kafka));
        missing(topic, "WRITE", "checkpoints are written there", cure)
    } else {
        Finding::ok(topic, "WRITE", "allowed", "allowed")
    });
    Ok(findings)
}
