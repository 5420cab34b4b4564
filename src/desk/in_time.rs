//! *Were we in time?* The moments of an incident, and whether the relays that carried its burst were out before a blocklist named
//! them. Pure.
//!
//! Of one relay the answer is
//!
//! * **yes**, where no list named it between the first send of the burst and [`SPAN_MS`] later, and at least one list was asked over
//!   all of that time; or where it had been pulled when a list last said that it is not listed.
//! * **no**, where a list named it in that time, and it was not pulled when that was heard.
//! * **unknown** otherwise: the day is not over, nobody asked, or it was pulled between the last answer that said *not listed* and
//!   the first that said *listed*.
//!
//! Of an incident it is *no* where it is so of one relay, else *unknown* where it is so of one, else *yes*. Lists name an address
//! within minutes to hours of what reached their traps; what they do a day later has mostly another cause, so the time is a day.

use serde::Serialize;

use super::feedback::record::Resolution;
use super::record::Incident;
use crate::event::Timestamp;
use crate::relays::listing::record::{Listing, Span};
use crate::relays::measure::{Kind, Measure, State};

/// For so long after the first send of a burst a listing is held to be its doing, in milliseconds.
pub const SPAN_MS: i64 = 86_400_000;

/// Whether relays were out before they were listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InTime {
    /// They were, or were not listed.
    Yes,
    /// They were not.
    No,
    /// Nobody can say.
    Unknown,
}

impl InTime {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// What is known about one relay that carried a burst.
#[derive(Debug, Clone, Default)]
pub struct OfRelay {
    /// What events call it.
    pub host: String,
    /// Its name in its pool; `None` where no pool has it.
    pub relay: Option<String>,
    /// Its pulls, in any order.
    pub pulls: Vec<Measure>,
    /// Its listings, in any order.
    pub listings: Vec<Listing>,
    /// When lists were asked for it.
    pub spans: Vec<Span>,
}

/// When something was decided, and when it was done. What is absent has not happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Where it stands.
    pub state: State,
    /// When it was decided.
    pub decided: Timestamp,
    /// Since when it is or was in force: served by the hands. Absent in shadow, and while a person is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_force: Option<Timestamp>,
    /// When a hook or an outside system said that it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Timestamp>,
}

/// One listing of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Which of its addresses.
    pub address: std::net::IpAddr,
    /// The list.
    pub zone: String,
    /// When the list last said that it is not listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean: Option<Timestamp>,
    /// When its listing was heard.
    pub since: Timestamp,
    /// When its end was heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The moments of one relay that carried a burst.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RelayMoments {
    /// What events call it.
    pub host: String,
    /// Its name in its pool; absent where no pool has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// Recipients of the burst that it carried.
    pub recipients: u64,
    /// The pull that tells: the one that was in force first, else the first that was decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull: Option<Done>,
    /// What lists said of it from the first send on, for a day; the first one first.
    pub listings: Vec<Named>,
    /// Whether it was out in time.
    pub in_time: InTime,
    /// Why that is the answer.
    pub why: &'static str,
}

/// The moments of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moments {
    /// Event time of the first send of its burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_spam: Option<Timestamp>,
    /// Event time of its flag.
    pub flagged: Timestamp,
    /// When the desk took the flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<Timestamp>,
    /// The stop of its account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Done>,
    /// The relays that carried its burst.
    pub relays: Vec<RelayMoments>,
    /// Whether all of them were out in time.
    pub in_time: InTime,
    /// Why that is the answer.
    pub why: &'static str,
}

/// Whether what an incident put on relays is held against it: nobody said that it is none.
pub fn is_hijack(incident: &Incident) -> bool {
    incident.resolved.as_ref().is_none_or(|r| r.kind == Resolution::Hijack)
}

/// Whether a relay was out because of what went over it from `first` on, before a list named it.
pub fn pulled_before(pulls: &[&Measure], listing: &Listing, first: Timestamp) -> InTime {
    let ended_before = |m: &Measure| m.ended.as_ref().is_some_and(|ended| ended.at_ms <= first.0);
    let since = pulls.iter().filter(|m| !ended_before(m)).filter_map(|m| m.in_force_since_ms()).min();
    match since {
        Some(since_ms) if listing.clean.is_some_and(|clean| since_ms <= clean.0) => InTime::Yes,
        Some(since_ms) if since_ms <= listing.since.0 => InTime::Unknown,
        _ => InTime::No,
    }
}

