//! Which message is sent when: a state machine without a clock, without chance and without I/O of its own.
//!
//! The schedule is the specification's: an attempt immediately, then after 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h and
//! 24 h, each delay longer or shorter by up to a tenth; after the tenth attempt a delivery is dead. Besides:
//!
//! * Within an incident one message waits for the one before it, until that is delivered or dead.
//! * After [`Limits::circuit_after`] failures in a row the circuit of an endpoint is open: one attempt at a time asks whether the
//!   receiver is back, after 1 s, then 2 s, up to every 60 s. It uses up nothing of the schedule. Each goes to the message that was
//!   tried longest ago. The first success closes the circuit, and everything that waits is due at once. A refusal (3xx, 4xx)
//!   closes it, too, but hastens nothing: the receiver is there.
//! * An answer with `retry-after` holds the whole endpoint so long and uses up nothing of the schedule.
//! * 410 disables the endpoint: what waits is held until [`Outbox::enable`].
//! * Whatever is older than [`Limits::age_max_ms`] is dead.
//! * What was delivered or is dead leaves the outbox, so that its memory is bounded by [`Limits::pending_max`] an endpoint.
//!
//! The circuit is not recorded: after a restart it is closed, and opens again after as many failures.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::lane::{Item, Lanes};
use super::outcome::Outcome;
use super::record::{Attempt, Change, Delivery, DeliveryRecord, EndpointRecord, Last, State};
use super::settings::Endpoint;

/// Delays before each attempt, in milliseconds (Standard Webhooks, "Deliverability and reliability"); their sum is 75:35:05.
pub const SCHEDULE_MS: [i64; 10] =
    [0, 5_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 36_000_000, 50_400_000, 72_000_000, 86_400_000];
/// A delay is longer or shorter by up to this share of it, so that messages that failed together do not return together.
pub const JITTER: f64 = 0.1;
/// From opening a circuit to its first probe, in milliseconds; doubled after each.
pub const PROBE_MS_MIN: i64 = 1_000;
/// The longest time between probes, in milliseconds.
pub const PROBE_MS_MAX: i64 = 60_000;

/// Bounds of an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Messages that wait at an endpoint; more are refused until some have left.
    pub pending_max: usize,
    /// Failures in a row (no answer, 408, 429, 5xx) that open the circuit.
    pub circuit_after: u32,
    /// Age at which a message is dead, in milliseconds.
    pub age_max_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pending_max: 50_000, circuit_after: 3, age_max_ms: 7 * 86_400_000 }
    }
}

/// What became of a delivery that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It waits.
    New,
    /// One of the same id waits already; this one changes nothing.
    Known,
}

/// A delivery that was not taken; it is handed back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAdded {
    /// Too many wait at the endpoint: add it again when some have left.
    #[error("{} messages wait at endpoint `{}`", .pending, .delivery.endpoint)]
    Full {
        /// The delivery.
        delivery: Box<Delivery>,
        /// How many wait.
        pending: usize,
    },
    /// No such endpoint.
    #[error("no endpoint `{}`", .delivery.endpoint)]
    Unknown {
        /// The delivery.
        delivery: Box<Delivery>,
    },
}

/// How an endpoint does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Messages that wait, those under way included.
    pub pending: usize,
    /// Attempts under way.
    pub in_flight: usize,
    /// When the oldest that waits was made, in Unix milliseconds.
    pub oldest_ms: Option<i64>,
    /// Failures since the last success.
    pub failures: u32,
    /// Whether only probes are sent.
    pub circuit_open: bool,
    /// Since when its receiver wants nothing more, in Unix milliseconds.
    pub disabled_ms: Option<i64>,
    /// Until when its receiver wants nothing, in Unix milliseconds.
    pub held_until_ms: Option<i64>,
}

#[derive(Debug)]
struct Circuit {
    wait_ms: i64,
    probe_ms: i64,
}

