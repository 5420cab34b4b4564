//! Kafka: how mailfuse connects, and what it reads and writes there.
//!
//! librdkafka does the protocol. What is here says how it is set up, and turns what it reports into errors that name the place
//! and the cure.

pub mod changelog;
pub mod client;
pub mod control;
pub mod group;
pub mod history;
pub mod look_back;
pub mod outlet;
pub mod partitioner;
pub mod publish;
pub mod redrive;
pub mod rejects;
pub mod restore;
pub mod settings;
pub mod statistics;
pub mod tell;
pub mod to_end;
pub mod topics;
pub mod transfer;

pub use client::{Context, client_config};
pub use settings::{Kafka, Topics};

/// An event may claim to be this much later than its record was appended, in milliseconds.
pub const FUTURE_MS: i64 = 5 * 60_000;
