//! The open messages: found by queue id, in bounded number, the longest idle given up first.
//!
//! Slots are used again with the buffers they own, so that a steady stream allocates nothing. Nothing here depends on
//! the order of a hash table: whoever has a choice among messages makes it by their serial numbers.

use super::line::QueueId;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;
use std::net::IpAddr;

/// No slot.
const NIL: u32 = u32::MAX;

/// Buffers of a slot above this size are not kept.
const BUFFER_KEEP_MAX: usize = 1024;

/// How far a message has come; each stage has its own idle time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its lines began, the queue manager has not taken it.
    Fresh,
    /// In the queue.
    Queued,
    /// Removed; kept for a while for lines of other hosts that come late.
    Gone,
}

/// A delivery line of a message whose account is not known yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) ts: i64,
    pub(super) smtp: bool,
    pub(super) len: u32,
}

/// One message in one queue.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: QueueId,
    pub(super) node: u32,
    /// Counts messages: larger is later. A slot's serial tells its users apart.
    pub(super) serial: u64,
    pub(super) begun: i64,
    pub(super) touched: i64,
    pub(super) stage: Stage,
    pub(super) client_seen: bool,
    /// The queue manager has taken it.
    pub(super) taken: bool,
    pub(super) client_ip: Option<IpAddr>,
    /// The account, folded; empty while not known.
    pub(super) account: String,
    /// The id on the account's first host: this message's own id at the first.
    pub(super) first_id: QueueId,
    /// Hosts before this one; 0 at the account's first host.
    pub(super) hop: u8,
    pub(super) method: String,
    /// Without brackets; empty while not known.
    pub(super) message_id: Vec<u8>,
    /// Recipients whose last attempt was deferred.
    pub(super) open: Vec<Box<[u8]>>,
    /// Delivery lines that wait for the account: what they are, and their text.
    pub(super) held: Vec<Held>,
    pub(super) held_text: Vec<u8>,
    /// In the index by Message-ID.
    indexed: bool,
    prev: u32,
    next: u32,
}

impl Message {
    fn empty() -> Self {
        Self {
            id: QueueId::NONE,
            node: 0,
            serial: 0,
            begun: 0,
            touched: 0,
            stage: Stage::Fresh,
            client_seen: false,
            taken: false,
            client_ip: None,
            account: String::new(),
            first_id: QueueId::NONE,
            hop: 0,
            method: String::new(),
            message_id: Vec::new(),
            open: Vec::new(),
            held: Vec::new(),
            held_text: Vec::new(),
            indexed: false,
            prev: NIL,
            next: NIL,
        }
    }

    pub(super) fn accounted(&self) -> bool {
        !self.account.is_empty()
    }

    fn reset(&mut self) {
        fn clear<T>(buffer: &mut Vec<T>) {
            buffer.clear();
            buffer.shrink_to(BUFFER_KEEP_MAX);
        }
        self.client_seen = false;
        self.taken = false;
        self.client_ip = None;
        self.account.clear();
        self.account.shrink_to(BUFFER_KEEP_MAX);
        self.first_id = QueueId::NONE;
        self.hop = 0;
        self.method.clear();
        self.method.shrink_to(BUFFER_KEEP_MAX);
        clear(&mut self.message_id);
        self.open = Vec::new();
        clear(&mut self.held);
        clear(&mut self.held_text);
    }
}

/// A list of slots, the longest idle first.
#[derive(Debug, Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

