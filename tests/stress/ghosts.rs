//! Row 7: ghosts. The link to a server's clients is cut, so that neither FIN nor RST comes: their places are free again
//! after the deadlines.
//!
//! The clients live in a network namespace of a thread of their own, at the other end of a veth(4) link, which is taken
//! down. That needs root; everything is gone with the thread.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

use super::Scale;
use super::report::Report;
use super::tally::Tally;
use super::trial::Outcome;
use crate::common::SOON;
use crate::common::client::Client;
use crate::common::launch::Launch;

/// The connections that the server takes at once, all of which become ghosts.
const PLACES: usize = 20;

/// The deadlines in seconds, of silence, of unsent output, and of a FIN that is not answered.
const FLAGS: [&str; 8] = [
    "--idle",
    "2",
    "--write-deadline",
    "2",
    "--close-deadline",
    "1",
    "--workers",
    "1",
];

/// The sum of the deadlines, and time for the machine.
const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) fn rows(report: &mut Report, scale: Scale) {
    for mode in ["process", "base"] {
        let name = format!("ghosts behind a cut link, {mode} mode");
        if !report.wants(7) {
            continue;
        }
        match Link::new() {
            Err(why) => report.skip(7, &name, &why),
            Ok(link) => report.row(7, &name, || haunt(&link, mode, scale.0)),
        }
    }
}

fn haunt(link: &Link, mode: &str, times: usize) -> Outcome {
    let places = PLACES.to_string();
    let server = Launch::serve(&["--listen", "0.0.0.0:0", "--mode", mode])
        .and(&["--max-connections", &places])
        .and(&FLAGS)
        .start();
    let port = server.address().port();
    let (near, far) = (
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((link.address, port)),
    );
    let (mut tally, mut longest) = (Tally::default(), Duration::ZERO);
    for _ in 0..times {
        link.ip("set up");
        let ghosts = link.run(move || (0..PLACES).map(|nth| client(far, nth)).collect::<Vec<_>>());
        link.ip("set down");
        let begin = Instant::now();
        // All at once: one ghost that stays is one client that is not served.
        let mut newcomers: Vec<Client> = (0..PLACES).map(|_| Client::connect(near)).collect();
        for client in &mut newcomers {
            client.echo(b"served");
            tally.answered += 1;
        }
        longest = longest.max(begin.elapsed());
        drop((ghosts, newcomers));
    }
    for deadline in ["idle", "write"] {
        let lines = server.log().with(&[&format!("at the {deadline} deadline")]);
        if lines.is_empty() {
            tally.complain(format!("no ghost has ended at the {deadline} deadline"));
        }
    }
    tally.longest_gap = longest;
    if longest > PATIENCE {
        tally.complain(format!("their places were taken for {longest:?}"));
    }
    Outcome {
        done: format!("{} ghosts", PLACES * times),
        tally,
    }
}

/// Returns a client that was answered. Every second one then asks for more than it reads.
fn client(server: SocketAddr, nth: usize) -> TcpStream {
    let mut client = TcpStream::connect_timeout(&server, SOON).expect("the link is up");
    client
        .set_read_timeout(Some(SOON))
        .expect("a timeout can be set");
    client.write_all(b"hello").expect("it is connected");
    client.read_exact(&mut [0; 5]).expect("it is answered");
    if nth % 2 == 1 {
        client
            .set_nonblocking(true)
            .expect("a socket can be made non-blocking");
        let begin = Instant::now();
        loop {
            match client.write(&[7; 64 << 10]) {
                // Until the server no longer reads, since its output is unsent.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if begin.elapsed() > Duration::from_millis(300) {
                        break;
                    }
                    thread::sleep(Duration::from_millis(10));
                }
                written => assert!(written.expect("it is connected") > 0),
            }
        }
    }
    client
}

type Job = Box<dyn FnOnce() + Send>;

/// A link to a network namespace, in which a thread lives.
struct Link {
    name: String,
    /// Of this end.
    address: Ipv4Addr,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// # Errors
    /// The reason why it cannot be made here.
    fn new() -> Result<Link, String> {
        let pid = std::process::id();
        let [.., high, low] = pid.to_be_bytes();
        let address = |host| Ipv4Addr::new(10, high, low, host);
        let (name, peer) = (format!("tg{pid}"), "tine".to_owned());
        let (jobs, todo) = channel::<Job>();
        let (tell, told) = channel();
        let thread = thread::spawn(move || {
            let entered = unshare(CloneFlags::CLONE_NEWNET).map(|()| gettid());
            // The other end waits for it.
            let _ = tell.send(entered);
            todo.into_iter().for_each(|job| job());
        });
        let entered = told.recv().map_err(|error| error.to_string())?;
        let tid = entered.map_err(|error| format!("it needs root: unshare: {error}"))?;
        let link = Link {
            name,
            address: address(1),
            jobs: Some(jobs),
            thread: Some(thread),
        };
        let (near, far) = (format!("{}/24", address(1)), format!("{}/24", address(2)));
        let name = &link.name;
        ip(&format!(
            "link add {name} type veth peer name {peer} netns {tid}"
        ))?;
        ip(&format!("addr add {near} dev {name}"))?;
        ip(&format!("link set {name} up"))?;
        link.run(move || ip(&format!("addr add {far} dev {peer}")))?;
        Ok(link)
    }

    /// Changes the link's other end.
    #[track_caller]
    fn ip(&self, change: &str) {
        let (verb, state) = change.split_once(' ').expect("two words");
        let command = format!("link {verb} tine {state}");
        self.run(move || ip(&command)).expect("the link exists");
    }

    /// Runs this in the namespace.
    #[track_caller]
    fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let job = Box::new(move || drop(tell.send(job())));
        let jobs = self.jobs.as_ref().expect("it takes jobs until the end");
        jobs.send(job).expect("its thread lives");
        told.recv().expect("the job does not panic")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // With this end the other one goes, and with the thread its namespace.
        if let Err(error) = ip(&format!("link del {}", self.name)) {
            eprintln!("  {error}");
        }
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A job that has panicked was reported.
            let _ = thread.join();
        }
    }
}

fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("it needs ip(8): {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip {words}: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        )),
    }
}
