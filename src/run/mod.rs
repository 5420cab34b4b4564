//! `mailfuse run`: the consumer that never forgets and never loses.

pub mod settings;

pub use settings::{Http, Run};
