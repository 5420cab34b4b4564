//! Section `[kafka]` of the configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The environment variable that may hold the password.
pub const PASSWORD_VARIABLE: &str = "MAILFUSE_KAFKA_PASSWORD";

/// How the brokers are reached, and which topics are used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// Some brokers of the cluster, `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// How connections are secured.
    pub security: Security,
    /// Certificates of authorities that brokers are trusted by, PEM. Empty: the system's.
    pub ca_file: String,
    /// The client's own certificate, PEM. Empty: none.
    pub certificate_file: String,
    /// Its key, PEM.
    pub key_file: String,
    /// How the client proves who it is, with `sasl_…` security.
    pub sasl_mechanism: SaslMechanism,
    /// With `sasl_…` security: the user.
    pub username: String,
    /// A file that holds the password. Empty: the environment variable.
    pub password_file: String,
    /// The consumer group; transactional ids begin with it.
    pub group: String,
    /// How long a broker may take to answer, in seconds.
    pub timeout_s: u32,
    /// The topics.
    pub topics: Topics,
    /// Any further property of librdkafka, as it is called there.
    pub properties: BTreeMap<String, String>,
}

/// The topics by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topics {
    /// Events, in.
    pub events: String,
    /// What is remembered of each account; compacted, partitioned as the events are.
    pub state: String,
    /// Alerts, out; one partition.
    pub alerts: String,
    /// What people decided, in; compacted.
    pub control: String,
    /// What became of alerts: incidents, deliveries; compacted, one partition.
    pub desk: String,
    /// What went over which relay, from the detectors to the desk; compacted, one partition, kept for a few days.
    pub signals: String,
    /// Records that could not be read, out.
    pub rejects: String,
}

/// `security.protocol` of librdkafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// Neither encrypted nor authenticated.
    Plaintext,
    /// TLS.
    Tls,
    /// A password over an open connection.
    SaslPlaintext,
    /// A password over TLS.
    SaslTls,
}

impl Security {
    /// As librdkafka calls it.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Tls => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslTls => "sasl_ssl",
        }
    }

    /// Whether a user and a password are needed.
    pub fn is_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslTls)
    }

    /// Whether connections are encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::SaslTls)
    }
}

/// `sasl.mechanism` of librdkafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaslMechanism {
    /// The password as it is.
    #[serde(rename = "PLAIN")]
    Plain,
    /// RFC 5802 with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// RFC 5802 with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl SaslMechanism {
    /// As librdkafka calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".to_owned(),
            security: Security::Plaintext,
            ca_file: String::new(),
            certificate_file: String::new(),
            key_file: String::new(),
            sasl_mechanism: SaslMechanism::ScramSha256,
            username: String::new(),
            password_file: String::new(),
            group: "mailfuse".to_owned(),
            timeout_s: 30,
            topics: Topics::default(),
            properties: BTreeMap::new(),
        }
    }
}

impl Default for Topics {
    fn default() -> Self {
        let name = |what: &str| format!("mailfuse.{what}");
        Self {
            events: name("events"),
            state: name("state"),
            alerts: name("alerts"),
            control: name("control"),
            desk: name("desk"),
            signals: name("signals"),
            rejects: name("rejects"),
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// A name that is missing.
    #[error("kafka.{0} must not be empty")]
    Empty(&'static str),
    /// Two topics of one name.
    #[error("kafka.topics: `{0}` is named twice: each needs a topic of its own")]
    Twice(String),
    /// A property that mailfuse sets itself.
    #[error("kafka.properties: `{0}` is set by mailfuse itself{1}")]
    Owned(String, &'static str),
    /// A number out of its range.
    #[error("kafka.{0}")]
    Range(&'static str),
}

/// Properties on which correctness rests, or that have a key of their own.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", ": use kafka.bootstrap_servers"),
    ("metadata.broker.list", ": use kafka.bootstrap_servers"),
    ("security.protocol", ": use kafka.security"),
    ("sasl.mechanism", ": use kafka.sasl_mechanism"),
    ("sasl.mechanisms", ": use kafka.sasl_mechanism"),
    ("sasl.username", ": use kafka.username"),
    ("sasl.password", ": use kafka.password_file"),
    ("ssl.ca.location", ": use kafka.ca_file"),
    ("ssl.certificate.location", ": use kafka.certificate_file"),
    ("ssl.key.location", ": use kafka.key_file"),
    ("group.id", ": use kafka.group"),
    ("group.protocol", ""),
    ("group.instance.id", ": use run.instance"),
    ("partition.assignment.strategy", ""),
    ("enable.auto.commit", ""),
    ("enable.auto.offset.store", ""),
    ("auto.offset.reset", ": use run.start"),
    ("isolation.level", ""),
    ("transactional.id", ""),
    ("enable.idempotence", ""),
    ("acks", ""),
    ("request.required.acks", ""),
    ("partitioner", ""),
    ("enable.partition.eof", ""),
];

impl Kafka {
    /// Checks what does not depend on the world.
    ///
    /// # Errors
    /// Where a value cannot be used; the error names its key.
    pub fn check(&self) -> Result<(), BadSettings> {
        let t = &self.topics;
        for (name, value) in [
            ("bootstrap_servers", &self.bootstrap_servers),
            ("group", &self.group),
            ("topics.events", &t.events),
            ("topics.state", &t.state),
            ("topics.alerts", &t.alerts),
            ("topics.control", &t.control),
            ("topics.signals", &t.signals),
            ("topics.rejects", &t.rejects),
        ] {
            if value.is_empty() {
                return Err(BadSettings::Empty(name));
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        if let Some(twice) = self.topics.all().into_iter().find(|topic| !seen.insert(*topic)) {
            return Err(BadSettings::Twice(twice.to_owned()));
        }
        if !(1..=600).contains(&self.timeout_s) {
            return Err(BadSettings::Range("timeout_s must lie between 1 and 600"));
        }
        for key in self.properties.keys() {
            if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| owned == key) {
                return Err(BadSettings::Owned(key.clone(), instead));
            }
        }
        Ok(())
    }
}

impl Topics {
    /// All of them.
    pub fn all(&self) -> [&str; 7] {
        [&self.events, &self.state, &self.alerts, &self.control, &self.desk, &self.signals, &self.rejects]
    }
}
