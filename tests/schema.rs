//! The schemas, the code and the examples say the same: examples validate, what the schema allows we read, what we emit
//! validates.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use jsonschema::Validator;
use mailfuse::core::alert::{
    Action, Alert, AlertKind, Burst, ContentShare, DomainShare, Evidence, Exempt, Pattern, RelayShare, Severity, Signal,
};
use mailfuse::core::decision::Decisions;
use mailfuse::core::signal;
use mailfuse::desk::notice::Said;
use mailfuse::directory::entry::{Entry, parse as parse_entry};
use mailfuse::event::{
    Auth, Complaint, Decoded, Event, Kind, Limits, Outcome, Recipients, Send, Status, Timestamp, decode, encode, fold,
};
use mailfuse::relays::served::Served;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use serde_json::{Map, Value, json};

const EVENTS: &str = include_str!("../schemas/examples/events.jsonl");
const REJECTS: &str = include_str!("../schemas/examples/rejects.jsonl");
const ALERTS: &str = include_str!("../schemas/examples/alerts.jsonl");
const NOTICES: &str = include_str!("../schemas/examples/notices.jsonl");
const SIGNALS: &str = include_str!("../schemas/examples/signals.jsonl");
const CONTROL: &str = include_str!("../schemas/examples/control.jsonl");

fn schema(text: &str) -> Validator {
    let schema: Value = serde_json::from_str(text).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

fn event_schema() -> Validator {
    schema(include_str!("../schemas/event.schema.json"))
}

fn alert_schema() -> Validator {
    schema(include_str!("../schemas/alert.schema.json"))
}

#[track_caller]
fn check_valid(schema: &Validator, text: &[u8]) {
    let value: Value = serde_json::from_slice(text).unwrap();
    let errors: Vec<String> = schema.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?} in {value:#}");
}

#[test]
fn example_events_validate_and_are_read() {
    let schema = event_schema();
    for line in EVENTS.lines() {
        check_valid(&schema, line.as_bytes());
        decode(line.as_bytes(), &Limits::default(), None).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
}

#[test]
fn example_notices_validate_and_are_read_and_written_as_they_are() {
    let schema = alert_schema();
    for line in NOTICES.lines() {
        check_valid(&schema, line.as_bytes());
        match serde_json::from_str::<Said>(line).unwrap() {
            Said::Fleet(notice) => assert_eq!(serde_json::to_string(&notice).unwrap(), line),
            Said::Account(alert) => panic!("{alert:?} is no notice"),
        }
    }
}

#[test]
fn example_rejects_are_rejected_for_their_reason() {
    #[derive(serde::Deserialize)]
    struct Example {
        reason: String,
        line: String,
    }
    let not_after = Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
    for example in REJECTS.lines() {
        let Example { reason, line } = serde_json::from_str(example).unwrap();
        let reject = decode(line.as_bytes(), &Limits::default(), Some(not_after)).expect_err(&line);
        assert_eq!(reject.reason(), reason, "{reject}: {line}");
    }
}

#[test]
fn the_schema_refuses_what_we_reject_except_what_no_schema_can_say() {
    let schema = event_schema();
    for example in REJECTS.lines() {
        let example: Value = serde_json::from_str(example).unwrap();
        let line = example["line"].as_str().unwrap();
        let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
        let beyond_schemas = example["reason"] == "future" || line.matches("\"account\"").count() > 1;
        assert_eq!(schema.is_valid(&value), beyond_schemas, "{line}");
    }
}

#[test]
fn example_alerts_validate_and_are_what_we_write() {
    let schema = alert_schema();
    for line in ALERTS.lines() {
        check_valid(&schema, line.as_bytes());
        let alert: Alert = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&alert).unwrap(), line);
    }
}

