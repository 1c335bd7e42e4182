//! The handler of a worker: it relays each event to the program, and each answer to the client.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use nix::sys::signal::Signal;
use tine::{Closed, Conn, Context, Handler, Result, SendError};

use super::Exec;
use super::event::{Event, Kind};
use super::exchange::Pipes;
use super::format::{Format, Said};
use super::program::Program;
use super::watch::{self, Shared, end_worker};

/// A program that ends within this time of its start did not start: its arguments are wrong, mostly.
const GRACE: Duration = Duration::from_millis(100);

/// One worker's handler.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    pipes: Pipes,
    format: Format,
    tells_connects: bool,
    tells_closes: bool,
    patience: Duration,
    /// Closed when the thread ends that watches the program.
    watch: Receiver<()>,
    /// The question under way, without its message.
    head: Vec<u8>,
}

impl Relay {
    /// Starts the program, and waits until it says that it has started if it is to say so.
    pub(super) fn start(exec: &Exec) -> io::Result<Relay> {
        let what = |error| io::Error::other(format!("cannot start `{}`: {error}", exec.command));
        let (mut program, pipes, errors) = Program::start(exec).map_err(what)?;
        let says_start = exec.events.contains(&Kind::Start);
        if !says_start {
            program.ends_within(GRACE);
        }
        let (shared, watch) = watch::start(program, &pipes, errors)?;
        let mut relay = Relay {
            shared,
            pipes,
            format: exec.format,
            tells_connects: exec.events.contains(&Kind::Connect),
            tells_closes: exec.events.contains(&Kind::Close),
            patience: exec.patience,
            watch,
            head: Vec::new(),
        };
        match says_start {
            true => relay.exchange(&Event::START, &mut |_| {
                Err("an answer to `start` that is not empty".to_owned())
            }),
            false => relay.is_silent(),
        }
        Ok(relay)
    }

    /// Takes an event to the program, and its answer to the client.
    fn relay(
        &mut self,
        kind: Kind,
        cx: &Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
        closed: Option<Closed>,
    ) {
        let event = Event::new(kind, cx, conn, message, closed);
        self.exchange(&event, &mut |said| {
            let sent = match said {
                Said::Send(bytes) => conn.send(bytes),
                Said::Close => {
                    conn.close();
                    Ok(())
                }
            };
            match sent {
                // Nothing can be said to a connection that is broken or was closed by a deadline.
                Err(SendError::Closed) if closed.is_some() => Ok(()),
                Err(SendError::Closed) => Err("more to a connection that it has closed".to_owned()),
                Err(error) => Err(format!("too long an answer: {error}")),
                Ok(()) => Ok(()),
            }
        });
    }

    /// Asks the program. Does not return if the program does not do its part.
    fn exchange(
        &mut self,
        event: &Event<'_>,
        said: &mut dyn FnMut(Said<'_>) -> Result<(), String>,
    ) {
        let mut program = self.shared.begin();
        let format = self.format;
        self.head.clear();
        let message = format.ask(event, &mut self.head);
        let mut answer = |bytes: &[u8], seen| format.answer(bytes, seen, said);
        if let Err(fault) = self.pipes.exchange([&self.head, message], &mut answer) {
            self.shared.allow_end();
            end_worker(&mut program, &fault, &event.place(), || {
                Shared::await_last_lines(&self.watch);
            });
        }
    }

    /// Ends the worker if the program has ended already, or has begun by itself to write.
    fn is_silent(&mut self) {
        let mut program = self.shared.begin();
        if let Err(fault) = self.pipes.is_silent() {
            self.shared.allow_end();
            end_worker(&mut program, &fault, "at its start", || {
                Shared::await_last_lines(&self.watch);
            });
        }
    }
}

impl Handler for Relay {
    fn connect(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        if self.tells_connects {
            self.relay(Kind::Connect, cx, conn, &[], None);
        }
        Ok(())
    }

    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, message: &[u8]) -> Result {
        self.relay(Kind::Receive, cx, conn, message, None);
        Ok(())
    }

    fn close(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, closed: Closed) -> Result {
        if self.tells_closes {
            self.relay(Kind::Close, cx, conn, &[], Some(closed));
        }
        Ok(())
    }

    /// The program learns of the end by the end of its input.
    fn stop(&mut self) {
        let mut program = self.shared.begin();
        self.shared.allow_end();
        self.pipes.input = None;
        if !program.ends_within(self.patience) {
            let pid = program.pid();
            let seconds = self.patience.as_secs_f64();
            log::warn!(
                "program[pid={pid}] has not left {seconds} s after the end of its input: it gets SIGTERM, and \
                 SIGKILL as long after that"
            );
            program.signal(Signal::SIGTERM);
            program.ends_within(self.patience);
        }
        program.kill();
        Shared::await_last_lines(&self.watch);
    }
}
