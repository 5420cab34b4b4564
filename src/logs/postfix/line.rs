//! A line of Postfix taken apart: host, syslog name, daemon, queue id, fields. Borrows only, and looks at each byte
//! about once; what does not fit is a `None`, never a panic.

use memchr::memchr;
use memchr::memmem;

/// A line that a daemon of Postfix wrote, after the stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) host: &'a [u8],
    /// The first part of the syslog name: `postfix`, or the name of an instance.
    pub(super) instance: &'a [u8],
    pub(super) daemon: Daemon,
    /// What follows `daemon[pid]: `.
    pub(super) body: &'a [u8],
}

/// The daemons whose lines matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Daemon {
    Smtpd,
    Cleanup,
    Qmgr,
    Pickup,
    /// Delivers over SMTP.
    Smtp,
    /// Any other delivery agent: lmtp, local, virtual, pipe, error, retry, discard.
    Agent,
    /// Of Postfix, and of no interest here.
    Other,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Split<'a> {
    Postfix(Line<'a>),
    /// Some other program's.
    Foreign,
}

/// Takes `host tag[pid]: body` apart.
pub(super) fn split(rest: &[u8]) -> Split<'_> {
    try_split(rest).map_or(Split::Foreign, Split::Postfix)
}

fn try_split(rest: &[u8]) -> Option<Line<'_>> {
    let (host, rest) = cut(rest, b' ')?;
    let tag_len = memchr(b' ', rest).unwrap_or(rest.len());
    let tag = rest[..tag_len].strip_suffix(b":")?;
    let body = rest.get(tag_len + 1..).unwrap_or_default();
    let program = &tag[..memchr(b'[', tag).unwrap_or(tag.len())];
    let slash = memchr(b'/', program)?;
    let instance = &program[..slash];
    let last = match memchr::memrchr(b'/', program) {
        Some(last) => &program[last + 1..],
        None => program,
    };
    let daemon = match last {
        b"smtpd" => Daemon::Smtpd,
        b"cleanup" => Daemon::Cleanup,
        b"qmgr" | b"oqmgr" | b"nqmgr" => Daemon::Qmgr,
        b"smtp" => Daemon::Smtp,
        b"lmtp" | b"local" | b"virtual" | b"pipe" | b"error" | b"retry" | b"discard" => Daemon::Agent,
        b"pickup" => Daemon::Pickup,
        b"bounce" | b"anvil" | b"scache" | b"postscreen" | b"dnsblog" | b"tlsproxy" | b"trivial-rewrite" => {
            Daemon::Other
        }
        _ if instance.starts_with(b"postfix") || instance.is_empty() => Daemon::Other,
        _ => return None,
    };
    (!host.is_empty() && host.len() <= 255 && instance.len() <= 64).then_some(Line { host, instance, daemon, body })
}

/// What is before and after the first `at`.
fn cut(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let i = memchr(at, text)?;
    Some((&text[..i], &text[i + 1..]))
}

/// A queue id: short (hexadecimal) or long (digits and consonants).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueId {
    len: u8,
    bytes: [u8; 23],
}

const ID_LEN_MIN: usize = 5;

/// Bit 0: may stand in a short id; bit 1: in a long one.
static ID_CLASS: [u8; 256] = id_classes();

const fn id_classes() -> [u8; 256] {
    let mut classes = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        let vowel = matches!(b.to_ascii_lowercase(), b'a' | b'e' | b'i' | b'o' | b'u');
        if b.is_ascii_digit() || matches!(b, b'A'..=b'F') {
            classes[i] |= 1;
        }
        if b.is_ascii_digit() || (b.is_ascii_alphabetic() && !vowel) {
            classes[i] |= 2;
        }
        i += 1;
    }
    classes
}

