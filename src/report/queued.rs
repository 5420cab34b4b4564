//! The queue ids of what an account has sent, for `postsuper -h -` and `exim -Mf`.
//!
//! A message has an id in the queue of the account's first host, and another on each relay that has tried to deliver it. An id is
//! left out once nothing is known to wait under it: on the first host when each recipient has had a final answer, or a relay has
//! answered for it (then the message is there); on a relay while no recipient's last answer there was a deferral. A relay that
//! has not answered yet is not known to have the message: the message is listed under its first id until then.

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};

use hashbrown::{HashMap, HashSet};
use serde::Serialize;
use siphasher::sip::SipHasher24;

use crate::event::{Event, Kind, Outcome, Send, Status, Timestamp};

/// Messages of one burst that are kept.
const MESSAGES_MAX: usize = 200_000;
/// Recipients, of all messages together, whose answers are kept.
const ANSWERS_MAX: usize = 2_000_000;
/// Relays on which one message is known.
const RELAYS_MAX: usize = 16;
/// No queue id is longer: Exim's have 23 bytes, Postfix's at most some twenty.
const ID_BYTES_MAX: usize = 64;

/// Follows one account's messages. Feed it the account's events in their order, from the burst's first one on.
#[derive(Debug)]
pub struct Queued {
    from: Timestamp,
    to: Option<Timestamp>,
    messages: Vec<Message>,
    by_queue_id: HashMap<Box<str>, usize>,
    answers: usize,
    counts: Counts,
}

/// Messages, by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Messages of the burst's time.
    pub messages: u64,
    /// Of these: nothing of them waits, as far as is known.
    pub done: u64,
    /// Their events name no queue id.
    pub without_id: u64,
    /// What stands for a queue id is none that could be given to a command.
    pub unusable: u64,
    /// Beyond what is kept.
    pub not_kept: u64,
}

/// One id in one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueId {
    /// As the host's queue has it.
    pub id: String,
    /// Whose queue; `None` where no event says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// When the account sent the message.
    pub sent: Timestamp,
}

#[derive(Debug)]
struct Message {
    sent: Timestamp,
    queue_id: Box<str>,
    host: Option<Box<str>>,
    recipients: u64,
    /// Recipients for whom nothing waits on the first host.
    gone: HashSet<u64>,
    /// By relay and its queue id, the recipients that wait there.
    relays: BTreeMap<(Box<str>, Box<str>), HashSet<u64>>,
}

impl Queued {
    /// For a burst that began at `from` and, where that is known, was over at `to`.
    pub fn new(from: Timestamp, to: Option<Timestamp>) -> Self {
        Self { from, to, messages: Vec::new(), by_queue_id: HashMap::new(), answers: 0, counts: Counts::default() }
    }

    /// Takes one event of the account.
    pub fn event(&mut self, event: &Event<'_>) {
        match &event.kind {
            Kind::Send(s) if event.ts >= self.from && self.to.is_none_or(|to| event.ts <= to) => self.send(event.ts, s),
            // The id is another message's now.
            Kind::Send(s) => _ = s.queue_id.as_deref().and_then(|id| self.by_queue_id.remove(id)),
            Kind::Outcome(o) => self.outcome(o),
            Kind::Complaint(_) | Kind::Auth(_) => {}
        }
    }

    fn send(&mut self, sent: Timestamp, s: &Send<'_>) {
        let Some(queue_id) = s.queue_id.as_deref() else {
            self.counts.messages += 1;
            self.counts.without_id += 1;
            return;
        };
        let known = self.by_queue_id.get(queue_id).and_then(|at| self.messages.get(*at));
        // A repeat of the event says nothing new.
        if known.is_some_and(|m| m.sent == sent) {
            return;
        }
        self.counts.messages += 1;
        if !is_usable(queue_id) {
            self.counts.unusable += 1;
            return;
        }
        if self.messages.len() >= MESSAGES_MAX {
            self.counts.not_kept += 1;
            return;
        }
        self.by_queue_id.insert(queue_id.into(), self.messages.len());
        self.messages.push(Message {
            sent,
            queue_id: queue_id.into(),
            host: s.host.as_deref().map(Box::from),
            recipients: s.rcpts.count.max(s.rcpts.named.len() as u64),
            gone: HashSet::new(),
            relays: BTreeMap::new(),
        });
    }

