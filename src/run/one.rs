//! One record in the hands of a worker: decoded, counted, and what it causes sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::batch::Record;
use super::held::Held;
use super::shared::{Epoch, Shared};
use crate::core::alert::Alert;
use crate::core::decision::Decisions;
use crate::core::shard::Shard;
use crate::event::{Decoded, Event, Reject, Timestamp, decode};
use crate::kafka::outlet::{Full, What};
use crate::kafka::partitioner::partition_of;
use crate::kafka::rejects::{self, Origin};
use crate::kafka::restore::Reader;
use crate::kafka::{FUTURE_MS, outlet};

/// An event waits this long for decisions that may be about it.
const DECISIONS: Duration = Duration::from_secs(2);
/// Where they did not come, no event waits for them for so long.
const WITHOUT_DECISIONS: Duration = Duration::from_secs(10);

/// Why the rest of a batch does not count.
pub(super) struct Stopped;

/// What a batch counted, told at once.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub events: u64,
    duplicates: u64,
    late: u64,
    unknown_kinds: u64,
    misplaced_keys: u64,
    split_accounts: u64,
}

impl Counts {
    pub fn tell(&self, shared: &Shared, partition: i32) {
        let m = &shared.metrics;
        m.events.at(partition).inc_by(self.events);
        for (n, counter) in [
            (self.duplicates, &m.duplicates),
            (self.late, &m.late),
            (self.unknown_kinds, &m.unknown_kinds),
            (self.misplaced_keys, &m.misplaced_keys),
        ] {
            if n > 0 {
                counter.at(partition).inc_by(n);
            }
        }
        if self.split_accounts > 0 {
            m.split_accounts.inc_by(self.split_accounts);
        }
    }
}

/// One record: decoded, counted, and what it causes sent.
pub(super) fn one(
    shared: &Shared,
    epoch: &Epoch,
    held: &mut Held,
    record: Record<'_>,
    alerts: &mut Vec<Alert>,
    counts: &mut Counts,
    hasty_until: &mut Option<Instant>,
) -> Result<(), Stopped> {
    // Read again after a seek.
    if record.offset < held.next_offset {
        return Ok(());
    }
    let limits = &epoch.limits;
    let not_after = Timestamp(if record.appended_ms > 0 { record.appended_ms } else { outlet::now_ms() } + FUTURE_MS);
    let decoded = if record.value.len() > limits.max_line_bytes {
        Err(Reject::TooLong { what: "line", max: limits.max_line_bytes })
    } else {
        decode(record.value, limits, Some(not_after))
    };
    match decoded {
        Ok(Decoded::Event(event, _)) => {
            held.poison.good(1);
            counts.events += 1;
            check_key(&event, record.key, shared.partitions, held.lease.partition, counts);
            if !shared.control.is_known_for(event.ts.0) && !shared.is_stateless {
                await_decisions(shared, held, event.ts, hasty_until);
            }
            let shard = shard_of(shared, epoch, held, &event)?;
            let step = shard.step(&event, alerts);
            counts.duplicates += u64::from(step.duplicate);
            counts.late += u64::from(step.late);
            if !alerts.is_empty() {
                send_alerts(shared, held, alerts, record.appended_ms)?;
            }
        }
        Ok(Decoded::UnknownKind) => {
            held.poison.good(1);
            counts.unknown_kinds += 1;
        }
        Err(reject) => send_reject(shared, epoch, held, record, &reject)?,
    }
    held.next_offset = record.offset + 1;
    Ok(())
}

