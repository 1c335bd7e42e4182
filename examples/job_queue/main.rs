//! A job queue for clients of beanstalkd, whose jobs are in an SQLite database.
//!
//!     cargo run --release --example job_queue -- 127.0.0.1:11300 /tmp/jobs.db
//!     $ printf 'put 0 0 60 5\r\nhello\r\nreserve\r\n' | nc -q1 127.0.0.1 11300
//!     INSERTED 1
//!     RESERVED 1 5
//!     hello
//!
//! It shows late answers. A `reserve` that finds no job is answered by a later callback: of a post, when a job has
//! come, or of a timer, when its time is over. Which one it is, is decided in the database, so that a job goes to one
//! client and a client has one answer, whatever workers die meanwhile. A timer of the server looks for jobs whose delay
//! or time to run has passed. Which tubes a connection uses and watches
//! is its state.
//!
//! The protocol is that of <https://github.com/beanstalkd/beanstalkd/blob/master/doc/protocol.txt>. Left out are the
//! statistics of tubes and of the server, DEADLINE_SOON, `pause-tube`, `reserve-job` and `kick-job`; `peek` finds jobs by
//! their numbers alone, and a job that is too long ends its connection.
#![allow(clippy::print_stdout)] // The line that says where it listens.

mod command;
mod store;

use std::env;
use std::time::Duration;

use command::{BAD_FORMAT, Command, LONGEST_JOB, LONGEST_LINE};
use env_logger::Env;
use rusqlite::Transaction;
use store::{Asked, By, Store};
use tine::{
    CloseReason, Closed, Conn, ConnId, Context, Dispatch, Handler, Listener, OnCrash, Protocol,
    Run, Server, To,
};

/// A promise lasts an hour at most, so a `reserve` without a time makes another one before.
const PROMISE: Duration = Duration::from_secs(3600);
const RENEWAL: Duration = Duration::from_secs(3000);
const TIMED_OUT: &[u8] = b"TIMED_OUT\r\n";

/// The timers of a connection have the number of the `reserve` as their tag; this bit is set if it waits without end.
const ENDLESS: u64 = 1 << 63;

/// The timer of the server that looks at the clock, and its interval.
const CLOCK: u64 = 0;
const TICK: Duration = Duration::from_millis(100);

struct JobQueue {
    store: Store,
}

/// The state of a connection.
struct Session {
    /// The timer of its last `reserve` that has waited.
    timer: u64,
    /// The tube that it puts jobs into, and those that it watches.
    used: String,
    watched: Vec<String>,
}

impl Session {
    fn of(conn: &Conn<'_>) -> tine::Result<Session> {
        let state = match conn.state() {
            [] => "0 default default",
            state => str::from_utf8(state)?,
        };
        let mut words = state.split(' ');
        let mut word = || words.next().ok_or("a state has three words");
        Ok(Session {
            timer: word()?.parse()?,
            used: word()?.to_owned(),
            watched: words.map(str::to_owned).collect(),
        })
    }

    fn keep(&self, conn: &mut Conn<'_>) -> tine::Result {
        let state = format!("{} {} {}", self.timer, self.used, self.watched.join(" "));
        Ok(conn.set_state(state.as_bytes())?)
    }

    fn watched(&self) -> Vec<&str> {
        self.watched.iter().map(String::as_str).collect()
    }
}

/// A post: a `reserve` is to be answered if there is a job.
struct Wanted<'a> {
    asked: Asked,
    /// The number of the post; `None` if the `reserve` has just come, and is to wait otherwise.
    number: Option<i64>,
    tubes: Vec<&'a str>,
}

impl<'a> Wanted<'a> {
    fn encode(asked: Asked, number: Option<i64>, tubes: &[&str]) -> String {
        let (conn, message) = (asked.conn.as_u64(), asked.message);
        let number = number.map_or("new".to_owned(), |number| number.to_string());
        format!("{conn} {message} {number} {}", tubes.join(" "))
    }

    fn decode(post: &'a [u8]) -> Option<Wanted<'a>> {
        let mut words = str::from_utf8(post).ok()?.split(' ');
        let conn = ConnId::from_u64(words.next()?.parse().ok()?)?;
        let message = words.next()?.parse().ok()?;
        Some(Wanted {
            asked: Asked { conn, message },
            number: match words.next()? {
                "new" => None,
                number => Some(number.parse().ok()?),
            },
            tubes: words.collect(),
        })
    }
}

impl JobQueue {
    /// Has a job of this tube given to the first one that waits for it, if there are both. It may be asked for more
    /// often than needed.
    fn wake(&self, cx: &mut Context<'_>, tube: &str) -> tine::Result {
        if let Some((asked, number)) = self.store.first_waiter(tube)? {
            let post = Wanted::encode(asked, Some(number), &[tube]);
            cx.post(To::LeastBusy, post.as_bytes())?;
        }
        Ok(())
    }

