//! `mailfuse run` on a real broker does what `replay` does: the same alerts, byte for byte, for any number of partitions, across
//! restarts, whatever else is in the topic; and it says how it stands.

use std::time::{Duration, Instant, SystemTime};

use crate::run_support::{
    Broker, Case, Deployment, Instance, LIMIT, Record, WORK, accounts, field, same_states, wait_until,
};
use mailfuse::kafka::partitioner::partition_of;

/// Whoever is slow here is busy, not dead: whatever the group takes for death is read again, and said twice.
const SESSION_S: u32 = 60;

/// Works a case off on so many partitions, without any trouble.
fn check_equals_replay(broker: &Broker, case: &Case, partitions: i32) {
    let mut d = Deployment::new(broker, "equals", partitions);
    d.session_s = SESSION_S;
    d.publish(&case.events);
    let began = Instant::now();
    let mut instance = d.start("one");
    d.await_done(WORK);
    let took_s = began.elapsed().as_secs_f64();
    assert!(instance.terminate().success());
    let alerts = d.alerts();
    alerts.check(&case.replayed(&[]), &format!("{partitions} partitions"));
    assert_eq!(alerts.records, alerts.by_id.len(), "without trouble nothing is sent twice");
    assert!(broker.read(&d.topic("rejects")).is_empty());
    eprintln!("{partitions} partitions: {} events, {} alerts, {took_s:.1} s", case.lines, alerts.records);
}

#[test]
fn run_equals_replay_whatever_the_number_of_partitions() {
    let (Some(broker), Some(case)) = (Broker::shared(), Case::some()) else { return };
    for partitions in [12, 4, 1] {
        check_equals_replay(broker, &case, partitions);
    }
}

#[test]
fn a_stop_when_asked_is_no_trouble_and_nothing_comes_twice() {
    let (Some(broker), Some(case)) = (Broker::shared(), Case::few()) else { return };
    let (mut d, undisturbed) = (Deployment::new(broker, "stops", 4), Deployment::new(broker, "goes-on", 4));
    d.session_s = SESSION_S;
    let publisher = d.publisher(&case.events, Some(8000));
    undisturbed.publish(&case.events);
    for _ in 0..3 {
        let mut instance = d.start("one");
        instance.await_ready();
        std::thread::sleep(Duration::from_millis(900));
        assert!(instance.terminate().success(), "{}", instance.log());
        assert!(instance.log().contains("stopped"));
    }
    let (_one, _other) = (d.start("one"), undisturbed.start("one"));
    crate::run_support::published(publisher);
    d.await_done(WORK);
    undisturbed.await_done(WORK);
    let alerts = d.alerts();
    alerts.check(&case.replayed(&[]), "stopped three times");
    assert_eq!(alerts.records, alerts.by_id.len(), "a stop makes a last checkpoint: nothing is sent twice");
    same_states(&d.states(), &undisturbed.states(), "stopped three times");
}

#[test]
fn what_cannot_be_read_is_set_aside_with_its_origin_and_changes_nothing() {
    let (Some(broker), Some(case)) = (Broker::shared(), Case::few()) else { return };
    let d = Deployment::new(broker, "poison", 4);
    let (first, second) = case.cut(case.lines / 2, d.folder.path());
    let now_s = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let future = format!(
        "{{\"v\":1,\"kind\":\"send\",\"ts\":{},\"account\":\"a@b.example\",\"rcpts\":[\"c@d.example\"]}}",
        now_s + 3600
    );
    let bad = [
        ("x@b.example", "this is not JSON", "not_json"),
        ("y@b.example", r#"{"v":1,"kind":"send","ts":1690000000.5,"rcpts":["c@d.example"]}"#, "no_account"),
        ("a@b.example", future.as_str(), "future"),
        ("z@b.example", "", "not_json"),
    ];
    d.publish(&first);
    let lines: Vec<_> = bad.iter().map(|(key, value, _)| (*key, *value)).collect();
    let places = broker.lines(&d.topic("events"), &lines);
    d.publish(&second);
    let instance = d.start("one");
    d.await_done(WORK);
    d.alerts().check(&case.replayed(&[]), "with poison");
    let rejects = broker.read(&d.topic("rejects"));
    assert_eq!(rejects.len(), bad.len());
    for ((key, value, reason), (partition, offset)) in bad.iter().zip(places) {
        let reject = rejects.iter().find(|r| r.key_text() == *key).unwrap();
        assert_eq!(reject.text(), *value, "byte for byte");
        let header = |name: &str| reject.header(&format!("mailfuse-{name}")).unwrap_or_default();
        assert_eq!(header("topic"), d.topic("events"));
        assert_eq!((header("partition"), header("offset")), (partition.to_string(), offset.to_string()));
        assert_eq!(header("reason"), *reason, "{}", header("detail"));
        assert!(header("timestamp").parse::<u64>().unwrap() / 1000 >= now_s - 5);
        assert!(!header("detail").is_empty() && header("by").starts_with("mailfuse "));
        assert!(instance.metric("mailfuse_rejects_total", &format!("reason=\"{reason}\"")) >= 1.0);
    }
    // The state knows the case's accounts and no other.
    let clean = Deployment::new(broker, "no-poison", 4);
    clean.publish(&case.events);
    let _clean = clean.start("one");
    clean.await_done(WORK);
    let accounts_of = |d: &Deployment<'_>| {
        let mut states = d.states();
        states.retain(|(_, key), _| key != mailfuse::state::record::SHARD_KEY);
        states
    };
    assert!(accounts_of(&d) == accounts_of(&clean), "an account is as if there had been no poison");
}

