//! What the index knows of an incident's burst: whose, since when, until when.

use rusqlite::Connection;

use crate::core::alert::Alert;
use crate::desk::index::query;
use crate::desk::notice::Said;
use crate::desk::record::Incident;
use crate::event::Timestamp;

/// One burst.
#[derive(Debug, Clone)]
pub(super) struct Burst {
    pub(super) incident: Incident,
    /// The detector's alerts, in their order.
    pub(super) alerts: Vec<Alert>,
    /// Its first message.
    pub(super) from: Timestamp,
}

impl Burst {
    /// Of an incident; `None` where there is none.
    pub(super) fn of(c: &Connection, id: &str) -> Result<Option<Self>, rusqlite::Error> {
        let Some((incident, said)) = query::said_of(c, id)? else { return Ok(None) };
        let account = |said| match said {
            Said::Account(alert) => Some(*alert),
            Said::Fleet(_) => None,
        };
        let alerts: Vec<Alert> = said.into_iter().filter_map(account).collect();
        let first = |a: &Alert| a.burst.as_ref().map_or(a.ts, |b| b.first_ts.min(a.ts));
        let from = alerts.iter().map(first).min().unwrap_or(incident.flagged).min(incident.flagged);
        Ok(Some(Self { incident, alerts, from }))
    }

    /// Its end, where it has one.
    pub(super) fn to(&self) -> Option<Timestamp> {
        self.incident.cleared
    }
}
