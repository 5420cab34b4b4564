//! Section `[desk]` of the configuration.

use serde::{Deserialize, Serialize};

use super::mail::{self, settings::Mailbox};
use super::webhook::{self, settings::Endpoint};

/// How the desk works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether `run` does it as well.
    pub enabled: bool,
    /// The SQLite file of the index. Empty: a temporary one.
    pub database: String,
    /// An incident that has been over for so long is forgotten, in days.
    pub keep_days: u32,
    /// Where people see more, for links in messages: the URL of this server as they reach it. Empty: messages have no links.
    pub link: String,
    /// From one heartbeat to the next, in seconds; 0: none.
    pub heartbeat_s: u32,
    /// When somebody asks what a burst has in the queues or who shared its relays, the events topic is read again for so long at
    /// most, in seconds.
    pub look_back_s: u32,
    /// And so many records at most.
    pub look_back_records: u64,
    /// Where alerts are sent.
    pub webhook: Vec<Endpoint>,
    /// Whom they are mailed to.
    pub mail: Vec<Mailbox>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            database: String::new(),
            keep_days: 90,
            link: String::new(),
            heartbeat_s: 0,
            look_back_s: 60,
            look_back_records: 50_000_000,
            webhook: Vec::new(),
            mail: Vec::new(),
        }
    }
}

impl Settings {
    /// How long what is over is kept, in milliseconds.
    pub fn keep_ms(&self) -> i64 {
        i64::from(self.keep_days) * 86_400_000
    }

    /// The same without the files of secrets: what of it takes a restart.
    pub fn without_secrets(&self) -> Self {
        let mut without = self.clone();
        for endpoint in &mut without.webhook {
            (endpoint.secret_file, endpoint.previous_secret_file) = Default::default();
        }
        for mailbox in &mut without.mail {
            mailbox.password_file = String::new();
        }
        without
    }

    /// Everything that is delivered to, mailboxes as the endpoints that stand for them.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.webhook.iter().cloned().chain(self.mail.iter().map(Mailbox::endpoint)).collect()
    }

    /// Checks what does not depend on the world.
    ///
    /// # Errors
    /// Where a value cannot be used; the error names its key.
    pub fn check(&self) -> Result<(), BadSettings> {
        if !(1..=3650).contains(&self.keep_days) {
            return Err(BadSettings::Range("keep_days must lie between 1 and 3650"));
        }
        if self.heartbeat_s != 0 && !(10..=86_400).contains(&self.heartbeat_s) {
            return Err(BadSettings::Range("heartbeat_s must be 0 or lie between 10 and 86400"));
        }
        if !(1..=600).contains(&self.look_back_s) {
            return Err(BadSettings::Range("look_back_s must lie between 1 and 600"));
        }
        if self.look_back_records == 0 {
            return Err(BadSettings::Range("look_back_records must be above 0"));
        }
        if self.heartbeat_s == 0 && self.endpoints().iter().any(|endpoint| endpoint.heartbeat) {
            return Err(BadSettings::Range(
                "heartbeat_s is 0, and an endpoint waits for heartbeats: set it, as to 300",
            ));
        }
        webhook::settings::check(&self.webhook)?;
        Ok(mail::settings::check(&self.mail, &self.webhook)?)
    }
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// Outside its range; the text names the key.
    #[error("desk.{0}")]
    Range(&'static str),
    /// An endpoint.
    #[error(transparent)]
    Webhook(#[from] webhook::settings::BadSettings),
    /// A mailbox.
    #[error(transparent)]
    Mail(#[from] mail::settings::BadSettings),
}
