//! What incidents have in common: campaigns, and shifts of the whole stream. Pure; time is event time.
//!
//! * A *campaign*: at least [`ACCOUNTS`] accounts flagged within [`TOGETHER_S`] from one client network (/24, /48), with one
//!   content, to overlapping lists of recipients, or of one tenant. A million accounts suffer some ten hijacks a day: three within
//!   an hour that share a /24 by chance are not met in years. Networks that many share by their nature are in
//!   `detect.shared_networks`.
//!   - A *content* counts where it makes at least one in [`CARRIES`] of the burst's messages. What the account had long sent before is
//!     not in the alert: an empty message, a holiday notice, its own newsletter.
//!   - *Lists* overlap where at least [`SHARED`] of the [`bottom::KEPT`] smallest fingerprints of both bursts' new recipients
//!     together lie in both: an estimated quarter of all. Strangers that two accounts have in common by chance are a few large
//!     receivers' role addresses. That four of sixteen fingerprints of 32 bits agree by chance needs lists of millions.
//! * An *anomaly*: at least [`MANY`] accounts flagged within [`SHIFT_S`], and so many more than this fleet's own last week has
//!   that chance makes it once in a million (negative binomial, [`crate::core::tail::gamma_poisson`]). Then a receiver is out, a
//!   relay is listed, or a log has changed its form: one thing to look at, not a thousand.

mod times;

use std::collections::VecDeque;
use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};

use super::notice::{self, ACCOUNTS_MAX, AccountShare, Notice, NoticeKind, Reason};
use super::record::{Anomaly, Incident};
use crate::core::alert::{Action, Alert, Burst, Severity};
use crate::core::bottom::{self, Bottom};
use crate::core::tail;
use crate::event::Timestamp;
use times::Times;

/// Accounts that make a campaign.
pub const ACCOUNTS: usize = 3;
/// How near to each other they must be flagged, in seconds.
pub const TOGETHER_S: u32 = 3600;
/// A content carries a burst where it makes at least one message in so many.
pub const CARRIES: u64 = 4;
/// Smallest fingerprints of new recipients that two bursts share where their lists overlap.
pub const SHARED: usize = 4;
/// Lists that a burst is held against at most: the last ones.
const LISTS_MAX: usize = 1000;
/// What accounts have in common that a campaign says at most.
const REASONS_MAX: usize = 8;
/// Accounts flagged within [`SHIFT_S`] that make an anomaly, at least.
pub const MANY: usize = 30;
/// See [`MANY`], in seconds.
pub const SHIFT_S: u32 = 600;
/// Decades of surprise that an anomaly needs.
const DECADES: f64 = 6.0;
/// The past that it is held against, in seconds.
const PAST_S: u32 = 7 * 86_400;
/// Incidents of the last [`SHIFT_S`] that are remembered with what they had, at most: the newest.
const RECENT_MAX: usize = 10_000;
/// What a fleet without a past is taken for: one account in ten minutes, known as well as an hour would tell.
const PRIOR: (f64, f64) = (6.0, 6.0);
/// Most of the incidents of an anomaly: at least this share has it in common.
const COMMON: f64 = 0.6;

/// A flagged account, as far as it may have something in common with others.
#[derive(Debug, Clone)]
struct Flag {
    ts_ms: i64,
    share: AccountShare,
    severity: Severity,
}

/// What the groups say to a new incident.
#[derive(Debug, Default)]
pub struct Grouped {
    /// Incidents that belong to a campaign now, this one among them.
    pub joined: Vec<(String, String)>,
    /// Incidents that turn out to be part of an anomaly.
    pub caught: Vec<String>,
    /// What is to be said.
    pub notices: Vec<Notice>,
    /// How the anomaly stands, where that has changed.
    pub anomaly: Option<Anomaly>,
}

/// The recent past of the fleet.
#[derive(Debug, Default)]
pub struct Groups {
    by_key: HashMap<String, Vec<Flag>>,
    /// Incident to campaign, of those that lie under a key.
    campaigns: HashMap<String, String>,
    /// The lists of the last bursts: event time, whom they went to, and under which key.
    lists: VecDeque<(i64, Bottom, String)>,
    newest_ms: i64,
    swept_ms: i64,
    /// Flags of the last week.
    times: Times,
    /// The last ones, in the order of their event time: that, the incident, and what they had.
    recent: VecDeque<(i64, String, Vec<String>)>,
    anomaly: Option<Anomaly>,
}

