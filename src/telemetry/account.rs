//! One account as it stands now: the live form of `replay --explain`.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::core::account::Account;
use crate::core::alert::{Burst, Evidence, Pattern, RelayShare, Severity};
use crate::core::decided::Bar;
use crate::core::decision::Decision;
use crate::core::evidence;
use crate::core::policy::{Policy, Threshold};
use crate::core::shard::Shard;
use crate::core::verdict::{self, Weighed};
use crate::core::window::{self, UNIT};
use crate::event::Timestamp;

/// Everything that a verdict on the account rests on. Scores are decades of surprise; floats have three decimals; what is
/// infinite is `null`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccountView {
    /// The account as folded.
    pub account: String,
    /// The customer it belongs to.
    pub tenant: String,
    /// The largest accepted `ts` of its own events: everything below is as of then, because windows know no other clock.
    pub clock: Timestamp,
    /// How far its clock is behind now, in seconds.
    pub idle_s: i64,
    /// When it was met.
    pub first_seen: Timestamp,
    /// When its last incident was over.
    pub cleared: Option<Timestamp>,
    /// How well it is known.
    pub stratum: &'static str,
    /// What is normal for it.
    pub baseline: BaselineView,
    /// The thresholds that it is weighed against: those of its stratum, or of what it is pinned to, raised by what is tolerated.
    pub thresholds: Threshold,
    /// Each window, shortest first.
    pub windows: Vec<WindowView>,
    /// The window that speaks loudest; none where nothing is counted.
    pub strongest: Option<Strongest>,
    /// What its score would have to grow by for a warning; 0 where it amounts to one.
    pub short_of_warning: f64,
    /// What the verdict is, and why, in a sentence.
    pub verdict: String,
    /// The open incident.
    pub incident: Option<IncidentView>,
    /// What people have decided about it, its domain, its tenant, and the networks that it has sent from lately.
    pub decisions: Vec<DecisionView>,
    /// The incidents that it can be put back before, if they are called hijacks.
    pub can_be_put_back: Vec<BeforeView>,
    /// Bytes that it takes.
    pub bytes: usize,
}

/// A decision, and whom it is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DecisionView {
    /// `account`, `domain`, `tenant` or `network`.
    pub scope: &'static str,
    /// Its name.
    pub name: String,
    /// Whether it counts at the account's clock.
    pub stands: bool,
    /// As the control topic has it, but for what is inherited, which says nothing to people.
    #[serde(flatten)]
    pub decision: Map<String, Value>,
}

/// An incident whose account remembers what it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BeforeView {
    /// Its id, as in the alerts.
    pub incident: String,
    /// When it was flagged.
    pub flagged: Timestamp,
}

/// What is normal for an account.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BaselineView {
    /// New recipients a day, damped: log2(1+k) a message.
    pub new_recipients_a_day: f64,
    /// Recipients a day, known or not, damped.
    pub recipients_a_day: f64,
    /// Share of answers that are refusals.
    pub refused_share: f64,
    /// Share of active days that bring a client network never seen before.
    pub foreign_network_share: f64,
    /// Days with mail before today.
    pub active_days: u16,
    /// Recipients that it has written to.
    pub contacts_known: usize,
}

/// Distinct things of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Distinct {
    /// Recipients.
    pub recipients: u32,
    /// Client networks.
    pub networks: u32,
    /// Recipient domains.
    pub domains: u32,
    /// Relays.
    pub relays: u32,
}

/// What a score is the sum of.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Parts {
    /// New recipients, capped.
    pub new_recipients: f64,
    /// Refusals.
    pub refusals: f64,
    /// Client networks never seen before.
    pub networks: f64,
    /// Complaints.
    pub complaints: f64,
    /// Recipients, known or not.
    pub volume: f64,
}

