//! The same bytes give the same lines, however they are packed, cut or merged.

use std::io::Write;
use std::path::{Path, PathBuf};

use mailfuse::event::Timestamp;
use mailfuse::input::{Compression, Format, Item, Lines, Options, Source, SourceInfo, Spool, Stamp};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use sha2::{Digest, Sha256};

/// Everything that comes out: (source, line number, bytes).
type Seen = Vec<(usize, u64, Vec<u8>)>;

fn read(sources: Vec<Source>, options: &Options) -> (Seen, Lines) {
    let mut lines = Lines::open(sources, options).unwrap_or_else(|e| panic!("{e}"));
    let mut seen = Vec::new();
    while let Some(item) = lines.next() {
        match item {
            Item::Line(line) => seen.push((line.source, line.number, line.bytes.to_vec())),
            Item::TooLong(line) => seen.push((line.source, line.number, format!("too long {}", line.bytes).into())),
            Item::Failed { error, .. } => panic!("{error}"),
        }
    }
    (seen, lines)
}

fn texts(seen: &Seen) -> Vec<&[u8]> {
    seen.iter().map(|(_, _, bytes)| bytes.as_slice()).collect()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(Vec::new(), 1);
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Events with a text each, in the order of time; some of them longer than a block.
fn events(n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    for i in 0..n {
        let len = match i % 1000 {
            777 => 300_000,
            _ => (i * 37 % 400) as usize,
        };
        let pad = "x".repeat(len);
        writeln!(out, r#"{{"v":1,"kind":"none","n":{i},"ts":{},"pad":"{pad}"}}"#, 1_700_000_000 + i / 3).unwrap();
    }
    out
}

/// Cuts at line ends into about equal pieces.
fn cut(text: &[u8], pieces: usize) -> Vec<&[u8]> {
    let mut out = Vec::new();
    let mut start = 0;
    for i in 1..=pieces {
        let at = (text.len() * i / pieces).max(start);
        let end = memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |i| at + i + 1);
        out.push(&text[start..end]);
        start = end;
    }
    out
}

#[test]
fn plain_compressed_and_cut_in_five_give_the_same_lines() {
    let dir = tempfile::tempdir().unwrap();
    let text = events(5000);
    let plain = write(dir.path(), "events.jsonl", &text);
    let (expected, _) = read(vec![Source::path(&plain)], &Options::default());
    assert_eq!(texts(&expected), text.split(|&b| b == b'\n').filter(|l| !l.is_empty()).collect::<Vec<_>>());
    assert_eq!(expected.iter().map(|(_, n, _)| *n).collect::<Vec<_>>(), (1..=5000).collect::<Vec<_>>());

    type Pack = fn(&[u8]) -> Vec<u8>;
    let packs: [(Compression, Pack); 5] = [
        (Compression::None, |b| b.to_vec()),
        (Compression::Gzip, gzip),
        (Compression::Zstd, zstd),
        (Compression::Xz, xz),
        (Compression::Bzip2, bzip2),
    ];
    for (compression, pack) in packs {
        // One file of one member, and one of several.
        let members: Vec<u8> = cut(&text, 3).into_iter().flat_map(pack).collect();
        for packed in [pack(&text), members] {
            let path = write(dir.path(), "packed", &packed);
            let (seen, lines) = read(vec![Source::path(&path)], &Options::default());
            assert_eq!(lines.sources()[0].compression, compression);
            assert!(seen == expected, "{compression}");
        }
        let pieces = cut(&text, 5);
        let sources = |order: &[usize]| -> Vec<Source> {
            order.iter().map(|&i| Source::path(write(dir.path(), &format!("piece.{i}"), &pack(pieces[i])))).collect()
        };
        let (seen, _) = read(sources(&[0, 1, 2, 3, 4]), &Options::default());
        assert!(texts(&seen) == texts(&expected), "{compression}, cut in five");
    }
    // Rotated files come youngest first from the shell; cut between different stamps the order does not matter.
    let at: Vec<usize> = [900, 1800, 2700, 3600].iter().map(|n| line_start(&text, *n)).collect();
    let pieces = [&text[..at[0]], &text[at[0]..at[1]], &text[at[1]..at[2]], &text[at[2]..at[3]], &text[at[3]..]];
    let sources = [4, 2, 0, 1, 3].map(|i: usize| Source::path(write(dir.path(), &format!("log.{i}"), pieces[i])));
    let (seen, _) = read(sources.into(), &Options::default());
    assert!(texts(&seen) == texts(&expected));
}

fn line_start(text: &[u8], line: usize) -> usize {
    memchr::memchr_iter(b'\n', text).nth(line - 1).unwrap() + 1
}

#[test]
fn facts_are_those_of_the_stored_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let text = events(3000);
    let packed = gzip(&text);
    let options = Options { hash: true, ..Options::default() };
    let sources = vec![
        Source::path(write(dir.path(), "a", &text)),
        Source::path(write(dir.path(), "b.gz", &packed)),
        Source::reader("stream", std::io::Cursor::new(packed.clone())),
        Source::path(write(dir.path(), "empty", b"")),
    ];
    let (_, lines) = read(sources, &options);
    for (i, bytes) in [&text, &packed, &packed, &Vec::new()].into_iter().enumerate() {
        let facts = lines.facts(i);
        assert_eq!(facts.bytes, bytes.len() as u64, "{i}");
        assert_eq!(facts.sha256, Some(Sha256::digest(bytes).into()), "{i}");
        assert_eq!(facts.lines, if i == 3 { 0 } else { 3000 });
    }
    let read = text.len() as u64 + 2 * packed.len() as u64;
    assert_eq!(lines.progress().read(), read);
    assert_eq!(lines.progress().total, None, "one of them is a stream");
}

