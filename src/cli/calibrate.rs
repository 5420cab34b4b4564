//! `mailfuse calibrate`: what clean mail scores, so that thresholds can be chosen to a budget of false flags.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::feed::{self, Reading};
use super::table::{Align, Table, thousands};
use super::{Failure, usage};
use crate::config::Config;
use crate::core::decided::Bar;
use crate::core::policy::Policy;
use crate::core::shard::Shard;
use crate::core::verdict::{self, Stratum};
use crate::input::Source;

/// The scores that are tabled, in decades.
const STEPS: usize = 30;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The files must hold mail without hijacks, of some weeks at least; --except leaves out accounts that are known to be guilty.
For each stratum the table says on how many of 1,000 account-days a score was reached, and the last lines propose
thresholds that keep to the budget.")]
pub(super) struct Arguments {
    /// Events or logs, as for `replay`
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Configuration whose prior and caps are measured
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A file of accounts to leave out, one a line
    #[arg(long, value_name = "FILE")]
    except: Option<PathBuf>,
    /// Year of each file's first line where stamps have none, as for `replay`
    #[arg(long, value_name = "YEAR", value_parser = clap::value_parser!(i16).range(1970..=2100))]
    year: Option<i16>,
    /// Zone of stamps that name none, as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// False critical flags for 1,000 account-days that are acceptable; warnings may be ten times as many
    #[arg(long, default_value_t = 0.02)]
    budget: f64,
}

/// The highest scores of one account on one day.
#[derive(Debug, Clone, Copy, Default)]
struct Day {
    /// Of windows that are corroborated.
    corroborated: f64,
    /// Of all windows.
    any: f64,
    /// New recipients alone.
    alone: f64,
}

/// How many account-days of a stratum reached each score.
#[derive(Debug, Clone, Default)]
struct Reached {
    days: u64,
    corroborated: [u64; STEPS],
    any: [u64; STEPS],
    alone: [u64; STEPS],
}

#[derive(Default)]
struct Measured {
    /// By account: its day, its stratum on that day, and what that day reached so far.
    today: HashMap<String, (u32, Stratum, Day)>,
    strata: BTreeMap<Stratum, Reached>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = match &arguments.config {
        Some(path) => Config::load(path).map_err(usage)?,
        None => Config::default(),
    };
    let policy = Arc::new(config.policy(config.fingerprint_key().map_err(usage)?).map_err(usage)?);
    let except: HashSet<String> = match &arguments.except {
        Some(path) => {
            std::fs::read_to_string(path).map_err(usage)?.lines().map(|l| l.trim().to_ascii_lowercase()).collect()
        }
        None => HashSet::new(),
    };
    let reading = Reading {
        format: None,
        year: arguments.year,
        zone: feed::zone(&arguments.tz)?,
        zone_name: arguments.tz.clone(),
        since: None,
        until: None,
        not_after: None,
        hash: false,
    };
    let sources = arguments.files.iter().map(Source::path).collect();
    let (mut shard, mut measured, mut ignored): (Option<Shard>, _, _) = (None, Measured::default(), Vec::new());
    let seen = feed::read(sources, &reading, &config, "measuring", None, &mut |event, _| {
        let Some(name) = event.account.as_deref().filter(|a| !except.contains(*a)) else { return Ok(()) };
        let shard = shard.get_or_insert_with(|| Shard::new(Arc::clone(&policy), event.ts));
        let step = shard.step(event, &mut ignored);
        ignored.clear();
        measured.event(name, step.new_recipients > 0 || step.refused, shard, &policy);
        Ok(())
    })?;
    measured.print(&policy, arguments.budget, &mut std::io::stdout().lock())?;
    seen.to_the_end()
}

