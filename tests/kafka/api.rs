//! The HTTP API of a running instance is what its description says, whatever it is asked and whatever accounts are called.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::run_support::{Broker, Deployment, Instance, LIMIT, Record, wait_until};
use mailfuse::telemetry::description::OPENAPI;
use serde_json::{Value, json};

/// One run, on a machine that is busy with other things.
const SCHEMATHESIS: Duration = Duration::from_secs(600);
/// Examples of a page: with them a run takes about half a minute.
const EXAMPLES: &str = "12";

/// Names that a mail server lets through and no page may fall for.
fn hostile() -> Vec<String> {
    vec![
        "<script>alert(1)</script>@a.example".to_owned(),
        "\"><img src=x onerror=alert(1)>@a.example".to_owned(),
        "\u{202e}moc.elpmaxe@\u{2066}a\u{200f}.example".to_owned(),
        "a\u{0}b\u{1}\u{1b}[31m\u{7f}\r\nset-cookie: x=y\r\n\r\n@a.example".to_owned(),
        "' or 1=1; drop table incidents; --@a.example".to_owned(),
        format!("{}@a.example", "ä".repeat(5000)),
        "../../etc/passwd?x=1#y%00%2f@a.example".to_owned(),
    ]
}

/// Three alerts of an account; the first of them says that much.
fn alerts(n: usize, account: &str) -> Vec<Value> {
    let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
    let stage = |(i, kind): (usize, &str)| {
        let mut alert: Value = serde_json::from_str(line).unwrap();
        alert["account"] = json!(account);
        alert["tenant"] = json!(account);
        alert["incident"] = json!(format!("i-{n}"));
        alert["id"] = json!(format!("a-{n}-{i}"));
        alert["kind"] = json!(kind);
        alert["burst"]["client_ips"] = json!([format!("10.{}.{}.1", n / 250, n % 250)]);
        alert
    };
    ["account.flagged", "account.escalated"].into_iter().enumerate().map(stage).collect()
}

fn write(d: &Deployment<'_>, accounts: &[String]) {
    let all = accounts.iter().enumerate().flat_map(|(n, account)| alerts(n, account));
    let records: Vec<Record> =
        all.map(|a| Record::new(a["account"].as_str().unwrap(), &serde_json::to_string(&a).unwrap())).collect();
    d.broker.produce(&d.topic("alerts"), &records);
}

/// Status, `Content-Type` and body.
fn ask(instance: &Instance, path: &str, token: Option<&str>) -> (u16, String, Vec<u8>) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    let mut request = agent.get(format!("http://{}{path}", instance.http()));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut answer = request.call().unwrap();
    let header = |name: &str| answer.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    assert_eq!((header("x-content-type-options"), header("cache-control")), ("nosniff".into(), "no-store".into()));
    assert_eq!(header("content-security-policy"), "default-src 'none'");
    let kind = header("content-type");
    (answer.status().as_u16(), kind, answer.body_mut().read_to_vec().unwrap())
}

