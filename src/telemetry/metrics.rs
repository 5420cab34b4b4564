//! The numbers of `mailfuse run`, for Prometheus.
//!
//! Every update is an atomic or, where a label is looked up, a read lock: callers add once a batch, never once an event. What
//! ages (the last checkpoint) is kept as a moment and turned into an age when it is scraped, so that it goes on ageing while
//! whoever should report it hangs.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::hands::HandsMetrics;
use super::labels::{OfAttempt, OfConfig, OfEndpoint, OfFlag, OfKind, OfPartition, OfReason, OfReject, OfResult, flag};
pub use super::labels::{Rebalance, Reload};
use super::listing::ListingMetrics;
use super::moments::Moments;
use crate::core::alert::{AlertKind, Severity};
use crate::desk::webhook::outbox::Health;
use crate::event::Reject;

/// What [`Metrics::encode`] writes, as an HTTP `Content-Type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A sum of seconds.
pub type Seconds = Counter<f64, AtomicU64>;
/// A number that goes up and down and has a fraction.
pub type Real = Gauge<f64, AtomicU64>;

/// From 1 ms to a minute.
const LATENCY_S: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// An event is decided in microseconds; buckets from 1 ms would all hold the same.
const DECIDE_S: [f64; 13] = [1e-7, 2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 1e-3, 1e-2, 1e-1];
/// A great state takes minutes to read.
const RESTORE_S: [f64; 14] = [0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];

/// One metric of every partition.
#[derive(Debug, Clone)]
pub struct PerPartition<M>(Family<OfPartition, M>);

impl<M: Default> Default for PerPartition<M> {
    fn default() -> Self {
        Self(Family::default())
    }
}

impl<M: Default + Clone> PerPartition<M> {
    /// That of one partition. It may be kept: a clone shares the atomic; but one that is kept beyond
    /// [`Metrics::forget_partition`] is not seen any more.
    pub fn at(&self, partition: i32) -> M {
        self.0.get_or_create_owned(&OfPartition { partition })
    }

    fn forget(&self, partition: i32) {
        self.0.remove(&OfPartition { partition });
    }
}

