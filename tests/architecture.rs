//! The tree is what `src/ARCHITECTURE.md` says, and the core is pure.
//!
//! The core's purity is what makes the same input give the same alerts: replay as evidence, recovery after a crash and
//! de-duplication by id all stand on it. Nothing in the language holds it, so this test does.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The program without its comments and the contents of its strings: they may speak of clocks as they like.
fn program(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            out.push_str("\"\"");
            raw.find("\"#").map_or(rest.len(), |at| at + 5)
        } else if let Some(string) = rest.strip_prefix('"') {
            out.push_str("\"\"");
            let (mut at, mut escaped) = (0, false);
            for b in string.bytes() {
                at += 1;
                if b == b'"' && !escaped {
                    break;
                }
                escaped = b == b'\\' && !escaped;
            }
            at + 1
        } else if rest.starts_with("'\"'") {
            3
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = &rest[skip..];
    }
    out
}

/// The identifiers and paths (`a::b::c`) of a program, groups of `use` written out far enough to be recognised.
fn names(program: &str) -> BTreeSet<String> {
    // `use std::{fs, net::IpAddr}` names `std::fs` as `use std::fs` does.
    let mut names = BTreeSet::new();
    let mut prefix: Vec<String> = Vec::new();
    let mut path = String::new();
    for c in program.chars() {
        match c {
            c if c.is_alphanumeric() || c == '_' || c == ':' || c == '!' => path.push(c),
            '{' if path.ends_with("::") => {
                prefix.push(std::mem::take(&mut path));
            }
            c => {
                if !path.is_empty() {
                    names.insert(format!("{}{path}", prefix.concat()));
                    path.clear();
                }
                match c {
                    '{' if !prefix.is_empty() => prefix.push(String::new()),
                    '}' => {
                        prefix.pop();
                    }
                    _ => {}
                }
            }
        }
    }
    names.insert(path);
    names
}

/// Clocks, randomness, channels, threads, async and I/O, by the names under which a program can reach them.
const IMPURE: &[&str] = &[
    "std::time",
    "Instant",
    "SystemTime",
    "std::fs",
    "std::io",
    "std::path",
    "std::env",
    "std::process",
    "std::thread",
    "std::sync::mpsc",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::atomic",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "RandomState",
    "DefaultHasher",
    "std::collections::HashMap",
    "std::collections::HashSet",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "rand::",
    "getrandom::",
    "fastrand::",
    "tokio::",
    "futures::",
    "async",
    "await",
    "crossbeam::",
    "rayon::",
    "tracing::",
    "log::",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "dbg!",
    "static",
    "thread_local!",
    "unsafe",
    "memmap2::",
    "tempfile::",
];

fn breaches(text: &str, rooms: &[&str]) -> Vec<String> {
    // A path begins with it, or (`Instant`, `async`) it is a part of one.
    let is = |name: &str, what: &str| match what.strip_suffix("::") {
        Some(_) => name.starts_with(what),
        None if what.contains("::") => name.strip_prefix(what).is_some_and(|r| r.is_empty() || r.starts_with("::")),
        None => name.split("::").any(|part| part == what),
    };
    let foreign = |name: &str| {
        let path = name.strip_prefix("crate::").or_else(|| name.strip_prefix("mailfuse::"));
        path.is_some_and(|path| !rooms.iter().any(|room| path == *room || path.starts_with(&format!("{room}::"))))
    };
    names(&program(text)).into_iter().filter(|name| IMPURE.iter().any(|what| is(name, what)) || foreign(name)).collect()
}

#[test]
fn the_core_is_pure() {
    for (folder, rooms) in [("src/core", &["core", "event"][..]), ("src/event", &["event"][..])] {
        let files = rust_files(&Path::new(ROOT).join(folder));
        assert!(files.len() >= 5, "{folder} has moved: this test looks at nothing");
        for file in files {
            let text = fs::read_to_string(&file).unwrap().replace("'static", "").replace("pub(super) ", "");
            let breaches = breaches(&text, rooms);
            assert!(breaches.is_empty(), "{}: {breaches:?} has no place in {folder}", file.display());
        }
    }
}

/// The scan sees what it is for, in the forms in which it is written, and nothing else.
#[test]
fn the_scan_of_the_core_sees() {
    let check = |text: &str, expected: &[&str]| assert_eq!(breaches(text, &["core", "event"]), expected, "{text}");
    check("use std::time::Instant;", &["std::time::Instant"]);
    check("use std::{net::IpAddr, fs};", &["std::fs"]);
    check("use std::{net::{IpAddr, UdpSocket}, fmt};", &["std::net::UdpSocket"]);
    check("fn f() { let t = SystemTime::now(); }", &["SystemTime::now"]);
    check("use crate::state::save;", &["crate::state::save"]);
    check("use crate::{event::Event, config::Config};", &["crate::config::Config"]);
    check("async fn f() {}", &["async"]);
    check("fn f() { tracing::info!(\"x\") }", &["tracing::info!"]);
    check("// std::time::Instant\nuse std::net::IpAddr; /* std::fs */ const A: &str = \"std::env \\\" rand\";", &[]);
    check("use crate::event::Event; fn f(x: f64) -> f64 { x.ln() + f64::log(x, 2.0) }", &[]);
}

#[test]
fn the_rooms_are_those_of_architecture_md() {
    let text = fs::read_to_string(Path::new(ROOT).join("src/ARCHITECTURE.md")).unwrap();
    let told: BTreeSet<String> = text
        .split('`')
        .skip(1)
        .step_by(2)
        .filter_map(|name| name.strip_prefix("src/")?.strip_suffix('/'))
        .map(|name| name.split('/').next().unwrap().to_owned())
        .collect();
    let there: BTreeSet<String> = fs::read_dir(Path::new(ROOT).join("src"))
        .unwrap()
        .map(Result::unwrap)
        .filter(|e| e.file_type().unwrap().is_dir())
        .map(|e| e.file_name().into_string().unwrap())
        .collect();
    assert!(told.contains("core") && told.contains("event"), "{told:?}");
    assert_eq!(told, there);
    // Every file that the page names is there too.
    for file in text.split('`').skip(1).step_by(2).filter(|name| name.starts_with("tests/") && name.ends_with(".rs")) {
        assert!(Path::new(ROOT).join(file).exists(), "{file}");
    }
}

/// The top level stays readable at a glance: tools that want more places are told otherwise.
#[test]
fn the_top_level_is_fixed() {
    let allowed = ["Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "src", "schemas", "benches", "tests", "ops"];
    for entry in fs::read_dir(ROOT).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // Dot files are settings; `target` is what cargo leaves behind, and ignored.
        assert!(name.starts_with('.') || name == "target" || allowed.contains(&name.as_str()), "{name}");
    }
}
