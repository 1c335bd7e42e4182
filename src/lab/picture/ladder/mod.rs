//! A ladder diagram: the life of one connection, time running downwards, what happens evenly spaced
//! whether it takes microseconds or a minute. Where long nothing happens the time lines are broken.
//!
//! From left to right: times, the client's column, its time line, the segments, the server's time
//! line, its column. Each is filled downwards, and a row begins where nothing is in its way.

mod rows;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::time::Duration;

use self::rows::{Entry, Middle, Row, rows};
use super::lettering::Font;
use super::sheet::{Anchor, Label, Sheet, Stroke};
use super::{Drawn, Ladder, Moment, Segment, Side, What};
use crate::inspect::sockets::State;
use crate::lab::palette::colour;

const WIDTH: f64 = 800.0;
const MARGIN: f64 = 24.0;
/// The time line of each side, and the width of the column beside it.
const LINES: [f64; 2] = [282.0, 598.0];
const COLUMN: f64 = 178.0;
/// The bar of a state's colour along the line, and where the text beside it begins.
const BAR: f64 = 7.0;
const INDENT: f64 = 15.0;
/// Where times end.
const TIMES: f64 = 90.0;

/// From one segment to the next, and how far one falls while it goes over.
const ROW: f64 = 35.0;
const SLANT: f64 = 17.0;
/// How far a segment goes that is dropped.
const REACH: f64 = 0.6;
/// Room for a segment's label, from what is above it to where the segment leaves.
const LABEL: f64 = 15.0;
/// The least from one row of text to the next: times stand above each other.
const PITCH: f64 = 23.0;

const TITLE: Font = Font::new(17.0).bold();
const NAME: Font = Font::new(13.0).bold();
const ADDRESS: Font = Font::new(11.0).mono();
const STATE: Font = Font::new(12.0).bold();
const DEED: Font = Font::new(12.0).italic();
const SMALL: Font = Font::new(11.0);

const INK: &str = "#222222";
const FAINT: &str = "#6b6b6b";
const LOST: &str = "#b3001b";

pub(super) fn draw(ladder: &Ladder) -> Drawn {
    let (sheet, height) = sheet(ladder);
    sheet.finish([WIDTH, height], &ladder.title, &in_words(ladder))
}

/// Everything but what makes it a document, and its height.
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
    bands: Vec<Band>,
    breaks: Vec<f64>,
    /// What lies over bands and time lines.
    sheet: Sheet,
    captured: bool,
    top: f64,
    /// Below these nothing is drawn yet: where the next row may begin, and by column.
    row: f64,
    middle: f64,
    columns: [f64; 2],
    /// The state of each side, and where it began.
    states: [Option<(State, f64)>; 2],
    /// Where a side's end was.
    gone: [Option<f64>; 2],
    last_time: Option<String>,
}

/// A side was in this state from here to there.
struct Band {
    side: Side,
    state: State,
    y: [f64; 2],
}

const SIDES: [Side; 2] = [Side::Client, Side::Server];

impl Side {
    /// Away from the other side.
    fn outward(self) -> f64 {
        match self {
            Side::Client => -1.0,
            Side::Server => 1.0,
        }
    }

    fn line(self) -> f64 {
        LINES[self as usize]
    }

