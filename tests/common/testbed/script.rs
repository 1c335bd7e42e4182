//! A handler that does what a line of text says, one command a line.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::thread;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, fork, pause};
use tine::{Closed, Conn, ConnId, Handler, Outcome, Worker};

use super::options::Options;

/// How often a callback that waits looks whether it may go on.
const LOOK: Duration = Duration::from_millis(2);

pub(crate) struct Script {
    options: Options,
    worker: Option<Worker>,
    connected: Vec<ConnId>,
}

impl Script {
    pub(crate) fn new(options: Options) -> Script {
        Script {
            options,
            worker: None,
            connected: Vec::new(),
        }
    }

    /// Returns when the test has opened this gate.
    fn wait_for(&self, gate: &str) {
        while !self.options.gate(gate).exists() {
            thread::sleep(LOOK);
        }
    }

    /// Adds a line to the file `heard`, if the test has a place for it. Unlike a line of the log, none is dropped.
    fn note(&self, line: &str) -> Outcome {
        if self.options.get("gates").is_some() {
            let heard = self.options.gate("heard");
            let mut heard = OpenOptions::new().create(true).append(true).open(heard)?;
            heard.write_all(format!("{line}\n").as_bytes())?;
        }
        Ok(())
    }

    /// What the file `starts` says becomes of workers: `hold` keeps one from starting for as long as it does.
    fn pass_the_gate(&self) -> Outcome {
        loop {
            match fs::read_to_string(self.options.gate("starts")).as_deref() {
                Ok("hold") => thread::sleep(LOOK),
                Ok("fail") => return Err("asked not to start".into()),
                _ => return Ok(()),
            }
        }
    }
}

impl Handler for Script {
    fn worker_start(&mut self, worker: Worker) -> Outcome {
        self.worker = Some(worker);
        self.pass_the_gate()
    }

    fn worker_seated(&mut self, worker: Worker) -> Outcome {
        let before = self.worker.replace(worker);
        log::info!("seated in {:?}, was {before:?}", worker.seat());
        Ok(())
    }

    fn connect(&mut self, conn: &mut Conn<'_>) -> Outcome {
        self.connected.push(conn.id());
        log::info!("connect of {} from {}", conn.id(), conn.peer());
        self.note(&format!("connect of {}", conn.id()))?;
        if self.options.get("connect") == Some("die") {
            std::process::abort();
        }
        Ok(())
    }

