//! Crashes, freezes, hand-overs, a broker that goes away, decisions that come in between: the alerts are those of `replay`, none
//! missing, none new, and the state in the end is that of an instance that nothing happened to.
//!
//! Everything that is drawn comes from a seed, which is printed. `MAILFUSE_CAMPAIGN=1` makes it long: the whole case, more kills.

use std::path::Path;
use std::process::Child;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::run_support::{
    Alerts, Broker, Case, Deployment, Dice, Instance, Record, States, WORK, field, is_campaign, published, same_states,
    seed, wait_until,
};

const PARTITIONS: i32 = 12;
/// What the group takes for death; see `Deployment::config`.
const SESSION: Duration = Duration::from_secs(6);

/// What is left where nothing happens.
struct Undisturbed {
    alerts: Alerts,
    states: States,
}

fn undisturbed(broker: &Broker, case: &Case) -> &'static Undisturbed {
    static ONCE: OnceLock<Undisturbed> = OnceLock::new();
    ONCE.get_or_init(|| {
        let d = Deployment::new(broker, "undisturbed", PARTITIONS);
        d.publish(&case.events);
        let mut instance = d.start("one");
        d.await_done(WORK);
        assert!(instance.terminate().success());
        let alerts = d.alerts();
        alerts.check(&case.replayed(&[]), "undisturbed");
        Undisturbed { alerts, states: d.states() }
    })
}

/// These tests measure time against session time-outs: one after the other, so that they do not starve each other.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Publishes for about so many seconds.
fn feed(d: &Deployment<'_>, case: &Case, seconds: u32) -> Child {
    d.publisher(&case.events, Some((case.lines as u32 / seconds).max(1000)))
}

/// Waits for the end, and compares.
fn check_end(d: &Deployment<'_>, wanted: &Undisturbed, what: &str) -> Alerts {
    d.await_done(WORK);
    let alerts = d.alerts();
    alerts.check(&wanted.alerts, what);
    same_states(&d.states(), &wanted.states, what);
    alerts
}

fn nap(dice: &mut Dice, from_ms: u64, to_ms: u64) {
    std::thread::sleep(Duration::from_millis(from_ms + dice.below(to_ms - from_ms)));
}

#[test]
fn kills_at_any_moment_change_nothing() {
    let (Some(broker), Some(case)) = (Broker::shared(), Case::some()) else { return };
    let _alone = alone();
    let wanted = undisturbed(broker, &case);
    let mut dice = Dice(seed());
    let (kills, seconds) = if is_campaign() { (30, 60) } else { (8, 20) };
    let d = Deployment::new(broker, "killed", PARTITIONS);
    let began = Instant::now();
    let publisher = feed(&d, &case, seconds);
    let (mut before_ready, mut before_the_end) = (0, 0);
    for n in 0..kills {
        let mut instance = d.start("one");
        // A third dies while it starts or restores, the rest between two checkpoints or within one.
        if n % 3 == 0 {
            nap(&mut dice, 20, 900);
        } else {
            nap(&mut dice, 900, 3000);
        }
        // The log, not HTTP: a process that has just begun does not answer yet.
        let log = instance.log();
        before_ready += u32::from(log.matches("restored").count() + log.matches("begins without").count() < 12);
        before_the_end += u32::from(d.offsets().is_some_and(|o| o.iter().any(|(c, high)| *c != Some(*high))));
        instance.kill();
    }
    let mut last = d.start("one");
    published(publisher);
    let alerts = check_end(&d, wanted, "killed");
    assert!(last.terminate().success());
    eprintln!(
        "kills: {} events, {kills} SIGKILLs ({before_ready} before all was restored, {before_the_end} with something left to \
         read), {} alerts in {} records, {:.0} s",
        case.lines,
        alerts.by_id.len(),
        alerts.records,
        began.elapsed().as_secs_f64()
    );
}

