//! What was put on each relay, out of the detectors' signals. Pure: in whatever order they come, and however often, the answer is
//! the same, because of two records with one key the one with the larger `seq` counts.
//!
//! Memory: 24 bytes for each relay of each minute of each part of the events, so 0.6 MB for an hour of 12 partitions over 40 relays.
//! Which incidents count is asked at each question: a person may call one no hijack at any time, and take it back.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::core::replies::Family;
use crate::core::signal::{MINUTE_MS, Part, RelayCount, Signal, minute_of};
use crate::core::tally::OTHER;

/// Relays that are told apart; all further ones are [`OTHER`]. Sixteen partitions may fill theirs with different ones.
const RELAYS_MAX: usize = 16 * crate::core::tally::RELAYS_MAX;
/// Incidents that are known at most. Beyond it those go whose burst has rested for longest, a quarter at a time.
const INCIDENTS_MAX: usize = 65_536;
/// The longest span that can be asked for, in seconds: a day. The topic keeps two.
pub const SPAN_S_MAX: u32 = 86_400;

/// What was put on one relay in a span.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Load {
    /// Messages that it carried, whoever sent them.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// What bursts put on it; most recipients first, then by account.
    pub bursts: Vec<BurstShare>,
    /// Refusals for its address, by who refuses. Each deferral counts, also of one message again and again.
    pub refused: BTreeMap<Family, u64>,
    /// The end of the last minute in which it was refused, in milliseconds since 1970; 0: it was not.
    pub refused_until_ms: i64,
}

/// What one incident's burst put on a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BurstShare {
    /// The incident.
    pub incident: String,
    /// The account as folded.
    pub account: String,
    /// Its customer.
    pub tenant: String,
    /// Messages.
    pub messages: u64,
    /// Recipients.
    pub recipients: u64,
    /// The end of the last minute in which it put something on the relay, in milliseconds since 1970; 0: in none of the span.
    pub until_ms: i64,
}

impl Load {
    /// Recipients of all bursts.
    pub fn burst_recipients(&self) -> u64 {
        self.bursts.iter().map(|b| b.recipients).sum()
    }

    /// Who has refused the relay at least so often. Words that anybody uses are one, [`Family::Other`], the last.
    pub fn refusers(&self, at_least: u64) -> impl Iterator<Item = Family> {
        self.refused.iter().filter(move |(_, n)| **n >= at_least).map(|(family, _)| *family)
    }
}

/// Messages and recipients of one relay.
#[derive(Debug, Clone, Copy)]
struct Cell {
    relay: u16,
    messages: i64,
    recipients: i64,
}

/// The record of one key that counts.
#[derive(Debug, Clone, Default)]
struct Counted {
    seq: u64,
    cells: Vec<Cell>,
    refused: Vec<(u16, Family, u64)>,
}

#[derive(Debug)]
struct Incident {
    account: Box<str>,
    tenant: Box<str>,
    minutes: BTreeMap<i64, Counted>,
}

/// What is known of signals.
#[derive(Debug)]
pub struct Exposure {
    keep_s: u32,
    /// The first minute that is kept, in minutes since 1970.
    floor: i64,
    relays: Vec<Box<str>>,
    places: HashMap<Box<str>, u16>,
    minutes: BTreeMap<i64, HashMap<Part, Counted>>,
    incidents: HashMap<Box<str>, Incident>,
}

impl Exposure {
    /// Knows nothing yet. Answers about spans of up to `keep_s` seconds, [`SPAN_S_MAX`] at most.
    pub fn new(keep_s: u32) -> Self {
        Self {
            keep_s: keep_s.min(SPAN_S_MAX),
            floor: i64::MIN,
            relays: Vec::new(),
            places: HashMap::new(),
            minutes: BTreeMap::new(),
            incidents: HashMap::new(),
        }
    }

    /// How far back it answers, in seconds.
    pub fn keep_s(&self) -> u32 {
        self.keep_s
    }

    /// Takes in a record.
    pub fn take(&mut self, signal: &Signal) {
        match signal {
            Signal::Relays(relays) => {
                let minute = minute_of(relays.minute.0);
                if minute < self.floor {
                    return;
                }
                let counted = self.counted(relays.seq, &relays.relays);
                let known = self.minutes.entry(minute).or_default().entry(relays.part).or_default();
                if counted.seq > known.seq {
                    *known = counted;
                }
            }
            Signal::Burst(burst) => {
                let minute = minute_of(burst.minute.0);
                if minute < self.floor {
                    return;
                }
                let counted = self.counted(burst.seq, &burst.relays);
                if self.incidents.len() >= INCIDENTS_MAX && !self.incidents.contains_key(&*burst.incident) {
                    self.drop_resting();
                }
                let incident = self.incidents.entry(burst.incident.as_str().into()).or_insert_with(|| Incident {
                    account: burst.account.as_str().into(),
                    tenant: burst.tenant.as_str().into(),
                    minutes: BTreeMap::new(),
                });
                let known = incident.minutes.entry(minute).or_default();
                if counted.seq > known.seq {
                    *known = counted;
                }
            }
        }
    }

    /// Forgets what lies before the spans that end at `now_ms` or later, in milliseconds since 1970, and does not take it in again.
    pub fn forget(&mut self, now_ms: i64) {
        let floor = self.first(now_ms, self.keep_s);
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        self.minutes = self.minutes.split_off(&floor);
        self.incidents.retain(|_, incident| {
            incident.minutes = incident.minutes.split_off(&floor);
            !incident.minutes.is_empty()
        });
    }

