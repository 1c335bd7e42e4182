//! A link against two queues: whatever both ends do, in any order, and whoever dies, every frame is
//! begun in order, every output is applied once or with its worker's death not at all, and every
//! frame that was not finished comes back once.

use std::collections::VecDeque;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ipc::frame::INPUT_HEADER;
use crate::ipc::ring::aligned;

const INBOX: usize = 32 << 10;
const OUTBOX: usize = 32 << 10;

/// A step of one of the ends. A step that its end can't take is passed over.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Reactor: a message of this many bytes, if there is room.
    Submit(usize),
    /// Worker: begins the next message.
    Take,
    /// Worker: bytes for the message's connection.
    Send(usize),
    /// Worker: this part of the message, in thousandths.
    SendReceived(u16, u16),
    /// Worker: what it has sent so far may leave.
    Flush,
    /// Worker: publishes, whether a record was staged or not.
    Publish,
    /// Worker: commits.
    Done,
    /// Worker: the callback fails.
    Fail,
    /// Reactor: reads the outbox.
    Collect,
    /// Reactor: takes back all messages that were not begun.
    Recall,
    /// The worker dies; the next one is let in.
    Kill,
    /// The next worker attaches.
    Attach,
}

/// Drawn as plain numbers, which is many times faster than a strategy for each kind.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(any::<(u8, u16)>(), 0..300).prop_map(|drawn| drawn.into_iter().map(step).collect())
}

fn step((kind, size): (u8, u16)) -> Step {
    let len = usize::from(size);
    match kind % 52 {
        0..6 => Step::Submit(len % 300),
        6..8 => Step::Submit(len % 9000),
        8..18 => Step::Take,
        18..22 => Step::Send(len % 300),
        22 => Step::Send(len % 4000),
        23..25 => Step::SendReceived(size % 900, size % 100),
        25 => Step::Flush,
        26..28 => Step::Publish,
        28..38 => Step::Done,
        38..43 => Step::Collect,
        43 => Step::Recall,
        44 => Step::Kill,
        45..48 => Step::Fail,
        _ => Step::Attach,
    }
}

/// A message that stands in the inbox.
struct Message {
    conn: ConnId,
    body: Vec<u8>,
    /// It was taken back.
    is_void: bool,
    /// Part of its output has left.
    flushed: bool,
}

/// A frame of the outbox.
enum Written {
    Output(Output, Vec<u8>),
    Flush,
    Done,
    Failed,
}

/// Both ends, and the queues that they are compared with.
struct Model {
    world: World,
    generation: u32,
    attached: bool,
    /// The number of the next message.
    next: u32,
    inbox: VecDeque<Message>,
    /// How many of them the worker has begun.
    begun: usize,
    /// The one that it is at.
    taken: Option<Taken>,
    outbox: VecDeque<Written>,
    /// How many of them are published.
    published: usize,
    /// Outputs that were read without their record.
    held: Vec<(Output, Vec<u8>)>,
    /// What they count against the budget.
    charged: usize,
    /// The worker waits until its failure is read.
    waits: bool,
}

fn bytes(number: u32, len: usize) -> Vec<u8> {
    // No two places within 251 bytes are alike, and no two frames within 251 of each other.
    static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| (0..251).cycle().take(10_000).collect());
    PATTERN[number as usize % 251..][..len].to_vec()
}

impl Model {
    fn new() -> Model {
        Model {
            world: world_of(INBOX, OUTBOX),
            generation: 1,
            attached: true,
            next: 0,
            inbox: VecDeque::new(),
            begun: 0,
            taken: None,
            outbox: VecDeque::new(),
            published: 0,
            held: Vec::new(),
            charged: 0,
            waits: false,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Submit(len) => self.submit(len),
            Step::Take => self.take(),
            Step::Send(len) => self.send(len),
            Step::SendReceived(from, len) => self.send_received(from, len),
            Step::Flush => self.flush(),
            Step::Publish => self.publish(),
            Step::Done => self.done(),
            Step::Fail => self.fail(),
            Step::Collect => self.collect(),
            Step::Recall => self.recall(),
            Step::Kill => self.kill(),
            Step::Attach => self.attach(),
        }
        self.compare();
    }

