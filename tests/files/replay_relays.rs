//! `replay` with pools: what would have been done to relays and accounts, and when, beside the detector's alerts as they always are.

use std::fs;
use std::path::Path;
use std::process::Command;

use mailfuse::event::Timestamp;
use serde_json::{Value, json};

/// 2026-03-02T00:00:00Z, in seconds.
const BEGIN: i64 = 1_772_409_600;
const DAY: i64 = 86_400;
/// The hijack: ten o'clock on the 25th day.
const HIJACK: i64 = BEGIN + 24 * DAY + 36_000;
/// It writes to one stranger every two seconds.
const SPAM: i64 = 600;

/// Ordinary mail of twenty accounts over two relays, and one of them hijacked through the first.
fn events() -> Vec<Value> {
    let mut events = Vec::new();
    let send = |at: i64, account: &str, relay: &str, ip: &str, rcpt: String, id: String| json!({ "v": 1, "kind": "send", "ts": at, "account": account, "relay": relay, "client_ip": ip, "rcpts": [rcpt], "queue_id": id });
    for day in 0..25 {
        for account in 0..20 {
            for k in 0..6 {
                let at = BEGIN + day * DAY + 30_000 + k * 5_000 + account * 7;
                let relay = ["log-1", "log-2"][(k % 2) as usize];
                let rcpt = format!("friend{}@elsewhere.example", (day + k) % 9);
                let name = format!("user{account}@shop{account}.example");
                events.push(send(
                    at,
                    &name,
                    relay,
                    &format!("10.0.{account}.7"),
                    rcpt,
                    format!("h{day}-{account}-{k}"),
                ));
            }
        }
    }
    for k in 0..SPAM {
        let (at, id) = (HIJACK + 2 * k, format!("s{k}"));
        let rcpt = format!("stranger{k}@d{}.example", k % 11);
        events.push(send(at, "user3@shop3.example", "log-1", "203.0.113.5", rcpt.clone(), id.clone()));
        if k % 3 == 0 {
            events
                .push(json!({ "v": 1, "kind": "outcome", "ts": at, "account": "user3@shop3.example", "relay": "log-1",
                "queue_id": id, "rcpt": rcpt, "status": "bounced", "dsn": "5.1.1" }));
        }
    }
    events.sort_by_key(|e| e["ts"].as_i64());
    events
}

fn replay(folder: &Path, config: &str) -> Vec<Value> {
    let (events_file, config_file) = (folder.join("events.jsonl"), folder.join("mailfuse.toml"));
    let lines: Vec<String> = events().iter().map(Value::to_string).collect();
    fs::write(&events_file, lines.join("\n") + "\n").unwrap();
    fs::write(&config_file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
    command.args(["replay", "--config"]).arg(&config_file).arg(&events_file).env_remove("MAILFUSE_LOG");
    let ran = command.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success(), "{said}");
    assert_eq!(said.contains("relays pulled 1 times"), !config.is_empty(), "{said}");
    let out = String::from_utf8(ran.stdout).unwrap();
    out.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn seconds(alert: &Value) -> i64 {
    Timestamp::parse(alert["ts"].as_str().unwrap()).unwrap().0 / 1000
}

#[test]
fn a_relay_would_have_been_pulled_after_its_account_and_put_back_when_it_was_over() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[[relays.pool]]\nname = \"shared\"\nmember = [{ relay = \"out-1\", log_host = \"log-1\" }, \
                  { relay = \"out-2\", log_host = \"log-2\" }, { relay = \"out-3\" }, { relay = \"out-4\" }]\n";
    let with_pools = replay(folder.path(), config);
    let without = replay(folder.path(), "");

    // The detector's alerts are the same ones, whatever is done about them.
    let is_detectors =
        |a: &&Value| ["account.flagged", "account.escalated", "account.cleared"].contains(&a["kind"].as_str().unwrap());
    let detected: Vec<&Value> = with_pools.iter().filter(is_detectors).collect();
    assert_eq!(detected, without.iter().collect::<Vec<_>>());
    assert!(!detected.is_empty());

    let of = |kind: &str| with_pools.iter().filter(|a| a["kind"] == kind).collect::<Vec<_>>();
    let critical = detected.iter().find(|a| a["severity"] == "critical").expect("it is critical");
    let (stopped, pulled, restored) = (of("account.stopped"), of("relay.pull"), of("relay.restore"));
    assert_eq!((stopped.len(), pulled.len(), restored.len()), (1, 1, 1), "{with_pools:#?}");
    assert_eq!((&stopped[0]["account"], seconds(stopped[0])), (&json!("user3@shop3.example"), seconds(critical)));
    assert_eq!((&pulled[0]["relay"], &restored[0]["relay"]), (&json!("out-1"), &json!("out-1")));
    assert_eq!(pulled[0]["incident"], restored[0]["incident"]);
    assert_eq!(pulled[0]["accounts"][0]["account"], "user3@shop3.example");

    // Two hundred recipients suffice, the 200th left after 400 s; and looking at it is not later than a minute of the log.
    let at = seconds(pulled[0]) - HIJACK;
    assert!((398..=460).contains(&at), "pulled {at} s after the first spam");
    // It counts for an hour; below a quarter of 200 it is over, and that is when the last fifty are left in the hour.
    let back = seconds(restored[0]) - HIJACK;
    assert!(
        (2 * SPAM - 100 + 3600 - 60..=2 * SPAM + 3600 + 5100).contains(&back),
        "put back {back} s after the first spam"
    );
}
