//! Commands on timers of the server. The tag of a timer is the connection that it answers.

use std::time::Duration;

use tine::{Conn, ConnId, Context, Run};

/// The tag of the timer that the server has from its start: no connection has that id.
pub(crate) const FROM_START: u64 = 0;

/// Carries out `tick-after` and `tick-every MILLISECONDS one|each`, and `tick-cancel`. Returns false for any other
/// command.
pub(crate) fn carry_out(
    cx: &mut Context<'_>,
    conn: &mut Conn<'_>,
    command: &str,
    rest: &str,
) -> tine::Result<bool> {
    let tag = conn.id().as_u64();
    let (time, run) = rest.split_once(' ').unwrap_or((rest, ""));
    let run = if run == "each" { Run::Each } else { Run::One };
    let time = || Ok::<_, tine::Error>(Duration::from_millis(time.parse().unwrap_or(0)));
    let set = match command {
        "tick-after" => cx.after(time()?, tag, run),
        "tick-every" => cx.every(time()?, tag, run),
        "tick-cancel" => cx.cancel(tag),
        // As many as are taken.
        "tick-flood" => {
            let mut set =
                (0..rest.parse()?).map(|tag| cx.after(Duration::from_secs(3600), tag, Run::One));
            set.find(Result::is_err).unwrap_or(Ok(()))
        }
        _ => return Ok(false),
    };
    conn.send(format!("{set:?}\n").as_bytes())?;
    Ok(true)
}

/// A timer has fired: sends `tick in SEAT attempt N`. If `dies`, the first attempt dies.
pub(crate) fn fired(cx: &mut Context<'_>, tag: u64, dies: bool) -> tine::Result {
    if dies && cx.attempt() == 0 {
        std::process::abort();
    }
    let Some(id) = ConnId::from_u64(tag) else {
        return Ok(());
    };
    let (seat, attempt) = (cx.worker().seat().ok_or("no seat")?, cx.attempt());
    Ok(cx
        .conn(id)
        .send(format!("tick in {seat} attempt {attempt}\n").as_bytes())?)
}
