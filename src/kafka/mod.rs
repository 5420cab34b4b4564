//! Kafka: how mailfuse connects, and what it reads and writes there.
//!
//! librdkafka does the protocol. What is here says how it is set up, and turns what it reports into errors that name the place
//! and the cure.

pub mod client;
pub mod partitioner;
pub mod rejects;
pub mod settings;
pub mod topics;

pub use client::{Context, client_config};
pub use settings::{Kafka, Topics};

/// An event may claim to be this much later than its record was appended, in milliseconds.
pub const FUTURE_MS: i64 = 5 * 60_000;
