//! `make install` puts the files where it should, and `make uninstall` removes them all.
//!
//! The tests install the program that they were built with: cargo would put another in its place, with other features,
//! while other tests run it.

mod linking;
mod manual;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::c::libraries;
use crate::common::make::{files, make, said};
use tempfile::TempDir;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A command that does not exist in place of cargo: root often has none.
const NO_CARGO: &str = "CARGO=no-cargo-here";

/// Returns the version in the library's soname: before 1.0 each minor version may break programs.
fn so_version() -> String {
    let (major, minor) = (
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
    );
    match major {
        "0" => format!("0.{minor}"),
        _ => major.to_owned(),
    }
}

/// Returns the files of an installation, below its prefix.
fn expected() -> Vec<String> {
    let so_version = so_version();
    let mut expected = [
        "bin/tine",
        "include/tine.h",
        "lib/libtine.a",
        "lib/libtine.so",
        &format!("lib/libtine.so.{so_version}"),
        &format!("lib/libtine.so.{VERSION}"),
        "lib/pkgconfig/tine.pc",
        "share/man/man1/tine-doctor.1",
        "share/man/man1/tine-lab.1",
        "share/man/man1/tine-load.1",
        "share/man/man1/tine-post.1",
        "share/man/man1/tine-serve.1",
        "share/man/man1/tine.1",
    ]
    .map(str::to_owned);
    expected.sort_unstable();
    expected.to_vec()
}

/// An installation of the program and the libraries, in a temporary folder.
struct Installed {
    folder: TempDir,
}

impl Installed {
    #[track_caller]
    fn new() -> Self {
        libraries();
        let installed = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let done = make(&["install", NO_CARGO, &installed.prefix()]);
        assert!(done.status.success(), "{done:#?}");
        installed
    }

    fn prefix(&self) -> String {
        format!("PREFIX={}", self.path("").display())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("of-tine").join(file)
    }

    #[track_caller]
    fn pkg_config(&self, arguments: &[&str]) -> Vec<String> {
        let flags = said(pkg_config(&self.path("lib/pkgconfig")).args(arguments));
        flags.split_whitespace().map(str::to_owned).collect()
    }
}

fn pkg_config(folder: &Path) -> Command {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", folder).arg("tine");
    command
}

#[test]
fn everything_is_installed_and_nothing_is_left_after_uninstall() {
    let installed = Installed::new();
    assert_eq!(files(&installed.path("")), expected());
    let version = said(Command::new(installed.path("bin/tine")).arg("--version"));
    assert_eq!(version, format!("tine {VERSION}"));
    for file in expected() {
        let mode = installed
            .path(&file)
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777;
        let is_run = file == "bin/tine" || file.contains(".so");
        assert_eq!(mode, if is_run { 0o755 } else { 0o644 }, "{file}");
    }

    // Files of other packages stay.
    fs::write(installed.path("lib/pkgconfig/other.pc"), "").unwrap();
    let removed = make(&["uninstall", NO_CARGO, &installed.prefix()]);
    assert!(removed.status.success(), "{removed:#?}");
    assert_eq!(files(&installed.path("")), ["lib/pkgconfig/other.pc"]);
}

#[test]
fn install_lib_installs_no_program() {
    libraries();
    let folder = tempfile::tempdir().unwrap();
    let prefix = format!("PREFIX={}", folder.path().display());
    let done = make(&["install-lib", NO_CARGO, &prefix]);
    assert!(done.status.success(), "{done:#?}");
    let is_of_the_program = |file: &String| file.starts_with("bin/") || file.starts_with("share/");
    let mut libraries = expected();
    libraries.retain(|file| !is_of_the_program(file));
    assert_eq!(files(folder.path()), libraries);
    let removed = make(&["uninstall", NO_CARGO, &prefix]);
    assert!(removed.status.success(), "{removed:#?}");
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn destdir_moves_the_files_and_is_in_none_of_them() {
    libraries();
    let folder = tempfile::tempdir().unwrap();
    let stage = folder.path().join("a stage");
    let destination = format!("DESTDIR={}", stage.display());
    let places = [
        destination.as_str(),
        "PREFIX=/opt/of-tine",
        "LIBDIR=/opt/of-tine/lib64",
        "MANDIR=/opt/manuals",
        NO_CARGO,
    ];
    let done = make(&[&["install"], &places[..]].concat());
    assert!(done.status.success(), "{done:#?}");
    let moved = |file: String| {
        let file = format!("opt/of-tine/{file}");
        let file = file.replace("of-tine/lib/", "of-tine/lib64/");
        file.replace("of-tine/share/man/", "manuals/")
    };
    let mut moved: Vec<String> = expected().into_iter().map(moved).collect();
    moved.sort_unstable();
    assert_eq!(files(&stage), moved);

    let described = stage.join("opt/of-tine/lib64/pkgconfig");
    for (variable, value) in [
        ("prefix", "/opt/of-tine"),
        ("libdir", "/opt/of-tine/lib64"),
        ("includedir", "/opt/of-tine/include"),
    ] {
        let mut ask = pkg_config(&described);
        assert_eq!(said(ask.arg(format!("--variable={variable}"))), value);
    }
    let mut ask = pkg_config(&described);
    assert_eq!(said(ask.arg("--modversion")), VERSION);

    let removed = make(&[&["uninstall"], &places[..]].concat());
    assert!(removed.status.success(), "{removed:#?}");
    assert_eq!(files(&stage), Vec::<String>::new());
}

#[test]
fn install_builds_first_if_there_is_a_cargo() {
    libraries();
    let folder = tempfile::tempdir().unwrap();
    let (cargo, log) = (folder.path().join("cargo"), folder.path().join("log"));
    script(&cargo, &format!("echo \"$@\" >>'{}'", log.display()));
    let done = make(&[
        "install",
        &format!("CARGO={}", cargo.display()),
        &format!("PREFIX={}/to", folder.path().display()),
    ]);
    assert!(done.status.success(), "{done:#?}");
    let called = fs::read_to_string(log).unwrap();
    assert!(
        called.contains("rustc --profile") && called.contains("build --profile"),
        "{called}"
    );
}

/// Writes a shell script. A copy of it is run: the file itself may still be open for writing in a child that another
/// test has forked meanwhile, and execve(2) would fail with ETXTBSY.
fn script(path: &Path, does: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, format!("#!/bin/sh\n{does}\n")).unwrap();
    fs::set_permissions(&draft, Permissions::from_mode(0o755)).unwrap();
    said(Command::new("cp").arg("-p").arg(&draft).arg(path));
}