    fn outcome(&mut self, o: &Outcome<'_>) {
        let at = o.queue_id.as_deref().and_then(|id| self.by_queue_id.get(id));
        let Some(message) = at.and_then(|at| self.messages.get_mut(*at)) else { return };
        // What is not kept counts as waiting.
        if self.answers >= ANSWERS_MAX {
            return;
        }
        let mut hasher = SipHasher24::new();
        o.rcpt.hash(&mut hasher);
        let rcpt = hasher.finish();
        let waits = o.status == Status::Deferred;
        let Some(relay_queue_id) = o.relay_queue_id.as_deref().filter(|id| *id != &*message.queue_id) else {
            if message.host.is_none() {
                message.host = o.relay.as_deref().map(Box::from);
            }
            if waits {
                self.answers -= usize::from(message.gone.remove(&rcpt));
            } else {
                self.answers += usize::from(message.gone.insert(rcpt));
            }
            return;
        };
        self.answers += usize::from(message.gone.insert(rcpt));
        let relay: Box<str> = o.relay.as_deref().unwrap_or_default().into();
        let key = (relay, relay_queue_id.into());
        if !message.relays.contains_key(&key) && (message.relays.len() >= RELAYS_MAX || !is_usable(relay_queue_id)) {
            return;
        }
        let waiting = message.relays.entry(key).or_default();
        if waits {
            self.answers += usize::from(waiting.insert(rcpt));
        } else {
            self.answers -= usize::from(waiting.remove(&rcpt));
        }
    }

    /// What waits, as far as is known, in the order of the sends; and what became of the messages.
    pub fn finish(self) -> (Vec<QueueId>, Counts) {
        let mut counts = self.counts;
        let mut ids = Vec::new();
        for message in self.messages {
            let before = ids.len();
            if (message.gone.len() as u64) < message.recipients {
                let host = message.host.map(String::from);
                ids.push(QueueId { id: message.queue_id.into(), host, sent: message.sent });
            }
            for ((relay, id), waiting) in message.relays {
                if !waiting.is_empty() {
                    let host = Some(String::from(relay)).filter(|r| !r.is_empty());
                    ids.push(QueueId { id: id.into(), host, sent: message.sent });
                }
            }
            counts.done += u64::from(ids.len() == before);
        }
        (ids, counts)
    }
}

