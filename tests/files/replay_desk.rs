//! What an abuse desk asks of a log: who was hijacked, why, what was sent, who else, and what tomorrow's replay should know.
//! The log is a provider's of three machines; `truth.json` is from the books of clients and receivers, not from the log.

use crate::replay_support;

use std::collections::BTreeMap;
use std::path::Path;

use replay_support::story::{BEGIN, DAY, bytes, story};
use replay_support::{Ran, command, critical, field, mailfuse, text, wait, write};
use serde_json::Value;

const HOPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hops");

fn truth() -> Value {
    serde_json::from_slice(&std::fs::read(Path::new(HOPS).join("truth.json")).unwrap()).unwrap()
}

/// Replays the three machines' logs.
fn desk(options: &[&str]) -> Ran {
    let logs = ["out-1.log", "out-2.log", "submit-1.log"].map(|name| format!("{HOPS}/{name}"));
    let mut args = vec!["replay", "--year", "2026"];
    args.extend(logs.iter().map(String::as_str));
    args.extend(options);
    mailfuse(&args).ok()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}

#[test]
fn the_hijacked_account_alone_is_critical_before_half_of_the_burst() {
    let truth = truth();
    let hijacked = &truth["hijacked"];
    let alerts = desk(&[]).alerts();
    assert_eq!(critical(&alerts), [field(hijacked, "account")]);
    let alert = alerts
        .iter()
        .find(|a| field(a, "severity") == "critical" && field(a, "account") == field(hijacked, "account"))
        .unwrap();
    // Stamps of the log are whole seconds, all of this hour: texts compare as times do.
    let at = field(alert, "ts");
    assert!(at > field(hijacked, "first_spam_ts"), "{at}");
    let messages = hijacked["per_message"].as_array().unwrap();
    assert_eq!(messages.len(), 40);
    assert!(at < field(&messages[20], "ts"), "{at}");
    // Its relays are the two that speak to the outside.
    let relays: BTreeMap<&str, u64> = alert["relays"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| (field(r, "relay"), r["recipients"].as_u64().unwrap()))
        .collect();
    assert!(relays.contains_key("out-1") && relays.contains_key("out-2"), "{relays:?}");
    // The owner himself wrote to a neighbour before, whose mailbox `submit-1` reaches.
    assert!(relays.iter().all(|(name, n)| name.starts_with("out-") || (*name == "submit-1" && *n <= 2)), "{relays:?}");
    for ip in strings(&alert["burst"]["client_ips"]) {
        let known = truth["accounts"][field(hijacked, "account")]["client_ips"].as_array().unwrap();
        assert!(known.iter().any(|k| k == ip), "{ip}");
    }
}

#[test]
fn explain_tells_why_and_why_not() {
    let truth = truth();
    let hijacked = field(&truth["hijacked"], "account");
    let ran = desk(&["--explain", hijacked]);
    for words in ["=> critical", "54 messages", "account.escalated  critical", "12 failed log-ins that name it"] {
        assert!(ran.text().contains(words), "{words:?} is not in {}", ran.text());
    }
    // As a person may write it.
    assert_eq!(desk(&["--explain", &hijacked.to_uppercase()]).text(), ran.text());
    let innocent = desk(&["--explain", "pia.lund@saltmarsh-sailing.example"]);
    assert!(
        innocent.text().contains("=> not flagged: ") && innocent.text().contains("short of a warning"),
        "{}",
        innocent.text()
    );
    assert!(innocent.text().contains("Alerts: none"), "{}", innocent.text());
    let unknown = desk(&["--explain", "acounts@brightleaf.example"]);
    assert!(unknown.text().contains("no event of this account in these logs"), "{}", unknown.text());
    let like = unknown.text().lines().find(|l| l.starts_with("Accounts with like names: ")).expect("like names");
    assert!(like.contains(hijacked), "{like}");
    let nothing_like = desk(&["--explain", "zzz"]);
    assert!(!nothing_like.text().contains("like names"), "{}", nothing_like.text());
}

