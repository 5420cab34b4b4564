//! What people have decided: exemptions, tolerances, pinned strata, closed incidents, hijacks, renamed accounts.
//!
//! A control record is JSON, is about one account, tenant, domain or network ([`Scope`]), and holds the whole list of what was
//! decided about it; a later record replaces it. A decision counts for events from its `from` until before its `until`, in event
//! time, so that a verdict is a function of the account's events, of the configuration and of these, whenever they were read.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::inherit::{LEARNED_MAX, Learned};
use super::scope::Scope;
use super::verdict::Stratum;
use crate::event::Timestamp;
use crate::event::wire::Field;

/// Decisions of one record at most.
pub const DECISIONS_MAX: usize = 100;
/// Bytes of a name or a note at most.
pub const TEXT_MAX: usize = 1024;
/// Bytes of a decision's id at most.
pub const ID_MAX: usize = 64;
/// Decades that bars are raised by at most: more than any threshold is high.
pub const DECADES_MAX: f64 = 100.0;
/// What an exemption multiplies the limits by at most, and where it does not say.
pub const FACTOR_MAX: f64 = 10.0;

/// What is decided about one account, tenant, domain or network, all of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decisions {
    /// Whom it is about.
    pub scope: Scope,
    /// In the order they were written.
    pub decisions: Vec<Decision>,
    /// Decisions of a kind that this program does not know, as they stood: a newer one wrote them. They change nothing here, and
    /// are written again as they were.
    pub unknown: Vec<Value>,
}

/// One decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// What its writer knows it by; it means nothing here.
    pub id: Option<String>,
    /// What was decided.
    pub what: What,
    /// Counts from this moment of the account's clock on.
    pub from: Timestamp,
    /// Counts until before this moment; a close and a hijack happen once, and have none.
    pub until: Option<Timestamp>,
    /// Who decided.
    pub by: Option<String>,
    /// Why.
    pub note: Option<String>,
}

/// What can be decided.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// Every limit on a count is so many times as large; what goes beyond is flagged, and says that it was exempt.
    Exempt {
        /// Above 1, at most [`FACTOR_MAX`].
        factor: f64,
    },
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
    /// The incident was a hijack: it is over as by a close, and the account is put back to what it had learned before.
    Hijack {
        /// Its id.
        incident: String,
    },
    /// The account had another name: it goes on with what it had learned under that.
    Inherit {
        /// The name.
        account_before: String,
        /// What it had learned.
        learned: Learned,
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
    /// None of the four, or several.
    #[error("must be about one of `account`, `tenant`, `domain` and `network`")]
    Scope,
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
    tenant: Field<Cow<'a, str>>,
    #[serde(borrow)]
    domain: Field<Cow<'a, str>>,
    #[serde(borrow)]
    network: Field<Cow<'a, str>>,
    #[serde(borrow)]
    decisions: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry<'a> {
    #[serde(borrow)]
    id: Field<Cow<'a, str>>,
    #[serde(borrow)]
    what: Field<Cow<'a, str>>,
    from: Field<Timestamp>,
    until: Field<Timestamp>,
    factor: Option<Value>,
    decades: Option<Value>,
    #[serde(borrow)]
    stratum: Field<Cow<'a, str>>,
    #[serde(borrow)]
    incident: Field<Cow<'a, str>>,
    #[serde(borrow)]
    account_before: Field<Cow<'a, str>>,
    #[serde(borrow)]
    learned: Field<Cow<'a, str>>,
    #[serde(borrow)]
    by: Field<Cow<'a, str>>,
    #[serde(borrow)]
    note: Field<Cow<'a, str>>,
}

