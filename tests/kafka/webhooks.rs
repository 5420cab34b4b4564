//! Alerts reach receivers through everything that receivers do, and through the death of the desk: each at least once on the wire,
//! once after de-duplication by `webhook-id`, in order within an incident.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::run_support::{Broker, Deployment, Dice, Instance, LIMIT, Record, is_campaign, seed, wait_until};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use mailfuse::core::alert::{Alert, AlertKind};
use mailfuse::desk::webhook::sign::{Keys, Secret, verify};
use mailfuse::event::Timestamp;
use serde_json::Value;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// How a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Fine,
    Status(u16),
    RetryAfter(u16),
    Hangs,
    Slow,
    /// It breaks the connection off.
    Resets,
    /// Each request another one of these.
    Mixed,
}

/// A message as it came.
#[derive(Debug, Clone)]
struct Got {
    id: String,
    taken: bool,
    body: Value,
}

struct Receiver {
    address: String,
    mood: Arc<Mutex<Mood>>,
    got: Arc<Mutex<Vec<Got>>>,
    _runtime: tokio::runtime::Runtime,
}

type Desk = (Arc<Mutex<Mood>>, Arc<Mutex<Vec<Got>>>, Arc<Mutex<Dice>>);

impl Receiver {
    fn new() -> Receiver {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mood = Arc::new(Mutex::new(Mood::Fine));
        let got = Arc::new(Mutex::new(Vec::new()));
        let state = (Arc::clone(&mood), Arc::clone(&got), Arc::new(Mutex::new(Dice(7))));
        let router = Router::new().fallback(take).with_state(state);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        runtime.spawn(async move {
            axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
        });
        Receiver { address, mood, got, _runtime: runtime }
    }

    fn mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// How often each id came.
    fn times(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        self.got.lock().unwrap().iter().for_each(|g| *times.entry(g.id.clone()).or_default() += 1);
        times
    }

    /// Messages that it has answered with success, each id once, in the order of their first such answer.
    fn taken(&self) -> Vec<Got> {
        let (mut seen, got) = (BTreeSet::new(), self.got.lock().unwrap());
        got.iter().filter(|g| g.taken && seen.insert(g.id.clone())).cloned().collect()
    }
}

async fn take(State((mood, got, dice)): State<Desk>, headers: HeaderMap, body: Bytes) -> (StatusCode, HeaderMap) {
    let header = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
    let keys = Keys { signing: vec![Secret::parse(SECRET).unwrap()], routing_key: None };
    let now_s = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let (id, at, signature) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    verify(&keys, &id, &at, &signature, &body, now_s).unwrap();
    let mood = *mood.lock().unwrap();
    let mood = match mood {
        // Each message meets one of them once: who fails twice waits for minutes, as the schedule has it.
        Mood::Mixed if got.lock().unwrap().iter().any(|g| g.id == id) => Mood::Fine,
        Mood::Mixed => match dice.lock().unwrap().below(8) {
            0 => Mood::Status(500),
            1 => Mood::Status(503),
            2 => Mood::RetryAfter(1),
            3 => Mood::Status(302),
            4 => Mood::Slow,
            _ => Mood::Fine,
        },
        other => other,
    };
    let mut answer = HeaderMap::new();
    let status = match mood {
        Mood::Fine | Mood::Mixed => 200,
        Mood::Status(status) => status,
        Mood::RetryAfter(s) => {
            answer.insert(HeaderName::from_static("retry-after"), s.into());
            429
        }
        Mood::Hangs => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            200
        }
        // Without a word in the output: the server ends the connection.
        Mood::Resets => std::panic::resume_unwind(Box::new("reset")),
        Mood::Slow => {
            tokio::time::sleep(Duration::from_millis(700)).await;
            204
        }
    };
    let taken = (200..300).contains(&status);
    got.lock().unwrap().push(Got { id, taken, body: serde_json::from_slice(&body).unwrap() });
    (StatusCode::from_u16(status).unwrap(), answer)
}

