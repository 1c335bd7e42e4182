//! Jobs, and who waits for them, in SQLite. Each worker has its own connection to it.
//!
//! Its one rule: what answers a message is kept in the transaction of its effect, under the number of that message. So
//! a second attempt of a callback finds what the first one has done, and of several callbacks that could answer a
//! `reserve`, one does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use tine::ConnId;

use crate::command::Terms;

/// A message that is to be answered.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) conn: ConnId,
    pub(crate) message: u64,
}

impl Asked {
    fn key(self) -> (i64, i64) {
        (key_of(self.conn), self.message as i64)
    }
}

/// The callback that answers: each has its own number, the same in every attempt.
#[derive(Clone, Copy)]
pub(crate) enum By {
    /// The `receive` of the message.
    Command,
    /// The post by which a `reserve` begins to wait.
    Wait,
    /// The timer of a `reserve`.
    Timeout,
    /// A post that says that there may be a job. Several may be on their way for one `reserve`.
    Job(i64),
}

impl By {
    fn number(self) -> i64 {
        match self {
            By::Command => 0,
            By::Wait => 1,
            By::Timeout => 2,
            By::Job(number) => number,
        }
    }
}

/// The states of a job, by their numbers in the database.
const READY: i64 = 0;
const DELAYED: i64 = 1;
const BURIED: i64 = 3;
const STATES: [&str; 4] = ["ready", "delayed", "reserved", "buried"];

/// A callback's access to the database.
pub(crate) struct Store {
    database: Connection,
}

type Result<T> = rusqlite::Result<T>;

