//! The decision about accounts and relays: what bounds it, what it waits for, how it ends, and that it is the same after a restart.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

use std::collections::BTreeMap;

use mailfuse::core::alert::Severity;
use mailfuse::event::Timestamp;
use mailfuse::relays::Settings;
use mailfuse::relays::decide::{BY, Burden, BurstShare, Decider, Flag, Hold, MEASURES_MAX, Outcome, Told};
use mailfuse::relays::measure::{Kind, Measure, Mode, State};
use mailfuse::relays::people::{Order, Refused};
use mailfuse::relays::settings::{Member, Pool};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const NOW: i64 = 1_800_000_000_000;
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

fn pool(name: &str, shared: usize, dedicated: usize) -> Pool {
    let member = |n: usize, tenant: &str| Member {
        relay: format!("{name}-{tenant}{n}"),
        tenant: tenant.to_owned(),
        ..Member::default()
    };
    let members = (0..shared).map(|n| member(n, "")).chain((0..dedicated).map(|n| member(n, "shop")));
    Pool { name: name.to_owned(), mode: None, member: members.collect() }
}

fn auto(pools: Vec<Pool>) -> Settings {
    Settings { mode: Mode::Auto, pool: pools, ..Settings::default() }
}

fn flag<'a>(account: &'a str, incident: &'a str, severity: Severity, ts_ms: i64) -> Flag<'a> {
    Flag { account, tenant: "t", incident, severity, ts: Timestamp(ts_ms), is_doubtful: false }
}

fn critical<'a>(account: &'a str, incident: &'a str, ts_ms: i64) -> Flag<'a> {
    flag(account, incident, Severity::Critical, ts_ms)
}

fn burden(relay: &str, ts_ms: i64, burst: &[(&str, u64)]) -> Burden {
    Burden {
        relay: relay.to_owned(),
        carried: 10_000,
        burst: burst
            .iter()
            .map(|(account, recipients)| BurstShare {
                account: (*account).to_owned(),
                tenant: "t".to_owned(),
                incident: format!("i-{account}"),
                recipients: *recipients,
                ts: Timestamp(ts_ms),
            })
            .collect(),
        refused_ts: Timestamp(ts_ms),
        ..Burden::default()
    }
}

fn states(outcome: &Outcome) -> Vec<(Kind, State)> {
    outcome.changes.iter().map(|c| (c.measure.kind, c.measure.state)).collect()
}

#[test]
fn an_account_is_stopped_once_and_what_happened_long_ago_stops_nobody() {
    let mut d = Decider::new(&auto(vec![]));
    let outcome = d.flagged(&critical("a", "i-1", NOW - MINUTE), NOW);
    assert_eq!(states(&outcome), [(Kind::Stop, State::InForce)]);
    assert_eq!(outcome.changes[0].told, Some(Told::Done));
    assert_eq!(d.flagged(&critical("a", "i-1", NOW - MINUTE), NOW + 1), Outcome::default());
    assert_eq!(d.flagged(&critical("a", "i-2", NOW), NOW + 1), Outcome::default(), "it is stopped");
    // A back-fill of last month's log.
    let outcome = d.flagged(&critical("b", "i-3", NOW - 30 * DAY), NOW);
    assert_eq!(states(&outcome), [(Kind::Stop, State::Shadow)]);
    assert_eq!(outcome.changes[0].told, None);
    // Just within, just beyond what may be acted on.
    assert_eq!(states(&d.flagged(&critical("c", "i-4", NOW - 600_000), NOW)), [(Kind::Stop, State::InForce)]);
    assert_eq!(states(&d.flagged(&critical("d", "i-5", NOW - 600_001), NOW)), [(Kind::Stop, State::Shadow)]);
    // A later incident that can be acted on is.
    assert_eq!(
        states(&d.flagged(&critical("b", "i-6", NOW), NOW)),
        [(Kind::Stop, State::Ended), (Kind::Stop, State::InForce)]
    );
    // A warning stops nobody; in doubt a person is asked.
    assert_eq!(d.flagged(&flag("e", "i-7", Severity::Warning, NOW), NOW), Outcome::default());
    let doubtful = Flag { is_doubtful: true, ..critical("f", "i-8", NOW) };
    assert_eq!(states(&d.flagged(&doubtful, NOW)), [(Kind::Stop, State::Asked)]);
}

