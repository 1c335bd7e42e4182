//! A server for redis clients, whose keys are in an SQLite database, and whose increments happen exactly once.
//!
//!     cargo run --release --example resp -- 127.0.0.1:6399 /tmp/resp.db
//!     $ redis-cli -p 6399 incr visits
//!     (integer) 1
//!     $ redis-benchmark -p 6399 -t set,get,incr -n 20000 -P 16 -q
//!
//! Each worker has a connection to the database, and waits in it: no code here is asynchronous. A command whose worker
//! dies runs again in another one (`OnCrash::Redeliver`). If the first one had written already, the client would find
//! its counter two higher. So each write keeps its reply in the same transaction, under the number of its message, and
//! a second attempt looks for that first. One reply for each connection is enough, since its commands run one after the
//! other.
//!
//! `--die-after-commit` makes the handler end its worker after the transaction and before the reply, at each first
//! attempt of a write: the worst moment.
//!
//! The protocol is RESP 2, <https://redis.io/docs/latest/develop/reference/protocol-spec/>.
#![allow(clippy::print_stdout)] // The line that says where it listens.

use std::time::Duration;
use std::{env, process};

use env_logger::Env;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tine::{
    CloseReason, Closed, Conn, ConnId, Context, Dispatch, Found, Handler, Listener, OnCrash,
    Protocol, Search, Server,
};

/// The longest command.
const LONGEST: usize = 4 << 20;
/// The most words of a command.
const MOST_WORDS: u64 = 1024;

/// Finds the end of a command: `*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n`, or a line. It goes on where an earlier call has
/// stopped, so that a long command in many parts is not walked from its first byte each time: the cursor has the
/// number of words that are still to come, and the place of the next one.
fn find(bytes: &[u8], search: &mut Search) -> Found {
    if bytes[0] != b'*' {
        let end = bytes[search.seen()..]
            .iter()
            .position(|byte| *byte == b'\n');
        return end.map_or(Found::More, |end| Found::Message(search.seen() + end + 1));
    }
    let (mut left, mut at) = (search.cursor >> 32, search.cursor as u32 as usize);
    if at == 0 {
        match number(bytes, b'*') {
            Line::Number(words, next) if words <= MOST_WORDS => (left, at) = (words, next),
            Line::More => return Found::More,
            Line::Number(..) | Line::Bad => return Found::Refused,
        }
    }
    while left > 0 {
        search.cursor = left << 32 | at as u64;
        // A word that has not come to its end has the next one behind it.
        let rest = bytes.get(at..).unwrap_or_default();
        match number(rest, b'$') {
            Line::Number(len, next) if len <= LONGEST as u64 => at += next + len as usize + 2,
            Line::More if at <= LONGEST => return Found::More,
            Line::Number(..) | Line::More | Line::Bad => return Found::Refused,
        }
        left -= 1;
    }
    Found::Message(at)
}

/// A line with a number, as `$12\r\n`.
enum Line {
    /// The number, and the length of the line.
    Number(u64, usize),
    More,
    Bad,
}

fn number(bytes: &[u8], sign: u8) -> Line {
    // The sign, 20 digits at most, and the end of the line.
    let Some(end) = bytes.iter().take(23).position(|byte| *byte == b'\n') else {
        return if bytes.len() < 23 {
            Line::More
        } else {
            Line::Bad
        };
    };
    let digits = bytes[..end]
        .strip_prefix(&[sign])
        .and_then(|it| it.strip_suffix(b"\r"));
    let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_digit));
    let number = digits.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
    number.map_or(Line::Bad, |number| Line::Number(number, end + 1))
}

/// Returns the words of a command; `None` if it does not keep to the protocol.
fn words(command: &[u8]) -> Option<Vec<&[u8]>> {
    if command[0] != b'*' {
        let words = command.split(u8::is_ascii_whitespace);
        return Some(words.filter(|word| !word.is_empty()).collect());
    }
    let Line::Number(count, mut at) = number(command, b'*') else {
        return None;
    };
    let mut words = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let Line::Number(len, next) = number(&command[at..], b'$') else {
            return None;
        };
        let (word, end) = command[at + next..].split_at_checked(len as usize)?;
        end.starts_with(b"\r\n").then(|| words.push(word))?;
        at += next + len as usize + 2;
    }
    Some(words)
}

fn simple(text: &str) -> Vec<u8> {
    format!("+{text}\r\n").into()
}

