//! Whom the active desk tells when something is stopped, released, pulled or restored: programs that it runs, and receivers to
//! which it posts ([`Callee`]).
//!
//! What is owed is a pure function of the measures and of what was done ([`Ledger`]); [`Hooks`] does it. A call is recorded
//! before it begins and again when it has ended, so that a desk that takes over knows of it: it is made again with the same
//! idempotency key, never forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use serde::{Deserialize, Serialize};

use super::callee::{Callee, Ending, Verdict};
use super::settings::Verb;
use crate::relays::measure::{Kind, Measure, Mode, State};
use crate::telemetry::Metrics;

/// Calls at a time.
pub const CALLS_MAX: usize = 4;
/// Attempts at one call.
pub const ATTEMPTS_MAX: u32 = 20;
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
    /// It was refused, or tried too often.
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
    /// How the last attempt ended, in words, with what was answered.
    #[serde(default)]
    pub said: String,
}

impl Call {
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
        let mut owed = Vec::new();
        for measure in measures {
            let (begin, end) = verbs(measure.kind);
            for hook in hooks {
                let begun = self.of(&hook.name, &measure.id, begin);
                let may = measure.is_for(hook.mode);
                let verb = if measure.is_in_force(now_ms) {
                    if !may && begun.is_none() {
                        continue;
                    }
                    begin
                } else if measure.state == State::InForce || measure.state == State::Ended {
                    let over_ms = measure.ended.as_ref().map_or(measure.until_ms, |e| e.at_ms);
                    let within_ms = match begun {
                        Some(_) => KEEP_MS,
                        // It wants to know of ends only: of those that come, not of all that ever were.
                        None if may && !hook.on.contains(&begin) && measure.since_ms.is_some() => FRESH_MS,
                        None => continue,
                    };
                    if now_ms - over_ms > within_ms {
                        continue;
                    }
                    end
                } else {
                    continue;
                };
                let known = self.of(&hook.name, &measure.id, verb);
                if !hook.on.contains(&verb) || known.is_some_and(|c| !is_due(c, now_ms)) {
                    continue;
                }
                let attempts = known.map_or(0, |c| c.attempts) + 1;
                let call = Call {
                    v: 1,
                    hook: hook.name.clone(),
                    measure: measure.id.clone(),
                    verb,
                    stage: Stage::Begun,
                    attempts,
                    at_ms: now_ms,
                    not_before_ms: 0,
                    said: String::new(),
                };
                owed.push((call, measure));
            }
        }
        owed
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
        Stage::Done | Stage::Failed => false,
    }
}

