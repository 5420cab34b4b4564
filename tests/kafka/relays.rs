//! From a hijack to the hands against a real broker: its account is stopped at the policy service, the relay that it burdened is
//! drained at the agent, a program is told, all of it is so again after SIGKILL, also of the broker, and ends by commands.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use crate::hands_support::free_port;
use crate::run_support::{Broker, Deployment, Instance, LIMIT, WORK, mailfuse, now_s, wait_until};
use serde_json::{Value, json};

const HISTORY_DAYS: i64 = 25;
const ANN: &str = "ann@shop.example";
const BOB: &str = "bob@else.example";

fn send(account: &str, at_s: i64, relay: &str, ip: &str, rcpt: &str, id: &str) -> (i64, Value) {
    let event = json!({ "v": 1, "kind": "send", "ts": at_s, "account": account, "relay": relay, "client_ip": ip,
        "rcpts": [rcpt], "queue_id": id });
    (at_s, event)
}

/// What both do on ordinary days, over both relays.
fn history(until_s: i64) -> Vec<(i64, Value)> {
    let mut events = Vec::new();
    for (n, account) in [ANN, BOB].into_iter().enumerate() {
        for day in 1..=HISTORY_DAYS {
            for k in 0..4 {
                let (at_s, relay) = (until_s - day * 86_400 + k * 7_000, ["log-1", "log-2"][(k % 2) as usize]);
                let friend = format!("friend{}@elsewhere.example", (day * 3 + k) % 8);
                events.push(send(account, at_s, relay, &format!("10.{n}.0.7"), &friend, &format!("h{n}-{day}-{k}")));
            }
        }
    }
    events
}

/// Sixty strangers through a relay, so many a second, a third of them refused.
fn burst(account: &str, relay: &str, at_s: i64, a_second: i64) -> Vec<(i64, Value)> {
    let mut events = Vec::new();
    for k in 0..60 {
        let (rcpt, id) = (format!("stranger{k}@d{}.example", k % 7), format!("b{k}"));
        events.push(send(account, at_s + k / a_second, relay, "203.0.113.5", &rcpt, &id));
        if k % 3 == 0 {
            let refused = json!({ "v": 1, "kind": "outcome", "ts": at_s + k / a_second, "account": account, "relay": relay,
                "queue_id": id, "rcpt": rcpt, "status": "bounced", "dsn": "5.1.1" });
            events.push((at_s + k / a_second, refused));
        }
    }
    events
}

/// What is answered to a line, or several; empty where nobody answers.
fn answer(port: u16, question: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut line = String::new();
    let asked = stream.write_all(question.as_bytes()).and_then(|()| BufReader::new(stream).read_line(&mut line));
    asked.map(|_| line.trim_end().to_owned()).unwrap_or_default()
}

fn command(instance: &Instance, arguments: &[&str]) -> String {
    let mut printed = String::new();
    wait_until(&arguments.join(" "), LIMIT, || {
        let mut command = mailfuse();
        command.args(&arguments[..2]).arg("--config").arg(&instance.config).args(["--at", &instance.http()]);
        let ran = command.args(&arguments[2..]).output().unwrap();
        printed = String::from_utf8_lossy(&ran.stdout).into_owned();
        ran.status.success()
    });
    printed
}

