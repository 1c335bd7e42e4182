//! A handler that carries out commands, one in each line of text.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::thread;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::AcceptConn};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Uid, alarm, fork, pause, seteuid};
use tine::{Closed, Conn, ConnId, Context, Handler, Task, Worker};

use super::options::{LOOK, Options};
use super::{groups, hostile, origin, poster, posts, session, tasks, ticks};

pub(crate) struct Script {
    options: Options,
    /// The worker at its start.
    started_as: Worker,
    connected: Vec<ConnId>,
}

impl Script {
    /// Starts a worker, unless it is asked not to.
    pub(crate) fn start(options: Options, worker: Worker) -> tine::Result<Script> {
        let script = Script {
            options,
            started_as: worker,
            connected: Vec::new(),
        };
        script.pass_the_gate()?;
        if let Some(uid) = script.options.get("uid") {
            hostile::drop_rights(uid, worker.seat())?;
        }
        Ok(script)
    }

    /// Adds a line to the file `heard`, if the test has one. Unlike log lines, these are never dropped.
    fn note(&self, line: &str) -> tine::Result {
        if self.options.get("gates").is_some() {
            let heard = self.options.gate("heard");
            let mut heard = OpenOptions::new().create(true).append(true).open(heard)?;
            heard.write_all(format!("{line}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Obeys the file `starts`: while it says `hold`, no worker gets ready.
    fn pass_the_gate(&self) -> tine::Result {
        loop {
            match fs::read_to_string(self.options.gate("starts")).as_deref() {
                Ok("hold") => thread::sleep(LOOK),
                Ok("fail") => return Err("asked not to start".into()),
                _ => return Ok(()),
            }
        }
    }

    /// Answers a question.
    fn answer(
        &self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
        (command, rest): (&str, &str),
    ) -> tine::Result {
        match command {
            "echo" => conn.send(message)?,
            "id" => conn.send(format!("{}\n", conn.id().as_u64()).as_bytes())?,
            "peer" => conn.send(format!("{}\n", conn.peer()).as_bytes())?,
            "origin" => conn.send(&origin::line(&conn.origin(), rest))?,
            "attempt" => conn.send(format!("{}\n", conn.attempt()).as_bytes())?,
            "pid" => conn.send(format!("{}\n", std::process::id()).as_bytes())?,
            "seat" => {
                let seat = cx.worker().seat().ok_or("no seat")?;
                conn.send(format!("{seat}\n").as_bytes())?;
            }
            "generation" => conn.send(format!("{}\n", cx.worker().generation()).as_bytes())?,
            "stats" => {
                let stats = cx.stats();
                conn.send(format!("{} {}\n", stats.connections, stats.accepted).as_bytes())?;
            }
            "poisoned" => conn.send(format!("{}\n", cx.stats().poisoned).as_bytes())?,
            "listener" => {
                let id = conn.listener();
                let (index, name) = (id.index(), cx.listener_name(id));
                conn.send(format!("{index} {name}\n").as_bytes())?;
            }
            "handle" => {
                let stopped = self.options.handle.stop();
                conn.send(format!("{stopped:?}\n").as_bytes())?;
            }
            _ => return self.act(cx, conn, message, (command, rest)),
        }
        Ok(())
    }

    /// Makes output, and calls the server.
    fn act(
        &self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
        (command, rest): (&str, &str),
    ) -> tine::Result {
        match command {
            "user" => {
                conn.set_user(rest.parse()?);
                conn.send(b"user set\n")?;
            }
            "stop" => {
                cx.server().stop();
                conn.send(b"stopping\n")?;
            }
            "reload" => {
                cx.server().reload();
                conn.send(b"reloading\n")?;
            }
            "to" => {
                let (id, text) = rest.split_once(' ').ok_or("to ID TEXT")?;
                let id = ConnId::from_u64(id.parse()?).ok_or("no id")?;
                let sent = cx.conn(id).send(format!("{text}\n").as_bytes());
                conn.send(format!("{sent:?}\n").as_bytes())?;
            }
            // Parts of the message itself, between other bytes.
            "pass" => {
                let (id, text) = rest.split_once(' ').ok_or("pass ID TEXT")?;
                let id = ConnId::from_u64(id.parse()?).ok_or("no id")?;
                cx.conn(id).send(b"<")?;
                cx.conn(id).send(text.as_bytes())?;
                cx.conn(id).send(b">\n")?;
                conn.send(&message[..4])?;
                conn.send(b"ed\n")?;
            }
            "end" => {
                let id = ConnId::from_u64(rest.parse()?).ok_or("no id")?;
                let ended = cx.conn(id).close();
                conn.send(format!("{ended:?}\n").as_bytes())?;
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
                conn.close();
            }
            _ => return self.block(cx, conn, (command, rest)),
        }
        Ok(())
    }

    /// Waits and leaks.
    fn block(
        &self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        (command, rest): (&str, &str),
    ) -> tine::Result {
        match command {
            "wait" => {
                self.options.wait_for(rest);
                conn.send(format!("waited {}\n", std::process::id()).as_bytes())?;
            }
            "wait-and-ask" => self.wait_and_ask(cx, conn, rest)?,
            "span" => {
                let (number, micros) = rest.split_once(' ').ok_or("span NUMBER MICROSECONDS")?;
                let begin = now()?;
                thread::sleep(Duration::from_micros(micros.parse()?));
                let (end, pid) = (now()?, std::process::id());
                conn.send(format!("{number} {begin} {end} {pid}\n").as_bytes())?;
            }
            "close-many" => {
                let (id, count) = rest.split_once(' ').ok_or("close-many ID COUNT")?;
                let id = ConnId::from_u64(id.parse()?).ok_or("no id")?;
                let close = |_: &usize| cx.conn(id).close().is_ok();
                let closed = (0..count.parse()?).filter(close).count();
                conn.send(format!("{closed}\n").as_bytes())?;
            }
            "users" => {
                (0..rest.parse()?).for_each(|user| conn.set_user(user));
                (0..2).for_each(|_| cx.server().reload());
                conn.send(b"users set\n")?;
            }
            // After this many flushed reloads.
            "stop-flush-and-die" => {
                for _ in 0..rest.parse()? {
                    cx.server().reload();
                    conn.flush();
                }
                cx.server().stop();
                conn.send(b"stopping\n")?;
                conn.flush();
                std::process::abort();
            }
            "leak" => {
                // With a gate, the callback then waits for it.
                let (mib, gate) = rest.split_once(' ').unwrap_or((rest, ""));
                let mib: usize = mib.parse()?;
                // Each page is written: reserved memory does not count.
                std::mem::forget(vec![1_u8; mib << 20]);
                if !gate.is_empty() {
                    self.options.wait_for(gate);
                }
                conn.send(b"leaked\n")?;
            }
            "variable" => conn.send(format!("{:?}\n", std::env::var_os(rest)).as_bytes())?,
            "attack" => {
                let (found, uid) = (self.options.gate("found"), self.options.get("uid"));
                let answer = hostile::attack(rest, found, uid == Some("by-seat"));
                conn.send(answer.as_bytes())?;
            }
            "fork" => {
                fork_and_hold()?;
                conn.send(b"forked\n")?;
            }
            _ => return self.fail(cx, conn, (command, rest)),
        }
        Ok(())
    }

    /// Waits, asks the master something, and notes the answer.
    fn wait_and_ask(&self, cx: &mut Context<'_>, conn: &mut Conn<'_>, gate: &str) -> tine::Result {
        self.options.wait_for(gate);
        let answer = format!("{:?}\n", cx.exists(conn.id()));
        self.note(answer.trim_end())?;
        Ok(conn.send(answer.as_bytes())?)
    }

    /// Gives something to the server to keep.
    fn keep(
        &self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        (command, rest): (&str, &str),
    ) -> tine::Result {
        let is_known = session::carry_out(conn, command, rest)?
            || posts::carry_out(cx, conn, command, rest)?
            || poster::carry_out(cx, conn, command, rest)?
            || tasks::carry_out(cx, conn, command, rest)?
            || groups::carry_out(cx, conn, command, rest)?
            || ticks::carry_out(cx, conn, command, rest)?;
        match is_known {
            true => Ok(()),
            false => Ok(conn.send(b"what?\n")?),
        }
    }

    /// Fails and dies.
    fn fail(
        &self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        (command, rest): (&str, &str),
    ) -> tine::Result {
        match command {
            "error" => return Err(rest.into()),
            "panic" => panic!("{rest}"),
            "close-listeners" => conn.send(format!("{}\n", close_listeners()).as_bytes())?,
            "fork-and-return" => {
                if !is_forked()? {
                    conn.send(b"once\n")?;
                }
            }
            "become" => {
                seteuid(Uid::from_raw(rest.parse()?))?;
                conn.send(b"became\n")?;
            }
            // Ends this worker, as it would end any process.
            "alarm" => {
                alarm::set(1);
                self.options.wait_for("never");
            }
            "stop-and-fail" => {
                cx.server().stop();
                return Err("asked to fail".into());
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
            "fail" => return Err("asked to fail".into()),
            "send-and-fail" => {
                conn.send(b"never seen\n")?;
                conn.set_user(7);
                return Err("asked to fail".into());
            }
            "flush-and-fail" => {
                conn.send(b"flushed\n")?;
                conn.flush();
                conn.send(b"never seen\n")?;
                return Err("asked to fail".into());
            }
            "fail-once" => {
                if conn.attempt() == 0 {
                    conn.send(b"never seen\n")?;
                    return Err("asked to fail once".into());
                }
                conn.send(format!("recovered {}\n", conn.attempt()).as_bytes())?;
            }
            _ => return self.keep(cx, conn, (command, rest)),
        }
        Ok(())
    }
}

impl Handler for Script {
    fn seated(&mut self, worker: Worker) -> tine::Result {
        let before = self.started_as.seat();
        log::info!("seated in {:?}, was in {before:?}", worker.seat());
        Ok(())
    }

    fn connect(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
        self.connected.push(conn.id());
        log::info!("connect of {} from {}", conn.id(), conn.peer());
        self.note(&format!("connect of {}", conn.id()))?;
        if self.options.get("connect") == Some("die") {
            std::process::abort();
        }
        Ok(())
    }

    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
    ) -> tine::Result {
        let line = std::str::from_utf8(message)?.trim_end();
        // This command is for the dispatch function.
        let line = line.trim_start_matches(|first: char| first.is_ascii_digit() || first == '!');
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        self.answer(cx, conn, message, (command, rest))
    }

    fn timer(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, tag: u64) -> tine::Result {
        session::fired(conn, tag)
    }

    fn drained(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
        session::stream(conn)
    }

    fn post(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> tine::Result {
        posts::arrived(cx, bytes)
    }

    fn task(&mut self, cx: &mut Context<'_>, task: &mut Task<'_>) -> tine::Result {
        tasks::run(&self.options, cx, task)
    }

    fn finished(&mut self, cx: &mut Context<'_>, tag: u64, result: &[u8]) -> tine::Result {
        tasks::finished(cx, tag, result)
    }

    fn server_timer(&mut self, cx: &mut Context<'_>, tag: u64) -> tine::Result {
        if tag == ticks::FROM_START {
            let seat = cx.worker().seat().ok_or("no seat")?;
            return self.note(&format!("tick {seat}"));
        }
        ticks::fired(cx, tag, self.options.get("tick") == Some("die"))
    }

    fn paused(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
        log::info!("paused of {} attempt={}", conn.id(), conn.attempt());
        if let Some(gate) = self.options.get("paused") {
            self.options.wait_for(gate);
            std::process::abort();
        }
        Ok(())
    }

    fn idle(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result {
        log::info!("idle of {}", conn.id());
        match self.options.get("on-idle") {
            Some("ping") => conn.send(b"ping\n")?,
            _ => conn.close(),
        }
        Ok(())
    }

    fn close(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, closed: Closed) -> tine::Result {
        log::info!(
            "close of {} reason={:?} past_deadline={} retried={}",
            conn.id(),
            closed.reason,
            closed.past_deadline,
            closed.retried
        );
        self.note(&format!(
            "close of {} retried={}",
            conn.id(),
            closed.retried
        ))?;
        match self.options.get("close") {
            Some("tell-and-die") => {
                for id in self.connected.iter().filter(|id| **id != conn.id()) {
                    cx.conn(*id).send(b"left\n")?;
                }
                conn.flush();
                std::process::abort();
            }
            Some("say") => {
                let said = conn.send(format!("closed: {:?}\n", closed.reason).as_bytes());
                log::info!("said {:?}: {said:?}", closed.reason);
                Ok(())
            }
            Some("part") => groups::part(cx, conn),
            Some("die") => std::process::abort(),
            Some("die-once") if !closed.retried => std::process::abort(),
            _ => Ok(()),
        }
    }

    fn stop(&mut self) {
        poster::stop();
        log::info!("stopped in order");
    }
}

/// A child that does nothing, with a copy of every descriptor, for as long as this process lives.
#[allow(unsafe_code)] // The test is about a bare fork.
fn fork_and_hold() -> nix::Result<()> {
    // SAFETY: the child only makes system calls.
    if let ForkResult::Child = unsafe { fork() }? {
        // A child that outlives the worker does no harm: it is killed with its group.
        let _ = set_pdeathsig(Signal::SIGKILL);
        loop {
            pause();
        }
    }
    Ok(())
}

/// Forks, and says which side this is. The child has none of the memory in which a worker and its master meet.
#[allow(unsafe_code)] // The test is about a bare fork.
fn is_forked() -> nix::Result<bool> {
    // SAFETY: there is one thread.
    let forked = unsafe { fork() }?;
    Ok(matches!(forked, ForkResult::Child))
}

/// Closes every listening socket of this process, as a program does that closes what it finds. Returns their number.
#[allow(unsafe_code)] // They belong to the library.
fn close_listeners() -> usize {
    let listens = |fd: &i32| {
        // SAFETY: the descriptor is borrowed for this call. If it is closed, the kernel says so.
        let socket = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
        getsockopt(&socket, AcceptConn).unwrap_or(false)
    };
    // SAFETY: takes an integer. That the library's own descriptors are closed is the point.
    let closed = (3..256)
        .filter(listens)
        .map(|fd| unsafe { libc::close(fd) });
    closed.count()
}

/// Nanoseconds on a clock that all processes share.
fn now() -> nix::Result<i128> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()))
}