/// What an incident may share with others.
pub fn networks(alert: &Alert) -> Vec<String> {
    let mut networks: Vec<String> =
        alert.burst.iter().flat_map(|b| &b.client_ips).filter_map(|ip| ip.parse().ok().map(network)).collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// The contents that carry an incident's burst.
pub fn contents(alert: &Alert) -> Vec<String> {
    let carries = |burst: &Burst, messages: u64| messages.saturating_mul(CARRIES) >= burst.messages;
    let of = |burst: &Burst| {
        let carrying = burst.contents.iter().filter(|c| carries(burst, c.messages));
        carrying.map(|c| c.fingerprint.clone()).collect()
    };
    alert.burst.as_ref().map(of).unwrap_or_default()
}

fn network(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
    }
}

impl Groups {
    /// Takes in an incident that stands in the topic, in order of flags.
    pub fn restore(&mut self, incident: &Incident) {
        self.remember(incident, incident.recipients, Vec::new());
    }

    /// Takes in how the last anomaly stood.
    pub fn restore_anomaly(&mut self, anomaly: Anomaly) {
        self.anomaly = Some(anomaly);
    }

    /// The anomaly, where there is one now.
    pub fn anomaly(&self) -> Option<&Anomaly> {
        self.anomaly.as_ref().filter(|a| a.until.is_none())
    }

    /// What an incident may share with others, of which one may be all that a campaign has in common.
    fn keys(&mut self, incident: &Incident) -> Vec<String> {
        let mut keys: Vec<String> = incident.networks.iter().map(|n| format!("network {n}")).collect();
        keys.extend(incident.contents.iter().map(|c| format!("content {c}")));
        keys.extend(self.list(incident).map(|first| format!("list {first}")));
        // An account that is its own customer shares that with nobody.
        if !incident.tenant.is_empty() && incident.tenant != incident.account {
            keys.push(format!("tenant {}", incident.tenant));
        }
        keys
    }

    /// The incident whose list of recipients this one's overlaps, or that of one that overlaps it, …: the first one; itself where
    /// there is none.
    fn list(&mut self, incident: &Incident) -> Option<String> {
        let prints = incident.new_recipient_fingerprints.iter().take(bottom::KEPT);
        let ours: Bottom = prints.filter_map(|p| u32::from_str_radix(p, 16).ok()).collect();
        if ours.hashes().len() < SHARED {
            return None;
        }
        let ts_ms = incident.flagged.0;
        let near = self.lists.iter().filter(|(at_ms, ..)| ts_ms.abs_diff(*at_ms) <= u64::from(TOGETHER_S) * 1000);
        let alike = near.filter(|(_, theirs, _)| ours.shared(theirs) >= SHARED).map(|(.., first)| first.clone()).next();
        let first = alike.unwrap_or_else(|| incident.id.clone());
        if self.lists.len() == LISTS_MAX {
            self.lists.pop_front();
        }
        self.lists.push_back((ts_ms, ours, first.clone()));
        Some(first)
    }

    /// Returns what it may share with others.
    fn remember(&mut self, incident: &Incident, recipients: u64, facts: Vec<String>) -> Vec<String> {
        let mut keys = Vec::new();
        let ts_ms = incident.flagged.0;
        self.newest_ms = self.newest_ms.max(ts_ms);
        let flag = Flag {
            ts_ms,
            share: AccountShare { account: incident.account.clone(), incident: incident.id.clone(), recipients },
            severity: incident.severity,
        };
        // In an anomaly everybody has everything in common.
        if incident.anomaly.is_none() {
            keys = self.keys(incident);
            for key in &keys {
                self.by_key.entry(key.clone()).or_default().push(flag.clone());
            }
            if let Some(campaign) = &incident.campaign {
                self.campaigns.insert(incident.id.clone(), campaign.clone());
            }
        }
        self.times.add(ts_ms, incident.anomaly.is_none());
        let at = self.recent.partition_point(|(t, ..)| *t <= ts_ms);
        self.recent.insert(at, (ts_ms, incident.id.clone(), facts));
        self.sweep();
        keys
    }

