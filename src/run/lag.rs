//! How far behind: the ends of partitions, from librdkafka's statistics.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use serde::Deserialize;

use super::shared::Shared;
use crate::kafka::outlet::now_ms;

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: HashMap<String, Topic>,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: HashMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    /// The last stable offset: under read_committed no further can be read.
    #[serde(default = "unknown")]
    ls_offset: i64,
}

fn unknown() -> i64 {
    -1
}

/// Takes the ends of our partitions from librdkafka's statistics, once a second.
pub(super) fn note(shared: &Shared, json: &[u8]) {
    let statistics: Statistics = match serde_json::from_slice(json) {
        Ok(statistics) => statistics,
        Err(e) => {
            tracing::warn!("librdkafka's statistics cannot be read: {e}");
            return;
        }
    };
    let Some(topic) = statistics.topics.get(&shared.kafka.topics.events) else { return };
    let now_ms = now_ms();
    let (mut accounts, mut known) = (0, 0);
    for (partition, board) in shared.boards() {
        accounts += board.accounts.load(Ordering::Relaxed);
        known += board.known.load(Ordering::Relaxed);
        let Some(end) = topic.partitions.get(&partition.to_string()).map(|p| p.ls_offset).filter(|o| *o >= 0) else {
            continue;
        };
        board.high.store(end, Ordering::Relaxed);
        let lag = board.lag().unwrap_or(0);
        shared.metrics.lag_messages.at(partition).set(lag);
        let newest_ms = board.newest_ms.load(Ordering::Relaxed);
        let behind_s = if lag > 0 && newest_ms > i64::MIN { (now_ms - newest_ms).max(0) as f64 / 1000.0 } else { 0.0 };
        shared.metrics.lag_seconds.at(partition).set(behind_s);
    }
    if accounts > 0 {
        shared.metrics.accounts_known_ratio.set(known as f64 / accounts as f64);
    }
}
