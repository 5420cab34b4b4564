//! The desk against a real broker: incidents are what the alerts amount to, whoever is the active desk and however often it dies;
//! the index is made again from the topics; trouble with the database stops nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::run_support::{Broker, Deployment, Dice, Instance, LIMIT, Record, WORK, is_campaign, seed, wait_until};
use axum::Router;
use axum::body::Bytes;
use mailfuse::core::alert::{Alert, AlertKind};
use mailfuse::event::Timestamp;
use serde_json::Value;

/// Alerts of `incidents` bursts, stages in order within each, the rest shuffled; a third comes again later, as after a crash.
fn alerts(dice: &mut Dice, incidents: u64) -> Vec<Alert> {
    let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
    let template: Alert = serde_json::from_str(line).unwrap();
    let mut waiting: Vec<Vec<Alert>> = (0..incidents)
        .map(|n| {
            let kinds = [AlertKind::Flagged, AlertKind::Escalated, AlertKind::Cleared];
            let until = 1 + dice.below(3) as usize;
            let stage = |(i, kind): (usize, &AlertKind)| {
                let mut alert = template.clone();
                alert.account = format!("user{n}@tenant{}.example", n % 7);
                alert.tenant = format!("tenant{}.example", n % 7);
                // Far from each other: nothing groups them.
                alert.ts = Timestamp(1_700_000_000_000 + n as i64 * 3_600_000);
                alert.burst.as_mut().unwrap().client_ips = vec![format!("10.{}.{}.1", n / 250, n % 250)];
                alert.incident = format!("i-{n}");
                alert.id = format!("a-{n}-{i}");
                alert.kind = *kind;
                alert
            };
            kinds[..until].iter().enumerate().map(stage).collect()
        })
        .collect();
    let mut out: Vec<Alert> = Vec::new();
    while !waiting.is_empty() {
        let i = dice.below(waiting.len() as u64) as usize;
        out.push(waiting[i].remove(0));
        if waiting[i].is_empty() {
            waiting.swap_remove(i);
        }
        if dice.below(3) == 0 {
            out.push(out[dice.below(out.len() as u64) as usize].clone());
        }
    }
    out
}

fn write(d: &Deployment<'_>, alerts: &[Alert]) {
    let records: Vec<Record> =
        alerts.iter().map(|a| Record::new(&a.account, &serde_json::to_string(a).unwrap())).collect();
    d.broker.produce(&d.topic("alerts"), &records);
}

/// Stages by incident.
fn wanted(alerts: &[Alert]) -> BTreeMap<String, BTreeSet<String>> {
    let mut incidents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for a in alerts {
        incidents.entry(a.incident.clone()).or_default().insert(a.id.clone());
    }
    incidents
}

/// Everything on the pages of `path`, by their cursor.
fn pages(instance: &Instance, path: &str, cursor: &str) -> Vec<Value> {
    let (mut items, mut next) = (Vec::new(), String::new());
    loop {
        let (status, page) = instance.json(&format!("{path}?limit=37{next}"));
        assert_eq!(status, 200, "{page}");
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next"].as_i64() {
            Some(n) => next = format!("&{cursor}={n}"),
            None => return items,
        }
    }
}

/// Waits until an instance answers as it should, and looks that it does in each point.
#[track_caller]
fn check(instance: &Instance, alerts: &[Alert]) {
    let wanted = wanted(alerts);
    let ids: BTreeSet<String> = alerts.iter().map(|a| a.id.clone()).collect();
    wait_until("all alerts are in the index", LIMIT, || {
        instance.json("/v1/desk").1["index"]["state"] == "ready"
            && pages(instance, "/v1/alerts", "after").len() == ids.len()
    });
    let listed = pages(instance, "/v1/alerts", "after");
    let found: BTreeSet<String> = listed.iter().map(|a| a["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(found, ids, "each alert once");
    let incidents = pages(instance, "/v1/incidents", "before");
    let found: BTreeMap<String, BTreeSet<String>> = incidents
        .iter()
        .map(|i| {
            let stages = i["alerts"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned());
            (i["id"].as_str().unwrap().to_owned(), stages.collect())
        })
        .collect();
    assert_eq!(found, wanted);
    let mut numbers: Vec<u64> = incidents
        .iter()
        .flat_map(|i| i["alerts"].as_array().unwrap().iter().map(|s| s["n"].as_u64().unwrap()).collect::<Vec<_>>())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..ids.len() as u64).collect::<Vec<_>>(), "numbers without a gap, none twice");
    for incident in &incidents {
        let is_over = wanted[incident["id"].as_str().unwrap()].len() == 3;
        assert_eq!(incident["state"], if is_over { "over" } else { "open" }, "{incident}");
    }
}

