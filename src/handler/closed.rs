//! The end of a connection, as its `close` callback learns of it.

/// How a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Closed {
    /// Which side ended it, and why.
    pub reason: CloseReason,
    /// The bytes of output that were lost: the socket was closed, with RST, before the peer had acknowledged
    /// them. 0 if they were lost only after this callback: then the log alone has the number.
    pub lost: u64,
    /// The close deadline passed before a worker was free for this callback: the server has closed the
    /// socket already.
    pub past_deadline: bool,
    /// This callback has run before, and its worker died in it or it returned an error.
    pub retried: bool,
}

/// Why a connection ended. Each reason says whether `close` can still send to the connection;
/// [`SendError::Closed`](super::SendError::Closed) is returned where it can't.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer sent FIN. `close` can send, until the close deadline.
    Peer,
    /// The connection broke: the peer sent RST, or the network gave up. `close` can't send.
    Broken,
    /// A callback closed or reset it, and sent its last bytes before. `close` can't send.
    Handler,
    /// The server is shutting down. `close` can send, until the shutdown deadline.
    Shutdown,
    /// The peer took its output too slowly, and was reset. `close` can't send.
    SlowReader,
    /// The protocol refused the peer's bytes. The messages before them are answered first; `close` can send
    /// the last answer, which says what was refused.
    Refused,
    /// A worker died in one of its callbacks, or one of them returned an error. `close` can't send: the last
    /// answer is that of the crash policy, [`OnCrash::Reply`](crate::OnCrash::Reply).
    Crash,
    /// [`Listener::open_deadline`](crate::Listener::open_deadline) has passed: neither side has said
    /// anything. `close` can't send.
    OpenDeadline,
    /// [`Listener::message_deadline`](crate::Listener::message_deadline) has passed: a message was
    /// incomplete for too long. The messages before it are answered first; `close` can send the last answer.
    MessageDeadline,
    /// [`Listener::idle`](crate::Listener::idle) has passed: the peer was silent, and nothing was due to it.
    /// `close` can't send.
    IdleDeadline,
    /// [`Listener::write_deadline`](crate::Listener::write_deadline) has passed: output was unsent, and the
    /// peer acknowledged nothing. `close` can't send.
    WriteDeadline,
    /// [`Listener::queue_deadline`](crate::Listener::queue_deadline) has passed: no worker has begun a
    /// message of it. The last answer is that of the crash policy; `close` can't send.
    QueueDeadline,
    /// The time of [`Conn::answer_within`](super::Conn::answer_within) has passed, and no callback has sent to it. The last answer is the reply that
    /// was named there; `close` can't send.
    AnswerDeadline,
    /// A file of [`Conn::send_file`](super::Conn::send_file) could not be read to the end of its part: it has become
    /// shorter, or its disk failed. The connection was reset; `close` can't send.
    FileFailed,
}

impl CloseReason {
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// Whether `close` can still send to the connection.
    pub(crate) fn takes_output(self) -> bool {
        match self {
            CloseReason::Peer
            | CloseReason::Shutdown
            | CloseReason::Refused
            | CloseReason::MessageDeadline => true,
            CloseReason::Broken
            | CloseReason::Handler
            | CloseReason::SlowReader
            | CloseReason::Crash
            | CloseReason::OpenDeadline
            | CloseReason::IdleDeadline
            | CloseReason::WriteDeadline
            | CloseReason::QueueDeadline
            | CloseReason::AnswerDeadline
            | CloseReason::FileFailed => false,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<CloseReason> {
        const ALL: [CloseReason; 14] = [
            CloseReason::Peer,
            CloseReason::Broken,
            CloseReason::Handler,
            CloseReason::Shutdown,
            CloseReason::SlowReader,
            CloseReason::Refused,
            CloseReason::Crash,
            CloseReason::OpenDeadline,
            CloseReason::MessageDeadline,
            CloseReason::IdleDeadline,
            CloseReason::WriteDeadline,
            CloseReason::QueueDeadline,
            CloseReason::AnswerDeadline,
            CloseReason::FileFailed,
        ];
        ALL.get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::CloseReason;

    #[test]
    fn every_close_reason_survives_its_code() {
        let mut code = 0;
        while let Some(reason) = CloseReason::from_code(code) {
            assert_eq!(reason.code(), code);
            code += 1;
        }
        assert_eq!(code, CloseReason::FileFailed.code() + 1);
    }
}
