//! One session: what is known about it, and which steps are legal.
//!
//! ```text
//!                      ┌──────── redispatch ─────────┐
//! accept ─▶ Preread ─▶ Connecting ─▶ Relaying ─▶ Winding ─▶ closed
//!                      └─▶ Waiting ─▶┘
//! ```
//! Every phase may also go straight to closed. *Winding* means that the reason of the end is known and only bytes
//! that were already read are still on their way.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;

use crate::api::{CloseReason, Closed, Fault, TellHow, Why};
use crate::config::Listener;
use crate::ids::{Incarnation, ListenerId, PoolId, SessionId};
use crate::preread::Preread;
use crate::roster::Backend;
use crate::time::{Duration, Timestamp};
use crate::timer::Timer;

/// How much of a key is kept for the log.
pub const KEY_LOGGED: usize = 64;

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The client's first bytes are being read.
    Preread,
    /// A backend is being connected to, or has yet to prove that it is.
    Connecting,
    /// The next round of attempts is a pause away.
    Waiting,
    /// Bytes are passed on.
    Relaying,
    /// The end is decided; what was read is still being written.
    Winding,
}

/// What a session carries from accept until a backend is established, and then drops.
#[derive(Debug, Default)]
pub(crate) struct Early {
    pub(crate) preread: Preread,
    pub(crate) preface: Bytes,
    pub(crate) route: Route,
    pub(crate) tried: Vec<Incarnation>,
    pub(crate) rounds: u32,
    pub(crate) last_fault: Option<Fault>,
    /// Its turn at a backend that takes sessions at a rate.
    pub(crate) turn: Option<(Incarnation, Timestamp)>,
    /// The preface may go to another backend after this attempt's has taken it: the listener bears it, and this is not
    /// the last attempt, whose end is passed on as it is.
    pub(crate) replays: bool,
}

/// Where a session is to go, before a backend is picked.
#[derive(Debug, Default)]
pub(crate) enum Route {
    /// By the pool's policy, with the hash of a key if there is one.
    #[default]
    Any,
    /// By the pool's policy, for this hash.
    Key(u64),
    /// To the backend of that id.
    Backend(Bytes),
    /// To that address, whether or not a pool has it.
    Address(SocketAddr),
}

/// A live session as an operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct SessionView<'a> {
    /// The session.
    pub session: SessionId,
    /// Where it came in.
    pub listener: ListenerId,
    /// Who.
    pub peer: SocketAddr,
    /// Where it goes.
    pub pool: PoolId,
    /// Where it stands.
    pub phase: Phase,
    /// Its backend, or the one it is connecting to.
    pub backend: Option<&'a Backend>,
    /// The key, cut to its first [`KEY_LOGGED`] bytes.
    pub key: Option<&'a [u8]>,
    /// Bytes the backend took.
    pub forward: u64,
    /// Bytes the client took.
    pub back: u64,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When a byte passed last.
    pub active: Timestamp,
}

/// One client connection and what became of it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) listener: ListenerId,
    /// The listener as it was at accept: a reload does not touch sessions that began before it.
    pub(crate) rules: Arc<Listener>,
    pub(crate) pool: PoolId,
    pub(crate) peer: SocketAddr,
    pub(crate) phase: Phase,
    /// Attempts made; the current one's number is one less.
    pub(crate) attempts: u8,
    /// The backend took or sent a byte (or, with an empty preface, the connection).
    pub(crate) established: bool,
    /// The current attempt is the one by which a backend that is down is tried.
    pub(crate) trial: bool,
    pub(crate) half_closed: bool,
    /// It was handed off: what passes is asked for from time to time.
    pub(crate) away: bool,
    pub(crate) accepted: Timestamp,
    /// When a byte passed last.
    pub(crate) active: Timestamp,
    /// Deadline of the phase; [`Timestamp::NEVER`] if it has none.
    pub(crate) phase_by: Timestamp,
    pub(crate) forward: u64,
    pub(crate) back: u64,
    pub(crate) skipped: u64,
    /// Bytes counted in the engine's preread memory.
    pub(crate) memory: usize,
    /// Its backend's place among the tallies.
    pub(crate) tally: Option<u32>,
    pub(crate) backend: Option<Arc<Backend>>,
    /// Where it goes, or went last, if that is not its backend's address.
    pub(crate) elsewhere: Option<Box<SocketAddr>>,
    pub(crate) key: Option<Box<[u8]>>,
    pub(crate) early: Option<Box<Early>>,
    /// `None` as long as there is nothing to say.
    ending: Option<Box<Ending>>,
}

/// What there is to know of a session that is to end. Apart, because most of the time none is, and idle sessions are
/// many.
#[derive(Debug)]
pub(crate) struct Ending {
    /// When to look again at unacknowledged bytes; [`Timestamp::NEVER`] if there is no such time. Likewise the others.
    pub(crate) look_at: Timestamp,
    /// Looks so far, for their growing distance.
    pub(crate) looks: u8,
    /// When winding up must be over.
    pub(crate) wind_by: Timestamp,
    /// When it is its turn, as tlb stops.
    pub(crate) stop_at: Timestamp,
    /// When it is told to go.
    pub(crate) tell_at: Timestamp,
    /// Why it is told to go then, and how.
    pub(crate) told: Option<(Why, TellHow)>,
    /// Why it ends, once that is known.
    pub(crate) reason: Option<CloseReason>,
}

impl Ending {
    const NONE: Self = Self {
        look_at: Timestamp::NEVER,
        looks: 0,
        wind_by: Timestamp::NEVER,
        stop_at: Timestamp::NEVER,
        tell_at: Timestamp::NEVER,
        told: None,
        reason: None,
    };
}

