//! The roster: an immutable picture of pools and backends that picks read.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::balance::{Policy, Table};
use crate::config::Failover;
use crate::ids::{Incarnation, PoolId};
use crate::pace::Bucket;
use crate::time::{Duration, Timestamp};

/// All pools at one moment. Published as a whole, never changed.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// Counts the rosters of a process; a later one has a higher epoch.
    pub epoch: u64,
    /// The pools, by [`PoolId`].
    pub pools: Vec<Arc<Pool>>,
}

impl Roster {
    /// The pool of that id, if there is one.
    pub fn pool(&self, id: PoolId) -> Option<&Arc<Pool>> {
        self.pools.get(id.index())
    }
}

/// A group of backends that serve the same keys.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// How a key becomes a backend: the policy that [`Pool::table`] was built for.
    pub policy: Policy,
    /// `Some(percent)`, at least 100: no backend gets more than this share of the mean load (see
    /// [`crate::balance`]). It trades affinity away, so it is off unless asked for. Keyed policies
    /// only.
    pub bounded_load: Option<u32>,
    /// How its sessions connect and fail over.
    pub failover: Failover,
    /// Local addresses to connect from, in turn; empty leaves it to the kernel.
    pub sources: Vec<IpAddr>,
    backends: Vec<Arc<Backend>>,
    table: Arc<Table>,
    census: Census,
}

/// Counts over the backends of a pool, made with it: whoever takes a roster over need not look at each of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Census {
    /// Backends that would be used if all were well.
    pub(crate) eligible: usize,
    /// Of these, those that the active health check says are up.
    pub(crate) up: usize,
    /// Some backend has come up lately.
    pub(crate) ramps: bool,
}

impl Census {
    fn of(backends: &[Arc<Backend>]) -> Self {
        let mut census = Self::default();
        for backend in backends {
            let eligible = backend.is_eligible();
            census.eligible += usize::from(eligible);
            census.up += usize::from(eligible && !backend.down);
            census.ramps |= backend.ramp.is_some();
        }
        census
    }
}

impl Pool {
    /// A pool of `backends`, in any order: what is picked does not depend on it. Ids must differ,
    /// weights must be at least 1 and pass [`Policy::check`]. Builds the policy's table, which
    /// takes time in proportion to its points.
    ///
    /// The other fields are as in a configuration that does not mention them; set them before it is
    /// published.
    pub fn new(
        name: impl Into<Box<str>>,
        policy: Policy,
        failover: Failover,
        backends: Vec<Arc<Backend>>,
    ) -> Self {
        let backends = ordered(backends);
        let table = Arc::new(Table::build(policy, &backends));
        Self {
            name: name.into(),
            policy,
            bounded_load: None,
            failover,
            sources: Vec::new(),
            census: Census::of(&backends),
            backends,
            table,
        }
    }

    /// This pool with other `backends`, under the same conditions as [`Pool::new`].
    ///
    /// Whoever stays is passed on as the same `Arc`, or, if something about it changed, as a new
    /// [`Backend`] with a clone of the old one's [`Load`]: its live sessions must go on to count.
    /// The table is built anew only if an id or a weight differs; a new address or a drain costs
    /// nothing.
    #[must_use]
    pub fn with_backends(&self, backends: Vec<Arc<Backend>>) -> Self {
        let backends = ordered(backends);
        let same = backends.len() == self.backends.len()
            && backends
                .iter()
                .zip(&self.backends)
                .all(|(new, old)| new.id == old.id && new.weight == old.weight);
        let table = if same {
            Arc::clone(&self.table)
        } else {
            Arc::new(Table::build(self.policy, &backends))
        };
        Self {
            name: self.name.clone(),
            policy: self.policy,
            bounded_load: self.bounded_load,
            failover: self.failover.clone(),
            sources: self.sources.clone(),
            census: Census::of(&backends),
            backends,
            table,
        }
    }

    /// The backends, ordered by id. A *slot* is a place in this slice.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// What the policy looks keys up in.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What there is to know of the backends together.
    pub(crate) fn census(&self) -> Census {
        self.census
    }

    /// A backend of an earlier roster as it is in this one, unless that life of it is over.
    pub(crate) fn current(&self, backend: &Backend) -> Option<&Arc<Backend>> {
        let slot = self.by_id(backend.id.as_bytes())?;
        Some(&self.backends[slot]).filter(|it| it.incarnation == backend.incarnation)
    }

    /// The slot of the backend with that id.
    pub fn by_id(&self, id: &[u8]) -> Option<usize> {
        self.backends
            .binary_search_by(|backend| backend.id.as_bytes().cmp(id))
            .ok()
    }
}

