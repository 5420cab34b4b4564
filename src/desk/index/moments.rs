//! The moments of an incident, out of what the index has of its account and of the relays that carried its burst.

use rusqlite::{Connection, params};
use serde::de::DeserializeOwned;

use super::query::{self, Whole};
use crate::desk::in_time::{OfRelay, SPAN_MS, moments};
use crate::desk::record::Incident;
use crate::relays::Settings;
use crate::relays::listing::record::Watched;
use crate::relays::measure::Kind;

/// Relays of one burst, and records of one relay, that are looked at.
const RELAYS_MAX: usize = 64;
const RECORDS_MAX: usize = 256;

/// One incident with its alerts and its moments; `None` where it is not known.
///
/// # Errors
/// Where the index cannot be read.
pub fn whole(c: &Connection, id: &str, settings: &Settings, now_ms: i64) -> Result<Option<Whole>, rusqlite::Error> {
    let Some(mut whole) = query::incident(c, id)? else { return Ok(None) };
    // One that a newer program wrote may have no moments that this one knows.
    if let Ok(incident) = serde_json::from_str::<Incident>(whole.incident.get()) {
        let measures = about(c, "incident", &incident.id)?;
        let shares = incident.relays.iter().take(RELAYS_MAX);
        let relays =
            shares.map(|share| of_relay(c, &share.relay, settings, &incident)).collect::<Result<Vec<_>, _>>()?;
        whole.moments = Some(moments(&incident, &measures, &relays, now_ms));
    }
    Ok(Some(whole))
}

fn of_relay(c: &Connection, host: &str, settings: &Settings, incident: &Incident) -> Result<OfRelay, rusqlite::Error> {
    let mut of = OfRelay { host: host.to_owned(), ..OfRelay::default() };
    let Some((_, member)) = settings.by_host(host) else { return Ok(of) };
    of.relay = Some(member.relay.clone());
    of.pulls = about(c, "subject", &member.relay)?;
    of.pulls.retain(|m: &crate::relays::measure::Measure| m.kind == Kind::Pull);
    // Of listings those that stood then, and those of the day after; the newest of them would be those of today.
    let first_ms = incident.first.unwrap_or(incident.flagged).0;
    let mut statement = c.prepare_cached(
        "SELECT json FROM listings WHERE relay = ?1 AND (until_ms IS NULL OR until_ms >= ?2)
            AND json_extract(json, '$.since') <= ?3 ORDER BY n LIMIT ?4",
    )?;
    let until = crate::event::Timestamp(first_ms.saturating_add(SPAN_MS)).to_string();
    of.listings = read(statement.query_map(params![member.relay, first_ms, until, RECORDS_MAX as i64], text)?)?;
    let mut statement = c.prepare_cached("SELECT json FROM watched WHERE relay = ?1")?;
    let watched: Vec<Watched> = read(statement.query_map([&member.relay], text)?)?;
    of.spans = watched.into_iter().flat_map(|w| w.spans).collect();
    Ok(of)
}

fn about<T: DeserializeOwned>(c: &Connection, column: &str, name: &str) -> Result<Vec<T>, rusqlite::Error> {
    let sql = format!("SELECT json FROM measures WHERE {column} = ?1 ORDER BY n DESC LIMIT ?2");
    let mut statement = c.prepare_cached(&sql)?;
    let rows = statement.query_map(params![name, RECORDS_MAX as i64], text)?;
    read(rows)
}

fn text(row: &rusqlite::Row<'_>) -> Result<String, rusqlite::Error> {
    row.get(0)
}

/// What can be read; a record of a newer program is passed over.
fn read<T: DeserializeOwned>(
    rows: impl Iterator<Item = Result<String, rusqlite::Error>>,
) -> Result<Vec<T>, rusqlite::Error> {
    let mut found = Vec::new();
    for json in rows {
        found.extend(serde_json::from_str(&json?).ok());
    }
    Ok(found)
}
