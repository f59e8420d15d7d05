//! What must hold in every scenario. Each checker is small, knows one thing, and is told of events
//! and calls.

mod conservation;
pub mod fleet;
mod half_close;
mod health;
mod integrity;
pub mod rates;
mod replay;
mod routing;
mod timers;

use std::collections::BTreeSet;

use tlb_engine::api::Event;
use tlb_engine::drive::{Outcome, Turn};
use tlb_engine::health::Change;
use tlb_engine::ids::{Dir, Incarnation, PoolId, SessionId};
use tlb_engine::roster::Roster;
use tlb_engine::time::Timestamp;

use self::conservation::Conservation;
use self::half_close::HalfClose;
use self::health::Health;
pub use self::integrity::integrity;
use self::replay::Replay;
use self::routing::Routing;
use self::timers::Timers;
use super::scenario::Scenario;
use crate::model::ledger::{Call, Finding};

/// Where and when something happened.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The world.
    pub scenario: &'a Scenario,
    /// The worker's roster.
    pub roster: &'a Roster,
    /// The worker.
    pub worker: usize,
    /// The time.
    pub now: Timestamp,
}

/// What a checker says.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Something is wrong.
    pub fn add(&mut self, checker: &'static str, what: String) {
        self.0.push(Finding { checker, what });
    }
}

/// All of them, for one worker.
#[derive(Debug, Default)]
pub struct Checkers {
    conservation: Conservation,
    half_close: HalfClose,
    health: Health,
    replay: Replay,
    routing: Routing,
    timers: Timers,
    /// Sessions of which a backend has taken bytes. Where another one may follow they are not established yet, but may
    /// stay and take their time.
    taken: BTreeSet<SessionId>,
}

impl Checkers {
    /// A call was made.
    pub fn call(&mut self, scene: &Scene<'_>, call: &Call, findings: &mut Findings) {
        self.conservation.call(call, findings);
        self.half_close.call(scene, call, findings);
        self.replay.call(call, findings);
        self.timers.call(scene, call, findings);
        if let Call::Drain(session, Dir::Forward, _, Outcome::Moved { .. }) = *call {
            self.taken.insert(session);
        }
    }

    /// The engine said something.
    pub fn event(&mut self, scene: &Scene<'_>, event: &Event, findings: &mut Findings) {
        self.conservation.event(scene, event, findings);
        self.half_close.event(event, findings);
        self.replay.event(scene, event, findings);
        self.routing.event(scene, event, findings);
        self.health.event(scene, event, findings);
        self.timers.event(scene, event, &self.taken, findings);
        if let Event::Closed(closed) = event {
            self.taken.remove(&closed.session);
        }
    }

    /// Another worker's opinion of a backend is about to reach the engine.
    pub fn advised(
        &mut self,
        scenario: &Scenario,
        roster: &Roster,
        now: Timestamp,
        pool: PoolId,
        backend: Incarnation,
        change: Change,
    ) {
        if !health::is_known(roster, pool, backend) {
            return;
        }
        let rules = &scenario.pools[pool.index()].fleet;
        if self
            .routing
            .advised(roster, rules, now, (pool, backend), change)
        {
            self.health.advised(backend, change);
        }
    }

    /// A turn is over, in which so many calls got something done.
    pub fn turn(&mut self, scene: &Scene<'_>, turn: Turn, progress: bool, findings: &mut Findings) {
        self.timers.turn(scene, turn, progress, findings);
        self.routing.turn(scene, &self.taken, findings);
    }

    /// All workers were told to stop.
    pub fn stopped(&mut self, now: Timestamp) {
        self.timers.stopped(now);
        self.half_close.stopped();
    }

    /// Nothing more will happen.
    pub fn end(&self, scene: &Scene<'_>, findings: &mut Findings) {
        self.conservation.end(scene, findings);
        self.health.end(findings);
    }

    /// Sessions that began.
    pub const fn sessions(&self) -> u64 {
        self.conservation.began()
    }
}
