//! When relays are pulled and put back.

use hashbrown::{HashMap, HashSet};

use super::decide::{ASK_MS, BY, Burden, BurstShare, DAY_MS, Decider, HOUR_MS, Outcome, Told, id, shares};
use super::measure::{Kind, Measure, Mode, State};
use super::settings::{Member, Pool};
use crate::desk::notice;
use crate::event::Timestamp;

/// A relay that carries nothing is silent where those in its place carry so many messages each, on average, within the window. Were
/// they spread by chance, none would come to it once in 5 * 10^8 (exp(-20)). Bursts do not count: they may be one connection's.
const SILENT_BESIDE: u64 = 20;
/// So many of them are named.
const SILENT_NAMED: usize = 5;

/// One member of a pool, and how it stands.
struct Weighed<'a> {
    pool: &'a Pool,
    member: &'a Member,
    /// Recipients of bursts that count against it.
    total: u64,
    /// Those of accounts that cannot send any more, or that were given long enough.
    settled: u64,
    carried: u64,
    /// Messages of accounts that are not flagged.
    others: u64,
    /// What suffices.
    limit: f64,
    /// Several families of receivers refuse it for its reputation.
    is_refused: bool,
    /// They do, and it was pulled within a day: it came back too early.
    is_refused_still: bool,
    /// Event time of what decides it: of the last recipient of what is settled; where refusals alone do, of the last of them.
    ts: Timestamp,
    burst: Vec<&'a BurstShare>,
}

impl Weighed<'_> {
    fn is_burdened(&self) -> bool {
        self.settled as f64 >= self.limit
    }

    fn is_exposed(&self) -> bool {
        self.is_burdened() || self.is_refused_still
    }

    fn is_quiet(&self) -> bool {
        (self.total as f64) < self.limit / 4.0 && !self.is_refused
    }
}

impl Decider {
    /// Decides about all relays: the most exposed first, so that where few may go it is they.
    pub(super) fn relays(&mut self, burdens: &[Burden], is_doubtful: bool, now_ms: i64) -> Outcome {
        let mut outcome = Outcome::default();
        let settings = self.settings.clone();
        let burdens: HashMap<&str, &Burden> = burdens.iter().map(|b| (&*b.relay, b)).collect();
        let nothing = Burden::default();
        let mut weighed: Vec<Weighed<'_>> = settings
            .members()
            .map(|(pool, member)| {
                let burden = burdens.get(&*member.relay).copied().unwrap_or(&nothing);
                self.weigh(pool, member, burden, now_ms)
            })
            .collect();
        weighed.sort_by(|a, b| b.settled.cmp(&a.settled).then_with(|| a.member.relay.cmp(&b.member.relay)));
        let known: HashSet<&str> = weighed.iter().map(|w| &*w.member.relay).collect();
        // What ends makes room for what begins.
        for w in &weighed {
            self.ends(w, now_ms, &mut outcome);
        }
        let strays: Vec<Measure> = self
            .of_relays
            .values()
            .filter(|m| m.is_open() && (!known.contains(&*m.subject) || m.until_ms <= now_ms))
            .cloned()
            .collect();
        for measure in strays {
            let why = match measure.state {
                _ if !known.contains(&*measure.subject) => "the relay is in no pool any more",
                State::Asked => "nobody confirmed it",
                _ => "its longest time is over",
            };
            outcome.changes.push(self.end(measure, now_ms, BY, why, false));
        }
        self.silent = Self::silent(&weighed, |relay| self.is_out(relay)).into_iter().collect();
        for w in weighed.iter().filter(|w| w.is_exposed()) {
            self.begins(w, is_doubtful, now_ms, &mut outcome);
        }
        outcome
    }

