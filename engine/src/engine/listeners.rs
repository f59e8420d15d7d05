//! Who may come in, and when.

use alloc::sync::Arc;
use core::net::SocketAddr;

use super::{ACCEPT_PAUSE, Engine};
use crate::api::{Event, Fault, Shed};
use crate::config::{Config, Listener};
use crate::ids::{ListenerId, SessionId};
use crate::session::{Route, Session};
use crate::stats::ListenerStats;
use crate::time::Timestamp;

/// What an engine knows about a listener beyond the configuration.
#[derive(Debug, Default)]
pub(super) struct ListenerState {
    /// As configured now, or last.
    pub(super) rules: Option<Arc<Listener>>,
    /// It is no longer configured: who is in its queue is still served.
    pub(super) removed: bool,
    pub(super) live: usize,
    /// Accepting is paused until then for lack of something.
    pub(super) paused_until: Timestamp,
    /// Somebody may be waiting for the rate to let them in then.
    pub(super) admit_at: Timestamp,
    pub(super) stats: ListenerStats,
}

impl Engine {
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
        let closing = self.is_closing(on);
        let state = &mut self.listeners[on.index()];
        let (Some(listener), false) = (&state.rules, self.stop_by.is_some_and(|at| now >= at))
        else {
            return Err(Shed::Stopping);
        };
        let entry = self.sessions.vacant_entry();
        let full = state.live >= listener.max_sessions;
        if full || entry.key() > SessionId::MAX_INDEX {
            return Err(Shed::MaxSessions);
        }
        let source = peer.ip();
        if listener
            .per_source
            .as_ref()
            .is_some_and(|it| !it.enter(source))
        {
            state.stats.shed += 1;
            return Err(Shed::PerSource);
        }
        // Who waits in the queue of a listener that closes is let in at once: there will be no later.
        if let (Some(bucket), false) = (&listener.admission, closing) {
            bucket.reserve(now);
        }
        self.generation = self.generation.wrapping_add(1);
        let id = SessionId::new(entry.key(), self.generation);
        let mut session = Session::new(id, on, listener, peer, now);
        if let Some(at) = self.stop_by {
            session.ending_mut().stop_at = at;
        }
        entry.insert(session);
        state.live += 1;
        state.stats.sessions += 1;
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
    pub fn may_accept(&mut self, now: Timestamp, listener: ListenerId) -> bool {
        let closing = self.is_closing(listener);
        let room = self.sessions.len() < SessionId::MAX_INDEX;
        let state = &mut self.listeners[listener.index()];
        let Some(rules) = &state.rules else {
            return false;
        };
        if !room || state.live >= rules.max_sessions || now < state.paused_until {
            return false;
        }
        let due = match &rules.admission {
            Some(bucket) if !closing && !cfg!(tlb_planted = "admission-ignored") => bucket.due(now),
            _ => now,
        };
        if due > now && !cfg!(tlb_planted = "admission-never-resumes") {
            state.admit_at = due;
        }
        due <= now
    }

    /// Whether `listener` is to be accepted empty and then closed: it was removed, or tlb stops.
    pub fn is_closing(&self, listener: ListenerId) -> bool {
        self.is_stopping() || self.listeners[listener.index()].removed
    }

    /// This host had nothing left to accept with: accepting pauses for [`ACCEPT_PAUSE`] or until a session ends.
    pub fn accept_failed(&mut self, now: Timestamp, listener: ListenerId, fault: Fault) {
        let state = &mut self.listeners[listener.index()];
        state.paused_until = now + ACCEPT_PAUSE;
        if cfg!(tlb_planted = "accept-never-resumes") {
            state.paused_until = Timestamp::NEVER;
        }
        state.stats.accept_pauses += 1;
        self.events
            .push_back(Event::AcceptPaused { listener, fault });
    }

    /// Replaces the configuration: sessions that began before go on as they began. A listener that was removed accepts
    /// what its queue still holds. Ids are not used again: a configuration has at least as many listeners as the one
    /// before it.
    pub fn reconfigure(&mut self, now: Timestamp, config: Arc<Config>) {
        debug_assert!(
            config.listeners.len() >= self.listeners.len(),
            "removed listeners keep their place"
        );
        let places = config.listeners.len().max(self.listeners.len());
        self.listeners.resize_with(places, ListenerState::default);
        for (state, rules) in self.listeners.iter_mut().zip(&config.listeners) {
            state.removed = rules.is_none();
            if rules.is_some() {
                state.rules.clone_from(rules);
            }
            // Another rate may let somebody in at once.
            state.admit_at = state.admit_at.min(now);
        }
        self.config = config;
        self.check_all();
    }

    /// Ends the pauses that are over.
    pub(super) fn resume_accepting(&mut self, now: Timestamp) {
        for state in &mut self.listeners {
            for at in [&mut state.paused_until, &mut state.admit_at] {
                if *at <= now {
                    *at = Timestamp::ZERO;
                }
            }
        }
    }

    /// When the first pause of a listener ends.
    pub(super) fn accept_at(&self) -> Option<Timestamp> {
        let pauses = self.listeners.iter();
        let pauses = pauses.flat_map(|state| [state.paused_until, state.admit_at]);
        pauses.filter(|&at| at > Timestamp::ZERO).min()
    }

    /// A session of a listener has ended, and what it held may be what another one lacks.
    pub(super) fn left(&mut self, session: &Session) {
        self.listeners[session.listener.index()].live -= 1;
        for listener in &mut self.listeners {
            listener.paused_until = Timestamp::ZERO;
        }
        if let Some(sources) = &session.rules.per_source
            && !cfg!(tlb_planted = "source-not-left")
        {
            sources.leave(session.peer.ip());
        }
    }
}
