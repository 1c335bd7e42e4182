//! Deadlines of a listener's connections: for how long a peer may be silent, slow or gone.
//!
//! Its one rule: they are enforced where the sockets are, in a reactor, in base mode in the worker. No
//! callback is needed for them.

use std::time::Duration;

use super::limits::LONGEST;
use super::within_time;
use crate::error::Error;
use crate::sys::listener::Probes;

/// The action at the idle deadline of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum OnIdle {
    /// The connection is closed with FIN, whatever the workers do.
    #[default]
    Close,
    /// [`Handler::idle`](crate::Handler::idle) is called: it may send a ping, or close. It is called again
    /// each time that the deadline has passed.
    Call,
}

/// The deadlines as they were set; `None` is never.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Deadlines {
    pub(super) opening: Option<Duration>,
    pub(super) open: Option<Duration>,
    pub(super) message: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) on_idle: OnIdle,
    pub(super) write: Option<Duration>,
    pub(super) queue: Option<Duration>,
    pub(super) keepalive: Option<Duration>,
    /// `None` if it was not set.
    pub(super) user_timeout: Option<Option<Duration>>,
}

const fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

impl Deadlines {
    /// They end clients that cost something and do nothing for it, and spare a chat: its clients may listen
    /// for hours without a word.
    pub(super) const DEFAULT: Deadlines = Deadlines {
        opening: seconds(10),
        open: seconds(60),
        // 8 MiB, the longest message by default, at 0.6 Mbit/s.
        message: seconds(120),
        idle: None,
        on_idle: OnIdle::Close,
        write: seconds(60),
        queue: None,
        keepalive: seconds(60),
        user_timeout: None,
    };

    /// Checks each deadline.
    ///
    /// # Errors
    /// The first that is out of its range.
    pub(super) fn validate(&self) -> Result<(Silence, Probes), Error> {
        let user_timeout = match self.user_timeout {
            Some(set) => set,
            None => self.default_user_timeout(),
        };
        for (name, time, least) in [
            ("opening_deadline", self.opening, 1),
            ("open_deadline", self.open, 1),
            ("message_deadline", self.message, 1),
            ("idle", self.idle, 1),
            ("write_deadline", self.write, 1),
            ("queue_deadline", self.queue, 1),
            ("keepalive", self.keepalive, 1000),
            ("user_timeout", user_timeout, 1),
        ] {
            if let Some(time) = time {
                // The kernel's longest keepalive time is 32,767 s, and its numbers have 31 bits.
                let most = match name {
                    "keepalive" => Duration::from_secs(32_767),
                    "user_timeout" => Duration::from_secs(24 * 24 * 3600),
                    _ => LONGEST,
                };
                within_time(name, time, Duration::from_millis(least), most)?;
            }
        }
        let probes = Probes {
            keepalive: self.keepalive,
            user_timeout,
        };
        Ok((self.silence(), probes))
    }

    fn silence(&self) -> Silence {
        let millis = |time: Option<Duration>| time.map_or(NEVER, |time| time.as_millis() as u64);
        Silence {
            opening: millis(self.opening),
            open: millis(self.open),
            message: millis(self.message),
            idle: millis(self.idle),
            calls_idle: self.on_idle == OnIdle::Call,
            write: millis(self.write),
            queue: millis(self.queue),
        }
    }

    /// Returns two minutes, or longer: the kernel ends a connection after the user timeout even if its peer
    /// answers and takes no bytes, and after a single lost keepalive probe, tcp(7).
    fn default_user_timeout(&self) -> Option<Duration> {
        const LEAST: Duration = Duration::from_secs(120);
        let probed = self.keepalive.map_or(LEAST, |time| 2 * time);
        self.write.map(|write| write.max(probed).max(LEAST))
    }
}

/// A deadline that never passes.
pub(crate) const NEVER: u64 = u64::MAX;

/// Valid deadlines, in milliseconds; [`NEVER`] if there is none.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Silence {
    pub(crate) opening: u64,
    pub(crate) open: u64,
    pub(crate) message: u64,
    pub(crate) idle: u64,
    pub(crate) calls_idle: bool,
    pub(crate) write: u64,
    pub(crate) queue: u64,
}

impl Silence {
    /// Returns the time that a new connection has, or one that is open now.
    pub(crate) fn first(&self, is_opening: bool) -> u64 {
        match is_opening {
            true => self.opening,
            false => self.open.min(self.idle),
        }
    }
}
