//! Commands on groups.

use tine::{Conn, ConnId, Context};

/// Carries out a command on groups. Returns false for any other command.
pub(crate) fn carry_out(
    cx: &mut Context<'_>,
    conn: &mut Conn<'_>,
    command: &str,
    rest: &str,
) -> tine::Result<bool> {
    let (group, text) = rest.split_once(' ').unwrap_or((rest, ""));
    let line = format!("{text}\n");
    let answer = match command {
        "join" => format!("{:?}", conn.join(rest)),
        "leave" => format!("{:?}", conn.leave(rest)),
        "groups" => format!("{:?}", conn.groups()),
        // The clients' ports, in order, and what else is known of this connection.
        "connections" => listed(cx, conn)?,
        "count" => format!("{:?}", cx.connections().map(|all| all.len())),
        "exists" => {
            let id = ConnId::from_u64(rest.parse()?).ok_or("no id")?;
            format!("{:?}", cx.exists(id))
        }
        "size" => format!("{:?}", cx.group_size(group)),
        "publish" => format!("{:?}", cx.publish(group, line.as_bytes(), None)),
        "tell" => format!("{:?}", conn.publish(group, line.as_bytes())),
        // A line of this many bytes, which slow members may miss, or not.
        "publish-big" | "publish-lossy" => {
            let mut line = vec![b'x'; text.parse()?];
            line.push(b'\n');
            match command {
                "publish-big" => format!("{:?}", cx.publish(group, &line, None)),
                _ => format!("{:?}", cx.publish_lossy(group, &line, None)),
            }
        }
        "join-and-fail" => {
            conn.join(group)?;
            cx.publish(group, b"never seen\n", None)?;
            return Err("asked to fail".into());
        }
        "join-and-die-once" => {
            conn.join(group)?;
            cx.publish(group, line.as_bytes(), None)?;
            if conn.attempt() == 0 {
                std::process::abort();
            }
            format!("survived {}", conn.attempt())
        }
        // As many groups as are taken, with long names.
        "join-flood" => {
            let join = |number: u32| conn.join(format!("{text}{number:0100}"));
            let refused = (0..group.parse()?).map(join).find_map(Result::err);
            format!("{refused:?}")
        }
        // What is staged before a question waits for its commit.
        "size-and-fail-once" => {
            conn.send(b"never seen\n")?;
            let size = cx.group_size(group)?;
            if conn.attempt() == 0 {
                return Err("asked to fail".into());
            }
            conn.send(format!("{size} in attempt {}\n", conn.attempt()).as_bytes())?;
            return Ok(true);
        }
        _ => return Ok(false),
    };
    conn.send(format!("{answer}\n").as_bytes())?;
    Ok(true)
}

/// Tells all groups of a connection that ends.
pub(crate) fn part(cx: &mut Context<'_>, conn: &Conn<'_>) -> tine::Result {
    for group in conn.groups() {
        let name = String::from_utf8_lossy(group);
        cx.publish(group, format!("left {name}\n").as_bytes(), Some(conn.id()))?;
    }
    Ok(())
}

fn listed(cx: &mut Context<'_>, conn: &mut Conn<'_>) -> tine::Result<String> {
    let all = cx.connections()?;
    let own = all
        .iter()
        .find(|it| it.id == conn.id())
        .ok_or("not listed")?;
    let mut ports: Vec<u16> = all
        .iter()
        .filter_map(|it| it.peer.socket_addr())
        .map(|address| address.port())
        .collect();
    ports.sort_unstable();
    let unsent: usize = all.iter().map(|it| it.unsent).sum();
    Ok(format!(
        "{ports:?} own={} listener={} user={:?} unsent={unsent}",
        own.peer,
        own.listener.index(),
        own.user
    ))
}
