//! The command line: exit statuses, messages, and what becomes of input that is not as it should be.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod replay_support;

use std::io::{Read, Write};

use replay_support::story::{BEGIN, DAY, bytes, quiet, send, story};
use replay_support::{Ran, command, critical, field, gzip, mailfuse, mailfuse_fed, wait, write};
use serde_json::{Value, json};

const MEMORY_MIB_MAX: f64 = 150.0;

/// Alerts of these events, read from a file.
fn alerts_of(lines: &[String]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    mailfuse(&["replay", "-q", &write(folder.path(), "events.jsonl", bytes(lines))]).ok().stdout
}

#[track_caller]
fn check_wrong(args: &[&str], message: &str) {
    let ran = mailfuse(args).status(2).says(message);
    assert!(ran.stdout.is_empty(), "{args:?}");
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let good = write(dir, "good.jsonl", bytes(&quiet(BEGIN)));
    let missing = dir.join("missing.log").to_str().unwrap().to_owned();
    check_wrong(&["replay", &missing], &format!("{missing}: no such file"));
    check_wrong(&["replay", &good, &missing], &format!("{missing}: no such file"));
    check_wrong(&["replay", dir.to_str().unwrap()], "is a directory: name the files in it");
    check_wrong(&["replay", "--bogus", &good], "unexpected argument '--bogus'");
    check_wrong(&["replay"], "<FILE>...");
    check_wrong(&["replay", "--tz", "Mars/Phobos", &good], "--tz Mars/Phobos: no such zone");
    check_wrong(&["replay", "--since", "yesterday", &good], "--since yesterday: no time; write 2024-07-10T12:00:00Z");
    check_wrong(&["replay", "--since", "2024-01-02", "--until", "2024-01-01", &good], "is not before --until");
    check_wrong(&["replay", "-", "-"], "standard input (-) can be read only once");
    check_wrong(&["replay", "--redact", &good], "--report");
    check_wrong(&["replay", "--find", "a", "--explain", "b", &good], "cannot be used with");
    check_wrong(&["replay", "--alerts", &format!("{missing}/alerts"), &good], "cannot be written");
    let config = write(dir, "bad.toml", "# ours\n[events]\nmax_line_byte = 3\n");
    let words = format!("{config}:3: unknown key `events.max_line_byte`; did you mean `events.max_line_bytes`?");
    check_wrong(&["replay", "--config", &config, &good], &words);
    check_wrong(&["config", "--check", &config], &words);
    let jpeg = write(dir, "holiday.log", [b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01".as_slice(), &[0x80; 4000]].concat());
    check_wrong(&["replay", &jpeg], "is not a log: it looks like a JPEG picture");
}

#[test]
fn an_empty_file_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let empty = write(folder.path(), "empty.log", b"");
    let ran = mailfuse(&["replay", &empty]).ok().says("no event").says("Empty     ");
    assert!(ran.stdout.is_empty());
}

#[test]
fn of_a_gzip_cut_short_all_before_the_cut_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let lines = story();
    let zipped = gzip(&bytes(&lines));
    let cut = &zipped[..zipped.len() * 3 / 4];
    let mut readable = Vec::new();
    flate2::read::GzDecoder::new(cut).read_to_end(&mut readable).unwrap_err();
    let whole = readable.iter().rposition(|b| *b == b'\n').unwrap() + 1;
    let prefix = write(folder.path(), "prefix.jsonl", &readable[..whole]);
    let expected = mailfuse(&["replay", "-q", &prefix]).ok();
    assert_eq!(critical(&expected.alerts()), ["u3@example.org"]);
    let cut = write(folder.path(), "cut.jsonl.gz", cut);
    let ran = mailfuse(&["replay", &cut]).status(1).says("could not be read to the end; what could be read was used");
    assert_eq!(ran.text(), expected.text());
    assert!(ran.stderr.contains(&cut), "{}", ran.stderr);
    assert_eq!(critical(&mailfuse(&["replay", "-q", &write(folder.path(), "w.gz", &zipped)]).ok().alerts()).len(), 2);
}

