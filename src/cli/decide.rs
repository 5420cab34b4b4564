//! What people at the desk do from a terminal: look at incidents, say what they were, decide about accounts. The active desk does it.

use std::io::Write as _;

use anyhow::anyhow;
use axum::http::Method;
use serde_json::{Value, json};

use super::ask::{self, Asked, encoded};
use super::table::{Align, Table, printable};
use super::{Failure, usage};
use crate::event::Timestamp;

/// What is printed of a long list.
const LIST_MAX: u32 = 1000;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List incidents, newest first
    Incidents {
        #[command(flatten)]
        asked: Asked,
        /// Those that are over, too
        #[arg(long)]
        all: bool,
        /// Only those that nobody has acknowledged
        #[arg(long)]
        unacknowledged: bool,
        /// Of this account
        #[arg(long)]
        account: Option<String>,
        /// Of this customer
        #[arg(long)]
        tenant: Option<String>,
        /// Of this campaign
        #[arg(long, value_name = "ID")]
        campaign: Option<String>,
        /// Flagged in this anomaly of the stream
        #[arg(long, value_name = "ID")]
        anomaly: Option<String>,
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIST_MAX)))]
        limit: u32,
    },
    /// Print one incident with its alerts, as JSON
    Show {
        #[command(flatten)]
        asked: Asked,
        /// Its id
        incident: String,
    },
    /// Say that you look after an incident
    Acknowledge {
        #[command(flatten)]
        asked: Asked,
        /// Its id
        incident: String,
        /// A word about it
        #[arg(long)]
        note: Option<String>,
    },
    /// Say what an incident was: it is closed
    #[command(after_help = "\
Resolved as a hijack, the account is put back to what it had learned before the burst. Where the flag was wrong and the account
will do the same again, say `mailfuse desk false-positive` instead.")]
    Resolve {
        #[command(flatten)]
        asked: Asked,
        /// Its id
        incident: String,
        /// What it was
        #[arg(value_enum)]
        was: Was,
        /// Why
        #[arg(long)]
        note: Option<String>,
    },
    /// Say that a flag was wrong: the incident is closed, and more is tolerated of the account for a time
    FalsePositive {
        #[command(flatten)]
        asked: Asked,
        /// Its id
        incident: String,
        /// Why: it is kept with the decision
        #[arg(long)]
        note: String,
        /// For how long
        #[arg(long, default_value_t = 90)]
        days: u32,
        /// By so many decades the bars are raised: 2 makes a further flag a hundred times less likely
        #[arg(long, default_value_t = 2.0)]
        decades: f64,
    },
    /// Write a note at an incident
    Note {
        #[command(flatten)]
        asked: Asked,
        /// Its id
        incident: String,
        /// What it says
        note: String,
    },
    /// Multiply the limits of an account, a tenant, a domain or a network, for a time
    #[command(after_help = "\
What goes beyond the multiplied limits is flagged all the same, and says that it was exempt.

  mailfuse desk exempt --config mailfuse.toml --account news@shop.example --days 2 --note 'spring sale, by telephone'
  mailfuse desk exempt --config mailfuse.toml --network 192.0.2.0/24 --until 2027-01-01T00:00:00Z --factor 3 --note office")]
    Exempt {
        #[command(flatten)]
        decision: Decision,
        /// What limits are multiplied by, above 1, at most 10
        #[arg(long, default_value_t = 10.0)]
        factor: f64,
    },
    /// Raise the bars of an account, a tenant or a domain, for a time
    Tolerate {
        #[command(flatten)]
        decision: Decision,
        /// By so many decades
        #[arg(long, default_value_t = 2.0)]
        decades: f64,
    },
    /// Have an account, a tenant or a domain judged as one of a stratum, for a time
    Pin {
        #[command(flatten)]
        decision: Decision,
        /// Which one
        #[arg(long, value_parser = ["established", "bulk"])]
        stratum: String,
    },
    /// List decisions that stand, newest first
    Decisions {
        #[command(flatten)]
        asked: Asked,
        /// Those that are over, too
        #[arg(long)]
        all: bool,
        /// About this account, tenant, domain or network
        #[arg(long)]
        name: Option<String>,
    },
    /// Take a decision back: what was decided under it stays so
    TakeBack {
        #[command(flatten)]
        asked: Asked,
        /// The decision's id
        decision: String,
        /// Why
        #[arg(long)]
        note: Option<String>,
    },
    /// Have an account go on under another name: the new name is judged by what the old one had learned
    #[command(after_help = "\
It counts from some seconds after it was found on; mail that the new name sent before is judged as a stranger's. The old name keeps
what it has.")]
    Rename {
        #[command(flatten)]
        asked: Asked,
        /// The name it had
        old: String,
        /// The name it has
        new: String,
        /// Why
        #[arg(long)]
        note: Option<String>,
    },
    /// List who did what, newest first
    Audit {
        #[command(flatten)]
        asked: Asked,
        /// About this account
        #[arg(long)]
        account: Option<String>,
        /// About this incident
        #[arg(long)]
        incident: Option<String>,
        /// By this person or program
        #[arg(long)]
        who: Option<String>,
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIST_MAX)))]
        limit: u32,
    },
}