#[test]
fn ldconfig_runs_only_for_a_folder_that_the_loader_searches() {
    libraries();
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display();
    let (loader, log) = (folder.path().join("ldconfig"), folder.path().join("log"));
    script(
        &loader,
        &format!(
            "case $1 in -*) echo '{here}/known/lib: (from somewhere)';; *) echo told >>'{}';; esac",
            log.display()
        ),
    );
    let loader = format!("LDCONFIG={}", loader.display());
    for (target, places, told) in [
        (
            "install",
            [format!("PREFIX={here}/other"), String::new()],
            0,
        ),
        (
            "install",
            [
                format!("PREFIX={here}/known"),
                format!("DESTDIR={here}/stage"),
            ],
            0,
        ),
        (
            "install",
            [format!("PREFIX={here}/known"), String::new()],
            1,
        ),
        (
            "uninstall",
            [format!("PREFIX={here}/known"), String::new()],
            2,
        ),
    ] {
        let mut arguments = vec![target, NO_CARGO, &loader];
        arguments.extend(
            places
                .iter()
                .filter(|it| !it.is_empty())
                .map(String::as_str),
        );
        let done = make(&arguments);
        assert!(done.status.success(), "{done:#?}");
        let log = fs::read_to_string(&log).unwrap_or_default();
        assert_eq!(log.lines().count(), told, "{target} {places:?}");
    }
}

#[test]
fn bad_paths_are_refused_with_one_line_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().display();
    for (places, why) in [
        (
            vec!["PREFIX=opt/tine".to_owned()],
            "PREFIX is 'opt/tine': it must be an absolute path",
        ),
        (
            vec!["PREFIX=".to_owned()],
            "PREFIX is '': it must be an absolute path",
        ),
        (vec![format!("PREFIX={here}/a b")], "without spaces"),
        (
            vec![format!("PREFIX={here}/to"), "LIBDIR=lib".to_owned()],
            "LIBDIR is 'lib': it must be an absolute path",
        ),
        // Nothing was built there, and there is no cargo to build it.
        (
            vec![
                format!("PREFIX={here}/to"),
                format!("CARGO_TARGET_DIR={here}/empty"),
            ],
            "and no cargo to build it: 'make build' as one who has cargo",
        ),
    ] {
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let refused = make(&[&["install", NO_CARGO], &places[..]].concat());
        let problem = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{places:?}: {refused:#?}");
        let lines = problem.lines().filter(|line| !line.ends_with("Error 1"));
        let lines: Vec<&str> = lines.collect();
        assert!(lines.len() == 1 && lines[0].contains(why), "{lines:?}");
    }
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn packages_is_silent_when_nothing_is_missing_and_installs_what_is() {
    let there = make(&["packages"]);
    assert!(
        there.status.success() && there.stdout.is_empty() && there.stderr.is_empty(),
        "{there:#?}"
    );

    // For each package manager, a machine that has only that one, and no compiler.
    let folder = tempfile::tempdir().unwrap();
    for (manager, installs) in [
        ("apt-get", "install"),
        ("dnf", "install"),
        ("apk", "add"),
        ("pacman", "-S"),
        ("zypper", "install"),
    ] {
        let machine = folder.path().join(manager);
        fs::create_dir(&machine).unwrap();
        script(&machine.join(manager), "echo \"$0 $*\"");
        script(&machine.join("id"), "echo 0");
        script(&machine.join("env"), "shift; exec \"$@\"");
        let path = format!("PATH={}", machine.display());
        let installed = make(&["packages", &path]);
        let said = String::from_utf8_lossy(&installed.stdout);
        assert!(
            installed.status.success() && said.contains(manager) && said.contains(installs),
            "{manager}: {installed:#?}"
        );
    }
    let path = format!("PATH={}", folder.path().display());
    let without_manager = make(&["packages", &path]);
    let problem = String::from_utf8_lossy(&without_manager.stderr);
    assert!(
        !without_manager.status.success()
            && problem.contains("install a C and C++ compiler, pkg-config, openssl, and SQLite"),
        "{without_manager:#?}"
    );
}
