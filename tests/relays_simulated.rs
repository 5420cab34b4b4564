//! A simulated provider: pools of 4 to 400 relays, accounts that are hijacked in several ways, some flags that are wrong, and
//! receivers that list an address by what comes from it. What is measured: spam that went out over a relay after it was decided to
//! pull it, other customers' recipients behind a listed address, and hours that relays were out without need; each against pulling
//! nothing and against pulling at the first flag.
//!
//! **The receivers' model.** Spamhaus says that its CSS list "results from automatic detection" of addresses with "low-reputation
//! email", and that such entries expire by themselves some days after the last one seen (spamhaus.org, FAQ of CSS); SpamCop lists
//! by the share of reports among the mail that it sees of an address, with a half-life, and delists after 24 hours without reports
//! (spamcop.net, "What is the SpamCop Blocking List"). Neither publishes its thresholds. So each address has a score: it grows by
//! one for each spam recipient that hits a trap or complains, one in `TRAP` here, decays with a half-life of `HALF_LIFE_H`, and the
//! address is listed while the score is above a threshold that is drawn anew for each run, from 1 to 30, and above a share of what
//! it carries; a listing lasts a day after that. What is read off here is therefore the order of the three ways, and how it
//! changes with the threshold, not a number that any receiver would confirm.
//!
//! **What leaves over a relay after its pull.** What waits in its queue: of what it takes, `DEFERRED` is put off at first (greylisting,
//! limits), and of what waits a twentieth leaves each minute (Postfix tries again after five minutes at the earliest, and doubles
//! that). And what comes over connections that are open already: half of what a burst gave to the relay goes on for a minute.
//!
//! `MAILFUSE_CAMPAIGN=1` runs more seeds and prints the figures for other settings as well; `MAILFUSE_RELAYS=100,400` for pools of
//! these sizes alone.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

use std::collections::{HashMap, VecDeque};

use mailfuse::core::alert::Severity;
use mailfuse::event::Timestamp;
use mailfuse::relays::Settings;
use mailfuse::relays::decide::{Burden, BurstShare, Decider, Flag};
use mailfuse::relays::measure::{Kind, Mode, State};
use mailfuse::relays::settings::{Member, Pool};

const MINUTE: i64 = 60_000;
const NOW: i64 = 1_800_000_000_000;
/// Of so many spam recipients one is a trap or complains: lists that are bought have some percent of both.
const TRAP: f64 = 100.0;
const HALF_LIFE_H: f64 = 12.0;
const LISTED_MIN: i64 = 24 * 60;
/// Of what a relay takes so much waits at first, and of that so much leaves each minute.
const DEFERRED: f64 = 0.15;
const TRIED_AGAIN: f64 = 0.05;
/// Days of a run.
const DAYS: i64 = 14;

/// Numbers that are the same with each run: SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Nothing,
    FirstFlag,
    Decided,
}

/// An account that sends spam, or was flagged for nothing.
struct Burst {
    account: String,
    /// Recipients a minute.
    rate: f64,
    from_min: i64,
    flag_min: i64,
    /// When it stops by itself, unless it is stopped.
    until_min: i64,
    is_spam: bool,
    /// Whether the stop reaches it: some providers' hands are slow or absent.
    is_stoppable: bool,
    is_acquitted_min: i64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    /// Spam recipients in all.
    spam: f64,
    /// Those over a relay that was decided to be out.
    after_pull: f64,
    /// Recipients of others behind a listed address, of all that were carried.
    harmed: f64,
    carried: f64,
    /// Hours that relays were out, and those in which the address was neither listed nor carrying spam within the last hour.
    out_h: f64,
    needless_h: f64,
    pulls: u64,
}

