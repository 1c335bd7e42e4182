//! A ladder diagram: the life of one connection, time running downwards, what happens evenly spaced
//! whether it takes microseconds or a minute.

use std::time::Duration;

use svg::Document;
use svg::node::element::{Line, Polygon, Rectangle, Text};

use super::{Drawn, Ladder, Segment, Side, What};
use crate::inspect::sockets::State;
use crate::lab::palette::colour;

const WIDTH: f64 = 860.0;
/// The time line of each side, and the band of its states beside it.
const LINES: [f64; 2] = [300.0, 620.0];
const BAND: f64 = 10.0;
const TIMES: f64 = 66.0;
const TOP: f64 = 84.0;

/// From one segment to the next, and how far one falls while it goes over.
const ROW: f64 = 32.0;
const SLANT: f64 = 16.0;
/// The height of a line of text.
const TEXT: f64 = 17.0;
/// Where nothing happens for longer than this the time lines are broken.
const BREAK: Duration = Duration::from_millis(150);

const INK: &str = "#222222";
const FAINT: &str = "#767676";
const LOST: &str = "#c00000";

pub(super) fn draw(ladder: &Ladder) -> Drawn {
    let mut drawing = Drawing::new(ladder);
    let mut last = None;
    for moment in &ladder.moments {
        if let Some(gap) = last.and_then(|last| moment.at.checked_sub(last))
            && gap >= BREAK
        {
            drawing.gap(gap);
        }
        last = Some(moment.at);
        match &moment.what {
            What::Turned { side, state } => drawing.turn(*side, *state, moment.at),
            What::Sent { from, segment } => drawing.segment(*from, *segment, moment.at),
            What::Did { side, text } => drawing.deed(*side, text, moment.at),
        }
    }
    drawing.finish(ladder)
}

struct Drawing {
    /// What lies behind, and what is drawn on it.
    behind: Vec<Box<dyn svg::Node>>,
    before: Vec<Box<dyn svg::Node>>,
    y: f64,
    /// The lowest text in the column of times, and in that of each side.
    times: f64,
    labels: [f64; 2],
    /// The state of each side, and where it began.
    states: [Option<(State, f64)>; 2],
    captured: bool,
}

impl Drawing {
    fn new(ladder: &Ladder) -> Drawing {
        Drawing {
            behind: Vec::new(),
            before: Vec::new(),
            y: TOP,
            times: 0.0,
            labels: [0.0; 2],
            states: [None; 2],
            captured: ladder.captured,
        }
    }

    /// Where the next text of that side can stand: not on the last one.
    fn line_of(&mut self, side: Side) -> f64 {
        let side = side as usize;
        let y = self.y.max(self.labels[side] + TEXT);
        self.labels[side] = y;
        self.y = self.y.max(y);
        y
    }

