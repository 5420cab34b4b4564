//! The verdict: evidence weighed against the stratum's thresholds.
//!
//! The score is a sum of decades of surprise under the account's own past, each part capped: new recipients, refusals (and
//! complaints), client networks, volume. New recipients alone flag only from a higher bar; so no verdict waits for an outcome,
//! and volume alone is not taken for guilt.

use serde::{Deserialize, Serialize};

use super::account::Account;
use super::alert::Severity;
use super::baseline::{DAY_S, Rate};
use super::decided::{self, Bar};
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
    /// What that counts as: the same, but for what is exempt ([`Bar::counts_as`]).
    pub counts_as: Counters,
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

    /// The score as alerts state it: where new recipients flag alone, their surprise uncapped.
    pub fn stated(&self, t: &Threshold) -> f64 {
        let alone = self.is_mostly_new() && self.new_raw >= t.alone_warning;
        if alone { self.score().max(self.new_raw) } else { self.score() }
    }

    /// What speaks beside the number of recipients.
    pub fn corroboration(&self) -> f64 {
        self.networks + self.refusals + self.complaints
    }

    /// Whether something beside the number of recipients speaks.
    pub fn is_corroborated(&self) -> bool {
        self.corroboration() >= CORROBORATED
    }

    /// Whether so many of the recipients are new that new recipients may flag alone.
    pub fn is_mostly_new(&self) -> bool {
        f64::from(self.counts_as.new_damped) >= STRANGERS * f64::from(self.counts_as.volume)
    }

    /// What it amounts to under `t`.
    pub fn severity(&self, t: &Threshold) -> Option<Severity> {
        if (self.is_corroborated() && self.score() >= t.critical) || (self.is_mostly_new() && self.new_raw >= t.alone) {
            Some(Severity::Critical)
        } else if self.score() >= t.warning || (self.is_mostly_new() && self.new_raw >= t.alone_warning) {
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
pub const VOLUME_MAX: f64 = 1.0;
/// Client networks add at most this.
pub const NETWORKS_MAX: f64 = 4.0;
/// Each foreign network beyond the first adds this: under the account's own past each is a further chance in ten.
const NETWORK_MORE: f64 = 1.0;
/// Each complaint adds this.
const COMPLAINT: f64 = 1.0;
/// Complaints add at most this.
pub const COMPLAINTS_MAX: f64 = 3.0;

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

/// Weighs one window of an account.
pub fn weigh(account: &Account, policy: &Policy, bar: &Bar<'_>, window: usize) -> Weighed {
    let t = &*bar.t;
    let counted = account.windows().sum(&policy.spans, window, account.now_s());
    let counts_as = bar.counts_as(account, window::start_s(policy.spans.all_s()[window], account.now_s()), counted);
    let mut weighed = cheap(account, policy, window, counted, counts_as);
    weighed.new_raw = new_surprise(account, policy, &weighed);
    weighed.new_recipients = weighed.new_raw.min(t.new_max(weighed.networks));
    weighed.refusals = refusal_surprise(account, policy, &weighed, t);
    weighed.volume = volume_surprise(account, policy, &weighed);
    weighed
}

/// The same, given up as soon as it cannot amount to a warning any more: tail probabilities cost, and nearly always the next
/// one need not be asked for. Never wrong with `None`.
fn weigh_severe(
    account: &Account,
    policy: &Policy,
    t: &Threshold,
    window: usize,
    counted: Counters,
    counts_as: Counters,
) -> Option<(Weighed, Severity)> {
    let mut weighed = cheap(account, policy, window, counted, counts_as);
    let refusals_max = if counts_as.refused > 0 { t.refusals_max } else { 0.0 };
    let others = weighed.networks + weighed.complaints + refusals_max + VOLUME_MAX;
    let needed = (t.warning - others).min(t.alone_warning);
    if f64::from(counts_as.new_damped) / UNIT < policy.floor_new(window, needed) {
        return None;
    }
    let rate = account.baseline().new_rate(&policy.detect.prior);
    let bound = rate.surprise_bound(f64::from(counts_as.new_damped) / UNIT, policy.exposure_days(window));
    if bound < needed || (bound < t.alone_warning && bound.min(t.new_max(weighed.networks)) + others < t.warning) {
        return None;
    }
    weighed.new_raw = new_surprise(account, policy, &weighed);
    weighed.new_recipients = weighed.new_raw.min(t.new_max(weighed.networks));
    let alone = weighed.new_raw >= t.alone_warning;
    if !alone && weighed.score() + refusals_max + VOLUME_MAX < t.warning {
        return None;
    }
    weighed.refusals = refusal_surprise(account, policy, &weighed, t);
    if !alone && weighed.score() + VOLUME_MAX < t.warning {
        return None;
    }
    weighed.volume = volume_surprise(account, policy, &weighed);
    Some((weighed, weighed.severity(t)?))
}

/// The parts of the evidence that need no tail probability.
fn cheap(account: &Account, policy: &Policy, window: usize, counted: Counters, counts_as: Counters) -> Weighed {
    let span_s = policy.spans.all_s()[window];
    let probability = account.baseline().foreign_probability(&policy.detect.prior);
    Weighed {
        window,
        span_s,
        counted,
        counts_as,
        new_raw: 0.0,
        new_recipients: 0.0,
        networks: networks(account, &counts_as, window::start_s(span_s, account.now_s()), probability),
        refusals: 0.0,
        complaints: (COMPLAINT * f64::from(counts_as.complaints)).min(COMPLAINTS_MAX),
        volume: 0.0,
    }
}

fn new_surprise(account: &Account, policy: &Policy, weighed: &Weighed) -> f64 {
    let new = f64::from(weighed.counts_as.new_damped) / UNIT;
    account.baseline().new_rate(&policy.detect.prior).surprise(new, policy.exposure_days(weighed.window))
}

fn refusal_surprise(account: &Account, policy: &Policy, weighed: &Weighed, t: &Threshold) -> f64 {
    let refused = weighed.counts_as.refused_quarters.div_ceil(4);
    let (alpha, beta) = account.baseline().refusals(&policy.detect.prior);
    super::tail::beta_binomial(refused, weighed.counts_as.answered, alpha, beta).min(t.refusals_max)
}

fn volume_surprise(account: &Account, policy: &Policy, weighed: &Weighed) -> f64 {
    let volume = f64::from(weighed.counts_as.volume) / UNIT;
    account
        .baseline()
        .volume_rate(&policy.detect.prior)
        .surprise(volume, policy.exposure_days(weighed.window))
        .min(VOLUME_MAX)
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

/// The strongest window that amounts to something: the most severe, among them the highest score. A window that counts nothing
/// beyond the shorter one before it says nothing new.
///
/// Where networks are exempt, what came from them is looked for only once the rest of the bar is passed: so an exemption never
/// makes anything worse, and costs nothing where nothing is wrong.
pub fn strongest(account: &Account, policy: &Policy, bar: &Bar<'_>) -> Option<(Weighed, Severity)> {
    let factor = bar.factor();
    let everywhere = |_: u32, counted| if factor == 1.0 { counted } else { decided::divided(&counted, factor) };
    let found = strongest_of(account, policy, &bar.t, everywhere)?;
    if bar.networks.is_none() {
        return Some(found);
    }
    let by_network = |start_s, counted| bar.counts_as(account, start_s, counted);
    let (weighed, severity) = strongest_of(account, policy, &bar.t, by_network)?;
    Some((weighed, severity.min(found.1)))
}

fn strongest_of(
    account: &Account,
    policy: &Policy,
    t: &Threshold,
    counts_as: impl Fn(u32, Counters) -> Counters,
) -> Option<(Weighed, Severity)> {
    let mut best: Option<(Weighed, Severity)> = None;
    let mut shorter = Counters::default();
    let sums = account.windows().sums(&policy.spans, account.now_s());
    for (i, &span_s) in policy.spans.all_s().iter().enumerate() {
        if span_s < policy.detect.decide_from_s {
            continue;
        }
        let counted = sums[i];
        if counted == shorter {
            continue;
        }
        shorter = counted;
        let counts_as = counts_as(window::start_s(span_s, account.now_s()), counted);
        let Some((weighed, severity)) = weigh_severe(account, policy, t, i, counted, counts_as) else { continue };
        if best.as_ref().is_none_or(|(b, s)| (severity, weighed.score()) > (*s, b.score())) {
            best = Some((weighed, severity));
        }
    }
    best
}

/// The window with the highest score, whether it amounts to anything or not: for explaining. `None` where nothing is counted.
pub fn strongest_at_all(account: &Account, policy: &Policy, bar: &Bar<'_>) -> Option<Weighed> {
    let t = &*bar.t;
    let mut best: Option<Weighed> = None;
    for (i, &span_s) in policy.spans.all_s().iter().enumerate() {
        if span_s < policy.detect.decide_from_s {
            continue;
        }
        let weighed = weigh(account, policy, bar, i);
        if weighed.counted == Counters::default() || best.as_ref().is_some_and(|b| b.counted == weighed.counted) {
            continue;
        }
        let rank = |w: &Weighed| (w.severity(t), w.stated(t));
        if best.as_ref().is_none_or(|b| rank(&weighed) > rank(b)) {
            best = Some(weighed);
        }
    }
    best
}

/// The decades that a part of the evidence must have for `severity`, the rest as it is: 0 where the rest suffices. `part` is
/// what it has, `corroborates` whether it is more than volume.
pub fn needed(weighed: &Weighed, t: &Threshold, severity: Severity, part: f64, corroborates: bool) -> f64 {
    let (bar, alone) = match severity {
        Severity::Warning => (t.warning, t.alone_warning),
        Severity::Critical => (t.critical, t.alone),
    };
    if weighed.is_mostly_new() && weighed.new_raw >= alone {
        return 0.0;
    }
    let for_score = bar - (weighed.score() - part);
    let for_corroboration = if severity == Severity::Critical && corroborates {
        CORROBORATED - (weighed.corroboration() - part)
    } else {
        0.0
    };
    for_score.max(for_corroboration).max(0.0)
}

/// The smallest number of damped new recipients that would have sufficed for `severity`, the rest of the evidence as it is;
/// infinite where no number would.
pub fn sufficient_new(rate: Rate, w: f64, weighed: &Weighed, t: &Threshold, severity: Severity) -> f64 {
    let bar = match severity {
        Severity::Warning => t.warning,
        Severity::Critical => t.critical,
    };
    let others = weighed.corroboration() + weighed.volume;
    let corroborated = severity == Severity::Warning || weighed.is_corroborated();
    let together =
        if corroborated && bar - others <= t.new_max(weighed.networks) { bar - others } else { f64::INFINITY };
    let alone = match severity {
        Severity::Warning => t.alone_warning,
        Severity::Critical => t.alone,
    };
    let decades = together.min(alone);
    if decades.is_finite() { rate.limit(decades.max(0.1), w) } else { f64::INFINITY }
}
