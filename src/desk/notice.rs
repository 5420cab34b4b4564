//! What the desk itself says, in the form of an alert: campaigns, anomalies, what was done about accounts and relays. It goes to the alerts topic as the
//! detector's alerts do, and comes back from there to be numbered and delivered.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::core::alert::{Action, Alert, RelayShare, Severity};
use crate::event::Timestamp;

/// Accounts that one notice names at most; its evidence has the full number.
pub const ACCOUNTS_MAX: usize = 100;

/// Something about several accounts, or about what was done to an account or a relay. Field order is the written order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Always 1.
    pub v: u8,
    /// The same however often it is made.
    pub id: String,
    /// What is said.
    pub kind: NoticeKind,
    /// Event time that decided it.
    pub ts: Timestamp,
    /// How bad: of a campaign the worst of its incidents.
    pub severity: Severity,
    /// Of a stop: the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Of a stop: its customer; of a relay the one that it is dedicated to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Of a pull or a listing: the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// The campaign or anomaly; of a stop the measure, which is read with the account's incident ([`Notice::thread`]); a pull and its restore share one, and so do a listing and its end. All that is said of one shares it.
    pub incident: String,
    /// Of a campaign: the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign: Option<String>,
    /// Who, at most [`ACCOUNTS_MAX`]: in order of their flags, of a pull most recipients first.
    pub accounts: Vec<AccountShare>,
    /// Why.
    pub evidence: Vec<Reason>,
    /// Empty: the incidents have theirs.
    pub relays: Vec<RelayShare>,
    /// What is recommended.
    pub action: Action,
    /// Program version.
    pub by: String,
}

/// What a notice says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NoticeKind {
    /// Accounts flagged within a short time have something in common.
    #[serde(rename = "campaign")]
    Campaign,
    /// So many accounts are flagged that the stream has changed, not its accounts.
    #[serde(rename = "stream.anomaly")]
    Anomaly,
    /// An account cannot send any more, or not to many.
    #[serde(rename = "account.stopped")]
    Stopped,
    /// It can again.
    #[serde(rename = "account.released")]
    Released,
    /// A relay gets no new mail, or a person must say so.
    #[serde(rename = "relay.pull")]
    Pull,
    /// It gets mail again.
    #[serde(rename = "relay.restore")]
    Restore,
    /// A blocklist names a relay's address.
    #[serde(rename = "relay.listed")]
    Listed,
    /// It does not any more, or is not asked any more.
    #[serde(rename = "relay.delisted")]
    Delisted,
}

/// One account of a notice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountShare {
    /// The account as folded.
    pub account: String,
    /// Its incident.
    pub incident: String,
    /// Recipients of its burst when it was flagged.
    pub recipients: u64,
}

/// One reason, as [`crate::core::alert::Evidence`] is one, with signals of several accounts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// What was measured.
    pub signal: String,
    /// Over how many seconds.
    pub window_s: u32,
    /// The measured value.
    pub observed: f64,
    /// What is normal.
    pub expected: f64,
    /// What would have sufficed.
    pub limit: f64,
    /// Decades of surprise; 0 where none was computed.
    pub weight: f64,
    /// A sentence a person can read; every number in it is a field.
    pub text: String,
}

/// Whatever stands in the alerts topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Said {
    /// By the detector, about an account.
    Account(Box<Alert>),
    /// By the desk, about several, or about what was done.
    Fleet(Box<Notice>),
}

impl Notice {
    /// What it is read with: that an account is stopped or released belongs to the incident that it is about, all else to its own.
    pub fn thread(&self) -> &str {
        match (self.kind, self.accounts.first()) {
            (NoticeKind::Stopped | NoticeKind::Released, Some(share)) => &share.incident,
            _ => &self.incident,
        }
    }
}

impl Said {
    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::Account(alert) => &alert.id,
            Self::Fleet(notice) => &notice.id,
        }
    }

    /// What it belongs to.
    pub fn incident(&self) -> &str {
        match self {
            Self::Account(alert) => &alert.incident,
            Self::Fleet(notice) => &notice.incident,
        }
    }

    /// What it is read with.
    pub fn thread(&self) -> &str {
        match self {
            Self::Account(alert) => &alert.incident,
            Self::Fleet(notice) => notice.thread(),
        }
    }

    /// The account that it is about; empty where there are several.
    pub fn account(&self) -> &str {
        match self {
            Self::Account(alert) => &alert.account,
            Self::Fleet(notice) => notice.account.as_deref().unwrap_or_default(),
        }
    }
}

/// An id: the first 16 bytes of the SHA-256 of its parts, after a letter that says what it names.
pub fn id(letter: char, parts: &[&str]) -> String {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut id = format!("{letter}-");
    for byte in &hash.finalize()[..16] {
        let _ = write!(id, "{byte:02x}");
    }
    id
}
