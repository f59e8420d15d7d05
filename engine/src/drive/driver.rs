//! The loop body.

mod doors;
mod early;
mod orders;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use self::doors::Door;
use super::schedule::Schedule;
use super::{Connect, First, Io, Mode, Outcome, Readiness, Turn};
use crate::api::{Action, Close, Ends, Event, Fault, Input};
use crate::duplex::{Duplex, Op};
use crate::engine::Engine;
use crate::ids::{ListenerId, SessionId, Side, SocketId};
use crate::time::{Duration, Timestamp};

/// Most kernel calls one session makes in a turn, and how many bytes moved are enough, so that a bulk flow does not
/// starve small messages.
pub(super) const CALLS_PER_TURN: usize = 32;
pub(super) const BYTES_PER_TURN: usize = 512 * 1024;
/// How often a source that rests is looked at: often enough that nobody notices, seldom enough for a large piece each
/// time.
pub(super) const VISIT_EVERY: Duration = Duration::from_micros(200);
/// How often the sockets of a session that was handed off are asked whether they may go.
const SETTLE_EVERY: Duration = Duration::from_millis(25);
/// Most bytes of a client read in one call before its session has a backend.
const SCRATCH: usize = 16 * 1024;

/// An [`Engine`] and an [`Io`], and the loop body between them.
///
/// A driver's loop is: wait for events until [`Turn::deadline`] (not at all if [`Turn::busy`]), pass each on by
/// [`Driver::ready`] or [`Driver::acceptable`], call [`Driver::turn`], take the events of [`Driver::poll_event`].
pub struct Driver<I: Io> {
    engine: Engine,
    io: I,
    mode: Mode,
    /// What makes a source rest, if not what [`Duplex`] says.
    heavy: Option<usize>,
    links: Vec<Option<Link>>,
    schedule: Schedule,
    /// Sessions with a source that rests, and when to look at it, the first one first.
    visits: VecDeque<(Timestamp, SessionId)>,
    /// Sessions that were handed off and whose sockets are still there, and when to ask whether they may go.
    settling: VecDeque<(Timestamp, SessionId)>,
    /// Results of calls that were known at once; they go in when all actions are taken.
    results: VecDeque<Input<'static>>,
    listeners: Vec<Door>,
    scratch: Box<[u8]>,
}

/// What the driver knows of one session.
#[derive(Debug)]
struct Link {
    id: SessionId,
    duplex: Duplex,
    /// Of the backend socket, if there is one.
    attempt: Option<u8>,
    /// The backend socket is on its way.
    connecting: bool,
    /// An event came for the connecting socket.
    stirred: bool,
    /// It is in the schedule.
    queued: bool,
    /// It moved much when it had its last turn.
    bulk: bool,
    /// A visit is due.
    visit: bool,
    /// It is among those that settle.
    settling: bool,
}

impl<I: Io> Driver<I> {
    /// A driver with no session, whose listeners may all have connections waiting.
    pub fn new(engine: Engine, io: I, mode: Mode) -> Self {
        Self {
            listeners: vec![Door::Open; engine.listeners()],
            engine,
            io,
            mode,
            heavy: None,
            links: Vec::new(),
            schedule: Schedule::default(),
            visits: VecDeque::new(),
            settling: VecDeque::new(),
            results: VecDeque::new(),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
        }
    }

    /// From now on a source rests that brings so many `bytes` at a time: see [`Duplex::heavy`].
    #[must_use]
    pub fn heavy(mut self, bytes: usize) -> Self {
        self.heavy = Some(bytes);
        self
    }

    fn duplex(&self, session: SessionId) -> Duplex {
        let duplex = Duplex::new(self.mode)
            .paced(self.engine.is_paced(session))
            .hands_off(self.engine.hands_off(session));
        match self.heavy {
            Some(bytes) => duplex.heavy(bytes),
            None => duplex,
        }
    }

    /// The kernel's side.
    pub fn io(&self) -> &I {
        &self.io
    }

