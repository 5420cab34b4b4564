//! Relays: what a hijacked account put on them, when one is pulled from its pool and put back, when an account is stopped and
//! released, and the hands that do it.
//!
//! [`exposure`] is what the detectors' signals say about each relay, and [`follow`] reads them. [`settings`] knows the pools,
//! [`measure`] is one thing that was decided, and [`standing`] all that is in force now: what every hand answers from. All but
//! [`follow`] are pure.

pub mod exposure;
pub mod follow;
pub mod measure;
pub mod settings;
pub mod standing;

pub use settings::Settings;
