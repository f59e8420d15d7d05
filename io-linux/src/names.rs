//! What the configuration calls the listeners, pools and backends that the engine knows by number.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tlb_engine::config::Config;
use tlb_engine::ids::{Incarnation, ListenerId, PoolId};
use tlb_engine::roster::Roster;

/// Backends that left whose names are kept, for their sessions outlive them.
const DEPARTED: usize = 1024;

/// Names by number. Each worker has its own; a name that leaves the worker is shared, not copied.
#[derive(Debug)]
pub(crate) struct Names {
    /// Those that were removed included.
    listeners: Vec<Option<(Arc<str>, PoolId)>>,
    pools: Vec<Arc<str>>,
    backends: HashMap<Incarnation, Named>,
    /// In the order in which they left.
    departed: VecDeque<Incarnation>,
    /// The name of what has none, because it left long ago.
    unknown: Arc<str>,
}

#[derive(Debug)]
struct Named {
    id: Arc<str>,
    pool: PoolId,
}

impl Names {
    /// Those of a configuration and a roster.
    pub(crate) fn new(config: &Config, roster: &Roster) -> Self {
        let mut names = Self {
            listeners: Vec::new(),
            pools: Vec::new(),
            backends: HashMap::new(),
            departed: VecDeque::new(),
            unknown: "?".into(),
        };
        names.learn_config(config);
        names.learn_roster(roster);
        names
    }

    /// Learns those of a new configuration. Listeners that it removes are still known.
    pub(crate) fn learn_config(&mut self, config: &Config) {
        let most = self.listeners.len().max(config.listeners.len());
        self.listeners.resize(most, None);
        for (known, listener) in self.listeners.iter_mut().zip(&config.listeners) {
            if let Some(listener) = listener {
                *known = Some((Arc::from(&*listener.name), listener.pool));
            }
        }
    }

    /// Learns those of a new roster. Of the backends that are not in it, the last that left are
    /// still known.
    pub(crate) fn learn_roster(&mut self, roster: &Roster) {
        let pools = roster.pools.iter();
        self.pools = pools.map(|pool| Arc::from(&*pool.name)).collect();
        let mut present = HashSet::new();
        for (pool, number) in roster.pools.iter().zip(0..) {
            for backend in pool.backends() {
                present.insert(backend.incarnation);
                self.backends
                    .entry(backend.incarnation)
                    .or_insert_with(|| Named {
                        id: Arc::from(&*backend.id),
                        pool: PoolId(number),
                    });
            }
        }
        self.departed.retain(|backend| !present.contains(backend));
        let known: HashSet<Incarnation> = self.departed.iter().copied().collect();
        let gone = |backend: &&Incarnation| !present.contains(backend) && !known.contains(backend);
        let mut left: Vec<_> = self.backends.keys().filter(gone).copied().collect();
        left.sort_unstable();
        self.departed.extend(left);
        while self.departed.len() > DEPARTED {
            let oldest = self.departed.pop_front();
            oldest.map(|oldest| self.backends.remove(&oldest));
        }
    }

    /// A listener's.
    pub(crate) fn listener(&self, id: ListenerId) -> &Arc<str> {
        let listener = self.listeners.get(id.index()).and_then(Option::as_ref);
        listener.map_or(&self.unknown, |(name, _)| name)
    }

    /// A pool's.
    pub(crate) fn pool(&self, id: PoolId) -> &Arc<str> {
        self.pools.get(id.index()).unwrap_or(&self.unknown)
    }

    /// A backend's.
    pub(crate) fn backend(&self, backend: Incarnation) -> &Arc<str> {
        let named = self.backends.get(&backend);
        named.map_or(&self.unknown, |named| &named.id)
    }

    /// That of the pool of a session: its backend's, or without one its listener's.
    pub(crate) fn pool_of(&self, listener: ListenerId, backend: Option<Incarnation>) -> &Arc<str> {
        let of_backend = backend.and_then(|backend| self.backends.get(&backend));
        let of_listener = || self.listeners.get(listener.index())?.as_ref();
        let pool = of_backend
            .map(|named| named.pool)
            .or_else(|| of_listener().map(|(_, pool)| *pool));
        pool.map_or(&self.unknown, |pool| self.pool(pool))
    }
}

#[cfg(test)]
mod tests {
    use tlb_engine::balance::Policy;
    use tlb_engine::config::{Failover, Limits, Listener};
    use tlb_engine::roster::{Backend, Pool};

    use super::*;

    fn roster(backends: impl IntoIterator<Item = u32>) -> Roster {
        let backend = |number: u32| {
            Arc::new(Backend {
                id: format!("b{number}").into(),
                incarnation: Incarnation(number),
                weight: 1,
                ..Backend::default()
            })
        };
        let backends = backends.into_iter().map(backend).collect();
        let pool = Pool::new("p", Policy::RoundRobin, Failover::default(), backends);
        Roster {
            epoch: 1,
            pools: vec![Arc::new(pool)],
        }
    }

    #[test]
    fn names_outlive_what_they_name() {
        let listener = Listener::new("l", None, PoolId(0));
        let mut config = Config::new(vec![listener], Limits::default());
        let mut names = Names::new(&config, &roster([1, 2]));
        config.listeners[0] = None;
        names.learn_config(&config);
        for _ in 0..3 {
            names.learn_roster(&roster([2]));
        }
        let (listener, gone) = (ListenerId(0), Incarnation(1));
        assert_eq!(&**names.listener(listener), "l");
        assert_eq!(&**names.backend(gone), "b1");
        assert_eq!(&**names.pool_of(listener, Some(gone)), "p");
        assert_eq!(&**names.pool_of(listener, None), "p");
        assert_eq!(&**names.backend(Incarnation(9)), "?");
        assert_eq!(&**names.pool_of(ListenerId(9), None), "?");
    }

    #[test]
    fn names_of_the_departed_are_bounded_and_the_oldest_go_first() {
        let most = DEPARTED as u32;
        let mut names = Names::new(&Config::new(vec![], Limits::default()), &roster(0..=most));
        names.learn_roster(&roster([most]));
        names.learn_roster(&roster([]));
        assert_eq!(names.backends.len(), DEPARTED);
        assert_eq!(&**names.backend(Incarnation(0)), "?");
        assert_eq!(&**names.backend(Incarnation(most)), format!("b{most}"));
        names.learn_roster(&roster([1]));
        assert_eq!(names.departed.len(), DEPARTED - 1);
    }
}
