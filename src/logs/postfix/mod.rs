//! Postfix's log, as it is: lines of many hosts in, sends, outcomes and log-ins of accounts out.
//!
//! * `line` takes a line apart, `nodes` knows the hosts, `table` keeps the open messages,
//! * `assemble` ties the lines of one message together by host and queue id,
//! * `hops` follows a message from the host where its account logged in to the one that talks to the outside.
//!
//! What the events say:
//!
//! * A **send** when the queue manager of the account's first host takes the message. Its `relay` is that host, unless
//!   that host hands mail over to other own hosts (seen so far, or own hosts are configured and it has delivered
//!   nothing itself): then it is not known yet, and the outcomes tell it.
//! * An **outcome** for every attempt to deliver to a recipient outside, or to a mailbox here. `relay` is the host
//!   that logged it, `queue_id` always the id on the account's first host. A hand-over to an own host is none.
//!   A hand-over whose other half does not turn up within `hop_wait_s` counts as `delivered`, without a relay: that
//!   is as far as the log shows.
//! * What **our own host refuses** to an account (`reject:`, `milter-reject:`) is an outcome too: `rejected` where the
//!   reply is for good, `deferred` where the client may try again (rate limits, greylisting).
//! * An **auth** for every message begun by an authenticated client, and for every failed log-in.
//!
//! A queue is told by the host's name and, where several instances of Postfix log under names of their own, by the
//! first part of the syslog name: events call it `host`, or `host/postfix-out1` from when the host has shown a second
//! queue.
//!
//! **Not read**: a filter in front of the queue (`smtpd_proxy_filter`), where the account stands at `NOQUEUE: client=`
//! and nowhere near the queue id: the log-ins count, the messages stay without an account. A relay that demands a
//! log-in of the host before it makes that host an account of its own, whose outcomes go to the real one.

mod assemble;
mod hand_overs;
mod hops;
mod line;
mod nodes;
mod stats;
mod table;

pub use stats::Stats;

use crate::event::{Auth, Event, Kind, Outcome, Status, Timestamp, fold};
use bstr::ByteSlice;
use hand_overs::Hops;
use line::{Daemon, Split};
use nodes::Nodes;
use std::borrow::Cow;
use std::collections::VecDeque;
use table::{Stage, Table};

/// A message that the queue manager has not taken is given up after this silence. The queue manager follows within
/// seconds of the last byte; Postfix itself waits 300 s for a client.
const FRESH_IDLE_MS: i64 = 3_600_000;

/// A line this far from the clock moves it only if the next one agrees: one line with a wrong stamp must not end every
/// open message.
const JUMP_MS: u64 = 86_400_000;

/// Longer log-in names are no accounts.
const ACCOUNT_LEN_MAX: usize = 512;
/// Longer recipients are no addresses (RFC 5321 allows 256 bytes).
const RCPT_LEN_MAX: usize = 1024;
/// Message-IDs and replies are cut to this.
const TEXT_LEN_MAX: usize = 1024;

/// Section `[postfix]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Own hosts that mail is handed over to, by name or address, as `relay=` shows them: relays, filters, balancers.
    /// Hosts of the logs themselves and the loopback need not be named.
    pub own_hosts: Vec<String>,
    /// Messages kept open at once, on all hosts. Beyond, the longest idle one is given up.
    pub max_open_messages: u32,
    /// Recipients kept of one message where they must be remembered: deferred ones, for an expiry, and outcomes that
    /// wait until the message's account is known.
    pub max_recipients: u32,
    /// The same over all messages.
    pub max_recipients_total: u32,
    /// A message in the queue is given up after this silence, in event time. Longer than Postfix itself keeps a message
    /// (`maximal_queue_lifetime`, 5 days): the bound on memory is the number of messages.
    pub idle_s: u32,
    /// How long the two halves of a hand-over between own hosts wait for each other, in event time.
    pub hop_wait_s: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            own_hosts: Vec::new(),
            max_open_messages: 200_000,
            max_recipients: 1_000,
            max_recipients_total: 200_000,
            idle_s: 518_400,
            hop_wait_s: 60,
        }
    }
}

