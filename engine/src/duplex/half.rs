//! What is known of one direction.

use super::rest::Ear;
use crate::drive::{Mode, Via};

/// A copy that fills the buffer this many times in a row becomes a splice.
const FULL_COPIES: u8 = 2;
/// A splice that brings less than [`SMALL_SPLICE`] this many times in a row becomes a copy.
pub(super) const SMALL_SPLICES: u8 = 5;
/// Below this a splice costs more than a copy (measured: they meet between 32 and 64 KiB).
pub(super) const SMALL_SPLICE: usize = 32 * 1024;

/// What [`Half::brought`] counts, in bytes.
pub(super) const GRAIN: usize = 64;

/// One direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Half {
    /// Bytes in the store.
    pub(super) held: u32,
    /// How to fill the store next.
    pub(super) via: Via,
    /// Fills in a row that spoke for the other way of filling.
    pub(super) streak: u8,
    /// The next fill is a copy, whatever `via` says.
    pub(super) copy_once: bool,
    /// What the store holds is in a pipe.
    pub(super) piped: bool,
    /// The FIN was passed on.
    pub(super) shut: bool,
    /// How it is known that the source is readable.
    pub(super) ear: Ear,
    /// What came from it since it was last found empty, in [`GRAIN`]s. More than it can count makes any source rest.
    pub(super) brought: u16,
}

impl Half {
    /// One that has moved nothing.
    pub(super) fn new(mode: Mode) -> Self {
        let via = if mode == Mode::Splice {
            Via::Splice
        } else {
            Via::Copy
        };
        Self {
            held: 0,
            via,
            streak: 0,
            copy_once: false,
            piped: false,
            shut: false,
            ear: Ear::Open,
            brought: 0,
        }
    }

    /// Small messages are cheaper by copy, large flows by splice: follow what is seen.
    pub(super) fn adapt(&mut self, mode: Mode, via: Via, bytes: usize, short: bool) {
        if mode != Mode::Auto {
            return;
        }
        let (speaks_for_change, enough, other) = match via {
            Via::Copy => (!short && bytes >= SMALL_SPLICE, FULL_COPIES, Via::Splice),
            Via::Splice => (bytes < SMALL_SPLICE, SMALL_SPLICES, Via::Copy),
        };
        if self.via != via || !speaks_for_change {
            self.streak = 0;
            return;
        }
        self.streak += 1;
        if self.streak >= enough {
            self.via = other;
            self.streak = 0;
        }
    }

    /// The source brought so many bytes more.
    pub(super) fn gather(&mut self, bytes: usize) {
        let grains = u16::try_from(bytes.div_ceil(GRAIN)).unwrap_or(u16::MAX);
        self.brought = self.brought.saturating_add(grains);
    }

    /// Whether the source brought so much, as a power of two.
    pub(super) const fn is_heavy(&self, heavy: u8) -> bool {
        self.brought as usize * GRAIN >= 1 << heavy
    }
}
