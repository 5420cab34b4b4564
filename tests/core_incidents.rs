//! The life of an incident, on small streams made by hand: what is flagged, when it grows worse, when it is over, what it
//! teaches, and what must not be taken for one.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::sync::Arc;

use mailfuse::core::account::damped;
use mailfuse::core::alert::{Alert, AlertKind, Severity, Signal};
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::verdict::Stratum;
use mailfuse::event::{Event, Status, Timestamp};
use support::*;

const ACCOUNT: &str = "info@example.org";
/// Where the owner sits, and where the thief.
const HOME: &str = "192.0.2.10";
const AWAY: [&str; 3] = ["203.0.113.5", "198.51.100.9", "233.252.0.1"];

fn colleagues(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("c{i}@example.org")).collect()
}

/// Three weeks of an ordinary account: some mails a working day to the same twenty people, and a stranger a day.
fn past(run: &mut Run, account: &str, days: i64) {
    let friends: Vec<String> = (0..20).map(|i| format!("friend{i}@example.net")).collect();
    let mut dice = Dice(account.len() as u64);
    for day in 0..days {
        for i in 0..6 {
            let ts = START_MS + day * DAY_MS + (8 + i) * HOUR_MS;
            let way = Way::of(HOME).with_id(&format!("p{day}.{i}"));
            let mut rcpts = vec![friends[dice.below(20) as usize].clone()];
            if i == 3 {
                rcpts.push(format!("customer{day}@example.com"));
            }
            run.step(&send(account, ts, &way, &rcpts));
            for rcpt in &rcpts {
                run.step(&outcome(account, ts + 2_000, &way, rcpt, DELIVERED));
            }
        }
    }
}

