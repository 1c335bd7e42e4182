use super::*;
use std::num::NonZeroU32;

fn conn() -> ConnId {
    ConnId::new(1, 2, NonZeroU32::new(3).unwrap())
}

fn task(key: Option<u64>, tag: Option<u64>) -> Output {
    Output::Task(TaskOrder {
        key,
        tag,
        delay: u64::MAX - 3,
        sender: 0,
    })
}

fn ask(about: About) -> Output {
    Output::Ask(Question {
        number: u64::MAX,
        about,
    })
}

fn server_timer(repeats: bool, run: Run) -> Output {
    Output::SetServerTimer(ServerTimer {
        tag: u64::MAX,
        time: u64::MAX - 1,
        repeats,
        run,
    })
}

#[track_caller]
fn survives(output: Output) {
    let len = output.most_bytes().min(5) as u32;
    assert_eq!(
        Output::decode(&output.encode(len), 5),
        Ok((output, len as usize))
    );
}

#[test]
fn tasks_and_timers_of_the_server_survive_their_encoding() {
    let all = [
        task(None, None),
        task(Some(u64::MAX), None),
        task(None, Some(0)),
        task(Some(0), Some(u64::MAX)),
        Output::Finish(conn()),
        server_timer(false, Run::One),
        server_timer(false, Run::Each),
        server_timer(true, Run::One),
        server_timer(true, Run::Each),
        Output::CancelServerTimer(u64::MAX),
    ];
    all.into_iter().for_each(survives);
}

#[test]
fn a_question_survives_its_encoding() {
    let of_connections = About::Conns {
        reactor: u16::MAX,
        from: u32::MAX - 1,
    };
    for about in [About::Group, About::Conn(conn()), of_connections] {
        survives(ask(about));
    }
}

#[test]
fn an_output_survives_its_encoding() {
    let all = [
        Output::Send(conn()),
        Output::Close(conn()),
        Output::Reset(conn()),
        Output::Aside,
        Output::Flush,
        Output::Done(u64::MAX),
        Output::Failed(u64::MAX),
        Output::SetUser(conn(), u64::MAX - 1),
        Output::SetState(conn()),
        Output::SetTimer(
            conn(),
            Timer {
                after: u64::MAX,
                tag: u64::MAX - 1,
            },
        ),
        Output::CancelTimer(conn(), u64::MAX - 2),
        Output::NotifyDrained(conn()),
        Output::Hold(conn()),
        Output::Unhold(conn()),
        Output::Post(To::Seat(510)),
        Output::Post(To::All),
        Output::Post(To::LeastBusy),
        Output::Post(To::Owner(conn())),
        Output::Promise(conn(), u64::MAX),
        Output::Join(conn()),
        Output::Leave(conn()),
        Output::Publish(Publish {
            name: 5,
            except: Some(conn()),
            is_lossy: false,
        }),
        Output::Publish(Publish {
            name: 0,
            except: None,
            is_lossy: true,
        }),
        Output::CallServer(ServerCall::Stop),
        Output::CallServer(ServerCall::Reload),
        Output::File(
            conn(),
            Span {
                offset: i64::MAX as u64 - 7,
                len: 7,
            },
        ),
        Output::SendReceived(
            conn(),
            Part {
                offset: u32::MAX - 1,
                len: 7,
            },
        ),
    ];
    all.into_iter().for_each(survives);
}

#[test]
fn a_part_of_a_file_ends_at_a_position_that_a_file_can_have() {
    for (offset, len) in [
        (i64::MAX as u64, 1),
        (u64::MAX, 1),
        (1, u64::MAX),
        (0, 1 << 63),
    ] {
        let span = Span { offset, len };
        let bytes = Output::File(conn(), span).encode(0);
        assert_eq!(Output::decode(&bytes, 0), Err(BadFrame::Span(span)));
    }
}

#[test]
fn a_part_of_a_message_is_known_by_its_memory() {
    let memory = *b"a message and what follows";
    let (message, rest) = memory.split_at(9);
    let part = |bytes| Part::of(message, bytes).map(|part| (part.offset, part.len));
    assert_eq!(part(message), Some((0, 9)));
    assert_eq!(part(&message[2..]), Some((2, 7)));
    assert_eq!(part(&memory[2..10]), None, "it goes on behind the message");
    assert_eq!(part(rest), None);
    assert_eq!(part(b"a message"), None, "other memory");
    assert_eq!(part(&message[..0]), None);
    assert_eq!(Part::of(rest, &memory[8..10]), None);
    for (offset, len, is_within) in [
        (2, 7, true),
        (3, 7, false),
        (10, 0, false),
        (u32::MAX, 2, false),
    ] {
        assert_eq!(Part { offset, len }.is_within(9), is_within);
    }
}

#[test]
fn a_length_past_what_was_published_is_refused() {
    let bytes = Output::Send(conn()).encode(9);
    assert_eq!(
        Output::decode(&bytes, 8),
        Err(BadFrame::Length {
            len: 9,
            available: 8
        })
    );
}

#[test]
fn bytes_behind_a_frame_that_has_none_are_refused() {
    assert!(Output::decode(&Output::Done(0).encode(8), 100).is_err());
}

#[test]
fn a_name_of_a_group_that_is_too_long_or_longer_than_its_frame_is_refused() {
    let bytes = Output::Join(conn()).encode(MOST_NAME as u32 + 1);
    assert!(Output::decode(&bytes, 1000).is_err());
    let publish = |name, len| {
        let publish = Publish {
            name,
            except: None,
            is_lossy: false,
        };
        Output::decode(&Output::Publish(publish).encode(len), u64::MAX)
    };
    let most = MOST_NAME as u8;
    assert!(publish(most, MOST_NAME as u32).is_ok());
    assert!(publish(most + 1, 1000).is_err());
    assert!(publish(most, MOST_NAME as u32 - 1).is_err());
    assert!(publish(1, MOST_PUBLISH as u32 + 1).is_ok());
    assert!(publish(1, MOST_PUBLISH as u32 + 2).is_err());
    let mut bytes = ask(About::Group).encode(0);
    bytes[4..8].copy_from_slice(&32u32.to_ne_bytes());
    bytes[8..16].copy_from_slice(&(1u64 << 32).to_ne_bytes());
    assert_eq!(Output::decode(&bytes, 0), Err(BadFrame::Name(1 << 32)));
}

#[test]
fn an_unknown_kind_and_a_name_of_nobody_are_refused() {
    let mut bytes = Output::Flush.encode(0);
    bytes[4] = 99;
    assert_eq!(Output::decode(&bytes, 0), Err(BadFrame::Kind(99)));
    let mut bytes = Output::Close(conn()).encode(0);
    bytes[8..16].fill(0);
    assert_eq!(Output::decode(&bytes, 0), Err(BadFrame::Name(0)));
}
