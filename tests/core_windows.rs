//! What an account counts, against oracles that keep everything: sliding sums, distinct things, contacts.

use std::collections::HashMap;

use mailfuse::core::contacts::Contacts;
use mailfuse::core::recent::Recent;
use mailfuse::core::window::{CELLS, Counters, Spans, Windows, start_s};
use proptest::collection::vec;
use proptest::prelude::*;

/// Default spans, few, one, uneven ones (their cells are no whole part of them), and the longest and shortest allowed.
const SPANS: &[&[u32]] = &[
    &[60, 600, 3_600, 21_600, 86_400, 604_800],
    &[3_600, 86_400],
    &[12],
    &[13, 61, 3_601, 100_003],
    &[12, 366 * 86_400],
];

/// A well mixed 64-bit number for each `x` (SplitMix64): hashes of things that are all different.
fn hash(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// All fields differ, so that none can stand for another.
fn counters(x: u32) -> Counters {
    Counters {
        messages: x,
        recipients: x + 1,
        volume: x + 2,
        new_recipients: x + 3,
        new_damped: x + 5,
        new_foreign: x + 7,
        refused_quarters: x + 11,
        refused: x + 13,
        answered: x + 17,
        complaints: x + 19,
    }
}

fn fields(c: &Counters) -> [u64; 10] {
    [
        c.messages,
        c.recipients,
        c.volume,
        c.new_recipients,
        c.new_damped,
        c.new_foreign,
        c.refused_quarters,
        c.refused,
        c.answered,
        c.complaints,
    ]
    .map(u64::from)
}

/// The definition, word by word: the cell of the clock and the eleven before it.
fn is_held(span: u32, now_s: u32, at_s: u32) -> bool {
    let width = i64::from(span / CELLS);
    i64::from(now_s) / width - i64::from(at_s) / width < i64::from(CELLS)
}

/// How far each event goes: mostly on by little, sometimes by days, and how far behind the clock it happened.
fn steps() -> impl Strategy<Value = Vec<(u32, u32, u32)>> {
    let ahead = prop_oneof![4 => 0..30u32, 3 => 0..4_000u32, 1 => 0..200_000u32];
    let behind = prop_oneof![4 => Just(0u32), 3 => 0..90u32, 2 => 0..5_000u32, 1 => 0..700_000u32];
    vec((ahead, behind, 0..50u32), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sliding_sums_are_those_of_a_naive_oracle(
        which in 0..SPANS.len(),
        begin in prop_oneof![Just(0u32), Just(1_768_000_000)],
        steps in steps(),
        shrink_every in 1..40usize,
    ) {
        let spans = Spans::new(SPANS[which].to_vec()).unwrap();
        let (mut windows, mut all, mut now_s) = (Windows::default(), Vec::new(), begin);
        for (i, (ahead, behind, x)) in steps.into_iter().enumerate() {
            now_s += ahead;
            let at_s = now_s.saturating_sub(behind);
            let what = counters(x);
            let held = windows.add(&spans, now_s, at_s, &what);
            prop_assert_eq!(held, spans.all_s().iter().any(|&s| is_held(s, now_s, at_s)));
            all.push((at_s, what));
            if i % shrink_every == 0 {
                windows.shrink(&spans, now_s);
            }
            for (w, &span) in spans.all_s().iter().enumerate() {
                let mut expected = [0; 10];
                for (_, c) in all.iter().filter(|(at_s, _)| is_held(span, now_s, *at_s)) {
                    expected.iter_mut().zip(fields(c)).for_each(|(e, x)| *e += x);
                }
                prop_assert_eq!(fields(&windows.sum(&spans, w, now_s)), expected, "span {} at {}", span, now_s);
                // Time alone empties a window, without any event.
                let later = now_s + span + span / CELLS;
                prop_assert_eq!(windows.sum(&spans, w, later), Counters::default());
                // The window's first second is the first that is held, and lies eleven to twelve cells back.
                let first = start_s(span, now_s);
                prop_assert!(is_held(span, now_s, first) && (first == 0 || !is_held(span, now_s, first - 1)));
                let width = span / CELLS;
                prop_assert!(first == 0 || (width * 11..width * 12).contains(&(now_s - first)));
            }
        }
    }

    /// As long as no more than 128 things are there at once, the count of each window is exact: also where they are used again,
    /// out of order, and where far more have passed by.
    #[test]
    fn few_distinct_things_are_counted_exactly(
        things in 1..=128u64,
        uses in vec((any::<u64>(), 0..600u32, 0..900u32), 1..600),
    ) {
        let (mut recent, mut last, mut now_s) = (Recent::default(), HashMap::<u64, u32>::new(), 1_000_000u32);
        for (thing, ahead, behind) in uses {
            now_s += ahead;
            let (thing, at_s) = (hash(thing % things), now_s - behind);
            recent.note(thing, at_s, now_s.saturating_sub(86_400));
            let entry = last.entry(thing).or_insert(at_s);
            *entry = at_s.max(*entry);
        }
        for span in [60, 600, 3_600, 86_400] {
            let count = |since: u32| last.values().filter(|&&at_s| at_s >= since).count();
            prop_assert_eq!(recent.count_since(now_s - span) as usize, count(now_s - span), "span {}", span);
            let mut shrunk = recent.clone();
            shrunk.shrink(now_s - 86_400);
            prop_assert_eq!(shrunk.count_since(now_s - span), recent.count_since(now_s - span));
        }
    }
}

#[test]
fn things_that_pass_by_do_not_cost_exactness() {
    let mut recent = Recent::default();
    for i in 0..5_000u32 {
        // One a minute, an hour remembered: never more than 61 at once.
        let now_s = 1_000_000 + 60 * i;
        recent.note(hash(u64::from(i)), now_s, now_s - 3_600);
        assert_eq!(recent.count_since(now_s - 3_600), (i + 1).min(61));
        assert_eq!(recent.count_since(now_s - 600), (i + 1).min(11));
    }
}

/// Five standard errors of a sketch of 256 registers, several seeds and windows: one in a million would miss them by chance,
/// and the seeds are fixed.
#[test]
fn many_distinct_things_are_counted_within_the_error_of_the_sketch() {
    let (end_s, longest_s) = (10_000_000u32, 604_800u32);
    for seed in 0..6u64 {
        for distinct in [500u64, 5_000, 100_000] {
            let (mut recent, mut last) = (Recent::default(), HashMap::new());
            // Each is used twice, spread over a week; the second round in another order.
            for round in 0..2u64 {
                for i in 0..distinct {
                    let passed = (round * distinct + i) * u64::from(longest_s) / (2 * distinct);
                    let at_s = end_s - longest_s + passed as u32;
                    let thing = hash((seed << 40) | ((i * (1 + 2 * round)) % distinct));
                    recent.note(thing, at_s, at_s.saturating_sub(longest_s));
                    last.insert(thing, at_s);
                }
            }
            for span in [longest_s, 345_600, 172_800, 43_200, 3_600] {
                let exact = last.values().filter(|&&at_s| at_s >= end_s - span).count() as f64;
                let ours = f64::from(recent.count_since(end_s - span));
                let allowed = 5.0 * 1.04 / 16.0 * exact;
                assert!(
                    (ours - exact).abs() <= allowed.max(1.0),
                    "seed {seed}, {distinct}, {span} s: {ours} for {exact}"
                );
            }
            assert_eq!(recent.count_since(end_s), 0, "seed {seed}, {distinct}: nothing is used after the end");
        }
    }
}

#[test]
fn contacts_are_known_and_strangers_nearly_never() {
    for contacts in [1u64, 256, 257, 1_000, 10_000, 60_000] {
        let mut known = Contacts::default();
        let new = (0..contacts).filter(|&i| known.learn(hash(i))).count();
        let forgotten = (0..contacts).filter(|&i| !known.knows(hash(i))).count();
        assert_eq!(forgotten, 0, "of {contacts}");
        // A newcomer that is taken for known is not learned; it must be as rare as with strangers.
        assert!(new as f64 >= 0.995 * contacts as f64, "{new} of {contacts} were new");
        assert_eq!(known.len(), new);
        assert_eq!((0..contacts).filter(|&i| known.learn(hash(i))).count(), 0, "learned twice, of {contacts}");
        let strangers = 200_000u64;
        let taken = (0..strangers).filter(|&i| known.knows(hash(1 << 50 | i))).count();
        assert!((taken as f64) < 0.005 * strangers as f64, "{taken} of {strangers} at {contacts} contacts");
    }
}

/// A list beyond two generations forgets the older one, and never the newest contacts.
#[test]
fn an_endless_list_is_bounded_and_knows_its_newest() {
    let mut known = Contacts::default();
    for i in 0..400_000u64 {
        known.learn(hash(i));
    }
    assert!(known.len() <= 256 + 64 + 2 * 65_536, "{}", known.len());
    assert!((335_000..400_000).all(|i| known.knows(hash(i))));
}
