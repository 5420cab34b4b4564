//! What a running mailfuse answers: access, accounts, pages and their description, maps; and what commands make of it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail, and so may what tests share")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../core_support/mod.rs"]
mod core_support;
#[path = "../hands_support/mod.rs"]
mod hands_support;

mod access;
mod account;
mod commands;
mod http;
mod maps;
mod openapi;
mod roles;