/// The shard; where there was no event at all when the partition was installed, history begins now.
fn shard_of<'a>(
    shared: &Shared,
    epoch: &Epoch,
    held: &'a mut Held,
    event: &Event<'_>,
) -> Result<&'a mut Shard, Stopped> {
    if held.shard.is_none() {
        let lease = Arc::clone(&held.lease);
        let wanted = || lease.is_valid() && !shared.is_stopping();
        let since = loop {
            let since = Reader::new(&shared.kafka).map_err(crate::kafka::restore::Error::from).and_then(|reader| {
                shared.history.since(&reader, &shared.kafka, shared.partitions, &epoch.limits, &wanted)
            });
            match since {
                Ok(since) => break since.unwrap_or(event.ts),
                Err(e) => {
                    if !wanted() {
                        return Err(Stopped);
                    }
                    tracing::warn!("when history began is not known yet: {e}");
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
        };
        let mut shard = Shard::new(Arc::clone(&epoch.policy), since);
        for decisions in shared.control.all() {
            if concerns(&decisions, held.lease.partition, shared.partitions) {
                shard.decide(decisions);
            }
        }
        held.shard = Some(shard);
    }
    held.shard.as_mut().ok_or(Stopped)
}

/// Whether a shard of this partition must know these: an account's are its own partition's, all others every one's.
pub(super) fn concerns(decisions: &Decisions, partition: i32, partitions: i32) -> bool {
    decisions.scope.account().is_none_or(|account| partition_of(account.as_bytes(), partitions) == partition)
}

/// Whether key and partition are what the account says: else its events are spread over shards.
fn check_key(event: &Event<'_>, key: &[u8], partitions: i32, partition: i32, counts: &mut Counts) {
    let Some(account) = event.account.as_deref() else { return };
    if key != account.as_bytes() {
        counts.misplaced_keys += 1;
    }
    if partition_of(account.as_bytes(), partitions) != partition {
        counts.split_accounts += 1;
    }
}

/// Waits until every decision is known that may count for an event at `ts`, for a while.
fn await_decisions(shared: &Shared, held: &Held, ts: Timestamp, hasty_until: &mut Option<Instant>) {
    if hasty_until.is_some_and(|until| Instant::now() < until) {
        return;
    }
    let began = Instant::now();
    while !shared.control.is_known_for(ts.0) && held.lease.is_valid() {
        if began.elapsed() > DECISIONS {
            *hasty_until = Some(Instant::now() + WITHOUT_DECISIONS);
            tracing::warn!(
                "{} cannot be read up to now: decisions that are being made may count late",
                shared.kafka.topics.control
            );
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    shared.metrics.control_wait_seconds.inc_by(began.elapsed().as_secs_f64());
}

pub(super) fn send_alerts(
    shared: &Shared,
    held: &Held,
    alerts: &mut Vec<Alert>,
    appended_ms: i64,
) -> Result<(), Stopped> {
    for alert in alerts.drain(..) {
        if alert.heartbeat {
            tracing::debug!(account = alert.account, "a heartbeat is flagged");
        } else {
            shared.metrics.flagged(alert.kind, alert.severity);
            tracing::info!(
                incident = alert.incident,
                account = alert.account,
                score = alert.score,
                "{:?} {:?}",
                alert.severity,
                alert.kind
            );
        }
        let json = match serde_json::to_vec(&alert) {
            Ok(json) => json,
            Err(e) => {
                shared.halt(&held.lease, "alert", format!("an alert cannot be written: {e}; this is a bug"));
                return Err(Stopped);
            }
        };
        insist(held, || {
            let what = What::Alert { appended_ms };
            shared.outlet.send(&shared.kafka.topics.alerts, alert.account.as_bytes(), &json, None, what, &held.tracker)
        })?;
    }
    Ok(())
}

fn send_reject(
    shared: &Shared,
    epoch: &Epoch,
    held: &mut Held,
    record: Record<'_>,
    reject: &Reject,
) -> Result<(), Stopped> {
    let partition = held.lease.partition;
    let topics = &shared.kafka.topics;
    shared.metrics.rejected(partition, reject.reason(), 1);
    held.board.rejects.fetch_add(1, Ordering::Relaxed);
    let detail = reject.to_string();
    tracing::debug!("{}:{partition}:{}: {detail}", topics.events, record.offset);
    let origin = Origin {
        topic: &topics.events,
        partition,
        offset: record.offset,
        timestamp_ms: (record.appended_ms > 0).then_some(record.appended_ms),
        reason: reject.reason(),
        detail: &detail,
        by: &epoch.policy.by,
    };
    insist(held, || {
        let headers = rejects::headers(&origin);
        let (headers, key, value) =
            rejects::fit(headers, Some(record.key), Some(record.value), outlet::RECORD_BYTES_MAX);
        let (key, value) = (key.unwrap_or_default(), value.unwrap_or_default());
        shared.outlet.send(&topics.rejects, key, value, Some(headers), What::Reject, &held.tracker)
    })?;
    if held.poison.bad(record.key) {
        let run = &epoch.run;
        held.is_halted = true;
        shared.halt(
            &held.lease,
            "rejects",
            format!(
                "{}:{partition}:{}: more than {} % of {} records cannot be read, the last because: {detail}. The producer is broken: \
                 mend it, then restart; what was rejected is in {}, for `mailfuse rejects list`; run.rejects_max_share = 1 reads on",
                topics.events,
                record.offset,
                run.rejects_max_share * 100.0,
                run.rejects_window,
                topics.rejects
            ),
        );
        return Err(Stopped);
    }
    Ok(())
}

/// Sends, however long the outlet is full, while the partition is ours.
fn insist(held: &Held, send: impl Fn() -> Result<(), Full>) -> Result<(), Stopped> {
    while let Err(Full) = send() {
        if !held.lease.is_valid() {
            return Err(Stopped);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
