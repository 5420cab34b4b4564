//! What a shard counts per relay and minute of event time, and which bursts have grown, to be told as [`Signal`]s.
//!
//! An event changes the minute of its own `ts` and no other, as long as that is open: until it lies `lateness_s` behind the shard's
//! clock. So the sums over shards are the same however many there are, for input in which nothing is further behind. A message counts
//! when its send names a relay, with the recipients known then; an outcome that names another relay, or the first, moves it. An
//! outcome whose send is not known any more, or never was, moves nothing and counts nowhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::account::{Account, OnRelays};
use super::beat;
use super::incident::Before;
use super::replies::Family;
use super::signal::{BurstKind, BurstMinute, MINUTE_MS, Part, RelayCount, RelayMinute, RelaysKind, Signal, minute_of};
use crate::event::{Event, Kind, Timestamp};

/// Relays that one shard tells apart at a time; all further ones are [`OTHER`].
pub const RELAYS_MAX: usize = 1024;
/// The name of what is beyond [`RELAYS_MAX`].
pub const OTHER: &str = "other";
/// Minutes that are open at most, whatever `lateness_s` says.
const MINUTES_MAX: i64 = 1440;

/// Counts of one minute.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Minute {
    /// In minutes since 1970.
    minute: i64,
    /// Changes so far.
    seq: u64,
    /// Messages and recipients by place of the relay.
    carried: Vec<(i64, i64)>,
    /// Refusals by place of the relay and who refuses: few.
    refused: Vec<(u16, Family, u64)>,
    /// `seq` when it was last given.
    #[serde(skip)]
    given: u64,
}

/// The open minutes as they are stored with a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kept {
    relays: Vec<String>,
    minutes: VecDeque<Minute>,
}

/// What a shard counts for the desk.
#[derive(Debug)]
pub(super) struct Tally {
    part: Part,
    kept: Kept,
    places: HashMap<String, u16>,
    /// The place that was last used: neighbours often share a relay.
    last: u16,
    /// What will not change any more and was not given as it is now.
    ready: Vec<Signal>,
    /// Places of the accounts whose burst has grown since it was given.
    grown: BTreeSet<u32>,
    /// Somebody was flagged since the last giving.
    is_urgent: bool,
}

impl Tally {
    pub(super) fn new(part: Part, kept: Kept) -> Self {
        let mut tally = Self {
            part,
            kept,
            places: HashMap::new(),
            last: 0,
            ready: Vec::new(),
            grown: BTreeSet::new(),
            is_urgent: false,
        };
        // A checkpoint is begun when everything was given.
        tally.kept.minutes.iter_mut().for_each(|m| m.given = m.seq);
        tally.index();
        tally
    }

    fn index(&mut self) {
        let places = self.kept.relays.iter().enumerate().map(|(place, name)| (name.clone(), place as u16));
        self.places = places.collect();
        self.last = 0;
    }

