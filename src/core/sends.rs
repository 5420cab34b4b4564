//! The recent sends of one account: they tie outcomes to their message, and they are what a burst is made of.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::account::damped;
use super::codec::{Input, Unreadable, put, put_name, put_signed};
use super::fingerprint::Fingerprint;
use super::texts::{PRINTS_MAX, Texts};
use super::window::Counters;
use hashbrown::HashMap;

/// A send that brought neither a new recipient nor a refusal is remembered for this long, for its outcomes.
const PLAIN_S: u32 = 6 * 3600;
/// Domains counted for one message.
const DOMAINS_MAX: usize = 16;
/// Bytes of their names, and of a queue id that is kept to be shown: no real ones are longer, and 1,024 sends of made-up ones
/// must not make an account of 18 MB.
pub(super) const TEXT_MAX: usize = 1024;
const QUEUE_ID_MAX: usize = 255;
/// Sends that any configuration remembers at most.
pub const SENDS_MAX: usize = 2048;
/// Below this many sends a search from the newest is as fast as an index.
const INDEX_FROM: usize = 32;

/// One message taken from the account.
///
/// An outcome looks through the recent ones: one takes a line of the processor's cache, and what few have is elsewhere.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sent {
    /// Hash of the queue id; 0 where there is none.
    pub key: u64,
    /// Event time, in milliseconds.
    pub ts_ms: i64,
    /// Recipients.
    pub recipients: u32,
    /// Of them, never written to before, as far as they are named yet.
    pub new: u32,
    /// Refusals so far.
    pub refused: u32,
    /// What is so about it, of [`mark`].
    pub marks: u8,
    /// Place in the account's relay names, plus one; 0 where the relay is not known yet.
    pub relay: u16,
    /// Where the client connected from.
    pub client_ip: Option<IpAddr>,
    /// Queue id, kept from when the send first brings something new or refused; domains of these recipients, and the smallest
    /// fingerprints of the new ones; the fingerprint of the content.
    pub texts: Texts,
}

/// What may be so about a send, each a bit.
pub mod mark {
    /// The recipients were named at the send.
    pub const NAMED: u8 = 1;
    /// It came over a client network first seen within a day.
    pub const FOREIGN: u8 = 1 << 1;
    /// An incident has counted it.
    pub const COUNTED: u8 = 1 << 2;
    /// An outcome has named the relay: it knows better than the send, which may only have named the first host.
    pub const RELAY_SURE: u8 = 1 << 3;
    pub(super) const ALL: u8 = NAMED | FOREIGN | COUNTED | RELAY_SURE;
}

impl Sent {
    /// Whether it brought new recipients or refusals: then it may belong to a burst.
    pub fn is_telling(&self) -> bool {
        self.new > 0 || self.refused > 0
    }

