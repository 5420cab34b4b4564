//! Who else sent through a relay while a burst was on it.
//!
//! A relay is exposed from a burst's first send, and after each of its sends for the tail. That can be said while the
//! events go by, and a burst that sleeps for a week does not make a week's mail collateral. Flagged accounts are never
//! collateral, not even to each other: they have sections of their own.
//!
//! Where only outcomes name the relay, the first burst message after a pause longer than the tail exposes it from its
//! first outcome on: what others sent in the seconds between is not counted.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;

use super::bounded::{Ties, TopCounts};
use super::data::{Blamed, BystanderRow, Cut, Exposure, Options, TenantRow};
use super::live::domain;
use super::replies;
use crate::core::refusal;
use crate::event::{Event, Kind, Outcome, Send, Status, Timestamp};

/// Stretches of exposure kept for a relay; beyond it neighbours grow together.
const SPANS_MAX: usize = 4_096;

/// Receivers told apart that refuse one account because of the relay's address.
const BLAMED_MAX: usize = 5;
/// No domain is longer (RFC 1035, section 2.3.4).
const DOMAIN_BYTES_MAX: usize = 255;

/// All relays that carried a burst.
#[derive(Debug)]
pub(super) struct Relays {
    ids: HashMap<Box<str>, u32>,
    all: Vec<RelayLive>,
    tail_ms: i64,
    /// Before the first and after the last of these nothing is exposed: most events need no further look.
    hull: Option<(i64, i64)>,
    ties: Ties<Waiting>,
    counted: usize,
    counted_max: usize,
    relays_max: usize,
    replies_max: usize,
}

#[derive(Debug)]
struct RelayLive {
    name: Box<str>,
    /// End by start, in milliseconds; they do not overlap.
    spans: BTreeMap<i64, i64>,
    first: Timestamp,
    last: Timestamp,
    incidents: BTreeSet<u32>,
    others: HashMap<Box<str>, Other>,
    uncounted: BystanderRow,
    replies: TopCounts<Box<str>>,
}

#[derive(Debug, Default)]
struct Other {
    tenant: Box<str>,
    messages: u64,
    recipients: u64,
    refused: u64,
    deferred: u64,
    span: Option<(Timestamp, Timestamp)>,
    blamed: Vec<Blamed>,
    blamed_more: u64,
}

impl Other {
    fn message(&mut self, ts: Timestamp, recipients: u64) {
        self.messages += 1;
        self.recipients += recipients;
        let (first, last) = self.span.unwrap_or((ts, ts));
        self.span = Some((first.min(ts), last.max(ts)));
    }

    fn blame(&mut self, blamed: Blamed) {
        let same = |b: &&mut Blamed| b.receiver == blamed.receiver && b.by == blamed.by;
        if let Some(known) = self.blamed.iter_mut().find(same) {
            known.count += blamed.count;
        } else if self.blamed.len() < BLAMED_MAX {
            self.blamed.push(blamed);
        } else {
            self.blamed_more += blamed.count;
        }
    }
}

/// A bystander's message, for outcomes that name its relay, or that rely on the send to have done so.
#[derive(Debug)]
struct Waiting {
    ts: Timestamp,
    recipients: u64,
    relay: Option<u32>,
    counted: bool,
}

impl Relays {
    pub fn new(options: &Options) -> Self {
        Self {
            ids: HashMap::new(),
            all: Vec::new(),
            tail_ms: options.tail_s.max(0).saturating_mul(1000),
            hull: None,
            ties: Ties::new(options.bystander_messages_tied),
            counted: 0,
            counted_max: options.bystanders_counted,
            relays_max: options.relays_counted,
            replies_max: options.replies_counted,
        }
    }

    /// The number of a relay that carries a burst, or may. `None` when there are too many.
    pub fn id(&mut self, name: &str) -> Option<u32> {
        if let Some(id) = self.ids.get(name) {
            return Some(*id);
        }
        let id = u32::try_from(self.all.len()).ok().filter(|_| self.all.len() < self.relays_max)?;
        self.ids.insert(name.into(), id);
        self.all.push(RelayLive {
            name: name.into(),
            spans: BTreeMap::new(),
            first: Timestamp(i64::MAX),
            last: Timestamp(i64::MIN),
            incidents: BTreeSet::new(),
            others: HashMap::new(),
            uncounted: BystanderRow::default(),
            replies: TopCounts::new(self.replies_max),
        });
        Some(id)
    }

    pub fn name(&self, id: u32) -> &str {
        self.all.get(id as usize).map_or("", |r| &r.name)
    }

    /// A burst was on the relay from `from` to `to`.
    pub fn expose(&mut self, id: u32, incident: u32, from: Timestamp, to: Timestamp) {
        let Some(relay) = self.all.get_mut(id as usize) else { return };
        relay.incidents.insert(incident);
        relay.first = relay.first.min(from);
        relay.last = relay.last.max(to);
        let (start, end) = (from.0, to.0.max(from.0).saturating_add(self.tail_ms));
        add_span(&mut relay.spans, start, end);
        let (first, last) = self.hull.unwrap_or((start, end));
        self.hull = Some((first.min(start), last.max(end)));
    }

