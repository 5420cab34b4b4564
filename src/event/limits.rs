//! How much of one event is read, and how much of it is kept.

use serde::{Deserialize, Serialize};

/// Bounds on one event: section `[events]` of the configuration.
///
/// What is over a bound is treated by what it is for. An account that is too long is a reject, and so is the recipient of
/// an outcome: without them the event says nothing. Strings that *identify* (`id`, `tenant`, `relay`, `queue_id`,
/// `mail_from`, `message_id`, `content_hash`, recipients of a send) are left out, never cut, because two that differ
/// behind the cut would become one; a recipient left out still counts. Strings that *describe* (`reply`, `dsn`, `auth`,
/// `user_agent`, `feedback_type`) are cut at a character. [`Cut`](super::Cut) counts both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Longest line that is read; a longer one is skipped in bounded memory and counted as `too_long`.
    ///
    /// The default lets a message with a million recipients through, to be cut to `max_recipients`.
    pub max_line_bytes: usize,
    /// Recipients kept of one message, at most 65,536; the rest is counted.
    pub max_recipients: usize,
    /// Longest account name; a longer one is a reject. The default is SMTP's own bound: 64 + 1 + 255.
    pub max_account_bytes: usize,
    /// Longest other string that is kept whole.
    pub max_string_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_line_bytes: 32 << 20, max_recipients: 10_000, max_account_bytes: 320, max_string_bytes: 1024 }
    }
}
