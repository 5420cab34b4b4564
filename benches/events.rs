//! How fast events are read, beside the ceiling: serde_json alone into the same struct, in the same run.
//!
//! The events are the schema's examples, multiplied and varied.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::io::{Cursor, Write};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use mailfuse::event::wire::Wire;
use mailfuse::event::{Decoded, Limits, Timestamp, decode, encode, time_of};
use mailfuse::input::{Item, Lines, Options, Source, SourceInfo, Stamp};

/// The known events of the examples, `n` times, with other accounts, times and identities each time.
fn varied(n: usize) -> Vec<u8> {
    let examples: Vec<&str> =
        include_str!("../schemas/examples/events.jsonl").lines().filter(|l| !l.contains("quarantine")).collect();
    let mut out = Vec::new();
    for i in 0..n {
        for line in &examples {
            let line = line
                .replace("@example.", &format!("@c{}.example.", i % 997))
                .replace("4Zx", &format!("4{:02}", i % 97))
                .replace("2026-03-02T", &format!("2026-03-{:02}T", 2 + i % 20));
            writeln!(out, "{line}").unwrap();
        }
    }
    out
}

fn decoding(c: &mut Criterion) {
    let text = varied(700);
    let lines: Vec<&[u8]> = text.split(|&b| b == b'\n').filter(|l| !l.is_empty()).collect();
    let limits = Limits::default();
    let not_after = Some(Timestamp::parse("2030-01-01T00:00:00Z").unwrap());
    let mut group = c.benchmark_group("event");
    group.throughput(Throughput::Elements(lines.len() as u64));
    group.bench_function("ceiling: serde_json::from_slice", |b| {
        b.iter(|| {
            for line in &lines {
                black_box(serde_json::from_slice::<Wire>(line).unwrap());
            }
        });
    });
    group.bench_function("decode", |b| {
        b.iter(|| {
            for line in &lines {
                black_box(decode(line, &limits, not_after).unwrap());
            }
        });
    });
    group.bench_function("time_of", |b| b.iter(|| lines.iter().filter_map(|l| time_of(l)).map(|t| t.0).max()));
    let events: Vec<_> = lines.iter().map(|l| decode(l, &limits, not_after).unwrap()).collect();
    group.bench_function("encode", |b| {
        let mut out = Vec::new();
        b.iter(|| {
            for event in &events {
                let Decoded::Event(event, _) = event else { continue };
                out.clear();
                encode(event, &mut out).unwrap();
                black_box(&out);
            }
        });
    });
    group.finish();
}

fn count(sources: Vec<Source>, options: &Options) -> u64 {
    let mut lines = Lines::open(sources, options).unwrap();
    let mut n = 0;
    while let Some(item) = lines.next() {
        if let Item::Line(line) = item {
            n += u64::from(black_box(line.bytes).len() > 2);
        }
    }
    n
}

fn reading(c: &mut Criterion) {
    let text = varied(7000);
    let n = memchr::memchr_iter(b'\n', &text).count() as u64;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&text).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&text[..], 3).unwrap();
    let mut group = c.benchmark_group("input");
    group.sample_size(20).throughput(Throughput::Elements(n));
    for (name, bytes, hash) in [
        ("plain", &text, false),
        ("plain, hashed", &text, true),
        ("gzip", &gzip, false),
        ("gzip, hashed", &gzip, true),
        ("zstd", &zstd, false),
    ] {
        let options = Options { hash, ..Options::default() };
        let source = || vec![Source::reader(name, Cursor::new(bytes.clone()))];
        group.bench_function(name, |b| {
            b.iter_batched(source, |source| assert_eq!(count(source, &options), n), BatchSize::PerIteration);
        });
    }
    // Two files whose lines alternate: every line is stamped, copied and its own run.
    let halves = || {
        let lines = || text.split_inclusive(|&b| b == b'\n');
        vec![
            Source::reader("a", Cursor::new(lines().step_by(2).flatten().copied().collect::<Vec<u8>>())),
            Source::reader("b", Cursor::new(lines().skip(1).step_by(2).flatten().copied().collect::<Vec<u8>>())),
        ]
    };
    group.bench_function("two files of events merged", |b| {
        b.iter_batched(halves, |s| assert_eq!(count(s, &Options::default()), n), BatchSize::PerIteration);
    });
    let counter = |_: &SourceInfo| -> Box<dyn Stamp> {
        let mut n = 0;
        Box::new(move |_: &[u8]| {
            n += 1;
            Some(Timestamp(n))
        })
    };
    let options = Options { format: Some(mailfuse::input::Format::Postfix), ..Options::default() }.stamp_with(counter);
    group.bench_function("two files merged, stamps for nothing", |b| {
        b.iter_batched(halves, |s| assert_eq!(count(s, &options), n), BatchSize::PerIteration);
    });
    group.finish();
}

fn whole(c: &mut Criterion) {
    let text = varied(7000);
    let n = memchr::memchr_iter(b'\n', &text).count() as u64;
    let limits = Limits::default();
    let mut group = c.benchmark_group("both");
    group.sample_size(20).throughput(Throughput::Elements(n));
    group.bench_function("lines read and decoded", |b| {
        b.iter_batched(
            || vec![Source::reader("x", Cursor::new(text.clone()))],
            |source| {
                let mut lines = Lines::open(source, &Options::default()).unwrap();
                let mut events = 0;
                while let Some(item) = lines.next() {
                    if let Item::Line(line) = item {
                        events += u64::from(black_box(decode(line.bytes, &limits, None)).is_ok());
                    }
                }
                assert_eq!(events, n);
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, decoding, reading, whole);
criterion_main!(benches);
