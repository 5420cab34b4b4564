//! What people are told of hooks and webhooks that fail: one notice for a call, and one for all further ones of an hour. Pure.

use std::collections::BTreeMap;

use super::notice::{self, Notice, NoticeKind, Reason};
use crate::core::alert::{Action, Severity};
use crate::event::Timestamp;
use crate::relays::hands::hook::{Call, Stage};
use crate::relays::hands::settings::Verb;
use crate::relays::measure::{Kind, Measure};

const HOUR_MS: i64 = 3_600_000;
/// Calls of one hook that are told each by itself in an hour: a panel that is out fails for everybody.
const NOTICES_MAX: u32 = 10;
/// Characters of what was answered.
const SAID_CHARS_MAX: usize = 300;

/// What was told of late. A desk that takes over does not know it, and may tell some more of the same hour.
#[derive(Debug, Default)]
pub struct Failing {
    /// By hook: the hour since 1970, and how many calls failed in it.
    hours: BTreeMap<String, (i64, u32)>,
}

impl Failing {
    /// The notice of a call that fails, where there is one. Made again it has the same id.
    pub fn notice(&mut self, call: &Call, measure: &Measure, by: &str, now_ms: i64) -> Option<Notice> {
        let hour = now_ms.div_euclid(HOUR_MS);
        let (last, failed) = self.hours.entry(call.hook.clone()).or_insert((hour, 0));
        if *last != hour {
            (*last, *failed) = (hour, 0);
        }
        *failed = failed.saturating_add(1);
        let failed = *failed;
        if failed > NOTICES_MAX + 1 {
            return None;
        }
        let is_one = failed <= NOTICES_MAX;
        let id = match is_one {
            true => notice::id('n', &["hook", &call.hook, &call.key()]),
            false => notice::id('n', &["hooks", &call.hook, &hour.to_string()]),
        };
        let (text, observed, window_s) = match is_one {
            true => (one(call, measure), call.attempts, 0),
            false => (many(&call.hook), failed, (HOUR_MS / 1000) as u32),
        };
        Some(Notice {
            v: 1,
            id: id.clone(),
            kind: NoticeKind::Anomaly,
            ts: Timestamp(now_ms),
            severity: Severity::Critical,
            account: None,
            // It goes to those who were told of the measure.
            tenant: Some(measure.tenant.clone()).filter(|tenant| is_one && !tenant.is_empty()),
            relay: None,
            incident: id,
            campaign: None,
            accounts: if is_one { measure.accounts.clone() } else { Vec::new() },
            evidence: vec![Reason {
                signal: "hook".to_owned(),
                window_s,
                observed: f64::from(observed),
                expected: 0.0,
                limit: if is_one { 0.0 } else { f64::from(NOTICES_MAX) },
                weight: 0.0,
                text,
            }],
            relays: Vec::new(),
            action: Action::None,
            by: by.to_owned(),
        })
    }
}

/// Which hook, what for, what it answered, what that means, and what to do.
fn one(call: &Call, measure: &Measure) -> String {
    let what = if measure.kind == Kind::Pull { "relay" } else { "account" };
    let state = match call.verb {
        Verb::Stop => "there the account may still send",
        Verb::Throttle => "there the account may still send without a bound",
        Verb::Release => "there the account may still be blocked",
        Verb::Pull => "there the relay may still get new mail",
        Verb::Restore => "there the relay may still be out of its pool",
    };
    let further = match call.stage {
        Stage::Failed => "it is not tried again",
        Stage::Begun | Stage::Later | Stage::Done => "it is tried on",
    };
    format!(
        "hook {} has failed to {} {what} {}, attempts: {}, the last answer: {}; {state}, and {further}: do it by hand, and mend \
         the hook",
        call.hook,
        call.verb.name(),
        measure.subject,
        call.attempts,
        short(&call.said)
    )
}

fn many(hook: &str) -> String {
    format!(
        "hook {hook} has failed for more than {NOTICES_MAX} accounts or relays within an hour: further ones of this hour are not \
         told one by one: mend the hook, and see what /v1/measures has under `hooks`"
    )
}

/// What was answered, on one line.
fn short(said: &str) -> String {
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SAID_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::notice::AccountShare;
    use crate::relays::hands::tests::measure;

    fn call(n: u32, verb: Verb, stage: Stage) -> Call {
        Call {
            v: 1,
            hook: "panel".to_owned(),
            measure: format!("m-{n}"),
            verb,
            stage,
            attempts: 5,
            at_ms: 0,
            not_before_ms: 0,
            said: format!("ended with status 1: no\nsuch server{}", "x".repeat(5000)),
            answers: 1,
            told: true,
        }
    }

    #[test]
    fn a_call_that_fails_is_told_with_hook_verb_subject_answer_and_cure() {
        let share = AccountShare { account: "ann".to_owned(), incident: "i-1".to_owned(), recipients: 9 };
        let pull = Measure { accounts: vec![share], ..measure("m-1", Kind::Pull, "out-1", 0) };
        let told = Failing::default().notice(&call(1, Verb::Restore, Stage::Later), &pull, "x", 7).unwrap();
        let text = &told.evidence[0].text;
        for words in [
            "hook panel",
            "restore relay out-1",
            "attempts: 5",
            "status 1: no such server",
            "still be out of its pool, and it is tried on",
            "by hand",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        assert!(text.len() < 700, "{text}");
        assert_eq!((told.accounts.len(), told.ts), (1, Timestamp(7)));
        // Another desk says the same of it.
        let again = Failing::default().notice(&call(1, Verb::Restore, Stage::Later), &pull, "x", 99).unwrap();
        assert_eq!(again.id, told.id);
        let stop = Measure { tenant: "x.example".to_owned(), ..measure("m-1", Kind::Stop, "ann@x.example", 0) };
        let told = Failing::default().notice(&call(1, Verb::Stop, Stage::Failed), &stop, "x", 7).unwrap();
        let text = &told.evidence[0].text;
        assert!(text.contains("stop account ann@x.example") && text.contains("not tried again"), "{text}");
        assert!(told.id != again.id && told.tenant.as_deref() == Some("x.example"));
    }

    #[test]
    fn a_hook_that_fails_for_everybody_is_no_storm() {
        let mut failing = Failing::default();
        let stop = measure("m-1", Kind::Stop, "ann", 0);
        let mut told = |n: u32, now_ms| failing.notice(&call(n, Verb::Stop, Stage::Failed), &stop, "x", now_ms);
        let notices: Vec<Notice> = (0..5000).filter_map(|n| told(n, 1000)).collect();
        assert_eq!(notices.len() as u32, NOTICES_MAX + 1);
        let last = &notices.last().unwrap().evidence[0];
        assert!(last.text.contains("more than 10") && last.observed == 11.0, "{last:?}");
        assert!(told(5000, HOUR_MS).is_some(), "another hour");
    }
}
