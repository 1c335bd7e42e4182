//! Computes the figures of one listener's connections, or of the outgoing ones, from the kernel's table
//! and from earlier looks at it.
//!
//! Pure functions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::report::{Connections, Silent, StateCount, Stuck, Unread};
use crate::sockets::owners::{Owner, Owners};
use crate::sockets::{Socket, State, TimerKind};

/// `TCP_TIMEWAIT_LEN`, a constant of the kernel.
const TIME_WAIT: Duration = Duration::from_secs(60);

/// Retransmits from which on a connection counts as unanswered: one may be a lost segment.
const RETRANSMITS: u8 = 2;

/// The number of connections in each state.
pub(super) type Counts = HashMap<State, usize>;

pub(super) fn counts(sockets: &[&Socket]) -> Counts {
    let mut counts = Counts::new();
    for socket in sockets {
        *counts.entry(socket.state).or_default() += 1;
    }
    counts
}

/// Knowledge that is not in the table.
pub(super) struct Known<'a> {
    pub(super) owners: &'a Owners,
    /// When each connection was first seen in CLOSE_WAIT, by its cookie.
    pub(super) close_wait_since: &'a HashMap<u64, Instant>,
    /// The cookies of connections whose other end is on this machine too: it cannot vanish without notice.
    pub(super) local: &'a HashSet<u64>,
    pub(super) now: Instant,
    pub(super) older: Duration,
    pub(super) silent: Duration,
}

impl Known<'_> {
    /// Returns a lower bound of the time that a connection has been in CLOSE_WAIT.
    pub(super) fn close_wait_age(&self, socket: &Socket) -> Option<Duration> {
        let seen = self.close_wait_since.get(&socket.cookie());
        let seen = seen.map(|since| self.now.duration_since(*since));
        // None is less than any.
        socket.close_wait_age().max(seen)
    }
}

pub(super) fn measure(sockets: &[&Socket], before: &Counts, known: &Known<'_>) -> Connections {
    let mut found = Connections::default();
    let mut states: BTreeMap<State, StateCount> = BTreeMap::new();
    for state in before.keys() {
        states.insert(*state, none_in(*state, before));
    }
    for socket in sockets {
        let count = states.entry(socket.state);
        let count = count.or_insert_with(|| none_in(socket.state, before));
        count.now += 1;
        count.oldest = count.oldest.max(age(socket, known));
        if socket.state == State::TimeWait {
            let left = socket.timer.map(|timer| timer.left);
            count.all_gone_in = count.all_gone_in.max(left);
        }
        found.add(socket, known);
    }
    found.states = states.into_values().collect();
    found
        .stuck
        .sort_by_key(|stuck| (std::cmp::Reverse(stuck.age), stuck.remote));
    found
}

fn none_in(state: State, before: &Counts) -> StateCount {
    StateCount {
        state,
        now: 0,
        before: before.get(&state).copied().unwrap_or(0),
        oldest: None,
        all_gone_in: None,
    }
}

/// Returns the time that it has been in its state, as far as the kernel tells.
fn age(socket: &Socket, known: &Known<'_>) -> Option<Duration> {
    match socket.state {
        State::TimeWait => Some(TIME_WAIT.saturating_sub(socket.timer?.left)),
        State::CloseWait => known.close_wait_age(socket),
        // The peer has acknowledged our FIN, or sent something since.
        State::FinWait2 => socket.quiet.map(|quiet| quiet.segment_received),
        _ => None,
    }
}

