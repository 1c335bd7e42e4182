//! Pictures of an experiment, drawn as SVG.

use std::time::Duration;

use crate::inspect::sockets::State;

#[derive(Clone, Debug)]
pub(crate) enum Picture {
    Ladder(Ladder),
    Chart(Chart),
}

/// The life of one connection: a time line for each side, time runs downwards.
#[derive(Clone, Debug)]
pub(crate) struct Ladder {
    pub(crate) title: String,
    /// By `Side`: its role, such as `client` or `master[4711]`, and its address.
    pub(crate) sides: [(String, String); 2],
    /// In the order of time.
    pub(crate) moments: Vec<Moment>,
    /// The segments were seen on the wire; otherwise they are what the states imply.
    pub(crate) captured: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Drawn at the left: who connected.
    Client,
    /// Drawn at the right.
    Server,
}

#[derive(Clone, Debug)]
pub(crate) struct Moment {
    /// Since the connection was asked for.
    pub(crate) at: Duration,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A side is in another state; `None` when the kernel knows nothing of it any more.
    Turned { side: Side, state: Option<State> },
    /// A segment goes over to the other side.
    Sent { from: Side, segment: Segment },
    /// What was done then, such as "the client closes"; a side, where it is one's doing.
    Did { side: Option<Side>, text: String },
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Segment {
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) ack: bool,
    /// Bytes of data.
    pub(crate) length: usize,
    /// It did not arrive: a filter dropped it, or a full queue.
    pub(crate) dropped: bool,
}

/// Something over time, or over something else.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) series: Vec<Series>,
    /// Heights that mean something, such as the limit of a queue.
    pub(crate) levels: Vec<(f64, String)>,
    /// Points of x at which something happened.
    pub(crate) marks: Vec<(f64, String)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) style: Style,
    /// In the order of x.
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// It holds its value until the next point.
    Steps,
    Line,
    Points,
}

pub(crate) fn stack(_pictures: &[Picture]) -> String {
    String::new()
}