    /// What is to be stored.
    pub(super) fn kept(&self) -> &Kept {
        &self.kept
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// The place of a relay.
    fn place(&mut self, relay: &str) -> u16 {
        let kept = &mut self.kept.relays;
        if kept.get(usize::from(self.last)).is_some_and(|name| name == relay) {
            return self.last;
        }
        self.last = match self.places.get(relay) {
            Some(&place) => place,
            // The last place is for all that find none.
            None if kept.len() + 1 >= RELAYS_MAX && relay != OTHER => return self.place(OTHER),
            None => {
                let place = kept.len() as u16;
                kept.push(relay.to_owned());
                self.places.insert(relay.to_owned(), place);
                place
            }
        };
        self.last
    }

    /// The minute of an event; `None` where it is closed.
    fn minute(&mut self, ts_ms: i64, oldest_ms: i64) -> Option<&mut Minute> {
        let minute = minute_of(ts_ms);
        if (minute + 1) * MINUTE_MS <= oldest_ms {
            return None;
        }
        let minutes = &mut self.kept.minutes;
        let at = minutes.iter().rposition(|m| m.minute <= minute);
        let at = match at {
            Some(at) if minutes[at].minute == minute => at,
            other => {
                let at = other.map_or(0, |at| at + 1);
                minutes.insert(at, Minute { minute, ..Minute::default() });
                at
            }
        };
        minutes.get_mut(at)
    }

    /// Counts an event that was no repeat, the shard's clock being at `newest_ms`.
    pub(super) fn count(
        &mut self,
        event: &Event<'_>,
        on: &OnRelays,
        account: &Account,
        newest_ms: i64,
        lateness_s: u32,
    ) {
        let oldest_ms = oldest_ms(newest_ms, lateness_s);
        match &event.kind {
            Kind::Send(send) => {
                if let Some(relay) = &send.relay {
                    let place = self.place(relay);
                    let recipients = i64::try_from(send.rcpts.count).unwrap_or(i64::MAX);
                    let Some(minute) = self.minute(event.ts.0, oldest_ms) else { return };
                    minute.carry(place, 1, recipients);
                    minute.seq += 1;
                }
            }
            Kind::Outcome(outcome) => {
                let names = account.relay_names();
                let name = |place: u16| names.get(usize::from(place).checked_sub(1)?);
                if let (Some((from, recipients)), Some(to)) = (on.moved, outcome.relay.as_deref()) {
                    let from = name(from).map(|from| self.place(from));
                    let to = self.place(to);
                    let Some(minute) = self.minute(event.ts.0, oldest_ms) else { return };
                    if let Some(from) = from {
                        minute.carry(from, -1, -i64::from(recipients));
                    }
                    minute.carry(to, 1, recipients.into());
                    minute.seq += 1;
                }
                if let Some((family, at)) = on.refused
                    && let Some(relay) = outcome.relay.as_deref().or_else(|| name(at))
                {
                    let place = self.place(relay);
                    let Some(minute) = self.minute(event.ts.0, oldest_ms) else { return };
                    minute.refuse(place, family);
                    minute.seq += 1;
                }
            }
            Kind::Complaint(_) | Kind::Auth(_) => {}
        }
    }

    /// Closes the minutes that nothing can come for any more.
    pub(super) fn close(&mut self, newest_ms: i64, lateness_s: u32) {
        let oldest_ms = oldest_ms(newest_ms, lateness_s);
        let mut is_closed = false;
        while let Some(minute) = self.kept.minutes.front()
            && (minute.minute + 1) * MINUTE_MS <= oldest_ms
        {
            if let Some(minute) = self.kept.minutes.pop_front()
                && minute.seq > minute.given
            {
                self.ready.push(minute.signal(self.part, &self.kept.relays));
            }
            is_closed = true;
        }
        if is_closed && self.kept.relays.len() + 1 >= RELAYS_MAX {
            self.drop_unused();
        }
    }

    /// Lets names go that no open minute uses, so that new relays are told apart again.
    fn drop_unused(&mut self) {
        let mut new_places: Vec<Option<u16>> = vec![None; self.kept.relays.len()];
        let mut used = 0;
        for (place, new) in new_places.iter_mut().enumerate() {
            if self.kept.minutes.iter().any(|m| m.uses(place)) {
                *new = Some(used);
                used += 1;
            }
        }
        let mut place = 0..;
        self.kept.relays.retain(|_| place.next().is_some_and(|p: usize| new_places[p].is_some()));
        for minute in &mut self.kept.minutes {
            let before = std::mem::take(&mut minute.carried);
            for (place, (messages, recipients)) in before.into_iter().enumerate() {
                if let Some(new) = new_places.get(place).copied().flatten() {
                    minute.carry(new, messages, recipients);
                }
            }
            for (place, _, _) in &mut minute.refused {
                *place = new_places.get(usize::from(*place)).copied().flatten().unwrap_or_default();
            }
        }
        self.index();
    }

    /// An account's clock is about to reach `clock_ms`: what its burst did in the minute before is given as it ended.
    pub(super) fn turn(&mut self, place: usize, account: &Account, clock_ms: i64) {
        if let Some(incident) = &account.incident
            && incident.totals.lately_minute() < minute_of(clock_ms)
        {
            self.end(place, account);
        }
    }

    /// The burst of an account has grown.
    pub(super) fn grew(&mut self, place: usize) {
        self.grown.insert(place as u32);
    }

    /// An incident is over, or its minute: what was not given of it is.
    pub(super) fn end(&mut self, place: usize, account: &Account) {
        if self.grown.remove(&(place as u32)) {
            self.ready.extend(burst(account).map(Signal::Burst));
        }
    }

    /// An account is flagged. `before` is what its burst put out earlier than in the minute of the flag.
    pub(super) fn flagged(&mut self, place: usize, account: &Account, before: Before) {
        if beat::is_beat(account.name()) {
            return;
        }
        for (minute, shares) in before {
            let seq = shares.iter().map(|s| s.1.unsigned_abs()).sum();
            self.ready.extend(burst_of(account, minute, seq, &shares).map(Signal::Burst));
        }
        self.grew(place);
        self.is_urgent = true;
    }

    /// Gives what is new of bursts; `hot` finds the account of a place.
    pub(super) fn give_bursts<'a>(&mut self, hot: impl Fn(usize) -> Option<&'a Account>, out: &mut Vec<Signal>) {
        self.is_urgent = false;
        out.append(&mut self.ready);
        for place in std::mem::take(&mut self.grown) {
            out.extend(hot(place as usize).and_then(burst).map(Signal::Burst));
        }
    }