/// A thief's burst: a message to one stranger every ten seconds, from changing networks, every third one refused.
fn burst(run: &mut Run, account: &str, from_ms: i64, messages: usize, ips: &[&'static str]) {
    for (i, rcpt) in strangers(&format!("b{from_ms}"), messages).iter().enumerate() {
        let ts = from_ms + i as i64 * 10_000;
        let way = Way::of(ips[i % ips.len()]).with_id(&format!("b{from_ms}.{i}"));
        run.step(&send(account, ts, &way, std::slice::from_ref(rcpt)));
        run.step(&outcome(account, ts + 1_000, &way, rcpt, if i % 3 == 0 { UNKNOWN } else { DELIVERED }));
    }
}

fn flagged(run: &Run) -> &Alert {
    run.alerts.iter().find(|a| a.kind == AlertKind::Flagged).unwrap()
}

#[test]
fn an_incident_is_flagged_escalated_and_cleared_once() {
    let mut run = Run::new(&policy());
    past(&mut run, ACCOUNT, 21);
    assert!(run.alerts.is_empty(), "the past of an ordinary account: {:?}", run.said());
    assert_eq!(run.shard.account(ACCOUNT).unwrap().stratum(), Stratum::Established);
    // The volume of strangers alone is a warning at first; then refusals and networks come to light.
    let at = START_MS + 21 * DAY_MS + 3 * HOUR_MS;
    for (i, rcpt) in strangers("v", 60).iter().enumerate() {
        run.step(&send(ACCOUNT, at + i as i64 * 5_000, &Way::of(HOME), std::slice::from_ref(rcpt)));
        if !run.alerts.is_empty() {
            break;
        }
    }
    assert_eq!(run.said(), ["flagged warning"]);
    burst(&mut run, ACCOUNT, at + 10 * MINUTE_MS, 40, &AWAY);
    assert_eq!(run.said(), ["flagged warning", "escalated critical"]);
    let last_ms = at + 10 * MINUTE_MS + 39 * 10_000 + 1_000;
    assert_eq!(run.shard.account(ACCOUNT).unwrap().clock_ms(), last_ms);

    // Quiet time begins when the evidence last reached the warning, which a critical incident looks at once a minute.
    let quiet_ms = i64::from(Detect::default().quiet_s) * 1000;
    let due_ms = run.shard.account(ACCOUNT).unwrap().incident.as_ref().unwrap().due_ms(Detect::default().quiet_s);
    assert!((last_ms - MINUTE_MS..=last_ms).contains(&(due_ms - quiet_ms)), "{due_ms}");
    // Not before the shard's clock (the largest stamp less the lateness) has passed it.
    run.tick(due_ms + 299_999);
    assert_eq!(run.alerts.len(), 2);
    run.tick(due_ms + 300_000);
    assert_eq!(run.said(), ["flagged warning", "escalated critical", "cleared critical"]);
    let [first, second, third] = &run.alerts[..] else { panic!("three alerts") };
    assert_eq!(third.ts, Timestamp(due_ms), "the moment the quiet time ended, not when it was noticed");
    assert!(first.incident == second.incident && second.incident == third.incident);
    assert!(third.evidence.is_empty() && third.score == second.score && third.pattern == second.pattern);
    assert!(third.burst.as_ref().unwrap().recipients >= 40);
    run.tick(due_ms + 30 * DAY_MS);
    assert_eq!(run.alerts.len(), 3, "a clear is written once");
}

/// A new burst after the clear is a new incident, counted from the clear on, although the old one is still in its windows.
#[test]
fn a_second_burst_is_a_second_incident() {
    let mut run = Run::new(&policy());
    past(&mut run, ACCOUNT, 21);
    let first_ms = START_MS + 21 * DAY_MS;
    burst(&mut run, ACCOUNT, first_ms, 40, &AWAY);
    // Thirteen hours later, so that the first is within the window of 24 h.
    let second_ms = first_ms + 13 * HOUR_MS;
    burst(&mut run, ACCOUNT, second_ms, 40, &["100.64.0.9", "172.20.0.1"]);
    run.tick(second_ms + DAY_MS);
    let flags: Vec<_> = run.alerts.iter().filter(|a| a.kind == AlertKind::Flagged).collect();
    let clears: Vec<_> = run.alerts.iter().filter(|a| a.kind == AlertKind::Cleared).collect();
    assert_eq!((flags.len(), clears.len()), (2, 2), "{:?}", run.said());
    assert_ne!(flags[0].incident, flags[1].incident);
    assert!(flags[1].ts > clears[0].ts);
    for clear in clears {
        let burst = clear.burst.as_ref().unwrap();
        assert_eq!((burst.messages, burst.recipients, burst.new_recipients, burst.bounced), (40, 40, 40, 14));
        // Every recipient once, although a third of them was new and then refused.
        assert_eq!(burst.top_domains.iter().map(|d| d.recipients).sum::<u64>(), 40);
    }
}

/// Mail that a queue brings half a day late, after the clear: it can neither open an incident before it nor reuse its id.
#[test]
fn a_written_clear_is_final() {
    let mut run = Run::new(&policy());
    past(&mut run, ACCOUNT, 21);
    let at = START_MS + 21 * DAY_MS;
    burst(&mut run, ACCOUNT, at, 40, &AWAY);
    run.tick(at + DAY_MS);
    let said = run.said();
    assert_eq!(said.last().unwrap(), "cleared critical");
    let clock_ms = run.shard.account(ACCOUNT).unwrap().clock_ms();
    for (i, rcpt) in strangers("late", 200).iter().enumerate() {
        let way = Way::of(AWAY[i % 3]).with_id(&format!("l{i}"));
        run.step(&send(ACCOUNT, clock_ms - i as i64, &way, std::slice::from_ref(rcpt)));
    }
    assert_eq!(run.said(), said, "an alert with an id that is given away");
    // It has not been forgotten: with the first mail after the clear it counts.
    run.step(&send(ACCOUNT, at + DAY_MS, &Way::of(AWAY[0]).with_id("n"), &strangers("now", 3)));
    assert_eq!(run.said().last().unwrap(), "flagged critical");
    let mut ids: Vec<_> = run.alerts.iter().map(|a| &a.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), run.alerts.len());
}

