//! Who may write the state: nobody but the partition's present owner. Each test makes a zombie.

use std::time::{Duration, Instant};

use crate::run_support::kafka_support::produce_with;
use crate::run_support::{Broker, Deployment, LIMIT, Record, WORK, wait_until};
use mailfuse::kafka::Kafka;
use mailfuse::kafka::changelog::{Changelog, Error, Place};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::producer::Producer;

const ALWAYS: fn() -> bool = || true;

fn event(n: usize) -> (String, String) {
    let account = format!("user{}@fence.example", n % 7);
    let ts = 1_700_000_000 + n;
    let value = format!(
        r#"{{"v":1,"kind":"send","ts":{ts},"account":"{account}","rcpts":["friend{}@far.example"],"queue_id":"q{n}"}}"#,
        n % 3
    );
    (account, value)
}

fn publish(d: &Deployment<'_>, from: usize, to: usize) {
    let events: Vec<_> = (from..to).map(event).collect();
    let events: Vec<_> = events.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    d.broker.lines(&d.topic("events"), &events);
}

fn kafka(d: &Deployment<'_>) -> Kafka {
    let config = mailfuse::config::Config::load(&d.config("library")).unwrap();
    config.kafka
}

/// A member of the group, and what the group knows it by.
fn member(d: &Deployment<'_>) -> (BaseConsumer, ConsumerGroupMetadata) {
    let consumer: BaseConsumer = d
        .broker
        .client()
        .set("group.id", &d.name)
        .set("session.timeout.ms", "6000")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    consumer.subscribe(&[&d.topic("events")]).unwrap();
    wait_until("the member has its partitions", LIMIT, || {
        let _ = consumer.poll(Duration::from_millis(100));
        consumer.assignment().is_ok_and(|a| a.count() > 0)
    });
    let metadata = consumer.group_metadata().unwrap();
    (consumer, metadata)
}

#[test]
fn a_forged_transaction_is_never_seen_and_never_waited_for() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "forged", 1);
    publish(&d, 0, 50);
    // An owner that died with a transaction open, or somebody who means ill: it may stay open for five minutes.
    let id = format!("{}-{}-0", d.name, d.topic("events"));
    let forger = broker.producer(&[("transactional.id", &id), ("transaction.timeout.ms", "300000")]);
    forger.init_transactions(LIMIT).unwrap();
    forger.begin_transaction().unwrap();
    let forged = Record { partition: Some(0), ..Record::new("forged@fence.example", "nonsense") };
    produce_with(&forger, &d.topic("state"), std::slice::from_ref(&forged));

    let began = Instant::now();
    let mut instance = d.start("one");
    d.await_done(WORK);
    assert!(began.elapsed() < Duration::from_secs(120), "a restore waits for no time-out of somebody else");
    let error = forger.commit_transaction(LIMIT).unwrap_err().to_string();
    assert!(error.to_lowercase().contains("fenced") || error.contains("epoch"), "{error}");
    assert!(instance.terminate().success());
    let states = d.states();
    assert_eq!(states.len(), 8, "seven accounts and the shard's record");
    assert!(!states.contains_key(&(0, forged.key.unwrap())));
    assert!(broker.read_uncommitted(&d.topic("state")).len() > broker.read(&d.topic("state")).len(), "it was there");
}

#[test]
fn events_of_an_aborted_transaction_do_not_count_and_nothing_lags_behind_them() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "aborted", 1);
    publish(&d, 0, 20);
    let producer = broker.producer(&[("transactional.id", &format!("{}-events", d.name))]);
    producer.init_transactions(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    let ghost = event(20).1.replace("user6", "ghost");
    produce_with(&producer, &d.topic("events"), &[Record::new("ghost@fence.example", &ghost)]);
    producer.abort_transaction(LIMIT).unwrap();

    let instance = d.start("one");
    instance.await_ready();
    // The last offset is the transaction's mark, which nobody can read.
    wait_until("nothing lags", LIMIT, || {
        let (_, status) = instance.json("/v1/status");
        status["totals"]["events"].as_u64() == Some(20) && status["partitions"][0]["lag_messages"].as_i64() == Some(0)
    });
    publish(&d, 20, 40);
    d.await_done(WORK);
    assert!(!d.states().contains_key(&(0, b"ghost@fence.example".to_vec())));
    assert_eq!(instance.metric("mailfuse_events_total", ""), 40.0);
}

