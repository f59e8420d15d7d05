//! The engine's time, read from this host's monotonic clock.

use std::time::Instant;

use tlb_engine::time::Timestamp;

/// Counts from the moment it was made. Its copies agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

impl Clock {
    /// One that begins now.
    pub(crate) fn start() -> Self {
        Self {
            epoch: Instant::now(),
        }
    }

    /// How late it is.
    pub(crate) fn now(self) -> Timestamp {
        let nanos = self.epoch.elapsed().as_nanos();
        Timestamp::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}
