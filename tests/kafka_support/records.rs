//! Topics and their records, as tests want them: made, written and read whole, every wait with a limit.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

use super::{Broker, wait_until};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

/// A record, to be written or as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Where it is; when writing, `None` leaves it to the partitioner.
    pub partition: Option<i32>,
    /// Where it is in its partition; of no meaning when writing.
    pub offset: i64,
    /// Milliseconds; when writing, `None` is the time of writing.
    pub timestamp_ms: Option<i64>,
    /// What places it.
    pub key: Option<Vec<u8>>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    /// In their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// A record of text.
    pub fn new(key: &str, value: &str) -> Record {
        Record { key: Some(key.into()), value: Some(value.into()), ..Record::default() }
    }

    /// What says that a key's value is no more.
    pub fn tombstone(key: &str) -> Record {
        Record { key: Some(key.into()), ..Record::default() }
    }

    /// The key as text, empty where there is none.
    pub fn key_text(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value as text, empty where there is none.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.iter().find(|(n, _)| n == name)?.1.as_deref();
        Some(String::from_utf8_lossy(value.unwrap_or_default()).into_owned())
    }
}

impl Broker {
    /// The beginning of any client's configuration.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Makes a topic, one replica, and waits until each partition has a leader.
    pub fn topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = config.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
        let made = block_on(self.admin().create_topics([&topic], &options)).unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        let admin = self.admin();
        wait_until(&format!("{name} has {partitions} partitions with leaders"), LIMIT, || {
            let metadata = admin.inner().fetch_metadata(Some(name), LIMIT).unwrap();
            let found = metadata.topics()[0].partitions();
            found.len() == partitions as usize && found.iter().all(|p| p.leader() >= 0)
        });
    }

    /// Deletes topics and waits until they are gone.
    pub fn delete_topics(&self, names: &[&str]) {
        let options = AdminOptions::new().operation_timeout(Some(LIMIT)).request_timeout(Some(LIMIT));
        let gone = block_on(self.admin().delete_topics(names, &options)).unwrap();
        assert!(gone.iter().all(Result::is_ok), "{gone:?}");
        let admin = self.admin();
        wait_until(&format!("{names:?} are gone"), LIMIT, || {
            let metadata = admin.inner().fetch_metadata(None, LIMIT).unwrap();
            metadata.topics().iter().all(|t| !names.contains(&t.name()))
        });
    }

    /// Deletes a group with its offsets. Returns whether it could be: nobody may be in it any more.
    pub fn delete_group(&self, name: &str) -> bool {
        let options = AdminOptions::new().request_timeout(Some(LIMIT));
        block_on(self.admin().delete_groups(&[name], &options)).unwrap().iter().all(Result::is_ok)
    }

    /// A producer that places keys as Java's does; more settings, such as `transactional.id`, on top.
    pub fn producer(&self, settings: &[(&str, &str)]) -> FutureProducer {
        let mut config = self.client();
        config.set("partitioner", "murmur2_random").set("acks", "all").set("linger.ms", "5");
        config.set("message.timeout.ms", "30000").set("message.max.bytes", "16000000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().unwrap()
    }

    /// Writes records and waits for each; gives partition and offset of each, in their order.
    pub fn produce(&self, topic: &str, records: &[Record]) -> Vec<(i32, i64)> {
        produce_with(&self.producer(&[]), topic, records)
    }

    /// Writes keys and values.
    pub fn lines(&self, topic: &str, lines: &[(&str, &str)]) -> Vec<(i32, i64)> {
        let records: Vec<Record> = lines.iter().map(|(key, value)| Record::new(key, value)).collect();
        self.produce(topic, &records)
    }

    /// All that a topic has, as a reader of committed records sees it: partition by partition, in order.
    pub fn read(&self, topic: &str) -> Vec<Record> {
        self.read_with(topic, &[("isolation.level", "read_committed")])
    }

    /// The same, with what was aborted or is not committed yet.
    pub fn read_uncommitted(&self, topic: &str) -> Vec<Record> {
        self.read_with(topic, &[("isolation.level", "read_uncommitted")])
    }

    fn read_with(&self, topic: &str, settings: &[(&str, &str)]) -> Vec<Record> {
        let mut config = self.client();
        config.set("group.id", "reads-whole-topics").set("enable.auto.commit", "false");
        // A partition ends where the broker says so: its last offsets may be marks of transactions, which nobody gets.
        config.set("enable.partition.eof", "true");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), LIMIT).unwrap();
        let mut open: BTreeSet<i32> = metadata.topics()[0].partitions().iter().map(|p| p.id()).collect();
        assert!(!open.is_empty(), "{topic} is not there");
        let mut list = TopicPartitionList::new();
        for &partition in &open {
            list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let (mut records, mut heard) = (Vec::new(), Instant::now());
        while !open.is_empty() {
            assert!(heard.elapsed() < LIMIT, "{topic} does not come to its end: partitions {open:?}");
            match consumer.poll(Duration::from_millis(100)) {
                None => continue,
                Some(Ok(message)) => records.push(owned(&message)),
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) => panic!("reading {topic}: {error}"),
            }
            heard = Instant::now();
        }
        records.sort_by_key(|r| (r.partition, r.offset));
        records
    }
}

/// Writes records with a producer of the test's own, for instance within a transaction.
pub fn produce_with(producer: &FutureProducer, topic: &str, records: &[Record]) -> Vec<(i32, i64)> {
    let mut deliveries = Vec::with_capacity(records.len());
    for record in records {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }));
        let mut next = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
        next.partition = record.partition;
        next.timestamp = record.timestamp_ms;
        next.key = record.key.as_deref();
        next.payload = record.value.as_deref();
        let began = Instant::now();
        let delivery = loop {
            match producer.send_result(next) {
                Ok(delivery) => break delivery,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => next = back,
                Err((error, _)) => panic!("writing to {topic}: {error}"),
            }
            assert!(began.elapsed() < LIMIT, "writing to {topic}: the producer's queue stays full");
            std::thread::sleep(Duration::from_millis(10));
        };
        deliveries.push(delivery);
    }
    producer.flush(LIMIT).unwrap();
    let place = |delivery: rdkafka::producer::DeliveryFuture| match block_on(delivery) {
        Ok(Ok(delivered)) => (delivered.partition, delivered.offset),
        Ok(Err((error, _))) => panic!("writing to {topic}: {error}"),
        Err(_) => panic!("writing to {topic}: the producer has gone"),
    };
    deliveries.into_iter().map(place).collect()
}

fn owned(message: &impl Message) -> Record {
    let headers = message
        .headers()
        .map(|headers| headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect());
    Record {
        partition: Some(message.partition()),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}

/// What the client promises comes from threads of its own: it needs no more than somebody who waits.
fn block_on<F: std::future::Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
