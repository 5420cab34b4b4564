//! `mailfuse run` beside a bare consumer that decodes each event in its polling thread and does nothing else: the same topic, the
//! same broker, the same cores, in turns. Then the time from an event's append to its alert's append, under a steady stream.
//!
//! `cargo bench --bench run`; it starts a broker of its own, or uses `MAILFUSE_TEST_KAFKA=host:port`. `MAILFUSE_BENCH_EVENTS`
//! (4,000,000), `MAILFUSE_BENCH_ACCOUNTS` (100,000), `MAILFUSE_BENCH_RATE` (50,000 a second) and `MAILFUSE_BENCH_STEADY_S` (20) change what is measured.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../tests/kafka_support/mod.rs"]
mod kafka_support;
#[path = "mix.rs"]
mod mix;

use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kafka_support::{Broker, unique, wait_until};
use mailfuse::config::Config;
use mailfuse::event::wire::Wire;
use mailfuse::kafka::restore::Allowed;
use mailfuse::run::{Instance, Options};
use mix::{Random, event};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

const PARTITIONS: i32 = 12;
const ROUNDS: usize = 3;
/// The latency of the first seconds is not counted.
const WARM_UP_S: u64 = 8;

fn main() {
    // `cargo test --benches` only builds it.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let Some(broker) = Broker::shared() else { return };
    let events = setting("MAILFUSE_BENCH_EVENTS", 4_000_000);
    let accounts = setting("MAILFUSE_BENCH_ACCOUNTS", 100_000);
    throughput(broker, accounts, events);
    latency(broker, accounts, setting("MAILFUSE_BENCH_RATE", 50_000), setting("MAILFUSE_BENCH_STEADY_S", 20));
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |v| v.parse().expect("a number"))
}

fn producer(broker: &Broker, linger_ms: &str) -> BaseProducer {
    let mut config = broker.client();
    config
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", linger_ms)
        .set("queue.buffering.max.messages", "500000");
    config.create().unwrap()
}

fn send(producer: &BaseProducer, topic: &str, key: &str, value: &str) {
    let mut record = BaseRecord::to(topic).key(key).payload(value);
    while let Err((error, back)) = producer.send(record) {
        assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
        producer.poll(Duration::from_millis(10));
        record = back;
    }
}

/// The topics of a deployment, and its configuration.
fn deployment(broker: &Broker, name: &str) -> Config {
    let name = unique(name);
    let log = ("message.timestamp.type", "LogAppendTime");
    let compact = ("cleanup.policy", "compact");
    broker.topic(&format!("{name}.events"), PARTITIONS, &[log]);
    broker.topic(&format!("{name}.state"), PARTITIONS, &[compact]);
    broker.topic(&format!("{name}.alerts"), 1, &[log]);
    broker.topic(&format!("{name}.control"), 1, &[compact]);
    broker.topic(&format!("{name}.signals"), 1, &[("cleanup.policy", "compact,delete")]);
    broker.topic(&format!("{name}.rejects"), 1, &[]);
    let mut config = Config::default();
    let k = &mut config.kafka;
    k.bootstrap_servers.clone_from(&broker.address);
    k.group = unique("bench");
    k.topics.events = format!("{name}.events");
    k.topics.state = format!("{name}.state");
    k.topics.alerts = format!("{name}.alerts");
    k.topics.control = format!("{name}.control");
    k.topics.signals = format!("{name}.signals");
    k.topics.rejects = format!("{name}.rejects");
    config.http.listen = String::new();
    config
}

/// CPU seconds of this process so far, all its threads.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn throughput(broker: &Broker, accounts: u64, events: u64) {
    let config = deployment(broker, "throughput");
    let publisher = producer(broker, "50");
    let mut r = Random(0x9e37_79b9_7f4a_7c15);
    let (mut bytes, began) = (0, Instant::now());
    for i in 0..events {
        // Two days of mail.
        let (key, value) = event(&mut r, accounts, i, 1_700_000_000_000 + i * 172_800_000 / events);
        bytes += value.len();
        send(&publisher, &config.kafka.topics.events, &key, &value);
    }
    publisher.flush(Duration::from_secs(60)).unwrap();
    println!(
        "{events} events of {:.0} bytes, {accounts} accounts, {PARTITIONS} partitions, lz4; published at {:.2} M/s",
        bytes as f64 / events as f64,
        events as f64 / began.elapsed().as_secs_f64() / 1e6
    );
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        let (b, b_cpu) = bare_consumer(broker, &config.kafka.topics.events, events);
        let (o, o_cpu) = our_consumer(&config, events);
        println!(
            "round {round}: bare {:.3} M/s ({b_cpu:.2} CPU s a million), run {:.3} M/s ({o_cpu:.2} CPU s a million): {:.2}",
            b / 1e6,
            o / 1e6,
            o / b
        );
        bare.push(b);
        ours.push(o);
    }
    let median = |v: &mut Vec<f64>| {
        v.sort_by(f64::total_cmp);
        v[v.len() / 2]
    };
    let (b, o) = (median(&mut bare), median(&mut ours));
    println!("median: bare {:.3} M/s, run {:.3} M/s, ratio {:.2}", b / 1e6, o / 1e6, o / b);
}

