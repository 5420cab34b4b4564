//! One ownership of one partition: from the moment the group gives it to us to the moment it is taken away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Numbers leases, so that logs can tell them apart.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The right to a partition. Everything that is done for a partition holds its lease, and stops when it has ended: what was read,
/// restored or stored under an ended lease counts for nobody.
#[derive(Debug)]
pub struct Lease {
    /// Which partition.
    pub partition: i32,
    /// No other lease has it.
    pub number: u64,
    valid: AtomicBool,
}

impl Lease {
    /// A new lease.
    pub fn new(partition: i32) -> Self {
        Self { partition, number: NEXT.fetch_add(1, Ordering::Relaxed), valid: AtomicBool::new(true) }
    }

    /// Whether the partition is still ours.
    pub fn is_valid(&self) -> bool {
        self.valid.load(Ordering::Acquire)
    }

    /// The partition is no longer ours.
    pub fn end(&self) {
        self.valid.store(false, Ordering::Release);
    }
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