    /// Lets go what is too old to be grouped with.
    fn sweep(&mut self) {
        let past_ms = self.newest_ms - i64::from(PAST_S) * 1000;
        let shift_ms = self.newest_ms - i64::from(SHIFT_S) * 1000;
        self.times.sweep(past_ms, shift_ms);
        while self.recent.front().is_some_and(|(ts_ms, ..)| *ts_ms < shift_ms) || self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        let together_ms = i64::from(TOGETHER_S) * 1000;
        if self.newest_ms - self.swept_ms > together_ms / 4 {
            self.swept_ms = self.newest_ms;
            let before_ms = self.newest_ms - together_ms;
            self.by_key.retain(|_, flags| {
                flags.retain(|f| f.ts_ms >= before_ms);
                !flags.is_empty()
            });
            let alive: HashSet<&str> = self.by_key.values().flatten().map(|f| &*f.share.incident).collect();
            self.campaigns.retain(|incident, _| alive.contains(&**incident));
            self.lists.retain(|(ts_ms, ..)| *ts_ms >= before_ms);
        }
    }

    /// Takes a new incident, and says what it has in common with others. `by` names the program.
    pub fn take(&mut self, incident: &Incident, alert: &Alert, by: &str) -> Grouped {
        let mut grouped = Grouped::default();
        let keys = self.remember(incident, alert.burst.as_ref().map_or(0, |b| b.recipients), facts(alert));
        self.shift(incident.flagged, by, &mut grouped);
        if self.anomaly().is_none() {
            self.join(&keys, incident.flagged, by, &mut grouped);
        }
        grouped
    }

    fn join(&mut self, keys: &[String], ts: Timestamp, by: &str, grouped: &mut Grouped) {
        let before_ms = self.newest_ms - i64::from(TOGETHER_S) * 1000;
        let mut shared: Vec<(usize, &str)> = Vec::new();
        for key in keys {
            let Some(flags) = self.by_key.get_mut(key) else { continue };
            flags.retain(|f| f.ts_ms >= before_ms);
            let accounts: HashSet<&str> = flags.iter().map(|f| &*f.share.account).collect();
            if accounts.len() >= ACCOUNTS {
                shared.push((accounts.len(), key));
            }
        }
        let Some(&(_, first_key)) = shared.first() else { return };
        let mut met = HashSet::new();
        let flags = shared.iter().filter_map(|(_, key)| self.by_key.get(*key)).flatten();
        let mut members: Vec<&Flag> = flags.filter(|f| met.insert(&*f.share.incident)).collect();
        members.sort_by_key(|f| f.ts_ms);
        let known = members.iter().find_map(|f| self.campaigns.get(&f.share.incident)).cloned();
        let campaign = known.clone().unwrap_or_else(|| {
            let first = members.first().map(|f| f.share.incident.clone()).unwrap_or_default();
            notice::id('c', &[first_key, &first])
        });
        let alone = members.iter().filter(|f| !self.campaigns.contains_key(&f.share.incident));
        grouped.joined = alone.map(|f| (f.share.incident.clone(), campaign.clone())).collect();
        if known.is_none() {
            // What most have in common first; of equals in the order of keys.
            shared.sort_by_key(|(accounts, _)| std::cmp::Reverse(*accounts));
            grouped.notices.push(formed(&shared, &campaign, &members, ts, by));
        }
        self.campaigns.extend(grouped.joined.iter().cloned());
    }

    /// Before an incident is taken that was flagged at `ts`: whether the anomaly is over by then.
    pub fn settle(&mut self, ts: Timestamp) -> Option<Anomaly> {
        let since_ms = self.newest_ms.max(ts.0) - i64::from(SHIFT_S) * 1000;
        // With the one to come, where that is not of before.
        let now = self.times.since(since_ms) + usize::from(ts.0 >= since_ms);
        let anomaly = self.anomaly.as_mut().filter(|a| a.until.is_none() && now < MANY / 2)?;
        anomaly.until = Some(ts);
        Some(anomaly.clone())
    }