/// One window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WindowView {
    /// Its span in seconds.
    pub window_s: u32,
    /// Whether it may flag; the shortest ones only count.
    pub decides: bool,
    /// Messages.
    pub messages: u32,
    /// Recipients of them.
    pub recipients: u32,
    /// Recipients never written to before.
    pub new_recipients: u32,
    /// New recipients that this account normally has in such a window, at the mix of message sizes at hand.
    pub new_recipients_expected: f64,
    /// Refusals that speak about the account.
    pub refused: u32,
    /// Final answers.
    pub answered: u32,
    /// Complaints.
    pub complaints: u32,
    /// Distinct things.
    pub distinct: Distinct,
    /// What the score is the sum of.
    pub parts: Parts,
    /// The sum.
    pub score: f64,
    /// New recipients before the cap: what may flag alone.
    pub new_recipients_uncapped: f64,
    /// Whether something beside the number of recipients speaks: `critical` takes it.
    pub corroborated: bool,
    /// A warning from this score on.
    pub warning: f64,
    /// Critical from this score on, where it is corroborated.
    pub critical: f64,
    /// Critical from so much of new recipients on, alone; `null`: never.
    pub alone: f64,
    /// What it amounts to.
    pub severity: Option<Severity>,
}

/// The window that speaks loudest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Strongest {
    /// Its span in seconds.
    pub window_s: u32,
    /// Its score as an alert would state it.
    pub score: f64,
    /// What it amounts to.
    pub severity: Option<Severity>,
    /// What the evidence looks like.
    pub pattern: Pattern,
    /// The reasons, strongest first; of what is no verdict, with what would have sufficed for a warning.
    pub evidence: Vec<Evidence>,
}

/// The open incident.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IncidentView {
    /// Its id, as in the alerts.
    pub incident: String,
    /// What it has reached.
    pub severity: Severity,
    /// Where the burst begins.
    pub start: Timestamp,
    /// The account's clock when the evidence last amounted to a warning.
    pub active: Timestamp,
    /// When it is over, if nothing more comes.
    pub clears: Timestamp,
    /// The score at its last alert.
    pub score: f64,
    /// The pattern at its last alert.
    pub pattern: Pattern,
    /// The burst so far.
    pub burst: Option<Burst>,
    /// Its share of each relay.
    pub relays: Vec<RelayShare>,
}

impl AccountView {
    /// Looks at `account`, which is one of `shard`'s; `now` says only how long the account has been idle.
    pub fn new(account: &Account, shard: &Shard, now: Timestamp) -> Self {
        let (policy, bar) = (shard.policy(), shard.bar(account));
        let t = &*bar.t;
        let strongest = verdict::strongest_at_all(account, policy, &bar);
        let severity = strongest.as_ref().and_then(|w| w.severity(t));
        let short_of_warning = match (severity, &strongest) {
            (Some(_), _) => 0.0,
            (None, Some(weighed)) => t.warning - weighed.score(),
            (None, None) => t.warning,
        };
        Self {
            account: account.name().to_owned(),
            tenant: account.tenant().to_owned(),
            clock: Timestamp(account.clock_ms()),
            idle_s: (now.0.saturating_sub(account.clock_ms()) / 1000).max(0),
            first_seen: Timestamp(i64::from(account.first_s()) * 1000),
            cleared: (account.cleared_ms() != 0).then(|| Timestamp(account.cleared_ms())),
            stratum: account.stratum().name(),
            baseline: baseline(account, policy),
            thresholds: t.clone(),
            windows: (0..policy.spans.all_s().len()).map(|i| window(account, policy, &bar, i)).collect(),
            verdict: sentence(strongest.as_ref(), t),
            strongest: strongest.map(|weighed| Strongest {
                window_s: weighed.span_s,
                score: rounded(weighed.stated(t)),
                severity,
                pattern: evidence::pattern(&weighed, bar.stratum),
                evidence: evidence::list(account, policy, &bar, &weighed, severity.unwrap_or(Severity::Warning)),
            }),
            short_of_warning: rounded(short_of_warning),
            incident: incident(account, policy),
            decisions: decisions(account, shard),
            can_be_put_back: account
                .before()
                .iter()
                .map(|b| BeforeView { incident: b.incident.to_string(), flagged: Timestamp(b.flagged_ms) })
                .collect(),
            bytes: account.bytes(),
        }
    }
}

