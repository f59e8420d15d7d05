//! The pools of a configuration, with what is known of their backends' addresses: what rosters are
//! made of.

use std::net::SocketAddr;
use std::sync::Arc;

use tlb_engine::ids::Incarnation;
use tlb_engine::roster::{Backend, Load, Pool, Roster};

use crate::config_file::{Address, BackendSettings, PoolSettings};

/// The truth about the process's backends; it makes each [`Roster`] from the one before.
#[derive(Debug)]
pub(crate) struct Directory {
    settings: Vec<PoolSettings>,
    roster: Arc<Roster>,
    incarnations: u32,
}

/// A backend's place in the configuration: its pool's, and its own in the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pool: usize,
    backend: usize,
}

/// A backend that has a name and no address yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unresolved {
    pub(crate) place: Place,
    pub(crate) host: Box<str>,
    pub(crate) port: u16,
}

impl Directory {
    /// The pools of a configuration. Backends with a name have no address yet.
    pub(crate) fn new(settings: Vec<PoolSettings>) -> Self {
        let mut directory = Self {
            settings,
            roster: Arc::default(),
            incarnations: 0,
        };
        let pools = (0..directory.settings.len())
            .map(|pool| {
                let known: Vec<_> = directory.settings[pool]
                    .backends
                    .iter()
                    .map(|backend| match backend.address {
                        Address::Socket(address) => Some(address),
                        Address::Name { .. } => None,
                    })
                    .collect();
                directory.pool(pool, &known)
            })
            .collect();
        directory.roster = Arc::new(Roster { epoch: 1, pools });
        directory
    }

    /// As it is now.
    pub(crate) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// The backends that have no address.
    pub(crate) fn unresolved(&self) -> Vec<Unresolved> {
        let mut unresolved = Vec::new();
        for (pool, settings) in self.settings.iter().enumerate() {
            for (backend, BackendSettings { id, address, .. }) in
                settings.backends.iter().enumerate()
            {
                if let Address::Name { host, port } = address
                    && self
                        .backend(pool, id)
                        .is_some_and(|backend| backend.address.is_none())
                {
                    let place = Place { pool, backend };
                    unresolved.push(Unresolved {
                        place,
                        host: host.clone(),
                        port: *port,
                    });
                }
            }
        }
        unresolved
    }

    /// The id of a backend and the name of its pool.
    pub(crate) fn names(&self, place: Place) -> (&str, &str) {
        let pool = &self.settings[place.pool];
        (&pool.backends[place.backend].id, &pool.name)
    }

    /// Takes note of addresses that were found, and makes the next roster.
    ///
    /// A backend that gets an address is a new incarnation. The others, and the tables of pools
    /// without a change, are those of the last roster.
    pub(crate) fn resolve(&mut self, found: &[(Place, SocketAddr)]) -> &Arc<Roster> {
        let mut pools = self.roster.pools.clone();
        for (index, pool) in pools.iter_mut().enumerate() {
            let here = || found.iter().filter(|(place, _)| place.pool == index);
            if here().next().is_none() {
                continue;
            }
            let mut addresses: Vec<_> = self.settings[index]
                .backends
                .iter()
                .map(|backend| {
                    self.backend(index, &backend.id)
                        .and_then(|known| known.address)
                })
                .collect();
            for (place, address) in here() {
                addresses[place.backend] = Some(*address);
            }
            *pool = self.pool(index, &addresses);
        }
        self.roster = Arc::new(Roster {
            epoch: self.roster.epoch + 1,
            pools,
        });
        &self.roster
    }

    /// A backend of the present roster.
    fn backend(&self, pool: usize, id: &str) -> Option<&Arc<Backend>> {
        let pool = self.roster.pools.get(pool)?;
        Some(&pool.backends()[pool.by_id(id.as_bytes())?])
    }

