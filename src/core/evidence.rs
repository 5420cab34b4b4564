//! Evidence in words: every number of a sentence is a field beside it.

use super::account::Account;
use super::alert::{Evidence, Pattern, Severity, Signal};
use super::policy::{Policy, Threshold};
use super::verdict::{self, Stratum, Weighed};
use super::window::UNIT;

/// Rounds what is emitted, so that no last digit of a double is ever seen.
pub fn rounded(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

/// A span as people say it.
pub fn span(span_s: u32) -> String {
    match span_s {
        s if s % 86_400 == 0 => format!("{} d", s / 86_400),
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// A verdict that is put into words.
#[derive(Clone, Copy)]
struct Case<'a> {
    weighed: &'a Weighed,
    t: &'a Threshold,
    severity: Severity,
}

impl Case<'_> {
    /// What would have sufficed of a part of the evidence that has `part` decades of at most `max`: 0 where the rest does,
    /// infinite where no number would, else what `least` says for the decades that are needed. Where the verdict stands, what was
    /// observed did suffice, whatever rounding says; where it does not (an account is explained that was not flagged), it did not.
    fn limit(self, part: f64, max: f64, corroborates: bool, observed: f64, least: impl FnOnce(f64) -> f64) -> f64 {
        let needed = verdict::needed(self.weighed, self.t, self.severity, part, corroborates);
        if needed <= 0.0 {
            return 0.0;
        }
        let limit = if needed > max { f64::INFINITY } else { least(needed) };
        self.rounded_limit(limit, observed)
    }

    fn rounded_limit(self, limit: f64, observed: f64) -> f64 {
        let stands = self.weighed.severity(self.t) >= Some(self.severity);
        if stands { limit.min(observed) } else { limit.max(observed + 1.0) }
    }
}

fn number(x: f64) -> String {
    if x.fract() == 0.0 { format!("{x:.0}") } else { format!("{}", rounded(x)) }
}

/// The reasons of a verdict, strongest first.
pub fn list(account: &Account, policy: &Policy, t: &Threshold, weighed: &Weighed, severity: Severity) -> Vec<Evidence> {
    let mut list = Vec::with_capacity(5);
    list.push(new_recipients(account, policy, t, weighed, severity));
    list.extend(refusals(account, policy, t, weighed, severity));
    list.extend(networks(account, policy, t, weighed, severity));
    list.extend(complaints(t, weighed, severity));
    list.extend(volume(account, policy, t, weighed, severity));
    list.retain(|e| e.weight >= 0.05);
    list.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.signal.cmp(&b.signal)));
    list
}

fn new_recipients(
    account: &Account,
    policy: &Policy,
    t: &Threshold,
    weighed: &Weighed,
    severity: Severity,
) -> Evidence {
    let prior = &policy.detect.prior;
    let rate = account.baseline().new_rate(prior);
    let w = policy.exposure_days(weighed.window);
    // The verdict counts damped; people count heads. At the mix of message sizes at hand one is so many of the other.
    let heads = f64::from(weighed.counted.new_recipients) * UNIT / f64::from(weighed.counted.new_damped.max(1));
    let observed = f64::from(weighed.counted.new_recipients);
    let expected = rounded(rate.mean(w) * heads);
    let limit = (verdict::sufficient_new(rate, w, weighed, t, severity) * heads).ceil();
    let limit = Case { weighed, t, severity }.rounded_limit(limit, observed);
    Evidence {
        signal: Signal::NewRecipients,
        window_s: weighed.span_s,
        observed,
        expected,
        limit,
        weight: rounded(weighed.new_recipients.max(weighed.stated(t) - weighed.score() + weighed.new_recipients)),
        text: format!(
            "{} new {} in {}; this account normally has {}; {}",
            number(observed),
            if observed == 1.0 { "recipient" } else { "recipients" },
            span(weighed.span_s),
            number(expected),
            sufficed(limit)
        ),
    }
}

fn refusals(
    account: &Account,
    policy: &Policy,
    t: &Threshold,
    weighed: &Weighed,
    severity: Severity,
) -> Option<Evidence> {
    let refused = weighed.counted.refused;
    if refused == 0 {
        return None;
    }
    let answered = weighed.counted.answered;
    let (alpha, beta) = account.baseline().refusals(&policy.detect.prior);
    let expected = rounded(alpha / (alpha + beta) * f64::from(answered));
    let least = |needed: f64| {
        let suffices = |k: &u32| super::tail::beta_binomial(*k, answered, alpha, beta) >= needed;
        (1..=answered).find(suffices).map_or(f64::INFINITY, f64::from)
    };
    let case = Case { weighed, t, severity };
    let limit = case.limit(weighed.refusals, t.refusals_max, true, f64::from(refused), least);
    let what = if refused == 1 { "refused recipient" } else { "refused recipients" };
    let text = format!(
        "{refused} {what} in {}; this account normally has {} among as many answers; {}",
        span(weighed.span_s),
        number(expected),
        sufficed(limit)
    );
    let weight = rounded(weighed.refusals);
    let (signal, window_s, observed) = (Signal::Bounces, weighed.span_s, f64::from(refused));
    Some(Evidence { signal, window_s, observed, expected, limit, weight, text })
}

