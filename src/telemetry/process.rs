//! Numbers of the process, under the names that every Prometheus dashboard knows. Read when they are scraped.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

/// The process that we are.
#[derive(Debug)]
pub(super) struct Process {
    /// When it began, in Unix seconds.
    pub(super) started_s: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let name = "process_start_time_seconds";
        let started =
            encoder.encode_descriptor(name, "When the process began, in Unix time.", None, MetricType::Gauge)?;
        ConstGauge::new(self.started_s).encode(started)?;
        if let Some(bytes) = resident_bytes() {
            let name = "process_resident_memory_bytes";
            let resident = encoder.encode_descriptor(name, "Memory in use.", None, MetricType::Gauge)?;
            ConstGauge::new(bytes).encode(resident)?;
        }
        Ok(())
    }
}

/// Resident memory, where the system has Linux's `/proc`.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}
