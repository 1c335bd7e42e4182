//! Refusals of the program: invalid settings, and a start that fails. It names the cause and leaves no process running.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;

use crate::common::launch::{
    CAP_DAC_OVERRIDE, CAP_NET_BIND_SERVICE, CAP_SYS_RESOURCE, Ended, Launch,
};
use crate::common::sockets::is_listening;
use nix::sys::resource::Resource;

/// Flags, and the words that the error must have.
const REFUSALS: &[(&str, &[&str])] = &[
    ("--mode=thread", &["--mode", "thread", "process", "base"]),
    ("--listen=nonsense", &["--listen", "nonsense", "unix:PATH"]),
    ("--socket-mode=888", &["--socket-mode", "octal"]),
    ("--socket-mode=1777", &["--socket-mode", "octal"]),
    ("--address-prefix=33,64", &["--address-prefix", "1 to 32"]),
    ("--max-new-per-second=0", &["--max-new-per-second", "1"]),
    (
        "--allow=10.0.0.0/33",
        &["setting allow", "10.0.0.0/33", "10.0.0.0/8"],
    ),
    ("--listen=127.0.0.1:70000", &["--listen", "127.0.0.1:70000"]),
    (
        "--listen=no-such-host.invalid:1",
        &["setting listen", "no-such-host.invalid:1", "host name"],
    ),
    ("--workers=0", &["--workers", "0", "1"]),
    ("--workers=many", &["--workers", "many", "from 1 to 511"]),
    ("--reactors=0", &["--reactors", "0", "1"]),
    ("--backlog=-1", &["--backlog", "-1"]),
    ("--handler=quine", &["--handler", "quine", "echo"]),
    ("--work=long", &["--work", "long"]),
    (
        "--fault=lunch:panic",
        &[
            "--fault",
            "lunch",
            "worker_start",
            "connect",
            "receive",
            "close",
        ],
    ),
    (
        "--fault=close:explode",
        &[
            "--fault", "explode", "sleep", "exit", "panic", "abort", "segv",
        ],
    ),
    ("--fault=close:exit=256", &["--fault", "256", "255"]),
    ("--fault=close:exit", &["--fault", "exit"]),
    ("--fault=close:sleep=often", &["--fault", "often"]),
    ("--fault=close", &["--fault", "close"]),
    (
        "--on-crash=pray",
        &["--on-crash", "pray", "close", "redeliver", "keep"],
    ),
    (
        "--on-crash=redeliver=0",
        &["--on-crash", "redeliver=0", "1"],
    ),
    ("--on-crash=reply=\\q", &["--on-crash", "escape", "xHH"]),
    ("--on-crash=reply=", &["--on-crash", "empty"]),
    (
        "--dispatch=fastest",
        &["--dispatch", "fastest", "least-busy", "client-address"],
    ),
    ("--standby=some", &["--standby", "some"]),
    (
        "--callback-limit=0",
        &[
            "callback_limit",
            "0 s (0 ms) is not between 0.001 s (1 ms) and",
            "31622400 s",
        ],
    ),
    ("--callback-limit=long", &["--callback-limit", "long"]),
    ("--on-limit=kill", &["--callback-limit"]),
    ("--max-requests=0", &["--max-requests", "0", "1"]),
    ("--worker-memory=5", &["worker_memory", "5", "1048576"]),
    ("--fail-on-crash-loop=soon", &["--fail-on-crash-loop"]),
    (
        "--close-deadline=soon",
        &["--close-deadline", "soon", "never"],
    ),
    ("--close-deadline=-1", &["--close-deadline", "-1"]),
    ("--shutdown-deadline=soon", &["--shutdown-deadline", "soon"]),
    ("--max-connections=0", &["--max-connections", "0", "1"]),
    (
        "--log-level=loud",
        &["--log-level", "loud", "error", "warn", "info", "debug"],
    ),
    ("--output-high-water=lots", &["--output-high-water", "lots"]),
    ("--output-limit=lots", &["--output-limit", "lots", "64M"]),
    (
        "--output-limit=10",
        &["setting output_limit: 10 bytes", "output_high_water"],
    ),
    (
        "--name=two words",
        &["setting name", "two words", "letters"],
    ),
    ("--memory-budget=lots", &["--memory-budget", "lots"]),
    ("--max-message=0", &["--max-message", "0", "1"]),
    (
        "--protocol=morse",
        &[
            "--protocol",
            "morse",
            "raw",
            "lines",
            "delimiter",
            "length",
            "varint",
        ],
    ),
    ("--protocol=length=9", &["--protocol", "9", "1 to 8 bytes"]),
    (
        "--protocol=length=4,all,adjust=1",
        &["--protocol", "adjust=1", "body", "all", "offset"],
    ),
    ("--frobnicate", &["--frobnicate"]),
];

