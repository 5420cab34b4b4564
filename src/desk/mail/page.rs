//! A mail's two faces: plain text, and HTML that needs nothing from anywhere.
//!
//! The HTML sets no page colours, so that a reader's dark mode stays dark: only the badge has a background, with a text colour
//! that is read on it. Names stand in `bdi`, so that letters that run from right to left turn nothing around them.

use maud::{DOCTYPE, html};

use super::content::{Content, Table};

/// Columns of plain text that a label takes.
const LABEL: usize = 18;
const FOOT: &str = "Sent by mailfuse. Nobody reads answers to this address.";

/// Plain text, lines ended by `\n`.
pub(super) fn text(content: &Content) -> String {
    let mut out = format!("{}: {}\n", content.badge.to_uppercase(), content.title);
    let mut part = |lines: String| {
        if !lines.is_empty() {
            out.push('\n');
            out.push_str(&lines);
        }
    };
    if !content.advice.is_empty() {
        part(format!("What to do: {}\n", content.advice));
    }
    if !content.reasons.is_empty() {
        let reasons = content.reasons.iter().map(|r| format!("* {}\n  ({})\n", r.text, r.numbers));
        part(format!("Why:\n{}", reasons.collect::<String>()));
    }
    part(content.facts.iter().map(|(label, value)| format!("{:LABEL$}{value}\n", format!("{label}:"))).collect());
    for table in &content.tables {
        part(table_text(table));
    }
    if !content.link.is_empty() {
        part(format!("More:\n{}\n", content.link));
    }
    if !content.undo.is_empty() {
        let at = if content.link.is_empty() { String::new() } else { format!("\n{}", content.link) };
        part(format!("If it was a false alarm, or all is well again: {}{at}\n", content.undo));
    }
    part(format!("-- \n{FOOT}\n"));
    out
}

fn table_text(table: &Table) -> String {
    let mut out = format!("{} ({}):\n", table.title, table.head.join(" | ").to_lowercase());
    for row in &table.rows {
        out.push_str(&format!("  {}\n", row.join(" | ")));
    }
    if table.more > 0 {
        out.push_str(&format!("  and {} more\n", table.more));
    }
    out
}

const BODY: &str =
    "font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;margin:16px;max-width:720px";
const H2: &str = "font-size:16px;margin:20px 0 4px";
const CELL: &str = "padding:3px 12px 3px 0;text-align:left;vertical-align:top;overflow-wrap:anywhere";
const NUMBERS: &str = "font-size:14px;opacity:.75";

fn badge(name: &str) -> &'static str {
    match name {
        "critical" => "background:#b3261e;color:#fff;padding:2px 8px;border-radius:4px;font-weight:bold",
        "warning" => "background:#8a5300;color:#fff;padding:2px 8px;border-radius:4px;font-weight:bold",
        "digest" => "background:#3d5a80;color:#fff;padding:2px 8px;border-radius:4px;font-weight:bold",
        _ => "background:#3c6e47;color:#fff;padding:2px 8px;border-radius:4px;font-weight:bold",
    }
}

/// A whole page.
pub(super) fn html(content: &Content) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="color-scheme" content="light dark";
                meta name="supported-color-schemes" content="light dark";
                title { (content.subject) }
            }
            body style=(BODY) {
                p style="margin:0 0 8px" { span style=(badge(content.badge)) { (content.badge) } }
                h1 style="font-size:20px;margin:0 0 8px;overflow-wrap:anywhere" { bdi { (content.title) } }
                @if !content.advice.is_empty() {
                    p style="margin:8px 0;padding-left:10px;border-left:3px solid #888" { b { (content.advice) } }
                }
                @if !content.link.is_empty() {
                    p style="margin:8px 0" { a href=(content.link) { (content.link_name) } }
                }
                @if !content.reasons.is_empty() {
                    h2 style=(H2) { "Why" }
                    ul style="margin:0;padding-left:20px" {
                        @for reason in &content.reasons {
                            li style="margin-bottom:6px;overflow-wrap:anywhere" {
                                (reason.text) br; span style=(NUMBERS) { (reason.numbers) }
                            }
                        }
                    }
                }
                table style="border-collapse:collapse;margin-top:16px" {
                    @for (label, value) in &content.facts {
                        tr {
                            th style={ (CELL) ";white-space:nowrap;font-weight:normal;opacity:.75" } scope="row" { (label) }
                            td style=(CELL) { bdi { (value) } }
                        }
                    }
                }
                @for table in &content.tables {
                    h2 style=(H2) { (table.title) }
                    table style="border-collapse:collapse" {
                        tr { @for head in &table.head { th style={ (CELL) ";border-bottom:1px solid #888" } scope="col" { (head) } } }
                        @for row in &table.rows {
                            tr { @for cell in row { td style=(CELL) { bdi { (cell) } } } }
                        }
                    }
                    @if table.more > 0 { p style=(NUMBERS) { "and " (table.more) " more" } }
                }
                @if !content.undo.is_empty() {
                    h2 style=(H2) { "If it was a false alarm, or all is well again" }
                    p style="margin:0" {
                        (content.undo)
                        @if !content.link.is_empty() { " " a href=(content.link) { "The incident" } }
                    }
                }
                p style={ (NUMBERS) ";margin-top:24px" } { (FOOT) }
            }
        }
    }
    .into_string()
}
