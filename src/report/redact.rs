//! Names as they are, or as short tokens for a page that leaves the house.
//!
//! A token is a number in order of appearance: unlike a hash it tells nothing about the name, not even to somebody who
//! can guess it. The same name has the same token all over one page, and another one on the next.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::replies;
use super::text::{visible, visible_long};

/// What a name names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Account,
    Tenant,
    Address,
    Network,
    Relay,
    Domain,
    Sender,
    QueueId,
    File,
}

/// Mail providers open to everyone: that spam went to them says nothing about whose customers these are.
#[rustfmt::skip] // a word a line would be pages
const PUBLIC_DOMAINS: &[&str] = &[
    "126.com", "163.com", "aol.com", "bk.ru", "free.fr", "gmail.com", "gmx.at", "gmx.de", "gmx.net",
    "googlemail.com", "hotmail.com", "hotmail.fr", "icloud.com", "inbox.ru", "laposte.net", "libero.it",
    "list.ru", "live.com", "mail.com", "mail.ru", "me.com", "msn.com", "naver.com", "orange.fr", "outlook.com",
    "proton.me", "protonmail.com", "qq.com", "rambler.ru", "seznam.cz", "sina.com", "t-online.de", "ukr.net",
    "web.de", "wp.pl", "yahoo.co.jp", "yahoo.co.uk", "yahoo.com", "yandex.ru",
];

/// Shows names. In a redacted page it remembers the tokens it gave.
#[derive(Debug)]
pub(super) struct Names {
    redact: bool,
    tokens: RefCell<BTreeMap<(Name, String), usize>>,
    counts: RefCell<BTreeMap<Name, usize>>,
}

impl Names {
    pub fn new(redact: bool) -> Self {
        Self { redact, tokens: RefCell::default(), counts: RefCell::default() }
    }

    /// Whether names are replaced.
    pub fn redacts(&self) -> bool {
        self.redact
    }

    /// The name, made safe to look at, or its token.
    pub fn show(&self, kind: Name, name: &str) -> String {
        if !self.redact {
            return visible(name);
        }
        if name.is_empty() || kind == Name::Domain && PUBLIC_DOMAINS.binary_search(&name).is_ok() {
            return name.to_owned();
        }
        // Mostly the envelope sender is the account: that may be seen.
        let account = (Name::Account, name.to_ascii_lowercase());
        let known_account = kind == Name::Sender && self.tokens.borrow().contains_key(&account);
        let (kind, key) = if known_account { (Name::Account, account) } else { (kind, (kind, name.to_owned())) };
        let word = match kind {
            Name::Account => "account",
            Name::Tenant => "tenant",
            Name::Address => "client",
            Name::Network => "net",
            Name::Relay => "relay",
            Name::Domain => "domain",
            Name::Sender => "sender",
            Name::QueueId => "message",
            Name::File => "file",
        };
        let mut tokens = self.tokens.borrow_mut();
        let number = tokens.entry(key).or_insert_with(|| {
            let mut counts = self.counts.borrow_mut();
            let count = counts.entry(kind).or_default();
            *count += 1;
            *count
        });
        format!("{word}-{number}")
    }

    /// What a remote server said.
    pub fn reply(&self, words: &str) -> String {
        if self.redact { replies::redacted(words) } else { visible_long(words) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_stable_and_public_domains_stay() {
        assert!(PUBLIC_DOMAINS.is_sorted());
        let names = Names::new(true);
        assert_eq!(names.show(Name::Account, "a@x.org"), "account-1");
        assert_eq!(names.show(Name::Account, "b@x.org"), "account-2");
        assert_eq!(names.show(Name::Account, "a@x.org"), "account-1");
        assert_eq!(names.show(Name::Sender, "B@x.org"), "account-2");
        assert_eq!(names.show(Name::Sender, "c@x.org"), "sender-1");
        assert_eq!(names.show(Name::Domain, "x.org"), "domain-1");
        assert_eq!(names.show(Name::Domain, "gmail.com"), "gmail.com");
        assert_eq!(Names::new(false).show(Name::Account, "a\u{202E}@x.org"), "a⟨U+202E⟩@x.org");
    }
}