/// Whether a command may be given it: letters, digits and dashes, as Postfix and Exim have them. Events come from elsewhere, and
/// `ALL` is every message to `postsuper`.
fn is_usable(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(plain)
        && id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && !id.eq_ignore_ascii_case("all")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Recipients;

    fn send(ts: i64, id: &str, host: &str, recipients: u64) -> Event<'static> {
        let send = Send {
            queue_id: (!id.is_empty()).then(|| id.to_owned().into()),
            host: (!host.is_empty()).then(|| host.to_owned().into()),
            rcpts: Recipients { named: Vec::new(), count: recipients },
            ..Send::default()
        };
        event(ts, Kind::Send(send))
    }

    fn event(ts: i64, kind: Kind<'static>) -> Event<'static> {
        Event { ts: Timestamp(ts), account: Some("ann@x.example".into()), id: None, tenant: None, kind }
    }

    /// `at`: the relay, or with its own id `relay/ID`.
    fn outcome(ts: i64, id: &str, at: &str, rcpt: &str, status: Status) -> Event<'static> {
        let (relay, own) = at.split_once('/').map_or((at, None), |(relay, own)| (relay, Some(own)));
        let outcome = Outcome {
            relay: (!relay.is_empty()).then(|| relay.to_owned().into()),
            rcpt: rcpt.to_owned().into(),
            status,
            dsn: None,
            reply: None,
            queue_id: Some(id.to_owned().into()),
            relay_queue_id: own.map(|id| id.to_owned().into()),
        };
        event(ts, Kind::Outcome(outcome))
    }

    /// The ids as `ID@HOST`.
    fn listed(from: i64, to: Option<i64>, events: &[Event<'_>]) -> (Vec<String>, Counts) {
        let mut queued = Queued::new(Timestamp(from), to.map(Timestamp));
        events.iter().for_each(|e| queued.event(e));
        let (ids, counts) = queued.finish();
        (ids.into_iter().map(|q| format!("{}@{}", q.id, q.host.unwrap_or_default())).collect(), counts)
    }

    #[test]
    fn what_is_done_is_left_out_and_what_waits_is_not() {
        use Status::{Bounced, Deferred, Delivered, Expired};
        let events = [
            send(99, "before", "mx-1", 1),
            send(100, "fresh", "mx-1", 1),
            send(101, "done", "mx-1", 2),
            send(102, "half", "", 2),
            send(103, "tried", "mx-1", 1),
            outcome(104, "done", "mx-1", "a@y", Delivered),
            outcome(104, "done", "mx-1", "b@y", Bounced),
            outcome(105, "half", "mx-2", "a@y", Delivered),
            outcome(106, "tried", "mx-1", "a@y", Deferred),
            outcome(106, "before", "mx-1", "a@y", Deferred),
            send(107, "given-up", "mx-1", 1),
            outcome(108, "given-up", "mx-1", "a@y", Deferred),
            outcome(109, "given-up", "mx-1", "a@y", Expired),
            send(201, "after", "mx-1", 1),
        ];
        let (ids, counts) = listed(100, Some(200), &events);
        assert_eq!(ids, ["fresh@mx-1", "half@mx-2", "tried@mx-1"]);
        assert_eq!(counts, Counts { messages: 5, done: 2, ..Counts::default() });
    }

    #[test]
    fn a_message_that_waits_on_a_relay_has_its_id_there() {
        use Status::{Deferred, Delivered};
        let events = [
            send(100, "A1", "sub-1", 2),
            send(100, "A2", "sub-1", 2),
            send(100, "A3", "sub-1", 1),
            outcome(101, "A1", "out-1/B1", "a@y", Deferred),
            outcome(101, "A1", "out-1/B1", "b@y", Delivered),
            // One is still on the first host.
            outcome(101, "A2", "out-2/B2", "a@y", Deferred),
            outcome(101, "A3", "out-2/B3", "a@y", Deferred),
            outcome(102, "A3", "out-2/B3", "a@y", Delivered),
        ];
        let (ids, counts) = listed(100, None, &events);
        assert_eq!(ids, ["B1@out-1", "A2@sub-1", "B2@out-2"]);
        assert_eq!((counts.messages, counts.done), (3, 1));
    }

    #[test]
    fn no_event_reaches_a_command_line_as_anything_but_an_id() {
        for bad in ["ALL", "all", "-d", "a b", "a\nb", "ä", "../x", "a;b", &"a".repeat(65)] {
            let (ids, counts) = listed(0, None, &[send(1, bad, "h", 1), send(2, "4ZxKqL2m1Bz9rT", "h", 1)]);
            assert_eq!((ids, counts.unusable), (vec!["4ZxKqL2m1Bz9rT@h".to_owned()], 1), "{bad:?}");
        }
        let through_relay = outcome(2, "A1", "out-1/ALL", "a@y", Status::Deferred);
        assert!(listed(0, None, &[send(1, "A1", "h", 1), through_relay]).0.is_empty());
        assert_eq!(listed(0, None, &[send(1, "1tZ5ab-0000000012x-3Yt4", "h", 1)]).0.len(), 1, "Exim's");
    }

    #[test]
    fn a_repeat_counts_once_and_an_id_used_again_is_another_message() {
        let events = [
            send(1, "A1", "h", 1),
            send(1, "A1", "h", 1),
            outcome(2, "A1", "h", "a@y", Status::Delivered),
            send(3, "A1", "h", 1),
            send(4, "", "h", 1),
        ];
        let (ids, counts) = listed(0, None, &events);
        assert_eq!(ids, ["A1@h"]);
        assert_eq!((counts.messages, counts.done, counts.without_id), (3, 1, 1));
    }
}
