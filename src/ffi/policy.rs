//! The user's policies for the master, in the form of C: dispatch, crash, and framing functions.

use crate::limited::{Topic, limited};
use std::ffi::c_void;

use libc::sockaddr;

use super::address::storage;
use super::conn::tine_conn;
use super::listener::tine_listener_id;
use super::status::Failure;
use super::{Userdata, bytes, pick};
use crate::config::policy::{Crash, Dispatch, OnCrash, Route};
use crate::event::Event;
use crate::protocol::{Found, Search};

/// Which worker a connection's messages go to, in process mode. In every mode the callbacks of one
/// connection run in order, one at a time.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_dispatch {
    /// The connection stays with the worker that had the fewest connections when it was accepted. The
    /// default.
    TINE_DISPATCH_LEAST_CONNECTIONS = 0,
    /// Each message goes to the worker with the fewest messages, and none waits behind a callback
    /// that blocks. For callbacks that keep no state of a connection in the worker's memory.
    TINE_DISPATCH_LEAST_BUSY = 1,
    /// The connection stays with a worker. At accept, the workers are taken in turn.
    TINE_DISPATCH_ROUND_ROBIN = 2,
    /// Connections from one IP address go to one worker, and by a unix socket those of one user.
    TINE_DISPATCH_CLIENT_ADDRESS = 3,
    /// Connections that tine_conn_set_user() has associated with one user id go to one worker.
    TINE_DISPATCH_USER_ID = 4,
}

/// One of tine_dispatch, from C.
pub type DispatchIn = i32;

pub(super) fn dispatch(mode: DispatchIn) -> Result<Dispatch, Failure> {
    use tine_dispatch::*;
    pick(
        "dispatch",
        mode,
        &[
            (
                TINE_DISPATCH_LEAST_CONNECTIONS as i32,
                Dispatch::LeastConnections,
            ),
            (TINE_DISPATCH_LEAST_BUSY as i32, Dispatch::LeastBusy),
            (TINE_DISPATCH_ROUND_ROBIN as i32, Dispatch::RoundRobin),
            (TINE_DISPATCH_CLIENT_ADDRESS as i32, Dispatch::ClientAddress),
            (TINE_DISPATCH_USER_ID as i32, Dispatch::UserId),
        ],
    )
}

/// The argument of a dispatch function: the next callback of a connection. Valid until the function
/// returns.
#[repr(C)]
pub struct tine_route {
    /// The connection.
    pub conn: tine_conn,
    /// The client's address and port, or its credentials, as of tine_conn_peer().
    pub peer: *const sockaddr,
    /// The listener that accepted it.
    pub listener: tine_listener_id,
    /// The user id that tine_conn_set_user() has associated it with; NULL for none.
    pub user: *const u64,
    /// The message, framing included; NULL for any other callback than `receive`.
    pub message: *const c_void,
    /// Bytes of the message.
    pub length: usize,
    /// The seat of its last callback; before the first one, the seat with the fewest connections.
    pub seat: usize,
    /// The number of seats: `worker#0` up to one less.
    pub seats: usize,
}

/// Returns the seat for a connection's next callback; a number past the last seat wraps around. Process
/// mode only. Called in the master by any of its reactor threads: it must be thread-safe, should be
/// quick and must not block. It is called again for a callback that has had to wait. A crash in it ends
/// the server.
pub type tine_dispatch_fn =
    Option<unsafe extern "C-unwind" fn(route: *const tine_route, userdata: *mut c_void) -> usize>;

type ChooseSeat = unsafe extern "C-unwind" fn(*const tine_route, *mut c_void) -> usize;

