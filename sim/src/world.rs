//! Makes a scenario happen under turmoil.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tlb_engine::config::Config;
use tlb_engine::fleet::{BackendConfig, FleetConfig, PoolConfig};
use tlb_engine::ids::Incarnation;
use tlb_engine::roster::{Backend, Load, Pool, Roster};
use tlb_engine::time::{Duration, Timestamp};
use turmoil::{Builder, Sim};

use crate::control::{Ear, FleetSetup, control as steer, fleet};
use crate::host::{Command, Control, Seen, Setup, serve};
use crate::net::{Chunker, Resets};
use crate::peers::{Backends, ClientReport, Served, Switch, Table, backend, client};
use crate::scenario::{Fault, FleetRules, Member, Scenario, Streams};
use crate::trace::Trace;

/// Where tlb listens.
pub const LISTEN: u16 = 8011;
/// Where backends listen.
pub const SERVE: u16 = 7001;

/// What happened.
#[derive(Clone, Debug)]
pub struct Run {
    /// The hash of everything.
    pub hash: u64,
    /// How much everything was.
    pub facts: u64,
    /// The rosters' members, by epoch.
    pub rosters: Vec<Vec<Member>>,
    /// What each tlb told.
    pub events: Vec<Vec<Seen>>,
    /// How it went for each client.
    pub clients: Vec<ClientReport>,
    /// How it went for each connection a backend accepted, in that order.
    pub served: Vec<Served>,
    /// Bytes that were wrong, and what was not over in time.
    pub findings: Vec<String>,
}

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario, streams: Streams, trace: Trace) -> Run {
    let mut world = World::build(scenario, streams, trace);
    let findings = world.play();
    let table = &world.table;
    let found = table.findings.borrow();
    Run {
        hash: table.trace.hash(),
        facts: table.trace.count(),
        rosters: world.rosters.clone(),
        events: world.tlbs.iter().map(Control::events).collect(),
        clients: table.reports.borrow().clone(),
        served: table.served.borrow().clone(),
        findings: found.iter().cloned().chain(findings).collect(),
    }
}

struct World<'a> {
    scenario: &'a Scenario,
    sim: Sim<'a>,
    tlbs: Vec<Control>,
    switches: Vec<Switch>,
    /// Each tlb's counts of its backends' sessions, which outlive a roster.
    loads: Vec<Vec<Load>>,
    addresses: Vec<SocketAddr>,
    /// By tlb, where there are fleets.
    ears: Vec<Ear>,
    rosters: Vec<Vec<Member>>,
    table: Table,
}

impl<'a> World<'a> {
    fn build(scenario: &'a Scenario, mut streams: Streams, trace: Trace) -> Self {
        let sim = Builder::new()
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
            .rng_seed(streams.network.next_u64())
            .simulation_duration(scenario.limit)
            .max_message_latency(scenario.latency)
            .tcp_capacity(scenario.window)
            .build();
        let resets = Resets::default();
        let backends = scenario.backends.len();
        let address = |n| SocketAddr::new(sim.lookup(format!("b{n}")), SERVE);
        let mut world = World {
            addresses: (0..backends).map(address).collect(),
            sim,
            tlbs: vec![],
            switches: vec![],
            loads: vec![],
            ears: vec![],
            rosters: vec![scenario.members.clone()],
            table: Table::new(scenario.clients.clone(), resets, trace),
            scenario,
        };
        world.add_backends(&mut streams);
        world.add_tlbs(&mut streams);
        world.add_clients(&mut streams);
        world
    }

    fn add_backends(&mut self, streams: &mut Streams) {
        for (number, &manner) in self.scenario.backends.iter().enumerate() {
            let setup = Backends {
                number: number as u8,
                port: SERVE,
                manner,
                switch: Switch::default(),
                table: self.table.clone(),
            };
            self.switches.push(setup.switch.clone());
            let rng = streams.peers.split();
            self.sim.host(format!("b{number}"), move || {
                let (setup, rng) = (setup.clone(), rng.clone());
                async move { Ok(backend(setup, rng).await?) }
            });
        }
    }

