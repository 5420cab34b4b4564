//! What the detector's terms are called on the page.

use crate::core::alert::{Evidence, Pattern, Severity, Signal};
use crate::report::text::{span, value};

pub(super) fn severity(s: Severity) -> &'static str {
    match s {
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    }
}

pub(super) fn pattern(p: Pattern) -> &'static str {
    match p {
        Pattern::Hijack => "hijack",
        Pattern::Bulk => "bulk",
        Pattern::Script => "script",
        Pattern::Forwarding => "forwarding",
        Pattern::Unclear => "unclear",
    }
}

/// After the account's name.
pub(super) fn looks(p: Pattern) -> &'static str {
    match p {
        Pattern::Hijack => "looks hijacked",
        Pattern::Bulk => "looks like it mails to a list",
        Pattern::Script => "looks like a form or program that ran away",
        Pattern::Forwarding => "looks like it passes refused mail on",
        Pattern::Unclear => "left its own habits, in no clear pattern",
    }
}

fn signal(s: Signal) -> &'static str {
    match s {
        Signal::Volume => "recipients",
        Signal::NewRecipients => "new recipients",
        Signal::Bounces => "refused recipients",
        Signal::NewNetworks => "client networks never seen before",
        Signal::Complaints => "complaints",
    }
}

pub(super) fn signal_name(s: Signal) -> &'static str {
    match s {
        Signal::Volume => "volume",
        Signal::NewRecipients => "new recipients",
        Signal::Bounces => "refusals",
        Signal::NewNetworks => "new networks",
        Signal::Complaints => "complaints",
    }
}

/// The detector's sentence. A redacted page states its numbers only: the sentence may quote a name.
pub(super) fn reason(e: &Evidence, redact: bool) -> String {
    if !redact && !e.text.is_empty() {
        return crate::report::text::visible_long(&e.text);
    }
    format!(
        "{} {} in {}; normally {}; {} would have sufficed",
        value(e.observed),
        signal(e.signal),
        span(i64::from(e.window_s)),
        value(e.expected),
        value(e.limit)
    )
}
