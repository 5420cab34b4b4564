//! People's word against a real broker: said at the desk, in force at every detector within seconds, and after any crash the same
//! alerts as `replay --control` makes of the same events and decisions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::run_support::{Alerts, Broker, Deployment, Instance, LIMIT, Record, WORK, mailfuse, now_s, wait_until};
use mailfuse::event::Timestamp;
use serde_json::{Value, json};

/// Accounts, each in a domain of its own.
const ACCOUNTS: usize = 12;
const HISTORY_DAYS: i64 = 25;

fn account(n: usize) -> String {
    format!("user{n}@shop{n}.example")
}

fn send(n: usize, at_s: i64, ip: &str, rcpt: &str, queue_id: &str) -> (i64, Value) {
    let event = json!({ "v": 1, "kind": "send", "ts": at_s, "account": account(n), "relay": "out-1", "client_ip": ip,
        "rcpts": [rcpt], "queue_id": queue_id });
    (at_s, event)
}

/// What the accounts do on ordinary days: a few messages to a few friends, from home.
fn history(now_s: i64) -> Vec<(i64, Value)> {
    let mut events = Vec::new();
    for n in 0..ACCOUNTS {
        for day in 1..=HISTORY_DAYS {
            for k in 0..3 {
                let at_s = now_s - day * 86_400 + k * 7_000 + n as i64 * 60;
                let friend = format!("friend{}@elsewhere.example", (day * 3 + k) % 8);
                events.push(send(n, at_s, &format!("10.{n}.0.7"), &friend, &format!("h{n}-{day}-{k}")));
            }
        }
    }
    events
}

/// Messages to strangers from a network never seen before, a third of them refused. Of those to be exempt a dozen: more than
/// their limits, less than ten times as much.
fn burst(n: usize, at_s: i64, ip: &str) -> Vec<(i64, Value)> {
    let mut events = Vec::new();
    for k in 0..if (6..10).contains(&n) { 12 } else { 30 } {
        let (rcpt, id) = (format!("stranger{k}@d{}.example", k % 7), format!("b{n}-{at_s}-{k}"));
        events.push(send(n, at_s + k, ip, &rcpt, &id));
        if k % 3 == 0 {
            let refused = json!({ "v": 1, "kind": "outcome", "ts": at_s + k, "account": account(n), "relay": "out-1",
                "queue_id": id, "rcpt": rcpt, "status": "bounced", "dsn": "5.1.1" });
            events.push((at_s + k, refused));
        }
    }
    events
}

/// Writes them in the order of their times.
fn written(folder: &Path, name: &str, mut events: Vec<(i64, Value)>) -> PathBuf {
    events.sort_by_key(|(at_s, _)| *at_s);
    let path = folder.join(name);
    let lines: Vec<String> = events.iter().map(|(_, event)| event.to_string()).collect();
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    path
}

/// What the detector said: the desk's own alerts depend on when it heard of them.
fn detected(d: &Deployment<'_>) -> Alerts {
    let is_account = |bytes: &Vec<u8>| {
        let alert: Value = serde_json::from_slice(bytes).unwrap();
        alert["kind"].as_str().unwrap().starts_with("account.")
    };
    Alerts::of(d.broker.read(&d.topic("alerts")).into_iter().filter_map(|r| r.value).filter(is_account))
}

/// Alerts by account and kind.
fn by_account(alerts: &Alerts) -> BTreeMap<String, Vec<Value>> {
    let mut all = BTreeMap::<String, Vec<Value>>::new();
    for (account, ids) in &alerts.order {
        let read = |id: &String| serde_json::from_slice(&alerts.by_id[id]).unwrap();
        all.insert(account.clone(), ids.iter().map(read).collect());
    }
    all
}

fn flags(alerts: &BTreeMap<String, Vec<Value>>, n: usize) -> Vec<&Value> {
    let of = alerts.get(&account(n));
    of.into_iter().flatten().filter(|a| a["kind"] == "account.flagged").collect()
}

/// Says it, to an instance that becomes the active desk within a while.
#[track_caller]
fn say(instance: &Instance, method: &str, path: &str, body: &Value) -> Value {
    let mut answer = Value::Null;
    wait_until(&format!("{method} {path} is done"), LIMIT, || {
        let (status, said) = instance.send(method, path, body);
        assert!([200, 201, 421, 503].contains(&status), "{status} {said}");
        answer = said;
        status <= 201
    });
    answer
}