/// Every metric, and the registry that writes them out. To be shared in an [`Arc`].
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    moments: Arc<Moments>,
    /// Events counted.
    pub events: PerPartition<Counter>,
    /// Repeats of an event's id.
    pub duplicates: PerPartition<Counter>,
    /// Events older than every window.
    pub late: PerPartition<Counter>,
    /// Events of a kind that this version does not know.
    pub unknown_kinds: PerPartition<Counter>,
    /// Records whose key is not their account's.
    pub misplaced_keys: PerPartition<Counter>,
    /// Accounts seen on a partition that is not theirs.
    pub split_accounts: Counter,
    /// Records not yet read.
    pub lag_messages: PerPartition<Gauge>,
    /// How far the newest event's time is behind now, in seconds.
    pub lag_seconds: PerPartition<Real>,
    /// From an event's append to the acknowledgement of the alert that it caused.
    pub event_to_alert_seconds: Histogram,
    /// Mean time to decide an event, observed once a batch.
    pub decide_seconds: Histogram,
    /// Time that a checkpoint takes.
    pub checkpoint_seconds: Histogram,
    /// Records written by checkpoints.
    pub checkpoint_records: Counter,
    /// Bytes written by checkpoints.
    pub checkpoint_bytes: Counter,
    /// Time that restoring a partition takes.
    pub restore_seconds: Histogram,
    /// Records read to restore.
    pub restore_records: Counter,
    /// Bytes read to restore.
    pub restore_bytes: Counter,
    /// Accounts held.
    pub accounts: PerPartition<Gauge>,
    /// Bytes that they take.
    pub account_bytes: PerPartition<Gauge>,
    /// Share of the accounts that have enough history; not a number until it is set.
    pub accounts_known_ratio: Real,
    /// Incidents that are open.
    pub open_incidents: PerPartition<Gauge>,
    /// Alerts acknowledged by the broker.
    pub alerts_sent: Counter,
    /// Alerts that the broker did not take.
    pub alerts_failed: Counter,
    /// Signals acknowledged by the broker.
    pub signals_sent: Counter,
    /// Dead letters acknowledged by the broker.
    pub rejects_sent: Counter,
    /// Partitions that are ours.
    pub partitions_assigned: Gauge,
    /// Time in which reading waited for writing.
    pub paused_seconds: Seconds,
    /// Times that a newer owner shut us out.
    pub fenced: Counter,
    /// 1 while this instance is the active desk.
    pub desk_active: Gauge,
    /// Incidents that the active desk has open.
    pub desk_open_incidents: Gauge,
    /// Alerts taken by the desk, each once.
    pub desk_alerts: Counter,
    /// Alerts that the active desk has not yet taken.
    pub desk_lag_messages: Gauge,
    /// Records that the desk could not read.
    pub desk_unreadable: Counter,
    /// Times that the desk could not go on and began anew.
    pub desk_failures: Counter,
    /// 1 while the index of this instance is up to date, or being made.
    pub desk_index_ok: Gauge,
    /// Requests with a token that is none of ours.
    pub http_wrong_tokens: Counter,
    /// Heartbeats published.
    pub heartbeats: Counter,
    /// Heartbeats that all partitions have answered.
    pub heartbeats_complete: Counter,
    /// Heartbeats that were not answered by all partitions within their interval, or could not be published.
    pub heartbeats_missed: Counter,
    /// When the last complete one was published, in Unix seconds; 0 before the first.
    pub heartbeat_last_s: Gauge,
    /// How long the slowest partition took, in milliseconds.
    pub heartbeat_latency_ms: Gauge,
    attempts: Family<OfAttempt, Counter>,
    pending: Family<OfEndpoint, Gauge>,
    circuit_open: Family<OfEndpoint, Gauge>,
    disabled: Family<OfEndpoint, Gauge>,
    behind: Family<OfEndpoint, Gauge>,
    given_up: Family<OfEndpoint, Counter>,
    /// Control records read.
    pub control_records: Counter,
    /// Time in which events waited for the control topic to be read to its end.
    pub control_wait_seconds: Seconds,
    /// The hands.
    pub hands: HandsMetrics,
    /// Blocklists, and how long things took.
    pub listing: ListingMetrics,
    restoring: PerPartition<Real>,
    rejects: Family<OfReject, Counter>,
    checkpoint_failures: Family<OfReason, Counter>,
    flags: Family<OfFlag, Counter>,
    rebalances: Family<OfKind, Counter>,
    config_reloads: Family<OfResult, Counter>,
    config_info: Family<OfConfig, Gauge>,
    broker_errors: Family<OfKind, Counter>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            moments: Arc::default(),
            events: PerPartition::default(),
            duplicates: PerPartition::default(),
            late: PerPartition::default(),
            unknown_kinds: PerPartition::default(),
            misplaced_keys: PerPartition::default(),
            split_accounts: Counter::default(),
            lag_messages: PerPartition::default(),
            lag_seconds: PerPartition::default(),
            event_to_alert_seconds: Histogram::new(LATENCY_S),
            decide_seconds: Histogram::new(DECIDE_S),
            checkpoint_seconds: Histogram::new(LATENCY_S),
            checkpoint_records: Counter::default(),
            checkpoint_bytes: Counter::default(),
            restore_seconds: Histogram::new(RESTORE_S),
            restore_records: Counter::default(),
            restore_bytes: Counter::default(),
            accounts: PerPartition::default(),
            account_bytes: PerPartition::default(),
            accounts_known_ratio: Real::default(),
            open_incidents: PerPartition::default(),
            alerts_sent: Counter::default(),
            alerts_failed: Counter::default(),
            signals_sent: Counter::default(),
            rejects_sent: Counter::default(),
            partitions_assigned: Gauge::default(),
            paused_seconds: Seconds::default(),
            fenced: Counter::default(),
            desk_active: Gauge::default(),
            desk_open_incidents: Gauge::default(),
            desk_alerts: Counter::default(),
            desk_lag_messages: Gauge::default(),
            desk_unreadable: Counter::default(),
            desk_failures: Counter::default(),
            desk_index_ok: Gauge::default(),
            http_wrong_tokens: Counter::default(),
            heartbeats: Counter::default(),
            heartbeats_complete: Counter::default(),
            heartbeats_missed: Counter::default(),
            heartbeat_last_s: Gauge::default(),
            heartbeat_latency_ms: Gauge::default(),
            attempts: Family::default(),
            pending: Family::default(),
            circuit_open: Family::default(),
            disabled: Family::default(),
            behind: Family::default(),
            given_up: Family::default(),
            control_records: Counter::default(),
            control_wait_seconds: Seconds::default(),
            hands: HandsMetrics::default(),
            listing: ListingMetrics::default(),
            restoring: PerPartition::default(),
            rejects: Family::default(),
            checkpoint_failures: Family::default(),
            flags: Family::default(),
            rebalances: Family::default(),
            config_reloads: Family::default(),
            config_info: Family::default(),
            broker_errors: Family::default(),
        };
        metrics.begin().registered()
    }

    /// What is not counted from the first scrape on has no first increase: label sets that are known beforehand begin at zero.
    fn begin(self) -> Self {
        self.accounts_known_ratio.set(f64::NAN);
        for kind in Rebalance::ALL {
            self.rebalances.get_or_create_owned(&OfKind { kind: kind.name() });
        }
        for result in Reload::ALL {
            self.config_reloads.get_or_create_owned(&OfResult { result: result.name() });
        }
        for kind in [AlertKind::Flagged, AlertKind::Escalated, AlertKind::Cleared] {
            for severity in [Severity::Warning, Severity::Critical] {
                self.flags.get_or_create_owned(&flag(kind, severity));
            }
        }
        self
    }

    /// The names, without `mailfuse_` and, of counters, without `_total`: the encoder adds both.
    fn registered(mut self) -> Self {
        let mut registry = Registry::default();
        let started_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        registry.register_collector(Box::new(super::process::Process { started_s }));
        let ours = registry.sub_registry_with_prefix("mailfuse");
        let mut add = |name: &str, help: &str, metric: Box<dyn Registered>| metric.register(ours, name, help);
        add("events", "Events counted", of(&self.events.0));
        add("rejects", "Records that are no event, by reason", of(&self.rejects));
        add("duplicates", "Events dropped because their account had their id already", of(&self.duplicates.0));
        add("late", "Events older than every window", of(&self.late.0));
        add("unknown_kinds", "Records of a kind that this version does not know", of(&self.unknown_kinds.0));
        add("misplaced_keys", "Records whose key is not their account's", of(&self.misplaced_keys.0));
        add("split_accounts", "Accounts seen on a partition that is not theirs", of(&self.split_accounts));
        add("lag_messages", "Records not yet read", of(&self.lag_messages.0));
        add("lag_seconds", "How far the newest event's time is behind now", of(&self.lag_seconds.0));
        add(
            "event_to_alert_seconds",
            "From an event's append to the acknowledgement of its alert",
            of(&self.event_to_alert_seconds),
        );
        add("decide_seconds", "Mean time to decide an event, observed once a batch", of(&self.decide_seconds));
        add("checkpoint_seconds", "Time that a checkpoint takes", of(&self.checkpoint_seconds));
        add("checkpoint_records", "Records written by checkpoints", of(&self.checkpoint_records));
        add("checkpoint_bytes", "Bytes written by checkpoints", of(&self.checkpoint_bytes));
        add("checkpoint_failures", "Checkpoints that failed, by reason", of(&self.checkpoint_failures));
        add("restore_seconds", "Time that restoring a partition takes", of(&self.restore_seconds));
        add("restore_records", "Records read to restore", of(&self.restore_records));
        add("restore_bytes", "Bytes read to restore", of(&self.restore_bytes));
        add("restoring", "Share of its state that a partition has read, absent when done", of(&self.restoring.0));
        add("accounts", "Accounts held", of(&self.accounts.0));
        add("account_bytes", "Bytes that accounts take", of(&self.account_bytes.0));
        add("accounts_known_ratio", "Share of accounts with enough history", of(&self.accounts_known_ratio));
        add("open_incidents", "Incidents that are open", of(&self.open_incidents.0));
        add("flags", "Alerts decided, by what they say and how bad it is", of(&self.flags));
        add("alerts_sent", "Alerts acknowledged by the broker", of(&self.alerts_sent));
        add("alerts_failed", "Alerts that the broker did not take", of(&self.alerts_failed));
        add("signals_sent", "Signals acknowledged by the broker", of(&self.signals_sent));
        add("rejects_sent", "Dead letters acknowledged by the broker", of(&self.rejects_sent));
        add("partitions_assigned", "Partitions that are ours", of(&self.partitions_assigned));
        add("paused_seconds", "Time in which reading waited for writing", of(&self.paused_seconds));
        add("rebalances", "Changes of the partitions that are ours", of(&self.rebalances));
        add("config_reloads", "Configurations read again, by what became of them", of(&self.config_reloads));
        add("config_info", "The configuration in force", of(&self.config_info));
        add("fenced", "Times that a newer owner shut us out", of(&self.fenced));
        add("desk_active", "1 while this instance is the active desk", of(&self.desk_active));
        add("desk_open_incidents", "Incidents that the active desk has open", of(&self.desk_open_incidents));
        add("desk_alerts", "Alerts taken by the desk, each once", of(&self.desk_alerts));
        add("desk_lag_messages", "Alerts that the active desk has not yet taken", of(&self.desk_lag_messages));
        add("desk_unreadable", "Records that the desk could not read", of(&self.desk_unreadable));
        add("desk_failures", "Times that the desk could not go on and began anew", of(&self.desk_failures));
        add(
            "desk_index_ok",
            "1 while the index of this instance is up to date, or being made",
            of(&self.desk_index_ok),
        );
        add("http_wrong_tokens", "Requests with a token that is none of ours", of(&self.http_wrong_tokens));
        add("heartbeats", "Heartbeats published", of(&self.heartbeats));
        add("heartbeats_complete", "Heartbeats that all partitions answered", of(&self.heartbeats_complete));
        add("heartbeats_missed", "Heartbeats that stayed out, in part or as a whole", of(&self.heartbeats_missed));
        let last = "When the last complete heartbeat was published, in Unix seconds; 0: none yet";
        add("heartbeat_last_timestamp_seconds", last, of(&self.heartbeat_last_s));
        let slowest = "How long the slowest partition took to answer the last complete heartbeat";
        add("heartbeat_latency_milliseconds", slowest, of(&self.heartbeat_latency_ms));
        add("webhook_attempts", "Messages sent to endpoints, by how that ended", of(&self.attempts));
        add("webhook_pending", "Messages that wait at an endpoint", of(&self.pending));
        add("webhook_circuit_open", "1 while an endpoint does not answer and is only probed", of(&self.circuit_open));
        add("webhook_disabled", "1 while an endpoint wants nothing (410)", of(&self.disabled));
        let behind = "Alerts that wait in the desk topic, because too many messages wait at an endpoint";
        add("webhook_behind", behind, of(&self.behind));
        add("webhook_given_up", "Messages that were given up: nobody gets them", of(&self.given_up));
        add("control_records", "Control records read", of(&self.control_records));
        add(
            "control_wait_seconds",
            "Time in which events waited for the control topic",
            of(&self.control_wait_seconds),
        );
        add("broker_errors", "Errors of the broker or of the way to it, by kind", of(&self.broker_errors));
        self.hands.register(&mut add);
        self.listing.register(&mut add);
        ours.register_collector(Box::new(Arc::clone(&self.moments)));
        self.registry = registry;
        self
    }

    /// An attempt at an endpoint has ended.
    pub fn delivery(&self, endpoint: &str, outcome: &'static str) {
        self.attempts.get_or_create_owned(&OfAttempt { endpoint: endpoint.to_owned(), outcome }).inc();
    }

    /// How an endpoint does, and how many alerts it is behind.
    pub fn endpoint(&self, endpoint: &str, health: &Health, behind: u64) {
        let label = OfEndpoint { endpoint: endpoint.to_owned() };
        self.pending.get_or_create_owned(&label).set(health.pending as i64);
        self.circuit_open.get_or_create_owned(&label).set(i64::from(health.circuit_open));
        self.disabled.get_or_create_owned(&label).set(i64::from(health.disabled_ms.is_some()));
        self.behind.get_or_create_owned(&label).set(i64::try_from(behind).unwrap_or(i64::MAX));
        self.given_up.get_or_create_owned(&label);
    }

    /// So many messages were given up.
    pub fn given_up(&self, endpoint: &str, messages: u64) {
        self.given_up.get_or_create_owned(&OfEndpoint { endpoint: endpoint.to_owned() }).inc_by(messages);
    }

    /// Drops what only the active desk knows: this is not it any more. Counters stay: they count what was done here.
    pub fn forget_desk(&self) {
        self.desk_open_incidents.set(0);
        self.desk_lag_messages.set(0);
        self.listing.forget();
        for gauges in [&self.pending, &self.circuit_open, &self.disabled, &self.behind] {
            gauges.clear();
        }
    }

    /// Begins the counters of a partition that is ours now at zero, so that their first increase is seen.
    pub fn meet_partition(&self, partition: i32) {
        for counters in [&self.events, &self.duplicates, &self.late, &self.unknown_kinds, &self.misplaced_keys] {
            counters.at(partition);
        }
        for reason in Reject::REASONS {
            self.rejects.get_or_create_owned(&OfReject { partition, reason });
        }
    }

    /// Drops the gauges of a partition that is not ours any more. Its counters stay: they count what was done here.
    pub fn forget_partition(&self, partition: i32) {
        for gauges in [&self.lag_messages, &self.accounts, &self.account_bytes, &self.open_incidents] {
            gauges.forget(partition);
        }
        self.lag_seconds.forget(partition);
        self.restoring.forget(partition);
        self.moments.forget(partition);
    }

    /// Counts `n` records that were no event, `reason` being [`Reject::reason`].
    pub fn rejected(&self, partition: i32, reason: &'static str, n: u64) {
        self.rejects.get_or_create(&OfReject { partition, reason }).inc_by(n);
    }

    /// Counts an alert that was decided.
    pub fn flagged(&self, kind: AlertKind, severity: Severity) {
        self.flags.get_or_create(&flag(kind, severity)).inc();
    }

    /// Says how much of its state a partition has read, 0 to 1; `None` when it is done.
    pub fn restoring(&self, partition: i32, fraction: Option<f64>) {
        match fraction {
            Some(fraction) => {
                self.restoring.at(partition).set(fraction);
            }
            None => self.restoring.forget(partition),
        }
    }

    /// Says when the last checkpoint of a partition was committed. Its age is counted from here.
    pub fn checkpointed(&self, partition: i32, at: Instant) {
        self.moments.checkpointed(partition, at);
    }

    /// Counts a failed checkpoint. `reason` is a short fixed name.
    pub fn checkpoint_failed(&self, reason: &'static str) {
        self.checkpoint_failures.get_or_create(&OfReason { reason }).inc();
    }

    /// Says why a partition stands still, by a short fixed name; `None` when it goes on.
    pub fn halted(&self, partition: i32, reason: Option<&'static str>) {
        self.moments.halted(partition, reason);
    }

    /// Counts a rebalance.
    pub fn rebalanced(&self, what: Rebalance) {
        self.rebalances.get_or_create(&OfKind { kind: what.name() }).inc();
    }

    /// Counts a configuration that was read again.
    pub fn reloaded(&self, what: Reload) {
        self.config_reloads.get_or_create(&OfResult { result: what.name() }).inc();
    }

    /// Says which configuration is in force.
    pub fn config(&self, digest: &str) {
        self.config_info.clear();
        let labels = OfConfig { digest: digest.to_owned(), version: env!("CARGO_PKG_VERSION") };
        self.config_info.get_or_create(&labels).set(1);
    }

    /// Counts an error of the broker, or of the way to it. `kind` is a short fixed name.
    pub fn broker_error(&self, kind: &'static str) {
        self.broker_errors.get_or_create(&OfKind { kind }).inc();
    }

    /// Everything in the OpenMetrics text format, which Prometheus reads.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        // Writing into a string cannot fail.
        if text::encode(&mut out, &self.registry).is_err() {
            tracing::error!("metrics cannot be written");
        }
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A metric that can be put into a registry without its type being known: what makes the table above one line a metric.
pub(super) trait Registered {
    fn register(self: Box<Self>, registry: &mut Registry, name: &str, help: &str);
}

