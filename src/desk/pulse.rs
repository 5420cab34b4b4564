//! The hand of [`super::heartbeat`]: publishes beats to the events topic, and says in log and metrics what has become of them.

use std::time::Duration;

use super::heartbeat::{Heart, News};
use super::shared::Shared;
use super::webhook::outcome::Outcome;
use super::webhook::record::Attempt;
use crate::core::alert::Alert;
use crate::desk::webhook::body::Message;
use crate::kafka::client;
use crate::kafka::publish::{Publisher, producer_config, record};

/// How long the number of partitions may take to be known: the desk waits meanwhile.
const ASK: Duration = Duration::from_secs(3);

/// The heartbeats of an active desk.
pub(super) struct Pulse<'a> {
    shared: &'a Shared,
    heart: Heart,
    publisher: Publisher,
}

impl<'a> Pulse<'a> {
    /// `None` where no heartbeats are wanted.
    pub(super) fn begin(shared: &'a Shared, now_ms: i64) -> Result<Option<Self>, client::Error> {
        let interval_ms = i64::from(shared.settings.heartbeat_s) * 1000;
        if interval_ms == 0 {
            return Ok(None);
        }
        let marked = shared.settings.endpoints().into_iter().filter(|e| e.heartbeat).map(|e| e.name);
        let heart = Heart::new(interval_ms, marked.collect(), now_ms);
        let publisher = Publisher::new(&producer_config(&shared.kafka)?)?;
        Ok(Some(Self { shared, heart, publisher }))
    }

    /// Beats when it is time. To be called often.
    pub(super) fn tick(&mut self, now_ms: i64) {
        self.publisher.hear();
        if !self.heart.is_due(now_ms) {
            return;
        }
        let metrics = &self.shared.metrics;
        if let Some(News::StaysOut(silent)) = self.heart.end(now_ms) {
            metrics.heartbeats_missed.inc();
            tracing::warn!(
                partitions = ?silent,
                "a heartbeat stays out: these partitions of {} were not answered within {} s, so that hijacks in them may go \
                 unseen: look at /readyz, mailfuse_partition_halted and the lag of the instances of `mailfuse run`",
                self.shared.kafka.topics.events,
                self.shared.settings.heartbeat_s
            );
        }
        match self.publish(now_ms) {
            Ok(()) => _ = metrics.heartbeats.inc(),
            Err(why) => {
                metrics.heartbeats_missed.inc();
                tracing::warn!(
                    "a heartbeat cannot be published: {why}; whether this desk may write to {}: `mailfuse topics check`",
                    self.shared.kafka.topics.events
                );
            }
        }
    }

    fn publish(&mut self, now_ms: i64) -> Result<(), String> {
        let events = &self.shared.kafka.topics.events;
        let partitions = match self.publisher.partitions(events, ASK) {
            Ok(Some(partitions)) => i32::try_from(partitions).map_err(|e| e.to_string())?,
            Ok(None) => return Err(format!("there is no topic {events}")),
            Err(e) => return Err(self.publisher.explain("the brokers do not say how many partitions there are", &e)),
        };
        for (number, made) in self.heart.begin(partitions, now_ms).map_err(|e| e.to_string())?.iter().enumerate() {
            let record = record(events, number, Some(made.key.as_bytes()), Some(&made.value));
            // Where the queue is full, what stays out shows as silence.
            self.publisher.offer(record).map_err(|e| self.publisher.explain("a record was not taken", &e))?;
        }
        Ok(())
    }

    /// Takes an alert that is marked.
    pub(super) fn answer(&mut self, alert: &Alert, now_ms: i64) {
        if let Some(News::Complete(slowest_ms)) = self.heart.answer(alert, now_ms) {
            let metrics = &self.shared.metrics;
            metrics.heartbeats_complete.inc();
            metrics.heartbeat_last_s.set(now_ms.saturating_sub(slowest_ms) / 1000);
            metrics.heartbeat_latency_ms.set(slowest_ms);
            tracing::debug!(slowest_ms, "a heartbeat is complete");
        }
    }

    /// What to send now.
    pub(super) fn due(&mut self, now_ms: i64) -> Vec<(Attempt, Message)> {
        self.heart.due(now_ms)
    }

    /// Takes how an attempt ended.
    pub(super) fn done(&mut self, attempt: u64, outcome: &Outcome, now_ms: i64) {
        self.heart.done(attempt, outcome, now_ms);
    }
}
