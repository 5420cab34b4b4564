//! The decision: which accounts are stopped, which relays are pulled, and when that ends. Pure: time is an argument.
//!
//! All that a [`Decider`] knows is in the measures that it gave, so that one restored from them goes on as if nothing had happened.
//! The account comes first: a relay that is pulled while the account still sends only burns the next one.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::measure::{Ended, Kind, Measure, Mode, State};
use super::settings::Settings;
use crate::core::alert::Severity;
use crate::desk::notice::{self, AccountShare};
use crate::event::Timestamp;

/// Who decides where no person does.
pub const BY: &str = "mailfuse";
/// Measures about accounts that are known at a time; where there is no room, what ended longest ago makes some.
pub const MEASURES_MAX: usize = 100_000;
/// What waits for a person waits for a day, in milliseconds.
pub(super) const ASK_MS: i64 = 86_400_000;
pub(super) const HOUR_MS: i64 = 3_600_000;
pub(super) const DAY_MS: i64 = 86_400_000;

/// A flag of an account, as the desk knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag<'a> {
    /// The account as folded.
    pub account: &'a str,
    /// Its customer.
    pub tenant: &'a str,
    /// Its incident.
    pub incident: &'a str,
    /// How bad.
    pub severity: Severity,
    /// Event time that decided it.
    pub ts: Timestamp,
    /// Whether it was flagged while the stream itself had changed.
    pub is_doubtful: bool,
}

/// What a relay bears, over the last [`super::settings::Pulls::window_s`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Burden {
    /// Its name, as its pool has it.
    pub relay: String,
    /// Recipients that it carried.
    pub carried: u64,
    /// Messages that it carried of accounts that are not flagged.
    pub others: u64,
    /// Recipients of bursts that stand, by account.
    pub burst: Vec<BurstShare>,
    /// Refusals that blame its address, by family of receivers.
    pub refused: Vec<(String, u64)>,
    /// Event time of the last of them.
    pub refused_ts: Timestamp,
}

/// What one account's burst put on a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BurstShare {
    /// The account as folded.
    pub account: String,
    /// Its customer.
    pub tenant: String,
    /// Its incident.
    pub incident: String,
    /// Recipients.
    pub recipients: u64,
    /// Event time of the last of them.
    pub ts: Timestamp,
}

/// Somebody's order that nothing is pulled without a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Always 1.
    pub v: u8,
    /// Until when, in milliseconds since 1970.
    pub until_ms: i64,
    /// Whose.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A measure that has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// As it is now.
    pub measure: Measure,
    /// What is to be told of it; `None` where nobody needs to know.
    pub told: Option<Told>,
}

/// What is told of a measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Told {
    /// A person must confirm.
    Asked,
    /// It is in force.
    Done,
    /// What was in force has ended.
    Over,
}

/// Something was not done without a person, because there was too much of it. Told once an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capped {
    /// Of what: `stops`, or the pool.
    pub what: String,
    /// The hour since 1970.
    pub hour: i64,
    /// Event time that decided it.
    pub ts: Timestamp,
    /// How many, and which bound.
    pub text: String,
    /// What the bound is.
    pub limit: u32,
    /// How many there were.
    pub observed: u64,
}

/// What comes of something.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// Measures that have changed, in order.
    pub changes: Vec<Change>,
    /// What was too much.
    pub capped: Vec<Capped>,
}

/// Decides, and knows what was decided.
#[derive(Debug, Default)]
pub struct Decider {
    pub(super) settings: Settings,
    /// Stops and throttles, by id.
    pub(super) of_accounts: HashMap<String, Measure>,
    /// Pulls, by id.
    pub(super) of_relays: BTreeMap<String, Measure>,
    /// The open one of a subject, by id.
    pub(super) open: BTreeMap<(Kind, String), String>,
    pub(super) hold: Option<Hold>,
    /// Of what it was said in which hour that it was too much.
    pub(super) said: HashMap<String, i64>,
    /// Relays that carried nothing while others in their place carried much, as it was last looked.
    pub(super) silent: HashSet<String>,
}

/// The id of a measure.
pub fn id(kind: Kind, subject: &str, incident: &str) -> String {
    notice::id('m', &[kind.name(), subject, incident])
}

