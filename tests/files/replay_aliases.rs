//! The names of one account: with a directory its aliases are it, without one they are strangers.

use std::fs;
use std::process::Command;

use mailfuse::event::Timestamp;
use serde_json::{Value, json};

/// 2026-03-02T00:00:00Z, in seconds.
const BEGIN: i64 = 1_772_409_600;
const DAY: i64 = 86_400;

/// A newsletter to the same two hundred each day: for three weeks under its name, then under another.
fn events() -> String {
    let send = |at: i64, account: &str, rcpt: String| {
        json!({ "v": 1, "kind": "send", "ts": at, "account": account, "client_ip": "192.0.2.1", "rcpts": [rcpt] })
            .to_string()
    };
    // Long before: no account is met in the first week of history.
    let mut lines = vec![send(BEGIN - 60 * DAY, "first@other.example", "friend@b.example".to_owned())];
    for day in 0..23 {
        let account = if day < 21 { "news@shop.example" } else { "Offers@shop.example" };
        for i in 0..200 {
            let at = BEGIN + day * DAY + 8 * 3600 + i / 10;
            lines.push(send(at, account, format!("reader{i}@b{}.example", i % 9)));
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn an_alias_is_its_account_where_the_directory_knows_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("events.jsonl"), events()).unwrap();
    fs::write(path("accounts.jsonl"), r#"{"v":1,"account":"news@shop.example","aliases":["offers@shop.example"]}"#)
        .unwrap();
    fs::write(path("broken.jsonl"), "{\"v\":1}\n").unwrap();
    let replay = |directory: &str| {
        let file = if directory.is_empty() { String::new() } else { path(directory).display().to_string() };
        fs::write(path("mailfuse.toml"), format!("[directory]\nfile = {file:?}\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
        command.args(["replay", "--quiet", "--config"]).arg(path("mailfuse.toml")).arg(path("events.jsonl"));
        command.env_remove("MAILFUSE_LOG").output().unwrap()
    };
    let flagged = |directory: &str| -> Vec<String> {
        let ran = replay(directory);
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let alerts = String::from_utf8(ran.stdout).unwrap();
        let alerts = alerts.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        // What it was taken for in its first days is another matter.
        let later =
            alerts.filter(|a| Timestamp::parse(a["ts"].as_str().unwrap()).unwrap().0 >= (BEGIN + 21 * DAY) * 1000);
        later.map(|a| a["account"].as_str().unwrap().to_owned()).collect()
    };
    assert!(flagged("").contains(&"offers@shop.example".to_owned()), "a stranger that writes to two hundred");
    assert_eq!(flagged("accounts.jsonl"), Vec::<String>::new(), "the newsletter, as ever");
    let ran = replay("broken.jsonl");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(2), "{said}");
    assert!(said.contains("broken.jsonl: line 1"), "{said}");
}
