//! The hand-overs that wait for their other half: found by the id on the next host, or by Message-ID.

use super::Waiting;
use super::line::QueueId;
use super::table::Message;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

/// The half of a hand-over that the first host logged.
#[derive(Debug)]
pub(super) struct HandOver {
    pub(super) serial: u64,
    pub(super) origin: Origin,
    /// The id on the next host, where the reply named one.
    pub(super) target: Option<QueueId>,
    pub(super) message_id: Vec<u8>,
    pub(super) relay: Vec<u8>,
    /// Surely to an own host.
    pub(super) own: bool,
    /// The delivery lines after `to=`, with their times; outcomes if nothing is found.
    pub(super) held: Vec<(i64, Box<[u8]>)>,
    pub(super) state: State,
}

/// What is known of a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing yet.
    Open,
    /// It was taken for a delivery; kept for a message that comes late.
    Delivered,
    /// The other half was found; kept where the reply named no id, as a filter may split a message.
    Tied,
}

/// Where a message comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) account: String,
    pub(super) first_id: QueueId,
    pub(super) hop: u8,
    pub(super) node: u32,
    /// The serial of the message that was handed over.
    pub(super) serial: u64,
}

impl Origin {
    pub(super) fn of(m: &Message) -> Self {
        Self { account: m.account.clone(), first_id: m.first_id, hop: m.hop, node: m.node, serial: m.serial }
    }
}

/// The hand-overs that wait.
#[derive(Debug, Default)]
pub(super) struct Hops {
    slots: Vec<Option<HandOver>>,
    free: Vec<u32>,
    /// By the id on the next host.
    by_id: HashTable<u32>,
    /// By Message-ID, where the reply named no id.
    by_message_id: HashTable<u32>,
    /// Those that may be deliveries.
    pub(super) settling: Waiting,
    /// All.
    pub(super) waiting: Waiting,
    pub(super) held_total: usize,
    serial: u64,
    hasher: DefaultHashBuilder,
}

impl Hops {
    /// Recipients that wait.
    pub(super) fn held(&self) -> usize {
        self.held_total
    }

    pub(super) fn get(&self, slot: u32) -> Option<&HandOver> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut HandOver> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn hash(&self, hand_over: &HandOver) -> u64 {
        match &hand_over.target {
            Some(id) => self.hasher.hash_one(id.as_bytes()),
            None => self.hasher.hash_one(&hand_over.message_id[..]),
        }
    }

    pub(super) fn insert(&mut self, mut hand_over: HandOver) -> (u32, u64) {
        self.serial += 1;
        hand_over.serial = self.serial;
        self.held_total += hand_over.held.len();
        let hash = self.hash(&hand_over);
        let by_id = hand_over.target.is_some();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.slots[slot as usize] = Some(hand_over);
        let mut index = std::mem::take(if by_id { &mut self.by_id } else { &mut self.by_message_id });
        index.insert_unique(hash, slot, |s| self.get(*s).map_or(0, |h| self.hash(h)));
        *(if by_id { &mut self.by_id } else { &mut self.by_message_id }) = index;
        (slot, self.serial)
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<HandOver> {
        let hand_over = self.slots.get_mut(slot as usize)?.take()?;
        let hash = self.hash(&hand_over);
        let index = if hand_over.target.is_some() { &mut self.by_id } else { &mut self.by_message_id };
        if let Ok(entry) = index.find_entry(hash, |s| *s == slot) {
            entry.remove();
        }
        self.free.push(slot);
        self.held_total -= hand_over.held.len();
        Some(hand_over)
    }

    /// The hand-over that a message is the other half of; the earliest where there are several.
    pub(super) fn of_message(&self, m: &Message) -> Option<u32> {
        let fits = |h: &HandOver| {
            let (same, differ) = compare(&h.message_id, &m.message_id);
            h.origin.serial != m.serial && !differ && (same || (h.own && !m.accounted()))
        };
        let by_id = self.by_id.iter_hash(self.hasher.hash_one(m.id.as_bytes()));
        let by_id = by_id.filter_map(|s| Some((*s, self.get(*s)?))).filter(|(_, h)| h.target == Some(m.id) && fits(h));
        if let Some((slot, _)) = by_id.min_by_key(|(_, h)| h.serial) {
            return Some(slot);
        }
        if m.message_id.is_empty() || !m.client_seen || m.accounted() {
            return None;
        }
        let all = self.by_message_id.iter_hash(self.hasher.hash_one(&m.message_id[..]));
        let all = all.filter_map(|s| Some((*s, self.get(*s)?)));
        let fitting = all.filter(|(_, h)| h.message_id == m.message_id && h.origin.serial != m.serial);
        Some(fitting.min_by_key(|(_, h)| h.serial)?.0)
    }

    /// The hand-over of the same message to the same id, for another recipient.
    pub(super) fn same(&self, m: &Message, target: Option<QueueId>) -> Option<u32> {
        let (index, hash) = match &target {
            Some(id) => (&self.by_id, self.hasher.hash_one(id.as_bytes())),
            None => (&self.by_message_id, self.hasher.hash_one(&m.message_id[..])),
        };
        let mut all = index.iter_hash(hash).filter_map(|s| Some((*s, self.get(*s)?)));
        all.find(|(_, h)| h.target == target && h.origin.serial == m.serial).map(|(s, _)| s)
    }
}

/// Whether two Message-IDs are the same, and whether they differ; neither where one is not known.
pub(super) fn compare(a: &[u8], b: &[u8]) -> (bool, bool) {
    let known = !a.is_empty() && !b.is_empty();
    (known && a == b, known && a != b)
}
