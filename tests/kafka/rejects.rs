//! `mailfuse rejects` against a real broker: what is listed, and that a redrive publishes once.

use std::fs;
use std::process::{Command, Stdio};

use crate::run_support::kafka_support::{Broker, Record, unique};

struct Setting {
    folder: tempfile::TempDir,
    events: String,
    rejects: String,
}

/// An event that today's program reads.
const FINE: &str = r#"{"v":1,"kind":"send","ts":"2026-03-02T08:00:00Z","account":"Anna@Firm.example","rcpts":["b@shop.example"],"x":1}"#;

impl Setting {
    fn new(broker: &Broker) -> Self {
        let setting =
            Self { folder: tempfile::tempdir().unwrap(), events: unique("events"), rejects: unique("rejects") };
        let Self { events, rejects, .. } = &setting;
        let text = format!(
            "[kafka]\nbootstrap_servers = \"{}\"\ngroup = \"{}\"\ntimeout_s = 10\n[kafka.topics]\n\
             events = \"{events}\"\nrejects = \"{rejects}\"\n",
            broker.address,
            unique("group")
        );
        fs::write(setting.folder.path().join("mailfuse.toml"), text).unwrap();
        broker.topic(events, 3, &[]);
        broker.topic(rejects, 2, &[]);
        setting
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
        command.arg("rejects").args(arguments).arg("--config").arg(self.folder.path().join("mailfuse.toml"));
        command.stdin(Stdio::null()).env_remove("MAILFUSE_LOG");
        command
    }

    fn rejects(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A dead-letter record, its headers as they are promised.
fn dead(offset: i64, reason: &str, value: &str) -> Record {
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    let mut record = Record::new("anna@firm.example", value);
    record.headers = vec![
        header("mailfuse-topic", "mailfuse.events"),
        header("mailfuse-partition", "2"),
        header("mailfuse-offset", &offset.to_string()),
        header("mailfuse-timestamp", "1772438400000"),
        header("mailfuse-reason", reason),
        header("mailfuse-detail", "a sentence"),
        header("mailfuse-by", "mailfuse test"),
    ];
    record
}

#[test]
fn rejects_are_listed_and_redriven_once() {
    let Some(broker) = Broker::shared() else { return };
    let setting = Setting::new(broker);
    let mut cut = dead(13, "too_long", "{\"v\":1");
    cut.headers.push(("mailfuse-cut".to_owned(), Some(b"2000000".to_vec())));
    let records = [
        dead(10, "bad_field", FINE),
        dead(11, "not_json", "\u{1b}[31mno JSON"),
        // Delivery is at least once.
        dead(10, "bad_field", FINE),
        cut,
        Record::new("somebody", "else's"),
    ];
    broker.produce(&setting.rejects, &records);

    let list = setting.rejects(&["list"]);
    assert!(list.contains("mailfuse.events:2:10") && list.contains("anna@firm.example"), "{list}");
    assert!(list.contains("3 records: 1 bad_field, 1 not_json, 1 too_long"), "{list}");
    assert!(list.contains("1 written twice") && list.contains("1 not written by mailfuse"), "{list}");
    assert!(!list.contains('\u{1b}'), "a record must not steer the terminal");
    let one = setting.rejects(&["list", "--json", "--reason", "not_json"]);
    let one: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!((&one["offset"], &one["value"]), (&11.into(), &"\u{1b}[31mno JSON".into()));
    assert!(setting.rejects(&["list", "--since", "2100-01-01"]).contains("Nothing is rejected."));

    assert!(setting.rejects(&["redrive", "--dry-run"]).contains("1 record would be published again"));
    assert!(broker.read(&setting.events).is_empty());
    let done = setting.rejects(&["redrive"]);
    assert!(done.contains("1 record published again") && done.contains("2 records still cannot be read"), "{done}");
    assert!(done.contains("1 cut: only a part of its 2000000 bytes was kept"), "{done}");
    let done = setting.rejects(&["redrive"]);
    assert!(done.contains("0 records published again") && done.contains("1 published again already"), "{done}");
    let [record] = &broker.read(&setting.events)[..] else { panic!("one event, once") };
    assert_eq!((record.text().as_str(), record.key_text().as_str()), (FINE, "anna@firm.example"));
    let list = setting.rejects(&["list"]);
    assert!(!list.contains("mailfuse.events:2:10") && list.contains("2 records: "), "{list}");
}

#[test]
fn two_redrives_at_once_publish_each_record_once() {
    let Some(broker) = Broker::shared() else { return };
    let setting = Setting::new(broker);
    let records: Vec<Record> = (0..3000).map(|i| dead(i, "bad_field", FINE)).collect();
    broker.produce(&setting.rejects, &records);
    let start = || setting.command(&["redrive"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One of them is fenced off, or has nothing left to do.
    let ended: Vec<_> = [start(), start()].into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let said: Vec<String> = ended.iter().map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).collect();
    assert!(ended.iter().any(|o| o.status.success()), "{said:?}");
    assert_eq!(broker.read(&setting.events).len(), 3000, "{said:?}");
}

#[test]
fn a_missing_topic_is_said_with_its_cure() {
    let Some(broker) = Broker::shared() else { return };
    let setting = Setting::new(broker);
    broker.delete_topics(&[&setting.rejects]);
    let output = setting.command(&["list"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("`mailfuse topics create`"), "{said}");
}
