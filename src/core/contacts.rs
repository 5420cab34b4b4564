//! Whom an account has written to: fingerprints, not addresses.
//!
//! The first 256 contacts take 16 bits each (a stranger is taken for known in at most 256/65,536 = 0.4 % of cases), later
//! ones 32 bits. A 16-bit fingerprint cannot be widened afterwards, so the first 256 stay as they are. The hash is keyed, so
//! that nobody can craft recipients that look known.

use serde::Deserialize;

use super::codec::{Input, Unreadable, put, read_ahead};

/// Contacts that are kept in 16 bits.
const NARROW_MAX: usize = 256;
/// The same of an account that has joined those of another.
const JOINED_MAX: usize = 2 * NARROW_MAX;
/// Room for so many is made at a time, at least.
const NARROW_STEP: usize = 16;
/// Unsorted newcomers, merged when they are this many: an insertion into a long sorted vector is paid once for all.
const FRESH_MAX: usize = 64;
/// Wide contacts of one generation. A list beyond two generations forgets the older one.
const WIDE_MAX: usize = 65_536;

/// The known contacts of one account.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(from = "Lists1")]
pub struct Contacts {
    /// Sorted.
    narrow: Vec<u16>,
    /// Those beyond, which few accounts have; none where there are none.
    more: Option<Box<More>>,
}

/// Contacts in 32 bits.
#[derive(Debug, Clone, PartialEq, Default)]
struct More {
    /// Sorted.
    wide: Vec<u32>,
    /// In order of appearance.
    fresh: Vec<u32>,
    /// The generation before `wide`; sorted.
    older: Vec<u32>,
}

/// As in files of version 1.
#[derive(Deserialize)]
struct Lists1 {
    narrow: Vec<u16>,
    wide: Vec<u32>,
    fresh: Vec<u32>,
    older: Vec<u32>,
}

impl From<Lists1> for Contacts {
    fn from(lists: Lists1) -> Self {
        let more = More { wide: lists.wide, fresh: lists.fresh, older: lists.older };
        Self { narrow: lists.narrow, more: Some(more).filter(|m| m.len() > 0).map(Box::new) }
    }
}

impl Contacts {
    /// Reads where a search begins; see [`super::shard::Shard::look_ahead`].
    pub(super) fn look_ahead(&self) -> u64 {
        let middle = |list: &[u32]| list.get(list.len() / 2).copied().map_or(0, u64::from);
        let narrow = read_ahead(&self.narrow, 2, |&n| n.into());
        narrow + self.more.as_ref().map_or(0, |m| middle(&m.fresh) + middle(&m.wide) + middle(&m.older))
    }

    /// Whether the recipient with this hash has been written to.
    pub fn knows(&self, hash: u64) -> bool {
        self.narrow.binary_search(&narrow(hash)).is_ok() || self.more.as_ref().is_some_and(|m| m.knows(wide(hash)))
    }

    /// Learns the recipient with this hash. Returns whether it was new.
    pub fn learn(&mut self, hash: u64) -> bool {
        if self.knows(hash) {
            return false;
        }
        if self.narrow.len() < NARROW_MAX {
            if let Err(at) = self.narrow.binary_search(&narrow(hash)) {
                if self.narrow.len() == self.narrow.capacity() {
                    // A handful of contacts is what most have.
                    self.narrow.reserve_exact(NARROW_STEP.max(self.narrow.len() / 2));
                }
                self.narrow.insert(at, narrow(hash));
            }
            return true;
        }
        self.more.get_or_insert_default().push(wide(hash));
        true
    }

    /// Takes in those of `own`, an account that goes on with these: what is known to either is known. Of 16-bit ones, which
    /// cannot be widened, as many as there is room for.
    pub(super) fn join(&mut self, own: &Self) {
        for &narrow in &own.narrow {
            if self.narrow.len() < JOINED_MAX
                && let Err(at) = self.narrow.binary_search(&narrow)
            {
                self.narrow.insert(at, narrow);
            }
        }
        self.narrow.shrink_to_fit();
        let more = own.more.iter().flat_map(|m| m.older.iter().chain(&m.wide).chain(&m.fresh));
        for &wide in more {
            if !self.more.as_ref().is_some_and(|m| m.knows(wide)) {
                self.more.get_or_insert_default().push(wide);
            }
        }
    }