    /// Looks whether the stream has changed.
    fn shift(&mut self, ts: Timestamp, by: &str, grouped: &mut Grouped) {
        let since_ms = self.newest_ms - i64::from(SHIFT_S) * 1000;
        let now = self.times.since(since_ms);
        if let Some(anomaly) = self.anomaly.as_mut().filter(|a| a.until.is_none()) {
            anomaly.incidents += 1;
            grouped.anomaly = Some(anomaly.clone());
            return;
        }
        if now < MANY {
            return;
        }
        let (normal, first) = self.times.normal_before(since_ms);
        let spans = first.map_or(0.0, |first| (since_ms - first) as f64 / f64::from(SHIFT_S) / 1000.0);
        let (shape, rate) = (PRIOR.0 + normal as f64, PRIOR.1 + spans);
        let decades = tail::gamma_poisson(now as f64, 1.0, shape, rate);
        if decades < DECADES {
            return;
        }
        let limit = tail::gamma_poisson_limit(DECADES, 1.0, shape, rate).max(MANY as f64);
        let id = notice::id('s', &["stream.anomaly", &self.newest_ms.to_string()]);
        let anomaly = Anomaly { v: 1, id: id.clone(), since: ts, until: None, incidents: now as u64 };
        self.times.odd_since(since_ms);
        let expected = rounded(shape / rate);
        let mut evidence = vec![Reason {
            signal: "flagged_accounts".to_owned(),
            window_s: SHIFT_S,
            observed: now as f64,
            expected,
            limit: rounded(limit),
            weight: rounded(decades),
            text: format!(
                "{now} accounts were flagged within {} min; this fleet normally has {expected}; {} would have sufficed",
                SHIFT_S / 60,
                rounded(limit)
            ),
        }];
        evidence.extend(self.common());
        grouped.notices.push(Notice {
            v: 1,
            id: notice::id('n', &["stream.anomaly", &id]),
            kind: NoticeKind::Anomaly,
            ts,
            severity: Severity::Critical,
            account: None,
            tenant: None,
            relay: None,
            incident: id,
            campaign: None,
            accounts: Vec::new(),
            evidence,
            relays: Vec::new(),
            action: Action::None,
            by: by.to_owned(),
        });
        grouped.caught = self.recent.iter().map(|(_, incident, _)| incident.clone()).collect();
        grouped.anomaly = Some(anomaly.clone());
        self.anomaly = Some(anomaly);
        self.by_key.clear();
        self.lists.clear();
        self.campaigns.clear();
    }

    /// What most of the last incidents share.
    fn common(&self) -> Vec<Reason> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for fact in self.recent.iter().flat_map(|(.., facts)| facts) {
            *counts.entry(fact).or_default() += 1;
        }
        let all = self.recent.len().max(1) as f64;
        let mut common: Vec<(usize, &str)> =
            counts.into_iter().filter(|(_, n)| *n as f64 >= COMMON * all).map(|(fact, n)| (n, fact)).collect();
        common.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        let reason = |(n, fact): (usize, &str)| Reason {
            signal: "in_common".to_owned(),
            window_s: SHIFT_S,
            observed: n as f64,
            expected: 0.0,
            limit: rounded(COMMON * all),
            weight: 0.0,
            text: format!("{n} of {all} {fact}"),
        };
        common.into_iter().take(5).map(reason).collect()
    }
}

/// What may be common to the incidents of a shift.
fn facts(alert: &Alert) -> Vec<String> {
    let mut facts: Vec<String> = alert.relays.iter().take(1).map(|r| format!("went through {}", r.relay)).collect();
    if let Some(first) = alert.evidence.first() {
        facts.push(format!("were flagged for {}", word(&first.signal)));
    }
    let domains = alert.burst.iter().flat_map(|b| b.top_domains.first());
    facts.extend(domains.map(|d| format!("wrote mostly to {}", d.domain)));
    facts
}

fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn rounded(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

fn formed(shared: &[(usize, &str)], campaign: &str, members: &[&Flag], ts: Timestamp, by: &str) -> Notice {
    let reason = |&(accounts, key): &(usize, &str)| {
        let (what, name) = key.split_once(' ').unwrap_or((key, ""));
        let (signal, of) = match what {
            "content" => ("same_content", format!("{accounts} accounts that sent the same content ({name})")),
            "list" => ("same_recipients", format!("{accounts} accounts whose new recipients overlap")),
            _ => (&*format!("same_{what}"), format!("{accounts} accounts of the same {what} ({name})")),
        };
        Reason {
            signal: signal.to_owned(),
            window_s: TOGETHER_S,
            observed: accounts as f64,
            expected: 1.0,
            limit: ACCOUNTS as f64,
            weight: 0.0,
            text: format!("{of} were flagged within {} h; {ACCOUNTS} would have sufficed", TOGETHER_S / 3600),
        }
    };
    Notice {
        v: 1,
        id: notice::id('n', &["campaign", campaign]),
        kind: NoticeKind::Campaign,
        ts,
        severity: members.iter().map(|f| f.severity).max().unwrap_or(Severity::Warning),
        account: None,
        tenant: None,
        relay: None,
        incident: campaign.to_owned(),
        campaign: Some(campaign.to_owned()),
        accounts: members.iter().take(ACCOUNTS_MAX).map(|f| f.share.clone()).collect(),
        evidence: shared.iter().take(REASONS_MAX).map(reason).collect(),
        relays: Vec::new(),
        action: Action::None,
        by: by.to_owned(),
    }
}

#[cfg(test)]
mod tests;
