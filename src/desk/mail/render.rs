//! From a message to the mail that says it (RFC 5322). Pure: the time of sending is an argument.
//!
//! * `Message-ID` is made of the delivery's id, so that a repeat is known as one.
//! * `In-Reply-To` and `References` name a root that is made of the incident, and that no mail has: readers thread by it (JWZ's
//!   algorithm and RFC 5256 keep a place for what is missing), whichever mail comes first and whether or not it arrives.
//! * `Auto-Submitted: auto-generated` (RFC 3834), and `X-Auto-Response-Suppress` for Exchange, which does not look at it: nobody's
//!   absence is to be answered. There is no `Precedence: bulk`: it was never standardised (RFC 2076 discourages it), gateways sort
//!   or delay by it, and an alert is no bulk.

use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{MultiPart, SinglePart};

use crate::core::alert::Severity;
use crate::desk::notice;
use crate::desk::webhook::body::Message;

use super::content::Content;
use super::page;
use super::settings::Addresses;

/// A mail has no more bytes than this, whatever it is about.
pub const MAIL_BYTES_MAX: usize = 256 * 1024;
/// Characters of an id that are taken as they are.
const ID_BYTES_MAX: usize = 128;

/// A mail, ready for the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its `Message-ID`, with its brackets: the same for the same delivery.
    pub id: String,
    /// Headers and body, lines ended by CR LF, ASCII only.
    pub bytes: Vec<u8>,
}

/// A mail that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CannotRender {
    /// A defect.
    #[error("no mail can be made of it: {0}")]
    Mail(#[from] lettre::error::Error),
}

/// Makes the mail. `now_s`: Unix seconds at which it is sent, its `Date`; when it happened is said inside.
///
/// # Errors
/// Never, short of a defect.
pub fn render(addresses: &Addresses, message: &Message, now_s: i64) -> Result<Mail, CannotRender> {
    let content = Content::of(message);
    let domain = addresses.from.email.domain();
    let id = format!("<{}@mailfuse.{domain}>", word('m', &message.id));
    let root = format!("<{}@mailfuse.{domain}>", word('i', &message.incident));
    let date = UNIX_EPOCH + Duration::from_secs(u64::try_from(now_s).unwrap_or_default());
    let mut builder = lettre::Message::builder()
        .date(date)
        .from(addresses.from.clone())
        .message_id(Some(id.clone()))
        .in_reply_to(root.clone())
        .references(root)
        .subject(unencoded(&content.subject));
    for to in &addresses.to {
        builder = builder.to(to.clone());
    }
    let severity = match message.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
    };
    for (name, value) in [
        (HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()),
        (HeaderName::new_from_ascii_str("X-Auto-Response-Suppress"), "All".to_owned()),
        (HeaderName::new_from_ascii_str("X-Mailfuse-Incident"), word('i', &message.incident)),
        (HeaderName::new_from_ascii_str("X-Mailfuse-Severity"), severity.to_owned()),
        (HeaderName::new_from_ascii_str("X-Mailfuse-Kind"), word('k', &message.kind)),
    ] {
        builder = builder.raw_header(HeaderValue::new(name, value));
    }
    let part = |kind: ContentType, body: String| {
        // Quoted-printable whatever it holds: no server on the way has a reason to change it, and no line is long.
        SinglePart::builder().header(kind).header(ContentTransferEncoding::QuotedPrintable).body(body)
    };
    // Made of the id, so that the same delivery is the same mail; `=_` cannot stand in quoted-printable (RFC 2045, 6.7).
    let boundary = format!("=_{}", notice::id('b', &[&message.id]));
    let parts = MultiPart::alternative()
        .boundary(boundary)
        .singlepart(part(ContentType::TEXT_PLAIN, page::text(&content)))
        .singlepart(part(ContentType::TEXT_HTML, page::html(&content)));
    let bytes = builder.multipart(parts)?.formatted();
    Ok(Mail { id, bytes })
}

/// A name that looks like an encoded word (RFC 2047) would be read as what it encodes.
fn unencoded(subject: &str) -> String {
    subject.replace("=?", "=\u{FFFD}")
}

/// A text as it can stand in a `Message-ID` and in a rule: itself where it is a plain word (RFC 5322, `dot-atom-text`), else a
/// digest of it.
fn word(letter: char, text: &str) -> String {
    let plain =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if text.len() <= ID_BYTES_MAX && text.split('.').all(plain) { text.to_owned() } else { notice::id(letter, &[text]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_plain_or_digests() {
        for plain in ["msg_0011", "in-0011", "account.flagged"] {
            assert_eq!(word('m', plain), plain);
        }
        for odd in ["", ".", "a..b", "a b", "a\r\nX: y", "<a>", "é", &"x".repeat(129)] {
            assert_eq!((word('m', odd).len(), word('m', odd).starts_with("m-")), (34, true), "{odd:?}");
        }
        assert_ne!(word('m', "a b"), word('m', "a c"));
    }
}
