//! What can be wrong with a file, in words that name the cure.

use std::io;
use std::sync::Arc;

use super::open::Compression;

/// What is wrong with a file. Shown with its causes (`{:#}` of anyhow).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such file.
    #[error("{name}: no such file")]
    Missing {
        /// The file.
        name: Arc<str>,
    },
    /// A directory.
    #[error("{name} is a directory: name the files in it, as in {name}/*")]
    Directory {
        /// The directory.
        name: Arc<str>,
    },
    /// The file may not be read.
    #[error("{name}: permission denied: run this as a user who may read it (mail logs often belong to group adm)")]
    Denied {
        /// The file.
        name: Arc<str>,
    },
    /// Reading failed.
    #[error("{name}: cannot be read")]
    Read {
        /// The file.
        name: Arc<str>,
        /// What the system says.
        source: io::Error,
    },
    /// The compressed data ends too early.
    #[error(
        "{name}: the {compression} data ends too early: the copy is incomplete. Every whole line before the end was used"
    )]
    Truncated {
        /// The file.
        name: Arc<str>,
        /// How it is compressed.
        compression: Compression,
    },
    /// The compressed data is damaged, or needs more memory than is granted.
    #[error("{name}: the {compression} data cannot be read on. Every whole line before this point was used")]
    Damaged {
        /// The file.
        name: Arc<str>,
        /// How it is compressed.
        compression: Compression,
        /// What the decompressor says.
        source: io::Error,
    },
    /// Data, but no text.
    #[error("{name} is not a log: it looks like {what}")]
    NotText {
        /// The file.
        name: Arc<str>,
        /// What it looks like.
        what: &'static str,
    },
    /// A compression or an archive that is not read.
    #[error("{name} is {what}, which is not read: unpack it first, as in {cure} {name} | mailfuse replay -")]
    Packed {
        /// The file.
        name: Arc<str>,
        /// What it is.
        what: &'static str,
        /// The command that writes its content to standard output.
        cure: &'static str,
    },
    /// Text of no known format.
    #[error(
        "{name}: format not recognised in its first {lines} lines: {syslog}. Tried: events (one JSON object a line), \
         postfix (syslog lines). Name it with --format"
    )]
    UnknownFormat {
        /// The file.
        name: Arc<str>,
        /// Lines that were looked at.
        lines: usize,
        /// What was seen.
        syslog: &'static str,
    },
}

impl Error {
    /// The file's name.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Missing { name }
            | Self::Directory { name }
            | Self::Denied { name }
            | Self::Read { name, .. }
            | Self::Truncated { name, .. }
            | Self::Damaged { name, .. }
            | Self::NotText { name, .. }
            | Self::Packed { name, .. }
            | Self::UnknownFormat { name, .. } => name,
        }
    }

    /// From the attempt to open a file.
    pub(super) fn opening(name: &Arc<str>, e: io::Error) -> Self {
        let name = Arc::clone(name);
        match e.kind() {
            io::ErrorKind::NotFound => Self::Missing { name },
            io::ErrorKind::PermissionDenied => Self::Denied { name },
            io::ErrorKind::IsADirectory => Self::Directory { name },
            _ => Self::Read { name, source: e },
        }
    }

    /// From reading on.
    pub(super) fn reading(name: &Arc<str>, compression: Compression, e: io::Error) -> Self {
        let name = Arc::clone(name);
        match (compression, e.kind()) {
            (Compression::None, _) => Self::Read { name, source: e },
            (_, io::ErrorKind::UnexpectedEof) => Self::Truncated { name, compression },
            // What comes from the system has a number; what the decompressor says has none.
            _ if e.raw_os_error().is_some() => Self::Read { name, source: e },
            _ => Self::Damaged { name, compression, source: e },
        }
    }
}
