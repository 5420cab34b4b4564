//! The HTTP answers of `run`, over a real connection, before a core that is made up.

use crate::core_support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use core_support::{BEGIN_S, Detector, at, policy, send};
use mailfuse::core::alert::{AlertKind, Severity};
use mailfuse::core::policy::Detect;
use mailfuse::telemetry::access::Access;
use mailfuse::telemetry::account::AccountView;
use mailfuse::telemetry::http::{self, CONNECTIONS_MAX};
use mailfuse::telemetry::metrics::Metrics;
use mailfuse::telemetry::status::{
    AccountAnswer, ControlStatus, Halted, Live, PartitionState, PartitionStatus, Restore, State, Status, Totals,
};
use serde_json::{Value, json};
use tokio::sync::watch;

/// A core of which everything can be told.
#[derive(Default)]
struct Fake {
    hangs: AtomicBool,
    sick: AtomicBool,
    unready: AtomicBool,
    asked: AtomicUsize,
}

impl Fake {
    fn wait(&self) {
        self.asked.fetch_add(1, Ordering::SeqCst);
        while self.hangs.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn verdict(bad: &AtomicBool, why: &str) -> Result<(), String> {
    if bad.load(Ordering::SeqCst) { Err(why.to_owned()) } else { Ok(()) }
}

impl Live for Fake {
    fn status(&self) -> Status {
        self.wait();
        let halted = Halted { reason: "state of format 9".to_owned(), cure: "run a newer mailfuse".to_owned() };
        Status {
            version: "0.1.0",
            config_digest: "abc".to_owned(),
            instance: "one".to_owned(),
            group: "mailfuse".to_owned(),
            started: at(BEGIN_S),
            state: State::Restoring,
            workers: 2,
            totals: Totals { events: 12, ..Totals::default() },
            partitions: vec![PartitionStatus {
                partition: 5,
                state: PartitionState::Halted,
                next_offset: Some(7),
                high_watermark: None,
                lag_messages: None,
                lag_seconds: Some(0.5),
                checkpoint_offset: None,
                checkpoint_age_s: None,
                accounts: 1,
                account_bytes: 900,
                open_incidents: 0,
                newest_event: Some(at(BEGIN_S)),
                rejects: 0,
                halted: Some(halted),
                restore: Some(Restore::new(1, 3)),
            }],
            control: ControlStatus::default(),
            topics: BTreeMap::from([("events", "mail.events".to_owned())]),
        }
    }

    fn healthy(&self) -> Result<(), String> {
        self.wait();
        verdict(&self.sick, "the main loop has not turned for 40 s")
    }

    fn ready(&self) -> Result<(), String> {
        self.wait();
        verdict(&self.unready, "partition 5 is restored to 33 %")
    }

    fn account(&self, name: &str) -> AccountAnswer {
        self.wait();
        match name {
            "müller+x/y@a.example" => {
                let policy = policy(Detect::default());
                let mut detector = Detector::new(&policy, BEGIN_S);
                detector.step(&send(at(BEGIN_S), name, "192.0.2.1", "q", "mx", &["x@b.example".to_owned()]));
                let account = detector.shard.account(name).unwrap();
                AccountAnswer::Here(Box::new(AccountView::new(&account, &detector.shard, at(BEGIN_S + 60))))
            }
            "there@a.example" => {
                AccountAnswer::Elsewhere { partition: 8, instance: Some("http://two.example:9090".to_owned()) }
            }
            "somewhere@a.example" => AccountAnswer::Elsewhere { partition: 9, instance: None },
            "early@a.example" => AccountAnswer::NotReady("partition 5 is being restored".to_owned()),
            "boom@a.example" => panic!("a defect"),
            _ => AccountAnswer::Unknown { partition: 5 },
        }
    }
}

struct Server {
    fake: Arc<Fake>,
    metrics: Arc<Metrics>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    served: std::thread::JoinHandle<std::io::Result<()>>,
}

fn serve() -> Server {
    let (fake, metrics) = (Arc::new(Fake::default()), Arc::new(Metrics::new()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let access = Arc::new(Access::new(address, "", &[], metrics.http_wrong_tokens.clone()));
    let (stop, stopped) = watch::channel(false);
    let (live, shown) = (Arc::clone(&fake), Arc::clone(&metrics));
    let served = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let done = runtime.block_on(http::serve(listener, access, live, shown, axum::Router::new(), stopped));
        // A core that hangs holds its thread.
        runtime.shutdown_timeout(Duration::from_millis(100));
        done
    });
    Server { fake, metrics, address, stop, served }
}

impl Server {
    /// Status, content type, body.
    fn ask(&self, method: &str, path: &str) -> (u16, String, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .build()
            .into();
        let url = format!("http://{}{path}", self.address);
        let mut answer = if method == "GET" { agent.get(&url).call() } else { agent.delete(&url).call() }
            .unwrap_or_else(|e| {
                panic!("{path}: {e}");
            });
        let header = |name: &str| answer.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
        assert_eq!((header("cache-control"), header("x-content-type-options")), ("no-store".into(), "nosniff".into()));
        assert_eq!(header("content-security-policy"), "default-src 'none'");
        let (status, kind) = (answer.status().as_u16(), header("content-type"));
        (status, kind, answer.body_mut().read_to_string().unwrap())
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let (status, kind, body) = self.ask("GET", path);
        let wanted = if status < 400 { "application/json" } else { "application/problem+json" };
        assert_eq!(kind, wanted, "{path}: {body}");
        (status, serde_json::from_str(&body).unwrap())
    }

    /// An answer that is an error, with a cure.
    fn problem(&self, path: &str, status: u16, error: &str) -> Value {
        let (got, body) = self.get(path);
        assert_eq!(got, status, "{path}: {body}");
        assert!(body["detail"].as_str().unwrap().contains(error), "{path}: {body}");
        assert_eq!(body["status"], status, "{path}: {body}");
        let (_, _, page) = self.ask("GET", body["type"].as_str().unwrap());
        assert!(page.starts_with(&format!("{status} {}\n", body["title"].as_str().unwrap())), "{path}: {page}");
        assert!(body["cure"].as_str().unwrap().len() > 5, "{path}: {body}");
        body
    }

    fn end(self) {
        self.stop.send(true).unwrap();
        self.served.join().unwrap().unwrap();
    }
}

#[test]
fn every_page_answers_and_the_index_names_them_all() {
    let server = serve();
    let (status, kind, index) = server.ask("GET", "/");
    assert_eq!((status, &*kind), (200, "text/plain; charset=utf-8"));
    for page in ["/metrics", "/healthz", "/readyz", "/v1/status", "/v1/openapi.json", "/v1/accounts/{account}"] {
        assert!(index.lines().any(|l| l.split(' ').next() == Some(page)), "{page} is not in {index}");
    }
    assert_eq!(server.get("/healthz"), (200, json!({"status": "ok"})));
    assert_eq!(server.get("/readyz"), (200, json!({"status": "ready"})));

    let (status, body) = server.get("/v1/status");
    assert_eq!(status, 200);
    assert_eq!((&body["state"], &body["started"]), (&json!("restoring"), &json!("2026-01-05T00:00:00.000Z")));
    let partition = &body["partitions"][0];
    assert_eq!(partition["restore"], json!({"read": 1, "of": 3, "percent": 33.3}));
    assert_eq!(partition["halted"]["cure"], "run a newer mailfuse");
    assert_eq!((&partition["state"], &partition["high_watermark"]), (&json!("halted"), &Value::Null));

    server.problem("/v1/nothing", 404, "no such page");
    server.problem("/v1/accounts/", 404, "no such page");
    let (status, kind, body) = server.ask("DELETE", "/v1/status");
    assert_eq!((status, &*kind), (405, "application/problem+json"), "{body}");
    server.end();
}

#[test]
fn an_account_is_here_or_elsewhere_or_unknown_or_not_there_yet() {
    let server = serve();
    // Percent-encoded, in capitals where ASCII has them; what is beyond is left as it is.
    let (status, body) = server.get("/v1/accounts/M%C3%BCLLER+x%2Fy%40A.Example");
    assert_eq!(status, 200, "{body}");
    assert_eq!((&body["account"], &body["tenant"]), (&json!("müller+x/y@a.example"), &json!("a.example")));
    assert_eq!((&body["idle_s"], &body["windows"][0]["messages"]), (&json!(60), &json!(1)));

    let elsewhere = server.problem("/v1/accounts/there@a.example", 421, "partition 8");
    assert_eq!((&elsewhere["partition"], &elsewhere["ask_instance"]), (&json!(8), &json!("http://two.example:9090")));
    assert!(elsewhere["cure"].as_str().unwrap().contains("http://two.example:9090"));
    let somewhere = server.problem("/v1/accounts/somewhere@a.example", 421, "partition 9");
    assert!(somewhere.get("ask_instance").is_none(), "{somewhere}");

    let unknown = server.problem("/v1/accounts/typo@a.example", 404, "not known here");
    assert!(!unknown.to_string().contains("typo"), "an answer must not put names into logs: {unknown}");
    server.problem("/v1/accounts/early@a.example", 503, "partition 5 is being restored");
    server.problem("/v1/accounts/%FF", 400, "UTF-8");
    server.problem(&format!("/v1/accounts/{}", "x".repeat(2000)), 404, "more than 1024 bytes");
    // A defect in one answer is an error of that answer.
    server.problem("/v1/accounts/boom@a.example", 500, "failed");
    assert_eq!(server.get("/healthz").0, 200);
    server.end();
}

#[test]
fn what_is_wrong_is_said_and_a_core_that_hangs_hangs_nobody_else() {
    let server = serve();
    server.fake.sick.store(true, Ordering::SeqCst);
    server.fake.unready.store(true, Ordering::SeqCst);
    server.problem("/healthz", 503, "has not turned");
    server.problem("/readyz", 503, "restored to 33 %");

    server.fake.hangs.store(true, Ordering::SeqCst);
    server.fake.asked.store(0, Ordering::SeqCst);
    let begun = Instant::now();
    // More at a time than may be asked: threads that wait for the core must not grow with the number of probes.
    std::thread::scope(|scope| {
        for i in 0..30 {
            let path = ["/healthz", "/readyz", "/v1/status", "/v1/accounts/x@a.example"][i % 4];
            let server = &server;
            scope.spawn(move || server.problem(path, 503, "no answer within 2 s"));
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(server.fake.asked.load(Ordering::SeqCst), 16);
    // The numbers need no core.
    assert_eq!(server.ask("GET", "/metrics").0, 200);

    server.fake.hangs.store(false, Ordering::SeqCst);
    assert_eq!(server.get("/v1/status").0, 200);
    server.end();
}

#[test]
fn so_many_connections_and_no_more_and_an_end_that_waits_for_none_of_them() {
    let server = serve();
    // Each has been answered, so that it certainly sits.
    let mut seats: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let request = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
    for seat in &mut seats {
        seat.write_all(request).unwrap();
        let mut first = [0; 12];
        seat.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    let mut further = TcpStream::connect(server.address).unwrap();
    further.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    further.write_all(request).unwrap();
    let mut first = [0; 12];
    assert!(further.read(&mut first).is_err(), "answered, although every seat is taken");
    seats.pop();
    further.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    further.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");

    let begun = Instant::now();
    server.end();
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

/// A family of the exposition: its type, and its samples as (name, labels, value).
type Family = (String, Vec<(String, BTreeMap<String, String>, f64)>);

/// Reads the whole of an exposition, and fails on any line that is not as OpenMetrics has it.
fn families(text: &str) -> BTreeMap<String, Family> {
    let is_name = |s: &str| {
        s.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && s.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let (mut families, mut helped, mut current) = (BTreeMap::<String, Family>::new(), String::new(), String::new());
    let mut seen = BTreeSet::new();
    let (body, end) = text.split_at(text.len() - "# EOF\n".len());
    assert_eq!(end, "# EOF\n");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && help.len() > 5 && help.ends_with('.') && !help.ends_with(".."), "{line}");
            helped = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, helped, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned(), (kind.to_owned(), Vec::new())).is_none(), "twice: {line}");
            current = name.to_owned();
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap();
            let labels: BTreeMap<String, String> = labels
                .split(',')
                .filter(|l| !l.is_empty())
                .map(|l| l.split_once('=').unwrap())
                .map(|(k, v)| (k.to_owned(), v.strip_prefix('"').unwrap().strip_suffix('"').unwrap().to_owned()))
                .collect();
            assert!(is_name(name) && labels.keys().all(|k| is_name(k)), "{line}");
            let (kind, samples) = families.get_mut(&current).unwrap();
            let suffix = name.strip_prefix(&*current).unwrap_or_else(|| panic!("{line} is not of {current}"));
            let suffixes: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                _ => &["_bucket", "_sum", "_count"],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            assert!(seen.insert(series.to_owned()), "twice: {line}");
            samples.push((name.to_owned(), labels, value.parse().unwrap()));
        }
    }
    families
}

#[test]
fn every_line_of_the_metrics_is_well_formed_and_no_label_is_an_account() {
    let server = serve();
    let m = &server.metrics;
    m.meet_partition(0);
    for gauge in [&m.lag_messages, &m.accounts, &m.account_bytes, &m.open_incidents] {
        gauge.at(0).set(3);
    }
    m.lag_seconds.at(0).set(1e-9);
    m.restoring(0, Some(0.25));
    m.checkpointed(0, Instant::now());
    m.halted(0, Some("memory"));
    m.checkpoint_failed("fenced");
    m.broker_error("transport");
    m.config("abc");
    m.flagged(AlertKind::Escalated, Severity::Critical);
    m.listing.standing("list.example", 1);
    m.listing.answer("list.example", "refused");
    m.listing.listed("no");
    // Longer than a day, and before it began: neither is counted.
    for ms in [1500, 90_000, 86_400_001, -1] {
        m.listing.after("pulled", ms);
    }
    for seconds in [0.0001, 0.0015, 0.3, 70.0] {
        m.event_to_alert_seconds.observe(seconds);
        m.decide_seconds.observe(seconds / 1000.0);
    }
    let (status, kind, text) = server.ask("GET", "/metrics");
    assert_eq!((status, &*kind), (200, "application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let families = families(&text);
    assert!(families.len() > 38, "{}", families.len());
    let allowed =
        ["partition", "reason", "severity", "kind", "result", "digest", "version", "le", "zone", "in_time", "moment"];
    for (name, (kind, samples)) in &families {
        assert!(name.starts_with("mailfuse_") || name.starts_with("process_"), "{name}");
        assert!(!samples.is_empty(), "{name} has no sample");
        for (_, labels, value) in samples {
            assert!(labels.keys().all(|l| allowed.contains(&&**l)), "{name}: {labels:?}");
            assert!(kind == "gauge" || *value >= 0.0, "{name} {value}");
        }
        if kind == "histogram" {
            let buckets: Vec<_> = samples.iter().filter(|s| s.1.contains_key("le")).collect();
            assert!(buckets.windows(2).all(|b| b[0].2 <= b[1].2), "{name}: {buckets:?}");
            let count = samples.iter().find(|s| s.0.ends_with("_count")).unwrap().2;
            let last = buckets.last().unwrap();
            assert_eq!((&*last.1["le"], last.2), ("+Inf", count), "{name}");
        }
    }
    let sum = |name: &str, label: &str| -> f64 {
        let samples = families[name].1.iter().filter(|s| s.1.values().any(|l| l == label));
        samples.filter(|s| !s.0.ends_with("_bucket") && !s.0.ends_with("_sum")).map(|s| s.2).sum()
    };
    let counted = [
        ("mailfuse_listing_answers", "refused"),
        ("mailfuse_listings_standing", "list.example"),
        ("mailfuse_listings", "no"),
        ("mailfuse_after_first_spam_seconds", "pulled"),
    ];
    assert_eq!(counted.map(|(name, label)| sum(name, label)), [1.0, 1.0, 1.0, 2.0]);
    let latency = &families["mailfuse_event_to_alert_seconds"].1;
    let below = |le: &str| latency.iter().find(|s| s.1.get("le").is_some_and(|l| l == le)).unwrap().2;
    assert_eq!((below("0.001"), below("0.0025"), below("60.0"), below("+Inf")), (1.0, 2.0, 3.0, 4.0));
    server.end();
}
