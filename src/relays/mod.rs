//! The own relays: what outside systems say of their addresses.

pub mod listing;

use serde::{Deserialize, Serialize};

/// Section `[relays]` of the configuration.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Which blocklists are asked about the relays' addresses.
    pub listing: listing::settings::Settings,
}
