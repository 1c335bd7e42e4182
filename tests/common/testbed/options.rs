//! The options of a test for its server: `workers=4 dispatch=least-busy`.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tine::{
    Crash, Dispatch, Event, Handle, Listener, Mode, OnCrash, OnIdle, Protocol, Route, Run, Server,
    Tls,
};

/// The time between two checks of a waiting callback.
pub(crate) const LOOK: Duration = Duration::from_millis(2);

/// The words after the handler's name.
#[derive(Clone, Default)]
pub(crate) struct Options {
    words: Vec<String>,
    /// The server's settings.
    pub(crate) handle: Handle,
}

impl Options {
    pub(crate) fn new(words: impl Iterator<Item = String>) -> Options {
        Options {
            words: words.collect(),
            handle: Handle::default(),
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        if self.words.iter().any(|word| word == "base") {
            Mode::Base
        } else {
            Mode::Process
        }
    }

    /// Returns the value of an option.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let value = |word: &'_ String| word.split_once('=').is_some_and(|(name, _)| name == key);
        let word = self.words.iter().find(|word| value(word))?;
        word.split_once('=').map(|(_, value)| value)
    }

    /// Returns a file for communication between the test and its server.
    pub(crate) fn gate(&self, name: &str) -> PathBuf {
        PathBuf::from(self.get("gates").unwrap_or("/nonexistent")).join(name)
    }

    /// Returns when the test has opened this gate: the behaviour under test is a callback that blocks.
    pub(crate) fn wait_for(&self, gate: &str) {
        while !self.gate(gate).exists() {
            std::thread::sleep(LOOK);
        }
    }

    fn parse<T: FromStr<Err: Display>>(&self, key: &str) -> Option<T> {
        let value = self.get(key)?;
        Some(
            value
                .parse()
                .unwrap_or_else(|error| panic!("{key}={value}: {error}")),
        )
    }

    /// Returns the server with these options, with a listener of this protocol unless an option sets another
    /// one.
    pub(crate) fn apply(&self, mut server: Server, protocol: Protocol) -> Server {
        let protocol = self.parse("protocol").unwrap_or(protocol);
        let mut listener = Listener::from(self.get("listen").unwrap_or("127.0.0.1:0"));
        listener = listener.protocol(protocol);
        if let Some(bytes) = self.parse("max-message") {
            listener = listener.max_message(bytes);
        }
        server = server.listen(self.layers(self.deadlines(listener)));
        if let Some(protocol) = self.parse("second") {
            let listener = Listener::tcp("127.0.0.1:0").name("second");
            server = server.listen(listener.protocol(protocol).max_message(100));
        }
        if let Some(path) = self.get("unix") {
            server = server.listen(
                Listener::unix(path)
                    .name("unix")
                    .protocol(Protocol::lines()),
            );
        }
        if let Some(workers) = self.parse("workers") {
            server = server.workers(workers);
        }
        if self.mode() == Mode::Process {
            server = server.reactors(self.parse("reactors").unwrap_or(2));
        }
        if let Some(workers) = self.parse("standby") {
            server = server.standby(workers);
        }
        if let Some(messages) = self.parse("max-requests") {
            server = server.max_requests(messages);
        }
        if let Some(bytes) = self.parse("worker-memory") {
            server = server.worker_memory(bytes);
        }
        server = self.limits(server);
        if let Some(seconds) = self.parse("close-deadline") {
            server = server.close_deadline(Some(Duration::from_secs_f64(seconds)));
        }
        if let Some(seconds) = self.parse("shutdown-deadline") {
            server = server.shutdown_deadline(Duration::from_secs_f64(seconds));
        }
        match self.get("on-crash") {
            None => {}
            Some("ask") => server = server.on_crash_with(decide),
            Some(policy) => server = server.on_crash(policy.parse().expect("a crash policy")),
        }
        match self.get("dispatch") {
            None => server,
            Some("route") => server.dispatch_with(route),
            Some("scatter") => server.dispatch_with(scatter),
            Some("least-connections") => server.dispatch(Dispatch::LeastConnections),
            Some("least-busy") => server.dispatch(Dispatch::LeastBusy),
            Some("round-robin") => server.dispatch(Dispatch::RoundRobin),
            Some("client-address") => server.dispatch(Dispatch::ClientAddress),
            Some("user-id") => server.dispatch(Dispatch::UserId),
            Some(other) => panic!("no such mode: {other}"),
        }
    }
}

