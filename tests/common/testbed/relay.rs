//! A handler that passes lines on to other connections, as a chat does.

use tine::{Conn, ConnId, Context, Handler};

/// Takes lines that begin with a seat, for the dispatch function. `0?` is answered with the id of the connection, `0=TEXT`
/// with the line, the text of `0@ID TEXT` goes to another connection, and `0!` is followed by the words of [`deeds`].
pub(crate) struct Relay;

impl Handler for Relay {
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
    ) -> tine::Result {
        match message.get(1) {
            Some(b'?') => conn.send(format!("{}\n", conn.id().as_u64()).as_bytes())?,
            Some(b'@') => {
                let space = message.iter().position(|byte| *byte == b' ');
                let (id, text) = message.split_at(space.ok_or("0@ID TEXT")?);
                cx.conn(parse(&id[2..])?).send(&text[1..])?;
            }
            Some(b'!') => deeds(cx, conn, message[2..].trim_ascii_end())?,
            _ => conn.send(message)?,
        }
        Ok(())
    }
}

fn parse(id: &[u8]) -> tine::Result<ConnId> {
    let id = std::str::from_utf8(id)?.parse()?;
    Ok(ConnId::from_u64(id).ok_or("no id")?)
}

/// Every kind of record in one commit: `NUMBER ID ID RELOAD` sets the user, sends the number to the first connection, closes
/// the second one, and reloads the server if the last word is `yes`. The answer is the number.
fn deeds(cx: &mut Context<'_>, conn: &mut Conn<'_>, words: &[u8]) -> tine::Result {
    let words: Vec<&[u8]> = words.split(|byte| *byte == b' ').collect();
    let [number, to, end, reload] = words[..] else {
        return Err("NUMBER ID ID RELOAD".into());
    };
    conn.set_user(std::str::from_utf8(number)?.parse()?);
    cx.conn(parse(to)?).send(number)?;
    cx.conn(parse(to)?).send(b" is told\n")?;
    cx.conn(parse(end)?).close()?;
    if reload == b"yes" {
        cx.server().reload();
    }
    conn.send(number)?;
    conn.send(b" is done\n")?;
    Ok(())
}