impl Store {
    /// Makes the database before there is a worker. Ids of connections are of one run of the server: nobody has
    /// reserved anything, or waits.
    pub(crate) fn prepare(path: &str) -> Result<()> {
        let Store { database } = Store::open(path)?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.execute_batch(
            "CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, tube TEXT, priority INTEGER,
                 state INTEGER, due INTEGER, time_to_run INTEGER, owner INTEGER, body BLOB);
             CREATE INDEX IF NOT EXISTS by_turn ON jobs (tube, state, priority, id);
             CREATE INDEX IF NOT EXISTS by_time ON jobs (due) WHERE due IS NOT NULL;
             CREATE INDEX IF NOT EXISTS by_owner ON jobs (owner) WHERE owner IS NOT NULL;
             CREATE TABLE IF NOT EXISTS waiters (turn INTEGER PRIMARY KEY AUTOINCREMENT, conn INTEGER,
                 message INTEGER, tube TEXT);
             CREATE INDEX IF NOT EXISTS by_tube ON waiters (tube, turn);
             CREATE INDEX IF NOT EXISTS by_conn ON waiters (conn);
             CREATE TABLE IF NOT EXISTS answers (conn INTEGER PRIMARY KEY, message INTEGER, by INTEGER, bytes BLOB);
             DELETE FROM waiters;
             DELETE FROM answers;
             UPDATE jobs SET state = 0, due = NULL, owner = NULL WHERE state = 2;",
        )
    }

    /// Opened in the worker: SQLite connections must not cross a fork.
    pub(crate) fn open(path: &str) -> Result<Store> {
        let database = Connection::open(path)?;
        database.busy_timeout(Duration::from_secs(10))?;
        // What is committed survives the process without a sync(2) for each command.
        database.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(Store { database })
    }

    /// Acts, and returns the answer: once, whichever attempt this is. `None` if there is no answer yet, or another
    /// callback has given it.
    pub(crate) fn once(
        &mut self,
        asked: Asked,
        by: By,
        act: impl FnOnce(&Transaction<'_>) -> Result<Option<Vec<u8>>>,
    ) -> Result<Option<Vec<u8>>> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.database.transaction_with_behavior(behavior)?;
        let (conn, message) = asked.key();
        // The last answer of each connection is enough, since its messages are answered one after the other.
        let last = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let known: Option<(i64, i64, Vec<u8>)> = transaction
            .prepare_cached("SELECT message, by, bytes FROM answers WHERE conn = ?1")?
            .query_row([conn], last)
            .optional()?;
        if let Some((last, who, bytes)) = known.filter(|(last, ..)| *last >= message) {
            // If an earlier attempt of this callback has given it, its worker died before the answer left.
            return Ok((last == message && who == by.number()).then_some(bytes));
        }
        let answer = act(&transaction)?;
        if let Some(bytes) = &answer {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![conn, message, by.number(), bytes])?;
        }
        transaction.commit()?;
        Ok(answer)
    }

    /// Registers a `reserve` that has found no job, or answers it if there is one by now.
    pub(crate) fn wait(&mut self, asked: Asked, tubes: &[&str]) -> Result<Option<Vec<u8>>> {
        self.once(asked, By::Wait, |to| {
            let job = reserve(to, asked.conn, tubes)?;
            if job.is_none() {
                forget_waiter(to, asked.conn)?;
                let (conn, message) = asked.key();
                let wait = "INSERT INTO waiters (conn, message, tube) VALUES (?1, ?2, ?3)";
                for tube in tubes {
                    to.prepare_cached(wait)?
                        .execute(params![conn, message, tube])?;
                }
            }
            Ok(job)
        })
    }

    /// Gives a job to a `reserve` that waits, if it still does and there is one.
    pub(crate) fn serve(&mut self, asked: Asked, by: By) -> Result<Option<Vec<u8>>> {
        self.once(asked, by, |to| {
            let waits = "SELECT tube FROM waiters WHERE conn = ?1 AND message = ?2";
            let tubes: Vec<String> = to
                .prepare_cached(waits)?
                .query_map(asked.key(), |row| row.get(0))?
                .collect::<Result<_>>()?;
            let tubes: Vec<&str> = tubes.iter().map(String::as_str).collect();
            let job = reserve(to, asked.conn, &tubes)?;
            if job.is_some() {
                forget_waiter(to, asked.conn)?;
            }
            Ok(job)
        })
    }

    /// Ends a `reserve` whose time is over, if nobody else has.
    pub(crate) fn time_out(&mut self, asked: Asked) -> Result<Option<Vec<u8>>> {
        self.once(asked, By::Timeout, |to| {
            forget_waiter(to, asked.conn)?;
            Ok(Some(b"TIMED_OUT\r\n".to_vec()))
        })
    }

    /// Whether a `reserve` waits.
    pub(crate) fn waits(&self, asked: Asked) -> Result<bool> {
        let waits = "SELECT 1 FROM waiters WHERE conn = ?1 AND message = ?2";
        self.database.prepare_cached(waits)?.exists(asked.key())
    }

    /// Returns the first one that waits for a job of this tube, if there is such a job, and a number for the post that
    /// says so.
    pub(crate) fn first_waiter(&self, tube: &str) -> Result<Option<(Asked, i64)>> {
        let first = "SELECT conn, message, random() FROM waiters WHERE tube = ?1
                     AND EXISTS (SELECT 1 FROM jobs WHERE tube = ?1 AND state = 0) ORDER BY turn LIMIT 1";
        let mut first = self.database.prepare_cached(first)?;
        let found = first.query_row([tube], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let found: Option<(i64, i64, i64)> = found.optional()?;
        let waiter = |(conn, message, number)| {
            let conn = ConnId::from_u64(conn as u64)?;
            let message = message as u64;
            Some((Asked { conn, message }, number))
        };
        Ok(found.and_then(waiter))
    }

    /// Returns the tubes that somebody waits for.
    pub(crate) fn awaited_tubes(&self) -> Result<Vec<String>> {
        let mut statement = self
            .database
            .prepare_cached("SELECT DISTINCT tube FROM waiters")?;
        statement.query_map([], |row| row.get(0))?.collect()
    }

    /// Makes jobs ready whose delay has passed, or whose time to run.
    pub(crate) fn advance(&mut self) -> Result<()> {
        let is_due = "SELECT 1 FROM jobs WHERE due <= ?1";
        if self.database.prepare_cached(is_due)?.exists([now()])? {
            let advance = "UPDATE jobs SET state = 0, due = NULL, owner = NULL WHERE due <= ?1";
            self.database.prepare_cached(advance)?.execute([now()])?;
        }
        Ok(())
    }

    /// A connection has ended: its jobs are ready again, and it waits for none.
    pub(crate) fn end(&mut self, conn: ConnId) -> Result<()> {
        let transaction = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for end in [
            "UPDATE jobs SET state = 0, due = NULL, owner = NULL WHERE owner = ?1",
            "DELETE FROM waiters WHERE conn = ?1",
            "DELETE FROM answers WHERE conn = ?1",
        ] {
            transaction.prepare_cached(end)?.execute([key_of(conn)])?;
        }
        transaction.commit()
    }

    /// Returns a job's bytes.
    pub(crate) fn body(&self, job: u64) -> Result<Option<Vec<u8>>> {
        let body = "SELECT body FROM jobs WHERE id = ?1";
        let mut statement = self.database.prepare_cached(body)?;
        statement
            .query_row([job as i64], |row| row.get(0))
            .optional()
    }

    /// Returns what is known of a job, in YAML.
    pub(crate) fn stats(&self, job: u64) -> Result<Option<String>> {
        let stats = "SELECT tube, state, priority, time_to_run, due FROM jobs WHERE id = ?1";
        let text = |row: &Row<'_>| {
            let (tube, state): (String, i64) = (row.get(0)?, row.get(1)?);
            let (priority, time_to_run): (u32, u32) = (row.get(2)?, row.get(3)?);
            let due: Option<i64> = row.get(4)?;
            let left = due.map_or(0, |due| (due - now()).max(0) / 1000);
            let state = STATES[state as usize];
            Ok(format!(
                "---\nid: {job}\ntube: {tube}\nstate: {state}\npri: {priority}\nttr: {time_to_run}\ntime-left: {left}\n"
            ))
        };
        self.database
            .prepare_cached(stats)?
            .query_row([job as i64], text)
            .optional()
    }
}

