//! The ledger: every decision of the desk, and the number of the next line of the audit. Pure; the `desk` topic is its truth.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::acts::Acts;
use super::record::{About, Acted, Decided, Entry, Kind, Resolution, Resolved, Whom, Word};
use super::wish::{Asked, NewAction, NewDecision, Refused, Wish};
use crate::core::decision::{DECADES_MAX, DECISIONS_MAX, Decision, Decisions, FACTOR_MAX, TEXT_MAX, What};
use crate::core::scope::Scope;
use crate::core::verdict::Stratum;
use crate::desk::book::Book;
use crate::desk::notice;
use crate::desk::record::{AUDIT, DECISION, Incident, Record};
use crate::event::Timestamp;

/// A decision begins this long after it was made, in milliseconds, so that every detector knows it before the first event that it
/// is about: the grace that they need, and the time to write it.
pub const LEAD_MS: i64 = crate::kafka::control::GRACE_MS + WRITTEN_WITHIN_MS;
/// The time to write it.
pub const WRITTEN_WITHIN_MS: i64 = 5_000;
/// A decision that is over stays in the control record for so long, in milliseconds: an account that was silent meanwhile learns
/// of it with its next event, and files of that time can be replayed.
pub const STAYS_MS: i64 = 35 * DAY_MS;
/// An exemption is a hole in the fence: longer than this nobody remembers it, in days.
const EXEMPT_DAYS_MAX: i64 = 366;
/// The same of tolerances and pins, which are habits of an account, in days.
const OTHER_DAYS_MAX: i64 = 1830;
/// Notes and actions of an incident.
const WORDS_MAX: usize = 100;
/// Decisions that stand or are kept, of all accounts together.
pub const DECISIONS_KEPT_MAX: usize = 200_000;
const DAY_MS: i64 = 86_400_000;

/// Decisions and the audit.
#[derive(Debug, Default)]
pub struct Ledger {
    decisions: HashMap<String, Decided>,
    /// Ids by key of the control record, in the order in which they were made.
    by_key: HashMap<String, Vec<String>>,
    /// Lines of the audit, by number: when they were written, in milliseconds since 1970.
    audit: BTreeMap<u64, i64>,
    acts: Acts,
    next: u64,
}

/// What a wish leads to.
#[derive(Debug)]
pub struct Done {
    /// What must be written to the desk topic.
    pub records: Vec<Record>,
    /// Keys of the control records that must be written anew: [`Ledger::control`].
    pub control: Vec<String>,
    /// The incident that somebody looks after from now on.
    pub acknowledged: Option<String>,
    /// What whoever asked is told.
    pub answer: Value,
}

impl Ledger {
    /// Takes in what the topic has.
    pub fn restore(&mut self, record: &Record) {
        match record {
            Record::Decision(decided) => {
                self.next = self.next.max(decided.n + 1);
                self.insert((**decided).clone());
            }
            Record::Audit(entry) => {
                self.next = self.next.max(entry.n + 1);
                self.audit.insert(entry.n, entry.at.0);
                self.acts.keep(entry);
            }
            Record::Gone(key) => {
                if let Some(id) = key.strip_prefix(DECISION) {
                    self.remove(id);
                } else if let Some(n) = key.strip_prefix(AUDIT).and_then(|n| n.parse().ok()) {
                    self.audit.remove(&n);
                }
            }
            _ => {}
        }
    }

    fn insert(&mut self, decided: Decided) {
        // Of one whose name says nothing the detectors could not be told either.
        let Some(key) = decided.key() else { return };
        let id = decided.id.clone();
        if self.decisions.insert(id.clone(), decided).is_none() {
            let ids = self.by_key.entry(key).or_default();
            ids.push(id);
            // Restored in the order of the topic, which compaction may have changed.
            ids.sort_unstable_by_key(|id| self.decisions.get(id).map(|d| d.n));
        }
    }

