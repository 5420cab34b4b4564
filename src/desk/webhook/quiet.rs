//! Quiet hours: when a warning waits for the morning.

use jiff::civil::Time;
use serde::{Deserialize, Serialize};

use super::digest::{at_ms, time, utc, zone};

/// Hours of each day, by the clocks of a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuietHours {
    /// From and to, `22:00-07:00`; the end is not quiet any more. Over midnight where it ends before it begins.
    pub hours: String,
    /// Whose clocks, `Europe/Berlin`.
    #[serde(default = "utc")]
    pub zone: String,
}

impl QuietHours {
    /// Checks that both can be read.
    ///
    /// # Errors
    /// What would be right.
    pub fn check(&self) -> Result<(), &'static str> {
        zone(&self.zone)?;
        match self.times() {
            Some((from, to)) if from != to => Ok(()),
            _ => Err("hours must be two different times of the day, as `22:00-07:00`"),
        }
    }

    /// When they end, in Unix milliseconds, where `now_ms` lies within. `None` outside, or where the settings cannot be read.
    pub fn end_ms(&self, now_ms: i64) -> Option<i64> {
        let (from, to) = self.times()?;
        let zone = zone(&self.zone).ok()?;
        let now = zone.to_datetime(jiff::Timestamp::from_millisecond(now_ms).ok()?);
        let time = now.time();
        let quiet = if from < to { from <= time && time < to } else { from <= time || time < to };
        if !quiet {
            return None;
        }
        let day = if time < to { now.date() } else { now.date().tomorrow().ok()? };
        let end = at_ms(&zone, day, to)?;
        // In the second pass of an hour that comes twice, the first end is behind.
        (end > now_ms).then_some(end)
    }

    fn times(&self) -> Option<(Time, Time)> {
        let (from, to) = self.hours.split_once('-')?;
        Some((time(from)?, time(to)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hours: &str, zone: &str, now: &str, end: Option<&str>) {
        let ms = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
        let quiet = QuietHours { hours: hours.into(), zone: zone.into() };
        assert_eq!(quiet.check(), Ok(()));
        assert_eq!(quiet.end_ms(ms(now)), end.map(ms), "{hours} {zone} {now}");
    }

    #[test]
    fn they_end_by_the_clocks_of_their_zone() {
        check("22:00-07:00", "UTC", "2026-03-02T21:59:59Z", None);
        check("22:00-07:00", "UTC", "2026-03-02T22:00:00Z", Some("2026-03-03T07:00:00Z"));
        check("22:00-07:00", "UTC", "2026-03-03T06:59:59Z", Some("2026-03-03T07:00:00Z"));
        check("22:00-07:00", "UTC", "2026-03-03T07:00:00Z", None);
        check("12:00-13:00", "UTC", "2026-03-03T12:30:00Z", Some("2026-03-03T13:00:00Z"));
        check("22:00-07:00", "Europe/Berlin", "2026-07-01T20:00:00Z", Some("2026-07-02T05:00:00Z"));
        // The clocks go forward at 02:00 to 03:00, and back at 03:00 to 02:00.
        check("22:00-07:00", "Europe/Berlin", "2026-03-28T23:00:00Z", Some("2026-03-29T05:00:00Z"));
        check("22:00-02:30", "Europe/Berlin", "2026-03-29T00:30:00Z", Some("2026-03-29T01:30:00Z"));
        check("22:00-02:30", "Europe/Berlin", "2026-10-25T00:10:00Z", Some("2026-10-25T00:30:00Z"));
        check("22:00-02:30", "Europe/Berlin", "2026-10-25T01:10:00Z", None);
    }
}
