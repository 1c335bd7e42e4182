//! Tables and text for a terminal of any width. A number is shown whole or not at all: an address that is cut
//! in its port, or a count that is cut, is another address and another count.

use ratatui::layout::Constraint;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Row, Table};
use textwrap::core::display_width;

/// The space between two columns.
pub(super) const SPACING: u16 = 2;

/// The least width of a last column: below it, names would be cut to nothing.
const LEAST: usize = 12;

pub(super) struct Column {
    title: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    /// Text that takes the rest of the width, and is cut there.
    Last,
}

impl Column {
    pub(super) fn text(title: &'static str) -> Column {
        let kind = Kind::Text;
        Column { title, kind }
    }

    pub(super) fn number(title: &'static str) -> Column {
        let kind = Kind::Number;
        Column { title, kind }
    }

    pub(super) fn last(title: &'static str) -> Column {
        let kind = Kind::Last;
        Column { title, kind }
    }
}

/// Returns a table of as many columns as fit in `width`, from the left.
pub(super) fn table(
    columns: &[Column],
    rows: &[(Vec<String>, Style)],
    width: u16,
) -> Table<'static> {
    let widest = |(i, column): (usize, &Column)| {
        let cells = rows.iter().filter_map(|(cells, _)| cells.get(i));
        let widths = cells.map(|cell| display_width(cell));
        let all = widths.chain([display_width(column.title)]);
        all.max().unwrap_or(0)
    };
    let widths: Vec<usize> = columns.iter().enumerate().map(widest).collect();
    let (mut shown, mut used) = (Vec::new(), 0);
    for (column, needed) in columns.iter().zip(widths) {
        let space = if shown.is_empty() {
            0
        } else {
            usize::from(SPACING)
        };
        let left = usize::from(width).saturating_sub(used + space);
        let taken = match column.kind {
            Kind::Text | Kind::Number => needed,
            Kind::Last => needed.min(left.max(LEAST)),
        };
        if taken > left && !shown.is_empty() {
            break;
        }
        used += space + taken;
        shown.push((column, taken));
    }
    let line = |text: &str, column: &Column, width: usize| {
        let line = Line::raw(cut(text, width));
        match column.kind {
            Kind::Number => line.right_aligned(),
            Kind::Text | Kind::Last => line,
        }
    };
    let titles = shown
        .iter()
        .map(|(column, width)| line(column.title, column, *width));
    let titles = Row::new(titles.collect::<Vec<_>>());
    let row = |(cells, style): &(Vec<String>, Style)| {
        let cells = shown
            .iter()
            .zip(cells)
            .map(|((column, width), cell)| line(cell, column, *width));
        Row::new(cells.collect::<Vec<_>>()).style(*style)
    };
    let rows: Vec<Row<'static>> = rows.iter().map(row).collect();
    let widths = shown
        .iter()
        .map(|(_, width)| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX)));
    Table::new(rows, widths)
        .column_spacing(SPACING)
        .header(titles.style(Style::new().add_modifier(Modifier::DIM)))
}

/// Returns a text within a width, with a mark where it is cut.
pub(super) fn cut(text: &str, width: usize) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let (mut shown, mut used) = (String::new(), 0);
    for letter in text.chars() {
        used += display_width(letter.encode_utf8(&mut [0; 4]));
        if used + 1 > width {
            break;
        }
        shown.push(letter);
    }
    if width > 0 {
        shown.push('…');
    }
    shown
}

/// Returns an address within a width: its end, where the port is.
pub(super) fn shortened(address: &str, width: usize) -> String {
    let length = address.chars().count();
    if length <= width {
        return address.to_owned();
    }
    let end: String = address
        .chars()
        .skip(length - width.saturating_sub(1).min(length))
        .collect();
    format!("…{end}")
}

/// Returns the lines of a text. No word is broken, so no number is.
pub(super) fn wrapped(text: &str, width: usize, first: &str, rest: &str) -> Vec<String> {
    let options = textwrap::Options::new(width)
        .initial_indent(first)
        .subsequent_indent(rest)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    let lines = textwrap::wrap(text, options);
    lines.into_iter().map(|line| line.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_port_and_a_text_its_beginning() {
        assert_eq!(shortened("127.0.0.1:9501", 14), "127.0.0.1:9501");
        assert_eq!(shortened("[2001:db8::1]:9501", 10), "…::1]:9501");
        assert_eq!(cut("worker#0[4711]", 14), "worker#0[4711]");
        assert_eq!(cut("worker#0[4711]", 12), "worker#0[47…");
        assert_eq!(cut("x", 0), "");
    }
}
