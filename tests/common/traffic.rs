//! Clients that ask again and again, each in its own thread, and check every byte of every answer.
//!
//! A message has its client, its number and a checksum of its body, so that a corrupt answer can be told from a duplicate.
//! It begins with its length, so that it suits a server that cuts bytes into messages as well as one that does not.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::Client;
use super::{SOON, eventually};

const HEADER: usize = 24;

/// How clients use connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// One connection for all questions. When the server ends it, the client stops.
    Stay,
    /// One connection, and a new one after the server has ended it.
    ComeBack,
    /// A connection for each question.
    Leave,
}

/// The outcome of the questions of all clients.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    /// No answer, and the connection left open.
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) corrupt: u64,
    /// Connections that the server ended while an answer was outstanding.
    pub(crate) dropped: u64,
    /// The longest time from a question to the end of its connection.
    pub(crate) longest_to_drop: Duration,
    /// The first few errors, in words.
    pub(crate) notes: Vec<String>,
}

/// Working clients. When dropped, they stop at their next question.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Vec<Arc<AtomicU64>>,
    clients: Vec<JoinHandle<Tally>>,
}

enum Fault {
    Dropped(io::Error),
    Lost(io::Error),
    Duplicated(String),
    Corrupt(String),
}

impl Traffic {
    pub(crate) fn start(server: SocketAddr, clients: u64, habit: Habit) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered: Vec<_> = (0..clients).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let spawn = |(number, answered): (u64, &Arc<AtomicU64>)| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(answered));
            thread::spawn(move || ask_until(&stop, &answered, server, number, habit))
        };
        let clients = (0..clients).zip(&answered).map(spawn).collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    /// Waits until each client has got at least one more answer.
    ///
    /// # Panics
    /// If that does not happen in time, or a client has stopped.
    #[track_caller]
    pub(crate) fn each_is_answered(&mut self) {
        let before = self.counts();
        eventually(SOON, "each client is answered", || {
            if let Some(stopped) = self.clients.iter().position(JoinHandle::is_finished) {
                let tally = self.clients.swap_remove(stopped).join();
                panic!("a client has stopped: {tally:#?}");
            }
            self.counts()
                .iter()
                .zip(&before)
                .all(|(count, before)| count > before)
        });
    }

    fn counts(&self) -> Vec<u64> {
        self.answered
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect()
    }

    /// Lets every client finish its questions, and returns the total.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for client in self.clients.drain(..) {
            tally.add(client.join().expect("a client does not panic"));
        }
        tally
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.answered += other.answered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.corrupt += other.corrupt;
        self.dropped += other.dropped;
        self.longest_to_drop = self.longest_to_drop.max(other.longest_to_drop);
        self.notes.extend(other.notes);
        self.notes.truncate(10);
    }

    fn note(&mut self, fault: Fault, asked: Instant) {
        let (count, note) = match fault {
            Fault::Dropped(error) => {
                self.longest_to_drop = self.longest_to_drop.max(asked.elapsed());
                (&mut self.dropped, format!("dropped: {error}"))
            }
            Fault::Lost(error) => (&mut self.lost, format!("lost: {error}")),
            Fault::Duplicated(what) => (&mut self.duplicated, format!("duplicated: {what}")),
            Fault::Corrupt(what) => (&mut self.corrupt, format!("corrupt: {what}")),
        };
        *count += 1;
        self.notes.push(note);
        self.notes.truncate(10);
    }

    /// Checks that there was no error, and that there were answers.
    #[track_caller]
    pub(crate) fn is_clean(&self) {
        assert_eq!(
            (self.lost, self.duplicated, self.corrupt, self.dropped),
            (0, 0, 0, 0),
            "{self:#?}"
        );
        assert!(self.answered > 0, "{self:#?}");
    }
}

fn ask_until(
    stop: &AtomicBool,
    answered: &AtomicU64,
    server: SocketAddr,
    number: u64,
    habit: Habit,
) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let burst = burst(number, sequence);
        match ask(&mut connection, server, number, sequence, burst) {
            Ok(()) => {
                tally.answered += burst;
                answered.fetch_add(burst, Ordering::Relaxed);
                sequence += burst;
            }
            Err(fault) => {
                let may_go_on = habit != Habit::Stay && matches!(fault, Fault::Dropped(_));
                tally.note(fault, asked);
                if !may_go_on {
                    return tally;
                }
                connection = None;
                sequence += burst;
            }
        }
        if habit == Habit::Leave {
            connection = None;
        }
    }
    if let Some(client) = connection
        && let Err(fault) = expect_no_more(client)
    {
        tally.note(fault, Instant::now());
    }
    tally
}