    /// What the reactor says of itself at any time.
    fn compare(&mut self) {
        let reactor = &mut self.world.reactor;
        let left = self.inbox.iter().filter(|message| !message.is_void);
        assert_eq!(reactor.in_flight(), left.count());
        assert_eq!(reactor.left(), self.inbox.len());
        let front = self.inbox.front();
        let is_under_way = self.begun == 1 && front.is_some_and(|message| !message.is_void);
        assert_eq!(reactor.has_begun(), is_under_way);
        assert_eq!(reactor.has_output(), self.published > 0);
    }

    fn submit(&mut self, len: usize) {
        let taken = |message: &Message| aligned(INPUT_HEADER + message.body.len());
        let free = INBOX as u64 - self.inbox.iter().map(taken).sum::<u64>();
        let has_room = aligned(INPUT_HEADER + len) <= free;
        assert_eq!(self.world.reactor.takes(len), has_room);
        if !has_room {
            return;
        }
        let body = bytes(self.next, len);
        self.world.submit(self.next % 3, &body);
        self.inbox.push_back(Message {
            conn: conn(self.next % 3),
            body,
            is_void: false,
            flushed: false,
        });
        self.next += 1;
    }

    fn take(&mut self) {
        if !self.attached || self.taken.is_some() {
            return;
        }
        if self.waits {
            if !self.world.worker.outbox.is_read() {
                return;
            }
            self.waits = false;
        }
        // As a worker does: there is room for the record before the message is begun.
        self.make_room(0);
        self.taken = self.world.worker.take().frame();
        let Some(message) = self.inbox.get(self.begun) else {
            assert!(self.taken.is_none(), "there is none");
            return;
        };
        let taken = self.taken.expect("there is one");
        let is_void = taken.input.kind == InputKind::Void;
        assert_eq!((taken.input.conn, is_void), (message.conn, message.is_void));
        assert_eq!(self.world.body(&taken), message.body);
        self.begun += 1;
    }

    /// The message that the worker is at, unless it only passes over it.
    fn under_way(&self) -> Option<&Message> {
        let message = &self.inbox[self.begun.checked_sub(1)?];
        self.taken
            .is_some()
            .then_some(message)
            .filter(|it| !it.is_void)
    }

    fn make_room(&mut self, len: usize) {
        if !self.world.worker.outbox.room(len) {
            self.publish();
            self.collect();
            assert!(self.world.worker.outbox.room(len), "for {len} bytes");
        }
    }

    fn stage(&mut self, output: Output, body: Vec<u8>, expected: Written) {
        self.make_room(body.len());
        self.world.worker.outbox.stage(output, &body);
        self.outbox.push_back(expected);
    }

    fn send(&mut self, len: usize) {
        let Some(conn) = self.under_way().map(|message| message.conn) else {
            return;
        };
        if self.charge(len) {
            let body = bytes(self.next, len);
            let output = Output::Send(conn);
            self.stage(output, body.clone(), Written::Output(output, body));
        }
    }

    /// Whether the budget of one commit allows it.
    fn charge(&mut self, len: usize) -> bool {
        let fits = self.charged + charge(len) <= BUDGET;
        if fits {
            self.charged += charge(len);
        }
        fits
    }

    fn send_received(&mut self, from: u16, len: u16) {
        let Some(Message { conn, body, .. }) = self.under_way() else {
            return;
        };
        let of = |thousandths: u16| body.len() * usize::from(thousandths) / 1000;
        let (conn, part) = (*conn, of(from)..of(from + len));
        let bytes = body[part.clone()].to_vec();
        if self.charge(bytes.len()) {
            let part = Part {
                offset: part.start as u32,
                len: part.len() as u32,
            };
            let expected = Written::Output(Output::Send(conn), bytes);
            self.stage(Output::SendReceived(conn, part), vec![], expected);
        }
    }

    fn flush(&mut self) {
        if self.under_way().is_some() {
            self.stage(Output::Flush, vec![], Written::Flush);
            self.charged = 0;
        }
    }

    fn publish(&mut self) {
        if self.attached {
            self.world.worker.outbox.publish();
            self.published = self.outbox.len();
        }
    }

    fn done(&mut self) {
        if let Some(taken) = self.taken {
            self.make_room(0);
            self.taken = None;
            self.world.worker.outbox.done(&taken);
            self.outbox.push_back(Written::Done);
            self.published = self.outbox.len();
            self.charged = 0;
        }
    }

