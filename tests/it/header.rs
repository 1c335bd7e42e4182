//! `src/ffi/tine.h` is up to date with the Rust beside it, and C and C++ compile it without a warning.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use crate::common::root;

/// The files that it is made of, in the order of their functions.
const SOURCES: [&str; 24] = [
    "server",
    "listener",
    "sockets",
    "deadlines",
    "opening",
    "settings",
    "on",
    "callbacks",
    "conn",
    "files",
    "session",
    "origin",
    "post",
    "poster",
    "tasks",
    "groups",
    "listing",
    "timers",
    "address",
    "policy",
    "log",
    "log_file",
    "status",
    "version",
];

/// The headings, each before a function.
const HEADINGS: [(&str, &str); 10] = [
    ("tine_server_new", "A server's life"),
    ("tine_listener_tcp", "Listeners, before tine_server_run()"),
    ("tine_server_set_mode", "Settings, before tine_server_run()"),
    ("tine_task", "Tasks, and timers of the server"),
    (
        "tine_server_set_userdata",
        "Callbacks of the workers, before tine_server_run()",
    ),
    (
        "tine_server_on_start",
        "Callbacks of master and manager, before tine_server_run()",
    ),
    ("tine_conn_send", "What a callback of a connection can do"),
    ("tine_address_text", "Addresses"),
    ("tine_log_to", "Log"),
    ("tine_strerror", "What went wrong, and versions"),
];

fn file(name: &str) -> PathBuf {
    root().join("src/ffi").join(name)
}

/// Returns the header made of the sources.
fn made() -> String {
    let mut config = cbindgen::Config::from_file(file("cbindgen.toml")).expect("cbindgen.toml");
    config.after_includes = Some(version_macros() + SOCKET_ADDRESSES);
    let builder = SOURCES
        .iter()
        .fold(cbindgen::Builder::new(), |builder, source| {
            builder.with_src(file(&format!("{source}.rs")))
        });
    let bindings = builder
        .with_config(config)
        .generate()
        .expect("the sources are understood");
    let mut header = Vec::new();
    bindings.write(&mut header);
    let mut header = String::from_utf8(header).expect("UTF-8");
    for (function, heading) in HEADINGS {
        let before = declaration(&header, function);
        header.insert_str(before, &format!("// ---- {heading} ----\n\n"));
    }
    header
}

/// Returns the position of a function's declaration, with its comment.
fn declaration(header: &str, function: &str) -> usize {
    let call = format!("{function}(");
    let mut found = header.match_indices(&call);
    let is_code = |at: usize| {
        let line = header[..at].rfind('\n').map_or(0, |newline| newline + 1);
        !header[line..].starts_with("//")
    };
    let (at, _) = found.find(|(at, _)| is_code(*at)).expect(function);
    header[..at].rfind("\n\n").expect("declarations are apart") + 2
}

/// Without the header of sockets: a program may have its own functions bind, send and listen.
const SOCKET_ADDRESSES: &str = "\n\n// As in <sys/socket.h>, for programs that read them.\n\
    struct sockaddr;\nstruct sockaddr_storage;";

/// Returns the macros of the version.
fn version_macros() -> String {
    let [major, minor, patch] = [
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
    ];
    format!(
        "\n// The version of this header; tine_version() is that of the library which runs.\n\
         #define TINE_VERSION \"{}\"\n\
         #define TINE_VERSION_MAJOR {major}\n\
         #define TINE_VERSION_MINOR {minor}\n\
         #define TINE_VERSION_PATCH {patch}\n\
         // Grows with the version: a byte for each of its parts.\n\
         #define TINE_VERSION_NUMBER \
         (TINE_VERSION_MAJOR << 16 | TINE_VERSION_MINOR << 8 | TINE_VERSION_PATCH)",
        env!("CARGO_PKG_VERSION")
    )
}

#[test]
fn the_header_is_up_to_date() {
    let made = made();
    // `make header`.
    if env::var_os("TINE_WRITE_HEADER").is_some() {
        fs::write(file("tine.h"), &made).expect("the header can be written");
    }
    let there = fs::read_to_string(file("tine.h")).expect("the header is there");
    let differs = there
        .lines()
        .zip(made.lines())
        .find(|(there, made)| there != made);
    assert_eq!(differs, None, "run `make header`");
    assert_eq!(there.len(), made.len(), "run `make header`");
}

/// Whether a compiler compiles the header by itself, with every warning an error; `None` if it is not
/// on this machine.
fn takes(compiler: &str, language: &str, standard: &str) -> Option<Result<(), String>> {
    let flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"];
    let mut command = Command::new(compiler);
    command
        .args(flags)
        .arg(format!("-std={standard}"))
        .args(["-x", language]);
    match command.arg(file("tine.h")).output() {
        Ok(output) if output.status.success() => Some(Ok(())),
        Ok(output) => Some(Err(String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(_) => None,
    }
}

#[test]
fn c_and_cpp_compile_it_without_a_warning() {
    let mut taken = Vec::new();
    for (compilers, language, standards) in [
        (["cc", "gcc", "clang"], "c", ["c11", "c17", "gnu2x"]),
        (
            ["c++", "g++", "clang++"],
            "c++",
            ["c++11", "c++17", "c++20"],
        ),
    ] {
        for (compiler, standard) in compilers.into_iter().flat_map(|compiler| {
            standards
                .into_iter()
                .map(move |standard| (compiler, standard))
        }) {
            match takes(compiler, language, standard) {
                Some(outcome) => {
                    assert_eq!(outcome, Ok(()), "{compiler} -std={standard}");
                    taken.push(compiler);
                }
                None => eprintln!("{compiler} is not here: skipped"),
            }
        }
    }
    assert!(taken.contains(&"cc") && taken.contains(&"c++"), "{taken:?}");
}

#[test]
fn every_function_documents_its_errors() {
    let header = made();
    let functions = &header[header.find("extern \"C\" {").expect("the functions")..];
    let mut seen = 0;
    for block in functions
        .split("\n\n")
        .filter(|block| block.contains("tine_status tine_"))
    {
        let Some(declaration) = block.lines().find(|line| line.starts_with("tine_status")) else {
            continue;
        };
        seen += 1;
        assert!(block.contains("// Errors: "), "{declaration}");
    }
    assert!(seen > 50, "{seen} functions return a status");
}
