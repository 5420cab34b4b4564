//! One source: opened, measured, decompressed by what its bytes say.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::detect::{Format, Found, MAGIC_BYTES, packed, search};
use super::error::Error;

/// Compressed bytes read at once.
const RAW_BYTES: usize = 128 << 10;
/// Decompressed bytes that a format is looked for in.
const HEAD_BYTES: usize = 64 << 10;
/// Windows that zstd and xz may ask for. `xz -9` needs 65 MiB, zstd without `--long` at most 8 MiB, with it 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const XZ_MEMORY_MAX: u64 = 160 << 20;

/// A source of lines: a file, or standard input.
pub struct Source {
    name: Arc<str>,
    from: Origin,
}

enum Origin {
    Stdin,
    Path(PathBuf),
    Reader(Box<dyn Read + Send>),
}

impl Source {
    /// A file by its path; `-` is standard input.
    pub fn path(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        if path.as_os_str() == "-" {
            return Self { name: "standard input".into(), from: Origin::Stdin };
        }
        Self { name: path.to_string_lossy().into(), from: Origin::Path(path.to_owned()) }
    }

    /// A file under another name than its path.
    pub fn named(name: impl Into<Arc<str>>, path: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), from: Origin::Path(path.into()) }
    }

    /// Anything that can be read, once.
    pub fn reader(name: impl Into<Arc<str>>, reader: impl Read + Send + 'static) -> Self {
        Self { name: name.into(), from: Origin::Reader(Box::new(reader)) }
    }
}

/// How a source is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Their names say it.
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
        })
    }
}

impl Compression {
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one of the skippable frames that parallel compressors put first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31 | 0x17, ..] => Self::Bzip2,
            _ => Self::None,
        }
    }
}

/// What is known of a source before its lines are read.
#[derive(Debug, Clone)]
pub struct SourceInfo {
    /// As the user named it.
    pub name: Arc<str>,
    /// Where it is, for files.
    pub path: Option<PathBuf>,
    /// Last change, for files.
    pub modified: Option<SystemTime>,
    /// Bytes on disk, for files.
    pub size: Option<u64>,
    /// How it is compressed.
    pub compression: Compression,
    /// What its lines are; `None` where it is empty, or broken before its first line.
    pub format: Option<Format>,
}

/// What is known of a source once its lines are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Bytes, as stored.
    pub bytes: u64,
    /// SHA-256 of these bytes, where it was asked for and all of them could be read.
    pub sha256: Option<[u8; 32]>,
    /// Lines, empty ones and too long ones among them.
    pub lines: u64,
}

/// What the raw bytes pass through: counted, hashed. Shared, because the decompressor owns the reader.
#[derive(Clone)]
pub(super) struct Raw {
    shared: Arc<Mutex<RawState>>,
    progress: Arc<AtomicU64>,
}

struct RawState {
    reader: Box<dyn Read + Send>,
    bytes: u64,
    sha256: Option<Sha256>,
    ended: bool,
}

impl Raw {
    fn new(reader: Box<dyn Read + Send>, hash: bool, progress: Arc<AtomicU64>) -> Self {
        let state = RawState { reader, bytes: 0, sha256: hash.then(Sha256::new), ended: false };
        Self { shared: Arc::new(Mutex::new(state)), progress }
    }

    /// Reads what the decompressor left, so that size and hash are those of the whole file.
    pub(super) fn finish(mut self, lines: u64, drain: bool) -> Facts {
        if drain {
            let mut rest = vec![0; RAW_BYTES];
            while matches!(self.read(&mut rest), Ok(1..)) {}
        }
        let mut state = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let sha256 = state.sha256.take().filter(|_| state.ended).map(|sha| sha.finalize().into());
        Facts { bytes: state.bytes, sha256, lines }
    }
}

impl Read for Raw {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let n = state.reader.read(buf)?;
        state.bytes += n as u64;
        state.ended = n == 0;
        if let Some(sha) = &mut state.sha256 {
            sha.update(&buf[..n]);
        }
        self.progress.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A source whose lines can be read now.
pub(super) struct Stream {
    pub reader: Box<dyn Read + Send>,
    pub raw: Raw,
    /// It may pause, as a pipe does: what has come must not wait for more.
    pub live: bool,
}

/// A source that was looked at: what it is, and how to get at its lines.
pub(super) struct Seen {
    pub info: SourceInfo,
    /// Its first line, where the look reached that line's end.
    pub first_line: Option<Vec<u8>>,
    /// Kept open where it cannot be opened twice.
    stream: Option<Stream>,
    hash: bool,
    progress: Arc<AtomicU64>,
}

impl Seen {
    /// Looks at a source: what it is and which format it has.
    pub(super) fn look(
        source: Source,
        forced: Option<Format>,
        hash: bool,
        progress: &Arc<AtomicU64>,
    ) -> Result<Self, Error> {
        let Source { name, from } = source;
        let mut info =
            SourceInfo { name, path: None, modified: None, size: None, compression: Compression::None, format: None };
        let (reader, again): (Box<dyn Read + Send>, bool) = match from {
            Origin::Stdin => (Box::new(io::stdin()), false),
            Origin::Reader(reader) => (reader, false),
            Origin::Path(path) => open_file(path, &mut info)?,
        };
        // The look is counted and hashed only where it is also the read.
        let count = if again { Arc::default() } else { Arc::clone(progress) };
        let (mut stream, compression) = decompressed(reader, &info.name, hash && !again, count)?;
        info.compression = compression;
        let (mut head, failed) = read_head(&mut *stream.reader, forced.is_some());
        info.format = format_of(&info.name, &head, forced)?;
        let first_line = memchr::memchr(b'\n', &head).map(|end| head[..end].to_vec());
        let stream = (!again).then(|| {
            head.shrink_to_fit();
            let Stream { reader, raw, .. } = stream;
            Stream { reader: Box::new(Rejoined { head: Cursor::new(head), failed, rest: reader }), raw, live: true }
        });
        Ok(Self { info, first_line, stream, hash, progress: Arc::clone(progress) })
    }

