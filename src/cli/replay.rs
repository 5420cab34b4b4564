//! `mailfuse replay`: logs in, alerts out, and a summary that a person can act on.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use jiff::tz::TimeZone;

use super::control;
use super::explain::Explainer;
use super::feed::{self, Reading, RejectsFile, Seen};
use super::find::Finder;
use super::summary::{self, Incidents};
use super::{Failure, usage};
use crate::config::Config;
use crate::core::alert::Alert;
use crate::core::decision::Decisions;
use crate::core::policy::Policy;
use crate::core::shard::{Shard, Step};
use crate::event::{Event, Timestamp};
use crate::input::{Format, Source, Spool};
use crate::report;
use crate::state;

/// Accounts rest packed where they take more than this, and who rests is asked again after so many events: a smaller fleet costs
/// nothing, a larger one little.
const REST_FROM_BYTES: usize = 256 << 20;
const REST_EVERY: u64 = 1 << 16;
/// Messages that `--extract` writes at most.
const EXTRACT_ROWS_MAX: usize = 1_000_000;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mailfuse replay /var/log/mail.log --alerts alerts.jsonl --report incident.html
  zcat mail.log.*.gz | mailfuse replay --year 2024 --tz Europe/Berlin - > alerts.jsonl
  mailfuse replay mail.log --explain info@example.org      why was it flagged, or why not?
  mailfuse replay mail.log --find 198.51.100.7             who sent from there?

Exit status: 0 done, 1 failed (what could be read has been used), 2 wrong usage or configuration.")]
pub(super) struct Arguments {
    /// Logs: plain, gzip, zstd, xz or bzip2; `-` is standard input. Several are merged by time
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What the files hold; told from their content where it is `auto`
    #[arg(long, value_enum, default_value_t = FormatArgument::Auto)]
    format: FormatArgument,
    /// Configuration; `mailfuse config` prints the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Year of each file's first line where stamps have none [default: from a date in the file's name, else from the
    /// file's own date]
    #[arg(long, value_name = "YEAR", value_parser = clap::value_parser!(i16).range(1970..=2100))]
    year: Option<i16>,
    /// Zone of stamps that name none, as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// Pass over events before this time (RFC 3339, or a date)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Pass over events from this time on
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Reject events after this time. Without it, an event more than a year from the ones around it is rejected
    #[arg(long, value_name = "TIME")]
    not_after: Option<String>,
    /// Where alerts go, one JSON object a line; `-` is standard output [default: standard output, unless it is taken by
    /// --explain, --find or --extract]
    #[arg(long, value_name = "FILE")]
    alerts: Option<PathBuf>,
    /// Write the incident report, one self-contained page
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Replace names, addresses and hosts in the report, for sharing it outside
    #[arg(long, requires = "report")]
    redact: bool,
    /// Print one account's story, flagged or not: its evidence over time against its limits
    #[arg(long, value_name = "ACCOUNT", conflicts_with_all = ["find", "extract"])]
    explain: Option<String>,
    /// Name the accounts behind a relay, a client address or network, a queue id, a Message-ID or a recipient
    #[arg(long, value_name = "WHAT", conflicts_with = "extract")]
    find: Option<String>,
    /// Write one account's burst as CSV, a row a message
    #[arg(long, value_name = "ACCOUNT")]
    extract: Option<String>,
    /// Begin with what an earlier replay has learned
    #[arg(long, value_name = "FILE")]
    load_state: Option<PathBuf>,
    /// What people have decided (exempt, tolerate, pin, close, hijack), one control record a line
    #[arg(long, value_name = "FILE")]
    control: Option<PathBuf>,
    /// Keep what was learned, for the next log
    #[arg(long, value_name = "FILE")]
    save_state: Option<PathBuf>,
    /// Keep rejected records with where they came from, one JSON object a line
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// No summary on standard error
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum FormatArgument {
    /// From the content
    Auto,
    /// One JSON object a line
    Events,
    /// Syslog lines of Postfix
    Postfix,
}

impl FormatArgument {
    pub(super) fn format(self) -> Option<Format> {
        match self {
            Self::Auto => None,
            Self::Events => Some(Format::Events),
            Self::Postfix => Some(Format::Postfix),
        }
    }
}

/// A replay under way: everything that both passes share.
struct Replay<'a> {
    arguments: &'a Arguments,
    config: Config,
    policy: Arc<Policy>,
    reading: Reading,
    sources: Sources,
    decisions: Vec<Arc<Decisions>>,
}

/// What the first pass gave.
struct First {
    seen: Seen,
    alerts: Vec<Alert>,
    incidents: Incidents,
    shard: Shard,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = match &arguments.config {
        Some(path) => Config::load(path).map_err(usage)?,
        None => Config::default(),
    };
    let key = config.fingerprint_key().map_err(usage)?;
    let policy = Arc::new(config.policy(key).map_err(usage)?);
    let reading = reading(arguments)?;
    let decisions = arguments.control.as_deref().map(control::read).transpose()?.unwrap_or_default();
    let two_passes = arguments.report.is_some() || arguments.extract.is_some();
    let sources = Sources::new(&arguments.files, two_passes)?;
    let replay = Replay { arguments, config, policy, reading, sources, decisions };
    let first = replay.first()?;
    if two_passes {
        replay.second(&first)?;
    }
    if let Some(path) = &arguments.save_state {
        state::save(path, &first.shard, &replay.policy)
            .with_context(|| format!("{}: the state was not saved", path.display()))?;
    }
    if !arguments.quiet {
        summary::print(&first.seen, &replay.reading, &replay.policy, &first.shard, &first.incidents);
    }
    first.seen.to_the_end()
}

