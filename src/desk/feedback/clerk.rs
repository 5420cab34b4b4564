//! The clerk of the active desk: takes what people want, and tells them when it is stored.

use std::time::Instant;

use crossbeam_channel::Sender;
use serde_json::{Value, json};

use super::foreign::Foreign;
use super::ledger::{Done, Ledger, WRITTEN_WITHIN_MS};
use super::record::{About, Word};
use super::wish::{Refused, Wish};
use crate::desk::book::Book;
use crate::desk::deliver::Deliveries;
use crate::desk::record::Record;
use crate::desk::shared::Command;
use crate::event::Timestamp;
use crate::kafka::outlet;
use crate::kafka::restore::{Error, Reader};

/// A record of the control topic: its key, and its value; `None` is a tombstone.
pub(in crate::desk) type Control = (String, Option<Vec<u8>>);

/// What people want, until it is stored.
#[derive(Debug, Default)]
pub(in crate::desk) struct Clerk {
    ledger: Ledger,
    /// What stands in the control topic, read when something is to be written there.
    foreign: Foreign,
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
    }

    /// Whether somebody waits for the next transaction.
    pub(in crate::desk) fn has_news(&self) -> bool {
        !self.replies.is_empty() || !self.keys.is_empty()
    }

    /// Does what somebody wants. Returns what must be written; whoever asked is told afterwards, or at once that it was refused.
    pub(in crate::desk) fn grant(
        &mut self,
        command: Command,
        book: &mut Book,
        deliveries: &mut Deliveries,
        now_ms: i64,
    ) -> Vec<Record> {
        let Command { wish, who, until, reply } = command;
        if Instant::now() >= until {
            // Left over from when another desk was active, or the brokers were away.
            return Vec::new();
        }
        let done = match wish {
            Wish::Enable { .. } | Wish::Resend { .. } => self.deliver(wish, &who, deliveries, now_ms),
            wish => self.ledger.take(wish, &who, book, now_ms),
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
                done.records
            }
            Err(refused) => {
                // Whoever asked may have gone.
                let _ = reply.send(Err(refused));
                Vec::new()
            }
        }
    }

    fn deliver(&mut self, wish: Wish, who: &str, deliveries: &mut Deliveries, now_ms: i64) -> Result<Done, Refused> {
        let (records, what, about) = match wish {
            Wish::Enable { endpoint } => {
                let none = || Refused::Unknown("no such endpoint: /v1/endpoints lists them".to_owned());
                let records = deliveries.enable(&endpoint, now_ms).ok_or_else(none)?;
                (records, "endpoint.enabled", About { endpoint: Some(endpoint), ..About::default() })
            }
            Wish::Resend { message } => {
                let (endpoint, id) = (message.delivery.endpoint.clone(), message.delivery.id.clone());
                let busy = "it is being sent, or its endpoint is not configured any more: /v1/endpoints and /v1/deliveries \
                            say which";
                let records = deliveries.resend(*message, now_ms).ok_or_else(|| Refused::Conflict(busy.to_owned()))?;
                let about = About { endpoint: Some(endpoint), message: Some(id), ..About::default() };
                (records, "delivery.resent", about)
            }
            _ => return Err(Refused::Invalid("that is not about deliveries".to_owned())),
        };
        let word = Word { by: who.to_owned(), at: Timestamp(now_ms), note: None };
        let mut done = Done { records, ..Done::of_nothing(json!({ "status": "accepted" })) };
        done.records.push(self.ledger.audit(what, about, &word));
        Ok(done)
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
            let record = self.ledger.control(key, self.foreign.of(key), now_ms);
            Ok((key.clone(), record.map(|r| serde_json::to_vec(&r)).transpose()?))
        };
        self.keys.iter().map(value).collect()
    }

    /// Everything is stored: whoever waits for it is told.
    pub(in crate::desk) fn stored(&mut self, now_ms: i64) {
        self.keys.clear();
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
        let (records, keys) = self.ledger.forget(before_ms, now_ms);
        self.keys.extend(keys);
        records
    }
}
