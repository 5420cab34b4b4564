//! The broker that the other tests stand on does what they take for granted.

use crate::run_support::kafka_support::{Broker, Record, unique, wait_until};
use rdkafka::producer::Producer;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn what_is_written_is_read_back_whole() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("whole");
    broker.topic(&topic, 3, &[]);
    let mut written: Vec<Record> = (0..500).map(|n| Record::new(&format!("key {}", n % 20), &n.to_string())).collect();
    written[0].headers = vec![("why".into(), Some(b"because".to_vec())), ("nothing".into(), None)];
    written[1].timestamp_ms = Some(1_700_000_000_123);
    written.push(Record::tombstone("key 0"));
    let places = broker.produce(&topic, &written);
    for (record, (partition, offset)) in written.iter_mut().zip(places) {
        (record.partition, record.offset) = (Some(partition), offset);
    }
    written.sort_by_key(|r| (r.partition, r.offset));
    let mut read = broker.read(&topic);
    for (read, written) in read.iter_mut().zip(&written) {
        let stamp = read.timestamp_ms.take_if(|_| written.timestamp_ms.is_none());
        assert!(written.timestamp_ms.is_some() || stamp.is_some());
    }
    assert_eq!(read, written);
    broker.delete_topics(&[&topic]);
}

#[test]
fn an_aborted_transaction_is_hidden_from_who_reads_what_is_committed() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("aborted");
    broker.topic(&topic, 2, &[]);
    let producer = broker.producer(&[("transactional.id", &unique("writer"))]);
    producer.init_transactions(LIMIT).unwrap();
    for (value, commit) in [("kept 1", true), ("aborted", false), ("kept 2", true)] {
        producer.begin_transaction().unwrap();
        crate::run_support::kafka_support::produce_with(&producer, &topic, &[Record::new("key", value)]);
        let end = if commit { producer.commit_transaction(LIMIT) } else { producer.abort_transaction(LIMIT) };
        end.unwrap();
    }
    let texts = |records: Vec<Record>| records.iter().map(Record::text).collect::<Vec<_>>();
    assert_eq!(texts(broker.read(&topic)), ["kept 1", "kept 2"]);
    assert_eq!(texts(broker.read_uncommitted(&topic)), ["kept 1", "aborted", "kept 2"]);
}

#[test]
fn a_broker_that_was_stopped_or_killed_has_its_data_and_its_address() {
    let Some(broker) = Broker::own() else { return };
    broker.topic("kept", 1, &[]);
    broker.lines("kept", &[("a", "1")]);
    let address = broker.address.clone();
    let answers = || std::net::TcpStream::connect(&address).is_ok();
    assert!(answers());
    broker.stop();
    wait_until("nobody answers", LIMIT, || !answers());
    broker.start();
    broker.lines("kept", &[("a", "2")]);
    broker.kill();
    assert!(!answers());
    broker.start();
    assert_eq!(broker.read("kept").iter().map(Record::text).collect::<Vec<_>>(), ["1", "2"]);
    drop(broker);
    wait_until("it ends with who asked for it", LIMIT, || !answers());
}
