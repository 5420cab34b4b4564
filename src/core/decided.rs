//! What the decisions of people come to: the bar that an account is weighed against, when its incident is over, whether it is put
//! back to what it was.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use ipnet::IpNet;

use super::account::{Account, domain};
use super::alert::Exempt;
use super::decision::{Decision, Decisions, What};
use super::incident::Incident;
use super::inherit::Learned;
use super::policy::{Policy, Threshold};
use super::scope::Scope;
use super::sends::seconds;
use super::verdict::{self, Stratum, Weighed};
use super::window::{self, Counters};
use crate::event::Timestamp;

/// One exemption that stands.
#[derive(Debug, Clone)]
pub struct Exemption {
    decisions: Arc<Decisions>,
    at: usize,
    /// What it multiplies limits by.
    pub factor: f64,
}

impl Exemption {
    /// Of the exemptions of a list that stand at a moment the one with the largest factor; of several the first.
    fn largest(decisions: &Arc<Decisions>, at: Timestamp) -> Option<Self> {
        let mut largest: Option<Self> = None;
        for (i, decision) in decisions.decisions.iter().enumerate() {
            if let What::Exempt { factor } = decision.what
                && decision.stands(at)
                && largest.as_ref().is_none_or(|l| factor > l.factor)
            {
                largest = Some(Self { decisions: Arc::clone(decisions), at: i, factor });
            }
        }
        largest
    }

    /// As an alert has it.
    pub fn told(&self) -> Exempt {
        let decision = self.decisions.decisions.get(self.at);
        Exempt {
            scope: self.scope().kind().to_owned(),
            name: self.scope().name().into_owned(),
            factor: self.factor,
            until: decision.and_then(|d| d.until).unwrap_or(Timestamp(i64::MAX)),
            by: decision.and_then(|d| d.by.clone()),
            note: decision.and_then(|d| d.note.clone()),
        }
    }

    /// What is exempt.
    pub fn scope(&self) -> &Scope {
        &self.decisions.scope
    }
}

/// What an account is weighed against.
#[derive(Debug, Clone)]
pub struct Bar<'a> {
    /// What it is taken for.
    pub stratum: Stratum,
    /// The thresholds, raised by what is tolerated.
    pub t: Cow<'a, Threshold>,
    /// Of the exemptions of the account, its tenant and its domain the one with the largest factor.
    pub exempt: Option<Exemption>,
    /// The exemptions of networks, where there are any.
    pub networks: Option<Arc<ExemptNetworks>>,
}

impl<'a> Bar<'a> {
    /// The bar of a stratum that nobody has decided anything about.
    pub fn plain(policy: &'a Policy, stratum: Stratum) -> Self {
        Self { stratum, t: Cow::Borrowed(verdict::threshold(policy, stratum)), exempt: None, networks: None }
    }

    /// What limits on counts are multiplied by, networks aside: 1 where nothing is exempt.
    pub fn factor(&self) -> f64 {
        self.exempt.as_ref().map_or(1.0, |e| e.factor)
    }

    /// What the counts of a window count as, which begins at `start_s`: each divided by what its limit is multiplied by. What
    /// came from an exempt network is divided by that network's factor where it is the larger one, the rest by the account's.
    pub fn counts_as(&self, account: &Account, start_s: u32, counted: Counters) -> Counters {
        let mut rest = counted;
        let mut sum = Counters::default();
        for (exemption, share) in self.shares(account, start_s, &counted) {
            // No more than is left: what was forgiven, or was counted before the window, is not there to be taken away.
            let (mut share, mut beyond) = (share, share);
            beyond.take(&rest);
            share.take(&beyond);
            rest.take(&share);
            sum.add(&divided(&share, exemption.factor));
        }
        sum.add(&divided(&rest, self.factor()));
        sum
    }

    /// The exemption that an alert about this window tells of: a network's, where something came from it and it has the larger
    /// factor, else the account's.
    pub fn exemption(&self, account: &Account, weighed: &Weighed) -> Option<Exemption> {
        let start_s = window::start_s(weighed.span_s, account.now_s());
        let shares = self.shares(account, start_s, &weighed.counted).into_iter().map(|(exemption, _)| exemption);
        let largest = shares.reduce(|a, b| if b.factor > a.factor { b } else { a });
        largest.or_else(|| self.exempt.clone())
    }

