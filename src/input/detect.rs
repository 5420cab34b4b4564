//! What a file is, by its first bytes.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// Bytes in which a file shows whether it is a log at all. A look has at least these, so that what it finds does not depend
/// on how many come at once.
pub(super) const MAGIC_BYTES: usize = 512;
/// Lines that a format is looked for in.
const LINES_MAX: usize = 1000;

/// What the lines of a source are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line: the contract's events.
    Events,
    /// Syslog lines, Postfix's among them.
    Postfix,
}

/// What the first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Format(Format),
    /// No text at all, but this.
    NotText(&'static str),
    Nothing,
}

/// How a look at the first bytes went.
pub(super) struct Search {
    pub found: Found,
    /// Lines that were looked at.
    pub lines: usize,
    /// Whether some of them are syslog's.
    pub syslog: bool,
}

/// Looks for the first line that can only be of one format. A first line that was cut off by rotation does not matter.
pub(super) fn search(head: &[u8]) -> Search {
    let mut search = Search { found: Found::Nothing, lines: 0, syslog: false };
    if let Some(what) = not_text(head) {
        search.found = Found::NotText(what);
        return search;
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let last_end = memchr::memrchr(b'\n', head);
    // The end of a first line longer than the look is out of sight.
    let endless = last_end.is_none();
    let whole = last_end.map_or(head.len(), |end| end + 1);
    for line in head[..whole].split(|&b| b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty()).take(LINES_MAX) {
        search.lines += 1;
        let json = line[0] == b'{' && (endless || serde_json::from_slice::<IgnoredAny>(line).is_ok());
        if json {
            search.found = Found::Format(Format::Events);
            return search;
        }
        if let Some(tag) = syslog_tag(line) {
            search.syslog = true;
            if is_postfix(tag) {
                search.found = Found::Format(Format::Postfix);
                return search;
            }
        }
    }
    search
}

/// The tag of a syslog line (`postfix/smtpd[123]`), behind an RFC 3164 or ISO 8601 stamp and the host.
fn syslog_tag(line: &[u8]) -> Option<&[u8]> {
    let line = match line {
        // A priority, as syslog writes it to the wire.
        [b'<', b'0'..=b'9', ..] => &line[memchr::memchr(b'>', line)? + 1..],
        _ => line,
    };
    let rest = match line {
        // `Jul 10 06:25:16 host tag:`; the day may be padded with a blank.
        [m @ b'A'..=b'Z', b'a'..=b'z', b'a'..=b'z', b' ', ..] if b"JFMASOND".contains(m) => {
            let clock = line.get(7..15)?;
            if clock[2] != b':' || clock[5] != b':' {
                return None;
            }
            line.get(15..)?
        }
        // `2024-07-10T06:25:16.123+02:00 host tag:`
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b'-', _, _, b'-', _, _, b'T' | b' ', ..] => {
            let rest = line.get(11..)?;
            &rest[memchr::memchr(b' ', rest)?..]
        }
        _ => return None,
    };
    let mut words = rest.split(|&b| b == b' ').filter(|w| !w.is_empty());
    words.next()?;
    words.next()
}

/// Whether a daemon of Postfix wrote the line, under whatever `syslog_name`.
fn is_postfix(tag: &[u8]) -> bool {
    const DAEMONS: [&str; 25] = [
        "smtpd",
        "smtp",
        "qmgr",
        "cleanup",
        "bounce",
        "pickup",
        "local",
        "virtual",
        "lmtp",
        "anvil",
        "error",
        "retry",
        "trivial-rewrite",
        "scache",
        "postscreen",
        "proxymap",
        "tlsproxy",
        "pipe",
        "master",
        "discard",
        "verify",
        "dnsblog",
        "sendmail",
        "oqmgr",
        "showq",
    ];
    let Some(slash) = memchr::memrchr(b'/', tag) else { return false };
    let daemon = tag[slash + 1..].split(|&b| b == b'[' || b == b':').next().unwrap_or_default();
    DAEMONS.iter().any(|d| d.as_bytes() == daemon)
}

/// Compressions and archives that are not read, and the command that unpacks them.
pub(super) fn packed(head: &[u8]) -> Option<(&'static str, &'static str)> {
    Some(match head {
        [0x1f, 0x9d, ..] => ("compressed with compress(1)", "zcat"),
        [0x04, 0x22, 0x4d, 0x18, ..] => ("compressed with lz4", "lz4 -dc"),
        [b'L', b'Z', b'I', b'P', 1, ..] => ("compressed with lzip", "lzip -dc"),
        [b'P', b'K', 3, 4, ..] => ("a ZIP archive", "unzip -p"),
        [b'7', b'z', 0xbc, 0xaf, ..] => ("a 7-Zip archive", "7z x -so"),
        _ if head.get(257..262) == Some(b"ustar") => ("a tar archive", "tar -xOf"),
        _ => return None,
    })
}

fn not_text(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xff, 0xd8, 0xff, ..] => return Some("a JPEG picture"),
        [0x89, b'P', b'N', b'G', ..] => return Some("a PNG picture"),
        [b'G', b'I', b'F', b'8', ..] => return Some("a GIF picture"),
        [b'%', b'P', b'D', b'F', ..] => return Some("a PDF document"),
        [0x7f, b'E', b'L', b'F', ..] => return Some("a program"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some("UTF-16 text; convert it with iconv -f UTF-16"),
        _ if head.starts_with(b"SQLite format 3") => return Some("a database"),
        _ if head.starts_with(b"LPKSHHRH") => return Some("a systemd journal; export it with journalctl --file"),
        _ => {}
    }
    // Some odd bytes, which clients do send, are no reason to refuse a log.
    let head = &head[..head.len().min(MAGIC_BYTES)];
    let control = head.iter().filter(|&&b| b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r' | 0x1b)).count();
    (control * 20 > head.len()).then_some("binary data")
}
