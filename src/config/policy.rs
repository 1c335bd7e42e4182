//! The user's policies for the master: dispatch, which worker gets a message; and crash, the fate of a
//! callback in which a worker died.

use std::fmt::{self, Write as _};
use std::str::FromStr;
use std::sync::Arc;

use crate::conn_id::ConnId;
use crate::event::Event;
use crate::peer::Peer;
use crate::protocol::unescape;

use super::hangup::HangupFn;
use super::{ListenerId, ServerTimer};

/// Which worker a connection's messages go to, in process mode. In every mode the callbacks of one
/// connection run in order, one at a time.
///
/// Messages that a worker has not begun when it leaves or dies go to the next worker in its seat. If the
/// seat stays empty for 100 ms, they go to another seat, in modes that do not bind them to one.
///
/// ```
/// use tine::{Dispatch, Server};
///
/// // Handlers without state of their own for a connection: no message waits behind a slow one.
/// let stateless = Server::new().dispatch(Dispatch::LeastBusy);
///
/// // Messages that begin with a digit go to that seat, others stay where they are.
/// let sharded = Server::new().dispatch_with(|route| match route.message {
///     Some([digit @ b'0'..=b'9', ..]) => usize::from(digit - b'0'),
///     _ => route.seat,
/// });
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Dispatch {
    /// The connection stays with the worker that had the fewest connections when it was accepted.
    #[default]
    LeastConnections,
    /// Each message goes to the worker with the fewest messages, and none waits behind a callback that
    /// blocks: messages that a worker has not begun are taken away from it after 10 ms. For handlers
    /// that keep no state of a connection in the worker's memory.
    LeastBusy,
    /// The connection stays with a worker. At accept, the workers are taken in turn.
    RoundRobin,
    /// Connections from one IP address go to one worker, always in the same seat; so do those of one user, by a unix
    /// socket.
    ClientAddress,
    /// Connections that [`Conn::set_user`](crate::Conn::set_user) has associated with one user id go to
    /// one worker, always in the same seat. Before that, as `LeastConnections`.
    UserId,
}

impl Dispatch {
    /// Whether a connection may leave a seat that stays empty. `is_bound` if it has a user id.
    pub(crate) fn may_move(self, is_bound: bool) -> bool {
        match self {
            Dispatch::LeastConnections | Dispatch::LeastBusy | Dispatch::RoundRobin => true,
            Dispatch::ClientAddress => false,
            Dispatch::UserId => !is_bound,
        }
    }
}

/// The argument of a dispatch function: the next callback of a connection.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Route<'a> {
    /// The connection.
    pub conn: ConnId,
    /// The client.
    pub peer: Peer,
    /// The listener that accepted it.
    pub listener: ListenerId,
    /// The user id that [`Conn::set_user`](crate::Conn::set_user) has associated it with.
    pub user: Option<u64>,
    /// The message, framing included; `None` for any other callback than `receive`.
    pub message: Option<&'a [u8]>,
    /// The seat of its last callback; before the first one, the seat with the fewest connections.
    pub seat: usize,
    /// The number of seats.
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
    /// Whether each message of a connection may go to another seat.
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

