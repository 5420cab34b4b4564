//! Secrets that change while the desk runs, at receivers that check them: nothing is lost, and nobody restarts anything.

use crate::desk_webhook_support;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use desk_webhook_support::{SECRET, endpoint, every};
use mailfuse::core::alert::{AlertKind, Severity};
use mailfuse::desk::Settings;
use mailfuse::desk::sender::{Hands, InForce};
use mailfuse::desk::webhook::body::Message;
use mailfuse::desk::webhook::outcome::Outcome;
use mailfuse::desk::webhook::record::Attempt;
use mailfuse::desk::webhook::settings::{Endpoint, Format};
use mailfuse::desk::webhook::sign::{Keys, Secret, verify};
use mailfuse::kafka::outlet::now_ms;
use serde_json::Value;

/// Far longer than anything takes here: a test that waits so long has failed.
const FAR: Duration = Duration::from_secs(60);
const NEW: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// What a receiver checks with, and what it has taken: id and number of signatures.
#[derive(Clone)]
struct Receiver {
    knows: Arc<Mutex<&'static str>>,
    taken: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Receiver {
    fn learns(&self, secret: &'static str) {
        *self.knows.lock().unwrap() = secret;
    }

    fn last(&self) -> (String, usize) {
        self.taken.lock().unwrap().last().cloned().unwrap()
    }
}

async fn take(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    // A routing key is in the body, and nothing is signed.
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
    let knows = *receiver.knows.lock().unwrap();
    let (id, signatures) = (header("webhook-id"), header("webhook-signature"));
    let genuine = if let Some(routing_key) = knows.strip_prefix("key ") {
        serde_json::from_slice::<Value>(&body).unwrap()["routing_key"] == routing_key
    } else {
        let keys = Keys { signing: vec![Secret::parse(knows).unwrap()], routing_key: None };
        verify(&keys, id, header("webhook-timestamp"), signatures, &body, now_ms() / 1000).is_ok()
    };
    if !genuine {
        return StatusCode::UNAUTHORIZED;
    }
    receiver.taken.lock().unwrap().push((id.to_owned(), signatures.split(' ').count()));
    StatusCode::OK
}

/// A receiver on a free port of this host, and an endpoint for it whose secret lies in `folder`.
async fn receiver(name: &str, format: Format, knows: &'static str, folder: &Path) -> (Receiver, Endpoint) {
    let receiver = Receiver { knows: Arc::new(Mutex::new(knows)), taken: Arc::default() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let router = Router::new().route("/hook", post(take)).with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    write(folder, name, knows.trim_start_matches("key "));
    let secret_file = folder.join(name).display().to_string();
    (receiver, Endpoint { name: name.to_owned(), secret_file, ..endpoint(format, &url) })
}

/// As the README has it: another file, renamed.
fn write(folder: &Path, name: &str, secret: &str) {
    let new = folder.join(format!("{name}.new"));
    std::fs::write(&new, format!("{secret}\n")).unwrap();
    std::fs::rename(new, folder.join(name)).unwrap();
}

/// For the receivers; the hands have one of their own.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// One attempt.
fn attempt(hands: &mut Hands, endpoint: &str, id: &str) -> Outcome {
    let attempt = Attempt {
        attempt: 1,
        endpoint: endpoint.to_owned(),
        id: id.to_owned(),
        incident: "i".to_owned(),
        seq: 0,
        attempts: 0,
        probe: false,
    };
    let message = every(AlertKind::Flagged, Severity::Critical, "anna@example.org");
    hands.send(&attempt, &Message { id: id.to_owned(), ..message });
    let until = Instant::now() + FAR;
    loop {
        if let Some(ended) = hands.ended().pop() {
            return ended.outcome;
        }
        assert!(Instant::now() < until, "an attempt does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Attempts until it is delivered, as the outbox makes them; what is refused meanwhile is refused for its signature.
fn deliver(hands: &mut Hands, endpoint: &str, id: &str) {
    let until = Instant::now() + FAR;
    loop {
        match attempt(hands, endpoint, id) {
            Outcome::Delivered { .. } => return,
            Outcome::Refused { status: 401, .. } => {}
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < until, "{endpoint} goes on with the secret before");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn settings(webhook: &[&Endpoint]) -> Settings {
    Settings { webhook: webhook.iter().map(|&e| e.clone()).collect(), ..Settings::default() }
}

/// The README's procedure: every step is taken by a receiver that knows one secret only, at the first attempt.
#[test]
fn a_secret_is_rotated_step_by_step_and_no_message_is_refused() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let (receiver, before) = runtime.block_on(receiver("abuse", Format::Native, SECRET, folder.path()));
    let in_force = Arc::new(InForce::new(&settings(&[&before])));
    let mut hands = Hands::new(&in_force).unwrap();
    let delivered = Outcome::Delivered { status: 200 };
    assert_eq!(attempt(&mut hands, "abuse", "m1"), delivered);
    assert_eq!(receiver.last(), ("m1".to_owned(), 1));

    // The old secret into a file of its own, the new one beside it; a reload names both.
    write(folder.path(), "old", SECRET);
    write(folder.path(), "new", NEW);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let both = Endpoint { secret_file: path("new"), previous_secret_file: path("old"), ..before.clone() };
    in_force.set(&settings(&[&both]));
    assert_eq!(attempt(&mut hands, "abuse", "m2"), delivered, "who knows the old one only");
    assert_eq!(receiver.last(), ("m2".to_owned(), 2));
    receiver.learns(NEW);
    assert_eq!(attempt(&mut hands, "abuse", "m3"), delivered, "who knows the new one only");

    in_force.set(&settings(&[&Endpoint { previous_secret_file: String::new(), ..both }]));
    assert_eq!(attempt(&mut hands, "abuse", "m4"), delivered);
    assert_eq!(receiver.last(), ("m4".to_owned(), 1));
    receiver.learns(SECRET);
    assert!(matches!(attempt(&mut hands, "abuse", "m5"), Outcome::Refused { status: 401, .. }), "it is gone");
}

#[test]
fn a_secret_that_is_replaced_in_its_file_is_in_force_and_one_that_cannot_be_read_stays_as_it_was() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let (first_key, second_key) = ("key 0123456789abcdef0123456789abcdef", "key fedcba9876543210fedcba9876543210");
    let (changed, changed_at) = runtime.block_on(receiver("changed", Format::Native, SECRET, folder.path()));
    let (kept, kept_at) = runtime.block_on(receiver("kept", Format::Native, SECRET, folder.path()));
    let (gone, gone_at) = runtime.block_on(receiver("gone", Format::Slack, SECRET, folder.path()));
    let (pager, pager_at) = runtime.block_on(receiver("pager", Format::Pagerduty, first_key, folder.path()));
    let in_force = Arc::new(InForce::new(&settings(&[&changed_at, &kept_at, &gone_at, &pager_at])));
    let mut hands = Hands::new(&in_force).unwrap();
    for name in ["changed", "kept", "gone", "pager"] {
        assert_eq!(attempt(&mut hands, name, "m1"), Outcome::Delivered { status: 200 }, "{name}");
    }
    // One is half written, one is taken away, the others are replaced before their receivers know: what is refused waits, and
    // arrives under the same id.
    write(folder.path(), "kept", "whsec_AAEC");
    std::fs::remove_file(folder.path().join("gone")).unwrap();
    write(folder.path(), "changed", NEW);
    write(folder.path(), "pager", second_key.trim_start_matches("key "));
    changed.learns(NEW);
    pager.learns(second_key);
    deliver(&mut hands, "changed", "m2");
    deliver(&mut hands, "pager", "m2");
    assert_eq!((changed.last(), pager.last().0.as_str()), (("m2".to_owned(), 1), "m2"));
    // By now all of them have been looked at.
    for (name, receiver) in [("kept", &kept), ("gone", &gone)] {
        assert_eq!(attempt(&mut hands, name, "m2"), Outcome::Delivered { status: 200 }, "{name}");
        assert_eq!(receiver.last(), ("m2".to_owned(), 1));
    }
    write(folder.path(), "kept", NEW);
    kept.learns(NEW);
    deliver(&mut hands, "kept", "m3");
}
