//! Relays: what a hijacked account put on them, when one is pulled from its pool and put back, when an account is stopped and
//! released, and the hands that do it.
//!
//! [`settings`] knows the pools, [`decide`] decides, [`measure`] is one thing that was decided, and [`standing`] all that is in force
//! now: what every hand answers from. All of them are pure.

pub mod decide;
pub mod measure;
pub mod people;
mod pulls;
pub mod settings;
pub mod standing;

pub use settings::Settings;
