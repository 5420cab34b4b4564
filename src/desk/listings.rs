//! Blocklists at the desk: what an answer leads to, as records of the desk topic and notices. Pure; the active desk holds one.
//!
//! A listing is told and counted, and pulls nothing by itself: a list can be wrong, and what it is right about has happened.

use std::collections::BTreeMap;

use super::book::Book;
use super::in_time::{self, InTime, OfRelay, SPAN_MS, moments};
use super::measures::{Measures, Written};
use super::notice::{self, ACCOUNTS_MAX, AccountShare, Notice, NoticeKind, Reason};
use super::record::{LISTING, Record, WATCHED};
use crate::core::alert::{Action, Severity};
use crate::event::Timestamp;
use crate::relays::Settings;
use crate::relays::listing::record::{Listing, PAUSE_MS, SPANS_MAX, Span, Watched};
use crate::relays::listing::schedule::{Standing, Target};
use crate::relays::listing::{Change, settings};
use crate::relays::measure::{Kind, Measure};

/// Listings that are kept at most: those that ended first make room.
pub const LISTINGS_MAX: usize = 20_000;
/// How often it is recorded what was asked, in milliseconds.
const RECORD_MS: i64 = 1_800_000;
/// An incident is judged so long after its first spam, in milliseconds: by then each list has been asked after the day, as it is once
/// an hour at least.
const JUDGE_MS: i64 = SPAN_MS + 2 * 3_600_000;
/// How often it is looked which are due, in milliseconds.
const JUDGE_EVERY_MS: i64 = 60_000;
/// Relays of a burst that are looked at.
const RELAYS_MAX: usize = 64;

/// What came of a change.
#[derive(Debug, Default)]
pub struct Taken {
    /// What is to be written.
    pub written: Written,
    /// Of a new listing: whether the relay was out before; and the first sends of the bursts that it carried on the day before.
    pub listed: Option<(InTime, Vec<Timestamp>)>,
}

/// All listings, and what is asked since when.
#[derive(Debug, Default)]
pub struct Listings {
    by_id: BTreeMap<String, Listing>,
    /// By relay, oldest first.
    spans: BTreeMap<String, Vec<Span>>,
    recorded_ms: i64,
    /// Incidents whose first spam lies before it have been judged, or never will be.
    judged: Timestamp,
    looked_ms: i64,
}

/// The addresses that lists are asked for.
pub fn targets(settings: &Settings) -> Vec<Target> {
    let each = settings.members().flat_map(|(_, member)| member.address.iter().map(move |address| (member, address)));
    each.map(|(member, address)| Target { relay: member.relay.clone(), address: *address }).collect()
}

impl Listings {
    /// Takes in what the topic has.
    pub fn restore(&mut self, record: &Record) {
        match record {
            Record::Listing(listing) => _ = self.by_id.insert(listing.id.clone(), (**listing).clone()),
            Record::Watched(watched) => _ = self.spans.insert(watched.relay.clone(), watched.spans.clone()),
            Record::Gone(key) => {
                if let Some(id) = key.strip_prefix(LISTING) {
                    self.by_id.remove(id);
                } else if let Some(relay) = key.strip_prefix(WATCHED) {
                    self.spans.remove(relay);
                }
            }
            _ => {}
        }
    }

    fn open(&self) -> impl Iterator<Item = &Listing> {
        self.by_id.values().filter(|l| l.until.is_none())
    }

    /// What stands.
    pub fn standing(&self) -> Vec<Standing> {
        let standing = |l: &Listing| Standing {
            target: Target { relay: l.relay.clone(), address: l.address },
            zone: l.zone.clone(),
            codes: l.codes.clone(),
        };
        self.open().map(standing).collect()
    }

    /// How many stand in a zone.
    pub fn standing_in(&self, zone: &str) -> usize {
        self.open().filter(|l| l.zone == zone).count()
    }

    /// Ends what nobody asks for any more: `is_watched` says what is asked. Returns what is to be written.
    pub fn begin(&mut self, is_watched: &dyn Fn(&Target, &str) -> bool, by: &str, now_ms: i64) -> Written {
        let is_open = |l: &Listing| is_watched(&Target { relay: l.relay.clone(), address: l.address }, &l.zone);
        let lost: Vec<Listing> = self.open().filter(|l| !is_open(l)).cloned().collect();
        let mut written = Written::default();
        for mut listing in lost {
            listing.until = Some(Timestamp(now_ms));
            listing.unwatched = true;
            let text = format!(
                "{}: whether {} is still listed by {} is not known: it is not asked any more",
                listing.relay, listing.address, listing.zone
            );
            written.notices.push(notice(&listing, Reason { observed: 0.0, ..reason(text) }, by));
            self.keep(listing, &mut written);
        }
        self.recorded_ms = now_ms;
        (self.judged, self.looked_ms) = (Timestamp(now_ms - JUDGE_MS), now_ms);
        written
    }

