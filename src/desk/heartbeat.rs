//! Heartbeats of the active desk: which are due, what is published for one, and what has come back. Pure; time is an argument.
//!
//! A beat is a small hijack of one reserved account in each partition of the events ([`crate::core::beat`]). It is complete when
//! the detector has flagged all of them within the interval, and only then a message goes to the marked endpoints: what stays out
//! anywhere on the path is silence there. Beats are aligned to multiples of the interval since 1970, so that a desk that takes
//! over does not beat twice in one. Nothing of them is stored: a beat from yesterday is worth nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use serde_json::json;

use super::webhook::body::{IncidentState, Message, What};
use super::webhook::outcome::Outcome;
use super::webhook::record::Attempt;
use super::webhook::sign::webhook_id;
use crate::core::alert::{Alert, AlertKind, Severity};
use crate::core::beat::DOMAIN;
use crate::event::{EncodeError, Event, Kind, Recipients, Send, Status, Timestamp, encode};
use crate::kafka::partitioner::partition_of;

/// Messages of the burst, each from a network of its own.
const MESSAGES: u16 = 16;
/// Recipients of each.
const RECIPIENTS: u16 = 4;
/// Of them are refused.
const REFUSED: u16 = 3;
/// Attempts of beats are numbered from here on, those of the outbox stay below.
const FIRST_ATTEMPT: u64 = 1 << 63;
/// From the first attempt that failed to the next, in milliseconds; doubled after each.
const AGAIN_MS: i64 = 5_000;
/// The longest time between attempts, in milliseconds, unless the receiver names a longer one.
const AGAIN_MS_MAX: i64 = 80_000;

/// A record for the events topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The account.
    pub key: String,
    /// The event.
    pub value: Vec<u8>,
}

/// What has become of a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// All partitions have answered; the slowest took so long, in milliseconds.
    Complete(i64),
    /// The beat has ended, and these partitions have not answered.
    StaysOut(Vec<i32>),
}

/// A beat that was published.
#[derive(Debug)]
struct Beat {
    /// Its number: of the interval since 1970.
    slot: i64,
    published_ms: i64,
    /// By partition, how long the answer took, in milliseconds; `None`: not yet.
    answers: BTreeMap<i32, Option<i64>>,
}

/// A message for a marked endpoint.
#[derive(Debug)]
struct Telling {
    endpoint: String,
    message: Message,
    next_ms: i64,
    /// From an attempt that fails to the next.
    wait_ms: i64,
    /// The number of the attempt that is under way.
    attempt: Option<u64>,
}

/// The heart.
#[derive(Debug)]
pub struct Heart {
    interval_ms: i64,
    endpoints: Vec<String>,
    /// The interval that was looked at last.
    slot: i64,
    beat: Option<Beat>,
    tellings: Vec<Telling>,
    attempts: u64,
}

impl Heart {
    /// One that beats every so many milliseconds, and tells these endpoints. The interval that is running is left to whoever was
    /// the active desk at its beginning.
    pub fn new(interval_ms: i64, endpoints: Vec<String>, now_ms: i64) -> Self {
        let slot = now_ms.div_euclid(interval_ms.max(1));
        Self { interval_ms, endpoints, slot, beat: None, tellings: Vec::new(), attempts: FIRST_ATTEMPT }
    }

    /// Whether a beat is due.
    pub fn is_due(&self, now_ms: i64) -> bool {
        self.interval_ms > 0 && now_ms.div_euclid(self.interval_ms) > self.slot
    }

    /// Ends the beat before, and everything that waits of it. Returns what is to be said of it.
    pub fn end(&mut self, now_ms: i64) -> Option<News> {
        self.slot = now_ms.div_euclid(self.interval_ms.max(1));
        self.tellings.clear();
        let beat = self.beat.take()?;
        let silent: Vec<i32> = beat.answers.iter().filter(|(_, a)| a.is_none()).map(|(p, _)| *p).collect();
        (!silent.is_empty()).then_some(News::StaysOut(silent))
    }

    /// Begins a beat in so many partitions. Returns what is to be published.
    ///
    /// # Errors
    /// Where an event has no form, which would be a defect.
    pub fn begin(&mut self, partitions: i32, now_ms: i64) -> Result<Vec<Record>, EncodeError> {
        let answers = (0..partitions.max(0)).map(|partition| (partition, None)).collect();
        self.beat = Some(Beat { slot: self.slot, published_ms: now_ms, answers });
        let mut records = Vec::new();
        for partition in 0..partitions.max(0) {
            burst(&account(partition, partitions), self.slot, now_ms, &mut records)?;
        }
        Ok(records)
    }

