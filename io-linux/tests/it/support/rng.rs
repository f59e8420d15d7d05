//! Seeded choices, so that a failure can be run again.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

/// Environment variable that fixes the seed of every test.
const SEED_VARIABLE: &str = "TLB_TEST_SEED";

/// A small generator (SplitMix64). Prints its seed if the test that owns it panics.
#[derive(Debug)]
pub(crate) struct Rng {
    seed: u64,
    state: u64,
}

impl Rng {
    /// Seeded from `TLB_TEST_SEED`, else from the clock.
    pub(crate) fn from_env() -> Self {
        let seed = match env::var(SEED_VARIABLE) {
            Ok(text) => text.parse().expect("TLB_TEST_SEED is a decimal number"),
            Err(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("the clock is past 1970")
                .subsec_nanos()
                .into(),
        };
        Self::new(seed)
    }

    /// Seeded with `seed`.
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// The next 64 bits.
    pub(crate) const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// A size from 1 to `most`, small ones as likely as large ones: its magnitude is drawn first.
    pub(crate) fn size(&mut self, most: usize) -> usize {
        let bits = self.next() % u64::from(usize::BITS - most.leading_zeros()) + 1;
        let size = usize::try_from(self.next() % (1 << bits)).expect("fits below most's bits");
        size.clamp(1, most)
    }

    /// Another generator, seeded from this one.
    pub(crate) const fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}

impl Drop for Rng {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("run it again with {SEED_VARIABLE}={}", self.seed);
        }
    }
}

/// SplitMix64's increment.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function: a bijection that scatters neighbours.
pub(super) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
