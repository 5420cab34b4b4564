//! What people and outside systems order about accounts and relays.

use super::decide::{Change, DAY_MS, Decider, Hold, Told, id};
use super::measure::{Kind, Measure, State};
use crate::desk::notice;
use crate::event::Timestamp;

/// Why an order is not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such measure or relay.
    #[error("{0}")]
    Unknown(String),
    /// It does not go with what is.
    #[error("{0}")]
    Conflict(String),
}

/// An order about an account or a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What is done.
    pub kind: Kind,
    /// The account as folded, or the relay.
    pub subject: String,
    /// Of an account: its customer.
    pub tenant: String,
    /// Of an account: the incident that it is about. Empty: one of its own.
    pub incident: String,
    /// For how long, in seconds; 0: as long as the configuration says.
    pub for_s: u32,
    /// Why.
    pub note: String,
}

impl Decider {
    /// Confirms a measure that waits for a person; or one that is in force by itself, which hands in `confirm` do then, too: it
    /// lasts as long as before. The floor of a pool holds for people, too.
    ///
    /// # Errors
    /// Where there is no such measure, where it does not wait, or where the pool would have too few relays.
    pub fn confirm(&mut self, id: &str, who: &str, now_ms: i64) -> Result<Change, Refused> {
        let measure = self.known(id)?;
        if measure.is_in_force(now_ms) && !measure.is_by_person() {
            let confirmed = Measure { confirmed_by: Some(who.to_owned()), ..measure };
            return Ok(self.change(confirmed, None));
        }
        if measure.state != State::Asked || measure.until_ms <= now_ms {
            return Err(Refused::Conflict(format!(
                "it is {}: only what is asked, or in force by itself, can be confirmed",
                measure.state.name().replace('_', " ")
            )));
        }
        self.may_go(&measure)?;
        let until_ms = now_ms + self.lasts_ms(measure.kind);
        let confirmed = Measure {
            state: State::InForce,
            since_ms: Some(now_ms),
            until_ms,
            confirmed_by: Some(who.to_owned()),
            ..measure
        };
        Ok(self.change(confirmed, Some(Told::Done)))
    }

    /// Ends a measure: refuses what is asked, releases an account, puts a relay back. Of one that has ended nothing comes.
    ///
    /// # Errors
    /// Where there is no such measure.
    pub fn finish(&mut self, id: &str, who: &str, why: &str, now_ms: i64) -> Result<Option<Change>, Refused> {
        let measure = self.known(id)?;
        Ok(measure.is_open().then(|| self.end(measure, now_ms, who, why, false)))
    }

    /// Stops or throttles an account, or pulls a relay. Of what is so already nothing comes but that it is by a person now.
    ///
    /// # Errors
    /// Where there is no such relay, or its pool would have too few.
    pub fn order(&mut self, order: &Order, who: &str, now_ms: i64) -> Result<Vec<Change>, Refused> {
        let mut changes = Vec::new();
        let mut pool = String::new();
        let mut tenant = order.tenant.clone();
        if order.kind == Kind::Pull {
            let found = self.settings.members().find(|(_, m)| m.relay == order.subject);
            let Some((its_pool, member)) = found else {
                return Err(Refused::Unknown("no such relay: relays.pool of the configuration lists them".to_owned()));
            };
            (pool, tenant) = (its_pool.name.clone(), member.tenant.clone());
            self.has_room(&order.subject)?;
        }
        if let Some(open) = self.open(order.kind, &order.subject).cloned() {
            let ended = super::decide::ended_at(open, now_ms, who, "a person ordered it");
            changes.push(self.change(ended, None));
        }
        let lasts_ms = match (order.for_s, order.kind) {
            (0, Kind::Pull) => i64::from(self.settings.pull.max_s) * 1000,
            (0, kind) => self.lasts_ms(kind),
            (seconds, _) => i64::from(seconds) * 1000,
        };
        changes.push(self.change(ordered(order, tenant, pool, lasts_ms, who, now_ms), Some(Told::Done)));
        Ok(changes)
    }

    /// Puts every relay back, and holds off new pulls until `until_ms`, in milliseconds since 1970.
    pub fn restore_all(&mut self, hold: Hold, now_ms: i64) -> Vec<Change> {
        let open: Vec<Measure> = self.of_relays.values().filter(|m| m.is_open()).cloned().collect();
        let changes =
            open.into_iter().map(|m| self.end(m, now_ms, &hold.by, "all relays were put back", false)).collect();
        self.hold = Some(hold);
        changes
    }

    /// Lets pulls be decided again.
    pub fn lift_hold(&mut self) -> bool {
        self.hold.take().is_some()
    }

    /// An outside system says that an account cannot send any more: relays need not wait.
    pub fn stopped(&mut self, account: &str, now_ms: i64) -> Option<Change> {
        let open =
            self.open(Kind::Stop, account).filter(|m| m.state == State::InForce && m.done_ms.is_none()).cloned()?;
        Some(self.change(Measure { done_ms: Some(now_ms), ..open }, None))
    }

    /// A policy service has served a stop, at `at_ms` of its own clock (milliseconds since 1970): relays need not wait.
    pub fn served(&mut self, id: &str, at_ms: i64, now_ms: i64) -> Option<Change> {
        let stop = self.measure(id).filter(|m| m.kind == Kind::Stop && m.state == State::InForce);
        let stop = stop.filter(|m| m.done_ms.is_none()).cloned()?;
        let since_ms = stop.since_ms.unwrap_or(stop.made_ms);
        Some(self.change(Measure { done_ms: Some(at_ms.min(now_ms).max(since_ms)), ..stop }, None))
    }

