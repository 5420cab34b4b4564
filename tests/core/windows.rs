//! What an account counts, against naive oracles: sums over windows, distinct things, contacts, repeats, recent sends.

use crate::common;

use std::collections::{HashMap, HashSet};

use common::Dice;
use mailfuse::core::contacts::Contacts;
use mailfuse::core::packed::Part;
use mailfuse::core::recent::Recent;
use mailfuse::core::repeats::Repeats;
use mailfuse::core::sends::{Sends, Sent};
use mailfuse::core::window::{Counters, Spans, Windows};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

/// Saved and loaded again.
fn stored<T: Part>(value: &T) -> T {
    T::unpacked(&value.packed()).unwrap()
}

fn bytes<T: Part>(value: &T) -> Vec<u8> {
    value.packed()
}

// --- Windows ----------------------------------------------------------------------------------------------------------

fn counters() -> impl Strategy<Value = Counters> {
    let small = || 0..5_u32;
    let two = (small(), 0..2000_u32, 0..20_000_u32, small(), 0..20_000_u32);
    (two, 0..20_000_u32, 0..9_u32, small(), small(), small()).prop_map(
        |(
            (messages, recipients, volume, new_recipients, new_damped),
            new_foreign,
            refused_quarters,
            refused,
            answered,
            complaints,
        )| Counters {
            messages,
            recipients,
            volume,
            new_recipients,
            new_damped,
            new_foreign,
            refused_quarters,
            refused,
            answered,
            complaints,
        },
    )
}

/// The definition, word by word: the cell of the clock and the eleven before it, cells of a twelfth, aligned to 1970.
fn oracle(span_s: u32, now_s: u32, entered: &[(u32, Counters)]) -> Counters {
    let width = i64::from(span_s / 12);
    let newest = i64::from(now_s) / width;
    let mut sum = Counters::default();
    for (at_s, c) in entered {
        let cell = i64::from(*at_s) / width;
        if (newest - 11..=newest).contains(&cell) {
            sum.messages += c.messages;
            sum.recipients += c.recipients;
            sum.volume += c.volume;
            sum.new_recipients += c.new_recipients;
            sum.new_damped += c.new_damped;
            sum.new_foreign += c.new_foreign;
            sum.refused_quarters += c.refused_quarters;
            sum.refused += c.refused;
            sum.answered += c.answered;
            sum.complaints += c.complaints;
        }
    }
    sum
}

/// Seconds forward (mostly small, at times days), and how much earlier than the clock the event is.
fn moves() -> impl Strategy<Value = Vec<(u32, u32, Counters)>> {
    let forward = prop_oneof![4 => 0..90_u32, 2 => 0..7_000_u32, 1 => 0..900_000_u32];
    let late = prop_oneof![3 => Just(0_u32), 2 => 0..400_u32, 1 => 0..700_000_u32];
    vec((forward, late, counters()), 1..250)
}

