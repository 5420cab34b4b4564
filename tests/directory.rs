//! The directory of accounts: what it says, by which names, and what becomes of a file that is wrong.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::sync::Arc;

use mailfuse::core::alert::Alert;
use mailfuse::desk::book::Book;
use mailfuse::desk::record::Record;
use mailfuse::directory::file::Held;
use mailfuse::directory::{By, Directory, Error, LINE_MAX};
use serde_json::{Value, json};

const EXAMPLES: &str = include_str!("../schemas/examples/directory.jsonl");

fn examples() -> Directory {
    Directory::read(EXAMPLES.as_bytes()).unwrap()
}

#[test]
fn an_account_is_found_by_any_of_its_names() {
    let directory = examples();
    for (name, by, account) in [
        ("ann@shop.example", By::Account, "ann@shop.example"),
        ("ANN@Shop.example", By::Account, "ann@shop.example"),
        ("a@shop.example", By::Alias, "ann@shop.example"),
        ("Anna@shop.example", By::Former, "ann@shop.example"),
        ("offers@shop.example", By::Alias, "news@shop.example"),
    ] {
        let found = directory.find(name).unwrap();
        assert_eq!((found.by, &*found.account.account), (by, account), "{name}");
        assert_eq!(found.customer.unwrap().name.as_deref(), Some("Shop Ltd"), "{name}: named, or by its domain");
        assert_eq!(directory.find(name).unwrap().account.account.as_ref(), account);
    }
    assert!(directory.find("nobody@shop.example").is_none());
    assert!(directory.find("nobody@shop.example").is_none());
    assert_eq!(directory.names("a@shop.example"), ["ann@shop.example", "a@shop.example", "anna@shop.example"]);
    assert_eq!(directory.names("Nobody@shop.example"), ["nobody@shop.example"]);
}

#[test]
fn a_former_name_that_somebody_else_has_by_now_is_theirs() {
    let was = |account: &str, until: &str| json!({"account": account, "until": until});
    let lines = [
        json!({"v": 1, "account": "x@a.example", "was": [was("info@a.example", "2026-01-01T00:00:00Z")]}),
        json!({"v": 1, "account": "y@a.example", "was": [was("info@a.example", "2026-03-01T00:00:00Z")]}),
        json!({"v": 1, "account": "z@a.example", "was": [was("x@a.example", "2026-02-01T00:00:00Z")]}),
    ];
    let text = lines.map(|l| l.to_string()).join("\n");
    let directory = Directory::read(text.as_bytes()).unwrap();
    assert_eq!(
        directory.find("info@a.example").unwrap().account.account.as_ref(),
        "y@a.example",
        "who was called so last"
    );
    assert_eq!(directory.find("x@a.example").unwrap().account.account.as_ref(), "x@a.example");
    assert_eq!(directory.names("x@a.example"), ["x@a.example"]);
    assert_eq!(directory.names("y@a.example"), ["y@a.example", "info@a.example"]);
    assert_eq!(directory.names("z@a.example"), ["z@a.example"]);
}

#[test]
fn what_it_does_not_say_of_an_account_it_may_say_of_the_customer() {
    let directory = examples();
    let ann = directory.facts("ann@shop.example", "other").unwrap();
    assert_eq!((ann.tenant.as_deref(), ann.tenant_name.as_deref()), (Some("shop.example"), Some("Shop Ltd")));
    assert_eq!((ann.contact.as_deref(), ann.language.as_deref()), (Some("owner@elsewhere.example"), Some("de")));
    assert_eq!(ann.created.as_deref(), Some("2019-05-02"));
    let news = directory.facts("news@shop.example", "shop.example").unwrap();
    assert_eq!((news.contact.as_deref(), news.plan.as_deref()), (Some("it@shop.example"), Some("business")));
    assert_eq!((news.tenant, news.created), (None, None), "the alert's tenant stays");
    // An account that it does not know, of a customer that it does.
    assert_eq!(directory.facts("new@shop.example", "SHOP.example").unwrap().zone.as_deref(), Some("Europe/Dublin"));
    assert_eq!(directory.facts("new@else.example", "else.example"), None);
}

