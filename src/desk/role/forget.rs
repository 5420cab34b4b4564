//! What the active desk forgets, and says where somebody should still have heard of it.

use std::time::{Duration, Instant};

use super::Active;
use crate::desk::book::INCIDENTS_MAX;
use crate::kafka::outlet::now_ms;

/// How often it is looked what can be forgotten.
pub(super) const FORGET: Duration = Duration::from_secs(3600);

impl Active<'_> {
    pub(super) fn is_due(&self) -> bool {
        self.forgot.elapsed() >= FORGET
    }

    /// Forgets what is old or too much, with the next transaction.
    pub(super) fn forget(&mut self) {
        self.forgot = Instant::now();
        let before_ms = now_ms() - self.shared.settings.keep_ms();
        let needs = self.deliveries.needs();
        let forgotten = self.book.forget(before_ms, &|id| needs.contains(id));
        if forgotten.early > 0 {
            tracing::warn!(
                incidents = forgotten.early,
                "forgotten before desk.keep_days were over, the oldest first: more than {INCIDENTS_MAX} are known"
            );
        }
        self.lost.extend(self.deliveries.lost(&forgotten));
        self.records.extend(forgotten.records);
        self.records.extend(self.deliveries.forget(before_ms, now_ms()));
        self.records.extend(self.clerk.forget(before_ms, now_ms()));
        self.records.extend(self.relays.forget(before_ms));
        self.records.extend(self.running.iter_mut().flat_map(|running| running.forget(now_ms())));
    }

    /// It is written that these were forgotten: nobody gets them.
    pub(super) fn say_what_was_lost(&mut self) {
        for lost in self.lost.drain(..) {
            tracing::error!(
                endpoint = lost.endpoint,
                alerts = lost.alerts,
                first = lost.first,
                last = lost.last,
                "given up: they were forgotten before this endpoint, which is behind, had room for them; they waited for \
                 desk.keep_days, or until too many incidents were known. Mend the receiver, or take the endpoint out of the \
                 configuration"
            );
            self.shared.metrics.given_up(&lost.endpoint, lost.alerts);
        }
    }
}