#[test]
fn windows_are_the_sums_of_their_definition() {
    let lists = prop_oneof![
        Just(vec![60, 600, 3_600, 21_600, 86_400, 604_800]),
        Just(vec![12]),
        Just(vec![100, 101, 5_000]),
        Just(vec![43_200, 2_592_000]),
        Just(vec![13, 77, 900, 3_600, 7_200, 86_400, 172_800, 604_800]),
        // Any, whose steps are no multiples of one another.
        btree_set(prop_oneof![12..300_u32, 300..9_000_u32, 9_000..2_000_000_u32], 1..=8)
            .prop_map(|spans| spans.into_iter().collect()),
    ];
    proptest!(config(400), |(spans in lists, start in 0..2_000_000_000_u32, moves in moves(), tidy in 1..40_usize)| {
        let spans = Spans::new(spans).unwrap();
        let (mut windows, mut entered, mut now_s) = (Windows::default(), Vec::new(), start);
        for (i, (forward, late, what)) in moves.into_iter().enumerate() {
            now_s += forward;
            let at_s = now_s.saturating_sub(late);
            let held = windows.add(&spans, now_s, at_s, &what);
            entered.push((at_s, what));
            // When memory is tidied up, and that the state is saved in between, changes no sum.
            if i % tidy == 0 {
                windows.compact(&spans, now_s);
            }
            if i % (tidy / 2 + 1) == 0 {
                windows = stored(&windows);
            }
            // As many cells as there are steps, and as many again.
            prop_assert!(windows.cells() <= (24 * spans.all_s().len() + 2).max(8), "{} cells", windows.cells());
            let mut held_by_any = false;
            for (w, &span_s) in spans.all_s().iter().enumerate() {
                prop_assert_eq!(windows.sum(&spans, w, now_s), oracle(span_s, now_s, &entered), "span {}", span_s);
                let width = span_s / 12;
                held_by_any |= at_s / width + 11 >= now_s / width;
            }
            prop_assert_eq!(held, held_by_any);
        }
        // The clock moves on without events.
        for forward in [1, 59, 3_600, 90_000, 700_000] {
            now_s += forward;
            for (w, &span_s) in spans.all_s().iter().enumerate() {
                prop_assert_eq!(windows.sum(&spans, w, now_s), oracle(span_s, now_s, &entered));
            }
        }
        // What a closed incident accounted for is gone, messages and recipients are not.
        let before: Vec<_> = (0..spans.all_s().len()).map(|w| windows.sum(&spans, w, now_s)).collect();
        windows.forgive();
        for (w, b) in before.into_iter().enumerate() {
            let left = Counters { messages: b.messages, recipients: b.recipients, volume: b.volume, ..Counters::default() };
            prop_assert_eq!(windows.sum(&spans, w, now_s), left);
        }
    });
}

#[test]
fn spans_that_cannot_be_windows_are_refused() {
    for spans in
        [vec![], vec![11], vec![60, 60], vec![600, 60], vec![60, 367 * 86_400], (1..10).map(|i| 60 * i).collect()]
    {
        assert!(Spans::new(spans.clone()).is_err(), "{spans:?}");
    }
}

// --- Distinct things --------------------------------------------------------------------------------------------------

/// Distinct things last used at or after `start_s`.
fn distinct(last: &HashMap<u64, u32>, start_s: u32) -> u32 {
    last.values().filter(|&&s| s >= start_s).count() as u32
}

#[test]
fn few_distinct_things_are_counted_exactly() {
    let uses = vec((0..128_u64, 0..50_u32, 0..300_u32), 1..400);
    proptest!(config(300), |(uses in uses, seed: u64, tidy in 1..60_usize)| {
        let (mut recent, mut last, mut now_s) = (Recent::default(), HashMap::new(), 1_000_000_u32);
        for (i, (thing, forward, late)) in uses.into_iter().enumerate() {
            now_s += forward;
            let (hash, at_s) = (Dice(seed ^ thing).next(), now_s - late);
            recent.note(hash, at_s, now_s - 5_000);
            let entry = last.entry(hash).or_insert(at_s);
            *entry = at_s.max(*entry);
            if i % tidy == 0 {
                recent.shrink(now_s - 5_000);
                recent = stored(&recent);
            }
            for window in [0, 60, 600, 2_500, 5_000] {
                prop_assert_eq!(recent.count_since(now_s - window), distinct(&last, now_s - window));
            }
        }
    });
}

/// Exact while few at a time, however many pass by.
#[test]
fn things_that_pass_by_do_not_cost_exactness() {
    let (mut recent, mut dice) = (Recent::default(), Dice(1));
    for i in 0..5_000_u32 {
        // One a minute, an hour remembered: never more than 61 at once.
        let now_s = 1_000_000 + 60 * i;
        recent.note(dice.next(), now_s, now_s - 3_600);
        assert_eq!(recent.count_since(now_s - 3_600), (i + 1).min(61));
        assert_eq!(recent.count_since(now_s - 600), (i + 1).min(11));
    }
}