    /// The kernel's side.
    pub fn io_mut(&mut self) -> &mut I {
        &mut self.io
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// An event said something about a socket. What is unknown or outdated is ignored.
    pub fn ready(&mut self, socket: SocketId, hint: Readiness) {
        let Some(link) = link(&mut self.links, socket.session) else {
            return;
        };
        if socket.side == Side::Backend {
            if link.attempt != Some(socket.attempt) {
                return;
            }
            link.stirred = true;
        }
        link.duplex.ready(socket.side, hint);
        self.enqueue(socket.session);
    }

    /// Does what is due: accepts, reads, relays and timers, each within a budget.
    pub fn turn(&mut self, now: Timestamp) -> Turn {
        self.engine.handle_timeout(now);
        self.settle(now);
        for index in 0..self.listeners.len() {
            self.accept(now, ListenerId(index as u32));
        }
        self.visit(now);
        // A session may join anew as its own work leads to more; what is left then has its turn in the next one.
        for _ in 0..2 * self.schedule.len() {
            let Some(id) = self.schedule.pop() else {
                break;
            };
            if let Some(link) = link(&mut self.links, id) {
                if link.bulk && self.schedule.puts_off(id) {
                    continue;
                }
                link.queued = false;
                self.step(now, id);
            }
        }
        self.schedule.end();
        let waiting = (0..self.listeners.len()).any(|index| {
            self.listeners[index] == Door::Open
                && (self.engine.may_accept(now, ListenerId(index as u32))
                    || self.engine.is_closing(ListenerId(index as u32)))
        });
        let timeout = self.engine.poll_timeout().map(|(at, _)| at);
        let visit = self.visits.front().map(|&(at, _)| at);
        let settle = self.settling.front().map(|&(at, _)| at);
        let deadline = timeout.into_iter().chain(visit).chain(settle).min();
        Turn {
            busy: waiting || !self.schedule.is_empty() || deadline.is_some_and(|at| at <= now),
            deadline,
        }
    }

    /// The next fact for logs, metrics and checkers.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.engine.poll_event()
    }

    /// What is unfinished; `None` when only a new connection could bring work.
    pub fn pending(&self) -> Option<&'static str> {
        let links = self.links.iter().any(Option::is_some);
        self.engine
            .pending()
            .or(links.then_some("a link is left without a session"))
    }

    fn client_broken(&mut self, now: Timestamp, id: SessionId, fault: Fault) {
        self.engine
            .handle(now, Input::ClientBroken { session: id, fault });
        self.settle(now);
    }

    /// Does what one session has to do.
    fn step(&mut self, now: Timestamp, id: SessionId) {
        let Some(link) = link(&mut self.links, id) else {
            return;
        };
        if link.duplex.is_relaying() {
            return self.relay(now, id);
        }
        self.preread(now, id);
        // The event that brought the last bytes for a verdict may also have brought a reset, which no read will find.
        if self.engine.wants(id) == 0 {
            self.connecting(now, id);
        }
    }

    /// Makes the calls that the relay asks for, and reports once.
    fn relay(&mut self, now: Timestamp, id: SessionId) {
        let Some(link) = link(&mut self.links, id) else {
            return;
        };
        let Some(attempt) = link.attempt else {
            return;
        };
        let duplex = &mut link.duplex;
        let (mut calls, mut bytes, mut quiet) = (0, 0, None);
        while calls < CALLS_PER_TURN
            && bytes < BYTES_PER_TURN
            && let Some(op) = duplex.next_op()
        {
            calls += 1;
            let backend = SocketId::backend(id, attempt);
            bytes += perform(&mut self.io, backend, duplex, op, &mut quiet);
        }
        link.bulk = self.schedule.moved(bytes);
        let spent = calls == CALLS_PER_TURN || bytes >= BYTES_PER_TURN;
        if spent && !core::mem::replace(&mut link.queued, true) {
            self.schedule.spent(id);
        }
        if duplex.wants_visit()
            && !cfg!(tlb_planted = "visit-forgotten")
            && !core::mem::replace(&mut link.visit, true)
        {
            self.visits.push_back((now + VISIT_EVERY, id));
        }
        if duplex.is_late() && !core::mem::replace(&mut link.settling, true) {
            self.settling.push_back((now + SETTLE_EVERY, id));
        }
        let report = duplex.take_report();
        if report.is_some() || quiet.is_some() {
            self.engine.handle(
                now,
                Input::Relayed {
                    session: id,
                    attempt,
                    report: report.unwrap_or_default(),
                    quiet,
                },
            );
            self.settle(now);
        }
    }

    /// Lets sources that rest have what they have gathered taken, if their time has come.
    fn visit(&mut self, now: Timestamp) {
        while let Some(&(at, id)) = self.visits.front()
            && at <= now
        {
            self.visits.pop_front();
            if let Some(link) = link(&mut self.links, id) {
                link.visit = false;
                link.duplex.visit();
                self.enqueue(id);
            }
        }
        while let Some(&(at, id)) = self.settling.front()
            && at <= now
        {
            self.settling.pop_front();
            if let Some(link) = link(&mut self.links, id) {
                link.settling = false;
                link.duplex.look();
                self.enqueue(id);
            }
        }
    }

    /// The kernel has news of a session that was handed off.
    pub fn flow(&mut self, session: SessionId) {
        if let Some(link) = link(&mut self.links, session) {
            link.duplex.look();
            self.enqueue(session);
        }
    }

    fn enqueue(&mut self, id: SessionId) {
        if let Some(link) = link(&mut self.links, id)
            && !core::mem::replace(&mut link.queued, true)
        {
            self.schedule.push(id);
        }
    }

    /// Does everything that the engine has asked for, and what follows from that at once.
    fn settle(&mut self, now: Timestamp) {
        loop {
            while let Some(action) = self.engine.poll_action() {
                if let Some(input) = self.perform(action) {
                    self.results.push_back(input);
                }
            }
            let Some(input) = self.results.pop_front() else {
                break;
            };
            self.engine.handle(now, input);
        }
    }

    fn perform(&mut self, action: Action) -> Option<Input<'static>> {
        match action {
            Action::Connect {
                session,
                attempt,
                to,
                from,
                warm,
            } => {
                let preface = self.engine.preface(session);
                let first = First {
                    bytes: &preface,
                    in_syn: self.engine.hurries(session),
                };
                let link = link(&mut self.links, session)?;
                link.attempt = Some(attempt);
                link.stirred = false;
                link.connecting = false;
                let taken = warm.and_then(|warm| self.io.take(session, attempt, warm, first));
                let opened = match taken {
                    Some(progress) => Ok(progress),
                    None => self.io.connect(session, attempt, to, from, first),
                };
                match opened {
                    Ok(Connect::InProgress) => link.connecting = true,
                    Ok(Connect::Established) => return Some(Input::Connected { session, attempt }),
                    Err(fault) => {
                        return Some(Input::ConnectFailed {
                            session,
                            attempt,
                            fault,
                        });
                    }
                }
            }
            Action::Abandon { session, .. } => {
                let link = link(&mut self.links, session)?;
                link.attempt = None;
                link.connecting = false;
                link.duplex.abandon();
                let fault = link.duplex.client_fault();
                self.io.close(session, Side::Backend, Close::Fin);
                // A client that broke with its backend needs no other one.
                return fault.map(|fault| Input::ClientBroken { session, fault });
            }
            Action::Relay { session, .. } => {
                let preface = self.engine.preface(session);
                let link = link(&mut self.links, session)?;
                link.duplex
                    .begin(preface.len(), self.engine.replays(session));
                if !preface.is_empty() {
                    self.io.load(session, preface);
                }
                self.enqueue(session);
            }
            Action::Look { session } => {
                link(&mut self.links, session)?.duplex.look();
                self.enqueue(session);
            }
            Action::Wind { session, how } => {
                link(&mut self.links, session)?.duplex.wind(how);
                self.enqueue(session);
            }
            Action::Close { session, ends } => self.end(session, ends),
            Action::Warm { warm, to, from } => self.io.warm(warm, to, from),
            Action::Cool { warm } => self.io.cool(warm),
        }
        None
    }

    fn end(&mut self, id: SessionId, ends: Ends) {
        if let Some(slot) = self.links.get_mut(id.index()) {
            debug_assert!(
                slot.as_ref().is_some_and(|link| link.id == id),
                "{id} has a link"
            );
            *slot = None;
        }
        for side in [Side::Backend, Side::Client] {
            self.io.close(id, side, ends.of(side));
        }
    }
}