    /// From left to right: what lies this far from the time line, outwards.
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
                // Half of what lies between the lines, to either side.
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
            Middle::Deed(text) => self.deed_of_nobody(row.at, text),
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
        let above = |deeds: &[String]| {
            let lines = deeds
                .iter()
                .map(|deed| DEED.wrap(deed, COLUMN - INDENT - 4.0).len());
            lines.sum::<usize>() as f64 * DEED.line()
        };
        let mut y = self.row.max(self.middle + LABEL);
        for side in SIDES {
            let index = side as usize;
            if !row.entries[index].is_empty() || !row.deeds[index].is_empty() {
                y = y.max(self.columns[index] + above(&row.deeds[index]) - falls(side));
            }
        }
        self.time(row.at, y);
        for side in SIDES {
            let index = side as usize;
            let anchor = y + falls(side);
            let mut begin = anchor - above(&row.deeds[index]);
            for deed in &row.deeds[index] {
                begin = self.write(side, deed, DEED, INK, begin);
            }
            self.enter(side, &row.entries[index], anchor);
        }
        self.arrow(from, segment, y);
        self.row = y + ROW;
        self.middle = y + SLANT + 5.0;
    }

    /// Entries beneath each other, from here on.
    fn enter(&mut self, side: Side, entries: &[Entry], from: f64) {
        let mut y = from;
        for entry in entries {
            y = match entry {
                Entry::Did(text) => self.write(side, text, DEED, INK, y),
                Entry::Turned(state) => self.turn(side, *state, y),
            };
        }
    }

    fn turn(&mut self, side: Side, state: Option<State>, y: f64) -> f64 {
        self.end_band(side, y);
        let index = side as usize;
        self.gone[index] = state.is_none().then_some(y);
        let below = match state {
            Some(state) => {
                self.states[index] = Some((state, y));
                let ink = colour(state).ink().to_string();
                self.write(side, state.name(), STATE, &ink, y + 2.0)
            }
            None => {
                let stroke = Stroke {
                    ink: INK,
                    width: 2.0,
                    dashes: "",
                };
                let [left, right] = side.span(-7.0, BAR + 7.0);
                self.sheet.line([left, y], [right, y], &stroke);
                self.write(side, "gone", DEED, FAINT, y + 3.0)
            }
        };
        self.columns[index] = below + 2.0;
        below + 2.0
    }

    /// The state of that side lasts until here.
    fn end_band(&mut self, side: Side, y: f64) {
        if let Some((state, begin)) = self.states[side as usize].take() {
            let y = [begin, y];
            self.bands.push(Band { side, state, y });
        }
    }

    /// Text in the column of that side. Tells where it ends.
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

    /// The same time is not said twice.
    fn time(&mut self, at: Duration, y: f64) {
        let time = format!("+{:.3} s", at.as_secs_f64());
        if self.last_time.as_ref() != Some(&time) {
            self.text(&time, [TIMES, y], Anchor::End, SMALL, FAINT);
            self.last_time = Some(time);
        }
    }

    fn deed_of_nobody(&mut self, at: Duration, text: &str) {
        let room = LINES[1] - LINES[0];
        let lines = DEED.wrap(text, room - 40.0);
        let y = self.row.max(self.middle);
        let widest = lines
            .iter()
            .map(|line| DEED.width(line))
            .fold(0.0, f64::max);
        let height = lines.len().max(1) as f64 * DEED.line();
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
        self.time(at, y + DEED.line() / 2.0);
        let mut line_at = y + DEED.line() / 2.0;
        for line in lines {
            self.text(&line, [centre, line_at], Anchor::Middle, DEED, INK);
            line_at += DEED.line();
        }
        self.row = (y + height + 9.0).max(y + PITCH);
        self.middle = y + height + 3.0;
    }

    /// Nothing happens for this long.
    fn gap(&mut self, gap: Duration) {
        let [client, server] = self.columns;
        let y = self.row.max(self.middle).max(client).max(server) + 14.0;
        self.breaks.push(y);
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

    fn arrow(&mut self, from: Side, segment: Segment, y: f64) {
        let begin = [from.line() - from.outward() * 1.5, y];
        let [left, right] = LINES;
        let reach = if segment.dropped { REACH } else { 1.0 };
        let across = (right - left - 3.0) * reach * -from.outward();
        let tip = [begin[0] + across, y + SLANT * reach];
        let ink = ink(segment);
        let stroke = Stroke {
            ink,
            width: 1.5,
            dashes: if self.captured { "" } else { "5 4" },
        };
        if segment.dropped {
            self.sheet.line(begin, tip, &stroke);
            self.cross(tip);
            let at = [tip[0] - from.outward() * 12.0, tip[1] + 1.0];
            let anchor = match from {
                Side::Client => Anchor::Start,
                Side::Server => Anchor::End,
            };
            self.text("dropped", at, anchor, SMALL.italic(), LOST);
        } else {
            // Not into the head: its point is to be sharp.
            let short = 1.0 - 6.0 / across.abs();
            let neck = [begin[0] + across * short, y + SLANT * short];
            self.sheet.line(begin, neck, &stroke);
            self.head_of_arrow(begin, tip, ink);
        }
        let angle = (SLANT * reach / across).atan();
        let middle = [(begin[0] + tip[0]) / 2.0, (begin[1] + tip[1]) / 2.0];
        let font = match is_acknowledgement(segment) {
            true => SMALL,
            false => Font::new(12.0),
        };
        self.sheet.label(Label {
            text: name(segment),
            at: [middle[0], middle[1] - 9.0],
            anchor: Anchor::Middle,
            font,
            ink: ink.to_owned(),
            turned: angle.to_degrees(),
        });
    }

    /// It did not get further.
    fn cross(&mut self, [x, y]: [f64; 2]) {
        let stroke = Stroke {
            ink: LOST,
            width: 2.4,
            dashes: "",
        };
        let arm = 5.5;
        for down in [-arm, arm] {
            self.sheet
                .line([x - arm, y - down], [x + arm, y + down], &stroke);
        }
    }

    fn head_of_arrow(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], ink: &str) {
        let length = (x2 - x1).hypot(y2 - y1);
        let (along, across) = ((x2 - x1) / length, (y2 - y1) / length);
        let point = |back: f64, aside: f64| {
            let x = x2 - along * back - across * aside;
            [x, y2 - across * back + along * aside]
        };
        let points = [
            point(0.0, 0.0),
            point(10.5, 4.0),
            point(8.0, 0.0),
            point(10.5, -4.0),
        ];
        self.sheet.polygon(&points, ink);
    }

    fn finish(mut self, ladder: &Ladder) -> (Sheet, f64) {
        let [client, server] = self.columns;
        let bottom = self.middle.max(client).max(server) + 8.0;
        let open = self.states.map(|state| state.map(|(state, _)| state));
        for side in SIDES {
            self.end_band(side, bottom);
        }
        let caption = match ladder.captured {
            true => {
                "Segments as a packet socket saw them; states as the kernel's socket table shows \
                 them, each beside the segment that brings it about. Rows are evenly spaced, \
                 whatever time lies between them."
            }
            false => {
                "States as the kernel's socket table shows them. Segments are dashed: they could \
                 not be seen, and are inferred from the states. Rows are evenly spaced, whatever \
                 time lies between them."
            }
        };
        let mut y = bottom + 30.0;
        for line in SMALL.wrap(caption, WIDTH - 2.0 * MARGIN) {
            self.text(&line, [MARGIN, y], Anchor::Start, SMALL, FAINT);
            y += SMALL.line() + 1.0;
        }
        let mut sheet = Sheet::default();
        self.ground(&mut sheet, open, bottom);
        sheet.append(self.sheet);
        (sheet, y + 8.0)
    }

    /// Bands and time lines, which lie below everything.
    fn ground(&self, sheet: &mut Sheet, open: [Option<State>; 2], bottom: f64) {
        for Band { side, state, y } in &self.bands {
            let colour = colour(*state);
            sheet.rectangle(side.span(0.0, COLUMN), *y, &colour.tint().to_string(), 1.0);
            sheet.rectangle(side.span(0.0, BAR), *y, &colour.to_string(), 1.0);
        }
        for side in SIDES {
            // A state that lasts fades out.
            for (step, opacity) in [0.6, 0.35, 0.15].into_iter().enumerate() {
                let Some(state) = open[side as usize] else {
                    continue;
                };
                let y = bottom + step as f64 * 5.0;
                let colour = colour(state);
                let (tint, colour) = (colour.tint().to_string(), colour.to_string());
                sheet.rectangle(side.span(0.0, COLUMN), [y, y + 5.0], &tint, opacity);
                sheet.rectangle(side.span(0.0, BAR), [y, y + 5.0], &colour, opacity);
            }
            self.time_line(sheet, side, bottom);
            for y in &self.breaks {
                torn(sheet, side, *y);
            }
        }
    }

    /// Dotted where the kernel knows nothing of that side any more.
    fn time_line(&self, sheet: &mut Sheet, side: Side, bottom: f64) {
        let x = side.line();
        let end = self.gone[side as usize].unwrap_or(bottom + 10.0);
        let solid = Stroke {
            ink: INK,
            width: 1.4,
            dashes: "",
        };
        sheet.line([x, self.top], [x, end], &solid);
        if end < bottom {
            let dotted = Stroke {
                ink: FAINT,
                width: 1.0,
                dashes: "1 4",
            };
            sheet.line([x, end], [x, bottom + 10.0], &dotted);
        }
    }
}

