//! From a message to the HTTP request that says it.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::core::alert::{Action, Alert, AlertKind, Evidence, Pattern, Severity};
use crate::desk::notice::{Notice, Reason};
use crate::directory::Facts;
use crate::event::Timestamp;

use super::digest::{Digest, Worst};
use super::settings::{Endpoint, Format};
use super::sign::{self, Keys};
use super::storm::{Row, Storm, Top};
use super::text::{clean, number};
use super::{alertmanager, native, pagerduty, slack};

/// What is said to an endpoint. Only `id`, `kind`, `at`, `customer` and what is in `what` reach the body: the same message gives
/// the same body.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The webhook id.
    pub id: String,
    /// `account.flagged`, …: the newest alert's kind; `storm`; `storm.over`; `digest`; of [`What::Other`] its own.
    pub kind: String,
    /// Event time of what is said.
    pub at: Timestamp,
    /// How bad.
    pub severity: Severity,
    /// What later messages about the same refer to.
    pub incident: String,
    /// Where more is to be seen, a URL; empty: nowhere.
    pub link: String,
    /// What the directory said of the account when its incident began.
    pub customer: Option<Box<Facts>>,
    /// What is said.
    pub what: What,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// One alert (`deliver = "every"`).
    Alert(Box<Alert>),
    /// An incident as it stands (`deliver = "grouped"`).
    Incident(Box<Incident>),
    /// Many incidents at once.
    Storm(Box<Storm>),
    /// The end of many incidents.
    StormOver(Box<Row>),
    /// A day (`deliver = "digest"`).
    Digest(Box<Digest>),
    /// Anything else: a campaign, an anomaly of the stream, a test.
    Other {
        /// A sentence.
        summary: String,
        /// Where it stands.
        state: IncidentState,
        /// The numbers, for programs.
        data: Value,
    },
}

/// An incident as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    /// The account as folded.
    pub account: String,
    /// The customer it belongs to.
    pub tenant: String,
    /// Where it stands.
    pub state: IncidentState,
    /// Its alerts, oldest first; the older ones are left out where there is no room.
    pub alerts: Vec<Alert>,
    /// Totals.
    pub counts: Counts,
}

/// Where an incident stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum IncidentState {
    /// Nobody has taken it.
    Open,
    /// Somebody has.
    Acknowledged,
    /// The burst is over, or it is resolved.
    Cleared,
}

/// Totals of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Alerts so far.
    pub alerts: u64,
    /// Messages of the burst.
    pub messages: u64,
    /// Recipients of the burst.
    pub recipients: u64,
    /// Recipients never written to before.
    pub new_recipients: u64,
    /// Refused recipients.
    pub bounced: u64,
}

/// An HTTP request: POST.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Where to.
    pub url: String,
    /// Names in lower case, and values.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Vec<u8>,
}

/// It may hold a secret in its address (Slack) and its body (PagerDuty).
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} bytes)", self.body.len())
    }
}

/// A message that cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum CannotRender {
    /// PagerDuty without its key.
    #[error("a PagerDuty endpoint needs its routing key")]
    NoRoutingKey,
    /// A defect.
    #[error("the message is no JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Renders and signs a message. `now_s`: Unix seconds, which the signature covers.
///
/// # Errors
/// Where the format needs a key that is not there.
pub fn prepare(endpoint: &Endpoint, keys: &Keys, message: &Message, now_s: i64) -> Result<Request, CannotRender> {
    let body = render(endpoint, keys, message)?;
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("user-agent", concat!("mailfuse/", env!("CARGO_PKG_VERSION")).to_owned()),
        ("webhook-id", message.id.clone()),
        ("webhook-timestamp", now_s.to_string()),
    ];
    let signature = sign::sign(keys, &message.id, now_s, &body);
    if !signature.is_empty() {
        headers.push(("webhook-signature", signature));
    }
    let url = match endpoint.format {
        Format::Alertmanager => alertmanager::url(endpoint.address()),
        Format::Native | Format::Slack | Format::Pagerduty => endpoint.address().to_owned(),
    };
    Ok(Request { url, headers, body })
}

