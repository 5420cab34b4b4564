//! Commands about measures, against a desk that answers as ours does and counts what it was asked.

use std::collections::HashMap;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::access::{Server, serve_pages};

/// Measures, newest first, and the names of those that were confirmed.
#[derive(Clone, Default)]
struct Desk {
    measures: Arc<Vec<Value>>,
    confirmed: Arc<Mutex<Vec<String>>>,
}

async fn measures(State(desk): State<Desk>, Query(asked): Query<HashMap<String, String>>) -> Json<Value> {
    let is = |m: &Value, name: &str, key: &str| asked.get(name).is_none_or(|wanted| m[key] == **wanted);
    let before: u64 = asked.get("before").map_or(u64::MAX, |n| n.parse().unwrap());
    let limit: usize = asked.get("limit").map_or(100, |n| n.parse().unwrap());
    let found = desk.measures.iter().filter(|m| {
        let all =
            [("kind", "kind"), ("state", "state"), ("tenant", "tenant"), ("account", "subject"), ("relay", "subject")];
        m["n"].as_u64().unwrap() < before && all.iter().all(|(name, key)| is(m, name, key))
    });
    let mut items: Vec<&Value> = found.take(limit + 1).collect();
    let mut page = json!({});
    if items.len() > limit {
        items.pop();
        page["next"] = items[limit - 1]["n"].clone();
    }
    page["items"] = json!(items);
    Json(page)
}

async fn confirm(State(desk): State<Desk>, Path(id): Path<String>) -> Json<Value> {
    let measure = desk.measures.iter().find(|m| m["id"] == *id).unwrap();
    desk.confirmed.lock().unwrap().push(id);
    let mut confirmed = measure.clone();
    confirmed["state"] = json!("in_force");
    Json(confirmed)
}

impl Desk {
    fn new(measures: Vec<Value>) -> Self {
        Self { measures: Arc::new(measures), ..Self::default() }
    }

    fn serve(&self, hold: Value) -> Server {
        let pages = Router::new()
            .route("/v1/measures", get(measures))
            .route("/v1/measures/{id}/confirm", post(confirm))
            .with_state(self.clone());
        let pages = pages.route("/v1/relays/hold", get(|| async move { Json(hold) }));
        serve_pages("127.0.0.1:80", "", &[], pages.route("/v1/trying", get(|| async { Json(json!({ "items": [] })) })))
    }

    /// How many were confirmed since this was asked last.
    fn confirmed(&self) -> Vec<String> {
        std::mem::take(&mut self.confirmed.lock().unwrap())
    }
}

fn measure(n: u64, kind: &str, subject: &str, tenant: &str, state: &str) -> Value {
    json!({ "n": n, "id": format!("m-{n}"), "kind": kind, "subject": subject, "tenant": tenant, "state": state,
        "made_ms": n, "until_ms": 9_000_000, "by": "mailfuse", "why": "its incident is critical", "hooks": [] })
}

/// A command as a program types it: there is no terminal.
fn command(server: &Server, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
    command.args(&words[..2]).args(["--config", "none", "--at", &server.address.to_string()]).args(&words[2..]);
    command.env_remove("MAILFUSE_TOKEN").stdin(Stdio::null()).output().unwrap()
}

