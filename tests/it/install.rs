//! What `make install` puts where, that C programs can use it, and that `make uninstall` leaves nothing of it.
//!
//! The program that is installed is the one that the tests were built with: cargo would put another in its place, with
//! other features, while other tests run it.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::make::{files, make, output, said};
use crate::common::root;
use nix::sys::signal::Signal;
use tempfile::TempDir;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// No cargo, as root often has none.
const NO_CARGO: &str = "CARGO=no-cargo-here";

const HELLO: &str = r#"
#include <stdio.h>
#include <tine.h>

int main(void)
{
    tine_server *server = tine_server_new();
    tine_server_free(server);
    puts(tine_version());
    return 0;
}
"#;

/// The number that programs know the shared library by: before 1.0 each minor version may break them.
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

/// What is to be there after an installation, below its prefix.
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
        "share/man/man1/tine-serve.1",
        "share/man/man1/tine.1",
    ]
    .map(str::to_owned);
    expected.sort_unstable();
    expected.to_vec()
}

/// An installation of the program and the libraries, in a folder that goes with it.
struct Installed {
    folder: TempDir,
}

impl Installed {
    #[track_caller]
    fn new() -> Self {
        build_the_libraries();
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

    /// Compiles and links a program with these flags, runs it, and returns what it says and which libraries it needs.
    #[track_caller]
    fn run_hello(&self, name: &str, flags: &[String]) -> (String, String) {
        let (source, program) = (self.folder.path().join("hello.c"), self.path(name));
        fs::write(&source, HELLO).unwrap();
        let compiler = std::env::var("CC").unwrap_or("cc".to_owned());
        let strict = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];
        let mut compile = Command::new(compiler);
        compile.args(strict).arg("-o").arg(&program).arg(&source);
        said(compile.args(flags));
        let mut run = Command::new(&program);
        // Those of the tests would have another library found.
        let version = said(run.env("LD_LIBRARY_PATH", self.path("lib")));
        (version, dynamic(&program))
    }
}

fn build_the_libraries() {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let built = make(&["c-libraries"]);
        assert!(built.status.success(), "{built:#?}");
    });
}

fn pkg_config(folder: &Path) -> Command {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", folder).arg("tine");
    command
}

/// What the loader is told by a program or library.
#[track_caller]
fn dynamic(file: &Path) -> String {
    said(Command::new("readelf").arg("-d").arg(file))
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

    // Whatever else is there stays.
    fs::write(installed.path("lib/pkgconfig/other.pc"), "").unwrap();
    let removed = make(&["uninstall", NO_CARGO, &installed.prefix()]);
    assert!(removed.status.success(), "{removed:#?}");
    assert_eq!(files(&installed.path("")), ["lib/pkgconfig/other.pc"]);
}

