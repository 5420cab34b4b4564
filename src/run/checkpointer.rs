//! The checkpointer: one thread that stores what the workers give it, a partition at a time, so that no worker ever waits for a
//! broker.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::orders::{Chunk, Job, NotStored, Order, Stored};
use super::shared::Shared;
use crate::kafka::changelog::{Changelog, Error};
use crate::kafka::outlet::Delivered;
use crate::state::record::SHARD_KEY;

/// A worker that gives nothing for so long has ended.
const WORKER: Duration = Duration::from_secs(30);
/// What was sent must be acknowledged within this, or the checkpoint is taken back and tried again.
const ACKNOWLEDGED: Duration = Duration::from_secs(40);

/// Until the jobs end.
pub(super) fn run(shared: &Shared, jobs: &Receiver<Job>) {
    for mut job in jobs {
        let began = Instant::now();
        let outcome = store(shared, &mut job);
        match &outcome {
            Ok(_) => shared.metrics.checkpoint_seconds.observe(began.elapsed().as_secs_f64()),
            Err(e) => shared.metrics.checkpoint_failed(reason(e)),
        }
        let Job { lease, changelog, chunks, worker } = job;
        // What the worker still gives for this checkpoint must not fill the channel for ever.
        drop(chunks);
        let (changelog, outcome) = finish(shared, changelog, outcome, &lease);
        let _ = worker.send(Order::Stored(Box::new(Stored { lease, changelog, outcome })));
    }
}

/// Why a checkpoint did not succeed.
enum Failed {
    Changelog(Error),
    /// An alert or a dead letter was refused.
    Refused(String),
    /// They are not acknowledged yet.
    Unacknowledged(u64),
    /// The group does not know us at the moment.
    NoMember,
    /// The worker is gone.
    NoWorker,
}

fn reason(failed: &Failed) -> &'static str {
    match failed {
        Failed::Changelog(Error::Fenced(_)) => "fenced",
        Failed::Changelog(Error::GivenUp) | Failed::NoWorker => "given_up",
        Failed::Changelog(_) => "aborted",
        Failed::Refused(_) => "refused",
        Failed::Unacknowledged(_) => "unacknowledged",
        Failed::NoMember => "no_member",
    }
}

fn store(shared: &Shared, job: &mut Job) -> Result<i64, Failed> {
    let lease = std::sync::Arc::clone(&job.lease);
    let wanted = || lease.is_valid();
    let changelog = &mut job.changelog;
    let mut begun = false;
    loop {
        let chunk = job.chunks.recv_timeout(WORKER).map_err(|_| Failed::NoWorker)?;
        if !begun {
            changelog.begin().map_err(Failed::Changelog)?;
            begun = true;
        }
        match chunk {
            Chunk::Accounts(accounts) => {
                shared.metrics.checkpoint_records.inc_by(accounts.len() as u64);
                shared.metrics.checkpoint_bytes.inc_by(accounts.bytes() as u64);
                for (key, value) in accounts.iter() {
                    changelog.put(key, Some(value), &wanted).map_err(Failed::Changelog)?;
                }
            }
            Chunk::Finish(record, trackers) => {
                changelog.put(SHARD_KEY, Some(&record.bytes()), &wanted).map_err(Failed::Changelog)?;
                for tracker in &trackers {
                    acknowledged(tracker, &wanted)?;
                }
                // The membership first, the lease after: while the lease holds, the membership is the one it was given under,
                // or a later one that left it to us.
                let group = shared.membership().ok_or(Failed::NoMember)?;
                if !lease.is_valid() {
                    return Err(Failed::Changelog(Error::GivenUp));
                }
                changelog.commit(record.offset, &group, &wanted).map_err(Failed::Changelog)?;
                return Ok(record.offset);
            }
        }
    }
}

fn acknowledged(tracker: &crate::kafka::outlet::Tracker, wanted: &dyn Fn() -> bool) -> Result<(), Failed> {
    let deadline = Instant::now() + ACKNOWLEDGED;
    loop {
        match tracker.state() {
            Delivered::All => return Ok(()),
            Delivered::Failed(why) => return Err(Failed::Refused(why)),
            Delivered::Waiting(n) if Instant::now() > deadline => return Err(Failed::Unacknowledged(n)),
            Delivered::Waiting(_) if !wanted() => return Err(Failed::Changelog(Error::GivenUp)),
            Delivered::Waiting(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Takes back what did not succeed, and says what the worker is to do.
fn finish(
    shared: &Shared,
    mut changelog: Changelog,
    outcome: Result<i64, Failed>,
    lease: &super::lease::Lease,
) -> (Option<Changelog>, Result<i64, NotStored>) {
    let failed = match outcome {
        Ok(offset) => return (Some(changelog), Ok(offset)),
        Err(failed) => failed,
    };
    let fenced = |words: String| {
        shared.metrics.fenced.inc();
        (None, Err(NotStored::GoBack(words)))
    };
    // Whether it was committed after all cannot be known where the answer did not come: the state says so when it is read again.
    let words = match failed {
        Failed::Changelog(Error::Fenced(words)) => return fenced(words),
        Failed::Changelog(Error::GivenUp) | Failed::NoWorker => return (None, Err(NotStored::GivenUp)),
        Failed::Changelog(Error::Aborted(words)) => words,
        Failed::Changelog(Error::Client(e)) => e.to_string(),
        Failed::Refused(words) => {
            let _ = changelog.abort(&|| lease.is_valid());
            return (None, Err(NotStored::GoBack(words)));
        }
        Failed::Unacknowledged(n) => format!("{n} alerts, signals or dead letters are not acknowledged yet"),
        Failed::NoMember => "the group does not know this instance at the moment".to_owned(),
    };
    match changelog.abort(&|| lease.is_valid()) {
        Ok(()) => (Some(changelog), Err(NotStored::TryAgain(words))),
        Err(Error::Fenced(words)) => fenced(words),
        Err(e) => (None, Err(NotStored::GoBack(format!("{words}; {e}")))),
    }
}
