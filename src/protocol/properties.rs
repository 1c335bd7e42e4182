//! Properties of all protocols for any bytes, tried with random ones. A failure shows the smallest case
//! found.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::wire::{Length, Wire, read, varint};
use super::*;

const MAX: usize = 128;

fn orders() -> impl Strategy<Value = ByteOrder> {
    select(vec![ByteOrder::Big, ByteOrder::Little])
}

fn lengths() -> impl Strategy<Value = Length> {
    (0..6_u32, 1..=8_usize, orders(), -20..20_i64).prop_map(|(offset, width, order, adjust)| {
        Length {
            offset,
            width,
            order,
            adjust,
        }
    })
}

/// Every protocol but raw, which has a property of its own.
fn framings() -> impl Strategy<Value = Wire> {
    prop_oneof![
        vec(select(b"ab\n".to_vec()), 1..5).prop_map(Wire::Delimiter),
        lengths().prop_map(Wire::Length),
        Just(Wire::Varint),
    ]
}

/// Bytes with a meaning in some protocol, and any others.
fn bytes(longest: usize) -> impl Strategy<Value = Vec<u8>> {
    let telling = b"\0\x01\x02\x03\x05\x7f\x80\x81\xfe\xffab\r\n".to_vec();
    vec(
        prop_oneof![4 => select(telling), 1 => any::<u8>()],
        0..longest,
    )
}

/// Pieces of `bytes`, of any lengths.
fn cut<'a>(bytes: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect()
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..40)
}

proptest! {
    #[test]
    fn any_cuts_of_a_long_stream_give_the_same_messages(
        wire in framings(),
        bodies in vec(bytes(50), 0..30),
        cuts in cuts(),
    ) {
        let messages: Vec<Vec<u8>> = bodies.iter().map(|body| wire.framed(body)).collect();
        let stream = messages.concat();
        let reading = read(&wire.protocol(), cut(&stream, &cuts), MAX);
        prop_assert_eq!(reading.messages, messages);
        prop_assert_eq!(reading.left, b"");
        prop_assert!(!reading.refused);
    }

    #[test]
    fn raw_loses_and_adds_nothing(stream in bytes(2000), cuts in cuts()) {
        let reading = read(&Protocol::raw(), cut(&stream, &cuts), MAX);
        prop_assert!(reading.messages.iter().all(|message| (1..=MAX).contains(&message.len())));
        prop_assert_eq!(reading.messages.concat(), stream);
    }

    #[test]
    fn no_message_is_longer_than_the_maximum_or_than_the_bytes(
        wire in prop_oneof![1 => Just(Wire::Raw), 5 => framings()],
        bytes in bytes(40),
        seen in prop_oneof![0..50_usize, any::<usize>()],
        max in prop_oneof![0..40_usize, Just(usize::MAX)],
    ) {
        let protocol = wire.protocol();
        match protocol.split(&bytes, seen, max) {
            Split::Message { len } => prop_assert!((1..=max.min(bytes.len())).contains(&len)),
            Split::Partial { needed } => {
                prop_assert!(bytes.is_empty() || bytes.len() < max);
                prop_assert!(needed.is_none_or(|needed| needed > bytes.len() && needed <= max));
            }
            Split::Refused(_) => {}
        }
    }

    /// The first of the two searches each byte once, the other all of them from the beginning.
    #[test]
    fn a_search_that_is_resumed_finds_what_one_from_the_beginning_finds(
        wire in framings(),
        stream in bytes(200),
        cuts in cuts(),
        max in 0..MAX,
    ) {
        let protocol = wire.protocol();
        let resumed = read(&protocol, cut(&stream, &cuts), max);
        let afresh = read(&protocol, [stream.as_slice()], max);
        prop_assert_eq!(resumed, afresh);
    }

    #[test]
    fn a_length_is_read_as_defined(
        offset in 0..12_u32,
        width in 1..=8_usize,
        order in orders(),
        adjust in prop_oneof![-300..300_i64, any::<i64>(), Just(i64::MIN), Just(i64::MAX)],
        bytes in bytes(30),
        max in prop_oneof![0..40_usize, any::<usize>().prop_map(|max| max >> 2)],
    ) {
        let length = Length { offset, width, order, adjust };
        let protocol = Protocol::length_prefix(length.prefix());
        if !bytes.is_empty() {
            prop_assert_eq!(protocol.split(&bytes, 0, max), length.defined(&bytes, max));
        }
        prop_assert_eq!(protocol.to_string().parse(), Ok(protocol));
    }

    #[test]
    fn every_number_has_one_varint(
        number in any::<u64>().prop_flat_map(|number| (0..64).prop_map(move |bits| number >> bits)),
        bytes in vec(prop_oneof![Just(0), Just(1), Just(0x80), any::<u8>()], 1..12),
    ) {
        let protocol = Protocol::varint();
        let spelled = varint(number);
        let total = number.saturating_add(spelled.len() as u64);
        prop_assert_eq!(
            protocol.split(&spelled, 0, 0),
            Split::Refused(Refusal::TooLong { announced: Some(total), max: 0 }),
        );
        // Any accepted bytes are those that a writer would have written.
        if let Split::Message { len } = protocol.split(&bytes, 0, MAX) {
            let prefix = 1 + bytes.iter().take_while(|byte| **byte >= 0x80).count();
            prop_assert_eq!(&bytes[..prefix], varint((len - prefix) as u64));
        }
    }

    #[test]
    fn a_delimiter_survives_being_written_and_read(bytes in vec(any::<u8>(), 1..=256)) {
        let protocol = Protocol::delimiter(bytes).expect("a delimiter");
        prop_assert!(protocol.to_string().is_ascii());
        prop_assert_eq!(protocol.to_string().parse(), Ok(protocol));
    }
}