    /// An event of an account that was not flagged.
    pub fn bystander(&mut self, event: &Event<'_>) {
        let Some((first, last)) = self.hull else { return };
        // A message of the exposed time may be answered, and its relay named, long after it.
        let over = event.ts.0 > last && !matches!(event.kind, Kind::Outcome(_));
        if event.ts.0 < first || over {
            return;
        }
        let Some(account) = event.account.as_deref() else { return };
        match &event.kind {
            Kind::Send(s) => self.bystander_send(account, event, s),
            Kind::Outcome(o) => self.bystander_outcome(account, event, o),
            Kind::Complaint(_) | Kind::Auth(_) => {}
        }
    }

    fn bystander_send(&mut self, account: &str, event: &Event<'_>, s: &Send<'_>) {
        let recipients = s.rcpts.count.max(s.rcpts.named.len() as u64);
        let relay = s.relay.as_deref().and_then(|r| self.ids.get(r).copied());
        // A message of a relay that carries no burst is of no interest, nor is its outcome.
        if s.relay.is_some() && relay.is_none() {
            return;
        }
        let mut counted = false;
        if let Some(id) = relay
            && self.exposed(id, event.ts)
        {
            counted = true;
            self.count(id, account, event, |o| o.message(event.ts, recipients));
        }
        if let Some(queue_id) = &s.queue_id {
            self.ties.put(account, queue_id, Waiting { ts: event.ts, recipients, relay, counted });
        }
    }

    fn bystander_outcome(&mut self, account: &str, event: &Event<'_>, o: &Outcome<'_>) {
        let named = o.relay.as_deref().map(|r| self.ids.get(r).copied());
        if named == Some(None) {
            return;
        }
        let mut waiting = o.queue_id.as_deref().and_then(|q| self.ties.get(account, q));
        let relay = match named {
            Some(id) => id,
            None => waiting.as_ref().and_then(|w| w.relay),
        };
        let Some(id) = relay else { return };
        let late_named = waiting.as_mut().filter(|w| !w.counted && w.relay.is_none()).map(|w| {
            w.relay = Some(id);
            w.counted = true;
            (w.ts, w.recipients)
        });
        if let Some((ts, recipients)) = late_named
            && self.exposed(id, ts)
        {
            self.count(id, account, event, |o| o.message(ts, recipients));
        }
        let refused = matches!(o.status, Status::Bounced | Status::Rejected);
        let deferred = !refused && o.status == Status::Deferred;
        if !(refused || deferred || o.status == Status::Expired) || !self.exposed(id, event.ts) {
            return;
        }
        let blamed = blamed(o);
        self.count(id, account, event, |o| {
            o.refused += u64::from(refused);
            o.deferred += u64::from(deferred);
            if let Some(blamed) = blamed {
                o.blame(blamed);
            }
        });
        if let (Some(group), Some(relay)) = (replies::group(o), self.all.get_mut(id as usize)) {
            relay.replies.add(group.as_str(), 1);
        }
    }

    fn exposed(&self, id: u32, ts: Timestamp) -> bool {
        let spans = self.all.get(id as usize).map(|r| &r.spans);
        spans.and_then(|s| s.range(..=ts.0).next_back()).is_some_and(|(_, end)| *end >= ts.0)
    }

    fn count(&mut self, id: u32, account: &str, event: &Event<'_>, add: impl FnOnce(&mut Other)) {
        let Some(relay) = self.all.get_mut(id as usize) else { return };
        if let Some(other) = relay.others.get_mut(account) {
            add(other);
        } else if self.counted < self.counted_max {
            self.counted += 1;
            let mut other = Other { tenant: event.tenant().unwrap_or_default().into(), ..Other::default() };
            add(&mut other);
            relay.others.insert(account.into(), other);
        } else {
            let mut other = Other::default();
            add(&mut other);
            relay.uncounted.messages += other.messages;
            relay.uncounted.recipients += other.recipients;
            relay.uncounted.refused += other.refused;
            relay.uncounted.deferred += other.deferred;
        }
    }

    /// The first and the last moment at which any is exposed, in milliseconds since 1970.
    pub fn hull(&self) -> Option<(i64, i64)> {
        self.hull
    }

    /// Distinct accounts counted on any relay.
    pub fn bystanders(&self) -> u64 {
        let all: BTreeSet<&str> = self.all.iter().flat_map(|r| r.others.keys().map(|k| &**k)).collect();
        all.len() as u64
    }

