//! What a mail says, before it is text or HTML: every text is clean and short, every list bounded.

use crate::core::alert::{Action, Alert, AlertKind, Burst, Evidence, RelayShare, Severity, Signal};
use crate::desk::notice::Notice;
use crate::desk::webhook::body::{Incident, IncidentState, Message, What, known, looks, pattern};
use crate::desk::webhook::digest::Digest;
use crate::desk::webhook::storm::{Row, Storm};
use crate::desk::webhook::text::{clean, number};
use crate::event::Timestamp;

/// Characters of a name that are shown where it is what the mail is about.
const NAME_CHARS: usize = 200;
/// Characters of a name in a list.
const LISTED_CHARS: usize = 80;
/// Characters of a name in a subject.
const SUBJECT_NAME_CHARS: usize = 64;
/// Characters of a sentence.
const SENTENCE_CHARS: usize = 400;
/// Reasons that are shown.
const REASONS_MAX: usize = 6;
/// Rows of a table, and names in a list.
const ROWS_MAX: usize = 16;
/// A link that is longer is left out: cut, it would lead elsewhere.
const LINK_BYTES_MAX: usize = 800;

/// A mail's content.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    pub(super) subject: String,
    /// `critical`, `warning`, `over` or `digest`.
    pub(super) badge: &'static str,
    pub(super) title: String,
    /// What to do, first of all; empty where there is nothing.
    pub(super) advice: &'static str,
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) reasons: Vec<Reason>,
    pub(super) tables: Vec<Table>,
    /// Where more is to be seen; empty: nowhere.
    pub(super) link: String,
    /// What is to be seen there.
    pub(super) link_name: &'static str,
    /// How to undo what was done after it; empty where it asks for nothing.
    pub(super) undo: &'static str,
}

/// Why.
#[derive(Debug, Clone)]
pub(super) struct Reason {
    pub(super) text: String,
    /// The numbers behind the sentence.
    pub(super) numbers: String,
}

/// A list with more than one thing to say of each.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) head: Vec<&'static str>,
    pub(super) rows: Vec<Vec<String>>,
    /// Rows that are left out.
    pub(super) more: usize,
}

impl Table {
    fn of<T>(title: &'static str, head: &[&'static str], all: &[T], row: impl Fn(&T) -> Vec<String>) -> Self {
        Self {
            title,
            head: head.to_vec(),
            rows: all.iter().take(ROWS_MAX).map(row).collect(),
            more: all.len().saturating_sub(ROWS_MAX),
        }
    }
}

const UNDO: &str = "mailfuse only watches: it has changed nothing at the account. What was stopped by hand or by your own \
    programs is to be undone there; then close the incident, with the reason, so that the same is not flagged again.";

impl Content {
    pub(super) fn of(message: &Message) -> Self {
        let mut content = match &message.what {
            What::Alert(alert) => {
                let state = if alert.kind == AlertKind::Cleared { IncidentState::Cleared } else { IncidentState::Open };
                Self::of_account(message.severity, &alert.account, &alert.tenant, state, std::slice::from_ref(alert))
            }
            What::Incident(incident) => Self::of_incident(message.severity, incident),
            What::Storm(storm) => Self::of_storm(message.severity, storm),
            What::StormOver(row) => Self::of_row(row),
            What::Digest(digest) => Self::of_digest(digest),
            What::Other { summary, state, data } => Self::of_other(message, summary, *state, data),
        };
        if let (What::Alert(_) | What::Incident(_), Some(customer)) = (&message.what, &message.customer) {
            let tenant = customer.tenant.as_ref().map(|t| clean(t, NAME_CHARS));
            let place = content.facts.iter().position(|(name, _)| *name == "Customer").unwrap_or(0);
            let before = content.facts.get(place).map(|(_, value)| value.clone()).unwrap_or_default();
            content.facts.splice(place..=place, known(customer, &tenant.unwrap_or(before), NAME_CHARS));
        }
        if !matches!(message.what, What::Digest(_)) {
            content.facts.push(("Incident", clean(&message.incident, NAME_CHARS)));
        }
        content.facts.push(("Said at", time(message.at)));
        content.facts.retain(|(_, value)| !value.is_empty());
        content.tables.retain(|table| !table.rows.is_empty());
        content.link = link(&message.link);
        content.link_name = match message.what {
            What::Storm(_) | What::StormOver(_) | What::Digest(_) => "See the alerts",
            What::Alert(_) | What::Incident(_) | What::Other { .. } => "See the incident",
        };
        content
    }

