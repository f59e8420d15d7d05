//! Deadlines: one for each session, kept in order.

use alloc::vec::Vec;

use crate::time::Timestamp;

/// Why a deadline is set. A loop that spins can say what it spins on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Timer {
    /// The first frame must be there.
    Preread,
    /// The connect attempt must have succeeded.
    Connect,
    /// The next attempt may begin.
    Retry,
    /// A byte must have passed.
    Idle,
    /// A byte must have passed the way that is still open.
    HalfClose,
    /// The kernel, which forwards it, is to be asked how it gets on.
    Flow,
    /// Look again whether a peer has acknowledged everything.
    Look,
    /// What is winding up must be done.
    Wind,
    /// tlb is stopping, and it is this session's turn.
    Stop,
    /// The session's backend went away, and it is this session's turn to go.
    Tell,
    /// Connections that no session took have been kept long enough.
    Warm,
    /// Accepting was paused for lack of resources; try again.
    Accept,
}

/// No place in the heap.
const NOWHERE: u32 = u32::MAX;

/// The earliest of many deadlines, at most one for each slot.
///
/// A binary heap that knows where each slot's entry is: a deadline that moves or goes leaves nothing behind, so that
/// memory follows the number of live sessions, not how often they changed their minds.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    heap: Vec<(Timestamp, u32)>,
    place: Vec<u32>,
}

impl Queue {
    /// The earliest deadline and its slot; of equal ones, the lowest slot.
    pub fn first(&self) -> Option<(Timestamp, usize)> {
        self.heap.first().map(|&(at, slot)| (at, slot as usize))
    }

    /// How many slots have a deadline.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether no slot has a deadline.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The deadline of `slot`.
    pub fn get(&self, slot: usize) -> Option<Timestamp> {
        let place = *self.place.get(slot)?;
        (place != NOWHERE).then(|| self.heap[place as usize].0)
    }

    /// Sets the deadline of `slot`, whether or not it had one. [`Timestamp::NEVER`] clears it.
    pub fn set(&mut self, slot: usize, at: Timestamp) {
        if at == Timestamp::NEVER {
            return self.clear(slot);
        }
        if self.place.len() <= slot {
            self.place.resize(slot + 1, NOWHERE);
        }
        let place = self.place[slot];
        if place == NOWHERE {
            self.heap.push((at, slot as u32));
            self.rise(self.heap.len() - 1);
        } else {
            self.heap[place as usize].0 = at;
            let place = self.rise(place as usize);
            self.sink(place);
        }
    }

    /// Takes the deadline of `slot` away, if it has one.
    pub fn clear(&mut self, slot: usize) {
        let Some(place) = self.place.get_mut(slot) else {
            return;
        };
        let place = core::mem::replace(place, NOWHERE);
        if place == NOWHERE {
            return;
        }
        self.heap.swap_remove(place as usize);
        if (place as usize) < self.heap.len() {
            let place = self.rise(place as usize);
            self.sink(place);
        }
    }

    /// Moves the entry at `place` towards the root as far as it belongs, and returns where it is then.
    fn rise(&mut self, mut place: usize) -> usize {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= self.heap[place] {
                break;
            }
            self.heap.swap(parent, place);
            self.note(place);
            place = parent;
        }
        self.note(place);
        place
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let left = 2 * place + 1;
            let right = left + 1;
            let mut least = place;
            for child in [left, right] {
                if child < self.heap.len() && self.heap[child] < self.heap[least] {
                    least = child;
                }
            }
            if least == place {
                break;
            }
            self.heap.swap(least, place);
            self.note(place);
            place = least;
        }
        self.note(place);
    }

    fn note(&mut self, place: usize) {
        let slot = self.heap[place].1 as usize;
        self.place[slot] = place as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_map(ops in prop::collection::vec((0usize..40, 0u64..50), 1..400)) {
            let mut queue = Queue::default();
            let mut model = BTreeMap::new();
            for (slot, at) in ops {
                // One in five clears.
                if at < 10 {
                    queue.clear(slot);
                    model.remove(&slot);
                } else {
                    queue.set(slot, Timestamp::from_nanos(at));
                    model.insert(slot, at);
                }
                let first = model.iter().map(|(&slot, &at)| (at, slot)).min();
                prop_assert_eq!(queue.first(), first.map(|(at, slot)| (Timestamp::from_nanos(at), slot)));
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.get(slot).map(Timestamp::as_nanos), model.get(&slot).copied());
            }
        }
    }

    #[test]
    fn never_is_no_deadline() {
        let mut queue = Queue::default();
        queue.set(3, Timestamp::from_millis(1));
        queue.set(3, Timestamp::NEVER);
        queue.set(9, Timestamp::NEVER);
        queue.clear(100);
        assert!(queue.is_empty());
        assert_eq!(queue.first(), None);
    }
}
