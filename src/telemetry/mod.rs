//! What a running mailfuse says about itself: metrics and the HTTP doors to them.
//!
//! Labels come from bounded sets, and never hold an account: what is asked about one account is answered when it is asked.

pub mod metrics;
mod moments;
mod process;
