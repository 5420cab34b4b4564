//! Who shared the relays of a burst, read from the events topic of a real broker: by the API, as CSV, and by the command.

use std::collections::BTreeMap;
use std::fs;

use crate::run_support::{Broker, Deployment, Instance, LIMIT, WORK, mailfuse, now_s, wait_until};
use mailfuse::telemetry::description::OPENAPI;
use serde_json::{Value, json};

const LISTED: &str = "554 5.7.1 Service unavailable; client host listed at zen.spamhaus.org";

fn send(account: &str, at_s: i64, relay: Option<&str>, rcpt: &str, id: &str) -> Value {
    let ip = if rcpt.starts_with("stranger") { "203.0.113.5" } else { "10.0.0.7" };
    json!({ "v": 1, "kind": "send", "ts": at_s, "account": account, "client_ip": ip, "rcpts": [rcpt], "queue_id": id,
        "relay": relay, "id": format!("{account}/{id}") })
}

fn outcome(account: &str, at_s: i64, relay: Option<&str>, rcpt: &str, id: &str, dsn: &str, reply: &str) -> Value {
    json!({ "v": 1, "kind": "outcome", "ts": at_s, "account": account, "queue_id": id, "relay": relay, "rcpt": rcpt,
        "status": "bounced", "dsn": dsn, "reply": reply })
}

/// Weeks of mail to a few friends, then half a minute of strangers, a third refused.
fn hijacked(account: &str, from_s: i64, relay: &str) -> Vec<Value> {
    let mut events = Vec::new();
    for n in 0..75 {
        let friend = format!("friend{}@elsewhere.example", n % 8);
        events.push(send(account, from_s - 7_200 - (75 - n) * 28_800, None, &friend, &format!("H{n}")));
    }
    for k in 0..30 {
        let (rcpt, id) = (format!("stranger{k}@d{}.example", k % 7), format!("B{k}"));
        events.push(send(account, from_s + k, Some(relay), &rcpt, &id));
        if k % 3 == 0 {
            events.push(outcome(account, from_s + k, Some(relay), &rcpt, &id, "5.1.1", "550 user unknown"));
        }
    }
    events
}