    /// Takes an alert that is marked. Returns what is to be said, once a beat.
    pub fn answer(&mut self, alert: &Alert, now_ms: i64) -> Option<News> {
        // That one ended says nothing of this beat.
        let partition = partition(&alert.account).filter(|_| alert.kind == AlertKind::Flagged)?;
        let beat = self.beat.as_mut().filter(|beat| beat.slot == alert.ts.0.div_euclid(self.interval_ms.max(1)))?;
        let answer = beat.answers.get_mut(&partition).filter(|answer| answer.is_none())?;
        *answer = Some(now_ms.saturating_sub(beat.published_ms).max(0));
        let slowest = beat.answers.values().copied().collect::<Option<Vec<i64>>>()?.into_iter().max()?;
        let message = |endpoint: &String| Message {
            id: webhook_id(endpoint, &format!("heartbeat {}", beat.slot)),
            kind: "heartbeat".to_owned(),
            at: Timestamp(beat.published_ms),
            severity: Severity::Warning,
            incident: format!("mailfuse-heartbeat-{}", beat.slot),
            link: String::new(),
            customer: None,
            what: What::Other {
                summary: format!(
                    "Heartbeat: all {} partitions answered, the slowest after {slowest} ms",
                    beat.answers.len()
                ),
                state: IncidentState::Cleared,
                data: json!({
                    "published": Timestamp(beat.published_ms),
                    "partitions": beat.answers.len(),
                    "latency_ms_max": slowest,
                }),
            },
        };
        self.tellings = self
            .endpoints
            .iter()
            .map(|e| Telling {
                endpoint: e.clone(),
                message: message(e),
                next_ms: now_ms,
                wait_ms: AGAIN_MS,
                attempt: None,
            })
            .collect();
        Some(News::Complete(slowest))
    }

    /// What to send now.
    pub fn due(&mut self, now_ms: i64) -> Vec<(Attempt, Message)> {
        let mut due = Vec::new();
        for telling in self.tellings.iter_mut().filter(|t| t.attempt.is_none() && t.next_ms <= now_ms) {
            self.attempts += 1;
            telling.attempt = Some(self.attempts);
            let attempt = Attempt {
                attempt: self.attempts,
                endpoint: telling.endpoint.clone(),
                id: telling.message.id.clone(),
                incident: telling.message.incident.clone(),
                seq: 0,
                attempts: 0,
                probe: false,
            };
            due.push((attempt, telling.message.clone()));
        }
        due
    }

    /// Whether an attempt is one of a beat.
    pub fn is_of(attempt: u64) -> bool {
        attempt > FIRST_ATTEMPT
    }

    /// Takes how an attempt ended: one that failed is tried again until the interval is over, not before the receiver wants that. One
    /// that wants nothing more is not asked again.
    pub fn done(&mut self, attempt: u64, outcome: &Outcome, now_ms: i64) {
        let is_over = matches!(outcome, Outcome::Delivered { .. } | Outcome::Gone);
        self.tellings.retain(|t| !(is_over && t.attempt == Some(attempt)));
        let after_ms = match outcome {
            Outcome::Retry { after: Some(after), .. } => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
            _ => 0,
        };
        for telling in self.tellings.iter_mut().filter(|t| t.attempt == Some(attempt)) {
            (telling.attempt, telling.next_ms) = (None, now_ms.saturating_add(telling.wait_ms.max(after_ms)));
            telling.wait_ms = (telling.wait_ms * 2).min(AGAIN_MS_MAX);
        }
    }
}

/// The account that stands for a partition: the first of its names that the partitioner puts there.
fn account(partition: i32, partitions: i32) -> String {
    let name = |n: u32| format!("beat-{partition}-{n}@{DOMAIN}");
    // Of so many names one is there: that none of 10,000 hits one of 500 partitions has a chance of 1e-9.
    let found = (0..100_000).map(name).find(|name| partition_of(name.as_bytes(), partitions) == partition);
    found.unwrap_or_else(|| name(0))
}

/// The partition that an account stands for.
fn partition(account: &str) -> Option<i32> {
    account.strip_prefix("beat-")?.split('-').next()?.parse().ok()
}

