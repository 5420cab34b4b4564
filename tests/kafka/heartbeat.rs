//! Heartbeats through real brokers: they arrive while the whole path works, and their silence says which part does not.

use std::sync::{Arc, Mutex};

use crate::run_support::{Broker, Deployment, Instance, LIMIT, WORK, wait_until};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use mailfuse::kafka::partitioner::partition_of;
use serde_json::Value;

const PARTITIONS: i32 = 3;

type Got = Arc<Mutex<Vec<Value>>>;

/// Keeps the bodies that come.
fn receiver(runtime: &tokio::runtime::Runtime) -> (String, Got) {
    let got = Got::default();
    let take = |State(got): State<Got>, body: Bytes| async move {
        got.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
    };
    let router = Router::new().fallback(take).with_state(Arc::clone(&got));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    runtime.spawn(async move {
        axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
    });
    (address, got)
}

fn count(got: &Got) -> usize {
    got.lock().unwrap().len()
}

fn missed(instance: &Instance) -> f64 {
    instance.metric("mailfuse_heartbeats_missed_total", "")
}

#[test]
fn a_partition_that_is_not_read_is_silence() {
    let Some(broker) = Broker::shared() else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let ((marked, beats), (plain, alerts)) = (receiver(&runtime), receiver(&runtime));
    let mut d = Deployment::new(broker, "beats", PARTITIONS);
    let secret = d.folder.path().join("secret");
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    d.extra = "[desk]\nheartbeat_s = 10\n".to_owned();
    for (name, address, more) in [("watch", &marked, "heartbeat = true"), ("abuse", &plain, "deliver = \"every\"")] {
        d.extra += &format!(
            "[[desk.webhook]]\nname = \"{name}\"\nurl = \"http://{address}/\"\nsecret_file = {:?}\nallow_private = true\n{more}\n",
            secret.to_str().unwrap()
        );
    }
    // The detector has a desk beside it that stands by, or this one does: either may beat.
    let one = d.start("one");
    one.await_ready();
    wait_until("beats arrive", WORK, || count(&beats) >= 2);
    for body in beats.lock().unwrap().iter() {
        assert_eq!(body["type"], "heartbeat", "{body}");
        assert_eq!(body["data"]["details"]["partitions"], PARTITIONS, "{body}");
        assert!(body["data"]["details"]["latency_ms_max"].as_i64().unwrap() < 10_000, "{body}");
    }
    assert!(one.metric("mailfuse_heartbeats_complete_total", "") >= 2.0);
    assert!(one.metric("mailfuse_heartbeat_last_timestamp_seconds", "") > 1.7e9);
    // Nobody else hears of it.
    assert_eq!(one.metric("mailfuse_flags_total", ""), 0.0);
    assert_eq!(one.metric("mailfuse_desk_alerts_total", ""), 0.0);
    let (_, incidents) = one.json("/v1/incidents");
    assert_eq!(incidents["items"], serde_json::json!([]), "{incidents}");
    let written = broker.read(&d.topic("alerts"));
    assert!(
        written.len() >= 2 * PARTITIONS as usize && written.iter().all(|a| a.text().contains("\"heartbeat\":true"))
    );

    // The producer of one partition is broken: the partition halts, and the others go on.
    let broken: Vec<(String, &str)> = (0..)
        .map(|n| format!("user{n}@trouble.example"))
        .filter(|key| partition_of(key.as_bytes(), PARTITIONS) == 1)
        .map(|key| (key, "no JSON"))
        .take(2000)
        .collect();
    let broken: Vec<_> = broken.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let before = missed(&one);
    broker.lines(&d.topic("events"), &broken);
    one.await_log("partition halted");
    wait_until("beats stay out", LIMIT, || missed(&one) >= before + 2.0);
    one.await_log("partitions=[1]");
    let then = count(&beats);
    wait_until("further ones do", LIMIT, || missed(&one) >= before + 4.0);
    assert_eq!(count(&beats), then, "silence of one partition is silence");
    assert_eq!(count(&alerts), 0, "an endpoint without the mark hears of no beat");
}
