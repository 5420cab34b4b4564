//! What the desk's threads know together.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tempfile::TempDir;

use super::{Options, Settings};
use crate::kafka::Kafka;
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

/// How the index stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum IndexState {
    /// It is being read up to now.
    Catching,
    /// It is as of the topic's end.
    Ready,
    /// It cannot be written; it is tried again.
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
    index: Mutex<IndexState>,
    /// The offset of the next alert to be taken.
    pub(super) alerts_next: AtomicI64,
    /// The offset up to which the index has the desk topic.
    pub(super) index_next: AtomicI64,
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
            instance: options.instance.to_owned(),
            client_id: options.client_id.to_owned(),
            session_timeout_ms: options.session_timeout_ms,
            metrics,
            path,
            _folder: folder,
            stopping: AtomicBool::new(false),
            role: Mutex::new(Role::Standby),
            index: Mutex::new(IndexState::Catching),
            alerts_next: AtomicI64::new(-1),
            index_next: AtomicI64::new(-1),
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
        *self.role.lock().unwrap_or_else(PoisonError::into_inner) = role;
    }

    pub(super) fn role(&self) -> Role {
        self.role.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_index(&self, state: IndexState) {
        self.metrics.desk_index_ok.set(i64::from(!matches!(state, IndexState::Failed { .. })));
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn index(&self) -> IndexState {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
