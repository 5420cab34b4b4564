//! What is normal for one account: daily rates, the share of refusals, how often its client network changes.
//!
//! Posteriors are conjugate: counts a day have a gamma-Poisson posterior, refusals a beta-binomial one. The prior is the
//! fleet's, from the configuration; the memory is capped near a week and divided by the over-dispersion of real accounts, so
//! that the tail stays heavy; what a day may teach is clamped, so that a burst does not.

use serde::Deserialize;

use super::codec::{Input, Unreadable, put, put_near};
use super::policy::Prior;
use super::tail;
use super::window::{Counters, UNIT};

/// Seconds in a day.
pub const DAY_S: u32 = 86_400;

/// A gamma posterior of a daily rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Shape.
    pub shape: f64,
    /// Rate, in days.
    pub days: f64,
}

impl Rate {
    /// The expected count in an exposure of `w` days.
    pub fn mean(self, w: f64) -> f64 {
        self.shape / self.days * w
    }

    /// At least [`Rate::surprise`], and cheaper.
    pub fn surprise_bound(self, n: f64, w: f64) -> f64 {
        if self.is_usual(n, w) { 0.0 } else { tail::gamma_poisson_bound(n, w, self.shape, self.days) }
    }

    /// Whether `n` lies within a standard deviation of the mean, or below.
    fn is_usual(self, n: f64, w: f64) -> bool {
        let mean = self.mean(w);
        let deviation_squared = mean * (1.0 + w / self.days);
        n <= mean || (n - mean) * (n - mean) <= deviation_squared
    }

    /// Surprise of at least `n` in an exposure of `w` days, in decades. What lies within a standard deviation of the mean is none:
    /// that is less than a decade, and nearly all days, which then cost no tail probability.
    pub fn surprise(self, n: f64, w: f64) -> f64 {
        if self.is_usual(n, w) { 0.0 } else { tail::gamma_poisson(n, w, self.shape, self.days) }
    }

    /// What would have been as surprising as `decades` in an exposure of `w` days.
    pub fn limit(self, decades: f64, w: f64) -> f64 {
        tail::gamma_poisson_limit(decades, w, self.shape, self.days)
    }
}

/// How far a finished day is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teaches {
    /// The day saw a critical incident.
    Critical,
    /// Any other day.
    Clamped,
    /// A day of an account of which nobody can say whether it is new.
    Freely,
}

/// What one account taught so far. Days are UTC days of its own clock.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Baseline {
    /// The day that `today` counts, in days since 1970; 0 before the first event.
    day: u32,
    today: Counters,
    /// A client network first seen today.
    foreign_today: bool,
    /// A critical incident that ended today.
    critical_today: bool,
    /// Decayed sums of damped new recipients and of damped recipients, and the decayed number of days.
    new_sum: f32,
    volume_sum: f32,
    days: f32,
    /// Decayed sums of refusals and answers; they fade by active days.
    refused_sum: f32,
    answered_sum: f32,
    /// Days with at least one message.
    pub active_days: u16,
    /// Of them, days with a client network never seen before.
    pub foreign_days: u16,
}

impl Baseline {
    /// Whether the day of `now_s` is not the one that is counted.
    pub fn is_before(&self, now_s: u32) -> bool {
        now_s / DAY_S > self.day
    }

    /// Moves to the day of `now_s`, learning what lies behind.
    pub fn roll(&mut self, now_s: u32, prior: &Prior, teaches: Teaches) {
        let day = now_s / DAY_S;
        if day <= self.day {
            return;
        }
        if self.day > 0 {
            let teaches = if self.critical_today { Teaches::Critical } else { teaches };
            self.learn(day - self.day, prior, teaches);
        }
        self.day = day;
    }

    /// Learns the finished day, and `days - 1` idle ones after it.
    fn learn(&mut self, days: u32, prior: &Prior, teaches: Teaches) {
        let keep = (1.0 - 1.0 / prior.memory_days) as f32;
        let (new, volume) = (f64::from(self.today.new_damped) / UNIT, f64::from(self.today.volume) / UNIT);
        // What a day may teach: what would have been a surprise of `clamp_decades`, on the day of a critical burst of half as
        // many. Not nothing: an account that was flagged wrongly must be able to teach its new habits, or it is flagged for ever.
        // While nobody can say whether the account is new, everything short of a critical burst teaches.
        let decades = match teaches {
            Teaches::Critical => prior.clamp_decades / 2.0,
            Teaches::Clamped => prior.clamp_decades,
            Teaches::Freely => f64::INFINITY,
        };
        let clamp = |rate: Rate, seen: f64| {
            // The inverse is dear; nearly always the day is no surprise.
            if rate.surprise(seen, 1.0) <= decades { seen } else { rate.limit(decades, 1.0).min(seen) }
        };
        let new = if new > 0.0 { clamp(self.new_rate(prior), new) } else { 0.0 };
        let volume = if volume > 0.0 { clamp(self.volume_rate(prior), volume) } else { 0.0 };
        let fade = keep.powi(days.min(10_000) as i32 - 1);
        self.new_sum = (self.new_sum * keep + new as f32) * fade;
        self.volume_sum = (self.volume_sum * keep + volume as f32) * fade;
        self.days = (self.days * keep + 1.0) * fade + (1.0 - fade) * prior.memory_days as f32;
        if self.today.messages > 0 || self.today.answered > 0 {
            let keep = (1.0 - 1.0 / prior.refusal_memory_days) as f32;
            let (refused, answered) = (self.today.refused_quarters as f32 / 4.0, self.today.answered as f32);
            // A big day speaks for no more than `answers_max`, and a burst for nothing.
            let share = if teaches == Teaches::Critical {
                0.0
            } else {
                (prior.answers_max as f32 / answered.max(1.0)).min(1.0)
            };
            self.refused_sum = self.refused_sum * keep + refused * share;
            self.answered_sum = self.answered_sum * keep + answered * share;
        }
        if self.today.messages > 0 {
            self.active_days = self.active_days.saturating_add(1);
            self.foreign_days = self.foreign_days.saturating_add(u16::from(self.foreign_today));
        }
        self.today = Counters::default();
        self.foreign_today = false;
        self.critical_today = false;
    }

