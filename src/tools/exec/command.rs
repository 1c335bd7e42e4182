//! The command line of a program, checked before there is a server.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

/// A program and its arguments.
///
/// The text is split as a shell does, by spaces and quotes, but no shell runs it: the process that starts is the
/// program itself, whose signals, exit status and end are then no shell's. `sh -c '…'` gets a shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    text: String,
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
}

impl Command {
    /// Splits the text, and looks the program up.
    ///
    /// # Errors
    /// What is wrong with it, for the user.
    pub(crate) fn parse(text: &str) -> Result<Command, String> {
        let words = shlex::split(text);
        let words = words.ok_or("a quote is not closed, or the last character is a backslash")?;
        let mut words = words.into_iter();
        let program = words.next().ok_or("it has no command")?;
        find(&program, env::var_os("PATH").as_deref())?;
        Ok(Command {
            text: text.to_owned(),
            program,
            arguments: words.collect(),
        })
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Finds the program as execvp(3) will.
fn find(program: &str, path: Option<&std::ffi::OsStr>) -> Result<(), String> {
    if program.contains('/') {
        return executable(Path::new(program)).map_err(|error| match error {
            Errno::EACCES => format!(
                "{program} cannot be executed: allow it by chmod +x, or name its interpreter"
            ),
            error => format!("{program} cannot be executed: {}", error.desc()),
        });
    }
    let folders = path.map(|path| env::split_paths(path).collect::<Vec<PathBuf>>());
    let is_there = |folder: &PathBuf| executable(&folder.join(program)).is_ok();
    match folders.unwrap_or_default().iter().any(is_there) {
        true => Ok(()),
        false if Path::new(program).exists() => Err(format!(
            "command not found: no folder of PATH has {program}; for the file that is here, write ./{program}"
        )),
        false => Err(format!(
            "command not found: no folder of PATH has {program}"
        )),
    }
}

fn executable(file: &Path) -> nix::Result<()> {
    access(file, AccessFlags::X_OK)?;
    match file.is_dir() {
        true => Err(Errno::EISDIR),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_by_spaces_and_quotes() {
        let command = Command::parse(r#"sh -c 'read -r line; echo "$line"' "a b" c\ d"#).unwrap();
        assert_eq!(command.program, "sh");
        assert_eq!(
            command.arguments,
            ["-c", r#"read -r line; echo "$line""#, "a b", "c d"]
        );
        assert_eq!(
            command.to_string(),
            r#"sh -c 'read -r line; echo "$line"' "a b" c\ d"#
        );
    }

    #[test]
    fn a_command_that_cannot_run_is_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("script");
        std::fs::write(&file, "").unwrap();
        let (folder, file) = (folder.path().to_str().unwrap(), file.to_str().unwrap());
        for (text, reason) in [
            ("", "no command"),
            ("  ", "no command"),
            ("sh -c 'x", "not closed"),
            ("no-such-program x", "no folder of PATH has no-such-program"),
            ("/no/such/program", "No such file"),
            (file, "chmod +x"),
            (folder, "directory"),
        ] {
            let refused = Command::parse(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
