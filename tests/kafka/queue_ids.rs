//! What a burst has in the queues, read from the events topic of a real broker: by the API, by the command, and held by a real
//! Postfix whose log the events are.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::{Output, Stdio};

use crate::hands_support::Program;
use crate::hands_support::postfix::Postfix;
use crate::run_support::{Broker, Deployment, Instance, LIMIT, WORK, mailfuse, now_s, wait_until};
use serde_json::{Value, json};

const HISTORY_DAYS: i64 = 25;
const BURST: i64 = 30;

fn send(account: &str, at_s: i64, ip: &str, rcpt: &str, id: &str) -> Value {
    json!({ "v": 1, "kind": "send", "ts": at_s, "account": account, "client_ip": ip, "rcpts": [rcpt], "queue_id": id,
        "host": "sub-1" })
}

fn outcome(account: &str, at_s: i64, rcpt: &str, id: &str, status: &str, dsn: &str) -> Value {
    json!({ "v": 1, "kind": "outcome", "ts": at_s, "account": account, "relay": "out-1", "queue_id": id,
        "relay_queue_id": format!("R{id}"), "rcpt": rcpt, "status": status, "dsn": dsn })
}

/// Weeks of mail to a few friends.
fn habits(account: &str, until_s: i64) -> Vec<Value> {
    let of = |n: i64| {
        let friend = format!("friend{}@elsewhere.example", n % 8);
        send(account, until_s - (HISTORY_DAYS * 3 - n) * 28_800, "10.0.0.7", &friend, &format!("H{n}"))
    };
    (0..HISTORY_DAYS * 3).map(of).collect()
}

fn publish(d: &Deployment<'_>, name: &str, events: &[Value]) {
    let path = d.folder.path().join(name);
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    d.publish(&path);
}

