//! What of an alert decides who is told, and what of it is told.

use crate::core::alert::{Alert, AlertKind, Severity};
use crate::desk::notice::Said;
use crate::desk::webhook::body::{Counts, Incident, IncidentState};
use crate::desk::webhook::grouping::{News, Told};
use crate::desk::webhook::settings::Facts;

pub(super) fn incident(last: &Alert, alerts: &[&Alert]) -> Incident {
    let burst = alerts.iter().rev().find_map(|a| a.burst.as_ref());
    let over = alerts.iter().any(|a| a.kind == AlertKind::Cleared);
    Incident {
        account: last.account.clone(),
        tenant: last.tenant.clone(),
        state: if over { IncidentState::Cleared } else { IncidentState::Open },
        alerts: alerts.iter().map(|a| (*a).clone()).collect(),
        counts: Counts {
            alerts: alerts.len() as u64,
            messages: burst.map_or(0, |b| b.messages),
            recipients: burst.map_or(0, |b| b.recipients),
            new_recipients: burst.map_or(0, |b| b.new_recipients),
            bounced: burst.map_or(0, |b| b.bounced),
        },
    }
}

pub(super) fn kind(said: &Said) -> String {
    match said {
        Said::Account(alert) => word(&alert.kind),
        Said::Fleet(notice) => word(&notice.kind),
    }
}

/// The word by which serde writes a value that is one.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(super) fn severity(said: &Said) -> Severity {
    match said {
        Said::Account(alert) => alert.severity,
        Said::Fleet(notice) => notice.severity,
    }
}

pub(super) fn facts<'a>(said: &Said, kind: &'a str, tenants: &'a [&'a str]) -> Facts<'a> {
    let pattern = match said {
        Said::Account(alert) => Some(alert.pattern),
        Said::Fleet(_) => None,
    };
    Facts { kind, severity: severity(said), tenants, pattern }
}

pub(super) fn news<'a>(
    said: &'a Said,
    endpoint: &'a str,
    kind: &'a str,
    n: u64,
    told: Told,
    not_before_ms: i64,
) -> News<'a> {
    let (account, recipients, at) = match said {
        Said::Account(a) => (&*a.account, a.burst.as_ref().map_or(0, |b| b.recipients), a.ts),
        Said::Fleet(n) => (n.account.as_deref().unwrap_or(""), 0, n.ts),
    };
    News {
        endpoint,
        alert: said.id(),
        incident: said.thread(),
        kind,
        severity: severity(said),
        account,
        tenant: "",
        recipients,
        seq: n,
        at,
        // What sums up a storm does not drown in it; what is done about one of its incidents does.
        told: if said.thread() == said.incident() && matches!(said, Said::Fleet(_)) { Told::Itself } else { told },
        anomaly: None,
        not_before_ms,
        per_minute: 0,
    }
}
