//! `mailfuse token`: who may ask an instance over HTTP.

use std::io::Write;

use clap::ValueEnum;

use super::{Failure, usage};
use crate::telemetry::access::Right;
use crate::telemetry::token::{self, Hash, Token};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token, and the table of the configuration that lets it in
    #[command(after_help = NEW)]
    New {
        /// Who gets it, as the audit names them
        #[arg(long)]
        name: String,
        /// What they may do; may be given several times
        #[arg(long = "role", value_enum, default_value = "look")]
        roles: Vec<Role>,
    },
}

/// The roles as words of the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    /// Read everything
    Look,
    /// Decide about accounts, and about what is delivered
    Accounts,
    /// Decide about relays
    Relays,
}

const NEW: &str = "\
The token goes to standard output, the table [[http.token]] to standard error: it holds the token's hash alone, so that the
configuration is no secret. The token is shown this once.

  mailfuse token new --name console --role look --role accounts > console.token

Whoever asks sends `Authorization: Bearer TOKEN`; mailfuse's own commands take --token-file FILE or MAILFUSE_TOKEN. To take a
token back, remove its table and reload (SIGHUP), or restart. Exit status: 0 done, 1 failed, 2 wrong usage.";

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Command::New { name, roles } = &arguments.command;
    let rights = roles.iter().map(|role| match role {
        Role::Look => Right::Look,
        Role::Accounts => Right::Accounts,
        Role::Relays => Right::Relays,
    });
    let secret = token::new()?;
    let table = Token { name: name.clone(), roles: rights.collect(), hash: Hash::of(&secret) };
    token::check(std::slice::from_ref(&table)).map_err(usage)?;
    writeln!(anstream::stderr(), "[[http.token]]\n{}", toml::to_string(&table)?)?;
    writeln!(anstream::stdout(), "{secret}")?;
    Ok(())
}