/// Reads the logs of one provider's Postfix hosts, merged in order of time.
#[derive(Debug)]
pub struct Postfix {
    options: Options,
    stats: Stats,
    nodes: Nodes,
    table: Table,
    hops: Hops,
    /// Messages with held lines.
    held: Waiting,
    held_total: usize,
    open_total: usize,
    /// The largest stamp so far, in milliseconds.
    clock: i64,
    /// The first stamp.
    started: i64,
    jumped: bool,
}

impl Postfix {
    /// A reader that has read nothing.
    pub fn new(options: Options) -> Self {
        Self {
            stats: Stats::default(),
            nodes: Nodes::new(&options.own_hosts),
            table: Table::new(),
            hops: Hops::default(),
            held: Waiting::new(),
            held_total: 0,
            open_total: 0,
            clock: i64::MIN,
            started: i64::MAX,
            jumped: false,
            options,
        }
    }

    /// Counts so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Messages open now, on all hosts; never more than [`Options::max_open_messages`] (at least one).
    pub fn open_messages(&self) -> usize {
        self.table.len()
    }

    /// Recipients remembered now; never more than [`Options::max_recipients_total`].
    pub fn recipients_kept(&self) -> usize {
        self.held_total + self.open_total + self.hops.held()
    }

    /// Reads a line from the host's name on, as [`Stamper::stamp`](super::stamp::Stamper::stamp) tells it.
    pub fn push(&mut self, ts: Timestamp, rest: &[u8], sink: &mut impl FnMut(&Event<'_>)) {
        self.stats.lines += 1;
        self.advance(ts.0, sink);
        let Split::Postfix(line) = line::split(rest.trim_end_with(|c| matches!(c, '\r' | '\n'))) else {
            self.stats.lines_foreign += 1;
            return;
        };
        // Any line shows that its host is one of these.
        let Some(node) = self.nodes.intern(line.host, line.instance) else {
            self.stats.lines_host_over_limit += 1;
            return;
        };
        match line.daemon {
            Daemon::Smtpd => self.smtpd(node, ts.0, line.body, sink),
            Daemon::Cleanup => self.cleanup(node, ts.0, line.body, sink),
            Daemon::Qmgr => self.qmgr(node, ts.0, line.body, sink),
            Daemon::Pickup => self.pickup(node, ts.0, line.body),
            Daemon::Smtp => self.agent(node, ts.0, true, line.body, sink),
            Daemon::Agent => self.agent(node, ts.0, false, line.body, sink),
            Daemon::Other => {}
        }
    }

    /// The logs ended: what waits for a line that will not come is decided.
    pub fn finish(&mut self, sink: &mut impl FnMut(&Event<'_>)) {
        self.settle_hand_overs(i64::MAX, sink);
        for stage in [Stage::Gone, Stage::Fresh, Stage::Queued] {
            while let Some(slot) = self.table.oldest(stage) {
                self.drop_message(slot);
            }
        }
        self.held.clear();
    }

    /// Event time goes on: ends what has waited long enough.
    fn advance(&mut self, ts: i64, sink: &mut impl FnMut(&Event<'_>)) {
        if self.clock == i64::MIN {
            (self.started, self.clock) = (ts, ts);
        }
        if ts.abs_diff(self.clock) > JUMP_MS {
            if !std::mem::replace(&mut self.jumped, true) {
                return;
            }
            if ts < self.clock {
                self.set_back(ts, sink);
            }
        }
        self.jumped = false;
        if ts <= self.clock {
            return;
        }
        self.clock = ts;
        self.settle_hand_overs(ts, sink);
        let wait_ms = i64::from(self.options.hop_wait_s) * 1000;
        let idle_ms = i64::from(self.options.idle_s) * 1000;
        for (stage, ms) in [(Stage::Gone, wait_ms), (Stage::Fresh, FRESH_IDLE_MS), (Stage::Queued, idle_ms)] {
            let since = ts.saturating_sub(ms);
            while let Some(slot) = self.table.oldest(stage).filter(|s| self.table.get(*s).touched < since) {
                self.stats.given_up_idle += u64::from(stage == Stage::Queued);
                self.drop_message(slot);
            }
        }
        while let Some((slot, serial)) = pop_due(&mut self.held, ts) {
            if self.table.get(slot).serial == serial {
                self.drop_held(slot);
            }
        }
    }

    /// The stamps before were wrong: the clock is put back, and nothing waits for a time that will not come.
    fn set_back(&mut self, ts: i64, sink: &mut impl FnMut(&Event<'_>)) {
        self.settle_hand_overs(i64::MAX, sink);
        for (due, _, _) in &mut self.held {
            *due = (*due).min(ts);
        }
        self.table.set_back(ts);
        (self.started, self.clock) = (ts, ts);
    }

    fn emit(&mut self, event: &Event<'_>, sink: &mut impl FnMut(&Event<'_>)) {
        match &event.kind {
            Kind::Send(_) => self.stats.sends += 1,
            Kind::Auth(auth) if auth.ok => self.stats.auth_ok += 1,
            Kind::Auth(_) => self.stats.auth_failed += 1,
            Kind::Outcome(outcome) => self.stats.count(outcome.status),
            Kind::Complaint(_) => {}
        }
        sink(event);
    }
}

impl Stats {
    fn count(&mut self, status: Status) {
        self.outcomes += 1;
        match status {
            Status::Delivered => self.delivered += 1,
            Status::Bounced => self.bounced += 1,
            Status::Deferred => self.deferred += 1,
            Status::Rejected => self.rejected += 1,
            Status::Expired => self.expired += 1,
        }
    }
}

/// What waits until a time: until when, slot and serial. Waits are of one length, so the first is due first.
type Waiting = VecDeque<(i64, u32, u64)>;

/// Takes the next one out that has waited long enough.
fn pop_due(waiting: &mut Waiting, now: i64) -> Option<(u32, u64)> {
    let (_, slot, serial) = *waiting.front().filter(|(due, _, _)| *due <= now)?;
    waiting.pop_front();
    Some((slot, serial))
}

/// Text for an event: lossy, cut to a bound.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    bytes[..bytes.len().min(TEXT_LEN_MAX)].to_str_lossy()
}

fn some_text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    (!bytes.is_empty()).then(|| text(bytes))
}

/// The account of a log-in name; `None` where there is none or it is too long.
fn account_of(username: &[u8]) -> Option<Cow<'_, str>> {
    let name = username.trim_ascii();
    (1..=ACCOUNT_LEN_MAX).contains(&name.len()).then(|| fold(name.to_str_lossy()))
}

