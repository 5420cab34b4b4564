//! Broken input: a clear message or a counted reject, memory bounded, everything before it kept.

use std::error::Error as _;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use mailfuse::event::{Decoded, Limits, decode};
use mailfuse::input::{Error, Format, Item, Lines, Options, Source};

/// Lines, lines that were too long (number, bytes), errors.
type Outcome = (Vec<Vec<u8>>, Vec<(u64, u64)>, Vec<Error>);

fn read(sources: Vec<Source>, options: &Options) -> Result<Outcome, Error> {
    let mut lines = Lines::open(sources, options)?;
    let mut out = Outcome::default();
    while let Some(item) = lines.next() {
        match item {
            Item::Line(line) => out.0.push(line.bytes.to_vec()),
            Item::TooLong(line) => out.1.push((line.number, line.bytes)),
            Item::Failed { error, .. } => out.2.push(error),
        }
    }
    Ok(out)
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[track_caller]
fn check_refused(path: &Path, expected: &str) {
    let good = write(path.parent().unwrap(), "good.jsonl", b"{}\n");
    for sources in [vec![Source::path(path)], vec![Source::path(&good), Source::path(path)]] {
        let error = read(sources, &Options::default()).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), expected.replace("FILE", path.to_str().unwrap()));
        assert_eq!(&**error.name(), path.to_str().unwrap());
    }
}

/// Bytes without a pattern, the same every time.
fn noise(n: usize) -> Vec<u8> {
    let mut x = 88_172_645_463_325_252_u64;
    let step = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    (0..n).map(step).collect()
}

fn event(n: usize) -> String {
    format!(r#"{{"v":1,"kind":"send","ts":{},"account":"a{n}@example.org","rcpt_count":1}}"#, 1_700_000_000 + n) + "\n"
}

#[test]
fn what_is_no_log_is_refused_before_anything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| write(dir.path(), name, bytes);
    check_refused(&dir.path().join("missing"), "FILE: no such file");
    let sub = dir.path().join("sub");
    std::fs::create_dir(&sub).unwrap();
    check_refused(&sub, "FILE is a directory: name the files in it, as in FILE/*");
    let jpeg = [b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\n".to_vec(), noise(50_000)].concat();
    check_refused(&file("a.jpg", &jpeg), "FILE is not a log: it looks like a JPEG picture");
    check_refused(
        &file("noise", &[vec![b'a'], noise(50_000)].concat()),
        "FILE is not a log: it looks like binary data",
    );
    check_refused(&file("holes", &[0; 5000]), "FILE is not a log: it looks like binary data");
    let tar = [vec![b'x'; 100], vec![0; 157], b"ustar\x0000".to_vec(), vec![0; 300]].concat();
    let advice = |what: &str, cure: &str| {
        format!("FILE is {what}, which is not read: unpack it first, as in {cure} FILE | mailfuse replay -")
    };
    check_refused(&file("a.tar", &tar), &advice("a tar archive", "tar -xOf"));
    check_refused(&file("a.lz4", b"\x04\x22\x4d\x18abc"), &advice("compressed with lz4", "lz4 -dc"));
    check_refused(&file("a.zip", b"PK\x03\x04abc"), &advice("a ZIP archive", "unzip -p"));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&jpeg).unwrap();
    check_refused(&file("a.jpg.gz", &packed.finish().unwrap()), "FILE is not a log: it looks like a JPEG picture");
    let tried = "Tried: events (one JSON object a line), postfix (syslog lines). Name it with --format";
    check_refused(
        &file("poem", b"So much depends\nupon\n"),
        &format!("FILE: format not recognised in its first 2 lines: neither JSON nor syslog lines. {tried}"),
    );
    check_refused(
        &file("cron.log", b"Mar  2 08:14:05 mx1 CRON[812]: (root) CMD (true)\n"),
        &format!("FILE: format not recognised in its first 1 lines: syslog lines, but none of Postfix. {tried}"),
    );
}