    fn remove(&mut self, id: &str) -> Option<Decided> {
        let decided = self.decisions.remove(id)?;
        if let Some(key) = decided.key()
            && let Some(ids) = self.by_key.get_mut(&key)
        {
            ids.retain(|i| i != id);
            if ids.is_empty() {
                self.by_key.remove(&key);
            }
        }
        Some(decided)
    }

    /// A decision.
    pub fn decision(&self, id: &str) -> Option<&Decided> {
        self.decisions.get(id)
    }

    /// Does what somebody wants; `now_ms` is the desk's clock. What concerns deliveries is not done here.
    ///
    /// # Errors
    /// Where it cannot be done: then nothing has changed.
    pub fn take(&mut self, wish: Wish, who: &str, book: &mut Book, now_ms: i64) -> Result<Done, Refused> {
        wish.check()?;
        let by = Word { by: who.to_owned(), at: Timestamp(now_ms), note: None };
        match wish {
            Wish::Acknowledge { incident, note } => self.acknowledge(known(book, &incident)?, Word { note, ..by }),
            Wish::Resolve { incident, resolution, note } => {
                self.resolve(known(book, &incident)?, resolution, Word { note, ..by })
            }
            Wish::Note { incident, note } => self.note(known(book, &incident)?, Word { note: Some(note), ..by }),
            Wish::Decide(new) => self.decide(new, by),
            Wish::TakeBack { decision, note } => self.take_back(&decision, Word { note, ..by }),
            Wish::Act(new) => self.act(new, book, by),
            Wish::Rename(_) | Wish::Enable { .. } | Wish::Resend { .. } | Wish::Measure(_) => {
                Err(Refused::Invalid("deliveries, names and measures are not in the ledger".to_owned()))
            }
        }
    }

    /// All that was decided and is kept, in no order.
    pub fn decided(&self) -> impl Iterator<Item = &Decided> {
        self.decisions.values()
    }

    /// A line of the audit.
    pub fn audit(&mut self, what: &str, about: About, word: &Word) -> Record {
        let entry = Entry {
            v: 1,
            n: self.next,
            at: word.at,
            who: word.by.clone(),
            what: what.to_owned(),
            about,
            done: None,
            note: word.note.clone(),
        };
        self.audit.insert(entry.n, entry.at.0);
        self.next += 1;
        Record::Audit(Box::new(entry))
    }

    fn acknowledge(&mut self, incident: &mut Incident, word: Word) -> Result<Done, Refused> {
        let first = incident.acknowledged.is_none();
        if !first && word.note.is_none() {
            // Said twice, as people do.
            return Ok(Done::nothing(incident));
        }
        if first {
            incident.acknowledged = Some(word.clone());
        } else {
            push(&mut incident.notes, word.clone(), "notes")?;
        }
        incident.updated_ms = word.at.0;
        let line = self.audit("incident.acknowledged", about(incident), &word);
        let acknowledged = first.then(|| incident.id.clone());
        Ok(Done { acknowledged, ..Done::of(incident, vec![line]) })
    }

    fn note(&mut self, incident: &mut Incident, word: Word) -> Result<Done, Refused> {
        if word.note.as_ref().is_none_or(|note| note.trim().is_empty()) {
            return Err(Refused::Invalid("the note is empty".to_owned()));
        }
        push(&mut incident.notes, word.clone(), "notes")?;
        incident.updated_ms = word.at.0;
        let line = self.audit("incident.noted", about(incident), &word);
        Ok(Done::of(incident, vec![line]))
    }