impl Decisions {
    /// Reads a control record. Of a kind that is not known the decision is kept as it is, and the others count.
    ///
    /// # Errors
    /// Where it is none; the message names the field, and the decision by its number.
    ///
    /// # Examples
    /// ```
    /// use mailfuse::core::decision::{Decisions, What};
    ///
    /// let record = br#"{"v":1,"account":"News@Shop.example","decisions":[
    ///     {"what":"exempt","factor":4,"from":"2026-03-02T08:00:00Z","until":1775000000,"by":"ann"}]}"#;
    /// let read = Decisions::parse(record)?;
    /// assert_eq!(read.key(), "news@shop.example");
    /// assert_eq!(read.decisions[0].what, What::Exempt { factor: 4.0 });
    /// # Ok::<(), mailfuse::core::decision::BadDecisions>(())
    /// ```
    pub fn parse(record: &[u8]) -> Result<Self, BadDecisions> {
        let record: Record<'_> = object(record)?;
        if record.v != Field::Is(1) {
            return Err(BadDecisions::Version);
        }
        let scope = record.scope()?;
        let entries = record
            .decisions
            .filter(|d| d.len() <= DECISIONS_MAX)
            .ok_or(BadDecisions::Field { field: "decisions", expected: "must be a list of at most 100" })?;
        let mut read = Self::none(scope);
        for (i, raw) in entries.into_iter().enumerate() {
            let bad = |(field, expected)| BadDecisions::Decision { number: i + 1, field, expected };
            match object::<Entry<'_>>(raw.get().as_bytes())?.check(&read.scope).map_err(bad)? {
                Some(decision) => read.decisions.push(decision),
                None => read.unknown.push(object(raw.get().as_bytes())?),
            }
        }
        Ok(read)
    }

    /// No decisions about `scope`: what a control record without a value says.
    pub fn none(scope: Scope) -> Self {
        Self { scope, decisions: Vec::new(), unknown: Vec::new() }
    }

    /// The key of the record in the control topic.
    pub fn key(&self) -> Cow<'_, str> {
        self.scope.key()
    }

    /// Whether nothing is decided.
    pub fn is_empty(&self) -> bool {
        self.decisions.is_empty() && self.unknown.is_empty()
    }

    /// The decisions that count at a moment of the account's clock.
    pub fn standing(&self, at: Timestamp) -> impl Iterator<Item = &Decision> {
        self.decisions.iter().filter(move |d| d.stands(at))
    }

    /// When the incident with this id is closed: by the earliest of those that close it.
    pub fn closed(&self, incident: &str) -> Option<Timestamp> {
        let closes = |d: &&Decision| match &d.what {
            What::Close { incident: id } | What::Hijack { incident: id } => id == incident,
            _ => false,
        };
        self.decisions.iter().filter(closes).map(|d| d.from).min()
    }
}

impl Decision {
    /// Whether it counts at a moment of the account's clock.
    pub fn stands(&self, at: Timestamp) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }
}

/// Reads a JSON object.
fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, BadDecisions> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(BadDecisions::Json("not a JSON object".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|e| BadDecisions::Json(e.to_string()))
}

impl Record<'_> {
    fn scope(&self) -> Result<Scope, BadDecisions> {
        let fields = [
            ("account", &self.account, "must be a name that does not begin with scope:"),
            ("tenant", &self.tenant, "must be a name"),
            ("domain", &self.domain, "must be a domain, without an @"),
            ("network", &self.network, "must be a network: address/prefix length"),
        ];
        let mut there = fields.into_iter().filter(|f| *f.1 != Field::Absent);
        let (Some((field, name, expected)), None) = (there.next(), there.next()) else {
            return Err(BadDecisions::Scope);
        };
        let scope = if let Field::Is(name) = name { Scope::new(field, name) } else { None };
        scope.ok_or(BadDecisions::Field { field, expected })
    }
}

type Wrong = (&'static str, &'static str);

