//! Runs a scenario.

mod fleet;
mod note;
mod troubles;
mod workers;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use tlb_engine::Engine;
use tlb_engine::api::CloseReason;
use tlb_engine::config::Config;
use tlb_engine::drive::{Driver, Readiness};
use tlb_engine::ids::{ListenerId, SocketId};
use tlb_engine::rng::Rng;
use tlb_engine::time::{Duration, Timestamp};

use self::fleet::Control;
use self::note::Note;
use self::workers::Worker;
use super::check::fleet::Whence;
use super::check::rates::Rates;
use super::check::{Findings, Scene, integrity};
use super::coverage::Coverage;
use super::peers::Peer;
use super::scenario::Scenario;
use super::stream::Origin;
use crate::model::io::{ModelIo, Scarcity};
use crate::model::kernel::{Kernel, Stop};
use crate::model::ledger::{Call, Finding};

/// What must be over so long after everything was healed, timeouts not counted.
const LIVENESS: Duration = Duration::from_secs(150);
/// More rounds than any scenario needs. One that moves a megabyte and a half through windows of 512 bytes and buffers of
/// 64 (seed 233480054) needs a little more than three million.
const ROUNDS: u64 = 10_000_000;

/// How a scenario went.
#[derive(Debug)]
pub struct Run {
    /// What was wrong; nothing if all is well.
    pub findings: Vec<Finding>,
    /// Hash of everything that happened.
    pub hash: u64,
    /// Rounds of the world's loop until its end, or until something was wrong.
    pub step: u64,
    /// Things that were due, calls and turns.
    pub events: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Virtual time that passed.
    pub lasted: Duration,
    /// What was seen.
    pub coverage: Coverage,
    /// The last lines of the trace.
    pub last: Vec<String>,
}

/// Runs a scenario to its end, or until something is wrong.
pub fn run(scenario: &Scenario) -> Run {
    let mut world = World::new(scenario);
    world.run();
    world.finish()
}

