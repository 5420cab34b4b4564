//! Client networks of one account: IPv4 by /16, IPv6 by /32, which is about what one access provider has in one region, so
//! that a telephone that gets another address does not look like another person.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Networks kept for one account; the one unused for longest makes room.
const KEPT_MAX: usize = 64;
/// A network is foreign for this long after it was first seen, in seconds.
pub const FOREIGN_S: u32 = 86_400;

/// The network of an address: /16 or /32, with the family in the upper bits.
pub fn network(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(v4) => u64::from(u32::from(v4) >> 16),
        IpAddr::V6(v6) => 1 << 32 | u64::from((u128::from(v6) >> 96) as u32),
    }
}

/// One network of an account.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Network {
    network: u64,
    first_s: u32,
    last_s: u32,
}

/// The networks of an account.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Networks {
    /// In order of appearance.
    seen: Vec<Network>,
    /// When the very first one appeared: it cannot be foreign, there was nothing before it.
    home: Option<u64>,
}

impl Networks {
    /// Notes a use at `at_s`. Returns whether the network had never been seen while others had.
    pub fn note(&mut self, network: u64, at_s: u32) -> bool {
        if let Some(known) = self.seen.iter_mut().find(|n| n.network == network) {
            known.last_s = known.last_s.max(at_s);
            return false;
        }
        if self.seen.len() == KEPT_MAX {
            let oldest = self.seen.iter().enumerate().min_by_key(|(i, n)| (n.last_s, *i)).map_or(0, |(i, _)| i);
            self.seen.remove(oldest);
        }
        self.seen.push(Network { network, first_s: at_s, last_s: at_s });
        match self.home {
            None => {
                self.home = Some(network);
                false
            }
            Some(_) => true,
        }
    }

    /// Whether `network` was first seen within a day before `now_s`, and is not the account's very first.
    pub fn is_foreign(&self, network: u64, now_s: u32) -> bool {
        self.home != Some(network)
            && self.seen.iter().any(|n| n.network == network && now_s.saturating_sub(n.first_s) < FOREIGN_S)
    }

    /// Foreign networks used at or after `start_s`, the account's clock standing at `now_s`.
    pub fn foreign_since(&self, start_s: u32, now_s: u32) -> u32 {
        let foreign = |n: &&Network| {
            n.last_s >= start_s && now_s.saturating_sub(n.first_s) < FOREIGN_S && self.home != Some(n.network)
        };
        self.seen.iter().filter(foreign).count() as u32
    }

    /// Networks used at or after `start_s`.
    pub fn count_since(&self, start_s: u32) -> u32 {
        self.seen.iter().filter(|n| n.last_s >= start_s).count() as u32
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.seen.capacity() * size_of::<Network>()
    }
}
