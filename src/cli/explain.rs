//! `replay --explain`: one account's story, so that "why was this one not flagged?" has an answer.

use std::io::Write;
use std::sync::Arc;

use super::Failure;
use super::table::{Align, Table, printable, thousands};
use crate::core::account::Account;
use crate::core::alert::{Alert, Severity};
use crate::core::decision::{Decision, What};
use crate::core::evidence;
use crate::core::policy::{Policy, Threshold};
use crate::core::scope::Scope;
use crate::core::shard::{Shard, Step};
use crate::core::verdict::{self, Stratum, Weighed};
use crate::event::{Event, Kind, Timestamp};

/// Rows of the story; where there are more, neighbours are merged and the strongest moment stays.
const ROWS_MAX: usize = 60;

/// The strongest moment of a span of time.
#[derive(Debug, Clone)]
struct Moment {
    bucket: i64,
    ts: Timestamp,
    stratum: Stratum,
    t: Threshold,
    /// What limits are multiplied by, where they are.
    exempt: Option<f64>,
    weighed: Weighed,
    severity: Option<Severity>,
    distinct: [u32; 4],
}

/// Watches one account.
#[derive(Debug)]
pub(super) struct Explainer {
    account: String,
    policy: Arc<Policy>,
    /// Width of a row, in milliseconds.
    width_ms: i64,
    moments: Vec<Moment>,
    strongest: Option<(Moment, Vec<String>)>,
    events: u64,
    sends: u64,
    duplicates: u64,
    late: u64,
    failed_log_ins: u64,
    /// When it was put back to what it was before which incident.
    put_back: Vec<(Timestamp, String)>,
}

impl Explainer {
    /// Watches `account`.
    pub(super) fn new(account: &str, policy: &Arc<Policy>) -> Self {
        Self {
            account: account.trim().to_ascii_lowercase(),
            policy: Arc::clone(policy),
            width_ms: 60_000,
            moments: Vec::new(),
            strongest: None,
            events: 0,
            sends: 0,
            duplicates: 0,
            late: 0,
            failed_log_ins: 0,
            put_back: Vec::new(),
        }
    }

    /// Sees an event after the shard has counted it.
    pub(super) fn event(&mut self, event: &Event<'_>, step: Step, shard: &Shard) {
        if event.account.as_deref() != Some(&*self.account) {
            return;
        }
        self.events += 1;
        self.duplicates += u64::from(step.duplicate);
        self.late += u64::from(step.late);
        self.sends += u64::from(matches!(event.kind, Kind::Send(_)));
        self.failed_log_ins += u64::from(matches!(&event.kind, Kind::Auth(auth) if !auth.ok));
        let Some(account) = shard.account(&self.account) else { return };
        if step.put_back {
            self.note_put_back(event.ts, &account, shard);
        }
        let bar = shard.bar(&account);
        let t = &*bar.t;
        let Some(weighed) = verdict::strongest_at_all(&account, &self.policy, &bar) else { return };
        let start_s = crate::core::window::start_s(weighed.span_s, account.now_s());
        let moment = Moment {
            bucket: account.clock_ms().div_euclid(self.width_ms),
            ts: Timestamp(account.clock_ms()),
            stratum: bar.stratum,
            t: t.clone(),
            exempt: bar.exemption(&account, &weighed).map(|e| e.factor),
            severity: weighed.severity(t),
            distinct: account.distinct_since(start_s),
            weighed,
        };
        if self.strongest.as_ref().is_none_or(|(m, _)| moment.rank() > m.rank()) {
            let severity = moment.severity.unwrap_or(Severity::Warning);
            let sentences = evidence::list(&account, &self.policy, &bar, &moment.weighed, severity)
                .into_iter()
                .map(|e| format!("{:>5.1}  {}", e.weight, e.text));
            self.strongest = Some((moment.clone(), sentences.collect()));
        }
        self.push(moment);
    }

    /// The account was put back before the incidents that have been called hijacks since the last time.
    fn note_put_back(&mut self, at: Timestamp, account: &Account, shard: &Shard) {
        for decisions in shard.decisions(account) {
            for decision in decisions.standing(at) {
                if let What::Hijack { incident } = &decision.what
                    && !self.put_back.iter().any(|(_, known)| known == incident)
                {
                    self.put_back.push((at, incident.clone()));
                }
            }
        }
    }

