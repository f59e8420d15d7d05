//! Picking a backend, connecting to it, and what follows when that fails.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::Engine;
use super::choose::{Choice, Unfit};
use crate::api::{Action, CloseReason, Ends, Event, Fault};
use crate::config::Failover;
use crate::failover::backoff;
use crate::health::{Blame, Change, Passive};
use crate::ids::{Incarnation, PoolId};
use crate::roster::Backend;
use crate::session::{Phase, Route, Session};
use crate::time::Timestamp;

impl Engine {
    /// The preread is over, or was not needed: the session goes where `route` says.
    pub(super) fn route(&mut self, now: Timestamp, index: usize, route: Route) {
        self.unproven.insert(index);
        let session = &mut self.sessions[index];
        if let Some(early) = &mut session.early {
            early.route = route;
        }
        if let Some(state) = self.pools.get_mut(session.pool.index()) {
            state.budget.session();
            state.turn = state.turn.wrapping_add(1);
        }
        self.attempt(now, index);
    }

    /// Begins an attempt, or a pause, or the end.
    pub(super) fn attempt(&mut self, now: Timestamp, index: usize) {
        match self.choose(now, index) {
            Choice::Go(backend, to) => self.connect(now, index, backend, to),
            Choice::Turn(backend, at) => self.await_turn(index, backend, at),
            Choice::Later => self.wait(now, index),
            Choice::End(reason) => self.close(now, index, reason, Ends::FIN),
        }
    }

    fn connect(
        &mut self,
        now: Timestamp,
        index: usize,
        backend: Option<Arc<Backend>>,
        to: SocketAddr,
    ) {
        let failover = self.failover(index);
        let from = self.local_address(index, to);
        let incarnation = backend.as_ref().map(|backend| backend.incarnation);
        let warm = incarnation.and_then(|backend| self.take_warm(backend, to));
        let session = &mut self.sessions[index];
        session.enter(Phase::Connecting);
        session.phase_by = now + failover.connect_timeout;
        session.attempts += 1;
        let (id, attempt, pool) = (session.id, session.attempt(), session.pool);
        if let Some(backend) = &backend {
            backend.load.add();
        }
        session.backend = backend;
        let known = session.backend.as_ref().and_then(|it| it.address);
        session.elsewhere = (known != Some(to)).then(|| Box::new(to));
        if let Some(backend) = incarnation {
            self.join(index, backend);
        }
        let trial = self
            .suspect(index)
            .is_some_and(|passive| passive.picked(now));
        self.sessions[index].trial = trial;
        self.events.push_back(Event::Picked {
            session: id,
            attempt,
            pool,
            backend: incarnation,
            to,
        });
        self.actions.push_back(Action::Connect {
            session: id,
            attempt,
            to,
            from,
            warm,
        });
    }

    /// The pool's next local address of the family of `to`.
    pub(super) fn local_address(&self, index: usize, to: SocketAddr) -> Option<core::net::IpAddr> {
        let session = &self.sessions[index];
        let pool = self.roster.pool(session.pool)?;
        let state = self.pools.get(session.pool.index())?;
        let fits = || {
            pool.sources
                .iter()
                .filter(|from| from.is_ipv4() == to.is_ipv4())
        };
        let count = fits().count();
        // Another attempt takes another address: the last one may have run out of ports.
        let turn = state.turn.wrapping_add(usize::from(session.attempts));
        fits().nth(turn.checked_rem(count)?).copied()
    }

    /// The session goes on when it is its turn at a backend that takes sessions at a rate.
    fn await_turn(&mut self, index: usize, backend: Incarnation, at: Timestamp) {
        let session = &mut self.sessions[index];
        if session.phase != Phase::Waiting {
            self.tallies.of(backend, &self.roster).admission_waits += 1;
        }
        session.enter(Phase::Waiting);
        session.phase_by = at;
    }

    fn wait(&mut self, now: Timestamp, index: usize) {
        let session = &mut self.sessions[index];
        let Some(early) = &mut session.early else {
            return;
        };
        early.tried.clear();
        early.rounds += 1;
        let pause = backoff(early.rounds, &mut self.rng);
        session.enter(Phase::Waiting);
        session.phase_by = now + pause;
    }

    /// The kernel says that the connection stands.
    pub(super) fn connected(&mut self, now: Timestamp, index: usize) {
        let session = &self.sessions[index];
        if session.phase != Phase::Connecting {
            return;
        }
        let replays = session.bears_replay() && session.attempts <= self.failover(index).retries;
        let session = &mut self.sessions[index];
        if let Some(early) = &mut session.early {
            early.replays = replays;
        }
        // The deadline stays until a byte proves the connection.
        let deadline = session.phase_by;
        session.enter(Phase::Relaying);
        session.phase_by = deadline;
        session.active = now;
        let (session, attempt) = (session.id, session.attempt());
        self.actions.push_back(Action::Relay { session, attempt });
        let early = self.sessions[index].early.as_ref();
        if early.is_some_and(|early| early.preface.is_empty()) {
            self.establish(now, index);
        }
    }

