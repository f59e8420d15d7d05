//! Looking for events a little longer before going to sleep.

use std::time::Duration;

/// So many looks in vain in a row, and it is no longer worth it.
const MISSES: u32 = 8;

/// Whether the next event is likely to come so soon that sleeping until then would take longer than looking for it.
///
/// To sleep and to be woken up costs a lone connection more than all the rest of its round trip does, on a virtual
/// machine above all. A worker that has just served an event therefore may look for the next one for a bounded time. If
/// that was in vain a few times in a row, it stops until a sleep turns out to have been shorter than that time. So an idle
/// worker sleeps, and a busy one, which always finds events, never comes to this.
#[derive(Debug)]
pub(crate) struct Spin {
    most: Duration,
    misses: u32,
}

impl Spin {
    /// Looks for up to `most`; zero: never.
    pub(crate) const fn new(most: Duration) -> Self {
        Self { most, misses: 0 }
    }

    /// Whether it never looks, so that nothing need be measured.
    pub(crate) const fn is_off(&self) -> bool {
        self.most.is_zero()
    }

    /// How long to look now, of a wait that may take `wait` (`None`: for ever); zero: not at all.
    pub(crate) fn patience(&self, wait: Option<Duration>) -> Duration {
        if self.misses >= MISSES {
            return Duration::ZERO;
        }
        wait.map_or(self.most, |wait| wait.min(self.most))
    }

    /// Looking found something, or did not.
    pub(crate) const fn looked(&mut self, found: bool) {
        self.misses = if found { 0 } else { self.misses + 1 };
    }

    /// A sleep, not preceded by looking, lasted so long.
    pub(crate) fn slept(&mut self, lasted: Duration) {
        if self.most > Duration::ZERO && lasted < self.most {
            self.misses = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_micros(50);

    #[test]
    fn it_looks_as_long_as_that_pays() {
        let mut spin = Spin::new(MOST);
        assert_eq!(spin.patience(None), MOST);
        let soon = Duration::from_micros(20);
        assert_eq!(spin.patience(Some(soon)), soon, "a deadline comes first");
        for _ in 1..MISSES {
            spin.looked(false);
        }
        assert_eq!(spin.patience(None), MOST);
        spin.looked(true);
        for _ in 0..MISSES {
            assert_eq!(spin.patience(None), MOST);
            spin.looked(false);
        }
        assert_eq!(spin.patience(None), Duration::ZERO);
        spin.slept(MOST);
        assert_eq!(
            spin.patience(None),
            Duration::ZERO,
            "it would have missed it"
        );
        spin.slept(MOST - Duration::from_nanos(1));
        assert_eq!(spin.patience(None), MOST);
    }

    #[test]
    fn it_never_looks_unless_it_may() {
        let mut spin = Spin::new(Duration::ZERO);
        spin.slept(Duration::ZERO);
        assert_eq!(spin.patience(None), Duration::ZERO);
    }
}
