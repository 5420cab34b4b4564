//! The desk, without brokers: what people say, what is sent, to real receivers on this host.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail, and so may what tests share")]

#[path = "../desk_webhook_support/mod.rs"]
mod desk_webhook_support;

mod digest;
mod feedback;
mod fleet;
mod in_time;
mod listings;
mod mail;
mod mail_render;
mod measures;
mod policies;
mod webhook;
mod webhook_bodies;
mod webhook_grouping;
mod webhook_outbox;
mod webhook_receivers;
mod webhook_rotation;