/// What an incident was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Was {
    /// Somebody else sent in the owner's name.
    Hijack,
    /// The owner sent.
    NotHijack,
}

/// What every decision needs.
#[derive(Debug, clap::Args)]
pub(super) struct Decision {
    #[command(flatten)]
    asked: Asked,
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    until: Until,
    /// Counts from this moment on, RFC 3339 [default: as soon as every detector knows it]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Why: it is kept with the decision
    #[arg(long)]
    note: String,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// This account
    #[arg(long)]
    account: Option<String>,
    /// All accounts of this customer
    #[arg(long)]
    tenant: Option<String>,
    /// All accounts of this mail domain
    #[arg(long)]
    domain: Option<String>,
    /// What is sent from this network, as address/prefix; only `exempt`
    #[arg(long)]
    network: Option<String>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Until {
    /// Counts until before this moment, RFC 3339
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Counts for so many days
    #[arg(long)]
    days: Option<u32>,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Incidents { asked, all, unacknowledged, account, tenant, campaign, anomaly, limit } => {
            let mut query = vec![format!("limit={limit}")];
            query.extend((!all).then(|| "state=open".to_owned()));
            query.extend(unacknowledged.then(|| "acknowledged=false".to_owned()));
            query.extend(named("account", account));
            query.extend(named("tenant", tenant));
            query.extend(named("campaign", campaign));
            query.extend(named("anomaly", anomaly));
            incidents(&list(asked, "/v1/incidents", &query)?)
        }
        Command::Show { asked, incident } => {
            let whole = ask::send(asked, Method::GET, &format!("/v1/incidents/{}", encoded(incident)), None)?;
            print(&serde_json::to_string_pretty(&whole)?)
        }
        Command::Acknowledge { asked, incident, note } => {
            said(&post(asked, incident, "acknowledge", json!({ "note": note }))?)
        }
        Command::Resolve { asked, incident, was, note } => {
            let was = match was {
                Was::Hijack => "hijack",
                Was::NotHijack => "not_hijack",
            };
            said(&post(asked, incident, "resolve", json!({ "as": was, "note": note }))?)
        }
        Command::FalsePositive { asked, incident, note, days, decades } => {
            let body = json!({ "note": note, "days": days, "decades": decades });
            said(&post(asked, incident, "false-positive", body)?)
        }
        Command::Note { asked, incident, note } => said(&post(asked, incident, "note", json!({ "note": note }))?),
        Command::Exempt { decision, factor } => decide(decision, json!({ "what": "exempt", "factor": factor })),
        Command::Tolerate { decision, decades } => decide(decision, json!({ "what": "tolerate", "decades": decades })),
        Command::Pin { decision, stratum } => decide(decision, json!({ "what": "pin", "stratum": stratum })),
        Command::Decisions { asked, all, name } => {
            let mut query = vec![format!("limit={LIST_MAX}")];
            query.extend((!all).then(|| "standing=true".to_owned()));
            query.extend(named("name", name));
            decisions(&list(asked, "/v1/decisions", &query)?)
        }
        Command::TakeBack { asked, decision, note } => {
            let query = named("note", note).map(|q| format!("?{q}")).unwrap_or_default();
            let path = format!("/v1/decisions/{}{query}", encoded(decision));
            decisions(&[ask::send(asked, Method::DELETE, &path, None)?])
        }
        Command::Rename { asked, old, new, note } => {
            let body = json!({ "from": old, "to": new, "note": note });
            let renamed = ask::send(asked, Method::POST, "/v1/renames", Some(body))?;
            let (from, to) = (text(&renamed["from"]), text(&renamed["to"]));
            print(&printable(&match renamed["state"].as_str() {
                Some("done") => {
                    format!("{to} goes on with what {from} had learned from {} on", text(&renamed["counts_from"]))
                }
                _ => format!(
                    "{to} will go on with what {from} had learned: `mailfuse desk audit --account {to}` says when"
                ),
            }))
        }
        Command::Audit { asked, account, incident, who, limit } => {
            let mut query = vec![format!("limit={limit}")];
            query.extend(named("account", account));
            query.extend(named("incident", incident));
            query.extend(named("who", who));
            audit(&list(asked, "/v1/audit", &query)?)
        }
    }
}

fn named(name: &str, value: &Option<String>) -> Option<String> {
    value.as_ref().map(|value| format!("{name}={}", encoded(value)))
}

fn list(asked: &Asked, path: &str, query: &[String]) -> Result<Vec<Value>, Failure> {
    let page = ask::send(asked, Method::GET, &format!("{path}?{}", query.join("&")), None)?;
    let items = page["items"].as_array().cloned().unwrap_or_default();
    if let Some(next) = page["next"].as_i64() {
        anstream::eprintln!(
            "these are the newest {}, there are more: narrow it down, or see {path}?before={next}",
            items.len()
        );
    }
    Ok(items)
}