#[test]
fn what_is_no_event_is_counted_with_its_place_and_changes_no_alert() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = story();
    let expected = alerts_of(&lines);
    let stray = |ts: i64| send(ts, "u1@example.org", 1, &["stray@friends.example".to_owned()]);
    let long = "a".repeat(10_000) + "@example.org";
    let deep =
        r#"{"v":1,"kind":"send","ts":1700000000,"account":"u1@example.org","x":"#.to_owned() + &"[".repeat(200_000);
    // At these lines of the file, from the back so that none moves the others.
    let bad = [
        (1450, stray(0), "bad_ts"),
        (1300, stray(4_102_444_800), "future"),
        (700, send(BEGIN, &long, 1, &["x@friends.example".to_owned()]), "too_long"),
        (600, deep, "json"),
        (500, "[".repeat(200_000), "json"),
    ];
    for (line, record, _) in &bad {
        lines.insert(line - 1, record.clone());
    }
    let file = write(folder.path(), "events.jsonl", bytes(&lines));
    let rejects = folder.path().join("rejects.jsonl");
    let ran = mailfuse(&["replay", &file, "--rejects", rejects.to_str().unwrap()]).ok();
    assert!(ran.stdout == expected, "other alerts: {}", ran.text());
    assert!(ran.stderr.contains("Rejected  5 records"), "{}", ran.stderr);
    let kept = std::fs::read_to_string(&rejects).unwrap();
    let kept: Vec<Value> = kept.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(kept.len(), bad.len(), "{kept:?}");
    for (i, (_, record, reason)) in bad.iter().rev().enumerate() {
        // Those before it in the file have moved it.
        let line = bad[bad.len() - 1 - i].0 + i;
        let of = kept.iter().find(|r| r["line"] == line).unwrap_or_else(|| panic!("no reject at {line}: {kept:?}"));
        assert_eq!(field(of, "source"), file);
        assert!(field(of, "reason").contains(reason), "{} at {line}", of["reason"]);
        assert!(ran.stderr.contains(&format!("{file}:{line}")), "{file}:{line} is not in {}", ran.stderr);
        check_record(field(of, "record"), record);
    }
}

/// A rejected line is kept as it was; of an event, what it says.
#[track_caller]
fn check_record(kept: &str, record: &str) {
    match serde_json::from_str::<Value>(record) {
        Err(_) => assert!(kept == record, "kept {} bytes of {}", kept.len(), record.len()),
        Ok(expected) => {
            let kept: Value = serde_json::from_str(kept).unwrap_or_else(|e| panic!("{e}: {kept:?} of {record}"));
            assert_eq!(kept["account"], expected["account"]);
            assert_eq!(kept["rcpts"], expected["rcpts"]);
        }
    }
}

#[track_caller]
fn check_memory(ran: &Ran) {
    assert!(ran.peak_mib > 1.0 || cfg!(not(target_os = "linux")));
    assert!(ran.peak_mib < MEMORY_MIB_MAX, "{:.0} MiB", ran.peak_mib);
}

#[test]
fn a_message_to_a_million_recipients_is_counted_in_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = quiet(BEGIN);
    let rcpts: Vec<String> = (0..1_000_000).map(|r| format!("r{r}@many.example")).collect();
    lines.push(send(BEGIN + 10 * DAY, "u7@example.org", 1, &rcpts));
    let file = write(folder.path(), "events.jsonl", bytes(&lines));
    let ran = mailfuse(&["replay", &file, "--find", "r77@many.example"]).ok().says("1 cut to their limits");
    check_memory(&ran);
    assert!(ran.text().contains("u7@example.org") && ran.text().contains("1,000,000"), "{}", ran.text());
    assert!(!ran.stderr.contains("Rejected"), "{}", ran.stderr);
}

