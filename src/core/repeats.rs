//! Ids of events that an account has already been counted for.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

/// Ids kept at most; beyond them the span is halved until they fit.
const KEPT_MAX: usize = 8192;
/// In the stored form, the place of what is no id: no fingerprint is 0.
const SWEEP_AT: u64 = 0;

/// Hash of each id, with the second it was seen.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u32)>", into = "Vec<(u64, u32)>")]
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

impl From<Repeats> for Vec<(u64, u32)> {
    /// Sorted, so that the stored form does not depend on hash order. With the next sweep, because it decides what is
    /// still there, and where there are too many, what is a repeat.
    fn from(repeats: Repeats) -> Self {
        let mut stored: Self = repeats.seen.into_iter().collect();
        // An account without ids, as most are in logs, takes no room.
        if repeats.sweep_at > 0 || !stored.is_empty() {
            stored.push((SWEEP_AT, repeats.sweep_at as u32));
        }
        stored.sort_unstable();
        stored
    }
}
