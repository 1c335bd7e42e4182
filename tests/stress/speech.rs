//! The messages of one connection, each with its connection and number, and the check that tells lost, duplicate and corrupt
//! answers apart.
//!
//! A message begins with its length, so that it suits a server that cuts bytes into messages as well as one that does not.

use std::sync::LazyLock;

use crate::common::traffic::{pattern, scramble};

/// The length of the rest in 4 bytes, big endian; the connection in 4; the message's number in 8.
pub(crate) const HEADER: usize = 16;

/// The last begin of a body in the noise, and the longest body.
const BEGINNINGS: u64 = 1 << 20;
const LONGEST: usize = 4 << 20;

/// The source of bodies, each from another place. It does not repeat, so that a missing, doubled or misplaced byte shows.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(1, (1 << 20) + LONGEST));

/// All messages of one connection. An echo is right if its bytes are the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speech {
    pub(crate) connection: u32,
    /// The length of each message, in bytes.
    pub(crate) size: usize,
}

/// The error in an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wrong {
    /// A later answer is in its place.
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

    /// Compares received bytes with the expected ones after the first `heard` bytes, and advances `heard`. Returns how many
    /// bytes it took: the rest is part of a header, which can't be checked yet.
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

/// Checks that the clients detect each kind of wrong answer. Called before any question, as this target has no test harness:
/// clients that can't see an error must not report that there was none.
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
