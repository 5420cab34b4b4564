//! From files to events: what every command that reads logs does with its sources.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::Builder;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::tz::TimeZone;

use super::astray::{Astray, Belief, Settled};
use super::{Failure, usage};
use crate::config::Config;
use crate::directory::{self, Directory};
use crate::event::{Decoded, Event, Limits, Reject, Timestamp, decode};
use crate::input::{self, Chunk, Format, Line, Lines, LinesOf, Place, Progress, Source, TooLong};
use crate::logs::postfix::{Postfix, Stats as PostfixStats};
use crate::logs::stamp::{Assumed, StampOptions, Stamper};

/// A time without an event that is longer than this is a gap, in milliseconds.
const GAP_MS: i64 = 3_600_000;
/// Gaps that are listed; further ones are counted.
const GAPS_MAX: usize = 20;
/// Places kept for each reason of rejects.
const SAMPLES_MAX: usize = 3;
/// Runs of lines shorter than this are not worth a thread.
const AHEAD_FROM_BYTES: usize = 32 << 10;
/// Lines that are decoded at a time, and how many such chunks may wait.
const AHEAD_LINES: usize = 64;
const AHEAD_CHUNKS: usize = 16;

/// How the sources are read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub format: Option<Format>,
    pub year: Option<i16>,
    pub zone: TimeZone,
    pub zone_name: String,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub not_after: Option<Timestamp>,
    /// Compute the SHA-256 of the sources.
    pub hash: bool,
}

/// A zone by its IANA name.
pub(super) fn zone(name: &str) -> Result<TimeZone, Failure> {
    TimeZone::get(name)
        .map_err(|_| usage(anyhow!("--tz {name}: no such zone; it is a name of the IANA database, as Europe/Berlin")))
}

/// What reading showed.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub sources: Vec<SeenSource>,
    pub lines: u64,
    pub events: u64,
    /// Events outside `--since` and `--until`.
    pub outside: u64,
    pub unknown_kinds: u64,
    /// Log lines that begin with no stamp.
    pub unstamped: u64,
    pub cut: u64,
    /// By reason: how many, and the first of them.
    pub rejects: BTreeMap<&'static str, Rejected>,
    pub period: Option<(Timestamp, Timestamp)>,
    pub gaps: Vec<(Timestamp, Timestamp)>,
    pub gaps_more: u64,
    pub postfix: Option<PostfixStats>,
    /// Sources that broke off: the command ends with a failure.
    pub failures: Vec<input::Error>,
    newest: Option<Timestamp>,
}

/// Rejects of one reason: how many, and the first of them with what is wrong.
pub(super) type Rejected = (u64, Vec<(Place, String)>);

/// One source, after reading.
#[derive(Debug)]
pub(super) struct SeenSource {
    pub name: String,
    pub format: Option<Format>,
    pub bytes: u64,
    pub sha256: Option<[u8; 32]>,
    pub assumed: Option<Assumed>,
}

/// Where rejected records go, with where they came from.
pub(super) struct RejectsFile(BufWriter<File>);

impl RejectsFile {
    pub(super) fn create(path: &Path) -> Result<Self, Failure> {
        let file =
            File::create(path).with_context(|| format!("{}: cannot be written", path.display())).map_err(usage)?;
        Ok(Self(BufWriter::new(file)))
    }

    fn write(&mut self, place: &Place, reason: &str, message: &str, record: &[u8]) -> Result<(), Failure> {
        let record = String::from_utf8_lossy(record);
        let line = serde_json::json!({
            "source": &*place.source, "line": place.line, "reason": reason, "message": message, "record": record,
        });
        serde_json::to_writer(&mut self.0, &line)?;
        self.0.write_all(b"\n")?;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), Failure> {
        Ok(self.0.flush()?)
    }
}

/// Where an event came from.
pub(super) struct Came<'a> {
    /// Its file and line, where somebody wants to know.
    pub place: &'a dyn Fn() -> Place,
    /// The line, where the event was one: with all that the contract does not know.
    pub line: Option<&'a [u8]>,
}

/// What is done with each event.
pub(super) type Each<'a> = &'a mut dyn FnMut(&Event<'_>, &Came<'_>) -> Result<(), Failure>;

/// Reads all sources, and passes every event within the bounds of time to `each`, in order.
pub(super) fn read(
    sources: Vec<Source>,
    reading: &Reading,
    config: &Config,
    title: &str,
    rejects: Option<&mut RejectsFile>,
    each: Each<'_>,
) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    read_into(&mut seen, sources, reading, config, title, rejects, each)?;
    Ok(seen)
}

