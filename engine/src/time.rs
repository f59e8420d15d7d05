//! Time as the engine sees it: a number that the driver passes in.

use core::fmt;
use core::ops::Add;
pub use core::time::Duration;

/// A point in monotonic time: nanoseconds since an epoch that the driver chose.
///
/// The engine never reads a clock. Every call that depends on time takes one of these, so that a simulation can
/// hand in any history it likes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch itself.
    pub const ZERO: Self = Self(0);
    /// Later than every deadline; never reached.
    pub const NEVER: Self = Self(u64::MAX);

    /// The time `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The time `millis` milliseconds after the epoch, at most [`Timestamp::NEVER`].
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The time `by` earlier, [`Timestamp::ZERO`] at the earliest.
    #[must_use]
    pub fn before(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at [`Timestamp::NEVER`]: a limit too long to count is a limit that never comes.
    fn add(self, by: Duration) -> Self {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Timestamp {
    /// Seconds with microseconds, as in `1.500000s`; `never` for [`Timestamp::NEVER`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("never");
        }
        write!(
            f,
            "{}.{:06}s",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000 / 1_000
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn additions_saturate_and_differences_never_go_negative() {
        assert_eq!(
            Timestamp::from_millis(1) + Duration::from_millis(2),
            Timestamp::from_millis(3)
        );
        assert_eq!(Timestamp::ZERO + Duration::MAX, Timestamp::NEVER);
        assert_eq!(
            Timestamp::ZERO.since(Timestamp::from_millis(5)),
            Duration::ZERO
        );
        assert_eq!(Timestamp::from_millis(1500).to_string(), "1.500000s");
        assert_eq!(Timestamp::NEVER.to_string(), "never");
    }
}
