//! Log lines: time, level, role, pid, message, on standard error.

use std::io::Write;

use env_logger::{Builder, Env};
use log::{Level, LevelFilter};

use tine::Role;

/// Starts logging. The role and the pid are asked for at each line, so that they are right in every
/// forked process.
pub(crate) fn start(level: LevelFilter) {
    Builder::from_env(Env::default())
        .filter_level(level)
        .format(|buffer, record| {
            let level = match record.level() {
                Level::Error => "ERROR",
                Level::Warn => "WARNING",
                Level::Info => "INFO",
                Level::Debug => "DEBUG",
                Level::Trace => "TRACE",
            };
            let time = buffer.timestamp_millis();
            writeln!(
                buffer,
                "{time} {level} {}[{}] {}",
                Role::current(),
                std::process::id(),
                record.args()
            )
        })
        .init();
}
