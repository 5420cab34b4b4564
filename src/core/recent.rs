//! How many distinct things an account used in a sliding window: recipients, client networks, recipient domains, relays.
//!
//! Exact while few (each with the second it was last used), a sliding HyperLogLog afterwards. Both answer for every window
//! from one structure, because "distinct in the window" is "last used since the window's start".

use serde::Deserialize;

use super::codec::{Input, Unreadable, put, put_near, put_signed, read_ahead};

/// Things that are kept exactly; beyond them the sketch takes over.
const EXACT_MAX: usize = 128;
/// Registers of the sketch: standard error 1.04/sqrt(256) = 6.5 %.
const REGISTERS: u32 = 256;
/// Marks at most: of each register one of each rank.
const MARKS_MAX: usize = 25 * REGISTERS as usize;

/// Distinct things of one account, with the time they were last used.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub enum Recent {
    /// Hash and second of the last use.
    Exact(Vec<(u32, u32)>),
    /// Flajolet, Fusy, Gandouet, Meunier: HyperLogLog (2007), made sliding as Chabchoub and Hébrail (2010): of each register
    /// the (rank, second) pairs that may still become its maximum, sorted by register, then by falling rank.
    Sketch(Vec<Mark>),
}

/// One possible maximum of one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Mark {
    register: u8,
    rank: u8,
    at_s: u32,
}

impl Default for Recent {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl Recent {
    /// Reads the newest, where a search begins; see [`super::shard::Shard::look_ahead`].
    pub(super) fn look_ahead(&self) -> u64 {
        match self {
            Self::Exact(seen) => read_ahead(seen, 4, |s| s.1.into()),
            Self::Sketch(marks) => marks.get(marks.len() / 2).map_or(0, |m| u64::from(m.at_s)),
        }
    }

    /// Notes that `hash` was used at `at_s`. What was last used before `oldest_s` is not needed any more.
    pub fn note(&mut self, hash: u64, at_s: u32, oldest_s: u32) {
        match self {
            Self::Exact(seen) => {
                let key = (hash >> 32) as u32;
                if let Some(entry) = seen.iter_mut().rev().find(|e| e.0 == key) {
                    entry.1 = entry.1.max(at_s);
                    return;
                }
                if seen.len() == EXACT_MAX {
                    seen.retain(|e| e.1 >= oldest_s);
                }
                if seen.len() < EXACT_MAX {
                    seen.push((key, at_s));
                    return;
                }
                let mut marks = Vec::with_capacity(2 * EXACT_MAX);
                for &(key, at_s) in seen.iter() {
                    mark(&mut marks, key, at_s);
                }
                mark(&mut marks, key, at_s);
                *self = Self::Sketch(marks);
            }
            Self::Sketch(marks) => {
                mark(marks, (hash >> 32) as u32, at_s);
                // Lists grow with the logarithm of what passes; a bound on the whole costs old marks first.
                if marks.len() > 8 * REGISTERS as usize {
                    marks.retain(|m| m.at_s >= oldest_s);
                }
            }
        }
    }

    /// Distinct things used at or after `start_s`: exact up to 128, else within some 6.5 % (one standard error).
    pub fn count_since(&self, start_s: u32) -> u32 {
        match self {
            Self::Exact(seen) => seen.iter().filter(|e| e.1 >= start_s).count() as u32,
            Self::Sketch(marks) => estimate(marks, start_s),
        }
    }

    /// Drops what was last used before `oldest_s`. Changes no count since then.
    pub fn shrink(&mut self, oldest_s: u32) {
        match self {
            Self::Exact(seen) => {
                seen.retain(|e| e.1 >= oldest_s);
                // A little room is going to be used.
                if seen.capacity() > 4 * seen.len() {
                    seen.shrink_to_fit();
                }
            }
            Self::Sketch(marks) => {
                marks.retain(|m| m.at_s >= oldest_s);
                if marks.is_empty() {
                    *self = Self::default();
                }
            }
        }
    }

