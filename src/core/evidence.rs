//! Evidence in words: every number of a sentence is a field beside it.

use super::account::Account;
use super::alert::{Evidence, Exempt, Pattern, Severity, Signal};
use super::decided::Bar;
use super::policy::{Policy, Prior, Threshold};
use super::scope::Scope;
use super::verdict::{self, Stratum, Weighed};
use super::window::{Counters, UNIT};

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
struct Case<'a> {
    account: &'a Account,
    policy: &'a Policy,
    weighed: &'a Weighed,
    t: &'a Threshold,
    severity: Severity,
    /// What multiplied the limits: how often, where that is the same for all counts, and in words.
    exempt: Option<(Option<f64>, String)>,
}

impl<'a> Case<'a> {
    fn new(
        account: &'a Account,
        policy: &'a Policy,
        bar: &'a Bar<'_>,
        weighed: &'a Weighed,
        severity: Severity,
    ) -> Self {
        let exempt = bar.exemption(account, weighed).map(|exemption| {
            // What came from a network has its factor, the rest has another one: then it is what the mix at hand makes of them.
            let is_mixed = matches!(exemption.scope(), Scope::Network(_));
            ((!is_mixed).then_some(exemption.factor), words(&exemption.told()))
        });
        Self { account, policy, weighed, t: &bar.t, severity, exempt }
    }

    /// What would have sufficed of a part of the evidence that has `part` decades of at most `max`: 0 where the rest does,
    /// infinite where no number would, else what `least` says for the decades that are needed. Where the verdict stands, what was
    /// observed did suffice, whatever rounding says; where it does not (an account is explained that was not flagged), it did not.
    fn limit(&self, part: f64, max: f64, corroborates: bool, observed: f64, least: impl FnOnce(f64) -> f64) -> f64 {
        let needed = verdict::needed(self.weighed, self.t, self.severity, part, corroborates);
        if needed <= 0.0 {
            return 0.0;
        }
        let limit = if needed > max { f64::INFINITY } else { least(needed) };
        self.rounded_limit(limit, observed)
    }

    fn rounded_limit(&self, limit: f64, observed: f64) -> f64 {
        let stands = self.weighed.severity(self.t) >= Some(self.severity);
        if stands { limit.min(observed) } else { limit.max(observed + 1.0) }
    }

    /// So many times the limit of a count is what it would be.
    fn times(&self, count: impl Fn(&Counters) -> u32) -> f64 {
        match &self.exempt {
            None => 1.0,
            Some((Some(factor), _)) => *factor,
            Some((None, _)) => {
                f64::from(count(&self.weighed.counted)) / f64::from(count(&self.weighed.counts_as).max(1))
            }
        }
    }

    /// The sentence about a count: what was seen, what is normal, what would have sufficed.
    fn sentence(&self, seen: &str, normal: &str, limit: f64) -> String {
        let exempt = self.exempt.as_ref().map_or("", |(_, words)| words);
        format!("{seen} in {}; {normal}; {}{exempt}", span(self.weighed.span_s), sufficed(limit))
    }

    fn normally(&self, expected: f64) -> String {
        format!("this account normally has {}", number(expected))
    }

    fn prior(&self) -> &'a Prior {
        &self.policy.detect.prior
    }

    fn exposure_days(&self) -> f64 {
        self.policy.exposure_days(self.weighed.window)
    }
}

/// What stands behind the limits of an account that is exempt.
fn words(exempt: &Exempt) -> String {
    let times = number(exempt.factor);
    let until = exempt.until.to_string();
    let until = until.split_once('T').map_or(&*until, |(date, _)| date);
    match &*exempt.scope {
        "account" => format!(" (limits times {times}: exempt until {until})"),
        "network" => format!(" (limits times {times} for what comes from {}: exempt until {until})", exempt.name),
        scope => format!(" (limits times {times}: {scope} {} exempt until {until})", exempt.name),
    }
}

fn number(x: f64) -> String {
    if x.fract() == 0.0 { format!("{x:.0}") } else { format!("{}", rounded(x)) }
}

