//! What a refusal speaks about: the account, the relay's reputation, or nothing that matters here.

use crate::event::{Outcome, Status};

/// What one outcome says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The recipient's server took it.
    Accepted,
    /// Refused because the recipient does not exist, or because of what the message is: weighs in full.
    Telling,
    /// Refused for good for another reason: weighs three quarters.
    Refused,
    /// Refused because of our relay's address: evidence about the relay, never about the account. Else a listed relay
    /// would make its victims look guilty.
    Reputation,
    /// Mailbox full, message too large, try again later, given up: says nothing about the account.
    Neutral,
}

impl Answer {
    /// The weight as a refusal, in quarters.
    pub fn quarters(self) -> u32 {
        match self {
            Self::Telling => 4,
            Self::Refused => 3,
            Self::Accepted | Self::Reputation | Self::Neutral => 0,
        }
    }
}

/// Words by which receivers say that it is our address they refuse. Lower case.
const REPUTATION: &[&str] = &[
    "blocked using",
    "blacklist",
    "black list",
    "blocklist",
    "block list",
    "dnsbl",
    "listed at",
    "listed in",
    "listed on",
    "is listed",
    "reputation",
    "spamhaus",
    "spamcop",
    "barracudacentral",
    "sorbs",
    "your ip",
    "sending ip",
    "client host",
    "service unavailable; client",
    "banned sending",
];

/// Words by which they say that there is no such recipient. Lower case.
const UNKNOWN_USER: &[&str] = &[
    "user unknown",
    "unknown user",
    "no such user",
    "no such recipient",
    "no mailbox",
    "mailbox not found",
    "mailbox unavailable",
    "does not exist",
    "doesn't exist",
    "recipient rejected",
    "invalid recipient",
    "invalid mailbox",
    "unknown recipient",
    "user not found",
    "recipient not found",
    "account is disabled",
    "not a valid",
];

/// Words by which they say that the message is spam. Lower case.
const POLICY: &[&str] = &["spam", "junk", "bulk mail", "unsolicited", "content rejected", "policy"];

/// Reads what `outcome` says. Codes are RFC 3463's; the words are those of large receivers' replies.
pub fn read(outcome: &Outcome<'_>) -> Answer {
    match outcome.status {
        Status::Delivered => return Answer::Accepted,
        Status::Deferred | Status::Expired => return Answer::Neutral,
        Status::Bounced | Status::Rejected => {}
    }
    let dsn = outcome.dsn.as_deref().unwrap_or("");
    // RFC 3463: x.2.2 mailbox full, x.2.3 and x.3.4 message too large.
    let detail = dsn.split_once('.').map_or("", |(_, detail)| detail);
    if matches!(detail, "2.2" | "2.3" | "3.4") {
        return Answer::Neutral;
    }
    let reply = outcome.reply.as_deref().unwrap_or("");
    let says = |words: &[&str]| words.iter().any(|w| contains_folded(reply, w));
    if ["5.2.2", "5.3.4", "4.2.2", "mailbox full", "mailbox is full", "over quota", "quota exceeded"]
        .iter()
        .any(|w| contains_folded(reply, w))
    {
        return Answer::Neutral;
    }
    if says(REPUTATION) {
        return Answer::Reputation;
    }
    if matches!(detail, "1.1" | "1.2" | "1.3" | "1.6" | "1.10")
        || detail.starts_with("7.")
        || says(UNKNOWN_USER)
        || says(POLICY)
    {
        return Answer::Telling;
    }
    Answer::Refused
}

/// Whether `text` contains `word` (lower case), ASCII case ignored, without copying `text`.
fn contains_folded(text: &str, word: &str) -> bool {
    let (text, word) = (text.as_bytes(), word.as_bytes());
    let Some(&head) = word.first() else { return true };
    let mut from = 0;
    while let Some(at) = memchr::memchr2(head, head.to_ascii_uppercase(), &text[from..]) {
        let at = from + at;
        if text.len() - at < word.len() {
            return false;
        }
        if text[at..at + word.len()].eq_ignore_ascii_case(word) {
            return true;
        }
        from = at + 1;
    }
    false
}