fn is_active(instance: &Instance) -> bool {
    instance.json("/v1/desk").1["role"] == "active"
}

#[test]
fn incidents_are_what_the_alerts_amount_to() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "desk", 1);
    let mut dice = Dice(seed());
    let all = alerts(&mut dice, 150);
    write(&d, &all);
    // A record that is none is named, and stops nothing.
    broker.produce(&d.topic("alerts"), &[Record::new("x", "{\"v\":1,\"kind\":")]);
    let one = d.start("one");
    check(&one, &all);
    one.await_log(&format!("{}:0:{}: no alert", d.topic("alerts"), all.len()));
    assert_eq!(one.metric("mailfuse_desk_unreadable_total", ""), 1.0);
    let open = wanted(&all).values().filter(|stages| stages.len() < 3).count();
    wait_until("the metric is the book's", LIMIT, || one.metric("mailfuse_desk_open_incidents", "") == open as f64);
    // Filters, one incident, what is not there, what is not understood.
    let (_, page) = one.json("/v1/incidents?state=open&tenant=tenant3.example&limit=1000");
    let expected =
        wanted(&all).iter().filter(|(id, stages)| stages.len() < 3 && id[2..].parse::<u64>().unwrap() % 7 == 3).count();
    assert_eq!(page["items"].as_array().unwrap().len(), expected);
    let (_, whole) = one.json("/v1/incidents/i-3");
    let ours: Vec<Value> = whole["alerts"].as_array().unwrap().clone();
    let theirs: BTreeMap<String, Value> =
        all.iter().filter(|a| a.incident == "i-3").map(|a| (a.id.clone(), serde_json::to_value(a).unwrap())).collect();
    assert_eq!(ours, theirs.into_values().collect::<Vec<_>>(), "as the detector wrote them");
    assert_eq!(one.get("/v1/incidents/i-none").0, 404);
    for wrong in ["/v1/incidents?stat=open", "/v1/alerts?after=x"] {
        let (status, problem) = one.json(wrong);
        assert_eq!(status, 400, "{problem}");
        assert!(!problem["cure"].as_str().unwrap().is_empty());
    }
}

#[test]
fn a_desk_that_dies_is_followed_by_the_next() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "desks", 1);
    let mut dice = Dice(seed());
    let kills = if is_campaign() { 30 } else { 6 };
    let all = alerts(&mut dice, 40 * kills);
    let mut desks = [d.start_desk("one"), d.start_desk("two")];
    let mut active_killed = 0;
    for (n, part) in all.chunks(all.len() / kills as usize + 1).enumerate() {
        write(&d, part);
        // Whoever is active, where somebody is: else any. The first one that dies is active, however slow it begins.
        let active = || (0..2).find(|&i| desks[i].log().contains("http://") && is_active(&desks[i]));
        if n == 0 {
            wait_until("a desk is active", LIMIT, || active().is_some());
        }
        std::thread::sleep(Duration::from_millis(dice.below(1500)));
        let victim = active();
        active_killed += u32::from(victim.is_some());
        let victim = victim.unwrap_or(n % 2);
        desks[victim].kill();
        desks[victim] = d.start_desk(["one", "two"][victim]);
    }
    for desk in &desks {
        check(desk, &all);
    }
    wait_until("one is active", LIMIT, || desks.iter().filter(|d| is_active(d)).count() == 1);
    eprintln!("desk: {} alerts, {kills} SIGKILLs, {active_killed} of them of the active one", all.len());
    assert!(active_killed > 0);
    for desk in &mut desks {
        assert!(desk.terminate().success());
    }
}

