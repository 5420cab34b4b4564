//! What an operator meets at night: each trouble is said with its place and its cure, halts what it must, and loses nothing.

use crate::run_support::{Broker, Deployment, Instance, LIMIT, Record, WORK, wait_until};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

fn event(n: usize, accounts: usize) -> (String, String) {
    let account = format!("user{}@trouble.example", n % accounts);
    let ts = 1_700_000_000 + n;
    let value = format!(
        r#"{{"v":1,"kind":"send","ts":{ts},"account":"{account}","rcpts":["friend@far.example"],"queue_id":"q{n}"}}"#
    );
    (account, value)
}

fn publish_of(d: &Deployment<'_>, from: usize, to: usize, accounts: usize) {
    let events: Vec<_> = (from..to).map(|n| event(n, accounts)).collect();
    let events: Vec<_> = events.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    d.broker.lines(&d.topic("events"), &events);
}

fn publish(d: &Deployment<'_>, from: usize, to: usize) {
    publish_of(d, from, to, 7);
}

/// Starts an instance that must refuse to, with these words.
fn check_refuses(d: &Deployment<'_>, words: &[&str]) {
    let mut instance = d.start("one");
    let status = instance.ended("it refuses to start");
    assert_eq!(status.code(), Some(1), "{}", instance.log());
    check_words(&instance.log(), words);
}

fn check_words(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{text}\n-- does not say --\n{word}");
    }
}

/// Waits until a partition is halted, and holds log, `/readyz` and metric against the words.
fn check_halted(instance: &Instance, reason: &str, words: &[&str]) {
    instance.await_log("partition halted");
    check_words(&instance.log(), words);
    // Page and metric follow the log.
    let mut body = String::new();
    wait_until("/readyz and the metric say so", LIMIT, || {
        let (status, said) = instance.get("/readyz");
        body = said;
        status == 503
            && words.iter().all(|word| body.contains(word))
            && instance.metric("mailfuse_partition_halted", &format!("reason=\"{reason}\"")) == 1.0
    });
    check_words(&body, words);
    assert_eq!(instance.get("/healthz").0, 200, "it is not dead: a restart would not help");
}

#[test]
fn what_is_missing_or_does_not_fit_is_refused_at_the_start() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::without_topics(broker, "nothing", 2);
    check_refuses(&d, &[&d.topic("events"), "does not exist", "mailfuse topics create"]);

    let d = Deployment::without_topics(broker, "unequal", 2);
    for (topic, partitions) in
        [("events", 2), ("state", 3), ("control", 1), ("alerts", 1), ("signals", 1), ("rejects", 1)]
    {
        broker.topic(&d.topic(topic), partitions, &[]);
    }
    check_refuses(&d, &["has 2 partitions", "has 3", "mailfuse state export FILE", "mailfuse state import FILE"]);

    let mut d = Deployment::new(broker, "unreachable", 1);
    let path = d.config("one");
    let config = std::fs::read_to_string(&path).unwrap();
    let config = config.replace(&broker.address, "127.0.0.1:9").replace("[kafka]", "[kafka]\ntimeout_s = 3");
    std::fs::write(&path, config).unwrap();
    let output = crate::run_support::mailfuse().args(["run", "--config"]).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    check_words(&String::from_utf8_lossy(&output.stderr), &["No broker answers", "kafka.bootstrap_servers"]);

    // A state that was made for another number of partitions, in topics that fit each other again.
    d.partitions = 1;
    publish(&d, 0, 10);
    let mut instance = d.start("one");
    d.await_done(WORK);
    assert!(instance.terminate().success());
    let shard = d.states().remove(&(0, mailfuse::state::record::SHARD_KEY.to_vec())).unwrap();
    let shard = String::from_utf8(shard).unwrap().replace("\"partitions\":1", "\"partitions\":4");
    let key = Some(mailfuse::state::record::SHARD_KEY.to_vec());
    let record = Record { partition: Some(0), key, value: Some(shard.into_bytes()), ..Record::default() };
    broker.produce(&d.topic("state"), &[record]);
    let instance = d.start("one");
    check_halted(&instance, "state_mismatch", &["had 4 partitions; it has 1", "mailfuse state export FILE"]);
}

#[test]
fn a_state_that_cannot_be_read_halts_its_partition_and_no_other() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "unreadable", 2);
    publish(&d, 0, 70);
    let mut instance = d.start("one");
    d.await_done(WORK);
    assert!(instance.terminate().success());
    let (partition, key) = d.states().into_keys().find(|(_, key)| key.starts_with(b"user")).unwrap();
    let broken = Record { partition: Some(partition), key: Some(key), value: Some(vec![250; 9]), ..Record::default() };
    let place = broker.produce(&d.topic("state"), &[broken])[0];
    publish(&d, 70, 140);

    let mut instance = d.start("one");
    let words = format!("{}:{}:{}", d.topic("state"), place.0, place.1);
    check_halted(&instance, "state_unreadable", &[&words, "--forget-unreadable"]);
    wait_until("the other partition is read", LIMIT, || {
        d.offsets()
            .is_some_and(|o| o.iter().enumerate().all(|(p, (c, high))| p as i32 == partition || *c == Some(*high)))
    });
    assert_eq!(instance.terminate().code(), Some(0));
    let instance = d.start_with("one", &["--forget-unreadable"]);
    d.await_done(WORK);
    check_words(&instance.log(), &[&words, "it is forgotten"]);
}

