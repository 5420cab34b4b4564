//! The year that RFC 3164 leaves out.
//!
//! The first line of a file gets its year from what is known of the file, every later one from the lines before it:
//! time goes on, so December followed by January moves the year on, once, however the lines around midnight are
//! mixed.

use crate::event::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;

/// How far behind the newest line a stamp is still taken for disorder, in days.
const BACK_DAYS: i32 = 31;

/// How far ahead a stamp may lie through the turn of the year, in days. A stamp that is neither a little behind nor
/// this near ahead (one line of a machine whose clock was not set yet) does not move the year.
const AHEAD_DAYS: i32 = 92;

/// The year of a file without any hint. It is a leap year, so that every date exists.
const NO_HINT: i16 = 2000;

/// What year was assumed for a file's first stamp without one, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assumed {
    /// As the user said: the year of each file's *first* line.
    Given(i16),
    /// From the date in the file's name. Logs are named for the day they cover or for the day they were put aside,
    /// so it is taken as the *end* of the log: the first line gets the last year that puts it before.
    FileName(i16, NameDate),
    /// From the time the file was last written to, the end of the log likewise.
    Modified(i16),
    /// Nothing was known of the file.
    Nothing(i16),
}

impl Assumed {
    /// The year of the first stamp.
    pub fn year(self) -> i16 {
        match self {
            Self::Given(year) | Self::FileName(year, _) | Self::Modified(year) | Self::Nothing(year) => year,
        }
    }
}

/// A date in a file's name, as much of it as there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameDate {
    /// Year, 1990 to 2099.
    pub year: i16,
    /// Month.
    pub month: Option<i8>,
    /// Day; only beside a month.
    pub day: Option<i8>,
}

impl NameDate {
    /// Finds a date in a file's name: `mail-2012-07-10.log`, `maillog.20120710`, `mail.log-201207`, `mail-2012.gz`.
    /// The fullest date wins, among equals the last. Digits that are part of a longer number are no date, unless the
    /// number begins with a date and goes on with a time (`20120710123000`).
    pub fn find(name: &str) -> Option<Self> {
        let name = name.rsplit(['/', '\\']).next()?.as_bytes();
        let starts = (0..name.len()).filter(|i| *i == 0 || !name[i - 1].is_ascii_digit());
        starts.filter_map(|i| Self::at(&name[i..])).max_by_key(|d| (d.month.is_some(), d.day.is_some()))
    }

    fn at(text: &[u8]) -> Option<Self> {
        let (year, rest) = number(text, 4)?;
        let year = i16::try_from(year).ok().filter(|y| (1990..2100).contains(y))?;
        let end = |rest: &[u8]| !rest.first().is_some_and(u8::is_ascii_digit);
        let (separator, rest) = match rest {
            [s @ (b'-' | b'_' | b'.'), tail @ ..] => (Some(*s), tail),
            _ => (None, rest),
        };
        let month = number(rest, 2).filter(|(m, _)| (1..=12).contains(m));
        let Some((month, rest)) = month.filter(|(_, r)| separator.is_none() || end(r)) else {
            // Without a separator more digits follow the year: some other number.
            return (separator.is_some() || end(rest)).then_some(Self { year, month: None, day: None });
        };
        let month = month as i8;
        let month_only = Self { year, month: Some(month), day: None };
        let after = match (separator, rest) {
            (Some(s), [t, tail @ ..]) if *t == s => tail,
            (Some(_), _) => return Some(month_only),
            (None, _) => rest,
        };
        match number(after, 2) {
            Some((day, rest)) if civil::Date::new(year, month, day as i8).is_ok() => {
                let time_follows = separator.is_none() && matches!(digits(rest), 4 | 6);
                (end(rest) || time_follows).then_some(Self { year, month: Some(month), day: Some(day as i8) })
            }
            _ => end(after).then_some(month_only),
        }
    }

