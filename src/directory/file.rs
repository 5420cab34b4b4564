//! The directory's file: read when it has changed, put in force as a whole.

use std::fs::{File, Metadata};
use std::io::BufReader;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::Serialize;

use super::{Directory, Error};

/// The directory as it is in force, and how its file does.
#[derive(Debug, Default)]
pub struct Held {
    path: Option<PathBuf>,
    directory: RwLock<Arc<Directory>>,
    /// Whether one could be read.
    is_known: AtomicBool,
    /// As the file was when it was looked at last; held while it is read.
    seen: Mutex<Option<Face>>,
    trouble: Mutex<Option<String>>,
}

/// What tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Face {
    inode: u64,
    len: u64,
    modified_ns: i128,
}

impl Face {
    fn of(metadata: &Metadata) -> Self {
        let modified_ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        Self { inode: metadata.ino(), len: metadata.len(), modified_ns }
    }
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// The file; empty: there is no directory.
    pub file: String,
    /// Accounts that are known.
    pub accounts: usize,
    /// Why the file as it is now is not in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Held {
    /// Of a file; empty: none. Nothing is read yet.
    pub fn new(file: &str) -> Self {
        Self { path: (!file.is_empty()).then(|| PathBuf::from(file)), ..Self::default() }
    }

    /// The directory in force; empty where there is none, or none could be read so far.
    pub fn directory(&self) -> Arc<Directory> {
        Arc::clone(&self.directory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is a directory, and it could be read once: what it does not have is then not wanted.
    pub fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Acquire)
    }

    /// Reads the file if it has changed since it was looked at. Where it cannot be used the directory before stays, as a whole;
    /// that is logged once.
    pub fn look(&self) {
        let Some(path) = &self.path else { return };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let began = std::time::Instant::now();
        let read = File::open(path).and_then(|f| Ok((Face::of(&f.metadata()?), f))).map_err(Error::from);
        let read = match read {
            // It was looked at already, be it in vain.
            Ok((face, _)) if *seen == Some(face) => return,
            Ok((face, file)) => {
                *seen = Some(face);
                Directory::read(BufReader::new(&file)).and_then(|directory| {
                    // What was written meanwhile may have been seen in part.
                    if Face::of(&file.metadata()?) == face { Ok(directory) } else { Err(Error::Changing) }
                })
            }
            Err(e) => Err(e),
        };
        let trouble = match read {
            Ok(directory) => {
                tracing::info!(
                    accounts = directory.len(),
                    ms = began.elapsed().as_millis() as u64,
                    "{}: the directory is in force",
                    path.display()
                );
                *self.directory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
                self.is_known.store(true, Ordering::Release);
                None
            }
            Err(e) => {
                if matches!(e, Error::Changing | Error::Io(_)) {
                    // It may do better as it is.
                    *seen = None;
                }
                Some(format!("{}: {e}", path.display()))
            }
        };
        let mut told = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = trouble.as_ref().filter(|why| told.as_ref() != Some(*why)) {
            tracing::error!("the directory is not put in force, the one before stays: {why}");
        }
        *told = trouble;
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        Standing {
            file: self.path.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            accounts: self.directory().len(),
            trouble: self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
