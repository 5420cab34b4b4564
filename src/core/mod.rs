//! The detector: pure, deterministic, the same for `replay` and `run`. It knows no clock, randomness, channel, async or I/O.
//!
//! An event goes to its account (`account`), which counts it in its windows (`window`, `recent`, `contacts`, `networks`,
//! `sends`) and its baseline (`baseline`, `tail`). Where the evidence may have grown it is weighed (`verdict`), put into words
//! (`evidence`) and becomes an alert of an incident (`incident`, `alert`). `decision` is what people have said, about whom (`scope`), and `decided` what that comes to.
//! `shard` holds the accounts of one partition, those that rest in their packed form (`slots`, `packed`).

pub mod account;
pub mod alert;
pub mod baseline;
pub mod beat;
pub mod before;
pub mod bottom;
mod codec;
pub mod contacts;
pub mod decided;
pub mod decision;
pub mod evidence;
pub mod fingerprint;
pub mod incident;
pub mod inherit;
pub mod names;
pub mod networks;
pub mod packed;
pub mod policy;
pub mod recent;
pub mod refusal;
pub mod repeats;
pub mod replies;
pub mod scope;
pub mod sends;
pub mod shard;
pub mod signal;
mod slots;
mod store;
pub mod tail;
pub mod tally;
pub mod texts;
pub mod verdict;
pub mod version1;
pub mod window;