    /// How many are known, at most.
    pub fn len(&self) -> usize {
        self.narrow.len() + self.more.as_ref().map_or(0, |m| m.len())
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        pack_sorted(out, self.narrow.len(), self.narrow.iter().map(|&n| u32::from(n)));
        // Most accounts end here: that there is more is said by the number of narrow ones.
        if self.narrow.len() >= NARROW_MAX {
            let none = More::default();
            let more = self.more.as_deref().unwrap_or(&none);
            pack_sorted(out, more.wide.len(), more.wide.iter().copied());
            pack_sorted(out, more.older.len(), more.older.iter().copied());
            put(out, more.fresh.len() as u64);
            for fresh in &more.fresh {
                out.extend_from_slice(&fresh.to_le_bytes());
            }
        }
    }

    pub(super) fn unpack(from: &mut Input<'_>) -> Result<Self, Unreadable> {
        let mut contacts = Self::default();
        unpack_sorted(from, JOINED_MAX, |n| {
            contacts.narrow.push(n.try_into().map_err(|_| Unreadable("a fingerprint of more than 16 bits"))?);
            Ok(())
        })?;
        contacts.narrow.shrink_to_fit();
        if contacts.narrow.len() >= NARROW_MAX {
            let mut more = More::default();
            for wide in [&mut more.wide, &mut more.older] {
                unpack_sorted(from, WIDE_MAX, |n| {
                    wide.push(n);
                    Ok(())
                })?;
            }
            let fresh = from.count(FRESH_MAX, 4)?;
            more.fresh.reserve_exact(fresh);
            for _ in 0..fresh {
                more.fresh.push(u32::from_le_bytes(from.array()?));
            }
            contacts.more = Some(more).filter(|m| m.len() > 0).map(Box::new);
        }
        Ok(contacts)
    }

    /// All of them, for [`Contacts::from_bytes`]: two to three bytes each.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.pack(&mut out);
        out
    }

    /// Reads them.
    ///
    /// # Errors
    /// Where they are not what [`Contacts::to_bytes`] makes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut from = Input::new(bytes);
        let contacts = Self::unpack(&mut from)?;
        if from.left() == 0 { Ok(contacts) } else { Err(Unreadable("bytes that nobody has asked for")) }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let more = |m: &More| size_of::<More>() + 4 * (m.wide.capacity() + m.fresh.capacity() + m.older.capacity());
        2 * self.narrow.capacity() + self.more.as_deref().map_or(0, more)
    }
}

impl More {
    fn len(&self) -> usize {
        self.wide.len() + self.fresh.len() + self.older.len()
    }

    fn knows(&self, wide: u32) -> bool {
        self.fresh.contains(&wide) || self.wide.binary_search(&wide).is_ok() || self.older.binary_search(&wide).is_ok()
    }

    fn push(&mut self, wide: u32) {
        self.fresh.push(wide);
        if self.fresh.len() == FRESH_MAX {
            self.merge();
        }
    }

    fn merge(&mut self) {
        if self.wide.len() + self.fresh.len() > WIDE_MAX {
            self.older = std::mem::take(&mut self.wide);
        }
        // Merged from the back, in place: what is already sorted moves once.
        self.fresh.sort_unstable();
        let (mut old, mut to) = (self.wide.len(), self.wide.len() + self.fresh.len());
        self.wide.resize(to, 0);
        while let Some(&newest) = self.fresh.last() {
            to -= 1;
            if old > 0 && self.wide[old - 1] > newest {
                old -= 1;
                self.wide[to] = self.wide[old];
            } else {
                self.wide[to] = newest;
                self.fresh.pop();
            }
        }
    }
}

/// Sorted numbers as differences: 30 of 16 bits take two bytes each, 65,536 of 32 bits three.
fn pack_sorted(out: &mut Vec<u8>, len: usize, sorted: impl Iterator<Item = u32>) {
    put(out, len as u64);
    let mut before = 0;
    for n in sorted {
        put(out, n.wrapping_sub(before));
        before = n;
    }
}

fn unpack_sorted(
    from: &mut Input<'_>,
    max: usize,
    mut push: impl FnMut(u32) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    let mut before = 0u32;
    for _ in 0..from.count(max, 1)? {
        before = before.checked_add(from.u32()?).ok_or(Unreadable("a number of more than 32 bits"))?;
        push(before)?;
    }
    Ok(())
}

fn narrow(hash: u64) -> u16 {
    hash as u16
}

fn wide(hash: u64) -> u32 {
    (hash >> 16) as u32
}
