//! Every command in README.md is run by a test, and every one of them is what the program understands.

use std::fs;
use std::path::{Path, PathBuf};

use mailfuse::cli::understands;

use crate::replay_support::mailfuse;

const README: &str = include_str!("../../README.md");

/// The beginning of a command line of the README, and the test that runs it: its file below `tests/` and its name. The longest
/// beginning that fits counts. Those of `files/readme.rs` are below.
const RUN_BY: &[(&str, &str, &str)] = &[
    ("mailfuse demo", "files/readme.rs", "the_demo_flags_its_hijack"),
    ("mailfuse replay --year 2026", "files/readme.rs", "the_log_that_comes_with_it_is_replayed_as_the_readme_says"),
    ("mailfuse replay /var/log/mail.log", "files/readme.rs", "a_log_of_ones_own_is_replayed_as_the_readme_says"),
    ("mailfuse replay OLD_LOGS", "kafka/state.rs", "a_deployment_that_begins_with_a_past_goes_on_as_a_replay_would"),
    ("mailfuse state import", "kafka/state.rs", "a_deployment_that_begins_with_a_past_goes_on_as_a_replay_would"),
    ("mailfuse topics create", "kafka/state.rs", "a_deployment_that_begins_with_a_past_goes_on_as_a_replay_would"),
    ("mailfuse topics check", "kafka/topics.rs", "what_create_makes_check_finds_good_and_create_changes_nothing"),
    ("mailfuse run --config", "kafka/run.rs", "run_equals_replay_whatever_the_number_of_partitions"),
    ("mailfuse publish", "kafka/publish.rs", "events_arrive_as_they_are_under_their_account_where_java_puts_them"),
    ("mailfuse rejects list", "kafka/rejects.rs", "rejects_are_listed_and_redriven_once"),
    ("mailfuse rejects redrive", "kafka/rejects.rs", "rejects_are_listed_and_redriven_once"),
    ("mailfuse desk --config FILE", "kafka/desk.rs", "a_desk_that_dies_is_followed_by_the_next"),
    ("mailfuse desk backup", "kafka/desk.rs", "the_index_is_made_again"),
    ("mailfuse desk ", "kafka/feedback.rs", "the_commands_of_the_readme_do_what_it_says"),
    ("mailfuse accounts ", "kafka/measures.rs", "the_commands_of_the_readme_do_what_it_says"),
    ("mailfuse relays ", "kafka/measures.rs", "the_commands_of_the_readme_do_what_it_says"),
    ("mailfuse queue-ids", "kafka/queue_ids.rs", "postsuper_holds_exactly_the_burst"),
    (
        "mailfuse collateral",
        "kafka/collateral.rs",
        "whoever_shared_the_relay_is_named_with_what_was_refused_and_what_to_write",
    ),
    ("mailfuse webhook test", "kafka/webhooks.rs", "an_endpoint_is_tried_by_hand"),
    ("mailfuse webhook enable", "kafka/webhooks.rs", "every_alert_arrives_whatever_the_receiver_does"),
    ("mailfuse webhook resend", "kafka/webhooks.rs", "every_alert_arrives_whatever_the_receiver_does"),
    ("mailfuse token new", "kafka/api.rs", "a_token_made_as_the_readme_says_is_let_in_after_a_reload"),
    ("mailfuse config", "files/replay_desk.rs", "config_prints_the_reference_and_checks_a_file"),
    ("mailfuse calibrate", "files/replay_desk.rs", "calibrate_tables_what_mail_scores"),
];

/// As a shell cuts a line: single quotes hold together; what is behind a pipe or a redirection is another matter.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted, mut is_there) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (is_quoted, is_there) = (!is_quoted, true),
            '|' | '>' if !is_quoted => break,
            ' ' if !is_quoted => {
                words.extend(std::mem::take(&mut is_there).then(|| std::mem::take(&mut word)));
            }
            c => {
                word.push(c);
                is_there = true;
            }
        }
    }
    words.extend(is_there.then_some(word));
    words
}

/// What is to be typed: indented lines, with `mailfuse` in the place of cargo.
fn lines() -> Vec<String> {
    let indented = README.lines().filter_map(|l| l.strip_prefix("    ")).map(str::trim_start);
    let typed = |line: &str| {
        let ours = line.strip_prefix("cargo run --release -- ");
        ours.map(|rest| format!("mailfuse {rest}")).or_else(|| line.starts_with("mailfuse ").then(|| line.to_owned()))
    };
    indented.filter_map(typed).collect()
}

