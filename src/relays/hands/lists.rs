//! Lists for everybody else: who is stopped and what is pulled, as text. Pure but for the pages.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, ETAG, HeaderMap, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use super::policy;
use super::settings::{FileList, Form, Policy, What};
use super::text;
use crate::kafka::outlet::now_ms;
use crate::relays::board::Board;
use crate::relays::measure::{Kind, Measure, Mode};
use crate::relays::standing::Standing;
use crate::telemetry::Metrics;
use crate::telemetry::http::Problem;

impl What {
    fn kind(self) -> Kind {
        match self {
            Self::Stopped => Kind::Stop,
            Self::Pulled => Kind::Pull,
        }
    }
}

/// Whether a name can stand in a line of its own. One that has spaces, or that begins a comment, would be read as something else.
fn fits(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(['#', '"']) && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Of Exim's `lsearch`: a name that is not plain is quoted (Exim specification, section 9.3).
fn exim_name(name: &str) -> Option<String> {
    if name.chars().any(char::is_control) {
        return None;
    }
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@+-=/".contains(&b)) {
        return Some(name.to_owned());
    }
    Some(format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// A list as a file has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Rendered {
    /// What stands in the file.
    pub(super) text: String,
    /// So many names are left out because they cannot be written so.
    pub(super) left_out: usize,
    /// So many are left out because of the list's mode.
    pub(super) withheld: usize,
}

/// A list as a file has it.
pub(super) fn render(standing: &Standing, list: &FileList, policy: &Policy, now_ms: i64) -> Rendered {
    let (what, form) = (list.what, list.form);
    let mut rendered = Rendered::default();
    for measure in standing.all(what.kind(), now_ms) {
        if !measure.is_for(list.mode) {
            rendered.withheld += 1;
            continue;
        }
        let (name, out) = (&measure.subject, &mut rendered.text);
        let written = match form {
            Form::Plain if fits(name) => writeln!(out, "{name}").is_ok(),
            Form::Postfix if fits(name) => writeln!(out, "{name}\t{}", value(what, form, measure, policy)).is_ok(),
            Form::Exim => exim_name(name)
                .is_some_and(|name| writeln!(out, "{name}: {}", value(what, form, measure, policy)).is_ok()),
            Form::Plain | Form::Postfix => false,
        };
        rendered.left_out += usize::from(!written);
    }
    rendered
}

/// What stands behind a name.
fn value(what: What, form: Form, measure: &Measure, policy: &Policy) -> String {
    match (what, form) {
        (What::Stopped, Form::Postfix) => policy::action_of(policy, measure),
        (What::Stopped, _) => text::fill(&policy.text, measure, &policy.contact),
        (What::Pulled, _) => text::fill("{incident}", measure, ""),
    }
}

/// A map as rspamd and its like fetch it, name and incident, and how many its mode keeps out.
fn map(standing: &Standing, what: What, hand: Mode, now_ms: i64) -> (String, u64) {
    let (mut out, mut withheld) = (String::new(), 0);
    for measure in standing.all(what.kind(), now_ms).into_iter().filter(|m| fits(&m.subject)) {
        if measure.is_for(hand) {
            let _ = writeln!(out, "{} {}", measure.subject, text::fill("{incident}", measure, ""));
        } else {
            withheld += 1;
        }
    }
    (out, withheld)
}

/// What was last answered, for one map.
#[derive(Debug, Clone, Default)]
struct Last {
    tag: String,
    /// Since when, in Unix seconds; higher with each change, because clients compare whole seconds.
    since_s: u64,
}

/// What the pages share.
#[derive(Clone)]
struct Maps {
    board: Arc<Board>,
    mode: Mode,
    metrics: Arc<Metrics>,
    last: Arc<[Mutex<Last>; 2]>,
}

/// The pages of the maps.
pub(super) fn router(board: Arc<Board>, mode: Mode, metrics: Arc<Metrics>) -> Router {
    let maps = Maps { board, mode, metrics, last: Arc::default() };
    Router::new().route("/v1/maps/stopped", get(stopped)).route("/v1/maps/pulled", get(pulled)).with_state(maps)
}

async fn stopped(State(maps): State<Maps>, headers: HeaderMap) -> Result<Response, Problem> {
    answer(&maps, What::Stopped, &headers)
}

async fn pulled(State(maps): State<Maps>, headers: HeaderMap) -> Result<Response, Problem> {
    answer(&maps, What::Pulled, &headers)
}

fn answer(maps: &Maps, what: What, headers: &HeaderMap) -> Result<Response, Problem> {
    let now_ms = now_ms();
    let found = maps.board.look(|standing| map(standing, what, maps.mode, now_ms));
    let (body, withheld) = found.ok_or_else(unknown)?;
    maps.metrics.hands.lists_withheld.inc_by(withheld);
    let last = note(&maps.last[what as usize], &body, now_ms);
    let changed = UNIX_EPOCH + Duration::from_secs(last.since_s);
    let mut response = if is_known(headers, &last) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
    };
    for (name, value) in [(ETAG, last.tag), (LAST_MODIFIED, httpdate::fmt_http_date(changed))] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

/// Nobody can say yet what is in force.
pub(super) fn unknown() -> Problem {
    let cure = "Ask again in a few seconds; where it stays so, the log says why the desk topic cannot be read.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "it is not known yet what is in force", cure)
}

/// Takes down what is answered now.
fn note(last: &Mutex<Last>, body: &str, now_ms: i64) -> Last {
    let mut tag = String::from("\"");
    for byte in &Sha256::digest(body)[..16] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if last.tag != tag {
        *last = Last { tag, since_s: (now_ms / 1000).unsigned_abs().max(last.since_s + 1) };
    }
    last.clone()
}

/// Whether the client has it already (RFC 9110, section 13.2.2).
fn is_known(headers: &HeaderMap, last: &Last) -> bool {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    if let Some(tags) = text(&IF_NONE_MATCH) {
        return tags.split(',').map(str::trim).any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == last.tag);
    }
    let since = text(&IF_MODIFIED_SINCE).and_then(|t| httpdate::parse_http_date(t).ok());
    since.is_some_and(|t| t >= UNIX_EPOCH + Duration::from_secs(last.since_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relays::hands::tests::measure;

    fn standing() -> Standing {
        let mut standing = Standing::default();
        for (n, name) in ["zoe@x.example", "a b\"c:d@x", "line\nbreak@x", "#x", "ann@x.example"].iter().enumerate() {
            standing.take(measure(&format!("m-{n}"), Kind::Stop, name, 0));
        }
        standing.take(measure("m-9", Kind::Pull, "out-1", 0));
        standing
    }

    #[test]
    fn every_form_is_as_its_reader_wants_it_and_leaves_out_what_it_would_misread() {
        let policy = Policy { text: "case {incident}".to_owned(), ..Policy::default() };
        let list = |what, form, mode| FileList { what, form, mode, ..FileList::default() };
        let as_form = |what, form| render(&standing(), &list(what, form, Mode::Auto), &policy, 0);
        let plain = Rendered { text: "ann@x.example\nzoe@x.example\n".to_owned(), left_out: 3, withheld: 0 };
        assert_eq!(as_form(What::Stopped, Form::Plain), plain);
        assert_eq!(
            as_form(What::Stopped, Form::Postfix).text,
            "ann@x.example\tDEFER_IF_PERMIT 4.7.1 case i-1\nzoe@x.example\tDEFER_IF_PERMIT 4.7.1 case i-1\n"
        );
        let exim = "\"#x\": case i-1\n\"a b\\\"c:d@x\": case i-1\nann@x.example: case i-1\nzoe@x.example: case i-1\n";
        assert_eq!(as_form(What::Stopped, Form::Exim), Rendered { text: exim.to_owned(), left_out: 1, withheld: 0 });
        assert_eq!(as_form(What::Pulled, Form::Plain).text, "out-1\n");
        let all = "ann@x.example i-1\nzoe@x.example i-1\n".to_owned();
        assert_eq!(map(&standing(), What::Stopped, Mode::Auto, 0), (all, 0));
        assert_eq!(map(&standing(), What::Stopped, Mode::Auto, 600_000).0, "", "all have expired");
        for mode in [Mode::Confirm, Mode::Shadow] {
            let kept_out = render(&standing(), &list(What::Stopped, Form::Plain, mode), &policy, 0);
            assert_eq!(kept_out, Rendered { withheld: 5, ..Rendered::default() });
            assert_eq!(map(&standing(), What::Stopped, mode, 0), (String::new(), 2));
        }
    }

    #[test]
    fn a_client_that_has_it_is_told_so_and_two_changes_in_a_second_are_two() {
        let last = Mutex::default();
        let (first, again, second) = (note(&last, "a", 5_000), note(&last, "a", 9_000), note(&last, "b", 5_900));
        assert_eq!((first.since_s, &again.tag), (5, &first.tag));
        assert!(second.since_s > first.since_s && second.tag != first.tag);
        let headers = |name, value: &str| HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())]);
        let date = |last: &Last| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(last.since_s));
        assert!(is_known(&headers(IF_NONE_MATCH, &format!("\"x\", W/{}", second.tag)), &second));
        assert!(!is_known(&headers(IF_NONE_MATCH, &first.tag), &second));
        assert!(is_known(&headers(IF_MODIFIED_SINCE, &date(&second)), &second));
        assert!(!is_known(&headers(IF_MODIFIED_SINCE, &date(&first)), &second));
        assert!(!is_known(&HeaderMap::new(), &second));
    }
}