impl<M: Metric> Registered for M {
    fn register(self: Box<Self>, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, *self);
    }
}

pub(super) fn of<M: Metric + Clone>(metric: &M) -> Box<dyn Registered> {
    Box::new(metric.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written_and_what_is_forgotten_is_not() {
        let metrics = Metrics::new();
        metrics.meet_partition(3);
        metrics.events.at(3).inc_by(41);
        metrics.rejected(3, "not_json", 2);
        metrics.flagged(AlertKind::Flagged, Severity::Critical);
        metrics.config("old");
        metrics.config("new");
        metrics.lag_messages.at(3).set(7);
        metrics.restoring(3, Some(0.5));
        metrics.checkpointed(3, Instant::now());
        metrics.halted(3, Some("memory"));
        metrics.decide_seconds.observe(2e-6);
        let text = metrics.encode();
        for line in [
            "mailfuse_events_total{partition=\"3\"} 41",
            "mailfuse_rejects_total{partition=\"3\",reason=\"not_json\"} 2",
            "mailfuse_rejects_total{partition=\"3\",reason=\"future\"} 0",
            "mailfuse_flags_total{severity=\"critical\",kind=\"flagged\"} 1",
            "mailfuse_lag_messages{partition=\"3\"} 7",
            "mailfuse_restoring{partition=\"3\"} 0.5",
            "mailfuse_partition_halted{partition=\"3\",reason=\"memory\"} 1",
            "mailfuse_accounts_known_ratio NaN",
            "mailfuse_decide_seconds_count 1",
            "mailfuse_rebalances_total{kind=\"lost\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        assert!(text.contains("mailfuse_checkpoint_age_seconds{partition=\"3\"} 0."), "{text}");
        assert!(text.contains("digest=\"new\"") && !text.contains("digest=\"old\""), "{text}");
        assert!(!cfg!(target_os = "linux") || text.contains("\nprocess_resident_memory_bytes "), "{text}");

        metrics.forget_partition(3);
        let left: Vec<String> =
            metrics.encode().lines().filter(|l| l.contains("partition=\"3\"")).map(str::to_owned).collect();
        assert!(!left.is_empty() && left.iter().all(|l| l.contains("_total{")), "{left:?}");
    }
}
