//! The numbers of the hands: policy service, agent checks, lists, hooks.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::{OfHook, OfResult};
use super::metrics::{Registered, of};

/// An answer takes microseconds; a millisecond is too long.
const ANSWER_S: [f64; 9] = [1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 5e-4, 1e-3, 1e-2];

/// The numbers of the hands of one instance.
#[derive(Debug)]
pub struct HandsMetrics {
    /// 1 once it is known what is in force, and hands answer.
    pub known: Gauge,
    /// Connections of Postfix.
    pub policy_connections: Gauge,
    /// Connections of the policy service that were broken off: nonsense, or nothing for too long.
    pub policy_broken: Counter,
    /// Lists written to disk.
    pub files_written: Counter,
    /// Lists that could not be written, or whose reader could not be told.
    pub files_failed: Counter,
    /// Names that a list's mode kept out of it: of files once, of maps at each request.
    pub lists_withheld: Counter,
    policy: Family<OfResult, Counter>,
    policy_seconds: Histogram,
    agent: Family<OfResult, Counter>,
    hooks: Family<OfHook, Counter>,
}

impl Default for HandsMetrics {
    fn default() -> Self {
        let metrics = Self {
            known: Gauge::default(),
            policy_connections: Gauge::default(),
            policy_broken: Counter::default(),
            files_written: Counter::default(),
            files_failed: Counter::default(),
            lists_withheld: Counter::default(),
            policy: Family::default(),
            policy_seconds: Histogram::new(ANSWER_S),
            agent: Family::default(),
            hooks: Family::default(),
        };
        for result in ["dunno", "stopped", "throttled", "withheld"] {
            metrics.policy.get_or_create_owned(&OfResult { result });
        }
        for result in ["ready", "drain", "none", "withheld"] {
            metrics.agent.get_or_create_owned(&OfResult { result });
        }
        metrics
    }
}

/// Takes a metric with its name and what it says.
type Add<'a> = dyn FnMut(&str, &str, Box<dyn Registered>) + 'a;

impl HandsMetrics {
    pub(super) fn register(&self, add: &mut Add<'_>) {
        add("hands_known", "1 once it is known what is in force, and hands answer", of(&self.known));
        add("policy_connections", "Connections of the policy service", of(&self.policy_connections));
        add("policy_broken", "Connections of the policy service that were broken off", of(&self.policy_broken));
        let withheld = "withheld: there would be another one, did the hand's mode let it";
        add("policy_answers", &format!("Answers of the policy service; {withheld}"), of(&self.policy));
        add("policy_answer_seconds", "Time to find an answer of the policy service", of(&self.policy_seconds));
        let agent = format!("Answers to HAProxy's agent checks; none: it was none of ours; {withheld}");
        add("agent_answers", &agent, of(&self.agent));
        add("list_files_written", "Lists written to disk", of(&self.files_written));
        add("list_file_failures", "Lists not written, or their reader not told", of(&self.files_failed));
        add("lists_withheld", "Names kept out of lists by their mode", of(&self.lists_withheld));
        add("hook_calls", "Calls of hooks and webhooks, by how they ended; withheld: not made", of(&self.hooks));
    }

    /// The policy service has answered.
    pub fn policy(&self, result: &'static str, took: Duration) {
        self.policy.get_or_create_owned(&OfResult { result }).inc();
        self.policy_seconds.observe(took.as_secs_f64());
    }

    /// How often the policy service has answered so.
    #[cfg(test)]
    pub fn policy_answered(&self, result: &'static str) -> u64 {
        self.policy.get_or_create_owned(&OfResult { result }).get()
    }

    /// An agent check was answered.
    pub fn agent(&self, result: &'static str) {
        self.agent.get_or_create_owned(&OfResult { result }).inc();
    }

    /// A call of a hook has ended. Hooks are those of the configuration.
    pub fn hook(&self, name: &str, outcome: &'static str) {
        self.hooks.get_or_create_owned(&OfHook { hook: name.to_owned(), outcome }).inc();
    }
}
