//! Alerts out, as signed HTTP messages (Standard Webhooks, and the bodies of Slack, PagerDuty and Alertmanager).
//!
//! The way of an alert: [`settings::Endpoint::wants`] says which endpoints get it; [`grouping`] makes of it a delivery, or folds
//! it into one that still waits; [`outbox`] says when to send; [`body`] renders and signs; [`client`] sends.
//! Only the client does I/O and only it knows a clock: everywhere else times and chance are arguments.
//!
//! What must hold, and whose part it is:
//! * Nothing is lost: each [`record::Change`] is recorded durably before the outbox is asked again, and what was recorded is
//!   restored at a start. An attempt that was under way then counts as not sent, so that a receiver may see it twice.
//! * A webhook id never changes, nor does the message behind it once an attempt has begun: receivers de-duplicate by the id.
//! * In order within an incident: a message starts only when the one before it was delivered or is dead.

pub mod address;
pub mod body;
pub mod client;
pub mod digest;
pub mod grouping;
pub mod outbox;
pub mod outcome;
pub mod record;
pub mod settings;
pub mod sign;
pub mod storm;

mod alertmanager;
mod lane;
mod native;
mod pagerduty;
mod quiet;
mod slack;
pub(super) mod text;