#[test]
fn a_relays_log_alone_says_what_is_missing() {
    let ran = mailfuse(&["replay", "--year", "2026", &format!("{HOPS}/out-1.log"), "--alerts", "/dev/null"]);
    ran.ok().says("add the logs of the host where customers log in");
}

#[test]
fn find_names_the_account_behind_everything_an_analyst_may_have() {
    let truth = truth();
    let hijacked = field(&truth["hijacked"], "account");
    let spam = &truth["hijacked"]["per_message"][7];
    let recipient = {
        let log = std::fs::read_to_string(Path::new(HOPS).join("submit-1.log")).unwrap();
        let line = log.lines().find(|l| l.contains(&format!("{}: to=<", field(spam, "queue_id")))).unwrap();
        line.split("to=<").nth(1).unwrap().split('>').next().unwrap().to_owned()
    };
    let check = |what: &str, by: &str, only: bool| {
        let ran = desk(&["--find", what]);
        let rows: Vec<&str> = ran.text().lines().skip(1).collect();
        // Whoever sent most is first.
        let first = rows.first().unwrap_or_else(|| panic!("{what}: {}", ran.text()));
        assert!(first.contains(hijacked) && first.contains(by), "{what}: {}", ran.text());
        assert!(!only || rows.len() == 1, "{what}: {}", ran.text());
    };
    check("out-1", "relay", false);
    check("out-2", "relay", false);
    for ip in strings(&truth["hijacked"]["client_ips"]) {
        check(ip, "client address", false);
    }
    for network in strings(&truth["hijacked"]["client_networks"]) {
        check(network, "client address", false);
    }
    check(field(spam, "queue_id"), "queue id", true);
    check(field(spam, "message_id"), "Message-ID", true);
    check(field(spam, "message_id").trim_matches(['<', '>']), "Message-ID", true);
    check(&recipient, "recipient", true);
    // What a complaint shows is the relay's id: as the submission host was told it, "queued as ID".
    let on_relay = {
        let log = std::fs::read_to_string(Path::new(HOPS).join("submit-1.log")).unwrap();
        let line = log.lines().find(|l| l.contains(field(spam, "queue_id")) && l.contains("queued as ")).unwrap();
        line.split("queued as ").nth(1).unwrap().trim_end_matches(')').to_owned()
    };
    check(&on_relay, "queue id on the relay", true);
    let nobody = desk(&["--find", "192.0.2.255"]);
    assert!(nobody.text().starts_with("192.0.2.255: behind no account of these logs"), "{}", nobody.text());
}

#[test]
fn extract_gives_each_message_of_the_burst() {
    let truth = truth();
    let hijacked = &truth["hijacked"];
    let ran = desk(&["--quiet", "--extract", field(hijacked, "account")]);
    let mut csv = csv::Reader::from_reader(&*ran.stdout);
    let rows: Vec<BTreeMap<String, String>> = csv.deserialize().map(Result::unwrap).collect();
    let by_id: BTreeMap<&str, &BTreeMap<String, String>> = rows.iter().map(|r| (&*r["queue_id"], r)).collect();
    assert_eq!(by_id.len(), rows.len());
    for message in hijacked["per_message"].as_array().unwrap() {
        let id = field(message, "queue_id");
        let row = by_id.get(id).unwrap_or_else(|| panic!("{id} is missing"));
        assert_eq!(row["recipients"], message["recipients"].to_string(), "{id}");
        assert_eq!(row["refused"], message["refused"].to_string(), "{id}");
        assert_eq!(row["client_ip"], field(message, "client_ip"), "{id}");
        assert_eq!(row["message_id"], field(message, "message_id").trim_matches(['<', '>']), "{id}");
        assert!(["out-1", "out-2"].contains(&&*row["relay"]), "{id}: {}", row["relay"]);
        assert_eq!(row["ts"][..19], field(message, "ts")[..19], "{id}");
    }
    // Beside them, what the owner sent meanwhile to people new to him.
    let others: Vec<_> = rows.iter().filter(|r| !strings(&hijacked["queue_ids"]).contains(&&*r["queue_id"])).collect();
    assert!(others.len() <= 14 && others.iter().all(|r| r["client_ip"] == "100.72.14.23"), "{others:?}");
}