#[test]
fn a_frozen_desk_is_fenced() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "frozen", 1);
    let all = alerts(&mut Dice(seed()), 60);
    let (first, rest) = all.split_at(all.len() / 2);
    let one = d.start_desk("one");
    wait_until("it is active", LIMIT, || is_active(&one));
    let two = d.start_desk("two");
    // (A member that comes back under its name keeps what the group knew of it: asked here, of two that are new.)
    wait_until("who stands by names the active one", LIMIT, || {
        let (status, problem) = two.send("POST", "/v1/incidents/i-0/note", &serde_json::json!({ "note": "x" }));
        assert_eq!(status, 421, "{problem}");
        problem["ask_instance"] == one.http() && problem["cure"] == format!("Ask {}.", one.http())
    });
    write(&d, first);
    check(&one, first);
    one.freeze();
    wait_until("the other has taken over", LIMIT, || is_active(&two));
    write(&d, rest);
    check(&two, &all);
    one.thaw();
    wait_until("the thawed one stands by", LIMIT, || one.json("/v1/desk").1["role"] == "standby");
    check(&one, &all);
}

#[test]
fn the_index_is_made_again() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "index", 1);
    let database = d.folder.path().join("desk.sqlite");
    d.extra = format!("[desk]\ndatabase = {:?}\n", database.to_str().unwrap());
    let all = alerts(&mut Dice(seed()), 60);
    let (first, rest) = all.split_at(all.len() / 2);
    write(&d, first);
    let mut one = d.start_desk("one");
    check(&one, first);
    // A copy, while it is used.
    let copy = d.folder.path().join("copy.sqlite");
    let backup = || {
        let mut command = crate::run_support::mailfuse();
        command.args(["desk", "backup", "--config"]).arg(d.config("one")).arg(&copy);
        command.output().unwrap()
    };
    let done = backup();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let again = backup();
    assert_eq!(again.status.code(), Some(2), "it does not overwrite");
    assert!(one.terminate().success());
    // Kept: the next start goes on where it was.
    let one_again = d.start_desk("one");
    check(&one_again, first);
    drop(one_again);

    std::fs::remove_file(&database).unwrap();
    write(&d, rest);
    let deleted = d.start_desk("one");
    check(&deleted, &all);
    drop(deleted);

    std::fs::write(&database, vec![b'?'; 8192]).unwrap();
    let _ = std::fs::remove_file(database.with_extension("sqlite-wal"));
    let damaged = d.start_desk("one");
    damaged.await_log("the file is damaged: it is set aside".replace("the file", "The file").as_str());
    check(&damaged, &all);
    drop(damaged);

    // The copy is a whole database, too.
    std::fs::copy(&copy, &database).unwrap();
    let restored = d.start_desk("one");
    check(&restored, &all);

    // Damaged while it is used, where nothing is written: a question finds it.
    for name in ["desk.sqlite", "desk.sqlite-wal"] {
        let path = database.with_file_name(name);
        if let Ok(length) = path.metadata().map(|m| m.len()) {
            // In place: it is mapped.
            let mut file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            std::io::Write::write_all(&mut file, &vec![b'?'; length as usize]).unwrap();
        }
    }
    wait_until("a question finds it", LIMIT, || restored.get("/v1/alerts").0 == 503);
    restored.await_log("as a question to it has shown");
    wait_until("it is seen", LIMIT, || restored.json("/v1/desk").1["index"]["state"] != "ready");
    check(&restored, &all);
}

#[test]
fn without_a_database_alerts_are_taken_all_the_same() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "nodb", 1);
    let database = d.folder.path().join("none").join("desk.sqlite");
    d.extra = format!("[desk]\ndatabase = {:?}\n", database.to_str().unwrap());
    let all = alerts(&mut Dice(seed()), 30);
    let one = d.start("one");
    wait_until("it says so", LIMIT, || one.json("/v1/desk").1["index"]["state"] == "failed");
    let (_, about) = one.json("/v1/desk");
    let why = about["index"]["why"].as_str().unwrap();
    assert!(why.contains("none/desk.sqlite") && why.contains("does its folder exist"), "{why}");
    assert_eq!(one.metric("mailfuse_desk_index_ok", ""), 0.0);
    assert_eq!(one.get("/v1/incidents").0, 503);
    write(&d, &all);
    let ids: BTreeSet<&str> = all.iter().map(|a| &*a.id).collect();
    wait_until("alerts are taken", LIMIT, || one.metric("mailfuse_desk_alerts_total", "") == ids.len() as f64);
    one.await_ready();
    std::fs::create_dir(database.parent().unwrap()).unwrap();
    check(&one, &all);
    assert_eq!(one.metric("mailfuse_desk_index_ok", ""), 1.0);
}