fn networks(
    account: &Account,
    policy: &Policy,
    t: &Threshold,
    weighed: &Weighed,
    severity: Severity,
) -> Option<Evidence> {
    if weighed.networks <= 0.0 {
        return None;
    }
    let start_s = super::window::start_s(weighed.span_s, account.now_s());
    let observed = f64::from(account.networks().foreign_since(start_s, account.now_s()));
    let a_day = account.baseline().foreign_probability(&policy.detect.prior);
    let expected = rounded(a_day * f64::from(weighed.span_s) / 86_400.0);
    // The first is worth what it is, each further one a decade.
    let least = |needed: f64| (observed + (needed - weighed.networks).ceil()).max(1.0);
    let limit = Case { weighed, t, severity }.limit(weighed.networks, verdict::NETWORKS_MAX, true, observed, least);
    let what = if observed == 1.0 { "client network" } else { "client networks" };
    let text = format!(
        "{} {what} never seen before in {}; this account normally has {}; {}",
        number(observed),
        span(weighed.span_s),
        number(expected),
        sufficed(limit)
    );
    let weight = rounded(weighed.networks);
    let (signal, window_s) = (Signal::NewNetworks, weighed.span_s);
    Some(Evidence { signal, window_s, observed, expected, limit, weight, text })
}

fn complaints(t: &Threshold, weighed: &Weighed, severity: Severity) -> Option<Evidence> {
    let count = weighed.counted.complaints;
    if count == 0 {
        return None;
    }
    let case = Case { weighed, t, severity };
    let limit = case.limit(weighed.complaints, verdict::COMPLAINTS_MAX, true, f64::from(count), f64::ceil);
    let what = if count == 1 { "complaint" } else { "complaints" };
    let text = format!("{count} {what} of recipients in {}; 0 are normal; {}", span(weighed.span_s), sufficed(limit));
    let (signal, window_s, observed) = (Signal::Complaints, weighed.span_s, f64::from(count));
    Some(Evidence { signal, window_s, observed, expected: 0.0, limit, weight: rounded(weighed.complaints), text })
}

fn volume(
    account: &Account,
    policy: &Policy,
    t: &Threshold,
    weighed: &Weighed,
    severity: Severity,
) -> Option<Evidence> {
    if weighed.volume <= 0.0 {
        return None;
    }
    let rate = account.baseline().volume_rate(&policy.detect.prior);
    let w = policy.exposure_days(weighed.window);
    let heads = f64::from(weighed.counted.recipients) * UNIT / f64::from(weighed.counted.volume.max(1));
    let observed = f64::from(weighed.counted.recipients);
    let expected = rounded(rate.mean(w) * heads);
    let least = |needed: f64| (rate.limit(needed, w) * heads).ceil();
    let limit = Case { weighed, t, severity }.limit(weighed.volume, verdict::VOLUME_MAX, false, observed, least);
    let text = format!(
        "{} recipients in {}; this account normally has {}; {}",
        number(observed),
        span(weighed.span_s),
        number(expected),
        sufficed(limit)
    );
    let weight = rounded(weighed.volume);
    let (signal, window_s) = (Signal::Volume, weighed.span_s);
    Some(Evidence { signal, window_s, observed, expected, limit, weight, text })
}

/// What would have sufficed, the rest of the evidence as it is. A limit of 0: the rest does.
fn sufficed(limit: f64) -> String {
    match limit {
        l if l.is_infinite() => "no number of them would have sufficed".to_owned(),
        l if l > 0.0 => format!("{} would have sufficed", number(l)),
        _ => "the rest suffices without".to_owned(),
    }
}

/// What the evidence looks like.
pub fn pattern(weighed: &Weighed, stratum: Stratum) -> Pattern {
    let c = &weighed.counted;
    let refused_share = f64::from(c.refused) / f64::from(c.answered.max(1));
    let few_refused = refused_share < 0.1;
    if weighed.networks >= 1.0 && (weighed.new_recipients >= 1.0 || c.refused > 0) {
        Pattern::Hijack
    } else if c.new_recipients == 0 && c.refused > 0 {
        Pattern::Forwarding
    } else if few_refused && (stratum == Stratum::Bulk || c.recipients >= 50) {
        Pattern::Bulk
    } else if refused_share >= 0.3 && c.answered >= 10 {
        Pattern::Script
    } else {
        Pattern::Unclear
    }
}
