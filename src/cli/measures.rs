//! Accounts that are stopped and relays that are pulled, from a terminal. The active desk does it.

use std::io::Write as _;

use anyhow::anyhow;
use axum::http::Method;
use serde_json::{Value, json};

use super::Failure;
use super::ask::{self, Asked, encoded};
use super::confirm::{Waiting, confirm};
use super::table::{Align, Table, printable};

/// What is fetched of a long list at a time, and at most.
const PAGE: usize = 1000;
const LIST_MAX: usize = 20_000;
/// Characters of what a hook answered.
const SAID_CHARS_MAX: usize = 100;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Accounts {
    /// List accounts that are stopped or throttled, that wait for a person, or that would be, newest first
    #[command(after_help = "\
Who still tries to send, and how often, is what the policy service of the instance that is asked has seen: others count for \
themselves (--at).")]
    List(List),
    /// Stop an account
    Stop {
        #[command(flatten)]
        asked: Asked,
        /// The account
        account: String,
        /// For so many hours [default: relays.stop.max_s]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8784))]
        hours: Option<u32>,
        /// Let a few new recipients an hour through
        #[arg(long)]
        throttle: bool,
        /// Why: it is kept with the stop
        #[arg(long)]
        note: String,
    },
    /// Let an account send again; it is on probation for a while
    Release {
        #[command(flatten)]
        asked: Asked,
        /// The account
        account: String,
        /// It was a hijack, and the owner has a new password: what the burst taught is taken out
        #[arg(long, conflicts_with = "no_hijack")]
        password_changed: bool,
        /// It was none: nothing is held against the account
        #[arg(long)]
        no_hijack: bool,
        /// Why
        #[arg(long)]
        note: Option<String>,
    },
    /// Stop or throttle accounts that wait for a person, or stand behind what was done without one
    Confirm {
        #[command(flatten)]
        asked: Asked,
        /// The accounts
        #[arg(value_name = "ACCOUNT", required_unless_present = "all_waiting", conflicts_with = "all_waiting")]
        accounts: Vec<String>,
        #[command(flatten)]
        waiting: Waiting,
        /// Why: the audit keeps it
        #[arg(long)]
        note: Option<String>,
    },
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Relays {
    /// List relays that are pulled, that wait for a person, or that would be, newest first; and whether pulls are held off
    List(List),
    /// Pull a relay out of its pool
    Pull {
        #[command(flatten)]
        asked: Asked,
        /// The relay, as its pool has it
        relay: String,
        /// For so many hours [default: relays.pull.max_s]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8784))]
        hours: Option<u32>,
        /// Why: it is kept with the pull
        #[arg(long)]
        note: String,
    },
    /// Put relays back into their pools
    #[command(after_help = "\
With --all nothing is pulled for --hold-hours afterwards; `mailfuse relays resume` ends that earlier.")]
    Restore {
        #[command(flatten)]
        asked: Asked,
        /// The relay, as its pool has it
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        relay: Option<String>,
        /// All of them
        #[arg(long)]
        all: bool,
        /// With --all: nothing is pulled without a person for so long
        #[arg(long, default_value_t = 1, requires = "all", value_parser = clap::value_parser!(u32).range(0..=168))]
        hold_hours: u32,
        /// Why
        #[arg(long)]
        note: Option<String>,
    },
    /// Let relays be pulled again after `restore --all`
    Resume {
        #[command(flatten)]
        asked: Asked,
        /// Why
        #[arg(long)]
        note: Option<String>,
    },
    /// Pull relays that wait for a person, or stand behind a pull that was made without one
    Confirm {
        #[command(flatten)]
        asked: Asked,
        /// The relays, as their pools have them
        #[arg(value_name = "RELAY", required_unless_present = "all_waiting", conflicts_with = "all_waiting")]
        relays: Vec<String>,
        #[command(flatten)]
        waiting: Waiting,
        /// Why: the audit keeps it
        #[arg(long)]
        note: Option<String>,
    },
    /// List addresses of relays that a blocklist names, newest first
    Listings(List),
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    asked: Asked,
    /// What is over, too
    #[arg(long)]
    all: bool,
}

pub(super) fn accounts(command: &Accounts) -> Result<(), Failure> {
    match command {
        Accounts::List(List { asked, all }) => {
            let mut measures = found(asked, "stop", None, *all)?;
            measures.extend(found(asked, "throttle", None, *all)?);
            measures.sort_by_key(|m| std::cmp::Reverse(m["made_ms"].as_i64()));
            // One that does not know yet what is in force knows of no attempts.
            let trying = match ask::send(asked, Method::GET, "/v1/trying", None) {
                Ok(page) => page["items"].as_array().cloned().unwrap_or_default(),
                Err(_) => Vec::new(),
            };
            print(&measures, &trying)
        }
        Accounts::Stop { asked, account, hours, throttle, note } => {
            let kind = if *throttle { "throttle" } else { "stop" };
            order(asked, kind, account, *hours, note)
        }
        Accounts::Release { asked, account, password_changed, no_hijack, note } => {
            let mut measures = found(asked, "stop", Some(account), false)?;
            measures.extend(found(asked, "throttle", Some(account), false)?);
            if measures.is_empty() {
                return Err(anyhow!("{} is not stopped: mailfuse accounts list", printable(account)).into());
            }
            if *no_hijack {
                for incident in measures.iter().filter_map(|m| m["incident"].as_str()) {
                    let path = format!("/v1/incidents/{}/resolve", encoded(incident));
                    // One that a person ordered has no incident of the detector.
                    if incident.starts_with("p-") {
                        continue;
                    }
                    ask::send(asked, Method::POST, &path, Some(json!({ "as": "not_hijack", "note": note })))?;
                }
            }
            let action = if *password_changed { "password_changed" } else { "account_released" };
            let body = json!({ "action": action, "account": account, "note": note });
            ask::send(asked, Method::POST, "/v1/actions", Some(body))?;
            line(&format!("{} may send again", printable(account)))
        }
        Accounts::Confirm { asked, accounts, waiting, note } => {
            confirm(asked, &["stop", "throttle"], accounts, waiting, note.as_deref())
        }
    }
}

pub(super) fn relays(command: &Relays) -> Result<(), Failure> {
    match command {
        Relays::Listings(List { asked, all }) => listings(asked, *all),
        Relays::List(List { asked, all }) => {
            let measures = found(asked, "pull", None, *all)?;
            held(asked)?;
            print(&measures, &[])
        }
        Relays::Pull { asked, relay, hours, note } => order(asked, "pull", relay, *hours, note),
        Relays::Restore { asked, relay: Some(relay), note, .. } => {
            let measures = found(asked, "pull", Some(relay), false)?;
            if measures.is_empty() {
                return Err(anyhow!("{} is not pulled: mailfuse relays list", printable(relay)).into());
            }
            for id in measures.iter().filter_map(|m| m["id"].as_str()) {
                let path = format!("/v1/measures/{}/end", encoded(id));
                ask::send(asked, Method::POST, &path, Some(json!({ "note": note })))?;
            }
            line(&format!("{} is put back", printable(relay)))
        }
        Relays::Restore { asked, relay: None, hold_hours, note, .. } => {
            let body = json!({ "hold_s": hold_hours * 3600, "note": note });
            let answer = ask::send(asked, Method::POST, "/v1/relays/restore", Some(body))?;
            line(&format!(
                "{} put back; nothing is pulled before {}",
                answer["restored"],
                answer["held_until"].as_str().unwrap_or_default()
            ))
        }
        Relays::Resume { asked, note } => {
            let query = note.as_ref().map(|note| format!("?note={}", encoded(note))).unwrap_or_default();
            ask::send(asked, Method::DELETE, &format!("/v1/relays/hold{query}"), None)?;
            line("relays are pulled again where they are exposed")
        }
        Relays::Confirm { asked, relays, waiting, note } => confirm(asked, &["pull"], relays, waiting, note.as_deref()),
    }
}

/// What was fetched of a list.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) items: Vec<Value>,
    /// Where it goes on, of one that is too long.
    pub(super) more: Option<String>,
}

