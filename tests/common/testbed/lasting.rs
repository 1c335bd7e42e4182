//! A handler whose clients can tell whether what lasts longer than a callback was lost, doubled or put out of order.
//!
//! Lines, whose numbers come back:
//!
//! | line | answer |
//! |---|---|
//! | `h WORD` | `h HASH`, of all words of the connection so far |
//! | `t MS N` | `t N` by a timer |
//! | `l MS N` | `l N` by a timer, in the place of an answer that was promised |
//! | `s MS N` | `s N` by a timer of the server, with N for its tag: to the group of N / 1,000,000, which the client joins |
//! | `p SEAT N` | `p N` by a post |
//! | `k MS N` | `k N` by a task with a delay, and its result |
//! | `j ROOM` | `j ROOM`: a member |
//! | `g ROOM N` | `g N`, and `ROOM CONNECTION N` for all members of the room |
//! | `x` | `x` |

use std::time::Duration;

use tine::{Conn, ConnId, Context, Handler, NewTask, Run, Task, To};

/// The tags of timers that give a promised answer have this bit.
const PROMISED: u64 = 1 << 63;

/// The beginning of every hash: FNV-1a, 64 bits.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x100_0000_01b3;

pub(crate) struct Lasting;

impl Handler for Lasting {
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        conn: &mut Conn<'_>,
        message: &[u8],
    ) -> tine::Result {
        let line = std::str::from_utf8(message)?.trim_end();
        match line.split_at_checked(2) {
            Some(("h ", word)) => {
                let hash = conn.state().try_into().map_or(BASIS, u64::from_le_bytes);
                let hash = word.bytes().fold(hash, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(PRIME)
                });
                conn.set_state(&hash.to_le_bytes())?;
                Ok(conn.send(format!("h {hash}\n").as_bytes())?)
            }
            Some(("j ", room)) => {
                conn.join(room)?;
                Ok(conn.send(message)?)
            }
            Some(("g ", numbers)) => {
                let (room, number) = numbers.split_once(' ').ok_or("ROOM N")?;
                let said = format!("{room} {} {number}\n", conn.id().as_u64());
                cx.publish(room, said.as_bytes(), None)?;
                Ok(conn.send(format!("g {number}\n").as_bytes())?)
            }
            Some(("s ", numbers)) => {
                let (delay, tag) = numbers.split_once(' ').ok_or("MS N")?;
                let tag: u64 = tag.parse()?;
                conn.join(group_of(tag))?;
                Ok(cx.after(Duration::from_millis(delay.parse()?), tag, Run::One)?)
            }
            Some((kind, numbers)) => later(cx, conn, kind, numbers),
            None => Ok(conn.send(b"x\n")?),
        }
    }

    fn timer(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, tag: u64) -> tine::Result {
        let (kind, number) = match tag & PROMISED {
            0 => ('t', tag),
            _ => ('l', tag & !PROMISED),
        };
        Ok(conn.send(format!("{kind} {number}\n").as_bytes())?)
    }

    fn server_timer(&mut self, cx: &mut Context<'_>, tag: u64) -> tine::Result {
        Ok(cx.publish(group_of(tag), format!("s {tag}\n").as_bytes(), None)?)
    }

    fn post(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> tine::Result {
        answer(cx, 'p', bytes)
    }

    fn task(&mut self, _: &mut Context<'_>, task: &mut Task<'_>) -> tine::Result {
        let bytes = task.bytes().to_vec();
        Ok(task.finish(&bytes)?)
    }

    fn finished(&mut self, cx: &mut Context<'_>, tag: u64, result: &[u8]) -> tine::Result {
        if !result.ends_with(format!(" {tag}").as_bytes()) {
            return Err("the tag of another task".into());
        }
        answer(cx, 'k', result)
    }
}

/// The group of the client that sets timers of the server with such tags.
fn group_of(tag: u64) -> String {
    format!("timers {}", tag / 1_000_000)
}

/// Leaves the answer to another callback.
fn later(cx: &mut Context<'_>, conn: &mut Conn<'_>, kind: &str, numbers: &str) -> tine::Result {
    let (first, second) = numbers.split_once(' ').ok_or("two numbers")?;
    let (first, second): (u64, u64) = (first.parse()?, second.parse()?);
    let (time, id) = (Duration::from_millis(first), conn.id().as_u64());
    let bytes = format!("{id} {second}");
    match kind {
        "t " => conn.after(time, second)?,
        "l " => {
            conn.answer_within(Duration::from_secs(60), b"broken\n")?;
            conn.after(time, second | PROMISED)?;
        }
        "p " => cx.post(To::Seat(first as usize), bytes.as_bytes())?,
        "k " => cx.task(NewTask::new(bytes.as_bytes()).after(time).tag(second))?,
        _ => return Err(format!("{kind:?}").into()),
    }
    Ok(())
}

/// `ID NUMBER`: the connection gets the number.
fn answer(cx: &mut Context<'_>, kind: char, bytes: &[u8]) -> tine::Result {
    let words = std::str::from_utf8(bytes)?.split_once(' ');
    let (id, number) = words.ok_or("ID NUMBER")?;
    let id = ConnId::from_u64(id.parse()?).ok_or("no id")?;
    Ok(cx.conn(id).send(format!("{kind} {number}\n").as_bytes())?)
}
