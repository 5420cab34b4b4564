//! The clerk of the active desk: takes what people want, and tells them when it is stored.

use std::collections::HashMap;
use std::time::Instant;

use crossbeam_channel::Sender;
use serde_json::{Value, json};

use super::foreign::Foreign;
use super::ledger::{Done, Ledger, WRITTEN_WITHIN_MS};
use super::record::{About, Action, Word};
use super::wish::{Asked, NOTE_MAX, Refused, Wish};
use crate::core::decision::{DECISIONS_MAX, Decision, Decisions, What};
use crate::core::scope::Scope;
use crate::desk::book::Book;
use crate::desk::deliver::Deliveries;
use crate::desk::heirs::Found;
use crate::desk::measures::{Measures, Written};
use crate::desk::policies;
use crate::desk::record::Record;
use crate::desk::renames::{Renamed, Renames};
use crate::desk::shared::Command;
use crate::directory::Directory;
use crate::event::Timestamp;
use crate::kafka::outlet;
use crate::kafka::restore::{Error, Reader};

/// Who says what follows from the directory.
const DIRECTORY: &str = policies::BY;
/// Decisions that the directory makes at a time.
const POLICIES_MAX: usize = 50;

/// A record of the control topic: its key, and its value; `None` is a tombstone.
pub(in crate::desk) type Control = (String, Option<Vec<u8>>);

/// What people want, until it is stored.
#[derive(Debug, Default)]
pub(in crate::desk) struct Clerk {
    ledger: Ledger,
    /// What stands in the control topic, read when something is to be written there.
    foreign: Foreign,
    renames: Renames,
    /// What renamed accounts inherit by the next transaction, by the key of their control record.
    inherited: HashMap<String, Decision>,
    /// Keys of control records that the next transaction writes anew.
    keys: Vec<String>,
    /// When the first of them was decided, in milliseconds since 1970.
    decided_ms: Option<i64>,
    /// Who is told what, once the next transaction is stored.
    replies: Vec<(Sender<Result<Value, Refused>>, Value)>,
}