/// A list, page by page. `path` has a question.
pub(super) fn pages(asked: &Asked, path: &str) -> Result<Found, Failure> {
    let first = format!("{path}&limit={PAGE}");
    let (mut found, mut next) = (Found::default(), first.clone());
    loop {
        let mut page = ask::send(asked, Method::GET, &next, None)?;
        if let Value::Array(items) = page["items"].take() {
            found.items.extend(items);
        }
        let Some(before) = page["next"].as_i64() else { return Ok(found) };
        next = format!("{first}&before={before}");
        if found.items.len() >= LIST_MAX {
            found.more = Some(next);
            return Ok(found);
        }
    }
}

/// The same, for one that is shown: where it is too long that is said.
fn listed(asked: &Asked, path: &str) -> Result<Vec<Value>, Failure> {
    let found = pages(asked, path)?;
    if let Some(more) = &found.more {
        anstream::eprintln!("these are the newest {}: GET {more} has those before", found.items.len());
    }
    Ok(found.items)
}

/// Measures of a kind, newest first: of one subject or all, those that are over only where `all` are wanted.
pub(super) fn found(asked: &Asked, kind: &str, subject: Option<&str>, all: bool) -> Result<Vec<Value>, Failure> {
    let mut path = format!("/v1/measures?kind={kind}");
    if !all {
        path.push_str("&open=true");
    }
    if let Some(subject) = subject {
        let name = if kind == "pull" { "relay" } else { "account" };
        path.push_str(&format!("&{name}={}", encoded(subject)));
    }
    listed(asked, &path)
}

