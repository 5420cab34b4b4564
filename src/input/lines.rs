//! The caller's side: line by line, from blocks that another thread fills.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use super::Place;
use super::blocks::BLOCK_BYTES;
use super::detect::Format;
use super::error::Error;
use super::merge::{Batch, Merge, Run, Stamp, Stampers};
use super::open::{Facts, Seen, Source, SourceInfo};

/// Batches on their way. More would only fill the cache.
const BATCHES: usize = 3;

/// How sources are read.
#[derive(Clone)]
pub struct Options {
    /// What the lines are; `None`: told from the content of each source.
    pub format: Option<Format>,
    /// Longest line, without its end.
    pub max_line_bytes: usize,
    /// Whether to compute the SHA-256 of each source.
    pub hash: bool,
    /// Makes the [`Stamp`] of a source of syslog lines, for the merge of several. Without one such sources follow each
    /// other in their order. Events need none.
    pub stampers: Option<Stampers>,
}

impl Default for Options {
    fn default() -> Self {
        let max_line_bytes = crate::event::Limits::default().max_line_bytes;
        Self { format: None, max_line_bytes, hash: false, stampers: None }
    }
}

impl Options {
    /// Sets how sources of syslog lines are stamped.
    #[must_use]
    pub fn stamp_with(mut self, make: impl Fn(&SourceInfo) -> Box<dyn Stamp> + Send + Sync + 'static) -> Self {
        self.stampers = Some(Arc::new(make));
        self
    }
}

/// What comes next.
#[derive(Debug)]
pub enum Item<'a> {
    /// A line.
    Line(Line<'a>),
    /// A line over the bound: to be counted as a reject.
    TooLong(TooLong),
    /// A source broke off here. Other sources go on; the program should end with a failure after the last item.
    Failed {
        /// Index of the source.
        source: usize,
        /// What happened.
        error: Error,
    },
}

/// What comes next, many lines at once.
#[derive(Debug)]
pub enum Chunk<'a> {
    /// Lines of one source.
    Lines(LinesOf<'a>),
    /// As [`Item::TooLong`].
    TooLong(TooLong),
    /// As [`Item::Failed`].
    Failed {
        /// Index of the source.
        source: usize,
        /// What happened.
        error: Error,
    },
}

/// Lines of one source that follow each other; one over the bound is an error in its place.
#[derive(Debug, Clone)]
pub struct LinesOf<'a> {
    source: usize,
    number: u64,
    rest: &'a [u8],
    max_line: usize,
}

impl LinesOf<'_> {
    /// Index of the source.
    pub fn source(&self) -> usize {
        self.source
    }

    /// Bytes that are left.
    pub fn bytes(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for LinesOf<'a> {
    type Item = Result<Line<'a>, TooLong>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let (line, rest, len) = first_line(self.rest);
            let (source, number) = (self.source, self.number);
            self.rest = rest;
            self.number += 1;
            if line.len() > self.max_line {
                return Some(Err(TooLong { source, number, bytes: len as u64 }));
            }
            if !line.is_empty() {
                return Some(Ok(Line { source, number, bytes: line }));
            }
        }
        None
    }
}

/// The first line without its end, what follows it, and its length with a carriage return.
fn first_line(text: &[u8]) -> (&[u8], &[u8], usize) {
    let len = memchr::memchr(b'\n', text).unwrap_or(text.len());
    let trimmed = len - usize::from(text[..len].last() == Some(&b'\r'));
    (&text[..trimmed], &text[(len + 1).min(text.len())..], len)
}

/// A line that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Index of the source.
    pub source: usize,
    /// Number of the line in its source, from 1.
    pub number: u64,
    /// The line without its end (`\n` or `\r\n`).
    pub bytes: &'a [u8],
}

/// A line over the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong {
    /// Index of the source.
    pub source: usize,
    /// Number of the line in its source, from 1.
    pub number: u64,
    /// How long it is.
    pub bytes: u64,
}

/// How far the reading thread is, for a progress bar.
#[derive(Debug, Clone)]
pub struct Progress {
    read: Arc<AtomicU64>,
    /// Bytes of all sources as stored; `None` where one of them is a stream.
    pub total: Option<u64>,
}

