//! What the admin API shows, as it is in JSON: the server writes these types, and `tlb ctl` reads them.

use serde::{Deserialize, Serialize};
use tlb_engine::stats::{BackendStats, ListenerStats};

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PoolView {
    /// Its name.
    pub name: String,
    /// Its policy, as in the configuration.
    pub policy: String,
    /// Whether too few backends are up, so that all are used.
    pub panic: bool,
    /// Its backends, ordered by id.
    pub backends: Vec<BackendView>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BackendView {
    /// Its id.
    pub id: String,
    /// Where it is; absent while its name is not resolved.
    pub address: Option<String>,
    /// Its share, relative to the others'.
    pub weight: u32,
    /// `up`, `drain`, `ejected`, `down`, `unresolved` or `maint`.
    pub state: String,
    /// Since how many seconds.
    pub state_seconds: u64,
    /// What an operator wants of it: `ready`, `drain` or `maint`.
    pub admin: String,
    /// Live sessions.
    pub sessions: u32,
    /// Sessions that it took since tlb began.
    pub sessions_total: u64,
    /// Bytes it took.
    pub bytes_forward: u64,
    /// Bytes that clients took from it.
    pub bytes_return: u64,
    /// Probes that passed.
    pub probes_passed: u64,
    /// Probes that failed.
    pub probes_failed: u64,
    /// What the last probe found, if it was probed: `passed`, or what went wrong.
    pub last_probe: Option<String>,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ListenerView {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// The pool of its sessions.
    pub pool: String,
    /// Live sessions.
    pub sessions: u64,
    /// Sessions accepted since tlb began.
    pub sessions_total: u64,
    /// Most live sessions.
    pub max_sessions: u64,
}

/// Which sessions are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Only of this listener.
    pub listener: Option<String>,
    /// Only to this pool.
    pub pool: Option<String>,
    /// Only to this backend.
    pub backend: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Live sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SessionsView {
    /// Those that fit, in no particular order, cut to the limit.
    pub sessions: Vec<SessionView>,
    /// How many fit in all.
    pub total: u64,
}

/// A live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SessionView {
    /// Its id: the worker's number, and the session's in that worker.
    pub id: String,
    /// Its listener.
    pub listener: String,
    /// The client's address.
    pub client: String,
    /// The pool.
    pub pool: String,
    /// The backend, once one was picked.
    pub backend: Option<String>,
    /// The key, as in the log.
    pub key: Option<String>,
    /// `preread`, `connecting`, `waiting`, `relaying` or `winding`.
    pub phase: String,
    /// Bytes the backend took.
    pub bytes_forward: u64,
    /// Bytes the client took.
    pub bytes_return: u64,
    /// Seconds since it was accepted.
    pub age_seconds: u64,
    /// Seconds since a byte passed.
    pub idle_seconds: u64,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ReloadView {
    /// Counts the configurations of this process; the first is 1.
    pub generation: u64,
    /// Listeners that were added.
    pub listeners_added: Vec<String>,
    /// Listeners that were removed.
    pub listeners_removed: Vec<String>,
    /// Pools that were added.
    pub pools_added: Vec<String>,
    /// Pools that were removed.
    pub pools_removed: Vec<String>,
    /// Backends that were added, as `pool/backend`.
    pub backends_added: Vec<String>,
    /// Backends that were removed, as `pool/backend`.
    pub backends_removed: Vec<String>,
    /// What is probably not meant as it is written, or is only read when tlb starts.
    pub warnings: Vec<String>,
}

/// Everything that is counted, as `/metrics` needs it: sums over the workers.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Listeners, by name.
    pub listeners: Vec<(String, ListenerStats)>,
    /// Pools and their backends, as operators see them.
    pub pools: Vec<PoolView>,
    /// Backends: the pool's name, the id, and what was counted.
    pub backends: Vec<(String, String, BackendStats, FleetStats)>,
    /// Configurations that were put to work and that were refused, after the first one.
    pub reloads: (u64, u64),
    /// The configuration's number.
    pub generation: u64,
    /// When the last configuration was put to work, in seconds since 1970.
    pub last_reload_seconds: u64,
    /// Bytes moved through a buffer and through a pipe.
    pub bytes_copied: u64,
    /// See `bytes_copied`.
    pub bytes_spliced: u64,
    /// Lines that the session log dropped.
    pub session_log_dropped: u64,
    /// Workers.
    pub workers: u64,
    /// When the process began, in seconds since 1970.
    pub start_seconds: f64,
    /// Whether it is stopping.
    pub stopping: bool,
}

/// What the fleet counted about a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetStats {
    /// How often its active health went down.
    pub downs: u64,
    /// How often workers ejected it.
    pub ejections: u64,
    /// Seconds that its last probe took, in nanoseconds.
    pub probe_nanos: u64,
}