/// The body: at most [`Endpoint::body_bytes_max`] bytes of JSON. What does not fit is cut, samples and evidence first.
///
/// # Errors
/// Where the format needs a key that is not there.
pub fn render(endpoint: &Endpoint, keys: &Keys, message: &Message) -> Result<Vec<u8>, CannotRender> {
    let bytes_max = endpoint.body_bytes_max;
    match endpoint.format {
        Format::Native => Ok(native::render(message, bytes_max)?),
        Format::Slack => shrunk(message, bytes_max, |face| Ok(slack::render(face))),
        Format::Alertmanager => shrunk(message, bytes_max, |face| Ok(alertmanager::render(face))),
        Format::Pagerduty => {
            let key = keys.routing_key.as_ref().ok_or(CannotRender::NoRoutingKey)?;
            shrunk(message, bytes_max, |face| Ok(pagerduty::render(face, key.reveal())))
        }
    }
}

fn shrunk(
    message: &Message,
    bytes_max: usize,
    render: impl Fn(&Face) -> Result<Value, CannotRender>,
) -> Result<Vec<u8>, CannotRender> {
    let mut face = Face::of(message);
    loop {
        let body = serde_json::to_vec(&render(&face)?)?;
        if body.len() <= bytes_max || !face.cut() {
            return Ok(body);
        }
    }
}

/// Characters of a name that are shown.
const NAME_CHARS: usize = 200;
/// Characters of a name that are shown where there is little room.
pub(super) const NAME_CHARS_LEAST: usize = 60;
/// Characters of a sentence that are shown.
const SENTENCE_CHARS: usize = 500;
/// Reasons that are shown.
const LINES_MAX: usize = 5;
/// Accounts of a campaign that are shown.
const ACCOUNTS_SHOWN: usize = 10;
/// Names in a list that are shown.
const LISTED_MAX: usize = 5;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    Account,
    Storm,
    Other,
}

/// A message for people's eyes: every text is clean and short.
#[derive(Debug, Clone)]
pub(super) struct Face {
    pub(super) subject: Subject,
    pub(super) kind: String,
    pub(super) title: String,
    pub(super) severity: Severity,
    /// Whether a warning became critical just now, so that what was said of the warning is no longer so.
    pub(super) escalated: bool,
    pub(super) state: IncidentState,
    pub(super) account: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) pattern: Option<&'static str>,
    /// Reasons, strongest first.
    pub(super) lines: Vec<String>,
    /// What else is known, most important first: name and value.
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) since: Timestamp,
    pub(super) at: Timestamp,
    pub(super) incident: String,
    pub(super) link: String,
}

