//! Topics, a group and configurations: what instances have in common, and what they leave.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Clippy knows tests by their attribute, not the functions they share.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use mailfuse::state::record::{SHARD_KEY, ShardRecord};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use super::{Alerts, Broker, Instance, LIMIT, mailfuse, unique, wait_until};

const CALL: Duration = Duration::from_secs(10);

/// What the state topic says in the end: by partition and key, the last value.
pub type States = BTreeMap<(i32, Vec<u8>), Vec<u8>>;

/// Signals by key: `seq` and value.
pub type Signals = BTreeMap<String, (u64, String)>;

/// One deployment among others on a broker.
pub struct Deployment<'b> {
    pub broker: &'b Broker,
    pub name: String,
    pub partitions: i32,
    /// Sections that are added to every configuration.
    pub extra: String,
    /// What the group takes for death, in seconds. A drain takes a second less at most.
    pub session_s: u32,
    /// Lines of the section `[run]`, beside those that every test has.
    pub run: String,
    pub folder: tempfile::TempDir,
    logs: AtomicU32,
}

impl<'b> Deployment<'b> {
    /// With topics as `mailfuse topics create` makes them; small segments, so that compaction happens.
    pub fn new(broker: &'b Broker, name: &str, partitions: i32) -> Self {
        let d = Self::without_topics(broker, name, partitions);
        broker.topic(&d.topic("events"), partitions, &[("message.timestamp.type", "LogAppendTime")]);
        let compacted = [("cleanup.policy", "compact"), ("segment.bytes", "1048576")];
        broker.topic(&d.topic("state"), partitions, &compacted);
        broker.topic(&d.topic("control"), 1, &compacted[..1]);
        broker.topic(&d.topic("desk"), 1, &compacted[..1]);
        broker.topic(&d.topic("alerts"), 1, &[]);
        broker.topic(&d.topic("signals"), 1, &[("cleanup.policy", "compact,delete")]);
        broker.topic(&d.topic("rejects"), 1, &[]);
        d
    }

    pub fn without_topics(broker: &'b Broker, name: &str, partitions: i32) -> Self {
        Self {
            broker,
            name: unique(name),
            partitions,
            extra: String::new(),
            session_s: 6,
            run: String::new(),
            folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            logs: AtomicU32::new(0),
        }
    }

    pub fn topic(&self, what: &str) -> String {
        format!("{}.{what}", self.name)
    }

    /// The configuration of an instance, written. Without a name its membership is dynamic.
    pub fn config(&self, instance: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{instance}.toml"));
        let (name, address) = (&self.name, &self.broker.address);
        let text = format!(
            "[kafka]\nbootstrap_servers = \"{address}\"\ngroup = \"{name}\"\n\
             [kafka.topics]\nevents = \"{name}.events\"\nstate = \"{name}.state\"\nalerts = \"{name}.alerts\"\n\
             control = \"{name}.control\"\ndesk = \"{name}.desk\"\nsignals = \"{name}.signals\"\n\
             rejects = \"{name}.rejects\"\n\
             [http]\nlisten = \"127.0.0.1:0\"\n\
             [run]\ninstance = \"{instance}\"\nworkers = 2\ncheckpoint_ms = 500\nsession_timeout_ms = {}\ndrain_s = {}\n{}\n{}",
            self.session_s * 1000,
            self.session_s - 1,
            self.run,
            self.extra
        );
        fs::write(&path, text).unwrap();
        path
    }

    pub fn start(&self, instance: &str) -> Instance {
        self.start_with(instance, &[])
    }

    pub fn start_with(&self, instance: &str, arguments: &[&str]) -> Instance {
        let log = format!("{instance}-{}.log", self.logs.fetch_add(1, Ordering::Relaxed));
        Instance::start("run", &self.config(instance), self.folder.path().join(log), arguments)
    }

    /// `mailfuse desk`, the desk by itself.
    pub fn start_desk(&self, instance: &str) -> Instance {
        let log = format!("{instance}-{}.log", self.logs.fetch_add(1, Ordering::Relaxed));
        Instance::start("desk", &self.config(instance), self.folder.path().join(log), &[])
    }

    /// Publishes a file, while the test goes on.
    pub fn publisher(&self, events: &Path, rate: Option<u32>) -> Child {
        let mut command = mailfuse();
        command.args(["publish", "--config"]).arg(self.config("publisher"));
        if let Some(rate) = rate {
            command.args(["--rate", &format!("{rate}/s")]);
        }
        command.arg(events).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    #[track_caller]
    pub fn publish(&self, events: &Path) {
        published(self.publisher(events, None));
    }

    /// Publishes events, each with its Unix second, in their order.
    #[track_caller]
    pub fn publish_events(&self, name: &str, mut events: Vec<(i64, serde_json::Value)>) {
        events.sort_by_key(|(at_s, _)| *at_s);
        let path = self.folder.path().join(name);
        let lines: Vec<String> = events.iter().map(|(_, event)| event.to_string()).collect();
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        self.publish(&path);
    }

    fn consumer(&self) -> BaseConsumer {
        self.broker.client().set("group.id", &self.name).set("isolation.level", "read_committed").create().unwrap()
    }

    /// The group's offset and the end of each partition of the events; `None` while the broker does not answer.
    pub fn offsets(&self) -> Option<Vec<(Option<i64>, i64)>> {
        self.offsets_with(&self.consumer())
    }

    fn offsets_with(&self, consumer: &BaseConsumer) -> Option<Vec<(Option<i64>, i64)>> {
        let topic = self.topic("events");
        let mut list = TopicPartitionList::new();
        list.add_partition_range(&topic, 0, self.partitions - 1);
        let committed = consumer.committed_offsets(list, CALL).ok()?;
        let all = (0..self.partitions).map(|p| {
            let (_, high) = consumer.fetch_watermarks(&topic, p, CALL).ok()?;
            match committed.find_partition(&topic, p)?.offset() {
                Offset::Offset(n) => Some((Some(n), high)),
                _ => Some((None, high)),
            }
        });
        all.collect()
    }

    /// Sets the group's offset from outside, as an operator's tool would.
    pub fn set_offset(&self, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic("events"), partition, Offset::Offset(offset)).unwrap();
        let consumer = self.consumer();
        wait_until("the group's offset is set", LIMIT, || {
            consumer.commit(&list, rdkafka::consumer::CommitMode::Sync).is_ok()
        });
    }

