//! What a list's answer means.

use std::net::Ipv4Addr;

/// Codes that are kept of one answer.
pub const CODES_MAX: usize = 16;

/// What was heard of one address in one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Not listed.
    Clean,
    /// Listed; the codes in order, at most [`CODES_MAX`].
    Listed(Vec<Ipv4Addr>),
    /// No answer, or none that says anything about the address.
    Failed(Failure),
}

/// Why an answer says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A code of 127.255.255.0/24: the list does not answer whoever asks so.
    #[error(
        "it answers {0}, which is an error and no listing: it does not serve this resolver; ask through a resolver of your own, or with the key of your subscription in the zone's name"
    )]
    Refused(Ipv4Addr),
    /// An address outside 127.0.0.0/8: no list answers so.
    #[error(
        "it answers {0}, which is no code of a list: the zone's domain may have another owner now; take the zone out"
    )]
    NoCode(Ipv4Addr),
    /// Its test entries are not as they must be.
    #[error("{0}; until that changes it is not believed; take the zone out if it has ended")]
    Untrue(&'static str),
    /// The resolver answered with an error.
    #[error("the resolver answers {0}: look at relays.listing.server, and whether it may ask this list")]
    Server(String),
    /// Nothing came in time.
    #[error("no answer in time: look at relays.listing.server")]
    Silent,
}

/// Reads the addresses of an answer; none is an answer without any, or that there is no such name.
pub fn read(mut addresses: Vec<Ipv4Addr>) -> Heard {
    if let Some(error) = addresses.iter().find(|a| a.octets()[..3] == [127, 255, 255]) {
        return Heard::Failed(Failure::Refused(*error));
    }
    if let Some(strange) = addresses.iter().find(|a| !a.is_loopback()) {
        return Heard::Failed(Failure::NoCode(*strange));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(CODES_MAX);
    if addresses.is_empty() { Heard::Clean } else { Heard::Listed(addresses) }
}

#[cfg(test)]
mod tests {
    use super::{CODES_MAX, Failure, Heard, read};
    use std::net::Ipv4Addr;

    fn codes(last: &[u8]) -> Vec<Ipv4Addr> {
        last.iter().map(|n| Ipv4Addr::new(127, 0, 0, *n)).collect()
    }

    #[test]
    fn a_refusal_is_no_listing_whatever_stands_beside_it() {
        let refused = Ipv4Addr::new(127, 255, 255, 254);
        assert_eq!(read(vec![]), Heard::Clean);
        assert_eq!(read(codes(&[4, 2, 4])), Heard::Listed(codes(&[2, 4])));
        assert_eq!(read(vec![Ipv4Addr::new(127, 0, 0, 2), refused]), Heard::Failed(Failure::Refused(refused)));
        let parked = Ipv4Addr::new(192, 0, 2, 80);
        assert_eq!(read(vec![Ipv4Addr::new(127, 0, 0, 2), parked]), Heard::Failed(Failure::NoCode(parked)));
        let many: Vec<u8> = (2..=255).collect();
        assert_eq!(read(codes(&many)), Heard::Listed(codes(&many[..CODES_MAX])));
    }
}
