//! Questions to the index: pages of incidents and alerts, newest or oldest first, with a cursor.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::desk::in_time::Moments;
use crate::desk::notice::Said;
use crate::desk::record::Incident;
use crate::desk::webhook::grouping::{Group, Holds};
use crate::desk::webhook::record::DeliveryRecord;
use crate::relays::decide::Hold;

/// Things on a page, at most.
pub const PAGE_MAX: u32 = 1000;
const PAGE: u32 = 100;

/// Which incidents. What is absent is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Incidents {
    /// `open` or `over`.
    pub state: Option<String>,
    /// `warning` or `critical`.
    pub severity: Option<String>,
    /// The account, by any of its names.
    pub account: Option<String>,
    /// The customer.
    pub tenant: Option<String>,
    /// Of this campaign.
    pub campaign: Option<String>,
    /// Flagged in this anomaly.
    pub anomaly: Option<String>,
    /// Whether somebody looks after it.
    pub acknowledged: Option<bool>,
    /// Whether it was said what it was.
    pub resolved: Option<bool>,
    /// Those that began before this cursor: pages go from the newest to the oldest.
    pub before: Option<i64>,
    /// How many; 100.
    pub limit: Option<u32>,
}

/// Which alerts. What is absent is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerts {
    /// Those whose number is larger: pages go from the oldest to the newest, so that a reader can follow.
    pub after: Option<i64>,
    /// Of this incident.
    pub incident: Option<String>,
    /// Of this account, as folded.
    pub account: Option<String>,
    /// Of this kind.
    pub kind: Option<String>,
    /// `warning` or `critical`.
    pub severity: Option<String>,
    /// How many; 100.
    pub limit: Option<u32>,
}

/// Which deliveries. What is absent is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deliveries {
    /// To this endpoint.
    pub endpoint: Option<String>,
    /// `pending`, `delivered` or `dead`.
    pub state: Option<String>,
    /// Of this incident.
    pub incident: Option<String>,
    /// With this webhook id.
    pub id: Option<String>,
    /// Those before this cursor: pages go from the newest to the oldest.
    pub before: Option<i64>,
    /// How many; 100.
    pub limit: Option<u32>,
}

/// Which decisions. What is absent is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decisions {
    /// `account`, `tenant`, `domain` or `network`.
    pub scope: Option<String>,
    /// About which one, as folded.
    pub name: Option<String>,
    /// Of this incident.
    pub incident: Option<String>,
    /// Whether they stand at this moment, or will.
    pub standing: Option<bool>,
    /// Those made before this cursor: pages go from the newest to the oldest.
    pub before: Option<i64>,
    /// How many; 100.
    pub limit: Option<u32>,
}

/// Which lines of the audit. What is absent is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Audit {
    /// Of this person or program.
    pub who: Option<String>,
    /// What was done.
    pub what: Option<String>,
    /// About this incident.
    pub incident: Option<String>,
    /// About this account, as folded.
    pub account: Option<String>,
    /// Those before this cursor: pages go from the newest to the oldest.
    pub before: Option<i64>,
    /// How many; 100.
    pub limit: Option<u32>,
}

/// Which measures. What is absent is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Measures {
    /// `stop`, `throttle` or `pull`.
    pub kind: Option<String>,
    /// `shadow`, `asked`, `in_force` or `ended`.
    pub state: Option<String>,
    /// Of this customer.
    pub tenant: Option<String>,
    /// About this account, as folded.
    pub account: Option<String>,
    /// About this relay.
    pub relay: Option<String>,
    /// Of this incident.
    pub incident: Option<String>,
    /// Whether they have not ended yet.
    pub open: Option<bool>,
    /// Those made before this cursor: pages go from the newest to the oldest.
    pub before: Option<i64>,
    /// How many; 100.
    pub limit: Option<u32>,
}

/// Which listings. What is absent is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listings {
    /// Of this relay.
    pub relay: Option<String>,
    /// By this list.
    pub zone: Option<String>,
    /// Whether they stand.
    pub standing: Option<bool>,
    /// Those heard before this cursor: pages go from the newest to the oldest.
    pub before: Option<i64>,
    /// How many; 100.
    pub limit: Option<u32>,
}

