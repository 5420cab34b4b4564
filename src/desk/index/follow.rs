//! The thread that brings the `desk` topic into the index. Where the database fails, it is tried again, and set aside where it is
//! damaged; nothing else waits for it.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::Message;

use super::{Error, Index, Place};
use crate::desk::role;
use crate::desk::shared::{IndexState, Said, Shared};
use crate::event::Timestamp;
use crate::kafka::outlet::now_ms;
use crate::kafka::restore::{self, Read, Reader};

/// Records of one transaction, at most.
const BATCH: usize = 1000;
/// How often the topic's end is looked for.
const LOOK: Duration = Duration::from_millis(200);
/// The wait after a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// How often it is written down that nothing is new, in milliseconds.
const STAMP_MS: i64 = 60_000;
/// An index that was not written for so long is made anew: what was taken away meanwhile may have left no mark. Kafka keeps such
/// marks for a day (`delete.retention.ms`).
const STALE_MS: i64 = 12 * 3_600_000;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Index(#[from] Error),
    #[error(transparent)]
    Read(#[from] restore::Error),
    #[error("desk.database {}: damaged, as a question to it has shown. It is set aside, and made again from the topics", .0.display())]
    Damaged(PathBuf),
}

/// Until the desk ends.
pub fn run(shared: &Shared) {
    let mut said = Said::default();
    while !shared.is_stopping() {
        let Err(failure) = follow(shared) else { return };
        if shared.is_stopping() {
            return;
        }
        if said.is_news(&failure.to_string()) {
            tracing::error!("the index is not up to date, alerts and their delivery do not wait for it: {failure}");
        }
        let is_damaged = match &failure {
            Failure::Index(e) => e.is_damaged(),
            Failure::Damaged(_) => true,
            Failure::Read(_) => false,
        };
        let as_of = match &failure {
            Failure::Read(_) => whole(shared),
            _ => None,
        };
        if is_damaged {
            set_aside(&shared.path);
            // Whatever was found until now was found in that file.
            shared.take_damage();
        }
        let why = failure.to_string();
        shared.set_index(match as_of {
            Some(as_of) => IndexState::Away { as_of, why },
            None => IndexState::Failed { why },
        });
        shared.wait(AGAIN);
    }
}

/// As of when the index is whole; `None` where it is not: half of it would say that there is no more.
fn whole(shared: &Shared) -> Option<Timestamp> {
    let place = Index::open(&shared.path).and_then(|index| index.place()).ok()??;
    let is_whole = place.is_whole && place.topic == shared.kafka.topics.desk;
    // What was looked at since then without anything new is not written down.
    is_whole.then(|| Timestamp(place.at_ms.max(shared.index_looked_ms.load(Ordering::Acquire))))
}

/// Renames what cannot be used, with what belongs to it.
fn set_aside(path: &Path) {
    let name = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::path::PathBuf::from(name)
    };
    for suffix in ["", "-wal", "-shm"] {
        let (from, to) = (name(suffix), name(&format!("{suffix}.damaged")));
        match std::fs::rename(&from, &to) {
            Ok(()) => tracing::warn!("{} was set aside as {}", from.display(), to.display()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => tracing::error!("{} cannot be set aside: {e}; delete it", from.display()),
        }
    }
}

fn follow(shared: &Shared) -> Result<(), Failure> {
    let topic = &shared.kafka.topics.desk;
    let wanted = || !shared.is_stopping();
    let mut index = Index::open(&shared.path)?;
    let reader = Reader::new(&shared.kafka).map_err(restore::Error::from)?;
    let (low, high) = reader.range(topic, 0)?;
    let mut place = match index.place()? {
        Some(place)
            if place.topic == *topic
                && now_ms() - place.at_ms < STALE_MS
                && (place.next_offset.max(low)..=high).contains(&place.next_offset) =>
        {
            place
        }
        _ => {
            shared.set_index(IndexState::Catching);
            index.clear()?;
            Place { topic: topic.clone(), next_offset: low, at_ms: now_ms(), is_whole: false }
        }
    };
    // A file that cannot be written is told at once, not with the next alert.
    index.apply(&[], &place)?;
    // One that was whole stays so until something is added to it.
    if !(place.is_whole && matches!(shared.index(), IndexState::Away { .. })) {
        shared.set_index(IndexState::Catching);
    }
    let mut stamped_ms = i64::MIN;
    while wanted() {
        if shared.take_damage() {
            return Err(Failure::Damaged(shared.path.clone()));
        }
        let mut records = Vec::new();
        let (before, was_whole, mut next) = (place.next_offset, place.is_whole, place.next_offset);
        let read = reader.read(topic, 0, next, &wanted, &mut |message| {
            records.extend(role::read(shared, message));
            next = message.offset() + 1;
            Ok(if records.len() >= BATCH { Read::Enough } else { Read::On })
        });
        match read {
            Ok(()) => {}
            Err(restore::Error::GivenUp) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        let is_whole = records.len() < BATCH;
        // Of one that could not be read for long much is missing, and half of that would say that there is no more.
        if !is_whole && matches!(shared.index(), IndexState::Away { .. }) {
            shared.set_index(IndexState::Catching);
        }
        place = Place { next_offset: next, at_ms: now_ms(), is_whole, ..place };
        if next > before || is_whole != was_whole || place.at_ms > stamped_ms.saturating_add(STAMP_MS) {
            index.apply(&records, &place)?;
            stamped_ms = place.at_ms;
            shared.index_next.store(next, Ordering::Release);
        }
        if is_whole {
            shared.index_looked_ms.store(place.at_ms, Ordering::Release);
            shared.set_index(IndexState::Ready);
            shared.wait(LOOK);
        }
    }
    Ok(())
}
