//! What the page was made from.

use maud::{Markup, html};

use super::{Page, num};
use crate::report::redact::Name;
use crate::report::text::{count, number, size, span, visible};

/// Files and gaps listed.
const FILES_MAX: usize = 500;
const GAPS_MAX: usize = 50;
const REASONS_MAX: usize = 50;

impl Page<'_> {
    pub(super) fn sources(&self) -> Markup {
        let inputs = &self.report.inputs;
        html! {
            section.sources aria-labelledby="sources" {
                h2 #sources { "What was read" }
                (self.files())
                dl {
                    dt { "Period" }
                    dd { @match inputs.period {
                        Some((from, to)) => { (self.when(from)) " to " (self.when(to)) " (" (span(to.0.saturating_sub(from.0) / 1000)) ")" },
                        None => { "no event" },
                    } }
                    dt { "Zone" }
                    dd { (self.clock.name()) }
                    @if !inputs.year.is_empty() {
                        dt { "Year" }
                        dd { @if self.names.redacts() { "assumed" } @else { bdi { (visible(&inputs.year)) } } }
                    }
                    dt { "Lines" } dd { (number(inputs.lines)) }
                    dt { "Events" } dd { (number(inputs.events)) }
                    dt { "Accounts" } dd { (number(inputs.accounts_seen)) }
                    dt { "Rejected" } dd { (self.rejects()) }
                    dt { "Gaps" } dd { (self.gaps()) }
                    dt { "Program" } dd { "mailfuse " (visible(&inputs.version)) }
                    dt { "Configuration" } dd { code { (visible(&inputs.config_digest)) } }
                }
            }
        }
    }

    fn files(&self) -> Markup {
        let files = &self.report.inputs.files;
        let left_out = files.len().saturating_sub(FILES_MAX) as u64;
        html! {
            @if files.is_empty() { p { "No file was read." } } @else {
                div.scroll tabindex="0" role="region" aria-labelledby="sources" {
                    table {
                        thead { tr { th scope="col" { "File" } th.n scope="col" { "Size" } th scope="col" { "SHA-256" } } }
                        tbody {
                            @for f in files.iter().take(FILES_MAX) {
                                tr {
                                    th scope="row" { (self.name(Name::File, &f.name)) }
                                    td.n title=(count(f.bytes, "byte")) { (size(f.bytes)) }
                                    td { code.hash { (visible(&f.sha256)) } }
                                }
                            }
                            @if left_out > 0 { tr.more { td colspan="3" { "and " (count(left_out, "more file")) } } }
                        }
                    }
                }
            }
        }
    }

    fn rejects(&self) -> Markup {
        let rejects = &self.report.inputs.rejects;
        if rejects.is_empty() {
            return html! { "nothing" };
        }
        let rest: u64 = rejects.iter().skip(REASONS_MAX).map(|r| r.1).sum();
        html! {
            table.small { tbody {
                @for (reason, n) in rejects.iter().take(REASONS_MAX) { tr { (num(*n)) td { bdi { (visible(reason)) } } } }
                @if rest > 0 { tr { (num(rest)) td { "for other reasons" } } }
            } }
        }
    }

    fn gaps(&self) -> Markup {
        let gaps = &self.report.inputs.gaps;
        html! {
            @if gaps.is_empty() { "none" }
            @for (from, to) in gaps.iter().take(GAPS_MAX) {
                div { (self.when(*from)) " to " (self.when(*to)) " (" (span(to.0.saturating_sub(from.0) / 1000)) ")" }
            }
            @if gaps.len() > GAPS_MAX { div { "and " (count((gaps.len() - GAPS_MAX) as u64, "more gap")) } }
        }
    }
}