    /// What came from exempt networks since `start_s`, by exemption, as far as the account's remembered sends say. What was answered
    /// is shared out as recipients are, and complaints, which name no send, are not.
    fn shares(&self, account: &Account, start_s: u32, counted: &Counters) -> Vec<(Exemption, Counters)> {
        let Some(networks) = &self.networks else { return Vec::new() };
        let at = Timestamp(account.clock_ms());
        let mut shares: Vec<(Exemption, Counters)> = Vec::new();
        // Neighbours often came from the same address.
        let (mut before, mut exemption) = (None, None);
        for sent in account.sends().all().filter(|s| seconds(s.ts_ms) >= start_s) {
            if before != sent.client_ip {
                let found = sent.client_ip.and_then(|ip| networks.of(ip, at));
                (before, exemption) = (sent.client_ip, found.filter(|e| e.factor > self.factor()));
            }
            let Some(exemption) = &exemption else { continue };
            let place = shares.iter().position(|(other, _)| Arc::ptr_eq(&other.decisions, &exemption.decisions));
            let place = place.unwrap_or_else(|| {
                shares.push((exemption.clone(), Counters::default()));
                shares.len() - 1
            });
            // An incident that was closed since has accounted for the rest.
            let is_forgiven = sent.ts_ms < account.cleared_ms();
            shares[place].1.add(&sent.counts(is_forgiven));
        }
        let share =
            |all: u32, part: u32, whole: u32| (u64::from(all) * u64::from(part) / u64::from(whole.max(1))) as u32;
        for (_, part) in &mut shares {
            part.refused_quarters = share(counted.refused_quarters, part.refused.min(counted.refused), counted.refused);
            part.answered = share(counted.answered, part.recipients.min(counted.recipients), counted.recipients);
        }
        shares
    }
}

/// Counts by a factor smaller: at `factor` times as many they are what they would be without, and below they are less. What was
/// answered is rounded up, because more answers make the same refusals less.
pub(super) fn divided(c: &Counters, factor: f64) -> Counters {
    if factor == 1.0 {
        return *c;
    }
    // A quotient that is whole must not be lost to the last digit of a double.
    let whole = |n: u32| (f64::from(n) / factor + 1e-9) as u32;
    Counters {
        messages: whole(c.messages),
        recipients: whole(c.recipients),
        volume: whole(c.volume),
        new_recipients: whole(c.new_recipients),
        new_damped: whole(c.new_damped),
        new_foreign: whole(c.new_foreign),
        refused_quarters: 4 * whole(c.refused_quarters.div_ceil(4)),
        refused: whole(c.refused),
        answered: (f64::from(c.answered) / factor).ceil() as u32,
        complaints: whole(c.complaints),
    }
}

/// What is decided about networks.
#[derive(Debug, Clone, Default)]
pub struct ExemptNetworks {
    by_network: BTreeMap<IpNet, Arc<Decisions>>,
    /// How many networks there are of a prefix length (and of 128 more for IPv6): an address is looked for in each.
    lengths: BTreeMap<u16, usize>,
}

fn length(network: IpNet) -> u16 {
    u16::from(network.prefix_len()) + if matches!(network, IpNet::V6(_)) { 128 } else { 0 }
}

impl ExemptNetworks {
    /// The exemption with the largest factor that an address has at a moment; of several that of the widest network.
    pub fn of(&self, ip: IpAddr, at: Timestamp) -> Option<Exemption> {
        let ip = ip.to_canonical();
        let mut largest: Option<Exemption> = None;
        for &length in self.lengths.keys() {
            let prefix = if ip.is_ipv6() { length.checked_sub(128) } else { Some(length) };
            let network = prefix.and_then(|p| IpNet::new(ip, u8::try_from(p).ok()?).ok());
            let Some(decisions) = network.and_then(|n| self.by_network.get(&n.trunc())) else { continue };
            if let Some(exemption) = Exemption::largest(decisions, at)
                && largest.as_ref().is_none_or(|l| exemption.factor > l.factor)
            {
                largest = Some(exemption);
            }
        }
        largest
    }

    fn replace(&mut self, network: IpNet, decisions: Arc<Decisions>) {
        let before = if decisions.decisions.is_empty() {
            self.by_network.remove(&network)
        } else {
            *self.lengths.entry(length(network)).or_default() += 1;
            self.by_network.insert(network, decisions)
        };
        if before.is_some()
            && let Some(n) = self.lengths.get_mut(&length(network))
        {
            *n -= 1;
            if *n == 0 {
                self.lengths.remove(&length(network));
            }
        }
    }
}

/// The decisions that are known to a shard.
#[derive(Debug, Default)]
pub(super) struct Decided {
    accounts: HashMap<Box<str>, Arc<Decisions>>,
    tenants: HashMap<Box<str>, Arc<Decisions>>,
    domains: HashMap<Box<str>, Arc<Decisions>>,
    networks: Arc<ExemptNetworks>,
}