    /// What was put on every relay of which anything is known in the last `span_s` seconds before `now_ms` (milliseconds since 1970),
    /// by the relay's name as events have it. It begins with a whole minute. Of incidents those count that `stands` says yes to.
    pub fn loads(&self, now_ms: i64, span_s: u32, stands: &dyn Fn(&str) -> bool) -> BTreeMap<&str, Load> {
        let span = self.first(now_ms, span_s.min(self.keep_s))..=minute_of(now_ms);
        let mut sums = Sums::default();
        let mut loads: BTreeMap<&str, Load> = BTreeMap::new();
        for (minute, counted) in
            self.minutes.range(span.clone()).flat_map(|(m, parts)| parts.values().map(move |p| (m, p)))
        {
            add(&mut sums, counted);
            for (relay, family, n) in &counted.refused {
                let load = loads.entry(self.name(*relay)).or_default();
                *load.refused.entry(*family).or_default() += n;
                load.refused_until_ms = load.refused_until_ms.max(end_ms(*minute));
            }
        }
        for (relay, messages, recipients) in left(&sums) {
            let load = loads.entry(self.name(relay)).or_default();
            (load.messages, load.recipients) = (messages, recipients);
        }
        for (id, incident) in self.incidents.iter().filter(|(id, _)| stands(id)) {
            sums.clear();
            let mut last: HashMap<u16, i64> = HashMap::new();
            for (minute, counted) in incident.minutes.range(span.clone()) {
                add(&mut sums, counted);
                last.extend(counted.cells.iter().filter(|c| c.recipients > 0).map(|c| (c.relay, end_ms(*minute))));
            }
            for (relay, messages, recipients) in left(&sums) {
                let load = loads.entry(self.name(relay)).or_default();
                load.bursts.push(BurstShare {
                    incident: id.to_string(),
                    account: incident.account.to_string(),
                    tenant: incident.tenant.to_string(),
                    messages,
                    recipients,
                    until_ms: last.get(&relay).copied().unwrap_or(0),
                });
            }
        }
        for load in loads.values_mut() {
            load.bursts.sort_by(|a, b| {
                b.recipients.cmp(&a.recipients).then_with(|| (&a.account, &a.incident).cmp(&(&b.account, &b.incident)))
            });
        }
        loads
    }

    /// The incidents whose bursts put anything on any relay after `since_ms`, each with the end of its last such minute; both in
    /// milliseconds since 1970.
    pub fn active(&self, since_ms: i64) -> impl Iterator<Item = (&str, i64)> {
        self.incidents.iter().filter_map(move |(id, incident)| {
            let carries = |counted: &Counted| counted.cells.iter().any(|c| c.recipients > 0);
            let last = incident.minutes.iter().rev().take_while(|(m, _)| end_ms(**m) > since_ms);
            let (minute, _) = last.into_iter().find(|(_, counted)| carries(counted))?;
            Some((&**id, end_ms(*minute)))
        })
    }

    /// The end of the newest minute of which anything was told, in milliseconds since 1970; `None` where nothing is known.
    pub fn newest_ms(&self) -> Option<i64> {
        self.minutes.keys().next_back().map(|minute| end_ms(*minute))
    }

    /// The first minute of a span.
    fn first(&self, now_ms: i64, span_s: u32) -> i64 {
        minute_of(now_ms.saturating_sub(i64::from(span_s) * 1000).max(i64::MIN + MINUTE_MS))
    }

    fn name(&self, relay: u16) -> &str {
        self.relays.get(usize::from(relay)).map_or(OTHER, |name| name)
    }

    fn counted(&mut self, seq: u64, relays: &[RelayCount]) -> Counted {
        let mut counted = Counted { seq, ..Counted::default() };
        for count in relays {
            let relay = self.place(&count.relay);
            if (count.messages, count.recipients) != (0, 0) {
                counted.cells.push(Cell { relay, messages: count.messages, recipients: count.recipients });
            }
            counted.refused.extend(count.refused.iter().map(|(family, n)| (relay, *family, *n)));
        }
        counted
    }

    fn place(&mut self, relay: &str) -> u16 {
        if let Some(&place) = self.places.get(relay) {
            return place;
        }
        if self.relays.len() + 1 >= RELAYS_MAX && relay != OTHER {
            return self.place(OTHER);
        }
        let place = self.relays.len() as u16;
        self.relays.push(relay.into());
        self.places.insert(relay.into(), place);
        place
    }

    fn drop_resting(&mut self) {
        let last = |incident: &Incident| incident.minutes.keys().next_back().copied().unwrap_or(i64::MIN);
        let mut all: Vec<i64> = self.incidents.values().map(last).collect();
        all.sort_unstable();
        let until = all.get(all.len() / 4).copied().unwrap_or(i64::MAX);
        self.incidents.retain(|_, incident| last(incident) > until);
    }
}

/// The end of a minute, in milliseconds since 1970.
fn end_ms(minute: i64) -> i64 {
    (minute + 1) * MINUTE_MS
}

/// Messages and recipients by relay.
type Sums = HashMap<u16, (i64, i64)>;

fn add(sums: &mut Sums, counted: &Counted) {
    for cell in &counted.cells {
        let (messages, recipients) = sums.entry(cell.relay).or_default();
        *messages = messages.saturating_add(cell.messages);
        *recipients = recipients.saturating_add(cell.recipients);
    }
}

/// The relays of which something is left.
fn left(sums: &Sums) -> impl Iterator<Item = (u16, u64, u64)> {
    let left = sums.iter().filter(|(_, sum)| sum.0 > 0 || sum.1 > 0);
    left.map(|(relay, sum)| (*relay, sum.0.max(0).unsigned_abs(), sum.1.max(0).unsigned_abs()))
}