#[test]
fn the_alert_schema_knows_no_other_fields_and_kinds() {
    let schema = alert_schema();
    let alert: Value = serde_json::from_str(ALERTS.lines().next().unwrap()).unwrap();
    for (field, value) in [
        ("extra", json!(1)),
        ("kind", json!("account.suspected")),
        ("ts", json!("2026-03-02T03:12:44Z")),
        ("evidence", json!([])),
        ("relay", json!("out-1")),
        ("action", json!("pull_relay")),
        ("severity", json!("high")),
    ] {
        let mut wrong = alert.clone();
        wrong[field] = value;
        assert!(!schema.is_valid(&wrong), "{field}");
    }
    for field in ["id", "account", "burst", "by", "relays"] {
        let mut wrong = alert.clone();
        wrong.as_object_mut().unwrap().remove(field);
        assert!(!schema.is_valid(&wrong), "without {field}");
    }
}

#[test]
fn the_word_that_a_stop_is_served_validates_and_is_read_as_written() {
    let schema = schema(include_str!("../schemas/signal.schema.json"));
    let served = Served::new("m-1", 1_772_420_000_123);
    let line = serde_json::to_vec(&served).unwrap();
    check_valid(&schema, &line);
    assert_eq!(Served::read(&line), Ok(served.clone()));
    assert!(Served::is_key(served.key().as_bytes()) && !Served::is_key(b"burst/i/1"));
    for (field, wrong) in [("v", json!(2)), ("kind", json!("burst")), ("measure", json!(7)), ("at", json!(null))] {
        let mut wrongly = serde_json::to_value(&served).unwrap();
        wrongly[field] = wrong;
        assert!(!schema.is_valid(&wrongly), "{field}");
        assert!(Served::read(&serde_json::to_vec(&wrongly).unwrap()).is_err(), "{field}");
    }
}

#[test]
fn example_signals_validate_and_are_what_we_write() {
    let schema = schema(include_str!("../schemas/signal.schema.json"));
    for line in SIGNALS.lines() {
        check_valid(&schema, line.as_bytes());
        let value: Value = serde_json::from_str(line).unwrap();
        let is_burst = value["kind"] == "burst";
        let key: &[u8] = if is_burst { b"burst/i/1" } else { b"relays/12/3/1" };
        let read = signal::Signal::read(key, line.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), line);
        assert!(read.key().starts_with(if is_burst { "burst/i-8a0f" } else { "relays/12/3/29" }), "{}", read.key());
        // Of the other kind it is none, nor with fields that the kind does not have.
        let other: &[u8] = if is_burst { b"relays/1/0/1" } else { b"burst/i/1" };
        assert!(signal::Signal::read(other, line.as_bytes()).is_err());
        for (field, wrong) in [
            ("kind", json!(if is_burst { "relays" } else { "burst" })),
            ("minute", json!("2026-03-02T03:12:44.000Z")),
            ("seq", json!(-1)),
            (if is_burst { "partition" } else { "tenant" }, json!("x")),
        ] {
            let mut wrongly = value.clone();
            wrongly[field] = wrong;
            assert!(!schema.is_valid(&wrongly), "{field}");
        }
        for (relay, what) in [("families", json!({"nobody": 1})), ("none", json!({}))] {
            let mut wrongly = value.clone();
            wrongly["relays"][0]["refused"] = what;
            assert!(!schema.is_valid(&wrongly), "{relay}");
        }
    }
}

