//! The desk's pages: which desk this is, incidents, alerts. They are answered from the index of this instance, whichever is active.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use rusqlite::Connection;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::feedback;
use super::index::moments;
use super::index::query::{self, Alerts, Deliveries, Incidents, Listings};
use super::index::{Error, reader};
use super::look_back::{self, api::Lately};
use super::shared::{IndexState, Role, Shared};
use crate::kafka::outlet::now_ms;
use crate::kafka::restore::Reader;
use crate::telemetry::access::{Right, Who};
use crate::telemetry::http::Problem;

/// Questions that are answered at a time.
const ASKING_MAX: usize = 8;
/// For so long it is known which instance is active.
const NAMED_FOR: Duration = Duration::from_secs(5);
/// The header that says as of when an answer is, where the index cannot be brought up to date.
pub const AS_OF: &str = "mailfuse-as-of";
/// The largest whole number that every reader of JSON has exactly (RFC 8259, section 6).
const CURSOR_MAX: i64 = (1 << 53) - 1;
/// Time for an answer to be found.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) shared: Arc<Shared>,
    pub(super) lately: Arc<Lately>,
    asking: Arc<Semaphore>,
    active: Arc<Mutex<Option<Active>>>,
}

/// Which instance is active.
struct Active {
    /// When that was asked.
    at: Instant,
    /// Its HTTP address, where the group knows one.
    instance: Option<String>,
}

/// The routes.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let asking = Arc::new(Semaphore::new(ASKING_MAX));
    let desk = Desk { shared, lately: Arc::default(), asking, active: Arc::default() };
    Router::new()
        .route("/v1/incidents", get(incidents))
        .route("/v1/incidents/{id}", get(incident))
        .route("/v1/alerts", get(alerts))
        .route("/v1/deliveries", get(deliveries))
        .route("/v1/listings", get(listings))
        .merge(feedback::api::router())
        .merge(feedback::measures::router())
        .merge(look_back::api::router())
        .route_layer(middleware::from_fn_with_state(desk.clone(), say_as_of))
        // What follows is not answered from the index.
        .route("/v1/desk", get(self::desk))
        .route("/v1/endpoints", get(endpoints))
        .route("/v1/directory", get(directory))
        .route("/v1/directory/{account}", get(known))
        .with_state(desk)
}

/// Says in each answer from an index that cannot be brought up to date as of when it is.
async fn say_as_of(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    // What is said is not said by the index.
    let is_question = request.method() == Method::GET;
    let before = desk.shared.index();
    let mut response = next.run(request).await;
    let as_of = [before, desk.shared.index()].into_iter().find_map(|state| match state {
        IndexState::Away { as_of, .. } => HeaderValue::from_str(&as_of.to_string()).ok(),
        _ => None,
    });
    if let Some(as_of) = as_of.filter(|_| is_question && response.status().is_success()) {
        response.headers_mut().insert(AS_OF, as_of);
    }
    response
}

#[derive(Serialize)]
struct About {
    #[serde(flatten)]
    role: Role,
    /// The offset of the next alert to be taken, of the active desk.
    #[serde(skip_serializing_if = "Option::is_none")]
    alerts_next: Option<i64>,
    index: AboutIndex,
}

#[derive(Serialize)]
struct AboutIndex {
    #[serde(flatten)]
    state: IndexState,
    file: String,
    /// The offset up to which it has the desk topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_offset: Option<i64>,
}

async fn desk(State(desk): State<Desk>) -> impl IntoResponse {
    let shared = &desk.shared;
    let offset = |n: i64| (n >= 0).then_some(n);
    let role = shared.role();
    let alerts_next = offset(shared.alerts_next.load(Ordering::Acquire)).filter(|_| role == Role::Active);
    let next_offset = offset(shared.index_next.load(Ordering::Acquire));
    let index = AboutIndex { state: shared.index(), file: shared.path.display().to_string(), next_offset };
    Json(About { role, alerts_next, index })
}

