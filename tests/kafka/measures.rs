//! Stops against a real broker: a hijack is stopped within seconds, that survives the desk, a command releases the account, and
//! what happened long ago stops nobody.

use crate::run_support::{Broker, Deployment, Instance, LIMIT, WORK, mailfuse, now_s, wait_until};
use serde_json::{Value, json};

/// Three months of habits are not needed: three weeks are known well.
const HISTORY_DAYS: i64 = 25;

fn send(account: &str, at_s: i64, ip: &str, rcpt: &str, id: &str) -> (i64, Value) {
    let event = json!({ "v": 1, "kind": "send", "ts": at_s, "account": account, "relay": "out-1", "client_ip": ip,
        "rcpts": [rcpt], "queue_id": id });
    (at_s, event)
}

/// A few messages a day to a few friends up to `until_s`, then half a minute of strangers from elsewhere, a third refused.
fn hijacked(account: &str, until_s: i64) -> Vec<(i64, Value)> {
    let mut events = Vec::new();
    for day in 1..=HISTORY_DAYS {
        for k in 0..3 {
            let friend = format!("friend{}@elsewhere.example", (day * 3 + k) % 8);
            events.push(send(account, until_s - day * 86_400 + k * 7_000, "10.0.0.7", &friend, &format!("h{day}-{k}")));
        }
    }
    for k in 0..30 {
        let (rcpt, id) = (format!("stranger{k}@d{}.example", k % 7), format!("b{k}"));
        events.push(send(account, until_s + k, "203.0.113.5", &rcpt, &id));
        if k % 3 == 0 {
            let refused = json!({ "v": 1, "kind": "outcome", "ts": until_s + k, "account": account, "relay": "out-1",
                "queue_id": id, "rcpt": rcpt, "status": "bounced", "dsn": "5.1.1" });
            events.push((until_s + k, refused));
        }
    }
    events
}

/// A command as a person types it. Returns what it prints.
#[track_caller]
fn command(d: &Deployment<'_>, instance: &Instance, arguments: &[&str]) -> String {
    let mut printed = String::new();
    wait_until(&arguments.join(" "), LIMIT, || {
        let mut command = mailfuse();
        command.args(&arguments[..2]).arg("--config").arg(d.config("one")).args(["--at", &instance.http()]);
        let ran = command.args(&arguments[2..]).output().unwrap();
        printed = String::from_utf8_lossy(&ran.stdout).into_owned();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        // Another desk may be taking over.
        assert!(ran.status.success() || said.contains("not the active desk") || said.contains("busy"), "{said}");
        ran.status.success()
    });
    printed
}