fn bursts(dice: &mut Dice, relays: u64) -> Vec<Burst> {
    let mut all = Vec::new();
    // A hijack for each two relays in a fortnight, and as many false flags of critical severity as a tenth of that.
    let hijacks = relays * DAYS as u64 / 28 + 2;
    for n in 0..hijacks + hijacks / 10 + 1 {
        let is_spam = n < hijacks;
        let from_min = dice.below((DAYS - 1) as u64 * 1440) as i64;
        // Fast (40,000 an hour), steady (2,000 an hour), slow (100 an hour); a false flag is somebody's newsletter.
        let rate: f64 = match (is_spam, dice.below(3)) {
            (false, _) => 5.0,
            (true, 0) => 667.0,
            (true, 1) => 33.0,
            (true, _) => 1.7,
        };
        // The detector names one after some twenty recipients (median of its benches), a slow one after more minutes.
        let flag_min = from_min + (20.0 / rate).ceil() as i64;
        all.push(Burst {
            account: format!("a{n}"),
            rate,
            from_min,
            flag_min,
            until_min: from_min + 60 + dice.below(12 * 60) as i64,
            is_spam,
            is_stoppable: dice.share() < 0.8,
            is_acquitted_min: flag_min + 30 + dice.below(180) as i64,
        });
    }
    all
}

