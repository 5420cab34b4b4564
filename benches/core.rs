//! What an event costs the core, without Kafka: decoding alone, and decoding with `Shard::look_ahead` and `Shard::step`, as a worker
//! of `run` calls them, batch by batch. With the events of the bench `run`, for several numbers of accounts: while they are met, and
//! once they are known. Processor time of this thread, which a busy machine disturbs less than the clock on the wall.
//!
//! `cargo bench --bench core`. `MAILFUSE_BENCH_ACCOUNTS` (2000,20000,100000), `MAILFUSE_BENCH_EVENTS` (600,000 to each pass)
//! and `MAILFUSE_BENCH_ROUNDS` (5) change what is measured; `MAILFUSE_BENCH_SIGNALS=0` leaves out what is counted for signals.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod mix;

use std::hint::black_box;
use std::sync::Arc;

use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::shard::{Ahead, Kept, Shard, Wanted};
use mailfuse::core::signal::Part;
use mailfuse::event::{Decoded, Limits, Timestamp, decode};
use mailfuse::kafka::partitioner::partition_of;
use mix::{Random, event};

const PARTITIONS: usize = 12;
/// Records of a batch, as `run::poll` makes them.
const BATCH: usize = 256;
const BEGIN_MS: u64 = 1_700_000_000_000;
/// Two days of mail to each pass.
const PASS_MS: u64 = 172_800_000;

fn main() {
    // `cargo test --benches` only builds it.
    if std::env::args().any(|a| a == "--test") {
        return;
    }
    let setting = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let events: u64 = setting("MAILFUSE_BENCH_EVENTS", "600000").parse().expect("a number");
    let rounds: usize = setting("MAILFUSE_BENCH_ROUNDS", "5").parse().expect("a number");
    let signals = setting("MAILFUSE_BENCH_SIGNALS", "1") != "0";
    for accounts in setting("MAILFUSE_BENCH_ACCOUNTS", "2000,20000,100000").split(',') {
        measure(accounts.parse().expect("a number"), events, rounds, signals);
    }
}

/// Records of one partition, one behind the other.
struct Batch {
    partition: usize,
    bytes: Vec<u8>,
    /// Where key and value of each end.
    ends: Vec<(usize, usize)>,
}

impl Batch {
    fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let begins = std::iter::once(0).chain(self.ends.iter().map(|e| e.1));
        begins.zip(&self.ends).map(|(begin, &(key, value))| (&self.bytes[begin..key], &self.bytes[key..value]))
    }
}

fn batches(r: &mut Random, accounts: u64, first: u64, events: u64) -> Vec<Batch> {
    let empty = |partition| Batch { partition, bytes: Vec::new(), ends: Vec::new() };
    let mut open: Vec<Batch> = (0..PARTITIONS).map(empty).collect();
    let mut full = Vec::new();
    for i in first..first + events {
        let (key, value) = event(r, accounts, i, BEGIN_MS + i * PASS_MS / events);
        let partition = partition_of(key.as_bytes(), PARTITIONS as i32) as usize;
        let batch = &mut open[partition];
        batch.bytes.extend_from_slice(key.as_bytes());
        let key_end = batch.bytes.len();
        batch.bytes.extend_from_slice(value.as_bytes());
        batch.ends.push((key_end, batch.bytes.len()));
        if batch.ends.len() == BATCH {
            full.push(std::mem::replace(batch, empty(partition)));
        }
    }
    full.extend(open);
    full
}

/// Nanoseconds that this thread has had a processor for.
fn cpu_ns() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    stat.split(' ').next().and_then(|ns| ns.parse().ok()).expect("Linux")
}

fn timed(events: u64, mut work: impl FnMut()) -> f64 {
    let began = cpu_ns();
    work();
    (cpu_ns() - began) / events as f64
}

fn decode_all(batches: &[Batch], limits: &Limits) {
    for batch in batches {
        for (_, value) in batch.records() {
            let _ = black_box(decode(value, limits, None));
        }
    }
}

fn step_all(batches: &[Batch], limits: &Limits, shards: &mut [Shard]) {
    let (mut ahead, mut out, mut signals) = (Ahead::default(), Vec::new(), Vec::new());
    for batch in batches {
        let shard = &mut shards[batch.partition];
        shard.look_ahead(batch.records().map(|r| r.0), &mut ahead);
        for (_, value) in batch.records() {
            if let Ok(Decoded::Event(event, _)) = decode(value, limits, None) {
                black_box(shard.step(&event, &mut out));
            }
        }
        // A worker takes them more seldom than after each batch.
        shard.signals(Wanted::Bursts, &mut signals);
        signals.clear();
    }
    black_box(out);
}

fn measure(accounts: u64, events: u64, rounds: usize, signals: bool) {
    let policy = Arc::new(Policy::new(Detect::default(), [7; 16], "bench".to_owned()).expect("the defaults are good"));
    let limits = Limits::default();
    let mut r = Random(0x9e37_79b9_7f4a_7c15);
    let [first, second] = [0, events].map(|from| batches(&mut r, accounts, from, events));
    let (mut alone, mut new, mut known, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
    for _ in 0..rounds {
        let fresh = |partition| {
            let mut shard = Shard::new(Arc::clone(&policy), Timestamp(BEGIN_MS as i64));
            if signals {
                shard.tell_signals(Part { partitions: PARTITIONS as i32, partition }, Kept::default());
            }
            shard
        };
        let mut shards: Vec<Shard> = (0..PARTITIONS as i32).map(fresh).collect();
        alone.push(timed(events, || decode_all(&second, &limits)));
        new.push(timed(events, || step_all(&first, &limits, &mut shards)));
        known.push(timed(events, || step_all(&second, &limits, &mut shards)));
        let sum = |of: &dyn Fn(&Shard) -> usize| shards.iter().map(of).sum::<usize>() as f64;
        bytes = sum(&Shard::bytes) / sum(&Shard::accounts);
    }
    let median = |mut v: Vec<f64>| {
        v.sort_by(f64::total_cmp);
        v[v.len() / 2]
    };
    let (alone, new, known) = (median(alone), median(new), median(known));
    println!(
        "{accounts} accounts: decoding {alone:.0} ns an event; with the core {new:.0} ns while accounts are met, {known:.0} ns once \
         they are known: the core's part {:.0} and {:.0}; {bytes:.0} bytes a hot account",
        new - alone,
        known - alone
    );
}