/// Decodes each event in the polling thread and does nothing else.
fn bare_consumer(broker: &Broker, topic: &str, events: u64) -> (f64, f64) {
    let mut config = broker.client();
    config
        .set("group.id", unique("bare"))
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("queued.min.messages", "100000")
        // A full queue would wait for a second before it is filled again.
        .set("fetch.queue.backoff.ms", "5");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut n, mut began, mut cpu) = (0, Instant::now(), cpu_s());
    while n < events {
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.unwrap();
        if n == 0 {
            (began, cpu) = (Instant::now(), cpu_s());
        }
        let wire: Wire<'_> = serde_json::from_slice(message.payload().unwrap()).unwrap();
        black_box(&wire);
        n += 1;
    }
    let s = began.elapsed().as_secs_f64();
    (events as f64 / s, (cpu_s() - cpu) / events as f64 * 1e6)
}

/// The real thing, checkpoints and all; each time a group and a state of its own.
fn our_consumer(config: &Config, events: u64) -> (f64, f64) {
    let Some(broker) = Broker::shared() else { unreachable!() };
    let mut ours = deployment(broker, "run");
    ours.kafka.topics.events.clone_from(&config.kafka.topics.events);
    let options = Options { config: ours, path: None, allowed: Allowed::default(), is_stateless: false };
    let instance = Instance::start(options).unwrap();
    let done = || (0..PARTITIONS).map(|p| instance.metrics().events.at(p).get()).sum::<u64>();
    wait_until("the first event", Duration::from_secs(60), || done() > 0);
    let (first, began, cpu) = (done(), Instant::now(), cpu_s());
    while done() < events {
        std::thread::sleep(Duration::from_millis(2));
        assert!(began.elapsed() < Duration::from_secs(600), "stuck at {}", done());
    }
    let s = began.elapsed().as_secs_f64();
    let cpu = cpu_s() - cpu;
    let n = (events - first) as f64;
    instance.stop().unwrap();
    (n / s, cpu / n * 1e6)
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A stream at a steady rate, in which an account is hijacked five times a second; how long until it is said.
/// Producers of a provider batch for some milliseconds, and so does this one.
fn latency(broker: &Broker, accounts: u64, rate: u64, steady_s: u64) {
    let config = deployment(broker, "steady");
    let topics = config.kafka.topics.clone();
    let options = Options { config, path: None, allowed: Allowed::default(), is_stateless: false };
    let instance = Instance::start(options).unwrap();
    let publisher = producer(broker, "10");
    let mut r = Random(0x0123_4567_89ab_cdef);
    let (began, mut i, mut lag_max) = (Instant::now(), 0u64, 0i64);
    let cpu = cpu_s();
    let end = Duration::from_secs(steady_s);
    while began.elapsed() < end {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while i < due {
            let (key, value) = event(&mut r, accounts, i, now_ms());
            send(&publisher, &topics.events, &key, &value);
            i += 1;
            // Each burst: 40 messages to five strangers each, every one from another network.
            let every = rate / 5;
            let (burst, part) = (i / every, i % every);
            if part < 40 {
                let account = format!("burst{burst}@hijacked.example");
                let rcpts: Vec<String> =
                    (0..5).map(|_| format!("s{}@firm{}.example", r.below(1 << 40), r.below(999))).collect();
                let value = format!(
                    r#"{{"v":1,"kind":"send","ts":{},"account":"{account}","relay":"out-1","client_ip":"198.{part}.7.9","rcpts":["{}"],"queue_id":"b{burst}x{part}"}}"#,
                    now_ms(),
                    rcpts.join("\",\"")
                );
                send(&publisher, &topics.events, &account, &value);
            }
        }
        publisher.poll(Duration::from_millis(1));
        lag_max = lag_max.max((0..PARTITIONS).map(|p| instance.metrics().lag_messages.at(p).get()).sum());
    }
    publisher.flush(Duration::from_secs(30)).unwrap();
    let cpu = (cpu_s() - cpu) / steady_s as f64;
    std::thread::sleep(Duration::from_secs(2));
    instance.stop().unwrap();

    let mut appended: HashMap<(String, String), i64> = HashMap::new();
    for record in broker.read(&topics.events) {
        let key = record.key_text();
        if key.starts_with("burst") {
            let value: serde_json::Value = serde_json::from_str(&record.text()).unwrap();
            let ts = mailfuse::event::Timestamp(value["ts"].as_i64().unwrap()).to_string();
            appended.entry((key, ts)).or_insert(record.timestamp_ms.unwrap());
        }
    }
    let mut took: Vec<i64> = Vec::new();
    for record in broker.read(&topics.alerts) {
        let alert: serde_json::Value = serde_json::from_str(&record.text()).unwrap();
        let at = (alert["account"].as_str().unwrap().to_owned(), alert["ts"].as_str().unwrap().to_owned());
        // In the first seconds a fresh broker compiles itself on the same cores.
        let burst: u64 = at.0.trim_start_matches("burst").split('@').next().unwrap().parse().unwrap_or(u64::MAX);
        if let Some(appended) = appended.get(&at).filter(|_| burst >= 5 * WARM_UP_S) {
            took.push(record.timestamp_ms.unwrap() - appended);
        }
    }
    took.sort_unstable();
    assert!(!took.is_empty(), "nothing was flagged");
    let at = |q: f64| took[((took.len() - 1) as f64 * q) as usize];
    println!(
        "steady {:.0} events/s for {steady_s} s, {cpu:.2} cores with the publisher: {} alerts, append to alert appended p50 {} ms, \
         p99 {} ms, max {} ms; largest lag seen {lag_max} messages",
        i as f64 / steady_s as f64,
        took.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
