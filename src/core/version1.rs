//! Stored forms of version 1, which had a list of cells for each window: read, and never written.

use std::net::IpAddr;

use serde::Deserialize;

use super::account::Account;
use super::baseline::Baseline;
use super::codec::{Input, Unreadable};
use super::contacts::Contacts;
use super::fingerprint::Fingerprint;
use super::incident::Incident;
use super::networks::Networks;
use super::recent::Recent;
use super::repeats::Repeats;
use super::sends::{Sends, Sent, TEXT_MAX, mark};
use super::verdict::Stratum;
use super::window::{Cell, Counters, STEPS, Spans, WINDOWS_MAX, Windows, start_s, width_s};

/// Of each window at most twelve cells, oldest first.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Windows1(Vec<Vec<Cell1>>);

#[derive(Debug, Deserialize)]
struct Cell1 {
    /// Seconds since 1970, divided by the window's step.
    index: u32,
    counters: Counters,
}

impl Windows1 {
    pub(super) fn unpack(from: &mut Input<'_>) -> Result<Self, Unreadable> {
        let len = from.count(WINDOWS_MAX, 1)?;
        let mut windows = Vec::with_capacity(len);
        let mut before = Counters::default();
        for _ in 0..len {
            let len = from.count(STEPS as usize, 1)?;
            let mut cells = Vec::with_capacity(len);
            let mut index = 0u32;
            for _ in 0..len {
                let head = from.number()?;
                let by = u32::try_from(head >> 1).map_err(|_| Unreadable("a number of more than 32 bits"))?;
                index = index.checked_add(by).ok_or(Unreadable("a number of more than 32 bits"))?;
                if head & 1 == 0 {
                    (before, _) = Counters::unpack(from)?;
                }
                cells.push(Cell1 { index, counters: before });
            }
            windows.push(cells);
        }
        Ok(Self(windows))
    }

    /// The timeline that gives the same sums, from `now_s` on: of each cell what the cells of the next shorter window do not have
    /// is older than that window, and is placed at the cell's beginning. Exact where each step is a multiple of the one before,
    /// as by default; elsewhere what lies on the border of two cells may leave a window a step too early.
    pub(super) fn timeline(self, spans: &Spans, now_s: u32) -> Windows {
        let (mut cells, mut shorter): (Vec<Cell>, Vec<Cell>) = (Vec::new(), Vec::new());
        for (window, &span_s) in self.0.iter().zip(spans.all_s()) {
            let (step, start_s) = (width_s(span_s), start_s(span_s, now_s));
            let held = window.iter().map(|c| Cell { at_s: c.index.saturating_mul(step), counters: c.counters });
            let held: Vec<Cell> = held.filter(|c| (start_s..=now_s).contains(&c.at_s)).collect();
            for cell in &held {
                let mut rest = *cell;
                let end_s = cell.at_s.saturating_add(step);
                shorter
                    .iter()
                    .filter(|s| (cell.at_s..end_s).contains(&s.at_s))
                    .for_each(|s| rest.counters.take(&s.counters));
                if !rest.counters.is_zero() {
                    cells.push(rest);
                }
            }
            shorter = held;
        }
        cells.sort_by_key(|c| c.at_s);
        Windows::of(cells, spans, now_s)
    }
}

#[derive(Debug, Deserialize)]
struct Sends1 {
    sent: Vec<Sent1>,
    /// Always 0.
    _first: u32,
    unswept: u32,
}

#[derive(Debug, Deserialize)]
struct Sent1 {
    key: u64,
    ts_ms: i64,
    recipients: u32,
    new: u32,
    refused: u32,
    named: bool,
    foreign: bool,
    counted: bool,
    relay: u8,
    relay_sure: bool,
    client_ip: Option<IpAddr>,
    queue_id: Option<Box<str>>,
    domains: Vec<(Box<str>, u32)>,
}

impl Sends1 {
    fn sends(self) -> Sends {
        let sent = |s: Sent1| {
            let marks = [
                (s.named, mark::NAMED),
                (s.foreign, mark::FOREIGN),
                (s.counted, mark::COUNTED),
                (s.relay_sure, mark::RELAY_SURE),
            ];
            let domains = s.domains.iter().filter(|(domain, _)| domain.len() <= TEXT_MAX);
            Sent {
                key: s.key,
                ts_ms: s.ts_ms,
                recipients: s.recipients,
                new: s.new,
                refused: s.refused,
                marks: marks.into_iter().filter(|m| m.0).fold(0, |all, (_, mark)| all | mark),
                relay: s.relay.into(),
                client_ip: s.client_ip,
                ..Sent::default()
            }
            .with_texts(s.queue_id.as_deref(), domains.map(|(domain, n)| (&**domain, *n)))
        };
        Sends::of(self.sent.into_iter().map(sent).collect(), self.unswept)
    }
}

/// An account of a file of version 1, by the order of its fields.
#[derive(Debug, Deserialize)]
pub struct Account1 {
    name: Box<str>,
    tenant: Option<Box<str>>,
    first_s: u32,
    clock_ms: i64,
    windows: Windows1,
    baseline: Baseline,
    contacts: Contacts,
    recipients: Recent,
    domains: Recent,
    relays: Recent,
    networks: Networks,
    sends: Sends1,
    relay_names: Vec<Box<str>>,
    repeats: Repeats,
    stratum: Stratum,
    cleared_ms: i64,
    incident: Option<Incident>,
}

impl Account1 {
    /// The account, which has counted in windows of these spans, and whose hashes were made with `prints`.
    pub fn account(self, spans: &Spans, prints: &Fingerprint) -> Account {
        let mut account = Account::new(&self.name, self.clock_ms, self.stratum);
        account.windows = self.windows.timeline(spans, account.now_s());
        account.tenant = self.tenant;
        account.first_s = self.first_s;
        account.baseline = self.baseline;
        account.contacts = self.contacts;
        account.recipients = self.recipients;
        account.domains = self.domains;
        account.relays = self.relays;
        account.networks = self.networks;
        account.sends = self.sends.sends();
        account.relay_names = self.relay_names.iter().collect();
        account.count_relays_by_name(prints);
        account.repeats = Some(self.repeats).filter(|r| !r.is_default()).map(Box::new);
        account.cleared_ms = self.cleared_ms;
        account.incident = self.incident.map(Box::new);
        if let Some(incident) = &mut account.incident {
            // Not stored then; it was flagged at some moment between these two.
            incident.flagged_ms = incident.start_ms;
        }
        account
    }
}