    /// Whether we were in time, of each critical incident whose day has been over for two hours since it was last asked. So each is
    /// judged once, by the desk that is active then.
    pub fn judge(&mut self, settings: &Settings, book: &Book, measures: &Measures, now_ms: i64) -> Vec<InTime> {
        if (0..JUDGE_EVERY_MS).contains(&(now_ms - self.looked_ms)) {
            return Vec::new();
        }
        self.looked_ms = now_ms;
        let until = Timestamp(now_ms - JUDGE_MS);
        let due = std::mem::replace(&mut self.judged, until)..until;
        let of_relay = |host: &str| {
            let mut of = OfRelay { host: host.to_owned(), ..OfRelay::default() };
            if let Some((_, member)) = settings.by_host(host) {
                let ours = |l: &&Listing| l.relay == member.relay;
                of.relay = Some(member.relay.clone());
                of.pulls =
                    measures.all().filter(|m| m.kind == Kind::Pull && m.subject == member.relay).cloned().collect();
                of.listings = self.by_id.values().filter(ours).cloned().collect();
                of.spans = self.spans.get(&member.relay).cloned().unwrap_or_default();
            }
            of
        };
        book.incidents()
            .filter(|i| i.severity == Severity::Critical && in_time::is_hijack(i))
            .filter(|i| i.first.is_some_and(|first| due.contains(&first)))
            .map(|i| {
                let relays: Vec<OfRelay> = i.relays.iter().take(RELAYS_MAX).map(|s| of_relay(&s.relay)).collect();
                moments(i, &[], &relays, now_ms).in_time
            })
            .collect()
    }

    fn keep(&mut self, listing: Listing, written: &mut Written) {
        self.by_id.insert(listing.id.clone(), listing.clone());
        written.records.push(Record::Listing(Box::new(listing)));
    }

    /// Notes that a list answered for an address, and that what it said is known.
    pub fn answered(&mut self, target: &Target, zone: &str, at: Timestamp) {
        let spans = self.spans.entry(target.relay.clone()).or_default();
        let same = |s: &Span| s.address == target.address && s.zone == zone;
        match spans.iter_mut().rev().find(|s| same(s)) {
            Some(last) if at.0 - last.until.0 <= PAUSE_MS => last.until = last.until.max(at),
            _ => {
                if spans.iter().filter(|s| same(s)).count() >= SPANS_MAX
                    && let Some(oldest) = spans.iter().position(same)
                {
                    spans.remove(oldest);
                }
                spans.push(Span { address: target.address, zone: zone.to_owned(), since: at, until: at });
            }
        }
    }

    /// What was asked since it was last recorded, where that is long enough ago.
    pub fn record(&mut self, now_ms: i64) -> Vec<Record> {
        if (0..RECORD_MS).contains(&(now_ms - self.recorded_ms)) {
            return Vec::new();
        }
        let since_ms = std::mem::replace(&mut self.recorded_ms, now_ms);
        let asked = self.spans.iter().filter(|(_, spans)| spans.iter().any(|s| s.until.0 >= since_ms));
        asked
            .map(|(relay, spans)| Watched { v: 1, relay: relay.clone(), spans: spans.clone() })
            .map(|watched| Record::Watched(Box::new(watched)))
            .collect()
    }

    /// Takes what a list says otherwise than before.
    pub fn take(&mut self, change: &Change, settings: &Settings, book: &Book, measures: &Measures, by: &str) -> Taken {
        let same = |l: &&Listing| l.relay == change.relay && l.address == change.address && l.zone == change.zone;
        let standing = self.open().find(same).cloned();
        let mut taken = Taken::default();
        match (change.listed, standing) {
            (true, None) => {
                let mut listing = self.listing(change, &settings.listing);
                let member = settings.members().find(|(_, m)| m.relay == change.relay).map(|(_, member)| member);
                let shares = member.map(|m| burdens(book, m.host(), change.at)).unwrap_or_default();
                listing.tenant = member.map(|m| m.tenant.clone()).unwrap_or_default();
                listing.accounts = shares.iter().take(ACCOUNTS_MAX).map(|(share, _)| share.clone()).collect();
                let pulls: Vec<_> =
                    measures.all().filter(|m| m.kind == Kind::Pull && m.subject == change.relay).collect();
                let since = shares.iter().map(|(_, first)| *first).min();
                let was_out = since.map_or(InTime::Unknown, |since| in_time::pulled_before(&pulls, &listing, since));
                taken.written.notices.push(listed(&listing, &shares, &pulls, by));
                self.keep(listing, &mut taken.written);
                taken.listed = Some((was_out, shares.into_iter().map(|(_, first)| first).collect()));
            }
            (false, Some(mut listing)) => {
                listing.until = Some(change.at);
                let text = format!("{}: {} is not listed by {} any more", listing.relay, listing.address, listing.zone);
                taken.written.notices.push(notice(&listing, Reason { observed: 0.0, ..reason(text) }, by));
                self.keep(listing, &mut taken.written);
            }
            // It is known.
            (true, Some(_)) | (false, None) => {}
        }
        taken
    }

