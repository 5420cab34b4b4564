//! `mailfuse desk`: the desk by itself, what is done with its database, and what people do at it.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::{Failure, decide, usage};
use crate::config::{Config, LogFormat};
use crate::desk::{alone, index};
use crate::telemetry::logs;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Takes alerts from the alerts topic and makes incidents of them, which it keeps in the desk topic. `mailfuse run` does the same
beside its detector; of all instances one is the active desk, the others stand by and take over within seconds.

  mailfuse desk --config mailfuse.toml             run it alone, on a machine without detectors
  curl http://127.0.0.1:9925/v1/desk               whether this one is active, and how far
  mailfuse desk incidents --config mailfuse.toml   what goes on
  mailfuse desk resolve --config mailfuse.toml i-… hijack --note 'password changed'
  mailfuse desk backup --config mailfuse.toml desk-copy.sqlite

Exit status: 0 stopped as asked, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration; `mailfuse config` prints the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Copy the database, while it is used
    Backup {
        /// Configuration, for desk.database
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Where to; must not be there yet
        to: PathBuf,
    },
    #[command(flatten)]
    Decide(Box<decide::Command>),
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Some(Command::Backup { config, to }) => backup(config, to),
        Some(Command::Decide(command)) => decide::run(command),
        None => {
            let config = match &arguments.config {
                Some(path) => Config::load(path).map_err(usage)?,
                None => Config::default(),
            };
            let format = match config.log.format {
                LogFormat::Text => logs::Format::Text,
                LogFormat::Json => logs::Format::Json,
            };
            logs::init(format, "info");
            Ok(alone::run(&config)?)
        }
    }
}

fn backup(config: &Path, to: &Path) -> Result<(), Failure> {
    let config = Config::load(config).map_err(usage)?;
    if config.desk.database.is_empty() {
        return Err(usage(anyhow!(
            "desk.database is empty, so the database is a temporary file of each instance: give it a path first"
        )));
    }
    if to.exists() {
        return Err(usage(anyhow!("{} is there already: name a file that is not", to.display())));
    }
    index::backup(Path::new(&config.desk.database), to)?;
    Ok(())
}
