//! The engine: one worker's sessions, and what they are to do next.

mod attempt;
mod end;
mod invariants;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;
use slab::Slab;

use crate::api::{Action, CloseReason, Ends, Event, Fault, Input, Report, Shed, Tell};
use crate::balance::{self, Balancer};
use crate::config::{Config, Listener};
use crate::failover::Budget;
use crate::health::{Change, Passive};
use crate::ids::{Dir, Incarnation, ListenerId, PoolId, SessionId, Side};
use crate::preread::Verdict;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::session::{KEY_LOGGED, Phase, Route, Session, SessionView};
use crate::stats::Stats;
use crate::time::{Duration, Timestamp};
use crate::timer::{Queue, Timer};
use crate::unpack::{Reject, Target};

/// How long accepting pauses after this host ran out of something, unless a session ends before.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One worker's sessions: a state machine that is told what happened and answers what to do.
///
/// After every call that takes `&mut self`, drain [`Engine::poll_action`] (and do as it says) before the next call,
/// and drain [`Engine::poll_event`] at leisure. [`crate::drive::Driver`] does all of this.
///
/// **Invariants.** An id that is not of a live session is ignored. What peers send never panics and never makes a
/// call fail. Each accepted session ends with exactly one [`Event::Closed`] and one [`Action::Close`].
#[derive(Debug)]
pub struct Engine {
    config: Arc<Config>,
    roster: Arc<Roster>,
    pools: Vec<PoolState>,
    listeners: Vec<ListenerState>,
    sessions: Slab<Session>,
    timers: Queue,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
    rng: Rng,
    /// Of the next session; never used twice in the time that an id may linger.
    generation: u32,
    /// Bytes that prereads and prefaces hold.
    preread_memory: usize,
    /// When the last session is told to go, once tlb stops.
    stop_by: Option<Timestamp>,
}

/// What an engine knows about a pool beyond the roster.
#[derive(Debug)]
struct PoolState {
    balancer: Balancer,
    budget: Budget,
    /// By slot.
    health: Vec<Passive>,
    /// Sessions that began, to take local addresses in turn.
    turn: usize,
}

#[derive(Debug, Default)]
struct ListenerState {
    /// As configured now, or last.
    rules: Option<Arc<Listener>>,
    live: usize,
    /// Accepting is paused until then.
    paused_until: Timestamp,
}

