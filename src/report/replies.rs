//! What remote servers said, grouped: the same refusal for a thousand recipients is one line.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::event::{Outcome, Status};

/// Longest reply looked at, in characters: what matters stands at the front.
const REPLY_CHARS_MAX: usize = 240;

/// What stands for a mail address.
const ADDRESS: &str = "<address>";

/// A key for [`super::bounded::TopCounts`]: the status, a tab, and the words without what differs from recipient to
/// recipient. `None` for what was delivered.
pub(super) fn group(outcome: &Outcome<'_>) -> Option<String> {
    let status = match outcome.status {
        Status::Delivered => return None,
        Status::Bounced => "bounced",
        Status::Rejected => "rejected",
        Status::Deferred => "deferred",
        Status::Expired => "expired",
    };
    let mut key = format!("{status}\t");
    match outcome.reply.as_deref().map(str::trim).filter(|r| !r.is_empty()) {
        Some(reply) => key.push_str(&normal(reply)),
        None => {
            let _ = write!(key, "{}", outcome.dsn.as_deref().unwrap_or("(no words)"));
        }
    }
    Some(key)
}

/// Splits a key again.
pub(super) fn split(key: &str) -> (String, String) {
    let (status, words) = key.split_once('\t').unwrap_or(("", key));
    (status.to_owned(), words.to_owned())
}

/// Collapses addresses, identifiers and numbers; reply codes and enhanced status codes stay.
fn normal(reply: &str) -> String {
    let mut out = String::with_capacity(reply.len().min(REPLY_CHARS_MAX));
    let mut left = REPLY_CHARS_MAX;
    for word in reply.split_whitespace() {
        let word = normal_word(word);
        let chars = word.chars().count() + 1;
        if chars > left {
            out.push('…');
            break;
        }
        left -= chars;
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&word);
    }
    out
}

fn normal_word(word: &str) -> Cow<'_, str> {
    if word.contains('@') {
        return Cow::Borrowed(ADDRESS);
    }
    let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if is_code(bare) || !bare.bytes().any(|b| b.is_ascii_digit()) {
        return Cow::Borrowed(word);
    }
    // Host names keep their shape (`mx3.qq.com` is `mx#.qq.com`); identifiers have none worth keeping.
    if bare.len() >= 8 && !bare.contains(['.', '/', '[']) && bare.bytes().filter(u8::is_ascii_digit).count() >= 2 {
        return Cow::Borrowed("#");
    }
    let mut out = String::with_capacity(word.len());
    for c in word.chars() {
        let digit = c.is_ascii_digit();
        if !digit || !out.ends_with('#') {
            out.push(if digit { '#' } else { c });
        }
    }
    Cow::Owned(out)
}

/// `550`, or `5.7.1`.
fn is_code(word: &str) -> bool {
    let class = |p: &str| matches!(p, "2" | "4" | "5");
    if word.len() == 3 && word.bytes().all(|b| b.is_ascii_digit()) {
        return word.get(..1).is_some_and(class);
    }
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() == 3
        && parts.first().is_some_and(|p| class(p))
        && parts.iter().all(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
}

/// Words that stay in a redacted page. A list of what may stay is the only safe one: replies quote mailbox names,
/// host names and addresses in every form there is.
#[rustfmt::skip] // a word a line would be pages
const PLAIN_WORDS: &[&str] = &[
    "a", "abuse", "accept", "accepted", "access", "account", "accounts", "action", "address", "after", "again",
    "all", "allowed", "an", "and", "another", "are", "at", "authentication", "banned", "be", "because", "been",
    "blacklisted", "blocked", "blocklist", "bounced", "bulk", "but", "by", "cannot", "client", "closed",
    "closing", "code", "command", "connect", "connection", "contact", "content", "could", "daily", "data",
    "deferred", "delayed", "delivery", "denied", "detected", "disabled", "dkim", "dmarc", "dnsbl", "does",
    "domain", "due", "email", "end", "error", "exceeded", "exist", "expired", "failed", "failure", "filter",
    "for", "found", "frequency", "from", "full", "had", "has", "have", "helo", "host", "hour", "id",
    "identified", "if", "in", "inactive", "invalid", "ip", "is", "it", "later", "limit", "limited", "listed",
    "local", "lookup", "lost", "low", "mail", "mailbox", "mailboxes", "many", "message", "messages", "mx",
    "name", "network", "no", "not", "of", "on", "or", "our", "out", "over", "part", "per", "permanent",
    "permitted", "please", "policy", "poor", "port", "prohibited", "quota", "rate", "rbl", "rcpt", "reached",
    "reason", "receive", "received", "receiving", "recipient", "recipients", "refused", "reject", "rejected",
    "relay", "relaying", "reply", "reputation", "resources", "route", "said", "send", "sender", "sending",
    "sent", "server", "service", "session", "size", "smtp", "spam", "spf", "status", "storage", "such",
    "suspected", "suspended", "system", "table", "temporarily", "temporary", "than", "that", "the", "this",
    "throttled", "time", "timed", "timeout", "to", "too", "transaction", "try", "unable", "unavailable",
    "undeliverable", "unknown", "unsolicited", "unusual", "user", "users", "valid", "verification", "verify",
    "via", "virus", "visit", "volume", "was", "while", "with", "you", "your",
];

/// The reply with every word that is not on the list replaced by `…`.
pub(super) fn redacted(words: &str) -> String {
    let mut out = String::new();
    for word in words.split_whitespace() {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let lower = bare.to_ascii_lowercase();
        let keep = word == ADDRESS || is_code(bare) || PLAIN_WORDS.binary_search(&lower.as_str()).is_ok();
        if keep {
            if !out.is_empty() {
                out.push(' ');
            }
            // The punctuation around a word could carry something too (other scripts are not alphanumeric here).
            out.push_str(if word == ADDRESS { ADDRESS } else { bare });
        } else if !out.ends_with('…') {
            out.push_str(if out.is_empty() { "…" } else { " …" });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted() {
        assert!(PLAIN_WORDS.is_sorted());
    }

    #[test]
    fn what_differs_is_collapsed() {
        let check = |reply: &str, expected: &str| assert_eq!(normal(reply), expected, "{reply}");
        check("550 5.1.1 <joe@x.org>: user unknown", "550 5.1.1 <address> user unknown");
        check(
            "host mx3.qq.com[113.108.79.139] said: 550 Mailbox not found.",
            "host mx#.qq.com[#.#.#.#] said: 550 Mailbox not found.",
        );
        check("ID: 0000000F000020D12A9EC6A3.", "ID: #");
        check("421-4.7.0 wait 300 seconds", "#-#.#.# wait # seconds");
        check(&"x ".repeat(1000), &format!("{}…", "x ".repeat(120)).replace(" …", "…"));
    }

    #[test]
    fn redaction_keeps_only_listed_words() {
        assert_eq!(redacted("550 5.1.1 <address> user unknown"), "550 5.1.1 <address> user unknown");
        assert_eq!(
            redacted("host mx#.qq.com[#.#.#.#] said: 550 Mailbox jsmith not found."),
            "host … said 550 Mailbox … not found"
        );
        assert_eq!(redacted("почта jsmith"), "…");
    }
}
