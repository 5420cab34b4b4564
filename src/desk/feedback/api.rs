//! The pages on which people say what an incident was, and decide about accounts.

use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::whole;
use super::wish::{Asked, NewAction, NewDecision, NewName, Refused, Wish};
use crate::desk::api::{ANSWER_WITHIN, Asked as AskedFor, Desk, active, ask, fold, understood, within};
use crate::desk::index::query::{self, Audit, Decisions};
use crate::desk::shared::Command;
use crate::kafka::outlet::now_ms;
use crate::telemetry::access::{Right, Who};
use crate::telemetry::http::Problem;

/// The routes.
pub(in crate::desk) fn router() -> Router<Desk> {
    Router::new()
        .route("/v1/incidents/{id}/acknowledge", post(acknowledge))
        .route("/v1/incidents/{id}/resolve", post(resolve))
        .route("/v1/incidents/{id}/false-positive", post(false_positive))
        .route("/v1/incidents/{id}/note", post(note))
        .route("/v1/decisions", get(decisions).post(decide))
        .route("/v1/decisions/{id}", get(decision).delete(take_back))
        .route("/v1/renames", post(rename))
        .route("/v1/audit", get(audit))
        .route("/v1/actions", post(act))
        .route("/v1/endpoints/{endpoint}/enable", post(enable))
        .route("/v1/deliveries/{endpoint}/{id}/resend", post(resend))
}

/// A body with nothing but a note, which may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Noted {
    /// It.
    pub(super) note: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remark {
    note: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    #[serde(rename = "as")]
    kind: ResolveAs,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ResolveAs {
    Hijack,
    NotHijack,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FalsePositive {
    note: String,
    #[serde(default = "days", deserialize_with = "whole::one")]
    days: u32,
    #[serde(default = "decades")]
    decades: f64,
}

/// A quarter of a year: a season's habits.
fn days() -> u32 {
    90
}

/// What was flagged by some decades must be a hundred times less likely to be flagged again.
fn decades() -> f64 {
    2.0
}

/// Hands a wish to the active desk, and waits until it is stored.
pub(super) async fn wish(desk: &Desk, who: &Who, right: Right, wish: Wish) -> Result<serde_json::Value, Problem> {
    who.require(right)?;
    active(desk).await?;
    let (reply, answer) = crossbeam_channel::bounded(1);
    let late = || {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the desk is busy, or another one takes over",
            "Look whether it was done before you ask again.",
        )
    };
    if !desk.shared.command(Command { wish, who: who.name.clone(), until: Instant::now() + ANSWER_WITHIN, reply }) {
        return Err(late());
    }
    let asked = tokio::task::spawn_blocking(move || answer.recv_timeout(ANSWER_WITHIN));
    match asked.await {
        Ok(Ok(Ok(answer))) => Ok(answer),
        Ok(Ok(Err(refused))) => {
            let status = match &refused {
                Refused::Unknown(_) => StatusCode::NOT_FOUND,
                Refused::Conflict(_) => StatusCode::CONFLICT,
                Refused::Invalid(_) => StatusCode::BAD_REQUEST,
                Refused::Forbidden(_) => StatusCode::FORBIDDEN,
            };
            let text = refused.to_string();
            let (detail, cure) = text.split_once(": ").unwrap_or((&text, "nothing was changed"));
            Err(Problem::new(status, detail, sentence(cure)))
        }
        _ => Err(late()),
    }
}

/// With a capital, where a letter begins it, and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).chain(['.']).collect()
}

async fn acknowledge(
    State(desk): State<Desk>,
    who: Who,
    Path(incident): Path<String>,
    body: Option<Json<Noted>>,
) -> Result<Response, Problem> {
    let note = body.unwrap_or_default().0.note;
    Ok(Json(wish(&desk, &who, Right::Accounts, Wish::Acknowledge { incident, note }).await?).into_response())
}

async fn resolve(
    State(desk): State<Desk>,
    who: Who,
    Path(incident): Path<String>,
    Json(Resolve { kind, note }): Json<Resolve>,
) -> Result<Response, Problem> {
    let resolution = match kind {
        ResolveAs::Hijack => Asked::Hijack,
        ResolveAs::NotHijack => Asked::NotHijack,
    };
    Ok(Json(wish(&desk, &who, Right::Accounts, Wish::Resolve { incident, resolution, note }).await?).into_response())
}

