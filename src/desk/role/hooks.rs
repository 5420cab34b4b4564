//! The programs that the active desk runs about measures, and what it posts: a call is recorded before it begins and after it has
//! ended, and what was answered goes into the incident. What fails is told to people.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Active, BY};
use crate::desk::failing::Failing;
use crate::desk::feedback::record::Action as Act;
use crate::desk::feedback::wish::{NOTE_MAX, Wish};
use crate::desk::record::Record;
use crate::kafka::outlet::now_ms;
use crate::relays::Settings;
use crate::relays::hands::callee::Callee;
use crate::relays::hands::hook::{Call, Finished, Hooks, Stage};
use crate::relays::hands::settings::Verb;
use crate::relays::measure::{Kind, Measure};
use crate::telemetry::Metrics;

/// How often it is looked what is owed.
const LOOK: Duration = Duration::from_millis(300);

/// The hooks of the active desk.
#[derive(Debug)]
pub(super) struct Running {
    hooks: Hooks,
    failing: Failing,
    runtime: tokio::runtime::Runtime,
    /// Calls that begin once they are recorded.
    next: Vec<(Call, Measure)>,
    looked: Option<Instant>,
}

impl Running {
    /// With what was recorded of calls, by their keys; `None` where nobody is to be told.
    pub(super) fn new(
        settings: &Settings,
        recorded: BTreeMap<String, Call>,
        metrics: &Arc<Metrics>,
    ) -> std::io::Result<Option<Self>> {
        let hooks = Callee::all(settings);
        if hooks.is_empty() {
            return Ok(None);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("desk-hooks")
            .enable_all()
            .build()?;
        let hooks = Hooks::new(&hooks, recorded.into_values(), Arc::clone(metrics));
        Ok(Some(Self { hooks, failing: Failing::default(), runtime, next: Vec::new(), looked: None }))
    }

    /// The keys of records that are worth nothing any more.
    pub(super) fn forget(&mut self, now_ms: i64) -> Vec<Record> {
        self.hooks.forget(now_ms).into_iter().map(Record::Gone).collect()
    }
}

impl Active<'_> {
    /// Takes in the calls that have ended, and finds those that are owed: both are to be recorded.
    pub(super) fn see_to_hooks(&mut self) {
        let now_ms = now_ms();
        let Some(running) = &mut self.running else { return };
        for Finished { call, is_failing, is_noted } in running.hooks.finished(now_ms) {
            let measure = self.relays.all().find(|m| m.id == call.measure).cloned();
            if let Some(measure) = measure {
                let who = format!("hook {}", call.hook);
                if call.stage == Stage::Done && call.verb == Verb::Stop && running.hooks.confirms(&call.hook) {
                    let done =
                        self.relays.acted(Act::AccountStopped, &measure.subject, &who, self.clerk.ledger(), now_ms);
                    self.records.extend(done.records);
                    self.notices.extend(done.notices);
                }
                if is_failing {
                    self.notices.extend(running.failing.notice(&call, &measure, BY, now_ms));
                }
                // A pull has no incident of the book; /v1/measures shows of every measure what was answered last.
                if is_noted && measure.kind != Kind::Pull {
                    let note: String = format!("{}: {}", call.verb.name(), call.said).chars().take(NOTE_MAX).collect();
                    let wish = Wish::Note { incident: measure.incident.clone(), note };
                    // An incident that is forgotten, or has too many notes, has no room for this one: the log has it.
                    if let Ok(done) = self.clerk.ledger().take(wish, &who, &mut self.book, now_ms) {
                        self.records.extend(done.records);
                    }
                }
            }
            self.records.push(Record::Hook(Box::new(call)));
        }
        if running.next.is_empty() && running.looked.is_none_or(|at| at.elapsed() >= LOOK) {
            running.looked = Some(Instant::now());
            running.hooks.note_withheld(self.relays.all(), now_ms);
            for (call, measure) in running.hooks.owed(self.relays.all(), now_ms) {
                self.records.push(Record::Hook(Box::new(call.clone())));
                running.next.push((call, measure.clone()));
            }
        }
    }

    /// Begins the calls that are recorded by now.
    pub(super) fn begin_hooks(&mut self) {
        let Some(running) = &mut self.running else { return };
        let _entered = running.runtime.enter();
        for (call, measure) in running.next.drain(..) {
            running.hooks.begin(call, &measure);
        }
    }
}
