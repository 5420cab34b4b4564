//! What came of an attempt.

use std::time::Duration;

/// The longest that a receiver can make us wait by `retry-after`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What came of an attempt. `why` holds our own words only, never the receiver's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx.
    Delivered {
        /// The status.
        status: u16,
    },
    /// Worth trying again: 5xx, 408, 429, no answer in time, no connection.
    Retry {
        /// The status, where there was one.
        status: Option<u16>,
        /// When the receiver says so, at most [`RETRY_AFTER_MAX`].
        after: Option<Duration>,
        /// What happened.
        why: String,
    },
    /// 410: the receiver wants nothing more.
    Gone,
    /// A redirect, or another 4xx: the receiver is there, and does not take it.
    Refused {
        /// The status.
        status: u16,
        /// What happened.
        why: String,
    },
    /// Not sent: the target is one that must not be connected to, or cannot be asked at all.
    Blocked {
        /// Why.
        why: String,
    },
}

impl Outcome {
    /// Which it is, for counting.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "delivered",
            Self::Retry { .. } => "retry",
            Self::Gone => "gone",
            Self::Refused { .. } => "refused",
            Self::Blocked { .. } => "blocked",
        }
    }

    /// What went wrong; `None` where nothing did.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Delivered { .. } => None,
            Self::Gone => Some("answered 410"),
            Self::Retry { why, .. } | Self::Refused { why, .. } | Self::Blocked { why } => Some(why),
        }
    }

    /// Judges an answer by its status (Standard Webhooks, "Delivery success and failure").
    pub fn of(status: u16, after: Option<Duration>) -> Self {
        match status {
            200..=299 => Self::Delivered { status },
            410 => Self::Gone,
            408 | 429 | 500.. => Self::Retry {
                status: Some(status),
                after: after.map(|time| time.min(RETRY_AFTER_MAX)),
                why: format!("answered {status}"),
            },
            300..=399 => Self::Refused { status, why: format!("answered {status}: redirects are not followed") },
            _ => Self::Refused { status, why: format!("answered {status}") },
        }
    }
}

/// Reads `retry-after`: seconds, or an HTTP date (RFC 9110, 10.2.3) with `now_s` in Unix seconds. `None` where it is neither.
pub fn retry_after(value: &str, now_s: u64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number has is a long time all the same.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)).min(RETRY_AFTER_MAX));
    }
    let at = httpdate::parse_http_date(value).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(at.as_secs().saturating_sub(now_s)).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let s = |n| Some(Duration::from_secs(n));
        let now = 1_445_412_420;
        for (value, expected) in [
            ("120", s(120)),
            (" 0 ", s(0)),
            ("99999999999999999999999", s(3600)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", s(60)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", s(0)),
            ("Sat, 21 Oct 2045 07:28:00 GMT", s(3600)),
            ("-5", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(value, now), expected, "{value}");
        }
    }

    #[test]
    fn a_status_decides() {
        for (status, label) in [
            (200, "delivered"),
            (204, "delivered"),
            (299, "delivered"),
            (301, "refused"),
            (304, "refused"),
            (400, "refused"),
            (404, "refused"),
            (408, "retry"),
            (410, "gone"),
            (429, "retry"),
            (500, "retry"),
            (599, "retry"),
            (999, "retry"),
        ] {
            assert_eq!(Outcome::of(status, None).label(), label, "{status}");
        }
    }
}
