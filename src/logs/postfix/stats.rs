//! What was read, what it came to, and what was given up.

/// Counts over all lines so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Lines with a stamp that were pushed.
    pub lines: u64,
    /// Lines that other programs wrote.
    pub lines_foreign: u64,
    /// Lines of Postfix that should have said something and could not be read: cut off, mostly.
    pub lines_unparsed: u64,
    /// Lines of hosts beyond the number that are kept apart.
    pub lines_host_over_limit: u64,
    /// Messages met, of accounts or not, on every host that they passed.
    pub messages: u64,
    /// Messages met in the middle: the log has no line of their beginning.
    pub messages_without_start: u64,
    /// Messages that the queue manager took, likewise.
    pub messages_taken: u64,
    /// Messages that the queue manager took, for which no account is known.
    pub messages_without_account: u64,
    /// Messages of accounts that were begun (`client=`) and never taken.
    pub never_accepted: u64,
    /// Events: messages of accounts that were taken.
    pub sends: u64,
    /// Events: what became of recipients.
    pub outcomes: u64,
    /// Of the outcomes: delivered.
    pub delivered: u64,
    /// Of the outcomes: bounced.
    pub bounced: u64,
    /// Of the outcomes: deferred.
    pub deferred: u64,
    /// Of the outcomes: refused by our own host, for good.
    pub rejected: u64,
    /// Of the outcomes: expired.
    pub expired: u64,
    /// Delivery attempts logged, of accounts or not, hand-overs too.
    pub attempts: u64,
    /// Attempts of address probes (`sendmail -bv`), which deliver nothing.
    pub probes: u64,
    /// Events: log-ins, one per message begun by an account.
    pub auth_ok: u64,
    /// Events: failed log-ins.
    pub auth_failed: u64,
    /// Messages in the queue that were given up for silence.
    pub given_up_idle: u64,
    /// Messages given up because too many were open.
    pub given_up_full: u64,
    /// Queue ids that came again for another message while the old one was not removed.
    pub ids_reused: u64,
    /// Recipients that an expiry would have to name, not kept for want of room.
    pub recipients_untracked: u64,
    /// Recipients handed over to an own host where the next part of the way was found.
    pub handovers_tied: u64,
    /// Of the messages tied: by Message-ID only.
    pub tied_by_message_id: u64,
    /// Of the messages tied: too late, when the hand-over had been taken for a delivery.
    pub tied_late: u64,
    /// Recipients handed over to an own host whose lines were not found; counted as delivered.
    pub handovers_unmatched: u64,
    /// Delivery lines of messages without a known account that could not be kept for want of room.
    pub held_dropped: u64,
}