#[test]
fn the_report_names_names_and_redacted_none() {
    let truth = truth();
    let folder = tempfile::tempdir().unwrap();
    let page = |name: &str, options: &[&str]| {
        let path = text(&folder.path().join(name));
        let ran = desk(&[&["--report", &path], options].concat());
        assert_eq!(critical(&ran.alerts()).len(), 1);
        std::fs::read_to_string(path).unwrap()
    };
    let hijacked = &truth["hijacked"];
    let open = page("open.html", &[]);
    for name in [field(hijacked, "account"), "out-1", "out-2", "100.81.7.200"] {
        assert!(open.contains(name), "{name}");
    }
    let redacted = page("redacted.html", &["--redact"]);
    let accounts = truth["accounts"].as_object().unwrap().keys().map(String::as_str);
    let domains = truth["accounts"].as_object().unwrap().keys().map(|a| a.split('@').nth(1).unwrap());
    let own = strings(&truth["own_hosts"]).into_iter().chain(["out-1", "out-2", "submit-1"]);
    let addresses = strings(&hijacked["client_ips"]).into_iter().chain(strings(&hijacked["queue_ids"]));
    for name in accounts.chain(domains).chain(own).chain(addresses) {
        assert!(!redacted.contains(name), "{name} is in the redacted page");
    }
    assert!(redacted.len() > 10_000, "{}", redacted.len());
    // The same every time.
    assert!(redacted == page("again.html", &["--redact"]));
    assert!(open == page("again.html", &[]));
}

/// The story's events in two files, cut before line `at`: what is learned from one and then the other.
fn in_two(at: usize) -> (Vec<String>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let lines = story();
    let state = text(&folder.path().join("state"));
    let first = write(folder.path(), "1.jsonl", bytes(&lines[..at]));
    let second = write(folder.path(), "2.jsonl", bytes(&lines[at..]));
    let mut alerts = mailfuse(&["replay", "-q", "--save-state", &state, &first]).ok().stdout;
    alerts.extend(mailfuse(&["replay", "-q", "--load-state", &state, &second]).ok().stdout);
    (lines, alerts)
}

#[test]
fn with_its_state_a_log_in_two_parts_gives_the_alerts_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let lines = story();
    let whole = mailfuse(&["replay", "-q", &write(folder.path(), "whole.jsonl", bytes(&lines))]).ok();
    assert_eq!(critical(&whole.alerts()), ["u3@example.org", "u5@example.org"]);
    let at = |ts: i64| {
        lines.iter().position(|l| serde_json::from_str::<Value>(l).unwrap()["ts"].as_i64().unwrap() >= ts).unwrap()
    };
    let hijack = BEGIN + 10 * DAY;
    // Before it, between its messages (each is answered within a second), after it, and long after.
    for ts in
        [BEGIN + DAY, hijack, hijack + 5, hijack + 15, hijack + 100, hijack + 3600, BEGIN + 15 * DAY, BEGIN + 21 * DAY]
    {
        let (_, alerts) = in_two(at(ts));
        assert_eq!(String::from_utf8(alerts).unwrap(), whole.text(), "cut at {}", ts - hijack);
    }
    // What was learned matters: without it, the second part alone tells another story.
    let second = mailfuse(&["replay", "-q", &write(folder.path(), "2.jsonl", bytes(&lines[at(hijack + 5)..]))]).ok();
    assert!(!whole.text().ends_with(second.text()));
}

