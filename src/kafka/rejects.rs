//! The dead-letter topic: what a record there looks like, written and read in one place.
//!
//! A rejected record keeps its key and value byte for byte; where it came from and why it could not be read stand in headers,
//! as text. Delivery is at least once, so the same origin may occur twice: [`Rejects`] keeps the first.
//! A record that was published again leaves a marker, so that nobody publishes it a second time.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use hashbrown::HashSet;
use rdkafka::Message;
use rdkafka::message::{Header, Headers, OwnedHeaders};

const TOPIC: &str = "mailfuse-topic";
const PARTITION: &str = "mailfuse-partition";
const OFFSET: &str = "mailfuse-offset";
const TIMESTAMP: &str = "mailfuse-timestamp";
const REASON: &str = "mailfuse-reason";
const DETAIL: &str = "mailfuse-detail";
const BY: &str = "mailfuse-by";
const CUT: &str = "mailfuse-cut";
const REDRIVEN: &str = "mailfuse-redriven";

/// A parser's words about a hostile record must not grow with it.
const DETAIL_MAX_BYTES: usize = 1024;
/// What headers and the framing of a record take at most, generously: a topic's name is at most 249 bytes.
const OVERHEAD_BYTES: usize = 4096;

/// Where a record came from and why it is here.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The topic that it was read from.
    pub topic: &'a str,
    /// Its partition there.
    pub partition: i32,
    /// Its own offset there (not the next one).
    pub offset: i64,
    /// Its timestamp there, Unix milliseconds.
    pub timestamp_ms: Option<i64>,
    /// Short name, from a bounded set: [`Reject::reason`](crate::event::Reject::reason).
    pub reason: &'a str,
    /// A sentence for the person who looks. Cut at 1 KiB.
    pub detail: &'a str,
    /// Program and version.
    pub by: &'a str,
}

/// The headers of a rejected record.
pub fn headers(origin: &Origin<'_>) -> OwnedHeaders {
    let text = |headers: OwnedHeaders, key, value: &str| headers.insert(Header { key, value: Some(value) });
    let mut headers = OwnedHeaders::new_with_capacity(8);
    headers = text(headers, TOPIC, origin.topic);
    headers = text(headers, PARTITION, &origin.partition.to_string());
    headers = text(headers, OFFSET, &origin.offset.to_string());
    if let Some(ms) = origin.timestamp_ms {
        headers = text(headers, TIMESTAMP, &ms.to_string());
    }
    headers = text(headers, REASON, origin.reason);
    headers = text(headers, DETAIL, cut(origin.detail, DETAIL_MAX_BYTES));
    text(headers, BY, origin.by)
}

/// The beginning of a text, whole characters only.
fn cut(text: &str, max_bytes: usize) -> &str {
    let mut end = text.len().min(max_bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Cuts key and value to what a record of `record_max_bytes` can hold beside its headers, and says so in a header. A record
/// that only just fitted where it came from does not fit with the headers that it gets here.
pub fn fit<'a>(
    headers: OwnedHeaders,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    record_max_bytes: usize,
) -> (OwnedHeaders, Option<&'a [u8]>, Option<&'a [u8]>) {
    let room = record_max_bytes.saturating_sub(OVERHEAD_BYTES);
    let bytes = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    if bytes(key) + bytes(value) <= room {
        return (headers, key, value);
    }
    // A key that long is no account.
    let key = key.map(|k| &k[..k.len().min(room / 2)]);
    let rest = room - bytes(key);
    let cut = headers.insert(Header { key: CUT, value: Some(&bytes(value).to_string()) });
    (cut, key, value.map(|v| &v[..v.len().min(rest)]))
}

/// The headers of the marker that says: this one was published again. Such a record has no value.
pub fn redriven(source: &Source) -> OwnedHeaders {
    OwnedHeaders::new_with_capacity(1).insert(Header { key: REDRIVEN, value: Some(&source.to_string()) })
}

/// The place of a record, which names it for good. Written `topic:partition:offset`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.topic, self.partition, self.offset)
    }
}

impl FromStr for Source {
    type Err = NotOurs;

    fn from_str(text: &str) -> Result<Self, NotOurs> {
        let bad = || NotOurs::Header(REDRIVEN);
        let (rest, offset) = text.rsplit_once(':').ok_or_else(bad)?;
        let (topic, partition) = rest.rsplit_once(':').ok_or_else(bad)?;
        Ok(Self {
            topic: topic.to_owned(),
            partition: partition.parse().map_err(|_| bad())?,
            offset: offset.parse().map_err(|_| bad())?,
        })
    }
}

