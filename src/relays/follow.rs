//! The thread that brings the measures of the `desk` topic to the hands of this instance. It needs neither the desk nor its
//! database. While the brokers are away the hands go on with what is known, and what expires ends by the clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::Message;

use super::board::Board;
use super::known::{KNOWN, Known};
use super::measure::Measure;
use super::standing::Standing;
use crate::core::fingerprint::Fingerprint;
use crate::kafka::Kafka;
use crate::kafka::outlet::now_ms;
use crate::kafka::restore::{Error, Read, Reader};
use crate::telemetry::Metrics;

/// The keys of measures begin so.
const MEASURE: &str = "measure/";
/// How often the topic's end is looked for, and what has expired is let go.
const LOOK: Duration = Duration::from_millis(200);
/// The wait after a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// What stays the same is said so often.
const SAY: Duration = Duration::from_secs(60);
/// After so long without the brokers all is read anew: a record without a value, which takes a measure away, may have been
/// missed. Kafka keeps such records for a day (`delete.retention.ms`).
const STALE: Duration = Duration::from_secs(12 * 3600);

/// Where it goes on.
struct Place {
    next: i64,
    at: Instant,
}

/// Until `stopping`. `prints`: of the key that all instances have.
pub(super) fn run(kafka: &Kafka, prints: &Fingerprint, board: &Board, metrics: &Metrics, stopping: &AtomicBool) {
    let wanted = || !stopping.load(Ordering::Acquire);
    let mut place = None;
    let mut said: Option<(String, Instant)> = None;
    while wanted() {
        let Err(e) = follow(kafka, prints, board, metrics, &wanted, &mut place) else { return };
        let why = e.to_string();
        if wanted() && said.as_ref().is_none_or(|(words, at)| *words != why || at.elapsed() > SAY) {
            let known = if board.is_read() { "hands go on with what is known" } else { "hands do not answer yet" };
            tracing::error!("what is stopped and pulled cannot be followed, {known}: {why}");
            said = Some((why, Instant::now()));
        }
        wait(AGAIN, board, &wanted);
    }
}

/// Waits, and lets go what expires meanwhile.
fn wait(time: Duration, board: &Board, wanted: &dyn Fn() -> bool) {
    let until = Instant::now() + time;
    while wanted() && Instant::now() < until {
        std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        board.change(|standing| standing.sweep(now_ms()));
    }
}

fn follow(
    kafka: &Kafka,
    prints: &Fingerprint,
    board: &Board,
    metrics: &Metrics,
    wanted: &dyn Fn() -> bool,
    place: &mut Option<Place>,
) -> Result<(), Error> {
    let topic = &kafka.topics.desk;
    let reader = Reader::new(kafka)?;
    let (low, high) = reader.range(topic, 0)?;
    let goes_on = place.take().filter(|p| p.at.elapsed() < STALE && (low..=high).contains(&p.next));
    // Read anew it is gathered aside, so that nobody sees half of it.
    let mut anew = goes_on.is_none().then(Standing::default);
    let mut next = goes_on.map_or(low, |p| p.next);
    while wanted() {
        let from = next;
        let mut each = |message: &rdkafka::message::BorrowedMessage<'_>| {
            match &mut anew {
                Some(standing) => take(standing, message, prints, metrics),
                None => board.change(|standing| take(standing, message, prints, metrics)),
            }
            next = message.offset() + 1;
            Ok(Read::On)
        };
        match reader.read(topic, 0, from, wanted, &mut each) {
            Ok(()) => {}
            Err(Error::GivenUp) => return Ok(()),
            Err(e) => {
                *place = anew.is_none().then(|| Place { next, at: Instant::now() });
                return Err(e);
            }
        }
        if let Some(read) = anew.take() {
            board.change(|standing| standing.replace(read));
        }
        if !board.is_read() {
            board.set_read();
            metrics.hands.known.set(1);
            tracing::info!("what is stopped and pulled is known: hands answer");
        }
        wait(LOOK, board, wanted);
    }
    Ok(())
}

/// One record of the desk topic; most are about something else.
fn take(
    standing: &mut Standing,
    message: &rdkafka::message::BorrowedMessage<'_>,
    prints: &Fingerprint,
    metrics: &Metrics,
) {
    let Some(key) = message.key().and_then(|k| std::str::from_utf8(k).ok()) else { return };
    let read = if let Some(id) = key.strip_prefix(MEASURE) {
        let Some(value) = message.payload() else { return standing.forget(id) };
        serde_json::from_slice::<Measure>(value).map(|measure| standing.take(measure)).map_err(|e| e.to_string())
    } else if let Some(id) = key.strip_prefix(KNOWN) {
        let Some(value) = message.payload() else { return standing.forget_known(id) };
        Known::read(value, prints).map(|known| {
            if standing.take_known(id, known) {
                tracing::info!("whom the account of {id} has written to before is known: it may go on");
            } else {
                tracing::warn!("contacts of too many throttled accounts: to {id}'s every recipient is new");
            }
        })
    } else {
        return;
    };
    if let Err(e) = read {
        metrics.desk_unreadable.inc();
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        tracing::error!(
            "{topic}:{partition}:{offset}: {key} cannot be read and is passed over: {e}. Was it written by a newer program? Use \
             that here, too"
        );
    }
}
