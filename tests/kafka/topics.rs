//! `mailfuse topics` against a real broker: what it makes it finds good, and each wrong thing is found and has its cure.

use crate::run_support::kafka_support::{Broker, Record, unique};
use mailfuse::kafka::partitioner::partition_of;
use std::process::{Command, Output};

/// A set of topics of a test's own.
struct Desk {
    broker: &'static Broker,
    name: String,
    config: tempfile::NamedTempFile,
}

impl Desk {
    fn new() -> Option<Self> {
        let broker = Broker::shared()?;
        let name = unique("topics");
        let config = tempfile::NamedTempFile::new().unwrap();
        let topics: String = ["events", "state", "alerts", "control", "desk", "signals", "rejects"]
            .map(|t| format!("{t} = \"{name}.{t}\"\n"))
            .concat();
        let address = &broker.address;
        let text = format!("[kafka]\nbootstrap_servers = \"{address}\"\ngroup = \"{name}\"\n[kafka.topics]\n{topics}");
        std::fs::write(config.path(), text).unwrap();
        Some(Self { broker, name, config })
    }

    fn topic(&self, what: &str) -> String {
        format!("{}.{what}", self.name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
        command.arg("topics").args(arguments).arg("--config").arg(self.config.path());
        command.output().unwrap()
    }

    #[track_caller]
    fn make(&self) {
        let out = self.run(&["create", "--partitions", "6", "--replication", "1"]);
        assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    }

    /// What a check finds wrong: the paragraphs behind the table.
    #[track_caller]
    fn wrong(&self) -> Vec<String> {
        let out = self.run(&["check", "--replication", "1"]);
        let text = String::from_utf8(out.stdout.clone()).unwrap();
        let wrong: Vec<String> = text.split("\n\n").skip(1).map(str::to_owned).collect();
        assert_eq!(out.status.code(), Some(i32::from(!wrong.is_empty())), "{}", said(&out));
        wrong
    }

    /// One thing is wrong, and its paragraph says all of this.
    #[track_caller]
    fn one_wrong(&self, words: &[&str]) {
        let wrong = self.wrong();
        assert_eq!(wrong.len(), 1, "{wrong:#?}");
        for word in words {
            assert!(wrong[0].contains(word), "without `{word}`: {}", wrong[0]);
        }
    }
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn event(account: &str, n: usize) -> String {
    let ts = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    format!(r#"{{"v":1,"kind":"send","ts":{ts},"account":"{account}","id":"m{n}","rcpts":["a@example.com"]}}"#)
}

#[test]
fn what_create_makes_check_finds_good_and_create_changes_nothing() {
    let Some(desk) = Desk::new() else { return };
    desk.make();
    assert_eq!(desk.wrong(), Vec::<String>::new());
    let events = desk.topic("events");
    let lines: Vec<Record> = (0..500)
        .map(|n| (format!("user{}@example.org", n % 40), n))
        .map(|(a, n)| Record::new(&a, &event(&a, n)))
        .collect();
    desk.broker.produce(&events, &lines);
    assert_eq!(desk.wrong(), Vec::<String>::new());
    let again = desk.run(&["create", "--replication", "1"]);
    assert!(again.status.success() && !said(&again).contains("made "), "{}", said(&again));
    assert!(said(&again).contains("500 records"), "{}", said(&again));
    // Of what is there, nobody makes another number of partitions.
    let more = desk.run(&["create", "--partitions", "7", "--replication", "1"]);
    assert_eq!(more.status.code(), Some(1), "{}", said(&more));
    assert!(said(&more).contains("1 thing wrong"), "{}", said(&more));
    // The probe of the right to write has left nothing.
    assert_eq!(desk.broker.read_uncommitted(&desk.topic("state")), []);
}

#[test]
fn a_missing_topic_is_found_and_made() {
    let Some(desk) = Desk::new() else { return };
    assert_eq!(desk.wrong().len(), 7);
    desk.make();
    desk.broker.delete_topics(&[&desk.topic("alerts")]);
    desk.one_wrong(&[&desk.topic("alerts"), "missing", "mailfuse topics create"]);
    let made = desk.run(&["create", "--replication", "1"]);
    assert!(said(&made).starts_with(&format!("made {}\n", desk.topic("alerts"))), "{}", said(&made));
    assert_eq!(desk.wrong(), Vec::<String>::new());
}

#[test]
fn wrong_settings_are_found_with_the_command_that_mends_them() {
    let Some(desk) = Desk::new() else { return };
    let good_state = [("cleanup.policy", "compact"), ("max.message.bytes", "8454144"), ("segment.bytes", "134217728")];
    desk.broker.topic(&desk.topic("state"), 6, &[("cleanup.policy", "delete"), good_state[1], good_state[2]]);
    let out = desk.run(&["create", "--partitions", "6", "--replication", "1"]);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let state = desk.topic("state");
    let cure = format!("--entity-name {state} --add-config cleanup.policy=compact");
    desk.one_wrong(&["forgotten", "kafka-configs", &cure]);

    desk.broker.delete_topics(&[&state, &desk.topic("events")]);
    desk.broker.topic(&state, 4, &good_state);
    desk.broker.topic(&desk.topic("events"), 6, &[]);
    let wrong = desk.wrong().join("\n");
    assert_eq!(desk.wrong().len(), 2, "{wrong}");
    assert!(wrong.contains("message.timestamp.type: CreateTime, should be LogAppendTime"), "{wrong}");
    assert!(wrong.contains("--add-config message.timestamp.type=LogAppendTime"), "{wrong}");
    assert!(wrong.contains(&format!("{state}, partitions: 4, should be 6")), "{wrong}");
    assert!(wrong.contains(&format!("--delete --topic {state}")), "{wrong}");
}

#[test]
fn an_account_on_two_partitions_is_named_with_its_places() {
    let Some(desk) = Desk::new() else { return };
    desk.make();
    let events = desk.topic("events");
    let (torn, whole) = ("torn@example.org", "whole@example.org");
    let home = partition_of(torn.as_bytes(), 6);
    let away = (home + 1) % 6;
    let at = |partition, n| Record { partition: Some(partition), ..Record::new(torn, &event(torn, n)) };
    desk.broker.produce(&events, &[at(home, 1), at(away, 2), Record::new(whole, &event(whole, 3))]);
    let wrong = desk.wrong();
    assert_eq!(wrong.len(), 2, "{wrong:#?}");
    assert!(wrong[0].contains("partitions of accounts: 1 of 2 accounts"), "{wrong:#?}");
    assert!(wrong[0].contains(torn) && !wrong[0].contains(whole), "{wrong:#?}");
    assert!(wrong[0].contains(&format!("partition {home} offset 0")), "{wrong:#?}");
    assert!(wrong[0].contains("murmur2_random"), "{wrong:#?}");
    assert!(wrong[1].contains(&format!("partition {away} offset 0, due on partition {home}")), "{wrong:#?}");
}

#[test]
fn keys_that_are_no_folded_account_and_records_that_cannot_be_read_are_found() {
    let Some(desk) = Desk::new() else { return };
    desk.make();
    let events = desk.topic("events");
    let account = "upper@example.org";
    let home = Some(partition_of(account.as_bytes(), 6));
    desk.broker.produce(&events, &[Record { partition: home, ..Record::new("Upper@Example.org", &event(account, 1)) }]);
    desk.one_wrong(&["keys: 1 of 1 accounts", "`Upper@Example.org`", "lower case"]);
    desk.broker.produce(&events, &[Record { partition: home, ..Record::new(account, "{\"v\":1,") }]);
    let wrong = desk.wrong();
    assert_eq!(wrong.len(), 2, "{wrong:#?}");
    assert!(wrong[0].contains("1 of 2 records unreadable") && wrong[0].contains("offset 1"), "{wrong:#?}");
}

#[test]
fn no_broker_and_no_configuration_are_told_apart() {
    let config = tempfile::NamedTempFile::new().unwrap();
    let run = |text: &str| {
        std::fs::write(config.path(), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
        command.args(["topics", "check", "--config"]).arg(config.path()).output().unwrap()
    };
    // A port that is nobody's: it was ours a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let out = run(&format!("[kafka]\nbootstrap_servers = \"127.0.0.1:{port}\"\ntimeout_s = 2\n"));
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    assert!(said(&out).contains("kafka.bootstrap_servers"), "{}", said(&out));
    let out = run("[kafka]\nsecurity = \"sasl_tls\"\n");
    assert_eq!(out.status.code(), Some(2), "{}", said(&out));
    assert!(said(&out).contains("kafka.username"), "{}", said(&out));
}

/// Producers in Java and in C place keys alike, and `partition_of` knows where.
#[test]
fn keys_are_placed_where_librdkafka_places_them() {
    let Some(broker) = Broker::shared() else { return };
    let topic = unique("placed");
    broker.topic(&topic, 7, &[]);
    // Every length modulo four, and bytes above 127.
    let keys: Vec<String> = (0..700).map(|n| format!("{}{n}", "é@x".repeat(n % 9))).collect();
    let lines: Vec<(&str, &str)> = keys.iter().map(|k| (k.as_str(), "")).collect();
    for ((key, _), (partition, _)) in lines.iter().zip(broker.lines(&topic, &lines)) {
        assert_eq!(partition_of(key.as_bytes(), 7), partition, "{key}");
    }
}
