//! What an account had learned when an incident of it was flagged, so that it can be put back to that if the incident was a
//! hijack: what the thief sent must not be what is normal for the owner.

use super::account::Account;
use super::baseline::{Baseline, DAY_S};
use super::codec::{Input, Unreadable, put, put_signed, put_text};
use super::contacts::Contacts;
use super::networks::Networks;
use super::sends::seconds;

/// Incidents of one account that are remembered so; the oldest makes room.
const KEPT_MAX: usize = 2;
/// For so long after the flag, in days of the account's clock.
const KEPT_DAYS: u32 = 30;
/// An account with more contacts keeps those it has: so many take some 30 kB.
const CONTACTS_MAX: usize = 8192;

/// What an account had learned when an incident was flagged.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    /// The incident's id.
    pub incident: Box<str>,
    /// The account's clock at the flag, in milliseconds.
    pub flagged_ms: i64,
    /// Without the day of the flag.
    baseline: Baseline,
    /// Without those that were foreign at the flag.
    networks: Networks,
    /// None where there were too many.
    contacts: Option<Contacts>,
}

impl Account {
    /// Keeps what it has learned, an incident being flagged now. Of what the burst did on this day before its flag only its
    /// recipients are in it, because nobody knows which of its contacts are so new: some ten or twenty.
    pub(super) fn keep_before(&mut self, incident: &str) {
        let contacts = (self.contacts.len() <= CONTACTS_MAX).then(|| self.contacts.clone());
        if self.before.len() == KEPT_MAX {
            self.before.remove(0);
        }
        // Mostly it stays the only one.
        self.before.reserve_exact(1);
        self.before.push(Before {
            incident: incident.into(),
            flagged_ms: self.clock_ms,
            baseline: self.baseline.without_today(),
            networks: self.networks.without_foreign(self.now_s()),
            contacts,
        });
    }

    /// Puts baseline, networks and contacts back to what they were before the first incident that `is_hijack` says yes to and
    /// that is over. The current day teaches from now on. Returns whether there was one.
    ///
    /// A later incident, about which nobody has said so, could be put back only to what this one taught: it goes back to the same.
    pub(super) fn put_back(&mut self, is_hijack: impl Fn(&str) -> bool) -> bool {
        let open = self.incident.as_ref().map(|i| i.id.clone());
        let is_meant = |b: &Before| open.as_ref() != Some(&b.incident) && is_hijack(&b.incident);
        let Some(first) = self.before.iter().position(is_meant) else { return false };
        let then = self.before[first].clone();
        for later in self.before.iter_mut().skip(first + 1) {
            let (incident, flagged_ms) = (std::mem::take(&mut later.incident), later.flagged_ms);
            *later = Before { incident, flagged_ms, ..then.clone() };
        }
        self.before.retain(|b| !is_meant(b));
        self.before.shrink_to_fit();
        self.baseline = then.baseline.on_day_of(self.now_s());
        self.networks = then.networks;
        if let Some(contacts) = then.contacts {
            self.contacts = contacts;
        }
        true
    }

    /// Drops what has been kept for long enough. Called when its day changes.
    pub(super) fn drop_before(&mut self) {
        let now_s = self.now_s();
        self.before.retain(|b| now_s.saturating_sub(seconds(b.flagged_ms)) < KEPT_DAYS * DAY_S);
    }

    /// Whom it had written to when this incident was flagged, where that was kept; else whom it has written to by now.
    pub fn contacts_before(&self, incident: &str) -> &Contacts {
        let kept = self.before.iter().find(|b| *b.incident == *incident);
        kept.and_then(|b| b.contacts.as_ref()).unwrap_or(&self.contacts)
    }

    /// The incidents that the account could be put back to before, oldest first.
    pub fn before(&self) -> &[Before] {
        &self.before
    }
}

impl Before {
    /// Baseline, networks, and contacts where they were kept.
    pub(super) fn learned(&self) -> (&Baseline, &Networks, Option<&Contacts>) {
        (&self.baseline, &self.networks, self.contacts.as_ref())
    }

    fn pack(&self, out: &mut Vec<u8>, clock_ms: i64) {
        put_text(out, &self.incident);
        put_signed(out, clock_ms.wrapping_sub(self.flagged_ms));
        let clock_s = seconds(clock_ms);
        self.baseline.pack(out, clock_s);
        self.networks.pack(out, clock_s);
        put(out, u64::from(self.contacts.is_some()));
        if let Some(contacts) = &self.contacts {
            contacts.pack(out);
        }
    }

    fn unpack(from: &mut Input<'_>, clock_ms: i64) -> Result<Self, Unreadable> {
        let incident = from.text()?.into();
        let flagged_ms = clock_ms.wrapping_sub(from.signed()?);
        let clock_s = seconds(clock_ms);
        let (baseline, networks) = (Baseline::unpack(from, clock_s)?, Networks::unpack(from, clock_s)?);
        let contacts = if from.count(1, 0)? == 1 { Some(Contacts::unpack(from)?) } else { None };
        Ok(Self { incident, flagged_ms, baseline, networks, contacts })
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.incident.len() + self.networks.heap_bytes() + self.contacts.as_ref().map_or(0, Contacts::heap_bytes)
    }
}

/// Packs those of an account, one at least.
pub(super) fn pack(before: &[Before], out: &mut Vec<u8>, clock_ms: i64) {
    put(out, before.len() as u64);
    before.iter().for_each(|b| b.pack(out, clock_ms));
}

pub(super) fn unpack(from: &mut Input<'_>, clock_ms: i64) -> Result<Vec<Before>, Unreadable> {
    let len = from.count(KEPT_MAX, 1)?;
    if len == 0 {
        return Err(Unreadable("nothing where something was kept"));
    }
    let mut before = Vec::with_capacity(len);
    for _ in 0..len {
        before.push(Before::unpack(from, clock_ms)?);
    }
    Ok(before)
}
