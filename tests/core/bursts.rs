//! What a burst is made of, where it ends, what it teaches, and what one account may cost. Each test is a thing that went wrong,
//! or would cost dear.

use crate::core_support;

use core_support::{BEGIN_S, DAY_S, Detector, at, outcome, policy, send};
use mailfuse::core::alert::{Alert, AlertKind, Severity, Signal};
use mailfuse::core::policy::Detect;
use mailfuse::core::verdict::Stratum;

const WHO: &str = "info@customer.example";
const UNKNOWN_USER: &str = "550 5.1.1 user unknown";
const HOME: &str = "10.1.0.7";
/// Where the thief sits.
const AWAY: [&str; 3] = ["203.0.113.5", "198.51.100.9", "233.252.0.1"];
const HOUR_S: i64 = 3_600;
/// The day after three weeks of history.
const DAY_21_S: i64 = BEGIN_S + 21 * DAY_S;

fn stranger(tag: &str, i: i64) -> String {
    format!("{tag}.{i}@{}", ["gmail.com", "web.de", "mail.ru"][(i % 3) as usize])
}

/// Three weeks of six mails a day to the same twenty people, and a stranger a day.
fn with_a_past() -> Detector {
    let mut d = Detector::new(&policy(Detect::default()), BEGIN_S);
    for day in 0..21 {
        for i in 0..6 {
            let (ts, queue_id) = (BEGIN_S + day * DAY_S + (8 + i) * HOUR_S, format!("P{day}.{i}"));
            let mut rcpts = vec![format!("friend{}@example.net", (day * 7 + i * 3) % 20)];
            if i == 3 {
                rcpts.push(format!("customer{day}@example.com"));
            }
            d.step(&send(at(ts), WHO, HOME, &queue_id, "out-1", &rcpts));
            for rcpt in &rcpts {
                d.step(&outcome(at(ts + 2), WHO, &queue_id, "out-1", rcpt, ""));
            }
        }
    }
    assert!(d.alerts.is_empty(), "{:?}", said(&d));
    assert_eq!(d.shard.account(WHO).unwrap().stratum(), Stratum::Established);
    d
}

/// A message to one stranger every ten seconds, from changing networks, every third one refused.
fn burst(d: &mut Detector, begin_s: i64, messages: i64, ips: &[&str]) {
    paced_burst(d, begin_s, 10, messages, ips);
}

fn paced_burst(d: &mut Detector, begin_s: i64, pause_s: i64, messages: i64, ips: &[&str]) {
    for i in 0..messages {
        let (ts, queue_id, rcpt) =
            (begin_s + pause_s * i, format!("B{begin_s}.{i}"), stranger(&begin_s.to_string(), i));
        let ip = ips[i as usize % ips.len()];
        d.step(&send(at(ts), WHO, ip, &queue_id, "out-1", std::slice::from_ref(&rcpt)));
        let reply = if i % 3 == 0 { UNKNOWN_USER } else { "" };
        d.step(&outcome(at(ts + 1), WHO, &queue_id, "out-1", &rcpt, reply));
    }
}

fn said(d: &Detector) -> Vec<(AlertKind, Severity)> {
    d.alerts.iter().map(|a| (a.kind, a.severity)).collect()
}

/// The old burst is still in the windows of the new one's flag; each counts its own.
#[test]
fn a_second_burst_is_counted_from_the_clear_on() {
    let mut d = with_a_past();
    burst(&mut d, DAY_21_S, 40, &AWAY);
    // Thirteen hours later, and so slowly that only the window of 24 h, which holds the first, sees much of it.
    paced_burst(&mut d, DAY_21_S + 13 * HOUR_S, 900, 40, &["100.64.0.9", "172.20.0.1"]);
    d.tick(DAY_21_S + 3 * DAY_S);
    let of = |kind| d.alerts.iter().filter(|a| a.kind == kind).collect::<Vec<&Alert>>();
    let (flags, clears) = (of(AlertKind::Flagged), of(AlertKind::Cleared));
    assert_eq!((flags.len(), clears.len()), (2, 2), "{:?}", said(&d));
    assert_ne!(flags[0].incident, flags[1].incident);
    assert!(flags[1].ts > clears[0].ts);
    let window_s = i64::from(flags[1].evidence[0].window_s);
    assert!(
        flags[1].ts.0 / 1000 - window_s * 11 / 12 < DAY_21_S,
        "the first burst is out of the window of {window_s} s"
    );
    for clear in clears {
        let burst = clear.burst.as_ref().unwrap();
        assert_eq!((burst.messages, burst.recipients, burst.new_recipients, burst.bounced), (40, 40, 40, 14));
        // Every recipient once, although a third of them was new and then refused.
        assert_eq!(burst.top_domains.iter().map(|d| d.recipients).sum::<u64>(), 40);
    }
}