/// An answer is what the description has for this page and status.
#[track_caller]
fn conforms(page: &str, (status, kind, body): &(u16, String, Vec<u8>)) -> Value {
    let description: Value = serde_json::from_str(&OPENAPI).unwrap();
    let answer = &description["paths"][page]["get"]["responses"][status.to_string()];
    let answer = answer["$ref"].as_str().unwrap_or_else(|| panic!("{page}: {status} is not described"));
    let content = &description.pointer(&answer[1..]).unwrap()["content"];
    let schema = content[kind]["schema"].as_object().unwrap_or_else(|| panic!("{page}: {kind} is not described"));
    let mut schema = schema.clone();
    schema.insert("components".to_owned(), description["components"].clone());
    let value = if kind.ends_with("json") { serde_json::from_slice(body).unwrap() } else { json!("text") };
    let schema = jsonschema::options().should_validate_formats(true).build(&schema.into()).unwrap();
    let errors: Vec<String> = schema.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{page}: {errors:#?} in {value:#}");
    value
}

fn items(instance: &Instance, path: &str) -> usize {
    instance.json(path).1["items"].as_array().map_or(0, Vec::len)
}

/// Runs schemathesis against an instance; false where it cannot be had.
#[track_caller]
fn schemathesis(d: &Deployment<'_>, instance: &Instance, arguments: &[&str]) -> bool {
    let file = d.folder.path().join("openapi.json");
    let mut description: Value = serde_json::from_str(&OPENAPI).unwrap();
    if !arguments.contains(&"--header") {
        // As the description says, it wants no token where none is configured.
        description.as_object_mut().unwrap().remove("security");
    }
    std::fs::write(&file, description.to_string()).unwrap();
    // Two runs at once take from each other what their answers' time-outs allow. The first one installs it, which takes its time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let program = || Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("ops/api/schemathesis"));
    program().arg("--version").stdin(Stdio::null()).output().expect("ops/api/schemathesis needs python3");
    let log = d.folder.path().join("schemathesis.log");
    let out = std::fs::File::create(&log).unwrap();
    let mut command = program();
    command.current_dir(d.folder.path()).env("NO_COLOR", "1").arg("run").arg(&file);
    command.args(["--url", &format!("http://{}", instance.http()), "--seed", "1", "--max-examples", EXAMPLES]);
    command.args(["--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--no-shrink"]);
    command.args(["--request-timeout", "60", "--continue-on-failure", "--suppress-health-check", "all"]);
    command.args(arguments);
    let mut child = command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
    let began = Instant::now();
    while began.elapsed() < SCHEMATHESIS && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(100));
    }
    // It has ended, or has to.
    let _ = child.kill();
    let status = child.wait().unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    if status.code() == Some(3) {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{said}");
        eprintln!("skipped: {said}");
        return false;
    }
    assert_eq!(status.code(), Some(0), "{said}");
    eprintln!("{} s; {}", began.elapsed().as_secs(), said.lines().rev().take(12).collect::<Vec<_>>().join(" | "));
    true
}

/// Everything but decisions and renames.
const ALL_BUT: [&str; 4] = ["--exclude-path", "/v1/decisions", "--exclude-path", "/v1/renames"];
/// What their fields have to do with each other and with the time of day no schema says: some that fit it are refused.
const DECISIONS: [&str; 6] = [
    "--include-path",
    "/v1/decisions",
    "--include-path",
    "/v1/renames",
    "--exclude-checks",
    "positive_data_acceptance",
];

/// With two endpoints that nobody answers at.
fn deployment<'b>(broker: &'b Broker, name: &str) -> Deployment<'b> {
    let mut d = Deployment::new(broker, name, 1);
    let secret = d.folder.path().join("secret");
    std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let secret = secret.to_str().unwrap();
    // It knows most of the accounts of `hostile`, and says things as bad of them.
    let directory = d.folder.path().join("directory.jsonl");
    let entry = |name: &String| json!({"v": 1, "account": name, "contact": name, "plan": name}).to_string();
    let known: Vec<String> = hostile().iter().filter(|n| n.len() <= 256).map(entry).collect();
    std::fs::write(&directory, known.join("\n")).unwrap();
    d.extra = format!(
        "[directory]\nfile = {directory:?}\n[[desk.webhook]]\nname = \"abuse\"\nurl = \"http://127.0.0.1:1/hook\"\nsecret_file = {secret:?}\nallow_private = true\n"
    );
    d
}

