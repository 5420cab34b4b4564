//! Endpoints at which too much waits. Alerts for them wait in the desk topic, where all stand by number, and are made into messages
//! when there is room; the other endpoints go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Deliveries, PENDING_MAX, ROOM};
use crate::desk::book::About;
use crate::desk::notice::Said;
use crate::desk::record::{BEHIND, Record};
use crate::desk::webhook::grouping::Told;
use crate::desk::webhook::record::BehindRecord;

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
            for record in self.book.take(flagged(n, i64::from(n)), NOW_MS, "").records {
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
