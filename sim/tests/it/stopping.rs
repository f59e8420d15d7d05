//! How a tlb ends.

use tlb_engine::api::CloseReason;
use tlb_engine::time::Duration;
use tlb_sim::check::closed;
use tlb_sim::peers::{Answer, End, Op};
use tlb_sim::scenario::{Fault as Blow, sweep};

use crate::worlds::{client, ms, world};

#[test]
fn stop_under_load() {
    const STOP: u64 = 600;
    const TIMEOUT: u64 = 1000;
    sweep(
        "stop_under_load",
        |rng| {
            let mut world = world(rng, 0);
            world.limits.shutdown_timeout = ms(TIMEOUT);
            for number in 0..18 {
                let mut client = client(rng, number);
                match number % 3 {
                    // Lives for ever, and talks all the time.
                    0 => {
                        client.script = [Op::Send(300), Op::Pause(ms(20))].repeat(400);
                        client.answer = Answer {
                            bytes: 1,
                            after: Some(23),
                            ends_first: false,
                        };
                    }
                    // Would end by itself before its turn comes, or does not.
                    1 => client.script.insert(1, Op::Pause(ms(rng.below(1500)))),
                    // Comes too late.
                    _ => client.at = ms(STOP + 100 + rng.below(2000)),
                }
                world.clients.push(client);
            }
            world.timetable = vec![(ms(STOP), Blow::Stop(0))];
            world
        },
        |_, run| {
            let mut shut = 0;
            for (number, report) in run.clients.iter().enumerate() {
                let reason = closed(run, report).map(|closed| closed.reason);
                let is_right = match number % 3 {
                    0 => reason == Some(CloseReason::Shutdown) && report.end == End::Reset,
                    1 => matches!(reason, Some(CloseReason::Shutdown | CloseReason::Completed)),
                    _ => report.end == End::Refused,
                };
                if !is_right {
                    return Err(format!("c{number}: {reason:?}, {report:?}"));
                }
                shut += usize::from(reason == Some(CloseReason::Shutdown));
            }
            let last = run.events[0].last().map(|seen| seen.at.as_nanos());
            let most = Duration::from_millis(STOP + TIMEOUT + 1100).as_nanos();
            if last.is_some_and(|at| u128::from(at) > most) {
                return Err(format!("the last session ended after {last:?} ns"));
            }
            match shut >= 6 {
                true => Ok(()),
                false => Err(format!("{shut} sessions were closed by the stop")),
            }
        },
    );
}

#[test]
fn idle_and_half_closed_sessions_end() {
    sweep(
        "idle_and_half_closed_sessions_end",
        |rng| {
            let mut world = world(rng, 6);
            world.listener.idle_timeout = Some(ms(900));
            world.listener.half_close_timeout = ms(400);
            for (index, client) in world.clients.iter_mut().enumerate() {
                let answer = Answer {
                    bytes: 100,
                    after: Some(100),
                    ends_first: index % 2 == 0,
                };
                client.answer = answer;
                // Says no more, and never ends.
                client.script = vec![
                    Op::Send(300),
                    Op::Await(100),
                    Op::Pause(Duration::from_secs(3)),
                ];
            }
            world
        },
        |_, run| {
            for (number, report) in run.clients.iter().enumerate() {
                let reason = closed(run, report).map(|closed| closed.reason);
                let expected = match number % 2 {
                    0 => CloseReason::HalfCloseTimeout,
                    _ => CloseReason::IdleTimeout,
                };
                if reason != Some(expected) {
                    return Err(format!("c{number}: {reason:?}"));
                }
            }
            Ok(())
        },
    );
}