#[test]
fn what_was_said_counts_after_a_crash_as_in_a_replay() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "feedback", 4);
    let folder = d.folder.path();
    let mut instance = d.start("one");
    let began_s = now_s();
    let mut first = history(began_s);
    for n in 0..6 {
        first.extend(burst(n, began_s - 300 + n as i64, "203.0.113.5"));
    }
    d.publish(&written(folder, "first.jsonl", first.clone()));
    d.await_done(WORK);
    let flagged = by_account(&detected(&d));
    let incident = |n: usize| flags(&flagged, n)[0]["incident"].as_str().unwrap().to_owned();
    wait_until("the desk knows all six", LIMIT, || {
        instance.json("/v1/incidents?state=open").1["items"].as_array().is_some_and(|i| i.len() == 6)
    });
    let path = |n: usize, what: &str| format!("/v1/incidents/{}/{what}", incident(n));

    // 0: a hijack. 1: it was the owner. 2: a false positive. 3: somebody looks. 4, 5: nobody does.
    let said = say(&instance, "POST", &path(0, "resolve"), &json!({ "as": "hijack", "note": "password changed" }));
    assert_eq!((&said["resolved"]["as"], &said["resolved"]["by"]), (&json!("hijack"), &json!("local")));
    // The answer is of what is stored: whoever comes after knows it.
    instance.kill();
    instance = d.start("one");
    say(&instance, "POST", &path(1, "resolve"), &json!({ "as": "not_hijack" }));
    say(&instance, "POST", &path(2, "false-positive"), &json!({ "note": "club's news", "decades": 10 }));
    say(&instance, "POST", &path(3, "acknowledge"), &json!({ "note": "I call the owner" }));
    // 6 to 9: exempt by themselves, by tenant, by domain, by network; 10 is exempt and goes beyond; 11 is as ever.
    let until = json!(Timestamp((began_s + 86_400) * 1000));
    let exempt = |scope: &str, name: &str, factor: f64| {
        let body =
            json!({ "scope": scope, "name": name, "what": "exempt", "factor": factor, "until": until, "note": "sale" });
        say(&instance, "POST", "/v1/decisions", &body)
    };
    exempt("account", &account(6).to_uppercase(), 10.0);
    exempt("tenant", "shop7.example", 10.0);
    exempt("domain", "shop8.example", 10.0);
    exempt("network", "198.51.100.0/24", 10.0);
    let last = exempt("account", &account(10), 1.01);
    instance.kill();
    instance = d.start("one");

    // They begin at a moment that is the same for everybody; then it all happens again.
    let from = last["from"].as_str().unwrap();
    let from_s = Timestamp::parse(from).unwrap().0 / 1000 + 1;
    wait_until("the decisions have begun", LIMIT, || now_s() > from_s);
    let mut second = Vec::new();
    for n in 0..ACCOUNTS {
        second.extend(burst(n, from_s + 3 + n as i64, if n == 9 { "198.51.100.9" } else { "203.0.113.5" }));
    }
    second.sort_by_key(|(at_s, _)| *at_s);
    for (i, part) in second.chunks(second.len() / 3 + 1).enumerate() {
        d.publish(&written(folder, &format!("part-{i}.jsonl"), part.to_vec()));
        std::thread::sleep(Duration::from_millis(300 * i as u64));
        instance.kill();
        instance = d.start("one");
    }
    d.await_done(WORK);

    let ours = detected(&d);
    let events = written(folder, "all.jsonl", first.into_iter().chain(second).collect());
    let control: Vec<String> = d
        .broker
        .read(&d.topic("control"))
        .into_iter()
        .filter_map(|r| Some(String::from_utf8(r.value?).unwrap()))
        .collect();
    let decisions = folder.join("control.jsonl");
    fs::write(&decisions, control.join("\n") + "\n").unwrap();
    let replayed = |arguments: &[&str]| {
        let ran = mailfuse().args(["replay", "--quiet"]).args(arguments).arg(&events).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        Alerts::of(ran.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec))
    };
    ours.check(&replayed(&["--control", decisions.to_str().unwrap()]), "with the decisions");

    // What they were for.
    let (with, without) = (by_account(&ours), by_account(&replayed(&[])));
    let again = flags(&with, 0);
    assert_eq!(again.len(), 2, "the burst was taken out: the same again is a new incident");
    // It reaches the same as the first time.
    let worst = |incident: &Value| {
        let of = |a: &&Value| a["incident"] == incident["incident"] && a["severity"] == "critical";
        with[&account(0)].iter().filter(of).count() > 0
    };
    assert!(worst(again[0]) && worst(again[1]));
    assert_eq!(again[1]["severity"], again[0]["severity"]);
    let news = |a: &Value| a["burst"]["new_recipients"].as_u64().unwrap();
    assert_eq!(news(again[1]), news(again[0]), "and its recipients are strangers again");
    assert_eq!(flags(&without, 0).len(), 1);
    assert_eq!(flags(&with, 2).len(), 1, "more is tolerated");
    assert_eq!(flags(&with, 3), flags(&without, 3), "a word to colleagues changes nothing");
    for n in 6..10 {
        assert_eq!(flags(&with, n), Vec::<&Value>::new(), "{n} is exempt");
        assert_eq!(flags(&without, n).len(), 1, "{n} would have been flagged");
    }
    let beyond = flags(&with, 10);
    assert_eq!((beyond.len(), &beyond[0]["exempt"]["factor"]), (1, &json!(1.01)));
    assert!(flags(&with, 11)[0].get("exempt").is_none());

    // Who did what, in order, and nothing twice.
    wait_until("the audit is in the index", LIMIT, || instance.json("/v1/desk").1["index"]["state"] == "ready");
    let (_, audit) = instance.json("/v1/audit?who=local");
    let mut did: Vec<&str> = audit["items"].as_array().unwrap().iter().map(|e| e["what"].as_str().unwrap()).collect();
    did.reverse();
    let mut wanted = vec!["incident.resolved.hijack", "decision.hijack"];
    wanted.extend(["incident.resolved.not_hijack", "decision.close"]);
    wanted.extend(["incident.resolved.false_positive", "decision.close", "decision.tolerate", "incident.acknowledged"]);
    wanted.extend(["decision.exempt"; 5]);
    assert_eq!(did, wanted);
    let (_, one) = instance.json(&format!("/v1/decisions/{}", last["id"].as_str().unwrap()));
    assert_eq!(one, last);
    assert!(instance.terminate().success());
}