#[test]
fn line_ends_of_all_kinds() {
    let check = |text: &[u8], expected: &[(u64, &str)]| {
        let options = Options { format: Some(Format::Events), ..Options::default() };
        let (seen, lines) = read(vec![Source::reader("x", std::io::Cursor::new(text.to_vec()))], &options);
        let seen: Vec<(u64, &str)> = seen.iter().map(|(_, n, b)| (*n, std::str::from_utf8(b).unwrap())).collect();
        assert_eq!(seen, expected);
        assert_eq!(lines.place(0, 7).to_string(), "x:7");
    };
    check(b"", &[]);
    check(b"\n", &[]);
    check(b"a", &[(1, "a")]);
    check(b"a\nb", &[(1, "a"), (2, "b")]);
    check(b"a\r\n\r\nb\r\n", &[(1, "a"), (3, "b")]);
    check(b"\n\na\rb\n", &[(3, "a\rb")]);
    check(b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", &[(1, "a"), (2, "\u{feff}b")]);
    check(b"\xef\xbb\xbf", &[]);
    check(b"\xef\xbb\xbf\na", &[(2, "a")]);
}

/// Gives one byte at a time, as a slow pipe may.
struct Drops(std::io::Cursor<Vec<u8>>);

impl std::io::Read for Drops {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = buf.len().min(1);
        self.0.read(&mut buf[..n])
    }
}

#[test]
fn a_slow_stream_gives_the_same_lines() {
    let text = events(300);
    let (expected, _) = read(vec![Source::reader("x", std::io::Cursor::new(text.clone()))], &Options::default());
    for packed in [text.clone(), gzip(&text)] {
        let (seen, _) = read(vec![Source::reader("x", Drops(std::io::Cursor::new(packed)))], &Options::default());
        assert!(seen == expected);
    }
}

#[test]
fn a_spooled_stream_can_be_read_twice() {
    let text = events(100);
    let spool = Spool::copy("standard input", &mut &text[..]).unwrap();
    for _ in 0..2 {
        let (seen, lines) = read(vec![spool.source()], &Options::default());
        assert_eq!(seen.len(), 100);
        assert_eq!(&*lines.sources()[0].name, "standard input");
    }
}

#[test]
fn a_line_at_the_bound_passes_and_one_byte_more_does_not() {
    let dir = tempfile::tempdir().unwrap();
    for (max, end) in [(10, "\n"), (10, "\r\n"), (300_000, "\n"), (300_000, "\r\n"), (262_144, "\n"), (262_143, "\r\n")]
    {
        let line = |len: usize| "y".repeat(len) + end;
        let text = ["{}\n", &line(max), &line(max + 1), "{}\n", &line(max)].concat();
        let options = Options { max_line_bytes: max, ..Options::default() };
        let cr = end.len() - 1;
        let expected = [
            (1, b"{}".to_vec()),
            (2, vec![b'y'; max]),
            (3, format!("too long {}", max + 1 + cr).into()),
            (4, b"{}".to_vec()),
            (5, vec![b'y'; max]),
        ];
        let sources = [
            Source::path(write(dir.path(), "x", text.as_bytes())),
            Source::reader("x", Drops(std::io::Cursor::new(text.into_bytes()))),
        ];
        for source in sources {
            let (seen, lines) = read(vec![source], &options);
            let got: Vec<(u64, Vec<u8>)> = seen.into_iter().map(|(_, n, b)| (n, b)).collect();
            assert!(got == expected, "{max} {end:?}");
            assert_eq!(lines.facts(0).lines, 5);
        }
    }
}

// --- Merge ------------------------------------------------------------------------------------------------------------