impl Decided {
    pub(super) fn of(&self, account: &str) -> Option<&Arc<Decisions>> {
        // Nearly always there are none at all.
        if self.accounts.is_empty() { None } else { self.accounts.get(account) }
    }

    pub(super) fn replace(&mut self, decisions: Arc<Decisions>) {
        let (map, name) = match &decisions.scope {
            Scope::Account(name) => (&mut self.accounts, name.clone()),
            Scope::Tenant(name) => (&mut self.tenants, name.clone()),
            Scope::Domain(name) => (&mut self.domains, name.clone()),
            Scope::Network(network) => {
                let network = *network;
                return Arc::make_mut(&mut self.networks).replace(network, decisions);
            }
        };
        if decisions.decisions.is_empty() {
            map.remove(&name);
        } else {
            map.insert(name, decisions);
        }
    }

    /// All that is decided about the account, its domain and its tenant: of the nearest last, so that it has the last word.
    fn about(&self, account: &Account) -> impl Iterator<Item = &Arc<Decisions>> {
        let tenant = (!self.tenants.is_empty()).then(|| {
            let tenant = account.tenant();
            let is_folded = !tenant.bytes().any(|b| b.is_ascii_uppercase());
            let folded = if is_folded { Cow::Borrowed(tenant) } else { Cow::Owned(tenant.to_ascii_lowercase()) };
            self.tenants.get(&*folded)
        });
        let domain = (!self.domains.is_empty()).then(|| self.domains.get(domain(account.name())));
        [tenant.flatten(), domain.flatten(), self.of(account.name())].into_iter().flatten()
    }

    /// Everything that is decided about the account and that stands, has stood or will: its own, its domain's, its tenant's, and
    /// those of the networks that its remembered sends came from.
    pub(super) fn all(&self, account: &Account) -> Vec<Arc<Decisions>> {
        let mut all: Vec<Arc<Decisions>> = self.about(account).map(Arc::clone).collect();
        all.reverse();
        let networks = self.networks.by_network.iter();
        let used = networks.filter(|(network, _)| account.sends().addresses().any(|ip| network.contains(&ip)));
        all.extend(used.map(|(_, decisions)| Arc::clone(decisions)));
        all
    }

    /// What the account is weighed against at its clock.
    pub(super) fn bar<'p>(&self, account: &Account, policy: &'p Policy) -> Bar<'p> {
        let at = Timestamp(account.clock_ms());
        let (mut stratum, mut decades, mut exempt) = (account.stratum(), 0.0_f64, None::<Exemption>);
        for decisions in self.about(account) {
            for decision in decisions.standing(at) {
                match &decision.what {
                    What::Tolerate { decades: by } => decades = decades.max(*by),
                    What::Pin { stratum: to } => stratum = *to,
                    What::Exempt { .. } | What::Close { .. } | What::Hijack { .. } | What::Inherit { .. } => {}
                }
            }
            if let Some(exemption) = Exemption::largest(decisions, at)
                && exempt.as_ref().is_none_or(|e| exemption.factor >= e.factor)
            {
                exempt = Some(exemption);
            }
        }
        let t = verdict::threshold(policy, stratum);
        let t = if decades > 0.0 { Cow::Owned(t.raised(decades)) } else { Cow::Borrowed(t) };
        let networks = (!self.networks.by_network.is_empty()).then(|| Arc::clone(&self.networks));
        Bar { stratum, t, exempt, networks }
    }

    /// When an open incident is over, if nothing more comes.
    pub(super) fn due_ms(&self, account: &str, incident: &Incident, quiet_s: u32) -> i64 {
        let quiet_ms = incident.due_ms(quiet_s);
        match self.of(account).and_then(|d| d.closed(&incident.id)) {
            Some(closed) => quiet_ms.min(closed.0.max(incident.flagged_ms)),
            None => quiet_ms,
        }
    }

    /// What the account inherits as of an event: of several the last.
    pub(super) fn inherited(&self, account: &str, at: Timestamp) -> Option<&Learned> {
        let standing = self.of(account)?.standing(at);
        let learned = standing.filter_map(|d| match &d.what {
            What::Inherit { learned, .. } => Some(learned),
            _ => None,
        });
        learned.last()
    }

    /// Whether an incident of the account was called a hijack, as of an event.
    pub(super) fn is_hijack(&self, account: &str, incident: &str, at: Timestamp) -> bool {
        let says = |d: &Decision| matches!(&d.what, What::Hijack { incident: id } if id == incident);
        self.of(account).is_some_and(|d| d.standing(at).any(says))
    }
}
