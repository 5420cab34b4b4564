//! Whom the active desk tells when something is stopped, released, pulled or restored: programs that it runs, and receivers to
//! which it posts ([`Callee`]).
//!
//! What is owed is a pure function of the measures and of what was done ([`Ledger`]); [`Hooks`] does it. A call is recorded
//! before it begins and again when it has ended, so that a desk that takes over knows of it: it is made again with the same
//! idempotency key, never forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use serde::{Deserialize, Serialize};

use super::callee::{Callee, Ending, Verdict};
use super::settings::Verb;
use crate::relays::measure::{Kind, Measure, Mode, State};
use crate::telemetry::Metrics;

/// Calls at a time.
pub const CALLS_MAX: usize = 4;
/// Attempts at a call for a beginning; those for an end go on.
pub const ATTEMPTS_MAX: u32 = 20;
/// After so many attempts at an end people are told.
pub const TELL_AFTER: u32 = 5;
/// Of a call that is tried again so many different answers are noted.
const NOTED_MAX: u32 = 5;
/// Bytes of what is told; a pull that many accounts made necessary names fewer of them.
const INPUT_BYTES_MAX: usize = 16_000;
/// What is not told because of a mode is remembered so often; then it may be counted again.
const WITHHELD_MAX: usize = 10_000;
/// The waits before further attempts, in milliseconds: the first, and the longest.
const AGAIN_MS: (i64, i64) = (5_000, 300_000);
/// What ended so lately is news to a hook that was not called for its beginning, in milliseconds.
const FRESH_MS: i64 = 600_000;
/// What ended is remembered for so long, in milliseconds.
const KEEP_MS: i64 = 30 * 86_400_000;

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It was begun; how it ended is not known.
    Begun,
    /// It is to be tried later: whoever was told wants that, took too long, or could not be told.
    Later,
    /// It is done.
    Done,
    /// It was refused, or tried too often. Of an end only an older program leaves it so.
    Failed,
}

/// A call, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Always 1.
    pub v: u8,
    /// The name of the hook or webhook.
    pub hook: String,
    /// The measure's id.
    pub measure: String,
    /// What for.
    pub verb: Verb,
    /// Where it stands.
    pub stage: Stage,
    /// Attempts begun.
    pub attempts: u32,
    /// When it last changed, in milliseconds since 1970.
    pub at_ms: i64,
    /// Of [`Stage::Later`]: not before, in milliseconds since 1970.
    #[serde(default)]
    pub not_before_ms: i64,
    /// How the last attempt that has ended did so, in words, with what was answered.
    #[serde(default)]
    pub said: String,
    /// How often that was another answer than the one before.
    #[serde(default)]
    pub answers: u32,
    /// Whether people were told that it fails.
    #[serde(default)]
    pub told: bool,
}

impl Call {
    /// Before its first attempt.
    fn new(hook: &str, measure: &str, verb: Verb) -> Self {
        Self {
            v: 1,
            hook: hook.to_owned(),
            measure: measure.to_owned(),
            verb,
            stage: Stage::Begun,
            attempts: 0,
            at_ms: 0,
            not_before_ms: 0,
            said: String::new(),
            answers: 0,
            told: false,
        }
    }

    /// The same at every attempt, so that a repeat can be told.
    pub fn key(&self) -> String {
        key(&self.measure, self.verb)
    }

    /// The key of its record, among those of the desk topic.
    pub fn record_key(&self) -> String {
        format!("{}{}/{}", crate::desk::record::HOOK, self.hook, self.key())
    }
}

fn key(measure: &str, verb: Verb) -> String {
    format!("{measure}/{}", verb.name())
}

/// What begins and what ends a measure.
fn verbs(kind: Kind) -> (Verb, Verb) {
    match kind {
        Kind::Stop => (Verb::Stop, Verb::Release),
        Kind::Throttle => (Verb::Throttle, Verb::Release),
        Kind::Pull => (Verb::Pull, Verb::Restore),
    }
}

/// What was done, by hook and idempotency key.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    calls: BTreeMap<(String, String), Call>,
}

impl Ledger {
    /// Takes in a record, in the place of what was known of the call.
    pub fn take(&mut self, call: Call) {
        self.calls.insert((call.hook.clone(), call.key()), call);
    }