    /// What the days before the current one have taught.
    #[must_use]
    pub(super) fn without_today(&self) -> Self {
        Self { today: Counters::default(), foreign_today: false, critical_today: false, ..self.clone() }
    }

    /// The same, as if nothing had happened since: its current day is that of `now_s`, and holds nothing yet.
    #[must_use]
    pub(super) fn on_day_of(&self, now_s: u32) -> Self {
        Self { day: now_s / DAY_S, ..self.without_today() }
    }

    /// The same past, with the current day of `own`, which is that of an account that goes on with it. A day that both have
    /// counted is one.
    #[must_use]
    pub(super) fn going_on(mut self, own: &Self) -> Self {
        let mut today = own.today;
        if self.day == own.day {
            today.add(&self.today);
        } else {
            (self.foreign_today, self.critical_today) = (false, false);
        }
        Self {
            day: own.day,
            today,
            foreign_today: own.foreign_today || self.foreign_today,
            critical_today: own.critical_today || self.critical_today,
            ..self
        }
    }

    /// Counts into the current day.
    pub fn count(&mut self, what: &Counters) {
        self.today.add(what);
    }

    /// A critical incident was cleared: the current day has seen it, although it is not open any more when the day is learned.
    pub fn note_critical(&mut self) {
        self.critical_today = true;
    }

    /// A client network was seen for the first time.
    pub fn note_foreign(&mut self) {
        self.foreign_today = true;
    }

    pub(super) fn pack(&self, out: &mut Vec<u8>, clock_s: u32) {
        put_near(out, self.day, clock_s / DAY_S);
        self.today.pack(out, u8::from(self.foreign_today) | u8::from(self.critical_today) << 1);
        for sum in [self.new_sum, self.volume_sum, self.days, self.refused_sum, self.answered_sum] {
            out.extend_from_slice(&sum.to_le_bytes());
        }
        put(out, self.active_days);
        put(out, self.foreign_days);
    }

    pub(super) fn unpack(from: &mut Input<'_>, clock_s: u32) -> Result<Self, Unreadable> {
        let day = from.near(clock_s / DAY_S)?;
        let (today, flags) = Counters::unpack(from)?;
        Ok(Self {
            day,
            today,
            foreign_today: flags & 1 != 0,
            critical_today: flags & 2 != 0,
            new_sum: from.f32()?,
            volume_sum: from.f32()?,
            days: from.f32()?,
            refused_sum: from.f32()?,
            answered_sum: from.f32()?,
            active_days: from.u32()?.try_into().map_err(|_| Unreadable("too many days"))?,
            foreign_days: from.u32()?.try_into().map_err(|_| Unreadable("too many days"))?,
        })
    }

    /// The daily rate of damped new recipients.
    pub fn new_rate(&self, prior: &Prior) -> Rate {
        prior.new_recipients.posterior(f64::from(self.new_sum), f64::from(self.days))
    }

    /// The daily rate of damped recipients, known or not.
    pub fn volume_rate(&self, prior: &Prior) -> Rate {
        prior.volume.posterior(f64::from(self.volume_sum), f64::from(self.days))
    }

    /// The Beta posterior (alpha, beta) of the share of refusals.
    pub fn refusals(&self, prior: &Prior) -> (f64, f64) {
        let (refused, answered) = (f64::from(self.refused_sum), f64::from(self.answered_sum));
        let (alpha, beta) = (prior.refused + refused, prior.accepted + (answered - refused).max(0.0));
        // However much was answered, strangers are refused more often than friends: the posterior stays as wide as this.
        let scale = (prior.answers_known_max / (alpha + beta)).min(1.0);
        (alpha * scale, beta * scale)
    }

    /// The probability that a day brings a client network never seen before.
    pub fn foreign_probability(&self, prior: &Prior) -> f64 {
        (f64::from(self.foreign_days) + prior.foreign_days) / (f64::from(self.active_days) + prior.active_days)
    }
}
