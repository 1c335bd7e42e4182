//! `blocking_sqlite` of `c-examples`, built under sanitizers: committed pairs survive workers and server.

use std::fs::File;
use std::path::Path;
use std::thread;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;

use crate::c_examples::kill_all_workers;
use crate::common::c::{self, ends_well, launch, start};
use crate::common::client::Client;
use crate::common::{SOON, eventually_some};

/// Holds the write lock of a database until it is dropped: byte 120 of the file that its users share,
/// <https://www.sqlite.org/walformat.html#wal_locks>.
#[track_caller]
fn lock_for_writing(database: &Path) -> File {
    let file = database.with_extension("db-shm");
    let file = File::options().read(true).write(true).open(file);
    let file = file.expect("the database is in WAL mode, and open");
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 120,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_SETLKW(&lock)).expect("it can be locked");
    file
}

#[test]
fn committed_pairs_survive_workers_and_server() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("pairs.db");
    let program = c::build("c-examples/blocking_sqlite.c", &["-lsqlite3"]);
    let open = || {
        let arguments = ["127.0.0.1:0", database.to_str().unwrap()];
        start(launch(&program, &arguments), "process")
    };
    let server = open();
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("get a"), "none");
    assert_eq!(client.ask("set a first"), "ok");
    assert_eq!(client.ask("set a 1 and more"), "ok");
    kill_all_workers(&server);
    assert_eq!(client.ask("get a"), "value 1 and more");

    // The answer comes even if a worker dies before it: here while the worker waits for the write lock.
    let writing = lock_for_writing(&database);
    client.send(b"set b 2\n");
    let waiting = eventually_some(SOON, "a worker waits", || {
        let workers = server.workers();
        workers
            .into_iter()
            .find(|worker| worker.is_asleep_in_a_callback())
    });
    waiting.signal(Signal::SIGKILL);
    server.new_workers(2, &[waiting]);
    assert_eq!(
        Client::connect(server.address()).ask("get a"),
        "value 1 and more"
    );
    assert!(!client.has_news());
    drop(writing);
    assert_eq!(client.read_line(), "ok");
    drop(client);
    ends_well(server);

    let server = open();
    let mut client = Client::connect(server.address());
    assert_eq!(client.ask("get a"), "value 1 and more");
    assert_eq!(client.ask("get b"), "value 2");
    drop(client);
    ends_well(server);
}

#[test]
fn no_input_of_a_client_is_run_as_sql() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("pairs.db");
    let server = start(
        launch(
            &c::build("c-examples/blocking_sqlite.c", &["-lsqlite3"]),
            &["127.0.0.1:0", database.to_str().unwrap()],
        ),
        "process",
    );
    let mut client = Client::connect(server.address());
    for key in ["'); DROP TABLE pairs; --", "' OR '1' = '1", "\0", "ключ"] {
        let key = key.replace(' ', "_");
        assert_eq!(client.ask(&format!("get {key}")), "none");
        assert_eq!(client.ask(&format!("set {key} '{key}\0")), "ok");
        assert_eq!(client.ask(&format!("get {key}")), format!("value '{key}\0"));
    }
    assert_eq!(client.ask("set  empty-key"), "ok");
    assert_eq!(client.ask("set empty-value "), "ok");
    assert_eq!(client.ask("get empty-value"), "value");
    for wrong in ["", "set", "set ", "set key", "get", "get ", "drop a"] {
        let answer = client.ask(wrong);
        assert!(answer.starts_with("error "), "{wrong}: {answer}");
    }

    // Both workers write at once, and wait for each other.
    let writers = [(); 2].map(|()| Client::connect(server.address()));
    thread::scope(|scope| {
        for mut writer in writers {
            scope.spawn(move || {
                for i in 0..50 {
                    assert_eq!(writer.ask(&format!("set shared {i}")), "ok");
                }
            });
        }
    });
    assert_eq!(client.ask("get shared"), "value 49");
    drop(client);
    ends_well(server);
}
