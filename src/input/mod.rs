//! Files and standard input: decompressed, told apart by content, cut into lines, merged by time.
//!
//! [`Lines`] is the whole of it: a thread reads, decompresses and merges; the caller's thread takes line by line, borrowed
//! from the blocks that the other one filled.
//!
//! Invariants:
//! * The same bytes give the same items: plain or compressed, in one file or cut at line ends into several.
//! * Within a file, lines keep their order. Across files the smallest stamp goes first, ties by the order of the files.
//! * Memory is bounded by the longest line allowed, some blocks, and per open file what its decompressor needs (at most
//!   128 MiB, where a file was compressed with such a window). A file is open only while its lines are due.
//! * Nothing is lost silently: lines that are too long, and files that break off, are items in their place.

mod blocks;
mod detect;
mod error;
mod lines;
mod merge;
mod open;
mod spool;

use std::fmt;
use std::sync::Arc;

pub use detect::Format;
pub use error::Error;
pub use lines::{Chunk, Item, Line, Lines, LinesOf, Options, Progress, TooLong};
pub use merge::Stamp;
pub use open::{Compression, Facts, Source, SourceInfo};
pub use spool::Spool;

/// Where a record stood.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The file as the user named it.
    pub source: Arc<str>,
    /// The line, from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.line)
    }
}