/// Asks the index on a thread that may block.
pub(super) async fn ask<T: Send + 'static>(
    desk: &Desk,
    question: impl FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
) -> Result<T, Problem> {
    let unavailable = |error: String, cure: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error, cure);
    // Half an index would say that there is no more.
    match desk.shared.index() {
        // Whole, and said to be of then.
        IndexState::Ready | IndexState::Away { .. } => {}
        IndexState::Catching => {
            return Err(unavailable(
                "the index of this instance is being made from the topics".to_owned(),
                "Ask again in some seconds, or another instance: /v1/desk says \"ready\" when it is done.",
            ));
        }
        IndexState::Failed { why } => {
            return Err(unavailable(why, "See /v1/desk; another instance can be asked meanwhile."));
        }
    }
    let (shared, asking) = (Arc::clone(&desk.shared), Arc::clone(&desk.asking));
    let answer = async move {
        let place = asking.acquire_owned().await.ok();
        let asked = move || {
            let answer = reader(&shared.path)
                .and_then(|c| question(&c).map_err(|source| Error::Sqlite { path: shared.path.clone(), source }));
            // Not before: a client that goes away leaves the thread behind.
            drop(place);
            answer
        };
        tokio::task::spawn_blocking(asked).await
    };
    match tokio::time::timeout(ANSWER_WITHIN, answer).await {
        Ok(Ok(Ok(answer))) => Ok(answer),
        Ok(Ok(Err(e))) => {
            if e.is_damaged() {
                desk.shared.report_damage();
            }
            Err(unavailable(e.to_string(), "See /v1/desk; another instance can be asked meanwhile."))
        }
        Ok(Err(e)) => {
            tracing::error!("an answer over HTTP failed: {e}");
            let cure = "A defect of mailfuse: please report it, with the log.";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer failed", cure))
        }
        Err(_) => Err(unavailable(
            format!("no answer within {} s", ANSWER_WITHIN.as_secs()),
            "Too many ask at once, or the disk is slow: ask again later.",
        )),
    }
}

pub(super) fn fold(name: &mut Option<String>) {
    if let Some(name) = name {
        name.make_ascii_lowercase();
    }
}

pub(super) type Asked<Q> = Result<Query<Q>, QueryRejection>;

pub(super) fn understood<Q>(asked: Asked<Q>) -> Result<Q, Problem> {
    asked.map(|Query(q)| q).map_err(|e| {
        Problem::new(StatusCode::BAD_REQUEST, e.body_text(), "/v1/openapi.json says what each page can be asked for.")
    })
}

/// Refuses what no answer could hold: an empty page would say that there is none.
pub(super) fn within<const N: usize>(
    words: [(&str, &Option<String>, &[&str]); N],
    cursor: Option<i64>,
    limit: Option<u32>,
) -> Result<(), Problem> {
    let bad = |detail: String| {
        Problem::new(StatusCode::BAD_REQUEST, detail, "/v1/openapi.json says what each page can be asked for.")
    };
    for (name, given, known) in words {
        if given.as_ref().is_some_and(|g| !known.contains(&g.as_str())) {
            return Err(bad(format!("{name} must be {}", known.join(" or "))));
        }
    }
    if cursor.is_some_and(|n| !(0..=CURSOR_MAX).contains(&n)) {
        return Err(bad(format!("a cursor must lie between 0 and {CURSOR_MAX}")));
    }
    if limit.is_some_and(|n| !(1..=query::PAGE_MAX).contains(&n)) {
        return Err(bad(format!("limit must lie between 1 and {}", query::PAGE_MAX)));
    }
    Ok(())
}

const SEVERITIES: &[&str] = &["warning", "critical"];

async fn incidents(State(desk): State<Desk>, asked: Asked<Incidents>) -> Result<Response, Problem> {
    let mut q = understood(asked)?;
    within([("state", &q.state, &["open", "over"]), ("severity", &q.severity, SEVERITIES)], q.before, q.limit)?;
    fold(&mut q.account);
    // Its incidents may be older than its name.
    let accounts =
        q.account.as_ref().map(|account| desk.shared.directory.directory().names(account)).unwrap_or_default();
    Ok(Json(ask(&desk, move |c| query::incidents(c, &q, &accounts)).await?).into_response())
}