/// Three alerts of each of so many incidents, mixed, each incident's in order.
fn alerts(dice: &mut Dice, from: u64, incidents: u64) -> Vec<Alert> {
    let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
    let template: Alert = serde_json::from_str(line).unwrap();
    let mut waiting: Vec<Vec<Alert>> = (from..from + incidents)
        .map(|n| {
            let stage = |(i, kind): (usize, AlertKind)| {
                let mut alert = template.clone();
                alert.account = format!("user{n}@t{n}.example");
                alert.tenant = format!("t{n}.example");
                alert.ts = Timestamp(1_700_000_000_000 + n as i64 * 3_600_000);
                alert.burst.as_mut().unwrap().client_ips = vec![format!("10.{}.{}.1", n / 250, n % 250)];
                alert.incident = format!("i-{n}");
                alert.id = format!("a-{n}-{i}");
                alert.kind = kind;
                alert
            };
            [AlertKind::Flagged, AlertKind::Escalated, AlertKind::Cleared].into_iter().enumerate().map(stage).collect()
        })
        .collect();
    let mut out = Vec::new();
    while !waiting.is_empty() {
        let i = dice.below(waiting.len() as u64) as usize;
        out.push(waiting[i].remove(0));
        if waiting[i].is_empty() {
            waiting.swap_remove(i);
        }
    }
    out
}

fn write(d: &Deployment<'_>, alerts: &[Alert]) {
    let records: Vec<Record> =
        alerts.iter().map(|a| Record::new(&a.account, &serde_json::to_string(a).unwrap())).collect();
    d.broker.produce(&d.topic("alerts"), &records);
}

fn deployment<'b>(broker: &'b Broker, name: &str, endpoints: &[(&str, &Receiver, &str)]) -> Deployment<'b> {
    let mut d = Deployment::new(broker, name, 1);
    let secret = d.folder.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    for (name, receiver, more) in endpoints {
        d.extra += &format!(
            "[[desk.webhook]]\nname = \"{name}\"\nurl = \"http://{}/hook\"\nsecret_file = {:?}\nallow_private = true\n{more}\n",
            receiver.address,
            secret.to_str().unwrap()
        );
    }
    d
}

/// Each alert arrived, once after de-duplication, in order within its incident.
#[track_caller]
fn check_every(receiver: &Receiver, alerts: &[Alert]) {
    let taken = receiver.taken();
    let ids: Vec<&str> = taken.iter().map(|g| g.body["data"]["id"].as_str().unwrap()).collect();
    let once: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), once.len(), "an alert under two webhook ids");
    assert_eq!(once, alerts.iter().map(|a| &*a.id).collect());
    let mut by_incident: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for got in &taken {
        let data = &got.body["data"];
        by_incident.entry(data["incident"].as_str().unwrap()).or_default().push(data["id"].as_str().unwrap());
    }
    for (incident, ids) in by_incident {
        assert!(ids.is_sorted(), "{incident}: {ids:?}");
    }
    // Whatever came under one id said the same.
    let mut bodies: BTreeMap<String, Value> = BTreeMap::new();
    for got in receiver.got() {
        let first = bodies.entry(got.id.clone()).or_insert_with(|| got.body.clone());
        assert_eq!(*first, got.body, "{} changed its words", got.id);
    }
}

#[track_caller]
fn await_taken(receiver: &Receiver, n: usize, limit: Duration) {
    wait_until(&format!("{n} messages are taken"), limit, || receiver.taken().len() >= n);
}

fn is_active(instance: &Instance) -> bool {
    instance.json("/v1/desk").1["role"] == "active"
}

fn endpoint(instance: &Instance, name: &str) -> Value {
    let (_, page) = instance.json("/v1/endpoints");
    let items = page["items"].as_array().cloned().unwrap_or_default();
    items.into_iter().find(|e| e["name"] == name).unwrap_or_default()
}

