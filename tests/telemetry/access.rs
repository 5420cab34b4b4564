//! Who is let in over HTTP: with and without tokens, on the loopback and beyond, from a web page and through a proxy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use mailfuse::event::Timestamp;
use mailfuse::telemetry::Metrics;
use mailfuse::telemetry::access::{Access, Right, Who};
use mailfuse::telemetry::http;
use mailfuse::telemetry::status::{AccountAnswer, ControlStatus, Live, State, Status, Totals};
use mailfuse::telemetry::token::{Hash, Token};
use serde_json::Value;
use tokio::sync::watch;

const SECRET: &str = "mft_look-only";
const HELP: &str = "mft_may-act";

/// A program without partitions.
struct Idle;

impl Live for Idle {
    fn status(&self) -> Status {
        Status {
            version: "0",
            config_digest: String::new(),
            instance: "one".to_owned(),
            group: "g".to_owned(),
            started: Timestamp(0),
            state: State::Running,
            workers: 0,
            totals: Totals::default(),
            partitions: Vec::new(),
            control: ControlStatus::default(),
            topics: [].into(),
        }
    }

    fn healthy(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn account(&self, _: &str) -> AccountAnswer {
        AccountAnswer::Unknown { partition: 0 }
    }
}

pub struct Server {
    pub address: SocketAddr,
    access: Arc<Access>,
    metrics: Arc<Metrics>,
    _stop: watch::Sender<bool>,
    _runtime: tokio::runtime::Runtime,
}

/// A server; `listen` is what it takes its address for, it is reached on the loopback all the same.
fn serve(listen: &str, advertise: &str, tokens: &[Token]) -> Server {
    // What the desk's pages do: take a body, and say who asked.
    let page = post(|who: Who, _: axum::Json<Value>| async move { who.name.to_string() });
    serve_pages(listen, advertise, tokens, Router::new().route("/v1/change", page))
}

/// The same with other pages.
pub fn serve_pages(listen: &str, advertise: &str, tokens: &[Token], more: Router) -> Server {
    let metrics = Arc::new(Metrics::new());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let access = Arc::new(Access::new(listen.parse().unwrap(), advertise, tokens, metrics.http_wrong_tokens.clone()));
    let (stop, stopped) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.spawn(http::serve(listener, Arc::clone(&access), Arc::new(Idle), Arc::clone(&metrics), more, stopped));
    Server { address, access, metrics, _stop: stop, _runtime: runtime }
}

fn tokens() -> Vec<Token> {
    let token = |name: &str, roles: &[Right], secret: &str| Token {
        name: name.to_owned(),
        roles: roles.to_vec(),
        hash: Hash::of(secret),
    };
    vec![token("console", &[Right::Look], SECRET), token("help", &[Right::Accounts], HELP)]
}

impl Server {
    /// A request as it stands on the wire. Status, head and body of the answer.
    pub fn raw(&self, request: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let head = request.replace('\n', "\r\n");
        // A server that has refused it need not read it all.
        let _ = stream.write_all(format!("{head}\r\n{length}connection: close\r\n\r\n{body}").as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}: {answer}"));
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
    }

    #[track_caller]
    fn check(&self, request: &str, body: &str, status: u16) -> Value {
        let (got, head, said) = self.raw(request, body);
        assert_eq!(got, status, "{request}\n{head}\n{said}");
        assert_eq!(got == 401, head.contains("www-authenticate: bearer"), "{head}");
        assert!(!said.contains(SECRET) && !said.contains(HELP), "{said}");
        if got < 400 {
            return serde_json::from_str(&said).unwrap_or_default();
        }
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        let problem: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().len() > 5 && problem["cure"].as_str().unwrap().len() > 5, "{said}");
        problem
    }
}

const PAGES: [&str; 6] = ["/", "/metrics", "/problems/not-found", "/v1/openapi.json", "/v1/status", "/v1/nothing"];
const JSON: &str = "content-type: application/json";

#[test]
fn beyond_the_loopback_nothing_is_read_or_written_without_tokens() {
    for listen in ["0.0.0.0:80", "192.0.2.1:80", "[::]:80", "[2001:db8::1]:80"] {
        let server = serve(listen, "", &[]);
        for page in PAGES {
            let problem = server.check(&format!("GET {page} HTTP/1.1\nhost: localhost"), "", 403);
            assert!(problem["cure"].as_str().unwrap().contains("mailfuse token new"), "{problem}");
        }
        server.check("GET /v1/accounts/a@b.example HTTP/1.1\nhost: localhost", "", 403);
        server.check(&format!("POST /v1/change HTTP/1.1\nhost: localhost\n{JSON}"), "{}", 403);
        server.check("GET /healthz HTTP/1.1\nhost: a.example", "", 200);
        server.check("GET /readyz HTTP/1.1\nhost: a.example", "", 200);
        server.check("POST /healthz HTTP/1.1\nhost: a.example", "", 403);
    }
}

