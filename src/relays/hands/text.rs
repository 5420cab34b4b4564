//! What a customer reads when mail is refused. Pure.

use crate::event::Timestamp;
use crate::relays::measure::Measure;

/// Bytes of a filled text; SMTP allows a line of 512 with its code (RFC 5321, section 4.5.3.1.5).
const BYTES_MAX: usize = 400;
/// What a text may ask for.
const NAMES: [&str; 4] = ["account", "incident", "until", "contact"];

/// Whether it can stand in a line of SMTP.
pub(super) fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| (b' '..=b'~').contains(&b))
}

/// Checks a template.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub(super) fn check(template: &str) -> Result<(), String> {
    if template.is_empty() || !is_plain(template) || template.len() > BYTES_MAX {
        return Err(format!("must be 1 to {BYTES_MAX} characters of ASCII, on one line"));
    }
    let mut rest = template;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((name, next)) = after.split_once('}').filter(|(name, _)| NAMES.contains(name)) else {
            return Err("knows {account}, {incident}, {until} and {contact} only".to_owned());
        };
        let _ = name;
        rest = next;
    }
    Ok(())
}

/// Fills in a template. What a client chose is made plain, and nothing of it is taken for a name in braces.
pub(super) fn fill(template: &str, measure: &Measure, contact: &str) -> String {
    let mut out = String::with_capacity(BYTES_MAX);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, next)) = after.split_once('}') else { break };
        match name {
            "account" => push_plain(&mut out, &measure.subject),
            "incident" => push_plain(&mut out, &measure.incident),
            "until" => push_plain(&mut out, &Timestamp(measure.until_ms).to_string()),
            _ => push_plain(&mut out, contact),
        }
        rest = next;
    }
    out.push_str(rest);
    out.truncate(BYTES_MAX);
    out
}

fn push_plain(out: &mut String, text: &str) {
    out.extend(text.chars().take(255).map(|c| if (' '..='~').contains(&c) { c } else { '?' }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relays::hands::tests::measure;
    use crate::relays::measure::Kind;

    #[test]
    fn a_text_is_filled_and_stays_one_line_whatever_the_account_is_called() {
        let text = "{account} is stopped until {until}, case {incident}: ask {contact}";
        assert_eq!(check(text), Ok(()));
        let m = measure("m-1", Kind::Stop, "bo\r\nb@{contact}ü.example", 0);
        assert_eq!(
            fill(text, &m, "abuse@example.net"),
            "bo??b@{contact}?.example is stopped until 1970-01-01T00:10:00.000Z, case i-1: ask abuse@example.net"
        );
        let long = measure("m-1", Kind::Stop, &"x".repeat(10_000), 0);
        assert!(fill(&text.repeat(5), &long, "c").len() <= BYTES_MAX);
        for wrong in ["", "a\nb", "ä", "{acount}", "open {", &"x".repeat(BYTES_MAX + 1)] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
