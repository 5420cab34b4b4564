//! Why a record is no event: typed, counted under a stable short name, with a sentence for the person who looks.

use super::Timestamp;

/// Why a record was rejected.
///
/// The messages quote field names and positions, never the record's content: they end in logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The bytes are no UTF-8.
    #[error("not UTF-8 at byte {column}")]
    NotUtf8 {
        /// Position of the first wrong byte, from 1.
        column: usize,
    },
    /// The text is no JSON, or nested too deeply.
    #[error("not JSON at column {column}: {message}")]
    NotJson {
        /// Position in bytes, from 1.
        column: usize,
        /// What the parser expected.
        message: String,
    },
    /// JSON, but not an object.
    #[error("not a JSON object")]
    NotObject,
    /// `v` is not 1.
    #[error("`v` is not 1")]
    Version,
    /// No account, on a kind that needs one.
    #[error("no `account`")]
    NoAccount,
    /// `ts` is missing or no time.
    #[error("`ts` is no RFC 3339 time, no Unix seconds and no Unix milliseconds of 13 digits, from 1970 on")]
    BadTs,
    /// The event claims to come from the future.
    #[error("`ts` {ts} is in the future, after {not_after}")]
    Future {
        /// What the event says.
        ts: Timestamp,
        /// The latest time that was allowed.
        not_after: Timestamp,
    },
    /// More than a year from everything around it: the clock of a machine that was not set. It must not move ours.
    #[error("`ts` {ts} lies more than a year from the events around it, {near}")]
    Astray {
        /// What the event says.
        ts: Timestamp,
        /// What the events around it say.
        near: Timestamp,
    },
    /// A field is missing, or holds something else than it should.
    #[error("`{field}`: {expected}")]
    BadField {
        /// The field's name in the contract.
        field: &'static str,
        /// What should stand there.
        expected: &'static str,
    },
    /// A field occurs twice: readers would differ on which one counts.
    #[error("{message} at column {column}")]
    Duplicate {
        /// Position in bytes, from 1.
        column: usize,
        /// Which field.
        message: String,
    },
    /// Longer than the limits allow, and nothing that could be cut.
    #[error("{what} longer than {max} bytes")]
    TooLong {
        /// The field's name, or `line`.
        what: &'static str,
        /// The bound.
        max: usize,
    },
}

impl Reject {
    /// Every reason that [`Reject::reason`] can give: the label set of counters.
    pub const REASONS: [&'static str; 8] =
        ["not_utf8", "not_json", "version", "no_account", "bad_ts", "future", "bad_field", "too_long"];

    /// The stable short name that rejects are counted under.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotUtf8 { .. } => "not_utf8",
            Self::NotJson { .. } | Self::NotObject => "not_json",
            Self::Version => "version",
            Self::NoAccount => "no_account",
            Self::BadTs => "bad_ts",
            Self::Future { .. } => "future",
            Self::Astray { ts, near } => {
                if ts > near {
                    "future"
                } else {
                    "bad_ts"
                }
            }
            Self::BadField { .. } | Self::Duplicate { .. } => "bad_field",
            Self::TooLong { .. } => "too_long",
        }
    }
}

impl From<serde_json::Error> for Reject {
    fn from(e: serde_json::Error) -> Self {
        let column = e.column();
        // The position is said once, and a record is always one line.
        let mut message = e.to_string();
        if let Some(at) = message.rfind(" at line ") {
            message.truncate(at);
        }
        if e.is_data() { Self::Duplicate { column, message } } else { Self::NotJson { column, message } }
    }
}