/// A strip without ground, and two strokes at its edges, as an axis is broken.
fn torn(sheet: &mut Sheet, side: Side, y: f64) {
    let white = side.span(-4.0, COLUMN);
    sheet.rectangle(white, [y - 4.0, y + 4.0], "#ffffff", 1.0);
    let stroke = Stroke {
        ink: INK,
        width: 1.2,
        dashes: "",
    };
    for edge in [y - 4.0, y + 4.0] {
        let x = side.line();
        sheet.line([x - 8.0, edge + 3.0], [x + 8.0, edge - 3.0], &stroke);
    }
}

/// Mere acknowledgements are many, and stay in the background.
fn ink(segment: Segment) -> &'static str {
    match segment {
        Segment { dropped: true, .. } => LOST,
        _ if is_acknowledgement(segment) => FAINT,
        _ => INK,
    }
}

fn is_acknowledgement(segment: Segment) -> bool {
    let Segment {
        syn,
        fin,
        rst,
        length,
        ..
    } = segment;
    !syn && !fin && !rst && length == 0
}

/// As "FIN, ACK" or "5 bytes".
fn name(segment: Segment) -> String {
    let Segment {
        syn,
        fin,
        rst,
        ack,
        length,
        ..
    } = segment;
    let bytes = match length {
        1 => "1 byte".to_owned(),
        _ => format!("{length} bytes"),
    };
    let words = [
        (syn, "SYN"),
        (length > 0, bytes.as_str()),
        (fin, "FIN"),
        (rst, "RST"),
        // Data without an acknowledgement hardly exists.
        (ack && length == 0, "ACK"),
    ];
    let words: Vec<&str> = words.iter().filter(|it| it.0).map(|it| it.1).collect();
    match words.as_slice() {
        [] => "no flag".to_owned(),
        words => words.join(", "),
    }
}

/// The picture for whoever can't see it: a line for each moment.
fn in_words(ladder: &Ladder) -> String {
    let name = |side: Side| match side {
        Side::Client => "client",
        Side::Server => "server",
    };
    let mut words = String::new();
    for Moment { at, what } in &ladder.moments {
        let _ = write!(words, "+{:.3} s ", at.as_secs_f64());
        let _ = match what {
            What::Turned { side, state } => {
                let state = state.map_or("gone", State::name);
                writeln!(words, "{} is {state}", name(*side))
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
