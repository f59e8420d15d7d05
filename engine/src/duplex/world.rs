//! A relay against two sockets made of numbers: what a kernel does, and nothing else. Shared by the tests of the
//! relay and the fuzz target.

use core::num::NonZeroU8;
use std::vec::Vec;

use tlb_engine::api::{Close, Ends, Fault, Report, Standing};
use tlb_engine::drive::{Flow, HandOff, Mode, Outcome, Readiness, Via};
use tlb_engine::duplex::{Duplex, Op};
use tlb_engine::ids::{Dir, Side};

/// What a copy reads at most.
const BUFFER: usize = 64;
/// What a pipe takes at most, in bytes and in portions.
pub(crate) const PIPE: usize = 256;
pub(crate) const SLOTS: usize = 4;
/// What makes a source rest.
pub(crate) const HEAVY: usize = 128;
/// An urgent mark among the portions of an inbox: a splice stops in front of it for good, a read passes it only as
/// the first thing it meets.
const MARK: usize = 0;
/// More calls than any of these relays needs.
const CALLS_MAX: usize = 10_000;
/// So many calls in a row may move nothing: each of them teaches the relay something that it asks only once.
const FRUITLESS_MAX: usize = 16;

/// One socket and its peer behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sock {
    /// Portions that wait to be read; a splice takes a pipe slot for each.
    pub(crate) inbox: Vec<usize>,
    pub(crate) fin: bool,
    pub(crate) reset: bool,
    /// The pending error was taken by some call: reads return a clean end from now on.
    pub(crate) taken: bool,
    pub(crate) room: usize,
    /// A write found no room: the kernel owes an event.
    pub(crate) wants_room: bool,
    pub(crate) sent_in: usize,
    pub(crate) got: usize,
    pub(crate) unacknowledged: usize,
    /// No event says that it is readable.
    pub(crate) muted: bool,
    /// FINs that the peer got, and how many bytes it had then.
    pub(crate) fins: Vec<usize>,
}

pub(crate) struct World {
    pub(crate) duplex: Duplex,
    pub(crate) socks: [Sock; 2],
    pipes: [Vec<usize>; 2],
    pub(crate) stores: [usize; 2],
    /// There is no pipe to be had.
    pub(crate) no_pipe: bool,
    pub(crate) report: Report,
    pub(crate) calls: usize,
    pub(crate) ended: Option<Ends>,
    /// What the kernel says to an offer.
    answer: HandOff,
    /// It has taken the session, and this is what it did since.
    kernel: Option<Flow>,
    wound: Option<Close>,
}

/// What happens to a [`World`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Sends(Side, usize),
    /// One byte of urgent data.
    Urgent(Side),
    Fin(Side),
    Reset(Side),
    Room(Side, usize),
    Acknowledge(Side),
    /// A hint that means nothing.
    Spurious(Side),
    /// Pipes can be had, or cannot.
    Pipes(bool),
    /// What the kernel says to an offer from now on.
    Offers(HandOff),
    /// The engine ends the session.
    Wind(Close),
    /// The relay gets to make so many calls.
    Pump(usize),
}

impl Sock {
    /// What an event would say now.
    fn poll(&self) -> Readiness {
        Readiness {
            readable: !self.inbox.is_empty() || self.fin || self.reset,
            writable: self.room > 0 || self.reset,
            read_closed: self.fin || self.reset,
            error: self.reset && !self.taken,
            priority: self.inbox.contains(&MARK),
        }
    }
}

impl World {
    pub(crate) fn new(mode: Mode, preface: usize) -> Self {
        let mut duplex = Duplex::new(mode)
            .heavy(HEAVY)
            .paced(preface % 2 == 1)
            .hands_off(NonZeroU8::new(preface as u8 % 4));
        duplex.begin(preface, false);
        let sock = Sock {
            room: 1000,
            ..Sock::default()
        };
        let mut client = sock.clone();
        client.sent_in = preface;
        Self {
            duplex,
            socks: [client, sock],
            pipes: [Vec::new(), Vec::new()],
            stores: [preface, 0],
            no_pipe: false,
            report: Report::default(),
            calls: 0,
            ended: None,
            answer: HandOff::Done,
            kernel: None,
            wound: None,
        }
    }

