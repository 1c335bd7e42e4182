use super::*;

/// Both ends of a connection, with the numbers of the client's SYN and the server's.
fn connected(client: u32, server: u32) -> [Host; 2] {
    let [mut one, mut other] = <[Host; 2]>::default();
    other.listens = true;
    (one.next, other.next) = (client, server);
    let syn = one.syn();
    one.sent(syn).expect("a SYN");
    let mut next = other.hears(syn);
    let mut sides = [one, other];
    for (from, to) in [(1, 0), (0, 1)] {
        let segment = next.expect("an answer");
        sides[from]
            .sent(segment)
            .expect("a segment of the handshake");
        next = sides[to].hears(segment);
    }
    assert_eq!(next, None);
    assert_eq!(sides.clone().map(|it| it.state), [Some(Established); 2]);
    sides
}

/// Sends a FIN from one side to the other, and returns the answer.
fn finish(from: &mut Host, to: &mut Host) -> Option<Segment> {
    let fin = from.next_segment(0, true);
    from.sent(fin).expect("a FIN");
    to.hears(fin)
}

#[test]
fn numbers_wrap() {
    let [mut client, mut server] = connected(u32::MAX - 2, u32::MAX);
    for _ in 0..3 {
        let data = client.next_segment(5, false);
        client.sent(data).expect("data");
        let answer = server.hears(data).expect("an acknowledgement");
        server.sent(answer).expect("an acknowledgement");
        assert_eq!(client.hears(answer), None);
        assert!(client.is_known(data));
    }
    assert_eq!(server.unread, 15);
    let answer = finish(&mut client, &mut server).expect("an acknowledgement");
    server.sent(answer).expect("an acknowledgement");
    client.hears(answer);
    assert_eq!(
        (client.state, server.state),
        (Some(FinWait2), Some(CloseWait))
    );
}

#[test]
fn a_reset_with_another_number_and_a_syn_are_challenged() {
    let [client, mut server] = connected(10, 20);
    let rst = client.abort();
    let blind = Segment {
        seq: rst.seq + 1,
        ..rst
    };
    let challenge = Some(server.acknowledgement());
    assert_eq!(server.hears(blind), challenge);
    let syn = Segment {
        seq: 99,
        ..client.syn()
    };
    assert_eq!(server.hears(syn), challenge);
    assert_eq!(server.state, Some(Established));
    assert_eq!(server.hears(rst), None);
    assert_eq!(server.state, None);
}

#[test]
fn an_old_acknowledgement_changes_nothing() {
    let [mut client, mut server] = connected(10, 20);
    let old = server.acknowledgement();
    finish(&mut client, &mut server);
    client.hears(old);
    assert_eq!(client.state, Some(FinWait1));
}

#[test]
fn fins_that_cross_lead_both_sides_through_closing() {
    let [mut client, mut server] = connected(10, 20);
    let fins = [&mut client, &mut server].map(|host| {
        let fin = host.next_segment(0, true);
        host.sent(fin).expect("a FIN");
        fin
    });
    let (to_client, to_server) = (server.hears(fins[0]), client.hears(fins[1]));
    assert_eq!((client.state, server.state), (Some(Closing), Some(Closing)));
    client.hears(to_client.expect("an acknowledgement"));
    server.hears(to_server.expect("an acknowledgement"));
    assert_eq!(
        (client.state, server.state),
        (Some(TimeWait), Some(TimeWait))
    );
}

#[test]
fn a_socket_that_is_gone_sends_nothing_but_rst() {
    let mut host = Host::default();
    let fin = host.next_segment(0, true);
    let why = "sends a FIN where it should be gone".to_owned();
    assert_eq!(host.sent(fin), Err(why));
    assert!(host.sent(host.acknowledgement()).is_err());
    let answer = host.hears(fin).expect("a refusal");
    assert!(answer.rst && answer.seq == fin.acknowledges, "{answer:?}");
    assert_eq!(host.sent(answer), Ok(()));
    assert_eq!(host.hears(answer), None, "an RST is not answered");
}

#[test]
fn data_for_a_socket_without_a_process_is_refused() {
    let [mut client, mut server] = connected(10, 20);
    client.is_orphan = true;
    let answer = finish(&mut client, &mut server).expect("an acknowledgement");
    client.hears(answer);
    assert_eq!(client.state, Some(FinWait2));
    let answer = client.hears(server.next_segment(1, false));
    assert!(answer.is_some_and(|it| it.rst), "{answer:?}");
}
