//! The hand of [`super::listings`]: a thread asks the lists, a few questions at a time, so that a resolver that is slow holds up no
//! alert.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::task::JoinSet;

use super::shared::Said;
use crate::event::Timestamp;
use crate::kafka::outlet::now_ms;
use crate::relays::listing::Change;
use crate::relays::listing::answer::{Failure, Heard};
use crate::relays::listing::ask::Asker;
use crate::relays::listing::schedule::{Question, Target, Watch};
use crate::relays::listing::settings::Settings;
use crate::telemetry::Metrics;

/// Questions that wait for their answers.
const ASKING_MAX: usize = 8;
/// Answers that wait for the desk; for as long as they are so many nothing is asked.
const NEWS_MAX: usize = 256;
/// How often it is looked whether the desk has ended.
const LOOK: Duration = Duration::from_millis(200);

/// What a list said, to the desk.
#[derive(Debug)]
pub(super) struct News {
    /// About what.
    pub target: Target,
    /// Which list.
    pub zone: String,
    /// When.
    pub at: Timestamp,
    /// What is otherwise than before.
    pub change: Option<Change>,
}

/// Asks until it is dropped.
#[derive(Debug)]
pub(super) struct Asking {
    news: Receiver<News>,
    stopping: Arc<AtomicBool>,
}

impl Asking {
    /// Begins; `None` where nothing is to be asked.
    ///
    /// # Errors
    /// Where the system gives no thread, or no socket.
    pub(super) fn start(settings: &Settings, watch: Watch, metrics: &Arc<Metrics>) -> std::io::Result<Option<Self>> {
        let server = settings.checked().map_err(|(key, what)| std::io::Error::other(format!("{key}: {what}")))?;
        let Some(server) = server else { return Ok(None) };
        if watch.left_out() > 0 {
            tracing::warn!(
                "{} pairs of address and list are too many and not asked for: take lists out of relays.listing.zone",
                watch.left_out()
            );
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let asker = {
            let _entered = runtime.enter();
            Asker::new(server, settings.timeout_ms).map_err(std::io::Error::other)?
        };
        let (sender, news) = bounded(NEWS_MAX);
        let stopping = Arc::new(AtomicBool::new(false));
        let (ends, metrics) = (Arc::clone(&stopping), Arc::clone(metrics));
        let run = move || runtime.block_on(ask(Arc::new(asker), watch, &sender, &metrics, &ends));
        std::thread::Builder::new().name("desk-listings".to_owned()).spawn(run)?;
        Ok(Some(Self { news, stopping }))
    }

    /// What was heard since the last call.
    pub(super) fn news(&self) -> impl Iterator<Item = News> {
        self.news.try_iter()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
    }
}

async fn ask(asker: Arc<Asker>, mut watch: Watch, sender: &Sender<News>, metrics: &Metrics, stopping: &AtomicBool) {
    let mut asked: JoinSet<(Question, Heard)> = JoinSet::new();
    let mut said = std::collections::BTreeMap::<String, Said>::new();
    while !stopping.load(Ordering::Acquire) {
        let now_ms = now_ms();
        // Each answer finds room: nobody else sends.
        let has_room = asked.len() < ASKING_MAX && sender.len() + asked.len() < NEWS_MAX;
        if has_room && let Some(question) = watch.due(now_ms) {
            let asker = Arc::clone(&asker);
            asked.spawn(async move {
                let heard = asker.ask(&question.name).await;
                (question, heard)
            });
        }
        let next_ms = watch.next_ms().filter(|_| has_room).unwrap_or(i64::MAX);
        let pause = LOOK.min(Duration::from_millis(next_ms.saturating_sub(now_ms).max(1).unsigned_abs()));
        tokio::select! {
            Some(Ok((question, heard))) = asked.join_next() => {
                let news = hear(&mut watch, &question, heard, metrics, &mut said);
                if let Some(news) = news && sender.try_send(news).is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn hear(
    watch: &mut Watch,
    question: &Question,
    heard: Heard,
    metrics: &Metrics,
    said: &mut std::collections::BTreeMap<String, Said>,
) -> Option<News> {
    let is_listed = matches!(heard, Heard::Listed(_));
    let at = Timestamp(now_ms());
    let change = match watch.hear(question, heard, at.0) {
        Ok(change) => {
            metrics.listing.answer(&question.zone, if is_listed { "listed" } else { "clean" });
            change
        }
        Err(failure) => {
            metrics.listing.answer(&question.zone, label(&failure));
            // By zone: lists are few, and one that says no says it of every address.
            if said.entry(question.zone.clone()).or_default().is_news(&failure.to_string()) {
                tracing::warn!(zone = question.zone, "whether relays are listed is not known: {failure}");
            }
            return None;
        }
    };
    let target = watch.settled(question)?.clone();
    Some(News { target, zone: question.zone.clone(), at, change })
}

/// The label of its metric.
fn label(failure: &Failure) -> &'static str {
    match failure {
        Failure::Refused(_) => "refused",
        Failure::NoCode(_) => "no_code",
        Failure::Untrue(_) => "untrue",
        Failure::Server(_) => "server",
        Failure::Silent => "silent",
    }
}
