//! Which backend a key gets, from one tlb or two, before and after a change of membership.

use tlb_sim::check::{owners, served};
use tlb_sim::peers::{Client, Op};
use tlb_sim::scenario::{Fault as Blow, Member, Scenario, sweep};
use tlb_sim::world::Run;

use crate::relaying::all_whole;
use crate::worlds::{POINTS, client, ms, world};

fn is_served_by_owner(run: &Run, client: &Client, members: &[Member]) -> Result<(), String> {
    let owner = owners(POINTS, members, client.flow.key)[0].backend;
    let number = usize::from(client.flow.client);
    match served(run, number).map(|served| usize::from(served.backend)) {
        Some(backend) if backend == owner => Ok(()),
        other => Err(format!("c{number} was served by {other:?}, not b{owner}")),
    }
}

#[test]
fn keys_stay_across_a_membership_change() {
    const CHANGE: u64 = 1000;
    sweep(
        "keys_stay_across_a_membership_change",
        |rng| {
            let mut world = world(rng, 0);
            for number in 0..12 {
                // One client lives through the change, then one with the same key comes after it.
                let mut early = client(rng, 2 * number);
                let mut late = client(rng, 2 * number + 1);
                early.script = vec![Op::Send(500), Op::Pause(ms(1500)), Op::Send(500), Op::Fin];
                late.flow.key = early.flow.key;
                late.at = ms(CHANGE + 50 + rng.below(500));
                world.clients.extend([early, late]);
            }
            let gone = rng.below(3) as usize;
            let left = Member::all((0..3).filter(|backend| *backend != gone));
            world.timetable = vec![(ms(CHANGE), Blow::Publish(left))];
            world
        },
        |world, run| {
            all_whole(world, run)?;
            let [before, after] = &run.rosters[..] else {
                return Err("the roster did not change once".to_owned());
            };
            let mut moved = 0;
            for pair in world.clients.chunks(2) {
                is_served_by_owner(run, &pair[0], before)?;
                is_served_by_owner(run, &pair[1], after)?;
                let key = pair[0].flow.key;
                let old = owners(POINTS, before, key)[0].backend;
                let new = owners(POINTS, after, key)[0].backend;
                if old != new {
                    moved += 1;
                    if after.iter().any(|member| member.backend == old) {
                        return Err(format!("{key:08x} moved from b{old}, which is still there"));
                    }
                }
            }
            match moved < 12 {
                true => Ok(()),
                false => Err("every key moved".to_owned()),
            }
        },
    );
}

#[test]
fn draining_backend_keeps_what_it_has() {
    sweep(
        "draining_backend_keeps_what_it_has",
        |rng| {
            let mut world = world(rng, 16);
            for (index, client) in world.clients.iter_mut().enumerate() {
                client.script = vec![Op::Send(500), Op::Pause(ms(800)), Op::Send(500), Op::Fin];
                client.at = ms(if index % 2 == 0 { 50 } else { 700 });
            }
            let mut members = world.members.clone();
            members[1].draining = true;
            world.timetable = vec![(ms(400), Blow::Publish(members))];
            world
        },
        |world, run| {
            all_whole(world, run)?;
            let early = world.clients.iter().step_by(2);
            for client in early {
                is_served_by_owner(run, client, &run.rosters[0])?;
            }
            let others = Member::all([0, 2]);
            let mut late = world.clients.iter().skip(1).step_by(2);
            late.try_for_each(|client| is_served_by_owner(run, client, &others))
        },
    );
}

#[test]
fn two_hosts_agree_on_owners() {
    sweep(
        "two_hosts_agree_on_owners",
        |rng| {
            let mut world = world(rng, 0);
            world.tlbs = 2;
            world.members[0].weight = 2;
            for number in 0..10 {
                let mut one = client(rng, 2 * number);
                let mut two = client(rng, 2 * number + 1);
                two.flow.key = one.flow.key;
                (one.tlb, two.tlb) = (0, 1);
                world.clients.extend([one, two]);
            }
            world
        },
        |world: &Scenario, run| {
            all_whole(world, run)?;
            let mut clients = world.clients.iter();
            clients.try_for_each(|client| is_served_by_owner(run, client, &world.members))
        },
    );
}
