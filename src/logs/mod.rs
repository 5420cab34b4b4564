//! Readers of other people's logs: each turns lines into events.
//!
//! A line goes through two pure steps: [`stamp::Stamper`] reads the time at its head, one stamper per file, and
//! a reader such as [`postfix::Postfix`], one per set of logs, takes what follows. Neither knows a file or a clock.

pub mod postfix;
pub mod stamp;