impl QueueId {
    /// No id; equal to none that was read.
    pub(super) const NONE: Self = Self { len: 0, bytes: [0; 23] };

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if !(ID_LEN_MIN..=23).contains(&text.len()) {
            return None;
        }
        if text.iter().fold(3, |class, b| class & ID_CLASS[usize::from(*b)]) == 0 {
            return None;
        }
        let mut bytes = [0; 23];
        bytes[..text.len()].copy_from_slice(text);
        Some(Self { len: text.len() as u8, bytes })
    }

    /// The id at the head of a body, and what follows `ID: `.
    pub(super) fn head(body: &[u8]) -> Option<(Self, &[u8])> {
        let window = &body[..body.len().min(24)];
        let colon = memchr(b':', window)?;
        let id = Self::parse(&body[..colon])?;
        let rest = &body[colon + 1..];
        Some((id, rest.strip_prefix(b" ").unwrap_or(rest)))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(super) fn as_str(&self) -> &str {
        // Ids are made of ASCII only.
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

impl std::fmt::Debug for QueueId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// smtpd's `client=` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Client<'a> {
    pub(super) address: &'a [u8],
    pub(super) method: &'a [u8],
    pub(super) username: &'a [u8],
    /// The id of the message on the host before, where a filter passes it on (XFORWARD).
    pub(super) orig_queue_id: Option<QueueId>,
}

/// Reads what follows `client=`.
pub(super) fn client(rest: &[u8]) -> Client<'_> {
    let end = memmem::find(rest, b", ").unwrap_or(rest.len());
    let mut client = Client { address: address(&rest[..end]), ..Client::default() };
    let mut fields = &rest[end..];
    while let Some(rest) = fields.strip_prefix(b", ") {
        let end = memmem::find(rest, b", ").unwrap_or(rest.len());
        let field = &rest[..end];
        fields = &rest[end..];
        if let Some(method) = field.strip_prefix(b"sasl_method=") {
            client.method = method;
        } else if let Some(head) = field.strip_prefix(b"sasl_username=") {
            let (username, after) = username(&rest[field.len() - head.len()..]);
            client.username = username;
            fields = after;
        } else if let Some(id) = field.strip_prefix(b"orig_queue_id=") {
            client.orig_queue_id = QueueId::parse(id);
        }
    }
    client
}

/// A log-in name ends the line, or a field that can follow it comes next; it may hold commas itself.
fn username(text: &[u8]) -> (&[u8], &[u8]) {
    let follows = |comma: &usize| {
        let next = &text[comma + 2..];
        next.starts_with(b"sasl_sender=") || next.starts_with(b"orig_")
    };
    let end = memmem::find_iter(text, b", ").find(follows).unwrap_or(text.len());
    let name = text[..end].trim_ascii();
    let name = name.strip_prefix(b"<").and_then(|n| n.strip_suffix(b">")).unwrap_or(name);
    (name, &text[end..])
}

/// The address in `name[address]` or `name[address]:port`; empty where there is none.
pub(super) fn address(text: &[u8]) -> &[u8] {
    let inner = || {
        let open = memchr(b'[', text)?;
        let close = memchr(b']', &text[open..])?;
        Some(&text[open + 1..open + close])
    };
    inner().unwrap_or_default()
}

/// An address in writing, with or without the `IPv6:` of a literal.
pub(super) fn ip(text: &[u8]) -> Option<std::net::IpAddr> {
    let text = text.strip_prefix(b"IPv6:").unwrap_or(text);
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// qmgr's `from=` line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queued<'a> {
    /// The message entered the active queue.
    Active { from: &'a [u8], size: Option<u64>, nrcpt: Option<u64> },
    /// It was given up on.
    Expired,
}

/// Reads what follows `from=`.
pub(super) fn queued(rest: &[u8]) -> Option<Queued<'_>> {
    let (from, mut fields) = bracketed(rest)?;
    let (mut size, mut nrcpt) = (None, None);
    while let Some(rest) = fields.strip_prefix(b", ") {
        let end = memchr(b',', rest).unwrap_or(rest.len());
        let field = &rest[..end];
        if let Some(text) = field.strip_prefix(b"size=") {
            size = number(text);
        } else if let Some(text) = field.strip_prefix(b"nrcpt=") {
            nrcpt = number(text);
        } else if let Some(status) = field.strip_prefix(b"status=") {
            return matches!(status, b"expired" | b"force-expired").then_some(Queued::Expired);
        }
        fields = &rest[end..];
    }
    // A line that was cut off says nothing sure of the message.
    nrcpt.map(|n| Queued::Active { from, size, nrcpt: Some(n) })
}

