//! The decision at the desk: what alerts, burdens and people lead to, as records of the desk topic, lines of the audit, and notices.
//! Pure; the active desk holds one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::book::Book;
use super::feedback::ledger::Ledger;
use super::feedback::record::{About, Action as Act, Resolution, Word};
use super::feedback::wish::{MeasureWish, NewMeasure, Refused};
use super::notice::{self, AccountShare, Notice, NoticeKind, Reason};
use super::record::{HOLD, Incident, MEASURE, Record};
use crate::core::alert::{Action, Alert, AlertKind, Severity};
use crate::event::Timestamp;
use crate::relays::Settings;
use crate::relays::decide::{BY, Burden, BurstShare, Capped, Change, Decider, Flag, Hold, Outcome, Told};
use crate::relays::known;
use crate::relays::measure::{Kind, Measure, State};
use crate::relays::people::{self, ORDER_MAX_S, Order};

/// How often it is looked at relays and at what expires, in milliseconds.
const LOOK_MS: i64 = 1000;
/// Of this span a cap speaks, in seconds.
const CAP_S: u32 = 3600;

/// Where the burdens of relays come from: what they bore over the last `window_s`, as of now. Bursts of incidents that turned out
/// to be none need not be taken out.
pub trait Exposure: std::fmt::Debug + Send {
    /// One for each relay that bears anything; `None` for as long as it is not known.
    fn burdens(&mut self, window_s: u32, now_ms: i64) -> Option<Vec<Burden>>;

    /// The incidents whose bursts went on after that time, each with when they last did; both in milliseconds since 1970.
    fn active(&mut self, _since_ms: i64) -> Vec<(String, i64)> {
        Vec::new()
    }

    /// Stops that a policy service has served, each once: when, in milliseconds since 1970, by the measure's id.
    fn served(&mut self) -> BTreeMap<String, i64> {
        BTreeMap::new()
    }
}

/// No relay bears anything.
#[derive(Debug, Default)]
pub struct Unexposed;

impl Exposure for Unexposed {
    fn burdens(&mut self, _: u32, _: i64) -> Option<Vec<Burden>> {
        Some(Vec::new())
    }
}

/// What is to be written.
#[derive(Debug, Default)]
pub struct Written {
    /// To the desk topic.
    pub records: Vec<Record>,
    /// To the alerts topic.
    pub notices: Vec<Notice>,
    /// What is done by now, to be timed.
    pub timed: Vec<Timed>,
}

/// A moment of incidents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// `flagged`, `taken`, `stopped`, `stop_confirmed` or `pulled`.
    pub moment: &'static str,
    /// Whose.
    pub incidents: Vec<String>,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// The measures of the active desk.
#[derive(Debug)]
pub struct Measures {
    decider: Decider,
    settings: Settings,
    exposure: Box<dyn Exposure>,
    looked_ms: i64,
    /// Who says what is said.
    by: &'static str,
}

impl Measures {
    /// With nothing decided yet.
    pub fn new(settings: &Settings, exposure: Box<dyn Exposure>, by: &'static str) -> Self {
        Self { decider: Decider::new(settings), settings: settings.clone(), exposure, looked_ms: 0, by }
    }

