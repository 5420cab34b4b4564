//! When there is history since: the time of the oldest event on any partition, found out once, before the first event counts.

use std::sync::{Mutex, PoisonError};

use rdkafka::Message;

use super::restore::{Error, Read, Reader};
use super::settings::Kafka;
use crate::event::{Decoded, Limits, Timestamp, decode};

/// Records of one partition that are looked at for one that can be read.
const LOOK_AT: u32 = 1_000;

/// The beginning of all history, as far as the events topic tells. Shards that have a state have it from there.
#[derive(Debug, Default)]
pub struct History(Mutex<Option<Timestamp>>);

impl History {
    /// The oldest first event of all partitions; `None` while there is no event at all. It is asked for once.
    ///
    /// # Errors
    /// Where the brokers do not answer.
    pub fn since(
        &self,
        reader: &Reader,
        kafka: &Kafka,
        partitions: i32,
        limits: &Limits,
        wanted: &dyn Fn() -> bool,
    ) -> Result<Option<Timestamp>, Error> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_some() {
            return Ok(*known);
        }
        let topic = &kafka.topics.events;
        let mut oldest: Option<Timestamp> = None;
        for partition in 0..partitions {
            let (low, high) = reader.range(topic, partition)?;
            if high <= low {
                continue;
            }
            let mut looked = 0;
            reader.read(topic, partition, low, wanted, &mut |message| {
                looked += 1;
                let not_after = message.timestamp().to_millis().map(|ms| Timestamp(ms + super::FUTURE_MS));
                let line = message.payload().unwrap_or_default();
                if let Ok(Decoded::Event(event, _)) = decode(line, limits, not_after) {
                    oldest = Some(oldest.map_or(event.ts, |o: Timestamp| o.min(event.ts)));
                    return Ok(Read::Enough);
                }
                Ok(if looked < LOOK_AT { Read::On } else { Read::Enough })
            })?;
        }
        *known = oldest;
        Ok(oldest)
    }
}
