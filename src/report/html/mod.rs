//! The page: one HTML file that needs no script, no network and no other file.

mod collateral;
mod incident;
mod overview;
mod sources;
mod words;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::data::{Cut, Report};
use crate::event::Timestamp;

use super::redact::{Name, Names};
use super::text::{Clock, number, visible};

/// What the page leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RenderOptions {
    /// Replace names by tokens, for a page that leaves the house.
    pub redact: bool,
}

/// Nothing is loaded, nothing runs: even markup that slipped through could do nothing.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// What every part of the page needs.
struct Page<'a> {
    report: &'a Report,
    names: Names,
    clock: Clock,
}

/// Makes the page. The same report gives the same bytes.
pub fn render(report: &Report, options: &RenderOptions) -> String {
    let page = Page { report, names: Names::new(options.redact), clock: Clock::new(&report.inputs.zone) };
    page.document().into_string()
}

impl Page<'_> {
    fn document(&self) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="referrer" content="no-referrer";
                    meta name="robots" content="noindex";
                    title { (self.title()) }
                    style { (PreEscaped(include_str!("../page.css"))) }
                }
                body {
                    header { (self.head()) }
                    main {
                        (self.summary())
                        (self.flagged_table())
                        @for (i, incident) in self.report.incidents.iter().enumerate() {
                            @if let Some(detail) = &incident.detail { (self.incident(i, incident, detail)) }
                        }
                        (self.collateral())
                        (self.sources())
                    }
                    footer { p { "Made by mailfuse " (visible(&self.report.inputs.version)) ". The same input and configuration give the same page." } }
                }
            }
        }
    }

    /// A moment in the log's zone; the machine-readable form is UTC.
    fn when(&self, ts: Timestamp) -> Markup {
        html! { time datetime=(ts) { (self.clock.full(ts)) } }
    }

    /// A foreign name, set apart so that its direction of writing cannot reach the text around it.
    fn name(&self, kind: Name, name: &str) -> Markup {
        let shown = self.names.show(kind, name);
        // Long names break after their dots and at signs, not in the middle of a word; addresses do not break.
        if matches!(kind, Name::Address | Name::Network) {
            return html! { bdi { (shown) } };
        }
        html! { bdi { @for part in shown.split_inclusive(['.', '@', '/']) { (part) wbr; } } }
    }
}

/// `and 12 more domains (345 recipients)`, as the last row of a table of `columns` columns.
fn more_row<T>(cut: &Cut<T>, columns: usize, what: &str, unit: &str) -> Markup {
    html! {
        @if cut.more > 0 || cut.more_sum > 0 {
            tr.more { td colspan=(columns) {
                "and " (super::text::count(cut.more, &format!("more {what}"))) ": " (super::text::count(cut.more_sum, unit))
            } }
        }
    }
}

/// `15 s later`, or `at once`.
fn later(from: Timestamp, to: Timestamp) -> String {
    match to.0.saturating_sub(from.0) / 1000 {
        ..=0 => "at once".to_owned(),
        s => format!("{} later", super::text::span(s)),
    }
}

/// A right-aligned number.
fn num(n: u64) -> Markup {
    html! { td.n { (number(n)) } }
}
