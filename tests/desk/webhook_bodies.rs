//! Each body against the published rules of its receiver, with names that mean harm and with little room.

use crate::desk_webhook_support;

use std::collections::BTreeMap;

use desk_webhook_support::{AT, alert, endpoint, every, grouped, keys, row};
use mailfuse::core::alert::{AlertKind, RelayShare, Severity};
use mailfuse::desk::webhook::body::{IncidentState, Message, What, prepare, render};
use mailfuse::desk::webhook::digest::{Digest, TenantShare, Worst};
use mailfuse::desk::webhook::settings::{BODY_BYTES_MIN, Endpoint, Format};
use mailfuse::desk::webhook::sign::verify;
use mailfuse::desk::webhook::storm::{Row, Storm, Top};
use mailfuse::directory::Facts;
use mailfuse::event::Timestamp;
use serde_json::{Value, json};

const FORMATS: [Format; 4] = [Format::Native, Format::Slack, Format::Pagerduty, Format::Alertmanager];

fn storm(account: &str) -> Message {
    let top = |n: u64| Top {
        account: format!("{account}{n}"),
        tenant: account.into(),
        incident: format!("in-{n}"),
        severity: Severity::Critical,
        recipients: 1000 - n,
    };
    let storm = Storm {
        row: row(),
        first_seq: 100,
        first_ts: Timestamp(AT.0 - 30_000),
        last_ts: AT,
        kinds: BTreeMap::from([("account.flagged".into(), 9_000), ("account.escalated".into(), 12)]),
        critical: 5_000,
        warning: 4_012,
        cleared: 0,
        recipients: 1_234_567,
        top: (0..10).map(top).collect(),
    };
    Message {
        id: "msg_storm".into(),
        kind: "storm".into(),
        at: AT,
        severity: Severity::Critical,
        incident: storm.row.incident.clone(),
        link: storm.link("https://desk.example/"),
        customer: None,
        what: What::Storm(Box::new(storm)),
    }
}

fn storm_over(anomaly: bool) -> Message {
    let row = Row { anomaly, open: 0, ..row() };
    Message {
        id: "msg_over".into(),
        kind: "storm.over".into(),
        at: AT,
        severity: row.severity(),
        incident: row.incident.clone(),
        customer: None,
        link: row.link("https://desk.example/"),
        what: What::StormOver(Box::new(row)),
    }
}

fn digest(account: &str) -> Message {
    let digest = Digest {
        first_seq: 41,
        due: AT,
        first_ts: Timestamp(AT.0 - 80_000_000),
        last_ts: Timestamp(AT.0 - 1000),
        severity: Severity::Critical,
        critical: 40,
        warning: 300,
        open: 12,
        earlier_escalated: 1,
        earlier_over: 3,
        kinds: BTreeMap::from([("account.flagged".into(), 340), ("campaign".into(), 1)]),
        tenants: (0..20).map(|n| TenantShare { tenant: format!("{account}{n}"), critical: n, warning: 2 }).collect(),
        other_tenants: 110,
        top: (0..10)
            .map(|n| Worst {
                account: format!("{account}{n}"),
                tenant: account.into(),
                incident: format!("in-{n}"),
                severity: Severity::Critical,
                recipients: 1000 - n,
                open: n < 5,
            })
            .collect(),
    };
    Message {
        id: "msg_digest".into(),
        kind: "digest".into(),
        at: digest.due,
        severity: digest.severity,
        incident: digest.incident(),
        link: "https://desk.example/v1/alerts?after=40".into(),
        customer: None,
        what: What::Digest(Box::new(digest)),
    }
}

fn notice(account: &str) -> Message {
    Message {
        kind: "stream.anomaly".into(),
        what: What::Other {
            summary: format!("Refusals of all accounts at once, {account} first"),
            state: IncidentState::Open,
            data: json!({ "accounts": vec![account; 20] }),
        },
        ..every(AlertKind::Flagged, Severity::Warning, account)
    }
}

