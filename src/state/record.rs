//! Records of the `state` topic: an account's key is its name, the shard's own record has a key that no account can have.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::core::policy::Policy;
use crate::core::shard::Kept;

/// The key of the shard's own record: no UTF-8, so no account's name.
pub const SHARD_KEY: &[u8] = b"\xffshard";

/// The version of the shard's record that this program writes.
const VERSION: u32 = 2;

/// What a shard is, besides its accounts. Written with every checkpoint, in the same transaction; JSON, for whoever looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Version of this record.
    pub v: u32,
    /// Program and configuration that wrote it.
    pub by: String,
    /// Tells the fingerprint key from others without giving it away.
    pub key_id: String,
    /// The windows that the accounts count in.
    pub windows_s: Vec<u32>,
    /// Partitions of the events topic: another number moves accounts.
    pub partitions: i32,
    /// The offset of the next event to read.
    pub offset: i64,
    /// The largest event time met, in milliseconds; absent where none was.
    pub newest_ms: Option<i64>,
    /// When the first event of all history happened, in milliseconds.
    pub history_since_ms: i64,
    /// The offset of the next control record.
    pub control_offset: i64,
    /// What is counted per relay in the minutes that are open; absent of version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<Kept>,
}

/// Why a shard's record does not go with this program or configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Not such a record.
    #[error(
        "the shard's record cannot be read ({0}): was it written by something else, or by a newer program? Use that one"
    )]
    Unreadable(String),
    /// A newer version.
    #[error("the shard's record has version {0}, this program reads up to {VERSION}: use the program that wrote it")]
    Version(u32),
    /// Another fingerprint key.
    #[error("made with another fingerprint key: every contact would look new. Use the key that it was made with")]
    Key,
    /// Other windows.
    #[error("made with detect.windows_s = {theirs:?}, the configuration has {ours:?}: use the same")]
    Windows {
        /// Of the record.
        theirs: Vec<u32>,
        /// Of the configuration.
        ours: Vec<u32>,
    },
    /// The events topic has another number of partitions than when this was written.
    #[error(
        "made when the events topic had {theirs} partitions; it has {ours}, so that accounts are elsewhere. Stop all instances, \
         `mailfuse state export FILE`, make the topics anew with the new number, then `mailfuse state import FILE`"
    )]
    Partitions {
        /// Of the record.
        theirs: i32,
        /// Of the topic.
        ours: i32,
    },
}

impl ShardRecord {
    /// The record of a shard under `policy`.
    pub fn new(policy: &Policy, partitions: i32, offset: i64, newest_ms: i64, history_since_ms: i64) -> Self {
        Self {
            v: VERSION,
            by: policy.by.clone(),
            key_id: key_id(&policy.key),
            windows_s: policy.spans.all_s().to_vec(),
            partitions,
            offset,
            newest_ms: (newest_ms != i64::MIN).then_some(newest_ms),
            history_since_ms,
            control_offset: 0,
            minutes: None,
        }
    }

    /// Reads a record and holds it against what is in force.
    ///
    /// # Errors
    /// Where it cannot be read, or does not go with `policy` or the topic.
    pub fn read(bytes: &[u8], policy: &Policy, partitions: i32) -> Result<Self, Mismatch> {
        let record = Self::parse(bytes)?;
        if record.key_id != key_id(&policy.key) {
            return Err(Mismatch::Key);
        }
        if record.windows_s != policy.spans.all_s() {
            return Err(Mismatch::Windows { theirs: record.windows_s, ours: policy.spans.all_s().to_vec() });
        }
        if record.partitions != partitions {
            return Err(Mismatch::Partitions { theirs: record.partitions, ours: partitions });
        }
        Ok(record)
    }

    /// Reads a record, whatever is in force.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn parse(bytes: &[u8]) -> Result<Self, Mismatch> {
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let version: Version = serde_json::from_slice(bytes).map_err(|e| Mismatch::Unreadable(e.to_string()))?;
        if version.v > VERSION {
            return Err(Mismatch::Version(version.v));
        }
        serde_json::from_slice(bytes).map_err(|e| Mismatch::Unreadable(e.to_string()))
    }

    /// The bytes to write.
    pub fn bytes(&self) -> Vec<u8> {
        // Plain data: it cannot fail, and an empty record would be refused when read.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The clock to restore.
    pub fn newest_ms(&self) -> i64 {
        self.newest_ms.unwrap_or(i64::MIN)
    }
}

/// What tells a fingerprint key from others without giving it away, in hexadecimal.
pub fn key_id(key: &[u8; 16]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"mailfuse fingerprint key id");
    hash.update(key);
    hash.finalize()[..8].iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::Detect;

    fn policy(key: u8) -> Policy {
        Policy::new(Detect::default(), [key; 16], "test".to_owned()).unwrap()
    }

    #[test]
    fn what_does_not_go_together_is_refused_with_the_cure() {
        let record = ShardRecord::new(&policy(1), 12, 7, i64::MIN, 5);
        let bytes = record.bytes();
        assert_eq!(ShardRecord::read(&bytes, &policy(1), 12).unwrap(), record);
        assert_eq!(record.newest_ms(), i64::MIN);
        assert_eq!(ShardRecord::read(&bytes, &policy(2), 12), Err(Mismatch::Key));
        let error = ShardRecord::read(&bytes, &policy(1), 4).unwrap_err().to_string();
        assert!(error.contains("state export") && error.contains("12 partitions; it has 4"), "{error}");
        assert!(matches!(ShardRecord::parse(b"{\"v\":3}"), Err(Mismatch::Version(3))));
        assert!(matches!(ShardRecord::parse(b"{\"v\":1}"), Err(Mismatch::Unreadable(_))));
        assert!(matches!(ShardRecord::parse(b"nonsense"), Err(Mismatch::Unreadable(_))));
    }
}