fn heads(n: u32, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

/// The reasons of a verdict, strongest first.
pub fn list(account: &Account, policy: &Policy, bar: &Bar<'_>, weighed: &Weighed, severity: Severity) -> Vec<Evidence> {
    let case = Case::new(account, policy, bar, weighed, severity);
    let mut list = Vec::with_capacity(5);
    list.push(new_recipients(&case));
    list.extend(refusals(&case));
    list.extend(networks(&case));
    list.extend(complaints(&case));
    list.extend(volume(&case));
    list.retain(|e| e.weight >= 0.05);
    list.sort_by(|a, b| b.weight.total_cmp(&a.weight).then(a.signal.cmp(&b.signal)));
    list
}

fn new_recipients(case: &Case<'_>) -> Evidence {
    let Case { weighed, t, severity, .. } = *case;
    let rate = case.account.baseline().new_rate(case.prior());
    let w = case.exposure_days();
    let new = weighed.counted.new_recipients;
    // The verdict counts damped; people count heads. At the mix of message sizes at hand one is so many of the other.
    let heads_each = f64::from(new) * UNIT / f64::from(weighed.counted.new_damped.max(1));
    let observed = f64::from(new);
    let expected = rounded(rate.mean(w) * heads_each);
    let times = case.times(|c| c.new_damped);
    let limit = (verdict::sufficient_new(rate, w, weighed, t, severity) * heads_each * times).ceil();
    let limit = case.rounded_limit(limit, observed);
    let seen = heads(new, "new recipient", "new recipients");
    Evidence {
        signal: Signal::NewRecipients,
        window_s: weighed.span_s,
        observed,
        expected,
        limit,
        weight: rounded(weighed.new_recipients.max(weighed.stated(t) - weighed.score() + weighed.new_recipients)),
        text: case.sentence(&seen, &case.normally(expected), limit),
    }
}

fn refusals(case: &Case<'_>) -> Option<Evidence> {
    let weighed = case.weighed;
    let refused = weighed.counted.refused;
    if refused == 0 {
        return None;
    }
    let answered = weighed.counts_as.answered;
    let (alpha, beta) = case.account.baseline().refusals(case.prior());
    let expected = rounded(alpha / (alpha + beta) * f64::from(weighed.counted.answered));
    let times = case.times(|c| c.refused);
    let least = |needed: f64| {
        let suffices = |k: &u32| super::tail::beta_binomial(*k, answered, alpha, beta) >= needed;
        (1..=answered).find(suffices).map_or(f64::INFINITY, |k| (f64::from(k) * times).ceil())
    };
    let observed = f64::from(refused);
    let limit = case.limit(weighed.refusals, case.t.refusals_max, true, observed, least);
    let seen = heads(refused, "refused recipient", "refused recipients");
    let text = case.sentence(&seen, &format!("{} among as many answers", case.normally(expected)), limit);
    let (signal, window_s, weight) = (Signal::Bounces, weighed.span_s, rounded(weighed.refusals));
    Some(Evidence { signal, window_s, observed, expected, limit, weight, text })
}

fn networks(case: &Case<'_>) -> Option<Evidence> {
    let weighed = case.weighed;
    if weighed.networks <= 0.0 {
        return None;
    }
    let start_s = super::window::start_s(weighed.span_s, case.account.now_s());
    let foreign = case.account.networks().foreign_since(start_s, case.account.now_s());
    let observed = f64::from(foreign);
    let a_day = case.account.baseline().foreign_probability(case.prior());
    let expected = rounded(a_day * f64::from(weighed.span_s) / 86_400.0);
    // The first is worth what it is, each further one a decade.
    let least = |needed: f64| (observed + (needed - weighed.networks).ceil()).max(1.0);
    let limit = case.limit(weighed.networks, verdict::NETWORKS_MAX, true, observed, least);
    let seen = heads(foreign, "client network", "client networks");
    // Never multiplied: an exemption is about how much is sent, not about where from.
    let text = format!(
        "{seen} never seen before in {}; {}; {}",
        span(weighed.span_s),
        case.normally(expected),
        sufficed(limit)
    );
    let (signal, window_s, weight) = (Signal::NewNetworks, weighed.span_s, rounded(weighed.networks));
    Some(Evidence { signal, window_s, observed, expected, limit, weight, text })
}

fn complaints(case: &Case<'_>) -> Option<Evidence> {
    let weighed = case.weighed;
    let count = weighed.counted.complaints;
    if count == 0 {
        return None;
    }
    let observed = f64::from(count);
    let times = case.times(|c| c.complaints);
    let least = |needed: f64| (needed.ceil() * times).ceil();
    let limit = case.limit(weighed.complaints, verdict::COMPLAINTS_MAX, true, observed, least);
    let seen = format!("{} of recipients", heads(count, "complaint", "complaints"));
    let text = case.sentence(&seen, "0 are normal", limit);
    let (signal, window_s, weight) = (Signal::Complaints, weighed.span_s, rounded(weighed.complaints));
    Some(Evidence { signal, window_s, observed, expected: 0.0, limit, weight, text })
}

fn volume(case: &Case<'_>) -> Option<Evidence> {
    let weighed = case.weighed;
    if weighed.volume <= 0.0 {
        return None;
    }
    let rate = case.account.baseline().volume_rate(case.prior());
    let w = case.exposure_days();
    let heads_each = f64::from(weighed.counted.recipients) * UNIT / f64::from(weighed.counted.volume.max(1));
    let observed = f64::from(weighed.counted.recipients);
    let expected = rounded(rate.mean(w) * heads_each);
    let times = case.times(|c| c.volume);
    let least = |needed: f64| (rate.limit(needed, w) * heads_each * times).ceil();
    let limit = case.limit(weighed.volume, verdict::VOLUME_MAX, false, observed, least);
    let seen = format!("{} recipients", number(observed));
    let text = case.sentence(&seen, &case.normally(expected), limit);
    let (signal, window_s, weight) = (Signal::Volume, weighed.span_s, rounded(weighed.volume));
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
