//! What must hold between two calls. Checked where debug assertions are on.

use super::Engine;
use crate::session::{Phase, Session};
use crate::time::Timestamp;

impl Engine {
    /// Checks one session, after every call that touched it.
    pub(super) fn check(&self, index: usize) {
        if cfg!(debug_assertions)
            && let Some(session) = self.sessions.get(index)
        {
            self.check_session(index, session);
        }
    }

    /// Checks everything that can be checked.
    ///
    /// # Panics
    /// Where an invariant does not hold (only with debug assertions): a bug of the engine, whatever the input.
    pub fn check_all(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        for (index, session) in &self.sessions {
            self.check_session(index, session);
        }
        let memory: usize = self
            .sessions
            .iter()
            .map(|(_, session)| session.memory)
            .sum();
        assert_eq!(
            memory, self.preread_memory,
            "preread memory is the sum of its parts"
        );
        assert!(
            self.preread_memory <= self.config.limits.preread_memory,
            "preread memory stays within its limit"
        );
        for (place, state) in self.listeners.iter().enumerate() {
            let of_listener = |session: &Session| session.listener.index() == place;
            let live = self
                .sessions
                .iter()
                .filter(|(_, session)| of_listener(session))
                .count();
            assert_eq!(live, state.live, "listener {place} counts its sessions");
            assert!(
                self.listeners[place]
                    .rules
                    .as_ref()
                    .is_none_or(|rules| live <= rules.max_sessions),
                "max-sessions holds"
            );
        }
        assert!(
            self.timers.len() <= self.sessions.len(),
            "no deadline without a session"
        );
        assert!(
            self.unproven.iter().all(|&it| self.sessions.contains(it)),
            "unproven sessions are live"
        );
        assert!(self.warm.is_sound(), "warm connections are counted");
        self.check_tallies();
        assert_eq!(
            self.pools.len(),
            self.roster.pools.len(),
            "each pool has its state"
        );
        for (state, pool) in self.pools.iter().zip(&self.roster.pools) {
            assert!(
                state.suspects.are_of(pool),
                "nothing is held against a backend that is gone"
            );
        }
    }

    /// What is counted fits what is there.
    fn check_tallies(&self) {
        let stats = self.counted();
        let live: u64 = stats.backends.values().map(|it| it.live).sum();
        let at_backends = self.sessions.iter();
        let at_backends = at_backends.filter(|(_, session)| session.tally.is_some());
        assert_eq!(live, at_backends.count() as u64, "backends count sessions");
        for listener in &stats.listeners {
            let ended: u64 = listener.closed.values().sum();
            assert_eq!(listener.sessions, listener.live + ended, "none is lost");
            let counted: u64 = listener.lasted.counts.iter().sum();
            assert_eq!(counted, ended, "each end is timed");
        }
    }

    fn check_session(&self, index: usize, session: &Session) {
        let id = session.id;
        assert_eq!(id.index(), index, "{id} sits in its slot");
        let (at, timer) = self.deadline(index);
        let armed = self.timers.get(index).unwrap_or(Timestamp::NEVER);
        assert!(
            armed <= at,
            "{id}: {timer:?} is due at {at}, but {armed} is armed"
        );
        assert_eq!(
            session.early.is_some(),
            !session.established,
            "{id} keeps its preface until established"
        );
        assert_eq!(
            self.unproven.contains(&index),
            session.phase != Phase::Preread && !session.established,
            "{id} is found as long as its backend is not established"
        );
        match session.phase {
            Phase::Preread => {
                assert!(
                    session.backend.is_none() && session.attempts == 0,
                    "{id} has no backend yet"
                );
                assert!(
                    session.phase_by < Timestamp::NEVER,
                    "{id} has a preread deadline"
                );
            }
            Phase::Waiting => {
                assert!(session.backend.is_none(), "{id} has left its backend");
                assert!(session.phase_by < Timestamp::NEVER, "{id} will go on");
            }
            Phase::Connecting => {
                assert!(
                    session.to().is_some() && session.attempts > 0,
                    "{id} knows where it goes"
                );
                assert!(!session.established, "{id} is not established yet");
                assert!(
                    session.phase_by < Timestamp::NEVER,
                    "{id} has a connect deadline"
                );
            }
            // A backend that has the preface and may be replaced takes the time it needs.
            Phase::Relaying => {
                let waits = session.away || session.phase_by == Timestamp::NEVER;
                assert!(
                    waits == session.established || waits && session.may_replay(),
                    "{id} has a connect deadline until it is established"
                );
            }
            Phase::Winding => {
                assert!(session.ending().reason.is_some(), "{id} knows why it ends");
                assert!(
                    session.ending().wind_by < Timestamp::NEVER,
                    "{id} ends in bounded time"
                );
            }
        }
    }
}