    pub(crate) fn sends(&mut self, side: Side, bytes: usize) {
        let sock = &mut self.socks[side as usize];
        if sock.fin || sock.reset || bytes == 0 {
            return;
        }
        sock.inbox.push(bytes);
        sock.sent_in += bytes;
        if self.kernel.is_some() {
            return self.forward(side);
        }
        self.hint(
            side,
            Readiness {
                readable: true,
                ..Readiness::default()
            },
        );
    }

    /// Nobody stands between the peers any more.
    fn forward(&mut self, from: Side) {
        let (Some(flow), None) = (&mut self.kernel, self.ended) else {
            return;
        };
        let dir = from.outgoing();
        let bytes: usize = self.socks[from as usize].inbox.drain(..).sum();
        if self.socks[dir.to() as usize].reset {
            return;
        }
        self.socks[dir.to() as usize].got += bytes;
        flow.moved[dir as usize] += bytes as u64;
    }

    /// Whether the kernel may have the session: nothing is late in this world.
    fn hand_off(&mut self) -> HandOff {
        let quiet = |sock: &Sock| sock.inbox.is_empty() && !sock.fin && !sock.reset;
        if self.answer == HandOff::Done && !self.socks.iter().all(quiet) {
            return HandOff::Later;
        }
        self.kernel = (self.answer == HandOff::Done).then(Flow::default);
        self.answer
    }

    fn flow(&mut self) -> Flow {
        let flow = self.kernel.as_mut().expect("it is handed off");
        flow.gone |= self.socks.iter().all(|sock| sock.unacknowledged == 0);
        let said = *flow;
        flow.moved = [0; 2];
        Flow {
            ended: said.ended.map(|ended| ended && said.gone),
            ..said
        }
    }

    fn urgent(&mut self, side: Side) {
        let sock = &mut self.socks[side as usize];
        if sock.fin || sock.reset {
            return;
        }
        // There is one mark at a time.
        sock.inbox.retain(|portion| *portion != MARK);
        sock.inbox.extend([MARK, 1]);
        sock.sent_in += 1;
        if self.kernel.is_some() {
            return self.forward(side);
        }
        let hint = Readiness {
            readable: true,
            priority: true,
            ..Readiness::default()
        };
        self.hint(side, hint);
    }

    pub(crate) fn fin(&mut self, side: Side) {
        let sock = &mut self.socks[side as usize];
        if !sock.reset && !core::mem::replace(&mut sock.fin, true) {
            if let Some(flow) = &mut self.kernel {
                let other = &mut self.socks[side.other() as usize];
                if self.ended.is_none() && !other.reset {
                    flow.ended[side.outgoing() as usize] = true;
                    other.fins.push(other.got);
                }
                return self.duplex.look();
            }
            self.hint(
                side,
                Readiness {
                    readable: true,
                    read_closed: true,
                    ..Readiness::default()
                },
            );
        }
    }

    pub(crate) fn reset(&mut self, side: Side) {
        // Once it has ended, the sockets are closed.
        if self.ended.is_some() {
            return;
        }
        self.socks[side as usize].reset = true;
        if let Some(flow) = &mut self.kernel {
            flow.broken = flow.broken.or(Some((side, Fault::Reset)));
            return self.duplex.look();
        }
        let hint = Readiness {
            readable: true,
            writable: true,
            read_closed: true,
            error: true,
            priority: false,
        };
        self.hint(side, hint);
    }

    pub(crate) fn room(&mut self, side: Side, bytes: usize) {
        let sock = &mut self.socks[side as usize];
        sock.room += bytes;
        if core::mem::take(&mut sock.wants_room) {
            self.hint(
                side,
                Readiness {
                    writable: true,
                    ..Readiness::default()
                },
            );
        }
    }

    pub(crate) fn acknowledge(&mut self, side: Side) {
        self.socks[side as usize].unacknowledged = 0;
        self.duplex.look();
    }

