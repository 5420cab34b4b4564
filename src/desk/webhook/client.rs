//! The sender: one request, one connection, one judgement. Nothing that a receiver answers is kept but its status and
//! `retry-after`; and of who asks for it ([`Client::ask`]) the beginning of its body.
//!
//! It knows no proxies, whatever the environment says, and follows no redirects. A name is looked up once for each attempt, and
//! the connection goes to an address of that very answer which passed [`super::address`]: an answer that changes afterwards
//! changes nothing.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, HeaderValue, RETRY_AFTER};
use hyper::{Method, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::not_public;
use super::body::Request;
use super::outcome::{Outcome, retry_after};
use super::settings::Endpoint;

/// Time for a connection to one address; there may be a further one to try.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Of an answer's body no more is read.
pub const ANSWER_BYTES_MAX: usize = 4096;
/// Time for the body of an answer, which decides nothing any more.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Bytes that the head of an answer may have.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The answer of a look-up.
pub type Addresses<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// Looks names up.
pub trait Resolve: Send + Sync {
    /// All addresses of a host, with the port.
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a>;
}

/// The system's look-up.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> Addresses<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// A client that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BadClient {
    /// The file of authorities.
    #[error("webhook `{endpoint}`: ca_file: {path}: {why}")]
    Authorities {
        /// The endpoint's name.
        endpoint: String,
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The library refuses its own settings.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Sends to one endpoint.
pub struct Client {
    resolver: Arc<dyn Resolve>,
    tls: Arc<ClientConfig>,
    allow_private: bool,
    within: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("allow_private", &self.allow_private).field("within", &self.within).finish()
    }
}

/// What was answered.
struct Answer {
    status: u16,
    after: Option<Duration>,
    /// The beginning of it.
    body: Vec<u8>,
}

/// Why an attempt came to no answer.
enum Failed {
    Retry(&'static str),
    Blocked(String),
}

impl Client {
    /// One for an endpoint. It reads the system's certificates, or those of `ca_file`.
    ///
    /// # Errors
    /// Where `ca_file` cannot be read or holds none.
    pub fn new(endpoint: &Endpoint, resolver: Arc<dyn Resolve>) -> Result<Self, BadClient> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(endpoint)?)
            .with_no_client_auth();
        Ok(Self {
            resolver,
            tls: Arc::new(tls),
            allow_private: endpoint.allow_private,
            within: Duration::from_secs(endpoint.timeout_s.into()),
        })
    }

    /// The same with another time for an attempt, where a person waits for it.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// Sends a request. It ends within the endpoint's `timeout_s`, and needs a Tokio runtime with time and I/O.
    pub async fn send(&self, request: &Request) -> Outcome {
        self.ask(request).await.0
    }

    /// The same, with the beginning of what was answered: at most [`ANSWER_BYTES_MAX`] bytes, as text.
    pub async fn ask(&self, request: &Request) -> (Outcome, String) {
        let retry = |why: &str| Outcome::Retry { status: None, after: None, why: why.to_owned() };
        match timeout(self.within, self.exchange(request)).await {
            Err(_) => (retry("no answer in time"), String::new()),
            Ok(Err(Failed::Retry(why))) => (retry(why), String::new()),
            Ok(Err(Failed::Blocked(why))) => (Outcome::Blocked { why }, String::new()),
            Ok(Ok(answer)) => {
                (Outcome::of(answer.status, answer.after), String::from_utf8_lossy(&answer.body).into_owned())
            }
        }
    }

    async fn exchange(&self, request: &Request) -> Result<Answer, Failed> {
        let target = Target::of(&request.url).ok_or_else(|| Failed::Blocked("the address is no URL".to_owned()))?;
        let stream = self.connect(&target).await?;
        if !target.tls {
            return speak(stream, &target, request).await;
        }
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| Failed::Blocked("the host is no name for a certificate".to_owned()))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(|e| Failed::Retry(tls_trouble(&e)))?;
        speak(stream, &target, request).await
    }

    /// Connects to the first address that may be reached and can.
    async fn connect(&self, target: &Target) -> Result<TcpStream, Failed> {
        let addresses = match target.host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, target.port)],
            Err(_) => {
                let found = self.resolver.resolve(&target.host, target.port).await;
                found.map_err(|_| Failed::Retry("its name could not be looked up"))?
            }
        };
        let (mut blocked, mut trouble) = (None, None);
        for address in addresses {
            match not_public(address.ip()).filter(|_| !self.allow_private) {
                Some(why) => {
                    blocked.get_or_insert(why);
                }
                None => match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => return Ok(stream),
                    Ok(Err(e)) => trouble = Some(connect_trouble(&e)),
                    Err(_) => trouble = Some("no connection in time"),
                },
            }
        }
        Err(match (trouble, blocked) {
            (None, Some(why)) => Failed::Blocked(format!("it is {why}: set allow_private if that is meant")),
            (trouble, _) => Failed::Retry(trouble.unwrap_or("its name has no address")),
        })
    }
}

