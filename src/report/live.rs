//! One incident while the events go by.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::{HashMap, HashSet};

use super::bounded::TopCounts;
use super::data::{AddressRow, Cut, Detail, Leak, NetworkRow, Options};
use super::incident::Incident;
use super::replies;
use super::timeline::{Cell, Timeline};
use crate::core::shard::Step;
use crate::event::{Event, Kind, Outcome, Send, Status, Timestamp};

/// Recipient domains remembered for a message of which it is not known yet whether it belongs to the burst.
const PENDING_DOMAINS_MAX: usize = 50;
/// Sample queue ids.
const QUEUE_IDS_MAX: usize = 10;

/// A message of a flagged account, remembered so that its outcomes find it.
#[derive(Debug)]
pub(super) struct Tied {
    /// Which incident, as an index; `None` for a message before any burst.
    pub incident: Option<u32>,
    pub ts: Timestamp,
    /// Counted as one of the burst's messages.
    pub member: bool,
    /// On which side of the flag; meaningful for members.
    pub before: bool,
    /// What it adds to the side of the flag; kept up until it is a member.
    pub sum: Leak,
    /// The recipients were named at the send, so that outcomes bring no new domains.
    named: bool,
    pub relay: Option<u32>,
    client_ip: Option<IpAddr>,
    pending: Option<Box<Pending>>,
}

/// What is counted only once a message turns out to belong to the burst.
#[derive(Debug, Default)]
struct Pending {
    domains: Vec<Box<str>>,
    mail_from: Option<Box<str>>,
    queue_id: Option<Box<str>>,
}

impl Tied {
    pub fn new(incident: Option<u32>, ts: Timestamp, send: &Send<'_>, relay: Option<u32>, step: &Step) -> Self {
        let pending = incident.is_some().then(|| {
            let domains = send.rcpts.named.iter().map(|r| domain(r).into());
            let owned = |s: &Option<std::borrow::Cow<'_, str>>| s.as_deref().map(Box::from);
            // A message that brings new recipients is a member at once and needs no bound: it is counted and let go.
            let keep = if step.new_recipients > 0 { usize::MAX } else { PENDING_DOMAINS_MAX };
            Box::new(Pending {
                domains: domains.take(keep).collect(),
                mail_from: owned(&send.mail_from),
                queue_id: owned(&send.queue_id),
            })
        });
        Self {
            incident,
            ts,
            member: false,
            before: false,
            sum: Leak {
                messages: 1,
                recipients: send.rcpts.count.max(send.rcpts.named.len() as u64),
                new_recipients: u64::from(step.new_recipients),
                ..Leak::default()
            },
            named: !send.rcpts.named.is_empty(),
            relay,
            client_ip: send.client_ip,
            pending,
        }
    }
}

/// What is gathered for one incident.
#[derive(Debug)]
pub(super) struct Live {
    pub incident: Incident,
    pub before: Leak,
    pub after: Leak,
    pub last_send: Option<Timestamp>,
    /// Burst messages and recipients by relay.
    pub relays: HashMap<u32, (u64, u64)>,
    /// Client networks of the burst, also without detail.
    networks: HashMap<(IpAddr, u8), NetworkRow>,
    networks_beyond: u64,
    detail: Option<Box<LiveDetail>>,
    addresses_cap: usize,
}

#[derive(Debug)]
struct LiveDetail {
    timeline: Timeline,
    addresses: HashMap<IpAddr, AddressRow>,
    addresses_beyond: (u64, u64),
    domains: TopCounts<Box<str>>,
    senders: TopCounts<Box<str>>,
    replies: TopCounts<Box<str>>,
    queue_ids: Vec<String>,
}