    fn of_incident(severity: Severity, incident: &Incident) -> Self {
        let mut content =
            Self::of_account(severity, &incident.account, &incident.tenant, incident.state, &incident.alerts);
        if incident.alerts.len() > 1 {
            let newest: Vec<_> = incident.alerts.iter().rev().collect();
            content.tables.push(Table::of("What was said so far", &["When", "What", "Severity"], &newest, |alert| {
                vec![time(alert.ts), kind(alert.kind).to_owned(), severity_name(alert.severity).to_owned()]
            }));
        }
        content
    }

    /// `alerts`: oldest first.
    fn of_account<A: std::borrow::Borrow<Alert>>(
        severity: Severity,
        account: &str,
        tenant: &str,
        state: IncidentState,
        alerts: &[A],
    ) -> Self {
        let alerts: Vec<&Alert> = alerts.iter().map(std::borrow::Borrow::borrow).collect();
        let newest = alerts.last();
        // A cleared one has no evidence of its own.
        let telling = alerts.iter().rev().find(|alert| !alert.evidence.is_empty()).or(newest);
        let burst = alerts.iter().rev().find_map(|alert| alert.burst.as_ref());
        let badge = if state == IncidentState::Cleared { "over" } else { severity_name(severity) };
        let name = clean(account, NAME_CHARS);
        let short = clean(account, SUBJECT_NAME_CHARS);
        let looks = telling.map_or("", |alert| looks(alert.pattern));
        let mut content = Self {
            subject: match state {
                IncidentState::Cleared => format!("[over] {short}: {}", sent(burst)),
                IncidentState::Acknowledged => format!("[acknowledged] {short}: {}", sent(burst)),
                IncidentState::Open => {
                    let strongest = telling.and_then(|alert| alert.evidence.first());
                    let what = strongest.map_or_else(|| sent(burst), brief);
                    let pattern = telling.map_or("unclear", |alert| pattern(alert.pattern));
                    format!("[{badge}] {short}: {what}, {pattern}")
                }
            },
            badge,
            title: match state {
                IncidentState::Cleared => format!("The burst of {name} is over"),
                IncidentState::Acknowledged => format!("Somebody has taken {name}"),
                IncidentState::Open => format!("{name} {looks}"),
            },
            facts: vec![("Account", name), ("Customer", clean(tenant, NAME_CHARS))],
            ..Self::default()
        };
        if let (IncidentState::Open, Some(newest)) = (state, newest) {
            content.advice = advice(newest.action);
            content.undo = UNDO;
        }
        if let Some(burst) = burst {
            content.facts.extend(facts_of(burst));
        }
        let Some(telling) = telling else { return content };
        content.facts.push(("Score", decimal(telling.score)));
        content.reasons = telling.evidence.iter().take(REASONS_MAX).map(reason).collect();
        let relay = |share: &RelayShare| {
            vec![clean(&share.relay, LISTED_CHARS), number(share.messages), number(share.recipients)]
        };
        content.tables.push(Table::of("Through relays", &["Relay", "Messages", "Recipients"], &telling.relays, relay));
        if let Some(burst) = burst {
            content.tables.push(Table::of("To domains", &["Domain", "Recipients"], &burst.top_domains, |share| {
                vec![clean(&share.domain, LISTED_CHARS), number(share.recipients)]
            }));
        }
        content
    }