impl Decider {
    /// With nothing decided yet.
    pub fn new(settings: &Settings) -> Self {
        Self { settings: settings.clone(), ..Self::default() }
    }

    /// Takes in a measure that was decided, by this one or one before it.
    pub fn restore(&mut self, measure: Measure) {
        self.put(measure);
    }

    /// Takes in whether pulls are held off.
    pub fn restore_hold(&mut self, hold: Option<Hold>) {
        self.hold = hold;
    }

    /// Takes out a measure whose record is gone.
    pub fn remove(&mut self, id: &str) {
        let gone = self.of_accounts.remove(id).or_else(|| self.of_relays.remove(id));
        if let Some(gone) = gone {
            let key = (gone.kind, gone.subject);
            if self.open.get(&key).is_some_and(|open| open == id) {
                self.open.remove(&key);
            }
        }
    }

    /// One measure.
    pub fn measure(&self, id: &str) -> Option<&Measure> {
        self.of_accounts.get(id).or_else(|| self.of_relays.get(id))
    }

    /// All measures, in no order.
    pub fn measures(&self) -> impl Iterator<Item = &Measure> {
        self.of_accounts.values().chain(self.of_relays.values())
    }

    /// The measure of a subject that has not ended.
    pub fn open(&self, kind: Kind, subject: &str) -> Option<&Measure> {
        self.open.get(&(kind, subject.to_owned())).and_then(|id| self.measure(id))
    }

    /// Whether pulls are held off at `now_ms`.
    pub fn is_held(&self, now_ms: i64) -> bool {
        self.hold.as_ref().is_some_and(|hold| now_ms < hold.until_ms)
    }

    /// Keeps a measure as it is now.
    pub(super) fn put(&mut self, measure: Measure) {
        let key = (measure.kind, measure.subject.clone());
        if measure.is_open() {
            self.open.insert(key, measure.id.clone());
        } else if self.open.get(&key) == Some(&measure.id) {
            self.open.remove(&key);
        }
        if measure.kind == Kind::Pull {
            self.of_relays.insert(measure.id.clone(), measure);
        } else {
            self.of_accounts.insert(measure.id.clone(), measure);
        }
    }

    pub(super) fn change(&mut self, measure: Measure, told: Option<Told>) -> Change {
        self.put(measure.clone());
        Change { measure, told }
    }

    /// Takes a flag: flagged or escalated, or that the burst goes on of which a measure came too late. Nothing else comes of one that
    /// was decided about, nor of one whose account is stopped.
    pub fn flagged(&mut self, flag: &Flag<'_>, now_ms: i64) -> Outcome {
        let mut outcome = Outcome::default();
        let again = flag.severity == Severity::Warning && self.is_on_probation(flag.account, now_ms);
        let kind = match flag.severity {
            Severity::Critical => Kind::Stop,
            Severity::Warning if again => Kind::Stop,
            Severity::Warning if self.settings.stop.throttle => Kind::Throttle,
            Severity::Warning => return outcome,
        };
        let id = id(kind, flag.account, flag.incident);
        let is_late = self.is_late(flag.ts, now_ms);
        if self.of_accounts.get(&id).is_some_and(|known| is_late || !known.came_too_late()) {
            return outcome;
        }
        if self.of_accounts.len() >= MEASURES_MAX {
            let text = format!(
                "{MEASURES_MAX} measures about accounts are known, there is no room for further ones: nothing is done about whoever \
                 is flagged now, until some are over"
            );
            self.capped("measures", flag.ts, now_ms, text, MEASURES_MAX as u32, MEASURES_MAX as u64, &mut outcome);
            return outcome;
        }
        let (mut state, mut why) =
            if is_late { (State::Shadow, String::new()) } else { self.goes(flag, now_ms, &mut outcome) };
        if let Some(open) = self.open(kind, flag.account).filter(|open| open.id != id) {
            // An older one that nobody serves makes room for one that somebody does.
            if rank(open.state) >= rank(state) {
                return outcome;
            }
            let old = open.clone();
            let ended = ended_at(old, now_ms, BY, "a later incident of the account is in its place");
            outcome.changes.push(self.change(ended, None));
        }
        if again {
            why = format!("a warning while the account is on probation{}{why}", if why.is_empty() { "" } else { "; " });
        } else if why.is_empty() {
            why = format!("its incident is {}", if kind == Kind::Stop { "critical" } else { "a warning" });
        }
        if is_late {
            (state, why) = (State::Shadow, format!("{why}; it happened too long ago to act on (relays.act_within_s)"));
        }
        let told = match state {
            State::InForce => Some(Told::Done),
            // Where a cap or the stream is why, that is said once for all.
            State::Asked if self.settings.mode_of_tenant(flag.tenant) == Mode::Confirm => Some(Told::Asked),
            _ => None,
        };
        let measure = Measure {
            v: 1,
            id,
            kind,
            subject: flag.account.to_owned(),
            tenant: flag.tenant.to_owned(),
            pool: String::new(),
            incident: flag.incident.to_owned(),
            accounts: Vec::new(),
            state,
            ts: flag.ts,
            made_ms: now_ms,
            since_ms: (state != State::Asked && !is_late).then_some(now_ms),
            done_ms: None,
            confirmed_by: None,
            until_ms: now_ms + if state == State::Asked { ASK_MS } else { self.lasts_ms(kind) },
            by: BY.to_owned(),
            why,
            ended: None,
        };
        outcome.changes.push(self.change(measure, told));
        outcome
    }

