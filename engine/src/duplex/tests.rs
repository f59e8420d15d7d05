//! The relay's decisions against two sockets made of numbers.

use super::half::{SMALL_SPLICE, SMALL_SPLICES};
use super::world::{PIPE, SLOTS, Sock, Step, World, check};
use super::*;
use crate::api::Ends;
use crate::drive::HandOff;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

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
    // Four one-byte portions fill the pipe's slots while the client takes nothing; more wait in the socket. No further
    // event comes for them.
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
    duplex.begin(0, false);
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
    duplex.begin(0, false);
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
    assert_eq!(
        SMALL_SPLICE,
        32 * 1024,
        "where the two were measured to meet"
    );
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
                Some(Ends::RESET),
                "its reader had paused: the stream is cut"
            );
        }
    }
}

#[test]
fn winding_ends_a_relay_that_holds_nothing_as_it_is_told() {
    for how in [Close::Fin, Close::Reset] {
        let mut world = World::new(Mode::Auto, 0);
        world.sends(Side::Backend, 40);
        world.run();
        world.acknowledge(Side::Client);
        world.duplex.wind(how);
        world.run();
        let ends = Ends {
            client: how,
            backend: how,
        };
        assert_eq!(world.ended, Some(ends));
    }
}

#[test]
fn a_reset_that_was_not_read_yet_outweighs_the_way_to_wind() {
    // The hint made the socket worth reading, the first read brought a byte, and then there are no more reads.
    let mut world = World::new(Mode::Copy, 0);
    world.fin(Side::Backend);
    world.run();
    world.socks[1].room = 0;
    world.sends(Side::Client, 1);
    world.reset(Side::Client);
    world.pump(1);
    world.duplex.wind(Close::Fin);
    world.room(Side::Backend, 1);
    world.run();
    world.acknowledge(Side::Backend);
    world.run();
    assert_eq!(world.socks[1].got, 1);
    assert_eq!(world.report.broken, Some((Side::Client, Fault::Reset)));
    assert_eq!(world.ended, Some(Ends::RESET), "a cut stream has no FIN");
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
    world.duplex.begin(12, false);
    world.fin(Side::Client);
    world.fin(Side::Backend);
    world.run();
    assert_eq!(world.socks[1].fins, [12]);
    assert_eq!((world.ended, world.report.broken), (Some(Ends::FIN), None));
}

/// A relay that has begun, by hand.
fn begun(mode: Mode, preface: usize) -> Duplex {
    let mut duplex = Duplex::new(mode);
    duplex.client_read(Outcome::WouldBlock);
    duplex.begin(preface, false);
    duplex
}

fn moved(bytes: usize, short: bool) -> Outcome {
    Outcome::Moved { bytes, short }
}

#[test]
fn before_the_relay_the_client_is_read_by_the_same_rules() {
    let mut duplex = Duplex::new(Mode::Copy);
    assert!(
        duplex.client_readable(),
        "the first frame may be there at accept"
    );
    assert!(!duplex.is_relaying());
    duplex.client_read(moved(9, false));
    assert!(duplex.client_readable(), "a full buffer proves nothing");
    duplex.client_read(moved(9, true));
    assert!(!duplex.client_readable(), "a short read empties the socket");
    duplex.ready(
        Side::Client,
        Readiness {
            readable: true,
            ..Readiness::default()
        },
    );
    duplex.client_read(Outcome::WouldBlock);
    assert!(!duplex.client_readable());
    // An end and urgent data behind the bytes: no further edge will come.
    let both = Readiness {
        read_closed: true,
        priority: true,
        ..Readiness::default()
    };
    duplex.ready(Side::Client, both);
    duplex.client_read(moved(9, true));
    assert!(duplex.client_readable());
    duplex.client_read(Outcome::Eof);
    assert!(duplex.client_readable(), "the relay reads the end again");

    assert!(!duplex.take_client_suspect());
    duplex.ready(
        Side::Client,
        Readiness {
            error: true,
            ..Readiness::default()
        },
    );
    assert!(duplex.take_client_suspect());
    assert!(!duplex.take_client_suspect(), "asking clears it");

    duplex.begin(3, false);
    assert!(duplex.is_relaying());
    duplex.abandon();
    assert!(!duplex.is_relaying());
    assert!(
        duplex.client_readable(),
        "what is known of the client stays"
    );
    let mut quiet = Duplex::new(Mode::Copy);
    quiet.client_read(Outcome::WouldBlock);
    quiet.begin(3, false);
    quiet.abandon();
    assert!(!quiet.client_readable());
}