    fn fail(&mut self) {
        if self.under_way().is_none() {
            return;
        }
        let Some(taken) = self.taken.take() else {
            return;
        };
        let unpublished = self.outbox.iter().skip(self.published);
        if unpublished
            .into_iter()
            .any(|it| matches!(it, Written::Flush))
        {
            self.publish();
        }
        self.outbox.truncate(self.published);
        self.world.worker.outbox.failed(&taken);
        self.outbox.push_back(Written::Failed);
        self.published = self.outbox.len();
        self.charged = 0;
        self.waits = true;
    }

    fn collect(&mut self) {
        let mut failed = None;
        let (mut applied, mut retired) = (Vec::new(), Vec::new());
        for written in self.outbox.drain(..self.published) {
            match written {
                Written::Output(output, body) => self.held.push((output, body)),
                Written::Flush => {
                    applied.append(&mut self.held);
                    self.inbox[0].flushed = true;
                }
                Written::Done => {
                    applied.append(&mut self.held);
                    retired.extend(self.inbox.pop_front().map(|message| message.conn));
                    self.begun -= 1;
                }
                Written::Failed => {
                    self.held.clear();
                    let message = self.inbox.pop_front().expect("one that failed");
                    self.begun -= 1;
                    let behind: Vec<(ConnId, Vec<u8>)> = self
                        .inbox
                        .iter_mut()
                        .filter(|it| it.conn == message.conn && !it.is_void)
                        .map(|it| {
                            it.is_void = true;
                            (it.conn, it.body.clone())
                        })
                        .collect();
                    assert!(failed.is_none(), "a worker waits");
                    failed = Some((message, behind));
                }
            }
        }
        self.published = 0;
        assert_eq!(self.world.collect(), Ok((applied, retired)));
        let told = std::mem::take(&mut self.world.failures);
        assert_eq!(told.len(), usize::from(failed.is_some()));
        if let (Some((message, behind)), Some(told)) = (failed, told.first()) {
            is_the_same(&told.frame, &message);
            let same: Vec<(ConnId, Vec<u8>)> = told
                .behind
                .iter()
                .map(|it| (it.conn, it.body.clone()))
                .collect();
            assert_eq!(same, behind);
        }
    }

    fn recall(&mut self) {
        let returned = self.world.reactor.recall();
        let messages = self.inbox.iter_mut().skip(self.begun);
        let recalled: Vec<&mut Message> = messages.filter(|it| !it.is_void).collect();
        assert_eq!(returned.len(), recalled.len());
        for (frame, message) in returned.iter().zip(recalled) {
            is_the_same(frame, message);
            message.is_void = true;
        }
    }

    /// Its last words are read first, as a reactor does.
    fn kill(&mut self) {
        self.collect();
        let Legacy { under_way, rest } = self.world.reactor.cut();
        let begun: Vec<Message> = self.inbox.drain(..self.begun).collect();
        assert!(begun.len() <= 1, "what was done is retired");
        let begun = begun.iter().find(|message| !message.is_void);
        assert_eq!(under_way.is_some(), begun.is_some());
        if let (Some(frame), Some(message)) = (under_way, begun) {
            is_the_same(&frame, message);
        }
        let left: Vec<Message> = self.inbox.drain(..).filter(|it| !it.is_void).collect();
        assert_eq!(rest.len(), left.len());
        for (frame, message) in rest.iter().zip(&left) {
            is_the_same(frame, message);
        }
        self.outbox.clear();
        self.held.clear();
        (self.begun, self.charged, self.taken) = (0, 0, None);
        self.waits = false;
        self.attached = false;
        self.generation += 1;
        self.world.reactor.open(self.generation);
    }

    fn attach(&mut self) {
        if !self.attached {
            self.world.worker = incarnation(&self.world.both, self.generation);
            self.attached = true;
        }
    }
}

#[track_caller]
fn is_the_same(frame: &Returned, message: &Message) {
    assert_eq!(frame.conn, message.conn);
    assert_eq!(frame.body, message.body);
    assert_eq!(frame.kind, Event::Receive);
    assert_eq!(frame.flushed, message.flushed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_link_does_what_two_queues_do(steps in steps()) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
        }
        for step in [Step::Attach, Step::Done, Step::Collect, Step::Attach] {
            model.step(step);
        }
        while !model.inbox.is_empty() {
            for step in [Step::Take, Step::Done, Step::Collect] {
                model.step(step);
            }
        }
    }
}
