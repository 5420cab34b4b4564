//! Numbers, spans and foreign text as a person reads them.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use crate::event::Timestamp;

/// Longest foreign text shown, in characters.
const TEXT_CHARS_MAX: usize = 160;

/// `2,903`.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 message`, `2,903 messages`: an `s` makes the plural, unless the word says otherwise (`address`, `entry`).
pub(super) fn count(n: u64, one: &str) -> String {
    if n == 1 {
        return format!("1 {one}");
    }
    let many = match one.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if one.ends_with('s') => format!("{one}es"),
        _ => format!("{one}s"),
    };
    format!("{} {many}", number(n))
}

/// A measured value: whole numbers as such, others with two significant digits at least.
pub(super) fn value(x: f64) -> String {
    if !x.is_finite() {
        return "—".to_owned();
    }
    if x.abs() >= 99.5 || x.fract() == 0.0 {
        let sign = if x < 0.0 { "−" } else { "" };
        // In range: beyond 2^64 the cast saturates, which is as good as any wrong number.
        return format!("{sign}{}", number(x.abs().round() as u64));
    }
    let digits = if x.abs() >= 9.95 {
        1
    } else if x.abs() >= 0.095 {
        2
    } else {
        3
    };
    let text = format!("{x:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `15 s`, `2 min 5 s`, `3 h 12 min`, `2 d 4 h`: the two largest units.
pub(super) fn span(seconds: i64) -> String {
    let s = seconds.max(0);
    let (big, small) = match s {
        0..60 => return format!("{s} s"),
        60..3600 => ((s / 60, "min"), (s % 60, "s")),
        3600..86_400 => ((s / 3600, "h"), (s % 3600 / 60, "min")),
        _ => ((s / 86_400, "d"), (s % 86_400 / 3600, "h")),
    };
    if small.0 == 0 { format!("{} {}", big.0, big.1) } else { format!("{} {} {} {}", big.0, big.1, small.0, small.1) }
}

/// `1.4 MB`.
pub(super) fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut x = bytes as f64;
    let mut unit = "bytes";
    for name in units {
        if x < 1000.0 {
            break;
        }
        x /= 1000.0;
        unit = name;
    }
    if unit == "bytes" { count(bytes, "byte") } else { format!("{x:.1} {unit}") }
}

/// Foreign text with what cannot be seen made visible, and cut where it is too long.
///
/// Control characters and the marks that turn the direction of writing round could make a name look like another one;
/// some are not allowed in HTML at all.
pub(super) fn visible(text: &str) -> String {
    visible_up_to(text, TEXT_CHARS_MAX)
}

/// The same for a sentence.
pub(super) fn visible_long(text: &str) -> String {
    visible_up_to(text, 4 * TEXT_CHARS_MAX)
}

fn visible_up_to(text: &str, chars_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(4 * chars_max));
    for (i, c) in text.chars().enumerate() {
        if i == chars_max {
            let _ = write!(out, "… ({} characters)", number(text.chars().count() as u64));
            break;
        }
        if is_unseen(c) {
            let _ = write!(out, "⟨U+{:04X}⟩", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c),
            0xAD | 0x61C | 0x115F | 0x1160 | 0x180E | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F
            | 0x3164 | 0xFE00..=0xFE0F | 0xFEFF | 0xFFA0 | 0xFFF9..=0xFFFB | 0xFDD0..=0xFDEF
            | 0x1BCA0..=0x1BCA3 | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
        || u32::from(c) & 0xFFFE == 0xFFFE
}

/// Times in the log's zone.
#[derive(Debug)]
pub(super) struct Clock {
    zone: TimeZone,
    name: String,
}

impl Clock {
    /// The zone by its IANA name; UTC where there is none of that name.
    pub fn new(name: &str) -> Self {
        match TimeZone::get(name) {
            Ok(zone) => Self { zone, name: name.to_owned() },
            Err(_) => Self { zone: TimeZone::UTC, name: "UTC".to_owned() },
        }
    }

    /// The zone's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `2012-07-10 10:11:26`.
    pub fn full(&self, ts: Timestamp) -> String {
        self.format(ts, "%Y-%m-%d %H:%M:%S")
    }

    /// `10 July 2012`.
    pub fn date(&self, ts: Timestamp) -> String {
        self.format(ts, "%-d %B %Y")
    }

    /// `10:11:26`.
    pub fn time(&self, ts: Timestamp) -> String {
        self.format(ts, "%H:%M:%S")
    }

    /// `10:11`.
    pub fn minute(&self, ts: Timestamp) -> String {
        self.format(ts, "%H:%M")
    }

    /// `10 Jul`.
    pub fn day(&self, ts: Timestamp) -> String {
        self.format(ts, "%-d %b")
    }

    /// What the zone adds to UTC at that time, in seconds.
    pub fn offset_s(&self, ts: Timestamp) -> i64 {
        jiff::Timestamp::from_millisecond(ts.0).map_or(0, |t| i64::from(self.zone.to_offset(t).seconds()))
    }

    fn format(&self, ts: Timestamp, form: &str) -> String {
        match jiff::Timestamp::from_millisecond(ts.0) {
            Ok(t) => t.to_zoned_datetime(self.zone.clone()).strftime(form).to_string(),
            Err(_) => ts.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!(count(1, "network"), "1 network");
        assert_eq!(count(3, "address"), "3 addresses");
        assert_eq!(count(3, "query"), "3 queries");
        assert_eq!(count(3, "relay"), "3 relays");
        assert_eq!(value(31.0), "31");
        assert_eq!(value(1234.5), "1,235");
        assert_eq!(value(0.50), "0.5");
        assert_eq!(value(12.34), "12.3");
        assert_eq!(value(f64::NAN), "—");
        assert_eq!(span(15), "15 s");
        assert_eq!(span(120), "2 min");
        assert_eq!(span(3725), "1 h 2 min");
        assert_eq!(span(90_000), "1 d 1 h");
        assert_eq!(size(1), "1 byte");
        assert_eq!(size(1_400_000), "1.4 MB");
    }

    #[test]
    fn unseen_characters_are_shown() {
        assert_eq!(visible("a\u{202E}b\0\u{FEFF}"), "a⟨U+202E⟩b⟨U+0000⟩⟨U+FEFF⟩");
        assert_eq!(visible("почта@пример.рф"), "почта@пример.рф");
        let long = visible(&"x".repeat(10_240));
        assert!(long.ends_with("… (10,240 characters)"), "{long}");
    }
}
