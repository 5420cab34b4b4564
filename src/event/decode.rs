//! One record to one event: checked once, here, so that everything behind may rely on it.

use std::borrow::Cow;
use std::net::IpAddr;

use super::wire::{Field, MAX_RECIPIENTS, Rcpts, TimeOnly, Wire};
use super::{Auth, Complaint, Event, Kind, Limits, Outcome, Recipients, Reject, Send, Timestamp, fold};

/// What a record turned out to be.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // Nearly every record is the large one; a box would cost more than the copy.
pub enum Decoded<'a> {
    /// An event, and what the limits took from it.
    Event(Event<'a>, Cut),
    /// A kind that this version does not know: to be counted and passed over.
    UnknownKind,
}

/// What the limits took from an event that is otherwise kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cut {
    /// Recipients that are counted but not kept.
    pub recipients: u64,
    /// Strings cut or left out.
    pub strings: u32,
}

impl Cut {
    /// Whether anything is missing.
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// Decodes one record, borrowing from it where its strings have no escapes.
///
/// Events after `not_after` are rejected as being from the future.
///
/// # Errors
/// A [`Reject`] with its reason. The record's own limit in bytes is the caller's, who reads it.
///
/// # Examples
/// ```
/// use mailfuse::event::{Decoded, Kind, Limits, decode};
///
/// let line = br#"{"v":1,"kind":"send","ts":1700000000.123,"account":"Info@Example.org","rcpts":["a@example.com"]}"#;
/// let Decoded::Event(event, cut) = decode(line, &Limits::default(), None)? else { panic!() };
/// assert_eq!(event.ts.to_string(), "2023-11-14T22:13:20.123Z");
/// assert_eq!(event.account.as_deref(), Some("info@example.org"));
/// assert!(matches!(event.kind, Kind::Send(s) if s.rcpts.count == 1) && !cut.any());
/// # Ok::<(), mailfuse::event::Reject>(())
/// ```
pub fn decode<'a>(line: &'a [u8], limits: &Limits, not_after: Option<Timestamp>) -> Result<Decoded<'a>, Reject> {
    let wire: Wire<'a> = serde_json::from_str(text_of_object(line)?)?;
    check(wire, limits, not_after)
}

/// The time of a record and nothing else, for the order of records from several files. `None` where it has none.
pub fn time_of(line: &[u8]) -> Option<Timestamp> {
    match serde_json::from_slice(line) {
        Ok(TimeOnly { ts: Field::Is(ts) }) => Some(ts),
        _ => None,
    }
}

fn text_of_object(line: &[u8]) -> Result<&str, Reject> {
    let text = simdutf8::basic::from_utf8(line).map_err(|_| Reject::NotUtf8 {
        column: std::str::from_utf8(line).map_or_else(|e| e.valid_up_to() + 1, |_| line.len()),
    })?;
    // serde would read an array as the fields in their order.
    match line.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'{') => Ok(text),
        Some(b'[' | b'"' | b'0'..=b'9' | b't' | b'f' | b'n' | b'-') => {
            Err(serde_json::from_str::<serde::de::IgnoredAny>(text).map_or_else(Reject::from, |_| Reject::NotObject))
        }
        first => Err(Reject::NotJson {
            column: 1,
            message: if first.is_some() { "expected `{`".to_owned() } else { "nothing there".to_owned() },
        }),
    }
}

fn check<'a>(wire: Wire<'a>, limits: &Limits, not_after: Option<Timestamp>) -> Result<Decoded<'a>, Reject> {
    if wire.v != Field::Is(1) {
        return Err(Reject::Version);
    }
    let Field::Is(kind) = &wire.kind else { return Err(bad("kind", "a string, which names the kind of event")) };
    let known = match &**kind {
        "send" => Known::Send,
        "outcome" => Known::Outcome,
        "complaint" => Known::Complaint,
        "auth" => Known::Auth,
        _ => return Ok(Decoded::UnknownKind),
    };
    let Field::Is(ts) = wire.ts else { return Err(Reject::BadTs) };
    if let Some(not_after) = not_after.filter(|&limit| ts > limit) {
        return Err(Reject::Future { ts, not_after });
    }
    Checker { max: limits.max_string_bytes, limits, cut: Cut::default() }.event(known, ts, wire)
}

