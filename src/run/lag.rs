//! How far behind: the ends of partitions, from librdkafka's statistics.

use std::sync::atomic::Ordering;

use super::shared::Shared;
use crate::kafka::outlet::now_ms;
use crate::kafka::statistics;

/// Takes the ends of our partitions from librdkafka's statistics, once a second.
pub(super) fn note(shared: &Shared, json: &[u8]) {
    let ends = statistics::ends(json, &shared.kafka.topics.events);
    let now_ms = now_ms();
    let (mut accounts, mut known) = (0, 0);
    for (partition, board) in shared.boards() {
        accounts += board.accounts.load(Ordering::Relaxed);
        known += board.known.load(Ordering::Relaxed);
        let Some(&end) = ends.get(&partition) else { continue };
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
