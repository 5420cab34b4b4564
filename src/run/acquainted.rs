//! The thread that tells whom throttled accounts know, so that the policy services, at whichever instance, hold back only what is
//! new to an account: each instance speaks for the partitions that it has.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::orders::Order;
use super::shared::{Shared, Stage};
use crate::core::contacts::Contacts;
use crate::kafka::outlet::now_ms;
use crate::kafka::partitioner::partition_of;
use crate::kafka::tell::Teller;
use crate::relays::board::Board;
use crate::relays::known;
use crate::relays::measure::{Kind, Measure};
use crate::relays::standing::Standing;

/// How often it is looked who is throttled.
const LOOK: Duration = Duration::from_millis(200);
/// A worker has so long to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// What was told and does not show after this is told again.
const AGAIN: Duration = Duration::from_secs(30);
/// What stays the same is said so often.
const SAY: Duration = Duration::from_secs(60);

/// Until the instance stops.
pub(super) fn run(shared: &Shared, board: &Board) {
    let mut teller = Teller::default();
    // By the throttle's id.
    let mut tried: HashMap<String, Instant> = HashMap::new();
    let mut said: Option<Instant> = None;
    while !shared.is_stopping() {
        std::thread::sleep(LOOK);
        teller.hear();
        tried.retain(|_, at| at.elapsed() < AGAIN);
        let unknown = |standing: &Standing| {
            let throttled = standing.all(Kind::Throttle, now_ms()).into_iter();
            throttled.filter(|m| standing.known(&m.id).is_none()).cloned().collect::<Vec<_>>()
        };
        for measure in board.look(unknown).unwrap_or_default() {
            if shared.is_stopping() || tried.contains_key(&measure.id) {
                continue;
            }
            let Some(contacts) = contacts(shared, &measure) else { continue };
            tried.insert(measure.id.clone(), Instant::now());
            let told = known::value(&contacts).map_err(|e| e.to_string()).and_then(|value| {
                teller.tell(&shared.kafka, &shared.kafka.topics.desk, &[(known::key(&measure.id), value)])
            });
            if let Err(why) = told
                && said.is_none_or(|at| at.elapsed() > SAY)
            {
                said = Some(Instant::now());
                tracing::warn!(
                    "nobody hears whom {} knows, so that all its recipients count as new while it is throttled: {why}; whether \
                     this instance may write there: `mailfuse topics check`",
                    measure.subject
                );
            }
        }
    }
}

/// Whom the account knew, where it is ours.
fn contacts(shared: &Shared, measure: &Measure) -> Option<Contacts> {
    let partition = partition_of(measure.subject.as_bytes(), shared.partitions);
    let is_ours = shared.board(partition).is_some_and(|board| board.stage() == Stage::Running);
    if !is_ours {
        return None;
    }
    let (reply, answer) = crossbeam_channel::bounded(1);
    let (name, incident) = (measure.subject.clone(), measure.incident.clone());
    shared.workers[shared.worker_of(partition)].send(Order::Contacts { name, partition, incident, reply }).ok()?;
    answer.recv_timeout(ANSWER).ok()?
}
