//! Pictures of an experiment, drawn as SVG.

mod chart;
mod ladder;
mod lettering;
#[cfg(test)]
pub(super) mod samples;
mod sheet;

use std::time::Duration;

use serde::Serialize;
use svg::node::Blob;
use svg::node::element::{Group, Rectangle};
use svg::{Document, Node};

use super::palette;
use crate::dark;
use crate::sockets::{State, as_seconds};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Picture {
    Ladder(Ladder),
    Chart(Chart),
}

/// The life of one connection: a time line for each side, with time running downwards.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ladder {
    pub(crate) title: String,
    /// By `Side`: its role, such as `client` or `master[4711]`, and its address.
    pub(crate) sides: [(String, String); 2],
    /// In the order of time; a change of state follows the segment that causes it.
    pub(crate) moments: Vec<Moment>,
    /// The states that the kernel's socket table showed, in the order of time.
    pub(crate) shown: Vec<Shown>,
    /// The segments were captured; otherwise they are inferred from the states and the calls.
    pub(crate) captured: bool,
}

/// A state as the kernel's socket table showed it first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Shown {
    #[serde(rename = "at_s", serialize_with = "as_seconds")]
    pub(crate) at: Duration,
    pub(crate) side: Side,
    /// `None`: the kernel had no socket.
    pub(crate) state: Option<State>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// The side that connected, drawn at the left.
    Client,
    /// The side that accepted, drawn at the right.
    Server,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Moment {
    /// Since the first moment of the connection.
    #[serde(rename = "at_s", serialize_with = "as_seconds")]
    pub(crate) at: Duration,
    pub(crate) what: What,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    /// A side is in a new state.
    Turned {
        side: Side,
        /// `None` when the kernel no longer has its socket.
        state: Option<State>,
        cause: Cause,
        /// The kernel's socket table showed it; otherwise it only follows from the rest.
        seen: bool,
    },
    /// A segment is sent to the other side.
    Sent { from: Side, segment: Segment },
    /// An action, such as "closes", and the side that did it, if one did.
    Did { side: Option<Side>, text: String },
}

/// The event that changed a state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// The segment of the last moment in which one was sent: as it left, or as it arrived.
    Segment,
    /// A call of that side's program, whose segment has to wait.
    Call,
    /// A timer of the kernel: that of TIME_WAIT, of a FIN_WAIT2 that no process holds, or of a segment that was not
    /// answered however often it was sent.
    Timer,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize)]
pub(crate) struct Segment {
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) ack: bool,
    /// The sequence number.
    pub(crate) seq: u32,
    /// The acknowledgement number; 0 without the ACK flag.
    pub(crate) acknowledges: u32,
    /// Bytes of data.
    pub(crate) length: usize,
    /// It did not arrive: a filter or a full queue dropped it.
    pub(crate) dropped: bool,
    /// It is a copy of an earlier one, which arrives late: no socket has sent it just then.
    pub(crate) late: bool,
}

impl Side {
    pub(crate) const BOTH: [Side; 2] = [Side::Client, Side::Server];

    pub(crate) fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
        }
    }
}

impl Segment {
    /// Returns the sequence number after the segment: SYN, each byte of data and FIN have one each.
    pub(crate) fn end(self) -> u32 {
        let occupied = self.length as u32 + u32::from(self.syn) + u32::from(self.fin);
        self.seq.wrapping_add(occupied)
    }

    /// Whether it has a sequence number that the peer acknowledges.
    pub(crate) fn is_acknowledged(self) -> bool {
        self.end() != self.seq
    }
}

/// Values over time.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) series: Vec<Series>,
    /// Named values of y, such as the limit of a queue.
    pub(crate) levels: Vec<(f64, String)>,
    /// Named values of x, such as the time of an event.
    pub(crate) marks: Vec<(f64, String)>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) style: Style,
    /// In the order of x.
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Style {
    /// A line that holds each value until the next point.
    Steps,
    Points,
}

/// A picture as SVG.
struct Drawn {
    /// A whole document.
    text: String,
    width: f64,
    height: f64,
}

impl Picture {
    /// Returns the picture as an SVG element of a page, which has the style of its dark form.
    pub(crate) fn within_page(&self) -> String {
        self.draw().text
    }

    fn draw(&self) -> Drawn {
        match self {
            Picture::Ladder(ladder) => ladder::draw(ladder),
            Picture::Chart(chart) => chart::draw(chart),
        }
    }

    pub(crate) fn title(&self) -> &str {
        match self {
            Picture::Ladder(ladder) => &ladder.title,
            Picture::Chart(chart) => &chart.title,
        }
    }
}

/// Space between pictures that are below each other.
const GAP: f64 = 28.0;

/// Returns the pictures below each other, in one SVG document.
pub(crate) fn stack(pictures: &[Picture]) -> String {
    let drawn: Vec<Drawn> = pictures.iter().map(Picture::draw).collect();
    let width = drawn.iter().map(|it| it.width).fold(1.0, f64::max);
    let gaps = GAP * drawn.len().saturating_sub(1) as f64;
    let height = (drawn.iter().map(|it| it.height).sum::<f64>() + gaps).max(1.0);
    let mut document = Document::new()
        .set("viewBox", (0.0, 0.0, width, height))
        .set("width", width)
        .set("height", height)
        .add(ground(width, height));
    let mut y = 0.0;
    for it in drawn {
        let x = (width - it.width) / 2.0;
        let mut group = Group::new().set("transform", format!("translate({x:.1},{y:.1})"));
        group.append(Blob::new(it.text));
        document = document.add(group);
        y += it.height + GAP;
    }
    dark::add(&document.to_string(), &palette::dark_rules(""))
}

/// The background of each picture.
fn ground(width: f64, height: f64) -> Rectangle {
    Rectangle::new()
        .set("width", width)
        .set("height", height)
        .set("fill", "#ffffff")
}
