//! The truth about backends, and the rosters that follow from it.

use std::sync::Arc;

use tlb_engine::ids::Incarnation;
use tlb_engine::roster::{Backend, Load, Pool, Roster};

use crate::swarm::scenario::{Membership, Scenario};

/// All backends, members or not.
#[derive(Debug)]
pub(super) struct Fleet {
    members: Vec<Member>,
    pools: Vec<Arc<Pool>>,
    epoch: u64,
    incarnations: u32,
    /// Every count there ever was: each must come back to zero.
    loads: Vec<Load>,
}

#[derive(Debug)]
struct Member {
    pool: usize,
    weight: u32,
    membership: Membership,
    place: u8,
    backend: Arc<Backend>,
}

impl Fleet {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let mut fleet = Self {
            members: Vec::new(),
            pools: Vec::new(),
            epoch: 0,
            incarnations: 0,
            loads: Vec::new(),
        };
        for (number, it) in scenario.backends.iter().enumerate() {
            let load = Load::default();
            fleet.loads.push(load.clone());
            let draining = it.membership == Membership::Draining;
            let backend = fleet.incarnate(number, 0, it.weight, draining, load);
            fleet.members.push(Member {
                pool: it.pool,
                weight: it.weight,
                membership: it.membership,
                place: 0,
                backend,
            });
        }
        for (number, group) in scenario.pools.iter().enumerate() {
            let backends = fleet.of_pool(number);
            let mut pool = Pool::new(
                format!("p{number}"),
                group.policy,
                group.failover(),
                backends,
            );
            pool.bounded_load = group.bounded;
            fleet.pools.push(Arc::new(pool));
        }
        fleet
    }

    fn incarnate(
        &mut self,
        number: usize,
        place: u8,
        weight: u32,
        draining: bool,
        load: Load,
    ) -> Arc<Backend> {
        self.incarnations += 1;
        Arc::new(Backend {
            id: format!("b{number}").into(),
            incarnation: Incarnation(self.incarnations),
            address: Some(Scenario::backend_address(number, place)),
            weight,
            draining,
            load,
            ..Backend::default()
        })
    }

    fn of_pool(&self, pool: usize) -> Vec<Arc<Backend>> {
        let members = self.members.iter();
        members
            .filter(|member| member.pool == pool && member.membership != Membership::Absent)
            .map(|member| Arc::clone(&member.backend))
            .collect()
    }

    /// The roster of now.
    pub(super) fn roster(&self) -> Arc<Roster> {
        Arc::new(Roster {
            epoch: self.epoch,
            pools: self.pools.clone(),
        })
    }

    /// A backend joins, drains or leaves.
    pub(super) fn set(&mut self, number: usize, membership: Membership) {
        let member = &self.members[number];
        if member.membership == membership {
            return;
        }
        let returns = member.membership == Membership::Absent;
        let draining = membership == Membership::Draining;
        let (place, weight) = (member.place, member.weight);
        let backend = if returns {
            let load = Load::default();
            self.loads.push(load.clone());
            self.incarnate(number, place, weight, draining, load)
        } else {
            Arc::new(Backend {
                draining,
                ..(*member.backend).clone()
            })
        };
        let member = &mut self.members[number];
        member.membership = membership;
        member.backend = backend;
        self.publish(number);
    }

    /// A backend moves; returns its old and its new place.
    pub(super) fn readdress(&mut self, number: usize) -> (u8, u8) {
        let member = &self.members[number];
        let (old, new) = (member.place, member.place.wrapping_add(1));
        let draining = member.backend.draining;
        let (weight, load) = (member.weight, member.backend.load.clone());
        let backend = self.incarnate(number, new, weight, draining, load);
        let member = &mut self.members[number];
        member.place = new;
        member.backend = backend;
        self.publish(number);
        (old, new)
    }

    fn publish(&mut self, number: usize) {
        self.epoch += 1;
        let pool = self.members[number].pool;
        let backends = self.of_pool(pool);
        self.pools[pool] = Arc::new(self.pools[pool].with_backends(backends));
    }

    /// Loads that are left when no session is.
    pub(super) fn leaks(&self) -> Option<String> {
        let left: u32 = self.loads.iter().map(Load::get).sum();
        (left > 0).then(|| format!("backends count {left} sessions where there are none"))
    }
}
