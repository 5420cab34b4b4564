//! What is in force now: what every hand answers from, on every instance. Pure; the time is an argument.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::known::Known;
use super::measure::{Kind, Measure, Mode, State};

/// Bytes of contacts of throttled accounts; those of further ones are not kept, and everybody counts as new to them.
const KNOWN_BYTES_MAX: usize = 64 << 20;

/// The measures in force, by whom they are about. An account that is stopped and throttled is stopped.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    stopped: HashMap<Box<str>, Arc<Measure>>,
    throttled: HashMap<Box<str>, Arc<Measure>>,
    pulled: HashMap<Box<str>, Arc<Measure>>,
    /// Whom throttled accounts know, by the throttle's id.
    known: HashMap<Box<str>, Arc<Known>>,
    version: u64,
}

impl Standing {
    /// Takes in a measure as it stands now, in the place of what was known of its subject and kind. One that ended takes only
    /// itself out, never a later one about the same subject.
    pub fn take(&mut self, measure: Measure) {
        let of_kind = match measure.kind {
            Kind::Stop => &mut self.stopped,
            Kind::Throttle => &mut self.throttled,
            Kind::Pull => &mut self.pulled,
        };
        let known = of_kind.get(&*measure.subject);
        if measure.state == State::InForce {
            if known.is_none_or(|k| k.id == measure.id || k.made_ms <= measure.made_ms) {
                of_kind.insert(measure.subject.as_str().into(), Arc::new(measure));
                self.version += 1;
            }
        } else if known.is_some_and(|k| k.id == measure.id) {
            of_kind.remove(&*measure.subject);
            self.version += 1;
        }
    }

    /// Takes in whom the account of this throttle knows. Returns whether there was room.
    pub fn take_known(&mut self, throttle: &str, known: Known) -> bool {
        self.known.remove(throttle);
        let bytes: usize = self.known.values().map(|k| k.heap_bytes()).sum();
        let has_room = bytes + known.heap_bytes() <= KNOWN_BYTES_MAX;
        if has_room {
            self.known.insert(throttle.into(), Arc::new(known));
        }
        has_room
    }

    /// Whom the account of this throttle knows; `None` where nobody has said that yet.
    pub fn known(&self, throttle: &str) -> Option<&Arc<Known>> {
        self.known.get(throttle)
    }

    /// Takes that out.
    pub fn forget_known(&mut self, throttle: &str) {
        self.known.remove(throttle);
    }

    /// Takes a measure out, whatever it was about: its record is gone.
    pub fn forget(&mut self, id: &str) {
        let before = self.len();
        for of_kind in [&mut self.stopped, &mut self.throttled, &mut self.pulled] {
            of_kind.retain(|_, m| m.id != id);
        }
        self.version += u64::from(self.len() != before);
    }

    /// Puts all that was read anew in the place of what was known.
    pub fn replace(&mut self, other: Self) {
        let version = self.version + 1;
        *self = Self { version, ..other };
    }

    /// Lets go what has expired by `now_ms`.
    pub fn sweep(&mut self, now_ms: i64) {
        let before = self.len();
        for of_kind in [&mut self.stopped, &mut self.throttled, &mut self.pulled] {
            of_kind.retain(|_, m| m.is_in_force(now_ms));
        }
        self.version += u64::from(self.len() != before);
        if !self.known.is_empty() {
            let throttled: HashSet<&str> = self.throttled.values().map(|m| &*m.id).collect();
            self.known.retain(|id, _| throttled.contains(&**id));
        }
    }

    /// What is in force about an account, as folded, for a hand of this mode: a stop, else a throttle.
    pub fn account(&self, account: &str, hand: Mode, now_ms: i64) -> Option<&Arc<Measure>> {
        let in_force = |m: &&Arc<Measure>| m.is_in_force(now_ms) && m.is_for(hand);
        self.stopped.get(account).filter(in_force).or_else(|| self.throttled.get(account).filter(in_force))
    }

    /// The pull in force of a relay.
    pub fn relay(&self, relay: &str, now_ms: i64) -> Option<&Arc<Measure>> {
        self.pulled.get(relay).filter(|m| m.is_in_force(now_ms))
    }