    fn resolve(&mut self, incident: &mut Incident, asked: Asked, word: Word) -> Result<Done, Refused> {
        let kind = match asked {
            Asked::Hijack => Resolution::Hijack,
            Asked::NotHijack => Resolution::NotHijack,
            Asked::FalsePositive { .. } => Resolution::FalsePositive,
        };
        if let Asked::FalsePositive { days, decades } = asked {
            if word.note.as_ref().is_none_or(|note| note.trim().is_empty()) {
                return Err(Refused::Invalid("a false positive needs a note that says why".to_owned()));
            }
            if !(1..=365).contains(&days) || !(0.5..=10.0).contains(&decades) {
                return Err(Refused::Invalid("days must lie between 1 and 365, decades between 0.5 and 10".to_owned()));
            }
        }
        match incident.resolved.as_ref().map(|r| r.kind) {
            Some(before) if before == kind => return Ok(Done::nothing(incident)),
            Some(Resolution::Hijack) => {
                return Err(Refused::Conflict(
                    "it was resolved as a hijack, and what its burst taught is taken out: that cannot be undone"
                        .to_owned(),
                ));
            }
            _ => {}
        }
        let from = Timestamp(word.at.0 + LEAD_MS);
        let Some(scope) = Whom::Account.scope(&incident.account) else {
            return Err(Refused::Conflict("an account with such a name cannot be decided about".to_owned()));
        };
        let account = |what| NewOne { whom: Whom::Account, scope: &scope, what, from, until: None };
        let closes = if kind == Resolution::Hijack { Kind::Hijack } else { Kind::Close };
        let mut decided = vec![self.new_one(&account(closes), Some(&incident.id), &word)?];
        if let Asked::FalsePositive { days, decades } = asked {
            let until = Some(Timestamp(from.0 + i64::from(days) * DAY_MS));
            let mut tolerate = self.new_one(&NewOne { until, ..account(Kind::Tolerate) }, Some(&incident.id), &word)?;
            tolerate.decades = Some(decades);
            decided.push(tolerate);
        }
        self.room(&scope, decided.len())?;
        incident.resolved = Some(Resolved { kind, word: word.clone() });
        incident.updated_ms = word.at.0;
        let what = format!("incident.resolved.{}", kind.name());
        let mut lines = vec![self.audit(&what, about(incident), &word)];
        let control = vec![scope.key().into_owned()];
        // What was tolerated because of it is not any more.
        for id in self.tolerated(&scope, &incident.id) {
            lines.extend(self.end(&id, &word).into_iter().flatten());
        }
        for one in decided {
            lines.extend(self.keep(one));
        }
        Ok(Done { control, ..Done::of(incident, lines) })
    }

