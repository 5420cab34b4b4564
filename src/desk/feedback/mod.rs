//! What people say about incidents and accounts, and what follows from it: a line in the audit, a word at the incident, a
//! decision that every detector learns of by the control topic.
//!
//! The active desk's clerk (`clerk`) takes a [`wish::Wish`], [`ledger::Ledger`] says what becomes of it (pure), and all of it is
//! written in one transaction. Nobody is told that something was done before it is stored.

mod acts;
pub(super) mod api;
pub(super) mod clerk;
mod foreign;
pub mod ledger;
pub(super) mod measures;
pub mod record;
mod whole;
pub mod wish;
