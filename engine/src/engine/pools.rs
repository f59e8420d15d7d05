//! What an engine knows about pools beyond the roster, and how it takes another roster over: at a cost that does not
//! depend on how many backends there are.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use super::Engine;
use crate::balance::Balancer;
use crate::config::Failover;
use crate::failover::Budget;
use crate::health::{Change, Passive};
use crate::ids::{Incarnation, PoolId};
use crate::roster::{Backend, Pool, Roster};
use crate::time::Timestamp;

/// What an engine knows about one pool.
#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) balancer: Balancer,
    pub(super) budget: Budget,
    pub(super) suspects: Suspects,
    /// Sessions that began, to take local addresses in turn.
    pub(super) turn: usize,
    pub(super) standing: Standing,
}

impl PoolState {
    fn new(now: Timestamp) -> Self {
        Self {
            balancer: Balancer::default(),
            budget: Budget::new(now),
            suspects: Suspects::default(),
            turn: 0,
            standing: Standing::default(),
        }
    }
}

/// Backends of a pool that an attempt has failed at since the last one succeeded. Nothing is held against the others,
/// which are most.
#[derive(Debug, Default)]
pub(super) struct Suspects(BTreeMap<Incarnation, Suspect>);

#[derive(Debug)]
struct Suspect {
    /// As it was when it came under suspicion.
    backend: Arc<Backend>,
    passive: Passive,
}

impl Suspects {
    /// Whether passive health lets a session be given to that backend now.
    pub(super) fn eligible(&self, backend: Incarnation, now: Timestamp) -> bool {
        let suspect = self.0.get(&backend);
        suspect.is_none_or(|it| it.passive.eligible(now))
    }

    /// Whether passive health has taken that backend out.
    pub(super) fn is_down(&self, backend: Incarnation) -> bool {
        let suspect = self.0.get(&backend);
        suspect.is_some_and(|it| it.passive.is_down())
    }

    /// What is held against that backend, if anything is.
    pub(super) fn get(&mut self, backend: Incarnation) -> Option<&mut Passive> {
        self.0.get_mut(&backend).map(|it| &mut it.passive)
    }

    /// That backend's passive health, to hold something against it.
    pub(super) fn suspect(&mut self, backend: &Arc<Backend>) -> &mut Passive {
        let suspect = self
            .0
            .entry(backend.incarnation)
            .or_insert_with(|| Suspect {
                backend: Arc::clone(backend),
                passive: Passive::new(),
            });
        &mut suspect.passive
    }

    /// An attempt at that backend succeeded: whatever was held against it is forgotten.
    pub(super) fn clear(&mut self, backend: Incarnation) -> Option<Change> {
        self.0.remove(&backend)?.passive.succeeded()
    }

    /// Those of `pool` that are down, as the pool has them.
    fn down<'a>(&'a self, pool: &'a Pool) -> impl Iterator<Item = &'a Arc<Backend>> {
        let down = self.0.values().filter(|it| it.passive.is_down());
        down.filter_map(|it| pool.current(&it.backend))
    }

    /// Forgets those that `pool` no longer has.
    fn forget_gone(&mut self, pool: &Pool) {
        self.0.retain(|_, it| pool.current(&it.backend).is_some());
    }

    /// Whether `pool` has all of them.
    pub(super) fn are_of(&self, pool: &Pool) -> bool {
        let mut all = self.0.values();
        all.all(|it| pool.current(&it.backend).is_some())
    }
}

/// What follows from a pool's roster and its passive health together. Made anew when one of them changes, so that a
/// pick does not have to look at every backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Too few backends are well, so that health is not believed.
    pub(super) panic: bool,
    /// Some backend has come up lately.
    pub(super) ramps: bool,
    /// Backends that would be used if all were well.
    eligible: usize,
    /// Of these, those that passive health has ejected.
    ejected: usize,
}

impl Standing {
    fn of(pool: &Pool, suspects: &Suspects) -> Self {
        let census = pool.census();
        let (mut ejected, mut well) = (0, census.up);
        for backend in suspects.down(pool).filter(|it| it.is_eligible()) {
            ejected += 1;
            well -= usize::from(!backend.down);
        }
        let too_few = 100 * well < pool.failover.panic as usize * census.eligible;
        Self {
            panic: too_few && !cfg!(tlb_planted = "panic-ignored"),
            ramps: census.ramps,
            eligible: census.eligible,
            ejected,
        }
    }

    /// Whether one more backend may be ejected; one always may.
    pub(super) fn may_eject(&self, rules: &Failover) -> bool {
        self.ejected == 0
            || 100 * (self.ejected + 1) <= rules.max_ejected as usize * self.eligible
            || cfg!(tlb_planted = "ejection-cap-ignored")
    }
}

impl Engine {
    /// Takes a roster over; what was learnt about pools and backends that stay is kept.
    pub(super) fn adopt_roster(&mut self, now: Timestamp, roster: Arc<Roster>) {
        let before = core::mem::replace(&mut self.roster, roster);
        self.move_pools(now, &before);
        for index in 0..self.pools.len() {
            let pool = &self.roster.pools[index];
            let old = before.pools.get(index);
            if old.is_some_and(|old| Arc::ptr_eq(old, pool)) {
                continue;
            }
            self.pools[index].suspects.forget_gone(pool);
            self.judge_pool(PoolId(index as u32));
        }
        self.tallies.outdated();
    }

    /// Gives each pool of the roster the state that it had in the one before.
    fn move_pools(&mut self, now: Timestamp, before: &Roster) {
        let (old, new) = (&before.pools, &self.roster.pools);
        let same =
            |(old, new): (&Arc<Pool>, &Arc<Pool>)| Arc::ptr_eq(old, new) || old.name == new.name;
        if self.pools.len() == new.len() && old.iter().zip(new).all(same) {
            return;
        }
        let names = old.iter().map(|pool| &*pool.name);
        let mut known: BTreeMap<_, _> = names.zip(core::mem::take(&mut self.pools)).collect();
        let states = new.iter().map(|pool| known.remove(&*pool.name));
        self.pools = states
            .map(|state| state.unwrap_or_else(|| PoolState::new(now)))
            .collect();
    }

    /// Makes anew what follows from a pool's roster and health.
    pub(super) fn judge_pool(&mut self, id: PoolId) {
        if let (Some(pool), Some(state)) = (self.roster.pool(id), self.pools.get_mut(id.index())) {
            state.standing = Standing::of(pool, &state.suspects);
        }
    }
}
