//! The hands of the active desk: sends what is due, on a runtime of their own, and says how it ended.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::Settings;
use super::mail::client::Mailer;
use super::mail::settings::{Mailbox, Password};
use super::shared::Said;
use super::webhook::body::{Message, prepare};
use super::webhook::client::{Client, SystemResolver};
use super::webhook::outcome::Outcome;
use super::webhook::record::Attempt;
use super::webhook::settings::Endpoint;
use super::webhook::sign::Keys;
use crate::kafka::outlet::now_ms;

/// How often it is looked whether secrets have changed.
const LOOK: Duration = Duration::from_secs(2);

/// Section `[desk]` as it is in force: a reload may change which files hold secrets, and nothing else of it.
#[derive(Debug)]
pub struct InForce(Mutex<Arc<Settings>>);

impl InForce {
    /// From the start.
    pub fn new(settings: &Settings) -> Self {
        Self(Mutex::new(Arc::new(settings.clone())))
    }

    /// From now on.
    pub fn set(&self, settings: &Settings) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(settings.clone());
    }

    fn get(&self) -> Arc<Settings> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

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
    Webhook {
        endpoint: Box<Endpoint>,
        keys: Keys,
        client: Arc<Client>,
    },
    Mail {
        mailer: Arc<Mailer>,
        password: Option<Password>,
    },
    /// A secret or a file of authorities cannot be had. It is tried again with every attempt, others go on.
    Broken,
}

/// Sends messages.
pub struct Hands {
    in_force: Arc<InForce>,
    /// As it was when secrets were looked at.
    settings: Arc<Settings>,
    looked: Instant,
    /// What was said of secrets that cannot be read, by endpoint.
    said: HashMap<String, Said>,
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

/// The password of a mailbox, from its file or the environment.
fn password(mailbox: &Mailbox) -> anyhow::Result<Option<Password>> {
    Ok(mailbox.password(|path| std::fs::read_to_string(path), |name| std::env::var(name).ok())?)
}

/// What sends to a mailbox, its password from its file or the environment.
///
/// # Errors
/// Where the password or a file of authorities cannot be had; nothing of it is in the error.
pub fn mailer(mailbox: &Mailbox) -> anyhow::Result<Mailer> {
    Ok(Mailer::new(mailbox, password(mailbox)?.as_ref())?)
}

/// The way to an endpoint or mailbox, with its secrets as they are now.
fn way(settings: &Settings, name: &str) -> anyhow::Result<Way> {
    if let Some(endpoint) = settings.webhook.iter().find(|e| e.name == name) {
        let client = Arc::new(Client::new(endpoint, Arc::new(SystemResolver))?);
        return Ok(Way::Webhook { endpoint: Box::new(endpoint.clone()), keys: keys(endpoint)?, client });
    }
    match settings.mail.iter().find(|m| m.name == name) {
        Some(mailbox) => {
            let password = password(mailbox)?;
            let mailer = Arc::new(Mailer::new(mailbox, password.as_ref())?);
            Ok(Way::Mail { mailer, password })
        }
        None => anyhow::bail!("the endpoint is not configured"),
    }
}

impl Way {
    /// Reads the secrets again. True where they are others than before; where they cannot be had, those before stay.
    fn refresh(&mut self, settings: &Settings, name: &str) -> anyhow::Result<bool> {
        match self {
            Self::Webhook { keys: before, .. } => {
                let Some(endpoint) = settings.webhook.iter().find(|e| e.name == name) else { return Ok(false) };
                let now = keys(endpoint)?;
                let differs = now != *before;
                *before = now;
                Ok(differs)
            }
            Self::Mail { mailer, password: before } => {
                let Some(mailbox) = settings.mail.iter().find(|m| m.name == name) else { return Ok(false) };
                let now = password(mailbox)?;
                let differs = now != *before;
                if differs {
                    *mailer = Arc::new(mailer.with_password(now.as_ref()));
                    *before = now;
                }
                Ok(differs)
            }
            Self::Broken => Ok(false),
        }
    }
}

/// What stands in the way of each endpoint and mailbox: a secret or a file of authorities that cannot be had; nothing of a secret is
/// in the words.
pub fn broken(settings: &Settings) -> Vec<(String, anyhow::Error)> {
    let names = settings.endpoints().into_iter().map(|e| e.name);
    names.filter_map(|name| way(settings, &name).err().map(|e| (name, e))).collect()
}

impl Hands {
    /// With these endpoints and mailboxes. Secrets are read now, and again every some seconds; where one cannot be had from the
    /// start, attempts at that endpoint fail until it can, and say why.
    ///
    /// # Errors
    /// Where the system gives no threads.
    pub fn new(in_force: &Arc<InForce>) -> std::io::Result<Self> {
        let settings = in_force.get();
        let names = settings.endpoints().into_iter().map(|e| e.name);
        let ways = names.map(|name| (name.clone(), way(&settings, &name).unwrap_or(Way::Broken))).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(8)
            .thread_name("desk-send")
            .enable_all()
            .build()?;
        // Bounded by what the outbox lets be under way.
        let (report, ended) = crossbeam_channel::unbounded();
        Ok(Self {
            in_force: Arc::clone(in_force),
            settings,
            looked: Instant::now(),
            said: HashMap::new(),
            ways,
            ended,
            report,
            under_way: 0,
            runtime: Some(runtime),
        })
    }

