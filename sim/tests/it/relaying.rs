//! From the first byte to the backend until the end.

use tlb_engine::api::{CloseReason, Event, Fault};
use tlb_engine::time::Duration;
use tlb_sim::check::{closed, served};
use tlb_sim::net::Chunking;
use tlb_sim::peers::{Answer, End, Manner, Op, Pace};
use tlb_sim::scenario::{Fault as Blow, Scenario, sweep};
use tlb_sim::world::Run;

use crate::worlds::{ms, own_all, world};

/// Every session ended in order, and everything arrived on both sides.
pub(crate) fn all_whole(world: &Scenario, run: &Run) -> Result<(), String> {
    for (number, report) in run.clients.iter().enumerate() {
        let plan = &world.clients[number];
        let closed = closed(run, report).ok_or_else(|| format!("c{number} has no session"))?;
        let served = served(run, number).ok_or_else(|| format!("c{number} was never served"))?;
        let is_whole = closed.reason == CloseReason::Completed
            && (report.end, served.end) == (End::Eof, End::Eof)
            && report.received == plan.answer.bytes
            && served.received == report.sent
            && report.backend == Some(served.backend);
        if !is_whole {
            return Err(format!("c{number}: {report:?}, {served:?}, {closed:?}"));
        }
    }
    Ok(())
}

#[test]
fn half_close_both_ways() {
    sweep(
        "half_close_both_ways",
        |rng| {
            let mut world = world(rng, 10);
            for (index, client) in world.clients.iter_mut().enumerate() {
                let bytes = 5000;
                if index % 2 == 0 {
                    // The client ends first; all of the answer comes after its FIN.
                    client.answer = Answer {
                        bytes,
                        after: None,
                        ends_first: false,
                    };
                } else {
                    // The backend ends first; the client still sends most of its stream after that.
                    client.answer = Answer {
                        bytes,
                        after: Some(30),
                        ends_first: true,
                    };
                    client.script = vec![
                        Op::Send(100),
                        Op::Await(bytes),
                        Op::Pause(ms(20)),
                        Op::Send(4000),
                        Op::Fin,
                    ];
                }
            }
            world
        },
        |world, run| {
            let halves = run.events[0]
                .iter()
                .filter(|seen| matches!(seen.event, Event::HalfClosed { .. }));
            match halves.count() {
                20 => all_whole(world, run),
                count => Err(format!("{count} directions ended")),
            }
        },
    );
}

#[test]
fn both_talk_at_once() {
    sweep(
        "both_talk_at_once",
        |rng| {
            let mut world = world(rng, 8);
            for manner in &mut world.backends {
                manner.talks_first = true;
            }
            for client in &mut world.clients {
                client.script = vec![Op::Send(40_000), Op::Fin];
                client.answer = Answer {
                    bytes: 40_000,
                    after: Some(23),
                    ends_first: false,
                };
            }
            world
        },
        all_whole,
    );
}

#[test]
fn one_byte_at_a_time() {
    sweep(
        "one_byte_at_a_time",
        |rng| {
            let mut world = world(rng, 4);
            world.chunking = Chunking::Bytes;
            world.latency = ms(3);
            for client in &mut world.clients {
                client.chunking = Chunking::Bytes;
                client.script = vec![Op::Send(700), Op::Fin];
                client.answer.bytes = 700;
            }
            world
        },
        all_whole,
    );
}

#[test]
fn slow_reader() {
    sweep(
        "slow_reader",
        |rng| {
            let mut world = world(rng, 6);
            let slow = Pace {
                first: ms(600),
                each: ms(2),
            };
            // More than all windows on the way can hold, so that every writer has to wait.
            for (index, client) in world.clients.iter_mut().enumerate() {
                let (send, bytes) = if index % 2 == 0 {
                    (200, 600_000)
                } else {
                    (600_000, 200)
                };
                client.chunking = Chunking::Whole;
                client.script = vec![Op::Send(send), Op::Fin];
                client.answer = Answer {
                    bytes,
                    after: Some(100),
                    ends_first: false,
                };
                client.pace = slow;
            }
            for manner in &mut world.backends {
                *manner = Manner {
                    pace: Some(slow),
                    chunking: Chunking::Whole,
                    ..Manner::default()
                };
            }
            world.chunking = Chunking::Whole;
            world.window = 16;
            world
        },
        all_whole,
    );
}