#[test]
fn an_invalid_value_is_refused_with_the_allowed_ones() {
    let wrong: Vec<String> = REFUSALS
        .iter()
        .filter_map(|(flag, words)| what_is_wrong(flag, words))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn settings_without_a_meaning_in_base_mode_are_refused() {
    for (flag, setting) in [
        ("--on-crash=redeliver", "setting on_crash: "),
        ("--on-crash=keep", "setting on_crash: "),
        ("--dispatch=least-busy", "setting dispatch: "),
    ] {
        let wrong = are_wrong(&["--mode=base", flag], &[setting, "process mode"]);
        assert_eq!(wrong, None);
    }
    let server = Launch::serve(&["--mode=base", "--on-crash=reply=sorry", "--reactors=2"]).start();
    server.logged(1, &["WARN", "setting reactors is ignored"]);
}

/// Returns the mistake in the refusal of a flag, if there is one.
fn what_is_wrong(flag: &str, words: &[&str]) -> Option<String> {
    are_wrong(&[flag], words)
}

/// Returns the mistake in the refusal of flags, if there is one.
fn are_wrong(flags: &[&str], words: &[&str]) -> Option<String> {
    let flag = flags.join(" ");
    let arguments = [&["serve", "--listen=127.0.0.1:0"], flags].concat();
    let refused = Launch::tine(&arguments).run();
    let missing: Vec<&&str> = words
        .iter()
        .filter(|word| !refused.stderr.contains(**word))
        .collect();
    let is_well =
        refused.status.code() == Some(2) && refused.stdout.is_empty() && missing.is_empty();
    let (status, said) = (refused.status, refused.stderr);
    (!is_well).then(|| format!("{flag}: {status}, and {missing:?} is not said:\n{said}\n"))
}

/// Checks that a start was refused with status 1, without a ready line, and with `words` in the error.
#[track_caller]
fn is_refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.status.code(), Some(1), "{ended:#?}");
    assert_eq!(ended.stdout, "", "no ready line: {ended:#?}");
    let missing: Vec<&&str> = words
        .iter()
        .filter(|word| !ended.stderr.contains(**word))
        .collect();
    assert!(
        missing.is_empty(),
        "the error lacks {missing:?}:\n{}",
        ended.stderr
    );
    let is_panic = |line: &&str| line.contains("panicked") && !line.contains("worker#");
    assert_eq!(
        ended.stderr.lines().find(is_panic),
        None,
        "only a worker that was told to may panic"
    );
}

#[test]
fn a_port_in_use_is_refused_and_the_other_listener_closed() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for mode in ["process", "base"] {
        let ended = Launch::serve(&[
            "--mode",
            mode,
            "--listen",
            &free.to_string(),
            "--listen",
            &address,
        ])
        .run();
        is_refused(&ended, &[&address, "in use"]);
        assert!(!is_listening(free), "{mode}");
    }
}

#[test]
fn a_port_of_a_client_or_one_that_is_named_twice_is_refused_with_both_causes() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(other.local_addr().unwrap()).unwrap();
    let taken = client.local_addr().unwrap().to_string();
    let ended = Launch::serve(&["--listen", &taken]).run();
    is_refused(&ended, &[&taken, "in use", "or of a client"]);
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = free.local_addr().unwrap().to_string();
    let ended = Launch::serve(&["--listen", &free, "--listen", &free]).run();
    is_refused(&ended, &[&free, "named twice"]);
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let ended = Launch::serve(&["--listen", "192.0.2.1:9501"]).run();
    is_refused(&ended, &["192.0.2.1:9501", "ssign"]); // Cannot assign requested address, or not assigned to this machine.
}

#[test]
fn a_port_without_permission_is_refused() {
    let unprivileged = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if unprivileged.trim().parse::<u32>().unwrap() <= 999 {
        eprintln!("skipped: here everybody may bind port 999");
        return;
    }
    let ended = Launch::serve(&["--listen", "127.0.0.1:999"])
        .without(CAP_NET_BIND_SERVICE)
        .run();
    is_refused(&ended, &["127.0.0.1:999", "ermi"]); // Permission denied, or not permitted.
}

#[test]
fn a_pid_file_that_cannot_be_written_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let path = directory.path().join("tine.pid");
    let ended = Launch::serve(&["--pid-file", path.to_str().unwrap()])
        .without(CAP_DAC_OVERRIDE)
        .run();
    is_refused(&ended, &[path.to_str().unwrap(), "ermi"]);
}

#[test]
fn a_worker_that_cannot_start_fails_the_server() {
    for (mode, fault, word) in [
        ("process", "worker_start:exit=3", "status=3"),
        ("base", "worker_start:exit=3", "status=3"),
        ("process", "worker_start:panic", "panic"),
        ("base", "worker_start:abort", "signal=6"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tine.pid");
        let flags = [
            "--mode",
            mode,
            "--workers",
            "2",
            "--fault",
            fault,
            "--pid-file",
            path.to_str().unwrap(),
        ];
        is_refused(&Launch::serve(&flags).run(), &["worker", "start", word]);
        assert!(!path.exists(), "{mode}, {fault}: the pid file is removed");
    }
}

#[test]
fn too_few_descriptors_are_refused_with_how_many_are_missing() {
    for mode in ["process", "base"] {
        let launch = Launch::serve(&[
            "--mode",
            mode,
            "--workers",
            "1",
            "--max-connections",
            "5000",
        ]);
        let ended = launch
            .limit(Resource::RLIMIT_NOFILE, 300)
            .without(CAP_SYS_RESOURCE)
            .run();
        is_refused(
            &ended,
            &["the limit is 300", "47", "too few", "max_connections"],
        );
    }
}

#[test]
fn too_few_descriptors_for_any_number_of_connections_are_no_reason_to_lower_that_number() {
    let launch = Launch::serve(&["--workers", "1", "--max-connections", "20"]);
    let ended = launch
        .limit(Resource::RLIMIT_NOFILE, 100)
        .without(CAP_SYS_RESOURCE)
        .run();
    is_refused(
        &ended,
        &["the limit is 100", "needed for any max_connections"],
    );
    assert!(
        !ended.stderr.contains("lower max_connections"),
        "{ended:#?}"
    );
}

#[test]
fn an_arena_beyond_the_address_space_is_refused() {
    let launch = Launch::serve(&["--workers", "64", "--reactors", "4"]);
    let ended = launch.limit(Resource::RLIMIT_AS, 128 << 20).run();
    is_refused(&ended, &["memory for the rings", "ulimit -v"]);
}
