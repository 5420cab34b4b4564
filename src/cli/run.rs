//! `mailfuse run`: the consumer.

use std::path::PathBuf;

use super::{Failure, usage};
use crate::config::{Config, LogFormat};
use crate::kafka::restore::Allowed;
use crate::run::{Instance, Options};
use crate::telemetry::logs;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads the events topic as a member of a consumer group, on one machine or on many, and writes alerts to the alerts topic. What
it has learned is kept in the state topic; after a crash, whoever takes a partition over goes on where its last checkpoint was.

  mailfuse topics create --config mailfuse.toml    make the topics
  mailfuse run --config mailfuse.toml              read, detect, alert
  kill -HUP PID                                    read the configuration again; refused as a whole where it is wrong
  kill -TERM PID                                   a last checkpoint, then stop
  curl http://127.0.0.1:9925/v1/status             how it stands

Exit status: 0 stopped as asked, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Arguments {
    /// Configuration; `mailfuse config` prints the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where retention ran past the next event to read, go on at the oldest one; what lies between is lost
    #[arg(long)]
    accept_gap: bool,
    /// Begin without what was known of accounts whose stored form cannot be read
    #[arg(long)]
    forget_unreadable: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = match &arguments.config {
        Some(path) => Config::load(path).map_err(usage)?,
        None => Config::default(),
    };
    config.fingerprint_key().map_err(usage)?;
    let format = match config.log.format {
        LogFormat::Text => logs::Format::Text,
        LogFormat::Json => logs::Format::Json,
    };
    logs::init(format, "info");
    let allowed = Allowed { gap: arguments.accept_gap, unreadable: arguments.forget_unreadable };
    let options = Options { config, path: arguments.config.clone(), allowed, is_stateless: false };
    Instance::start(options)?.run_until_stopped()?;
    Ok(())
}
