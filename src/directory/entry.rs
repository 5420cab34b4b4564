//! One line of the directory: an account, or a customer.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::civil::Date;
use serde::{Deserialize, Serialize, Serializer};

use crate::core::decision::{DECADES_MAX, FACTOR_MAX};
use crate::event::Timestamp;

/// Bytes of a name or a text at most.
pub const TEXT_MAX: usize = 256;
/// Aliases of an account at most, and former names.
pub const OTHERS_MAX: usize = 100;
/// Texts that are kept once for all entries at most; further ones are kept with each.
const SHARED_MAX: usize = 1_000_000;

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Account {
    /// Its name as folded: that which its events have.
    pub account: Box<str>,
    /// The customer it belongs to.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    pub tenant: Option<Arc<str>>,
    /// The day on which it was made.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    pub created: Option<Date>,
    /// What the customer pays for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    pub plan: Option<Arc<str>>,
    /// Where the owner is reached when the account is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<Box<str>>,
    /// In which language, as BCP 47 has it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    pub language: Option<Arc<str>>,
    /// The time zone, of the IANA's.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    pub zone: Option<Arc<str>>,
    /// Its other names, as folded.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub aliases: Box<[Box<str>]>,
    /// Its former names.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub was: Box<[Was]>,
}

/// A former name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Was {
    /// As folded.
    pub account: Box<str>,
    /// From when on the account had another.
    pub until: Timestamp,
}

/// A customer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tenant {
    /// As routes and campaigns know it.
    pub tenant: Box<str>,
    /// What people call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// What it pays for.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    pub plan: Option<Arc<str>>,
    /// Where it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<Box<str>>,
    /// In which language.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    pub language: Option<Arc<str>>,
    /// Its time zone.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "shown")]
    pub zone: Option<Arc<str>>,
    /// What is decided about all of its accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

/// What is decided about all accounts of a customer, as their events name it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// What limits on counts are multiplied by, above 1, at most 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exempt: Option<f64>,
    /// Decades that the bars are raised by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tolerate: Option<f64>,
    /// `established` or `bulk`: what its accounts are taken for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stratum: Option<Box<str>>,
}

/// Any entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// An account.
    Account(Account),
    /// A customer.
    Tenant(Tenant),
}

/// A line that is no entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// No JSON object of the right types.
    #[error("{0}")]
    Json(String),
    /// Too many bytes.
    #[error("longer than {} bytes", super::LINE_MAX)]
    Long,
    /// A field that is missing, or not what it must be.
    #[error("`{field}` {expected}")]
    Field {
        /// Which.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// Two entries have this name, as account, alias or tenant.
    #[error("{0:?} is there twice")]
    Twice(String),
}

#[derive(Deserialize)]
struct Line {
    v: u64,
    account: Option<String>,
    tenant: Option<String>,
    name: Option<String>,
    created: Option<String>,
    plan: Option<String>,
    contact: Option<String>,
    language: Option<String>,
    zone: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    was: Vec<Former>,
    policy: Option<Policy>,
}

#[derive(Deserialize)]
struct Former {
    account: String,
    until: Timestamp,
}

type Shared = HashMap<Box<str>, Arc<str>>;

