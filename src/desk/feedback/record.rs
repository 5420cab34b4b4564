//! What is kept of what people said: decisions, and the audit.

use serde::{Deserialize, Serialize};

use crate::core::scope::Scope;
use crate::event::Timestamp;

/// Somebody's word about an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// Whose.
    pub by: String,
    /// When, by the desk's clock.
    pub at: Timestamp,
    /// What they wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// How an incident was resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// As what.
    #[serde(rename = "as")]
    pub kind: Resolution,
    /// By whom, when, why.
    #[serde(flatten)]
    pub word: Word,
}

/// What an incident turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Somebody else had sent in the owner's name.
    Hijack,
    /// The owner had.
    NotHijack,
    /// The owner had, and the flag was wrong: more is tolerated for a time.
    FalsePositive,
}

impl Resolution {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hijack => "hijack",
            Self::NotHijack => "not_hijack",
            Self::FalsePositive => "false_positive",
        }
    }
}

/// What somebody did outside about an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acted {
    /// What.
    pub action: Action,
    /// By whom, when, why.
    #[serde(flatten)]
    pub word: Word,
}

/// What outside systems do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The account cannot send any more.
    AccountStopped,
    /// It can again.
    AccountReleased,
    /// Its owner has a new password.
    PasswordChanged,
    /// A relay was taken out of the pool.
    RelayPulled,
    /// It was put back.
    RelayRestored,
}

impl Action {
    /// Whether it is about a relay, not an account.
    pub fn is_of_relay(self) -> bool {
        matches!(self, Self::RelayPulled | Self::RelayRestored)
    }
}

/// A decision about accounts, as the desk keeps it; the control topic has what detectors need of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided {
    /// Always 1.
    pub v: u8,
    /// Its number: that of the audit entry that began it.
    pub n: u64,
    /// Its id; the control record has it too.
    pub id: String,
    /// About what.
    pub scope: Whom,
    /// Which one, as folded.
    pub name: String,
    /// What was decided.
    pub what: Kind,
    /// On exempt: what limits are multiplied by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// On tolerate: decades that the bars are raised by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decades: Option<f64>,
    /// On pin: established or bulk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stratum: Option<String>,
    /// On close and hijack: the incident; on tolerate that of which it was the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// From when it counts, in event time.
    pub from: Timestamp,
    /// Before when it counts, in event time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Who decided.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// When it was made, by the desk's clock.
    pub made: Timestamp,
    /// Whether, by whom and why it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_back: Option<Word>,
}

/// Whom a decision is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whom {
    /// One account.
    Account,
    /// All accounts of a customer.
    Tenant,
    /// All accounts of a mail domain.
    Domain,
    /// What is sent from a network.
    Network,
}

impl Whom {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Tenant => "tenant",
            Self::Domain => "domain",
            Self::Network => "network",
        }
    }

    /// The scope with this name; `None` where there is none such.
    pub fn scope(self, name: &str) -> Option<Scope> {
        Scope::new(self.name(), name)
    }
}

/// What can be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Limits are multiplied.
    Exempt,
    /// Bars are raised.
    Tolerate,
    /// The account is taken for one of a stratum.
    Pin,
    /// An incident is over.
    Close,
    /// An incident is over, and what it taught is taken out of what the account had learned.
    Hijack,
}

impl Kind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exempt => "exempt",
            Self::Tolerate => "tolerate",
            Self::Pin => "pin",
            Self::Close => "close",
            Self::Hijack => "hijack",
        }
    }
}

/// A line of the audit: who did what, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Always 1.
    pub v: u8,
    /// Its number: they go up by one.
    pub n: u64,
    /// When, by the desk's clock.
    pub at: Timestamp,
    /// Who.
    pub who: String,
    /// What: `incident.acknowledged`, `decision.made`, …
    pub what: String,
    /// About what.
    #[serde(flatten)]
    pub about: About,
    /// When it was done, where whoever did it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a line of the audit is about. What does not apply is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// An incident, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
    /// An account as folded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The name that the account had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_before: Option<String>,
    /// A decision, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// What the decision is about, where it is no account: `tenant shop.example`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// A relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// A measure, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measure: Option<String>,
    /// An endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A message, by its webhook id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
