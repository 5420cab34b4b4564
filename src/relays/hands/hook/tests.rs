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
    let ended = measure::Ended { at_ms, by: "ann".to_owned(), why: String::new(), was: None, probation_until_ms: None };
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
        assert_eq!(owed(&fresh, &hooks, std::slice::from_ref(by_person), 0), ["auto m-1/stop 1", "confirm m-1/stop 1"]);
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
    assert_eq!((finished[0].call.stage, &*finished[0].call.said), (Stage::Done, "ended with status 0: ok"));
    assert!(finished[0].is_noted && !finished[0].is_failing);
    let release = hooks.owed([&released], 3).remove(0).0;
    hooks.begin(release, &released);
    let again = measure("m-2", Kind::Stop, "ann", 2);
    assert!(hooks.owed([&released, &again], 4).is_empty(), "the next stop does not overtake that release either");
    assert_eq!(finish(&mut hooks)[0].call.verb, Verb::Release);
    let got = std::fs::read_to_string(folder.path().join("got")).unwrap();
    let lines: Vec<serde_json::Value> = got.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(
        (&lines[0]["verb"], &lines[0]["account"], &lines[0]["idempotency_key"]),
        (&"stop".into(), &"ann".into(), &"m-1/stop".into())
    );
    assert_eq!((&lines[1]["verb"], &lines[1]["until"]), (&"release".into(), &"1970-01-01T00:10:00.000Z".into()));
}

#[test]
fn an_end_that_is_refused_is_tried_on_as_long_as_it_is_owed_and_told_once() {
    let hooks = [hook("h", &Hook::default().on)];
    let pull = measure("m-1", Kind::Pull, "out-1", 0);
    let mut ledger = Ledger::default();
    make(&mut ledger, &hooks, std::slice::from_ref(&pull), Ended::Exited(0), 0);
    let back = [over(&pull, 1000)];
    for status in [Ended::Exited(1), Ended::Exited(75)] {
        let (mut ledger, mut at_ms, mut told) = (ledger.clone(), 1000, Vec::new());
        for attempt in 1..=200 {
            assert_eq!(owed(&ledger, &hooks, &back, at_ms), [format!("h m-1/restore {attempt}")]);
            make(&mut ledger, &hooks, &back, status, at_ms);
            let call = ledger.of("h", "m-1", Verb::Restore).unwrap();
            assert_eq!(call.stage, Stage::Later);
            told.extend(call.told.then_some(attempt));
            assert!(owed(&ledger, &hooks, &back, call.not_before_ms - 1).is_empty());
            let waits = call.not_before_ms - at_ms;
            let is_longest = waits == AGAIN_MS.1;
            assert_eq!(is_longest, status == Ended::Exited(1) || attempt > 6, "{attempt}: {waits}");
            at_ms = call.not_before_ms;
        }
        let first = if status == Ended::Exited(1) { 1 } else { TELL_AFTER };
        assert_eq!((told[0], told.len() as u32), (first, 201 - first), "what was told stays told");
        let late = 1000 + KEEP_MS;
        assert_eq!(owed(&ledger, &hooks, &back, late).len(), 1);
        assert!(owed(&ledger, &hooks, &back, late + 1).is_empty(), "as long as it is remembered");
        make(&mut ledger, &hooks, &back, Ended::Exited(0), at_ms);
        assert!(owed(&ledger, &hooks, &back, late).is_empty(), "done is done");
    }
    // What an older program gave up.
    let mut given_up = Call::new("h", "m-1", Verb::Restore);
    (given_up.stage, given_up.attempts, given_up.at_ms) = (Stage::Failed, 20, 2000);
    ledger.take(given_up);
    assert!(owed(&ledger, &hooks, &back, 2001).is_empty());
    assert_eq!(owed(&ledger, &hooks, &back, 2000 + AGAIN_MS.1), ["h m-1/restore 21"]);
}

#[test]
fn who_is_stopped_again_is_not_released_for_the_stop_before() {
    let of = |name: &str, mode| Callee::from(Hook { mode, ..program(name, &Hook::default().on) });
    let hooks = [of("auto", Mode::Auto), of("confirm", Mode::Confirm)];
    let first = Measure { confirmed_by: Some("ann".to_owned()), ..measure("m-1", Kind::Stop, "ann", 0) };
    let mut ledger = Ledger::default();
    make(&mut ledger, &hooks, std::slice::from_ref(&first), Ended::Exited(0), 0);
    let (first, second) = (over(&first, 1000), measure("m-2", Kind::Stop, "ann", 1000));
    let other = measure("m-3", Kind::Pull, "ann", 1000);
    let all = [first.clone(), second.clone(), other];
    // The second is by nobody: a hook in `confirm` does not do it, and so ends the first.
    assert_eq!(owed(&ledger, &hooks, &all, 2000), ["confirm m-1/release 1", "auto m-2/stop 1", "auto m-3/pull 1"]);
    let ends = [first, over(&second, 3000)];
    assert_eq!(
        owed(&ledger, &hooks, &ends, 3000),
        ["auto m-1/release 1", "confirm m-1/release 1"],
        "then it is released"
    );
}

#[test]
fn what_is_new_goes_before_what_has_failed_often_and_answers_are_noted_once() {
    let mut hooks = Hooks::new(&[hook("h", &Hook::default().on)], [], Arc::new(Metrics::new()));
    let measures: Vec<Measure> = (0..10).map(|n| measure(&format!("m-{n}"), Kind::Stop, &format!("a{n}"), 0)).collect();
    for measure in &measures[..9] {
        let mut call = Call::new("h", &measure.id, Verb::Stop);
        (call.stage, call.attempts) = (Stage::Later, 7);
        hooks.ledger.take(call);
    }
    let owed: Vec<String> = hooks.owed(&measures, 1).into_iter().map(|(call, _)| call.key()).collect();
    assert_eq!((owed.len(), &*owed[0]), (CALLS_MAX, "m-9/stop"));

    let answers = ["a", "a", "b", "b", "a", "c", "d", "e", "f"];
    let mut call = Call::new("h", "m-0", Verb::Stop);
    let mut noted = Vec::new();
    for said in answers {
        call.attempts += 1;
        let ending = Ending { verdict: Verdict::Later(None), said: said.to_owned() };
        hooks.ended.0.try_send((call, ending)).unwrap();
        let finished = hooks.finished(1).remove(0);
        noted.extend(finished.is_noted.then_some(said));
        call = finished.call;
    }
    assert_eq!(noted, ["a", "b", "a", "c", "d"]);
    hooks.ended.0.try_send((call, Ending { verdict: Verdict::Refused, said: "f".to_owned() })).unwrap();
    let last = hooks.finished(1).remove(0);
    assert!(last.is_noted && last.is_failing && last.call.stage == Stage::Failed, "the last word is noted: {last:?}");
}

#[test]
fn a_hook_says_whether_its_stops_count() {
    let quiet = Hook { confirms: false, ..program("holds", &[Verb::Stop]) };
    let posts = crate::relays::hands::settings::Webhook {
        name: "posts".to_owned(),
        confirms: false,
        ..crate::relays::hands::settings::Webhook::default()
    };
    let all = [hook("stops", &[Verb::Stop]), quiet.into(), posts.into()];
    let hooks = Hooks::new(&all, [], Arc::new(Metrics::new()));
    assert_eq!(["stops", "holds", "posts", "none"].map(|h| hooks.confirms(h)), [true, false, false, false]);
}