/// The moments of an incident: `measures` are those about its account, `relays` those that carried its burst.
pub fn moments(incident: &Incident, measures: &[Measure], relays: &[OfRelay], now_ms: i64) -> Moments {
    let stops = measures.iter().filter(|m| m.kind == Kind::Stop && m.incident == incident.id);
    let share = |host: &str| incident.relays.iter().find(|s| s.relay == host).map_or(0, |s| s.recipients);
    let each = |of: &OfRelay| RelayMoments { recipients: share(&of.host), ..of_relay(of, incident.first, now_ms) };
    let relays: Vec<RelayMoments> = relays.iter().map(each).collect();
    let worst = |is: InTime| relays.iter().find(|r| r.in_time == is).map(|r| (is, r.why));
    let (in_time, why) = if !is_hijack(incident) {
        (InTime::Unknown, "it was no hijack")
    } else if relays.is_empty() {
        (InTime::Unknown, "its events name no relay")
    } else {
        let worst = worst(InTime::No).or_else(|| worst(InTime::Unknown));
        worst.unwrap_or((InTime::Yes, "each relay was out before it was listed, or was not listed within a day"))
    };
    Moments {
        first_spam: incident.first,
        flagged: incident.flagged,
        taken: incident.taken,
        stop: first_of(stops),
        relays,
        in_time,
        why,
    }
}

/// The one that was in force first, else the first that was decided.
fn first_of<'a>(measures: impl Iterator<Item = &'a Measure>) -> Option<Done> {
    let first =
        measures.min_by_key(|m| (m.in_force_since_ms().is_none(), m.in_force_since_ms().unwrap_or(m.made_ms)))?;
    Some(Done {
        state: first.state,
        decided: Timestamp(first.made_ms),
        in_force: first.in_force_since_ms().map(Timestamp),
        confirmed: first.done_ms.map(Timestamp),
    })
}

fn of_relay(of: &OfRelay, first: Option<Timestamp>, now_ms: i64) -> RelayMoments {
    let mut moments = RelayMoments {
        host: of.host.clone(),
        relay: of.relay.clone(),
        recipients: 0,
        pull: None,
        listings: Vec::new(),
        in_time: InTime::Unknown,
        why: "when the burst began is not known",
    };
    let Some(first) = first else { return moments };
    let day = first.0..=first.0.saturating_add(SPAN_MS);
    let ended_before = |m: &&Measure| m.ended.as_ref().is_some_and(|ended| ended.at_ms <= first.0);
    let pulls: Vec<&Measure> = of.pulls.iter().filter(|m| !ended_before(m) && m.made_ms <= *day.end()).collect();
    moments.pull = first_of(pulls.iter().copied());
    let mut listings: Vec<&Listing> = of.listings.iter().filter(|l| day.contains(&l.since.0)).collect();
    listings.sort_by_key(|l| (l.since, l.address, l.zone.clone()));
    moments.listings = listings.iter().map(|l| named(l)).collect();
    // A list that named it before has nothing new to say about this burst.
    let stood = |s: &Span| {
        let over = |l: &Listing| l.until.is_none_or(|until| until > first);
        of.listings.iter().any(|l| l.address == s.address && l.zone == s.zone && l.since < first && over(l))
    };
    let was_asked = |s: &&Span| s.since <= first && s.until.0 >= *day.end() && !stood(s);
    let unsettled = |in_time: InTime| match in_time {
        InTime::Yes => "it was pulled before it was listed",
        InTime::No => "it was listed before it was pulled",
        InTime::Unknown => "it was listed at about the time at which it was pulled",
    };
    let worst = |a: &InTime| match a {
        InTime::No => 0,
        InTime::Unknown => 1,
        InTime::Yes => 2,
    };
    let judged = listings.iter().map(|listing| pulled_before(&pulls, listing, first)).min_by_key(worst);
    (moments.in_time, moments.why) = match judged {
        Some(in_time) => (in_time, unsettled(in_time)),
        None if of.relay.is_none() => (InTime::Unknown, "no pool has it, so no list is asked for it"),
        None if now_ms <= *day.end() => (InTime::Unknown, "the day after the first spam is not over"),
        None if of.spans.iter().any(|s| was_asked(&s)) => (InTime::Yes, "it was not listed within a day"),
        None => (InTime::Unknown, "no list was asked for it over the whole day"),
    };
    moments
}

fn named(l: &Listing) -> Named {
    Named { address: l.address, zone: l.zone.clone(), clean: l.clean, since: l.since, until: l.until }
}
