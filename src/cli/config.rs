//! `mailfuse config`: the reference, or the check of a file.

use std::io::Write;
use std::path::PathBuf;

use super::{Failure, usage};
use crate::config::{Config, REFERENCE};
use crate::desk::sender;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Check this file instead, and print the digest of the configuration that it makes
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match &arguments.check {
        None => out.write_all(REFERENCE.as_bytes())?,
        Some(path) => {
            let config = Config::load(path).map_err(usage)?;
            config.fingerprint_key().map_err(usage)?;
            // A running desk goes on without; whoever asks beforehand can mend it in peace.
            if let Some((_, why)) = sender::broken(&config.desk).into_iter().next() {
                return Err(usage(why));
            }
            writeln!(out, "{}: good; digest {}", path.display(), config.digest())?;
        }
    }
    Ok(())
}
