//! Policies: from a key to a backend.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::rng::Rng;
use crate::roster::{Backend, Pool};

/// How a pool picks a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Weighted consistent hash ring, `points` per unit of weight.
    HashRing {
        /// Points per unit of weight, at least 1.
        points: u32,
    },
    /// Weighted maglev table.
    Maglev,
    /// Smooth weighted round robin.
    RoundRobin,
    /// Least sessions by weight.
    LeastSessions,
    /// Power of two choices.
    PowerOfTwo,
    /// As `HashRing`, by the client's address.
    Source {
        /// Points per unit of weight, at least 1.
        points: u32,
    },
}

impl Policy {
    /// Whether it needs a key.
    pub const fn needs_key(self) -> bool {
        matches!(self, Self::HashRing { .. } | Self::Maglev)
    }
}

/// Lookup structure of a policy; depends on membership and weights only.
#[derive(Clone, Debug)]
pub enum Table {
    /// The policy needs none.
    None,
}

impl Table {
    /// Builds the table of `policy` for `backends` (ordered by id).
    pub fn build(_policy: Policy, _backends: &[Arc<Backend>]) -> Self {
        Self::None
    }
}

/// The hash of a key.
pub fn hash_key(_key: &[u8]) -> u64 {
    0
}

/// What a pick is made for.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Hash of the key, or `None`.
    pub key: Option<u64>,
    /// The client's address.
    pub source: IpAddr,
    /// Slots that this session has tried already.
    pub tried: &'a [u32],
}

/// One engine's state of one pool's policy.
#[derive(Clone, Debug, Default)]
pub struct Balancer {
    _credits: Vec<i64>,
}

impl Balancer {
    /// Picks a slot.
    pub fn pick(
        &mut self,
        _pool: &Pool,
        _query: &Query<'_>,
        _eligible: impl Fn(usize) -> bool,
        _rng: &mut Rng,
    ) -> Option<usize> {
        None
    }
}