/// A page.
#[derive(Debug, Serialize)]
pub struct Page {
    /// What was asked for.
    pub items: Vec<Box<RawValue>>,
    /// The cursor of the next page; absent where this is the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// An incident, its alerts as they were written, and its moments.
#[derive(Debug, Serialize)]
pub struct Whole {
    pub(super) incident: Box<RawValue>,
    pub(super) alerts: Vec<Box<RawValue>>,
    pub(super) moments: Option<Moments>,
}

/// A page of one of the tables. `wanted`: column, comparison, value, which stands behind them or where a `?` is.
fn page(
    c: &Connection,
    table: &str,
    order: &str,
    wanted: Vec<(&str, Value)>,
    limit: Option<u32>,
) -> Result<Page, rusqlite::Error> {
    let limit = limit.unwrap_or(PAGE).clamp(1, PAGE_MAX) as usize;
    let clause = |(i, (clause, _)): (usize, &(&str, Value))| match clause.split_once('?') {
        Some((before, behind)) => format!("{before}?{}{behind}", i + 1),
        None => format!("{clause} ?{}", i + 1),
    };
    let clauses: Vec<String> = wanted.iter().enumerate().map(clause).collect();
    let filter = if clauses.is_empty() { String::new() } else { format!(" WHERE {}", clauses.join(" AND ")) };
    // One more than asked for says whether there is a next page.
    let sql = format!("SELECT n, json FROM {table}{filter} ORDER BY n {order} LIMIT {}", limit + 1);
    let mut statement = c.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(wanted.into_iter().map(|(_, value)| value)))?;
    let (mut items, mut last, mut next) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        if items.len() == limit {
            next = Some(last);
            break;
        }
        last = row.get(0)?;
        items.push(raw(row.get(1)?)?);
    }
    Ok(Page { items, next })
}

fn raw(json: String) -> Result<Box<RawValue>, rusqlite::Error> {
    RawValue::from_string(json)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(e)))
}

