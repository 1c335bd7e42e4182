//! An echo server that counts the heap allocations of all its processes together.
//!
//! Usage: `tine-counted MODE [PROTOCOL]`. It prints the ready line of `tine serve`. A message that
//! is `count` and a newline is answered with the number of allocations since the server began; from then
//! on the log shows the stacks of the next few.
#![allow(clippy::print_stdout)] // The ready line.
#![allow(unsafe_code)] // An allocator, and memory that outlives a fork.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::Write;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use tine::{Conn, Context, Handler, Listener, Mode, Role, Server, Started};

/// The message that asks for the count.
const QUESTION: &[u8] = b"count\n";

/// The number of stacks that are shown after each question.
const SHOWN: u64 = 3;

#[global_allocator]
static HEAP: Counting = Counting;

/// The counters, in memory that all processes of the server share.
static WORDS: AtomicPtr<Words> = AtomicPtr::new(null_mut());

/// All zero initially.
struct Words {
    taken: AtomicU64,
    to_show: AtomicU64,
}

/// The system's heap, with every allocation and reallocation counted.
struct Counting;

// SAFETY: `System` does all the work; counting does not affect it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller's promises are those that `System` needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

fn words() -> Option<&'static Words> {
    // SAFETY: it is null, or the pointer that `share_words` has stored, whose target is never unmapped.
    unsafe { WORDS.load(Ordering::Acquire).as_ref() }
}

/// Runs inside the allocator: its own allocations do not count.
fn note(size: usize) {
    thread_local!(static IS_SHOWING: Cell<bool> = const { Cell::new(false) });
    let Some(words) = words() else { return };
    if IS_SHOWING.get() {
        return;
    }
    words.taken.fetch_add(1, Ordering::Relaxed);
    let one_less = |left: u64| left.checked_sub(1);
    let relaxed = Ordering::Relaxed;
    if words
        .to_show
        .fetch_update(relaxed, relaxed, one_less)
        .is_ok()
    {
        IS_SHOWING.set(true);
        let from = Backtrace::force_capture();
        let text = format!("{} takes {size} bytes:\n{from}\n", Role::current());
        // Not with `eprintln!`, which may be the allocating code. An error in writing the log can be
        // ignored.
        let _ = nix::unistd::write(std::io::stderr(), text.as_bytes());
        IS_SHOWING.set(false);
    }
}

/// Called before the first fork: from now on everything is counted.
fn share_words() -> nix::Result<()> {
    let size = NonZeroUsize::new(size_of::<Words>()).expect("words are something");
    let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: the kernel chooses an address that is free, so no existing memory is touched.
    let start = unsafe { mmap_anonymous(None, size, both, MapFlags::MAP_SHARED) }?;
    WORDS.store(start.as_ptr().cast(), Ordering::Release);
    Ok(())
}

struct Echo;

impl Handler for Echo {
    fn receive(
        &mut self,
        _: &mut Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
    ) -> tine::Result {
        if message != QUESTION {
            return Ok(conn.send(message)?);
        }
        let words = words().ok_or("nothing is counted")?;
        // In place: the answer itself must not allocate.
        let mut answer = [0; 24];
        let mut rest = &mut answer[..];
        writeln!(rest, "{}", words.taken.load(Ordering::Relaxed))?;
        let left = rest.len();
        conn.send(&answer[..answer.len() - left])?;
        words.to_show.store(SHOWN, Ordering::Relaxed);
        Ok(())
    }
}

fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tine-counted: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mode = match arguments.next().as_deref() {
        Some("process") => Mode::Process,
        Some("base") => Mode::Base,
        other => return Err(format!("process or base is expected, and not {other:?}").into()),
    };
    let protocol = arguments.next().unwrap_or_else(|| "raw".to_owned());
    let server = Server::new()
        .mode(mode)
        .listen(Listener::tcp("127.0.0.1:0").protocol(protocol.parse()?))
        .workers(1)
        .reactors(1)
        .on_start(say_ready);
    share_words()?;
    Ok(server.run(|_| Echo)?)
}

fn say_ready(started: &Started) {
    let (address, pid) = (&started.addresses[0], started.pid);
    match started.mode {
        Mode::Base => println!("tine: listening on {address} (base mode, 1 worker, pid {pid})"),
        _ => {
            println!("tine: listening on {address} (process mode, 1 worker, 1 reactor, pid {pid})")
        }
    }
}