    /// Answers a command that changes a job, once.
    fn change(
        &mut self,
        (cx, conn): (&mut Context<'_>, &mut Conn<'_>),
        change: impl FnOnce(&Transaction<'_>, &Session) -> rusqlite::Result<String>,
    ) -> tine::Result {
        let (asked, session) = (asked(conn)?, Session::of(conn)?);
        let answer = self.store.once(asked, By::Command, |to| {
            change(to, &session).map(|answer| Some(answer.into_bytes()))
        })?;
        conn.send(&answer.unwrap_or_default())?;
        // A released or kicked job is as good as a new one.
        for tube in self.store.awaited_tubes()? {
            self.wake(cx, &tube)?;
        }
        Ok(())
    }

    fn reserve(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        seconds: Option<u32>,
    ) -> tine::Result {
        let (asked, mut session) = (asked(conn)?, Session::of(conn)?);
        let answer = self.store.once(asked, By::Command, |to| {
            let job = store::reserve(to, asked.conn, &session.watched())?;
            Ok(job.or((seconds == Some(0)).then(|| TIMED_OUT.to_vec())))
        })?;
        if let Some(answer) = answer {
            return Ok(conn.send(&answer)?);
        }
        let (time, tag) = match seconds {
            Some(seconds) => (
                Duration::from_secs(seconds.into()).min(RENEWAL),
                asked.message,
            ),
            None => (RENEWAL, asked.message | ENDLESS),
        };
        conn.answer_within(PROMISE, TIMED_OUT)?;
        // That of an earlier one, which was answered by a job.
        conn.cancel(session.timer)?;
        conn.after(time, tag)?;
        session.timer = tag;
        session.keep(conn)?;
        // It waits from the next callback on: an answer that came before this promise would not keep it.
        let post = Wanted::encode(asked, None, &session.watched());
        Ok(cx.post(To::LeastBusy, post.as_bytes())?)
    }

    fn watch(conn: &mut Conn<'_>, tube: &str, is_watched: bool) -> tine::Result {
        let mut session = Session::of(conn)?;
        session.watched.retain(|watched| watched != tube);
        if is_watched {
            session.watched.push(tube.to_owned());
        }
        if session.watched.is_empty() {
            return Ok(conn.send(b"NOT_IGNORED\r\n")?);
        }
        session.keep(conn)?;
        Ok(conn.send(format!("WATCHING {}\r\n", session.watched.len()).as_bytes())?)
    }

    /// Commands that change nothing but the connection.
    fn look(&self, conn: &mut Conn<'_>, command: Command<'_>) -> tine::Result {
        let session = Session::of(conn)?;
        let answer = match command {
            Command::ListTubeUsed => format!("USING {}\r\n", session.used).into_bytes(),
            Command::ListTubesWatched => {
                let names: String = session
                    .watched
                    .iter()
                    .map(|tube| format!("- {tube}\n"))
                    .collect();
                data("OK", format!("---\n{names}").as_bytes())
            }
            Command::Peek(job) => match self.store.body(job)? {
                Some(body) => data(&format!("FOUND {job}"), &body),
                None => b"NOT_FOUND\r\n".to_vec(),
            },
            Command::StatsJob(job) => match self.store.stats(job)? {
                Some(stats) => data("OK", stats.as_bytes()),
                None => b"NOT_FOUND\r\n".to_vec(),
            },
            _ => {
                conn.close();
                return Ok(());
            }
        };
        Ok(conn.send(&answer)?)
    }
}

/// An answer with bytes behind its line.
fn data(line: &str, bytes: &[u8]) -> Vec<u8> {
    [
        format!("{line} {}\r\n", bytes.len()).as_bytes(),
        bytes,
        b"\r\n",
    ]
    .concat()
}

fn asked(conn: &Conn<'_>) -> tine::Result<Asked> {
    let message = conn.message_number().ok_or("only a message is answered")?;
    Ok(Asked {
        conn: conn.id(),
        message,
    })
}

fn answer(is_done: bool, word: &str) -> String {
    format!("{}\r\n", if is_done { word } else { "NOT_FOUND" })
}

impl Handler for JobQueue {
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
    ) -> tine::Result {
        let end = message.windows(2).position(|two| two == b"\r\n");
        let (line, rest) = message.split_at(end.ok_or("a line has an end")?);
        let command = match command::parse(line) {
            Ok(command) => command,
            Err(answer) => return Ok(conn.send(answer.as_bytes())?),
        };
        let id = conn.id();
        match command {
            Command::Put(_, len) if len > LONGEST_JOB => {
                // Its bytes would be taken for commands.
                conn.send(b"JOB_TOO_BIG\r\n")?;
                conn.close();
                Ok(())
            }
            Command::Put(terms, len) => {
                let (body, end) = rest[2..].split_at(len);
                if end != b"\r\n" {
                    return Ok(conn.send(b"EXPECTED_CRLF\r\n")?);
                }
                self.change((cx, conn), |to, session| {
                    let job = store::put(to, &session.used, terms, body)?;
                    Ok(format!("INSERTED {job}\r\n"))
                })
            }
            Command::Use(tube) => {
                let used = tube.to_owned();
                Session {
                    used,
                    ..Session::of(conn)?
                }
                .keep(conn)?;
                Ok(conn.send(format!("USING {tube}\r\n").as_bytes())?)
            }
            Command::Reserve(seconds) => self.reserve(cx, conn, seconds),
            Command::Delete(job) => self.change((cx, conn), |to, _| {
                Ok(answer(store::delete(to, id, job)?, "DELETED"))
            }),
            Command::Release(job, priority, delay) => self.change((cx, conn), |to, _| {
                Ok(answer(
                    store::release(to, id, job, (priority, delay))?,
                    "RELEASED",
                ))
            }),
            Command::Bury(job, priority) => self.change((cx, conn), |to, _| {
                Ok(answer(store::bury(to, id, job, priority)?, "BURIED"))
            }),
            Command::Touch(job) => self.change((cx, conn), |to, _| {
                Ok(answer(store::touch(to, id, job)?, "TOUCHED"))
            }),
            Command::Kick(most) => self.change((cx, conn), |to, session| {
                Ok(format!(
                    "KICKED {}\r\n",
                    store::kick(to, &session.used, most)?
                ))
            }),
            Command::Watch(tube) => JobQueue::watch(conn, tube, true),
            Command::Ignore(tube) => JobQueue::watch(conn, tube, false),
            _ => self.look(conn, command),
        }
    }