    fn add_tlbs(&mut self, streams: &mut Streams) {
        let config = Arc::new(Config::new(
            vec![self.scenario.listener.clone()],
            self.scenario.limits.clone(),
        ));
        for number in 0..self.scenario.tlbs {
            let loads = self.scenario.backends.iter().map(|_| Load::default());
            self.loads.push(loads.collect());
            let roster = self.roster(number, &self.scenario.members);
            let rules = self.scenario.fleet.as_ref().map(|rules| self.fleet(rules));
            let (ear, roster) = match &rules {
                Some(rules) => {
                    let (_, roster) = fleet(rules, 0);
                    let ear = Ear::default();
                    self.ears.push(ear.clone());
                    (Some(ear), roster)
                }
                None => (None, roster),
            };
            let setup = Setup {
                ear: ear.clone(),
                name: format!("tlb{number}").into(),
                config: Arc::clone(&config),
                ports: vec![LISTEN],
                roster,
                seed: streams.engine.next_u64(),
                chunks: Chunker::new(self.scenario.chunking, streams.chunking.split()),
                resets: self.table.resets.clone(),
                trace: self.table.trace.clone(),
            };
            let strings = Control::default();
            self.tlbs.push(strings.clone());
            // Only a fleet draws on it, so that other worlds stay what they are.
            let fleet_seed = setup.seed ^ 0x0066_6c65_6574;
            self.sim.host(format!("tlb{number}"), move || {
                let (setup, control) = (setup.clone(), strings.clone());
                if let (Some(rules), Some(ear)) = (rules.clone(), ear.clone()) {
                    let (fleet, _) = fleet(&rules, fleet_seed);
                    let (control, trace) = (control.clone(), setup.trace.clone());
                    tokio::task::spawn_local(steer(fleet, rules, ear, control, trace));
                }
                async move {
                    serve(setup, control).await?;
                    // A host whose software has ended does not even refuse.
                    std::future::pending().await
                }
            });
        }
    }

    fn add_clients(&mut self, streams: &mut Streams) {
        for host in 0..self.scenario.client_hosts {
            let mut mine = vec![];
            for number in (host..self.scenario.clients.len()).step_by(self.scenario.client_hosts) {
                let tlb = self.scenario.clients[number].tlb;
                let to = SocketAddr::new(self.sim.lookup(format!("tlb{tlb}")), LISTEN);
                mine.push((number, to, streams.peers.split()));
            }
            let table = self.table.clone();
            self.sim.client(format!("c{host}"), async move {
                let run = |(number, to, rng)| {
                    tokio::task::spawn_local(client(number, to, rng, table.clone()))
                };
                let clients: Vec<_> = mine.into_iter().map(run).collect();
                for client in clients {
                    client.await?;
                }
                Ok(())
            });
        }
    }

    fn fleet(&self, rules: &FleetRules) -> FleetSetup {
        let backends = self.scenario.members.iter();
        let backends = backends.map(|member| BackendConfig {
            id: id(member.backend).into(),
            address: Some(self.addresses[member.backend]),
            weight: member.weight,
            draining: member.draining,
        });
        let pool = PoolConfig {
            name: "stations".into(),
            policy: self.scenario.policy,
            bounded_load: None,
            failover: self.scenario.failover.clone(),
            sources: Vec::new(),
            probe: Some(rules.probe),
            on_down: rules.on_down,
            slow_start: None,
            admission: None,
            backends: backends.collect(),
        };
        FleetSetup {
            config: FleetConfig { pools: vec![pool] },
            exchange: rules.exchange,
            delay: rules.delay,
        }
    }

    fn roster(&self, tlb: usize, members: &[Member]) -> Arc<Roster> {
        let backend = |member: &Member| {
            Arc::new(Backend {
                id: id(member.backend).into(),
                incarnation: Incarnation(member.backend as u32),
                address: Some(self.addresses[member.backend]),
                weight: member.weight,
                draining: member.draining,
                load: self.loads[tlb][member.backend].clone(),
                ..Backend::default()
            })
        };
        let pool = Pool::new(
            "stations",
            self.scenario.policy,
            self.scenario.failover.clone(),
            members.iter().map(backend).collect(),
        );
        Arc::new(Roster {
            epoch: self.rosters.len() as u64 - 1,
            pools: vec![Arc::new(pool)],
        })
    }

