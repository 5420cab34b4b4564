//! The sender against receivers that behave in every way, over real connections; and the addresses that it must not reach.

use crate::desk_webhook_support;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, post};
use desk_webhook_support::{endpoint, every, keys};
use mailfuse::core::alert::{AlertKind, Severity};
use mailfuse::desk::webhook::body::{Request, prepare};
use mailfuse::desk::webhook::client::{Addresses, Client, Resolve, SystemResolver};
use mailfuse::desk::webhook::outbox::{Limits, Outbox};
use mailfuse::desk::webhook::outcome::{Outcome, RETRY_AFTER_MAX};
use mailfuse::desk::webhook::record::{Change, Delivery};
use mailfuse::desk::webhook::settings::{Endpoint, Format};
use mailfuse::desk::webhook::sign::verify;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Far longer than anything takes here: a test that waits so long has failed.
const FAR: Duration = Duration::from_secs(60);
/// For receivers that never answer.
const SHORT: Duration = Duration::from_millis(300);

type Seen = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

async fn keep(State(seen): State<Seen>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    seen.lock().unwrap().push((path.clone(), headers, body));
    match path.as_str() {
        "/429" => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")]).into_response(),
        "/429-date" => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "Fri, 01 Jan 2100 00:00:00 GMT")]).into_response()
        }
        "/429-odd" => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "soon")]).into_response(),
        "/503" => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]).into_response(),
        "/302" => (StatusCode::FOUND, [("location", "/200")]).into_response(),
        "/huge" => vec![b'x'; 8 << 20].into_response(),
        "/hang" => {
            tokio::time::sleep(FAR).await;
            StatusCode::OK.into_response()
        }
        other => StatusCode::from_u16(other[1..].parse().unwrap()).unwrap().into_response(),
    }
}

/// A receiver on a free port of this host.
async fn receiver() -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(any(keep)).route("/post", post(|| async {})).with_state(Arc::clone(&seen));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, seen)
}

/// One that takes connections and does with them what it is told.
async fn raw<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    (address, count)
}

fn request(endpoint: &Endpoint) -> Request {
    let message = every(AlertKind::Flagged, Severity::Critical, "anna@example.org");
    prepare(endpoint, &keys(), &message, 1_772_438_400).unwrap()
}

fn to(url: &str) -> Endpoint {
    endpoint(Format::Native, url)
}

async fn send_within(endpoint: &Endpoint, resolver: Arc<dyn Resolve>, within: Duration) -> Outcome {
    let client = Client::new(endpoint, resolver).unwrap().within(within);
    timeout(FAR, client.send(&request(endpoint))).await.unwrap()
}

async fn send(url: &str) -> Outcome {
    send_within(&to(url), Arc::new(SystemResolver), FAR).await
}

