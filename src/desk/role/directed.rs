//! What the active desk does as the directory says: accounts that have another name, policies of customers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Active;
use crate::desk::renames::NEW_MS;
use crate::kafka::outlet::now_ms;

/// How often it is looked what the directory says by now: a rename may begin, a decision end.
const FOLLOW: Duration = Duration::from_secs(10);

impl Active<'_> {
    /// Sees to what the directory says of names and customers.
    pub(super) fn hand_over(&mut self) {
        let directory = self.shared.directory.directory();
        // Some begin only later.
        if !Arc::ptr_eq(&directory, &self.followed.0) || self.followed.1.elapsed() > FOLLOW {
            let now_ms = now_ms();
            let records = self.clerk.follow(directory.renamed(now_ms - NEW_MS, now_ms), now_ms);
            self.records.extend(records);
            if self.shared.directory.is_known() {
                let records = self.clerk.follow_policies(&directory, &mut self.book, now_ms);
                self.records.extend(records);
            }
            self.followed = (directory, Instant::now());
        }
        if let Some(found) = self.heirs.found() {
            let records = self.clerk.found(&found, now_ms());
            self.records.extend(records);
        }
        // Of one that was asked for and is not stored yet, a desk that takes over would know nothing.
        if !self.has_news() {
            self.heirs.look_for(self.clerk.sought(), &self.shared.kafka, &self.shared.policy);
        }
    }
}