impl Connections {
    fn add(&mut self, socket: &Socket, known: &Known<'_>) {
        let retransmits = socket
            .timer
            .filter(|timer| timer.kind == TimerKind::Retransmit)
            .map_or(0, |timer| timer.retransmits);
        let is_sent_again = retransmits >= RETRANSMITS;
        match socket.state {
            State::SynRecv => self.syn_recv_resent += usize::from(retransmits > 0),
            State::SynSent => self.connects_unanswered += usize::from(is_sent_again),
            _ => self.unanswered += usize::from(is_sent_again),
        }
        match socket.state {
            // Its closed window, if it has one, is part of its own finding.
            State::CloseWait => return self.add_close_wait(socket, known),
            State::FinWait2 => self.half_closed += usize::from(socket.inode != 0),
            State::Established if is_held_back(socket) => {
                return self.held_back.add(socket, known);
            }
            // The program waits for a peer that does not answer, which has a finding of its own.
            State::Established if is_sent_again => {}
            State::Established => {
                self.add_unread(socket, known);
                self.silent.add(socket, known);
            }
            _ => {}
        }
        self.window_closed += usize::from(socket.has_closed_window());
    }

    fn add_close_wait(&mut self, socket: &Socket, known: &Known<'_>) {
        let Some(age) = known.close_wait_age(socket) else {
            return;
        };
        let at_most = socket.close_wait_age_at_most();
        if age < known.older {
            self.window_closed += usize::from(socket.has_closed_window());
            let has_probes = socket
                .timer
                .is_some_and(|timer| timer.kind == TimerKind::Keepalive);
            let may_be = has_probes && at_most >= Some(known.older);
            self.perhaps_stuck += usize::from(may_be);
            return;
        }
        self.stuck.push(Stuck {
            local: socket.local,
            remote: socket.remote,
            age,
            age_at_most: at_most,
            unread: socket.unread(),
            end_read: !socket.has_unread_end(),
            unsent: socket.send_q,
            window_closed: socket.has_closed_window(),
            accepted: socket.inode != 0,
            owners: known.owners.holders(socket.inode).to_vec(),
            waits_for: None,
        });
    }

    /// Skips connections that are not accepted: they belong to the accept queue.
    fn add_unread(&mut self, socket: &Socket, known: &Known<'_>) {
        let unread_for = socket.quiet.map(|quiet| quiet.data_received);
        if socket.unread() > 0 && socket.inode != 0 && unread_for >= Some(known.older) {
            self.unread.add(socket, known);
        }
    }
}

/// Whether the program may not read because its peer does not: what it would answer has no room.
fn is_held_back(socket: &Socket) -> bool {
    socket.has_closed_window() && socket.unread() > 0 && socket.inode != 0
}

impl Unread {
    fn add(&mut self, socket: &Socket, known: &Known<'_>) {
        self.connections += 1;
        self.bytes += u64::from(socket.unread());
        let unread_for = socket.quiet.map(|quiet| quiet.data_received);
        self.longest = self.longest.max(unread_for);
        add_once(&mut self.owners, known.owners.holders(socket.inode));
    }
}

impl Silent {
    fn add(&mut self, socket: &Socket, known: &Known<'_>) {
        let silent_for = socket.silent_for();
        let is_accepted = socket.inode != 0;
        let is_local = known.local.contains(&socket.cookie());
        if is_accepted && !is_local && silent_for >= Some(known.silent) {
            self.connections += 1;
            self.longest = self.longest.max(silent_for);
            add_once(&mut self.owners, known.owners.holders(socket.inode));
        }
    }
}

fn add_once(owners: &mut Vec<Owner>, more: &[Owner]) {
    for owner in more {
        if !owners.contains(owner) {
            owners.push(owner.clone());
        }
    }
}

