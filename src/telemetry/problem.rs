//! Answers that are errors, as RFC 9457 has them: `application/problem+json` with `type`, `title`, `status`, `detail`, and our
//! `cure`. Every error is one, also those of the HTTP library.

use axum::Json;
use axum::body::to_bytes;
use axum::extract::Path;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// The type of a problem's body.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// Of what the HTTP library says about a request no more is told on.
const DETAIL_BYTES_MAX: usize = 4096;

/// A kind of problem: its status, the name at the end of its `type`, its title, what its page says. One for each status, so
/// that whoever knows the status knows the type.
const KINDS: &[(StatusCode, &str, &str, &str)] = &[
    (
        StatusCode::BAD_REQUEST,
        "bad-request",
        "The request is not understood",
        "A parameter or a field of the body is missing, unknown or out of its range.",
    ),
    (
        StatusCode::UNAUTHORIZED,
        "no-token",
        "A token is needed",
        "Send `Authorization: Bearer TOKEN` with a token of [[http.token]].",
    ),
    (
        StatusCode::FORBIDDEN,
        "forbidden",
        "This may not be done",
        "The token lacks the role, or the request comes from a web page of somebody else.",
    ),
    (
        StatusCode::NOT_FOUND,
        "not-found",
        "There is no such thing",
        "The page or the thing does not exist, or is forgotten by now.",
    ),
    (
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "The page does not take this method",
        "The header `Allow` names those that it takes.",
    ),
    (
        StatusCode::CONFLICT,
        "conflict",
        "It cannot be done as things stand",
        "What it is about is in another state than the request supposes. Look, then decide again.",
    ),
    (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", "A body has 64 KiB at most."),
    (
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "not-json",
        "The body is not declared as JSON",
        "Send `Content-Type: application/json`.",
    ),
    (
        StatusCode::MISDIRECTED_REQUEST,
        "elsewhere",
        "Another instance has it",
        "The account lives on another instance, or another one is the active desk. `ask_instance` names it where it is known.",
    ),
    (StatusCode::INTERNAL_SERVER_ERROR, "defect", "A defect of mailfuse", "Please report it, with the log."),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        "Not now",
        "Ask again later. Where something was to be changed, look first whether it was.",
    ),
];

/// What went wrong, and what to do about it.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    r#type: Box<str>,
    title: &'static str,
    #[serde(serialize_with = "number")]
    status: StatusCode,
    detail: String,
    cure: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ask_instance: Option<String>,
}

fn number<S: serde::Serializer>(status: &StatusCode, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u16(status.as_u16())
}

impl Problem {
    /// `detail`: what happened, without a full stop. `cure`: what to do about it, in a sentence.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>, cure: impl Into<String>) -> Self {
        let known = KINDS.iter().find(|k| k.0 == status);
        let (r#type, title) = match known {
            Some((_, name, title, _)) => (format!("/problems/{name}").into(), *title),
            // As the RFC has it, for what its status says all about.
            None => ("about:blank".into(), status.canonical_reason().unwrap_or_default()),
        };
        Self { r#type, title, status, detail: detail.into(), cure: cure.into(), partition: None, ask_instance: None }
    }

    /// Which partition it is about, and who has that.
    pub(super) fn of_partition(self, partition: i32, ask_instance: Option<String>) -> Self {
        Self { partition: Some(partition), ask_instance, ..self }
    }

    /// The HTTP address of the instance that can be asked.
    pub(crate) fn at_instance(self, ask_instance: Option<String>) -> Self {
        Self { ask_instance, ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let challenge = self.status == StatusCode::UNAUTHORIZED;
        // Whatever is away is looked at again within seconds.
        let is_away = self.status == StatusCode::SERVICE_UNAVAILABLE;
        let mut response = (self.status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if is_away {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
        }
        if challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"mailfuse\""));
        }
        response
    }
}

/// Makes a problem of what is an error and none yet: what the HTTP library refuses by itself. Its headers stay.
pub(super) async fn every_error(response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error())
        || response.headers().get(CONTENT_TYPE).is_some_and(|kind| *kind == PROBLEM_JSON)
    {
        return response;
    }
    let (parts, body) = response.into_parts();
    let said = to_bytes(body, DETAIL_BYTES_MAX).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    // A body that is JSON and not what is asked for is not told apart from one that is no JSON.
    let status = if status == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { status };
    let detail = match said.trim() {
        "" => status.canonical_reason().unwrap_or("it failed").to_ascii_lowercase(),
        said => said.trim_end_matches('.').to_owned(),
    };
    let mut problem = Problem::new(status, detail, "/v1/openapi.json says what each page takes.").into_response();
    for (name, value) in &parts.headers {
        if name != CONTENT_TYPE && name != CONTENT_LENGTH {
            problem.headers_mut().insert(name.clone(), value.clone());
        }
    }
    problem
}

/// The page of a `type`.
pub(super) async fn page(Path(name): Path<String>) -> Result<String, Problem> {
    match KINDS.iter().find(|k| k.1 == name) {
        Some((status, _, title, text)) => Ok(format!("{} {title}\n\n{text}\n", status.as_u16())),
        None => Err(nowhere().await),
    }
}

pub(super) async fn nowhere() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no such page", "/ lists the pages.")
}

pub(super) async fn other_method(method: Method) -> Problem {
    let detail = format!("this page answers no {method}");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail, "The header Allow names those that it answers.")
}
