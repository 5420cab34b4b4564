//! An incident: one burst of one account, from its flag to its clear.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::account::RELAYS_MAX;
use super::alert::{AlertKind, Burst, ContentShare, DomainShare, Pattern, RelayShare, Severity};
use super::baseline::DAY_S;
use super::bottom::{self, Bottom};
use super::codec::{Input, Unreadable, put, put_signed};
use super::names::Names;
use super::sends::{Sends, Sent, mark};
use super::signal::minute_of;
use crate::event::Timestamp;

/// Client addresses that an alert names at most.
pub const CLIENT_IPS_MAX: usize = 16;
const QUEUE_IDS_MAX: usize = 10;
const DOMAINS_SHOWN: usize = 10;
const DOMAINS_MAX: usize = 64;
/// Contents that an alert names at most.
pub const CONTENTS_SHOWN: usize = 8;
/// Contents that are counted: the first ones.
const CONTENTS_MAX: usize = 64;
/// A content that the account had sent so long before the burst is its own: an empty message, a holiday notice, its newsletter.
/// What a thief tries out first is younger.
const OWN_FROM_MS: i64 = DAY_S as i64 * 1000;

/// What a burst put out before the minute of its flag, by minute since 1970; see [`Totals::gather`].
pub type Before = BTreeMap<i64, Vec<(u16, i64, i64)>>;

/// What a burst has put out so far.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Totals {
    first_ms: i64,
    messages: u64,
    recipients: u64,
    new: u64,
    refused: u64,
    client_ips: Vec<IpAddr>,
    queue_ids: Vec<Box<str>>,
    domains: Vec<(Box<str>, u64)>,
    /// By place in the account's relay names plus one (bounded there): messages, recipients. Below 128 its stored form is that of
    /// a byte, which it was.
    relays: Vec<(u16, u64, u64)>,
    /// How often a counted message turned out to go over another relay. Stored behind the rest.
    #[serde(skip)]
    moves: u64,
    /// Stored behind the rest.
    #[serde(skip)]
    lately: Lately,
    /// Contents by their fingerprints. Not in the form of versions before 3, nor are the new recipients.
    #[serde(skip)]
    contents: Vec<Content>,
    #[serde(skip)]
    new_prints: Bottom,
}

/// What several messages of a burst say.
#[derive(Debug, Clone, PartialEq)]
struct Content {
    print: u32,
    messages: u64,
    /// The account had sent it long before.
    is_own: bool,
}

/// What a burst has put out in one minute of the account's clock: the last in which anything happened.
#[derive(Debug, Clone, PartialEq, Default)]
struct Lately {
    /// In minutes since 1970.
    minute: i64,
    /// As [`Totals::relays`]; what moved from one to another in that minute is taken from the first.
    relays: Vec<(u16, i64, i64)>,
}

impl Lately {
    fn count(&mut self, relay: u16, messages: i64, recipients: i64) {
        match self.relays.iter_mut().find(|r| r.0 == relay) {
            Some(entry) => (entry.1, entry.2) = (entry.1 + messages, entry.2 + recipients),
            None => self.relays.push((relay, messages, recipients)),
        }
    }
}

/// An open incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Stable id.
    pub id: Box<str>,
    /// What it has reached.
    pub severity: Severity,
    /// The account's clock when the evidence last reached a warning, in milliseconds.
    pub active_ms: i64,
    /// The score at its last alert.
    pub score: f64,
    /// The pattern at its last alert.
    pub pattern: Pattern,
    /// Start of the burst: sends before it are not part of it, in milliseconds.
    pub start_ms: i64,
    /// The burst so far.
    pub totals: Totals,
    /// The account's clock at the flag, in milliseconds. Not in files of version 1.
    #[serde(skip)]
    pub flagged_ms: i64,
}

impl Incident {
    /// The moment at which the incident is over, if nothing more comes.
    pub fn due_ms(&self, quiet_s: u32) -> i64 {
        self.active_ms.saturating_add(i64::from(quiet_s) * 1000)
    }

