//! A shard: what one partition owns. Its accounts, its clock, the step that an event takes.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashTable;

use super::account::Account;
use super::alert::{Action, Alert, AlertKind, Severity};
use super::baseline::DAY_S;
use super::evidence::{self, rounded};
use super::fingerprint::Fingerprint;
use super::incident::{self, Incident, Totals};
use super::policy::Policy;
use super::sends::seconds;
use super::verdict::{self, Stratum, Weighed};
use super::window;
use crate::event::{Event, Timestamp};

/// What became of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Step {
    /// A repeat of an `id` of this account: nothing was counted.
    pub duplicate: bool,
    /// Older than every window: counted as late, nowhere else.
    pub late: bool,
    /// On a send, or on an outcome that names a recipient first: how many recipients the account had never written to.
    pub new_recipients: u32,
    /// On an outcome: a refusal that speaks about the account (see `core/refusal.rs`).
    pub refused: bool,
}

/// A critical incident is weighed again after this much of its account's clock, in milliseconds.
const CRITICAL_AGAIN_MS: i64 = 60_000;

/// The accounts of one partition.
#[derive(Debug)]
pub struct Shard {
    policy: Arc<Policy>,
    prints: Fingerprint,
    /// When the first event of all history happened: a stored fact, the same for every shard.
    history_since: Timestamp,
    /// Boxed, so that a growing shard of millions moves pointers and not accounts.
    #[allow(clippy::vec_box)]
    accounts: Vec<Box<Account>>,
    /// Hash of the name to the place in `accounts`.
    places: HashTable<u32>,
    /// Open incidents by the moment they are due to be cleared.
    due: BTreeSet<(i64, u32)>,
    /// The largest `ts` met.
    newest_ms: i64,
}

impl Shard {
    /// An empty shard. `history_since` is when the first event of all history happened, the same for every shard.
    pub fn new(policy: Arc<Policy>, history_since: Timestamp) -> Self {
        let prints = Fingerprint::new(&policy.key);
        Self {
            policy,
            prints,
            history_since,
            accounts: Vec::new(),
            places: HashTable::new(),
            due: BTreeSet::new(),
            newest_ms: i64::MIN,
        }
    }

    /// Counts one event, and appends the alerts that it causes to `out`. An event without an account concerns no shard.
    pub fn step(&mut self, event: &Event<'_>, out: &mut Vec<Alert>) -> Step {
        let Some(name) = event.account.as_deref() else { return Step::default() };
        if event.ts.0 > self.newest_ms {
            self.newest_ms = event.ts.0;
            self.clear_until(self.newest_ms - i64::from(self.policy.detect.lateness_s) * 1000, out);
        }
        let place = self.place(name, event.ts.0);
        // Its own clock may be past the quiet time before the shard's is.
        if let Some(due_ms) = self.accounts[place].incident.as_ref().map(|i| i.due_ms(self.policy.detect.quiet_s))
            && event.ts.0 >= due_ms
        {
            self.clear(due_ms, place, out);
        }
        let effect = self.accounts[place].apply(event, &self.policy, &self.prints, seconds(self.history_since.0));
        if effect.weigh {
            self.weigh(place, out);
        }
        effect.step
    }

