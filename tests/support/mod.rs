//! What the tests of the core share: a small generator, events in one line, a detector in one call.
#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses a part of it, and a test may fail")]

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use mailfuse::core::alert::Alert;
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::shard::Shard;
use mailfuse::event::{Complaint, Event, Kind, Outcome, Recipients, Send, Status, Timestamp};

/// 2024-03-04 00:00:00 UTC, a Monday.
pub const START_MS: i64 = 1_709_510_400_000;
pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 3_600_000;
pub const DAY_MS: i64 = 86_400_000;

/// A small generator: the same numbers every time (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True in `percent` of cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A file of the shared data. Where it is missing the test fails under CI and is skipped elsewhere.
pub fn shared(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data")).join(name);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}

/// The default configuration under a fixed key.
pub fn policy() -> Arc<Policy> {
    policy_with(Detect::default())
}

pub fn policy_with(detect: Detect) -> Arc<Policy> {
    Arc::new(Policy::new(detect, *b"0123456789abcdef", "test".to_owned()).unwrap())
}

/// Where a message comes from and goes through.
#[derive(Clone, Default)]
pub struct Way {
    pub ip: Option<&'static str>,
    pub relay: Option<&'static str>,
    pub queue_id: Option<String>,
}

pub fn event(account: &str, ts_ms: i64, kind: Kind<'static>) -> Event<'static> {
    Event { ts: Timestamp(ts_ms), account: Some(account.to_owned().into()), id: None, tenant: None, kind }
}

pub fn send(account: &str, ts_ms: i64, way: &Way, rcpts: &[String]) -> Event<'static> {
    let named: Vec<_> = rcpts.iter().map(|r| r.clone().into()).collect();
    let rcpts = Recipients { count: named.len() as u64, named };
    event(account, ts_ms, Kind::Send(way.message(rcpts)))
}

/// A send that only tells how many it was for.
pub fn counted_send(account: &str, ts_ms: i64, way: &Way, count: u64) -> Event<'static> {
    event(account, ts_ms, Kind::Send(way.message(Recipients { named: Vec::new(), count })))
}

impl Way {
    pub fn of(ip: &'static str) -> Self {
        Self { ip: Some(ip), relay: Some("out-1"), queue_id: None }
    }

    pub fn with_id(&self, queue_id: &str) -> Self {
        Self { queue_id: Some(queue_id.to_owned()), ..self.clone() }
    }

    fn message(&self, rcpts: Recipients<'static>) -> Send<'static> {
        Send {
            relay: self.relay.map(Into::into),
            client_ip: self.ip.map(|ip| ip.parse::<IpAddr>().unwrap()),
            queue_id: self.queue_id.clone().map(Into::into),
            rcpts,
            ..Send::default()
        }
    }
}

/// What the recipient's server said.
#[derive(Clone, Copy)]
pub struct Said(pub Status, pub &'static str, pub &'static str);

pub const DELIVERED: Said = Said(Status::Delivered, "2.0.0", "250 2.0.0 OK");
pub const UNKNOWN: Said = Said(Status::Bounced, "5.1.1", "550 5.1.1 User unknown");

pub fn outcome(account: &str, ts_ms: i64, way: &Way, rcpt: &str, said: Said) -> Event<'static> {
    let outcome = Outcome {
        relay: way.relay.map(Into::into),
        rcpt: rcpt.to_owned().into(),
        status: said.0,
        dsn: Some(said.1.into()),
        reply: Some(said.2.into()),
        queue_id: way.queue_id.clone().map(Into::into),
    };
    event(account, ts_ms, Kind::Outcome(outcome))
}

pub fn complaint(account: &str, ts_ms: i64) -> Event<'static> {
    event(account, ts_ms, Kind::Complaint(Complaint { rcpt: None, feedback_type: Some("abuse".into()) }))
}

/// `n` addresses nobody has seen, at a few domains.
pub fn strangers(tag: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{tag}.{i}@{}", ["gmail.com", "web.de", "mail.ru"][i % 3])).collect()
}

/// A detector under test.
pub struct Run {
    pub shard: Shard,
    pub alerts: Vec<Alert>,
}

impl Run {
    /// History begins at [`START_MS`].
    pub fn new(policy: &Arc<Policy>) -> Self {
        Self { shard: Shard::new(Arc::clone(policy), Timestamp(START_MS)), alerts: Vec::new() }
    }

    pub fn step(&mut self, event: &Event<'_>) {
        self.shard.step(event, &mut self.alerts);
    }

    pub fn tick(&mut self, now_ms: i64) {
        self.shard.tick(Timestamp(now_ms), &mut self.alerts);
    }

    /// Kinds and severities so far, as `flagged warning`.
    pub fn said(&self) -> Vec<String> {
        self.alerts.iter().map(short).collect()
    }
}

/// `flagged warning` and the like.
pub fn short(alert: &Alert) -> String {
    format!("{:?} {:?}", alert.kind, alert.severity).to_lowercase()
}