    fn decide(&mut self, new: NewDecision, mut word: Word) -> Result<Done, Refused> {
        let invalid = |what: &str| Err(Refused::Invalid(what.to_owned()));
        if new.note.trim().is_empty() {
            return invalid("the note is empty: whoever reads it in a year needs the reason");
        }
        word.note = Some(new.note.clone());
        let Some(scope) = new.scope.scope(&new.name) else {
            return Err(Refused::Invalid(match new.scope {
                Whom::Network => "`name` must be a network: an address, a slash, a prefix length".to_owned(),
                Whom::Domain => "`name` must be a domain, without an @".to_owned(),
                _ => format!("`name` must be a name of at most {TEXT_MAX} bytes"),
            }));
        };
        let earliest = Timestamp(word.at.0 + LEAD_MS);
        let from = new.from.unwrap_or(earliest);
        if from < earliest {
            return Err(Refused::Invalid(format!(
                "`from` must lie at least {} s ahead: what is decided already stays so. Leave it out for as soon as possible",
                LEAD_MS / 1000
            )));
        }
        if new.until <= from {
            return invalid("`until` must be after `from`");
        }
        let days_max = if new.what == Kind::Exempt { EXEMPT_DAYS_MAX } else { OTHER_DAYS_MAX };
        if new.until.0 - from.0 > days_max * DAY_MS {
            return Err(Refused::Invalid(format!("`until` must lie within {days_max} days of `from`")));
        }
        let one = NewOne { whom: new.scope, scope: &scope, what: new.what, from, until: Some(new.until) };
        let mut decided = self.new_one(&one, None, &word)?;
        match new.what {
            Kind::Exempt => {
                let factor = new.factor.unwrap_or(FACTOR_MAX);
                if !(factor > 1.0 && factor <= FACTOR_MAX) {
                    return Err(Refused::Invalid(format!("`factor` must be above 1, at most {FACTOR_MAX}")));
                }
                decided.factor = Some(factor);
            }
            Kind::Tolerate => {
                let decades = new.decades.unwrap_or(2.0);
                if !(decades > 0.0 && decades <= DECADES_MAX) {
                    return Err(Refused::Invalid(format!("`decades` must be above 0, at most {DECADES_MAX}")));
                }
                decided.decades = Some(decades);
            }
            Kind::Pin => match new.stratum.as_deref() {
                Some("established" | "bulk") => decided.stratum.clone_from(&new.stratum),
                _ => return invalid("`stratum` must be established or bulk"),
            },
            Kind::Close | Kind::Hijack => return invalid("an incident is closed by resolving it"),
        }
        let is_odd = [
            (new.factor.is_some(), new.what == Kind::Exempt, "factor"),
            (new.decades.is_some(), new.what == Kind::Tolerate, "decades"),
            (new.stratum.is_some(), new.what == Kind::Pin, "stratum"),
        ];
        if let Some((_, _, field)) = is_odd.into_iter().find(|(is, may, _)| *is && !may) {
            return Err(Refused::Invalid(format!("`{field}` does not go with {}", new.what.name())));
        }
        if new.scope == Whom::Network && new.what != Kind::Exempt {
            return invalid("a network can be exempt, nothing else");
        }
        if let Some(same) = self.same(&decided, new.from.is_some()) {
            // Asked twice, because the first answer did not come.
            return Ok(Done::of_nothing(serde_json::to_value(same).unwrap_or_default()));
        }
        self.room(&scope, 1)?;
        let control = vec![scope.key().into_owned()];
        let answer = serde_json::to_value(&decided).unwrap_or_default();
        Ok(Done { records: self.keep(decided), control, ..Done::of_nothing(answer) })
    }

    /// One that stands and says the same as `new`; of one that was to begin as soon as possible whenever it began.
    fn same(&self, new: &Decided, from_counts: bool) -> Option<&Decided> {
        let ids = self.by_key.get(&new.key()?)?;
        let says = |d: &Decided| {
            (d.what, d.factor, d.decades, d.stratum.clone(), d.until, d.by.clone(), d.note.clone(), d.incident.clone())
        };
        let is_same =
            |d: &&Decided| d.taken_back.is_none() && says(d) == says(new) && (!from_counts || d.from == new.from);
        ids.iter().filter_map(|id| self.decisions.get(id)).find(is_same)
    }

    fn new_one(&self, one: &NewOne<'_>, incident: Option<&str>, word: &Word) -> Result<Decided, Refused> {
        if self.decisions.len() >= DECISIONS_KEPT_MAX {
            return Err(Refused::Conflict(format!(
                "{DECISIONS_KEPT_MAX} decisions are kept already: take some back, or shorten desk.keep_days"
            )));
        }
        let n = self.next;
        let name = one.scope.name();
        let parts = [one.whom.name(), &name, one.what.name(), &word.at.0.to_string(), &n.to_string()];
        Ok(Decided {
            v: 1,
            n,
            id: notice::id('d', &parts),
            scope: one.whom,
            name: name.into_owned(),
            what: one.what,
            factor: None,
            decades: None,
            stratum: None,
            incident: incident.map(str::to_owned),
            from: one.from,
            until: one.until,
            by: word.by.clone(),
            note: word.note.clone(),
            made: word.at,
            taken_back: None,
        })
    }

    /// Whether the control record of this key can take so many more.
    fn room(&self, scope: &Scope, more: usize) -> Result<(), Refused> {
        if self.by_key.get(&*scope.key()).map_or(0, Vec::len) + more > DECISIONS_MAX {
            return Err(Refused::Conflict(format!(
                "{DECISIONS_MAX} decisions stand about it already, or ended lately: that is all a control record can hold"
            )));
        }
        Ok(())
    }