#[test]
fn example_control_records_validate_and_are_what_we_write() {
    let schema = schema(include_str!("../schemas/control.schema.json"));
    for line in CONTROL.lines() {
        check_valid(&schema, line.as_bytes());
        let record = Decisions::parse(line.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), line);
    }
    // What we refuse, the schema refuses; `until` before `from` is beyond it.
    let records: Vec<Value> = CONTROL.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let wrong = |record: usize, decision: usize, field: &str, value: Option<Value>| {
        let mut wrong = records[record].clone();
        let fields = wrong["decisions"][decision].as_object_mut().unwrap();
        match value {
            Some(value) => fields.insert(field.to_owned(), value),
            None => fields.remove(field),
        };
        wrong
    };
    let scope = |record: usize, scope: &str, name: &str| {
        let mut wrong = records[record].clone();
        wrong[scope] = json!(name);
        wrong
    };
    // A kind that a newer version has.
    let newer = wrong(0, 0, "what", Some(json!("forgive")));
    check_valid(&schema, newer.to_string().as_bytes());
    assert!(Decisions::parse(newer.to_string().as_bytes()).is_ok());
    for wrong in [
        wrong(0, 0, "what", Some(json!(7))),
        wrong(0, 0, "factor", Some(json!(1))),
        wrong(0, 0, "factor", Some(json!(10.5))),
        wrong(0, 0, "id", Some(json!("x".repeat(65)))),
        wrong(0, 0, "what", None),
        wrong(0, 0, "from", None),
        wrong(0, 0, "until", None),
        wrong(0, 0, "note", Some(json!("x".repeat(1025)))),
        wrong(1, 0, "decades", Some(json!(0))),
        wrong(1, 0, "decades", Some(json!(101))),
        wrong(1, 0, "decades", None),
        wrong(1, 1, "stratum", Some(json!("new"))),
        wrong(1, 1, "stratum", None),
        wrong(2, 0, "incident", Some(json!(""))),
        wrong(2, 0, "incident", None),
        wrong(4, 0, "incident", None),
        wrong(8, 0, "account_before", Some(json!(""))),
        wrong(8, 0, "account_before", None),
        wrong(8, 0, "learned", Some(json!(""))),
        wrong(8, 0, "learned", None),
        wrong(8, 0, "until", None),
        scope(0, "tenant", "shop.example"),
        scope(2, "account", "scope:tenant:x"),
        scope(5, "tenant", ""),
        scope(6, "domain", "a@club.example"),
        scope(7, "network", "192.0.2.1"),
        wrong(5, 0, "what", Some(json!("close"))),
        wrong(6, 0, "what", Some(json!("hijack"))),
        wrong(7, 0, "what", Some(json!("tolerate"))),
    ] {
        assert!(!schema.is_valid(&wrong), "{wrong}");
        assert!(Decisions::parse(wrong.to_string().as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn example_entries_of_the_directory_validate_and_are_read() {
    let schema = schema(include_str!("../schemas/directory.schema.json"));
    let lines: Vec<&str> = include_str!("../schemas/examples/directory.jsonl").lines().collect();
    for line in &lines {
        check_valid(&schema, line.as_bytes());
        let entry = parse_entry(line.as_bytes(), &mut HashMap::new()).unwrap_or_else(|e| panic!("{e}: {line}"));
        let written = match entry {
            Entry::Account(account) => serde_json::to_value(account).unwrap(),
            Entry::Tenant(tenant) => serde_json::to_value(tenant).unwrap(),
        };
        let mut read: Value = serde_json::from_str(line).unwrap();
        read.as_object_mut().unwrap().remove("v");
        assert_eq!(written, read, "everything that a line says is kept");
    }
    // What we refuse, the schema refuses; time zones are beyond it, and bytes.
    let entry: Value = serde_json::from_str(lines[1]).unwrap();
    let with = |field: &str, value: Value| {
        let mut wrong = entry.clone();
        wrong[field] = value;
        wrong
    };
    for wrong in [
        with("v", json!(2)),
        with("account", json!(7)),
        with("account", json!("")),
        with("tenant", json!("x".repeat(257))),
        with("created", json!("yesterday")),
        with("plan", json!([])),
        with("contact", json!("")),
        with("aliases", json!(vec!["a"; 101])),
        with("aliases", json!([7])),
        with("was", json!([{"account": "a@shop.example"}])),
        with("was", json!([{"account": "", "until": 0}])),
        with("was", json!([{"account": "a@shop.example", "until": "once"}])),
        json!({"v": 1, "name": "Shop Ltd"}),
        json!([1, "a@shop.example"]),
    ] {
        assert!(!schema.is_valid(&wrong), "{wrong}");
        assert!(parse_entry(wrong.to_string().as_bytes(), &mut HashMap::new()).is_err(), "{wrong}");
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

// --- What the schema allows -------------------------------------------------------------------------------------------

fn text() -> impl Strategy<Value = Value> {
    prop_oneof![any::<String>(), "[a-z.]{1,12}@[a-z]{1,9}\\.[a-z]{2}", "h:[0-9a-f]{12}@gmail\\.com"]
        .prop_map(Value::from)
}

fn account() -> impl Strategy<Value = Value> {
    prop_oneof!["\\PC{1,80}", "[A-Za-z.]{1,12}@[a-z]{1,9}\\.org"].prop_map(Value::from)
}

fn address() -> impl Strategy<Value = Value> {
    any::<IpAddr>().prop_map(|ip| ip.to_string().into())
}

fn time() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..32_503_679_999_u64).prop_map(Value::from),
        (0.0..32_503_679_999.0_f64).prop_map(Value::from),
        (1_000_000_000_000..=9_999_999_999_999_u64).prop_map(Value::from),
        (1_000_000_000_000..=9_999_999_999_999_u64).prop_map(|ms| Value::from(ms as f64)),
        "(19[7-9][0-9]|2[0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\
         (\\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
            .prop_map(Value::from),
    ]
}

fn count() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0..=9_007_199_254_740_991_u64).prop_map(Value::from),
        (0..1_000_000_u32).prop_map(|n| Value::from(f64::from(n)))
    ]
}

