//! Accounts that are called otherwise from now on: which wait to be handed over, and which are done. Pure; the `desk` topic is its
//! truth. What an account had learned is looked for by `desk::heirs`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::feedback::ledger::{LEAD_MS, STAYS_MS};
use super::feedback::record::Word;
use super::feedback::wish::Refused;
use super::notice;
use super::record::{RENAME, Record};
use crate::core::decision::{Decision, What};
use crate::core::inherit::Learned;
use crate::core::scope::Scope;
use crate::event::Timestamp;

/// A new name inherits with its first event in so many days, in milliseconds.
const COUNTS_MS: i64 = 30 * 86_400_000;
/// A rename of the directory that is older than this is not handed over any more: the new name has a past of its own by then.
pub const NEW_MS: i64 = 7 * 86_400_000;
/// Renames that are known at a time.
const RENAMES_MAX: usize = 20_000;
/// What they have handed over takes at most so many bytes, in the memory of every instance.
const LEARNED_BYTES_MAX: usize = 64 << 20;

/// An account that has another name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// Always 1.
    pub v: u8,
    /// The name it had, as folded.
    pub from: String,
    /// The name it has, as folded.
    pub to: String,
    /// Who said so, when, and why.
    #[serde(flatten)]
    pub word: Word,
    /// How far it is.
    #[serde(flatten)]
    pub state: State,
}

/// How far a rename is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// What was learned is being looked for.
    Waiting,
    /// It was handed over.
    Done {
        /// From when the new name goes on with it, in event time.
        counts_from: Timestamp,
        /// What it takes, in bytes.
        learned_bytes: usize,
    },
    /// No detector has stored anything about the old name.
    Nothing {
        /// When that was found out.
        found: Timestamp,
    },
}

/// All that are known, by the new name.
#[derive(Debug, Default)]
pub struct Renames {
    by_to: BTreeMap<String, Renamed>,
}

impl Renames {
    /// Takes in what the topic has.
    pub fn restore(&mut self, record: &Record) {
        match record {
            Record::Renamed(renamed) => _ = self.by_to.insert(renamed.to.clone(), (**renamed).clone()),
            Record::Gone(key) => {
                if let Some(to) = key.strip_prefix(RENAME) {
                    self.by_to.remove(to);
                }
            }
            _ => {}
        }
    }

    /// Whether somebody has said already that `from` is called `to`.
    pub fn knows(&self, from: &str, to: &str) -> bool {
        self.by_to.get(to).is_some_and(|r| r.from == from)
    }

    /// Takes that `from` is called `to` from now on. Returns it, and whether that is new.
    ///
    /// # Errors
    /// Where it cannot be done: then nothing has changed.
    pub fn ask(&mut self, from: &str, to: &str, word: Word) -> Result<(Renamed, bool), Refused> {
        for (field, name) in [("from", from), ("to", to)] {
            if Scope::new("account", name).is_none() {
                return Err(Refused::Invalid(format!("`{field}` must be an account's name of at most 1024 bytes")));
            }
        }
        let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
        if from == to {
            return Err(Refused::Invalid("`from` and `to` are the same account: case does not count".to_owned()));
        }
        match self.by_to.get(&to) {
            // Asked twice. Where nothing was found it is looked for again.
            Some(known) if known.from == from && !matches!(known.state, State::Nothing { .. }) => {
                return Ok((known.clone(), false));
            }
            Some(Renamed { from, state: State::Waiting | State::Done { .. }, .. }) => {
                return Err(Refused::Conflict(format!("{to} goes on with what {from} had learned already")));
            }
            _ => {}
        }
        if self.by_to.len() >= RENAMES_MAX || self.bytes() >= LEARNED_BYTES_MAX {
            return Err(Refused::Conflict(format!(
                "too much was renamed lately: {RENAMES_MAX} accounts, or {LEARNED_BYTES_MAX} bytes that they had learned, is all that \
                 is kept of two months"
            )));
        }
        let renamed = Renamed { v: 1, from, to: to.clone(), word, state: State::Waiting };
        self.by_to.insert(to, renamed.clone());
        Ok((renamed, true))
    }

    fn bytes(&self) -> usize {
        let of = |r: &Renamed| match r.state {
            State::Done { learned_bytes, .. } => learned_bytes,
            _ => 0,
        };
        self.by_to.values().map(of).sum()
    }

    /// The old names that wait.
    pub fn waiting(&self) -> Vec<String> {
        self.by_to.values().filter(|r| r.state == State::Waiting).map(|r| r.from.clone()).collect()
    }

    /// Takes what an old name had learned, or that there is nothing. Returns for each new name that waited for it the rename, and
    /// the decision about it.
    pub fn found(&mut self, from: &str, learned: Option<&Learned>, now_ms: i64) -> Vec<(Renamed, Option<Decision>)> {
        let mut found = Vec::new();
        for renamed in self.by_to.values_mut().filter(|r| r.from == from && r.state == State::Waiting) {
            let counts_from = Timestamp(now_ms + LEAD_MS);
            let decision = learned.map(|learned| Decision {
                id: Some(notice::id('r', &[&renamed.from, &renamed.to, &now_ms.to_string()])),
                what: What::Inherit { account_before: renamed.from.clone(), learned: learned.clone() },
                from: counts_from,
                until: Some(Timestamp(counts_from.0 + COUNTS_MS)),
                by: Some(renamed.word.by.clone()),
                note: None,
            });
            renamed.state = match learned {
                Some(learned) => State::Done { counts_from, learned_bytes: learned.bytes().len() },
                None => State::Nothing { found: Timestamp(now_ms) },
            };
            found.push((renamed.clone(), decision));
        }
        found
    }

    /// Forgets what counts no more. Returns what must be written to the desk topic, and the keys of control records that lose
    /// something.
    pub fn forget(&mut self, now_ms: i64) -> (Vec<Record>, Vec<String>) {
        let is_over = |r: &Renamed| match r.state {
            State::Waiting => false,
            State::Done { counts_from, .. } => counts_from.0 + COUNTS_MS + STAYS_MS < now_ms,
            State::Nothing { found } => found.0 + STAYS_MS < now_ms,
        };
        let over: Vec<String> = self.by_to.values().filter(|r| is_over(r)).map(|r| r.to.clone()).collect();
        self.by_to.retain(|_, r| !is_over(r));
        (over.iter().map(|to| Record::Gone(format!("{RENAME}{to}"))).collect(), over)
    }
}
