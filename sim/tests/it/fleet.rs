//! A fleet under turmoil: backends that die, hang or lose their link are found out by probes; their
//! clients are told, served elsewhere, and come home.

use std::num::NonZeroU32;

use tlb_engine::api::{CloseReason, Event, TellHow};
use tlb_engine::fleet::{Admin, OnDown, ProbeConfig};
use tlb_engine::rng::Rng;
use tlb_engine::time::{Duration, Timestamp};
use tlb_sim::check::{owners, served};
use tlb_sim::peers::{Client, Manner, Op};
use tlb_sim::scenario::{Fault as Blow, FleetRules, Scenario, sweep};
use tlb_sim::stream::HEAD;
use tlb_sim::world::Run;

use crate::worlds::{POINTS, ms, own, world};

/// Three clients of each backend that stay, three of backend 1 that come while it is away, and
/// three that come when it is back.
const STAY: usize = 9;
const AWAY: usize = 12;
const BACK: usize = 15;
/// When backend 1 goes, and when it returns.
const GOES: u64 = 1000;
const RETURNS: u64 = 4000;
const PROBE: ProbeConfig = ProbeConfig {
    interval: ms(200),
    fast_interval: ms(200),
    timeout: ms(200),
    rise: 2,
    fall: 2,
};
/// What a word takes to the worker, and a session its turn; and two ways of the slowest segment.
const REST: Duration = ms(5 + 10 + 100);

fn fleet_world(rng: &mut Rng, exchange: bool) -> Scenario {
    let mut world = world(rng, BACK as u16);
    world.fleet = Some(FleetRules {
        probe: PROBE,
        on_down: OnDown {
            how: Some(TellHow::Close),
            rate: NonZeroU32::new(1000).expect("not zero"),
        },
        exchange,
        delay: ms(rng.below(5)),
    });
    world.failover.fall = 1_000_000;
    world.backends = vec![
        Manner {
            talks_first: exchange,
            ..Manner::default()
        };
        3
    ];
    let members = world.members.clone();
    let mut clients = std::mem::take(&mut world.clients);
    for (number, client) in clients.iter_mut().enumerate() {
        let stays = number < STAY;
        own(rng, client, &members, if stays { number % 3 } else { 1 });
        let (at, stay) = match number {
            0..STAY => (10 + rng.below(400), 8000),
            STAY..AWAY => (2500 + rng.below(500), 10),
            _ => (6500 + rng.below(500), 10),
        };
        lasts(client, at, stay);
    }
    world.clients = clients;
    world
}

/// A client that sends its frame, takes the answer, and stays for a while.
fn lasts(client: &mut Client, at: u64, stay: u64) {
    client.at = ms(at);
    client.answer.after = Some(HEAD as u64);
    client.script = vec![
        Op::Send(client.flow.frame as u64),
        Op::Await(client.answer.bytes),
        Op::Pause(ms(stay)),
        Op::Fin,
    ];
}

/// When and why a client's session ended.
fn end(run: &Run, number: usize) -> Option<(Timestamp, CloseReason)> {
    let from = run.clients[number].from?;
    run.events
        .iter()
        .flatten()
        .find_map(|seen| match &seen.event {
            Event::Closed(closed) if closed.peer == from => Some((seen.at, closed.reason)),
            _ => None,
        })
}

