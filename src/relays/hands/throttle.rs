//! To whom throttled accounts were let write. Pure; the time is an argument.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use hashbrown::HashMap;

/// Accounts that are remembered; there are never nearly so many stops and throttles.
const ACCOUNTS_MAX: usize = 10_000;
/// Recipients of one account that are remembered for longer than they count.
const REMEMBERED_MAX: usize = 1024;
/// The span in which recipients count.
const HOUR_MS: i64 = 3_600_000;

/// Recipients of throttled accounts.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// By account: hashes of recipients, and when each was let through first.
    accounts: HashMap<Box<str>, HashMap<u64, i64>>,
    /// Random, so that nobody makes recipients that look the same.
    hash: RandomState,
}

impl Throttle {
    /// Whether `account` may write to `recipient`, whom it has not known before, at `now_ms`, with `an_hour` new recipients allowed
    /// in any hour. One that was let through is not new any more.
    pub(super) fn admits(&mut self, account: &str, recipient: &str, now_ms: i64, an_hour: u32) -> bool {
        let is_recent = |at: &i64| now_ms - *at < HOUR_MS;
        let hash = self.hash.hash_one(recipient.to_ascii_lowercase());
        if !self.accounts.contains_key(account) && self.accounts.len() >= ACCOUNTS_MAX {
            self.accounts.retain(|_, recipients| recipients.values().any(is_recent));
            // So many are a flood of something; who cannot be counted waits.
            if self.accounts.len() >= ACCOUNTS_MAX {
                return false;
            }
        }
        let recipients = self.accounts.entry(account.into()).or_default();
        if recipients.contains_key(&hash) {
            return true;
        }
        if recipients.values().filter(|at| is_recent(at)).count() >= an_hour as usize {
            return false;
        }
        if recipients.len() >= REMEMBERED_MAX {
            recipients.retain(|_, at| is_recent(at));
        }
        recipients.insert(hash, now_ms);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_new_recipients_in_any_hour_and_the_same_ones_again_and_again() {
        let mut throttle = Throttle::default();
        let mut admits = |account: &str, n: u32, at_ms: i64| throttle.admits(account, &format!("r{n}@x"), at_ms, 3);
        assert!((0..3).all(|n| admits("ann", n, i64::from(n) * 1000)));
        assert!(!admits("ann", 3, 10_000), "the fourth within the hour");
        assert!(admits("ann", 1, 20_000), "one of the three");
        assert!(admits("bob", 3, 20_000), "somebody else");
        assert!(!admits("ann", 3, HOUR_MS - 1));
        assert!(admits("ann", 3, HOUR_MS), "the first is an hour ago");
        assert!(!admits("ann", 4, HOUR_MS + 999), "the second is not");
        assert!(admits("ann", 0, HOUR_MS + 999), "the first is not new, if it does not count");
    }

    #[test]
    fn there_is_a_bound_and_what_has_aged_makes_room() {
        let mut throttle = Throttle::default();
        for n in 0..ACCOUNTS_MAX {
            assert!(throttle.admits(&n.to_string(), "r", 0, 1));
        }
        assert!(!throttle.admits("one more", "r", 1, 1));
        assert!(throttle.admits("one more", "r", HOUR_MS, 1));
        assert_eq!(throttle.accounts.len(), 1);
    }
}
