//! Text of others, for a log line or a terminal.
//!
//! Its one rule: such text neither begins a line of its own nor controls a terminal.

/// Whether a character moves, hides or turns round the text beside it: a control character, a separator of
/// lines, or a mark of direction.
pub(crate) fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// Escapes control characters.
pub(crate) fn printable(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| {
        let (plain, escaped) = match is_control(c) {
            true => (None, Some(c.escape_default())),
            false => (Some(c), None),
        };
        plain.into_iter().chain(escaped.into_iter().flatten())
    });
    escaped.collect()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_are_escaped_and_others_stay() {
        assert_eq!(printable("a\nb\u{1b}[1m é"), "a\\nb\\u{1b}[1m é");
        assert_eq!(printable("a\u{202e}b\u{2028}"), "a\\u{202e}b\\u{2028}");
    }
}