/// Sends some messages at once and reads them all back.
fn ask(
    to: &mut Option<Client>,
    server: SocketAddr,
    client: u64,
    first: u64,
    count: u64,
) -> Result<(), Fault> {
    let connection = match to {
        Some(connection) => connection,
        None => to.insert(Client::try_connect(server).map_err(Fault::Dropped)?),
    };
    let question: Vec<u8> = (first..first + count)
        .flat_map(|sequence| message(client, sequence))
        .collect();
    connection.try_send(&question).map_err(ended)?;
    let mut answer = vec![0; question.len()];
    let mut filled = 0;
    while filled < answer.len() {
        match connection.try_read(&mut answer[filled..]).map_err(ended)? {
            0 => return Err(Fault::Dropped(ErrorKind::UnexpectedEof.into())),
            read => filled += read,
        }
        compare(&question, &answer[..filled], client)?;
    }
    Ok(())
}

/// An incomplete answer must be the beginning of the question.
fn compare(question: &[u8], answer: &[u8], client: u64) -> Result<(), Fault> {
    if question.starts_with(answer) {
        return Ok(());
    }
    let Some(at) = question
        .iter()
        .zip(answer)
        .position(|(sent, got)| sent != got)
    else {
        return Ok(());
    };
    let sender = answer
        .get(4..8)
        .and_then(|word| word.try_into().ok())
        .map(u32::from_le_bytes)
        .map(u64::from);
    let sequence = answer
        .get(8..16)
        .and_then(|word| word.try_into().ok())
        .map(u64::from_le_bytes);
    let what = format!(
        "client {client}, byte {at} of {}; it begins as {sender:?}, {sequence:?}",
        question.len()
    );
    let is_earlier = sender == Some(client)
        && sequence.is_some_and(|sequence| message(client, sequence).starts_with(answer));
    Err(if is_earlier {
        Fault::Duplicated(what)
    } else {
        Fault::Corrupt(what)
    })
}

/// Checks that no byte comes after the last answer.
fn expect_no_more(mut client: Client) -> Result<(), Fault> {
    client.half_close();
    match client.try_read(&mut [0; 64]) {
        Ok(0) => Ok(()),
        Ok(read) => Err(Fault::Duplicated(format!(
            "{read} bytes after the last answer"
        ))),
        Err(error) => Err(ended(error)),
    }
}

fn ended(error: io::Error) -> Fault {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Fault::Lost(error),
        _ => Fault::Dropped(error),
    }
}

/// Returns how many messages a client sends at once: small ones come in bursts, so that some arrive together.
fn burst(client: u64, sequence: u64) -> u64 {
    let small = (sequence..sequence + 4)
        .take_while(|sequence| length(client, *sequence) < 4096)
        .count();
    u64::try_from(small).map_or(1, |small| small.clamp(1, 1 + sequence % 4))
}

fn length(client: u64, sequence: u64) -> usize {
    let dice = scramble((client << 32) ^ sequence);
    let size = dice >> 8;
    let body = match dice % 32 {
        0..16 => size % 256,
        16..24 => size % 4_000,
        24..31 => size % 30_000,
        _ => size % 150_000,
    };
    HEADER + usize::try_from(body).unwrap_or(0)
}

/// The length of the rest in 4 bytes, big endian; the client in 4; the sequence number and a checksum of the body in 8
/// each; the body.
fn message(client: u64, sequence: u64) -> Vec<u8> {
    let body = pattern(
        scramble((client << 32) ^ sequence),
        length(client, sequence) - HEADER,
    );
    let checksum = body
        .iter()
        .fold(0_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
    let (rest, sender) = (
        u32::try_from(HEADER - 4 + body.len()),
        u32::try_from(client),
    );
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend_from_slice(&rest.expect("a message is short").to_be_bytes());
    message.extend_from_slice(&sender.expect("clients are few").to_le_bytes());
    message.extend_from_slice(&sequence.to_le_bytes());
    message.extend_from_slice(&checksum.to_le_bytes());
    message.extend_from_slice(&body);
    message
}

/// Bytes that do not repeat, so that a missing, doubled or misplaced byte shows.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut word = seed;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        word = scramble(word);
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
pub(crate) fn scramble(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
