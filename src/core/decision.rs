//! What people have decided about an account: an exemption, a tolerance, a pinned stratum, a closed incident.
//!
//! A control record is JSON and holds an account's whole list; a later record of the account replaces it. A decision counts for
//! events from its `from` until before its `until`, in event time, so that a verdict is a function of the account's events, of
//! the configuration and of these, whenever they were read.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::incident::Incident;
use super::policy::{Policy, Threshold};
use super::verdict::{self, Stratum};
use crate::event::Timestamp;
use crate::event::wire::Field;

/// Decisions of one account at most.
pub const DECISIONS_MAX: usize = 100;
/// Bytes of a name or a note at most.
pub const TEXT_MAX: usize = 1024;
/// Decades that bars are raised by at most: more than any threshold is high.
pub const DECADES_MAX: f64 = 100.0;

/// An account's decisions, all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Decisions {
    /// The account as folded.
    pub account: Box<str>,
    /// In the order they were written.
    pub decisions: Vec<Decision>,
}

/// One decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What was decided.
    pub what: What,
    /// Counts from this moment of the account's clock on.
    pub from: Timestamp,
    /// Counts until before this moment; a close happens once, and has none.
    pub until: Option<Timestamp>,
    /// Who decided.
    pub by: Option<String>,
    /// Why.
    pub note: Option<String>,
}

/// What can be decided.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// No flag and no escalation is raised; everything is still counted and learned.
    Exempt,
    /// The bars are raised by so many decades.
    Tolerate {
        /// How many.
        decades: f64,
    },
    /// The verdict takes the account for one of this stratum.
    Pin {
        /// Which one: established or bulk.
        stratum: Stratum,
    },
    /// The incident is over at `from`, or when it was flagged, whichever is later.
    Close {
        /// Its id.
        incident: String,
    },
}

/// Why a control record is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDecisions {
    /// The parser's words.
    #[error("no control record: {0}")]
    Json(String),
    /// `v` is not 1.
    #[error("`v` is not 1")]
    Version,
    /// A field of the record.
    #[error("`{field}`: {expected}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
    /// A field of a decision.
    #[error("decision {number}: `{field}`: {expected}")]
    Decision {
        /// Which decision, from 1.
        number: usize,
        /// Which field.
        field: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
}

/// A record as its bytes say it. Unknown fields are passed over.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Record<'a> {
    v: Field<u64>,
    #[serde(borrow)]
    account: Field<Cow<'a, str>>,
    #[serde(borrow)]
    decisions: Option<Vec<Entry<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry<'a> {
    #[serde(borrow)]
    what: Field<Cow<'a, str>>,
    from: Field<Timestamp>,
    until: Field<Timestamp>,
    decades: Option<serde_json::Value>,
    #[serde(borrow)]
    stratum: Field<Cow<'a, str>>,
    #[serde(borrow)]
    incident: Field<Cow<'a, str>>,
    #[serde(borrow)]
    by: Field<Cow<'a, str>>,
    #[serde(borrow)]
    note: Field<Cow<'a, str>>,
}

impl Decisions {
    /// Reads a control record.
    ///
    /// # Errors
    /// Where it is none; the message names the field, and the decision by its number.
    ///
    /// # Examples
    /// ```
    /// use mailfuse::core::decision::{Decisions, What};
    ///
    /// let record = br#"{"v":1,"account":"News@Shop.example","decisions":[
    ///     {"what":"exempt","from":"2026-03-02T08:00:00Z","until":1775000000,"by":"ann"}]}"#;
    /// let read = Decisions::parse(record)?;
    /// assert_eq!(&*read.account, "news@shop.example");
    /// assert_eq!(read.decisions[0].what, What::Exempt);
    /// # Ok::<(), mailfuse::core::decision::BadDecisions>(())
    /// ```
    pub fn parse(record: &[u8]) -> Result<Self, BadDecisions> {
        if !record.trim_ascii_start().starts_with(b"{") {
            return Err(BadDecisions::Json("not a JSON object".to_owned()));
        }
        let record: Record<'_> = serde_json::from_slice(record).map_err(|e| BadDecisions::Json(e.to_string()))?;
        if record.v != Field::Is(1) {
            return Err(BadDecisions::Version);
        }
        let account = match record.account {
            Field::Is(account) if !account.is_empty() && account.len() <= TEXT_MAX => account.to_ascii_lowercase(),
            _ => return Err(BadDecisions::Field { field: "account", expected: "must be a name" }),
        };
        let entries = record
            .decisions
            .filter(|d| d.len() <= DECISIONS_MAX)
            .ok_or(BadDecisions::Field { field: "decisions", expected: "must be a list of at most 100" })?;
        let decisions = entries.into_iter().enumerate().map(|(i, entry)| {
            entry.check().map_err(|(field, expected)| BadDecisions::Decision { number: i + 1, field, expected })
        });
        Ok(Self { account: account.into(), decisions: decisions.collect::<Result<_, _>>()? })
    }

    /// No decisions about `account`: what a control record without a value says.
    pub fn none(account: &str) -> Self {
        Self { account: account.into(), decisions: Vec::new() }
    }

    /// The decisions that count at a moment of the account's clock.
    pub fn standing(&self, at: Timestamp) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(move |d| d.from <= at && d.until.is_none_or(|until| at < until))
    }

    /// When the incident with this id is closed: by the earliest of those that close it.
    pub fn closed(&self, incident: &str) -> Option<Timestamp> {
        let closes = |d: &&Decision| matches!(&d.what, What::Close { incident: id } if id == incident);
        self.decisions.iter().filter(closes).map(|d| d.from).min()
    }
}

