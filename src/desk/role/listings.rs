//! What the active desk does about blocklists, and how long things took from the first spam on.

use std::time::{Duration, Instant};

use super::{Active, BY, Error, FORGET};
use crate::desk::listings::{Listings, targets};
use crate::desk::measures::Written;
use crate::desk::record::Record;
use crate::desk::shared::Shared;
use crate::desk::watch::Asking;
use crate::kafka::outlet::now_ms;
use crate::relays::listing::schedule::Watch;

/// How often it is shown what stands.
const SHOW: Duration = Duration::from_secs(1);

/// The lists of an active desk.
#[derive(Debug, Default)]
pub(super) struct Lists {
    listings: Listings,
    asking: Option<Asking>,
    shown: Option<Instant>,
    forgot: Option<Instant>,
}

impl Lists {
    /// Takes in what the topic has.
    pub(super) fn restore(&mut self, record: &Record) {
        self.listings.restore(record);
    }

    /// Begins to ask, with what stands. Returns what is to be written of listings that nobody asks for any more.
    pub(super) fn begin(&mut self, shared: &Shared) -> Result<Written, Error> {
        let (settings, now_ms) = (&shared.relays, now_ms());
        let watch = Watch::new(&settings.listing, &targets(settings), &self.listings.standing(), now_ms);
        let ended = self.listings.begin(&|target, zone| watch.watches(target, zone), BY, now_ms);
        self.asking = Asking::start(&settings.listing, watch, &shared.metrics)?;
        Ok(ended)
    }
}

impl Active<'_> {
    /// Takes in what lists have said.
    pub(super) fn see_to_lists(&mut self) {
        let (metrics, settings, now_ms) = (&self.shared.metrics.listing, &self.shared.relays, now_ms());
        let Lists { listings, asking, shown, forgot } = &mut self.lists;
        for heard in asking.iter().flat_map(Asking::news) {
            if let Some(change) = heard.change {
                let taken = listings.take(&change, settings, &self.book, &self.relays, BY);
                if let Some((in_time, firsts)) = taken.listed {
                    metrics.listed(in_time.name());
                    firsts.iter().for_each(|first| metrics.after("listed", change.at.0 - first.0));
                }
                self.records.extend(taken.written.records);
                self.notices.extend(taken.written.notices);
            }
            listings.answered(&heard.target, &heard.zone, heard.at);
        }
        self.records.extend(listings.record(now_ms));
        if asking.is_some() {
            let judged = listings.judge(settings, &self.book, &self.relays, now_ms);
            judged.iter().for_each(|in_time| metrics.judged(in_time.name()));
        }
        let is_due = |last: &Option<Instant>, every| last.is_none_or(|at| at.elapsed() >= every);
        if is_due(forgot, FORGET) {
            *forgot = Some(Instant::now());
            self.records.extend(listings.forget(now_ms - self.shared.settings.keep_ms()));
        }
        if is_due(shown, SHOW) {
            *shown = Some(Instant::now());
            for zone in &settings.listing.zones {
                metrics.standing(&zone.name, listings.standing_in(&zone.name));
            }
        }
    }

    /// Counts how long things took that are done by now.
    pub(super) fn time(&self, written: &Written) {
        for timed in &written.timed {
            let first = timed.incidents.iter().filter_map(|id| self.book.incident(id)?.first).min();
            if let Some(first) = first {
                self.shared.metrics.listing.after(timed.moment, timed.at_ms - first.0);
            }
        }
    }
}
