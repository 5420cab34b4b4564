//! What is kept of blocklists, in the desk topic: listings, and since when which address is asked for. Pure.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::desk::notice::AccountShare;
use crate::event::Timestamp;

/// One listing of one address, from when it was heard on. Stands in the desk topic as `listing/ID`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Always 1.
    pub v: u8,
    /// `l-` and a hash of relay, address, zone and the time at which it was heard.
    pub id: String,
    /// The relay, as its pool has it.
    pub relay: String,
    /// Which of its addresses.
    pub address: IpAddr,
    /// The list, by the name of its zone.
    pub zone: String,
    /// What the list answered.
    pub codes: Vec<Ipv4Addr>,
    /// What these codes mean, as far as the configuration says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// The customer that the relay is dedicated to; empty where it is shared.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Whose bursts went over it on the day before, most recipients first, at most [`crate::desk::notice::ACCOUNTS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<AccountShare>,
    /// When the list last said that the address is not listed; between then and `since` it was listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean: Option<Timestamp>,
    /// When it was heard.
    pub since: Timestamp,
    /// When its end was heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Whether its end is only that nobody asks any more: address or list were taken out of the configuration.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unwatched: bool,
}

/// Since when which list is asked for a relay. Stands in the desk topic as `watched/RELAY`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    /// Always 1.
    pub v: u8,
    /// The relay, as its pool has it.
    pub relay: String,
    /// Of each of its addresses and each list at most [`SPANS_MAX`], oldest first.
    pub spans: Vec<Span>,
}

/// A time over which a list answered for an address, without longer pauses than [`PAUSE_MS`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The address.
    pub address: IpAddr,
    /// The list, by the name of its zone.
    pub zone: String,
    /// Its first answer.
    pub since: Timestamp,
    /// Its last answer.
    pub until: Timestamp,
}

/// Spans of one address and list that are kept: the oldest makes room.
pub const SPANS_MAX: usize = 16;
/// A list that was silent for longer may have listed and forgotten meanwhile, in milliseconds.
pub const PAUSE_MS: i64 = 2 * 3_600_000;