#[derive(Debug)]
struct Line {
    lanes: Lanes,
    concurrency: usize,
    in_flight: usize,
    failures: u32,
    circuit: Option<Circuit>,
    held_until_ms: i64,
    disabled_ms: Option<i64>,
}

#[derive(Debug)]
struct InFlight {
    endpoint: String,
    id: String,
    probe: bool,
}

/// Everything that waits to be delivered.
#[derive(Debug)]
pub struct Outbox {
    limits: Limits,
    lines: BTreeMap<String, Line>,
    in_flight: HashMap<u64, InFlight>,
    attempts: u64,
}

impl Outbox {
    /// An empty one for these endpoints.
    pub fn new(endpoints: &[Endpoint], limits: Limits) -> Self {
        let mut outbox = Self { limits, lines: BTreeMap::new(), in_flight: HashMap::new(), attempts: 0 };
        endpoints.iter().for_each(|endpoint| outbox.configure(endpoint));
        outbox
    }

    /// Takes an endpoint, or a change of its settings.
    pub fn configure(&mut self, endpoint: &Endpoint) {
        let concurrency = endpoint.concurrency.max(1) as usize;
        let line = self.lines.entry(endpoint.name.clone()).or_insert_with(|| Line {
            lanes: Lanes::default(),
            concurrency,
            in_flight: 0,
            failures: 0,
            circuit: None,
            held_until_ms: i64::MIN,
            disabled_ms: None,
        });
        line.concurrency = concurrency;
    }

    /// Takes a delivery that was never delivered (that is the caller's to know). Record it, as [`DeliveryRecord::new`], before the outbox is asked for what is due.
    ///
    /// # Errors
    /// Where it is not taken; the error hands it back. A full endpoint takes it when something has left.
    pub fn add(&mut self, delivery: Delivery) -> Result<Added, NotAdded> {
        let pending_max = self.limits.pending_max;
        let Some(line) = self.lines.get_mut(&delivery.endpoint) else {
            return Err(NotAdded::Unknown { delivery: Box::new(delivery) });
        };
        if line.lanes.get(&delivery.id).is_some() {
            return Ok(Added::Known);
        }
        let pending = line.lanes.len();
        if pending >= pending_max {
            return Err(NotAdded::Full { delivery: Box::new(delivery), pending });
        }
        let next_ms = delivery.not_before_ms;
        line.lanes.insert(Item { delivery, attempts: 0, next_ms, last: None, tried: 0, sealed: false });
        Ok(Added::New)
    }

    /// Takes back what was recorded before a restart, in any order; the bound on what waits does not hold for it. What was
    /// delivered or is dead is passed over. False where there is no such endpoint any more.
    pub fn restore(&mut self, record: DeliveryRecord) -> bool {
        let Some(line) = self.lines.get_mut(&record.endpoint) else { return false };
        if record.state == State::Pending && line.lanes.get(&record.id).is_none() {
            line.lanes.insert(item_of(record));
        }
        true
    }

    /// Takes back whether an endpoint is disabled.
    pub fn restore_endpoint(&mut self, record: &EndpointRecord) {
        if let Some(line) = self.lines.get_mut(&record.endpoint) {
            line.disabled_ms = record.disabled_ms;
        }
    }

    /// Whether the message of a delivery may still change: it waits, and no attempt has begun, nor can have before a restart.
    pub fn is_open(&self, endpoint: &str, id: &str) -> bool {
        self.lines.get(endpoint).and_then(|line| line.lanes.get(id)).is_some_and(|item| !item.sealed)
    }

    /// Lets the message of a restored delivery change again, where it waits until after `before_ms`, so that nobody can have begun
    /// to send it. Returns whether it may change.
    pub fn reopen(&mut self, endpoint: &str, id: &str, before_ms: i64) -> bool {
        if let Some(line) = self.lines.get_mut(endpoint) {
            line.lanes.update(id, |item| {
                let untouched = item.attempts == 0 && item.last.is_none() && item.tried == 0;
                item.sealed &= !(untouched && item.delivery.not_before_ms > before_ms);
            });
        }
        self.is_open(endpoint, id)
    }

