//! The desk: where alerts become incidents that people handle.
//!
//! The alerts topic has one partition, so that one member of the desk's group has it: that is the active desk (`role`), the
//! others stand by. What it makes of the alerts goes to the `desk` topic, each time in one transaction with the offset of the
//! alerts, so that whoever takes over forgets nothing. Every instance follows that topic into an index of its own (`index`)
//! and answers questions from it ([`api`]). [`book`], [`failing`], [`groups`], [`heartbeat`], [`in_time`], [`listings`], [`measures`], [`notice`], [`policies`], [`record`], [`renames`] and
//! [`replayed`] are pure.

pub mod alone;
pub mod api;
pub mod book;
pub mod deliver;
mod exposed;
pub mod failing;
pub mod feedback;
pub mod groups;
pub mod heartbeat;
mod heirs;
pub mod in_time;
pub mod index;
pub mod listings;
mod look_back;
pub mod mail;
pub mod measures;
pub mod notice;
pub mod policies;
mod pulse;
pub mod record;
pub mod renames;
pub mod replayed;
mod role;
pub mod sender;
pub mod settings;
mod shared;
mod watch;
pub mod webhook;

pub use settings::Settings;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;

use crate::core::policy::Policy;
use crate::directory::{self, file::Held};
use crate::event::Limits;
use crate::kafka::Kafka;
use crate::relays;
use crate::telemetry::Metrics;
use shared::Shared;

/// Time for the last transaction when it stops.
const STOP: Duration = Duration::from_secs(10);
/// How often it is looked whether the directory has changed.
const LOOK: Duration = Duration::from_secs(10);

/// A running desk, active or not.
pub struct Desk {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What a desk is started with.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// The brokers and topics. The desk's group is the configured one with `.desk` behind it.
    pub kafka: &'a Kafka,
    /// Section `[desk]`.
    pub settings: &'a Settings,
    /// Section `[relays]`.
    pub relays: &'a relays::Settings,
    /// Section `[directory]`.
    pub directory: &'a directory::Settings,
    /// What the detectors count by.
    pub policy: Arc<Policy>,
    /// Section `[events]`.
    pub events: Limits,
    /// Its name in the group, where it has one that it keeps over restarts.
    pub instance: &'a str,
    /// What it calls itself before the brokers.
    pub client_id: &'a str,
    /// After which silence it is taken for dead, in milliseconds.
    pub session_timeout_ms: u32,
}

impl Desk {
    /// Begins. What is missing or away is waited for, with a word in the log: the detector beside it must not stop for that.
    ///
    /// # Errors
    /// Where the system gives no thread or no temporary folder.
    pub fn start(options: &Options<'_>, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        for (endpoint, why) in sender::broken(options.settings) {
            tracing::error!(endpoint, "nothing can be sent to it, what is for it waits: {why:#}");
        }
        let (path, folder) = if options.settings.database.is_empty() {
            let folder = tempfile::Builder::new().prefix("mailfuse-desk-").tempdir();
            let folder = folder.context("no temporary folder for the index: set desk.database")?;
            (folder.path().join("desk.sqlite"), Some(folder))
        } else {
            (PathBuf::from(&options.settings.database), None)
        };
        let kafka = Kafka { group: format!("{}.desk", options.kafka.group), ..options.kafka.clone() };
        let shared = Arc::new(Shared::new(kafka, options, metrics, path, folder));
        // An incident that is taken before would know nothing of its customer.
        shared.directory.look();
        let mut threads = Vec::new();
        for (name, run) in [
            ("desk", role::run as fn(&Shared)),
            ("desk-index", index::follow::run),
            ("desk-directory", follow_directory),
        ] {
            let shared = Arc::clone(&shared);
            threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared))?);
        }
        Ok(Self { shared, threads })
    }

    /// Looks soon whether the directory has changed.
    pub fn reload(&self) {
        self.shared.look.store(true, Ordering::Release);
    }

    /// Names the files of secrets anew: they are those of `settings` from now on, nothing else of it.
    pub fn use_secrets(&self, settings: &Settings) {
        for (endpoint, why) in sender::broken(settings) {
            tracing::error!(endpoint, "where a secret was read before, that one goes on being used: {why:#}");
        }
        self.shared.in_force.set(settings);
    }

    /// The directory, as it is kept up to date here.
    pub fn directory(&self) -> Arc<Held> {
        Arc::clone(&self.shared.directory)
    }

    /// What it cannot go on for, where that is so.
    pub fn trouble(&self) -> Option<String> {
        match self.shared.role() {
            shared::Role::Waiting { why } => Some(why),
            _ => None,
        }
    }

    /// The pages of the HTTP server.
    pub fn router(&self) -> Router {
        api::router(Arc::clone(&self.shared))
    }

    /// Whether a thread of it has ended, which none does before it is told to.
    pub fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends it, within some seconds; what was not written is read again by the next active desk.
    pub fn stop(&self) {
        self.shared.stop();
        let deadline = Instant::now() + STOP;
        while !self.threads.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn follow_directory(shared: &Shared) {
    while !shared.is_stopping() {
        let until = Instant::now() + LOOK;
        while Instant::now() < until && !shared.is_stopping() && !shared.look.swap(false, Ordering::AcqRel) {
            std::thread::sleep(Duration::from_millis(50));
        }
        shared.directory.look();
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("index", &self.shared.path).finish_non_exhaustive()
    }
}