/// The incident of an account, once there is one.
#[track_caller]
fn incident_of(instance: &Instance, account: &str) -> String {
    let mut found = None;
    wait_until("the account is flagged", LIMIT, || {
        let page = instance.json(&format!("/v1/incidents?account={account}")).1;
        found = page["items"][0]["id"].as_str().map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

/// The page of an incident, once the topic has been read for it.
#[track_caller]
fn page_of(instance: &Instance, incident: &str) -> (u16, Value) {
    let mut answer = (202, Value::Null);
    wait_until("the topic is read", LIMIT, || {
        answer = instance.json(&format!("/v1/incidents/{incident}/queue-ids"));
        answer.0 != 202
    });
    answer
}

/// The command as a person types it.
fn queue_ids(d: &Deployment<'_>, instance: &Instance, arguments: &[&str]) -> Output {
    let mut command = mailfuse();
    command.args(["queue-ids", "--config"]).arg(d.config("one")).args(["--at", &instance.http()]);
    command.args(arguments).output().unwrap()
}

fn listed(output: &Output) -> Vec<String> {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_waits_is_listed_by_host_and_what_is_done_is_not() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "queueids", 3);
    let instance = d.start("one");
    let (ann, bob, began_s) = ("ann@shop.example", "bob@shop.example", now_s() - 60);
    let mut events = habits(ann, began_s - 3600);
    events.extend(habits(bob, began_s - 3600));
    for k in 0..BURST {
        let (rcpt, id) = (format!("stranger{k}@d{}.example", k % 7), format!("B{k}"));
        events.push(send(ann, began_s + k, "203.0.113.5", &rcpt, &id));
        events.push(send(bob, began_s + k, "10.0.0.7", "friend1@elsewhere.example", &format!("O{k}")));
        match k % 3 {
            0 => events.push(outcome(ann, began_s + k, &rcpt, &id, "bounced", "5.1.1")),
            1 => events.push(outcome(ann, began_s + k, &rcpt, &id, "deferred", "4.2.1")),
            _ => {}
        }
    }
    publish(&d, "events.jsonl", &events);
    d.await_done(WORK);
    let incident = incident_of(&instance, ann);
    let of = |class: i64, prefix: &str| -> Vec<String> {
        (0..BURST).filter(|k| k % 3 == class).map(|k| format!("{prefix}{k}")).collect()
    };
    let (first_host, relay) = (of(2, "B"), of(1, "RB"));

    let (status, page) = page_of(&instance, &incident);
    assert_eq!(status, 200, "{page}");
    let hosts: BTreeSet<&str> = page["ids"].as_array().unwrap().iter().map(|q| q["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, BTreeSet::from(["out-1", "sub-1"]));
    assert_eq!((&page["found"], &page["is_cut"]), (&json!(first_host.len() + relay.len()), &json!(false)));
    assert_eq!(page["counts"], json!({"messages": 30, "done": 10, "without_id": 0, "unusable": 0, "not_kept": 0}));
    assert_eq!(page["covered"]["cut"], json!([]));
    assert_eq!(instance.json("/v1/incidents/none/queue-ids").0, 404);
    for wrong in ["limit=0", "limit=100001", "hots=x"] {
        assert_eq!(instance.json(&format!("/v1/incidents/{incident}/queue-ids?{wrong}")).0, 400, "{wrong}");
    }

    assert_eq!(listed(&queue_ids(&d, &instance, &[&incident, "--host", "SUB-1"])), first_host);
    assert_eq!(listed(&queue_ids(&d, &instance, &[&incident, "--host", "out-1"])), relay);
    assert!(listed(&queue_ids(&d, &instance, &[&incident, "--host", "elsewhere"])).is_empty());
    let cut = queue_ids(&d, &instance, &[&incident, "--limit", "3"]);
    let said = String::from_utf8_lossy(&cut.stderr).into_owned();
    assert_eq!(listed(&cut).len(), 3);
    assert!(said.contains("30 messages since") && said.contains("of 10 nothing is known to wait"), "{said}");
    assert!(said.contains("cut: 20 ids were found"), "{said}");
    let none = queue_ids(&d, &instance, &["none"]);
    assert_eq!((none.status.code(), &*none.stdout), (Some(1), &b""[..]));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no such incident"));
}

/// As the README says: the burst goes through a real Postfix, its log is published, and what `queue-ids` lists is held. By hand,
/// and by the hook.
#[test]
fn postsuper_holds_exactly_the_burst() {
    let Some(program) = Program::fetch("postfix") else { return };
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "queued", 1);
    let instance = d.start("one");
    let (ann, bob) = ("ann@x.example", "bob@x.example");
    publish(&d, "habits.jsonl", &habits(ann, now_s() - 3600));

    let postfix = Postfix::start(program, crate::hands_support::free_port());
    for k in 0..BURST {
        assert!(postfix.send(ann, &format!("stranger{k}@d{}.example", k % 7)).starts_with("250"));
        if k % 10 == 0 {
            assert!(postfix.send(bob, "friend@y.example").starts_with("250"));
        }
    }
    let all = (BURST + BURST / 10) as usize;
    wait_until("all are deferred", LIMIT, || postfix.queue("deferred").len() == all);
    wait_until("the log says so", LIMIT, || postfix.log().matches("status=deferred").count() >= all);
    d.publish(&postfix.folder.path().join("maillog"));
    let incident = incident_of(&instance, ann);

    let found = queue_ids(&d, &instance, &[&incident]);
    let ids = listed(&found);
    assert_eq!(ids.len(), BURST as usize, "{}", String::from_utf8_lossy(&found.stderr));
    let answer = page_of(&instance, &incident).1;
    let host = answer["ids"][0]["host"].as_str().unwrap().to_owned();
    assert_eq!(listed(&queue_ids(&d, &instance, &[&incident, "--host", &host])), ids);

    let postsuper = |arguments: &[&str], input: &str| {
        let mut command = postfix.program.command("usr/sbin/postsuper");
        command.arg("-c").arg(postfix.etc()).args(arguments).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    let held = || -> BTreeSet<String> {
        let name = |p: std::path::PathBuf| p.file_name().unwrap().to_str().unwrap().to_owned();
        postfix.queue("hold").into_iter().map(name).collect()
    };
    // The README's line, with this Postfix's postsuper.
    let config = d.config("one");
    let asks =
        format!("{} queue-ids --config {} --at {}", env!("CARGO_BIN_EXE_mailfuse"), config.display(), instance.http());
    let readme =
        include_str!("../../README.md").lines().find_map(|l| l.strip_prefix("    mailfuse queue-ids ")).unwrap();
    let (ours, theirs) = readme.split_once(" | postsuper ").unwrap();
    let ours = ours.replace("--config mailfuse.toml ", "").replace("INCIDENT", &incident).replace("HOST", &host);
    let (libraries, etc) = (postfix.program.libraries(), postfix.etc());
    let program = postfix.program.0.join("usr/sbin/postsuper");
    let line =
        format!("{asks} {ours} | LD_LIBRARY_PATH={libraries} {} -c {} {theirs}", program.display(), etc.display());
    let ran = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(ran.status.success(), "{line}: {}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(held(), ids.iter().cloned().collect());
    assert_eq!(postfix.queue("deferred").len(), all - ids.len(), "the other account's wait as before");

    postsuper(&["-H", "ALL"], "");
    assert!(held().is_empty());
    let mut hook = postfix.environment(concat!(env!("CARGO_MANIFEST_DIR"), "/ops/relays/postfix-hold"));
    hook.arg("--config").arg(postfix.etc()).arg("--sbin").arg(postfix.program.0.join("usr/sbin"));
    let mut child = hook
        .args(["--host", &host, "--queue-ids", &asks])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let line = json!({ "v": 1, "verb": "stop", "idempotency_key": "m-1/stop", "account": ann, "incident": incident,
        "queue_ids": format!("/v1/incidents/{incident}/queue-ids") });
    writeln!(child.stdin.take().unwrap(), "{line}").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(String::from_utf8_lossy(&out.stdout), format!("held {BURST} messages of {ann}\n"));
    assert_eq!(held(), ids.into_iter().collect());
}