impl Measured {
    fn event(&mut self, name: &str, telling: bool, shard: &Shard, policy: &Policy) {
        let Some(account) = shard.account(name) else { return };
        let day = account.now_s() / 86_400;
        let stratum = account.stratum();
        if !self.today.contains_key(name) {
            self.today.insert(name.to_owned(), (day, stratum, Day::default()));
        }
        let Some(today) = self.today.get_mut(name) else { return };
        if today.0 != day {
            // The days between count as well: they are days without a flag.
            self.strata.entry(today.1).or_default().count(today.2, u64::from(day.saturating_sub(today.0)));
            *today = (day, stratum, Day::default());
        }
        if !telling {
            return;
        }
        let bar = Bar::plain(policy, stratum);
        for (i, span_s) in policy.spans.all_s().iter().enumerate() {
            if *span_s < policy.detect.decide_from_s {
                continue;
            }
            let weighed = verdict::weigh(&account, policy, &bar, i);
            today.2.any = today.2.any.max(weighed.score());
            if weighed.is_corroborated() {
                today.2.corroborated = today.2.corroborated.max(weighed.score());
            }
            if weighed.is_mostly_new() {
                today.2.alone = today.2.alone.max(weighed.new_raw);
            }
        }
    }

    fn print(mut self, policy: &Policy, budget: f64, out: &mut impl Write) -> Result<(), Failure> {
        for (_, stratum, day) in std::mem::take(&mut self.today).into_values() {
            self.strata.entry(stratum).or_default().count(day, 1);
        }
        let days: u64 = self.strata.values().map(|r| r.days).sum();
        for (stratum, reached) in &self.strata {
            writeln!(out, "{}: {} account-days", stratum.name(), thousands(reached.days))?;
            let mut table = Table::new(&[
                ("score", Align::Right),
                ("corroborated", Align::Right),
                ("any", Align::Right),
                ("new recipients alone", Align::Right),
            ]);
            for step in 4..STEPS {
                if reached.any[step] == 0 && reached.alone[step] == 0 {
                    break;
                }
                let share = |n: u64| format!("{:.4}", 1000.0 * n as f64 / reached.days.max(1) as f64);
                table.row(vec![
                    step.to_string(),
                    share(reached.corroborated[step]),
                    share(reached.any[step]),
                    share(reached.alone[step]),
                ]);
            }
            out.write_all(table.text().as_bytes())?;
        }
        writeln!(
            out,
            "\n# For {budget} false critical flags a 1,000 account-days over all {} (in force: see the comment)",
            thousands(days)
        )?;
        let enough = (1.0 / budget.max(1e-9) * 1000.0) as u64;
        if days < enough {
            writeln!(
                out,
                "# Caution: so few account-days cannot show a budget like that; it takes {} and more. Keep the defaults.",
                thousands(enough)
            )?;
        }
        for (stratum, reached) in &self.strata {
            let t = verdict::threshold(policy, *stratum);
            // Half of the budget for each of the two ways to become critical.
            let allowed = budget * days as f64 / 1000.0 / 2.0;
            let least =
                |counts: &[u64; STEPS], allowed: f64| counts.iter().position(|n| *n as f64 <= allowed).unwrap_or(STEPS);
            writeln!(out, "[detect.thresholds.{}]", stratum.name())?;
            writeln!(out, "warning = {}.0  # {}", least(&reached.any, 10.0 * allowed), t.warning)?;
            writeln!(out, "critical = {}.0  # {}", least(&reached.corroborated, allowed), t.critical)?;
            writeln!(out, "alone = {}.0  # {}", least(&reached.alone, allowed), t.alone)?;
        }
        Ok(())
    }
}

impl Reached {
    fn count(&mut self, day: Day, days: u64) {
        self.days += days.max(1);
        let reach = |counts: &mut [u64; STEPS], score: f64| {
            let top = (score.max(0.0) as usize).min(STEPS - 1);
            for n in &mut counts[..=top] {
                *n += 1;
            }
        };
        reach(&mut self.corroborated, day.corroborated);
        reach(&mut self.any, day.any);
        reach(&mut self.alone, day.alone);
    }
}