/// Why the control records cannot be written.
#[derive(Debug, thiserror::Error)]
pub(in crate::desk) enum NoControl {
    /// What stands there cannot be read.
    #[error(transparent)]
    Read(#[from] Error),
    /// The time is over in which every detector would have known it.
    #[error("it took too long; nothing was done")]
    Late,
    /// A defect.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl Clerk {
    /// Takes in what the topic has.
    pub(in crate::desk) fn restore(&mut self, record: &Record) {
        self.ledger.restore(record);
        self.renames.restore(record);
    }

    /// Whether somebody waits for the next transaction.
    pub(in crate::desk) fn has_news(&self) -> bool {
        !self.replies.is_empty() || !self.keys.is_empty()
    }

    /// The ledger, for lines of the audit about what is decided without people.
    pub(in crate::desk) fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    /// Does what somebody wants. Returns what must be written; whoever asked is told afterwards, or at once that it was refused.
    pub(in crate::desk) fn grant(
        &mut self,
        command: Command,
        book: &mut Book,
        deliveries: &mut Deliveries,
        measures: &mut Measures,
        now_ms: i64,
    ) -> Written {
        let Command { wish, who, until, reply } = command;
        if Instant::now() >= until {
            // Left over from when another desk was active, or the brokers were away.
            return Written::default();
        }
        let mut written = Written::default();
        let done = match wish {
            Wish::Rename(_) if wish.note().is_some_and(|note| note.chars().count() > NOTE_MAX) => {
                Err(Refused::Invalid(format!("the note has more than {NOTE_MAX} characters")))
            }
            Wish::Rename(new) => {
                self.rename(&new.from, &new.to, Word { by: who.to_string(), at: Timestamp(now_ms), note: new.note })
            }
            Wish::Enable { .. } | Wish::Resend { .. } => self.deliver(wish, &who, deliveries, now_ms),
            Wish::Measure(_) => self.measure(wish, &who, book, measures, &mut written, now_ms),
            wish => self.say(wish, &who, book, measures, &mut written, now_ms),
        };
        match done {
            Ok(mut done) => {
                if let Some(incident) = done.acknowledged.and_then(|id| book.incident(&id))
                    && let Some(word) = &incident.acknowledged
                {
                    done.records.extend(deliveries.acknowledged(incident, word, now_ms));
                }
                if !done.control.is_empty() {
                    self.decided_ms.get_or_insert(now_ms);
                }
                self.keys.extend(done.control);
                self.replies.push((reply, done.answer));
                written.records.splice(0..0, done.records);
            }
            Err(refused) => {
                // Whoever asked may have gone.
                let _ = reply.send(Err(refused));
            }
        }
        written
    }

    fn measure(
        &mut self,
        wish: Wish,
        who: &str,
        book: &Book,
        measures: &mut Measures,
        written: &mut Written,
        now_ms: i64,
    ) -> Result<Done, Refused> {
        wish.check()?;
        let Wish::Measure(wish) = wish else { return Err(Refused::Invalid("that is no measure".to_owned())) };
        let (done, answer) = measures.grant(wish, who, book, &mut self.ledger, now_ms)?;
        *written = done;
        Ok(Done::of_nothing(answer))
    }

    /// Takes people's word, and what follows from it for accounts that are stopped and relays that are pulled.
    fn say(
        &mut self,
        wish: Wish,
        who: &str,
        book: &mut Book,
        measures: &mut Measures,
        written: &mut Written,
        now_ms: i64,
    ) -> Result<Done, Refused> {
        let resolved = match &wish {
            Wish::Resolve { incident, .. } => Some(incident.clone()),
            _ => None,
        };
        let acted = match &wish {
            Wish::Act(new) if new.action.is_of_relay() => new.relay.clone().map(|r| (new.action, r)),
            Wish::Act(new) => new.account.as_ref().map(|a| (new.action, a.to_ascii_lowercase())),
            _ => None,
        };
        let mut done = self.ledger.take(wish, who, book, now_ms)?;
        if let Some(incident) = resolved.and_then(|id| book.incident(&id)) {
            *written = measures.resolved(incident, who, &mut self.ledger, now_ms);
        }
        if let Some((action, subject)) = acted {
            let stopped_for = measures.stopped_for(&subject).map(str::to_owned);
            *written = measures.acted(action, &subject, who, &mut self.ledger, now_ms);
            // A new password says that somebody else had the old one: what the burst taught is taken out.
            let unresolved = stopped_for
                .filter(|_| action == Action::PasswordChanged)
                .filter(|id| book.incident(id).is_some_and(|i| i.resolved.is_none()));
            if let Some(incident) = unresolved {
                let note = Some("the password was changed".to_owned());
                let hijack = Wish::Resolve { incident, resolution: Asked::Hijack, note };
                // What cannot be resolved stays open; the account is released all the same.
                if let Ok(also) = self.ledger.take(hijack, who, book, now_ms) {
                    done.records.extend(also.records);
                    done.control.extend(also.control);
                }
            }
        }
        Ok(done)
    }

    fn deliver(&mut self, wish: Wish, who: &str, deliveries: &mut Deliveries, now_ms: i64) -> Result<Done, Refused> {
        wish.check()?;
        let note = wish.note().map(str::to_owned);
        let (records, what, about) = match wish {
            Wish::Enable { endpoint, .. } => {
                let none = || Refused::Unknown("no such endpoint: /v1/endpoints lists them".to_owned());
                let records = deliveries.enable(&endpoint, now_ms).ok_or_else(none)?;
                (records, "endpoint.enabled", About { endpoint: Some(endpoint), ..About::default() })
            }
            Wish::Resend { message, .. } => {
                let (endpoint, id) = (message.delivery.endpoint.clone(), message.delivery.id.clone());
                let busy = "it is being sent, or its endpoint is not configured any more: /v1/endpoints and /v1/deliveries \
                            say which";
                let records = deliveries.resend(*message, now_ms).ok_or_else(|| Refused::Conflict(busy.to_owned()))?;
                let about = About { endpoint: Some(endpoint), message: Some(id), ..About::default() };
                (records, "delivery.resent", about)
            }
            _ => return Err(Refused::Invalid("that is not about deliveries".to_owned())),
        };
        let word = Word { by: who.to_owned(), at: Timestamp(now_ms), note };
        let mut done = Done { records, ..Done::of_nothing(json!({ "status": "accepted" })) };
        done.records.push(self.ledger.audit(what, about, &word));
        Ok(done)
    }

    fn rename(&mut self, from: &str, to: &str, word: Word) -> Result<Done, Refused> {
        let (renamed, is_new) = self.renames.ask(from, to, word)?;
        let mut done = Done::of_nothing(serde_json::to_value(&renamed).unwrap_or_default());
        if is_new {
            done.records.push(self.audit("account.renamed", &renamed, renamed.word.clone()));
            done.records.push(Record::Renamed(Box::new(renamed)));
        }
        Ok(done)
    }

    fn audit(&mut self, what: &str, renamed: &Renamed, word: Word) -> Record {
        let about =
            About { account: Some(renamed.to.clone()), account_before: Some(renamed.from.clone()), ..About::default() };
        self.ledger.audit(what, about, &word)
    }

    /// Decides what the directory says of whole customers, some at a time. Returns what must be written.
    pub(in crate::desk) fn follow_policies(
        &mut self,
        directory: &Directory,
        book: &mut Book,
        now_ms: i64,
    ) -> Vec<Record> {
        let differences = policies::differences(directory, self.ledger.decided(), now_ms);
        let over = differences.over.into_iter().map(|decision| {
            let note = Some("the directory does not say so any more".to_owned());
            Wish::TakeBack { decision, note }
        });
        let mut records = Vec::new();
        for wish in over.chain(differences.new.into_iter().map(Wish::Decide)).take(POLICIES_MAX) {
            match self.ledger.take(wish, DIRECTORY, book, now_ms) {
                Ok(done) => {
                    if !done.control.is_empty() {
                        self.decided_ms.get_or_insert(now_ms);
                    }
                    self.keys.extend(done.control);
                    records.extend(done.records);
                }
                Err(e) => {
                    tracing::warn!("what the directory says of a customer is not decided, and tried again: {e}");
                    break;
                }
            }
        }
        records
    }

    /// Takes renames that the directory knows, by old and new name. Returns what must be written.
    pub(in crate::desk) fn follow<'n>(
        &mut self,
        renames: impl Iterator<Item = (&'n str, &'n str)>,
        now_ms: i64,
    ) -> Vec<Record> {
        let mut records = Vec::new();
        for (from, to) in renames {
            if self.renames.knows(from, to) {
                continue;
            }
            match self.rename(from, to, Word { by: DIRECTORY.to_owned(), at: Timestamp(now_ms), note: None }) {
                Ok(done) => records.extend(done.records),
                Err(e) => tracing::warn!(account = to, account_before = from, "not renamed as the directory says: {e}"),
            }
        }
        records
    }

