//! What a new session can do without at first.

use std::collections::VecDeque;
use std::time::Duration;

use tlb_engine::ids::SessionId;
use tlb_engine::time::Timestamp;

/// How long after its connect a backend's socket is given its keepalive, at most.
const PATIENCE: Duration = Duration::from_secs(1);
/// Who has waited so long has theirs together with whoever has waited the longest: one wake-up for many.
const TOGETHER: Duration = Duration::from_millis(500);
/// Below this, the queue is not worth giving back when it is empty.
const SMALL: usize = 64;

/// Sessions whose backend's socket has no keepalive yet, the longest waiting first.
///
/// Setting it takes four system calls. A session that is over within a second never needs them, and one that stays does
/// not need them in its first second.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// As last told.
    pub(crate) now: Timestamp,
    queue: VecDeque<(Timestamp, SessionId)>,
}

impl Late {
    /// One more.
    pub(crate) fn add(&mut self, session: SessionId) {
        self.queue.push_back((self.now, session));
    }

    /// Whose turn it is now. Sessions that have ended since are among them.
    pub(crate) fn next(&mut self) -> Option<SessionId> {
        let &(since, session) = self.queue.front()?;
        if self.now.since(since) < TOGETHER {
            return None;
        }
        self.queue.pop_front();
        if self.queue.is_empty() && self.queue.capacity() > SMALL {
            self.queue = VecDeque::new();
        }
        Some(session)
    }

    /// When somebody will have waited long enough.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.queue.front().map(|&(since, _)| since + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_within_half_a_second_is_served_together() {
        let mut late = Late::default();
        assert_eq!((late.due(), late.next()), (None, None));
        let session = |index| SessionId::new(index, 0);
        for (ms, index) in [(0, 0), (400, 1), (600, 2)] {
            late.now = Timestamp::from_millis(ms);
            late.add(session(index));
        }
        // The first one's time comes by itself when half of it is over, if anything else happens then.
        late.now = Timestamp::from_millis(499);
        assert_eq!(late.next(), None);
        assert_eq!(late.due(), Some(Timestamp::from_millis(1000)));
        late.now = Timestamp::from_millis(1000);
        assert_eq!(late.next(), Some(session(0)));
        assert_eq!(late.next(), Some(session(1)));
        assert_eq!(late.next(), None);
        assert_eq!(late.due(), Some(Timestamp::from_millis(1600)));
    }
}
