//! Backends that refuse, hang, vanish and come back.

use std::collections::BTreeMap;

use tlb_engine::api::{CloseReason, Event, Fault};
use tlb_engine::ids::Incarnation;
use tlb_engine::time::Duration;
use tlb_sim::check::{closed, owners, served};
use tlb_sim::peers::{End, Op};
use tlb_sim::scenario::{Fault as Blow, Scenario, sweep};
use tlb_sim::world::Run;

use crate::relaying::all_whole;
use crate::worlds::{POINTS, client, ms, own, own_all, world};

/// Every client was served by the second owner of its key.
fn all_at_second(world: &Scenario, run: &Run) -> Result<(), String> {
    for number in 0..world.clients.len() {
        let order = owners(POINTS, &world.members, world.clients[number].flow.key);
        let backend = served(run, number).map(|served| usize::from(served.backend));
        if backend != Some(order[1].backend) {
            return Err(format!(
                "c{number} was served by {backend:?}, not {:?}",
                order[1]
            ));
        }
    }
    Ok(())
}

fn faults(run: &Run, backend: u32) -> Vec<Fault> {
    let faults = run
        .events
        .iter()
        .flatten()
        .filter_map(|seen| match seen.event {
            Event::AttemptFailed {
                backend: Some(Incarnation(failed)),
                fault,
                ..
            } if failed == backend => Some(fault),
            _ => None,
        });
    faults.collect()
}

#[test]
fn refused_backend() {
    sweep(
        "refused_backend",
        |rng| {
            let mut world = world(rng, 8);
            own_all(rng, &mut world, 2);
            world.timetable = vec![(ms(0), Blow::Kill(2))];
            world
        },
        |world, run| {
            all_whole(world, run)?;
            all_at_second(world, run)?;
            let faults = faults(run, 2);
            match faults.len() >= 3 && faults.iter().all(|fault| *fault == Fault::Refused) {
                true => Ok(()),
                false => Err(format!("the owner failed by {faults:?}")),
            }
        },
    );
}

#[test]
fn backend_hangs_while_connecting() {
    sweep(
        "backend_hangs_while_connecting",
        |rng| {
            let mut world = world(rng, 4);
            own_all(rng, &mut world, 0);
            let link = || ("tlb0".to_owned(), "b0".to_owned());
            world.timetable = vec![
                (ms(0), Blow::Hold(link().0, link().1)),
                // The late SYNs of connects that were given up must do no harm.
                (ms(1500), Blow::Release(link().0, link().1)),
            ];
            let mut late = client(rng, 4);
            late.at = ms(6000);
            own(rng, &mut late, &world.members, 0);
            world.clients.push(late);
            world
        },
        |world, run| {
            all_whole(world, run)?;
            if !faults(run, 0).contains(&Fault::TimedOut) {
                return Err("no connect timed out".to_owned());
            }
            match served(run, 4).map(|served| served.backend) {
                Some(0) => Ok(()),
                other => Err(format!("b0 did not come back: c4 went to {other:?}")),
            }
        },
    );
}

#[test]
fn backend_dies_while_connecting() {
    sweep(
        "backend_dies_while_connecting",
        |rng| {
            let mut world = world(rng, 4);
            own_all(rng, &mut world, 1);
            let link = || ("tlb0".to_owned(), "b1".to_owned());
            // The SYNs are on their way when the host dies; it comes back and finds them.
            world.timetable = vec![
                (ms(0), Blow::Hold(link().0, link().1)),
                (ms(200), Blow::Crash(1)),
                (ms(250), Blow::Release(link().0, link().1)),
                (ms(700), Blow::Bounce(1)),
            ];
            world
        },
        all_whole,
    );
}

#[test]
fn connect_timeout_has_a_boundary() {
    const LIMIT: u64 = 300;
    for (held_for, passes) in [(LIMIT - 20, true), (LIMIT + 20, false)] {
        sweep(
            "connect_timeout_has_a_boundary",
            |rng| {
                let mut world = world(rng, 1);
                world.latency = ms(2);
                world.failover.connect_timeout = ms(LIMIT);
                own_all(rng, &mut world, 0);
                world.clients[0].at = ms(100);
                let link = || ("tlb0".to_owned(), "b0".to_owned());
                // The client needs a few milliseconds to get to tlb with its first frame.
                world.clients[0].chunking = tlb_sim::net::Chunking::Whole;
                world.timetable = vec![
                    (ms(0), Blow::Hold(link().0, link().1)),
                    (ms(105 + held_for), Blow::Release(link().0, link().1)),
                ];
                world
            },
            |world, run| {
                all_whole(world, run)?;
                match faults(run, 0).is_empty() == passes {
                    true => Ok(()),
                    false => Err(format!("held for {held_for} ms: {:?}", faults(run, 0))),
                }
            },
        );
    }
}

