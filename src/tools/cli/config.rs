//! The file of `tine serve --config`: the settings of the library by their names, and those of the program.
//!
//! Its one rule: a mistake is named with its line, and nothing in the file is passed over.

use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tine::Settings;
use tine::logger::Format;
use toml::Spanned;
use toml::de::{DeTable, Deserializer as Toml, Error};

use super::fault::Fault;
use super::serve::HandlerName;

/// The flags that were given, by their ids in clap. The others have their defaults.
pub(crate) struct Given(pub(super) ArgMatches);

impl Given {
    pub(super) fn has(&self, id: &str) -> bool {
        self.0.value_source(id) == Some(ValueSource::CommandLine)
    }
}

/// The settings of the program, beside those of the library.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Program {
    pub(super) handler: HandlerName,
    /// Milliseconds.
    pub(super) work: u64,
    #[serde(with = "texts")]
    pub(super) faults: Vec<Fault>,
    pub(super) log_callbacks: bool,
    #[serde(with = "level")]
    pub(super) log_level: log::LevelFilter,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) log_file: Option<PathBuf>,
    pub(super) log_format: Format,
}

impl Default for Program {
    fn default() -> Program {
        Program {
            handler: HandlerName::Echo,
            work: 0,
            faults: Vec::new(),
            log_callbacks: false,
            log_level: log::LevelFilter::Info,
            log_file: None,
            log_format: Format::Text,
        }
    }
}

/// The keys of [`Program`].
const PROGRAM: [&str; 7] = [
    "handler",
    "work",
    "faults",
    "log_callbacks",
    "log_level",
    "log_file",
    "log_format",
];

/// What a file says.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct File {
    pub(super) settings: Settings,
    pub(super) program: Program,
    /// The keys at the top of the file, with their lines.
    lines: Vec<(String, usize)>,
}

impl File {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong, with the file and the line.
    pub(super) fn read(path: &Path) -> Result<File, String> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| {
            let path = path.display();
            format!("cannot read the configuration {path}: {error}")
        })?;
        File::parse(&text)
            .map_err(|(line, problem)| format!("{}:{line}: {problem}", path.display()))
    }

    /// Parses a text. An error is its line and what is wrong there.
    fn parse(text: &str) -> Result<File, (usize, String)> {
        let at = |error: Error| (line(text, error.span()), advice(error.message()));
        let whole = DeTable::parse(text).map_err(at)?;
        let span = whole.span();
        let mut of_program = DeTable::new();
        let mut of_library = DeTable::new();
        let mut lines = Vec::new();
        for (key, value) in whole.into_inner() {
            let name = key.get_ref().to_string();
            lines.push((name.clone(), line(text, Some(key.span()))));
            match PROGRAM.contains(&name.as_str()) {
                true => of_program.insert(key, value),
                false => of_library.insert(key, value),
            };
        }
        let from = |table| Toml::from(Spanned::new(span.clone(), table));
        Ok(File {
            settings: Settings::deserialize(from(of_library)).map_err(at)?,
            program: Program::deserialize(from(of_program)).map_err(at)?,
            lines,
        })
    }

    /// Returns `FILE:LINE: ` for an error of the library about a setting that the file has.
    pub(super) fn place(&self, path: &Path, error: &tine::Error) -> String {
        let text = error.to_string();
        let found = self.lines.iter().find(|(name, _)| {
            let rest = text.strip_prefix("setting ");
            rest.and_then(|rest| rest.strip_prefix(name.as_str()))
                .is_some_and(|rest| rest.starts_with(':'))
        });
        match found {
            Some((_, line)) => format!("{}:{line}: ", path.display()),
            None => format!("{}: ", path.display()),
        }
    }

    /// Returns the settings as a table, which can be read back.
    pub(super) fn table(&self) -> Result<toml::Table, toml::ser::Error> {
        let mut table = toml::Table::try_from(&self.settings)?;
        table.extend(toml::Table::try_from(&self.program)?);
        Ok(table)
    }
}

/// Returns the names of the settings in which two tables differ.
pub(super) fn differences(before: &toml::Table, after: &toml::Table) -> Vec<String> {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| before.get(*name) != after.get(*name));
    names.into_iter().cloned().collect()
}

/// Returns the line of a place in a text, from 1.
fn line(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start).min(text.len());
    1 + text.as_bytes()[..start]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

