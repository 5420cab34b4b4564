//! Records on their way from the poll thread to a worker: copied once, many to an allocation.

use std::sync::Arc;

use super::lease::Lease;

/// Records of one batch, at most.
pub const RECORDS_MAX: usize = 256;
/// Bytes after which a batch is full.
pub const BYTES_FULL: usize = 256 << 10;

/// Some records of one partition, in the order of their offsets.
#[derive(Debug)]
pub struct Batch {
    /// For whom they were read: they count for no later owner.
    pub lease: Arc<Lease>,
    /// The partition has been read to its end behind these.
    pub at_end: bool,
    bytes: Vec<u8>,
    records: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    appended_ms: i64,
    key_end: usize,
    value_end: usize,
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// When it was appended, in milliseconds since 1970; 0 where the broker does not say.
    pub appended_ms: i64,
    /// Its key; empty where it has none.
    pub key: &'a [u8],
    /// Its value; empty where it has none.
    pub value: &'a [u8],
}

impl Batch {
    /// An empty batch, in the buffers of one that is done where there is one.
    pub fn new(lease: Arc<Lease>, used: Option<Self>) -> Self {
        let (mut bytes, mut records) = used.map(|b| (b.bytes, b.records)).unwrap_or_default();
        bytes.clear();
        records.clear();
        // One giant message must not be kept room for for ever.
        bytes.shrink_to(4 * BYTES_FULL);
        Self { lease, at_end: false, bytes, records }
    }

    /// Adds a record.
    pub fn push(&mut self, record: Record<'_>) {
        self.bytes.extend_from_slice(record.key);
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(record.value);
        let value_end = self.bytes.len();
        self.records.push(Entry { offset: record.offset, appended_ms: record.appended_ms, key_end, value_end });
    }

    /// Whether it should be sent on.
    pub fn is_full(&self) -> bool {
        self.records.len() >= RECORDS_MAX || self.bytes.len() >= BYTES_FULL
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The records.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut begin = 0;
        self.records.iter().map(move |e| {
            let key = &self.bytes[begin..e.key_end];
            let value = &self.bytes[e.key_end..e.value_end];
            begin = e.value_end;
            Record { offset: e.offset, appended_ms: e.appended_ms, key, value }
        })
    }
}
