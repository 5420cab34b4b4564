//! Who shared a burst's relays: the events of all partitions, from its first message until the last relay is exposed no more.

use std::collections::BTreeMap;

use rdkafka::Message as _;
use rusqlite::Connection;
use serde::Serialize;

use super::Tell;
use super::burst::Burst;
use super::queue_ids::Own;
use crate::desk::shared::Shared;
use crate::event::{Decoded, Timestamp, decode};
use crate::kafka::FUTURE_MS;
use crate::kafka::look_back::{Bounds, Covered, Stretch, look_back, record_ms};
use crate::relays::measure::{Kind, Measure};
use crate::report::beside::Beside;
use crate::report::extract::harmless;
use crate::report::helpdesk::{Facts, letter};
use crate::report::{Blamed, BystanderRow, Exposure, Options, Shown};

/// So long after a relay is exposed no more an event about a message of that time may still be written, in milliseconds.
const LATE_MS: i64 = 3_600_000;
/// A burst of another account that was flagged so long before may still have been going on, in milliseconds.
const BEFORE_MS: i64 = 86_400_000;
/// Accounts that are not told apart from the innocent beyond that, and pulls that are looked at.
const FLAGGED_MAX: i64 = 100_000;
const PULLS_MAX: i64 = 1_000;
/// Accounts that are counted one by one, over all relays; and those that are listed of one relay.
const COUNTED_MAX: usize = 100_000;
const LISTED_MAX: usize = 50_000;

/// What the index knows about it.
#[derive(Debug)]
pub(super) struct Known {
    burst: Burst,
    flagged: Vec<Box<str>>,
    stopped: Option<Timestamp>,
    /// By relay.
    pulled: BTreeMap<String, Timestamp>,
}

impl Known {
    pub(super) fn of(c: &Connection, id: &str) -> Result<Option<Self>, rusqlite::Error> {
        let Some(burst) = Burst::of(c, id)? else { return Ok(None) };
        // Whoever turned out to be none is innocent.
        let mut flagged = c.prepare_cached(
            "SELECT DISTINCT account FROM incidents WHERE (state = 'open' OR flagged_ms >= ?1)
                AND coalesce(json_extract(json, '$.resolved.as'), '') <> 'not_hijack' LIMIT ?2",
        )?;
        let flagged = flagged.query_map((burst.from.0 - BEFORE_MS, FLAGGED_MAX), |row| row.get::<_, String>(0))?;
        let mut flagged: Vec<Box<str>> = flagged.map(|name| name.map(Box::from)).collect::<Result<_, _>>()?;
        flagged.push(burst.incident.account.as_str().into());
        let mut measures = c.prepare_cached(
            "SELECT json FROM measures WHERE incident = ?1 OR kind = 'pull' ORDER BY n DESC LIMIT ?2",
        )?;
        let measures = measures.query_map((id, PULLS_MAX), |row| row.get::<_, String>(0))?;
        let mut known = Self { burst, flagged, stopped: None, pulled: BTreeMap::new() };
        for json in measures {
            if let Ok(measure) = serde_json::from_str::<Measure>(&json?) {
                known.take(&measure, id);
            }
        }
        Ok(Some(known))
    }

    fn take(&mut self, measure: &Measure, id: &str) {
        let is_done = measure.since_ms.is_some() && measure.state.name() != "shadow" && measure.state.name() != "asked";
        let Some(since) = measure.since_ms.map(Timestamp).filter(|_| is_done) else { return };
        match measure.kind {
            Kind::Stop if measure.incident == id => {
                self.stopped = Some(self.stopped.map_or(since, |known| known.min(since)));
            }
            Kind::Pull if measure.accounts.iter().any(|a| a.incident == id) => {
                let at = self.pulled.entry(measure.subject.clone()).or_insert(since);
                *at = (*at).min(since);
            }
            Kind::Stop | Kind::Pull | Kind::Throttle => {}
        }
    }
}

