//! Three weeks of made-up mail, with hijacks.

use mailfuse::event::{Event, Timestamp};

use super::{BEGIN_S, DAY_S, complaint, outcome, saying, send};
use crate::common::Dice;

pub const ACCOUNTS: u64 = 60;
pub const DAYS: i64 = 21;
pub const SEED: u64 = 20_260_105;

pub fn name(account: u64) -> String {
    format!("user{account}@customer{}.example", account % 17)
}

/// Three weeks of accounts that write to colleagues and now and then to a stranger; every fifth is hijacked, every tenth twice.
/// Events come up to 300 s late, and some of them again.
pub fn stream() -> Vec<Event<'static>> {
    let mut random = Dice(SEED);
    let mut events = Vec::new();
    let mut message = |random: &mut Dice, a: u64, ms: i64, ip: &str, rcpts: &[String], refused_in_100: u64| {
        let account = name(a);
        let queue_id = format!("Q{}", events.len());
        // The send names the first host; the outcome knows which one talked to the outside.
        let relay = format!("out-{}", random.below(4));
        // Some systems hash what a message says: of a burst it is mostly one of three.
        let content = match (a % 4, refused_in_100) {
            (0, _) => String::new(),
            (_, 1) => format!("{a}-{}", events.len() % 50),
            _ => format!("{}", events.len() % 3),
        };
        let host = if a.is_multiple_of(3) { "gateway" } else { &relay };
        events.push(saying(send(Timestamp(ms), &account, ip, &queue_id, host, rcpts), &content));
        for rcpt in rcpts {
            let reply = match random.below(100) {
                x if x < refused_in_100 => "550 5.1.1 user unknown",
                x if x < refused_in_100 + 3 => "550 5.7.1 blocked using zen.spamhaus.org",
                _ => "",
            };
            let later = ms + 500 + random.ms(40);
            events.push(outcome(Timestamp(later), &account, &queue_id, &relay, rcpt, reply));
        }
        if refused_in_100 > 20 && events.len().is_multiple_of(12) {
            events.push(complaint(Timestamp(ms + 60_000), &account));
        }
    };
    for a in 0..ACCOUNTS {
        // Some appear only later.
        let first_day = if a % 7 == 3 { 9 } else { 0 };
        for day in first_day..DAYS {
            for _ in 0..2 + random.below(7) {
                let ms = (BEGIN_S + day * DAY_S + 7 * 3600) * 1000 + random.ms(11 * 3600);
                let mut rcpts = vec![format!("colleague{}@customer{}.example", random.below(9), a % 17)];
                if random.below(12) == 0 {
                    rcpts.push(format!("new{}@elsewhere.example", random.next()));
                }
                message(&mut random, a, ms, &format!("10.{a}.0.7"), &rcpts, 1);
            }
        }
        let bursts = if a % 10 == 0 { 2 } else { u64::from(a % 5 == 0 || a % 7 == 3) };
        for burst in 0..bursts {
            let begin = (BEGIN_S + (11 + 5 * burst as i64) * DAY_S) * 1000 + random.ms(DAY_S);
            // From slow to fast, from one foreign network to several, some from home.
            let pause_s = [4, 30, 150][(a as usize / 5 + burst as usize) % 3];
            let networks = a % 4;
            let mut ms = begin;
            for _ in 0..40 + random.below(120) {
                ms += random.ms(2 * pause_s) + 1;
                let foreign = format!("192.{}.3.4", 10 + a + random.below(networks.max(1)));
                let ip = if networks == 0 { format!("10.{a}.0.7") } else { foreign };
                let strangers: Vec<_> = (0..1 + random.below(4))
                    .map(|_| format!("victim{}@far{}.example", random.next(), random.below(9)))
                    .collect();
                message(&mut random, a, ms, &ip, &strangers, if a % 15 == 5 { 0 } else { 30 });
            }
        }
    }
    let mut arrivals: Vec<(i64, u64, Event<'static>)> = Vec::new();
    for (i, mut event) in events.into_iter().enumerate() {
        if i % 3 != 0 {
            event.id = Some(format!("e{i}").into());
        }
        let late = if random.below(3) == 0 { random.below(300_001) as i64 } else { 0 };
        if i % 3 != 0 && random.below(40) == 0 {
            arrivals.push((event.ts.0 + random.below(300_001) as i64, random.next(), event.clone()));
        }
        arrivals.push((event.ts.0 + late, random.next(), event));
    }
    arrivals.sort_by_key(|(ms, tie, _)| (*ms, *tie));
    arrivals.into_iter().map(|(_, _, event)| event).collect()
}
