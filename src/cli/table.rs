//! Tables and numbers for people at a terminal.

use std::fmt::Write as _;

/// With a comma between groups of three digits.
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// `1 account`, `2 accounts`.
pub(super) fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// A side that a column is aligned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table in plain text: columns are as wide as their widest cell, except that the last one ends where it ends.
pub(super) struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these heads.
    pub(super) fn new(heads: &[(&str, Align)]) -> Self {
        Self {
            columns: heads.iter().map(|(_, align)| *align).collect(),
            rows: vec![heads.iter().map(|(head, _)| (*head).to_owned()).collect()],
        }
    }

    /// Adds a row of as many cells.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.iter().map(|c| printable(c)).collect());
    }

    /// The text, each line indented by two spaces; the heads are the first line.
    pub(super) fn text(&self) -> String {
        let width = |i: usize| self.rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (i, cell) in row.iter().enumerate() {
                let width = widths.get(i).copied().unwrap_or(0);
                let _ = match self.columns.get(i) {
                    Some(Align::Right) => write!(line, "  {cell:>width$}"),
                    _ => write!(line, "  {cell:<width$}"),
                };
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

/// What comes from a log must not steer the terminal: control characters are shown, not sent.
pub(super) fn printable(text: &str) -> String {
    if text.chars().any(|c| c.is_control() || is_bidi(c)) {
        text.chars()
            .flat_map(|c| if c.is_control() || is_bidi(c) { c.escape_unicode().collect() } else { vec![c] })
            .collect()
    } else {
        text.to_owned()
    }
}

fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
