use super::*;
use crate::config::Listener;
use crate::handler::{Closed, Conn, Context, SendError, receive_fn};
use crate::peer::{Credentials, Peer};
use crate::protocol::Protocol;

/// Carries out commands, and records the argument of `close`.
#[derive(Default)]
struct Obedient {
    closed: Vec<(ConnId, CloseReason)>,
    attempts: Vec<u8>,
}

impl Handler for Obedient {
    fn connect(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>) -> Result {
        let name = cx.listener_name(conn.listener());
        Ok(conn.send(name.as_bytes())?)
    }

    fn receive(&mut self, cx: &mut Context<'_>, conn: &mut Conn<'_>, word: &[u8]) -> Result {
        self.attempts.push(conn.attempt());
        match word {
            b"close" => {
                conn.close();
                assert_eq!(conn.send(b"too late"), Err(SendError::Closed));
            }
            b"reset" => conn.reset(),
            b"user" => conn.set_user(7),
            b"stop" => cx.server().stop(),
            b"flush" => {
                conn.send(b"1")?;
                conn.flush();
                conn.send(b"2")?;
                return Err("behind the flush".into());
            }
            b"much" => conn.send(&[0; 1 << 20])?,
            b"twice" if conn.attempt() < 1 => return Err("not yet".into()),
            b"fail" => {
                conn.send(b"never")?;
                return Err("as asked".into());
            }
            other => conn.send(other)?,
        }
        Ok(())
    }

    fn close(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, closed: Closed) -> Result {
        self.closed.push((conn.id(), closed.reason));
        let said = conn.send(b"bye");
        assert_eq!(said.is_ok(), closed.reason == CloseReason::Peer);
        Ok(())
    }
}

fn with(on_crash: OnCrash) -> TestServer<Obedient> {
    let settings = Settings {
        on_crash,
        listen: vec![Listener::tcp("127.0.0.1:1").name("a")],
        output_high_water: 1000,
        output_limit: Some(10_000),
        ..Settings::default()
    };
    TestServer::with_settings(settings, Obedient::default()).unwrap()
}

#[test]
fn what_a_callback_does_is_seen() {
    let mut server = with(OnCrash::Close);
    let (one, other) = (server.connect(), server.connect());
    assert_eq!(server.conn(one).sent(), b"a");
    server.send(one, b"user");
    assert_eq!(server.conn(one).user(), Some(7));
    assert_eq!(server.send(one, b"stop").actions(), [Action::StopServer]);
    server.send(one, b"close");
    assert!(server.conn(one).is_closed() && !server.conn(one).is_reset());
    assert_eq!(server.conn(one).sent(), b"a");
    server.send(other, b"reset");
    assert!(server.conn(other).is_reset());
    assert!(server.send(other, b"late").actions().is_empty());
    let closed = [(one, CloseReason::Handler), (other, CloseReason::Handler)];
    assert_eq!(server.handler().closed, closed);
    let third = server.connect();
    server.close(third);
    assert_eq!(server.handler().closed[2], (third, CloseReason::Peer));
    assert_eq!(server.conn(third).sent(), b"abye");
}

#[test]
fn an_error_commits_what_was_flushed_alone() {
    let mut server = with(OnCrash::Reply(b"sorry".to_vec()));
    let client = server.connect();
    let commit = server.send(client, b"fail");
    assert_eq!(commit.error().unwrap().to_string(), "as asked");
    assert_eq!(server.conn(client).sent(), b"asorry");
    assert_eq!(server.handler().closed, [(client, CloseReason::Crash)]);

    let client = server.connect();
    server.send(client, b"flush");
    assert_eq!(server.conn(client).sent(), b"a1");
    assert!(server.conn(client).is_closed());
}

#[test]
fn an_answer_of_the_policy_keeps_the_connection() {
    let listener = Listener::tcp("127.0.0.1:1")
        .name("a")
        .protocol(Protocol::lines());
    let settings = Settings {
        on_crash: OnCrash::Answer(b"sorry".to_vec()),
        listen: vec![listener],
        ..Settings::default()
    };
    let mut server = TestServer::with_settings(settings, Obedient::default()).unwrap();
    let client = server.connect();
    server.send(client, b"fail");
    assert_eq!(server.conn(client).sent(), b"asorry");
    assert!(!server.conn(client).is_closed());
    server.send(client, b"flush");
    assert!(server.conn(client).is_closed());
}

#[test]
fn what_is_redelivered_is_run_until_its_attempts_are_used_up() {
    let mut server = with(OnCrash::Redeliver { attempts: 3 });
    let client = server.connect();
    assert!(server.send(client, b"twice").error().is_none());
    assert_eq!(server.handler().attempts, [0, 1]);
    server.send(client, b"fail");
    assert_eq!(server.handler().attempts, [0, 1, 0, 1, 2]);
    assert_eq!(server.conn(client).sent(), b"atwice");
    assert!(server.conn(client).is_closed());
}

