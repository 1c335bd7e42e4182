//! What the user decides for the master: which worker gets a message, and what becomes of one whose
//! worker has died in it.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::conn_id::ConnId;
use crate::protocol::unescape;

/// Which worker a connection's messages go to, in process mode. Whatever is chosen, the callbacks of
/// one connection run in order, one at a time.
///
/// A worker that is asked to leave hands over what it has not begun. One that has died does, too; a
/// mode that is not bound to a certain worker also moves on when the dead one's seat is not filled
/// within 100 ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Dispatch {
    /// The connection stays with the worker that had the fewest connections when it was accepted.
    #[default]
    LeastConnections,
    /// Each message goes to the worker with the fewest messages, and none waits behind a callback
    /// that blocks: messages that a worker has not begun are taken away from it after 10 ms. What a
    /// callback wants to know of its connection's past must not be in the worker's memory alone.
    LeastBusy,
    /// The connection stays with the worker whose turn it was when it was accepted.
    RoundRobin,
    /// Connections from one IP address are one worker's, always the same seat's.
    ClientAddress,
    /// Connections that a callback has bound to one user with [`Conn::bind`](crate::Conn::bind) are
    /// one worker's, always the same seat's. Before that, as `LeastConnections`.
    UserId,
}

impl Dispatch {
    /// Whether another worker may take over a connection, which is bound to a user or not, from one
    /// whose seat stays empty.
    pub(crate) fn may_move(self, is_bound: bool) -> bool {
        match self {
            Dispatch::LeastConnections | Dispatch::LeastBusy | Dispatch::RoundRobin => true,
            Dispatch::ClientAddress => false,
            Dispatch::UserId => !is_bound,
        }
    }
}

/// What a dispatch function is asked about: the next callback of a connection.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Route<'a> {
    /// The connection.
    pub conn: ConnId,
    /// The client's address and port.
    pub peer: SocketAddr,
    /// Which listener accepted it.
    pub listener: usize,
    /// What [`Conn::bind`](crate::Conn::bind) has bound it to.
    pub user: Option<u64>,
    /// The message, framing included; `None` for any other callback than `receive`.
    pub message: Option<&'a [u8]>,
    /// The seat that had its last callback, or that has the fewest connections if it had none.
    pub seat: usize,
    /// How many seats there are.
    pub seats: usize,
}

/// A dispatch function.
pub(crate) type RouteFn = dyn Fn(&Route<'_>) -> usize + Send + Sync;

/// The user's choice of a worker.
#[derive(Clone)]
pub(crate) enum Dispatcher {
    Mode(Dispatch),
    Function(Arc<RouteFn>),
}

impl Dispatcher {
    /// Whether it can be that each message of a connection goes elsewhere.
    pub(crate) fn is_per_message(&self) -> bool {
        matches!(self, Dispatcher::Mode(Dispatch::LeastBusy))
    }

    /// Whether a connection may leave a seat that stays empty.
    pub(crate) fn may_move(&self, is_bound: bool) -> bool {
        match self {
            Dispatcher::Mode(mode) => mode.may_move(is_bound),
            Dispatcher::Function(_) => false,
        }
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dispatcher::Mode(mode) => mode.fmt(f),
            Dispatcher::Function(_) => f.write_str("Function"),
        }
    }
}

/// What becomes of the message (or other callback) under way when its worker dies, in process mode.
/// Messages that no worker has begun always go on to a worker, but for those of a connection that was
/// closed on this side. In base mode the connections die with the worker.
///
/// A `close` callback that dies is run once more, whatever the policy but for `Keep` (under
/// `Redeliver` as often as a message), and its socket is closed at once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum OnCrash {
    /// The connection is closed after what was committed for it, so that the client learns at once.
    #[default]
    Close,
    /// The callback runs again, in another worker. When it has killed so many workers, it is poison:
    /// its first 256 bytes are logged, [`Stats::poisoned`](crate::Stats::poisoned) counts it, and
    /// its connection is closed. A callback that has flushed is not run again: its connection is
    /// closed.
    Redeliver {
        /// How many workers one message may kill, at least 1.
        attempts: u8,
    },
    /// These bytes are sent, and the connection is closed: a ready-made `502 Bad Gateway`, say. Where
    /// part of the answer has left by a flush, the connection is only closed.
    Reply(Vec<u8>),
    /// Nothing: the message is dropped, and the connection stays as it is, also in CLOSE_WAIT. What
    /// other servers do; here it is for seeing what comes of it.
    Keep,
}