    /// Sends a delivery that waits not later than so (it became urgent), and with it what comes before it. What it returns must
    /// be recorded; `None` where it does not wait.
    pub fn hasten(&mut self, endpoint: &str, id: &str, not_before_ms: i64) -> Option<DeliveryRecord> {
        let line = self.lines.get_mut(endpoint)?;
        line.lanes.hasten(id, not_before_ms);
        Some(line.lanes.get(id)?.record(State::Pending))
    }

    /// Gives up what is too old. Call it before [`Self::due`], and whenever [`Self::next_ms`] says.
    pub fn expire(&mut self, now_ms: i64) -> Vec<Change> {
        let mut changes = Vec::new();
        for line in self.lines.values_mut() {
            while let Some((created_ms, id)) = line.lanes.oldest() {
                if now_ms.saturating_sub(created_ms) < self.limits.age_max_ms {
                    break;
                }
                let id = id.to_owned();
                let Some(mut item) = line.lanes.remove(&id) else { break };
                let error = Some("too old".to_owned());
                let status = item.last.as_ref().and_then(|last| last.status);
                item.last = Some(Last { at_ms: now_ms, status, error });
                changes.push(Change::Dead(item.record(State::Dead)));
            }
        }
        changes
    }

    /// What to begin now; it counts as under way until [`Self::done`].
    pub fn due(&mut self, now_ms: i64) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        for (name, line) in &mut self.lines {
            while let Some((id, probe)) = line.next(now_ms) {
                self.attempts += 1;
                line.lanes.begin(&id, self.attempts);
                line.in_flight += 1;
                let Some(item) = line.lanes.get(&id) else { break };
                attempts.push(Attempt {
                    attempt: self.attempts,
                    endpoint: name.clone(),
                    incident: item.delivery.incident.clone(),
                    seq: item.delivery.seq,
                    attempts: item.attempts,
                    probe,
                    id: id.clone(),
                });
                self.in_flight.insert(self.attempts, InFlight { endpoint: name.clone(), id, probe });
            }
        }
        attempts
    }

    /// Takes how an attempt ended, with chance from `rng` (any 64 bits). What it returns must be recorded durably before the
    /// outbox is asked again for what is due. An attempt that is not under way changes nothing.
    pub fn done(&mut self, attempt: u64, outcome: &Outcome, now_ms: i64, rng: &mut dyn FnMut() -> u64) -> Vec<Change> {
        let Some(InFlight { endpoint, id, probe }) = self.in_flight.remove(&attempt) else { return Vec::new() };
        let Some(line) = self.lines.get_mut(&endpoint) else { return Vec::new() };
        line.in_flight = line.in_flight.saturating_sub(1);
        line.lanes.end(&id);
        if let Outcome::Delivered { status } = outcome {
            return line.delivered(&id, *status, now_ms).into_iter().collect();
        }
        line.fail(outcome, probe, now_ms, self.limits.circuit_after);
        let mut changes = Vec::new();
        line.lanes.update(&id, |item| item.fail(outcome, probe, now_ms, rng));
        if let Some(item) = line.lanes.get(&id) {
            changes.push(if item.attempts as usize >= SCHEDULE_MS.len() {
                Change::Dead(item.record(State::Dead))
            } else {
                Change::Failed(item.record(State::Pending))
            });
        }
        if matches!(changes.last(), Some(Change::Dead(_))) {
            line.lanes.remove(&id);
        }
        if *outcome == Outcome::Gone {
            changes.extend(self.disable(&endpoint, now_ms));
        }
        changes
    }

    /// The receiver wants nothing more: what waits is held. Nothing where that was so, or there is no such endpoint.
    pub fn disable(&mut self, endpoint: &str, now_ms: i64) -> Option<Change> {
        let line = self.lines.get_mut(endpoint).filter(|line| line.disabled_ms.is_none())?;
        line.disabled_ms = Some(now_ms);
        Some(Change::Disabled(EndpointRecord { v: 1, endpoint: endpoint.to_owned(), disabled_ms: Some(now_ms) }))
    }

    /// When to ask again without an attempt having ended, in Unix milliseconds: something is due then, or too old.
    /// `None`: nothing is to do until one ends or something is added. It may lie in the past: then at once.
    pub fn next_ms(&self) -> Option<i64> {
        let age_max_ms = self.limits.age_max_ms;
        let of = |line: &Line| {
            let dead_ms = line.lanes.oldest().map(|(created_ms, _)| created_ms.saturating_add(age_max_ms));
            [line.next_ms(), dead_ms].into_iter().flatten().min()
        };
        self.lines.values().filter_map(of).min()
    }

    /// Enables an endpoint again: everything that waits is due at once. Empty where it was enabled.
    pub fn enable(&mut self, endpoint: &str, now_ms: i64) -> Vec<Change> {
        let Some(line) = self.lines.get_mut(endpoint).filter(|line| line.disabled_ms.is_some()) else {
            return Vec::new();
        };
        line.disabled_ms = None;
        line.recover(now_ms);
        line.held_until_ms = i64::MIN;
        vec![Change::Enabled(EndpointRecord { v: 1, endpoint: endpoint.to_owned(), disabled_ms: None })]
    }

    /// Sends a message again, under its id: one that waits is due at once, one that was delivered or is dead waits anew. Either
    /// begins the schedule from its start, and its age. `None` where there is no such endpoint, or it is under way.
    pub fn resend(&mut self, mut record: DeliveryRecord, now_ms: i64) -> Option<Change> {
        let line = self.lines.get_mut(&record.endpoint)?;
        if line.lanes.get(&record.id).is_some() && line.lanes.is_busy(&record.incident) {
            return None;
        }
        if let Some(item) = line.lanes.remove(&record.id) {
            record = item.record(State::Pending);
        }
        (record.attempts, record.next_ms, record.created_ms, record.state) = (0, now_ms, now_ms, State::Pending);
        line.lanes.insert(item_of(record.clone()));
        Some(Change::Resent(record))
    }

    /// How an endpoint does; `None` where there is none of the name.
    pub fn health(&self, endpoint: &str) -> Option<Health> {
        let line = self.lines.get(endpoint)?;
        Some(Health {
            pending: line.lanes.len(),
            in_flight: line.in_flight,
            oldest_ms: line.lanes.oldest().map(|(created_ms, _)| created_ms),
            failures: line.failures,
            circuit_open: line.circuit.is_some(),
            disabled_ms: line.disabled_ms,
            held_until_ms: Some(line.held_until_ms).filter(|&at| at != i64::MIN),
        })
    }
}

