//! Commands on files: decoding, lines, logs, replay, the report, the generated provider.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail, and so may what tests share")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../core_support/mod.rs"]
mod core_support;
#[path = "../replay_support/mod.rs"]
mod replay_support;
#[path = "../report_support/mod.rs"]
mod report_support;

mod demo_provider;
mod events_decode;
mod input_broken;
mod input_lines;
mod postfix_hops;
mod postfix_jino;
mod postfix_lightmeter;
mod readme;
mod replay_aliases;
mod replay_cases;
mod replay_cli;
mod replay_desk;
mod replay_jino;
mod replay_relays;
mod report_counts;
mod report_extract;
mod report_page;