#[test]
fn passive_health_takes_out_and_brings_back() {
    sweep(
        "passive_health_takes_out_and_brings_back",
        |rng| {
            let mut world = world(rng, 0);
            // Enough clients to take it down while it refuses, some while it is down, some after
            // its back-off.
            for number in 0..20 {
                let mut client = client(rng, number);
                own(rng, &mut client, &world.members, 0);
                client.at = ms(match number {
                    0..5 => 100 + u64::from(number) * 60,
                    5..10 => 600 + u64::from(number),
                    _ => 2500 + u64::from(number) * 50,
                });
                world.clients.push(client);
            }
            world.timetable = vec![(ms(0), Blow::Kill(0)), (ms(1000), Blow::Start(0))];
            world
        },
        |world, run| {
            all_whole(world, run)?;
            let count = |is: fn(&Event) -> bool| {
                run.events[0].iter().filter(|seen| is(&seen.event)).count()
            };
            let downs = count(|event| matches!(event, Event::BackendDown { .. }));
            let ups = count(|event| matches!(event, Event::BackendUp { .. }));
            let failed = faults(run, 0).len();
            // Exactly `fall` clients met the dead backend; nobody asked it while it was down.
            if (downs, ups, failed) != (1, 1, 3) {
                return Err(format!("{downs} downs, {ups} ups, {failed} failures"));
            }
            let last = served(run, 19).map(|served| served.backend);
            match last {
                Some(0) => Ok(()),
                _ => Err(format!("the last client was served by {last:?}")),
            }
        },
    );
}

#[test]
fn all_down_then_one_comes_back() {
    sweep(
        "all_down_then_one_comes_back",
        |rng| {
            let mut world = world(rng, 6);
            let mut late = client(rng, 6);
            late.at = Duration::from_secs(6);
            world.clients.push(late);
            world.timetable = (0..3).map(|backend| (ms(0), Blow::Kill(backend))).collect();
            world
                .timetable
                .push((ms(3000), Blow::Start(rng.below(3) as usize)));
            world
        },
        |_, run| {
            for (number, report) in run.clients.iter().enumerate() {
                let reason = closed(run, report).map(|closed| closed.reason);
                let is_right = match (number, reason) {
                    (6, reason) => reason == Some(CloseReason::Completed),
                    (_, Some(CloseReason::ConnectFailed(Fault::Refused))) => true,
                    (_, reason) => reason == Some(CloseReason::NoBackend),
                };
                if !is_right || (number < 6 && report.received > 0) || report.end == End::Open {
                    return Err(format!("c{number}: {reason:?}, {report:?}"));
                }
            }
            Ok(())
        },
    );
}

#[test]
fn client_leaves_while_its_backend_hangs() {
    sweep(
        "client_leaves_while_its_backend_hangs",
        |rng| {
            let mut world = world(rng, 6);
            own_all(rng, &mut world, 2);
            world.failover.connect_timeout = Duration::from_secs(3);
            world.timetable = vec![(ms(0), Blow::Hold("tlb0".to_owned(), "b2".to_owned()))];
            for client in &mut world.clients {
                // All of the frame first: only then is anybody connected to.
                client.script = vec![
                    Op::Send(client.flow.frame as u64),
                    Op::Pause(ms(200)),
                    Op::Abort,
                ];
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
            match faults(run, 2).is_empty() {
                true => Ok(()),
                false => Err("a client that left counted against its backend".to_owned()),
            }
        },
    );
}

#[test]
fn a_warm_connection_saves_the_handshake() {
    sweep(
        "a_warm_connection_saves_the_handshake",
        |rng| {
            let mut world = world(rng, 2);
            world.failover.warm = 1;
            own_all(rng, &mut world, 0);
            world.clients[0].at = ms(10);
            world.clients[1].at = ms(2500);
            // No handshake gets through when the second one comes.
            let link = || ("tlb0".to_owned(), "b0".to_owned());
            world.timetable = vec![
                (ms(2400), Blow::Hold(link().0, link().1)),
                (ms(3400), Blow::Release(link().0, link().1)),
            ];
            world
        },
        |world, run| {
            all_whole(world, run)?;
            // From the first pick to the first byte that the backend took.
            let mut picked = BTreeMap::new();
            let mut waits = Vec::new();
            for seen in run.events.iter().flatten() {
                match seen.event {
                    Event::Picked { session, .. } => {
                        picked.entry(session).or_insert(seen.at);
                    }
                    Event::Established { session, .. } => {
                        waits.push(seen.at.since(picked[&session]));
                    }
                    _ => {}
                }
            }
            match waits[..] {
                [_, warm] if warm == ms(0) => Ok(()),
                _ => Err(format!("the backend was waited for {waits:?}")),
            }
        },
    );
}
