//! The thread that tells the active desk, whichever instance that is, which stops the policy service of this one has served: a
//! relay that such an account burdens need not wait any longer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::policy::Confirmed;
use crate::kafka::Kafka;
use crate::kafka::publish::{Publisher, producer_config, record};
use crate::relays::served::Served;

/// Words that are sent together, at most.
const BATCH: usize = 256;
/// How often it is looked whether to end.
const LOOK: Duration = Duration::from_millis(200);
/// The brokers have so long to take a batch.
const PATIENCE: Duration = Duration::from_secs(5);
/// The wait after a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// What stays the same is said so often.
const SAY: Duration = Duration::from_secs(60);

/// Until `stopping`. What cannot be sent is kept and tried again; what finds no room meanwhile comes again with the next refusal.
pub(super) fn run(kafka: &Kafka, confirmed: &Receiver<Confirmed>, stopping: &AtomicBool) {
    let (mut publisher, mut owed) = (None, Vec::new());
    let mut said: Option<Instant> = None;
    while !stopping.load(Ordering::Acquire) {
        if owed.is_empty() {
            match confirmed.recv_timeout(LOOK) {
                Ok(first) => owed.push(first),
                Err(RecvTimeoutError::Timeout) => {
                    publisher.iter().for_each(Publisher::hear);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        owed.extend(confirmed.try_iter().take(BATCH - owed.len()));
        match tell(kafka, &mut publisher, &owed) {
            Ok(()) => owed.clear(),
            Err(why) => {
                // What was purged may have left its mark on the producer.
                publisher = None;
                if said.is_none_or(|at| at.elapsed() > SAY) {
                    said = Some(Instant::now());
                    tracing::warn!(
                        "the desk does not hear that stops are served, so that relays wait for relays.stop.grace_s: {why}; \
                         whether this instance may write there: `mailfuse topics check`"
                    );
                }
                let until = Instant::now() + AGAIN;
                while Instant::now() < until && !stopping.load(Ordering::Acquire) {
                    std::thread::sleep(LOOK);
                }
            }
        }
    }
}

/// Sends, and waits until all has arrived. A producer is made with the first word: most instances never have one.
fn tell(kafka: &Kafka, publisher: &mut Option<Publisher>, owed: &[Confirmed]) -> Result<(), String> {
    let publisher = match publisher {
        Some(publisher) => publisher,
        none => {
            let config = producer_config(kafka).map_err(|e| e.to_string())?;
            none.insert(Publisher::new(&config).map_err(|e| e.to_string())?)
        }
    };
    let topic = &kafka.topics.signals;
    for (number, confirmed) in owed.iter().enumerate() {
        let served = Served::new(&confirmed.measure, confirmed.at_ms);
        let (key, value) = (served.key(), serde_json::to_vec(&served).map_err(|e| e.to_string())?);
        let sent = publisher.offer(record(topic, number, Some(key.as_bytes()), Some(&value)));
        match sent.map_err(|e| publisher.explain(topic, &e))? {
            None => {}
            Some(_) => return Err(format!("{topic}: the producer's queue is full")),
        }
    }
    publisher.flush(Some(PATIENCE));
    match publisher.first_failed() {
        None => Ok(()),
        Some(failed) => Err(publisher.explain(topic, &failed.error)),
    }
}
