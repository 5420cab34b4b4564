//! A digest: once a day, at an hour of somebody's clocks, what has happened since the one before. None where nothing has.
//!
//! It waits in the outbox from its first alert on, and grows until it is sent. An alert counts in the digest that is open when
//! the desk takes it, so that digests leave nothing out and hold nothing twice, whatever the alert's own time.

use std::collections::BTreeMap;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::grouping::{KINDS_MAX, News, TOP_MAX, Told, is_done};
use crate::core::alert::Severity;
use crate::event::Timestamp;

/// The lane of every digest: they are sent in order.
pub const DIGEST_LANE: &str = "mailfuse-digest";
/// Customers that a digest names.
pub const TENANTS_MAX: usize = 20;
/// A digest that is due sooner than this after a restart, in milliseconds, changes no more: a desk whose clock is ahead may have
/// begun to send it.
pub const CLOCKS_MS: i64 = 60_000;
const DAY_MS: i64 = 86_400_000;

/// When digests are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestAt {
    /// Time of the day, `08:00`.
    pub time: String,
    /// Whose clocks, `Europe/Berlin`.
    #[serde(default = "utc")]
    pub zone: String,
}

pub(super) fn utc() -> String {
    "UTC".to_owned()
}

impl Default for DigestAt {
    fn default() -> Self {
        Self { time: "08:00".to_owned(), zone: utc() }
    }
}

impl DigestAt {
    /// Checks that both can be read.
    ///
    /// # Errors
    /// What would be right.
    pub fn check(&self) -> Result<(), &'static str> {
        time(&self.time).ok_or("time must be a time of the day, as `08:00`")?;
        zone(&self.zone).map(|_| ())
    }

    /// The first such hour after `now_ms`, in Unix milliseconds. A day later where the settings cannot be read.
    pub fn next_ms(&self, now_ms: i64) -> i64 {
        let next = || {
            let (time, zone) = (time(&self.time)?, zone(&self.zone).ok()?);
            let today = zone.to_datetime(jiff::Timestamp::from_millisecond(now_ms).ok()?).date();
            let tomorrow = today.tomorrow().ok()?;
            [today, tomorrow].into_iter().filter_map(|day| at_ms(&zone, day, time)).find(|&at| at > now_ms)
        };
        next().unwrap_or(now_ms.saturating_add(DAY_MS))
    }
}

/// Reads a zone's name.
pub(super) fn zone(name: &str) -> Result<TimeZone, &'static str> {
    TimeZone::get(name).map_err(|_| "zone must be a name of the tz database, as `Europe/Berlin`")
}

/// Reads a time of the day, `08:00`.
pub(super) fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.trim().split_once(':')?;
    (hour.len() == 2 && minute.len() == 2).then_some(())?;
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

/// When the clocks of a zone show that, in Unix milliseconds: a time that they leave out when they have left it out, one that
/// comes twice when it first comes.
pub(super) fn at_ms(zone: &TimeZone, day: Date, time: Time) -> Option<i64> {
    Some(zone.to_ambiguous_timestamp(day.to_datetime(time)).compatible().ok()?.as_millisecond())
}

/// What a digest says. An incident counts once, by the worst it has reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// Place of the first alert among all; no two digests of an endpoint have the same.
    pub first_seq: u64,
    /// When it is due.
    pub due: Timestamp,
    /// Event time of the earliest alert.
    pub first_ts: Timestamp,
    /// Event time of the latest.
    pub last_ts: Timestamp,
    /// The worst of what has begun or become worse.
    pub severity: Severity,
    /// Incidents that have begun, and are critical.
    pub critical: u64,
    /// Incidents that have begun, and are warnings.
    pub warning: u64,
    /// Of those that have begun, how many go on.
    pub open: u64,
    /// Incidents from before that have become critical.
    pub earlier_escalated: u64,
    /// Incidents from before that are over.
    pub earlier_over: u64,
    /// Alerts by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Customers of the incidents that have begun, as they came; at most [`TENANTS_MAX`].
    pub tenants: Vec<TenantShare>,
    /// Incidents that have begun, of further customers.
    pub other_tenants: u64,
    /// The worst accounts: critical ones first, then by recipients; at most [`TOP_MAX`].
    pub top: Vec<Worst>,
}