/// A record of the dead-letter topic that mailfuse did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// A header is missing or does not hold what it should.
    #[error("header `{0}` is missing or wrong")]
    Header(&'static str),
}

/// A record of the dead-letter topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// One that could not be read.
    Rejected(Rejected),
    /// The marker that this one was published again.
    Redriven(Source),
}

/// A record that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Where it stood.
    pub source: Source,
    /// When it was written there, Unix milliseconds.
    pub source_ms: Option<i64>,
    /// When it was rejected, Unix milliseconds.
    pub rejected_ms: Option<i64>,
    /// Short name of the reason.
    pub reason: String,
    /// The reason as a sentence.
    pub detail: String,
    /// Who rejected it.
    pub by: String,
    /// The original key, cut with the value if at all.
    pub key: Option<Vec<u8>>,
    /// The original value.
    pub value: Option<Vec<u8>>,
    /// How long the value was, where it had to be cut.
    pub cut_from_bytes: Option<u64>,
}

/// Reads a record of the dead-letter topic.
///
/// # Errors
/// Where mailfuse did not write it.
pub fn read(message: &impl Message) -> Result<Entry, NotOurs> {
    let Some(headers) = message.headers() else { return Err(NotOurs::Header(TOPIC)) };
    // The last one counts, as Kafka's own clients have it.
    let text = |name: &str| {
        let mut found = None;
        for header in headers.iter().filter(|h| h.key == name) {
            found = header.value.and_then(|v| std::str::from_utf8(v).ok());
        }
        found
    };
    if let Some(source) = text(REDRIVEN) {
        return Ok(Entry::Redriven(source.parse()?));
    }
    let number = |name: &'static str| match text(name) {
        None => Ok(None),
        Some(text) => text.parse::<i64>().map(Some).map_err(|_| NotOurs::Header(name)),
    };
    let needed = |name: &'static str| text(name).map(str::to_owned).ok_or(NotOurs::Header(name));
    let partition = number(PARTITION)?.and_then(|p| i32::try_from(p).ok()).ok_or(NotOurs::Header(PARTITION))?;
    let offset = number(OFFSET)?.ok_or(NotOurs::Header(OFFSET))?;
    Ok(Entry::Rejected(Rejected {
        source: Source { topic: needed(TOPIC)?, partition, offset },
        source_ms: number(TIMESTAMP)?,
        rejected_ms: message.timestamp().to_millis(),
        reason: needed(REASON)?,
        detail: text(DETAIL).unwrap_or_default().to_owned(),
        by: text(BY).unwrap_or_default().to_owned(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        cut_from_bytes: number(CUT)?.and_then(|n| u64::try_from(n).ok()),
    }))
}

/// Which rejects are asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of this reason only.
    pub reason: Option<String>,
    /// Rejected at or after this time, Unix milliseconds.
    pub since_ms: Option<i64>,
}

impl Wanted {
    fn is(&self, rejected: &Rejected) -> bool {
        self.reason.as_ref().is_none_or(|reason| *reason == rejected.reason)
            && self.since_ms.is_none_or(|since| rejected.rejected_ms.is_none_or(|at| at >= since))
    }
}

/// What the dead-letter topic holds: each origin once, and nothing that was published again.
#[derive(Debug, Default)]
pub struct Rejects {
    wanted: Wanted,
    /// The kept ones stay in the order in which they were read; a partition's order is that of the rejects.
    kept: Vec<Rejected>,
    met: HashSet<Source>,
    redriven: HashSet<Source>,
    /// Repeats of an origin that were dropped.
    pub repeats: u64,
    /// Records that mailfuse did not write, by what is wrong with them.
    pub not_ours: BTreeMap<String, u64>,
}

impl Rejects {
    /// Empty, to be filled with what is wanted.
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Takes note of a record.
    pub fn push(&mut self, message: &impl Message) {
        match read(message) {
            Ok(Entry::Redriven(source)) => {
                self.redriven.insert(source);
            }
            Ok(Entry::Rejected(rejected)) if !self.wanted.is(&rejected) => {}
            Ok(Entry::Rejected(rejected)) => match self.met.insert(rejected.source.clone()) {
                true => self.kept.push(rejected),
                false => self.repeats += 1,
            },
            Err(error) => *self.not_ours.entry(error.to_string()).or_default() += 1,
        }
    }

