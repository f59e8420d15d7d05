//! What follows a failed connect: another backend at once, the same one later, or the end.

use crate::rng::Rng;
use crate::time::{Duration, Timestamp};

/// Pause before a session begins a second round over the same backends; doubles with each round.
pub const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Longest such pause.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The pause before round `round` (counted from 1): [`BACKOFF_BASE`] doubled for each round, at most [`BACKOFF_MAX`],
/// and of that a random part between a half and the whole, so that sessions that failed together do not return
/// together.
pub fn backoff(round: u32, rng: &mut Rng) -> Duration {
    let doubled = BACKOFF_BASE.saturating_mul(
        1u32.checked_shl(round.saturating_sub(1))
            .unwrap_or(u32::MAX),
    );
    let whole = doubled.min(BACKOFF_MAX);
    let half = (whole / 2).as_nanos() as u64;
    Duration::from_nanos(half + rng.below(half + 1))
}

/// Keeps retries in proportion to new sessions, so that a dying pool is not finished off by its own retries.
///
/// Each new session earns a fifth of a retry, time earns [`Budget::PER_SECOND`], and no more than
/// [`Budget::CAPACITY`] can be saved up. It starts full.
#[derive(Clone, Debug)]
pub struct Budget {
    /// In fifths of a retry.
    fifths: u64,
    /// When time last earned something.
    earned: Timestamp,
}

impl Budget {
    /// Most retries that can be saved up.
    pub const CAPACITY: u64 = 1_000;
    /// Retries earned each second by time alone.
    pub const PER_SECOND: u64 = 10;
    /// What a new session earns, and what a retry costs.
    const SESSION: u64 = 1;
    const RETRY: u64 = 5;
    /// One fifth of a retry takes this long to earn.
    const FIFTH: Duration = Duration::from_nanos(1_000_000_000 / (Self::PER_SECOND * Self::RETRY));

    /// A full budget.
    pub const fn new(now: Timestamp) -> Self {
        Self {
            fifths: Self::CAPACITY * Self::RETRY,
            earned: now,
        }
    }

    /// A session began its first attempt.
    pub fn session(&mut self) {
        self.earn(Self::SESSION);
    }

    /// Takes one retry; `false` if none is left.
    pub fn retry(&mut self, now: Timestamp) -> bool {
        let fifths = (now.since(self.earned).as_nanos() / Self::FIFTH.as_nanos()) as u64;
        self.earn(fifths);
        self.earned =
            self.earned + Self::FIFTH.saturating_mul(u32::try_from(fifths).unwrap_or(u32::MAX));
        let Some(left) = self.fifths.checked_sub(Self::RETRY) else {
            return false;
        };
        self.fifths = left;
        true
    }

    fn earn(&mut self, fifths: u64) {
        self.fifths = self
            .fifths
            .saturating_add(fifths)
            .min(Self::CAPACITY * Self::RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_is_jittered_and_ends() {
        let mut rng = Rng::new(1);
        for (round, whole) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (5, 1600),
            (6, 2000),
            (40, 2000),
            (u32::MAX, 2000),
        ] {
            for _ in 0..50 {
                let pause = backoff(round, &mut rng);
                assert!(
                    pause >= Duration::from_millis(whole / 2),
                    "{round}: {pause:?}"
                );
                assert!(pause <= Duration::from_millis(whole), "{round}: {pause:?}");
            }
        }
    }

    #[test]
    fn budget_is_spent_and_earned() {
        let now = Timestamp::from_millis(5);
        let mut budget = Budget::new(now);
        let granted = (0..2 * Budget::CAPACITY)
            .filter(|_| budget.retry(now))
            .count() as u64;
        assert_eq!(granted, Budget::CAPACITY, "it starts full");

        // Five sessions earn one retry, four none.
        for _ in 0..4 {
            budget.session();
        }
        assert!(!budget.retry(now));
        budget.session();
        assert!(budget.retry(now));
        assert!(!budget.retry(now));

        // A tenth of a second earns one, a nanosecond less none.
        let tenth = Duration::from_millis(100);
        let just_before = now + (tenth - Duration::from_nanos(1));
        assert!(!budget.retry(just_before));
        assert!(budget.retry(now + tenth));
        assert!(!budget.retry(now + tenth));

        // Nothing is saved up beyond the capacity.
        let later = now + Duration::from_secs(1_000_000);
        let granted = (0..2 * Budget::CAPACITY)
            .filter(|_| budget.retry(later))
            .count() as u64;
        assert_eq!(granted, Budget::CAPACITY);
    }
}
