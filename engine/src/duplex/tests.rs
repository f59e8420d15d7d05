//! The relay's decisions against two sockets made of numbers: what a kernel does, and nothing else.

use super::*;
use alloc::vec::Vec;
use proptest::prelude::*;

/// What a copy reads at most.
const BUFFER: usize = 64;
/// What a pipe takes at most, in bytes and in portions.
const PIPE: usize = 256;
const SLOTS: usize = 4;

/// One socket and its peer behind it.
#[derive(Clone, Debug, Default)]
struct Sock {
    /// Portions that wait to be read; a splice takes a pipe slot for each.
    inbox: Vec<usize>,
    fin: bool,
    reset: bool,
    /// The pending error was taken by some call: reads return a clean end from now on.
    taken: bool,
    room: usize,
    /// A write found no room: the kernel owes an event.
    wants_room: bool,
    sent_in: usize,
    got: usize,
    unacknowledged: usize,
    /// FINs that the peer got, and how many bytes it had then.
    fins: Vec<usize>,
}

struct World {
    duplex: Duplex,
    socks: [Sock; 2],
    pipes: [Vec<usize>; 2],
    stores: [usize; 2],
    report: Report,
    calls: usize,
    ended: Option<Ends>,
}

impl World {
    fn new(mode: Mode, preface: usize) -> Self {
        let mut duplex = Duplex::new(mode);
        duplex.begin(preface);
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
            report: Report::default(),
            calls: 0,
            ended: None,
        }
    }

    fn sends(&mut self, side: Side, bytes: usize) {
        let sock = &mut self.socks[side as usize];
        if sock.fin || sock.reset || bytes == 0 {
            return;
        }
        sock.inbox.push(bytes);
        sock.sent_in += bytes;
        self.hint(
            side,
            Readiness {
                readable: true,
                ..Readiness::default()
            },
        );
    }

    fn fin(&mut self, side: Side) {
        let sock = &mut self.socks[side as usize];
        if !sock.reset {
            sock.fin = true;
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

    fn reset(&mut self, side: Side) {
        // Once it has ended, the sockets are closed.
        if self.ended.is_some() {
            return;
        }
        self.socks[side as usize].reset = true;
        let hint = Readiness {
            readable: true,
            writable: true,
            read_closed: true,
            error: true,
            priority: false,
        };
        self.hint(side, hint);
    }

    fn room(&mut self, side: Side, bytes: usize) {
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

    fn acknowledge(&mut self, side: Side) {
        self.socks[side as usize].unacknowledged = 0;
        self.duplex.look();
    }

    fn hint(&mut self, side: Side, hint: Readiness) {
        self.duplex.ready(side, hint);
    }

    /// Runs until nothing is to be done, at most `calls` calls.
    fn pump(&mut self, calls: usize) {
        for _ in 0..calls {
            let Some(op) = self.duplex.next_op() else {
                break;
            };
            self.calls += 1;
            self.perform(op);
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
            }
        }
    }

    fn run(&mut self) {
        self.pump(10_000);
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
            Op::Unacknowledged(side) => {
                let bytes = self.socks[side as usize].unacknowledged;
                self.duplex.unacknowledged(side, bytes);
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
        if via == Via::Copy {
            assert_eq!(store, 0, "a buffer is filled only when empty");
        }
        let sock = &mut self.socks[dir.from() as usize];
        let pipe = &mut self.pipes[dir as usize];
        if via == Via::Splice && (pipe.len() >= SLOTS || store >= PIPE) {
            return Outcome::WouldBlock;
        }
        let limit = if via == Via::Copy {
            BUFFER
        } else {
            PIPE - store
        };
        let mut bytes = 0;
        while bytes < limit && !sock.inbox.is_empty() {
            if via == Via::Splice && pipe.len() >= SLOTS {
                break;
            }
            let portion = sock.inbox[0].min(limit - bytes);
            bytes += portion;
            if via == Via::Splice {
                pipe.push(portion);
            }
            sock.inbox[0] -= portion;
            if sock.inbox[0] == 0 {
                sock.inbox.remove(0);
            }
        }
        if bytes > 0 {
            self.stores[dir as usize] += bytes;
            return Outcome::Moved {
                bytes,
                short: via == Via::Copy && bytes < BUFFER,
            };
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

const MODES: [Mode; 3] = [Mode::Copy, Mode::Splice, Mode::Auto];

#[test]
fn bytes_pass_both_ways_and_the_fins_follow_them() {
    for mode in MODES {
        let mut world = World::new(mode, 37);
        world.sends(Side::Client, 500);
        world.sends(Side::Backend, 900);
        world.fin(Side::Client);
        world.run();
        assert_eq!(
            world.socks[1].fins,
            [537],
            "the FIN comes after the last byte"
        );
        assert!(
            world.socks[0].fins.is_empty(),
            "the other direction is still open"
        );
        assert_eq!(world.ended, None);
        world.sends(Side::Backend, 1);
        world.fin(Side::Backend);
        world.run();
        assert_eq!(world.socks[0].fins, [901]);
        assert_eq!(world.ended, Some(Ends::FIN));
        assert_eq!((world.report.forward, world.report.back), (537, 901));
        assert_eq!(world.report.ended, [true, true]);
    }
}

#[test]
fn a_backend_that_talks_first_is_heard_while_the_preface_waits() {
    let mut world = World::new(Mode::Copy, 2000);
    world.socks[1].room = 0;
    world.sends(Side::Backend, 10);
    world.run();
    assert_eq!((world.socks[0].got, world.socks[1].got), (10, 0));
    world.room(Side::Backend, 5000);
    world.run();
    assert_eq!(world.socks[1].got, 2000);
}

#[test]
fn the_client_is_not_read_before_the_preface_is_written() {
    for mode in MODES {
        let mut world = World::new(mode, 100);
        world.socks[1].room = 99;
        world.sends(Side::Client, 10);
        world.run();
        assert_eq!(
            world.socks[0].inbox,
            [10],
            "{mode:?}: nothing more was read"
        );
        world.room(Side::Backend, 1000);
        world.run();
        assert_eq!(world.socks[1].got, 110);
    }
}

#[test]
fn a_paused_reader_stops_the_writer_in_bounded_memory() {
    for mode in MODES {
        let mut world = World::new(mode, 0);
        world.socks[0].room = 0;
        for _ in 0..100 {
            world.sends(Side::Backend, 50);
            world.run();
        }
        assert!(
            world.duplex.held() <= PIPE,
            "{mode:?} holds {}",
            world.duplex.held()
        );
        let calls = world.calls;
        world.run();
        assert_eq!(
            world.calls, calls,
            "{mode:?}: a blocked relay makes no calls"
        );
        for _ in 0..100 {
            world.room(Side::Client, 50);
            world.run();
        }
        assert_eq!(world.socks[0].got, 5000, "{mode:?}: nothing is lost");
    }
}

#[test]
fn a_full_pipe_does_not_pass_for_an_empty_socket() {
    // Four one-byte portions fill the pipe's slots while the client takes nothing; a fifth waits in the socket. No
    // further event comes for it.
    let mut world = World::new(Mode::Splice, 0);
    world.socks[0].room = 0;
    for _ in 0..9 {
        world.sends(Side::Backend, 1);
    }
    world.run();
    assert_eq!(world.duplex.held(), SLOTS);
    world.room(Side::Client, 1000);
    world.run();
    assert_eq!(world.socks[0].got, 9, "the tail of the stream came out");
}

#[test]
fn a_reset_passes_on_after_the_bytes_before_it() {
    for mode in MODES {
        for side in Side::BOTH {
            let mut world = World::new(mode, 0);
            world.sends(side, 700);
            world.reset(side);
            world.run();
            assert_eq!(
                world.socks[side.other() as usize].got,
                700,
                "{mode:?} {side}"
            );
            assert!(
                world.socks[side.other() as usize].fins.is_empty(),
                "a cut stream has no FIN"
            );
            assert_eq!(
                world.ended, None,
                "{mode:?} {side}: not before it is acknowledged"
            );
            assert_eq!(world.report.standing, Standing::Unacknowledged);
            world.acknowledge(side.other());
            world.run();
            assert_eq!(world.ended, Some(Ends::RESET));
            assert_eq!(world.report.broken, Some((side, Fault::Reset)));
        }
    }
}

#[test]
fn a_reset_seen_by_a_write_does_not_become_a_clean_end() {
    // The backend's reset is consumed by the write towards it; the read that follows returns a clean zero.
    let mut world = World::new(Mode::Copy, 5);
    world.socks[1].reset = true;
    world.hint(
        Side::Backend,
        Readiness {
            readable: true,
            ..Readiness::default()
        },
    );
    world.run();
    assert!(world.socks[1].taken);
    assert!(world.socks[0].fins.is_empty());
    world.acknowledge(Side::Client);
    world.run();
    assert_eq!(world.ended, Some(Ends::RESET));
    assert_eq!(world.report.broken, Some((Side::Backend, Fault::Reset)));
}

#[test]
fn a_reset_that_arrives_while_reading_is_paused_is_kept() {
    for mode in MODES {
        let mut world = World::new(mode, 0);
        world.socks[0].room = 0;
        for _ in 0..20 {
            world.sends(Side::Backend, 50);
        }
        world.run();
        world.reset(Side::Backend);
        world.run();
        assert_eq!(
            world.report.broken,
            Some((Side::Backend, Fault::Reset)),
            "{mode:?}: told at once"
        );
        assert_eq!(world.ended, None);
        world.room(Side::Client, 10_000);
        world.run();
        assert_eq!(
            world.socks[0].got, 1000,
            "{mode:?}: what was sent before still arrives"
        );
        assert!(world.socks[0].fins.is_empty());
        world.acknowledge(Side::Client);
        world.run();
        assert_eq!(world.ended, Some(Ends::RESET));
    }
}

#[test]
fn a_reset_after_the_clients_fin_is_heard() {
    let mut world = World::new(Mode::Copy, 8);
    world.fin(Side::Client);
    world.run();
    assert_eq!(world.socks[1].fins, [8]);
    world.acknowledge(Side::Backend);
    world.reset(Side::Client);
    world.run();
    assert_eq!(world.report.broken, Some((Side::Client, Fault::Reset)));
    assert_eq!(world.ended, Some(Ends::RESET));
}

#[test]
fn two_broken_sockets_end_at_once() {
    let mut world = World::new(Mode::Copy, 0);
    world.socks[0].room = 0;
    world.sends(Side::Backend, 10);
    world.run();
    world.reset(Side::Backend);
    world.reset(Side::Client);
    world.run();
    assert_eq!(world.ended, Some(Ends::RESET));
}

#[test]
fn an_error_hint_without_an_error_changes_nothing() {
    let mut world = World::new(Mode::Copy, 0);
    for side in Side::BOTH {
        world.hint(
            side,
            Readiness {
                error: true,
                ..Readiness::default()
            },
        );
    }
    world.run();
    world.sends(Side::Client, 3);
    world.fin(Side::Client);
    world.fin(Side::Backend);
    world.run();
    assert_eq!(world.ended, Some(Ends::FIN));
    assert_eq!(world.report.broken, None);
}

#[test]
fn urgent_data_is_got_past_by_one_copy() {
    let mut duplex = Duplex::new(Mode::Splice);
    duplex.begin(0);
    let urgent = Readiness {
        readable: true,
        priority: true,
        ..Readiness::default()
    };
    duplex.ready(Side::Backend, urgent);
    assert_eq!(
        duplex.next_op(),
        Some(Op::Fill(Dir::Forward, Via::Splice)),
        "the client may have sent"
    );
    duplex.filled(Dir::Forward, Via::Splice, Outcome::WouldBlock);
    assert_eq!(duplex.next_op(), Some(Op::Fill(Dir::Return, Via::Splice)));
    duplex.filled(Dir::Return, Via::Splice, Outcome::WouldBlock);
    assert_eq!(
        duplex.next_op(),
        Some(Op::Fill(Dir::Return, Via::Copy)),
        "a splice stops at the mark"
    );
    duplex.filled(
        Dir::Return,
        Via::Copy,
        Outcome::Moved {
            bytes: 4,
            short: true,
        },
    );
    assert_eq!(duplex.next_op(), Some(Op::Drain(Dir::Return)));
    duplex.drained(
        Dir::Return,
        Outcome::Moved {
            bytes: 4,
            short: false,
        },
    );
    assert_eq!(
        duplex.next_op(),
        Some(Op::Fill(Dir::Return, Via::Splice)),
        "a short read proves nothing"
    );
    duplex.filled(Dir::Return, Via::Splice, Outcome::WouldBlock);
    assert_eq!(duplex.next_op(), None);
}

#[test]
fn a_short_read_saves_the_second_one() {
    let mut world = World::new(Mode::Copy, 0);
    world.run();
    let calls = world.calls;
    world.sends(Side::Client, 10);
    world.run();
    assert_eq!(world.calls - calls, 2, "one read, one write");
}

#[test]
fn data_and_fin_in_one_event_are_both_seen() {
    let mut world = World::new(Mode::Copy, 0);
    world.run();
    world.socks[0].inbox.push(10);
    world.socks[0].fin = true;
    world.hint(
        Side::Client,
        Readiness {
            readable: true,
            read_closed: true,
            ..Readiness::default()
        },
    );
    world.run();
    assert_eq!(world.socks[1].fins, [10]);
}

#[test]
fn without_a_pipe_it_copies() {
    let mut duplex = Duplex::new(Mode::Splice);
    duplex.begin(0);
    duplex.filled(Dir::Forward, Via::Splice, Outcome::NoPipe);
    assert_eq!(duplex.next_op(), Some(Op::Fill(Dir::Forward, Via::Copy)));
    duplex.filled(
        Dir::Forward,
        Via::Copy,
        Outcome::Moved {
            bytes: 9,
            short: false,
        },
    );
    assert_eq!(duplex.next_op(), Some(Op::Drain(Dir::Forward)));
    duplex.drained(
        Dir::Forward,
        Outcome::Moved {
            bytes: 9,
            short: false,
        },
    );
    assert_eq!(
        duplex.next_op(),
        Some(Op::Fill(Dir::Forward, Via::Splice)),
        "the next time it asks again"
    );
}

#[test]
fn large_flows_become_splices_and_small_messages_copies() {
    let mut half = Duplex::new(Mode::Auto).halves[0];
    half.adapt(Mode::Auto, Via::Copy, SMALL_SPLICE, false);
    assert_eq!(half.via, Via::Copy);
    half.adapt(Mode::Auto, Via::Copy, SMALL_SPLICE, true);
    half.adapt(Mode::Auto, Via::Copy, SMALL_SPLICE, false);
    assert_eq!(half.via, Via::Copy, "a short read breaks the row");
    half.adapt(Mode::Auto, Via::Copy, SMALL_SPLICE, false);
    assert_eq!(half.via, Via::Splice);
    for _ in 1..SMALL_SPLICES {
        half.adapt(Mode::Auto, Via::Splice, SMALL_SPLICE - 1, false);
    }
    half.adapt(Mode::Auto, Via::Splice, SMALL_SPLICE, false);
    assert_eq!(half.via, Via::Splice, "a large one breaks the row");
    for _ in 0..SMALL_SPLICES {
        half.adapt(Mode::Auto, Via::Splice, SMALL_SPLICE - 1, false);
    }
    assert_eq!(half.via, Via::Copy);
    for mode in [Mode::Copy, Mode::Splice] {
        let mut half = Duplex::new(mode).halves[0];
        let via = half.via;
        for bytes in [1, SMALL_SPLICE].into_iter().cycle().take(20) {
            half.adapt(mode, via, bytes, false);
        }
        assert_eq!(half.via, via, "a fixed mode stays");
    }
}

#[test]
fn winding_writes_out_what_is_held_and_takes_no_more() {
    for mode in MODES {
        for how in [Close::Fin, Close::Reset] {
            let mut world = World::new(mode, 0);
            world.socks[0].room = 0;
            world.sends(Side::Backend, 40);
            world.run();
            world.duplex.wind(how);
            world.sends(Side::Backend, 40);
            world.run();
            assert_eq!(world.ended, None);
            world.room(Side::Client, 1000);
            world.run();
            world.acknowledge(Side::Client);
            world.run();
            assert_eq!(world.socks[0].got, 40);
            assert_eq!(
                world.ended,
                Some(Ends {
                    client: how,
                    backend: how
                })
            );
        }
    }
}

#[test]
fn another_attempt_starts_afresh() {
    let mut world = World::new(Mode::Auto, 12);
    world.socks[1].reset = true;
    world.run();
    assert_eq!(world.report.broken, Some((Side::Backend, Fault::Reset)));
    world.duplex.abandon();
    assert!(!world.duplex.is_relaying());
    assert_eq!((world.duplex.held(), world.duplex.next_op()), (0, None));
    world.socks[1] = Sock {
        room: 1000,
        ..Sock::default()
    };
    world.stores = [12, 0];
    world.report = Report::default();
    world.duplex.begin(12);
    world.fin(Side::Client);
    world.fin(Side::Backend);
    world.run();
    assert_eq!(world.socks[1].fins, [12]);
    assert_eq!((world.ended, world.report.broken), (Some(Ends::FIN), None));
}

#[derive(Clone, Debug)]
enum Step {
    Sends(Side, usize),
    Fin(Side),
    Reset(Side),
    Room(Side, usize),
    Acknowledge(Side),
    /// A hint that means nothing.
    Spurious(Side),
    Pump(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = || prop_oneof![Just(Side::Client), Just(Side::Backend)];
    let step = prop_oneof![
        6 => (side(), 1usize..300).prop_map(|(side, bytes)| Step::Sends(side, bytes)),
        1 => side().prop_map(Step::Fin),
        1 => side().prop_map(Step::Reset),
        4 => (side(), 1usize..300).prop_map(|(side, bytes)| Step::Room(side, bytes)),
        2 => side().prop_map(Step::Acknowledge),
        1 => side().prop_map(Step::Spurious),
        8 => (1usize..12).prop_map(Step::Pump),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn nothing_is_lost_and_every_end_is_told_as_it_was(
        mode in prop_oneof![Just(Mode::Copy), Just(Mode::Splice), Just(Mode::Auto)],
        preface in 0usize..200,
        rooms in (0usize..400, 0usize..400),
        steps in steps(),
    ) {
        let mut world = World::new(mode, preface);
        world.socks[0].room = rooms.0;
        world.socks[1].room = rooms.1;
        for step in steps {
            match step {
                Step::Sends(side, bytes) => world.sends(side, bytes),
                Step::Fin(side) => world.fin(side),
                Step::Reset(side) => world.reset(side),
                Step::Room(side, bytes) => world.room(side, bytes),
                Step::Acknowledge(side) => world.acknowledge(side),
                Step::Spurious(side) => world.hint(side, Readiness {
                    readable: true, writable: true, read_closed: true, error: true, priority: true,
                }),
                Step::Pump(calls) => world.pump(calls),
            }
        }
        // Then everything heals: there is room, and everybody ends.
        for side in Side::BOTH {
            world.room(side, 1_000_000);
            world.fin(side);
        }
        world.run();
        for side in Side::BOTH {
            world.acknowledge(side);
        }
        world.run();
        let broken = Side::BOTH.map(|side| world.socks[side as usize].reset);
        let ends = world.ended.expect("it ends");
        prop_assert_eq!(ends == Ends::FIN, broken == [false, false]);
        for dir in Dir::BOTH {
            let source = &world.socks[dir.from() as usize];
            let destination = &world.socks[dir.to() as usize];
            prop_assert!(destination.got <= source.sent_in);
            // What reached the kernel of a broken source still arrives, unless its destination broke as well.
            if !destination.reset {
                prop_assert_eq!(destination.got, source.sent_in, "{} is whole", dir);
            }
            prop_assert!(destination.fins.len() <= 1);
            if broken == [false, false] {
                prop_assert_eq!(&destination.fins, &[source.sent_in]);
            }
        }
        let totals = (world.report.forward as usize, world.report.back as usize);
        prop_assert_eq!(totals, (world.socks[1].got, world.socks[0].got));
        prop_assert_eq!(world.report.broken.is_some(), broken != [false, false]);
    }
}

/// Small splices into a destination that takes nothing: the direction goes over to copies while its pipe is not empty.
#[test]
fn no_buffer_is_asked_for_while_the_pipe_holds_bytes() {
    let mut duplex = Duplex::new(Mode::Auto);
    duplex.begin(0);
    duplex.halves[Dir::Forward as usize].via = Via::Splice;
    for _ in 0..SMALL_SPLICES {
        let moved = Outcome::Moved {
            bytes: 10,
            short: false,
        };
        assert_eq!(duplex.next_op(), Some(Op::Fill(Dir::Forward, Via::Splice)));
        duplex.filled(Dir::Forward, Via::Splice, moved);
        // Draining finds no room the first time, and no event says otherwise.
        if duplex.ends[Side::Backend as usize].writable {
            assert_eq!(duplex.next_op(), Some(Op::Drain(Dir::Forward)));
            duplex.drained(Dir::Forward, Outcome::WouldBlock);
        }
    }
    assert_eq!(duplex.halves[Dir::Forward as usize].via, Via::Copy);
    assert_eq!(duplex.next_op(), None, "it must be drained first");
    let hint = Readiness {
        writable: true,
        ..Readiness::default()
    };
    duplex.ready(Side::Backend, hint);
    assert_eq!(duplex.next_op(), Some(Op::Drain(Dir::Forward)));
}
