//! What each account does on a day: people, shops and newsletters.

use super::dice::Dice;
use super::names;
use super::write::{Answer, Day, Message};

/// Hours of the day by how much mail people write in them, of a hundred.
const HOURS: [u8; 24] = [0, 0, 0, 0, 0, 0, 1, 4, 9, 12, 12, 10, 6, 7, 10, 10, 8, 5, 2, 1, 1, 1, 1, 0];
/// A day off has this share of a working day's mail.
const DAY_OFF: f64 = 0.12;

/// What an account is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A person who writes to people.
    Person,
    /// Confirms orders, to somebody else each time.
    Shop,
    /// Writes to its subscribers, every third day.
    Newsletter,
}

/// An account and its habits. Everything else about it is drawn from its dice when it is needed.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub name: String,
    pub used: Use,
    /// Messages on a working day; subscribers of a newsletter.
    pub mean: f64,
    /// People it writes to again and again.
    contacts: u64,
    /// Where it connects from.
    region: u64,
    number: u64,
}

impl Account {
    /// The account of this number; `mean` is what a person writes on a working day, on average.
    pub(super) fn new(seed: u64, number: u64, mean: f64) -> Self {
        let mut dice = Dice::of(&[seed, 1, number]);
        let firm = names::firm(&mut dice);
        // Of a thousand: three newsletters and twenty shops, spread evenly so that a small provider has some, too.
        let (used, name) = match number % 1000 {
            50 | 400 | 750 => (Use::Newsletter, format!("news@{number}.{firm}")),
            n if n % 50 == 7 => (Use::Shop, format!("orders@{number}.{firm}")),
            _ => (Use::Person, format!("{}@{number}.{firm}", names::person(&mut dice))),
        };
        let mean = match used {
            // Most write little, a few write much; the factor is 1 on average.
            Use::Person => mean * (0.4 + 1.2 * dice.share()),
            Use::Shop => 12.0 + 30.0 * dice.share(),
            Use::Newsletter => 150.0 + 250.0 * dice.share(),
        };
        Self { name, used, mean, contacts: 8 + dice.below(30), region: dice.next(), number }
    }

    /// Writes the account's day.
    pub(super) fn day(&self, seed: u64, day: &mut Day) {
        let mut dice = Dice::of(&[seed, 2, self.number, day.number as u64]);
        match self.used {
            Use::Person => self.person(seed, &mut dice, day),
            Use::Shop => self.shop(&mut dice, day),
            Use::Newsletter => self.newsletter(seed, &mut dice, day),
        }
    }

    /// Somebody whom the account knows. The first ones are the ones it writes to most.
    fn contact(&self, seed: u64, dice: &mut Dice) -> String {
        let which = (dice.share() * dice.share() * self.contacts as f64) as u64;
        names::outsider(&mut Dice::of(&[seed, 3, self.number, which]))
    }

    fn person(&self, seed: u64, dice: &mut Dice, day: &mut Day) {
        let messages = dice.about(self.mean * if day.is_off { DAY_OFF } else { 1.0 });
        let mut logged_in = false;
        for _ in 0..messages {
            let at_ms = time_of_day(dice);
            let client = match dice.chance(0.15) {
                true => names::on_the_way(self.region, dice),
                false => names::at_home(self.region, dice),
            };
            if !logged_in {
                day.login(&self.name, at_ms.saturating_sub(900), client);
                logged_in = true;
            }
            let mut rcpts = Vec::new();
            for _ in 0..1 + u64::from(dice.chance(0.2)) + u64::from(dice.chance(0.05)) {
                // Now and then somebody new.
                let rcpt = if dice.chance(0.03) { names::outsider(dice) } else { self.contact(seed, dice) };
                if !rcpts.contains(&rcpt) {
                    rcpts.push(rcpt);
                }
            }
            let message = Message { account: &self.name, at_ms, client, relay: dice.below(4), rcpts };
            day.message(message, dice, &mut |dice| ordinary(dice, 0.004));
        }
    }

    fn shop(&self, dice: &mut Dice, day: &mut Day) {
        for _ in 0..dice.about(self.mean * if day.is_off { 0.8 } else { 1.0 }) {
            // People order in the evening as well.
            let at_ms = if dice.chance(0.5) { time_of_day(dice) } else { dice.below(86_400_000) };
            let client = names::at_home(self.region, &mut Dice::of(&[self.region]));
            let message = Message {
                account: &self.name,
                at_ms,
                client,
                relay: dice.below(4),
                rcpts: vec![names::outsider(dice)],
            };
            day.message(message, dice, &mut |dice| ordinary(dice, 0.012));
        }
    }

    fn newsletter(&self, seed: u64, dice: &mut Dice, day: &mut Day) {
        // Every third day; not all of them on the same.
        if !(day.number.unsigned_abs() + self.number / 50).is_multiple_of(3) {
            return;
        }
        let client = names::at_home(self.region, &mut Dice::of(&[self.region]));
        let mut at_ms = 9 * 3_600_000 + dice.below(3_600_000);
        for subscriber in 0..self.mean as u64 {
            at_ms += 400 + dice.below(1200);
            // A few have subscribed since the last one.
            let who = if dice.chance(0.01) { dice.next() } else { subscriber };
            let rcpts = vec![names::outsider(&mut Dice::of(&[seed, 4, self.number, who]))];
            let message = Message { account: &self.name, at_ms, client, relay: dice.below(4), rcpts };
            day.message(message, dice, &mut |dice| ordinary(dice, 0.008));
        }
    }
}

/// How a recipient's server answers to ordinary mail.
fn ordinary(dice: &mut Dice, bounces: f64) -> Answer {
    match dice.share() {
        x if x < bounces => Answer::NoSuchUser,
        x if x < bounces + 0.01 => Answer::Later,
        _ => Answer::Taken,
    }
}

/// Milliseconds of the day at which people write.
fn time_of_day(dice: &mut Dice) -> u64 {
    let mut left = dice.below(HOURS.iter().map(|&h| u64::from(h)).sum());
    let mut hour = 0;
    for (h, &weight) in HOURS.iter().enumerate() {
        hour = h as u64;
        if left < u64::from(weight) {
            break;
        }
        left -= u64::from(weight);
    }
    hour * 3_600_000 + dice.below(3_600_000)
}
