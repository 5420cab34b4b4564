//! The alert, as it is written: the shape that the abuse desk and scripts rely on (`schemas/alert.schema.json`).

use serde::{Deserialize, Serialize};

use crate::event::Timestamp;

/// One alert. Field order is the written order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Always 1.
    pub v: u8,
    /// The same for the same flag however often it is computed.
    pub id: String,
    /// What is said.
    pub kind: AlertKind,
    /// Event time that decided it.
    pub ts: Timestamp,
    /// How bad; on `cleared` what the incident had reached.
    pub severity: Severity,
    /// The account as folded.
    pub account: String,
    /// The customer it belongs to.
    pub tenant: String,
    /// Shared by flagged, escalated and cleared of one burst.
    pub incident: String,
    /// Orders alerts: decades of surprise (-log10 of the probability under the account's own past), summed over signals.
    pub score: f64,
    /// What the evidence looks like.
    pub pattern: Pattern,
    /// Strongest first; empty on `cleared`.
    pub evidence: Vec<Evidence>,
    /// The burst so far, through each relay; most recipients first, then by name.
    pub relays: Vec<RelayShare>,
    /// The burst so far.
    pub burst: Option<Burst>,
    /// What is recommended.
    pub action: Action,
    /// What it was raised in spite of; absent where nothing was exempt, and on `cleared`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exempt: Option<Exempt>,
    /// Whether it answers a heartbeat ([`super::beat`]): nobody is to act on it. Not written where it does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub heartbeat: bool,
    /// Program version and configuration digest.
    pub by: String,
}

/// An exemption that stood when an account was flagged beyond it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exempt {
    /// What was exempt: `account`, `tenant`, `domain` or `network`.
    pub scope: String,
    /// Its name.
    pub name: String,
    /// What limits on counts were multiplied by; of a network, for what came from it.
    pub factor: f64,
    /// Until when.
    pub until: Timestamp,
    /// Who decided so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What an alert says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AlertKind {
    /// A burst begins.
    #[serde(rename = "account.flagged")]
    Flagged,
    /// A warning became critical.
    #[serde(rename = "account.escalated")]
    Escalated,
    /// The burst has been over for the quiet time.
    #[serde(rename = "account.cleared")]
    Cleared,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Look, throttle.
    Warning,
    /// Stop it now.
    Critical,
}

/// What the evidence looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Strangers, refusals, foreign networks.
    Hijack,
    /// A list: many recipients, one network, few refusals.
    Bulk,
    /// A web site's form or a program of the customer that runs away.
    Script,
    /// Refused mail that the account only passes on.
    Forwarding,
    /// None of them clearly.
    Unclear,
}

/// Which measurement speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Recipients, known or not.
    Volume,
    /// Recipients that the account never wrote to before.
    NewRecipients,
    /// Refusals that say something about the account.
    Bounces,
    /// Client networks never seen before.
    NewNetworks,
    /// Complaints of recipients.
    Complaints,
}

/// One reason, with every number that its sentence has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// What was measured.
    pub signal: Signal,
    /// Over how many seconds.
    pub window_s: u32,
    /// The measured value.
    pub observed: f64,
    /// What this account normally has in such a window.
    pub expected: f64,
    /// What would have sufficed.
    pub limit: f64,
    /// Decades that it adds to the score.
    pub weight: f64,
    /// A sentence a person can read; every number in it is a field.
    pub text: String,
}

/// What the burst put on one relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayShare {
    /// The relay's name.
    pub relay: String,
    /// Messages.
    pub messages: u64,
    /// Recipients.
    pub recipients: u64,
}

/// The burst: the sends since the start of the flag's strongest window that brought new recipients or refusals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Burst {
    /// Its first send.
    pub first_ts: Timestamp,
    /// Messages so far.
    pub messages: u64,
    /// Recipients so far.
    pub recipients: u64,
    /// Recipients never written to before.
    pub new_recipients: u64,
    /// Refused recipients.
    pub bounced: u64,
    /// Client addresses, at most 16, in order of appearance.
    pub client_ips: Vec<String>,
    /// Recipient domains, most recipients first, at most 10.
    pub top_domains: Vec<DomainShare>,
    /// Samples, at most 10, the first ones.
    pub queue_ids: Vec<String>,
}

/// Recipients of the burst at one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainShare {
    /// The domain.
    pub domain: String,
    /// Recipients.
    pub recipients: u64,
}

/// What is recommended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Let fewer strangers through until somebody has looked.
    Throttle,
    /// Stop the account.
    SuspendAccount,
    /// Nothing.
    None,
}
