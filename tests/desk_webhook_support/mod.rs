//! Alerts and messages to send.

#![allow(dead_code, clippy::unwrap_used)] // Each test uses some of it; Clippy knows tests by their attribute only.

use mailfuse::core::alert::{
    Action, Alert, AlertKind, Burst, ContentShare, DomainShare, Evidence, Pattern, RelayShare, Severity, Signal,
};
use mailfuse::desk::webhook::body::{Counts, Incident, IncidentState, Message, What};
use mailfuse::desk::webhook::settings::{Endpoint, Format, Url};
use mailfuse::desk::webhook::sign::{Keys, Secret, Token};
use mailfuse::desk::webhook::storm::Row;
use mailfuse::event::Timestamp;

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const AT: Timestamp = Timestamp(1_772_438_400_000);

pub fn keys() -> Keys {
    Keys {
        signing: vec![Secret::parse(SECRET).unwrap()],
        routing_key: Some(Token::new("0123456789abcdef0123456789abcdef").unwrap()),
    }
}

pub fn endpoint(format: Format, url: &str) -> Endpoint {
    Endpoint { name: "test".into(), url: Url(url.into()), format, allow_private: true, ..Endpoint::default() }
}

pub fn alert(kind: AlertKind, severity: Severity, account: &str) -> Alert {
    let evidence = |signal| Evidence {
        signal,
        window_s: 3600,
        observed: 31.0,
        expected: 1.2,
        limit: 12.0,
        weight: 9.5,
        text: "31 new recipients in 1 h; this account normally has 0-2; 12 would have sufficed".into(),
    };
    let cleared = kind == AlertKind::Cleared;
    Alert {
        v: 1,
        id: format!("al-{kind:?}"),
        kind,
        ts: AT,
        severity,
        account: account.into(),
        tenant: "tenant-7".into(),
        incident: "in-0011223344556677".into(),
        score: 19.0,
        pattern: Pattern::Hijack,
        evidence: if cleared { vec![] } else { vec![evidence(Signal::NewRecipients), evidence(Signal::Bounces)] },
        relays: vec![RelayShare { relay: "relay-1".into(), messages: 40, recipients: 310 }],
        burst: Some(Burst {
            first_ts: Timestamp(AT.0 - 600_000),
            messages: 40,
            recipients: 310,
            new_recipients: 301,
            bounced: 22,
            client_ips: (0..16).map(|n| format!("2001:db8::{n:x}")).collect(),
            top_domains: (0..10).map(|n| DomainShare { domain: format!("d{n}.example"), recipients: 31 }).collect(),
            queue_ids: (0..10).map(|n| format!("4XYZ{n}")).collect(),
            contents: (0..8).map(|n| ContentShare { fingerprint: format!("5e07a1c{n}"), messages: 5 }).collect(),
            new_recipient_fingerprints: (0..16).map(|n| format!("00a3f1{n:02x}")).collect(),
        }),
        action: if cleared { Action::None } else { Action::SuspendAccount },
        exempt: None,
        heartbeat: false,
        by: "mailfuse 0.1.0 abcdef".into(),
    }
}

/// A row of storms.
pub fn row() -> Row {
    Row {
        number: 7,
        incident: "mailfuse-storm-7".into(),
        anomaly: false,
        first_ts: Timestamp(AT.0 - 60_000),
        last_ts: AT,
        incidents: 2_000,
        critical: 700,
        open: 1_990,
        over: 10,
        grown: AT,
        due: AT,
    }
}

pub fn every(kind: AlertKind, severity: Severity, account: &str) -> Message {
    let alert = alert(kind, severity, account);
    Message {
        id: "msg_00112233".into(),
        kind: serde_json::to_value(kind).unwrap().as_str().unwrap().into(),
        at: alert.ts,
        severity,
        incident: alert.incident.clone(),
        link: "https://desk.example/v1/incidents/in-0011223344556677".into(),
        customer: None,
        what: What::Alert(Box::new(alert)),
    }
}

pub fn grouped(kinds: &[AlertKind], state: IncidentState, severity: Severity, account: &str) -> Message {
    let alerts: Vec<_> = kinds.iter().map(|&kind| alert(kind, severity, account)).collect();
    let counts =
        Counts { alerts: alerts.len() as u64, messages: 40, recipients: 310, new_recipients: 301, bounced: 22 };
    let incident = Incident { account: account.into(), tenant: "tenant-7".into(), state, alerts, counts };
    Message { what: What::Incident(Box::new(incident)), ..every(*kinds.last().unwrap(), severity, account) }
}