    fn push(&mut self, moment: Moment) {
        match self.moments.last_mut() {
            Some(last) if last.bucket == moment.bucket => {
                if moment.rank() > last.rank() {
                    *last = moment;
                }
            }
            // Nothing has happened that it counts.
            Some(last) if last.weighed.counted == moment.weighed.counted => {}
            _ => self.moments.push(moment),
        }
        while self.moments.len() > ROWS_MAX {
            self.width_ms *= 2;
            let mut merged: Vec<Moment> = Vec::with_capacity(ROWS_MAX);
            for mut moment in self.moments.drain(..) {
                moment.bucket = moment.bucket.div_euclid(2);
                match merged.last_mut() {
                    Some(last) if last.bucket == moment.bucket => {
                        if moment.rank() > last.rank() {
                            *last = moment;
                        }
                    }
                    _ => merged.push(moment),
                }
            }
            self.moments = merged;
        }
    }

    /// Prints the story.
    pub(super) fn print(&self, shard: &Shard, alerts: &[Alert], out: &mut impl Write) -> Result<(), Failure> {
        let Some(account) = shard.account(&self.account) else {
            writeln!(out, "{}: no event of this account in these logs", printable(&self.account))?;
            let alike = alike(&self.account, shard);
            if !alike.is_empty() {
                writeln!(out, "Accounts with like names: {}", alike.join(", "))?;
            }
            return Ok(());
        };
        self.head(&account, shard, out)?;
        let mine: Vec<&Alert> = alerts.iter().filter(|a| a.account == self.account).collect();
        writeln!(out, "\nThe strongest moment of each {}", span(self.width_ms))?;
        out.write_all(self.table().text().as_bytes())?;
        if let Some((moment, sentences)) = &self.strongest {
            writeln!(out, "\nStrongest of all, {}, over {}:", moment.ts, evidence::span(moment.weighed.span_s))?;
            for sentence in sentences {
                writeln!(out, "  {sentence}")?;
            }
            self.verdict(moment, out)?;
        }
        writeln!(out, "\nAlerts: {}", if mine.is_empty() { "none" } else { "" })?;
        for alert in mine {
            let kind = serde_json::to_value(alert.kind)?;
            let severity = serde_json::to_value(alert.severity)?;
            writeln!(
                out,
                "  {}  {}  {}  score {}",
                alert.ts,
                kind.as_str().unwrap_or_default(),
                severity.as_str().unwrap_or_default(),
                alert.score
            )?;
            if let Some(contents) = alert.burst.as_ref().map(|b| b.contents_text()).filter(|c| !c.is_empty()) {
                writeln!(out, "    content {contents}")?;
            }
        }
        Ok(())
    }

    fn head(&self, account: &Account, shard: &Shard, out: &mut impl Write) -> Result<(), Failure> {
        let prior = &self.policy.detect.prior;
        let base = account.baseline();
        let (alpha, beta) = base.refusals(prior);
        writeln!(out, "{}  (tenant {})", printable(account.name()), printable(account.tenant()))?;
        writeln!(
            out,
            "  {} events, {} messages; {} repeats dropped, {} too late to count; {} failed log-ins that name it",
            thousands(self.events),
            thousands(self.sends),
            self.duplicates,
            self.late,
            thousands(self.failed_log_ins)
        )?;
        writeln!(
            out,
            "  met {}, {} days with mail before today; all history begins {}: it is \"{}\"",
            Timestamp(i64::from(account.first_s()) * 1000),
            base.active_days,
            shard.history_since(),
            account.stratum().name()
        )?;
        writeln!(
            out,
            "  normal a day: {:.1} new recipients (damped), {:.1} recipients (damped), {:.1} % refused, a new network on {:.0} % of days; {} known contacts",
            base.new_rate(prior).mean(1.0),
            base.volume_rate(prior).mean(1.0),
            100.0 * alpha / (alpha + beta),
            100.0 * base.foreign_probability(prior),
            thousands(account.contacts().len() as u64)
        )?;
        let at = Timestamp(account.clock_ms());
        for decisions in shard.decisions(account) {
            for decision in &decisions.decisions {
                writeln!(out, "  decided: {}", decided(&decisions.scope, decision, at))?;
            }
        }
        for (at, incident) in &self.put_back {
            writeln!(out, "  put back at {at} to what it was before incident {}", printable(incident))?;
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("at", Align::Left),
            ("over", Align::Right),
            ("messages", Align::Right),
            ("recipients", Align::Right),
            ("distinct", Align::Right),
            ("new", Align::Right),
            ("refused", Align::Right),
            ("networks", Align::Right),
            ("domains", Align::Right),
            ("score", Align::Right),
            ("warning", Align::Right),
            ("critical", Align::Right),
            ("", Align::Left),
        ]);
        for m in &self.moments {
            let (c, t) = (&m.weighed.counted, &m.t);
            table.row(vec![
                m.ts.to_string(),
                evidence::span(m.weighed.span_s),
                c.messages.to_string(),
                c.recipients.to_string(),
                m.distinct[0].to_string(),
                c.new_recipients.to_string(),
                c.refused.to_string(),
                m.distinct[1].to_string(),
                m.distinct[2].to_string(),
                format!("{:.1}", m.weighed.score()),
                format!("{:.1}", t.warning),
                format!("{:.1}", t.critical),
                match m.severity {
                    Some(Severity::Critical) => "critical".to_owned(),
                    Some(Severity::Warning) => "warning".to_owned(),
                    None if m.exempt.is_some() => "exempt".to_owned(),
                    None => String::new(),
                },
            ]);
        }
        table
    }

    /// What decided, in a sentence.
    fn verdict(&self, m: &Moment, out: &mut impl Write) -> Result<(), Failure> {
        let t = &m.t;
        let score = m.weighed.score();
        let parts = format!(
            "new recipients {:.1} (at most {:.1}), refusals {:.1} (at most {}), networks {:.1}, complaints {:.1}, volume {:.1}",
            m.weighed.new_recipients,
            t.new_max(m.weighed.networks),
            m.weighed.refusals,
            t.refusals_max,
            m.weighed.networks,
            m.weighed.complaints,
            m.weighed.volume
        );
        writeln!(out, "  score {score:.1}: {parts}")?;
        let why = match m.severity {
            Some(Severity::Critical) => "critical".to_owned(),
            Some(Severity::Warning) if score >= t.critical => {
                "a warning, not critical: neither refusals nor networks nor complaints corroborate it".to_owned()
            }
            Some(Severity::Warning) if score < t.warning => {
                format!("a warning, by new recipients alone ({:.1} of {})", m.weighed.new_raw, t.alone_warning)
            }
            Some(Severity::Warning) => format!("a warning: {:.1} short of critical", t.critical - score),
            None => format!("not flagged: {:.1} short of a warning", t.warning - score),
        };
        let why = match m.exempt {
            Some(factor) => format!("{why}; it was exempt: limits on counts were {factor} times as large"),
            None => why,
        };
        writeln!(
            out,
            "  as {} account, a warning takes {}, critical {} with corroboration; new recipients alone {} (here {:.1})",
            m.stratum.name(),
            t.warning,
            t.critical,
            if t.alone.is_finite() { format!("{}", t.alone) } else { "never suffice".to_owned() },
            m.weighed.new_raw
        )?;
        writeln!(out, "  => {why}")?;
        Ok(())
    }
}

