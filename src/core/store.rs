//! Memory for packed accounts: appended to chunks, moved together where too much of them is dead.
//!
//! An account is packed and unpacked again and again, a little longer each time. A general allocator leaves holes behind that
//! way, an eighth of everything, and spends more time on finding them than packing takes.

/// Bytes of a chunk; a longer record has one of its own.
const CHUNK: usize = 256 << 10;
/// Before each record: its place and its length.
const HEAD: usize = 8;
/// One part in so many may be dead, and a few chunks in any case.
const DEAD_SHARE: usize = 14;
const DEAD_ANYWAY: usize = 4 * CHUNK;
/// Empty chunks that are kept for the next records.
const SPARE_MAX: usize = 2;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    chunk: u32,
    offset: u32,
    len: u32,
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Of them in use, heads included.
    live: usize,
}

/// Packed accounts.
#[derive(Debug, Default)]
pub(super) struct Store {
    chunks: Vec<Chunk>,
    /// The one that is appended to.
    current: usize,
    /// Numbers of chunks that hold nothing.
    vacant: Vec<u32>,
    spare: Vec<Vec<u8>>,
    used: usize,
    live: usize,
}

impl Store {
    /// The record.
    pub(super) fn get(&self, at: At) -> &[u8] {
        let begin = at.offset as usize + HEAD;
        &self.chunks[at.chunk as usize].bytes[begin..begin + at.len as usize]
    }

    /// Stores the packed account of a place.
    pub(super) fn put(&mut self, place: u32, packed: &[u8]) -> At {
        let len = HEAD + packed.len();
        if self.chunks.get(self.current).is_none_or(|c| c.bytes.capacity() - c.bytes.len() < len) {
            self.begin(len);
        }
        let chunk = &mut self.chunks[self.current];
        let at = At { chunk: self.current as u32, offset: chunk.bytes.len() as u32, len: packed.len() as u32 };
        chunk.bytes.extend_from_slice(&place.to_le_bytes());
        chunk.bytes.extend_from_slice(&at.len.to_le_bytes());
        chunk.bytes.extend_from_slice(packed);
        chunk.live += len;
        self.used += len;
        self.live += len;
        at
    }

    /// Begins a chunk with room for a record of `len`.
    fn begin(&mut self, len: usize) {
        let bytes = match self.spare.pop() {
            Some(bytes) if bytes.capacity() >= len => bytes,
            _ => Vec::with_capacity(len.max(CHUNK)),
        };
        self.current = match self.vacant.pop() {
            Some(chunk) => chunk as usize,
            None => {
                self.chunks.push(Chunk::default());
                self.chunks.len() - 1
            }
        };
        self.chunks[self.current].bytes = bytes;
    }

    /// The record is not needed any more.
    pub(super) fn free(&mut self, at: At) {
        let len = HEAD + at.len as usize;
        self.chunks[at.chunk as usize].live -= len;
        self.live -= len;
    }

    /// Where too much is dead, takes out the chunk with most of it: its number and its bytes, for [`records`]. Those that live
    /// are to be stored again, and the bytes given back.
    pub(super) fn take_worst(&mut self) -> Option<(u32, Vec<u8>)> {
        if self.used - self.live <= DEAD_ANYWAY.max(self.live / DEAD_SHARE) {
            return None;
        }
        let dead = |c: &Chunk| c.bytes.len() - c.live;
        let others = self.chunks.iter().enumerate().filter(|(i, _)| *i != self.current);
        let (worst, _) = others.max_by_key(|(_, c)| dead(c)).filter(|(_, c)| dead(c) > 0)?;
        let Chunk { bytes, live } = std::mem::take(&mut self.chunks[worst]);
        self.used -= bytes.len();
        self.live -= live;
        Some((worst as u32, bytes))
    }

    /// The records of a chunk that was taken out have found another place.
    pub(super) fn give_back(&mut self, chunk: u32, mut bytes: Vec<u8>) {
        self.vacant.push(chunk);
        if self.spare.len() < SPARE_MAX && bytes.capacity() == CHUNK {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    /// Bytes written to, dead ones too.
    pub(super) fn bytes(&self) -> usize {
        self.used + self.spare.len() * CHUNK + self.chunks.capacity() * size_of::<Chunk>()
    }
}

/// The records of a chunk, dead ones too: place, where it was, the packed account.
pub(super) fn records(chunk: u32, bytes: &[u8]) -> impl Iterator<Item = (u32, At, &[u8])> {
    let mut offset = 0;
    std::iter::from_fn(move || {
        let (head, rest) = bytes.get(offset..)?.split_first_chunk::<HEAD>()?;
        let [a, b, c, d, len @ ..] = *head;
        let len = u32::from_le_bytes(len);
        let at = At { chunk, offset: offset as u32, len };
        offset += HEAD + len as usize;
        Some((u32::from_le_bytes([a, b, c, d]), at, rest.get(..len as usize)?))
    })
}
