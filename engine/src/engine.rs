//! The engine: one worker's sessions, and what they are to do next.

mod attempt;
mod choose;
mod end;
mod invariants;
mod listeners;
mod pools;
mod tally;
mod told;
mod warm;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::num::NonZeroU8;
use slab::Slab;

use self::listeners::ListenerState;
use self::pools::PoolState;
use self::tally::Tallies;
pub use self::warm::WARM_FOR;
use self::warm::Warm;
use crate::api::{Action, CloseReason, Ends, Event, Fault, Input, Report};
use crate::balance;
use crate::config::Config;
use crate::ids::{Dir, Incarnation, PoolId, SessionId, Side};
use crate::preread::Verdict;
use crate::rng::Rng;
use crate::roster::{Backend, Roster};
use crate::session::{KEY_LOGGED, Phase, Route, Session};
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
    /// Sessions that were routed and whose backend is not established: those that another roster may concern.
    unproven: BTreeSet<usize>,
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
    /// Backends whose sessions were told to go because it is down, and some may not have had their turn.
    told: BTreeMap<Incarnation, (PoolId, Arc<Backend>)>,
    tallies: Tallies,
    warm: Warm,
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
            unproven: BTreeSet::new(),
            timers: Queue::default(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            rng: Rng::new(seed),
            generation: 0,
            preread_memory: 0,
            stop_by: None,
            told: BTreeMap::new(),
            tallies: Tallies::default(),
            warm: Warm::default(),
        };
        engine.adopt_roster(now, roster);
        engine
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

    /// Whether an end of the session's backend before its first byte is to be reported rather than passed on: see
    /// [`Listener::replay`](crate::config::Listener::replay).
    pub fn replays(&self, session: SessionId) -> bool {
        self.get(session).is_some_and(Session::may_replay)
    }

    /// Whether the preface may go to the backend with the SYN, for it may get it twice: the pool wants it, and the
    /// listener bears it.
    pub fn hurries(&self, session: SessionId) -> bool {
        self.get(session).is_some_and(|session| {
            let pool = self.roster.pool(session.pool);
            session.bears_replay() && pool.is_some_and(|pool| pool.failover.fast_open)
        })
    }

    /// Whether what the session's sockets are given is [paced](crate::config::Listener::paced).
    pub fn is_paced(&self, session: SessionId) -> bool {
        self.get(session).is_some_and(|session| session.rules.paced)
    }

    /// When the session is offered to the kernel, see [`Listener::hand_off`](crate::config::Listener::hand_off).
    pub fn hands_off(&self, session: SessionId) -> Option<NonZeroU8> {
        self.get(session)?.rules.hand_off
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
                attempt,
                report,
                quiet,
                ..
            } if session.is_current(attempt)
                && matches!(phase, Phase::Relaying | Phase::Winding) =>
            {
                self.relayed(now, id, &report, quiet);
            }
            _ => {}
        }
        self.after(id);
    }

    /// Does what is due at `now`. Calling too early, or twice, does nothing.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.resume_accepting(now);
        self.cool_due(now);
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
        self.cool_unwanted();
        if !cfg!(tlb_planted = "removed-backend-awaited") {
            self.leave_unfit(now);
        }
        self.forgive();
        self.check_all();
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
        let accept = self.accept_at().map(|at| (at, Timer::Accept));
        let warm = self.warm.due().map(|at| (at, Timer::Warm));
        session.into_iter().chain(accept).chain(warm).min()
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
                session.key = Some(key[..key.len().min(KEY_LOGGED)].into());
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
    fn relayed(&mut self, now: Timestamp, id: SessionId, report: &Report, quiet: Option<Duration>) {
        let index = id.index();
        let session = &mut self.sessions[index];
        session.forward += report.forward;
        session.back += report.back;
        self.tallies.moved(session, report);
        self.listeners[session.listener.index()].moved(report);
        let proven = report.proven && !cfg!(tlb_planted = "answered-but-replayed");
        // What was read can be given back no more than what was written, and an end that was passed on neither.
        if report.forward + report.back > 0 || report.ended != [false; 2] || proven {
            if !cfg!(tlb_planted = "idle-not-refreshed") {
                session.active = now;
            }
            // It has the preface: from here on it may take its time.
            if !session.away {
                session.phase_by = Timestamp::NEVER;
            }
            if !session.may_replay() || proven || report.ended[Dir::Return as usize] {
                self.establish(now, index);
            }
        }
        let first = report.back > 0 && self.sessions[index].back == report.back;
        // A byte or an orderly end: it is not about to reset this one before its first byte.
        if (first || report.ended[Dir::Return as usize]) && self.failover(index).early_resets {
            self.got_through(index);
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
        if report.handed_off {
            self.events.push_back(Event::HandedOff { session: id });
        }
        self.away(now, index, report, quiet);
        let session = &mut self.sessions[index];
        match report.broken {
            Some((Side::Backend, fault))
                if !session.established && session.phase == Phase::Relaying =>
            {
                return self.attempt_failed(now, index, fault);
            }
            Some((Side::Backend, Fault::Reset)) if session.back == 0 => {
                self.early_reset(now, index);
                self.broken(now, index, Side::Backend, Fault::Reset);
            }
            Some((side, fault)) => self.broken(now, index, side, fault),
            None => {}
        }
        self.standing(now, index, report.standing);
    }

    /// The preface's memory is free once the backend has taken all of it.
    fn release_preface(&mut self, index: usize) {
        let session = &mut self.sessions[index];
        if session.memory > 0 && session.early.is_none() && session.forward >= session.memory as u64
        {
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