fn run(seed: u64, relays: usize, way: Way, tune: &dyn Fn(&mut Settings)) -> Figures {
    let mut dice = Dice(seed);
    let names: Vec<String> = (0..relays).map(|n| format!("r{n}")).collect();
    let member = |name: &String| Member { relay: name.clone(), ..Member::default() };
    let pool = Pool { name: "p".to_owned(), mode: None, member: names.iter().map(member).collect() };
    let mut settings = Settings { mode: Mode::Auto, pool: vec![pool], ..Settings::default() };
    tune(&mut settings);
    if way == Way::FirstFlag {
        // At the first flag, as far as the floor lets it.
        (settings.pull.recipients, settings.pull.share, settings.stop.grace_s) = (4, 0.0, 0);
        (settings.pull.at_once, settings.pull.per_hour) = (10_000, 10_000);
    }
    let window_min = i64::from(settings.pull.window_s) / 60;
    let bursts = bursts(&mut dice, relays as u64);
    let threshold = 1.0 + dice.share() * 29.0;
    // Recipients of others a minute on each relay.
    let load = 20.0 + dice.share() * 200.0;
    let mut d = Decider::new(&settings);
    let mut f = Figures::default();
    let mut score = vec![0.0f64; relays];
    let mut listed_until = vec![0i64; relays];
    let mut last_spam = vec![i64::MIN / 2; relays];
    let mut last_refused = vec![i64::MIN / 2; relays];
    let mut queued = vec![0.0f64; relays];
    let mut out_since = vec![None::<i64>; relays];
    // By account, what each minute of the window put on each relay.
    let mut sent: HashMap<usize, VecDeque<(i64, f64, Vec<usize>)>> = HashMap::new();
    let decay = 0.5f64.powf(1.0 / (HALF_LIFE_H * 60.0));
    for minute in 0..DAYS * 1440 {
        let now_ms = NOW + minute * MINUTE;
        let out: Vec<bool> = names
            .iter()
            .map(|n| way != Way::Nothing && d.open(Kind::Pull, n).is_some_and(|m| m.is_in_force(now_ms)))
            .collect();
        let inside: Vec<usize> = (0..relays).filter(|r| !out[*r]).collect();
        score.iter_mut().for_each(|s| *s *= decay);
        for r in 0..relays {
            out_since[r] = if out[r] { out_since[r].or(Some(minute)) } else { None };
            let leaves = queued[r] * TRIED_AGAIN;
            queued[r] -= leaves;
            score[r] += leaves / TRAP;
            f.after_pull += if out[r] { leaves } else { 0.0 };
        }
        for (n, b) in bursts.iter().enumerate() {
            let stop = d.open(Kind::Stop, &b.account).filter(|m| m.is_in_force(now_ms));
            let is_stopped = b.is_stoppable && stop.is_some();
            if minute == b.flag_min {
                let incident = format!("i-{}", b.account);
                let flag = Flag {
                    account: &b.account,
                    tenant: &b.account,
                    incident: &incident,
                    severity: Severity::Critical,
                    ts: Timestamp(now_ms),
                    is_doubtful: false,
                };
                d.flagged(&flag, now_ms);
            }
            if b.is_stoppable && minute == b.flag_min + 1 {
                d.stopped(&b.account, now_ms);
            }
            if (b.from_min..b.until_min).contains(&minute) && !is_stopped {
                // Connections go round the pool: a burst of a minute takes up to four of its relays.
                let through: Vec<usize> =
                    (0..4.min(inside.len())).map(|_| inside[dice.below(inside.len() as u64) as usize]).collect();
                // Connections to a relay that has just been pulled.
                let before = sent.get(&n).and_then(|w| w.back()).map_or(&[][..], |(_, _, before)| before);
                let goes_on: Vec<usize> = before.iter().copied().filter(|r| out_since[*r] == Some(minute)).collect();
                let on_each = b.rate / 2.0 / before.len().max(1) as f64;
                let each = (b.rate - on_each * goes_on.len() as f64) / through.len() as f64;
                if b.is_spam {
                    f.spam += b.rate;
                    for (r, n) in through.iter().map(|r| (*r, each)).chain(goes_on.iter().map(|r| (*r, on_each))) {
                        score[r] += n * (1.0 - DEFERRED) / TRAP;
                        queued[r] += n * DEFERRED;
                        last_spam[r] = minute;
                        f.after_pull += if out[r] { n * (1.0 - DEFERRED) } else { 0.0 };
                    }
                }
                sent.entry(n).or_default().push_back((minute, each, through));
            }
        }
        let mut by_relay: Vec<HashMap<usize, (f64, i64)>> = vec![HashMap::new(); relays];
        sent.retain(|n, window| {
            while window.front().is_some_and(|(at, ..)| *at <= minute - window_min) {
                window.pop_front();
            }
            let b = &bursts[*n];
            // It counts from its flag on, with what went before; not any more once somebody said that it was none.
            if minute >= b.flag_min && (b.is_spam || minute < b.is_acquitted_min) {
                for (at, each, through) in window.iter() {
                    for r in through {
                        let (sum, last) = by_relay[*r].entry(*n).or_default();
                        (*sum, *last) = (*sum + each, *at);
                    }
                }
            }
            !window.is_empty()
        });
        for r in 0..relays {
            if score[r] > threshold && score[r] * TRAP > 0.001 * load * 60.0 * HALF_LIFE_H {
                listed_until[r] = minute + LISTED_MIN;
            }
            let is_listed = minute < listed_until[r];
            if out[r] {
                f.out_h += 1.0 / 60.0;
                let is_needed = is_listed || minute - last_spam[r] <= 60;
                f.needless_h += if is_needed { 0.0 } else { 1.0 / 60.0 };
            } else {
                let carried = load * relays as f64 / inside.len() as f64;
                f.carried += carried;
                f.harmed += if is_listed { carried } else { 0.0 };
                // What carries nothing is refused nothing.
                if is_listed {
                    last_refused[r] = minute;
                }
            }
        }
        if way == Way::Nothing {
            d.tick(&[], false, now_ms);
            continue;
        }
        let burdens: Vec<Burden> = (0..relays)
            .map(|r| Burden {
                relay: names[r].clone(),
                carried: (load * window_min as f64) as u64,
                burst: by_relay[r]
                    .iter()
                    .map(|(n, (sum, last))| BurstShare {
                        account: bursts[*n].account.clone(),
                        tenant: bursts[*n].account.clone(),
                        incident: format!("i-{}", bursts[*n].account),
                        recipients: *sum as u64,
                        ts: Timestamp(NOW + last * MINUTE),
                    })
                    .collect(),
                refused: if minute - last_refused[r] < window_min {
                    ["one", "two"].map(|family| (family.to_owned(), (load * 6.0) as u64)).to_vec()
                } else {
                    Vec::new()
                },
                refused_ts: Timestamp(NOW + last_refused[r].max(0) * MINUTE),
                others: (load * window_min as f64) as u64,
            })
            .collect();
        let outcome = d.tick(&burdens, false, now_ms);
        let pulled =
            outcome.changes.iter().filter(|c| c.measure.kind == Kind::Pull && c.measure.state == State::InForce);
        f.pulls += pulled.filter(|c| c.measure.made_ms == now_ms).count() as u64;
        if minute % 1440 == 0 {
            d.forget(now_ms - 3 * 1440 * MINUTE);
        }
    }
    f
}

