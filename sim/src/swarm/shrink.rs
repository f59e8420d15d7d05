//! Makes a failing scenario smaller while it fails in the same way.

use super::frames;
use super::scenario::{FRAME_FIXED, Framing, Scenario, Script, Start, Then, Trouble};

/// Tries smaller scenarios as long as `fails` says that one still does, at most `budget` of them.
///
/// Greedy: first whole blocks of clients and faults are dropped, then single ones, then what
/// remains is made simpler. Starts over as long as anything got smaller.
pub fn shrink(scenario: &Scenario, budget: usize, fails: impl Fn(&Scenario) -> bool) -> Scenario {
    let mut attempt = Attempt {
        best: scenario.clone(),
        left: budget,
        fails,
    };
    loop {
        let before = attempt.best.clone();
        attempt.drop_blocks(
            |it| it.clients.len(),
            |it, range| drop(it.clients.drain(range)),
        );
        attempt.drop_blocks(
            |it| it.faults.len(),
            |it, range| drop(it.faults.drain(range)),
        );
        attempt.simplify();
        if attempt.best == before || attempt.left == 0 {
            return attempt.best;
        }
    }
}

/// Drops the last backend, unless a fault is about it or about a link behind its own.
fn drop_last_backend(scenario: &mut Scenario) {
    let last = scenario.backends.len() - 1;
    let later = |trouble: &Trouble| trouble.numbers().0.is_some_and(|of| of >= last);
    if !scenario.faults.iter().any(|(_, trouble)| later(trouble)) {
        scenario.backends.pop();
    }
}

struct Attempt<F> {
    best: Scenario,
    left: usize,
    fails: F,
}

impl<F: Fn(&Scenario) -> bool> Attempt<F> {
    /// Keeps a candidate if it fails too.
    fn attempt(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        if candidate == self.best || self.left == 0 {
            return false;
        }
        self.left -= 1;
        let keeps = (self.fails)(&candidate);
        if keeps {
            self.best = candidate;
        }
        keeps
    }

    fn drop_blocks(
        &mut self,
        len: impl Fn(&Scenario) -> usize,
        remove: impl Fn(&mut Scenario, std::ops::Range<usize>),
    ) {
        let mut block = len(&self.best);
        while block > 0 {
            let mut at = 0;
            while at < len(&self.best) {
                let range = at..(at + block).min(len(&self.best));
                if !self.attempt(|it| remove(it, range)) {
                    at += block;
                }
            }
            block /= 2;
        }
    }

    fn simplify(&mut self) {
        self.attempt(|it| {
            it.workers = 1;
            it.clients.iter_mut().for_each(|client| client.worker = 0);
            it.faults
                .iter_mut()
                .for_each(|(_, trouble)| trouble.to_first_worker());
        });
        while self.best.backends.len() > 1 && self.attempt(drop_last_backend) {}
        self.attempt(|it| it.lag_us = 0);
        self.attempt(|it| it.tuning.partial = 0);
        self.attempt(|it| it.tuning.immediate = 0);
        self.attempt(|it| it.tuning.pipes = 1000);
        for number in 0..self.best.listeners.len() {
            self.attempt(|it| it.listeners[number].replay = false);
        }
        for number in 0..self.best.backends.len() {
            self.attempt(|it| it.backends[number].jitter_us = 0);
            self.attempt(|it| it.backends[number].latency_us = 0);
            self.script(|it| &mut it.backends[number].script);
        }
        for number in 0..self.best.clients.len() {
            self.attempt(|it| {
                let client = &mut it.clients[number];
                client.garbage = 0;
                client.evil = false;
            });
            self.attempt(shorter_frame(number));
            self.script(|it| &mut it.clients[number].script);
        }
    }

    fn script(&mut self, of: impl Fn(&mut Scenario) -> &mut Script) {
        self.attempt(|it| of(it).pause_us = 0);
        self.attempt(|it| of(it).chunk = 1 << 20);
        self.attempt(|it| of(it).urgent = false);
        self.attempt(|it| {
            of(it).read = u32::MAX;
            of(it).read_pause_us = 0;
        });
        self.attempt(|it| of(it).quit = None);
        self.attempt(|it| {
            let script = of(it);
            script.then = if script.start == Start::Now {
                Then::Fin
            } else {
                Then::FinLast
            };
        });
        while self.attempt(|it| of(it).send /= 2) {}
    }
}

/// A client's frame as short as its framing lets it be.
fn shorter_frame(number: usize) -> impl Fn(&mut Scenario) {
    move |it| {
        let door = it.listeners[it.clients[number].listener];
        let shortest = match door.framing {
            Framing::Spec(spec) => frames::sizes(&spec, door.limit).map(|(least, _)| least as u32),
            Framing::Recorded(_) => return,
            _ => Ok(FRAME_FIXED),
        };
        if let Ok(shortest) = shortest {
            it.clients[number].frame = shortest;
        }
    }
}
