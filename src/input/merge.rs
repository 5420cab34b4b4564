//! Several files as one stream: the smallest stamp first.
//!
//! The key of a line is the largest stamp that its file has shown up to it: within a file nothing is sorted, and a line
//! without a stamp goes with the one before. The file whose next line has the smallest key is read on for as long as that
//! holds; equal keys go by the order of the files. A file whose first key is known from a look waits closed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use super::blocks::{BLOCK_BYTES, Blocks, Piece};
use super::detect::Format;
use super::error::Error;
use super::open::{Facts, Seen, SourceInfo};
use crate::event::{Timestamp, time_of};

/// Finds the stamp of one file's lines. It sees each line of the file once, in order.
pub trait Stamp: Send {
    /// The line's time; `None` where it has none, as in a line that continues the one before.
    fn stamp(&mut self, line: &[u8]) -> Option<Timestamp>;
}

impl<F: FnMut(&[u8]) -> Option<Timestamp> + Send> Stamp for F {
    fn stamp(&mut self, line: &[u8]) -> Option<Timestamp> {
        self(line)
    }
}

/// Makes the [`Stamp`] of a file of syslog lines.
pub(super) type Stampers = Arc<dyn Fn(&SourceInfo) -> Box<dyn Stamp> + Send + Sync>;

/// Some lines, and what else happened between them.
#[derive(Default)]
pub(super) struct Batch {
    pub buf: Vec<u8>,
    pub runs: Vec<Run>,
}

/// What a batch consists of.
pub(super) enum Run {
    /// Lines of one source, one after the other: `buf[start..end]`.
    Lines { source: usize, first_line: u64, start: usize, end: usize },
    /// A line that was passed over.
    TooLong { source: usize, line: u64, bytes: u64 },
    /// A source that cannot be read on.
    Failed { source: usize, error: Error },
    /// The end of a source.
    Done { source: usize, facts: Facts },
}

/// Nobody takes the lines any more.
pub(super) struct Gone;

/// One source in the merge.
struct File {
    seen: Seen,
    stamp: Option<Box<dyn Stamp>>,
    /// The largest stamp so far; `i64::MIN` before the first.
    key: i64,
    blocks: Option<Blocks>,
    block: Block,
}

/// The part of a file that is being passed on.
#[derive(Default)]
struct Block {
    buf: Vec<u8>,
    /// What is not passed on yet: `buf[pos..len]`.
    pos: usize,
    len: usize,
    /// Number of the line at `pos`.
    line: u64,
    /// The line at `pos` has been stamped already.
    stamped: bool,
}

pub(super) struct Merge {
    files: Vec<File>,
    /// Key of the next line, and the file.
    heads: BinaryHeap<Reverse<(i64, usize)>>,
    max_line: usize,
    out: Batch,
    to: SyncSender<Batch>,
    used: Receiver<Vec<u8>>,
}

impl Merge {
    pub(super) fn new(
        seen: Vec<Seen>,
        stampers: Option<Stampers>,
        max_line: usize,
        to: SyncSender<Batch>,
        used: Receiver<Vec<u8>>,
    ) -> Self {
        let merged = seen.len() > 1;
        let stamp_of = |info: &SourceInfo| -> Option<Box<dyn Stamp>> {
            match (info.format?, &stampers) {
                (Format::Events, _) => Some(Box::new(time_of)),
                (Format::Postfix, Some(stampers)) => Some(stampers(info)),
                (Format::Postfix, None) => None,
            }
        };
        let mut files = Vec::with_capacity(seen.len());
        let mut heads = BinaryHeap::with_capacity(seen.len());
        for (i, seen) in seen.into_iter().enumerate() {
            let key = match &seen.first_line {
                Some(line) if merged => stamp_of(&seen.info).and_then(|mut s| s.stamp(trimmed(line))),
                _ => None,
            };
            heads.push(Reverse((key.map_or(i64::MIN, |ts| ts.0), i)));
            // The look took one of its own: the reading one must begin at the first line.
            let stamp = if merged { stamp_of(&seen.info) } else { None };
            files.push(File { seen, stamp, key: i64::MIN, blocks: None, block: Block::default() });
        }
        Self { files, heads, max_line, out: Batch::default(), to, used }
    }

    /// Passes everything on.
    pub(super) fn run(mut self) -> Result<(), Gone> {
        while let Some(Reverse((_, source))) = self.heads.pop() {
            if self.files[source].blocks.is_none() {
                match self.files[source].seen.open() {
                    Ok(stream) => self.files[source].blocks = Some(Blocks::new(stream, self.max_line)),
                    Err(error) => {
                        self.out.runs.push(Run::Failed { source, error });
                        continue;
                    }
                }
            }
            let limit = self.heads.peek().map(|Reverse(head)| *head);
            if let Some(key) = self.pass(source, limit)? {
                self.heads.push(Reverse((key, source)));
            }
        }
        self.flush()
    }

