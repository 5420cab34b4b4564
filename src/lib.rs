//! Mailfuse: names a hijacked mail account within its first few spam messages, and says why.
//!
//! `src/ARCHITECTURE.md` has the rooms, the way of an event and the invariants.

pub mod cli;
pub mod config;
pub mod core;
pub mod demo;
pub mod desk;
pub mod directory;
pub mod event;
pub mod input;
pub mod kafka;
pub mod logs;
pub mod relays;
pub mod report;
pub mod run;
pub mod state;
pub mod telemetry;
