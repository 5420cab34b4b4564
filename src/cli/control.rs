//! `--control FILE`: what people have decided about accounts, one control record a line, as the control topic has them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use super::{Failure, usage};
use crate::core::decision::Decisions;

/// Reads a whole file of control records; of one account the last line counts.
pub(super) fn read(path: &Path) -> Result<Vec<Arc<Decisions>>, Failure> {
    let text = std::fs::read(path).with_context(|| format!("--control {}", path.display())).map_err(usage)?;
    let mut records: Vec<Arc<Decisions>> = Vec::new();
    for (i, line) in text.split(|b| *b == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record = Decisions::parse(line).map_err(|e| usage(anyhow!("{}:{}: {e}", path.display(), i + 1)))?;
        records.push(Arc::new(record));
    }
    Ok(records)
}