pub(super) fn choose(
    function: ChooseSeat,
    userdata: Userdata,
) -> impl Fn(&Route<'_>) -> usize + Send + Sync + 'static {
    move |route| {
        let peer = storage(route.peer);
        let route = tine_route {
            conn: route.conn.into(),
            peer: (&raw const peer).cast(),
            listener: route.listener.into(),
            user: route
                .user
                .as_ref()
                .map_or(std::ptr::null(), std::ptr::from_ref),
            message: route
                .message
                .map_or(std::ptr::null(), |bytes| bytes.as_ptr().cast()),
            length: route.message.map_or(0, <[u8]>::len),
            seat: route.seat,
            seats: route.seats,
        };
        // SAFETY: the user's function, called as tine.h says; its argument lives until it returns.
        unsafe { function(&route, userdata.get()) }
    }
}

/// An event of a connection, each with a callback.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_event {
    /// tine_server_on_connect()
    TINE_EVENT_CONNECT = 0,
    /// tine_server_on_receive()
    TINE_EVENT_RECEIVE = 1,
    /// tine_server_on_close()
    TINE_EVENT_CLOSE = 2,
    /// tine_server_on_paused()
    TINE_EVENT_PAUSED = 3,
    /// tine_server_on_resumed()
    TINE_EVENT_RESUMED = 4,
    /// tine_server_on_idle()
    TINE_EVENT_IDLE = 5,
    /// tine_server_on_timer()
    TINE_EVENT_TIMER = 6,
    /// tine_server_on_drained()
    TINE_EVENT_DRAINED = 7,
    /// tine_server_on_post()
    TINE_EVENT_POST = 8,
    /// tine_server_on_task()
    TINE_EVENT_TASK = 9,
    /// tine_server_on_finished()
    TINE_EVENT_FINISHED = 10,
    /// tine_server_on_server_timer()
    TINE_EVENT_SERVER_TIMER = 11,
}

impl From<Event> for tine_event {
    fn from(event: Event) -> tine_event {
        use tine_event::*;
        match event {
            Event::Connect => TINE_EVENT_CONNECT,
            Event::Receive => TINE_EVENT_RECEIVE,
            Event::Close => TINE_EVENT_CLOSE,
            Event::Paused => TINE_EVENT_PAUSED,
            Event::Resumed => TINE_EVENT_RESUMED,
            Event::Idle => TINE_EVENT_IDLE,
            Event::Timer => TINE_EVENT_TIMER,
            Event::Drained => TINE_EVENT_DRAINED,
            Event::Post => TINE_EVENT_POST,
            Event::Task => TINE_EVENT_TASK,
            Event::Finished => TINE_EVENT_FINISHED,
            Event::ServerTimer => TINE_EVENT_SERVER_TIMER,
        }
    }
}

/// The fate of a callback in which a worker dies, in process mode, and of a callback that fails, in both
/// modes. A `close` in which a worker has died is run once more, except under TINE_ON_CRASH_KEEP, and its
/// socket is closed at once. In base mode a worker's connections end with it, and TINE_ON_CRASH_REDELIVER
/// and TINE_ON_CRASH_KEEP are refused.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum tine_on_crash {
    /// The connection is closed, so that the client learns of it at once. The default.
    TINE_ON_CRASH_CLOSE = 0,
    /// The callback is run again, after a death in another worker, until its attempts are used up.
    TINE_ON_CRASH_REDELIVER = 1,
    /// A ready-made answer is sent, and the connection is closed.
    TINE_ON_CRASH_REPLY = 2,
    /// The message is dropped: the client waits, and a connection that it closes stays in CLOSE_WAIT; for
    /// comparison. After a callback that fails, the connection is still closed.
    TINE_ON_CRASH_KEEP = 3,
    /// A ready-made answer is sent in the place of the answer to the message, and the connection stays. For a listener
    /// with a protocol, since a raw one has no boundaries of messages. Of other callbacks it is TINE_ON_CRASH_REPLY.
    TINE_ON_CRASH_ANSWER = 4,
}

/// One of tine_on_crash, from C.
pub type OnCrashIn = i32;

/// The argument of a crash function: a callback in which a worker died, or that failed. Valid until the
/// function returns.
#[repr(C)]
pub struct tine_crash {
    /// The connection of the callback.
    pub conn: tine_conn,
    /// The client's address and port, or its credentials, as of tine_conn_peer().
    pub peer: *const sockaddr,
    /// The listener that accepted it.
    pub listener: tine_listener_id,
    /// The user id that tine_conn_set_user() has associated it with; NULL for none.
    pub user: *const u64,
    /// The event of the callback.
    pub event: tine_event,
    /// The number of its runs, this one included.
    pub attempts: u8,
    /// It returned another status than TINE_OK, and its worker lives.
    pub failed: bool,
    /// It had called tine_flush(): part of its output has left, and it can't be run again.
    pub flushed: bool,
    /// No worker has begun it in time, see tine_listener_set_queue_deadline(): after the reply, if the
    /// function decides for one, its connection is closed.
    pub expired: bool,
    /// The message, for `receive`; NULL otherwise.
    pub message: *const c_void,
    /// Bytes of the message.
    pub length: usize,
}