/// A log that holds outcomes only still names the account; its burst is not known, and does not begin in 1970.
#[test]
fn outcomes_alone_flag_without_a_burst() {
    let mut run = Run::new(&policy());
    past(&mut run, ACCOUNT, 21);
    let at = START_MS + 21 * DAY_MS;
    for (i, rcpt) in strangers("o", 80).iter().enumerate() {
        let way = Way { ip: None, relay: Some("out-1"), queue_id: Some(format!("unseen{i}")) };
        run.step(&outcome(ACCOUNT, at + i as i64 * 3_000, &way, rcpt, if i % 2 == 0 { UNKNOWN } else { DELIVERED }));
    }
    let flag = flagged(&run);
    assert_eq!(flag.burst, None);
    assert!(flag.relays.is_empty());
    assert!(flag.evidence.iter().any(|e| e.signal == Signal::Bounces && e.observed >= 1.0));
}

/// A burst does not teach: after a day of theft the account's normal is what it was.
#[test]
fn a_burst_does_not_teach() {
    let policy = policy();
    let prior = &policy.detect.prior;
    let (mut stolen, mut spared) = (Run::new(&policy), Run::new(&policy));
    for run in [&mut stolen, &mut spared] {
        past(run, ACCOUNT, 21);
    }
    burst(&mut stolen, ACCOUNT, START_MS + 21 * DAY_MS, 2_000, &AWAY);
    for run in [&mut stolen, &mut spared] {
        run.step(&send(ACCOUNT, START_MS + 22 * DAY_MS + HOUR_MS, &Way::of(HOME), &["friend1@example.net".to_owned()]));
    }
    let normal = |run: &Run| {
        let baseline = run.shard.account(ACCOUNT).unwrap().baseline();
        let (refused, accepted) = baseline.refusals(prior);
        [baseline.new_rate(prior).mean(1.0), baseline.volume_rate(prior).mean(1.0), refused / (refused + accepted)]
    };
    let (after, usual) = (normal(&stolen), normal(&spared));
    assert!(after[0] < 2.5 * usual[0] && after[0] < 3.0, "new recipients a day: {after:?}, else {usual:?}");
    assert!(after[1] < 2.5 * usual[1], "recipients a day: {after:?}, else {usual:?}");
    assert!(after[2] < usual[2] + 0.01, "refused: {after:?}, else {usual:?}");
}

/// Four weeks of 150 messages a day, each to two strangers, `every_s` apart.
fn shop(every_s: i64) -> Run {
    let mut run = Run::new(&policy());
    for day in 0..28 {
        for i in 0..150_i64 {
            let ts = START_MS + day * DAY_MS + 7 * HOUR_MS + i * every_s * 1_000;
            let way = Way::of(HOME).with_id(&format!("n{day}.{i}"));
            let rcpts = strangers(&format!("reader{day}.{i}"), 2);
            run.step(&send("shop@example.org", ts, &way, &rcpts));
            for (r, rcpt) in rcpts.iter().enumerate() {
                let said = if i % 40 == 0 && r == 0 { UNKNOWN } else { DELIVERED };
                run.step(&outcome("shop@example.org", ts + 1_000, &way, rcpt, said));
            }
        }
    }
    run
}

/// Someone who writes to hundreds of strangers every day becomes a bulk sender, and is not guilty of that.
#[test]
fn a_bulk_sender_becomes_bulk_and_not_critical() {
    let run = shop(300);
    assert_eq!(run.shard.account("shop@example.org").unwrap().stratum(), Stratum::Bulk);
    assert!(run.alerts.iter().all(|a| a.severity < Severity::Critical), "{:?}", run.said());
    // It is known: nothing at all is said of its last two weeks.
    assert!(run.alerts.iter().all(|a| a.ts.0 < START_MS + 14 * DAY_MS), "{:?}", run.alerts.last());
}

