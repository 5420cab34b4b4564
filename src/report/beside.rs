//! Who shared the relays of one incident, where no detector runs along: what [`super::Collector`] finds in a second pass, from
//! events that are read again in any order of partitions.
//!
//! The account's own events come first, then those of all. Without the detector it is not known which of its messages brought new
//! recipients: every message since the burst's first one exposes its relay.

use hashbrown::{HashMap, HashSet};

use super::bounded::Ties;
use super::collateral::Relays;
use super::data::{Cut, Exposure, Options};
use crate::core::alert::Alert;
use crate::event::{Event, Kind, Outcome, Send, Timestamp};

/// Gathers for one incident.
#[derive(Debug)]
pub struct Beside {
    options: Options,
    from: Timestamp,
    to: Option<Timestamp>,
    relays: Relays,
    own: Ties<OwnMessage>,
    carried: HashMap<u32, (u64, u64)>,
    /// Whoever was flagged is no bystander.
    flagged: HashSet<Box<str>>,
    /// Ids of events that were counted.
    seen: Ties<()>,
}

#[derive(Debug)]
struct OwnMessage {
    ts: Timestamp,
    recipients: u64,
    relay: Option<u32>,
}

impl Beside {
    /// For the burst that these alerts are about, which began at `from` and, where that is known, was over at `to`; beside the
    /// accounts `flagged`, which must have its own among them.
    pub fn new(
        alerts: &[Alert],
        (from, to): (Timestamp, Option<Timestamp>),
        flagged: impl IntoIterator<Item = Box<str>>,
        options: Options,
    ) -> Self {
        let mut relays = Relays::new(&options);
        // As the report has it: from the first send on, also where the events name a relay only later.
        for alert in alerts {
            for share in &alert.relays {
                if let Some(id) = relays.id(&share.relay) {
                    relays.expose(id, 0, from, alert.ts);
                }
            }
        }
        Self {
            from,
            to,
            relays,
            own: Ties::new(options.messages_tied),
            carried: HashMap::new(),
            flagged: flagged.into_iter().collect(),
            seen: Ties::new(options.bystander_messages_tied),
            options,
        }
    }

    /// Takes an event of the account itself.
    pub fn own(&mut self, event: &Event<'_>) {
        match &event.kind {
            Kind::Send(s) => self.own_send(event.ts, s),
            Kind::Outcome(o) => self.own_outcome(o),
            Kind::Complaint(_) | Kind::Auth(_) => {}
        }
    }

    fn own_send(&mut self, ts: Timestamp, s: &Send<'_>) {
        if ts < self.from || self.to.is_some_and(|to| ts > to) {
            return;
        }
        let relay = s.relay.as_deref().and_then(|r| self.relays.id(r));
        let message = OwnMessage { ts, recipients: s.rcpts.count.max(s.rcpts.named.len() as u64), relay };
        // A repeat of the event says nothing new.
        let key = s.queue_id.as_deref().unwrap_or_default();
        if !key.is_empty() && self.own.get("", key).is_some_and(|known| known.ts == ts) {
            return;
        }
        self.carries(&message);
        if !key.is_empty() {
            self.own.put("", key, message);
        }
    }

    fn own_outcome(&mut self, o: &Outcome<'_>) {
        let Some(message) = o.queue_id.as_deref().and_then(|id| self.own.get("", id)) else { return };
        if message.relay.is_some() {
            return;
        }
        message.relay = o.relay.as_deref().and_then(|r| self.relays.id(r));
        let message = OwnMessage { ..*message };
        self.carries(&message);
    }

    fn carries(&mut self, message: &OwnMessage) {
        let Some(id) = message.relay else { return };
        let sum = self.carried.entry(id).or_default();
        sum.0 += 1;
        sum.1 += message.recipients;
        self.relays.expose(id, 0, message.ts, message.ts);
    }

    /// First and last moment at which any relay is exposed; `None`: none is known to be. Final once all own events are in.
    pub fn exposed(&self) -> Option<(Timestamp, Timestamp)> {
        self.relays.hull().map(|(first, last)| (Timestamp(first), Timestamp(last)))
    }

    /// Takes an event of any account.
    pub fn any(&mut self, event: &Event<'_>) {
        let Some(account) = event.account.as_deref() else { return };
        if self.flagged.contains(account) {
            return;
        }
        if let Some(id) = event.id.as_deref() {
            if self.seen.get(account, id).is_some() {
                return;
            }
            self.seen.put(account, id, ());
        }
        self.relays.bystander(event);
    }