/// The same, for who wants to know what was seen when `each` put an end to it.
pub(super) fn read_into(
    seen: &mut Seen,
    sources: Vec<Source>,
    reading: &Reading,
    config: &Config,
    title: &str,
    rejects: Option<&mut RejectsFile>,
    each: Each<'_>,
) -> Result<(), Failure> {
    let mut lines = open(sources, reading, config)?;
    let mut stampers: Vec<Stamper> = lines.sources().iter().map(|info| stamper(info, reading)).collect();
    let names: Vec<Arc<str>> = lines.sources().iter().map(|info| Arc::clone(&info.name)).collect();
    let formats: Vec<Option<Format>> = lines.sources().iter().map(|info| info.format).collect();
    let mut postfix = formats.contains(&Some(Format::Postfix)).then(|| Postfix::new(config.postfix.clone()));
    let mut bar = Bar::new(lines.progress(), title);
    let mut gate =
        Gate { reading, directory: aliases(config)?, astray: Astray::default(), failed: None, each, rejects };
    while let Some(chunk) = lines.next_chunk() {
        match chunk {
            Chunk::Lines(run) => {
                bar.show(seen);
                let (source, name) = (run.source(), &names[run.source()]);
                let place = |line: u64| Place { source: Arc::clone(name), line };
                if let (Some(Format::Postfix), Some(postfix)) = (formats[source], &mut postfix) {
                    read_postfix(run, config, postfix, &mut stampers[source], &mut gate, seen, &place)?;
                } else {
                    read_events(run, config, &mut gate, seen, &place)?;
                }
            }
            Chunk::TooLong(line) => {
                let place = Place { source: Arc::clone(&names[line.source]), line: line.number };
                gate.too_long(place, config, seen)?;
            }
            Chunk::Failed { error, .. } => seen.failures.push(error),
        }
    }
    if let Some(mut postfix) = postfix {
        let end = || Place { source: "the end of the logs".into(), line: 0 };
        postfix.finish(&mut |event| gate.pass(event, &Came { place: &end, line: None }, seen));
        seen.postfix = Some(postfix.stats().clone());
    }
    gate.finish(seen)?;
    drop(bar);
    for (i, info) in lines.sources().iter().enumerate() {
        let facts = lines.facts(i);
        seen.sources.push(SeenSource {
            name: info.name.to_string(),
            format: info.format,
            bytes: facts.bytes,
            sha256: facts.sha256,
            assumed: stampers[i].assumed(),
        });
    }
    Ok(())
}

fn read_postfix(
    run: LinesOf<'_>,
    config: &Config,
    postfix: &mut Postfix,
    stamper: &mut Stamper,
    gate: &mut Gate<'_>,
    seen: &mut Seen,
    place: &dyn Fn(u64) -> Place,
) -> Result<(), Failure> {
    for line in run {
        let line = match line {
            Ok(line) => line,
            Err(too_long) => {
                gate.too_long(place(too_long.number), config, seen)?;
                continue;
            }
        };
        seen.lines += 1;
        let Some((ts, host)) = stamper.stamp(line.bytes) else {
            seen.unstamped += 1;
            continue;
        };
        let came = Came { place: &|| place(line.number), line: None };
        postfix.push(ts, &line.bytes[host..], &mut |event| gate.pass(event, &came, seen));
        gate.check()?;
    }
    Ok(())
}

fn read_events(
    run: LinesOf<'_>,
    config: &Config,
    gate: &mut Gate<'_>,
    seen: &mut Seen,
    place: &dyn Fn(u64) -> Place,
) -> Result<(), Failure> {
    let not_after = gate.reading.not_after;
    decode_ahead(run, &config.events, not_after, &mut |(line, decoded)| {
        let line = match line {
            Ok(line) => line,
            Err(too_long) => return gate.too_long(place(too_long.number), config, seen),
        };
        seen.lines += 1;
        match decoded {
            Some(Ok(Decoded::Event(event, cut))) => {
                seen.cut += u64::from(cut.any());
                gate.pass(&event, &Came { place: &|| place(line.number), line: Some(line.bytes) }, seen);
            }
            Some(Ok(Decoded::UnknownKind)) => seen.unknown_kinds += 1,
            Some(Err(reject)) => seen.reject(&reject, place(line.number), line.bytes, gate.rejects.as_deref_mut())?,
            None => {}
        }
        gate.check()
    })
}

/// A line, and what it is decoded to where it is not too long.
type Ahead<'a> = (Result<Line<'a>, TooLong>, Option<Result<Decoded<'a>, Reject>>);