/// A call after an attempt.
fn ended(call: Call, ending: Ending, now_ms: i64) -> Call {
    let said = ending.said;
    let after = match ending.verdict {
        Verdict::Done => return Call { stage: Stage::Done, at_ms: now_ms, said, ..call },
        Verdict::Later(after) if call.attempts < ATTEMPTS_MAX => after,
        Verdict::Later(_) | Verdict::Refused => return Call { stage: Stage::Failed, at_ms: now_ms, said, ..call },
    };
    let wait = AGAIN_MS.0.saturating_mul(1 << call.attempts.saturating_sub(1).min(16)).min(AGAIN_MS.1);
    let wait = wait.max(after.map_or(0, |after| after.as_millis() as i64));
    Call { stage: Stage::Later, at_ms: now_ms, not_before_ms: now_ms + wait, said, ..call }
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

/// A call and how it ended.
type Finished = (Call, Ending);

/// Makes calls, for the active desk. Whoever drops it ends what runs.
pub struct Hooks {
    hooks: Vec<Callee>,
    ledger: Ledger,
    running: BTreeMap<(String, String), tokio::task::AbortHandle>,
    ended: (Sender<Finished>, Receiver<Finished>),
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
        // Nothing about a measure while something about it runs: a release must not overtake its stop.
        owed.retain(|(call, _)| {
            !self.running.keys().any(|(hook, key)| *hook == call.hook && key.starts_with(&format!("{}/", call.measure)))
        });
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
        self.running.insert(name, task.abort_handle());
    }

    /// The calls that have ended since, to be recorded.
    pub fn finished(&mut self, now_ms: i64) -> Vec<Call> {
        let mut finished = Vec::new();
        while let Ok((call, ending)) = self.ended.1.try_recv() {
            self.running.remove(&(call.hook.clone(), call.key()));
            let call = ended(call, ending, now_ms);
            let word = match call.stage {
                Stage::Done => "done",
                Stage::Later | Stage::Begun => "later",
                Stage::Failed => "failed",
            };
            self.metrics.hands.hook(&call.hook, word);
            if call.stage != Stage::Done {
                tracing::warn!("relays.hook `{}`: {} ({}): {}", call.hook, call.key(), word, call.said);
            }
            self.ledger.take(call.clone());
            finished.push(call);
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
        self.running.values().for_each(tokio::task::AbortHandle::abort);
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::relays::hands::process::{Ended, Outcome};
    use crate::relays::hands::settings::Hook;
    use crate::relays::hands::tests::measure;
    use crate::relays::measure;

    fn program(name: &str, on: &[Verb]) -> Hook {
        Hook { name: name.to_owned(), command: vec!["/bin/true".to_owned()], on: on.to_vec(), ..Hook::default() }
    }

    fn hook(name: &str, on: &[Verb]) -> Callee {
        program(name, on).into()
    }

    fn over(measure: &Measure, at_ms: i64) -> Measure {
        let ended =
            measure::Ended { at_ms, by: "ann".to_owned(), why: String::new(), was: None, probation_until_ms: None };
        Measure { state: State::Ended, ended: Some(ended), ..measure.clone() }
    }

    /// Hook, key and attempt of what is owed.
    fn owed(ledger: &Ledger, hooks: &[Callee], measures: &[Measure], now_ms: i64) -> Vec<String> {
        let owed = ledger.owed(hooks, measures, now_ms);
        owed.iter().map(|(call, _)| format!("{} {} {}", call.hook, call.key(), call.attempts)).collect()
    }

    /// Makes all that is owed, with this ending.
    fn make(ledger: &mut Ledger, hooks: &[Callee], measures: &[Measure], status: Ended, now_ms: i64) {
        for (call, _) in ledger.owed(hooks, measures, now_ms) {
            ledger.take(ended(call, Ending::from(&Outcome { status, output: String::new() }), now_ms));
        }
    }

    #[test]
    fn a_stop_says_where_its_queue_ids_are() {
        let said = |verb, incident: &str| {
            let stop = Measure { incident: incident.to_owned(), ..measure("m-1", Kind::Stop, "ann", 0) };
            let ledger = Ledger::default();
            let (call, _) = ledger.owed(&[hook("h", &Hook::default().on)], [&stop], 0).remove(0);
            let line: serde_json::Value = serde_json::from_slice(&input(&Call { verb, ..call }, &stop)).unwrap();
            line["queue_ids"].as_str().map(str::to_owned)
        };
        let incident = crate::core::incident::incident_id("ann", 7);
        assert_eq!(said(Verb::Stop, &incident), Some(format!("/v1/incidents/{incident}/queue-ids")));
        assert_eq!(said(Verb::Release, &incident), None);
        assert_eq!(said(Verb::Stop, "p-0a1b"), None, "a person's order has no burst");
    }

    #[test]
    fn a_stop_is_told_once_and_its_end_only_to_whom_it_was_told() {
        let hooks = [hook("all", &Hook::default().on), hook("pulls", &[Verb::Pull]), hook("ends", &[Verb::Release])];
        let stop = measure("m-1", Kind::Stop, "ann", 0);
        let waits = |state| Measure { state, ..measure("m-2", Kind::Stop, "bob", 0) };
        let measures = [stop.clone(), waits(State::Shadow), waits(State::Asked)];
        let mut ledger = Ledger::default();
        assert_eq!(owed(&ledger, &hooks, &measures, 0), ["all m-1/stop 1"]);
        make(&mut ledger, &hooks, &measures, Ended::Exited(0), 0);
        assert!(owed(&ledger, &hooks, &measures, 599_999).is_empty());
        let released = ["all m-1/release 1", "ends m-1/release 1"];
        assert_eq!(owed(&ledger, &hooks, &measures, 600_000), released, "it has expired by itself");
        assert_eq!(owed(&ledger, &hooks, &[over(&stop, 1000)], 1000), released);
        make(&mut ledger, &hooks, &[over(&stop, 1000)], Ended::Exited(0), 1000);
        assert!(owed(&ledger, &hooks, &[over(&stop, 1000)], 2000).is_empty());

        // Over before anybody was told: nothing to take back. Over for long: no news.
        let mut fresh = Ledger::default();
        assert_eq!(owed(&fresh, &hooks, &[over(&stop, 1000)], 1000), ["ends m-1/release 1"]);
        assert!(owed(&fresh, &hooks, &[over(&stop, 1000)], 1001 + FRESH_MS).is_empty());
        assert!(fresh.forget(0).is_empty());
        assert_eq!(ledger.forget(1001 + 2 * KEEP_MS).len(), 3);
    }

    #[test]
    fn a_hook_goes_as_far_as_its_mode_and_ends_what_it_began() {
        let on = Hook::default().on;
        let of = |name: &str, mode| Callee::from(Hook { mode, ..program(name, &on) });
        let hooks = [of("auto", Mode::Auto), of("confirm", Mode::Confirm), of("shadow", Mode::Shadow)];
        let stop = measure("m-1", Kind::Stop, "ann", 0);
        let confirmed = Measure { confirmed_by: Some("bob".to_owned()), ..stop.clone() };
        let ordered = Measure { by: "bob".to_owned(), ..stop.clone() };
        let fresh = Ledger::default();
        assert_eq!(owed(&fresh, &hooks, std::slice::from_ref(&stop), 0), ["auto m-1/stop 1"]);
        for by_person in [&confirmed, &ordered] {
            assert_eq!(
                owed(&fresh, &hooks, std::slice::from_ref(by_person), 0),
                ["auto m-1/stop 1", "confirm m-1/stop 1"]
            );
        }
        let mut ledger = Ledger::default();
        make(&mut ledger, &hooks, std::slice::from_ref(&confirmed), Ended::Exited(0), 0);
        let released = ["auto m-1/release 1", "confirm m-1/release 1"];
        assert_eq!(owed(&ledger, &hooks, &[over(&confirmed, 1000)], 1000), released);
        // Its mode is another one by now.
        let hooks = [of("auto", Mode::Shadow), of("confirm", Mode::Shadow), of("shadow", Mode::Shadow)];
        assert_eq!(owed(&ledger, &hooks, &[over(&confirmed, 1000)], 1000), released);
        let ends = [Callee::from(Hook { mode: Mode::Shadow, ..program("ends", &[Verb::Release]) })];
        assert!(owed(&fresh, &ends, &[over(&stop, 1000)], 1000).is_empty());

        let metrics = Arc::new(Metrics::new());
        let mut all = Hooks::new(&hooks[2..], [], Arc::clone(&metrics));
        all.note_withheld([&stop, &stop, &over(&stop, 1)].into_iter(), 0);
        all.note_withheld([&stop].into_iter(), 0);
        assert_eq!(all.withheld.len(), 1);
    }

    #[test]
    fn who_says_when_is_not_asked_before_and_a_long_line_names_fewer_accounts() {
        let hooks = [hook("h", &Hook::default().on)];
        let share = |n: usize| crate::desk::notice::AccountShare {
            account: format!("{n}{}", "x".repeat(300)),
            incident: "i".to_owned(),
            recipients: 1,
        };
        let accounts = (0..100).map(share).collect();
        let pull = Measure { accounts, ..measure("m-1", Kind::Pull, "out-1", 0) };
        let (call, _) = Ledger::default().owed(&hooks, [&pull], 0).remove(0);
        let line = input(&call, &pull);
        let told: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let named = told["measure"]["accounts"].as_array().unwrap().len();
        assert!(line.len() <= INPUT_BYTES_MAX && (20..100).contains(&named), "{named} accounts, {} bytes", line.len());
        for (after_s, wait) in [(1, 5_000), (60, 60_000)] {
            let later = Verdict::Later(Some(Duration::from_secs(after_s)));
            let ending = Ending { verdict: later, said: String::new() };
            assert_eq!(ended(call.clone(), ending, 0).not_before_ms, wait);
        }
    }

    #[test]
    fn later_is_later_refused_is_the_end_and_a_lost_call_is_made_again() {
        let hooks = [hook("h", &Hook::default().on)];
        let pull = Measure { until_ms: i64::MAX, ..measure("m-1", Kind::Pull, "out-1", 0) };
        let mut ledger = Ledger::default();
        let (mut at_ms, mut waits) = (0, Vec::new());
        while waits.len() < 100 {
            make(&mut ledger, &hooks, std::slice::from_ref(&pull), Ended::Exited(75), at_ms);
            let call = ledger.of("h", "m-1", Verb::Pull).unwrap();
            if call.stage == Stage::Failed {
                break;
            }
            assert!(owed(&ledger, &hooks, std::slice::from_ref(&pull), call.not_before_ms - 1).is_empty());
            waits.push(call.not_before_ms - at_ms);
            at_ms = call.not_before_ms;
        }
        assert_eq!((waits.len(), waits[0], waits[1], waits[18]), (ATTEMPTS_MAX as usize - 1, 5_000, 10_000, 300_000));
        // It was tried: it is put back, though no attempt succeeded.
        assert_eq!(owed(&ledger, &hooks, &[over(&pull, at_ms)], at_ms), ["h m-1/restore 1"]);

        for status in [Ended::Killed, Ended::TimedOut, Ended::NotRun] {
            let mut ledger = Ledger::default();
            make(&mut ledger, &hooks, std::slice::from_ref(&pull), status, 0);
            assert_eq!(owed(&ledger, &hooks, std::slice::from_ref(&pull), 5_000), ["h m-1/pull 2"], "{status:?}");
        }
        let mut refused = Ledger::default();
        make(&mut refused, &hooks, std::slice::from_ref(&pull), Ended::Exited(1), 0);
        assert!(owed(&refused, &hooks, std::slice::from_ref(&pull), 1 << 40).is_empty());
        let mut lost = Ledger::default();
        let (begun, _) = lost.owed(&hooks, [&pull], 0).remove(0);
        lost.take(serde_json::from_slice(&serde_json::to_vec(&begun).unwrap()).unwrap());
        assert_eq!(owed(&lost, &hooks, std::slice::from_ref(&pull), 1), ["h m-1/pull 2"]);
    }

    #[test]
    fn a_hook_gets_its_line_and_a_release_does_not_overtake_its_stop() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "read line; echo \"$line\" >> {0}/got; until [ -e {0}/go ]; do sleep 0.02; done; echo ok",
            folder.path().display()
        );
        let hook =
            Hook { command: ["/bin/sh", "-c", &script].map(str::to_owned).into(), ..program("h", &Hook::default().on) };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let mut hooks = Hooks::new(&[hook.into()], [], Arc::new(Metrics::new()));
        let stop = measure("m-1", Kind::Stop, "ann", 0);
        let calls: Vec<Call> = hooks.owed([&stop], 0).into_iter().map(|(call, _)| call).collect();
        assert_eq!(calls.len(), 1);
        hooks.begin(calls[0].clone(), &stop);
        let released = over(&stop, 1);
        assert!(hooks.owed([&released], 1).is_empty(), "it runs");
        std::fs::write(folder.path().join("go"), "").unwrap();
        let finish = |hooks: &mut Hooks| {
            let until = std::time::Instant::now() + Duration::from_secs(60);
            loop {
                let finished = hooks.finished(2);
                if !finished.is_empty() || std::time::Instant::now() > until {
                    return finished;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let finished = finish(&mut hooks);
        assert_eq!((finished[0].stage, &*finished[0].said), (Stage::Done, "ended with status 0: ok"));
        let release = hooks.owed([&released], 3).remove(0).0;
        hooks.begin(release, &released);
        assert_eq!(finish(&mut hooks)[0].verb, Verb::Release);
        let got = std::fs::read_to_string(folder.path().join("got")).unwrap();
        let lines: Vec<serde_json::Value> = got.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(
            (&lines[0]["verb"], &lines[0]["account"], &lines[0]["idempotency_key"]),
            (&"stop".into(), &"ann".into(), &"m-1/stop".into())
        );
        assert_eq!((&lines[1]["verb"], &lines[1]["until"]), (&"release".into(), &"1970-01-01T00:10:00.000Z".into()));
    }
}