    /// The backend is this session's from here on: no other one may be tried.
    pub(super) fn establish(&mut self, now: Timestamp, index: usize) {
        let session = &mut self.sessions[index];
        if session.established {
            return;
        }
        session.established = true;
        self.unproven.remove(&index);
        session.phase_by = Timestamp::NEVER;
        session.active = now;
        session.early = None;
        let backend = session.backend.as_ref().map(|backend| backend.incarnation);
        let (id, trial) = (session.id, session.trial);
        if let Some(place) = session.tally {
            self.tallies.at(place).sessions += 1;
        }
        self.events.push_back(Event::Established {
            session: id,
            backend,
        });
        // Where a reset before the first byte counts as a failure, having taken the preface is no success.
        if trial || !self.failover(index).early_resets {
            self.got_through(index);
        }
        self.rewarm(now, index);
    }

    /// The session shows that its backend can be used: failures before it are not in a row with those to come.
    pub(super) fn got_through(&mut self, index: usize) {
        let session = &self.sessions[index];
        let pool = session.pool;
        let Some(backend) = session.backend.as_ref().map(|it| it.incarnation) else {
            return;
        };
        let state = self.pools.get_mut(pool.index());
        let change = state.and_then(|state| state.suspects.clear(backend));
        self.after_change(pool, change);
        if change == Some(Change::Up) {
            self.events.push_back(Event::BackendUp { pool, backend });
        }
    }

    /// An attempt failed before the backend took a byte, or before it sent one where the preface may be replayed:
    /// nothing is lost, another one may follow.
    pub(super) fn attempt_failed(&mut self, now: Timestamp, index: usize, fault: Fault) {
        let failover = self.failover(index);
        let change = if fault.is_local() && !cfg!(tlb_planted = "local-fault-blamed") {
            self.cancel(now, index);
            None
        } else {
            self.blame(now, index, &failover)
        };
        let session = &self.sessions[index];
        let down = session
            .backend
            .as_ref()
            .map(|backend| (session.pool, backend.incarnation));
        self.leave(index, fault);
        if let (Some(Change::Down), Some((pool, backend))) = (change, down) {
            self.events.push_back(Event::BackendDown {
                pool,
                backend,
                fault,
            });
        }
        self.retry(now, index, fault);
        if let (Some(Change::Down), Some((_, backend))) = (change, down) {
            self.leave_backend(now, backend, fault);
        }
    }

    /// The session's backend is at fault.
    pub(super) fn blame(
        &mut self,
        now: Timestamp,
        index: usize,
        failover: &Failover,
    ) -> Option<Change> {
        let mut rng = self.rng.split();
        let session = &self.sessions[index];
        let (pool, tally, trial) = (session.pool, session.tally, session.trial);
        let backend = self.roster.pool(pool)?.current(session.backend.as_ref()?)?;
        let state = self.pools.get_mut(pool.index())?;
        let rules = Blame {
            fall: failover.fall,
            ejection: failover.ejection,
            may_eject: state.standing.may_eject(failover),
        };
        let passive = state.suspects.suspect(backend);
        if !passive.heeds(trial) {
            return None;
        }
        let change = passive.failed(now, rules, &mut rng);
        if let (Some(Change::Down), Some(place)) = (change, tally) {
            self.tallies.at(place).ejections += 1;
        }
        self.after_change(pool, change);
        change
    }

    /// A backend's passive health may have changed.
    fn after_change(&mut self, pool: PoolId, change: Option<Change>) {
        if change.is_some() {
            self.judge_pool(pool);
        }
    }

    /// Gives the current attempt up.
    pub(super) fn leave(&mut self, index: usize, fault: Fault) {
        self.failed_at(index, fault);
        let session = &mut self.sessions[index];
        // Of a preface that another one is to have, nothing has gone yet.
        session.forward = 0;
        session.half_closed = false;
        session.elsewhere = session.to().map(Box::new);
        let backend = session.backend.take();
        if let Some(backend) = &backend
            && !cfg!(tlb_planted = "load-not-returned")
        {
            backend.load.sub();
        }
        session.forget_looks();
        // That was about this backend.
        session.forget_tell();
        let (id, attempt) = (session.id, session.attempt());
        let backend = backend.map(|backend| backend.incarnation);
        if let Some(early) = &mut session.early {
            early.last_fault = Some(fault);
            if !fault.is_local() && !cfg!(tlb_planted = "failed-backend-tried-again") {
                early.tried.extend(backend);
            }
        }
        self.actions.push_back(Action::Abandon {
            session: id,
            attempt,
        });
        self.events.push_back(Event::AttemptFailed {
            session: id,
            attempt,
            backend,
            fault,
        });
    }