    /// Few accounts have one: serde's form will do.
    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail; were it to, reading would say so.
        let mut bytes = postcard::to_stdvec(self).unwrap_or_default();
        self.totals.pack_lately(&mut bytes);
        put_signed(out, self.active_ms.wrapping_sub(self.flagged_ms));
        put(out, bytes.len() as u64);
        out.extend_from_slice(&bytes);
        self.totals.pack_prints(out);
    }

    /// `form` is the version of the account's form.
    pub(super) fn unpack(from: &mut Input<'_>, form: u8) -> Result<Self, Unreadable> {
        let flagged_before_ms = from.signed()?;
        let len = from.count(usize::MAX, 1)?;
        let (mut incident, rest): (Self, _) =
            postcard::take_from_bytes(from.take(len)?).map_err(|_| Unreadable("a damaged incident"))?;
        // An older program wrote no more.
        if !rest.is_empty() {
            incident.totals.unpack_lately(Input::new(rest))?;
        }
        incident.flagged_ms = incident.active_ms.wrapping_sub(flagged_before_ms);
        if form >= 3 {
            incident.totals.unpack_prints(from)?;
        }
        Ok(incident)
    }
}

impl Totals {
    /// Gathers the sends since `start_ms` that brought new recipients or refusals, and marks them as counted.
    ///
    /// What went out before the minute of the flag, `clock_ms` being the account's clock, does not count as of that minute, but comes
    /// beside: by minute, and more than an hour before by the hour's first one, as [`Totals::lately`] has it.
    pub fn gather(sends: &mut Sends, start_ms: i64, clock_ms: i64) -> (Self, Before) {
        let mut totals = Self::default();
        let flagged = minute_of(clock_ms);
        let mut before: BTreeMap<i64, Lately> = BTreeMap::new();
        let mut met = Vec::new();
        for sent in sends.telling_since(start_ms) {
            met.extend(totals.join(sent));
            sent.prints().for_each(|print| totals.count_new(print));
            for (domain, n) in sent.domains() {
                totals.count_domain(domain, u64::from(n));
            }
            totals.new += u64::from(sent.new);
            totals.refused += u64::from(sent.refused);
            if sent.relay != 0 {
                let minute = minute_of(sent.ts_ms).min(flagged);
                let minute = if flagged - minute > 60 { minute - minute.rem_euclid(60) } else { minute };
                before.entry(minute).or_default().count(sent.relay, 1, sent.recipients.into());
            }
        }
        met.into_iter().for_each(|content| totals.settle_own(content, sends, start_ms));
        totals.lately = before.remove(&flagged).unwrap_or_default();
        totals.lately.minute = flagged;
        (totals, before.into_iter().map(|(minute, lately)| (minute, lately.relays)).collect())
    }

    /// The account's clock is in this minute, in minutes since 1970: what is counted from now on counts in it.
    pub fn at_minute(&mut self, minute: i64) {
        if self.lately.minute != minute {
            self.lately.minute = minute;
            self.lately.relays.clear();
        }
    }

    /// The last minute in which an event came, in minutes since 1970, and what the burst put out in it, by place of the relay as in
    /// the account's names plus one: messages and recipients. Below zero where more moved to another relay.
    pub fn lately(&self) -> (i64, &[(u16, i64, i64)]) {
        (self.lately.minute, &self.lately.relays)
    }

    /// The minute of [`Totals::lately`].
    pub fn lately_minute(&self) -> i64 {
        self.lately.minute
    }

    /// Grows with every message that is counted and with every one that moves.
    pub fn seq(&self) -> u64 {
        self.messages + self.moves
    }

    fn pack_lately(&self, out: &mut Vec<u8>) {
        put(out, self.moves);
        put_signed(out, self.lately.minute);
        put(out, self.lately.relays.len() as u64);
        for &(relay, messages, recipients) in &self.lately.relays {
            put(out, relay);
            put_signed(out, messages);
            put_signed(out, recipients);
        }
    }

    fn unpack_lately(&mut self, mut from: Input<'_>) -> Result<(), Unreadable> {
        self.moves = from.number()?;
        self.lately.minute = from.signed()?;
        for _ in 0..from.count(RELAYS_MAX, 3)? {
            let share = (from.place()?, from.signed()?, from.signed()?);
            self.lately.relays.push(share);
        }
        if from.left() > 0 { Err(Unreadable("a damaged incident")) } else { Ok(()) }
    }