pub fn messages(account: &str) -> Vec<Message> {
    use AlertKind::{Cleared, Escalated, Flagged};
    use Severity::{Critical, Warning};
    let mut big = every(Flagged, Critical, account);
    if let What::Alert(alert) = &mut big.what {
        alert.tenant = account.to_owned();
        alert.relays = vec![RelayShare { relay: account.into(), messages: 1, recipients: 1 }; 40];
        alert.evidence = vec![alert.evidence[0].clone(); 40];
        alert.evidence[0].text = account.repeat(3);
        alert.burst.as_mut().unwrap().queue_ids = vec![account.to_owned(); 10];
        alert.burst.as_mut().unwrap().client_ips = vec![account.to_owned(); 16];
    }
    vec![
        every(Flagged, Warning, account),
        every(Escalated, Critical, account),
        every(Cleared, Critical, account),
        big,
        grouped(&[Flagged], IncidentState::Open, Warning, account),
        grouped(&[Flagged, Escalated], IncidentState::Acknowledged, Critical, account),
        grouped(&[Flagged, Escalated, Cleared], IncidentState::Cleared, Critical, account),
        grouped(&[Flagged; 30], IncidentState::Open, Warning, account),
        storm(account),
        storm_over(false),
        storm_over(true),
        digest(account),
        notice(account),
        Message { link: String::new(), ..every(Flagged, Warning, account) },
        Message { customer: Some(Box::new(customer(account))), ..every(Flagged, Critical, account) },
    ]
}

/// What a directory says, all of it in these words.
fn customer(words: &str) -> Facts {
    let words = || Some(words.to_owned());
    Facts {
        tenant: words(),
        tenant_name: words(),
        created: words(),
        plan: words(),
        contact: words(),
        language: words(),
        zone: words(),
    }
}

#[test]
fn whoever_reads_an_alert_sees_whom_to_call() {
    let customer = Facts {
        tenant: Some("shop.example".to_owned()),
        tenant_name: Some("Shop Ltd".to_owned()),
        created: Some("2019-05-02".to_owned()),
        plan: Some("basic".to_owned()),
        contact: Some("owner@elsewhere.example".to_owned()),
        ..Facts::default()
    };
    let alone = every(AlertKind::Flagged, Severity::Critical, "ann@shop.example");
    let message = Message { customer: Some(Box::new(customer)), ..alone.clone() };
    for format in FORMATS {
        let (text, without) = (full(format, &message).to_string(), full(format, &alone).to_string());
        for word in ["Shop Ltd", "2019-05-02", "basic", "owner@elsewhere.example"] {
            assert!(text.contains(word) && !without.contains(word), "{format:?}: {word}: {text}");
        }
    }
    assert_eq!(full(Format::Native, &message)["customer"]["contact"], "owner@elsewhere.example");
    // Where there is little room, what the receiver can look up goes before the alert does.
    let big = Message { customer: Some(Box::new(self::customer(&"\u{1}".repeat(256)))), ..alone };
    let small = body(Format::Native, BODY_BYTES_MIN, &big);
    assert_eq!((small.get("customer"), &small["truncated"]), (None, &json!(true)));
}

fn body(format: Format, bytes_max: usize, message: &Message) -> Value {
    let endpoint = Endpoint { body_bytes_max: bytes_max, ..endpoint(format, "https://example.org/hook") };
    let body = render(&endpoint, &keys(), message).unwrap();
    assert!(body.len() <= bytes_max, "{format:?}: {} bytes of {bytes_max}", body.len());
    assert_eq!(render(&endpoint, &keys(), message).unwrap(), body, "the same message is the same body");
    serde_json::from_slice(&body).unwrap()
}

fn full(format: Format, message: &Message) -> Value {
    body(format, 19_999, message)
}

fn holds_to(schema: &Value, body: &Value) {
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(body).map(|e| format!("{} at {}", e, e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:?} in {body:#}");
}

/// Standard Webhooks, "Payload structure": type, timestamp (ISO 8601), data; the alert as `schemas/alert.schema.json` has it.
pub fn check_native(body: &Value, alert_schema: &Value) {
    let schema = json!({
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": { "type": "string", "pattern": "^[a-zA-Z0-9_.]+$" },
            "timestamp": { "type": "string", "format": "date-time" },
            "truncated": { "const": true },
            "data": { "type": "object" },
            "customer": { "type": "object" }
        },
        "additionalProperties": false
    });
    holds_to(&schema, body);
    let data = &body["data"];
    match data.get("alerts") {
        Some(Value::Array(alerts)) => alerts.iter().for_each(|alert| holds_to(alert_schema, alert)),
        _ if data.get("v").is_some() => holds_to(alert_schema, data),
        _ => {}
    }
}

/// <https://developer.pagerduty.com/docs/events-api-v2/trigger-events/>: the table of fields; `routing_key` has 32 characters.
pub fn check_pagerduty(body: &Value) {
    let text = |max: u64| json!({ "type": "string", "minLength": 1, "maxLength": max });
    let schema = json!({
        "type": "object",
        "required": ["routing_key", "event_action", "dedup_key"],
        "properties": {
            "routing_key": { "type": "string", "minLength": 32, "maxLength": 32 },
            "event_action": { "enum": ["trigger", "acknowledge", "resolve"] },
            "dedup_key": text(255),
            "payload": {
                "type": "object",
                "required": ["summary", "source", "severity"],
                "properties": {
                    "summary": text(1024),
                    "source": text(1024),
                    "severity": { "enum": ["critical", "warning", "error", "info"] },
                    "timestamp": { "type": "string", "format": "date-time" },
                    "component": text(1024),
                    "group": text(1024),
                    "class": text(1024),
                    "custom_details": { "type": "object" }
                },
                "additionalProperties": false
            },
            "client": text(1024),
            "client_url": { "type": "string", "format": "uri" },
            "links": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["href"],
                    "properties": { "href": { "type": "string", "format": "uri" }, "text": text(1024) }
                }
            }
        },
        "if": { "properties": { "event_action": { "const": "trigger" } } },
        "then": { "required": ["payload"] },
        "additionalProperties": false
    });
    holds_to(&schema, body);
}

