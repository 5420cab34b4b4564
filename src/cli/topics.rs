//! `mailfuse topics`: makes the topics that are missing, and looks whether all of them are as they should be.

use std::io::Write;
use std::path::PathBuf;

use super::table::{Align, Table, count, printable};
use super::{Failure, usage};
use crate::config::Config;
use crate::kafka::topics::{self, Error, Finding, Verdict, Wishes};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the topics that are missing, then check all; what is there is never changed
    #[command(after_help = AFTER)]
    Create {
        /// Partitions of events and state; cannot be changed later without learning anew [default: 12]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
        partitions: Option<i32>,
        #[command(flatten)]
        common: Common,
    },
    /// Check topics, rights and the newest events, and say what to do about what is wrong
    #[command(after_help = AFTER)]
    Check {
        #[command(flatten)]
        common: Common,
    },
}

const AFTER: &str = "\
Whether this user may write alerts and rejects, and events for a heartbeat, is not tried: it would take a record. Exit status: 0 all
is well, 1 something is wrong or the brokers do not answer, 2 wrong usage or configuration.";

#[derive(Debug, clap::Args)]
struct Common {
    /// Configuration; `mailfuse config` prints the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Copies of each topic [default: 3, or as many as there are brokers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=100))]
    replication: Option<i32>,
    /// Newest events that are looked at, for at most ten seconds; 0 looks at none
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    sample: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (common, partitions, is_create) = match &arguments.command {
        Command::Create { partitions, common } => (common, *partitions, true),
        Command::Check { common } => (common, None, false),
    };
    let config = match &common.config {
        Some(path) => Config::load(path).map_err(usage)?,
        None => Config::default(),
    };
    let wishes = Wishes { partitions, replication: common.replication, sample: common.sample };
    let mut out = std::io::stdout().lock();
    if is_create {
        for topic in topics::create(&config.kafka, wishes).map_err(failure)? {
            writeln!(out, "made {topic}")?;
        }
    }
    let findings = topics::check(&config.kafka, &config.events, wishes).map_err(failure)?;
    show(&mut out, &findings)?;
    match findings.iter().filter(|f| f.verdict == Verdict::Wrong).count() {
        0 => Ok(()),
        n => Err(Failure::Failed(anyhow::anyhow!("{} wrong, see above", count(n as u64, "thing")))),
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Client(e) => usage(e),
        Error::Broker(_) => Failure::Failed(error.into()),
    }
}

fn show(out: &mut impl Write, findings: &[Finding]) -> std::io::Result<()> {
    let left = |name| (name, Align::Left);
    let mut table = Table::new(&[left("topic"), left("setting"), left("wanted"), left("found"), left("")]);
    for f in findings {
        let verdict = if f.verdict == Verdict::Ok { "ok" } else { "WRONG" };
        table.row(vec![f.topic.clone(), f.setting.clone(), f.wanted.clone(), f.found.clone(), verdict.to_owned()]);
    }
    write!(out, "{}", table.text())?;
    for f in findings.iter().filter(|f| f.verdict == Verdict::Wrong) {
        writeln!(out, "\n{}, {}: {}, should be {}", printable(&f.topic), f.setting, f.found, f.wanted)?;
        writeln!(out, "  why: {}", f.why)?;
        writeln!(out, "  cure: {}", f.cure)?;
        for example in &f.examples {
            writeln!(out, "    {}", printable(example))?;
        }
    }
    Ok(())
}
