//! Whether a blocklist has listed a relay's address. Lists are asked over DNS, as RFC 5782 has it; off unless zones are
//! configured.
//!
//! `name` makes the name that is asked, `answer` reads what comes back, `schedule` says what is asked when and what a changed
//! answer means, `record` has what is kept of it: all pure. `ask` is the edge: it asks one configured resolver.
//!
//! A list that is wrong about everybody must not pull relays. Lists have ended by listing the whole world (RFC 6471, 3.4), a
//! domain that was sold answers whatever is asked, and an emptied zone has nobody. So what a changed answer says is believed
//! only once the zone has answered for its test entries as it should (RFC 5782, 5): 127.0.0.1 is not listed, 127.0.0.2 is.

pub mod answer;
pub mod ask;
pub mod name;
pub mod record;
pub mod schedule;
pub mod settings;

use std::net::{IpAddr, Ipv4Addr};

use crate::event::Timestamp;

/// An address has been listed, or is not listed any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The relay's name.
    pub relay: String,
    /// Which of its addresses.
    pub address: IpAddr,
    /// The list, by the name of its zone.
    pub zone: String,
    /// What the list answered, in order: why it is listed. Of one that is not listed any more, why it was.
    pub codes: Vec<Ipv4Addr>,
    /// Whether it is listed now.
    pub listed: bool,
    /// When that was heard.
    pub at: Timestamp,
}