/// What was found for an incident.
#[derive(Debug)]
pub(super) struct Found {
    head: Head,
    /// By relay, in the order of those in `head`.
    facts: Vec<Facts>,
    /// With the relay's place. A letter is made when it is asked for: kept, it would be most of the memory.
    rows: Vec<(usize, BystanderRow)>,
}

/// What does not depend on the page.
#[derive(Debug, Clone, Serialize)]
struct Head {
    incident: String,
    account: String,
    /// The burst's first message.
    from: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Timestamp>,
    noticed: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped: Option<Timestamp>,
    /// Most recipients of the burst first.
    relays: Vec<Relay>,
    covered: Covered,
}

/// One relay that carried it.
#[derive(Debug, Clone, Serialize)]
struct Relay {
    relay: String,
    from: Timestamp,
    to: Timestamp,
    exposed_s: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pulled: Option<Timestamp>,
    /// Of the burst.
    messages: u64,
    recipients: u64,
    /// Of all others.
    others: Sum,
    /// Accounts beyond what is listed; in the sum.
    left_out: u64,
    /// Messages of accounts that were not counted one by one; in the sum.
    uncounted_messages: u64,
    tenants: Vec<Tenant>,
    tenants_left_out: u64,
    replies: Vec<Reply>,
}

#[derive(Debug, Clone, Serialize)]
struct Sum {
    accounts: u64,
    messages: u64,
    recipients: u64,
    refused: u64,
    deferred: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Tenant {
    tenant: String,
    accounts: u64,
    messages: u64,
    recipients: u64,
    refused: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Reply {
    status: String,
    words: String,
    count: u64,
}

/// One account on one relay.
#[derive(Debug, Clone, Serialize)]
struct Row {
    relay: String,
    account: String,
    tenant: String,
    messages: u64,
    recipients: u64,
    refused: u64,
    deferred: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Timestamp>,
    blamed: Vec<Blamed>,
    blamed_more: u64,
    text: String,
}

/// A page.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    head: Head,
    items: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<usize>,
}

/// Reads.
pub(super) fn read(shared: &Shared, known: Known, tell: &Tell<'_>) -> Result<Found, String> {
    let Known { burst, flagged, stopped, pulled } = known;
    let wanted = |progress| tell(progress) && !shared.is_stopping();
    let bounds = super::bounds(&shared.settings);
    let shown = Shown { bystanders: LISTED_MAX, tenants: 100, ..Options::default().shown };
    let options = Options { bystanders_counted: COUNTED_MAX, shown, ..Options::default() };
    let mut beside = Beside::new(&burst.alerts, (burst.from, burst.to()), flagged, options);
    let own = Own { kafka: &shared.kafka, limits: &shared.events, account: &burst.incident.account, from: burst.from };
    let mut covered = own.events(bounds, &wanted, &mut |event| beside.own(event)).map_err(|e| e.to_string())?;
    if let Some((first, last)) = beside.exposed() {
        let stretch = Stretch {
            partition: None,
            from_ms: first.0.saturating_sub(FUTURE_MS),
            until_ms: Some(last.0.saturating_add(LATE_MS)),
        };
        let left = Bounds { records: bounds.records.saturating_sub(covered.records), ..bounds };
        let all = look_back(&shared.kafka, stretch, left, &wanted, &mut |message| {
            let not_after = record_ms(message).map(|ms| Timestamp(ms.saturating_add(FUTURE_MS)));
            let line = message.payload().unwrap_or_default();
            if let Ok(Decoded::Event(event, _)) = decode(line, &shared.events, not_after) {
                beside.any(&event);
            }
        });
        covered = covered.and(all.map_err(|e| e.to_string())?);
    }
    let noticed = burst.alerts.iter().map(|a| a.ts).min().unwrap_or(burst.incident.flagged);
    let (mut relays, mut rows, mut facts) = (Vec::new(), Vec::new(), Vec::new());
    for mut exposure in beside.finish().rows {
        let pulled = pulled.get(&exposure.relay).copied();
        facts.push(Facts { noticed, stopped, pulled });
        let accounts = exposure.others.rows.len() as u64 + exposure.others.more;
        let others = std::mem::take(&mut exposure.others.rows);
        rows.extend(others.into_iter().map(|o| (relays.len(), o)));
        relays.push(relay(exposure, accounts, pulled));
    }
    let head = Head {
        from: burst.from,
        to: burst.to(),
        incident: burst.incident.id,
        account: burst.incident.account,
        noticed,
        stopped,
        relays,
        covered,
    };
    Ok(Found { head, facts, rows })
}

fn row(relay: &str, o: &BystanderRow, facts: &Facts) -> Row {
    Row {
        relay: relay.to_owned(),
        account: o.account.clone(),
        tenant: o.tenant.clone(),
        messages: o.messages,
        recipients: o.recipients,
        refused: o.refused,
        deferred: o.deferred,
        first: o.span.map(|s| s.0),
        last: o.span.map(|s| s.1),
        blamed: o.blamed.clone(),
        blamed_more: o.blamed_more,
        text: letter(o, facts),
    }
}

fn relay(e: Exposure, accounts: u64, pulled: Option<Timestamp>) -> Relay {
    let sum = &e.others_sum;
    let others = Sum {
        accounts,
        messages: sum.messages,
        recipients: sum.recipients,
        refused: sum.refused,
        deferred: sum.deferred,
    };
    let tenants = e.tenants.rows.into_iter().map(|t| Tenant {
        tenant: t.tenant,
        accounts: t.accounts,
        messages: t.messages,
        recipients: t.recipients,
        refused: t.refused,
    });
    Relay {
        relay: e.relay,
        from: e.span.0,
        to: e.span.1,
        exposed_s: e.exposed_s,
        pulled,
        messages: e.messages,
        recipients: e.recipients,
        others,
        left_out: e.others.more,
        uncounted_messages: e.uncounted_messages,
        tenants: tenants.collect(),
        tenants_left_out: e.tenants.more,
        replies: e.replies.rows.into_iter().map(|((status, words), count)| Reply { status, words, count }).collect(),
    }
}

/// The columns, in order.
const COLUMNS: [&str; 11] =
    ["relay", "account", "tenant", "messages", "recipients", "refused", "deferred", "first", "last", "blamed", "text"];

impl Found {
    fn rows<'a>(&'a self, of: Option<&'a str>) -> impl Iterator<Item = Row> + 'a {
        let place = move |(at, o): &'a (usize, BystanderRow)| {
            let relay = self.head.relays.get(*at)?;
            let wanted = of.is_none_or(|of| of == relay.relay);
            Some((&*relay.relay, o, self.facts.get(*at)?)).filter(|_| wanted)
        };
        self.rows.iter().filter_map(place).map(|(relay, o, facts)| row(relay, o, facts))
    }