/// On the first day nobody can say whether an account is new: volume alone, however much, makes no `critical`.
#[test]
fn on_the_first_day_volume_alone_is_not_guilt() {
    let mut run = Run::new(&policy());
    for (i, rcpt) in strangers("d", 5_000).iter().enumerate() {
        run.step(&send(ACCOUNT, START_MS + i as i64 * 2_000, &Way::of(HOME), std::slice::from_ref(rcpt)));
    }
    assert_eq!(run.shard.account(ACCOUNT).unwrap().stratum(), Stratum::Unknown);
    assert!(run.alerts.iter().all(|a| a.severity == Severity::Warning), "{:?}", run.said());
    // The same with refusals and networks is a hijack, on the first day too.
    let other = "other@example.org";
    run.step(&send(other, START_MS + HOUR_MS, &Way::of(HOME), &["friend@example.net".to_owned()]));
    for (i, rcpt) in strangers("e", 30).iter().enumerate() {
        let ts = START_MS + 3 * HOUR_MS + i as i64 * 10_000;
        let way = Way::of(AWAY[i % 3]).with_id(&format!("e{i}"));
        run.step(&send(other, ts, &way, std::slice::from_ref(rcpt)));
        run.step(&outcome(other, ts + 1_000, &way, rcpt, if i % 4 == 0 { DELIVERED } else { UNKNOWN }));
    }
    assert!(run.alerts.iter().any(|a| a.account == other && a.severity == Severity::Critical), "{:?}", run.said());
}

/// One announcement to a hundred people is an event; a hundred messages are a hundred.
#[test]
fn a_mail_to_a_hundred_colleagues_flags_nothing() {
    let mut run = Run::new(&policy());
    past(&mut run, ACCOUNT, 21);
    let at = START_MS + 21 * DAY_MS + 9 * HOUR_MS;
    let way = Way::of(HOME).with_id("all");
    let n = std::env::var("N").map_or(100, |n| n.parse().unwrap());
    run.step(&send(ACCOUNT, at, &way, &colleagues(n)));
    for (i, rcpt) in colleagues(n).iter().enumerate() {
        run.step(&outcome(ACCOUNT, at + i as i64, &way, rcpt, DELIVERED));
    }
    assert!(run.alerts.is_empty(), "{:?}", run.alerts);
    // One by one to a hundred strangers is another matter: no outcome and no network is needed to notice.
    let mut other = Run::new(&policy());
    past(&mut other, ACCOUNT, 21);
    for (i, rcpt) in strangers("s", 100).iter().enumerate() {
        other.step(&send(ACCOUNT, at + i as i64 * 10_000, &Way::of(HOME), std::slice::from_ref(rcpt)));
    }
    assert!(!other.alerts.is_empty());
}

/// Recipients named at the send, or one by one by outcomes: the same damped count, the same heads.
#[test]
fn outcomes_that_name_recipients_add_up_to_the_send_that_names_them() {
    let policy = policy();
    for n in [1, 2, 3, 7, 30, 100] {
        let (mut named, mut counted) = (Run::new(&policy), Run::new(&policy));
        let rcpts = strangers("n", n);
        let way = Way::of(HOME).with_id("m");
        named.step(&send(ACCOUNT, START_MS, &way, &rcpts));
        counted.step(&counted_send(ACCOUNT, START_MS, &way, n as u64));
        for rcpt in &rcpts {
            // Deferred, then delivered: the first attempt names it.
            counted.step(&outcome(ACCOUNT, START_MS + 1, &way, rcpt, Said(Status::Deferred, "4.7.1", "greylisted")));
            counted.step(&outcome(ACCOUNT, START_MS + 2, &way, rcpt, DELIVERED));
        }
        let sum =
            |run: &Run| run.shard.account(ACCOUNT).unwrap().windows().sum(&policy.spans, 5, (START_MS / 1000) as u32);
        let (a, b) = (sum(&named), sum(&counted));
        assert_eq!((a.new_recipients, a.new_damped, a.volume), (b.new_recipients, b.new_damped, b.volume), "{n}");
        assert_eq!((a.recipients, a.messages), (n as u32, 1));
        assert_eq!((b.recipients, b.messages), (n as u32, 1));
        let expected = ((1.0 + n as f64).log2() * 1024.0).round() as u32;
        assert!(a.new_damped.abs_diff(expected) <= 1 && a.new_damped == damped(n as u32), "{n}: {}", a.new_damped);
        let distinct = |run: &Run| run.shard.account(ACCOUNT).unwrap().distinct_since(0);
        assert_eq!(distinct(&named)[0], distinct(&counted)[0]);
    }
}