    /// All measures, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Measure> {
        self.decider.measures()
    }

    /// Takes in what the topic has.
    pub fn restore(&mut self, record: &Record) {
        match record {
            Record::Measure(measure) => self.decider.restore((**measure).clone()),
            Record::Hold(hold) => self.decider.restore_hold(Some((**hold).clone())),
            Record::Gone(key) if key == HOLD => self.decider.restore_hold(None),
            Record::Gone(key) => {
                if let Some(id) = key.strip_prefix(MEASURE) {
                    self.decider.remove(id);
                }
            }
            _ => {}
        }
    }

    /// Takes an alert that the book has taken for the first time. That a burst is over ends nothing: the stop may have caused it.
    pub fn take(&mut self, alert: &Alert, book: &Book, ledger: &mut Ledger, now_ms: i64) -> Written {
        if alert.kind == AlertKind::Cleared {
            return Written::default();
        }
        // Its customer is the directory's, where that knows better.
        let Some(incident) = book.incident(&alert.incident) else { return Written::default() };
        let flag = Flag { severity: alert.severity, ..flag(incident, alert.ts, book) };
        let outcome = self.decider.flagged(&flag, now_ms);
        let mut written = self.written(outcome, ledger, now_ms);
        if alert.kind == AlertKind::Flagged {
            let timed = |moment, at_ms| Timed { moment, incidents: vec![alert.incident.clone()], at_ms };
            written.timed.extend([timed("flagged", alert.ts.0), timed("taken", now_ms)]);
        }
        written
    }

    /// Looks at the relays, and at what expires; not more often than each second.
    pub fn look(&mut self, book: &Book, ledger: &mut Ledger, now_ms: i64) -> Written {
        if (0..LOOK_MS).contains(&(now_ms - self.looked_ms)) {
            return Written::default();
        }
        self.looked_ms = now_ms;
        let served = self.exposure.served();
        let effective: Vec<Change> =
            served.iter().filter_map(|(id, at_ms)| self.decider.served(id, *at_ms, now_ms)).collect();
        let mut outcome = self.go_on(book, now_ms);
        let relays = match self.exposure.burdens(self.settings.pull.window_s, now_ms) {
            Some(mut burdens) => {
                for burden in &mut burdens {
                    burden.burst.retain_mut(|share| self.counts(share, book));
                }
                self.decider.tick(&burdens, book.is_anomaly_open(), now_ms)
            }
            None => Outcome { changes: self.decider.expire(now_ms), ..Outcome::default() },
        };
        outcome.changes.splice(0..0, effective);
        outcome.changes.extend(relays.changes);
        outcome.capped.extend(relays.capped);
        self.written(outcome, ledger, now_ms)
    }

    /// Decides about accounts whose flag came too late to act on, and whose burst goes on now.
    fn go_on(&mut self, book: &Book, now_ms: i64) -> Outcome {
        let mut outcome = Outcome::default();
        let since_ms = now_ms - i64::from(self.settings.act_within_s) * 1000;
        for (incident, at_ms) in self.exposure.active(since_ms) {
            let Some(incident) = book.incident(&incident).filter(|i| !is_acquitted(i)) else { continue };
            if self.decider.came_too_late(&incident.account, &incident.id) {
                let decided = self.decider.flagged(&flag(incident, Timestamp(at_ms.min(now_ms)), book), now_ms);
                outcome.changes.extend(decided.changes);
                outcome.capped.extend(decided.capped);
            }
        }
        outcome
    }

    /// Whether what an incident put on a relay counts against it. A warning alone does not: it stops nobody, and many are somebody's
    /// newsletter. Nor does what was flagged while the stream itself had changed, unless a person says that it was a hijack.
    fn counts(&self, share: &mut BurstShare, book: &Book) -> bool {
        let Some(incident) = book.incident(&share.incident).filter(|i| !is_acquitted(i)) else { return false };
        // As the directory has it.
        share.tenant.clone_from(&incident.tenant);
        let stop = self.decider.open(Kind::Stop, &incident.account);
        let is_stopped_by_person = || stop.is_some_and(|m| m.state == State::InForce && m.is_by_person());
        incident.resolved.is_some()
            || is_stopped_by_person()
            || (incident.anomaly.is_none() && (incident.severity == Severity::Critical || stop.is_some()))
    }

    /// Does what somebody wants. Returns what is to be written, and the answer.
    ///
    /// # Errors
    /// Where it cannot be done: then nothing has changed.
    pub fn grant(
        &mut self,
        wish: MeasureWish,
        who: &str,
        book: &Book,
        ledger: &mut Ledger,
        now_ms: i64,
    ) -> Result<(Written, Value), Refused> {
        let changes = match wish {
            MeasureWish::Confirm { id, rights, note } => {
                rights.may(self.decider.measure(&id).map(|m| m.kind))?;
                let change = self.decider.confirm(&id, who, now_ms)?;
                let answer = serde_json::to_value(&change.measure).unwrap_or_default();
                return Ok((self.confirmed(change, who, note, ledger, now_ms), answer));
            }
            MeasureWish::End { id, note, rights } => {
                rights.may(self.decider.measure(&id).map(|m| m.kind))?;
                let why = note.unwrap_or_else(|| "a person ended it".to_owned());
                match self.decider.finish(&id, who, &why, now_ms)? {
                    Some(change) => vec![change],
                    None => {
                        let same = self.decider.measure(&id).and_then(|m| serde_json::to_value(m).ok());
                        return Ok((Written::default(), same.unwrap_or_default()));
                    }
                }
            }
            MeasureWish::Order(new) => self.decider.order(&order(new, book)?, who, now_ms)?,
            MeasureWish::RestoreAll { hold_s, note } => {
                let until_ms = now_ms + i64::from(hold_s) * 1000;
                let hold = Hold { v: 1, until_ms, by: who.to_owned(), note: note.clone() };
                let changes = self.decider.restore_all(hold.clone(), now_ms);
                let restored = changes.len();
                let outcome = Outcome { changes, ..Outcome::default() };
                let mut written = self.written(outcome, ledger, now_ms);
                written.records.push(Record::Hold(Box::new(hold)));
                let word = Word { by: who.to_owned(), at: Timestamp(now_ms), note };
                written.records.push(ledger.audit("relays.restored", About::default(), &word));
                return Ok((written, json!({ "restored": restored, "held_until": Timestamp(until_ms) })));
            }
            MeasureWish::Lift { note } => {
                let mut written = Written::default();
                if self.decider.lift_hold() {
                    let word = Word { by: who.to_owned(), at: Timestamp(now_ms), note };
                    written.records.push(Record::Gone(HOLD.to_owned()));
                    written.records.push(ledger.audit("relays.hold_lifted", About::default(), &word));
                }
                return Ok((written, json!({ "restored": 0, "held_until": null })));
            }
        };
        let answer = changes.last().and_then(|c| serde_json::to_value(&c.measure).ok()).unwrap_or_default();
        Ok((self.written(Outcome { changes, ..Outcome::default() }, ledger, now_ms), answer))
    }

    /// What is to be written of a measure that somebody confirmed.
    fn confirmed(&self, change: Change, who: &str, note: Option<String>, ledger: &mut Ledger, now_ms: i64) -> Written {
        if change.told.is_none() {
            // It was in force before: that somebody stands behind it is news for hands in `confirm` alone.
            let what = format!("{}.confirmed", change.measure.kind.name());
            let line = ledger.audit(&what, about(&change.measure), &word(who, now_ms, note));
            let records = vec![line, Record::Measure(Box::new(change.measure))];
            return Written { records, ..Written::default() };
        }
        let mut written = self.written(Outcome { changes: vec![change], ..Outcome::default() }, ledger, now_ms);
        // What waited says why it was asked for; who confirms it has a reason of their own.
        if note.is_some() {
            for record in &mut written.records {
                if let Record::Audit(line) = record {
                    line.note.clone_from(&note);
                }
            }
        }
        written
    }

    /// The incident for which an account may not send now, where it is stopped for one.
    pub fn stopped_for(&self, account: &str) -> Option<&str> {
        let open = self.decider.open(Kind::Stop, account).filter(|m| m.state == State::InForce);
        open.map(|m| &*m.incident)
    }

    /// Takes what an outside system did.
    pub fn acted(&mut self, action: Act, subject: &str, who: &str, ledger: &mut Ledger, now_ms: i64) -> Written {
        let changes = match action {
            Act::AccountStopped => self.decider.stopped(subject, now_ms).into_iter().collect(),
            Act::AccountReleased => self.decider.released(subject, who, "it was released", now_ms),
            Act::PasswordChanged => self.decider.released(subject, who, "its password was changed", now_ms),
            Act::RelayRestored => self.decider.restored(subject, who, "it was put back", now_ms),
            Act::RelayPulled => self.decider.pulled(subject, who, now_ms),
        };
        self.written(Outcome { changes, ..Outcome::default() }, ledger, now_ms)
    }

    /// Takes how an incident was resolved: what was none is held against nobody.
    pub fn resolved(&mut self, incident: &Incident, who: &str, ledger: &mut Ledger, now_ms: i64) -> Written {
        if incident.resolved.as_ref().is_none_or(|r| r.kind == Resolution::Hijack) {
            return Written::default();
        }
        let changes = self.decider.acquitted(&incident.account, &incident.id, who, now_ms);
        self.written(Outcome { changes, ..Outcome::default() }, ledger, now_ms)
    }

    /// Forgets what ended before `before_ms`. Returns what must be written.
    pub fn forget(&mut self, before_ms: i64) -> Vec<Record> {
        self.decider.forget(before_ms).into_iter().map(|id| Record::Gone(format!("{MEASURE}{id}"))).collect()
    }

    fn written(&self, outcome: Outcome, ledger: &mut Ledger, now_ms: i64) -> Written {
        let mut written = Written::default();
        for change in outcome.changes {
            written.records.extend(audited(&change, ledger, now_ms));
            written.timed.extend(timed(&change, now_ms));
            written.notices.extend(change.told.map(|told| self.notice(&change.measure, told, now_ms)));
            if change.measure.kind == Kind::Throttle && change.measure.ended.is_some() {
                written.records.push(Record::Gone(known::key(&change.measure.id)));
            }
            written.records.push(Record::Measure(Box::new(change.measure)));
        }
        written.notices.extend(outcome.capped.iter().map(|capped| self.too_much(capped)));
        written
    }

    fn notice(&self, m: &Measure, told: Told, now_ms: i64) -> Notice {
        let is_pull = m.kind == Kind::Pull;
        let kind = match (is_pull, told) {
            (true, Told::Over) => NoticeKind::Restore,
            (true, _) => NoticeKind::Pull,
            (false, Told::Over) => NoticeKind::Released,
            (false, _) => NoticeKind::Stopped,
        };
        let recipients = m.accounts.iter().fold(0u64, |sum, a| sum.saturating_add(a.recipients));
        let (signal, window_s, limit) = match m.kind {
            Kind::Pull => ("exposure", self.settings.pull.window_s, f64::from(self.settings.pull.recipients)),
            Kind::Stop => ("stop", 0, 0.0),
            Kind::Throttle => ("throttle", 0, 0.0),
        };
        let (verb, back) = match m.kind {
            Kind::Pull => ("pulled", "put back"),
            Kind::Stop => ("stopped", "released"),
            Kind::Throttle => ("throttled", "not throttled any more"),
        };
        let who = |by: &str| if by == BY { String::new() } else { format!(" by {by}") };
        let text = match (told, &m.ended) {
            (Told::Over, Some(ended)) => format!("{} is {back}{}: {}", m.subject, who(&ended.by), ended.why),
            (Told::Asked, _) => {
                let command = if is_pull { "relays" } else { "accounts" };
                format!("{} is to be {verb}, a person must confirm (mailfuse {command} confirm): {}", m.subject, m.why)
            }
            _ => format!("{} is {verb}{}: {}", m.subject, who(m.confirmed_by.as_deref().unwrap_or(&m.by)), m.why),
        };
        let stage = match told {
            Told::Asked => "asked",
            Told::Done => "done",
            Told::Over => "over",
        };
        let of_account = AccountShare { account: m.subject.clone(), incident: m.incident.clone(), recipients: 0 };
        Notice {
            v: 1,
            id: notice::id('n', &["measure", &m.id, stage]),
            kind,
            ts: if told == Told::Over { Timestamp(now_ms) } else { m.ts },
            severity: if m.kind == Kind::Throttle { Severity::Warning } else { Severity::Critical },
            account: (!is_pull).then(|| m.subject.clone()),
            tenant: (!m.tenant.is_empty()).then(|| m.tenant.clone()),
            relay: is_pull.then(|| m.subject.clone()),
            incident: if is_pull { m.incident.clone() } else { m.id.clone() },
            campaign: None,
            accounts: if is_pull { m.accounts.clone() } else { vec![of_account] },
            evidence: vec![Reason {
                signal: signal.to_owned(),
                window_s,
                observed: recipients as f64,
                expected: 0.0,
                limit,
                weight: 0.0,
                text,
            }],
            relays: Vec::new(),
            action: match (told, m.kind) {
                (Told::Asked, Kind::Pull) => Action::PullRelay,
                (Told::Asked, Kind::Stop) => Action::SuspendAccount,
                (Told::Asked, Kind::Throttle) => Action::Throttle,
                (Told::Done | Told::Over, _) => Action::None,
            },
            by: self.by.to_owned(),
        }
    }

    /// One page says that there is too much, however much it is.
    fn too_much(&self, capped: &Capped) -> Notice {
        let id = notice::id('n', &["capped", &capped.what, &capped.hour.to_string()]);
        Notice {
            v: 1,
            id: id.clone(),
            kind: NoticeKind::Anomaly,
            ts: capped.ts,
            severity: Severity::Critical,
            account: None,
            tenant: None,
            relay: None,
            incident: id,
            campaign: None,
            accounts: Vec::new(),
            evidence: vec![Reason {
                signal: if ["stops", "measures"].contains(&&*capped.what) { &*capped.what } else { "pulls" }.to_owned(),
                window_s: CAP_S,
                observed: capped.observed as f64,
                expected: 0.0,
                limit: f64::from(capped.limit),
                weight: 0.0,
                text: capped.text.clone(),
            }],
            relays: Vec::new(),
            action: Action::None,
            by: self.by.to_owned(),
        }
    }
}

