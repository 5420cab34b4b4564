//! The numbers of blocklists, and of how long things took from the first spam on.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::{OfAnswer, OfInTime, OfMoment, OfZone};
use super::metrics::{Registered, of};

/// From a second to a day.
const AFTER_S: [f64; 14] =
    [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21_600.0, 86_400.0];
/// Answers of a list, by what came of them.
const ANSWERS: [&str; 7] = ["clean", "listed", "refused", "no_code", "untrue", "server", "silent"];

/// What the active desk counts of lists and of its own haste.
#[derive(Debug)]
pub struct ListingMetrics {
    answers: Family<OfAnswer, Counter>,
    standing: Family<OfZone, Gauge>,
    listings: Family<OfInTime, Counter>,
    incidents: Family<OfInTime, Counter>,
    after: Family<OfMoment, Histogram, fn() -> Histogram>,
}

impl Default for ListingMetrics {
    fn default() -> Self {
        let metrics = Self {
            answers: Family::default(),
            standing: Family::default(),
            listings: Family::default(),
            incidents: Family::default(),
            after: Family::new_with_constructor(|| Histogram::new(AFTER_S)),
        };
        for in_time in ["yes", "no", "unknown"] {
            metrics.listings.get_or_create_owned(&OfInTime { in_time });
            metrics.incidents.get_or_create_owned(&OfInTime { in_time });
        }
        metrics
    }
}

/// Takes a metric with its name and what it says.
type Add<'a> = dyn FnMut(&str, &str, Box<dyn Registered>) + 'a;

impl ListingMetrics {
    pub(super) fn register(&self, add: &mut Add<'_>) {
        add("listing_answers", "Answers of blocklists, by list and by what they say", of(&self.answers));
        add("listings_standing", "Addresses of relays that a blocklist names", of(&self.standing));
        add("listings", "Relays that were listed, by whether they were pulled before", of(&self.listings));
        let incidents =
            "Critical incidents, by whether each relay was out before a list named it, a day after their first spam";
        add("incidents_in_time", incidents, of(&self.incidents));
        let after = "From the first spam of a burst to its flag, its stop, the pull of a relay, its listing";
        add("after_first_spam_seconds", after, of(&self.after));
    }

    /// A list has answered, or not. Lists are those of the configuration.
    pub fn answer(&self, zone: &str, result: &'static str) {
        self.answers.get_or_create_owned(&OfAnswer { zone: zone.to_owned(), result }).inc();
    }

    /// How many addresses a list names.
    pub fn standing(&self, zone: &str, addresses: usize) {
        let zone = zone.to_owned();
        for result in ANSWERS {
            self.answers.get_or_create_owned(&OfAnswer { zone: zone.clone(), result });
        }
        self.standing.get_or_create_owned(&OfZone { zone }).set(addresses as i64);
    }

    /// A list names an address that it did not name before. `in_time`: whether its relay was out by then.
    pub fn listed(&self, in_time: &'static str) {
        self.listings.get_or_create_owned(&OfInTime { in_time }).inc();
    }

    /// The day after an incident's first spam is over.
    pub fn judged(&self, in_time: &'static str) {
        self.incidents.get_or_create_owned(&OfInTime { in_time }).inc();
    }

    /// Something was done so long after the first spam of a burst, in milliseconds. What took longer than a day was not about what
    /// goes on now, and is not counted.
    pub fn after(&self, moment: &'static str, ms: i64) {
        if (0..=86_400_000).contains(&ms) {
            self.after.get_or_create_owned(&OfMoment { moment }).observe(ms as f64 / 1000.0);
        }
    }

    /// Drops what only the active desk knows.
    pub(super) fn forget(&self) {
        self.standing.clear();
    }
}
