//! What the configuration calls the listeners, pools and backends that the engine knows by number.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tlb_engine::config::Config;
use tlb_engine::ids::{Incarnation, ListenerId, PoolId};
use tlb_engine::roster::Roster;

/// Backends that left whose names are kept, for their sessions outlive them.
const DEPARTED: usize = 1024;

/// Names of pools and backends by number. The control thread makes them, and all workers read the same ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct FleetNames {
    pools: Vec<Arc<str>>,
    backends: HashMap<Incarnation, Named>,
    /// In the order in which they left.
    departed: VecDeque<Incarnation>,
}

#[derive(Clone, Debug)]
struct Named {
    id: Arc<str>,
    pool: PoolId,
    departed: bool,
}

impl FleetNames {
    /// Whether these are the names of that roster already.
    pub(crate) fn fit(&self, roster: &Roster) -> bool {
        let pools = roster.pools.iter().map(|pool| &*pool.name);
        let backends = roster.pools.iter().flat_map(|pool| pool.backends());
        let present = self.backends.len() - self.departed.len();
        let known =
            |backend: &Incarnation| self.backends.get(backend).is_some_and(|it| !it.departed);
        pools.eq(self.pools.iter().map(|name| &**name))
            && backends.clone().count() == present
            && backends.map(|it| it.incarnation).all(|it| known(&it))
    }

    /// Learns those of a new roster. Of the backends that are not in it, the last that left are
    /// still known.
    pub(crate) fn learn(&mut self, roster: &Roster) {
        let pools = roster.pools.iter();
        self.pools = pools.map(|pool| Arc::from(&*pool.name)).collect();
        let mut present = HashSet::new();
        for (pool, number) in roster.pools.iter().zip(0..) {
            for backend in pool.backends() {
                present.insert(backend.incarnation);
                let named = self.backends.entry(backend.incarnation);
                let named = named.or_insert_with(|| Named {
                    id: Arc::from(&*backend.id),
                    pool: PoolId(number),
                    departed: false,
                });
                named.departed = false;
            }
        }
        self.departed.retain(|backend| !present.contains(backend));
        let mut left = Vec::new();
        for (backend, named) in &mut self.backends {
            if !present.contains(backend) && !std::mem::replace(&mut named.departed, true) {
                left.push(*backend);
            }
        }
        left.sort_unstable();
        self.departed.extend(left);
        while self.departed.len() > DEPARTED {
            let oldest = self.departed.pop_front();
            oldest.map(|oldest| self.backends.remove(&oldest));
        }
    }
}

/// All names that a worker knows. One that leaves the worker is shared, not copied.
#[derive(Debug)]
pub(crate) struct Names {
    /// Those that were removed included.
    listeners: Vec<Option<(Arc<str>, PoolId)>>,
    fleet: Arc<FleetNames>,
    /// The name of what has none, because it left long ago.
    unknown: Arc<str>,
}

impl Names {
    /// Those of a configuration and a fleet.
    pub(crate) fn new(config: &Config, fleet: Arc<FleetNames>) -> Self {
        let mut names = Self {
            listeners: Vec::new(),
            fleet,
            unknown: "?".into(),
        };
        names.learn_config(config);
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

    /// Those of pools and backends are these from now on.
    pub(crate) fn learn_fleet(&mut self, fleet: Arc<FleetNames>) {
        self.fleet = fleet;
    }

    /// A listener's.
    pub(crate) fn listener(&self, id: ListenerId) -> &Arc<str> {
        let listener = self.listeners.get(id.index()).and_then(Option::as_ref);
        listener.map_or(&self.unknown, |(name, _)| name)
    }

    /// A pool's.
    pub(crate) fn pool(&self, id: PoolId) -> &Arc<str> {
        self.fleet.pools.get(id.index()).unwrap_or(&self.unknown)
    }

    /// A backend's.
    pub(crate) fn backend(&self, backend: Incarnation) -> &Arc<str> {
        let named = self.fleet.backends.get(&backend);
        named.map_or(&self.unknown, |named| &named.id)
    }

    /// That of the pool of a session: its backend's, or without one its listener's.
    pub(crate) fn pool_of(&self, listener: ListenerId, backend: Option<Incarnation>) -> &Arc<str> {
        let of_backend = backend.and_then(|backend| self.fleet.backends.get(&backend));
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

    fn names(rosters: &[Roster]) -> FleetNames {
        let mut names = FleetNames::default();
        for roster in rosters {
            names.learn(roster);
            assert!(names.fit(roster));
        }
        names
    }

    #[test]
    fn names_outlive_what_they_name() {
        let listener = Listener::new("l", None, PoolId(0));
        let mut config = Config::new(vec![listener], Limits::default());
        let mut known = Names::new(&config, Arc::new(names(&[roster([1, 2])])));
        config.listeners[0] = None;
        known.learn_config(&config);
        let left = [roster([1, 2]), roster([2]), roster([2])];
        known.learn_fleet(Arc::new(names(&left)));
        let (listener, gone) = (ListenerId(0), Incarnation(1));
        assert_eq!(&**known.listener(listener), "l");
        assert_eq!(&**known.backend(gone), "b1");
        assert_eq!(&**known.pool_of(listener, Some(gone)), "p");
        assert_eq!(&**known.pool_of(listener, None), "p");
        assert_eq!(&**known.backend(Incarnation(9)), "?");
        assert_eq!(&**known.pool_of(ListenerId(9), None), "?");
    }

    #[test]
    fn names_of_the_departed_are_bounded_and_the_oldest_go_first() {
        let most = DEPARTED as u32;
        let mut names = names(&[roster(0..=most), roster([most]), roster([])]);
        assert_eq!(names.backends.len(), DEPARTED);
        assert!(!names.backends.contains_key(&Incarnation(0)));
        let last = &names.backends[&Incarnation(most)];
        assert_eq!(&*last.id, format!("b{most}"));
        names.learn(&roster([1]));
        assert_eq!(names.departed.len(), DEPARTED - 1);
    }

    #[test]
    fn names_fit_a_roster_of_the_same_lives() {
        let names = names(&[roster([1, 2])]);
        assert!(names.fit(&roster([1, 2])));
        for other in [&[1][..], &[1, 2, 3], &[1, 3]] {
            assert!(!names.fit(&roster(other.iter().copied())), "{other:?}");
        }
        let mut renamed = Pool::clone(&roster([1, 2]).pools[0]);
        renamed.name = "q".into();
        let pools = vec![Arc::new(renamed)];
        assert!(!names.fit(&Roster { epoch: 2, pools }));
    }
}
