//! The flags of `tine serve` for its log.

use std::path::PathBuf;

use clap::Args;
use log::LevelFilter;
use tine::logger::{Format, Logger, StartError};

/// The log: its level, its file, its format.
#[derive(Args)]
pub(super) struct Logs {
    /// The lowest level that is logged: off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value_t = LevelFilter::Info, value_parser = log_level)]
    pub(super) log_level: LevelFilter,

    /// A file for the log, in the place of standard error. It is appended to, and made with mode 0640 if there
    /// is none. SIGHUP opens it again.
    #[arg(long, value_name = "FILE")]
    pub(super) log_file: Option<PathBuf>,

    /// The form of the log's lines: text, json or logfmt.
    #[arg(long, value_name = "FORMAT", default_value_t = Format::Text)]
    pub(super) log_format: Format,
}

/// Starts the log.
pub(super) fn start(
    level: LevelFilter,
    file: Option<PathBuf>,
    format: Format,
) -> Result<(), StartError> {
    let logger = Logger::new().level(level).format(format);
    match file {
        Some(path) => logger.file(path).start(),
        None => logger.start(),
    }
}

pub(super) fn log_level(text: &str) -> Result<LevelFilter, String> {
    let expected = "expected off, error, warn, info, debug or trace";
    text.parse().map_err(|_| expected.to_owned())
}