#[test]
fn every_answer_is_as_described_and_schemathesis_finds_nothing() {
    let Some(broker) = Broker::shared() else { return };
    let d = deployment(broker, "api");
    let names = hostile();
    // What the detector itself knows of them, as long as an account may be.
    let known: Vec<&String> = names.iter().filter(|n| n.len() <= 1024 && !n.contains('\0')).collect();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() - 60;
    let events: Vec<Record> = known
        .iter()
        .map(|n| {
            Record::new(
                &n.to_ascii_lowercase(),
                &json!({"v": 1, "kind": "send", "ts": now, "account": n, "rcpts": ["x@b.example"]}).to_string(),
            )
        })
        .collect();
    broker.produce(&d.topic("events"), &events);
    write(&d, &names);
    let one = d.start("one");
    one.await_ready();
    wait_until("the desk has them", LIMIT, || items(&one, "/v1/incidents") == names.len());
    wait_until("they wait at the endpoint", LIMIT, || items(&one, "/v1/deliveries") > 0);
    // One partition: who knows the last of them knows them all.
    let last = format!("/v1/accounts/{}", encoded(known[known.len() - 1]));
    wait_until("the detector has them", LIMIT, || one.json(&last).0 == 200);
    for page in [
        "/",
        "/metrics",
        "/healthz",
        "/readyz",
        "/v1/openapi.json",
        "/v1/status",
        "/v1/desk",
        "/v1/endpoints",
        "/v1/trying",
    ] {
        let answer = ask(&one, page, None);
        assert_eq!(answer.0, 200, "{page}");
        conforms(page, &answer);
    }
    conforms("/v1/deliveries", &ask(&one, "/v1/deliveries?state=pending&endpoint=abuse", None));
    conforms("/v1/alerts", &ask(&one, "/v1/alerts?limit=3", None));
    let incident = conforms("/v1/incidents/{id}", &ask(&one, "/v1/incidents/i-1", None));
    for page in ["queue-ids", "collateral", "collateral.csv"] {
        let mut answer = ask(&one, &format!("/v1/incidents/i-1/{page}"), None);
        wait_until(&format!("{page} is read"), LIMIT, || {
            conforms(&format!("/v1/incidents/{{id}}/{page}"), &answer);
            let is_done = answer.0 == 200;
            if !is_done {
                answer = ask(&one, &format!("/v1/incidents/i-1/{page}"), None);
            }
            is_done
        });
    }
    assert_eq!(incident["incident"]["directory"]["contact"], json!(names[1]));
    let directory = conforms("/v1/directory", &ask(&one, "/v1/directory", None));
    assert_eq!((&directory["accounts"], directory.get("trouble")), (&json!(names.len() - 1), None));
    for name in names.iter().filter(|n| n.len() <= 256) {
        let answer = ask(&one, &format!("/v1/directory/{}", encoded(name)), None);
        assert!(!answer.2.iter().any(|b| *b < 32), "a control character in an answer");
        assert_eq!(conforms("/v1/directory/{account}", &answer)["plan"], json!(name));
    }
    for (page, path, status) in [
        ("/v1/incidents/{id}", "/v1/incidents/none", 404),
        ("/v1/incidents/{id}/queue-ids", "/v1/incidents/none/queue-ids", 404),
        ("/v1/incidents/{id}/queue-ids", "/v1/incidents/i-1/queue-ids?limit=0", 400),
        ("/v1/incidents/{id}/collateral", "/v1/incidents/none/collateral", 404),
        ("/v1/incidents/{id}/collateral", "/v1/incidents/i-1/collateral?limit=1001", 400),
        ("/v1/incidents/{id}/collateral.csv", "/v1/incidents/none/collateral.csv", 404),
        ("/v1/incidents", "/v1/incidents?state=opne", 400),
        ("/v1/incidents", "/v1/incidents?limit=0", 400),
        ("/v1/incidents", "/v1/incidents?sate=open", 400),
        ("/v1/alerts", "/v1/alerts?after=-1", 400),
        ("/v1/accounts/{account}", "/v1/accounts/nobody@a.example", 404),
        ("/v1/directory/{account}", "/v1/directory/nobody@a.example", 404),
        ("/problems/{name}", "/problems/none", 404),
    ] {
        let answer = ask(&one, path, None);
        assert_eq!(answer.0, status, "{path}");
        conforms(page, &answer);
    }

    // They stay text: JSON throughout, the same name in it, nothing of it as a byte that a terminal or a browser obeys.
    let mut path = "/v1/incidents?limit=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let answer = ask(&one, &path, None);
        assert!(!answer.2.iter().any(|b| *b < 32), "a control character in an answer");
        let page = conforms("/v1/incidents", &answer);
        seen.extend(page["items"].as_array().unwrap().iter().map(|i| i["account"].as_str().unwrap().to_owned()));
        match &page["next"] {
            Value::Null => break,
            next => path = format!("/v1/incidents?limit=2&before={next}"),
        }
    }
    let wanted: Vec<String> = names.iter().rev().cloned().collect();
    assert_eq!(seen, wanted);
    for name in &names {
        let answer = ask(&one, &format!("/v1/incidents?account={}", encoded(name)), None);
        assert_eq!(conforms("/v1/incidents", &answer)["items"].as_array().unwrap().len(), 1, "{name:?}");
    }
    for name in known {
        let answer = ask(&one, &format!("/v1/accounts/{}", encoded(name)), None);
        assert_eq!(answer.0, 200, "{name:?}: {}", String::from_utf8_lossy(&answer.2));
        assert_eq!(conforms("/v1/accounts/{account}", &answer)["account"], name.to_ascii_lowercase());
    }
    schemathesis(&d, &one, &ALL_BUT);
    schemathesis(&d, &one, &DECISIONS);
}

fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

#[test]
fn with_tokens_the_commands_need_one_and_schemathesis_finds_nothing() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = deployment(broker, "apitoken");
    let made = crate::run_support::mailfuse()
        .args(["token", "new", "--name", "console", "--role", "look", "--role", "accounts"])
        .output()
        .unwrap();
    let (token, table) = (String::from_utf8(made.stdout).unwrap(), String::from_utf8(made.stderr).unwrap());
    assert!(made.status.success() && !table.contains(token.trim()), "{table}");
    let secret = d.folder.path().join("token");
    std::fs::write(&secret, &token).unwrap();
    let token = token.trim();
    d.extra += &table;
    write(&d, &hostile());
    let one = d.start_desk("one");
    let asks = |path: &str| ask(&one, path, Some(token));
    wait_until("it is active", LIMIT, || {
        serde_json::from_slice::<Value>(&asks("/v1/desk").2).unwrap()["role"] == "active"
    });
    let answer = ask(&one, "/v1/incidents", None);
    assert_eq!(answer.0, 401);
    conforms("/v1/incidents", &answer);
    conforms("/v1/incidents", &asks("/v1/incidents"));
    let enable = |name: &str, more: &[&str]| {
        let mut command = crate::run_support::mailfuse();
        command.args(["webhook", "enable", "--config"]).arg(d.config("one")).args(["--at", &one.http(), name]);
        let done = command.env_remove("MAILFUSE_TOKEN").args(more).output().unwrap();
        (done.status.code(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, said) = enable("abuse", &[]);
    assert!(code == Some(1) && said.contains("a token is needed. Send `Authorization"), "{said}");
    let (code, said) = enable("abuse", &["--token-file", secret.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = enable("no/such", &["--token-file", secret.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("no such endpoint. /v1/endpoints lists them."), "{said}");
    let header = format!("Authorization: Bearer {token}");
    schemathesis(&d, &one, &[&ALL_BUT[..], &["--header", &header]].concat());
    assert!(!one.log().contains(token), "a token in the log");
}

/// The README's way to let others in: a token made, its table put into the configuration, SIGHUP.
#[test]
fn a_token_made_as_the_readme_says_is_let_in_after_a_reload() {
    let Some(broker) = Broker::shared() else { return };
    let d = Deployment::new(broker, "reload", 1);
    let one = d.start("one");
    one.await_ready();
    assert_eq!(ask(&one, "/v1/desk", None).0, 200, "on this host, without tokens");

    let readme = include_str!("../../README.md");
    let line = readme.lines().find(|l| l.starts_with("    mailfuse token new ")).expect("the README makes a token");
    let made = Command::new("sh")
        .args(["-c", &line.trim().replacen("mailfuse", env!("CARGO_BIN_EXE_mailfuse"), 1)])
        .current_dir(d.folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let token = std::fs::read_to_string(d.folder.path().join("console.token")).unwrap();
    let config = std::fs::read_to_string(&one.config).unwrap();
    // A file that is wrong changes nothing, and says so.
    std::fs::write(&one.config, format!("{config}\n[[http.token]]\nname = \"console\"\n")).unwrap();
    one.signal("HUP");
    one.await_log("http.token `console`");
    assert_eq!(ask(&one, "/v1/desk", None).0, 200);
    std::fs::write(&one.config, format!("{config}\n{}", String::from_utf8(made.stderr).unwrap())).unwrap();
    one.signal("HUP");
    wait_until("who has no token is sent away", LIMIT, || ask(&one, "/v1/desk", None).0 == 401);
    assert_eq!(ask(&one, "/v1/desk", Some(token.trim())).0, 200);
    assert_eq!(ask(&one, "/healthz", None).0, 200);

    let asked = |more: &[&str]| {
        let mut command = crate::run_support::mailfuse();
        command.args(["desk", "incidents", "--config"]).arg(&one.config).args(["--at", &one.http()]).args(more);
        command.current_dir(d.folder.path()).output().unwrap()
    };
    assert!(!asked(&[]).status.success());
    let answered = asked(&["--token-file", "console.token"]);
    assert!(answered.status.success(), "{}", String::from_utf8_lossy(&answered.stderr));
}