/// Reads a line. What is not known is passed over. `shared` keeps the texts that many entries have.
///
/// # Errors
/// Where it is no entry.
pub fn parse(line: &[u8], shared: &mut Shared) -> Result<Entry, BadEntry> {
    // An array would be read as the fields in their order.
    if !line.starts_with(b"{") {
        return Err(BadEntry::Json("not a JSON object".to_owned()));
    }
    let line: Line = serde_json::from_slice(line).map_err(|e| BadEntry::Json(e.to_string()))?;
    if line.v != 1 {
        return Err(BadEntry::Field { field: "v", expected: "must be 1" });
    }
    for (field, text) in [
        ("tenant", &line.tenant),
        ("name", &line.name),
        ("plan", &line.plan),
        ("contact", &line.contact),
        ("language", &line.language),
    ] {
        if let Some(text) = text {
            check(field, text)?;
        }
    }
    let own = |text: Option<String>| text.map(String::into_boxed_str);
    let (plan, language) = (share(line.plan, shared), share(line.language, shared));
    let zone = zone(line.zone, shared)?;
    let Some(account) = line.account else {
        let tenant = line.tenant.ok_or(BadEntry::Field { field: "account", expected: "or `tenant` must be there" })?;
        let (tenant, name, contact) = (Box::from(&*tenant), own(line.name), own(line.contact));
        let policy = line.policy.map(checked).transpose()?;
        return Ok(Entry::Tenant(Tenant { tenant, name, plan, contact, language, zone, policy }));
    };
    if line.aliases.len() > OTHERS_MAX || line.was.len() > OTHERS_MAX {
        let field = if line.aliases.len() > OTHERS_MAX { "aliases" } else { "was" };
        return Err(BadEntry::Field { field, expected: "must have at most 100 names" });
    }
    let created = line.created.map(|day| {
        day.parse().map_err(|_| BadEntry::Field { field: "created", expected: "must be a day, such as 2019-05-02" })
    });
    let former = |was: Former| Ok(Was { account: folded("was", &was.account)?, until: was.until });
    Ok(Entry::Account(Account {
        account: folded("account", &account)?,
        tenant: share(line.tenant, shared),
        created: created.transpose()?,
        plan,
        contact: own(line.contact),
        language,
        zone,
        aliases: line.aliases.iter().map(|alias| folded("aliases", alias)).collect::<Result<_, _>>()?,
        was: line.was.into_iter().map(former).collect::<Result<_, BadEntry>>()?,
    }))
}

fn checked(policy: Policy) -> Result<Policy, BadEntry> {
    let bad = |expected| Err(BadEntry::Field { field: "policy", expected });
    if policy.exempt.is_some_and(|factor| !(factor > 1.0 && factor <= FACTOR_MAX)) {
        return bad("must have `exempt` above 1, at most 10");
    }
    if policy.tolerate.is_some_and(|decades| !(decades > 0.0 && decades <= DECADES_MAX)) {
        return bad("must have `tolerate` above 0, at most 100");
    }
    if policy.stratum.as_deref().is_some_and(|stratum| !["established", "bulk"].contains(&stratum)) {
        return bad("must have `stratum` established or bulk");
    }
    Ok(policy)
}

fn check(field: &'static str, text: &str) -> Result<(), BadEntry> {
    if text.is_empty() || text.len() > TEXT_MAX {
        return Err(BadEntry::Field { field, expected: "must be a text of 1 to 256 bytes" });
    }
    Ok(())
}

fn folded(field: &'static str, name: &str) -> Result<Box<str>, BadEntry> {
    check(field, name)?;
    Ok(name.to_ascii_lowercase().into())
}

fn share(text: Option<String>, shared: &mut Shared) -> Option<Arc<str>> {
    let text = text?;
    if let Some(known) = shared.get(&*text) {
        return Some(Arc::clone(known));
    }
    let new: Arc<str> = Arc::from(&*text);
    if shared.len() < SHARED_MAX {
        shared.insert(Box::from(&*text), Arc::clone(&new));
    }
    Some(new)
}

fn zone(zone: Option<String>, shared: &mut Shared) -> Result<Option<Arc<str>>, BadEntry> {
    if let Some(name) = &zone
        && (name.len() > TEXT_MAX || jiff::tz::TimeZone::get(name).is_err())
    {
        return Err(BadEntry::Field { field: "zone", expected: "must be a time zone, such as Europe/Berlin" });
    }
    Ok(share(zone, shared))
}

fn shown<S: Serializer>(value: &Option<impl std::fmt::Display>, s: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => s.collect_str(value),
        None => s.serialize_none(),
    }
}
