//! Alertmanager: `POST /api/v2/alerts`, an array of `postableAlert`.
//!
//! Rules: <https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>. Two posts are about one alert where their
//! labels are the same. Severity is a label, since routes go by it: so an escalation ends the warning and begins the critical
//! one, and clearing ends both. An alert without `endsAt` is taken for over after `resolve_timeout` (5 min) unless it is sent
//! again; we send it once, so that it says itself how long it holds.

use serde_json::{Value, json};

use crate::core::alert::Severity;
use crate::event::Timestamp;

use super::body::{Face, IncidentState, NAME_CHARS_LEAST, Subject};
use super::text::clean;

const PATH: &str = "/api/v2/alerts";
/// An incident, a storm or an anomaly is over long before, and says so; otherwise it would be for ever.
const INCIDENT_MS: i64 = 7 * 86_400_000;

/// Where alerts go on the server that is configured, by its address or by the full path.
pub(super) fn url(configured: &str) -> String {
    let base = configured.trim_end_matches('/');
    if base.ends_with(PATH) || base.contains('?') { base.to_owned() } else { format!("{base}{PATH}") }
}

pub(super) fn render(face: &Face) -> Value {
    let over = face.state == IncidentState::Cleared;
    let critical = face.severity == Severity::Critical;
    let was_warning = critical && (over || (face.subject == Subject::Account && face.escalated));
    // A storm may hold warnings only, and the anomaly it belongs to be critical.
    let was_critical = !critical && over && face.subject != Subject::Account;
    let mut alerts = vec![alert(face, face.severity, over)];
    if was_warning {
        alerts.push(alert(face, Severity::Warning, true));
    }
    if was_critical {
        alerts.push(alert(face, Severity::Critical, true));
    }
    Value::Array(alerts)
}

fn alert(face: &Face, severity: Severity, over: bool) -> Value {
    let name = match face.subject {
        Subject::Account => "MailfuseAccount",
        Subject::Storm => "MailfuseStorm",
        Subject::Other => "MailfuseNotice",
    };
    let ends = if over { face.at } else { Timestamp(face.at.0.saturating_add(INCIDENT_MS)) };
    // However much else has to be cut, the labels stay the same: they say which alert it is.
    let label = |text: &str| json!(clean(text, NAME_CHARS_LEAST));
    let mut labels = json!({ "alertname": name, "severity": severity, "incident": label(&face.incident) });
    // The pattern may change on the way, and with it would the alert: it is no label.
    for (name, value) in [("account", &face.account), ("tenant", &face.tenant)] {
        if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
            labels[name] = label(value);
        }
    }
    if face.subject == Subject::Other {
        labels["kind"] = json!(face.kind);
    }
    let facts = face.facts.iter().map(|(name, value)| format!("{name}: {value}"));
    let description: Vec<String> = face.lines.iter().cloned().chain(facts).collect();
    let mut annotations = json!({ "summary": face.title });
    if !description.is_empty() {
        annotations["description"] = json!(description.join("\n"));
    }
    if let Some(pattern) = face.pattern {
        annotations["pattern"] = json!(pattern);
    }
    let mut alert = json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": face.since.min(ends),
        "endsAt": ends,
    });
    if !face.link.is_empty() {
        alert["generatorURL"] = json!(face.link);
    }
    alert
}

#[cfg(test)]
mod tests {
    use super::url;

    #[test]
    fn the_path_is_added_once() {
        assert_eq!(url("http://am:9093"), "http://am:9093/api/v2/alerts");
        assert_eq!(url("http://am:9093/prefix/"), "http://am:9093/prefix/api/v2/alerts");
        assert_eq!(url("http://am:9093/api/v2/alerts"), "http://am:9093/api/v2/alerts");
    }
}