impl Engine {
    /// An engine with no session. `seed` is its only source of chance.
    pub fn new(config: Arc<Config>, roster: Arc<Roster>, seed: u64, now: Timestamp) -> Self {
        let mut engine = Self {
            listeners: config
                .listeners
                .iter()
                .map(|rules| ListenerState {
                    rules: rules.clone(),
                    ..ListenerState::default()
                })
                .collect(),
            config,
            roster: Arc::default(),
            pools: Vec::new(),
            sessions: Slab::new(),
            timers: Queue::default(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            rng: Rng::new(seed),
            generation: 0,
            preread_memory: 0,
            stop_by: None,
        };
        engine.adopt_roster(now, roster);
        engine
    }

    /// Begins a session for an accepted connection.
    ///
    /// # Errors
    /// Why the client is turned away; its connection is to be closed. Ask [`Engine::may_accept`] before accepting:
    /// a client that waits in the kernel's queue is better off than one that was accepted and dropped.
    pub fn accept(
        &mut self,
        now: Timestamp,
        on: ListenerId,
        peer: SocketAddr,
    ) -> Result<SessionId, Shed> {
        debug_assert!(
            self.actions.is_empty(),
            "actions are drained before the next call"
        );
        if self.stop_by.is_some_and(|at| now >= at) {
            return Err(Shed::Stopping);
        }
        // A listener that was removed still serves who was in its queue.
        let Some(listener) = &self.listeners[on.index()].rules else {
            return Err(Shed::Stopping);
        };
        let entry = self.sessions.vacant_entry();
        let full = self.listeners[on.index()].live >= listener.max_sessions;
        if full || entry.key() > SessionId::MAX_INDEX {
            return Err(Shed::MaxSessions);
        }
        self.generation = self.generation.wrapping_add(1);
        let id = SessionId::new(entry.key(), self.generation);
        let mut session = Session::new(id, on, listener, peer, now);
        session.stop_at = self.stop_by.unwrap_or(Timestamp::NEVER);
        entry.insert(session);
        self.listeners[on.index()].live += 1;
        self.events.push_back(Event::Accepted {
            session: id,
            listener: on,
            peer,
        });
        if self.sessions[id.index()].rules.unpack.is_none() {
            self.route(now, id.index(), Route::Any);
        }
        self.after(id);
        Ok(id)
    }

    /// Whether `listener` should be asked for connections now.
    pub fn may_accept(&self, now: Timestamp, listener: ListenerId) -> bool {
        let state = &self.listeners[listener.index()];
        let room = state.rules.as_ref().map_or(0, |rules| rules.max_sessions);
        state.live < room && now >= state.paused_until && self.sessions.len() < SessionId::MAX_INDEX
    }

    /// This host had nothing left to accept with: accepting pauses for [`ACCEPT_PAUSE`] or until a session ends.
    pub fn accept_failed(&mut self, now: Timestamp, listener: ListenerId, fault: Fault) {
        self.listeners[listener.index()].paused_until = now + ACCEPT_PAUSE;
        if cfg!(tlb_planted = "accept-never-resumes") {
            self.listeners[listener.index()].paused_until = Timestamp::NEVER;
        }
        self.events
            .push_back(Event::AcceptPaused { listener, fault });
    }

    /// How many bytes of the client the session may be given now; zero when it wants none.
    pub fn wants(&self, session: SessionId) -> usize {
        let Some(session) = self.get(session) else {
            return 0;
        };
        match (&session.phase, &session.early) {
            (Phase::Preread, Some(early)) => early.preread.room(session.rules.preread_limit),
            _ => 0,
        }
    }

    /// The bytes that the backend is to receive first: all that the client sent, from the first one not skipped.
    pub fn preface(&self, session: SessionId) -> Bytes {
        let early = self.get(session).and_then(|session| session.early.as_ref());
        early.map(|early| early.preface.clone()).unwrap_or_default()
    }

    /// The phase of a live session.
    pub fn phase(&self, session: SessionId) -> Option<Phase> {
        self.get(session).map(|session| session.phase)
    }

    /// Takes what happened to a session. Ids and attempts that are no longer live are ignored.
    pub fn handle(&mut self, now: Timestamp, input: Input<'_>) {
        debug_assert!(
            self.actions.is_empty(),
            "actions are drained before the next call"
        );
        let id = input.session();
        let Some(session) = self.get(id) else {
            return;
        };
        let phase = session.phase;
        match input {
            Input::Received { bytes, .. } if phase == Phase::Preread => {
                self.received(now, id, bytes);
            }
            Input::Ended { .. } if phase == Phase::Preread => self.ended(now, id),
            Input::ClientBroken { fault, .. } => {
                self.close(
                    now,
                    id.index(),
                    CloseReason::ClientBroken(fault),
                    Ends::RESET,
                );
            }
            Input::Connected { attempt, .. } if session.is_current(attempt) => {
                self.connected(now, id.index());
            }
            Input::ConnectFailed { attempt, fault, .. }
                if session.is_current(attempt) && phase == Phase::Connecting =>
            {
                self.attempt_failed(now, id.index(), fault);
            }
            Input::Relayed {
                attempt, report, ..
            } if session.is_current(attempt)
                && matches!(phase, Phase::Relaying | Phase::Winding) =>
            {
                self.relayed(now, id, &report);
            }
            _ => {}
        }
        self.after(id);
    }

    /// Does what is due at `now`. Calling too early, or twice, does nothing.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for listener in &mut self.listeners {
            if listener.paused_until <= now {
                listener.paused_until = Timestamp::ZERO;
            }
        }
        // Each pass through the loop moves one session's deadline past `now` or ends the session, so it ends.
        while let Some((at, index)) = self.timers.first() {
            if at > now {
                break;
            }
            self.expire(now, index);
        }
    }

    /// Replaces the roster, unless it is older than the one there is.
    ///
    /// Sessions that are connecting to a backend that is gone go to another one at once.
    pub fn publish(&mut self, now: Timestamp, roster: Arc<Roster>) {
        if roster.epoch < self.roster.epoch {
            return;
        }
        self.adopt_roster(now, roster);
        if !cfg!(tlb_planted = "removed-backend-awaited") {
            self.leave_removed(now);
        }
        self.check_all();
    }

    /// Replaces the configuration: sessions that began before go on as they began. A listener that was removed accepts
    /// what its queue still holds.
    pub fn reconfigure(&mut self, _now: Timestamp, config: Arc<Config>) {
        self.config = config;
    }

    /// The sessions of a backend are to go. One that is not known has none.
    pub fn tell(&mut self, _now: Timestamp, _tell: &Tell) {}

    /// Another worker's passive health changed its mind about a backend: this engine's follows, as far as
    /// [`Failover::max_ejected`](crate::config::Failover::max_ejected) lets it.
    pub fn advise(
        &mut self,
        _now: Timestamp,
        _pool: PoolId,
        _backend: Incarnation,
        _change: Change,
    ) {
    }

    /// What was counted.
    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// The live sessions, in no particular order.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView<'_>> {
        core::iter::empty()
    }

    /// What to do next; `None` when everything is said.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next fact.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Engine::handle_timeout`] has to be called at the latest, and what for. It may turn out that nothing
    /// was due.
    pub fn poll_timeout(&self) -> Option<(Timestamp, Timer)> {
        let session = self
            .timers
            .first()
            .map(|(at, index)| (at, self.deadline(index).1));
        let paused = self.listeners.iter().map(|state| state.paused_until);
        let accept = paused
            .filter(|&at| at > Timestamp::ZERO)
            .map(|at| (at, Timer::Accept));
        session.into_iter().chain(accept).min()
    }

    /// How many listeners there are.
    pub fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// Live sessions.
    pub fn live(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes that prereads and prefaces hold now.
    pub fn preread_memory(&self) -> usize {
        self.preread_memory
    }

    /// The roster that picks are made by.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// What is unfinished; `None` when nothing is: no session, no action, no event, no deadline.
    pub fn pending(&self) -> Option<&'static str> {
        if !self.actions.is_empty() {
            Some("an action was not taken")
        } else if !self.events.is_empty() {
            Some("an event was not taken")
        } else if !self.sessions.is_empty() {
            Some("a session is live")
        } else if !self.timers.is_empty() {
            Some("a deadline is armed without a session")
        } else if self.preread_memory > 0 {
            Some("preread memory is held without a session")
        } else {
            None
        }
    }

    fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions
            .get(id.index())
            .filter(|session| session.id == id)
    }

    fn received(&mut self, now: Timestamp, id: SessionId, bytes: &[u8]) {
        if self.preread_memory.saturating_add(bytes.len()) > self.config.limits.preread_memory {
            return self.close(now, id.index(), CloseReason::PrereadMemory, Ends::FIN);
        }
        let session = &mut self.sessions[id.index()];
        let listener = Arc::clone(&session.rules);
        let (Some(early), Some(unpack)) = (&mut session.early, &listener.unpack) else {
            return;
        };
        session.active = now;
        if cfg!(tlb_planted = "preread-deadline-per-byte") {
            session.phase_by = now + listener.preread_timeout;
        }
        let verdict = early.preread.push(bytes, listener.preread_limit, &**unpack);
        self.decide(now, id.index(), verdict);
    }

    fn ended(&mut self, now: Timestamp, id: SessionId) {
        let session = &mut self.sessions[id.index()];
        let listener = Arc::clone(&session.rules);
        let (Some(early), Some(unpack)) = (&mut session.early, &listener.unpack) else {
            return;
        };
        if early.preread.held() == 0 && early.preread.skipped() == 0 {
            return self.close(now, id.index(), CloseReason::ClientLeft, Ends::FIN);
        }
        let verdict = match early.preread.end(&**unpack) {
            // Nothing more can come.
            Verdict::More => Verdict::Reject(Reject::Truncated),
            verdict => verdict,
        };
        self.decide(now, id.index(), verdict);
    }

    /// Acts on what the preread found out.
    fn decide(&mut self, now: Timestamp, index: usize, verdict: Verdict) {
        let session = &mut self.sessions[index];
        let Some(early) = &mut session.early else {
            return;
        };
        session.skipped = early.preread.skipped();
        self.preread_memory = self.preread_memory + early.preread.held() - session.memory;
        session.memory = early.preread.held();
        let target = match verdict {
            Verdict::More => return,
            Verdict::Reject(reject) => {
                return self.close(now, index, CloseReason::Rejected(reject), Ends::FIN);
            }
            Verdict::Limit => return self.close(now, index, CloseReason::PrereadLimit, Ends::FIN),
            Verdict::Route(target) => target,
        };
        let preface = core::mem::take(&mut early.preread).into_preface();
        let route = match target {
            Target::Key(range) => {
                let key = &preface[range];
                session.key = Some(Bytes::copy_from_slice(&key[..key.len().min(KEY_LOGGED)]));
                Route::Key(balance::hash_key(key))
            }
            Target::KeyHash(hash) => Route::Key(hash),
            Target::Backend(range) => Route::Backend(preface.slice(range)),
            Target::Address(address) => Route::Address(address),
            Target::Pool(pool) => {
                session.pool = pool;
                Route::Any
            }
            Target::Any => Route::Any,
        };
        early.preface = preface;
        if cfg!(tlb_planted = "preface-cut-behind-head") {
            early.preface.truncate(64);
        }
        self.route(now, index, route);
    }

    /// The relay did something.
    fn relayed(&mut self, now: Timestamp, id: SessionId, report: &Report) {
        let index = id.index();
        let session = &mut self.sessions[index];
        session.forward += report.forward;
        session.back += report.back;
        // An end that was passed on can be taken back no more than a byte.
        if report.forward + report.back > 0 || report.ended != [false; 2] {
            if !cfg!(tlb_planted = "idle-not-refreshed") {
                session.active = now;
            }
            self.establish(now, index);
        }
        self.release_preface(index);
        let session = &mut self.sessions[index];
        for dir in Dir::BOTH {
            if report.ended[dir as usize] {
                session.half_closed = true;
                session.active = now;
                self.events
                    .push_back(Event::HalfClosed { session: id, dir });
            }
        }
        match report.broken {
            Some((Side::Backend, fault)) if !session.established => {
                return self.attempt_failed(now, index, fault);
            }
            Some((side, fault)) => self.broken(now, index, side, fault),
            None => {}
        }
        self.standing(now, index, report.standing);
    }

    /// The preface's memory is free once the backend has taken all of it.
    fn release_preface(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        if session.memory > 0 && session.forward >= session.memory as u64 {
            self.preread_memory -= core::mem::take(&mut session.memory);
        }
    }

    fn deadline(&self, index: usize) -> (Timestamp, Timer) {
        let session = &self.sessions[index];
        session.deadline()
    }

    /// Puts the session's deadline in order after anything may have changed. A deadline that moved away is left as
    /// it is: it will be found not to be due, which is cheaper than moving it with every byte.
    fn after(&mut self, id: SessionId) {
        let index = id.index();
        if self.get(id).is_none() {
            return;
        }
        let (at, _) = self.deadline(index);
        let armed = self.timers.get(index).unwrap_or(Timestamp::NEVER);
        if (at < armed && !cfg!(tlb_planted = "deadline-not-moved-up")) || at == Timestamp::NEVER {
            self.timers.set(index, at);
        }
        self.check(index);
    }
}

#[cfg(test)]
mod exercise;
#[cfg(test)]
mod tests;
