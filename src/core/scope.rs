//! Whom a decision is about: one account, all accounts of a tenant or a domain, or what comes from a network.

use std::borrow::Cow;

use ipnet::IpNet;

/// Whom a control record is about. Names are folded (ASCII lower case), a network has no bits beyond its prefix: equal ones are
/// equal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One account.
    Account(Box<str>),
    /// All accounts of a customer.
    Tenant(Box<str>),
    /// All accounts whose name ends so after its last `@`.
    Domain(Box<str>),
    /// What was sent from an address of this network, by whichever account.
    Network(IpNet),
}

/// Before the keys of records that are about no account; no account's name may begin so.
const PREFIX: &str = "scope:";

impl Scope {
    /// The scope of this kind (`account`, `tenant`, `domain`, `network`) and name; `None` where there is none such, or where
    /// its key would be another's.
    ///
    /// # Examples
    /// ```
    /// use mailfuse::core::scope::Scope;
    ///
    /// let office = Scope::new("network", "192.0.2.77/24");
    /// assert_eq!(office.map(|o| o.key().into_owned()).as_deref(), Some("scope:network:192.0.2.0/24"));
    /// assert_eq!(Scope::new("network", "192.0.2.77"), None);
    /// ```
    pub fn new(kind: &str, name: &str) -> Option<Self> {
        if name.is_empty() || name.len() > super::decision::TEXT_MAX {
            return None;
        }
        let folded = || name.to_ascii_lowercase().into_boxed_str();
        match kind {
            "account" => Some(Self::Account(folded())).filter(|a| !a.name().starts_with(PREFIX)),
            "tenant" => Some(Self::Tenant(folded())),
            "domain" => Some(Self::Domain(folded())).filter(|d| !d.name().contains('@')),
            "network" => Some(Self::Network(name.parse::<IpNet>().ok()?.trunc())),
            _ => None,
        }
    }

    /// Its kind, as the record's field is called.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Account(_) => "account",
            Self::Tenant(_) => "tenant",
            Self::Domain(_) => "domain",
            Self::Network(_) => "network",
        }
    }

    /// Its name, or the network as address and prefix length.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Account(name) | Self::Tenant(name) | Self::Domain(name) => Cow::Borrowed(name),
            Self::Network(network) => Cow::Owned(network.to_string()),
        }
    }

    /// The key of its records in the control topic: an account's own name, else `scope:KIND:NAME`.
    pub fn key(&self) -> Cow<'_, str> {
        match self {
            Self::Account(name) => Cow::Borrowed(name),
            _ => Cow::Owned(format!("{PREFIX}{}:{}", self.kind(), self.name())),
        }
    }

    /// The scope whose records have this key; case is folded. `None` where none has.
    pub fn of_key(key: &str) -> Option<Self> {
        let folded = key.to_ascii_lowercase();
        match folded.strip_prefix(PREFIX) {
            None => Self::new("account", &folded),
            Some(rest) => {
                let (kind, name) = rest.split_once(':')?;
                Self::new(kind, name).filter(|scope| !matches!(scope, Self::Account(_)) && scope.key() == folded)
            }
        }
    }

    /// The account, where it is one.
    pub fn account(&self) -> Option<&str> {
        match self {
            Self::Account(name) => Some(name),
            _ => None,
        }
    }
}
