//! Tests take their turns: most run beside others, one that measures what a whole provider does in time runs alone.

use std::cell::RefCell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

thread_local! {
    /// Each test has a thread of its own, and its turn ends with that, whether it passed or panicked.
    static TURN: RefCell<Option<RwLockReadGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// From now on this test's thread has a turn beside others. Whoever asks for a broker has it: before any other lock, and once,
/// so that nobody who waits to be alone stands between two parts of a test. Only the test's own thread may ask.
pub fn beside_others() {
    TURN.with_borrow_mut(|turn| {
        // A panic of whoever was alone is that test's affair.
        turn.get_or_insert_with(|| MACHINE.read().unwrap_or_else(PoisonError::into_inner));
    });
}

/// Waits until no test has a turn, and has the machine alone as long as this is held.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.with_borrow_mut(Option::take);
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}
