//! Posts from other programs on the same machine: `tine post`.
//!
//! The caller's side runs in any process of the same user, or of root. Its one rule: the server says whether it has
//! taken a post, and a caller that hears nothing does not know.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::ask::{AskError, connect, verify};
use crate::config::MOST_POST;
use crate::conn_id::ConnId;
use crate::handler::To;

/// The bytes before those of a post: a version, the kind of its target, and its seat or connection.
pub(super) const HEADER: usize = 16;

const VERSION: u8 = 1;

/// The name of the socket at which a process takes posts.
pub(super) fn name_of(pid: i32) -> String {
    format!("tine/{pid}/post")
}

/// Why [`post`] has failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum PostError {
    /// The server has not answered. After [`AskError::Silent`], it may have taken the post or not.
    NoAnswer(AskError),
    /// The server has not taken the post.
    Refused(Refused),
}

/// Why a server has not taken a post.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refused {
    /// It is longer than a post can be.
    TooLong {
        /// The most bytes.
        most: usize,
    },
    /// No worker has this seat.
    NoSeat {
        /// The number of seats, which are counted from 0.
        seats: usize,
    },
    /// The server keeps as much for its users as it may; in base mode, as much is on its way to the worker.
    Full,
    /// The server starts, or ends.
    NotServing,
    /// In base mode: no worker has the seat at this moment, or not all seats have one.
    NoWorker,
    /// In base mode: a connection's worker is not known.
    NoOwner,
    /// The server does not understand the post: its version is another.
    NotUnderstood,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::TooLong { most } => write!(f, "a post has at most {most} bytes"),
            Refused::NoSeat { seats } => {
                write!(f, "no worker has this seat: there are {seats}, from 0")
            }
            Refused::Full => f.write_str(
                "the server is full: it keeps as many bytes of states, timers, groups and posts as it may",
            ),
            Refused::NotServing => f.write_str("the server starts, or ends"),
            Refused::NoWorker => f.write_str("no worker has the seat at this moment"),
            Refused::NoOwner => f.write_str("in base mode, the worker of a connection is not known"),
            Refused::NotUnderstood => {
                f.write_str("the server does not understand the post: its version is another")
            }
        }
    }
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PostError::NoAnswer(AskError::NoServer(pid)) => write!(
                f,
                "process {pid} takes no posts: it is no tine server, was built without the feature `status`, or is in \
                 another pid or network namespace"
            ),
            PostError::NoAnswer(error) => error.fmt(f),
            PostError::Refused(refused) => refused.fmt(f),
        }
    }
}

impl std::error::Error for PostError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            PostError::NoAnswer(error) => Some(error),
            PostError::Refused(_) => None,
        }
    }
}

impl From<AskError> for PostError {
    fn from(error: AskError) -> PostError {
        PostError::NoAnswer(error)
    }
}

/// The answer to a post.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer(pub(crate) Result<(), Refused>);

/// Posts bytes to workers of a server, as [`Handle::post`](crate::Handle::post) does from within. `pid` is the
/// process to send signals to: the master, in base mode the manager. The caller must be of the server's user, or
/// root. Waits for the answer for at most `patience`.
///
/// In process mode, a post that was taken is the master's: the next worker in the seat gets it if one dies. In base
/// mode it is on its way to the worker, and lost if that dies.
///
/// ```no_run
/// use std::time::Duration;
/// use tine::To;
///
/// tine::status::post(26276, To::All, b"reread", Duration::from_secs(2))?;
/// # Ok::<(), tine::status::PostError>(())
/// ```
///
/// # Errors
/// When the server does not answer, or refuses the post.
pub fn post(pid: i32, to: To, bytes: &[u8], patience: Duration) -> Result<(), PostError> {
    if bytes.len() > MOST_POST {
        let most = MOST_POST;
        return Err(PostError::Refused(Refused::TooLong { most }));
    }
    let until = Instant::now() + patience;
    let socket = connect(pid, &name_of(pid), until)?;
    verify(&socket, pid)?;
    let packet = [&header(to)[..], bytes].concat();
    socket.send(&packet).map_err(AskError::System)?;
    let mut buffer = [0; 256];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match socket.receive(&mut buffer, left) {
            Ok(Some(packet)) => {
                let answer = serde_json::from_slice::<Answer>(packet);
                let answer = answer.map_err(|_| AskError::NotUnderstood(pid))?;
                return answer.0.map_err(PostError::Refused);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(None) => return Err(AskError::Silent(pid).into()),
            Err(error) => {
                return Err(match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset => {
                        AskError::Silent(pid).into()
                    }
                    _ => AskError::System(error).into(),
                });
            }
        }
    }
}

fn header(to: To) -> [u8; HEADER] {
    let (kind, word) = match to {
        To::Seat(seat) => (0, seat as u64),
        To::All => (1, 0),
        To::LeastBusy => (2, 0),
        To::Owner(conn) => (3, conn.as_u64()),
    };
    let mut bytes = [0; HEADER];
    (bytes[0], bytes[1]) = (VERSION, kind);
    bytes[8..].copy_from_slice(&word.to_ne_bytes());
    bytes
}

/// Returns the post in a packet of any process.
pub(super) fn decode(packet: &[u8]) -> Result<(To, &[u8]), Refused> {
    let (header, bytes) = packet
        .split_first_chunk::<HEADER>()
        .ok_or(Refused::NotUnderstood)?;
    let word = u64::from_ne_bytes(*header.last_chunk().expect("a header has 16 bytes"));
    let to = match (header[0], header[1]) {
        (VERSION, 0) => To::Seat(usize::try_from(word).unwrap_or(usize::MAX)),
        (VERSION, 1) => To::All,
        (VERSION, 2) => To::LeastBusy,
        (VERSION, 3) => To::Owner(ConnId::from_u64(word).ok_or(Refused::NotUnderstood)?),
        _ => return Err(Refused::NotUnderstood),
    };
    match bytes.len() > MOST_POST {
        true => Err(Refused::TooLong { most: MOST_POST }),
        false => Ok((to, bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_what_it_was_made_of() {
        let conn = ConnId::from_u64(1 << 54 | 1).unwrap();
        for to in [To::Seat(3), To::All, To::LeastBusy, To::Owner(conn)] {
            let packet = [&header(to)[..], b"bytes"].concat();
            assert_eq!(decode(&packet), Ok((to, &b"bytes"[..])));
        }
    }

    #[test]
    fn what_is_no_post_is_refused() {
        let good = header(To::All);
        assert_eq!(decode(&good[..15]), Err(Refused::NotUnderstood));
        for (at, byte) in [(0, 0), (0, 2), (1, 4), (1, 3)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(decode(&bad), Err(Refused::NotUnderstood), "{at} {byte}");
        }
        let long = [&good[..], &[0; MOST_POST + 1]].concat();
        assert_eq!(decode(&long), Err(Refused::TooLong { most: MOST_POST }));
    }
}
