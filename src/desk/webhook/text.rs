//! Text that a stranger chose, made fit to be shown.

/// Stands for what was cut off.
pub(super) const CUT: char = '…';

/// Text for people's eyes, of at most `chars_max` characters: what moves, hides or breaks text is shown as U+FFFD.
pub(in crate::desk) fn clean(text: &str, chars_max: usize) -> String {
    let mut out: String = text.chars().take(chars_max).map(|c| if deceives(c) { '\u{FFFD}' } else { c }).collect();
    if text.chars().nth(chars_max).is_some() {
        out.pop();
        out.push(CUT);
    }
    out
}

/// Controls, and what Unicode calls default ignorable or bidirectional format characters (Unicode TR 36, 2.5 and 3.1; UAX 9, 2):
/// an account may not look like another one, nor turn the rest of a line around.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{3164}' | '\u{FEFF}'
            | '\u{FFA0}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}')
}

/// Cut so that it takes at most `bytes_max` bytes as JSON, whatever it holds; nothing else is changed.
pub(super) fn cut_json(text: &mut String, bytes_max: usize) {
    let cost = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{C}' => 2,
        c if c < ' ' => 6,
        c => c.len_utf8(),
    };
    let (mut used, mut end) = (0, 0);
    for (at, c) in text.char_indices() {
        if used + cost(c) > bytes_max {
            text.truncate(end);
            text.push(CUT);
            return;
        }
        used += cost(c);
        if used + CUT.len_utf8() <= bytes_max {
            end = at + c.len_utf8();
        }
    }
}

/// Whole numbers in groups of three, as people read them.
pub(in crate::desk) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_deceives_is_shown_as_such() {
        assert_eq!(clean("a\u{202E}b\u{0}c\u{200B}d\ne", 100), "a\u{FFFD}b\u{FFFD}c\u{FFFD}d\u{FFFD}e");
        assert_eq!(clean("jörg@例え.jp 🦀", 100), "jörg@例え.jp 🦀");
        assert_eq!((clean("abcd", 4), clean("abcde", 4)), ("abcd".into(), "abc…".into()));
    }

    #[test]
    fn a_cut_counts_bytes_of_json() {
        for text in ["", "abc", "\u{1}\u{1}\u{1}", "äöü\"\\\n", "🦀🦀🦀🦀"] {
            for max in 3..30 {
                let mut cut = text.to_owned();
                cut_json(&mut cut, max);
                let json = serde_json::to_string(&cut).unwrap();
                assert!(json.len() - 2 <= max, "{text:?} {max}: {json}");
                assert!(cut == text || serde_json::to_string(text).unwrap().len() - 2 > max, "{text:?} {max}");
            }
        }
        assert_eq!((number(0), number(1000), number(1_234_567)), ("0".into(), "1,000".into(), "1,234,567".into()));
    }
}