    /// An account may send again: somebody released it, or its owner has a new password.
    pub fn released(&mut self, account: &str, who: &str, why: &str, now_ms: i64) -> Vec<Change> {
        self.end_open(&[Kind::Stop, Kind::Throttle], account, who, why, false, now_ms)
    }

    /// A relay is out, as an outside system says: it counts as out until somebody puts it back, or at its longest. That is so, whatever
    /// the floor is. Of a relay that is out already, or in no pool, nothing comes.
    pub fn pulled(&mut self, relay: &str, who: &str, now_ms: i64) -> Vec<Change> {
        let found = self.settings.members().find(|(_, m)| m.relay == relay);
        let Some((pool, tenant)) = found.map(|(pool, m)| (pool.name.clone(), m.tenant.clone())) else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        match self.open(Kind::Pull, relay).cloned() {
            Some(open) if open.is_in_force(now_ms) => return changes,
            Some(open) => {
                let ended = super::decide::ended_at(open, now_ms, who, "it was pulled");
                changes.push(self.change(ended, None));
            }
            None => {}
        }
        let order = Order {
            kind: Kind::Pull,
            subject: relay.to_owned(),
            tenant: String::new(),
            incident: String::new(),
            for_s: 0,
            note: "an outside system pulled it".to_owned(),
        };
        let lasts_ms = i64::from(self.settings.pull.max_s) * 1000;
        changes.push(self.change(ordered(&order, tenant, pool, lasts_ms, who, now_ms), Some(Told::Done)));
        changes
    }

    /// A relay is back in its pool, as an outside system says.
    pub fn restored(&mut self, relay: &str, who: &str, why: &str, now_ms: i64) -> Vec<Change> {
        self.end_open(&[Kind::Pull], relay, who, why, false, now_ms)
    }

    /// An incident was none: what was done to its account for it ends, and nothing is held against it.
    pub fn acquitted(&mut self, account: &str, incident: &str, who: &str, now_ms: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        let ours: Vec<Measure> =
            self.of_accounts.values().filter(|m| m.subject == account && m.incident == incident).cloned().collect();
        for measure in ours {
            if measure.is_open() {
                changes.push(self.end(measure, now_ms, who, "the incident was no hijack", true));
            } else if let Some(mut ended) = measure.ended.clone().filter(|e| e.probation_until_ms.is_some()) {
                ended.probation_until_ms = None;
                changes.push(self.change(Measure { ended: Some(ended), ..measure }, None));
            }
        }
        changes.sort_by(|a, b| a.measure.id.cmp(&b.measure.id));
        changes
    }

    fn end_open(
        &mut self,
        kinds: &[Kind],
        subject: &str,
        who: &str,
        why: &str,
        is_innocent: bool,
        now_ms: i64,
    ) -> Vec<Change> {
        let open: Vec<Measure> = kinds.iter().filter_map(|kind| self.open(*kind, subject).cloned()).collect();
        open.into_iter().map(|m| self.end(m, now_ms, who, why, is_innocent)).collect()
    }

    fn known(&self, id: &str) -> Result<Measure, Refused> {
        let none = || Refused::Unknown("no such measure: /v1/measures lists them".to_owned());
        self.measure(id).cloned().ok_or_else(none)
    }

    fn may_go(&self, measure: &Measure) -> Result<(), Refused> {
        if measure.kind == Kind::Pull { self.has_room(&measure.subject) } else { Ok(()) }
    }

    fn has_room(&self, relay: &str) -> Result<(), Refused> {
        let found = self.settings.members().find(|(_, m)| m.relay == relay);
        let Some((pool, member)) = found else {
            return Err(Refused::Unknown("the relay is in no pool: relays.pool lists them".to_owned()));
        };
        self.floor(pool, member).map_err(|(floor, left)| {
            Refused::Conflict(format!(
                "pool {} would have too few relays, {left} are in and {floor} must stay: put another back first, or lower \
                 relays.pull.floor and floor_share",
                pool.name
            ))
        })
    }
}

/// The measure of an order.
fn ordered(order: &Order, tenant: String, pool: String, lasts_ms: i64, who: &str, now_ms: i64) -> Measure {
    let own = notice::id('p', &[order.kind.name(), &order.subject, who, &now_ms.to_string()]);
    Measure {
        v: 1,
        // One by a person beside one that was decided for the same incident.
        id: id(order.kind, &order.subject, &own),
        kind: order.kind,
        subject: order.subject.clone(),
        tenant,
        pool,
        incident: if order.incident.is_empty() { own } else { order.incident.clone() },
        accounts: Vec::new(),
        state: State::InForce,
        ts: Timestamp(now_ms),
        made_ms: now_ms,
        since_ms: Some(now_ms),
        done_ms: None,
        confirmed_by: None,
        until_ms: now_ms + lasts_ms,
        by: who.to_owned(),
        why: order.note.clone(),
        ended: None,
    }
}

/// The longest that somebody may order something for, in seconds.
pub const ORDER_MAX_S: u32 = 366 * (DAY_MS / 1000) as u32;