    pub(crate) fn hint(&mut self, side: Side, mut hint: Readiness) {
        let sock = &self.socks[side as usize];
        if sock.muted && !sock.reset {
            hint = Readiness {
                writable: hint.writable,
                error: hint.error,
                ..Readiness::default()
            };
        }
        self.duplex.ready(side, hint);
    }

    /// Runs until nothing is to be done, at most `calls` calls.
    pub(crate) fn pump(&mut self, calls: usize) {
        let mut fruitless = 0;
        for _ in 0..calls {
            let Some(op) = self.duplex.next_op() else {
                break;
            };
            self.calls += 1;
            let before = self.moved();
            self.perform(op);
            fruitless = if self.moved() == before {
                fruitless + 1
            } else {
                0
            };
            assert!(fruitless <= FRUITLESS_MAX, "it spins on {op:?}");
        }
        if let Some(report) = self.duplex.take_report() {
            self.report.forward += report.forward;
            self.report.back += report.back;
            self.report.broken = self.report.broken.or(report.broken);
            for dir in Dir::BOTH {
                assert!(
                    !(self.report.ended[dir as usize] && report.ended[dir as usize]),
                    "one FIN"
                );
                self.report.ended[dir as usize] |= report.ended[dir as usize];
            }
            self.report.standing = report.standing;
            if let Standing::Finished(ends) = report.standing {
                self.ended = Some(ends);
                self.close(ends);
            }
        }
    }

    /// Closing in order sends the FIN that was not sent yet.
    fn close(&mut self, ends: Ends) {
        for side in Side::BOTH {
            let source = &self.socks[side.other() as usize];
            let passed_on = ends == Ends::FIN && source.fin && self.wound.is_none();
            let sock = &mut self.socks[side as usize];
            if passed_on && sock.fins.is_empty() {
                sock.fins.push(sock.got);
            }
        }
    }

    /// Bytes that were read and bytes that were written.
    fn moved(&self) -> (usize, usize) {
        let written = self.socks[0].got + self.socks[1].got;
        (written + self.stores[0] + self.stores[1], written)
    }

    /// Runs until nothing is to be done, and no source rests that has something.
    pub(crate) fn run(&mut self) {
        self.pump(CALLS_MAX);
        for _ in 0..CALLS_MAX {
            if !self.duplex.wants_visit() {
                break;
            }
            self.duplex.visit();
            self.pump(CALLS_MAX);
        }
        assert!(
            !self.duplex.wants_visit(),
            "a source that brings nothing does not rest"
        );
        assert_eq!(self.duplex.next_op(), None, "it comes to rest");
    }

    fn perform(&mut self, op: Op) {
        match op {
            Op::Fill(dir, via) => {
                let outcome = self.fill(dir, via);
                self.duplex.filled(dir, via, outcome);
            }
            Op::Drain(dir) => {
                let outcome = self.drain(dir);
                self.duplex.drained(dir, outcome);
            }
            Op::Shutdown(side) => {
                let result = self.error(side).map_or(Ok(()), Err);
                if result.is_ok() {
                    let got = self.socks[side as usize].got;
                    self.socks[side as usize].fins.push(got);
                }
                self.duplex.shut(side, result);
            }
            Op::TakeError(side) => {
                let fault = self.error(side);
                self.duplex.took_error(side, fault);
            }
            Op::Waiting => {
                let waiting = !self.socks[Side::Client as usize].inbox.is_empty();
                self.duplex.waiting(waiting);
            }
            Op::Unacknowledged(side) => {
                let bytes = self.socks[side as usize].unacknowledged;
                self.duplex.unacknowledged(side, bytes);
            }
            Op::HandOff => {
                let outcome = self.hand_off();
                self.duplex.handed_off(outcome);
            }
            Op::Flow => {
                let flow = self.flow();
                self.duplex.flowed(flow);
            }
            Op::Mute(side) => {
                assert!(!core::mem::replace(
                    &mut self.socks[side as usize].muted,
                    true
                ));
                self.duplex.switched(side, Ok(()));
            }
            Op::Listen(side) => {
                assert!(core::mem::take(&mut self.socks[side as usize].muted));
                self.duplex.switched(side, Ok(()));
                self.hint(side, self.socks[side as usize].poll());
            }
        }
        assert_eq!(
            self.duplex.held(),
            self.stores[0] + self.stores[1],
            "it counts what is held"
        );
    }