async fn false_positive(
    State(desk): State<Desk>,
    who: Who,
    Path(incident): Path<String>,
    Json(FalsePositive { note, days, decades }): Json<FalsePositive>,
) -> Result<Response, Problem> {
    let wanted = Wish::Resolve { incident, resolution: Asked::FalsePositive { days, decades }, note: Some(note) };
    Ok(Json(wish(&desk, &who, Right::Accounts, wanted).await?).into_response())
}

async fn note(
    State(desk): State<Desk>,
    who: Who,
    Path(incident): Path<String>,
    Json(Remark { note }): Json<Remark>,
) -> Result<Response, Problem> {
    Ok(Json(wish(&desk, &who, Right::Accounts, Wish::Note { incident, note }).await?).into_response())
}

async fn decide(State(desk): State<Desk>, who: Who, Json(new): Json<NewDecision>) -> Result<Response, Problem> {
    let answer = wish(&desk, &who, Right::Accounts, Wish::Decide(new)).await?;
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

async fn take_back(
    State(desk): State<Desk>,
    who: Who,
    Path(decision): Path<String>,
    asked: AskedFor<Noted>,
) -> Result<Response, Problem> {
    let note = understood(asked)?.note;
    Ok(Json(wish(&desk, &who, Right::Accounts, Wish::TakeBack { decision, note }).await?).into_response())
}

async fn rename(State(desk): State<Desk>, who: Who, Json(new): Json<NewName>) -> Result<Response, Problem> {
    let answer = wish(&desk, &who, Right::Accounts, Wish::Rename(new)).await?;
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

async fn act(State(desk): State<Desk>, who: Who, Json(new): Json<NewAction>) -> Result<Response, Problem> {
    let right = if new.action.is_of_relay() { Right::Relays } else { Right::Accounts };
    Ok((StatusCode::CREATED, Json(wish(&desk, &who, right, Wish::Act(new)).await?)).into_response())
}

async fn enable(
    State(desk): State<Desk>,
    who: Who,
    Path(endpoint): Path<String>,
    body: Option<Json<Noted>>,
) -> Result<Response, Problem> {
    let note = body.unwrap_or_default().0.note;
    let answer = wish(&desk, &who, Right::Accounts, Wish::Enable { endpoint, note }).await?;
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

async fn resend(
    State(desk): State<Desk>,
    who: Who,
    Path((endpoint, id)): Path<(String, String)>,
    body: Option<Json<Noted>>,
) -> Result<Response, Problem> {
    who.require(Right::Accounts)?;
    active(&desk).await?;
    let note = body.unwrap_or_default().0.note;
    let Some(message) = ask(&desk, move |c| query::message(c, &endpoint, &id)).await? else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "no such delivery", "/v1/deliveries lists them."));
    };
    let answer = wish(&desk, &who, Right::Accounts, Wish::Resend { message: Box::new(message), note }).await?;
    Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
}

async fn decisions(State(desk): State<Desk>, who: Who, asked: AskedFor<Decisions>) -> Result<Response, Problem> {
    who.require(Right::Look)?;
    let mut q = understood(asked)?;
    within([("scope", &q.scope, &["account", "tenant", "domain", "network"])], q.before, q.limit)?;
    fold(&mut q.name);
    Ok(Json(ask(&desk, move |c| query::decisions(c, &q, now_ms())).await?).into_response())
}

async fn decision(State(desk): State<Desk>, who: Who, Path(id): Path<String>) -> Result<Response, Problem> {
    who.require(Right::Look)?;
    match ask(&desk, move |c| query::decision(c, &id)).await? {
        Some(found) => Ok(Json(found).into_response()),
        None => Err(Problem::new(StatusCode::NOT_FOUND, "no such decision", "/v1/decisions lists them.")),
    }
}

async fn audit(State(desk): State<Desk>, who: Who, asked: AskedFor<Audit>) -> Result<Response, Problem> {
    who.require(Right::Look)?;
    let mut q = understood(asked)?;
    within([], q.before, q.limit)?;
    fold(&mut q.account);
    Ok(Json(ask(&desk, move |c| query::audit(c, &q)).await?).into_response())
}