    fn of(&self, hook: &str, measure: &str, verb: Verb) -> Option<&Call> {
        self.calls.get(&(hook.to_owned(), key(measure, verb)))
    }

    /// The calls that are to be begun at `now_ms`, as they are to be recorded first: of a measure in force its beginning; of one
    /// that is over its end, where its beginning was tried at all. What a call of before has left unended is tried again. What a
    /// hook's mode does not let it begin is not owed; what it has begun it ends, whatever its mode is by then.
    pub fn owed<'m>(
        &self,
        hooks: &[Callee],
        measures: impl IntoIterator<Item = &'m Measure>,
        now_ms: i64,
    ) -> Vec<(Call, &'m Measure)> {
        let measures: Vec<&Measure> = measures.into_iter().collect();
        let mut in_force: HashMap<(bool, &str), Vec<&Measure>> = HashMap::new();
        for measure in measures.iter().filter(|m| m.is_in_force(now_ms)) {
            in_force.entry(about(measure)).or_default().push(measure);
        }
        let mut owed = Vec::new();
        for measure in measures {
            for hook in hooks {
                let Some(verb) = self.verb(hook, measure, now_ms) else { continue };
                let known = self.of(&hook.name, &measure.id, verb);
                if !hook.on.contains(&verb) || known.is_some_and(|c| !is_due(c, now_ms)) {
                    continue;
                }
                // Whoever is stopped again is not released for the stop before, nor put back who is pulled again.
                let others = in_force.get(&about(measure)).into_iter().flatten().filter(|m| m.id != measure.id);
                if verb.is_end() && others.into_iter().any(|m| self.does(hook, m)) {
                    continue;
                }
                let before = known.cloned().unwrap_or_else(|| Call::new(&hook.name, &measure.id, verb));
                let attempts = before.attempts.saturating_add(1);
                owed.push((Call { stage: Stage::Begun, attempts, at_ms: now_ms, not_before_ms: 0, ..before }, measure));
            }
        }
        owed
    }

    /// What a hook is to be told of a measure, if anything, were it called for it.
    fn verb(&self, hook: &Callee, measure: &Measure, now_ms: i64) -> Option<Verb> {
        let (begin, end) = verbs(measure.kind);
        if measure.is_in_force(now_ms) {
            return self.does(hook, measure).then_some(begin);
        }
        if measure.state != State::InForce && measure.state != State::Ended {
            return None;
        }
        let over_ms = measure.ended.as_ref().map_or(measure.until_ms, |e| e.at_ms);
        let within_ms = match self.of(&hook.name, &measure.id, begin) {
            Some(_) => KEEP_MS,
            // It wants to know of ends only: of those that come, not of all that ever were.
            None if measure.is_for(hook.mode) && !hook.on.contains(&begin) && measure.since_ms.is_some() => FRESH_MS,
            None => return None,
        };
        (now_ms - over_ms <= within_ms).then_some(end)
    }

    /// Whether a hook does what is in force: its mode lets it, or it has begun.
    fn does(&self, hook: &Callee, measure: &Measure) -> bool {
        measure.is_for(hook.mode) || self.of(&hook.name, &measure.id, verbs(measure.kind).0).is_some()
    }

    /// Forgets calls that have ended long ago, and says their records' keys.
    pub fn forget(&mut self, now_ms: i64) -> Vec<String> {
        let mut gone = Vec::new();
        self.calls.retain(|_, call| {
            let stays = now_ms - call.at_ms <= 2 * KEEP_MS;
            if !stays {
                gone.push(call.record_key());
            }
            stays
        });
        gone
    }
}

/// Whether a call that is known is to be made (again).
fn is_due(call: &Call, now_ms: i64) -> bool {
    match call.stage {
        Stage::Begun => true,
        Stage::Later => now_ms >= call.not_before_ms,
        Stage::Failed => call.verb.is_end() && now_ms - call.at_ms >= AGAIN_MS.1,
        Stage::Done => false,
    }
}

/// Whom a measure is about: whether that is a relay, and its name.
fn about(measure: &Measure) -> (bool, &str) {
    (measure.kind == Kind::Pull, &measure.subject)
}

