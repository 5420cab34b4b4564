//! Where a shard keeps its accounts: those that are busy as they are, those that rest packed; what has changed since the last
//! checkpoint; and, while one is written, how the accounts were when it began.
//!
//! An account that is touched while a checkpoint still has to give it is packed first, as it was: so the checkpoint holds one
//! moment, and nobody waits for the whole of it. Content never depends on who rests.

use hashbrown::{HashMap, HashTable};

use super::account::Account;
use super::codec::Unreadable;
use super::fingerprint::Fingerprint;
use super::packed::{self, PACKED_MAX};
use super::store::{At, Store, records};
use super::verdict::Stratum;
use super::window::Spans;

/// Touched since the last checkpoint began.
const CHANGED: u8 = 1;
/// The checkpoint under way has not given it yet, and it is as it was when that began.
const PENDING: u8 = 1 << 1;
/// Unpacked.
const HOT: u8 = 1 << 2;
/// Touched since the last sweep.
const TOUCHED: u8 = 1 << 3;
/// In the list of hot ones.
const LISTED: u8 = 1 << 4;
/// Was hot at the last checkpoint already.
const OLD: u8 = 1 << 5;
/// Touched in the last two intervals between checkpoints: it stays hot.
const BUSY: u8 = 1 << 6;
/// Established or bulk.
const LONG: u8 = 1 << 7;

/// Hot accounts that are looked at for the mean of their bytes.
const SAMPLE: usize = 256;

/// Where an account is, found by its name.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Half of the name's hash: hardly any other name is ever looked at, and none when the table grows.
    hash: u32,
    place: u32,
}

impl Entry {
    fn new(hash: u64, place: usize) -> Self {
        Self { hash: hash as u32, place: place as u32 }
    }

