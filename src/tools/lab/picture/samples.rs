//! Sample pictures, to look at and for tests: usual ones, and extreme ones.
//! `TINE_PICTURES=FOLDER cargo test --lib lab::picture::samples` writes them into a folder.

use super::*;

fn at(seconds: f64, what: What) -> Moment {
    Moment {
        at: Duration::from_secs_f64(seconds),
        what,
    }
}

/// A side turns to a state, by the segment before.
fn turned(seconds: f64, side: Side, state: impl Into<Option<State>>) -> Moment {
    turn(seconds, side, state.into(), Cause::Segment, true)
}

/// The same, and the socket table did not show it.
fn implied(seconds: f64, side: Side, state: State) -> Moment {
    turn(seconds, side, Some(state), Cause::Segment, false)
}

fn turn(seconds: f64, side: Side, state: Option<State>, cause: Cause, seen: bool) -> Moment {
    let what = What::Turned {
        side,
        state,
        cause,
        seen,
    };
    at(seconds, what)
}

fn did(seconds: f64, side: impl Into<Option<Side>>, text: &str) -> Moment {
    let (side, text) = (side.into(), text.to_owned());
    at(seconds, What::Did { side, text })
}

/// Reads `FA` as FIN and ACK, `x` as dropped, a number as bytes.
fn sent(seconds: f64, from: Side, what: &str) -> Moment {
    let digits: String = what.chars().filter(char::is_ascii_digit).collect();
    let segment = Segment {
        syn: what.contains('S'),
        fin: what.contains('F'),
        rst: what.contains('R'),
        ack: what.contains('A'),
        length: digits.parse().unwrap_or(0),
        dropped: what.contains('x'),
        ..Segment::default()
    };
    at(seconds, What::Sent { from, segment })
}

fn ladder(title: &str, captured: bool, moments: Vec<Moment>) -> Picture {
    Picture::Ladder(Ladder {
        title: title.to_owned(),
        sides: [
            ("client[4711]".to_owned(), "127.0.0.1:50158".to_owned()),
            ("master[4712]".to_owned(), "127.0.0.1:9501".to_owned()),
        ],
        moments,
        shown: Vec::new(),
        captured,
    })
}

use Side::{Client, Server};
use State::{
    CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent, TimeWait,
};

fn handshake() -> Vec<Moment> {
    vec![
        sent(0.0, Client, "S"),
        implied(0.0, Client, SynSent),
        implied(0.0, Server, SynRecv),
        sent(0.000_02, Server, "SA"),
        turned(0.000_02, Client, Established),
        sent(0.000_04, Client, "A"),
        turned(0.000_04, Server, Established),
    ]
}

fn orderly(captured: bool) -> Picture {
    let mut moments = handshake();
    moments.extend([
        did(0.002, None, "the server's socket drops every segment"),
        did(0.003, Client, "closes its side"),
        sent(0.003, Client, "FAx"),
        turned(0.003, Client, FinWait1),
        sent(0.207, Client, "FAx"),
        sent(0.415, Client, "FAx"),
        did(0.6, None, "the server's socket receives again"),
        sent(0.831, Client, "FA"),
        implied(0.831, Server, CloseWait),
        sent(0.831, Server, "A"),
        turned(0.831, Client, FinWait2),
        did(1.9, None, "the client's socket drops every segment"),
        did(2.0, Server, "closes"),
        sent(2.0, Server, "FAx"),
        turned(2.0, Server, LastAck),
        sent(2.21, Server, "FA"),
        turned(2.21, Client, TimeWait),
        sent(2.21, Client, "A"),
        turned(2.21, Server, None),
    ]);
    ladder("Every state of a close, held still", captured, moments)
}

fn at_once() -> Picture {
    let mut moments = handshake();
    moments.extend([
        did(0.003, Client, "closes its side"),
        sent(0.003, Client, "FAx"),
        turned(0.003, Client, FinWait1),
        did(0.003_1, Server, "closes its side"),
        sent(0.003_1, Server, "FAx"),
        turned(0.003_1, Server, FinWait1),
        sent(0.209_4, Server, "FAx"),
        sent(0.209_5, Client, "FA"),
        turned(0.209_5, Server, Closing),
        sent(0.209_5, Server, "Ax"),
        sent(0.417_4, Server, "FA"),
        turned(0.417_4, Client, TimeWait),
        sent(0.417_4, Client, "A"),
        turned(0.417_4, Server, TimeWait),
    ]);
    ladder("Both sides close at once", true, moments)
}