    /// The relays that carried the burst, most of its recipients first.
    pub fn finish(self) -> Cut<Exposure> {
        self.relays.finish(self.carried.iter().map(|(id, sum)| (*id, *sum)), &self.options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::replies::Family;
    use crate::event::{Recipients, Status};

    fn event(ts: i64, account: &str, id: &str, kind: Kind<'static>) -> Event<'static> {
        let id = (!id.is_empty()).then(|| id.to_owned().into());
        Event { ts: Timestamp(ts), account: Some(account.to_owned().into()), id, tenant: None, kind }
    }

    fn send(ts: i64, account: &str, queue_id: &str, relay: &str) -> Event<'static> {
        let send = Send {
            relay: (!relay.is_empty()).then(|| relay.to_owned().into()),
            rcpts: Recipients { named: Vec::new(), count: 2 },
            queue_id: Some(queue_id.to_owned().into()),
            ..Send::default()
        };
        event(ts, account, &format!("{account}{queue_id}"), Kind::Send(send))
    }

    fn outcome(ts: i64, account: &str, queue_id: &str, relay: &str, status: Status, reply: &str) -> Event<'static> {
        let outcome = Outcome {
            relay: (!relay.is_empty()).then(|| relay.to_owned().into()),
            rcpt: "someone@GMX.example".into(),
            status,
            dsn: None,
            reply: Some(reply.to_owned().into()),
            queue_id: Some(queue_id.to_owned().into()),
            relay_queue_id: None,
        };
        event(ts, account, "", Kind::Outcome(outcome))
    }

    /// A burst of `bad` from 10 s to 20 s, over `out-1` at the send and `out-2` by an outcome; exposed for a minute more.
    fn found(others: &[Event<'_>]) -> Vec<Exposure> {
        let options = Options { tail_s: 60, ..Options::default() };
        let flagged = ["bad@x.example", "worse@x.example"].map(Box::from);
        let mut beside = Beside::new(&[], (Timestamp(10_000), Some(Timestamp(25_000))), flagged, options);
        for own in [
            send(9_000, "bad@x.example", "A0", "out-3"),
            send(10_000, "bad@x.example", "A1", "out-1"),
            send(20_000, "bad@x.example", "A2", ""),
            send(20_000, "bad@x.example", "A2", ""),
            outcome(24_000, "bad@x.example", "A2", "out-2", Status::Delivered, "250 ok"),
            send(26_000, "bad@x.example", "A3", "out-3"),
        ] {
            beside.own(&own);
        }
        assert_eq!(beside.exposed(), Some((Timestamp(10_000), Timestamp(80_000))));
        others.iter().for_each(|e| beside.any(e));
        beside.finish().rows
    }

    #[test]
    fn whoever_shared_a_relay_while_it_was_exposed_is_found_with_what_was_refused() {
        let listed = "554 5.7.1 refused, listed at zen.spamhaus.org";
        let rows = found(&[
            // Partitions come one after the other: time goes back.
            send(69_000, "late@y.example", "B1", "out-1"),
            send(71_000, "late@y.example", "B2", "out-1"),
            send(15_000, "ann@y.example", "C1", "out-1"),
            send(15_000, "ann@y.example", "C1", "out-1"),
            outcome(16_000, "ann@y.example", "C1", "", Status::Bounced, listed),
            outcome(17_000, "ann@y.example", "C1", "", Status::Bounced, "550 5.1.1 user unknown"),
            send(15_000, "cat@z.example", "D1", "out-2"),
            send(21_000, "cat@z.example", "D2", "out-2"),
            send(15_000, "worse@x.example", "E1", "out-1"),
            send(15_000, "bad@x.example", "A1", "out-1"),
            send(15_000, "eve@z.example", "F1", "out-3"),
        ]);
        let of = |relay: &str| rows.iter().find(|r| r.relay == relay).unwrap();
        let (one, two) = (of("out-1"), of("out-2"));
        assert_eq!((rows.len(), one.messages, one.recipients, two.messages), (2, 1, 2, 1));
        let names = |e: &Exposure| e.others.rows.iter().map(|o| o.account.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(one), names(two)),
            (vec!["ann@y.example".into(), "late@y.example".into()], vec!["cat@z.example".into()])
        );
        let ann = &one.others.rows[0];
        assert_eq!((ann.messages, ann.recipients, ann.refused, ann.blamed_more), (1, 2, 2, 0));
        assert_eq!(ann.span, Some((Timestamp(15_000), Timestamp(15_000))));
        let [blamed] = &ann.blamed[..] else { panic!("{:?}", ann.blamed) };
        assert_eq!((&*blamed.receiver, blamed.by, blamed.count), ("gmx.example", Family::Spamhaus, 1));
        assert_eq!(blamed.words, listed);
        assert_eq!((two.others.rows[0].messages, &*two.others.rows[0].tenant), (1, "z.example"));
    }

    #[test]
    fn an_account_that_many_refuse_is_bounded() {
        let mut events = vec![send(15_000, "ann@y.example", "C1", "out-1")];
        for n in 0..40 {
            let mut refused =
                outcome(16_000, "ann@y.example", "C1", "", Status::Deferred, "421 4.7.0 [TSS04] deferred");
            if let Kind::Outcome(o) = &mut refused.kind {
                o.rcpt = format!("r@d{n}.example").into();
            }
            events.push(refused);
        }
        let rows = found(&events);
        let one = rows.iter().find(|r| r.relay == "out-1").unwrap();
        let ann = &one.others.rows[0];
        let listed: u64 = ann.blamed.iter().map(|b| b.count).sum();
        assert_eq!(listed + ann.blamed_more, 40);
        assert!(ann.blamed.len() <= 5);
    }
}