    /// Whether this mark is set.
    pub fn is(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    /// The queue id, where it is kept.
    pub fn queue_id(&self) -> Option<&str> {
        self.texts.queue_id()
    }

    /// Domains of its new or refused recipients, and how many of these.
    pub fn domains(&self) -> impl Iterator<Item = (&str, u32)> {
        self.texts.domains()
    }

    /// The fingerprint of its content, where the event had a hash of it.
    pub fn content(&self) -> Option<u32> {
        self.texts.content()
    }

    /// The smallest fingerprints of its new recipients, in order of appearance.
    pub fn prints(&self) -> impl Iterator<Item = u32> {
        self.texts.prints()
    }

    /// Notes who a new recipient is.
    pub fn push_print(&mut self, print: u32) {
        self.texts.push_print(print);
    }

    /// How many fingerprints it has where each new recipient gave its own.
    fn prints_expected(&self) -> usize {
        PRINTS_MAX.min(self.new as usize)
    }

    /// Counts a recipient at `domain`. Returns false where every recipient has been counted: one that was new and is then
    /// refused is still one.
    pub fn count_domain(&mut self, domain: &str) -> bool {
        let (mut recipients, mut domains, mut bytes) = (0, 0, 0);
        for (name, n) in self.domains() {
            (recipients, domains, bytes) = (recipients + n, domains + 1, bytes + name.len());
        }
        if recipients >= self.recipients.max(1) {
            return false;
        }
        if !self.texts.count_again(domain) && domains < DOMAINS_MAX && bytes + domain.len() <= TEXT_MAX {
            self.texts.push(domain, 1);
        }
        true
    }

    /// With a queue id to show and these domains.
    pub(super) fn with_texts<'d>(
        mut self,
        queue_id: Option<&str>,
        domains: impl Iterator<Item = (&'d str, u32)>,
    ) -> Self {
        self.keep_queue_id(queue_id);
        domains.for_each(|(domain, n)| self.texts.push(domain, n));
        self
    }

    /// Keeps the queue id for showing it, and counts the first new recipient, at `domain`.
    pub fn begin(&mut self, queue_id: Option<&str>, print: u32, domain: &str) {
        let domain = Some(domain).filter(|d| d.len() <= TEXT_MAX);
        self.texts = self.texts.met(queue_id.filter(|q| q.len() <= QUEUE_ID_MAX), print, domain);
    }

    /// Keeps the queue id, for showing it.
    pub fn keep_queue_id(&mut self, queue_id: Option<&str>) {
        self.texts.set_queue_id(queue_id.filter(|q| q.len() <= QUEUE_ID_MAX));
    }

    /// What it counts in a window that holds it and what became of it: as it was counted, with the refusals so far. Where that
    /// is forgiven, as [`Windows::forgive`](super::window::Windows::forgive) has it.
    pub(super) fn counts(&self, is_forgiven: bool) -> Counters {
        let (recipients, volume) = (self.recipients, damped(self.recipients));
        let (new, refused) = if is_forgiven { (0, 0) } else { (self.new, self.refused) };
        let new_damped = damped(new);
        let new_foreign = if self.is(mark::FOREIGN) { new_damped } else { 0 };
        let telling = Counters { new_recipients: new, new_damped, new_foreign, refused, ..Counters::default() };
        Counters { messages: 1, recipients, volume, ..telling }
    }

    fn at_s(&self) -> u32 {
        seconds(self.ts_ms)
    }

    fn is_alive(&self, now_s: u32, longest_s: u32) -> bool {
        let age_s = now_s.saturating_sub(self.at_s());
        age_s < if self.is_telling() { longest_s } else { PLAIN_S }
    }
}

/// Whole seconds of a time in milliseconds, within what windows can hold.
pub fn seconds(ts_ms: i64) -> u32 {
    ts_ms.div_euclid(1000).clamp(0, i64::from(u32::MAX)) as u32
}

/// Recent sends, in order of arrival, bounded. What is forgotten depends on the account's own events alone.
#[derive(Debug, Clone, Default)]
pub struct Sends {
    sent: VecDeque<Sent>,
    /// The number of `sent[0]` in the index. Not stored, because it depends on when the index was last made.
    first: u32,
    /// Key to number; none while there are few.
    index: Option<Box<HashMap<u64, u32>>>,
    /// Sends since the last sweep: stored, because what is swept decides what the bound drops.
    unswept: u32,
}

impl PartialEq for Sends {
    fn eq(&self, other: &Self) -> bool {
        self.sent == other.sent && self.unswept == other.unswept
    }
}

impl Sends {
    /// Reads the newest, as far back as most searches go; see [`super::shard::Shard::look_ahead`].
    pub(super) fn look_ahead(&self) -> u64 {
        self.sent.iter().rev().take(4).fold(0, |sum, s| sum ^ s.key)
    }

    /// Adds a send; the oldest makes room where `max` are alive.
    pub fn push(&mut self, sent: Sent, now_s: u32, longest_s: u32, max: usize) {
        self.unswept += 1;
        if self.unswept >= 32 && self.unswept as usize * 2 >= self.sent.len() {
            self.sweep(now_s, longest_s);
        }
        while self.sent.len() >= max {
            self.pop();
        }
        if let Some(index) = &mut self.index
            && sent.key != 0
        {
            index.insert(sent.key, self.first.wrapping_add(self.sent.len() as u32));
        }
        self.sent.push_back(sent);
        if self.index.is_none() && self.sent.len() > INDEX_FROM {
            self.reindex();
        }
    }

    /// The newest live send with this key.
    pub fn find(&mut self, key: u64, now_s: u32, longest_s: u32) -> Option<&mut Sent> {
        if key == 0 {
            return None;
        }
        let at = if self.sent.len() <= INDEX_FROM {
            self.sent.iter().rposition(|s| s.key == key)?
        } else {
            if self.index.is_none() {
                self.reindex();
            }
            self.index.as_ref()?.get(&key)?.wrapping_sub(self.first) as usize
        };
        self.sent.get_mut(at).filter(|s| s.key == key && s.is_alive(now_s, longest_s))
    }

