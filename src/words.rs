//! Words of log lines that more than one process writes: operators look for them.

use std::fmt;
use std::time::Duration;

/// A number with its noun: `1 worker`, `2 workers`.
pub(crate) struct Count(pub(crate) usize, pub(crate) &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, thing) = self;
        let plural = if *number == 1 { "" } else { "s" };
        write!(f, "{number} {thing}{plural}")
    }
}

/// The server begins to stop.
pub(crate) fn log_stop(deadline: Duration, connections: usize) {
    log::info!(
        "shutting down: messages that were read are answered within {deadline:?}, then the connections ({connections}) are closed"
    );
}

/// The server is stopped by force.
pub(crate) fn log_force(why: &str, connections: usize) {
    log::warn!("forced shutdown, {why}: {}", cut(connections));
}

/// The time for the open connections is over.
pub(crate) fn log_cut(connections: usize) {
    match connections {
        0 => log::info!("the shutdown deadline has passed: {}", cut(connections)),
        _ => log::warn!("the shutdown deadline has passed: {}", cut(connections)),
    }
}

fn cut(connections: usize) -> String {
    match connections {
        0 => "no connection is open".to_owned(),
        1 => "1 open connection is cut".to_owned(),
        _ => format!("{connections} open connections are cut"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_its_noun_in_the_right_form() {
        let counts = [0, 1, 2].map(|number| Count(number, "worker").to_string());
        assert_eq!(counts, ["0 workers", "1 worker", "2 workers"]);
        assert_eq!(
            [0, 1, 2].map(cut),
            [
                "no connection is open",
                "1 open connection is cut",
                "2 open connections are cut"
            ]
        );
    }
}
