//! When most of what comes cannot be read: then the producer is broken, and reading on would eat the stream.

use hashbrown::HashSet;

/// Keys that must be among the bad records: one customer's broken program is no reason to stop a partition.
const KEYS_MIN: usize = 10;

/// The last records of a partition, as far as they could be read.
#[derive(Debug)]
pub(super) struct Poison {
    window: u32,
    max_share: f64,
    /// Of the current span of `window` records.
    records: u32,
    bad: u32,
    keys: HashSet<u64>,
}

impl Poison {
    pub fn new(window: u32, max_share: f64) -> Self {
        Self { window, max_share, records: 0, bad: 0, keys: HashSet::new() }
    }

    /// Counts records that could be read.
    pub fn good(&mut self, n: u32) {
        self.records += n;
        self.turn();
    }

    /// Counts one that could not. Returns whether it is too much: the share of bad ones in a whole window.
    pub fn bad(&mut self, key: &[u8]) -> bool {
        use std::hash::{BuildHasher, BuildHasherDefault};
        self.records += 1;
        self.bad += 1;
        if self.keys.len() <= KEYS_MIN {
            let hasher = BuildHasherDefault::<siphasher::sip::SipHasher13>::new();
            self.keys.insert(hasher.hash_one(key));
        }
        let too_much = f64::from(self.bad) > self.max_share * f64::from(self.window) && self.keys.len() >= KEYS_MIN;
        self.turn();
        too_much && self.max_share < 1.0
    }

    fn turn(&mut self) {
        if self.records >= self.window {
            (self.records, self.bad) = (0, 0);
            self.keys.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Poison;

    fn check(window: u32, share: f64, records: impl Iterator<Item = Option<u32>>) -> Option<usize> {
        let mut poison = Poison::new(window, share);
        records.enumerate().find_map(|(i, record)| match record {
            None => {
                poison.good(1);
                None
            }
            Some(key) => poison.bad(&key.to_le_bytes()).then_some(i),
        })
    }

    #[test]
    fn a_broken_producer_stops_the_partition_and_a_broken_customer_does_not() {
        assert_eq!(check(100, 0.5, (0..1000).map(Some)), Some(50));
        assert_eq!(check(100, 0.5, (0..1000).map(|i| Some(i % 5))), None, "few keys");
        assert_eq!(check(100, 0.5, (0..1000).map(|i| (i % 2 == 0).then_some(i))), None, "half is not more than half");
        assert_eq!(check(100, 1.0, (0..1000).map(Some)), None, "never");
    }
}