#[test]
fn a_line_of_a_gibibyte_is_passed_over_in_bounded_memory() {
    let lines = story();
    let expected = alerts_of(&lines);
    for format in ["auto", "events"] {
        let ran = mailfuse_fed(&["replay", "--format", format, "-"], |stdin| {
            stdin.write_all(&bytes(&lines[..1100]))?;
            stdin.write_all(br#"{"v":1,"kind":"send","ts":1700000000,"account":""#)?;
            let block = vec![b'x'; 1 << 20];
            (0..1024).try_for_each(|_| stdin.write_all(&block))?;
            stdin.write_all(b"\n")?;
            stdin.write_all(&bytes(&lines[1100..]))
        });
        check_memory(&ran);
        let ran = ran.ok().says("Rejected  1 record;").says("too_long").says(":1101");
        assert!(ran.stdout == expected, "other alerts");
    }
    // Nor does it matter where it is all there is.
    let ran = mailfuse_fed(&["replay", "-"], |stdin| {
        stdin.write_all(b"{")?;
        let block = vec![b'x'; 1 << 20];
        (0..1024).try_for_each(|_| stdin.write_all(&block))
    });
    check_memory(&ran);
    assert!(ran.stdout.is_empty());
    ran.ok().says("no event").says("too_long, as at standard input:1");
}

#[test]
fn whoever_stops_reading_has_enough() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "events.jsonl", bytes(&story()));
    for options in [
        &["--alerts", "-"][..],
        &["--find", "out-1"],
        &["--explain", "u3@example.org"],
        &["--extract", "u3@example.org"],
    ] {
        let mut child = command(&[&["replay", file.as_str()], options].concat()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = wait(child);
        assert_eq!(ran.code, 0, "{options:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{options:?}: {}", ran.stderr);
    }
}

#[test]
fn since_and_until_bound_what_counts() {
    let folder = tempfile::tempdir().unwrap();
    let lines = story();
    let file = write(folder.path(), "events.jsonl", bytes(&lines));
    let check = |bounds: &[&str], from: usize, to: usize| {
        let ran = mailfuse(&[&["replay", file.as_str()], bounds].concat()).ok();
        let outside = lines.len() - (to - from);
        let ran = ran.says(&format!("; {} outside --since and --until", thousands(outside)));
        assert!(ran.stdout == alerts_of(&lines[from..to]), "{bounds:?}");
        critical(&ran.alerts()).len()
    };
    let at = |ts: i64| {
        lines.iter().position(|l| serde_json::from_str::<Value>(l).unwrap()["ts"].as_i64().unwrap() >= ts).unwrap()
    };
    // 1,700,864,000 is the first hijack's beginning, 22:13:20 of the 24th; the 1st begins 1,701,388,800.
    assert_eq!(check(&["--until", "2023-11-24T22:13:20Z"], 0, at(BEGIN + 10 * DAY)), 0);
    assert_eq!(check(&["--until", "2023-12-01"], 0, at(1_701_388_800)), 1);
    // Midnight of Berlin is an hour earlier.
    assert_eq!(check(&["--tz", "Europe/Berlin", "--until", "2023-12-01"], 0, at(1_701_385_200)), 1);
    assert_eq!(
        check(&["--since", "2023-11-20T00:00:00Z", "--until", "2023-12-01"], at(1_700_438_400), at(1_701_388_800)),
        1
    );
}

