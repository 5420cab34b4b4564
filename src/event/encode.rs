//! An event as the contract writes it: what turns somebody else's log into events.

use std::borrow::Cow;
use std::net::IpAddr;

use serde::Serialize;

use super::{Auth, Complaint, Event, Kind, Outcome, Send, Status, Timestamp};

/// The event has no form in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Only a failed log-in may come without an account.
    #[error("an event without an account")]
    NoAccount,
    /// A log-in comes from somewhere.
    #[error("an `auth` event without the client's address")]
    NoClient,
}

#[derive(Serialize, Default)]
struct Line<'a> {
    v: u8,
    kind: &'static str,
    ts: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_ip: Option<IpAddr>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    rcpts: &'a [Cow<'a, str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    rcpt_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay_queue_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mail_from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rcpt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dsn: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feedback_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
}

/// Writes `event` as one JSON object, without a line end, behind what `out` already holds.
///
/// [`decode`](super::decode()) reads back the same event, as long as the event keeps what `decode` promises (a folded account,
/// strings within the limits).
///
/// # Errors
/// Where the contract has no form for the event; `out` is then unchanged.
///
/// # Examples
/// ```
/// use mailfuse::event::{Decoded, Limits, decode, encode};
///
/// let line = br#"{"v":1,"kind":"auth","ts":"2023-11-14T22:13:20.000Z","account":"a@example.org","client_ip":"2001:db8::1","ok":true}"#;
/// let Decoded::Event(event, _) = decode(line, &Limits::default(), None)? else { panic!() };
/// let mut out = Vec::new();
/// encode(&event, &mut out)?;
/// assert_eq!(out, line);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let failed_login = matches!(event.kind, Kind::Auth(Auth { ok: false, .. }));
    if event.account.is_none() && !failed_login {
        return Err(EncodeError::NoAccount);
    }
    let line = Line {
        v: 1,
        ts: event.ts,
        account: event.account.as_deref(),
        id: event.id.as_deref(),
        tenant: event.tenant.as_deref(),
        ..match &event.kind {
            Kind::Send(s) => send(s),
            Kind::Outcome(o) => outcome(o),
            Kind::Complaint(c) => complaint(c),
            Kind::Auth(a) => auth(a)?,
        }
    };
    let start = out.len();
    // Writing to memory cannot fail, and the struct has no map whose keys could be no strings.
    if serde_json::to_writer(&mut *out, &line).is_err() {
        debug_assert!(false, "an event that serde_json cannot write");
        out.truncate(start);
    }
    Ok(())
}

fn send<'a>(s: &'a Send<'_>) -> Line<'a> {
    let named = s.rcpts.named.len() as u64;
    Line {
        kind: "send",
        relay: s.relay.as_deref(),
        client_ip: s.client_ip,
        rcpts: &s.rcpts.named,
        // Where all are named their number says nothing new.
        rcpt_count: (named == 0 || s.rcpts.count != named).then_some(s.rcpts.count),
        queue_id: s.queue_id.as_deref(),
        host: s.host.as_deref(),
        mail_from: s.mail_from.as_deref(),
        message_id: s.message_id.as_deref(),
        size: s.size,
        content_hash: s.content_hash.as_deref(),
        auth: s.auth.as_deref(),
        user_agent: s.user_agent.as_deref(),
        ..Line::default()
    }
}

fn outcome<'a>(o: &'a Outcome<'_>) -> Line<'a> {
    Line {
        kind: "outcome",
        relay: o.relay.as_deref(),
        queue_id: o.queue_id.as_deref(),
        relay_queue_id: o.relay_queue_id.as_deref(),
        rcpt: Some(&o.rcpt),
        status: Some(o.status),
        dsn: o.dsn.as_deref(),
        reply: o.reply.as_deref(),
        ..Line::default()
    }
}

fn complaint<'a>(c: &'a Complaint<'_>) -> Line<'a> {
    Line { kind: "complaint", rcpt: c.rcpt.as_deref(), feedback_type: c.feedback_type.as_deref(), ..Line::default() }
}

fn auth<'a>(a: &'a Auth<'_>) -> Result<Line<'a>, EncodeError> {
    let client_ip = Some(a.client_ip.ok_or(EncodeError::NoClient)?);
    Ok(Line { kind: "auth", client_ip, auth: a.method.as_deref(), ok: Some(a.ok), ..Line::default() })
}