/// The open messages.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Message>,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    by_message_id: HashTable<u32>,
    lists: [List; 3],
    hasher: DefaultHashBuilder,
    serial: u64,
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_id: HashTable::new(),
            by_message_id: HashTable::new(),
            lists: [List { head: NIL, tail: NIL }; 3],
            hasher: DefaultHashBuilder::default(),
            serial: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, slot: u32) -> &Message {
        &self.slots[slot as usize]
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Message {
        &mut self.slots[slot as usize]
    }

    pub(super) fn find(&self, node: u32, id: &QueueId) -> Option<u32> {
        let hash = self.hasher.hash_one(id.as_bytes());
        self.by_id
            .find(hash, |slot| {
                let m = &self.slots[*slot as usize];
                m.node == node && m.id == *id
            })
            .copied()
    }

    /// All messages of this id, on whatever host; in no order.
    pub(super) fn with_id(&self, id: QueueId) -> impl Iterator<Item = (u32, &Message)> {
        let all = self.by_id.iter_hash(self.hasher.hash_one(id.as_bytes()));
        all.map(|slot| (*slot, self.get(*slot))).filter(move |(_, m)| m.id == id)
    }

    /// All messages of this Message-ID whose account was not known when it was logged; in no order.
    pub(super) fn with_message_id<'a>(&'a self, id: &'a [u8]) -> impl Iterator<Item = (u32, &'a Message)> {
        let all = self.by_message_id.iter_hash(self.hasher.hash_one(id));
        all.map(|slot| (*slot, self.get(*slot))).filter(move |(_, m)| m.message_id == id)
    }

    /// A new message. There must be none of this id on this node.
    pub(super) fn insert(&mut self, node: u32, id: QueueId, ts: i64) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Message::empty());
            self.slots.len() as u32 - 1
        });
        self.serial += 1;
        let m = &mut self.slots[slot as usize];
        (m.id, m.node, m.serial, m.begun, m.touched) = (id, node, self.serial, ts, ts);
        m.stage = Stage::Fresh;
        self.index(slot);
        self.link(slot);
        slot
    }

    fn index(&mut self, slot: u32) {
        let hash = self.hasher.hash_one(self.slots[slot as usize].id.as_bytes());
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_id.insert_unique(hash, slot, |s| hasher.hash_one(slots[*s as usize].id.as_bytes()));
    }

    fn unindex(&mut self, slot: u32) {
        let hash = self.hasher.hash_one(self.slots[slot as usize].id.as_bytes());
        if let Ok(entry) = self.by_id.find_entry(hash, |s| *s == slot) {
            entry.remove();
        }
    }

    pub(super) fn remove(&mut self, slot: u32) {
        self.unindex(slot);
        self.forget_message_id(slot);
        self.unlink(slot);
        self.slots[slot as usize].reset();
        self.free.push(slot);
    }

    /// The message turned out to be in another queue of the host.
    pub(super) fn move_to(&mut self, slot: u32, node: u32) {
        self.slots[slot as usize].node = node;
    }

    /// Gives the message its Message-ID, and lets it be found by it while its account is not known.
    pub(super) fn set_message_id(&mut self, slot: u32, id: &[u8]) {
        self.forget_message_id(slot);
        let m = &mut self.slots[slot as usize];
        m.message_id.clear();
        m.message_id.extend_from_slice(id);
        if m.accounted() || id.is_empty() {
            return;
        }
        m.indexed = true;
        let hash = self.hasher.hash_one(id);
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.by_message_id.insert_unique(hash, slot, |s| hasher.hash_one(&slots[*s as usize].message_id[..]));
    }

    pub(super) fn forget_message_id(&mut self, slot: u32) {
        let m = &mut self.slots[slot as usize];
        if !std::mem::take(&mut m.indexed) {
            return;
        }
        let hash = self.hasher.hash_one(&m.message_id[..]);
        if let Ok(entry) = self.by_message_id.find_entry(hash, |s| *s == slot) {
            entry.remove();
        }
    }

    /// A line of the message came: it is the last now to be given up.
    pub(super) fn touch(&mut self, slot: u32, ts: i64, stage: Stage) {
        let m = &mut self.slots[slot as usize];
        m.touched = m.touched.max(ts);
        if m.stage == stage && m.next == NIL {
            return;
        }
        self.unlink(slot);
        self.slots[slot as usize].stage = stage;
        self.link(slot);
    }

    /// The clock is put back to `ts`: no message was touched after it.
    pub(super) fn set_back(&mut self, ts: i64) {
        for m in &mut self.slots {
            m.begun = m.begun.min(ts);
            m.touched = m.touched.min(ts);
        }
    }

    /// The longest idle message of a stage.
    pub(super) fn oldest(&self, stage: Stage) -> Option<u32> {
        let head = self.lists[stage as usize].head;
        (head != NIL).then_some(head)
    }

    fn link(&mut self, slot: u32) {
        let list = &mut self.lists[self.slots[slot as usize].stage as usize];
        let last = std::mem::replace(&mut list.tail, slot);
        if last == NIL {
            list.head = slot;
        } else {
            self.slots[last as usize].next = slot;
        }
        let m = &mut self.slots[slot as usize];
        (m.prev, m.next) = (last, NIL);
    }

    fn unlink(&mut self, slot: u32) {
        let m = &self.slots[slot as usize];
        let (prev, next, stage) = (m.prev, m.next, m.stage);
        match prev {
            NIL => self.lists[stage as usize].head = next,
            prev => self.slots[prev as usize].next = next,
        }
        match next {
            NIL => self.lists[stage as usize].tail = prev,
            next => self.slots[next as usize].prev = prev,
        }
    }
}