    /// The pending error, told once.
    fn error(&mut self, side: Side) -> Option<Fault> {
        let sock = &mut self.socks[side as usize];
        (sock.reset && !core::mem::replace(&mut sock.taken, true)).then_some(Fault::Reset)
    }

    fn fill(&mut self, dir: Dir, via: Via) -> Outcome {
        let store = self.stores[dir as usize];
        let spliced = via == Via::Splice;
        if spliced && self.no_pipe {
            return Outcome::NoPipe;
        }
        assert_eq!(store, 0, "only an empty store is filled");
        let gone = self.kernel.is_some_and(|flow| flow.gone);
        assert!(!gone, "there is no socket to read from");
        if self.kernel.is_some() {
            return Outcome::WouldBlock;
        }
        let bytes = self.take(dir, spliced);
        if bytes > 0 {
            self.stores[dir as usize] += bytes;
            return Outcome::Moved {
                bytes,
                short: !spliced && bytes < BUFFER,
            };
        }
        let blocked = !self.socks[dir.from() as usize].inbox.is_empty();
        if blocked {
            return Outcome::WouldBlock;
        }
        if let Some(fault) = self.error(dir.from()) {
            return Outcome::Broken(fault);
        }
        let sock = &self.socks[dir.from() as usize];
        if sock.reset || sock.fin {
            Outcome::Eof
        } else {
            Outcome::WouldBlock
        }
    }

    /// Takes bytes out of the source's inbox: as many as the buffer, or the pipe and its slots, have room for, and
    /// none from behind an urgent mark.
    fn take(&mut self, dir: Dir, spliced: bool) -> usize {
        let sock = &mut self.socks[dir.from() as usize];
        let pipe = &mut self.pipes[dir as usize];
        if !spliced && sock.inbox.first() == Some(&MARK) {
            sock.inbox.remove(0);
        }
        let limit = if spliced {
            PIPE - self.stores[dir as usize]
        } else {
            BUFFER
        };
        let mut bytes = 0;
        while bytes < limit && !(spliced && pipe.len() >= SLOTS) {
            let Some(first) = sock.inbox.first_mut().filter(|first| **first != MARK) else {
                break;
            };
            let portion = (limit - bytes).min(*first);
            bytes += portion;
            if spliced {
                pipe.push(portion);
            }
            *first -= portion;
            if *first == 0 {
                sock.inbox.remove(0);
            }
        }
        bytes
    }

    fn drain(&mut self, dir: Dir) -> Outcome {
        if let Some(fault) = self.error(dir.to()) {
            return Outcome::Broken(fault);
        }
        let sock = &mut self.socks[dir.to() as usize];
        if sock.reset {
            return Outcome::Broken(Fault::Reset);
        }
        let held = self.stores[dir as usize];
        let bytes = held.min(sock.room);
        if bytes < held {
            sock.wants_room = true;
        }
        if bytes == 0 {
            return Outcome::WouldBlock;
        }
        sock.room -= bytes;
        sock.got += bytes;
        sock.unacknowledged += bytes;
        self.stores[dir as usize] -= bytes;
        let mut left = bytes;
        let pipe = &mut self.pipes[dir as usize];
        while left > 0 && !pipe.is_empty() {
            let portion = pipe[0].min(left);
            left -= portion;
            pipe[0] -= portion;
            if pipe[0] == 0 {
                pipe.remove(0);
            }
        }
        Outcome::Moved {
            bytes,
            short: bytes < held,
        }
    }
}