/// `postableAlerts` of <https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>; names of labels as
/// <https://prometheus.io/docs/concepts/data_model/>; an end is not before its start (`types.Alert.Validate`).
pub fn check_alertmanager(body: &Value) {
    let labels = json!({
        "type": "object",
        "propertyNames": { "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$" },
        "additionalProperties": { "type": "string", "minLength": 1 }
    });
    let schema = json!({
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "object",
            "required": ["labels"],
            "properties": {
                "labels": labels,
                "annotations": labels,
                "startsAt": { "type": "string", "format": "date-time" },
                "endsAt": { "type": "string", "format": "date-time" },
                "generatorURL": { "type": "string", "format": "uri" }
            },
            "additionalProperties": false
        }
    });
    holds_to(&schema, body);
    for alert in body.as_array().unwrap() {
        let time = |key: &str| Timestamp::parse(alert[key].as_str().unwrap()).unwrap();
        assert!(time("startsAt") <= time("endsAt"), "{alert:#}");
        assert!(alert["labels"]["alertname"].is_string());
    }
}

/// <https://docs.slack.dev/reference/block-kit/blocks> and its pages of `header`, `section` and `context`.
pub fn check_slack(body: &Value) {
    let blocks = body["blocks"].as_array().unwrap();
    assert!((1..=50).contains(&blocks.len()));
    assert!(body["text"].as_str().unwrap().chars().count() <= 4000);
    for block in blocks {
        match block["type"].as_str().unwrap() {
            "header" => {
                assert_eq!(block["text"]["type"], "plain_text");
                slack_text(&block["text"], 150);
            }
            "section" => match block.get("fields") {
                Some(fields) => {
                    let fields = fields.as_array().unwrap();
                    assert!((1..=10).contains(&fields.len()));
                    fields.iter().for_each(|field| slack_text(field, 2000));
                }
                None => slack_text(&block["text"], 3000),
            },
            "context" => {
                let elements = block["elements"].as_array().unwrap();
                assert!((1..=10).contains(&elements.len()));
                elements.iter().for_each(|element| slack_text(element, 3000));
            }
            other => panic!("{other}"),
        }
    }
    slack_escaped(body["text"].as_str().unwrap());
}

fn slack_text(text: &Value, units_max: usize) {
    let words = text["text"].as_str().unwrap();
    assert!((1..=units_max).contains(&words.encode_utf16().count()), "{words}");
    match text["type"].as_str().unwrap() {
        "plain_text" => slack_escaped(words),
        "mrkdwn" => {
            // The one thing that is ours: a link, with nothing in it that would end it.
            let inner = words.strip_prefix('<').unwrap().strip_suffix("|Open in mailfuse>").unwrap();
            assert!(!inner.contains(['<', '>', '|', ' ']), "{words}");
            assert!(inner.starts_with("https://"));
        }
        other => panic!("{other}"),
    }
}

fn slack_escaped(text: &str) {
    assert!(!text.contains(['<', '>']), "{text}");
    let rest = text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
    assert!(!rest.contains('&'), "{text}");
}

fn strings(value: &Value, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(list) => list.iter().for_each(|one| strings(one, visit)),
        Value::Object(map) => map.values().for_each(|one| strings(one, visit)),
        _ => {}
    }
}