    /// Keeps a decision. Returns it, and the line of the audit.
    fn keep(&mut self, mut decided: Decided) -> Vec<Record> {
        decided.n = self.next;
        let word = Word { by: decided.by.clone(), at: decided.made, note: decided.note.clone() };
        let line = self.audit(&format!("decision.{}", decided.what.name()), decided.about(), &word);
        self.insert(decided.clone());
        vec![line, Record::Decision(Box::new(decided))]
    }

    /// Ids of what is tolerated of an account because of an incident.
    fn tolerated(&self, scope: &Scope, incident: &str) -> Vec<String> {
        let ids = self.by_key.get(&*scope.key()).into_iter().flatten();
        let is_meant = |d: &&Decided| d.what == Kind::Tolerate && d.incident.as_deref() == Some(incident);
        ids.filter_map(|id| self.decisions.get(id)).filter(is_meant).map(|d| d.id.clone()).collect()
    }

    /// Ends a decision as soon as every detector can know it. Returns the line of the audit, and the decision; `None` where it ends
    /// before, or was ended already.
    fn end(&mut self, id: &str, word: &Word) -> Option<[Record; 2]> {
        let decided = self.decisions.get_mut(id)?;
        let ends = Timestamp(word.at.0 + LEAD_MS);
        if decided.taken_back.is_some() || decided.until.is_some_and(|until| until <= ends) {
            return None;
        }
        // What was decided under it stays so; one that has not begun never does.
        decided.until = Some(ends.max(decided.from));
        decided.taken_back = Some(word.clone());
        let decided = decided.clone();
        let line = self.audit("decision.taken_back", decided.about(), word);
        Some([line, Record::Decision(Box::new(decided))])
    }

    fn take_back(&mut self, id: &str, word: Word) -> Result<Done, Refused> {
        let Some(decided) = self.decisions.get(id) else {
            return Err(Refused::Unknown("no such decision: /v1/decisions lists them".to_owned()));
        };
        if matches!(decided.what, Kind::Close | Kind::Hijack) {
            return Err(Refused::Conflict(
                "a closed incident stays closed; a further burst opens a new one".to_owned(),
            ));
        }
        let control = decided.key().into_iter().collect();
        let ended = self.end(id, &word);
        let answer = self.decisions.get(id).and_then(|d| serde_json::to_value(d).ok()).unwrap_or_default();
        Ok(match ended {
            Some(records) => Done { records: records.into(), control, ..Done::of_nothing(answer) },
            None => Done::of_nothing(answer),
        })
    }

