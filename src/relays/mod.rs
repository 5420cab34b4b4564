//! The own relays: what outside systems say of their addresses.

pub mod listing;