fn clauses<const N: usize>(texts: [(&'static str, &Option<String>); N]) -> Vec<(&'static str, Value)> {
    texts.into_iter().filter_map(|(clause, text)| Some((clause, Value::Text(text.clone()?)))).collect()
}

/// A page of incidents, newest first; `accounts` are all names of the one that is asked for.
///
/// # Errors
/// Where the index cannot be read.
pub fn incidents(c: &Connection, q: &Incidents, accounts: &[String]) -> Result<Page, rusqlite::Error> {
    let mut wanted = clauses([
        ("state =", &q.state),
        ("severity =", &q.severity),
        ("tenant =", &q.tenant),
        ("json_extract(json, '$.campaign') =", &q.campaign),
        ("json_extract(json, '$.anomaly') =", &q.anomaly),
    ]);
    if !accounts.is_empty() {
        // One parameter, so that there is one statement.
        let names = serde_json::Value::from(accounts).to_string();
        wanted.push(("account IN (SELECT value FROM json_each(?))", Value::Text(names)));
    }
    let has = |clause, is: Option<bool>| is.map(|is| (clause, Value::Integer(is.into())));
    wanted.extend(has("(json_extract(json, '$.acknowledged') IS NOT NULL) =", q.acknowledged));
    wanted.extend(has("(json_extract(json, '$.resolved') IS NOT NULL) =", q.resolved));
    wanted.extend(q.before.map(|n| ("n <", Value::Integer(n))));
    page(c, "incidents", "DESC", wanted, q.limit)
}

/// A page of alerts, oldest first.
///
/// # Errors
/// Where the index cannot be read.
pub fn alerts(c: &Connection, q: &Alerts) -> Result<Page, rusqlite::Error> {
    let mut wanted = clauses([
        ("incident =", &q.incident),
        ("account =", &q.account),
        ("kind =", &q.kind),
        ("severity =", &q.severity),
    ]);
    wanted.extend(q.after.map(|n| ("n >", Value::Integer(n))));
    page(c, "alerts", "ASC", wanted, q.limit)
}

/// A page of deliveries, newest first.
///
/// # Errors
/// Where the index cannot be read.
pub fn deliveries(c: &Connection, q: &Deliveries) -> Result<Page, rusqlite::Error> {
    let mut wanted =
        clauses([("endpoint =", &q.endpoint), ("state =", &q.state), ("incident =", &q.incident), ("id =", &q.id)]);
    wanted.extend(q.before.map(|n| ("n <", Value::Integer(n))));
    page(c, "deliveries", "DESC", wanted, q.limit)
}

/// A page of decisions, newest first; `now_ms` says which stand.
///
/// # Errors
/// Where the index cannot be read.
pub fn decisions(c: &Connection, q: &Decisions, now_ms: i64) -> Result<Page, rusqlite::Error> {
    let mut wanted = clauses([("scope =", &q.scope), ("name =", &q.name), ("incident =", &q.incident)]);
    let standing = q.standing.map(|standing| if standing { "until_ms >" } else { "until_ms <=" });
    wanted.extend(standing.map(|clause| (clause, Value::Integer(now_ms))));
    wanted.extend(q.before.map(|n| ("n <", Value::Integer(n))));
    page(c, "decisions", "DESC", wanted, q.limit)
}

/// One decision; `None` where it is not known.
///
/// # Errors
/// Where the index cannot be read.
pub fn decision(c: &Connection, id: &str) -> Result<Option<Box<RawValue>>, rusqlite::Error> {
    let found: Option<String> =
        c.prepare_cached("SELECT json FROM decisions WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()?;
    found.map(raw).transpose()
}

/// Measures, each with the last call of every hook for each verb.
const MEASURES: &str =
    "(SELECT n, id, kind, subject, incident, state, until_ms, json_extract(json, '$.tenant') AS tenant,
    json_set(json, '$.hooks', json((SELECT json_group_array(json_object('hook', c.hook, 'verb', c.verb,
        'stage', c.json ->> 'stage', 'attempts', c.json ->> 'attempts', 'at_ms', c.json ->> 'at_ms',
        'not_before_ms', c.json ->> 'not_before_ms', 'said', c.json ->> 'said'))
        FROM calls AS c WHERE c.measure = measures.id))) AS json FROM measures)";

/// A page of measures, newest first; `now_ms` says which have expired.
///
/// # Errors
/// Where the index cannot be read.
pub fn measures(c: &Connection, q: &Measures, now_ms: i64) -> Result<Page, rusqlite::Error> {
    let mut wanted =
        clauses([("kind =", &q.kind), ("state =", &q.state), ("incident =", &q.incident), ("subject =", &q.account)]);
    wanted.extend(clauses([("subject =", &q.relay), ("tenant =", &q.tenant)]));
    // One that has ended is over from 0 on, whatever its longest time was.
    let until = "(CASE state WHEN 'ended' THEN 0 ELSE until_ms END)";
    let (after, before) = (format!("{until} >"), format!("{until} <="));
    let clause = q.open.map(|open| if open { &*after } else { &*before });
    wanted.extend(clause.map(|clause| (clause, Value::Integer(now_ms))));
    wanted.extend(q.before.map(|n| ("n <", Value::Integer(n))));
    page(c, MEASURES, "DESC", wanted, q.limit)
}

/// One measure; `None` where it is not known.
///
/// # Errors
/// Where the index cannot be read.
pub fn measure(c: &Connection, id: &str) -> Result<Option<Box<RawValue>>, rusqlite::Error> {
    let found: Option<String> = c
        .prepare_cached(&format!("SELECT json FROM {MEASURES} WHERE id = ?1"))?
        .query_row([id], |row| row.get(0))
        .optional()?;
    found.map(raw).transpose()
}

/// Who holds pulls off at `now_ms`, in milliseconds since 1970; `None` where nobody does.
///
/// # Errors
/// Where the index cannot be read.
pub fn hold(c: &Connection, now_ms: i64) -> Result<Option<Hold>, rusqlite::Error> {
    let found: Option<String> =
        c.prepare_cached("SELECT json FROM hold")?.query_row([], |row| row.get(0)).optional()?;
    let hold: Option<Hold> = found.map(read).transpose()?;
    Ok(hold.filter(|hold| now_ms < hold.until_ms))
}

/// A page of listings, newest first.
///
/// # Errors
/// Where the index cannot be read.
pub fn listings(c: &Connection, q: &Listings) -> Result<Page, rusqlite::Error> {
    let mut wanted = clauses([("relay =", &q.relay), ("zone =", &q.zone)]);
    wanted.extend(q.standing.map(|standing| ("(until_ms IS NULL) =", Value::Integer(standing.into()))));
    wanted.extend(q.before.map(|n| ("n <", Value::Integer(n))));
    page(c, "listings", "DESC", wanted, q.limit)
}

/// A page of the audit, newest first.
///
/// # Errors
/// Where the index cannot be read.
pub fn audit(c: &Connection, q: &Audit) -> Result<Page, rusqlite::Error> {
    let mut wanted =
        clauses([("who =", &q.who), ("what =", &q.what), ("incident =", &q.incident), ("account =", &q.account)]);
    wanted.extend(q.before.map(|n| ("n <", Value::Integer(n))));
    page(c, "audit", "DESC", wanted, q.limit)
}

/// One incident, and its alerts as they were written; `None` where it is not known.
///
/// # Errors
/// Where the index cannot be read.
pub fn incident(c: &Connection, id: &str) -> Result<Option<Whole>, rusqlite::Error> {
    let found: Option<String> =
        c.prepare_cached("SELECT json FROM incidents WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()?;
    let Some(found) = found else { return Ok(None) };
    let alerts = alerts(c, &Alerts { incident: Some(id.to_owned()), limit: Some(PAGE_MAX), ..Alerts::default() })?;
    Ok(Some(Whole { incident: raw(found)?, alerts: alerts.items, moments: None }))
}

/// One incident as it was recorded, and the first of what was said of it, in its order; `None` where it is not known.
///
/// # Errors
/// Where the index cannot be read.
pub fn said_of(c: &Connection, id: &str) -> Result<Option<(Incident, Vec<Said>)>, rusqlite::Error> {
    let found: Option<String> =
        c.prepare_cached("SELECT json FROM incidents WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()?;
    let Some(found) = found else { return Ok(None) };
    let mut statement = c.prepare_cached("SELECT json FROM alerts WHERE incident = ?1 ORDER BY n LIMIT ?2")?;
    let said = statement.query_map((id, PAGE_MAX), |row| row.get(0))?;
    let said: Vec<Said> = said.map(|json| read(json?)).collect::<Result<_, _>>()?;
    Ok(Some((read(found)?, said)))
}

fn read<T: serde::de::DeserializeOwned>(json: String) -> Result<T, rusqlite::Error> {
    serde_json::from_str(&json)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e)))
}

/// A message as it was recorded: where it stands, what it is made of, its alerts. `None` where it is not known.
///
/// # Errors
/// Where the index cannot be read.
pub fn message(c: &Connection, endpoint: &str, id: &str) -> Result<Option<Message>, rusqlite::Error> {
    let found: Option<(String, String)> = c
        .prepare_cached(
            "SELECT d.json, g.json FROM deliveries d JOIN groups g USING (endpoint, id)
                WHERE d.endpoint = ?1 AND d.id = ?2",
        )?
        .query_row([endpoint, id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((delivery, group)) = found else { return Ok(None) };
    let (delivery, group): (DeliveryRecord, Group) = (read(delivery)?, read(group)?);
    let mut alerts = Vec::new();
    if let Holds::Incident { alerts: ids, .. } = &group.holds {
        let mut statement = c.prepare_cached("SELECT json FROM alerts WHERE id = ?1")?;
        for id in ids {
            let json: Option<String> = statement.query_row([id], |row| row.get(0)).optional()?;
            alerts.extend(json.map(read::<Said>).transpose()?);
        }
    }
    Ok(Some(Message { delivery, group, alerts }))
}

/// A message as it was recorded.
#[derive(Debug)]
pub struct Message {
    /// Where it stands.
    pub delivery: DeliveryRecord,
    /// What it is made of.
    pub group: Group,
    /// Its alerts.
    pub alerts: Vec<Said>,
}