/// The fate of the callback under way when its worker dies, in process mode, and of a callback that
/// returns an error, in both modes ([`Handler`](crate::Handler) has the table).
///
/// Messages that no worker has begun are always run by another worker, except those of a connection that
/// this side has closed. In base mode the connections of a worker end with it.
///
/// A `close` callback in which a worker dies is run once more under every policy but `Keep` (under `Redeliver`
/// up to its attempts, if these are more than 2), and its socket is closed at once.
///
/// ```
/// use tine::{OnCrash, Server};
///
/// // Callbacks that may be run twice: the client notices nothing.
/// let idempotent = Server::new().on_crash(OnCrash::Redeliver { attempts: 3 });
///
/// // A ready-made answer, and the connection is closed.
/// let web = Server::new().on_crash(OnCrash::Reply(b"HTTP/1.1 502 Bad Gateway\r\n\r\n".to_vec()));
///
/// // Case by case: only reads are run again.
/// let store = Server::new().on_crash_with(|crash| match crash.message.starts_with(b"get ") {
///     true => OnCrash::Redeliver { attempts: 3 },
///     false => OnCrash::Close,
/// });
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum OnCrash {
    /// The connection is closed after its committed output, so that the client learns of it at once.
    #[default]
    Close,
    /// The callback runs again: after a death in another worker, after an `Err` in any. Once its attempts
    /// are used up it is poison: the first 256 bytes of its message are logged,
    /// [`Stats::poisoned`](crate::Stats::poisoned) counts it, and its connection is closed. A callback
    /// that has flushed is not run again: its connection is closed.
    Redeliver {
        /// The most times that one callback is run, 1 to 255, the first run included. With 1 no callback is run
        /// again, except a `close` in which a worker died. 0 is refused by [`Server::run`](crate::Server::run), and
        /// the same as 1 if a crash function returns it.
        attempts: u8,
    },
    /// These bytes are sent, and the connection is closed: a ready-made `502 Bad Gateway`, say. If the
    /// callback has flushed part of its answer, the connection is only closed.
    Reply(Vec<u8>),
    /// These bytes are the answer to the message, and the connection stays: the next message is answered as usual. For
    /// protocols that have boundaries of messages and an answer for errors; [`Protocol::raw`](crate::Protocol::raw)
    /// has none, and is refused with it. Of a callback other than `receive` it is a `Reply`, since there is no message
    /// to answer. If the callback has flushed part of its answer, the connection is closed.
    Answer(Vec<u8>),
    /// The message is dropped, and the connection stays as it is, even in CLOSE_WAIT. Other servers
    /// behave like that; it is here for comparison.
    Keep,
}

impl FromStr for OnCrash {
    type Err = ParseOnCrashError;

    /// Reads `close`, `redeliver` (3 attempts), `redeliver=ATTEMPTS`, `reply=TEXT` or `answer=TEXT` with `\r` `\n` `\t`
    /// `\0` `\\` and `\xHH`, or `keep`.
    fn from_str(text: &str) -> Result<OnCrash, ParseOnCrashError> {
        match text.split_once('=') {
            None if text == "close" => Ok(OnCrash::Close),
            None if text == "keep" => Ok(OnCrash::Keep),
            None if text == "redeliver" => Ok(OnCrash::Redeliver { attempts: 3 }),
            Some(("redeliver", attempts)) => match attempts.parse() {
                Ok(attempts @ 1..) => Ok(OnCrash::Redeliver { attempts }),
                _ => Err(ParseOnCrashError(format!(
                    "{attempts:?} is not a number of attempts, 1 to 255 are allowed"
                ))),
            },
            Some((kind @ ("reply" | "answer"), reply)) => match unescape(reply) {
                Ok(bytes) if bytes.is_empty() => Err(ParseOnCrashError(format!(
                    "the {kind} is empty: to send none, use close"
                ))),
                Ok(bytes) if kind == "reply" => Ok(OnCrash::Reply(bytes)),
                Ok(bytes) => Ok(OnCrash::Answer(bytes)),
                Err(error) => Err(ParseOnCrashError(error.to_string())),
            },
            _ => Err(ParseOnCrashError(format!(
                "{text:?} is not a crash policy, allowed are close, redeliver, redeliver=ATTEMPTS, reply=TEXT, answer=TEXT and keep"
            ))),
        }
    }
}

/// The text that `from_str` reads.
impl fmt::Display for OnCrash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnCrash::Close => f.write_str("close"),
            OnCrash::Redeliver { attempts } => write!(f, "redeliver={attempts}"),
            OnCrash::Keep => f.write_str("keep"),
            OnCrash::Reply(reply) | OnCrash::Answer(reply) => {
                f.write_str(match self {
                    OnCrash::Answer(_) => "answer=",
                    _ => "reply=",
                })?;
                reply.iter().try_for_each(|byte| match byte {
                    b'\\' => f.write_str("\\\\"),
                    b' '..=b'~' => f.write_char(char::from(*byte)),
                    _ => write!(f, "\\x{byte:02x}"),
                })
            }
        }
    }
}