    /// Asks whether a content, met for the first time, is the account's own: the burst began at `start_ms`.
    pub fn settle_own(&mut self, print: u32, sends: &Sends, start_ms: i64) {
        if let Some(content) = self.contents.iter_mut().find(|c| c.print == print) {
            content.is_own = sends.had_content(print, start_ms.saturating_sub(OWN_FROM_MS));
        }
    }

    /// Notes who a new recipient is.
    pub fn count_new(&mut self, print: u32) {
        self.new_prints.add(print);
    }

    fn pack_prints(&self, out: &mut Vec<u8>) {
        put(out, self.contents.len() as u64);
        for content in &self.contents {
            out.extend_from_slice(&content.print.to_le_bytes());
            put(out, content.messages << 1 | u64::from(content.is_own));
        }
        put(out, self.new_prints.hashes().len() as u64);
        self.new_prints.hashes().iter().for_each(|print| out.extend_from_slice(&print.to_le_bytes()));
    }

    fn unpack_prints(&mut self, from: &mut Input<'_>) -> Result<(), Unreadable> {
        for _ in 0..from.count(CONTENTS_MAX, 5)? {
            let print = u32::from_le_bytes(from.array()?);
            let head = from.number()?;
            self.contents.push(Content { print, messages: head >> 1, is_own: head & 1 != 0 });
        }
        for _ in 0..from.count(bottom::KEPT, 4)? {
            self.new_prints.add(u32::from_le_bytes(from.array()?));
        }
        Ok(())
    }

    /// Counts a message into the burst, once. Returns its content where that is met for the first time: then
    /// [`Totals::settle_own`] is due.
    pub fn join(&mut self, sent: &mut Sent) -> Option<u32> {
        if sent.is(mark::COUNTED) {
            return None;
        }
        sent.marks |= mark::COUNTED;
        if self.messages == 0 || sent.ts_ms < self.first_ms {
            self.first_ms = sent.ts_ms;
        }
        self.messages += 1;
        self.recipients += u64::from(sent.recipients);
        if let Some(ip) = sent.client_ip
            && self.client_ips.len() < CLIENT_IPS_MAX
            && !self.client_ips.contains(&ip)
        {
            self.client_ips.push(ip);
        }
        if let Some(queue_id) = sent.queue_id()
            && self.queue_ids.len() < QUEUE_IDS_MAX
        {
            self.queue_ids.push(queue_id.into());
        }
        if sent.relay != 0 {
            self.count_relay(sent.relay, sent.recipients);
            self.lately.count(sent.relay, 1, sent.recipients.into());
        }
        let print = sent.content()?;
        if let Some(content) = self.contents.iter_mut().find(|c| c.print == print) {
            content.messages += 1;
        } else if self.contents.len() < CONTENTS_MAX {
            self.contents.push(Content { print, messages: 1, is_own: false });
            return Some(print);
        }
        None
    }

    /// A message that was counted went through another relay than it seemed; 0 is none.
    pub fn move_relay(&mut self, from: u16, to: u16, recipients: u32) {
        if let Some(entry) = self.relays.iter_mut().find(|r| r.0 == from) {
            entry.1 = entry.1.saturating_sub(1);
            entry.2 = entry.2.saturating_sub(u64::from(recipients));
        }
        self.relays.retain(|r| r.1 > 0);
        self.count_relay(to, recipients);
        self.moves += 1;
        if from != 0 {
            self.lately.count(from, -1, -i64::from(recipients));
        }
        self.lately.count(to, 1, recipients.into());
    }

    /// Counts one message on a relay.
    fn count_relay(&mut self, relay: u16, recipients: u32) {
        if let Some(entry) = self.relays.iter_mut().find(|r| r.0 == relay) {
            entry.1 += 1;
            entry.2 += u64::from(recipients);
        } else {
            self.relays.push((relay, 1, u64::from(recipients)));
        }
    }

