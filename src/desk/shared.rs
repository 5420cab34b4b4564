//! What the desk's threads know together.

use crate::core::policy::Policy;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use serde::Serialize;
use serde_json::Value;
use tempfile::TempDir;

use super::deliver::Deliveries;
use super::feedback::wish::{Refused, Wish};
use super::record::Record;
use super::sender::InForce;
use super::webhook::record::State;
use super::webhook::settings::{Deliver, Endpoint, Format};
use super::{Options, Settings};
use crate::directory::file::Held;
use crate::event::{Limits, Timestamp};
use crate::kafka::Kafka;
use crate::relays;
use crate::telemetry::Metrics;

/// Which desk this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Role {
    /// Another instance has the alerts, or nobody yet.
    Standby,
    /// This one is reading what the desk before it left.
    Taking,
    /// This one takes alerts.
    Active,
    /// It cannot go on; it tries again.
    Waiting {
        /// Why, and what to do.
        why: String,
    },
}

/// Says what stays the same once a minute.
#[derive(Debug, Default)]
pub(super) struct Said(Option<(String, Instant)>);

impl Said {
    /// Whether these words are to be said now.
    pub(super) fn is_news(&mut self, words: &str) -> bool {
        if self.0.as_ref().is_some_and(|(said, at)| said == words && at.elapsed() < Duration::from_secs(60)) {
            return false;
        }
        self.0 = Some((words.to_owned(), Instant::now()));
        true
    }
}

/// What somebody wants of the active desk.
#[derive(Debug)]
pub struct Command {
    /// What.
    pub wish: Wish,
    /// Who.
    pub who: Arc<str>,
    /// After this nobody waits for the answer: it is not to be done any more.
    pub until: Instant,
    /// The answer, given when it is stored what was done.
    pub reply: Sender<Result<Value, Refused>>,
}

/// How an endpoint does, as its page says it.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointView {
    name: String,
    /// Where to; of an address that is a secret, the host alone.
    url: String,
    format: Format,
    deliver: Deliver,
    /// Messages that wait.
    pending: usize,
    /// Alerts that wait in the desk topic besides, because too many messages wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<u64>,
    in_flight: usize,
    /// When the oldest that waits was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<Timestamp>,
    /// Failures since the last success.
    failures: u32,
    /// Only probes are sent, because it has not answered lately.
    circuit_open: bool,
    /// Since when its receiver wants nothing more (410).
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<Timestamp>,
    /// Until when its receiver wants nothing (`retry-after`).
    #[serde(skip_serializing_if = "Option::is_none")]
    held_until: Option<Timestamp>,
}

/// How the index stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum IndexState {
    /// It is being read up to now.
    Catching,
    /// It is as of the topic's end.
    Ready,
    /// The topic cannot be read; it is whole as of then, and answers are given with that time.
    Away {
        /// When it was last at the topic's end.
        as_of: Timestamp,
        /// Why, and what to do.
        why: String,
    },
    /// It cannot be written, or was not whole before the topic could not be read; it is tried again.
    Failed {
        /// Why, and what to do.
        why: String,
    },
}

/// What the threads know together.
#[derive(Debug)]
pub struct Shared {
    /// With the desk's own group.
    pub(super) kafka: Kafka,
    pub(super) settings: Settings,
    /// The same, with secret files as of the last reload.
    pub(super) in_force: Arc<InForce>,
    pub(super) relays: relays::Settings,
    pub(super) instance: String,
    pub(super) client_id: String,
    pub(super) session_timeout_ms: u32,
    pub(super) metrics: Arc<Metrics>,
    /// The file of the index.
    pub(super) path: PathBuf,
    /// Where it is a temporary one, removed at the end.
    _folder: Option<TempDir>,
    stopping: AtomicBool,
    role: Mutex<Role>,
    endpoints: Mutex<Vec<EndpointView>>,
    commands: (Sender<Command>, Receiver<Command>),
    index: Mutex<IndexState>,
    /// What the detectors count by.
    pub(super) policy: Arc<Policy>,
    /// How events are read.
    pub(super) events: Limits,
    /// What the provider knows about its customers.
    pub(super) directory: Arc<Held>,
    /// Whether the directory is to be looked at now.
    pub(super) look: AtomicBool,
    /// A reader has found the file of the index damaged.
    index_damaged: AtomicBool,
    /// The offset of the next alert to be taken.
    pub(super) alerts_next: AtomicI64,
    /// The offset up to which the index has the desk topic.
    pub(super) index_next: AtomicI64,
    /// When the index was last at the topic's end, in Unix milliseconds.
    pub(super) index_looked_ms: AtomicI64,
}

