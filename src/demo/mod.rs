//! A generated mail provider, for showing what mailfuse does without anybody's mail: some thousand customers with their habits,
//! shops, newsletters, guessers of passwords, and one account that is hijacked.
//!
//! Pure: no clock and no chance. The same plan gives the same events, in the order of their times. Event time is the
//! provider's own: who wants to see it live sends the events as fast as they like.

mod dice;
mod habits;
mod hijack;
mod names;
mod write;

use std::vec::IntoIter;

use crate::event::{Event, Timestamp};
use dice::Dice;
use habits::{Account, Use};
use write::Day;

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// Events that a person's message makes: itself, its answers, its share of the log-in.
const EVENTS_OF_MESSAGE: f64 = 2.6;
/// The share of all events that people make; the rest is of shops, newsletters and guessers.
const SHARE_OF_PEOPLE: f64 = 0.8;
/// Guessed passwords a day.
const GUESSES: u64 = 40;

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Another one is another provider.
    pub seed: u64,
    /// Customers.
    pub accounts: u32,
    /// The moment up to which there is history.
    pub start: Timestamp,
    /// Whole days before the day of `start` with which the events begin.
    pub history_days: u32,
    /// About how many events there are on a working day.
    pub events_per_day: u32,
    /// Whether and when somebody steals a password.
    pub hijack: Option<Hijack>,
}

/// A hijack of one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hijack {
    /// When it begins, after the plan's start, in seconds.
    pub after_s: u32,
    /// How many messages are sent at most, where nobody stops them: some 40 a minute.
    pub messages: u32,
}

impl Plan {
    /// Some 400,000 events of 14 days' history, and a hijack 40 minutes after `start`.
    pub fn new(seed: u64, start: Timestamp) -> Self {
        let hijack = Some(Hijack { after_s: 2400, messages: 400 });
        Self { seed, accounts: 3000, start, history_days: 14, events_per_day: 36_000, hijack }
    }
}

/// The provider: its events in the order of their times, without end.
#[derive(Debug)]
pub struct Provider {
    plan: Plan,
    accounts: Vec<Account>,
    /// Index of the account whose password is stolen.
    victim: Option<usize>,
    /// The day that is next to be made.
    next_day: i64,
    ready: IntoIter<Event<'static>>,
    /// What happens after the midnight of the days that were made.
    later: Vec<Event<'static>>,
}

impl Provider {
    /// Opens for business.
    pub fn new(plan: Plan) -> Self {
        let people = f64::from(plan.accounts.max(1)) * 0.977;
        let mean = f64::from(plan.events_per_day) * SHARE_OF_PEOPLE / people / EVENTS_OF_MESSAGE;
        let accounts: Vec<Account> =
            (0..u64::from(plan.accounts)).map(|number| Account::new(plan.seed, number, mean)).collect();
        let people: Vec<usize> = (0..accounts.len()).filter(|&i| accounts[i].used == Use::Person).collect();
        let mut dice = Dice::of(&[plan.seed, 7]);
        let victim = plan.hijack.and_then(|_| people.get(dice.below(people.len() as u64) as usize).copied());
        let next_day = plan.start.0.div_euclid(DAY_MS) - i64::from(plan.history_days);
        Self { plan, accounts, victim, next_day, ready: Vec::new().into_iter(), later: Vec::new() }
    }

    /// The account that is hijacked.
    pub fn victim(&self) -> Option<&str> {
        self.victim.map(|i| self.accounts[i].name.as_str())
    }

    /// The names of all accounts.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        self.accounts.iter().map(|a| a.name.as_str())
    }

    /// When the hijack begins.
    pub fn hijacked_at(&self) -> Option<Timestamp> {
        self.plan.hijack.map(|hijack| Timestamp(self.plan.start.0 + i64::from(hijack.after_s) * 1000))
    }

    fn make_day(&mut self) {
        let seed = self.plan.seed;
        let mut day = Day::new(self.next_day);
        self.next_day += 1;
        day.events.append(&mut self.later);
        for account in &self.accounts {
            account.day(seed, &mut day);
        }
        let mut dice = Dice::of(&[seed, 8, day.number as u64]);
        for _ in 0..GUESSES {
            let (at_ms, which) = (dice.below(DAY_MS as u64), dice.next());
            day.guess(at_ms, names::abroad(which, &mut dice));
        }
        if let (Some(hijack), Some(begin), Some(victim)) = (self.plan.hijack, self.hijacked_at(), self.victim) {
            hijack::day(seed, hijack, &self.accounts[victim].name, begin.0, &mut day);
        }
        let midnight = Timestamp(self.next_day * DAY_MS);
        let (today, later) = day.events.into_iter().partition::<Vec<_>, _>(|event| event.ts < midnight);
        let mut today = today;
        // Stable, so that those of one moment stay in the order in which they were made.
        today.sort_by_key(|event| event.ts);
        self.later = later;
        self.ready = today.into_iter();
    }
}

impl Iterator for Provider {
    type Item = Event<'static>;

    fn next(&mut self) -> Option<Event<'static>> {
        // A day without an event is possible where there is no account; guessers come every day.
        loop {
            if let Some(event) = self.ready.next() {
                return Some(event);
            }
            self.make_day();
        }
    }
}
