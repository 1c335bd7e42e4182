//! Text in aligned columns; colours do not count for the width.

use anstyle::Style;
use comfy_table::{CellAlignment, Table, presets};

/// One field of a row.
pub(crate) struct Cell {
    text: String,
    style: Style,
    is_number: bool,
}

impl Cell {
    pub(crate) fn text(text: impl ToString) -> Cell {
        Cell {
            text: text.to_string(),
            style: Style::new(),
            is_number: false,
        }
    }

    /// Right-aligned.
    pub(crate) fn number(text: impl ToString) -> Cell {
        Cell {
            is_number: true,
            ..Cell::text(text)
        }
    }

    pub(crate) fn styled(self, style: Style) -> Cell {
        Cell { style, ..self }
    }
}

/// Writes one line for each row, with two spaces between columns and none at the end of a line.
pub(crate) fn write(rows: &[Vec<Cell>], indent: &str, out: &mut String) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for row in rows {
        table.add_row(row.iter().map(|cell| {
            let style = cell.style;
            let shown = comfy_table::Cell::new(format!("{style}{}{style:#}", cell.text));
            shown.set_alignment(match cell.is_number {
                true => CellAlignment::Right,
                false => CellAlignment::Left,
            })
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for line in table.lines() {
        out.push_str(indent);
        out.push_str(line.trim_end());
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
