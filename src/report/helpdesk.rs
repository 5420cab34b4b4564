//! What the help desk can write to a customer whose mail went over a relay while somebody else's burst was on it.

use std::fmt::Write as _;

use super::data::{Blamed, BystanderRow};
use super::text::{Clock, count, visible};
use crate::event::Timestamp;

/// What is known of the burst, beside the customer's own mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// When the burst was noticed.
    pub noticed: Timestamp,
    /// Since when its account is stopped.
    pub stopped: Option<Timestamp>,
    /// Since when the relay gets no new mail.
    pub pulled: Option<Timestamp>,
}

/// A letter's body, plain text in one paragraph, times in UTC. It names neither the other customer nor the relay.
pub fn letter(row: &BystanderRow, facts: &Facts) -> String {
    let clock = Clock::new("UTC");
    let mut out = String::new();
    let messages = count(row.messages, "message");
    match row.span.filter(|_| row.messages > 0) {
        Some((first, last)) => _ = write!(
            out,
            "Between {} and {} UTC {messages} of yours to {} went through one of our servers while it was also sending spam: the \
             account of another customer who shares it had been hijacked.",
            clock.full(first),
            clock.full(last),
            count(row.recipients, "recipient"),
        ),
        None => out.push_str(
            "Messages of yours were still being delivered by one of our servers while it was also sending spam: the account of \
             another customer who shares it had been hijacked.",
        ),
    }
    blamed(&mut out, row);
    out.push_str(" Your own account was not used for it: you need not change anything for that reason.");
    let _ = write!(out, " We noticed the spam at {} UTC", clock.full(facts.noticed));
    if let Some(stopped) = facts.stopped {
        let _ = write!(out, ", stopped the account that sent it at {}", clock.full(stopped));
    }
    if let Some(pulled) = facts.pulled {
        let _ = write!(out, ", and gave the server no new mail from {} on", clock.full(pulled));
    }
    out.push('.');
    out
}

fn blamed(out: &mut String, row: &BystanderRow) {
    let all: u64 = row.blamed.iter().map(|b| b.count).sum::<u64>() + row.blamed_more;
    if all == 0 {
        out.push_str(" We know of no recipient whose server has refused your mail because of that");
        out.push_str(if row.refused > 0 { "; what was refused was refused for other reasons." } else { "." });
        return;
    }
    let _ = write!(out, " {} because of that server’s address: ", times(all));
    for (i, Blamed { receiver, count: n, words, .. }) in row.blamed.iter().enumerate() {
        let separator = if i > 0 { "; " } else { "" };
        let _ = write!(out, "{separator}{} {n} (“{}”)", visible(receiver), visible(words));
    }
    if row.blamed_more > 0 {
        let _ = write!(out, "; others {}", row.blamed_more);
    }
    out.push_str(". What came back to you can be sent again; what was put off we try again ourselves.");
}

fn times(n: u64) -> String {
    if n == 1 {
        "One attempt was refused or put off".to_owned()
    } else {
        format!("{n} attempts were refused or put off")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::replies::Family;

    fn row() -> BystanderRow {
        let span = Some((Timestamp(1_772_439_245_120), Timestamp(1_772_442_000_000)));
        BystanderRow {
            account: "ann@x.example".to_owned(),
            messages: 2,
            recipients: 5,
            span,
            ..BystanderRow::default()
        }
    }

    const FACTS: Facts =
        Facts { noticed: Timestamp(1_772_439_260_000), stopped: Some(Timestamp(1_772_439_262_000)), pulled: None };

    #[test]
    fn it_says_what_happened_and_what_was_done() {
        let said = letter(&row(), &FACTS);
        assert_eq!(
            said,
            "Between 2026-03-02 08:14:05 and 2026-03-02 09:00:00 UTC 2 messages of yours to 5 recipients went through one of our \
             servers while it was also sending spam: the account of another customer who shares it had been \
             hijacked. We know of no recipient whose server has refused your mail because of that. Your own account was not used \
             for it: you need not change anything for that reason. We noticed the spam at 2026-03-02 08:14:20 UTC, stopped the \
             account that sent it at 2026-03-02 08:14:22."
        );
    }

    #[test]
    fn it_names_who_refused_and_their_words() {
        let blamed = |receiver: &str, count, words: &str| Blamed {
            receiver: receiver.to_owned(),
            by: Family::Gmx,
            count,
            words: words.to_owned(),
        };
        let row = BystanderRow {
            refused: 4,
            blamed: vec![blamed("gmx.example", 3, "554 bad IP"), blamed("web.example", 1, "550 \u{202e}no\nCc: all")],
            blamed_more: 2,
            ..row()
        };
        let said = letter(&row, &Facts { pulled: Some(Timestamp(1_772_439_300_000)), ..FACTS });
        assert!(said.contains("6 attempts were refused or put off because of that server’s address: gmx.example 3 (“554 bad IP”); web.example 1 ("), "{said}");
        assert!(said.contains("; others 2. What came back"), "{said}");
        assert!(said.ends_with("at 2026-03-02 08:14:22, and gave the server no new mail from 2026-03-02 08:15:00 on."));
        assert!(!said.contains(['\n', '\u{202e}']), "a reply is text, not a line of a letter");
        assert!(!said.contains("ann@x.example"), "nobody is named");
    }
}
