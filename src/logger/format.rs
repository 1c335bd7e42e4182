//! The forms of a log line: text, JSON, logfmt.
//!
//! Its one rule: whatever a program has put into a text, the line stays one record.

use std::fmt::{self, Display, Write as _};
use std::str::FromStr;

use log::Level;

use crate::printable::{is_control, printable};

/// The form of the lines of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Format {
    /// For people: `TIME LEVEL ROLE[PID] MESSAGE`. Further lines of a message are indented.
    #[default]
    Text,
    /// An object on one line, with the strings `time`, `level`, `role` and `message`, and the number `pid`.
    Json,
    /// The same fields as `name=value`, with quotes where a value needs them.
    Logfmt,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        match text {
            "text" => Ok(Format::Text),
            "json" => Ok(Format::Json),
            "logfmt" => Ok(Format::Logfmt),
            _ => Err("expected text, json or logfmt".to_owned()),
        }
    }
}

impl Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Text => "text",
            Format::Json => "json",
            Format::Logfmt => "logfmt",
        })
    }
}

/// A record of the log.
pub(super) struct Line<'a> {
    pub(super) time: &'a dyn Display,
    pub(super) level: Level,
    pub(super) role: &'a dyn Display,
    pub(super) pid: u32,
    pub(super) message: &'a str,
}

impl Line<'_> {
    /// Returns the record with a newline at its end. With `to_journal` each line begins with its priority,
    /// sd-daemon(3).
    pub(super) fn written(&self, format: Format, to_journal: bool) -> String {
        let Line {
            time, role, pid, ..
        } = self;
        let text = match format {
            Format::Text => {
                let (level, message) = (upper(self.level), escaped(self.message));
                format!("{time} {level} {role}[{pid}] {message}\n")
            }
            Format::Json => {
                let (level, message) = (lower(self.level), json(self.message));
                format!(
                    "{{\"time\":\"{time}\",\"level\":\"{level}\",\"role\":\"{role}\",\"pid\":{pid},\"message\":{message}}}\n"
                )
            }
            Format::Logfmt => {
                let (level, message) = (lower(self.level), json(self.message));
                format!("time={time} level={level} role={role} pid={pid} message={message}\n")
            }
        };
        match to_journal {
            true => {
                let prefix = format!("<{}>", priority(self.level));
                text.split_inclusive('\n')
                    .map(|line| format!("{prefix}{line}"))
                    .collect()
            }
            false => text,
        }
    }
}

fn upper(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warn => "WARNING",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
        Level::Trace => "TRACE",
    }
}

fn lower(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// The priority of syslog(3): LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Makes a text safe for a log, in which a program may have put bytes of a client. Its further lines are
/// indented, so that none of them looks like a line of the log.
fn escaped(text: &str) -> String {
    if !text.contains(is_control) {
        return text.to_owned();
    }
    let lines: Vec<String> = text.trim_end().split('\n').map(printable).collect();
    lines.join("\n    ")
}

/// Writes a text as a string of JSON, RFC 8259: so that it is one line, and controls no terminal that shows it. The same
/// is a quoted value of logfmt.
fn json(text: &str) -> String {
    let mut written = String::with_capacity(text.len() + 2);
    written.push('"');
    for c in text.trim_end().chars() {
        match c {
            '"' | '\\' => written.extend(['\\', c]),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            c if is_control(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // A string takes everything that is written to it.
                    let _ = write!(written, "\\u{unit:04x}");
                }
            }
            c => written.push(c),
        }
    }
    written.push('"');
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> Line<'_> {
        Line {
            time: &"2026-11-24T08:08:54.010Z",
            level: Level::Warn,
            role: &"worker#0",
            pid: 42,
            message,
        }
    }

    #[test]
    fn no_text_begins_a_line_of_the_log_or_controls_a_terminal() {
        assert_eq!(escaped("plain é"), "plain é");
        assert_eq!(
            escaped("a\r\n2026-01-01 ERROR master[1] forged\u{1b}[2J\n"),
            "a\\r\n    2026-01-01 ERROR master[1] forged\\u{1b}[2J"
        );
    }

    #[test]
    fn a_record_is_one_line_of_json_whatever_its_text_is() {
        let text = "a \"quoted\" \\ é\r\n\t\u{1b}[2J \u{202e} \u{e0001} \u{0}";
        let written = line(text).written(Format::Json, false);
        assert_eq!(written.matches('\n').count(), 1, "{written}");
        assert!(!written.trim_end().contains(is_control), "{written}");
        #[cfg(feature = "status")]
        {
            let read: serde_json::Value = serde_json::from_str(&written).unwrap();
            assert_eq!(read["message"], text);
            assert_eq!(read["level"], "warning");
            assert_eq!(read["role"], "worker#0");
            assert_eq!(read["pid"], 42);
            assert_eq!(read["time"], "2026-11-24T08:08:54.010Z");
        }
    }

    #[test]
    fn logfmt_quotes_the_message() {
        assert_eq!(
            line("a \"b\"\nc").written(Format::Logfmt, false),
            "time=2026-11-24T08:08:54.010Z level=warning role=worker#0 pid=42 message=\"a \\\"b\\\"\\nc\"\n"
        );
    }

    #[test]
    fn each_line_for_the_journal_has_its_priority() {
        let written = line("a\nb").written(Format::Text, true);
        assert_eq!(
            written,
            "<4>2026-11-24T08:08:54.010Z WARNING worker#0[42] a\n<4>    b\n"
        );
    }

    #[test]
    fn a_format_is_read_as_it_is_written() {
        for format in [Format::Text, Format::Json, Format::Logfmt] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("xml".parse::<Format>().is_err());
    }
}