/// Stamp of a test line: the digits before the blank.
fn stamp(line: &[u8]) -> Option<Timestamp> {
    let digits = line.split(|&b| b == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(Timestamp)
}

fn by_digits() -> Options {
    let make = |_: &SourceInfo| -> Box<dyn Stamp> { Box::new(stamp) };
    Options { format: Some(Format::Postfix), ..Options::default() }.stamp_with(make)
}

/// The rule, literally: of the files' next lines the one with the smallest key, by file order; the key is the running
/// maximum.
fn naive(files: &[Vec<String>]) -> Vec<String> {
    let mut next = vec![0; files.len()];
    let mut keys = vec![i64::MIN; files.len()];
    let mut out = Vec::new();
    loop {
        let head = |i: usize| -> Option<(i64, usize)> {
            let line = files[i].get(next[i])?;
            Some((stamp(line.as_bytes()).map_or(keys[i], |t| t.0.max(keys[i])), i))
        };
        let Some((key, i)) = (0..files.len()).filter_map(head).min() else { return out };
        out.push(files[i][next[i]].clone());
        keys[i] = key;
        next[i] += 1;
    }
}

fn merged(files: &[Vec<String>], from: impl Fn(usize, String) -> Source) -> Vec<String> {
    let sources =
        files.iter().enumerate().map(|(i, f)| from(i, f.iter().map(|l| l.clone() + "\n").collect())).collect();
    let (seen, _) = read(sources, &by_digits());
    seen.into_iter().map(|(_, _, b)| String::from_utf8(b).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn merge_follows_the_rule(
        files in prop::collection::vec(prop::collection::vec((0..40_i64, any::<bool>(), 0..9_usize), 0..30), 0..6),
        sorted in any::<bool>(),
    ) {
        let files: Vec<Vec<String>> = files.into_iter().enumerate().map(|(f, mut lines)| {
            if sorted {
                lines.sort();
            }
            lines.into_iter().enumerate().map(|(i, (ts, stamped, pad))| {
                let stamp = if stamped { format!("{ts} ") } else { String::new() };
                format!("{stamp}f{f} n{i} {}", "p".repeat(pad))
            }).collect()
        }).collect();
        let dir = tempfile::tempdir().unwrap();
        let expected = naive(&files);
        let seen = merged(&files, |i, text| Source::path(write(dir.path(), &i.to_string(), text.as_bytes())));
        prop_assert_eq!(&seen, &expected);
        let seen = merged(&files, |_, text| Source::reader("stream", std::io::Cursor::new(text)));
        prop_assert_eq!(&seen, &expected);
    }
}

#[test]
fn merge_of_files_longer_than_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<Vec<String>> = (0..3)
        .map(|f| {
            (0..9000).map(|i: i64| format!("{} f{f} {}", i / (f + 1) * (f + 2), "p".repeat(i as usize % 200))).collect()
        })
        .collect();
    let seen = merged(&files, |i, text| Source::path(write(dir.path(), &i.to_string(), &gzip(text.as_bytes()))));
    assert!(seen == naive(&files));
}

#[test]
fn a_stamper_sees_each_line_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let text = |f: usize| -> String { (0..5000).map(|i| format!("{} {f} {}\n", i / 7, "p".repeat(i % 300))).collect() };
    let sources = (0..2).map(|f| Source::path(write(dir.path(), &f.to_string(), text(f).as_bytes()))).collect();
    let make = |_: &SourceInfo| -> Box<dyn Stamp> {
        let mut next = 0;
        Box::new(move |line: &[u8]| {
            let ts = stamp(line);
            let pad = line.iter().filter(|&&b| b == b'p').count() as i64;
            assert_eq!((ts, pad), (Some(Timestamp(next / 7)), next % 300));
            next += 1;
            ts
        })
    };
    let options = Options { format: Some(Format::Postfix), ..Options::default() }.stamp_with(make);
    assert_eq!(read(sources, &options).0.len(), 10_000);
}

#[test]
fn a_rotated_set_is_not_open_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let sources: Vec<Source> = (0..600)
        .rev()
        .map(|i| Source::path(write(dir.path(), &format!("{i}"), format!("{i} a\n{i} b\n").as_bytes())))
        .collect();
    let open_files = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let before = open_files();
    let mut lines = Lines::open(sources, &by_digits()).unwrap();
    let mut n = 0;
    let mut most = 0;
    while let Some(item) = lines.next() {
        let Item::Line(line) = item else { panic!() };
        assert_eq!(line.bytes, format!("{} {}", n / 2, ["a", "b"][n % 2]).as_bytes());
        n += 1;
        most = most.max(open_files());
    }
    assert_eq!(n, 1200);
    // Other tests of this program open files meanwhile.
    assert!(most < before + 100, "{most} files open");
}
