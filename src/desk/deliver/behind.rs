//! Endpoints at which too much waits. Alerts for them wait in the desk topic, where all stand by number, and are made into messages
//! when there is room; the other endpoints go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::said::word;
use super::{Deliveries, PENDING_MAX, ROOM};
use crate::desk::book::{About, Forgotten};
use crate::desk::notice::Said;
use crate::desk::record::{BEHIND, Record};
use crate::desk::webhook::grouping::Told;
use crate::desk::webhook::record::BehindRecord;
use crate::desk::webhook::settings::Facts;

/// Alerts that were forgotten before there was room for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// At which endpoint.
    pub endpoint: String,
    /// How many.
    pub alerts: u64,
    /// The number of the first.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
}

impl Deliveries {
    /// Whether so much waits at an endpoint that no further alert can be made into messages.
    pub(super) fn is_full(&self, endpoint: &str) -> bool {
        self.outbox.health(endpoint).is_some_and(|h| h.pending + ROOM > PENDING_MAX)
    }

    /// From this alert on an endpoint is behind. Returns what must be recorded.
    pub(super) fn falls_behind(&mut self, endpoint: &str, n: u64) -> Record {
        tracing::error!(
            endpoint,
            "{PENDING_MAX} messages wait for it: further alerts for it wait in the desk topic; mend the receiver, \
             `mailfuse webhook enable` it where it had said 410, or take the endpoint out of the configuration"
        );
        self.behind.insert(endpoint.to_owned(), n);
        self.stands(endpoint)
    }

    /// The endpoint that is to catch up, and the number of the first alert for it: of those that have room the one furthest behind.
    pub fn catches_up(&self) -> Option<(String, u64)> {
        // One that is not configured has none, and must not stand before the others.
        let is_configured = |name: &str| self.outbox.health(name).is_some();
        let room = self.behind.iter().filter(|(name, _)| is_configured(name) && !self.is_full(name));
        room.min_by_key(|(_, from)| **from).map(|(name, from)| (name.clone(), *from))
    }

    /// The number of the first alert that no message for an endpoint was made of, where it is behind.
    pub fn behind(&self, endpoint: &str) -> Option<u64> {
        self.behind.get(endpoint).copied()
    }

    /// Takes an alert, as [`Deliveries::take`] does, for one endpoint that is behind; `None` where it has no room. They must come in
    /// the order of their numbers, and [`Deliveries::stands`] must be recorded with what is returned.
    pub fn catch_up(
        &mut self,
        endpoint: &str,
        said: &Arc<Said>,
        n: u64,
        about: &About,
        told: &mut BTreeMap<String, Told>,
        now_ms: i64,
    ) -> Option<Vec<Record>> {
        let i = self.endpoints.iter().position(|e| e.name == endpoint)?;
        if self.is_full(endpoint) {
            return None;
        }
        self.behind.insert(endpoint.to_owned(), n + 1);
        let is_wanted = self.wants(i, said, about, told);
        Some(if is_wanted { self.offer(i, said, n, about, told, now_ms) } else { Vec::new() })
    }

    /// An endpoint has had every alert before this number: where that is all there are, it is behind no more.
    pub fn caught_up(&mut self, endpoint: &str, next: u64) {
        if self.behind.get(endpoint).is_some_and(|from| *from >= next) {
            self.behind.remove(endpoint);
            tracing::info!(endpoint, "it has had every alert now");
        }
    }

    /// What of that which was forgotten an endpoint that is behind will never have had; of a campaign it may be that it would not
    /// have had it anyway.
    pub fn lost(&self, forgotten: &Forgotten) -> Vec<Lost> {
        let of = |(name, from): (&String, &u64)| {
            let endpoint = self.endpoints.iter().find(|e| e.name == *name)?;
            let mut numbers = Vec::new();
            for incident in &forgotten.incidents {
                let knows = incident.told.get(name).is_some_and(|t| *t != Told::Nothing);
                for stage in incident.alerts.iter().filter(|s| s.n >= *from) {
                    let (kind, tenants) = (word(&stage.kind), [&*incident.tenant]);
                    let (severity, pattern) = (incident.severity, Some(incident.pattern));
                    let facts = Facts { kind: &kind, severity, tenants: &tenants, pattern };
                    numbers.extend(endpoint.wants(&facts, knows).then_some(stage.n));
                }
            }
            for notice in forgotten.notices.iter().filter(|notice| notice.n >= *from) {
                let (kind, tenants) = (word(&notice.kind), notice.tenant.as_slice());
                let tenants: Vec<&str> = tenants.iter().map(String::as_str).collect();
                let facts = Facts { kind: &kind, severity: notice.severity, tenants: &tenants, pattern: None };
                numbers.extend(endpoint.wants(&facts, false).then_some(notice.n));
            }
            let (first, last) = (numbers.iter().min().copied()?, numbers.iter().max().copied()?);
            Some(Lost { endpoint: name.clone(), alerts: numbers.len() as u64, first, last })
        };
        self.behind.iter().filter_map(of).collect()
    }

