//! The fleet: the truth about a process's backends, from which rosters follow.
//!
//! One per process, sans-IO like the [`Engine`](crate::Engine)s of its workers. It is told what the configuration
//! says, what names resolve to, what probes found, what workers saw and what an operator wants; it says which probes
//! to make, which roster to publish, and which sessions are to be told.
//!
//! ```text
//! configuration ─▶                     ─▶ Publish(roster) ─▶ every worker
//! probe results ─▶  Fleet (one/process) ─▶ Tell, Advise   ─▶ every worker, after the roster it belongs to
//! reports       ─▶                     ─▶ Probe, Cancel   ─▶ whoever probes
//! operator      ─▶                     ─▶ events          ─▶ log, metrics, checkers
//! ```

mod api;
mod configure;
mod display;
mod member;
mod probing;
#[cfg(test)]
mod tests;

pub use api::{
    Admin, Admission, BackendConfig, BackendView, FleetAction, FleetConfig, FleetError, FleetEvent,
    FleetInput, OnDown, PoolConfig, PoolView, ProbeConfig, ProbeId, ProbeOutcome, State,
};

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use slab::Slab;

use self::configure::PoolState;
use self::member::Member;
use crate::api::{Tell, Why};
use crate::health::Change;
use crate::ids::{Incarnation, PoolId};
use crate::rng::Rng;
use crate::roster::{Pool, Ramp, Roster};
use crate::time::Timestamp;
use crate::timer::Queue;

/// The truth about the backends of a process.
///
/// After every call that takes `&mut self`, drain [`Fleet::poll_action`] and do as it says, in order. Whoever has
/// several inputs at once (a thousand probes that fail together) gives them all before it does so, and gets one
/// roster.
#[derive(Debug)]
pub struct Fleet {
    /// By [`PoolId`].
    pools: Vec<PoolState>,
    names: BTreeMap<Box<str>, PoolId>,
    members: Slab<Member>,
    incarnations: BTreeMap<Incarnation, usize>,
    next_incarnation: u32,
    /// Under way, with their backend's place in the slab.
    probes: BTreeMap<ProbeId, usize>,
    next_probe: u64,
    /// By place in the slab: the end of a probe under way, or the begin of the next one.
    timers: Queue,
    roster: Arc<Roster>,
    /// Pools that are no longer as the roster has them.
    dirty: BTreeSet<PoolId>,
    /// To be told once the roster is out.
    tells: Vec<(PoolId, Incarnation, Why)>,
    actions: VecDeque<FleetAction>,
    events: VecDeque<FleetEvent>,
    rng: Rng,
    now: Timestamp,
}

impl Fleet {
    /// A fleet of `config`'s pools, whose backends with an address are up until something else is known.
    /// `seed` is its only source of chance. Its first roster is there at once, and not published again.
    pub fn new(config: FleetConfig, seed: u64, now: Timestamp) -> Self {
        let mut fleet = Self {
            pools: Vec::new(),
            names: BTreeMap::new(),
            members: Slab::new(),
            incarnations: BTreeMap::new(),
            next_incarnation: 1,
            probes: BTreeMap::new(),
            next_probe: 0,
            timers: Queue::default(),
            roster: Arc::default(),
            dirty: BTreeSet::new(),
            tells: Vec::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            rng: Rng::new(seed),
            now,
        };
        fleet.configure(now, config);
        fleet.rebuild();
        fleet
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Timestamp, input: FleetInput) {
        self.now = now;
        match input {
            FleetInput::Configure(config) => self.configure(now, config),
            FleetInput::Resolved {
                pool,
                backend,
                address,
            } => {
                if let Ok(index) = self.find(&pool, &backend) {
                    self.settle_at(now, index, address);
                }
            }
            FleetInput::Probed { probe, outcome } => self.probed(now, probe, outcome),
            FleetInput::Reported {
                worker,
                backend,
                change,
            } => self.reported(now, worker, backend, change),
        }
    }

