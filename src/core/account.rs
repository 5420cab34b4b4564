//! One account: what is counted of it, and how an event changes that.

use super::alert::Severity;
use super::baseline::{Baseline, DAY_S, Teaches};
use super::beat;
use super::before::Before;
use super::codec::read_ahead;
use super::contacts::Contacts;
use super::fingerprint::Fingerprint;
use super::incident::Incident;
use super::names::Names;
use super::networks::{Networks, network};
use super::policy::Policy;
use super::recent::Recent;
use super::refusal::{self, Answer};
use super::repeats::Repeats;
use super::replies::Family;
use super::sends::{Sends, Sent, mark, seconds};
use super::shard::Step;
use super::signal::minute_of;
use super::tally::OTHER;
use super::texts::Texts;
use super::verdict::{self, Stratum};
use super::window::{Counters, UNIT, Windows};
use crate::event::{Auth, Event, Kind, Outcome, Send};

/// Relay names that are told apart for one account at a time, one of them being [`OTHER`].
pub(super) const RELAYS_MAX: usize = 512;
/// Bytes of these names.
pub(super) const RELAYS_BYTES_MAX: usize = 16 * 1024;
/// From so many names on a place is given to another name rather than a new one made. Most accounts never have as many.
const RELAYS_FEW: usize = 31;

/// The state of one account; stored packed (`packed`).
#[derive(Debug, Clone, PartialEq)]
pub struct Account {
    pub(super) name: Box<str>,
    /// Where it is not the default that follows from the name.
    pub(super) tenant: Option<Box<str>>,
    pub(super) first_s: u32,
    /// The largest accepted `ts` of its own events, in milliseconds.
    pub(super) clock_ms: i64,
    pub(super) windows: Windows,
    pub(super) baseline: Baseline,
    pub(super) contacts: Contacts,
    pub(super) recipients: Recent,
    pub(super) domains: Recent,
    pub(super) relays: Recent,
    pub(super) networks: Networks,
    pub(super) sends: Sends,
    pub(super) relay_names: Names,
    /// None where no event had an id lately.
    pub(super) repeats: Option<Box<Repeats>>,
    /// As of the beginning of its day.
    pub(super) stratum: Stratum,
    /// When its last incident was over, in milliseconds; 0 where there was none.
    pub(super) cleared_ms: i64,
    /// The open incident.
    pub incident: Option<Box<Incident>>,
    /// What it had learned before its last incidents, oldest first.
    pub(super) before: Vec<Before>,
}

/// What an event means for the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effect {
    /// What is told to whoever passed the event.
    pub step: Step,
    /// The evidence may have grown: weigh it.
    pub weigh: bool,
    /// What an outcome means for relays.
    pub on_relays: OnRelays,
}

/// What an outcome means for relays; places are those of the account's relay names plus one, 0 being none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OnRelays {
    /// Its message went over another relay than it seemed, which was this one, with so many recipients.
    pub moved: Option<(u16, u32)>,
    /// A relay is refused for its address: by whom, and which relay, where the outcome names none.
    pub refused: Option<(Family, u16)>,
}

/// What a relay is counted by among those that were used. The highest bit is set: older programs counted by the place of its name.
pub(super) fn relay_key(relay: &str, prints: &Fingerprint) -> u32 {
    (prints.of(relay) >> 32) as u32 | 1 << 31
}

/// The damped count of `k` recipients in units of 1/1024: log2(1+k), so that one announcement to a hundred is an event and
/// a hundred messages to strangers are a hundred.
pub fn damped(k: u32) -> u32 {
    (f64::from(k).ln_1p() * std::f64::consts::LOG2_E * UNIT).round() as u32
}

impl Account {
    /// An account that is met at `ts_ms`, without a past: [`Stratum::Unknown`] or [`Stratum::New`].
    pub fn new(name: &str, ts_ms: i64, stratum: Stratum) -> Self {
        Self {
            stratum,
            name: name.into(),
            tenant: None,
            first_s: seconds(ts_ms),
            clock_ms: ts_ms,
            windows: Windows::default(),
            baseline: Baseline::default(),
            contacts: Contacts::default(),
            recipients: Recent::default(),
            domains: Recent::default(),
            relays: Recent::default(),
            networks: Networks::default(),
            sends: Sends::default(),
            relay_names: Names::default(),
            repeats: None,
            cleared_ms: 0,
            incident: None,
            before: Vec::new(),
        }
    }

