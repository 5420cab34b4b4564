//! Over the hosts: submission, balancer or content filter, relay.
//!
//! The account stands in the first host's lines, the refusals in the last one's. Where a host hands a message over to
//! another own host, the reply names the id there (`queued as ID`): the message of that id gets the account and the
//! first host's queue id, and its outcomes count. The two halves may be logged in either order, as the next host logs
//! `client=` and `message-id=` before it replies and the first one after, and files are merged by whole seconds. So
//! whichever half comes first waits, for a bounded time in bounded number:
//!
//! * delivery lines of a message whose account is not known are *held* at the message,
//! * a hand-over whose other half is not known is kept as a [`HandOver`].
//!
//! A relay that is surely ours (see [`Nodes::is_own`](super::nodes::Nodes::is_own)) is waited for. Any other host
//! that replies `queued as` is believed to be ours only if a message of that id *and* that Message-ID is found in
//! these logs, now or within [`SETTLE_MS`]; that also teaches its address. So no foreign server can make its
//! deliveries vanish, but for a client that knows all of ours.

use super::hand_overs::{HandOver, Origin, State, compare};
use super::line::{self, Delivery, QueueId};
use super::nodes::is_remote;
use super::table::{Held, Message};
use super::{Postfix, To, outcome_event, pop_due};
use crate::event::{Event, Status};

/// How long a delivery to a host that may be ours is held back, in milliseconds of event time: logs of several hosts
/// are merged by stamps of whole seconds, so lines of the same second come in any order.
const SETTLE_MS: i64 = 2_000;

/// Hand-overs that wait at once. Beyond, the oldest is given up.
const HAND_OVERS_MAX: usize = 100_000;

/// Hosts that a message can pass. More are a loop.
const HOPS_MAX: u8 = 8;