    fn of_storm(severity: Severity, storm: &Storm) -> Self {
        let (alerts, critical) = (number(storm.alerts()), number(storm.critical));
        let kinds: Vec<_> = storm.kinds.iter().collect();
        let badge = if storm.is_over() { "over" } else { severity_name(severity) };
        let what = if storm.row.anomaly { "anomaly" } else { "storm" };
        let advice = "Look at the accounts that send most, and whether the mail system itself has a trouble.";
        Self {
            subject: format!("[{badge}] {what}: {alerts} alerts, {critical} critical"),
            badge,
            title: if storm.row.anomaly {
                format!("The anomaly goes on: {alerts} alerts")
            } else {
                format!("{alerts} alerts at once")
            },
            advice: if storm.is_over() { "" } else { advice },
            facts: vec![
                ("Since", time(storm.first_ts)),
                ("Until", time(storm.last_ts)),
                ("Critical", critical),
                ("Warnings", number(storm.warning)),
                ("Over", if storm.cleared > 0 { number(storm.cleared) } else { String::new() }),
                ("Recipients", number(storm.recipients)),
                ("In all", storm.row.summary()),
            ],
            tables: vec![
                Table::of("Who sends most", &["Account", "Customer", "Recipients", "Severity"], &storm.top, |top| {
                    vec![
                        clean(&top.account, LISTED_CHARS),
                        clean(&top.tenant, LISTED_CHARS),
                        number(top.recipients),
                        severity_name(top.severity).to_owned(),
                    ]
                }),
                Table::of("Kinds", &["Kind", "Alerts"], &kinds, |(kind, n)| {
                    vec![clean(kind, LISTED_CHARS), number(**n)]
                }),
            ],
            ..Self::default()
        }
    }

    fn of_row(row: &Row) -> Self {
        Self {
            subject: format!("[over] {}", row.summary()),
            badge: "over",
            title: if row.open > 0 { "Not all are over, and no more is said of them" } else { "All of them are over" }
                .to_owned(),
            facts: vec![
                ("Since", time(row.first_ts)),
                ("Until", time(row.last_ts)),
                ("Incidents", number(row.incidents)),
                ("Critical", number(row.critical)),
                ("Still open", number(row.open)),
            ],
            ..Self::default()
        }
    }

    fn of_digest(digest: &Digest) -> Self {
        let (begun, critical) = (number(digest.begun()), number(digest.critical));
        let kinds: Vec<_> = digest.kinds.iter().collect();
        let customers =
            Table::of("By customer", &["Customer", "Critical", "Warnings"], &digest.tenants_by_incidents(), |share| {
                vec![clean(&share.tenant, LISTED_CHARS), number(share.critical), number(share.warning)]
            });
        let earlier = [(digest.earlier_escalated, "became critical"), (digest.earlier_over, "over")];
        let earlier = earlier.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", number(*n)));
        let others = if digest.other_tenants > 0 { number(digest.other_tenants) } else { String::new() };
        Self {
            subject: format!("[digest] {}", digest.summary()),
            badge: "digest",
            title: match digest.begun() {
                0 => "No account was flagged, others went on".to_owned(),
                1 => "1 account was flagged".to_owned(),
                _ => format!("{begun} accounts were flagged"),
            },
            facts: vec![
                ("Since", time(digest.first_ts)),
                ("Until", time(digest.last_ts)),
                ("Critical", critical),
                ("Warnings", number(digest.warning)),
                ("Still open", number(digest.open)),
                ("From before", earlier.collect::<Vec<_>>().join(", ")),
                ("Other customers", others),
            ],
            tables: vec![
                Table::of(
                    "The worst accounts",
                    &["Account", "Customer", "Recipients", "Severity", "State"],
                    &digest.top,
                    |worst| {
                        vec![
                            clean(&worst.account, LISTED_CHARS),
                            clean(&worst.tenant, LISTED_CHARS),
                            number(worst.recipients),
                            severity_name(worst.severity).to_owned(),
                            if worst.open { "open" } else { "over" }.to_owned(),
                        ]
                    },
                ),
                customers,
                Table::of("Kinds", &["Kind", "Alerts"], &kinds, |(kind, n)| {
                    vec![clean(kind, LISTED_CHARS), number(**n)]
                }),
            ],
            ..Self::default()
        }
    }