#[test]
fn who_wants_the_libraries_alone_gets_no_program() {
    build_the_libraries();
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
fn c_programs_link_with_the_shared_library_by_its_soname() {
    let installed = Installed::new();
    let soname = format!("libtine.so.{}", so_version());
    let library = dynamic(&installed.path("lib/libtine.so"));
    assert!(
        library.contains(&format!("Library soname: [{soname}]")),
        "{library}"
    );
    let (version, needs) =
        installed.run_hello("shared", &installed.pkg_config(&["--cflags", "--libs"]));
    assert_eq!(version, VERSION);
    assert!(
        needs.contains(&format!("Shared library: [{soname}]")),
        "{needs}"
    );
}

#[test]
fn an_example_serves_from_where_it_is_installed() {
    let installed = Installed::new();
    let program = installed.path("echo");
    let mut compile = Command::new("cc");
    compile.args(["c-examples/echo.c", "-o"]).arg(&program);
    compile.current_dir(root());
    said(compile.args(installed.pkg_config(&["--cflags", "--libs"])));
    let libraries = installed.path("lib");
    let launch = Launch::program(&program, &["127.0.0.1:0"])
        .env("LD_LIBRARY_PATH", libraries.to_str().unwrap());
    let server = crate::common::c::start(launch, "process");
    Client::connect(server.address()).echo(b"hello");
    crate::common::c::ends_well(server);
}

#[test]
fn a_program_in_another_language_serves() {
    let python = Path::new("/usr/bin/python3");
    if !python.exists() {
        eprintln!("skipped: there is no {}", python.display());
        return;
    }
    let installed = Installed::new();
    let program = root().join("tests/c/echo.py");
    let library = installed.path("lib/libtine.so");
    let [program, library] = [&program, &library].map(|path| path.to_str().unwrap());
    let arguments = [program, library, "127.0.0.1:0"];
    let server = crate::common::c::start(Launch::program(python, &arguments), "process");
    Client::connect(server.address()).echo(b"hello");
    server.workers()[0].signal(Signal::SIGKILL);
    server.logged(1, &["abnormal exit, status=0, signal=9"]);
    Client::connect(server.address()).echo(b"hello");
    crate::common::c::ends_well(server);
}

#[test]
fn c_programs_link_statically_with_libtine_alone_or_with_everything() {
    let installed = Installed::new();
    let mut flags = installed.pkg_config(&["--static", "--cflags", "--libs"]);
    let mut all_static = flags.clone();
    all_static.push("-static".to_owned());
    let (version, needs) = installed.run_hello("static", &all_static);
    assert_eq!(version, VERSION);
    assert!(!needs.contains("NEEDED"), "{needs}");

    for flag in &mut flags {
        if flag == "-ltine" {
            "-l:libtine.a".clone_into(flag);
        }
    }
    let (version, needs) = installed.run_hello("half", &flags);
    assert_eq!(version, VERSION);
    assert!(
        needs.contains("NEEDED") && !needs.contains("libtine"),
        "{needs}"
    );
}

#[test]
fn the_shared_library_exports_what_the_header_declares_and_nothing_else() {
    let installed = Installed::new();
    let mut list = Command::new("nm");
    list.args(["--dynamic", "--defined-only", "--format=posix"]);
    let symbols = said(list.arg(installed.path("lib/libtine.so")));
    let exported: BTreeSet<&str> = symbols
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();

    let header = fs::read_to_string(installed.path("include/tine.h")).unwrap();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let calls = header
        .lines()
        .filter(is_code)
        .filter_map(|line| line.split_once('('));
    let declared: BTreeSet<&str> = calls
        .filter_map(|(before, _)| before.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("tine_"))
        .collect();
    assert!(declared.contains("tine_version"), "{declared:?}");
    assert_eq!(exported, declared);
}

#[test]
fn what_is_installed_has_its_symbols_and_no_line_tables() {
    let installed = Installed::new();
    for file in ["bin/tine", "lib/libtine.so"] {
        let mut read = Command::new("readelf");
        let sections = said(read.args(["-SW"]).arg(installed.path(file)));
        assert!(
            sections.contains(".symtab") && !sections.contains(".debug_line"),
            "{file}: {sections}"
        );
    }
}

#[test]
fn destdir_is_where_the_files_go_and_none_of_them_knows_it() {
    build_the_libraries();
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
fn install_builds_first_where_there_is_a_cargo() {
    build_the_libraries();
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

/// A program in a few words of the shell.
fn script(path: &Path, does: &str) {
    fs::write(path, format!("#!/bin/sh\n{does}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_loader_is_told_where_it_looks_into_the_folder() {
    build_the_libraries();
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
fn what_can_not_work_is_refused_with_one_line_before_anything_is_written() {
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
        // Nothing was built there, and there is nobody to build it.
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
fn packages_says_nothing_where_all_is_there_and_installs_what_is_not() {
    let there = make(&["packages"]);
    assert!(
        there.status.success() && there.stdout.is_empty() && there.stderr.is_empty(),
        "{there:#?}"
    );

    // A machine with another package manager each, and with no compiler.
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
    let nobody = make(&["packages", &path]);
    let problem = String::from_utf8_lossy(&nobody.stderr);
    assert!(
        !nobody.status.success()
            && problem.contains("install a C and C++ compiler, pkg-config, and SQLite"),
        "{nobody:#?}"
    );
}

#[test]
fn the_manual_pages_have_every_flag_that_the_help_has() {
    let folder = tempfile::tempdir().unwrap();
    let made = Launch::tine(&["man", folder.path().to_str().unwrap()]).run();
    assert!(
        made.status.success() && made.stdout.is_empty() && made.stderr.is_empty(),
        "{made:#?}"
    );
    for (name, subcommand, sections) in [
        ("tine", None, &["SUBCOMMANDS"][..]),
        (
            "tine-serve",
            Some("serve"),
            &["SIGNALS", "EXIT STATUS", "EXAMPLES"],
        ),
        (
            "tine-doctor",
            Some("doctor"),
            &["ARGUMENTS", "EXIT STATUS", "EXAMPLES"],
        ),
        (
            "tine-lab",
            Some("lab"),
            &["ARGUMENTS", "EXIT STATUS", "EXAMPLES"],
        ),
        (
            "tine-load",
            Some("load"),
            &["ARGUMENTS", "EXIT STATUS", "EXAMPLES"],
        ),
    ] {
        let page = fs::read_to_string(folder.path().join(format!("{name}.1"))).unwrap();
        let page = page
            .replace("\\-", "-")
            .replace("\\fB", "")
            .replace("\\fR", "");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "SEE ALSO"]
            .iter()
            .chain(sections)
        {
            let headings = page.lines().filter_map(|line| line.strip_prefix(".SH "));
            let mut headings = headings.map(|heading| heading.trim_matches('"'));
            assert!(
                headings.any(|heading| heading == *section),
                "{name} has no {section}:\n{page}"
            );
        }
        let flags = flags_of(subcommand);
        assert!(flags.contains("--help"), "{flags:?}");
        for flag in flags {
            let described = page
                .lines()
                .any(|line| words(line).any(|word| word == flag));
            assert!(described, "{name} has no {flag}:\n{page}");
        }
    }
    assert_eq!(
        files(folder.path()).len(),
        5,
        "hidden subcommands have no page"
    );
}

/// All that the help explains.
fn flags_of(subcommand: Option<&str>) -> BTreeSet<String> {
    let arguments: Vec<&str> = subcommand.into_iter().chain(["--help"]).collect();
    let help = Launch::tine(&arguments).run().stdout;
    // What explains them is further to the right, and what is about all of them begins at the left.
    let is_of_flags = |line: &&str| line.starts_with("  -") || line.starts_with("      --");
    let flags = help.lines().filter(is_of_flags).flat_map(words);
    flags
        .filter(|word| word.starts_with("--"))
        .map(str::to_owned)
        .collect()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split([' ', ',', '['])
}

#[test]
fn the_manual_pages_are_formatted_without_a_warning() {
    if Command::new("groff").arg("--version").output().is_err() {
        eprintln!("skipped: there is no groff here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let made = Launch::tine(&["man", folder.path().to_str().unwrap()]).run();
    assert!(made.status.success(), "{made:#?}");
    for page in files(folder.path()) {
        let mut format = Command::new("groff");
        format
            .args(["-man", "-ww", "-Tutf8", "-z"])
            .arg(folder.path().join(page));
        let formatted = output(&mut format);
        assert!(
            formatted.status.success() && formatted.stderr.is_empty(),
            "{formatted:#?}"
        );
    }
}

#[test]
fn manual_pages_that_can_not_be_written_are_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    let failed = Launch::tine(&["man", nowhere.to_str().unwrap()]).run();
    assert_eq!(failed.status.code(), Some(1), "{failed:#?}");
    let expected = format!("tine: cannot write {}/tine.1: ", nowhere.display());
    assert!(
        failed.stderr.starts_with(&expected) && failed.stderr.trim_end().lines().count() == 1,
        "{failed:#?}"
    );
}