    /// How many of what was wanted have been published again already.
    pub fn already_redriven(&self) -> u64 {
        self.kept.iter().filter(|r| self.redriven.contains(&r.source)).count() as u64
    }

    /// The rest, by the time of their rejection.
    pub fn open(&self) -> Vec<&Rejected> {
        let mut open: Vec<&Rejected> = self.kept.iter().filter(|r| !self.redriven.contains(&r.source)).collect();
        open.sort_by_key(|r| r.rejected_ms);
        open
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::Timestamp;
    use rdkafka::message::OwnedMessage;

    use super::*;

    fn origin(offset: i64) -> Origin<'static> {
        Origin {
            topic: "mailfuse.events",
            partition: 3,
            offset,
            timestamp_ms: Some(1_700_000_000_000),
            reason: "bad_ts",
            detail: "`ts` is no time",
            by: "mailfuse 0.1.0",
        }
    }

    fn message(headers: OwnedHeaders, key: Option<&[u8]>, value: Option<&[u8]>, at_ms: i64) -> OwnedMessage {
        OwnedMessage::new(
            value.map(<[u8]>::to_vec),
            key.map(<[u8]>::to_vec),
            "mailfuse.rejects".to_owned(),
            Timestamp::CreateTime(at_ms),
            0,
            0,
            Some(headers),
        )
    }

    #[test]
    fn what_is_written_is_read() {
        let Ok(Entry::Rejected(read)) = read(&message(headers(&origin(7)), Some(b"a@x.example"), Some(b"{"), 5)) else {
            panic!("no reject")
        };
        let source = Source { topic: "mailfuse.events".to_owned(), partition: 3, offset: 7 };
        assert_eq!(source.to_string().parse(), Ok(source.clone()));
        let expected = Rejected {
            source,
            source_ms: Some(1_700_000_000_000),
            rejected_ms: Some(5),
            reason: "bad_ts".to_owned(),
            detail: "`ts` is no time".to_owned(),
            by: "mailfuse 0.1.0".to_owned(),
            key: Some(b"a@x.example".to_vec()),
            value: Some(b"{".to_vec()),
            cut_from_bytes: None,
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn what_does_not_fit_is_cut_and_says_so() {
        let long = vec![b'x'; 10_000];
        let (cut, key, value) = fit(headers(&origin(1)), Some(b"k"), Some(&long), 9000);
        assert_eq!((key.map(<[u8]>::len), value.map(<[u8]>::len)), (Some(1), Some(9000 - OVERHEAD_BYTES - 1)));
        let Ok(Entry::Rejected(read)) = read(&message(cut, key, value, 5)) else { panic!("no reject") };
        assert_eq!(read.cut_from_bytes, Some(10_000));
        let (_, key, value) = fit(headers(&origin(1)), Some(&long), None, 9000);
        assert_eq!((key.map(<[u8]>::len), value), (Some((9000 - OVERHEAD_BYTES) / 2), None));
        let long_detail = "ä".repeat(3000);
        let headers = headers(&Origin { detail: &long_detail, ..origin(1) });
        assert!(headers.iter().all(|h| h.value.is_none_or(|v| v.len() <= DETAIL_MAX_BYTES)));
    }

    #[test]
    fn each_origin_counts_once_and_what_was_redriven_not_at_all() {
        let mut rejects = Rejects::new(Wanted { reason: None, since_ms: Some(3) });
        for (offset, at_ms) in [(1, 9), (2, 4), (1, 10), (3, 2), (4, 5)] {
            rejects.push(&message(headers(&origin(offset)), None, Some(b"{"), at_ms));
        }
        let source = Source { topic: "mailfuse.events".to_owned(), partition: 3, offset: 4 };
        rejects.push(&message(redriven(&source), None, None, 11));
        rejects.push(&message(OwnedHeaders::new(), None, None, 11));
        let open: Vec<i64> = rejects.open().iter().map(|r| r.source.offset).collect();
        assert_eq!((open, rejects.repeats, rejects.already_redriven()), (vec![2, 1], 1, 1));
        assert_eq!(rejects.not_ours.values().sum::<u64>(), 1);
    }
}
