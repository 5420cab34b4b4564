//! `mailfuse rejects`: the records that `run` could not read.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use anyhow::anyhow;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::replay::parse_time;
use super::table::{Align, Table, count, printable, thousands};
use super::{Failure, usage};
use crate::config::Config;
use crate::event::Timestamp;
use crate::kafka::redrive::{self, redrive};
use crate::kafka::rejects::{Rejected, Rejects, Wanted};
use crate::kafka::to_end::{self, read_to_end};

/// Characters of a value that the table shows.
const VALUE_CHARS: usize = 60;
/// Rows of the table where nobody says how many.
const ROWS: usize = 100;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show what could not be read, and why
    List(List),
    /// Publish again what this version, under this configuration, can read
    #[command(after_help = "\
Each record is decoded again as it is. Those that are readable now are published to `kafka.topics.events` under their
account, once: event and marker are written in one transaction, and a second redrive passes over what has a marker.
Records that were cut because they were too long cannot be published again.

A redriven event comes late. It keeps its own time, and counts where a window of its account still holds that time: with
the default windows, for 7 days after the account's newest event. An older one is counted as late, and nowhere else.

Exit status: 0 done (whatever is still unreadable), 1 failed, 2 wrong usage or configuration.")]
    Redrive(Redrive),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Configuration; `mailfuse config` prints the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only those rejected for this reason, as `bad_ts`
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only those rejected since this time (RFC 3339, or a date, UTC)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

#[derive(Debug, clap::Args)]
struct List {
    #[command(flatten)]
    which: Which,
    /// The newest so many [default: 100; all with --json]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// One JSON object a line, with the whole value
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Redrive {
    #[command(flatten)]
    which: Which,
    /// Publish nothing, only say what would be
    #[arg(long)]
    dry_run: bool,
}

/// A client that cannot be made is a matter of the configuration.
fn failure(error: redrive::Error) -> Failure {
    match error {
        redrive::Error::Client(error) => usage(error),
        redrive::Error::Read(to_end::Error::Client(error)) => usage(error),
        other => Failure::Failed(other.into()),
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::List(list) => list.run(),
        Command::Redrive(redrive) => redrive.run(),
    }
}

impl Which {
    fn read(&self) -> Result<(Config, Wanted), Failure> {
        let config = match &self.config {
            Some(path) => Config::load(path).map_err(usage)?,
            None => Config::default(),
        };
        let since_ms = match &self.since {
            None => None,
            Some(text) => {
                let time = parse_time(text, &TimeZone::UTC);
                let wrong = || usage(anyhow!("--since {text}: no time; write 2024-07-10T12:00:00Z or 2024-07-10"));
                Some(time.ok_or_else(wrong)?.0)
            }
        };
        Ok((config, Wanted { reason: self.reason.clone(), since_ms }))
    }
}

/// A reject as `--json` has it.
#[derive(Serialize)]
struct Line<'a> {
    rejected_ts: Option<Timestamp>,
    topic: &'a str,
    partition: i32,
    offset: i64,
    record_ts: Option<Timestamp>,
    reason: &'a str,
    detail: &'a str,
    by: &'a str,
    key: Option<String>,
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_from_bytes: Option<u64>,
}