impl Face {
    fn of(message: &Message) -> Self {
        let mut face = Self {
            subject: Subject::Other,
            kind: clean(&message.kind, 64),
            title: String::new(),
            severity: message.severity,
            escalated: message.kind == "account.escalated",
            state: IncidentState::Open,
            account: None,
            tenant: None,
            pattern: None,
            lines: Vec::new(),
            facts: Vec::new(),
            since: message.at,
            at: message.at,
            incident: clean(&message.incident, NAME_CHARS),
            link: link(&message.link),
        };
        match &message.what {
            What::Alert(alert) => {
                let cleared = alert.kind == AlertKind::Cleared;
                let state = if cleared { IncidentState::Cleared } else { IncidentState::Open };
                face.of_account(&alert.account, &alert.tenant, state, alert, alert);
            }
            What::Incident(incident) => {
                let newest = incident.alerts.last();
                // A cleared one has no evidence of its own.
                let telling = incident.alerts.iter().rev().find(|alert| !alert.evidence.is_empty()).or(newest);
                match (newest, telling) {
                    (Some(newest), Some(telling)) => {
                        face.of_account(&incident.account, &incident.tenant, incident.state, newest, telling);
                    }
                    _ => {
                        face.title = clean(&incident.account, NAME_CHARS);
                        face.state = incident.state;
                    }
                }
                face.escalated |= incident.alerts.iter().any(|alert| alert.kind == AlertKind::Escalated);
            }
            What::Storm(storm) => face.of_storm(storm),
            What::StormOver(row) => face.of_row(row, IncidentState::Cleared),
            What::Digest(digest) => face.of_digest(digest),
            What::Other { summary, state, data } => {
                face.title = clean(summary, SENTENCE_CHARS);
                face.state = *state;
                // Of anything but a campaign or an anomaly the sentence is all there is for people.
                if let Ok(notice) = serde_json::from_value::<Notice>(data.clone()) {
                    face.of_notice(&notice);
                }
            }
        }
        if let (Subject::Account, Some(customer)) = (face.subject, &message.customer) {
            face.of_customer(customer);
        }
        face
    }

    /// What the directory said: behind the account, because whoever reads on wants to reach somebody.
    fn of_customer(&mut self, customer: &Facts) {
        if let Some(tenant) = &customer.tenant {
            self.tenant = Some(clean(tenant, NAME_CHARS));
        }
        let tenant = self.tenant.clone().unwrap_or_default();
        self.facts.retain(|(name, _)| *name != "Customer");
        let known = known(customer, &tenant, NAME_CHARS);
        self.facts.splice(1.min(self.facts.len())..1.min(self.facts.len()), known);
    }

    fn of_account(&mut self, account: &str, tenant: &str, state: IncidentState, newest: &Alert, telling: &Alert) {
        let account = clean(account, NAME_CHARS);
        self.subject = Subject::Account;
        self.title = match state {
            IncidentState::Cleared => format!("Cleared: {account}"),
            IncidentState::Acknowledged => format!("Acknowledged: {account}"),
            IncidentState::Open => format!("{}: {account} {}", severity(self.severity), looks(telling.pattern)),
        };
        self.state = state;
        self.pattern = Some(pattern(telling.pattern));
        let sentence = |evidence: &Evidence| clean(&evidence.text, SENTENCE_CHARS);
        self.lines = telling.evidence.iter().take(LINES_MAX).map(sentence).collect();
        let mut facts = vec![("Account", account.clone()), ("Customer", clean(tenant, NAME_CHARS))];
        if let Some(burst) = newest.burst.as_ref().or(telling.burst.as_ref()) {
            self.since = burst.first_ts.min(self.at);
            facts.push(("Since", self.since.to_string()));
            let (recipients, new) = (number(burst.recipients), number(burst.new_recipients));
            facts.push(("Recipients", format!("{recipients}, {new} of them new, {} refused", number(burst.bounced))));
            facts.push(("Messages", number(burst.messages)));
            facts.push(("From", list(burst.client_ips.iter())));
            facts.push(("Content", clean(&burst.contents_text(), SENTENCE_CHARS)));
        }
        facts.push(("Relays", list(telling.relays.iter().map(|share| &share.relay))));
        facts.push(("Do", action(newest.action).to_owned()));
        if let Some(burst) = &newest.burst {
            facts.push(("Queue ids", list(burst.queue_ids.iter())));
        }
        facts.retain(|(_, value)| !value.is_empty());
        self.facts = facts;
        self.tenant = Some(clean(tenant, NAME_CHARS));
        self.account = Some(account);
    }

