//! The pages of accounts that are stopped and relays that are pulled.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::api::{Noted, wish};
use super::whole;
use super::wish::{MeasureWish, NewMeasure, Rights, Wish};
use crate::desk::api::{Asked as AskedFor, Desk, ask, fold, understood, within};
use crate::desk::index::query::{self, Measures};
use crate::event::Timestamp;
use crate::kafka::outlet::now_ms;
use crate::relays::decide::Hold;
use crate::relays::measure::Kind;
use crate::telemetry::access::{Right, Who};
use crate::telemetry::http::Problem;

/// The longest that pulls may be held off: a week.
const HOLD_MAX_S: u32 = 604_800;

/// The routes.
pub(in crate::desk) fn router() -> Router<Desk> {
    Router::new()
        .route("/v1/measures", get(measures).post(order))
        .route("/v1/measures/{id}", get(measure))
        .route("/v1/measures/{id}/confirm", post(confirm))
        .route("/v1/measures/{id}/end", post(end))
        .route("/v1/relays/restore", post(restore_all))
        .route("/v1/relays/hold", get(hold).delete(lift))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreAll {
    #[serde(default = "hold_s", deserialize_with = "whole::one")]
    hold_s: u32,
    #[serde(default)]
    note: Option<String>,
}

/// Time enough to find out what went wrong.
fn hold_s() -> u32 {
    3600
}

/// What who asks may do; nobody comes in who may do neither.
fn rights(who: &Who) -> Result<(Rights, Right), Problem> {
    let rights = Rights { accounts: who.require(Right::Accounts).is_ok(), relays: who.require(Right::Relays).is_ok() };
    let needed = if rights.relays { Right::Relays } else { Right::Accounts };
    who.require(needed)?;
    Ok((rights, needed))
}

async fn measures(State(desk): State<Desk>, who: Who, asked: AskedFor<Measures>) -> Result<Response, Problem> {
    who.require(Right::Look)?;
    let mut q = understood(asked)?;
    let words = [
        ("kind", &q.kind, &["stop", "throttle", "pull"][..]),
        ("state", &q.state, &["shadow", "asked", "in_force", "ended"][..]),
    ];
    within(words, q.before, q.limit)?;
    fold(&mut q.account);
    Ok(Json(ask(&desk, move |c| query::measures(c, &q, now_ms())).await?).into_response())
}

async fn measure(State(desk): State<Desk>, who: Who, Path(id): Path<String>) -> Result<Response, Problem> {
    who.require(Right::Look)?;
    match ask(&desk, move |c| query::measure(c, &id)).await? {
        Some(found) => Ok(Json(found).into_response()),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no such measure", "/v1/measures lists them.")),
    }
}

async fn order(State(desk): State<Desk>, who: Who, Json(new): Json<NewMeasure>) -> Result<Response, Problem> {
    let right = if new.kind == Kind::Pull { Right::Relays } else { Right::Accounts };
    let answer = wish(&desk, &who, right, Wish::Measure(MeasureWish::Order(new))).await?;
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn confirm(
    State(desk): State<Desk>,
    who: Who,
    Path(id): Path<String>,
    body: Option<Json<Noted>>,
) -> Result<Response, Problem> {
    let (rights, needed) = rights(&who)?;
    let wanted = MeasureWish::Confirm { id, note: body.unwrap_or_default().0.note, rights };
    Ok(Json(wish(&desk, &who, needed, Wish::Measure(wanted)).await?).into_response())
}

async fn end(
    State(desk): State<Desk>,
    who: Who,
    Path(id): Path<String>,
    body: Option<Json<Noted>>,
) -> Result<Response, Problem> {
    let (rights, needed) = rights(&who)?;
    let wanted = MeasureWish::End { id, note: body.unwrap_or_default().0.note, rights };
    Ok(Json(wish(&desk, &who, needed, Wish::Measure(wanted)).await?).into_response())
}

async fn restore_all(
    State(desk): State<Desk>,
    who: Who,
    Json(RestoreAll { hold_s, note }): Json<RestoreAll>,
) -> Result<Response, Problem> {
    if hold_s > HOLD_MAX_S {
        let detail = format!("`hold_s` must lie between 0 and {HOLD_MAX_S}");
        return Err(Problem::new(
            StatusCode::BAD_REQUEST,
            detail,
            "Hold pulls off for a week at most, and again then.",
        ));
    }
    let wanted = Wish::Measure(MeasureWish::RestoreAll { hold_s, note });
    Ok(Json(wish(&desk, &who, Right::Relays, wanted).await?).into_response())
}

/// Who holds pulls off, as the page has it.
#[derive(Debug, Default, Serialize)]
struct Held {
    held_until: Option<Timestamp>,
    by: Option<String>,
    note: Option<String>,
}

async fn hold(State(desk): State<Desk>, who: Who) -> Result<Response, Problem> {
    who.require(Right::Look)?;
    let hold = ask(&desk, |c| query::hold(c, now_ms())).await?;
    let held = |h: Hold| Held { held_until: Some(Timestamp(h.until_ms)), by: Some(h.by), note: h.note };
    Ok(Json(hold.map(held).unwrap_or_default()).into_response())
}

async fn lift(State(desk): State<Desk>, who: Who, asked: AskedFor<Noted>) -> Result<Response, Problem> {
    let note = understood(asked)?.note;
    let wanted = Wish::Measure(MeasureWish::Lift { note });
    Ok(Json(wish(&desk, &who, Right::Relays, wanted).await?).into_response())
}