    /// Whether what happened at `ts` is too long ago to act on.
    pub(super) fn is_late(&self, ts: Timestamp, now_ms: i64) -> bool {
        now_ms.saturating_sub(ts.0) > i64::from(self.settings.act_within_s) * 1000
    }

    /// Whether an account's measure for an incident came too late to be done, and could be now that its burst goes on.
    pub fn came_too_late(&self, account: &str, incident: &str) -> bool {
        let of = |kind| self.of_accounts.get(&id(kind, account, incident));
        of(Kind::Stop).or_else(|| of(Kind::Throttle)).is_some_and(Measure::came_too_late)
    }

    /// How far a measure about an account goes, and the reason where it goes less far than its mode says.
    fn goes(&mut self, flag: &Flag<'_>, now_ms: i64, outcome: &mut Outcome) -> (State, String) {
        match self.settings.mode_of_tenant(flag.tenant) {
            Mode::Shadow => return (State::Shadow, String::new()),
            Mode::Confirm => return (State::Asked, String::new()),
            Mode::Auto => {}
        }
        if flag.is_doubtful {
            return (State::Asked, "the stream itself has changed: a person confirms".to_owned());
        }
        let recent = |m: &&Measure| {
            m.since_ms.is_some_and(|at| at > now_ms - HOUR_MS)
                && m.by == BY
                && m.confirmed_by.is_none()
                && (m.state == State::InForce || m.ended.is_some())
        };
        let recent: Vec<&Measure> = self.of_accounts.values().filter(recent).collect();
        let of_tenant = recent.iter().filter(|m| m.tenant == flag.tenant).count() as u64;
        let stop = &self.settings.stop;
        let (limit, observed, whose) = if recent.len() as u64 >= u64::from(stop.per_hour) {
            (stop.per_hour, recent.len() as u64, "the fleet's".to_owned())
        } else if of_tenant >= u64::from(stop.tenant_per_hour) {
            (stop.tenant_per_hour, of_tenant, format!("{}'s", flag.tenant))
        } else {
            return (State::InForce, String::new());
        };
        let text = format!(
            "{observed} accounts were stopped within an hour, {whose} cap is {limit}: further ones wait for a person \
             (mailfuse accounts list, mailfuse accounts confirm)"
        );
        self.capped("stops", flag.ts, now_ms, text, limit, observed, outcome);
        (State::Asked, format!("{whose} cap of {limit} stops an hour is reached: a person confirms"))
    }

    #[allow(clippy::too_many_arguments, reason = "each is a field of what is said")]
    pub(super) fn capped(
        &mut self,
        what: &str,
        ts: Timestamp,
        now_ms: i64,
        text: String,
        limit: u32,
        observed: u64,
        outcome: &mut Outcome,
    ) {
        let hour = now_ms / HOUR_MS;
        if self.said.insert(what.to_owned(), hour) != Some(hour) {
            outcome.capped.push(Capped { what: what.to_owned(), hour, ts, text, limit, observed });
        }
    }