/// Decodes the lines of a run, and gives them to `each` in their order. A thread decodes some lines ahead, so that decoding and
/// detecting, which cost about the same, take a core each.
fn decode_ahead<'a>(
    run: LinesOf<'a>,
    limits: &Limits,
    not_after: Option<Timestamp>,
    each: &mut dyn FnMut(Ahead<'a>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let one = |line: Result<Line<'a>, TooLong>| -> Ahead<'a> {
        (line, line.ok().map(|line| decode(line.bytes, limits, not_after)))
    };
    if run.bytes() < AHEAD_FROM_BYTES {
        return run.map(one).try_for_each(each);
    }
    std::thread::scope(|scope| {
        let (to, from) = sync_channel::<Vec<Ahead<'a>>>(AHEAD_CHUNKS);
        let mut lines = run.clone();
        let decoding = Builder::new().name("decode".to_owned()).spawn_scoped(scope, move || {
            loop {
                let chunk: Vec<_> = lines.by_ref().take(AHEAD_LINES).map(one).collect();
                // Nobody listens any more where `each` has failed.
                if chunk.is_empty() || to.send(chunk).is_err() {
                    return;
                }
            }
        });
        match decoding {
            Ok(_) => from.into_iter().flatten().try_for_each(each),
            // No thread to be had: it goes without.
            Err(_) => run.map(one).try_for_each(each),
        }
    })
}

fn open(sources: Vec<Source>, reading: &Reading, config: &Config) -> Result<Lines, Failure> {
    let of_merge = reading.clone();
    let options = input::Options {
        format: reading.format,
        max_line_bytes: config.events.max_line_bytes,
        hash: reading.hash,
        ..input::Options::default()
    };
    let options = options.stamp_with(move |info| {
        let mut stamper = stamper(info, &of_merge);
        Box::new(move |line: &[u8]| stamper.stamp(line).map(|(ts, _)| ts))
    });
    Lines::open(sources, &options).map_err(usage)
}

fn stamper(info: &input::SourceInfo, reading: &Reading) -> Stamper {
    let modified = info.modified.and_then(|m| {
        let since = m.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(Timestamp(i64::try_from(since.as_millis()).ok()?))
    });
    Stamper::new(StampOptions { year: reading.year, zone: reading.zone.clone(), file_name: Some(&info.name), modified })
}

/// The directory that is configured; empty where none is.
fn aliases(config: &Config) -> Result<Directory, Failure> {
    let file = &config.directory.file;
    if file.is_empty() {
        return Ok(Directory::default());
    }
    let read = File::open(file).map_err(directory::Error::from).and_then(|f| Directory::read(BufReader::new(f)));
    read.map_err(|e| usage(anyhow!("directory.file: {file}: {e}")))
}

/// A line with another account; `None` where it cannot be written so.
fn with_account(line: &[u8], account: &str) -> Option<Vec<u8>> {
    let mut event: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line).ok()?;
    event.insert("account".to_owned(), account.into());
    serde_json::to_vec(&event).ok()
}

/// What every event goes through on its way to `each`.
struct Gate<'a> {
    reading: &'a Reading,
    /// Its aliases are other names of one account.
    directory: Directory,
    astray: Astray,
    /// An error of `each` ends the reading after the line that caused it.
    failed: Option<Failure>,
    each: Each<'a>,
    rejects: Option<&'a mut RejectsFile>,
}

impl Gate<'_> {
    fn too_long(&mut self, place: Place, config: &Config, seen: &mut Seen) -> Result<(), Failure> {
        seen.lines += 1;
        let reject = Reject::TooLong { what: "line", max: config.events.max_line_bytes };
        seen.reject(&reject, place, b"", self.rejects.as_deref_mut())
    }

    fn pass(&mut self, event: &Event<'_>, came: &Came<'_>, seen: &mut Seen) {
        if let Belief::Settled(settled) = self.astray.look(event, came) {
            let pass = settled.pass;
            self.settle(*settled, seen);
            if !pass {
                return;
            }
        }
        self.believed(event, came, seen);
    }

    fn settle(&mut self, settled: Settled, seen: &mut Seen) {
        for (at, reject, record) in settled.rejected {
            self.reject(&reject, at, &record, seen);
        }
        if let Some(held) = settled.confirmed {
            let came = Came { place: &|| held.place.clone(), line: held.line.as_deref() };
            self.believed(&held.event, &came, seen);
        }
    }

    fn reject(&mut self, reject: &Reject, at: Place, record: &[u8], seen: &mut Seen) {
        if let Err(failure) = seen.reject(reject, at, record, self.rejects.as_deref_mut()) {
            self.failed.get_or_insert(failure);
        }
    }

    fn believed(&mut self, event: &Event<'_>, came: &Came<'_>, seen: &mut Seen) {
        let before = self.reading.since.is_some_and(|since| event.ts < since);
        if before || self.reading.until.is_some_and(|until| event.ts >= until) {
            seen.outside += 1;
            return;
        }
        seen.events += 1;
        seen.at(event.ts);
        if self.failed.is_some() {
            return;
        }
        let account = event.account.as_deref().and_then(|name| self.directory.of_alias(name));
        let passed = match account {
            None => (self.each)(event, came),
            Some(account) => {
                let line = came.line.and_then(|line| with_account(line, account));
                let event = Event { account: Some(Cow::Borrowed(account)), ..event.clone() };
                (self.each)(&event, &Came { place: came.place, line: line.as_deref() })
            }
        };
        if let Err(failure) = passed {
            self.failed = Some(failure);
        }
    }

    fn check(&mut self) -> Result<(), Failure> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn finish(&mut self, seen: &mut Seen) -> Result<(), Failure> {
        let settled = self.astray.finish();
        self.settle(settled, seen);
        self.check()
    }
}

