//! A real provider's day with one hijacked account in it, as the program finds it with its defaults.

use crate::replay_support;

use std::collections::{BTreeMap, BTreeSet};

use replay_support::{Ran, field, mailfuse, shared, text};

const HIJACKED: &str = "info@d775f587.ru";
/// Accounts of the log that nobody found anything wrong with.
const UNLABELLED: usize = 1497;

/// First columns of a table with a line of names.
fn rows(name: &str) -> Option<Vec<(String, String)>> {
    let table = std::fs::read_to_string(shared(name)?).unwrap();
    let row = |line: &str| {
        let mut cells = line.split('\t').map(str::to_owned);
        (cells.next().unwrap(), cells.next().unwrap())
    };
    Some(table.lines().skip(1).map(row).collect())
}

/// The account names of one severity.
fn flagged<'a>(alerts: &'a [serde_json::Value], severity: &str) -> BTreeSet<&'a str> {
    let of = alerts.iter().filter(|a| field(a, "kind") != "account.cleared" && field(a, "severity") == severity);
    of.map(|a| field(a, "account")).collect()
}

fn replay() -> Option<Ran> {
    let log = shared("data/logs/jino-2012-07-10.pseudo.maillog.gz")?;
    Some(mailfuse(&["replay", &text(&log)]).ok())
}

#[test]
fn the_hijacked_account_is_critical_by_its_fifth_message() {
    let Some(ran) = replay() else { return };
    let alerts = ran.alerts();
    let first = alerts
        .iter()
        .find(|a| field(a, "account") == HIJACKED && field(a, "severity") == "critical")
        .expect("it is critical");
    assert_ne!(field(first, "kind"), "account.cleared");
    let messages = first["burst"]["messages"].as_u64().unwrap();
    assert!((1..=5).contains(&messages), "critical at message {messages}");
    assert_eq!(field(first, "action"), "suspend_account");
    ran.says("CRITICAL, stop the account: 1 incident").says(HIJACKED);
}

#[test]
fn nobody_else_is_stopped() {
    let Some(ran) = replay() else { return };
    let labels: BTreeMap<String, String> = rows("data/logs/jino-2012-07-10.labels.tsv").unwrap().into_iter().collect();
    let accounts: BTreeSet<String> =
        rows("data/logs/jino-2012-07-10.accounts.tsv").unwrap().into_iter().map(|(name, _)| name).collect();
    let unlabelled = |account: &str| !labels.contains_key(account);
    assert_eq!(accounts.iter().filter(|a| unlabelled(a)).count(), UNLABELLED);
    let alerts = ran.alerts();
    let (critical, warning) = (flagged(&alerts, "critical"), flagged(&alerts, "warning"));
    for account in critical.iter().chain(&warning) {
        assert!(accounts.contains(*account), "{account} is no account of the log");
    }
    let innocent: Vec<&&str> = critical.iter().filter(|a| unlabelled(a)).collect();
    assert!(innocent.is_empty(), "critical without a label: {innocent:?}");
    let innocent: Vec<&&str> = warning.iter().filter(|a| unlabelled(a)).collect();
    assert!(innocent.len() <= 5, "warnings without a label: {innocent:?}");
    let kept = |account: &&&str| labels.get(**account).is_some_and(|label| label == "bulk" || label == "relay");
    let bulk: Vec<&&str> = critical.iter().filter(kept).collect();
    assert!(bulk.is_empty(), "critical, but a sender of bulk mail or a relay: {bulk:?}");
}