/// Messages to strangers from foreign networks, with refusals: every one of the detector's signals.
fn burst(account: &str, slot: i64, now_ms: i64, records: &mut Vec<Record>) -> Result<(), EncodeError> {
    let (before, name) = (records.len(), account.to_owned());
    let mut push = |id: &str, kind: Kind<'_>| {
        // In a row within some milliseconds.
        let ts = Timestamp(now_ms.saturating_add((records.len() - before) as i64));
        let (account, id) = (Some(Cow::Borrowed(account)), Some(Cow::Borrowed(id)));
        let mut value = Vec::new();
        encode(&Event { ts, account, id, tenant: None, kind }, &mut value)?;
        records.push(Record { key: name.clone(), value });
        Ok(())
    };
    for n in 0..MESSAGES {
        let queue_id = format!("beat-{slot}-{n}");
        let rcpt = |m: u16| format!("nobody-{slot}-{n}-{m}@{DOMAIN}");
        let named: Vec<_> = (0..RECIPIENTS).map(|m| Cow::Owned(rcpt(m))).collect();
        // 3fff::/20 is for documentation (RFC 9637): nobody connects from there. The detector tells networks apart by /32.
        let client_ip = Some(IpAddr::V6(Ipv6Addr::new(0x3fff, n, 0, 0, 0, 0, 0, 1)));
        let sent = Kind::Send(Send {
            client_ip,
            rcpts: Recipients { count: u64::from(RECIPIENTS), named },
            queue_id: Some(Cow::Borrowed(&queue_id)),
            ..Send::default()
        });
        push(&format!("{slot}-{n}"), sent)?;
        for m in 0..REFUSED {
            let refused = Kind::Outcome(crate::event::Outcome {
                relay: None,
                rcpt: Cow::Owned(rcpt(m)),
                status: Status::Bounced,
                dsn: Some(Cow::Borrowed("5.1.1")),
                reply: Some(Cow::Borrowed("550 5.1.1 user unknown")),
                queue_id: Some(Cow::Borrowed(&queue_id)),
                relay_queue_id: None,
            });
            push(&format!("{slot}-{n}-{m}"), refused)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: i64 = 60_000;
    const BEGIN_MS: i64 = 1_772_438_400_000;

    fn flagged(account: &str, ts_ms: i64) -> Alert {
        let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
        let alert: Alert = serde_json::from_str(line).unwrap();
        Alert { account: account.to_owned(), ts: Timestamp(ts_ms), ..alert }
    }

    fn accounts(records: &[Record]) -> Vec<String> {
        let mut names: Vec<_> = records.iter().map(|r| r.key.clone()).collect();
        names.dedup();
        names
    }

    #[test]
    fn every_partition_has_an_account_of_its_own() {
        for partitions in [1, 3, 64, 500] {
            let mut heart = Heart::new(MINUTE_MS, Vec::new(), BEGIN_MS);
            heart.end(BEGIN_MS + MINUTE_MS);
            let names = accounts(&heart.begin(partitions, BEGIN_MS + MINUTE_MS).unwrap());
            let hit: Vec<i32> = names.iter().map(|name| partition_of(name.as_bytes(), partitions)).collect();
            assert_eq!(hit, (0..partitions).collect::<Vec<_>>());
            assert!(names.iter().all(|name| crate::core::beat::is_beat(name)));
        }
    }

    #[test]
    fn silence_of_one_partition_is_silence() {
        let mut heart = Heart::new(MINUTE_MS, vec!["watch".to_owned()], BEGIN_MS + 1);
        assert!(!heart.is_due(BEGIN_MS + MINUTE_MS - 1) && heart.is_due(BEGIN_MS + MINUTE_MS));
        let first = BEGIN_MS + MINUTE_MS + 7;
        assert_eq!(heart.end(first), None);
        let names = accounts(&heart.begin(2, first).unwrap());
        assert_eq!(heart.answer(&flagged(&names[0], first), first + 40), None);
        assert_eq!(heart.answer(&flagged(&names[0], first), first + 50), None, "it is one partition's");
        assert!(heart.due(first + 100).is_empty());
        let second = first + MINUTE_MS;
        assert_eq!(heart.end(second), Some(News::StaysOut(vec![1])));
        let names = accounts(&heart.begin(2, second).unwrap());
        assert_eq!(heart.answer(&flagged(&names[1], first), second + 1), None, "the answer to the beat before");
        assert_eq!(heart.answer(&flagged(&names[1], second), second + 30), None);
        assert_eq!(heart.answer(&flagged(&names[0], second), second + 90), Some(News::Complete(90)));
        assert_eq!(heart.answer(&flagged(&names[0], second), second + 95), None, "said once");
        let due = heart.due(second + 100);
        assert_eq!((due.len(), due[0].0.endpoint.as_str(), due[0].1.kind.as_str()), (1, "watch", "heartbeat"));
        assert!(heart.due(second + 100).is_empty(), "it is under way");
        let down = Outcome::Retry { status: None, after: None, why: "no connection".into() };
        heart.done(due[0].0.attempt, &down, second + 200);
        assert!(heart.due(second + 200 + AGAIN_MS - 1).is_empty());
        let again = heart.due(second + 200 + AGAIN_MS);
        assert_eq!((again.len(), &again[0].1), (1, &due[0].1));
        let failed = second + 300 + AGAIN_MS;
        heart.done(again[0].0.attempt, &down, failed);
        assert!(heart.due(failed + 2 * AGAIN_MS - 1).is_empty(), "it waits twice as long");
        let third = heart.due(failed + 2 * AGAIN_MS);
        let busy =
            Outcome::Retry { status: Some(429), after: Some(std::time::Duration::from_secs(30)), why: "429".into() };
        heart.done(third[0].0.attempt, &busy, failed + 2 * AGAIN_MS);
        assert!(heart.due(failed + 2 * AGAIN_MS + 29_999).is_empty(), "it wants to be left alone");
        let fourth = heart.due(failed + 2 * AGAIN_MS + 30_000);
        heart.done(fourth[0].0.attempt, &Outcome::Gone, failed + 2 * AGAIN_MS + 30_000);
        assert!(heart.due(second + MINUTE_MS - 1).is_empty(), "it wants nothing more");
        // It is not told after its time.
        assert_eq!(heart.end(second + MINUTE_MS), None);
        assert!(heart.due(second + 2 * MINUTE_MS).is_empty());
    }
}