#[test]
fn what_people_decided_counts_and_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let lines = story();
    let file = write(folder.path(), "events.jsonl", bytes(&lines));
    let alerts = mailfuse(&["replay", &file]).ok().alerts();
    let who = alerts[0]["account"].as_str().unwrap();
    let record = |until: &str| {
        json!({"v": 1, "account": who, "decisions": [
            {"what": "exempt", "from": "2023-01-01T00:00:00Z", "until": until, "by": "ann", "note": "she called"}]})
        .to_string()
    };
    // The last line of an account counts.
    let control = [record("2023-01-02T00:00:00Z"), String::new(), record("2026-01-01T00:00:00Z")].join("\n");
    let control = write(folder.path(), "control.jsonl", control.into_bytes());
    let ran = mailfuse(&["replay", &file, "--control", &control]).ok();
    let others = |alerts: &[Value]| alerts.iter().filter(|a| a["account"] != who).cloned().collect::<Vec<_>>();
    assert!(others(&alerts).len() < alerts.len());
    assert_eq!(others(&ran.alerts()), others(&alerts));
    let beyond = ran.alerts().into_iter().filter(|a| a["account"] == who && a["kind"] != "account.cleared");
    assert!(beyond.clone().all(|a| a["exempt"]["factor"] == 10.0 && a["exempt"]["by"] == "ann"));
    assert!(beyond.count() < alerts.iter().filter(|a| a["account"] == who).count());
    let story = mailfuse(&["replay", &file, "--control", &control, "--explain", who]).ok();
    for says in [
        "decided: exempt, limits times 10, from 2023-01-01T00:00:00.000Z until 2026-01-01T00:00:00.000Z by ann (she called); at the end of these logs it stands",
        "; it was exempt: limits on counts were 10 times as large",
    ] {
        assert!(story.text().contains(says), "{says:?} is not in {}", story.text());
    }
    let (incident, at) = (alerts[0]["incident"].as_str().unwrap(), alerts[0]["ts"].as_str().unwrap());
    let hijack = json!({"v": 1, "account": who, "decisions": [{"what": "hijack", "incident": incident, "from": at}]});
    let tenant = json!({"v": 1, "tenant": alerts[0]["tenant"], "decisions": [
        {"what": "tolerate", "decades": 0.5, "from": "2023-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}]});
    let tenant_name = alerts[0]["tenant"].as_str().unwrap().to_ascii_lowercase();
    let control = write(folder.path(), "hijack.jsonl", format!("{hijack}\n{tenant}\n").into_bytes());
    let story = mailfuse(&["replay", &file, "--control", &control, "--explain", who]).ok();
    for says in [
        format!("decided: incident {incident} was a hijack from {at}"),
        format!("decided: tenant {tenant_name}: tolerated, bars raised by 0.5 decades from"),
    ] {
        assert!(story.text().contains(&says), "{says:?} is not in {}", story.text());
    }
    let control = write(folder.path(), "hijack.jsonl", hijack.to_string().into_bytes());
    let story = mailfuse(&["replay", &file, "--control", &control, "--explain", who]).ok();
    assert!(story.text().contains(&format!(" to what it was before incident {incident}")), "{}", story.text());
    let wrong =
        write(folder.path(), "wrong.jsonl", [record("2026-01-01T00:00:00Z"), "{}".to_owned()].join("\n").into_bytes());
    mailfuse(&["replay", &file, "--control", &wrong]).status(2).says("wrong.jsonl:2: `v` is not 1");
    let newer = record("2026-01-01T00:00:00Z").replace("exempt", "forgive");
    let newer = write(folder.path(), "newer.jsonl", newer.into_bytes());
    mailfuse(&["replay", &file, "--control", &newer])
        .status(2)
        .says("newer.jsonl:1: decisions of a kind that this version does not know: forgive");
    mailfuse(&["replay", &file, "--control", "no such file"]).status(2).says("--control no such file");
}

fn thousands(n: usize) -> String {
    let digits = n.to_string();
    match digits.len() {
        4..=6 => format!("{},{}", &digits[..digits.len() - 3], &digits[digits.len() - 3..]),
        _ => digits,
    }
}

#[test]
fn what_is_no_terminal_gets_text_alone() {
    let folder = tempfile::tempdir().unwrap();
    // Enough lines for a progress bar to be drawn many times.
    let mut lines = story();
    let auth =
        json!({"v": 1, "kind": "auth", "ts": BEGIN + 21 * DAY, "account": "u1@example.org", "ok": true}).to_string();
    lines.resize(lines.len() + 300_000, auth);
    let file = write(folder.path(), "events.jsonl", bytes(&lines));
    let ran = mailfuse(&["replay", &file]).ok().says("CRITICAL, stop the account: 2 incidents\n");
    assert!(!ran.stderr.contains(['\x1b', '\r', '\x08']), "{:?}", ran.stderr);
    assert!(!ran.stdout.contains(&0x1b));
    // It has colours to leave out.
    let coloured = wait(command(&["replay", &file]).env("CLICOLOR_FORCE", "1").spawn().unwrap()).ok();
    assert!(coloured.stderr.contains("\x1b["), "{}", coloured.stderr);
    assert_eq!(coloured.stdout, ran.stdout);
    let quiet = mailfuse(&["replay", "--quiet", &file]).ok();
    assert_eq!(quiet.stderr, "");
    assert_eq!(quiet.stdout, ran.stdout);
    let alerts = folder.path().join("alerts.jsonl");
    let to_file = mailfuse(&["replay", "-q", "--alerts", alerts.to_str().unwrap(), &file]).ok();
    assert!(to_file.stdout.is_empty());
    assert_eq!(std::fs::read(alerts).unwrap(), ran.stdout);
}