fn reading(arguments: &Arguments) -> Result<Reading, Failure> {
    let zone = feed::zone(&arguments.tz)?;
    let time = |option: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => parse_time(text, &zone)
            .map(Some)
            .ok_or_else(|| usage(anyhow!("{option} {text}: no time; write 2024-07-10T12:00:00Z or 2024-07-10"))),
    };
    let since = time("--since", &arguments.since)?;
    let until = time("--until", &arguments.until)?;
    if let (Some(since), Some(until)) = (since, until)
        && since >= until
    {
        return Err(usage(anyhow!("--since {since} is not before --until {until}")));
    }
    let not_after = time("--not-after", &arguments.not_after)?;
    Ok(Reading {
        format: arguments.format.format(),
        year: arguments.year,
        zone_name: arguments.tz.clone(),
        zone,
        since,
        until,
        not_after,
        hash: arguments.report.is_some(),
    })
}

/// An RFC 3339 time, or a date or date and time in the zone of the logs.
pub(super) fn parse_time(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    if let Ok(time) = Timestamp::parse(text) {
        return Some(time);
    }
    let date_time: jiff::civil::DateTime = match text.parse() {
        Ok(date_time) => date_time,
        Err(_) => text.parse::<jiff::civil::Date>().ok()?.to_datetime(jiff::civil::Time::midnight()),
    };
    Some(Timestamp(zone.to_timestamp(date_time).ok()?.as_millisecond()))
}

/// The files, readable as often as there are passes.
struct Sources {
    files: Vec<PathBuf>,
    spool: Option<Spool>,
}

impl Sources {
    fn new(files: &[PathBuf], two_passes: bool) -> Result<Self, Failure> {
        let streams = files.iter().filter(|f| f.as_os_str() == "-").count();
        if streams > 1 {
            return Err(usage(anyhow!("standard input (-) can be read only once")));
        }
        let spool = match streams > 0 && two_passes {
            true => Some(Spool::stdin().context("standard input could not be kept for the second pass (see TMPDIR)")?),
            false => None,
        };
        Ok(Self { files: files.to_vec(), spool })
    }

    fn open(&self) -> Vec<Source> {
        let open = |path: &PathBuf| match &self.spool {
            Some(spool) if path.as_os_str() == "-" => spool.source(),
            _ => Source::path(path),
        };
        self.files.iter().map(open).collect()
    }
}

/// A shard that begins with the loaded state, or at its first event.
struct Detector<'a> {
    policy: Arc<Policy>,
    decisions: &'a [Arc<Decisions>],
    shard: Option<Shard>,
    newest: Timestamp,
    events: u64,
}

impl<'a> Detector<'a> {
    fn new(policy: &Arc<Policy>, load: Option<&Path>, decisions: &'a [Arc<Decisions>]) -> Result<Self, Failure> {
        let mut shard = match load {
            Some(path) => Some(
                state::load(path, policy).with_context(|| format!("--load-state {}", path.display())).map_err(usage)?,
            ),
            None => None,
        };
        if let Some(shard) = &mut shard {
            decisions.iter().for_each(|d| shard.decide(Arc::clone(d)));
        }
        Ok(Self { policy: Arc::clone(policy), decisions, shard, newest: Timestamp(i64::MIN), events: 0 })
    }

    fn step(&mut self, event: &Event<'_>, out: &mut Vec<Alert>) -> Step {
        self.newest = self.newest.max(event.ts);
        self.events += 1;
        let shard = self.shard.get_or_insert_with(|| {
            let mut shard = Shard::new(Arc::clone(&self.policy), event.ts);
            self.decisions.iter().for_each(|d| shard.decide(Arc::clone(d)));
            shard
        });
        if self.events.is_multiple_of(REST_EVERY) && shard.bytes() > REST_FROM_BYTES {
            shard.rest();
        }
        shard.step(event, out)
    }

    /// The end of the input: writes what is due.
    fn finish(mut self, out: &mut Vec<Alert>) -> Shard {
        match self.shard.take() {
            Some(mut shard) => {
                if self.newest.0 > i64::MIN {
                    shard.tick(self.newest, out);
                }
                shard
            }
            None => Shard::new(self.policy, Timestamp(0)),
        }
    }
}

