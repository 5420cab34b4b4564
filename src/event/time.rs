//! Event time: milliseconds since 1970-01-01T00:00:00Z, and its two written forms.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Integers that are milliseconds: 2001 to 2286. Written in seconds, 13 digits would be after year 33,000.
const MS_OF_13_DIGITS: Range<u64> = 1_000_000_000_000..10_000_000_000_000;
/// The last time that can be written: 9999-12-30T22:00:00.999Z, jiff's bound.
const LAST_MS: u64 = 253_402_207_200_999;

/// Event time in milliseconds since 1970-01-01T00:00:00Z.
///
/// Written as RFC 3339 with milliseconds in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// The text is no time that this program can represent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time")]
pub struct BadTime;

impl Timestamp {
    /// Seconds since 1970, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Reads Unix time from an integer: seconds, or milliseconds where it has 13 digits. `None` behind what can be written.
    pub fn from_unix_integer(n: u64) -> Option<Self> {
        let ms = if (MS_OF_13_DIGITS).contains(&n) { n } else { n.checked_mul(1000).filter(|&ms| ms <= LAST_MS)? };
        i64::try_from(ms).ok().map(Self)
    }

    /// Reads Unix time from a number that was not written as an integer.
    ///
    /// A binary fraction is near the decimal one that was written, to either side: it is rounded to the microsecond, which
    /// at today's times it still resolves, and then, as the RFC 3339 form is, cut to the millisecond.
    pub fn from_unix_number(x: f64) -> Option<Self> {
        if x.fract() == 0.0 && (0.0..1e14).contains(&x) {
            return Self::from_unix_integer(x as u64);
        }
        (0.0..1e12)
            .contains(&x)
            .then(|| (x * 1e6).round() as u64 / 1000)
            .filter(|&ms| ms <= LAST_MS)
            .and_then(|ms| i64::try_from(ms).ok().map(Self))
    }

    /// Whether an event can have happened then: not before 1970 in any zone.
    pub(crate) fn is_plausible(self) -> bool {
        self.0 >= -86_400_000
    }

    /// Reads an RFC 3339 time.
    ///
    /// # Errors
    /// Where `text` is no such time, or one outside years 0 to 9999.
    pub fn parse(text: &str) -> Result<Self, BadTime> {
        let t: jiff::Timestamp = text.parse().map_err(|_| BadTime)?;
        Ok(Self(t.as_millisecond()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(t) => write!(f, "{t:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
