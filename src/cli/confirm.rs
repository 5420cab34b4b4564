//! A person's word for what waits for one: by name, or for all that waits.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};

use anyhow::anyhow;
use axum::http::Method;
use serde_json::{Value, json};

use super::ask::{self, Asked, encoded};
use super::measures::{Found, found, line, pages, print};
use super::table::{count, printable};
use super::{Failure, usage};
use crate::relays::decide::BY;

/// Failures in a row after which no further one is tried: it is the instance that does not do it.
const FAILURES_MAX: usize = 10;
/// Customers that a question names.
const NAMED_MAX: usize = 5;

/// All that waits, where nobody is named.
#[derive(Debug, clap::Args)]
pub(super) struct Waiting {
    /// Confirm all that wait for a person, after a question
    #[arg(long)]
    all_waiting: bool,
    /// With --all-waiting: only those of this customer
    #[arg(long, requires = "all_waiting")]
    tenant: Option<String>,
    /// With --all-waiting: without the question
    #[arg(long, requires = "all_waiting")]
    yes: bool,
}

/// Confirms measures of these kinds: of those who are named, or all that wait.
pub(super) fn confirm(
    asked: &Asked,
    kinds: &[&str],
    subjects: &[String],
    waiting: &Waiting,
    note: Option<&str>,
) -> Result<(), Failure> {
    if waiting.all_waiting { all(asked, kinds, waiting, note) } else { named(asked, kinds, subjects, note) }
}

fn one(asked: &Asked, measure: &Value, note: Option<&str>) -> Result<Value, Failure> {
    let path = format!("/v1/measures/{}/confirm", encoded(measure["id"].as_str().unwrap_or_default()));
    ask::send(asked, Method::POST, &path, Some(json!({ "note": note })))
}

fn why(failure: &Failure) -> String {
    match failure {
        Failure::Usage(e) | Failure::Failed(e) => format!("{e:#}"),
    }
}

fn named(asked: &Asked, kinds: &[&str], subjects: &[String], note: Option<&str>) -> Result<(), Failure> {
    let waits =
        |m: &Value| m["state"] == "asked" || m["state"] == "in_force" && m["by"] == BY && m["confirmed_by"].is_null();
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for subject in subjects {
        let mut measures = Vec::new();
        for kind in kinds {
            measures.extend(found(asked, kind, Some(subject), false)?);
        }
        measures.retain(waits);
        if measures.is_empty() {
            failed.push(format!("nothing about {} waits for a person", printable(subject)));
        }
        for measure in measures {
            match one(asked, &measure, note) {
                Ok(confirmed) => done.push(confirmed),
                Err(e) => failed.push(format!("{}: {}", printable(subject), why(&e))),
            }
        }
    }
    if !done.is_empty() {
        print(&done, &[])?;
    }
    if failed.is_empty() { Ok(()) } else { Err(anyhow!(failed.join("\n")).into()) }
}

fn all(asked: &Asked, kinds: &[&str], waiting: &Waiting, note: Option<&str>) -> Result<(), Failure> {
    let mut all = Found::default();
    for kind in kinds {
        let mut path = format!("/v1/measures?kind={kind}&state=asked&open=true");
        if let Some(tenant) = &waiting.tenant {
            path.push_str(&format!("&tenant={}", encoded(tenant)));
        }
        let some = pages(asked, &path)?;
        all.items.extend(some.items);
        all.more = all.more.or(some.more);
    }
    if all.items.is_empty() {
        return line("nothing waits for a person");
    }
    if !waiting.yes && !agreed(&question(kinds, &all.items))? {
        return line("nothing was confirmed");
    }
    let (mut done, mut failed, mut in_a_row) = (0_u64, 0_u64, 0);
    for measure in &all.items {
        match one(asked, measure, note) {
            Ok(_) => (done, in_a_row) = (done + 1, 0),
            Err(e) => {
                (failed, in_a_row) = (failed + 1, in_a_row + 1);
                let subject = measure["subject"].as_str().unwrap_or_default();
                anstream::eprintln!("{}: {}", printable(subject), why(&e));
                if in_a_row >= FAILURES_MAX {
                    break;
                }
            }
        }
    }
    line(&format!("{done} of {} confirmed", count(all.items.len() as u64, "measure")))?;
    if all.more.is_some() {
        line("there are more: confirm again")?;
    }
    if failed > 0 { Err(anyhow!("{failed} could not be confirmed").into()) } else { Ok(()) }
}

/// How many of what are to be confirmed, and whose they are: the largest customers first.
fn question(kinds: &[&str], measures: &[Value]) -> String {
    let of = |kind: &str| measures.iter().filter(|m| m["kind"] == kind).count() as u64;
    let counted = kinds.iter().map(|kind| (of(kind), kind)).filter(|(n, _)| *n > 0);
    let counted: Vec<String> = counted.map(|(n, kind)| count(n, kind)).collect();
    let mut tenants: BTreeMap<&str, u64> = BTreeMap::new();
    for tenant in measures.iter().filter_map(|m| m["tenant"].as_str()).filter(|t| !t.is_empty()) {
        *tenants.entry(tenant).or_default() += 1;
    }
    let mut tenants: Vec<(&str, u64)> = tenants.into_iter().collect();
    tenants.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let named: Vec<String> =
        tenants.iter().take(NAMED_MAX).map(|(tenant, n)| format!("{n} of {}", printable(tenant))).collect();
    let more = tenants.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(", others of {}", count(more as u64, "customer")) } else { String::new() };
    let whose = if named.is_empty() { String::new() } else { format!(" ({}{more})", named.join(", ")) };
    format!("Confirm {}{whose}?", counted.join(" and "))
}

/// Whether the person at the terminal says yes.
fn agreed(question: &str) -> Result<bool, Failure> {
    let mut input = std::io::stdin().lock();
    if !input.is_terminal() {
        return Err(usage(anyhow!("{question} Nobody can be asked, this is no terminal: say --yes, or name them")));
    }
    anstream::eprint!("{question} [y/N] ");
    let mut said = String::new();
    input.read_line(&mut said)?;
    Ok(["y", "yes"].contains(&said.trim().to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_says_how_many_of_what_and_whose() {
        let measure = |kind: &str, tenant: &str| json!({ "kind": kind, "tenant": tenant });
        let mut all: Vec<Value> = (0..7).map(|n| measure("stop", &format!("t{n}.example"))).collect();
        all.extend([measure("throttle", "t3.example"), measure("throttle", "t3.example")]);
        assert_eq!(
            question(&["stop", "throttle"], &all),
            "Confirm 7 stops and 2 throttles (3 of t3.example, 1 of t0.example, 1 of t1.example, 1 of t2.example, 1 of \
             t4.example, others of 2 customers)?"
        );
        assert_eq!(question(&["pull"], &[measure("pull", "")]), "Confirm 1 pull?");
    }
}
