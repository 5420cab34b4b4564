//! The label sets of the metrics. Each is bounded: partitions, and names that stand in the program or its configuration.

use prometheus_client::encoding::EncodeLabelSet;

use crate::core::alert::{AlertKind, Severity};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfPartition {
    pub(super) partition: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfReject {
    pub(super) partition: i32,
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfReason {
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfKind {
    pub(super) kind: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfResult {
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfFlag {
    pub(super) severity: &'static str,
    pub(super) kind: &'static str,
}

/// Endpoints are those of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfEndpoint {
    pub(super) endpoint: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfAttempt {
    pub(super) endpoint: String,
    pub(super) outcome: &'static str,
}

/// Hooks are those of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfHook {
    pub(super) hook: String,
    pub(super) outcome: &'static str,
}

/// Lists are those of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfZone {
    pub(super) zone: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfAnswer {
    pub(super) zone: String,
    pub(super) result: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfInTime {
    pub(super) in_time: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfMoment {
    pub(super) moment: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfConfig {
    pub(super) digest: String,
    pub(super) version: &'static str,
}

/// What a rebalance does to partitions of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebalance {
    /// They become ours.
    Assign,
    /// They are taken, and we may finish what we hold of them.
    Revoke,
    /// They are gone already.
    Lost,
}

impl Rebalance {
    pub(super) const ALL: [Self; 3] = [Self::Assign, Self::Revoke, Self::Lost];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Assign => "assign",
            Self::Revoke => "revoke",
            Self::Lost => "lost",
        }
    }
}

/// What became of a configuration that was read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// It is in force.
    Ok,
    /// The old one stays in force.
    Refused,
}

impl Reload {
    pub(super) const ALL: [Self; 2] = [Self::Ok, Self::Refused];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
        }
    }
}

/// The labels of an alert.
pub(super) fn flag(kind: AlertKind, severity: Severity) -> OfFlag {
    OfFlag {
        kind: match kind {
            AlertKind::Flagged => "flagged",
            AlertKind::Escalated => "escalated",
            AlertKind::Cleared => "cleared",
        },
        severity: match severity {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        },
    }
}
