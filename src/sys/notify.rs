//! Messages to the supervisor of a service, sd_notify(3): a datagram to the socket that `NOTIFY_SOCKET` names. systemd
//! reads them, and so do others that keep to the same rules.
//!
//! Its one rule: the supervisor is never waited for, and its absence is no error.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// The variables of sd_notify(3) and sd_watchdog_enabled(3).
const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The supervisor, if there is one that wants to be told.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Watchdog>,
}

/// The supervisor kills a service from which it does not hear.
#[derive(Debug)]
struct Watchdog {
    /// Half of the time that it allows.
    pause: Duration,
    due: Instant,
    /// The answers that are outstanding.
    outstanding: usize,
    has_complained: bool,
}

impl Supervisor {
    /// Returns the supervisor that the environment names, and takes its variables out of the environment, so that a
    /// program that a callback starts does not speak in the name of the service. Called while the process has one
    /// thread.
    pub(crate) fn from_environment() -> Supervisor {
        let socket = env::var_os(SOCKET);
        let millis = |name| env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = millis(WATCHDOG_PID).is_none_or(|pid| pid == u64::from(std::process::id()));
        let pause = millis(WATCHDOG).filter(|micros| is_ours && *micros > 1);
        for name in [SOCKET, WATCHDOG, WATCHDOG_PID] {
            // SAFETY: this process has one thread, and nothing else reads its environment now.
            unsafe { env::remove_var(name) };
        }
        let Some(name) = socket else {
            return Supervisor::default();
        };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(&name),
        };
        let open = || {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>((socket, address?))
        };
        match open() {
            Ok(to) => Supervisor {
                to: Some(to),
                watchdog: pause.map(|micros| Watchdog {
                    pause: Duration::from_micros(micros / 2),
                    due: Instant::now(),
                    outstanding: 0,
                    has_complained: false,
                }),
            },
            Err(error) => {
                log::warn!("cannot speak to the supervisor at {SOCKET}={name:?}: {error}");
                Supervisor::default()
            }
        }
    }

    fn say(&self, message: &str) {
        let Some((socket, to)) = &self.to else {
            return;
        };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), to) {
            log::debug!("the supervisor was not told {message:?}: {error}");
        }
    }

    /// The server serves, or does so again after a reload.
    pub(crate) fn ready(&self, status: &str) {
        let pid = std::process::id();
        self.say(&format!("READY=1\nMAINPID={pid}\nSTATUS={status}"));
    }

    /// Workers are being replaced.
    pub(crate) fn reloading(&self) {
        // systemd wants the time at which that began, to tell it from an earlier one.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let now = now.as_micros();
        self.say(&format!(
            "RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS=reloading"
        ));
    }

    /// The server shuts down.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=shutting down");
    }

    /// Returns when [`tend`](Self::tend) has something to do.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.watchdog.as_ref().map(|watchdog| watchdog.due)
    }

    /// If it is time: tells the supervisor that the service is well, if all parts of it have answered. Returns whether
    /// these `parts` are to be asked now; each answers by [`answered`](Self::answered).
    pub(crate) fn tend(&mut self, now: Instant, parts: usize) -> bool {
        let Some(watchdog) = self.watchdog.as_mut().filter(|it| it.due <= now) else {
            return false;
        };
        watchdog.due = now + watchdog.pause;
        if watchdog.outstanding > 0 {
            if !std::mem::replace(&mut watchdog.has_complained, true) {
                log::error!(
                    "{} of the server's threads and processes do not answer: the supervisor is not told that it is well",
                    watchdog.outstanding
                );
            }
            return false;
        }
        (watchdog.outstanding, watchdog.has_complained) = (parts, false);
        self.say("WATCHDOG=1");
        true
    }

    /// A part of the server has answered.
    pub(crate) fn answered(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.outstanding = watchdog.outstanding.saturating_sub(1);
        }
    }
}
