//! Holds a figure of the lab against TCP: each change of state has its cause, no segment comes from a socket that is
//! gone, the numbers of each side rise, and the states are those that the kernel showed. It has a table of its own
//! ([`rules`]), so that an error of the lab's model is not its error too.

mod broken;
mod drawn;
mod rules;

use serde_json::Value;

pub(crate) use drawn::drawn;
pub(crate) use rules::check;

/// The life of one connection, as `tine lab --json` prints it.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) title: String,
    pub(crate) moments: Vec<Moment>,
    /// The states that the kernel's socket table showed, by side.
    pub(crate) shown: [Vec<String>; 2],
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    Sent(usize, Segment),
    Turned {
        side: usize,
        state: String,
        cause: String,
        seen: bool,
    },
    Did,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Segment {
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) ack: bool,
    pub(crate) seq: u32,
    pub(crate) acknowledges: u32,
    pub(crate) length: u32,
    pub(crate) dropped: bool,
    pub(crate) late: bool,
}

/// The state of a side without a socket.
pub(crate) const GONE: &str = "gone";

/// Returns the figures of a lesson, which are in the order of its pictures.
pub(crate) fn figures(lesson: &Value) -> Vec<Figure> {
    let pictures = lesson["pictures"].as_array().expect("pictures");
    let ladders = pictures.iter().filter_map(|it| it.get("ladder"));
    ladders.map(figure).collect()
}

fn figure(ladder: &Value) -> Figure {
    let moments = ladder["moments"].as_array().expect("moments");
    let mut shown = <[Vec<String>; 2]>::default();
    for it in ladder["shown"].as_array().expect("shown states") {
        shown[side(&it["side"])].push(state(&it["state"]));
    }
    Figure {
        title: ladder["title"].as_str().expect("a title").to_owned(),
        moments: moments.iter().map(|it| moment(&it["what"])).collect(),
        shown,
    }
}

fn moment(what: &Value) -> Moment {
    if let Some(sent) = what.get("sent") {
        Moment::Sent(side(&sent["from"]), segment(&sent["segment"]))
    } else if let Some(turned) = what.get("turned") {
        Moment::Turned {
            side: side(&turned["side"]),
            state: state(&turned["state"]),
            cause: turned["cause"].as_str().expect("a cause").to_owned(),
            seen: turned["seen"].as_bool().expect("whether it was seen"),
        }
    } else {
        assert!(what.get("did").is_some(), "{what}");
        Moment::Did
    }
}

fn side(value: &Value) -> usize {
    match value.as_str() {
        Some("client") => 0,
        Some("server") => 1,
        _ => panic!("a side: {value}"),
    }
}

fn state(value: &Value) -> String {
    value.as_str().unwrap_or(GONE).to_owned()
}

fn segment(value: &Value) -> Segment {
    let flag = |name: &str| value[name].as_bool().expect("a flag");
    let number = |name: &str| {
        let number = value[name].as_u64().expect("a number");
        u32::try_from(number).expect("32 bits")
    };
    Segment {
        syn: flag("syn"),
        fin: flag("fin"),
        rst: flag("rst"),
        ack: flag("ack"),
        seq: number("seq"),
        acknowledges: number("acknowledges"),
        length: number("length"),
        dropped: flag("dropped"),
        late: flag("late"),
    }
}

impl Segment {
    /// Returns the number after it.
    pub(crate) fn end(self) -> u32 {
        let flags = u32::from(self.syn) + u32::from(self.fin);
        self.seq.wrapping_add(self.length + flags)
    }
}