fn shape(name: &str, value: &Value) {
    let description: Value = serde_json::from_str(&OPENAPI).unwrap();
    let schema = json!({ "$ref": format!("#/components/schemas/{name}"), "components": description["components"] });
    let schema = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let errors: Vec<String> = schema.iter_errors(value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?} in {value:#}");
}

/// A page once it is no more being read.
#[track_caller]
fn read(instance: &Instance, path: &str) -> Value {
    let mut found = Value::Null;
    wait_until(&format!("{path} is read"), LIMIT, || {
        let (status, value) = instance.json(path);
        assert!([200, 202].contains(&status), "{value}");
        shape(if status == 200 { "Collateral" } else { "Reading" }, &value);
        found = value;
        status == 200
    });
    found
}

#[test]
fn whoever_shared_the_relay_is_named_with_what_was_refused_and_what_to_write() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "collateral", 4);
    let instance = d.start("one");
    let (ann, eve, began_s) = ("ann@shop.example", "eve@other.example", now_s() - 90);
    let mut events = hijacked(ann, began_s, "out-1");
    // Another hijack on the same relay: no bystander.
    events.extend(hijacked(eve, began_s + 2, "out-1"));
    let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for n in 0..40 {
        // Over all partitions; the club's mail is refused for the relay's address, now and then.
        let (account, rcpt) = (format!("user{n}@club.example"), "friend@GMX.example");
        for k in 0..(n % 3 + 1) {
            let id = format!("U{k}");
            events.push(send(&account, began_s + 3 + k, Some("out-1"), rcpt, &id));
            let row = expected.entry(account.clone()).or_default();
            row.0 += 1;
            if n % 4 == 0 {
                // The outcome names no relay: the send did.
                events.push(outcome(&account, began_s + 5 + k, None, rcpt, &id, "5.7.1", LISTED));
                row.1 += 1;
            }
        }
        // Long before, and over another relay.
        events.push(send(&account, began_s - 7_200, Some("out-1"), rcpt, "before"));
        events.push(send(&format!("else{n}@club.example"), began_s + 4, Some("out-2"), rcpt, "else"));
    }
    // A producer that says things twice.
    let twice: Vec<Value> = events.iter().filter(|e| e["kind"] == "send").cloned().collect();
    let path = d.folder.path().join("events.jsonl");
    events.sort_by_key(|e| e["ts"].as_i64());
    events.extend(twice.into_iter().filter(|e| e["account"].as_str().unwrap().ends_with("@club.example")));
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    d.publish(&path);
    d.await_done(WORK);
    let mut incident = String::new();
    wait_until("both are flagged", LIMIT, || {
        let of = |account: &str| instance.json(&format!("/v1/incidents?account={account}")).1["items"][0].clone();
        incident = of(ann)["id"].as_str().unwrap_or_default().to_owned();
        !incident.is_empty() && of(eve).is_object()
    });

    let page = format!("/v1/incidents/{incident}/collateral");
    let first = read(&instance, &page);
    assert_eq!((&first["account"], &first["covered"]["cut"]), (&json!(ann), &json!([])));
    assert_eq!(first["covered"]["partitions"], 4);
    let [relay] = &first["relays"].as_array().unwrap()[..] else { panic!("{first:#}") };
    assert_eq!((&relay["relay"], &relay["messages"], &relay["recipients"]), (&json!("out-1"), &json!(30), &json!(30)));
    let messages: u64 = expected.values().map(|r| r.0).sum();
    let refused: u64 = expected.values().map(|r| r.1).sum();
    assert_eq!(
        relay["others"],
        json!({"accounts": 40, "messages": messages, "recipients": messages, "refused": refused, "deferred": 0})
    );
    assert_eq!(relay["tenants"][0]["tenant"], "club.example");

    // Page by page it is the same.
    let (mut rows, mut after) = (Vec::new(), Some(0));
    while let Some(at) = after {
        let part = read(&instance, &format!("{page}?limit=7&after={at}&relay=out-1"));
        rows.extend(part["items"].as_array().unwrap().clone());
        after = part["next"].as_u64();
    }
    assert_eq!(Some(&rows), first["items"].as_array());
    assert!(read(&instance, &format!("{page}?relay=out-2"))["items"].as_array().unwrap().is_empty());
    let found: BTreeMap<String, (u64, u64)> = rows
        .iter()
        .map(|r| {
            (
                r["account"].as_str().unwrap().to_owned(),
                (r["messages"].as_u64().unwrap(), r["refused"].as_u64().unwrap()),
            )
        })
        .collect();
    assert_eq!(found, expected);
    for row in &rows {
        let text = row["text"].as_str().unwrap();
        assert!(!text.contains(ann) && !text.contains("out-1"), "{text}");
        if row["refused"] == 0 {
            assert_eq!(row["blamed"], json!([]));
            assert!(text.contains("We know of no recipient whose server has refused your mail"), "{text}");
        } else {
            assert_eq!(row["blamed"][0]["receiver"], "gmx.example");
            assert_eq!((&row["blamed"][0]["by"], &row["blamed"][0]["count"]), (&json!("spamhaus"), &row["refused"]));
            assert!(text.contains("zen.spamhaus.org"), "{text}");
        }
    }

    let (status, csv) = instance.get(&format!("{page}.csv"));
    assert_eq!(status, 200);
    let mut table = csv::Reader::from_reader(csv.as_bytes());
    let records: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    let accounts: Vec<&str> = records.iter().map(|r| &r[1]).collect();
    let wanted: Vec<&str> = rows.iter().map(|r| r["account"].as_str().unwrap()).collect();
    assert_eq!(accounts, wanted);
    assert_eq!(records[0][10], *rows[0]["text"].as_str().unwrap());

    let command = |arguments: &[&str]| {
        let mut command = mailfuse();
        command.args(["collateral", "--config"]).arg(d.config("one")).args(["--at", &instance.http(), &incident]);
        let out = command.args(arguments).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.success(), "{said}");
        (String::from_utf8(out.stdout).unwrap(), said)
    };
    // As the README has it.
    let readme =
        include_str!("../../README.md").lines().find_map(|l| l.strip_prefix("    mailfuse collateral ")).unwrap();
    assert_eq!(readme, "--config mailfuse.toml INCIDENT --csv");
    assert_eq!(command(&["--csv"]).0, csv);
    let (table, said) = command(&[]);
    assert!(table.contains("user0@club.example") && table.contains("gmx.example 1"), "{table}");
    assert!(said.contains(&format!("40 other accounts sent {messages} messages")), "{said}");
}
