//! The stored form of a shard, and its versions.
//!
//! A file is a line of text that names format and version, then one zstd stream (with its checksum) of records: the head
//! (postcard), then each account, packed (`core::packed`), by name. A newer program reads older versions; what it cannot read it
//! refuses, never in half.

pub mod record;

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::core::fingerprint::Fingerprint;
use crate::core::packed;
use crate::core::policy::Policy;
use crate::core::shard::{Shard, Unreadable};
use crate::core::version1::Account1;
use crate::event::Timestamp;

/// The first line of a file of this version.
const MAGIC: &[u8] = b"mailfuse state 2\n";
/// That of the version before, whose accounts were in postcard's form of them.
const MAGIC_1: &[u8] = b"mailfuse state 1\n";
/// No record is larger, in bytes. Of version 1 they could be larger than any is now.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// Why a state could not be saved or loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Not such a file, or of a newer program.
    #[error("not a state that this version reads: it begins with {found:?}")]
    Version {
        /// The beginning of the file.
        found: String,
    },
    /// The stream ends too early or does not decode; the words are those of the decoder.
    #[error("cut short or damaged ({0}): use another copy, or start without it")]
    CutShort(String),
    /// A record cannot be read.
    #[error("damaged: use another copy, or start without it")]
    Damaged(#[from] postcard::Error),
    /// An account cannot be read.
    #[error("damaged ({0}): use another copy, or start without it")]
    Account(#[from] Unreadable),
    /// A record is longer than any can be.
    #[error("damaged (a record of {0} bytes): use another copy, or start without it")]
    TooLong(usize),
    /// Another fingerprint key.
    #[error(
        "made with another fingerprint key: every contact would look new. Use the key that it was made with, or start without it"
    )]
    Key,
    /// Other windows.
    #[error(
        "made with detect.windows_s = {theirs:?}, the configuration has {ours:?}: use the same, or start without it"
    )]
    Windows {
        /// Of the file.
        theirs: Vec<u32>,
        /// Of the configuration.
        ours: Vec<u32>,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    /// Program version, for people.
    by: String,
    /// What tells the fingerprint key from others without giving it away.
    key_id: [u8; 8],
    windows_s: Vec<u32>,
    history_since_ms: i64,
    newest_ms: i64,
    accounts: u64,
}

fn key_id(key: &[u8; 16]) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update(b"mailfuse fingerprint key id");
    hash.update(key);
    let mut id = [0; 8];
    id.copy_from_slice(&hash.finalize()[..8]);
    id
}

/// Saves a shard, beside and then renamed.
///
/// # Errors
/// Where the file cannot be written; then an older one is as it was.
pub fn save(path: &Path, shard: &Shard, policy: &Policy) -> Result<(), Error> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    write(BufWriter::new(file.as_file_mut()), shard, policy)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| Error::Io(e.error))?;
    Ok(())
}

/// Writes a shard.
///
/// # Errors
/// Where `out` fails.
pub fn write(mut out: impl Write, shard: &Shard, policy: &Policy) -> Result<(), Error> {
    out.write_all(MAGIC)?;
    let mut zstd = zstd::Encoder::new(out, 3)?;
    zstd.include_checksum(true)?;
    let head = Head {
        by: policy.by.clone(),
        key_id: key_id(&policy.key),
        windows_s: policy.spans.all_s().to_vec(),
        history_since_ms: shard.history_since().0,
        newest_ms: shard.newest().0,
        accounts: shard.accounts() as u64,
    };
    record(&mut zstd, &postcard::to_stdvec(&head)?)?;
    // By name, so that the bytes do not depend on the order in which accounts were met.
    let mut written = Ok(());
    shard.give_all(&mut |_, packed| {
        if written.is_ok() {
            written = record(&mut zstd, packed);
        }
    });
    written?;
    zstd.finish()?.flush()?;
    Ok(())
}

fn record(out: &mut impl Write, bytes: &[u8]) -> Result<(), Error> {
    let len = u32::try_from(bytes.len()).map_err(|_| Error::TooLong(bytes.len()))?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(bytes)?;
    Ok(())
}

/// Loads a shard.
///
/// # Errors
/// Where the file cannot be read whole, is of a newer version, or does not go with `policy`.
pub fn load(path: &Path, policy: &Arc<Policy>) -> Result<Shard, Error> {
    read(BufReader::new(File::open(path)?), policy)
}

/// Reads a shard.
///
/// # Errors
/// As [`load`].
pub fn read(from: impl Read, policy: &Arc<Policy>) -> Result<Shard, Error> {
    read_from(from, policy).map_err(|e| match e {
        // The decoder reports what it makes of the bytes as an error of the reader, a wrong checksum too.
        Error::Io(e) if matches!(e.kind(), std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::Other) => {
            Error::CutShort(e.to_string())
        }
        e => e,
    })
}

fn read_from(mut from: impl Read, policy: &Arc<Policy>) -> Result<Shard, Error> {
    let mut magic = Vec::new();
    from.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    if magic != MAGIC && magic != MAGIC_1 {
        return Err(Error::Version { found: String::from_utf8_lossy(&magic).into_owned() });
    }
    let mut zstd = zstd::Decoder::new(from)?;
    let mut bytes = Vec::new();
    read_record(&mut zstd, &mut bytes)?;
    let head: Head = postcard::from_bytes(&bytes)?;
    if head.key_id != key_id(&policy.key) {
        return Err(Error::Key);
    }
    if head.windows_s != policy.spans.all_s() {
        return Err(Error::Windows { theirs: head.windows_s, ours: policy.spans.all_s().to_vec() });
    }
    let mut shard = Shard::new(Arc::clone(policy), Timestamp(head.history_since_ms));
    shard.restore_clock(Timestamp(head.newest_ms));
    let prints = Fingerprint::new(&policy.key);
    for _ in 0..head.accounts {
        read_record(&mut zstd, &mut bytes)?;
        if magic == MAGIC_1 {
            let account: Account1 = postcard::from_bytes(&bytes)?;
            shard.restore(account.account(&policy.spans, &prints));
        } else {
            let name = packed::name(&bytes).unwrap_or_default();
            shard.restore_packed(name, &bytes)?;
        }
    }
    // To the end, so that the checksum is looked at.
    let rest = std::io::copy(&mut zstd, &mut std::io::sink())?;
    if rest > 0 {
        return Err(Error::TooLong(rest as usize));
    }
    Ok(shard)
}

fn read_record(from: &mut impl Read, bytes: &mut Vec<u8>) -> Result<(), Error> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > RECORD_BYTES_MAX {
        return Err(Error::TooLong(len));
    }
    bytes.clear();
    // As much memory as there are bytes, whatever the length says.
    from.take(len as u64).read_to_end(bytes)?;
    if bytes.len() < len {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    Ok(())
}
