//! From what somebody does to events.

use std::borrow::Cow;
use std::net::IpAddr;

use super::DAY_MS;
use super::dice::Dice;
use super::names::RELAYS;
use crate::event::{Auth, Event, Kind, Outcome, Recipients, Send, Status, Timestamp};

/// A message of somebody's.
pub(super) struct Message<'a> {
    pub account: &'a str,
    /// Milliseconds of the day.
    pub at_ms: u64,
    pub client: IpAddr,
    /// Index of the relay.
    pub relay: u64,
    pub rcpts: Vec<String>,
}

/// How a recipient's server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Taken,
    /// Not now; an hour later.
    Later,
    NoSuchUser,
    /// Spam, it thinks.
    Unwanted,
}

/// The events of one day, in no order yet; some of them happen after midnight.
pub(super) struct Day {
    /// Since 1970.
    pub number: i64,
    /// Saturday or Sunday.
    pub is_off: bool,
    pub events: Vec<Event<'static>>,
    messages: u64,
}

fn some(text: &str) -> Option<Cow<'static, str>> {
    Some(Cow::Owned(text.to_owned()))
}

impl Day {
    pub(super) fn new(number: i64) -> Self {
        // 1970 began on a Thursday.
        let is_off = matches!((number + 4).rem_euclid(7), 0 | 6);
        Self { number, is_off, events: Vec::new(), messages: 0 }
    }

    fn at(&self, ms: u64) -> Timestamp {
        Timestamp(self.number * DAY_MS + ms as i64)
    }

    fn push(&mut self, at_ms: u64, account: Option<&str>, kind: Kind<'static>) {
        let (ts, account) = (self.at(at_ms), account.map(|a| Cow::Owned(a.to_owned())));
        self.events.push(Event { ts, account, id: None, tenant: None, kind });
    }

    /// A log-in that succeeds.
    pub(super) fn login(&mut self, account: &str, at_ms: u64, client: IpAddr) {
        let kind = Kind::Auth(Auth { client_ip: Some(client), ok: true, method: some("PLAIN") });
        self.push(at_ms, Some(account), kind);
    }

    /// Somebody who guesses names and passwords.
    pub(super) fn guess(&mut self, at_ms: u64, client: IpAddr) {
        self.push(at_ms, None, Kind::Auth(Auth { client_ip: Some(client), ok: false, method: some("LOGIN") }));
    }

    /// A message and the answers to it.
    pub(super) fn message(
        &mut self,
        message: Message<'_>,
        dice: &mut Dice,
        answer: &mut dyn FnMut(&mut Dice) -> Answer,
    ) {
        let Message { account, at_ms, client, relay, rcpts } = message;
        self.messages += 1;
        let queue_id = format!("{:X}{:06X}", self.number, self.messages);
        let relay = some(RELAYS[relay as usize % RELAYS.len()]);
        for rcpt in &rcpts {
            let after_ms = at_ms + 400 + dice.below(4000);
            let mut answered = |at_ms, status, dsn: &str, reply: &str| {
                let (relay, queue_id) = (relay.clone(), some(&queue_id));
                let (rcpt, dsn, reply) = (Cow::Owned(rcpt.clone()), some(dsn), some(reply));
                let outcome = Outcome { relay, rcpt, status, dsn, reply, queue_id, relay_queue_id: None };
                self.push(at_ms, Some(account), Kind::Outcome(outcome));
            };
            match answer(dice) {
                Answer::Taken => answered(after_ms, Status::Delivered, "2.0.0", "250 2.0.0 OK"),
                Answer::Later => {
                    answered(after_ms, Status::Deferred, "4.2.0", "451 4.2.0 Greylisted, please try again later");
                    answered(after_ms + 3_600_000, Status::Delivered, "2.0.0", "250 2.0.0 OK");
                }
                Answer::NoSuchUser => answered(after_ms, Status::Bounced, "5.1.1", "550 5.1.1 User unknown"),
                Answer::Unwanted => {
                    answered(after_ms, Status::Bounced, "5.7.1", "554 5.7.1 Message rejected: content looks like spam");
                }
            }
        }
        let rcpts: Vec<Cow<'static, str>> = rcpts.into_iter().map(Cow::Owned).collect();
        let send = Send {
            relay,
            client_ip: Some(client),
            rcpts: Recipients { count: rcpts.len() as u64, named: rcpts },
            queue_id: some(&queue_id),
            mail_from: some(account),
            size: Some(1500 + dice.below(60_000)),
            ..Send::default()
        };
        self.push(at_ms, Some(account), Kind::Send(send));
    }
}