    /// Opens the source for reading; standard input, which is open already, once.
    pub(super) fn open(&mut self) -> Result<Stream, Error> {
        if let Some(stream) = self.stream.take() {
            return Ok(stream);
        }
        let path = self.info.path.as_deref().unwrap_or(Path::new(""));
        let file = File::open(path).map_err(|e| Error::opening(&self.info.name, e))?;
        let (stream, _) = decompressed(Box::new(file), &self.info.name, self.hash, Arc::clone(&self.progress))?;
        Ok(stream)
    }
}

fn open_file(path: PathBuf, info: &mut SourceInfo) -> Result<(Box<dyn Read + Send>, bool), Error> {
    let opening = |e| Error::opening(&info.name, e);
    let file = File::open(&path).map_err(opening)?;
    let meta = file.metadata().map_err(opening)?;
    if meta.is_dir() {
        return Err(Error::Directory { name: Arc::clone(&info.name) });
    }
    // A named pipe, or the shell's `<(…)`, gives its bytes once.
    let again = meta.is_file();
    info.path = Some(path);
    info.modified = meta.modified().ok().filter(|_| again);
    info.size = again.then_some(meta.len());
    Ok((Box::new(file), again))
}

/// Puts the right decompressor over `reader`.
fn decompressed(
    reader: Box<dyn Read + Send>,
    name: &Arc<str>,
    hash: bool,
    progress: Arc<AtomicU64>,
) -> Result<(Stream, Compression), Error> {
    let mut raw = Raw::new(reader, hash, progress);
    let mut head = Vec::with_capacity(MAGIC_BYTES);
    let read = raw.by_ref().take(MAGIC_BYTES as u64).read_to_end(&mut head);
    let failed = read.err();
    let compression = Compression::of(&head);
    if let Some((what, cure)) = packed(&head) {
        return Err(Error::Packed { name: Arc::clone(name), what, cure });
    }
    let start = Rejoined { head: Cursor::new(head), failed, rest: Box::new(raw.clone()) };
    let reader = decoder(compression, start).map_err(|e| Error::reading(name, compression, e))?;
    Ok((Stream { reader, raw, live: false }, compression))
}

fn decoder(compression: Compression, start: Rejoined) -> io::Result<Box<dyn Read + Send>> {
    let buffered = |start| BufReader::with_capacity(RAW_BYTES, start);
    Ok(match compression {
        Compression::None => Box::new(start),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(buffered(start))),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(buffered(start))),
        Compression::Zstd => {
            let mut zstd = zstd::stream::read::Decoder::with_buffer(buffered(start))?;
            zstd.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(zstd)
        }
        Compression::Xz => {
            let xz = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, liblzma::stream::CONCATENATED)
                .map_err(io::Error::other)?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(buffered(start), xz))
        }
    })
}

/// The first bytes, read already, before the rest; and the error that ended them, in its place.
struct Rejoined {
    head: Cursor<Vec<u8>>,
    failed: Option<io::Error>,
    rest: Box<dyn Read + Send>,
}

impl Read for Rejoined {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.head.read(buf)? {
            0 => match self.failed.take() {
                Some(e) => Err(e),
                None => self.rest.read(buf),
            },
            n => Ok(n),
        }
    }
}

/// Reads until the format is clear, or as far as a look goes.
fn read_head(reader: &mut dyn Read, forced: bool) -> (Vec<u8>, Option<io::Error>) {
    let mut head = vec![0; HEAD_BYTES];
    let mut filled = 0;
    let mut failed = None;
    while filled < head.len() {
        match reader.read(&mut head[filled..]) {
            Ok(0) => break,
            Ok(n) => {
                filled += n;
                // Somebody may be typing: no more than needed.
                let whole_lines = memchr::memrchr(b'\n', &head[..filled]).map_or(0, |end| end + 1);
                let enough = filled >= MAGIC_BYTES && whole_lines > 0;
                if enough && (forced || matches!(search(&head[..whole_lines]).found, Found::Format(_))) {
                    break;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    head.truncate(filled);
    (head, failed)
}

fn format_of(name: &Arc<str>, head: &[u8], forced: Option<Format>) -> Result<Option<Format>, Error> {
    if head.is_empty() {
        return Ok(forced);
    }
    if let Some((what, cure)) = packed(head) {
        return Err(Error::Packed { name: Arc::clone(name), what, cure });
    }
    let seen = search(head);
    match seen.found {
        Found::NotText(what) => Err(Error::NotText { name: Arc::clone(name), what }),
        _ if forced.is_some() => Ok(forced),
        Found::Format(format) => Ok(Some(format)),
        Found::Nothing if seen.lines == 0 => Ok(None),
        Found::Nothing => {
            let syslog =
                if seen.syslog { "syslog lines, but none of Postfix" } else { "neither JSON nor syslog lines" };
            Err(Error::UnknownFormat { name: Arc::clone(name), lines: seen.lines, syslog })
        }
    }
}