/// The sketch: within four standard errors of 6.5 % each, within 3 % on average over many, for every window at once.
#[test]
fn many_distinct_things_are_estimated_within_the_stated_error() {
    for n in [200_u64, 500, 700, 1_000, 3_000, 20_000, 200_000] {
        let seeds = if n > 50_000 { 6 } else { 60 };
        let mut mean = [0.0; 3];
        for seed in 0..seeds {
            let mut dice = Dice(seed * 7_919 + n);
            let hashes: Vec<u64> = (0..n).map(|_| dice.next()).collect();
            let mut recent = Recent::default();
            // Over 10,000 s, each thing twice: the second use, at the same pace, is the one that counts.
            for (i, &hash) in hashes.iter().enumerate().chain(hashes.iter().enumerate()) {
                recent.note(hash, 50_000 + (i as u64 * 10_000 / n) as u32, 0);
            }
            let mut shrunk = recent.clone();
            shrunk.shrink(50_000);
            assert_eq!(stored(&recent), recent);
            // All, the newer half, the newest tenth.
            for (i, (start_s, part)) in [(50_000, 1.0), (55_000, 0.5), (59_000, 0.1)].into_iter().enumerate() {
                let (got, exact) = (f64::from(recent.count_since(start_s)), n as f64 * part);
                let off = got / exact - 1.0;
                assert!(off.abs() < 0.26, "{got} for {exact} of {n}, seed {seed}");
                assert_eq!(shrunk.count_since(start_s), recent.count_since(start_s), "shrinking changed an answer");
                mean[i] += off / seeds as f64;
            }
        }
        let bound = 0.03 + 2.0 * 0.065 / (seeds as f64).sqrt();
        assert!(mean.iter().all(|m| m.abs() < bound), "{n}: off by {mean:?} on average, bound {bound}");
    }
}

/// Memory of a sketch is bounded however much passes, and however it is ordered.
#[test]
fn a_sketch_stays_small() {
    let mut dice = Dice(5);
    let mut recent = Recent::default();
    for i in 0..300_000_u32 {
        let late = dice.below(86_400) as u32;
        recent.note(dice.next(), 1_000_000 + i - late, 1_000_000 + i - 86_400);
    }
    assert!(recent.heap_bytes() < 64_000, "{} bytes", recent.heap_bytes());
}

// --- Contacts ---------------------------------------------------------------------------------------------------------

#[test]
fn contacts_are_known_and_strangers_are_not() {
    for n in [100_usize, 256, 1_000, 10_000, 60_000] {
        let (mut contacts, mut dice, mut taken) = (Contacts::default(), Dice(n as u64), 0);
        let hashes: Vec<u64> = (0..n).map(|_| dice.next()).collect();
        for &hash in &hashes {
            taken += usize::from(!contacts.learn(hash));
            assert!(contacts.knows(hash) && !contacts.learn(hash));
        }
        assert!(hashes.iter().all(|&hash| contacts.knows(hash)), "{n}: a contact was forgotten");
        assert_eq!(contacts.len() + taken, n, "each new one takes one place");
        let strangers = 200_000;
        let known = (0..strangers).filter(|_| contacts.knows(dice.next())).count();
        assert!((known as f64) < 0.005 * f64::from(strangers), "{n}: {known} of {strangers} strangers are known");
        // Sorted vectors double, so that up to twice the 4 bytes may be allocated.
        assert!(contacts.heap_bytes() <= 8 * n + 1_024, "{n}: {} bytes", contacts.heap_bytes());
        assert_eq!(stored(&contacts), contacts);
    }
}

/// Each merge keeps the list sorted: a search for any contact finds it after any number of them, also where hashes come in
/// order or backwards.
#[test]
fn contacts_stay_findable_in_any_order_of_hashes() {
    proptest!(config(60), |(seed: u64, n in 257..900_u64, order in 0..3_u8)| {
        let mut hashes: Vec<u64> = { let mut dice = Dice(seed); (0..n).map(|_| dice.next()).collect() };
        match order {
            0 => hashes.sort_unstable_by_key(|h| h >> 16),
            1 => hashes.sort_unstable_by_key(|h| std::cmp::Reverse(h >> 16)),
            _ => {}
        }
        let mut contacts = Contacts::default();
        for (i, &hash) in hashes.iter().enumerate() {
            contacts.learn(hash);
            if i % 97 == 0 {
                prop_assert!(hashes[..=i].iter().all(|&h| contacts.knows(h)));
                contacts = stored(&contacts);
            }
        }
        prop_assert!(hashes.iter().all(|&h| contacts.knows(h)));
    });
}

