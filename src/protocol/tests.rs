//! What holds for every protocol.

use super::*;

const MAX: usize = 64;

#[track_caller]
fn protocol(text: &str) -> Protocol {
    text.parse().expect(text)
}

fn every_protocol() -> impl Iterator<Item = Protocol> {
    let lengths = ["1", "2", "4"].into_iter().flat_map(|width| {
        ["big", "little"].into_iter().flat_map(move |order| {
            ["body", "all"].map(|counts| format!("length={width},{order},{counts}"))
        })
    });
    ["raw", r"delimiter=\n", r"delimiter=\r\n", "delimiter=aab"]
        .into_iter()
        .map(str::to_owned)
        .chain(lengths)
        .map(|text| protocol(&text))
}

/// `body` as one message of `protocol`; no delimiter may occur in it.
fn framed(protocol: &Protocol, body: &[u8]) -> Vec<u8> {
    let Protocol::Length(prefix) = protocol else {
        let end: &[u8] = match protocol {
            Protocol::Delimiter(delimiter) => delimiter.as_bytes(),
            Protocol::Raw | Protocol::Length(_) | Protocol::Function(_) => b"",
        };
        return [body, end].concat();
    };
    let text = prefix.to_string();
    let width: usize = text[..1].parse().expect("a width");
    let number = body.len() + if text.ends_with("all") { width } else { 0 };
    let number = u32::try_from(number).expect("a short body");
    let prefix = if text.contains("big") {
        number.to_be_bytes()[4 - width..].to_vec()
    } else {
        number.to_le_bytes()[..width].to_vec()
    };
    [&prefix, body].concat()
}

/// What a reader makes of bytes that arrive in pieces.
#[track_caller]
fn read<'a>(
    protocol: &Protocol,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    max: usize,
) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut unread = Vec::new();
    let mut seen = 0;
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            match protocol.split(&unread, seen, max) {
                Split::Message { len } => {
                    messages.push(unread.drain(..len).collect());
                    seen = 0;
                }
                Split::Partial { needed } => {
                    assert!(needed.is_none_or(|needed| needed > unread.len() && needed <= max));
                    seen = unread.len();
                    break;
                }
                Split::Refused(refusal) => panic!("{protocol}: {refusal}"),
            }
        }
    }
    assert_eq!(unread, b"", "{protocol}: bytes are left over");
    messages
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
        Protocol::Raw.split(b"hello", 0, 64),
        Split::Message { len: 5 }
    );
    assert_eq!(
        Protocol::Raw.split(b"hello", 0, 3),
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
    for protocol in every_protocol().filter(|protocol| *protocol != Protocol::Raw) {
        let messages = [
            framed(&protocol, b"a"),
            framed(&protocol, b""),
            framed(&protocol, b"ba"),
        ];
        let stream = messages.concat();
        for cuts in 0..1u32 << (stream.len() - 1) {
            let mut bits = (0..32).map(|bit| cuts >> bit & 1 == 1);
            let pieces = pieces(&stream, || bits.next().expect("a bit for each byte"));
            assert_eq!(
                read(&protocol, pieces, MAX),
                messages,
                "{protocol}, {cuts:b}"
            );
        }
    }
}

#[test]
fn any_cuts_of_a_long_stream_give_the_same_messages() {
    let mut number = numbers(2);
    for protocol in every_protocol().filter(|protocol| *protocol != Protocol::Raw) {
        for _ in 0..200 {
            let messages: Vec<Vec<u8>> = (0..number(30))
                .map(|_| {
                    // Letters that begin a delimiter, and none that ends one.
                    let body: Vec<u8> = (0..number(50))
                        .map(|_| b"a\rc"[number(3) as usize])
                        .collect();
                    framed(&protocol, &body)
                })
                .collect();
            let stream = messages.concat();
            let rarity = 1 + number(40);
            let pieces = pieces(&stream, || number(rarity) == 0);
            assert_eq!(read(&protocol, pieces, MAX), messages, "{protocol}");
        }
    }
}

#[test]
fn raw_loses_and_adds_nothing() {
    let stream: Vec<u8> = (0..=u8::MAX).cycle().take(3000).collect();
    let mut number = numbers(3);
    for rarity in 1..100 {
        let pieces = pieces(&stream, || number(rarity) == 0);
        let messages = read(&Protocol::Raw, pieces, MAX);
        assert!(
            messages
                .iter()
                .all(|message| (1..=MAX).contains(&message.len()))
        );
        assert_eq!(messages.concat(), stream);
    }
}

#[test]
fn a_protocol_survives_being_written_and_read() {
    for original in every_protocol() {
        assert_eq!(original.to_string().parse(), Ok(original));
    }
}

#[test]
fn the_default_is_raw() {
    assert_eq!(Protocol::default(), protocol("raw"));
}

#[test]
fn what_is_no_protocol_is_told_what_is_allowed() {
    for text in [
        "",
        "RAW",
        "raw=",
        "raw ",
        "delimiter",
        "length",
        "lenght=4",
        "=raw",
    ] {
        let error = text.parse::<Protocol>().expect_err(text).to_string();
        assert_eq!(
            error,
            format!(
                "'{text}' is not a protocol, allowed are raw, delimiter=TEXT and \
                 length=1|2|4[,big|little][,body|all]"
            )
        );
    }
}

#[test]
fn a_delimiter_text_is_held_to_the_same_limits() {
    let error = "delimiter=".parse::<Protocol>().expect_err("no bytes");
    assert_eq!(error, ProtocolError::EmptyDelimiter.into());
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
fn a_delimiter_may_contain_what_means_something_elsewhere() {
    let Protocol::Delimiter(delimiter) = protocol("delimiter==,big ") else {
        panic!("not a delimiter");
    };
    assert_eq!(delimiter.as_bytes(), b"=,big ");
}

#[test]
fn a_refusal_is_one_clear_sentence() {
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
            "a length of 3 is announced, but it counts its own prefix of 4 bytes",
        ),
    ] {
        assert_eq!(refusal.to_string(), sentence);
    }
}