/// A call after an attempt. An end is not given up: a customer who is not released, a relay that is not put back would stay so.
/// It is tried for as long as it is owed, after a refusal with the longest wait.
fn ended(call: Call, ending: Ending, now_ms: i64) -> Call {
    let answers = call.answers.saturating_add(u32::from(ending.said != call.said));
    let call = Call { at_ms: now_ms, said: ending.said, answers, ..call };
    let is_end = call.verb.is_end();
    let (least_ms, is_failing) = match ending.verdict {
        Verdict::Done => return Call { stage: Stage::Done, ..call },
        Verdict::Refused if is_end => (AGAIN_MS.1, true),
        Verdict::Later(after) if is_end || call.attempts < ATTEMPTS_MAX => {
            (after.map_or(0, |after| after.as_millis() as i64), is_end && call.attempts >= TELL_AFTER)
        }
        Verdict::Later(_) | Verdict::Refused => return Call { stage: Stage::Failed, told: true, ..call },
    };
    let wait = AGAIN_MS.0.saturating_mul(1 << call.attempts.saturating_sub(1).min(16)).min(AGAIN_MS.1).max(least_ms);
    Call { stage: Stage::Later, not_before_ms: now_ms + wait, told: call.told || is_failing, ..call }
}

/// What is told: a program reads it on its standard input, a line of JSON; it is the body of what is posted.
#[derive(Debug, Serialize)]
struct Input<'a> {
    v: u8,
    verb: Verb,
    idempotency_key: String,
    attempt: u32,
    /// Who, or which relay.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    relay: Option<&'a str>,
    tenant: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pool: &'a str,
    incident: &'a str,
    until: crate::event::Timestamp,
    /// Of a stop: the page of any instance that lists what the account has in the queues.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ids: Option<String>,
    measure: &'a Measure,
}

/// The line for a call.
fn input(call: &Call, measure: &Measure) -> Vec<u8> {
    let line = line(call, measure);
    if line.len() <= INPUT_BYTES_MAX || measure.accounts.is_empty() {
        return line;
    }
    let accounts = measure.accounts[..measure.accounts.len() / 2].to_vec();
    input(call, &Measure { accounts, ..measure.clone() })
}

fn line(call: &Call, measure: &Measure) -> Vec<u8> {
    let is_relay = measure.kind == Kind::Pull;
    // What a person ordered has no burst, and its incident is no page. The detector's ids need no encoding.
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let has_burst =
        call.verb == Verb::Stop && measure.incident.starts_with("i-") && measure.incident.bytes().all(is_plain);
    let input = Input {
        v: 1,
        verb: call.verb,
        idempotency_key: call.key(),
        attempt: call.attempts,
        account: (!is_relay).then_some(&*measure.subject),
        relay: is_relay.then_some(&*measure.subject),
        tenant: &measure.tenant,
        pool: &measure.pool,
        incident: &measure.incident,
        until: crate::event::Timestamp(measure.until_ms),
        queue_ids: has_burst.then(|| format!("/v1/incidents/{}/queue-ids", measure.incident)),
        measure,
    };
    // Strings and numbers: it can be written.
    let mut line = serde_json::to_vec(&input).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A call and how its attempt ended.
type Attempt = (Call, Ending);

/// A call that has ended, as it is to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// As it is now.
    pub call: Call,
    /// Whether people are to be told that it fails, which they were not yet.
    pub is_failing: bool,
    /// Whether what was answered is to be noted: it is the last word, or another one than before.
    pub is_noted: bool,
}

/// A call that runs.
#[derive(Debug)]
struct Running {
    task: tokio::task::AbortHandle,
    /// Whom it is about.
    about: (bool, String),
}

/// Makes calls, for the active desk. Whoever drops it ends what runs.
pub struct Hooks {
    hooks: Vec<Callee>,
    ledger: Ledger,
    /// By hook and idempotency key.
    running: BTreeMap<(String, String), Running>,
    ended: (Sender<Attempt>, Receiver<Attempt>),
    /// Hooks and idempotency keys of what their mode withholds.
    withheld: BTreeSet<(String, String)>,
    metrics: Arc<Metrics>,
}

impl Hooks {
    /// With what was recorded of calls.
    pub fn new(hooks: &[Callee], recorded: impl IntoIterator<Item = Call>, metrics: Arc<Metrics>) -> Self {
        let mut ledger = Ledger::default();
        recorded.into_iter().for_each(|call| ledger.take(call));
        let ended = crossbeam_channel::bounded(CALLS_MAX);
        Self { hooks: hooks.to_vec(), ledger, running: BTreeMap::new(), ended, withheld: BTreeSet::new(), metrics }
    }

