//! Records: what a callback wants, in frames of the outbox.
//!
//! A worker's headers are copied out once and decoded by [`Output::decode`], which lets nothing through that the
//! protocol does not know.

use std::fmt;

use super::frame::array;
use crate::config::{
    MOST_NAME, MOST_POST, MOST_PUBLISH, MOST_REPLY, MOST_STATE, MOST_TASK, Run, ServerTimer,
};
use crate::conn_id::ConnId;
use crate::handler::{ServerCall, TaskOrder, Timer, To};

/// A request of a worker to its reactor, in a frame of the outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Output {
    /// Send the frame's bytes to this connection.
    Send(ConnId),
    /// Send this part of the message under way to this connection: the bytes are in the inbox
    /// already. Only for a connection of the reactor that the message is from.
    SendReceived(ConnId, Part),
    /// Send this part of a file to this connection: the file of the next descriptor that the worker has sent for this
    /// link.
    File(ConnId, Span),
    /// Close this connection after its output is sent.
    Close(ConnId),
    /// Close this connection with RST.
    Reset(ConnId),
    /// This connection is associated with this user from now on.
    SetUser(ConnId, u64),
    /// The frame's bytes are the state of this connection from now on; without bytes it has none.
    SetState(ConnId),
    /// Set this timer of this connection, whether or not it has one with that tag.
    SetTimer(ConnId, Timer),
    /// Cancel the timer of this connection with this tag.
    CancelTimer(ConnId, u64),
    /// Call `drained` once no output of this connection is unsent.
    NotifyDrained(ConnId),
    /// Stop reading from this connection.
    Hold(ConnId),
    /// Read from this connection again.
    Unhold(ConnId),
    /// The answer of this connection comes from a later callback: within this many milliseconds, or it is the frame's
    /// bytes.
    Promise(ConnId, u64),
    /// The frame's bytes are a post to these workers.
    Post(To),
    /// The frame's bytes are a task.
    Task(TaskOrder),
    /// The frame's bytes are the result of the task under way, which is in this mailbox.
    Finish(ConnId),
    /// This connection is a member of the group that the frame's bytes name.
    Join(ConnId),
    /// It is no member of that group any more.
    Leave(ConnId),
    /// The frame's bytes are the name of a group, and behind it what every member of the group is sent.
    Publish(Publish),
    /// To be answered at once.
    Ask(Question),
    /// Set this timer of the server, unless the same one is set.
    SetServerTimer(ServerTimer),
    /// Cancel the timer of the server with this tag.
    CancelServerTimer(u64),
    /// Do this to the server as a whole.
    CallServer(ServerCall),
    /// The posts before it, back to the last record, may leave: they are of no callback.
    Aside,
    /// Everything before it may leave; the frame under way goes on.
    Flush,
    /// Everything before it may leave, and the inbox frame that begins at this position is done.
    Done(u64),
    /// Nothing before it, back to the last record, may leave: the callback of the inbox frame that
    /// begins at this position has failed.
    Failed(u64),
}

/// A question of a callback. No two of a server have the same number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) number: u64,
    pub(crate) about: About,
}

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum About {
    /// How many members the group has that the frame's bytes name.
    Group,
    /// Whether this connection exists.
    Conn(ConnId),
    /// The connections of this reactor, from this place of its table on.
    Conns { reactor: u16, from: u32 },
}

impl Question {
    fn encode(self) -> (u32, u64, u64) {
        match self.about {
            About::Group => (33, self.number, 0),
            About::Conn(id) => (35, self.number, id.as_u64()),
            About::Conns { reactor, from } => {
                let place = u64::from(reactor) << 32 | u64::from(from);
                (36, self.number, place)
            }
        }
    }

    fn decode(kind: u32, number: u64, more: u64) -> Result<Question, BadFrame> {
        let about = match kind {
            33 => About::Group,
            35 => About::Conn(ConnId::from_u64(more).ok_or(BadFrame::Name(more))?),
            _ => About::Conns {
                reactor: (more >> 32) as u16,
                from: more as u32,
            },
        };
        Ok(Question { number, about })
    }
}

