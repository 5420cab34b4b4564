//! Whom the active desk tells of measures: a program that it runs, or a receiver to which it posts. How a call ends is the same of
//! both.

use std::sync::Arc;
use std::time::Duration;

use super::process::{self, Ended};
use super::settings::{Hook, Verb, Webhook};
use crate::desk::webhook::body::Request;
use crate::desk::webhook::client::{Client, SystemResolver};
use crate::desk::webhook::outcome::Outcome;
use crate::desk::webhook::sign::{sign, webhook_id};
use crate::kafka::outlet::now_ms;
use crate::relays::Settings;
use crate::relays::measure::Mode;

/// What a program ends with that wants to be called again (`EX_TEMPFAIL` of sysexits.h).
const LATER: i32 = 75;

/// One that is told.
#[derive(Debug, Clone)]
pub struct Callee {
    /// In records, logs and metrics.
    pub name: String,
    /// What it is called for.
    pub on: Vec<Verb>,
    /// How far it goes with what is in force.
    pub mode: Mode,
    /// Whether a stop that it says is done is effective: the account cannot send any more.
    pub confirms: bool,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Program(Hook),
    Post(Box<Webhook>),
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Done,
    /// It is to be tried again, not before this time is over where one is given.
    Later(Option<Duration>),
    /// It was refused for good.
    Refused,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What it came to.
    pub verdict: Verdict,
    /// In words, with what was answered.
    pub said: String,
}

impl From<Hook> for Callee {
    fn from(hook: Hook) -> Self {
        let (name, on) = (hook.name.clone(), hook.on.clone());
        Self { name, on, mode: hook.mode, confirms: hook.confirms, way: Way::Program(hook) }
    }
}

impl From<Webhook> for Callee {
    fn from(webhook: Webhook) -> Self {
        let (name, on) = (webhook.name.clone(), webhook.on.clone());
        Self { name, on, mode: webhook.mode, confirms: webhook.confirms, way: Way::Post(Box::new(webhook)) }
    }
}

impl From<&process::Outcome> for Ending {
    fn from(outcome: &process::Outcome) -> Self {
        let verdict = match outcome.status {
            Ended::Exited(0) => Verdict::Done,
            Ended::Exited(LATER) | Ended::Killed | Ended::TimedOut | Ended::NotRun => Verdict::Later(None),
            Ended::Exited(_) => Verdict::Refused,
        };
        Self { verdict, said: outcome.to_string() }
    }
}

impl Callee {
    /// All that the configuration has.
    pub fn all(settings: &Settings) -> Vec<Self> {
        let hooks = settings.hook.iter().cloned().map(Self::from);
        hooks.chain(settings.webhook.iter().cloned().map(Self::from)).collect()
    }

    /// Makes one attempt, which ends within its time-out. `key` is the same at every attempt, `body` a line of JSON.
    pub async fn call(&self, key: &str, body: &[u8]) -> Ending {
        match &self.way {
            Way::Program(hook) => {
                let outcome = process::run(&hook.command, body, Duration::from_secs(hook.timeout_s.into())).await;
                Ending::from(&outcome)
            }
            Way::Post(webhook) => post(webhook, key, body).await,
        }
    }
}

/// Posts once. The secret is read anew each time, so that one that was missing is found when it is there.
async fn post(webhook: &Webhook, key: &str, body: &[u8]) -> Ending {
    let later = |said: String| Ending { verdict: Verdict::Later(None), said };
    let endpoint = webhook.endpoint();
    let keys = match endpoint.keys(|path| std::fs::read_to_string(path), |name| std::env::var(name).ok()) {
        Ok(keys) => keys,
        Err(e) => return later(e.to_string()),
    };
    let client = match Client::new(&endpoint, Arc::new(SystemResolver)) {
        Ok(client) => client.within(Duration::from_secs(webhook.timeout_s.into())),
        Err(e) => return later(e.to_string()),
    };
    let (id, now_s) = (webhook_id(&webhook.name, key), now_ms() / 1000);
    let headers = vec![
        ("content-type", "application/json".to_owned()),
        ("user-agent", concat!("mailfuse/", env!("CARGO_PKG_VERSION")).to_owned()),
        ("webhook-timestamp", now_s.to_string()),
        ("webhook-signature", sign(&keys, &id, now_s, body)),
        ("webhook-id", id),
    ];
    let request = Request { url: endpoint.address().to_owned(), headers, body: body.to_vec() };
    let (outcome, answer) = client.ask(&request).await;
    judged(&outcome, &answer)
}

/// What an answer means.
fn judged(outcome: &Outcome, answer: &str) -> Ending {
    let (verdict, mut said) = match outcome {
        Outcome::Delivered { status } => (Verdict::Done, format!("answered {status}")),
        Outcome::Retry { after, why, .. } => (Verdict::Later(*after), why.clone()),
        // Somebody has to change the configuration; then it may be tried again.
        Outcome::Blocked { why } => (Verdict::Later(None), why.clone()),
        Outcome::Gone => (Verdict::Refused, "answered 410".to_owned()),
        Outcome::Refused { why, .. } => (Verdict::Refused, why.clone()),
    };
    if !answer.trim().is_empty() {
        said.push_str(": ");
        said.push_str(answer.trim());
    }
    Ending { verdict, said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_later_or_refused_is_what_a_status_says() {
        let program = |status| Ending::from(&process::Outcome { status, output: "x\n".to_owned() });
        let hour = Some(Duration::from_secs(60));
        let posted = |status, after| judged(&Outcome::of(status, after), " so \n");
        for (ending, verdict, said) in [
            (program(Ended::Exited(0)), Verdict::Done, "ended with status 0: x"),
            (program(Ended::Exited(75)), Verdict::Later(None), "ended with status 75: x"),
            (program(Ended::Exited(1)), Verdict::Refused, "ended with status 1: x"),
            (program(Ended::TimedOut), Verdict::Later(None), "took too long and was killed: x"),
            (posted(204, None), Verdict::Done, "answered 204: so"),
            (posted(503, None), Verdict::Later(None), "answered 503: so"),
            (posted(429, hour), Verdict::Later(hour), "answered 429: so"),
            (posted(404, hour), Verdict::Refused, "answered 404: so"),
            (posted(410, None), Verdict::Refused, "answered 410: so"),
        ] {
            assert_eq!(ending, Ending { verdict, said: said.to_owned() });
        }
        let blocked = Outcome::Blocked { why: "it is private".to_owned() };
        assert_eq!(judged(&blocked, "").verdict, Verdict::Later(None), "the configuration may be mended");
    }
}