#[test]
fn formats_are_told_by_content() {
    let check = |text: &str, expected: Option<Format>| {
        let source = Source::reader("x", Cursor::new(text.to_owned()));
        let lines = Lines::open(vec![source], &Options::default()).unwrap();
        assert_eq!(lines.sources()[0].format, expected, "{text}");
    };
    check("", None);
    check("\n\r\n", None);
    check("\n  {\"v\":1}\n", Some(Format::Events));
    check("\u{feff}{\"v\":1}", Some(Format::Events));
    check("cut off by rotation\"}\n{\"v\":1}\n", Some(Format::Events));
    check("{\"v\":1} cut\nMar  2 08:14:05 mx1 postfix/smtpd[812]: connect\n", Some(Format::Postfix));
    check(&format!("{{\"long\":\"{}", "x".repeat(100_000)), Some(Format::Events));
    check("Mar  2 08:14:05 mx1 postfix/smtpd[812]: connect\n", Some(Format::Postfix));
    check("<22>Mar 12 08:14:05 mx1 postfix-out/smtp[812]: A: to=<b>\n", Some(Format::Postfix));
    check("2026-03-02T08:14:05.123456+01:00 mx1 postfix/submission/smtpd[812]: connect\n", Some(Format::Postfix));
    check(
        "12]: cut\nMar  2 08:14:05 mx1 dovecot: x\nMar  2 08:14:05 mx1 mta/qmgr[2]: A: removed\n",
        Some(Format::Postfix),
    );
}

/// Gives one byte at a time, as a slow pipe may.
struct Drops(Cursor<Vec<u8>>);

impl Read for Drops {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = buf.len().min(1);
        self.0.read(&mut buf[..n])
    }
}

/// Found by fuzzing: a look at a slow stream took its first line, `{` and no JSON, for the beginning of a long one.
#[test]
fn what_a_stream_is_does_not_depend_on_how_much_comes_at_once() {
    let line = format!("{{\"\"v\":1{}\nt", "x".repeat(600));
    let zeros = [event(1).into_bytes(), vec![0; 400]].concat();
    let tar = [format!("{:\n<257}", event(1)).into_bytes(), b"ustar\n".to_vec(), event(1).into_bytes()].concat();
    let poem = b"So much depends\n".to_vec();
    let gzip = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    for text in [line.into_bytes(), zeros, tar, poem, event(1).into_bytes()] {
        for (forced, bytes) in [
            (None, text.clone()),
            (Some(Format::Events), text.clone()),
            (None, gzip(&text)),
            (Some(Format::Events), gzip(&text)),
        ] {
            let options = Options { format: forced, ..Options::default() };
            let look = |source| match Lines::open(vec![source], &options) {
                Ok(lines) => format!("{:?}", lines.sources()[0].format),
                Err(e) => e.to_string(),
            };
            let at_once = look(Source::reader("x", Cursor::new(bytes.clone())));
            assert_eq!(look(Source::reader("x", Drops(Cursor::new(bytes)))), at_once);
        }
    }
}

#[test]
fn a_forced_format_is_not_questioned_but_a_picture_is() {
    let options = Options { format: Some(Format::Postfix), ..Options::default() };
    let (lines, ..) = read(vec![Source::reader("x", &b"So much depends\n"[..])], &options).unwrap();
    assert_eq!(lines, [b"So much depends"]);
    assert!(read(vec![Source::reader("x", &b"\x89PNG\r\n\x1a\n"[..])], &options).is_err());
}

#[test]
fn empty_files_are_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let empty = write(dir.path(), "empty", b"");
    let good = write(dir.path(), "good", b"{}\n");
    let (lines, _, errors) = read(vec![Source::path(&empty)], &Options::default()).unwrap();
    assert!(lines.is_empty() && errors.is_empty());
    let (lines, _, errors) = read(vec![Source::path(&empty), Source::path(&good)], &Options::default()).unwrap();
    assert!(lines == [b"{}"] && errors.is_empty());
}