    fn time(&mut self, at: Duration, y: f64) {
        if y >= self.times + TEXT {
            self.times = y;
            let time = match at.as_secs_f64() {
                seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1000.0),
                seconds => format!("{seconds:.2} s"),
            };
            self.text(&time, TIMES, y, "end", FAINT, "11px", "normal");
        }
    }

    #[allow(clippy::too_many_arguments)] // The attributes of a text.
    fn text(
        &mut self,
        text: &str,
        x: f64,
        y: f64,
        anchor: &str,
        fill: &str,
        size: &str,
        style: &str,
    ) {
        let text = Text::new(text)
            .set("x", x)
            .set("y", y + 4.0)
            .set("text-anchor", anchor)
            .set("fill", fill)
            .set("font-size", size)
            .set("font-style", style)
            // Readable also where a line passes behind.
            .set("paint-order", "stroke")
            .set("stroke", "#ffffff")
            .set("stroke-width", 3);
        self.before.push(Box::new(text));
    }

    /// Beside the band of a side, on the outside.
    fn label(&mut self, side: Side, text: &str, y: f64, fill: &str, style: &str) {
        let (x, anchor) = match side {
            Side::Client => (LINES[0] - BAND - 8.0, "end"),
            Side::Server => (LINES[1] + BAND + 8.0, "start"),
        };
        self.text(text, x, y, anchor, fill, "12px", style);
    }

    fn turn(&mut self, side: Side, state: Option<State>, at: Duration) {
        let y = self.line_of(side);
        self.time(at, y);
        self.end_band(side, y);
        match state {
            Some(state) => {
                self.states[side as usize] = Some((state, y));
                self.label(side, state.name(), y, INK, "normal");
            }
            None => self.label(side, "gone", y, FAINT, "normal"),
        }
    }

    /// The state of that side lasts until here.
    fn end_band(&mut self, side: Side, y: f64) {
        let Some((state, begin)) = self.states[side as usize].take() else {
            return;
        };
        let x = match side {
            Side::Client => LINES[0] - BAND,
            Side::Server => LINES[1],
        };
        let band = Rectangle::new()
            .set("x", x)
            .set("y", begin)
            .set("width", BAND)
            .set("height", (y - begin).max(1.0))
            .set("fill", colour(state));
        self.behind.push(Box::new(band));
    }

    fn deed(&mut self, side: Option<Side>, text: &str, at: Duration) {
        match side {
            Some(side) => {
                let y = self.line_of(side);
                self.time(at, y);
                self.label(side, text, y, INK, "italic");
            }
            None => {
                let y = self.y + 4.0;
                self.time(at, y);
                let middle = (LINES[0] + LINES[1]) / 2.0;
                self.text(text, middle, y, "middle", INK, "12px", "italic");
                self.y = y + TEXT;
            }
        }
    }

    fn gap(&mut self, gap: Duration) {
        let (begin, end) = (self.y + 10.0, self.y + 34.0);
        for x in LINES {
            self.line([x, begin], [x, end], "#ffffff", 3.0, "");
            self.line([x, begin], [x, end], FAINT, 1.5, "1 5");
        }
        let text = format!("{:.1} s later", gap.as_secs_f64());
        let middle = (LINES[0] + LINES[1]) / 2.0;
        self.text(
            &text,
            middle,
            (begin + end) / 2.0,
            "middle",
            FAINT,
            "11px",
            "italic",
        );
        self.y = end + 14.0;
    }

    fn segment(&mut self, from: Side, segment: Segment, at: Duration) {
        let y = self.y;
        self.time(at, y);
        let (begin, end) = match from {
            Side::Client => (LINES[0], LINES[1] - 1.0),
            Side::Server => (LINES[1], LINES[0] + 1.0),
        };
        let reach = if segment.dropped { 0.62 } else { 1.0 };
        let tip = [begin + (end - begin) * reach, y + SLANT * reach];
        let ink = if segment.dropped { LOST } else { INK };
        let dashes = if self.captured { "" } else { "6 4" };
        self.line([begin, y], tip, ink, 1.4, dashes);
        if segment.dropped {
            self.cross(tip);
        } else {
            self.head([begin, y], tip);
        }
        let middle = (begin + tip[0]) / 2.0;
        // Above the line at its middle, and a little more, for the line is slanted.
        let label = (y + tip[1]) / 2.0 - 10.0;
        self.text(
            &name(segment),
            middle,
            label,
            "middle",
            ink,
            "12px",
            "normal",
        );
        self.y = y + ROW;
    }

    fn line(
        &mut self,
        [x1, y1]: [f64; 2],
        [x2, y2]: [f64; 2],
        ink: &str,
        width: f64,
        dashes: &str,
    ) {
        let line = Line::new()
            .set("x1", x1)
            .set("y1", y1)
            .set("x2", x2)
            .set("y2", y2)
            .set("stroke", ink)
            .set("stroke-width", width)
            .set("stroke-dasharray", dashes);
        self.before.push(Box::new(line));
    }

    /// It did not get further.
    fn cross(&mut self, [x, y]: [f64; 2]) {
        let arm = 5.0;
        self.line([x - arm, y - arm], [x + arm, y + arm], LOST, 2.2, "");
        self.line([x - arm, y + arm], [x + arm, y - arm], LOST, 2.2, "");
    }

    /// The head of an arrow.
    fn head(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2]) {
        let length = (x2 - x1).hypot(y2 - y1);
        let (along, across) = ((x2 - x1) / length, (y2 - y1) / length);
        let point = |back: f64, aside: f64| {
            let x = x2 - along * back - across * aside;
            let y = y2 - across * back + along * aside;
            format!("{x:.1},{y:.1}")
        };
        let points = [point(0.0, 0.0), point(10.0, 3.6), point(10.0, -3.6)].join(" ");
        self.before.push(Box::new(
            Polygon::new().set("points", points).set("fill", INK),
        ));
    }

    fn finish(mut self, ladder: &Ladder) -> Drawn {
        let bottom = self.y + 12.0;
        for side in [Side::Client, Side::Server] {
            self.end_band(side, bottom);
        }
        self.y = bottom;
        self.head_line(ladder);
        let how = match ladder.captured {
            true => {
                "Segments as they passed, from a packet socket; states as the kernel's socket table shows them."
            }
            false => {
                "States as the kernel's socket table shows them; the segments are inferred from them."
            }
        };
        self.text(
            how,
            WIDTH / 2.0,
            bottom + 24.0,
            "middle",
            FAINT,
            "11px",
            "normal",
        );
        let height = bottom + 44.0;
        let mut document = Document::new()
            .set("viewBox", (0.0, 0.0, WIDTH, height))
            .set("width", WIDTH)
            .set("height", height)
            .set("role", "img")
            .set("font-family", "Helvetica, Arial, 'DejaVu Sans', sans-serif")
            .add(svg::node::element::Title::new(ladder.title.as_str()))
            .add(super::ground(WIDTH, height));
        for x in LINES {
            let line = Line::new()
                .set("x1", x)
                .set("y1", TOP - 12.0)
                .set("x2", x)
                .set("y2", bottom)
                .set("stroke", INK)
                .set("stroke-width", 1.2);
            document = document.add(line);
        }
        for node in self.behind.into_iter().chain(self.before) {
            document = document.add(node);
        }
        Drawn {
            text: document.to_string(),
            width: WIDTH,
            height,
        }
    }

    fn head_line(&mut self, ladder: &Ladder) {
        self.text(
            &ladder.title,
            WIDTH / 2.0,
            22.0,
            "middle",
            INK,
            "16px",
            "normal",
        );
        for (x, (name, address)) in LINES.into_iter().zip(&ladder.sides) {
            self.text(name, x, 46.0, "middle", INK, "13px", "normal");
            self.text(address, x, 61.0, "middle", FAINT, "11px", "normal");
        }
    }
}

/// As "FIN, ACK" or "5 bytes".
fn name(segment: Segment) -> String {
    let Segment {
        syn, fin, rst, ack, ..
    } = segment;
    let flags = [(syn, "SYN"), (fin, "FIN"), (rst, "RST"), (ack, "ACK")];
    let mut words: Vec<String> = flags
        .iter()
        .filter(|flag| flag.0)
        .map(|flag| flag.1.to_owned())
        .collect();
    match segment.length {
        0 => {}
        // Data without an acknowledgement hardly exists.
        length => {
            words.retain(|word| word != "ACK");
            let s = if length == 1 { "" } else { "s" };
            words.insert(0, format!("{length} byte{s}"));
        }
    }
    let name = words.join(", ");
    if segment.dropped {
        format!("{name}: dropped")
    } else {
        name
    }
}
