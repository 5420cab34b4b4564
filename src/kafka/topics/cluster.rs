//! The connection through which topics are looked at and made. Every call has a limit in time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::util::Timeout;

use super::Error;
use crate::kafka::client::{self, LastTrouble, client_config};
use crate::kafka::settings::Kafka;

/// A call is cut into pieces of this length, to hear in between why it gets no answer.
pub(super) const PIECE: Duration = Duration::from_secs(2);
const LISTEN: Duration = Duration::from_millis(300);

/// The context of clients that end with what they were asked for: their trouble is in the answer, and the log has no more of it.
#[derive(Debug, Default)]
pub struct Quiet {
    /// The last complaint.
    pub trouble: LastTrouble,
    /// Why a record was refused.
    pub refusal: Mutex<Option<KafkaError>>,
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, words: &str) {
        tracing::debug!(target: "kafka", ?level, facility, "{words}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.trouble.note(code, reason);
        }
    }
}

impl ConsumerContext for Quiet {}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
    }
}

/// What the brokers say about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// It does not exist, or this user may not know that it does.
    Missing,
    /// This user may not look at it.
    Forbidden,
    /// It is there: its partitions.
    There(Vec<Partition>),
}

/// A partition, as far as it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Copies.
    pub replicas: usize,
    /// Copies that are up to date.
    pub in_sync: usize,
    /// Whether somebody serves it.
    pub has_leader: bool,
}

impl Seen {
    /// How many partitions it has; `None` where that cannot be seen.
    pub fn partitions(&self) -> Option<i32> {
        match self {
            Self::There(partitions) => i32::try_from(partitions.len()).ok(),
            Self::Missing | Self::Forbidden => None,
        }
    }
}

/// Clients for looking and for making.
pub struct Cluster {
    /// Of a group that nobody joins.
    pub consumer: BaseConsumer<Quiet>,
    admin: AdminClient<Quiet>,
    runtime: tokio::runtime::Runtime,
    timeout: Duration,
}

impl Cluster {
    /// Connects, and waits for a first answer.
    ///
    /// # Errors
    /// Where there is none, or the properties cannot be used.
    pub fn connect(kafka: &Kafka) -> Result<Self, Error> {
        let mut config = client_config(kafka)?;
        let admin = config.create_with_context(Quiet::default()).map_err(client::Error::from)?;
        config.set("group.id", &kafka.group).set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        let consumer = config.create_with_context(Quiet::default()).map_err(client::Error::from)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|e| Error::Broker(format!("no runtime: {e}")))?;
        Ok(Self { consumer, admin, runtime, timeout: kafka.timeout() })
    }

    /// How many brokers there are, and what they say about a topic.
    ///
    /// # Errors
    /// Where they do not answer.
    pub fn look(&self, topic: &str) -> Result<(i32, Seen), Error> {
        let metadata = self.metadata(topic)?;
        let brokers = i32::try_from(metadata.brokers().len()).unwrap_or(i32::MAX);
        let Some(found) = metadata.topics().iter().find(|t| t.name() == topic) else {
            return Ok((brokers, Seen::Missing));
        };
        let seen = match found.error().map(RDKafkaErrorCode::from) {
            None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {
                let partition = |p: &rdkafka::metadata::MetadataPartition| Partition {
                    replicas: p.replicas().len(),
                    in_sync: p.isr().len(),
                    has_leader: p.leader() >= 0,
                };
                Seen::There(found.partitions().iter().map(partition).collect())
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Seen::Missing,
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => Seen::Forbidden,
            Some(code) => {
                return Err(self.failed(&format!("{topic} cannot be looked at"), &KafkaError::MetadataFetch(code)));
            }
        };
        Ok((brokers, seen))
    }

    fn metadata(&self, topic: &str) -> Result<Metadata, Error> {
        let began = Instant::now();
        loop {
            let error = match self.consumer.fetch_metadata(Some(topic), PIECE.min(self.timeout)) {
                Ok(metadata) => return Ok(metadata),
                Err(error) => error,
            };
            use RDKafkaErrorCode as E;
            let hopeless = |code| matches!(code, E::Authentication | E::SaslAuthenticationFailed | E::SSL);
            if self.hears(hopeless) || began.elapsed() >= self.timeout {
                return Err(self.failed("the brokers do not answer", &error));
            }
        }
    }

    /// Whether librdkafka complains of something like this. It does so to whoever polls.
    pub fn hears(&self, is_it: impl Fn(RDKafkaErrorCode) -> bool) -> bool {
        let began = Instant::now();
        while began.elapsed() < LISTEN {
            // Its log lines come the same way, one a call.
            let said = self.consumer.poll(Duration::from_millis(10)).and_then(Result::err);
            let trouble = self.consumer.context().trouble.get().map(|(code, _)| code);
            if said.and_then(|e| e.rdkafka_error_code()).into_iter().chain(trouble).any(&is_it) {
                return true;
            }
        }
        false
    }

    /// An error in words, with its cure.
    pub fn failed(&self, what: &str, error: &KafkaError) -> Error {
        Error::Broker(self.consumer.context().trouble.explain(what, error))
    }

    fn options(&self) -> AdminOptions {
        let limit = || Some(Timeout::After(self.timeout));
        AdminOptions::new().request_timeout(limit()).operation_timeout(limit())
    }

    /// Makes a topic and waits until its partitions are served. One that somebody else makes meanwhile is as good.
    ///
    /// # Errors
    /// Where the brokers refuse it.
    pub fn create(
        &self,
        topic: &str,
        partitions: i32,
        replication: i32,
        settings: &[(&'static str, String)],
    ) -> Result<(), Error> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let what = format!("{topic} was not made ({partitions} partitions, replication {replication})");
        let made = self.runtime.block_on(self.admin.create_topics([&new], &self.options()));
        for result in made.map_err(|e| self.failed(&what, &e))? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code @ RDKafkaErrorCode::InvalidReplicationFactor)) => {
                    return Err(Error::Broker(format!(
                        "{what}: {code}. There are fewer brokers than that: --replication"
                    )));
                }
                Err((_, code)) => return Err(self.failed(&what, &KafkaError::AdminOp(code))),
            }
        }
        let began = Instant::now();
        loop {
            let (_, seen) = self.look(topic)?;
            if matches!(&seen, Seen::There(p) if !p.is_empty() && p.iter().all(|p| p.has_leader)) {
                return Ok(());
            }
            if began.elapsed() > self.timeout {
                return Err(Error::Broker(format!("{topic} was made, but no broker serves it yet: look again later")));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The settings of a topic; `None` where this user may not see them.
    ///
    /// # Errors
    /// Where the brokers do not answer.
    pub fn settings(&self, topic: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
        let what = format!("the settings of {topic} cannot be read");
        let (of, options) = ([ResourceSpecifier::Topic(topic)], self.options());
        let described = self.admin.describe_configs(&of, &options);
        let described = self.runtime.block_on(described).map_err(|e| self.failed(&what, &e))?;
        let mut settings = BTreeMap::new();
        for resource in described {
            match resource {
                Ok(resource) => {
                    settings.extend(resource.entries.into_iter().filter_map(|e| Some((e.name, e.value?))));
                }
                Err(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
                    return Ok(None);
                }
                Err(code) => return Err(self.failed(&what, &KafkaError::AdminOp(code))),
            }
        }
        Ok(Some(settings))
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}
