//! The word that a stop works, as the instance whose policy service has refused the account tells it to the active desk: a record
//! of the signals topic (`schemas/signal.schema.json`). Pure.
//!
//! Whichever instance Postfix asks, the desk reads that topic already. Of one stop all instances write the same key, and one word
//! suffices: repeats do no harm.

use serde::{Deserialize, Serialize};

use crate::event::Timestamp;

/// The keys of these records begin so.
const SERVED: &str = "served/";

/// A stop was seen to work: mail of the account was refused, held or sent elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// Always 1.
    pub v: u8,
    /// Always `served`.
    pub kind: ServedKind,
    /// The measure's id.
    pub measure: String,
    /// When, by the clock of whoever saw it.
    pub at: Timestamp,
}

/// The kind of a [`Served`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServedKind {
    /// The only one.
    Served,
}

impl Served {
    /// Of a measure, at `at_ms` in milliseconds since 1970.
    pub fn new(measure: &str, at_ms: i64) -> Self {
        Self { v: 1, kind: ServedKind::Served, measure: measure.to_owned(), at: Timestamp(at_ms) }
    }

    /// The key of its record.
    pub fn key(&self) -> String {
        format!("{SERVED}{}", self.measure)
    }

    /// Whether a record with this key is one.
    pub fn is_key(key: &[u8]) -> bool {
        key.starts_with(SERVED.as_bytes())
    }

    /// Reads the value of one.
    ///
    /// # Errors
    /// Where it is none, or of a version that is not known.
    pub fn read(value: &[u8]) -> Result<Self, String> {
        let served: Self = serde_json::from_slice(value).map_err(|e| format!("no word of a stop that works ({e})"))?;
        if served.v == 1 {
            Ok(served)
        } else {
            Err(format!("a word of version {}: use the program that wrote it", served.v))
        }
    }
}
