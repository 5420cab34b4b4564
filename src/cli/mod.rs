//! The commands, one file each. Here: the arguments, and what becomes of errors.

mod ask;
mod astray;
mod calibrate;
mod config;
mod confirm;
mod control;
mod decide;
mod demo;
mod desk;
mod explain;
mod feed;
mod find;
mod look_back;
mod measures;
mod publish;
mod rejects;
mod replay;
mod run;
mod state;
mod stop;
mod summary;
mod table;
mod token;
mod topics;
mod webhook;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::logs;

/// Names a hijacked mail account within its first few spam messages, and says why.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Exit status: 0 done, 1 failed, 2 wrong usage or configuration.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it work: a generated provider, a hijack, an alert; nothing to install, half a minute
    Demo(demo::Arguments),
    /// Read mail logs and name the hijacked accounts
    Replay(Box<replay::Arguments>),
    /// Consume the provider's events from Kafka, and alert
    Run(run::Arguments),
    /// Look at incidents and decide about accounts; run the desk without a detector beside it
    Desk(desk::Arguments),
    /// Stop and release accounts, and see which are stopped
    #[command(subcommand)]
    Accounts(measures::Accounts),
    /// Pull relays and put them back, and see which are pulled
    #[command(subcommand)]
    Relays(measures::Relays),
    /// List the queue ids of a burst, for `postsuper -h -` or `exim -Mf`
    QueueIds(look_back::QueueIds),
    /// Name the customers who shared the relays of a burst, with what the help desk can write to them
    Collateral(look_back::Collateral),
    /// Try the endpoints that alerts are sent to, and have messages sent again
    Webhook(webhook::Arguments),
    /// Make tokens for those who may ask an instance over HTTP
    Token(token::Arguments),
    /// Write logs or events to the topic that `run` reads
    Publish(publish::Arguments),
    /// Look at records that could not be read, and publish again those that now can be
    Rejects(rejects::Arguments),
    /// Take what was learned out of the state topic, or put it in
    State(state::Arguments),
    /// Make the Kafka topics that are missing, and check all of them
    Topics(topics::Arguments),
    /// Measure on clean mail how often each score is reached, for choosing thresholds
    Calibrate(calibrate::Arguments),
    /// Print every configuration key with its default, or check a file
    Config(config::Arguments),
}

/// A failure, by its exit status.
#[derive(Debug)]
enum Failure {
    /// Wrong usage or configuration.
    Usage(anyhow::Error),
    /// Everything else.
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(e: E) -> Self {
        Self::Failed(e.into())
    }
}

/// Makes an error one of wrong usage.
fn usage(e: impl Into<anyhow::Error>) -> Failure {
    Failure::Usage(e.into())
}

/// Whether the program understands these arguments, of which the first is its own name; nothing is run. To ask for
/// help or the version is understood.
///
/// # Errors
/// What it would say, and whether that is only that something is missing.
pub fn understands(arguments: &[String]) -> Result<(), Misunderstood> {
    use clap::error::ErrorKind;
    match Arguments::try_parse_from(arguments) {
        Ok(_) => Ok(()),
        Err(e) => match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(()),
            kind => {
                let is_short = matches!(
                    kind,
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::MissingSubcommand
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                );
                Err(Misunderstood { words: e.to_string(), is_short })
            }
        },
    }
}

/// Arguments that the program does not understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misunderstood {
    /// What it says.
    pub words: String,
    /// What is there is understood, and something is missing.
    pub is_short: bool,
}

/// Runs the program with the process's arguments.
pub fn run() -> ExitCode {
    let command = Arguments::parse().command;
    match command {
        // It has the format of its configuration.
        Command::Run(_) | Command::Desk(_) => {}
        // Its broker goes away before its clients do.
        Command::Demo(_) => logs::init(logs::Format::Text, "error"),
        _ => logs::init(logs::Format::Text, "warn"),
    }
    let done = match command {
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Desk(arguments) => desk::run(&arguments),
        Command::Accounts(command) => measures::accounts(&command),
        Command::Relays(command) => measures::relays(&command),
        Command::Collateral(arguments) => look_back::collateral(&arguments),
        Command::QueueIds(arguments) => look_back::queue_ids(&arguments),
        Command::Webhook(arguments) => webhook::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
        Command::Publish(arguments) => publish::run(&arguments),
        Command::Rejects(arguments) => rejects::run(&arguments),
        Command::State(arguments) => state::run(&arguments),
        Command::Topics(arguments) => topics::run(&arguments),
        Command::Calibrate(arguments) => calibrate::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads us has enough: `mailfuse replay … | head`.
        Err(Failure::Failed(e)) if is_broken_pipe(&e) => ExitCode::SUCCESS,
        Err(Failure::Failed(e)) => {
            anstream::eprintln!("mailfuse: {e:#}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(e)) => {
            anstream::eprintln!("mailfuse: {e:#}");
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(e: &anyhow::Error) -> bool {
    e.chain().any(|cause| {
        let of_io = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
        cause.downcast_ref::<io::Error>().is_some_and(of_io)
            || cause
                .downcast_ref::<serde_json::Error>()
                .is_some_and(|e| e.io_error_kind() == Some(io::ErrorKind::BrokenPipe))
            || cause.downcast_ref::<csv::Error>().is_some_and(|e| matches!(e.kind(), csv::ErrorKind::Io(e) if of_io(e)))
    })
}