    fn weigh<'a>(&self, pool: &'a Pool, member: &'a Member, burden: &'a Burden, now_ms: i64) -> Weighed<'a> {
        let pull = &self.settings.pull;
        let is_counted = |b: &&BurstShare| member.tenant.is_empty() || b.tenant == member.tenant;
        let burst: Vec<&BurstShare> = burden.burst.iter().filter(is_counted).collect();
        let sum = |shares: &mut dyn Iterator<Item = &&BurstShare>| {
            shares.fold(0u64, |sum, share| sum.saturating_add(share.recipients))
        };
        let refused = burden.refused.iter().fold(0u64, |sum, (_, n)| sum.saturating_add(*n));
        let families = burden.refused.iter().filter(|(_, n)| *n > 0).count();
        let is_refused = refused >= u64::from(pull.refused) && families >= 2;
        let recipients = f64::from(pull.recipients) * if is_refused { 0.5 } else { 1.0 };
        let settled = || burst.iter().filter(|share| self.is_settled(share, now_ms));
        let mut weighed = Weighed {
            pool,
            member,
            total: sum(&mut burst.iter()),
            settled: sum(&mut settled()),
            carried: burden.carried,
            others: burden.others,
            limit: recipients.max(pull.share * burden.carried as f64),
            is_refused,
            is_refused_still: is_refused && self.was_pulled(&member.relay, now_ms),
            ts: settled().map(|share| share.ts).max().unwrap_or_default(),
            burst: Vec::new(),
        };
        if !weighed.is_burdened() {
            weighed.ts = burden.refused_ts;
        }
        weighed.burst = burst;
        weighed
    }

    /// The relays that carried nothing while those in their place carried so much, each, that it is no chance: they are down, not
    /// used, or called otherwise in the events. The floor does not count on them.
    fn silent(weighed: &[Weighed<'_>], is_out: impl Fn(&str) -> bool) -> HashSet<String> {
        let mut groups: HashMap<(&str, &str), Vec<&Weighed<'_>>> = HashMap::new();
        for w in weighed.iter().filter(|w| !is_out(&w.member.relay)) {
            groups.entry((&w.pool.name, &w.member.tenant)).or_default().push(w);
        }
        let mut silent = HashSet::new();
        for group in groups.values() {
            let others = group.iter().fold(0u64, |sum, w| sum.saturating_add(w.others));
            if others / group.len() as u64 >= SILENT_BESIDE {
                silent.extend(group.iter().filter(|w| w.carried == 0).map(|w| w.member.relay.clone()));
            }
        }
        silent
    }

    /// Whether a relay was pulled within a day, or would have been.
    fn was_pulled(&self, relay: &str, now_ms: i64) -> bool {
        let within_day = |m: &Measure| m.since_ms.is_some_and(|at| at > now_ms - DAY_MS);
        self.of_relays.values().any(|m| m.subject == relay && m.by == BY && within_day(m))
    }

    /// Whether nothing more is to be waited for before the relay goes because of this account.
    fn is_settled(&self, share: &BurstShare, now_ms: i64) -> bool {
        let grace_ms = i64::from(self.settings.stop.grace_s) * 1000;
        let own = self.of_accounts.get(&id(Kind::Stop, &share.account, &share.incident));
        let Some(stop) = own.or_else(|| self.open(Kind::Stop, &share.account)) else { return true };
        match stop.state {
            State::Shadow | State::Ended => true,
            State::Asked => now_ms >= stop.made_ms + grace_ms,
            State::InForce => stop.done_ms.is_some() || now_ms >= stop.since_ms.unwrap_or(stop.made_ms) + grace_ms,
        }
    }

    /// How long a pull lasts at least: twice as long with each one of the same relay on the day before.
    fn least_ms(&self, measure: &Measure) -> i64 {
        let pull = &self.settings.pull;
        let began_ms = measure.since_ms.unwrap_or(measure.made_ms);
        let earlier = |m: &&Measure| {
            m.id != measure.id
                && m.subject == measure.subject
                && m.since_ms.is_some_and(|at| at > began_ms - DAY_MS && at <= began_ms)
        };
        let n = self.of_relays.values().filter(earlier).count().min(16);
        ((i64::from(pull.min_s) * 1000) << n).min(i64::from(pull.max_s) * 1000)
    }

    /// Ends or renews what is open about a relay.
    fn ends(&mut self, w: &Weighed<'_>, now_ms: i64, outcome: &mut Outcome) {
        let Some(open) = self.open(Kind::Pull, &w.member.relay).cloned() else { return };
        // What a person ordered ends by a person, or at its time.
        if open.by != BY {
            return;
        }
        let began_ms = open.since_ms.unwrap_or(open.made_ms);
        if open.state == State::Asked {
            if w.is_quiet() {
                outcome.changes.push(self.end(open, now_ms, BY, "the exposure is over", false));
            }
            return;
        }
        let least_ms = self.least_ms(&open);
        if w.is_quiet() {
            if now_ms >= began_ms + least_ms {
                outcome.changes.push(self.end(open, now_ms, BY, "the exposure is over", false));
            } else if open.until_ms < began_ms + least_ms {
                let until_ms = began_ms + least_ms;
                outcome.changes.push(self.change(Measure { until_ms, ..open }, None));
            }
            return;
        }
        let (renew_ms, max_ms) =
            (i64::from(self.settings.pull.renew_s) * 1000, i64::from(self.settings.pull.max_s) * 1000);
        let until_ms = (now_ms + renew_ms).min(began_ms + max_ms);
        // Not with each look: a record for each half of the time is enough.
        if open.until_ms - now_ms <= renew_ms / 2 && until_ms > open.until_ms {
            outcome.changes.push(self.change(Measure { until_ms, ..open }, None));
        }
    }

    /// Whether a relay may go without breaking the floor of its pool; else the floor, and how many are left that carry mail. Relays
    /// stand in for those that are dedicated to the same customer, or to none.
    pub(super) fn floor(&self, pool: &Pool, member: &Member) -> Result<(), (u32, u64)> {
        let group: Vec<&Member> = pool.member.iter().filter(|m| m.tenant == member.tenant).collect();
        let is_away =
            |m: &&&Member| m.relay != member.relay && (self.is_out(&m.relay) || self.silent.contains(&m.relay));
        let left = (group.len() - group.iter().filter(is_away).count()) as u64;
        let share = (self.settings.pull.floor_share * group.len() as f64).ceil() as u32;
        let floor = share.max(self.settings.pull.floor);
        if left > u64::from(floor) { Ok(()) } else { Err((floor, left)) }
    }

    fn is_out(&self, relay: &str) -> bool {
        self.open(Kind::Pull, relay).is_some_and(counts)
    }

    /// The bound that a further pull would break, in words, with its value and what is there.
    fn bound(&self, w: &Weighed<'_>, now_ms: i64) -> Option<(String, u32, u64)> {
        let pull = &self.settings.pull;
        if let Err((floor, left)) = self.floor(w.pool, w.member) {
            let mut text = format!("the floor of pool {} is {floor} relays, {left} are in", w.pool.name);
            let silent = w.pool.member.iter().filter(|m| self.silent.contains(&m.relay)).map(|m| &*m.relay);
            let silent: Vec<&str> = silent.take(SILENT_NAMED).collect();
            if !silent.is_empty() {
                text.push_str(&format!("; nothing goes over {}", silent.join(", ")));
            }
            return Some((text, floor, left));
        }
        let out = self.of_relays.values().filter(|m| counts(m)).count() as u64;
        if out >= u64::from(pull.at_once) {
            return Some((format!("{out} relays are out, the cap is {}", pull.at_once), pull.at_once, out));
        }
        let is_recent = |m: &&Measure| m.pool == w.pool.name && m.since_ms.is_some_and(|at| at > now_ms - HOUR_MS);
        let recent = self.of_relays.values().filter(is_recent).count() as u64;
        let text =
            || format!("{recent} relays of pool {} went within an hour, the cap is {}", w.pool.name, pull.per_hour);
        (recent >= u64::from(pull.per_hour)).then(|| (text(), pull.per_hour, recent))
    }

    /// Whether somebody put the relay back not long ago, and whether its last pull came to its longest time within a day.
    fn lately(&self, relay: &str, now_ms: i64) -> (bool, bool) {
        let pull = &self.settings.pull;
        let ended = self.of_relays.values().filter(|m| m.subject == relay).filter_map(|m| Some((m, m.ended.as_ref()?)));
        let (mut by_person, mut at_longest) = (false, false);
        for (m, e) in ended {
            by_person |= e.by != BY && now_ms - e.at_ms < i64::from(pull.again_s) * 1000;
            let lasted_ms = e.at_ms - m.since_ms.unwrap_or(e.at_ms);
            at_longest |= lasted_ms >= i64::from(pull.max_s) * 1000 && now_ms - e.at_ms < DAY_MS;
        }
        (by_person, at_longest)
    }

    /// Pulls an exposed relay, or says why not.
    fn begins(&mut self, w: &Weighed<'_>, is_doubtful: bool, now_ms: i64, outcome: &mut Outcome) {
        let relay = &w.member.relay;
        let (by_person, at_longest) = self.lately(relay, now_ms);
        if by_person || self.is_held(now_ms) {
            return;
        }
        let open = self.open(Kind::Pull, relay).cloned();
        let is_late = self.is_late(w.ts, now_ms);
        let mode = self.settings.mode_of_pool(w.pool);
        let bound = if is_late { None } else { self.bound(w, now_ms) };
        let (state, less) = match mode {
            _ if is_late => (State::Shadow, "it happened too long ago to act on (relays.act_within_s)".to_owned()),
            // What would not be done is not recorded as if it would.
            Mode::Shadow if bound.is_some() => return,
            Mode::Shadow => (State::Shadow, String::new()),
            Mode::Confirm => (State::Asked, String::new()),
            Mode::Auto if is_doubtful => (State::Asked, "the stream itself has changed: a person confirms".to_owned()),
            Mode::Auto if at_longest => {
                (State::Asked, "it was out for its longest time within the last day: a person confirms".to_owned())
            }
            Mode::Auto => match &bound {
                Some((text, ..)) => (State::Asked, format!("{text}: a person confirms")),
                None => (State::InForce, String::new()),
            },
        };
        if let Some((text, limit, observed)) = &bound {
            let text = format!("relays are exposed and stay: {text} (mailfuse relays list)");
            self.capped(&w.pool.name, w.ts, now_ms, text, *limit, *observed, outcome);
        }
        if let Some(open) = open {
            let is_more = match open.state {
                State::Asked => state == State::InForce,
                // What was too late to be done once, and is exposed now.
                State::Shadow => matches!(state, State::Asked | State::InForce),
                State::InForce | State::Ended => false,
            };
            if !is_more {
                return;
            }
            outcome.changes.push(self.end(open, now_ms, BY, "it is decided anew", false));
        }
        let incident = notice::id('p', &[relay, &now_ms.to_string()]);
        let mut why = format!(
            "{} recipients of bursts within {} min, of {} that it carried; {} would have sufficed",
            w.total,
            self.settings.pull.window_s / 60,
            w.carried,
            w.limit.ceil() as u64
        );
        if w.is_refused {
            why.push_str("; several families of receivers refuse it");
        }
        if !less.is_empty() {
            why = format!("{why}; {less}");
        }
        let lasts_ms = if state == State::Asked { ASK_MS } else { self.lasts_ms(Kind::Pull) };
        let measure = Measure {
            v: 1,
            id: id(Kind::Pull, relay, &incident),
            kind: Kind::Pull,
            subject: relay.clone(),
            tenant: w.member.tenant.clone(),
            pool: w.pool.name.clone(),
            incident,
            accounts: shares(&w.burst),
            state,
            ts: w.ts,
            made_ms: now_ms,
            since_ms: (state != State::Asked && !is_late).then_some(now_ms),
            done_ms: None,
            confirmed_by: None,
            until_ms: now_ms + lasts_ms,
            by: BY.to_owned(),
            why,
            ended: None,
        };
        // Of many that a bound keeps in one word is enough.
        let told = match state {
            State::InForce => Some(Told::Done),
            State::Asked if bound.is_none() => Some(Told::Asked),
            _ => None,
        };
        outcome.changes.push(self.change(measure, told));
    }
}

/// Whether a relay is out because of it, or would be in shadow. What came too late counts nowhere.
fn counts(measure: &Measure) -> bool {
    match measure.state {
        State::InForce => true,
        State::Shadow => measure.since_ms.is_some(),
        State::Asked | State::Ended => false,
    }
}
