//! What `src/ARCHITECTURE.md` promises and no compiler checks: the core is pure, the rooms are those that are written down,
//! and nothing lies about at the top of the tree.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rooms that neither the core nor the events may know.
const OTHER_ROOMS: &[&str] = &[
    "cli",
    "input",
    "state",
    "report",
    "logs",
    "config",
    "desk",
    "run",
    "kafka",
    "telemetry",
    "demo",
    "directory",
    "relays",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Words and marks of Rust text, without comments, literals and test modules: what is said there binds nobody.
fn tokens(text: &str) -> Vec<String> {
    let c: Vec<char> = text.chars().collect();
    let at = |i: usize| c.get(i).copied().unwrap_or('\0');
    let (mut out, mut i) = (Vec::<String>::new(), 0);
    while i < c.len() {
        match c[i] {
            '/' if at(i + 1) == '/' => {
                while i < c.len() && c[i] != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                while i < c.len() {
                    match (c[i], at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            'r' | 'b' if raw_string_end(&c, i).is_some() => i = raw_string_end(&c, i).unwrap(),
            '"' => {
                i += 1;
                while i < c.len() && c[i] != '"' {
                    i += if c[i] == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            // A character, or else a lifetime.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while i < c.len() && c[i] != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            x if x.is_alphanumeric() || x == '_' => {
                let from = i;
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                out.push(c[from..i].iter().collect());
            }
            ':' if at(i + 1) == ':' => {
                out.push("::".to_owned());
                i += 2;
            }
            x => {
                if !x.is_whitespace() {
                    out.push(x.to_string());
                }
                i += 1;
            }
        }
    }
    without_test_modules(&out)
}

/// Where the raw string that begins at `i` ends.
fn raw_string_end(c: &[char], mut i: usize) -> Option<usize> {
    if i > 0 && (c[i - 1].is_alphanumeric() || c[i - 1] == '_') {
        return None;
    }
    i += usize::from(c[i] == 'b');
    if c.get(i) != Some(&'r') {
        return None;
    }
    let hashes = c[i + 1..].iter().take_while(|&&x| x == '#').count();
    i += 1 + hashes;
    if c.get(i) != Some(&'"') {
        return None;
    }
    (i + 1..c.len())
        .find(|&j| c[j] == '"' && c[j + 1..].iter().take(hashes).filter(|&&x| x == '#').count() == hashes)
        .map(|j| j + 1 + hashes)
}

fn without_test_modules(tokens: &[String]) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut out, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        if tokens[i..].len() > mark.len() && tokens[i..].iter().zip(mark).all(|(a, b)| a == b) {
            // To the end of the item: its closing brace, or its semicolon where there is none.
            let mut depth = 0;
            i += mark.len();
            while i < tokens.len() {
                match tokens[i].as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                i += 1;
                if depth == 0 && matches!(tokens[i - 1].as_str(), "}" | ";") {
                    break;
                }
            }
        } else {
            out.push(tokens[i].clone());
            i += 1;
        }
    }
    out
}

/// All paths that a text names, those in braces written out: `use std::{fs, io::Read}` is `std::fs` and `std::io::Read`.
fn paths(tokens: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        i = if is_word(&tokens[i]) { path(tokens, i, "", &mut out) } else { i + 1 };
    }
    out
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn path(tokens: &[String], mut i: usize, prefix: &str, out: &mut Vec<String>) -> usize {
    let mut so_far = prefix.to_owned();
    while let Some(token) = tokens.get(i) {
        if token == "{" {
            i += 1;
            while tokens.get(i).is_some_and(|t| t != "}") {
                i = if is_word(&tokens[i]) || tokens[i] == "{" { path(tokens, i, &so_far, out) } else { i + 1 };
            }
            return i + 1;
        }
        if !is_word(token) && token != "*" {
            break;
        }
        so_far = if so_far.is_empty() { token.clone() } else { format!("{so_far}::{token}") };
        i += 1;
        let goes_on = tokens.get(i).is_some_and(|t| t == "::")
            && tokens.get(i + 1).is_some_and(|t| is_word(t) || t == "{" || t == "*");
        if !goes_on {
            break;
        }
        i += 1;
    }
    out.push(so_far);
    i
}

/// What is not pure in a text; `in_core`: of the core, which knows nothing but the events.
fn impurities(text: &str, in_core: bool) -> Vec<String> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for path in paths(&tokens) {
        let parts: Vec<&str> = path.split("::").collect();
        let (first, second) = (parts[0], parts.get(1).copied().unwrap_or(""));
        let outside = parts.iter().find(|p| **p != "super").copied().unwrap_or("");
        let bad = match first {
            // Under another name, or whole, nobody could tell what is used of it.
            "std" => match second {
                "" | "*" | "fs" | "io" | "thread" | "env" | "process" => true,
                "net" => !matches!(parts.get(2), Some(&("IpAddr" | "Ipv4Addr" | "Ipv6Addr"))),
                _ => false,
            },
            "tokio" | "rand" | "getrandom" | "tracing" | "async" | "await" => true,
            "crate" => second != "event" && (in_core && second != "core" || OTHER_ROOMS.contains(&second)),
            "super" => OTHER_ROOMS.contains(&outside),
            _ => false,
        };
        let anywhere = ["Instant", "SystemTime", "mpsc", "RandomState"];
        if bad || parts.iter().any(|p| anywhere.contains(p)) || (parts.len() > 1 && parts.last() == Some(&"now")) {
            found.push(path);
        }
    }
    for pair in tokens.windows(2) {
        let macros = ["print", "println", "eprint", "eprintln", "dbg", "env", "option_env"];
        if pair[1] == "!" && macros.contains(&pair[0].as_str()) {
            found.push(format!("{}!", pair[0]));
        }
    }
    found
}

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
    files
}

#[test]
fn the_core_and_the_events_are_pure() {
    for (room, in_core) in [("core", true), ("event", false)] {
        let files = rust_files(&root().join("src").join(room));
        assert!(files.len() >= 5, "the room {room} has moved, and this test looks at nothing");
        for file in files {
            let found = impurities(&fs::read_to_string(&file).unwrap(), in_core);
            assert!(found.is_empty(), "{}: {found:?}", file.display());
        }
    }
}

/// The scan above is worth what it finds: each of these must be found, and nothing in those that only look alike.
#[test]
fn the_scan_finds_what_it_is_for_and_nothing_else() {
    for dirty in [
        "use std::time::Instant;",
        "let t = std::time::SystemTime::now();",
        "use std::{fmt, fs};",
        "use std::{collections::HashMap, io::{self, Read}};",
        "use std::net::TcpStream;",
        "use std::net::{IpAddr, UdpSocket};",
        "use std as s;",
        "std::thread::spawn(f);",
        "use std::sync::mpsc;",
        "tokio::spawn(f);",
        "pub async fn f() {}",
        "f().await;",
        "rand::random::<u8>();",
        "getrandom::fill(&mut b);",
        "std::env::var(\"X\");",
        "println!(\"x\");",
        "tracing::info!(\"x\");",
        "use tracing::info;",
        "use crate::cli::table;",
        "use crate::{event::Event, state};",
        "use super::super::config::Config;",
        "let now = jiff::Timestamp::now();",
        "let c = '\"'; std::fs::read(p); let d = '\"';",
    ] {
        assert!(!impurities(dirty, true).is_empty(), "not found: {dirty}");
        assert!(!impurities(dirty, false).is_empty(), "not found among events: {dirty}");
    }
    // The report is far from the events, but a room that nobody has named yet is too far from the core only.
    assert_eq!(impurities("use crate::desk::Relay;", true).len(), 1);
    for clean in [
        "use std::net::{IpAddr, Ipv4Addr};",
        "// std::fs::read\n/* std::io /* nested */ println! */ use std::sync::Arc;",
        "let s = \"std::fs \\\" println!\"; let r = r#\"std::env \" std::fs\"#;",
        "#[cfg(test)] mod tests { use std::fs; fn f() { println!(); } } use std::fmt;",
        "#[cfg(test)] mod tests; use std::fmt;",
        "use crate::event::Event; use super::window; fn f<'a>(random: &'a str, io: u8, fs: u8) {}",
        "fn now_s() {} account.now_s();",
    ] {
        assert_eq!(impurities(clean, true), Vec::<String>::new(), "{clean}");
    }
}

#[test]
fn every_room_is_written_down_and_every_room_written_down_exists() {
    let page = fs::read_to_string(root().join("src/ARCHITECTURE.md")).unwrap();
    let named: BTreeSet<String> = page
        .lines()
        .filter_map(|l| l.strip_prefix("| `src/")?.split_once("/` |"))
        .map(|(room, _)| room.to_owned())
        .collect();
    let there: BTreeSet<String> = fs::read_dir(root().join("src"))
        .unwrap()
        .map(Result::unwrap)
        .filter(|e| e.path().is_dir())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    assert!(!named.is_empty());
    assert_eq!(named, there, "left: src/ARCHITECTURE.md, right: src/");
}

/// What belongs to the project, at the top; in a tree without git (an unpacked archive) whatever lies there but the build.
fn top_level() -> BTreeSet<String> {
    if root().join(".git").exists() {
        let out = Command::new("git").arg("ls-files").current_dir(root()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let list = String::from_utf8(out.stdout).unwrap();
        return list.lines().map(|l| l.split('/').next().unwrap().to_owned()).collect();
    }
    let entries = fs::read_dir(root()).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    entries.filter(|name| name != "target").collect()
}

#[test]
fn the_top_of_the_tree_is_tidy() {
    let allowed = ["Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "src", "schemas", "benches", "tests", "ops"];
    let top = top_level();
    assert!(top.contains("src"), "{top:?}");
    let stray: Vec<_> = top.iter().filter(|n| !n.starts_with('.') && !allowed.contains(&n.as_str())).collect();
    assert!(stray.is_empty(), "{stray:?}");
}

#[test]
fn every_configuration_in_the_readme_can_be_used() {
    let readme = include_str!("../README.md");
    let (mut blocks, mut block) = (Vec::new(), String::new());
    for line in readme.lines().chain(["end"]) {
        match line.strip_prefix("    ") {
            Some(code) => block.push_str(&format!("{code}\n")),
            None if line.is_empty() && !block.is_empty() => block.push('\n'),
            None => blocks.push(std::mem::take(&mut block)),
        }
    }
    let mut used = 0;
    for block in &blocks {
        // Commands may stand before and behind the file that they are about.
        let lines = block.lines().skip_while(|l| !l.starts_with('[')).filter(|l| !l.starts_with("mailfuse "));
        let text: String = lines.map(|l| format!("{l}\n")).collect();
        if text.is_empty() {
            continue;
        }
        let read = mailfuse::config::Config::parse(&text, "README.md");
        assert!(read.is_ok(), "{}\n{text}", read.unwrap_err());
        used += 1;
    }
    assert!(used >= 4, "{used} configurations");
}
