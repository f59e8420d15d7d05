//! The roster: an immutable picture of pools and backends that picks read.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::balance::{Policy, Table};
use crate::config::Failover;
use crate::ids::{Incarnation, PoolId};

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
    /// How a key becomes a backend.
    pub policy: Policy,
    /// `Some(percent)`, at least 100: no backend gets more than this share of the mean load (see
    /// [`crate::balance`]).
    pub bounded_load: Option<u32>,
    /// How its sessions connect and fail over.
    pub failover: Failover,
    /// Local addresses to connect from, in turn; empty leaves it to the kernel.
    pub sources: Vec<IpAddr>,
    backends: Vec<Arc<Backend>>,
    table: Table,
}

impl Pool {
    /// A pool of `backends`, in any order: what is picked does not depend on it. Ids must differ, weights must be at
    /// least 1. Builds the policy's table, which takes time in proportion to its points.
    pub fn new(
        name: impl Into<Box<str>>,
        policy: Policy,
        failover: Failover,
        mut backends: Vec<Arc<Backend>>,
    ) -> Self {
        backends.sort_by(|a, b| a.id.cmp(&b.id));
        debug_assert!(
            backends.windows(2).all(|pair| pair[0].id != pair[1].id),
            "ids differ"
        );
        debug_assert!(
            backends.iter().all(|backend| backend.weight > 0),
            "weights are positive"
        );
        let table = Table::build(policy, &backends);
        Self {
            name: name.into(),
            policy,
            bounded_load: None,
            failover,
            sources: Vec::new(),
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

    /// The slot of the backend with that id.
    pub fn by_id(&self, id: &[u8]) -> Option<usize> {
        self.backends
            .binary_search_by(|backend| backend.id.as_bytes().cmp(id))
            .ok()
    }
}

/// One server of a pool.
#[derive(Debug)]
pub struct Backend {
    /// Its id in the configuration, unique in the pool: what consistent hashing hashes.
    pub id: Box<str>,
    /// Which life of the id this is, unique in the process.
    pub incarnation: Incarnation,
    /// Where it listens; `None` while its name does not resolve, which counts as down.
    pub address: Option<SocketAddr>,
    /// Its share, relative to the others'. At least 1.
    pub weight: u32,
    /// Gets no new session, but keeps those it has.
    pub draining: bool,
    /// Sessions it has now, from all engines of the process.
    pub load: Load,
}

/// A count of live sessions that engines of one process share; kept when a roster follows another.
///
/// It is the one thing that workers share. It is touched twice in a session's life and read by the policies that
/// look at load.
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
