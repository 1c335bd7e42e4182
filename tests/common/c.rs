//! Programs in C, built with the library as it is now, under sanitizers.
//!
//! AddressSanitizer and UndefinedBehaviorSanitizer end a program at its first error, and every process looks for leaks at
//! its exit (`tests/c/leaks.c`), so that the exit of a worker with leaks is abnormal, with status 23.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use super::launch::{Launch, PROGRAM};
use super::make::make;
use super::server::{Ready, Server};
use super::{SOON, eventually_some, root};

/// With every warning an error, as in `make c-examples`.
const FLAGS: [&str; 6] = ["-O1", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];

const SANITIZERS: [&str; 3] = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
];

/// The folder of the libraries for C, which are built once; nothing is done where make finds them as they should be.
#[track_caller]
pub(crate) fn libraries() -> &'static Path {
    static FOLDER: OnceLock<&Path> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let built = make(&["c-libraries"]);
        assert!(built.status.success(), "{built:#?}");
        Path::new(PROGRAM).parent().expect("a program in a folder")
    })
}

/// The static library.
#[track_caller]
pub(crate) fn library() -> PathBuf {
    libraries().join("libtine.a")
}

/// One of `c-examples`, under sanitizers.
#[track_caller]
pub(crate) fn example(name: &str) -> PathBuf {
    build(&format!("c-examples/{name}.c"), &[])
}

/// Builds a program, given by its path in the repository, with these libraries, under sanitizers.
#[track_caller]
pub(crate) fn build(source: &str, libraries: &[&str]) -> PathBuf {
    let flags = [&SANITIZERS[..], &["tests/c/leaks.c"]].concat();
    compile(source, "", &flags, libraries)
}

/// Builds a program as its users do, without sanitizers.
#[track_caller]
pub(crate) fn build_plain(source: &str) -> PathBuf {
    compile(source, "-plain", &[], &[])
}

/// Builds once in each test binary: other tests wait for it. A failed build leaves no program behind.
#[track_caller]
fn compile(source: &str, kind: &str, flags: &[&str], libraries: &[&str]) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, Arc<OnceLock<PathBuf>>>> = Mutex::new(BTreeMap::new());
    let stem = Path::new(source)
        .file_stem()
        .expect("a file")
        .to_string_lossy();
    let name = format!("{stem}{kind}-{}", env!("CARGO_CRATE_NAME"));
    let built = Arc::clone(BUILT.lock().unwrap().entry(name.clone()).or_default());
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (compiler, standard) = match source.ends_with(".cc") {
        true => ("c++", "-std=c++17"),
        false => ("cc", "-std=c11"),
    };
    let mut cc = Command::new(compiler);
    cc.arg(standard)
        .args(FLAGS)
        .args(flags)
        .args(["-I", "src/ffi", source, "-o"])
        .arg(&program)
        .arg(library())
        .args(libraries)
        .args(["-Wl,--gc-sections", "-lpthread", "-ldl", "-lm"])
        .current_dir(root());
    built
        .get_or_init(|| {
            run(&mut cc);
            program
        })
        .clone()
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error: io::Error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout.into_owned()
}

/// The launch of one of these programs.
pub(crate) fn launch(program: &Path, arguments: &[&str]) -> Launch {
    Launch::program(program, arguments)
        .env(
            "ASAN_OPTIONS",
            "detect_leaks=1:detect_stack_use_after_return=1",
        )
        .env("UBSAN_OPTIONS", "print_stacktrace=1")
}

/// Starts a server in C and waits for its line `NAME: listening on ADDRESS`.
#[track_caller]
pub(crate) fn start(launch: Launch, mode: &str) -> Server {
    let mut running = launch.spawn();
    let address = eventually_some(SOON, "the program says where it listens", || {
        let ended = running.try_wait();
        assert!(ended.is_none(), "it ended before it was ready: {ended:?}");
        let lines = running.stdout.with(&[": listening on "]);
        let (_, address) = lines.first()?.split_once(": listening on ")?;
        let (address, _) = address.split_once(' ').unwrap_or((address, ""));
        Some(
            address
                .parse()
                .unwrap_or_else(|error| panic!("{address}: {error}")),
        )
    });
    let ready = Ready {
        address,
        mode: mode.to_owned(),
        workers: String::new(),
        reactors: None,
        pid: running.pid(),
    };
    Server::is_ready(running, vec![ready])
}

/// Stops the server, and checks that no sanitizer has reported an error or a leak, and that no process is left.
#[track_caller]
pub(crate) fn ends_well(mut server: Server) {
    let processes = server.processes();
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let status = server.ended(SOON);
    server.leaves_nothing(&processes);
    super::eventually(SOON, "all its output is read", || server.log().is_closed());
    let log = server.log().text();
    assert!(status.success(), "{status}\n{log}");
    for word in ["Sanitizer", ": runtime error:", "status=23"] {
        assert!(!log.contains(word), "{log}");
    }
}
