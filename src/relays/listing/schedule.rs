//! What is asked when, and what a changed answer means. Pure: time is an argument.

use std::net::{IpAddr, Ipv4Addr};

use super::answer::{Failure, Heard};
use super::settings::{Settings, Zone};
use super::{Change, name};
use crate::event::Timestamp;

/// Addresses times zones that are watched at most; further ones are left out, and counted by [`Watch::left_out`].
pub const WATCHED_MAX: usize = 4096;
/// After a failure a question waits twice as long each time, up to so many times its usual time.
const BACK_OFF_MAX: u32 = 8;
/// Not listed in any zone, and always listed: RFC 5782, 5.
const NEVER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
const ALWAYS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A relay's address that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The relay's name.
    pub relay: String,
    /// One of its addresses.
    pub address: IpAddr,
}

/// An address that was listed when this watch began: what was said is not said again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whose.
    pub target: Target,
    /// Where.
    pub zone: String,
    /// Why.
    pub codes: Vec<Ipv4Addr>,
}

/// A question, to be answered with [`Watch::hear`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name to ask for an A record.
    pub name: String,
    /// The list that is asked.
    pub zone: String,
    watched: usize,
    is_test: bool,
}

/// One address in one zone.
#[derive(Debug)]
struct Watched {
    target: Target,
    zone: usize,
    /// Why it is listed; none where it is not.
    codes: Option<Vec<Ipv4Addr>>,
    /// What the last answer said otherwise, until the zone's test entry has been asked for.
    doubted: Option<Option<Vec<Ipv4Addr>>>,
    /// Answers in a row that said of a listed address that it is not.
    clean: u32,
    failures: u32,
    next_ms: i64,
}

/// All addresses in all zones.
///
/// *Listed* is believed at once, when the zone's test entry is as it should be: each minute counts. *Not listed any more* takes
/// two answers in a row as well: mirrors of a list follow one another, and a relay that goes back too early is listed again.
#[derive(Debug)]
pub struct Watch {
    zones: Vec<Zone>,
    watched: Vec<Watched>,
    every_ms: i64,
    spacing_ms: i64,
    asked_ms: i64,
    left_out: usize,
}

impl Watch {
    /// Of these addresses, from `now_ms` on (milliseconds since 1970). First questions are spread over the usual time.
    pub fn new(settings: &Settings, targets: &[Target], standing: &[Standing], now_ms: i64) -> Self {
        let every_ms = i64::from(settings.every_s) * 1000;
        let all = targets.len() * settings.zones.len();
        let count = all.min(WATCHED_MAX);
        let pairs = targets.iter().flat_map(|t| (0..settings.zones.len()).map(move |zone| (t, zone))).take(count);
        let watched = pairs.enumerate().map(|(i, (target, zone))| {
            let same = |s: &&Standing| s.target == *target && s.zone == settings.zones[zone].name;
            Watched {
                target: target.clone(),
                zone,
                codes: standing.iter().find(same).map(|s| s.codes.clone()),
                doubted: None,
                clean: 0,
                failures: 0,
                next_ms: now_ms.saturating_add(every_ms * i as i64 / count.max(1) as i64),
            }
        });
        Self {
            watched: watched.collect(),
            zones: settings.zones.clone(),
            every_ms,
            spacing_ms: i64::from(settings.spacing_ms),
            asked_ms: i64::MIN,
            left_out: all - count,
        }
    }

    /// Whether this list is asked for this address.
    pub fn watches(&self, target: &Target, zone: &str) -> bool {
        self.watched.iter().any(|w| w.target == *target && self.zones[w.zone].name == zone)
    }

    /// The address that a question was about, where its answer leaves nothing open; `None` while a test entry is to be asked for or
    /// a second answer is waited for.
    pub fn settled(&self, question: &Question) -> Option<&Target> {
        let of = self.watched.get(question.watched)?;
        (of.doubted.is_none() && of.clean == 0 && of.failures == 0).then_some(&of.target)
    }

    /// Addresses in zones that are not asked for because there are too many.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// When the next question is due, in milliseconds since 1970; `None` where nothing is watched.
    pub fn next_ms(&self) -> Option<i64> {
        let next = self.watched.iter().map(|w| w.next_ms).min()?;
        Some(next.max(self.asked_ms.saturating_add(self.spacing_ms)))
    }

    /// The question that is due, if one is. It is not asked again until its usual time has passed or [`Watch::hear`] says so.
    pub fn due(&mut self, now_ms: i64) -> Option<Question> {
        if self.next_ms()? > now_ms {
            return None;
        }
        let watched = (0..self.watched.len()).min_by_key(|i| self.watched[*i].next_ms)?;
        let of = &mut self.watched[watched];
        of.next_ms = now_ms.saturating_add(self.every_ms);
        self.asked_ms = now_ms;
        let zone = self.zones[of.zone].name.clone();
        let address = match &of.doubted {
            None => of.target.address,
            Some(Some(_)) => NEVER,
            Some(None) => ALWAYS,
        };
        Some(Question { name: name::of(address, &zone), zone, watched, is_test: of.doubted.is_some() })
    }

