//! PagerDuty: Events API v2, `POST /v2/enqueue`.
//!
//! Rules: <https://developer.pagerduty.com/docs/events-api-v2/trigger-events/>. `routing_key` and `event_action` are required; to
//! trigger, `payload` with `summary` (1,024 characters), `source` and `severity`; `dedup_key` has 255 characters.

use serde_json::{Map, Value, json};

use crate::core::alert::Severity;

use super::body::{Face, IncidentState};
use super::text::clean;

pub(super) fn render(face: &Face, routing_key: &str) -> Value {
    let action = match face.state {
        IncidentState::Open => "trigger",
        IncidentState::Acknowledged => "acknowledge",
        IncidentState::Cleared => "resolve",
    };
    let mut event = json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": clean(&face.incident, 255),
    });
    if face.state != IncidentState::Open {
        return event;
    }
    let mut details: Map<String, Value> =
        face.facts.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    if !face.lines.is_empty() {
        details.insert("Evidence".into(), json!(face.lines));
    }
    let mut payload = json!({
        "summary": clean(&face.title, 1024),
        "source": face.account.as_deref().filter(|account| !account.is_empty()).unwrap_or("mailfuse"),
        "severity": match face.severity { Severity::Critical => "critical", Severity::Warning => "warning" },
        "timestamp": face.at,
        "component": "mail",
        "custom_details": details,
    });
    if let Some(tenant) = face.tenant.as_deref().filter(|tenant| !tenant.is_empty()) {
        payload["group"] = json!(tenant);
    }
    payload["class"] = json!(face.pattern.unwrap_or(&face.kind));
    event["payload"] = payload;
    event["client"] = json!("mailfuse");
    if !face.link.is_empty() {
        event["client_url"] = json!(face.link);
        event["links"] = json!([{ "href": face.link, "text": "Open in mailfuse" }]);
    }
    event
}
