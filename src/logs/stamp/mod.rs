//! The time at the head of a syslog line: RFC 3164 without a year, or RFC 3339 and its relatives.
//!
//! One [`Stamper`] reads one file, in order. What RFC 3164 leaves out is assumed, and said in [`Stamper::assumed`]:
//! the year (see [`Assumed`]) and the zone, which is always the caller's, never the machine's.

mod year;

pub use year::{Assumed, NameDate};

use crate::event::Timestamp;
use jiff::civil;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use year::Years;

/// How far a line may lie behind the newest one before, in the repeated autumn hour, it is taken for the second
/// pass: lines of concurrent processes are logged out of order by seconds, not by minutes.
const DISORDER_MS: i64 = 60_000;

/// What is known of a file before its first line is read.
#[derive(Debug, Clone)]
pub struct StampOptions<'a> {
    /// The year of the file's first line, where somebody said so.
    pub year: Option<i16>,
    /// The zone of stamps that name none.
    pub zone: TimeZone,
    /// The file's name; a date in it tells the year.
    pub file_name: Option<&'a str>,
    /// When the file was last written to.
    pub modified: Option<Timestamp>,
}

impl Default for StampOptions<'_> {
    fn default() -> Self {
        Self { year: None, zone: TimeZone::UTC, file_name: None, modified: None }
    }
}

/// Reads the stamps of one file.
#[derive(Debug, Clone)]
pub struct Stamper {
    zone: TimeZone,
    years: Years,
    /// The largest stamp so far: within a file time goes on.
    newest: Option<i64>,
    /// The text of the last minute without a year, and when it began.
    minute: ([u8; 12], i64),
    /// The text of the last minute with a year, when it began in UTC and in the zone.
    iso_minute: ([u8; 16], i64, Option<i64>),
    iso_seen: bool,
}

impl Stamper {
    /// A stamper for one file.
    pub fn new(options: StampOptions<'_>) -> Self {
        let years = Years::new(options.year, options.file_name, options.modified, &options.zone);
        Self {
            zone: options.zone,
            years,
            newest: None,
            minute: ([0; 12], 0),
            iso_minute: ([0; 16], 0, None),
            iso_seen: false,
        }
    }

    /// The year that was assumed for the first line and where it is from; `None` while no stamp without a year
    /// has been read.
    pub fn assumed(&self) -> Option<Assumed> {
        self.years.assumed()
    }

    /// Whether stamps with a year were read.
    pub fn iso_seen(&self) -> bool {
        self.iso_seen
    }

    /// Reads the stamp of the next line: when, and where in the line the host's name begins. `None` where the line
    /// does not begin with a stamp.
    pub fn stamp(&mut self, line: &[u8]) -> Option<(Timestamp, usize)> {
        let skipped = priority_len(line);
        let head = &line[skipped..];
        let (ms, len) = match head.first()? {
            b'0'..=b'9' => self.iso(head)?,
            _ => self.rfc3164(head)?,
        };
        if self.newest.is_none_or(|n| n < ms) {
            self.newest = Some(ms);
        }
        let spaces = head[len..].iter().take_while(|b| **b == b' ').count();
        Some((Timestamp(ms), skipped + len + spaces))
    }

    /// `Jul 10 10:09:03 `, `Jul  1 10:09:03 `.
    fn rfc3164(&mut self, head: &[u8]) -> Option<(i64, usize)> {
        let minute = head.first_chunk::<12>()?;
        if head.get(12) != Some(&b':') || head.get(15).is_some_and(|b| *b != b' ') {
            return None;
        }
        let second = two_digits(head.get(13..15)?)?;
        if second > 60 {
            return None;
        }
        if *minute != self.minute.0 {
            self.minute = (*minute, self.begin_of(minute)?);
        }
        Some((self.minute.1 + i64::from(second) * 1000, 15))
    }

    /// When a minute without a year began.
    fn begin_of(&mut self, text: &[u8; 12]) -> Option<i64> {
        let month = month(text.first_chunk::<3>()?)?;
        let day = match text[4] {
            b' ' => two_digits(&[b'0', text[5]])?,
            _ => two_digits(&text[4..6])?,
        };
        if text[3] != b' ' || text[6] != b' ' || text[9] != b':' {
            return None;
        }
        let time = civil::Time::new(two_digits(&text[7..9])?, two_digits(&text[10..12])?, 0, 0).ok()?;
        let civil = self.years.place(month, day, time)?;
        Some(self.instant(civil))
    }