impl Live {
    pub fn new(incident: Incident, detailed: bool, options: &Options) -> Self {
        let detail = detailed.then(|| {
            Box::new(LiveDetail {
                timeline: Timeline::new(options.timeline_cells),
                addresses: HashMap::new(),
                addresses_beyond: (0, 0),
                domains: TopCounts::new(options.domains_counted),
                senders: TopCounts::new(options.domains_counted),
                replies: TopCounts::new(options.replies_counted),
                queue_ids: Vec::new(),
            })
        });
        Self {
            incident,
            before: Leak::default(),
            after: Leak::default(),
            last_send: None,
            relays: HashMap::new(),
            networks: HashMap::new(),
            networks_beyond: 0,
            detail,
            addresses_cap: options.addresses_counted.max(1),
        }
    }

    /// Puts an event into the timeline; `sent` is when its message was sent, where that is known.
    pub fn draw(&mut self, event: &Event<'_>, step: &Step, sent: Option<Timestamp>) {
        let Some(detail) = &mut self.detail else { return };
        let new = u64::from(step.new_recipients);
        match &event.kind {
            Kind::Send(s) => {
                let recipients = s.rcpts.count.max(s.rcpts.named.len() as u64);
                detail.timeline.add(event.ts, Cell { recipients, new, refused: 0 });
            }
            Kind::Outcome(o) => {
                if new > 0 {
                    detail.timeline.add(sent.unwrap_or(event.ts), Cell { new, ..Cell::default() });
                }
                if is_refusal(o, step) {
                    detail.timeline.add(event.ts, Cell { refused: 1, ..Cell::default() });
                }
            }
            Kind::Complaint(_) | Kind::Auth(_) => {}
        }
    }

    /// Counts a message as one of the burst's. Returns its relay, which carried a burst at that time.
    pub fn join(&mut self, tied: &mut Tied, known: &HashSet<(IpAddr, u8)>) -> Option<(u32, Timestamp)> {
        tied.member = true;
        let so_far = self.before.messages + self.after.messages;
        tied.before = self.incident.before_flag(tied.ts, so_far);
        *self.side(tied.before) += tied.sum;
        self.last_send = self.last_send.max(Some(tied.ts));
        if let Some(ip) = tied.client_ip {
            self.count_address(ip, tied, known);
        }
        if let (Some(detail), Some(pending)) = (&mut self.detail, tied.pending.take()) {
            for domain in &pending.domains {
                detail.domains.add(&**domain, 1);
            }
            if let Some(from) = &pending.mail_from {
                detail.senders.add(&**from, 1);
            }
            if let Some(id) = pending.queue_id
                && detail.queue_ids.len() < QUEUE_IDS_MAX
            {
                detail.queue_ids.push(id.into());
            }
        }
        self.carried_by(tied)
    }

    /// Counts a member's relay, once that is known.
    pub fn carried_by(&mut self, tied: &Tied) -> Option<(u32, Timestamp)> {
        let relay = tied.relay?;
        let (messages, recipients) = self.relays.entry(relay).or_default();
        *messages += 1;
        *recipients += tied.sum.recipients;
        Some((relay, tied.ts))
    }

    fn side(&mut self, before: bool) -> &mut Leak {
        if before { &mut self.before } else { &mut self.after }
    }

    fn count_address(&mut self, ip: IpAddr, tied: &Tied, known: &HashSet<(IpAddr, u8)>) {
        let (cap, recipients) = (self.addresses_cap, tied.sum.recipients);
        let mut new_address = false;
        if let Some(detail) = &mut self.detail {
            if detail.addresses.len() < cap || detail.addresses.contains_key(&ip) {
                let row = detail.addresses.entry(ip).or_insert_with(|| {
                    new_address = true;
                    AddressRow { ip, first: tied.ts, messages: 0, recipients: 0 }
                });
                row.messages += 1;
                row.recipients += recipients;
            } else {
                detail.addresses_beyond.0 += 1;
                detail.addresses_beyond.1 += recipients;
            }
        }
        let network = network_of(ip);
        if self.networks.len() >= cap && !self.networks.contains_key(&network) {
            self.networks_beyond += 1;
            return;
        }
        let row = self.networks.entry(network).or_insert_with(|| NetworkRow {
            base: network.0,
            bits: network.1,
            first: tied.ts,
            addresses: 0,
            messages: 0,
            recipients: 0,
            known: known.contains(&network),
        });
        row.addresses += u64::from(new_address);
        row.messages += 1;
        row.recipients += recipients;
    }

