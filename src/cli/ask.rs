//! Asks a running instance over HTTP, for commands that change something there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use axum::http::header::RETRY_AFTER;
use axum::http::uri::Uri;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{Failure, usage};
use crate::config::Config;
use crate::desk::api::AS_OF;

/// The environment variable that may hold a token.
const TOKEN_VARIABLE: &str = "MAILFUSE_TOKEN";
/// A person waits for the answer.
const WITHIN: Duration = Duration::from_secs(15);
/// A page of a thousand long alerts is below it.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// What stays as it is in a segment of a path, and in a value of a query (RFC 3986, unreserved).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whom to ask, and as whom.
#[derive(Debug, clap::Args)]
pub(super) struct Asked {
    /// Configuration, for http.listen
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The instance that is asked: HOST:PORT, or the URL of what stands before it [default: that of http.listen]
    #[arg(long, value_name = "HOST:PORT")]
    at: Option<String>,
    /// A file with the token, where the instance wants one [default: what MAILFUSE_TOKEN holds]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Asked {
    /// The base URL, without a slash at its end.
    fn base(&self) -> Result<String, Failure> {
        let at = match &self.at {
            Some(at) => at.trim_end_matches('/').to_owned(),
            None => match Config::load(&self.config).map_err(usage)?.http.address().map_err(usage)? {
                // It listens everywhere, so on the loopback, too.
                Some(address) if address.ip().is_unspecified() => format!("localhost:{}", address.port()),
                Some(address) => address.to_string(),
                None => String::new(),
            },
        };
        let base = if at.contains("://") { at } else { format!("http://{at}") };
        match base.parse::<Uri>() {
            Ok(uri) if uri.host().is_some_and(|h| !h.is_empty()) => Ok(base),
            _ => Err(usage(anyhow!("no instance to ask: name it with --at HOST:PORT"))),
        }
    }

    fn token(&self) -> Result<Option<HeaderValue>, Failure> {
        let token = match &self.token_file {
            Some(path) => std::fs::read_to_string(path)
                .with_context(|| format!("--token-file {}", path.display()))
                .map_err(usage)?,
            None => std::env::var(TOKEN_VARIABLE).unwrap_or_default(),
        };
        let token = token.trim();
        if token.is_empty() && self.token_file.is_none() {
            return Ok(None);
        }
        // The error does not say what stands there.
        let header = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut header = header.map_err(|_| usage(anyhow!("the token has characters that no token has")))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// A segment of a path, or a value of a query, percent-encoded.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Asks, and gives what was answered; `Null` for an answer without a body. `path` begins with a slash; see [`encoded`].
///
/// # Errors
/// Where there is no answer within 15 seconds, or one that is an error: with what it says, and its cure.
pub(super) fn send(asked: &Asked, method: Method, path: &str, body: Option<Value>) -> Result<Value, Failure> {
    let text = answered(asked, method, path, body)?;
    let read = if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text) };
    Ok(read.context("what answered is no JSON: is it mailfuse?")?)
}

/// The same for a page that is no JSON.
///
/// # Errors
/// As [`send`].
pub(super) fn text(asked: &Asked, path: &str) -> Result<String, Failure> {
    answered(asked, Method::GET, path, None)
}

/// Asks; and once more when the instance says how soon, so that a command right after a start has its answer. What would change
/// something is asked once: it may have been done.
fn answered(asked: &Asked, method: Method, path: &str, body: Option<Value>) -> Result<String, Failure> {
    let began = Instant::now();
    let base = asked.base()?;
    let agent = agent(base.starts_with("https:"));
    let token = asked.token()?;
    let takes_body = [Method::POST, Method::PUT, Method::PATCH].contains(&method);
    loop {
        let mut request = Request::builder().method(method.clone()).uri(format!("{base}{path}"));
        if let Some(token) = &token {
            request = request.header("authorization", token.clone());
        }
        let answer = match &body {
            Some(body) => agent.run(request.header("content-type", "application/json").body(body.to_string())?),
            // Said to be empty: what may be a body has to be declared as JSON.
            None if takes_body => agent.run(request.body("")?),
            None => agent.run(request.body(())?),
        };
        let mut answer =
            answer.with_context(|| format!("{base} does not answer: does it run, and is it named right?"))?;
        let status = answer.status();
        if status == StatusCode::SERVICE_UNAVAILABLE
            && method == Method::GET
            && let Some(wait) = soon(answer.headers())
            && began.elapsed() + wait < WITHIN
        {
            std::thread::sleep(wait);
            continue;
        }
        if let Some(as_of) = answer.headers().get(AS_OF).and_then(|as_of| as_of.to_str().ok()) {
            eprintln!("As of {as_of}: {base} cannot read the brokers now, and what came since is not shown.");
        }
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let text = text.with_context(|| format!("{base}: its answer broke off"))?;
        if status.is_success() {
            return Ok(text);
        }
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        return Err(match problem["detail"].as_str() {
            Some(detail) => anyhow!("{base}: {detail}. {}", problem["cure"].as_str().unwrap_or_default()),
            None => anyhow!("{base} answered {status}, and not as mailfuse does: what stands there?"),
        }
        .into());
    }
}

/// How soon to ask again, where the answer says it in seconds.
fn soon(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

fn agent(tls: bool) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        // A token is for the instance alone, whatever the environment says.
        .proxy(None)
        .timeout_global(Some(WITHIN));
    if tls {
        let found = rustls_native_certs::load_native_certs().certs;
        let roots = found.iter().map(|c| Certificate::from_der(c).to_owned()).collect::<Vec<_>>();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        config = config.tls_config(tls);
    }
    config.build().into()
}
