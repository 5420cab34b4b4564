//! A measure: an account stopped or throttled, a relay pulled. It is decided by the active desk, stands in the desk topic as
//! `measure/ID`, and ends by a person, by an outside system that says so, or at its expiry. Pure.

use serde::{Deserialize, Serialize};

use super::decide::BY;
use crate::desk::notice::AccountShare;
use crate::event::Timestamp;

/// What is done, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An account may not send.
    Stop,
    /// An account may send to few new recipients an hour.
    Throttle,
    /// A relay gets no new mail.
    Pull,
}

impl Kind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Throttle => "throttle",
            Self::Pull => "pull",
        }
    }
}

/// How far it goes by itself. In order: the lesser of two counts where both have a say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is recorded what would be done, and served to nobody.
    #[default]
    Shadow,
    /// A person confirms.
    Confirm,
    /// It is done.
    Auto,
}

/// Where a measure stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It would have been done; nobody is served it.
    Shadow,
    /// It waits for a person.
    Asked,
    /// It is done.
    InForce,
    /// It is over, or was never done: see [`Measure::ended`].
    Ended,
}

impl State {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Asked => "asked",
            Self::InForce => "in_force",
            Self::Ended => "ended",
        }
    }
}

/// How a measure ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who: a person or an outside system as the audit names it, or `mailfuse`.
    pub by: String,
    /// Why, in words.
    pub why: String,
    /// What it was before: what was never in force did nothing. None of what an older program ended, which counts as in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<State>,
    /// Of an account that was stopped for a reason: until when it is on probation, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probation_until_ms: Option<i64>,
}

/// Something that was decided about an account or a relay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Always 1.
    pub v: u8,
    /// `m-` and a hash of kind, subject and incident: the same however often it is decided.
    pub id: String,
    /// What is done.
    pub kind: Kind,
    /// The account as folded, or the relay's name.
    pub subject: String,
    /// The account's customer; of a relay the one that it is dedicated to, empty where it is shared.
    pub tenant: String,
    /// Of a relay: its pool. Else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pool: String,
    /// Of an account: the incident that it is stopped for. A pull and its restore share one of their own.
    pub incident: String,
    /// Of a relay: who burdened it, most recipients first, at most [`crate::desk::notice::ACCOUNTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<AccountShare>,
    /// Where it stands.
    pub state: State,
    /// Event time that decided it.
    pub ts: Timestamp,
    /// When it was decided, in milliseconds since 1970.
    pub made_ms: i64,
    /// Since when it is in force, in milliseconds since 1970; in shadow, since when it would be, unless it
    /// came too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// When a hand, or an outside system, said that it is done, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_ms: Option<i64>,
    /// The person who confirmed it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_by: Option<String>,
    /// When it ends at the latest, in milliseconds since 1970.
    pub until_ms: i64,
    /// Who decided: a person as the audit names it, or `mailfuse`.
    pub by: String,
    /// Why, in words.
    pub why: String,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

impl Measure {
    /// Whether it is done at `now_ms`, in milliseconds since 1970. Its expiry ends it by itself: nobody needs to be there for it.
    pub fn is_in_force(&self, now_ms: i64) -> bool {
        self.state == State::InForce && now_ms < self.until_ms
    }

    /// Since when it is or was in force, in milliseconds since 1970; `None` where it never was.
    pub fn in_force_since_ms(&self) -> Option<i64> {
        let state = self.ended.as_ref().map_or(self.state, |ended| ended.was.unwrap_or(State::InForce));
        self.since_ms.filter(|_| state == State::InForce)
    }

    /// Whether a person stands behind it: one ordered it, or confirmed it.
    pub fn is_by_person(&self) -> bool {
        self.by != BY || self.confirmed_by.is_some()
    }

    /// Whether a hand of this mode does it, once it is in force. That it is says already what the mode of its tenant or pool lets
    /// happen, so that the lesser of the two counts: a hand in `confirm` does what a person stands behind, one in `shadow` nothing.
    pub fn is_for(&self, hand: Mode) -> bool {
        match hand {
            Mode::Auto => true,
            Mode::Confirm => self.is_by_person(),
            Mode::Shadow => false,
        }
    }

    /// Whether it was recorded only: what it is about lay too far back to act on.
    pub fn came_too_late(&self) -> bool {
        self.state == State::Shadow && self.since_ms.is_none()
    }

    /// Whether it has not ended by a record.
    pub fn is_open(&self) -> bool {
        self.state != State::Ended
    }
}