/// What was recorded, as something that waits. Its message may have been sent: it is sealed. What it was held for is in `next_ms`.
fn item_of(record: DeliveryRecord) -> Item {
    let DeliveryRecord { endpoint, id, incident, seq, created_ms, attempts, next_ms, last, .. } = record;
    // Before the first attempt the next one waits for what holds it only; afterwards nothing holds it.
    let not_before_ms = if attempts == 0 && last.is_none() { next_ms } else { created_ms };
    let delivery = Delivery { endpoint, id, incident, seq, created_ms, not_before_ms };
    Item { delivery, attempts, next_ms, last, tried: 0, sealed: true }
}

impl Item {
    fn fail(&mut self, outcome: &Outcome, probe: bool, now_ms: i64, rng: &mut dyn FnMut() -> u64) {
        let (status, error, after) = match outcome {
            Outcome::Delivered { .. } => return,
            Outcome::Retry { status, after, why } => (*status, why.clone(), *after),
            Outcome::Gone => (Some(410), "answered 410: the receiver wants nothing more".to_owned(), None),
            Outcome::Refused { status, why } => (Some(*status), why.clone(), None),
            Outcome::Blocked { why } => (None, why.clone(), None),
        };
        self.last = Some(Last { at_ms: now_ms, status, error: Some(error) });
        if let Some(after) = after {
            self.next_ms = now_ms.saturating_add(whole_ms(after));
        } else if *outcome != Outcome::Gone && !(probe && matches!(outcome, Outcome::Retry { .. })) {
            self.attempts += 1;
            let delay_ms = SCHEDULE_MS.get(self.attempts as usize).copied().unwrap_or(0);
            self.next_ms = now_ms.saturating_add(jittered_ms(delay_ms, rng));
        }
    }
}

