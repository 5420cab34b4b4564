//! What a burst has in the queues and who shared its relays, asked from a running instance, which reads the events topic again.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use axum::http::Method;
use serde_json::Value;

use super::Failure;
use super::ask::{self, Asked, encoded};
use super::table::{Align, Table, printable};

/// An instance reads for ten minutes at most.
const WITHIN: Duration = Duration::from_secs(660);
/// The wait before it is asked again.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
One id a line goes to standard output, and nothing else; what was counted goes to standard error. An id is left out once no mail is
known to wait under it. All that the account has sent since the burst's first message is listed, also to people it knows.

  mailfuse queue-ids --config mailfuse.toml INCIDENT --host \"$(hostname -f)\" | postsuper -h -
  mailfuse queue-ids --config mailfuse.toml INCIDENT --host \"$(hostname -f)\" | xargs -r exim -Mf

Without --host those of all hosts are listed. Two hosts may have the same id for two messages: name the host where it matters.")]
pub(super) struct QueueIds {
    #[command(flatten)]
    asked: Asked,
    /// The incident's id
    incident: String,
    /// Only ids of this host's queue, as events name it; those of which no event says whose they are are left out
    #[arg(long)]
    host: Option<String>,
    /// How many at most
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

pub(super) fn queue_ids(a: &QueueIds) -> Result<(), Failure> {
    let mut path = format!("/v1/incidents/{}/queue-ids?limit={}", encoded(&a.incident), a.limit);
    if let Some(host) = &a.host {
        path.push_str(&format!("&host={}", encoded(host)));
    }
    let answer = found(&a.asked, &path)?;
    let ids: Vec<&str> = answer["ids"].as_array().into_iter().flatten().filter_map(|q| q["id"].as_str()).collect();
    let mut out = std::io::stdout().lock();
    for id in &ids {
        writeln!(out, "{id}")?;
    }
    out.flush()?;
    for line in counted(&answer, ids.len(), a.host.as_deref()) {
        anstream::eprintln!("{line}");
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
pub(super) struct Collateral {
    #[command(flatten)]
    asked: Asked,
    /// The incident's id
    incident: String,
    /// All accounts as CSV, with a letter to each; else the first hundred as a table
    #[arg(long)]
    csv: bool,
}

pub(super) fn collateral(a: &Collateral) -> Result<(), Failure> {
    let path = format!("/v1/incidents/{}/collateral", encoded(&a.incident));
    let answer = found(&a.asked, &path)?;
    let mut out = std::io::stdout().lock();
    if a.csv {
        let csv = ask::text(&a.asked, &format!("{path}.csv"))?;
        // The answer is kept for minutes, unless others ask much.
        if csv.starts_with("{\"reading\"") {
            return Err(anyhow!("other questions have taken its place meanwhile: ask again").into());
        }
        out.write_all(csv.as_bytes())?;
    } else {
        out.write_all(shared(&answer).text().as_bytes())?;
    }
    out.flush()?;
    for relay in answer["relays"].as_array().into_iter().flatten() {
        let others = &relay["others"];
        anstream::eprintln!(
            "{}: {} messages of the burst from {} to {}; {} other accounts sent {} messages to {} recipients, {} of them refused{}",
            printable(relay["relay"].as_str().unwrap_or_default()),
            relay["messages"],
            relay["from"].as_str().unwrap_or_default(),
            relay["to"].as_str().unwrap_or_default(),
            others["accounts"],
            others["messages"],
            others["recipients"],
            others["refused"],
            match relay["left_out"].as_u64() {
                Some(n) if n > 0 => format!("; {n} accounts are in no row"),
                _ => String::new(),
            },
        );
    }
    if answer["relays"].as_array().is_some_and(Vec::is_empty) {
        anstream::eprintln!("no relay is named for the burst's messages, so nobody can be said to have shared it");
    }
    if answer["next"].is_u64() && !a.csv {
        anstream::eprintln!("there are more: --csv has all");
    }
    not_all(&answer).for_each(|line| anstream::eprintln!("{line}"));
    Ok(())
}

fn shared(answer: &Value) -> Table {
    let mut table = Table::new(&[
        ("relay", Align::Left),
        ("account", Align::Left),
        ("tenant", Align::Left),
        ("messages", Align::Right),
        ("recipients", Align::Right),
        ("refused", Align::Right),
        ("refused for the relay", Align::Left),
    ]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for row in answer["items"].as_array().into_iter().flatten() {
        let blamed = row["blamed"].as_array().into_iter().flatten();
        let blamed: Vec<String> = blamed.map(|b| format!("{} {}", text(&b["receiver"]), b["count"])).collect();
        table.row(vec![
            text(&row["relay"]),
            text(&row["account"]),
            text(&row["tenant"]),
            row["messages"].to_string(),
            row["recipients"].to_string(),
            row["refused"].to_string(),
            blamed.join(", "),
        ]);
    }
    table
}

/// What standard error says.
fn counted(answer: &Value, listed: usize, host: Option<&str>) -> Vec<String> {
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let counts = &answer["counts"];
    let on = host.map(|h| format!(" on {}", printable(h))).unwrap_or_default();
    let mut lines = vec![format!(
        "{}: {} messages since {}; of {} nothing is known to wait; {listed} ids{on} listed",
        printable(answer["account"].as_str().unwrap_or_default()),
        number(&counts["messages"]),
        answer["from"].as_str().unwrap_or_default(),
        number(&counts["done"]),
    )];
    if answer["is_cut"] == true {
        let found = number(&answer["found"]);
        lines.push(format!("cut: {found} ids were found; hold these, then ask again with a larger --limit"));
    }
    let unknown = number(&answer["host_unknown"]);
    if host.is_some() && unknown > 0 {
        lines.push(format!("{unknown} more ids name no host, and are left out: see them without --host"));
    }
    for (key, what) in [
        ("without_id", "have no queue id in their events"),
        ("unusable", "have what is no queue id in their events"),
        ("not_kept", "are beyond what is kept"),
    ] {
        let n = number(&counts[key]);
        if n > 0 {
            lines.push(format!("{n} messages {what}"));
        }
    }
    lines.extend(not_all(answer));
    lines
}

/// Why an answer is not all there is.
fn not_all(answer: &Value) -> impl Iterator<Item = String> {
    let cut = answer["covered"]["cut"].as_array().into_iter().flatten();
    cut.filter_map(Value::as_str).map(|why| format!("not all events were read: {}", printable(why)))
}

/// Asks until the reading has ended; on a terminal it says how far it is.
fn found(asked: &Asked, path: &str) -> Result<Value, Failure> {
    let began = Instant::now();
    let is_seen = std::io::stderr().is_terminal();
    loop {
        let answer = ask::send(asked, Method::GET, path, None)?;
        let reading = &answer["reading"];
        if is_seen && (reading.is_object() || began.elapsed() > AGAIN) {
            let so_far = format!("{} of {} events read", reading["records"], reading["of"]);
            let text = if reading.is_object() { so_far } else { String::new() };
            // The line is written over by the next one.
            eprint!("\r\x1b[K{text}");
        }
        if !reading.is_object() {
            return Ok(answer);
        }
        if began.elapsed() > WITHIN {
            return Err(anyhow!("it is still being read after {} s: see desk.look_back_s", WITHIN.as_secs()).into());
        }
        std::thread::sleep(AGAIN);
    }
}