#[test]
fn an_offset_that_is_not_there_is_an_error_and_never_a_jump() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "gap", 1);
    publish(&d, 0, 30);
    let mut instance = d.start("one");
    d.await_done(WORK);
    assert!(instance.terminate().success());
    publish(&d, 30, 90);
    // Retention runs past the offset.
    let admin: AdminClient<DefaultClientContext> = broker.client().create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&d.topic("events"), 0, Offset::Offset(60)).unwrap();
    let options = AdminOptions::new().operation_timeout(Some(LIMIT));
    tokio::runtime::Runtime::new().unwrap().block_on(admin.delete_records(&before, &options)).unwrap();

    let mut instance = d.start("one");
    let place = format!("{}:0: the next event to read is 30, the partition holds 60 to 90", d.topic("events"));
    check_halted(&instance, "offset_out_of_range", &[&place, "--accept-gap"]);
    assert!(instance.terminate().success());
    assert_eq!(d.offsets().unwrap()[0].0, Some(30), "nothing has moved");
    let mut instance = d.start_with("one", &["--accept-gap"]);
    d.await_done(WORK);
    assert_eq!(instance.metric("mailfuse_events_total", ""), 30.0);
    assert!(instance.terminate().success());

    // Somebody moves the group's offset with a tool.
    d.set_offset(0, 75);
    let instance = d.start("one");
    check_halted(&instance, "offset_apart", &["stands at offset 75", "at 90", "--reset-offsets"]);
}

#[test]
fn a_broken_producer_halts_its_partition_and_a_broken_record_does_not() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "flood", 1);
    d.run = "rejects_window = 100\nrejects_max_share = 0.5".to_owned();
    publish(&d, 0, 200);
    let bad: Vec<(String, &str)> = (0..200).map(|n| (format!("user{n}@trouble.example"), "<?xml?>")).collect();
    let bad: Vec<_> = bad.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    broker.lines(&d.topic("events"), &bad[..1]);
    let instance = d.start("one");
    d.await_done(WORK);
    assert_eq!(broker.read(&d.topic("rejects")).len(), 1);
    broker.lines(&d.topic("events"), &bad);
    let topic = d.topic("events");
    check_halted(&instance, "rejects", &[&format!("{topic}:0:"), "more than 50 %", "mailfuse rejects list"]);
    let rejected = broker.read(&d.topic("rejects")).len();
    assert!((50..110).contains(&rejected), "{rejected}: it stops rather than eat the stream");
}

#[test]
fn at_the_limit_of_memory_partitions_pause_and_go_on_when_it_is_raised() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "memory", 2);
    d.run = "memory_max_mib = 1".to_owned();
    let instance = d.start("one");
    publish_of(&d, 0, 6_000, 12_000);
    instance.await_log("partition halted");
    check_words(&instance.log(), &["run.memory_max_mib allows 1", "raise it and reload"]);
    publish_of(&d, 6_000, 12_000, 12_000);
    wait_until("/readyz says so", LIMIT, || {
        let (status, body) = instance.get("/readyz");
        status == 503 && body.contains("memory_max_mib")
    });
    let raised =
        std::fs::read_to_string(&instance.config).unwrap().replace("memory_max_mib = 1", "memory_max_mib = 1000");
    std::fs::write(&instance.config, raised).unwrap();
    instance.signal("HUP");
    d.await_done(WORK);
    wait_until("nothing was forgotten", LIMIT, || instance.metric("mailfuse_accounts", "") == 12_000.0);
    instance.await_ready();
}

#[test]
fn a_topic_that_vanishes_is_named_and_one_made_anew_is_not_taken_for_it() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "vanishing", 2);
    publish(&d, 0, 60);
    let mut instance = d.start("one");
    d.await_done(WORK);
    broker.delete_topics(&[&d.topic("events")]);
    let words = [&*d.topic("events"), "does not exist", "mailfuse topics create"];
    wait_until("it says what is missing", WORK, || words.iter().all(|w| instance.log().contains(w)));
    wait_until("the metric counts it", WORK, || {
        instance.metric("mailfuse_broker_errors_total", "kind=\"unknown_topic\"") > 0.0
    });
    assert!(instance.is_running(), "it waits for somebody to mend it");
    // Made anew it has other events at the same offsets: what is stored does not go with them.
    broker.topic(&d.topic("events"), 2, &[("message.timestamp.type", "LogAppendTime")]);
    publish(&d, 60, 70);
    wait_until("its partitions are halted", WORK, || {
        instance.metric("mailfuse_partition_halted", "reason=\"offset_out_of_range\"") == 2.0
    });
    check_words(&instance.get("/readyz").1, &[&d.topic("events"), "--accept-gap"]);
    // The operator decides.
    assert!(instance.terminate().success());
    let again = d.start_with("one", &["--accept-gap"]);
    d.await_done(WORK);
    assert_eq!(again.metric("mailfuse_events_total", ""), 10.0);
}
