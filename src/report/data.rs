//! The report as plain data: what goes in beside the events, and what the page is drawn from.

use std::net::IpAddr;

use super::incident::Incident;
use super::timeline::Timeline;
use crate::core::replies::Family;
use crate::event::Timestamp;

/// What the report was made from: the page's head. The caller knows it, the collector does not.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// What was read, in the order it was given.
    pub files: Vec<InputFile>,
    /// First and last event time.
    pub period: Option<(Timestamp, Timestamp)>,
    /// IANA name of the zone of the log's stamps; times on the page are in it. Empty or unknown: UTC.
    pub zone: String,
    /// How the year of stamps without one was found, in words ("2012, from the file's name"). Empty: not needed.
    pub year: String,
    /// Lines read.
    pub lines: u64,
    /// Events that they gave.
    pub events: u64,
    /// Lines or records refused, by reason, in the order to show them.
    pub rejects: Vec<(String, u64)>,
    /// Stretches without any line, first and last moment.
    pub gaps: Vec<(Timestamp, Timestamp)>,
    /// Accounts that the detector saw.
    pub accounts_seen: u64,
    /// Program version.
    pub version: String,
    /// Digest of the configuration.
    pub config_digest: String,
    /// When the page was made, in words, where the caller wants it to say so. It makes the bytes differ from run to run.
    pub made_at: Option<String>,
}

/// One file that was read.
#[derive(Debug, Clone, Default)]
pub struct InputFile {
    /// Its name as given on the command line.
    pub name: String,
    /// SHA-256 of its bytes as they lie on disk, in hex.
    pub sha256: String,
    /// Its size on disk.
    pub bytes: u64,
}

/// Bounds of the collector. What lies beyond them is counted, not kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// Incidents that get a section of their own, the gravest first.
    pub incidents_detailed: usize,
    /// Incidents that get a line in the table.
    pub incidents_listed: usize,
    /// How long before a burst its timeline begins.
    pub lead_s: i64,
    /// How long after a burst's send its relay counts as exposed.
    pub tail_s: i64,
    /// Stretches of time that a timeline keeps; when there are more it is kept coarser.
    pub timeline_cells: usize,
    /// Messages of flagged accounts that are remembered to be tied to their outcomes.
    pub messages_tied: usize,
    /// Messages of other accounts, without a relay's name, that are remembered while a relay is exposed.
    pub bystander_messages_tied: usize,
    /// Accounts counted one by one beside a burst, over all relays.
    pub bystanders_counted: usize,
    /// Relays that are told apart.
    pub relays_counted: usize,
    /// Client addresses, and as many networks, kept for an incident.
    pub addresses_counted: usize,
    /// Recipient domains and envelope senders kept for an incident.
    pub domains_counted: usize,
    /// Kinds of reply kept for an incident or a relay.
    pub replies_counted: usize,
    /// How many rows the page shows.
    pub shown: Shown,
}

/// Rows shown of each table.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Client addresses, and as many networks.
    pub addresses: usize,
    /// Recipient domains, envelope senders, sample queue ids, kinds of reply, each.
    pub top: usize,
    /// Relays of an incident, and relays of the collateral list.
    pub relays: usize,
    /// Other accounts on one relay.
    pub bystanders: usize,
    /// Tenants of those accounts on one relay.
    pub tenants: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            incidents_detailed: 200,
            incidents_listed: 2_000,
            lead_s: 6 * 3600,
            tail_s: 3600,
            timeline_cells: 2_048,
            messages_tied: 200_000,
            bystander_messages_tied: 200_000,
            bystanders_counted: 200_000,
            relays_counted: 4_096,
            addresses_counted: 256,
            domains_counted: 2_048,
            replies_counted: 256,
            shown: Shown { addresses: 20, top: 10, relays: 100, bystanders: 50, tenants: 15 },
        }
    }
}

/// The first rows of a list, and how many there are beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut<T> {
    /// What is shown.
    pub rows: Vec<T>,
    /// Rows left out.
    pub more: u64,
    /// What the rows left out add up to, in the unit that the list is sorted by.
    pub more_sum: u64,
}

impl<T> Default for Cut<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), more: 0, more_sum: 0 }
    }
}

impl<T> Cut<T> {
    /// Keeps the first `keep` of `rows`; `value` is what the others are summed by.
    pub(super) fn new(mut rows: Vec<T>, keep: usize, value: impl Fn(&T) -> u64) -> Self {
        let left_out = rows.split_off(keep.min(rows.len()));
        Self { more: left_out.len() as u64, more_sum: left_out.iter().map(value).sum(), rows }
    }
}

/// Everything the page shows.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was read.
    pub inputs: Inputs,
    /// Flagged accounts' incidents: critical ones first, then by time, then by name.
    pub incidents: Vec<IncidentReport>,
    /// Incidents beyond [`Options::incidents_listed`].
    pub incidents_more: u64,
    /// Relays that carried a burst, most burst recipients first.
    pub relays: Cut<Exposure>,
    /// How long after a burst's send its relay counted as exposed.
    pub tail_s: i64,
    /// Other accounts on exposed relays, each counted once.
    pub bystanders: u64,
}

