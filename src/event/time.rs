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
        if let Some(ms) = common_form(text.as_bytes()) {
            return Ok(Self(ms));
        }
        let t: jiff::Timestamp = text.parse().map_err(|_| BadTime)?;
        Ok(Self(t.as_millisecond()))
    }
}

/// Reads `2026-03-02T08:14:05[.123][Z|+01:00]` from year 1970 on, which is how nearly every event says its time, at a
/// fraction of jiff's cost; every other form, and every wrong one, is jiff's to judge.
fn common_form(text: &[u8]) -> Option<i64> {
    let (date_time, rest) = text.split_at_checked(19)?;
    let [y1, y2, y3, y4, b'-', mo1, mo2, b'-', d1, d2, b'T', h1, h2, b':', mi1, mi2, b':', s1, s2] = *date_time else {
        return None;
    };
    let year = two(y1, y2)? * 100 + two(y3, y4)?;
    let (month, day, hour, minute, second) = (two(mo1, mo2)?, two(d1, d2)?, two(h1, h2)?, two(mi1, mi2)?, two(s1, s2)?);
    if !(1970..9999).contains(&year) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_since_1970(year, month, day)?;
    let (ms, zone) = fraction(rest)?;
    let offset_s = match *zone {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if sign == b'+' { 1 } else { -1 }
        }
        _ => return None,
    };
    Some((days * 86_400 + hour * 3600 + minute * 60 + second - offset_s) * 1000 + ms).filter(|&ms| ms >= 0)
}

fn two(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

/// Milliseconds of the fraction, finer digits cut off; and what follows it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".") else { return Some((0, text)) };
    let n = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=9).contains(&n) {
        return None;
    }
    let ms = (0..3).fold(0, |ms, i| ms * 10 + if i < n { i64::from(digits[i] - b'0') } else { 0 });
    Some((ms, &digits[n..]))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; `None` where there is no such date.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_of_month).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the leap day is the last one.
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
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
