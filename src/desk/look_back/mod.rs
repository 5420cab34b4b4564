//! What somebody asks about an incident that only the events topic knows: it is read again, on demand, on a thread of its own.
//!
//! The detector keeps nothing for that: a question costs what reading a stretch of the topic costs, and is answered exactly for
//! as long as the topic holds it. A reading may take longer than a request may, so an answer is 202 until it is done; whoever
//! asks again then has it. Few run at a time, each bounded in records and seconds.

pub(super) mod api;
mod burst;
mod collateral;
mod queue_ids;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::kafka::look_back::{Bounds, Progress};

/// Whether anybody still waits, told how far it is.
type Tell<'a> = dyn Fn(Progress) -> bool + 'a;

/// How a question stands.
#[derive(Debug)]
pub(super) enum Standing<T> {
    /// It is being read.
    Reading(Progress),
    /// The answer.
    Found(Arc<T>),
    /// What went wrong.
    Failed(String),
    /// Others are being answered.
    Busy,
}

/// Answers of one kind: those that are being looked for, and those that were found lately.
#[derive(Debug)]
pub(super) struct Answers<T> {
    all: Mutex<Vec<Kept<T>>>,
    /// Readings at a time.
    at_a_time: usize,
    /// Answers kept.
    kept: usize,
    /// For how long.
    keep: Duration,
}

/// A question and how it stands.
type Kept<T> = (String, Arc<Mutex<Stage<T>>>);

#[derive(Debug)]
enum Stage<T> {
    Reading(Progress),
    Ended(Instant, Result<Arc<T>, String>),
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Send + Sync + 'static> Answers<T> {
    /// With so many readings at a time, so many answers kept for so long.
    pub(super) fn new(at_a_time: usize, kept: usize, keep: Duration) -> Self {
        Self { all: Mutex::default(), at_a_time, kept, keep }
    }

    /// How the question `key` stands, where it was asked before and the answer is not too old.
    pub(super) fn standing(&self, key: &str) -> Option<Standing<T>> {
        let mut all = lock(&self.all);
        let keep = self.keep;
        all.retain(|(_, stage)| !matches!(&*lock(stage), Stage::Ended(at, _) if at.elapsed() > keep));
        let at = all.iter().position(|(known, _)| known == key)?;
        let standing = match &*lock(&all[at].1) {
            Stage::Reading(progress) => Standing::Reading(*progress),
            Stage::Ended(_, Ok(found)) => Standing::Found(Arc::clone(found)),
            Stage::Ended(_, Err(why)) => Standing::Failed(why.clone()),
        };
        // Whoever asks again after a failure wants it tried again.
        if matches!(standing, Standing::Failed(_)) {
            all.remove(at);
        }
        Some(standing)
    }

    /// Begins to look for an answer that is not being looked for.
    pub(super) fn begin(
        &self,
        key: &str,
        look: impl FnOnce(&Tell<'_>) -> Result<T, String> + Send + 'static,
    ) -> Standing<T> {
        let mut all = lock(&self.all);
        if all.iter().any(|(known, _)| known == key) {
            return Standing::Reading(Progress::default());
        }
        let is_read = |stage: &Arc<Mutex<Stage<T>>>| matches!(&*lock(stage), Stage::Reading(_));
        if all.iter().filter(|(_, stage)| is_read(stage)).count() >= self.at_a_time {
            return Standing::Busy;
        }
        while all.len() >= self.kept.max(self.at_a_time) {
            let Some(oldest) = all.iter().position(|(_, stage)| !is_read(stage)) else { return Standing::Busy };
            all.remove(oldest);
        }
        let stage = Arc::new(Mutex::new(Stage::Reading(Progress::default())));
        let theirs = Arc::clone(&stage);
        let run = move || {
            let found = {
                let tell = |progress| {
                    *lock(&theirs) = Stage::Reading(progress);
                    true
                };
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&tell)))
            };
            let found =
                found.unwrap_or_else(|_| Err("the reading ended by a defect of mailfuse: see its log".to_owned()));
            *lock(&theirs) = Stage::Ended(Instant::now(), found.map(Arc::new));
        };
        match std::thread::Builder::new().name("look-back".to_owned()).spawn(run) {
            Ok(_) => all.push((key.to_owned(), stage)),
            Err(e) => return Standing::Failed(format!("the system gives no thread: {e}")),
        }
        Standing::Reading(Progress::default())
    }
}

/// What a reading may cost, as configured.
fn bounds(settings: &super::Settings) -> Bounds {
    let within = Duration::from_secs(settings.look_back_s.into());
    Bounds { records: settings.look_back_records, until: Instant::now() + within }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait<T: Send + Sync + 'static>(answers: &Answers<T>, key: &str) -> Standing<T> {
        loop {
            match answers.standing(key) {
                Some(Standing::Reading(_)) => std::thread::yield_now(),
                Some(standing) => return standing,
                None => panic!("{key} was forgotten"),
            }
        }
    }

    #[test]
    fn one_question_is_read_once_and_not_too_many_at_a_time() {
        let answers = Answers::<u32>::new(1, 2, Duration::from_secs(3600));
        let (open, closed) = crossbeam_channel::bounded::<()>(0);
        assert!(answers.standing("a").is_none());
        let read = move |tell: &Tell<'_>| {
            assert!(tell(Progress { records: 7, of: 9 }));
            let _ = closed.recv();
            Ok(1)
        };
        assert!(matches!(answers.begin("a", read), Standing::Reading(_)));
        assert!(matches!(answers.begin("a", |_| panic!("twice")), Standing::Reading(_)));
        assert!(matches!(answers.begin("b", |_| panic!("too many")), Standing::Busy));
        drop(open);
        assert!(matches!(wait(&answers, "a"), Standing::Found(n) if *n == 1));
        for key in ["b", "c"] {
            answers.begin(key, |_| Ok(2));
            assert!(matches!(wait(&answers, key), Standing::Found(n) if *n == 2));
        }
        assert!(answers.standing("a").is_none(), "the oldest has made room");
    }

    #[test]
    fn a_failure_is_told_once_and_an_old_answer_is_none() {
        let answers = Answers::<u32>::new(2, 2, Duration::ZERO);
        answers.begin("a", |_| Ok(1));
        // It ends, and is too old at once.
        while answers.standing("a").is_some() {
            std::thread::yield_now();
        }
        let answers = Answers::<u32>::new(2, 2, Duration::from_secs(3600));
        answers.begin("a", |_| Err("no broker".to_owned()));
        assert!(matches!(wait(&answers, "a"), Standing::Failed(why) if why == "no broker"));
        assert!(answers.standing("a").is_none());
    }
}
