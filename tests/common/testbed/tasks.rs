//! Commands that queue tasks. A task is `ID TEXT`: it answers the connection with this id.

use std::time::Duration;

use tine::{Conn, ConnId, Context, NewTask, Task};

use super::options::Options;

/// Carries out a command that queues tasks. Returns false for any other command.
pub(crate) fn carry_out(
    cx: &mut Context<'_>,
    conn: &mut Conn<'_>,
    command: &str,
    rest: &str,
) -> tine::Result<bool> {
    let number = || rest.split_once(' ').unwrap_or((rest, ""));
    let id = conn.id().as_u64();
    let queued = match command {
        "task" => cx.task(format!("{id} {rest}").as_bytes()),
        "task-tag" => {
            let (tag, text) = number();
            let bytes = format!("{id} {text}");
            cx.task(NewTask::new(bytes.as_bytes()).tag(tag.parse()?))
        }
        "task-after" => {
            let (time, text) = number();
            let bytes = format!("{id} {text}");
            let delay = Duration::from_millis(time.parse()?);
            cx.task(NewTask::new(bytes.as_bytes()).after(delay))
        }
        // After this many milliseconds, with key 7.
        "task-key" => {
            let (time, text) = number();
            let bytes = format!("{id} {text}");
            let delay = Duration::from_millis(time.parse()?);
            cx.task(NewTask::new(bytes.as_bytes()).after(delay).key(7))
        }
        "task-and-fail" => {
            cx.task(format!("{id} {rest}").as_bytes())?;
            return Err("asked to fail".into());
        }
        "task-long" => cx.task(&vec![b'x'; rest.parse()?][..]),
        // As many as are taken.
        "task-flood" => {
            let mut queued = (0..rest.parse()?).map(|_| cx.task(&[b'x'; 100]));
            queued.find(Result::is_err).unwrap_or(Ok(()))
        }
        _ => return Ok(false),
    };
    conn.send(format!("{queued:?}\n").as_bytes())?;
    Ok(true)
}

/// Runs a task: sends `ran TEXT attempt N`, and finishes with the same. A text that begins with `die` dies in its first
/// attempt, one with `poison` in each; `wait GATE` waits; `hop N` queues the next hop.
pub(crate) fn run(options: &Options, cx: &mut Context<'_>, task: &mut Task<'_>) -> tine::Result {
    let Some((id, text)) = std::str::from_utf8(task.bytes())?.split_once(' ') else {
        return Ok(());
    };
    let id = ConnId::from_u64(id.parse()?).ok_or("no id")?;
    let mut conn = cx.conn(id);
    if text.starts_with("flush") {
        let posted = cx.post(
            tine::To::Seat(0),
            format!("{} here", id.as_u64()).as_bytes(),
        );
        conn.send(format!("{posted:?}\n").as_bytes())?;
    }
    if text.starts_with("poison") || text.starts_with("die") && cx.attempt() == 0 {
        std::process::abort();
    }
    if text.starts_with("fail") && cx.attempt() == 0 {
        return Err("asked to fail".into());
    }
    if let Some(gate) = text.strip_prefix("wait ") {
        options.wait_for(gate);
    }
    if let Some(left) = text
        .strip_prefix("hop ")
        .and_then(|left| left.parse::<u64>().ok())
        && left > 0
    {
        let next = format!("{} hop {}", id.as_u64(), left - 1);
        cx.task(NewTask::new(next.as_bytes()).after(Duration::from_millis(1)))?;
    }
    if !cx.worker().runs_tasks() {
        return Err("a task in a worker for clients".into());
    }
    let (text, attempt) = (text.to_owned(), cx.attempt());
    task.finish(format!("{} {text}", id.as_u64()).as_bytes())?;
    Ok(conn.send(format!("ran {text} attempt {attempt}\n").as_bytes())?)
}

/// A result has come: sends `finished TAG TEXT in SEAT attempt N`.
pub(crate) fn finished(cx: &mut Context<'_>, tag: u64, result: &[u8]) -> tine::Result {
    let Some((id, text)) = std::str::from_utf8(result)?.split_once(' ') else {
        return Err("a result without an id".into());
    };
    let id = ConnId::from_u64(id.parse()?).ok_or("no id")?;
    let (seat, attempt) = (cx.worker().seat().ok_or("no seat")?, cx.attempt());
    if text.starts_with("late-die") && attempt == 0 {
        std::process::abort();
    }
    let answer = format!("finished {tag} {text} in {seat} attempt {attempt}\n");
    Ok(cx.conn(id).send(answer.as_bytes())?)
}