    fn of_notice(&mut self, notice: &Notice) {
        // The first reason is the title.
        self.lines = notice.evidence.iter().skip(1).take(LINES_MAX).map(|r| clean(&r.text, SENTENCE_CHARS)).collect();
        let shown = notice.accounts.iter().take(ACCOUNTS_SHOWN).map(|share| {
            let (account, recipients) = (clean(&share.account, NAME_CHARS), number(share.recipients));
            format!("{account}: {recipients} recipients")
        });
        self.lines.extend(shown);
        let more = notice.accounts.len().saturating_sub(ACCOUNTS_SHOWN);
        if more > 0 {
            self.lines.push(format!("and {more} more accounts"));
        }
        let recipients = notice.accounts.iter().fold(0, |sum: u64, share| sum.saturating_add(share.recipients));
        if !notice.accounts.is_empty() {
            self.facts = vec![("Accounts", number(notice.accounts.len() as u64)), ("Recipients", number(recipients))];
        }
        let window = |reason: &Reason| ("Within", format!("{} min", number(u64::from(reason.window_s / 60))));
        self.facts.extend(notice.evidence.first().map(window));
        self.facts.push(("Do", action(notice.action).to_owned()));
        self.facts.retain(|(_, value)| !value.is_empty());
    }

    fn of_storm(&mut self, storm: &Storm) {
        self.of_row(&storm.row, if storm.is_over() { IncidentState::Cleared } else { IncidentState::Open });
        let (critical, warning) = (number(storm.critical), number(storm.warning));
        self.title = if storm.is_over() {
            format!("Over: {} incidents of earlier storms", number(storm.cleared))
        } else {
            let what = if storm.row.anomaly { "Anomaly goes on" } else { "Storm" };
            format!("{what}: {} alerts, {critical} critical, {warning} warnings", number(storm.alerts()))
        };
        self.since = storm.first_ts;
        let line = |top: &Top| {
            let (account, tenant) = (clean(&top.account, NAME_CHARS), clean(&top.tenant, NAME_CHARS));
            format!("{account} ({tenant}): {} recipients, {}", number(top.recipients), severity(top.severity))
        };
        self.lines = storm.top.iter().map(line).collect();
        self.facts = vec![
            ("Since", storm.first_ts.to_string()),
            ("Until", storm.last_ts.to_string()),
            ("Recipients", number(storm.recipients)),
            ("In all", storm.row.summary()),
        ];
        let kinds = storm.kinds.iter().map(|(kind, n)| format!("{} {}", number(*n), clean(kind, 64)));
        self.facts.push(("Kinds", kinds.collect::<Vec<_>>().join(", ")));
    }

    /// What all messages of a row share, and what its end says.
    fn of_row(&mut self, row: &Row, state: IncidentState) {
        // An alert manager ends what the anomaly's own alert began.
        self.subject = if row.anomaly { Subject::Other } else { Subject::Storm };
        if row.anomaly {
            self.kind = "stream.anomaly".to_owned();
        }
        self.state = state;
        self.title = if row.open > 0 {
            format!("Told no further: {}", row.summary())
        } else {
            format!("Over: {}", row.summary())
        };
        self.since = row.first_ts;
        self.facts = vec![("Since", row.first_ts.to_string()), ("Until", row.last_ts.to_string())];
    }

    fn of_digest(&mut self, digest: &Digest) {
        self.title = format!("Digest: {}", digest.summary());
        self.since = digest.first_ts;
        let line = |worst: &Worst| {
            let (account, tenant) = (clean(&worst.account, NAME_CHARS), clean(&worst.tenant, NAME_CHARS));
            let (recipients, state) = (number(worst.recipients), if worst.open { "open" } else { "over" });
            format!("{account} ({tenant}): {recipients} recipients, {}, {state}", severity(worst.severity))
        };
        self.lines = digest.top.iter().map(line).collect();
        let mut customers = digest.tenants_by_incidents();
        customers.truncate(LISTED_MAX);
        let shown: u64 = customers.iter().map(|share| share.critical + share.warning).sum();
        let mut listed: Vec<String> = customers
            .iter()
            .map(|share| format!("{} {}", number(share.critical + share.warning), clean(&share.tenant, 60)))
            .collect();
        if digest.begun() > shown {
            listed.push(format!("{} of others", number(digest.begun() - shown)));
        }
        self.facts = vec![
            ("Since", digest.first_ts.to_string()),
            ("Until", digest.last_ts.to_string()),
            ("Critical", number(digest.critical)),
            ("Warnings", number(digest.warning)),
            ("Still open", number(digest.open)),
            ("Customers", listed.join(", ")),
        ];
        let kinds = digest.kinds.iter().map(|(kind, n)| format!("{} {}", number(*n), clean(kind, 64)));
        self.facts.push(("Kinds", kinds.collect::<Vec<_>>().join(", ")));
        self.facts.retain(|(_, value)| !value.is_empty());
    }