/// Mail that a queue brings half a day late, after the clear: it can neither open an incident before it nor take its id.
#[test]
fn a_written_clear_is_final() {
    let mut d = with_a_past();
    burst(&mut d, DAY_21_S, 40, &AWAY);
    d.tick(DAY_21_S + DAY_S);
    let before = said(&d);
    assert_eq!(before.last(), Some(&(AlertKind::Cleared, Severity::Critical)));
    let clock_s = d.shard.account(WHO).unwrap().clock_ms() / 1000;
    for i in 0..200 {
        d.step(&send(at(clock_s - i), WHO, AWAY[i as usize % 3], &format!("L{i}"), "", &[stranger("late", i)]));
    }
    assert_eq!(said(&d), before, "an alert with an id that is given away");
    // It is not forgotten: with the first mail after the clear it counts.
    d.step(&send(at(DAY_21_S + DAY_S), WHO, AWAY[0], "N", "", &[stranger("now", 1)]));
    assert_eq!(d.alerts.last().map(|a| a.kind), Some(AlertKind::Flagged), "{:?}", said(&d));
    let mut ids: Vec<_> = d.alerts.iter().map(|a| &a.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), d.alerts.len());
}

/// A log that holds outcomes only still names the account; its burst is not known, and does not begin in 1970.
#[test]
fn outcomes_alone_flag_without_a_burst() {
    let mut d = with_a_past();
    for i in 0..80 {
        let reply = if i % 2 == 0 { UNKNOWN_USER } else { "" };
        d.step(&outcome(at(DAY_21_S + 3 * i), WHO, &format!("unseen{i}"), "out-1", &stranger("o", i), reply));
    }
    let flag = &d.alerts[0];
    assert_eq!((flag.burst.as_ref(), flag.relays.len()), (None, 0));
    assert!(flag.evidence.iter().any(|e| e.signal == Signal::Bounces));
}

/// After a day of theft the account's normal is what it was, also where the burst was over and cleared before the next day.
#[test]
fn a_burst_does_not_teach() {
    let policy = policy(Detect::default());
    let prior = &policy.detect.prior;
    let [mut stolen, mut spared] = [with_a_past(), with_a_past()];
    burst(&mut stolen, DAY_21_S, 2_000, &AWAY);
    for d in [&mut stolen, &mut spared] {
        d.step(&send(at(DAY_21_S + DAY_S + HOUR_S), WHO, HOME, "", "", &["friend1@example.net".to_owned()]));
    }
    assert_eq!(stolen.alerts.last().map(|a| a.kind), Some(AlertKind::Cleared));
    let normal = |d: &Detector| {
        let account = d.shard.account(WHO).unwrap();
        let baseline = account.baseline();
        let (refused, accepted) = baseline.refusals(prior);
        [baseline.new_rate(prior).mean(1.0), baseline.volume_rate(prior).mean(1.0), refused / (refused + accepted)]
    };
    let (after, usual) = (normal(&stolen), normal(&spared));
    assert!(after[0] < 2.0 * usual[0], "new recipients a day: {after:?}, else {usual:?}");
    assert!(after[1] < 2.0 * usual[1], "recipients a day: {after:?}, else {usual:?}");
    assert!(after[2] < usual[2] + 0.01, "refused: {after:?}, else {usual:?}");
}

/// Four weeks of 150 messages a day, each to two strangers, `every_s` apart.
fn shop(every_s: i64) -> Detector {
    let mut d = Detector::new(&policy(Detect::default()), BEGIN_S);
    for day in 0..28 {
        for i in 0..150 {
            let (ts, queue_id) = (BEGIN_S + day * DAY_S + 7 * HOUR_S + i * every_s, format!("S{day}.{i}"));
            let rcpts: Vec<_> = (0..2).map(|r| stranger(&format!("buyer{day}.{i}"), r)).collect();
            d.step(&send(at(ts), WHO, HOME, &queue_id, "out-1", &rcpts));
            for (r, rcpt) in rcpts.iter().enumerate() {
                let reply = if i % 40 == 0 && r == 0 { UNKNOWN_USER } else { "" };
                d.step(&outcome(at(ts + 1), WHO, &queue_id, "out-1", rcpt, reply));
            }
        }
    }
    assert_eq!(d.shard.account(WHO).unwrap().stratum(), Stratum::Bulk);
    d
}

