//! What an engine counted: plain numbers of one worker, to be added up by whoever shows them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::ids::{Incarnation, ListenerId};

/// Counters of one engine since it began. Sums, unless something else is said.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// By [`ListenerId`].
    pub listeners: Vec<ListenerStats>,
    /// Of backends in the roster, and of those that have left it and still have sessions.
    pub backends: BTreeMap<Incarnation, BackendStats>,
}

/// Counters of one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerStats {
    /// Sessions accepted.
    pub sessions: u64,
    /// Live sessions now.
    pub live: u64,
    /// Connections turned away because their address had its share.
    pub shed: u64,
    /// Times that accepting paused because this host ran out of something.
    pub accept_pauses: u64,
    /// Sessions ended, by [`CloseReason::name`](crate::api::CloseReason::name).
    pub closed: BTreeMap<&'static str, u64>,
    /// Bytes that backends took from its clients.
    pub forward: u64,
    /// Bytes that its clients took.
    pub back: u64,
    /// Bytes of garbage before first frames.
    pub skipped: u64,
    /// Time that its ended sessions lasted.
    pub lasted: LastedStats,
}

/// How long sessions lasted: a histogram.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastedStats {
    /// Sessions that lasted at most [`LastedStats::BOUNDS`] seconds, by bound; the last one is for all longer ones.
    /// Not cumulative.
    pub counts: [u64; Self::BOUNDS.len() + 1],
    /// All of them together, in nanoseconds.
    pub nanos: u128,
}

impl LastedStats {
    /// Upper bounds, in milliseconds: a millisecond to a day.
    pub const BOUNDS: [u64; 11] = [
        1,
        10,
        100,
        1_000,
        10_000,
        60_000,
        600_000,
        3_600_000,
        21_600_000,
        86_400_000,
        604_800_000,
    ];
}

/// Counters of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendStats {
    /// Attempts to connect.
    pub attempts: u64,
    /// Attempts that failed, by [`Fault::name`](crate::api::Fault::name).
    pub failed: BTreeMap<&'static str, u64>,
    /// Sessions that it took.
    pub sessions: u64,
    /// Sessions it has now in this engine, attempts included.
    pub live: u64,
    /// Attempts that followed another's failure, or replayed the first frame.
    pub redispatched: u64,
    /// First frames that were replayed elsewhere because it ended before its first byte.
    pub replayed: u64,
    /// Bytes it took.
    pub forward: u64,
    /// Bytes that clients took from it.
    pub back: u64,
    /// Sessions that had to wait for its admission.
    pub admission_waits: u64,
    /// Times that this engine ejected it.
    pub ejections: u64,
}

impl Stats {
    /// Of one listener; all zero if it is not known.
    pub fn listener(&self, id: ListenerId) -> ListenerStats {
        self.listeners.get(id.index()).cloned().unwrap_or_default()
    }
}
