//! A ladder diagram: the life of one connection, with time running downwards and events evenly spaced,
//! whether microseconds or a minute lie between them. The time lines are broken where nothing happens for
//! long.
//!
//! From left to right: times, the client's column, its time line, the segments, the server's time line, its
//! column. Each is filled downwards, and a row begins below everything that it would overlap.

mod arrow;
mod ground;
mod rows;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::Duration;

use self::arrow::{arrow, name};
use self::ground::Ground;
use self::rows::{Entry, Middle, Row, Turn, rows};
use super::lettering::Font;
use super::sheet::{Anchor, Label, Sheet, Stroke};
use super::{Cause, Drawn, Ladder, Moment, Segment, Side, What};
use crate::lab::palette::colour;
use crate::sockets::State;

/// As narrow as the words allow: on a phone the whole picture is scaled to the width of the page.
const WIDTH: f64 = 584.0;
const MARGIN: f64 = 14.0;
/// The time line of each side, and the width of the column beside it.
const LINES: [f64; 2] = [213.0, 429.0];
const COLUMN: f64 = 141.0;
/// Distance from the time line to the text of its column, which is beside the bar of the state's colour.
const INDENT: f64 = 15.0;
/// The right edge of the times.
const TIMES: f64 = 64.0;

/// Distance from one segment to the next.
const ROW: f64 = 35.0;
/// Height by which a segment falls on its way to the other side.
const SLANT: f64 = 17.0;
/// Space for a segment's label, above the point where the segment leaves.
const LABEL: f64 = 15.0;
/// Smallest distance from one row of text to the next, so that times do not overlap.
const PITCH: f64 = 23.0;

const TITLE: Font = Font::new(17.0).bold();
const NAME: Font = Font::new(13.0).bold();
const ADDRESS: Font = Font::new(11.0).mono();
const STATE: Font = Font::new(12.0).bold();
/// A state that only follows from the rest.
const IMPLIED: Font = Font::new(12.0).italic();
const ACTION: Font = Font::new(12.0).italic();
const SMALL: Font = Font::new(11.0);

const INK: &str = "#222222";
const FAINT: &str = "#6b6b6b";
const LOST: &str = "#b3001b";

pub(super) fn draw(ladder: &Ladder) -> Drawn {
    let (sheet, height) = sheet(ladder);
    sheet.finish([WIDTH, height], &ladder.title, &in_words(ladder))
}

/// Returns the shapes and labels of a ladder, and its height.
fn sheet(ladder: &Ladder) -> (Sheet, f64) {
    let mut drawing = Drawing {
        captured: ladder.captured,
        ..Drawing::default()
    };
    drawing.head(ladder);
    for row in rows(&ladder.moments) {
        drawing.row(&row);
    }
    drawing.finish(ladder)
}

#[derive(Default)]
struct Drawing {
    ground: Ground,
    /// The shapes and labels above bands and time lines.
    sheet: Sheet,
    captured: bool,
    top: f64,
    /// Below these heights nothing is drawn yet: for the next row, in the middle, and in each column.
    row: f64,
    middle: f64,
    columns: [f64; 2],
    last_time: Option<String>,
}

const SIDES: [Side; 2] = Side::BOTH;

impl Side {
    /// Returns the direction away from the other side.
    fn outward(self) -> f64 {
        match self {
            Side::Client => -1.0,
            Side::Server => 1.0,
        }
    }

    fn line(self) -> f64 {
        LINES[self as usize]
    }

    /// Returns the span between two distances outwards from the time line, left edge first.
    fn span(self, from: f64, to: f64) -> [f64; 2] {
        let (one, other) = (
            self.line() + self.outward() * from,
            self.line() + self.outward() * to,
        );
        [one.min(other), one.max(other)]
    }
}

impl Drawing {
    fn head(&mut self, ladder: &Ladder) {
        let mut y = 16.0;
        for line in TITLE.wrap(&ladder.title, WIDTH - 2.0 * MARGIN) {
            y += TITLE.line() / 2.0;
            self.text(&line, [MARGIN, y], Anchor::Start, TITLE, INK);
            y += TITLE.line() / 2.0;
        }
        let mut bottom = y;
        for (side, (name, address)) in SIDES.into_iter().zip(&ladder.sides) {
            let mut y = y + 14.0;
            for (text, font, ink) in [(name, NAME, INK), (address, ADDRESS, FAINT)] {
                // Each name may extend halfway to the other one.
                for line in font.wrap(text, LINES[1] - LINES[0] - 16.0) {
                    let at = [side.line(), y + font.line() / 2.0];
                    self.text(&line, at, Anchor::Middle, font, ink);
                    y += font.line();
                }
            }
            bottom = bottom.max(y);
        }
        self.top = bottom + 6.0;
        self.row = self.top + 12.0;
        (self.middle, self.columns) = (self.row, [self.row; 2]);
    }