    fn listing(&self, change: &Change, settings: &settings::Settings) -> Listing {
        let known = settings.zones.iter().find(|z| z.name == change.zone).map(|z| &z.codes);
        let mut reasons: Vec<String> =
            change.codes.iter().filter_map(|code| known?.get(code)).filter(|word| !word.is_empty()).cloned().collect();
        reasons.dedup();
        let same = |s: &&Span| s.address == change.address && s.zone == change.zone;
        let clean = self.spans.get(&change.relay).and_then(|spans| spans.iter().rfind(same));
        let parts = [&*change.relay, &change.address.to_string(), &change.zone, &change.at.0.to_string()];
        Listing {
            v: 1,
            id: notice::id('l', &parts),
            relay: change.relay.clone(),
            address: change.address,
            zone: change.zone.clone(),
            codes: change.codes.clone(),
            reasons,
            clean: clean.map(|span| span.until),
            since: change.at,
            until: None,
            unwatched: false,
            tenant: String::new(),
            accounts: Vec::new(),
        }
    }

    /// Forgets what ended before `before_ms`, and what is too much. Returns what must be written.
    pub fn forget(&mut self, before_ms: i64) -> Vec<Record> {
        let mut ended: Vec<(Timestamp, String)> =
            self.by_id.values().filter_map(|l| Some((l.until?, l.id.clone()))).collect();
        ended.sort_unstable();
        let surplus = self.by_id.len().saturating_sub(LISTINGS_MAX);
        let old = |(i, (at, _)): &(usize, (Timestamp, String))| at.0 < before_ms || *i < surplus;
        let gone: Vec<String> = ended.into_iter().enumerate().filter(old).map(|(_, (_, id))| id).collect();
        let mut records = Vec::new();
        for id in gone {
            self.by_id.remove(&id);
            records.push(Record::Gone(format!("{LISTING}{id}")));
        }
        self.spans.retain(|relay, spans| {
            // What is not asked any more goes with the relay's next record.
            spans.retain(|s| s.until.0 >= before_ms);
            if spans.is_empty() {
                records.push(Record::Gone(format!("{WATCHED}{relay}")));
            }
            !spans.is_empty()
        });
        records
    }
}

/// Whose bursts went over a relay on the day before `at`, most recipients first, with the first send of each. `host` is what events
/// call the relay.
fn burdens(book: &Book, host: &str, at: Timestamp) -> Vec<(AccountShare, Timestamp)> {
    let mut shares: Vec<(AccountShare, Timestamp)> = book
        .incidents()
        .filter(|incident| in_time::is_hijack(incident))
        .filter_map(|incident| {
            let first = incident.first.filter(|first| (0..=in_time::SPAN_MS).contains(&(at.0 - first.0)))?;
            let share = incident.relays.iter().find(|share| share.relay == host)?;
            let (account, id) = (incident.account.clone(), incident.id.clone());
            Some((AccountShare { account, incident: id, recipients: share.recipients }, first))
        })
        .collect();
    shares.sort_by(|(a, _), (b, _)| b.recipients.cmp(&a.recipients).then_with(|| a.account.cmp(&b.account)));
    shares
}

fn reason(text: String) -> Reason {
    Reason { signal: "listing".to_owned(), window_s: 0, observed: 1.0, expected: 0.0, limit: 1.0, weight: 0.0, text }
}

fn listed(listing: &Listing, shares: &[(AccountShare, Timestamp)], pulls: &[&Measure], by: &str) -> Notice {
    let codes: Vec<String> = listing.codes.iter().map(ToString::to_string).collect();
    let mut text = format!("{}: {} is listed by {} ({}", listing.relay, listing.address, listing.zone, codes.join(" "));
    for (i, word) in listing.reasons.iter().enumerate() {
        text.push_str(if i == 0 { ": " } else { ", " });
        text.push_str(word);
    }
    text.push(')');
    let mut notice = notice(listing, reason(text), by);
    let recipients = shares.iter().fold(0u64, |sum, (share, _)| sum.saturating_add(share.recipients));
    if recipients > 0 {
        notice.evidence.push(Reason {
            signal: "exposure".to_owned(),
            window_s: (in_time::SPAN_MS / 1000) as u32,
            observed: recipients as f64,
            limit: 0.0,
            ..reason(format!("bursts of the day before went over it to {recipients} recipients"))
        });
    }
    if !pulls.iter().any(|m| m.is_in_force(listing.since.0)) {
        notice.action = Action::PullRelay;
    }
    notice
}

fn notice(listing: &Listing, reason: Reason, by: &str) -> Notice {
    let (kind, stage) = match listing.until {
        None => (NoticeKind::Listed, "listed"),
        Some(_) => (NoticeKind::Delisted, "delisted"),
    };
    Notice {
        v: 1,
        id: notice::id('n', &["listing", &listing.id, stage]),
        kind,
        ts: listing.until.unwrap_or(listing.since),
        severity: Severity::Critical,
        account: None,
        tenant: Some(listing.tenant.clone()).filter(|tenant| !tenant.is_empty()),
        relay: Some(listing.relay.clone()),
        incident: listing.id.clone(),
        campaign: None,
        accounts: listing.accounts.clone(),
        evidence: vec![reason],
        relays: Vec::new(),
        action: Action::None,
        by: by.to_owned(),
    }
}
