//! The control side: the fleet that ships, its probes, and its words on their way to the workers.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;

use tlb_engine::api::{Event, Tell};
use tlb_engine::config::Failover;
use tlb_engine::fleet::{
    Admin, Admission, BackendConfig, Fleet, FleetAction, FleetConfig, FleetInput, OnDown,
    PoolConfig, ProbeConfig, ProbeId, ProbeOutcome,
};
use tlb_engine::health::Change;
use tlb_engine::ids::{Incarnation, PoolId};
use tlb_engine::roster::{Load, Roster};
use tlb_engine::time::{Duration, Timestamp};

use super::{Note, World};
use crate::model::kernel::Reach;
use crate::swarm::check::fleet::{FleetCheck, Whence};
use crate::swarm::scenario::{Group, Membership, Scenario};

/// After everything was healed, probes go on for so long: enough for every backend to come up.
const CALM: Duration = Duration::from_secs(5);

/// What is on its way to a worker.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Publish(Arc<Roster>),
    Tell(Tell),
    Advise(PoolId, Incarnation, Change),
}

/// The control thread.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) fleet: Fleet,
    members: Vec<Member>,
    /// Probes that are under way, by backend.
    probes: BTreeMap<ProbeId, usize>,
    /// Given up, but their answer comes nevertheless: it was on its way.
    late: BTreeMap<ProbeId, usize>,
    /// By worker: what was sent and has not arrived, and when the last of it will.
    transit: Vec<(VecDeque<Message>, Timestamp)>,
    reports: VecDeque<FleetInput>,
    /// The fleet asked to be woken then.
    asked: Timestamp,
    /// Nothing more is probed.
    calm: bool,
    /// Every count there ever was: each must come back to zero.
    loads: BTreeMap<Incarnation, Load>,
    pub(super) check: FleetCheck,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    membership: Membership,
    place: u8,
}

impl Control {
    pub(super) fn new(scenario: &Scenario, seed: u64) -> Self {
        let members = scenario.backends.iter();
        let members: Vec<_> = members
            .map(|it| Member {
                membership: it.membership,
                place: 0,
            })
            .collect();
        let fleet = Fleet::new(config(scenario, &members), seed, Timestamp::ZERO);
        let mut control = Self {
            fleet,
            members,
            probes: BTreeMap::new(),
            late: BTreeMap::new(),
            transit: vec![(VecDeque::new(), Timestamp::ZERO); scenario.workers],
            reports: VecDeque::new(),
            asked: Timestamp::NEVER,
            calm: false,
            loads: BTreeMap::new(),
            check: FleetCheck::default(),
        };
        let first = Arc::clone(control.fleet.roster());
        control.keep_loads(&first);
        control.check.published(&first);
        control
    }

    fn keep_loads(&mut self, roster: &Roster) {
        for backend in roster.pools.iter().flat_map(|pool| pool.backends()) {
            let load = || backend.load.clone();
            self.loads.entry(backend.incarnation).or_insert_with(load);
        }
    }

    /// Loads that are left when no session is.
    pub(super) fn leaks(&self) -> Option<String> {
        let left: u32 = self.loads.values().map(Load::get).sum();
        (left > 0).then(|| format!("backends count {left} sessions where there are none"))
    }
}

fn config(scenario: &Scenario, members: &[Member]) -> FleetConfig {
    let pools = scenario.pools.iter().enumerate();
    let pools = pools.map(|(number, group)| {
        let here = scenario.backends.iter().zip(members).enumerate();
        let here = here.filter(|(_, (backend, member))| {
            backend.pool == number && member.membership != Membership::Absent
        });
        let backends = here.map(|(index, (backend, member))| BackendConfig {
            id: format!("b{index}").into(),
            address: Some(Scenario::backend_address(index, member.place)),
            weight: backend.weight,
            draining: member.membership == Membership::Draining,
        });
        pool_config(number, group, backends.collect())
    });
    FleetConfig {
        pools: pools.collect(),
    }
}

fn pool_config(number: usize, group: &Group, backends: Vec<BackendConfig>) -> PoolConfig {
    let rules = &group.fleet;
    let ms = Duration::from_millis;
    let failover: Failover = group.failover();
    PoolConfig {
        name: format!("p{number}").into(),
        policy: group.policy,
        bounded_load: group.bounded,
        failover,
        sources: Vec::new(),
        probe: rules.health.map(|it| ProbeConfig {
            interval: ms(it.interval_ms),
            fast_interval: ms(it.interval_ms),
            timeout: ms(it.timeout_ms),
            rise: it.rise,
            fall: it.fall,
        }),
        on_down: OnDown {
            how: rules.on_down,
            rate: NonZeroU32::new(rules.tell_rate).unwrap_or(NonZeroU32::MIN),
        },
        slow_start: rules.ramp_ms.map(ms),
        admission: rules.admission.and_then(|(rate, burst)| {
            Some(Admission {
                rate: NonZeroU32::new(rate)?,
                burst: NonZeroU32::new(burst)?,
            })
        }),
        backends,
    }
}

