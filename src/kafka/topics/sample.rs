//! The newest events, looked at for what a producer does wrong: keys that are no accounts, accounts on the wrong partition or
//! on two, records that cannot be read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::cluster::Quiet;
use super::{Error, Finding};
use crate::event::{Decoded, Limits, Timestamp, decode};
use crate::kafka::client::{self, client_config};
use crate::kafka::partitioner::partition_of;
use crate::kafka::settings::Kafka;

/// Reading stops after this.
const READ: Duration = Duration::from_secs(10);
/// Examples that are named.
const NAMED: usize = 10;
const PRODUCER: &str = "the producer needs the partitioner murmur2_random (Java's default; librdkafka: \
     partitioner=murmur2_random), and as key the account in ASCII lower case";

/// What a sample shows. Fed record by record, so that it can be looked at without a broker.
#[derive(Debug)]
pub struct Sample<'a> {
    limits: &'a Limits,
    partitions: i32,
    /// Records looked at.
    pub records: u64,
    /// Where each account was first seen.
    first: HashMap<String, (i32, i64)>,
    /// Accounts with events on two partitions, and where.
    torn: Examples,
    misplaced: Examples,
    misnamed: Examples,
    unreadable: BTreeMap<&'static str, (u64, String)>,
}

/// Accounts that something is wrong with: all are counted, the first are described.
#[derive(Debug, Default)]
struct Examples {
    accounts: BTreeSet<String>,
    described: Vec<String>,
}

impl Examples {
    fn add(&mut self, account: &str, describe: impl FnOnce() -> String) {
        if self.accounts.contains(account) {
            return;
        }
        self.accounts.insert(account.to_owned());
        if self.described.len() < NAMED {
            self.described.push(describe());
        }
    }
}

/// A record's place and content.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When it was appended, in milliseconds since 1970.
    pub appended_ms: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> Sample<'a> {
    /// Of a topic with so many partitions.
    pub fn new(limits: &'a Limits, partitions: i32) -> Self {
        Self {
            limits,
            partitions,
            records: 0,
            first: HashMap::new(),
            torn: Examples::default(),
            misplaced: Examples::default(),
            misnamed: Examples::default(),
            unreadable: BTreeMap::new(),
        }
    }

    /// Looks at one record.
    pub fn add(&mut self, record: Record<'_>) {
        self.records += 1;
        let (partition, offset) = (record.partition, record.offset);
        let not_after = record.appended_ms.map(|ms| Timestamp(ms + crate::kafka::FUTURE_MS));
        let event = match decode(record.value, self.limits, not_after) {
            Ok(Decoded::Event(event, _)) => event,
            Ok(Decoded::UnknownKind) => return,
            Err(reject) => {
                let place = || format!("partition {partition} offset {offset}: {reject}");
                self.unreadable.entry(reject.reason()).or_insert_with(|| (0, place())).0 += 1;
                return;
            }
        };
        // A failed log-in may have no account: it has no place, either.
        let Some(account) = event.account.as_deref() else { return };
        let key = record.key.unwrap_or_default();
        if key != account.as_bytes() {
            let key = record.key.map_or("none".to_owned(), |k| format!("`{}`", String::from_utf8_lossy(k)));
            self.misnamed
                .add(account, || format!("{account}: its key is {key} (partition {partition} offset {offset})"));
        }
        let due = partition_of(account.as_bytes(), self.partitions);
        if due != partition {
            self.misplaced
                .add(account, || format!("{account}: partition {partition} offset {offset}, due on partition {due}"));
        }
        match self.first.get(account) {
            None => drop(self.first.insert(account.to_owned(), (partition, offset))),
            Some(&(other, at)) if other != partition => self.torn.add(account, || {
                format!("{account}: partition {other} offset {at} and partition {partition} offset {offset}")
            }),
            Some(_) => {}
        }
    }

    /// What it shows.
    pub fn findings(self, topic: &str) -> Vec<Finding> {
        let looked = format!("{} records", self.records);
        let mut findings = vec![Finding::ok(topic, "sample", "readable", &looked)];
        if !self.unreadable.is_empty() {
            let all: u64 = self.unreadable.values().map(|(n, _)| n).sum();
            let mut finding = Finding::ok(topic, "sample", "readable", format!("{all} of {looked} unreadable")).wrong(
                "what cannot be read is not counted, and goes to the rejects",
                "mend the producer: `mailfuse replay --rejects FILE` on its output shows each record, and schemas/event.schema.json what \
                 is expected",
            );
            finding.examples = self
                .unreadable
                .iter()
                .map(|(reason, (n, first))| format!("{reason}: {n}, the first at {first}"))
                .collect();
            findings[0] = finding;
        }
        let accounts = self.first.len();
        for (setting, wanted, found, why) in [
            (
                "keys",
                "the account",
                self.misnamed,
                "the key decides about the partition; where it is not the account, the account's events are spread or out of order",
            ),
            (
                "partitions of accounts",
                "one each",
                self.torn,
                "each partition counts for itself: an account on two is seen in halves, and a burst with it",
            ),
            (
                "placement",
                "murmur2(key)",
                self.misplaced,
                "another producer, or a tool such as `mailfuse rejects`, places these accounts elsewhere and tears them apart",
            ),
        ] {
            let bad = found.accounts.len();
            let finding = Finding::ok(topic, setting, wanted, format!("{bad} of {accounts} accounts differ"));
            findings.push(if bad == 0 {
                finding
            } else {
                Finding { examples: found.described, ..finding.wrong(why, PRODUCER) }
            });
        }
        findings
    }
}

/// Reads the newest events, spread over the partitions.
pub(super) fn check(kafka: &Kafka, limits: &Limits, partitions: i32, max: u64) -> Result<Vec<Finding>, Error> {
    let topic = &kafka.topics.events;
    let mut config = client_config(kafka)?;
    config.set("group.id", &kafka.group).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    config.set("isolation.level", "read_committed").set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet::default()).map_err(client::Error::from)?;
    let failed =
        |e: &KafkaError| Error::Broker(consumer.context().trouble.explain(&format!("{topic} cannot be read"), e));
    let share = i64::try_from(max).unwrap_or(i64::MAX) / i64::from(partitions.max(1));
    let mut list = TopicPartitionList::new();
    let mut open = BTreeMap::new();
    for partition in 0..partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, kafka.timeout()).map_err(|e| failed(&e))?;
        if high > low {
            let from = low.max(high.saturating_sub(share.max(1)));
            list.add_partition_offset(topic, partition, Offset::Offset(from)).map_err(|e| failed(&e))?;
            open.insert(partition, high);
        }
    }
    let mut sample = Sample::new(limits, partitions);
    consumer.assign(&list).map_err(|e| failed(&e))?;
    let began = Instant::now();
    while !open.is_empty() && began.elapsed() < READ {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => {
                let partition = message.partition();
                // What came after we looked is the next check's; else a busy topic would never end.
                match open.get(&partition) {
                    Some(&high) if message.offset() >= high - 1 => drop(open.remove(&partition)),
                    Some(_) => {}
                    None => continue,
                }
                sample.add(Record {
                    partition,
                    offset: message.offset(),
                    appended_ms: message.timestamp().to_millis(),
                    key: message.key(),
                    value: message.payload().unwrap_or_default(),
                });
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            // The right to read has been looked at; anything else that lasts ends with the time.
            Some(Err(error)) => tracing::debug!("sample of {topic}: {error}"),
        }
    }
    Ok(sample.findings(topic))
}
