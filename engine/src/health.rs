//! Passive health: what sessions' own connect attempts say about a backend.

use crate::rng::Rng;
use crate::time::{Duration, Timestamp};

/// What one engine knows about one backend from connect attempts alone.
///
/// | state | picked | succeeded | failed | cancelled |
/// |---|---|---|---|---|
/// | up | up | up, row forgotten | the `fall`th in a row: down | up |
/// | down, waiting | down | up | down | down |
/// | down, back-off over | trial | up | down | down |
/// | trial | trial | up | down, longer back-off | down, back-off over |
///
/// Down is temporary: after a back-off that doubles from [`Blame::ejection`] to
/// [`Passive::BACK_OFF_MAX`], with a jitter of [`Passive::JITTER_PERCENT`] per cent either way so
/// that engines do not try in step, one session at a time may try. Any success brings the backend
/// up and forgets everything.
///
/// Every pick is followed by exactly one of [`succeeded`](Passive::succeeded),
/// [`failed`](Passive::failed) and [`cancelled`](Passive::cancelled). Only failures that are the
/// backend's count: faults of this host are cancels.
#[derive(Clone, Debug)]
pub struct Passive {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Takes sessions. `failures` have come since the last success.
    Up { failures: u32 },
    /// Takes none before `until`, then one as a trial. `strikes` counts how often it went down
    /// since it was up.
    Down { until: Timestamp, strikes: u32 },
    /// One session tries.
    Trial { strikes: u32 },
}

/// A backend went down or came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It takes sessions again.
    Up,
    /// It gets no new session until its back-off is over.
    Down,
}

impl Passive {
    /// The first back-off, unless something else is configured.
    pub const BACK_OFF_MIN: Duration = Duration::from_secs(1);
    /// The longest back-off, before jitter.
    pub const BACK_OFF_MAX: Duration = Duration::from_secs(60);
    /// How much a back-off may be shorter or longer, in per cent.
    pub const JITTER_PERCENT: u64 = 20;

    /// A backend of which nothing is known: up.
    pub const fn new() -> Self {
        Self {
            state: State::Up { failures: 0 },
        }
    }

    /// Whether it may be picked for a session.
    pub fn eligible(&self, now: Timestamp) -> bool {
        match self.state {
            State::Up { .. } => true,
            State::Down { until, .. } => until <= now || cfg!(tlb_planted = "back-off-ignored"),
            State::Trial { .. } => false,
        }
    }

    /// It was picked, and a connect attempt begins. Returns whether that attempt is the trial of a
    /// backend that is down: no other session may be given to it until this one's result is known.
    ///
    /// Attempts that began before the backend went down may end while the trial is in flight. A
    /// caller that remembers which attempt is the trial reports, as long as [`Passive::is_down`],
    /// no failure and no cancel of any other; for one that does not, they count as the trial's,
    /// which costs at worst a longer back-off or a second trial.
    pub fn picked(&mut self, now: Timestamp) -> bool {
        match self.state {
            State::Down { until, strikes }
                if until <= now && !cfg!(tlb_planted = "trial-not-alone") =>
            {
                self.state = State::Trial { strikes };
                true
            }
            State::Up { .. } | State::Down { .. } | State::Trial { .. } => false,
        }
    }

    /// An attempt succeeded, whenever it began.
    pub fn succeeded(&mut self) -> Option<Change> {
        let was_down = self.is_down();
        *self = Self::new();
        was_down.then_some(Change::Up)
    }

    /// An attempt failed, and the backend is at fault. So many failures in a row as `rules` say take it down, if they
    /// let it.
    ///
    /// Failures that come while it is down are of attempts that began before: they say nothing new.
    pub fn failed(&mut self, now: Timestamp, rules: Blame, rng: &mut Rng) -> Option<Change> {
        match self.state {
            State::Up { failures } => {
                let failures = failures.saturating_add(1);
                let fall = rules.fall + u32::from(cfg!(tlb_planted = "down-one-too-late"));
                if failures < fall || !rules.may_eject {
                    self.state = State::Up { failures };
                    return None;
                }
                self.eject(now, rules.ejection, rng);
                Some(Change::Down)
            }
            State::Down { .. } => None,
            State::Trial { strikes } => {
                self.strike(strikes.saturating_add(1), now, rules.ejection, rng);
                None
            }
        }
    }

    /// An attempt ended and says nothing about the backend: the client left, or this host was at
    /// fault. If it was the trial, the next session may try at once.
    pub fn cancelled(&mut self, now: Timestamp) {
        if let State::Trial { strikes } = self.state {
            self.state = State::Down {
                until: now,
                strikes,
            };
        }
    }

    /// Whether it is down, a trial in flight or not.
    pub fn is_down(&self) -> bool {
        !matches!(self.state, State::Up { .. })
    }

    /// Whether the outcome of an attempt says anything about it: while it is down, only that of its `trial` does.
    pub fn heeds(&self, trial: bool) -> bool {
        trial || !self.is_down()
    }

    /// When its back-off is over, if it is down and no trial is in flight.
    pub fn retry_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Down { until, .. } => Some(until),
            State::Up { .. } | State::Trial { .. } => None,
        }
    }

    /// Takes it down, for about so long at first.
    pub fn eject(&mut self, now: Timestamp, ejection: Duration, rng: &mut Rng) {
        self.strike(1, now, ejection, rng);
    }

    fn strike(&mut self, strikes: u32, now: Timestamp, ejection: Duration, rng: &mut Rng) {
        self.state = State::Down {
            until: now + back_off(strikes, ejection, rng),
            strikes,
        };
    }
}

impl Default for Passive {
    fn default() -> Self {
        Self::new()
    }
}

/// What a failure leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blame {
    /// How many in a row take a backend down; at least 1.
    pub fall: u32,
    /// The first back-off, before jitter.
    pub ejection: Duration,
    /// Whether the pool can do without one more backend.
    pub may_eject: bool,
}

/// The back-off after so many strikes, at least one, of which the first costs `ejection`.
fn back_off(strikes: u32, ejection: Duration, rng: &mut Rng) -> Duration {
    // Doubling beyond the cap changes nothing, and 2^31 s fits.
    let doublings = strikes.saturating_sub(1).min(31);
    let plain = ejection
        .saturating_mul(1 << doublings)
        .min(Passive::BACK_OFF_MAX);
    let jitter = Passive::JITTER_PERCENT * 10_000;
    let millionths = 1_000_000 - jitter + rng.below(2 * jitter + 1);
    plain * millionths as u32 / 1_000_000
}

#[cfg(test)]
mod tests;
