//! One segment: an arrow that falls on its way to the other side, ends in a cross if it is dropped, and begins on
//! the way if it comes late.

use super::{FAINT, INK, LINES, LOST, SLANT, SMALL};
use crate::lab::picture::lettering::Font;
use crate::lab::picture::sheet::{Anchor, Label, Sheet, Stroke};
use crate::lab::picture::{Segment, Side};

/// The share of the way at which a dropped segment ends, and which a late one still has before it.
const REACH: f64 = 0.6;
const FLAGS: Font = Font::new(12.0);

/// Draws a segment that leaves at height `y`: dashed, if it was not captured. One that comes late begins on the way.
pub(super) fn arrow(sheet: &mut Sheet, from: Side, segment: Segment, y: f64, captured: bool) {
    let way = |share: f64| {
        let across = (LINES[1] - LINES[0] - 3.0) * share * -from.outward();
        [
            from.line() - from.outward() * 1.5 + across,
            y + SLANT * share,
        ]
    };
    let (begin, tip) = match segment {
        Segment { dropped: true, .. } => (way(0.0), way(REACH)),
        Segment { late: true, .. } => (way(1.0 - REACH), way(1.0)),
        _ => (way(0.0), way(1.0)),
    };
    let [across, fall] = [tip[0] - begin[0], tip[1] - begin[1]];
    let ink = ink(segment);
    let stroke = Stroke {
        ink,
        width: 1.5,
        dashes: if captured { "" } else { "5 4" },
    };
    if segment.dropped {
        sheet.line(begin, tip, &stroke);
        dropped(sheet, from, tip);
    } else {
        // The line ends before the head, so that its point stays sharp.
        let short = 1.0 - 6.0 / across.abs();
        let neck = [begin[0] + across * short, begin[1] + fall * short];
        sheet.line(begin, neck, &stroke);
        head(sheet, begin, tip, ink);
        if segment.late {
            held_up(sheet, begin);
        }
    }
    let middle = [(begin[0] + tip[0]) / 2.0, (begin[1] + tip[1]) / 2.0];
    sheet.label(Label {
        text: name(segment),
        at: [middle[0], middle[1] - 9.0],
        anchor: Anchor::Middle,
        font: if is_acknowledgement(segment) {
            SMALL
        } else {
            FLAGS
        },
        ink: ink.to_owned(),
        turned: (fall / across).atan().to_degrees(),
    });
}

/// Draws the bar at the place where a segment was held up.
fn held_up(sheet: &mut Sheet, [x, y]: [f64; 2]) {
    let stroke = Stroke {
        ink: INK,
        width: 2.4,
        dashes: "",
    };
    sheet.line([x, y - 5.5], [x, y + 5.5], &stroke);
}

/// Draws the cross at the end of a dropped segment.
fn dropped(sheet: &mut Sheet, from: Side, [x, y]: [f64; 2]) {
    let stroke = Stroke {
        ink: LOST,
        width: 2.4,
        dashes: "",
    };
    let arm = 5.5;
    for down in [-arm, arm] {
        sheet.line([x - arm, y - down], [x + arm, y + down], &stroke);
    }
    sheet.label(Label {
        text: "dropped".to_owned(),
        at: [x - from.outward() * 12.0, y + 1.0],
        anchor: match from {
            Side::Client => Anchor::Start,
            Side::Server => Anchor::End,
        },
        font: SMALL.italic(),
        ink: LOST.to_owned(),
        turned: 0.0,
    });
}

fn head(sheet: &mut Sheet, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], ink: &str) {
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
    sheet.polygon(&points, ink);
}

/// Returns the colour of a segment. Pure acknowledgements are many, and stay in the background.
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

/// Returns the name of a segment, such as "FIN, ACK" or "5 bytes".
pub(super) fn name(segment: Segment) -> String {
    let Segment {
        syn,
        fin,
        rst,
        ack,
        length,
        late,
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
        // Data has the ACK flag nearly always.
        (ack && length == 0, "ACK"),
        (late, "late"),
    ];
    let words: Vec<&str> = words.iter().filter(|it| it.0).map(|it| it.1).collect();
    match words.as_slice() {
        [] => "no flag".to_owned(),
        words => words.join(", "),
    }
}
