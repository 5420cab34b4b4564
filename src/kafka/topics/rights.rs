//! What this user may do, found out by doing it: there is no call of librdkafka's that lists a user's own rights.
//!
//! Nothing is left behind but the marker of a transaction that was broken off. A right to write is tried where it leaves no record: on
//! a compacted topic one without a key is refused, but only after the right to write has been looked at. Other topics would keep it.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::cluster::{Cluster, PIECE, Quiet, Seen};
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
            Role::Events => "Read",
            Role::State | Role::Alerts | Role::Control | Role::Desk | Role::Signals => "All",
            Role::Rejects => "Write",
        };
        if *seen == Seen::Forbidden {
            let cure = format!("{} --operation {operation} --topic {topic}", grant(kafka));
            findings.push(missing(topic, "DESCRIBE", "this user may not even look at the topic", cure));
        }
    }
    let is_there = |role: Role| seen.get(&role).and_then(Seen::partitions).is_some_and(|n| n > 0);
    for role in [Role::Events, Role::State, Role::Alerts, Role::Control, Role::Desk, Role::Signals] {
        if is_there(role) {
            findings.extend(read(kafka, role.topic(kafka))?);
        }
    }
    if is_there(Role::Events) {
        findings.push(group(cluster, kafka)?);
    }
    let mut transactions = None;
    for (role, why) in [
        (Role::State, "checkpoints are written there"),
        (Role::Control, "the desk tells every detector there what people have decided"),
        (Role::Desk, "the desk keeps there what it has done, and detectors whom throttled accounts know"),
        (Role::Signals, "detectors tell there what relays carry, and policy services that they serve a stop"),
    ] {
        if is_there(role) {
            let (id, right) = write(kafka, role.topic(kafka), why)?;
            let is_tried = right.is_some();
            findings.extend(right);
            transactions = Some(id);
            if !is_tried {
                break;
            }
        }
    }
    // The same for each of them.
    findings.extend(transactions);
    Ok(findings)
}

fn missing(topic: &str, right: &str, why: &str, cure: String) -> Finding {
    Finding::ok(topic, right, "allowed", "forbidden").wrong(why, cure)
}

/// Whether records can be fetched: to fetch the end is enough.
fn read(kafka: &Kafka, topic: &str) -> Result<Option<Finding>, Error> {
    let mut config = client_config(kafka)?;
    config.set("group.id", &kafka.group).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet::default()).map_err(client::Error::from)?;
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
    let began = Instant::now();
    loop {
        let committed = cluster.consumer.committed_offsets(list.clone(), PIECE.min(kafka.timeout()));
        let error = match committed.and_then(|list| list.elements().iter().try_for_each(|e| e.error())) {
            Ok(()) => return Ok(Finding::ok(&name, "READ", "allowed", "allowed")),
            Err(error) => error,
        };
        // Without the right, librdkafka looks for the coordinator until the time is over, and says why to whoever polls.
        let forbidden = Some(RDKafkaErrorCode::GroupAuthorizationFailed);
        if error.rdkafka_error_code() == forbidden || cluster.hears(|code| Some(code) == forbidden) {
            let cure = format!("{} --operation Read --group {}", grant(kafka), kafka.group);
            let why = "`mailfuse run` is a member of this group and keeps its offsets there";
            return Ok(missing(&name, "READ", why, cure));
        }
        if began.elapsed() >= kafka.timeout() {
            return Err(cluster.failed("the group's offsets cannot be read", &error));
        }
    }
}

/// Whether transactions can be had, and, where they can, the topic be written.
fn write(kafka: &Kafka, topic: &str, why: &str) -> Result<(Finding, Option<Finding>), Error> {
    let id = format!("{}-check", kafka.group);
    let mut config = client_config(kafka)?;
    config.set("transactional.id", &id).set("message.timeout.ms", "10000").set("transaction.timeout.ms", "15000");
    let producer: BaseProducer<Quiet> = config.create_with_context(Quiet::default()).map_err(client::Error::from)?;
    let name = format!("transactional id {}-", kafka.group);
    let failed = |what: &str, e: &KafkaError| Error::Broker(producer.context().trouble.explain(what, e));
    let began = producer.init_transactions(kafka.timeout()).and_then(|()| producer.begin_transaction());
    if let Err(e) = began {
        if e.rdkafka_error_code() == Some(RDKafkaErrorCode::TransactionalIdAuthorizationFailed) {
            let cure = format!(
                "{} --operation Write --operation Describe --transactional-id {}- --resource-pattern-type prefixed",
                grant(kafka),
                kafka.group
            );
            let why = "a checkpoint is a transaction; each partition has an id that begins with the group's name";
            return Ok((missing(&name, "WRITE", why, cure), None));
        }
        return Err(failed("no transaction can be had", &e));
    }
    let transactions = Finding::ok(&name, "WRITE", "allowed", "allowed");
    let sent = producer.send(BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(b"mailfuse topics check"));
    if let Err((e, _)) = sent {
        return Err(failed(&format!("{topic} takes no record"), &e));
    }
    // That the record is refused is expected; what for is the answer. Without the right the transaction fails before the record
    // leaves, and only a call that is out of turn, such as this second beginning, is told why.
    let is_forbidden = |e: &KafkaError| e.rdkafka_error_code() == Some(RDKafkaErrorCode::TopicAuthorizationFailed);
    let began = Instant::now();
    let mut forbidden = false;
    while !forbidden && began.elapsed() < Duration::from_secs(10) {
        producer.poll(Duration::from_millis(50));
        let refusal = producer.context().refusal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        forbidden = refusal.as_ref().is_some_and(is_forbidden)
            || producer.begin_transaction().as_ref().is_err_and(is_forbidden);
        if refusal.is_some() {
            break;
        }
    }
    let _ = producer.abort_transaction(kafka.timeout());
    let right = if forbidden {
        let cure = format!("{} --operation Write --topic {topic}", grant(kafka));
        missing(topic, "WRITE", why, cure)
    } else {
        Finding::ok(topic, "WRITE", "allowed", "allowed")
    };
    Ok((transactions, Some(right)))
}