/// `<address>` and what follows. An address may hold `>`: the end is a `>` before `, ` or the end of the line, outside
/// of a quoted local part.
fn bracketed(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b"<")?;
    let mut at = if text.first() == Some(&b'"') { quoted_len(text) } else { 0 };
    loop {
        at += memchr(b'>', &text[at..])?;
        let rest = &text[at + 1..];
        if rest.is_empty() || rest.starts_with(b", ") {
            return Some((&text[..at], rest));
        }
        at += 1;
    }
}

/// The length of the quoted string at the head; 0 where it does not end.
fn quoted_len(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(step) = memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default()) {
        at += step;
        if text[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    0
}

fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=18).contains(&digits) {
        return None;
    }
    Some(text[..digits].iter().fold(0, |n, b| n * 10 + u64::from(b - b'0')))
}

/// One attempt to deliver to one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delivery<'a> {
    pub(super) rcpt: &'a [u8],
    /// As written: `name[address]:port`, `none`, `local`, …
    pub(super) relay: &'a [u8],
    pub(super) dsn: &'a [u8],
    pub(super) status: &'a [u8],
    /// What stands in the parentheses.
    pub(super) reply: &'a [u8],
}

/// Reads what follows `to=`.
pub(super) fn delivery(rest: &[u8]) -> Option<Delivery<'_>> {
    let (rcpt, mut fields) = bracketed(rest)?;
    let (mut relay, mut dsn) = (&b""[..], &b""[..]);
    loop {
        let rest = fields.strip_prefix(b", ")?;
        if let Some(tail) = rest.strip_prefix(b"orig_to=") {
            fields = bracketed(tail)?.1;
            continue;
        }
        if let Some(tail) = rest.strip_prefix(b"status=") {
            let end = memchr(b' ', tail).unwrap_or(tail.len());
            let reply = tail[end..].trim_ascii();
            let reply = reply.strip_prefix(b"(").unwrap_or_default();
            let reply = reply.strip_suffix(b")").unwrap_or(reply);
            return Some(Delivery { rcpt, relay, dsn, status: &tail[..end], reply });
        }
        let end = memchr(b',', rest)?;
        let field = &rest[..end];
        if let Some(text) = field.strip_prefix(b"relay=") {
            relay = text;
        } else if let Some(text) = field.strip_prefix(b"dsn=") {
            dsn = text;
        }
        fields = &rest[end..];
    }
}

/// The id that the next host gave the message (`250 2.0.0 Ok: queued as 4XyZ…`): the last one in the reply, as a
/// filter quotes the reply of the host behind it.
pub(super) fn queued_as(reply: &[u8]) -> Option<QueueId> {
    const WORDS: &[u8] = b"queued as ";
    let at = memmem::rfind(reply, WORDS)?;
    let rest = &reply[at + WORDS.len()..];
    let end = rest.iter().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(rest.len());
    QueueId::parse(&rest[..end])
}

/// A message or a recipient that our own host refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reject<'a> {
    /// First digit of the reply, where it can be told.
    pub(super) class: Option<u8>,
    pub(super) dsn: &'a [u8],
    pub(super) reply: &'a [u8],
    pub(super) rcpt: &'a [u8],
    /// Named by newer versions.
    pub(super) username: &'a [u8],
}