#[test]
fn a_short_write_of_a_buffer_waits_for_room_and_one_of_a_pipe_is_tried_again() {
    let mut copy = begun(Mode::Copy, 10);
    assert_eq!(copy.next_op(), Some(Op::Drain(Dir::Forward)));
    copy.drained(Dir::Forward, moved(4, true));
    assert_eq!(copy.next_op(), None, "the kernel said that it is full");
    copy.ready(
        Side::Backend,
        Readiness {
            writable: true,
            ..Readiness::default()
        },
    );
    assert_eq!(copy.next_op(), Some(Op::Drain(Dir::Forward)));
    copy.drained(Dir::Forward, moved(2, false));
    assert_eq!(
        copy.next_op(),
        Some(Op::Drain(Dir::Forward)),
        "it did not say so"
    );
    copy.drained(Dir::Forward, moved(4, true));
    copy.ready(
        Side::Client,
        Readiness {
            readable: true,
            ..Readiness::default()
        },
    );
    assert_eq!(copy.next_op(), Some(Op::Fill(Dir::Forward, Via::Copy)));
    copy.filled(Dir::Forward, Via::Copy, moved(1, true));
    assert_eq!(
        copy.next_op(),
        Some(Op::Drain(Dir::Forward)),
        "all went, so there is room"
    );

    let mut splice = begun(Mode::Splice, 0);
    splice.ready(
        Side::Client,
        Readiness {
            readable: true,
            ..Readiness::default()
        },
    );
    splice.filled(Dir::Forward, Via::Splice, moved(10, false));
    splice.drained(Dir::Forward, moved(4, true));
    assert_eq!(splice.next_op(), Some(Op::Drain(Dir::Forward)));
    splice.drained(Dir::Forward, Outcome::WouldBlock);
    assert_eq!(
        splice.next_op(),
        None,
        "what else comes waits in the source's own buffer"
    );
    splice.ready(
        Side::Backend,
        Readiness {
            writable: true,
            ..Readiness::default()
        },
    );
    splice.drained(Dir::Forward, moved(6, false));
    assert_eq!(
        splice.next_op(),
        Some(Op::Fill(Dir::Forward, Via::Splice)),
        "an empty pipe is filled"
    );
}

#[test]
fn what_is_in_the_pipe_of_a_broken_sender_still_arrives() {
    let mut world = World::new(Mode::Splice, 0);
    world.socks[0].room = 0;
    world.sends(Side::Backend, 40);
    world.run();
    world.reset(Side::Backend);
    world.run();
    assert_eq!((world.ended, world.duplex.held()), (None, 40));
    world.room(Side::Client, 100);
    world.run();
    world.acknowledge(Side::Client);
    world.run();
    assert_eq!((world.socks[0].got, world.ended), (40, Some(Ends::RESET)));
}

#[test]
fn a_broken_socket_that_blocks_will_never_have_more() {
    let mut duplex = begun(Mode::Copy, 5);
    duplex.drained(Dir::Forward, Outcome::Broken(Fault::Reset));
    assert_eq!(
        duplex.next_op(),
        Some(Op::Fill(Dir::Return, Via::Copy)),
        "what it had sent"
    );
    duplex.filled(Dir::Return, Via::Copy, Outcome::WouldBlock);
    assert_eq!(duplex.next_op(), Some(Op::Unacknowledged(Side::Client)));
}

