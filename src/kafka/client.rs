//! What every client of the brokers shares: its properties, and what becomes of librdkafka's complaints.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::settings::{Kafka, PASSWORD_VARIABLE};
pub use crate::telemetry::logs::kafka as log;

/// How often a consumer that waits for its group's coordinator asks again who that is. librdkafka would wait for ten minutes, be
/// it for a broker that is gone.
pub const COORDINATOR_MS: &str = "5000";

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The password cannot be had.
    #[error("kafka.security asks for a password, and there is none: {0}")]
    Password(String),
    /// kafka.username is missing.
    #[error("kafka.security asks for a user: set kafka.username")]
    User,
    /// librdkafka refuses the properties.
    #[error("kafka: {0}; see kafka.properties")]
    Properties(#[from] KafkaError),
}

/// The properties of a client: where, how secured, and whatever `[kafka.properties]` adds.
///
/// # Errors
/// Where the password cannot be had.
pub fn client_config(kafka: &Kafka) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.bootstrap_servers)
        .set("client.id", "mailfuse")
        .set("security.protocol", kafka.security.protocol())
        .set("socket.keepalive.enable", "true")
        // A broker that is away is asked again within seconds, not after a doubling of minutes.
        .set("reconnect.backoff.max.ms", "2000")
        // What is produced must be spread as Java's clients spread it; librdkafka's own default would split an account.
        .set_log_level(RDKafkaLogLevel::Info);
    if kafka.security.is_tls() {
        for (property, file) in [
            ("ssl.ca.location", &kafka.ca_file),
            ("ssl.certificate.location", &kafka.certificate_file),
            ("ssl.key.location", &kafka.key_file),
        ] {
            if !file.is_empty() {
                config.set(property, file);
            }
        }
    }
    if kafka.security.is_sasl() {
        if kafka.username.is_empty() {
            return Err(Error::User);
        }
        config
            .set("sasl.mechanism", kafka.sasl_mechanism.name())
            .set("sasl.username", &kafka.username)
            .set("sasl.password", password(kafka)?);
    }
    for (key, value) in &kafka.properties {
        config.set(key, value);
    }
    Ok(config)
}

fn password(kafka: &Kafka) -> Result<String, Error> {
    if kafka.password_file.is_empty() {
        return std::env::var(PASSWORD_VARIABLE)
            .map_err(|_| Error::Password(format!("set kafka.password_file, or {PASSWORD_VARIABLE}")));
    }
    let text = std::fs::read_to_string(&kafka.password_file)
        .map_err(|e| Error::Password(format!("kafka.password_file {}: {e}", kafka.password_file)))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The last thing that a client complained about, for the error that a person reads when a call has timed out.
#[derive(Debug, Clone, Default)]
pub struct LastTrouble(Arc<Mutex<Option<(RDKafkaErrorCode, String)>>>);

impl LastTrouble {
    /// Notes a complaint.
    pub fn note(&self, code: RDKafkaErrorCode, words: &str) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // "All brokers are down" follows every refusal and says less.
        if code == RDKafkaErrorCode::AllBrokersDown && last.is_some() {
            return;
        }
        *last = Some((code, words.to_owned()));
    }

    /// The last complaint.
    pub fn get(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What failed, with the last complaint and what to do about it.
    pub fn explain(&self, what: &str, error: &KafkaError) -> String {
        let code = error.rdkafka_error_code();
        let (code, words) = match self.get() {
            // A time-out is only how the trouble shows.
            Some((trouble, words)) if code.is_none_or(is_vague) => (Some(trouble), format!("{error}: {words}")),
            _ => (code, error.to_string()),
        };
        match code.and_then(cure) {
            Some(cure) => format!("{what}: {words}. {cure}"),
            None => format!("{what}: {words}"),
        }
    }
}

fn is_vague(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(code, E::OperationTimedOut | E::RequestTimedOut | E::BrokerTransportFailure | E::AllBrokersDown)
}

/// What an operator can do about an error.
pub fn cure(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as E;
    Some(match code {
        E::Authentication | E::SaslAuthenticationFailed => {
            "The brokers refuse these credentials: look at kafka.username, kafka.password_file and kafka.sasl_mechanism"
        }
        E::SSL => "The TLS connection failed: look at kafka.ca_file, and at the name in the broker's certificate",
        E::Resolve => {
            "The name cannot be resolved: look at kafka.bootstrap_servers, and at advertised.listeners of the brokers"
        }
        E::BrokerTransportFailure | E::AllBrokersDown | E::OperationTimedOut | E::RequestTimedOut => {
            "No broker answers: look at kafka.bootstrap_servers and kafka.security, and whether the brokers are up"
        }
        E::UnknownTopic | E::UnknownTopicOrPartition => {
            "The topic or partition does not exist: `mailfuse topics create` makes what is missing"
        }
        E::TopicAuthorizationFailed
        | E::GroupAuthorizationFailed
        | E::ClusterAuthorizationFailed
        | E::TransactionalIdAuthorizationFailed => "An ACL is missing: `mailfuse topics check` says which",
        E::MessageSizeTooLarge => "Raise max.message.bytes of the topic; `mailfuse topics check` says to what",
        E::NotEnoughReplicas | E::NotEnoughReplicasAfterAppend => {
            "Too few replicas are in sync for min.insync.replicas: look at the brokers"
        }
        E::OffsetOutOfRange | E::AutoOffsetReset => {
            "The offset is not in the partition any more: retention ran past it; see `mailfuse run --help`, --accept-gap"
        }
        _ => return None,
    })
}

/// The context of clients: sends librdkafka's words to the log, and remembers the last complaint.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The last complaint.
    pub trouble: LastTrouble,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        log(level, facility, words);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        complain(&self.trouble, &error, reason);
    }
}

impl ConsumerContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    // For transactions: whether the records have arrived is what the commit says.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Notes a complaint of librdkafka. Nothing is lost by it: librdkafka goes on trying.
pub fn complain(trouble: &LastTrouble, error: &KafkaError, reason: &str) {
    let Some(code) = error.rdkafka_error_code() else {
        tracing::warn!(target: "kafka", error = %error, "{reason}");
        return;
    };
    // The end of a partition is asked for, and reported as if it were an error.
    if code == RDKafkaErrorCode::PartitionEOF {
        return;
    }
    trouble.note(code, reason);
    tracing::warn!(target: "kafka", error = %error, "{reason}");
}

impl Kafka {
    /// How long a broker may take to answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s.into())
    }
}
