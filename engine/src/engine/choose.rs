//! Picking a backend: by policy, over those that are eligible now.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{Engine, PoolState};
use crate::api::CloseReason;
use crate::balance::Query;
use crate::ids::{Incarnation, PoolId};
use crate::roster::{Backend, Pool, Ramp};
use crate::session::{Phase, Route};
use crate::time::Timestamp;
use crate::unpack::Reject;

/// Where a session may go now.
pub(super) enum Choice {
    /// There, and now. No backend: an address that the unpack named.
    Go(Option<Arc<Backend>>, SocketAddr),
    /// There, when it is its turn.
    Turn(Incarnation, Timestamp),
    /// Everybody who might was tried: again after a pause.
    Later,
    /// Nowhere.
    End(CloseReason),
}

/// Whether sessions may be given to a slot of a pool now.
fn may_take(pool: &Pool, state: &PoolState, slot: usize, now: Timestamp) -> bool {
    let backend = &pool.backends()[slot];
    let draining = backend.draining && !cfg!(tlb_planted = "drain-ignored");
    let down = backend.down && !cfg!(tlb_planted = "down-backend-picked");
    let well = || !down && state.suspects.eligible(backend.incarnation, now);
    backend.address.is_some() && !draining && (state.standing.panic || well())
}

/// Whether a backend that has come up lately takes a session, on a throw of `dice`: its share grows from nothing to
/// the whole.
fn ramped(ramp: Option<Ramp>, now: Timestamp, dice: u64) -> bool {
    ramp.is_none_or(|ramp| {
        let part = now.since(ramp.from).as_nanos() << 64;
        let share = part / ramp.over.as_nanos().max(1);
        u128::from(dice) < share
    })
}

impl Engine {
    /// Where a session is to go now.
    pub(super) fn choose(&mut self, now: Timestamp, index: usize) -> Choice {
        let session = &self.sessions[index];
        let Some(early) = &session.early else {
            return Choice::End(CloseReason::NoBackend);
        };
        let none = early
            .last_fault
            .map_or(CloseReason::NoBackend, CloseReason::ConnectFailed);
        if let Route::Address(to) = early.route {
            let allowed = session.rules.allow_address;
            return match session.phase {
                _ if !allowed => Choice::End(CloseReason::Rejected(Reject::AddressNotAllowed)),
                Phase::Preread | Phase::Waiting => Choice::Go(None, to),
                // It has just failed, and there is no other to go to.
                _ => Choice::Later,
            };
        }
        let pool = self.roster.pool(session.pool).cloned();
        let Some(pool) = pool.filter(|_| session.pool.index() < self.pools.len()) else {
            return Choice::End(CloseReason::Rejected(Reject::UnknownPool));
        };
        let tried: Vec<u32> = slots(&pool, &early.tried);
        let slot = match &early.route {
            Route::Backend(id) => match pool.by_id(id) {
                None => return Choice::End(CloseReason::Rejected(Reject::UnknownBackend)),
                named => named,
            },
            _ => self.pick(now, index, &pool, &tried),
        };
        let state = &self.pools[self.sessions[index].pool.index()];
        let open = |slot: &usize| may_take(&pool, state, *slot, now);
        let untried = |slot: &usize| !tried.contains(&(*slot as u32));
        let slot = slot.filter(open).filter(untried);
        let backends = pool.backends();
        match slot.and_then(|slot| Some((&backends[slot], backends[slot].address?))) {
            Some((backend, to)) => self.admit(now, index, backend, to),
            None if tried.iter().any(|&slot| open(&(slot as usize))) => Choice::Later,
            None => Choice::End(none),
        }
    }

