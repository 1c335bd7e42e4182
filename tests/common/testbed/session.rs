//! Commands on the state and the user of a connection. A state is text: the words that were pushed, and a comma behind
//! each.

use std::time::Duration;

use tine::Conn;

/// The tag of the timer that ends a pause.
const HOLD: u64 = 600;

/// The reply in the place of an answer that does not come.
const SORRY: &[u8] = b"sorry\n";

/// The most bytes of a stream that one callback sends.
const PIECE: usize = 200_000;

/// Carries out a command on the connection's session. Returns false for any other command.
pub(crate) fn carry_out(conn: &mut Conn<'_>, command: &str, rest: &str) -> tine::Result<bool> {
    match command {
        "push" => push(conn, rest)?,
        "push-and-fail" => {
            push(conn, rest)?;
            return Err("asked to fail".into());
        }
        "push-and-die-once" => {
            push(conn, rest)?;
            if conn.attempt() == 0 {
                std::process::abort();
            }
        }
        "push-flush-push" => {
            push(conn, rest)?;
            conn.flush();
            push(conn, rest)?;
        }
        "clear" => {
            conn.set_state(b"")?;
            conn.send(b"cleared\n")?;
        }
        // This many bytes.
        "grow" => {
            let grown = conn.set_state(&vec![b'g'; rest.parse()?]);
            conn.send(format!("{grown:?}\n").as_bytes())?;
        }
        "measure" => conn.send(format!("{}\n", conn.state().len()).as_bytes())?,
        // A timer of this many milliseconds with this tag.
        "after" => {
            let (time, tag) = rest.split_once(' ').ok_or("after MILLISECONDS TAG")?;
            let set = conn.after(Duration::from_millis(time.parse()?), tag.parse()?);
            conn.send(format!("{set:?}\n").as_bytes())?;
        }
        "after-and-fail" => {
            conn.after(Duration::ZERO, rest.parse()?)?;
            return Err("asked to fail".into());
        }
        "cancel" => {
            let cancelled = conn.cancel(rest.parse()?);
            conn.send(format!("{cancelled:?}\n").as_bytes())?;
        }
        // As many timers as are taken, each with a tag of its own.
        "flood" => {
            let tags = 0..rest.parse()?;
            let refused = tags.map(|tag| conn.after(Duration::from_secs(3600), tag));
            let refused = refused.filter_map(Result::err).next();
            conn.send(format!("{refused:?}\n").as_bytes())?;
        }
        // This many bytes, as the client takes them. The state is the number of bytes that are left.
        "stream" => {
            conn.set_state(rest.as_bytes())?;
            stream(conn)?;
        }
        // For this many milliseconds.
        "hold" => {
            conn.pause()?;
            conn.after(Duration::from_millis(rest.parse()?), HOLD)?;
            conn.send(b"held\n")?;
        }
        "who" => conn.send(format!("{:?}\n", conn.user()).as_bytes())?,
        "number" => conn.send(format!("{:?}\n", conn.message_number()).as_bytes())?,
        _ => return promise(conn, command, rest),
    }
    Ok(true)
}

/// Carries out a command that promises an answer. Returns false for any other command.
fn promise(conn: &mut Conn<'_>, command: &str, rest: &str) -> tine::Result<bool> {
    match command {
        // Promises an answer within this many milliseconds.
        "promise" => conn.answer_within(Duration::from_millis(rest.parse()?), SORRY)?,
        // Promises one for a long time, and leaves it to a timer: of this many milliseconds, with this tag.
        "later" => {
            let (time, tag) = rest.split_once(' ').ok_or("later MILLISECONDS TAG")?;
            conn.answer_within(Duration::from_secs(60), SORRY)?;
            conn.after(Duration::from_millis(time.parse()?), tag.parse()?)?;
        }
        // What is sent before a promise does not keep it.
        "begin-later" => {
            conn.send(b"begun\n")?;
            conn.answer_within(Duration::from_secs(60), SORRY)?;
            conn.flush();
            conn.after(Duration::from_millis(100), rest.parse()?)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Appends a word, and answers with the message's number and the state.
fn push(conn: &mut Conn<'_>, word: &str) -> tine::Result {
    let mut state = conn.state().to_vec();
    state.extend_from_slice(word.as_bytes());
    state.push(b',');
    conn.set_state(&state)?;
    let number = conn.message_number().ok_or("no number")?;
    conn.send(format!("{number} ").as_bytes())?;
    conn.send(conn.state().to_vec().as_slice())?;
    Ok(conn.send(b"\n")?)
}

/// Says that a timer has fired, and appends its tag to the state. The first attempt of a tag of 1000 and more dies, and a
/// tag below 100 is set again, one less, until it is 0.
pub(crate) fn fired(conn: &mut Conn<'_>, tag: u64) -> tine::Result {
    if tag >= 1000 && conn.attempt() == 0 {
        std::process::abort();
    }
    if tag == HOLD {
        conn.resume()?;
    }
    if (1..100).contains(&tag) {
        conn.after(Duration::from_millis(1), tag - 1)?;
    }
    let state = [conn.state(), format!("{tag},").as_bytes()].concat();
    conn.set_state(&state)?;
    Ok(conn.send(format!("fired {tag} attempt {}\n", conn.attempt()).as_bytes())?)
}

/// Sends the next bytes of a stream. The state says how many are left; each byte is the last digit of that.
pub(crate) fn stream(conn: &mut Conn<'_>) -> tine::Result {
    let left: usize = std::str::from_utf8(conn.state())?.parse()?;
    let piece = left.min(PIECE);
    let bytes: Vec<u8> = (0..piece)
        .map(|sent| b'0' + ((left - sent) % 10) as u8)
        .collect();
    conn.send(&bytes)?;
    conn.set_state((left - piece).to_string().as_bytes())?;
    if left > piece {
        conn.notify_drained()?;
    } else {
        conn.send(b"\n")?;
    }
    Ok(())
}