#[test]
fn a_compressed_file_cut_short_keeps_its_whole_lines() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..20_000).map(event).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 2);
    xz.write_all(text.as_bytes()).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    bzip2.write_all(text.as_bytes()).unwrap();
    let packed = [
        ("gzip", gzip.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("zstd", zstd::encode_all(text.as_bytes(), 3).unwrap()),
    ];
    let after = write(dir.path(), "after", event(30_000).as_bytes());
    for (name, packed) in packed {
        let mut most = 0;
        for cut in [12, packed.len() / 2, packed.len() - 9, packed.len() - 1] {
            let path = write(dir.path(), "cut", &packed[..cut]);
            let sources = vec![Source::path(&path), Source::path(&after)];
            let options = Options { format: Some(Format::Events), ..Options::default() };
            let (lines, _, errors) = read(sources, &options).unwrap();
            let [error] = &errors[..] else { panic!("{name} at {cut}: {errors:?}") };
            let message = error.to_string();
            assert!(matches!(error, Error::Truncated { .. }), "{name} at {cut}: {message}: {:?}", error.source());
            assert!(message.contains(name) && message.starts_with(path.to_str().unwrap()), "{message}");
            let before = &lines[..lines.len() - 1];
            assert!(text.lines().zip(before).all(|(a, b)| a.as_bytes() == b), "{name} at {cut}");
            assert_eq!(lines.last().unwrap(), event(30_000).trim_end().as_bytes(), "the next file is read");
            most = most.max(before.len());
        }
        assert!(most > 17_000, "{name}: only {most} lines before the end");
    }
}

#[test]
fn damage_and_garbage_behind_are_errors_after_the_lines() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..20_000).map(event).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).unwrap();
    let good = gzip.finish().unwrap();
    let mut crc = good.clone();
    let at = crc.len() - 6;
    crc[at] ^= 1;
    for bytes in [crc, [&good[..], b"garbage that is no member"].concat()] {
        let options = Options { hash: true, ..Options::default() };
        let mut lines = Lines::open(vec![Source::path(write(dir.path(), "x", &bytes))], &options).unwrap();
        let (mut n, mut errors) = (0, 0);
        while let Some(item) = lines.next() {
            match item {
                Item::Line(_) => n += 1,
                Item::Failed { error, .. } => {
                    assert!(matches!(error, Error::Damaged { .. }), "{error}");
                    errors += 1;
                }
                Item::TooLong(_) => panic!(),
            }
        }
        assert_eq!((n, errors), (20_000, 1));
        assert_eq!(lines.facts(0).bytes, bytes.len() as u64, "size and hash are those of the whole file");
        assert!(lines.facts(0).sha256.is_some());
    }
}

#[test]
fn a_window_that_takes_too_much_memory_is_refused() {
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    zstd.window_log(30).unwrap();
    zstd.include_contentsize(false).unwrap();
    zstd.write_all(event(1).repeat(3000).as_bytes()).unwrap();
    let packed = zstd.finish().unwrap();
    let (lines, _, errors) = read(vec![Source::reader("x", Cursor::new(packed))], &Options::default()).unwrap();
    assert!(lines.is_empty() && matches!(errors[..], [Error::Damaged { .. }]), "{errors:?}");
}

/// A disk that fails after some bytes.
struct Failing(Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buf)? {
            0 => Err(io::Error::other("the disk is gone")),
            n => Ok(n),
        }
    }
}

#[test]
fn a_failing_disk_keeps_what_was_read() {
    for n in [1, 10, 5000] {
        let text: String = (0..n).map(event).collect::<String>() + "{\"v\":1,\"kind\":\"se";
        let source = Source::reader("disk", Failing(Cursor::new(text.into())));
        let (lines, _, errors) = read(vec![source], &Options::default()).unwrap();
        assert_eq!(lines.len(), n);
        assert!(matches!(&errors[..], [Error::Read { source, .. }] if source.to_string() == "the disk is gone"));
    }
}

/// Peak of this process's memory in bytes, as the system counts it.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kb| kb << 10)
}

