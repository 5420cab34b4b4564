//! A few names in one block of memory: an account's relays, which are looked through for each event.

use super::codec::{Input, Unreadable, put, put_name, read_ahead};

/// Names, told apart by their places, in order of appearance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// One behind the other, each behind its length.
    bytes: Vec<u8>,
    len: usize,
}

/// Bytes of a length.
const HEAD: usize = 4;

impl Names {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.raw().map(|name| std::str::from_utf8(name).unwrap_or_default())
    }

    /// The name at a place.
    pub fn get(&self, place: usize) -> Option<&str> {
        self.iter().nth(place)
    }

    /// The place of a name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.raw().position(|n| n == name.as_bytes())
    }

    /// Adds a name, which is not there yet.
    pub fn push(&mut self, name: &str) {
        // Exactly: most accounts have one for ever.
        self.bytes.reserve_exact(HEAD + name.len());
        self.bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.len += 1;
    }

    /// Gives a place to another name, which is not there yet.
    pub fn replace(&mut self, place: usize, name: &str) {
        let names = std::mem::take(self);
        for (at, kept) in names.iter().enumerate() {
            self.push(if at == place { name } else { kept });
        }
    }

    /// Bytes that a name takes, with its length.
    pub fn taken_by(name: &str) -> usize {
        HEAD + name.len()
    }

    /// Bytes that they take, with their lengths.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn raw(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || {
            let (head, behind) = rest.split_first_chunk::<HEAD>()?;
            let (name, behind) = behind.split_at_checked(u32::from_le_bytes(*head) as usize)?;
            rest = behind;
            Some(name)
        })
    }

    /// Reads where a search begins; see [`super::shard::Shard::look_ahead`].
    pub(super) fn look_ahead(&self) -> u64 {
        read_ahead(&self.bytes, 2, |&b| b.into())
    }

    pub(super) fn pack(&self, out: &mut Vec<u8>) {
        put(out, self.len as u64);
        self.iter().for_each(|name| put_name(out, name));
    }

    pub(super) fn unpack(from: &mut Input<'_>, max: usize) -> Result<Self, Unreadable> {
        let mut names = Self::default();
        for _ in 0..from.count(max, 1)? {
            names.push(&from.name()?);
        }
        Ok(names)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

impl<S: AsRef<str>> FromIterator<S> for Names {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let mut all = Self::default();
        names.into_iter().for_each(|name| all.push(name.as_ref()));
        all
    }
}
