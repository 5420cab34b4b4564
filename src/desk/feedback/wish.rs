//! What people ask of the active desk.

use serde::Deserialize;

use super::record::{Action, Kind, Whom};
use crate::desk::index::query::Message;
use crate::event::Timestamp;

/// Characters of a note at most.
pub const NOTE_MAX: usize = 1024;

/// What somebody wants.
#[derive(Debug)]
pub enum Wish {
    /// Say that somebody looks after an incident.
    Acknowledge {
        /// Its id.
        incident: String,
        /// A word about it.
        note: Option<String>,
    },
    /// Say what an incident was; it is closed.
    Resolve {
        /// Its id.
        incident: String,
        /// What it was.
        resolution: Asked,
        /// Why.
        note: Option<String>,
    },
    /// Write a note at an incident.
    Note {
        /// Its id.
        incident: String,
        /// What it says.
        note: String,
    },
    /// Decide about accounts.
    Decide(NewDecision),
    /// Take a decision back.
    TakeBack {
        /// Its id.
        decision: String,
        /// Why.
        note: Option<String>,
    },
    /// Record what an outside system did.
    Act(NewAction),
    /// Send to an endpoint again that had said 410.
    Enable {
        /// Its name.
        endpoint: String,
    },
    /// Send a message again.
    Resend {
        /// As the index has it.
        message: Box<Message>,
    },
}

impl Wish {
    /// The note that comes with it.
    pub(super) fn note(&self) -> Option<&str> {
        match self {
            Self::Acknowledge { note, .. } | Self::Resolve { note, .. } | Self::TakeBack { note, .. } => {
                note.as_deref()
            }
            Self::Note { note, .. } => Some(note),
            Self::Decide(new) => Some(&new.note),
            Self::Act(new) => new.note.as_deref(),
            Self::Enable { .. } | Self::Resend { .. } => None,
        }
    }
}

/// What an incident was.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Asked {
    /// Somebody else had sent.
    Hijack,
    /// The owner had.
    NotHijack,
    /// The owner had, and the flag was wrong.
    FalsePositive {
        /// For so long more is tolerated, in days.
        days: u32,
        /// So much more, in decades.
        decades: f64,
    },
}

/// A decision that is asked for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDecision {
    /// About what.
    pub scope: Whom,
    /// Which one; a network in CIDR.
    pub name: String,
    /// What.
    pub what: Kind,
    /// On exempt: what limits are multiplied by, above 1, at most 10; 10.
    pub factor: Option<f64>,
    /// On tolerate: decades that the bars are raised by; 2.
    pub decades: Option<f64>,
    /// On pin: established or bulk.
    pub stratum: Option<String>,
    /// From when it counts, in event time; as soon as every detector can know it.
    pub from: Option<Timestamp>,
    /// Before when it counts, in event time.
    pub until: Timestamp,
    /// Why.
    pub note: String,
}

/// What an outside system did.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAction {
    /// What.
    pub action: Action,
    /// To which account.
    pub account: Option<String>,
    /// To which relay.
    pub relay: Option<String>,
    /// About which incident; that of the account which goes on, where it is absent.
    pub incident: Option<String>,
    /// When; now.
    pub at: Option<Timestamp>,
    /// Why.
    pub note: Option<String>,
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// It does not go with what is.
    #[error("{0}")]
    Conflict(String),
    /// It is not understood.
    #[error("{0}")]
    Invalid(String),
}