#[test]
fn a_missing_topic_is_named_and_the_detector_goes_on() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "notopic", 1);
    broker.delete_topics(&[&d.topic("desk")]);
    let one = d.start("one");
    one.await_ready();
    wait_until("it says so", LIMIT, || one.json("/v1/desk").1["role"] == "waiting");
    let (_, about) = one.json("/v1/desk");
    let why = about["why"].as_str().unwrap();
    assert!(why.contains(&d.topic("desk")) && why.contains("topics create"), "{why}");
    let all = alerts(&mut Dice(seed()), 10);
    write(&d, &all);
    broker.topic(&d.topic("desk"), 1, &[("cleanup.policy", "compact")]);
    check(&one, &all);
}

#[test]
fn a_storm_is_said_once_and_so_is_a_campaign() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "storm", 1);
    let mut dice = Dice(seed());
    let flags = |from: u64, n: u64, minute: i64, spread: u64| -> Vec<Alert> {
        let mut all = alerts(&mut Dice(1), from + n);
        all.retain(|a| a.kind == AlertKind::Flagged && a.incident[2..].parse::<u64>().unwrap() >= from);
        all.sort_by_key(|a| a.incident[2..].parse::<u64>().unwrap());
        all.dedup_by(|a, b| a.id == b.id);
        for (i, alert) in all.iter_mut().enumerate() {
            alert.ts = Timestamp(1_800_000_000_000 + minute * 60_000 + i as i64 * 100);
            alert.tenant.clone_from(&alert.account);
            alert.burst.as_mut().unwrap().client_ips = vec![format!("192.0.{}.7", i as u64 % spread)];
        }
        all
    };
    // Five accounts from one network; an hour later 400 from everywhere within a minute.
    let (campaign, storm) = (flags(0, 5, 0, 1), flags(5, 400, 90, 250));
    let mut desks = [d.start_desk("one"), d.start_desk("two")];
    write(&d, &campaign);
    write(&d, &storm[..200]);
    std::thread::sleep(Duration::from_millis(dice.below(2000)));
    desks[0].kill();
    write(&d, &storm[200..]);
    let two = &desks[1];
    let all = campaign.len() + storm.len();
    let kinds = |kind: &str| -> Vec<Value> {
        let listed = pages(two, "/v1/alerts", "after");
        listed.into_iter().filter(|a| a["kind"] == kind).collect()
    };
    wait_until("all is taken, and what the desk says itself", LIMIT, || {
        pages(two, "/v1/alerts", "after").len() == all + 2
    });
    let schema: Value = serde_json::from_str(include_str!("../../schemas/alert.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    for (kind, accounts, wanted) in [
        ("campaign", 3, "3 accounts of the same network (192.0.0.0/24)"),
        ("stream.anomaly", 0, "30 accounts were flagged within 10 min"),
    ] {
        let said = kinds(kind);
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(schema.iter_errors(&said[0]).map(|e| e.to_string()).collect::<Vec<_>>(), [""; 0]);
        assert_eq!(said[0]["accounts"].as_array().unwrap().len(), accounts);
        assert!(said[0]["evidence"][0]["text"].as_str().unwrap().starts_with(wanted), "{said:?}");
    }
    // Also where a transaction of the desk's own ends the topic.
    wait_until("nothing is left to be taken", LIMIT, || {
        two.get("/metrics").1.lines().any(|l| l == "mailfuse_desk_lag_messages 0")
    });
    let topic: Vec<Value> =
        broker.read(&d.topic("alerts")).iter().map(|r| serde_json::from_str(&r.text()).unwrap()).collect();
    assert_eq!(topic.iter().filter(|a| a["kind"] == "stream.anomaly").count(), 1, "written once, for everybody");
    let (campaign, anomaly) =
        (kinds("campaign")[0]["incident"].clone(), kinds("stream.anomaly")[0]["incident"].clone());
    for incident in pages(two, "/v1/incidents", "before") {
        let n: usize = incident["id"].as_str().unwrap()[2..].parse().unwrap();
        if n < 5 {
            assert_eq!((&incident["campaign"], &incident["anomaly"]), (&campaign, &Value::Null), "{incident}");
        } else {
            assert_eq!((&incident["campaign"], &incident["anomaly"]), (&Value::Null, &anomaly), "{incident}");
        }
    }
}