struct World<'a> {
    scenario: &'a Scenario,
    kernel: Rc<RefCell<Kernel>>,
    workers: Vec<Worker>,
    peers: Vec<Peer>,
    conns: u32,
    control: Control,
    config: Arc<Config>,
    rates: Rates,
    frozen: Vec<bool>,
    vanished: Vec<bool>,
    healed: bool,
    reasons: BTreeMap<usize, CloseReason>,
    findings: Findings,
    coverage: Coverage,
    network: Rng,
    step: u64,
    scratch: Vec<(SocketId, Readiness)>,
    accepts: Vec<ListenerId>,
    calls: Vec<(usize, Call)>,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let mut root = Rng::new(scenario.seed ^ 0x0073_6361_6c65_0000);
        let (mut network, mut engine, chunking) = (root.split(), root.split(), root.split());
        let kernel = Kernel::new(
            scenario.tuning,
            scenario.workers,
            scenario.links(),
            network.split(),
            chunking,
        );
        let kernel = Rc::new(RefCell::new(kernel));
        let control = Control::new(scenario, root.next_u64());
        let roster = Arc::clone(control.fleet.roster());
        let config = Arc::new(scenario.config());
        let worker = |number| {
            let io = ModelIo::new(Rc::clone(&kernel), number, Scarcity::default());
            let engine = Engine::new(
                Arc::clone(&config),
                Arc::clone(&roster),
                engine.next_u64(),
                Timestamp::ZERO,
            );
            let driver = Driver::new(engine, io, scenario.mode);
            Worker::new(driver.heavy(2 * scenario.tuning.copy_buffer))
        };
        let workers = (0..scenario.workers).map(worker).collect();
        let mut world = Self {
            scenario,
            kernel,
            workers,
            peers: Vec::new(),
            conns: 0,
            control,
            config,
            rates: Rates::default(),
            frozen: vec![false; scenario.backends.len()],
            vanished: vec![false; scenario.backends.len()],
            healed: false,
            reasons: BTreeMap::new(),
            findings: Findings::default(),
            coverage: Coverage::default(),
            network,
            step: 0,
            scratch: Vec::new(),
            accepts: Vec::new(),
            calls: Vec::new(),
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        let scenario = self.scenario;
        self.reset_links();
        let mut kernel = self.kernel.borrow_mut();
        for worker in 0..scenario.workers {
            for listener in 0..scenario.listeners.len() {
                kernel.listen(worker, ListenerId(listener as u32));
            }
        }
        for backend in 0..scenario.backends.len() {
            kernel.set_address(backend, Scenario::backend_address(backend, 0));
        }
        let at = |us| Timestamp::ZERO + Duration::from_micros(us);
        for (number, client) in scenario.clients.iter().enumerate() {
            kernel.note_at(at(client.at_us), Note::Client(number).pack());
        }
        for (number, &(us, _)) in scenario.faults.iter().enumerate() {
            kernel.note_at(at(us), Note::Trouble(number).pack());
        }
        kernel.note_at(at(scenario.heal_us), Note::Heal.pack());
        drop(kernel);
        self.steer(Whence::Elsewhere);
    }

    fn reset_links(&self) {
        let mut kernel = self.kernel.borrow_mut();
        for (link, backend) in self.scenario.backends.iter().enumerate() {
            let latency = Duration::from_micros(backend.latency_us);
            kernel.set_latency(link, latency, backend.jitter_us);
        }
        let clients = self.scenario.backends.len()..self.scenario.links();
        let latency = self.scenario.backends.first().map_or(0, |it| it.latency_us);
        for link in clients {
            kernel.set_latency(link, Duration::from_micros(latency), 0);
        }
    }

    fn now(&self) -> Timestamp {
        self.kernel.borrow().now()
    }

    fn run(&mut self) {
        self.until_quiet();
        if !self.findings.0.is_empty() {
            return;
        }
        self.quiescence("after everything was healed");
        self.agreed();
        self.stop_all();
        self.until_quiet();
        self.quiescence("after the stop");
        for (number, worker) in self.workers.iter().enumerate() {
            if !worker.driver.finished() {
                let what = format!("worker {number} was stopped, but is not finished");
                self.findings.add("quiescence", what);
            }
        }
        self.end();
    }

    /// Runs until nothing is due any more.
    fn until_quiet(&mut self) {
        loop {
            self.step += 1;
            if self.step > ROUNDS {
                self.findings
                    .add("quiescence", "the world does not come to rest".into());
            }
            if !self.findings.0.is_empty() {
                return;
            }
            let stop = self.kernel.borrow_mut().advance();
            if let Stop::Note(note) = stop {
                self.note(Note::unpack(note));
                continue;
            }
            if self.run_peers() || self.run_workers() {
                continue;
            }
            let Some(next) = self.next() else {
                return;
            };
            let heal = Timestamp::ZERO + Duration::from_micros(self.scenario.heal_us);
            if next > heal + LIVENESS + self.patience() {
                return self.unfinished();
            }
            self.kernel.borrow_mut().set_time(next);
        }
    }

    fn next(&self) -> Option<Timestamp> {
        let due = self.kernel.borrow().next_due();
        let workers = self.workers.iter().filter(|worker| !worker.finished);
        let wakes = workers.filter_map(|worker| worker.run_at.or(worker.deadline));
        due.into_iter().chain(wakes).min()
    }

    /// The longest that any session may wait for its timeouts.
    fn patience(&self) -> Duration {
        let doors = self.scenario.listeners.iter();
        let longest = doors.map(|it| it.preread_ms + it.half_close_ms + it.idle_ms.unwrap_or(0));
        Duration::from_millis(longest.max().unwrap_or(0) + self.scenario.reset_ms)
    }

    fn unfinished(&mut self) {
        self.quiescence("in bounded time");
        if self.findings.0.is_empty() {
            self.findings
                .add("quiescence", "something goes on for ever".into());
        }
    }

    fn quiescence(&mut self, when: &str) {
        let workers = self.workers.iter().enumerate();
        for (number, worker) in workers {
            if let Some(what) = worker.driver.pending() {
                self.findings
                    .add("quiescence", format!("worker {number}: {what} {when}"));
            }
        }
        for peer in self.peers.iter().filter(|peer| !peer.done) {
            let what = format!("{} still waits {when}", peer.origin);
            self.findings.add("quiescence", what);
        }
    }

    // ---- Peers.

    fn run_peers(&mut self) -> bool {
        let mut ran = false;
        loop {
            let link = self.kernel.borrow_mut().ready_backend();
            let Some(link) = link else { break };
            if !self.frozen[link] {
                ran |= self.serve(link);
            }
        }
        loop {
            let peer = self.kernel.borrow_mut().ready_peer();
            let Some(peer) = peer else { break };
            ran = true;
            self.run_peer(peer);
        }
        ran
    }

    fn serve(&mut self, backend: usize) -> bool {
        let number = self.peers.len();
        let accepted = self.kernel.borrow_mut().backend_accept(backend, number);
        let Some(sock) = accepted else {
            return false;
        };
        let origin = Origin::Conn(self.conns);
        self.conns += 1;
        let script = self.scenario.backends[backend].script;
        self.peers
            .push(Peer::new(number, origin, Some(backend), sock, script));
        true
    }

    fn run_peer(&mut self, number: usize) {
        let Some(peer) = self.peers.get_mut(number) else {
            return;
        };
        if peer.backend.is_some_and(|backend| self.frozen[backend]) {
            return;
        }
        let mut kernel = self.kernel.borrow_mut();
        let result = peer.run(&mut kernel, self.scenario, self.healed);
        peer.retire(&mut kernel);
        if let Err(slip) = result {
            let origin = peer.origin;
            self.findings.add("integrity", format!("{origin}: {slip}"));
        }
    }

    fn run_all_peers(&mut self) {
        for number in 0..self.peers.len() {
            self.run_peer(number);
        }
    }

    // ---- The end.

    fn end(&mut self) {
        let kernel = self.kernel.borrow();
        for (number, worker) in self.workers.iter().enumerate() {
            let scene = Scene {
                scenario: self.scenario,
                roster: worker.driver.engine().roster(),
                worker: number,
                now: kernel.now(),
            };
            worker.checkers.end(&scene, &mut self.findings);
            let descriptors = kernel.ledger.descriptors[number];
            let pipes = worker.driver.io().pipes();
            let (sockets, bytes) = worker.driver.io().holdings();
            if descriptors + pipes + sockets + bytes > 0 {
                let what = format!(
                    "worker {number} keeps {descriptors} descriptors, {pipes} pipes, {sockets} \
                     sockets and {bytes} bytes"
                );
                self.findings.add("conservation", what);
            }
        }
        if let Some(what) = self.control.leaks() {
            self.findings.add("conservation", what);
        }
        for rules in self.config.listeners.iter().flatten() {
            if rules.per_source.as_ref().is_some_and(|it| it.live() > 0) {
                let what = "an address counts sessions where there are none".into();
                self.findings.add("conservation", what);
            }
        }
        drop(kernel);
        integrity(
            self.scenario,
            &self.peers,
            &self.reasons,
            &mut self.findings,
        );
    }

    fn finish(mut self) -> Run {
        let kernel = self.kernel.borrow();
        for (kind, count) in kernel.ledger.injected() {
            self.coverage.injected(kind, count);
        }
        Run {
            hash: kernel.ledger.hash(),
            step: self.step,
            events: kernel.ledger.events,
            sessions: self.workers.iter().map(|it| it.checkers.sessions()).sum(),
            lasted: kernel.now().since(Timestamp::ZERO),
            last: kernel.ledger.last(),
            findings: core::mem::take(&mut self.findings.0),
            coverage: core::mem::take(&mut self.coverage),
        }
    }
}