    /// Steps until all clients are done, then until every tlb is empty, then until all have
    /// stopped.
    fn play(&mut self) -> Vec<String> {
        let mut due = self.scenario.timetable.iter().peekable();
        loop {
            while let Some((_, fault)) = due.next_if(|(at, _)| *at <= self.sim.elapsed()) {
                self.inflict(fault);
            }
            match self.sim.step() {
                Ok(false) => (),
                Ok(true) => break,
                Err(error) => return vec![format!("{error}; waiting: {}", self.waiting())],
            }
        }
        self.settle()
    }

    fn settle(&mut self) -> Vec<String> {
        let mut findings = vec![];
        let is_empty = |tlb: &Control| tlb.live() == 0 && tlb.sockets() == 0;
        findings.extend(self.step_until("no session is left", self.scenario.settle, is_empty));
        for tlb in &self.tlbs {
            tlb.tell(Command::Stop);
        }
        let most = self.scenario.limits.shutdown_timeout + self.scenario.settle;
        findings.extend(self.step_until("it has stopped", most, Control::has_finished));
        // The last segments are still on their way.
        let end = self.sim.elapsed() + self.scenario.latency + Duration::from_millis(5);
        while self.sim.elapsed() < end {
            if let Err(error) = self.sim.step() {
                findings.push(error.to_string());
                break;
            }
        }
        findings
    }

    fn step_until(
        &mut self,
        what: &str,
        most: Duration,
        is_so: impl Fn(&Control) -> bool,
    ) -> Option<String> {
        let end = self.sim.elapsed() + most;
        while !self.tlbs.iter().all(&is_so) {
            if self.sim.elapsed() > end {
                let live: Vec<_> = self
                    .tlbs
                    .iter()
                    .map(|tlb| (tlb.live(), tlb.sockets()))
                    .collect();
                return Some(format!(
                    "not so after {most:?}: {what}; (sessions, sockets) by tlb: {live:?}"
                ));
            }
            if let Err(error) = self.sim.step() {
                return Some(error.to_string());
            }
        }
        None
    }

    fn waiting(&self) -> String {
        let reports = self.table.reports.borrow();
        let waiting = reports
            .iter()
            .enumerate()
            .filter(|(_, report)| !report.is_done);
        let lines: Vec<_> = waiting
            .map(|(n, report)| format!("c{n} {report:?}"))
            .collect();
        lines.join(", ")
    }

    fn inflict(&mut self, fault: &Fault) {
        let now = Timestamp::ZERO + self.sim.elapsed();
        self.table
            .trace
            .line(now, "world", format_args!("{fault:?}"));
        match fault {
            Fault::Kill(backend) => self.switches[*backend].set(true),
            Fault::Start(backend) => self.switches[*backend].set(false),
            Fault::Crash(backend) => self.sim.crash(id(*backend)),
            Fault::Bounce(backend) => self.sim.bounce(id(*backend)),
            Fault::Hold(a, b) => self.sim.hold(a.as_str(), b.as_str()),
            Fault::Release(a, b) => self.sim.release(a.as_str(), b.as_str()),
            Fault::Stop(tlb) => self.tlbs[*tlb].tell(Command::Stop),
            Fault::Operate(backend, admin) => {
                for ear in &self.ears {
                    ear.operate(id(*backend), *admin);
                }
            }
            Fault::Publish(members) => {
                self.rosters.push(members.clone());
                for (number, tlb) in self.tlbs.iter().enumerate() {
                    tlb.tell(Command::Publish(self.roster(number, members)));
                }
            }
        }
    }
}

/// The id of a backend by its number, which is also its host's name.
pub fn id(backend: usize) -> String {
    format!("b{backend}")
}
