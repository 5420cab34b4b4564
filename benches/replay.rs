//! What the detector adds to decoding: events a second through `decode` and `Shard::step`, beside the ceiling measured in the
//! same run, bare serde_json into the same struct.
//!
//! `cargo bench --bench replay`. With `MAILFUSE_EVENTS=FILE` it also measures that file's events, and the whole process
//! (`mailfuse replay FILE`) beside bare decoding of it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::shard::Shard;
use mailfuse::event::wire::Wire;
use mailfuse::event::{Decoded, Limits, decode};

/// A provider's stream: accounts with contacts of their own, some strangers, an outcome for each recipient.
fn stream(accounts: u64, messages: u64) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |n: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % n
    };
    let mut text = String::new();
    for i in 0..messages {
        let ts = 1_700_000_000_000 + i * 9_000_000 / accounts;
        let account = random(accounts).min(random(accounts));
        let relay = random(4);
        let rcpts: Vec<String> = (0..=random(3) * random(2))
            .map(|_| match random(20) {
                0 => format!("stranger{}@firm{}.example", random(1 << 40), random(4000)),
                _ => format!("contact{}x{}@firm{}.example", account, random(30), account % 40),
            })
            .collect();
        let _ = writeln!(
            text,
            r#"{{"v":1,"kind":"send","ts":{ts},"account":"user{account}@tenant{}.example","relay":"out-{relay}","client_ip":"10.{}.7.9","mail_from":"user{account}@tenant{}.example","rcpts":["{}"],"size":{},"queue_id":"q{i:x}"}}"#,
            account % 97,
            account % 251,
            account % 97,
            rcpts.join("\",\""),
            900 + random(60_000)
        );
        for rcpt in &rcpts {
            let (status, dsn) = if random(60) == 0 { ("bounced", "5.1.1") } else { ("delivered", "2.0.0") };
            let _ = writeln!(
                text,
                r#"{{"v":1,"kind":"outcome","ts":{},"account":"user{account}@tenant{}.example","relay":"out-{relay}","queue_id":"q{i:x}","rcpt":"{rcpt}","status":"{status}","dsn":"{dsn}"}}"#,
                ts + 2_000,
                account % 97,
            );
        }
    }
    text
}

fn bare(lines: &[&[u8]]) {
    for line in lines {
        let wire: Wire<'_> = serde_json::from_slice(line).expect("an event");
        black_box(wire);
    }
}

fn detect(lines: &[&[u8]], policy: &Arc<Policy>, limits: &Limits) {
    let (mut shard, mut alerts): (Option<Shard>, _) = (None, Vec::new());
    for line in lines {
        if let Ok(Decoded::Event(event, _)) = decode(line, limits, None) {
            shard.get_or_insert_with(|| Shard::new(Arc::clone(policy), event.ts)).step(&event, &mut alerts);
            alerts.clear();
        }
    }
    black_box(shard.map(|s| s.accounts()));
}

fn group(c: &mut Criterion, name: &str, text: &[u8]) {
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
    let (policy, limits) = (
        Arc::new(Policy::new(Detect::default(), [7; 16], "bench".to_owned()).expect("the defaults are good")),
        Limits::default(),
    );
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(lines.len() as u64)).sample_size(10).measurement_time(Duration::from_secs(8));
    group.bench_function("ceiling: bare serde_json", |b| b.iter(|| bare(&lines)));
    group.bench_function("decode and detect", |b| b.iter(|| detect(&lines, &policy, &limits)));
    group.finish();
}

/// The whole process beside bare decoding of the same file, five times in turn; the medians and their ratio.
fn process(path: &str) {
    let text = std::fs::read(path).expect("MAILFUSE_EVENTS is a file");
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
    let (mut ceiling, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let start = Instant::now();
        bare(&lines);
        ceiling.push(start.elapsed());
        let start = Instant::now();
        let mut mailfuse = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
        let done = mailfuse.args(["replay", "--quiet", path]).stdout(Stdio::null()).status().expect("it starts");
        assert!(done.success());
        whole.push(start.elapsed());
    }
    ceiling.sort();
    whole.sort();
    let per_s = |d: Duration| lines.len() as f64 / d.as_secs_f64();
    println!(
        "whole process: {:.0} events/s; bare decoding in memory: {:.0} events/s; ratio {:.2}",
        per_s(whole[2]),
        per_s(ceiling[2]),
        ceiling[2].as_secs_f64() / whole[2].as_secs_f64()
    );
}

fn benches(c: &mut Criterion) {
    group(c, "generated", stream(2_000, 100_000).as_bytes());
    if let Ok(path) = std::env::var("MAILFUSE_EVENTS") {
        group(c, "file", &std::fs::read(&path).expect("MAILFUSE_EVENTS is a file"));
        process(&path);
    }
}

criterion_group!(all, benches);
criterion_main!(all);