/// By id, which makes slots and whatever follows from them independent of the order in which
/// backends are listed.
fn ordered(mut backends: Vec<Arc<Backend>>) -> Vec<Arc<Backend>> {
    backends.sort_by(|a, b| a.id.cmp(&b.id));
    debug_assert!(
        backends.windows(2).all(|pair| pair[0].id != pair[1].id),
        "ids differ"
    );
    debug_assert!(
        backends.iter().all(|backend| backend.weight > 0),
        "weights are positive"
    );
    backends
}

/// One server of a pool. A clone shares its [`Load`] with the original.
#[derive(Clone, Debug, Default)]
pub struct Backend {
    /// Its id in the configuration, unique in the pool: what consistent hashing hashes.
    pub id: Box<str>,
    /// Which life of the id this is, unique in the process.
    pub incarnation: Incarnation,
    /// Where it listens; `None` while its name does not resolve, which counts as down.
    pub address: Option<SocketAddr>,
    /// Its share, relative to the others'. At least 1.
    pub weight: u32,
    /// Gets no new session, but keeps those it has. Maintenance is this as well, and then its sessions are told to
    /// go.
    pub draining: bool,
    /// Its active health check says that it is down: gets no new session unless the pool is in panic.
    pub down: bool,
    /// It has just come up, and takes its share little by little; `None` takes all of it.
    pub ramp: Option<Ramp>,
    /// How fast it takes new sessions; `None` as fast as they come. Sessions of its keys wait for their turn.
    pub admission: Option<Bucket>,
    /// Sessions it has now, from all engines of the process.
    pub load: Load,
}

impl Backend {
    /// Whether it would get sessions if all were well.
    pub(crate) fn is_eligible(&self) -> bool {
        !self.draining && self.address.is_some()
    }
}

/// The slow start of a backend that has come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ramp {
    /// When it came up.
    pub from: Timestamp,
    /// How long it takes until it has its whole share; more than zero.
    pub over: Duration,
}

/// A count of live sessions that engines of one process share; kept when a roster follows another.
/// A clone is the same count.
///
/// It is the one thing that workers share. It is touched twice in a session's life and read by the
/// policies that look at load.
#[derive(Clone, Debug, Default)]
pub struct Load(Arc<AtomicU32>);

impl Load {
    /// How many.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn sub(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a session left a backend that had none");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn backend(id: &str, incarnation: u32) -> Backend {
        Backend {
            id: id.into(),
            incarnation: Incarnation(incarnation),
            address: None,
            weight: 1,
            ..Backend::default()
        }
    }

    fn pool(backends: Vec<Backend>) -> Pool {
        let backends = backends.into_iter().map(Arc::new).collect();
        Pool::new(
            "p",
            Policy::HashRing { points: 16 },
            Failover::default(),
            backends,
        )
    }

    #[test]
    fn slots_are_ordered_by_id_and_found_by_it() {
        let pool = pool(vec![
            backend("c", 0),
            backend("a", 1),
            backend("b10", 2),
            backend("b", 3),
        ]);
        let ids: Vec<_> = pool.backends().iter().map(|backend| &*backend.id).collect();
        assert_eq!(ids, ["a", "b", "b10", "c"]);
        for (slot, id) in ids.iter().enumerate() {
            assert_eq!(pool.by_id(id.as_bytes()), Some(slot));
        }
        assert_eq!(pool.by_id(b"b1"), None);
        assert_eq!(pool.by_id(b"\xff"), None);
    }

    #[test]
    fn only_membership_and_weight_rebuild_the_table() {
        let old = pool(vec![backend("a", 0), backend("b", 1)]);
        let (a, b) = (&old.backends()[0], &old.backends()[1]);

        let drained = Backend {
            draining: true,
            incarnation: Incarnation(7),
            ..(**b).clone()
        };
        let same = old.with_backends(vec![Arc::new(drained), Arc::clone(a)]);
        assert!(Arc::ptr_eq(&old.table, &same.table));
        assert!(same.backends()[1].draining);

        let heavier = Arc::new(Backend {
            weight: 2,
            ..(**b).clone()
        });
        for other in [
            vec![Arc::clone(a), heavier],
            vec![Arc::clone(a)],
            vec![Arc::clone(a), Arc::new(backend("c", 2))],
        ] {
            assert!(!Arc::ptr_eq(&old.table, &old.with_backends(other).table));
        }
    }

    #[test]
    fn a_backend_that_stays_keeps_its_load_and_a_newcomer_has_none() {
        let old = pool(vec![backend("a", 0), backend("b", 1)]);
        old.backends()[0].load.add();
        let moved = Backend {
            draining: true,
            ..(*old.backends()[0]).clone()
        };
        let new = old.with_backends(vec![Arc::new(moved), Arc::new(backend("c", 2))]);
        assert_eq!(new.backends()[0].load.get(), 1);
        assert_eq!(new.backends()[1].load.get(), 0);
        // A session of the old roster ends: the new one sees it.
        old.backends()[0].load.sub();
        assert_eq!(new.backends()[0].load.get(), 0);
    }
}