#[test]
fn every_body_keeps_its_rules_whatever_an_account_is_called_and_however_little_room_there_is() {
    let alert_schema: Value = serde_json::from_str(include_str!("../../schemas/alert.schema.json")).unwrap();
    let hostile = [
        "anna@example.org".to_owned(),
        "<script>alert(1)</script>".to_owned(),
        "<!channel> *bold* _x_ ~y~ `z` <https://evil.example|click> &amp; @here :smile:".to_owned(),
        "\u{202E}gro.elpmaxe@anna\u{202C}\u{2066}\u{200F}\u{FEFF}\u{E0041}".to_owned(),
        "a\u{0}b\u{1B}[31mc\r\nd\te\u{7F}\u{85}f\u{2028}".to_owned(),
        "x".repeat(10_000),
        "\u{1}".repeat(10_000),
        "\"\\&<>".repeat(2_000),
        "🦀".repeat(3_000),
        "\u{202E}".repeat(3_000),
        " ".to_owned(),
    ];
    for account in &hostile {
        for message in messages(account) {
            for format in FORMATS {
                for bytes_max in [BODY_BYTES_MIN, 6000, 10_000, 19_999] {
                    let body = body(format, bytes_max, &message);
                    match format {
                        Format::Native => check_native(&body, &alert_schema),
                        Format::Slack => check_slack(&body),
                        Format::Pagerduty => check_pagerduty(&body),
                        Format::Alertmanager => check_alertmanager(&body),
                    }
                    if format != Format::Native {
                        strings(&body, &mut |text| {
                            let bad = |c: char| {
                                (c.is_control() && c != '\n')
                                    || "\u{202E}\u{202C}\u{2066}\u{200F}\u{FEFF}\u{E0041}\u{2028}".contains(c)
                            };
                            assert!(!text.contains(bad), "{format:?}: {text:?}");
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn native_has_the_alert_or_the_incident_as_it_stands() {
    let one = full(Format::Native, &every(AlertKind::Flagged, Severity::Critical, "anna@example.org"));
    assert_eq!((&one["type"], &one["timestamp"]), (&json!("account.flagged"), &json!("2026-03-02T08:00:00.000Z")));
    let expected = serde_json::to_value(alert(AlertKind::Flagged, Severity::Critical, "anna@example.org")).unwrap();
    assert_eq!(one["data"], expected);
    assert!(one.get("truncated").is_none());
    let kinds = [AlertKind::Flagged, AlertKind::Escalated];
    let incident = full(Format::Native, &grouped(&kinds, IncidentState::Open, Severity::Critical, "anna@example.org"));
    let data = &incident["data"];
    assert_eq!(incident["type"], "account.escalated");
    assert_eq!(
        (&data["state"], &data["severity"], &data["counts"]["recipients"]),
        (&json!("open"), &json!("critical"), &json!(310))
    );
    assert_eq!((data["alerts"].as_array().unwrap().len(), &data["account"]), (2, &json!("anna@example.org")));
    let storm = full(Format::Native, &storm("a"));
    assert_eq!((&storm["type"], &storm["data"]["kinds"]["account.flagged"]), (&json!("storm"), &json!(9000)));
    assert_eq!(storm["data"]["link"], "https://desk.example/v1/alerts?after=99");
}

#[test]
fn samples_and_evidence_are_cut_first() {
    let mut message = grouped(&[AlertKind::Flagged; 6], IncidentState::Open, Severity::Critical, "anna@example.org");
    let whole = serde_json::to_vec(&full(Format::Native, &message)).unwrap().len();
    let cut = body(Format::Native, whole - 1, &message);
    let first = &cut["data"]["alerts"][0];
    assert_eq!((&cut["truncated"], &first["burst"]["queue_ids"]), (&json!(true), &json!([])));
    assert_eq!((cut["data"]["alerts"].as_array().unwrap().len(), first["evidence"].as_array().unwrap().len()), (6, 2));
    // A hostile name is cut long before the message is of no use.
    if let What::Incident(incident) = &mut message.what {
        incident.account = "x".repeat(10_000);
    }
    let cut = body(Format::Native, BODY_BYTES_MIN, &message);
    assert!(cut["data"]["account"].as_str().unwrap().starts_with("xxxx"));
    assert_eq!(cut["data"]["counts"]["recipients"], 310);
}

#[test]
fn pagerduty_triggers_acknowledges_and_resolves_one_incident() {
    let action = |message: &Message| {
        let body = full(Format::Pagerduty, message);
        (body["event_action"].as_str().unwrap().to_owned(), body["dedup_key"].as_str().unwrap().to_owned())
    };
    let (warning, critical) = (Severity::Warning, Severity::Critical);
    let key = "in-0011223344556677".to_owned();
    for (message, expected) in [
        (every(AlertKind::Flagged, warning, "a"), "trigger"),
        (every(AlertKind::Escalated, critical, "a"), "trigger"),
        (every(AlertKind::Cleared, critical, "a"), "resolve"),
        (grouped(&[AlertKind::Flagged], IncidentState::Acknowledged, warning, "a"), "acknowledge"),
        (grouped(&[AlertKind::Flagged, AlertKind::Cleared], IncidentState::Cleared, warning, "a"), "resolve"),
    ] {
        assert_eq!(action(&message), (expected.to_owned(), key.clone()));
    }
    let flagged = full(Format::Pagerduty, &every(AlertKind::Flagged, critical, "anna@example.org"));
    assert_eq!(flagged["payload"]["summary"], "Critical: anna@example.org looks hijacked");
    assert_eq!(flagged["payload"]["source"], "anna@example.org");
    let alone = Endpoint { format: Format::Pagerduty, ..endpoint(Format::Pagerduty, "") };
    let request = prepare(&alone, &keys(), &every(AlertKind::Flagged, critical, "a"), 0).unwrap();
    assert_eq!(request.url, "https://events.pagerduty.com/v2/enqueue");
    assert!(!format!("{request:?}").contains("0123456789abcdef"));
    assert!(render(&alone, &Default::default(), &every(AlertKind::Flagged, critical, "a")).is_err());
}

#[test]
fn alertmanager_ends_what_it_began() {
    let labels = |message: &Message| -> Vec<(Value, bool)> {
        let body = full(Format::Alertmanager, message);
        let over = |alert: &Value| alert["endsAt"].as_str().unwrap() <= AT.to_string().as_str();
        body.as_array().unwrap().iter().map(|alert| (alert["labels"].clone(), over(alert))).collect()
    };
    let (warning, critical) = (Severity::Warning, Severity::Critical);
    let flagged = labels(&every(AlertKind::Flagged, warning, "a"));
    let escalated = labels(&every(AlertKind::Escalated, critical, "a"));
    let cleared = labels(&every(AlertKind::Cleared, critical, "a"));
    assert_eq!((flagged.len(), flagged[0].1), (1, false));
    assert_eq!((escalated[0].1, &escalated[1]), (false, &(flagged[0].0.clone(), true)));
    assert_eq!(cleared, [(escalated[0].0.clone(), true), (flagged[0].0.clone(), true)]);
    assert_eq!(labels(&every(AlertKind::Cleared, warning, "a")), [(flagged[0].0.clone(), true)]);
    let (storm_labels, over) = (labels(&storm("a")), labels(&storm_over(false)));
    assert!(storm_labels.len() == 1 && over.contains(&(storm_labels[0].0.clone(), true)), "{over:?}");
    // The end of an anomaly's storms ends the anomaly's own alert.
    let anomaly = labels(&Message { severity: critical, incident: row().incident, ..notice("a") });
    assert!(labels(&storm_over(true)).contains(&(anomaly[0].0.clone(), true)), "{anomaly:?}");
    // Labels stay the same when there is less room, or the alert would never end.
    let long = "ä".repeat(500);
    let small = body(Format::Alertmanager, BODY_BYTES_MIN, &every(AlertKind::Flagged, warning, &long));
    assert_eq!(small[0]["labels"], full(Format::Alertmanager, &every(AlertKind::Flagged, warning, &long))[0]["labels"]);
    let request = prepare(&endpoint(Format::Alertmanager, "http://am:9093/"), &keys(), &storm("a"), 0).unwrap();
    assert_eq!(request.url, "http://am:9093/api/v2/alerts");
}

#[test]
fn a_request_is_signed_over_what_is_sent() {
    let message = every(AlertKind::Flagged, Severity::Critical, "anna@example.org");
    let request =
        prepare(&endpoint(Format::Native, "https://example.org/hook"), &keys(), &message, 1_772_438_500).unwrap();
    let header = |name: &str| request.headers.iter().find(|(n, _)| *n == name).unwrap().1.as_str();
    assert_eq!((header("webhook-id"), header("webhook-timestamp")), ("msg_00112233", "1772438500"));
    let signature = header("webhook-signature");
    let check = |body: &[u8]| verify(&keys(), "msg_00112233", "1772438500", signature, body, 1_772_438_510);
    assert_eq!(check(&request.body), Ok(()));
    assert!(check(b"{}").is_err());
    assert_eq!(header("user-agent"), concat!("mailfuse/", env!("CARGO_PKG_VERSION")));
}
