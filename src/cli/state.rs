//! `mailfuse state`: what was learned, out of the state topic into a file and back.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::{Failure, table::thousands, usage};
use crate::config::Config;
use crate::core::policy::Policy;
use crate::kafka::transfer;
use crate::state;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Another number of partitions moves accounts to other partitions, so that what was learned must move, too:
  1. stop the producers, and wait until the instances have read everything (lag 0 in /v1/status)
  2. stop all instances
  3. mailfuse state export learned.state
  4. add partitions to the events topic, delete the state topic, then `mailfuse topics create`
  5. mailfuse state import learned.state
  6. start instances, then producers

A new deployment begins with what old logs teach:
  mailfuse replay mail.log.* --save-state learned.state
  mailfuse state import learned.state

The file is that of `replay --save-state` and `--load-state`. Exit status: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write everything that the state topic holds into a file
    Export(Transfer),
    /// Write a file into an empty state topic, each account into its partition
    Import(Transfer),
}

#[derive(Debug, clap::Args)]
struct Transfer {
    /// The file
    file: PathBuf,
    /// Configuration; `mailfuse config` prints the defaults
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Export(transfer) => {
            let (config, policy) = transfer.policy()?;
            let shard = transfer::export(&config.kafka, &policy)?;
            state::save(&transfer.file, &shard, &policy)
                .with_context(|| format!("{}: the state was not written", transfer.file.display()))?;
            anstream::eprintln!("{} accounts in {}", thousands(shard.accounts() as u64), transfer.file.display());
        }
        Command::Import(transfer) => {
            let (config, policy) = transfer.policy()?;
            let shard = state::load(&transfer.file, &policy)
                .with_context(|| transfer.file.display().to_string())
                .map_err(usage)?;
            let imported = transfer::import(&config.kafka, &policy, &shard, config.run.start)?;
            anstream::eprintln!(
                "{} accounts in {} partitions of {}; they go on at offsets {:?}",
                thousands(imported.accounts as u64),
                imported.offsets.len(),
                config.kafka.topics.state,
                imported.offsets
            );
        }
    }
    Ok(())
}

impl Transfer {
    fn policy(&self) -> Result<(Config, Arc<Policy>), Failure> {
        let config = match &self.config {
            Some(path) => Config::load(path).map_err(usage)?,
            None => Config::default(),
        };
        let key = config.fingerprint_key().map_err(usage)?;
        let policy = Arc::new(config.policy(key).map_err(usage)?);
        Ok((config, policy))
    }
}
