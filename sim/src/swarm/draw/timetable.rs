//! What happens to a world.

use tlb_engine::rng::Rng;

use super::{chance, one_of, within};
use crate::swarm::scenario::{Scenario, Trouble};

/// Draws what happens to a world, and when.
pub(super) fn draw(scenario: &mut Scenario, rng: &mut Rng) {
    // Each class has a weight; most scenarios have only a few of them.
    const CLASSES: usize = 21;
    let mut weights = [0; CLASSES];
    for weight in &mut weights {
        if chance(rng, 40) {
            *weight = one_of(rng, &[1, 1, 3, 20]);
        }
    }
    let total: u64 = weights.iter().sum();
    let count = one_of(rng, &[0, 2, 8, 25]);
    if total == 0 {
        return;
    }
    for _ in 0..count {
        let at = rng.below(3_500_000);
        let mut place = rng.below(total);
        let class = weights.iter().position(|&weight| {
            let here = place < weight;
            place = place.saturating_sub(weight);
            here
        });
        push_trouble(scenario, rng, at, class.unwrap_or(0));
    }
    if chance(rng, 6) {
        scenario
            .faults
            .push((within(rng, 100_000, 3_000_000), Trouble::Stop));
    }
    scenario.faults.sort_by_key(|&(at, _)| at);
}

fn push_trouble(scenario: &mut Scenario, rng: &mut Rng, at: u64, class: usize) {
    let backend = rng.below(scenario.backends.len() as u64) as usize;
    let link = rng.below(scenario.backends.len() as u64 + 4) as usize;
    let worker = rng.below(scenario.workers as u64) as usize;
    let later = at + 1 + rng.below(1_500_000);
    let mut push = |at, what| scenario.faults.push((at, what));
    match class {
        0 => {
            push(at, Trouble::Kill(backend));
            push(later, Trouble::Up(backend));
        }
        1 => {
            push(at, Trouble::Hang(backend));
            push(later, Trouble::Up(backend));
        }
        2 => {
            push(at, Trouble::Unreachable(backend));
            push(later, Trouble::Up(backend));
        }
        3 => {
            push(at, Trouble::Vanish(backend));
            push(later, Trouble::Up(backend));
        }
        4 => {
            push(at, Trouble::Freeze(backend));
            push(later, Trouble::Up(backend));
        }
        5 | 6 => {
            push(at, Trouble::Hold(link));
            push(later, Trouble::Release(link));
        }
        7 => push(at, Trouble::Latency(link, rng.below(50_000))),
        8 => {
            push(at, Trouble::Descriptors(worker, rng.below(12) as usize));
            push(later, Trouble::Plenty(worker));
        }
        9 => {
            push(at, Trouble::Ports(worker));
            push(later, Trouble::Plenty(worker));
        }
        10 => {
            push(at, Trouble::Memory(worker));
            push(later, Trouble::Plenty(worker));
        }
        11 => push(at, Trouble::Gone(worker, 1 + rng.below(3) as u32)),
        12 => push(at, Trouble::Unregistered(worker, 1)),
        13 | 14 => push(at, Trouble::Spurious(worker)),
        15 => push(at, Trouble::Late(worker)),
        16 => push(at, Trouble::Remove(backend)),
        17 => push(at, Trouble::Add(backend)),
        18 => push(at, Trouble::Drain(backend)),
        19 => push(at, Trouble::Readdress(backend)),
        _ => push(at, Trouble::Kill(backend)),
    }
}
