//! The body of Standard Webhooks: `{"type", "timestamp", "data"}`, and `"truncated": true` where something did not fit.
//!
//! `data` is the alert (`schemas/alert.schema.json`); for `grouped` the incident as it stands, a [`super::storm::Storm`], or the
//! [`super::storm::Row`] of many storms that are over; for `digest` the [`super::digest::Digest`].
//! Beside it, for an account that the directory knows, `customer` is what that said when the incident began
//! ([`crate::directory::Facts`]); its `tenant` is then that of the incident, whatever the alert's is.

use serde_json::{Map, Value, json};

use crate::core::alert::Alert;

use super::body::{Message, What};
use super::text::cut_json;

/// The body, of at most `bytes_max` bytes (not less than [`super::settings::BODY_BYTES_MIN`]).
pub(super) fn render(message: &Message, bytes_max: usize) -> Result<Vec<u8>, serde_json::Error> {
    let whole = encode(message, false)?;
    if whole.len() <= bytes_max {
        return Ok(whole);
    }
    let mut cut = message.clone();
    for step in STEPS {
        step(&mut cut);
        let body = encode(&cut, true)?;
        if body.len() <= bytes_max {
            return Ok(body);
        }
    }
    // Of everything the least: what it is about.
    let (mut kind, mut incident) = (message.kind.clone(), message.incident.clone());
    cut_json(&mut kind, 200);
    cut_json(&mut incident, 400);
    let data = json!({ "incident": incident, "severity": message.severity });
    let least = json!({ "type": kind, "timestamp": message.at, "truncated": true, "data": data });
    serde_json::to_vec(&least)
}

fn encode(message: &Message, truncated: bool) -> Result<Vec<u8>, serde_json::Error> {
    let mut body = Map::new();
    body.insert("type".into(), json!(message.kind));
    body.insert("timestamp".into(), serde_json::to_value(message.at)?);
    if truncated {
        body.insert("truncated".into(), Value::Bool(true));
    }
    body.insert("data".into(), data(message)?);
    if let Some(customer) = &message.customer {
        body.insert("customer".into(), serde_json::to_value(customer)?);
    }
    serde_json::to_vec(&body)
}

fn data(message: &Message) -> Result<Value, serde_json::Error> {
    Ok(match &message.what {
        What::Alert(alert) => serde_json::to_value(alert)?,
        What::Incident(incident) => json!({
            "incident": message.incident,
            "account": incident.account,
            "tenant": incident.tenant,
            "severity": message.severity,
            "state": incident.state,
            "alerts": incident.alerts,
            "counts": incident.counts,
            "link": message.link,
        }),
        What::Storm(storm) => {
            let mut data = serde_json::to_value(storm)?;
            data["severity"] = serde_json::to_value(message.severity)?;
            data["link"] = json!(message.link);
            data
        }
        What::StormOver(row) => {
            let mut data = serde_json::to_value(row)?;
            data["severity"] = serde_json::to_value(message.severity)?;
            data["link"] = json!(message.link);
            data
        }
        What::Digest(digest) => {
            let mut data = serde_json::to_value(digest)?;
            data["link"] = json!(message.link);
            data
        }
        What::Other { summary, state, data } => json!({
            "incident": message.incident,
            "severity": message.severity,
            "state": state,
            "summary": summary,
            "details": data,
            "link": message.link,
        }),
    })
}

/// One after the other, until it fits: what is missed least goes first. What the schema wants of an alert stays: one piece of
/// evidence, for example.
const STEPS: &[fn(&mut Message)] = &[
    |m| each(m, |alert| burst(alert, 0, usize::MAX)),
    |m| each(m, |alert| alert.evidence.truncate(2)),
    |m| each(m, |alert| alert.evidence.truncate(1)),
    |m| each(m, |alert| alert.evidence.iter_mut().for_each(|e| cut_json(&mut e.text, 300))),
    |m| {
        if let What::Incident(incident) = &mut m.what {
            incident.alerts.drain(..incident.alerts.len().saturating_sub(2));
        }
        if let What::Other { data, .. } = &mut m.what {
            *data = Value::Null;
        }
    },
    |m| m.customer = None,
    |m| names(m, 400),
    |m| each(m, |alert| burst(alert, 0, 3)),
    |m| {
        each(m, |alert| alert.relays.truncate(5));
        if let What::Incident(incident) = &mut m.what {
            incident.alerts.drain(..incident.alerts.len().saturating_sub(1));
        }
        if let What::Storm(storm) = &mut m.what {
            storm.top.truncate(3);
        }
        if let What::Digest(digest) = &mut m.what {
            digest.top.truncate(3);
            let rest = digest.tenants.split_off(digest.tenants.len().min(5));
            digest.other_tenants += rest.iter().map(|share| share.critical + share.warning).sum::<u64>();
        }
    },
    |m| {
        names(m, 120);
        each(m, |alert| {
            alert.relays.truncate(1);
            alert.evidence.iter_mut().for_each(|e| cut_json(&mut e.text, 120));
            burst(alert, 0, 0);
        });
        if m.link.len() > 300 {
            // A link that is cut leads elsewhere.
            m.link.clear();
        }
    },
];

fn each(message: &mut Message, change: impl Fn(&mut Alert)) {
    match &mut message.what {
        What::Alert(alert) => change(alert),
        What::Incident(incident) => incident.alerts.iter_mut().for_each(change),
        What::Storm(_) | What::StormOver(_) | What::Digest(_) | What::Other { .. } => {}
    }
}

fn burst(alert: &mut Alert, queue_ids: usize, others: usize) {
    if let Some(burst) = &mut alert.burst {
        burst.queue_ids.truncate(queue_ids);
        burst.client_ips.truncate(others);
        burst.top_domains.truncate(others);
        burst.contents.truncate(others);
        burst.new_recipient_fingerprints.truncate(others);
    }
}

/// Cuts what others named.
fn names(message: &mut Message, bytes_max: usize) {
    each(message, |alert| {
        for text in [&mut alert.account, &mut alert.tenant, &mut alert.by] {
            cut_json(text, bytes_max);
        }
        alert.relays.iter_mut().for_each(|share| cut_json(&mut share.relay, bytes_max));
        if let Some(burst) = &mut alert.burst {
            burst.top_domains.iter_mut().for_each(|share| cut_json(&mut share.domain, bytes_max));
            burst.client_ips.iter_mut().for_each(|ip| cut_json(ip, bytes_max));
        }
    });
    match &mut message.what {
        What::Alert(_) | What::StormOver(_) => {}
        What::Incident(incident) => {
            cut_json(&mut incident.account, bytes_max);
            cut_json(&mut incident.tenant, bytes_max);
        }
        What::Storm(storm) => storm.top.iter_mut().for_each(|top| {
            cut_json(&mut top.account, bytes_max);
            cut_json(&mut top.tenant, bytes_max);
        }),
        What::Digest(digest) => {
            digest.top.iter_mut().for_each(|worst| {
                cut_json(&mut worst.account, bytes_max);
                cut_json(&mut worst.tenant, bytes_max);
            });
            digest.tenants.iter_mut().for_each(|share| cut_json(&mut share.tenant, bytes_max));
        }
        What::Other { summary, .. } => cut_json(summary, 3 * bytes_max),
    }
}