#[test]
fn modes_say_how_far_it_goes() {
    for (mode, state) in [(Mode::Shadow, State::Shadow), (Mode::Confirm, State::Asked), (Mode::Auto, State::InForce)] {
        let mut settings = auto(vec![pool("p", 4, 0)]);
        settings.tenant_mode = [("t".to_owned(), mode)].into_iter().collect();
        settings.pool[0].mode = Some(mode);
        let mut d = Decider::new(&settings);
        assert_eq!(states(&d.flagged(&critical("a", "i-a", NOW), NOW)), [(Kind::Stop, state)]);
        let outcome = d.tick(&[burden("p-0", NOW, &[("x", 500)])], false, NOW);
        assert_eq!(states(&outcome), [(Kind::Pull, state)], "{mode:?}");
        assert_eq!(outcome.changes[0].told.is_none(), mode == Mode::Shadow);
    }
    // Who is to confirm is asked, of accounts, too.
    let mut d = Decider::new(&Settings { mode: Mode::Confirm, ..Settings::default() });
    let asked = d.flagged(&critical("a", "i-a", NOW), NOW);
    assert_eq!((states(&asked), asked.changes[0].told), (vec![(Kind::Stop, State::Asked)], Some(Told::Asked)));
}

#[test]
fn a_flag_that_came_too_late_is_acted_on_when_the_burst_goes_on() {
    for (mode, state) in [(Mode::Shadow, State::Shadow), (Mode::Confirm, State::Asked), (Mode::Auto, State::InForce)] {
        let mut d = Decider::new(&Settings { mode, ..Settings::default() });
        let late = d.flagged(&critical("a", "i-a", NOW - HOUR), NOW).changes.remove(0).measure;
        assert!(d.came_too_late("a", "i-a") && late.came_too_late(), "{mode:?}");
        // The detector has caught up by half an hour.
        assert_eq!(d.flagged(&critical("a", "i-a", NOW - HOUR / 2), NOW + MINUTE), Outcome::default());
        let now_ms = NOW + 2 * MINUTE;
        let outcome = d.flagged(&critical("a", "i-a", NOW + MINUTE), now_ms);
        assert_eq!(states(&outcome), [(Kind::Stop, state)], "{mode:?}");
        let measure = &outcome.changes[0].measure;
        assert_eq!((&measure.id, measure.made_ms, d.measures().count()), (&late.id, now_ms, 1), "the same measure");
        assert!(!d.came_too_late("a", "i-a"));
        assert_eq!(d.flagged(&critical("a", "i-a", now_ms), now_ms), Outcome::default(), "once");
    }
    // What a person ended meanwhile stays so.
    let mut d = Decider::new(&auto(vec![]));
    d.flagged(&critical("a", "i-a", NOW - HOUR), NOW);
    assert_eq!(d.acquitted("a", "i-a", "ann", NOW).len(), 1);
    assert_eq!(d.flagged(&critical("a", "i-a", NOW), NOW), Outcome::default());
}

#[test]
fn where_no_measure_has_room_that_is_said() {
    let mut d = Decider::new(&auto(vec![]));
    let first = d.flagged(&critical("a", "i-a", NOW), NOW).changes.remove(0).measure;
    for n in 1..MEASURES_MAX {
        d.restore(Measure { id: format!("m-{n}"), subject: format!("u{n}"), state: State::Shadow, ..first.clone() });
    }
    let outcome = d.flagged(&critical("b", "i-b", NOW), NOW);
    assert_eq!((outcome.changes.len(), outcome.capped.len()), (0, 1));
    assert!(outcome.capped[0].text.contains("no room"), "{}", outcome.capped[0].text);
    assert!(d.flagged(&critical("c", "i-c", NOW), NOW).capped.is_empty(), "once an hour");
}

