//! The second pass: events go by, what concerns a flagged account or an exposed relay is kept.

use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};

use super::bounded::Ties;
use super::collateral::Relays;
use super::data::{Cut, IncidentReport, Inputs, Options, RelayRow, Report};
use super::incident::Incident;
use super::live::{Live, Tied, network_of};
use crate::core::alert::Alert;
use crate::core::shard::Step;
use crate::event::{Event, Kind, Outcome, Send, Timestamp};

/// Networks remembered from the time before an account's first burst.
const KNOWN_NETWORKS_MAX: usize = 1_024;

/// Gathers what the report shows. Feed it every event of the second pass, in the order of the first.
#[derive(Debug)]
pub struct Collector {
    options: Options,
    live: Vec<Live>,
    accounts: HashMap<Box<str>, Flagged>,
    ties: Ties<Tied>,
    relays: Relays,
}

/// A flagged account: its incidents in the order of time, as indices, with where each one's timeline begins.
#[derive(Debug, Default)]
struct Flagged {
    incidents: Vec<(Timestamp, u32)>,
    known_networks: HashSet<(IpAddr, u8)>,
}

impl Collector {
    /// Prepares for the accounts that `alerts` name. The alerts are those of the first pass over the same input.
    pub fn new(alerts: &[Alert], options: Options) -> Self {
        let mut relays = Relays::new(&options);
        let mut accounts: HashMap<Box<str>, Flagged> = HashMap::new();
        let mut live = Vec::new();
        for (i, incident) in (0u32..).zip(Incident::all_of(alerts)) {
            // The detector knows the relays of its burst up to each alert; they are exposed from the first send on,
            // also where the events name a relay only later.
            for alert in std::iter::once(&incident.flag).chain(&incident.escalated) {
                for share in &alert.relays {
                    if let Some(id) = relays.id(&share.relay) {
                        relays.expose(id, i, incident.first_ts, alert.ts);
                    }
                }
            }
            let account = accounts.entry(incident.flag.account.as_str().into()).or_default();
            account.incidents.push((incident.first_ts, i));
            live.push(Live::new(incident, (i as usize) < options.incidents_detailed, &options));
        }
        for account in accounts.values_mut() {
            account.incidents.sort_unstable();
        }
        Self { ties: Ties::new(options.messages_tied), options, live, accounts, relays }
    }

    /// Counts one event. `step` is what the detector said about it in this pass.
    pub fn event(&mut self, event: &Event<'_>, step: &Step) {
        if step.duplicate || step.late {
            return;
        }
        let Some(account) = event.account.as_deref() else { return };
        if !self.accounts.contains_key(account) {
            self.relays.bystander(event);
            return;
        }
        match &event.kind {
            Kind::Send(s) => self.send(account, event, s, step),
            Kind::Outcome(o) => self.outcome(account, event, o, step),
            Kind::Auth(a) if a.ok => self.learn_network(account, event.ts, a.client_ip),
            Kind::Auth(_) | Kind::Complaint(_) => {}
        }
    }

    fn send(&mut self, account: &str, event: &Event<'_>, s: &Send<'_>, step: &Step) {
        self.learn_network(account, event.ts, s.client_ip);
        let during = self.incident_at(account, event.ts);
        self.draw(account, during, event, step, None);
        let relay = s.relay.as_deref().and_then(|r| self.relays.id(r));
        let mut tied = Tied::new(during, event.ts, s, relay, step);
        if step.new_recipients > 0 {
            self.join(account, &mut tied);
        }
        if let Some(queue_id) = &s.queue_id {
            self.ties.put(account, queue_id, tied);
        }
    }

    fn join(&mut self, account: &str, tied: &mut Tied) {
        let Some(flagged) = self.accounts.get(account) else { return };
        let Some(i) = tied.incident else { return };
        let Some(live) = self.live.get_mut(i as usize) else { return };
        if let Some((relay, ts)) = live.join(tied, &flagged.known_networks) {
            self.relays.expose(relay, i, ts, ts);
        }
    }