/// Anything, for fields that nobody reads.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec(("[a-z]{1,5}", inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect()))
        ]
    })
}

/// A field that may be missing, `null` or there.
fn maybe(name: &'static str, value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Vec<(String, Value)>> {
    let there = value.prop_map(move |v| vec![(name.to_owned(), v)]);
    prop_oneof![Just(vec![]), Just(vec![(name.to_owned(), Value::Null)]), there].boxed()
}

fn there(name: &'static str, value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Vec<(String, Value)>> {
    value.prop_map(move |v| vec![(name.to_owned(), v)]).boxed()
}

/// An event of the schema's shape. The fields come in any order, with others between them.
fn allowed() -> impl Strategy<Value = Value> {
    let strings = |names: &[&'static str]| names.iter().map(|&n| maybe(n, text())).collect::<Vec<_>>();
    let rcpts = || vec(text(), 0..6).prop_map(Value::from);
    let send = |recipients: Vec<BoxedStrategy<Vec<(String, Value)>>>| {
        let mut fields =
            strings(&["relay", "queue_id", "mail_from", "message_id", "content_hash", "auth", "user_agent"]);
        fields.extend(recipients);
        fields.extend([there("account", account()), maybe("client_ip", address()), maybe("size", count())]);
        fields.extend([there("kind", Just("send".into())), maybe("status", anything()), maybe("ok", anything())]);
        fields
    };
    let status = prop_oneof!["delivered", "bounced", "deferred", "rejected", "expired"].prop_map(Value::from);
    let mut outcome = strings(&["relay", "queue_id", "relay_queue_id", "dsn", "reply"]);
    outcome.extend([there("account", account()), there("rcpt", "\\PC{0,256}".prop_map(Value::from))]);
    outcome.extend([there("status", status), there("kind", Just("outcome".into())), maybe("rcpts", anything())]);
    let mut complaint = strings(&["rcpt", "feedback_type"]);
    complaint.extend([there("account", account()), there("kind", Just("complaint".into())), maybe("size", anything())]);
    let auth = |ok: bool, account: BoxedStrategy<Vec<(String, Value)>>| {
        let fields = [there("ok", Just(ok.into())), there("client_ip", address()), there("kind", Just("auth".into()))];
        [fields.to_vec(), vec![account, maybe("auth", text()), maybe("rcpt", anything())]].concat()
    };
    let kinds = vec![
        send(vec![there("rcpts", rcpts()), maybe("rcpt_count", count())]),
        send(vec![maybe("rcpts", rcpts()), there("rcpt_count", count())]),
        outcome,
        complaint,
        auth(true, there("account", account())),
        auth(false, maybe("account", account())),
    ];
    proptest::sample::select(kinds).prop_flat_map(|mut fields| {
        fields.push(there("v", prop_oneof![Just(json!(1)), Just(json!(1.0))]));
        fields.extend([there("ts", time()), maybe("id", text()), maybe("tenant", text()), maybe("extra", anything())]);
        fields.prop_map(|fields| Value::Object(fields.concat().into_iter().collect::<Map<_, _>>()))
    })
}

#[test]
fn what_the_schema_allows_we_read() {
    let schema = event_schema();
    proptest!(config(3000), |(event in allowed())| {
        let line = serde_json::to_vec(&event).unwrap();
        check_valid(&schema, &line);
        let decoded = decode(&line, &Limits::default(), None);
        prop_assert!(matches!(decoded, Ok(Decoded::Event(..))), "{:?}", decoded);
    });
}

// --- What we emit -----------------------------------------------------------------------------------------------------

fn string() -> impl Strategy<Value = Cow<'static, str>> {
    prop_oneof![any::<String>(), "[a-z.]{1,12}@[a-z]{1,9}\\.[a-z]{2}"].prop_map(Cow::Owned)
}

