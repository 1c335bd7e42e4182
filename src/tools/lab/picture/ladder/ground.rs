//! The lowest layer: the bands of states and the time lines.

use super::{COLUMN, FAINT, INK, SIDES};
use crate::lab::palette::colour;
use crate::lab::picture::Side;
use crate::lab::picture::sheet::{Sheet, Stroke};
use crate::sockets::State;

/// Width of the bar of a state's colour along the time line.
const BAR: f64 = 7.0;
/// Opacities of a state that lasts beyond the picture: it fades out in steps.
const FADE: [f64; 3] = [0.6, 0.35, 0.15];
/// Height of such a step.
const STEP: f64 = 5.0;
/// Distance between the strokes of an implied state.
const HATCH: f64 = 7.0;

/// Collects bands, absences and breaks while the picture is drawn.
#[derive(Default)]
pub(super) struct Ground {
    bands: Vec<Band>,
    /// The spans in which the kernel no longer had a side's socket.
    absences: Vec<(Side, [f64; 2])>,
    breaks: Vec<f64>,
    /// By side: `None` before the first state.
    now: [Option<Begun>; 2],
}

/// The present state of a side.
#[derive(Clone, Copy)]
struct Begun {
    /// `None` when the socket is gone.
    state: Option<State>,
    seen: bool,
    /// The height where it began.
    y: f64,
}

/// A side's state, and its span.
struct Band {
    side: Side,
    state: State,
    seen: bool,
    y: [f64; 2],
}

impl Ground {
    pub(super) fn turn(&mut self, side: Side, state: Option<State>, seen: bool, y: f64) {
        let before = self.now[side as usize].replace(Begun { state, seen, y });
        self.end(side, before, y);
    }

    pub(super) fn tear(&mut self, y: f64) {
        self.breaks.push(y);
    }

    fn end(&mut self, side: Side, what: Option<Begun>, end: f64) {
        let Some(Begun { state, seen, y }) = what else {
            return;
        };
        let y = [y, end];
        match state {
            Some(state) => self.bands.push(Band {
                side,
                state,
                seen,
                y,
            }),
            None => self.absences.push((side, y)),
        }
    }

    /// Draws everything. Time lines go from the top to a little below the bottom.
    pub(super) fn draw(mut self, sheet: &mut Sheet, top: f64, bottom: f64) {
        let below = bottom + STEP * 2.0;
        for side in SIDES {
            let last = self.now[side as usize];
            let state = last.map(|last| last.state);
            if let Some(Some(state)) = state {
                fade(sheet, side, state, bottom);
            }
            let end = if state == Some(None) { below } else { bottom };
            self.end(side, last, end);
        }
        for Band {
            side,
            state,
            seen,
            y,
        } in &self.bands
        {
            match seen {
                true => band(sheet, *side, *state, *y, 1.0),
                false => hatch(sheet, *side, *state, *y),
            }
        }
        for side in SIDES {
            let x = side.line();
            sheet.line([x, top], [x, below], &solid(INK, 1.4));
            for (_, [begin, end]) in self.absences.iter().filter(|absence| absence.0 == side) {
                absence(sheet, x, [*begin, *end]);
            }
            self.breaks.iter().for_each(|y| torn(sheet, side, *y));
        }
    }
}

fn band(sheet: &mut Sheet, side: Side, state: State, y: [f64; 2], opacity: f64) {
    let colour = colour(state);
    let (tint, colour) = (colour.tint().to_string(), colour.to_string());
    sheet.rectangle(side.span(0.0, COLUMN), y, &tint, opacity);
    sheet.rectangle(side.span(0.0, BAR), y, &colour, opacity);
}

/// Fills the band of an implied state with strokes of its colour.
fn hatch(sheet: &mut Sheet, side: Side, state: State, [top, bottom]: [f64; 2]) {
    let (tint, colour) = (colour(state).tint().to_string(), colour(state).to_string());
    let [left, right] = side.span(0.0, COLUMN);
    let ([inner, outer], height) = (side.span(0.0, BAR), bottom - top);
    let stroke = Stroke {
        width: 1.6,
        ..solid(&tint, 1.0)
    };
    let mut begin = left - height;
    while begin < right {
        // From the lower left to the upper right, cut off at both edges.
        let from = [begin.max(left), bottom - (begin.max(left) - begin)];
        let end = (begin + height).min(right);
        let to = [end, bottom - (end - begin)];
        sheet.line(from, to, &stroke);
        begin += HATCH;
    }
    let edge = Stroke {
        dashes: "2 2",
        ..solid(&colour, BAR / 2.0)
    };
    let middle = (inner + outer) / 2.0;
    sheet.line([middle, top], [middle, bottom], &edge);
}

fn fade(sheet: &mut Sheet, side: Side, state: State, bottom: f64) {
    for (step, opacity) in FADE.into_iter().enumerate() {
        let y = bottom + step as f64 * STEP;
        band(sheet, side, state, [y, y + STEP], opacity);
    }
}

/// The kernel no longer has the socket: an end mark, and a dotted line.
fn absence(sheet: &mut Sheet, x: f64, [begin, end]: [f64; 2]) {
    sheet.line([x, begin], [x, end], &solid("#ffffff", 2.4));
    let dotted = Stroke {
        dashes: "1 4",
        ..solid(FAINT, 1.0)
    };
    sheet.line([x, begin], [x, end], &dotted);
    sheet.line([x - 13.0, begin], [x + 13.0, begin], &solid(INK, 2.0));
}

fn solid(ink: &str, width: f64) -> Stroke<'_> {
    Stroke {
        ink,
        width,
        dashes: "",
    }
}

/// A white strip with a stroke at each edge, like a broken axis.
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
