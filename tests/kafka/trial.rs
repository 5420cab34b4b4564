//! A hijack from its first message by SMTP to the end, all of it real: Postfix with SASL, HAProxy, four relays, their logs, a
//! broker, `mailfuse run`. `ops/trial/run` does it and measures from outside; here is what must hold.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::run_support::kafka_support::alone;
use serde_json::{Value, json};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ops/trial/run");
/// There is no Debian, no root, no Java or no Maven.
const LACKING: i32 = 3;
/// Connections of the hijacker: so many messages may be past the question when it is answered otherwise.
const CONNECTIONS: u64 = 3;
const RECIPIENTS: u64 = 10;

#[test]
fn a_hijack_is_deferred_its_relay_drained_and_nobody_else_loses_a_message() {
    // Its programs answer each other within seconds, or do without: it is no measure of them beside other tests.
    let _alone = alone();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (measured, kept) = (folder.path().join("measured.json"), folder.path().join("kept"));
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", "900", SCRIPT, "--mailfuse", env!("CARGO_BIN_EXE_mailfuse"), "--burst", "20"]);
    command.args(["--recipients", &RECIPIENTS.to_string()]).arg("--json").arg(&measured).arg("--keep").arg(&kept);
    let ran = command.stdin(Stdio::null()).output().expect("ops/trial/run needs python3");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    if ran.status.code() == Some(LACKING) {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{said}");
        eprintln!("skipped: {said}");
        return;
    }
    let log = |name: &str| std::fs::read_to_string(Path::new(&kept).join(name)).unwrap_or_default();
    assert!(ran.status.success(), "{said}\n{}\n{}", log("publish.log"), log("run.log"));
    eprintln!("{said}");
    let found: Value = serde_json::from_slice(&std::fs::read(&measured).unwrap()).unwrap();

    // Flagged, and refused from then on, in words that the customer can read.
    let number = |name: &str| found[name].as_f64().unwrap_or_else(|| panic!("never: {name}\n{}", log("run.log")));
    assert!(number("flag_s") <= number("deferral_s") && number("deferral_s") <= number("drain_s"), "{found:#}");
    let accepted = |until: &str| found["accepted"][until].as_u64().unwrap();
    assert!(accepted("all") <= accepted("deferral") + CONNECTIONS * RECIPIENTS, "{found:#}");
    let refusal = found["refusal"].as_str().unwrap();
    assert!(refusal.contains("dora@brightleaf.example may not send mail") && refusal.contains("abuse@harbour.example"));
    assert!(found["refused_messages"].as_u64() > Some(20), "the hijacker went on: {found:#}");
    // What was still in queues by then is held there, also on relays, where nobody logs in.
    let held: u64 = found["queued"]["end"].as_object().unwrap().values().filter_map(|q| q["hold"].as_u64()).sum();
    assert!(held > 0, "{found:#}\n{}", log("run.log"));

    // Three of four stay in, however much they carried; the one that was pulled got nothing new, and came back.
    let relays: Vec<&Value> = found["relays"].as_object().unwrap().values().collect();
    let pulled: Vec<&&Value> = relays.iter().filter(|r| !r["drained_s"].is_null()).collect();
    assert_eq!((relays.len(), pulled.len()), (4, 1), "{found:#}");
    assert!(pulled[0]["strangers"].as_u64() > Some(0) && pulled[0]["back_s"].is_f64(), "{found:#}");
    assert_eq!((&pulled[0]["connections_while_drained"], &pulled[0]["taken_while_drained"]), (&json!(0), &json!(0)));

    let customers = &found["customers"];
    assert!(customers["recipients"].as_u64() > Some(100), "{found:#}");
    let losses = (&customers["lost"], &customers["refused"], &customers["blocked"]);
    assert_eq!(losses, (&json!(0), &json!([]), &json!(0)), "{found:#}");
    assert_eq!(found["owner"], json!({ "before_release": 450, "released": true }), "stopped until it is released");
}
