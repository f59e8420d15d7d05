//! Into what pieces bytes are cut on their way.

use tlb_engine::rng::Rng;

/// Into what pieces reads and writes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunking {
    /// As large as they can be.
    Whole,
    /// By chance, with a liking for the extremes.
    Random,
    /// One byte each.
    Bytes,
}

/// Cuts reads and writes, by a stream of chance of its own.
#[derive(Clone, Debug)]
pub struct Chunker {
    how: Chunking,
    rng: Rng,
}

impl Chunker {
    /// Cuts as `how` says.
    pub const fn new(how: Chunking, rng: Rng) -> Self {
        Self { how, rng }
    }

    /// How many of `len` bytes (at least one) to move at once.
    pub fn cut(&mut self, len: usize) -> usize {
        let below = |rng: &mut Rng, bound: usize| 1 + rng.below(bound as u64) as usize;
        match self.how {
            Chunking::Whole => len,
            Chunking::Bytes => 1,
            Chunking::Random => match self.rng.below(4) {
                0 => 1,
                1 => below(&mut self.rng, len.min(16)),
                2 => below(&mut self.rng, len),
                _ => len,
            },
        }
    }

    /// How many segments one read may join, or one write may become.
    pub(super) fn segments(&mut self) -> usize {
        match self.how {
            Chunking::Whole => usize::MAX,
            Chunking::Bytes => 1,
            Chunking::Random => 1 + self.rng.below(4) as usize,
        }
    }
}