#[test]
fn instances_that_die_come_and_freeze_change_nothing() {
    let (Some(broker), Some(case)) = (Broker::shared(), Case::some()) else { return };
    let _alone = alone();
    let wanted = undisturbed(broker, &case);
    let mut dice = Dice(seed());
    let rounds = if is_campaign() { 3 } else { 1 };
    let d = Deployment::new(broker, "several", PARTITIONS);
    let began = Instant::now();
    let publisher = feed(&d, &case, if is_campaign() { 75 } else { 25 });
    let (mut fenced, mut survivors) = (0.0, None);
    for round in 0..rounds {
        // Those of the round before would keep partitions.
        drop(survivors.take());
        // Without names: a dead member's partitions go to the others after the session time-out.
        let mut one = d.start("");
        let two = d.start("");
        two.await_ready();
        nap(&mut dice, 500, 2500);
        one.kill();
        nap(&mut dice, 0, 1500);
        let three = d.start("");
        wait_until("the dead one's partitions have gone to others", WORK, || {
            two.partitions().len() + three.partitions().len() == PARTITIONS as usize
        });
        let had = two.partitions().len();
        two.freeze();
        wait_until("the frozen one's partitions have gone to the other", WORK, || {
            three.partitions().len() == PARTITIONS as usize
        });
        std::thread::sleep(SESSION / 3);
        two.thaw();
        wait_until("the thawed one has partitions again", WORK, || {
            two.get("/readyz").0 == 200 && !two.partitions().is_empty()
        });
        fenced += two.metric("mailfuse_fenced_total", "");
        eprintln!("round {round}: frozen with {had} partitions, back with {}", two.partitions().len());
        survivors = Some((two, three));
    }
    published(publisher);
    let alerts = check_end(&d, wanted, "several");
    drop(survivors);
    eprintln!(
        "several: {} events, 3 instances, {rounds} rounds of kill, join and freeze, fenced {fenced} times, {} alerts in {} records, \
         {:.0} s",
        case.lines,
        alerts.by_id.len(),
        alerts.records,
        began.elapsed().as_secs_f64()
    );
}

#[test]
fn a_broker_that_goes_away_for_a_while_changes_nothing() {
    let (Some(shared), Some(case)) = (Broker::shared(), Case::some()) else { return };
    let _alone = alone();
    let wanted = undisturbed(shared, &case);
    let Some(broker) = Broker::own() else { return };
    let d = Deployment::new(&broker, "away", PARTITIONS);
    let away_s = if is_campaign() { 30 } else { 12 };
    let began = Instant::now();
    let publisher = feed(&d, &case, if is_campaign() { 60 } else { 15 });
    let mut instance = d.start("one");
    instance.await_ready();
    std::thread::sleep(Duration::from_secs(3));
    broker.stop();
    std::thread::sleep(Duration::from_secs(away_s));
    assert!(instance.is_running(), "it waits");
    broker.start();
    let came = Instant::now();
    published(publisher);
    let alerts = check_end(&d, wanted, "the broker was away");
    assert!(instance.is_running(), "the same instance goes on");
    assert!(instance.terminate().success());
    eprintln!(
        "broker away: {} events, {away_s} s away, done {:.0} s after it came back, {} alerts in {} records, {:.0} s",
        case.lines,
        came.elapsed().as_secs_f64(),
        alerts.by_id.len(),
        alerts.records,
        began.elapsed().as_secs_f64()
    );
}

