//! What the timetable does to the world, and how everything is healed.

use tlb_engine::drive::Readiness;
use tlb_engine::fleet::Admin;
use tlb_engine::ids::ListenerId;
use tlb_engine::time::Duration;

use super::{Note, World};
use crate::model::Hatch;
use crate::model::io::Scarcity;
use crate::model::ledger::Injected;
use crate::swarm::peers::Peer;
use crate::swarm::scenario::{Membership, Scenario, Trouble};
use crate::swarm::stream::Origin;

impl World<'_> {
    pub(super) fn note(&mut self, note: Note) {
        match note {
            Note::Client(number) => self.client(number),
            Note::Trouble(number) => {
                let (_, trouble) = self.scenario.faults[number];
                let line = format!("{trouble:?}");
                let mut kernel = self.kernel.borrow_mut();
                let now = kernel.now();
                kernel.ledger.line(now, line);
                drop(kernel);
                self.coverage.trouble(trouble);
                self.trouble(trouble);
            }
            Note::GiveUp(link) => {
                if self.vanished[link] {
                    self.kernel.borrow_mut().give_up(link);
                }
            }
            Note::Message(worker) => self.arrive(worker),
            Note::Heal => self.heal(),
            Note::Fleet => self.fleet_due(),
            Note::Report => self.reported(),
            Note::Probe(number) => self.probe_answered(number),
            Note::Calm => self.calm(),
        }
    }

    fn client(&mut self, number: usize) {
        let client = &self.scenario.clients[number];
        let peer = self.peers.len();
        let sock = self.kernel.borrow_mut().client_connect(
            peer,
            self.scenario.client_link(client),
            client.worker % self.scenario.workers,
            ListenerId(client.listener as u32),
            self.scenario.client_address(number),
        );
        self.peers.push(Peer::new(
            peer,
            Origin::Client(number),
            None,
            sock,
            client.script,
        ));
    }

    fn trouble(&mut self, trouble: Trouble) {
        let now = self.now();
        let kernel = std::rc::Rc::clone(&self.kernel);
        match trouble {
            Trouble::Kill(backend) => {
                kernel.borrow_mut().set_hatch(backend, Hatch::Refusing);
                kernel.borrow_mut().crash(backend);
                self.frozen[backend] = false;
                self.run_all_peers();
            }
            Trouble::Up(backend) => self.up(backend),
            Trouble::Hang(backend) => kernel.borrow_mut().set_hatch(backend, Hatch::Hanging),
            Trouble::Unreachable(backend) => {
                kernel.borrow_mut().set_hatch(backend, Hatch::Unreachable);
            }
            Trouble::Vanish(backend) => {
                let mut kernel = kernel.borrow_mut();
                kernel.set_hatch(backend, Hatch::Hanging);
                kernel.hold(backend, true);
                let wait = Duration::from_millis(kernel.tuning().user_timeout_ms);
                kernel.note_at(now + wait, Note::GiveUp(backend).pack());
                self.vanished[backend] = true;
            }
            Trouble::Freeze(backend) => self.frozen[backend] = true,
            Trouble::Hold(link) => kernel.borrow_mut().hold(link, true),
            Trouble::Release(link) => {
                if !self.vanished.get(link).is_some_and(|&vanished| vanished) {
                    kernel.borrow_mut().hold(link, false);
                }
            }
            Trouble::Latency(link, us) => {
                let latency = Duration::from_micros(us);
                kernel.borrow_mut().set_latency(link, latency, us / 4);
            }
            Trouble::Descriptors(worker, left) => {
                let open = kernel.borrow().ledger.descriptors[worker];
                self.scarcity(worker).descriptors = Some(open + left);
            }
            Trouble::Ports(worker) => self.scarcity(worker).ports = true,
            Trouble::Memory(worker) => self.scarcity(worker).memory = true,
            Trouble::Plenty(worker) => *self.scarcity(worker) = Scarcity::default(),
            Trouble::Gone(worker, count) => self.scarcity(worker).gone += count,
            Trouble::Unregistered(worker, count) => self.scarcity(worker).register += count,
            Trouble::Spurious(worker) => self.spurious(worker),
            Trouble::Late(worker) => {
                let late: Vec<_> = self.workers[worker].old.iter().copied().collect();
                if !late.is_empty() {
                    kernel.borrow_mut().ledger.inject(Injected::Late);
                }
                self.workers[worker].stray.extend(late);
            }
            Trouble::Remove(backend) => self.membership(backend, Membership::Absent),
            Trouble::Add(backend) => self.membership(backend, Membership::Member),
            Trouble::Drain(backend) => self.membership(backend, Membership::Draining),
            Trouble::Readdress(backend) => {
                let (old, new) = self.readdress(backend);
                let mut kernel = kernel.borrow_mut();
                kernel.drop_address(Scenario::backend_address(backend, old));
                kernel.set_address(backend, Scenario::backend_address(backend, new));
                drop(kernel);
                self.configure();
            }
            Trouble::Maint(backend) => self.operate(backend, Admin::Maint),
            Trouble::Ready(backend) => self.operate(backend, Admin::Ready),
            Trouble::Stop => self.stop_all(),
        }
    }

    pub(super) fn stop_all(&mut self) {
        self.rates.stopping = true;
        for worker in &mut self.workers {
            worker.stop = !worker.finished;
        }
    }

    fn scarcity(&mut self, worker: usize) -> &mut Scarcity {
        &mut self.workers[worker].driver.io_mut().scarcity
    }

    /// Events that say everything about whomever was heard of last.
    fn spurious(&mut self, worker: usize) {
        let bits = self.network.next_u64();
        let hint = Readiness {
            readable: bits & 1 != 0,
            writable: bits & 2 != 0,
            read_closed: bits & 4 != 0,
            error: bits & 8 != 0,
            priority: bits & 16 != 0,
        };
        let worker = &mut self.workers[worker];
        let sockets: Vec<_> = worker
            .old
            .iter()
            .map(|&(socket, _)| (socket, hint))
            .collect();
        if !sockets.is_empty() {
            self.kernel.borrow_mut().ledger.inject(Injected::Spurious);
        }
        worker.stray.extend(sockets);
        for listener in 0..self.scenario.listeners.len() {
            worker.driver.acceptable(ListenerId(listener as u32));
        }
    }

    fn up(&mut self, backend: usize) {
        let kernel = std::rc::Rc::clone(&self.kernel);
        if core::mem::take(&mut self.vanished[backend]) {
            kernel.borrow_mut().reboot(backend);
            // Even of one that had closed its socket, the kernel may have had bytes left to send.
            for peer in self
                .peers
                .iter_mut()
                .filter(|it| it.backend == Some(backend))
            {
                peer.killed = true;
            }
            kernel.borrow_mut().hold(backend, false);
        }
        kernel.borrow_mut().set_hatch(backend, Hatch::Open);
        self.frozen[backend] = false;
        kernel.borrow_mut().accept_again(backend);
        self.run_all_peers();
    }

    fn heal(&mut self) {
        for backend in 0..self.scenario.backends.len() {
            self.up(backend);
        }
        self.reset_links();
        for link in 0..self.scenario.links() {
            self.kernel.borrow_mut().hold(link, false);
        }
        for worker in 0..self.workers.len() {
            *self.scarcity(worker) = Scarcity::default();
        }
        self.healed = true;
        self.plan_calm();
        self.run_all_peers();
    }
}