enum Known {
    Send,
    Outcome,
    Complaint,
    Auth,
}

struct Checker<'l> {
    max: usize,
    limits: &'l Limits,
    cut: Cut,
}

impl Checker<'_> {
    fn event<'a>(mut self, known: Known, ts: Timestamp, mut w: Wire<'a>) -> Result<Decoded<'a>, Reject> {
        let account = self.account(std::mem::take(&mut w.account))?;
        let id = self.name("id", std::mem::take(&mut w.id))?;
        let tenant = self.name("tenant", std::mem::take(&mut w.tenant))?;
        let kind = match known {
            Known::Send => Kind::Send(self.send(w)?),
            Known::Outcome => Kind::Outcome(self.outcome(w)?),
            Known::Complaint => Kind::Complaint(Complaint {
                rcpt: self.name("rcpt", w.rcpt)?,
                feedback_type: self.words("feedback_type", w.feedback_type)?,
            }),
            Known::Auth => Kind::Auth(self.auth(w)?),
        };
        if account.is_none() && !matches!(kind, Kind::Auth(Auth { ok: false, .. })) {
            return Err(Reject::NoAccount);
        }
        Ok(Decoded::Event(Event { ts, account, id, tenant, kind }, self.cut))
    }

    fn send<'a>(&mut self, w: Wire<'a>) -> Result<Send<'a>, Reject> {
        Ok(Send {
            relay: self.name("relay", w.relay)?,
            client_ip: address(w.client_ip)?,
            rcpts: self.recipients(w.rcpts, w.rcpt_count)?,
            queue_id: self.name("queue_id", w.queue_id)?,
            host: self.name("host", w.host)?,
            mail_from: self.name("mail_from", w.mail_from)?,
            message_id: self.name("message_id", w.message_id)?.map(without_brackets),
            size: optional("size", "an integer of bytes", w.size)?,
            content_hash: self.name("content_hash", w.content_hash)?,
            auth: self.words("auth", w.auth)?,
            user_agent: self.words("user_agent", w.user_agent)?,
        })
    }

    fn outcome<'a>(&mut self, w: Wire<'a>) -> Result<Outcome<'a>, Reject> {
        let Field::Is(rcpt) = w.rcpt else { return Err(bad("rcpt", "a string, the recipient")) };
        if rcpt.len() > self.max {
            return Err(Reject::TooLong { what: "rcpt", max: self.max });
        }
        let Field::Is(status) = w.status else {
            return Err(bad("status", "one of delivered, bounced, deferred, rejected, expired"));
        };
        Ok(Outcome {
            relay: self.name("relay", w.relay)?,
            rcpt,
            status,
            dsn: self.words("dsn", w.dsn)?,
            reply: self.words("reply", w.reply)?,
            queue_id: self.name("queue_id", w.queue_id)?,
            relay_queue_id: self.name("relay_queue_id", w.relay_queue_id)?,
        })
    }

    fn auth<'a>(&mut self, w: Wire<'a>) -> Result<Auth<'a>, Reject> {
        let Field::Is(ok) = w.ok else { return Err(bad("ok", "true or false")) };
        let client_ip = address(w.client_ip)?;
        if client_ip.is_none() {
            return Err(bad("client_ip", "needed on `auth`: an IPv4 or IPv6 address"));
        }
        Ok(Auth { client_ip, ok, method: self.words("auth", w.auth)? })
    }

    fn account<'a>(&mut self, field: Field<Cow<'a, str>>) -> Result<Option<Cow<'a, str>>, Reject> {
        let account = optional("account", "a string", field)?.filter(|a| !a.is_empty());
        let max = self.limits.max_account_bytes;
        if account.as_ref().is_some_and(|a| a.len() > max) {
            return Err(Reject::TooLong { what: "account", max });
        }
        Ok(account.map(fold))
    }

    /// A string that identifies something: whole or not at all.
    fn name<'a>(&mut self, name: &'static str, field: Field<Cow<'a, str>>) -> Result<Option<Cow<'a, str>>, Reject> {
        let text = optional(name, "a string", field)?;
        if text.as_ref().is_some_and(|t| t.len() > self.max) {
            self.cut.strings += 1;
            return Ok(None);
        }
        Ok(text)
    }

    /// A string that describes something: its beginning will do.
    fn words<'a>(&mut self, name: &'static str, field: Field<Cow<'a, str>>) -> Result<Option<Cow<'a, str>>, Reject> {
        let Some(text) = optional(name, "a string", field)? else { return Ok(None) };
        if text.len() <= self.max {
            return Ok(Some(text));
        }
        self.cut.strings += 1;
        let end = (0..=self.max).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        Ok(Some(match text {
            Cow::Borrowed(t) => Cow::Borrowed(&t[..end]),
            Cow::Owned(mut t) => {
                t.truncate(end);
                t.shrink_to_fit();
                Cow::Owned(t)
            }
        }))
    }

    /// `rcpts` where there are any, and `rcpt_count` where it says more: a producer may have cut the list too.
    fn recipients<'a>(&mut self, rcpts: Field<Rcpts<'a>>, count: Field<u64>) -> Result<Recipients<'a>, Reject> {
        let rcpts = optional("rcpts", "an array of strings", rcpts)?;
        let count = optional("rcpt_count", "an integer", count)?;
        if rcpts.is_none() && count.is_none() {
            return Err(bad("rcpts", "needed on `send`, or else `rcpt_count`"));
        }
        let Rcpts { mut named, count: listed } = rcpts.unwrap_or_default();
        named.truncate(self.limits.max_recipients.min(MAX_RECIPIENTS));
        if named.iter().any(|r| r.len() > self.max) {
            named.retain(|r| r.len() <= self.max);
        }
        self.cut.recipients = listed - named.len() as u64;
        // No message has four thousand million recipients, and sums of such counts must not overflow.
        let count = listed.max(count.unwrap_or(0)).min(u64::from(u32::MAX));
        Ok(Recipients { named, count })
    }
}