    /// The live sends that brought something new or refused at or after `start_ms`, oldest first.
    pub fn telling_since(&mut self, start_ms: i64) -> impl Iterator<Item = &mut Sent> {
        self.sent.iter_mut().filter(move |s| s.ts_ms >= start_ms && s.is_telling())
    }

    /// Whether a remembered send before `before_ms` had this content.
    pub(super) fn had_content(&self, content: u32, before_ms: i64) -> bool {
        self.sent.iter().any(|s| s.ts_ms < before_ms && s.content() == Some(content))
    }

    /// Those that are remembered, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter()
    }

    /// Where they came from, one after the other, without repeats of the one before.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let mut before = None;
        self.sent.iter().filter_map(move |s| s.client_ip.filter(|ip| before.replace(*ip) != Some(*ip)))
    }

    /// Drops what is not alive. Called at fixed points of the account's own events only.
    pub fn sweep(&mut self, now_s: u32, longest_s: u32) {
        self.unswept = 0;
        let before = self.sent.len();
        self.sent.retain(|s| s.is_alive(now_s, longest_s));
        if self.sent.len() != before {
            if self.sent.len() > INDEX_FROM {
                self.reindex();
            } else {
                self.index = None;
            }
        }
    }

    fn pop(&mut self) {
        if let Some(gone) = self.sent.pop_front() {
            if let Some(index) = &mut self.index
                && index.get(&gone.key) == Some(&self.first)
            {
                index.remove(&gone.key);
            }
            self.first = self.first.wrapping_add(1);
        }
    }

    fn reindex(&mut self) {
        self.first = 0;
        let index = self.index.get_or_insert_default();
        index.clear();
        for (i, sent) in self.sent.iter().enumerate() {
            if sent.key != 0 {
                index.insert(sent.key, i as u32);
            }
        }
    }

    /// Second and hash of the first counted domain (0 where there is none) of each send, in their order.
    pub(super) fn uses(&self, prints: &Fingerprint) -> Vec<(u32, u64)> {
        let domain = |s: &Sent| s.domains().next().map_or(0, |(domain, _)| prints.of(domain));
        self.sent.iter().map(|s| (s.at_s(), domain(s))).collect()
    }

    /// Second and hash of each new recipient that a send knows, in their order; of a send that knows none, its second.
    pub(super) fn recipient_uses(&self) -> Vec<(u32, u64)> {
        let mut uses = Vec::with_capacity(self.sent.len());
        for sent in &self.sent {
            let before = uses.len();
            uses.extend(sent.prints().map(|print| (sent.at_s(), u64::from(print) << 32)));
            if uses.len() == before {
                uses.push((sent.at_s(), 0));
            }
        }
        uses
    }

    pub(super) fn pack(&self, out: &mut Vec<u8>, clock_ms: i64, prints: &Fingerprint) {
        put(out, self.unswept);
        put(out, self.sent.len() as u64);
        let mut before = Sent { ts_ms: clock_ms, ..Sent::default() };
        for sent in self.sent.iter().rev() {
            sent.pack(out, &before, prints);
            (before.ts_ms, before.client_ip, before.relay) = (sent.ts_ms, sent.client_ip, sent.relay);
            before.texts = sent.content().map(Texts::of_content).unwrap_or_default();
        }
    }

    /// `form` is the version of the account's form.
    pub(super) fn unpack(
        from: &mut Input<'_>,
        clock_ms: i64,
        prints: &Fingerprint,
        form: u8,
    ) -> Result<Self, Unreadable> {
        let unswept = from.u32()?;
        let len = from.count(SENDS_MAX, 3)?;
        let mut sent: Vec<Sent> = Vec::with_capacity(len);
        let first = Sent { ts_ms: clock_ms, ..Sent::default() };
        for _ in 0..len {
            let next = Sent::unpack(from, sent.last().unwrap_or(&first), prints, form)?;
            sent.push(next);
        }
        sent.reverse();
        Ok(Self::of(sent, unswept))
    }

    /// These, in order of arrival.
    pub(super) fn of(sent: Vec<Sent>, unswept: u32) -> Self {
        Self { sent: sent.into(), unswept, ..Self::default() }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.sent.capacity() * size_of::<Sent>()
            + self.sent.iter().map(|s| s.texts.heap_bytes()).sum::<usize>()
            + self
                .index
                .as_ref()
                .map_or(0, |i| size_of::<HashMap<u64, u32>>() + i.capacity() * (size_of::<(u64, u32)>() + 1))
    }
}

