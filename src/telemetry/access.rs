//! Who asks over HTTP, and what they may do.
//!
//! | listens on | tokens | who may |
//! | --- | --- | --- |
//! | loopback | none | whoever reaches it, everything; but no web page (see `Access::local`) |
//! | loopback or beyond | some | whoever has one, what its roles say |
//! | beyond the loopback | none | nobody, anything |
//!
//! `/healthz` and `/readyz` answer everybody.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, ORIGIN, TRANSFER_ENCODING};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::token::{Hash, Token};

/// What anybody may ask: balancers and supervisors have no tokens.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];
/// What proxies add to what they pass on.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
/// A longer token is none of ours.
const TOKEN_BYTES_MAX: usize = 256;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Read everything.
    Look,
    /// Decide about accounts, and about what is delivered.
    Accounts,
    /// Decide about relays.
    Relays,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// As the audit names them.
    pub name: Arc<str>,
    rights: Vec<Right>,
}

impl Who {
    /// Whoever reaches the loopback address of this host.
    pub fn local() -> Self {
        Self { name: "local".into(), rights: vec![Right::Look, Right::Accounts, Right::Relays] }
    }

    /// Refuses what they may not do.
    ///
    /// # Errors
    /// Where they may not.
    pub(crate) fn require(&self, right: Right) -> Result<(), Problem> {
        if self.rights.contains(&right) {
            return Ok(());
        }
        let role = format!("{right:?}").to_ascii_lowercase();
        let cure = format!("Use a token whose roles have \"{role}\".");
        Err(Problem::new(StatusCode::FORBIDDEN, format!("{} may not do this", self.name), cure))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Who {
    type Rejection = Infallible;

    /// Whom the guard let in. A page that no guard stands before is nobody's.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let nobody = || Self { name: "nobody".into(), rights: Vec::new() };
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(nobody))
    }
}

/// Who is let in.
#[derive(Debug)]
pub struct Access {
    loopback: bool,
    /// The host of `http.advertise`, by which people on this host may ask, too.
    advertised: Option<String>,
    tokens: RwLock<Arc<[Token]>>,
    /// Tokens that were none of ours.
    wrong: Counter,
}

impl Access {
    /// For a server at this address. `advertise` is the configured one, `wrong` counts tokens that are none of ours.
    pub fn new(address: SocketAddr, advertise: &str, tokens: &[Token], wrong: Counter) -> Self {
        let authority = advertise.rsplit("://").next().and_then(|a| a.split('/').next()).unwrap_or_default();
        Self {
            loopback: address.ip().to_canonical().is_loopback(),
            advertised: authority.parse::<Authority>().ok().map(|a| a.host().to_ascii_lowercase()),
            tokens: RwLock::new(tokens.into()),
            wrong,
        }
    }

    /// Other tokens from now on.
    pub fn set_tokens(&self, tokens: &[Token]) {
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = tokens.into();
    }

    fn tokens(&self) -> Arc<[Token]> {
        Arc::clone(&self.tokens.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether nobody is let in.
    pub(super) fn is_shut(&self) -> bool {
        !self.loopback && self.tokens().is_empty()
    }

    /// Who asks, by what they send.
    fn who(&self, headers: &HeaderMap) -> Result<Who, Problem> {
        let tokens = self.tokens();
        match (tokens.is_empty(), self.loopback) {
            (false, _) => self.bearer(&tokens, headers),
            (true, true) => self.local(headers),
            (true, false) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "http.listen is beyond the loopback and there are no tokens, so that nobody may ask",
                "Configure [[http.token]] (`mailfuse token new` makes one), or listen on 127.0.0.1.",
            )),
        }
    }

    fn bearer(&self, tokens: &[Token], headers: &HeaderMap) -> Result<Who, Problem> {
        let cure = "Send `Authorization: Bearer TOKEN`; `mailfuse token new` makes one.";
        let Some(given) = single(headers, &AUTHORIZATION) else {
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "a token is needed", cure));
        };
        let secret = given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let secret = secret.map(|(_, secret)| secret.trim()).filter(|s| s.len() <= TOKEN_BYTES_MAX);
        if let Some(secret) = secret {
            let hash = Hash::of(secret);
            let mut found = None;
            // All of them, always: which one it was near to must not show in the time.
            for token in tokens {
                if bool::from(token.hash.is(&hash)) {
                    found = Some(token);
                }
            }
            if let Some(token) = found {
                return Ok(Who { name: token.name.as_str().into(), rights: token.roles.clone() });
            }
        }
        self.wrong.inc();
        Err(Problem::new(StatusCode::UNAUTHORIZED, "the token is none of ours", cure))
    }

    /// Whoever reaches the loopback. A web page that the operator looks at reaches it as well, by a name of its own that points
    /// here (DNS rebinding): its requests then carry that name.
    fn local(&self, headers: &HeaderMap) -> Result<Who, Problem> {
        if FORWARDED.iter().any(|name| headers.contains_key(*name)) {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "a proxy asks for somebody else, and there are no tokens",
                "Configure [[http.token]] before a proxy stands before it.",
            ));
        }
        let host = single(headers, &HOST).and_then(|h| h.parse::<Authority>().ok());
        let host = host.map(|a| a.host().to_ascii_lowercase()).unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        if host == "localhost" || address.is_ok_and(|ip| ip.is_loopback()) || self.advertised.as_ref() == Some(&host) {
            return Ok(Who::local());
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "without tokens only this host may ask, by the name localhost or 127.0.0.1",
            "Ask by that name; to open it to others, through a proxy as well, configure [[http.token]].",
        ))
    }
}

/// A header that is there once, and text.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut all = headers.get_all(name).iter();
    let first = all.next()?;
    if all.next().is_some() { None } else { first.to_str().ok() }
}

/// Refuses what a browser sends for a page of somebody else: another origin, or a body that needs no leave to be sent across
/// origins (Fetch standard, "CORS-safelisted request-header").
fn not_for_a_stranger(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.contains_key(ORIGIN) {
        let origin = single(headers, &ORIGIN).and_then(|o| o.split_once("://")).map(|(_, authority)| authority);
        if origin.is_none() || origin != single(headers, &HOST) {
            let cure = "Ask from a page of this server, or without a browser.";
            return Err(Problem::new(StatusCode::FORBIDDEN, "a web page of another origin asks", cure));
        }
    }
    let empty = headers.get(CONTENT_LENGTH).is_none_or(|n| n == "0") && !headers.contains_key(TRANSFER_ENCODING);
    let kind = single(headers, &CONTENT_TYPE).and_then(|k| k.split(';').next()).unwrap_or_default().trim();
    if empty || kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let cure = "Send `Content-Type: application/json`.";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not declared as JSON", cure))
}

/// Stands before every page: finds out who asks, lets nobody read who may not look, and leaves to the page what else they may.
pub(super) async fn guard(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if reads && OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let checked = access.who(request.headers()).and_then(|who| {
        if reads {
            who.require(Right::Look)?
        } else {
            not_for_a_stranger(request.headers())?
        }
        Ok(who)
    });
    match checked {
        Ok(who) => {
            request.extensions_mut().insert(who);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}