    /// Passes lines of `source` on while they are before `limit`. Returns the key of the line that is not; `None` at the end.
    fn pass(&mut self, source: usize, limit: Option<(i64, usize)>) -> Result<Option<i64>, Gone> {
        loop {
            let file = &mut self.files[source];
            let start = file.block.pos;
            if start < file.block.len {
                let first_line = file.block.line;
                let (end, key) = match limit {
                    Some(limit) => file.scan(source, limit),
                    None => (file.block.len, None),
                };
                self.emit(source, first_line, start, end)?;
                if key.is_some() {
                    return Ok(key);
                }
            }
            if !self.refill(source)? {
                return Ok(None);
            }
        }
    }

    /// Gets the next block of `source`; whether there is one.
    fn refill(&mut self, source: usize) -> Result<bool, Gone> {
        let old = std::mem::take(&mut self.files[source].block.buf);
        let buf = if old.is_empty() { self.used.try_recv().unwrap_or_default() } else { old };
        if self.files[source].blocks.as_ref().is_some_and(Blocks::is_live) {
            // It may be long before more comes.
            self.flush()?;
        }
        let Some(blocks) = &mut self.files[source].blocks else { return Ok(false) };
        match blocks.next(buf) {
            Piece::Lines { buf, len, first_line } => {
                self.files[source].block = Block { buf, pos: 0, len, line: first_line, stamped: false };
                Ok(true)
            }
            Piece::TooLong { line, bytes } => {
                self.files[source].block = Block::default();
                self.out.runs.push(Run::TooLong { source, line, bytes });
                Ok(true)
            }
            Piece::Failed(e) => {
                let info = &self.files[source].seen.info;
                let error = Error::reading(&info.name, info.compression, e);
                self.out.runs.push(Run::Failed { source, error });
                self.close(source);
                Ok(false)
            }
            Piece::End => {
                self.close(source);
                Ok(false)
            }
        }
    }

    fn close(&mut self, source: usize) {
        let file = &mut self.files[source];
        if let Some(blocks) = file.blocks.take() {
            let lines = blocks.lines();
            // What is no file may have no end.
            let drain = file.seen.info.size.is_some();
            let facts = blocks.into_stream().raw.finish(lines, drain);
            self.out.runs.push(Run::Done { source, facts });
        }
    }

    /// Adds `start..end` of the file's block to the batch: the block itself where it is passed on whole.
    fn emit(&mut self, source: usize, first_line: u64, start: usize, end: usize) -> Result<(), Gone> {
        if start == end {
            return Ok(());
        }
        let whole = start == 0 && end == self.files[source].block.len;
        if whole && end >= BLOCK_BYTES / 4 {
            self.flush()?;
            let buf = std::mem::take(&mut self.files[source].block).buf;
            let runs = vec![Run::Lines { source, first_line, start, end }];
            return self.to.send(Batch { buf, runs }).map_err(|_| Gone);
        }
        let out = &mut self.out;
        let block = &mut self.files[source].block;
        let at = out.buf.len();
        out.buf.extend_from_slice(&block.buf[start..end]);
        block.pos = end;
        out.runs.push(Run::Lines { source, first_line, start: at, end: out.buf.len() });
        if out.buf.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Gone> {
        if self.out.runs.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.out);
        if let Ok(mut buf) = self.used.try_recv() {
            buf.clear();
            self.out.buf = buf;
        }
        self.to.send(batch).map_err(|_| Gone)
    }
}

impl File {
    /// The end of the lines in the block whose keys are before `limit`, and the key of the line behind them if it is in
    /// the block.
    fn scan(&mut self, source: usize, limit: (i64, usize)) -> (usize, Option<i64>) {
        let block = &mut self.block;
        let mut pos = block.pos;
        while pos < block.len {
            let rest = &block.buf[pos..block.len];
            let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |i| i + 1);
            if !std::mem::take(&mut block.stamped)
                && let Some(stamp) = &mut self.stamp
                && let Some(ts) = stamp.stamp(trimmed(&rest[..end]))
            {
                self.key = self.key.max(ts.0);
            }
            if (self.key, source) > limit {
                block.stamped = true;
                return (pos, Some(self.key));
            }
            block.line += 1;
            pos += end;
        }
        (pos, None)
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
