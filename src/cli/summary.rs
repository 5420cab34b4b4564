//! What a replay found, for the person who started it.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use hashbrown::{HashMap, HashSet};

use super::feed::{Reading, Seen};
use super::table::{Align, Table, count, printable, thousands};
use crate::config::Config;
use crate::core::alert::{Alert, AlertKind, Burst, RelayShare, Severity};
use crate::core::incident::CLIENT_IPS_MAX;
use crate::core::networks::network;
use crate::core::policy::Policy;
use crate::core::shard::Shard;
use crate::event::Timestamp;
use crate::logs::stamp::Assumed;
use crate::report;

/// Rows shown of each severity; the rest is counted. `--alerts` has all.
const ROWS_MAX: usize = 40;

/// One incident, from its alerts.
#[derive(Debug, Clone)]
struct Row {
    account: String,
    flagged: Timestamp,
    severity: Severity,
    /// Recipients when it reached its severity.
    at_flag: u64,
    burst: Option<Burst>,
    relays: Vec<RelayShare>,
    reason: String,
}

/// All incidents of a replay, in the order of their flags.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    rows: Vec<Row>,
    by_id: HashMap<String, usize>,
}

impl Incidents {
    /// Takes note of an alert.
    pub(super) fn note(&mut self, alert: &Alert) {
        let place = match (alert.kind, self.by_id.get(&alert.incident)) {
            (AlertKind::Cleared, None) => return,
            (_, Some(&place)) => place,
            (_, None) => {
                self.by_id.insert(alert.incident.clone(), self.rows.len());
                self.rows.push(Row {
                    account: alert.account.clone(),
                    flagged: alert.ts,
                    severity: alert.severity,
                    at_flag: 0,
                    burst: None,
                    relays: Vec::new(),
                    reason: String::new(),
                });
                self.rows.len() - 1
            }
        };
        let row = &mut self.rows[place];
        if alert.kind != AlertKind::Cleared {
            row.severity = alert.severity;
            row.flagged = alert.ts;
            row.at_flag = alert.burst.as_ref().map_or(0, |b| b.recipients);
            row.reason = alert.evidence.first().map(|e| e.text.clone()).unwrap_or_default();
        }
        row.burst = alert.burst.clone();
        row.relays = alert.relays.clone();
    }

    /// Completes what is still open with how far it got.
    pub(super) fn finish(&mut self, shard: &Shard) {
        for (account, incident) in shard.open_incidents() {
            if let Some(&place) = self.by_id.get(&*incident.id) {
                self.rows[place].burst = incident.totals.burst(false);
                self.rows[place].relays = incident.totals.relays(account.relay_names());
            }
        }
    }
}

/// The report's inputs.
pub(super) fn inputs(seen: &Seen, reading: &Reading, config: &Config, shard: &Shard) -> report::Inputs {
    let file = |s: &super::feed::SeenSource| report::InputFile {
        name: s.name.clone(),
        sha256: s.sha256.map(hex).unwrap_or_default(),
        bytes: s.bytes,
    };
    report::Inputs {
        files: seen.sources.iter().map(file).collect(),
        period: seen.period,
        zone: reading.zone_name.clone(),
        year: years(seen),
        lines: seen.lines,
        events: seen.events,
        rejects: seen.rejects.iter().map(|(reason, (n, _))| ((*reason).to_owned(), *n)).collect(),
        gaps: seen.gaps.clone(),
        accounts_seen: shard.accounts() as u64,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config_digest: config.digest(),
        made_at: None,
    }
}