    /// All that is in force of a kind, by subject.
    pub fn all(&self, kind: Kind, now_ms: i64) -> Vec<&Arc<Measure>> {
        let of_kind = match kind {
            Kind::Stop => &self.stopped,
            Kind::Throttle => &self.throttled,
            Kind::Pull => &self.pulled,
        };
        let mut all: Vec<_> = of_kind.values().filter(|m| m.is_in_force(now_ms)).collect();
        all.sort_by(|a, b| a.subject.cmp(&b.subject));
        all
    }

    /// Goes up with every change; what expires shows with [`Standing::sweep`].
    pub fn version(&self) -> u64 {
        self.version
    }

    fn len(&self) -> usize {
        self.stopped.len() + self.throttled.len() + self.pulled.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;

    fn measure(id: &str, kind: Kind, subject: &str, made_ms: i64, state: State) -> Measure {
        Measure {
            v: 1,
            id: id.to_owned(),
            kind,
            subject: subject.to_owned(),
            tenant: String::new(),
            pool: String::new(),
            incident: "i-1".to_owned(),
            accounts: Vec::new(),
            state,
            ts: Timestamp(made_ms),
            made_ms,
            since_ms: Some(made_ms),
            done_ms: None,
            confirmed_by: None,
            until_ms: made_ms + 1000,
            by: "mailfuse".to_owned(),
            why: String::new(),
            ended: None,
        }
    }

    #[test]
    fn a_hand_serves_what_its_mode_lets_it() {
        // Who decided, who confirmed, and whom hands in shadow, confirm and auto stop then; another measure may be served in its
        // place.
        for (by, confirmed_by, served) in [
            ("mailfuse", None, [None, None, Some("m-1")]),
            ("mailfuse", Some("bob"), [None, Some("m-1"), Some("m-1")]),
            ("bob", None, [None, Some("m-1"), Some("m-1")]),
            ("bob", Some("bob"), [None, Some("m-1"), Some("m-1")]),
        ] {
            let mut standing = Standing::default();
            let made = measure("m-1", Kind::Stop, "ann", 0, State::InForce);
            standing.take(Measure { by: by.to_owned(), confirmed_by: confirmed_by.map(str::to_owned), ..made });
            for (mode, served) in [Mode::Shadow, Mode::Confirm, Mode::Auto].into_iter().zip(served) {
                assert_eq!(
                    standing.account("ann", mode, 500).map(|m| &*m.id),
                    served,
                    "{by} {confirmed_by:?} {mode:?}"
                );
            }
            let throttle = measure("m-2", Kind::Throttle, "ann", 0, State::InForce);
            standing.take(Measure { by: "bob".to_owned(), ..throttle });
            let beside = standing.account("ann", Mode::Confirm, 500).map(|m| &*m.id);
            assert_eq!(beside, Some(served[1].unwrap_or("m-2")), "a person's throttle beside it");
        }
    }

    #[test]
    fn what_is_in_force_ends_by_its_record_or_its_expiry_and_by_no_older_one() {
        let mut standing = Standing::default();
        standing.take(measure("m-1", Kind::Stop, "ann", 0, State::InForce));
        standing.take(measure("m-2", Kind::Throttle, "ann", 0, State::InForce));
        standing.take(measure("m-3", Kind::Pull, "out-1", 0, State::InForce));
        standing.take(measure("m-4", Kind::Stop, "bob", 0, State::Shadow));
        let account = |standing: &Standing, name: &str, now_ms| standing.account(name, Mode::Auto, now_ms).cloned();
        assert_eq!(account(&standing, "ann", 500).map(|m| m.kind), Some(Kind::Stop));
        assert!(account(&standing, "bob", 500).is_none() && standing.relay("ann", 500).is_none());
        assert!(standing.relay("out-1", 999).is_some() && standing.relay("out-1", 1000).is_none());

        standing.take(measure("m-5", Kind::Stop, "ann", 400, State::InForce));
        standing.take(measure("m-1", Kind::Stop, "ann", 0, State::Ended));
        assert_eq!(account(&standing, "ann", 1200).map(|m| m.id.clone()), Some("m-5".to_owned()));
        let version = standing.version();
        standing.take(measure("m-5", Kind::Stop, "ann", 400, State::Ended));
        assert_eq!(account(&standing, "ann", 500).map(|m| m.kind), Some(Kind::Throttle), "it comes to light again");
        assert!(standing.version() > version);
        standing.sweep(1000);
        assert!(standing.all(Kind::Throttle, 500).is_empty() && standing.all(Kind::Pull, 500).is_empty());
    }
}
