//! Client networks of one account: IPv4 by /16, IPv6 by /32, which is about what one access provider has in one region, so
//! that a telephone that gets another address does not look like another person.

use std::net::IpAddr;

use serde::Deserialize;

use super::codec::{Input, Unreadable, put, put_near, read_ahead};

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
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Network {
    network: u64,
    first_s: u32,
    last_s: u32,
}

/// The networks of an account.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Networks {
    /// In order of appearance.
    seen: Vec<Network>,
    /// When the very first one appeared: it cannot be foreign, there was nothing before it.
    home: Option<u64>,
}

impl Networks {
    /// Reads where a search begins; see [`super::shard::Shard::look_ahead`].
    pub(super) fn look_ahead(&self) -> u64 {
        read_ahead(&self.seen, 1, |n| n.network)
    }

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

    /// Those that are not foreign.
    #[must_use]
    pub(super) fn without_foreign(&self, now_s: u32) -> Self {
        let known = self.seen.iter().filter(|n| !self.is_foreign(n.network, now_s)).copied().collect();
        Self { seen: known, home: self.home }
    }

    /// With those of `own`, an account that goes on with these; where there is no room, those unused for longest go.
    #[must_use]
    pub(super) fn joined(mut self, own: &Self) -> Self {
        for n in &own.seen {
            self.note(n.network, n.first_s);
            if let Some(known) = self.seen.iter_mut().find(|k| k.network == n.network) {
                known.last_s = known.last_s.max(n.last_s);
            }
        }
        self
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

    pub(super) fn pack(&self, out: &mut Vec<u8>, clock_s: u32) {
        // The first network is nearly always home.
        let home = self.seen.iter().position(|n| Some(n.network) == self.home);
        let home_at = home.map_or(usize::from(self.home.is_some()), |i| i + 2);
        put(out, self.seen.len() as u64);
        put(out, home_at as u64);
        if home_at == 1 {
            put(out, self.home.unwrap_or_default());
        }
        for n in &self.seen {
            put(out, n.network);
            put_near(out, n.last_s, clock_s);
            put_near(out, n.first_s, n.last_s);
        }
    }

    pub(super) fn unpack(from: &mut Input<'_>, clock_s: u32) -> Result<Self, Unreadable> {
        let len = from.count(KEPT_MAX, 3)?;
        let home_at = from.count(KEPT_MAX + 1, 0)?;
        let mut home = if home_at == 1 { Some(from.number()?) } else { None };
        let mut seen = Vec::with_capacity(len);
        for _ in 0..len {
            let network = from.number()?;
            let last_s = from.near(clock_s)?;
            seen.push(Network { network, first_s: from.near(last_s)?, last_s });
        }
        if home_at >= 2 {
            home = Some(seen.get(home_at - 2).ok_or(Unreadable("a home that is not there"))?.network);
        }
        Ok(Self { seen, home })
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.seen.capacity() * size_of::<Network>()
    }
}