#[test]
fn every_alert_arrives_whatever_the_receiver_does() {
    let Some(broker) = Broker::shared() else { return };
    let receiver = Receiver::new();
    let d =
        deployment(broker, "hooks", &[("abuse", &receiver, "deliver = \"every\"\ntimeout_s = 15\nconcurrency = 8")]);
    let mut dice = Dice(seed());
    let all = alerts(&mut dice, 0, 60);
    let one = d.start_desk("one");
    wait_until("it is active", LIMIT, || is_active(&one));
    let parts: Vec<&[Alert]> = all.chunks(all.len() / 6).collect();
    write(&d, parts[0]);
    await_taken(&receiver, parts[0].len(), LIMIT);
    // Down, with errors; what comes meanwhile waits.
    receiver.mood(Mood::Status(500));
    write(&d, parts[1]);
    wait_until("the circuit opens", LIMIT, || endpoint(&one, "abuse")["circuit_open"] == true);
    assert_eq!(one.metric("mailfuse_webhook_circuit_open", "abuse"), 1.0);
    receiver.mood(Mood::RetryAfter(2));
    write(&d, parts[2]);
    wait_until("it holds back", LIMIT, || !endpoint(&one, "abuse")["held_until"].is_null());
    // It wants nothing more, and then does again.
    receiver.mood(Mood::Status(410));
    wait_until("it is disabled", LIMIT, || !endpoint(&one, "abuse")["disabled"].is_null());
    one.await_log("mailfuse webhook enable");
    wait_until("it is counted", LIMIT, || one.metric("mailfuse_webhook_disabled", "abuse") == 1.0);
    receiver.mood(Mood::Fine);
    let asked = |words: &[&str]| {
        let mut command = crate::run_support::mailfuse();
        command
            .args(["webhook", words[0], "--config"])
            .arg(d.config("one"))
            .args(["--at", &one.http()])
            .args(&words[1..]);
        command.output().unwrap()
    };
    let done = asked(&["enable", "none"]);
    assert_eq!(done.status.code(), Some(1), "{}", String::from_utf8_lossy(&done.stderr));
    let done = asked(&["enable", "abuse", "--note", "the receiver was moved"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    wait_until("it is said why", LIMIT, || {
        let (_, audit) = one.json("/v1/audit?limit=5");
        let lines = audit["items"].as_array().cloned().unwrap_or_default();
        lines.iter().any(|l| l["what"] == "endpoint.enabled" && l["note"] == "the receiver was moved")
    });
    await_taken(&receiver, parts[..3].iter().map(|p| p.len()).sum(), LIMIT);
    // Every answer there is, one after the other and mixed, and a receiver that hangs.
    receiver.mood(Mood::Hangs);
    write(&d, parts[3]);
    wait_until("it is tried", LIMIT, || endpoint(&one, "abuse")["in_flight"].as_u64() > Some(0));
    receiver.mood(Mood::Mixed);
    for part in &parts[4..] {
        write(&d, part);
    }
    std::thread::sleep(Duration::from_secs(2));
    receiver.mood(Mood::Fine);
    await_taken(&receiver, all.len(), Duration::from_secs(240));
    check_every(&receiver, &all);
    wait_until("nothing waits", LIMIT, || endpoint(&one, "abuse")["pending"] == 0);
    // What was confirmed can be asked for again, and comes under its id.
    let (_, page) = one.json("/v1/deliveries?state=delivered&incident=i-5&limit=1");
    let id = page["items"][0]["id"].as_str().unwrap().to_owned();
    let times = || receiver.got().iter().filter(|g| g.id == id).count();
    let before = times();
    let done = asked(&["resend", "abuse", &id, "--note", "lost there"]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    wait_until("it came again", LIMIT, || times() == before + 1);
    check_every(&receiver, &all);
}

#[test]
fn a_receiver_that_is_away_for_minutes_gets_everything_when_it_is_back() {
    let Some(broker) = Broker::shared() else { return };
    let receiver = Receiver::new();
    let d = deployment(
        broker,
        "hooksaway",
        &[("abuse", &receiver, "deliver = \"every\"\ntimeout_s = 15\nconcurrency = 8")],
    );
    let mut dice = Dice(seed());
    let phase = Duration::from_secs(if is_campaign() { 60 } else { 3 });
    let one = d.start_desk("one");
    wait_until("it is active", LIMIT, || is_active(&one));
    let all = alerts(&mut dice, 0, 100);
    let mut parts = all.chunks(all.len() / 5);
    let began = Instant::now();
    for mood in [Mood::Status(500), Mood::Hangs, Mood::Resets, Mood::RetryAfter(1)] {
        receiver.mood(mood);
        write(&d, parts.next().unwrap());
        std::thread::sleep(phase);
        assert_eq!(receiver.taken().len(), 0);
    }
    receiver.mood(Mood::Slow);
    let away_s = began.elapsed().as_secs_f64();
    let back = Instant::now();
    parts.for_each(|part| write(&d, part));
    await_taken(&receiver, all.len(), Duration::from_secs(240));
    check_every(&receiver, &all);
    let tries = receiver.got().len();
    eprintln!(
        "away for {away_s:.0} s: {} alerts, all there {:.0} s after, {tries} requests",
        all.len(),
        back.elapsed().as_secs_f64()
    );
}

#[test]
fn a_desk_that_dies_sends_nothing_twice_that_was_confirmed_and_loses_nothing() {
    let Some(broker) = Broker::shared() else { return };
    let receiver = Receiver::new();
    let d = deployment(broker, "hooksdie", &[("abuse", &receiver, "deliver = \"every\"\nconcurrency = 8")]);
    let mut dice = Dice(seed());
    let kills = if is_campaign() { 30 } else { 6 };
    let all = alerts(&mut dice, 0, 20 * kills);
    let mut desks = [d.start_desk("one"), d.start_desk("two")];
    let began = Instant::now();
    let all_moods =
        [Mood::Mixed, Mood::Fine, Mood::Hangs, Mood::Resets, Mood::RetryAfter(1), Mood::Slow, Mood::Status(500)];
    // What was refused twice waits for five minutes, as the schedule says: that is for campaigns.
    let (moods, within_s) = if is_campaign() { (&all_moods[..], 900) } else { (&all_moods[..2], 240) };
    let (mut killed, mut confirmed) = (0, BTreeMap::new());
    for (n, part) in all.chunks(all.len() / kills as usize + 1).enumerate() {
        receiver.mood(moods[n % moods.len()]);
        write(&d, part);
        if n == 0 {
            // So that something was confirmed before a kill, however long it takes to begin.
            await_taken(&receiver, part.len() / 2, LIMIT);
        }
        std::thread::sleep(Duration::from_millis(300 + dice.below(2500)));
        // The active one, with the other standing by.
        let active = || (0..2).find(|&i| desks[i].log().contains("http://") && is_active(&desks[i]));
        let mut victim = None;
        wait_until("a desk is active", LIMIT, || {
            victim = active();
            victim.is_some()
        });
        let victim = victim.unwrap();
        desks[victim].kill();
        killed += 1;
        // What the topic says was delivered must not come again: counted after it has said so.
        let topic = broker.read(&d.topic("desk"));
        let times = receiver.times();
        for record in topic {
            if record.key_text().starts_with("delivery/") {
                let value: Value = serde_json::from_str(&record.text()).unwrap();
                if value["state"] == "delivered" {
                    let id = value["id"].as_str().unwrap().to_owned();
                    let times = times.get(&id).copied().unwrap_or(0);
                    confirmed.entry(id).or_insert(times);
                }
            }
        }
        desks[victim] = d.start_desk(["one", "two"][victim]);
    }
    receiver.mood(Mood::Fine);
    await_taken(&receiver, all.len(), Duration::from_secs(within_s));
    check_every(&receiver, &all);
    assert!(!confirmed.is_empty());
    let in_the_end = receiver.times();
    for (id, times) in &confirmed {
        assert_eq!(in_the_end[id], *times, "{id} came again");
    }
    let repeats = receiver.got().iter().filter(|g| g.taken).count() - all.len();
    eprintln!(
        "webhooks: {} alerts, {killed} SIGKILLs of the active desk, {} confirmed before a kill and none sent again, {repeats} sent \
         twice under one id, {:.0} s",
        all.len(),
        confirmed.len(),
        began.elapsed().as_secs_f64()
    );
    assert_eq!(killed, kills);
}

#[test]
fn a_flood_ends_in_few_messages_and_routing_chooses() {
    let Some(broker) = Broker::shared() else { return };
    let (grouped, critical, tenant) = (Receiver::new(), Receiver::new(), Receiver::new());
    let d = deployment(
        broker,
        "flood",
        &[
            ("grouped", &grouped, ""),
            ("critical", &critical, "deliver = \"every\"\nmin_severity = \"critical\""),
            ("tenant", &tenant, "deliver = \"every\"\ntenants = [\"t7.example\"]\nkinds = [\"account.flagged\"]"),
        ],
    );
    let one = d.start("one");
    wait_until("it is active", LIMIT, || is_active(&one));
    wait_until("its index is ready", LIMIT, || one.json("/v1/desk").1["index"]["state"] == "ready");
    let incidents = if is_campaign() { 10_000 } else { 2_000 };
    let mut all = alerts(&mut Dice(seed()), 0, incidents);
    all.retain(|a| a.kind == AlertKind::Flagged);
    let began = Instant::now();
    write(&d, &all);
    // While it works, its pages answer.
    let (mut answers, mut rss_bytes) = (Vec::new(), 0.0_f64);
    wait_until("all are taken", Duration::from_secs(120), || {
        let asked = Instant::now();
        assert_eq!(one.get("/v1/incidents?state=open&limit=50").0, 200);
        answers.push(asked.elapsed());
        rss_bytes = rss_bytes.max(one.metric("process_resident_memory_bytes", ""));
        one.metric("mailfuse_desk_alerts_total", "") >= all.len() as f64
    });
    let took = began.elapsed();
    answers.sort_unstable();
    let p99 = answers[answers.len() * 99 / 100];
    if is_campaign() {
        assert!(p99 < Duration::from_millis(100), "p99 {} ms", p99.as_millis());
    }
    // Each of some five Kafka clients may hold 64 MB that it has fetched; the alerts themselves are some 4 kB each.
    assert!((1.0..1e9).contains(&rss_bytes), "{rss_bytes} bytes");
    wait_until("the storm was sent", LIMIT, || grouped.taken().iter().any(|g| g.body["type"] == "storm"));
    let messages = grouped.taken();
    let minutes = began.elapsed().as_secs() as usize / 60;
    assert!(messages.len() <= 21 * (minutes + 1) + 1, "{} messages", messages.len());
    let storms = messages.iter().filter(|g| g.body["type"] == "storm").count();
    eprintln!(
        "flood: {} alerts taken in {:.1} s, {} messages ({storms} storms), {} pages meanwhile, p50 {} ms, \
         p99 {} ms, at most {:.0} MB",
        all.len(),
        took.as_secs_f64(),
        messages.len(),
        answers.len(),
        answers[answers.len() / 2].as_millis(),
        p99.as_millis(),
        rss_bytes / 1e6
    );
    let ids =
        |r: &Receiver| r.taken().iter().map(|g| g.body["data"]["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    wait_until("the tenant's came", LIMIT, || !tenant.taken().is_empty());
    assert_eq!(ids(&tenant), ["a-7-0"]);
    assert!(ids(&critical).iter().all(|id| id.starts_with("n-")), "the examples are warnings; anomalies are not");
}

#[test]
fn an_endpoint_is_tried_by_hand() {
    let receiver = Receiver::new();
    let folder = tempfile::tempdir().unwrap();
    let (config, secret) = (folder.path().join("m.toml"), folder.path().join("secret"));
    std::fs::write(&secret, SECRET).unwrap();
    let text = |more: &str| {
        format!(
            "[[desk.webhook]]\nname = \"abuse\"\nurl = \"http://{}/hook\"\nsecret_file = {:?}\n{more}",
            receiver.address,
            secret.to_str().unwrap()
        )
    };
    let test = |names: &[&str]| {
        let out = crate::run_support::mailfuse()
            .args(["webhook", "test", "--config"])
            .arg(&config)
            .args(names)
            .output()
            .unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        (out.status.code(), said)
    };
    std::fs::write(&config, text("")).unwrap();
    let (code, said) = test(&[]);
    assert!(code == Some(1) && said.contains("blocked") && said.contains("allow_private"), "{said}");
    std::fs::write(&config, text("allow_private = true\n")).unwrap();
    let (code, said) = test(&["abuse"]);
    assert!(code == Some(0) && said.contains("delivered"), "{said}");
    assert_eq!(receiver.taken()[0].body["type"], "webhook.test");
    // A receiver that keeps incidents is asked to wake somebody, and then that nobody need come.
    std::fs::write(&config, text("format = \"alertmanager\"\nallow_private = true\n")).unwrap();
    let before = receiver.taken().len();
    let (code, said) = test(&[]);
    assert!(code == Some(0) && said.contains("begun there and ended"), "{said}");
    let bodies: Vec<Value> = receiver.taken()[before..].iter().map(|g| g.body.clone()).collect();
    let holds_s = |body: &Value| {
        let at = |key: &str| body[0][key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
        at("endsAt") - at("startsAt")
    };
    assert_eq!((bodies.len(), holds_s(&bodies[0]) > 3600, holds_s(&bodies[1])), (2, true, 0));
    assert_eq!(bodies[0][0]["labels"], bodies[1][0]["labels"]);
    std::fs::write(&config, text("allow_private = true\n")).unwrap();
    receiver.mood(Mood::Status(503));
    let (code, said) = test(&[]);
    assert!(code == Some(1) && said.contains("answered 503"), "{said}");
    let (code, said) = test(&["none"]);
    assert!(code == Some(2) && said.contains("there are abuse"), "{said}");
    std::fs::write(&secret, "whsec_short").unwrap();
    let (code, said) = test(&[]);
    assert!(code == Some(2) && !said.contains("short\""), "{said}");
    std::fs::remove_file(&secret).unwrap();
    let (code, said) = test(&[]);
    assert!(code == Some(2) && said.contains("secret_file"), "{said}");
    // An unknown key is refused with its line.
    std::fs::write(&config, text("sekret = 1\n")).unwrap();
    let (code, said) = test(&[]);
    assert!(code == Some(2) && said.contains("sekret"), "{said}");
}

#[test]
fn the_readmes_secret_is_one_and_without_it_the_check_says_so() {
    let readme = include_str!("../../README.md");
    let line = readme.lines().find(|l| l.starts_with("    echo \"whsec_")).expect("the README makes a secret");
    let folder = tempfile::tempdir().unwrap();
    let (config, secret) = (folder.path().join("m.toml"), folder.path().join("abuse.secret"));
    let text = format!(
        "[[desk.webhook]]\nname = \"abuse\"\nurl = \"https://desk.example.net/\"\nsecret_file = {:?}\n",
        secret.to_str().unwrap()
    );
    std::fs::write(&config, text).unwrap();
    let check = || crate::run_support::mailfuse().args(["config", "--check"]).arg(&config).output().unwrap();
    let missing = check();
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(missing.status.code() == Some(2) && said.contains("secret_file"), "{said}");
    let made = std::process::Command::new("sh").args(["-c", line]).current_dir(folder.path()).status().unwrap();
    assert!(made.success());
    Secret::parse(std::fs::read_to_string(&secret).unwrap().trim()).unwrap();
    let checked = check();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// A mail server that takes everything.
struct Sink {
    address: String,
    mails: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    fn new() -> Sink {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mails = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&mails);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, all) = (stream.unwrap(), Arc::clone(&all));
                std::thread::spawn(move || serve(stream, &all));
            }
        });
        Sink { address, mails }
    }
}

fn serve(stream: std::net::TcpStream, mails: &Mutex<Vec<String>>) -> Option<()> {
    use std::io::{BufRead, BufReader, Write};
    let mut out = stream.try_clone().ok()?;
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    write!(out, "220 sink\r\n").ok()?;
    while let Some(line) = lines.next() {
        let word = line.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        if word == "DATA" {
            write!(out, "354 go on\r\n").ok()?;
            let mail: Vec<String> = lines.by_ref().take_while(|l| l != ".").collect();
            mails.lock().unwrap().push(mail.join("\n"));
        }
        write!(out, "{}\r\n", if word == "QUIT" { "221 bye" } else { "250 fine" }).ok()?;
    }
    Some(())
}

#[test]
fn alerts_are_mailed_through_a_smart_host() {
    let Some(broker) = Broker::shared() else { return };
    let sink = Sink::new();
    let mut d = Deployment::new(broker, "mailed", 1);
    d.extra = format!(
        "[[desk.mail]]\nname = \"tickets\"\nto = [\"abuse@desk.example\"]\nfrom = \"mailfuse@desk.example\"\n\
         smart_host = \"{}\"\nsecurity = \"plain\"\ndeliver = \"every\"\n",
        sink.address
    );
    let one = d.start_desk("one");
    wait_until("it is active", LIMIT, || is_active(&one));
    let all = alerts(&mut Dice(seed()), 0, 4);
    write(&d, &all);
    wait_until("all are mailed", LIMIT, || sink.mails.lock().unwrap().len() == all.len());
    wait_until("and that is recorded", LIMIT, || {
        one.json("/v1/deliveries?endpoint=tickets&state=delivered").1["items"].as_array().unwrap().len() == all.len()
    });
    let mails = sink.mails.lock().unwrap().clone();
    for n in 0..4 {
        let of =
            |m: &&String| m.lines().any(|l| l.starts_with("X-Mailfuse-Incident:") && l.ends_with(&format!("i-{n}")));
        assert_eq!(mails.iter().filter(of).count(), 3, "{mails:#?}");
    }
    let out =
        crate::run_support::mailfuse().args(["webhook", "test", "--config"]).arg(d.config("one")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(sink.mails.lock().unwrap().len(), all.len() + 1);
}