    /// Builds a pool with these addresses, in the order of its settings.
    fn pool(&mut self, index: usize, addresses: &[Option<SocketAddr>]) -> Arc<Pool> {
        let backends = addresses
            .iter()
            .enumerate()
            .map(|(backend, &address)| {
                let settings = &self.settings[index].backends[backend];
                match self.backend(index, &settings.id) {
                    Some(known) if known.address == address => Arc::clone(known),
                    _ => {
                        self.incarnations += 1;
                        Arc::new(Backend {
                            id: settings.id.clone(),
                            incarnation: Incarnation(self.incarnations),
                            address,
                            weight: settings.weight,
                            draining: settings.draining,
                            load: Load::default(),
                            ..Backend::default()
                        })
                    }
                }
            })
            .collect();
        let settings = &self.settings[index];
        let mut pool = Pool::new(
            settings.name.clone(),
            settings.policy,
            settings.failover.clone(),
            backends,
        );
        pool.bounded_load = settings.bounded_load;
        pool.sources.clone_from(&settings.sources);
        Arc::new(pool)
    }
}

#[cfg(test)]
mod tests {
    use tlb_engine::balance::Policy;
    use tlb_engine::config::Failover;
    use tlb_engine::fleet::OnDown;

    use super::*;

    fn backend(id: &str, address: Address) -> BackendSettings {
        BackendSettings {
            id: id.into(),
            address,
            weight: 2,
            draining: false,
        }
    }

    fn named(host: &str) -> Address {
        Address::Name {
            host: host.into(),
            port: 7001,
        }
    }

    fn pool(name: &str, backends: Vec<BackendSettings>) -> PoolSettings {
        PoolSettings {
            name: name.into(),
            policy: Policy::RoundRobin,
            bounded_load: Some(125),
            failover: Failover {
                retries: 9,
                ..Failover::default()
            },
            sources: vec!["127.0.0.9".parse().unwrap()],
            health: None,
            on_down: OnDown::default(),
            slow_start: None,
            admission: None,
            backends,
        }
    }

    fn directory() -> Directory {
        let fixed = Address::Socket("127.0.0.1:1".parse().unwrap());
        Directory::new(vec![
            pool(
                "first",
                vec![backend("z", named("later")), backend("a", fixed.clone())],
            ),
            pool("second", vec![backend("a", fixed)]),
        ])
    }

    #[test]
    fn everything_of_the_settings_is_in_the_roster() {
        let directory = directory();
        let roster = directory.roster();
        let first = &roster.pools[0];
        assert_eq!((&*first.name, first.bounded_load), ("first", Some(125)));
        assert_eq!(first.policy, Policy::RoundRobin);
        assert_eq!(first.failover.retries, 9);
        assert_eq!(
            first.sources,
            ["127.0.0.9".parse::<std::net::IpAddr>().unwrap()]
        );
        let backends: Vec<_> = first
            .backends()
            .iter()
            .map(|one| (&*one.id, one.weight, one.address))
            .collect();
        let address = "127.0.0.1:1".parse().ok();
        assert_eq!(backends, [("a", 2, address), ("z", 2, None)]);

        let mut incarnations: Vec<_> = roster
            .pools
            .iter()
            .flat_map(|pool| pool.backends())
            .map(|one| one.incarnation)
            .collect();
        incarnations.dedup();
        assert_eq!(incarnations.len(), 3, "unique in the process");
    }

    #[test]
    fn an_address_that_is_found_makes_a_new_incarnation_and_touches_nothing_else() {
        let mut directory = directory();
        let before = Arc::clone(directory.roster());
        let [unresolved] = &directory.unresolved()[..] else {
            panic!("one has a name")
        };
        assert_eq!((&*unresolved.host, unresolved.port), ("later", 7001));
        assert_eq!(directory.names(unresolved.place), ("z", "first"));

        let address = "127.0.0.2:7001".parse().unwrap();
        let after = Arc::clone(directory.resolve(&[(unresolved.place, address)]));
        assert!(after.epoch > before.epoch);
        let of = |roster: &Roster, id: &str| {
            let pool = &roster.pools[0];
            Arc::clone(&pool.backends()[pool.by_id(id.as_bytes()).unwrap()])
        };
        assert_eq!(of(&after, "z").address, Some(address));
        assert!(of(&after, "z").incarnation > of(&before, "z").incarnation);
        assert!(Arc::ptr_eq(&of(&after, "a"), &of(&before, "a")));
        assert!(Arc::ptr_eq(&after.pools[1], &before.pools[1]));
        assert_eq!(directory.unresolved(), []);
    }
}