    /// Waits until everything that was published is covered by checkpoints.
    #[track_caller]
    pub fn await_done(&self, limit: Duration) {
        let consumer = self.consumer();
        wait_until("everything is read and stored", limit, || {
            std::thread::sleep(Duration::from_millis(80));
            let offsets = self.offsets_with(&consumer);
            offsets.is_some_and(|all| all.iter().all(|(committed, high)| *high == 0 || *committed == Some(*high)))
        });
    }

    /// Waits until an instance's index has all that is in the desk topic by now: whatever was answered is on its pages then.
    #[track_caller]
    pub fn await_index(&self, instance: &Instance) {
        // Readers of committed records get what has been committed a moment later.
        let written = self.broker.read_uncommitted(&self.topic("desk"));
        let end = written.last().map_or(0, |last| last.offset + 1);
        wait_until("the index is at the end of the desk topic", LIMIT, || {
            let index = instance.json("/v1/desk").1["index"].take();
            index["state"] == "ready" && index["next_offset"].as_i64().unwrap_or(0) >= end
        });
    }

    pub fn alerts(&self) -> Alerts {
        Alerts::of(self.broker.read(&self.topic("alerts")).into_iter().map(|r| r.value.unwrap()))
    }

    /// What the signals say in the end: of each key the value with the largest `seq`. Two with one `seq` must be the same.
    pub fn signals(&self) -> Signals {
        let mut signals = Signals::new();
        for record in self.broker.read(&self.topic("signals")) {
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            let value = String::from_utf8(record.value.unwrap()).unwrap();
            let signal: Value = serde_json::from_str(&value).unwrap();
            let seq = signal["seq"].as_u64().unwrap();
            match signals.get(&key) {
                Some((known, before)) if *known == seq => assert_eq!(*before, value, "{key}: one seq, two contents"),
                Some((known, _)) if *known > seq => {}
                _ => _ = signals.insert(key, (seq, value)),
            }
        }
        signals
    }

    /// The last value of each key, as whoever restores would see it.
    pub fn states(&self) -> States {
        let mut states = States::new();
        for record in self.broker.read(&self.topic("state")) {
            let key = (record.partition.unwrap(), record.key.unwrap());
            match record.value {
                Some(value) => states.insert(key, value),
                None => states.remove(&key),
            };
        }
        states
    }
}

/// Waits for a publisher, and that it has published all.
#[track_caller]
pub fn published(child: Child) {
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// Accounts byte for byte; of a shard's record what depends on the events alone: offset, newest event, beginning of history.
#[track_caller]
pub fn same_states(ours: &States, theirs: &States, what: &str) {
    assert!(theirs.len() > 1, "{what}: nothing to compare with");
    let keys = |states: &States| states.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(ours).len(), keys(theirs).len(), "{what}: as many accounts");
    let mut differ = Vec::new();
    for ((partition, key), value) in theirs {
        let Some(our) = ours.get(&(*partition, key.clone())) else {
            panic!("{what}: {partition}: {} is missing", String::from_utf8_lossy(key));
        };
        if key == SHARD_KEY {
            let parts = |bytes: &[u8]| {
                let record = ShardRecord::parse(bytes).unwrap();
                (record.offset, record.newest_ms, record.history_since_ms)
            };
            assert_eq!(parts(our), parts(value), "{what}: the shard's record of partition {partition}");
        } else if our != value {
            differ.push(format!("{partition}: {}", String::from_utf8_lossy(key)));
        }
    }
    assert!(
        differ.is_empty(),
        "{what}: {} of {} accounts differ: {:?}",
        differ.len(),
        theirs.len(),
        &differ[..differ.len().min(5)]
    );
}

/// The name of an account of a case, and which partition has it.
pub fn accounts(states: &States) -> Vec<(i32, String)> {
    let accounts = states.keys().filter(|(_, key)| key != SHARD_KEY);
    accounts.map(|(p, key)| (*p, String::from_utf8(key.clone()).unwrap())).collect()
}

/// Of an alert's bytes, one field.
pub fn field(alert: &[u8], name: &str) -> String {
    let alert: Value = serde_json::from_slice(alert).unwrap();
    alert[name].as_str().unwrap_or_default().to_owned()
}