    /// The calls to be begun now, at most as many as may run. Record each, then [`Hooks::begin`] it.
    pub fn owed<'m>(&self, measures: impl IntoIterator<Item = &'m Measure>, now_ms: i64) -> Vec<(Call, &'m Measure)> {
        let mut owed = self.ledger.owed(&self.hooks, measures, now_ms);
        // Nothing about an account or a relay while something about it runs: a release must not overtake its stop, nor the next
        // stop that release.
        owed.retain(|(call, measure)| {
            let (is_relay, subject) = about(measure);
            let is_same = |r: &Running| r.about.0 == is_relay && r.about.1 == subject;
            !self.running.iter().any(|((hook, _), running)| *hook == call.hook && is_same(running))
        });
        // What has failed often must not keep back what is new.
        owed.sort_by_key(|(call, _)| call.attempts);
        owed.truncate(CALLS_MAX.saturating_sub(self.running.len()));
        owed
    }

    /// Counts what would begin now, did a hook's mode let it; each once.
    pub fn note_withheld<'m>(&mut self, measures: impl Iterator<Item = &'m Measure>, now_ms: i64) {
        if self.hooks.iter().all(|h| h.mode == Mode::Auto) {
            return;
        }
        for measure in measures.filter(|m| m.is_in_force(now_ms)) {
            let verb = verbs(measure.kind).0;
            for hook in self.hooks.iter().filter(|h| h.on.contains(&verb) && !measure.is_for(h.mode)) {
                if self.withheld.len() >= WITHHELD_MAX {
                    self.withheld.clear();
                }
                if self.withheld.insert((hook.name.clone(), key(&measure.id, verb))) {
                    self.metrics.hands.hook(&hook.name, "withheld");
                    tracing::info!(
                        "relays.hook `{}`: {} {} is not told, because of its mode",
                        hook.name,
                        verb.name(),
                        measure.subject
                    );
                }
            }
        }
    }

    /// Begins a call that is recorded. Must be called within a Tokio runtime.
    pub fn begin(&mut self, call: Call, measure: &Measure) {
        let Some(hook) = self.hooks.iter().find(|h| h.name == call.hook).cloned() else { return };
        self.ledger.take(call.clone());
        let name = (call.hook.clone(), call.key());
        let (line, sender) = (input(&call, measure), self.ended.0.clone());
        let task = tokio::spawn(async move {
            let ending = hook.call(&call.key(), &line).await;
            // There is room for all that run.
            let _ = sender.try_send((call, ending));
        });
        let (is_relay, subject) = about(measure);
        self.running.insert(name, Running { task: task.abort_handle(), about: (is_relay, subject.to_owned()) });
    }

    /// Whether what a hook says about a stop counts: that the account cannot send any more.
    pub fn confirms(&self, hook: &str) -> bool {
        self.hooks.iter().any(|h| h.name == hook && h.confirms)
    }

    /// The calls that have ended since, to be recorded.
    pub fn finished(&mut self, now_ms: i64) -> Vec<Finished> {
        let mut finished = Vec::new();
        while let Ok((call, ending)) = self.ended.1.try_recv() {
            self.running.remove(&(call.hook.clone(), call.key()));
            let (was_told, answers, is_refused) = (call.told, call.answers, ending.verdict == Verdict::Refused);
            let call = ended(call, ending, now_ms);
            let word = match call.stage {
                Stage::Done => "done",
                Stage::Later | Stage::Begun if !is_refused => "later",
                Stage::Later | Stage::Begun | Stage::Failed => "failed",
            };
            self.metrics.hands.hook(&call.hook, word);
            if call.stage != Stage::Done {
                tracing::warn!("relays.hook `{}`: {} ({}): {}", call.hook, call.key(), word, call.said);
            }
            self.ledger.take(call.clone());
            let is_last = matches!(call.stage, Stage::Done | Stage::Failed);
            let is_noted = is_last || call.answers > answers && call.answers <= NOTED_MAX;
            finished.push(Finished { is_failing: call.told && !was_told, is_noted, call });
        }
        finished
    }

    /// The keys of records that are worth nothing any more.
    pub fn forget(&mut self, now_ms: i64) -> Vec<String> {
        self.ledger.forget(now_ms)
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.running.values().for_each(|running| running.task.abort());
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
