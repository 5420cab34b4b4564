//! What every kind of test needs: other people's data, and numbers that are the same every time.

#![allow(dead_code, reason = "shared by tests that each need a part")]

use std::path::PathBuf;

/// A file of the shared data. Where it is missing the test fails under CI and is skipped elsewhere.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")).join(name);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}

/// A small generator: the same numbers every time (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 where there is none.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// A time within so many seconds, in milliseconds.
    pub fn ms(&mut self, seconds: i64) -> i64 {
        self.below(seconds.unsigned_abs() * 1000) as i64
    }
}