fn auth_event<'a>(ts: i64, account: Option<Cow<'a, str>>, address: &[u8], method: &'a [u8], ok: bool) -> Event<'a> {
    let auth = Auth { client_ip: line::ip(address), ok, method: some_text(method) };
    Event { ts: Timestamp(ts), account, id: None, tenant: None, kind: Kind::Auth(auth) }
}

/// Where an outcome belongs.
#[derive(Debug, Clone, Copy)]
struct To<'a> {
    account: &'a str,
    queue_id: Option<&'a str>,
    /// The id on the host that says it, where that is another one.
    relay_queue_id: Option<&'a str>,
    relay: Option<&'a str>,
}

impl<'a> To<'a> {
    fn message(m: &'a table::Message, relay: Option<&'a str>) -> Self {
        let relay_queue_id = (m.hop > 0).then(|| m.id.as_str());
        Self { account: &m.account, queue_id: Some(m.first_id.as_str()), relay_queue_id, relay }
    }
}

fn outcome_event<'a>(ts: i64, to: To<'a>, rcpt: &'a [u8], status: Status, dsn: &'a [u8], reply: &'a [u8]) -> Event<'a> {
    let outcome = Outcome {
        relay: to.relay.map(Cow::Borrowed),
        rcpt: text(rcpt),
        status,
        dsn: some_text(dsn),
        reply: some_text(reply),
        queue_id: to.queue_id.map(Cow::Borrowed),
        relay_queue_id: to.relay_queue_id.map(Cow::Borrowed),
    };
    let account = Some(Cow::Borrowed(to.account));
    Event { ts: Timestamp(ts), account, id: None, tenant: None, kind: Kind::Outcome(outcome) }
}

#[cfg(test)]
mod tests;