impl Entry<'_> {
    fn check(self) -> Result<Decision, (&'static str, &'static str)> {
        let Field::Is(what) = &self.what else { return Err(("what", "must be exempt, tolerate, pin or close")) };
        let what = match &**what {
            "exempt" => What::Exempt,
            "tolerate" => {
                let decades = self.decades.as_ref().and_then(serde_json::Value::as_f64);
                let decades = decades.filter(|d| *d > 0.0 && *d <= DECADES_MAX);
                What::Tolerate { decades: decades.ok_or(("decades", "must be a number above 0, at most 100"))? }
            }
            "pin" => match &self.stratum {
                Field::Is(s) if s == "established" => What::Pin { stratum: Stratum::Established },
                Field::Is(s) if s == "bulk" => What::Pin { stratum: Stratum::Bulk },
                _ => return Err(("stratum", "must be established or bulk")),
            },
            "close" => match &self.incident {
                Field::Is(id) if !id.is_empty() && id.len() <= TEXT_MAX => What::Close { incident: id.to_string() },
                _ => return Err(("incident", "must be the id of an incident")),
            },
            _ => return Err(("what", "must be exempt, tolerate, pin or close")),
        };
        const TIME: &str = "must be a time: RFC 3339, Unix seconds, or Unix milliseconds of 13 digits";
        let Field::Is(from) = self.from else { return Err(("from", TIME)) };
        let until = match (&what, self.until) {
            (What::Close { .. }, _) => None,
            (_, Field::Is(until)) if until > from => Some(until),
            (_, Field::Is(_)) => return Err(("until", "must be after `from`")),
            _ => return Err(("until", TIME)),
        };
        Ok(Decision { what, from, until, by: text("by", self.by)?, note: text("note", self.note)? })
    }
}

fn text(field: &'static str, text: Field<Cow<'_, str>>) -> Result<Option<String>, (&'static str, &'static str)> {
    match text {
        Field::Absent => Ok(None),
        Field::Is(text) if text.len() <= TEXT_MAX => Ok(Some(text.into_owned())),
        _ => Err((field, "must be a text of at most 1024 bytes")),
    }
}

/// As it is written: the fields that a decision has.
#[derive(Serialize)]
struct Written<'a> {
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    decades: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stratum: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<&'a str>,
    from: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

impl Serialize for Decision {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let (mut decades, mut stratum, mut incident) = (None, None, None);
        let what = match &self.what {
            What::Exempt => "exempt",
            What::Tolerate { decades: by } => {
                decades = Some(*by);
                "tolerate"
            }
            What::Pin { stratum: to } => {
                stratum = Some(to.name());
                "pin"
            }
            What::Close { incident: id } => {
                incident = Some(&**id);
                "close"
            }
        };
        let (from, until, by, note) = (self.from, self.until, self.by.as_deref(), self.note.as_deref());
        Written { what, decades, stratum, incident, from, until, by, note }.serialize(s)
    }
}

impl Serialize for Decisions {
    /// As the control topic has it.
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut record = s.serialize_struct("Decisions", 3)?;
        record.serialize_field("v", &1)?;
        record.serialize_field("account", &self.account)?;
        record.serialize_field("decisions", &self.decisions)?;
        record.end()
    }
}

/// What an account is weighed against.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar<'a> {
    /// What it is taken for.
    pub stratum: Stratum,
    /// The thresholds, raised by what is tolerated.
    pub t: Cow<'a, Threshold>,
    /// Whatever it amounts to, nothing is raised.
    pub exempt: bool,
}

/// The decisions about the accounts of a shard.
#[derive(Debug, Default)]
pub(super) struct Decided(HashMap<Box<str>, Arc<Decisions>>);

impl Decided {
    pub(super) fn of(&self, account: &str) -> Option<&Arc<Decisions>> {
        // Nearly always there are none at all.
        if self.0.is_empty() { None } else { self.0.get(account) }
    }

    pub(super) fn replace(&mut self, decisions: Arc<Decisions>) {
        if decisions.decisions.is_empty() {
            self.0.remove(&decisions.account);
        } else {
            self.0.insert(decisions.account.clone(), decisions);
        }
    }

    /// What the account is weighed against at its clock.
    pub(super) fn bar<'p>(&self, account: &Account, policy: &'p Policy) -> Bar<'p> {
        let (mut stratum, mut decades, mut exempt) = (account.stratum(), 0.0_f64, false);
        if let Some(decisions) = self.of(account.name()) {
            for decision in decisions.standing(Timestamp(account.clock_ms())) {
                match &decision.what {
                    What::Exempt => exempt = true,
                    What::Tolerate { decades: by } => decades = decades.max(*by),
                    What::Pin { stratum: to } => stratum = *to,
                    What::Close { .. } => {}
                }
            }
        }
        let t = verdict::threshold(policy, stratum);
        let t = if decades > 0.0 { Cow::Owned(t.raised(decades)) } else { Cow::Borrowed(t) };
        Bar { stratum, t, exempt }
    }

    /// When an open incident is over, if nothing more comes.
    pub(super) fn due_ms(&self, account: &str, incident: &Incident, quiet_s: u32) -> i64 {
        let quiet_ms = incident.due_ms(quiet_s);
        match self.of(account).and_then(|d| d.closed(&incident.id)) {
            Some(closed) => quiet_ms.min(closed.0.max(incident.flagged_ms)),
            None => quiet_ms,
        }
    }
}