/// How something is published to a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Publish {
    /// The length of the group's name.
    pub(crate) name: u8,
    /// A member that is left out.
    pub(crate) except: Option<ConnId>,
    /// Members that do not read as fast as output comes miss it.
    pub(crate) is_lossy: bool,
}

impl Publish {
    fn encode(self) -> (u64, u64) {
        let except = self.except.map_or(0, ConnId::as_u64);
        let more = u64::from(self.name) | u64::from(self.is_lossy) << 32;
        (except, more)
    }

    fn decode(word: u64, more: u64, len: u32) -> Result<Publish, BadFrame> {
        let name = more as u32;
        let is_within = name <= len && name as usize <= MOST_NAME;
        let except = ConnId::from_u64(word);
        if word != 0 && except.is_none() {
            return Err(BadFrame::Name(word));
        }
        match u8::try_from(name) {
            Ok(name) if is_within => Ok(Publish {
                name,
                except,
                is_lossy: more >> 32 != 0,
            }),
            Ok(_) | Err(_) => Err(BadFrame::Length {
                len: name,
                available: u64::from(len).min(MOST_NAME as u64),
            }),
        }
    }
}

/// A part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// Where it begins in the file.
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Span {
    fn decode(offset: u64, len: u64) -> Result<Span, BadFrame> {
        let span = Span { offset, len };
        // The end is a position in a file, which has 63 bits.
        let end = offset.checked_add(len);
        match end.is_some_and(|end| i64::try_from(end).is_ok()) {
            true => Ok(span),
            false => Err(BadFrame::Span(span)),
        }
    }
}

/// A part of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    /// Where it begins in the message.
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

impl Part {
    /// Returns the part of `message` that `bytes` are: the very same memory, not equal bytes.
    pub(crate) fn of(message: &[u8], bytes: &[u8]) -> Option<Part> {
        let (outer, inner) = (message.as_ptr_range(), bytes.as_ptr_range());
        let is_within = outer.start <= inner.start && inner.end <= outer.end;
        (is_within && !bytes.is_empty()).then(|| Part {
            // A frame's length has 32 bits, so these have.
            offset: (inner.start as usize - outer.start as usize) as u32,
            len: bytes.len() as u32,
        })
    }

    /// Whether a message of `len` bytes has it.
    pub(crate) fn is_within(self, len: u32) -> bool {
        self.offset
            .checked_add(self.len)
            .is_some_and(|end| end <= len)
    }
}

/// The bytes of an [`Output`] header.
pub(crate) const OUTPUT_HEADER: usize = 32;

/// The offset of the body of an [`Output`]: the next cache line.
pub(crate) const OUTPUT_BODY: usize = 64;

impl Output {
    pub(crate) fn encode(self, len: u32) -> [u8; OUTPUT_HEADER] {
        let mut last = 0;
        let (kind, word, more) = match self {
            Output::Send(conn) => (1u32, conn.as_u64(), 0),
            Output::Close(conn) => (2, conn.as_u64(), 0),
            Output::File(conn, span) => {
                last = span.len;
                (50, conn.as_u64(), span.offset)
            }
            Output::Reset(conn) => (3, conn.as_u64(), 0),
            Output::Flush => (4, 0, 0),
            Output::Done(position) => (5, position, 0),
            Output::SetUser(conn, user) => (6, conn.as_u64(), user),
            Output::Failed(position) => (10, position, 0),
            Output::SetState(conn) => (11, conn.as_u64(), 0),
            Output::SetTimer(conn, timer) => {
                last = timer.after;
                (12, conn.as_u64(), timer.tag)
            }
            Output::CancelTimer(conn, tag) => (13, conn.as_u64(), tag),
            Output::NotifyDrained(conn) => (14, conn.as_u64(), 0),
            Output::Hold(conn) => (15, conn.as_u64(), 0),
            Output::Unhold(conn) => (16, conn.as_u64(), 0),
            Output::Post(To::Seat(seat)) => (17, seat as u64, 0),
            Output::Post(To::All) => (18, 0, 0),
            Output::Post(To::LeastBusy) => (19, 0, 0),
            Output::Post(To::Owner(conn)) => (20, conn.as_u64(), 0),
            Output::Promise(conn, within) => (21, conn.as_u64(), within),
            Output::Task(task) => {
                last = task.delay;
                encode_task(task)
            }
            Output::Finish(conn) => (44, conn.as_u64(), 0),
            Output::Join(conn) => (30, conn.as_u64(), 0),
            Output::Leave(conn) => (31, conn.as_u64(), 0),
            Output::Publish(publish) => {
                let (word, more) = publish.encode();
                (32, word, more)
            }
            Output::Ask(question) => question.encode(),
            Output::Aside => (34, 0, 0),
            Output::SetServerTimer(timer) => encode_timer(timer),
            Output::CancelServerTimer(tag) => (49, tag, 0),
            Output::CallServer(ServerCall::Stop) => (8, 0, 0),
            Output::CallServer(ServerCall::Reload) => (9, 0, 0),
            Output::SendReceived(conn, part) => (
                7,
                conn.as_u64(),
                u64::from(part.offset) << 32 | u64::from(part.len),
            ),
        };
        let mut bytes = [0; OUTPUT_HEADER];
        bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        bytes[4..8].copy_from_slice(&kind.to_ne_bytes());
        bytes[8..16].copy_from_slice(&word.to_ne_bytes());
        bytes[16..24].copy_from_slice(&more.to_ne_bytes());
        bytes[24..32].copy_from_slice(&last.to_ne_bytes());
        bytes
    }

