//! Somebody else with the password.

use super::dice::Dice;
use super::names;
use super::write::{Answer, Day, Message};
use super::{DAY_MS, Hijack};

/// Writes the part of the hijack that falls on `day`. The same account goes on with its own day beside it.
pub(super) fn day(seed: u64, hijack: Hijack, account: &str, begin_ms: i64, day: &mut Day) {
    let midnight_ms = day.number * DAY_MS;
    // Drawn from the beginning each time, so that it does not matter on which day it began.
    let mut dice = Dice::of(&[seed, 5]);
    // Each of some rented machines sends for a while; two relays carry it, as a balancer by source would have it.
    let (relay, networks) = (dice.below(4), dice.below(8));
    let mut at_ms = begin_ms;
    for n in 0..hijack.messages {
        let which = networks + dice.below(4);
        let client = names::abroad(which, &mut dice);
        if n == 0 {
            at_ms += 1500;
        } else {
            // Bursts of eight, then a breath.
            at_ms += if n % 8 == 0 { 9_000 } else { 700 + dice.below(1800) as i64 };
        }
        let rcpts: Vec<String> = (0..1 + dice.below(4)).map(|_| names::outsider(&mut dice)).collect();
        let message_relay = (relay + dice.below(2)) % 4;
        let mut of_message = Dice::of(&[seed, 6, n.into()]);
        if at_ms < midnight_ms || at_ms >= midnight_ms + DAY_MS {
            continue;
        }
        let at_ms = (at_ms - midnight_ms) as u64;
        if n == 0 {
            day.login(account, at_ms.saturating_sub(1500), client);
        }
        day.message(Message { account, at_ms, client, relay: message_relay, rcpts }, &mut of_message, &mut |dice| {
            match dice.share() {
                x if x < 0.14 => Answer::NoSuchUser,
                x if x < 0.22 => Answer::Unwanted,
                x if x < 0.25 => Answer::Later,
                _ => Answer::Taken,
            }
        });
    }
}
