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
        assert_eq!(
            self.pools.len(),
            self.roster.pools.len(),
            "each pool has its state"
        );
        for (state, pool) in self.pools.iter().zip(&self.roster.pools) {
            assert_eq!(
                state.health.len(),
                pool.backends().len(),
                "each backend has its health"
            );
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
                    session.to.is_some() && session.attempts > 0,
                    "{id} knows where it goes"
                );
                assert!(!session.established, "{id} is not established yet");
                assert!(
                    session.phase_by < Timestamp::NEVER,
                    "{id} has a connect deadline"
                );
            }
            Phase::Relaying => assert_eq!(
                session.established,
                session.phase_by == Timestamp::NEVER,
                "{id} has a connect deadline until it is established"
            ),
            Phase::Winding => {
                assert!(session.reason.is_some(), "{id} knows why it ends");
                assert!(
                    session.wind_by < Timestamp::NEVER,
                    "{id} ends in bounded time"
                );
            }
        }
    }
}
