//! The detector: windows, contacts, verdicts, incidents, decisions, shards, checkpoints.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail, and so may what tests share")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../core_support/mod.rs"]
mod core_support;

mod beats;
mod bursts;
mod checkpoints;
mod decisions;
mod hijack;
mod incidents;
mod refusals;
mod scopes;
mod shards;
mod tails;
mod windows;
