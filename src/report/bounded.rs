//! Counting and remembering within a bound.

use std::collections::VecDeque;
use std::hash::Hash;

use hashbrown::HashMap;
use siphasher::sip128::{Hasher128, SipHasher24};

use super::data::Cut;

/// Counts by key; when there are too many keys the rarest half is forgotten into `rest`.
///
/// What is dropped depends on the counts only, so the result does not depend on hash order.
#[derive(Debug)]
pub(super) struct TopCounts<K> {
    counts: HashMap<K, u64>,
    cap: usize,
    rest: u64,
    dropped: u64,
}

impl<K: Hash + Eq + Ord + Clone> TopCounts<K> {
    pub(super) fn new(cap: usize) -> Self {
        Self { counts: HashMap::new(), cap: cap.max(2), rest: 0, dropped: 0 }
    }

    /// Adds `n` to the key that `key` borrows as; it is copied only when it is new.
    pub(super) fn add<Q>(&mut self, key: &Q, n: u64)
    where
        Q: Hash + hashbrown::Equivalent<K> + ?Sized,
        for<'q> K: From<&'q Q>,
    {
        if let Some(count) = self.counts.get_mut(key) {
            *count += n;
            return;
        }
        if self.counts.len() >= self.cap {
            self.prune();
        }
        self.counts.insert(K::from(key), n);
    }

    fn prune(&mut self) {
        let mut values: Vec<u64> = self.counts.values().copied().collect();
        values.sort_unstable();
        let limit = values.get(values.len() / 2).copied().unwrap_or(0);
        let (mut rest, mut dropped) = (0, 0);
        self.counts.retain(|_, n| {
            let keep = *n > limit;
            if !keep {
                rest += *n;
                dropped += 1;
            }
            keep
        });
        self.rest += rest;
        self.dropped += dropped;
    }

    /// The largest first, then by key.
    pub(super) fn top(&self, keep: usize) -> Cut<(K, u64)> {
        let mut rows: Vec<(K, u64)> = self.counts.iter().map(|(k, n)| (k.clone(), *n)).collect();
        rows.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut cut = Cut::new(rows, keep, |r| r.1);
        cut.more += self.dropped;
        cut.more_sum += self.rest;
        cut
    }
}

/// What was said about the last so many messages, by account and queue id.
#[derive(Debug)]
pub(super) struct Ties<V> {
    by_key: HashMap<u128, V>,
    order: VecDeque<u128>,
    cap: usize,
}

impl<V> Ties<V> {
    pub(super) fn new(cap: usize) -> Self {
        Self { by_key: HashMap::new(), order: VecDeque::new(), cap: cap.max(1) }
    }

    /// 128 bits are kept instead of two strings: at any number of messages that fits in memory they do not collide.
    fn key(account: &str, queue_id: &str) -> u128 {
        let mut hasher = SipHasher24::new();
        (account, queue_id).hash(&mut hasher);
        hasher.finish128().as_u128()
    }

    /// Remembers a message, and forgets the oldest one where there is no room.
    pub(super) fn put(&mut self, account: &str, queue_id: &str, value: V) {
        let key = Self::key(account, queue_id);
        // A queue id used again replaces the old message and keeps its place in line.
        if self.by_key.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > self.cap
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }

    pub(super) fn get(&mut self, account: &str, queue_id: &str) -> Option<&mut V> {
        self.by_key.get_mut(&Self::key(account, queue_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stay_within_the_bound_and_add_up() {
        let mut top: TopCounts<Box<str>> = TopCounts::new(8);
        for i in 0..1000u64 {
            top.add(format!("rare{i}").as_str(), 1);
            top.add("often", 3);
        }
        assert!(top.counts.len() <= 8);
        let cut = top.top(1);
        assert_eq!(cut.rows, [(Box::from("often"), 3000)]);
        assert_eq!(cut.more_sum, 1000);
        assert_eq!(cut.more, 1000);
    }

    #[test]
    fn ties_forget_the_oldest() {
        let mut ties = Ties::new(2);
        for (i, id) in ["a", "b", "a", "c"].into_iter().enumerate() {
            ties.put("x", id, i);
        }
        assert_eq!(ties.get("x", "a"), None);
        assert_eq!(ties.get("x", "b").copied(), Some(1));
        assert_eq!(ties.get("x", "c").copied(), Some(3));
        assert_eq!(ties.get("y", "c"), None);
    }
}