async fn directory(State(desk): State<Desk>, who: Who) -> Result<Response, Problem> {
    who.require(Right::Look)?;
    Ok(Json(desk.shared.directory.standing()).into_response())
}

async fn known(State(desk): State<Desk>, who: Who, Path(name): Path<String>) -> Result<Response, Problem> {
    who.require(Right::Look)?;
    match desk.shared.directory.directory().find(&name) {
        Some(found) => Ok(Json(found).into_response()),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "the directory does not know this account",
            "/v1/directory says which file it is and whether it could be read.",
        )),
    }
}

async fn alerts(State(desk): State<Desk>, asked: Asked<Alerts>) -> Result<Response, Problem> {
    let mut q = understood(asked)?;
    within([("severity", &q.severity, SEVERITIES)], q.after, q.limit)?;
    fold(&mut q.account);
    Ok(Json(ask(&desk, move |c| query::alerts(c, &q)).await?).into_response())
}

async fn deliveries(State(desk): State<Desk>, asked: Asked<Deliveries>) -> Result<Response, Problem> {
    let q = understood(asked)?;
    within([("state", &q.state, &["pending", "delivered", "dead"])], q.before, q.limit)?;
    Ok(Json(ask(&desk, move |c| query::deliveries(c, &q)).await?).into_response())
}

async fn listings(State(desk): State<Desk>, asked: Asked<Listings>) -> Result<Response, Problem> {
    let q = understood(asked)?;
    within([], q.before, q.limit)?;
    Ok(Json(ask(&desk, move |c| query::listings(c, &q)).await?).into_response())
}

/// What the active desk alone knows and does.
pub(super) async fn active(desk: &Desk) -> Result<(), Problem> {
    if desk.shared.role() == Role::Active {
        return Ok(());
    }
    let instance = active_instance(desk).await;
    let cure = match &instance {
        Some(instance) => format!("Ask {instance}."),
        None => "Ask the instance whose /v1/desk says \"active\".".to_owned(),
    };
    let problem = Problem::new(StatusCode::MISDIRECTED_REQUEST, "this is not the active desk", cure);
    Err(problem.at_instance(instance))
}

/// The HTTP address of the instance that has the alerts, where the group knows one that is not this one. Known for some seconds, so
/// that brokers that do not answer hold up one question and not all.
async fn active_instance(desk: &Desk) -> Option<String> {
    let known = || desk.active.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(active) = &*known()
        && active.at.elapsed() < NAMED_FOR
    {
        return active.instance.clone();
    }
    let instance = ask_active_instance(desk).await;
    *known() = Some(Active { at: Instant::now(), instance: instance.clone() });
    instance
}

async fn ask_active_instance(desk: &Desk) -> Option<String> {
    let place = Arc::clone(&desk.asking).try_acquire_owned().ok()?;
    let shared = Arc::clone(&desk.shared);
    let asked = tokio::task::spawn_blocking(move || {
        let (kafka, _place) = (&shared.kafka, place);
        let client_id = Reader::new(kafka).ok()?.owner(&kafka.group, &kafka.topics.alerts, 0)?;
        (client_id != shared.client_id).then_some(client_id)
    });
    let client_id = tokio::time::timeout(ANSWER_WITHIN, asked).await.ok()?.ok()??;
    // Its last word, as `run` has named it.
    client_id.rsplit(' ').next().filter(|address| !address.is_empty()).map(str::to_owned)
}

async fn endpoints(State(desk): State<Desk>) -> Result<Response, Problem> {
    active(&desk).await?;
    Ok(Json(serde_json::json!({ "items": desk.shared.endpoints() })).into_response())
}

async fn incident(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Response, Problem> {
    let shared = Arc::clone(&desk.shared);
    match ask(&desk, move |c| moments::whole(c, &id, &shared.relays, now_ms())).await? {
        Some(whole) => Ok(Json(whole).into_response()),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "no such incident",
            "/v1/incidents lists them; one that has been over for desk.keep_days is forgotten.",
        )),
    }
}
