//! Commands that post to workers. A post is `ID TEXT`: it sends the text to the connection with this id.

use tine::{Conn, ConnId, Context, Handle, To};

use super::options::{LOOK, Options};

/// Carries out a command that posts. Returns false for any other command.
pub(crate) fn carry_out(
    cx: &mut Context<'_>,
    conn: &mut Conn<'_>,
    command: &str,
    rest: &str,
) -> tine::Result<bool> {
    let (first, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let to = match command {
        "post-seat" => To::Seat(first.parse()?),
        "post-all" => To::All,
        "post-any" => To::LeastBusy,
        "post-owner" => To::Owner(ConnId::from_u64(first.parse()?).ok_or("no id")?),
        // As many as are taken.
        "post-flood" => {
            let mut refused = (0..first.parse()?).map(|_| cx.post(To::Seat(0), &[b'x'; 1000]));
            let refused = refused.find_map(Result::err);
            conn.send(format!("{refused:?}\n").as_bytes())?;
            return Ok(true);
        }
        _ => return Ok(false),
    };
    let text = match command {
        "post-seat" | "post-owner" => text,
        _ => rest,
    };
    let posted = cx.post(to, format!("{} {text}", conn.id().as_u64()).as_bytes());
    conn.send(format!("{posted:?}\n").as_bytes())?;
    Ok(true)
}

/// Posts, from a thread of the master (in base mode: never), what the file `order` says, once for each new content: `TO POST`,
/// where TO is a seat, `all`, `any` or `flood`. Logs the outcome.
pub(crate) fn obey(handle: Handle, options: Options) {
    let thread = move || {
        let mut last = String::new();
        loop {
            let order = std::fs::read_to_string(options.gate("order")).unwrap_or_default();
            if order != last {
                let (to, post) = order.split_once(' ').unwrap_or((&order, ""));
                let posted = match to {
                    "all" => handle.post(To::All, post.as_bytes()),
                    "any" => handle.post(To::LeastBusy, post.as_bytes()),
                    "flood" => {
                        let mut posted =
                            (0..100_000).map(|_| handle.post(To::Seat(0), &[b'x'; 1000]));
                        posted.find(Result::is_err).unwrap_or(Ok(()))
                    }
                    "long" => handle.post(To::All, &[0; 70_000]),
                    seat => handle.post(To::Seat(seat.parse().unwrap_or(0)), post.as_bytes()),
                };
                log::info!("order {to}: {posted:?}");
                last = order;
            }
            std::thread::sleep(LOOK);
        }
    };
    drop(std::thread::spawn(thread));
}

/// Handles a post: sends `posted TEXT in SEAT attempt N`. A text that begins with `die` dies in its first attempt, one
/// with `poison` in each.
pub(crate) fn arrived(cx: &mut Context<'_>, bytes: &[u8]) -> tine::Result {
    let Some((id, text)) = std::str::from_utf8(bytes)?.split_once(' ') else {
        return Ok(());
    };
    if text.starts_with("poison") || text.starts_with("die") && cx.attempt() == 0 {
        std::process::abort();
    }
    if text.starts_with("fail") && cx.attempt() == 0 {
        return Err("asked to fail".into());
    }
    let id = ConnId::from_u64(id.parse()?).ok_or("no id")?;
    let (seat, attempt) = (cx.worker().seat().ok_or("no seat")?, cx.attempt());
    let answer = format!("posted {text} in {seat} attempt {attempt}\n");
    Ok(cx.conn(id).send(answer.as_bytes())?)
}
