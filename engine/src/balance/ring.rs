//! The weighted consistent hash ring.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use core::fmt;

use super::stream;
use crate::roster::Backend;

/// The points of all backends in order, found by their leading bits.
///
/// The ring is cut into `2^bits` equal arcs with two to four points each (more if there are more
/// backends than that), and `starts` says where each arc's points begin. The arc gives a point's
/// leading `bits`, so an entry holds the remaining ones, and in the place that this frees the slot:
/// entries compare like (point, slot), and nothing of the hash is lost. A lookup touches two places
/// in memory, however large the ring.
#[derive(Clone)]
pub struct Ring {
    bits: u32,
    starts: Box<[u32]>,
    entries: Box<[u64]>,
}

impl Ring {
    /// The ring of `backends`, ordered by id, with `points` per unit of weight. Takes time in
    /// proportion to the points.
    pub fn build(points: u32, backends: &[Arc<Backend>]) -> Self {
        let count = |backend: &Backend| u64::from(points) * u64::from(backend.weight);
        let total: u64 = backends.iter().map(|backend| count(backend)).sum();
        let bits = Self::bits(total, backends.len());
        let arcs = 1_usize << bits;
        let for_each_point = |each: &mut dyn FnMut(u64, usize)| {
            for (slot, backend) in backends.iter().enumerate() {
                let mut stream = stream(&backend.id);
                for _ in 0..count(backend) {
                    each(stream.next_u64(), slot);
                }
            }
        };

        // A counting sort by arc. Drawing the points twice is cheaper than keeping them.
        let mut starts = vec![0_u32; arcs + 1].into_boxed_slice();
        for_each_point(&mut |point, _| starts[(point >> (64 - bits)) as usize] += 1);
        let mut before = 0;
        for start in &mut starts {
            before += core::mem::replace(start, before);
        }
        let mut entries = vec![0_u64; total as usize].into_boxed_slice();
        for_each_point(&mut |point, slot| {
            let next = &mut starts[(point >> (64 - bits)) as usize];
            entries[*next as usize] = (point << bits) | slot as u64;
            *next += 1;
        });
        // Every arc's start has moved on to its end, which is the start of the next.
        starts.copy_within(..arcs, 1);
        starts[0] = 0;
        for arc in starts.windows(2) {
            entries[arc[0] as usize..arc[1] as usize].sort_unstable();
        }
        Self {
            bits,
            starts,
            entries,
        }
    }

    /// Enough for arcs of fewer than four points, and for every slot to fit into an entry.
    fn bits(points: u64, slots: usize) -> u32 {
        let by_points = points.max(1).ilog2().saturating_sub(1);
        let by_slots = slots.next_power_of_two().ilog2();
        by_points.max(by_slots).max(1)
    }

    /// How many points it has.
    pub fn points(&self) -> usize {
        self.entries.len()
    }

    /// The slots of all points, from the owner of `hash` on, once round. A slot comes as often as
    /// it has points.
    pub fn walk(&self, hash: u64) -> impl Iterator<Item = usize> + Clone + '_ {
        let (before, from) = self.entries.split_at(self.position(hash));
        let slots = (1_u64 << self.bits) - 1;
        from.iter()
            .chain(before)
            .map(move |entry| (entry & slots) as usize)
    }

    /// The first point that is not below `hash`; the number of points if there is none.
    fn position(&self, hash: u64) -> usize {
        let arc = (hash >> (64 - self.bits)) as usize;
        let (start, end) = (self.starts[arc] as usize, self.starts[arc + 1] as usize);
        let rest = hash << self.bits;
        // Counting all of the few is faster than stopping at a place that no processor can foresee.
        let below = self.entries[start..end]
            .iter()
            .filter(|entry| **entry < rest);
        start + below.count()
    }
}

impl fmt::Debug for Ring {
    /// Without the points, which may be millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("points", &self.points())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Ring {
    /// Each slot's part of all hashes, exactly.
    pub(super) fn shares(&self, slots: usize) -> Box<[f64]> {
        let mut lengths = vec![0_u128; slots];
        let mut before = None;
        for (point, slot) in self.in_order() {
            let since = before.map_or(u128::from(point) + 1, |before| u128::from(point - before));
            lengths[slot] += since;
            before = Some(point);
        }
        let (last, first) = (before.unwrap(), self.walk(0).next().unwrap());
        lengths[first] += u128::from(u64::MAX - last);
        assert_eq!(lengths.iter().sum::<u128>(), 1 << 64);
        let share = |length: &u128| *length as f64 / (1_u128 << 64) as f64;
        lengths.iter().map(share).collect()
    }

    /// All points in order, put together again from arcs and entries.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (u64, usize)> + '_ {
        (0..1_usize << self.bits).flat_map(move |arc| {
            let range = self.starts[arc] as usize..self.starts[arc + 1] as usize;
            self.entries[range].iter().map(move |entry| {
                let point = ((arc as u64) << (64 - self.bits)) | (entry >> self.bits);
                (point, (entry & ((1 << self.bits) - 1)) as usize)
            })
        })
    }
}