    /// Counts recipients found new or refused after the message was counted.
    pub fn count_more(&mut self, new: u32, refused: u32, domain: Option<&str>) {
        self.new += u64::from(new);
        self.refused += u64::from(refused);
        if let Some(domain) = domain {
            self.count_domain(domain, 1);
        }
    }

    /// Counts recipients at a domain.
    pub fn count_domain(&mut self, domain: &str, n: u64) {
        if let Some(entry) = self.domains.iter_mut().find(|d| *d.0 == *domain) {
            entry.1 += n;
        } else if self.domains.len() < DOMAINS_MAX {
            self.domains.push((domain.into(), n));
        }
    }

    /// Whether nothing has been counted.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// As the alert has it; `None` where no send of it is known, as in a log that only holds outcomes. Without `shows_prints` its
    /// new recipients are not told, not even by fingerprints.
    pub fn burst(&self, shows_prints: bool) -> Option<Burst> {
        if self.is_empty() {
            return None;
        }
        let mut domains: Vec<_> =
            self.domains.iter().map(|(domain, n)| DomainShare { domain: domain.to_string(), recipients: *n }).collect();
        domains.sort_by(|a, b| b.recipients.cmp(&a.recipients).then_with(|| a.domain.cmp(&b.domain)));
        domains.truncate(DOMAINS_SHOWN);
        let strange = self.contents.iter().filter(|c| !c.is_own && c.messages > 0);
        let mut contents: Vec<_> =
            strange.map(|c| ContentShare { fingerprint: shown(c.print), messages: c.messages }).collect();
        contents.sort_by(|a, b| b.messages.cmp(&a.messages).then_with(|| a.fingerprint.cmp(&b.fingerprint)));
        contents.truncate(CONTENTS_SHOWN);
        let prints = self.new_prints.hashes().iter().filter(|_| shows_prints);
        Some(Burst {
            first_ts: Timestamp(self.first_ms),
            messages: self.messages,
            recipients: self.recipients,
            new_recipients: self.new,
            bounced: self.refused,
            client_ips: self.client_ips.iter().map(ToString::to_string).collect(),
            top_domains: domains,
            queue_ids: self.queue_ids.iter().map(ToString::to_string).collect(),
            contents,
            new_recipient_fingerprints: prints.map(|print| shown(*print)).collect(),
        })
    }

    /// Places of the relays that it speaks of, plus one.
    pub(super) fn relay_places(&self) -> impl Iterator<Item = u16> {
        self.relays.iter().map(|r| r.0).chain(self.lately.relays.iter().map(|r| r.0))
    }

    /// Its share of each relay, `names` being the account's relay names.
    pub fn relays(&self, names: &Names) -> Vec<RelayShare> {
        let names: Vec<&str> = names.iter().collect();
        let mut relays: Vec<_> = self
            .relays
            .iter()
            .filter_map(|&(relay, messages, recipients)| {
                let name = names.get(usize::from(relay).checked_sub(1)?)?;
                Some(RelayShare { relay: (*name).to_owned(), messages, recipients })
            })
            .collect();
        relays.sort_by(|a, b| b.recipients.cmp(&a.recipients).then_with(|| a.relay.cmp(&b.relay)));
        relays
    }
}

/// A fingerprint as alerts have it.
fn shown(print: u32) -> String {
    format!("{print:08x}")
}

/// The id of an incident: the same for the same account flagged at the same moment of its clock, wherever it is computed.
pub fn incident_id(account: &str, clock_ms: i64) -> String {
    stable_id("i-", &["incident", account, &clock_ms.to_string()])
}

/// The id of an alert of an incident. There is at most one of a kind.
pub fn alert_id(incident: &str, kind: AlertKind) -> String {
    let stage = match kind {
        AlertKind::Flagged => "flagged",
        AlertKind::Escalated => "escalated",
        AlertKind::Cleared => "cleared",
    };
    stable_id("a-", &["alert", incident, stage])
}

/// The first 128 bits of SHA-256 over the parts, each ended by a zero byte, in hexadecimal.
fn stable_id(prefix: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut id = String::from(prefix);
    for byte in &hash.finalize()[..16] {
        id.push_str(&format!("{byte:02x}"));
    }
    id
}
