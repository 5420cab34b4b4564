//! Readers of other people's logs: each turns lines into events.