    fn of_other(message: &Message, summary: &str, state: IncidentState, data: &serde_json::Value) -> Self {
        let badge = match state {
            IncidentState::Open => severity_name(message.severity),
            IncidentState::Acknowledged => "acknowledged",
            IncidentState::Cleared => "over",
        };
        let mut content = Self {
            subject: format!("[{badge}] {}: {}", clean(&message.kind, 40), clean(summary, 100)),
            badge,
            title: clean(summary, SENTENCE_CHARS),
            facts: vec![("Kind", clean(&message.kind, LISTED_CHARS))],
            ..Self::default()
        };
        // What the desk itself says; of anything else the sentence is all there is for people.
        if let Ok(notice) = serde_json::from_value::<Notice>(data.clone()) {
            content.advice = if state == IncidentState::Cleared { "" } else { advice(notice.action) };
            let reason = |r: &crate::desk::notice::Reason| Reason {
                text: clean(&r.text, SENTENCE_CHARS),
                numbers: numbers(r.window_s, r.observed, r.expected, r.limit),
            };
            content.reasons = notice.evidence.iter().take(REASONS_MAX).map(reason).collect();
            let account = |share: &crate::desk::notice::AccountShare| {
                vec![
                    clean(&share.account, LISTED_CHARS),
                    number(share.recipients),
                    clean(&share.incident, LISTED_CHARS),
                ]
            };
            let named = [("Account", &notice.account), ("Customer", &notice.tenant), ("Relay", &notice.relay)];
            let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
            content.facts.extend(named.map(|(name, value)| (name, clean(value, LISTED_CHARS))));
            let head = ["Account", "Recipients", "Incident"];
            content.tables.push(Table::of("Accounts", &head, &notice.accounts, account));
        }
        content
    }
}

fn facts_of(burst: &Burst) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("Since", time(burst.first_ts)),
        ("Messages", number(burst.messages)),
        (
            "Recipients",
            format!(
                "{}, {} of them strangers, {} refused",
                number(burst.recipients),
                number(burst.new_recipients),
                number(burst.bounced)
            ),
        ),
        ("Client addresses", list(&burst.client_ips)),
        ("Content", clean(&burst.contents_text(), SENTENCE_CHARS)),
        ("Sample queue ids", list(&burst.queue_ids)),
    ];
    facts.retain(|(name, value)| *name != "Content" || !value.is_empty());
    facts
}

fn reason(evidence: &Evidence) -> Reason {
    Reason {
        text: clean(&evidence.text, SENTENCE_CHARS),
        numbers: numbers(evidence.window_s, evidence.observed, evidence.expected, evidence.limit),
    }
}

fn numbers(window_s: u32, observed: f64, expected: f64, limit: f64) -> String {
    let (observed, expected, limit) = (decimal(observed), decimal(expected), decimal(limit));
    format!("within {}: {observed} observed, {expected} expected, {limit} would have sufficed", window(window_s))
}

/// The strongest reason, in as few words as a subject has room for.
fn brief(evidence: &Evidence) -> String {
    let what = match evidence.signal {
        Signal::Volume => "recipients",
        Signal::NewRecipients => "strangers",
        Signal::Bounces => "refusals",
        Signal::NewNetworks => "new networks",
        Signal::Complaints => "complaints",
    };
    format!("{} {what} in {}", decimal(evidence.observed), window(evidence.window_s))
}

fn sent(burst: Option<&Burst>) -> String {
    burst.map_or_else(
        || "no numbers".to_owned(),
        |b| format!("{} recipients, {} strangers", number(b.recipients), number(b.new_recipients)),
    )
}