#[test]
fn five_thousand_that_look_guilty_are_a_page_and_not_five_thousand_stops() {
    let mut d = Decider::new(&auto(vec![]));
    let (mut stopped, mut asked, mut told, mut pages) = (0, 0, 0, 0);
    for n in 0..5000 {
        let (account, incident, tenant) = (format!("u{n}"), format!("i-{n}"), format!("t{}", n % 500));
        let at_ms = NOW + n / 2 * 100;
        let outcome = d.flagged(&Flag { tenant: &tenant, ..critical(&account, &incident, at_ms) }, at_ms);
        pages += outcome.capped.len();
        for change in outcome.changes {
            told += usize::from(change.told.is_some());
            match change.measure.state {
                State::InForce => stopped += 1,
                State::Asked => asked += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((stopped, asked, told), (20, 4980, 20));
    assert_eq!(pages, 1, "within one hour of the clock");
    // A tenant has a cap of its own, and an hour later there is room again.
    let mut d = Decider::new(&auto(vec![]));
    let names: Vec<(String, String)> = (0..12).map(|n| (format!("u{n}"), format!("i-{n}"))).collect();
    for (n, (account, incident)) in names.iter().enumerate() {
        let state = if n < 10 { State::InForce } else { State::Asked };
        assert_eq!(states(&d.flagged(&critical(account, incident, NOW), NOW)), [(Kind::Stop, state)], "{n}");
    }
    let outcome = d.flagged(&Flag { tenant: "other", ..critical("v", "i-v", NOW) }, NOW);
    assert_eq!(states(&outcome), [(Kind::Stop, State::InForce)]);
    let later = d.flagged(&critical("w", "i-w", NOW + HOUR), NOW + HOUR);
    assert_eq!(states(&later), [(Kind::Stop, State::InForce)]);
    // A person does not count, and is not bounded.
    let waiting = d.measures().find(|m| m.state == State::Asked).unwrap().id.clone();
    let change = d.confirm(&waiting, "ann", NOW).unwrap();
    assert_eq!((change.measure.state, change.measure.confirmed_by.as_deref()), (State::InForce, Some("ann")));
    assert!(matches!(d.confirm(&waiting, "ann", NOW), Err(Refused::Conflict(_))));
}

#[test]
fn a_stop_ends_by_a_word_or_at_its_longest_and_leaves_probation_behind() {
    let mut settings = auto(vec![]);
    settings.stop.max_s = 3600;
    settings.stop.probation_s = 7200;
    let mut d = Decider::new(&settings);
    d.flagged(&critical("a", "i-1", NOW), NOW);
    // However long the account is silent: nothing but its time ends it.
    assert_eq!(d.tick(&[], false, NOW + HOUR - 1), Outcome::default());
    let outcome = d.tick(&[], false, NOW + HOUR);
    assert_eq!(outcome.changes[0].told, Some(Told::Over));
    assert_eq!(outcome.changes[0].measure.ended.as_ref().unwrap().by, BY);
    let on_probation = flag("a", "i-2", Severity::Warning, NOW + 2 * HOUR);
    assert_eq!(states(&d.flagged(&on_probation, NOW + 2 * HOUR)), [(Kind::Stop, State::InForce)]);
    let ended = d.released("a", "ann", "by telephone", NOW + 2 * HOUR);
    assert_eq!(ended[0].measure.ended.as_ref().unwrap().by, "ann");
    assert_eq!(d.released("a", "ann", "twice", NOW + 2 * HOUR), []);
    let after = flag("a", "i-3", Severity::Warning, NOW + 4 * HOUR + 1);
    assert_eq!(d.flagged(&after, NOW + 4 * HOUR + 1), Outcome::default(), "probation is over");
    // Acquitted, nothing is left, whether before or after the release.
    for early in [true, false] {
        let mut d = Decider::new(&settings);
        d.flagged(&critical("a", "i-1", NOW), NOW);
        if early {
            d.released("a", "ann", "", NOW);
            assert!(d.is_on_probation("a", NOW));
        }
        assert_eq!(d.acquitted("a", "i-1", "ann", NOW).len(), 1);
        assert!(!d.is_on_probation("a", NOW) && d.open(Kind::Stop, "a").is_none());
    }
}

#[test]
fn a_person_can_stand_behind_what_is_in_force_by_itself_once() {
    let mut d = Decider::new(&auto(vec![pool("p", 4, 0)]));
    let stop = d.flagged(&critical("a", "i-a", NOW), NOW).changes.remove(0).measure;
    assert!(stop.is_for(Mode::Auto) && !stop.is_for(Mode::Confirm));
    let change = d.confirm(&stop.id, "ann", NOW + 1000).unwrap();
    assert_eq!(
        change.measure,
        Measure { confirmed_by: Some("ann".to_owned()), ..stop.clone() },
        "nothing else changes"
    );
    assert_eq!((change.told, change.measure.is_for(Mode::Confirm)), (None, true));
    assert!(d.confirm(&stop.id, "ann", NOW + 2000).is_err(), "once");
    let mut d = Decider::new(&auto(vec![pool("p", 4, 0)]));
    d.restore(stop.clone());
    assert!(d.confirm(&stop.id, "ann", stop.until_ms).is_err(), "it has expired");
}

#[test]
fn the_account_goes_first_and_then_the_relay() {
    let settings = auto(vec![pool("p", 4, 0)]);
    let exposed = |now_ms| [burden("p-0", now_ms, &[("a", 300)])];
    // A hand says that it is done.
    let mut d = Decider::new(&settings);
    d.flagged(&critical("a", "i-a", NOW), NOW);
    assert_eq!(d.tick(&exposed(NOW + 5000), false, NOW + 5000), Outcome::default());
    d.stopped("a", NOW + 6000).unwrap();
    assert_eq!(states(&d.tick(&exposed(NOW + 7000), false, NOW + 7000)), [(Kind::Pull, State::InForce)]);
    // A policy service has served it, whichever clock it has; once, and no other measure.
    let mut d = Decider::new(&settings);
    let stop = d.flagged(&critical("a", "i-a", NOW), NOW).changes.remove(0).measure;
    assert_eq!(d.served("m-other", NOW, NOW + 1000), None);
    for (at_ms, done_ms) in [(NOW - 9000, NOW), (NOW + 500, NOW + 500), (NOW + 9000, NOW + 1000)] {
        let mut d = Decider::new(&settings);
        d.restore(stop.clone());
        assert_eq!(d.served(&stop.id, at_ms, NOW + 1000).unwrap().measure.done_ms, Some(done_ms));
        assert_eq!(d.served(&stop.id, at_ms, NOW + 1000), None);
    }
    d.served(&stop.id, NOW + 6000, NOW + 6000).unwrap();
    assert_eq!(states(&d.tick(&exposed(NOW + 7000), false, NOW + 7000)), [(Kind::Pull, State::InForce)]);
    // Nobody says it: after the grace.
    let mut d = Decider::new(&settings);
    d.flagged(&critical("a", "i-a", NOW), NOW);
    assert_eq!(d.tick(&exposed(NOW + 59_999), false, NOW + 59_999), Outcome::default());
    assert_eq!(states(&d.tick(&exposed(NOW + MINUTE), false, NOW + MINUTE)), [(Kind::Pull, State::InForce)]);
    // Nothing stops the account: at once.
    let mut d = Decider::new(&settings);
    let outcome = d.tick(&exposed(NOW), false, NOW);
    assert_eq!(states(&outcome), [(Kind::Pull, State::InForce)]);
    let measure = &outcome.changes[0].measure;
    assert_eq!((&*measure.pool, measure.accounts.len(), measure.accounts[0].recipients), ("p", 1, 300));
    // What came too late pulls nothing.
    let mut d = Decider::new(&settings);
    assert_eq!(states(&d.tick(&exposed(NOW - HOUR), false, NOW)), [(Kind::Pull, State::Shadow)]);
}

#[test]
fn what_suffices_and_what_does_not() {
    let check = |burden: Burden, is_pulled: bool, what: &str| {
        let mut d = Decider::new(&auto(vec![pool("p", 4, 3)]));
        let outcome = d.tick(&[burden], false, NOW);
        let pulled = states(&outcome).contains(&(Kind::Pull, State::InForce));
        assert_eq!(pulled, is_pulled, "{what}");
    };
    let of = |relay: &str, recipients| burden(relay, NOW, &[("a", recipients)]);
    let refused = |n: u64, families: &[&str]| families.iter().map(|f| ((*f).to_owned(), n)).collect::<Vec<_>>();
    check(of("p-0", 199), false, "one recipient less");
    check(of("p-0", 200), true, "the limit");
    check(Burden { carried: 100_000, ..of("p-0", 499) }, false, "half a percent of a busy relay");
    check(Burden { carried: 100_000, ..of("p-0", 500) }, true, "that share");
    check(Burden { refused: refused(10, &["google", "outlook"]), ..of("p-0", 100) }, true, "two refuse it");
    check(Burden { refused: refused(50, &["google"]), ..of("p-0", 199) }, false, "one refuses it");
    check(Burden { refused: refused(500, &["google", "outlook"]), ..of("p-0", 0) }, false, "no burst");
    check(of("p-shop0", 5000), false, "dedicated to another customer");
    let mut own = of("p-shop0", 5000);
    own.burst[0].tenant = "shop".to_owned();
    check(own, false, "three are dedicated, and seven tenths of them are all three");
    check(of("unknown", 5000), false, "in no pool");
}

#[test]
fn a_fresh_refusal_does_not_make_a_burst_of_long_ago_a_fresh_one() {
    let families = || ["google", "outlook"].map(|family| (family.to_owned(), 30)).to_vec();
    let settings = auto(vec![pool("p", 4, 0)]);
    let mut d = Decider::new(&settings);
    // The detector was behind: the burst was over before anybody could know of it. Its relay is refused now.
    let burst_ms = NOW - HOUR / 2;
    let behind = Burden { refused: families(), refused_ts: Timestamp(NOW), ..burden("p-0", burst_ms, &[("a", 300)]) };
    assert_eq!(states(&d.tick(&[behind], false, NOW)), [(Kind::Pull, State::Shadow)]);
    // One share that is fresh suffices: the burst goes on.
    let mut d = Decider::new(&settings);
    let mut both = burden("p-0", burst_ms, &[("a", 300), ("b", 4)]);
    both.burst[1].ts = Timestamp(NOW);
    assert_eq!(states(&d.tick(&[both], false, NOW)), [(Kind::Pull, State::InForce)]);
    // A relay that came back too early goes again because of refusals alone; those of long ago suffice no more.
    for (refused_ms, state) in [(NOW + 40 * MINUTE, State::InForce), (NOW + 29 * MINUTE, State::Shadow)] {
        let mut d = Decider::new(&settings);
        d.tick(&[burden("p-0", NOW, &[("a", 300)])], false, NOW);
        assert_eq!(states(&d.tick(&[], false, NOW + 30 * MINUTE)), [(Kind::Pull, State::Ended)]);
        let still = Burden { refused: families(), refused_ts: Timestamp(refused_ms), ..burden("p-0", NOW, &[]) };
        assert_eq!(states(&d.tick(&[still], false, NOW + 40 * MINUTE)), [(Kind::Pull, state)]);
    }
}

#[test]
fn the_floor_does_not_count_on_relays_that_carry_nothing_or_that_others_pulled() {
    let settings = auto(vec![pool("p", 10, 0)]);
    let all = |silent: &[usize], others: u64| -> Vec<Burden> {
        let of = |n: usize| {
            let is_silent = silent.contains(&n);
            let (carried, others) = if is_silent { (0, 0) } else { (10_000, others) };
            let exposed: &[(&str, u64)] = if n < 5 { &[("a", 300)] } else { &[] };
            Burden { carried, others, ..burden(&format!("p-{n}"), NOW, exposed) }
        };
        (0..10).map(of).collect()
    };
    let pulled = |burdens: &[Burden]| {
        let mut d = Decider::new(&settings);
        let outcome = d.tick(burdens, false, NOW);
        let in_force = outcome.changes.iter().filter(|c| c.measure.state == State::InForce).count();
        (in_force, outcome.capped.first().map(|c| c.text.clone()).unwrap_or_default())
    };
    assert_eq!(pulled(&all(&[], 1000)).0, 3, "seven of ten stay");
    let (in_force, text) = pulled(&all(&[8, 9], 1000));
    assert_eq!(in_force, 1, "two are down");
    assert!(text.contains("7 relays, 7 are in; nothing goes over p-8, p-9"), "{text}");
    // Nothing is known of a relay at all: called otherwise in the events.
    assert_eq!(pulled(&all(&[], 1000)[..8]).0, 1);
    // At night most carry nothing by chance.
    assert_eq!(pulled(&all(&[8, 9], 20)).0, 3);
    // An outside system has pulled two, below the floor if it wants; what is put back counts again.
    let mut d = Decider::new(&settings);
    for relay in ["p-7", "p-8", "p-9", "p-6"] {
        assert_eq!(d.pulled(relay, "token haproxy", NOW).len(), 1);
    }
    assert_eq!((d.pulled("p-9", "token haproxy", NOW), d.pulled("nobody", "token haproxy", NOW)), (vec![], vec![]));
    let asked = |outcome: &Outcome| states(outcome).iter().all(|(_, state)| *state == State::Asked);
    assert!(asked(&d.tick(&all(&[], 1000), false, NOW)));
    assert!(d.open(Kind::Pull, "p-9").is_some_and(|m| m.is_in_force(NOW)), "quiet, but nobody has put it back");
    d.restored("p-9", "token haproxy", "", NOW);
    d.restored("p-8", "token haproxy", "", NOW);
    assert!(!asked(&d.tick(&all(&[], 1000), false, NOW)));
}

#[test]
fn a_relay_goes_back_below_a_quarter_after_its_least_time_and_not_after_its_longest() {
    let settings = auto(vec![pool("p", 4, 0)]);
    let mut d = Decider::new(&settings);
    let at = |minute: i64, recipients: u64| {
        (NOW + minute * MINUTE, burden("p-0", NOW + minute * MINUTE, &[("a", recipients)]))
    };
    let mut step = |minute, recipients| {
        let (now_ms, burden) = at(minute, recipients);
        let outcome = d.tick(&[burden], false, now_ms);
        outcome.changes.iter().filter_map(|c| c.told).collect::<Vec<_>>()
    };
    assert_eq!(step(0, 200), [Told::Done]);
    assert_eq!(step(10, 10), [], "quiet, but not for long enough");
    assert_eq!(step(31, 50), [], "a quarter is not below a quarter");
    assert_eq!(step(32, 49), [Told::Over]);
    // The second time on the same day it is out for an hour at least.
    assert_eq!(step(40, 400), [Told::Done]);
    assert_eq!(step(99, 0), []);
    assert_eq!(step(100, 0), [Told::Over]);
    // Renewed while it lasts, a day at most; then a person must say so.
    assert_eq!(step(200, 400), [Told::Done]);
    for minute in 201..200 + 24 * 60 {
        assert_eq!(step(minute, 400), [], "{minute}");
    }
    assert_eq!(step(200 + 24 * 60, 400), [Told::Over, Told::Asked]);
}

#[test]
fn a_relay_that_is_still_refused_goes_again_and_one_that_never_bore_a_burst_does_not() {
    let mut d = Decider::new(&auto(vec![pool("p", 4, 0)]));
    let refused = |relay: &str, minute: i64, recipients: u64, families: &[&str]| Burden {
        refused: families.iter().map(|f| ((*f).to_owned(), 15)).collect(),
        ..burden(relay, NOW + minute * MINUTE, &[("a", recipients)])
    };
    let two = ["google", "outlook"];
    let mut step = |minute: i64, burden: Burden| {
        let outcome = d.tick(&[burden], false, NOW + minute * MINUTE);
        outcome.changes.iter().filter_map(|c| c.told).collect::<Vec<_>>()
    };
    assert_eq!(step(0, refused("p-1", 0, 0, &two)), [], "a listing that no burst explains is for people");
    assert_eq!(step(0, refused("p-0", 0, 200, &two)), [Told::Done]);
    assert_eq!(step(40, refused("p-0", 40, 0, &two)), [], "it is refused within the last hour");
    assert_eq!(step(61, refused("p-0", 61, 0, &[])), [Told::Over]);
    assert_eq!(step(70, refused("p-0", 70, 0, &two[..1])), [], "one family is not two");
    assert_eq!(step(71, refused("p-0", 71, 0, &two)), [Told::Done], "it is listed still");
    assert_eq!(step(130, refused("p-0", 130, 0, &[])), [], "an hour at least, this time");
    assert_eq!(step(131, refused("p-0", 131, 0, &[])), [Told::Over]);
    assert_eq!(step(131 + 24 * 60, refused("p-0", 131 + 24 * 60, 0, &two)), [], "a day later it is news");
}

#[test]
fn restored_by_a_person_it_stays_and_all_at_once_hold_everything_off() {
    let settings = auto(vec![pool("p", 10, 0)]);
    let mut d = Decider::new(&settings);
    let exposed = |now_ms: i64| (0..3).map(|n| burden(&format!("p-{n}"), now_ms, &[("a", 300)])).collect::<Vec<_>>();
    assert_eq!(d.tick(&exposed(NOW), false, NOW).changes.len(), 3);
    let id = d.open(Kind::Pull, "p-0").unwrap().id.clone();
    assert!(d.finish(&id, "ann", "it is ours", NOW).unwrap().is_some());
    assert_eq!(d.finish(&id, "ann", "twice", NOW), Ok(None));
    assert_eq!(d.tick(&exposed(NOW + MINUTE), false, NOW + MINUTE), Outcome::default());
    let hold = Hold { v: 1, until_ms: NOW + 3 * HOUR, by: "ann".to_owned(), note: None };
    assert_eq!(d.restore_all(hold, NOW + MINUTE).len(), 2);
    assert_eq!(d.tick(&exposed(NOW + 3 * HOUR - 1), false, NOW + 3 * HOUR - 1), Outcome::default());
    assert_eq!(d.tick(&exposed(NOW + 3 * HOUR), false, NOW + 3 * HOUR).changes.len(), 3);
    // The floor is for people, too: seven of ten stay.
    let order = |relay: &str| Order {
        kind: Kind::Pull,
        subject: relay.to_owned(),
        tenant: String::new(),
        incident: String::new(),
        for_s: 0,
        note: "maintenance".to_owned(),
    };
    assert!(matches!(d.order(&order("p-9"), "ann", NOW + 3 * HOUR), Err(Refused::Conflict(_))));
    assert!(matches!(d.order(&order("none"), "ann", NOW), Err(Refused::Unknown(_))));
    // By a person it lasts until the person, or its time, ends it.
    assert_eq!(d.order(&order("p-0"), "ann", NOW + 3 * HOUR).unwrap().len(), 2);
    let later = NOW + 20 * HOUR;
    d.tick(&[], false, later);
    assert_eq!(d.open(Kind::Pull, "p-0").unwrap().by, "ann");
    assert!(d.open(Kind::Pull, "p-1").is_none());
}

#[test]
fn all_exposed_at_once_the_floor_holds_and_one_word_says_so() {
    for shared in [1, 4, 10, 400] {
        let mut settings = auto(vec![pool("p", shared, 0)]);
        (settings.pull.at_once, settings.pull.per_hour) = (10_000, 10_000);
        let mut d = Decider::new(&settings);
        let all: Vec<Burden> = (0..shared).map(|n| burden(&format!("p-{n}"), NOW, &[("a", 300 + n as u64)])).collect();
        let outcome = d.tick(&all, false, NOW);
        let out = outcome.changes.iter().filter(|c| c.measure.state == State::InForce).count();
        let stays = (shared as f64 * 0.7).ceil() as usize;
        assert_eq!(out, shared - stays.max(1), "of {shared}");
        assert_eq!(outcome.capped.len(), 1);
        // The worst ones went.
        let worst = outcome.changes.iter().take(out).map(|c| c.measure.accounts[0].recipients).min();
        assert!(worst.is_none_or(|w| w == 300 + (shared - out) as u64));
        assert_eq!(d.tick(&all, false, NOW + 1000), Outcome::default(), "nothing is said twice");
    }
}

#[test]
fn a_year_of_flapping_does_not_flap_the_relay() {
    for period_min in [10, 30, 90, 130, 400] {
        let mut d = Decider::new(&auto(vec![pool("p", 4, 0)]));
        let mut pulls = BTreeMap::<i64, usize>::new();
        for minute in (0..365 * 24 * 60).step_by(5) {
            let now_ms = NOW + minute * MINUTE;
            let burst = if minute / period_min % 2 == 0 { 400 } else { 0 };
            let outcome = d.tick(&[burden("p-0", now_ms, &[("a", burst)])], false, now_ms);
            for change in outcome.changes.iter().filter(|c| c.told == Some(Told::Done)) {
                *pulls.entry(change.measure.made_ms / DAY).or_default() += 1;
            }
            if minute % 1440 == 0 {
                d.forget(now_ms - 30 * DAY);
            }
        }
        let most = pulls.values().max().unwrap();
        assert!(*most <= 6, "every {period_min} min: {most} times in a day");
        assert!(d.measures().count() < 31 * 7);
    }
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Step {
    Flag { account: u8, is_critical: bool, is_doubtful: bool, late_s: u32 },
    Done { account: u8 },
    Release { account: u8 },
    Acquit { account: u8 },
    Exposed { bursts: Vec<u16>, late_s: u32, is_doubtful: bool },
    Confirm { nth: u8 },
    End { nth: u8 },
    Pull { relay: u8 },
    RestoreAll,
    Lift,
    Wait { minutes: u16 },
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let late = prop_oneof![4 => 0u32..60, 1 => 500u32..700, 1 => 1000u32..100_000];
    prop_oneof![
        4 => (0u8..30, any::<bool>(), prop::bool::weighted(0.1), late.clone())
            .prop_map(|(account, is_critical, is_doubtful, late_s)| Step::Flag { account, is_critical, is_doubtful, late_s }),
        1 => (0u8..30).prop_map(|account| Step::Done { account }),
        1 => (0u8..30).prop_map(|account| Step::Release { account }),
        1 => (0u8..30).prop_map(|account| Step::Acquit { account }),
        6 => (vec(0u16..600, 21), late, prop::bool::weighted(0.1))
            .prop_map(|(bursts, late_s, is_doubtful)| Step::Exposed { bursts, late_s, is_doubtful }),
        1 => any::<u8>().prop_map(|nth| Step::Confirm { nth }),
        1 => any::<u8>().prop_map(|nth| Step::End { nth }),
        1 => (0u8..21).prop_map(|relay| Step::Pull { relay }),
        1 => Just(Step::RestoreAll),
        1 => Just(Step::Lift),
        6 => (0u16..300).prop_map(|minutes| Step::Wait { minutes }),
        1 => Just(Step::Forget),
    ]
}

/// Does a step. Returns the measures that it changed.
fn take(d: &mut Decider, members: &[String], step: &Step, now_ms: i64) -> Vec<Measure> {
    let ago = |late_s: u32| Timestamp(now_ms - i64::from(late_s) * 1000);
    let nth = |d: &Decider, nth: u8| {
        let mut ids: Vec<String> = d.measures().filter(|m| m.is_open()).map(|m| m.id.clone()).collect();
        ids.sort_unstable();
        let len = ids.len().max(1);
        ids.into_iter().nth(usize::from(nth) % len)
    };
    let changes = match step {
        Step::Flag { account, is_critical, is_doubtful, late_s } => {
            let (name, incident) = (format!("a{account}"), format!("i-{account}-{}", now_ms / DAY));
            let severity = if *is_critical { Severity::Critical } else { Severity::Warning };
            let tenant = if account % 3 == 0 { "shop" } else { "t" };
            let flag = Flag {
                account: &name,
                tenant,
                incident: &incident,
                severity,
                ts: ago(*late_s),
                is_doubtful: *is_doubtful,
            };
            d.flagged(&flag, now_ms).changes
        }
        Step::Done { account } => d.stopped(&format!("a{account}"), now_ms).into_iter().collect(),
        Step::Release { account } => d.released(&format!("a{account}"), "ann", "", now_ms),
        Step::Acquit { account } => {
            d.acquitted(&format!("a{account}"), &format!("i-{account}-{}", now_ms / DAY), "ann", now_ms)
        }
        Step::Exposed { bursts, late_s, is_doubtful } => {
            let burdens: Vec<Burden> = members
                .iter()
                .zip(bursts)
                .enumerate()
                .map(|(n, (relay, burst))| {
                    let account = format!("a{}", n % 30);
                    burden(relay, ago(*late_s).0, &[(&account, u64::from(*burst))])
                })
                .collect();
            d.tick(&burdens, *is_doubtful, now_ms).changes
        }
        Step::Confirm { nth: n } => nth(d, *n).and_then(|id| d.confirm(&id, "ann", now_ms).ok()).into_iter().collect(),
        Step::End { nth: n } => {
            nth(d, *n).and_then(|id| d.finish(&id, "ann", "", now_ms).ok().flatten()).into_iter().collect()
        }
        Step::Pull { relay } => {
            let order = Order {
                kind: Kind::Pull,
                subject: members[usize::from(*relay)].clone(),
                tenant: String::new(),
                incident: String::new(),
                for_s: 7200,
                note: "by hand".to_owned(),
            };
            d.order(&order, "ann", now_ms).unwrap_or_default()
        }
        Step::RestoreAll => {
            d.restore_all(Hold { v: 1, until_ms: now_ms + HOUR, by: "ann".to_owned(), note: None }, now_ms)
        }
        Step::Lift => {
            d.lift_hold();
            Vec::new()
        }
        Step::Wait { .. } => d.tick(&[], false, now_ms).changes,
        Step::Forget => {
            d.forget(now_ms - 2 * DAY);
            Vec::new()
        }
    };
    changes.into_iter().map(|c| c.measure).collect()
}

/// What must hold at every moment, counted from the measures alone.
fn check(d: &Decider, settings: &Settings, hold: Option<i64>, changed: &[Measure], now_ms: i64) {
    let in_force: Vec<&Measure> = d.measures().filter(|m| m.is_in_force(now_ms)).collect();
    let pulls: Vec<&&Measure> = in_force.iter().filter(|m| m.kind == Kind::Pull).collect();
    for pool in &settings.pool {
        for tenant in ["", "shop"] {
            let group: Vec<&Member> = pool.member.iter().filter(|m| m.tenant == tenant).collect();
            let out = group.iter().filter(|m| pulls.iter().any(|p| p.subject == m.relay)).count();
            let floor = ((group.len() as f64 * settings.pull.floor_share).ceil() as usize).max(1);
            assert!(
                out == 0 || group.len() - out >= floor,
                "{out} of {} {tenant} are out in {}",
                group.len(),
                pool.name
            );
        }
        let hour = pulls.iter().filter(|p| p.pool == pool.name && p.by == BY && p.confirmed_by.is_none());
        let hour = hour.filter(|p| p.since_ms.unwrap() > now_ms - HOUR).count();
        assert!(hour <= settings.pull.per_hour as usize, "{hour} within an hour");
    }
    let by_itself = pulls.iter().filter(|p| p.by == BY && p.confirmed_by.is_none()).count();
    assert!(by_itself <= settings.pull.at_once as usize, "{by_itself} at once");
    let stops: Vec<&&Measure> = in_force
        .iter()
        .filter(|m| {
            m.kind == Kind::Stop && m.by == BY && m.confirmed_by.is_none() && m.since_ms.unwrap() > now_ms - HOUR
        })
        .collect();
    assert!(stops.len() <= settings.stop.per_hour as usize);
    assert!(stops.iter().filter(|m| m.tenant == "t").count() <= settings.stop.tenant_per_hour as usize);
    for measure in changed.iter().filter(|m| m.by == BY && m.made_ms == now_ms && m.state == State::InForce) {
        assert!(now_ms - measure.ts.0 <= i64::from(settings.act_within_s) * 1000, "too late: {measure:?}");
        if measure.kind == Kind::Pull {
            assert!(hold.is_none_or(|until| now_ms >= until), "it is held off");
            assert!(measure.tenant.is_empty() || measure.tenant == "shop");
        }
    }
    for (kind, subject) in d.measures().filter(|m| m.is_open()).map(|m| (m.kind, &m.subject)) {
        assert_eq!(d.measures().filter(|m| m.is_open() && m.kind == kind && m.subject == *subject).count(), 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Whatever happens, no bound is broken; and a decider restored from the measures of another at any moment goes on as that one.
    #[test]
    fn no_history_breaks_a_bound_and_a_restart_changes_nothing(
        steps in vec(step(), 1..120), restart in 0usize..120, throttle: bool
    ) {
        let mut settings = auto(vec![pool("p", 12, 3), pool("q", 6, 0)]);
        (settings.pull.at_once, settings.pull.per_hour) = (5, 3);
        (settings.stop.per_hour, settings.stop.tenant_per_hour, settings.stop.throttle) = (6, 4, throttle);
        settings.stop.max_s = 7200;
        let members: Vec<String> = settings.members().map(|(_, m)| m.relay.clone()).collect();
        let mut d = Decider::new(&settings);
        let mut other: Option<Decider> = None;
        let (mut now_ms, mut hold) = (NOW, None);
        for (n, step) in steps.iter().enumerate() {
            now_ms += 1000;
            match step {
                Step::Wait { minutes } => now_ms += i64::from(*minutes) * MINUTE,
                Step::RestoreAll => hold = Some(now_ms + HOUR),
                Step::Lift => hold = None,
                _ => {}
            }
            let changed = take(&mut d, &members, step, now_ms);
            if let Some(other) = &mut other {
                prop_assert_eq!(&take(other, &members, step, now_ms), &changed);
            }
            check(&d, &settings, hold, &changed, now_ms);
            if n == restart {
                let mut restored = Decider::new(&settings);
                let mut all: Vec<Measure> = d.measures().cloned().collect();
                // As a compacted topic has them: in any order.
                all.sort_by(|a, b| b.id.cmp(&a.id));
                for measure in all {
                    let read = serde_json::from_str(&serde_json::to_string(&measure).unwrap()).unwrap();
                    restored.restore(read);
                }
                restored.restore_hold(hold.map(|until_ms| Hold { v: 1, until_ms, by: "ann".to_owned(), note: None }));
                other = Some(restored);
            }
        }
    }
}