    fn outcome(&mut self, account: &str, event: &Event<'_>, o: &Outcome<'_>, step: &Step) {
        let brought = step.new_recipients > 0 || step.refused;
        let tied = o.queue_id.as_deref().and_then(|q| self.ties.get(account, q));
        let Some(tied) = tied else {
            let during = self.incident_at(account, event.ts);
            self.draw(account, during, event, step, None);
            // An outcome whose message is not at hand counts by its own time, unless it names one from before.
            if let Some(live) = during.and_then(|i| self.live.get_mut(i as usize))
                && (brought || o.queue_id.is_none())
            {
                live.outcome(event.ts, o, step, None);
            }
            return;
        };
        let (incident, sent) = (tied.incident, tied.ts);
        if let Some(i) = incident
            && let Some(live) = self.live.get_mut(i as usize)
            && let Some(flagged) = self.accounts.get(account)
        {
            let mut carried = None;
            if tied.relay.is_none() {
                tied.relay = o.relay.as_deref().and_then(|r| self.relays.id(r));
                carried = if tied.member { live.carried_by(tied) } else { None };
            }
            if !tied.member && brought {
                carried = live.join(tied, &flagged.known_networks);
            }
            if let Some((relay, ts)) = carried {
                self.relays.expose(relay, i, ts, ts);
            }
            if tied.member {
                live.outcome(event.ts, o, step, Some(tied));
            } else {
                tied.sum += super::live::leak_of(o, step);
            }
        }
        let during = incident.or_else(|| self.incident_at(account, event.ts));
        self.draw(account, during, event, step, Some(sent));
    }

    /// The incident that `ts` falls into: the last one that began by then, unless it was over.
    fn incident_at(&self, account: &str, ts: Timestamp) -> Option<u32> {
        let incidents = &self.accounts.get(account)?.incidents;
        let begun = incidents.partition_point(|(first, _)| *first <= ts);
        let (_, i) = incidents.get(begun.checked_sub(1)?)?;
        self.live.get(*i as usize)?.incident.covers(ts).then_some(*i)
    }

    /// Draws an event into the timeline of the incident it falls into, else of the one that it comes shortly before.
    fn draw(&mut self, account: &str, during: Option<u32>, event: &Event<'_>, step: &Step, sent: Option<Timestamp>) {
        let lead_ms = self.options.lead_s.max(0).saturating_mul(1000);
        let i = during.or_else(|| {
            let incidents = &self.accounts.get(account)?.incidents;
            let next = incidents.get(incidents.partition_point(|(first, _)| *first <= event.ts))?;
            (event.ts.0 >= next.0.0.saturating_sub(lead_ms)).then_some(next.1)
        });
        if let Some(live) = i.and_then(|i| self.live.get_mut(i as usize)) {
            live.draw(event, step, sent);
        }
    }

    /// Remembers a network that the account used before its first burst.
    fn learn_network(&mut self, account: &str, ts: Timestamp, ip: Option<IpAddr>) {
        let (Some(ip), Some(flagged)) = (ip, self.accounts.get_mut(account)) else { return };
        let before = flagged.incidents.first().is_some_and(|(first, _)| ts < *first);
        if before && flagged.known_networks.len() < KNOWN_NETWORKS_MAX {
            flagged.known_networks.insert(network_of(ip));
        }
    }

    /// Ends the pass.
    pub fn finish(mut self, inputs: Inputs) -> Report {
        let carried = self.live.iter().flat_map(|l| l.relays.iter().map(|(id, sum)| (*id, *sum)));
        let relays = self.relays.finish(carried, &self.options);
        let bystanders = self.relays.bystanders();
        let listed = self.options.incidents_listed;
        let incidents_more = self.live.len().saturating_sub(listed) as u64;
        let mut nth: HashMap<u32, (usize, usize)> = HashMap::new();
        for account in self.accounts.values() {
            for (n, (_, i)) in account.incidents.iter().enumerate() {
                nth.insert(*i, (n + 1, account.incidents.len()));
            }
        }
        let live = std::mem::take(&mut self.live);
        let incidents = (0u32..)
            .zip(live)
            .take(listed)
            .map(|(i, live)| self.finish_one(live, nth.get(&i).copied().unwrap_or((1, 1))))
            .collect();
        Report { inputs, incidents, incidents_more, relays, tail_s: self.options.tail_s, bystanders }
    }

    fn finish_one(&self, mut live: Live, nth: (usize, usize)) -> IncidentReport {
        let networks = live.network_count();
        let detail = live.finish_detail(&self.options);
        let mut relays: Vec<RelayRow> = live
            .relays
            .iter()
            .map(|(id, (messages, recipients))| RelayRow {
                relay: self.relays.name(*id).to_owned(),
                messages: *messages,
                recipients: *recipients,
            })
            .collect();
        relays.sort_by(|a, b| b.recipients.cmp(&a.recipients).then_with(|| a.relay.cmp(&b.relay)));
        let mut total = live.before;
        total += live.after;
        let named = relays.iter().fold((0, 0), |sum, r| (sum.0 + r.messages, sum.1 + r.recipients));
        let relay_unknown = (total.messages.saturating_sub(named.0), total.recipients.saturating_sub(named.1));
        IncidentReport {
            nth,
            networks,
            relay_unknown,
            relays: Cut::new(relays, self.options.shown.relays, |r| r.recipients),
            detail,
            incident: live.incident,
            before: live.before,
            after: live.after,
            last_send: live.last_send,
        }
    }
}