fn all(relays: usize, way: Way, seeds: u64, tune: &dyn Fn(&mut Settings)) -> Figures {
    let mut sum = Figures::default();
    for seed in 0..seeds {
        let f = run(seed, relays, way, tune);
        sum.spam += f.spam;
        sum.after_pull += f.after_pull;
        sum.harmed += f.harmed;
        sum.carried += f.carried;
        sum.out_h += f.out_h;
        sum.needless_h += f.needless_h;
        sum.pulls += f.pulls;
    }
    sum
}

fn print(relays: usize, what: &str, seeds: u64, f: &Figures) {
    let hours = (seeds as i64 * DAYS * 24) as f64 * relays as f64;
    eprintln!(
        "{relays:>4} relays {what:<28} spam after the pull {:>6.3} %  others behind a listing {:>6.3} %  out {:>6.3} %  \
         needlessly {:>6.3} %  pulls {}",
        f.after_pull / f.spam.max(1.0) * 100.0,
        f.harmed / f.carried * 100.0,
        f.out_h / hours * 100.0,
        f.needless_h / hours * 100.0,
        f.pulls
    );
}

#[test]
fn the_decision_is_better_than_both_simple_ways() {
    let is_campaign = std::env::var("MAILFUSE_CAMPAIGN").is_ok_and(|v| v == "1");
    let seeds = if is_campaign { 20 } else { 4 };
    let all_sizes: &[usize] = if is_campaign { &[4, 12, 40, 100, 400] } else { &[4, 40] };
    let sizes = match std::env::var("MAILFUSE_RELAYS") {
        Ok(only) => only.split(',').map(|n| n.parse().unwrap()).collect(),
        Err(_) => all_sizes.to_vec(),
    };
    let as_it_is = |_: &mut Settings| {};
    for relays in sizes {
        // What a run costs grows with the square of it.
        let seeds = if relays >= 400 { 1 } else { seeds.min(if relays >= 100 { 4 } else { seeds }) };
        let [nothing, first, decided] =
            [Way::Nothing, Way::FirstFlag, Way::Decided].map(|way| all(relays, way, seeds, &as_it_is));
        print(relays, "pull nothing", seeds, &nothing);
        print(relays, "pull at the first flag", seeds, &first);
        print(relays, "as it decides", seeds, &decided);
        if is_campaign && relays <= 40 {
            for recipients in [50, 100, 200, 400, 800] {
                let f = all(relays, Way::Decided, seeds, &|s| s.pull.recipients = recipients);
                print(relays, &format!("from {recipients} recipients on"), seeds, &f);
            }
            for share in [0.0, 0.005, 0.02] {
                let f = all(relays, Way::Decided, seeds, &|s| s.pull.share = share);
                print(relays, &format!("from a share of {share} on"), seeds, &f);
            }
        }
        assert!(decided.needless_h < first.needless_h, "out needlessly: {decided:?} {first:?}");
        assert!(decided.pulls < first.pulls);
        assert!(
            decided.after_pull > 0.0 && decided.after_pull < decided.spam * DEFERRED,
            "more than waited: {decided:?}"
        );
        let harmed = |f: &Figures| f.harmed / f.carried;
        assert!(harmed(&decided) <= harmed(&nothing), "it harms more than it helps: {decided:?} {nothing:?}");
    }
}
