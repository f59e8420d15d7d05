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

fn add_all(mine: &mut BTreeMap<&'static str, u64>, theirs: &BTreeMap<&'static str, u64>) {
    for (name, count) in theirs {
        *mine.entry(name).or_default() += count;
    }
}

impl ListenerStats {
    fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.live += other.live;
        self.shed += other.shed;
        self.accept_pauses += other.accept_pauses;
        add_all(&mut self.closed, &other.closed);
        self.forward += other.forward;
        self.back += other.back;
        self.skipped += other.skipped;
        self.handed_off += other.handed_off;
        for (mine, theirs) in self.lasted.counts.iter_mut().zip(other.lasted.counts) {
            *mine += theirs;
        }
        self.lasted.nanos += other.lasted.nanos;
    }
}

impl BackendStats {
    fn add(&mut self, other: &Self) {
        self.attempts += other.attempts;
        add_all(&mut self.failed, &other.failed);
        self.sessions += other.sessions;
        self.live += other.live;
        self.redispatched += other.redispatched;
        self.replayed += other.replayed;
        self.forward += other.forward;
        self.back += other.back;
        self.admission_waits += other.admission_waits;
        self.ejections += other.ejections;
    }
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
    /// Sessions handed to the kernel.
    pub handed_off: u64,
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
    /// Adds what another engine of the process counted.
    pub fn add(&mut self, other: &Self) {
        if self.listeners.len() < other.listeners.len() {
            let places = other.listeners.len();
            self.listeners.resize(places, ListenerStats::default());
        }
        for (mine, theirs) in self.listeners.iter_mut().zip(&other.listeners) {
            mine.add(theirs);
        }
        for (backend, theirs) in &other.backends {
            self.backends.entry(*backend).or_default().add(theirs);
        }
    }

    /// Of one listener; all zero if it is not known.
    pub fn listener(&self, id: ListenerId) -> ListenerStats {
        self.listeners.get(id.index()).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn engines_add_up() {
        let one = || {
            let mut lasted = LastedStats::default();
            lasted.counts[2] = 3;
            lasted.nanos = 50;
            let listener = ListenerStats {
                sessions: 1,
                live: 2,
                shed: 3,
                accept_pauses: 4,
                closed: BTreeMap::from([("completed", 5)]),
                forward: 6,
                back: 7,
                skipped: 8,
                handed_off: 9,
                lasted,
            };
            let backend = BackendStats {
                attempts: 1,
                failed: BTreeMap::from([("refused", 2)]),
                sessions: 3,
                live: 4,
                redispatched: 5,
                replayed: 6,
                forward: 7,
                back: 8,
                admission_waits: 9,
                ejections: 10,
            };
            Stats {
                listeners: vec![listener],
                backends: BTreeMap::from([(Incarnation(1), backend)]),
            }
        };
        let mut sum = Stats::default();
        sum.add(&one());
        assert_eq!(sum.listeners, one().listeners, "nothing is left out");
        assert_eq!(sum.backends, one().backends);
        sum.add(&one());
        let listener = &sum.listeners[0];
        assert_eq!((listener.sessions, listener.skipped), (2, 16));
        assert_eq!(listener.closed["completed"], 10);
        assert_eq!((listener.lasted.counts[2], listener.lasted.nanos), (6, 100));
        let backend = &sum.backends[&Incarnation(1)];
        assert_eq!((backend.attempts, backend.ejections), (2, 20));
        assert_eq!(backend.failed["refused"], 4);
    }
}