/// A customer of a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantShare {
    /// The customer.
    pub tenant: String,
    /// Incidents that are critical.
    pub critical: u64,
    /// Incidents that are warnings.
    pub warning: u64,
}

/// An account of a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worst {
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
    /// Whether it goes on.
    pub open: bool,
}

impl Digest {
    /// With its first alert.
    pub(super) fn of(news: &News<'_>) -> Self {
        let mut digest = Self {
            first_seq: news.seq,
            due: Timestamp(news.not_before_ms),
            first_ts: news.at,
            last_ts: news.at,
            severity: Severity::Warning,
            critical: 0,
            warning: 0,
            open: 0,
            earlier_escalated: 0,
            earlier_over: 0,
            kinds: BTreeMap::new(),
            tenants: Vec::new(),
            other_tenants: 0,
            top: Vec::new(),
        };
        digest.count(news);
        digest
    }

    /// Takes an alert.
    pub(super) fn count(&mut self, news: &News<'_>) {
        (self.first_ts, self.last_ts) = (self.first_ts.min(news.at), self.last_ts.max(news.at));
        let named = self.kinds.contains_key(news.kind) || self.kinds.len() < KINDS_MAX;
        *self.kinds.entry(if named { news.kind } else { "other" }.to_owned()).or_default() += 1;
        if is_done(news.kind) {
            return;
        }
        let over = news.kind == "account.cleared";
        if !over {
            self.severity = self.severity.max(news.severity);
        }
        if news.account.is_empty() {
            return;
        }
        let escalated = news.kind == "account.escalated";
        match (news.told, over) {
            (Told::Nothing, false) => self.begin(news),
            (Told::InDigest(first_seq), _) if first_seq == self.first_seq => {
                if over {
                    self.open = self.open.saturating_sub(1);
                } else if escalated {
                    self.escalate(news.tenant);
                }
            }
            (_, true) => self.earlier_over += 1,
            (_, false) => self.earlier_escalated += u64::from(escalated),
        }
        self.top.retain(|top| top.incident != news.incident);
        let rank = (news.severity, news.recipients);
        let place = self.top.partition_point(|top| (top.severity, top.recipients) >= rank);
        if place < TOP_MAX {
            let worst = Worst {
                account: news.account.to_owned(),
                tenant: news.tenant.to_owned(),
                incident: news.incident.to_owned(),
                severity: news.severity,
                recipients: news.recipients,
                open: !over,
            };
            self.top.insert(place, worst);
            self.top.truncate(TOP_MAX);
        }
    }

    fn begin(&mut self, news: &News<'_>) {
        self.open += 1;
        let is_critical = news.severity == Severity::Critical;
        *(if is_critical { &mut self.critical } else { &mut self.warning }) += 1;
        let place = self.tenants.iter().position(|share| share.tenant == news.tenant).or_else(|| {
            (self.tenants.len() < TENANTS_MAX).then(|| {
                self.tenants.push(TenantShare { tenant: news.tenant.to_owned(), critical: 0, warning: 0 });
                self.tenants.len() - 1
            })
        });
        match place.and_then(|place| self.tenants.get_mut(place)) {
            Some(share) => *(if is_critical { &mut share.critical } else { &mut share.warning }) += 1,
            None => self.other_tenants += 1,
        }
    }

    /// One of its own incidents has become critical.
    fn escalate(&mut self, tenant: &str) {
        let worse = |warning: &mut u64, critical: &mut u64| {
            if *warning > 0 {
                (*warning, *critical) = (*warning - 1, *critical + 1);
            }
        };
        worse(&mut self.warning, &mut self.critical);
        if let Some(share) = self.tenants.iter_mut().find(|share| share.tenant == tenant) {
            worse(&mut share.warning, &mut share.critical);
        }
    }

