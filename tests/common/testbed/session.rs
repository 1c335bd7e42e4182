//! Commands on the state and the user of a connection. A state is text: the words that were pushed, and a comma behind
//! each.

use tine::Conn;

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
        "who" => conn.send(format!("{:?}\n", conn.user()).as_bytes())?,
        "number" => conn.send(format!("{:?}\n", conn.message_number()).as_bytes())?,
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