    /// Returns the connection of a record that only a callback of that connection may make.
    pub(crate) fn own_conn(self) -> Option<ConnId> {
        match self {
            Output::SetState(conn)
            | Output::SetTimer(conn, _)
            | Output::CancelTimer(conn, _)
            | Output::NotifyDrained(conn)
            | Output::Hold(conn)
            | Output::Unhold(conn)
            | Output::Promise(conn, _)
            | Output::Finish(conn)
            | Output::Join(conn)
            | Output::Leave(conn) => Some(conn),
            Output::Send(_)
            | Output::SendReceived(..)
            | Output::File(..)
            | Output::Close(_)
            | Output::Reset(_)
            | Output::SetUser(..)
            | Output::Post(_)
            | Output::Task(_)
            | Output::Publish(_)
            | Output::Ask(_)
            | Output::SetServerTimer(_)
            | Output::CancelServerTimer(_)
            | Output::CallServer(_)
            | Output::Aside
            | Output::Flush
            | Output::Done(_)
            | Output::Failed(_) => None,
        }
    }

    /// Returns the most bytes that its body may have.
    fn most_bytes(self) -> usize {
        match self {
            Output::Send(_) => u32::MAX as usize,
            Output::SetState(_) => MOST_STATE,
            Output::Post(_) => MOST_POST,
            Output::Promise(..) => MOST_REPLY,
            Output::Task(_) | Output::Finish(_) => MOST_TASK,
            Output::Join(_) | Output::Leave(_) => MOST_NAME,
            Output::Ask(question) if question.about == About::Group => MOST_NAME,
            Output::Publish(publish) => usize::from(publish.name) + MOST_PUBLISH,
            Output::SendReceived(..)
            | Output::File(..)
            | Output::Close(_)
            | Output::Reset(_)
            | Output::SetUser(..)
            | Output::SetTimer(..)
            | Output::CancelTimer(..)
            | Output::NotifyDrained(_)
            | Output::Hold(_)
            | Output::Unhold(_)
            | Output::SetServerTimer(_)
            | Output::CancelServerTimer(_)
            | Output::CallServer(_)
            | Output::Ask(_)
            | Output::Aside
            | Output::Flush
            | Output::Done(_)
            | Output::Failed(_) => 0,
        }
    }