    /// Leaves out what is missed least; false where nothing is left that can be.
    fn cut(&mut self) -> bool {
        if self.lines.pop().is_some() {
            return true;
        }
        if self.facts.len() > 2 {
            self.facts.pop();
            return true;
        }
        let texts = [Some(&mut self.title), self.account.as_mut(), self.tenant.as_mut(), Some(&mut self.incident)];
        let texts = texts.into_iter().flatten().chain(self.facts.iter_mut().map(|(_, value)| value));
        let mut cut = false;
        for text in texts.filter(|text| text.chars().nth(NAME_CHARS_LEAST).is_some()) {
            *text = clean(text, NAME_CHARS_LEAST);
            cut = true;
        }
        if !cut && self.link.len() > 500 {
            self.link.clear();
            return true;
        }
        cut || self.facts.pop().is_some()
    }
}

/// What people see of a customer: name and value; `tenant` is clean.
pub(in crate::desk) fn known(customer: &Facts, tenant: &str, chars_max: usize) -> Vec<(&'static str, String)> {
    let shown = |text: &Option<String>| text.as_ref().map(|t| clean(t, chars_max)).unwrap_or_default();
    let name = match shown(&customer.tenant_name) {
        name if name.is_empty() => tenant.to_owned(),
        name => format!("{name} ({tenant})"),
    };
    let known = [
        ("Customer", name),
        ("Plan", shown(&customer.plan)),
        ("Created", shown(&customer.created)),
        ("Contact", shown(&customer.contact)),
        ("Language", shown(&customer.language)),
        ("Zone", shown(&customer.zone)),
    ];
    known.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// A link that stays one wherever it is put: what would end it is percent-encoded.
fn link(url: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | '|' | '`' | '\\' | '^' | '{' | '}');
    let mut out = String::new();
    for c in url.chars() {
        if plain(c) {
            out.push(c);
        } else {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|b| out.push_str(&format!("%{b:02X}")));
        }
    }
    // A link that is cut leads elsewhere.
    if out.len() > 2000 { String::new() } else { out }
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<_> = names.map(|name| clean(name, 60)).collect();
    let more = names.len().saturating_sub(LISTED_MAX);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "Critical",
        Severity::Warning => "Warning",
    }
}

pub(in crate::desk) fn pattern(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::Hijack => "hijack",
        Pattern::Bulk => "bulk",
        Pattern::Script => "script",
        Pattern::Forwarding => "forwarding",
        Pattern::Unclear => "unclear",
    }
}

pub(in crate::desk) fn looks(pattern: Pattern) -> &'static str {
    match pattern {
        Pattern::Hijack => "looks hijacked",
        Pattern::Bulk => "sends to a list",
        Pattern::Script => "looks like a script that runs away",
        Pattern::Forwarding => "passes on mail that is refused",
        Pattern::Unclear => "sends as it never did",
    }
}

fn action(action: Action) -> &'static str {
    match action {
        Action::Throttle => "throttle the account",
        Action::SuspendAccount => "suspend the account",
        Action::PullRelay => "take the relay out of its pool",
        Action::RestoreRelay => "put the relay back into its pool",
        Action::None => "",
    }
}
