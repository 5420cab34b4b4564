//! `replay --find`: from what an analyst has in hand to the accounts behind it.

use std::io::Write;
use std::net::IpAddr;

use hashbrown::HashMap;
use ipnet::IpNet;

use super::Failure;
use super::table::{Align, Table, printable, thousands};
use crate::event::{Event, Kind, Timestamp};

/// Accounts that are told apart; further ones are counted as one number.
const ACCOUNTS_MAX: usize = 100_000;
/// Accounts that are printed.
const ROWS_MAX: usize = 200;

/// What was found of one account.
#[derive(Debug, Clone)]
struct Found {
    by: &'static str,
    events: u64,
    messages: u64,
    recipients: u64,
    first: Timestamp,
    last: Timestamp,
}

/// Looks through events for one thing.
#[derive(Debug)]
pub(super) struct Finder {
    what: String,
    network: Option<IpNet>,
    found: HashMap<String, Found>,
    left_out: u64,
}

impl Finder {
    /// Looks for `what`: a relay, a client address or network, a queue id, a Message-ID, a recipient.
    pub(super) fn new(what: &str) -> Self {
        let what = what.trim().trim_start_matches('<').trim_end_matches('>');
        let network = what.parse().ok().or_else(|| what.parse::<IpAddr>().ok().map(IpNet::from));
        Self { what: what.to_owned(), network, found: HashMap::new(), left_out: 0 }
    }

    /// Looks at one event.
    pub(super) fn event(&mut self, event: &Event<'_>) {
        let Some(by) = self.matches(event) else { return };
        let Some(account) = event.account.as_deref() else { return };
        let (messages, recipients) = match &event.kind {
            Kind::Send(send) => (1, send.rcpts.count),
            _ => (0, 0),
        };
        if !self.found.contains_key(account) {
            if self.found.len() >= ACCOUNTS_MAX {
                self.left_out += 1;
                return;
            }
            let found = Found { by, events: 0, messages: 0, recipients: 0, first: event.ts, last: event.ts };
            self.found.insert(account.to_owned(), found);
        }
        if let Some(found) = self.found.get_mut(account) {
            found.events += 1;
            found.messages += messages;
            found.recipients += recipients;
            found.first = found.first.min(event.ts);
            found.last = found.last.max(event.ts);
        }
    }

    /// By what the event matches, if it does.
    fn matches(&self, event: &Event<'_>) -> Option<&'static str> {
        let exact = |field: &Option<std::borrow::Cow<'_, str>>| field.as_deref() == Some(&*self.what);
        let folded = |field: Option<&str>| field.is_some_and(|f| f.eq_ignore_ascii_case(&self.what));
        let inside = |ip: Option<IpAddr>| matches!((self.network, ip), (Some(net), Some(ip)) if net.contains(&ip));
        match &event.kind {
            Kind::Send(send) => {
                if inside(send.client_ip) {
                    Some("client address")
                } else if exact(&send.queue_id) {
                    Some("queue id")
                } else if send.message_id.as_deref().is_some_and(|m| m.trim_matches(['<', '>']) == self.what) {
                    Some("Message-ID")
                } else if folded(send.relay.as_deref()) {
                    Some("relay")
                } else if send.rcpts.named.iter().any(|r| folded(Some(r))) {
                    Some("recipient")
                } else {
                    folded(send.mail_from.as_deref()).then_some("envelope sender")
                }
            }
            Kind::Outcome(outcome) => {
                if exact(&outcome.queue_id) {
                    Some("queue id")
                } else if exact(&outcome.relay_queue_id) {
                    Some("queue id on the relay")
                } else if folded(Some(&outcome.rcpt)) {
                    Some("recipient")
                } else {
                    folded(outcome.relay.as_deref()).then_some("relay")
                }
            }
            Kind::Complaint(complaint) => folded(complaint.rcpt.as_deref()).then_some("recipient"),
            Kind::Auth(auth) => inside(auth.client_ip).then_some("client address"),
        }
    }

    /// Prints the accounts, those with most recipients first.
    pub(super) fn print(self, out: &mut impl Write) -> Result<(), Failure> {
        if self.found.is_empty() {
            writeln!(
                out,
                "{}: behind no account of these logs. It is compared with relays, client addresses and networks, queue ids, \
                 Message-IDs, recipients and envelope senders",
                printable(&self.what)
            )?;
            return Ok(());
        }
        let mut rows: Vec<(String, Found)> = self.found.into_iter().collect();
        rows.sort_by(|a, b| (b.1.recipients, b.1.events, &a.0).cmp(&(a.1.recipients, a.1.events, &b.0)));
        let mut table = Table::new(&[
            ("account", Align::Left),
            ("found as", Align::Left),
            ("events", Align::Right),
            ("messages", Align::Right),
            ("recipients", Align::Right),
            ("first", Align::Left),
            ("last", Align::Left),
        ]);
        for (account, found) in rows.iter().take(ROWS_MAX) {
            table.row(vec![
                account.clone(),
                found.by.to_owned(),
                thousands(found.events),
                thousands(found.messages),
                thousands(found.recipients),
                found.first.to_string(),
                found.last.to_string(),
            ]);
        }
        out.write_all(table.text().as_bytes())?;
        let more = rows.len().saturating_sub(ROWS_MAX) as u64;
        if more > 0 || self.left_out > 0 {
            writeln!(out, "  and {} more accounts, {} more events", thousands(more), thousands(self.left_out))?;
        }
        Ok(())
    }
}
