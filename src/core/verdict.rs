//! The verdict: evidence weighed against the stratum's thresholds.
//!
//! The score is a sum of decades of surprise under the account's own past, each part capped: new recipients, refusals (and
//! complaints), client networks, volume. New recipients alone flag only from a higher bar; so no verdict waits for an outcome,
//! and volume alone is not taken for guilt.

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::alert::Severity;
use super::baseline::{DAY_S, Rate};
use super::policy::{Policy, Threshold};
use super::window::{self, Counters, UNIT};

/// How long an account has been known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stratum {
    /// Met in the first days of all history, few days of its own: nobody can say whether it is new.
    Unknown,
    /// Appeared later, few days of its own.
    New,
    /// Has a past.
    Established,
    /// Has a past of many strangers.
    Bulk,
}

impl Stratum {
    /// The name in configuration and texts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::New => "new",
            Self::Established => "established",
            Self::Bulk => "bulk",
        }
    }
}

/// The evidence of one window, in decades.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighed {
    /// Which window.
    pub window: usize,
    /// Its span in seconds.
    pub span_s: u32,
    /// What it counted.
    pub counted: Counters,
    /// New recipients against their posterior, before the cap.
    pub new_raw: f64,
    /// The same, capped.
    pub new_recipients: f64,
    /// Client networks never seen before that carry the new recipients.
    pub networks: f64,
    /// Refusals against their posterior.
    pub refusals: f64,
    /// Complaints.
    pub complaints: f64,
    /// Recipients, known or not, against their posterior.
    pub volume: f64,
}

impl Weighed {
    /// The score of the window.
    pub fn score(&self) -> f64 {
        self.new_recipients + self.corroboration() + self.volume
    }

    /// What speaks beside the number of recipients.
    pub fn corroboration(&self) -> f64 {
        self.networks + self.refusals + self.complaints
    }

    /// What it amounts to under `t`.
    pub fn severity(&self, t: &Threshold) -> Option<Severity> {
        let corroborated = self.corroboration() >= CORROBORATED;
        let strangers = f64::from(self.counted.new_damped) >= STRANGERS * f64::from(self.counted.volume);
        if (corroborated && self.score() >= t.critical) || (strangers && self.new_raw >= t.alone) {
            Some(Severity::Critical)
        } else if self.score() >= t.warning || (strangers && self.new_raw >= t.alone_warning) {
            Some(Severity::Warning)
        } else {
            None
        }
    }
}

/// Decades beside volume from which a verdict counts as corroborated: one in ten.
const CORROBORATED: f64 = 1.0;
/// New recipients flag alone where they are at least this share of all (damped): a list that has grown a little is its old
/// readers' mail.
const STRANGERS: f64 = 0.25;
/// Recipients at large add at most this: volume is the wrong question.
const VOLUME_MAX: f64 = 1.0;
/// Client networks add at most this.
const NETWORKS_MAX: f64 = 4.0;
/// Each foreign network beyond the first adds this: under the account's own past each is a further chance in ten.
const NETWORK_MORE: f64 = 1.0;
/// Each complaint adds this, up to three.
const COMPLAINT: f64 = 1.0;

/// The stratum of an account without a past, met at `at_s`.
pub fn first_stratum(policy: &Policy, at_s: u32, history_since_s: u32) -> Stratum {
    let early = at_s.saturating_sub(history_since_s) < policy.detect.unknown_days.saturating_mul(DAY_S);
    if early { Stratum::Unknown } else { Stratum::New }
}

/// The stratum of an account on the day of its clock.
pub fn stratum(account: &Account, policy: &Policy, history_since_s: u32) -> Stratum {
    let d = &policy.detect;
    let first = first_stratum(policy, account.first_s(), history_since_s);
    let (since_s, needed_days) = match first {
        Stratum::Unknown => (history_since_s, d.unknown_days),
        _ => (account.first_s(), d.established_days),
    };
    let age_days = account.now_s().saturating_sub(since_s) / DAY_S;
    if age_days < needed_days || u32::from(account.baseline().active_days) < d.established_days {
        return first;
    }
    let a_day = account.baseline().new_rate(&d.prior).mean(1.0);
    if a_day >= d.bulk_new_a_day { Stratum::Bulk } else { Stratum::Established }
}