/// As of when a page is, as its header says.
fn as_of(instance: &Instance, path: &str) -> Option<Timestamp> {
    let answer = ureq::get(format!("http://{}{path}", instance.http())).call().unwrap();
    answer.headers().get("mailfuse-as-of").map(|v| serde_json::from_value(v.to_str().unwrap().into()).unwrap())
}

#[test]
fn while_the_brokers_are_away_it_says_what_was_known() {
    let Some(broker) = Broker::own() else { return };
    let mut d = Deployment::new(&broker, "away", 1);
    let database = d.folder.path().join("desk.sqlite");
    d.extra = format!("[desk]\ndatabase = {:?}\n", database.to_str().unwrap());
    let all = alerts(&mut Dice(seed()), 40);
    let (first, rest) = all.split_at(all.len() / 2);
    let mut one = d.start_desk("one");
    write(&d, first);
    check(&one, first);
    assert_eq!(as_of(&one, "/v1/incidents"), None);
    let whole = pages(&one, "/v1/incidents", "before");
    broker.stop();
    let is_away = |one: &Instance| one.json("/v1/desk").1["index"]["state"] == "away";
    let known = |one: &Instance| {
        wait_until("it says that the brokers are away", WORK, || is_away(one));
        let about = one.json("/v1/desk").1;
        let since: Timestamp = serde_json::from_value(about["index"]["as_of"].clone()).unwrap();
        assert!(!about["index"]["why"].as_str().unwrap().is_empty(), "{about}");
        assert_eq!(pages(one, "/v1/incidents", "before"), whole);
        let single = format!("/v1/incidents/{}", whole[0]["id"].as_str().unwrap());
        for path in ["/v1/incidents", &single, "/v1/alerts", "/v1/deliveries", "/v1/audit", "/v1/measures"] {
            assert_eq!(as_of(one, path), Some(since), "{path}");
        }
        assert_eq!(as_of(one, "/v1/directory"), None, "it is not from the index");
        assert_eq!(one.metric("mailfuse_desk_index_ok", ""), 0.0);
        since
    };
    let before = known(&one);
    // Also one that begins meanwhile; it knows when it was last looked, to a minute.
    one.kill();
    let again = d.start_desk("one");
    let after = known(&again);
    assert!(after <= before && before.0 - after.0 < 120_000, "{before:?} {after:?}");
    broker.start();
    write(&d, rest);
    check(&again, &all);
    assert_eq!(as_of(&again, "/v1/incidents"), None);
    assert_eq!(again.metric("mailfuse_desk_index_ok", ""), 1.0);
}

