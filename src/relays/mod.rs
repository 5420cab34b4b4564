//! Relays: what a hijacked account put on them, when one is pulled from its pool and put back, when an account is stopped and
//! released, and the hands that do it.
//!
//! [`settings`] knows the pools, [`exposure`] what the detectors' signals say about each relay, [`burden`] puts
//! the two together, [`decide`] decides, [`measure`] is one
//! thing that was decided, [`standing`] all that is in force now: what every hand answers from, and [`served`] the word that a stop
//! works. All of them are pure.
//! [`signals`] reads the detectors' topic; `follow` brings what was decided from the desk topic to the [`board`] of every
//! instance, from which its [`hands`] answer. [`listing`] asks blocklists for the relays' addresses.

pub mod board;
pub mod burden;
pub mod decide;
pub mod exposure;
mod follow;
pub mod hands;
pub mod known;
pub mod listing;
pub mod measure;
pub mod people;
mod pulls;
pub mod served;
pub mod settings;
pub mod signals;
pub mod standing;

pub use board::Board;
pub use hands::Hands;
pub use settings::Settings;
