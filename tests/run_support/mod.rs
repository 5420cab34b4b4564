//! What tests of `mailfuse run` share: a case of events with the alerts that `replay` makes of it, a deployment (topics, group,
//! configuration), its instances as processes that can be killed, frozen and asked, and the comparison of what they left.

#![allow(dead_code, unused_imports, reason = "shared by tests that each need a part")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // Clippy knows tests by their attribute, not the functions they share.

#[path = "../common/mod.rs"]
pub mod common;
mod deployment;
mod instance;
#[path = "../kafka_support/mod.rs"]
pub mod kafka_support;

pub use common::Dice;
pub use deployment::{Deployment, Signals, States, accounts, field, published, same_states};
pub use instance::Instance;
pub use kafka_support::{Broker, Record, unique, wait_until};

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

/// For whatever should come soon, on a machine that is busy with other things.
pub const LIMIT: Duration = Duration::from_secs(60);
/// For working off a case.
pub const WORK: Duration = Duration::from_secs(240);
/// The cases reach into a future whose events `run` rejects: they are moved back by 240 days, whole days so that rhythms stay.
const SHIFT_S: i64 = 20_736_000;
/// Lines of the case that every build runs.
const SOME: usize = 200_000;
/// Lines of the case for tests to which size is nothing.
const FEW: usize = 40_000;

/// Unix seconds.
pub fn now_s() -> i64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64
}

/// Whether the long campaign was asked for.
pub fn is_campaign() -> bool {
    std::env::var_os("MAILFUSE_CAMPAIGN").is_some()
}

