//! The outcome of the questions of many clients.

use std::fmt;
use std::io;
use std::time::Duration;

use super::speech::Wrong;

/// The most errors that are described in words.
const NOTES: usize = 10;

/// The promise: the four in the middle are 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    /// Questions without an answer on an open connection, or with a missing one in between.
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) corrupt: u64,
    /// Connections that ended while an answer was outstanding.
    pub(crate) dropped: u64,
    /// The longest time from a question to the end of its answer.
    pub(crate) longest_gap: Duration,
    /// Answers that were outstanding when the clients were told that the server is about to end.
    pub(crate) outstanding: u64,
    /// The first few errors, in words.
    pub(crate) notes: Vec<String>,
}

/// The error of a connection.
#[derive(Debug)]
pub(crate) enum Harm {
    Wrong(Wrong),
    /// No answer for too long.
    Late {
        owed: u64,
    },
    Dropped {
        owed: u64,
        /// `None` is the end of file.
        error: Option<io::Error>,
    },
    /// The end of the stream cut an answer in two.
    Torn {
        bytes: u64,
    },
    /// All was answered, and the connection stays open after our FIN.
    NotClosed,
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wrong(Wrong::Skipped { by }) => write!(f, "{by} answers are left out"),
            Self::Wrong(Wrong::Duplicated) => write!(f, "an answer comes twice"),
            Self::Wrong(Wrong::Corrupt) => write!(f, "an answer has other bytes than its question"),
            Self::Late { owed } => write!(f, "{owed} answers do not come"),
            Self::Dropped { owed, error: None } => {
                write!(f, "ended with {owed} answers outstanding")
            }
            Self::Dropped {
                owed,
                error: Some(error),
            } => write!(f, "ended with {owed} answers outstanding: {error}"),
            Self::Torn { bytes } => write!(f, "ended {bytes} bytes into an answer"),
            Self::NotClosed => write!(f, "not closed after its client's FIN"),
        }
    }
}

impl Tally {
    pub(crate) fn note(&mut self, connection: u32, harm: &Harm) {
        match harm {
            Harm::Wrong(Wrong::Skipped { by }) => self.lost += by,
            Harm::Late { owed } => self.lost += owed,
            Harm::Wrong(Wrong::Duplicated) => self.duplicated += 1,
            Harm::Wrong(Wrong::Corrupt) | Harm::Torn { .. } => self.corrupt += 1,
            Harm::Dropped { .. } => self.dropped += 1,
            Harm::NotClosed => {}
        }
        self.complain(format!("connection {connection}: {harm}"));
    }

    pub(crate) fn complain(&mut self, what: String) {
        if self.notes.len() < NOTES {
            self.notes.push(what);
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.corrupt += other.corrupt;
        self.dropped += other.dropped;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
        self.outstanding += other.outstanding;
        other.notes.into_iter().for_each(|note| self.complain(note));
    }

    /// Whether there was no error, and there were answers.
    pub(crate) fn keeps_the_promise(&self) -> bool {
        let broken = self.lost + self.duplicated + self.corrupt + self.dropped;
        broken == 0 && self.notes.is_empty() && self.answered > 0
    }
}