impl Replay<'_> {
    /// Reads everything once: alerts as they come, and what the options ask for.
    fn first(&self) -> Result<First, Failure> {
        let a = self.arguments;
        let mut detector = Detector::new(&self.policy, a.load_state.as_deref(), &self.decisions)?;
        let mut sink = self.alert_sink()?;
        let mut rejects = a.rejects.as_deref().map(RejectsFile::create).transpose()?;
        let mut explainer = a.explain.as_deref().map(|account| Explainer::new(account, &self.policy));
        let mut finder = a.find.as_deref().map(Finder::new);
        let (mut alerts, mut incidents, mut fresh) = (Vec::new(), Incidents::default(), Vec::new());
        let keep = a.report.is_some() || a.extract.is_some() || a.explain.is_some();
        let seen = feed::read(
            self.sources.open(),
            &self.reading,
            &self.config,
            "reading",
            rejects.as_mut(),
            &mut |event, _| {
                if let Some(finder) = &mut finder {
                    finder.event(event);
                }
                let step = detector.step(event, &mut fresh);
                if let (Some(explainer), Some(shard)) = (&mut explainer, &detector.shard) {
                    explainer.event(event, step, shard);
                }
                if !fresh.is_empty() {
                    give(&mut fresh, &mut sink, &mut incidents, keep.then_some(&mut alerts))?;
                }
                Ok(())
            },
        )?;
        let shard = detector.finish(&mut fresh);
        give(&mut fresh, &mut sink, &mut incidents, keep.then_some(&mut alerts))?;
        incidents.finish(&shard);
        if let Some(sink) = &mut sink {
            sink.flush()?;
        }
        if let Some(rejects) = rejects {
            rejects.finish()?;
        }
        let mut out = std::io::stdout().lock();
        if let Some(explainer) = explainer {
            explainer.print(&shard, &alerts, &mut out)?;
        }
        if let Some(finder) = finder {
            finder.print(&mut out)?;
        }
        Ok(First { seen, alerts, incidents, shard })
    }

    /// Reads everything again, knowing whom to watch.
    fn second(&self, first: &First) -> Result<(), Failure> {
        let a = self.arguments;
        let mut detector = Detector::new(&self.policy, a.load_state.as_deref(), &self.decisions)?;
        let mut collector =
            a.report.as_ref().map(|_| report::Collector::new(&first.alerts, report::Options::default()));
        let mut extractor = a.extract.as_deref().map(|account| {
            report::extract::Extractor::new(&account.to_ascii_lowercase(), &first.alerts, EXTRACT_ROWS_MAX)
        });
        let mut ignored = Vec::new();
        feed::read(self.sources.open(), &self.reading, &self.config, "gathering", None, &mut |event, _| {
            let step = detector.step(event, &mut ignored);
            ignored.clear();
            if let Some(collector) = &mut collector {
                collector.event(event, &step);
            }
            if let Some(extractor) = &mut extractor {
                extractor.event(event, &step);
            }
            Ok(())
        })?;
        if let (Some(collector), Some(path)) = (collector, &a.report) {
            let inputs = summary::inputs(&first.seen, &self.reading, &self.config, &first.shard);
            let page =
                report::html::render(&collector.finish(inputs), &report::html::RenderOptions { redact: a.redact });
            write_whole(path, page.as_bytes())?;
        }
        if let Some(extractor) = extractor {
            let extracted = extractor.finish(BufWriter::new(std::io::stdout().lock()))?;
            if let Some(note) = extracted.note {
                anstream::eprintln!("mailfuse: {note}");
            }
        }
        Ok(())
    }

    fn alert_sink(&self) -> Result<Option<Box<dyn Write>>, Failure> {
        let a = self.arguments;
        let taken = a.explain.is_some() || a.find.is_some() || a.extract.is_some();
        Ok(match &a.alerts {
            None if taken => None,
            Some(path) if path.as_os_str() != "-" => {
                let file = File::create(path)
                    .with_context(|| format!("--alerts {}: cannot be written", path.display()))
                    .map_err(usage)?;
                Some(Box::new(BufWriter::new(file)))
            }
            _ => Some(Box::new(BufWriter::new(std::io::stdout()))),
        })
    }
}

/// Writes fresh alerts, and lets the summary know.
fn give(
    fresh: &mut Vec<Alert>,
    sink: &mut Option<Box<dyn Write>>,
    incidents: &mut Incidents,
    mut keep: Option<&mut Vec<Alert>>,
) -> Result<(), Failure> {
    for alert in fresh.drain(..) {
        if let Some(sink) = sink {
            serde_json::to_writer(&mut *sink, &alert)?;
            sink.write_all(b"\n")?;
        }
        // Nobody's hijack: summary and report are about those.
        if alert.heartbeat {
            continue;
        }
        incidents.note(&alert);
        if let Some(kept) = &mut keep {
            kept.push(alert);
        }
    }
    Ok(())
}

/// Writes a file beside, then renames it: no reader ever sees half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let what = || format!("{}: cannot be written", path.display());
    // Readable as any file that a program writes: it is made to be shared.
    let mut make = tempfile::Builder::new();
    #[cfg(unix)]
    make.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = make.tempfile_in(folder).with_context(what)?;
    file.write_all(bytes).with_context(what)?;
    file.persist(path).with_context(what)?;
    Ok(())
}
