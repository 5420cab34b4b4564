//! Ids of events that an account has already been counted for.

use hashbrown::HashMap;
use serde::Deserialize;

use super::codec::{Input, Unreadable, put, put_near};

/// Ids kept at most; beyond them the span is halved until they fit.
const KEPT_MAX: usize = 8192;
/// In the stored form of version 1, the place of what is no id: no fingerprint is 0.
const SWEEP_AT: u64 = 0;

/// Hash of each id, with the second it was seen.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "Vec<(u64, u32)>")]
pub struct Repeats {
    seen: HashMap<u64, u32>,
    sweep_at: usize,
}

impl Repeats {
    /// Notes an id at `at_s`. Returns whether it is a repeat of one within `span_s` of event time.
    pub fn note(&mut self, id: u64, at_s: u32, now_s: u32, span_s: u32) -> bool {
        if self.seen.get(&id).is_some_and(|&s| at_s.abs_diff(s) <= span_s && now_s.saturating_sub(s) <= span_s) {
            return true;
        }
        if self.seen.len() >= self.sweep_at.max(16) {
            let mut span_s = span_s;
            self.seen.retain(|_, &mut s| now_s.saturating_sub(s) <= span_s);
            while self.seen.len() >= KEPT_MAX && span_s > 0 {
                span_s /= 2;
                self.seen.retain(|_, &mut s| now_s.saturating_sub(s) <= span_s);
            }
            if self.seen.len() >= KEPT_MAX {
                self.seen.clear();
            }
            self.sweep_at = (2 * self.seen.len()).min(KEPT_MAX);
        }
        self.seen.insert(id, at_s);
        false
    }

    /// Drops what can be no repeat any more. Called at fixed points of the account's own events only.
    pub fn sweep(&mut self, now_s: u32, span_s: u32) {
        self.seen.retain(|_, &mut s| now_s.saturating_sub(s) <= span_s);
        if self.seen.is_empty() && self.seen.capacity() > 0 {
            self.seen = HashMap::default();
        }
        self.sweep_at = (2 * self.seen.len()).min(KEPT_MAX);
    }

    /// Whether there is nothing to store.
    pub(super) fn is_default(&self) -> bool {
        self.seen.is_empty() && self.sweep_at == 0
    }

    /// Sorted, so that the packed form does not depend on hash order. With the next sweep, because it decides what is still
    /// there, and where there are too many, what is a repeat.
    pub(super) fn pack(&self, out: &mut Vec<u8>, clock_s: u32) {
        let mut sorted: Vec<(u64, u32)> = self.seen.iter().map(|(&id, &s)| (id, s)).collect();
        sorted.sort_unstable();
        put(out, self.sweep_at as u64);
        put(out, sorted.len() as u64);
        for (id, s) in sorted {
            out.extend_from_slice(&id.to_le_bytes());
            put_near(out, s, clock_s);
        }
    }

    pub(super) fn unpack(from: &mut Input<'_>, clock_s: u32) -> Result<Self, Unreadable> {
        let sweep_at = from.count(KEPT_MAX, 0)?;
        let len = from.count(KEPT_MAX, 9)?;
        let mut seen = HashMap::with_capacity(len);
        for _ in 0..len {
            seen.insert(u64::from_le_bytes(from.array()?), from.near(clock_s)?);
        }
        Ok(Self { seen, sweep_at })
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.seen.capacity() * (size_of::<(u64, u32)>() + 1)
    }
}

impl PartialEq for Repeats {
    fn eq(&self, other: &Self) -> bool {
        self.seen == other.seen && self.sweep_at == other.sweep_at
    }
}

impl From<Vec<(u64, u32)>> for Repeats {
    /// Where the next sweep is not stored (older files), it is guessed: that changes what is kept for nothing, and little else.
    fn from(stored: Vec<(u64, u32)>) -> Self {
        let mut seen: HashMap<u64, u32> = stored.into_iter().collect();
        let sweep_at = seen.remove(&SWEEP_AT).map(|at| at as usize);
        Self { sweep_at: sweep_at.unwrap_or_else(|| (2 * seen.len()).min(KEPT_MAX)), seen }
    }
}