/// A decision, and whether it stands at `at`.
fn decided(scope: &Scope, decision: &Decision, at: Timestamp) -> String {
    let what = match &decision.what {
        What::Exempt { factor } => format!("exempt, limits times {factor},"),
        What::Tolerate { decades } => format!("tolerated, bars raised by {decades} decades"),
        What::Pin { stratum } => format!("taken for \"{}\"", stratum.name()),
        What::Close { incident } => format!("incident {} closed", printable(incident)),
        What::Hijack { incident } => format!("incident {} was a hijack", printable(incident)),
        What::Inherit { account_before, .. } => format!("goes on with what {} had learned", printable(account_before)),
    };
    let when = match decision.until {
        _ if at < decision.from => "does not count yet",
        Some(until) if at >= until => "is over",
        _ => "stands",
    };
    let whom = match scope {
        Scope::Account(_) => String::new(),
        _ => format!("{} {}: ", scope.kind(), printable(&scope.name())),
    };
    let mut text = format!("{whom}{what} from {}", decision.from);
    if let Some(until) = decision.until {
        text.push_str(&format!(" until {until}"));
    }
    if let Some(by) = &decision.by {
        text.push_str(&format!(" by {}", printable(by)));
    }
    if let Some(note) = &decision.note {
        text.push_str(&format!(" ({})", printable(note)));
    }
    text.push_str(&format!("; at the end of these logs it {when}"));
    text
}

impl Moment {
    fn rank(&self) -> (Option<Severity>, u64) {
        // Scores are sums of capped decades: positive, so that their order is that of whole thousandths.
        (self.severity, (self.weighed.score() * 1000.0) as u64)
    }
}

fn span(width_ms: i64) -> String {
    match width_ms / 60_000 {
        1 => "minute".to_owned(),
        minutes if minutes < 120 => format!("{minutes} minutes"),
        minutes if minutes < 2 * 1440 => format!("{} hours", minutes / 60),
        minutes => format!("{} days", minutes / 1440),
    }
}

fn alike(name: &str, shard: &Shard) -> Vec<String> {
    let mut alike: Vec<(f64, &str)> =
        shard.names().map(|a| (strsim::jaro_winkler(name, a), a)).filter(|(l, _)| *l > 0.85).collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    alike.into_iter().take(5).map(|(_, n)| printable(n)).collect()
}