#[test]
fn a_report_says_each_thing_once_and_where_it_stands_each_time() {
    let mut duplex = begun(Mode::Copy, 5);
    assert_eq!(duplex.take_report(), None);
    duplex.drained(Dir::Forward, moved(5, false));
    let report = Report {
        forward: 5,
        ..Report::default()
    };
    assert_eq!(duplex.take_report(), Some(report));
    assert_eq!(duplex.take_report(), None);
    duplex.took_error(Side::Client, Some(Fault::Reset));
    duplex.filled(Dir::Forward, Via::Copy, Outcome::Eof);
    assert_eq!(duplex.next_op(), Some(Op::Unacknowledged(Side::Backend)));
    duplex.unacknowledged(Side::Backend, 5);
    assert_eq!(duplex.next_op(), None);
    let waits = |broken| {
        let standing = Standing::Unacknowledged;
        Some(Report {
            broken,
            standing,
            ..Report::default()
        })
    };
    assert_eq!(
        duplex.take_report(),
        waits(Some((Side::Client, Fault::Reset)))
    );
    assert_eq!(duplex.take_report(), None, "it has not looked again");
    duplex.look();
    assert_eq!(duplex.next_op(), Some(Op::Unacknowledged(Side::Backend)));
    duplex.unacknowledged(Side::Backend, 0);
    assert!(!duplex.is_finished());
    assert_eq!(duplex.next_op(), None);
    assert!(duplex.is_finished());
    let standing = Standing::Finished(Ends::RESET);
    for _ in 0..2 {
        assert_eq!(
            duplex.take_report(),
            Some(Report {
                standing,
                ..Report::default()
            })
        );
        assert_eq!(duplex.next_op(), None);
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = || prop_oneof![Just(Side::Client), Just(Side::Backend)];
    let step = prop_oneof![
        12 => (side(), 1usize..300).prop_map(|(side, bytes)| Step::Sends(side, bytes)),
        1 => side().prop_map(Step::Urgent),
        2 => side().prop_map(Step::Fin),
        2 => side().prop_map(Step::Reset),
        8 => (side(), 1usize..300).prop_map(|(side, bytes)| Step::Room(side, bytes)),
        4 => side().prop_map(Step::Acknowledge),
        2 => side().prop_map(Step::Spurious),
        2 => any::<bool>().prop_map(Step::Pipes),
        2 => prop_oneof![Just(HandOff::Done), Just(HandOff::Later), Just(HandOff::Never)]
            .prop_map(Step::Offers),
        1 => prop_oneof![Just(Close::Fin), Just(Close::Reset)].prop_map(Step::Wind),
        16 => (1usize..12).prop_map(Step::Pump),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn nothing_is_lost_and_every_end_is_told_as_it_was(
        mode in prop_oneof![Just(Mode::Copy), Just(Mode::Splice), Just(Mode::Auto)],
        preface in 0usize..200,
        rooms in [0usize..400, 0usize..400],
        steps in steps(),
    ) {
        check(mode, preface, rooms, &steps);
    }
}

/// A relay whose backend has taken the preface, and whose client sends nothing more.
fn watched() -> Duplex {
    let mut duplex = Duplex::new(Mode::Copy);
    duplex.client_read(moved(3, true));
    duplex.begin(3, true);
    assert_eq!(duplex.next_op(), Some(Op::Drain(Dir::Forward)));
    duplex.drained(Dir::Forward, moved(3, true));
    duplex.ready(
        Side::Backend,
        Readiness {
            readable: true,
            ..Readiness::default()
        },
    );
    assert_eq!(
        duplex.next_op(),
        Some(Op::Fill(Dir::Return, Via::Copy)),
        "the backend may have answered"
    );
    duplex
}

#[test]
fn an_end_before_the_first_byte_is_reported_and_not_passed_on() {
    for fault in [None, Some(Fault::Reset)] {
        let mut duplex = watched();
        let outcome = fault.map_or(Outcome::Eof, Outcome::Broken);
        duplex.filled(Dir::Return, Via::Copy, outcome);
        let report = duplex.take_report();
        assert!(
            report.is_none_or(|it| it.broken.is_none()),
            "not yet: {report:?}"
        );
        assert_eq!(duplex.next_op(), Some(Op::Waiting));
        duplex.waiting(false);
        assert_eq!(duplex.next_op(), None, "the client hears nothing of it");
        let report = duplex.take_report().expect("news");
        let fault = fault.unwrap_or(Fault::Closed);
        assert_eq!(report.broken, Some((Side::Backend, fault)));
        assert!(!report.proven);
    }
}

#[test]
fn a_byte_of_the_client_that_waits_makes_it_an_end_like_any_other() {
    let mut duplex = watched();
    duplex.filled(Dir::Return, Via::Copy, Outcome::Eof);
    assert_eq!(duplex.next_op(), Some(Op::Waiting));
    duplex.waiting(true);
    assert_eq!(duplex.next_op(), Some(Op::Shutdown(Side::Client)));
    let report = duplex.take_report().expect("news");
    assert!(report.proven && report.broken.is_none());
}

#[test]
fn a_first_byte_of_either_ends_the_watch() {
    for dir in Dir::BOTH {
        let mut duplex = watched();
        duplex.filled(dir, Via::Copy, moved(1, true));
        duplex.drained(dir, moved(1, true));
        let report = duplex.take_report().expect("news");
        assert!(report.proven, "{dir}");
        duplex.filled(Dir::Return, Via::Copy, Outcome::Broken(Fault::Reset));
        let report = duplex.take_report().expect("news");
        assert_eq!(report.broken, Some((Side::Backend, Fault::Reset)));
        assert_ne!(duplex.next_op(), Some(Op::Waiting));
    }
}

#[test]
fn the_clients_end_is_passed_to_the_next_backend_as_well() {
    let mut duplex = watched();
    duplex.filled(Dir::Return, Via::Copy, Outcome::WouldBlock);
    duplex.ready(
        Side::Client,
        Readiness {
            readable: true,
            read_closed: true,
            ..Readiness::default()
        },
    );
    assert_eq!(duplex.next_op(), Some(Op::Fill(Dir::Forward, Via::Copy)));
    duplex.filled(Dir::Forward, Via::Copy, Outcome::Eof);
    assert_eq!(duplex.next_op(), Some(Op::Shutdown(Side::Backend)));
    duplex.shut(Side::Backend, Ok(()));
    duplex.filled(Dir::Return, Via::Copy, Outcome::Eof);
    assert_eq!(duplex.next_op(), Some(Op::Waiting));
    duplex.waiting(false);
    duplex.abandon();
    duplex.begin(3, true);
    duplex.drained(Dir::Forward, moved(3, true));
    assert_eq!(duplex.next_op(), Some(Op::Shutdown(Side::Backend)), "again");
}

/// A client that sends 200 bytes at a time, of which 128 are enough for it to rest.
fn brisk() -> World {
    let mut world = World::new(Mode::Splice, 0);
    world.sends(Side::Client, 200);
    world.pump(100);
    world
}

#[test]
fn a_source_that_brings_much_rests_until_a_visit_finds_little() {
    let mut world = brisk();
    assert!(world.socks[0].muted && !world.socks[1].muted);
    assert!(world.duplex.wants_visit());

    // More comes, and nobody hears of it: it is taken in one piece when its time has come.
    for _ in 0..3 {
        world.sends(Side::Client, 60);
        assert_eq!(world.duplex.next_op(), None);
    }
    let calls = world.calls;
    world.duplex.visit();
    world.pump(100);
    assert_eq!(
        (world.socks[1].got, world.calls - calls),
        (380, 3),
        "fill, drain, and EAGAIN"
    );
    assert!(world.socks[0].muted, "that was much again");

    world.sends(Side::Client, 60);
    let calls = world.calls;
    world.duplex.visit();
    world.pump(100);
    assert_eq!(
        (world.socks[1].got, world.calls - calls),
        (440, 3),
        "fill, drain, and listen"
    );
    assert!(!world.socks[0].muted && !world.duplex.wants_visit());
    world.sends(Side::Client, 1);
    world.pump(100);
    assert_eq!(world.socks[1].got, 441);
}

#[test]
fn a_resting_source_is_not_asked_again_for_a_crumb() {
    let mut world = brisk();
    world.sends(Side::Client, 60);
    world.duplex.visit();
    assert_eq!(
        world.duplex.next_op(),
        Some(Op::Fill(Dir::Forward, Via::Splice))
    );
    world.pump(2);
    assert_eq!(
        world.duplex.next_op(),
        Some(Op::Listen(Side::Client)),
        "without an EAGAIN"
    );
}

#[test]
fn a_source_whose_destination_takes_nothing_rests_without_visits() {
    let mut world = World::new(Mode::Splice, 0);
    world.socks[1].room = 10;
    world.sends(Side::Client, 200);
    world.pump(100);
    assert!(world.socks[0].muted && !world.duplex.wants_visit());
    // It is looked at when there is room: at once for what is known to be there, and by the clock from then on.
    world.sends(Side::Client, 50);
    world.room(Side::Backend, 1000);
    world.pump(100);
    assert_eq!(world.socks[1].got, 250);
    assert!(world.duplex.wants_visit());
    world.run();
    assert!(!world.socks[0].muted);
}

#[test]
fn where_bytes_go_out_by_a_timer_no_source_rests() {
    for room in [0, 1000] {
        let mut world = World::new(Mode::Splice, 0);
        world.duplex = world.duplex.paced(true);
        world.socks[1].room = room;
        world.sends(Side::Client, 200);
        world.pump(100);
        assert!(!world.socks[0].muted, "however much it brings");
    }
}

#[test]
fn the_end_of_a_resting_source_is_seen_at_the_visit() {
    for side in Side::BOTH {
        let mut world = World::new(Mode::Splice, 0);
        world.sends(side, 200);
        world.pump(100);
        world.sends(side, 5);
        world.fin(side);
        assert_eq!(world.duplex.next_op(), None, "nobody has heard of it");
        world.run();
        assert_eq!(world.socks[side.other() as usize].fins, [205]);
    }
}

#[test]
fn a_source_that_cannot_be_heard_again_is_broken() {
    let mut world = brisk();
    world.duplex.visit();
    while let Some(op) = world.duplex.next_op() {
        match op {
            Op::Listen(side) => world.duplex.switched(side, Err(Fault::LocalMemory)),
            Op::Fill(dir, via) => world.duplex.filled(dir, via, Outcome::WouldBlock),
            Op::Unacknowledged(side) => world.duplex.unacknowledged(side, 0),
            op => panic!("{op:?}"),
        }
    }
    let report = world.duplex.take_report().unwrap();
    assert_eq!(report.broken, Some((Side::Client, Fault::LocalMemory)));
}

#[test]
fn what_makes_a_source_rest_is_rounded_up_to_a_power_of_two() {
    for (bytes, power) in [
        (0, 6),
        (64, 6),
        (65, 7),
        (128 * 1024, 17),
        (128 * 1024 + 1, 18),
    ] {
        assert_eq!(Duplex::new(Mode::Auto).heavy(bytes).heavy, power);
    }
    assert_eq!(Duplex::new(Mode::Auto).heavy, 17);
}