fn retry(outcome: &Outcome) -> (Option<u16>, Option<Duration>) {
    match outcome {
        Outcome::Retry { status, after, .. } => (*status, *after),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_is_judged_by_its_status() {
    let (address, seen) = receiver().await;
    let at = |path: &str| format!("http://{address}/{path}");
    assert_eq!(send(&at("200")).await, Outcome::Delivered { status: 200 });
    assert_eq!(send(&at("204")).await, Outcome::Delivered { status: 204 });
    assert_eq!(send(&at("410")).await, Outcome::Gone);
    assert_eq!(retry(&send(&at("500")).await), (Some(500), None));
    assert_eq!(retry(&send(&at("408")).await), (Some(408), None));
    assert_eq!(retry(&send(&at("503")).await), (Some(503), Some(Duration::ZERO)));
    assert_eq!(retry(&send(&at("429")).await), (Some(429), Some(Duration::from_secs(7))));
    assert_eq!(retry(&send(&at("429-date")).await), (Some(429), Some(RETRY_AFTER_MAX)));
    assert_eq!(retry(&send(&at("429-odd")).await), (Some(429), None));
    assert!(matches!(send(&at("404")).await, Outcome::Refused { status: 404, .. }));
    let before = seen.lock().unwrap().len();
    assert!(matches!(send(&at("302")).await, Outcome::Refused { status: 302, .. }));
    assert_eq!(seen.lock().unwrap().len(), before + 1, "a redirect is not followed");
    // What the answer says besides is dropped.
    assert_eq!(send(&at("huge")).await, Outcome::Delivered { status: 200 });
}

#[tokio::test]
async fn what_arrives_is_what_was_signed() {
    let (address, seen) = receiver().await;
    let url = format!("http://{address}/200");
    let outcome = send(&url).await;
    assert_eq!(outcome.label(), "delivered");
    let seen = seen.lock().unwrap();
    let (_, headers, body) = &seen[0];
    let header = |name: &str| headers[name].to_str().unwrap();
    let (id, at, signature) = (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"));
    assert_eq!(verify(&keys(), id, at, signature, body, 1_772_438_401), Ok(()));
    assert_eq!((header("content-type"), header("host")), ("application/json", address.to_string().as_str()));
    assert_eq!(header("user-agent"), concat!("mailfuse/", env!("CARGO_PKG_VERSION")));
    assert_eq!(header("content-length"), body.len().to_string());
    assert_eq!(serde_json::from_slice::<serde_json::Value>(body).unwrap()["type"], "account.flagged");
}

#[tokio::test]
async fn receivers_that_hang_or_break_off_are_tried_again() {
    let (address, _) = receiver().await;
    let hanging = send_within(&to(&format!("http://{address}/hang")), Arc::new(SystemResolver), SHORT).await;
    assert_eq!(retry(&hanging), (None, None));

    // Says nothing at all; says a head a byte at a time and never ends; closes at once; resets; speaks something else.
    let (silent, _) = raw(|stream| async move {
        tokio::time::sleep(FAR).await;
        drop(stream);
    })
    .await;
    let (trickle, _) = raw(|mut stream| async move {
        for byte in b"HTTP/1.1 200 OK\r\n".iter().chain(std::iter::repeat(&b'a')) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let (closing, _) = raw(|stream| async move { drop(stream) }).await;
    let (resetting, _) = raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
        // Closing with what was sent still unread resets the connection.
        drop(stream);
    })
    .await;
    let (odd, _) = raw(|mut stream| async move {
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
        tokio::time::sleep(FAR).await;
    })
    .await;
    let (endless, _) = raw(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"x-filler: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").await.is_ok() {}
    })
    .await;
    for (what, address, within) in [
        ("silent", silent, SHORT),
        ("trickle", trickle, SHORT),
        ("closing", closing, FAR),
        ("resetting", resetting, FAR),
        ("odd", odd, FAR),
        ("endless head", endless, FAR),
    ] {
        let outcome = send_within(&to(&format!("http://{address}/")), Arc::new(SystemResolver), within).await;
        assert_eq!(retry(&outcome), (None, None), "{what}: {outcome:?}");
    }
    // Nobody listens where somebody just did.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(retry(&send(&format!("http://{free}/")).await), (None, None));
}

#[tokio::test]
async fn a_status_counts_though_the_body_never_ends() {
    let (address, _) = raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 1 << 16]).await;
        let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 1000\r\n\r\nab").await;
        tokio::time::sleep(FAR).await;
    })
    .await;
    assert_eq!(send(&format!("http://{address}/")).await, Outcome::Delivered { status: 202 });
    let (address, _) = raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 1 << 16]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while stream.write_all(b"400\r\n").await.is_ok() {
            if stream.write_all(&[b'x'; 1024]).await.is_err() || stream.write_all(b"\r\n").await.is_err() {
                return;
            }
        }
    })
    .await;
    assert_eq!(send(&format!("http://{address}/")).await, Outcome::Delivered { status: 200 });
}

/// Answers each time with the next of its answers, then with the last.
struct Stub(Mutex<Vec<Vec<SocketAddr>>>, AtomicUsize);

impl Stub {
    fn of(answers: &[&[&str]]) -> Arc<Self> {
        let answers = answers.iter().map(|a| a.iter().map(|s| s.parse().unwrap()).collect()).rev().collect();
        Arc::new(Self(Mutex::new(answers), AtomicUsize::new(0)))
    }
}

impl Resolve for Stub {
    fn resolve<'a>(&'a self, _: &'a str, port: u16) -> Addresses<'a> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
        Box::pin(async move {
            let found = answer.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            Ok(found.into_iter().map(|a| if a.port() == 1 { SocketAddr::new(a.ip(), port) } else { a }).collect())
        })
    }
}

fn closed(url: &str) -> Endpoint {
    Endpoint { allow_private: false, ..to(url) }
}

#[tokio::test]
async fn private_targets_are_refused_however_they_are_written() {
    let (address, count) = raw(|stream| async move { drop(stream) }).await;
    let port = address.port();
    for host in [
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "0.0.0.0",
        "[::]",
        "10.0.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.168.1.1",
        "[fd00::1]",
        "[fe80::1]",
        "224.0.0.1",
        // Spellings that only the system's look-up understands: what is judged is what it answers.
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
    ] {
        let outcome = send_within(&closed(&format!("http://{host}:{port}/")), Arc::new(SystemResolver), FAR).await;
        // A system that does not know a spelling has no address for it.
        let unknown = matches!(&outcome, Outcome::Retry { why, .. } if why.contains("looked up"));
        assert!(
            matches!(outcome, Outcome::Blocked { .. }) || (unknown && !host.contains(['.', ':'])),
            "{host}: {outcome:?}"
        );
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "nobody may connect");
}

