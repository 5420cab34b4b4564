//! One flagged account's section.

use maud::{Markup, html};

use super::{Page, later, more_row, num, words};
use crate::core::alert::{Action, Alert};
use crate::report::data::{Cut, Detail, IncidentReport, Leak};
use crate::report::redact::Name;
use crate::report::svg;
use crate::report::text::{count, number, span, value};

impl Page<'_> {
    pub(super) fn incident(&self, i: usize, one: &IncidentReport, detail: &Detail) -> Markup {
        let incident = &one.incident;
        let nth = i + 1;
        let heading = format!("incident-{nth}");
        html! {
            section.incident aria-labelledby=(heading) {
                h2 id=(heading) {
                    (self.name(Name::Account, &incident.flag.account)) " "
                    (self.severity(incident.severity))
                    @if one.nth.1 > 1 { small { " incident " (one.nth.0) " of " (one.nth.1) } }
                }
                p.facts {
                    (capital(words::looks(incident.gravest().pattern))) ". Tenant " (self.name(Name::Tenant, &incident.flag.tenant)) ". "
                    "First message " (self.when(incident.first_ts)) ", flagged " (later(incident.first_ts, incident.flag.ts))
                    @if let Some(e) = &incident.escalated { ", critical " (span(e.ts.0.saturating_sub(incident.first_ts.0) / 1000)) " after the first message" }
                    @if let Some(last) = one.last_send { ", last message " (self.when(last)) }
                    @match incident.cleared {
                        Some(at) => { ", cleared " (self.when(at)) "." },
                        None => { ", not over when the log ends." },
                    }
                    @match incident.gravest().action {
                        Action::SuspendAccount => { " Recommended: suspend the account." },
                        Action::Throttle => { " Recommended: throttle the account until somebody has looked." },
                        Action::PullRelay | Action::RestoreRelay | Action::None => {},
                    }
                    @if !self.names.redacts() { " Incident " code { (crate::report::text::visible(&incident.flag.incident)) } "." }
                    " " a.back href="#flagged" { "All flagged accounts" }
                }
                (self.picture(nth, one, detail))
                div.pair {
                    (self.leak(one))
                    (self.evidence(incident.gravest()))
                }
                div.tables {
                    (self.networks(detail))
                    (self.addresses(detail))
                    (self.relays(one))
                    (self.names_table("Recipient domains", "domain", Name::Domain, &detail.domains, "recipient"))
                    (self.names_table("Envelope senders", "sender", Name::Sender, &detail.senders, "message"))
                    (self.queue_ids(detail))
                    (self.contents(incident.gravest()))
                }
                (self.replies("What remote servers said", &detail.replies))
            }
        }
    }

    fn picture(&self, nth: usize, one: &IncidentReport, detail: &Detail) -> Markup {
        let who = self.names.show(Name::Account, &one.incident.flag.account);
        let picture = svg::timeline(one, detail, &self.clock, nth, &who);
        let hatch = format!("chart-{nth}-hatch");
        html! {
            figure {
                div.scroll tabindex="0" role="region" aria-label={ "Timeline " (nth) } { (picture.svg) }
                figcaption {
                    span.key { (svg::swatch("bar-new", None)) " new recipients" }
                    span.key { (svg::swatch("bar-known", None)) " others, already known" }
                    span.key { (svg::swatch("bar-refused", Some(&hatch))) " refused, downwards" }
                    span.key { (svg::swatch("strip-before", None)) " before the flag" }
                    span.key { (svg::swatch("strip-after", None)) " after it" }
                    span { "All mail of the account; a bar is " (span(picture.bar_s)) "; times in " (self.clock.name()) "." }
                    @if picture.refused_later > 0 { span { " " (count(picture.refused_later, "recipient")) " refused later than shown." } }
                    @if picture.cleared_later { span { " Cleared later than shown." } }
                }
            }
        }
    }

    fn leak(&self, one: &IncidentReport) -> Markup {
        let row = |name: &str, l: Leak| {
            html! {
                tr {
                    th scope="row" { (name) }
                    (num(l.messages)) (num(l.recipients)) (num(l.new_recipients)) (num(l.delivered)) (num(l.refused)) (num(l.deferred))
                }
            }
        };
        let total = one.total();
        html! {
            div.block.leak {
                h3 { "What leaked" }
                div.scroll tabindex="0" role="region" aria-label="What leaked" { table {
                    thead { tr {
                        td {} th.n scope="col" { "Messages" } th.n scope="col" { "Recipients" } th.n scope="col" { "new" } th.n scope="col" { "Delivered" }
                        th.n scope="col" { "Refused" } th.n scope="col" { "Put off" }
                    } }
                    tbody { (row("Before the flag", one.before)) (row("After the flag", one.after)) }
                    tfoot { (row("In all", total)) }
                } }
                p.hint {
                    "The burst only: messages since its first one that brought new recipients or refusals. Deliveries and refusals stand where their message was sent"
                    @if total.expired > 0 { "; " (count(total.expired, "recipient")) " given up on" }
                    ". “Put off” counts attempts."
                }
            }
        }
    }

    fn evidence(&self, alert: &Alert) -> Markup {
        let strongest = alert.evidence.iter().map(|e| e.weight).fold(0.0, f64::max);
        html! {
            div.block {
                h3 { "Why we say so" }
                @if alert.evidence.is_empty() { p { "The alert states no evidence." } } @else {
                    ul.evidence { @for e in &alert.evidence {
                        li {
                            p { bdi { (words::reason(e, self.names.redacts())) } "." }
                            p.measure {
                                (svg::share(e.weight, strongest)) " "
                                span { "weight " b { (value(e.weight)) } " of " (value(alert.score)) } " · "
                                span { (words::signal_name(e.signal)) " in " (span(i64::from(e.window_s))) ": observed " b { (value(e.observed)) } } " · "
                                span { "normal " b { (value(e.expected)) } } " · "
                                span { "limit " b { (value(e.limit)) } }
                            }
                        }
                    } }
                    p.hint { "Weights are powers of ten of surprise under the account’s own past; the score is their sum, after caps." }
                }
            }
        }
    }

    fn networks(&self, detail: &Detail) -> Markup {
        if detail.networks.rows.is_empty() {
            return html! {};
        }
        html! {
            div.block {
                h3 { "Client networks" }
                table {
                    thead { tr { th scope="col" { "Network" } th scope="col" { "Used before" } th scope="col" { "First seen" } th.n scope="col" { "Addresses" } th.n scope="col" { "Messages" } th.n scope="col" { "Recipients" } } }
                    tbody {
                        @for n in &detail.networks.rows {
                            tr {
                                th.addr scope="row" { (self.name(Name::Network, &format!("{}/{}", n.base, n.bits))) }
                                td { @if n.known { "yes" } @else { "no" } }
                                td.when { (self.when(n.first)) }
                                (num(n.addresses)) (num(n.messages)) (num(n.recipients))
                            }
                        }
                        (more_row(&detail.networks, 6, "network", "recipient"))
                    }
                }
                p.hint { "“Used before”: by this account in this log, before the burst." }
            }
        }
    }

    fn addresses(&self, detail: &Detail) -> Markup {
        if detail.addresses.rows.is_empty() {
            return html! {};
        }
        html! {
            div.block {
                h3 { "Client addresses" }
                table {
                    thead { tr { th scope="col" { "Address" } th scope="col" { "First seen" } th.n scope="col" { "Messages" } th.n scope="col" { "Recipients" } } }
                    tbody {
                        @for a in &detail.addresses.rows {
                            tr { th.addr scope="row" { (self.name(Name::Address, &a.ip.to_string())) } td.when { (self.when(a.first)) } (num(a.messages)) (num(a.recipients)) }
                        }
                        (more_row(&detail.addresses, 4, "address", "recipient"))
                    }
                }
            }
        }
    }

    fn relays(&self, one: &IncidentReport) -> Markup {
        html! {
            div.block {
                h3 { "Relays" }
                table {
                    thead { tr { th scope="col" { "Relay" } th.n scope="col" { "Messages" } th.n scope="col" { "Recipients" } } }
                    tbody {
                        @for r in &one.relays.rows {
                            tr { th scope="row" { (self.relay_link(&r.relay)) } (num(r.messages)) (num(r.recipients)) }
                        }
                        (more_row(&one.relays, 3, "relay", "recipient"))
                        @if one.relay_unknown.0 > 0 {
                            tr { th scope="row" { "not named" } (num(one.relay_unknown.0)) (num(one.relay_unknown.1)) }
                        }
                    }
                }
                p.hint { "What the burst put on each; a message counts at the first relay named for it." }
            }
        }
    }

    /// The relay's name, with a link to its collateral list where there is one.
    fn relay_link(&self, relay: &str) -> Markup {
        match self.report.relays.rows.iter().position(|r| r.relay == relay) {
            Some(i) => html! { a href={ "#relay-" (i + 1) } { (self.name(Name::Relay, relay)) } },
            None => self.name(Name::Relay, relay),
        }
    }

    fn names_table(&self, title: &str, one: &str, kind: Name, cut: &Cut<(String, u64)>, unit: &str) -> Markup {
        if cut.rows.is_empty() {
            return html! {};
        }
        html! {
            div.block {
                h3 { (title) }
                table {
                    thead { tr { th scope="col" { (capital(one)) } th.n scope="col" { (capital(unit)) "s" } } }
                    tbody {
                        @for (name, n) in &cut.rows {
                            tr { th scope="row" { @if name.is_empty() { "<> (empty)" } @else { (self.name(kind, name)) } } (num(*n)) }
                        }
                        (more_row(cut, 2, one, unit))
                    }
                }
            }
        }
    }

    fn contents(&self, alert: &Alert) -> Markup {
        let text = alert.burst.as_ref().map(|burst| burst.contents_text()).unwrap_or_default();
        html! {
            @if !text.is_empty() {
                div.block {
                    h3 { "Content" }
                    p.ids { (text) }
                    p.hint { "By fingerprint, as far as the account had not sent it long before; by the alert." }
                }
            }
        }
    }

    fn queue_ids(&self, detail: &Detail) -> Markup {
        html! {
            @if !detail.queue_ids.is_empty() {
                div.block {
                    h3 { "Sample queue ids" }
                    p.ids { @for id in &detail.queue_ids { code { (self.name(Name::QueueId, id)) } " " } }
                    p.hint { "The burst’s first ones." }
                }
            }
        }
    }

    pub(super) fn replies(&self, title: &str, cut: &Cut<((String, String), u64)>) -> Markup {
        // Redacted, several kinds of answer can read the same: they become one.
        let mut rows: Vec<(&str, String, u64)> = Vec::new();
        for ((status, said), n) in &cut.rows {
            let said = self.names.reply(said);
            match rows.iter_mut().find(|r| r.0 == status && r.1 == said) {
                Some(row) => row.2 += n,
                None => rows.push((status, said, *n)),
            }
        }
        rows.sort_by_key(|r| std::cmp::Reverse(r.2));
        html! {
            @if !rows.is_empty() {
                div.block.wide {
                    h3 { (title) }
                    table.replies {
                        thead { tr { th.n scope="col" { "Answers" } th scope="col" { "Status" } th scope="col" { "Words" } } }
                        tbody {
                            @for (status, said, n) in &rows {
                                tr { (num(*n)) td { (status) } td.words { bdi { (said) } } }
                            }
                            @if cut.more > 0 {
                                tr.more { td.n { (number(cut.more_sum)) } td colspan="2" { "in " (count(cut.more, "more kind")) " of answer" } }
                            }
                        }
                    }
                    p.hint { "Refusals and delays, the same words counted together: # stands for digits and ids, <address> for an address." }
                }
            }
        }
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