/// What is named in the text: `mailfuse …` between backquotes.
fn named() -> Vec<String> {
    let quoted = README.lines().filter(|l| !l.starts_with("    ")).flat_map(|l| l.split('`').skip(1).step_by(2));
    quoted.filter(|text| text.starts_with("mailfuse ") && !text.contains('|')).map(str::to_owned).collect()
}

fn run_by(line: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    let fits = |begin: &str| line.starts_with(begin) || line == begin.trim_end();
    RUN_BY.iter().filter(|(begin, ..)| fits(begin)).max_by_key(|(begin, ..)| begin.len())
}

#[test]
fn every_command_line_of_the_readme_is_understood_and_some_test_runs_it() {
    let lines = lines();
    assert!(lines.len() >= 30, "{} command lines in the README", lines.len());
    for line in &lines {
        if let Err(e) = understands(&words(line)) {
            panic!("{line}\n{}", e.words);
        }
        assert!(run_by(line).is_some(), "`{line}`: no test is named here that runs it");
    }
    for (begin, file, test) in RUN_BY {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{begin}: {}: {e}", path.display()));
        assert!(text.contains(&format!("fn {test}(")), "{begin}: no test {test} in {file}");
    }
}

/// What the text only names may lack arguments; what is there must be right.
#[test]
fn every_command_that_the_readme_names_is_one() {
    let named = named();
    assert!(named.len() >= 25, "{} commands in the text of the README", named.len());
    for command in &named {
        // An option that is named alone lacks its value.
        let (bare, with_value) = (words(command), [words(command), vec!["1".to_owned()]].concat());
        let (bare, with_value) = (understands(&bare), understands(&with_value));
        if let (Err(e), Err(also)) = (bare, with_value)
            && !e.is_short
            && !also.is_short
        {
            panic!("{command}\n{}", e.words);
        }
        let is_plain = command.ends_with(" --help") || command == "mailfuse replay";
        assert!(is_plain || run_by(command).is_some(), "`{command}`: no test is named here that runs it");
    }
    let wrong = |line: &str| understands(&words(line)).is_err_and(|e| !e.is_short);
    assert!(
        wrong("mailfuse desk incidents --unaknowledged") && wrong("mailfuse state exprt x"),
        "the look finds nothing"
    );
}

/// The line that begins so, its files in a folder.
fn of_the_readme(begin: &str, files: &[(&str, &str)]) -> Vec<String> {
    let line = lines().into_iter().find(|l| l.starts_with(begin)).unwrap_or_else(|| panic!("no `{begin}`"));
    let file = |word: String| files.iter().find(|(name, _)| *name == word).map_or(word, |(_, file)| (*file).to_owned());
    words(&line).into_iter().skip(1).map(file).collect()
}

fn ran(arguments: &[String]) -> crate::replay_support::Ran {
    mailfuse(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn the_demo_flags_its_hijack() {
    let ran = ran(&of_the_readme("mailfuse demo", &[])).ok();
    let said = format!("{}{}", ran.text(), ran.stderr).to_lowercase();
    assert!(said.contains("critical") && said.contains("hijack"), "{said}");
}

#[test]
fn the_log_that_comes_with_it_is_replayed_as_the_readme_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (alerts, report) = (path("alerts.jsonl"), path("incident.html"));
    let files = [("target/alerts.jsonl", &*alerts), ("target/incident.html", &*report)];
    let mut arguments = of_the_readme("mailfuse replay --year 2026", &files);
    // The shell would find them.
    let at = arguments.iter().position(|a| a == "tests/fixtures/hops/*.log").expect("the README replays the fixture");
    let hops = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hops");
    let mut logs: Vec<PathBuf> = fs::read_dir(hops).unwrap().map(|e| e.unwrap().path()).collect();
    logs.retain(|path| path.extension().is_some_and(|e| e == "log"));
    logs.sort();
    arguments.splice(at..=at, logs.iter().map(|path| path.display().to_string()));
    // What the README says that one sees.
    let ran = ran(&arguments).ok().says("accounts@brightleaf.example");
    assert!(ran.stderr.contains("04:23:10"), "{}", ran.stderr);
    assert!(fs::read_to_string(&alerts).unwrap().contains("\"critical\""));
    assert!(fs::read_to_string(&report).unwrap().contains("accounts@brightleaf.example"));
}

#[test]
fn a_log_of_ones_own_is_replayed_as_the_readme_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let log = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hops/submit-1.log").display().to_string();
    let (alerts, report) = (path("alerts.jsonl"), path("incident.html"));
    let files = [("/var/log/mail.log", &*log), ("alerts.jsonl", &*alerts), ("incident.html", &*report)];
    ran(&of_the_readme("mailfuse replay /var/log/mail.log", &files)).ok();
    assert!(Path::new(&alerts).exists() && fs::read_to_string(&report).unwrap().contains("<html"));
}
