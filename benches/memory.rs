//! What an account costs in memory: resident bytes of a shard of 10^5 and of 10^6 accounts, each with 30 messages to 30 contacts
//! over 28 days, and the slope between them, beside the ceiling of 600 bytes an account.
//!
//! `cargo bench --bench memory`. Checkpoints come every nine minutes of event time, which is seldom beside a live consumer's.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use mailfuse::core::fingerprint::Fingerprint;
use mailfuse::core::packed;
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::shard::Shard;
use mailfuse::event::{Event, Kind, Recipients, Send, Timestamp};

const MESSAGES: u64 = 30;
const BEGIN_MS: i64 = 1_767_571_200_000;
/// A message of each account falls into each round of 22.4 h.
const ROUND_MS: i64 = 28 * 86_400_000 / MESSAGES as i64;
const SLICES: usize = 144;
const CEILING: f64 = 600.0;

fn mixed(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_mul(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("Linux") * 4096
}

/// Texts that are written anew for every event, in memory that is not.
#[derive(Default)]
struct Texts {
    account: String,
    rcpt: String,
    queue_id: String,
}

fn event<'a>(texts: &'a mut Texts, account: u64, round: u64, ts_ms: i64) -> Event<'a> {
    let random = mixed(account, round);
    texts.account.clear();
    texts.rcpt.clear();
    texts.queue_id.clear();
    let _ = write!(texts.account, "user{account}@customer{}.example", account % 997);
    let _ = write!(texts.rcpt, "person{account}x{round}@firm{}.example", random % 100_000);
    let _ = write!(texts.queue_id, "{:010X}", random & 0xFF_FFFF_FFFF);
    let send = Send {
        relay: Some(Cow::Borrowed("out-1.example")),
        client_ip: Some(std::net::IpAddr::from([10, account as u8, (account >> 8) as u8, 7])),
        rcpts: Recipients { named: vec![Cow::Borrowed(&*texts.rcpt)], count: 1 },
        queue_id: Some(Cow::Borrowed(&*texts.queue_id)),
        ..Send::default()
    };
    Event {
        ts: Timestamp(ts_ms),
        account: Some(Cow::Borrowed(&*texts.account)),
        id: None,
        tenant: None,
        kind: Kind::Send(send),
    }
}

/// Runs four weeks of `accounts`; `places` is the memory for their order.
fn run(accounts: usize, places: &mut [u32], policy: &Arc<Policy>) -> (Shard, usize) {
    let start = Instant::now();
    let mut shard = Shard::new(Arc::clone(policy), Timestamp(BEGIN_MS));
    let (mut out, mut texts, mut given, mut most) = (Vec::new(), Texts::default(), 0, 0);
    for round in 0..MESSAGES {
        let slice = |account: u32| mixed(u64::from(account), round ^ 0xABCD) as usize % SLICES;
        let mut ends = [0; SLICES];
        (0..accounts as u32).for_each(|a| ends[slice(a)] += 1);
        (1..SLICES).for_each(|s| ends[s] += ends[s - 1]);
        let mut next = ends;
        for a in 0..accounts as u32 {
            next[slice(a)] -= 1;
            places[next[slice(a)]] = a;
        }
        for s in 0..SLICES {
            let slice = &places[next[s]..ends[s]];
            let begin_ms = BEGIN_MS + round as i64 * ROUND_MS + s as i64 * ROUND_MS / SLICES as i64;
            for (i, &account) in slice.iter().enumerate() {
                let ts_ms = begin_ms + i as i64 * (ROUND_MS / SLICES as i64) / slice.len() as i64;
                shard.step(&event(&mut texts, u64::from(account), round, ts_ms), &mut out);
            }
            shard.begin_checkpoint();
            while shard.give_changed(1000, &mut |_, packed| given += packed.len()) > 0 {}
            shard.finish_checkpoint();
            most = most.max(resident());
        }
    }
    println!(
        "{accounts} accounts: {:.0} s, {} alerts, {} known long; packed {:.0} bytes on average when given; shard.bytes() {:.0} an account",
        start.elapsed().as_secs_f64(),
        out.len(),
        shard.known_long(),
        given as f64 / (accounts as u64 * MESSAGES) as f64,
        shard.bytes() as f64 / accounts as f64,
    );
    (shard, most)
}

fn main() {
    let policy = Arc::new(Policy::new(Detect::default(), [7; 16], "bench".to_owned()).expect("the defaults are good"));
    let (few, many) = match std::env::var("MAILFUSE_ACCOUNTS").ok().and_then(|n| n.parse::<usize>().ok()) {
        Some(many) => (many / 10, many),
        None => (100_000, 1_000_000),
    };
    // Touched now, so that it counts for neither.
    let mut places = vec![1; many];
    let mut measured = Vec::new();
    for accounts in [few, many] {
        let (shard, most) = run(accounts, &mut places, &policy);
        let now = resident();
        println!("{accounts} accounts: {now} bytes resident, {most} at most");
        measured.push((accounts, now, most));
        let prints = Fingerprint::new(&policy.key);
        let (mut parts, mut n) = (BTreeMap::new(), 0);
        for account in shard.names().step_by(97).filter_map(|name| shard.account(name)) {
            n += 1;
            for (part, bytes) in packed::parts(&account, &prints) {
                *parts.entry(part).or_insert(0) += bytes;
            }
        }
        let parts: Vec<String> =
            parts.iter().map(|(part, sum)| format!("{part} {:.0}", f64::from(*sum as u32) / f64::from(n))).collect();
        println!("packed, in bytes: {}", parts.join(", "));
    }
    let slope = |a: usize, b: usize| (b as f64 - a as f64) / (many - few) as f64;
    let now = slope(measured[0].1, measured[1].1);
    println!(
        "slope: {now:.0} bytes an account at the end, {:.0} at most; ceiling {CEILING}",
        slope(measured[0].2, measured[1].2)
    );
    assert!(many < 1_000_000 || now <= CEILING, "an account costs more than {CEILING} bytes");
}
