//! The topics that mailfuse needs: what they should be like, making those that are missing, and looking whether all is well.
//!
//! Nothing here changes a topic that is there. A [`Finding`] says what is wrong, why that matters and what to do.

pub mod cluster;
pub mod rights;
pub mod sample;
pub mod settings;

use std::collections::BTreeMap;

use super::client;
use super::settings::Kafka;
use crate::event::Limits;
use cluster::{Cluster, Seen};

/// Why nothing could be found out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client: the configuration is to blame.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// The brokers do not answer, or refuse; with the cure where there is one.
    #[error("{0}")]
    Broker(String),
}

/// How something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Not as it should be, or not to be seen.
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The topic, or whatever else it is about.
    pub topic: String,
    /// What of it.
    pub setting: String,
    /// How it should be.
    pub wanted: String,
    /// How it is.
    pub found: String,
    /// Whether that is well.
    pub verdict: Verdict,
    /// Why it matters. Empty where it is well.
    pub why: String,
    /// What to do. Empty where it is well.
    pub cure: String,
    /// Examples, such as accounts and where their events are.
    pub examples: Vec<String>,
}

impl Finding {
    /// Something that is well.
    pub fn ok(topic: &str, setting: &str, wanted: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            topic: topic.to_owned(),
            setting: setting.to_owned(),
            wanted: wanted.into(),
            found: found.into(),
            verdict: Verdict::Ok,
            why: String::new(),
            cure: String::new(),
            examples: Vec::new(),
        }
    }

    /// The same as something wrong.
    #[must_use]
    pub fn wrong(self, why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { verdict: Verdict::Wrong, why: why.into(), cure: cure.into(), ..self }
    }
}

/// What was asked for beside the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// Partitions of events and state. `None`: as many as there are, or [`PARTITIONS`].
    pub partitions: Option<i32>,
    /// Copies of each topic. `None`: three, or as many as there are brokers.
    pub replication: Option<i32>,
    /// Newest events that are looked at. 0: none.
    pub sample: u64,
}

/// Partitions of a new events topic: twelve can be spread evenly over 2, 3, 4, 6 and 12 instances.
pub const PARTITIONS: i32 = 12;

/// What a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Events, in.
    Events,
    /// What is remembered of each account.
    State,
    /// Alerts, out.
    Alerts,
    /// What people decided, in.
    Control,
    /// What became of alerts.
    Desk,
    /// What went over which relay.
    Signals,
    /// Records that could not be read, out.
    Rejects,
}

/// All of them, in the order in which they are shown.
pub const ROLES: [Role; 7] =
    [Role::Events, Role::State, Role::Alerts, Role::Control, Role::Desk, Role::Signals, Role::Rejects];

impl Role {
    /// The name of its topic.
    pub fn topic(self, kafka: &Kafka) -> &str {
        let topics = &kafka.topics;
        match self {
            Self::Events => &topics.events,
            Self::State => &topics.state,
            Self::Alerts => &topics.alerts,
            Self::Control => &topics.control,
            Self::Desk => &topics.desk,
            Self::Signals => &topics.signals,
            Self::Rejects => &topics.rejects,
        }
    }
}

/// Makes what is missing; gives the names of what was made.
///
/// # Errors
/// Where the brokers refuse or do not answer.
pub fn create(kafka: &Kafka, wishes: Wishes) -> Result<Vec<String>, Error> {
    let cluster = Cluster::connect(kafka)?;
    let (brokers, seen) = look(&cluster, kafka)?;
    let replication = wishes.replication.unwrap_or(brokers.clamp(1, 3));
    let events = seen.get(&Role::Events).and_then(Seen::partitions);
    let keyed = events.or(wishes.partitions).unwrap_or(PARTITIONS);
    let mut made = Vec::new();
    for role in ROLES {
        if !matches!(seen.get(&role), Some(Seen::Missing)) {
            continue;
        }
        let partitions = if matches!(role, Role::Events | Role::State) { keyed } else { 1 };
        let topic = role.topic(kafka);
        cluster.create(topic, partitions, replication, &settings::of_new(role, replication))?;
        made.push(topic.to_owned());
    }
    Ok(made)
}

/// Looks at everything.
///
/// # Errors
/// Where the brokers do not answer. What they refuse is a finding.
pub fn check(kafka: &Kafka, limits: &Limits, wishes: Wishes) -> Result<Vec<Finding>, Error> {
    let cluster = Cluster::connect(kafka)?;
    let (brokers, seen) = look(&cluster, kafka)?;
    let replication = wishes.replication.unwrap_or(brokers.clamp(1, 3));
    let events = seen.get(&Role::Events).and_then(Seen::partitions);
    let mut findings = Vec::new();
    for (role, seen) in &seen {
        let wanted = match role {
            Role::Events => wishes.partitions,
            Role::State => events,
            Role::Alerts | Role::Control | Role::Desk | Role::Signals => Some(1),
            Role::Rejects => None,
        };
        findings.extend(settings::check(&cluster, kafka, *role, seen, wanted, replication)?);
    }
    findings.extend(rights::check(&cluster, kafka, &seen)?);
    if let Some(partitions) = events
        && wishes.sample > 0
    {
        findings.extend(sample::check(kafka, limits, partitions, wishes.sample)?);
    }
    Ok(findings)
}

fn look(cluster: &Cluster, kafka: &Kafka) -> Result<(i32, BTreeMap<Role, Seen>), Error> {
    let mut brokers = 1;
    let mut all = BTreeMap::new();
    for role in ROLES {
        let (count, seen) = cluster.look(role.topic(kafka))?;
        brokers = count;
        all.insert(role, seen);
    }
    Ok((brokers, all))
}

/// The beginning of a command of Kafka's own.
fn tool(name: &str, kafka: &Kafka) -> String {
    let secured =
        if kafka.security.is_tls() || kafka.security.is_sasl() { " --command-config client.properties" } else { "" };
    format!("{name} --bootstrap-server {}{secured}", kafka.bootstrap_servers)
}
