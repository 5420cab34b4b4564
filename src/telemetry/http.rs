//! The HTTP answers of `mailfuse run`: metrics, health, status, single accounts. What the desk has comes with it.

use std::future::IntoFuture;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{Semaphore, watch};

use super::access::{self, Access};
use super::description::OPENAPI;
use super::door::Door;
use super::metrics::{self, Metrics};
pub(crate) use super::problem::Problem;
use super::problem::{every_error, nowhere, other_method, page};
use super::status::{AccountAnswer, Live};

/// Connections at a time; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 64;
/// Time for a request to arrive, and again for its answer to be taken.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Time for an answer to be found.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Answers that are looked for at a time. A thread that waits for a core that hangs cannot be called back, so that there must not
/// be a further one for every probe.
const ASKING_MAX: usize = 16;
/// Connections that are open when the service ends get this long.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// Bytes of a body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// A mail address has 320 bytes at most; an account that some provider makes of something longer is not asked for by hand.
const ACCOUNT_BYTES_MAX: usize = 1024;

const INDEX: &str = "\
mailfuse: names a hijacked mail account, and says why.

/metrics               numbers, for Prometheus
/healthz               200 while the main loop turns
/readyz                200 while every partition of this instance is read; else why not
/v1/openapi.json       all pages, their parameters and answers (OpenAPI 3.1)
/problems/{name}       what the type of an error means
/v1/status             partitions, offsets, checkpoints
/v1/accounts/{account}  one account: windows, baseline, score, incident
/v1/maps/stopped       who is stopped, a name and its incident a line; /v1/maps/pulled: relays
/v1/trying             stopped accounts that still try to send, at this instance
/v1/desk               which desk this is, and how far
/v1/incidents          newest first; ?state=open&severity=critical&account=…&tenant=…&campaign=ID&anomaly=ID&before=CURSOR&limit=N
/v1/incidents/{id}      one incident with its alerts
/v1/alerts             oldest first; ?after=CURSOR&incident=…&account=…&kind=…&severity=…&limit=N
/v1/deliveries         newest first; ?endpoint=…&state=pending|delivered|dead&incident=…&id=…&before=CURSOR&limit=N
/v1/directory          the directory of accounts: its file, and whether it is in force
/v1/directory/{account} one account, by name, alias or former name
/v1/endpoints          how each webhook endpoint does; the active desk's
";

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    live: Arc<dyn Live>,
    metrics: Arc<Metrics>,
    asking: Arc<Semaphore>,
}

/// Serves, with the pages of `more`, until `shutdown` turns true, or its sender is gone; then lets open requests end, for a short while. Must be polled
/// within a Tokio runtime with time and I/O. End that runtime with `shutdown_timeout`: a core that hangs holds threads of it.
///
/// # Errors
/// Where the listener cannot be used.
pub async fn serve(
    listener: TcpListener,
    access: Arc<Access>,
    live: Arc<dyn Live>,
    metrics: Arc<Metrics>,
    more: Router,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    if access.is_shut() {
        tracing::warn!(
            "http.listen is beyond the loopback and there is no [[http.token]]: only /healthz and /readyz answer; \
             `mailfuse token new` makes a token"
        );
    }
    listener.set_nonblocking(true)?;
    let door = Door::new(tokio::net::TcpListener::from_std(listener)?, CONNECTIONS_MAX, PATIENCE);
    let ended = |mut shutdown: watch::Receiver<bool>| async move {
        // A sender that is gone ends it, too: nobody is left who could.
        let _ = shutdown.wait_for(|ended| *ended).await;
    };
    let served = axum::serve(door, router(access, live, metrics, more)).with_graceful_shutdown(ended(shutdown.clone()));
    tokio::select! {
        done = served.into_future() => done,
        () = async {
            let _ = shutdown.wait_for(|ended| *ended).await;
            tokio::time::sleep(CLOSE_WITHIN).await;
        } => Ok(()),
    }
}