    /// The slot that the policy gives a session.
    fn pick(&mut self, now: Timestamp, index: usize, pool: &Pool, tried: &[u32]) -> Option<usize> {
        let session = &self.sessions[index];
        let early = session.early.as_ref()?;
        // Whoever has waited for a turn takes it.
        if let Some((backend, _)) = early.turn {
            let backends = pool.backends().iter();
            let slot = backends
                .map(|it| it.incarnation)
                .position(|it| it == backend);
            let state = &self.pools[session.pool.index()];
            let slot = slot.filter(|&slot| may_take(pool, state, slot, now));
            if slot.is_some_and(|slot| !tried.contains(&(slot as u32))) {
                return slot;
            }
        }
        let key = if let Route::Key(hash) = early.route {
            Some(hash)
        } else {
            None
        };
        let query = Query {
            key,
            source: session.peer.ip(),
            tried,
        };
        let place = session.pool.index();
        let mut balancer = core::mem::take(&mut self.pools[place].balancer);
        let state = &self.pools[place];
        let rng = &mut self.rng;
        let mut slot = None;
        if state.standing.ramps {
            let dice = rng.next_u64();
            let open = |slot: usize| {
                ramped(pool.backends()[slot].ramp, now, dice) && may_take(pool, state, slot, now)
            };
            slot = balancer.pick(pool, &query, open, rng);
        }
        let open = |slot: usize| may_take(pool, state, slot, now);
        let slot = slot.or_else(|| balancer.pick(pool, &query, open, rng));
        self.pools[place].balancer = balancer;
        slot
    }

    /// Whether a session goes to its backend now, or when it is its turn.
    fn admit(
        &mut self,
        now: Timestamp,
        index: usize,
        backend: &Arc<Backend>,
        to: SocketAddr,
    ) -> Choice {
        let go = Choice::Go(Some(Arc::clone(backend)), to);
        let Some(early) = &mut self.sessions[index].early else {
            return go;
        };
        let Some(bucket) = &backend.admission else {
            return go;
        };
        let turn = match early.turn.take() {
            Some((of, at)) if of == backend.incarnation => at,
            _ => bucket.reserve(now),
        };
        if turn <= now || cfg!(tlb_planted = "backend-admission-ignored") {
            return go;
        }
        early.turn = Some((backend.incarnation, turn));
        Choice::Turn(backend.incarnation, turn)
    }

    /// Whether another backend than the session's own could take it.
    pub(super) fn has_other(&self, now: Timestamp, index: usize) -> bool {
        let session = &self.sessions[index];
        let own = session.backend.as_ref().map(|backend| backend.incarnation);
        let (Some(pool), Some(state), Some(early)) = (
            self.roster.pool(session.pool),
            self.pools.get(session.pool.index()),
            session.early.as_ref(),
        ) else {
            return false;
        };
        let backends = pool.backends().iter().enumerate();
        backends
            .filter(|(_, it)| Some(it.incarnation) != own && !early.tried.contains(&it.incarnation))
            .any(|(slot, _)| may_take(pool, state, slot, now))
    }

    /// Whether a backend, or its place, is no longer one to connect to: it is gone, or down and that is believed.
    pub(super) fn is_unfit(&self, pool: PoolId, backend: &Backend) -> Option<Unfit> {
        let (Some(pool), Some(state)) = (self.roster.pool(pool), self.pools.get(pool.index()))
        else {
            return Some(Unfit::Gone);
        };
        let Some(known) = pool.current(backend) else {
            return Some(Unfit::Gone);
        };
        (known.down && !state.standing.panic).then_some(Unfit::Down)
    }
}

/// Why a backend is no longer one to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The roster does not have it.
    Gone,
    /// The roster says that it is down.
    Down,
}

/// The slots that `tried` has in this roster.
fn slots(pool: &Pool, tried: &[Incarnation]) -> Vec<u32> {
    if tried.is_empty() {
        return Vec::new();
    }
    let backends = pool.backends().iter().enumerate();
    backends
        .filter(|(_, backend)| tried.contains(&backend.incarnation))
        .map(|(slot, _)| slot as u32)
        .collect()
}
