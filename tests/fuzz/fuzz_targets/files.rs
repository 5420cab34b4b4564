//! Any bytes as files: no panic, no hang, and the same lines whatever the sizes of the reads.

#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use mailfuse::input::{Format, Item, Lines, Options, Source};

/// Gives few bytes at a time.
struct Slow(Cursor<Vec<u8>>, usize);

impl Read for Slow {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = buf.len().min(self.1);
        self.0.read(&mut buf[..n])
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let whole = read(vec![Source::reader("a", Cursor::new(bytes.to_vec()))], step);
    let slow = read(vec![Source::reader("a", Slow(Cursor::new(bytes.to_vec()), 1 + usize::from(step & 7)))], step);
    assert_eq!(whole, slow);
    let (a, b) = bytes.split_at(bytes.len() / 2);
    let two = [a, b].map(|half| Source::reader("half", Cursor::new(half.to_vec())));
    read(two.into(), step);
});

type Seen = Vec<(usize, u64, Vec<u8>)>;

fn read(sources: Vec<Source>, step: u8) -> Option<Seen> {
    let format = (step & 8 != 0).then_some(Format::Events);
    let options = Options { format, max_line_bytes: 64, hash: step & 16 != 0, ..Options::default() };
    let mut lines = Lines::open(sources, &options).ok()?;
    let mut seen = Seen::new();
    let mut failed = false;
    while let Some(item) = lines.next() {
        match item {
            Item::Line(line) => {
                assert!(!line.bytes.is_empty() && line.bytes.len() <= 64 && !line.bytes.contains(&b'\n'));
                seen.push((line.source, line.number, line.bytes.to_vec()));
            }
            Item::TooLong(line) => {
                assert!(line.bytes > 64);
                seen.push((line.source, line.number, line.bytes.to_string().into()));
            }
            // How much a decompressor gives out before it fails depends on the sizes of the reads. The rest is read all the
            // same: only then has the reading thread ended, and the leak checker nothing to find in it.
            Item::Failed { .. } => failed = true,
        }
    }
    (!failed).then_some(seen)
}