    /// Does what is due. Calling too early, or twice, does nothing. Results of probes that are there go in before.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        while let Some((at, index)) = self.timers.first() {
            if at > now {
                break;
            }
            self.expire(now, index);
        }
    }

    /// What to do next; `None` when everything is said.
    pub fn poll_action(&mut self) -> Option<FleetAction> {
        if self.actions.is_empty() && !(self.dirty.is_empty() && self.tells.is_empty()) {
            self.publish();
        }
        self.actions.pop_front()
    }

    /// The next fact.
    pub fn poll_event(&mut self) -> Option<FleetEvent> {
        self.events.pop_front()
    }

    /// When [`Fleet::handle_timeout`] has to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| at)
    }

    /// An operator wants something of a backend. It holds until the process ends or the operator changes it, also
    /// over reloads.
    ///
    /// # Errors
    /// There is no such pool or backend; nothing was changed.
    pub fn set(
        &mut self,
        now: Timestamp,
        pool: &str,
        backend: &str,
        admin: Admin,
    ) -> Result<(), FleetError> {
        self.now = now;
        let index = self.find(pool, backend)?;
        let member = &mut self.members[index];
        let before = member.admin();
        member.word = Some(admin);
        let (id, incarnation) = (member.pool, member.incarnation);
        self.pools[id.index()].words.insert(backend.into(), admin);
        if before == admin {
            return Ok(());
        }
        if before == Admin::Maint {
            self.rise(now, index);
        }
        if admin == Admin::Maint {
            self.tell_later(id, incarnation, Why::Maint);
        }
        self.dirty.insert(id);
        self.refresh(now, index, "operator".into());
        self.see_to_probing(now, index);
        Ok(())
    }

    /// The roster as it is now.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// The id of the pool of that name, if the configuration has it.
    pub fn pool(&self, name: &str) -> Option<PoolId> {
        let id = *self.names.get(name)?;
        self.pools[id.index()].configured.then_some(id)
    }

    /// The ids that the pools of `config` have, or will have when it is configured, in its order: what listeners that
    /// are built along with it refer to.
    pub fn ids(&self, config: &FleetConfig) -> Vec<PoolId> {
        let mut next = self.pools.len() as u32;
        let mut id = |pool: &PoolConfig| {
            self.names.get(&pool.name).copied().unwrap_or_else(|| {
                next += 1;
                PoolId(next - 1)
            })
        };
        config.pools.iter().map(&mut id).collect()
    }

    /// All pools of the configuration, ordered by name.
    pub fn view(&self) -> Vec<PoolView> {
        let view = |id: &PoolId| {
            let pool = &self.pools[id.index()];
            let backends = pool.members.values();
            pool.configured.then(|| PoolView {
                id: *id,
                name: String::from(&*pool.config.name),
                policy: pool.config.policy,
                panic: pool.panic,
                backends: backends.map(|&index| self.members[index].view()).collect(),
            })
        };
        self.names.values().filter_map(view).collect()
    }

    /// What is unfinished; `None` when the fleet waits for nothing but time and its next probes.
    pub fn pending(&self) -> Option<Box<str>> {
        if !self.actions.is_empty() || !self.dirty.is_empty() || !self.tells.is_empty() {
            Some("an action was not taken".into())
        } else if !self.events.is_empty() {
            Some("an event was not taken".into())
        } else {
            None
        }
    }

    fn find(&self, pool: &str, backend: &str) -> Result<usize, FleetError> {
        let id = self.pool(pool).ok_or(FleetError::UnknownPool)?;
        let members = &self.pools[id.index()].members;
        members
            .get(backend)
            .copied()
            .ok_or(FleetError::UnknownBackend)
    }

    /// A worker's own sessions found out about a backend.
    fn reported(&mut self, now: Timestamp, worker: u32, backend: Incarnation, change: Change) {
        let Some(&index) = self.incarnations.get(&backend) else {
            return;
        };
        let member = &mut self.members[index];
        match change {
            Change::Down => {
                if !member.ejected_by.insert(worker) {
                    return;
                }
                member.ejections += 1;
            }
            // Whoever got through shows that it can be done.
            Change::Up => member.ejected_by.clear(),
        }
        self.actions.push_back(FleetAction::Advise {
            pool: member.pool,
            backend,
            change,
            except: Some(worker),
        });
        let cause = alloc::format!("worker {worker}");
        self.refresh(now, index, cause.into());
    }

    /// A backend is back from down or maintenance.
    fn rise(&mut self, now: Timestamp, index: usize) {
        let member = &mut self.members[index];
        let (pool, backend) = (member.pool, member.incarnation);
        let over = self.pools[pool.index()].config.slow_start;
        member.ramp = over.map(|over| Ramp { from: now, over });
        // What sessions learnt while it was away is over, too: its keys go home at once.
        if !core::mem::take(&mut member.ejected_by).is_empty() {
            self.actions.push_back(FleetAction::Advise {
                pool,
                backend,
                change: Change::Up,
                except: None,
            });
        }
    }

    /// Says so if a backend stands otherwise than before.
    fn refresh(&mut self, now: Timestamp, index: usize, cause: Box<str>) {
        let member = &mut self.members[index];
        let to = member.stands();
        self.dirty.insert(member.pool);
        if member.state == to {
            return;
        }
        let from = core::mem::replace(&mut member.state, to);
        member.since = now;
        self.events.push_back(FleetEvent::State {
            pool: self.pools[member.pool.index()].config.name.clone(),
            backend: member.config.id.clone(),
            from,
            to,
            cause,
        });
    }

    /// The sessions of a backend are to go, if the pool wants that: once the roster is out that sends no more.
    fn tell_later(&mut self, pool: PoolId, backend: Incarnation, why: Why) {
        if cfg!(tlb_planted = "removed-not-told") && why == Why::Removed {
            return;
        }
        self.tells.push((pool, backend, why));
    }

    /// Publishes what changed, and then tells whom it concerns.
    fn publish(&mut self) {
        let panics: Vec<PoolId> = self.dirty.iter().copied().collect();
        for id in panics {
            self.judge_panic(id);
        }
        if cfg!(tlb_planted = "tell-before-roster") {
            self.tell();
        }
        if self.rebuild() {
            self.actions
                .push_back(FleetAction::Publish(Arc::clone(&self.roster)));
        }
        self.tell();
    }

    fn tell(&mut self) {
        for (pool, backend, why) in core::mem::take(&mut self.tells) {
            let state = &self.pools[pool.index()];
            let how = state.config.on_down.how;
            // While health is not believed, nobody has to go because of it.
            let wanted = match why {
                Why::Down => how.is_some() && !state.panic,
                Why::Removed => how.is_some(),
                Why::Maint => true,
            };
            if wanted {
                self.actions.push_back(FleetAction::Tell(Tell {
                    backend,
                    why,
                    how,
                    pace: state.pace.clone(),
                }));
            }
        }
    }

    /// Whether too few backends of a pool are up.
    fn judge_panic(&mut self, id: PoolId) {
        let pool = &mut self.pools[id.index()];
        let (mut eligible, mut up) = (0_u64, 0_u64);
        for &index in pool.members.values() {
            let member = &self.members[index];
            eligible += u64::from(member.is_eligible());
            up += u64::from(member.is_eligible() && member.active.up);
        }
        let panic = 100 * up < u64::from(pool.config.failover.panic) * eligible;
        if core::mem::replace(&mut pool.panic, panic) == panic {
            return;
        }
        self.events.push_back(FleetEvent::Panic {
            pool: pool.config.name.clone(),
            on: panic,
        });
        if !panic {
            let down = pool.members.values().map(|&index| &self.members[index]);
            let down = down.filter(|member| !member.active.up && member.is_eligible());
            let tells = down.map(|member| (id, member.incarnation, Why::Down));
            self.tells.extend(tells);
        }
    }

    /// Makes the roster anew as far as pools changed. Returns whether it differs.
    fn rebuild(&mut self) -> bool {
        let mut changed = self.roster.pools.len() != self.pools.len();
        for id in core::mem::take(&mut self.dirty) {
            let pool = &mut self.pools[id.index()];
            let backends: Vec<_> = pool
                .members
                .values()
                .map(|&index| self.members[index].shared(self.now))
                .collect();
            let (old, rules) = (&*pool.shared, &pool.config);
            let same_rules = old.policy == rules.policy
                && old.bounded_load == rules.bounded_load
                && old.failover == rules.failover
                && old.sources == rules.sources;
            let same = |(one, other)| Arc::ptr_eq(one, other);
            if same_rules
                && old.backends().len() == backends.len()
                && old.backends().iter().zip(&backends).all(same)
            {
                continue;
            }
            let mut new = if old.policy == rules.policy {
                old.with_backends(backends)
            } else {
                let (name, failover) = (rules.name.clone(), rules.failover.clone());
                Pool::new(name, rules.policy, failover, backends)
            };
            new.bounded_load = rules.bounded_load;
            new.failover = rules.failover.clone();
            new.sources.clone_from(&rules.sources);
            pool.shared = Arc::new(new);
            changed = true;
        }
        if changed {
            self.roster = Arc::new(Roster {
                epoch: self.roster.epoch + 1,
                pools: self.pools.iter().map(|it| Arc::clone(&it.shared)).collect(),
            });
        }
        changed
    }
}
