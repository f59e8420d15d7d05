//! Sessions whose backend went away are told to go: at a rate, so that they do not all come back at once.

use alloc::vec::Vec;

use super::Engine;
use crate::api::{Close, CloseReason, Event, Fault, Tell, TellHow, Why};
use crate::health::Change;
use crate::ids::{Incarnation, PoolId};
use crate::session::{Phase, Session};
use crate::time::{Duration, Timestamp};

impl Engine {
    /// The sessions of a backend are to go. One that is not known has none.
    ///
    /// Those that are not established go elsewhere at once. Of the others, each takes its turn from [`Tell::pace`].
    pub fn tell(&mut self, now: Timestamp, tell: &Tell) {
        // Of those that are down or gone, the roster told before.
        if tell.why == Why::Maint {
            self.leave_at_once(now, tell.backend);
        }
        self.replay_elsewhere(now, tell.backend);
        let Some(how) = tell.how else {
            return;
        };
        let of_backend = |session: &Session| {
            session.phase == Phase::Relaying
                && (session.established || session.forward > 0)
                && session.ending().tell_at == Timestamp::NEVER
                && session.backend.as_ref().map(|it| it.incarnation) == Some(tell.backend)
        };
        let sessions = self.sessions.iter();
        let mut whose: Vec<usize> = sessions
            .filter(|(_, session)| of_backend(session))
            .map(|(index, _)| index)
            .collect();
        let first = whose.first().map(|&index| &self.sessions[index]);
        let Some((pool, backend)) = first.and_then(|it| Some((it.pool, it.backend.clone()?)))
        else {
            return;
        };
        if tell.why == Why::Down {
            self.told.insert(tell.backend, (pool, backend));
        }
        // In no order that anybody could rely on: not the oldest first, nor one listener's.
        for place in (1..whose.len()).rev() {
            whose.swap(place, self.rng.below(place as u64 + 1) as usize);
        }
        let nanos = u64::try_from(tell.pace.interval().as_nanos()).unwrap_or(u64::MAX);
        for index in whose {
            let jitter = Duration::from_nanos(self.rng.below(nanos.saturating_mul(2)));
            let turn = if cfg!(tlb_planted = "told-all-at-once") {
                now
            } else {
                tell.pace.reserve(now) + jitter
            };
            let ending = self.sessions[index].ending_mut();
            ending.tell_at = turn;
            ending.told = Some((tell.why, how));
            self.rearm(index);
        }
    }

    /// Sessions that connect to that backend, or wait for their turn at it, go elsewhere.
    fn leave_at_once(&mut self, now: Timestamp, backend: Incarnation) {
        for index in self.connecting(|it| it.incarnation == backend) {
            self.cancel(now, index);
            self.leave(index, Fault::Unreachable);
            self.retry(now, index, Fault::Unreachable);
            self.rearm(index);
        }
        for index in self.waiting_turn(|it| it == backend) {
            self.attempt(now, index);
            self.rearm(index);
        }
    }

    /// Sessions whose preface that backend took without an answer, and that may replay it, do so if somebody else can
    /// have it.
    fn replay_elsewhere(&mut self, now: Timestamp, backend: Incarnation) {
        let asking = self.unproven_where(|session| {
            session.forward > 0
                && session.backend.as_ref().map(|it| it.incarnation) == Some(backend)
        });
        for index in asking {
            if self.has_other(now, index) {
                self.cancel(now, index);
                self.leave(index, Fault::Unreachable);
                self.retry(now, index, Fault::Unreachable);
                self.rearm(index);
            }
        }
    }

    /// Sessions that were told to go because their backend is down stay if it is up again.
    pub(super) fn forgive(&mut self) {
        if self.told.is_empty() {
            return;
        }
        let (mut up, roster) = (Vec::new(), &self.roster);
        self.told.retain(|&incarnation, (pool, backend)| {
            let pool = roster.pool(*pool);
            let known = pool.and_then(|pool| pool.current(backend));
            let is_down = known.is_some_and(|it| it.down);
            if known.is_some() && !is_down {
                up.push(incarnation);
            }
            is_down
        });
        if cfg!(tlb_planted = "told-after-up-again") {
            return;
        }
        for backend in up {
            for (_, session) in &mut self.sessions {
                let told = matches!(session.ending().told, Some((Why::Down, _)));
                if told && session.backend.as_ref().map(|it| it.incarnation) == Some(backend) {
                    session.forget_tell();
                }
            }
        }
    }

    /// It is a session's turn to go.
    pub(super) fn told_session(&mut self, now: Timestamp, index: usize) {
        let session = &mut self.sessions[index];
        let ending = session.ending_mut();
        ending.tell_at = Timestamp::NEVER;
        let Some((why, how)) = ending.told.take() else {
            return;
        };
        if session.phase != Phase::Relaying {
            return;
        }
        let reason = match why {
            Why::Down => CloseReason::BackendDown,
            Why::Maint => CloseReason::BackendMaint,
            Why::Removed => CloseReason::BackendRemoved,
        };
        let backend = session.backend.as_ref().map(|it| it.incarnation);
        if let Some(backend) = backend {
            let session = session.id;
            let told = Event::Told {
                session,
                backend,
                why,
            };
            self.events.push_back(told);
        }
        let how = match how {
            TellHow::Close => self.honest_end(now, index),
            TellHow::Reset => Close::Reset,
        };
        self.begin_wind(now, index, reason, how);
    }

    /// Another worker's passive health changed its mind about a backend: this engine's follows, as far as
    /// [`Failover::max_ejected`](crate::config::Failover::max_ejected) lets it.
    pub fn advise(&mut self, now: Timestamp, pool: PoolId, backend: Incarnation, change: Change) {
        let Some(known) = self.roster.pool(pool).cloned() else {
            return;
        };
        let mut backends = known.backends().iter();
        let Some(of) = backends.find(|it| it.incarnation == backend) else {
            return;
        };
        let mut rng = self.rng.split();
        let state = &mut self.pools[pool.index()];
        let may = state.standing.may_eject(&known.failover);
        let is_down = state.suspects.is_down(backend);
        match change {
            Change::Up => drop(state.suspects.clear(backend)),
            Change::Down if is_down || !may => return,
            Change::Down => {
                let passive = state.suspects.suspect(of);
                passive.eject(now, known.failover.ejection, &mut rng);
            }
        }
        self.judge_pool(pool);
        if change == Change::Down {
            self.leave_backend(now, backend, Fault::Unreachable);
        }
        self.check_all();
    }

    /// A backend reset a session before it had sent it a byte.
    pub(super) fn early_reset(&mut self, now: Timestamp, index: usize) {
        let failover = self.failover(index);
        if !failover.early_resets {
            return;
        }
        let session = &self.sessions[index];
        let (pool, backend) = (
            session.pool,
            session.backend.as_ref().map(|it| it.incarnation),
        );
        let change = self.blame(now, index, &failover);
        if let (Some(Change::Down), Some(backend)) = (change, backend) {
            self.events.push_back(Event::BackendDown {
                pool,
                backend,
                fault: Fault::Reset,
            });
            self.leave_backend(now, backend, Fault::Reset);
        }
    }
}
