//! Workers, whose loops run as those of `io-linux` do.

use std::collections::VecDeque;

use tlb_engine::api::Event;
use tlb_engine::drive::{Driver, Outcome, Readiness};
use tlb_engine::ids::SocketId;
use tlb_engine::time::{Duration, Timestamp};

use super::World;
use super::fleet::Message;
use crate::model::io::ModelIo;
use crate::model::ledger::{Call, Taken};
use crate::swarm::check::{Checkers, Scene};

/// Old events that are kept to come again.
const OLD: usize = 16;

pub(super) struct Worker {
    pub(super) driver: Driver<ModelIo>,
    pub(super) checkers: Checkers,
    pub(super) deadline: Option<Timestamp>,
    pub(super) busy: bool,
    pub(super) run_at: Option<Timestamp>,
    pub(super) inbox: VecDeque<Message>,
    pub(super) stop: bool,
    /// Events to be given for no reason.
    pub(super) stray: Vec<(SocketId, Readiness)>,
    pub(super) old: VecDeque<(SocketId, Readiness)>,
    pub(super) finished: bool,
}

impl Worker {
    pub(super) fn new(driver: Driver<ModelIo>) -> Self {
        Self {
            driver,
            checkers: Checkers::default(),
            deadline: None,
            busy: true,
            run_at: None,
            inbox: VecDeque::new(),
            stop: false,
            stray: Vec::new(),
            old: VecDeque::new(),
            finished: false,
        }
    }
}

impl World<'_> {
    pub(super) fn run_workers(&mut self) -> bool {
        let now = self.now();
        let mut ran = false;
        for number in 0..self.workers.len() {
            let events = self.kernel.borrow().has_events(number);
            let worker = &mut self.workers[number];
            if worker.finished {
                continue;
            }
            let told = worker.stop || !worker.inbox.is_empty() || !worker.stray.is_empty();
            let due = worker.deadline.is_some_and(|at| at <= now);
            if worker.run_at.is_none() && (events || told || due) {
                let lag = self.network.below(self.scenario.lag_us + 1);
                worker.run_at = Some(now + Duration::from_micros(lag));
            }
            if worker.busy || worker.run_at.is_some_and(|at| at <= now) {
                self.turn(number);
                ran = true;
            }
        }
        ran
    }

    /// One round of a worker's loop, as `io-linux` runs it.
    fn turn(&mut self, number: usize) {
        let now = self.now();
        let mut events = core::mem::take(&mut self.scratch);
        let mut accepts = core::mem::take(&mut self.accepts);
        {
            let mut kernel = self.kernel.borrow_mut();
            kernel.take_events(number, &mut events);
            kernel.take_accepts(number, &mut accepts);
        }
        let crossings = self.kernel.borrow_mut().take_crossings(number);
        let worker = &mut self.workers[number];
        for session in crossings {
            worker.driver.flow(session);
        }
        worker.run_at = None;
        events.append(&mut worker.stray);
        for (socket, hint) in events.drain(..) {
            worker.driver.ready(socket, hint);
            worker.old.push_back((socket, hint));
            if worker.old.len() > OLD {
                worker.old.pop_front();
            }
        }
        for listener in accepts.drain(..) {
            worker.driver.acceptable(listener);
        }
        self.scratch = events;
        self.accepts = accepts;
        self.take_words(number);
        if core::mem::take(&mut self.workers[number].stop) {
            self.workers[number].driver.stop(now);
            self.workers[number].checkers.stopped(now);
        }
        let turn = self.workers[number].driver.turn(now);
        let progress = self.observe(number);
        let worker = &mut self.workers[number];
        worker.deadline = turn.deadline;
        worker.busy = turn.busy;
        worker.finished = worker.driver.finished();
        let scene = Scene {
            scenario: self.scenario,
            roster: worker.driver.engine().roster(),
            worker: number,
            now,
        };
        worker
            .checkers
            .turn(&scene, turn, progress, &mut self.findings);
        if self.step.is_multiple_of(64) {
            worker.driver.engine().check_all();
        }
    }

    /// Shows the checkers what happened; returns whether anything got done.
    pub(super) fn observe(&mut self, number: usize) -> bool {
        let now = self.now();
        let worker = &mut self.workers[number];
        let mut events = Vec::new();
        while let Some(event) = worker.driver.poll_event() {
            events.push(event);
        }
        let scene = Scene {
            scenario: self.scenario,
            roster: worker.driver.engine().roster(),
            worker: number,
            now,
        };
        let mut calls = core::mem::take(&mut self.calls);
        {
            let mut kernel = self.kernel.borrow_mut();
            kernel.ledger.events += 1;
            calls.append(&mut kernel.ledger.calls);
            self.findings.0.append(&mut kernel.ledger.findings);
            for event in &events {
                kernel.ledger.line(now, format!("w{number} {event:?}"));
            }
        }
        let mut progress = !events.is_empty();
        for (_, call) in calls.drain(..) {
            progress |= is_progress(&call);
            self.coverage.call(&call);
            worker.checkers.call(&scene, &call, &mut self.findings);
        }
        self.calls = calls;
        for event in &events {
            self.coverage.event(event);
            self.rates.event(&scene, event, &mut self.findings);
            worker.checkers.event(&scene, event, &mut self.findings);
            if let Event::Closed(closed) = event
                && let Some(client) = self.scenario.client_at(closed.peer)
            {
                self.reasons.insert(client, closed.reason);
            }
        }
        for event in &events {
            self.report(number, event);
        }
        progress
    }
}

/// Whether a call got something done, rather than found that there was nothing to do.
const fn is_progress(call: &Call) -> bool {
    match call {
        Call::Recv(_, outcome) | Call::Fill(_, _, _, outcome) | Call::Drain(_, _, _, outcome) => {
            !matches!(outcome, Outcome::WouldBlock | Outcome::NoPipe)
        }
        Call::Accept(_, taken) => matches!(taken, Taken::One | Taken::Gone),
        Call::Connected(..) | Call::TakeError(..) | Call::Unacknowledged(..) => false,
        _ => true,
    }
}
