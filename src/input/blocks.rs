//! A stream cut into blocks of whole lines.

use std::io::{self, Read};

use super::open::Stream;

/// Bytes read before a block is passed on, unless one line is longer.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// What comes next in a stream.
pub(super) enum Piece {
    /// Whole lines: `buf[..len]`. Only the last line of all may lack its line end.
    Lines { buf: Vec<u8>, len: usize, first_line: u64 },
    /// A line over the bound, passed over.
    TooLong { line: u64, bytes: u64 },
    /// The stream broke off; what stood behind the last line end is no line.
    Failed(io::Error),
    /// The end.
    End,
}

/// Cuts a stream into blocks.
pub(super) struct Blocks {
    stream: Stream,
    max_line: usize,
    /// The beginning of a line whose end is in the next block.
    carry: Vec<u8>,
    /// Number of the line that `carry` begins.
    line: u64,
    /// Bytes passed over of a line that is too long.
    skipped: Option<u64>,
    failed: Option<io::Error>,
    started: bool,
    ended: bool,
}

impl Blocks {
    pub(super) fn new(stream: Stream, max_line: usize) -> Self {
        let (carry, line, skipped, failed) = (Vec::new(), 1, None, None);
        Self { stream, max_line, carry, line, skipped, failed, started: false, ended: false }
    }

    /// Lines passed on so far.
    pub(super) fn lines(&self) -> u64 {
        self.line - 1
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    pub(super) fn is_live(&self) -> bool {
        self.stream.live
    }

    /// The next piece. `buf` is any buffer whose memory may be used again; its content does not matter.
    pub(super) fn next(&mut self, mut buf: Vec<u8>) -> Piece {
        if buf.len() < BLOCK_BYTES {
            buf.resize(BLOCK_BYTES, 0);
        }
        if self.skipped.is_some() {
            return self.skip(buf);
        }
        let mut filled = self.carry.len();
        if buf.len() < filled {
            buf.resize(filled + BLOCK_BYTES, 0);
        }
        buf[..filled].copy_from_slice(&self.carry);
        self.carry.clear();
        if self.carry.capacity() > BLOCK_BYTES {
            self.carry = Vec::new();
        }
        // Behind the last line end; what was carried over has none.
        let mut whole = memchr::memrchr(b'\n', &buf[..filled]).map_or(0, |end| end + 1);
        while !(self.ended || self.enough(whole, filled, buf.len())) {
            if whole == 0 && filled > self.max_line.saturating_add(1) {
                self.skipped = Some(filled as u64);
                return self.skip(buf);
            }
            if filled == buf.len() {
                buf.resize((filled * 2).min(self.max_line.saturating_add(2)), 0);
            }
            let n = self.read(&mut buf[filled..]);
            if let Some(end) = memchr::memrchr(b'\n', &buf[filled..filled + n]) {
                whole = filled + end + 1;
            }
            filled += n;
            let mark = self.without_mark(&mut buf, filled);
            filled -= mark;
            whole = whole.saturating_sub(mark);
        }
        self.piece(buf, whole, filled)
    }

    fn enough(&self, whole: usize, filled: usize, room: usize) -> bool {
        whole > 0 && (self.stream.live || filled > room / 2)
    }

    fn piece(&mut self, buf: Vec<u8>, mut whole: usize, filled: usize) -> Piece {
        if self.ended && self.failed.is_none() {
            whole = filled;
        }
        if whole == 0 {
            return self.failed.take().map_or(Piece::End, Piece::Failed);
        }
        self.started = true;
        if !self.ended {
            self.carry.extend_from_slice(&buf[whole..filled]);
        }
        let first_line = self.line;
        let unended = u64::from(buf[whole - 1] != b'\n');
        self.line += memchr::memchr_iter(b'\n', &buf[..whole]).count() as u64 + unended;
        Piece::Lines { buf, len: whole, first_line }
    }

    /// Reads on to the end of a line that is too long.
    fn skip(&mut self, mut buf: Vec<u8>) -> Piece {
        let mut bytes = self.skipped.take().unwrap_or_default();
        // The buffer may have grown by that line.
        buf.truncate(BLOCK_BYTES);
        buf.shrink_to_fit();
        loop {
            let n = self.read(&mut buf);
            if let Some(end) = memchr::memchr(b'\n', &buf[..n]) {
                bytes += end as u64;
                self.carry.extend_from_slice(&buf[end + 1..n]);
                break;
            }
            bytes += n as u64;
            if n == 0 {
                break;
            }
        }
        self.line += 1;
        Piece::TooLong { line: self.line - 1, bytes }
    }

    /// Reads some bytes; at the end, or where reading fails, none.
    fn read(&mut self, into: &mut [u8]) -> usize {
        if self.ended {
            return 0;
        }
        loop {
            match self.stream.reader.read(into) {
                Ok(0) => break,
                Ok(n) => return n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.failed = Some(e);
                    break;
                }
            }
        }
        self.ended = true;
        0
    }

    /// Takes the byte order mark off the beginning of the stream; returns how many bytes that is.
    fn without_mark(&mut self, buf: &mut [u8], filled: usize) -> usize {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        if self.started || filled < MARK.len() {
            return 0;
        }
        self.started = true;
        if !buf[..filled].starts_with(MARK) {
            return 0;
        }
        buf.copy_within(MARK.len()..filled, 0);
        MARK.len()
    }
}