/// As people say it: `10 min`, `1 h`, `7 d`.
fn window(s: u32) -> String {
    match s {
        s if s >= 86_400 && s.is_multiple_of(86_400) => format!("{} d", s / 86_400),
        s if s >= 3600 && s.is_multiple_of(3600) => format!("{} h", s / 3600),
        s if s >= 60 && s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// With a digit behind the point where it says something.
fn decimal(x: f64) -> String {
    if (0.0..1e15).contains(&x) {
        let rounded = (x * 10.0).round() / 10.0;
        if rounded.fract() == 0.0 || rounded >= 100.0 {
            number(rounded.round() as u64)
        } else {
            format!("{rounded:.1}")
        }
    } else {
        // No signal has such a value; it is shown all the same, in bounded length.
        format!("{x:e}")
    }
}

/// As people write it, to the second.
fn time(at: Timestamp) -> String {
    let whole = at.to_string();
    match (whole.get(..10), whole.get(11..19), whole.ends_with('Z')) {
        (Some(day), Some(time), true) => format!("{day} {time} UTC"),
        _ => whole,
    }
}

fn list(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(ROWS_MAX).map(|name| clean(name, 60)).collect();
    let more = names.len().saturating_sub(ROWS_MAX);
    let shown = shown.join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// A link that stays one wherever it is put: what would end it is percent-encoded. Empty where it is no web address.
fn link(url: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '<' | '>' | '"' | '|' | '`' | '\\' | '^' | '{' | '}');
    let mut out = String::new();
    for c in url.chars().take(LINK_BYTES_MAX + 1) {
        if plain(c) {
            out.push(c);
        } else {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|b| out.push_str(&format!("%{b:02X}")));
        }
    }
    let web = out.starts_with("https://") || out.starts_with("http://");
    if web && out.len() <= LINK_BYTES_MAX { out } else { String::new() }
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
    }
}

fn kind(kind: AlertKind) -> &'static str {
    match kind {
        AlertKind::Flagged => "flagged",
        AlertKind::Escalated => "escalated",
        AlertKind::Cleared => "over",
    }
}

fn advice(action: Action) -> &'static str {
    match action {
        Action::Throttle => "Throttle the account until somebody has looked.",
        Action::SuspendAccount => "Suspend the account now, and change its password.",
        Action::PullRelay => "Take the relay out of its pool: mailfuse relays confirm.",
        Action::RestoreRelay => "Put the relay back into its pool.",
        Action::None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_people_do() {
        for (x, said) in [(0.0, "0"), (1.23, "1.2"), (31.0, "31"), (99.96, "100"), (310.4, "310"), (12345.6, "12,346")]
        {
            assert_eq!(decimal(x), said);
        }
        assert_eq!((decimal(f64::NAN), decimal(1e300)), ("NaN".into(), "1e300".into()));
        assert_eq!(time(Timestamp(1_772_438_400_000)), "2026-03-02 08:00:00 UTC");
        for (s, said) in [(1, "1 s"), (90, "90 s"), (600, "10 min"), (3600, "1 h"), (5400, "90 min"), (604_800, "7 d")]
        {
            assert_eq!(window(s), said);
        }
    }

    #[test]
    fn only_web_addresses_are_links() {
        for (url, expected) in [
            ("https://desk.example/v1/incidents/in-1?a=b", "https://desk.example/v1/incidents/in-1?a=b"),
            ("http://d/<\u{202E}>", "http://d/%3C%E2%80%AE%3E"),
            ("javascript:alert(1)", ""),
            ("", ""),
        ] {
            assert_eq!(link(url), expected);
        }
        assert_eq!(link(&format!("https://d/{}", "x".repeat(2000))), "");
    }

    #[test]
    fn a_table_says_what_it_leaves_out() {
        let table = Table::of("t", &["n"], &[0; 20], |n| vec![n.to_string()]);
        assert_eq!((table.rows.len(), table.more), (16, 4));
        assert_eq!(list(&vec!["a".to_owned(); 17]).rsplit(", ").next().unwrap(), "a and 1 more");
    }
}
