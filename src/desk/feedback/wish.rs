//! What people ask of the active desk.

use serde::Deserialize;

use super::record::{Action, Kind, Whom};
use crate::desk::index::query::Message;
use crate::event::Timestamp;
use crate::relays::measure::Kind as MeasureKind;

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
    /// Have an account go on under another name.
    Rename(NewName),
    /// Record what an outside system did.
    Act(NewAction),
    /// Stop or release an account, pull a relay or put it back.
    Measure(MeasureWish),
    /// Send to an endpoint again that had said 410.
    Enable {
        /// Its name.
        endpoint: String,
        /// Why.
        note: Option<String>,
    },
    /// Send a message again.
    Resend {
        /// As the index has it.
        message: Box<Message>,
        /// Why.
        note: Option<String>,
    },
}

/// What somebody wants of accounts that are stopped and relays that are pulled.
#[derive(Debug)]
pub enum MeasureWish {
    /// Have done what waits for a person.
    Confirm {
        /// The measure's id.
        id: String,
        /// Why.
        note: Option<String>,
        /// What who asks may do.
        rights: Rights,
    },
    /// Refuse what waits for a person, or end what is in force.
    End {
        /// The measure's id.
        id: String,
        /// Why.
        note: Option<String>,
        /// What who asks may do.
        rights: Rights,
    },
    /// Stop or throttle an account, or pull a relay.
    Order(NewMeasure),
    /// Put all relays back, and hold off new pulls.
    RestoreAll {
        /// For so long, in seconds.
        hold_s: u32,
        /// Why.
        note: Option<String>,
    },
    /// Let relays be pulled again.
    Lift {
        /// Why.
        note: Option<String>,
    },
}

/// What somebody may decide about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Accounts.
    pub accounts: bool,
    /// Relays.
    pub relays: bool,
}

impl Rights {
    /// Whether they suffice for a measure; of one that is not known nobody is told more.
    ///
    /// # Errors
    /// Where they do not.
    pub fn may(self, kind: Option<MeasureKind>) -> Result<(), Refused> {
        let (is, role) = match kind {
            None => return Ok(()),
            Some(MeasureKind::Pull) => (self.relays, "relays"),
            Some(MeasureKind::Stop | MeasureKind::Throttle) => (self.accounts, "accounts"),
        };
        if is { Ok(()) } else { Err(Refused::Forbidden(format!("you may not do that: it needs the role `{role}`"))) }
    }
}

/// A measure that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMeasure {
    /// What is done.
    pub kind: MeasureKind,
    /// The account, or the relay as its pool has it.
    pub subject: String,
    /// For how long, in seconds; as the configuration says.
    #[serde(default, deserialize_with = "super::whole::option")]
    pub for_s: Option<u32>,
    /// Why.
    pub note: String,
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

/// An account that has another name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewName {
    /// The name it had.
    pub from: String,
    /// The name it has.
    pub to: String,
    /// Why.
    pub note: Option<String>,
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

impl Wish {
    /// Refuses a note that is too long.
    ///
    /// # Errors
    /// Where it is.
    pub fn check(&self) -> Result<(), Refused> {
        match self.note() {
            Some(note) if note.chars().count() > NOTE_MAX => {
                Err(Refused::Invalid(format!("the note has more than {NOTE_MAX} characters")))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn note(&self) -> Option<&str> {
        match self {
            Self::Acknowledge { note, .. }
            | Self::Resolve { note, .. }
            | Self::TakeBack { note, .. }
            | Self::Enable { note, .. }
            | Self::Resend { note, .. } => note.as_deref(),
            Self::Note { note, .. } => Some(note),
            Self::Decide(new) => Some(&new.note),
            Self::Act(new) => new.note.as_deref(),
            Self::Rename(new) => new.note.as_deref(),
            Self::Measure(MeasureWish::Order(new)) => Some(&new.note),
            Self::Measure(
                MeasureWish::Confirm { note, .. }
                | MeasureWish::End { note, .. }
                | MeasureWish::RestoreAll { note, .. }
                | MeasureWish::Lift { note },
            ) => note.as_deref(),
        }
    }
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
    /// Whoever asks may not.
    #[error("{0}")]
    Forbidden(String),
}
