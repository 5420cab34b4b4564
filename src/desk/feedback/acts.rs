//! What outside systems did, as far as it can be asked again: whoever had no answer asks twice, and it counts once. Pure.

use std::collections::HashMap;

use super::record::{About, Entry};
use crate::event::Timestamp;

/// Lines of the audit about what was done at a stated time. As many as the audit has.
#[derive(Debug, Default)]
pub(super) struct Acts(HashMap<Key, Entry>);

/// Who did what, to which account or relay, when. Which incident that was about may have changed meanwhile.
type Key = (String, String, [Option<String>; 2], Timestamp);

fn key(who: &str, what: &str, about: &About, at: Timestamp) -> Key {
    let about = [about.account.clone(), about.relay.clone()];
    (who.to_owned(), what.to_owned(), about, at)
}

impl Acts {
    /// Keeps a line, where it is one of these.
    pub(super) fn keep(&mut self, entry: &Entry) {
        if let Some(done) = entry.done {
            self.0.insert(key(&entry.who, &entry.what, &entry.about, done), entry.clone());
        }
    }

    /// The line about the same, where there is one.
    pub(super) fn find(&self, who: &str, what: &str, about: &About, at: Timestamp) -> Option<&Entry> {
        self.0.get(&key(who, what, about, at))
    }

    /// Forgets lines with smaller numbers.
    pub(super) fn forget(&mut self, before: u64) {
        self.0.retain(|_, entry| entry.n >= before);
    }
}
