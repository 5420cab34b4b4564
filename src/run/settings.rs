//! Sections `[run]` and `[http]` of the configuration.

use serde::{Deserialize, Serialize};

use crate::telemetry::token::{self, BadToken, Token};

/// How the consumer runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Run {
    /// Where a partition begins that has neither a committed offset nor a state.
    pub start: Start,
    /// Threads that detect; partitions are spread over them. 0: as many as there are cores.
    pub workers: usize,
    /// A partition is checkpointed this long after its last checkpoint, in milliseconds.
    pub checkpoint_ms: u32,
    /// …or after so many events.
    pub checkpoint_events: u64,
    /// A member of the group that is silent for so long is taken for dead, in milliseconds.
    pub session_timeout_ms: u32,
    /// Time for the last checkpoint when a partition is given away or the program stops, in seconds.
    pub drain_s: u32,
    /// Memory that the accounts of all partitions may take, in MiB. 0: no limit.
    pub memory_max_mib: u64,
    /// A partition is halted when more than this share of its last `rejects_window` records, from many keys, is bad. 1: never.
    pub rejects_max_share: f64,
    /// See `rejects_max_share`.
    pub rejects_window: u32,
    /// What this instance is called, in the group and in logs. Empty: the host's name and the HTTP address.
    pub instance: String,
}

/// Where to begin without a committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the oldest event there is.
    Earliest,
    /// With the next event that comes.
    Latest,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Address and port. Empty: no server.
    pub listen: String,
    /// The address that other instances name to people. Empty: `listen`.
    pub advertise: String,
    /// Who may ask. None: whoever reaches it, where it listens on the loopback; else nobody.
    pub token: Vec<Token>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            start: Start::Earliest,
            workers: 0,
            checkpoint_ms: 30_000,
            checkpoint_events: 2_000_000,
            session_timeout_ms: 30_000,
            drain_s: 20,
            memory_max_mib: 0,
            rejects_max_share: 0.5,
            rejects_window: 1_000,
            instance: String::new(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9925".to_owned(), advertise: String::new(), token: Vec::new() }
    }
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// A number out of its range.
    #[error("run.{0}")]
    Range(&'static str),
    /// No address.
    #[error("http.listen: `{0}` is no address; write 127.0.0.1:9925")]
    Address(String),
    /// Tokens.
    #[error(transparent)]
    Token(#[from] BadToken),
}

impl Run {
    /// Checks what does not depend on the world.
    ///
    /// # Errors
    /// Where a value cannot be used; the error names its key.
    pub fn check(&self) -> Result<(), BadSettings> {
        for (fine, key) in [
            (self.workers <= 256, "workers must be at most 256"),
            (self.checkpoint_ms >= 50, "checkpoint_ms must be at least 50"),
            (self.checkpoint_events >= 1, "checkpoint_events must be above zero"),
            (
                (1_000..=3_600_000).contains(&self.session_timeout_ms),
                "session_timeout_ms must lie between 1000 and 3600000",
            ),
            (
                u64::from(self.drain_s) * 1000 < u64::from(self.session_timeout_ms) && self.drain_s > 0,
                "drain_s must be above zero and shorter than session_timeout_ms",
            ),
            (
                self.rejects_max_share > 0.0 && self.rejects_max_share <= 1.0,
                "rejects_max_share must lie above 0, up to 1",
            ),
            ((10..=1_000_000).contains(&self.rejects_window), "rejects_window must lie between 10 and 1000000"),
        ] {
            if !fine {
                return Err(BadSettings::Range(key));
            }
        }
        Ok(())
    }
}

impl Http {
    /// Checks what does not depend on the world.
    ///
    /// # Errors
    /// Where `listen` is no address, or a token cannot be used.
    pub fn check(&self) -> Result<(), BadSettings> {
        self.address()?;
        Ok(token::check(&self.token)?)
    }

    /// Where to listen; `None` where no server is wanted.
    ///
    /// # Errors
    /// Where `listen` is no address.
    pub fn address(&self) -> Result<Option<std::net::SocketAddr>, BadSettings> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        self.listen.parse().map(Some).map_err(|_| BadSettings::Address(self.listen.clone()))
    }
}
