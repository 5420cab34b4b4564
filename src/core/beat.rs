//! Heartbeats: small bursts on accounts of a reserved domain, by which the desk sees that the whole path works.
//!
//! The detector counts and weighs them as anybody's. Two things differ: such an account counts as never met after a short
//! idleness, so that it is flagged again each time although accounts learn; and its alerts are marked and ask for nothing.
//! The domain ends in `.invalid` (RFC 2606, 2), so that no customer has it.

/// The domain of the accounts.
pub const DOMAIN: &str = "heartbeat.mailfuse.invalid";
/// After this idleness, in seconds, such an account counts as never met.
pub const FORGET_S: u32 = 5;

/// Whether an account, as folded, is one of heartbeats.
pub fn is_beat(account: &str) -> bool {
    account.strip_suffix(DOMAIN).is_some_and(|rest| rest.ends_with('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reserved_domain_is_one() {
        assert!(is_beat("beat-0@heartbeat.mailfuse.invalid"));
        for other in ["heartbeat.mailfuse.invalid", "a@xheartbeat.mailfuse.invalid", "a@heartbeat.mailfuse.invalid.org"]
        {
            assert!(!is_beat(other), "{other}");
        }
    }
}
