//! The queue ids of a burst: the events of one account, from the partition that has it.

use rdkafka::Message as _;
use serde::Serialize;

use super::Tell;
use super::burst::Burst;
use crate::desk::shared::Shared;
use crate::event::{Decoded, Event, Limits, Timestamp, decode};
use crate::kafka::look_back::{Bounds, Covered, Stretch, look_back, record_ms};
use crate::kafka::partitioner::partition_of;
use crate::kafka::restore::{Error, Reader};
use crate::kafka::{FUTURE_MS, Kafka};
use crate::report::queued::{Counts, QueueId, Queued};

/// What was found for an incident.
#[derive(Debug)]
pub(super) struct Found {
    account: String,
    from: Timestamp,
    to: Option<Timestamp>,
    ids: Vec<QueueId>,
    counts: Counts,
    covered: Covered,
}

/// What is answered.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    incident: String,
    account: String,
    /// The burst's first message.
    from: Timestamp,
    /// Its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
    counts: Counts,
    /// Ids, of the host where one was asked for.
    found: usize,
    /// Ids of which no event says whose they are; left out where a host was asked for.
    host_unknown: usize,
    /// Whether fewer are listed than were found.
    is_cut: bool,
    ids: Vec<QueueId>,
    covered: Covered,
}

/// Reads.
pub(super) fn read(shared: &Shared, burst: &Burst, tell: &Tell<'_>) -> Result<Found, String> {
    let (from, to) = (burst.from, burst.to());
    let account = burst.incident.account.clone();
    let mut queued = Queued::new(from, to);
    let wanted = |progress| tell(progress) && !shared.is_stopping();
    let bounds = super::bounds(&shared.settings);
    let of = Own { kafka: &shared.kafka, limits: &shared.events, account: &account, from };
    let covered = of.events(bounds, &wanted, &mut |event| queued.event(event)).map_err(|e| e.to_string())?;
    let (ids, counts) = queued.finish();
    Ok(Found { account, from, to, ids, counts, covered })
}

/// The events of one account.
pub(super) struct Own<'a> {
    pub(super) kafka: &'a Kafka,
    pub(super) limits: &'a Limits,
    pub(super) account: &'a str,
    pub(super) from: Timestamp,
}

impl Own<'_> {
    /// Passes them on in their order, up to now.
    pub(super) fn events(
        &self,
        bounds: Bounds,
        tell: &Tell<'_>,
        each: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Covered, Error> {
        let partitions = Reader::new(self.kafka)?.partitions(&self.kafka.topics.events)?;
        let partition = Some(partition_of(self.account.as_bytes(), partitions));
        let stretch = Stretch { partition, from_ms: self.from.0.saturating_sub(FUTURE_MS), until_ms: None };
        look_back(self.kafka, stretch, bounds, tell, &mut |message| {
            if message.key() != Some(self.account.as_bytes()) {
                return;
            }
            let not_after = record_ms(message).map(|ms| Timestamp(ms.saturating_add(FUTURE_MS)));
            if let Ok(Decoded::Event(event, _)) = decode(message.payload().unwrap_or_default(), self.limits, not_after)
                && event.account.as_deref() == Some(self.account)
            {
                each(&event);
            }
        })
    }
}

impl Found {
    /// For a host, where one is asked for, and so many ids at most.
    pub(super) fn answer(&self, incident: String, host: Option<&str>, limit: usize) -> Answer {
        let is_of = |q: &&QueueId| host.is_none_or(|h| q.host.as_deref().is_some_and(|q| q.eq_ignore_ascii_case(h)));
        let found = self.ids.iter().filter(is_of).count();
        let ids: Vec<QueueId> = self.ids.iter().filter(is_of).take(limit).cloned().collect();
        Answer {
            incident,
            account: self.account.clone(),
            from: self.from,
            to: self.to,
            counts: self.counts,
            found,
            host_unknown: self.ids.iter().filter(|q| q.host.is_none()).count(),
            is_cut: ids.len() < found,
            ids,
            covered: self.covered.clone(),
        }
    }
}
