//! What the active desk does for endpoints that are behind: reads their alerts again from the desk topic.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{Active, BATCH, Context, Error, read};
use crate::desk::record::{ALERT, Record};
use crate::kafka::outlet::now_ms;
use crate::kafka::restore::{self, Read};

/// Records of the desk topic that are read at a time for an endpoint that is behind.
const SCAN: usize = 5_000;
/// How often the end of the desk topic is looked at for one.
const LOOK: Duration = Duration::from_millis(500);

impl Active<'_> {
    /// Makes messages of alerts for which an endpoint had no room, as far as it has some now. All of them stand in the desk topic,
    /// in the order of their numbers. To be called where nothing is to be written.
    pub(super) fn catch_up(&mut self, consumer: &BaseConsumer<Context>) -> Result<(), Error> {
        if self.looked.elapsed() < LOOK {
            return Ok(());
        }
        let Some((endpoint, from)) = self.deliveries.catches_up() else { return Ok(()) };
        let ours = || consumer.context().is_ours.load(Ordering::Acquire) && !self.shared.is_stopping();
        let topic = &self.shared.kafka.topics.desk;
        let begin = match self.places.get(&endpoint) {
            Some(place) => *place,
            None => self.reader.range(topic, 0)?.0,
        };
        let (mut found, mut next, mut records) = (Vec::new(), begin, 0);
        let read = self.reader.read(topic, 0, begin, &ours, &mut |message| {
            records += 1;
            next = message.offset() + 1;
            if message.key().is_some_and(|key| key.starts_with(ALERT.as_bytes()))
                && let Some(Record::Alert(kept)) = read(self.shared, message)
                && kept.n >= from
            {
                found.push((message.offset(), kept));
            }
            Ok(if found.len() >= BATCH || records >= SCAN { Read::Enough } else { Read::On })
        });
        match read {
            Ok(()) => {}
            Err(restore::Error::GivenUp) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        if found.is_empty() && records < SCAN {
            self.looked = Instant::now();
        }
        for (place, kept) in found {
            // What was forgotten may still be there until the topic is compacted; it was counted and said when it was.
            if !self.book.has(&kept.alert) {
                continue;
            }
            let said = Arc::new(kept.alert);
            let mut told = self.book.incident(said.thread()).map(|i| i.told.clone()).unwrap_or_default();
            let about = self.book.about(&said);
            let Some(made) = self.deliveries.catch_up(&endpoint, &said, kept.n, &about, &mut told, now_ms()) else {
                next = place;
                break;
            };
            self.records.extend(made);
            self.book.tell(said.thread(), told);
            self.records.extend(self.book.incident(said.thread()).cloned().map(|i| Record::Incident(Box::new(i))));
        }
        self.places.insert(endpoint.clone(), next);
        self.deliveries.caught_up(&endpoint, self.book.next());
        if self.deliveries.behind(&endpoint).is_none() {
            self.places.remove(&endpoint);
        }
        if self.deliveries.behind(&endpoint) != Some(from) {
            self.records.push(self.deliveries.stands(&endpoint));
        }
        Ok(())
    }
}