#[test]
fn a_state_that_does_not_fit_is_refused_with_the_cure() {
    let folder = tempfile::tempdir().unwrap();
    let events = write(folder.path(), "events.jsonl", bytes(&story()));
    let state = text(&folder.path().join("state"));
    mailfuse(&["replay", "-q", "--save-state", &state, &events]).ok();
    let saved = std::fs::read(&state).unwrap();
    let refused = |ran: Ran| {
        let ran = ran.status(2).says("--load-state ").says("start without it");
        assert!(ran.stdout.is_empty() && !ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran
    };
    let args = ["replay", "-q", "--load-state", &state, &events];
    let mut other_key = command(&args);
    other_key.env("MAILFUSE_FINGERPRINT_KEY", "0123456789abcdef0123456789abcdef");
    refused(wait(other_key.spawn().unwrap()))
        .says("made with another fingerprint key")
        .says("Use the key that it was made with");
    for bytes in (1..=20).map(|n| saved.len() * n / 21).chain([saved.len() - 1]) {
        write(folder.path(), "state", &saved[..bytes]);
        let ran = refused(mailfuse(&args));
        assert!(ran.stderr.contains("cut short or damaged"), "{bytes} bytes: {}", ran.stderr);
    }
    let mut flipped = saved.clone();
    flipped[saved.len() / 2] ^= 4;
    write(folder.path(), "state", &flipped);
    refused(mailfuse(&args));
    write(folder.path(), "state", b"From nobody\n");
    let ran = mailfuse(&args).status(2);
    assert!(ran.stderr.contains("not a state that this version reads"), "{}", ran.stderr);
    write(folder.path(), "state", &saved);
    mailfuse(&args).ok();
}

#[test]
fn config_prints_the_reference_and_checks_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let reference = mailfuse(&["config"]).ok();
    assert!(reference.text().contains("[detect.thresholds.established]") && reference.stderr.is_empty());
    // The reference is a configuration: the defaults, as none is.
    let digest = |content: &str| {
        let file = write(folder.path(), "mailfuse.toml", content);
        let ran = mailfuse(&["config", "--check", &file]).ok();
        assert!(ran.text().starts_with(&format!("{file}: good; digest ")), "{}", ran.text());
        ran.text().to_owned()
    };
    assert_eq!(digest(reference.text()), digest(""));
    assert_ne!(digest("[detect]\nlateness_s = 301\n"), digest(""));
    let wrong = write(folder.path(), "wrong.toml", "[detect.thresholds.new]\nwarning = 99.0\n");
    mailfuse(&["config", "--check", &wrong]).status(2).says("wrong.toml");
}

#[test]
fn calibrate_tables_what_mail_scores() {
    let ran = mailfuse(&["calibrate", &format!("{HOPS}/submit-1.log"), &format!("{HOPS}/out-1.log")]).ok();
    let header = ran.text().lines().find(|l| l.contains("score") && l.contains("corroborated")).expect("a table");
    assert!(header.contains("new recipients alone"), "{header}");
    assert!(ran.text().starts_with("unknown: "), "{}", ran.text());
    assert!(ran.text().contains("[detect.thresholds.unknown]"), "{}", ran.text());
    let folder = tempfile::tempdir().unwrap();
    let events = write(folder.path(), "events.jsonl", bytes(&story()));
    let all = mailfuse(&["calibrate", &events]).ok();
    assert!(all.text().contains("\nestablished: "), "{}", all.text());
    let except = write(folder.path(), "except", "u3@example.org\nU5@example.org\n");
    let clean = mailfuse(&["calibrate", &events, "--except", &except]).ok();
    // Without the guilty, nobody comes near a flag.
    let reached =
        |ran: &Ran| ran.text().lines().any(|l| l.trim_start().starts_with("20 ") && !l.trim_end().ends_with("0.0000"));
    assert!(reached(&all) && !reached(&clean), "{}\n{}", all.text(), clean.text());
}