/// Those of backend 1 were told in time, by one of `reasons`; the others notice nothing; its keys
/// went to their next owners and came home.
fn told_served_and_home(
    world: &Scenario,
    run: &Run,
    reasons: &[CloseReason],
) -> Result<(), String> {
    let told_by = Timestamp::ZERO
        + ms(GOES)
        + PROBE.interval * PROBE.fall * 11 / 10
        + PROBE.timeout
        + REST
        + world.latency * 4;
    for number in 0..BACK {
        let key = world.clients[number].flow.key;
        let order = owners(POINTS, &world.members, key);
        let by = served(run, number).map(|served| usize::from(served.backend));
        let (at, reason) = end(run, number).ok_or(format!("c{number} has no end"))?;
        let expected = if (STAY..AWAY).contains(&number) { 1 } else { 0 };
        if by != Some(order[expected].backend) {
            let owner = order[expected].backend;
            return Err(format!("c{number} was served by {by:?}, not {owner}"));
        }
        let loses = number < STAY && order[0].backend == 1;
        if loses && (at > told_by || !reasons.contains(&reason)) {
            return Err(format!(
                "c{number} was told at {at} by {reason}, not by {told_by}"
            ));
        }
        if !loses && reason != CloseReason::Completed {
            return Err(format!("c{number} noticed: {reason}"));
        }
    }
    Ok(())
}

/// A process that ends ends its streams: in order, as far as its clients can see, who stay until they are told.
const BROKEN: [CloseReason; 3] = [
    CloseReason::BackendDown,
    CloseReason::BackendBroken(tlb_engine::api::Fault::Reset),
    CloseReason::Completed,
];

#[test]
fn fleet_backend_dies_and_comes_back() {
    sweep(
        "fleet_backend_dies_and_comes_back",
        |rng| {
            let mut world = fleet_world(rng, false);
            world.timetable = vec![(ms(GOES), Blow::Kill(1)), (ms(RETURNS), Blow::Start(1))];
            world
        },
        |world, run| told_served_and_home(world, run, &BROKEN),
    );
}

#[test]
fn fleet_host_crashes_and_comes_back() {
    sweep(
        "fleet_host_crashes_and_comes_back",
        |rng| {
            let mut world = fleet_world(rng, false);
            world.timetable = vec![(ms(GOES), Blow::Crash(1)), (ms(RETURNS), Blow::Bounce(1))];
            world
        },
        |world, run| told_served_and_home(world, run, &BROKEN),
    );
}

#[test]
fn fleet_link_is_cut_and_mended() {
    for exchange in [false, true] {
        sweep(
            "fleet_link_is_cut_and_mended",
            |rng| {
                let mut world = fleet_world(rng, exchange);
                let link = || ("tlb0".to_owned(), "b1".to_owned());
                world.timetable = vec![
                    (ms(GOES), Blow::Hold(link().0, link().1)),
                    (ms(RETURNS), Blow::Release(link().0, link().1)),
                ];
                world
            },
            |world, run| told_served_and_home(world, run, &[CloseReason::BackendDown]),
        );
    }
}

#[test]
fn fleet_operator_takes_a_backend_into_maintenance() {
    sweep(
        "fleet_operator_takes_a_backend_into_maintenance",
        |rng| {
            let mut world = fleet_world(rng, false);
            world.timetable = vec![
                (ms(GOES), Blow::Operate(1, Admin::Maint)),
                (ms(RETURNS), Blow::Operate(1, Admin::Ready)),
            ];
            world
        },
        |world, run| told_served_and_home(world, run, &[CloseReason::BackendMaint]),
    );
}

#[test]
fn fleet_of_two_nodes_decides_alike() {
    sweep(
        "fleet_of_two_nodes_decides_alike",
        |rng| {
            let mut world = fleet_world(rng, false);
            world.tlbs = 2;
            for (number, client) in world.clients.iter_mut().enumerate() {
                client.tlb = number / 3 % 2;
            }
            let cut = |tlb: u8| (format!("tlb{tlb}"), "b1".to_owned());
            world.timetable = vec![
                (ms(GOES), Blow::Hold(cut(0).0, cut(0).1)),
                (ms(GOES), Blow::Hold(cut(1).0, cut(1).1)),
                (ms(RETURNS), Blow::Release(cut(0).0, cut(0).1)),
                (ms(RETURNS), Blow::Release(cut(1).0, cut(1).1)),
            ];
            world
        },
        |world, run| told_served_and_home(world, run, &[CloseReason::BackendDown]),
    );
}
