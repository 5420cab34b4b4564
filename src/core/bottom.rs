//! A sketch of a set that tells how much two sets have in common: the smallest of their elements' hashes.
//!
//! Bottom-k sketch: Broder, "On the resemblance and containment of documents" (1997), section 4, with one hash; Cohen and Kaplan,
//! "Summarizing data using bottom-k sketches" (2007). Of all hashes of two sets together, the k smallest are a random sample of
//! the union, whoever chose the elements, as long as he does not know the key of the hash. The share of the sample that lies in
//! both sets estimates their resemblance (Jaccard): the share of the union that both have.

/// Hashes that a sketch keeps. Of sets no larger it has everything.
pub const KEPT: usize = 16;

/// The smallest hashes of a set, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bottom(Vec<u32>);

impl Bottom {
    /// Adds an element by its hash.
    pub fn add(&mut self, hash: u32) {
        if self.0.len() == KEPT && self.0.last().is_some_and(|largest| *largest <= hash) {
            return;
        }
        if let Err(place) = self.0.binary_search(&hash) {
            self.0.truncate(KEPT - 1);
            self.0.insert(place, hash);
        }
    }

    /// The hashes, smallest first.
    pub fn hashes(&self) -> &[u32] {
        &self.0
    }

    /// How many of the [`KEPT`] smallest hashes of the union lie in both sets.
    pub fn shared(&self, other: &Self) -> usize {
        let mut union = self.clone();
        other.0.iter().for_each(|&hash| union.add(hash));
        let is_in = |set: &Self, hash| set.0.binary_search(hash).is_ok();
        union.0.iter().filter(|hash| is_in(self, hash) && is_in(other, hash)).count()
    }
}

impl FromIterator<u32> for Bottom {
    fn from_iter<T: IntoIterator<Item = u32>>(hashes: T) -> Self {
        let mut bottom = Self::default();
        hashes.into_iter().for_each(|hash| bottom.add(hash));
        bottom
    }
}

#[cfg(test)]
mod tests {
    use super::{Bottom, KEPT};
    use crate::core::fingerprint::Fingerprint;

    fn of(names: std::ops::Range<u32>) -> Bottom {
        let prints = Fingerprint::new(&[3; 16]);
        names.map(|n| (prints.of(&format!("r{n}@far.example")) >> 32) as u32).collect()
    }

    #[test]
    fn it_is_the_smallest_whatever_the_order() {
        let mut hashes: Vec<u32> = (0..200u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        let forth: Bottom = hashes.iter().copied().collect();
        let back: Bottom = hashes.iter().rev().chain(&hashes).copied().collect();
        assert_eq!(forth, back);
        hashes.sort_unstable();
        assert_eq!(forth.hashes(), &hashes[..KEPT]);
    }

    #[test]
    fn of_small_sets_the_shared_are_counted() {
        assert_eq!(of(0..8).shared(&of(5..12)), 3);
        assert_eq!(of(0..8).shared(&of(8..16)), 0);
        assert_eq!(of(0..0).shared(&of(0..8)), 0);
    }

    #[test]
    fn of_large_sets_the_resemblance_is_estimated() {
        // 400 pairs of sets of 300, each with a third of the union in common: 16/3 are expected of each pair, with a standard
        // deviation of 1.9 (binomial); so of the mean one of 0.1.
        let pairs = (0..400u32).map(|i| i * 1000);
        let sum: usize = pairs.map(|at| of(at..at + 300).shared(&of(at + 150..at + 450))).sum();
        assert!((1933..=2333).contains(&sum), "{sum} of 400 pairs");
    }
}