    pub(super) fn lasts_ms(&self, kind: Kind) -> i64 {
        let seconds = match kind {
            Kind::Stop => self.settings.stop.max_s,
            Kind::Throttle => self.settings.stop.throttle_max_s,
            Kind::Pull => self.settings.pull.renew_s.max(self.settings.pull.min_s),
        };
        i64::from(seconds) * 1000
    }

    /// Whether an account was stopped for a reason, and released not long ago.
    pub fn is_on_probation(&self, account: &str, now_ms: i64) -> bool {
        let until = |m: &Measure| m.ended.as_ref().and_then(|e| e.probation_until_ms);
        self.of_accounts.values().any(|m| m.subject == account && until(m).is_some_and(|until| now_ms < until))
    }

    /// Ends what has expired, and decides about relays. A burden that is missing is none.
    pub fn tick(&mut self, burdens: &[Burden], is_doubtful: bool, now_ms: i64) -> Outcome {
        let mut outcome = self.relays(burdens, is_doubtful, now_ms);
        outcome.changes.extend(self.expire(now_ms));
        outcome
    }

    /// Ends what has expired, and nothing else: for as long as it is not known what relays bear.
    pub fn expire(&mut self, now_ms: i64) -> Vec<Change> {
        let open = self.open.values().filter_map(|id| self.measure(id));
        let over: Vec<Measure> = open.filter(|m| m.until_ms <= now_ms).cloned().collect();
        let why =
            |m: &Measure| if m.state == State::Asked { "nobody confirmed it" } else { "its longest time is over" };
        over.into_iter()
            .map(|measure| (why(&measure), measure))
            .map(|(why, m)| self.end(m, now_ms, BY, why, false))
            .collect()
    }

    /// Ends a measure. What was in force is told; an account that was stopped for a reason is on probation afterwards.
    pub(super) fn end(&mut self, measure: Measure, now_ms: i64, by: &str, why: &str, is_innocent: bool) -> Change {
        let was = measure.state;
        let mut measure = ended_at(measure, now_ms, by, why);
        let probation_ms = i64::from(self.settings.stop.probation_s) * 1000;
        if was == State::InForce
            && measure.kind == Kind::Stop
            && !is_innocent
            && let Some(ended) = &mut measure.ended
        {
            ended.probation_until_ms = Some(now_ms + probation_ms);
        }
        self.change(measure, (was == State::InForce).then_some(Told::Over))
    }

    /// Forgets what ended before `before_ms`, and what is too much. Returns the ids whose records go.
    pub fn forget(&mut self, before_ms: i64) -> Vec<String> {
        let mut ended: Vec<(i64, String)> =
            self.measures().filter_map(|m| Some((m.ended.as_ref()?.at_ms, m.id.clone()))).collect();
        ended.sort_unstable();
        // Half of the room is for what comes before it is looked again.
        let surplus = (self.of_accounts.len() + self.of_relays.len()).saturating_sub(MEASURES_MAX / 2);
        let gone: Vec<String> = ended
            .into_iter()
            .enumerate()
            .filter(|(i, (at_ms, _))| *at_ms < before_ms || *i < surplus)
            .map(|(_, (_, id))| id)
            .collect();
        for id in &gone {
            self.remove(id);
        }
        gone
    }
}

fn rank(state: State) -> u8 {
    match state {
        State::Ended => 0,
        State::Shadow => 1,
        State::Asked => 2,
        State::InForce => 3,
    }
}

pub(super) fn ended_at(mut measure: Measure, now_ms: i64, by: &str, why: &str) -> Measure {
    let was = Some(std::mem::replace(&mut measure.state, State::Ended));
    measure.ended =
        Some(Ended { at_ms: now_ms, by: by.to_owned(), why: why.to_owned(), was, probation_until_ms: None });
    measure
}

/// Who burdens a relay, most recipients first.
pub(super) fn shares(burst: &[&BurstShare]) -> Vec<AccountShare> {
    let mut shares: Vec<AccountShare> = burst
        .iter()
        .map(|b| AccountShare { account: b.account.clone(), incident: b.incident.clone(), recipients: b.recipients })
        .collect();
    shares.sort_by(|a, b| b.recipients.cmp(&a.recipients).then_with(|| a.account.cmp(&b.account)));
    shares.truncate(notice::ACCOUNTS_MAX);
    shares
}
