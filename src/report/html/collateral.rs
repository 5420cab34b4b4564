//! Who else sent through the relays meanwhile.

use maud::{Markup, html};

use super::{Page, more_row, num};
use crate::report::data::{Exposure, TenantRow};
use crate::report::helpdesk::{Facts, letter};
use crate::report::redact::Name;
use crate::report::text::{count, number, span};

/// Incidents named beside a relay.
const INCIDENTS_NAMED: usize = 8;

impl Page<'_> {
    pub(super) fn collateral(&self) -> Markup {
        if self.report.incidents.is_empty() {
            return html! {};
        }
        let relays = &self.report.relays;
        html! {
            section.collateral aria-labelledby="collateral" {
                h2 #collateral { "Collateral: who else used the relays" }
                p {
                    "Accounts that were not flagged and sent through a relay while a burst was on it, or within " (span(self.report.tail_s))
                    " of one of its messages. If a blocklist named the relay’s address, these customers’ mail suffered."
                }
                @if relays.rows.is_empty() { p { "No relay is named for the burst mail, so nobody can be said to have shared it." } }
                @for (i, relay) in relays.rows.iter().enumerate() { (self.exposure(i + 1, relay)) }
                @if relays.more > 0 {
                    p.more { "and " (count(relays.more, "more relay")) ", which carried " (count(relays.more_sum, "burst recipient")) }
                }
            }
        }
    }

    fn exposure(&self, nth: usize, relay: &Exposure) -> Markup {
        let sum = &relay.others_sum;
        let accounts = relay.others.rows.len() as u64 + relay.others.more;
        html! {
            section.relay aria-labelledby={ "relay-" (nth) } {
                h3 id={ "relay-" (nth) } { "Relay " (self.name(Name::Relay, &relay.relay)) }
                p {
                    "Carried " (count(relay.messages, "burst message")) " to " (count(relay.recipients, "recipient")) " between "
                    (self.when(relay.span.0)) " and " (self.when(relay.span.1)) ", of "
                    @for (n, i) in relay.incidents.iter().take(INCIDENTS_NAMED).enumerate() {
                        @if n > 0 { ", " } (self.incident_link(*i))
                    }
                    @if relay.incidents.len() > INCIDENTS_NAMED { " and " (number((relay.incidents.len() - INCIDENTS_NAMED) as u64)) " more" }
                    ". Exposed for " (span(relay.exposed_s)) " in all. "
                    @if accounts == 0 && relay.uncounted_messages == 0 { strong { "Nobody else used it in that time." } } @else {
                        strong { (count(accounts, "other account")) } " sent " (count(sum.messages, "message")) " to " (count(sum.recipients, "recipient"))
                        "; " (number(sum.refused)) " of their recipients were refused and " (count(sum.deferred, "attempt")) " put off meanwhile."
                        @if relay.uncounted_messages > 0 {
                            " (" (count(relay.uncounted_messages, "message")) " of accounts beyond the bound are in these sums, but in no row.)"
                        }
                    }
                }
                @if accounts > 0 {
                    div.tables {
                        (self.bystanders(relay))
                        @if relay.tenants.rows.len() > 1 { (self.tenants(relay)) }
                    }
                    (self.letters(relay))
                }
                (self.replies("What remote servers said to them", &relay.replies))
            }
        }
    }

    fn incident_link(&self, i: usize) -> Markup {
        let Some(one) = self.report.incidents.get(i) else { return html! {} };
        let name = self.name(Name::Account, &one.incident.flag.account);
        html! { @if one.detail.is_some() { a href={ "#incident-" (i + 1) } { (name) } } @else { (name) } }
    }

    fn bystanders(&self, relay: &Exposure) -> Markup {
        html! {
            div.block {
                h4 { "Accounts" }
                table {
                    thead { tr {
                        th scope="col" { "Account" } th.n scope="col" { "Messages" } th.n scope="col" { "Recipients" } th.n scope="col" { "Refused" } th.n scope="col" { "Put off" }
                    } }
                    tbody {
                        @for o in &relay.others.rows {
                            tr { th scope="row" { (self.name(Name::Account, &o.account)) } (num(o.messages)) (num(o.recipients)) (num(o.refused)) (num(o.deferred)) }
                        }
                        (more_row(&relay.others, 5, "account", "recipient"))
                    }
                }
            }
        }
    }

    /// What the help desk can write to them; not on a page that leaves the house.
    fn letters(&self, relay: &Exposure) -> Markup {
        let incidents = relay.incidents.iter().filter_map(|i| self.report.incidents.get(*i));
        let Some(noticed) = incidents.map(|i| i.incident.flag.ts).min() else { return html! {} };
        if self.names.redacts() {
            return html! {};
        }
        let facts = Facts { noticed, stopped: None, pulled: None };
        html! {
            details {
                summary { "What the help desk can write to them" }
                dl { @for o in &relay.others.rows { dt { (self.name(Name::Account, &o.account)) } dd { (letter(o, &facts)) } } }
            }
        }
    }

    fn tenants(&self, relay: &Exposure) -> Markup {
        let row = |t: &TenantRow| {
            html! { tr { th scope="row" { (self.name(Name::Tenant, &t.tenant)) } (num(t.accounts)) (num(t.messages)) (num(t.recipients)) (num(t.refused)) } }
        };
        html! {
            div.block {
                h4 { "Tenants" }
                table {
                    thead { tr {
                        th scope="col" { "Tenant" } th.n scope="col" { "Accounts" } th.n scope="col" { "Messages" } th.n scope="col" { "Recipients" } th.n scope="col" { "Refused" }
                    } }
                    tbody { @for t in &relay.tenants.rows { (row(t)) } (more_row(&relay.tenants, 5, "tenant", "recipient")) }
                }
            }
        }
    }
}