/// Decisions about accounts that are flagged in the second half, made so that each changes something.
fn decisions(case: &Case, at: usize) -> Vec<String> {
    let moment = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        event["ts"].as_f64().unwrap()
    };
    let lines = case.text();
    let from_s = moment(&lines[at]) + 15.0;
    let until_s = moment(lines.last().unwrap()) + 1.0;
    let alerts = case.replayed(&[]);
    let from = mailfuse::event::Timestamp((from_s * 1000.0) as i64);
    let rfc3339 = serde_json::to_value(from).unwrap().as_str().unwrap().to_owned();
    let mut flagged: Vec<(String, String, String)> = alerts
        .by_id
        .values()
        .filter(|a| field(a, "kind") == "account.flagged" && field(a, "ts") > rfc3339)
        .map(|a| (field(a, "ts"), field(a, "account"), field(a, "incident")))
        .collect();
    flagged.sort();
    flagged.dedup_by_key(|(_, account, _)| account.clone());
    let mut seen = std::collections::BTreeSet::new();
    flagged.retain(|(_, account, _)| seen.insert(account.clone()));
    assert!(flagged.len() >= 4, "the case has too few flags after its middle: {flagged:?}");
    let record = |scope: &str, name: &str, decision: String| {
        format!("{{\"v\":1,\"{scope}\":\"{name}\",\"decisions\":[{decision}]}}")
    };
    let domain = |account: &str| account.rsplit_once('@').map_or(account, |(_, domain)| domain).to_owned();
    let span = format!("\"from\":{from_s:.3},\"until\":{until_s:.3}");
    let mut records = Vec::new();
    for (n, (ts, account, incident)) in flagged.iter().enumerate() {
        records.push(match n % 4 {
            0 => record("domain", &domain(account), format!("{{\"what\":\"exempt\",{span},\"by\":\"ann\"}}")),
            1 => record("account", account, format!("{{\"what\":\"tolerate\",\"decades\":5,{span}}}")),
            2 => record("account", account, format!("{{\"what\":\"pin\",\"stratum\":\"bulk\",{span}}}")),
            // Closed at the moment of its flag, long before it would be quiet, and put back with the next event.
            _ => record(
                "account",
                account,
                format!("{{\"what\":\"hijack\",\"incident\":\"{incident}\",\"from\":\"{ts}\"}}"),
            ),
        });
    }
    records
}

#[test]
fn decisions_count_as_in_replay_across_kills() {
    let (Some(broker), Some(case)) = (Broker::shared(), Case::some()) else { return };
    let _alone = alone();
    let mut dice = Dice(seed());
    let d = Deployment::new(broker, "decided", PARTITIONS);
    let half = case.lines / 2;
    let (first, second) = case.cut(half, d.folder.path());
    let records = decisions(&case, half);
    let file = d.folder.path().join("control.jsonl");
    std::fs::write(&file, records.join("\n") + "\n").unwrap();
    let wanted = case.replayed(&["--control", file.to_str().unwrap()]);
    let plain = case.replayed(&[]);
    assert_ne!(wanted.by_id, plain.by_id, "the decisions change something");

    let began = Instant::now();
    let mut kills = 0;
    let mut halves = |events: &Path, rate: u32| {
        let publisher = d.publisher(events, Some(rate));
        for _ in 0..2 {
            let mut instance = d.start("one");
            nap(&mut dice, 800, 2500);
            instance.kill();
            kills += 1;
        }
        published(publisher);
    };
    let rate = case.lines as u32 / 12;
    halves(&first, rate);
    let instance: Instance = d.start("one");
    d.await_done(WORK);
    let written: Vec<Record> = records
        .iter()
        .map(|r| {
            let decisions = mailfuse::core::decision::Decisions::parse(r.as_bytes()).unwrap();
            Record::new(&decisions.key(), r)
        })
        .collect();
    broker.produce(&d.topic("control"), &written);
    wait_until("it has read them while it runs", WORK, || {
        instance.metric("mailfuse_control_records_total", "") == records.len() as f64
    });
    drop(instance);
    halves(&second, rate);
    let _last = d.start("one");
    d.await_done(WORK);
    let alerts = d.alerts();
    alerts.check(&wanted, "decided");
    eprintln!(
        "decisions: {} events, {} control records, {kills} SIGKILLs, {} alerts ({} without decisions), {:.0} s",
        case.lines,
        records.len(),
        alerts.by_id.len(),
        plain.by_id.len(),
        began.elapsed().as_secs_f64()
    );
}
