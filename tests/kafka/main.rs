//! Tests against a real broker: in one program, so that they wait for it, for time to pass and for mail at the same time. One of
//! them by itself: `cargo test --release --test kafka chaos::`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

#[path = "../dns_support/mod.rs"]
mod dns_support;
#[path = "../hands_support/mod.rs"]
mod hands_support;
#[path = "../run_support/mod.rs"]
mod run_support;

mod actions;
mod api;
mod broker;
mod chaos;
mod collateral;
mod desk;
mod directory;
mod feedback;
mod fencing;
mod fuzz;
mod heartbeat;
mod listing;
mod measures;
mod publish;
mod queue_ids;
mod rejects;
mod relays;
mod run;
mod security;
mod signals;
mod state;
mod topics;
mod trial;
mod trouble;
mod webhooks;
