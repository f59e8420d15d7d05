//! Picks that look at load: bounded load over a walk of owners, least sessions, power of two
//! choices.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::cmp::Ordering;

use crate::rng::Rng;
use crate::roster::{Backend, Pool};

/// How many owners a walk may bring that are not open before it is asked whether any slot is. In a
/// pool where half is open that happens to no key; in one where nothing is, it spares a turn of the
/// whole ring.
const PATIENCE: usize = 64;

/// How often a draw is repeated because it hit a slot that is not open, before the open ones are
/// counted.
const DRAWS: usize = 16;

/// The first open slot of a key's `walk`, and within the pool's bounded load if it has one.
pub(super) fn owner(
    pool: &Pool,
    walk: impl Iterator<Item = usize> + Clone,
    open: impl Fn(usize) -> bool,
) -> Option<usize> {
    let backends = pool.backends();
    if let Some(percent) = pool.bounded_load {
        let bound = Bound::of(percent, backends, &open);
        let room = |slot: usize| open(slot) && bound.has_room(&backends[slot]);
        if let Some(slot) = first(walk.clone(), backends.len(), room) {
            return Some(slot);
        }
    }
    first(walk, backends.len(), open)
}

/// The first open slot of `walk`; if the walk does not come to it, any.
fn first(
    mut walk: impl Iterator<Item = usize>,
    slots: usize,
    open: impl Fn(usize) -> bool,
) -> Option<usize> {
    if let Some(slot) = walk.by_ref().take(PATIENCE).find(|slot| open(*slot)) {
        return Some(slot);
    }
    let any = (0..slots).find(|slot| open(*slot))?;
    walk.find(|slot| open(*slot)).or(Some(any))
}

/// What a backend's load may be: see [`crate::balance`].
struct Bound {
    /// `percent * (sessions + 1)`.
    share: u128,
    /// `100 * weights`.
    whole: u128,
}

impl Bound {
    fn of(percent: u32, backends: &[Arc<Backend>], open: impl Fn(usize) -> bool) -> Self {
        let (mut sessions, mut weights) = (0_u128, 0_u128);
        for (slot, backend) in backends.iter().enumerate() {
            if open(slot) {
                sessions += u128::from(backend.load.get());
                weights += u128::from(backend.weight);
            }
        }
        Self {
            share: u128::from(percent) * (sessions + 1),
            whole: 100 * weights,
        }
    }

    /// Whether its load is below `ceil(share * weight / whole)`: for an integer, the same as being
    /// below the quotient itself.
    fn has_room(&self, backend: &Backend) -> bool {
        u128::from(backend.load.get()) * self.whole < self.share * u128::from(backend.weight)
    }
}

/// How two backends compare by sessions for their weight, without dividing. Each comes with its
/// load, read once: it may change at any time.
fn by_load(one: (u32, &Backend), other: (u32, &Backend)) -> Ordering {
    let crossed = |load: u32, weight: u32| u64::from(load) * u64::from(weight);
    crossed(one.0, other.1.weight).cmp(&crossed(other.0, one.1.weight))
}

/// The open slot with the least load for its weight. Among equals each is as likely as its weight.
pub(super) fn least_sessions(
    backends: &[Arc<Backend>],
    open: impl Fn(usize) -> bool,
    rng: &mut Rng,
) -> Option<usize> {
    let mut best: Option<(usize, (u32, &Backend))> = None;
    let mut weights = 0;
    for (slot, backend) in backends.iter().enumerate() {
        if !open(slot) {
            continue;
        }
        let this = (backend.load.get(), &**backend);
        let weight = u64::from(backend.weight);
        match best.map_or(Ordering::Less, |(_, least)| by_load(this, least)) {
            Ordering::Greater => continue,
            // Of equals, the last one seen is kept with its part of the weights seen so far.
            Ordering::Equal => weights += weight,
            Ordering::Less => weights = weight,
        }
        if rng.below(weights) < weight {
            best = Some((slot, this));
        }
    }
    best.map(|(slot, _)| slot)
}

/// Weights summed up slot by slot, to draw slots by weight.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Each slot's weight and those of all before it.
    sums: Box<[u64]>,
}

impl Weights {
    /// The weights of `backends`.
    pub fn build(backends: &[Arc<Backend>]) -> Self {
        let sums = backends.iter().scan(0, |sum, backend| {
            *sum += u64::from(backend.weight);
            Some(*sum)
        });
        Self {
            sums: sums.collect(),
        }
    }

    /// The less loaded of two different open slots, drawn by weight.
    pub(super) fn power_of_two(
        &self,
        backends: &[Arc<Backend>],
        open: impl Fn(usize) -> bool,
        rng: &mut Rng,
    ) -> Option<usize> {
        let one = self.draw(backends, &open, rng)?;
        let Some(two) = self.draw(backends, |slot| slot != one && open(slot), rng) else {
            return Some(one);
        };
        let of = |slot: usize| (backends[slot].load.get(), &*backends[slot]);
        let fewer = by_load(of(two), of(one)).is_lt();
        Some(if fewer { two } else { one })
    }

    /// An open slot, each as likely as its weight.
    fn draw(
        &self,
        backends: &[Arc<Backend>],
        open: impl Fn(usize) -> bool,
        rng: &mut Rng,
    ) -> Option<usize> {
        let total = *self.sums.last()?;
        for _ in 0..DRAWS {
            let place = rng.below(total);
            let slot = self.sums.partition_point(|sum| *sum <= place);
            if open(slot) {
                return Some(slot);
            }
        }
        // Most of the weight is not open: count what is, and draw once from that.
        let weights = |slot: &usize| u64::from(backends[*slot].weight);
        let opened = || (0..backends.len()).filter(|slot| open(*slot));
        let mut place = rng.below(opened().map(|slot| weights(&slot)).sum());
        opened().find(|slot| {
            let here = weights(slot);
            let found = place < here;
            place = place.saturating_sub(here);
            found
        })
    }
}
