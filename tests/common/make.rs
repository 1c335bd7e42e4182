//! `make` as a user calls it, on the build of the tests.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::launch::PROGRAM;

/// Variables that the caller of `make test` may have set, and that are not for the tests' own calls.
const NOT_INHERITED: [&str; 13] = [
    "CARGO_BUILD_TARGET",
    "MAKEFLAGS",
    "MAKEOVERRIDES",
    "MFLAGS",
    "MAKELEVEL",
    "DESTDIR",
    "PREFIX",
    "BINDIR",
    "LIBDIR",
    "INCLUDEDIR",
    "MANDIR",
    "STRIP",
    "PROFILE",
];

/// Runs make, with the profile and in the target folder of the tests.
pub(crate) fn make(arguments: &[&str]) -> Output {
    let built = Path::new(PROGRAM).parent().expect("a program in a folder");
    let profile = match built.file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev",
        name => name.expect("a profile is no path"),
    };
    let target = built.parent().expect("the target folder");
    let mut command = Command::new("make");
    command
        .current_dir(super::root())
        .arg("--no-print-directory")
        .arg(format!("PROFILE={profile}"))
        .env("CARGO_TARGET_DIR", target)
        .args(arguments);
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    output(&mut command)
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> Output {
    let output = command.output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Returns the output of a command, which must succeed.
#[track_caller]
pub(crate) fn said(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {output:#?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Every file and link in a folder and below, by its path from there, sorted.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut folders = vec![folder.to_path_buf()];
    let mut found: Vec<PathBuf> = Vec::new();
    while let Some(next) = folders.pop() {
        let entries = next.read_dir().expect("the folder can be read");
        for entry in entries.map(|entry| entry.expect("the folder can be read")) {
            if entry.file_type().expect("it has a type").is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    let from_there = |path: PathBuf| {
        let path = path.strip_prefix(folder).expect("it is below the folder");
        path.to_string_lossy().into_owned()
    };
    let mut found: Vec<String> = found.into_iter().map(from_there).collect();
    found.sort_unstable();
    found
}
