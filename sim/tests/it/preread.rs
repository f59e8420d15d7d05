//! From the first byte to the verdict.

use tlb_engine::api::CloseReason;
use tlb_engine::unpack::Reject;
use tlb_sim::check::closed;
use tlb_sim::net::Chunking;
use tlb_sim::peers::{End, Op};
use tlb_sim::scenario::sweep;
use tlb_sim::stream::HEAD;

use crate::relaying::all_whole;
use crate::worlds::{client, ms, world};

#[test]
fn fragmented_first_frame() {
    sweep(
        "fragmented_first_frame",
        |rng| {
            let mut world = world(rng, 12);
            for (index, client) in world.clients.iter_mut().enumerate() {
                // Some byte by byte, with pauses in the header; others in pieces, behind garbage.
                if index % 2 == 0 {
                    client.chunking = Chunking::Bytes;
                    client.flow.frame = HEAD + 2;
                    client.script = vec![
                        Op::Send(1 + rng.below(HEAD as u64 - 1)),
                        Op::Pause(ms(1 + rng.below(100))),
                        Op::Send(60),
                        Op::Fin,
                    ];
                } else {
                    client.garbage = rng.below(300);
                    client.script = vec![
                        Op::Send(client.garbage + 10),
                        Op::Pause(ms(rng.below(50))),
                        Op::Send(1000),
                        Op::Fin,
                    ];
                }
            }
            world.chunking = [Chunking::Bytes, Chunking::Random][rng.below(2) as usize];
            world
        },
        |world, run| {
            for (number, report) in run.clients.iter().enumerate() {
                let skipped = closed(run, report).map(|closed| closed.skipped);
                if skipped != Some(world.clients[number].garbage) {
                    return Err(format!("c{number}: {skipped:?} bytes were skipped"));
                }
            }
            all_whole(world, run)
        },
    );
}

#[test]
fn preread_timeout() {
    const LIMIT: u64 = 400;
    sweep(
        "preread_timeout",
        |rng| {
            let mut world = world(rng, 8);
            world.listener.preread_timeout = ms(LIMIT);
            for (index, client) in world.clients.iter_mut().enumerate() {
                match index % 4 {
                    // Sends nothing at all.
                    0 => client.script = vec![],
                    // Never stops sending, never gets there: the deadline is the frame's, not the
                    // byte's.
                    1 => client.script = [Op::Send(1), Op::Pause(ms(30))].repeat(20),
                    // Garbage without end.
                    2 => {
                        client.garbage = 10_000;
                        client.script = [Op::Send(10), Op::Pause(ms(5))].repeat(100);
                    }
                    // Just in time.
                    _ => {
                        let pause = Op::Pause(ms(LIMIT / 2));
                        client.script = vec![Op::Send(22), pause, Op::Send(500), Op::Fin];
                    }
                }
            }
            world
        },
        |_, run| {
            for (number, report) in run.clients.iter().enumerate() {
                let closed = closed(run, report).ok_or("no end")?;
                let expected = match number % 4 {
                    3 => CloseReason::Completed,
                    _ => CloseReason::PrereadTimeout,
                };
                let is_on_time = number % 4 == 3
                    || (closed.lasted >= ms(LIMIT) && closed.lasted <= ms(LIMIT + 1));
                if closed.reason != expected || !is_on_time {
                    return Err(format!("c{number}: {closed:?}"));
                }
            }
            Ok(())
        },
    );
}

#[test]
fn frames_that_never_route() {
    sweep(
        "frames_that_never_route",
        |rng| {
            let mut world = world(rng, 0);
            world.listener.preread_limit = 256;
            for number in 0..6 {
                let mut client = client(rng, number);
                client.script = match number % 3 {
                    // Ends inside the header.
                    0 => vec![Op::Send(1 + rng.below(HEAD as u64 - 1)), Op::Fin],
                    // Garbage up to the limit.
                    1 => {
                        client.garbage = 300;
                        vec![Op::Send(280)]
                    }
                    // Leaves without a word.
                    _ => vec![Op::Fin],
                };
                world.clients.push(client);
            }
            world
        },
        |_, run| {
            for (number, report) in run.clients.iter().enumerate() {
                let reason = closed(run, report).map(|closed| closed.reason);
                let expected = match number % 3 {
                    0 => CloseReason::Rejected(Reject::Truncated),
                    1 => CloseReason::PrereadLimit,
                    _ => CloseReason::ClientLeft,
                };
                if reason != Some(expected) || report.end == End::Open {
                    return Err(format!("c{number}: {reason:?}, {report:?}"));
                }
            }
            match run.served.len() {
                0 => Ok(()),
                served => Err(format!("{served} connections to backends")),
            }
        },
    );
}
