//! From one configuration to the next, without forgetting what is known.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::num::NonZeroU32;

use super::Fleet;
use super::api::{Admin, BackendConfig, FleetConfig, FleetEvent, PoolConfig};
use super::member::{Active, Member};
use crate::api::Why;
use crate::ids::{Incarnation, PoolId};
use crate::pace::Bucket;
use crate::roster::Pool;
use crate::time::Timestamp;

/// A pool that is or was configured.
#[derive(Debug)]
pub(super) struct PoolState {
    /// Without its backends, whose newest configuration is theirs.
    pub(super) config: PoolConfig,
    /// Whether the configuration has it.
    pub(super) configured: bool,
    /// By id, in the fleet's slab.
    pub(super) members: BTreeMap<Box<str>, usize>,
    /// What operators said of backends, by id; also of those that are not there.
    pub(super) words: BTreeMap<Box<str>, Admin>,
    /// How fast sessions are told to go.
    pub(super) pace: Bucket,
    pub(super) panic: bool,
    /// As in the roster.
    pub(super) shared: Arc<Pool>,
}

impl PoolState {
    fn new(config: PoolConfig) -> Self {
        let shared = Pool::new(
            config.name.clone(),
            config.policy,
            config.failover.clone(),
            Vec::new(),
        );
        Self {
            pace: Bucket::new(config.on_down.rate, NonZeroU32::MIN),
            config,
            configured: true,
            members: BTreeMap::new(),
            words: BTreeMap::new(),
            panic: false,
            shared: Arc::new(shared),
        }
    }

    /// Takes the pool's new rules, but for its backends.
    fn adopt(&mut self, config: PoolConfig) {
        if self.config.on_down.rate != config.on_down.rate {
            self.pace = Bucket::new(config.on_down.rate, NonZeroU32::MIN);
        }
        self.config = config;
        self.configured = true;
    }
}

impl Fleet {
    pub(super) fn configure(&mut self, now: Timestamp, config: FleetConfig) {
        let mut gone: BTreeSet<PoolId> = self.configured().collect();
        for mut pool in config.pools {
            let backends = core::mem::take(&mut pool.backends);
            let id = self.adopt_pool(pool);
            gone.remove(&id);
            self.adopt_backends(now, id, backends);
        }
        for id in gone {
            self.adopt_backends(now, id, Vec::new());
            self.pools[id.index()].configured = false;
        }
    }

    fn configured(&self) -> impl Iterator<Item = PoolId> {
        let pools = self.pools.iter().enumerate();
        pools
            .filter(|(_, pool)| pool.configured)
            .map(|(index, _)| PoolId(index as u32))
    }

    fn adopt_pool(&mut self, config: PoolConfig) -> PoolId {
        if let Some(&id) = self.names.get(&config.name) {
            self.pools[id.index()].adopt(config);
            self.dirty.insert(id);
            return id;
        }
        let id = PoolId(self.pools.len() as u32);
        self.names.insert(config.name.clone(), id);
        self.pools.push(PoolState::new(config));
        self.dirty.insert(id);
        id
    }

    fn adopt_backends(&mut self, now: Timestamp, pool: PoolId, backends: Vec<BackendConfig>) {
        let mut gone = core::mem::take(&mut self.pools[pool.index()].members);
        for backend in backends {
            let index = match gone.remove(&backend.id) {
                Some(index) => {
                    self.keep(now, index, backend);
                    index
                }
                None => self.join(now, pool, backend),
            };
            let id = self.members[index].config.id.clone();
            self.pools[pool.index()].members.insert(id, index);
            self.set_rules(now, index);
        }
        for index in gone.into_values() {
            self.leave(pool, index);
        }
    }

    fn join(&mut self, now: Timestamp, pool: PoolId, config: BackendConfig) -> usize {
        let state = &self.pools[pool.index()];
        self.events.push_back(FleetEvent::Added {
            pool: state.config.name.clone(),
            backend: config.id.clone(),
            address: config.address,
        });
        let mut word = state.words.get(&config.id).copied();
        if cfg!(tlb_planted = "operator-forgotten") {
            word = None;
        }
        let incarnation = self.next_incarnation();
        let member = Member::new(pool, config, incarnation, word, now);
        let index = self.members.insert(member);
        self.incarnations.insert(incarnation, index);
        index
    }

    fn keep(&mut self, now: Timestamp, index: usize, config: BackendConfig) {
        let member = &mut self.members[index];
        let pool = member.pool;
        if member.config.weight != config.weight {
            self.events.push_back(FleetEvent::Weight {
                pool: self.pools[pool.index()].config.name.clone(),
                backend: config.id.clone(),
                from: member.config.weight,
                to: config.weight,
            });
        }
        member.config.weight = config.weight;
        member.config.draining = config.draining;
        if cfg!(tlb_planted = "operator-forgotten") {
            member.word = None;
        }
        if let Some(address) = config.address {
            self.settle_at(now, index, address);
        }
        self.refresh(now, index, "configuration".into());
    }

    fn leave(&mut self, pool: PoolId, index: usize) {
        self.stop_probing(index);
        let member = self.members.remove(index);
        self.incarnations.remove(&member.incarnation);
        self.events.push_back(FleetEvent::Removed {
            pool: self.pools[pool.index()].config.name.clone(),
            backend: member.config.id,
        });
        self.dirty.insert(pool);
        self.tell_later(pool, member.incarnation, Why::Removed);
    }

    /// A backend is at that address from now on.
    pub(super) fn settle_at(&mut self, now: Timestamp, index: usize, address: SocketAddr) {
        let member = &mut self.members[index];
        let before = member.config.address;
        if before == Some(address) {
            return;
        }
        let (pool, last) = (member.pool, member.incarnation);
        if before.is_none() {
            member.config.address = Some(address);
        } else {
            self.stop_probing(index);
            let incarnation = self.next_incarnation();
            let member = &mut self.members[index];
            member.moved(address, incarnation);
            self.incarnations.remove(&last);
            self.incarnations.insert(incarnation, index);
            self.tell_later(pool, last, Why::Removed);
            self.events.push_back(FleetEvent::Moved {
                pool: self.pools[pool.index()].config.name.clone(),
                backend: self.members[index].config.id.clone(),
                address,
            });
        }
        self.dirty.insert(pool);
        self.set_rules(now, index);
        self.refresh(now, index, "address".into());
    }

    /// Has a backend follow its pool's rules about probes and admission.
    fn set_rules(&mut self, now: Timestamp, index: usize) {
        let member = &mut self.members[index];
        let rules = &self.pools[member.pool.index()].config;
        member.admission = match (rules.admission, member.admission.take()) {
            (Some(rules), Some(bucket)) if bucket.has(rules.rate, rules.burst) => Some(bucket),
            (Some(rules), _) => Some(Bucket::new(rules.rate, rules.burst)),
            (None, _) => None,
        };
        if rules.probe.is_none() {
            member.active = Active::UP;
        }
        self.refresh(now, index, "configuration".into());
        self.see_to_probing(now, index);
    }

    fn next_incarnation(&mut self) -> Incarnation {
        let incarnation = Incarnation(self.next_incarnation);
        self.next_incarnation += 1;
        incarnation
    }
}
