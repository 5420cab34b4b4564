//! Looks in the `state` topic for what renamed accounts had learned, on a thread of its own: a partition's accounts may be
//! millions, and the desk must go on meanwhile.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rdkafka::Message as _;

use crate::core::fingerprint::Fingerprint;
use crate::core::inherit::Learned;
use crate::core::packed;
use crate::core::policy::Policy;
use crate::kafka::Kafka;
use crate::kafka::partitioner::partition_of;
use crate::kafka::restore::{Error, Read, Reader};
use crate::state::record::{Mismatch, SHARD_KEY, ShardRecord, key_id};

/// The wait after it could not be looked.
const AGAIN: Duration = Duration::from_secs(30);
/// How often a long search says how far it is.
const SAY: Duration = Duration::from_secs(30);

/// By account, what it had learned; `None`: nothing is stored about it.
pub(super) type Found = HashMap<String, Option<Learned>>;

/// The search, where one is under way.
#[derive(Debug, Default)]
pub(super) struct Heirs {
    under_way: Option<Search>,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Search {
    found: Receiver<Result<Found, Error>>,
    is_wanted: Arc<AtomicBool>,
}

impl Drop for Search {
    fn drop(&mut self) {
        self.is_wanted.store(false, Ordering::Release);
    }
}

impl Heirs {
    /// Looks for these accounts, unless a search is under way or must wait. Everything about them must be recorded.
    pub(super) fn look_for(&mut self, accounts: Vec<String>, kafka: &Kafka, policy: &Arc<Policy>) {
        if accounts.is_empty() || self.under_way.is_some() || self.not_before.is_some_and(|t| Instant::now() < t) {
            return;
        }
        let (tell, found) = crossbeam_channel::bounded(1);
        let is_wanted = Arc::new(AtomicBool::new(true));
        let (kafka, policy, wanted) = (kafka.clone(), Arc::clone(policy), Arc::clone(&is_wanted));
        let run = move || {
            // Whoever asked may have gone.
            let _ = tell.send(search(&accounts, &kafka, &policy, &|| wanted.load(Ordering::Acquire)));
        };
        match std::thread::Builder::new().name("desk-heirs".to_owned()).spawn(run) {
            Ok(_) => self.under_way = Some(Search { found, is_wanted }),
            Err(e) => self.wait(&e.to_string()),
        }
    }

    /// What was found, once.
    pub(super) fn found(&mut self) -> Option<Found> {
        let ended = self.under_way.as_ref()?.found.try_recv();
        match ended {
            Ok(Ok(found)) => {
                self.under_way = None;
                Some(found)
            }
            Ok(Err(e)) => {
                self.wait(&e.to_string());
                None
            }
            Err(crossbeam_channel::TryRecvError::Empty) => None,
            Err(crossbeam_channel::TryRecvError::Disconnected) => {
                self.wait("the search ended by a bug");
                None
            }
        }
    }

    fn wait(&mut self, why: &str) {
        tracing::warn!("what renamed accounts had learned cannot be looked for, and is tried again: {why}");
        self.under_way = None;
        self.not_before = Instant::now().checked_add(AGAIN);
    }
}

fn search(accounts: &[String], kafka: &Kafka, policy: &Policy, wanted: &dyn Fn() -> bool) -> Result<Found, Error> {
    let began = Instant::now();
    let reader = Reader::new(kafka)?;
    let topic = &kafka.topics.state;
    let partitions = reader.partitions(topic)?;
    let mut by_partition = BTreeMap::<i32, BTreeSet<&str>>::new();
    for account in accounts {
        by_partition.entry(partition_of(account.as_bytes(), partitions)).or_default().insert(account);
    }
    let prints = Fingerprint::new(&policy.key);
    let mut found = Found::new();
    for (partition, sought) in by_partition {
        let (low, high) = reader.range(topic, partition)?;
        if high > low {
            let mut said = Instant::now();
            let mut last: HashMap<&str, Vec<u8>> = HashMap::new();
            reader.read(topic, partition, low, wanted, &mut |message| {
                if said.elapsed() > SAY {
                    said = Instant::now();
                    tracing::info!(
                        partition,
                        of = high - low,
                        at = message.offset() - low,
                        "looking for renamed accounts"
                    );
                }
                let key = message.key().unwrap_or_default();
                if key == SHARD_KEY {
                    let wrong = |source| Error::Mismatch { topic: topic.clone(), partition, source };
                    let record = ShardRecord::parse(message.payload().unwrap_or_default()).map_err(wrong)?;
                    if record.key_id != key_id(&policy.key) {
                        return Err(wrong(Mismatch::Key));
                    }
                }
                // The last one counts.
                if let Some(account) = std::str::from_utf8(key).ok().and_then(|key| sought.get(key)) {
                    match message.payload() {
                        Some(packed) => _ = last.insert(account, packed.to_vec()),
                        None => _ = last.remove(account),
                    }
                }
                Ok(Read::On)
            })?;
            for (account, packed) in last {
                match packed::unpack(&packed, &prints, &policy.spans) {
                    Ok(known) => _ = found.insert(account.to_owned(), Some(known.learned(&prints))),
                    Err(e) => tracing::error!(account, "{topic}:{partition}: what is stored cannot be read: {e}"),
                }
            }
        }
    }
    for account in accounts {
        found.entry(account.clone()).or_default();
    }
    tracing::info!(
        accounts = accounts.len(),
        ms = began.elapsed().as_millis() as u64,
        "looked for what renamed accounts had learned"
    );
    Ok(found)
}