/// Reads `reject: RCPT from name[address]: 550 5.1.1 <…>: …; from=<…> to=<…> proto=…` and `milter-reject: …` alike,
/// after their colon.
pub(super) fn reject(rest: &[u8]) -> Option<Reject<'_>> {
    // The client's name and address hold no space; the address may be followed by a port.
    let from = memmem::find(rest, b" from ")?;
    let rest = &rest[from + 6..];
    let reply_at = memmem::find(rest, b"]: ").map(|i| i + 3).or_else(|| {
        let port = memmem::find(rest, b"]:")?;
        Some(port + memmem::find(&rest[port..], b": ")? + 2)
    })?;
    let rest = &rest[reply_at..];
    let tail_at = memmem::rfind(rest, b"; from=<")?;
    let (reply, tail) = (&rest[..tail_at], &rest[tail_at + 2..]);
    let to = memmem::find(tail, b"> to=<").map(|i| i + 6).unwrap_or(tail.len());
    let to_end = memmem::find(&tail[to..], b"> proto=").or_else(|| memchr(b'>', &tail[to..])).unwrap_or(0);
    let username = match memmem::rfind(tail, b" sasl_username=") {
        Some(at) => username(&tail[at + 15..]).0,
        None => b"",
    };
    let (class, dsn) = reply_code(reply);
    Some(Reject { class, dsn, reply, rcpt: &tail[to..to + to_end], username })
}

/// Reads cleanup's `reject: header Subject: … from name[address]; from=<…> to=<…> proto=… helo=<…>: 5.7.1 …`, after
/// `reject: `.
pub(super) fn content_reject(rest: &[u8]) -> Option<Reject<'_>> {
    let tail_at = memmem::rfind(rest, b"; from=<")?;
    let tail = &rest[tail_at + 2..];
    let to = memmem::find(tail, b"> to=<")? + 6;
    let to_end = to + memmem::find(&tail[to..], b"> proto=")?;
    let reply = match memmem::rfind(&tail[to_end..], b">: ") {
        Some(at) => &tail[to_end + at + 3..],
        None => b"",
    };
    let (class, dsn) = reply_code(reply);
    Some(Reject { class, dsn, reply, rcpt: &tail[to..to_end], username: b"" })
}

/// First digit and enhanced code of a reply: `550 5.1.1 …` or `5.7.1 …`.
fn reply_code(reply: &[u8]) -> (Option<u8>, &[u8]) {
    let dsn = reply.split(|b| *b == b' ').take(2).find(|w| is_dsn(w)).unwrap_or_default();
    (reply.first().filter(|b| matches!(b, b'2'..=b'5')).map(|b| b - b'0'), dsn)
}

fn is_dsn(text: &[u8]) -> bool {
    let mut parts = text.split(|b| *b == b'.');
    let digits = |p: &[u8]| (1..=3).contains(&p.len()) && p.iter().all(u8::is_ascii_digit);
    (0..3).all(|_| parts.next().is_some_and(digits)) && parts.next().is_none()
}

/// A log-in that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AuthFailure<'a> {
    pub(super) address: &'a [u8],
    pub(super) method: &'a [u8],
    pub(super) username: &'a [u8],
}

/// Reads `unknown[192.0.2.1]: SASL LOGIN authentication failed: …`, after `warning: `.
pub(super) fn auth_failure(rest: &[u8]) -> Option<AuthFailure<'_>> {
    let sasl = memmem::find(&rest[..rest.len().min(400)], b": SASL ")?;
    let address = address(&rest[..sasl]);
    let (method, tail) = cut(&rest[sasl + 7..], b' ')?;
    let reason = tail.strip_prefix(b"authentication failed:")?;
    let username = match memmem::find(reason, b", sasl_username=") {
        Some(at) => username(&reason[at + 16..]).0,
        None => b"",
    };
    Some(AuthFailure { address, method, username })
}

/// The Message-ID without its brackets, from what follows `message-id=`.
pub(super) fn message_id(rest: &[u8]) -> &[u8] {
    let text = rest.trim_ascii();
    let text = text.strip_prefix(b"<").unwrap_or(text);
    text.strip_suffix(b">").unwrap_or(text)
}
