//! Connections to backends that no session has yet: kept ready, so that a session need not wait for a handshake.
//!
//! Each session that gets its backend leaves as many of them behind as the pool wants
//! ([`Failover::warm`](crate::config::Failover::warm)), for those that follow. So a backend that gets no sessions has
//! none, one that closes them is not connected to over and over, and no failure of theirs says anything: whoever takes
//! one that has ended connects as if there had been none.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use slab::Slab;

use super::Engine;
use crate::api::Action;
use crate::ids::{Incarnation, PoolId, WarmId};
use crate::roster::Backend;
use crate::time::{Duration, Timestamp};
use crate::timer::Queue;

/// How long a warm connection is kept that no session takes: less than what servers allow a client that is silent.
pub const WARM_FOR: Duration = Duration::from_secs(4);

/// The warm connections of an engine.
#[derive(Debug, Default)]
pub(super) struct Warm {
    kept: Slab<Kept>,
    /// Oldest first. No entry is empty.
    by_backend: BTreeMap<Incarnation, Vec<WarmId>>,
    timers: Queue,
}

#[derive(Debug)]
struct Kept {
    pool: PoolId,
    backend: Arc<Backend>,
    to: SocketAddr,
}

impl Warm {
    fn count(&self, backend: Incarnation) -> usize {
        self.by_backend.get(&backend).map_or(0, Vec::len)
    }

    fn add(&mut self, kept: Kept, until: Timestamp) -> WarmId {
        let backend = kept.backend.incarnation;
        let slot = self.kept.insert(kept);
        self.timers.set(slot, until);
        let warm = WarmId(slot as u32);
        self.by_backend.entry(backend).or_default().push(warm);
        warm
    }

    fn remove(&mut self, warm: WarmId) {
        let kept = self.kept.remove(warm.index());
        self.timers.clear(warm.index());
        let backend = kept.backend.incarnation;
        if let Some(list) = self.by_backend.get_mut(&backend) {
            list.retain(|it| *it != warm);
            if list.is_empty() {
                self.by_backend.remove(&backend);
            }
        }
    }

    /// When the first of them has been kept long enough.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| at)
    }

    /// Whether all that is known of them fits together.
    pub(super) fn is_sound(&self) -> bool {
        let listed = self.by_backend.iter().flat_map(|(backend, list)| {
            let of = move |warm: &WarmId| self.kept[warm.index()].backend.incarnation == *backend;
            list.iter().map(of)
        });
        let (count, own) = listed.fold((0, true), |(count, all), own| (count + 1, all && own));
        let empty = self.by_backend.values().any(Vec::is_empty);
        own && !empty && count == self.kept.len() && count == self.timers.len()
    }
}

impl Engine {
    /// The warm connection for a session that goes there, which is the session's from here on.
    pub(super) fn take_warm(&mut self, backend: Incarnation, to: SocketAddr) -> Option<WarmId> {
        let mut list = self.warm.by_backend.get(&backend)?.iter();
        let warm = *list.find(|warm| self.warm.kept[warm.index()].to == to)?;
        self.warm.remove(warm);
        Some(warm)
    }

    /// A session has its backend: others will follow.
    pub(super) fn rewarm(&mut self, now: Timestamp, index: usize) {
        let session = &self.sessions[index];
        let (pool, own) = (session.pool, session.backend.as_ref());
        let Some((backend, to, want)) = own.and_then(|own| self.warmed(pool, own)) else {
            return;
        };
        let missing = want.saturating_sub(self.warm.count(backend.incarnation));
        if missing == 0 || self.is_stopping() {
            return;
        }
        let (backend, from) = (Arc::clone(backend), self.local_address(index, to));
        for _ in 0..missing {
            let kept = Kept {
                pool,
                backend: Arc::clone(&backend),
                to,
            };
            let warm = self.warm.add(kept, now + WARM_FOR);
            self.actions.push_back(Action::Warm { warm, to, from });
        }
    }

    /// The backend as the roster has it, its address, and how many connections to it are to be kept; `None` if none are,
    /// as its pool wants none or no session is to be given to it, whatever panic says.
    fn warmed(&self, id: PoolId, backend: &Backend) -> Option<(&Arc<Backend>, SocketAddr, usize)> {
        let pool = self.roster.pool(id).filter(|it| it.failover.warm > 0)?;
        let known = pool.current(backend)?;
        let ejected = self
            .pools
            .get(id.index())?
            .suspects
            .is_down(known.incarnation);
        let fit = known.is_eligible() && !known.down && !ejected;
        fit.then_some((known, known.address?, usize::from(pool.failover.warm)))
    }

    /// Closes those that no session is to have any more: their backends left, are down or draining, or moved, or their
    /// pools want none.
    pub(super) fn cool_unwanted(&mut self) {
        self.cool_where(|engine, it| {
            let warmed = engine.warmed(it.pool, &it.backend);
            warmed.is_none_or(|(_, to, _)| to != it.to)
        });
    }

    /// Closes those to a backend.
    pub(super) fn cool_backend(&mut self, backend: Incarnation) {
        self.cool_where(|_, it| it.backend.incarnation == backend);
    }

    /// Closes all of them.
    pub(super) fn cool_all(&mut self) {
        self.cool_where(|_, _| true);
    }

    fn cool_where(&mut self, is_so: impl Fn(&Self, &Kept) -> bool) {
        let kept = self.warm.kept.iter();
        let these = kept.filter(|(_, it)| is_so(self, it));
        let these: Vec<_> = these.map(|(slot, _)| WarmId(slot as u32)).collect();
        for warm in these {
            self.cool(warm);
        }
    }

    /// Closes those that were kept long enough.
    pub(super) fn cool_due(&mut self, now: Timestamp) {
        while let Some((at, slot)) = self.warm.timers.first() {
            if at > now {
                break;
            }
            self.cool(WarmId(slot as u32));
        }
    }

    fn cool(&mut self, warm: WarmId) {
        self.warm.remove(warm);
        self.actions.push_back(Action::Cool { warm });
    }
}