/// The decision of a crash function.
#[repr(C)]
pub struct tine_fate {
    /// TINE_ON_CRASH_CLOSE, unless the function changes it. An invalid value is logged, and the
    /// connection closed.
    pub on_crash: OnCrashIn,
    /// With TINE_ON_CRASH_REDELIVER: the most runs of this callback, 1 to 255, the first run included. With 1 it is
    /// not run again, unless it is a `close` in which a worker died; 0 and more than 255 are logged, and close the
    /// connection. Initially 3.
    pub attempts: u32,
    /// With TINE_ON_CRASH_REPLY and TINE_ON_CRASH_ANSWER: the bytes to send, at least one. They belong to the program, and are
    /// copied when the function has returned.
    pub reply: *const c_void,
    /// Bytes of the reply.
    pub reply_length: usize,
}

/// Decides the fate of a callback in which a worker died, or that failed, by writing to `fate`. Process
/// mode only. Called in the master by any of its reactor threads: it must be thread-safe and must not
/// block. A crash in it ends the server.
pub type tine_crash_fn = Option<
    unsafe extern "C-unwind" fn(
        crash: *const tine_crash,
        fate: *mut tine_fate,
        userdata: *mut c_void,
    ),
>;

type Decide = unsafe extern "C-unwind" fn(*const tine_crash, *mut tine_fate, *mut c_void);

