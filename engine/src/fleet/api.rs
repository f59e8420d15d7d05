//! What goes into a fleet and what comes out.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU32;

use crate::api::{Tell, TellHow};
use crate::balance::Policy;
use crate::config::Failover;
use crate::health::Change;
use crate::ids::{Incarnation, PoolId};
use crate::roster::Roster;
use crate::time::{Duration, Timestamp};

/// What a configuration says about pools. Names differ, and each pool is one that
/// [`Pool::new`](crate::roster::Pool::new) accepts.
#[derive(Clone, Debug, Default)]
pub struct FleetConfig {
    /// In any order: a pool that was there before keeps its [`PoolId`], by its name; a new one gets the next.
    pub pools: Vec<PoolConfig>,
}

/// A pool.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Its name.
    pub name: Box<str>,
    /// How a key becomes a backend.
    pub policy: Policy,
    /// See [`Pool::bounded_load`](crate::roster::Pool::bounded_load).
    pub bounded_load: Option<u32>,
    /// How its sessions connect and fail over.
    pub failover: Failover,
    /// Local addresses to connect from.
    pub sources: Vec<IpAddr>,
    /// How its backends are probed; `None` for not at all: then they are up, as far as the fleet knows.
    pub probe: Option<ProbeConfig>,
    /// What becomes of the sessions of a backend that goes down, into maintenance, or away.
    pub on_down: OnDown,
    /// How long a backend that comes up takes until it has its whole share; `None` for at once.
    pub slow_start: Option<Duration>,
    /// How fast each of its backends takes new sessions; `None` for as fast as they come.
    pub admission: Option<Admission>,
    /// Its backends, in any order; ids differ.
    pub backends: Vec<BackendConfig>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// Its id.
    pub id: Box<str>,
    /// Where it is; `None` while its name is not resolved, which counts as down.
    pub address: Option<SocketAddr>,
    /// Its share; at least 1.
    pub weight: u32,
    /// Whether the configuration drains it. What an operator last said about it counts for more.
    pub draining: bool,
}

/// When to probe, and what to conclude. How a probe is made is the driver's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// From the begin of one probe to the begin of the next, which waits for the end of the first; with a jitter of
    /// up to a tenth either way. So a backend is found out within `interval * fall + timeout`, and that tenth.
    pub interval: Duration,
    /// The same while the state is changing: after a result that contradicts it.
    pub fast_interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Successes in a row that bring a backend up; at least 1.
    pub rise: u32,
    /// Failures in a row that take it down; at least 1.
    pub fall: u32,
}

/// What becomes of established sessions whose backend goes down, into maintenance, or away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDown {
    /// How they end; `None` keeps them.
    pub how: Option<TellHow>,
    /// How many a second, over the whole process.
    pub rate: NonZeroU32,
}

impl Default for OnDown {
    /// Sessions are closed, a thousand a second: a client that stays on a dead backend is worse off than one that has
    /// to come again.
    fn default() -> Self {
        const THOUSAND: NonZeroU32 = NonZeroU32::new(1000).unwrap();
        Self {
            how: Some(TellHow::Close),
            rate: THOUSAND,
        }
    }
}

/// A rate of new sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Sessions a second.
    pub rate: NonZeroU32,
    /// How many may come at once after a rest.
    pub burst: NonZeroU32,
}

/// What an operator wants of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admin {
    /// It serves.
    #[default]
    Ready,
    /// It gets no new session and keeps those it has.
    Drain,
    /// It is not to be used: as `Drain`, its sessions are told to go (see [`OnDown`]), and it is not probed.
    Maint,
}

/// A probe, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub u64);

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The backend answered as it should.
    Passed,
    /// It did not: what happened, in a few words for the log.
    Failed(Box<str>),
    /// This host was at fault (no descriptor, no port): says nothing about the backend.
    Inconclusive(Box<str>),
}

/// What a fleet is told.
#[derive(Clone, Debug)]
pub enum FleetInput {
    /// This is the configuration from now on. What is known of pools and backends that stay is kept: health as long as
    /// the address is the same, an operator's word, counts.
    Configure(FleetConfig),
    /// A backend's name was resolved (anew). Unknown pools and backends are ignored.
    Resolved {
        /// The pool's name.
        pool: Box<str>,
        /// The backend's id.
        backend: Box<str>,
        /// Its first address.
        address: SocketAddr,
    },
    /// A probe ended. One that was cancelled, timed out or is of another life of its backend is ignored.
    Probed {
        /// Which.
        probe: ProbeId,
        /// What it found.
        outcome: ProbeOutcome,
    },
    /// A worker's passive health changed its mind ([`Event::BackendDown`](crate::api::Event::BackendDown),
    /// [`Event::BackendUp`](crate::api::Event::BackendUp)). Unknown incarnations are ignored.
    Reported {
        /// Which worker, counted from zero.
        worker: u32,
        /// Which backend.
        backend: Incarnation,
        /// What the worker believes now.
        change: Change,
    },
}