    /// Gives the open minutes that have changed.
    pub(super) fn give_minutes(&mut self, out: &mut Vec<Signal>) {
        for minute in &mut self.kept.minutes {
            if minute.seq > minute.given {
                minute.given = minute.seq;
                out.push(minute.signal(self.part, &self.kept.relays));
            }
        }
    }
}

/// Nothing before this is counted any more.
fn oldest_ms(newest_ms: i64, lateness_s: u32) -> i64 {
    newest_ms.saturating_sub((i64::from(lateness_s) * 1000).min(MINUTES_MAX * MINUTE_MS))
}

impl Minute {
    fn carry(&mut self, place: u16, messages: i64, recipients: i64) {
        let place = usize::from(place);
        if self.carried.len() <= place {
            self.carried.resize(place + 1, (0, 0));
        }
        let (m, r) = &mut self.carried[place];
        (*m, *r) = (m.saturating_add(messages), r.saturating_add(recipients));
    }

    fn refuse(&mut self, place: u16, family: Family) {
        match self.refused.iter_mut().find(|r| r.0 == place && r.1 == family) {
            Some(entry) => entry.2 += 1,
            None => self.refused.push((place, family, 1)),
        }
    }

    fn uses(&self, place: usize) -> bool {
        self.carried.get(place).is_some_and(|c| *c != (0, 0)) || self.refused.iter().any(|r| usize::from(r.0) == place)
    }

    fn signal(&self, part: Part, names: &[String]) -> Signal {
        let mut relays: Vec<RelayCount> = Vec::new();
        for (place, name) in names.iter().enumerate().filter(|(place, _)| self.uses(*place)) {
            let (messages, recipients) = self.carried.get(place).copied().unwrap_or_default();
            let refused = self.refused.iter().filter(|r| usize::from(r.0) == place).map(|r| (r.1, r.2)).collect();
            relays.push(RelayCount { relay: name.clone(), messages, recipients, refused });
        }
        relays.sort_by(|a, b| a.relay.cmp(&b.relay));
        Signal::Relays(RelayMinute {
            v: 1,
            kind: RelaysKind::Relays,
            part,
            minute: Timestamp(self.minute * MINUTE_MS),
            seq: self.seq,
            relays,
        })
    }
}

/// What the burst of an account has put out in the minute of its clock.
fn burst(account: &Account) -> Option<BurstMinute> {
    let totals = &account.incident.as_deref()?.totals;
    let (minute, shares) = totals.lately();
    burst_of(account, minute, totals.seq(), shares)
}

fn burst_of(account: &Account, minute: i64, seq: u64, shares: &[(u16, i64, i64)]) -> Option<BurstMinute> {
    let incident = account.incident.as_deref()?;
    let names: Vec<&str> = account.relay_names().iter().collect();
    let mut relays: Vec<RelayCount> = shares
        .iter()
        .filter_map(|&(relay, messages, recipients)| {
            let relay = (*names.get(usize::from(relay).checked_sub(1)?)?).to_owned();
            Some(RelayCount { relay, messages, recipients, refused: BTreeMap::new() })
        })
        .collect();
    relays.sort_by(|a, b| a.relay.cmp(&b.relay));
    Some(BurstMinute {
        v: 1,
        kind: BurstKind::Burst,
        incident: incident.id.to_string(),
        account: account.name().to_owned(),
        tenant: account.tenant().to_owned(),
        minute: Timestamp(minute * MINUTE_MS),
        seq,
        relays,
    })
}
