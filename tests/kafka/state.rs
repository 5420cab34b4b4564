//! The README's way to begin with a past: topics made, old logs replayed, what was learned imported, and `run` goes on there.

use crate::run_support::{Alerts, Broker, Case, Deployment, LIMIT, WORK, mailfuse, wait_until};

/// Runs a command of the README in a folder; these files are its files. Exit status and what it said.
fn run(folder: &std::path::Path, line: &str, files: &[(&str, &str)]) -> (Option<i32>, String) {
    let readme = include_str!("../../README.md");
    assert!(readme.contains(line), "the README has no `{line}` any more");
    let word = |word: &str| files.iter().find(|(name, _)| *name == word).map_or(word, |(_, file)| file).to_owned();
    let ran = mailfuse().args(line.split(' ').skip(1).map(word)).current_dir(folder).output().unwrap();
    (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

#[test]
fn a_deployment_that_begins_with_a_past_goes_on_as_a_replay_would() {
    let (Some(broker), Some(case)) = (Broker::shared(), Case::few()) else { return };
    let d = Deployment::without_topics(broker, "begins", 12);
    let folder = d.folder.path();
    let (old, new) = case.cut(case.lines / 2, folder);
    // The configuration that the README writes once on the command line and once leaves out.
    let config = d.config("one").display().to_string();
    let done = run(folder, "mailfuse topics create --config mailfuse.toml", &[("mailfuse.toml", &config)]);
    assert_eq!(done.0, Some(0), "{}", done.1);
    let old = old.display().to_string();
    let done = run(folder, "mailfuse replay OLD_LOGS --save-state learned.state", &[("OLD_LOGS", &old)]);
    assert_eq!(done.0, Some(0), "{}", done.1);
    let import = || mailfuse_in(folder, &["state", "import", "learned.state", "--config", &config]);
    let (status, said) = import();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains(" accounts in 12 partitions of "), "{said}");
    let accounts = said.split(' ').next().unwrap().to_owned();
    assert_ne!(accounts, "0");

    let mut instance = d.start("one");
    instance.await_ready();
    // Into a state that is there, or while somebody has it, nothing is imported.
    let (status, said) = import();
    assert!(status == Some(1) && (said.contains("is not empty") || said.contains("stop all instances")), "{said}");
    d.publish(&new);
    d.await_done(WORK);
    let replayed = mailfuse()
        .args(["replay", "--quiet", "--load-state", "learned.state"])
        .arg(&new)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    let wanted = Alerts::of(replayed.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(<[u8]>::to_vec));
    d.alerts().check(&wanted, "after an import");
    assert!(instance.terminate().success(), "{}", instance.log());

    // And out again: it is a file that a replay begins with.
    let (status, said) = mailfuse_in(folder, &["state", "export", "again.state", "--config", &config]);
    assert_eq!(status, Some(0), "{said}");
    // A named instance that has stopped is a member for as long as its session lasts.
    wait_until("nobody has the state", LIMIT, || !import().1.contains("stop all instances"));
    let (status, said) = import();
    assert!(status == Some(1) && said.contains("is not empty"), "{said}");
    let loaded = mailfuse_in(folder, &["replay", "--quiet", "--load-state", "again.state", &new.display().to_string()]);
    assert_eq!(loaded.0, Some(0), "{}", loaded.1);
}

fn mailfuse_in(folder: &std::path::Path, arguments: &[&str]) -> (Option<i32>, String) {
    let ran = mailfuse().args(arguments).current_dir(folder).output().unwrap();
    (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
}
