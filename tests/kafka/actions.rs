//! The signed action webhook against a real broker: what is ordered is posted, a call that SIGKILL cut off is made again under the
//! same id, later is later, and a mode keeps calls back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::run_support::{Broker, Deployment, Instance, LIMIT, wait_until};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use mailfuse::desk::webhook::sign::{Keys, Secret, verify};
use serde_json::{Value, json};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ANN: &str = "ann@shop.example";

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Hangs,
    /// Once, and then it is fine: nobody else could say so in time.
    Later,
    Refuses,
    Fine,
}

/// A call as it came: at which address, with which id, and what it said.
type Got = (String, String, Value);

#[derive(Clone)]
struct Panel {
    mood: Arc<Mutex<Mood>>,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Panel {
    fn mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// What came at an address.
    fn got(&self, path: &str) -> Vec<(String, Value)> {
        let got = self.got.lock().unwrap();
        got.iter().filter(|(at, ..)| at == path).map(|(_, id, body)| (id.clone(), body.clone())).collect()
    }
}

async fn take(
    State(panel): State<Panel>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1], &'static str) {
    let header = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let keys = Keys { signing: vec![Secret::parse(SECRET).unwrap()], routing_key: None };
    let now_s = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let (id, at, signature) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    verify(&keys, &id, &at, &signature, &body, now_s).unwrap();
    panel.got.lock().unwrap().push((uri.path().to_owned(), id, serde_json::from_slice(&body).unwrap()));
    let mood = {
        let mut mood = panel.mood.lock().unwrap();
        let next = if *mood == Mood::Later { Mood::Fine } else { *mood };
        if uri.path() == "/aside" { Mood::Fine } else { std::mem::replace(&mut *mood, next) }
    };
    let status = match mood {
        Mood::Hangs => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            StatusCode::OK
        }
        Mood::Later => StatusCode::SERVICE_UNAVAILABLE,
        Mood::Refuses => StatusCode::NOT_FOUND,
        Mood::Fine => StatusCode::OK,
    };
    (status, [("retry-after", "1")], "noted")
}

fn stop_of(instance: &Instance) -> Value {
    let (status, page) = instance.json(&format!("/v1/measures?kind=stop&account={ANN}"));
    if status == 200 { page["items"][0].clone() } else { Value::Null }
}

/// Sends to the active desk, which may be taking over.
#[track_caller]
fn post(instance: &Instance, path: &str, body: &Value) {
    wait_until(path, LIMIT, || {
        let (status, answer) = instance.send("POST", path, body);
        assert!([201, 421, 503].contains(&status), "{answer}");
        status == 201
    });
}

#[test]
fn what_is_ordered_is_posted_signed_and_again_after_a_crash_until_it_is_done() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "actions", 1);
    let panel = Panel { mood: Arc::new(Mutex::new(Mood::Hangs)), got: Arc::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let router = Router::new().fallback(take).with_state(panel.clone());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move {
        axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
    });
    let secret = d.folder.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let table = |name: &str, mode: &str, confirms: bool| {
        format!(
            "[[relays.webhook]]\nname = \"{name}\"\nurl = \"http://{address}/{name}\"\nsecret_file = {secret:?}\n\
             allow_private = true\ntimeout_s = 300\nmode = \"{mode}\"\nconfirms = {confirms}\n"
        )
    };
    d.extra =
        [table("panel", "confirm", true), table("watched", "shadow", true), table("aside", "confirm", false)].concat();
    let mut desk = d.start_desk("one");
    post(&desk, "/v1/measures", &json!({ "kind": "stop", "subject": ANN, "note": "by telephone" }));
    wait_until("it is posted", LIMIT, || panel.got("/panel").len() == 1);
    let (id, body) = panel.got("/panel").remove(0);
    let told = (&body["verb"], &body["account"], &body["attempt"]);
    assert_eq!(told, (&json!("stop"), &json!(ANN), &json!(1)), "{body}");

    // Nobody knows whether it was done: it is said again, under the same id, until somebody says so.
    desk.kill();
    panel.mood(Mood::Later);
    desk = d.start_desk("one");
    wait_until("it is posted again", LIMIT, || panel.got("/panel").len() == 2);
    wait_until("it was answered", LIMIT, || desk.metric("mailfuse_hook_calls_total", "later") == 1.0);
    let answered = |hook: &str, verb: &str| {
        let calls = stop_of(&desk)["hooks"].as_array().cloned().unwrap_or_default();
        calls.into_iter().find(|c| c["hook"] == hook && c["verb"] == verb).unwrap_or_default()
    };
    wait_until("both answers are shown", LIMIT, || {
        let is_later = answered("panel", "stop")["stage"] == "later" || panel.got("/panel").len() > 2;
        is_later && answered("aside", "stop")["stage"] == "done"
    });
    let (said, stop) = (answered("panel", "stop")["said"].clone(), stop_of(&desk));
    // Unless it has been asked again by now.
    if panel.got("/panel").len() == 2 {
        assert_eq!(said, "answered 503: noted", "{stop}");
        assert!(stop["done_ms"].is_null(), "what the other has done is no stop: {stop}");
    }
    wait_until("it is done", LIMIT, || stop_of(&desk)["done_ms"].is_i64());
    let got = panel.got("/panel");
    assert!(got.iter().all(|(other, body)| *other == id && body["idempotency_key"] == told_key(&got)), "{got:?}");
    assert_eq!(got.last().unwrap().1["attempt"], 3);

    post(&desk, "/v1/actions", &json!({ "action": "account_released", "account": ANN }));
    wait_until("its end is posted", LIMIT, || panel.got("/panel").len() == 4);
    let (other, body) = panel.got("/panel").remove(3);
    assert!(other != id && body["verb"] == "release", "{body}");
    assert_eq!(desk.metric("mailfuse_hook_calls_total", "hook=\"watched\",outcome=\"withheld\""), 1.0);
    assert!(panel.got("/watched").is_empty(), "its mode keeps it back");

    // A customer who cannot be released is not forgotten: people are told, once, and it is tried on.
    let before = stop_of(&desk)["id"].clone();
    post(&desk, "/v1/measures", &json!({ "kind": "stop", "subject": ANN, "note": "once more" }));
    wait_until("it is done", LIMIT, || {
        let stop = stop_of(&desk);
        !stop.is_null() && stop["id"] != before && stop["done_ms"].is_i64()
    });
    panel.mood(Mood::Refuses);
    post(&desk, "/v1/actions", &json!({ "action": "account_released", "account": ANN }));
    wait_until("people are told", LIMIT, || !desk.items("/v1/alerts?kind=stream.anomaly").is_empty());
    let told = desk.items("/v1/alerts?kind=stream.anomaly").remove(0);
    let text = told["evidence"][0]["text"].as_str().unwrap();
    assert!(
        text.contains("hook panel has failed to release account ann@shop.example") && text.contains("404"),
        "{text}"
    );
    wait_until("it is tried later", LIMIT, || answered("panel", "release")["stage"] == "later");
    let again_ms = answered("panel", "release")["not_before_ms"].as_i64().unwrap();
    assert!(again_ms > answered("panel", "release")["at_ms"].as_i64().unwrap(), "{}", stop_of(&desk));
}

fn told_key(got: &[(String, Value)]) -> Value {
    got[0].1["idempotency_key"].clone()
}
