//! The flags of `tine serve` for peers that are silent, slow or gone.

use std::time::Duration;

use clap::Args;
use tine::Listener;

use super::serve::{Deadline, deadline};

/// The deadlines of connections. Those that are not given have the library's defaults.
#[derive(Args)]
pub(super) struct Silence {
    /// Seconds until a connection is closed on which neither side has said anything; or never [default:
    /// 60].
    #[arg(long, value_name = "SECONDS|never", value_parser = deadline)]
    open_deadline: Option<Deadline>,

    /// Seconds that a client may take for one message, from its first byte to its last, unless the protocol
    /// is raw; or never [default: 120].
    #[arg(long, value_name = "SECONDS|never", value_parser = deadline)]
    message_deadline: Option<Deadline>,

    /// Seconds until a client is closed that says nothing, and to which nothing is due; or never [default:
    /// never].
    #[arg(long, value_name = "SECONDS|never", value_parser = deadline)]
    idle: Option<Deadline>,

    /// Seconds until a client is reset that acknowledges nothing, while output for it is unsent; or never
    /// [default: 60].
    #[arg(long, value_name = "SECONDS|never", value_parser = deadline)]
    write_deadline: Option<Deadline>,

    /// Seconds that a message may wait until a worker begins it, in process mode: then its client gets the
    /// reply of --on-crash, if there is one, and is closed; or never [default: never].
    #[arg(long, value_name = "SECONDS|never", value_parser = deadline)]
    queue_deadline: Option<Deadline>,

    /// Seconds of silence after which the kernel probes a client; one that answers none of six probes in as
    /// long again is gone; or never [default: 60].
    #[arg(long, value_name = "SECONDS|never", value_parser = deadline)]
    keepalive: Option<Deadline>,

    /// Seconds until the kernel gives up a client that acknowledges nothing (TCP_USER_TIMEOUT); or never
    /// [default: 120, or longer if the write deadline or twice the keepalive time is].
    #[arg(long, value_name = "SECONDS|never", value_parser = deadline)]
    user_timeout: Option<Deadline>,
}

impl Silence {
    /// Returns the listener with these deadlines.
    pub(super) fn apply(&self, listener: Listener) -> Listener {
        type Set = fn(Listener, Option<Duration>) -> Listener;
        let deadlines: [(Option<Deadline>, Set); 7] = [
            (self.open_deadline, |it, time| it.open_deadline(time)),
            (self.message_deadline, |it, time| it.message_deadline(time)),
            (self.idle, |it, time| it.idle(time)),
            (self.write_deadline, |it, time| it.write_deadline(time)),
            (self.queue_deadline, |it, time| it.queue_deadline(time)),
            (self.keepalive, |it, time| it.keepalive(time)),
            (self.user_timeout, |it, time| it.user_timeout(time)),
        ];
        let set = |listener, (deadline, set): (Option<Deadline>, Set)| match deadline {
            Some(Deadline(time)) => set(listener, time),
            None => listener,
        };
        deadlines.into_iter().fold(listener, set)
    }
}