/// What is so about a packed send, in two bytes: the lowest four bits are its marks.
mod flag {
    pub const QUEUE_ID: u16 = 1 << 4;
    /// The key is the hash of the queue id that is kept.
    pub const KEY_FOLLOWS: u16 = 1 << 5;
    pub const KEY: u16 = 1 << 6;
    /// As the send after it.
    pub const SAME_IP: u16 = 1 << 7;
    pub const V4: u16 = 1 << 8;
    pub const V6: u16 = SAME_IP | V4;
    /// A byte of [`super::more`] follows.
    pub const MORE: u16 = 1 << 9;
    /// The same in versions before 3, which had no byte more.
    pub const V6_OF_2: u16 = 1 << 9;
    pub const SAME_RELAY: u16 = 1 << 10;
    pub const ONE_RECIPIENT: u16 = 1 << 11;
    /// As many as there are recipients.
    pub const ALL_NEW: u16 = 1 << 12;
    pub const REFUSED: u16 = 1 << 13;
    /// Of one domain, once.
    pub const ONE_DOMAIN: u16 = 1 << 14;
    pub const DOMAINS: u16 = 1 << 15;
}

/// What few packed sends have.
mod more {
    pub const CONTENT: u8 = 1;
    /// As the send after it.
    pub const SAME_CONTENT: u8 = 1 << 1;
    /// It knows fewer of its new recipients than there are: it was met by a program that did not keep them.
    pub const PRINTS: u8 = 1 << 2;
    pub const ALL: u8 = CONTENT | SAME_CONTENT | PRINTS;
}

impl Sent {
    /// `after` is the send after it, or what stands for none.
    fn pack(&self, out: &mut Vec<u8>, after: &Self, prints: &Fingerprint) {
        let follows = self.key != 0 && self.queue_id().is_some_and(|q| prints.of(q) == self.key);
        let same_ip = self.client_ip == after.client_ip;
        let domains = self.domains().count();
        let one_domain = domains == 1 && self.domains().all(|(_, n)| n == 1);
        let same_content = self.content().is_some() && self.content() == after.content();
        let known = self.prints().count();
        let more = [
            (more::CONTENT, self.content().is_some() && !same_content),
            (more::SAME_CONTENT, same_content),
            (more::PRINTS, known != self.prints_expected()),
        ];
        let more = more.into_iter().filter(|m| m.1).fold(0, |all, (more, _)| all | more);
        let flags = [
            (flag::QUEUE_ID, self.queue_id().is_some()),
            (flag::KEY_FOLLOWS, follows),
            (flag::KEY, self.key != 0 && !follows),
            (flag::SAME_IP, same_ip),
            (flag::V4, !same_ip && matches!(self.client_ip, Some(IpAddr::V4(_)))),
            (flag::V6, !same_ip && matches!(self.client_ip, Some(IpAddr::V6(_)))),
            (flag::MORE, more != 0),
            (flag::SAME_RELAY, self.relay == after.relay),
            (flag::ONE_RECIPIENT, self.recipients == 1),
            (flag::ALL_NEW, self.new == self.recipients),
            (flag::REFUSED, self.refused > 0),
            (flag::ONE_DOMAIN, one_domain),
            (flag::DOMAINS, domains > 0 && !one_domain),
        ];
        let flags = flags.into_iter().filter(|f| f.1).fold(u16::from(self.marks), |all, (flag, _)| all | flag);
        let is = |flag| flags & flag != 0;
        out.extend_from_slice(&flags.to_le_bytes());
        put_signed(out, after.ts_ms.wrapping_sub(self.ts_ms));
        if is(flag::KEY) {
            out.extend_from_slice(&self.key.to_le_bytes());
        }
        if let Some(queue_id) = self.queue_id() {
            put_name(out, queue_id);
        }
        match self.client_ip {
            Some(IpAddr::V4(ip)) if !same_ip => out.extend_from_slice(&ip.octets()),
            Some(IpAddr::V6(ip)) if !same_ip => out.extend_from_slice(&ip.octets()),
            _ => {}
        }
        if !is(flag::SAME_RELAY) {
            put(out, self.relay);
        }
        if !is(flag::ONE_RECIPIENT) {
            put(out, self.recipients);
        }
        if !is(flag::ALL_NEW) {
            put(out, self.new);
        }
        if is(flag::REFUSED) {
            put(out, self.refused);
        }
        if more != 0 {
            out.push(more);
        }
        if let Some(content) = self.content().filter(|_| more & more::CONTENT != 0) {
            out.extend_from_slice(&content.to_le_bytes());
        }
        if more & more::PRINTS != 0 {
            put(out, known as u64);
        }
        self.prints().for_each(|print| out.extend_from_slice(&print.to_le_bytes()));
        if is(flag::DOMAINS) {
            put(out, domains as u64);
        }
        for (domain, n) in self.domains() {
            put_name(out, domain);
            if is(flag::DOMAINS) {
                put(out, n);
            }
        }
    }