fn said(out: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn several_accounts_are_confirmed_at_once_and_so_is_a_throttle() {
    let desk = Desk::new(vec![
        measure(4, "throttle", "tim@x.example", "x.example", "asked"),
        measure(3, "stop", "ann@x.example", "x.example", "asked"),
        measure(2, "stop", "bob@x.example", "x.example", "in_force"),
        measure(1, "stop", "eve@x.example", "x.example", "shadow"),
    ]);
    let server = desk.serve(Value::Null);
    let all = ["accounts", "confirm", "tim@x.example", "ann@x.example", "bob@x.example"];
    let (code, out, err) = said(&command(&server, &all));
    assert_eq!((code, out.matches("in force").count()), (Some(0), 3), "{out}{err}");
    assert_eq!(desk.confirmed(), ["m-4", "m-3", "m-2"]);
    // Who has nothing to confirm is named, the others are confirmed.
    let (code, _, err) = said(&command(&server, &["accounts", "confirm", "eve@x.example", "tim@x.example"]));
    assert!(code == Some(1) && err.contains("nothing about eve@x.example waits"), "{err}");
    assert_eq!(desk.confirmed(), ["m-4"]);
    assert_eq!(said(&command(&server, &["accounts", "confirm"])).0, Some(2), "whom?");
    assert_eq!(said(&command(&server, &["accounts", "confirm", "a", "--all-waiting"])).0, Some(2));
}

#[test]
fn all_that_wait_are_confirmed_of_one_customer_or_of_all_and_not_without_being_asked() {
    let subject = |n: u64| format!("u{n}@{}.example", if n.is_multiple_of(5) { "y" } else { "x" });
    let tenant = |n: u64| if n.is_multiple_of(5) { "y.example" } else { "x.example" };
    let some = (0..2500).rev().map(|n| measure(n, "stop", &subject(n), tenant(n), "asked"));
    let desk = Desk::new(some.collect());
    let server = desk.serve(Value::Null);
    let (code, out, err) = said(&command(&server, &["accounts", "confirm", "--all-waiting"]));
    assert_eq!((code, desk.confirmed().len()), (Some(2), 0), "{out}{err}");
    assert!(
        err.contains("Confirm 2,500 stops (2000 of x.example, 500 of y.example)?") && err.contains("--yes"),
        "{err}"
    );
    let of = ["accounts", "confirm", "--all-waiting", "--tenant", "y.example", "--yes"];
    let (code, out, err) = said(&command(&server, &of));
    assert_eq!((code, &*out), (Some(0), "500 of 500 measures confirmed\n"), "{err}");
    let confirmed = desk.confirmed();
    assert!(confirmed.len() == 500 && confirmed.contains(&"m-0".to_owned()), "the pages behind the first, too");
    let (_, out, _) = said(&command(&server, &["relays", "confirm", "--all-waiting", "--yes"]));
    assert_eq!(out, "nothing waits for a person\n");
}

#[test]
fn a_list_is_whole_and_shows_what_hooks_answered_and_whether_pulls_are_held_off() {
    let mut some: Vec<Value> = (0..2500).rev().map(|n| measure(n, "stop", &format!("u{n}@x"), "x", "asked")).collect();
    let mut pull = measure(0, "pull", "out-1", "", "ended");
    pull["hooks"] = json!([
        { "hook": "panel", "verb": "pull", "stage": "done", "attempts": 1, "said": "ended with status 0: ok" },
        { "hook": "panel", "verb": "restore", "stage": "later", "attempts": 7, "said": "ended with status 1: no\nserver" },
    ]);
    some.push(pull);
    let desk = Desk::new(some);
    let server = desk.serve(json!({ "held_until": "2030-01-01T00:00:00.000Z", "by": "ann", "note": "we look first" }));
    let (code, out, err) = said(&command(&server, &["accounts", "list"]));
    assert_eq!((code, out.matches("u").count() > 2500, out.contains(" u0@x ")), (Some(0), true, true), "{err}");
    let (_, out, err) = said(&command(&server, &["relays", "list", "--all"]));
    for words in [
        "before 2030-01-01T00:00:00.000Z, by ann: we look first; `mailfuse relays resume` ends that",
        "panel: pull done: ended with status 0: ok; panel: restore later, attempts: 7: ended with status 1: no server",
    ] {
        assert!(out.contains(words), "{words}: {out}{err}");
    }
    let open = Desk::default().serve(json!({ "held_until": null, "by": null, "note": null }));
    assert!(!said(&command(&open, &["relays", "list"])).1.contains("resume"));
    let many: Vec<Value> = (0..20_500).rev().map(|n| measure(n, "stop", &format!("u{n}@x"), "x", "asked")).collect();
    let server = Desk::new(many).serve(Value::Null);
    let (code, _, err) = said(&command(&server, &["accounts", "list"]));
    assert!(
        code == Some(0) && err.contains("the newest 20000: GET /v1/measures?kind=stop"),
        "what is cut says so: {err}"
    );
}