    fn act(&mut self, new: NewAction, book: &mut Book, mut word: Word) -> Result<Done, Refused> {
        let name =
            |name: &Option<String>| name.as_ref().is_some_and(|n| !n.is_empty() && n.chars().count() <= TEXT_MAX);
        if new.action.is_of_relay() && !name(&new.relay) {
            return Err(Refused::Invalid("`relay` must name the relay".to_owned()));
        }
        if !new.action.is_of_relay() && !name(&new.account) {
            return Err(Refused::Invalid("`account` must say whom it was done to".to_owned()));
        }
        word.note = new.note;
        let account = new.account.map(|a| a.to_ascii_lowercase());
        let incident = match (&new.incident, &account) {
            (Some(id), _) => Some(known(book, id)?.id.clone()),
            (None, Some(account)) => book.newest_open(account).map(|i| i.id.clone()),
            (None, None) => None,
        };
        let at = new.at.unwrap_or(word.at);
        if at.0 > word.at.0 + DAY_MS {
            return Err(Refused::Conflict("`at` lies ahead".to_owned()));
        }
        let what = serde_json::to_value(new.action).ok();
        let what = format!("action.{}", what.as_ref().and_then(Value::as_str).unwrap_or_default());
        let mut told = About { account, relay: new.relay, ..About::default() };
        if let Some(known) = incident.as_ref().and_then(|id| book.incident(id)) {
            told = About { relay: told.relay, ..about(known) };
        }
        // Asked twice, because no answer came.
        if let Some(done) = new.at.and_then(|at| self.acts.find(&word.by, &what, &told, at)) {
            return Ok(Done::of_nothing(serde_json::to_value(done).unwrap_or_default()));
        }
        let mut records = Vec::new();
        if let Some(incident) = incident.and_then(|id| book.incident_mut(&id)) {
            let done = Acted { action: new.action, word: Word { at, ..word.clone() } };
            push(&mut incident.actions, done, "actions")?;
            incident.updated_ms = word.at.0;
            records.push(Record::Incident(Box::new(incident.clone())));
        }
        let mut line = self.audit(&what, told, &word);
        let mut answer = Value::Null;
        if let Record::Audit(entry) = &mut line {
            entry.done = new.at;
            self.acts.keep(entry);
            answer = serde_json::to_value(entry).unwrap_or_default();
        }
        records.push(line);
        Ok(Done { records, ..Done::of_nothing(answer) })
    }

    /// The control record of a key as it should be: what others wrote there (`foreign`), and what stands by the desk or ended
    /// lately. `None` where nothing is left to say.
    pub fn control(&self, key: &str, foreign: Option<&Decisions>, now_ms: i64) -> Option<Decisions> {
        let ids = self.by_key.get(key);
        let ours: Vec<&Decided> = ids.into_iter().flatten().filter_map(|id| self.decisions.get(id)).collect();
        let mut record = match foreign {
            Some(foreign) => Decisions { decisions: Vec::new(), ..foreign.clone() },
            None => Decisions::none(Scope::of_key(key)?),
        };
        let ends_ms = |d: &Decision| d.until.unwrap_or(d.from).0;
        // A hijack waits for the account's next event, however long that takes.
        let lasts = |d: &Decision| matches!(d.what, What::Hijack { .. }) || ends_ms(d) + STAYS_MS > now_ms;
        let is_theirs = |d: &&Decision| !d.id.as_ref().is_some_and(|id| id.starts_with("d-"));
        let theirs = foreign.iter().flat_map(|f| &f.decisions).filter(is_theirs).cloned();
        record.decisions.extend(theirs.chain(ours.iter().filter_map(|d| d.written())).filter(lasts));
        // Where there is no room, what has long been over goes first.
        let mut more = (record.decisions.len() + record.unknown.len()).saturating_sub(DECISIONS_MAX);
        let mut by_end: Vec<i64> = record.decisions.iter().map(ends_ms).collect();
        by_end.sort_unstable();
        if let Some(&last_gone_ms) = more.checked_sub(1).and_then(|n| by_end.get(n)) {
            record.decisions.retain(|d| {
                let goes = more > 0 && ends_ms(d) <= last_gone_ms;
                more -= usize::from(goes);
                !goes
            });
        }
        (!record.is_empty()).then_some(record)
    }

    /// Forgets what ended before `before_ms`, and lines of the audit that are older. Returns what must be written to the desk topic,
    /// and the keys of control records that have lost something.
    pub fn forget(&mut self, before_ms: i64, now_ms: i64) -> (Vec<Record>, Vec<String>) {
        let mut records = Vec::new();
        // The last line stays: whoever restores the ledger goes on behind its number, so that none comes twice.
        let is_old = |(n, at_ms): (&u64, &i64)| *at_ms < before_ms && *n + 1 < self.next;
        while self.audit.first_key_value().is_some_and(is_old) {
            let Some((n, _)) = self.audit.pop_first() else { break };
            records.push(Record::Gone(format!("{AUDIT}{n:020}")));
        }
        self.acts.forget(self.audit.first_key_value().map_or(self.next, |(n, _)| *n));
        let over_ms = before_ms.min(now_ms - STAYS_MS);
        let mut over: Vec<(u64, String)> = self
            .decisions
            .values()
            .filter(|d| d.until.unwrap_or(d.from).max(d.made).0 < over_ms)
            .map(|d| (d.n, d.id.clone()))
            .collect();
        over.sort_unstable();
        let mut keys = Vec::new();
        for (_, id) in over {
            keys.extend(self.remove(&id).and_then(|d| d.key()));
            records.push(Record::Gone(format!("{DECISION}{id}")));
        }
        keys.sort_unstable();
        keys.dedup();
        (records, keys)
    }
}