impl Seen {
    /// An event of this time was passed on.
    fn at(&mut self, ts: Timestamp) {
        self.period = Some(self.period.map_or((ts, ts), |(a, b)| (a.min(ts), b.max(ts))));
        match self.newest {
            Some(newest) if ts.0 - newest.0 > GAP_MS => {
                if self.gaps.len() < GAPS_MAX {
                    self.gaps.push((newest, ts));
                } else {
                    self.gaps_more += 1;
                }
                self.newest = Some(ts);
            }
            Some(newest) if ts <= newest => {}
            _ => self.newest = Some(ts),
        }
    }

    fn reject(
        &mut self,
        reject: &Reject,
        place: Place,
        record: &[u8],
        file: Option<&mut RejectsFile>,
    ) -> Result<(), Failure> {
        if let Some(file) = file {
            file.write(&place, reject.reason(), &reject.to_string(), record)?;
        }
        let (count, samples) = self.rejects.entry(reject.reason()).or_default();
        *count += 1;
        if samples.len() < SAMPLES_MAX {
            samples.push((place, reject.to_string()));
        }
        Ok(())
    }

    /// A failure where a source broke off; each is said.
    pub(super) fn to_the_end(&self) -> Result<(), Failure> {
        for error in &self.failures {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(deeper) = cause {
                text = format!("{text}: {deeper}");
                cause = deeper.source();
            }
            anstream::eprintln!("mailfuse: {text}");
        }
        match self.failures.len() {
            0 => Ok(()),
            n => Err(Failure::Failed(anyhow!(
                "{} could not be read to the end; what could be read was used",
                super::table::count(n as u64, "file")
            ))),
        }
    }

    /// All rejects.
    pub(super) fn rejected(&self) -> u64 {
        self.rejects.values().map(|(n, _)| n).sum()
    }
}

/// A progress bar on a terminal; nothing elsewhere.
struct Bar {
    bar: ProgressBar,
    progress: Progress,
    shown: Instant,
}

impl Bar {
    fn new(progress: Progress, title: &str) -> Self {
        let target = ProgressDrawTarget::stderr();
        let bar = match progress.total {
            Some(total) => ProgressBar::with_draw_target(Some(total), target),
            None => ProgressBar::with_draw_target(None, target),
        };
        let template = match progress.total {
            Some(_) => "{prefix} {wide_bar} {bytes} of {total_bytes}, {eta} left, {msg}",
            None => "{prefix} {spinner} {bytes}, {elapsed}, {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(title.to_owned());
        Self { bar, progress, shown: Instant::now() }
    }

    fn show(&mut self, seen: &Seen) {
        if self.bar.is_hidden() || self.shown.elapsed() < Duration::from_millis(100) {
            return;
        }
        self.shown = Instant::now();
        self.bar.set_position(self.progress.read());
        self.bar.set_message(format!("{} events", super::table::thousands(seen.events)));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::with_account;

    #[test]
    fn an_alias_in_a_line_gives_way_and_all_else_stays() {
        let line = br#"{"account":"Offers@shop.example","ts":1772409600.125,"x":{"unknown":[1,null]},"v":1}"#;
        let wanted = r#"{"account":"news@shop.example","ts":1772409600.125,"v":1,"x":{"unknown":[1,null]}}"#;
        assert_eq!(String::from_utf8(with_account(line, "news@shop.example").unwrap()).unwrap(), wanted);
        assert_eq!(with_account(b"[1]", "a"), None);
    }
}
