//! Everything at once, drawn from the seed: first faults of every kind, then a world that is healed
//! and must work.

use tlb_engine::api::CloseReason;
use tlb_engine::balance::Policy;
use tlb_engine::rng::Rng;
use tlb_engine::time::Duration;
use tlb_sim::check::closed;
use tlb_sim::net::Chunking;
use tlb_sim::peers::{Answer, Client, Manner, Op, Pace};
use tlb_sim::scenario::{Fault as Blow, Member, Scenario, sweep};

use crate::worlds::{POINTS, client, ms, world};

/// Clients that come while there are faults.
const EARLY: u16 = 40;
/// Clients that come when all is healed.
const LATE: u16 = 4;
/// When all is healed.
const HEALED: u64 = 3000;

fn pick<T: Clone>(rng: &mut Rng, among: &[T]) -> T {
    among[rng.below(among.len() as u64) as usize].clone()
}

fn script(rng: &mut Rng, client: &mut Client) {
    let bytes = pick(rng, &[100, 1000, 30_000]);
    client.answer = Answer {
        bytes: pick(rng, &[1, 1000, 30_000]),
        after: pick(rng, &[None, Some(23), Some(100)]),
        ends_first: rng.below(3) == 0,
    };
    let pause = Op::Pause(ms(rng.below(700)));
    client.script = match rng.below(8) {
        0 => vec![Op::Send(bytes), pause, Op::Abort],
        1 => vec![Op::Send(bytes), Op::Await(client.answer.bytes), pause],
        2 => vec![Op::Send(30), pause, Op::Send(bytes), pause, Op::Fin],
        3 => vec![Op::Send(rng.below(23)), pause, Op::Send(bytes), Op::Fin],
        4 => vec![pause],
        _ => vec![Op::Send(bytes), Op::Fin],
    };
    client.garbage = pick(rng, &[0, 0, 0, 17]);
    client.chunking = pick(rng, &[Chunking::Whole, Chunking::Random]);
    client.pace.each = ms(pick(rng, &[0, 0, 0, 1, 30]));
    client.patience = Duration::from_secs(5);
}

/// Faults until [`HEALED`], and then their undoing.
fn timetable(rng: &mut Rng, world: &Scenario) -> Vec<(Duration, Blow)> {
    let backends = world.backends.len();
    let mut table = vec![];
    for _ in 0..rng.below(12) {
        let backend = rng.below(backends as u64) as usize;
        let from = rng.below(HEALED - 100);
        let to = from + 1 + rng.below(HEALED - from);
        let hosts = || {
            let other = if backend == 0 {
                "c0".to_owned()
            } else {
                format!("b{backend}")
            };
            ("tlb0".to_owned(), other)
        };
        let (blow, cure) = match rng.below(4) {
            0 => (Blow::Kill(backend), Blow::Start(backend)),
            1 => (Blow::Crash(backend), Blow::Bounce(backend)),
            2 => (
                Blow::Hold(hosts().0, hosts().1),
                Blow::Release(hosts().0, hosts().1),
            ),
            _ => {
                let members = (0..backends).filter(|_| rng.below(3) > 0);
                let mut members = Member::all(members.collect::<Vec<_>>());
                for member in &mut members {
                    member.weight = 1 + rng.below(3) as u32;
                    member.draining = rng.below(4) == 0;
                }
                (Blow::Publish(members), Blow::Publish(world.members.clone()))
            }
        };
        table.extend([(ms(from), blow), (ms(to), cure)]);
    }
    if world.tlbs > 1 {
        table.push((ms(rng.below(HEALED)), Blow::Stop(1)));
    }
    for backend in 0..backends {
        table.push((ms(HEALED), Blow::Start(backend)));
        table.push((ms(HEALED), Blow::Bounce(backend)));
        table.push((
            ms(HEALED),
            Blow::Release("tlb0".to_owned(), format!("b{backend}")),
        ));
    }
    table.push((
        ms(HEALED),
        Blow::Release("tlb0".to_owned(), "c0".to_owned()),
    ));
    table.push((ms(HEALED), Blow::Publish(world.members.clone())));
    table.sort_by_key(|(at, _)| *at);
    table
}

fn draw(rng: &mut Rng) -> Scenario {
    let mut world = world(rng, 0);
    world.tlbs = 1 + rng.below(2) as usize;
    world.policy = pick(
        rng,
        &[
            Policy::HashRing { points: POINTS },
            Policy::HashRing { points: POINTS },
            Policy::Maglev,
            Policy::RoundRobin,
            Policy::LeastSessions,
            Policy::PowerOfTwo,
            Policy::Source { points: POINTS },
        ],
    );
    world.failover.retries = rng.below(4) as u8;
    world.failover.fall = 1 + rng.below(3) as u32;
    world.failover.connect_timeout = ms(20 + rng.below(300));
    world.listener.idle_timeout = Some(ms(1500));
    world.listener.half_close_timeout = ms(100 + rng.below(1000));
    world.listener.preread_timeout = ms(200 + rng.below(1000));
    world.listener.max_sessions = pick(rng, &[3, 8, 1000]);
    world.limits.reset_timeout = ms(500);
    world.chunking = pick(rng, &[Chunking::Whole, Chunking::Random, Chunking::Bytes]);
    // A segment is taken per read: one byte each and a pause after it would take minutes.
    let each = if world.chunking == Chunking::Bytes {
        0
    } else {
        5
    };
    let slow = Pace {
        first: ms(100),
        each: ms(each),
    };
    for manner in &mut world.backends {
        *manner = Manner {
            pace: pick(rng, &[None, Some(Pace::default()), Some(slow)]),
            talks_first: rng.below(2) == 0,
            chunking: pick(rng, &[Chunking::Whole, Chunking::Random]),
        };
    }
    // Somebody has to serve those that come when all is healed.
    world.backends[0].pace = Some(Pace::default());
    for number in 0..EARLY {
        let mut client = client(rng, number);
        script(rng, &mut client);
        client.tlb = rng.below(world.tlbs as u64) as usize;
        client.at = ms(10 + rng.below(HEALED));
        world.clients.push(client);
    }
    for number in EARLY..EARLY + LATE {
        let mut client = client(rng, number);
        // Beyond every back-off that could have begun before. The first one may be the trial of a
        // backend that is down, and until it has succeeded there is no backend for anybody else.
        let after_trial = if number == EARLY { 0 } else { 500 };
        client.at = ms(12_000 + after_trial + rng.below(100));
        world.clients.push(client);
    }
    world.timetable = timetable(rng, &world);
    // By then, only the backend that serves is left.
    world
        .timetable
        .push((ms(11_900), Blow::Publish(Member::all([0]))));
    world.limit = Duration::from_secs(30);
    world.settle = Duration::from_secs(3);
    world
}

#[test]
fn anything_goes_and_ends_well() {
    sweep("anything_goes_and_ends_well", draw, |_, run| {
        for number in usize::from(EARLY)..usize::from(EARLY + LATE) {
            let closed = closed(run, &run.clients[number]);
            if closed.map(|closed| closed.reason) != Some(CloseReason::Completed) {
                return Err(format!("c{number} in a healed world: {closed:?}"));
            }
        }
        Ok(())
    });
}