    /// So many rows from `after` on, of one relay where one is asked for.
    pub(super) fn answer(&self, of: Option<&str>, after: usize, limit: usize) -> Answer {
        let mut rows = self.rows(of).skip(after);
        let items: Vec<Row> = rows.by_ref().take(limit).collect();
        let next = rows.next().map(|_| after.saturating_add(items.len()));
        Answer { head: self.head.clone(), items, next }
    }

    /// All rows.
    ///
    /// # Errors
    /// Where the library does not write to memory.
    pub(super) fn csv(&self) -> Result<Vec<u8>, csv::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(COLUMNS)?;
        for row in self.rows(None) {
            let moment = |ts: Option<Timestamp>| ts.map(|ts| ts.to_string()).unwrap_or_default();
            let blamed: Vec<String> =
                row.blamed.iter().map(|b| format!("{} {}: {}", b.receiver, b.count, b.words)).collect();
            writer.write_record([
                harmless(&row.relay),
                harmless(&row.account),
                harmless(&row.tenant),
                row.messages.to_string(),
                row.recipients.to_string(),
                row.refused.to_string(),
                row.deferred.to_string(),
                moment(row.first),
                moment(row.last),
                harmless(&blamed.join("; ")),
                harmless(&row.text),
            ])?;
        }
        writer.into_inner().map_err(|e| e.into_error().into())
    }
}