    fn row(&mut self, row: &Row) {
        match &row.middle {
            Middle::Break(gap) => self.gap(*gap),
            Middle::Action(text) => self.common_action(row.at, text),
            Middle::Segment { from, segment } => self.segment(row, *from, *segment),
            Middle::Nothing => {
                let taken = SIDES.map(|side| match row.entries[side as usize].is_empty() {
                    true => self.row,
                    false => self.columns[side as usize],
                });
                let y = self.row.max(taken[0]).max(taken[1]);
                self.time(row.at, y + STATE.line() / 2.0);
                for side in SIDES {
                    self.enter(side, &row.entries[side as usize], y);
                }
                self.row = y + PITCH;
            }
        }
    }

    fn segment(&mut self, row: &Row, from: Side, segment: Segment) {
        let falls = |side: Side| if side == from { 0.0 } else { SLANT };
        let above = |actions: &[String]| {
            let lines = actions
                .iter()
                .map(|action| ACTION.wrap(action, COLUMN - INDENT - 4.0).len());
            lines.sum::<usize>() as f64 * ACTION.line()
        };
        let mut y = self.row.max(self.middle + LABEL);
        for side in SIDES {
            let index = side as usize;
            if !row.entries[index].is_empty() || !row.actions[index].is_empty() {
                y = y.max(self.columns[index] + above(&row.actions[index]) - falls(side));
            }
        }
        self.time(row.at, y);
        for side in SIDES {
            let index = side as usize;
            let anchor = y + falls(side);
            let mut begin = anchor - above(&row.actions[index]);
            for action in &row.actions[index] {
                begin = self.write(side, action, ACTION, INK, begin);
            }
            self.enter(side, &row.entries[index], anchor);
        }
        arrow(&mut self.sheet, from, segment, y, self.captured);
        self.row = y + ROW;
        self.middle = y + SLANT + 5.0;
    }

    /// Draws entries below each other, from this height on.
    fn enter(&mut self, side: Side, entries: &[Entry], from: f64) {
        let mut y = from;
        for entry in entries {
            y = match entry {
                Entry::Did(text) => self.write(side, text, ACTION, INK, y),
                Entry::Turned(turn) => self.turn(side, *turn, y),
            };
        }
    }

    fn turn(&mut self, side: Side, turn: Turn, y: f64) -> f64 {
        self.ground.turn(side, turn.state, turn.seen, y);
        let below = match turn.state {
            Some(state) => {
                let ink = colour(state).ink().to_string();
                let font = if turn.seen { STATE } else { IMPLIED };
                self.write(side, state.name(), font, &ink, y + 2.0)
            }
            None => self.write(side, gone(turn.cause), ACTION, FAINT, y + 3.0),
        };
        self.columns[side as usize] = below + 2.0;
        below + 2.0
    }

    /// Writes text in the column of that side. Returns the height at which it ends.
    fn write(&mut self, side: Side, text: &str, font: Font, ink: &str, from: f64) -> f64 {
        let x = side.line() + side.outward() * INDENT;
        let anchor = match side {
            Side::Client => Anchor::End,
            Side::Server => Anchor::Start,
        };
        let mut y = from;
        for line in font.wrap(text, COLUMN - INDENT - 4.0) {
            self.text(&line, [x, y + font.line() / 2.0], anchor, font, ink);
            y += font.line();
        }
        self.columns[side as usize] = y;
        y
    }

    fn text(&mut self, text: &str, at: [f64; 2], anchor: Anchor, font: Font, ink: &str) {
        self.sheet.label(Label {
            text: text.to_owned(),
            at,
            anchor,
            font,
            ink: ink.to_owned(),
            turned: 0.0,
        });
    }

    /// Writes the time of a row, unless the row above has the same.
    fn time(&mut self, at: Duration, y: f64) {
        let time = format!("+{:.3} s", at.as_secs_f64());
        if self.last_time.as_ref() != Some(&time) {
            self.text(&time, [TIMES, y], Anchor::End, SMALL, FAINT);
            self.last_time = Some(time);
        }
    }

