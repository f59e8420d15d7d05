//! What a worker is told from outside: another roster, another configuration, that sessions have to go.

use alloc::sync::Arc;

use super::{Door, Driver};
use crate::api::Tell;
use crate::config::Config;
use crate::drive::Io;
use crate::health::Change;
use crate::ids::{Incarnation, PoolId};
use crate::roster::Roster;
use crate::stats::Stats;
use crate::time::Timestamp;

impl<I: Io> Driver<I> {
    /// Replaces the roster.
    pub fn publish(&mut self, now: Timestamp, roster: Arc<Roster>) {
        self.engine.publish(now, roster);
        self.settle(now);
    }

    /// What was counted.
    pub fn stats(&mut self) -> Stats {
        self.engine.stats()
    }

    /// Replaces the configuration; see [`Engine::reconfigure`](crate::Engine::reconfigure). The [`Io`] must be able to
    /// accept at its new listeners, which may all have connections waiting; those that were removed are accepted empty
    /// and then closed.
    pub fn reconfigure(&mut self, now: Timestamp, config: Arc<Config>) {
        self.engine.reconfigure(now, config);
        self.listeners.resize(self.engine.listeners(), Door::Open);
        // Those that were removed may have somebody waiting, of whom no event will tell any more.
        for door in &mut self.listeners {
            if *door == Door::Quiet {
                *door = Door::Open;
            }
        }
        self.settle(now);
    }

    /// The sessions of a backend are to go; see [`Engine::tell`](crate::Engine::tell).
    pub fn tell(&mut self, now: Timestamp, tell: &Tell) {
        self.engine.tell(now, tell);
        self.settle(now);
    }

    /// Another worker changed its mind about a backend; see [`Engine::advise`](crate::Engine::advise).
    pub fn advise(&mut self, now: Timestamp, pool: PoolId, backend: Incarnation, change: Change) {
        self.engine.advise(now, pool, backend, change);
        self.settle(now);
    }

    /// Begins to stop: queues are accepted empty and listeners closed, live sessions end spread over the shutdown
    /// timeout, those idle the longest first.
    pub fn stop(&mut self, now: Timestamp) {
        self.engine.stop(now);
        for door in &mut self.listeners {
            if *door != Door::Shut {
                *door = Door::Open;
            }
        }
        self.settle(now);
    }

    /// Whether it was stopped and nothing is left.
    pub fn finished(&self) -> bool {
        self.engine.is_stopping()
            && self.engine.live() == 0
            && self.listeners.iter().all(|&door| door == Door::Shut)
    }
}