impl List {
    fn run(&self) -> Result<(), Failure> {
        let (config, wanted) = self.which.read()?;
        let mut rejects = Rejects::new(wanted);
        read_to_end(&config.kafka, &config.kafka.topics.rejects, &mut |message| rejects.push(message))
            .map_err(|e| failure(e.into()))?;
        let open = rejects.open();
        let limit = self.limit.unwrap_or(if self.json { usize::MAX } else { ROWS });
        let shown = &open[open.len().saturating_sub(limit)..];
        let mut out = std::io::stdout().lock();
        if self.json {
            for rejected in shown {
                serde_json::to_writer(&mut out, &line(rejected))?;
                out.write_all(b"\n")?;
            }
            return Ok(out.flush()?);
        }
        out.write_all(table(shown).as_bytes())?;
        if shown.len() < open.len() {
            writeln!(out, "  and {} older: --limit shows more", thousands((open.len() - shown.len()) as u64))?;
        }
        let mut reasons = BTreeMap::<&str, u64>::new();
        for rejected in &open {
            *reasons.entry(&rejected.reason).or_default() += 1;
        }
        let reasons: Vec<String> =
            reasons.iter().map(|(reason, n)| format!("{} {}", thousands(*n), printable(reason))).collect();
        match reasons.is_empty() {
            true => writeln!(out, "Nothing is rejected.")?,
            false => writeln!(out, "{}: {}", count(open.len() as u64, "record"), reasons.join(", "))?,
        }
        out.write_all(besides(&rejects).as_bytes())?;
        Ok(out.flush()?)
    }
}

fn line(rejected: &Rejected) -> Line<'_> {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|b| String::from_utf8_lossy(b).into_owned());
    Line {
        rejected_ts: rejected.rejected_ms.map(Timestamp),
        topic: &rejected.source.topic,
        partition: rejected.source.partition,
        offset: rejected.source.offset,
        record_ts: rejected.source_ms.map(Timestamp),
        reason: &rejected.reason,
        detail: &rejected.detail,
        by: &rejected.by,
        key: text(&rejected.key),
        value: text(&rejected.value),
        cut_from_bytes: rejected.cut_from_bytes,
    }
}

fn table(shown: &[&Rejected]) -> String {
    if shown.is_empty() {
        return String::new();
    }
    let heads = ["rejected", "record", "reason", "detail", "key", "value"];
    let mut table = Table::new(&heads.map(|head| (head, Align::Left)));
    for r in shown {
        let start = |bytes: &Option<Vec<u8>>| -> String {
            let text = String::from_utf8_lossy(bytes.as_deref().unwrap_or_default());
            let mut start: String = text.chars().take(VALUE_CHARS).collect();
            if start.len() < text.len() {
                start.push('…');
            }
            start
        };
        table.row(vec![
            r.rejected_ms.map_or_else(|| "-".to_owned(), |ms| Timestamp(ms).to_string()),
            r.source.to_string(),
            r.reason.clone(),
            r.detail.clone(),
            start(&r.key),
            start(&r.value),
        ]);
    }
    table.text()
}

/// What else the topic held.
fn besides(rejects: &Rejects) -> String {
    let mut text = String::new();
    let mut say = |n: u64, what: &str| {
        if n > 0 {
            text.push_str(&format!(
                "{}{} {what}\n",
                if text.is_empty() { "Besides: " } else { "         " },
                thousands(n)
            ));
        }
    };
    say(rejects.already_redriven(), "published again already");
    say(rejects.repeats, "written twice (delivery is at least once)");
    for (why, n) in &rejects.not_ours {
        say(*n, &format!("not written by mailfuse: {why}"));
    }
    text
}

impl Redrive {
    fn run(&self) -> Result<(), Failure> {
        let (config, wanted) = self.which.read()?;
        let now = Timestamp(jiff::Timestamp::now().as_millisecond());
        let done = redrive(&config.kafka, &config.events, wanted, now, self.dry_run).map_err(failure)?;
        let mut out = std::io::stdout().lock();
        let n = done.published.values().sum();
        let verb = if self.dry_run { "would be published again" } else { "published again" };
        writeln!(out, "{} {verb} to {}", count(n, "record"), config.kafka.topics.events)?;
        for (reason, n) in &done.published {
            writeln!(out, "  {} that had been rejected for {}", thousands(*n), printable(reason))?;
        }
        let still = done.still.values().map(|(n, _)| n).sum();
        writeln!(out, "{} still cannot be read", count(still, "record"))?;
        for (reason, (n, detail)) in &done.still {
            writeln!(out, "  {} {reason}: {}", thousands(*n), printable(detail))?;
        }
        out.write_all(besides(&done.rejects).as_bytes())?;
        Ok(out.flush()?)
    }
}
