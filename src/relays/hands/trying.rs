//! Who is stopped and still tries to send, and the page that shows it. The counting is pure; the time is an argument.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use hashbrown::HashMap;
use serde::Serialize;

use super::policy::Desk;
use crate::telemetry::http::Problem;

use crate::event::Timestamp;
use crate::relays::measure::Measure;

/// Accounts that are remembered.
const ACCOUNTS_MAX: usize = 10_000;
/// Bytes of an address; a longer one is cut.
const CLIENT_BYTES_MAX: usize = 64;
/// Accounts that the page shows.
const SHOWN_MAX: usize = 1000;

/// What a stopped account has tried since it was stopped, at this instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attempts {
    /// The account as folded.
    pub account: String,
    /// The measure.
    pub measure: String,
    /// The incident that it is stopped for.
    pub incident: String,
    /// Recipients, or messages without one, that were refused, held or sent elsewhere.
    pub refused: u64,
    /// The first.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
    /// Where the last one came from, as Postfix says it.
    pub client: String,
}

/// Attempts by account.
#[derive(Debug, Default)]
pub(super) struct Trying {
    accounts: HashMap<Box<str>, Attempts>,
}

impl Trying {
    /// Counts one. Where there are too many accounts, the one that has been quiet for longest is forgotten.
    pub(super) fn count(&mut self, measure: &Measure, client: &str, now_ms: i64) {
        let client: String = client.chars().filter(char::is_ascii_graphic).take(CLIENT_BYTES_MAX).collect();
        let known = self.accounts.get_mut(&*measure.subject).filter(|a| a.measure == measure.id);
        if let Some(attempts) = known {
            attempts.refused += 1;
            attempts.last = attempts.last.max(Timestamp(now_ms));
            attempts.client = client;
            return;
        }
        if self.accounts.len() >= ACCOUNTS_MAX && !self.accounts.contains_key(&*measure.subject) {
            let quietest = self.accounts.iter().min_by_key(|(_, a)| a.last).map(|(account, _)| account.clone());
            quietest.map(|account| self.accounts.remove(&account));
        }
        let attempts = Attempts {
            account: measure.subject.clone(),
            measure: measure.id.clone(),
            incident: measure.incident.clone(),
            refused: 1,
            first: Timestamp(now_ms),
            last: Timestamp(now_ms),
            client,
        };
        self.accounts.insert(measure.subject.as_str().into(), attempts);
    }

    /// All, the last to try first.
    pub(super) fn all(&self) -> Vec<Attempts> {
        let mut all: Vec<_> = self.accounts.values().cloned().collect();
        all.sort_by(|a, b| b.last.cmp(&a.last).then_with(|| a.account.cmp(&b.account)));
        all
    }
}

/// The page of those whose stop is in force.
#[derive(Serialize)]
struct Page {
    accounts: usize,
    items: Vec<Attempts>,
}

/// The page's route.
pub(super) fn router(desk: Arc<Desk>) -> Router {
    Router::new().route("/v1/trying", get(trying)).with_state(desk)
}

async fn trying(State(desk): State<Arc<Desk>>) -> Result<Response, Problem> {
    let mut items = desk.still_trying().ok_or_else(super::lists::unknown)?;
    let accounts = items.len();
    items.truncate(SHOWN_MAX);
    Ok(Json(Page { accounts, items }).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relays::hands::tests::measure;
    use crate::relays::measure::Kind;

    #[test]
    fn attempts_are_counted_by_stop_and_the_quietest_gives_way() {
        let mut trying = Trying::default();
        let stop = |n: usize| measure(&format!("m-{n}"), Kind::Stop, &format!("a{n}"), 0);
        for n in 0..ACCOUNTS_MAX {
            trying.count(&stop(n), "192.0.2.1", n as i64);
        }
        trying.count(&stop(0), "192.0.2.2\n", 50_000);
        trying.count(&stop(ACCOUNTS_MAX), "", 50_001);
        let all = trying.all();
        assert_eq!(all.len(), ACCOUNTS_MAX);
        assert_eq!((&*all[1].account, all[1].refused, &*all[1].client), ("a0", 2, "192.0.2.2"));
        assert!(all.iter().all(|a| a.account != "a1"), "it was quiet for longest");
        trying.count(&measure("m-again", Kind::Stop, "a0", 0), "", 60_000);
        assert_eq!((trying.all()[0].refused, trying.all()[0].first), (1, Timestamp(60_000)));
    }
}
