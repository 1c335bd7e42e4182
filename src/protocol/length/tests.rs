use super::*;

const MAX: usize = 8 << 20;

#[track_caller]
pub(super) fn prefix(width: usize) -> LengthPrefix {
    LengthPrefix::new(width).expect("a width")
}

/// A length of four bytes that counts itself.
pub(super) fn of_all() -> LengthPrefix {
    prefix(4).adjust(-4)
}

fn too_long(announced: u64, max: usize) -> Split {
    Split::Refused(Refusal::TooLong {
        announced: Some(announced),
        max,
    })
}

#[test]
fn integers_have_one_to_eight_bytes() {
    for width in 1..=8 {
        assert!(LengthPrefix::new(width).is_ok(), "{width}");
    }
    for width in [0, 9, 16, 257, usize::MAX] {
        let error = LengthPrefix::new(width).expect_err("no integer");
        assert_eq!(
            error.to_string(),
            format!("the length prefix has a width of {width} bytes, 1 to 8 are allowed")
        );
    }
}

#[test]
fn a_message_begins_with_its_prefix() {
    assert_eq!(
        prefix(1).split(b"\x02hi\x03", MAX),
        Split::Message { len: 3 }
    );
    assert_eq!(
        prefix(2).split(b"\0\x02hi\0", MAX),
        Split::Message { len: 4 }
    );
    assert_eq!(
        prefix(3).split(b"\0\0\x02hi\0", MAX),
        Split::Message { len: 5 }
    );
    assert_eq!(
        prefix(4).split(b"\0\0\0\x02hi", MAX),
        Split::Message { len: 6 }
    );
    assert_eq!(
        prefix(8).split(b"\0\0\0\0\0\0\0\x02hi", MAX),
        Split::Message { len: 10 }
    );
}

#[test]
fn every_width_reads_both_byte_orders() {
    let bytes = b"\x01\x02\x03\x04\x05\x06\x07\x08";
    for (width, big, little) in [
        (1, 0x01, 0x01),
        (2, 0x0102, 0x0201),
        (3, 0x01_0203, 0x03_0201),
        (4, 0x0102_0304, 0x0403_0201),
        (5, 0x01_0203_0405, 0x05_0403_0201),
        (6, 0x0102_0304_0506, 0x0605_0403_0201),
        (7, 0x01_0203_0405_0607, 0x07_0605_0403_0201),
        (8, 0x0102_0304_0506_0708, 0x0807_0605_0403_0201),
    ] {
        let of = |order| prefix(width).order(order).split(bytes, 0);
        let prefix = width as u64;
        assert_eq!(of(ByteOrder::Big), too_long(prefix + big, 0), "{width}");
        assert_eq!(
            of(ByteOrder::Little),
            too_long(prefix + little, 0),
            "{width}"
        );
    }
}

#[test]
fn an_incomplete_prefix_announces_no_length() {
    for len in 1..7 {
        assert_eq!(
            prefix(4).offset(3).split(&[0; 7][..len], MAX),
            Split::Partial { needed: None },
            "{len}"
        );
    }
}

#[test]
fn a_complete_prefix_announces_the_length() {
    assert_eq!(
        prefix(2).split(b"\0\x05hi", MAX),
        Split::Partial { needed: Some(7) }
    );
}

#[test]
fn an_empty_body_is_a_message() {
    assert_eq!(prefix(2).split(b"\0\0", MAX), Split::Message { len: 2 });
    assert_eq!(
        of_all().split(b"\0\0\0\x04", MAX),
        Split::Message { len: 4 }
    );
}

#[test]
fn the_length_may_be_inside_a_header() {
    // PostgreSQL: a query of 8 bytes, its type not counted.
    let postgres = prefix(4).offset(1).adjust(-4);
    let query = b"Q\0\0\0\x0cSELECT 1";
    assert_eq!(query[5..].len() + 4, 12);
    assert_eq!(postgres.split(query, MAX), Split::Message { len: 13 });
    assert_eq!(
        postgres.split(&query[..9], MAX),
        Split::Partial { needed: Some(13) }
    );
    // HTTP/2: a PING has a payload of 8 bytes, behind 9 of the header.
    let http2 = prefix(3).adjust(6);
    let ping = b"\0\0\x08\x06\0\0\0\0\0pingpingPRI";
    assert_eq!(http2.split(ping, MAX), Split::Message { len: 17 });
}

#[test]
fn a_length_smaller_than_the_bytes_it_counts_is_refused() {
    for width in 1..=8 {
        let prefix = prefix(width).order(ByteOrder::Little);
        let of_all = prefix.adjust(prefix.counts_all());
        let smallest = width as u64;
        for announced in 0..smallest {
            let bytes = [announced as u8, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(
                of_all.split(&bytes, MAX),
                Split::Refused(Refusal::BadLength {
                    announced,
                    smallest
                })
            );
        }
    }
}

#[test]
fn no_length_and_no_adjustment_overflows() {
    let largest = [0xff; 8];
    for adjust in [0, 1, i64::MAX] {
        let split = prefix(8).adjust(adjust).split(&largest, MAX);
        assert_eq!(split, too_long(u64::MAX, MAX), "{adjust}");
    }
    assert_eq!(
        prefix(8).adjust(i64::MIN).split(&largest, MAX),
        too_long((1 << 63) - 1 + 8, MAX)
    );
    assert_eq!(
        prefix(8).adjust(i64::MIN).split(&[0; 8], MAX),
        Split::Refused(Refusal::BadLength {
            announced: 0,
            smallest: 1 << 63
        })
    );
    let far = prefix(8).offset(u32::MAX);
    assert_eq!(far.split(&largest, MAX), Split::too_long(MAX));
    assert_eq!(
        far.split(&largest, 1 << 33),
        Split::Partial { needed: None }
    );
}

#[test]
fn the_maximum_counts_the_prefix() {
    assert_eq!(prefix(2).split(b"\0\x03abc", 5), Split::Message { len: 5 });
    assert_eq!(
        prefix(2).split(b"\0\x04abcd", 5),
        too_long(6, 5),
        "though all of it is there"
    );
}

#[test]
fn a_message_too_long_is_refused_by_its_prefix_alone() {
    let bytes = b"\xff\xff\xff\xff";
    assert_eq!(prefix(4).split(bytes, MAX), too_long((1 << 32) + 3, MAX));
    assert_eq!(of_all().split(bytes, MAX), too_long((1 << 32) - 1, MAX));
}

#[test]
fn a_prefix_longer_than_the_maximum_refuses_the_first_byte() {
    for prefix in [prefix(4), prefix(2).offset(2), prefix(1).offset(3)] {
        assert_eq!(prefix.split(b"\0", 4), Split::Partial { needed: None });
        assert_eq!(prefix.split(b"\0", 3), Split::too_long(3));
    }
}