/// A listed relay must not make its victims look guilty.
#[test]
fn refusals_of_our_address_do_not_count_against_the_account() {
    let listed = Said(
        Status::Bounced,
        "5.7.1",
        "554 5.7.1 Service unavailable; Client host [203.0.113.7] blocked using zen.spamhaus.org",
    );
    let weigh = |said: Said| {
        let mut run = Run::new(&policy());
        past(&mut run, ACCOUNT, 21);
        let at = START_MS + 21 * DAY_MS + 9 * HOUR_MS;
        for (i, rcpt) in strangers("x", 12).iter().enumerate() {
            let way = Way::of(HOME).with_id(&format!("x{i}"));
            run.step(&send(ACCOUNT, at + i as i64 * 60_000, &way, std::slice::from_ref(rcpt)));
            run.step(&outcome(ACCOUNT, at + i as i64 * 60_000 + 1, &way, rcpt, said));
        }
        run
    };
    assert!(weigh(listed).alerts.iter().all(|a| a.evidence.iter().all(|e| e.signal != Signal::Bounces)));
    assert_eq!(weigh(listed).said(), weigh(DELIVERED).said());
    // As unknown users the same mail is the account's doing.
    assert!(weigh(UNKNOWN).alerts.iter().any(|a| a.severity == Severity::Critical));
}

#[test]
fn a_recipient_in_mixed_case_is_the_same_recipient() {
    let mut shard = Run::new(&policy()).shard;
    let mut new = |rcpt: &str, i: i64| {
        let rcpts = [rcpt.to_owned()];
        shard.step(&send(ACCOUNT, START_MS + i, &Way::of(HOME), &rcpts), &mut Vec::new()).new_recipients
    };
    assert_eq!(new("Bob.Smith@Example.COM", 0), 1);
    assert_eq!(new("bob.smith@example.com", 1), 0);
    assert_eq!(new("BOB.SMITH@EXAMPLE.COM", 2), 0);
    assert_eq!(new("bob.smyth@example.com", 3), 1);
}

/// The send may only know the first host; the outcome knows who talked to the outside. The burst's totals follow it.
#[test]
fn an_outcome_corrects_the_relay_of_its_send() {
    let mut run = Run::new(&policy());
    past(&mut run, ACCOUNT, 21);
    let at = START_MS + 21 * DAY_MS;
    let relays = ["out-1", "out-2", "out-3"];
    for (i, rcpt) in strangers("r", 60).iter().enumerate() {
        let ts = at + i as i64 * 10_000;
        let way = Way { relay: Some("submit-1"), ..Way::of(AWAY[i % 3]).with_id(&format!("r{i}")) };
        run.step(&send(ACCOUNT, ts, &way, std::slice::from_ref(rcpt)));
        // Every tenth is still on its way.
        if i % 10 != 9 {
            let way = Way { relay: Some(relays[i % 3]), ..way };
            run.step(&outcome(ACCOUNT, ts + 500, &way, rcpt, DELIVERED));
        }
    }
    run.tick(at + DAY_MS);
    let clear = run.alerts.last().unwrap();
    let told: Vec<_> = clear.relays.iter().map(|r| (r.relay.as_str(), r.messages, r.recipients)).collect();
    assert_eq!(told, [("out-1", 18, 18), ("out-2", 18, 18), ("out-3", 18, 18), ("submit-1", 6, 6)]);
}

