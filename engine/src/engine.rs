//! The engine.
use crate::config::Config;
use crate::roster::Roster;
use crate::time::Timestamp;
use alloc::sync::Arc;

/// One worker's sessions.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// An engine with no session. `seed` is its only randomness.
    pub fn new(_config: Arc<Config>, _roster: Arc<Roster>, _seed: u64, _now: Timestamp) -> Self {
        Self {}
    }
    /// Live sessions.
    pub fn live(&self) -> usize {
        0
    }
}
