//! The thread that tells the active desk, whichever instance that is, which stops the policy service of this one has served: a
//! relay that such an account burdens need not wait any longer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::policy::Confirmed;
use crate::kafka::Kafka;
use crate::kafka::tell::Teller;
use crate::relays::served::Served;

/// Words that are sent together, at most.
const BATCH: usize = 256;
/// How often it is looked whether to end.
const LOOK: Duration = Duration::from_millis(200);
/// The wait after a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// What stays the same is said so often.
const SAY: Duration = Duration::from_secs(60);

/// Until `stopping`. What cannot be sent is kept and tried again; what finds no room meanwhile comes again with the next refusal.
pub(super) fn run(kafka: &Kafka, confirmed: &Receiver<Confirmed>, stopping: &AtomicBool) {
    let (mut teller, mut owed) = (Teller::default(), Vec::new());
    let mut said: Option<Instant> = None;
    while !stopping.load(Ordering::Acquire) {
        if owed.is_empty() {
            match confirmed.recv_timeout(LOOK) {
                Ok(first) => owed.push(first),
                Err(RecvTimeoutError::Timeout) => {
                    teller.hear();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        owed.extend(confirmed.try_iter().take(BATCH - owed.len()));
        match tell(kafka, &mut teller, &owed) {
            Ok(()) => owed.clear(),
            Err(why) => {
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

/// Says them to whoever is the active desk.
fn tell(kafka: &Kafka, teller: &mut Teller, owed: &[Confirmed]) -> Result<(), String> {
    let mut told = Vec::with_capacity(owed.len());
    for confirmed in owed {
        let served = Served::new(&confirmed.measure, confirmed.at_ms);
        told.push((served.key(), serde_json::to_vec(&served).map_err(|e| e.to_string())?));
    }
    teller.tell(kafka, &kafka.topics.signals, &told)
}