impl Shared {
    pub(super) fn new(
        kafka: Kafka,
        options: &Options<'_>,
        metrics: Arc<Metrics>,
        path: PathBuf,
        folder: Option<TempDir>,
    ) -> Self {
        Self {
            kafka,
            settings: options.settings.clone(),
            in_force: Arc::new(InForce::new(options.settings)),
            relays: options.relays.clone(),
            instance: options.instance.to_owned(),
            client_id: options.client_id.to_owned(),
            session_timeout_ms: options.session_timeout_ms,
            metrics,
            path,
            _folder: folder,
            stopping: AtomicBool::new(false),
            role: Mutex::new(Role::Standby),
            endpoints: Mutex::default(),
            commands: crossbeam_channel::bounded(64),
            index: Mutex::new(IndexState::Catching),
            policy: Arc::clone(&options.policy),
            events: options.events.clone(),
            directory: Arc::new(Held::new(&options.directory.file)),
            look: AtomicBool::new(false),
            index_damaged: AtomicBool::new(false),
            alerts_next: AtomicI64::new(-1),
            index_next: AtomicI64::new(-1),
            index_looked_ms: AtomicI64::new(0),
        }
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Waits, unless it is told to stop meanwhile.
    pub(super) fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.is_stopping() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn set_role(&self, role: Role) {
        self.metrics.desk_active.set(i64::from(role == Role::Active));
        if role != Role::Active {
            // They are another one's by now, or nobody's: what stayed here would be taken for what is.
            self.metrics.forget_desk();
            self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        *self.role.lock().unwrap_or_else(PoisonError::into_inner) = role;
    }

    pub(super) fn role(&self) -> Role {
        self.role.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What people want of the active desk.
    pub(super) fn commands(&self) -> &Receiver<Command> {
        &self.commands.1
    }

    /// Wants something of the active desk, which this one is. False where it does not keep up.
    pub(super) fn command(&self, command: Command) -> bool {
        self.commands.0.try_send(command).is_ok()
    }

    /// Shows how the endpoints do; `next` is the number of the next alert.
    pub(super) fn show(&self, deliveries: &Deliveries, next: u64) {
        let moment = |ms: Option<i64>| ms.map(Timestamp);
        let view = |e: &Endpoint| {
            let health = deliveries.outbox().health(&e.name)?;
            let behind = deliveries.behind(&e.name).map(|from| next.saturating_sub(from));
            self.metrics.endpoint(&e.name, &health, behind.unwrap_or(0));
            Some(EndpointView {
                name: e.name.clone(),
                url: format!("{:?}", e.url),
                format: e.format,
                deliver: e.deliver,
                pending: health.pending,
                behind,
                in_flight: health.in_flight,
                oldest: moment(health.oldest_ms),
                failures: health.failures,
                circuit_open: health.circuit_open,
                disabled: moment(health.disabled_ms),
                held_until: moment(health.held_until_ms),
            })
        };
        *self.endpoints.lock().unwrap_or_else(PoisonError::into_inner) =
            deliveries.endpoints().iter().filter_map(view).collect();
    }

    /// Counts messages that are given up, once it is stored that they are.
    pub(super) fn count_given_up(&self, stored: &[Record]) {
        for record in stored {
            if let Record::Delivery(delivery) = record
                && delivery.state == State::Dead
            {
                self.metrics.given_up(&delivery.endpoint, 1);
            }
        }
    }

    pub(super) fn endpoints(&self) -> Vec<EndpointView> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_index(&self, state: IndexState) {
        self.metrics.desk_index_ok.set(i64::from(matches!(state, IndexState::Catching | IndexState::Ready)));
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// A reader has found the file of the index damaged.
    pub(super) fn report_damage(&self) {
        self.index_damaged.store(true, Ordering::Release);
    }

    /// Whether one has since the last call.
    pub(super) fn take_damage(&self) -> bool {
        self.index_damaged.swap(false, Ordering::AcqRel)
    }

    pub(super) fn index(&self) -> IndexState {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::desk::book::Book;
    use crate::desk::book::tests::flagged;
    use crate::desk::webhook::outcome::Outcome;
    use crate::desk::webhook::record::BehindRecord;
    use crate::directory;

    const NOW_MS: i64 = 1_700_000_000_000;
    const HOUR_MS: i64 = 3_600_000;

    fn shared(settings: &Settings) -> Shared {
        let options = Options {
            kafka: &Kafka::default(),
            settings,
            relays: &relays::Settings::default(),
            directory: &directory::Settings::default(),
            policy: Arc::default(),
            events: Limits::default(),
            instance: "",
            client_id: "test",
            session_timeout_ms: 30_000,
        };
        Shared::new(Kafka::default(), &options, Arc::new(Metrics::new()), PathBuf::new(), None)
    }

    /// What the metrics say of an endpoint under a name.
    fn metric(shared: &Shared, name: &str, endpoint: &str) -> Option<f64> {
        let begin = format!("mailfuse_webhook_{name}{{endpoint=\"{endpoint}\"}} ");
        shared.metrics.encode().lines().find_map(|l| l.strip_prefix(&begin)?.parse().ok())
    }

    #[test]
    fn dead_endpoints_and_what_is_given_up_are_shown_and_counted() {
        let every = |name: &str| Endpoint { name: name.to_owned(), deliver: Deliver::Every, ..Endpoint::default() };
        let settings = Settings { webhook: ["gone", "refuses", "fine"].map(every).into(), ..Settings::default() };
        let shared = shared(&settings);
        let (mut book, mut deliveries) = (Book::default(), Deliveries::new(&settings.endpoints(), ""));
        for record in book.take(flagged(1, 1), NOW_MS, "").records {
            if let Record::Alert(kept) = &record {
                let said = Arc::new(kept.alert.clone());
                deliveries.take(&said, kept.n, &book.about(&said), &mut BTreeMap::new(), NOW_MS);
            }
        }
        shared.show(&deliveries, book.next());
        for endpoint in ["gone", "refuses", "fine"] {
            let all = ["pending", "disabled", "behind", "given_up_total"].map(|name| metric(&shared, name, endpoint));
            assert_eq!(all, [Some(1.0), Some(0.0), Some(0.0), Some(0.0)], "{endpoint}");
        }
        // One answers 410, one refuses until its message is given up, one takes it.
        let (mut now_ms, mut dead) = (NOW_MS, 0);
        while dead == 0 {
            for (attempt, _) in deliveries.due(now_ms, &|_| None) {
                let outcome = match &*attempt.endpoint {
                    "gone" => Outcome::Gone,
                    "refuses" => Outcome::Refused { status: 400, why: "answered 400".to_owned() },
                    _ => Outcome::Delivered { status: 200 },
                };
                let records = deliveries.done(attempt.attempt, &outcome, now_ms, &mut || 0);
                shared.count_given_up(&records);
                dead += records.iter().filter(|r| matches!(r, Record::Delivery(d) if d.state == State::Dead)).count();
            }
            now_ms += HOUR_MS;
            assert!(now_ms < NOW_MS + 1000 * HOUR_MS, "it is tried for ever");
        }
        let behind = BehindRecord { v: 1, endpoint: "gone".to_owned(), from: 7 };
        deliveries.restore(&Record::Behind(Box::new(behind)));
        shared.show(&deliveries, 12);
        for (endpoint, pending, disabled, behind, given_up) in
            [("gone", 1.0, 1.0, 5.0, 0.0), ("refuses", 0.0, 0.0, 0.0, 1.0), ("fine", 0.0, 0.0, 0.0, 0.0)]
        {
            let all = ["pending", "disabled", "behind", "given_up_total"].map(|name| metric(&shared, name, endpoint));
            assert_eq!(all, [pending, disabled, behind, given_up].map(Some), "{endpoint}");
        }
        let view = serde_json::to_value(shared.endpoints()).unwrap();
        assert_eq!((view[0]["behind"].as_u64(), view[0]["disabled"].is_string()), (Some(5), true), "{view}");
        // Who is not the active desk does not know it.
        shared.set_role(Role::Standby);
        assert_eq!(metric(&shared, "disabled", "gone"), None);
        assert_eq!(metric(&shared, "given_up_total", "refuses"), Some(1.0));
    }
}
