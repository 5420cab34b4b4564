//! What is known of each partition as a moment or a word, and becomes a number only when it is scraped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

#[derive(Debug, Default)]
struct Known {
    checkpoints: BTreeMap<i32, Instant>,
    halts: BTreeMap<i32, &'static str>,
}

/// The last checkpoint of each partition, and why it is halted.
#[derive(Debug, Default)]
pub(super) struct Moments(Mutex<Known>);

impl Moments {
    /// Whoever panicked while holding the lock left whole entries behind.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn checkpointed(&self, partition: i32, at: Instant) {
        self.known().checkpoints.insert(partition, at);
    }

    pub(super) fn halted(&self, partition: i32, reason: Option<&'static str>) {
        let mut known = self.known();
        match reason {
            Some(reason) => known.halts.insert(partition, reason),
            None => known.halts.remove(&partition),
        };
    }

    pub(super) fn forget(&self, partition: i32) {
        let mut known = self.known();
        known.checkpoints.remove(&partition);
        known.halts.remove(&partition);
    }
}

impl Collector for Moments {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let known = self.known();
        if !known.checkpoints.is_empty() {
            let help = "Time since the last checkpoint of a partition.";
            let mut family = encoder.encode_descriptor("checkpoint_age_seconds", help, None, MetricType::Gauge)?;
            for (partition, at) in &known.checkpoints {
                let labels = [("partition", *partition)];
                ConstGauge::new(at.elapsed().as_secs_f64()).encode(family.encode_family(&labels)?)?;
            }
        }
        if !known.halts.is_empty() {
            let help = "A partition that stands still, and why.";
            let mut family = encoder.encode_descriptor("partition_halted", help, None, MetricType::Gauge)?;
            for (partition, reason) in &known.halts {
                let labels = [("partition", partition.to_string()), ("reason", (*reason).to_owned())];
                ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