    /// `2024-01-02T03:04:05`, with or without a fraction and an offset.
    fn iso(&mut self, head: &[u8]) -> Option<(i64, usize)> {
        let minute = head.first_chunk::<16>()?;
        if head.get(16) != Some(&b':') {
            return None;
        }
        let second = two_digits(head.get(17..19)?)?;
        if second > 60 {
            return None;
        }
        if *minute != self.iso_minute.0 {
            self.iso_minute = (*minute, utc_ms(iso_civil(minute)?)?, None);
        }
        let (fraction_ms, mut len) = fraction(head, 19);
        let (offset, offset_len) = offset(&head[len..])?;
        len += offset_len;
        let begin = match offset {
            Some(seconds) => self.iso_minute.1 - seconds * 1000,
            None => match self.iso_minute.2 {
                Some(begin) => begin,
                None => {
                    let begin = self.instant(iso_civil(minute)?);
                    self.iso_minute.2 = Some(begin);
                    begin
                }
            },
        };
        self.iso_seen = true;
        Some((begin + i64::from(second) * 1000 + fraction_ms, len))
    }

    /// When it was `civil` in the zone. Where the clock was put back and the hour comes twice, the first pass is
    /// taken unless the file has already gone on beyond it. A time that the clock jumped over is read with the
    /// offset before the jump.
    fn instant(&self, civil: civil::DateTime) -> i64 {
        let ms = |offset: Offset| utc_ms(civil).unwrap_or(0) - i64::from(offset.seconds()) * 1000;
        match self.zone.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => ms(offset),
            AmbiguousOffset::Gap { before, .. } => ms(before),
            AmbiguousOffset::Fold { before, after } => {
                // The minute may have begun up to a minute before a line of the same minute.
                let gone_on = self.newest.is_some_and(|newest| ms(before) + 60_000 < newest - DISORDER_MS);
                if gone_on { ms(after) } else { ms(before) }
            }
        }
    }
}

/// The length of a syslog priority (`<22>`) at the head of a line.
fn priority_len(line: &[u8]) -> usize {
    if line.first() != Some(&b'<') {
        return 0;
    }
    let digits = line[1..].iter().take(4).take_while(|b| b.is_ascii_digit()).count();
    let closed = (1..=3).contains(&digits) && line.get(digits + 1) == Some(&b'>');
    if closed { digits + 2 } else { 0 }
}

fn two_digits(text: &[u8]) -> Option<i8> {
    match text {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(((a - b'0') * 10 + (b - b'0')) as i8),
        _ => None,
    }
}

fn month(name: &[u8; 3]) -> Option<i8> {
    const NAMES: &[&[u8; 3]; 12] =
        &[b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
    NAMES.iter().position(|n| *n == name).map(|i| i as i8 + 1)
}

fn iso_civil(text: &[u8; 16]) -> Option<civil::DateTime> {
    let separated = text[4] == b'-' && text[7] == b'-' && matches!(text[10], b'T' | b't' | b' ') && text[13] == b':';
    if !separated {
        return None;
    }
    let year = i16::from(two_digits(&text[..2])?) * 100 + i16::from(two_digits(&text[2..4])?);
    let [month, day, hour, minute] =
        [two_digits(&text[5..7])?, two_digits(&text[8..10])?, two_digits(&text[11..13])?, two_digits(&text[14..16])?];
    civil::DateTime::new(year, month, day, hour, minute, 0, 0).ok()
}

/// Milliseconds since 1970 if the civil time were UTC.
fn utc_ms(civil: civil::DateTime) -> Option<i64> {
    Some(Offset::UTC.to_timestamp(civil).ok()?.as_millisecond())
}

/// A fraction of a second (`.123456`) at `at`, in milliseconds, rounded down; and where it ends.
fn fraction(head: &[u8], at: usize) -> (i64, usize) {
    if !matches!(head.get(at), Some(b'.' | b',')) {
        return (0, at);
    }
    let digits = head[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut ms = 0;
    for i in 0..3 {
        ms = ms * 10 + if i < digits { i64::from(head[at + 1 + i] - b'0') } else { 0 };
    }
    (ms, at + 1 + digits)
}

/// The offset from UTC in seconds (`Z`, `+01:00`, `-0500`, `+01`), where there is one, and its length. `None` where
/// something else than an offset or a space follows.
fn offset(text: &[u8]) -> Option<(Option<i64>, usize)> {
    let sign = match text.first() {
        None | Some(b' ') => return Some((None, 0)),
        Some(b'Z' | b'z') => return Some((Some(0), 1)),
        Some(b'+') => 1,
        Some(b'-') => -1,
        Some(_) => return None,
    };
    let hours = i64::from(two_digits(text.get(1..3)?)?);
    let (minutes, len) = match text.get(3) {
        Some(b':') => (two_digits(text.get(4..6)?)?, 6),
        Some(b'0'..=b'9') => (two_digits(text.get(3..5)?)?, 5),
        _ => (0, 3),
    };
    Some((Some(sign * (hours * 3600 + i64::from(minutes) * 60)), len))
}

#[cfg(test)]
mod tests;
