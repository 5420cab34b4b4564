//! The lines of one message tied together: each daemon's lines move the message of their host and queue id on.

use super::line::{self, Client, QueueId, Queued, Reject};
use super::table::Stage;
use super::{Postfix, RCPT_LEN_MAX, TEXT_LEN_MAX, To, account_of, auth_event, outcome_event, some_text};
use crate::event::{Event, Kind, Recipients, Send, Status, Timestamp};
use std::borrow::Cow;

impl Postfix {
    pub(super) fn smtpd(&mut self, node: u32, ts: i64, body: &[u8], sink: &mut impl FnMut(&Event<'_>)) {
        if let Some(rest) = body.strip_prefix(b"warning: ") {
            if let Some(failure) = line::auth_failure(rest) {
                let account = account_of(failure.username);
                self.emit(&auth_event(ts, account, failure.address, failure.method, false), sink);
            }
        } else if let Some(rest) = body.strip_prefix(b"NOQUEUE: reject: ") {
            self.rejected(None, ts, line::reject(rest), sink);
        } else if let Some(rest) = body.strip_prefix(b"NOQUEUE: client=") {
            // Before a filter in front of the queue: the log-in shows here, the message under the filter's client.
            let client = line::client(rest);
            if let Some(account) = account_of(client.username) {
                self.emit(&auth_event(ts, Some(account), client.address, client.method, true), sink);
            }
        } else if let Some((id, rest)) = QueueId::head(body) {
            if let Some(rest) = rest.strip_prefix(b"client=") {
                self.client(node, id, ts, &line::client(rest), sink);
            } else if let Some(rest) = refusal(rest) {
                let slot = self.table.find(node, &id);
                self.rejected(slot, ts, line::reject(rest), sink);
            }
        }
    }

    /// A client began a message.
    fn client(&mut self, node: u32, id: QueueId, ts: i64, client: &Client<'_>, sink: &mut impl FnMut(&Event<'_>)) {
        let slot = self.begin(node, id, ts);
        let m = self.table.get_mut(slot);
        m.client_seen = true;
        m.client_ip = line::ip(client.address);
        if client.username.is_empty() {
            if let Some(first) = client.orig_queue_id {
                self.tie_to_original(slot, first, sink);
            }
            return;
        }
        let Some(account) = account_of(client.username) else {
            self.stats.lines_unparsed += 1;
            return;
        };
        m.account.push_str(&account);
        m.first_id = id;
        m.method.push_str(&String::from_utf8_lossy(&client.method[..client.method.len().min(32)]));
        self.emit(&auth_event(ts, Some(account), client.address, client.method, true), sink);
    }

    pub(super) fn pickup(&mut self, node: u32, ts: i64, body: &[u8]) {
        if let Some((id, _)) = QueueId::head(body).filter(|(_, rest)| rest.starts_with(b"uid=")) {
            self.begin(node, id, ts);
        }
    }

