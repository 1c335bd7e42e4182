//! Reads a figure back from its SVG: the segments from the letters that are turned, and the states from the columns.

use super::{Figure, GONE, Moment, Segment};

/// The parts of a figure that can be seen.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Drawn {
    /// From top to bottom: the side that sends it, its name, and whether it is dropped.
    segments: Vec<(usize, String, bool)>,
    /// By side, from top to bottom: the state, and whether it is drawn as seen.
    states: [Vec<(String, bool)>; 2],
}

impl Figure {
    /// Returns the parts that have to be seen.
    pub(crate) fn drawn(&self) -> Drawn {
        let mut drawn = Drawn::default();
        for moment in &self.moments {
            match moment {
                Moment::Did => {}
                Moment::Sent(side, segment) => {
                    drawn
                        .segments
                        .push((*side, name(*segment), segment.dropped));
                }
                Moment::Turned {
                    side, state, seen, ..
                } => {
                    // A line without a band is the same, seen or not.
                    drawn.states[*side].push((state.clone(), *seen || state == GONE));
                }
            }
        }
        drawn
    }
}

/// Returns the name that stands at the arrow of a segment.
fn name(it: Segment) -> String {
    let mut words = Vec::new();
    if it.syn {
        words.push("SYN".to_owned());
    }
    match it.length {
        0 => {}
        1 => words.push("1 byte".to_owned()),
        bytes => words.push(format!("{bytes} bytes")),
    }
    words.extend(it.fin.then(|| "FIN".to_owned()));
    words.extend(it.rst.then(|| "RST".to_owned()));
    words.extend((it.ack && it.length == 0).then(|| "ACK".to_owned()));
    words.extend(it.late.then(|| "late".to_owned()));
    words.join(", ")
}

const STATES: [&str; 9] = [
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "CLOSE_WAIT",
    "CLOSING",
    "LAST_ACK",
    "TIME_WAIT",
];

/// Reads the figure with that title from a picture.
pub(crate) fn drawn(svg: &str, title: &str) -> Drawn {
    let document = roxmltree::Document::parse(svg).expect("XML");
    let is_it = |node: &roxmltree::Node<'_, '_>| node.attribute("aria-label") == Some(title);
    let mut figures = document.descendants().filter(is_it);
    let figure = figures.next().expect("the figure");
    assert!(figures.next().is_none(), "{title}: two figures");
    let mut texts: Vec<_> = figure
        .descendants()
        .filter(|node| node.has_tag_name("text"))
        .collect();
    let number = |node: &roxmltree::Node<'_, '_>, name: &str| -> f64 {
        let value = node.attribute(name).expect("an attribute");
        value.parse().expect("a number")
    };
    texts.sort_by(|one, other| number(one, "y").total_cmp(&number(other, "y")));
    let mut drawn = Drawn::default();
    for text in texts {
        let said = text.text().unwrap_or_default().trim();
        if let Some(turn) = text.attribute("transform") {
            // It falls to the side at which it arrives.
            let falls_left = turn.starts_with("rotate(-");
            let is_lost = text.attribute("fill") == Some("#b3001b");
            drawn
                .segments
                .push((usize::from(falls_left), said.to_owned(), is_lost));
            continue;
        }
        let side = usize::from(text.attribute("text-anchor") == Some("start"));
        let is_italic = text.attribute("font-style") == Some("italic");
        if STATES.contains(&said) {
            drawn.states[side].push((said.to_owned(), !is_italic));
        } else if is_italic && (said == GONE || said.starts_with("gone:")) {
            drawn.states[side].push((GONE.to_owned(), true));
        }
    }
    drawn
}