#[test]
fn a_reload_is_all_or_nothing() {
    let (Some(broker), Some(case)) = (Broker::shared(), Case::few()) else { return };
    let d = Deployment::new(broker, "reload", 4);
    let (first, second) = case.cut(case.lines / 2, d.folder.path());
    let instance = d.start("one");
    let reloads = |how: &str| instance.metric("mailfuse_config_reloads_total", &format!("\"{how}\""));
    let digest = || instance.json("/v1/status").1["config_digest"].as_str().unwrap().to_owned();
    d.publish(&first);
    d.await_done(WORK);
    let before = digest();
    let good = std::fs::read_to_string(&instance.config).unwrap();
    for (wrong, words) in [
        (format!("{good}\n[detect]\nquiet_z = 3\n"), "quiet_z"),
        (good.replace("[http]", "[http"), "the one before stays in force"),
        (good.replace("workers = 2", "workers = 1"), "run.workers has changed, which takes a restart"),
    ] {
        let refused = reloads("refused");
        std::fs::write(&instance.config, wrong).unwrap();
        instance.signal("HUP");
        wait_until("it is refused", LIMIT, || reloads("refused") == refused + 1.0);
        instance.await_log(words);
        assert_eq!(digest(), before);
    }
    // What takes a restart keeps no token from being made or taken back, and is named.
    let token = "[[http.token]]\nname = \"t\"\nroles = [\"look\"]\nhash = \"sha256:";
    let token = format!("{token}{}\"\n", "1".repeat(64));
    let refused = reloads("refused");
    std::fs::write(&instance.config, format!("{}\n{token}", good.replace("workers = 2", "workers = 1"))).unwrap();
    instance.signal("HUP");
    wait_until("the token is in force", crate::run_support::LIMIT, || instance.get("/v1/status").0 == 401);
    instance.await_log("the tokens of http.token were reloaded all the same");
    std::fs::write(&instance.config, good.replace("workers = 2", "workers = 1")).unwrap();
    instance.signal("HUP");
    wait_until("it is taken back", crate::run_support::LIMIT, || instance.get("/v1/status").0 == 200);
    wait_until("both are counted", crate::run_support::LIMIT, || reloads("refused") == refused + 2.0);
    assert_eq!(digest(), before);
    std::fs::write(&instance.config, format!("{good}\n[detect]\nquiet_s = 43000\n")).unwrap();
    instance.signal("HUP");
    wait_until("it is taken", LIMIT, || reloads("ok") == 1.0);
    let after = digest();
    assert_ne!(after, before);
    // The workers change over at a checkpoint, a moment later; without one, after ten seconds. Nothing says that they have.
    std::thread::sleep(Duration::from_secs(12));
    let half = d.alerts().records;
    d.publish(&second);
    d.await_done(WORK);
    let all = broker.read(&d.topic("alerts"));
    assert!(half > 0 && half < all.len(), "{half} of {}", all.len());
    for (n, alert) in all.iter().enumerate() {
        let (wanted, by) = (if n < half { &before } else { &after }, field(alert.value.as_deref().unwrap(), "by"));
        assert!(by.contains(wanted.as_str()), "alert {n}: {by} is not of {wanted}");
    }
}

/// What is answered once the instance is not busy, and knows who has what it has not.
#[track_caller]
fn settled(instance: &Instance, page: &str) -> (u16, serde_json::Value) {
    let mut answer = instance.json(page);
    wait_until(&format!("{page} is answered by it or somebody it names"), LIMIT, || {
        let is_settled = answer.0 != 503 && (answer.0 != 421 || answer.1["ask_instance"].is_string());
        if !is_settled {
            answer = instance.json(page);
        }
        is_settled
    });
    answer
}

#[test]
fn each_instance_answers_for_its_partitions_and_names_the_other() {
    let (Some(broker), Some(case)) = (Broker::shared(), Case::few()) else { return };
    let mut d = Deployment::new(broker, "two", 4);
    d.session_s = SESSION_S;
    d.publish(&case.events);
    let (one, two) = (d.start("one"), d.start("two"));
    one.await_ready();
    two.await_ready();
    wait_until("each has two partitions", LIMIT, || one.partitions().len() == 2 && two.partitions().len() == 2);
    d.await_done(WORK);
    for (_, name) in accounts(&d.states()).into_iter().take(12) {
        let partition = i64::from(partition_of(name.as_bytes(), 4));
        let (right, wrong) = if one.partitions().contains(&partition) { (&one, &two) } else { (&two, &one) };
        let page = format!("/v1/accounts/{name}");
        let (status, body) = settled(right, &page);
        assert_eq!((status, body["account"].as_str()), (200, Some(name.as_str())), "{body}");
        let (status, body) = settled(wrong, &page);
        assert_eq!(status, 421, "{body}");
        assert_eq!(body["partition"].as_i64(), Some(partition), "{body}");
        assert_eq!(body["ask_instance"].as_str(), Some(right.http().as_str()), "{body}");
    }
    let (status, body) = settled(&one, "/v1/status");
    assert_eq!((status, body["state"].as_str(), body["instance"].as_str()), (200, Some("running"), Some("one")));
    wait_until("nothing is behind", LIMIT, || {
        let (_, body) = one.json("/v1/status");
        let partitions = body["partitions"].as_array();
        partitions.is_some_and(|all| all.iter().all(|p| p["lag_messages"].as_i64() == Some(0)))
    });
    wait_until("it is well", LIMIT, || one.get("/healthz").0 == 200);
    let record = Record::new("nobody@nowhere.example", "");
    let home = i64::from(partition_of(record.key.as_deref().unwrap(), 4));
    let right = if one.partitions().contains(&home) { &one } else { &two };
    assert_eq!(settled(right, "/v1/accounts/nobody@nowhere.example").0, 404);
}