/// The flag of an incident, of something that happened at `ts`.
fn flag<'a>(incident: &'a Incident, ts: Timestamp, book: &Book) -> Flag<'a> {
    Flag {
        account: &incident.account,
        tenant: &incident.tenant,
        incident: &incident.id,
        severity: incident.severity,
        ts,
        is_doubtful: book.is_anomaly_open() || incident.anomaly.is_some(),
    }
}

/// Whether somebody said that an incident was none.
fn is_acquitted(incident: &Incident) -> bool {
    incident.resolved.as_ref().is_some_and(|r| r.kind != Resolution::Hijack)
}

/// What a change did, where it did something for the first time.
fn timed(change: &Change, now_ms: i64) -> Option<Timed> {
    let m = &change.measure;
    let moment = match m.kind {
        Kind::Pull if change.told == Some(Told::Done) => "pulled",
        Kind::Stop if change.told == Some(Told::Done) => "stopped",
        Kind::Stop if m.state == State::InForce && m.done_ms == Some(now_ms) => "stop_confirmed",
        _ => return None,
    };
    let incidents = match m.kind {
        Kind::Pull => m.accounts.iter().map(|share| share.incident.clone()).collect(),
        Kind::Stop | Kind::Throttle => vec![m.incident.clone()],
    };
    Some(Timed { moment, incidents, at_ms: now_ms })
}