fn hex(bytes: [u8; 32]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What year was assumed, and why; one phrase for all files that agree.
fn years(seen: &Seen) -> String {
    let mut phrases: Vec<String> = Vec::new();
    for source in &seen.sources {
        let phrase = match source.assumed {
            None => continue,
            Some(Assumed::Given(year)) => format!("{year} (--year)"),
            Some(Assumed::FileName(year, _)) => format!("{year} (a date in the file's name)"),
            Some(Assumed::Modified(year)) => format!("{year} (the file's own date)"),
            Some(Assumed::Nothing(year)) => format!("{year} (nothing is known of the stream; say --year)"),
        };
        if !phrases.contains(&phrase) {
            phrases.push(phrase);
        }
    }
    if phrases.is_empty() { "stated by every stamp".to_owned() } else { phrases.join(", ") }
}

/// Prints the summary to standard error.
pub(super) fn print(seen: &Seen, reading: &Reading, policy: &Policy, shard: &Shard, incidents: &Incidents) {
    anstream::eprint!("{}", text(seen, reading, policy, shard, incidents));
}

fn text(seen: &Seen, reading: &Reading, policy: &Policy, shard: &Shard, incidents: &Incidents) -> String {
    let mut t = String::new();
    read_part(&mut t, seen, reading, policy);
    what_part(&mut t, seen, shard);
    let critical: Vec<&Row> = incidents.rows.iter().filter(|r| r.severity == Severity::Critical).collect();
    let warning: Vec<&Row> = incidents.rows.iter().filter(|r| r.severity == Severity::Warning).collect();
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
    let nobody = seen.postfix.as_ref().is_some_and(|p| p.sends == 0 && p.messages_without_account > 0);
    if nobody {
        let _ = writeln!(
            t,
            "\nNo message of these logs names an account (sasl_username): add the logs of the host where customers log in."
        );
    } else if incidents.rows.is_empty() {
        let _ = writeln!(t, "\nNo account was flagged. `--explain ACCOUNT` shows how near one came.");
    }
    incident_part(&mut t, "CRITICAL, stop the account", red, &critical);
    incident_part(&mut t, "WARNING, look at it", yellow, &warning);
    t
}

fn read_part(t: &mut String, seen: &Seen, reading: &Reading, policy: &Policy) {
    let names: Vec<String> = seen.sources.iter().take(3).map(|s| printable(&s.name)).collect();
    let more = seen.sources.len().saturating_sub(3);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let _ = writeln!(t, "Read      {}{more}: {}", names.join(", "), count(seen.lines, "line"));
    let period = match seen.period {
        Some((from, to)) => format!("{from} to {to}"),
        None => "no event".to_owned(),
    };
    let _ = writeln!(t, "Period    {period}; zone {}; year {}", reading.zone_name, years(seen));
    let _ = writeln!(t, "By        {}", policy.by);
    let empty = seen.sources.iter().filter(|s| s.format.is_none()).map(|s| printable(&s.name));
    let empty: Vec<String> = empty.collect();
    if !empty.is_empty() {
        let _ = writeln!(t, "Empty     {}", empty.join(", "));
    }
}

fn what_part(t: &mut String, seen: &Seen, shard: &Shard) {
    let _ = write!(t, "Events    {} of {}", thousands(seen.events), count(shard.accounts() as u64, "account"));
    if shard.accounts() > 0 {
        let bytes = shard.bytes() / shard.accounts();
        let _ = write!(t, ", {} bytes of memory each", thousands(bytes as u64));
    }
    if seen.outside > 0 {
        let _ = write!(t, "; {} outside --since and --until", thousands(seen.outside));
    }
    if seen.unknown_kinds > 0 {
        let _ = write!(t, "; {} of kinds this version does not know", thousands(seen.unknown_kinds));
    }
    if seen.cut > 0 {
        let _ = write!(t, "; {} cut to their limits", thousands(seen.cut));
    }
    let _ = writeln!(t);
    if let Some(p) = &seen.postfix {
        let _ = writeln!(
            t,
            "Postfix   {} by accounts, {} by nobody known; {} delivered, {} bounced, {} deferred, {} rejected, {} expired",
            count(p.sends, "message"),
            thousands(p.messages_without_account),
            thousands(p.delivered),
            thousands(p.bounced),
            thousands(p.deferred),
            thousands(p.rejected),
            thousands(p.expired),
        );
        let _ = writeln!(t, "Log-ins   {} succeeded, {} failed", thousands(p.auth_ok), thousands(p.auth_failed));
        let lost = [
            (p.given_up_full, "messages given up: too many open (postfix.max_open_messages)"),
            (
                p.handovers_unmatched,
                "hand-overs to own hosts without a match in these logs (is a relay's log missing?)",
            ),
            (p.recipients_untracked, "outcomes not followed: too many recipients waiting (postfix.max_recipients)"),
            (p.lines_unparsed, "Postfix lines not understood"),
            (seen.unstamped, "lines without a stamp"),
        ];
        for (n, what) in lost.into_iter().filter(|(n, _)| *n > 0) {
            let _ = writeln!(t, "          {} {what}", thousands(n));
        }
    }
    rejected_part(t, seen);
    if !seen.gaps.is_empty() {
        let _ = writeln!(
            t,
            "Gaps      {} of more than an hour without an event",
            thousands(seen.gaps.len() as u64 + seen.gaps_more)
        );
        for (from, to) in seen.gaps.iter().take(3) {
            let _ = writeln!(t, "          {from} to {to}");
        }
    }
}

/// What could not be read, by reason, with where and why.
pub(super) fn rejected_part(t: &mut String, seen: &Seen) {
    if seen.rejected() > 0 {
        let _ = writeln!(t, "Rejected  {}; `--rejects FILE` keeps them", count(seen.rejected(), "record"));
        for (reason, (n, samples)) in &seen.rejects {
            let at: Vec<String> = samples.iter().map(|(place, _)| printable(&place.to_string())).collect();
            let why = samples.first().map(|(_, why)| printable(why)).unwrap_or_default();
            let _ = writeln!(t, "          {} {reason}, as at {}: {why}", thousands(*n), at.join(", "));
        }
    }
}

fn incident_part(t: &mut String, head: &str, style: Style, rows: &[&Row]) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(t, "\n{style}{head}{style:#}: {}", count(rows.len() as u64, "incident"));
    let mut table = Table::new(&[
        ("flagged", Align::Left),
        ("account", Align::Left),
        ("so far", Align::Right),
        ("in all", Align::Right),
        ("refused", Align::Right),
        ("networks", Align::Right),
        ("relays", Align::Left),
        ("strongest reason", Align::Left),
    ]);
    for row in rows.iter().take(ROWS_MAX) {
        let burst = row.burst.as_ref();
        let ips = burst.map_or(&[][..], |b| &b.client_ips);
        let networks: HashSet<u64> = ips.iter().filter_map(|ip| ip.parse().ok()).map(network).collect();
        let names: Vec<&str> = row.relays.iter().take(2).map(|r| r.relay.as_str()).collect();
        let more = row.relays.len().saturating_sub(2);
        table.row(vec![
            row.flagged.to_string(),
            row.account.clone(),
            thousands(row.at_flag),
            thousands(burst.map_or(0, |b| b.recipients)),
            thousands(burst.map_or(0, |b| b.bounced)),
            // An alert names so many addresses at most.
            format!("{}{}", networks.len(), if ips.len() >= CLIENT_IPS_MAX { "+" } else { "" }),
            format!("{}{}", names.join(" "), if more > 0 { format!(" +{more}") } else { String::new() }),
            row.reason.clone(),
        ]);
    }
    t.push_str(&table.text());
    if rows.len() > ROWS_MAX {
        let _ = writeln!(t, "  and {} more: --alerts has all", thousands((rows.len() - ROWS_MAX) as u64));
    }
}
