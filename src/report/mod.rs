//! The incident report: what a reviewer reads, prints and passes on.
//!
//! Replay reads its input twice. The first pass gives the alerts; the second gives every event once more, with what
//! the detector said about it, to a [`Collector`], which by then knows whom to watch, since when and until when.
//! [`html::render`] makes one self-contained page of what it gathered; [`extract`] writes a burst's messages as CSV.
//!
//! Nothing here reads a clock, draws a random number or depends on hash order: the same alerts and events give the
//! same bytes. Everything that an account can make large has a bound in [`Options`], and what lies beyond it is counted.

pub mod beside;
mod bounded;
mod collateral;
mod collect;
mod data;
pub mod extract;
pub mod helpdesk;
pub mod html;
mod incident;
mod live;
pub mod queued;
mod redact;
mod replies;
mod svg;
mod text;
mod timeline;

pub use collect::Collector;
pub use data::{
    AddressRow, Blamed, BystanderRow, Cut, Detail, Exposure, IncidentReport, InputFile, Inputs, Leak, NetworkRow,
    Options, RelayRow, Report, Shown, TenantRow,
};
pub use incident::Incident;
pub use timeline::{Cell, Timeline};
