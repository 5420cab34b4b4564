//! The desk: what makes alerts arrive at people and systems.

pub mod webhook;