/// What one incident's messages did, on one side of the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leak {
    /// Messages.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Recipients never written to before.
    pub new_recipients: u64,
    /// Recipients whose server accepted.
    pub delivered: u64,
    /// Recipients refused for good.
    pub refused: u64,
    /// Attempts that were put off.
    pub deferred: u64,
    /// Recipients given up on.
    pub expired: u64,
}

impl std::ops::AddAssign for Leak {
    fn add_assign(&mut self, o: Self) {
        self.messages += o.messages;
        self.recipients += o.recipients;
        self.new_recipients += o.new_recipients;
        self.delivered += o.delivered;
        self.refused += o.refused;
        self.deferred += o.deferred;
        self.expired += o.expired;
    }
}

/// One incident: what the detector said and what the events showed.
#[derive(Debug, Clone)]
pub struct IncidentReport {
    /// What the alerts say.
    pub incident: Incident,
    /// Which of the account's incidents this is, counted from 1, and of how many.
    pub nth: (usize, usize),
    /// Burst messages that went out up to the flag, and what became of them.
    pub before: Leak,
    /// Burst messages after the flag.
    pub after: Leak,
    /// The burst's last send.
    pub last_send: Option<Timestamp>,
    /// Client networks of the burst.
    pub networks: u64,
    /// Relays, most recipients first.
    pub relays: Cut<RelayRow>,
    /// Burst messages (and recipients) for which no relay was named.
    pub relay_unknown: (u64, u64),
    /// Only for the first [`Options::incidents_detailed`].
    pub detail: Option<Detail>,
}

impl IncidentReport {
    /// Both sides of the flag together.
    pub fn total(&self) -> Leak {
        let mut all = self.before;
        all += self.after;
        all
    }
}

/// What only a detailed incident has.
#[derive(Debug, Clone)]
pub struct Detail {
    /// Everything the account sent, from some time before the burst.
    pub timeline: Timeline,
    /// Client addresses of burst messages, most recipients first.
    pub addresses: Cut<AddressRow>,
    /// Their networks, most recipients first.
    pub networks: Cut<NetworkRow>,
    /// Recipient domains of the burst.
    pub domains: Cut<(String, u64)>,
    /// Envelope senders, by messages.
    pub senders: Cut<(String, u64)>,
    /// The burst's first queue ids.
    pub queue_ids: Vec<String>,
    /// What remote servers said, grouped: status and words, by answers.
    pub replies: Cut<((String, String), u64)>,
}

/// One client address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressRow {
    /// The address.
    pub ip: IpAddr,
    /// First burst message from there.
    pub first: Timestamp,
    /// Burst messages.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
}

/// One client network: a /16 of IPv4, a /32 of IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRow {
    /// Its first address.
    pub base: IpAddr,
    /// Bits of its prefix.
    pub bits: u8,
    /// First burst message from there.
    pub first: Timestamp,
    /// Distinct addresses, as far as they were kept.
    pub addresses: u64,
    /// Burst messages.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// The account used it in this log before the burst.
    pub known: bool,
}

/// What the burst put on one relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayRow {
    /// The relay.
    pub relay: String,
    /// Burst messages; one counts at the first relay that is named for it.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
}

/// One relay that carried a burst, and who else was on it meanwhile.
#[derive(Debug, Clone)]
pub struct Exposure {
    /// The relay.
    pub relay: String,
    /// First and last burst send through it.
    pub span: (Timestamp, Timestamp),
    /// How long it was exposed in all: the time within the tail of a burst's send.
    pub exposed_s: i64,
    /// Incidents that used it, as indices into [`Report::incidents`]; those beyond the table are left out.
    pub incidents: Vec<usize>,
    /// Burst messages.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Other accounts, most recipients first. What is left out is summed in recipients.
    pub others: Cut<BystanderRow>,
    /// All other accounts together.
    pub others_sum: BystanderRow,
    /// Messages of accounts beyond [`Options::bystanders_counted`]: in the sum, in no row.
    pub uncounted_messages: u64,
    /// By tenant, most recipients first.
    pub tenants: Cut<TenantRow>,
    /// What remote servers said to the others' mail that they did not take, grouped.
    pub replies: Cut<((String, String), u64)>,
}

/// One account that used a relay while a burst was on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BystanderRow {
    /// The account.
    pub account: String,
    /// Its tenant.
    pub tenant: String,
    /// Messages sent while the relay was exposed.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Recipients refused for good while the relay was exposed.
    pub refused: u64,
    /// Attempts that were put off meanwhile.
    pub deferred: u64,
    /// First and last message counted; `None`: none was, only answers.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Who refused or put off its mail because of the relay's address, most first.
    pub blamed: Vec<Blamed>,
    /// The same by further receivers.
    pub blamed_more: u64,
}

/// A receiver that refused an innocent account's mail, or put it off, because of the relay's address.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Blamed {
    /// The recipients' domain, in lower case.
    pub receiver: String,
    /// Whose words these are: the receiver's own, or a list's that it asks.
    pub by: Family,
    /// Attempts.
    pub count: u64,
    /// What it said first, without addresses and numbers of one recipient.
    pub words: String,
}

/// One tenant's accounts together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TenantRow {
    /// The tenant.
    pub tenant: String,
    /// Accounts.
    pub accounts: u64,
    /// Messages.
    pub messages: u64,
    /// Recipients.
    pub recipients: u64,
    /// Refused recipients.
    pub refused: u64,
}
