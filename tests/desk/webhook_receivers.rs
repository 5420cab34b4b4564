//! Each body at a real HTTP receiver that holds it to the published rules of its service, answers as that service does, and keeps
//! what the service would keep: what is open, acknowledged and over.

use crate::desk_webhook_support;
use crate::webhook_bodies::{check_alertmanager, check_native, check_pagerduty, check_slack, messages};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use desk_webhook_support::{AT, endpoint, every, grouped, keys};
use mailfuse::core::alert::{AlertKind, Severity};
use mailfuse::desk::webhook::body::{IncidentState, Message, prepare};
use mailfuse::desk::webhook::client::{Client, SystemResolver};
use mailfuse::desk::webhook::outcome::Outcome;
use mailfuse::desk::webhook::settings::{BODY_BYTES_LIMIT, Endpoint, Format};
use mailfuse::desk::webhook::sign::verify;
use mailfuse::event::Timestamp;
use serde_json::{Value, json};

/// Far longer than anything takes here: a test that waits so long has failed.
const FAR: Duration = Duration::from_secs(60);

/// What the services keep.
#[derive(Clone, Default)]
struct Services(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    /// Requests that were taken.
    taken: usize,
    /// PagerDuty's incidents by `dedup_key`, as they stand.
    incidents: BTreeMap<String, &'static str>,
    /// Alertmanager's alerts by their labels: whether they are over.
    alerts: BTreeMap<String, bool>,
    /// What Slack shows.
    shown: Vec<String>,
    /// Why something was not taken.
    refused: Vec<String>,
}

/// A body that keeps the rules, or why it does not.
fn held(headers: &HeaderMap, bytes: &Bytes, check: impl Fn(&Value)) -> Result<Value, String> {
    if headers.get("content-type").and_then(|kind| kind.to_str().ok()) != Some("application/json") {
        return Err("it is not declared as JSON".to_owned());
    }
    if bytes.len() >= BODY_BYTES_LIMIT {
        return Err(format!("{} bytes", bytes.len()));
    }
    let body: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    catch_unwind(AssertUnwindSafe(|| check(&body))).map_err(|_| format!("against the rules: {body:#}"))?;
    Ok(body)
}

impl Services {
    fn take(&self, held: Result<Value, String>, then: impl Fn(&mut Kept, &Value) -> Response) -> Response {
        let mut kept = self.0.lock().unwrap();
        match held {
            Ok(body) => {
                kept.taken += 1;
                then(&mut kept, &body)
            }
            Err(why) => {
                kept.refused.push(why);
                StatusCode::BAD_REQUEST.into_response()
            }
        }
    }
}

/// <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks/>: 200 and the word `ok`.
async fn slack(State(services): State<Services>, headers: HeaderMap, bytes: Bytes) -> Response {
    services.take(held(&headers, &bytes, check_slack), |kept, body| {
        kept.shown.push(body["text"].as_str().unwrap().to_owned());
        ([("content-type", "text/plain; charset=utf-8")], "ok").into_response()
    })
}

/// <https://developer.pagerduty.com/docs/events-api-v2/overview/>: 202; who is acknowledged was triggered, what is resolved is over
/// until it is triggered again.
async fn pagerduty(State(services): State<Services>, headers: HeaderMap, bytes: Bytes) -> Response {
    services.take(held(&headers, &bytes, check_pagerduty), |kept, body| {
        let key = body["dedup_key"].as_str().unwrap().to_owned();
        match body["event_action"].as_str().unwrap() {
            "trigger" => _ = kept.incidents.insert(key.clone(), "triggered"),
            "acknowledge" => drop(kept.incidents.get_mut(&key).map(|state| *state = "acknowledged")),
            _ => drop(kept.incidents.get_mut(&key).map(|state| *state = "resolved")),
        }
        let answer = json!({ "status": "success", "message": "Event processed", "dedup_key": key });
        (StatusCode::ACCEPTED, Json(answer)).into_response()
    })
}

/// `POST /api/v2/alerts`: 200 without a body; an alert is known by its labels, and over once its `endsAt` has passed.
async fn alertmanager(State(services): State<Services>, headers: HeaderMap, bytes: Bytes) -> Response {
    services.take(held(&headers, &bytes, check_alertmanager), |kept, body| {
        for alert in body.as_array().unwrap() {
            let over = Timestamp::parse(alert["endsAt"].as_str().unwrap()).unwrap() <= AT;
            kept.alerts.insert(alert["labels"].to_string(), over);
        }
        StatusCode::OK.into_response()
    })
}

/// A receiver of Standard Webhooks: the signature first, 204.
async fn native(State(services): State<Services>, headers: HeaderMap, bytes: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
    let genuine = verify(&keys(), id, at, header("webhook-signature"), &bytes, AT.0 / 1000).map_err(|e| e.to_string());
    let schema: Value = serde_json::from_str(include_str!("../../schemas/alert.schema.json")).unwrap();
    let held = genuine.and_then(|()| held(&headers, &bytes, |body| check_native(body, &schema)));
    services.take(held, |_, _| StatusCode::NO_CONTENT.into_response())
}