impl Session {
    pub(crate) fn new(
        id: SessionId,
        on: ListenerId,
        listener: &Arc<Listener>,
        peer: SocketAddr,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            listener: on,
            rules: Arc::clone(listener),
            pool: listener.pool,
            peer,
            phase: Phase::Preread,
            attempts: 0,
            established: false,
            trial: false,
            half_closed: false,
            away: false,
            accepted: now,
            active: now,
            phase_by: now + listener.preread_timeout,
            tally: None,
            forward: 0,
            back: 0,
            skipped: 0,
            memory: 0,
            backend: None,
            elsewhere: None,
            key: None,
            early: Some(Box::default()),
            ending: None,
        }
    }

    /// What is known of its end.
    pub(crate) fn ending(&self) -> &Ending {
        self.ending.as_deref().unwrap_or(&Ending::NONE)
    }

    /// What is known of its end, to be changed.
    pub(crate) fn ending_mut(&mut self) -> &mut Ending {
        self.ending.get_or_insert_with(|| Box::new(Ending::NONE))
    }

    /// With the relay goes whatever it waited for.
    pub(crate) fn forget_looks(&mut self) {
        if let Some(ending) = &mut self.ending {
            ending.look_at = Timestamp::NEVER;
            ending.looks = 0;
        }
    }

    /// It is not to go any more.
    pub(crate) fn forget_tell(&mut self) {
        if let Some(ending) = &mut self.ending {
            ending.tell_at = Timestamp::NEVER;
            ending.told = None;
        }
    }

    /// Where it goes, or went last.
    pub(crate) fn to(&self) -> Option<SocketAddr> {
        let backend = self.backend.as_ref().and_then(|backend| backend.address);
        backend.or(self.elsewhere.as_deref().copied())
    }

    /// Goes to another phase, which has no deadline yet.
    pub(crate) fn enter(&mut self, phase: Phase) {
        use Phase::{Connecting, Preread, Relaying, Waiting, Winding};
        debug_assert!(
            matches!(
                (self.phase, phase),
                (Preread | Waiting, Connecting)
                    | (Preread | Waiting | Connecting | Relaying, Waiting)
                    | (Connecting | Relaying, Connecting)
                    | (Connecting, Relaying)
                    | (Relaying, Winding)
            ),
            "{}: {:?} cannot become {phase:?}",
            self.id,
            self.phase
        );
        self.phase = phase;
        self.phase_by = Timestamp::NEVER;
    }

    /// Whether there is a preface that a backend may be given twice.
    pub(crate) fn bears_replay(&self) -> bool {
        let early = self.early.as_ref().filter(|_| !self.established);
        (self.rules.replay || cfg!(tlb_planted = "replayed-unasked"))
            && early.is_some_and(|early| !early.preface.is_empty())
    }

    /// Whether the preface may still go to another backend after this one has taken it.
    pub(crate) fn may_replay(&self) -> bool {
        let early = self.early.as_ref().filter(|_| !self.established);
        early.is_some_and(|early| early.replays)
    }

    /// Number of the current attempt.
    pub(crate) fn attempt(&self) -> u8 {
        self.attempts.wrapping_sub(1)
    }

    /// Whether `attempt` is the one that is under way.
    pub(crate) fn is_current(&self, attempt: u8) -> bool {
        self.attempts > 0 && attempt == self.attempt()
    }

    /// The earliest of its deadlines, and which it is.
    pub(crate) fn deadline(&self) -> (Timestamp, Timer) {
        let phase = match self.phase {
            Phase::Preread => Timer::Preread,
            Phase::Waiting => Timer::Retry,
            Phase::Relaying if self.away => Timer::Flow,
            Phase::Connecting | Phase::Relaying | Phase::Winding => Timer::Connect,
        };
        let idle = match self.phase {
            // Until a byte proves the connection, it is the connect timeout's; of one that was handed off, the kernel
            // knows.
            Phase::Relaying if self.phase_by != Timestamp::NEVER => (Timestamp::NEVER, Timer::Idle),
            Phase::Relaying => self.quiet_by(),
            _ => (Timestamp::NEVER, Timer::Idle),
        };
        let first = (self.phase_by, phase).min(idle);
        let Some(ending) = &self.ending else {
            return first;
        };
        first
            .min((ending.look_at, Timer::Look))
            .min((ending.wind_by, Timer::Wind))
            .min((ending.stop_at, Timer::Stop))
            .min((ending.tell_at, Timer::Tell))
    }

    /// When it has been quiet for too long, and what that is called, unless more is heard of.
    pub(crate) fn quiet_by(&self) -> (Timestamp, Timer) {
        if self.half_closed {
            (
                self.after(Some(self.rules.half_close_timeout)),
                Timer::HalfClose,
            )
        } else {
            (self.after(self.rules.idle_timeout), Timer::Idle)
        }
    }

    fn after(&self, quiet: Option<Duration>) -> Timestamp {
        quiet.map_or(Timestamp::NEVER, |quiet| self.active + quiet)
    }

    /// The record of its end.
    pub(crate) fn closed(self, now: Timestamp, reason: CloseReason) -> Closed {
        Closed {
            session: self.id,
            listener: self.listener,
            peer: self.peer,
            reason,
            backend: self.backend.as_ref().map(|backend| backend.incarnation),
            to: self.to(),
            key: self.key.map(Bytes::from),
            forward: self.forward,
            back: self.back,
            skipped: self.skipped,
            attempts: self.attempts,
            lasted: now.since(self.accepted),
        }
    }
}