    /// Counts an outcome of a burst message, or one that cannot be tied to its message.
    pub fn outcome(&mut self, ts: Timestamp, o: &Outcome<'_>, step: &Step, tied: Option<&mut Tied>) {
        let what = leak_of(o, step);
        let before = match &tied {
            Some(t) => t.before,
            None => self.incident.before_flag(ts, 0),
        };
        *self.side(before) += what;
        let Some(detail) = &mut self.detail else { return };
        if let Some(group) = replies::group(o) {
            detail.replies.add(group.as_str(), 1);
        }
        if tied.is_some_and(|t| !t.named) && o.status != Status::Deferred {
            detail.domains.add(domain(&o.rcpt), 1);
        }
    }

    /// How many client networks the burst came from. Beyond the bound every message counts as one more at most.
    pub fn network_count(&self) -> u64 {
        self.networks.len() as u64 + u64::from(self.networks_beyond > 0)
    }

    /// The detail as it is shown.
    pub fn finish_detail(&mut self, options: &Options) -> Option<Detail> {
        let detail = self.detail.take()?;
        let top = options.shown.top;
        let own = |cut: Cut<(Box<str>, u64)>| Cut {
            rows: cut.rows.into_iter().map(|(k, n)| (k.into_string(), n)).collect(),
            more: cut.more,
            more_sum: cut.more_sum,
        };
        let replies = detail.replies.top(top);
        let mut addresses: Vec<AddressRow> = detail.addresses.into_values().collect();
        addresses.sort_by(|a, b| b.recipients.cmp(&a.recipients).then(a.ip.cmp(&b.ip)));
        let mut addresses = Cut::new(addresses, options.shown.addresses, |a| a.recipients);
        addresses.more_sum += detail.addresses_beyond.1;
        // How many addresses lie beyond the bound is not known, only that there are some.
        addresses.more += u64::from(detail.addresses_beyond.0 > 0);
        let mut networks: Vec<NetworkRow> = std::mem::take(&mut self.networks).into_values().collect();
        networks.sort_by(|a, b| b.recipients.cmp(&a.recipients).then(a.base.cmp(&b.base)));
        Some(Detail {
            timeline: detail.timeline,
            addresses,
            networks: Cut::new(networks, options.shown.addresses, |n| n.recipients),
            domains: own(detail.domains.top(top)),
            senders: own(detail.senders.top(top)),
            queue_ids: detail.queue_ids,
            replies: Cut {
                rows: replies.rows.iter().map(|(k, n)| (replies::split(k), *n)).collect(),
                more: replies.more,
                more_sum: replies.more_sum,
            },
        })
    }
}

/// Refused for good, or what the detector calls a refusal.
pub(super) fn is_refusal(o: &Outcome<'_>, step: &Step) -> bool {
    step.refused || matches!(o.status, Status::Bounced | Status::Rejected)
}

/// What one outcome adds to the side of the flag that its message is on.
pub(super) fn leak_of(o: &Outcome<'_>, step: &Step) -> Leak {
    let refused = is_refusal(o, step);
    Leak {
        new_recipients: u64::from(step.new_recipients),
        refused: u64::from(refused),
        delivered: u64::from(!refused && o.status == Status::Delivered),
        deferred: u64::from(!refused && o.status == Status::Deferred),
        expired: u64::from(!refused && o.status == Status::Expired),
        ..Leak::default()
    }
}

/// The network that stands for an address: /16 of IPv4, /32 of IPv6.
pub(super) fn network_of(ip: IpAddr) -> (IpAddr, u8) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            (IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), 16)
        }
        IpAddr::V6(v6) => {
            let [a, b, ..] = v6.segments();
            (IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0)), 32)
        }
    }
}

/// What stands after the last `@`; a recipient without one is shown whole.
pub(super) fn domain(recipient: &str) -> &str {
    recipient.rsplit_once('@').map_or(recipient, |(_, d)| d)
}
