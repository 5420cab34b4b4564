//! A burst's messages as CSV, one row a message: what an analyst sorts, counts and hands on.
//!
//! For a flagged account these are its bursts as the alerts define them: the sends from a burst's first one until it was
//! cleared that brought new recipients or refusals. For any other account they are all its sends, and the caller is
//! given a sentence that says so. There is no subject: the events carry none.

use std::io::Write;

use hashbrown::HashMap;

use super::incident::Incident;
use super::live::is_refusal;
use crate::core::alert::Alert;
use crate::core::shard::Step;
use crate::event::{Event, Kind, Outcome, Send, Status, Timestamp};

/// Relays named in one row, where outcomes of one message went through several.
const RELAYS_MAX: usize = 8;

/// The columns, in order.
pub const COLUMNS: [&str; 12] = [
    "ts",
    "queue_id",
    "message_id",
    "mail_from",
    "client_ip",
    "relay",
    "recipients",
    "new_recipients",
    "delivered",
    "refused",
    "deferred",
    "expired",
];

/// Gathers one account's messages. Feed it the second pass, or the first where no alert is needed.
#[derive(Debug)]
pub struct Extractor {
    account: String,
    incidents: Vec<Incident>,
    rows: Vec<Row>,
    by_queue_id: HashMap<Box<str>, usize>,
    rows_max: usize,
    left_out: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// Rows written, beside the line of column names.
    pub rows: u64,
    /// Messages beyond the bound, the last ones: in no row.
    pub left_out: u64,
    /// What the reader should know, for standard error; the file itself stays pure CSV.
    pub note: Option<String>,
}

#[derive(Debug)]
struct Row {
    ts: Timestamp,
    queue_id: String,
    message_id: String,
    mail_from: String,
    client_ip: String,
    relays: Vec<String>,
    recipients: u64,
    new_recipients: u64,
    delivered: u64,
    refused: u64,
    deferred: u64,
    expired: u64,
    /// It brought new recipients or refusals.
    member: bool,
}

impl Extractor {
    /// For `account` as folded; keeps at most `rows_max` messages (sends of a burst's time, before it is known which
    /// of them belong to it).
    pub fn new(account: &str, alerts: &[Alert], rows_max: usize) -> Self {
        let own: Vec<Alert> = alerts.iter().filter(|a| a.account == account).cloned().collect();
        Self {
            account: account.to_owned(),
            incidents: Incident::all_of(&own),
            rows: Vec::new(),
            by_queue_id: HashMap::new(),
            rows_max,
            left_out: 0,
        }
    }

    /// Takes one event of any account.
    pub fn event(&mut self, event: &Event<'_>, step: &Step) {
        if event.account.as_deref() != Some(self.account.as_str()) || step.duplicate || step.late {
            return;
        }
        match &event.kind {
            Kind::Send(s) => self.send(event.ts, s, step),
            Kind::Outcome(o) => self.outcome(o, step),
            Kind::Complaint(_) | Kind::Auth(_) => {}
        }
    }

    fn send(&mut self, ts: Timestamp, s: &Send<'_>, step: &Step) {
        let queue_id = s.queue_id.as_deref().unwrap_or_default();
        let wanted = self.incidents.is_empty() || self.incidents.iter().any(|i| i.covers(ts));
        // The queue id now belongs to this message, whether or not it gets a row.
        self.by_queue_id.remove(queue_id);
        if !wanted {
            return;
        }
        if self.rows.len() >= self.rows_max {
            self.left_out += 1;
            return;
        }
        if !queue_id.is_empty() {
            self.by_queue_id.insert(queue_id.into(), self.rows.len());
        }
        let text = |t: &Option<std::borrow::Cow<'_, str>>| t.as_deref().unwrap_or_default().to_owned();
        self.rows.push(Row {
            ts,
            queue_id: queue_id.to_owned(),
            message_id: text(&s.message_id),
            mail_from: text(&s.mail_from),
            client_ip: s.client_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            relays: s.relay.iter().map(|r| r.to_string()).collect(),
            recipients: s.rcpts.count.max(s.rcpts.named.len() as u64),
            new_recipients: u64::from(step.new_recipients),
            delivered: 0,
            refused: 0,
            deferred: 0,
            expired: 0,
            member: step.new_recipients > 0,
        });
    }