    /// Takes an answer: what has changed, or why the answer says nothing.
    ///
    /// # Errors
    /// The failure, to be told once in a while; what stood still stands.
    pub fn hear(&mut self, question: &Question, heard: Heard, now_ms: i64) -> Result<Option<Change>, Failure> {
        let Some(of) = self.watched.get_mut(question.watched) else { return Ok(None) };
        let zone = &self.zones[of.zone];
        let believed = match (question.is_test, heard) {
            (_, Heard::Failed(failure)) => Err(failure),
            (true, heard) => of.tested(&heard),
            (false, heard) => {
                of.answered(zone.counting(heard), now_ms);
                Ok(None)
            }
        };
        match believed {
            Err(failure) => {
                of.doubted = None;
                of.failures = of.failures.saturating_add(1);
                let times = 1_i64 << of.failures.min(BACK_OFF_MAX.ilog2());
                of.next_ms = now_ms.saturating_add(self.every_ms * times);
                Err(failure)
            }
            Ok(None) => Ok(None),
            Ok(Some(codes)) => {
                let before = std::mem::replace(&mut of.codes, codes);
                Ok(Some(Change {
                    relay: of.target.relay.clone(),
                    address: of.target.address,
                    zone: zone.name.clone(),
                    listed: of.codes.is_some(),
                    codes: of.codes.clone().or(before).unwrap_or_default(),
                    at: Timestamp(now_ms),
                }))
            }
        }
    }
}

impl Zone {
    /// The codes that count; none where the address is not listed for any of these.
    fn counting(&self, heard: Heard) -> Option<Vec<Ipv4Addr>> {
        let Heard::Listed(mut codes) = heard else { return None };
        codes.retain(|code| self.codes.is_empty() || self.codes.contains_key(code));
        Some(codes).filter(|codes| !codes.is_empty())
    }
}

impl Watched {
    fn answered(&mut self, codes: Option<Vec<Ipv4Addr>>, now_ms: i64) {
        self.failures = 0;
        if codes.is_some() == self.codes.is_some() {
            // Other reasons are no news: it is listed.
            self.codes = codes;
            self.clean = 0;
            return;
        }
        self.clean = if codes.is_none() { self.clean + 1 } else { 0 };
        if codes.is_some() || self.clean >= 2 {
            self.doubted = Some(codes);
            self.next_ms = now_ms;
        }
    }

