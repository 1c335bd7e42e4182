use std::net::{SocketAddr, TcpStream};

use socket2::SockRef;

use super::*;
use crate::sys::socket::{unacknowledged, write};

/// A TCP listener on a port that the kernel has chosen.
fn listen(options: Options) -> (Listener, SocketAddr) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(0, &any.into(), &options).unwrap();
    let address = listener.address().ip().unwrap();
    (listener, address)
}

#[test]
fn accepted_sockets_inherit_the_probes_of_their_listener() {
    let probes = Probes {
        keepalive: Some(Duration::from_secs(60)),
        user_timeout: Some(Duration::from_millis(70_500)),
    };
    let (listener, address) = listen(Options {
        probes,
        ..Options::PLAIN
    });
    let _client = TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let socket = SockRef::from(&accepted);
    assert!(socket.keepalive().unwrap());
    assert_eq!(
        socket.tcp_keepalive_time().unwrap(),
        Duration::from_secs(60)
    );
    assert_eq!(
        socket.tcp_keepalive_interval().unwrap(),
        Duration::from_secs(10)
    );
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES);
    assert_eq!(socket.tcp_user_timeout().unwrap(), probes.user_timeout);
    assert!(socket.tcp_nodelay().unwrap());
}

#[test]
fn bytes_are_unacknowledged_until_the_peer_has_them() {
    let (listener, address) = listen(Options::PLAIN);
    let client = TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(!SockRef::from(&accepted).keepalive().unwrap());
    assert_eq!(unacknowledged(accepted.as_fd()), 0);
    SockRef::from(&accepted)
        .set_send_buffer_size(1 << 20)
        .unwrap();
    SockRef::from(&client).set_recv_buffer_size(1).unwrap();
    let sent = write(accepted.as_fd(), &[7; 1 << 20]).unwrap().unwrap();
    let left = unacknowledged(accepted.as_fd());
    assert!(0 < left && left <= sent, "{left} of {sent}");
}

/// A client that has sent its SYN.
fn connecting(to: SocketAddr, is_deaf: bool) -> Socket {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if is_deaf {
        client
            .attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])
            .unwrap();
    }
    client.set_nonblocking(true).unwrap();
    let error = client.connect(&to.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
    client
}

#[test]
fn a_handshake_that_has_begun_goes_on_when_no_new_client_is_let_in() {
    let (listener, address) = listen(Options::PLAIN);
    let begun = connecting(address, true);
    assert_eq!(listener.drop_newcomers().unwrap(), Sealed::AfterHandshakes);
    let new = connecting(address, false);
    begun.detach_filter().unwrap();
    // The kernel says it again, and the client answers: tcp_synack_retries, tcp(7).
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    let (_accepted, peer) = loop {
        match listener.accept() {
            Ok(accepted) => break accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        assert!(std::time::Instant::now() < deadline, "it does not go on");
        std::thread::sleep(Duration::from_millis(10));
    };
    let local = begun.local_addr().unwrap().as_socket().unwrap();
    assert_eq!(peer, Remote::Ip(local));
    assert!(new.peer_addr().is_err(), "nobody answers its SYN");
}

#[test]
fn a_client_of_ipv4_has_its_own_address_at_a_socket_that_takes_both() {
    for (only_v6, is_taken) in [(false, true), (true, false)] {
        let any: SocketAddr = "[::]:0".parse().unwrap();
        let options = Options {
            only_v6,
            ..Options::PLAIN
        };
        let listener = Listener::bind(0, &any.into(), &options).unwrap();
        let port = listener.address().ip().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port));
        assert_eq!(client.is_ok(), is_taken, "{client:?}");
        if let Ok(client) = client {
            let (_, peer) = listener.accept().unwrap();
            assert_eq!(peer, Remote::Ip(client.local_addr().unwrap()));
        }
    }
}

#[test]
fn options_are_those_of_accepted_sockets() {
    let options = Options {
        receive_buffer: Some(20_000),
        send_buffer: Some(30_000),
        defer_accept: Some(5),
        ..Options::PLAIN
    };
    let (listener, address) = listen(options);
    let mut client = TcpStream::connect(address).unwrap();
    assert!(!listener.has_queued(), "it has sent nothing");
    std::io::Write::write_all(&mut client, b"x").unwrap();
    let accepted = accept(&listener);
    // The kernel doubles them, socket(7).
    let socket = SockRef::from(&accepted);
    assert_eq!(socket.recv_buffer_size().unwrap(), 40_000);
    assert_eq!(socket.send_buffer_size().unwrap(), 60_000);

    let name = format!("@tine-test/{}/options", std::process::id());
    let name = Address::Unix(UnixName::of(name.as_ref()));
    let listener = Listener::bind(0, &name, &options).unwrap();
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    client.connect(&name.to_kernel().unwrap()).unwrap();
    assert!(listener.has_queued());
    let accepted = accept(&listener);
    assert_eq!(SockRef::from(&accepted).send_buffer_size().unwrap(), 60_000);
    assert!(!listener.has_queued());
}

/// Waits for a connection.
fn accept(listener: &Listener) -> OwnedFd {
    let mut one = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    poll(&mut one, PollTimeout::NONE).unwrap();
    listener.accept().unwrap().0
}

#[test]
fn the_client_of_a_unix_socket_is_the_process_that_has_connected() {
    let name = format!("@tine-test/{}/peer", std::process::id());
    let name = Address::Unix(UnixName::of(name.as_ref()));
    let listener = Listener::bind(0, &name, &Options::PLAIN).unwrap();
    assert_eq!(*listener.address(), name);
    let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    client.connect(&name.to_kernel().unwrap()).unwrap();
    let (_, peer) = listener.accept().unwrap();
    let own = Remote::Unix {
        pid: std::process::id() as i32,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
    };
    assert_eq!(peer, own);
}

#[test]
fn a_descriptor_is_taken_if_it_listens_and_otherwise_said_what_it_is() {
    use std::os::fd::IntoRawFd;

    let taken = |number: i32| Listener::inherit(0, number, &Options::PLAIN);
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let listener = taken(tcp.into_raw_fd()).unwrap();
    assert_eq!(listener.address().ip(), Some(address));
    assert!(listener.is_inherited());
    assert_eq!(listener.drop_newcomers().unwrap(), Sealed::Never);
    listener.stop().unwrap();
    let client = TcpStream::connect(address).unwrap();
    let accepted = accept(&listener);

    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let unbound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for (descriptor, what) in [
        (client.as_fd(), "a TCP connection"),
        (accepted.as_fd(), "a TCP connection"),
        (one.as_fd(), "a connection of a unix socket"),
        (unbound.as_fd(), "a TCP socket that does not listen"),
        (datagrams.as_fd(), "a UDP socket"),
        (file.as_fd(), "a character device"),
    ] {
        let error = taken(descriptor.as_raw_fd()).map(drop).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("it is {what};")),
            "{error}"
        );
    }
    let closed = taken(1_000_000).map(drop).unwrap_err();
    assert_eq!(closed.raw_os_error(), Some(libc::EBADF));
}