    /// Says that the input has been read up to `now`: writes what is due by then (`account.cleared`).
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Alert>) {
        self.newest_ms = self.newest_ms.max(now.0);
        self.clear_until(now.0 - i64::from(self.policy.detect.lateness_s) * 1000, out);
    }

    /// Accounts held.
    pub fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// The state of one account.
    pub fn account(&self, name: &str) -> Option<&Account> {
        let hash = self.prints.of(name);
        let place = self.places.find(hash, |&p| self.accounts[p as usize].name() == name)?;
        Some(&self.accounts[*place as usize])
    }

    /// All accounts, in the order they were met.
    pub fn all(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter().map(|a| &**a)
    }

    /// Open incidents, by the moment they are due to be cleared.
    pub fn open_incidents(&self) -> impl Iterator<Item = (&Account, &Incident)> {
        self.due.iter().filter_map(|&(_, place)| {
            let account = &*self.accounts[place as usize];
            account.incident.as_ref().map(|incident| (account, incident))
        })
    }

    /// The largest `ts` met.
    pub fn newest(&self) -> Timestamp {
        Timestamp(self.newest_ms)
    }

    /// Sets the clock of a shard that is being restored.
    pub fn restore_clock(&mut self, newest: Timestamp) {
        self.newest_ms = newest.0;
    }

    /// Takes in a stored account, which the shard must not know yet.
    pub fn restore(&mut self, account: Account) {
        let place = self.accounts.len() as u32;
        if let Some(incident) = &account.incident {
            self.due.insert((incident.due_ms(self.policy.detect.quiet_s), place));
        }
        let hash = self.prints.of(account.name());
        self.accounts.push(Box::new(account));
        let (accounts, prints) = (&self.accounts, &self.prints);
        self.places.insert_unique(hash, place, |&p| prints.of(accounts[p as usize].name()));
    }

    /// When the first event of all history happened.
    pub fn history_since(&self) -> Timestamp {
        self.history_since
    }

    /// The place of an account, met now if it is not known, met again if it was idle for so long that it counts as forgotten.
    fn place(&mut self, name: &str, ts_ms: i64) -> usize {
        let hash = self.prints.of(name);
        let accounts = &mut self.accounts;
        if let Some(&place) = self.places.find(hash, |&p| accounts[p as usize].name() == name) {
            let place = place as usize;
            if accounts[place].incident.is_none() && accounts[place].is_forgotten(seconds(ts_ms), &self.policy) {
                *accounts[place] = Account::new(name, ts_ms, Stratum::New);
            }
            return place;
        }
        let place = accounts.len();
        let stratum = verdict::first_stratum(&self.policy, seconds(ts_ms), seconds(self.history_since.0));
        accounts.push(Box::new(Account::new(name, ts_ms, stratum)));
        let prints = &self.prints;
        self.places.insert_unique(hash, place as u32, |&p| prints.of(accounts[p as usize].name()));
        place
    }

    fn clear_until(&mut self, now_ms: i64, out: &mut Vec<Alert>) {
        if self.due.first().is_none_or(|&(due_ms, _)| due_ms > now_ms) {
            return;
        }
        let mut due: Vec<_> = self.due.range(..=(now_ms, u32::MAX)).copied().collect();
        // Those of one moment by name: places depend on who was met first, and on whether the state was loaded.
        due.sort_by(|a, b| {
            let name = |place: u32| self.accounts[place as usize].name();
            a.0.cmp(&b.0).then_with(|| name(a.1).cmp(name(b.1)))
        });
        for (due_ms, place) in due {
            self.clear(due_ms, place as usize, out);
        }
    }

    fn clear(&mut self, due_ms: i64, place: usize, out: &mut Vec<Alert>) {
        self.due.remove(&(due_ms, place as u32));
        let account = &mut self.accounts[place];
        let Some(incident) = account.close(due_ms) else { return };
        out.push(Alert {
            v: 1,
            id: incident::alert_id(&incident.id, AlertKind::Cleared),
            kind: AlertKind::Cleared,
            ts: Timestamp(due_ms),
            severity: incident.severity,
            account: account.name().to_owned(),
            tenant: account.tenant().to_owned(),
            incident: incident.id.to_string(),
            score: incident.score,
            pattern: incident.pattern,
            evidence: Vec::new(),
            relays: incident.totals.relays(account.relay_names()),
            burst: incident.totals.burst(),
            action: Action::None,
            by: self.policy.by.clone(),
        });
    }

    fn weigh(&mut self, place: usize, out: &mut Vec<Alert>) {
        let account = &mut self.accounts[place];
        // A critical incident can grow no worse; once a minute is enough to know that it goes on.
        if let Some(incident) = &account.incident
            && incident.severity == Severity::Critical
            && account.clock_ms() - incident.active_ms < CRITICAL_AGAIN_MS
        {
            return;
        }
        let stratum = account.stratum();
        let t = verdict::threshold(&self.policy, stratum);
        let Some((weighed, severity)) = verdict::strongest(account, &self.policy, t) else { return };
        let (clock_ms, cleared_ms) = (account.clock_ms(), account.cleared_ms());
        let kind = match &mut account.incident {
            Some(incident) => {
                let before = incident.due_ms(self.policy.detect.quiet_s);
                // A burst that only the longest windows remember is over.
                if weighed.span_s <= DAY_S && clock_ms > incident.active_ms {
                    incident.active_ms = clock_ms;
                    self.due.remove(&(before, place as u32));
                    self.due.insert((incident.due_ms(self.policy.detect.quiet_s), place as u32));
                }
                if severity <= incident.severity {
                    return;
                }
                incident.severity = severity;
                AlertKind::Escalated
            }
            // A written clear is final: what comes late cannot open an incident before it, let alone one with the old id.
            None if clock_ms < cleared_ms => return,
            None => {
                // What went out before the clear belongs to the incident that it closed.
                let start_ms = i64::from(window::start_s(weighed.span_s, account.now_s())) * 1000;
                let start_ms = start_ms.max(cleared_ms);
                let incident = Incident {
                    id: incident::incident_id(account.name(), clock_ms).into(),
                    severity,
                    active_ms: clock_ms,
                    score: 0.0,
                    pattern: super::alert::Pattern::Unclear,
                    start_ms,
                    totals: Totals::gather(account.sends_mut(), start_ms),
                };
                self.due.insert((incident.due_ms(self.policy.detect.quiet_s), place as u32));
                account.incident = Some(incident);
                AlertKind::Flagged
            }
        };
        self.say(place, kind, stratum, &weighed, severity, out);
    }

    fn say(
        &mut self,
        place: usize,
        kind: AlertKind,
        stratum: Stratum,
        weighed: &Weighed,
        severity: Severity,
        out: &mut Vec<Alert>,
    ) {
        let t = verdict::threshold(&self.policy, stratum);
        let evidence = evidence::list(&self.accounts[place], &self.policy, t, weighed, severity);
        let account = &mut self.accounts[place];
        let ts = Timestamp(account.clock_ms());
        let Some(incident) = &mut account.incident else { return };
        incident.score = rounded(weighed.stated(t));
        incident.pattern = evidence::pattern(weighed, stratum);
        let (id, score, pattern) = (incident.id.to_string(), incident.score, incident.pattern);
        let burst = incident.totals.burst();
        let relays = account.incident.as_ref().map(|i| i.totals.relays(account.relay_names())).unwrap_or_default();
        out.push(Alert {
            v: 1,
            id: incident::alert_id(&id, kind),
            kind,
            ts,
            severity,
            account: account.name().to_owned(),
            tenant: account.tenant().to_owned(),
            incident: id,
            score,
            pattern,
            evidence,
            relays,
            burst,
            action: match severity {
                Severity::Warning => Action::Throttle,
                Severity::Critical => Action::SuspendAccount,
            },
            by: self.policy.by.clone(),
        });
    }
}