async fn services() -> (SocketAddr, Services) {
    let services = Services::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/hook", post(native))
        .route("/services/T0/B0/x", post(slack))
        .route("/v2/enqueue", post(pagerduty))
        .route("/api/v2/alerts", post(alertmanager))
        .with_state(services.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, services)
}

fn at(address: SocketAddr, format: Format) -> (Endpoint, u16) {
    let (path, status) = match format {
        Format::Native => ("hook", 204),
        Format::Slack => ("services/T0/B0/x", 200),
        Format::Pagerduty => ("v2/enqueue", 202),
        // The client knows its path.
        Format::Alertmanager => ("", 200),
    };
    (endpoint(format, &format!("http://{address}/{path}")), status)
}

/// Sends with the real client; it must be taken, with the status of the service.
async fn send(address: SocketAddr, services: &Services, format: Format, message: &Message) {
    let (endpoint, status) = at(address, format);
    let client = Client::new(&endpoint, Arc::new(SystemResolver)).unwrap().within(FAR);
    let request = prepare(&endpoint, &keys(), message, AT.0 / 1000).unwrap();
    let outcome = client.send(&request).await;
    assert_eq!(outcome, Outcome::Delivered { status }, "{format:?}: {:?}", services.0.lock().unwrap().refused);
}

#[tokio::test]
async fn every_message_is_taken_by_its_service() {
    let (address, services) = services().await;
    let mut sent = 0;
    for account in ["anna@example.org", "<!channel> <script>\u{202E}\u{1B}[31m\r\n", &"x".repeat(10_000)] {
        for message in messages(account) {
            for format in [Format::Native, Format::Slack, Format::Pagerduty, Format::Alertmanager] {
                send(address, &services, format, &message).await;
                sent += 1;
            }
        }
    }
    let kept = services.0.lock().unwrap();
    assert_eq!((kept.taken, kept.refused.len()), (sent, 0));
}

/// The way of one incident: flagged, worse, somebody looks after it, over.
#[tokio::test]
async fn an_incident_is_triggered_acknowledged_and_resolved_where_incidents_are_kept() {
    let (address, services) = services().await;
    let (warning, critical) = (Severity::Warning, Severity::Critical);
    let (flagged, escalated, cleared) = (AlertKind::Flagged, AlertKind::Escalated, AlertKind::Cleared);
    let account = "anna@example.org";
    let way = [
        (grouped(&[flagged], IncidentState::Open, warning, account), "triggered"),
        (grouped(&[flagged, escalated], IncidentState::Open, critical, account), "triggered"),
        (grouped(&[flagged, escalated], IncidentState::Acknowledged, critical, account), "acknowledged"),
        (grouped(&[flagged, escalated, cleared], IncidentState::Cleared, critical, account), "resolved"),
    ];
    for (step, (message, state)) in way.iter().enumerate() {
        for format in [Format::Slack, Format::Pagerduty, Format::Alertmanager] {
            send(address, &services, format, message).await;
        }
        let kept = services.0.lock().unwrap();
        let key = "in-0011223344556677".to_owned();
        assert_eq!(kept.incidents, BTreeMap::from([(key, *state)]), "step {step}");
        // The warning's alert ends where the critical one begins.
        let open = kept.alerts.values().filter(|over| !**over).count();
        assert_eq!(open, usize::from(*state != "resolved"), "step {step}: {:?}", kept.alerts);
        assert_eq!(kept.shown.len(), step + 1);
        assert!(kept.shown[step].contains(account), "{:?}", kept.shown);
    }
    // The same alert by alert.
    for (kind, severity, state) in [(flagged, critical, "triggered"), (cleared, critical, "resolved")] {
        send(address, &services, Format::Pagerduty, &every(kind, severity, account)).await;
        assert_eq!(services.0.lock().unwrap().incidents.values().next(), Some(&state));
    }
}

/// The receiver is worth what it refuses.
#[tokio::test]
async fn what_breaks_the_rules_is_refused() {
    let (address, services) = services().await;
    for format in [Format::Native, Format::Slack, Format::Pagerduty, Format::Alertmanager] {
        let (endpoint, _) = at(address, format);
        let client = Client::new(&endpoint, Arc::new(SystemResolver)).unwrap().within(FAR);
        let message = every(AlertKind::Flagged, Severity::Critical, "anna@example.org");
        let mut request = prepare(&endpoint, &keys(), &message, AT.0 / 1000).unwrap();
        request.body = br#"{"event_action":"trigger"}"#.to_vec();
        assert!(matches!(client.send(&request).await, Outcome::Refused { status: 400, .. }), "{format:?}");
    }
    let kept = services.0.lock().unwrap();
    assert_eq!((kept.taken, kept.refused.len()), (0, 4));
}
