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
    /// In the order of time.
    pub(crate) moments: Vec<Moment>,
    /// The segments were captured; otherwise they are inferred from the states.
    pub(crate) captured: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
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
    /// A side is in a new state; `None` when the kernel no longer has its socket.
    Turned { side: Side, state: Option<State> },
    /// A segment is sent to the other side.
    Sent { from: Side, segment: Segment },
    /// An action, such as "closes", and the side that did it, if one did.
    Did { side: Option<Side>, text: String },
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub(crate) struct Segment {
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) ack: bool,
    /// Bytes of data.
    pub(crate) length: usize,
    /// It did not arrive: a filter or a full queue dropped it.
    pub(crate) dropped: bool,
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
    /// Returns the picture as an SVG document.
    pub(crate) fn svg(&self) -> String {
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
    document.to_string()
}

/// The light background of each picture, so that it is legible on a dark page.
fn ground(width: f64, height: f64) -> Rectangle {
    Rectangle::new()
        .set("width", width)
        .set("height", height)
        .set("fill", "#ffffff")
}