/// The line of the audit; `None` for what is done to nobody, and for what only lasts longer.
fn audited(change: &Change, ledger: &mut Ledger, now_ms: i64) -> Option<Record> {
    let m = &change.measure;
    let is_news =
        m.made_ms == now_ms || m.since_ms == Some(now_ms) || m.ended.as_ref().is_some_and(|e| e.at_ms == now_ms);
    let was_asked_or_done =
        m.state != State::Shadow && (m.ended.is_none() || m.since_ms.is_none() || change.told.is_some());
    if !is_news || !was_asked_or_done {
        return None;
    }
    let (by, note) = match &m.ended {
        Some(ended) => (&ended.by, &ended.why),
        None => (m.confirmed_by.as_ref().unwrap_or(&m.by), &m.why),
    };
    let word = word(by, now_ms, Some(note.clone()));
    Some(ledger.audit(&format!("{}.{}", m.kind.name(), m.state.name()), about(m), &word))
}

fn about(m: &Measure) -> About {
    let (account, relay) = match m.kind {
        Kind::Pull => (None, Some(m.subject.clone())),
        Kind::Stop | Kind::Throttle => (Some(m.subject.clone()), None),
    };
    About { incident: Some(m.incident.clone()), account, relay, measure: Some(m.id.clone()), ..About::default() }
}