impl Options {
    /// Returns the server with the limits that are given.
    fn limits(&self, mut server: Server) -> Server {
        if let Some(bytes) = self.parse("output-limit") {
            server = server.output_limit(bytes).output_high_water(bytes);
        }
        if let Some(attempts) = self.parse("post-attempts") {
            server = server.post_attempts(attempts);
        }
        if let Some(time) = self.parse("every") {
            let time = Duration::from_millis(time);
            server = server.every(time, super::ticks::FROM_START, Run::Each);
        }
        if let Some(bytes) = self.parse("output-high-water") {
            server = server.output_high_water(bytes);
        }
        if let Some(workers) = self.parse("task-workers") {
            server = server.task_workers(workers);
        }
        if let Some(attempts) = self.parse("task-attempts") {
            server = server.task_attempts(attempts);
        }
        if let Some(tasks) = self.parse("task-queue") {
            server = server.task_queue(tasks);
        }
        if let Some(bytes) = self.parse("task-queue-bytes") {
            server = server.task_queue_bytes(bytes);
        }
        if let Some(bytes) = self.parse("memory-budget") {
            server = server.memory_budget(bytes);
        }
        if let Some(connections) = self.parse("max-connections") {
            server = server.max_connections(connections);
        }
        if let Some(connections) = self.parse("per-address") {
            server = server.max_connections_per_address(connections);
        }
        server
    }

    /// Returns the listener with the deadlines that are given, in seconds.
    fn deadlines(&self, mut listener: Listener) -> Listener {
        let seconds = |key| self.parse(key).map(Duration::from_secs_f64);
        if let Some(time) = seconds("open") {
            listener = listener.open_deadline(time);
        }
        if let Some(time) = seconds("message") {
            listener = listener.message_deadline(time);
        }
        if let Some(time) = seconds("idle") {
            listener = listener.idle(time);
        }
        if let Some(time) = seconds("write") {
            listener = listener.write_deadline(time);
        }
        if let Some(time) = seconds("queue") {
            listener = listener.queue_deadline(time);
        }
        if let Some(time) = seconds("opening") {
            listener = listener.opening_deadline(time);
        }
        match self.get("on-idle") {
            Some(_) => listener.on_idle(OnIdle::Call),
            None => listener,
        }
    }

    /// Returns the listener with the proxies that it trusts, and with TLS by the certificates in a folder.
    fn layers(&self, mut listener: Listener) -> Listener {
        if let Some(network) = self.get("proxy") {
            listener = listener.proxy_protocol([network]);
        }
        let Some(folder) = self.get("tls").map(PathBuf::from) else {
            return listener;
        };
        let file = |name: &str| folder.join(name);
        let mut tls = Tls::files(file("localhost.pem"), file("localhost.key"));
        if file("other.example.pem").exists() {
            tls = tls.certificate(file("other.example.pem"), file("other.example.key"));
        }
        match self.get("tls-clients") {
            None => {}
            Some("known") => tls = tls.client_authorities(file("ca.pem")),
            Some(_) => {
                tls = tls
                    .client_authorities(file("ca.pem"))
                    .clients_may_be_unknown();
            }
        }
        if let Some(names) = self.get("alpn") {
            tls = tls.application_protocols(names.split(','));
        }
        listener.tls(tls)
    }
}

/// A message that begins with a digit goes to that seat, one with `!` panics, any other stays.
fn route(route: &Route<'_>) -> usize {
    match route.message.and_then(<[u8]>::first) {
        Some(digit @ b'0'..=b'9') => usize::from(digit - b'0'),
        Some(b'!') => panic!("asked to panic by {}", route.peer),
        _ => route.seat,
    }
}

/// Messages are scattered over all seats by their length.
fn scatter(route: &Route<'_>) -> usize {
    route.message.map_or(route.seat, <[u8]>::len)
}

/// `die HOW` has the fate HOW.
fn decide(crash: &Crash<'_>) -> OnCrash {
    let message = String::from_utf8_lossy(crash.message);
    match message.trim_end().split_once(' ') {
        Some(("die", "keep")) => OnCrash::Keep,
        Some(("die", "panic")) => panic!("asked to panic by {}", crash.peer),
        Some(("die", "reply")) => {
            let is_receive = crash.event == Event::Receive;
            let what = (is_receive, crash.user, crash.attempts, crash.flushed);
            OnCrash::Reply(format!("{what:?} of {}\n", crash.peer).into_bytes())
        }
        _ if crash.expired => {
            let what = (crash.event, crash.attempts, crash.failed, message);
            OnCrash::Reply(format!("{what:?} is late\n").into_bytes())
        }
        Some(("die", attempts)) => OnCrash::Redeliver {
            attempts: attempts.parse().unwrap_or(1),
        },
        _ => OnCrash::Close,
    }
}