#[test]
fn a_hijack_is_stopped_survives_the_desk_and_is_released_by_a_command() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "measures", 2);
    d.extra = "[relays]\nmode = \"auto\"\n[[relays.pool]]\nname = \"p\"\n\
        member = [{ relay = \"out-1\" }, { relay = \"out-2\" }, { relay = \"out-3\" }, { relay = \"out-4\" }]\n"
        .to_owned();
    let mut instance = d.start("one");
    let (guilty, old) = ("ann@shop.example", "bob@else.example");
    let began_s = now_s();
    // Last week's hijack comes with today's.
    let mut events = hijacked(old, began_s - 7 * 86_400);
    events.extend(hijacked(guilty, began_s - 40));
    d.publish_events("events.jsonl", events);
    d.await_done(WORK);
    let of = |account: &str| format!("/v1/measures?kind=stop&account={account}");
    wait_until("both are decided about", LIMIT, || {
        [guilty, old].iter().all(|account| instance.items(&of(account)).len() == 1)
    });
    let stop = instance.items(&of(guilty)).remove(0);
    assert_eq!((&stop["state"], &stop["by"]), (&json!("in_force"), &json!("mailfuse")), "{stop}");
    assert!(stop["made_ms"].as_i64().unwrap() - began_s * 1000 < 60_000, "{stop}");
    assert_eq!(instance.items(&of(old))[0]["state"], "shadow", "nobody is stopped for last week");
    wait_until("it is told", LIMIT, || instance.items("/v1/alerts?kind=account.stopped").len() == 1);
    let told = instance.items("/v1/alerts?kind=account.stopped").remove(0);
    assert_eq!((&told["account"], &told["accounts"][0]["incident"]), (&json!(guilty), &stop["incident"]), "{told}");

    // Whoever is the desk next knows it, and stops nobody a second time.
    instance.kill();
    instance = d.start("one");
    wait_until("it is the active desk, and has read what there is", LIMIT, || {
        let desk = instance.json("/v1/desk").1;
        desk["role"] == "active" && desk["index"]["state"] == "ready"
    });
    let listed = command(&d, &instance, &["accounts", "list"]);
    assert!(listed.contains(guilty) && listed.contains("in force"), "{listed}");
    let relay = ["relays", "pull", "out-2", "--note", "maintenance"];
    assert!(command(&d, &instance, &relay).contains("in force"));
    command(&d, &instance, &["accounts", "release", guilty, "--password-changed", "--note", "by telephone"]);
    wait_until("it is released", LIMIT, || instance.items(&of(guilty))[0]["state"] == "ended");
    let ended = instance.items(&of(guilty)).remove(0);
    assert_eq!((&ended["id"], &ended["ended"]["by"]), (&stop["id"], &json!("local")), "{ended}");
    assert!(ended["ended"]["probation_until_ms"].as_i64().unwrap() > now_s() * 1000);
    let incident = instance.json(&format!("/v1/incidents/{}", stop["incident"].as_str().unwrap())).1;
    assert_eq!(incident["incident"]["resolved"]["as"], "hijack", "what the burst taught is taken out: {incident}");
    wait_until("that is told, too", LIMIT, || instance.items("/v1/alerts?kind=account.released").len() == 1);

    // All relays at once; twice as nobody minds.
    assert!(command(&d, &instance, &["relays", "restore", "--all", "--note", "all is well"]).starts_with("1 put back"));
    assert!(command(&d, &instance, &["relays", "restore", "--all"]).starts_with("0 put back"));
    command(&d, &instance, &["relays", "resume"]);
    wait_until("the audit has it", LIMIT, || {
        let lines = instance.items("/v1/audit");
        let has = |what: &str, who: &str| lines.iter().any(|l| l["what"] == what && l["who"] == who);
        has("stop.in_force", "mailfuse")
            && has("stop.ended", "local")
            && has("pull.in_force", "local")
            && has("pull.ended", "local")
            && has("relays.restored", "local")
            && has("relays.hold_lifted", "local")
    });
    let (status, problem) = instance.send("POST", "/v1/measures/none/confirm", &json!({}));
    assert_eq!(status, 404, "{problem}");
}

/// The words of a command line; what stands in quotes is one.
fn words(line: &str) -> Vec<&str> {
    fn part((i, part): (usize, &str)) -> Vec<&str> {
        if i % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
    }
    line.split('\'').enumerate().flat_map(part).collect()
}

#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "measured", 1);
    d.extra = "[[relays.pool]]\nname = \"p\"\n\
        member = [{ relay = \"out-1\" }, { relay = \"out-2\" }, { relay = \"out-3\" }, { relay = \"out-4\" }]\n"
        .to_owned();
    let desk = d.start_desk("one");
    wait_until("it is the active desk", LIMIT, || desk.json("/v1/desk").1["role"] == "active");
    let (mut ran, mut said) = (0, String::new());
    let readme = include_str!("../../README.md").lines().filter_map(|l| l.strip_prefix("    mailfuse "));
    for line in readme.filter(|l| l.starts_with("accounts ") || l.starts_with("relays ")) {
        let words: Vec<&str> = words(line);
        let at = words.iter().position(|w| *w == "--config").unwrap();
        let arguments: Vec<&str> = words[..at].iter().chain(&words[at + 2..]).copied().collect();
        said.push_str(&format!("$ mailfuse {line}\n{}", command(&d, &desk, &arguments)));
        // What was done shows a moment later: the index follows.
        d.await_index(&desk);
        assert_eq!(desk.json("/v1/desk").1["role"], "active");
        ran += 1;
    }
    assert_eq!(ran, 9, "commands in the README");
    for wanted in [
        "info@club.example  ",
        "spam by telephone",
        "info@club.example may send again",
        "maintenance",
        "out-1 is put back",
        "0 put back; nothing is pulled before",
        "relays are pulled again where they are exposed",
        "relay  address  list  codes  heard  over",
    ] {
        assert!(said.contains(wanted), "{wanted} is not in\n{said}");
    }
}