#[test]
fn a_hijack_reaches_every_hand_and_stays_there_over_crashes() {
    let Some(broker) = Broker::own() else { return };
    let mut d = Deployment::new(&broker, "hands", 2);
    let (policy, agent) = (free_port(), free_port());
    let (told, script) = (d.folder.path().join("told.jsonl"), d.folder.path().join("hook"));
    fs::write(&script, format!("#!/bin/sh\ncat >> {}\necho heard\n", told.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    d.extra = format!(
        "[relays]\nmode = \"auto\"\n[relays.pull]\nrecipients = 50\nmin_s = 600\n[relays.stop]\ngrace_s = 3\n\
         [relays.policy]\nlisten = \"127.0.0.1:{policy}\"\n[relays.agent]\nlisten = \"127.0.0.1:{agent}\"\n\
         [[relays.hook]]\nname = \"desk\"\ncommand = [{script:?}]\n\
         [[relays.pool]]\nname = \"p\"\nmember = [{{ relay = \"out-1\", log_host = \"log-1\" }}, \
         {{ relay = \"out-2\", log_host = \"log-2\" }}, {{ relay = \"out-3\" }}, {{ relay = \"out-4\" }}]\n"
    );
    let mut instance = d.start("one");
    let may_send = |account: &str| {
        let request =
            "request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=r@y.example\nclient_address=192.0.2.9\n";
        answer(policy, &format!("{request}sasl_username={account}\n\n"))
    };
    let state = |relay: &str| answer(agent, &format!("{relay}\n"));
    let began_s = now_s();
    d.publish_events("history.jsonl", history(began_s - 3600));
    wait_until("hands answer", LIMIT, || state("out-1") == "ready" && may_send(ANN) == "action=DUNNO");

    // The last of the spam is sent now.
    d.publish_events("burst.jsonl", burst(ANN, "log-1", now_s() - 20, 3));
    let began = Instant::now();
    wait_until("the account is stopped", LIMIT, || may_send(ANN).starts_with("action=DEFER"));
    let stopped = began.elapsed();
    wait_until("the relay is drained", LIMIT, || state("out-1") == "drain");
    let drained = began.elapsed();
    eprintln!(
        "from the last event published: {:.1} s to the deferral, {:.1} s to the drain",
        stopped.as_secs_f64(),
        drained.as_secs_f64()
    );
    assert_eq!((may_send(BOB).as_str(), state("out-2").as_str()), ("action=DUNNO", "ready"), "nobody else");

    // The program is told of each, and what it says stands in the incident. What a crash cut off it is told again, under the
    // same key.
    let calls = || -> Vec<Value> {
        let text = fs::read_to_string(&told).unwrap_or_default();
        let mut all = BTreeMap::new();
        for line in text.lines() {
            let call: Value = serde_json::from_str(line).unwrap();
            all.entry(call["idempotency_key"].as_str().unwrap().to_owned()).or_insert(call);
        }
        all.into_values().collect()
    };
    wait_until("the program is told", LIMIT, || calls().len() == 2);
    let mut verbs: Vec<_> = calls().iter().map(|c| c["verb"].as_str().unwrap().to_owned()).collect();
    verbs.sort();
    assert_eq!(verbs, ["pull", "stop"]);
    let stop = calls().into_iter().find(|c| c["verb"] == "stop").unwrap();
    assert_eq!(stop["account"], ANN);
    let incident = format!("/v1/incidents/{}", stop["incident"].as_str().unwrap());
    wait_until("its words are in the incident", LIMIT, || {
        let (status, shown) = instance.json(&incident);
        status == 200 && shown["incident"]["notes"].to_string().contains("heard")
    });

    // Whoever comes after answers the same, without being told anything anew.
    for _ in 0..2 {
        instance.kill();
        assert_eq!((may_send(ANN), state("out-1")), (String::new(), String::new()), "nobody is there");
        instance = d.start("one");
        wait_until("the hands answer again", LIMIT, || !state("out-1").is_empty() && !may_send(ANN).is_empty());
        assert_eq!((may_send(ANN).starts_with("action=DEFER"), state("out-1").as_str()), (true, "drain"));
    }

    // The broker dies as well: whoever knows goes on answering; whoever comes without it says so and ends, as a supervisor sees,
    // and nobody is answered until both are back.
    broker.kill();
    for _ in 0..20 {
        assert_eq!((may_send(ANN).starts_with("action=DEFER"), state("out-1").as_str()), (true, "drain"));
        std::thread::sleep(Duration::from_millis(100));
    }
    instance.kill();
    instance = d.start("one");
    assert!(!instance.ended("it ends without a broker").success());
    assert!(instance.log().contains("No broker answers"));
    assert_eq!((may_send(ANN), state("out-1")), (String::new(), String::new()), "nobody knows");
    broker.start();
    instance = d.start("one");
    wait_until("the hands answer again", LIMIT, || !state("out-1").is_empty() && !may_send(ANN).is_empty());
    assert_eq!((may_send(ANN).starts_with("action=DEFER"), state("out-1").as_str()), (true, "drain"));
    wait_until("it is the active desk", LIMIT, || instance.json("/v1/desk").1["role"] == "active");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((state("out-1").as_str(), calls().len()), ("drain", 2), "nothing is done twice");

    command(&instance, &["relays", "restore", "--all", "--note", "we look first"]);
    wait_until("all are back", LIMIT, || state("out-1") == "ready");
    wait_until("what the program said of a pull and its end is shown", LIMIT, || {
        let pull = instance.items("/v1/measures?kind=pull&relay=out-1").remove(0);
        let calls = pull["hooks"].as_array().cloned().unwrap_or_default();
        let is = |c: &Value| c["stage"] == "done" && c["said"].to_string().contains("heard");
        calls.len() == 2 && calls.iter().all(is)
    });
    let hold = instance.json("/v1/relays/hold").1;
    assert!(hold["held_until"].is_string() && hold["by"] == "local" && hold["note"] == "we look first", "{hold}");
    assert!(may_send(ANN).starts_with("action=DEFER"), "the account stays stopped");
    command(&instance, &["accounts", "release", ANN, "--password-changed"]);
    wait_until("it may send again", LIMIT, || may_send(ANN) == "action=DUNNO");
    wait_until("the program is told of both", LIMIT, || calls().len() == 4);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(state("out-1"), "ready", "held off");
    assert!(instance.terminate().success());
}

#[test]
fn a_stop_that_another_instance_serves_lets_the_relay_go() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "served", 2);
    // Nothing but the word of the policy service ends the wait: the grace is longer than the test.
    let both = "[relays]\nmode = \"auto\"\n[relays.pull]\nrecipients = 50\nmin_s = 600\n[relays.stop]\ngrace_s = 3600\n\
        [[relays.pool]]\nname = \"p\"\nmember = [{ relay = \"out-1\", log_host = \"log-1\" }, \
        { relay = \"out-2\", log_host = \"log-2\" }, { relay = \"out-3\" }, { relay = \"out-4\" }]\n";
    d.extra = both.to_owned();
    let desk = d.start("one");
    let role = |instance: &Instance| instance.json("/v1/desk").1["role"].clone();
    wait_until("the first is the active desk", LIMIT, || role(&desk) == "active");
    let policy = free_port();
    d.extra = format!("{both}[relays.policy]\nlisten = \"127.0.0.1:{policy}\"\n");
    let other = d.start("two");
    let may_send = |account: &str| {
        let request = "request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=r@y.example\n";
        answer(policy, &format!("{request}sasl_username={account}\n\n"))
    };
    d.publish_events("history.jsonl", history(now_s() - 3600));
    d.publish_events("burst.jsonl", burst(ANN, "log-1", now_s() - 20, 3));
    let measures = |kind: &str| {
        let (status, page) = desk.json(&format!("/v1/measures?kind={kind}"));
        if status == 200 { page["items"].as_array().unwrap().clone() } else { Vec::new() }
    };
    wait_until("the stop is in force", LIMIT, || measures("stop").iter().any(|m| m["state"] == "in_force"));
    let exposed = |instance: &Instance| instance.log().contains("what relays bear is known");
    wait_until("the desk knows what relays bear", LIMIT, || exposed(&desk));
    std::thread::sleep(Duration::from_secs(3));
    let stop = measures("stop").remove(0);
    assert!(stop["done_ms"].is_null() && measures("pull").is_empty(), "nobody has served it yet: {stop}");

    wait_until("the other instance serves it", LIMIT, || may_send(ANN).starts_with("action=DEFER"));
    wait_until("the desk has heard that it works", LIMIT, || !measures("stop")[0]["done_ms"].is_null());
    wait_until("the relay is pulled", LIMIT, || measures("pull").iter().any(|m| m["state"] == "in_force"));
    assert_eq!((role(&desk), role(&other)), (json!("active"), json!("standby")));

    // Who still tries is counted where Postfix asks.
    assert!(may_send(ANN).starts_with("action=DEFER"));
    let trying = other.json("/v1/trying").1;
    assert_eq!(
        (&trying["items"][0]["account"], &trying["items"][0]["measure"]),
        (&json!(ANN), &stop["id"]),
        "{trying}"
    );
    assert_eq!(desk.json("/v1/trying").1, json!({ "accounts": 0, "items": [] }));
    let listed = command(&other, &["accounts", "list"]);
    assert!(listed.contains("still tries") && listed.contains(" times, last 20"), "{listed}");
    assert!(!command(&desk, &["accounts", "list"]).contains("still tries"));
    command(&desk, &["accounts", "release", ANN]);
    wait_until("it tries no more, it sends", LIMIT, || other.json("/v1/trying").1["accounts"] == 0);
}

