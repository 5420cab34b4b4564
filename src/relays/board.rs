//! What is in force, as the hands of one instance share it: one thread writes it, all others look.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use tokio::sync::watch;

use super::standing::Standing;

/// [`Standing`], and whether it is known at all.
#[derive(Debug)]
pub struct Board {
    standing: RwLock<Standing>,
    is_read: AtomicBool,
    changed: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Self { standing: RwLock::default(), is_read: AtomicBool::new(false), changed: watch::Sender::new(0) }
    }
}

impl Board {
    /// Looks at what is in force. `None` before all that was decided has been read once: then nobody must be told anything,
    /// because a stop might be overlooked.
    pub fn look<T>(&self, look: impl FnOnce(&Standing) -> T) -> Option<T> {
        if !self.is_read.load(Ordering::Acquire) {
            return None;
        }
        Some(look(&self.standing.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Changes it. Whoever watches is told, where anything did change.
    pub fn change(&self, change: impl FnOnce(&mut Standing)) {
        let mut standing = self.standing.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut standing);
        let version = standing.version();
        drop(standing);
        self.changed.send_if_modified(|known| std::mem::replace(known, version) != version);
    }

    /// All that was decided so far has been read.
    pub fn set_read(&self) {
        self.is_read.store(true, Ordering::Release);
        self.changed.send_modify(|_| {});
    }

    /// Whether all that was decided has been read once.
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Acquire)
    }

    /// Tells of changes, and of the first time that all has been read.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