/// Says whether pulls are held off.
fn held(asked: &Asked) -> Result<(), Failure> {
    let hold = match ask::send(asked, Method::GET, "/v1/relays/hold", None) {
        Ok(hold) => hold,
        Err(_) => {
            anstream::eprintln!("whether pulls are held off is not known: the instance does not say it");
            return Ok(());
        }
    };
    let Some(until) = hold["held_until"].as_str() else { return Ok(()) };
    let note = hold["note"].as_str().map(|note| format!(": {}", printable(note))).unwrap_or_default();
    line(&format!(
        "nothing is pulled without a person before {until}, by {}{note}; `mailfuse relays resume` ends that",
        printable(hold["by"].as_str().unwrap_or_default())
    ))
}

fn order(asked: &Asked, kind: &str, subject: &str, hours: Option<u32>, note: &str) -> Result<(), Failure> {
    let body = json!({ "kind": kind, "subject": subject, "for_s": hours.map(|h| h * 3600), "note": note });
    print(&[ask::send(asked, Method::POST, "/v1/measures", Some(body))?], &[])
}

fn listings(asked: &Asked, all: bool) -> Result<(), Failure> {
    let mut path = "/v1/listings?".to_owned();
    if !all {
        path.push_str("standing=true");
    }
    let items = listed(asked, &path)?;
    let left = ["relay", "address", "list", "codes", "heard", "over"].map(|name| (name, Align::Left));
    let mut table = Table::new(&left);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let words = |value: &Value| value.as_array().map(|all| all.iter().map(text).collect::<Vec<_>>().join(" "));
    for l in &items {
        let codes = [&l["codes"], &l["reasons"]].map(|value| words(value).unwrap_or_default()).join(" ");
        let over = if l["unwatched"] == true { "not asked any more".to_owned() } else { text(&l["until"]) };
        table.row(vec![text(&l["relay"]), text(&l["address"]), text(&l["zone"]), codes, text(&l["since"]), over]);
    }
    line(table.text().trim_end())
}

pub(super) fn line(text: &str) -> Result<(), Failure> {
    Ok(anstream::stdout().write_all(format!("{text}\n").as_bytes())?)
}

/// What each hook was last told of a measure, and what it answered.
fn told(measure: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let call = |c: &Value| {
        let said: String = text(&c["said"]).split_whitespace().collect::<Vec<_>>().join(" ");
        let said: String = said.chars().take(SAID_CHARS_MAX).collect();
        let again = if c["stage"] == "done" { String::new() } else { format!(", attempts: {}", c["attempts"]) };
        let colon = if said.is_empty() { "" } else { ": " };
        format!("{}: {} {}{again}{colon}{said}", text(&c["hook"]), text(&c["verb"]), text(&c["stage"]))
    };
    measure["hooks"].as_array().map(|all| all.iter().map(call).collect::<Vec<_>>().join("; ")).unwrap_or_default()
}

/// Prints measures; of those among `trying` how often their accounts have still tried to send, and when last.
pub(super) fn print(measures: &[Value], trying: &[Value]) -> Result<(), Failure> {
    let mut columns = vec![
        ("made", Align::Left),
        ("what", Align::Left),
        ("state", Align::Left),
        ("about", Align::Left),
        ("until", Align::Left),
        ("by", Align::Left),
        ("why", Align::Left),
    ];
    if !trying.is_empty() {
        columns.push(("still tries", Align::Left));
    }
    let has_hooks = measures.iter().any(|m| m["hooks"].as_array().is_some_and(|all| !all.is_empty()));
    if has_hooks {
        columns.push(("hooks", Align::Left));
    }
    let mut table = Table::new(&columns);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let time = |value: &Value| value.as_i64().map(|ms| crate::event::Timestamp(ms).to_string()).unwrap_or_default();
    for m in measures {
        let ended = &m["ended"];
        let (until, by, why) = if ended.is_object() {
            (&ended["at_ms"], &ended["by"], &ended["why"])
        } else {
            (&m["until_ms"], if m["confirmed_by"].is_string() { &m["confirmed_by"] } else { &m["by"] }, &m["why"])
        };
        let mut row = vec![
            time(&m["made_ms"]),
            text(&m["kind"]),
            text(&m["state"]).replace('_', " "),
            text(&m["subject"]),
            time(until),
            text(by),
            text(why),
        ];
        if !trying.is_empty() {
            let attempts = trying.iter().find(|a| a["measure"] == m["id"]);
            row.push(attempts.map_or_else(String::new, |a| {
                format!("{} times, last {} from {}", a["refused"], text(&a["last"]), text(&a["client"]))
            }));
        }
        if has_hooks {
            row.push(told(m));
        }
        table.row(row);
    }
    line(table.text().trim_end())
}