#[test]
fn held_link_stalls_and_goes_on() {
    sweep(
        "held_link_stalls_and_goes_on",
        |rng| {
            let mut world = world(rng, 6);
            for client in &mut world.clients {
                client.script = vec![
                    Op::Send(2000),
                    Op::Pause(ms(300)),
                    Op::Send(20_000),
                    Op::Fin,
                ];
                client.answer.bytes = 20_000;
            }
            let link = || ("tlb0".to_owned(), "c0".to_owned());
            let (start, length) = (100 + rng.below(400), 100 + rng.below(1000));
            world.timetable = vec![
                (ms(start), Blow::Hold(link().0, link().1)),
                (ms(start + length), Blow::Release(link().0, link().1)),
            ];
            world
        },
        all_whole,
    );
}

#[test]
fn client_reset_reaches_the_backend() {
    sweep(
        "client_reset_reaches_the_backend",
        |rng| {
            let mut world = world(rng, 8);
            for client in &mut world.clients {
                client.script = vec![
                    Op::Send(3000),
                    Op::Await(1000),
                    Op::Pause(ms(rng.below(50))),
                    Op::Abort,
                ];
                client.answer = Answer {
                    bytes: 2000,
                    after: Some(500),
                    ends_first: false,
                };
            }
            world
        },
        |_, run| {
            for (number, report) in run.clients.iter().enumerate() {
                let reason = closed(run, report).map(|closed| closed.reason);
                let end = served(run, number).map(|served| served.end);
                let expected = Some(CloseReason::ClientBroken(Fault::Reset));
                if reason != expected || end != Some(End::Reset) {
                    return Err(format!("c{number}: {reason:?}, its backend read {end:?}"));
                }
            }
            Ok(())
        },
    );
}

#[test]
fn client_reset_after_its_fin_counts() {
    sweep(
        "client_reset_after_its_fin_counts",
        |rng| {
            let mut world = world(rng, 6);
            for manner in &mut world.backends {
                // Takes long to answer, and reads nothing meanwhile.
                manner.pace = Some(Pace {
                    first: ms(1500),
                    each: ms(0),
                });
            }
            for client in &mut world.clients {
                client.script = vec![Op::Send(3000), Op::Fin, Op::Pause(ms(300)), Op::Abort];
            }
            world
        },
        |_, run| {
            for (number, report) in run.clients.iter().enumerate() {
                let reason = closed(run, report).map(|closed| closed.reason);
                if reason != Some(CloseReason::ClientBroken(Fault::Reset)) {
                    return Err(format!("c{number}: {reason:?}"));
                }
            }
            Ok(())
        },
    );
}

#[test]
fn backend_reset_reaches_the_client() {
    sweep(
        "backend_reset_reaches_the_client",
        |rng| {
            let mut world = world(rng, 6);
            own_all(rng, &mut world, 1);
            // It takes connections and never reads, so that its death resets them.
            world.backends[1].pace = None;
            for client in &mut world.clients {
                client.script = vec![Op::Send(2000)];
            }
            world.timetable = vec![(ms(900), Blow::Kill(1))];
            world
        },
        |_, run| {
            for (number, report) in run.clients.iter().enumerate() {
                let reason = closed(run, report).map(|closed| closed.reason);
                let expected = Some(CloseReason::BackendBroken(Fault::Reset));
                if reason != expected || report.end != End::Reset {
                    return Err(format!("c{number}: {reason:?}, {report:?}"));
                }
            }
            Ok(())
        },
    );
}

#[test]
fn backend_dies_in_mid_stream() {
    sweep(
        "backend_dies_in_mid_stream",
        |rng| {
            let mut world = world(rng, 10);
            for client in &mut world.clients {
                client.script = vec![
                    Op::Send(500),
                    Op::Await(1000),
                    Op::Pause(ms(1000)),
                    Op::Send(500),
                    Op::Fin,
                ];
                client.answer = Answer {
                    bytes: 50_000,
                    after: Some(100),
                    ends_first: false,
                };
                client.pace.each = Duration::from_millis(20);
            }
            let victim = rng.below(3) as usize;
            world.timetable = vec![(ms(200 + rng.below(500)), Blow::Kill(victim))];
            world
        },
        |_, run| {
            // What is demanded is demanded of every world: no cut stream passes for a whole one.
            // Here somebody has to have been cut off, and somebody served.
            let reasons: Vec<_> = run
                .clients
                .iter()
                .filter_map(|report| Some(closed(run, report)?.reason))
                .collect();
            match reasons.contains(&CloseReason::Completed) {
                true => Ok(()),
                false => Err(format!("nobody was served: {reasons:?}")),
            }
        },
    );
}
