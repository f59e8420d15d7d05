//! Whose turn it is.

use alloc::collections::VecDeque;

use crate::ids::SessionId;

/// So many bytes in one turn make a bulk flow of a session.
const BULK: usize = 64 * 1024;
/// How many bytes moved for bulk flows are enough in a turn: however many flows there are, small messages wait for no
/// more than these. What a flow moves at once comes on top.
pub(super) const BULK_PER_TURN: usize = 1024 * 1024;

/// Sessions with something to do. Each is in it once; the driver sees to that.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    queue: VecDeque<SessionId>,
    /// Bulk flows that nothing was left for in this turn: the first ones in the next.
    late: VecDeque<SessionId>,
    /// Those that have had their share of this turn.
    spent: VecDeque<SessionId>,
    /// Bytes that bulk flows moved in this turn.
    bulk: usize,
}

impl Schedule {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn push(&mut self, id: SessionId) {
        self.queue.push_back(id);
    }

    pub(super) fn pop(&mut self) -> Option<SessionId> {
        self.queue.pop_front()
    }

    /// A session has had its share and has more to do.
    pub(super) fn spent(&mut self, id: SessionId) {
        self.spent.push_back(id);
    }

    /// A session moved so many bytes in one go; whether that makes a bulk flow of it.
    pub(super) const fn moved(&mut self, bytes: usize) -> bool {
        let bulk = bytes >= BULK;
        if bulk {
            self.bulk += bytes;
        }
        bulk
    }

    /// Whether a bulk flow has to wait for the next turn. Then it is taken care of.
    pub(super) fn puts_off(&mut self, id: SessionId) -> bool {
        let over = self.bulk >= BULK_PER_TURN;
        if over {
            self.late.push_back(id);
        }
        over
    }

    /// The turn is over.
    pub(super) fn end(&mut self) {
        self.bulk = 0;
        for left in [&mut self.late, &mut self.spent] {
            // With every turn, a call for nothing would be a tenth of what the loop costs.
            if !left.is_empty() {
                self.queue.append(left);
            }
        }
    }
}