#[test]
fn where_there_are_tokens_each_page_wants_one_on_the_loopback_too() {
    for listen in ["127.0.0.1:80", "0.0.0.0:80"] {
        let server = serve(listen, "", &tokens());
        let get = |page: &str, more: &str| format!("GET {page} HTTP/1.1\nhost: mailfuse.example{more}");
        for page in PAGES {
            server.check(&get(page, ""), "", 401);
            for wrong in [
                "Bearer mft_look-onl",
                "Bearer ",
                "Bearer",
                "Basic bWY6bWY=",
                "mft_look-only",
                &format!("Bearer {}", "x".repeat(4000)),
            ] {
                server.check(&get(page, &format!("\nauthorization: {wrong}")), "", 401);
            }
            // Two are none: a proxy in between may look at the other one.
            server.check(&get(page, &format!("\nauthorization: Bearer {SECRET}\nauthorization: Bearer x")), "", 401);
            let wanted = if page == "/v1/nothing" { 404 } else { 200 };
            server.check(&get(page, &format!("\nauthorization: bearer {SECRET}")), "", wanted);
            server.check(&get(page, &format!("\nauthorization: Bearer {HELP}")), "", 403);
        }
        server.check(&get("/healthz", ""), "", 200);
        assert_eq!(server.metrics.http_wrong_tokens.get(), 6 * PAGES.len() as u64);
        let (status, _, said) = server.raw(
            &format!("POST /v1/change HTTP/1.1\nhost: mailfuse.example\n{JSON}\nauthorization: Bearer {HELP}"),
            "{}",
        );
        assert_eq!((status, &*said), (200, "help"));
    }
}

#[test]
fn other_tokens_are_taken_while_it_runs() {
    let server = serve("127.0.0.1:80", "", &tokens());
    let request = format!("GET /v1/status HTTP/1.1\nhost: a.example\nauthorization: Bearer {SECRET}");
    server.check(&request, "", 200);
    server.access.set_tokens(&tokens()[1..]);
    server.check(&request, "", 401);
}

#[test]
fn without_tokens_a_web_page_can_neither_read_nor_write() {
    let server = serve("127.0.0.1:80", "http://mailfuse.example:9925/", &[]);
    // Under another name the loopback is somebody's who rebinds it, or a proxy's.
    for (host, status) in [
        ("localhost:9925", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:9925", 200),
        ("127.8.8.8", 200),
        ("[::1]:9925", 200),
        ("mailfuse.example:9925", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.0.2.1", 403),
        ("evil@localhost@evil.example", 403),
        ("", 403),
    ] {
        server.check(&format!("GET /v1/status HTTP/1.1\nhost: {host}"), "", status);
    }
    let change = |more: &str| format!("POST /v1/change HTTP/1.1\nhost: localhost:9925\n{more}");
    server.check(&change(JSON), "{}", 200);
    server.check(&change(&format!("{JSON}; charset=utf-8")), "{}", 200);
    server.check(&change(&format!("{JSON}\norigin: http://localhost:9925")), "{}", 200);
    for origin in
        ["http://evil.example", "null", "http://localhost:8080", "http://evil.example\norigin: http://localhost:9925"]
    {
        server.check(&change(&format!("{JSON}\norigin: {origin}")), "{}", 403);
    }
    // What a form or a script can send to any origin without being asked for leave.
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
    ] {
        server.check(&change(&format!("content-type: {kind}")), "{}", 415);
    }
    server.check(&change("x-none: 1"), "{}", 415);
}

#[test]
fn whatever_the_library_refuses_is_a_problem_as_well() {
    let server = serve("127.0.0.1:80", "", &[]);
    let change = format!("POST /v1/change HTTP/1.1\nhost: localhost\n{JSON}");
    assert_eq!(server.check(&change, "{", 400)["type"], "/problems/bad-request");
    assert_eq!(
        server.check(&change, &format!("\"{}\"", "x".repeat(http::BODY_BYTES_MAX)), 413)["type"],
        "/problems/too-large"
    );
    server.check(&change, &format!("\"{}\"", "x".repeat(http::BODY_BYTES_MAX - 2)), 200);
    assert_eq!(server.check("GET /problems/%FF HTTP/1.1\nhost: localhost", "", 400)["type"], "/problems/bad-request");
    let (status, head, _) = server.raw("GET /v1/change HTTP/1.1\nhost: localhost", "");
    assert_eq!(status, 405);
    assert!(head.contains("allow: post\r\n"), "{head}");
    let (status, head, _) = server.raw("DELETE /v1/status HTTP/1.1\nhost: localhost", "");
    assert_eq!(status, 405);
    assert!(head.contains("allow: get,head"), "{head}");
}