/// Three decimals: no last digit of a double is ever seen.
fn rounded(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

fn baseline(account: &Account, policy: &Policy) -> BaselineView {
    let (base, prior) = (account.baseline(), &policy.detect.prior);
    let (alpha, beta) = base.refusals(prior);
    BaselineView {
        new_recipients_a_day: rounded(base.new_rate(prior).mean(1.0)),
        recipients_a_day: rounded(base.volume_rate(prior).mean(1.0)),
        refused_share: rounded(alpha / (alpha + beta)),
        foreign_network_share: rounded(base.foreign_probability(prior)),
        active_days: base.active_days,
        contacts_known: account.contacts().len(),
    }
}

fn decisions(account: &Account, shard: &Shard) -> Vec<DecisionView> {
    let at = Timestamp(account.clock_ms());
    let mut views = Vec::new();
    for decisions in shard.decisions(account) {
        let (scope, name) = (decisions.scope.kind(), decisions.scope.name());
        views.extend(decisions.decisions.iter().map(|decision| DecisionView {
            scope,
            name: name.clone().into_owned(),
            stands: decision.stands(at),
            decision: shown(decision),
        }));
    }
    views
}

fn shown(decision: &Decision) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(decision) else { return Map::new() };
    fields.remove("learned");
    fields
}

fn window(account: &Account, policy: &Policy, bar: &Bar<'_>, i: usize) -> WindowView {
    let (weighed, t) = (verdict::weigh(account, policy, bar, i), &*bar.t);
    let c = &weighed.counted;
    // The verdict counts damped; people count heads. Where there are none to tell the mix of message sizes, one is one.
    let heads = if c.new_damped > 0 { f64::from(c.new_recipients) * UNIT / f64::from(c.new_damped) } else { 1.0 };
    let expected = account.baseline().new_rate(&policy.detect.prior).mean(policy.exposure_days(i)) * heads;
    let [recipients, networks, domains, relays] =
        account.distinct_since(window::start_s(weighed.span_s, account.now_s()));
    WindowView {
        window_s: weighed.span_s,
        decides: weighed.span_s >= policy.detect.decide_from_s,
        messages: c.messages,
        recipients: c.recipients,
        new_recipients: c.new_recipients,
        new_recipients_expected: rounded(expected),
        refused: c.refused,
        answered: c.answered,
        complaints: c.complaints,
        distinct: Distinct { recipients, networks, domains, relays },
        parts: Parts {
            new_recipients: rounded(weighed.new_recipients),
            refusals: rounded(weighed.refusals),
            networks: rounded(weighed.networks),
            complaints: rounded(weighed.complaints),
            volume: rounded(weighed.volume),
        },
        score: rounded(weighed.score()),
        new_recipients_uncapped: rounded(weighed.new_raw),
        corroborated: weighed.is_corroborated(),
        warning: t.warning,
        critical: t.critical,
        alone: t.alone,
        severity: weighed.severity(t),
    }
}

/// The verdict in the words of `replay --explain`.
fn sentence(strongest: Option<&Weighed>, t: &Threshold) -> String {
    let Some(weighed) = strongest else {
        return "not flagged: nothing is counted in any window".to_owned();
    };
    let score = weighed.score();
    match weighed.severity(t) {
        Some(Severity::Critical) => "critical".to_owned(),
        Some(Severity::Warning) if score < t.warning => {
            format!("a warning, by new recipients alone ({:.1} of {})", weighed.new_raw, t.alone_warning)
        }
        Some(Severity::Warning) if score >= t.critical => {
            "a warning, not critical: neither refusals nor networks nor complaints corroborate it".to_owned()
        }
        Some(Severity::Warning) => format!("a warning: {:.1} short of critical", t.critical - score),
        None => format!("not flagged: {:.1} short of a warning", t.warning - score),
    }
}

fn incident(account: &Account, policy: &Policy) -> Option<IncidentView> {
    let incident = account.incident.as_ref()?;
    Some(IncidentView {
        incident: incident.id.to_string(),
        severity: incident.severity,
        start: Timestamp(incident.start_ms),
        active: Timestamp(incident.active_ms),
        clears: Timestamp(incident.due_ms(policy.detect.quiet_s)),
        score: rounded(incident.score),
        pattern: incident.pattern,
        burst: incident.totals.burst(policy.tells_recipients()),
        relays: incident.totals.relays(account.relay_names()),
    })
}
