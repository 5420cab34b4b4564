//! What a refusal speaks about: the account, the relay's reputation, or nothing that matters here.

use super::replies::{self, Family, Meaning};
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

// All words below are in lower case.

/// Words by which receivers say that the mailbox is full, the message too large, or that it is too early.
const NEUTRAL: &[&str] = &[
    "mailbox full",
    " is full",
    "storage full",
    "over quota",
    "quota exceeded",
    "exceeds quota",
    "exceeded storage",
    "out of storage",
    "mailbox has exceeded",
    "size limit",
    "size exceeds",
    "message too large",
    "greylist",
];

/// Words by which they say that there is no such recipient.
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
    "doesn't have a",
    "recipient rejected",
    "recipient address rejected",
    "invalid recipient",
    "invalid mailbox",
    "unknown recipient",
    "recipient unknown",
    "user not found",
    "recipient not found",
    "account is disabled",
    "mailbox is disabled",
    "unrouteable address",
    "not a valid",
    "not listed in",
];

/// Words by which they say that the message is spam, or its sender a spammer.
const POLICY: &[&str] =
    &["spam", "junk", "bulk mail", "unsolicited", "content rejected", "content denied", "sender frequency", "policy"];

/// What one outcome says, and who refuses our address by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// About the account.
    pub answer: Answer,
    /// About the relay: who refuses it for its address. Also of a deferral, which says nothing about the account; there only in
    /// words of the table that are a receiver's or a list's own, because anybody's often speak of greylisting.
    pub refuses_relay: Option<Family>,
}

/// Reads what `outcome` says. Codes are RFC 3463's and RFC 7372's; the words are those of large receivers' replies, of our
/// address those of [`replies`].
pub fn read(outcome: &Outcome<'_>) -> Said {
    let reply = outcome.reply.as_deref().unwrap_or("");
    let answer = match outcome.status {
        Status::Delivered => Answer::Accepted,
        Status::Expired => Answer::Neutral,
        Status::Deferred => {
            let own = replies::known(reply).filter(|p| p.family != Family::Other && p.meaning.is_of_relay());
            return Said { answer: Answer::Neutral, refuses_relay: own.map(|p| p.family) };
        }
        Status::Bounced | Status::Rejected => {
            let dsn = outcome.dsn.as_deref().unwrap_or("");
            return read_refusal(dsn.split_once('.').map_or("", |(_, detail)| detail), reply);
        }
    };
    Said { answer, refuses_relay: None }
}

/// What a refusal says; `detail` is the status code without its class.
fn read_refusal(detail: &str, reply: &str) -> Said {
    let plain = |answer| Said { answer, refuses_relay: None };
    let says = |words: &[&str]| words.iter().any(|w| contains_folded(reply, w));
    // x.2.2 mailbox full, x.2.3 and x.3.4 message too large.
    if matches!(detail, "2.2" | "2.3" | "3.4")
        || ["5.2.2", "5.3.4", "4.2.2"].iter().any(|code| contains_code(reply, code))
        || says(NEUTRAL)
    {
        return plain(Answer::Neutral);
    }
    let is_address = matches!(detail, "1.1" | "1.2" | "1.3" | "1.6" | "1.10");
    // Before the lists: `<spamhaus@example.org>: User unknown` and "not listed in the directory" speak of the recipient.
    if (is_address && says(UNKNOWN_USER)) || says(&["not listed in"]) {
        return plain(Answer::Telling);
    }
    match replies::known(reply) {
        Some(pattern) if pattern.meaning == Meaning::Content => return plain(Answer::Telling),
        Some(pattern) if !pattern.meaning.is_of_relay() => return plain(Answer::Neutral),
        Some(pattern) => return Said { answer: Answer::Reputation, refuses_relay: Some(pattern.family) },
        // x.7.25: our address has no name.
        None if detail == "7.25" => return Said { answer: Answer::Reputation, refuses_relay: Some(Family::Other) },
        None => {}
    }
    // x.7.20 to x.7.26, DKIM and SPF and DMARC: what the sender's domain says about who may send for it, not what was sent.
    if matches!(detail, "7.20" | "7.21" | "7.22" | "7.23" | "7.24" | "7.26") {
        return plain(Answer::Refused);
    }
    if is_address || detail == "2.1" || detail.starts_with("7.") || says(UNKNOWN_USER) || says(POLICY) {
        return plain(Answer::Telling);
    }
    plain(Answer::Refused)
}

/// Whether `text` contains the status code, not as a part of an address or a longer number.
fn contains_code(text: &str, code: &str) -> bool {
    text.match_indices(code).any(|(at, _)| {
        let before = text[..at].bytes().next_back();
        let after = &text.as_bytes()[at + code.len()..];
        let in_address = after.first() == Some(&b'.') && after.get(1).is_some_and(u8::is_ascii_digit);
        !before.is_some_and(|b| b.is_ascii_digit() || b == b'.')
            && !after.first().is_some_and(u8::is_ascii_digit)
            && !in_address
    })
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