fn bad(field: &'static str, expected: &'static str) -> Reject {
    Reject::BadField { field, expected }
}

fn optional<T>(field: &'static str, expected: &'static str, found: Field<T>) -> Result<Option<T>, Reject> {
    match found {
        Field::Is(value) => Ok(Some(value)),
        Field::Absent => Ok(None),
        Field::Wrong => Err(bad(field, expected)),
    }
}

/// An address that cannot be read is a reject, not an absent one: the producer is wrong, and should learn of it.
fn address(found: Field<Cow<'_, str>>) -> Result<Option<IpAddr>, Reject> {
    const EXPECTED: &str = "an IPv4 or IPv6 address";
    let Some(text) = optional("client_ip", EXPECTED, found)? else { return Ok(None) };
    // One client is one address, also where a dual-stack socket wrote `::ffff:192.0.2.1`.
    text.parse::<IpAddr>().map(|ip| Some(ip.to_canonical())).map_err(|_| bad("client_ip", EXPECTED))
}

fn without_brackets(id: Cow<'_, str>) -> Cow<'_, str> {
    match id.strip_prefix('<').and_then(|i| i.strip_suffix('>')) {
        None => id,
        Some(_) => match id {
            Cow::Borrowed(i) => Cow::Borrowed(&i[1..i.len() - 1]),
            Cow::Owned(i) => Cow::Owned(i[1..i.len() - 1].to_owned()),
        },
    }
}