fn reset() -> Picture {
    let mut moments = handshake();
    moments.extend([
        did(0.01, Client, "sends 9 bytes"),
        sent(0.010_1, Client, "9A"),
        sent(0.010_1, Server, "A"),
        did(0.06, Server, "closes, with 9 bytes unread"),
        sent(0.060_1, Server, "RA"),
        turned(0.060_1, Server, None),
        turned(0.060_1, Client, None),
    ]);
    ladder("Closed with unread bytes: RST", true, moments)
}

fn full_queue() -> Picture {
    let moments = vec![
        did(
            0.0,
            Client,
            "connects, while the queue of the listener is full",
        ),
        sent(0.000_1, Client, "Sx"),
        turned(0.000_1, Client, SynSent),
        sent(1.02, Client, "Sx"),
        did(1.5, Server, "accepts one: there is room in its queue"),
        sent(2.04, Client, "S"),
        implied(2.04, Server, SynRecv),
        sent(2.04, Server, "SA"),
        turned(2.04, Client, Established),
        sent(2.04, Client, "A"),
        turned(2.04, Server, Established),
        did(2.05, Client, "sends a request"),
        sent(2.05, Client, "22A"),
        sent(2.05, Server, "A"),
    ];
    ladder("A connect that takes two seconds", true, moments)
}

fn leak() -> Picture {
    let mut moments = handshake();
    moments.extend([
        did(0.05, Client, "closes"),
        sent(0.05, Client, "FA"),
        turned(0.05, Server, CloseWait),
        sent(0.05, Server, "A"),
        turned(0.05, Client, FinWait2),
        did(0.06, Server, "its close callback blocks"),
        turn(60.07, Client, None, Cause::Timer, true),
        did(60.1, None, "a minute later only the server still has it"),
    ]);
    ladder("A leak: CLOSE_WAIT does not end", true, moments)
}

/// All moments at one time, and texts that are too long.
fn crowded() -> Picture {
    let long =
        "opens /a/path/that/is/longer/than/the/column/is/wide, reads <it> & \"closes\" it again";
    let mut moments = Vec::new();
    for number in 0..3 {
        moments.extend([
            did(0.0, Client, long),
            did(0.0, Server, "waits"),
            did(0.0, Server, long),
            sent(0.0, Server, "SFRA123456"),
            sent(0.0, Client, "x"),
            turned(0.0, Client, SynSent),
            turned(0.0, Client, Established),
            turned(0.0, Client, CloseWait),
            turned(0.0, Server, LastAck),
            turned(0.0, Server, None),
            did(0.0, None, long),
            did(f64::from(number), None, long),
        ]);
    }
    // Time does not run backwards.
    moments.sort_by_key(|moment| moment.at);
    let Picture::Ladder(mut ladder) = ladder(&format!("Crowded: {long}, {long}"), false, moments)
    else {
        unreachable!("it is one");
    };
    ladder.sides[1].0 = long.to_owned();
    ladder.sides[0].1 = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".to_owned();
    Picture::Ladder(ladder)
}

pub(super) fn ladders() -> Vec<(&'static str, Picture)> {
    vec![
        ("orderly", orderly(true)),
        ("inferred", orderly(false)),
        ("at-once", at_once()),
        ("reset", reset()),
        ("full-queue", full_queue()),
        ("leak", leak()),
        ("crowded", crowded()),
    ]
}

fn series(name: &str, style: Style, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
    Series {
        name: name.to_owned(),
        style,
        points: points.into_iter().collect(),
    }
}

fn queue() -> Picture {
    let base = (0..60).map(|it| (f64::from(it) * 0.1, f64::from((it / 4).min(5))));
    let process = (0..60).map(|it| (f64::from(it) * 0.1, f64::from(u8::from(it % 17 == 3))));
    Picture::Chart(Chart {
        title: "Connections that wait to be accepted, while the only worker is blocked".to_owned(),
        x: "seconds".to_owned(),
        y: "accept queue".to_owned(),
        series: vec![
            series(
                "base mode",
                Style::Steps,
                base.chain([(6.0, 0.0), (7.0, 0.0)]),
            ),
            series("process mode", Style::Steps, process.chain([(7.0, 0.0)])),
        ],
        levels: vec![(5.0, "full: backlog 4 + 1".to_owned())],
        marks: vec![
            (6.0, "the worker goes on".to_owned()),
            (6.2, "another one, too".to_owned()),
        ],
    })
}