fn name() -> impl Strategy<Value = Option<Cow<'static, str>>> {
    of(string())
}

fn client() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_map(|ip| ip.to_canonical())
}

fn stamp() -> impl Strategy<Value = Timestamp> {
    (0..32_503_679_999_999_i64).prop_map(Timestamp)
}

fn send() -> impl Strategy<Value = Kind<'static>> {
    let rcpts = (vec(string(), 0..5), 0..9_u64)
        .prop_map(|(named, more)| Recipients { count: named.len() as u64 + more, named });
    let id = name().prop_map(|id| id.filter(|i| !i.starts_with('<')));
    let strings = (name(), name(), name(), name(), name(), name(), name());
    (strings, of(client()), rcpts, id, of(0..1_u64 << 53)).prop_map(|(s, client_ip, rcpts, message_id, size)| {
        let (relay, queue_id, host, mail_from, content_hash, auth, user_agent) = s;
        let strings = Send { relay, queue_id, host, mail_from, content_hash, auth, user_agent, ..Send::default() };
        Kind::Send(Send { client_ip, rcpts, message_id, size, ..strings })
    })
}

fn outcome() -> impl Strategy<Value = Kind<'static>> {
    let status = prop_oneof![
        Just(Status::Delivered),
        Just(Status::Bounced),
        Just(Status::Deferred),
        Just(Status::Rejected),
        Just(Status::Expired)
    ];
    (name(), string(), status, name(), name(), name()).prop_map(|(relay, rcpt, status, dsn, reply, queue_id)| {
        Kind::Outcome(Outcome { relay, rcpt, status, dsn, reply, relay_queue_id: queue_id.clone(), queue_id })
    })
}

fn event() -> impl Strategy<Value = Event<'static>> {
    let complaint =
        (name(), name()).prop_map(|(rcpt, feedback_type)| Kind::Complaint(Complaint { rcpt, feedback_type }));
    let auth = (client(), any::<bool>(), name())
        .prop_map(|(ip, ok, method)| Kind::Auth(Auth { client_ip: Some(ip), ok, method }));
    let account = prop_oneof!["\\PC{1,80}", "[A-Z.]{1,12}@example\\.org"].prop_map(|a| fold(Cow::Owned(a)));
    (stamp(), of(account), name(), name(), prop_oneof![send(), outcome(), complaint, auth]).prop_map(
        |(ts, account, id, tenant, kind)| {
            let needs_account = !matches!(kind, Kind::Auth(Auth { ok: false, .. }));
            let account = account.or(needs_account.then_some(Cow::Borrowed("a@example.org")));
            Event { ts, account, id, tenant, kind }
        },
    )
}

#[test]
fn events_that_we_write_validate_and_come_back_equal() {
    let schema = event_schema();
    proptest!(config(2000), |(event in event())| {
        let mut line = Vec::new();
        encode(&event, &mut line).unwrap();
        check_valid(&schema, &line);
        let decoded = decode(&line, &Limits::default(), None);
        prop_assert_eq!(decoded, Ok(Decoded::Event(event, Default::default())));
    });
}

#[test]
fn what_has_no_form_in_the_contract_is_not_written() {
    let mut out = b"before".to_vec();
    let auth = |ok| Kind::Auth(Auth { client_ip: None, ok, method: None });
    let mut event = Event { ts: Timestamp(0), account: Some("a".into()), id: None, tenant: None, kind: auth(true) };
    encode(&event, &mut out).unwrap_err();
    event.kind = Kind::Complaint(Complaint { rcpt: None, feedback_type: None });
    event.account = None;
    encode(&event, &mut out).unwrap_err();
    assert_eq!(out, b"before");
}

