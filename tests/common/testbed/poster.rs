//! Commands whose threads post. A post is `ID TEXT`, as those of callbacks are.

use std::sync::Mutex;
use std::thread;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use tine::{Conn, ConnId, Context, PostError, Poster, To};

/// The most tries of a post that is refused because others wait.
const TRIES: usize = 1_000_000;

/// The post that is made when this worker leaves.
static AT_STOP: Mutex<Option<(Poster, String)>> = Mutex::new(None);

/// Posts what was noted.
pub(crate) fn stop() {
    let Some((poster, post)) = AT_STOP.lock().ok().and_then(|mut it| it.take()) else {
        return;
    };
    let posted = poster.post(To::LeastBusy, post.as_bytes());
    log::info!("posted at stop: {posted:?}");
}

/// Carries out a command whose thread posts. Returns false for any other command.
pub(crate) fn carry_out(
    cx: &mut Context<'_>,
    conn: &mut Conn<'_>,
    command: &str,
    rest: &str,
) -> tine::Result<bool> {
    let (first, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let own = conn.id().as_u64();
    let answer = match command {
        "thread-seat" => in_a_thread(cx, To::Seat(first.parse()?), format!("{own} {text}"))?,
        // `TEXT.ATTEMPT`, with the attempt of this callback.
        "thread-tell" => {
            let post = format!("{own} {text}.{}", conn.attempt());
            in_a_thread(cx, To::Seat(first.parse()?), post)?
        }
        "thread-all" => in_a_thread(cx, To::All, format!("{own} {rest}"))?,
        "thread-any" => in_a_thread(cx, To::LeastBusy, format!("{own} {rest}"))?,
        "thread-owner" => {
            let owner = ConnId::from_u64(first.parse()?).ok_or("no id")?;
            in_a_thread(cx, To::Owner(owner), format!("{own} {text}"))?
        }
        // When this worker leaves.
        "post-at-stop" => {
            let post = (cx.poster()?, format!("{own} {rest}"));
            *AT_STOP.lock().map_err(|_| "it panicked")? = Some(post);
            "noted".to_owned()
        }
        "thread-long" => in_a_thread(cx, To::All, "x".repeat(70_000))?,
        // Posts this many numbers to a seat, while this callback and others run.
        "thread-count" => {
            let (seat, count) = (To::Seat(first.parse()?), text.parse()?);
            let poster = cx.poster()?;
            drop(thread::spawn(move || {
                (0..count).for_each(|number: u64| surely(&poster, seat, format!("{own} {number}")))
            }));
            "begun".to_owned()
        }
        // In the callback, so that the worker takes none: until one is refused.
        "thread-flood" => {
            let (poster, mut taken) = (cx.poster()?, 0);
            let flood = move || loop {
                match poster.post(To::LeastBusy, &vec![b'x'; 1000]) {
                    Ok(()) => taken += 1,
                    Err(refused) => break format!("{taken} {refused:?}"),
                }
            };
            joined(flood)?
        }
        // Posts in a child of the worker, which has a copy of everything.
        "fork-and-post" => {
            let poster = cx.poster()?;
            format!("{:?}", in_a_child(&poster)?)
        }
        _ => return Ok(false),
    };
    conn.send(format!("{answer}\n").as_bytes())?;
    Ok(true)
}

/// Posts, also if others wait.
fn surely(poster: &Poster, to: To, post: String) {
    for _ in 0..TRIES {
        match poster.post(to, post.as_bytes()) {
            Err(PostError::Full { .. }) => thread::yield_now(),
            Ok(()) | Err(_) => return,
        }
    }
}

fn in_a_thread(cx: &mut Context<'_>, to: To, post: String) -> tine::Result<String> {
    let poster = cx.poster()?;
    joined(move || format!("{:?}", poster.post(to, post.as_bytes())))
}

fn joined(work: impl FnOnce() -> String + Send + 'static) -> tine::Result<String> {
    Ok(thread::spawn(work).join().map_err(|_| "it panicked")?)
}

#[allow(unsafe_code)] // The test is about a bare fork.
fn in_a_child(poster: &Poster) -> tine::Result<WaitStatus> {
    // SAFETY: the child makes one call and ends; the worker has no other thread by then that holds a lock.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let posted = poster.post(To::LeastBusy, b"0 of a child");
            let is_refused = posted == Err(PostError::WrongProcess);
            // SAFETY: ends the process.
            unsafe { libc::_exit(if is_refused { 7 } else { 8 }) }
        }
        ForkResult::Parent { child } => Ok(waitpid(child, None)?),
    }
}