/// Takes a relay through `steps`, then lets everything heal and end. `rooms` are the bytes that client and backend
/// have room for at first.
///
/// # Panics
/// Where the relay loses a byte, passes an end on that was none, holds too much, or calls without end.
pub(crate) fn check(mode: Mode, preface: usize, rooms: [usize; 2], steps: &[Step]) {
    let mut world = World::new(mode, preface);
    for side in Side::BOTH {
        world.socks[side as usize].room = rooms[side as usize];
    }
    for step in steps {
        world.step(*step);
        assert!(world.stores[0] <= PIPE.max(preface), "{step:?}: bounded");
        assert!(world.stores[1] <= PIPE, "{step:?}: bounded");
    }
    world.heal();
    world.judge();
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Sends(side, bytes) => self.sends(side, bytes),
            Step::Urgent(side) => self.urgent(side),
            Step::Fin(side) => self.fin(side),
            Step::Reset(side) => self.reset(side),
            Step::Room(side, bytes) => self.room(side, bytes),
            Step::Acknowledge(side) => self.acknowledge(side),
            Step::Spurious(side) => {
                let hint = Readiness {
                    readable: true,
                    writable: true,
                    read_closed: true,
                    error: true,
                    priority: true,
                };
                self.hint(side, hint);
            }
            Step::Pipes(any) => self.no_pipe = !any,
            Step::Offers(answer) => self.answer = answer,
            Step::Wind(how) if self.wound.is_none() => {
                self.wound = Some(how);
                self.duplex.wind(how);
            }
            Step::Wind(_) => {}
            Step::Pump(calls) => self.pump(calls),
        }
    }

    /// There is room, and everybody ends.
    fn heal(&mut self) {
        for side in Side::BOTH {
            self.room(side, 1_000_000);
            self.fin(side);
        }
        self.run();
        for side in Side::BOTH {
            self.acknowledge(side);
        }
        self.run();
    }

    fn judge(&self) {
        let broken = Side::BOTH.map(|side| self.socks[side as usize].reset);
        let whole = broken == [false, false];
        let ends = self.ended.expect("it ends");
        if self.wound.is_none() {
            assert_eq!(ends == Ends::FIN, whole, "it ends as its sockets did");
        } else if !whole {
            assert_eq!(ends, Ends::RESET, "a fault outweighs how it was to end");
        }
        for dir in Dir::BOTH {
            self.judge_direction(dir);
        }
        let totals = (self.report.forward as usize, self.report.back as usize);
        assert_eq!(totals, (self.socks[1].got, self.socks[0].got), "it counts");
        assert_eq!(self.report.broken.is_some(), !whole, "a fault is told");
    }

    fn judge_direction(&self, dir: Dir) {
        let source = &self.socks[dir.from() as usize];
        let destination = &self.socks[dir.to() as usize];
        let unread: usize = source.inbox.iter().sum();
        assert!(
            destination.got + unread <= source.sent_in,
            "{dir}: no more than was sent"
        );
        assert!(
            self.wound.is_some() || destination.reset || unread == 0,
            "{dir}: all is read"
        );
        // What reached the kernel of a broken source still arrives, unless its destination broke as well.
        if !destination.reset {
            assert_eq!(
                destination.got + unread,
                source.sent_in,
                "{dir}: nothing is lost"
            );
        }
        assert!(destination.fins.len() <= 1, "{dir}: one FIN");
        if let [at] = destination.fins[..] {
            assert!(source.fin, "{dir}: a FIN that the source sent");
            assert_eq!(at, source.sent_in, "{dir}: a FIN after the last byte");
        }
        let broken = source.reset || destination.reset;
        if !broken && self.wound.is_none() {
            assert_eq!(destination.fins.len(), 1, "{dir}: the FIN is passed on");
        }
        let told = self.report.ended[dir as usize];
        if self.kernel.is_some() && (broken || self.wound.is_some()) {
            // Nobody may have asked before it was over.
            assert!(
                !told || destination.fins.len() == 1,
                "{dir}: an end that was"
            );
            return;
        }
        assert_eq!(told, destination.fins.len() == 1, "{dir}: its end is told");
    }
}
