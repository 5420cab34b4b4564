//! The directory of accounts: what the provider knows about its customers, from a file of its own.
//!
//! [`entry`] reads one line, [`Directory`] holds all of them and finds an account by any of its names; both are pure. [`mod@file`] reads
//! the file and looks whether it has changed. The desk uses it (whom an incident concerns), the detector does not: its verdicts
//! stay a function of events, configuration and decisions.

pub mod entry;
pub mod file;

use std::collections::HashMap;
use std::io::{self, BufRead, Read as _};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::Timestamp;
use entry::{Account, BadEntry, Entry, Tenant};

/// Names that a directory holds at most: accounts, aliases and former names together.
pub const NAMES_MAX: usize = 10_000_000;
/// Bytes of a line at most.
pub const LINE_MAX: usize = 64 * 1024;

/// Section `[directory]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The file, JSON lines. Empty: there is no directory.
    pub file: String,
}

/// What the directory says about an account when its incident begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// The customer, as routes and campaigns know it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The customer's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_name: Option<String>,
    /// The day on which the account was made: `2019-05-02`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// What the customer pays for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Where the owner is reached when the account is stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contact: Option<String>,
    /// In which language, as BCP 47 has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// The time zone, of the IANA's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// How a name belongs to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// It is the account.
    Account,
    /// It is another name of it.
    Alias,
    /// It was the account's name.
    Former,
}

/// An account that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Found<'a> {
    /// By what.
    pub by: By,
    /// The account.
    #[serde(flatten)]
    pub account: &'a Account,
    /// Its customer, where the directory has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer: Option<&'a Tenant>,
}

/// A directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{0}; check the path and who may read it")]
    Io(#[from] io::Error),
    /// A line is no entry.
    #[error("line {line}: {source}; correct it: the directory counts as a whole")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        source: BadEntry,
    },
    /// More names than it can hold.
    #[error("line {line}: more than {NAMES_MAX} names; leave out accounts that send no mail")]
    Full {
        /// From 1.
        line: usize,
    },
    /// It changed meanwhile.
    #[error("it is being written; write another file, then rename that")]
    Changing,
}

/// All entries.
#[derive(Debug, Default)]
pub struct Directory {
    accounts: Vec<Account>,
    /// Accounts and aliases.
    names: HashMap<Box<str>, (By, u32)>,
    /// Former names, each with when it ceased to be one.
    former: HashMap<Box<str>, (Timestamp, u32)>,
    tenants: HashMap<Box<str>, Tenant>,
    /// Texts that many entries share.
    shared: HashMap<Box<str>, Arc<str>>,
}

impl Directory {
    /// Reads JSON lines; empty ones are passed over.
    ///
    /// # Errors
    /// With the line, where one is no entry, or has a name that another has.
    pub fn read(mut from: impl BufRead) -> Result<Self, Error> {
        let mut directory = Self::default();
        let (mut text, mut line) = (Vec::new(), 0);
        loop {
            line += 1;
            text.clear();
            // One more than may be, so that a longer one is noticed.
            let n = from.by_ref().take(LINE_MAX as u64 + 1).read_until(b'\n', &mut text)?;
            if n == 0 {
                break;
            }
            if n > LINE_MAX {
                return Err(Error::Line { line, source: BadEntry::Long });
            }
            let text = text.trim_ascii();
            if !text.is_empty() {
                directory.insert(text).map_err(|source| Error::Line { line, source })?;
            }
            if directory.names.len() + directory.former.len() > NAMES_MAX {
                return Err(Error::Full { line });
            }
        }
        directory.shared = HashMap::new();
        Ok(directory)
    }

    fn insert(&mut self, line: &[u8]) -> Result<(), BadEntry> {
        match entry::parse(line, &mut self.shared)? {
            Entry::Tenant(tenant) => {
                let key = tenant.tenant.to_ascii_lowercase().into_boxed_str();
                if self.tenants.insert(key.clone(), tenant).is_some() {
                    return Err(BadEntry::Twice(key.into()));
                }
            }
            Entry::Account(account) => {
                let at = u32::try_from(self.accounts.len()).unwrap_or(u32::MAX);
                let names = std::iter::once((By::Account, &account.account));
                for (by, name) in names.chain(account.aliases.iter().map(|alias| (By::Alias, alias))) {
                    if self.names.insert(name.clone(), (by, at)).is_some() {
                        return Err(BadEntry::Twice(name.to_string()));
                    }
                }
                for was in &account.was {
                    let of = self.former.entry(was.account.clone()).or_insert((was.until, at));
                    // Several may have been called so, one after the other: the last one is meant.
                    if was.until >= of.0 {
                        *of = (was.until, at);
                    }
                }
                self.accounts.push(account);
            }
        }
        Ok(())
    }

