//! Slack: Block Kit for an incoming webhook.
//!
//! Limits: <https://docs.slack.dev/reference/block-kit/blocks> (50 blocks a message; header text 150 characters; section text
//! 3,000, at most 10 fields of 2,000 each; context at most 10 elements). `&`, `<` and `>` are escaped, as
//! <https://docs.slack.dev/messaging/formatting-message-text> asks. What others named is in `plain_text`, where neither `*` nor
//! `@channel` nor a link means anything; only our own words are in `mrkdwn`.

use serde_json::{Value, json};

use super::body::Face;
use super::text::CUT;

const HEADER_UNITS: usize = 150;
const SECTION_UNITS: usize = 3000;
const FIELD_UNITS: usize = 2000;
const FIELDS_MAX: usize = 10;
/// Top-level text is cut by Slack beyond 40,000; what stands for the blocks in a notification is short.
const TEXT_UNITS: usize = 1000;

pub(super) fn render(face: &Face) -> Value {
    let mut blocks = vec![json!({ "type": "header", "text": plain(&face.title, HEADER_UNITS) })];
    if !face.facts.is_empty() {
        let field = |(name, value): &(&str, String)| plain(&format!("{name}: {value}"), FIELD_UNITS);
        let fields: Vec<_> = face.facts.iter().take(FIELDS_MAX).map(field).collect();
        blocks.push(json!({ "type": "section", "fields": fields }));
    }
    if !face.lines.is_empty() {
        let lines: String = face.lines.iter().map(|line| format!("• {line}\n")).collect();
        blocks.push(json!({ "type": "section", "text": plain(lines.trim_end(), SECTION_UNITS) }));
    }
    let mut context = vec![plain(&format!("{} · {} · {}", face.kind, face.at, face.incident), SECTION_UNITS)];
    if !face.link.is_empty() {
        let link = format!("<{}|Open in mailfuse>", escape(&face.link, usize::MAX));
        context.push(json!({ "type": "mrkdwn", "text": link, "verbatim": true }));
    }
    blocks.push(json!({ "type": "context", "elements": context }));
    json!({ "text": escape(&face.title, TEXT_UNITS), "blocks": blocks, "unfurl_links": false, "unfurl_media": false })
}

fn plain(text: &str, units_max: usize) -> Value {
    json!({ "type": "plain_text", "text": escape(text, units_max), "emoji": false })
}

/// Escaped, and cut to so many UTF-16 units without cutting an escape apart.
fn escape(text: &str, units_max: usize) -> String {
    let (mut out, mut used) = (String::new(), 0);
    let mut last = 0;
    for c in text.chars() {
        let mut buffer = [0; 4];
        let piece: &str = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            c => c.encode_utf8(&mut buffer),
        };
        let units = piece.encode_utf16().count();
        if used + units > units_max {
            out.truncate(last);
            out.push(CUT);
            return out;
        }
        used += units;
        out.push_str(piece);
        if used < units_max {
            last = out.len();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn an_escape_is_not_cut_apart() {
        assert_eq!(escape("<b>&", 100), "&lt;b&gt;&amp;");
        assert_eq!(escape("abcd", 4), "abcd");
        for max in 1..12 {
            let cut = escape("a&b<🦀>", max);
            assert!(cut.encode_utf16().count() <= max, "{max} {cut}");
            let text = cut.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "");
            assert!(!text.contains('&') && !text.contains(';'), "{max} {cut}");
        }
    }
}