/// The beginnings of a decision.
#[derive(Clone, Copy)]
struct NewOne<'a> {
    whom: Whom,
    scope: &'a Scope,
    what: Kind,
    from: Timestamp,
    until: Option<Timestamp>,
}

impl Done {
    fn of(incident: &Incident, mut records: Vec<Record>) -> Self {
        records.push(Record::Incident(Box::new(incident.clone())));
        Self { records, ..Self::nothing(incident) }
    }

    /// It is so already.
    fn nothing(incident: &Incident) -> Self {
        Self::of_nothing(serde_json::to_value(incident).unwrap_or_default())
    }

    /// Nothing but an answer.
    pub(super) fn of_nothing(answer: Value) -> Self {
        Self { records: Vec::new(), control: Vec::new(), acknowledged: None, answer }
    }
}

impl Decided {
    /// The key of its control record.
    pub fn key(&self) -> Option<String> {
        Some(self.scope.scope(&self.name)?.key().into_owned())
    }

    fn about(&self) -> About {
        let (account, scope) = match self.scope {
            Whom::Account => (Some(self.name.clone()), None),
            scope => (None, Some(format!("{} {}", scope.name(), self.name))),
        };
        About { decision: Some(self.id.clone()), incident: self.incident.clone(), account, scope, ..About::default() }
    }

    /// As the control record has it; `None` where it never counts.
    pub fn written(&self) -> Option<Decision> {
        let incident = || self.incident.clone().unwrap_or_default();
        let what = match self.what {
            Kind::Exempt => What::Exempt { factor: self.factor.unwrap_or(FACTOR_MAX) },
            Kind::Tolerate => What::Tolerate { decades: self.decades? },
            Kind::Pin => What::Pin {
                stratum: if self.stratum.as_deref() == Some("bulk") { Stratum::Bulk } else { Stratum::Established },
            },
            Kind::Close => What::Close { incident: incident() },
            Kind::Hijack => What::Hijack { incident: incident() },
        };
        if self.until.is_some_and(|until| until <= self.from) {
            return None;
        }
        // Characters here, bytes there: a long one is cut, the desk has all of it.
        let fits = |(i, c): &(usize, char)| i + c.len_utf8() <= TEXT_MAX;
        let note = self.note.as_ref().map(|note| note.char_indices().take_while(fits).map(|(_, c)| c).collect());
        let (by, id) = (Some(self.by.clone()), Some(self.id.clone()));
        Some(Decision { what, from: self.from, until: self.until, by, note, id })
    }
}

fn known<'b>(book: &'b mut Book, id: &str) -> Result<&'b mut Incident, Refused> {
    let none = "no such incident: /v1/incidents lists them; one that has been over for desk.keep_days is forgotten";
    book.incident_mut(id).ok_or_else(|| Refused::Unknown(none.to_owned()))
}

fn about(incident: &Incident) -> About {
    About { incident: Some(incident.id.clone()), account: Some(incident.account.clone()), ..About::default() }
}

fn push<T>(list: &mut Vec<T>, new: T, what: &str) -> Result<(), Refused> {
    if list.len() >= WORDS_MAX {
        return Err(Refused::Conflict(format!("the incident has {WORDS_MAX} {what} already")));
    }
    list.push(new);
    Ok(())
}