impl Progress {
    /// Bytes read so far, as stored (compressed).
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// The lines of all sources, merged by time.
///
/// # Examples
/// ```
/// use mailfuse::input::{Item, Lines, Options, Source};
///
/// let text = "{\"v\":1}\n\n{\"v\":2}\n".as_bytes();
/// let mut lines = Lines::open(vec![Source::reader("a.jsonl", text)], &Options::default())?;
/// let mut seen = Vec::new();
/// while let Some(item) = lines.next() {
///     match item {
///         Item::Line(line) => seen.push((line.number, line.bytes.to_vec())),
///         Item::TooLong(line) => eprintln!("{}: too long", lines.place(line.source, line.number)),
///         Item::Failed { error, .. } => eprintln!("{error}"),
///     }
/// }
/// assert_eq!(seen, [(1, b"{\"v\":1}".to_vec()), (3, b"{\"v\":2}".to_vec())]);
/// assert_eq!(lines.facts(0).lines, 3);
/// # Ok::<(), mailfuse::input::Error>(())
/// ```
pub struct Lines {
    infos: Vec<SourceInfo>,
    facts: Vec<Facts>,
    progress: Progress,
    max_line: usize,
    from: Receiver<Batch>,
    /// Where blocks go to be filled again; `None` once the reader has ended.
    used: Sender<Vec<u8>>,
    reader: Option<JoinHandle<()>>,
    batch: Batch,
    /// The run that is next in `batch`.
    run: usize,
    /// What is left of the run before it.
    left: Left,
}

#[derive(Default)]
struct Left {
    source: usize,
    number: u64,
    start: usize,
    end: usize,
}

/// What stands between two runs of lines.
enum Between {
    TooLong(TooLong),
    Failed { source: usize, error: Error },
}

impl Lines {
    /// Looks at every source, then begins to read.
    ///
    /// # Errors
    /// Where a source is missing, no log, or of no known format: before anything is read, because that is a wrong argument.
    /// What breaks later is an [`Item`].
    pub fn open(sources: Vec<Source>, options: &Options) -> Result<Self, Error> {
        let read = Arc::new(AtomicU64::new(0));
        let looked: Result<Vec<Seen>, Error> =
            sources.into_iter().map(|s| Seen::look(s, options.format, options.hash, &read)).collect();
        let seen = looked?;
        let infos: Vec<SourceInfo> = seen.iter().map(|s| s.info.clone()).collect();
        let total = infos.iter().map(|i| i.size).sum();
        let (to, from) = sync_channel(BATCHES);
        let (used, reuse) = channel();
        let merge = Merge::new(seen, options.stampers.clone(), options.max_line_bytes, to, reuse);
        let reader = Builder::new().name("input".to_owned()).spawn(move || {
            // Where nobody listens any more there is nothing left to do.
            let _ = merge.run();
        });
        let reader = reader.map_err(|source| Error::Read { name: "the reading thread".into(), source })?;
        Ok(Self {
            facts: vec![Facts::default(); infos.len()],
            infos,
            progress: Progress { read, total },
            max_line: options.max_line_bytes,
            from,
            used,
            reader: Some(reader),
            batch: Batch::default(),
            run: 0,
            left: Left::default(),
        })
    }

    /// The next item; `None` at the end of all sources.
    ///
    /// No `Iterator`, because a line is borrowed until the next call.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Item<'_>> {
        let (number, start, end) = loop {
            match self.next_of_run() {
                Some(Ok(line)) => break line,
                Some(Err(too_long)) => return Some(Item::TooLong(too_long)),
                None => {}
            }
            match self.next_run()? {
                None => {}
                Some(Between::TooLong(line)) => return Some(Item::TooLong(line)),
                Some(Between::Failed { source, error }) => return Some(Item::Failed { source, error }),
            }
        };
        Some(Item::Line(Line { source: self.left.source, number, bytes: &self.batch.buf[start..end] }))
    }

    /// What comes next, as [`Lines::next`], but with all lines of a source that follow each other at once: for who wants to
    /// work on several of them. The two can be mixed.
    pub fn next_chunk(&mut self) -> Option<Chunk<'_>> {
        loop {
            if self.left.start < self.left.end {
                let Left { source, number, start, end } = std::mem::take(&mut self.left);
                let rest = &self.batch.buf[start..end];
                return Some(Chunk::Lines(LinesOf { source, number, rest, max_line: self.max_line }));
            }
            match self.next_run()? {
                None => {}
                Some(Between::TooLong(line)) => return Some(Chunk::TooLong(line)),
                Some(Between::Failed { source, error }) => return Some(Chunk::Failed { source, error }),
            }
        }
    }

    /// What is known of the sources, in the order given.
    pub fn sources(&self) -> &[SourceInfo] {
        &self.infos
    }

    /// What reading a source showed; complete once [`Lines::next`] has returned `None`.
    pub fn facts(&self, source: usize) -> &Facts {
        &self.facts[source]
    }

    /// How far reading is; a copy for the thread that draws it.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// The place of a line, for messages.
    pub fn place(&self, source: usize, number: u64) -> Place {
        Place { source: Arc::clone(&self.infos[source].name), line: number }
    }

    /// Number, start and end of the next line of the run.
    fn next_of_run(&mut self) -> Option<Result<(u64, usize, usize), TooLong>> {
        while self.left.start < self.left.end {
            let Left { source, number, start, end } = self.left;
            let (line, rest, len) = first_line(&self.batch.buf[start..end]);
            let trimmed = line.len();
            self.left.start = end - rest.len();
            self.left.number += 1;
            if trimmed > self.max_line {
                return Some(Err(TooLong { source, number, bytes: len as u64 }));
            }
            if trimmed > 0 {
                return Some(Ok((number, start, start + trimmed)));
            }
        }
        None
    }

    /// Goes to the next run. `None`: there is none; `Some(None)`: its lines are next.
    fn next_run(&mut self) -> Option<Option<Between>> {
        if self.run == self.batch.runs.len() {
            self.next_batch()?;
        }
        let run = self.batch.runs.get_mut(self.run)?;
        self.run += 1;
        Some(match std::mem::replace(run, Run::Done { source: 0, facts: Facts::default() }) {
            Run::Lines { source, first_line, start, end } => {
                self.left = Left { source, number: first_line, start, end };
                None
            }
            Run::TooLong { source, line, bytes } => Some(Between::TooLong(TooLong { source, number: line, bytes })),
            Run::Failed { source, error } => Some(Between::Failed { source, error }),
            Run::Done { source, facts } => {
                self.facts[source] = facts;
                None
            }
        })
    }

    fn next_batch(&mut self) -> Option<()> {
        let used = std::mem::take(&mut self.batch).buf;
        self.run = 0;
        // A block that grew by a long line must not stay.
        if used.capacity() <= 2 * BLOCK_BYTES {
            let _ = self.used.send(used);
        }
        match self.from.recv() {
            Ok(batch) => {
                self.batch = batch;
                Some(())
            }
            Err(_) => {
                // The end, unless the reader died: then the lines are not all, and nobody may think so.
                if let Some(Err(panic)) = self.reader.take().map(JoinHandle::join) {
                    std::panic::resume_unwind(panic);
                }
                None
            }
        }
    }
}