/// A list beyond two generations forgets the older one, and nothing newer.
#[test]
fn contacts_forget_by_generation() {
    let (mut contacts, mut dice) = (Contacts::default(), Dice(9));
    let hashes: Vec<u64> = (0..220_000).map(|_| dice.next()).collect();
    let mut peak = 0;
    for &hash in &hashes {
        contacts.learn(hash);
        peak = peak.max(contacts.len());
    }
    assert!(peak <= 2 * 65_536 + 256 + 64, "{peak} contacts were kept");
    let known = |range: std::ops::Range<usize>| hashes[range].iter().filter(|&&h| contacts.knows(h)).count();
    // The last generation's worth is there, whole.
    assert_eq!(known(220_000 - 65_536..220_000), 65_536);
    // The first 256 never go; those right after them are gone.
    assert_eq!(known(0..256), 256);
    assert!(known(300..60_000) < 600, "{}", known(300..60_000));
}

// --- Repeats ----------------------------------------------------------------------------------------------------------

#[test]
fn repeats_within_the_span_are_told_and_others_are_not() {
    let ids = vec((0..60_u64, 0..200_u32, 0..100_u32), 1..500);
    proptest!(config(200), |(ids in ids, save in 1..80_usize)| {
        const SPAN_S: u32 = 3_600;
        let (mut repeats, mut plain, mut now_s) = (Repeats::default(), Repeats::default(), 500_000_u32);
        let mut seen: HashMap<u64, u32> = HashMap::new();
        for (i, (id, forward, late)) in ids.into_iter().enumerate() {
            now_s += forward;
            let (hash, at_s) = (Dice(id).next(), now_s - late);
            let expected =
                seen.get(&hash).is_some_and(|&s| at_s.abs_diff(s) <= SPAN_S && now_s.saturating_sub(s) <= SPAN_S);
            prop_assert_eq!(repeats.note(hash, at_s, now_s, SPAN_S), expected);
            prop_assert_eq!(plain.note(hash, at_s, now_s, SPAN_S), expected);
            if !expected {
                seen.insert(hash, at_s);
            }
            // Saving in between leaves no trace, neither in answers nor in the stored form.
            if i % save == 0 {
                repeats = stored(&repeats);
            }
        }
        prop_assert_eq!(bytes(&repeats), bytes(&plain));
    });
}

#[test]
fn ids_are_bounded_and_the_newest_stay() {
    let (mut repeats, mut saved) = (Repeats::default(), Repeats::default());
    for i in 0..100_000_u64 {
        let at_s = 1_000_000 + (i / 50) as u32;
        assert!(!repeats.note(Dice(i).next(), at_s, at_s, 3_600), "{i}");
        assert!(!saved.note(Dice(i).next(), at_s, at_s, 3_600), "{i}");
        if i % 7_001 == 0 {
            saved = stored(&saved);
        }
        // A repeat at once is always found, however many pass.
        if i % 1_000 == 0 {
            assert!(repeats.note(Dice(i).next(), at_s, at_s, 3_600), "{i}");
        }
    }
    assert!(repeats.heap_bytes() < 512 << 10, "{} bytes", repeats.heap_bytes());
    assert_eq!(bytes(&repeats), bytes(&saved));
}

// --- Recent sends -----------------------------------------------------------------------------------------------------

const LONGEST_S: u32 = 604_800;
const PLAIN_S: u32 = 6 * 3_600;

/// One step of a mail stream: seconds forward, which of a few queue ids, whether it brings a stranger, how late it is.
fn stream() -> impl Strategy<Value = Vec<(u32, u64, bool, u32)>> {
    let forward = prop_oneof![6 => 0..60_u32, 2 => 0..4_000_u32, 1 => 0..200_000_u32];
    vec((forward, 0..90_u64, any::<bool>(), prop_oneof![3 => Just(0_u32), 1 => 0..300_u32]), 1..300)
}

