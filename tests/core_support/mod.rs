//! What the tests of the core share: events in a line, and a detector to put them through.

#![allow(dead_code, clippy::unwrap_used)] // Every test takes what it needs.

pub mod stream;

use std::borrow::Cow;
use std::sync::Arc;

use mailfuse::core::alert::Alert;
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::shard::{Shard, Step};
use mailfuse::event::{Complaint, Event, Kind, Outcome, Recipients, Send, Status, Timestamp};

/// 2026-01-05T00:00:00Z, a Monday.
pub const BEGIN_S: i64 = 1_767_571_200;
pub const DAY_S: i64 = 86_400;

pub fn policy(detect: Detect) -> Arc<Policy> {
    Arc::new(Policy::new(detect, *b"a key for tests!", "mailfuse test".to_owned()).unwrap())
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1000)
}

fn text(s: &str) -> Option<Cow<'static, str>> {
    (!s.is_empty()).then(|| Cow::Owned(s.to_owned()))
}

fn event(ts: Timestamp, account: &str, kind: Kind<'static>) -> Event<'static> {
    Event { ts, account: text(account), id: None, tenant: None, kind }
}

/// A message over `relay` from `ip` to `rcpts`; empty texts stand for what is not said.
pub fn send(ts: Timestamp, account: &str, ip: &str, queue_id: &str, relay: &str, rcpts: &[String]) -> Event<'static> {
    let named: Vec<_> = rcpts.iter().map(|r| Cow::Owned(r.clone())).collect();
    let rcpts = Recipients { count: named.len() as u64, named };
    let send =
        Send { relay: text(relay), client_ip: ip.parse().ok(), rcpts, queue_id: text(queue_id), ..Send::default() };
    event(ts, account, Kind::Send(send))
}

/// The same message, with the hash of what it says.
pub fn saying(mut event: Event<'static>, content: &str) -> Event<'static> {
    if let Kind::Send(send) = &mut event.kind {
        send.content_hash = text(content);
    }
    event
}

/// The same, of which only the number of recipients is known.
pub fn send_unnamed(ts: Timestamp, account: &str, ip: &str, queue_id: &str, count: u64) -> Event<'static> {
    let rcpts = Recipients { named: Vec::new(), count };
    let send = Send { client_ip: ip.parse().ok(), rcpts, queue_id: text(queue_id), ..Send::default() };
    event(ts, account, Kind::Send(send))
}

/// An answer: delivered where `reply` is empty, else bounced with it.
pub fn outcome(ts: Timestamp, account: &str, queue_id: &str, relay: &str, rcpt: &str, reply: &str) -> Event<'static> {
    let status = if reply.is_empty() { Status::Delivered } else { Status::Bounced };
    // As a receiver says it: "550 5.1.1 user unknown".
    let dsn = reply.split(' ').nth(1).filter(|d| d.matches('.').count() == 2);
    let (relay, rcpt) = (text(relay), Cow::Owned(rcpt.to_owned()));
    let (dsn, reply, queue_id) = (text(dsn.unwrap_or("")), text(reply), text(queue_id));
    event(ts, account, Kind::Outcome(Outcome { relay, rcpt, status, dsn, reply, queue_id, relay_queue_id: None }))
}

pub fn complaint(ts: Timestamp, account: &str) -> Event<'static> {
    event(ts, account, Kind::Complaint(Complaint { rcpt: None, feedback_type: text("abuse") }))
}

/// The shard as it would be saved.
pub fn stored(shard: &Shard, policy: &Policy) -> Vec<u8> {
    let mut bytes = Vec::new();
    mailfuse::state::write(&mut bytes, shard, policy).unwrap();
    bytes
}

/// A shard and what it has said.
pub struct Detector {
    pub shard: Shard,
    pub alerts: Vec<Alert>,
}

impl Detector {
    /// All history begins at `since_s`.
    pub fn new(policy: &Arc<Policy>, since_s: i64) -> Self {
        Self { shard: Shard::new(Arc::clone(policy), at(since_s)), alerts: Vec::new() }
    }

    pub fn step(&mut self, event: &Event<'_>) -> Step {
        self.shard.step(event, &mut self.alerts)
    }

    pub fn tick(&mut self, seconds: i64) {
        self.shard.tick(at(seconds), &mut self.alerts);
    }
}
