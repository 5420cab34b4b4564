//! What a running mailfuse says about itself: metrics, answers over HTTP, single accounts, log lines.
//!
//! Labels come from bounded sets, and never hold an account: what is asked about one account is answered when it is asked.

pub mod access;
pub mod account;
pub mod description;
mod door;
mod hands;
pub mod http;
mod labels;
mod listing;
pub mod logs;
pub mod metrics;
mod moments;
mod problem;
mod process;
pub mod status;
pub mod token;

pub use access::Access;
pub use account::AccountView;
pub use hands::HandsMetrics;
pub use http::serve;
pub use listing::ListingMetrics;
pub use metrics::{Metrics, Rebalance, Reload};
pub use status::{AccountAnswer, Live};
