//! A shard: what one partition owns. Its accounts, its clock, the step that an event takes.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::account::Account;
use super::alert::{Action, Alert, AlertKind, Severity};
use super::baseline::DAY_S;
use super::beat;
pub use super::codec::Unreadable;
use super::decided::{Bar, Decided};
use super::decision::Decisions;
use super::evidence::{self, rounded};
use super::fingerprint::Fingerprint;
use super::incident::{self, Incident, Totals};
use super::policy::Policy;
use super::sends::seconds;
use super::signal::{Part, Signal};
use super::slots::Slots;
pub use super::tally::Kept;
use super::tally::Tally;
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
    /// Before it was counted, the account was put back to what it had learned before a hijack.
    pub put_back: bool,
    /// Before it was counted, the account took over what it had learned under another name.
    pub inherited: bool,
}

/// A critical incident is weighed again after this much of its account's clock, in milliseconds.
const CRITICAL_AGAIN_MS: i64 = 60_000;

/// A configuration that the accounts at hand cannot be counted on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is another: what is stored was made with the old one. Restart with an empty state, or keep it")]
pub struct NewEpoch {
    /// The configuration's key.
    pub key: &'static str,
}

/// The accounts of one partition.
#[derive(Debug)]
pub struct Shard {
    policy: Arc<Policy>,
    prints: Fingerprint,
    /// When the first event of all history happened: a stored fact, the same for every shard.
    history_since: Timestamp,
    accounts: Slots,
    /// Open incidents by the moment they are due to be cleared.
    due: BTreeSet<(i64, u32)>,
    decided: Decided,
    /// The largest `ts` met.
    newest_ms: i64,
    /// What is counted for signals, where somebody wants them.
    tally: Option<Tally>,
}

/// Which signals are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// What is new of bursts, and of minutes that are closed.
    Bursts,
    /// Also the open minutes.
    All,
}

/// Room for [`Shard::look_ahead`].
#[derive(Debug, Default)]
pub struct Ahead {
    hashes: Vec<u64>,
    places: Vec<u32>,
}

impl Shard {
    /// An empty shard. `history_since` is when the first event of all history happened, the same for every shard.
    pub fn new(policy: Arc<Policy>, history_since: Timestamp) -> Self {
        let prints = Fingerprint::new(&policy.key);
        Self {
            accounts: Slots::new(prints.clone(), policy.spans.clone()),
            policy,
            prints,
            history_since,
            due: BTreeSet::new(),
            decided: Decided::default(),
            newest_ms: i64::MIN,
            tally: None,
        }
    }

    /// Counts one event, and appends the alerts that it causes to `out`. An event without an account concerns no shard.
    pub fn step(&mut self, event: &Event<'_>, out: &mut Vec<Alert>) -> Step {
        let Some(name) = event.account.as_deref() else { return Step::default() };
        if event.ts.0 > self.newest_ms {
            self.newest_ms = event.ts.0;
            let lateness_s = self.policy.detect.lateness_s;
            if let Some(tally) = &mut self.tally {
                tally.close(self.newest_ms, lateness_s);
            }
            self.clear_until(self.newest_ms - i64::from(lateness_s) * 1000, out);
        }
        let place = self.place(name, event.ts.0);
        // Its own clock may be past the quiet time before the shard's is.
        if let Some(due_ms) = self.due_ms(place)
            && event.ts.0 >= due_ms
        {
            self.clear(due_ms, place, out);
        }
        let account = self.accounts.touch(place);
        let history_since_s = seconds(self.history_since.0);
        let put_back = !account.before().is_empty() && {
            let is_hijack = |incident: &str| self.decided.is_hijack(name, incident, event.ts);
            account.put_back_at(event.ts.0, is_hijack, &self.policy, history_since_s)
        };
        let inherited = self.decided.inherited(name, event.ts).is_some_and(|learned| {
            account.inherit_at(event.ts.0, learned, &self.policy, &self.prints, history_since_s)
        });
        let burst_seq = |account: &Account| account.incident.as_ref().map(|i| i.totals.seq());
        let seq_before = burst_seq(account);
        if let Some(tally) = &mut self.tally
            && seq_before.is_some()
        {
            tally.turn(place, account, account.clock_ms().max(event.ts.0));
        }
        let mut effect = account.apply(event, &self.policy, &self.prints, history_since_s);
        (effect.step.put_back, effect.step.inherited) = (put_back, inherited);
        if let Some(tally) = &mut self.tally
            && !effect.step.duplicate
            && !beat::is_beat(name)
        {
            tally.count(event, &effect.on_relays, account, self.newest_ms, self.policy.detect.lateness_s);
            if burst_seq(account) != seq_before {
                tally.grew(place);
            }
        }
        let long = account.stratum() >= Stratum::Established;
        self.accounts.note_long(place, long);
        if effect.weigh {
            self.weigh(place, out);
        }
        effect.step
    }