/// The words of a command line; what stands in quotes is one.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (i, part) in line.split('\'').enumerate() {
        if i % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "terminal", 1);
    let desk = d.start_desk("one");
    for (n, account) in [(1, "news@shop.example"), (2, "info@club.example")] {
        let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
        let mut alert: Value = serde_json::from_str(line).unwrap();
        alert["account"] = json!(account);
        alert["incident"] = json!(format!("i-{n}"));
        alert["id"] = json!(format!("a-{n}"));
        d.broker.produce(&d.topic("alerts"), &[Record::new(account, &alert.to_string())]);
    }
    wait_until("the index has both", LIMIT, || {
        desk.json("/v1/incidents").1["items"].as_array().is_some_and(|i| i.len() == 2)
            && desk.json("/v1/desk").1["role"] == "active"
    });
    let at = desk.http();
    let mut decision = String::new();
    let (mut ran, mut said) = (0, String::new());
    let readme = include_str!("../../README.md");
    for line in readme.lines().filter_map(|l| l.strip_prefix("    mailfuse desk ")) {
        let mut arguments = words(line);
        for word in &mut arguments {
            match word.as_str() {
                "INCIDENT" => *word = "i-1".to_owned(),
                "OTHER" => *word = "i-2".to_owned(),
                "DECISION" => word.clone_from(&decision),
                "mailfuse.toml" => *word = desk.config.display().to_string(),
                _ => {}
            }
        }
        let done = mailfuse().arg("desk").args(&arguments).args(["--at", &at]).output().unwrap();
        let (out, err) = (String::from_utf8(done.stdout).unwrap(), String::from_utf8_lossy(&done.stderr).into_owned());
        assert!(done.status.success(), "{line}: {err}");
        if let Some(id) = out.split_whitespace().find(|w| w.starts_with("d-")) {
            decision = id.to_owned();
        }
        // What was done shows a moment later: the index follows.
        d.await_index(&desk);
        said.push_str(&format!("$ mailfuse desk {line}\n{out}"));
        ran += 1;
    }
    assert!(ran >= 13, "{ran} commands in the README");
    for wanted in [
        "i-1 of news@shop.example is open, acknowledged by local, resolved as hijack by local",
        "i-2 of info@club.example is open, resolved as false positive by local",
        "limits x 5",
        "tenant shop.example",
        "network 192.0.2.0/24",
        "1.5 decades",
        "incident.acknowledged",
        "incident.resolved.hijack",
        "decision.pin",
        "decision.taken_back",
        "the sale is over",
        "no answer, again at ten",
    ] {
        assert!(said.contains(wanted), "{wanted} is not in\n{said}");
    }
    // Wrong usage is told before anything is asked, what is not there by the desk.
    let fails = |arguments: &[&str], status: i32, words: &str| {
        let config = desk.config.display().to_string();
        let done = mailfuse().arg("desk").args(arguments).args(["--config", &config, "--at", &at]).output().unwrap();
        let err = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(status), "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err}");
    };
    fails(&["resolve", "i-none", "hijack"], 1, "no such incident");
    fails(&["resolve", "i-1", "not-hijack"], 1, "cannot be undone");
    fails(&["exempt", "--note", "x", "--days", "3"], 2, "--account");
    fails(&["exempt", "--account", "a@b.example", "--note", "x"], 2, "--until");
    fails(&["exempt", "--account", "a@b.example", "--note", "x", "--until", "soon"], 2, "--until soon");
    fails(&["exempt", "--account", "a@b.example", "--note", "x", "--days", "400"], 1, "366 days");
    eprintln!("{said}");
}
