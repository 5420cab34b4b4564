//! Many incidents in one message, and the row that such messages belong to.
//!
//! A receiver that keeps incidents keeps one of a *row*: every storm from the first on, until none came for [`QUIET_MS`]; or all
//! that is told of an anomaly. The row's end waits in the outbox from its first incident on, behind its storms, and counts whose
//! incidents go on. It is sent when all are over, after [`END_MS`] at the latest: so the ends of many incidents are one message,
//! which resolves what the storms began. It is recorded as any message, and whoever takes over goes on counting.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::grouping::{CLEARED, KINDS_MAX, News, TOP_MAX, alerts_since, is_done};
use crate::core::alert::Severity;
use crate::event::Timestamp;

/// How the names of rows of storms begin.
pub const STORM_LANE: &str = "mailfuse-storm";
/// After so long without a storm the next one begins a row, in milliseconds.
pub const QUIET_MS: i64 = 3_600_000;
/// How long a row's end waits for its incidents, in milliseconds; the outbox gives up what is a day older.
pub const END_MS: i64 = 6 * 86_400_000;

/// What storms have in common, and how their incidents stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Place of its first alert among all; no two rows of an endpoint have the same.
    pub number: u64,
    /// What all its messages are about: `mailfuse-storm-NUMBER`, or the anomaly.
    pub incident: String,
    /// Whether it is an anomaly's.
    pub anomaly: bool,
    /// Event time of the earliest alert.
    pub first_ts: Timestamp,
    /// Event time of the latest.
    pub last_ts: Timestamp,
    /// Incidents that it counts.
    pub incidents: u64,
    /// How many of them have become critical.
    pub critical: u64,
    /// How many of them go on, and have no message of their own.
    pub open: u64,
    /// Ends.
    pub over: u64,
    /// When the last of its incidents began, by the desk's clock.
    pub grown: Timestamp,
    /// When its end is sent at the latest, by the desk's clock.
    pub due: Timestamp,
}

impl Row {
    /// With no incident yet.
    pub(super) fn of(news: &News<'_>, now_ms: i64) -> Self {
        let incident = news.anomaly.map_or_else(|| format!("{STORM_LANE}-{}", news.seq), str::to_owned);
        Self {
            number: news.seq,
            incident,
            anomaly: news.anomaly.is_some(),
            first_ts: news.at,
            last_ts: news.at,
            incidents: 0,
            critical: 0,
            open: 0,
            over: 0,
            grown: Timestamp(now_ms),
            due: Timestamp(now_ms.saturating_add(END_MS)),
        }
    }

    /// Whether it still takes incidents, of an anomaly or of none.
    pub(super) fn takes(&self, anomaly: Option<&str>, now_ms: i64) -> bool {
        self.open > 0
            && match anomaly {
                Some(id) => self.anomaly && self.incident == id,
                None => !self.anomaly && now_ms.saturating_sub(self.grown.0) < QUIET_MS,
            }
    }

    /// An incident begins in it.
    pub(super) fn begin(&mut self, news: &News<'_>, now_ms: i64) {
        self.see(news);
        (self.incidents, self.open) = (self.incidents + 1, self.open + 1);
        self.critical += u64::from(news.severity == Severity::Critical);
        self.grown = Timestamp(now_ms);
    }

    /// One of its incidents has become worse.
    pub(super) fn worsen(&mut self, news: &News<'_>) {
        self.see(news);
        self.critical += u64::from(news.kind == "account.escalated");
    }

    /// One of its incidents is over, or has a message of its own from now on.
    pub(super) fn leave(&mut self, news: &News<'_>) {
        self.see(news);
        self.open = self.open.saturating_sub(1);
        self.over += u64::from(news.kind == CLEARED);
    }

    /// An incident is over of which nothing was told.
    pub(super) fn end_of_another(&mut self, news: &News<'_>) {
        self.see(news);
        self.over += 1;
    }

    fn see(&mut self, news: &News<'_>) {
        (self.first_ts, self.last_ts) = (self.first_ts.min(news.at), self.last_ts.max(news.at));
    }

    /// The worst of it.
    pub fn severity(&self) -> Severity {
        if self.critical > 0 { Severity::Critical } else { Severity::Warning }
    }