    /// The account with this name, alias or former name, in this order; case is folded.
    pub fn find(&self, name: &str) -> Option<Found<'_>> {
        let folded = name.to_ascii_lowercase();
        let named = self.names.get(&*folded).copied();
        let (by, at) = named.or_else(|| self.former.get(&*folded).map(|&(_, at)| (By::Former, at)))?;
        let account = self.accounts.get(at as usize)?;
        let tenant = account.tenant.as_deref().unwrap_or_else(|| crate::event::default_tenant(&account.account));
        Some(Found { by, account, customer: self.tenant(tenant) })
    }

    /// All customers, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.values()
    }

    /// A customer; case is folded.
    pub fn tenant(&self, tenant: &str) -> Option<&Tenant> {
        self.tenants.get(&*tenant.to_ascii_lowercase())
    }

    /// What it says about the account of an alert, whose tenant is `tenant` where the directory knows none. What it does not say of
    /// the account it may say of the customer.
    pub fn facts(&self, account: &str, tenant: &str) -> Option<Facts> {
        let found = self.find(account);
        let tenant = found.as_ref().and_then(|f| f.account.tenant.as_deref()).unwrap_or(tenant);
        let customer = self.tenant(tenant);
        let account = found.map(|f| f.account);
        if account.is_none() && customer.is_none() {
            return None;
        }
        let either = |of_account: fn(&Account) -> Option<&str>, of_customer: fn(&Tenant) -> Option<&str>| {
            account.and_then(of_account).or_else(|| customer.and_then(of_customer)).map(str::to_owned)
        };
        Some(Facts {
            tenant: account.and_then(|a| a.tenant.as_deref()).map(str::to_owned),
            tenant_name: customer.and_then(|c| c.name.as_deref()).map(str::to_owned),
            created: account.and_then(|a| a.created).map(|day| day.to_string()),
            plan: either(|a| a.plan.as_deref(), |c| c.plan.as_deref()),
            contact: either(|a| a.contact.as_deref(), |c| c.contact.as_deref()),
            language: either(|a| a.language.as_deref(), |c| c.language.as_deref()),
            zone: either(|a| a.zone.as_deref(), |c| c.zone.as_deref()),
        })
    }

    /// The account that has this name, as folded, for an alias.
    pub fn of_alias(&self, name: &str) -> Option<&str> {
        let (by, at) = *self.names.get(name)?;
        (by == By::Alias).then(|| self.accounts.get(at as usize).map(|account| &*account.account))?
    }

    /// Every name of the account with this name, itself first; only `name` where the directory does not know it. A former name that
    /// is somebody else's by now is not among them.
    pub fn names(&self, name: &str) -> Vec<String> {
        let folded = name.to_ascii_lowercase();
        let Some(found) = self.find(&folded) else { return vec![folded] };
        let account = found.account;
        let ours = |was: &&entry::Was| self.find(&was.account).is_some_and(|f| f.account.account == account.account);
        let former = account.was.iter().filter(ours).map(|was| &was.account);
        let all = std::iter::once(&account.account).chain(&account.aliases).chain(former);
        all.map(ToString::to_string).collect()
    }

    /// Accounts that have had another name since a moment between these two, in milliseconds since 1970: the old name and the
    /// new one. A name that somebody has by now is not an old one.
    pub fn renamed(&self, since_ms: i64, until_ms: i64) -> impl Iterator<Item = (&str, &str)> {
        let former = self.former.iter().filter(move |(_, (at, _))| (since_ms..=until_ms).contains(&at.0));
        former.filter(|(old, _)| !self.names.contains_key(*old)).filter_map(|(old, &(_, at))| {
            let account = self.accounts.get(at as usize)?;
            Some((&**old, &*account.account))
        })
    }

    /// Accounts in it.
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }
}
