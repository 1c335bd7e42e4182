//! What is said on one connection: messages that name their connection and their number, and how an answer that is another
//! one is told to be lost, duplicated or corrupt.
//!
//! A message begins with its length, so that it suits a server that cuts bytes into messages as well as one that does not.

use std::sync::LazyLock;

use crate::common::traffic::{pattern, scramble};

/// The length of what follows in 4 bytes, big endian; the connection in 4; the message's number in 8.
pub(crate) const HEADER: usize = 16;

/// Where the body of a message may begin in the noise, and how long it may be.
const BEGINNINGS: u64 = 1 << 20;
const LONGEST: usize = 4 << 20;

/// Bodies are cut from this, each from another place. It does not repeat, so that a byte that is missing, doubled or out of
/// its place shows.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(1, (1 << 20) + LONGEST));

/// All messages of one connection. An echo is right when it is the same bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speech {
    pub(crate) connection: u32,
    /// Of each message, in bytes.
    pub(crate) size: usize,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    /// The one after it, or a later one, stands in its place.
    Skipped {
        by: u64,
    },
    Duplicated,
    Corrupt,
}

impl Speech {
    pub(crate) fn new(connection: u32, size: usize) -> Self {
        assert!((HEADER..HEADER + LONGEST).contains(&size), "{size} bytes");
        Self { connection, size }
    }

    fn header(&self, number: u64) -> [u8; HEADER] {
        let rest = u32::try_from(self.size - 4).expect("a message is short");
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&rest.to_be_bytes());
        header[4..8].copy_from_slice(&self.connection.to_le_bytes());
        header[8..].copy_from_slice(&number.to_le_bytes());
        header
    }

    fn body(&self, number: u64) -> &'static [u8] {
        let dice = scramble((u64::from(self.connection) << 32) ^ number);
        let begin = usize::try_from(dice % BEGINNINGS).unwrap_or(0);
        &NOISE[begin..begin + self.size - HEADER]
    }

    /// Appends a message.
    pub(crate) fn say(&self, number: u64, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.header(number));
        to.extend_from_slice(self.body(number));
    }

    /// Compares what came with what should have come behind the first `heard` bytes, and moves `heard` on. Returns how many
    /// bytes it took: the rest is a part of a header, which can't be told apart yet.
    pub(crate) fn judge(&self, heard: &mut u64, came: &[u8]) -> Result<usize, Wrong> {
        let size = self.size as u64;
        let mut taken = 0;
        while taken < came.len() {
            let rest = &came[taken..];
            let number = *heard / size;
            let at = usize::try_from(*heard % size).unwrap_or(0);
            let right = if at == 0 {
                let Some(header) = rest.first_chunk::<HEADER>() else {
                    break;
                };
                self.judge_header(number, header)?;
                HEADER
            } else {
                let body = &self.body(number)[at - HEADER..];
                let length = body.len().min(rest.len());
                if body[..length] != rest[..length] {
                    return Err(Wrong::Corrupt);
                }
                length
            };
            taken += right;
            *heard += right as u64;
        }
        Ok(taken)
    }

    fn judge_header(&self, expected: u64, came: &[u8; HEADER]) -> Result<(), Wrong> {
        let mut number = [0; 8];
        number.copy_from_slice(&came[8..]);
        let number = u64::from_le_bytes(number);
        match number {
            _ if *came != self.header(number) => Err(Wrong::Corrupt),
            _ if number > expected => Err(Wrong::Skipped {
                by: number - expected,
            }),
            _ if number < expected => Err(Wrong::Duplicated),
            _ => Ok(()),
        }
    }
}

/// What the clients would call each kind of wrong answer. Checked before anything is asked, for this target has no test
/// harness: who can't see an error must not say that there was none.
pub(crate) fn tells_wrong_answers_apart() {
    let speech = Speech::new(7, 100);
    let mut said = Vec::new();
    (0..3).for_each(|number| speech.say(number, &mut said));
    let judge = |came: &[u8]| speech.judge(&mut 0, came);
    let (first, second, third) = (&said[..100], &said[100..200], &said[200..]);

    assert_eq!(judge(&said), Ok(300));
    assert_eq!(judge(&said[..110]), Ok(100), "half a header is not judged");
    assert_eq!(judge(&[first, first].concat()), Err(Wrong::Duplicated));
    assert_eq!(judge(second), Err(Wrong::Skipped { by: 1 }));
    assert_eq!(judge(third), Err(Wrong::Skipped { by: 2 }));
    assert_eq!(
        judge(&[&first[..50], second].concat()),
        Err(Wrong::Corrupt),
        "torn"
    );
    for at in [0, 5, 15, 16, 99] {
        let mut broken = first.to_vec();
        broken[at] ^= 1;
        assert!(judge(&broken).is_err(), "byte {at}");
    }
    let mut of_another = Vec::new();
    Speech::new(8, 100).say(0, &mut of_another);
    assert_eq!(judge(&of_another), Err(Wrong::Corrupt));
}