    /// Takes the answer for the test entry. Returns what stands from now on: outer, whether anything changes; inner, why it is
    /// listed.
    fn tested(&mut self, heard: &Heard) -> Result<Option<Option<Vec<Ipv4Addr>>>, Failure> {
        let doubted = self.doubted.take();
        match (&doubted, heard) {
            (Some(Some(_)), Heard::Listed(_)) => Err(Failure::Untrue("it lists 127.0.0.1, and so everybody")),
            (Some(None), Heard::Clean) => Err(Failure::Untrue("it does not list 127.0.0.2, and so perhaps nobody")),
            _ => {
                self.clean = 0;
                Ok(doubted)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_MS: i64 = 600_000;

    fn zone(name: &str) -> Zone {
        Zone { name: name.to_owned(), codes: Default::default() }
    }

    fn watch(zones: Vec<Zone>, addresses: u8, standing: &[Standing]) -> Watch {
        let targets: Vec<Target> = (1..=addresses).map(target).collect();
        Watch::new(&Settings { zones, ..Settings::default() }, &targets, standing, 0)
    }

    fn target(n: u8) -> Target {
        Target { relay: format!("out-{n}"), address: IpAddr::from([192, 0, 2, n]) }
    }

    fn listed(codes: &[u8]) -> Heard {
        Heard::Listed(codes.iter().map(|n| Ipv4Addr::new(127, 0, 0, *n)).collect())
    }

    /// Asks for as long as `until_ms`, by a world that answers; gives the changes, the failures, and what was asked when.
    fn run(
        watch: &mut Watch,
        until_ms: i64,
        answer: impl Fn(&str, i64) -> Heard,
    ) -> (Vec<Change>, Vec<Failure>, Vec<(i64, String)>) {
        let (mut changes, mut failures, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(now_ms) = watch.next_ms().filter(|ms| *ms < until_ms) {
            let question = watch.due(now_ms).unwrap();
            assert_eq!(watch.due(now_ms), None, "spaced");
            asked.push((now_ms, question.name.clone()));
            match watch.hear(&question, answer(&question.name, now_ms), now_ms) {
                Ok(change) => changes.extend(change),
                Err(failure) => failures.push(failure),
            }
        }
        (changes, failures, asked)
    }

    /// A sound list, which lists 192.0.2.1 from hour 2 to hour 5.
    fn sound(name: &str, now_ms: i64) -> Heard {
        match name {
            "2.0.0.127.list.example." => listed(&[2]),
            "1.2.0.192.list.example." if (2..5).contains(&(now_ms / 3_600_000)) => listed(&[3, 4]),
            _ => Heard::Clean,
        }
    }

    #[test]
    fn a_listing_and_its_end_are_said_once_each() {
        let (changes, failures, asked) = run(&mut watch(vec![zone("list.example")], 3, &[]), 10 * 3_600_000, sound);
        assert_eq!(failures, []);
        let said: Vec<_> = changes.iter().map(|c| (&*c.relay, c.listed, c.codes.len())).collect();
        assert_eq!(said, [("out-1", true, 2), ("out-1", false, 2)]);
        let late_ms: Vec<i64> = changes.iter().zip([2, 5]).map(|(c, hour)| c.at.0 - hour * 3_600_000).collect();
        assert!(late_ms[0] <= EVERY_MS + 1000 && late_ms[1] <= 2 * EVERY_MS + 1000, "{late_ms:?}");
        // Sixty rounds of three addresses and two tests, never more than one question each 200 ms.
        assert_eq!(asked.len(), 3 * 60 + 2);
        assert!(asked.windows(2).all(|w| w[1].0 - w[0].0 >= 200), "{asked:?}");
    }

    #[test]
    fn whoever_takes_over_says_nothing_again() {
        let standing = Standing { target: target(1), zone: "list.example".into(), codes: vec![] };
        let mut next = watch(vec![zone("list.example")], 1, &[standing]);
        let always = |name: &str, _| if name.starts_with("1.0.0.127") { Heard::Clean } else { listed(&[3]) };
        assert_eq!(run(&mut next, 10 * EVERY_MS, always).0, []);
    }

    #[test]
    fn a_list_that_lists_everybody_or_nobody_is_not_believed() {
        let (changes, failures, _) =
            run(&mut watch(vec![zone("l.example")], 3, &[]), 20 * EVERY_MS, |_, _| listed(&[2]));
        assert_eq!(changes, []);
        assert!(failures.iter().all(|f| matches!(f, Failure::Untrue(_))) && !failures.is_empty());
        let standing = Standing { target: target(1), zone: "l.example".into(), codes: vec![] };
        let mut emptied = watch(vec![zone("l.example")], 3, &[standing]);
        let (changes, failures, _) = run(&mut emptied, 20 * EVERY_MS, |_, _| Heard::Clean);
        assert_eq!(changes, []);
        assert!(failures.iter().all(|f| matches!(f, Failure::Untrue(_))) && !failures.is_empty());
    }

    #[test]
    fn failures_change_nothing_and_are_asked_about_less_and_less() {
        let standing = Standing { target: target(1), zone: "l.example".into(), codes: vec![] };
        let mut watch = watch(vec![zone("l.example")], 1, &[standing]);
        let (changes, failures, asked) = run(&mut watch, 100 * EVERY_MS, |_, _| Heard::Failed(Failure::Silent));
        assert_eq!((changes.len(), failures.len()), (0, asked.len()));
        let pauses: Vec<i64> = asked.windows(2).map(|w| (w[1].0 - w[0].0) / EVERY_MS).collect();
        assert_eq!(pauses[..5], [2, 4, 8, 8, 8]);
    }

    #[test]
    fn one_clean_answer_is_no_end() {
        let standing = Standing { target: target(1), zone: "list.example".into(), codes: vec![] };
        let mut flapping = watch(vec![zone("list.example")], 1, &[standing]);
        let (changes, _, _) = run(&mut flapping, 100 * EVERY_MS, |name, now_ms| match name {
            "1.2.0.192.list.example." if now_ms / EVERY_MS % 2 == 0 => Heard::Clean,
            "1.0.0.127.list.example." => Heard::Clean,
            _ => listed(&[2]),
        });
        assert_eq!(changes, []);
    }

    #[test]
    fn codes_that_do_not_count_are_no_listing() {
        let codes = [(Ipv4Addr::new(127, 0, 0, 3), "CSS".to_owned())].into();
        let mut watch = watch(vec![Zone { name: "list.example".into(), codes }], 2, &[]);
        let (changes, _, _) = run(&mut watch, 2 * EVERY_MS, |name, _| match name {
            "1.2.0.192.list.example." => listed(&[10]),
            "2.2.0.192.list.example." => listed(&[3, 10]),
            _ => Heard::Clean,
        });
        let said: Vec<_> = changes.iter().map(|c| (&*c.relay, c.listed, c.codes.clone())).collect();
        assert_eq!(said, [("out-2", true, vec![Ipv4Addr::new(127, 0, 0, 3)])]);
    }

    #[test]
    fn what_is_watched_is_bounded() {
        let zones = (0..32).map(|n| zone(&format!("l{n}.example"))).collect();
        let watch = watch(zones, 200, &[]);
        assert_eq!((watch.watched.len(), watch.left_out()), (WATCHED_MAX, 200 * 32 - WATCHED_MAX));
    }
}
