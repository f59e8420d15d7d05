//! The fleet: the truth about a process's backends, from which rosters follow.
//!
//! One per process, sans-IO like the [`Engine`](crate::Engine)s of its workers. It is told what the configuration
//! says, what names resolve to, what probes found, what workers saw and what an operator wants; it says which probes
//! to make, which roster to publish, and which sessions are to be told.
//!
//! ```text
//! configuration ─▶                     ─▶ Publish(roster) ─▶ every worker
//! probe results ─▶  Fleet (one/process) ─▶ Tell, Advise   ─▶ every worker, after the roster it belongs to
//! reports       ─▶                     ─▶ Probe, Cancel   ─▶ whoever probes
//! operator      ─▶                     ─▶ events          ─▶ log, metrics, checkers
//! ```

mod api;

pub use api::{
    Admin, Admission, BackendConfig, BackendView, FleetAction, FleetConfig, FleetError, FleetEvent,
    FleetInput, OnDown, PoolConfig, PoolView, ProbeConfig, ProbeId, ProbeOutcome, State,
};

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::ids::PoolId;
use crate::roster::Roster;
use crate::time::Timestamp;

/// The truth about the backends of a process.
///
/// After every call that takes `&mut self`, drain [`Fleet::poll_action`] and do as it says, in order.
#[derive(Debug)]
pub struct Fleet {
    roster: Arc<Roster>,
}

impl Fleet {
    /// A fleet of `config`'s pools, whose backends with an address are up until something else is known.
    /// `seed` is its only source of chance. Its first roster is there at once.
    pub fn new(_config: FleetConfig, _seed: u64, _now: Timestamp) -> Self {
        Self {
            roster: Arc::default(),
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, _now: Timestamp, _input: FleetInput) {}

    /// Does what is due. Calling too early, or twice, does nothing.
    pub fn handle_timeout(&mut self, _now: Timestamp) {}

    /// What to do next; `None` when everything is said.
    pub fn poll_action(&mut self) -> Option<FleetAction> {
        None
    }

    /// The next fact.
    pub fn poll_event(&mut self) -> Option<FleetEvent> {
        None
    }

    /// When [`Fleet::handle_timeout`] has to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        None
    }

    /// An operator wants something of a backend. It holds until the process ends or the operator changes it, also
    /// over reloads.
    ///
    /// # Errors
    /// There is no such pool or backend; nothing was changed.
    pub fn set(
        &mut self,
        _now: Timestamp,
        _pool: &str,
        _backend: &str,
        _admin: Admin,
    ) -> Result<(), FleetError> {
        Err(FleetError::UnknownPool)
    }

    /// The roster as it is now.
    pub fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// The id of the pool of that name, if the configuration has it.
    pub fn pool(&self, _name: &str) -> Option<PoolId> {
        None
    }

    /// The ids that the pools of `config` have, or will have when it is configured, in its order: what listeners that
    /// are built along with it refer to.
    pub fn ids(&self, _config: &FleetConfig) -> Vec<PoolId> {
        Vec::new()
    }

    /// All pools of the configuration, ordered by name.
    pub fn view(&self) -> Vec<PoolView> {
        Vec::new()
    }

    /// What is unfinished; `None` when the fleet waits for nothing but time and its next probes.
    pub fn pending(&self) -> Option<Box<str>> {
        None
    }
}
