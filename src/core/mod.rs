//! The detector: pure, deterministic, the same for `replay` and `run`. It knows no clock, randomness, channel, async or I/O.

pub mod alert;
pub mod shard;