    /// What the table goes by, from its low and its highest bits.
    fn spread(&self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

#[derive(Debug)]
enum Slot {
    Hot(Box<Account>),
    Packed(At),
    Vacant,
}

/// The accounts of a shard, by place.
#[derive(Debug)]
pub(super) struct Slots {
    prints: Fingerprint,
    spans: Spans,
    slots: Vec<Slot>,
    store: Store,
    marks: Vec<u8>,
    /// By the hash of the name.
    places: HashTable<Entry>,
    /// Places without an account.
    vacant: Vec<u32>,
    /// Places of hot accounts, some of which may have been packed meanwhile.
    hot: Vec<u32>,
    /// Places that are to be packed by and by.
    resting: Vec<u32>,
    changed: Vec<u32>,
    /// What the checkpoint under way covers, the first `given` of it done.
    pending: Vec<u32>,
    given: usize,
    /// Packed forms as of the checkpoint's beginning, of accounts that were touched since.
    before: HashMap<u32, Box<[u8]>>,
    hot_count: usize,
    long: usize,
    scratch: Vec<u8>,
}

impl Slots {
    pub(super) fn new(prints: Fingerprint, spans: Spans) -> Self {
        Self {
            prints,
            spans,
            slots: Vec::new(),
            store: Store::default(),
            marks: Vec::new(),
            places: HashTable::new(),
            vacant: Vec::new(),
            hot: Vec::new(),
            resting: Vec::new(),
            changed: Vec::new(),
            pending: Vec::new(),
            given: 0,
            before: HashMap::new(),
            hot_count: 0,
            long: 0,
            scratch: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    pub(super) fn long(&self) -> usize {
        self.long
    }

    pub(super) fn find(&self, name: &str) -> Option<usize> {
        let sought = Entry::new(self.prints.of(name), 0);
        let found = |e: &Entry| e.hash == sought.hash && self.name(e.place as usize) == name;
        Some(self.places.find(sought.spread(), found)?.place as usize)
    }

    /// Reads what is going to be used of these accounts, all of them side by side: each of them lies somewhere else in memory, and
    /// a processor waits for many at a time as long as for one. The sum means nothing, except that the reads are not left out.
    pub(super) fn look_ahead(&self, hashes: &[u64], places: &mut Vec<u32>) -> u64 {
        places.clear();
        // By hash alone: another account of the same one is looked at for nothing.
        places.extend(hashes.iter().filter_map(|&hash| {
            let sought = Entry::new(hash, 0);
            Some(self.places.find(sought.spread(), |e| e.hash == sought.hash)?.place)
        }));
        let mut sum = places.iter().map(|&p| u64::from(self.marks[p as usize])).sum::<u64>();
        for &place in places.iter() {
            if let Slot::Hot(account) = &self.slots[place as usize] {
                sum = sum.wrapping_add(account.clock_ms() as u64);
            }
        }
        for &place in places.iter() {
            if let Slot::Hot(account) = &self.slots[place as usize] {
                sum = sum.wrapping_add(account.look_ahead());
            }
        }
        sum
    }

    /// Takes in an account that is not known yet, as changed or not.
    pub(super) fn insert(&mut self, account: Account, changed: bool) -> usize {
        let hash = self.prints.of(account.name());
        let long = account.stratum() >= Stratum::Established;
        let place = match self.vacant.pop() {
            Some(place) => place as usize,
            None => {
                self.slots.push(Slot::Vacant);
                self.marks.push(0);
                self.slots.len() - 1
            }
        };
        self.slots[place] = Slot::Hot(Box::new(account));
        self.hot_count += 1;
        self.marks[place] |= HOT;
        self.list(place);
        self.note_long(place, long);
        if changed {
            self.marks[place] |= TOUCHED;
            self.note_changed(place);
        }
        let entry = Entry::new(hash, place);
        self.places.insert_unique(entry.spread(), entry, Entry::spread);
        place
    }

    /// Takes an account out; the checkpoint under way still has it.
    pub(super) fn remove(&mut self, place: usize) {
        self.set_aside(place);
        let hash = self.prints.of(self.name(place));
        if let Ok(entry) = self.places.find_entry(Entry::new(hash, place).spread(), |e| e.place as usize == place) {
            entry.remove();
        }
        match std::mem::replace(&mut self.slots[place], Slot::Vacant) {
            Slot::Hot(_) => self.hot_count -= 1,
            Slot::Packed(at) => self.store.free(at),
            Slot::Vacant => {}
        }
        self.note_long(place, false);
        if self.marks[place] & CHANGED != 0 {
            self.changed.retain(|&p| p as usize != place);
        }
        self.marks[place] &= LISTED;
        self.vacant.push(place as u32);
    }

    /// The account, for changing it.
    #[inline]
    pub(super) fn touch(&mut self, place: usize) -> &mut Account {
        const READY: u8 = HOT | TOUCHED | CHANGED;
        if self.marks[place] & (READY | PENDING) != READY {
            self.make_ready(place);
        }
        match &mut self.slots[place] {
            Slot::Hot(account) => account,
            Slot::Packed(_) | Slot::Vacant => unreachable!("made ready just now"),
        }
    }

    #[cold]
    fn make_ready(&mut self, place: usize) {
        self.set_aside(place);
        self.unpack(place);
        self.marks[place] |= TOUCHED;
        self.note_changed(place);
    }

    /// Keeps the account as it was when the checkpoint began, where that still needs it.
    fn set_aside(&mut self, place: usize) {
        if self.marks[place] & PENDING == 0 {
            return;
        }
        self.marks[place] &= !PENDING;
        let was = match &self.slots[place] {
            Slot::Hot(account) => {
                self.scratch.clear();
                packed::pack(account, &self.prints, &mut self.scratch);
                Box::from(&self.scratch[..])
            }
            Slot::Packed(at) => Box::from(self.store.get(*at)),
            Slot::Vacant => return,
        };
        self.before.insert(place as u32, was);
    }

    /// Makes the account hot without changing it.
    pub(super) fn unpack(&mut self, place: usize) {
        let Slot::Packed(at) = self.slots[place] else { return };
        let packed = self.store.get(at);
        // It was packed here, or unpacked once when it was restored: it cannot be damaged.
        let unpacked = packed::unpack(packed, &self.prints, &self.spans);
        debug_assert!(unpacked.is_ok(), "{unpacked:?}");
        let account =
            unpacked.unwrap_or_else(|_| Account::new(packed::name(packed).unwrap_or_default(), 0, Stratum::Unknown));
        self.store.free(at);
        self.hot_count += 1;
        self.slots[place] = Slot::Hot(Box::new(account));
        self.marks[place] |= HOT;
        self.list(place);
    }

    /// Packs an account that may rest. One with an open incident may not: that is looked at from elsewhere.
    fn pack(&mut self, place: usize) {
        let Slot::Hot(account) = &self.slots[place] else { return };
        if account.incident.is_some() {
            return;
        }
        self.scratch.clear();
        packed::pack(account, &self.prints, &mut self.scratch);
        self.keep_packed(place);
    }

    /// The account, which has just been packed into the scratch, rests from now on.
    fn keep_packed(&mut self, place: usize) {
        if self.scratch.len() > PACKED_MAX {
            return;
        }
        self.slots[place] = Slot::Packed(self.store.put(place as u32, &self.scratch));
        self.hot_count -= 1;
        self.marks[place] &= !(HOT | OLD | BUSY);
        self.tidy();
    }

    /// Moves the records of a chunk together with others, where too many of its bytes are dead.
    fn tidy(&mut self) {
        let Some((chunk, bytes)) = self.store.take_worst() else { return };
        for (place, was, packed) in records(chunk, &bytes) {
            if let Slot::Packed(at) = &mut self.slots[place as usize]
                && *at == was
            {
                *at = self.store.put(place, packed);
            }
        }
        self.store.give_back(chunk, bytes);
    }

    fn list(&mut self, place: usize) {
        if self.marks[place] & LISTED == 0 {
            self.marks[place] |= LISTED;
            self.hot.push(place as u32);
        }
    }

    fn note_changed(&mut self, place: usize) {
        if self.marks[place] & CHANGED == 0 {
            self.marks[place] |= CHANGED;
            self.changed.push(place as u32);
        }
    }

    /// Notes whether the account has enough history.
    #[inline]
    pub(super) fn note_long(&mut self, place: usize, long: bool) {
        if (self.marks[place] & LONG != 0) != long {
            self.marks[place] ^= LONG;
            if long {
                self.long += 1;
            } else {
                self.long -= 1;
            }
        }
    }

    /// The account where it is hot, as every one with an open incident is.
    pub(super) fn hot(&self, place: usize) -> Option<&Account> {
        match &self.slots[place] {
            Slot::Hot(account) => Some(account),
            Slot::Packed(_) | Slot::Vacant => None,
        }
    }

    /// An unpacked copy where the account rests.
    pub(super) fn copy(&self, place: usize) -> Option<Account> {
        match &self.slots[place] {
            Slot::Hot(account) => Some((**account).clone()),
            Slot::Packed(at) => packed::unpack(self.store.get(*at), &self.prints, &self.spans).ok(),
            Slot::Vacant => None,
        }
    }

    pub(super) fn name(&self, place: usize) -> &str {
        self.slots[place].name(&self.store)
    }

    /// All names, in the order of their places.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.slots.iter().filter(|s| s.is_there()).map(|s| s.name(&self.store))
    }

    /// Gives every account packed, by name.
    pub(super) fn give_all(&self, give: &mut dyn FnMut(&str, &[u8])) {
        let mut places: Vec<&Slot> = self.slots.iter().filter(|s| s.is_there()).collect();
        places.sort_unstable_by(|a, b| a.name(&self.store).cmp(b.name(&self.store)));
        let mut scratch = Vec::new();
        for slot in places {
            match slot {
                Slot::Hot(account) => {
                    scratch.clear();
                    packed::pack(account, &self.prints, &mut scratch);
                    give(account.name(), &scratch);
                }
                Slot::Packed(at) => give(slot.name(&self.store), self.store.get(*at)),
                Slot::Vacant => {}
            }
        }
    }

    /// Takes in a stored account, in the place of one of the same name. Returns its place.
    pub(super) fn restore_packed(&mut self, name: &str, packed: &[u8]) -> Result<usize, Unreadable> {
        let account = packed::unpack(packed, &self.prints, &self.spans)?;
        if account.name() != name {
            return Err(Unreadable("stored under another name"));
        }
        if let Some(place) = self.find(name) {
            self.remove(place);
        }
        let place = self.insert(account, false);
        // It rests at once, as what the stored bytes say: they may have been written in another way.
        self.pack(place);
        Ok(place)
    }

    /// Bytes of everything. Of the hot accounts some are looked at, and stand for all.
    pub(super) fn bytes(&self) -> usize {
        let hot = self.hot.iter().filter_map(|&place| self.hot(place as usize));
        let (mut sum, mut n) = (0, 0);
        for account in hot.step_by(self.hot_count.div_ceil(SAMPLE).max(1)) {
            sum += account.bytes();
            n += 1;
        }
        let hot = (sum * self.hot_count).checked_div(n).unwrap_or(0);
        let lists = [&self.vacant, &self.hot, &self.resting, &self.changed, &self.pending];
        hot + self.store.bytes()
            + self.before.values().map(|b| b.len()).sum::<usize>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.marks.capacity()
            + self.places.capacity() * (size_of::<Entry>() + 1)
            + lists.iter().map(|l| l.capacity() * size_of::<u32>()).sum::<usize>()
    }
}

impl Slot {
    fn name<'a>(&'a self, store: &'a Store) -> &'a str {
        match self {
            Self::Hot(account) => account.name(),
            Self::Packed(at) => packed::name(store.get(*at)).unwrap_or_default(),
            Self::Vacant => "",
        }
    }

    fn is_there(&self) -> bool {
        !matches!(self, Self::Vacant)
    }
}

/// Checkpoints, and who may rest.
impl Slots {
    pub(super) fn changed(&self) -> usize {
        self.changed.len()
    }

    pub(super) fn begin_checkpoint(&mut self) -> usize {
        self.abandon_checkpoint();
        self.pending = std::mem::take(&mut self.changed);
        for &place in &self.pending {
            let mark = &mut self.marks[place as usize];
            *mark = *mark & !CHANGED | PENDING;
        }
        let (marks, resting) = (&mut self.marks, &mut self.resting);
        self.hot.retain(|&place| {
            let mark = &mut marks[place as usize];
            if *mark & HOT == 0 {
                *mark &= !LISTED;
                return false;
            }
            if *mark & TOUCHED == 0 {
                resting.push(place);
            } else if *mark & OLD != 0 {
                *mark |= BUSY;
            }
            *mark = *mark & !TOUCHED | OLD;
            true
        });
        self.pending.len()
    }

    pub(super) fn give_changed(&mut self, max: usize, give: &mut dyn FnMut(&str, &[u8])) -> usize {
        let end = self.pending.len().min(self.given.saturating_add(max));
        for i in self.given..end {
            let place = self.pending[i] as usize;
            if self.marks[place] & PENDING == 0 {
                // Touched since: as it was.
                if let Some(was) = self.before.remove(&(place as u32)) {
                    give(packed::name(&was).unwrap_or_default(), &was);
                }
                continue;
            }
            self.marks[place] &= !PENDING;
            match &self.slots[place] {
                Slot::Packed(at) => give(self.name(place), self.store.get(*at)),
                Slot::Vacant => {}
                Slot::Hot(account) => {
                    self.scratch.clear();
                    packed::pack(account, &self.prints, &mut self.scratch);
                    give(account.name(), &self.scratch);
                    // It is packed anyway, and was not touched since: unless it is always busy, it rests.
                    if self.marks[place] & BUSY == 0 && account.incident.is_none() {
                        self.keep_packed(place);
                    }
                }
            }
        }
        self.given = end;
        for _ in 0..max.saturating_mul(2).min(self.resting.len()) {
            if let Some(place) = self.resting.pop()
                && self.marks[place as usize] & (HOT | TOUCHED) == HOT
            {
                self.pack(place as usize);
            }
        }
        self.pending.len() - self.given
    }

    pub(super) fn abandon_checkpoint(&mut self) {
        self.given = 0;
        self.before.clear();
        for place in std::mem::take(&mut self.pending) {
            self.marks[place as usize] &= !PENDING;
            if self.slots[place as usize].is_there() {
                self.note_changed(place as usize);
            }
        }
    }

    pub(super) fn finish_checkpoint(&mut self) {
        // What was never given was not stored.
        let rest = self.pending.split_off(self.given);
        self.pending = rest;
        self.abandon_checkpoint();
    }

    /// Packs every hot account that was not touched since the last time.
    pub(super) fn rest(&mut self) {
        let mut hot = std::mem::take(&mut self.hot);
        hot.retain(|&place| {
            let place = place as usize;
            if self.marks[place] & (HOT | TOUCHED) == HOT {
                self.pack(place);
            }
            let mark = &mut self.marks[place];
            *mark &= !TOUCHED;
            if *mark & HOT == 0 {
                *mark &= !LISTED;
            }
            *mark & HOT != 0
        });
        self.hot = hot;
    }
}