/// Adds the nearest name that is allowed to serde's message about an unknown one, in which each name is between
/// backticks.
fn advice(message: &str) -> String {
    if !message.starts_with("unknown ") {
        return message.to_owned();
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let Some(unknown) = names.next() else {
        return message.to_owned();
    };
    let mut allowed: Vec<&str> = names.collect();
    if allowed.contains(&"shutdown_deadline") {
        allowed.extend(PROGRAM);
    }
    let what = match message.starts_with("unknown variant") {
        true => "value",
        false => "setting",
    };
    let near = allowed
        .iter()
        .map(|name| (strsim::damerau_levenshtein(unknown, name), *name))
        .min();
    match near {
        Some((distance, name)) if distance <= 1 + unknown.len() / 3 => {
            format!("there is no {what} {unknown:?}: {name:?} is the nearest")
        }
        _ => {
            allowed.sort_unstable();
            format!(
                "there is no {what} {unknown:?}; allowed are {}",
                allowed.join(", ")
            )
        }
    }
}

/// A list of values in the form of their texts.
mod texts {
    use super::*;

    pub(super) fn serialize<T: Display, S: Serializer>(
        values: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(T::to_string))
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let texts = Vec::<String>::deserialize(from)?;
        let parse = |text: &String| text.parse().map_err(D::Error::custom);
        texts.iter().map(parse).collect()
    }
}

/// A level in the form of its name.
mod level {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        level: &log::LevelFilter,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&level.to_string().to_lowercase())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<log::LevelFilter, D::Error> {
        let text = String::deserialize(from)?;
        super::super::logs::log_level(&text)
            .map_err(|expected| D::Error::custom(format!("{text:?} is no level: {expected}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let text = "workers = 3\nfaults = [\"close:sleep=1.5@0.25\"]\nlog_level = \"debug\"\non_crash = \"redeliver=4\"\n\
                    idle_deadline_is_not_here = 1\n";
        let text = text.replace("idle_deadline_is_not_here = 1\n", "")
            + "[[listen]]\ntcp = \"127.0.0.1:0\"\nprotocol = \"lines\"\nidle = 2.5\nwrite_deadline = \"never\"\n";
        let file = File::parse(&text).unwrap();
        assert_eq!(file.settings.workers, 3);
        assert_eq!(file.settings.listen.len(), 1);
        let written = file.table().unwrap().to_string();
        let again = File::parse(&written).unwrap_or_else(|error| panic!("{error:?}\n{written}"));
        assert_eq!(
            (again.settings, again.program),
            (file.settings, file.program)
        );
    }

    #[test]
    fn the_defaults_are_read_back() {
        let written = File::default().table().unwrap().to_string();
        let again = File::parse(&written).unwrap();
        let default = File::default();
        assert_eq!(again.settings, default.settings);
        assert_eq!(again.program, default.program);
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        for (text, line, words) in [
            (
                "workers = 2\nwrokers = 3\n",
                2,
                "\"workers\" is the nearest",
            ),
            (
                "\nlog_levle = \"info\"\n",
                2,
                "\"log_level\" is the nearest",
            ),
            (
                "[[listen]]\ntcp = \"a:1\"\nprotocl = \"raw\"\n",
                3,
                "\"protocol\" is the nearest",
            ),
            (
                "\n\nworkers = \"four\"\n",
                3,
                "invalid type: string \"four\"",
            ),
            ("mode = \"proces\"\n", 1, "\"process\" is the nearest"),
            (
                "work = 1\n\n[[listen]]\nprotocol = \"lines\"\n",
                3,
                "one of the keys tcp, unix and inherited",
            ),
            (
                "close_deadline = \"nevr\"\n",
                1,
                "neither a number of seconds nor",
            ),
            (
                "work = 1\nlog_level = \"loud\"\n",
                2,
                "expected off, error, warn",
            ),
            ("work = 1\nfaults = [\"close\"]\n", 2, "there is no colon"),
            ("work = 1\nwork = 2\n", 2, "duplicate key"),
            ("work = 1\n= 2\n", 2, ""),
            ("xyzzyxyzzy = 2\n", 1, "allowed are"),
        ] {
            let (found, problem) = File::parse(text).unwrap_err();
            assert_eq!(found, line, "{text}: {problem}");
            assert!(problem.contains(words), "{text}: {problem}");
        }
    }

    #[test]
    fn settings_that_differ_are_named() {
        let table = |text| File::parse(text).unwrap().table().unwrap();
        let (before, after) = (table("workers = 2"), table("workers = 3\nname = \"x\""));
        assert_eq!(differences(&before, &after), ["name", "workers"]);
    }
}