#[test]
fn sends_are_found_as_a_search_from_the_newest_finds_them() {
    proptest!(config(150), |(stream in stream(), max in prop_oneof![Just(20_usize), Just(64), Just(1_024)], save in 1..70_usize)| {
        let (mut sends, mut plain) = (Sends::default(), Sends::default());
        let (mut all, mut now_s): (Vec<Sent>, u32) = (Vec::new(), 10_000_000);
        for (i, (forward, key, telling, late)) in stream.into_iter().enumerate() {
            now_s += forward;
            let ts_ms = i64::from(now_s - late) * 1000 + i as i64 % 1000;
            // Key 0: a send without a queue id, which no outcome can name.
            let sent = Sent { key, ts_ms, recipients: 1, new: u32::from(telling), ..Sent::default() };
            for s in [&mut sends, &mut plain] {
                s.push(sent.clone(), now_s, LONGEST_S, max);
            }
            all.push(sent);
            if i % save == 0 {
                sends = stored(&sends);
            }
            for key in 0..90 {
                let alive = |s: &&Sent| {
                    let age_s = now_s - (s.ts_ms / 1000) as u32;
                    age_s < if s.new > 0 { LONGEST_S } else { PLAIN_S }
                };
                // The newest live one. The bound drops the oldest, and a newer one with the same id that lives no more may
                // hide it until it is swept.
                let newest = all.iter().rposition(|s| s.key == key);
                let expected = all.iter().rposition(|s| s.key == key && key != 0 && alive(&s));
                let got = sends.find(key, now_s, LONGEST_S).map(|s| s.clone());
                prop_assert_eq!(&got, &plain.find(key, now_s, LONGEST_S).map(|s| s.clone()), "saving changed an answer");
                if got.is_some() {
                    prop_assert_eq!(got.as_ref(), expected.map(|at| &all[at]));
                } else if let Some(at) = expected {
                    let dropped = all.len() - at > max;
                    prop_assert!(dropped || newest != expected, "{:?} is not found", all[at]);
                }
            }
            prop_assert_eq!(bytes(&sends), bytes(&plain), "saving left a trace");
        }
    });
}

/// What an outcome changes in a send that is found stays changed, and a burst's sends come oldest first.
#[test]
fn sends_are_bounded_and_keep_what_is_told_of_them() {
    let mut sends = Sends::default();
    for i in 0..5_000_u64 {
        let now_s = 1_000_000 + i as u32;
        let sent = Sent { key: i + 1, ts_ms: i64::from(now_s) * 1000, recipients: 1, ..Sent::default() };
        sends.push(sent, now_s, LONGEST_S, 1_024);
    }
    let now_s = 1_005_000;
    let found: HashSet<u64> = (0..5_001).filter(|&k| sends.find(k, now_s, LONGEST_S).is_some()).collect();
    assert_eq!(found, (3_977..=5_000).collect(), "the newest 1,024 stay");
    sends.find(4_500, now_s, LONGEST_S).unwrap().refused = 1;
    sends.find(4_000, now_s, LONGEST_S).unwrap().new = 2;
    let telling: Vec<u64> = sends.telling_since(1_000_000_000).map(|s| s.key).collect();
    assert_eq!(telling, [4_000, 4_500]);
    assert!(sends.heap_bytes() < 1_024 * 400, "{} bytes", sends.heap_bytes());
    // A week later only what told something is left, then nothing.
    sends.sweep(now_s + PLAIN_S, LONGEST_S);
    assert!(sends.find(4_999, now_s + PLAIN_S, LONGEST_S).is_none());
    assert!(sends.find(4_500, now_s + PLAIN_S, LONGEST_S).is_some());
    sends.sweep(now_s + LONGEST_S, LONGEST_S);
    assert_eq!(sends.telling_since(0).count(), 0);
}
