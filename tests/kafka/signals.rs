//! What the detectors tell about relays: after any number of SIGKILLs it is what an instance tells that nothing happened to, and the
//! desk's reader adds it up.

use std::time::{Duration, Instant};

use crate::run_support::{
    Broker, Case, Deployment, Dice, LIMIT, Signals, WORK, is_campaign, published, seed, wait_until,
};
use mailfuse::config::Config;
use mailfuse::core::signal::{MINUTE_MS, Signal, minute_of};
use mailfuse::event::Timestamp;
use mailfuse::relays::exposure::Exposure;
use mailfuse::relays::signals::Follower;

const PARTITIONS: i32 = 4;

#[test]
fn kills_change_nothing_of_what_is_told_and_the_reader_adds_it_up() {
    let (Some(broker), Some(case)) = (Broker::shared(), Case::few()) else { return };
    let clean = Deployment::new(broker, "told", PARTITIONS);
    clean.publish(&case.events);
    let mut instance = clean.start("one");
    clean.await_done(WORK);
    assert!(instance.terminate().success());
    let wanted = clean.signals();
    let of = |kind: &str| wanted.keys().filter(|key| key.starts_with(kind)).count();
    assert!(of("relays/4/") > 100 && of("burst/i-") > 5, "{} {}", of("relays/"), of("burst/"));

    let mut dice = Dice(seed());
    let (kills, seconds) = if is_campaign() { (30, 60) } else { (5, 8) };
    let d = Deployment::new(broker, "told-killed", PARTITIONS);
    let began = Instant::now();
    let publisher = d.publisher(&case.events, Some(case.lines as u32 / seconds));
    for _ in 0..kills {
        let mut instance = d.start("one");
        std::thread::sleep(Duration::from_millis(700 + dice.below(1500)));
        instance.kill();
    }
    published(publisher);
    let mut last = d.start("one");
    d.await_done(WORK);
    assert!(last.terminate().success());
    check_same(&d.signals(), &wanted);
    eprintln!(
        "signals: {} events, {kills} SIGKILLs, {} keys, {:.0} s",
        case.lines,
        wanted.len(),
        began.elapsed().as_secs_f64()
    );
    check_reader(&d, &wanted);
}

#[track_caller]
fn check_same(ours: &Signals, wanted: &Signals) {
    let differ: Vec<_> = wanted.iter().filter(|(key, signal)| ours.get(*key) != Some(signal)).collect();
    let news: Vec<_> = ours.keys().filter(|key| !wanted.contains_key(*key)).collect();
    assert!(
        differ.is_empty() && news.is_empty(),
        "of {} keys {} differ, {} are new: {:#?} {:#?}",
        wanted.len(),
        differ.len(),
        news.len(),
        differ.iter().take(3).map(|(key, signal)| (key, signal, ours.get(*key))).collect::<Vec<_>>(),
        &news[..news.len().min(3)]
    );
}

/// The last six hours of the case as the reader has them, against the records themselves.
fn check_reader(d: &Deployment<'_>, wanted: &Signals) {
    let signals: Vec<Signal> =
        wanted.iter().map(|(key, (_, value))| Signal::read(key.as_bytes(), value.as_bytes()).unwrap()).collect();
    let minute = |signal: &Signal| match signal {
        Signal::Relays(r) => r.minute,
        Signal::Burst(b) => b.minute,
    };
    let now = signals.iter().map(minute).max_by_key(|t| t.0).unwrap();
    let config = Config::load(&d.config("reader")).unwrap();
    let mut exposure = Exposure::new(6 * 3600);
    let mut follower = Follower::new(&config.kafka, &exposure, now.0).unwrap();
    wait_until("the reader is caught up", LIMIT, || {
        let taken = follower.take(&mut exposure, &mut |_| {}, 1000).unwrap();
        exposure.forget(now.0);
        taken == 0 && follower.is_caught_up()
    });
    let from = minute_of(now.0) - 360;
    let (mut recipients, mut refused, mut burst) = (0, 0, 0);
    for signal in signals.iter().filter(|s| (from..=minute_of(now.0)).contains(&minute_of(minute(s).0))) {
        match signal {
            Signal::Relays(r) => {
                recipients += r.relays.iter().map(|c| c.recipients).sum::<i64>();
                refused += r.relays.iter().flat_map(|c| c.refused.values()).sum::<u64>();
            }
            Signal::Burst(b) => burst += b.relays.iter().map(|c| c.recipients).sum::<i64>(),
        }
    }
    let loads = exposure.loads(now.0, 6 * 3600, &|_| true);
    assert!(recipients > 0);
    assert_eq!(loads.values().map(|l| l.recipients).sum::<u64>() as i64, recipients);
    assert_eq!(loads.values().flat_map(|l| l.refused.values()).sum::<u64>(), refused);
    assert_eq!(loads.values().map(|l| l.burst_recipients()).sum::<u64>() as i64, burst);
    assert!(exposure.loads(Timestamp(now.0 + 7 * 60 * MINUTE_MS).0, 3600, &|_| true).is_empty());
}
