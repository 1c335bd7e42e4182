//! A service with a database that applies each order exactly once, by a key of the order.
//!
//!     cargo run --example ledger -- 127.0.0.1:9501 /tmp/ledger.db
//!     $ nc 127.0.0.1 9501
//!     order-17 alice 500
//!     alice 500
//!
//! Under `OnCrash::Redeliver` a message whose worker died runs again in another worker. The server
//! guarantees one answer; effects of the handler elsewhere, here in SQLite, may have happened already. So
//! each order has a key, which is written in the same transaction as the order, and an order with a known
//! key is answered and not applied again. A client that has lost its connection can safely repeat the
//! order with the same key.
//!
//! `--die-after-commit` makes the handler end its worker after the transaction and before the answer,
//! at each first attempt: the worst moment. Every order is still answered once and applied once.
#![allow(clippy::print_stdout)] // The line that says where it listens.

use std::time::Duration;
use std::{env, process};

use rusqlite::{Connection, OptionalExtension, params};
use tine::{Conn, Context, Dispatch, Handler, Listener, OnCrash, Protocol, Server};

struct Ledger {
    database: Connection,
    dies_after_commit: bool,
}

impl Ledger {
    /// Opened in the worker: SQLite connections must not cross a fork.
    fn open(path: &str, dies_after_commit: bool) -> tine::Result<Ledger> {
        let database = Connection::open(path)?;
        database.busy_timeout(Duration::from_secs(10))?;
        Ok(Ledger {
            database,
            dies_after_commit,
        })
    }

    /// Applies an order unless its key is known, and returns the balance right after it.
    fn apply(&mut self, key: &str, account: &str, amount: i64) -> rusqlite::Result<i64> {
        let transaction = self
            .database
            .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let known = transaction
            .query_row(
                "SELECT balance FROM orders WHERE key = ?1",
                params![key],
                |row| row.get(0),
            )
            .optional()?;
        if let Some(balance) = known {
            return Ok(balance);
        }
        let balance = transaction.query_row(
            "INSERT INTO accounts VALUES (?1, ?2)
             ON CONFLICT (name) DO UPDATE SET balance = balance + excluded.balance
             RETURNING balance",
            params![account, amount],
            |row| row.get(0),
        )?;
        transaction.execute(
            "INSERT INTO orders VALUES (?1, ?2, ?3)",
            params![key, account, balance],
        )?;
        transaction.commit()?;
        Ok(balance)
    }
}

impl Handler for Ledger {
    fn receive(&mut self, _cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
        let line = str::from_utf8(line)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let [key, account, amount] = words[..] else {
            conn.send(b"error: KEY ACCOUNT AMOUNT is expected\n")?;
            return Ok(());
        };
        let Ok(amount) = amount.parse() else {
            conn.send(b"error: AMOUNT must be a whole number\n")?;
            return Ok(());
        };
        let balance = self.apply(key, account, amount)?;
        if self.dies_after_commit && conn.attempt() == 0 {
            process::abort();
        }
        conn.send(format!("{account} {balance}\n").as_bytes())?;
        Ok(())
    }
}

/// Makes the database before there is a worker: two that change its journal mode at once get in each
/// other's way. The connection is closed before the fork.
fn prepare(path: &str) -> rusqlite::Result<()> {
    let database = Connection::open(path)?;
    database.busy_timeout(Duration::from_secs(10))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.execute_batch(
        "CREATE TABLE IF NOT EXISTS orders (key TEXT PRIMARY KEY, account TEXT, balance INTEGER);
         CREATE TABLE IF NOT EXISTS accounts (name TEXT PRIMARY KEY, balance INTEGER NOT NULL);",
    )
}

fn main() -> tine::Result {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let before = arguments.len();
    arguments.retain(|argument| argument != "--die-after-commit");
    let dies_after_commit = arguments.len() < before;
    let mut arguments = arguments.into_iter();
    let address = arguments.next().unwrap_or("127.0.0.1:9501".to_owned());
    let path = arguments.next().unwrap_or("ledger.db".to_owned());
    prepare(&path)?;
    Server::new()
        .listen(Listener::tcp(address).protocol(Protocol::lines()))
        .dispatch(Dispatch::LeastBusy)
        .on_crash(OnCrash::Redeliver { attempts: 3 })
        .on_start(|started| println!("{started}"))
        .run(move |_worker| Ledger::open(&path, dies_after_commit))?;
    Ok(())
}