    fn receive(&mut self, conn: &mut Conn<'_>, message: &[u8]) -> Outcome {
        let line = std::str::from_utf8(message)?.trim_end();
        // A dispatch function has looked at this.
        let line = line.trim_start_matches(|first: char| first.is_ascii_digit() || first == '!');
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "echo" => conn.send(message)?,
            "id" => conn.send(format!("{}\n", conn.id().as_u64()).as_bytes())?,
            "peer" => conn.send(format!("{}\n", conn.peer()).as_bytes())?,
            "attempt" => conn.send(format!("{}\n", conn.attempt()).as_bytes())?,
            "pid" => conn.send(format!("{}\n", std::process::id()).as_bytes())?,
            "seat" => {
                let seat = self.worker.and_then(|worker| worker.seat());
                conn.send(format!("{}\n", seat.ok_or("no seat")?).as_bytes())?;
            }
            "generation" => conn.send(
                format!("{:?}\n", self.worker.map(|worker| worker.generation())).as_bytes(),
            )?,
            "stats" => conn.send(
                format!("{} {}\n", conn.stats().connections, conn.stats().accepted).as_bytes(),
            )?,
            "poisoned" => conn.send(format!("{}\n", conn.stats().poisoned).as_bytes())?,
            "bind" => {
                conn.bind(rest.parse()?);
                conn.send(b"bound\n")?;
            }
            "wait" => {
                self.wait_for(rest);
                conn.send(format!("waited {}\n", std::process::id()).as_bytes())?;
            }
            "span" => {
                let (number, micros) = rest.split_once(' ').ok_or("span NUMBER MICROSECONDS")?;
                let begin = now()?;
                thread::sleep(Duration::from_micros(micros.parse()?));
                let (end, pid) = (now()?, std::process::id());
                conn.send(format!("{number} {begin} {end} {pid}\n").as_bytes())?;
            }
            "to" => {
                let (id, text) = rest.split_once(' ').ok_or("to ID TEXT")?;
                let id = ConnId::from_u64(id.parse()?).ok_or("no id")?;
                let sent = conn.send_to(id, format!("{text}\n").as_bytes());
                conn.send(format!("{sent:?}\n").as_bytes())?;
            }
            // Parts of the message itself, between bytes that are not.
            "pass" => {
                let (id, text) = rest.split_once(' ').ok_or("pass ID TEXT")?;
                let id = ConnId::from_u64(id.parse()?).ok_or("no id")?;
                conn.send_to(id, b"<")?;
                conn.send_to(id, text.as_bytes())?;
                conn.send_to(id, b">\n")?;
                conn.send(&message[..4])?;
                conn.send(b"ed\n")?;
            }
            "end" => {
                let id = ConnId::from_u64(rest.parse()?).ok_or("no id")?;
                conn.close_other(id);
                conn.send(b"ended\n")?;
            }
            "close" => {
                conn.send(b"bye\n")?;
                conn.close();
            }
            "reset" => conn.reset(),
            "big" => conn.send(&vec![b'x'; rest.parse()?])?,
            "too-much" => {
                let refused = conn.send(&vec![0; 32 << 20]);
                conn.send(format!("{refused:?}\n").as_bytes())?;
            }
            "fill" => {
                while conn.send(&[b'x'; 100]).is_ok() {}
                return Err("nothing more fits".into());
            }
            "die-once" => {
                if conn.attempt() == 0 {
                    conn.send(b"never seen\n")?;
                    std::process::abort();
                }
                conn.send(format!("survived {}\n", conn.attempt()).as_bytes())?;
            }
            "die" => {
                conn.send(b"never seen\n")?;
                std::process::abort();
            }
            "flush-and-die" => {
                conn.send(b"flushed\n")?;
                conn.flush();
                conn.send(b"never seen\n")?;
                std::process::abort();
            }
            "leak" => {
                let mib: usize = rest.parse()?;
                // Each page is written: memory that is only reserved is not there.
                std::mem::forget(vec![1_u8; mib << 20]);
                conn.send(b"leaked\n")?;
            }
            "fork" => {
                fork_and_hold()?;
                conn.send(b"forked\n")?;
            }
            "fail" => return Err("asked to fail".into()),
            _ => conn.send(b"what?\n")?,
        }
        Ok(())
    }

    fn buffer_full(&mut self, conn: &mut Conn<'_>) -> Outcome {
        log::info!("buffer_full of {} attempt={}", conn.id(), conn.attempt());
        if let Some(gate) = self.options.get("buffer-full") {
            self.wait_for(gate);
            std::process::abort();
        }
        Ok(())
    }

    fn close(&mut self, conn: &mut Conn<'_>, closed: Closed) -> Outcome {
        log::info!(
            "close of {} reason={:?} late={} again={}",
            conn.id(),
            closed.reason,
            closed.late,
            closed.again
        );
        self.note(&format!("close of {} again={}", conn.id(), closed.again))?;
        match self.options.get("close") {
            Some("die") => std::process::abort(),
            Some("die-once") if !closed.again => std::process::abort(),
            _ => Ok(()),
        }
    }
}

/// A child that does nothing, with a copy of every descriptor, for as long as this process lives.
#[allow(unsafe_code)] // What is tested is what a bare fork leaves behind.
fn fork_and_hold() -> nix::Result<()> {
    // SAFETY: the child makes system calls alone.
    if let ForkResult::Child = unsafe { fork() }? {
        // A child that outlives the worker would not be noticed: it is killed with its group.
        let _ = set_pdeathsig(Signal::SIGKILL);
        loop {
            pause();
        }
    }
    Ok(())
}

/// Nanoseconds on a clock that all processes share.
fn now() -> nix::Result<i128> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()))
}
