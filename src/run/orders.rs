//! What the threads of `run` say to each other: closed sets, so that every loop can be read at one glance.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::lease::Lease;
use super::shared::Epoch;
use crate::core::contacts::Contacts;
use crate::core::decision::Decisions;
use crate::core::shard::Shard;
use crate::kafka::changelog::Changelog;
use crate::kafka::outlet::Tracker;
use crate::state::record::ShardRecord;
use crate::telemetry::AccountAnswer;

/// To a worker.
#[derive(Debug)]
pub enum Order {
    /// A partition is ready to go on.
    Install(Box<Installed>),
    /// A last checkpoint, then let go; answers with the partition.
    Drain {
        /// Of which ownership.
        lease: Arc<Lease>,
        /// Where the answer goes: whether the checkpoint was stored.
        done: Sender<(i32, bool)>,
    },
    /// Let go at once: it is lost.
    Drop(Arc<Lease>),
    /// Somebody decided about an account.
    Decisions(Arc<Decisions>),
    /// The configuration was reloaded.
    Epoch(Arc<Epoch>),
    /// What became of a checkpoint.
    Stored(Box<Stored>),
    /// Somebody asks about an account.
    Account {
        /// As folded.
        name: String,
        /// Its partition.
        partition: i32,
        /// Where the answer goes.
        reply: Sender<AccountAnswer>,
    },
    /// Somebody asks whom an account knew.
    Contacts {
        /// As folded.
        name: String,
        /// Its partition.
        partition: i32,
        /// Before this incident, where there was one.
        incident: String,
        /// Where the answer goes; `None` where the account is not known here yet.
        reply: Sender<Option<Contacts>>,
    },
    /// Nothing more comes.
    Stop,
}

/// A partition as it was restored.
#[derive(Debug)]
pub struct Installed {
    /// Its lease.
    pub lease: Arc<Lease>,
    /// The shard; `None` while there is no event at all, and so no beginning of history.
    pub shard: Option<Shard>,
    /// Whether it comes from a checkpoint.
    pub is_stored: bool,
    /// The offset of the next event.
    pub next_offset: i64,
    /// The writing end of its state; `None` where nothing is stored.
    pub changelog: Option<Changelog>,
}

/// To the poll thread.
#[derive(Debug)]
pub enum PollOrder {
    /// Read on from here.
    Resume(Arc<Lease>, i64),
    /// Read no further.
    Pause(Arc<Lease>),
}

/// To the restorers.
#[derive(Debug)]
pub struct RestoreOrder {
    /// Which partition.
    pub lease: Arc<Lease>,
    /// How often it has failed lately: how long to wait before.
    pub tries: u32,
}

/// A checkpoint on its way.
#[derive(Debug)]
pub struct Job {
    /// Of which partition.
    pub lease: Arc<Lease>,
    /// Its writing end, which comes back with [`Stored`].
    pub changelog: Changelog,
    /// Its records, as they are made.
    pub chunks: Receiver<Chunk>,
    /// Whom to tell.
    pub worker: Sender<Order>,
}

/// A part of a checkpoint.
#[derive(Debug)]
pub enum Chunk {
    /// Accounts, changed since the last checkpoint.
    Accounts(Accounts),
    /// That was all: what covers it, and what must be acknowledged before.
    Finish(ShardRecord, Vec<Arc<Tracker>>),
}

/// Keys and values, one after the other.
#[derive(Debug, Default)]
pub struct Accounts {
    bytes: Vec<u8>,
    ends: Vec<(usize, usize)>,
}

impl Accounts {
    /// Adds one.
    pub fn push(&mut self, name: &str, packed: &[u8]) {
        self.bytes.extend_from_slice(name.as_bytes());
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(packed);
        self.ends.push((key_end, self.bytes.len()));
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut begin = 0;
        self.ends.iter().map(move |&(key_end, value_end)| {
            let pair = (&self.bytes[begin..key_end], &self.bytes[key_end..value_end]);
            begin = value_end;
            pair
        })
    }
}

/// What became of a checkpoint.
#[derive(Debug)]
pub struct Stored {
    /// Of which partition.
    pub lease: Arc<Lease>,
    /// Its writing end; `None` where it is of no more use.
    pub changelog: Option<Changelog>,
    /// The offset that is stored now, or why it is not.
    pub outcome: Result<i64, NotStored>,
}

/// Why a checkpoint was not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotStored {
    /// Nothing is wrong with the partition: try again.
    TryAgain(String),
    /// What was sent was not taken, or somebody else has the partition: go back to the last checkpoint.
    GoBack(String),
    /// Nobody waits for it.
    GivenUp,
}
