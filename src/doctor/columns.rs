//! Lines in columns, with colours that take no room.

use std::fmt::Write;

use anstyle::Style;

/// One field of a line.
pub(super) struct Cell {
    text: String,
    style: Style,
    is_number: bool,
}

impl Cell {
    pub(super) fn text(text: impl ToString) -> Cell {
        Cell {
            text: text.to_string(),
            style: Style::new(),
            is_number: false,
        }
    }

    /// Right-aligned.
    pub(super) fn number(text: impl ToString) -> Cell {
        Cell {
            is_number: true,
            ..Cell::text(text)
        }
    }

    pub(super) fn styled(self, style: Style) -> Cell {
        Cell { style, ..self }
    }
}

/// Writes the rows below each other, two spaces between columns, and none at the end of a line.
pub(super) fn write(rows: &[Vec<Cell>], indent: &str, out: &mut String) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.text.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        out.push_str(indent);
        for (i, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let fill = " ".repeat(width - cell.text.chars().count());
            let is_last = i + 1 == row.len();
            let (before, after) = match (cell.is_number, is_last) {
                (true, _) => (fill.as_str(), ""),
                (false, false) => ("", fill.as_str()),
                (false, true) => ("", ""),
            };
            let style = cell.style;
            let gap = if is_last { "" } else { "  " };
            // Writing to a String does not fail.
            let _ = write!(out, "{before}{style}{}{style:#}{after}{gap}", cell.text);
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anstyle::AnsiColor;

    #[test]
    fn columns_are_aligned_and_colours_take_no_room() {
        let red = Style::new().fg_color(Some(AnsiColor::Red.into()));
        let rows = [
            vec![Cell::text("NAME"), Cell::number("N"), Cell::text("WHO")],
            vec![
                Cell::text("a"),
                Cell::number("1,000").styled(red),
                Cell::text("x"),
            ],
        ];
        let mut text = String::new();
        write(&rows, " ", &mut text);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            " NAME      N  WHO\n a     1,000  x\n"
        );
        assert!(text.contains("\x1b[31m1,000"), "{text:?}");
    }
}