fn key_of(conn: ConnId) -> i64 {
    // SQLite's integers have a sign. The same bits name the same connection.
    conn.as_u64() as i64
}

/// Milliseconds: the jobs may outlive this run of the machine.
fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_millis() as i64
}

fn after(seconds: u32) -> i64 {
    now() + i64::from(seconds) * 1000
}

fn forget_waiter(to: &Transaction<'_>, conn: ConnId) -> Result<()> {
    let forget = "DELETE FROM waiters WHERE conn = ?1";
    to.prepare_cached(forget)?.execute([key_of(conn)])?;
    Ok(())
}

/// The state of a job that waits for this time, and until when.
fn delayed(delay: u32) -> (i64, Option<i64>) {
    match delay {
        0 => (READY, None),
        _ => (DELAYED, Some(after(delay))),
    }
}

/// Puts a job into a tube, and returns its number.
pub(crate) fn put(to: &Transaction<'_>, tube: &str, terms: Terms, body: &[u8]) -> Result<i64> {
    let (state, due) = delayed(terms.delay);
    let put = "INSERT INTO jobs (tube, priority, state, due, time_to_run, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let job = params![tube, terms.priority, state, due, terms.time_to_run, body];
    to.prepare_cached(put)?.insert(job)
}

/// Reserves the first job of these tubes, and returns the answer that has it.
pub(crate) fn reserve(
    to: &Transaction<'_>,
    conn: ConnId,
    tubes: &[&str],
) -> Result<Option<Vec<u8>>> {
    let first =
        "SELECT priority, id FROM jobs WHERE tube = ?1 AND state = 0 ORDER BY priority, id LIMIT 1";
    let mut first = to.prepare_cached(first)?;
    let mut best: Option<(u32, i64)> = None;
    for tube in tubes {
        let found = first
            .query_row([tube], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        best = best.into_iter().chain(found).min();
    }
    let Some((_, job)) = best else {
        return Ok(None);
    };
    let reserve = "UPDATE jobs SET state = 2, owner = ?2, due = ?3 + 1000 * time_to_run WHERE id = ?1 RETURNING body";
    let taken = params![job, key_of(conn), now()];
    let body: Vec<u8> = to
        .prepare_cached(reserve)?
        .query_row(taken, |row| row.get(0))?;
    let line = format!("RESERVED {job} {}\r\n", body.len());
    Ok(Some([line.as_bytes(), &body, b"\r\n"].concat()))
}

/// Deletes a job that this connection has reserved, or nobody.
pub(crate) fn delete(to: &Transaction<'_>, conn: ConnId, job: u64) -> Result<bool> {
    let delete = "DELETE FROM jobs WHERE id = ?1 AND (state <> 2 OR owner = ?2)";
    let deleted = to
        .prepare_cached(delete)?
        .execute(params![job as i64, key_of(conn)])?;
    Ok(deleted > 0)
}

/// Changes a job that this connection has reserved: it is released, or buried.
fn give_back(
    to: &Transaction<'_>,
    conn: ConnId,
    job: u64,
    terms: (i64, Option<i64>, u32),
) -> Result<bool> {
    let (state, due, priority) = terms;
    let change = "UPDATE jobs SET state = ?3, due = ?4, priority = ?5, owner = NULL WHERE id = ?1 AND owner = ?2";
    let job = params![job as i64, key_of(conn), state, due, priority];
    Ok(to.prepare_cached(change)?.execute(job)? > 0)
}

pub(crate) fn release(
    to: &Transaction<'_>,
    conn: ConnId,
    job: u64,
    terms: (u32, u32),
) -> Result<bool> {
    let (state, due) = delayed(terms.1);
    give_back(to, conn, job, (state, due, terms.0))
}

pub(crate) fn bury(to: &Transaction<'_>, conn: ConnId, job: u64, priority: u32) -> Result<bool> {
    give_back(to, conn, job, (BURIED, None, priority))
}

/// Gives a reserved job its whole time again.
pub(crate) fn touch(to: &Transaction<'_>, conn: ConnId, job: u64) -> Result<bool> {
    let touch = "UPDATE jobs SET due = ?3 + 1000 * time_to_run WHERE id = ?1 AND owner = ?2";
    let job = params![job as i64, key_of(conn), now()];
    Ok(to.prepare_cached(touch)?.execute(job)? > 0)
}

/// Makes buried jobs of a tube ready, or if there is none, delayed ones. Returns how many.
pub(crate) fn kick(to: &Transaction<'_>, tube: &str, most: u32) -> Result<usize> {
    let kick = "UPDATE jobs SET state = 0, due = NULL WHERE id IN
                (SELECT id FROM jobs WHERE tube = ?1 AND state = ?2 ORDER BY priority, id LIMIT ?3)";
    let mut kick = to.prepare_cached(kick)?;
    match kick.execute(params![tube, BURIED, most])? {
        0 => kick.execute(params![tube, DELAYED, most]),
        kicked => Ok(kicked),
    }
}