fn staircase() -> Picture {
    let slow = (0..40).map(|it| {
        let begin = f64::from(it) * 0.15;
        let wait = if it < 5 {
            0.0004
        } else {
            (6.2 - begin).ceil().max(0.0)
        };
        (begin, wait)
    });
    let fast = (0..40).map(|it| (f64::from(it) * 0.15, 0.000_5));
    Picture::Chart(Chart {
        title: "Duration of connect(), by the time of the call".to_owned(),
        x: "seconds".to_owned(),
        y: "connect time, seconds".to_owned(),
        series: vec![
            series("base mode", Style::Points, slow),
            series("process mode", Style::Points, fast),
        ],
        levels: Vec::new(),
        marks: Vec::new(),
    })
}

fn empty() -> Picture {
    Picture::Chart(Chart {
        title: "<Nothing> & no \"numbers\"\u{1b}".to_owned(),
        x: String::new(),
        y: String::new(),
        series: vec![series("<&>", Style::Steps, [(f64::NAN, f64::INFINITY)])],
        levels: Vec::new(),
        marks: Vec::new(),
    })
}

pub(super) fn charts() -> Vec<(&'static str, Picture)> {
    vec![
        ("queue", queue()),
        ("staircase", staircase()),
        ("empty", empty()),
    ]
}

pub(in crate::lab) fn all() -> Vec<(&'static str, Picture)> {
    ladders().into_iter().chain(charts()).collect()
}

#[test]
fn the_samples_can_be_written_to_files() {
    let Some(folder) = std::env::var_os("TINE_PICTURES") else {
        return;
    };
    let folder = std::path::Path::new(&folder);
    for (name, picture) in all() {
        std::fs::write(
            folder.join(name).with_extension("svg"),
            picture.within_page(),
        )
        .expect("a file");
    }
    let pictures: Vec<Picture> = all().into_iter().map(|it| it.1).collect();
    std::fs::write(folder.join("stack.svg"), stack(&pictures)).expect("a file");
}

/// Returns the text elements of a picture.
fn texts(svg: &str) -> String {
    let document = roxmltree::Document::parse(svg).expect("XML");
    let texts = document
        .descendants()
        .filter(|node| node.has_tag_name("text"));
    let mut said = String::new();
    for text in texts {
        said += text.text().unwrap_or_default().trim();
        said += "\n";
    }
    said
}

#[test]
fn each_picture_is_a_well_formed_document_with_its_title() {
    for (name, picture) in all() {
        let svg = picture.within_page();
        let document = roxmltree::Document::parse(&svg).expect(name);
        let root = document.root_element();
        assert!(
            root.has_tag_name(("http://www.w3.org/2000/svg", "svg")),
            "{name}"
        );
        assert_eq!(root.attribute("role"), Some("img"), "{name}");
        let title = root.first_element_child().and_then(|it| it.text());
        assert_eq!(
            title.map(str::trim),
            Some(sheet::clean(picture.title()).as_str())
        );
    }
}

#[test]
fn a_picture_is_drawn_the_same_each_time() {
    for (name, picture) in all() {
        assert_eq!(picture.within_page(), picture.within_page(), "{name}");
    }
}

#[test]
fn texts_are_shown_unchanged() {
    assert!(texts(&empty().within_page()).contains("<Nothing> & no \"numbers\"\u{fffd}"));
    assert!(texts(&crowded().within_page()).contains("reads <it> &"));
}

#[test]
fn a_stack_holds_every_picture() {
    let pictures: Vec<Picture> = all().into_iter().map(|it| it.1).collect();
    let svg = stack(&pictures);
    let document = roxmltree::Document::parse(&svg).expect("XML");
    let inner = document
        .descendants()
        .filter(|node| node.has_tag_name("svg"));
    assert_eq!(inner.count(), 1 + pictures.len());
    assert!(roxmltree::Document::parse(&stack(&[])).is_ok());
}
