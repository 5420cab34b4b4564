//! Lists kept on disk: written beside and renamed, and only where they have changed; then their reader is told.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::lists::{self, Rendered};
use super::process::{self, Ended};
use super::settings::{FileList, Policy};
use crate::kafka::outlet::now_ms;
use crate::relays::board::Board;
use crate::telemetry::Metrics;

/// What expires shows within this.
const LOOK: Duration = Duration::from_secs(1);
/// The waits after failures in a row: the first, and the longest.
const AGAIN: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// One file, and how it stands.
struct Kept {
    list: FileList,
    /// What is on disk; `None`: nobody knows.
    on_disk: Option<String>,
    /// Its reader has not been told of it yet.
    is_owed: bool,
    left_out: usize,
    withheld: usize,
    failures: u32,
    /// Not before.
    not_before: Instant,
}

/// Keeps the files until the runtime ends. A command that takes long delays the other files, so each has a task.
pub(super) async fn keep(list: FileList, policy: Policy, board: Arc<Board>, metrics: Arc<Metrics>) {
    let mut changed = board.watch();
    // After a start its reader is told once, because nobody knows whether it was told before.
    let is_owed = !list.reload.is_empty();
    let mut kept =
        Kept { list, on_disk: None, is_owed, left_out: 0, withheld: 0, failures: 0, not_before: Instant::now() };
    loop {
        let list = &kept.list;
        let wanted = board.look(|standing| lists::render(standing, list, &policy, now_ms()));
        if let Some(Rendered { text, left_out, withheld }) = wanted
            && Instant::now() >= kept.not_before
        {
            kept.note_left_out(left_out);
            kept.note_withheld(withheld, &metrics);
            match kept.bring(text).await {
                Ok(written) => {
                    kept.failures = 0;
                    if written {
                        metrics.hands.files_written.inc();
                    }
                }
                Err(e) => {
                    metrics.hands.files_failed.inc();
                    kept.failures = kept.failures.saturating_add(1);
                    let wait = AGAIN.0.saturating_mul(1 << kept.failures.min(6)).min(AGAIN.1);
                    kept.not_before = Instant::now() + wait;
                    tracing::error!("{e}; again in {} s", wait.as_secs());
                }
            }
        }
        let _ = tokio::time::timeout(LOOK, changed.changed()).await;
    }
}

impl Kept {
    fn note_left_out(&mut self, left_out: usize) {
        if left_out > self.left_out {
            tracing::warn!(
                "{}: {left_out} names cannot be written in this form (spaces or control characters) and are left out",
                self.list.path.display()
            );
        }
        self.left_out = left_out;
    }

    fn note_withheld(&mut self, withheld: usize, metrics: &Metrics) {
        if withheld > self.withheld {
            metrics.hands.lists_withheld.inc_by((withheld - self.withheld) as u64);
            let (path, mode) = (self.list.path.display(), self.list.mode);
            tracing::info!("{path}: {withheld} names are in force and left out, because its mode is {mode:?}");
        }
        self.withheld = withheld;
    }

    /// Brings file and reader up to `text`; says whether the file was written.
    async fn bring(&mut self, text: String) -> Result<bool, String> {
        let path = self.list.path.clone();
        if self.on_disk.is_none() {
            let read = path.clone();
            let found = tokio::task::spawn_blocking(move || std::fs::read_to_string(read)).await;
            self.on_disk = found.ok().and_then(Result::ok);
        }
        let changes = self.on_disk.as_ref() != Some(&text);
        if changes {
            let (to, bytes) = (path.clone(), text.clone());
            let written = tokio::task::spawn_blocking(move || replace(&to, bytes.as_bytes())).await;
            written.map_err(io::Error::other).and_then(|w| w).map_err(|e| {
                format!("{} cannot be written: {e}. Its folder must be there, and ours to write", path.display())
            })?;
            self.on_disk = Some(text);
            self.is_owed = !self.list.reload.is_empty();
        }
        if self.is_owed {
            let timeout = Duration::from_secs(self.list.timeout_s.into());
            let ended = process::run(&self.list.reload, b"", timeout).await;
            if ended.status != Ended::Exited(0) {
                return Err(format!("{}: {:?} {ended}", path.display(), self.list.reload));
            }
            self.is_owed = false;
        }
        Ok(changes)
    }
}

/// Writes beside and renames, so that a reader finds the old or the new file, whole. Others may read it, as a reader of another
/// user must.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut file = tempfile::Builder::new()
        .prefix(".mailfuse-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    // The name, too, must be there after a crash.
    std::fs::File::open(folder)?.sync_all()
}