/// What is to be done, from [`Fleet::poll_action`](crate::fleet::Fleet::poll_action), in order.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum FleetAction {
    /// Give every worker this roster.
    Publish(Arc<Roster>),
    /// Tell every worker, after the rosters before it.
    Tell(Tell),
    /// Tell every worker but `except` what one of them found out: see
    /// [`Engine::advise`](crate::Engine::advise).
    Advise {
        /// The pool.
        pool: PoolId,
        /// The backend.
        backend: Incarnation,
        /// What to believe.
        change: Change,
        /// The worker that knows already.
        except: Option<u32>,
    },
    /// Probe a backend, and report [`FleetInput::Probed`]. The fleet minds the time.
    Probe {
        /// The probe.
        probe: ProbeId,
        /// Of which pool, whose name says how.
        pool: PoolId,
        /// Where.
        to: SocketAddr,
    },
    /// Give a probe up: its time is over, or nobody wants to know any more.
    Cancel {
        /// Which.
        probe: ProbeId,
    },
}

/// How a backend stands, as an operator sees it: the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In maintenance.
    Maint,
    /// Its name has no address yet.
    Unresolved,
    /// Its active health check says that it is down.
    Down,
    /// Some worker's sessions could not connect to it: it gets nothing but a trial now and then.
    Ejected,
    /// Draining.
    Drain,
    /// Up.
    Up,
}

impl State {
    /// A stable word for logs, metrics and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Maint => "maint",
            Self::Unresolved => "unresolved",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Drain => "drain",
            Self::Up => "up",
        }
    }
}

/// A fact for logs, metrics and checkers, from [`Fleet::poll_event`](crate::fleet::Fleet::poll_event).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FleetEvent {
    /// A backend's state changed.
    State {
        /// The pool's name.
        pool: Box<str>,
        /// The backend's id.
        backend: Box<str>,
        /// From.
        from: State,
        /// To.
        to: State,
        /// Why, in a few words: the last probe's failure, "operator", "configuration", "worker 3".
        cause: Box<str>,
    },
    /// A backend joined a pool.
    Added {
        /// The pool's name.
        pool: Box<str>,
        /// The backend's id.
        backend: Box<str>,
        /// Where it is, if that is known.
        address: Option<SocketAddr>,
    },
    /// A backend left its pool.
    Removed {
        /// The pool's name.
        pool: Box<str>,
        /// The backend's id.
        backend: Box<str>,
    },
    /// A backend got another address: a new incarnation.
    Moved {
        /// The pool's name.
        pool: Box<str>,
        /// The backend's id.
        backend: Box<str>,
        /// Where it is now.
        address: SocketAddr,
    },
    /// A backend's weight changed.
    Weight {
        /// The pool's name.
        pool: Box<str>,
        /// The backend's id.
        backend: Box<str>,
        /// Before.
        from: u32,
        /// Now.
        to: u32,
    },
    /// Too few backends of a pool are up, so that all are used, or enough are again.
    Panic {
        /// The pool's name.
        pool: Box<str>,
        /// Whether it is in panic now.
        on: bool,
    },
}

/// Why an operator's wish cannot be done: the operator is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FleetError {
    /// There is no pool of that name.
    UnknownPool,
    /// The pool has no backend of that id.
    UnknownBackend,
}

/// A pool as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolView {
    /// Its id.
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// How it picks.
    pub policy: Policy,
    /// Whether too few backends are up, so that all are used.
    pub panic: bool,
    /// Its backends, ordered by id.
    pub backends: Vec<BackendView>,
}

/// A backend as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendView {
    /// Its id.
    pub id: String,
    /// Its life.
    pub incarnation: Incarnation,
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// Its share.
    pub weight: u32,
    /// How it stands.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// What an operator wants of it.
    pub admin: Admin,
    /// Live sessions, of all workers.
    pub sessions: u32,
    /// Probes that passed.
    pub probes_passed: u64,
    /// Probes that failed, timed out ones included.
    pub probes_failed: u64,
    /// What the last one found, and how long it took.
    pub last_probe: Option<(ProbeOutcome, Duration)>,
    /// How often workers ejected it.
    pub ejections: u64,
    /// How often its active health went down.
    pub downs: u64,
}