impl FromStr for OnCrash {
    type Err = ParseOnCrashError;

    /// Reads `close`, `redeliver` (3 attempts), `redeliver=ATTEMPTS`, `reply=TEXT` with `\r` `\n` `\t`
    /// `\0` `\\` and `\xHH`, or `keep`.
    fn from_str(text: &str) -> Result<OnCrash, ParseOnCrashError> {
        match text.split_once('=') {
            None if text == "close" => Ok(OnCrash::Close),
            None if text == "keep" => Ok(OnCrash::Keep),
            None if text == "redeliver" => Ok(OnCrash::Redeliver { attempts: 3 }),
            Some(("redeliver", attempts)) => match attempts.parse() {
                Ok(attempts @ 1..) => Ok(OnCrash::Redeliver { attempts }),
                _ => Err(ParseOnCrashError(format!(
                    "{attempts:?} is no number of attempts from 1 to 255"
                ))),
            },
            Some(("reply", reply)) => match unescape(reply) {
                Ok(bytes) if bytes.is_empty() => Err(ParseOnCrashError(
                    "the reply is empty; close sends nothing".to_owned(),
                )),
                Ok(bytes) => Ok(OnCrash::Reply(bytes)),
                Err(error) => Err(ParseOnCrashError(error.to_string())),
            },
            _ => Err(ParseOnCrashError(format!(
                "{text:?} is no crash policy; close, redeliver, redeliver=ATTEMPTS, reply=TEXT or keep is expected"
            ))),
        }
    }
}

/// A text is no [`OnCrash`]. It says what was wrong and what is allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseOnCrashError(String);

impl fmt::Display for ParseOnCrashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseOnCrashError {}

/// A kind of callback.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Callback {
    /// [`Handler::connect`](crate::Handler::connect)
    Connect,
    /// [`Handler::receive`](crate::Handler::receive)
    Receive,
    /// [`Handler::close`](crate::Handler::close)
    Close,
    /// [`Handler::buffer_full`](crate::Handler::buffer_full)
    BufferFull,
    /// [`Handler::buffer_empty`](crate::Handler::buffer_empty)
    BufferEmpty,
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Callback::Connect => "connect",
            Callback::Receive => "receive",
            Callback::Close => "close",
            Callback::BufferFull => "buffer_full",
            Callback::BufferEmpty => "buffer_empty",
        })
    }
}

/// A worker has died in a callback.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Crash<'a> {
    /// Whose callback it was.
    pub conn: ConnId,
    /// The client's address and port.
    pub peer: SocketAddr,
    /// Which listener accepted it.
    pub listener: usize,
    /// What [`Conn::bind`](crate::Conn::bind) has bound it to.
    pub user: Option<u64>,
    /// Which callback it was.
    pub callback: Callback,
    /// How many workers have died in it, this one too.
    pub attempts: u8,
    /// Part of its output has left already: it can't be run again.
    pub flushed: bool,
    /// The message, if it was `receive`.
    pub message: &'a [u8],
}

/// A crash policy that looks at each case.
pub(crate) type CrashFn = dyn Fn(&Crash<'_>) -> OnCrash + Send + Sync;

/// The user's crash policy.
#[derive(Clone)]
pub(crate) enum CrashPolicy {
    Always(OnCrash),
    Function(Arc<CrashFn>),
}

impl fmt::Debug for CrashPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CrashPolicy::Always(policy) => policy.fmt(f),
            CrashPolicy::Function(_) => f.write_str("Function"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crash_policies_are_told_in_words() {
        for (text, policy) in [
            ("close", OnCrash::Close),
            ("keep", OnCrash::Keep),
            ("redeliver", OnCrash::Redeliver { attempts: 3 }),
            ("redeliver=7", OnCrash::Redeliver { attempts: 7 }),
            ("reply=502\\r\\n", OnCrash::Reply(b"502\r\n".to_vec())),
            ("reply=a=b", OnCrash::Reply(b"a=b".to_vec())),
        ] {
            assert_eq!(text.parse(), Ok(policy), "{text}");
        }
        for text in [
            "redeliver=0",
            "redeliver=256",
            "close=1",
            "restart",
            "",
            "reply=",
            "reply",
            "reply=\\q",
        ] {
            assert!(text.parse::<OnCrash>().is_err(), "{text}");
        }
    }
}
