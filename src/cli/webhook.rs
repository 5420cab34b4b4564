//! `mailfuse webhook`: try endpoints, and ask the active desk to send again.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use axum::http::Method;
use serde_json::json;

use super::ask::{self, Asked, encoded};
use super::table::{Align, Table};
use super::{Failure, usage};
use crate::config::Config;
use crate::core::alert::Severity;
use crate::desk::mail::settings::Mailbox;
use crate::desk::sender;
use crate::desk::webhook::body::{IncidentState, Message, What, prepare};
use crate::desk::webhook::client::{Client, SystemResolver};
use crate::desk::webhook::outcome::Outcome;
use crate::desk::webhook::settings::{Endpoint, Format};
use crate::event::Timestamp;
use crate::kafka::outlet::now_ms;

/// A person waits for the answer.
const WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Send a test message, once, and say how it ended
    #[command(after_help = TEST)]
    Test {
        /// Configuration with the endpoints
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Endpoints by name [default: all]
        names: Vec<String>,
    },
    /// Let the active desk send a message again, under its id
    #[command(after_help = ASKS)]
    Resend {
        #[command(flatten)]
        asked: Asked,
        /// The endpoint's name
        endpoint: String,
        /// The webhook id, as `/v1/deliveries` has it
        id: String,
        /// Why: the audit keeps it
        #[arg(long)]
        note: Option<String>,
    },
    /// Let the active desk send to an endpoint again whose receiver had answered 410
    #[command(after_help = ASKS)]
    Enable {
        #[command(flatten)]
        asked: Asked,
        /// The endpoint's name
        endpoint: String,
        /// Why: the audit keeps it
        #[arg(long)]
        note: Option<String>,
    },
}

const TEST: &str = "\
An endpoint is a table [[desk.webhook]] or [[desk.mail]] of the configuration; `mailfuse config` prints their keys with their
defaults. The secret of a pagerduty endpoint is its routing key, and its url may be left out. A secret for the others, which the receiver needs as well:

  echo \"whsec_$(head -c 32 /dev/urandom | base64)\" > abuse.secret

At PagerDuty and Alertmanager a warning is begun and ended at once: whoever is on call may be woken.

Exit status: 0 every endpoint has taken it, 1 some have not, 2 wrong usage or configuration.";

const ASKS: &str = "\
The instance must be the active desk; where it has tokens, it wants one with the role `accounts`. Exit status: 0 it is done, 1 it is not, 2 wrong usage or
configuration.";

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Test { config, names } => test(config, names),
        Command::Resend { asked, endpoint, id, note } => {
            wish(asked, &format!("/v1/deliveries/{}/{}/resend", encoded(endpoint), encoded(id)), note.as_deref())
        }
        Command::Enable { asked, endpoint, note } => {
            wish(asked, &format!("/v1/endpoints/{}/enable", encoded(endpoint)), note.as_deref())
        }
    }
}

/// Asks for something that needs no words but why.
fn wish(asked: &Asked, path: &str, note: Option<&str>) -> Result<(), Failure> {
    ask::send(asked, Method::POST, path, note.map(|note| json!({ "note": note }))).map(drop)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn test(config: &Path, names: &[String]) -> Result<(), Failure> {
    let config = Config::load(config).map_err(usage)?;
    let all = config.desk.endpoints();
    if all.is_empty() {
        return Err(usage(anyhow!(
            "no [[desk.webhook]] and no [[desk.mail]] is configured; `mailfuse config` prints one of each"
        )));
    }
    if let Some(name) = names.iter().find(|n| !all.iter().any(|e| e.name == **n)) {
        let known: Vec<&str> = all.iter().map(|e| &*e.name).collect();
        return Err(usage(anyhow!("no endpoint `{name}`: there are {}", known.join(", "))));
    }
    let mut table = Table::new(&[("endpoint", Align::Left), ("outcome", Align::Left), ("", Align::Left)]);
    let mut failed = 0;
    let runtime = runtime()?;
    for endpoint in all.iter().filter(|e| names.is_empty() || names.contains(&e.name)) {
        let mailbox = config.desk.mail.iter().find(|m| m.name == endpoint.name);
        let outcome = runtime.block_on(one(endpoint, mailbox))?;
        failed += usize::from(outcome.why().is_some());
        let done =
            if keeps_incidents(endpoint) { "an incident was begun there and ended" } else { "the receiver has it" };
        table.row(vec![endpoint.name.clone(), outcome.label().to_owned(), outcome.why().unwrap_or(done).to_owned()]);
    }
    anstream::stdout().write_all(table.text().as_bytes())?;
    if failed > 0 {
        return Err(
            anyhow!("{failed} of the endpoints did not take it: look at url, secret and the receiver's log").into()
        );
    }
    Ok(())
}

/// Sends a test. Where a receiver keeps incidents and wakes somebody, one begins and ends again: the end alone would try nothing.
async fn one(endpoint: &Endpoint, mailbox: Option<&Mailbox>) -> Result<Outcome, Failure> {
    let now_ms = now_ms();
    let over = test_message(endpoint, IncidentState::Cleared, now_ms);
    if let Some(mailbox) = mailbox {
        let mailer = sender::mailer(mailbox).map_err(usage)?.within(WITHIN);
        let mail = mailer.prepare(&over, now_ms / 1000).map_err(usage)?;
        return Ok(mailer.send(&mail).await);
    }
    let keys = sender::keys(endpoint).map_err(usage)?;
    let client = Client::new(endpoint, Arc::new(SystemResolver)).map_err(usage)?.within(WITHIN);
    if keeps_incidents(endpoint) {
        let begun = test_message(endpoint, IncidentState::Open, now_ms);
        let request = prepare(endpoint, &keys, &begun, now_ms / 1000).map_err(usage)?;
        let outcome = client.send(&request).await;
        if outcome.why().is_some() {
            return Ok(outcome);
        }
    }
    let request = prepare(endpoint, &keys, &over, now_ms / 1000).map_err(usage)?;
    Ok(client.send(&request).await)
}

fn keeps_incidents(endpoint: &Endpoint) -> bool {
    matches!(endpoint.format, Format::Pagerduty | Format::Alertmanager)
}

fn test_message(endpoint: &Endpoint, state: IncidentState, now_ms: i64) -> Message {
    Message {
        id: match state {
            IncidentState::Cleared => format!("test-{now_ms}"),
            IncidentState::Open | IncidentState::Acknowledged => format!("test-{now_ms}-begun"),
        },
        kind: "webhook.test".to_owned(),
        at: Timestamp(now_ms),
        severity: Severity::Warning,
        incident: format!("test-{now_ms}"),
        link: String::new(),
        customer: None,
        what: What::Other {
            summary: format!("A test of mailfuse: the endpoint {} works.", endpoint.name),
            state,
            data: json!({ "endpoint": endpoint.name }),
        },
    }
}
