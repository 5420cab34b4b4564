//! 117 injected hijacks among 507,071 account-days of real traces: what is found, how soon, at what cost, and that the
//! way the events come in does not matter.

use crate::replay_support;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use replay_support::{Ran, gzip, mailfuse, mailfuse_fed, shared, text, write};
use serde_json::Value;

/// What a run may hold in memory, in MiB.
const MEMORY_MIB_MAX: f64 = 150.0;

/// Makes the case, once. Python is needed: without it the test fails.
fn case() -> Option<&'static Path> {
    static CASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let make = || {
        let maker = shared("eval/make_case.py")?;
        let (enron, core) =
            (shared("data/traces/enron-igraph.tsv.gz")?, shared("data/traces/email-Eu-core-temporal.txt.gz")?);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("replay-case-1");
        std::fs::create_dir_all(&folder).unwrap();
        let mut python = Command::new("python3");
        python
            .arg(maker)
            .arg("--trace")
            .arg(enron)
            .arg("--trace")
            .arg(core)
            .args(["--seed", "1", "--out"])
            .arg(&folder);
        let made = python.output().expect("python3 makes the case");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(folder)
    };
    CASE.get_or_init(make).as_deref()
}

fn score(case: &Path, alerts: &[u8]) -> Value {
    let alerts = write(case, "alerts.jsonl", alerts);
    let mut python = Command::new("python3");
    python.arg(shared("eval/score.py").unwrap()).arg("--truth").arg(case.join("truth.json"));
    let scored = python.args(["--alerts", &alerts, "--severity", "critical", "--json"]).output().unwrap();
    assert!(scored.status.success(), "{}", String::from_utf8_lossy(&scored.stderr));
    serde_json::from_slice(&scored.stdout).unwrap()
}

#[track_caller]
fn check_memory(ran: &Ran) {
    // Without /proc nothing was measured.
    assert!(ran.peak_mib > 1.0 || cfg!(not(target_os = "linux")));
    assert!(ran.peak_mib < MEMORY_MIB_MAX, "{:.0} MiB", ran.peak_mib);
}

#[test]
fn hijacks_are_found_early_and_others_left_alone() {
    let Some(case) = case() else { return };
    let ran = mailfuse(&["replay", "--quiet", &text(&case.join("events.jsonl"))]).ok();
    check_memory(&ran);
    let scored = score(case, &ran.stdout);
    let figure = |name: &str| scored[name].as_f64().unwrap_or_else(|| panic!("{name} of {scored}"));
    assert!(figure("account_days") > 500_000.0, "{scored}");
    assert!(figure("false_per_1000_account_days") <= 0.03, "{scored}");
    assert!(figure("false_flags_on_bulk_senders") <= 8.0, "{scored}");
    assert!(figure("recall") >= 0.98, "{scored}");
    assert!(figure("leak_median") <= 18.0, "{scored}");
    assert!(figure("leak_p95") <= 120.0, "{scored}");
    eprintln!("{scored}; {:.0} MiB", ran.peak_mib);
}

/// Five parts, cut at ends of lines.
fn parts(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut parts, mut rest) = (Vec::new(), bytes);
    for left in (2..=5).rev() {
        let at = rest.len() / left;
        let end = at + rest[at..].iter().position(|b| *b == b'\n').unwrap() + 1;
        let (part, after) = rest.split_at(end);
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    parts
}

#[test]
fn however_the_events_come_in_the_alerts_are_the_same_bytes() {
    let Some(case) = case() else { return };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let plain = text(&case.join("events.jsonl"));
    let events = std::fs::read(&plain).unwrap();
    let expected = mailfuse(&["replay", "--quiet", &plain]).ok().stdout;
    assert!(expected.iter().filter(|b| **b == b'\n').count() > 100, "{}", String::from_utf8_lossy(&expected));
    let check = |way: &str, ran: Ran| {
        check_memory(&ran);
        assert!(ran.ok().stdout == expected, "other alerts: {way}");
    };
    check("again", mailfuse(&["replay", "--quiet", &plain]));
    let zipped = write(folder.path(), "events.jsonl.gz", gzip(&events));
    check("gzip", mailfuse(&["replay", "--quiet", &zipped]));
    // The content tells the compression, not the name.
    let zipped = write(folder.path(), "events.jsonl", zstd::encode_all(&*events, 1).unwrap());
    check("zstd", mailfuse(&["replay", "--quiet", &zipped]));
    check("standard input", mailfuse_fed(&["replay", "--quiet", "-"], |stdin| stdin.write_all(&events)));
    let files: Vec<String> =
        parts(&events).iter().enumerate().map(|(i, part)| write(folder.path(), &format!("{i}.jsonl"), part)).collect();
    let mut args = vec!["replay", "--quiet"];
    args.extend(files.iter().map(String::as_str));
    check("in five files", mailfuse(&args));
    // In an order that is not that of time: they are merged by it.
    args[2..].rotate_left(2);
    check("in five files, not in order", mailfuse(&args));
}
