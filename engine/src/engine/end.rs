//! How sessions end: in order, by faults, by deadlines, and when tlb stops.

use alloc::vec::Vec;

use super::Engine;
use crate::api::{Action, Close, CloseReason, Ends, Event, Fault, Report, Standing};
use crate::ids::Side;
use crate::session::Phase;
use crate::time::{Duration, Timestamp};
use crate::timer::Timer;

/// First and longest distance between two looks at unacknowledged bytes.
const LOOK_FIRST: Duration = Duration::from_millis(1);
const LOOK_DOUBLINGS: u8 = 6;
/// A session that passed no byte for this long is at rest when tlb stops: a FIN cuts nothing off.
const AT_REST: Duration = Duration::from_secs(1);
/// How often the kernel is asked about a session that it forwards, so that what one sees of it is no older.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// What a session may take longer than the shutdown timeout to wind up.
const STOP_GRACE: Duration = Duration::from_secs(1);

impl Engine {
    /// Ends a session now.
    pub(super) fn close(&mut self, now: Timestamp, index: usize, reason: CloseReason, ends: Ends) {
        if !self.sessions[index].established {
            self.unproven.remove(&index);
            self.cancel(now, index);
        }
        let session = self.sessions.remove(index);
        self.timers.clear(index);
        if let Some(backend) = &session.backend {
            backend.load.sub();
        }
        self.preread_memory -= session.memory;
        self.left(&session);
        self.part(&session);
        self.actions.push_back(Action::Close {
            session: session.id,
            ends,
        });
        let closed = session.closed(now, reason);
        self.listeners[closed.listener.index()].closed(&closed);
        self.events.push_back(Event::Closed(closed));
    }

    /// A socket of an established relay broke, or the client's before that.
    pub(super) fn broken(&mut self, now: Timestamp, index: usize, side: Side, fault: Fault) {
        let reason = match side {
            Side::Client => CloseReason::ClientBroken(fault),
            Side::Backend => CloseReason::BackendBroken(fault),
        };
        let session = &self.sessions[index];
        if !session.established && session.phase != Phase::Winding {
            return self.close(now, index, reason, Ends::RESET);
        }
        self.wind(now, index, reason);
    }

    /// The reason of the end is known; what was read is still to be written, within the reset timeout.
    fn wind(&mut self, now: Timestamp, index: usize, reason: CloseReason) {
        let mut by = now + self.config.limits.reset_timeout;
        if let Some(stop_by) = self.stop_by {
            by = by.min(stop_by.max(now) + STOP_GRACE);
        }
        let session = &mut self.sessions[index];
        let ending = session.ending_mut();
        ending.reason.get_or_insert(reason);
        ending.wind_by = ending.wind_by.min(by);
        ending.stop_at = Timestamp::NEVER;
        ending.tell_at = Timestamp::NEVER;
        if session.phase != Phase::Winding {
            session.enter(Phase::Winding);
        }
    }

