//! What comes in: the contract's events, decoded once, checked, borrowed from the line where the bytes allow.
//!
//! Every reader of somebody else's log ends in an [`Event`]; the core knows nothing else.

mod decode;
mod encode;
mod limits;
mod reject;
mod time;
pub mod wire;

pub use decode::{Cut, Decoded, decode, time_of};
pub use encode::{EncodeError, encode};
pub use limits::Limits;
pub use reject::Reject;
pub use time::{BadTime, Timestamp};

use std::borrow::Cow;
use std::net::IpAddr;

/// One event of one account.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// Event time.
    pub ts: Timestamp,
    /// The authenticated account, ASCII case folded. Only a failed log-in may have none.
    pub account: Option<Cow<'a, str>>,
    /// Unique among the account's events; a repeat is dropped.
    pub id: Option<Cow<'a, str>>,
    /// The customer that the account belongs to; see [`Event::tenant`] for the default.
    pub tenant: Option<Cow<'a, str>>,
    /// What happened.
    pub kind: Kind<'a>,
}

/// What happened to the account.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind<'a> {
    /// The provider took a message from the account.
    Send(Send<'a>),
    /// A remote server answered for one recipient.
    Outcome(Outcome<'a>),
    /// Somebody complained about a message (RFC 5965).
    Complaint(Complaint<'a>),
    /// Somebody logged in, or failed to.
    Auth(Auth<'a>),
}

/// A message that the provider accepted from the account.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Send<'a> {
    /// The own host that talks to the outside.
    pub relay: Option<Cow<'a, str>>,
    /// Where the client connected from.
    pub client_ip: Option<IpAddr>,
    /// Envelope recipients.
    pub rcpts: Recipients<'a>,
    /// Ties an outcome to this send, within the account.
    pub queue_id: Option<Cow<'a, str>>,
    /// The own host in whose queue the message has this id.
    pub host: Option<Cow<'a, str>>,
    /// Envelope sender.
    pub mail_from: Option<Cow<'a, str>>,
    /// Message-ID without its angle brackets.
    pub message_id: Option<Cow<'a, str>>,
    /// Bytes.
    pub size: Option<u64>,
    /// Opaque.
    pub content_hash: Option<Cow<'a, str>>,
    /// How the client authenticated (`PLAIN`, `LOGIN`, …).
    pub auth: Option<Cow<'a, str>>,
    /// As the client names itself.
    pub user_agent: Option<Cow<'a, str>>,
}

/// Envelope recipients of one message: named at the send, or only counted and named later by the outcomes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recipients<'a> {
    /// The recipients, at most the bound of the limits. Empty where only the count is known.
    pub named: Vec<Cow<'a, str>>,
    /// How many there are in all; at least `named.len()`.
    pub count: u64,
}

/// What a remote server answered for one recipient, at one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<'a> {
    /// The own host that talked to the outside.
    pub relay: Option<Cow<'a, str>>,
    /// The recipient.
    pub rcpt: Cow<'a, str>,
    /// How it ended, or that it did not end yet.
    pub status: Status,
    /// RFC 3463 enhanced status code, `5.1.1`.
    pub dsn: Option<Cow<'a, str>>,
    /// The remote server's words.
    pub reply: Option<Cow<'a, str>>,
    /// Ties this outcome to its send, within the account.
    pub queue_id: Option<Cow<'a, str>>,
    /// The id on the relay, where the message crossed hosts: what the relay's own log and `Received` lines show.
    pub relay_queue_id: Option<Cow<'a, str>>,
}

/// How the delivery to one recipient stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted by the recipient's server.
    Delivered,
    /// Refused for good after we had taken it.
    Bounced,
    /// To be tried again.
    Deferred,
    /// Refused at once, by us or by the recipient's server.
    Rejected,
    /// Given up on after too many tries.
    Expired,
}

/// A complaint about a message of the account.
#[derive(Debug, Clone, PartialEq)]
pub struct Complaint<'a> {
    /// Who complained, where the report says.
    pub rcpt: Option<Cow<'a, str>>,
    /// RFC 5965 feedback type, `abuse`.
    pub feedback_type: Option<Cow<'a, str>>,
}

/// A log-in, or the failure of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth<'a> {
    /// Where the client connected from.
    pub client_ip: Option<IpAddr>,
    /// Whether the log-in succeeded.
    pub ok: bool,
    /// How the client authenticated.
    pub method: Option<Cow<'a, str>>,
}

impl Event<'_> {
    /// The customer of the account: as the event says, else the account's domain, else the account.
    pub fn tenant(&self) -> Option<&str> {
        if let Some(t) = &self.tenant {
            return Some(t);
        }
        self.account.as_deref().map(default_tenant)
    }
}

fn owned(text: Option<Cow<'_, str>>) -> Option<Cow<'static, str>> {
    text.map(|t| Cow::Owned(t.into_owned()))
}

impl Event<'_> {
    /// The same, free of the line that it was read from.
    pub fn into_owned(self) -> Event<'static> {
        Event {
            ts: self.ts,
            account: owned(self.account),
            id: owned(self.id),
            tenant: owned(self.tenant),
            kind: match self.kind {
                Kind::Send(s) => Kind::Send(Send {
                    relay: owned(s.relay),
                    client_ip: s.client_ip,
                    rcpts: Recipients {
                        named: s.rcpts.named.into_iter().map(|r| Cow::Owned(r.into_owned())).collect(),
                        count: s.rcpts.count,
                    },
                    queue_id: owned(s.queue_id),
                    host: owned(s.host),
                    mail_from: owned(s.mail_from),
                    message_id: owned(s.message_id),
                    size: s.size,
                    content_hash: owned(s.content_hash),
                    auth: owned(s.auth),
                    user_agent: owned(s.user_agent),
                }),
                Kind::Outcome(o) => Kind::Outcome(Outcome {
                    relay: owned(o.relay),
                    rcpt: Cow::Owned(o.rcpt.into_owned()),
                    status: o.status,
                    dsn: owned(o.dsn),
                    reply: owned(o.reply),
                    queue_id: owned(o.queue_id),
                    relay_queue_id: owned(o.relay_queue_id),
                }),
                Kind::Complaint(c) => {
                    Kind::Complaint(Complaint { rcpt: owned(c.rcpt), feedback_type: owned(c.feedback_type) })
                }
                Kind::Auth(a) => Kind::Auth(Auth { client_ip: a.client_ip, ok: a.ok, method: owned(a.method) }),
            },
        }
    }
}

/// The customer that an account belongs to where nothing says so: its domain, else itself.
pub fn default_tenant(account: &str) -> &str {
    match account.rsplit_once('@') {
        Some((_, domain)) if !domain.is_empty() => domain,
        _ => account,
    }
}

/// Folds ASCII upper case to lower case, and copies only where there is something to fold.
pub fn fold(s: Cow<'_, str>) -> Cow<'_, str> {
    if s.bytes().any(|b| b.is_ascii_uppercase()) { Cow::Owned(s.to_ascii_lowercase()) } else { s }
}
