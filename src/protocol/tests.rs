//! Tests of all protocols.

use super::wire::{Length, Wire, read};
use super::*;

const MAX: usize = 64;

#[track_caller]
fn protocol(text: &str) -> Protocol {
    text.parse().expect(text)
}

fn every_wire() -> impl Iterator<Item = Wire> {
    let lengths = (1..=8).flat_map(|width| {
        [ByteOrder::Big, ByteOrder::Little]
            .into_iter()
            .flat_map(move |order| {
                // The length counts the body, the whole message, or the body without a header of three
                // bytes.
                let whole = -(width as i64);
                let places = [(0, 0), (0, whole), (0, 3), (2, 0), (2, whole - 2)];
                places.map(|(offset, adjust)| Length {
                    offset,
                    width,
                    order,
                    adjust,
                })
            })
    });
    let delimiters = [&b"\n"[..], b"\r\n", b"aab"].map(|end| Wire::Delimiter(end.to_vec()));
    [Wire::Raw, Wire::Varint]
        .into_iter()
        .chain(delimiters)
        .chain(lengths.map(Wire::Length))
}

fn every_protocol() -> impl Iterator<Item = Protocol> {
    every_wire().map(|wire| wire.protocol())
}

/// Cuts behind each byte for which `cut` says so.
fn pieces(bytes: &[u8], mut cut: impl FnMut() -> bool) -> Vec<&[u8]> {
    bytes.chunk_by(move |_, _| !cut()).collect()
}

/// Numbers that look random and are the same in each run (a linear congruential generator).
fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

#[test]
fn no_bytes_are_always_partial() {
    for protocol in every_protocol() {
        for max in [0, 1, MAX] {
            let split = protocol.split(b"", 0, max);
            assert_eq!(split, Split::Partial { needed: None }, "{protocol}");
        }
    }
}

#[test]
fn raw_takes_all_there_is_up_to_the_maximum() {
    assert_eq!(
        Protocol::raw().split(b"hello", 0, 64),
        Split::Message { len: 5 }
    );
    assert_eq!(
        Protocol::raw().split(b"hello", 0, 3),
        Split::Message { len: 3 }
    );
}

#[test]
fn a_reader_with_room_for_the_maximum_never_waits_for_more() {
    let mut number = numbers(1);
    for protocol in every_protocol() {
        for _ in 0..2000 {
            let max = number(8) as usize;
            let len = max.max(1) + number(3) as usize;
            let bytes: Vec<u8> = (0..len)
                .map(|_| b"\0\x01\x02ab\n"[number(6) as usize])
                .collect();
            match protocol.split(&bytes, 0, max) {
                Split::Message { len } => assert!((1..=max).contains(&len), "{protocol}"),
                Split::Partial { needed } => panic!("{protocol}: {bytes:?}, {max}: {needed:?}"),
                Split::Refused(_) => {}
            }
        }
    }
}

#[test]
fn all_cuts_of_a_short_stream_give_the_same_messages() {
    for wire in every_wire().filter(|wire| !matches!(wire, Wire::Raw)) {
        let messages = [wire.framed(b"a"), wire.framed(b"ba")];
        let stream = messages.concat();
        let protocol = wire.protocol();
        // Every way to cut the first eleven bytes.
        let places = (stream.len() - 1).min(11);
        for cuts in 0..1u32 << places {
            let mut bits = (0..stream.len()).map(|bit| cuts >> bit & 1 == 1);
            let pieces = pieces(&stream, || bits.next().expect("a bit for each byte"));
            let reading = read(&protocol, pieces, MAX);
            assert_eq!(reading.messages, messages, "{protocol}, {cuts:b}");
            assert_eq!(reading.left, b"", "{protocol}, {cuts:b}");
        }
    }
}

#[test]
fn a_protocol_survives_being_written_and_read() {
    for original in every_protocol() {
        assert_eq!(original.to_string().parse(), Ok(original));
    }
}

#[test]
fn a_constructor_and_its_text_are_the_same() {
    for (text, constructed) in [
        ("raw", Protocol::raw()),
        ("lines", Protocol::lines()),
        (r"delimiter=\n", Protocol::lines()),
        ("varint", Protocol::varint()),
    ] {
        assert_eq!(protocol(text), constructed);
    }
    assert_eq!(Protocol::lines().to_string(), "lines");
    let function = Protocol::function(|_, _| Found::More);
    assert_eq!(function.to_string(), "function");
    assert_eq!(function, function.clone());
    assert_ne!(function, Protocol::function(|_, _| Found::More));
}

#[test]
fn the_default_is_raw() {
    assert_eq!(Protocol::default(), protocol("raw"));
}

#[test]
fn the_error_for_a_text_that_is_no_protocol_names_the_allowed_ones() {
    for text in [
        "",
        "RAW",
        "raw=",
        "raw ",
        "delimiter",
        "length",
        "lines=",
        "varint=",
        "varints",
        "function",
        "lenght=4",
        "=raw",
    ] {
        let error = text.parse::<Protocol>().expect_err(text).to_string();
        assert_eq!(
            error,
            format!(
                "'{text}' is not a protocol, allowed are raw, lines, delimiter=TEXT, varint and \
                 length=1..8[,big|little][,body|all][,offset=N][,adjust=N]"
            )
        );
    }
}

#[test]
fn a_delimiter_text_has_the_same_limits() {
    let error = "delimiter=".parse::<Protocol>().expect_err("no bytes");
    assert_eq!(error, ProtocolError::EMPTY_DELIMITER.into());
    assert_eq!(
        error.to_string(),
        "the delimiter is empty, 1 to 256 bytes are allowed"
    );
    let long = format!("delimiter={}", r"\0".repeat(257));
    let error = long.parse::<Protocol>().expect_err("too many bytes");
    assert_eq!(
        error.to_string(),
        "the delimiter has 257 bytes, 1 to 256 are allowed"
    );
}

#[test]
fn a_delimiter_may_contain_characters_with_a_meaning_elsewhere() {
    let odd = Protocol::delimiter("=,big ").expect("a delimiter");
    assert_eq!(protocol("delimiter==,big "), odd);
}

#[test]
fn a_refusal_is_one_sentence() {
    let max = 8_388_608;
    for (refusal, sentence) in [
        (
            Refusal::TooLong {
                announced: Some(9_000_000),
                max,
            },
            "a message of 9000000 bytes is announced, 8388608 are allowed",
        ),
        (
            Refusal::TooLong {
                announced: None,
                max,
            },
            "a message is longer than the 8388608 bytes that are allowed",
        ),
        (
            Refusal::BadLength {
                announced: 3,
                smallest: 4,
            },
            "a length of 3 is announced, 4 is the smallest possible",
        ),
        (
            Refusal::BadVarint,
            "a varint has more than 64 bits, or more bytes than its number needs",
        ),
        (
            Refusal::ByFunction,
            "the protocol function has refused the bytes",
        ),
    ] {
        assert_eq!(refusal.to_string(), sentence);
    }
}