    fn unpack(from: &mut Input<'_>, after: &Self, prints: &Fingerprint, form: u8) -> Result<Self, Unreadable> {
        let mut flags = u16::from_le_bytes(from.array()?);
        if form < 3 && flags & flag::V6_OF_2 != 0 {
            flags = flags & !flag::V6_OF_2 | flag::V6;
        }
        let is = |flag| flags & flag != 0;
        let ts_ms = after.ts_ms.wrapping_sub(from.signed()?);
        let key = if is(flag::KEY) { u64::from_le_bytes(from.array()?) } else { 0 };
        let queue_id: Option<Box<str>> = if is(flag::QUEUE_ID) { Some(from.name()?) } else { None };
        let key = match &queue_id {
            Some(queue_id) if is(flag::KEY_FOLLOWS) => prints.of(queue_id),
            _ => key,
        };
        let client_ip = match flags & flag::V6 {
            flag::V6 => Some(from.v6()?),
            flag::V4 => Some(from.v4()?),
            flag::SAME_IP => after.client_ip,
            _ => None,
        };
        let relay = if is(flag::SAME_RELAY) { after.relay } else { from.place()? };
        let recipients = if is(flag::ONE_RECIPIENT) { 1 } else { from.u32()? };
        let new = if is(flag::ALL_NEW) { recipients } else { from.u32()? };
        let refused = if is(flag::REFUSED) { from.u32()? } else { 0 };
        let mut sent = Self {
            key,
            ts_ms,
            recipients,
            new,
            refused,
            marks: flags as u8 & mark::ALL,
            relay,
            client_ip,
            texts: Texts::default(),
        };
        if queue_id.as_ref().is_some_and(|q| q.len() > QUEUE_ID_MAX) {
            return Err(Unreadable("a long queue id"));
        }
        sent.texts = if form < 3 {
            Texts::of(queue_id.as_deref(), None, &[])
        } else {
            sent.unpack_texts(from, queue_id.as_deref(), after, is(flag::MORE))?
        };
        let many = is(flag::DOMAINS);
        let domains = if many { from.count(DOMAINS_MAX, 2)? } else { usize::from(is(flag::ONE_DOMAIN)) };
        let mut all = 0u32;
        for _ in 0..domains {
            let domain = from.name()?;
            let n = if many { from.u32()? } else { 1 };
            all = all.checked_add(n).ok_or(Unreadable("too many recipients"))?;
            if domain.len() > TEXT_MAX {
                return Err(Unreadable("a long domain"));
            }
            sent.texts.push(&domain, n);
        }
        Ok(sent)
    }

    /// Queue id and fingerprints; the domains follow.
    fn unpack_texts(
        &self,
        from: &mut Input<'_>,
        queue_id: Option<&str>,
        after: &Self,
        is_more: bool,
    ) -> Result<Texts, Unreadable> {
        let more = if is_more { from.byte()? } else { 0 };
        if more & !more::ALL != 0 {
            return Err(Unreadable("another version"));
        }
        let content = match more & (more::CONTENT | more::SAME_CONTENT) {
            0 => None,
            more::CONTENT => Some(u32::from_le_bytes(from.array()?)),
            _ => after.content(),
        };
        let known = if more & more::PRINTS != 0 { from.count(PRINTS_MAX, 4)? } else { self.prints_expected() };
        Ok(Texts::of(queue_id, content, from.take(4 * known)?))
    }
}
