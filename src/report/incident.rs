//! Alerts, sorted into incidents.

use std::collections::BTreeMap;

use crate::core::alert::{Alert, AlertKind, Severity};
use crate::event::Timestamp;

/// The alerts of one burst, together.
#[derive(Debug, Clone)]
pub struct Incident {
    /// The alert that opened it. Where the log begins after that, the first alert there is.
    pub flag: Alert,
    /// The alert that made it critical.
    pub escalated: Option<Alert>,
    /// When the quiet time after it had passed.
    pub cleared: Option<Timestamp>,
    /// What it reached.
    pub severity: Severity,
    /// The burst's first send.
    pub first_ts: Timestamp,
}

impl Incident {
    /// Sorts alerts into incidents: critical ones first, then by the time of the flag, then by account.
    pub fn all_of(alerts: &[Alert]) -> Vec<Self> {
        let mut by_id: BTreeMap<(&str, &str), Self> = BTreeMap::new();
        for alert in alerts {
            let key = (alert.account.as_str(), alert.incident.as_str());
            by_id.entry(key).or_insert_with(|| Self::opened_by(alert)).add(alert);
        }
        let mut all: Vec<Self> = by_id.into_values().collect();
        all.sort_by(|a, b| {
            let key = |i: &Self| (std::cmp::Reverse(i.severity), i.flag.ts);
            key(a).cmp(&key(b)).then_with(|| a.flag.account.cmp(&b.flag.account))
        });
        all
    }

    fn opened_by(alert: &Alert) -> Self {
        let first_ts = alert.burst.as_ref().map_or(alert.ts, |b| b.first_ts.min(alert.ts));
        Self { flag: alert.clone(), escalated: None, cleared: None, severity: alert.severity, first_ts }
    }

    fn add(&mut self, alert: &Alert) {
        self.severity = self.severity.max(alert.severity);
        match alert.kind {
            AlertKind::Flagged => {}
            AlertKind::Escalated => self.escalated = Some(alert.clone()),
            AlertKind::Cleared => self.cleared = Some(alert.ts),
        }
    }

    /// The alert that says most: the escalation where there is one.
    pub fn gravest(&self) -> &Alert {
        self.escalated.as_ref().unwrap_or(&self.flag)
    }

    /// Whether `ts` lies between the burst's first send and the clear.
    pub(super) fn covers(&self, ts: Timestamp) -> bool {
        ts >= self.first_ts && self.cleared.is_none_or(|end| ts <= end)
    }

    /// Whether a burst message sent at `ts`, after `so_far` others, went out before the flag.
    ///
    /// Logs often have whole seconds, and a burst sends several messages in one. Within the flag's own second (or
    /// millisecond) the count that the alert states decides; the message that raised the flag leaked too.
    pub(super) fn before_flag(&self, ts: Timestamp, so_far: u64) -> bool {
        match ts.cmp(&self.flag.ts) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Greater => false,
            std::cmp::Ordering::Equal => self.flag.burst.as_ref().is_none_or(|b| so_far < b.messages),
        }
    }
}