/// Returns the cookies of the silent connections that have both ends in the table: their peers cannot have
/// vanished. All others are scanned only if there are silent ones.
pub(super) fn silent_and_local(sockets: &[Socket], silent: Duration) -> HashSet<u64> {
    let mut wanted: HashMap<(SocketAddr, SocketAddr), u64> = sockets
        .iter()
        .filter(|socket| socket.silent_for() >= Some(silent))
        .map(|socket| ((socket.remote, socket.local), socket.cookie()))
        .collect();
    if wanted.is_empty() {
        return HashSet::new();
    }
    let others = sockets.iter().map(Socket::ends);
    others.filter_map(|ends| wanted.remove(&ends)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::{Quiet, Timer};

    const SILENT: Duration = Duration::from_secs(3600);

    fn socket(state: State, inode: u64, segment: u64, data: u64) -> Socket {
        let mut socket = Socket::made_up(state, "127.0.0.1:80", "127.0.0.1:4000", inode);
        socket.quiet = Some(Quiet {
            segment_received: Duration::from_secs(segment),
            data_received: Duration::from_secs(data),
            data_sent: Duration::from_secs(data),
        });
        socket
    }

    fn timer(kind: TimerKind, left: u64, retransmits: u8) -> Option<Timer> {
        Some(Timer {
            kind,
            left: Duration::from_secs(left),
            retransmits,
        })
    }

    fn measured(sockets: &[Socket], seen: &[(u64, u64)], before: &[(State, usize)]) -> Connections {
        let begun = Instant::now();
        let now = begun + Duration::from_secs(1000);
        let since = |age| now.checked_sub(Duration::from_secs(age)).unwrap();
        let known = Known {
            owners: &Owners::default(),
            close_wait_since: &seen.iter().map(|(key, age)| (*key, since(*age))).collect(),
            local: &silent_and_local(sockets, SILENT),
            now,
            older: Duration::from_secs(5),
            silent: SILENT,
        };
        let sockets: Vec<&Socket> = sockets.iter().collect();
        measure(&sockets, &before.iter().copied().collect(), &known)
    }

    #[test]
    fn close_wait_is_as_old_as_the_last_segment_or_as_it_was_seen() {
        let mut unread = socket(State::CloseWait, 3, 30, 40);
        unread.recv_q = 11;
        let sockets = [
            socket(State::CloseWait, 1, 4, 100),
            socket(State::CloseWait, 2, 1, 100),
            unread,
            socket(State::CloseWait, 0, 6, 6),
        ];
        let found = measured(&sockets, &[(2, 8)], &[(State::CloseWait, 1)]);
        let ages: Vec<u64> = found
            .stuck
            .iter()
            .map(|stuck| stuck.age.as_secs())
            .collect();
        assert_eq!(ages, [30, 8, 6]);
        let [oldest, seen, waiting] = &found.stuck[..] else {
            panic!("{found:?}");
        };
        assert_eq!((oldest.unread, oldest.end_read), (10, false));
        assert_eq!((seen.unread, seen.end_read, seen.accepted), (0, true, true));
        assert!(!waiting.accepted);
        let count = found.of(State::CloseWait).unwrap();
        assert_eq!((count.now, count.before), (4, 1));
        assert_eq!(count.oldest, Some(Duration::from_secs(30)));
    }

    #[test]
    fn keepalive_probes_leave_the_age_unknown() {
        let mut probed = socket(State::CloseWait, 1, 1, 300);
        probed.timer = timer(TimerKind::Keepalive, 60, 0);
        let found = measured(&[probed], &[], &[]);
        assert_eq!((found.stuck.len(), found.perhaps_stuck), (0, 1));
    }

    #[test]
    fn time_wait_is_aged_by_its_timer() {
        let mut sockets = [(); 2].map(|()| socket(State::TimeWait, 0, 0, 0));
        sockets[0].timer = timer(TimerKind::End, 55, 0);
        sockets[1].timer = timer(TimerKind::End, 20, 0);
        let found = measured(&sockets, &[], &[]);
        let count = found.of(State::TimeWait).unwrap();
        assert_eq!(count.oldest, Some(Duration::from_secs(40)));
        assert_eq!(count.all_gone_in, Some(Duration::from_secs(55)));
    }

    #[test]
    fn bytes_count_as_unread_after_some_time() {
        let mut sockets = [
            socket(State::Established, 1, 1, 9),
            socket(State::Established, 2, 1, 2),
            socket(State::Established, 0, 9, 9),
        ];
        sockets.iter_mut().for_each(|socket| socket.recv_q = 100);
        let found = measured(&sockets, &[], &[]).unread;
        assert_eq!((found.connections, found.bytes), (1, 100));
        assert_eq!(found.longest, Some(Duration::from_secs(9)));
    }

    #[test]
    fn unanswered_retransmits_and_closed_windows_are_counted() {
        let mut sockets = [(); 3].map(|()| socket(State::LastAck, 0, 9, 9));
        sockets[0].timer = timer(TimerKind::Retransmit, 1, 1);
        sockets[1].timer = timer(TimerKind::Retransmit, 1, 2);
        sockets[2].timer = timer(TimerKind::Probe, 1, 0);
        let found = measured(&sockets, &[], &[(State::FinWait2, 2)]);
        assert_eq!((found.unanswered, found.window_closed), (1, 1));
        let gone = found.of(State::FinWait2).unwrap();
        assert_eq!((gone.now, gone.before), (0, 2));
    }

    #[test]
    fn unread_bytes_behind_a_closed_window_are_one_thing() {
        let mut sockets = [
            socket(State::Established, 1, 1, 9),
            socket(State::Established, 2, 1, 9),
            socket(State::CloseWait, 3, 9, 9),
        ];
        sockets.iter_mut().for_each(|socket| socket.recv_q = 101);
        sockets[0].timer = timer(TimerKind::Probe, 1, 0);
        sockets[2].timer = timer(TimerKind::Probe, 1, 0);
        sockets[2].send_q = 7;
        let found = measured(&sockets, &[], &[]);
        assert_eq!(
            (found.held_back.connections, found.held_back.bytes),
            (1, 101)
        );
        assert_eq!((found.unread.connections, found.window_closed), (1, 0));
        let [stuck] = &found.stuck[..] else {
            panic!("{found:?}");
        };
        assert!(stuck.window_closed && stuck.unsent == 7, "{stuck:?}");
    }

    #[test]
    fn unread_bytes_of_a_peer_that_acknowledges_nothing_are_no_finding_of_their_own() {
        let mut sent_again = socket(State::Established, 1, 9, 9);
        sent_again.recv_q = 100;
        sent_again.timer = timer(TimerKind::Retransmit, 1, 5);
        let found = measured(&[sent_again], &[], &[]);
        assert_eq!((found.unanswered, found.unread.connections), (1, 0));
    }

    #[test]
    fn syn_acks_that_were_sent_again_are_counted() {
        let mut sockets = [(); 3].map(|()| socket(State::SynRecv, 0, 0, 0));
        sockets[0].timer = timer(TimerKind::Retransmit, 1, 0);
        sockets[1].timer = timer(TimerKind::Retransmit, 1, 1);
        sockets[2].timer = timer(TimerKind::Retransmit, 1, 3);
        let found = measured(&sockets, &[], &[]);
        assert_eq!((found.syn_recv_resent, found.unanswered), (2, 0));
    }

    #[test]
    fn a_silent_connection_may_have_lost_its_peer_unless_that_is_on_this_machine() {
        let (server, client) = ("10.0.0.1:80", "10.0.0.1:4000");
        let silent = |local, remote, inode| {
            let mut socket = Socket::made_up(State::Established, local, remote, inode);
            socket.quiet = self::socket(State::Established, 0, 7200, 7200).quiet;
            socket
        };
        let mut sockets = [
            silent(server, client, 1),
            silent(client, server, 2),
            silent(server, "10.0.0.9:4000", 3),
            silent(server, "10.0.0.9:4001", 4),
            silent(server, "10.0.0.9:4002", 5),
        ];
        // The kernel asks after this peer, and that one has just said something.
        sockets[3].timer = timer(TimerKind::Keepalive, 60, 0);
        sockets[4].quiet = socket(State::Established, 0, 3, 7200).quiet;
        let found = measured(&sockets, &[], &[]).silent;
        assert_eq!(found.connections, 1);
        assert_eq!(found.longest, Some(Duration::from_secs(7200)));
    }
}
