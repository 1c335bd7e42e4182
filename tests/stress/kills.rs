//! Row 1: SIGKILL to a random worker, again and again.

use super::Scale;
use super::chaos::kill_until;
use super::crowd::{Habit, Plan};
use super::report::Report;
use super::trial::{Framing, Trial};

/// Kills for each of the 24 combinations.
const KILLS: usize = 30;

/// Bytes of a message, and the number of clients that send such.
pub(crate) const SIZES: [(usize, &str, usize); 3] = [
    (16, "16 B", 32),
    (4 << 10, "4 KiB", 24),
    (200 << 10, "200 KiB", 6),
];

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for framing in Framing::BOTH {
        for (size, words, connections) in SIZES {
            for depth in [1, 16] {
                for work in ["0", "1"] {
                    // Echoed bytes stay in the reactor; copied bytes go through the outbox.
                    let handler = match (depth, work) {
                        (1, "0") | (16, "1") => "echo",
                        _ => "copy",
                    };
                    let name = format!(
                        "SIGKILL, {handler} {words} x {depth}, work {work} ms, {}",
                        framing.word()
                    );
                    let plan = Plan {
                        connections,
                        size,
                        depth,
                        habit: Habit::Stay,
                    };
                    report.row(1, &name, || {
                        let mut trial =
                            Trial::start(framing, &["--work", work, "--handler", handler]);
                        trial.expect_deaths();
                        trial.join(&[plan]);
                        let kills = kill_until(&trial, KILLS * scale.0);
                        trial.end(format!("{kills} kills"))
                    });
                }
            }
        }
    }
}