/// The thresholds of a stratum.
pub fn threshold(policy: &Policy, stratum: Stratum) -> &Threshold {
    let t = &policy.detect.thresholds;
    match stratum {
        Stratum::Unknown => &t.unknown,
        Stratum::New => &t.new,
        Stratum::Established => &t.established,
        Stratum::Bulk => &t.bulk,
    }
}

/// A window's exposure in days: a fraction f of a day counts as f^concentration, because people write in bursts.
pub fn exposure_days(policy: &Policy, span_s: u32) -> f64 {
    let days = f64::from(span_s) / f64::from(DAY_S);
    if days < 1.0 { days.powf(policy.detect.prior.concentration) } else { days }
}

/// Weighs one window of an account.
pub fn weigh(account: &Account, policy: &Policy, t: &Threshold, window: usize) -> Weighed {
    let span_s = policy.spans.all_s()[window];
    let now_s = account.now_s();
    let counted = account.windows().sum(&policy.spans, window, now_s);
    let prior = &policy.detect.prior;
    let base = account.baseline();
    let w = exposure_days(policy, span_s);
    let new = f64::from(counted.new_damped) / UNIT;
    let new_raw = base.new_rate(prior).surprise(new, w);
    let volume = base.volume_rate(prior).surprise(f64::from(counted.volume) / UNIT, w);
    let refusals = if counted.refused_quarters == 0 {
        0.0
    } else {
        let (alpha, beta) = base.refusals(prior);
        super::tail::beta_binomial(counted.refused_quarters.div_ceil(4), counted.answered, alpha, beta)
    };
    let start_s = window::start_s(span_s, now_s);
    let networks = networks(account, &counted, start_s, base.foreign_probability(prior));
    let complaints = (COMPLAINT * f64::from(counted.complaints)).min(3.0 * COMPLAINT);
    Weighed {
        window,
        span_s,
        counted,
        new_raw,
        new_recipients: new_raw.min(t.new_recipients_max),
        networks,
        refusals: refusals.min(t.refusals_max),
        complaints,
        volume: volume.min(VOLUME_MAX),
    }
}

/// Networks never seen before, as far as they carry the new recipients: the first by how often this account has such a day.
fn networks(account: &Account, counted: &Counters, start_s: u32, probability: f64) -> f64 {
    if counted.new_foreign == 0 {
        return 0.0;
    }
    let foreign = account.networks().foreign_since(start_s, account.now_s());
    if foreign == 0 {
        return 0.0;
    }
    let share = f64::from(counted.new_foreign) / f64::from(counted.new_damped.max(1));
    let decades = -probability.log10() + NETWORK_MORE * f64::from(foreign - 1);
    (decades * share.min(1.0)).clamp(0.0, NETWORKS_MAX)
}

/// The strongest window of an account: the most severe, among them the highest score.
pub fn strongest(account: &Account, policy: &Policy, t: &Threshold) -> Option<(Weighed, Option<Severity>)> {
    let mut best: Option<(Weighed, Option<Severity>)> = None;
    for (i, &span_s) in policy.spans.all_s().iter().enumerate() {
        if span_s < policy.detect.decide_from_s {
            continue;
        }
        let weighed = weigh(account, policy, t, i);
        let severity = weighed.severity(t);
        if best.as_ref().is_none_or(|(b, s)| (severity, weighed.score()) > (*s, b.score())) {
            best = Some((weighed, severity));
        }
    }
    best
}

/// The smallest number of damped new recipients that would have sufficed for `severity`, the rest of the evidence as it is.
pub fn sufficient_new(rate: Rate, w: f64, weighed: &Weighed, t: &Threshold, severity: Severity) -> f64 {
    let bar = match severity {
        Severity::Warning => t.warning,
        Severity::Critical => t.critical,
    };
    let others = weighed.corroboration() + weighed.volume;
    let corroborated = severity == Severity::Warning || weighed.corroboration() >= CORROBORATED;
    let together = if corroborated && bar - others <= t.new_recipients_max { bar - others } else { f64::INFINITY };
    let alone = match severity {
        Severity::Warning => t.alone_warning,
        Severity::Critical => t.alone,
    };
    rate.limit(together.min(alone).clamp(0.1, super::tail::DECADES_MAX), w)
}