    /// Returns the header in `bytes` and the length of the body, which is at most `available`.
    ///
    /// # Errors
    /// No worker that keeps to the protocol writes such a header.
    pub(crate) fn decode(
        bytes: &[u8; OUTPUT_HEADER],
        available: u64,
    ) -> Result<(Output, usize), BadFrame> {
        let (len, kind) = (
            u32::from_ne_bytes(array(bytes, 0)),
            u32::from_ne_bytes(array(bytes, 4)),
        );
        let word = u64::from_ne_bytes(array(bytes, 8));
        let more = u64::from_ne_bytes(array(bytes, 16));
        let last = u64::from_ne_bytes(array(bytes, 24));
        if u64::from(len) > available {
            return Err(BadFrame::Length { len, available });
        }
        let conn = || ConnId::from_u64(word).ok_or(BadFrame::Name(word));
        let output = match kind {
            1 => Output::Send(conn()?),
            2 => Output::Close(conn()?),
            3 => Output::Reset(conn()?),
            4 => Output::Flush,
            5 => Output::Done(word),
            6 => Output::SetUser(conn()?, more),
            7 => Output::SendReceived(
                conn()?,
                Part {
                    offset: (more >> 32) as u32,
                    len: more as u32,
                },
            ),
            8 => Output::CallServer(ServerCall::Stop),
            9 => Output::CallServer(ServerCall::Reload),
            10 => Output::Failed(word),
            11 => Output::SetState(conn()?),
            12 => Output::SetTimer(conn()?, decode_conn_timer(more, last)),
            13 => Output::CancelTimer(conn()?, more),
            14 => Output::NotifyDrained(conn()?),
            15 => Output::Hold(conn()?),
            16 => Output::Unhold(conn()?),
            17 => Output::Post(To::Seat(word as usize)),
            18 => Output::Post(To::All),
            19 => Output::Post(To::LeastBusy),
            20 => Output::Post(To::Owner(conn()?)),
            21 => Output::Promise(conn()?, more),
            40..=43 => Output::Task(decode_task(kind, (word, more), last)),
            44 => Output::Finish(conn()?),
            30 => Output::Join(conn()?),
            31 => Output::Leave(conn()?),
            32 => Output::Publish(Publish::decode(word, more, len)?),
            33 | 35 | 36 => Output::Ask(Question::decode(kind, word, more)?),
            34 => Output::Aside,
            45..=48 => Output::SetServerTimer(decode_timer(kind, word, more)),
            49 => Output::CancelServerTimer(word),
            50 => Output::File(conn()?, Span::decode(more, last)?),
            _ => return Err(BadFrame::Kind(kind)),
        };
        let most = output.most_bytes();
        if len as usize > most {
            let available = most as u64;
            return Err(BadFrame::Length { len, available });
        }
        Ok((output, len as usize))
    }
}

fn decode_conn_timer(tag: u64, after: u64) -> Timer {
    Timer { after, tag }
}

fn encode_task(task: TaskOrder) -> (u32, u64, u64) {
    let kind = match (task.key, task.tag) {
        (None, None) => 40,
        (Some(_), None) => 41,
        (None, Some(_)) => 42,
        (Some(_), Some(_)) => 43,
    };
    (kind, task.key.unwrap_or(0), task.tag.unwrap_or(0))
}

fn decode_task(kind: u32, (key, tag): (u64, u64), delay: u64) -> TaskOrder {
    TaskOrder {
        key: matches!(kind, 41 | 43).then_some(key),
        tag: matches!(kind, 42 | 43).then_some(tag),
        delay,
        sender: 0,
    }
}

fn encode_timer(timer: ServerTimer) -> (u32, u64, u64) {
    let kind = match (timer.repeats, timer.run) {
        (false, Run::One) => 45,
        (false, Run::Each) => 46,
        (true, Run::One) => 47,
        (true, Run::Each) => 48,
    };
    (kind, timer.tag, timer.time)
}

fn decode_timer(kind: u32, tag: u64, time: u64) -> ServerTimer {
    let repeats = kind >= 47;
    ServerTimer {
        tag,
        // One without an interval would fire again and again in one turn.
        time: time.max(u64::from(repeats)),
        repeats,
        run: match kind {
            45 | 47 => Run::One,
            _ => Run::Each,
        },
    }
}

/// Why a worker's frame was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BadFrame {
    Length { len: u32, available: u64 },
    Kind(u32),
    Name(u64),
    Span(Span),
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadFrame::Length { len, available } => {
                write!(f, "a frame of {len} bytes where {available} can be")
            }
            BadFrame::Kind(kind) => write!(f, "a frame of unknown kind {kind}"),
            BadFrame::Span(Span { offset, len }) => {
                write!(
                    f,
                    "{len} bytes from {offset} on, of which no file has the last"
                )
            }
            BadFrame::Name(name) => write!(f, "{name:#x} names no connection"),
        }
    }
}

#[cfg(test)]
mod tests;