    /// The relays that carried a burst, most burst recipients first.
    /// `burst`: what the burst put on a relay, messages and recipients.
    pub fn finish(&self, burst: impl Iterator<Item = (u32, (u64, u64))>, options: &Options) -> Cut<Exposure> {
        let mut carried: Vec<(u64, u64)> = vec![(0, 0); self.all.len()];
        for (id, (messages, recipients)) in burst {
            if let Some(sum) = carried.get_mut(id as usize) {
                sum.0 += messages;
                sum.1 += recipients;
            }
        }
        let mut rows: Vec<Exposure> = Vec::new();
        for (relay, (messages, recipients)) in self.all.iter().zip(carried) {
            if !relay.incidents.is_empty() {
                rows.push(relay.finish(messages, recipients, options));
            }
        }
        rows.sort_by(|a, b| b.recipients.cmp(&a.recipients).then_with(|| a.relay.cmp(&b.relay)));
        Cut::new(rows, options.shown.relays, |r| r.recipients)
    }
}

impl RelayLive {
    fn finish(&self, messages: u64, recipients: u64, options: &Options) -> Exposure {
        let mut others: Vec<BystanderRow> = Vec::with_capacity(self.others.len());
        let mut sum = self.uncounted.clone();
        let mut tenants: BTreeMap<&str, TenantRow> = BTreeMap::new();
        for (account, o) in &self.others {
            others.push(BystanderRow {
                account: account.to_string(),
                tenant: o.tenant.to_string(),
                messages: o.messages,
                recipients: o.recipients,
                refused: o.refused,
                deferred: o.deferred,
                span: o.span,
                blamed: most_first(&o.blamed),
                blamed_more: o.blamed_more,
            });
            sum.messages += o.messages;
            sum.recipients += o.recipients;
            sum.refused += o.refused;
            sum.deferred += o.deferred;
            let tenant = tenants.entry(&o.tenant).or_default();
            tenant.accounts += 1;
            tenant.messages += o.messages;
            tenant.recipients += o.recipients;
            tenant.refused += o.refused;
        }
        others.sort_by(|a, b| b.recipients.cmp(&a.recipients).then_with(|| a.account.cmp(&b.account)));
        let mut tenants: Vec<TenantRow> =
            tenants.into_iter().map(|(name, row)| TenantRow { tenant: name.to_owned(), ..row }).collect();
        tenants.sort_by(|a, b| b.recipients.cmp(&a.recipients).then_with(|| a.tenant.cmp(&b.tenant)));
        let replies = self.replies.top(options.shown.top);
        Exposure {
            relay: self.name.to_string(),
            span: (self.first, self.last),
            exposed_s: self.spans.iter().map(|(start, end)| end.saturating_sub(*start) / 1000).sum(),
            incidents: self.incidents.iter().map(|i| *i as usize).filter(|i| *i < options.incidents_listed).collect(),
            messages,
            recipients,
            others: Cut::new(others, options.shown.bystanders, |o| o.recipients),
            uncounted_messages: self.uncounted.messages,
            others_sum: sum,
            tenants: Cut::new(tenants, options.shown.tenants, |t| t.recipients),
            replies: Cut {
                rows: replies.rows.iter().map(|(k, n)| (replies::split(k), *n)).collect(),
                more: replies.more,
                more_sum: replies.more_sum,
            },
        }
    }
}

/// Who refuses our address by this outcome.
fn blamed(o: &Outcome<'_>) -> Option<Blamed> {
    let by = refusal::read(o).refuses_relay?;
    let receiver = domain(&o.rcpt);
    let receiver = receiver.get(..DOMAIN_BYTES_MAX).unwrap_or(receiver).to_ascii_lowercase();
    let (_, words) = replies::split(&replies::group(o)?);
    Some(Blamed { receiver, by, count: 1, words })
}

fn most_first(blamed: &[Blamed]) -> Vec<Blamed> {
    let mut all = blamed.to_vec();
    all.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.receiver, a.by).cmp(&(&b.receiver, b.by))));
    all
}

/// Adds `start..=end` to spans that do not overlap.
fn add_span(spans: &mut BTreeMap<i64, i64>, mut start: i64, mut end: i64) {
    while let Some((&s, &e)) = spans.range(..=end).next_back().filter(|(_, e)| **e >= start) {
        spans.remove(&s);
        start = start.min(s);
        end = end.max(e);
    }
    spans.insert(start, end);
    if spans.len() > SPANS_MAX
        && let Some((last_start, last_end)) = spans.pop_last()
        && let Some(mut before) = spans.last_entry()
    {
        debug_assert!(last_start >= *before.key());
        *before.get_mut() = last_end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_grow_together() {
        let mut spans = BTreeMap::new();
        for (s, e) in [(10, 20), (40, 50), (18, 25), (0, 5), (24, 41)] {
            add_span(&mut spans, s, e);
        }
        assert_eq!(spans.into_iter().collect::<Vec<_>>(), [(0, 5), (10, 50)]);
    }
}