    /// Accounts of which it must be known what they had learned.
    pub(in crate::desk) fn sought(&self) -> Vec<String> {
        self.renames.waiting()
    }

    /// Takes what accounts had learned. Returns what must be written.
    pub(in crate::desk) fn found(&mut self, found: &Found, now_ms: i64) -> Vec<Record> {
        let mut records = Vec::new();
        for (from, learned) in found {
            for (renamed, decision) in self.renames.found(from, learned.as_ref(), now_ms) {
                let what = if decision.is_some() { "account.inherited" } else { "account.inherited_nothing" };
                let word = Word { by: renamed.word.by.clone(), at: Timestamp(now_ms), note: None };
                records.push(self.audit(what, &renamed, word));
                if let Some(decision) = decision {
                    self.decided_ms.get_or_insert(now_ms);
                    self.keys.push(renamed.to.clone());
                    self.inherited.insert(renamed.to.clone(), decision);
                }
                records.push(Record::Renamed(Box::new(renamed)));
            }
        }
        records
    }

    /// Reads what stands in the control topic, so that it is only to be read on later.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(in crate::desk) fn look(
        &mut self,
        reader: &Reader,
        topic: &str,
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), Error> {
        self.foreign.read(reader, topic, wanted)
    }

    /// The control records that the transaction has to write: what others wrote under these keys stays.
    ///
    /// # Errors
    /// Where it cannot be known what others wrote, or not in time.
    pub(in crate::desk) fn control(
        &mut self,
        reader: &Reader,
        topic: &str,
        wanted: &dyn Fn() -> bool,
        now_ms: i64,
    ) -> Result<Vec<Control>, NoControl> {
        if self.keys.is_empty() {
            return Ok(Vec::new());
        }
        self.foreign.read(reader, topic, wanted)?;
        if self.decided_ms.is_some_and(|decided_ms| outlet::now_ms() - decided_ms > WRITTEN_WITHIN_MS / 2) {
            return Err(NoControl::Late);
        }
        self.keys.sort_unstable();
        self.keys.dedup();
        let value = |key: &String| {
            let mut record = self.ledger.control(key, self.foreign.of(key), now_ms);
            if let (Some(decision), Some(scope)) = (self.inherited.get(key), Scope::of_key(key)) {
                let record = record.get_or_insert_with(|| Decisions::none(scope));
                // One is enough, and all that a record has room for.
                record.decisions.retain(|d| !matches!(d.what, What::Inherit { .. }));
                record.decisions.truncate(DECISIONS_MAX.saturating_sub(record.unknown.len() + 1));
                record.decisions.push(decision.clone());
            }
            Ok((key.clone(), record.map(|r| serde_json::to_vec(&r)).transpose()?))
        };
        self.keys.iter().map(value).collect()
    }

    /// Everything is stored: whoever waits for it is told.
    pub(in crate::desk) fn stored(&mut self, now_ms: i64) {
        self.keys.clear();
        self.inherited.clear();
        if self.decided_ms.take().is_some_and(|decided_ms| now_ms - decided_ms > WRITTEN_WITHIN_MS) {
            tracing::error!(
                "the brokers took more than {} s to store a decision: detectors may have read events before it that it is \
                 about, and a replay would judge them otherwise",
                WRITTEN_WITHIN_MS / 1000
            );
        }
        for (reply, answer) in self.replies.drain(..) {
            let _ = reply.send(Ok(answer));
        }
    }

    /// Forgets what is over since before `before_ms`. Returns what must be written.
    pub(in crate::desk) fn forget(&mut self, before_ms: i64, now_ms: i64) -> Vec<Record> {
        let (mut records, keys) = self.ledger.forget(before_ms, now_ms);
        self.keys.extend(keys);
        let (renames, keys) = self.renames.forget(now_ms);
        records.extend(renames);
        self.keys.extend(keys);
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::feedback::wish::{MeasureWish, NewMeasure, Rights};
    use crate::desk::measures::Unexposed;
    use crate::desk::webhook::settings::Endpoint;
    use crate::relays;
    use crate::relays::measure::{Kind, Measure, State};

    const NOW_MS: i64 = 1_790_000_000_000;

    struct Desk {
        clerk: Clerk,
        book: Book,
        deliveries: Deliveries,
        measures: Measures,
    }

    impl Desk {
        fn new() -> Self {
            let endpoint = Endpoint { name: "abuse".to_owned(), ..Endpoint::default() };
            Self {
                clerk: Clerk::default(),
                book: Book::default(),
                deliveries: Deliveries::new(&[endpoint], ""),
                measures: Measures::new(&relays::Settings::default(), Box::<Unexposed>::default(), "test"),
            }
        }

        /// What is to be written when ann says so.
        fn grant(&mut self, wish: Wish) -> Vec<Record> {
            let (reply, _answer) = crossbeam_channel::bounded(1);
            let until = Instant::now() + std::time::Duration::from_secs(3600);
            let command = Command { wish, who: "ann".into(), until, reply };
            self.clerk.grant(command, &mut self.book, &mut self.deliveries, &mut self.measures, NOW_MS).records
        }
    }

    /// Who, what and why, as the audit has it.
    fn audit(records: &[Record]) -> Vec<(&str, &str, Option<&str>)> {
        let mut lines = Vec::new();
        for record in records {
            if let Record::Audit(line) = record {
                lines.push((&*line.who, &*line.what, line.note.as_deref()));
            }
        }
        lines
    }

    #[test]
    fn the_audit_has_why_an_endpoint_was_enabled_and_a_measure_confirmed() {
        let mut desk = Desk::new();
        let enable = |note: Option<&str>| Wish::Enable { endpoint: "abuse".to_owned(), note: note.map(str::to_owned) };
        assert_eq!(audit(&desk.grant(enable(None))), [("ann", "endpoint.enabled", None)]);
        let written = desk.grant(enable(Some("it was moved")));
        assert_eq!(audit(&written), [("ann", "endpoint.enabled", Some("it was moved"))]);
        assert_eq!(audit(&desk.grant(enable(Some(&"x".repeat(NOTE_MAX + 1))))), [], "it is too long");

        let order = NewMeasure {
            kind: Kind::Stop,
            subject: "a@b.example".to_owned(),
            for_s: None,
            note: "why it was asked for".to_owned(),
        };
        let written = desk.grant(Wish::Measure(MeasureWish::Order(order)));
        let made = written.iter().find_map(|r| if let Record::Measure(m) = r { Some((**m).clone()) } else { None });
        let asked = Measure { state: State::Asked, since_ms: None, by: "desk".to_owned(), ..made.unwrap() };
        for (note, expected) in [(None, "why it was asked for"), (Some("by telephone"), "by telephone")] {
            let mut desk = Desk::new();
            desk.measures.restore(&Record::Measure(Box::new(asked.clone())));
            let rights = Rights { accounts: true, relays: false };
            let confirm = MeasureWish::Confirm { id: asked.id.clone(), note: note.map(str::to_owned), rights };
            let written = desk.grant(Wish::Measure(confirm));
            assert_eq!(audit(&written), [("ann", "stop.in_force", Some(expected))]);
        }
    }
}
