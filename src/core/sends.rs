//! The recent sends of one account: they tie outcomes to their message, and they are what a burst is made of.

use std::collections::VecDeque;
use std::net::IpAddr;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

/// A send that brought neither a new recipient nor a refusal is remembered for this long, for its outcomes.
const PLAIN_S: u32 = 6 * 3600;
/// Domains counted for one message.
const DOMAINS_MAX: usize = 16;
/// Below this many sends a search from the newest is as fast as an index.
const INDEX_FROM: usize = 32;

/// One message taken from the account.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
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
    /// Whether the recipients were named at the send.
    pub named: bool,
    /// Whether it came over a client network first seen within a day.
    pub foreign: bool,
    /// Whether an incident has counted it.
    pub counted: bool,
    /// Place in the account's relay names, plus one; 0 where the relay is not known yet.
    pub relay: u8,
    /// Whether an outcome has named the relay: it knows better than the send, which may only have named the first host.
    pub relay_sure: bool,
    /// Where the client connected from.
    pub client_ip: Option<IpAddr>,
    /// Kept from when the send first brings something new or refused.
    pub queue_id: Option<Box<str>>,
    /// Domains of its new or refused recipients.
    pub domains: Vec<(Box<str>, u32)>,
}

impl Sent {
    /// Whether it brought new recipients or refusals: then it may belong to a burst.
    pub fn is_telling(&self) -> bool {
        self.new > 0 || self.refused > 0
    }

    /// Counts a recipient at `domain`. Returns false where every recipient has been counted: one that was new and is then
    /// refused is still one.
    pub fn count_domain(&mut self, domain: &str) -> bool {
        if self.domains.iter().map(|d| d.1).sum::<u32>() >= self.recipients.max(1) {
            return false;
        }
        if let Some(entry) = self.domains.iter_mut().find(|d| *d.0 == *domain) {
            entry.1 += 1;
        } else if self.domains.len() < DOMAINS_MAX {
            self.domains.push((domain.into(), 1));
        }
        true
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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sends {
    sent: VecDeque<Sent>,
    /// The number of `sent[0]` in the index. Stored as 0, because it depends on when the index was last made.
    #[serde(serialize_with = "as_zero")]
    first: u32,
    /// Key to number; empty while there are few.
    #[serde(skip)]
    index: HashMap<u64, u32>,
    /// Sends since the last sweep: stored, because what is swept decides what the bound drops.
    unswept: u32,
}

fn as_zero<S: serde::Serializer>(_: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u32(0)
}

impl PartialEq for Sends {
    fn eq(&self, other: &Self) -> bool {
        self.sent == other.sent && self.unswept == other.unswept
    }
}

impl Sends {
    /// Adds a send; the oldest makes room where `max` are alive.
    pub fn push(&mut self, sent: Sent, now_s: u32, longest_s: u32, max: usize) {
        self.unswept += 1;
        if self.unswept >= 32 && self.unswept as usize * 2 >= self.sent.len() {
            self.sweep(now_s, longest_s);
        }
        while self.sent.len() >= max {
            self.pop();
        }
        if sent.key != 0 && !self.index.is_empty() {
            self.index.insert(sent.key, self.first.wrapping_add(self.sent.len() as u32));
        }
        self.sent.push_back(sent);
        if self.index.is_empty() && self.sent.len() > INDEX_FROM {
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
            if self.index.is_empty() {
                self.reindex();
            }
            self.index.get(&key)?.wrapping_sub(self.first) as usize
        };
        self.sent.get_mut(at).filter(|s| s.key == key && s.is_alive(now_s, longest_s))
    }

    /// The live sends that brought something new or refused at or after `start_ms`, oldest first.
    pub fn telling_since(&mut self, start_ms: i64) -> impl Iterator<Item = &mut Sent> {
        self.sent.iter_mut().filter(move |s| s.ts_ms >= start_ms && s.is_telling())
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
                self.index = HashMap::default();
            }
        }
    }

    fn pop(&mut self) {
        if let Some(gone) = self.sent.pop_front() {
            if self.index.get(&gone.key) == Some(&self.first) {
                self.index.remove(&gone.key);
            }
            self.first = self.first.wrapping_add(1);
        }
    }

    fn reindex(&mut self) {
        self.first = 0;
        self.index.clear();
        for (i, sent) in self.sent.iter().enumerate() {
            if sent.key != 0 {
                self.index.insert(sent.key, i as u32);
            }
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let details = |s: &Sent| {
            s.queue_id.as_ref().map_or(0, |q| q.len())
                + s.domains.capacity() * size_of::<(Box<str>, u32)>()
                + s.domains.iter().map(|d| d.0.len()).sum::<usize>()
        };
        self.sent.capacity() * size_of::<Sent>()
            + self.sent.iter().map(details).sum::<usize>()
            + self.index.capacity() * (size_of::<(u64, u32)>() + 1)
    }
}