impl Line {
    /// What to begin next, and whether it is a probe.
    fn next(&self, now_ms: i64) -> Option<(String, bool)> {
        if self.disabled_ms.is_some() || now_ms < self.held_until_ms || self.in_flight >= self.concurrency {
            return None;
        }
        let Some(circuit) = &self.circuit else {
            let (at_ms, item) = self.lanes.first()?;
            return (at_ms <= now_ms).then(|| (item.delivery.id.clone(), false));
        };
        // Attempts from before the circuit opened tell as much as a probe would.
        if self.in_flight > 0 || now_ms < circuit.probe_ms {
            return None;
        }
        let item = self.lanes.to_probe(now_ms)?;
        Some((item.delivery.id.clone(), true))
    }

    fn next_ms(&self) -> Option<i64> {
        if self.disabled_ms.is_some() || self.in_flight >= self.concurrency {
            return None;
        }
        match &self.circuit {
            None => self.lanes.first().map(|(at_ms, _)| at_ms.max(self.held_until_ms)),
            Some(_) if self.in_flight > 0 => None,
            Some(circuit) => self.lanes.probe_ms(circuit.probe_ms.max(self.held_until_ms)),
        }
    }

    fn delivered(&mut self, id: &str, status: u16, now_ms: i64) -> Option<Change> {
        let mut item = self.lanes.remove(id)?;
        item.last = Some(Last { at_ms: now_ms, status: Some(status), error: None });
        if self.circuit.is_some() {
            self.recover(now_ms);
        }
        self.failures = 0;
        Some(Change::Delivered(item.record(State::Delivered)))
    }

    /// The receiver is there: nothing waits for what it was not.
    fn recover(&mut self, now_ms: i64) {
        self.circuit = None;
        self.failures = 0;
        self.lanes.all_due(now_ms);
    }

    fn fail(&mut self, outcome: &Outcome, probe: bool, now_ms: i64, circuit_after: u32) {
        if let Outcome::Retry { after, .. } = outcome {
            self.failures = self.failures.saturating_add(1);
            if let Some(after) = after {
                self.held_until_ms = self.held_until_ms.max(now_ms.saturating_add(whole_ms(*after)));
            }
        }
        if matches!(outcome, Outcome::Refused { .. } | Outcome::Blocked { .. }) {
            // It is there, or is not asked at all: waiting for its return is not what helps.
            (self.circuit, self.failures) = (None, 0);
        }
        match &mut self.circuit {
            Some(circuit) if probe => {
                circuit.wait_ms = (circuit.wait_ms * 2).min(PROBE_MS_MAX);
                circuit.probe_ms = now_ms.saturating_add(circuit.wait_ms);
            }
            Some(_) => {}
            None if self.failures >= circuit_after => {
                let probe_ms = now_ms.saturating_add(PROBE_MS_MIN);
                self.circuit = Some(Circuit { wait_ms: PROBE_MS_MIN, probe_ms });
            }
            None => {}
        }
    }
}

fn whole_ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A delay, longer or shorter by up to [`JITTER`] of it.
fn jittered_ms(delay_ms: i64, rng: &mut dyn FnMut() -> u64) -> i64 {
    let share = (rng() >> 11) as f64 / (1u64 << 53) as f64;
    (delay_ms as f64 * (1.0 + JITTER * (2.0 * share - 1.0))).round() as i64
}