fn error(text: &str) -> Vec<u8> {
    format!("-ERR {text}\r\n").into()
}

fn integer(number: i64) -> Vec<u8> {
    format!(":{number}\r\n").into()
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// A worker's handler.
struct Keys {
    database: Connection,
    dies_after_commit: bool,
}

/// What a command does with the database.
type Write<'a> = dyn Fn(&Transaction<'_>) -> rusqlite::Result<Vec<u8>> + 'a;

impl Keys {
    /// Opened in the worker: SQLite connections must not cross a fork.
    fn open(path: &str, dies_after_commit: bool) -> tine::Result<Keys> {
        let database = Connection::open(path)?;
        database.busy_timeout(Duration::from_secs(10))?;
        // What is committed survives this process without an fdatasync(2) for each command. It takes one to survive
        // the machine.
        database.pragma_update(None, "synchronous", "NORMAL")?;
        Ok(Keys {
            database,
            dies_after_commit,
        })
    }

    /// Writes, and returns the reply: once, whichever attempt of the message this is.
    fn once(&mut self, conn: &Conn<'_>, write: &Write<'_>) -> rusqlite::Result<Vec<u8>> {
        let message = params![
            key_of(conn.id()),
            conn.message_number().map(|number| number as i64)
        ];
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.database.transaction_with_behavior(behavior)?;
        if conn.attempt() > 0 {
            let known = "SELECT reply FROM replies WHERE conn = ?1 AND message = ?2";
            let known = transaction
                .query_row(known, message, |row| row.get(0))
                .optional()?;
            if let Some(reply) = known {
                return Ok(reply);
            }
        }
        let reply = write(&transaction)?;
        let keep = "INSERT OR REPLACE INTO replies VALUES (?1, ?2, ?3)";
        let message = params![message[0], message[1], reply];
        transaction.prepare_cached(keep)?.execute(message)?;
        transaction.commit()?;
        if self.dies_after_commit && conn.attempt() == 0 {
            process::abort();
        }
        Ok(reply)
    }

    fn get(&self, key: &[u8]) -> rusqlite::Result<Vec<u8>> {
        let mut statement = self
            .database
            .prepare_cached("SELECT value FROM pairs WHERE key = ?1")?;
        let value = statement
            .query_row([key], |row| row.get::<_, Vec<u8>>(0))
            .optional()?;
        Ok(value.map_or(b"$-1\r\n".to_vec(), |value| bulk(&value)))
    }

    fn exist(&self, keys: &[&[u8]]) -> rusqlite::Result<Vec<u8>> {
        let mut statement = self
            .database
            .prepare_cached("SELECT 1 FROM pairs WHERE key = ?1")?;
        let mut count = 0;
        for key in keys {
            count += i64::from(statement.exists([key])?);
        }
        Ok(integer(count))
    }

    fn run(&mut self, conn: &Conn<'_>, words: &[&[u8]]) -> rusqlite::Result<Vec<u8>> {
        let name = words[0].to_ascii_uppercase();
        match (&name[..], &words[1..]) {
            (b"PING", []) => Ok(simple("PONG")),
            (b"PING" | b"ECHO", [text]) => Ok(bulk(text)),
            (b"GET", [key]) => self.get(key),
            (b"EXISTS", keys @ [_, ..]) => self.exist(keys),
            (b"SET", [key, value]) => {
                self.once(conn, &|to| set(to, key, value).map(|()| simple("OK")))
            }
            (b"DEL", keys @ [_, ..]) => self.once(conn, &|to| delete(to, keys)),
            (b"INCR", [key]) => self.once(conn, &|to| add(to, key, Some(1))),
            (b"DECR", [key]) => self.once(conn, &|to| add(to, key, Some(-1))),
            (b"INCRBY", [key, by]) => self.once(conn, &|to| add(to, key, parse(by))),
            (b"DECRBY", [key, by]) => {
                let by = parse(by).and_then(i64::checked_neg);
                self.once(conn, &|to| add(to, key, by))
            }
            // What clients ask when they have connected.
            (b"COMMAND", _) => Ok(b"*0\r\n".to_vec()),
            (b"CONFIG", [_, name]) => Ok([b"*2\r\n", &bulk(name)[..], &bulk(b"")].concat()),
            (b"CLIENT", _) | (b"SELECT", [b"0"]) => Ok(simple("OK")),
            (b"HELLO", _) => Ok(b"-NOPROTO this is RESP 2\r\n".to_vec()),
            (b"QUIT", _) => Ok(simple("OK")),
            _ => Ok(error("unknown command, or a wrong number of arguments")),
        }
    }
}