pub(super) fn decide(
    function: Decide,
    userdata: Userdata,
) -> impl Fn(&Crash<'_>) -> OnCrash + Send + Sync + 'static {
    move |crash| {
        let peer = storage(crash.peer);
        let is_message = crash.event == Event::Receive;
        let crash = tine_crash {
            conn: crash.conn.into(),
            peer: (&raw const peer).cast(),
            listener: crash.listener.into(),
            user: crash
                .user
                .as_ref()
                .map_or(std::ptr::null(), std::ptr::from_ref),
            event: crash.event.into(),
            attempts: crash.attempts,
            failed: crash.failed,
            flushed: crash.flushed,
            expired: crash.expired,
            message: match is_message {
                true => crash.message.as_ptr().cast(),
                false => std::ptr::null(),
            },
            length: crash.message.len(),
        };
        let mut fate = tine_fate {
            on_crash: tine_on_crash::TINE_ON_CRASH_CLOSE as OnCrashIn,
            attempts: 3,
            reply: std::ptr::null(),
            reply_length: 0,
        };
        // SAFETY: the user's function, called as tine.h says; its argument lives until it returns.
        unsafe { function(&crash, &mut fate, userdata.get()) };
        // SAFETY: it has returned, and tine.h requires the reply to be NULL or `reply_length` bytes until now.
        let decided = unsafe { fate.read() };
        decided.unwrap_or_else(|failure| {
            limited!(
                error,
                Topic::Function,
                "the crash function's decision is invalid: {failure}; the connection is closed"
            );
            OnCrash::Close
        })
    }
}

impl tine_fate {
    /// # Safety
    /// `reply` is NULL or points to `reply_length` bytes.
    unsafe fn read(&self) -> Result<OnCrash, Failure> {
        use tine_on_crash::*;
        let all = [
            TINE_ON_CRASH_CLOSE,
            TINE_ON_CRASH_REDELIVER,
            TINE_ON_CRASH_REPLY,
            TINE_ON_CRASH_KEEP,
            TINE_ON_CRASH_ANSWER,
        ];
        // SAFETY: the caller's word.
        let bytes = || unsafe { reply(self.reply, self.reply_length) };
        match pick("on_crash", self.on_crash, &all.map(|it| (it as i32, it)))? {
            TINE_ON_CRASH_CLOSE => Ok(OnCrash::Close),
            TINE_ON_CRASH_REDELIVER => redeliver(self.attempts),
            TINE_ON_CRASH_REPLY => bytes().map(OnCrash::Reply),
            TINE_ON_CRASH_ANSWER => bytes().map(OnCrash::Answer),
            TINE_ON_CRASH_KEEP => Ok(OnCrash::Keep),
        }
    }
}

pub(super) fn redeliver(attempts: u32) -> Result<OnCrash, Failure> {
    match u8::try_from(attempts) {
        Ok(attempts @ 1..) => Ok(OnCrash::Redeliver { attempts }),
        Ok(0) | Err(_) => Err(Failure::invalid(format!(
            "attempts: {attempts} is not between 1 and 255"
        ))),
    }
}

/// # Safety
/// `reply` is NULL or points to `length` bytes.
pub(super) unsafe fn reply(reply: *const c_void, length: usize) -> Result<Vec<u8>, Failure> {
    // SAFETY: the caller's word.
    match unsafe { bytes("reply", reply, length) }? {
        [] => Err(Failure::invalid(
            "reply: it is empty; to send no reply, use TINE_ON_CRASH_CLOSE",
        )),
        reply => Ok(reply.to_vec()),
    }
}

/// Finds the end of the first message in a connection's bytes. Returns the length of the message in
/// bytes, framing included, even if not all of them have come yet; 0 if the length is not known before
/// more bytes come; a negative number if these bytes can't begin a message, which closes the connection.
/// `bytes` are all bytes that belong to no message yet, at least one, and may include bytes of the next
/// messages; an earlier call has searched the first `seen` of them without finding a whole message. `cursor` is a number
/// of the function's own, kept for the connection from call to call: where the next part of the message begins, for
/// example, so that a long message in many parts is not walked from its first byte each time. It is 0 when `seen` is 0.
///
/// Called where the socket is read. Process mode: in the master by any of its reactor threads: it must be
/// thread-safe, should be quick and must not block, and a crash in it ends the server. Base mode: in the
/// worker.
pub type tine_framing_fn = Option<
    unsafe extern "C-unwind" fn(
        bytes: *const c_void,
        length: usize,
        seen: usize,
        cursor: *mut u64,
        userdata: *mut c_void,
    ) -> isize,
>;

type FindEnd =
    unsafe extern "C-unwind" fn(*const c_void, usize, usize, *mut u64, *mut c_void) -> isize;

pub(super) fn find_end(
    function: FindEnd,
    userdata: Userdata,
) -> impl Fn(&[u8], &mut Search) -> Found + Send + Sync + 'static {
    move |bytes, search| {
        // SAFETY: the user's function, called as tine.h says; its argument lives until it returns.
        let found = unsafe {
            let (start, cursor) = (bytes.as_ptr().cast(), &raw mut search.cursor);
            function(start, bytes.len(), search.seen(), cursor, userdata.get())
        };
        match usize::try_from(found) {
            Ok(0) => Found::More,
            Ok(length) => Found::Message(length),
            Err(_) => Found::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stands_for_its_own_mode() {
        use tine_dispatch::*;
        for (number, mode) in [
            (TINE_DISPATCH_LEAST_CONNECTIONS, Dispatch::LeastConnections),
            (TINE_DISPATCH_LEAST_BUSY, Dispatch::LeastBusy),
            (TINE_DISPATCH_ROUND_ROBIN, Dispatch::RoundRobin),
            (TINE_DISPATCH_CLIENT_ADDRESS, Dispatch::ClientAddress),
            (TINE_DISPATCH_USER_ID, Dispatch::UserId),
        ] {
            assert_eq!(dispatch(number as i32).unwrap(), mode);
        }
        assert!(dispatch(5).is_err());
    }

    #[test]
    fn what_a_crash_function_writes_is_looked_at() {
        let fate = |on_crash, attempts, reply: Option<&[u8]>| {
            let fate = tine_fate {
                on_crash,
                attempts,
                reply: reply.map_or(std::ptr::null(), |bytes| bytes.as_ptr().cast()),
                reply_length: reply.map_or(1, <[u8]>::len),
            };
            // SAFETY: the reply is NULL or a slice with its length.
            unsafe { fate.read() }.ok()
        };
        assert_eq!(fate(0, 0, None), Some(OnCrash::Close));
        assert_eq!(fate(1, 9, None), Some(OnCrash::Redeliver { attempts: 9 }));
        assert_eq!(fate(1, 0, None), None);
        assert_eq!(
            fate(2, 0, Some(b"no")),
            Some(OnCrash::Reply(b"no".to_vec()))
        );
        assert_eq!(fate(2, 0, None), None);
        assert_eq!(fate(3, 0, None), Some(OnCrash::Keep));
        assert_eq!(
            fate(4, 0, Some(b"no")),
            Some(OnCrash::Answer(b"no".to_vec()))
        );
        assert_eq!(fate(5, 3, None), None);
    }
}