fn word(by: &str, now_ms: i64, note: Option<String>) -> Word {
    Word { by: by.to_owned(), at: Timestamp(now_ms), note }
}

fn order(new: NewMeasure, book: &Book) -> Result<Order, Refused> {
    let invalid = |what: String| Err(Refused::Invalid(what));
    if new.note.trim().is_empty() {
        return invalid("the note is empty: whoever reads it later needs the reason".to_owned());
    }
    if new.subject.is_empty() || new.subject.chars().count() > crate::core::decision::TEXT_MAX {
        return invalid("`subject` must name an account or a relay".to_owned());
    }
    if new.for_s.is_some_and(|s| !(60..=ORDER_MAX_S).contains(&s)) {
        return invalid(format!("`for_s` must lie between 60 and {ORDER_MAX_S}"));
    }
    let is_account = new.kind != Kind::Pull;
    let subject = if is_account { new.subject.to_ascii_lowercase() } else { new.subject };
    let incident = if is_account { book.newest_open(&subject) } else { None };
    let domain = || subject.rsplit_once('@').map_or(&*subject, |(_, domain)| domain).to_owned();
    Ok(Order {
        kind: new.kind,
        tenant: incident.map_or_else(domain, |i| i.tenant.clone()),
        incident: incident.map(|i| i.id.clone()).unwrap_or_default(),
        for_s: new.for_s.unwrap_or(0),
        note: new.note,
        subject,
    })
}

impl From<people::Refused> for Refused {
    fn from(refused: people::Refused) -> Self {
        match refused {
            people::Refused::Unknown(text) => Self::Unknown(text),
            people::Refused::Conflict(text) => Self::Conflict(text),
        }
    }
}
