//! The pages that read the events topic again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::burst::Burst;
use super::{Answers, Standing, Tell, collateral, queue_ids};
use crate::desk::api::{Asked, Desk, ask, understood, within};
use crate::kafka::look_back::Progress;
use crate::telemetry::http::Problem;

/// So long a request waits for a reading to end: below what a connection may take, with the question to the index.
const WAIT: Duration = Duration::from_secs(3);
/// Queue ids that are listed at most, and where nothing is said.
const IDS_MAX: usize = 100_000;
const IDS: usize = 10_000;
/// Rows of a page where nothing is said.
const ROWS: usize = 100;

/// What was found lately.
#[derive(Debug)]
pub(in crate::desk) struct Lately {
    /// What waits may have changed after some seconds.
    queue_ids: Answers<queue_ids::Found>,
    /// Its pages are of one reading.
    collateral: Answers<collateral::Found>,
}

impl Default for Lately {
    fn default() -> Self {
        Self {
            queue_ids: Answers::new(2, 4, Duration::from_secs(10)),
            collateral: Answers::new(1, 2, Duration::from_secs(300)),
        }
    }
}

/// The routes.
pub(in crate::desk) fn router() -> Router<Desk> {
    Router::new()
        .route("/v1/incidents/{id}/queue-ids", get(queue_ids_page))
        .route("/v1/incidents/{id}/collateral", get(collateral_page))
        .route("/v1/incidents/{id}/collateral.csv", get(collateral_csv))
}

/// It is still being read.
#[derive(Serialize)]
struct Reading {
    reading: Progress,
}

fn reading(progress: Progress) -> Response {
    (StatusCode::ACCEPTED, [(RETRY_AFTER, "1")], Json(Reading { reading: progress })).into_response()
}

/// There is no such incident.
fn none() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no such incident",
        "/v1/incidents lists them; one that has been over for desk.keep_days is forgotten.",
    )
}

/// The answer to `key`, looked for where it is not known; `Err` is how it stands otherwise.
async fn answer<T: Send + Sync + 'static>(
    answers: &Answers<T>,
    key: &str,
    look: impl FnOnce(&Tell<'_>) -> Result<T, String> + Send + 'static,
) -> Result<Result<Arc<T>, Progress>, Problem> {
    let unavailable = |why: String, cure: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why, cure);
    let began = Instant::now();
    let mut standing = match answers.standing(key) {
        Some(standing) => standing,
        None => answers.begin(key, look),
    };
    loop {
        match standing {
            Standing::Found(found) => return Ok(Ok(found)),
            Standing::Failed(why) => return Err(unavailable(why, "Ask again: it is read anew.")),
            Standing::Busy => {
                let cure = "Ask again in some seconds.";
                return Err(unavailable("other questions to the events topic are being answered".to_owned(), cure));
            }
            Standing::Reading(progress) if began.elapsed() >= WAIT => return Ok(Err(progress)),
            Standing::Reading(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
        standing = answers.standing(key).unwrap_or_else(|| Standing::Failed("the answer was dropped".to_owned()));
    }
}

/// Which ids.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct QueueIds {
    host: Option<String>,
    limit: Option<usize>,
}

async fn queue_ids_page(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    asked: Asked<QueueIds>,
) -> Result<Response, Problem> {
    let q = understood(asked)?;
    let limit = q.limit.unwrap_or(IDS);
    if !(1..=IDS_MAX).contains(&limit) {
        let cure = "/v1/openapi.json says what each page can be asked for.";
        let detail = format!("limit must lie between 1 and {IDS_MAX}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail, cure));
    }
    let wanted = id.clone();
    let burst = ask(&desk, move |c| Burst::of(c, &wanted)).await?.ok_or_else(none)?;
    let shared = Arc::clone(&desk.shared);
    let look = move |tell: &Tell<'_>| queue_ids::read(&shared, &burst, tell);
    match answer(&desk.lately.queue_ids, &id, look).await? {
        Ok(found) => Ok(Json(found.answer(id, q.host.as_deref(), limit)).into_response()),
        Err(progress) => Ok(reading(progress)),
    }
}

/// Which rows.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Collateral {
    relay: Option<String>,
    after: Option<i64>,
    limit: Option<u32>,
}

async fn collateral_page(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    asked: Asked<Collateral>,
) -> Result<Response, Problem> {
    let q = understood(asked)?;
    within([], q.after, q.limit)?;
    let limit = q.limit.map_or(ROWS, |n| n as usize);
    let after = usize::try_from(q.after.unwrap_or(0)).unwrap_or(usize::MAX);
    Ok(match collateral_of(&desk, &id).await? {
        Ok(found) => Json(found.answer(q.relay.as_deref(), after, limit)).into_response(),
        Err(progress) => reading(progress),
    })
}

async fn collateral_csv(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Response, Problem> {
    let found = match collateral_of(&desk, &id).await? {
        Ok(found) => found,
        Err(progress) => return Ok(reading(progress)),
    };
    let csv = found.csv().map_err(|e| {
        let cure = "A defect of mailfuse: please report it, with the log.";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string(), cure)
    })?;
    Ok(([(CONTENT_TYPE, "text/csv; charset=utf-8")], csv).into_response())
}

async fn collateral_of(desk: &Desk, id: &str) -> Result<Result<Arc<collateral::Found>, Progress>, Problem> {
    let wanted = id.to_owned();
    let known = ask(desk, move |c| collateral::Known::of(c, &wanted)).await?.ok_or_else(none)?;
    let shared = Arc::clone(&desk.shared);
    let look = move |tell: &Tell<'_>| collateral::read(&shared, known, tell);
    answer(&desk.lately.collateral, id, look).await
}
