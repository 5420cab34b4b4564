//! Tests that mostly wait, for a real broker, for time to pass, for mail: in one program, so that they wait at the same time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

#[path = "../dns_support/mod.rs"]
mod dns_support;
#[path = "../run_support/mod.rs"]
mod run_support;

mod directory;
mod feedback;
mod heartbeat;
mod listing;
mod trial;
