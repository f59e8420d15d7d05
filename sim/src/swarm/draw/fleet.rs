//! What a fleet does, and what is done to it.

use tlb_engine::api::TellHow;
use tlb_engine::rng::Rng;

use super::{chance, one_of, within};
use crate::swarm::scenario::{FleetRules, Probing, Scenario, Trouble};

/// Draws probes, limits and what follows from an outage.
pub(super) fn draw(scenario: &mut Scenario, rng: &mut Rng) {
    scenario.control_us = one_of(rng, &[0, 200, 2000, 100_000]);
    for group in &mut scenario.pools {
        group.fleet = FleetRules {
            health: chance(rng, 75).then(|| probing(rng)),
            panic: one_of(rng, &[0, 0, 10, 60]),
            max_ejected: one_of(rng, &[100, 100, 50]),
            on_down: one_of(rng, &[None, Some(TellHow::Close), Some(TellHow::Reset)]),
            tell_rate: one_of(rng, &[5, 50, 1000]),
            ramp_ms: one_of(rng, &[None, None, Some(1000)]),
            admission: one_of(rng, &[None, None, Some((20, 2)), Some((200, 1))]),
        };
    }
    for door in &mut scenario.listeners {
        door.admission = one_of(rng, &[None, None, Some((20, 3)), Some((200, 1))]);
        door.per_source = one_of(rng, &[None, None, None, Some(2)]);
    }
}

fn probing(rng: &mut Rng) -> Probing {
    Probing {
        interval_ms: within(rng, 50, 300),
        timeout_ms: within(rng, 50, 200),
        rise: within(rng, 1, 3) as u32,
        fall: within(rng, 1, 3) as u32,
        exchange: chance(rng, 50),
    }
}

/// Draws what is done to the backends of a fleet beyond what happens to all.
pub(super) fn trouble(scenario: &mut Scenario, rng: &mut Rng) {
    let backends = scenario.backends.len() as u64;
    for _ in 0..one_of(rng, &[0, 1, 4]) {
        let backend = rng.below(backends) as usize;
        let at = rng.below(3_000_000);
        let later = at + within(rng, 1, 1_500_000);
        let (begin, end) = match rng.below(4) {
            0 => (Trouble::Maint(backend), Trouble::Ready(backend)),
            1 => (Trouble::Freeze(backend), Trouble::Up(backend)),
            2 => (Trouble::Remove(backend), Trouble::Add(backend)),
            _ => (Trouble::Kill(backend), Trouble::Up(backend)),
        };
        scenario.faults.push((at, begin));
        scenario.faults.push((later, end));
    }
    scenario.faults.sort_by_key(|&(at, _)| at);
}
