//! The top of the page: what was found, in words and as one table.

use maud::{Markup, html};

use super::{Page, words};
use crate::core::alert::{Pattern, Severity};
use crate::report::data::{IncidentReport, Leak};
use crate::report::redact::Name;
use crate::report::text::{count, number, span, visible};

impl Page<'_> {
    pub(super) fn title(&self) -> String {
        let accounts = self.accounts();
        let found = match accounts {
            0 => "no account flagged".to_owned(),
            n => format!("{} flagged", count(n, "account")),
        };
        match self.report.inputs.period {
            Some((from, to)) if self.clock.date(from) == self.clock.date(to) => {
                format!("Incident report, {}: {found}", self.clock.date(from))
            }
            Some((from, to)) => {
                format!("Incident report, {} to {}: {found}", self.clock.date(from), self.clock.date(to))
            }
            None => format!("Incident report: {found}"),
        }
    }

    /// Accounts that have a line in the table.
    fn accounts(&self) -> u64 {
        self.report.incidents.iter().filter(|i| i.nth.0 == 1).count() as u64
    }

    pub(super) fn head(&self) -> Markup {
        let inputs = &self.report.inputs;
        html! {
            h1 { (self.title()) }
            p.lede {
                (count(inputs.files.len() as u64, "file")) ", " (count(inputs.lines, "line")) ", " (count(inputs.events, "event"))
                @if let Some((from, to)) = inputs.period {
                    ", from " (self.when(from)) " to " (self.when(to))
                }
                " (" (self.clock.name())
                @if !inputs.year.is_empty() {
                    @if self.names.redacts() { "; year assumed" } @else { "; year " bdi { (visible(&inputs.year)) } }
                }
                ")"
                @let rejects: u64 = inputs.rejects.iter().map(|r| r.1).sum();
                @if rejects > 0 { "; " (count(rejects, "line")) " rejected" }
                @if !inputs.gaps.is_empty() { "; " (count(inputs.gaps.len() as u64, "gap")) }
                ". mailfuse " (visible(&inputs.version)) ", configuration " code { (visible(&inputs.config_digest)) } ". "
                a href="#sources" { "What was read" } "."
                @if let Some(at) = &inputs.made_at { " Made " (visible(at)) "." }
            }
            @if self.names.redacts() {
                p.note {
                    strong { "Redacted. " }
                    "Accounts, tenants, client addresses and networks, relays, queue ids, envelope senders and file names are replaced by numbered tokens; "
                    "the same token means the same name on this page only. Recipient domains are kept where they belong to a large public mail provider. "
                    "Of remote replies only codes and common words are kept. Incident ids and the detector's own sentences are left out."
                }
            }
        }
    }

    pub(super) fn summary(&self) -> Markup {
        let r = self.report;
        html! {
            section.summary aria-labelledby="summary" {
                h2 #summary { "Summary" }
                @match r.incidents.as_slice() {
                    [] => p {
                        strong { "No account was flagged. " }
                        (count(r.inputs.accounts_seen, "account")) " sent mail or logged in; none of them left its habits far enough for a warning."
                        @if r.inputs.events == 0 { " Nothing could be read as an event: see " a href="#sources" { "what was read" } "." }
                    },
                    [one] if r.incidents_more == 0 => (self.summary_of_one(one)),
                    many => (self.summary_of_many(many)),
                }
            }
        }
    }

    fn summary_of_one(&self, one: &IncidentReport) -> Markup {
        let incident = &one.incident;
        let alert = incident.gravest();
        let total = one.total();
        html! {
            p {
                strong { (self.name(Name::Account, &incident.flag.account)) " " (words::looks(alert.pattern)) }
                " (" (words::severity(incident.severity)) "). "
                "The burst’s first message went out at " strong { (self.when(incident.first_ts)) } "; it was flagged "
                strong { (super::later(incident.first_ts, incident.flag.ts)) } ", after "
                (count(one.before.messages, "message")) " to " strong { (count(one.before.recipients, "recipient")) } ". "
                @if one.after.messages > 0 {
                    "After the flag " (count(one.after.messages, "message")) " to " (count(one.after.recipients, "recipient")) " followed: "
                    (number(total.recipients)) " in all, of which " (number(total.refused)) " were refused. "
                } @else {
                    "Nothing followed. " (number(total.refused)) " recipients were refused. "
                }
                @if one.networks > 0 { "It came from " (count(one.networks, "client network")) ". " }
                (self.summary_of_relays())
            }
        }
    }

    fn summary_of_many(&self, many: &[IncidentReport]) -> Markup {
        let mut sums = [Leak::default(), Leak::default()];
        let mut delays: Vec<i64> = Vec::new();
        for i in many {
            sums[0] += i.before;
            sums[1] += i.after;
            delays.push(i.incident.flag.ts.0.saturating_sub(i.incident.first_ts.0) / 1000);
        }
        let [before, after] = sums;
        delays.sort_unstable();
        let median = delays.get(delays.len() / 2).copied().unwrap_or(0);
        let critical = many.iter().filter(|i| i.incident.severity == Severity::Critical).count();
        let hijack = many.iter().filter(|i| i.incident.gravest().pattern == Pattern::Hijack).count();
        let listed = many.len() as u64 + self.report.incidents_more;
        html! {
            p {
                strong { (count(self.accounts(), "account")) " were flagged" }
                @if listed != self.accounts() { ", in " (count(listed, "incident")) }
                @match (critical, many.len() - critical) {
                    (_, 0) => ", all critical",
                    (0, _) => ", all as warnings",
                    (_, warnings) => { ": " (number(critical as u64)) " critical, " (count(warnings as u64, "warning")) },
                }
                @if self.report.incidents_more > 0 { " among the " (number(many.len() as u64)) " gravest" }
                ". " (number(hijack as u64)) " look" @if hijack == 1 { "s" } " hijacked. "
                "Half of them were flagged within " strong { (span(median)) } " of the burst’s first message. "
                "Before their flags " (count(before.messages, "message")) " to " strong { (count(before.recipients, "recipient")) } " went out, after them "
                (count(after.messages, "message")) " to " (count(after.recipients, "recipient")) "; "
                (number(before.refused + after.refused)) " recipients were refused. "
                (self.summary_of_relays())
            }
        }
    }

    fn summary_of_relays(&self) -> Markup {
        let relays = self.report.relays.rows.len() as u64 + self.report.relays.more;
        html! {
            @if relays > 0 {
                @if let ([only], 0) = (self.report.relays.rows.as_slice(), self.report.relays.more) {
                    "The burst mail went through the relay " strong { (self.name(Name::Relay, &only.relay)) } "; "
                } @else {
                    "The burst mail went through " (count(relays, "relay")) "; "
                }
                a href="#collateral" { (count(self.report.bystanders, "other account")) } " used "
                @if relays == 1 { "it" } @else { "them" } " in the same time."
            } @else {
                "No relay is named for the burst mail."
            }
        }
    }

    pub(super) fn flagged_table(&self) -> Markup {
        if self.report.incidents.is_empty() {
            return html! {};
        }
        html! {
            section aria-labelledby="flagged" {
                h2 #flagged { "Flagged accounts" }
                div.scroll tabindex="0" role="region" aria-labelledby="flagged" {
                    table.flagged {
                        thead {
                            tr {
                                th scope="col" rowspan="2" { "Account" } th scope="col" rowspan="2" { "Flagged" } th scope="col" rowspan="2" { "Severity" }
                                th scope="col" rowspan="2" { "Pattern" } th.group scope="colgroup" colspan="2" { "Recipients" }
                                th.n scope="col" rowspan="2" { "Refused" } th.n scope="col" rowspan="2" { "Networks" } th scope="col" rowspan="2" { "Relays" }
                                th scope="col" rowspan="2" { "Strongest reason" }
                            }
                            tr { th.n scope="col" { "to flag" } th.n.last scope="col" { "after" } }
                        }
                        tbody {
                            @for (i, incident) in self.report.incidents.iter().enumerate() { (self.flagged_row(i, incident)) }
                            @if self.report.incidents_more > 0 {
                                tr.more { td colspan="10" { "and " (count(self.report.incidents_more, "more incident")) ", not listed" } }
                            }
                        }
                    }
                }
            }
        }
    }

    fn flagged_row(&self, i: usize, one: &IncidentReport) -> Markup {
        let incident = &one.incident;
        let alert = incident.gravest();
        html! {
            tr {
                th.account scope="row" {
                    @if one.detail.is_some() {
                        a href={ "#incident-" (i + 1) } { (self.name(Name::Account, &incident.flag.account)) }
                    } @else { (self.name(Name::Account, &incident.flag.account)) }
                    @if one.nth.1 > 1 { small { " (" (one.nth.0) " of " (one.nth.1) ")" } }
                }
                td.when { (self.when(incident.flag.ts)) }
                td { (self.severity(incident.severity)) }
                td { (words::pattern(alert.pattern)) }
                (super::num(one.before.recipients))
                (super::num(one.after.recipients))
                (super::num(one.total().refused))
                (super::num(one.networks))
                td.relays {
                    @if let Some(relay) = one.relays.rows.first() { (self.name(Name::Relay, &relay.relay)) }
                    @let more = (one.relays.rows.len() as u64).saturating_sub(1) + one.relays.more;
                    @if more > 0 { " and " (number(more)) " more" }
                    @if one.relays.rows.is_empty() { "not named" }
                }
                td.reason { bdi { (alert.evidence.first().map(|e| words::reason(e, self.names.redacts())).unwrap_or_default()) } }
            }
        }
    }

    /// A word with a sign of its own shape: colour alone would not do.
    pub(super) fn severity(&self, severity: Severity) -> Markup {
        html! {
            @match severity {
                Severity::Critical => span.sev.critical { span aria-hidden="true" { "■ " } (words::severity(severity)) },
                Severity::Warning => span.sev.warning { span aria-hidden="true" { "▲ " } (words::severity(severity)) },
            }
        }
    }
}