    /// Draws an action that neither side did, across the middle.
    fn common_action(&mut self, at: Duration, text: &str) {
        let room = LINES[1] - LINES[0];
        let lines = ACTION.wrap(text, room - 40.0);
        let y = self.row.max(self.middle);
        let widest = lines
            .iter()
            .map(|line| ACTION.width(line))
            .fold(0.0, f64::max);
        let height = lines.len().max(1) as f64 * ACTION.line();
        let centre = (LINES[0] + LINES[1]) / 2.0;
        let stroke = Stroke {
            ink: FAINT,
            width: 1.0,
            dashes: "2 3",
        };
        for side in SIDES {
            let to = centre + side.outward() * (widest / 2.0 + 6.0);
            let middle = y + height / 2.0;
            self.sheet
                .line([side.line(), middle], [to, middle], &stroke);
        }
        self.time(at, y + ACTION.line() / 2.0);
        let mut line_at = y + ACTION.line() / 2.0;
        for line in lines {
            self.text(&line, [centre, line_at], Anchor::Middle, ACTION, INK);
            line_at += ACTION.line();
        }
        self.row = (y + height + 9.0).max(y + PITCH);
        self.middle = y + height + 3.0;
    }

    /// Breaks the time lines: nothing happens for this time.
    fn gap(&mut self, gap: Duration) {
        let [client, server] = self.columns;
        let y = self.row.max(self.middle).max(client).max(server) + 14.0;
        self.ground.tear(y);
        let text = match gap.as_secs_f64() {
            short if short < 1.0 => format!("{:.0} ms later", short * 1000.0),
            long if long < 10.0 => format!("{long:.1} s later"),
            long => format!("{long:.0} s later"),
        };
        let centre = (LINES[0] + LINES[1]) / 2.0;
        self.text(&text, [centre, y], Anchor::Middle, SMALL.italic(), FAINT);
        self.row = y + 20.0;
        (self.middle, self.columns) = (y + 9.0, [y + 12.0; 2]);
        self.last_time = None;
    }

    fn finish(mut self, ladder: &Ladder) -> (Sheet, f64) {
        let [client, server] = self.columns;
        let bottom = self.middle.max(client).max(server) + 8.0;
        let caption = caption(ladder);
        let mut y = bottom + 30.0;
        for line in SMALL.wrap(&caption, WIDTH - 2.0 * MARGIN) {
            self.text(&line, [MARGIN, y], Anchor::Start, SMALL, FAINT);
            y += SMALL.line() + 1.0;
        }
        let mut sheet = Sheet::default();
        self.ground.draw(&mut sheet, self.top, bottom);
        sheet.append(self.sheet);
        (sheet, y + 8.0)
    }
}

/// Explains the sources of the picture.
fn caption(ladder: &Ladder) -> String {
    let segments = match ladder.captured {
        true => {
            "Segments as captured by a packet socket. States in bold letters on a full band were shown \
             by the kernel's socket table; those in italics on a hatched band were too short for it, and \
             follow from the segments (RFC 9293, 3.3.2)."
        }
        false => {
            "Segments are dashed: they could not be captured. They are inferred: the shortest course of \
             events that makes the experiment's calls and passes through each state that the kernel's \
             socket table showed (in bold letters, on a full band). States in italics, on a hatched \
             band, follow from it (RFC 9293, 3.3.2)."
        }
    };
    let is_late =
        |moment: &Moment| matches!(moment.what, What::Sent { segment, .. } if segment.late);
    let late = match ladder.moments.iter().any(is_late) {
        true => {
            " A late segment, whose arrow begins on the way, is a copy of the earlier one: the lab sent it from \
             a raw socket."
        }
        false => "",
    };
    format!("{segments}{late} Rows are evenly spaced, whatever time lies between them.")
}

/// Returns the words for a socket that has ended.
fn gone(cause: Cause) -> &'static str {
    match cause {
        Cause::Segment | Cause::Call => "gone",
        Cause::Timer => "gone: its timer has ended",
    }
}

/// Describes the picture for people who can't see it: a line for each moment.
fn in_words(ladder: &Ladder) -> String {
    let name = Side::name;
    let mut words = String::new();
    for Moment { at, what } in &ladder.moments {
        let _ = write!(words, "+{:.3} s ", at.as_secs_f64());
        let _ = match what {
            What::Turned {
                side,
                state,
                cause,
                seen,
            } => {
                let state = state.map_or(gone(*cause), State::name);
                let implied = if *seen { "" } else { " (implied)" };
                writeln!(words, "{} is {state}{implied}", name(*side))
            }
            What::Sent { from, segment } => {
                let dropped = if segment.dropped { ", dropped" } else { "" };
                writeln!(
                    words,
                    "{} sends {}{dropped}",
                    name(*from),
                    self::name(*segment)
                )
            }
            What::Did { side, text } => match side {
                Some(side) => writeln!(words, "{}: {text}", name(*side)),
                None => writeln!(words, "{text}"),
            },
        };
    }
    words
}