/// Complaints corroborate, and never flag alone.
#[test]
fn complaints_corroborate() {
    let weigh = |complaints: i64, sends: usize| {
        let mut run = Run::new(&policy());
        past(&mut run, ACCOUNT, 21);
        let at = START_MS + 21 * DAY_MS + 9 * HOUR_MS;
        for (i, rcpt) in strangers("c", sends).iter().enumerate() {
            run.step(&send(ACCOUNT, at + i as i64 * 1_000, &Way::of(HOME), std::slice::from_ref(rcpt)));
        }
        (0..complaints).for_each(|i| run.step(&complaint(ACCOUNT, at + MINUTE_MS + i)));
        run
    };
    assert!(weigh(50, 0).alerts.is_empty());
    // What volume alone does not make critical, complaints do.
    let sends = (1..200).find(|&n| weigh(0, n).said() == ["flagged warning"]).unwrap();
    let run = weigh(3, sends);
    assert_eq!(run.said(), ["flagged warning", "escalated critical"]);
    let complaints = run.alerts[1].evidence.iter().find(|e| e.signal == Signal::Complaints).unwrap();
    assert_eq!((complaints.observed, complaints.expected), (3.0, 0.0));
}

/// Whatever one account does, what is kept of it stays bounded.
#[test]
fn an_account_stays_within_bounds() {
    let mut run = Run::new(&policy());
    let mut dice = Dice(3);
    for i in 0..60_000_i64 {
        let ts = START_MS + i * 3_000;
        let ip: &'static str = AWAY[(i % 3) as usize];
        let relay: &'static str = ["r0", "r1", "r2", "r3"][(i % 4) as usize];
        let way = Way { relay: Some(relay), ..Way::of(ip).with_id(&format!("q{i}")) };
        let rcpts: Vec<_> = (0..4).map(|_| format!("{:x}@d{}.example", dice.next(), dice.below(100_000))).collect();
        let mut event = send(ACCOUNT, ts - dice.below(200_000) as i64, &way, &rcpts);
        event.id = Some(format!("e{i}").into());
        run.step(&event);
        run.step(&outcome(ACCOUNT, ts, &Way { relay: Some(relay), ..way }, &rcpts[0], UNKNOWN));
    }
    let account = run.shard.account(ACCOUNT).unwrap();
    assert!(account.bytes() < 3 << 20, "{} bytes", account.bytes());
    assert!(run.alerts.len() <= 3, "one burst is one incident: {:?}", run.said());
    let alert = run.alerts.last().unwrap();
    let burst = alert.burst.as_ref().unwrap();
    assert!(burst.client_ips.len() <= 16 && burst.top_domains.len() <= 10 && burst.queue_ids.len() <= 10);
}

/// Relay names beyond the bound share a place; nothing is lost of the sums.
#[test]
fn relay_names_are_bounded() {
    let mut run = Run::new(&policy());
    past(&mut run, ACCOUNT, 21);
    let at = START_MS + 21 * DAY_MS;
    for (i, rcpt) in strangers("m", 200).iter().enumerate() {
        let name: &'static str = Box::leak(format!("relay-{i}").into_boxed_str());
        let way = Way { relay: Some(name), ..Way::of(AWAY[i % 3]) };
        run.step(&send(ACCOUNT, at + i as i64 * 1_000, &way, std::slice::from_ref(rcpt)));
    }
    run.tick(at + DAY_MS);
    let clear = run.alerts.last().unwrap();
    assert!(clear.relays.len() <= 32);
    assert_eq!(clear.relays.iter().map(|r| r.messages).sum::<u64>(), 200);
}

/// A repeat of an event's id is counted once, in its span; a log read twice says nothing new.
#[test]
fn repeats_count_once() {
    let events: Vec<Event<'static>> = (0..30)
        .map(|i| {
            let rcpts = strangers(&format!("r{i}"), 1);
            let mut event = send(ACCOUNT, START_MS + i * 1_000, &Way::of(HOME), &rcpts);
            event.id = Some(format!("id{i}").into());
            event
        })
        .collect();
    let policy: Arc<Policy> = policy();
    let (mut once, mut twice) = (Run::new(&policy), Run::new(&policy));
    for event in &events {
        once.step(event);
        twice.step(event);
        assert!(twice.shard.step(event, &mut Vec::new()).duplicate);
    }
    let account = |run: &Run| run.shard.account(ACCOUNT).cloned();
    assert_eq!(account(&once), account(&twice));
    assert_eq!(once.alerts, twice.alerts);
}