/// A small file system in memory, for the database alone.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where nothing can be mounted.
    fn mount(folder: &Path) -> Option<SmallDisk> {
        std::fs::create_dir(folder).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(folder).output();
        if mounted.as_ref().is_ok_and(|m| m.status.success()) {
            return Some(SmallDisk(folder.to_owned()));
        }
        assert!(std::env::var_os("CI").is_none(), "nothing can be mounted here: {mounted:?}");
        eprintln!("SKIPPED: a full disk is not tried, because nothing can be mounted here: that takes Linux and root");
        None
    }

    fn database(&self) -> PathBuf {
        self.0.join("desk.sqlite")
    }

    /// Whether it was done: not while a file is open for writing.
    fn remount(&self, how: &str) -> bool {
        let option = format!("remount,{how}");
        Command::new("mount").args(["-o", &option]).arg(&self.0).output().unwrap().status.success()
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("others")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("others")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

type Bodies = Arc<Mutex<Vec<Value>>>;

/// A receiver that keeps what comes.
fn receiver(runtime: &tokio::runtime::Runtime) -> (String, Bodies) {
    let (got, listener) = (Bodies::default(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    listener.set_nonblocking(true).unwrap();
    let (address, keeps) = (listener.local_addr().unwrap().to_string(), Arc::clone(&got));
    let take = move |body: Bytes| async move { keeps.lock().unwrap().push(serde_json::from_slice(&body).unwrap()) };
    let router = Router::new().fallback(take);
    runtime.spawn(async move {
        axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
    });
    (address, got)
}

#[test]
fn a_disk_that_is_full_or_read_only_is_said_and_loses_nothing() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "disk", 1);
    let Some(disk) = SmallDisk::mount(&d.folder.path().join("disk")) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let ((marked, beats), (every, got)) = (receiver(&runtime), receiver(&runtime));
    let secret = d.folder.path().join("secret");
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    d.extra = format!("[desk]\ndatabase = {:?}\nheartbeat_s = 10\n", disk.database().to_str().unwrap());
    for (name, address, more) in [("watch", &marked, "heartbeat = true"), ("abuse", &every, "deliver = \"every\"")] {
        d.extra += &format!(
            "[[desk.webhook]]\nname = \"{name}\"\nurl = \"http://{address}/\"\nsecret_file = {:?}\nallow_private = true\n{more}\n",
            secret.to_str().unwrap()
        );
    }
    let all = alerts(&mut Dice(seed()), 600);
    let (first, rest) = all.split_at(20);
    let (second, third) = rest.split_at(rest.len() / 2);
    let one = d.start("one");
    write(&d, first);
    check(&one, first);
    // A log of what was written that has been there for long has room of its own.
    let restarted = |mut one: Instance| {
        assert!(one.terminate().success());
        let one = d.start("one");
        wait_until("it is ready", LIMIT, || one.json("/v1/desk").1["index"]["state"] == "ready");
        one
    };

    // What is written meanwhile is delivered, and the detector flags what it should: a heartbeat goes through all of it.
    let goes_on = |upto: usize| {
        let wanted: BTreeSet<&str> = all[..upto].iter().map(|a| &*a.id).collect();
        wait_until("every alert is delivered", WORK, || {
            let got = got.lock().unwrap();
            got.iter().filter_map(|body| body["data"]["id"].as_str()).filter(|id| wanted.contains(id)).count()
                >= wanted.len()
        });
        let before = beats.lock().unwrap().len();
        wait_until("a heartbeat arrives", WORK, || beats.lock().unwrap().len() > before);
    };
    let is_failed = |one: &Instance, words: &str| {
        wait_until(&format!("the index says {words:?}"), LIMIT, || {
            let about = one.json("/v1/desk").1;
            about["index"]["state"] == "failed" && about["index"]["why"].as_str().unwrap().contains(words)
        });
        one.await_log(&format!("{}: ", disk.database().display()));
        one.await_log(words);
        assert_eq!(one.metric("mailfuse_desk_index_ok", ""), 0.0);
        assert_eq!(one.get("/v1/incidents").0, 503);
    };
    let one = restarted(one);
    disk.fill();
    write(&d, second);
    is_failed(&one, "The disk is full: make room; it goes on by itself");
    goes_on(first.len() + second.len());
    disk.free();
    check(&one, &all[..first.len() + second.len()]);
    assert_eq!(one.metric("mailfuse_desk_index_ok", ""), 1.0);

    // A file that is open for writing keeps it writable: until the index cannot go on.
    let one = restarted(one);
    disk.fill();
    write(&d, third);
    is_failed(&one, "The disk is full");
    wait_until("it is read-only", LIMIT, || disk.remount("ro"));
    is_failed(&one, "ook at owner, rights and mount; it goes on by itself");
    goes_on(all.len());
    assert!(disk.remount("rw"));
    disk.free();
    check(&one, &all);
    assert_eq!(one.metric("mailfuse_desk_index_ok", ""), 1.0);
    assert_eq!(one.metric("mailfuse_desk_failures_total", ""), 0.0, "the desk itself has not stumbled");
}