impl<I: Io> fmt::Debug for Driver<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}

fn link(links: &mut [Option<Link>], id: SessionId) -> Option<&mut Link> {
    links
        .get_mut(id.index())?
        .as_mut()
        .filter(|link| link.id == id)
}

/// Makes one kernel call for the relay to `backend`, and returns how many bytes it wrote. If it asks about a session that
/// was handed off, `quiet` is for how long neither peer has sent anything.
fn perform<I: Io>(
    io: &mut I,
    backend: SocketId,
    duplex: &mut Duplex,
    op: Op,
    quiet: &mut Option<Duration>,
) -> usize {
    let id = backend.session;
    let socket = |side| match side {
        Side::Client => SocketId::client(id),
        Side::Backend => backend,
    };
    match op {
        Op::Fill(dir, via) => duplex.filled(dir, via, io.fill(id, dir, via)),
        Op::Drain(dir) => {
            let outcome = io.drain(id, dir);
            duplex.drained(dir, outcome);
            if let Outcome::Moved { bytes, .. } = outcome {
                return bytes;
            }
        }
        Op::Shutdown(side) => duplex.shut(side, io.shutdown(id, side)),
        Op::TakeError(side) => duplex.took_error(side, io.take_error(id, side)),
        Op::Waiting => duplex.waiting(io.waiting(id)),
        Op::Mute(side) => duplex.switched(side, io.hear(socket(side), false)),
        Op::Listen(side) => duplex.switched(side, io.hear(socket(side), true)),
        Op::HandOff => duplex.handed_off(io.hand_off(id)),
        Op::Flow => {
            let flow = io.flow(id);
            *quiet = Some(flow.quiet);
            duplex.flowed(flow);
        }
        Op::Unacknowledged(side) => duplex.unacknowledged(side, io.unacknowledged(id, side)),
    }
    0
}