    /// Incidents that have begun.
    pub fn begun(&self) -> u64 {
        self.critical + self.warning
    }

    /// In a sentence, without names.
    pub fn summary(&self) -> String {
        let mut parts = vec![format!(
            "{} flagged: {} critical, {} {}",
            super::text::number(self.begun()),
            super::text::number(self.critical),
            super::text::number(self.warning),
            if self.warning == 1 { "warning" } else { "warnings" },
        )];
        if self.begun() > 0 {
            parts.push(format!("{} still open", super::text::number(self.open)));
        }
        if self.earlier_escalated > 0 {
            parts.push(format!("{} from before became critical", super::text::number(self.earlier_escalated)));
        }
        if self.earlier_over > 0 {
            parts.push(format!("{} from before over", super::text::number(self.earlier_over)));
        }
        parts.join("; ")
    }

    /// Customers, most incidents first.
    pub fn tenants_by_incidents(&self) -> Vec<&TenantShare> {
        let mut tenants: Vec<_> = self.tenants.iter().collect();
        tenants.sort_by_key(|share| std::cmp::Reverse((share.critical + share.warning, share.critical)));
        tenants
    }

    /// What its message is about: each digest stands for itself.
    pub fn incident(&self) -> String {
        let plain = self.due.to_string();
        format!("{DIGEST_LANE}-{}", plain.get(..16).unwrap_or(&plain).replace(':', ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_once_a_day_by_the_clocks_of_its_zone() {
        let ms = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        for (time, zone, now, next) in [
            ("08:00", "UTC", "2026-03-02T07:59:59Z", "2026-03-02T08:00:00Z"),
            ("08:00", "UTC", "2026-03-02T08:00:00Z", "2026-03-03T08:00:00Z"),
            ("00:00", "UTC", "2026-12-31T12:00:00Z", "2027-01-01T00:00:00Z"),
            ("08:00", "Europe/Berlin", "2026-07-01T06:00:00Z", "2026-07-02T06:00:00Z"),
            ("08:00", "Asia/Kathmandu", "2026-07-01T00:00:00Z", "2026-07-01T02:15:00Z"),
            ("08:00", "Pacific/Auckland", "2026-07-01T21:00:00Z", "2026-07-02T20:00:00Z"),
            // The clocks go forward on 29 March and back on 25 October: the days have 23 and 25 hours.
            ("08:00", "Europe/Berlin", "2026-03-28T07:00:00Z", "2026-03-29T06:00:00Z"),
            ("08:00", "Europe/Berlin", "2026-10-24T06:00:00Z", "2026-10-25T07:00:00Z"),
            // 02:30 is left out: it comes at 03:30.
            ("02:30", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:30:00Z"),
            ("02:30", "Europe/Berlin", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"),
            // 02:30 comes twice: the first one, and not the second.
            ("02:30", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("02:30", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
            // 30 December 2011 is left out as a whole.
            ("08:00", "Pacific/Apia", "2011-12-29T18:00:00Z", "2011-12-30T18:00:00Z"),
        ] {
            let at = DigestAt { time: time.into(), zone: zone.into() };
            assert_eq!(at.check(), Ok(()));
            assert_eq!(at.next_ms(ms(now)), ms(next), "{time} {zone} {now}");
        }
        for year in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"] {
            let at = DigestAt { time: "02:15".into(), zone: year.into() };
            let (mut now, end, mut digests) = (ms("2026-01-01T12:00:00Z"), ms("2027-01-01T12:00:00Z"), 0);
            while now < end {
                now = at.next_ms(now);
                digests += 1;
            }
            assert_eq!(digests, 365 + i32::from(now > end), "{year}");
        }
    }
}
