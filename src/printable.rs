//! Text of others, for a log line or a terminal.
//!
//! Its one rule: such text neither begins a line of its own nor controls a terminal.

/// Escapes control characters.
pub(crate) fn printable(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| {
        let (plain, escaped) = match c.is_control() {
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
    }
}