fn finite() -> impl Strategy<Value = f64> {
    prop_oneof![0.0..1e9_f64, (0..100_000_u32).prop_map(f64::from)]
}

fn evidence() -> impl Strategy<Value = Evidence> {
    let signal =
        proptest::sample::select(vec![Signal::Volume, Signal::NewRecipients, Signal::Bounces, Signal::NewNetworks]);
    (signal, any::<u32>(), finite(), finite(), finite(), finite(), any::<String>()).prop_map(
        |(signal, window_s, observed, expected, limit, weight, text)| Evidence {
            signal,
            window_s,
            observed,
            expected,
            limit,
            weight,
            text,
        },
    )
}

fn burst() -> impl Strategy<Value = Burst> {
    let domain = (any::<String>(), any::<u64>()).prop_map(|(domain, recipients)| DomainShare { domain, recipients });
    let counts = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let content =
        ("[0-9a-f]{8}", any::<u64>()).prop_map(|(fingerprint, messages)| ContentShare { fingerprint, messages });
    let lists = (vec(any::<String>(), 0..=16), vec(domain, 0..=10), vec(any::<String>(), 0..=10));
    let prints = (vec(content, 0..=8), vec("[0-9a-f]{8}", 0..=16));
    (stamp(), counts, lists, prints).prop_map(|(first_ts, counts, (client_ips, top_domains, queue_ids), prints)| {
        let (messages, recipients, new_recipients, bounced) = counts;
        let (contents, new_recipient_fingerprints) = prints;
        Burst {
            first_ts,
            messages,
            recipients,
            new_recipients,
            bounced,
            client_ips,
            top_domains,
            queue_ids,
            contents,
            new_recipient_fingerprints,
        }
    })
}

fn alert() -> impl Strategy<Value = Alert> {
    use proptest::sample::select;
    let kinds = (
        select(vec![AlertKind::Flagged, AlertKind::Escalated, AlertKind::Cleared]),
        select(vec![Severity::Warning, Severity::Critical]),
        select(vec![Pattern::Hijack, Pattern::Bulk, Pattern::Script, Pattern::Forwarding, Pattern::Unclear]),
        select(vec![Action::Throttle, Action::SuspendAccount, Action::None]),
    );
    let relay = (any::<String>(), any::<u64>(), any::<u64>()).prop_map(|(relay, messages, recipients)| RelayShare {
        relay,
        messages,
        recipients,
    });
    let strings = ("[0-9a-f]{16}", "[0-9a-f]{16}", "\\PC{1,20}", any::<String>(), any::<String>());
    let exempt = (
        select(vec!["account", "tenant", "domain", "network"]),
        "\\PC{1,20}",
        1.01_f64..=10.0,
        stamp(),
        of(any::<String>()),
    );
    let exempt = exempt.prop_map(|(scope, name, factor, until, by)| Exempt {
        scope: scope.to_owned(),
        name,
        factor,
        until,
        note: by.clone(),
        by,
    });
    let lists = (vec(evidence(), 1..4), vec(relay, 0..4), of(burst()), of(exempt));
    (kinds, strings, lists, stamp(), (finite(), any::<bool>())).prop_map(|(kinds, strings, lists, ts, rest)| {
        let (kind, severity, pattern, action) = kinds;
        let (score, heartbeat) = rest;
        let (id, incident, account, tenant, by) = strings;
        let (mut evidence, relays, burst, mut exempt) = lists;
        if kind == AlertKind::Cleared {
            evidence.clear();
            exempt = None;
        }
        #[rustfmt::skip]
        let alert = Alert {
            v: 1, id, kind, ts, severity, account, tenant, incident, score, pattern, evidence, relays, burst, action, exempt,
            heartbeat, by,
        };
        alert
    })
}

#[test]
fn alerts_that_we_write_validate() {
    let schema = alert_schema();
    proptest!(config(1000), |(alert in alert())| {
        let line = serde_json::to_vec(&alert).unwrap();
        check_valid(&schema, &line);
        let back: Alert = serde_json::from_slice(&line).unwrap();
        prop_assert_eq!(serde_json::to_vec(&back).unwrap(), line);
    });
}
