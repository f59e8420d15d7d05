//! What is counted, and what one can see.

use alloc::collections::{BTreeMap, BTreeSet};
use slab::Slab;

use super::Engine;
use super::choose::Unfit;
use super::listeners::ListenerState;
use crate::api::{Closed, Fault, Report};
use crate::ids::{Incarnation, PoolId};
use crate::roster::{Backend, Roster};
use crate::session::{Session, SessionView};
use crate::stats::{BackendStats, LastedStats, Stats};

/// Counters of backends, found by their place.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    slots: Slab<(Incarnation, BackendStats)>,
    places: BTreeMap<Incarnation, u32>,
    /// The roster is another one than when backends were last forgotten.
    outdated: bool,
    /// At so many places, backends that are gone are forgotten even if nobody asks.
    bound: usize,
}

impl Tallies {
    /// Fewer places than this are not worth a search for those of backends that are gone.
    const FEW: usize = 64;

    /// The place of a backend, which `roster` has.
    fn place(&mut self, backend: Incarnation, roster: &Roster) -> u32 {
        if self.outdated && self.slots.len() >= self.bound.max(Self::FEW) {
            self.forget(roster);
        }
        let slots = &mut self.slots;
        *self
            .places
            .entry(backend)
            .or_insert_with(|| slots.insert((backend, BackendStats::default())) as u32)
    }

    pub(super) fn at(&mut self, place: u32) -> &mut BackendStats {
        &mut self.slots[place as usize].1
    }

    pub(super) fn of(&mut self, backend: Incarnation, roster: &Roster) -> &mut BackendStats {
        let place = self.place(backend, roster);
        self.at(place)
    }

    /// There is another roster. Whom it no longer has is forgotten later: a worker that takes over a roster does not
    /// look at each backend.
    pub(super) fn outdated(&mut self) {
        self.outdated = true;
    }

    /// A session's relay moved bytes.
    pub(super) fn moved(&mut self, session: &Session, report: &Report) {
        if let Some(place) = session.tally {
            let stats = self.at(place);
            stats.forward += report.forward;
            stats.back += report.back;
        }
    }

    /// Forgets backends that nobody can ask about any more: not in the roster, and without a session.
    fn forget(&mut self, roster: &Roster) {
        let backends = roster.pools.iter().flat_map(|pool| pool.backends());
        let known: BTreeSet<_> = backends.map(|it| it.incarnation).collect();
        let slots = &mut self.slots;
        self.places.retain(|backend, &mut place| {
            let stays = known.contains(backend) || slots[place as usize].1.live > 0;
            if !stays {
                slots.remove(place as usize);
            }
            stays
        });
        self.outdated = false;
        self.bound = 2 * self.places.len();
    }

    /// Forgets one backend.
    fn remove(&mut self, place: u32) {
        let (backend, _) = self.slots.remove(place as usize);
        self.places.remove(&backend);
    }
}

impl ListenerState {
    /// A session's relay moved bytes.
    pub(super) fn moved(&mut self, report: &Report) {
        self.stats.forward += report.forward;
        self.stats.back += report.back;
        self.stats.handed_off += u64::from(report.handed_off);
    }

    /// A session ended.
    pub(super) fn closed(&mut self, closed: &Closed) {
        *self.stats.closed.entry(closed.reason.name()).or_default() += 1;
        self.stats.skipped += closed.skipped;
        self.stats.lasted.add(closed.lasted);
    }
}

impl LastedStats {
    fn add(&mut self, lasted: core::time::Duration) {
        let within = |bound: &u64| lasted.as_nanos() <= u128::from(*bound) * 1_000_000;
        let place = Self::BOUNDS.iter().position(within);
        self.counts[place.unwrap_or(Self::BOUNDS.len())] += 1;
        self.nanos += lasted.as_nanos();
    }
}

impl Engine {
    /// A session was given to a backend.
    pub(super) fn join(&mut self, index: usize, backend: Incarnation) {
        let place = self.tallies.place(backend, &self.roster);
        let session = &mut self.sessions[index];
        session.tally = Some(place);
        let again = session.attempts > 1;
        let stats = self.tallies.at(place);
        stats.attempts += 1;
        stats.live += 1;
        stats.redispatched += u64::from(again);
    }

    /// A session has left its backend, which failed it.
    pub(super) fn failed_at(&mut self, index: usize, fault: Fault) {
        let session = &mut self.sessions[index];
        let taken = session.forward > 0;
        if let Some(place) = session.tally.take() {
            let stats = self.tallies.at(place);
            stats.live -= 1;
            *stats.failed.entry(fault.name()).or_default() += 1;
            stats.replayed += u64::from(taken);
        }
    }

    /// A session has ended.
    pub(super) fn part(&mut self, session: &Session) {
        let Some(place) = session.tally else {
            return;
        };
        self.tallies.at(place).live -= 1;
        let last = self.tallies.at(place).live == 0;
        let backend = session.backend.as_ref();
        let gone = || backend.is_none_or(|it| self.is_unknown(session.pool, it));
        if last && gone() {
            self.tallies.remove(place);
        }
    }

    fn is_unknown(&self, pool: PoolId, backend: &Backend) -> bool {
        self.is_unfit(pool, backend) == Some(Unfit::Gone)
    }

    /// What was counted.
    pub fn stats(&mut self) -> Stats {
        if self.tallies.outdated {
            self.tallies.forget(&self.roster);
        }
        self.counted()
    }

    /// What was counted, of backends that are gone too.
    pub(super) fn counted(&self) -> Stats {
        let listeners = self.listeners.iter().map(|state| {
            let mut stats = state.stats.clone();
            stats.live = state.live as u64;
            stats
        });
        let backends = self.tallies.slots.iter();
        Stats {
            listeners: listeners.collect(),
            backends: backends.map(|(_, it)| it.clone()).collect(),
        }
    }

    /// The live sessions, in no particular order.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView<'_>> {
        self.sessions.iter().map(|(_, session)| SessionView {
            session: session.id,
            listener: session.listener,
            peer: session.peer,
            pool: session.pool,
            phase: session.phase,
            backend: session.backend.as_deref(),
            key: session.key.as_deref(),
            forward: session.forward,
            back: session.back,
            accepted: session.accepted,
            active: session.active,
        })
    }
}