    /// A `reserve` waits, or there may be a job for one that does.
    fn post(&mut self, cx: &mut Context<'_>, post: &[u8]) -> tine::Result {
        let wanted = Wanted::decode(post).ok_or("a post of another kind")?;
        let Asked { conn, .. } = wanted.asked;
        let answer = match wanted.number {
            None => self.store.wait(wanted.asked, &wanted.tubes)?,
            Some(number) => self.store.serve(wanted.asked, By::Job(number))?,
        };
        if let Some(answer) = answer {
            cx.conn(conn).send(&answer)?;
        }
        wanted.tubes.iter().try_for_each(|tube| self.wake(cx, tube))
    }

    /// The time of a `reserve` is over, or its promise soon.
    fn timer(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, tag: u64) -> tine::Result {
        let asked = Asked {
            conn: conn.id(),
            message: tag & !ENDLESS,
        };
        if tag == asked.message {
            if let Some(answer) = self.store.time_out(asked)? {
                conn.send(&answer)?;
            }
        } else if self.store.waits(asked)? {
            conn.after(RENEWAL, tag)?;
            conn.answer_within(PROMISE, TIMED_OUT)?;
        }
        Ok(())
    }

    fn server_timer(&mut self, cx: &mut Context<'_>, _: u64) -> tine::Result {
        self.store.advance()?;
        let tubes = self.store.awaited_tubes()?;
        tubes.iter().try_for_each(|tube| self.wake(cx, tube))
    }

    fn close(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, closed: Closed) -> tine::Result {
        if closed.reason == CloseReason::Refused {
            conn.send(BAD_FORMAT.as_bytes())?;
        }
        self.store.end(conn.id())?;
        let tubes = self.store.awaited_tubes()?;
        tubes.iter().try_for_each(|tube| self.wake(cx, tube))
    }
}

fn main() -> tine::Result {
    // tine logs with the crate `log`: without a logger, nothing is written.
    env_logger::Builder::from_env(Env::default().default_filter_or("info")).init();
    let mut arguments = env::args().skip(1);
    let address = arguments.next().unwrap_or("127.0.0.1:11300".to_owned());
    let path = arguments.next().unwrap_or("jobs.db".to_owned());
    Store::prepare(&path)?;
    let listener = Listener::tcp(address)
        .protocol(Protocol::function(command::find))
        .max_message(LONGEST_LINE + LONGEST_JOB + 4);
    Server::new()
        .listen(listener)
        .dispatch(Dispatch::LeastBusy)
        .on_crash(OnCrash::Redeliver { attempts: 10 })
        .post_attempts(10)
        .every(TICK, CLOCK, Run::One)
        .on_start(|started| println!("{started}"))
        .run(move |_worker| -> tine::Result<JobQueue> {
            let store = Store::open(&path)?;
            Ok(JobQueue { store })
        })?;
    Ok(())
}