#[test]
fn an_owner_that_was_replaced_cannot_commit() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "replaced", 1);
    publish(&d, 0, 5);
    let kafka = kafka(&d);
    let (_consumer, metadata) = member(&d);
    let mut old = Changelog::open(&kafka, Place::of_state(&kafka, 0), &ALWAYS).unwrap();
    old.begin().unwrap();
    old.put(b"a@fence.example", Some(b"of the old one"), &ALWAYS).unwrap();
    let mut new = Changelog::open(&kafka, Place::of_state(&kafka, 0), &ALWAYS).unwrap();
    let error = old.commit(1, &metadata, &ALWAYS).unwrap_err();
    assert!(matches!(error, Error::Fenced(_)), "{error}");
    new.begin().unwrap();
    new.put(b"a@fence.example", Some(b"of the new one"), &ALWAYS).unwrap();
    new.commit(2, &metadata, &ALWAYS).unwrap();
    let states = d.states();
    assert_eq!(states.get(&(0, b"a@fence.example".to_vec())).map(Vec::as_slice), Some(&b"of the new one"[..]));
    assert_eq!(d.offsets().unwrap()[0].0, Some(2));
}

#[test]
fn a_member_that_the_group_has_given_up_cannot_move_the_offset() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "given-up", 1);
    publish(&d, 0, 5);
    let (gone, stale) = member(&d);
    drop(gone);
    let (_present, fresh) = member(&d);
    let kafka = kafka(&d);
    let mut changelog = Changelog::open(&kafka, Place::of_state(&kafka, 0), &ALWAYS).unwrap();
    changelog.begin().unwrap();
    changelog.put(b"a@fence.example", Some(b"of a zombie"), &ALWAYS).unwrap();
    let error = changelog.commit(4, &stale, &ALWAYS).unwrap_err();
    assert!(matches!(error, Error::Aborted(_) | Error::Fenced(_)), "{error}");
    changelog.abort(&ALWAYS).unwrap();
    assert!(d.states().is_empty());
    assert_eq!(d.offsets().unwrap()[0].0, None);
    changelog.begin().unwrap();
    changelog.put(b"a@fence.example", Some(b"of the owner"), &ALWAYS).unwrap();
    changelog.commit(3, &fresh, &ALWAYS).unwrap();
    assert_eq!(d.offsets().unwrap()[0].0, Some(3));
}

#[test]
fn an_offset_that_stays_pending_is_passed_over() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "pending", 1);
    publish(&d, 0, 30);
    let mut instance = d.start("one");
    d.await_done(WORK);
    assert!(instance.terminate().success());
    // Of a transaction that is nobody's of ours and does not end: the brokers say no offset of the group meanwhile.
    let outside: BaseConsumer = broker.client().set("group.id", &d.name).create().unwrap();
    let settings = [("transactional.id", &*format!("{}-outside", d.name)), ("transaction.timeout.ms", "600000")];
    let producer = broker.producer(&settings);
    producer.init_transactions(LIMIT).unwrap();
    producer.begin_transaction().unwrap();
    let mut offsets = rdkafka::TopicPartitionList::new();
    offsets.add_partition_offset(&d.topic("events"), 0, rdkafka::Offset::Offset(7)).unwrap();
    wait_until("the offset is pending", LIMIT, || {
        producer.send_offsets_to_transaction(&offsets, &outside.group_metadata().unwrap(), LIMIT).is_ok()
    });

    publish(&d, 30, 60);
    let again = d.start("one");
    wait_until("the rest is counted", WORK, || again.metric("mailfuse_events_total", "") == 30.0);
    again.await_log("stays pending");
    producer.abort_transaction(LIMIT).unwrap();
    d.await_done(WORK);
}
