//! What relays bear and which stops are served, as the active desk learns it from the signals topic: a thread follows it, so that
//! brokers that are slow to answer hold up no alert.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::measures::Exposure;
use crate::kafka::Kafka;
use crate::kafka::outlet::now_ms;
use crate::relays::Settings;
use crate::relays::burden::burdens;
use crate::relays::decide::{Burden, MEASURES_MAX};
use crate::relays::exposure;
use crate::relays::signals::{Error, Follower};

/// Records that are taken at one look.
const TAKE: usize = 20_000;
/// How often it is looked for more.
const LOOK: Duration = Duration::from_millis(200);
/// The wait before it is tried again, and before the same is said again.
const AGAIN: Duration = Duration::from_secs(5);
const SAY: Duration = Duration::from_secs(60);

/// What is known, while it is followed.
#[derive(Debug)]
struct Known {
    exposure: exposure::Exposure,
    /// Whether all that was told so far is in.
    is_all: bool,
    /// Stops that were served, which the desk has not been told: when, in milliseconds since 1970, by the measure's id.
    served: BTreeMap<String, i64>,
}

/// Follows the signals topic until it is dropped.
#[derive(Debug)]
pub(super) struct Exposed {
    settings: Settings,
    known: Arc<Mutex<Known>>,
    stopping: Arc<AtomicBool>,
}

impl Exposed {
    /// Begins.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start(kafka: &Kafka, settings: &Settings) -> std::io::Result<Self> {
        let span_s = settings.pull.window_s;
        let known = Arc::new(Mutex::new(Known {
            exposure: exposure::Exposure::new(span_s),
            is_all: false,
            served: BTreeMap::new(),
        }));
        let stopping = Arc::new(AtomicBool::new(false));
        let (kafka, theirs, ends) = (kafka.clone(), Arc::clone(&known), Arc::clone(&stopping));
        let run = move || run(&kafka, span_s, &theirs, &ends);
        std::thread::Builder::new().name("desk-signals".to_owned()).spawn(run)?;
        Ok(Self { settings: settings.clone(), known, stopping })
    }
}

impl Exposure for Exposed {
    fn burdens(&mut self, window_s: u32, now_ms: i64) -> Option<Vec<Burden>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Where the detectors are silent, or far behind, what relays bear now is not known: a relay is not put back because of that.
        let since_ms = now_ms - i64::from(self.settings.act_within_s) * 1000;
        let is_known = known.is_all && known.exposure.newest_ms().is_some_and(|newest| newest >= since_ms);
        // Which incidents stand is the book's to say.
        is_known.then(|| burdens(&self.settings, &known.exposure, window_s, now_ms, &|_| true))
    }

    fn active(&mut self, since_ms: i64) -> Vec<(String, i64)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.exposure.active(since_ms).map(|(id, at_ms)| (id.to_owned(), at_ms)).collect()
    }

    fn served(&mut self) -> BTreeMap<String, i64> {
        std::mem::take(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner).served)
    }
}

impl Drop for Exposed {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
    }
}

fn run(kafka: &Kafka, span_s: u32, known: &Mutex<Known>, stopping: &AtomicBool) {
    let mut said: Option<Instant> = None;
    while !stopping.load(Ordering::Acquire) {
        let Err(e) = follow(kafka, span_s, known, stopping) else { return };
        known.lock().unwrap_or_else(PoisonError::into_inner).is_all = false;
        if said.is_none_or(|at| at.elapsed() > SAY) {
            said = Some(Instant::now());
            tracing::error!("what relays bear is not known: none is pulled, and none put back before its time: {e}");
        }
        let until = Instant::now() + AGAIN;
        while Instant::now() < until && !stopping.load(Ordering::Acquire) {
            std::thread::sleep(LOOK);
        }
    }
}

fn follow(kafka: &Kafka, span_s: u32, known: &Mutex<Known>, stopping: &AtomicBool) -> Result<(), Error> {
    let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
    let empty = exposure::Exposure::new(span_s);
    let mut follower = Follower::new(kafka, &empty, now_ms())?;
    {
        let mut known = lock();
        (known.exposure, known.is_all) = (empty, false);
    }
    while !stopping.load(Ordering::Acquire) {
        let mut known = lock();
        let Known { exposure, served, .. } = &mut *known;
        let mut note = |word: crate::relays::served::Served| {
            // Beyond it the grace has to do.
            if served.len() < MEASURES_MAX {
                served.entry(word.measure).or_insert(word.at.0);
            }
        };
        let taken = follower.take(exposure, &mut note, TAKE)?;
        known.exposure.forget(now_ms());
        if follower.is_caught_up() && !known.is_all {
            known.is_all = true;
            tracing::info!("what relays bear is known");
        }
        drop(known);
        if taken < TAKE {
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}
