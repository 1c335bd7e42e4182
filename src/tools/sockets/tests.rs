//! Finds sockets of this process in the kernel's table.

use super::*;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

impl Socket {
    /// Returns a socket that the kernel does not have, for tests of code that takes sockets.
    pub(crate) fn made_up(state: State, local: &str, remote: &str, inode: u64) -> Socket {
        let mut id = SocketId::new_v4();
        id.cookie = inode.to_ne_bytes();
        Socket {
            state,
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            recv_q: 0,
            send_q: 0,
            uid: 0,
            inode,
            timer: None,
            quiet: None,
            id,
        }
    }
}

fn table() -> SocketTable {
    SocketTable::open().expect("netlink")
}

/// A connection over loopback: the client, the server's end, and its listener.
fn pair() -> (TcpStream, TcpStream, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    (client, server, listener)
}

fn find(table: &mut SocketTable, of: &TcpStream) -> Socket {
    let (local, remote) = (of.local_addr().unwrap(), of.peer_addr().unwrap());
    let found = table.find(local, remote).unwrap();
    found.unwrap_or_else(|| panic!("no socket {local} -> {remote}"))
}

#[test]
fn both_ends_of_a_connection_are_found_with_their_queues() {
    let mut table = table();
    let (mut client, mut server, _listener) = pair();
    client.write_all(b"12345").unwrap();
    server.peek(&mut [0; 5]).unwrap();
    let end = find(&mut table, &server);
    assert_eq!((end.state, end.recv_q), (State::Established, 5));
    assert_ne!(end.inode, 0);
    client.shutdown(Shutdown::Write).unwrap();
    server.read_exact(&mut [0; 5]).unwrap();
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    let end = find(&mut table, &server);
    assert_eq!((end.state, end.unread()), (State::CloseWait, 0));
    assert!(!end.has_unread_end());
    // The server's acknowledgement may come 40 ms later.
    while find(&mut table, &client).state == State::FinWait1 {}
    assert_eq!(find(&mut table, &client).state, State::FinWait2);
}

#[test]
fn the_fin_does_not_count_as_an_unread_byte() {
    let mut table = table();
    let (mut client, server, _listener) = pair();
    client.write_all(b"12345").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    server.peek(&mut [0; 5]).unwrap();
    let end = loop {
        let end = find(&mut table, &server);
        if end.state == State::CloseWait {
            break end;
        }
    };
    assert_eq!((end.recv_q, end.unread()), (6, 5));
    assert!(end.has_unread_end());
    assert!(end.close_wait_age().unwrap() < Duration::from_secs(30));
}

#[test]
fn the_same_socket_is_found_again_and_no_other_one_with_its_addresses() {
    let mut table = table();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // From an address that no other program uses, so that the port stays free once it is freed.
    let connect = |from: SocketAddr| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&from.into())?;
        socket.connect(&listener.local_addr()?.into())?;
        io::Result::Ok(TcpStream::from(socket))
    };
    let client = connect(SocketAddr::from(([127, 9, 8, 7], 0))).unwrap();
    let (server, _) = listener.accept().unwrap();
    let end = find(&mut table, &server);
    let again = table.again(&end).unwrap().expect("it is still there");
    assert_eq!((again.cookie(), again.inode), (end.cookie(), end.inode));
    let here = client.local_addr().unwrap();
    // With an RST, neither end is left in TIME_WAIT.
    let linger = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
    linger.unwrap();
    drop((client, server));
    assert!(table.again(&end).unwrap().is_none());
    let _another = connect(here).unwrap();
    let (_server, _) = listener.accept().unwrap();
    assert!(table.find(end.local, end.remote).unwrap().is_some());
    assert!(table.again(&end).unwrap().is_none());
}

#[test]
fn sending_restarts_the_age_of_close_wait_and_leaves_its_upper_bound() {
    let mut table = table();
    let (client, server, _listener) = pair();
    let probes = socket2::TcpKeepalive::new().with_time(Duration::from_secs(1));
    client.shutdown(Shutdown::Write).unwrap();
    let mut bounds = || {
        let end = find(&mut table, &server);
        (end.close_wait_age(), end.close_wait_age_at_most())
    };
    // The distance between the bounds is the time from the FIN to the last segment.
    let mut apart = || match bounds() {
        (Some(least), Some(most)) => most.checked_sub(least).expect("in order"),
        _ => Duration::ZERO,
    };
    let before = apart();
    std::thread::sleep(Duration::from_millis(200));
    assert!(
        apart() < before + Duration::from_millis(100),
        "nothing has come"
    );
    (&server).write_all(b"x").unwrap();
    while apart() < before + Duration::from_millis(150) {}
    socket2::SockRef::from(&server)
        .set_tcp_keepalive(&probes)
        .unwrap();
    while apart() < before + Duration::from_secs(1) {}
}

#[test]
fn a_listener_shows_its_queue_and_is_not_a_connection() {
    let mut table = table();
    let (client, server, listener) = pair();
    let address = listener.local_addr().unwrap();
    let waiting = TcpStream::connect(address).unwrap();
    let listeners = table.listeners().unwrap();
    let found = listeners.iter().find(|found| found.local == address);
    assert_eq!(found.expect("listener").recv_q, 1);
    let mut of_port = table.of_port(address.port()).unwrap();
    // Another program may use the same port number for a client, or have used it: it stays in TIME_WAIT.
    let clients = [&client, &waiting].map(|client| client.local_addr().unwrap());
    of_port.retain(|socket| {
        let ends = [socket.local, socket.remote];
        socket.state == State::Listen && socket.local == address
            || ends.contains(&address) && clients.iter().any(|client| ends.contains(client))
    });
    // The listener, and both ends of two connections.
    assert_eq!(of_port.len(), 5, "{of_port:?}");
    let no_peer = SocketAddr::from(([127, 0, 0, 1], 1));
    assert!(table.find(address, no_peer).unwrap().is_none());
    drop((client, server));
}

#[test]
fn the_time_left_in_time_wait_is_known() {
    let mut table = table();
    let (client, server, _listener) = pair();
    let ends = (client.local_addr().unwrap(), client.peer_addr().unwrap());
    drop(client);
    drop(server);
    let end = loop {
        let found = table.find(ends.0, ends.1).unwrap().expect("client's end");
        if found.state == State::TimeWait {
            break found;
        }
    };
    let timer = end.timer.expect("timer");
    assert_eq!((timer.kind, end.inode), (TimerKind::End, 0));
    assert!(timer.left > Duration::from_secs(20), "{timer:?}");
    assert!(timer.left <= Duration::from_secs(61), "{timer:?}");
}

#[test]
fn ipv6_connections_and_ipv4_connections_of_an_ipv6_listener_are_found() {
    let mut table = table();
    let Ok(listener) = TcpListener::bind("[::]:0") else {
        return eprintln!("SKIPPED: no IPv6");
    };
    let port = listener.local_addr().unwrap().port();
    for host in ["127.0.0.1", "::1"] {
        let client = TcpStream::connect((host, port)).unwrap();
        let (_server, _) = listener.accept().unwrap();
        assert_eq!(find(&mut table, &client).state, State::Established);
        let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let far = table.find(remote, local).unwrap().expect("server's end");
        assert_eq!(far.ends(), (remote, local));
    }
}

#[test]
fn a_malformed_answer_is_none() {
    assert_eq!(Timer::of(&[0; 20]), None);
    assert_eq!(Timer::of(&[2; 40]), None);
    assert_eq!(Quiet::of(&[1; 8]), None);
    assert_eq!(State::from_number(0), None);
    assert_eq!(State::from_number(13), None);
}