    /// Brings what the next events of these accounts will use into the processor's caches. Changes nothing; worth it for a few
    /// hundred events at a time, of many accounts. `keys` are folded names; others are looked at for nothing.
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>, ahead: &mut Ahead) {
        ahead.hashes.clear();
        ahead.hashes.extend(keys.map(|key| self.prints.of_bytes(key)));
        std::hint::black_box(self.accounts.look_ahead(&ahead.hashes, &mut ahead.places));
    }

    /// Says that the input has been read up to `now`: writes what is due by then (`account.cleared`). Leaves no other trace: a
    /// shard that idles stores what one stores that does not.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Alert>) {
        self.clear_until(now.0.saturating_sub(i64::from(self.policy.detect.lateness_s) * 1000), out);
    }

    /// The configuration in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Accounts held.
    pub fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// Accounts with enough history: established, or bulk.
    pub fn known_long(&self) -> usize {
        self.accounts.long()
    }

    /// Bytes of all accounts and of the tables that they are found by, heap included. Exact for those that rest; of the others
    /// some are looked at and stand for all.
    pub fn bytes(&self) -> usize {
        self.accounts.bytes()
    }

    /// The state of one account; a copy where it rests.
    pub fn account(&self, name: &str) -> Option<Cow<'_, Account>> {
        let place = self.accounts.find(name)?;
        match self.accounts.hot(place) {
            Some(account) => Some(Cow::Borrowed(account)),
            None => self.accounts.copy(place).map(Cow::Owned),
        }
    }

    /// The names of all accounts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.accounts.names()
    }

    /// Gives every account, packed, by name.
    pub fn give_all(&self, give: &mut dyn FnMut(&str, &[u8])) {
        self.accounts.give_all(give);
    }

    /// How many incidents are open, heartbeats' left out.
    pub fn open(&self) -> usize {
        self.open_incidents().filter(|(account, _)| !beat::is_beat(account.name())).count()
    }

    /// Open incidents, by the moment they are due to be cleared.
    pub fn open_incidents(&self) -> impl Iterator<Item = (&Account, &Incident)> {
        self.due.iter().filter_map(|&(_, place)| {
            let account = self.accounts.hot(place as usize)?;
            account.incident.as_deref().map(|incident| (account, incident))
        })
    }

    /// The largest `ts` met.
    pub fn newest(&self) -> Timestamp {
        Timestamp(self.newest_ms)
    }

    /// Sets since when there is history, of a shard that is being restored.
    pub fn restore_history(&mut self, since: Timestamp) {
        self.history_since = since;
    }

    /// Sets the clock of a shard that is being restored.
    pub fn restore_clock(&mut self, newest: Timestamp) {
        self.newest_ms = newest.0;
    }

    /// Takes in an account of a file of version 1, which the shard must not know yet.
    pub fn restore(&mut self, account: Account) {
        let place = self.accounts.insert(account, false);
        self.due_again(place);
    }

    /// Takes in a stored account, in the place of one of the same name: of a changelog the later record counts.
    ///
    /// # Errors
    /// Where the bytes are no account of this name, or one of a newer version; then the shard is as it was.
    pub fn restore_packed(&mut self, name: &str, packed: &[u8]) -> Result<(), Unreadable> {
        let known = self.accounts.find(name).and_then(|place| Some((self.due_ms(place)?, place as u32)));
        let place = self.accounts.restore_packed(name, packed)?;
        if let Some(known) = known {
            self.due.remove(&known);
        }
        self.due_again(place);
        Ok(())
    }

    /// Takes an account out: what a changelog says by a record without a value.
    pub fn forget(&mut self, name: &str) {
        let Some(place) = self.accounts.find(name) else { return };
        if let Some(due_ms) = self.due_ms(place) {
            self.due.remove(&(due_ms, place as u32));
        }
        self.accounts.remove(place);
    }

    /// Takes over a changed configuration.
    ///
    /// # Errors
    /// Where windows or fingerprint key are others: what has been counted so far means nothing under them. Then nothing changes.
    pub fn set_policy(&mut self, policy: Arc<Policy>) -> Result<(), NewEpoch> {
        if policy.spans != self.policy.spans {
            return Err(NewEpoch { key: "detect.windows_s" });
        }
        if policy.key != self.policy.key {
            return Err(NewEpoch { key: "fingerprint_key_file" });
        }
        self.policy = policy;
        for (_, place) in std::mem::take(&mut self.due) {
            self.due_again(place as usize);
        }
        Ok(())
    }

    /// Takes over what people have decided about an account, known or not, a tenant, a domain or a network, in the place of what
    /// they had.
    pub fn decide(&mut self, decisions: Arc<Decisions>) {
        let account = decisions.scope.account();
        let open = account.and_then(|name| self.accounts.find(name));
        let open = open.and_then(|place| Some((self.due_ms(place)?, place as u32)));
        self.decided.replace(decisions);
        if let Some(before) = open {
            self.due.remove(&before);
            self.due_again(before.1 as usize);
        }
    }

    /// What people have decided about an account, its domain, its tenant and the networks that its remembered sends came from,
    /// in this order; also what does not count yet, or not any more.
    pub fn decisions(&self, account: &Account) -> Vec<Arc<Decisions>> {
        self.decided.all(account)
    }

    /// What an account is weighed against at its clock.
    pub fn bar(&self, account: &Account) -> Bar<'_> {
        self.decided.bar(account, &self.policy)
    }

    /// Begins a checkpoint: the accounts changed since the last one began become pending, to be given out as they are at this
    /// moment. Returns how many. One that was under way is given up.
    pub fn begin_checkpoint(&mut self) -> usize {
        self.accounts.begin_checkpoint()
    }

    /// Gives at most `max` pending accounts, name and packed form, as they were when the checkpoint began, however much has
    /// happened to them since. Returns how many are left.
    pub fn give_changed(&mut self, max: usize, give: &mut dyn FnMut(&str, &[u8])) -> usize {
        self.accounts.give_changed(max, give)
    }

    /// The checkpoint did not succeed: what it would have covered counts as changed again.
    pub fn abandon_checkpoint(&mut self) {
        self.accounts.abandon_checkpoint();
    }

    /// The checkpoint was stored.
    pub fn finish_checkpoint(&mut self) {
        self.accounts.finish_checkpoint();
    }

    /// Accounts changed since the last checkpoint began.
    pub fn changed(&self) -> usize {
        self.accounts.changed()
    }

    /// Packs the accounts that were not touched since the last call. For who makes no checkpoints, which do the same.
    pub fn rest(&mut self) {
        self.accounts.rest();
    }

    /// When the first event of all history happened.
    pub fn history_since(&self) -> Timestamp {
        self.history_since
    }

    /// Counts what is told as signals from now on, for this part of the events; `kept` is what was stored of it, where something
    /// was. Whoever asks for it must take the signals ([`Shard::signals`]), again and again.
    pub fn tell_signals(&mut self, part: Part, kept: Kept) {
        self.tally = Some(Tally::new(part, kept));
    }

    /// What is to be stored of it. Only what has been given ([`Wanted::All`]) may be stored.
    pub fn kept(&self) -> Option<&Kept> {
        self.tally.as_ref().map(Tally::kept)
    }

    /// Whether there are signals that should not wait: somebody was flagged.
    pub fn has_urgent_signals(&self) -> bool {
        self.tally.as_ref().is_some_and(Tally::is_urgent)
    }

    /// Appends what has changed since it was last given: whole records, see [`super::signal`].
    pub fn signals(&mut self, wanted: Wanted, out: &mut Vec<Signal>) {
        let Some(tally) = &mut self.tally else { return };
        tally.give_bursts(|place| self.accounts.hot(place), out);
        if wanted == Wanted::All {
            tally.give_minutes(out);
        }
    }

    /// The place of an account, met now if it is not known, met again if it was idle for so long that it counts as forgotten.
    fn place(&mut self, name: &str, ts_ms: i64) -> usize {
        let Some(place) = self.accounts.find(name) else {
            let stratum = verdict::first_stratum(&self.policy, seconds(ts_ms), seconds(self.history_since.0));
            return self.accounts.insert(Account::new(name, ts_ms, stratum), true);
        };
        let due_ms = self.due_ms(place);
        let account = self.accounts.touch(place);
        let may = account.incident.is_none() || beat::is_beat(name);
        if may && account.is_forgotten(seconds(ts_ms), &self.policy) {
            *account = Account::new(name, ts_ms, Stratum::New);
            // Of a heartbeat's incident no end is said: nobody was told of its beginning.
            if let Some(due_ms) = due_ms {
                self.due.remove(&(due_ms, place as u32));
            }
        }
        place
    }

    /// When the open incident of an account is over, if nothing more comes.
    fn due_ms(&self, place: usize) -> Option<i64> {
        let account = self.accounts.hot(place)?;
        let incident = account.incident.as_ref()?;
        Some(self.decided.due_ms(account.name(), incident, self.policy.detect.quiet_s))
    }

    /// Notes when the open incident of an account, where there is one, is over.
    fn due_again(&mut self, place: usize) {
        if let Some(due_ms) = self.due_ms(place) {
            self.due.insert((due_ms, place as u32));
        }
    }

    fn clear_until(&mut self, now_ms: i64, out: &mut Vec<Alert>) {
        if self.due.first().is_none_or(|&(due_ms, _)| due_ms > now_ms) {
            return;
        }
        let mut due: Vec<_> = self.due.range(..=(now_ms, u32::MAX)).copied().collect();
        // Those of one moment by name: places depend on who was met first, and on whether the state was loaded.
        due.sort_by(|a, b| {
            let name = |place: u32| self.accounts.name(place as usize);
            a.0.cmp(&b.0).then_with(|| name(a.1).cmp(name(b.1)))
        });
        for (due_ms, place) in due {
            self.clear(due_ms, place as usize, out);
        }
    }

    fn clear(&mut self, due_ms: i64, place: usize, out: &mut Vec<Alert>) {
        self.due.remove(&(due_ms, place as u32));
        let account = self.accounts.touch(place);
        if let Some(tally) = &mut self.tally {
            tally.end(place, account);
        }
        let Some(incident) = account.close(due_ms) else { return };
        // Of a heartbeat's nobody was told that it began.
        if beat::is_beat(account.name()) {
            return;
        }
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
            burst: incident.totals.burst(self.policy.tells_recipients()),
            action: Action::None,
            exempt: None,
            heartbeat: false,
            by: self.policy.by.clone(),
        });
    }

    fn weigh(&mut self, place: usize, out: &mut Vec<Alert>) {
        let account = self.accounts.touch(place);
        // A critical incident can grow no worse; once a minute is enough to know that it goes on.
        if let Some(incident) = &account.incident
            && incident.severity == Severity::Critical
            && account.clock_ms() - incident.active_ms < CRITICAL_AGAIN_MS
        {
            return;
        }
        let policy = Arc::clone(&self.policy);
        let bar = self.decided.bar(account, &policy);
        let Some((weighed, severity)) = verdict::strongest(account, &policy, &bar) else { return };
        let (clock_ms, cleared_ms) = (account.clock_ms(), account.cleared_ms());
        let kind = match &mut account.incident {
            Some(incident) => {
                let due_ms = |i: &Incident| self.decided.due_ms(&account.name, i, policy.detect.quiet_s);
                let before = due_ms(incident);
                // A burst that only the longest windows remember is over.
                if weighed.span_s <= DAY_S && clock_ms > incident.active_ms {
                    incident.active_ms = clock_ms;
                    self.due.remove(&(before, place as u32));
                    self.due.insert((due_ms(incident), place as u32));
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
                let (totals, before) = Totals::gather(account.sends_mut(), start_ms, clock_ms);
                let incident = Incident {
                    id: incident::incident_id(account.name(), clock_ms).into(),
                    severity,
                    active_ms: clock_ms,
                    score: 0.0,
                    pattern: super::alert::Pattern::Unclear,
                    start_ms,
                    totals,
                    flagged_ms: clock_ms,
                };
                account.keep_before(&incident.id);
                account.incident = Some(Box::new(incident));
                if let Some(tally) = &mut self.tally {
                    tally.flagged(place, account, before);
                }
                self.due_again(place);
                AlertKind::Flagged
            }
        };
        self.say(place, kind, &bar, &weighed, severity, out);
    }

    fn say(
        &mut self,
        place: usize,
        kind: AlertKind,
        bar: &Bar<'_>,
        weighed: &Weighed,
        severity: Severity,
        out: &mut Vec<Alert>,
    ) {
        let t = &*bar.t;
        let account = self.accounts.touch(place);
        let exempt = bar.exemption(account, weighed);
        let evidence = evidence::list(account, &self.policy, bar, weighed, severity);
        let ts = Timestamp(account.clock_ms());
        let Some(incident) = &mut account.incident else { return };
        incident.score = rounded(weighed.stated(t));
        incident.pattern = evidence::pattern(weighed, bar.stratum);
        let (id, score, pattern) = (incident.id.to_string(), incident.score, incident.pattern);
        let burst = incident.totals.burst(self.policy.tells_recipients());
        let relays = account.incident.as_ref().map(|i| i.totals.relays(account.relay_names())).unwrap_or_default();
        let heartbeat = beat::is_beat(account.name());
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
                _ if heartbeat => Action::None,
                Severity::Warning => Action::Throttle,
                Severity::Critical => Action::SuspendAccount,
            },
            exempt: exempt.map(|e| e.told()),
            heartbeat,
            by: self.policy.by.clone(),
        });
    }
}