fn roots(endpoint: &Endpoint) -> Result<RootCertStore, BadClient> {
    let mut roots = RootCertStore::empty();
    if endpoint.ca_file.is_empty() {
        // A host without any fails at the first https target, with a word on certificates; http needs none.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    }
    let bad =
        |why: String| BadClient::Authorities { endpoint: endpoint.name.clone(), path: endpoint.ca_file.clone(), why };
    for certificate in CertificateDer::pem_file_iter(&endpoint.ca_file).map_err(|e| bad(e.to_string()))? {
        roots.add(certificate.map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() { Err(bad("holds no certificate in PEM".to_owned())) } else { Ok(roots) }
}

/// Where a request goes.
struct Target {
    tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// The value of `host`.
    authority: HeaderValue,
    /// What is asked for there.
    path: Uri,
}

impl Target {
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let authority = uri.authority()?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(Self {
            tls,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            // A user and password would not belong into `host`; settings refuse them.
            authority: HeaderValue::from_str(authority.as_str().rsplit('@').next()?).ok()?,
            path: if path.is_empty() { "/" } else { path }.parse().ok()?,
            host,
        })
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    target: &Target,
    request: &Request,
) -> Result<Answer, Failed> {
    let mut builder = hyper::Request::builder().method(Method::POST).uri(target.path.clone());
    builder = builder.header(HOST, target.authority.clone()).header(CONNECTION, "close");
    for (name, value) in &request.headers {
        builder = builder.header(*name, value);
    }
    let body = Full::new(Bytes::from(request.body.clone()));
    let sent = builder.body(body).map_err(|_| Failed::Blocked("a header is none".to_owned()))?;
    let handshake = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = handshake.map_err(|_| Failed::Retry("no HTTP connection"))?;
    let exchange = async {
        let response = sender.send_request(sent).await.map_err(|e| Failed::Retry(http_trouble(&e)))?;
        let (status, after) = (response.status().as_u16(), after(&response));
        let mut answer = Answer { status, after, body: Vec::new() };
        // A receiver that is cut off while it still answers may take that for a failure of ours.
        let _ = timeout(ANSWER_WITHIN, read(response.into_body(), &mut answer.body)).await;
        Ok(answer)
    };
    tokio::pin!(connection, exchange);
    // The connection is driven here and dropped with the attempt: nothing of it is left behind.
    let mut driven = false;
    loop {
        tokio::select! {
            biased;
            answer = &mut exchange => return answer,
            _ = &mut connection, if !driven => driven = true,
        }
    }
}

fn after(response: &Response<Incoming>) -> Option<Duration> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    retry_after(response.headers().get(RETRY_AFTER)?.to_str().ok()?, now_s)
}

async fn read(mut body: Incoming, kept: &mut Vec<u8>) {
    while kept.len() < ANSWER_BYTES_MAX {
        match body.frame().await {
            Some(Ok(frame)) => {
                let some = frame.data_ref().map_or(&[][..], |data| data);
                kept.extend_from_slice(&some[..some.len().min(ANSWER_BYTES_MAX - kept.len())]);
            }
            Some(Err(_)) | None => return,
        }
    }
}

// The words are our own: what a receiver sends, certificates included, does not reach a log.

pub(in crate::desk) fn connect_trouble(e: &io::Error) -> &'static str {
    match e.kind() {
        io::ErrorKind::ConnectionRefused => "the connection was refused",
        io::ErrorKind::ConnectionReset => "the connection was reset",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "it cannot be reached",
        _ => "no connection",
    }
}

pub(in crate::desk) fn tls_trouble(e: &io::Error) -> &'static str {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => "its certificate is not trusted: see ca_file",
        Some(_) => "it speaks no TLS that fits",
        None => "the connection ended during the TLS handshake",
    }
}

fn http_trouble(e: &hyper::Error) -> &'static str {
    if e.is_parse() { "its answer is no HTTP" } else { "the connection ended without an answer" }
}
