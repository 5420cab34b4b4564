//! The hands of the active desk: sends what is due, on a runtime of their own, and says how it ended.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::Settings;
use super::mail::client::Mailer;
use super::mail::settings::Mailbox;
use super::webhook::body::{Message, prepare};
use super::webhook::client::{Client, SystemResolver};
use super::webhook::outcome::Outcome;
use super::webhook::record::Attempt;
use super::webhook::settings::Endpoint;
use super::webhook::sign::Keys;
use crate::kafka::outlet::now_ms;

/// How an attempt ended.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub attempt: u64,
    /// Where.
    pub endpoint: String,
    /// How.
    pub outcome: Outcome,
}

enum Way {
    Webhook { endpoint: Box<Endpoint>, keys: Keys, client: Arc<Client> },
    Mail(Arc<Mailer>),
}

/// Sends messages.
pub struct Hands {
    ways: HashMap<String, Way>,
    ended: Receiver<Ended>,
    report: Sender<Ended>,
    under_way: usize,
    runtime: Option<tokio::runtime::Runtime>,
}

/// The secrets of an endpoint, from its files or the environment.
///
/// # Errors
/// Where one is missing or none; the error says which, and nothing of it.
pub fn keys(endpoint: &Endpoint) -> anyhow::Result<Keys> {
    Ok(endpoint.keys(|path| std::fs::read_to_string(path), |name| std::env::var(name).ok())?)
}

/// What sends to a mailbox, its password from its file or the environment.
///
/// # Errors
/// Where the password or a file of authorities cannot be had; nothing of it is in the error.
pub fn mailer(mailbox: &Mailbox) -> anyhow::Result<Mailer> {
    let password = mailbox.password(|path| std::fs::read_to_string(path), |name| std::env::var(name).ok())?;
    Ok(Mailer::new(mailbox, password.as_ref())?)
}

impl Hands {
    /// With these endpoints and mailboxes. Secrets are read now.
    ///
    /// # Errors
    /// Where a secret or a file of authorities cannot be had.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        let mut ways = HashMap::new();
        for endpoint in &settings.webhook {
            let client = Arc::new(Client::new(endpoint, Arc::new(SystemResolver))?);
            let way = Way::Webhook { endpoint: Box::new(endpoint.clone()), keys: keys(endpoint)?, client };
            ways.insert(endpoint.name.clone(), way);
        }
        for mailbox in &settings.mail {
            ways.insert(mailbox.name.clone(), Way::Mail(Arc::new(mailer(mailbox)?)));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(8)
            .thread_name("desk-send")
            .enable_all()
            .build()?;
        // Bounded by what the outbox lets be under way.
        let (report, ended) = crossbeam_channel::unbounded();
        Ok(Self { ways, ended, report, under_way: 0, runtime: Some(runtime) })
    }

    /// Begins an attempt.
    pub fn send(&mut self, attempt: &Attempt, message: &Message) {
        self.under_way += 1;
        let (report, number) = (self.report.clone(), attempt.attempt);
        let endpoint = attempt.endpoint.clone();
        let end = move |outcome| {
            // Nobody listens any more where the desk has gone elsewhere.
            let _ = report.send(Ended { attempt: number, endpoint, outcome });
        };
        let Some(way) = self.ways.get(&attempt.endpoint) else {
            return end(Outcome::Blocked { why: "the endpoint is not configured".to_owned() });
        };
        let now_s = now_ms() / 1000;
        let blocked = |why: String| Outcome::Blocked { why };
        let Some(runtime) = &self.runtime else { return };
        match way {
            Way::Webhook { endpoint, keys, client } => match prepare(endpoint, keys, message, now_s) {
                Ok(request) => {
                    let client = Arc::clone(client);
                    runtime.spawn(async move { end(client.send(&request).await) });
                }
                Err(e) => end(blocked(e.to_string())),
            },
            Way::Mail(mailer) => match mailer.prepare(message, now_s) {
                Ok(mail) => {
                    let mailer = Arc::clone(mailer);
                    runtime.spawn(async move { end(mailer.send(&mail).await) });
                }
                Err(e) => end(blocked(e.to_string())),
            },
        }
    }

    /// Attempts that have ended since the last call.
    pub fn ended(&mut self) -> Vec<Ended> {
        let ended: Vec<Ended> = self.ended.try_iter().collect();
        self.under_way -= ended.len().min(self.under_way);
        ended
    }

    /// Attempts under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_millis(100));
        }
    }
}

/// Chance, for spreading retries: nothing depends on its quality.
pub fn chance() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