/// The seed, and that it is said: `MAILFUSE_SEED=n` makes a run again.
pub fn seed() -> u64 {
    let seed = std::env::var("MAILFUSE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    eprintln!("seed {seed} (MAILFUSE_SEED)");
    seed
}

/// The program, with nothing of the environment that changes what it does.
pub fn mailfuse() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
    for name in ["MAILFUSE_LOG", "MAILFUSE_FINGERPRINT_KEY", "MAILFUSE_KAFKA_PASSWORD", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Events in a file.
#[derive(Debug, Clone)]
pub struct Case {
    pub events: PathBuf,
    pub lines: usize,
}

impl Case {
    /// The first lines of seed 1 of the shared cases; `None` where the shared data is missing.
    fn first(lines: usize) -> Option<Case> {
        let whole = whole()?;
        let events = whole.with_file_name(format!("events-{lines}.jsonl"));
        if !events.exists() {
            let all = BufReader::new(fs::File::open(&whole).unwrap()).lines();
            written_once(&events, all.map(Result::unwrap).take(lines));
        }
        Some(Case { lines: BufReader::new(fs::File::open(&events).unwrap()).lines().count(), events })
    }

    /// The one for every build; all of it in the campaign.
    pub fn some() -> Option<Case> {
        Case::first(if is_campaign() { usize::MAX } else { SOME })
    }

    /// The one for tests to which size is nothing.
    pub fn few() -> Option<Case> {
        Case::first(FEW)
    }

    /// The events as text, line by line.
    pub fn text(&self) -> Vec<String> {
        BufReader::new(fs::File::open(&self.events).unwrap()).lines().map(Result::unwrap).collect()
    }

    /// Cut in two at a line, in a folder.
    pub fn cut(&self, at: usize, folder: &Path) -> (PathBuf, PathBuf) {
        let lines = self.text();
        let write = |name: &str, lines: &[String]| {
            let path = folder.join(name);
            fs::write(&path, lines.join("\n") + "\n").unwrap();
            path
        };
        (write("first.jsonl", &lines[..at]), write("second.jsonl", &lines[at..]))
    }

    /// What `replay` makes of it.
    pub fn replayed(&self, arguments: &[&str]) -> Alerts {
        let ran = mailfuse().args(["replay", "--quiet"]).args(arguments).arg(&self.events).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        Alerts::of(ran.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec))
    }
}

/// Seed 1, moved back, made once.
fn whole() -> Option<PathBuf> {
    static MADE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let make = || {
        let maker = common::shared("eval/make_case.py")?;
        let traces = ["enron-igraph.tsv.gz", "email-Eu-core-temporal.txt.gz"];
        let traces: Vec<PathBuf> =
            traces.iter().map(|t| common::shared(&format!("data/traces/{t}"))).collect::<Option<_>>()?;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("run-case-1");
        fs::create_dir_all(&folder).unwrap();
        let events = folder.join("events.jsonl");
        if events.exists() {
            return Some(events);
        }
        let fresh = tempfile::tempdir_in(&folder).unwrap();
        let mut python = Command::new("python3");
        python.arg(maker).args(["--seed", "1", "--out"]).arg(fresh.path());
        for trace in traces {
            python.arg("--trace").arg(trace);
        }
        let made = python.output().expect("python3 makes the case");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let lines = BufReader::new(fs::File::open(fresh.path().join("events.jsonl")).unwrap()).lines();
        written_once(&events, lines.map(|l| moved(&l.unwrap())));
        Some(events)
    };
    MADE.get_or_init(make).clone()
}

/// An event with its time moved back; its digits behind the point stay as they are.
fn moved(line: &str) -> String {
    let begin = line.find("\"ts\":").expect("an event has a time") + 5;
    let end = begin + line[begin..].find(|c: char| !c.is_ascii_digit()).expect("an event does not end with its time");
    let seconds: i64 = line[begin..end].parse().expect("a case has numbers for times");
    format!("{}{}{}", &line[..begin], seconds - SHIFT_S, &line[end..])
}

/// Writes beside and renames, so that another test that looks finds all or nothing.
fn written_once(path: &Path, lines: impl Iterator<Item = String>) {
    let beside = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    let mut out = BufWriter::new(beside);
    for line in lines {
        out.write_all(line.as_bytes()).unwrap();
        out.write_all(b"\n").unwrap();
    }
    out.into_inner().unwrap().persist(path).unwrap();
}

/// Alerts as a reader sees them that de-duplicates by id.
#[derive(Debug, Clone, Default)]
pub struct Alerts {
    /// The bytes, by id.
    pub by_id: BTreeMap<String, Vec<u8>>,
    /// The ids of an account, in the order in which each came first.
    pub order: BTreeMap<String, Vec<String>>,
    /// How many there were, repeats too.
    pub records: usize,
}

impl Alerts {
    /// Takes them together. Two with one id must have the same bytes.
    pub fn of(alerts: impl Iterator<Item = Vec<u8>>) -> Alerts {
        let mut all = Alerts::default();
        for bytes in alerts {
            let alert: Value = serde_json::from_slice(&bytes).unwrap();
            let field = |name: &str| alert[name].as_str().unwrap_or_else(|| panic!("no {name} in {alert}")).to_owned();
            let (id, account) = (field("id"), field("account"));
            all.records += 1;
            match all.by_id.get(&id) {
                Some(before) => assert_eq!(
                    String::from_utf8_lossy(before),
                    String::from_utf8_lossy(&bytes),
                    "two alerts with one id differ"
                ),
                None => {
                    all.order.entry(account).or_default().push(id.clone());
                    all.by_id.insert(id, bytes);
                }
            }
        }
        all
    }

    /// The same ids, the same bytes, for each account in the same order.
    #[track_caller]
    pub fn check(&self, wanted: &Alerts, what: &str) {
        assert!(!wanted.by_id.is_empty(), "{what}: nothing to compare with");
        let lacks: Vec<_> = wanted.by_id.iter().filter(|(id, _)| !self.by_id.contains_key(*id)).collect();
        let news: Vec<_> = self.by_id.iter().filter(|(id, _)| !wanted.by_id.contains_key(*id)).collect();
        let text = |of: &[(&String, &Vec<u8>)]| -> Vec<String> {
            of.iter().take(3).map(|(_, b)| String::from_utf8_lossy(b).into_owned()).collect()
        };
        assert!(
            lacks.is_empty() && news.is_empty(),
            "{what}: of {} alerts {} are missing, {} are new.\nmissing: {:#?}\nnew: {:#?}",
            wanted.by_id.len(),
            lacks.len(),
            news.len(),
            text(&lacks),
            text(&news)
        );
        for (id, bytes) in &wanted.by_id {
            let (ours, theirs) = (String::from_utf8_lossy(&self.by_id[id]), String::from_utf8_lossy(bytes));
            assert_eq!(ours, theirs, "{what}: {id}");
        }
        assert_eq!(self.order, wanted.order, "{what}: the order within an account");
    }
}