    /// How far an endpoint is behind, to be recorded.
    pub fn stands(&self, endpoint: &str) -> Record {
        match self.behind.get(endpoint) {
            Some(&from) => Record::Behind(Box::new(BehindRecord { v: 1, endpoint: endpoint.to_owned(), from })),
            None => Record::Gone(format!("{BEHIND}{endpoint}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::alert::Severity;
    use crate::desk::book::Book;
    use crate::desk::book::tests::flagged;
    use crate::desk::deliver::ASTRAY_MS;
    use crate::desk::record::Kept;
    use crate::desk::webhook::outcome::Outcome;
    use crate::desk::webhook::record::State;
    use crate::desk::webhook::settings::{Deliver, Endpoint};

    const NOW_MS: i64 = 1_700_000_000_000;

    fn endpoints() -> [Endpoint; 2] {
        let every = |name: &str| Endpoint { name: name.to_owned(), deliver: Deliver::Every, ..Endpoint::default() };
        [every("siem"), Endpoint { min_severity: Severity::Warning, concurrency: 64, ..every("pager") }]
    }

    /// A desk whose topic is a list.
    struct Desk {
        book: Book,
        deliveries: Deliveries,
        topic: Vec<Record>,
    }

    impl Desk {
        fn take(&mut self, n: u32) {
            self.take_one(flagged(n, i64::from(n)));
        }

        fn take_one(&mut self, alert: crate::core::alert::Alert) {
            for record in self.book.take(alert, NOW_MS, "").records {
                if let Record::Alert(kept) = &record {
                    let said = Arc::new(kept.alert.clone());
                    let made =
                        self.deliveries.take(&said, kept.n, &self.book.about(&said), &mut BTreeMap::new(), NOW_MS);
                    self.topic.extend(made);
                }
                self.topic.push(record);
            }
        }

        /// Sends everything that can be sent to the pager, and so many messages to the other; returns the numbers of their alerts.
        fn send(&mut self, mut siem: usize) -> Vec<(String, u64)> {
            let mut sent = Vec::new();
            loop {
                let due = self.deliveries.due(NOW_MS, &|_| None);
                if due.is_empty() {
                    return sent;
                }
                for (attempt, _) in due {
                    let outcome = if attempt.endpoint == "siem" && siem == 0 {
                        Outcome::Gone
                    } else {
                        siem -= usize::from(attempt.endpoint == "siem");
                        sent.push((attempt.endpoint.clone(), attempt.seq));
                        Outcome::Delivered { status: 200 }
                    };
                    let records = self.deliveries.done(attempt.attempt, &outcome, NOW_MS, &mut || 0);
                    self.topic.extend(records);
                }
            }
        }

        fn catch_up(&mut self) {
            let Some((endpoint, from)) = self.deliveries.catches_up() else { return };
            let alert = |r: &Record| match r {
                Record::Alert(kept) if kept.n >= from => Some(kept.clone()),
                _ => None,
            };
            let waiting: Vec<Box<Kept>> = self.topic.iter().filter_map(alert).collect();
            for kept in waiting {
                let said = Arc::new(kept.alert);
                let made = self.deliveries.catch_up(
                    &endpoint,
                    &said,
                    kept.n,
                    &self.book.about(&said),
                    &mut BTreeMap::new(),
                    NOW_MS,
                );
                let Some(made) = made else { break };
                self.topic.extend(made);
            }
            self.deliveries.caught_up(&endpoint, self.book.next());
            self.topic.push(self.deliveries.stands(&endpoint));
        }

        /// Another desk, with what the topic has.
        fn taken_over(self) -> Self {
            self.taken_over_with(&endpoints())
        }

        fn taken_over_with(self, endpoints: &[Endpoint]) -> Self {
            let mut deliveries = Deliveries::new(endpoints, "");
            self.topic.iter().for_each(|record| deliveries.restore(record));
            let wanting = deliveries.restored(NOW_MS);
            for record in &self.topic {
                if let Record::Alert(kept) = record
                    && let Some(&messages) = wanting.get(kept.alert.id())
                {
                    deliveries.give(kept.alert.clone(), messages);
                }
            }
            Self { deliveries, ..self }
        }
    }

    #[test]
    fn an_endpoint_that_is_full_stops_nobody_else_and_gets_everything_in_the_end() {
        let mut desk = Desk { book: Book::default(), deliveries: Deliveries::new(&endpoints(), ""), topic: Vec::new() };
        let (all, mut sent) = (PENDING_MAX as u32 + 2_000, Vec::new());
        for n in 0..all {
            desk.take(n);
            // With its first answer the one says that it wants nothing; the other takes what comes.
            if n % 1_000 == 0 {
                sent.extend(desk.send(0));
            }
        }
        let to = |sent: &[(String, u64)], name: &str| -> Vec<u64> {
            sent.iter().filter(|(to, _)| to == name).map(|(_, n)| *n).collect()
        };
        sent.extend(desk.send(0));
        let mut paged = to(&sent, "pager");
        paged.sort_unstable();
        assert!(paged.iter().copied().eq(0..u64::from(all)), "the other one has all of them, not {}", paged.len());
        let from = desk.deliveries.behind("siem").unwrap();
        assert_eq!(from, (PENDING_MAX + 1 - ROOM) as u64);
        assert_eq!(desk.deliveries.catches_up(), None, "there is no room");
        let mut desk = desk.taken_over();
        assert_eq!(desk.deliveries.behind("siem"), Some(from));
        desk.deliveries.enable("siem", NOW_MS).unwrap();
        let mut got = to(&desk.send(1_500), "siem");
        desk.catch_up();
        assert!(desk.deliveries.behind("siem").is_some_and(|n| n > from), "some way");
        // What comes now waits behind what came before.
        desk.take(all);
        let mut desk = desk.taken_over();
        while desk.deliveries.behind("siem").is_some() {
            desk.deliveries.enable("siem", NOW_MS).unwrap();
            got.extend(to(&desk.send(4_000), "siem"));
            desk.catch_up();
        }
        desk.take(all + 1);
        desk.deliveries.enable("siem", NOW_MS).unwrap();
        got.extend(to(&desk.send(usize::MAX), "siem"));
        got.sort_unstable();
        assert!(got.iter().copied().eq(0..u64::from(all) + 2), "each once, not {}", got.len());
        let desk = desk.taken_over();
        assert_eq!(desk.deliveries.behind("siem"), None);
    }

    /// An alert that ends an incident.
    fn cleared(n: u32) -> crate::core::alert::Alert {
        let mut alert = flagged(n, i64::from(n));
        alert.id = format!("a-{n}-over");
        alert.kind = crate::core::alert::AlertKind::Cleared;
        alert
    }

    fn desk(endpoints: &[Endpoint]) -> Desk {
        Desk { book: Book::default(), deliveries: Deliveries::new(endpoints, ""), topic: Vec::new() }
    }

    #[test]
    fn what_waits_is_said_in_the_same_words_by_whoever_takes_over_however_old_it_is() {
        let mut desk = desk(&endpoints()[..1]);
        for n in 0..3 {
            desk.take_one(flagged(n, i64::from(n)));
            desk.take_one(cleared(n));
        }
        // The first message has left.
        let (first, said) = desk.deliveries.due(NOW_MS, &|_| None).into_iter().next().unwrap();
        assert_eq!(first.incident, "i-0");
        let rest: Vec<String> = desk.deliveries.needs().into_iter().map(str::to_owned).collect();
        assert!(rest.len() > 6, "incidents and alerts: {rest:?}");
        desk.topic.extend(desk.deliveries.done(first.attempt, &Outcome::Delivered { status: 200 }, NOW_MS, &mut || 0));
        // Everything is over for longer than it is kept.
        let (book, deliveries) = (&mut desk.book, &desk.deliveries);
        let needs = deliveries.needs();
        desk.topic.extend(book.forget(i64::MAX, &|id| needs.contains(id)).records);
        assert!(desk.book.incident("i-0").is_some() && desk.book.incident("i-2").is_some());
        // As compaction leaves it.
        let gone: Vec<String> = desk.topic.iter().filter(|r| matches!(r, Record::Gone(_))).map(Record::key).collect();
        desk.topic.retain(|r| !gone.contains(&r.key()));
        let mut next = desk.taken_over();
        let mut left = Vec::new();
        loop {
            let due = next.deliveries.due(NOW_MS, &|_| None);
            let Some(_) = due.first() else { break };
            for (attempt, message) in due {
                assert!(matches!(message.what, crate::desk::webhook::body::What::Alert(_)), "{message:?}");
                left.push((attempt.incident, message.kind));
                next.deliveries.done(attempt.attempt, &Outcome::Delivered { status: 200 }, NOW_MS, &mut || 0);
            }
        }
        left.sort_unstable();
        let both = |n: u32| ["account.cleared", "account.flagged"].map(|kind| (format!("i-{n}"), kind.to_owned()));
        assert_eq!(left, [both(0)[..1].to_vec(), both(1).to_vec(), both(2).to_vec()].concat(), "{said:?}");
        // What has left is forgotten; the last number stays.
        let needs = next.deliveries.needs();
        assert_eq!(needs.len(), 0);
        assert_eq!(next.book.forget(i64::MAX, &|id| needs.contains(id)).incidents.len(), 2);
    }

    #[test]
    fn what_an_endpoint_that_is_behind_will_never_have_is_counted() {
        let wants = Endpoint { kinds: vec!["account.flagged".to_owned()], ..endpoints()[0].clone() };
        let mut desk = desk(&[wants]);
        for n in 0..10 {
            desk.take_one(flagged(n, i64::from(n)));
            desk.take_one(cleared(n));
        }
        let behind = |endpoint: &str| BehindRecord { v: 1, endpoint: endpoint.to_owned(), from: 7 };
        for endpoint in ["siem", "gone"] {
            desk.deliveries.restore(&Record::Behind(Box::new(behind(endpoint))));
        }
        let forgotten = desk.book.forget(i64::MAX, &|id| ["i-5", "i-6"].contains(&id));
        // 0 to 6 it has had; of the others it wants every second; 10 and 12 wait, and the last number is kept.
        let lost = Lost { endpoint: "siem".to_owned(), alerts: 3, first: 8, last: 16 };
        assert_eq!(desk.deliveries.lost(&forgotten), [lost]);
        assert_eq!(desk.deliveries.lost(&desk.book.forget(i64::MAX, &|_| false)).len(), 1, "each is counted once");
        assert_eq!(desk.deliveries.lost(&desk.book.forget(i64::MAX, &|_| false)), []);
    }

    #[test]
    fn what_waits_for_an_endpoint_that_was_taken_out_is_given_up() {
        let mut desk = Desk { book: Book::default(), deliveries: Deliveries::new(&endpoints(), ""), topic: Vec::new() };
        (0..3).for_each(|n| desk.take(n));
        let mut desk = desk.taken_over_with(&endpoints()[1..]);
        let behind = |endpoint: &str, from| BehindRecord { v: 1, endpoint: endpoint.to_owned(), from };
        for (endpoint, from) in [("siem", 1), ("pager", 2)] {
            desk.deliveries.restore(&Record::Behind(Box::new(behind(endpoint, from))));
        }
        assert_eq!(desk.deliveries.catches_up(), Some(("pager".to_owned(), 2)), "it stands before nobody");
        // A desk with the old configuration may be active for a moment.
        assert_eq!(desk.deliveries.forget(0, NOW_MS + ASTRAY_MS - 1), []);
        let given_up = desk.deliveries.forget(0, NOW_MS + ASTRAY_MS);
        let dead = |r: &Record| match r {
            Record::Delivery(d) => d.endpoint == "siem" && d.state == State::Dead && d.last.is_some(),
            _ => false,
        };
        assert!(given_up.len() == 3 && given_up.iter().all(dead), "{given_up:?}");
        desk.topic.extend(given_up);
        // Put back, it does not get what is old.
        let mut desk = desk.taken_over();
        assert!(desk.send(usize::MAX).iter().all(|(endpoint, _)| endpoint == "pager"));
    }
}
