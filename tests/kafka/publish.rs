//! `mailfuse publish` against a real broker: what arrives, where, and what is said when it does not.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::run_support::LIMIT;
use crate::run_support::kafka_support::{Broker, Record, unique, wait_until};

/// A folder with a configuration for one topic of the test's own.
struct Setting {
    folder: tempfile::TempDir,
    topic: String,
}

impl Setting {
    fn new(address: &str, properties: &str) -> Self {
        let (folder, topic) = (tempfile::tempdir().unwrap(), unique("events"));
        let text = format!(
            "[kafka]\nbootstrap_servers = \"{address}\"\ntimeout_s = 20\n[kafka.topics]\nevents = \"{topic}\"\n\
             [kafka.properties]\n{properties}"
        );
        fs::write(folder.path().join("mailfuse.toml"), text).unwrap();
        Self { folder, topic }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, arguments: &[&str], files: &[&Path]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
        command.arg("publish").arg("--config").arg(self.folder.path().join("mailfuse.toml"));
        command.args(arguments).args(files).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("MAILFUSE_LOG");
        command
    }

    fn publish(&self, arguments: &[&str], files: &[&Path]) -> (Option<i32>, String) {
        said(self.command(arguments, files).output().unwrap())
    }
}

fn said(output: Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn send_line(i: usize) -> String {
    let (account, rcpt) = (i % 7, i);
    let (minute, second, ms) = (i / 60_000 % 60, i / 1000 % 60, i % 1000);
    format!(
        r#"{{"v":1,"kind":"send","ts":"2026-03-02T08:{minute:02}:{second:02}.{ms:03}Z","account":"User{account}@Firm.example","rcpts":["r{rcpt}@shop.example"],"unknown":{{"n":{i}}}}}"#
    )
}

fn lines(n: usize) -> String {
    (0..n).map(|i| send_line(i) + "\n").collect()
}

#[test]
fn events_arrive_as_they_are_under_their_account_where_java_puts_them() {
    let Some(broker) = Broker::shared() else { return };
    let setting = Setting::new(&broker.address, "");
    broker.topic(&setting.topic, 5, &[]);
    let login = r#"{"v":1,"kind":"auth","ts":"2026-03-02T09:00:00Z","client_ip":"192.0.2.77","ok":false}"#;
    let text = lines(500) + "no JSON\n" + login + "\n";
    let events = setting.file("events.jsonl", &text);
    let rejects = setting.folder.path().join("rejects.jsonl");
    let (code, said) = setting.publish(&["--rejects", rejects.to_str().unwrap()], &[&events]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Published 501 events") && said.contains("(5 partitions)"), "{said}");
    assert!(said.contains("1 not_json, as at") && said.contains("events.jsonl:501"), "{said}");
    assert!(fs::read_to_string(rejects).unwrap().contains("no JSON"));

    let found = broker.read(&setting.topic);
    let mut values: Vec<String> = found.iter().map(Record::text).collect();
    values.sort();
    let mut expected: Vec<&str> = text.lines().filter(|l| *l != "no JSON").collect();
    expected.sort();
    assert_eq!(values, expected);
    let again = unique("placed");
    broker.topic(&again, 5, &[]);
    for record in &found {
        assert!(record.headers.is_empty());
        if record.text() == login {
            assert_eq!(record.key_text(), "192.0.2.0/24");
        } else {
            assert!(record.text().to_ascii_lowercase().contains(&format!("\"{}\"", record.key_text())));
        }
    }
    for account in 0..7 {
        let key = format!("user{account}@firm.example");
        let [(partition, _)] = broker.lines(&again, &[(&key, "x")])[..] else { panic!("one record") };
        let mut of_account = found.iter().filter(|r| r.key_text() == key).peekable();
        assert!(of_account.peek().is_some());
        let order: Vec<String> = of_account
            .map(|r| {
                assert_eq!(r.partition, Some(partition), "{key}");
                r.text()
            })
            .collect();
        assert!(order.is_sorted(), "{key} is out of order");
    }
}

#[test]
fn postfix_logs_arrive_as_events_that_replay_to_the_same_alerts() {
    let Some(broker) = Broker::shared() else { return };
    let setting = Setting::new(&broker.address, "");
    broker.topic(&setting.topic, 1, &[]);
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hops");
    let logs = ["out-1.log", "out-2.log", "submit-1.log"].map(|name| fixtures.join(name));
    let logs: Vec<&Path> = logs.iter().map(PathBuf::as_path).collect();
    let (code, said) = setting.publish(&["--year", "2026"], &logs);
    assert_eq!(code, Some(0), "{said}");
    let text: String = broker.read(&setting.topic).iter().map(|r| r.text() + "\n").collect();
    let events = setting.file("read.jsonl", &text);
    let replay = |arguments: &[&str], files: &[&Path]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
        let output = command.arg("replay").args(arguments).args(files).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let of_logs = replay(&["--year", "2026"], &logs);
    assert!(of_logs.contains("account.flagged"));
    assert_eq!(replay(&[], &[&events]), of_logs);
}

#[test]
fn a_missing_topic_is_said_with_its_cure_and_is_not_made() {
    let Some(broker) = Broker::shared() else { return };
    let setting = Setting::new(&broker.address, "");
    let events = setting.file("events.jsonl", &lines(1));
    let (code, said) = setting.publish(&[], &[&events]);
    assert_eq!(code, Some(1));
    assert!(said.contains(&setting.topic) && said.contains("`mailfuse topics create`"), "{said}");
}

#[test]
fn nobody_at_the_address_is_said_with_its_cure() {
    let setting = Setting::new("127.0.0.1:1", "");
    let events = setting.file("events.jsonl", &lines(1));
    let (code, said) = setting.publish(&[], &[&events]);
    assert_eq!(code, Some(1));
    assert!(said.contains("127.0.0.1:1") && said.contains("No broker answers"), "{said}");
}

#[test]
fn an_event_too_large_for_a_record_is_said_with_its_line_and_stops_nothing() {
    let Some(broker) = Broker::shared() else { return };
    let setting = Setting::new(&broker.address, "");
    broker.topic(&setting.topic, 2, &[]);
    let large = send_line(1).replace("\"unknown\":", &format!("\"large\":\"{}\",\"unknown\":", "x".repeat(1_100_000)));
    let events = setting.file("events.jsonl", &format!("{}\n{large}\n{}\n", send_line(0), send_line(2)));
    let (code, said) = setting.publish(&[], &[&events]);
    assert_eq!(code, Some(1));
    assert!(said.contains("1 event too large") && said.contains("events.jsonl:2"), "{said}");
    assert_eq!(broker.read(&setting.topic).len(), 2);
}

fn terminate(child: &Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
}

#[test]
fn a_signal_ends_in_order_and_the_rate_is_kept() {
    let Some(broker) = Broker::shared() else { return };
    let setting = Setting::new(&broker.address, "");
    broker.topic(&setting.topic, 3, &[]);
    let events = setting.file("events.jsonl", &lines(100_000));
    let began = Instant::now();
    let child = setting.command(&["--rate", "500/s"], &[&events]).spawn().unwrap();
    wait_until("300 events have arrived", LIMIT, || broker.read(&setting.topic).len() >= 300);
    let elapsed = began.elapsed();
    terminate(&child);
    let (code, said) = said(child.wait_with_output().unwrap());
    assert_eq!(code, Some(1), "{said}");
    let arrived = broker.read(&setting.topic).len();
    assert!(elapsed > Duration::from_millis(550), "300 events at 500 a second took {elapsed:?}");
    assert!(arrived < 100_000);
    assert!(said.contains(&format!("everything up to {}:{arrived} has arrived", events.display())), "{said}");
}

#[test]
fn a_signal_ends_the_wait_for_a_silent_pipe() {
    let Some(broker) = Broker::shared() else { return };
    let setting = Setting::new(&broker.address, "");
    broker.topic(&setting.topic, 1, &[]);
    let mut command = setting.command(&["--format", "events"], &[Path::new("-")]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(lines(10).as_bytes()).unwrap();
    wait_until("a feed is published as it comes", LIMIT, || broker.read(&setting.topic).len() == 10);
    terminate(&child);
    let (code, said) = said(child.wait_with_output().unwrap());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("everything up to") && said.contains(":10 has arrived"), "{said}");
    drop(pipe);
}

#[test]
fn what_did_not_arrive_is_counted_with_the_place_to_begin_again() {
    let Some(broker) = Broker::own() else { return };
    let setting = Setting::new(&broker.address, "\"delivery.timeout.ms\" = \"10000\"\n");
    broker.topic(&setting.topic, 3, &[]);
    let events = setting.file("events.jsonl", &lines(100_000));
    let child = setting.command(&["--rate", "2000/s"], &[&events]).spawn().unwrap();
    wait_until("some events have arrived", LIMIT, || broker.read(&setting.topic).len() >= 500);
    broker.kill();
    let (code, said) = said(child.wait_with_output().unwrap());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("did not arrive; everything before"), "{said}");
    let before: usize = said
        .split("everything before ")
        .nth(1)
        .and_then(|rest| rest.split(" did").next())
        .and_then(|place| place.rsplit(':').next())
        .and_then(|line| line.parse().ok())
        .unwrap();
    broker.start();
    let arrived = broker.read(&setting.topic);
    for i in 0..before - 1 {
        assert!(arrived.iter().any(|r| r.text() == send_line(i)), "line {} has not arrived: {said}", i + 1);
    }
}