/// Whether this is a process of this test's own: if not, one is made, which must pass. So the system's count of its memory has
/// nothing of other tests in it.
fn is_alone(name: &str) -> bool {
    const MARK: &str = "MAILFUSE_TEST_ALONE";
    if std::env::var_os(MARK).is_some_and(|of| of == name) {
        return true;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let ran = command.args(["--exact", name, "--nocapture"]).env(MARK, name).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    false
}

#[test]
fn a_line_of_one_gibibyte_is_passed_over_in_bounded_memory() {
    if !is_alone("input_broken::a_line_of_one_gibibyte_is_passed_over_in_bounded_memory") {
        return;
    }
    let long =
        Cursor::new(event(1)).chain(io::repeat(b'x').take(1 << 30)).chain(Cursor::new("\n".to_owned() + &event(2)));
    let before = peak();
    let (lines, too_long, errors) = read(vec![Source::reader("x", long)], &Options::default()).unwrap();
    assert_eq!(lines, [event(1).trim_end().as_bytes(), event(2).trim_end().as_bytes()]);
    assert_eq!(too_long, [(2, 1 << 30)]);
    assert!(errors.is_empty());
    assert!(peak() - before < 200 << 20, "{} MiB", (peak() - before) >> 20);
}

#[test]
fn a_bomb_is_only_slow() {
    // 200 MiB of blanks in 200 kB.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(event(1).as_bytes()).unwrap();
    io::copy(&mut io::repeat(b' ').take(200 << 20), &mut gzip).unwrap();
    let packed = gzip.finish().unwrap();
    let (lines, too_long, errors) = read(vec![Source::reader("x", Cursor::new(packed))], &Options::default()).unwrap();
    assert_eq!((lines.len(), too_long, errors.len()), (1, vec![(2, 200 << 20)], 0));
}

/// What comes of each line, by the name it is counted under.
fn results(text: impl Into<Vec<u8>>) -> Vec<&'static str> {
    let options = Options { format: Some(Format::Events), ..Options::default() };
    let mut lines = Lines::open(vec![Source::reader("x", Cursor::new(text.into()))], &options).unwrap();
    let mut results = Vec::new();
    let not_after = mailfuse::event::Timestamp::parse("2030-01-01T00:00:00Z").unwrap();
    while let Some(item) = lines.next() {
        results.push(match item {
            Item::Line(line) => match decode(line.bytes, &Limits::default(), Some(not_after)) {
                Ok(Decoded::Event(_, cut)) if cut.any() => "cut",
                Ok(Decoded::Event(..)) => "event",
                Ok(Decoded::UnknownKind) => "unknown",
                Err(reject) => reject.reason(),
            },
            Item::TooLong(_) => "too_long",
            Item::Failed { error, .. } => panic!("{error}"),
        });
    }
    results
}

#[test]
fn bad_records_do_not_stop_the_stream() {
    let send = |ts: &str, account: &str, rest: &str| {
        format!(r#"{{"v":1,"kind":"send","ts":{ts},"account":"{account}","rcpt_count":1{rest}}}"#)
    };
    let nested = format!(r#","x":{}1{}"#, "[".repeat(1_000_000), "]".repeat(1_000_000));
    let rcpts: Vec<String> = (0..1_000_000).map(|i| format!(r#""user{i:07}@example.com""#)).collect();
    let all = [
        ("event", send("1700000000", "a", "")),
        ("not_json", "[".repeat(5_000_000)),
        ("not_json", "{\"a\":".repeat(1_000_000)),
        ("event", send("1700000000", "a", &nested)),
        ("event", send("0", "a", "")),
        ("future", send("\"2100-01-01T00:00:00Z\"", "a", "")),
        ("too_long", send("1700000000", &"a".repeat(10_000), "")),
        ("cut", send("1700000000", "a", &format!(r#","rcpts":[{}]"#, rcpts.join(",")))),
        ("too_long", send("1700000000", "a", &format!(r#","x":"{}""#, "x".repeat(33 << 20)))),
        ("not_json", "}".to_owned()),
        ("event", send("1700000000", "a", "") + "\r"),
    ];
    let text = all.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
    assert_eq!(results(text), all.iter().map(|(reason, _)| *reason).collect::<Vec<_>>());
    let latin1 = [b"{\"v\":1,\"kind\":\"send\",\"reply\":\"caf\xe9\"}\n".as_slice(), event(1).as_bytes()].concat();
    assert_eq!(results(latin1), ["not_utf8", "event"]);
}
