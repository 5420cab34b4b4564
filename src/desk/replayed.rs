//! The second stage over files: what would have been done to accounts and relays, and when, had it been allowed to do everything by
//! itself. The same code as at the active desk; the clock is that of the events. Pure.

use std::sync::{Arc, Mutex, PoisonError};

use super::book::Book;
use super::feedback::ledger::Ledger;
use super::measures::{Exposure, Measures};
use super::notice::Notice;
use crate::core::alert::Alert;
use crate::core::shard::{Shard, Wanted};
use crate::core::signal::Part;
use crate::core::tally::Kept;
use crate::event::Timestamp;
use crate::relays::burden::burdens;
use crate::relays::decide::Burden;
use crate::relays::exposure;
use crate::relays::measure::Mode;
use crate::relays::settings::Settings;

/// How often it is looked at relays, in milliseconds of the events.
const LOOK_MS: i64 = 10_000;
/// What ended is forgotten after so long, as the desk does by `desk.keep_days`; looked at as often as that.
const KEEP_MS: i64 = 7 * 86_400_000;

/// What is known of signals, by stage and decision.
type Known = Arc<Mutex<exposure::Exposure>>;

#[derive(Debug)]
struct OfFiles {
    settings: Settings,
    known: Known,
}

impl Exposure for OfFiles {
    fn burdens(&mut self, window_s: u32, now_ms: i64) -> Option<Vec<Burden>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Some(burdens(&self.settings, &known, window_s, now_ms, &|_| true))
    }
}

/// Incidents, measures and what relays bear, as of the newest event.
#[derive(Debug)]
pub struct Second {
    book: Book,
    ledger: Ledger,
    measures: Measures,
    known: Known,
    by: &'static str,
    looked_ms: i64,
    forgot_ms: i64,
}

impl Second {
    /// Nothing has happened yet; `None` where the configuration knows no pools, so that nothing could be done. `by` names the
    /// program.
    pub fn new(settings: &Settings, by: &'static str) -> Option<Self> {
        if settings.pool.is_empty() {
            return None;
        }
        let mut settings = Settings { mode: Mode::Auto, ..settings.clone() };
        settings.tenant_mode.clear();
        settings.pool.iter_mut().for_each(|pool| pool.mode = None);
        let known = Arc::new(Mutex::new(exposure::Exposure::new(settings.pull.window_s)));
        let of_files = OfFiles { settings: settings.clone(), known: Arc::clone(&known) };
        Some(Self {
            book: Book::default(),
            ledger: Ledger::default(),
            measures: Measures::new(&settings, Box::new(of_files), by),
            known,
            by,
            looked_ms: i64::MIN,
            forgot_ms: i64::MIN,
        })
    }

    /// Makes a shard tell what the second stage needs.
    pub fn listen(shard: &mut Shard) {
        shard.tell_signals(Part::ALL, Kept::default());
    }

    /// Takes what the detector said at an event, and what `shard` has counted by `now`, the newest event's time. Appends what would
    /// have been said then.
    pub fn take(&mut self, alerts: &[Alert], now: Timestamp, shard: &mut Shard, out: &mut Vec<Notice>) {
        for alert in alerts.iter().filter(|a| !a.heartbeat) {
            self.book.take(alert.clone(), now.0, self.by);
            out.extend(self.measures.take(alert, &self.book, &mut self.ledger, now.0).notices);
        }
        if alerts.is_empty() && now.0 < self.looked_ms.saturating_add(LOOK_MS) {
            return;
        }
        self.looked_ms = now.0;
        let mut signals = Vec::new();
        shard.signals(Wanted::All, &mut signals);
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            signals.iter().for_each(|signal| known.take(signal));
            known.forget(now.0);
        }
        out.extend(self.measures.look(&self.book, &mut self.ledger, now.0).notices);
        if now.0 >= self.forgot_ms.saturating_add(KEEP_MS) {
            self.forgot_ms = now.0;
            self.measures.forget(now.0 - KEEP_MS);
            self.book.forget(now.0 - KEEP_MS, &|_| false);
        }
    }
}