    /// Reads secrets again, where some time has passed or a reload names other files: one that is replaced is in force within
    /// seconds, also for what waits, because each attempt is signed anew. The files are as small as that; their times are not
    /// relied on.
    fn look(&mut self) {
        let settings = self.in_force.get();
        if Arc::ptr_eq(&settings, &self.settings) && self.looked.elapsed() < LOOK {
            return;
        }
        (self.looked, self.settings) = (Instant::now(), settings);
        for (name, way) in &mut self.ways {
            match way.refresh(&self.settings, name) {
                Ok(true) => tracing::info!(endpoint = name, "its secret has changed: the new one is used from now on"),
                Ok(false) => {}
                Err(e) => {
                    let why = format!("{e:#}");
                    if self.said.entry(name.clone()).or_default().is_news(&why) {
                        tracing::error!(endpoint = name, "the secret before it goes on being used: {why}");
                    }
                }
            }
        }
    }

    /// Begins an attempt.
    pub fn send(&mut self, attempt: &Attempt, message: &Message) {
        self.look();
        self.under_way += 1;
        let (report, number) = (self.report.clone(), attempt.attempt);
        let endpoint = attempt.endpoint.clone();
        let end = move |outcome| {
            // Nobody listens any more where the desk has gone elsewhere.
            let _ = report.send(Ended { attempt: number, endpoint, outcome });
        };
        if matches!(self.ways.get(&attempt.endpoint), Some(Way::Broken)) {
            match way(&self.settings, &attempt.endpoint) {
                Ok(mended) => _ = self.ways.insert(attempt.endpoint.clone(), mended),
                Err(e) => return end(Outcome::Retry { status: None, after: None, why: format!("{e:#}") }),
            }
        }
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
            Way::Mail { mailer, .. } => match mailer.prepare(message, now_s) {
                Ok(mail) => {
                    let mailer = Arc::clone(mailer);
                    runtime.spawn(async move { end(mailer.send(&mail).await) });
                }
                Err(e) => end(blocked(e.to_string())),
            },
            // It has just been mended, or the attempt has ended.
            Way::Broken => {}
        }
    }

    /// Attempts that have ended since the last call. Secrets are looked after by the way: what is wrong with one is said though
    /// nothing is to be sent.
    pub fn ended(&mut self) -> Vec<Ended> {
        self.look();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::alert::Severity;
    use crate::desk::webhook::body::{IncidentState, What};
    use crate::event::Timestamp;

    fn why(hands: &mut Hands, endpoint: &str) -> String {
        let attempt = Attempt {
            attempt: 1,
            endpoint: endpoint.to_owned(),
            id: "m".to_owned(),
            incident: "i".to_owned(),
            seq: 0,
            attempts: 0,
            probe: false,
        };
        let message = Message {
            id: "m".to_owned(),
            kind: "webhook.test".to_owned(),
            at: Timestamp(1_700_000_000_000),
            severity: Severity::Warning,
            incident: "i".to_owned(),
            link: String::new(),
            customer: None,
            what: What::Other { summary: "s".to_owned(), state: IncidentState::Open, data: serde_json::Value::Null },
        };
        hands.send(&attempt, &message);
        let ended = hands.ended.recv_timeout(Duration::from_secs(60)).unwrap();
        match ended.outcome {
            Outcome::Retry { status: None, after: None, why } => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_secret_that_is_gone_is_that_endpoints_trouble_alone_and_passes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("good"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        // Port 1 of this host: nobody listens there, and a connection is refused at once.
        let endpoint = |name: &str, secret: &str, ca_file: &str| Endpoint {
            name: name.to_owned(),
            url: crate::desk::webhook::settings::Url("http://127.0.0.1:1/".to_owned()),
            secret_file: path(secret),
            ca_file: ca_file.to_owned(),
            allow_private: true,
            ..Endpoint::default()
        };
        let settings = Settings {
            webhook: vec![
                endpoint("good", "good", ""),
                endpoint("renamed", "gone", ""),
                endpoint("untrusted", "good", &path("gone.pem")),
            ],
            ..Settings::default()
        };
        let names: Vec<String> = broken(&settings).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["renamed", "untrusted"]);
        let mut hands = Hands::new(&Arc::new(InForce::new(&settings))).unwrap();
        let down = why(&mut hands, "good");
        assert!(why(&mut hands, "renamed").contains("secret_file"));
        assert!(why(&mut hands, "untrusted").contains("ca_file"));
        std::fs::rename(path("good"), path("gone")).unwrap();
        assert_eq!(why(&mut hands, "renamed"), down, "it is tried as the others are");
        assert!(why(&mut hands, "untrusted").contains("ca_file"));
    }
}
