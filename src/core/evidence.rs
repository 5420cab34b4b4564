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

fn number(x: f64) -> String {
    if x.fract() == 0.0 { format!("{x:.0}") } else { format!("{}", rounded(x)) }
}

/// The reasons of a verdict, strongest first.
pub fn list(account: &Account, policy: &Policy, t: &Threshold, weighed: &Weighed, severity: Severity) -> Vec<Evidence> {
    let mut list = Vec::with_capacity(5);
    list.push(new_recipients(account, policy, t, weighed, severity));
    list.extend(refusals(account, policy, weighed));
    list.extend(networks(account, policy, weighed));
    list.extend(complaints(weighed));
    list.extend(volume(account, policy, weighed));
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
    Evidence {
        signal: Signal::NewRecipients,
        window_s: weighed.span_s,
        observed,
        expected,
        limit,
        weight: rounded(weighed.new_recipients.max(if weighed.new_raw >= t.alone { weighed.new_raw } else { 0.0 })),
        text: format!(
            "{} new recipients in {}; this account normally has {}; {} would have sufficed",
            number(observed),
            span(weighed.span_s),
            number(expected),
            number(limit)
        ),
    }
}

fn refusals(account: &Account, policy: &Policy, weighed: &Weighed) -> Option<Evidence> {
    let refused = weighed.counted.refused;
    if refused == 0 {
        return None;
    }
    let answered = weighed.counted.answered;
    let (alpha, beta) = account.baseline().refusals(&policy.detect.prior);
    let expected = rounded(alpha / (alpha + beta) * f64::from(answered));
    let limit = (1..=refused)
        .find(|&k| super::tail::beta_binomial(k, answered, alpha, beta) >= weighed.refusals)
        .unwrap_or(refused);
    Some(Evidence {
        signal: Signal::Bounces,
        window_s: weighed.span_s,
        observed: f64::from(refused),
        expected,
        limit: f64::from(limit),
        weight: rounded(weighed.refusals),
        text: format!(
            "{refused} refusals in {}; this account normally has {} among as many answers; {limit} would have weighed as much",
            span(weighed.span_s),
            number(expected)
        ),
    })
}

fn networks(account: &Account, policy: &Policy, weighed: &Weighed) -> Option<Evidence> {
    if weighed.networks <= 0.0 {
        return None;
    }
    let start_s = super::window::start_s(weighed.span_s, account.now_s());
    let observed = f64::from(account.networks().foreign_since(start_s, account.now_s()));
    let expected =
        rounded(account.baseline().foreign_probability(&policy.detect.prior) * f64::from(weighed.span_s) / 86_400.0);
    Some(Evidence {
        signal: Signal::NewNetworks,
        window_s: weighed.span_s,
        observed,
        expected,
        limit: 1.0,
        weight: rounded(weighed.networks),
        text: format!(
            "{} client networks never seen before in {}; this account normally has {}; 1 would have counted",
            number(observed),
            span(weighed.span_s),
            number(expected)
        ),
    })
}

fn complaints(weighed: &Weighed) -> Option<Evidence> {
    let observed = weighed.counted.complaints;
    (observed > 0).then(|| Evidence {
        signal: Signal::Complaints,
        window_s: weighed.span_s,
        observed: f64::from(observed),
        expected: 0.0,
        limit: 1.0,
        weight: rounded(weighed.complaints),
        text: format!(
            "{observed} complaints of recipients in {}; 0 are normal; 1 would have counted",
            span(weighed.span_s)
        ),
    })
}

fn volume(account: &Account, policy: &Policy, weighed: &Weighed) -> Option<Evidence> {
    if weighed.volume <= 0.0 {
        return None;
    }
    let rate = account.baseline().volume_rate(&policy.detect.prior);
    let w = policy.exposure_days(weighed.window);
    let heads = f64::from(weighed.counted.recipients) * UNIT / f64::from(weighed.counted.volume.max(1));
    let observed = f64::from(weighed.counted.recipients);
    let expected = rounded(rate.mean(w) * heads);
    let limit = (rate.limit(weighed.volume, w) * heads).ceil().min(observed);
    Some(Evidence {
        signal: Signal::Volume,
        window_s: weighed.span_s,
        observed,
        expected,
        limit,
        weight: rounded(weighed.volume),
        text: format!(
            "{} recipients in {}; this account normally has {}; {} would have weighed as much",
            number(observed),
            span(weighed.span_s),
            number(expected),
            number(limit)
        ),
    })
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
