//! Lines of Postfix a second on one core, the stamp included, beside the ceiling of the same bytes: finding the lines
//! and checking that they are UTF-8.
//!
//! The log is generated; where the environment variable `MAILFUSE_BENCH_LOG` names a plain or gzip file, that is
//! measured too.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mailfuse::logs::postfix::{Options, Postfix};
use mailfuse::logs::stamp::{StampOptions, Stamper};
use std::fmt::Write;
use std::hint::black_box;
use std::io::Read;

/// A small generator of numbers (xorshift64*), so that every run measures the same log.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }
}

/// What a submission host logs: authenticated messages of one to ten recipients among guesses at passwords.
fn generate(seed: u64, lines: usize) -> String {
    let mut rng = Rng(seed | 1);
    let mut log = String::new();
    let (mut written, mut second) = (0, 0u64);
    let mut put = |second: u64, text: std::fmt::Arguments<'_>| {
        let (h, m, s) = (second / 3600 % 24, second / 60 % 60, second % 60);
        let _ = writeln!(log, "Jul {:2} {h:02}:{m:02}:{s:02} srv24 {text}", 10 + second / 86_400);
        written += 1;
        written
    };
    loop {
        second += u64::from(rng.below(10) == 0);
        let (pid, ip, id) = (rng.below(30_000), rng.below(250), rng.below(1 << 40));
        let client = format!("unknown[203.0.113.{ip}]");
        put(second, format_args!("postfix/submission/smtpd[{pid}]: connect from {client}"));
        if rng.below(3) == 0 {
            let failed = "SASL LOGIN authentication failed: UGFzc3dvcmQ6";
            put(second, format_args!("postfix/smtpd[{pid}]: warning: {client}: {failed}"));
            put(second, format_args!("postfix/smtpd[{pid}]: lost connection after AUTH from {client}"));
            if put(second, format_args!("postfix/smtpd[{pid}]: disconnect from {client}")) > lines {
                return log;
            }
            continue;
        }
        let user = format!("user{}@customer{}.example", rng.below(2000), rng.below(300));
        let sasl = format!("sasl_method=PLAIN, sasl_username={user}");
        put(second, format_args!("postfix/submission/smtpd[{pid}]: {id:011X}: client={client}, {sasl}"));
        put(second, format_args!("postfix/cleanup[{pid}]: {id:011X}: message-id=<{id}.{pid}@customer.example>"));
        let n = 1 + rng.below(10);
        let from = format!("from=<{user}>, size={}, nrcpt={n} (queue active)", 900 + rng.below(90_000));
        put(second, format_args!("postfix/qmgr[99]: {id:011X}: {from}"));
        put(second, format_args!("postfix/submission/smtpd[{pid}]: disconnect from {client}"));
        for _ in 0..n {
            let (rcpt, mx) = (rng.below(100_000), rng.below(90));
            let status = match rng.below(10) {
                0 => "dsn=5.1.1, status=bounced (host mx said: 550 5.1.1 User unknown (in reply to RCPT TO command))",
                1 => "dsn=4.4.1, status=deferred (connect to mx.example[192.0.2.1]:25: Connection timed out)",
                2 | 3 => "dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 337249F4C4)",
                _ => "dsn=2.0.0, status=sent (250 2.0.0 OK  1642704487 v125si7680590wme.216 - gsmtp)",
            };
            let to = format!("to=<r{rcpt}@d{mx}.example>, relay=mx{mx}.d{mx}.example[192.0.2.{mx}]:25");
            let delays = "delay=1.9, delays=0.4/0.01/0.5/1";
            put(second, format_args!("postfix/smtp[{pid}]: {id:011X}: {to}, {delays}, {status}"));
        }
        if put(second, format_args!("postfix/qmgr[99]: {id:011X}: removed")) > lines {
            return log;
        }
    }
}

/// Everything: lines, stamps, messages, events. Returns the number of events.
fn read(log: &[u8]) -> u64 {
    let mut stamper = Stamper::new(StampOptions { year: Some(2012), ..StampOptions::default() });
    let mut postfix = Postfix::new(Options::default());
    let mut events = 0;
    let mut sink = |event: &mailfuse::event::Event<'_>| {
        black_box(event);
        events += 1;
    };
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', log) {
        let line = &log[start..end];
        start = end + 1;
        if let Some((ts, at)) = stamper.stamp(line) {
            postfix.push(ts, &line[at..], &mut sink);
        }
    }
    postfix.finish(&mut sink);
    events
}

fn ceiling(log: &[u8]) -> usize {
    let mut start = 0;
    let mut valid = 0;
    for end in memchr::memchr_iter(b'\n', log) {
        valid += usize::from(std::str::from_utf8(&log[start..end]).is_ok());
        start = end + 1;
    }
    valid
}

fn measure(c: &mut Criterion, name: &str, log: &[u8]) {
    let lines = memchr::memchr_iter(b'\n', log).count() as u64;
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(lines)).sample_size(10);
    group.bench_function("read", |b| b.iter(|| read(black_box(log))));
    group.bench_function("ceiling", |b| b.iter(|| ceiling(black_box(log))));
    group.finish();
}

fn benches(c: &mut Criterion) {
    measure(c, "postfix lines", generate(1, 200_000).as_bytes());
    let Ok(path) = std::env::var("MAILFUSE_BENCH_LOG") else { return };
    let Ok(bytes) = std::fs::read(&path) else { return };
    let mut log = Vec::new();
    if flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut log).is_err() {
        log = bytes;
    }
    measure(c, "postfix lines of MAILFUSE_BENCH_LOG", &log);
}

criterion_group!(all, benches);
criterion_main!(all);
