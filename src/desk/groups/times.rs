//! When accounts were flagged, in the order of that time however they come: a partition that lags gives old flags among new ones.

use std::collections::VecDeque;

/// Flags of either kind that are remembered at most: of more the oldest go, and what is normal is known from a shorter past.
pub(super) const TIMES_MAX: usize = 100_000;

/// Flags by their event time, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// Those that tell what is normal.
    normal: VecDeque<i64>,
    /// Those of an anomaly. Apart, so that no storm pushes out what is normal.
    odd: VecDeque<i64>,
}

impl Times {
    /// Takes in a flag.
    pub(super) fn add(&mut self, ts_ms: i64, is_normal: bool) {
        insert(if is_normal { &mut self.normal } else { &mut self.odd }, ts_ms);
    }

    /// How many there are from `since_ms` on.
    pub(super) fn since(&self, since_ms: i64) -> usize {
        [&self.normal, &self.odd].map(|times| times.len() - before(times, since_ms)).iter().sum()
    }

    /// How many normal ones there are before `since_ms`, and when the first of them was.
    pub(super) fn normal_before(&self, since_ms: i64) -> (usize, Option<i64>) {
        let n = before(&self.normal, since_ms);
        (n, self.normal.front().copied().filter(|_| n > 0))
    }

    /// What there is from `since_ms` on is of an anomaly.
    pub(super) fn odd_since(&mut self, since_ms: i64) {
        let at = before(&self.normal, since_ms);
        for ts_ms in self.normal.split_off(at) {
            insert(&mut self.odd, ts_ms);
        }
    }

    /// Lets go what was before: normal ones before `past_ms`, those of an anomaly before `now_ms`, where they count no more.
    pub(super) fn sweep(&mut self, past_ms: i64, now_ms: i64) {
        for (times, before_ms) in [(&mut self.normal, past_ms), (&mut self.odd, now_ms)] {
            while times.front().is_some_and(|ts_ms| *ts_ms < before_ms) {
                times.pop_front();
            }
        }
    }
}

/// How many lie before a time.
fn before(times: &VecDeque<i64>, ts_ms: i64) -> usize {
    times.partition_point(|t| *t < ts_ms)
}

fn insert(times: &mut VecDeque<i64>, ts_ms: i64) {
    // Near the end, mostly; what lies behind it moves, or what lies before it, whichever is less.
    let at = times.partition_point(|t| *t <= ts_ms);
    if times.len() < TIMES_MAX {
        times.insert(at, ts_ms);
    } else if at > 0 {
        times.pop_front();
        times.insert(at - 1, ts_ms);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn beyond_the_bound_the_oldest_go_and_the_rate_stays() {
        let mut times = Times::default();
        let bound = TIMES_MAX as i64;
        // One a second, each a minute late at random, but for the first that are as late as can be.
        for n in 0..3 * bound / 2 {
            times.add((n - (n * 7919) % 60) * 1000, true);
        }
        times.add(0, true);
        for n in 0..2 * bound {
            times.add(2_000_000_000 + n, false);
        }
        let (n, first) = times.normal_before(i64::MAX);
        let span_s = (3 * bound / 2) - first.unwrap() / 1000;
        assert_eq!(n, TIMES_MAX);
        assert!((span_s - bound).abs() < 120, "one a second: {span_s} s for {n}");
        assert_eq!(times.odd.len(), TIMES_MAX, "of a storm as many");
    }

    proptest! {
        /// Against a list that is looked through as a whole.
        #[test]
        fn counts_are_right_in_whatever_order_they_come(
            flags in prop::collection::vec((0i64..5000, 0i64..3000, 0u8..12), 1..300)
        ) {
            let (mut times, mut all) = (Times::default(), Vec::<(i64, bool)>::new());
            let mut newest = i64::MIN;
            for (n, (step, lag, what)) in flags.into_iter().enumerate() {
                // Every other one lags.
                let ts = n as i64 * 20 + step / 50 - if n % 2 == 0 { lag } else { 0 };
                newest = newest.max(ts);
                let (since, past) = (newest - 600, newest - 4000);
                times.add(ts, what > 3);
                all.push((ts, what > 3));
                if what == 11 {
                    times.odd_since(since);
                    all.iter_mut().filter(|(t, _)| *t >= since).for_each(|(_, normal)| *normal = false);
                }
                times.sweep(past, since);
                all.retain(|(t, normal)| *t >= if *normal { past } else { since });
                prop_assert_eq!(times.since(since), all.iter().filter(|(t, _)| *t >= since).count());
                let before: Vec<i64> = all.iter().filter(|(t, n)| *n && *t < since).map(|(t, _)| *t).collect();
                prop_assert_eq!(times.normal_before(since), (before.len(), before.iter().min().copied()));
            }
        }
    }
}