    pub(super) fn retry(&mut self, now: Timestamp, index: usize, fault: Fault) {
        let retries = self.failover(index).retries;
        let session = &self.sessions[index];
        let failed = |fault: Fault| {
            if fault.is_local() {
                CloseReason::LocalFault(fault)
            } else {
                CloseReason::ConnectFailed(fault)
            }
        };
        if session.attempts > retries && !cfg!(tlb_planted = "retries-without-end") {
            return self.close(now, index, failed(fault), Ends::FIN);
        }
        let budget = self
            .pools
            .get_mut(session.pool.index())
            .map(|state| &mut state.budget);
        if budget.is_some_and(|budget| !budget.retry(now)) {
            return self.close(now, index, CloseReason::RetryBudget, Ends::FIN);
        }
        if fault.is_local() {
            // Another backend would not help: this host needs a moment.
            self.wait(now, index);
        } else {
            self.attempt(now, index);
        }
    }

    /// `backend` went down: sessions that are still connecting to it need not wait for their own timeouts, if there
    /// is somebody else to go to.
    pub(super) fn leave_backend(&mut self, now: Timestamp, backend: Incarnation, fault: Fault) {
        self.cool_backend(backend);
        let waiting = self.connecting(|it| it.incarnation == backend);
        for index in waiting {
            if self.has_other(now, index) {
                self.cancel(now, index);
                self.leave(index, fault);
                self.retry(now, index, fault);
                self.rearm(index);
            }
        }
    }

    /// Sessions that are connecting to a backend that the roster no longer has go elsewhere at once; those whose
    /// backend is down too, if there is somebody else. Likewise those that wait for their turn.
    pub(super) fn leave_unfit(&mut self, now: Timestamp) {
        for index in self.connecting(|_| true) {
            let session = &self.sessions[index];
            let unfit = session.backend.as_ref();
            let unfit = unfit.and_then(|backend| self.is_unfit(session.pool, backend));
            match unfit {
                Some(Unfit::Gone) => {}
                Some(Unfit::Down) if self.has_other(now, index) => self.cancel(now, index),
                _ => continue,
            }
            self.leave(index, Fault::Unreachable);
            self.retry(now, index, Fault::Unreachable);
            self.rearm(index);
        }
        // Those that have their turn already keep it: choosing anew finds out.
        for index in self.waiting_turn(|_| true) {
            self.attempt(now, index);
            self.rearm(index);
        }
    }

    /// Sessions whose attempt has nothing to show for it yet and whose backend fits.
    pub(super) fn connecting(&self, fits: impl Fn(&Backend) -> bool) -> Vec<usize> {
        self.unproven_where(|session| {
            session.forward == 0 && session.backend.as_ref().is_some_and(|it| fits(it))
        })
    }

    /// Sessions that wait for their turn at a backend that fits.
    pub(super) fn waiting_turn(&self, fits: impl Fn(Incarnation) -> bool) -> Vec<usize> {
        let turn = |session: &Session| session.early.as_ref()?.turn;
        self.unproven_where(|session| {
            let waits = session.phase == Phase::Waiting;
            waits && turn(session).is_some_and(|(backend, _)| fits(backend))
        })
    }

    /// Sessions that are so, of those without an established backend whose end is not decided yet.
    pub(super) fn unproven_where(&self, is_so: impl Fn(&Session) -> bool) -> Vec<usize> {
        let unproven = self.unproven.iter().copied();
        let goes_on = |session: &Session| session.phase != Phase::Winding && is_so(session);
        unproven
            .filter(|&index| goes_on(&self.sessions[index]))
            .collect()
    }

    /// What is held against the session's backend, if anything is.
    fn suspect(&mut self, index: usize) -> Option<&mut Passive> {
        let session = &self.sessions[index];
        let backend = session.backend.as_ref()?.incarnation;
        let state = self.pools.get_mut(session.pool.index())?;
        state.suspects.get(backend)
    }

    /// The current attempt ends without a verdict about its backend.
    pub(super) fn cancel(&mut self, now: Timestamp, index: usize) {
        let trial = self.sessions[index].trial;
        if let Some(passive) = self.suspect(index).filter(|it| it.heeds(trial)) {
            passive.cancelled(now);
        }
    }

    pub(super) fn failover(&self, index: usize) -> Failover {
        let pool = self.roster.pool(self.sessions[index].pool);
        pool.map(|pool| pool.failover.clone()).unwrap_or_default()
    }
}