fn post(asked: &Asked, incident: &str, what: &str, body: Value) -> Result<Value, Failure> {
    ask::send(asked, Method::POST, &format!("/v1/incidents/{}/{what}", encoded(incident)), Some(body))
}

fn decide(decision: &Decision, mut body: Value) -> Result<(), Failure> {
    let Decision { asked, whom, until, from, note } = decision;
    let whom =
        [("account", &whom.account), ("tenant", &whom.tenant), ("domain", &whom.domain), ("network", &whom.network)];
    let Some((scope, Some(name))) = whom.into_iter().find(|(_, name)| name.is_some()) else {
        return Err(usage(anyhow!("name an account, a tenant, a domain or a network")));
    };
    let moment = |option: &str, text: &String| {
        Timestamp::parse(text).map_err(|e| usage(anyhow!("--{option} {}: {e}", printable(text))))
    };
    let from = from.as_ref().map(|text| moment("from", text)).transpose()?;
    let until = match (&until.until, until.days) {
        (Some(text), _) => moment("until", text)?,
        (None, days) => {
            let begins = from.unwrap_or(Timestamp(crate::kafka::outlet::now_ms()));
            Timestamp(begins.0 + i64::from(days.unwrap_or(1)) * 86_400_000)
        }
    };
    for (field, value) in [
        ("scope", json!(scope)),
        ("name", json!(name)),
        ("from", json!(from)),
        ("until", json!(until)),
        ("note", json!(note)),
    ] {
        body[field] = value;
    }
    decisions(&[ask::send(asked, Method::POST, "/v1/decisions", Some(body))?])
}

fn print(text: &str) -> Result<(), Failure> {
    Ok(anstream::stdout().write_all(format!("{}\n", text.trim_end()).as_bytes())?)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One incident after something was said about it, in a line.
fn said(incident: &Value) -> Result<(), Failure> {
    let mut line =
        format!("{} of {} is {}", text(&incident["id"]), text(&incident["account"]), text(&incident["state"]));
    if let Some(by) = incident["acknowledged"]["by"].as_str() {
        line.push_str(&format!(", acknowledged by {by}"));
    }
    if let Some(kind) = incident["resolved"]["as"].as_str() {
        line.push_str(&format!(", resolved as {} by {}", kind.replace('_', " "), text(&incident["resolved"]["by"])));
    }
    print(&printable(&line))
}

fn incidents(items: &[Value]) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("flagged", Align::Left),
        ("incident", Align::Left),
        ("severity", Align::Left),
        ("state", Align::Left),
        ("recipients", Align::Right),
        ("pattern", Align::Left),
        ("taken by", Align::Left),
        ("account", Align::Left),
    ]);
    for i in items {
        let state = i["resolved"]["as"].as_str().or(i["state"].as_str()).unwrap_or_default().replace('_', " ");
        let cells = [&i["flagged"], &i["id"], &i["severity"]].map(text);
        let rest = [&i["recipients"], &i["pattern"], &i["acknowledged"]["by"], &i["account"]].map(text);
        table.row(cells.into_iter().chain([state]).chain(rest).collect());
    }
    print(&table.text())
}

fn decisions(items: &[Value]) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("decision", Align::Left),
        ("what", Align::Left),
        ("by so much", Align::Left),
        ("about", Align::Left),
        ("from", Align::Left),
        ("until", Align::Left),
        ("by", Align::Left),
        ("why", Align::Left),
    ]);
    for d in items {
        let much = match text(&d["what"]).as_str() {
            "exempt" => format!("limits x {}", text(&d["factor"])),
            "tolerate" => format!("{} decades", text(&d["decades"])),
            "pin" => text(&d["stratum"]),
            _ => text(&d["incident"]),
        };
        let about = match text(&d["scope"]).as_str() {
            "account" => text(&d["name"]),
            scope => format!("{scope} {}", text(&d["name"])),
        };
        let rest = [&d["from"], &d["until"], &d["by"], &d["note"]].map(text);
        table.row([text(&d["id"]), text(&d["what"]), much, about].into_iter().chain(rest).collect());
    }
    print(&table.text())
}

fn audit(items: &[Value]) -> Result<(), Failure> {
    let mut table = Table::new(&[
        ("when", Align::Left),
        ("who", Align::Left),
        ("what", Align::Left),
        ("about", Align::Left),
        ("why", Align::Left),
    ]);
    for e in items {
        let fields = ["account_before", "account", "scope", "incident", "decision", "relay", "endpoint", "message"];
        let about: Vec<String> = fields.iter().filter_map(|f| e[*f].as_str()).map(str::to_owned).collect();
        table.row(vec![text(&e["at"]), text(&e["who"]), text(&e["what"]), about.join(" "), text(&e["note"])]);
    }
    print(&table.text())
}