    fn outcome(&mut self, o: &Outcome<'_>, step: &Step) {
        let at = o.queue_id.as_deref().and_then(|q| self.by_queue_id.get(q));
        let Some(row) = at.and_then(|i| self.rows.get_mut(*i)) else { return };
        if let Some(relay) = o.relay.as_deref()
            && row.relays.len() < RELAYS_MAX
            && !row.relays.iter().any(|r| r == relay)
        {
            row.relays.push(relay.to_owned());
        }
        row.new_recipients += u64::from(step.new_recipients);
        row.member |= step.new_recipients > 0 || step.refused;
        if is_refusal(o, step) {
            row.refused += 1;
            return;
        }
        match o.status {
            Status::Delivered => row.delivered += 1,
            Status::Deferred => row.deferred += 1,
            Status::Expired => row.expired += 1,
            Status::Bounced | Status::Rejected => {}
        }
    }

    /// Writes the rows, in the order of the sends.
    ///
    /// # Errors
    /// Where `out` does not take them.
    pub fn finish(self, out: impl Write) -> Result<Extracted, csv::Error> {
        let flagged = !self.incidents.is_empty();
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(COLUMNS)?;
        let mut rows = 0;
        for row in self.rows.iter().filter(|r| r.member || !flagged) {
            rows += 1;
            writer.write_record(row.cells())?;
        }
        writer.flush()?;
        Ok(Extracted { rows, left_out: self.left_out, note: note(&self.account, flagged, rows, self.left_out) })
    }
}

fn note(account: &str, flagged: bool, rows: u64, left_out: u64) -> Option<String> {
    let account = super::text::visible(account);
    let mut note = match (flagged, rows) {
        (true, _) => String::new(),
        (false, 0) => format!("{account} was not flagged and sent nothing in this log"),
        (false, _) => format!("{account} was not flagged: these are all its messages of the period, not a burst"),
    };
    if left_out > 0 {
        let more = super::text::count(left_out, "later message");
        note = if note.is_empty() { format!("{more} left out") } else { format!("{note}; {more} left out") };
    }
    (!note.is_empty()).then_some(note)
}

impl Row {
    fn cells(&self) -> [String; 12] {
        [
            self.ts.to_string(),
            harmless(&self.queue_id),
            harmless(&self.message_id),
            harmless(&self.mail_from),
            harmless(&self.client_ip),
            harmless(&self.relays.join(" ")),
            self.recipients.to_string(),
            self.new_recipients.to_string(),
            self.delivered.to_string(),
            self.refused.to_string(),
            self.deferred.to_string(),
            self.expired.to_string(),
        ]
    }
}

/// Foreign text that a spreadsheet will not take for a formula: an apostrophe stands before what begins like one.
///
/// Spreadsheets skip blanks before they look, and some take the full-width signs too.
pub(crate) fn harmless(text: &str) -> String {
    let first = text.trim_start_matches(|c: char| c.is_whitespace() || c.is_control()).chars().next();
    let formula = matches!(first, Some('=' | '+' | '-' | '@' | '|' | '%' | '＝' | '＋' | '－' | '＠'));
    let blank = text.starts_with(['\t', '\r', '\n']);
    if formula || blank { format!("'{text}") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn formulas_are_disarmed() {
        for bad in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =cmd|' /C calc'!A0", "\r=1", "＝1"] {
            assert_eq!(harmless(bad), format!("'{bad}"));
        }
        for good in ["", "info@x.org", "4A-B", "a=b"] {
            assert_eq!(harmless(good), good);
        }
    }
}
