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

/// Collects bands, absences and breaks while the picture is drawn.
#[derive(Default)]
pub(super) struct Ground {
    bands: Vec<Band>,
    /// The spans in which the kernel no longer had a side's socket.
    absences: Vec<(Side, [f64; 2])>,
    breaks: Vec<f64>,
    /// By side: its state, `None` when the socket is gone, and the height where that began; `None` before
    /// the first state.
    now: [Option<(Option<State>, f64)>; 2],
}

/// A side's state, and its span.
struct Band {
    side: Side,
    state: State,
    y: [f64; 2],
}

impl Ground {
    pub(super) fn turn(&mut self, side: Side, state: Option<State>, y: f64) {
        let before = self.now[side as usize].replace((state, y));
        self.end(side, before, y);
    }

    pub(super) fn tear(&mut self, y: f64) {
        self.breaks.push(y);
    }

    fn end(&mut self, side: Side, what: Option<(Option<State>, f64)>, y: f64) {
        match what {
            Some((Some(state), begin)) => self.bands.push(Band {
                side,
                state,
                y: [begin, y],
            }),
            Some((None, begin)) => self.absences.push((side, [begin, y])),
            None => {}
        }
    }

    /// Draws everything. Time lines go from the top to a little below the bottom.
    pub(super) fn draw(mut self, sheet: &mut Sheet, top: f64, bottom: f64) {
        let below = bottom + STEP * 2.0;
        for side in SIDES {
            let last = self.now[side as usize];
            if let Some((Some(state), _)) = last {
                fade(sheet, side, state, bottom);
            }
            let end = if let Some((None, _)) = last {
                below
            } else {
                bottom
            };
            self.end(side, last, end);
        }
        for Band { side, state, y } in &self.bands {
            band(sheet, *side, *state, *y, 1.0);
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
