//! Programs that use the installed library: they link with it, statically or not, and serve.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;

use super::{Installed, VERSION, so_version};
use crate::common::client::Client;
use crate::common::launch::Launch;
use crate::common::make::said;
use crate::common::root;

impl Installed {
    /// Compiles and links a program with these flags and runs it. Returns its output and its dynamic section.
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
        // The tests' own value would find another library.
        let version = said(run.env("LD_LIBRARY_PATH", self.path("lib")));
        (version, dynamic(&program))
    }
}

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

/// Returns the dynamic section of a program or library, which the loader reads.
#[track_caller]
fn dynamic(file: &Path) -> String {
    said(Command::new("readelf").arg("-d").arg(file))
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
fn an_example_serves_with_the_installed_library() {
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
fn installed_files_have_symbols_and_no_line_tables() {
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
