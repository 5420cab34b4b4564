//! The directory against a real broker: an account that is renamed there, or by word, goes on under its new name in another
//! partition, over restarts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::run_support::{Alerts, Broker, Deployment, Instance, LIMIT, field, mailfuse, now_s, wait_until};
use mailfuse::event::Timestamp;
use mailfuse::kafka::partitioner::partition_of;
use serde_json::{Value, json};

const DAY_S: i64 = 86_400;
const WORK: Duration = Duration::from_secs(120);

fn send(at_s: i64, account: &str, rcpt: &str) -> (i64, String) {
    let event =
        json!({"v": 1, "kind": "send", "ts": at_s, "account": account, "client_ip": "192.0.2.1", "rcpts": [rcpt]});
    (at_s, event.to_string())
}

/// A newsletter to the same two hundred, a day's mail within twenty seconds.
fn newsletter(account: &str, from_s: i64) -> Vec<(i64, String)> {
    (0..200).map(|i| send(from_s + i / 10, account, &format!("reader{i}@b{}.example", i % 9))).collect()
}

fn written(folder: &Path, name: &str, mut events: Vec<(i64, String)>) -> PathBuf {
    events.sort();
    let path = folder.join(name);
    let lines: Vec<String> = events.into_iter().map(|(_, line)| line + "\n").collect();
    fs::write(&path, lines.concat()).unwrap();
    path
}

/// Names of which the second lies in another partition.
fn pair(n: usize, partitions: i32) -> (String, String) {
    let old = format!("news{n}@old.example");
    let mut names = (0..).map(|i| format!("news{n}@new{i}.example"));
    let new = names.find(|new| partition_of(new.as_bytes(), partitions) != partition_of(old.as_bytes(), partitions));
    (old, new.unwrap())
}