fn key_of(conn: ConnId) -> i64 {
    // SQLite's integers have a sign. The same bits name the same connection.
    conn.as_u64() as i64
}

fn set(to: &Transaction<'_>, key: &[u8], value: &[u8]) -> rusqlite::Result<()> {
    let set = "INSERT OR REPLACE INTO pairs VALUES (?1, ?2)";
    to.prepare_cached(set)?.execute(params![key, value])?;
    Ok(())
}

fn delete(to: &Transaction<'_>, keys: &[&[u8]]) -> rusqlite::Result<Vec<u8>> {
    let mut statement = to.prepare_cached("DELETE FROM pairs WHERE key = ?1")?;
    let mut count = 0;
    for key in keys {
        count += statement.execute([key])?;
    }
    Ok(integer(count as i64))
}

/// Reads a number in the one form that it is written in: without a plus, or zeros in front.
fn parse(text: &[u8]) -> Option<i64> {
    let text = str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Adds to the number that a key has.
fn add(to: &Transaction<'_>, key: &[u8], by: Option<i64>) -> rusqlite::Result<Vec<u8>> {
    let mut statement = to.prepare_cached("SELECT value FROM pairs WHERE key = ?1")?;
    let found = statement
        .query_row([key], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    let before = found.map_or(Some(0), |value| parse(&value));
    let Some(sum) = before
        .zip(by)
        .and_then(|(before, by)| before.checked_add(by))
    else {
        return Ok(error("value is not an integer or out of range"));
    };
    set(to, key, sum.to_string().as_bytes())?;
    Ok(integer(sum))
}

impl Handler for Keys {
    fn receive(
        &mut self,
        _: &mut Context<'_>,
        conn: &mut Conn<'_>,
        command: &[u8],
    ) -> tine::Result {
        let Some(words) = words(command) else {
            conn.send(&error("Protocol error"))?;
            conn.close();
            return Ok(());
        };
        if words.is_empty() {
            return Ok(());
        }
        let reply = self.run(conn, &words).unwrap_or_else(|problem| {
            log::error!("{problem}");
            error("the database failed")
        });
        conn.send(&reply)?;
        if words[0].eq_ignore_ascii_case(b"QUIT") {
            conn.close();
        }
        Ok(())
    }

    fn close(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, closed: Closed) -> tine::Result {
        if closed.reason == CloseReason::Refused {
            conn.send(&error("Protocol error"))?;
        }
        let forget = "DELETE FROM replies WHERE conn = ?1";
        self.database
            .prepare_cached(forget)?
            .execute([key_of(conn.id())])?;
        Ok(())
    }
}

/// Makes the database before there is a worker. Ids of connections are of one run of the server: replies of the last
/// one are nobody's.
fn prepare(path: &str) -> rusqlite::Result<()> {
    let database = Connection::open(path)?;
    database.busy_timeout(Duration::from_secs(10))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.execute_batch(
        "CREATE TABLE IF NOT EXISTS pairs (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS replies (conn INTEGER PRIMARY KEY, message INTEGER, reply BLOB);
         DELETE FROM replies;",
    )
}

fn main() -> tine::Result {
    // tine logs with the crate `log`: without a logger, nothing is written.
    env_logger::Builder::from_env(Env::default().default_filter_or("info")).init();
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let before = arguments.len();
    arguments.retain(|argument| argument != "--die-after-commit");
    let dies_after_commit = arguments.len() < before;
    let mut arguments = arguments.into_iter();
    let address = arguments.next().unwrap_or("127.0.0.1:6399".to_owned());
    let path = arguments.next().unwrap_or("resp.db".to_owned());
    prepare(&path)?;
    let listener = Listener::tcp(address)
        .protocol(Protocol::function(find))
        .max_message(LONGEST);
    Server::new()
        .listen(listener)
        .dispatch(Dispatch::LeastBusy)
        .on_crash(OnCrash::Redeliver { attempts: 10 })
        .on_start(|started| println!("{started}"))
        .run(move |_worker| Keys::open(&path, dies_after_commit))?;
    Ok(())
}