#[test]
fn the_output_limit_counts() {
    let mut server = with(OnCrash::Close);
    let client = server.connect();
    let commit = server.send(client, b"much");
    assert!(commit.error().unwrap().to_string().contains("output_limit"));
}

#[test]
fn a_callback_lists_the_connections() {
    fn receive(cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> Result {
        let [first, second] = &cx.connections()?[..] else {
            conn.close();
            return Ok(());
        };
        assert_eq!((first.id, first.user), (conn.id(), conn.user()));
        assert_ne!(first.peer, second.peer);
        assert!(cx.exists(second.id)?);
        conn.set_user(7);
        Ok(conn.send(line)?)
    }
    let mut server = TestServer::new(receive_fn(receive));
    let (one, other) = (server.connect(), server.connect());
    server.send(one, b"both");
    server.send(one, b" still");
    assert_eq!(server.conn(one).sent(), b"both still");
    server.close(other);
    server.send(one, b"alone");
    assert!(server.conn(one).is_closed());
}

#[test]
fn members_of_a_group_get_what_is_published() {
    fn receive(cx: &mut Context<'_>, conn: &mut Conn<'_>, line: &[u8]) -> Result {
        match line {
            b"join" => conn.join("room")?,
            b"leave" => conn.leave("room")?,
            b"fail" => {
                conn.join("other")?;
                return Err("asked to fail".into());
            }
            b"size" => {
                let size = cx.group_size("room")?;
                conn.send(size.to_string().as_bytes())?;
            }
            b"lossy" => cx.publish_lossy("room", line, None)?,
            _ => conn.publish("room", line)?,
        }
        Ok(())
    }
    let mut server = TestServer::new(receive_fn(receive));
    let [a, b, c] = [(); 3].map(|()| server.connect());
    for client in [a, b, b] {
        server.send(client, b"join");
    }
    assert_eq!(server.conn(b).groups().collect::<Vec<_>>(), [b"room"]);
    server.send(a, b"hello ");
    let commit = server.send(c, b"lossy");
    let published = Action::Publish {
        group: b"room".to_vec(),
        bytes: b"lossy".to_vec(),
        except: None,
        is_lossy: true,
    };
    assert_eq!(commit.actions(), [published]);
    let sent = [a, b, c].map(|client| server.conn(client).sent().to_vec());
    assert_eq!(sent, [b"lossy".to_vec(), b"hello lossy".to_vec(), vec![]]);
    assert!(server.send(a, b"fail").error().is_some());
    server.send(c, b"size");
    assert_eq!(server.conn(c).sent(), b"1", "the failed one was closed");
    server.send(b, b"leave");
    server.send(c, b"size");
    assert_eq!(server.conn(c).sent(), b"10");
    assert_eq!(server.conn(a).groups().collect::<Vec<_>>(), [b"room"]);
}

#[test]
fn a_file_is_sent_as_the_bytes_that_it_has() {
    fn send(_: &mut Context<'_>, conn: &mut Conn<'_>, path: &[u8]) -> Result {
        let file = std::fs::File::open(std::str::from_utf8(path)?)?;
        conn.send(b"<")?;
        conn.send_file(&file, 2..5)?;
        assert_eq!(conn.send_file(&file, 4..4), Ok(()));
        let beyond = conn.send_file(&file, 4..11);
        assert_eq!(beyond, Err(SendError::BadRange { len: 10 }));
        conn.close();
        assert_eq!(conn.send_file(&file, 2..5), Err(SendError::Closed));
        Ok(())
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "0123456789").unwrap();
    let mut server = TestServer::new(receive_fn(send));
    let client = server.connect();
    let commit = server.send(client, path.to_str().unwrap().as_bytes());
    let sent = Action::SendFile(client, b"234".to_vec());
    assert_eq!(commit.actions()[1], sent);
    assert_eq!(server.conn(client).sent(), b"<234");
}

#[test]
fn a_client_may_be_one_of_a_unix_socket() {
    struct Known(Option<Credentials>);
    impl Handler for Known {
        fn receive(&mut self, _: &mut Context<'_>, conn: &mut Conn<'_>, _: &[u8]) -> Result {
            self.0 = conn.peer().credentials();
            Ok(())
        }
    }
    let mut server = TestServer::new(Known(None));
    let own = Credentials::new(4711, 1000, 100);
    let client = server.connect_from(0, Peer::Unix(own));
    server.send(client, b"who am I?");
    assert_eq!(server.handler().0, Some(own));
}
