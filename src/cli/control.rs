//! `--control FILE`: what people have decided, one control record a line, as the control topic has them.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use super::{Failure, usage};
use crate::core::decision::Decisions;

/// Reads a whole file of control records; of one account, tenant, domain or network the last line counts. Here a kind of decision
/// that is not known is an error: somebody has just written it, and means it.
pub(super) fn read(path: &Path) -> Result<Vec<Arc<Decisions>>, Failure> {
    let text = std::fs::read(path).with_context(|| format!("--control {}", path.display())).map_err(usage)?;
    let mut records: Vec<Arc<Decisions>> = Vec::new();
    for (i, line) in text.split(|b| *b == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record = Decisions::parse(line).map_err(|e| usage(anyhow!("{}:{}: {e}", path.display(), i + 1)))?;
        if !record.unknown.is_empty() {
            let what = record.unknown.iter().filter_map(|d| d["what"].as_str()).collect::<Vec<_>>().join(", ");
            let place = format!("{}:{}", path.display(), i + 1);
            return Err(usage(anyhow!("{place}: decisions of a kind that this version does not know: {what}")));
        }
        records.push(Arc::new(record));
    }
    Ok(records)
}