    /// `near` are uses, second and hash, of which the last ones are probably these.
    pub(super) fn pack(&self, out: &mut Vec<u8>, near: &[(u32, u64)], clock_s: u32) {
        match self {
            Self::Exact(seen) => {
                put(out, (seen.len() as u64) << 1);
                let mut before_s = clock_s;
                for (i, &(key, at_s)) in seen.iter().enumerate() {
                    let (expected_s, expected_key) = expected(near, seen.len() - i, before_s);
                    let same = expected_key == key;
                    let later_s = i64::from(at_s) - i64::from(expected_s);
                    put_signed(out, later_s << 1 | i64::from(same));
                    if !same {
                        out.extend_from_slice(&key.to_le_bytes());
                    }
                    before_s = at_s;
                }
            }
            Self::Sketch(marks) => {
                put(out, (marks.len() as u64) << 1 | 1);
                for m in marks {
                    out.extend_from_slice(&[m.register, m.rank]);
                    put_near(out, m.at_s, clock_s);
                }
            }
        }
    }

    pub(super) fn unpack(from: &mut Input<'_>, near: &[(u32, u64)], clock_s: u32) -> Result<Self, Unreadable> {
        let head = from.number()?;
        if head & 1 == 0 {
            let len = from.checked_count(head >> 1, EXACT_MAX, 1)?;
            let mut seen = Vec::with_capacity(len);
            let mut before_s = clock_s;
            for i in 0..len {
                let (expected_s, expected_key) = expected(near, len - i, before_s);
                let head = from.signed()?;
                before_s = i64::from(expected_s)
                    .checked_add(head >> 1)
                    .and_then(|s| u32::try_from(s).ok())
                    .ok_or(Unreadable("a time of more than 32 bits"))?;
                let key = if head & 1 != 0 { expected_key } else { u32::from_le_bytes(from.array()?) };
                seen.push((key, before_s));
            }
            return Ok(Self::Exact(seen));
        }
        let len = from.checked_count(head >> 1, MARKS_MAX, 3)?;
        let mut marks = Vec::with_capacity(len);
        for _ in 0..len {
            let [register, rank] = from.array()?;
            marks.push(Mark { register, rank, at_s: from.near(clock_s)? });
        }
        Ok(Self::Sketch(marks))
    }

    /// Gives those that are kept exactly other keys.
    pub(super) fn rename(&mut self, key_of: impl Fn(u32) -> u32) {
        if let Self::Exact(seen) = self {
            seen.iter_mut().for_each(|(key, _)| *key = key_of(*key));
        }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Exact(seen) => seen.capacity() * size_of::<(u32, u32)>(),
            Self::Sketch(marks) => marks.capacity() * size_of::<Mark>(),
        }
    }
}

/// Second and key that the entry `from_end` before the end probably has; else the second of the one before is nearest.
fn expected(near: &[(u32, u64)], from_end: usize, before_s: u32) -> (u32, u32) {
    near.len().checked_sub(from_end).map_or((before_s, 0), |i| (near[i].0, (near[i].1 >> 32) as u32))
}

/// Enters one use. A mark is dominated, and dropped, where another of its register is at least as high and at least as new.
fn mark(marks: &mut Vec<Mark>, key: u32, at_s: u32) {
    let register = (key % REGISTERS) as u8;
    // 24 bits are left for the rank; the sentinel bit bounds it at 25.
    let rank = ((key / REGISTERS) | 1 << 24).trailing_zeros() as u8 + 1;
    let begin = marks.partition_point(|m| m.register < register);
    let end = begin + marks[begin..].partition_point(|m| m.register == register);
    let mine = &marks[begin..end];
    if mine.iter().any(|m| m.rank >= rank && m.at_s >= at_s) {
        return;
    }
    let at = begin + mine.partition_point(|m| m.rank > rank);
    let dominated = marks[at..end].iter().take_while(|m| m.at_s <= at_s).count();
    match dominated {
        0 => marks.insert(at, Mark { register, rank, at_s }),
        n => {
            marks[at] = Mark { register, rank, at_s };
            marks.drain(at + 1..at + n);
        }
    }
}

fn estimate(marks: &[Mark], start_s: u32) -> u32 {
    let m = f64::from(REGISTERS);
    let (mut sum, mut filled, mut i) = (0.0, 0u32, 0);
    while i < marks.len() {
        let register = marks[i].register;
        let mut best = 0;
        while i < marks.len() && marks[i].register == register {
            if best == 0 && marks[i].at_s >= start_s {
                best = marks[i].rank;
            }
            i += 1;
        }
        if best > 0 {
            sum += (-f64::from(best)).exp2();
            filled += 1;
        }
    }
    let empty = REGISTERS - filled;
    let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / (sum + f64::from(empty));
    let few = raw <= 2.5 * m && empty > 0;
    (if few { m * (m / f64::from(empty)).ln() } else { raw }).round() as u32
}