    /// The last moment that a log of this name can reach. A whole date may lie a little before midnight's rotation.
    fn end(self) -> Option<civil::DateTime> {
        let month = self.month.unwrap_or(12);
        match self.day {
            Some(day) => Some(civil::Date::new(self.year, month, day).ok()?.tomorrow().ok()?.at(1, 0, 0, 0)),
            None => Some(civil::Date::new(self.year, month, 1).ok()?.last_of_month().at(23, 59, 59, 0)),
        }
    }
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// Exactly `len` digits, and what follows.
fn number(text: &[u8], len: usize) -> Option<(u32, &[u8])> {
    let (head, rest) = text.split_at_checked(len)?;
    let value = head.iter().try_fold(0, |v, b| b.is_ascii_digit().then(|| v * 10 + u32::from(b - b'0')))?;
    Some((value, rest))
}

#[derive(Debug, Clone)]
enum Hint {
    Given(i16),
    FileName(NameDate, civil::DateTime),
    Modified(civil::DateTime),
    Nothing,
}

/// Gives stamps their year.
#[derive(Debug, Clone)]
pub(super) struct Years {
    hint: Hint,
    assumed: Option<Assumed>,
    newest: Option<civil::Date>,
    /// The line before lay far ahead: one such line is a wrong clock, two are time that went on.
    far: bool,
}

impl Years {
    pub(super) fn new(
        year: Option<i16>,
        file_name: Option<&str>,
        modified: Option<Timestamp>,
        zone: &TimeZone,
    ) -> Self {
        let named = || NameDate::find(file_name?).and_then(|d| Some(Hint::FileName(d, d.end()?)));
        let written = || {
            // A day of grace: the zone of the stamps may be another than the caller thinks.
            let end = jiff::Timestamp::from_millisecond(modified?.0.checked_add(86_400_000)?).ok()?;
            Some(Hint::Modified(zone.to_datetime(end)))
        };
        let hint = year.map(Hint::Given).or_else(named).or_else(written).unwrap_or(Hint::Nothing);
        Self { hint, assumed: None, newest: None, far: false }
    }

    pub(super) fn assumed(&self) -> Option<Assumed> {
        self.assumed
    }

    /// The whole date and time of the next line. `None` where there is no such day in its year.
    pub(super) fn place(&mut self, month: i8, day: i8, time: civil::Time) -> Option<civil::DateTime> {
        let Some(newest) = self.newest else {
            let assumed = self.first(month, day, time)?;
            let date = civil::Date::new(assumed.year(), month, day).ok()?;
            self.assumed = Some(assumed);
            self.newest = Some(date);
            return Some(date.to_datetime(time));
        };
        let in_year = |year: i16| civil::Date::new(year, month, day).ok();
        let days_ahead = |date: civil::Date| (date - newest).get_days();
        let year = newest.year();
        let behind = in_year(year - 1).filter(|d| (-BACK_DAYS..0).contains(&days_ahead(*d)));
        let ahead = in_year(year + 1).filter(|d| (0..=AHEAD_DAYS).contains(&days_ahead(*d)));
        let same = in_year(year);
        let date = match same {
            Some(same) if days_ahead(same) > AHEAD_DAYS => behind.unwrap_or(same),
            Some(same) if days_ahead(same) < -BACK_DAYS => ahead.unwrap_or(same),
            same => same.or(ahead)?,
        };
        let far = days_ahead(date) > AHEAD_DAYS;
        if date > newest && (!far || self.far) {
            self.newest = Some(date);
        }
        self.far = far;
        Some(date.to_datetime(time))
    }

    fn first(&self, month: i8, day: i8, time: civil::Time) -> Option<Assumed> {
        let last_before = |end: civil::DateTime| {
            // Eight years hold a 29th of February, around 1900 and 2100 too.
            let years = (0..=8).map(|back| end.year() - back);
            years
                .into_iter()
                .find(|year| civil::Date::new(*year, month, day).is_ok_and(|date| date.to_datetime(time) <= end))
        };
        match self.hint {
            Hint::Given(year) => Some(Assumed::Given(year)),
            Hint::FileName(date, end) => Some(Assumed::FileName(last_before(end)?, date)),
            Hint::Modified(end) => Some(Assumed::Modified(last_before(end)?)),
            Hint::Nothing => Some(Assumed::Nothing(NO_HINT)),
        }
    }
}