/// Whichever of two is the active desk, once one is.
#[track_caller]
fn active<'i>(one: &'i Instance, two: &'i Instance) -> &'i Instance {
    let mut found = None;
    wait_until("there is a desk", LIMIT, || {
        found = [one, two].into_iter().find(|i| i.json("/v1/desk").1["role"] == "active");
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn a_throttled_account_writes_to_whom_it_knows_and_to_few_others() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "throttled", 2);
    let first = d.start("one");
    let policy = free_port();
    d.extra = format!("[relays.policy]\nlisten = \"127.0.0.1:{policy}\"\nthrottle_recipients = 2\n");
    let mut other = d.start("two");
    let is_let = |account: &str, recipient: &str| {
        let request = format!("request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient={recipient}\n");
        answer(policy, &format!("{request}sasl_username={account}\n\n")) == "action=DUNNO"
    };
    d.publish_events("history.jsonl", history(now_s() - 3600));
    d.await_done(LIMIT);
    wait_until("the hands answer", LIMIT, || is_let(ANN, "nobody@y.example"));
    // Each account is in a partition of its own, so that either instance has to speak for one.
    for account in [ANN, BOB] {
        command(active(&first, &other), &["accounts", "stop", account, "--throttle", "--note", "somebody looks"]);
    }
    let heard = |instance: &Instance| instance.log().matches("has written to before is known").count();
    let checked = |instance: &Instance| {
        wait_until("whom both know has been told", LIMIT, || heard(instance) == 2);
        wait_until("the hands answer", LIMIT, || is_let(ANN, "friend0@elsewhere.example"));
        for account in [ANN, BOB] {
            for n in 0..8 {
                assert!(is_let(account, &format!("Friend{n}@Elsewhere.example")), "{account} to friend{n}");
            }
            let strangers: Vec<bool> = (0..6).map(|n| is_let(account, &format!("new{n}@y.example"))).collect();
            assert_eq!(strangers, [true, true, false, false, false, false], "{account}");
            assert!(is_let(account, "new1@y.example") && is_let(account, "friend3@elsewhere.example"));
        }
    };
    checked(&other);
    // It is so after a crash, whoever has the partitions then.
    other.kill();
    other = d.start("two");
    checked(&other);

    // With the throttle its record goes.
    let records = || {
        let all = broker.read(&d.topic("desk"));
        let known = all.iter().filter(|r| r.key_text().starts_with("known/"));
        (known.clone().filter(|r| r.value.is_some()).count(), known.filter(|r| r.value.is_none()).count())
    };
    assert_eq!(records(), (2, 0), "each is told once");
    for account in [ANN, BOB] {
        command(active(&first, &other), &["accounts", "release", account]);
    }
    wait_until("they are gone", LIMIT, || records() == (2, 2));
    wait_until("the hands have heard it", LIMIT, || is_let(ANN, "new7@y.example"));
}

#[test]
fn an_hour_of_lag_and_an_offset_reset_stop_nobody_and_pull_nothing() {
    const ACT_WITHIN_S: i64 = 90;
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "late", 2);
    let (policy, agent) = (free_port(), free_port());
    d.extra = format!(
        "[relays]\nmode = \"auto\"\nact_within_s = {ACT_WITHIN_S}\n[relays.pull]\nrecipients = 50\nmin_s = 600\n\
         [relays.stop]\ngrace_s = 3\n[relays.policy]\nlisten = \"127.0.0.1:{policy}\"\n\
         [relays.agent]\nlisten = \"127.0.0.1:{agent}\"\n\
         [[relays.pool]]\nname = \"p\"\nmember = [{{ relay = \"out-1\", log_host = \"log-1\" }}, \
         {{ relay = \"out-2\", log_host = \"log-2\" }}, {{ relay = \"out-3\" }}, {{ relay = \"out-4\" }}]\n"
    );
    let may_send = |account: &str| {
        let request = "request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=r@y.example\n";
        answer(policy, &format!("{request}sasl_username={account}\n\n"))
    };
    let state = |relay: &str| answer(agent, &format!("{relay}\n"));
    let of = |instance: &Instance, question: &str| {
        let (status, page) = instance.json(&format!("/v1/measures?{question}"));
        if status == 200 { page["items"].as_array().unwrap().clone() } else { Vec::new() }
    };
    let nothing_is_done = |instance: &Instance, when: &str| {
        wait_until("hands answer", LIMIT, || !state("out-1").is_empty() && !may_send(ANN).is_empty());
        wait_until("it is the active desk", LIMIT, || instance.json("/v1/desk").1["role"] == "active");
        instance.await_log("what relays bear is known");
        for _ in 0..40 {
            assert_eq!((may_send(ANN).as_str(), may_send(BOB).as_str()), ("action=DUNNO", "action=DUNNO"), "{when}");
            assert_eq!((state("out-1").as_str(), state("out-2").as_str()), ("ready", "ready"), "{when}");
            std::thread::sleep(Duration::from_millis(100));
        }
        for kind in ["stop", "pull"] {
            let all = of(instance, &format!("kind={kind}"));
            assert!(all.iter().all(|m| m["state"] != "in_force"), "{when}: {all:?}");
        }
    };

    // All that was sent up to an hour ago waits when the instance starts.
    d.publish_events("history.jsonl", history(now_s() - 7200));
    d.publish_events("burst.jsonl", burst(ANN, "log-1", now_s() - 3700, 3));
    let instance = d.start("one");
    d.await_done(LIMIT);
    wait_until("it is said what would have been", LIMIT, || {
        of(&instance, &format!("kind=stop&account={ANN}")).len() == 1
    });
    let stop = of(&instance, &format!("kind=stop&account={ANN}")).remove(0);
    assert_eq!(stop["state"], "shadow", "{stop}");
    assert!(stop["why"].as_str().unwrap().contains("too long ago to act on"), "{stop}");
    nothing_is_done(&instance, "after an hour of lag");

    // What happens now is acted on.
    let began_s = now_s();
    d.publish_events("now.jsonl", burst(BOB, "log-2", began_s - 3, 20));
    wait_until("the account is stopped", LIMIT, || may_send(BOB).starts_with("action=DEFER"));
    wait_until("the relay is drained", LIMIT, || state("out-2") == "drain");
    assert_eq!((may_send(ANN).as_str(), state("out-1").as_str()), ("action=DUNNO", "ready"));

    // People end it. Some time later everything is learned anew, from the first event on.
    command(&instance, &["accounts", "release", BOB]);
    command(&instance, &["relays", "restore", "out-2"]);
    wait_until("it is late", WORK, || now_s() > began_s + ACT_WITHIN_S + 2);
    let mut instance = instance;
    assert!(instance.terminate().success());
    let alerts = broker.read(&d.topic("alerts")).len();
    // An offset that was set back by itself is not followed.
    (0..2).for_each(|partition| d.set_offset(partition, 0));
    let mut instance = d.start("one");
    instance.await_log("stands at offset 0");
    nothing_is_done(&instance, "where the offset was set back");
    assert!(instance.terminate().success());
    // What its error says is done: both are deleted.
    broker.delete_topics(&[&d.topic("state")]);
    broker.topic(&d.topic("state"), 2, &[("cleanup.policy", "compact"), ("segment.bytes", "1048576")]);
    wait_until("the group is deleted", LIMIT, || broker.delete_group(&d.name));
    let instance = d.start("one");
    d.await_done(LIMIT);
    let flagged = |account: &str| {
        let all = broker.read(&d.topic("alerts"));
        all[alerts..].iter().any(|r| r.text().contains(account) && r.text().contains("\"account.flagged\""))
    };
    wait_until("both are flagged a second time", LIMIT, || flagged(ANN) && flagged(BOB));
    nothing_is_done(&instance, "after an offset reset");
}