impl World<'_> {
    /// Does what the fleet asks for, after it was told something.
    pub(super) fn steer(&mut self, whence: Whence) {
        let now = self.now();
        while let Some(action) = self.control.fleet.poll_action() {
            let line = format!("fleet {action}");
            self.kernel.borrow_mut().ledger.line(now, line);
            self.coverage.fleet_action(&action);
            let control = &mut self.control;
            control
                .check
                .action(self.scenario, &action, whence, now, &mut self.findings);
            match action {
                FleetAction::Publish(roster) => {
                    control.keep_loads(&roster);
                    self.send(None, &Message::Publish(roster));
                }
                FleetAction::Tell(tell) => self.send(None, &Message::Tell(tell)),
                FleetAction::Advise {
                    pool,
                    backend,
                    change,
                    except,
                } => self.send(except, &Message::Advise(pool, backend, change)),
                FleetAction::Probe { probe, to, .. } => self.probe(probe, to),
                FleetAction::Cancel { probe } => {
                    let backend = control.probes.remove(&probe);
                    if let Some(backend) = backend.filter(|_| self.network.below(2) == 0) {
                        control.late.insert(probe, backend);
                    }
                }
                _ => {}
            }
        }
        while let Some(event) = self.control.fleet.poll_event() {
            let line = format!("fleet {event}");
            self.kernel.borrow_mut().ledger.line(now, line);
            self.coverage.fleet_event(&event);
        }
        let control = &mut self.control;
        control
            .check
            .settled(self.scenario, &control.fleet, &mut self.findings);
        self.ask_for_time();
    }

    fn ask_for_time(&mut self) {
        let at = self
            .control
            .fleet
            .poll_timeout()
            .unwrap_or(Timestamp::NEVER);
        if at < self.control.asked && !self.control.calm {
            self.control.asked = at;
            self.kernel.borrow_mut().note_at(at, Note::Fleet.pack());
        }
    }

    /// A word to all workers but one: each has it in its own time, and in order.
    fn send(&mut self, except: Option<u32>, message: &Message) {
        let now = self.now();
        for worker in 0..self.workers.len() {
            if except == Some(worker as u32) {
                continue;
            }
            let late = self.network.below(self.scenario.control_us + 1);
            let (transit, last) = &mut self.control.transit[worker];
            let at = (now + Duration::from_micros(late)).max(*last);
            *last = at;
            transit.push_back(message.clone());
            let note = Note::Message(worker).pack();
            self.kernel.borrow_mut().note_at(at, note);
        }
    }

    /// The oldest word to a worker arrives.
    pub(super) fn arrive(&mut self, worker: usize) {
        if let Some(message) = self.control.transit[worker].0.pop_front() {
            self.workers[worker].inbox.push_back(message);
        }
    }

    /// A worker takes its words.
    pub(super) fn take_words(&mut self, number: usize) {
        let now = self.now();
        while let Some(message) = self.workers[number].inbox.pop_front() {
            let worker = &mut self.workers[number];
            match message {
                Message::Publish(roster) => worker.driver.publish(now, roster),
                Message::Tell(tell) => worker.driver.tell(now, &tell),
                Message::Advise(pool, backend, change) => {
                    let roster = Arc::clone(worker.driver.engine().roster());
                    worker
                        .checkers
                        .advised(self.scenario, &roster, now, pool, backend, change);
                    worker.driver.advise(now, pool, backend, change);
                }
            }
            self.observe(number);
        }
    }

    /// What a worker's sessions found out goes to the fleet.
    pub(super) fn report(&mut self, worker: usize, event: &Event) {
        let (backend, change) = match *event {
            Event::BackendDown { backend, .. } => (backend, Change::Down),
            Event::BackendUp { backend, .. } => (backend, Change::Up),
            _ => return,
        };
        self.control.reports.push_back(FleetInput::Reported {
            worker: worker as u32,
            backend,
            change,
        });
        let late = Duration::from_micros(self.scenario.control_us);
        let at = self.now() + late;
        self.kernel.borrow_mut().note_at(at, Note::Report.pack());
    }

    /// The oldest report arrives.
    pub(super) fn reported(&mut self) {
        if let Some(report) = self.control.reports.pop_front() {
            let now = self.now();
            self.control.fleet.handle(now, report);
            self.steer(Whence::Elsewhere);
        }
    }

    /// The fleet's time has come.
    pub(super) fn fleet_due(&mut self) {
        self.control.asked = Timestamp::NEVER;
        if self.control.calm {
            return;
        }
        let now = self.now();
        self.control.fleet.handle_timeout(now);
        self.steer(Whence::Timeout);
    }

    /// A probe sets out: what it finds is decided when its first answer would be back.
    fn probe(&mut self, probe: ProbeId, to: std::net::SocketAddr) {
        let Some((backend, _)) = place_of(to) else {
            return;
        };
        self.control.probes.insert(probe, backend);
        self.control.check.probing(probe, to);
        let about = &self.scenario.backends[backend];
        let mut way = about.latency_us * 2 + self.network.below(about.jitter_us + 1);
        // Some answers are slow, and come when the fleet no longer waits for them.
        if let Some(rules) = self.scenario.pools[about.pool].fleet.health
            && !self.healed
            && self.network.below(8) == 0
        {
            way += self.network.below(rules.timeout_ms * 3_000 + 1);
        }
        let at = self.now() + Duration::from_micros(way);
        self.kernel
            .borrow_mut()
            .note_at(at, Note::Probe(probe.0 as usize).pack());
    }

    /// A probe would have its answer now.
    pub(super) fn probe_answered(&mut self, number: usize) {
        let probe = ProbeId(number as u64);
        let late = self.control.late.remove(&probe);
        let under_way = self.control.probes.get(&probe).copied();
        let Some(backend) = under_way.or(late) else {
            return;
        };
        let pool = self.scenario.backends[backend].pool;
        let exchange = self.scenario.pools[pool]
            .fleet
            .health
            .is_some_and(|it| it.exchange);
        let reach = self.kernel.borrow().reach(backend);
        let outcome = match reach {
            Reach::Answers if exchange && self.frozen[backend] => return,
            Reach::Answers => ProbeOutcome::Passed,
            Reach::Refuses => ProbeOutcome::Failed("refused".into()),
            Reach::Unreachable => ProbeOutcome::Failed("unreachable".into()),
            // The fleet will give it up.
            Reach::Silent => return,
        };
        self.control.probes.remove(&probe);
        let now = self.now();
        if late.is_none() {
            self.control.check.probed(self.scenario, probe, &outcome);
        }
        self.control
            .fleet
            .handle(now, FleetInput::Probed { probe, outcome });
        self.steer(Whence::Elsewhere);
    }

    /// A backend joins, drains or leaves.
    pub(super) fn membership(&mut self, backend: usize, membership: Membership) {
        self.control.members[backend].membership = membership;
        self.configure();
    }

    /// A backend moves; returns its old and its new place.
    pub(super) fn readdress(&mut self, backend: usize) -> (u8, u8) {
        let member = &mut self.control.members[backend];
        let old = member.place;
        member.place = old.wrapping_add(1);
        (old, member.place)
    }

    pub(super) fn configure(&mut self) {
        let now = self.now();
        let config = config(self.scenario, &self.control.members);
        self.control
            .fleet
            .handle(now, FleetInput::Configure(config));
        self.steer(Whence::Configuration);
    }

    /// An operator wants something.
    pub(super) fn operate(&mut self, backend: usize, admin: Admin) {
        let now = self.now();
        let pool = self.scenario.backends[backend].pool;
        let (pool, id) = (format!("p{pool}"), format!("b{backend}"));
        if self.control.fleet.set(now, &pool, &id, admin).is_ok() {
            self.control.check.word(&id, admin);
        }
        self.steer(Whence::Elsewhere);
    }

    /// Everything was healed: when probes have seen that, they end.
    pub(super) fn plan_calm(&mut self) {
        let at = self.now() + CALM;
        self.kernel.borrow_mut().note_at(at, Note::Calm.pack());
    }

    pub(super) fn calm(&mut self) {
        self.control.calm = true;
        for pool in self.control.fleet.view() {
            for backend in pool.backends {
                if backend.state == tlb_engine::fleet::State::Down {
                    let what = format!("{} is well, and still down", backend.id);
                    self.findings.add("active health", what);
                }
            }
        }
    }

    /// All have the fleet's roster.
    pub(super) fn agreed(&mut self) {
        let epoch = self.control.fleet.roster().epoch;
        for (number, worker) in self.workers.iter().enumerate() {
            let has = worker.driver.engine().roster().epoch;
            if has != epoch && !worker.finished {
                let what = format!("worker {number} has roster {has}, the fleet {epoch}");
                self.findings.add("divergence", what);
            }
        }
    }
}

/// Which backend is at an address, and in which place.
fn place_of(at: std::net::SocketAddr) -> Option<(usize, u8)> {
    let std::net::IpAddr::V4(ip) = at.ip() else {
        return None;
    };
    let [_, _, backend, place] = ip.octets();
    Some((usize::from(backend), place))
}