    /// Where the relay stands after a turn.
    pub(super) fn standing(&mut self, now: Timestamp, index: usize, standing: Standing) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        match standing {
            Standing::Open => {}
            Standing::Unacknowledged => {
                let ending = session.ending_mut();
                let distance = LOOK_FIRST * (1 << ending.looks.min(LOOK_DOUBLINGS));
                ending.looks = ending.looks.saturating_add(1);
                ending.look_at = now + distance;
            }
            Standing::Finished(ends) => {
                let reason = session.ending().reason.unwrap_or(CloseReason::Completed);
                self.close(now, index, reason, ends);
            }
        }
    }

    /// The deadline of a session has come, or is found to have moved on.
    pub(super) fn expire(&mut self, now: Timestamp, index: usize) {
        let (at, timer) = self.deadline(index);
        if at > now {
            return self.timers.set(index, at);
        }
        let session = &mut self.sessions[index];
        let id = session.id;
        match timer {
            Timer::Preread => self.close(now, index, CloseReason::PrereadTimeout, Ends::FIN),
            Timer::Connect => self.attempt_failed(now, index, Fault::TimedOut),
            Timer::Retry => self.attempt(now, index),
            Timer::Flow => {
                session.phase_by = now + ASK_EVERY;
                self.actions.push_back(Action::Look { session: id });
            }
            Timer::Look => {
                session.ending_mut().look_at = Timestamp::NEVER;
                self.actions.push_back(Action::Look { session: id });
            }
            Timer::Wind => {
                let reason = session.ending().reason.unwrap_or(CloseReason::Completed);
                self.close(now, index, reason, Ends::RESET);
            }
            Timer::Idle | Timer::HalfClose => self.too_quiet(now, index, timer),
            Timer::Stop => self.stop_session(now, index),
            Timer::Tell => self.told_session(now, index),
            // These are no session's.
            Timer::Accept | Timer::Warm => {}
        }
        self.rearm(index);
    }

    /// No byte has passed for too long.
    fn too_quiet(&mut self, now: Timestamp, index: usize, timer: Timer) {
        if timer == Timer::HalfClose {
            // One side still waits for an end that will not come: it must not take a FIN for it.
            self.begin_wind(now, index, CloseReason::HalfCloseTimeout, Close::Reset);
        } else {
            // Nothing is under way, so a FIN is honest.
            self.begin_wind(now, index, CloseReason::IdleTimeout, Close::Fin);
        }
    }

    /// What a report says of a session that was handed off, or that it is one now. `quiet` is for how long neither peer has
    /// sent anything, where the kernel was asked.
    pub(super) fn away(
        &mut self,
        now: Timestamp,
        index: usize,
        report: &Report,
        quiet: Option<Duration>,
    ) {
        let session = &mut self.sessions[index];
        let began = report.handed_off && session.established;
        if session.phase != Phase::Relaying || !(began || session.away) {
            return;
        }
        session.away = true;
        if let Some(quiet) = quiet {
            session.active = now.before(quiet).max(session.accepted);
        }
        let (quiet_by, timer) = session.quiet_by();
        session.phase_by = (now + ASK_EVERY).min(quiet_by);
        let too_quiet = quiet_by <= now && quiet.is_some();
        if too_quiet && report.standing == Standing::Open && !cfg!(tlb_planted = "away-never-idle")
        {
            self.too_quiet(now, index, timer);
        }
    }

    pub(super) fn begin_wind(
        &mut self,
        now: Timestamp,
        index: usize,
        reason: CloseReason,
        how: Close,
    ) {
        self.wind(now, index, reason);
        let session = self.sessions[index].id;
        self.actions.push_back(Action::Wind { session, how });
    }

    fn stop_session(&mut self, now: Timestamp, index: usize) {
        let session = &self.sessions[index];
        if session.phase != Phase::Relaying || !session.established {
            return self.close(now, index, CloseReason::Shutdown, Ends::FIN);
        }
        let how = self.honest_end(now, index);
        self.begin_wind(now, index, CloseReason::Shutdown, how);
    }

    /// A FIN in the middle of a flow would let a cut stream pass for a whole one.
    pub(super) fn honest_end(&self, now: Timestamp, index: usize) -> Close {
        if now.since(self.sessions[index].active) >= AT_REST {
            Close::Fin
        } else {
            Close::Reset
        }
    }

    /// Puts the deadline of a session in order that may have ended.
    pub(super) fn rearm(&mut self, index: usize) {
        if let Some(session) = self.sessions.get(index) {
            let id = session.id;
            self.after(id);
        }
    }

    /// Begins to stop: the sessions of now end one after the other over the shutdown timeout, those that have been
    /// idle the longest first; those that still come end last. A second call does nothing.
    pub fn stop(&mut self, now: Timestamp) {
        if self.stop_by.is_some() {
            return;
        }
        let timeout = self.config.limits.shutdown_timeout;
        self.stop_by = Some(now + timeout);
        if !cfg!(tlb_planted = "warm-outlives-stop") {
            self.cool_all();
        }
        let mut order: Vec<(Timestamp, usize)> = self
            .sessions
            .iter()
            .map(|(index, session)| (session.active, index))
            .collect();
        order.sort_unstable();
        let count = order.len().max(1) as u128;
        for (place, (_, index)) in order.into_iter().enumerate() {
            let share = timeout.as_nanos() * (place as u128 + 1) / count;
            let share = Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX));
            let session = &mut self.sessions[index];
            if session.phase != Phase::Winding {
                session.ending_mut().stop_at = now + share;
            }
            self.rearm(index);
        }
        self.check_all();
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop_by.is_some()
    }
}