impl Postfix {
    /// An attempt to deliver a message whose account is known.
    pub(super) fn attempt(
        &mut self,
        slot: u32,
        ts: i64,
        smtp: bool,
        delivery: &Delivery<'_>,
        sink: &mut impl FnMut(&Event<'_>),
    ) {
        let status = match delivery.status {
            b"sent" => Status::Delivered,
            b"bounced" => Status::Bounced,
            // With soft_bounce a refusal is tried again.
            b"deferred" | b"SOFTBOUNCE" => Status::Deferred,
            b"expired" => Status::Expired,
            b"deliverable" | b"undeliverable" => {
                self.stats.probes += 1;
                return;
            }
            _ => {
                self.stats.lines_unparsed += 1;
                return;
            }
        };
        let deferred = status == Status::Deferred;
        if deferred || !self.table.get(slot).open.is_empty() {
            self.track(slot, delivery.rcpt, deferred);
        }
        if status == Status::Delivered && self.hand_over(slot, ts, smtp, delivery, sink) {
            return;
        }
        let node = self.table.get(slot).node;
        if smtp && is_remote(delivery.relay) && !self.nodes.is_own(delivery.relay) {
            self.nodes.get_mut(node).delivers = true;
        }
        let m = self.table.get(slot);
        // A mailbox on the host itself is not outside.
        let here = status == Status::Delivered && !is_remote(delivery.relay);
        let relay = if here { None } else { self.nodes.outcome_relay(node, delivery.relay) };
        let to = To::message(m, relay);
        self.stats.count(status);
        sink(&outcome_event(ts, to, delivery.rcpt, status, delivery.dsn, delivery.reply));
    }

    /// Whether a delivery was a hand-over to an own host, or may be and has to wait.
    fn hand_over(
        &mut self,
        slot: u32,
        ts: i64,
        smtp: bool,
        delivery: &Delivery<'_>,
        sink: &mut impl FnMut(&Event<'_>),
    ) -> bool {
        let own = self.nodes.is_own(delivery.relay);
        let target = line::queued_as(delivery.reply);
        let m = self.table.get(slot);
        // Without an id it may be a filter; LMTP without an id is a mailbox.
        if (target.is_none() && !(own && smtp)) || !is_remote(delivery.relay) || m.hop >= HOPS_MAX {
            return false;
        }
        let known = self.hops.same(m, target);
        if known.and_then(|k| self.hops.get(k)).is_some_and(|h| h.state == State::Tied) {
            self.stats.handovers_tied += 1;
            return true;
        }
        let found = match target {
            Some(id) => self.next_by_id(m, id, delivery.relay, own),
            None => self.next_by_message_id(&Origin::of(m), &m.message_id, delivery.relay, ts),
        };
        if let Some(next) = found {
            self.stats.handovers_tied += 1;
            self.stats.tied_by_message_id += u64::from(target.is_none());
            self.nodes.learn(delivery.relay);
            if target.is_none() {
                self.keep(slot, None, delivery, own, State::Tied, sink);
            }
            if self.table.get(next).hop == 0 {
                let origin = Origin::of(self.table.get(slot));
                self.tie(&origin, next, sink);
            }
            return true;
        }
        // While one host only is seen there is hardly another to wait for, but for the first moment of the logs.
        if !own && self.nodes.len() < 2 && ts > self.started.saturating_add(SETTLE_MS) {
            if known.is_none() {
                self.keep(slot, target, delivery, own, State::Delivered, sink);
            }
            return false;
        }
        self.wait((slot, known), ts, target, delivery, own, sink)
    }

    /// The next host's message of the id that the reply named.
    fn next_by_id(&self, m: &Message, id: QueueId, relay: &[u8], own: bool) -> Option<u32> {
        let rank = |(slot, next): (u32, &Message)| {
            let tied = next.hop > m.hop && next.first_id == m.first_id && next.account == m.account;
            let (same, differ) = compare(&m.message_id, &next.message_id);
            let free = next.hop == 0 && (!next.accounted() || same) && !differ && (same || own);
            let likeness = self.nodes.likeness(relay, m.node, next.node);
            (next.serial != m.serial && (tied || free)).then_some((tied, same, likeness, next.begun, next.serial, slot))
        };
        Some(self.table.with_id(id).filter_map(rank).max()?.5)
    }

    /// The next host's message of the same Message-ID, begun at about the same time by a client.
    fn next_by_message_id(&self, origin: &Origin, message_id: &[u8], relay: &[u8], ts: i64) -> Option<u32> {
        if message_id.is_empty() {
            return None;
        }
        let wait_ms = u64::from(self.options.hop_wait_s) * 1000;
        let rank =
            |(slot, next): (u32, &Message)| {
                let distance = next.begun.abs_diff(ts);
                let likeness = self.nodes.likeness(relay, origin.node, next.node);
                (next.client_seen && !next.accounted() && next.serial != origin.serial && distance <= wait_ms)
                    .then_some((likeness, wait_ms - distance.min(wait_ms), next.serial, slot))
            };
        Some(self.table.with_message_id(message_id).filter_map(rank).max()?.3)
    }

    /// Keeps a recipient handed over until the other half comes. False where there is no need to, or no room.
    fn wait(
        &mut self,
        (slot, known): (u32, Option<u32>),
        ts: i64,
        target: Option<QueueId>,
        delivery: &Delivery<'_>,
        own: bool,
        sink: &mut impl FnMut(&Event<'_>),
    ) -> bool {
        if self.recipients_kept() >= self.options.max_recipients_total as usize {
            return false;
        }
        let known = match known {
            Some(known) => known,
            None => self.keep(slot, target, delivery, own, State::Open, sink),
        };
        let per_message = self.options.max_recipients as usize;
        let room = |h: &&mut HandOver| h.state == State::Open && h.held.len() < per_message;
        let Some(h) = self.hops.get_mut(known).filter(room) else { return false };
        h.held.push((ts, rebuild(delivery)));
        self.hops.held_total += 1;
        true
    }

    /// Keeps a hand-over.
    fn keep(
        &mut self,
        slot: u32,
        target: Option<QueueId>,
        delivery: &Delivery<'_>,
        own: bool,
        state: State,
        sink: &mut impl FnMut(&Event<'_>),
    ) -> u32 {
        self.make_room(sink);
        let m = self.table.get(slot);
        let (slot, serial) = self.hops.insert(HandOver {
            serial: 0,
            origin: Origin::of(m),
            target,
            message_id: m.message_id.clone(),
            relay: delivery.relay.to_vec(),
            own,
            held: Vec::new(),
            state,
        });
        let wait_ms = i64::from(self.options.hop_wait_s) * 1000;
        self.hops.waiting.push_back((self.clock.saturating_add(wait_ms), slot, serial));
        if state == State::Open && !own {
            self.hops.settling.push_back((self.clock.saturating_add(SETTLE_MS), slot, serial));
        }
        slot
    }

    /// Decides the hand-overs whose time is up.
    pub(super) fn settle_hand_overs(&mut self, now: i64, sink: &mut impl FnMut(&Event<'_>)) {
        while let Some((slot, serial)) = pop_due(&mut self.hops.settling, now) {
            self.settle(slot, serial, sink);
        }
        while let Some((slot, serial)) = pop_due(&mut self.hops.waiting, now) {
            self.give_up(slot, serial, sink);
        }
    }

    /// Where too many wait, the oldest are decided now. What was decided early is still in the queues, and counts.
    fn make_room(&mut self, sink: &mut impl FnMut(&Event<'_>)) {
        while self.hops.settling.len() >= HAND_OVERS_MAX {
            let Some((_, slot, serial)) = self.hops.settling.pop_front() else { break };
            self.settle(slot, serial, sink);
        }
        while self.hops.waiting.len() >= HAND_OVERS_MAX {
            let Some((_, slot, serial)) = self.hops.waiting.pop_front() else { break };
            self.give_up(slot, serial, sink);
        }
    }

    /// No own host has logged the message by now: it was delivered outside.
    fn settle(&mut self, slot: u32, serial: u64, sink: &mut impl FnMut(&Event<'_>)) {
        let Some(h) = self.hops.get_mut(slot).filter(|h| h.serial == serial && h.state == State::Open) else { return };
        h.state = State::Delivered;
        let (origin, held) = (h.origin.clone(), std::mem::take(&mut h.held));
        self.hops.held_total -= held.len();
        self.nodes.get_mut(origin.node).delivers = true;
        let relay = self.nodes.get(origin.node).name.clone();
        self.emit_held(&origin, Some(&relay), &held, sink);
    }

    /// The other half did not come: the Message-ID is tried, else the hand-over counts as a delivery.
    fn give_up(&mut self, slot: u32, serial: u64, sink: &mut impl FnMut(&Event<'_>)) {
        if self.hops.get(slot).is_none_or(|h| h.serial != serial) {
            return;
        }
        let Some(h) = self.hops.remove(slot) else { return };
        let Some(&(ts, _)) = h.held.first() else { return };
        let next = if h.own { self.next_by_message_id(&h.origin, &h.message_id, &h.relay, ts) } else { None };
        match next {
            Some(next) => {
                self.stats.handovers_tied += h.held.len() as u64;
                self.stats.tied_by_message_id += 1;
                self.nodes.learn(&h.relay);
                self.tie(&h.origin, next, sink);
            }
            None => {
                self.stats.handovers_unmatched += if h.own { h.held.len() as u64 } else { 0 };
                let relay = (!h.own).then(|| self.nodes.get(h.origin.node).name.clone());
                self.emit_held(&h.origin, relay.as_deref(), &h.held, sink);
            }
        }
    }

    fn emit_held(
        &mut self,
        origin: &Origin,
        relay: Option<&str>,
        held: &[(i64, Box<[u8]>)],
        sink: &mut impl FnMut(&Event<'_>),
    ) {
        let to = To { account: &origin.account, queue_id: Some(origin.first_id.as_str()), relay_queue_id: None, relay };
        for (ts, line) in held {
            if let Some(d) = line::delivery(line) {
                self.stats.count(Status::Delivered);
                sink(&outcome_event(*ts, to, d.rcpt, Status::Delivered, d.dsn, d.reply));
            }
        }
    }

    /// A message without an account may be the other half of a hand-over that waits.
    pub(super) fn adopt(&mut self, slot: u32, sink: &mut impl FnMut(&Event<'_>)) {
        let m = self.table.get(slot);
        if self.hops.len() == 0 || m.hop > 0 {
            return;
        }
        let Some(found) = self.hops.of_message(m) else { return };
        let Some(h) = self.hops.get_mut(found) else { return };
        let by_message_id = h.target.is_none();
        let held = std::mem::take(&mut h.held);
        self.stats.handovers_tied += held.len() as u64;
        self.stats.tied_by_message_id += u64::from(by_message_id);
        self.stats.tied_late += u64::from(h.state == State::Delivered);
        h.state = State::Tied;
        let (origin, relay) = (h.origin.clone(), std::mem::take(&mut h.relay));
        self.hops.held_total -= held.len();
        // A filter that names no id may split a message: the next part of it must find the hand-over again.
        if !by_message_id {
            self.hops.remove(found);
        }
        self.nodes.learn(&relay);
        self.tie(&origin, slot, sink);
    }

    /// A filter told the id on the host before by XFORWARD.
    pub(super) fn tie_to_original(&mut self, slot: u32, first: QueueId, sink: &mut impl FnMut(&Event<'_>)) {
        let m = self.table.get(slot);
        let here = &self.nodes.get(m.node).host;
        let rank = |before: &Message| (self.nodes.get(before.node).host == *here, before.serial);
        let all = self.table.with_id(first);
        let before = all.filter(|(_, b)| b.accounted() && b.hop < HOPS_MAX).max_by_key(|(_, b)| rank(b));
        if let Some(origin) = before.map(|(_, b)| Origin::of(b)) {
            self.tie(&origin, slot, sink);
        }
    }

    /// The message gets the account of the one that it came from, and the outcomes that were held come out.
    fn tie(&mut self, origin: &Origin, slot: u32, sink: &mut impl FnMut(&Event<'_>)) {
        self.table.forget_message_id(slot);
        let m = self.table.get_mut(slot);
        m.account.clone_from(&origin.account);
        m.first_id = origin.first_id;
        m.hop = origin.hop + 1;
        let (held, text) = (std::mem::take(&mut m.held), std::mem::take(&mut m.held_text));
        if m.node != origin.node {
            self.nodes.get_mut(origin.node).hands_over = true;
        }
        self.held_total -= held.len();
        let mut at = 0;
        for line in held {
            let end = at + line.len as usize;
            if let Some(delivery) = line::delivery(&text[at..end]) {
                self.attempt(slot, line.ts, line.smtp, &delivery, sink);
            }
            at = end;
        }
    }

    /// Keeps a delivery line (after `to=`) of a message whose account is not known.
    pub(super) fn hold(&mut self, slot: u32, ts: i64, smtp: bool, line: &[u8]) {
        let room = self.recipients_kept() < self.options.max_recipients_total as usize;
        let wait_ms = i64::from(self.options.hop_wait_s) * 1000;
        let m = self.table.get_mut(slot);
        // The other half of its hand-over would have come by now.
        if ts > m.begun.saturating_add(wait_ms) {
            return;
        }
        if !room || m.held.len() >= self.options.max_recipients as usize || line.len() > LINE_LEN_MAX {
            self.stats.held_dropped += 1;
            return;
        }
        if m.held.is_empty() {
            // Of more than these most are decided, or the clock stands still.
            if self.held.len() >= HAND_OVERS_MAX
                && let Some((_, oldest, serial)) = self.held.pop_front()
                && self.table.get(oldest).serial == serial
            {
                self.drop_held(oldest);
            }
            let m = self.table.get(slot);
            let until = self.clock.max(ts).saturating_add(wait_ms);
            self.held.push_back((until, slot, m.serial));
        }
        let m = self.table.get_mut(slot);
        m.held.push(Held { ts, smtp, len: line.len() as u32 });
        m.held_text.extend_from_slice(line);
        self.held_total += 1;
    }

    /// Nobody handed the message over: it is no account's.
    pub(super) fn drop_held(&mut self, slot: u32) {
        let m = self.table.get_mut(slot);
        self.held_total -= m.held.len();
        m.held.clear();
        m.held_text.clear();
    }
}

/// Longer delivery lines are not held.
const LINE_LEN_MAX: usize = 4096;

/// A delivery line after `to=`, without what is not needed again, and bounded.
fn rebuild(d: &Delivery<'_>) -> Box<[u8]> {
    let reply = &d.reply[..d.reply.len().min(LINE_LEN_MAX)];
    let relay = &d.relay[..d.relay.len().min(LINE_LEN_MAX)];
    let dsn = &d.dsn[..d.dsn.len().min(LINE_LEN_MAX)];
    [b"<", d.rcpt, b">, relay=", relay, b", dsn=", dsn, b", status=sent (", reply, b")"].concat().into()
}