#[track_caller]
fn refused(text: &str, line: usize, says: &str) {
    let error = Directory::read(text.as_bytes()).unwrap_err();
    assert!(matches!(&error, Error::Line { line: at, .. } if *at == line), "{error}");
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn a_bad_line_is_named() {
    let ok = r#"{"v":1,"account":"ok@a.example"}"#;
    let after = |bad: &str| format!("{ok}\n\n{bad}\n{ok}\n");
    refused(&after("nonsense"), 3, "not a JSON object");
    refused(&after(r#"{"v":1,"account":"#), 3, "EOF");
    refused(&after(r#"{"v":2,"account":"b@a.example"}"#), 3, "`v` must be 1");
    refused(&after(r#"{"v":1,"name":"A"}"#), 3, "`account` or `tenant`");
    refused(&after(r#"{"v":1,"account":"b@a.example","zone":"Mars/North"}"#), 3, "Europe/Berlin");
    refused(&after(r#"{"v":1,"account":"b@a.example","created":"2019-02-30"}"#), 3, "2019-05-02");
    refused(&after(r#"{"v":1,"account":"OK@a.example"}"#), 3, "\"ok@a.example\" is there twice");
    refused(&after(r#"{"v":1,"account":"b@a.example","aliases":["Ok@A.example"]}"#), 3, "twice");
    refused(&format!("{{\"v\":1,\"account\":{:?}}}", "ä".repeat(129)), 1, "256 bytes");
    refused(&format!("{{\"v\":1,\"account\":\"a\",\"x\":{:?}}}", "x".repeat(LINE_MAX)), 1, "longer than 65536");
    let tenant = r#"{"v":1,"tenant":"Shop.example"}"#;
    refused(&format!("{tenant}\n{}", tenant.to_lowercase()), 2, "twice");
}

#[test]
fn a_file_is_put_in_force_as_a_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts.jsonl");
    let put = |text: &str| {
        // As the documentation has it: written beside, then renamed.
        let beside = folder.path().join("beside");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, &path).unwrap();
    };
    let held = Held::new(path.to_str().unwrap());
    held.look();
    assert!(held.standing().trouble.unwrap().contains("check the path"), "it is not there yet");
    put(EXAMPLES);
    held.look();
    let first = held.directory();
    assert_eq!((first.len(), held.standing().trouble), (3, None));
    held.look();
    assert!(Arc::ptr_eq(&first, &held.directory()), "unchanged, it is not read again");
    put(&format!("{EXAMPLES}{{\"v\":1,\"account\":\"new@a.example\"}}\n{{\"v\":1,\"account\":7}}\n"));
    held.look();
    let trouble = held.standing().trouble.unwrap();
    assert!(trouble.contains("accounts.jsonl: line 6") && trouble.contains("counts as a whole"), "{trouble}");
    assert!(Arc::ptr_eq(&first, &held.directory()), "the good lines of a bad file do not count");
    put("{\"v\":1,\"account\":\"new@a.example\"}\n");
    held.look();
    assert_eq!((held.directory().len(), held.standing().trouble), (1, None));
    assert!(held.directory().find("ann@shop.example").is_none());
    assert!(first.find("ann@shop.example").is_some(), "whoever still uses the old one has all of it");
    fs::remove_file(&path).unwrap();
    held.look();
    assert_eq!(held.directory().len(), 1);
    assert!(held.standing().trouble.is_some());
}

/// Names that a mail server lets through and no page may fall for.
const HOSTILE: [&str; 4] = [
    "<script>alert(1)</script>@a.example",
    "\u{202e}moc.elpmaxe@\u{2066}a.example",
    "a\u{0}b\u{1b}[31m\r\nset-cookie: x=y@a.example",
    "' or 1=1; --@a.example",
];

#[test]
fn hostile_texts_stay_texts() {
    let entry =
        |name: &&str| json!({"v": 1, "account": name, "contact": name, "plan": name, "tenant": name}).to_string();
    let text = HOSTILE.iter().map(entry).collect::<Vec<_>>().join("\n");
    let directory = Directory::read(text.as_bytes()).unwrap();
    for name in HOSTILE {
        let found = directory.find(name).unwrap();
        let shown: Value = serde_json::from_slice(&serde_json::to_vec(&found).unwrap()).unwrap();
        assert_eq!((&shown["account"], &shown["contact"], &shown["plan"]), (&json!(name), &json!(name), &json!(name)));
    }
}

fn flagged(account: &str, tenant: &str) -> Alert {
    let line = include_str!("../schemas/examples/alerts.jsonl").lines().next().unwrap();
    let alert: Alert = serde_json::from_str(line).unwrap();
    Alert {
        account: account.to_owned(),
        tenant: tenant.to_owned(),
        incident: format!("i-{account}"),
        id: format!("a-{account}"),
        ..alert
    }
}

#[test]
fn an_incident_keeps_what_the_directory_said_when_it_began() {
    let mut book = Book::default();
    let mut topic = Vec::new();
    book.know(Arc::new(examples()));
    topic.extend(book.take(flagged("ann@shop.example", "as.the.event.said"), 1, "").records);
    topic.extend(book.take(flagged("x@nowhere.example", "nowhere.example"), 1, "").records);
    // The directory changes, and another desk takes over: nothing of it is forgotten.
    let mut other = Book::default();
    other.know(Arc::new(Directory::default()));
    for record in topic {
        other.restore(Record::read(record.key().as_bytes(), record.value().unwrap().as_deref()).unwrap());
    }
    for book in [&book, &other] {
        let ann = book.incident("i-ann@shop.example").unwrap();
        let facts = ann.directory.as_ref().unwrap();
        assert_eq!((&*ann.tenant, facts.contact.as_deref()), ("shop.example", Some("owner@elsewhere.example")));
        let unknown = book.incident("i-x@nowhere.example").unwrap();
        assert_eq!((&*unknown.tenant, &unknown.directory), ("nowhere.example", &None));
    }
}