    pub(super) fn cleanup(&mut self, node: u32, ts: i64, body: &[u8], sink: &mut impl FnMut(&Event<'_>)) {
        self.nodes.queue_seen(node);
        let Some((id, rest)) = QueueId::head(body) else { return };
        if let Some(rest) = rest.strip_prefix(b"message-id=") {
            // It is logged before the queue manager takes the message: after that, the id is another message's.
            let slot = match self.find_in_host(node, &id) {
                Some(slot) if self.table.get(slot).stage == Stage::Fresh => slot,
                _ => self.begin(node, id, ts),
            };
            self.table.touch(slot, ts, Stage::Fresh);
            if self.table.get(slot).message_id.is_empty() {
                let message_id = line::message_id(rest);
                self.table.set_message_id(slot, &message_id[..message_id.len().min(TEXT_LEN_MAX)]);
            }
            self.adopt(slot, sink);
        } else if let Some(rest) = rest.strip_prefix(b"reject: ") {
            let slot = self.table.find(node, &id);
            self.rejected(slot, ts, line::content_reject(rest), sink);
        } else if let Some(rest) = rest.strip_prefix(b"milter-reject: ") {
            let slot = self.table.find(node, &id);
            self.rejected(slot, ts, line::reject(rest), sink);
        }
    }

    pub(super) fn qmgr(&mut self, node: u32, ts: i64, body: &[u8], sink: &mut impl FnMut(&Event<'_>)) {
        self.nodes.queue_seen(node);
        let Some((id, rest)) = QueueId::head(body) else { return };
        if let Some(rest) = rest.strip_prefix(b"from=") {
            match line::queued(rest) {
                Some(Queued::Active { from, size, nrcpt }) => {
                    self.taken(node, id, ts, (from, size, nrcpt.unwrap_or(0)), sink);
                }
                Some(Queued::Expired) => self.expired(node, id, ts, sink),
                None => self.stats.lines_unparsed += 1,
            }
        } else if rest.trim_ascii() == b"removed" {
            if let Some(slot) = self.find_in_host(node, &id) {
                self.table.touch(slot, ts, Stage::Gone);
            }
        } else {
            self.agent(node, ts, false, body, sink);
        }
    }

    /// The queue manager took the message: for the first time, or to try again.
    fn taken(
        &mut self,
        node: u32,
        id: QueueId,
        ts: i64,
        (from, size, nrcpt): (&[u8], Option<u64>, u64),
        sink: &mut impl FnMut(&Event<'_>),
    ) {
        let slot = match self.find_in_host(node, &id) {
            Some(slot) if self.table.get(slot).stage != Stage::Gone => slot,
            _ => {
                self.stats.messages_without_start += 1;
                self.begin(node, id, ts)
            }
        };
        self.table.touch(slot, ts, Stage::Queued);
        let m = self.table.get_mut(slot);
        if std::mem::replace(&mut m.taken, true) {
            return;
        }
        self.stats.messages_taken += 1;
        if m.message_id.is_empty() {
            self.adopt(slot, sink);
        }
        let m = self.table.get(slot);
        if !m.accounted() || m.hop > 0 {
            return;
        }
        let relay = self.nodes.send_relay(node);
        let send = Send {
            relay: relay.map(Cow::Borrowed),
            client_ip: m.client_ip,
            rcpts: Recipients { named: Vec::new(), count: nrcpt },
            queue_id: Some(Cow::Borrowed(m.first_id.as_str())),
            host: self.nodes.host(node).map(Cow::Borrowed),
            mail_from: some_text(from),
            message_id: some_text(&m.message_id),
            size,
            content_hash: None,
            auth: (!m.method.is_empty()).then_some(Cow::Borrowed(m.method.as_str())),
            user_agent: None,
        };
        let account = Some(Cow::Borrowed(m.account.as_str()));
        self.stats.sends += 1;
        sink(&Event { ts: Timestamp(ts), account, id: None, tenant: None, kind: Kind::Send(send) });
    }

    /// The queue manager gave the message up: so ends every recipient that was only deferred.
    fn expired(&mut self, node: u32, id: QueueId, ts: i64, sink: &mut impl FnMut(&Event<'_>)) {
        let Some(slot) = self.find_in_host(node, &id) else { return };
        let open = std::mem::take(&mut self.table.get_mut(slot).open);
        self.open_total -= open.len();
        let m = self.table.get(slot);
        let to = To::message(m, self.nodes.outcome_relay(node, b"none"));
        for rcpt in &open {
            self.stats.count(Status::Expired);
            sink(&outcome_event(ts, to, rcpt, Status::Expired, b"", b"expired, returned to sender"));
        }
    }

    /// A delivery agent's line, or the queue manager's own where it tried nothing.
    pub(super) fn agent(&mut self, node: u32, ts: i64, smtp: bool, body: &[u8], sink: &mut impl FnMut(&Event<'_>)) {
        let Some((id, rest)) = QueueId::head(body) else { return };
        let Some(rest) = rest.strip_prefix(b"to=") else { return };
        let Some(delivery) = line::delivery(rest).filter(|d| (1..=RCPT_LEN_MAX).contains(&d.rcpt.len())) else {
            self.stats.lines_unparsed += 1;
            return;
        };
        let slot = match self.find_in_host(node, &id) {
            Some(slot) => slot,
            None => {
                self.stats.messages_without_start += 1;
                let slot = self.begin(node, id, ts);
                self.table.touch(slot, ts, Stage::Queued);
                self.adopt(slot, sink);
                slot
            }
        };
        let stage = self.table.get(slot).stage;
        self.table.touch(slot, ts, stage);
        self.stats.attempts += 1;
        if self.table.get(slot).accounted() {
            self.attempt(slot, ts, smtp, &delivery, sink);
        } else {
            self.hold(slot, ts, smtp, rest);
        }
    }

    /// Our own host refused a recipient or a message. The account is the message's, else the one that the line names.
    fn rejected(&mut self, slot: Option<u32>, ts: i64, reject: Option<Reject<'_>>, sink: &mut impl FnMut(&Event<'_>)) {
        let Some(reject) = reject else {
            self.stats.lines_unparsed += 1;
            return;
        };
        let named = account_of(reject.username);
        let message = slot.map(|s| self.table.get(s)).filter(|m| m.accounted());
        let (account, queue_id) = match (message, &named) {
            (Some(m), _) => (m.account.as_str(), Some(m.first_id.as_str())),
            (None, Some(account)) => (&**account, None),
            (None, None) => return,
        };
        let status = if reject.class == Some(4) { Status::Deferred } else { Status::Rejected };
        if !(1..=RCPT_LEN_MAX).contains(&reject.rcpt.len()) {
            return;
        }
        let to = To { account, queue_id, relay_queue_id: None, relay: None };
        self.stats.count(status);
        sink(&outcome_event(ts, to, reject.rcpt, status, reject.dsn, reject.reply));
    }

    /// A message begins. One of the same id before it has ended, whether that was logged or not.
    fn begin(&mut self, node: u32, id: QueueId, ts: i64) -> u32 {
        if let Some(old) = self.table.find(node, &id) {
            self.stats.ids_reused += u64::from(self.table.get(old).stage != Stage::Gone);
            self.drop_message(old);
        }
        while self.table.len() >= self.options.max_open_messages.max(1) as usize {
            let stages = [Stage::Gone, Stage::Fresh, Stage::Queued];
            let Some(slot) = stages.iter().find_map(|stage| self.table.oldest(*stage)) else { break };
            self.stats.given_up_full += u64::from(self.table.get(slot).stage != Stage::Gone);
            self.drop_message(slot);
        }
        self.stats.messages += 1;
        self.table.insert(node, id, ts)
    }

    /// Ends a message.
    pub(super) fn drop_message(&mut self, slot: u32) {
        self.drop_held(slot);
        let m = self.table.get(slot);
        self.open_total -= m.open.len();
        self.stats.never_accepted += u64::from(m.accounted() && m.hop == 0 && !m.taken);
        self.stats.messages_without_account += u64::from(m.taken && !m.accounted());
        self.table.remove(slot);
    }

    /// The message of an id. Where smtpd or a delivery agent logs under a name of its own (`-o syslog_name=smtps`),
    /// the first message that shows it teaches that this name belongs to the host's queue.
    fn find_in_host(&mut self, node: u32, id: &QueueId) -> Option<u32> {
        if let Some(slot) = self.table.find(node, id) {
            return Some(slot);
        }
        if self.nodes.len() < 2 {
            return None;
        }
        let here = self.nodes.get(node);
        let found = self.table.with_id(*id).filter(|(_, m)| {
            let there = self.nodes.get(m.node);
            there.host == here.host && there.queue_seen != here.queue_seen
        });
        let (slot, m) = found.max_by_key(|(_, m)| m.serial)?;
        if here.queue_seen {
            self.nodes.alias(m.node, node);
            self.table.move_to(slot, node);
        } else {
            self.nodes.alias(node, m.node);
        }
        Some(slot)
    }

    /// Remembers or forgets that a recipient is still to be delivered to.
    pub(super) fn track(&mut self, slot: u32, rcpt: &[u8], deferred: bool) {
        let room = self.recipients_kept() < self.options.max_recipients_total as usize;
        let m = self.table.get_mut(slot);
        let known = m.open.iter().position(|r| **r == *rcpt);
        match known {
            Some(at) if !deferred => {
                m.open.swap_remove(at);
                self.open_total -= 1;
            }
            None if deferred && room && m.open.len() < self.options.max_recipients as usize => {
                m.open.push(rcpt.into());
                self.open_total += 1;
            }
            None if deferred => self.stats.recipients_untracked += 1,
            _ => {}
        }
    }
}

fn refusal(rest: &[u8]) -> Option<&[u8]> {
    rest.strip_prefix(b"reject: ").or_else(|| rest.strip_prefix(b"milter-reject: "))
}