/// A text is not an [`OnCrash`]. Its own text names the mistake and the allowed values.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseOnCrashError(String);

impl fmt::Display for ParseOnCrashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseOnCrashError {}

/// A callback in which a worker died, or that returned an error: the argument of a crash function.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Crash<'a> {
    /// The connection of the callback.
    pub conn: ConnId,
    /// The client.
    pub peer: Peer,
    /// The listener that accepted it.
    pub listener: ListenerId,
    /// The user id that [`Conn::set_user`](crate::Conn::set_user) has associated it with.
    pub user: Option<u64>,
    /// The event of the callback.
    pub event: Event,
    /// The number of its runs, this one included.
    pub attempts: u8,
    /// It returned an error, and its worker lives.
    pub failed: bool,
    /// It had flushed part of its output: it can't be run again.
    pub flushed: bool,
    /// No worker has begun it in time ([`Listener::queue_deadline`](crate::Listener::queue_deadline)):
    /// after the reply, if the function returns one, its connection is closed.
    pub expired: bool,
    /// The message, if it was `receive`.
    pub message: &'a [u8],
}

/// A crash function.
pub(crate) type CrashFn = dyn Fn(&Crash<'_>) -> OnCrash + Send + Sync;

/// A task that was given up: the argument of [`Server::on_task_failed`](crate::Server::on_task_failed).
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FailedTask<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its tag, if its sender waits for a result.
    pub tag: Option<u64>,
    /// Its key, if it has one.
    pub key: Option<u64>,
    /// The seat of its sender.
    pub seat: usize,
    /// The number of its runs.
    pub attempts: u8,
    /// Its last run returned an error, and that worker lives.
    pub failed: bool,
    /// It had flushed part of its output: it can't be run again.
    pub flushed: bool,
}

/// A function for tasks that were given up.
pub(crate) type TaskFailedFn = dyn Fn(&FailedTask<'_>) + Send + Sync;

/// The user's function for tasks that were given up, if there is one.
#[derive(Clone, Default)]
pub(crate) struct TaskFailed(pub(crate) Option<Arc<TaskFailedFn>>);

impl fmt::Debug for TaskFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Function" } else { "None" })
    }
}

/// What a server has beside its settings: the user's functions, and timers.
#[derive(Clone, Default)]
pub(crate) struct Deciders {
    pub(crate) dispatch: Option<Arc<RouteFn>>,
    pub(crate) crash: Option<Arc<CrashFn>>,
    pub(crate) task_failed: Option<Arc<TaskFailedFn>>,
    pub(crate) timers: Vec<ServerTimer>,
    pub(crate) hangup: Option<Arc<HangupFn>>,
}

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
    fn crash_policies_are_read_from_text() {
        for (text, policy) in [
            ("close", OnCrash::Close),
            ("keep", OnCrash::Keep),
            ("redeliver", OnCrash::Redeliver { attempts: 3 }),
            ("redeliver=7", OnCrash::Redeliver { attempts: 7 }),
            ("reply=502\\r\\n", OnCrash::Reply(b"502\r\n".to_vec())),
            ("reply=a=b", OnCrash::Reply(b"a=b".to_vec())),
            ("answer=-ERR\\n", OnCrash::Answer(b"-ERR\n".to_vec())),
            ("reply=\\\\\\xff", OnCrash::Reply(b"\\\xff".to_vec())),
        ] {
            assert_eq!(text.parse(), Ok(policy.clone()), "{text}");
            assert_eq!(policy.to_string().parse(), Ok(policy), "{text}");
        }
        for text in [
            "redeliver=0",
            "redeliver=256",
            "close=1",
            "restart",
            "",
            "reply=",
            "answer=",
            "reply",
            "reply=\\q",
        ] {
            assert!(text.parse::<OnCrash>().is_err(), "{text}");
        }
    }
}