    /// The account as folded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The customer it belongs to: as an event said, else its domain, else itself.
    pub fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or_else(|| crate::event::default_tenant(&self.name))
    }

    /// Its clock, in milliseconds.
    pub fn clock_ms(&self) -> i64 {
        self.clock_ms
    }

    /// Its clock, in seconds.
    pub fn now_s(&self) -> u32 {
        seconds(self.clock_ms)
    }

    /// When its last incident was over, in milliseconds; 0 where there was none.
    pub fn cleared_ms(&self) -> i64 {
        self.cleared_ms
    }

    /// When it was met.
    pub fn first_s(&self) -> u32 {
        self.first_s
    }

    /// What it has taught.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// Its stratum, as of the beginning of its day.
    pub fn stratum(&self) -> Stratum {
        self.stratum
    }

    /// Its windows.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Its client networks.
    pub fn networks(&self) -> &Networks {
        &self.networks
    }

    /// Whom it has written to.
    pub fn contacts(&self) -> &Contacts {
        &self.contacts
    }

    /// Its recent sends.
    pub fn sends(&self) -> &Sends {
        &self.sends
    }

    /// Its recent sends, for marking them.
    pub fn sends_mut(&mut self) -> &mut Sends {
        &mut self.sends
    }

    /// Names of the relays that carried its mail.
    pub fn relay_names(&self) -> &Names {
        &self.relay_names
    }

    /// Distinct recipients, client networks, recipient domains and relays since `start_s`.
    pub fn distinct_since(&self, start_s: u32) -> [u32; 4] {
        [
            self.recipients.count_since(start_s),
            self.networks.count_since(start_s),
            self.domains.count_since(start_s),
            self.relays.count_since(start_s),
        ]
    }

    /// Reads one word of everything that an event will use; see [`super::shard::Shard::look_ahead`].
    pub(super) fn look_ahead(&self) -> u64 {
        read_ahead(self.name.as_bytes(), 1, |&b| b.into())
            .wrapping_add(self.baseline.active_days.into())
            .wrapping_add(self.relay_names.look_ahead())
            .wrapping_add(self.windows.look_ahead())
            .wrapping_add(self.contacts.look_ahead())
            .wrapping_add(self.recipients.look_ahead())
            .wrapping_add(self.domains.look_ahead())
            .wrapping_add(self.relays.look_ahead())
            .wrapping_add(self.networks.look_ahead())
            .wrapping_add(self.sends.look_ahead())
    }

    /// Counts one event.
    pub fn apply(&mut self, event: &Event<'_>, policy: &Policy, prints: &Fingerprint, history_since_s: u32) -> Effect {
        let ts_ms = event.ts.0;
        let at_s = seconds(ts_ms);
        self.clock_ms = self.clock_ms.max(ts_ms);
        let now_s = self.now_s();
        if let Some(id) = &event.id
            && self.repeats.get_or_insert_default().note(prints.of(id), at_s, now_s, policy.detect.repeat_s)
        {
            return Effect { step: Step { duplicate: true, ..Step::default() }, ..Effect::default() };
        }
        if let Some(tenant) = &event.tenant
            && **tenant != *self.tenant()
        {
            self.tenant = Some((**tenant).into());
        }
        self.roll(now_s, policy, history_since_s);
        let late = now_s.saturating_sub(at_s) >= policy.spans.longest_s();
        if let Some(incident) = &mut self.incident {
            incident.totals.at_minute(minute_of(self.clock_ms));
        }
        let mut effect = match &event.kind {
            Kind::Send(send) => self.send(ts_ms, send, policy, prints),
            Kind::Outcome(outcome) => self.outcome(at_s, outcome, policy, prints),
            Kind::Complaint(_) => {
                let what = Counters { complaints: 1, ..Counters::default() };
                self.count(at_s, &what, policy);
                Effect { weigh: true, ..Effect::default() }
            }
            Kind::Auth(auth) => self.auth(at_s, auth, policy),
        };
        effect.step.late = late;
        effect
    }

    /// Moves to the day of `now_s`.
    pub(super) fn roll(&mut self, now_s: u32, policy: &Policy, history_since_s: u32) {
        if self.baseline.is_before(now_s) {
            let teaches = match &self.incident {
                Some(incident) if incident.severity == Severity::Critical => Teaches::Critical,
                _ if self.stratum == Stratum::Unknown => Teaches::Freely,
                _ => Teaches::Clamped,
            };
            self.baseline.roll(now_s, &policy.detect.prior, teaches);
            self.stratum = verdict::stratum(self, policy, history_since_s);
            let oldest_s = now_s.saturating_sub(policy.spans.longest_s());
            self.sends.sweep(now_s, policy.spans.longest_s());
            self.recipients.shrink(oldest_s);
            self.domains.shrink(oldest_s);
            self.relays.shrink(oldest_s);
            if let Some(repeats) = &mut self.repeats {
                repeats.sweep(now_s, policy.detect.repeat_s);
                if repeats.is_default() {
                    self.repeats = None;
                }
            }
            self.windows.compact(&policy.spans, now_s);
            self.drop_before();
        }
    }

    /// Puts the account back to what it was before the incidents that `is_hijack` says yes to, an event at `ts_ms` being the first
    /// that knows of it: see [`Account::put_back`]. Returns whether anything was.
    pub(super) fn put_back_at(
        &mut self,
        ts_ms: i64,
        is_hijack: impl Fn(&str) -> bool,
        policy: &Policy,
        history_since_s: u32,
    ) -> bool {
        // What was kept until now serves, however long the account has been idle.
        if !self.put_back(&is_hijack) {
            return false;
        }
        self.clock_ms = self.clock_ms.max(ts_ms);
        let now_s = self.now_s();
        // The day changes as always, but what lies between teaches nothing.
        let then = self.baseline.clone();
        self.roll(now_s, policy, history_since_s);
        self.baseline = then.on_day_of(now_s);
        self.stratum = verdict::stratum(self, policy, history_since_s);
        true
    }

    fn count(&mut self, at_s: u32, what: &Counters, policy: &Policy) {
        self.windows.add(&policy.spans, self.now_s(), at_s, what);
        self.baseline.count(what);
    }

    fn send(&mut self, ts_ms: i64, send: &Send<'_>, policy: &Policy, prints: &Fingerprint) -> Effect {
        let (at_s, now_s, longest_s) = (seconds(ts_ms), self.now_s(), policy.spans.longest_s());
        let oldest_s = now_s.saturating_sub(longest_s);
        let foreign = send.client_ip.is_some_and(|ip| self.note_client(ip, at_s, policy));
        let mut sent = Sent {
            key: send.queue_id.as_ref().map_or(0, |q| prints.of(q)),
            ts_ms,
            recipients: u32::try_from(send.rcpts.count).unwrap_or(u32::MAX),
            marks: if send.rcpts.named.is_empty() { 0 } else { mark::NAMED } | if foreign { mark::FOREIGN } else { 0 },
            client_ip: send.client_ip,
            texts: send
                .content_hash
                .as_ref()
                .map(|h| Texts::of_content((prints.of(h) >> 32) as u32))
                .unwrap_or_default(),
            ..Sent::default()
        };
        let mut domain_before = None;
        for rcpt in &send.rcpts.named {
            let hash = prints.of_recipient(rcpt);
            let domain = domain(rcpt);
            self.recipients.note(hash, at_s, oldest_s);
            // Recipients of one message often share their domain.
            if domain_before != Some(domain) {
                self.domains.note(prints.of(domain), at_s, oldest_s);
                domain_before = Some(domain);
            }
            if self.contacts.learn(hash) {
                let print = (hash >> 32) as u32;
                match sent.new {
                    0 => sent.begin(send.queue_id.as_deref(), print, domain),
                    _ => {
                        sent.count_domain(domain);
                        sent.push_print(print);
                    }
                }
                sent.new += 1;
            }
        }
        let new_damped = damped(sent.new);
        let what = Counters {
            messages: 1,
            recipients: sent.recipients,
            volume: damped(sent.recipients),
            new_recipients: sent.new,
            new_damped,
            new_foreign: if foreign { new_damped } else { 0 },
            ..Counters::default()
        };
        self.count(at_s, &what, policy);
        if let Some(relay) = &send.relay {
            sent.relay = self.note_relay(relay, at_s, oldest_s, prints);
        }
        let new = sent.new;
        if let Some(incident) = &mut self.incident
            && new > 0
            && ts_ms >= incident.start_ms
        {
            if let Some(content) = incident.totals.join(&mut sent) {
                incident.totals.settle_own(content, &self.sends, incident.start_ms);
            }
            incident.totals.count_more(sent.new, 0, None);
            sent.prints().for_each(|print| incident.totals.count_new(print));
            for (domain, n) in sent.domains() {
                incident.totals.count_domain(domain, u64::from(n));
            }
        }
        self.sends.push(sent, now_s, longest_s, policy.detect.sends_max);
        Effect { step: Step { new_recipients: new, ..Step::default() }, weigh: new > 0, ..Effect::default() }
    }

    fn outcome(&mut self, at_s: u32, outcome: &Outcome<'_>, policy: &Policy, prints: &Fingerprint) -> Effect {
        let (now_s, longest_s) = (self.now_s(), policy.spans.longest_s());
        let oldest_s = now_s.saturating_sub(longest_s);
        let refusal::Said { answer, refuses_relay } = refusal::read(outcome);
        let quarters = answer.quarters();
        let refused = u32::from(quarters > 0);
        let hash = prints.of_recipient(&outcome.rcpt);
        let new = self.contacts.learn(hash);
        let domain = domain(&outcome.rcpt);
        let relay = outcome.relay.as_ref().map_or(0, |relay| self.note_relay(relay, at_s, oldest_s, prints));
        let key = outcome.queue_id.as_ref().map_or(0, |q| prints.of(q));
        let mut what = Counters {
            refused_quarters: quarters,
            refused,
            answered: u32::from(refused > 0 || answer == Answer::Accepted),
            new_recipients: u32::from(new),
            ..Counters::default()
        };
        let (mut named, mut met) = (false, None);
        let mut on_relays = OnRelays { refused: refuses_relay.map(|family| (family, relay)), ..OnRelays::default() };
        if let Some(sent) = self.sends.find(key, now_s, longest_s) {
            named = sent.is(mark::NAMED);
            if new {
                // The k-th new recipient of a message adds log2(1+k) - log2(k).
                what.new_damped = damped(sent.new + 1) - damped(sent.new);
                sent.new += 1;
                sent.push_print((hash >> 32) as u32);
                what.new_foreign = if sent.is(mark::FOREIGN) { what.new_damped } else { 0 };
            }
            sent.refused += refused;
            let relay_before = sent.relay;
            if relay != 0 && !sent.is(mark::RELAY_SURE) {
                sent.relay = relay;
                sent.marks |= mark::RELAY_SURE;
            }
            if sent.relay != relay_before {
                on_relays.moved = Some((relay_before, sent.recipients));
            }
            if let Some((_, at)) = &mut on_relays.refused {
                *at = sent.relay;
            }
            let mut at_domain = None;
            if new || refused > 0 {
                if sent.queue_id().is_none() {
                    sent.keep_queue_id(outcome.queue_id.as_deref());
                }
                at_domain = sent.count_domain(domain).then_some(domain);
            }
            if let Some(incident) = &mut self.incident
                && sent.ts_ms >= incident.start_ms
            {
                if sent.is(mark::COUNTED) && sent.relay != relay_before {
                    incident.totals.move_relay(relay_before, sent.relay, sent.recipients);
                }
                if sent.is_telling() {
                    met = incident.totals.join(sent);
                    if new {
                        incident.totals.count_new((hash >> 32) as u32);
                    }
                    if new || refused > 0 {
                        incident.totals.count_more(u32::from(new), refused, at_domain);
                    }
                }
            }
        } else if new {
            what.new_damped = damped(1);
        }
        if let (Some(content), Some(incident)) = (met, &mut self.incident) {
            incident.totals.settle_own(content, &self.sends, incident.start_ms);
        }
        if !named {
            self.recipients.note(hash, at_s, oldest_s);
            self.domains.note(prints.of(domain), at_s, oldest_s);
        }
        if what != Counters::default() {
            self.count(at_s, &what, policy);
        }
        let step = Step { new_recipients: u32::from(new), refused: refused > 0, ..Step::default() };
        Effect { step, weigh: new || refused > 0, on_relays }
    }

    fn auth(&mut self, at_s: u32, auth: &Auth<'_>, policy: &Policy) -> Effect {
        if auth.ok
            && let Some(ip) = auth.client_ip
        {
            self.note_client(ip, at_s, policy);
        }
        Effect::default()
    }

    /// Notes where the client connected from. Returns whether that network is foreign to the account.
    fn note_client(&mut self, ip: std::net::IpAddr, at_s: u32, policy: &Policy) -> bool {
        if policy.detect.shared_networks.iter().any(|n| n.contains(&ip)) {
            return false;
        }
        let network = network(ip);
        if self.networks.note(network, at_s) {
            self.baseline.note_foreign();
            return true;
        }
        self.networks.is_foreign(network, self.now_s())
    }

    /// Notes the use of a relay. Returns the place of its name, plus one.
    fn note_relay(&mut self, relay: &str, at_s: u32, oldest_s: u32, prints: &Fingerprint) -> u16 {
        let place = match self.relay_names.position(relay) {
            Some(place) => place,
            None => self.place_relay(relay),
        };
        self.relays.note(u64::from(relay_key(relay, prints)) << 32, at_s, oldest_s);
        place as u16 + 1
    }

    /// Older programs counted the relays that were used by the place of the name, plus one: a number that no name has.
    pub(super) fn count_relays_by_name(&mut self, prints: &Fingerprint) {
        let names = &self.relay_names;
        self.relays.rename(|key| {
            let place = (key as usize).checked_sub(1).filter(|place| *place < names.len());
            place.and_then(|place| names.get(place)).map_or(key, |name| relay_key(name, prints))
        });
    }

    /// The place of a relay that has none yet. Of a pool of hundreds an account uses every member in the end: a name of which no
    /// remembered send and no incident speaks any more makes room. So the names depend on the account's own events alone, and a burst
    /// is told apart over as many relays as it went.
    fn place_relay(&mut self, relay: &str) -> usize {
        let more = Names::taken_by(relay);
        if self.relay_names.len() >= RELAYS_FEW {
            let mut used = [false; RELAYS_MAX];
            let of_incident = self.incident.iter().flat_map(|i| i.totals.relay_places());
            for place in self.sends.all().map(|s| s.relay).chain(of_incident) {
                if let Some(used) = usize::from(place).checked_sub(1).and_then(|place| used.get_mut(place)) {
                    *used = true;
                }
            }
            let free = self.relay_names.iter().enumerate().find(|(place, name)| !used[*place] && *name != OTHER);
            if let Some((free, less)) = free.map(|(place, name)| (place, Names::taken_by(name)))
                && self.relay_names.bytes() - less + more <= RELAYS_BYTES_MAX
            {
                self.relay_names.replace(free, relay);
                return free;
            }
        }
        // One place is kept for all that find none: none of them is to be blamed for the others.
        let has_room = self.relay_names.len() + 1 < RELAYS_MAX && self.relay_names.bytes() + more <= RELAYS_BYTES_MAX;
        let name = if has_room { relay } else { OTHER };
        self.relay_names.position(name).unwrap_or_else(|| {
            self.relay_names.push(name);
            self.relay_names.len() - 1
        })
    }

    /// Closes the incident as of `due_ms`: what it accounted for must not open the next one.
    pub fn close(&mut self, due_ms: i64) -> Option<Incident> {
        self.windows.forgive();
        self.cleared_ms = due_ms;
        let incident = self.incident.take().map(|i| *i);
        if incident.as_ref().is_some_and(|i| i.severity == Severity::Critical) {
            self.baseline.note_critical();
        }
        incident
    }

    /// Whether the account has been idle for so long that it counts as never met; one of heartbeats soon is.
    pub fn is_forgotten(&self, now_s: u32, policy: &Policy) -> bool {
        let after_s =
            if beat::is_beat(&self.name) { beat::FORGET_S } else { policy.detect.forget_days.saturating_mul(DAY_S) };
        now_s.saturating_sub(self.now_s()) >= after_s
    }

    /// Bytes that it takes, on the heap and off it.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.name.len()
            + self.windows.heap_bytes()
            + self.contacts.heap_bytes()
            + self.recipients.heap_bytes()
            + self.domains.heap_bytes()
            + self.relays.heap_bytes()
            + self.networks.heap_bytes()
            + self.sends.heap_bytes()
            + self.repeats.as_ref().map_or(0, |r| size_of::<Repeats>() + r.heap_bytes())
            + self.relay_names.heap_bytes()
            + self.incident.as_ref().map_or(0, |_| size_of::<Incident>())
            + self.before.capacity() * size_of::<Before>()
            + self.before.iter().map(Before::heap_bytes).sum::<usize>()
    }
}

/// The part after the last `@`; the whole where there is none.
pub(super) fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or(address, |(_, domain)| domain)
}
