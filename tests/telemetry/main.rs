//! What a running mailfuse answers: access, accounts, pages and their description.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail, and so may what tests share")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../core_support/mod.rs"]
mod core_support;

mod access;
mod account;
mod http;
mod openapi;
mod roles;