#[tokio::test]
async fn a_name_is_judged_by_the_addresses_that_are_connected_to() {
    let (address, count) = raw(|stream| async move { drop(stream) }).await;
    let here = address.to_string();
    let mapped = format!("[::ffff:127.0.0.1]:{}", address.port());
    let url = format!("http://hooks.example:{}/", address.port());
    for answers in [&[here.as_str()][..], &[mapped.as_str()], &["10.0.0.1:1", "[fd00::1]:1"]] {
        let outcome = send_within(&closed(&url), Stub::of(&[answers]), FAR).await;
        assert!(matches!(&outcome, Outcome::Blocked { why } if why.contains("allow_private")), "{outcome:?}");
    }
    // An answer that changes: each attempt looks up once, and goes where that answer says or nowhere.
    let changing = Stub::of(&[&["192.0.2.1:1"], &[here.as_str()]]);
    for looked_up in 1..=3 {
        let outcome = send_within(&closed(&url), changing.clone(), FAR).await;
        assert!(matches!(outcome, Outcome::Blocked { .. }), "{outcome:?}");
        assert_eq!(changing.1.load(Ordering::SeqCst), looked_up);
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "nobody may connect");
    // Allowed, it is the second address that answers; the first is refused there.
    let (open, _) = receiver().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let both = Stub::of(&[&[free.as_str(), &open.to_string()]]);
    assert_eq!(send_within(&to("http://hooks.example/200"), both, FAR).await, Outcome::Delivered { status: 200 });
    let nothing = Stub::of(&[]);
    assert_eq!(retry(&send_within(&to("http://hooks.example/200"), nothing, FAR).await), (None, None));
    let none = Stub::of(&[&[]]);
    assert_eq!(retry(&send_within(&closed("http://hooks.example/200"), none, FAR).await), (None, None));
}

#[tokio::test]
async fn https_needs_a_certificate_that_is_trusted_for_the_name() {
    let signed = rcgen::generate_simple_self_signed(vec!["hooks.example".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, signed.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (address, _) = raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let _ = stream.read(&mut [0; 1 << 16]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let here = address.to_string();
    let trusting = |url: &str| Endpoint { ca_file: ca_file.display().to_string(), ..to(url) };
    let stub = || Stub::of(&[&[here.as_str()]]);
    assert_eq!(send_within(&trusting("https://hooks.example/"), stub(), FAR).await, Outcome::Delivered { status: 200 });
    for wrong in [trusting("https://other.example/"), to("https://hooks.example/")] {
        let outcome = send_within(&wrong, stub(), FAR).await;
        assert!(matches!(&outcome, Outcome::Retry { why, .. } if why.contains("certificate")), "{outcome:?}");
    }
    let missing = Endpoint { ca_file: "nowhere.pem".into(), ..to("https://hooks.example/") };
    assert!(Client::new(&missing, stub()).unwrap_err().to_string().contains("nowhere.pem"));
}

/// Everything together: a receiver that is down, throttles, fails and comes back; what it saw.
#[tokio::test]
async fn through_an_outage_every_message_arrives_in_order_under_its_id() {
    let count = Arc::new(AtomicUsize::new(0));
    let taken: Arc<Mutex<Vec<String>>> = Arc::default();
    let (counted, kept) = (Arc::clone(&count), Arc::clone(&taken));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |headers: HeaderMap| {
        let n = counted.fetch_add(1, Ordering::SeqCst);
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        let kept = Arc::clone(&kept);
        async move {
            match n {
                0..12 => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                12 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "30")]).into_response(),
                _ if n % 5 == 0 => StatusCode::BAD_GATEWAY.into_response(),
                _ => {
                    kept.lock().unwrap().push(id);
                    StatusCode::OK.into_response()
                }
            }
        }
    };
    let router = Router::new().route("/hook", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let endpoint = to(&format!("http://{address}/hook"));
    let client = Client::new(&endpoint, Arc::new(SystemResolver)).unwrap();
    let mut outbox = Outbox::new(std::slice::from_ref(&endpoint), Limits::default());
    let (mut now_ms, mut chance) = (1_772_438_400_000_i64, 0_u64);
    for n in 0..30 {
        let incident = format!("i{}", n % 7);
        let (endpoint, id) = ("test".to_owned(), format!("msg_{n:02}"));
        outbox.add(Delivery { endpoint, id, incident, seq: n, created_ms: now_ms, not_before_ms: now_ms }).unwrap();
    }
    let mut delivered = 0;
    // The outbox's time is simulated: it jumps to when something is due.
    while let Some(next_ms) = outbox.next_ms() {
        now_ms = now_ms.max(next_ms);
        for attempt in outbox.due(now_ms) {
            let message = every(AlertKind::Flagged, Severity::Critical, "anna@example.org");
            let message = mailfuse::desk::webhook::body::Message { id: attempt.id.clone(), ..message };
            let request = prepare(&endpoint, &keys(), &message, now_ms / 1000).unwrap();
            let outcome = timeout(FAR, client.send(&request)).await.unwrap();
            let mut rng = || {
                chance = chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
                chance
            };
            let changes = outbox.done(attempt.attempt, &outcome, now_ms, &mut rng);
            delivered += changes.iter().filter(|c| matches!(c, Change::Delivered(_))).count();
            assert!(!changes.iter().any(|c| matches!(c, Change::Dead(_))));
        }
    }
    assert_eq!(delivered, 30);
    let taken = taken.lock().unwrap();
    assert_eq!(taken.len(), 30);
    for lane in 0..7 {
        let of: Vec<_> = taken.iter().filter(|id| id[4..].parse::<u64>().unwrap() % 7 == lane).collect();
        assert!(of.is_sorted(), "{of:?}");
    }
}