impl Entry<'_> {
    /// The decision; `None` where its kind is not known.
    fn check(self, scope: &Scope) -> Result<Option<Decision>, Wrong> {
        let Field::Is(what) = &self.what else {
            return Err(("what", "must be exempt, tolerate, pin, close, hijack or inherit"));
        };
        let what = match &**what {
            "exempt" => What::Exempt { factor: self.factor()? },
            "tolerate" => {
                let decades = self.decades.as_ref().and_then(Value::as_f64);
                let decades = decades.filter(|d| *d > 0.0 && *d <= DECADES_MAX);
                What::Tolerate { decades: decades.ok_or(("decades", "must be a number above 0, at most 100"))? }
            }
            "pin" => match &self.stratum {
                Field::Is(s) if s == "established" => What::Pin { stratum: Stratum::Established },
                Field::Is(s) if s == "bulk" => What::Pin { stratum: Stratum::Bulk },
                _ => return Err(("stratum", "must be established or bulk")),
            },
            "close" => What::Close { incident: self.incident()? },
            "hijack" => What::Hijack { incident: self.incident()? },
            "inherit" => What::Inherit { account_before: self.account_before()?, learned: self.learned()? },
            _ => return Ok(None),
        };
        match (scope, &what) {
            (Scope::Account(_), _) | (_, What::Exempt { .. }) => {}
            (Scope::Network(_), _) => return Err(("what", "about a network it must be exempt")),
            (_, What::Tolerate { .. } | What::Pin { .. }) => {}
            _ => return Err(("what", "about a tenant or a domain it must be exempt, tolerate or pin")),
        }
        const TIME: &str = "must be a time: RFC 3339, Unix seconds, or Unix milliseconds of 13 digits";
        let Field::Is(from) = self.from else { return Err(("from", TIME)) };
        let until = match (&what, self.until) {
            (What::Close { .. } | What::Hijack { .. }, _) => None,
            (_, Field::Is(until)) if until > from => Some(until),
            (_, Field::Is(_)) => return Err(("until", "must be after `from`")),
            _ => return Err(("until", TIME)),
        };
        let id = text("id", self.id, ID_MAX, "must be a text of at most 64 bytes")?;
        const WORDS: &str = "must be a text of at most 1024 bytes";
        let (by, note) = (text("by", self.by, TEXT_MAX, WORDS)?, text("note", self.note, TEXT_MAX, WORDS)?);
        Ok(Some(Decision { id, what, from, until, by, note }))
    }

    fn factor(&self) -> Result<f64, Wrong> {
        match &self.factor {
            None | Some(Value::Null) => Ok(FACTOR_MAX),
            Some(factor) => factor
                .as_f64()
                .filter(|f| *f > 1.0 && *f <= FACTOR_MAX)
                .ok_or(("factor", "must be a number above 1, at most 10")),
        }
    }

    fn account_before(&self) -> Result<String, Wrong> {
        match &self.account_before {
            Field::Is(name) if !name.is_empty() && name.len() <= TEXT_MAX => Ok(name.to_string()),
            _ => Err(("account_before", "must be the name that the account had")),
        }
    }

    fn learned(&self) -> Result<Learned, Wrong> {
        const WHAT: Wrong = ("learned", "must be what an account has learned, packed, in base64");
        match &self.learned {
            Field::Is(text) if text.len() <= LEARNED_MAX.div_ceil(3) * 4 => {
                let bytes = STANDARD.decode(&**text).map_err(|_| WHAT)?;
                Learned::read(&bytes).map_err(|_| WHAT)
            }
            _ => Err(WHAT),
        }
    }

    fn incident(&self) -> Result<String, Wrong> {
        match &self.incident {
            Field::Is(id) if !id.is_empty() && id.len() <= TEXT_MAX => Ok(id.to_string()),
            _ => Err(("incident", "must be the id of an incident")),
        }
    }
}

fn text(
    field: &'static str,
    text: Field<Cow<'_, str>>,
    max: usize,
    expected: &'static str,
) -> Result<Option<String>, Wrong> {
    match text {
        Field::Absent => Ok(None),
        Field::Is(text) if text.len() <= max => Ok(Some(text.into_owned())),
        _ => Err((field, expected)),
    }
}

/// As it is written: the fields that a decision has.
#[derive(Default, Serialize)]
struct Written<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decades: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stratum: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_before: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    learned: Option<String>,
    from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
}

impl Serialize for Decision {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let written = Written {
            id: self.id.as_deref(),
            from: Some(self.from),
            until: self.until,
            by: self.by.as_deref(),
            note: self.note.as_deref(),
            ..Written::default()
        };
        let written = match &self.what {
            What::Exempt { factor } => Written { what: "exempt", factor: Some(*factor), ..written },
            What::Tolerate { decades } => Written { what: "tolerate", decades: Some(*decades), ..written },
            What::Pin { stratum } => Written { what: "pin", stratum: Some(stratum.name()), ..written },
            What::Close { incident } => Written { what: "close", incident: Some(incident), ..written },
            What::Hijack { incident } => Written { what: "hijack", incident: Some(incident), ..written },
            What::Inherit { account_before, learned } => Written {
                what: "inherit",
                account_before: Some(account_before),
                learned: Some(STANDARD.encode(learned.bytes())),
                ..written
            },
        };
        written.serialize(s)
    }
}

impl Serialize for Decisions {
    /// As the control topic has it.
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Any<'a> {
            Known(&'a Decision),
            Unknown(&'a Value),
        }
        use serde::ser::SerializeStruct as _;
        let all = self.decisions.iter().map(Any::Known).chain(self.unknown.iter().map(Any::Unknown));
        let mut record = s.serialize_struct("Decisions", 3)?;
        record.serialize_field("v", &1)?;
        record.serialize_field(self.scope.kind(), &self.scope.name())?;
        record.serialize_field("decisions", &all.collect::<Vec<_>>())?;
        record.end()
    }
}