fn audit(instance: &Instance, account: &str) -> Vec<String> {
    let (_, page) = instance.json(&format!("/v1/audit?account={account}"));
    let items = page["items"].as_array().cloned().unwrap_or_default();
    items.iter().rev().map(|e| e["what"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn renamed_accounts_go_on_in_another_partition() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "renames", 2);
    let folder = d.folder.path().to_owned();
    let directory = folder.join("accounts.jsonl");
    let put = |entries: &[Value]| {
        let beside = folder.join("beside");
        fs::write(&beside, entries.iter().map(|e| e.to_string() + "\n").collect::<String>()).unwrap();
        fs::rename(&beside, &directory).unwrap();
    };
    let names: Vec<(String, String)> = (0..3).map(|n| pair(n, 2)).collect();
    put(&[json!({"v": 1, "account": names[0].0})]);
    d.extra = format!("[directory]\nfile = {directory:?}\n");

    // Three weeks of three newsletters, until yesterday.
    let today_s = now_s() / DAY_S * DAY_S;
    let past = (1..22)
        .rev()
        .flat_map(|day| names.iter().flat_map(move |(old, _)| newsletter(old, today_s - day * DAY_S + 8 * 3600)));
    // A word from elsewhere, long before: that history begins there, and no newsletter is met in its first week.
    let mut past: Vec<_> = past.collect();
    past.push(send(today_s - 60 * DAY_S, "first@other.example", "friend@b.example"));
    d.publish(&written(&folder, "past.jsonl", past.clone()));
    let mut instance = d.start("one");
    instance.await_ready();
    d.await_done(WORK);
    wait_until("it is the active desk", LIMIT, || instance.json("/v1/desk").1["role"] == "active");

    // The first is renamed by the directory, the second by a command, the third is not told of.
    let asked_s = now_s();
    put(&[
        json!({"v": 1, "account": names[0].1, "was": [{"account": names[0].0, "until": Timestamp(asked_s * 1000)}]}),
    ]);
    let config = instance.config.display().to_string();
    let rename = |instance: &Instance, old: &str, new: &str| {
        let at = instance.http();
        let arguments = ["desk", "rename", "--config", &config, "--at", &at, old, new, "--note", "new domain"];
        let mut answered = (None, String::new());
        wait_until("the active desk is asked", LIMIT, || {
            let done = mailfuse().args(arguments).output().unwrap();
            let said = String::from_utf8(done.stdout).unwrap() + &String::from_utf8_lossy(&done.stderr);
            answered = (done.status.code(), said);
            // It takes over only now.
            !answered.1.contains("not the active desk")
        });
        answered
    };
    let (status, said) = rename(&instance, &names[1].0.to_uppercase(), &names[1].1);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains(&format!("{} will go on with what {} had learned", names[1].1, names[1].0)), "{said}");
    // What is answered is stored: the next desk looks for it.
    instance.kill();
    instance = d.start("one");
    instance.await_ready();
    let wanted = ["account.renamed", "account.inherited"];
    wait_until("both are handed over", WORK, || names[..2].iter().all(|(_, new)| audit(&instance, new) == wanted));
    let handed_over_s = now_s();
    let (_, found) = instance.json(&format!("/v1/directory/{}", names[0].0));
    assert_eq!((&found["by"], &found["account"]), (&json!("former"), &json!(names[0].1)));
    assert_eq!(rename(&instance, "nobody@old.example", &names[1].1).0, Some(1), "it has inherited already");
    rename(&instance, "nobody@old.example", "nobody@new.example");
    wait_until("of who never sent there is nothing", WORK, || {
        audit(&instance, "nobody@new.example") == ["account.renamed", "account.inherited_nothing"]
    });
    instance.kill();
    instance = d.start("one");
    instance.await_ready();

    // From when it counts, all three go on under their new names.
    let (_, again) = rename(&instance, &names[1].0, &names[1].1);
    assert!(again.contains("goes on with what"), "{again}");
    let said = Timestamp::parse(again.split_whitespace().rev().nth(1).unwrap()).unwrap();
    // The directory's rename was handed over by itself, and may count a little later.
    let from = |record: &crate::run_support::Record| {
        let decision: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        Timestamp::parse(decision["decisions"][0]["from"].as_str().unwrap()).unwrap()
    };
    let all_from: Vec<Timestamp> = broker.read(&d.topic("control")).iter().map(from).collect();
    assert!(all_from.contains(&said), "{all_from:?}: {again}");
    let counts_from = *all_from.iter().max().unwrap();
    wait_until("it counts", LIMIT, || now_s() > counts_from.0 / 1000 + 1);
    let counts_s = now_s();
    eprintln!(
        "from the rename {} s until it was handed over (with a crash), {} s until it counts",
        handed_over_s - asked_s,
        counts_s - asked_s
    );
    let after: Vec<_> = names
        .iter()
        .flat_map(|(_, new)| newsletter(new, counts_s - 20))
        .filter(|e| e.0 > counts_from.0 / 1000)
        .collect();
    assert!(after.len() >= 3, "{}", after.len());
    let mut later: Vec<_> = names.iter().flat_map(|(_, new)| newsletter(new, counts_s + 2)).collect();
    later.extend(after);
    wait_until("their mail is sent", WORK, || now_s() > counts_s + 23);
    let later = written(&folder, "later.jsonl", later);
    d.publish(&later);
    std::thread::sleep(Duration::from_millis(300));
    instance.kill();
    instance = d.start("one");
    instance.await_ready();
    d.await_done(WORK);

    let flagged = |n: usize| {
        let (_, page) = instance.json(&format!("/v1/incidents?account={}", names[n].1));
        // By a name that the directory knows, those of all its names are there.
        page["items"].as_array().map_or(0, |all| all.iter().filter(|i| i["account"] == *names[n].1).count())
    };
    wait_until("the third is a stranger, and flagged", LIMIT, || flagged(2) == 1);
    assert_eq!((flagged(0), flagged(1)), (0, 0), "the others are known");
    for (old, new) in &names[..2] {
        let (_, account) = instance.json(&format!("/v1/accounts/{new}"));
        let before = instance.json(&format!("/v1/accounts/{old}")).1;
        assert!(before["baseline"]["contacts_known"].as_u64() > Some(190));
        assert_eq!(account["baseline"]["contacts_known"], before["baseline"]["contacts_known"]);
        assert_eq!(account["decisions"][0]["what"], "inherit");
        assert_eq!(account["decisions"][0].get("learned"), None, "that is for detectors");
    }
    // The same events and decisions replayed give the same alerts.
    let control: Vec<String> = broker
        .read(&d.topic("control"))
        .into_iter()
        .filter_map(|r| Some(String::from_utf8(r.value?).unwrap()))
        .collect();
    assert_eq!(control.len(), 2, "each once");
    let decisions = folder.join("control.jsonl");
    fs::write(&decisions, control.join("\n") + "\n").unwrap();
    let past = folder.join("past.jsonl");
    let ran = mailfuse().args(["replay", "--quiet", "--control"]).args([&decisions, &past, &later]).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let replayed = Alerts::of(ran.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec));
    // Without what the desk has said itself.
    let said = broker.read(&d.topic("alerts")).into_iter().map(|r| r.value.unwrap());
    let ours = Alerts::of(said.filter(|a| field(a, "kind").starts_with("account.")));
    ours.check(&replayed, "with what was inherited");
    assert!(instance.terminate().success());
}

#[test]
fn a_customers_policy_is_decided_and_taken_back_with_the_directory() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "policies", 1);
    let directory = d.folder.path().join("accounts.jsonl");
    let put = |policy: &str| {
        let beside = directory.with_extension("beside");
        fs::write(&beside, format!("{{\"v\":1,\"tenant\":\"shop.example\"{policy}}}\n")).unwrap();
        fs::rename(&beside, &directory).unwrap();
    };
    put(",\"policy\":{\"tolerate\":1.5}");
    d.extra = format!("[directory]\nfile = {directory:?}\n");
    let mut instance = d.start("one");
    let decided = |instance: &Instance| {
        let (status, page) = instance.json("/v1/decisions?scope=tenant&name=shop.example");
        if status == 200 { page["items"].as_array().unwrap().clone() } else { Vec::new() }
    };
    wait_until("it is decided", LIMIT, || decided(&instance).len() == 1);
    let one = decided(&instance).remove(0);
    assert_eq!((&one["what"], &one["decades"], &one["by"]), (&json!("tolerate"), &json!(1.5), &json!("directory")));
    // Another desk decides it no second time.
    instance.kill();
    instance = d.start("one");
    wait_until("it is the active desk", LIMIT, || instance.json("/v1/desk").1["role"] == "active");
    put("");
    instance.signal("HUP");
    wait_until("it is taken back", LIMIT, || match &decided(&instance)[..] {
        [one] => one["taken_back"]["by"] == "directory",
        _ => false,
    });
    let keys: Vec<_> = broker.read(&d.topic("control")).into_iter().filter_map(|r| r.key).collect();
    assert_eq!(keys.len(), 2, "said once, and once that it is over");
    assert!(instance.terminate().success());
}