/// The routes, and those of `more`, behind `access`.
pub fn router(access: Arc<Access>, live: Arc<dyn Live>, metrics: Arc<Metrics>, more: Router) -> Router {
    let shared = Shared { live, metrics, asking: Arc::new(Semaphore::new(ASKING_MAX)) };
    Router::new()
        .route("/", get(|| async { ([(CONTENT_TYPE, "text/plain; charset=utf-8")], INDEX) }))
        .route("/metrics", get(encoded))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/problems/{name}", get(page))
        .route("/v1/openapi.json", get(|| async { ([(CONTENT_TYPE, "application/json")], OPENAPI.as_str()) }))
        .route("/v1/status", get(status))
        .route("/v1/accounts/{account}", get(account))
        .with_state(shared)
        .merge(more)
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(access, access::guard))
        .layer(map_response(every_error))
        .layer(map_response(headers))
}

/// An answer is of now, and holds names of accounts: nobody keeps it, nobody takes it for something else.
async fn headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Asks on a thread that may block, for [`ANSWER_WITHIN`] at most.
async fn ask<T: Send + 'static>(
    shared: &Shared,
    question: impl FnOnce(&dyn Live) -> T + Send + 'static,
) -> Result<T, Problem> {
    let late = || {
        let error = format!("no answer within {} s", ANSWER_WITHIN.as_secs());
        let cure = "The core is busy or hangs: see /healthz and the log; ask again later.";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error, cure)
    };
    let (live, asking) = (Arc::clone(&shared.live), Arc::clone(&shared.asking));
    let answer = async move {
        let place = asking.acquire_owned().await.ok();
        let asked = move || {
            let answer = question(&*live);
            // Not before: a client that goes away leaves the thread behind.
            drop(place);
            answer
        };
        tokio::task::spawn_blocking(asked).await
    };
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => {
            tracing::error!("an answer over HTTP failed: {e}");
            let cure = "A defect of mailfuse: please report it, with the log.";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed", cure))
        }
        Err(_) => Err(late()),
    }
}

async fn encoded(State(shared): State<Shared>) -> impl IntoResponse {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], shared.metrics.encode())
}

async fn healthy(State(shared): State<Shared>) -> Result<Response, Problem> {
    ask(&shared, |live| live.healthy()).await?.map(|()| fine("ok")).map_err(|why| {
        let cure = "Restart the instance; its partitions are read on from their last checkpoint.";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, why, cure)
    })
}

async fn ready(State(shared): State<Shared>) -> Result<Response, Problem> {
    ask(&shared, |live| live.ready()).await?.map(|()| fine("ready")).map_err(|why| {
        let cure = "A partition that is being restored needs time; of a halted one /v1/status says what to do.";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, why, cure)
    })
}

fn fine(state: &'static str) -> Response {
    Json(serde_json::json!({ "status": state })).into_response()
}

async fn status(State(shared): State<Shared>) -> Result<Response, Problem> {
    Ok(Json(ask(&shared, |live| live.status()).await?).into_response())
}

async fn account(State(shared): State<Shared>, name: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let Ok(Path(mut name)) = name else {
        let cure = "Percent-encode the account's UTF-8.";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "the account is not UTF-8", cure));
    };
    if name.len() > ACCOUNT_BYTES_MAX {
        let detail = format!("an account of more than {ACCOUNT_BYTES_MAX} bytes is known nowhere");
        return Err(Problem::new(StatusCode::NOT_FOUND, detail, "Ask for the account as its events name it."));
    }
    name.make_ascii_lowercase();
    // The detail does not repeat the name: it ends in logs and in bodies of proxies.
    Err(match ask(&shared, move |live| live.account(&name)).await? {
        AccountAnswer::Here(view) => return Ok(Json(view).into_response()),
        AccountAnswer::Elsewhere { partition, instance } => {
            let detail = format!("the account belongs to partition {partition}, which this instance does not read");
            let cure = match &instance {
                Some(instance) => format!("Ask {instance}."),
                None => "Ask the other instances: /v1/status of each names its partitions.".to_owned(),
            };
            Problem::new(StatusCode::MISDIRECTED_REQUEST, detail, cure).of_partition(partition, instance)
        }
        AccountAnswer::Unknown { partition } => Problem::new(
            StatusCode::NOT_FOUND,
            format!("the account is not known here: no event of it on partition {partition}, which would have it"),
            "Check the spelling; an account without events, or idle for longer than detect.forget_days, is not known.",
        )
        .of_partition(partition, None),
        AccountAnswer::Nowhere(why) => Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            why,
            "Ask one of those: /v1/status of each names its partitions.",
        ),
        AccountAnswer::NotReady(why) => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, why, "Ask again when /readyz answers 200.")
        }
    })
}