/// Who writes to hundreds of strangers every day becomes a bulk sender, and is not guilty of that.
#[test]
fn a_bulk_sender_becomes_bulk_and_not_critical() {
    let over_the_day = shop(300);
    assert!(over_the_day.alerts.iter().all(|a| a.severity < Severity::Critical), "{:?}", said(&over_the_day));
    // It is known: nothing is said of its last week.
    let last_s = over_the_day.alerts.iter().map(|a| a.ts.0 / 1000).max().unwrap_or(0);
    assert!(last_s < DAY_21_S, "{:?}", said(&over_the_day));
    // All of it within an hour at night, every night: not critical either. That it is a warning every night, for ever, is
    // wrong, and so today: windows of an hour know the rate of a day only.
    let within_an_hour = shop(20);
    assert!(within_an_hour.alerts.iter().all(|a| a.severity < Severity::Critical), "{:?}", said(&within_an_hour));
    assert!(within_an_hour.alerts.last().unwrap().ts.0 / 1000 > DAY_21_S);
}

#[test]
fn a_recipient_in_mixed_case_is_the_same_recipient() {
    let mut d = Detector::new(&policy(Detect::default()), BEGIN_S);
    let addresses =
        ["Bob.Smith@Example.COM", "bob.smith@example.com", "BOB.SMITH@EXAMPLE.COM", "bob.smyth@example.com"];
    for (i, (rcpt, new)) in (0..).zip(addresses.into_iter().zip([1, 0, 0, 1])) {
        let step = d.step(&send(at(BEGIN_S + i), WHO, HOME, "", "", &[rcpt.to_owned()]));
        assert_eq!(step.new_recipients, new, "{rcpt}");
    }
}

/// Whatever one account does, what is kept of it stays bounded, and one burst is one incident.
#[test]
fn an_account_stays_within_bounds() {
    let mut d = with_a_past();
    for i in 0..40_000 {
        let (ts, queue_id) = (DAY_21_S + 4 * i, format!("Q{i}"));
        let (ip, relay) = (format!("{}.{}.1.1", 11 + i % 199, i % 251), format!("relay-{}", i % 700));
        let rcpts: Vec<_> = (0..4).map(|r| format!("x{}@d{}.example", 4 * i + r, i * 7 % 30_000)).collect();
        let mut event = send(at(ts - i % 200), WHO, &ip, &queue_id, &relay, &rcpts);
        event.id = Some(format!("e{i}").into());
        d.step(&event);
        d.step(&outcome(at(ts), WHO, &queue_id, &relay, &rcpts[0], UNKNOWN_USER));
    }
    let account = d.shard.account(WHO).unwrap();
    assert!(account.bytes() < 2 << 20, "{} bytes", account.bytes());
    d.tick(DAY_21_S + 30 * DAY_S);
    let incidents = d.alerts.iter().filter(|a| a.kind == AlertKind::Flagged).count();
    assert_eq!((incidents, d.alerts.last().unwrap().kind), (1, AlertKind::Cleared), "{:?}", said(&d));
    let alert = d.alerts.last().unwrap();
    let burst = alert.burst.as_ref().unwrap();
    assert_eq!((burst.client_ips.len(), burst.top_domains.len(), burst.queue_ids.len()), (16, 10, 10));
    // Relays beyond the bound are one, and none of them is named for the others; nothing is lost of the sums.
    assert!(alert.relays.len() <= 512, "{}", alert.relays.len());
    assert!(alert.relays.iter().any(|r| r.relay == "other"));
    assert_eq!(alert.relays.iter().map(|r| r.messages).sum::<u64>(), burst.messages);
    assert_eq!(burst.messages, 40_000);
}

/// A log that is read twice says nothing new.
#[test]
fn repeats_count_once() {
    let [mut once, mut twice] = [with_a_past(), with_a_past()];
    for i in 0..30 {
        let mut event = send(at(DAY_21_S + i), WHO, AWAY[0], "", "", &[stranger("r", i)]);
        event.id = Some(format!("id{i}").into());
        once.step(&event);
        twice.step(&event);
        assert!(twice.step(&event).duplicate);
    }
    assert_eq!(once.shard.account(WHO), twice.shard.account(WHO));
    assert_eq!(once.alerts, twice.alerts);
    assert!(!once.alerts.is_empty());
}
