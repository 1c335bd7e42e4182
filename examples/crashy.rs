//! A C library that crashes on some input, behind a server that still answers every client.
//!
//!     cargo run --example crashy -- 127.0.0.1:9501
//!     $ printf 'key=value\n' | nc -N 127.0.0.1 9501
//!     200 key is value
//!     $ printf 'novalue\n' | nc -N 127.0.0.1 9501
//!     502 the request could not be processed
//!
//! The library reads through a null pointer if a line has no `=`. That kills one worker process.
//! The client gets the reply of the crash policy, the manager starts another worker, and no other
//! client notices. The log, on standard error, has a line for each death.
#![allow(clippy::print_stdout)] // The line that says where it listens.
#![allow(unsafe_code)] // A call into C.

use std::env;
use std::ffi::{CStr, CString, c_char};

use env_logger::Env;
use legacy_parser::legacy_parse;
use tine::{Conn, Context, Dispatch, Handler, Listener, OnCrash, Protocol, Server};

struct Parser;

impl Handler for Parser {
    fn receive(&mut self, _cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> tine::Result {
        let line = CString::new(line.trim_ascii_end())?;
        let mut answer = [0 as c_char; 256];
        // SAFETY: `line` ends with a zero byte, and `answer` has the given number of bytes. The rest is up
        // to the library, and contained by the worker process.
        let answer = unsafe {
            legacy_parse(line.as_ptr(), answer.as_mut_ptr(), answer.len());
            CStr::from_ptr(answer.as_ptr())
        };
        conn.send(b"200 ")?;
        conn.send(answer.to_bytes())?;
        conn.send(b"\n")?;
        Ok(())
    }
}

fn main() -> Result<(), tine::Error> {
    // tine logs with the crate `log`: without a logger, nothing is written.
    env_logger::Builder::from_env(Env::default().default_filter_or("info")).init();
    let address = env::args().nth(1).unwrap_or("127.0.0.1:9501".to_owned());
    let reply = b"502 the request could not be processed\n".to_vec();
    Server::new()
        .listen(Listener::tcp(address).protocol(Protocol::lines()))
        .dispatch(Dispatch::LeastBusy)
        .on_crash(OnCrash::Reply(reply))
        .standby(1)
        .on_start(|started| println!("{started}"))
        .run(|_worker| Parser)
}
