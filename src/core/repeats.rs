//! Ids of events that an account has already been counted for.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

/// Ids kept at most; beyond them the span is halved until they fit.
const KEPT_MAX: usize = 8192;

/// Hash of each id, with the second it was seen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Repeats {
    seen: HashMap<u64, u32>,
    /// Stored, because it decides which of the ids that count no more are still there.
    sweep_at: u32,
}

/// The stored form: sorted, so that it does not depend on hash order.
#[derive(Serialize, Deserialize)]
struct Stored {
    seen: Vec<(u64, u32)>,
    sweep_at: u32,
}

impl Repeats {
    /// Notes an id at `at_s`. Returns whether it is a repeat of one within `span_s` of event time.
    pub fn note(&mut self, id: u64, at_s: u32, now_s: u32, span_s: u32) -> bool {
        if self.seen.get(&id).is_some_and(|&s| at_s.abs_diff(s) <= span_s && now_s.saturating_sub(s) <= span_s) {
            return true;
        }
        if self.seen.len() >= self.sweep_at.max(16) as usize {
            let mut span_s = span_s;
            self.seen.retain(|_, &mut s| now_s.saturating_sub(s) <= span_s);
            while self.seen.len() >= KEPT_MAX && span_s > 0 {
                span_s /= 2;
                self.seen.retain(|_, &mut s| now_s.saturating_sub(s) <= span_s);
            }
            if self.seen.len() >= KEPT_MAX {
                self.seen.clear();
            }
            self.sweep_at = (2 * self.seen.len()).min(KEPT_MAX) as u32;
        }
        self.seen.insert(id, at_s);
        false
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.seen.capacity() * (size_of::<(u64, u32)>() + 1)
    }
}

impl From<Stored> for Repeats {
    fn from(stored: Stored) -> Self {
        Self { sweep_at: stored.sweep_at.min(KEPT_MAX as u32), seen: stored.seen.into_iter().collect() }
    }
}

impl From<Repeats> for Stored {
    fn from(repeats: Repeats) -> Self {
        let mut seen: Vec<_> = repeats.seen.into_iter().collect();
        seen.sort_unstable();
        Self { seen, sweep_at: repeats.sweep_at }
    }
}