    /// Where its alerts are to be seen, on a server at `base`; of an anomaly, its incidents.
    pub fn link(&self, base: &str) -> String {
        if self.anomaly { incidents_of(base, "anomaly", &self.incident) } else { alerts_since(base, self.number) }
    }

    /// In a sentence, without names.
    pub fn summary(&self) -> String {
        let number = super::text::number;
        let what = if self.anomaly { "anomaly" } else { "storm" };
        let (all, critical) = (number(self.incidents), number(self.critical));
        let stands = if self.open > 0 { format!("; {} go on", number(self.open)) } else { String::new() };
        format!("{what} of {all} incidents, {critical} critical{stands}")
    }
}

/// Where the incidents of a `campaign` or an `anomaly` are to be seen, on a server at `base`.
pub fn incidents_of(base: &str, what: &str, id: &str) -> String {
    format!("{}/v1/incidents?{what}={id}", base.trim_end_matches('/'))
}

/// Many alerts in one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// The row that it belongs to, as it stood when this was said.
    pub row: Row,
    /// Place of the first alert among all.
    pub first_seq: u64,
    /// Event time of the earliest.
    pub first_ts: Timestamp,
    /// Event time of the latest.
    pub last_ts: Timestamp,
    /// Alerts by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Alerts that are critical, ends not counted.
    pub critical: u64,
    /// Alerts that are warnings, ends not counted.
    pub warning: u64,
    /// Ends.
    pub cleared: u64,
    /// Recipients, summed over the alerts that are no ends.
    pub recipients: u64,
    /// The worst accounts: critical ones first, then by recipients; at most [`TOP_MAX`].
    pub top: Vec<Top>,
}

/// An account of a storm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Top {
    /// The account.
    pub account: String,
    /// The customer.
    pub tenant: String,
    /// Its incident.
    pub incident: String,
    /// How bad.
    pub severity: Severity,
    /// Recipients of its burst.
    pub recipients: u64,
}

impl Storm {
    pub(super) fn of(news: &News<'_>, row: Row) -> Self {
        let mut storm = Self {
            row: row.clone(),
            first_seq: news.seq,
            first_ts: news.at,
            last_ts: news.at,
            kinds: BTreeMap::new(),
            critical: 0,
            warning: 0,
            cleared: 0,
            recipients: 0,
            top: Vec::new(),
        };
        storm.count(news, row);
        storm
    }

    pub(super) fn count(&mut self, news: &News<'_>, row: Row) {
        self.row = row;
        self.first_seq = self.first_seq.min(news.seq);
        (self.first_ts, self.last_ts) = (self.first_ts.min(news.at), self.last_ts.max(news.at));
        let named = self.kinds.contains_key(news.kind) || self.kinds.len() < KINDS_MAX;
        *self.kinds.entry(if named { news.kind } else { "other" }.to_owned()).or_default() += 1;
        if is_done(news.kind) {
            return;
        }
        self.top.retain(|top| top.incident != news.incident);
        if news.kind == CLEARED {
            self.cleared += 1;
            return;
        }
        *match news.severity {
            Severity::Critical => &mut self.critical,
            Severity::Warning => &mut self.warning,
        } += 1;
        self.recipients = self.recipients.saturating_add(news.recipients);
        if news.account.is_empty() {
            return;
        }
        let rank = (news.severity, news.recipients);
        let place = self.top.partition_point(|top| (top.severity, top.recipients) >= rank);
        if place < TOP_MAX {
            let (account, tenant, incident) = (news.account.into(), news.tenant.into(), news.incident.into());
            let (severity, recipients) = (news.severity, news.recipients);
            self.top.insert(place, Top { account, tenant, incident, severity, recipients });
            self.top.truncate(TOP_MAX);
        }
    }

    /// How many alerts it holds.
    pub fn alerts(&self) -> u64 {
        self.critical + self.warning + self.cleared
    }

    /// Whether it holds nothing but ends.
    pub fn is_over(&self) -> bool {
        self.critical + self.warning == 0
    }

    /// The worst of them; an end is none.
    pub fn severity(&self) -> Severity {
        if self.critical > 0 { Severity::Critical } else { Severity::Warning }
    }

    /// Where all of them are to be seen, on a server at `base`; of an anomaly, its incidents.
    pub fn link(&self, base: &str) -> String {
        if self.row.anomaly { self.row.link(base) } else { alerts_since(base, self.first_seq) }
    }
}
