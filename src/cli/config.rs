//! `mailfuse config`: the reference, or the check of a file.

use std::io::Write;
use std::path::PathBuf;

use super::{Failure, usage};
use crate::config::{Config, REFERENCE};

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
            writeln!(out, "{}: good; digest {}", path.display(), config.digest())?;
        }
    }
    Ok(())
}
