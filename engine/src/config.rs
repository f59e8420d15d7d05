//! What the engine is told to do, already validated: every value of these types is a configuration that works.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU8;

use crate::ids::PoolId;
use crate::pace::{Bucket, Sources};
use crate::time::Duration;
use crate::unpack::Unpack;

/// The listeners and limits of one process, as one engine sees them.
#[derive(Clone, Debug)]
pub struct Config {
    /// The listeners, by [`ListenerId`](crate::ids::ListenerId). `None`: it was removed, and its id is not used again
    /// in the life of the process, because sessions may still remember it.
    pub listeners: Vec<Option<Arc<Listener>>>,
    /// Limits that are not a listener's own.
    pub limits: Limits,
}

impl Config {
    /// A configuration with these listeners, none of them removed.
    pub fn new(listeners: Vec<Listener>, limits: Limits) -> Self {
        let listeners = listeners.into_iter().map(|it| Some(Arc::new(it))).collect();
        Self { listeners, limits }
    }
}

/// One place where clients come in.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// What reads the client's first bytes; `None` routes at accept, without a key.
    pub unpack: Option<Arc<dyn Unpack>>,
    /// Where its sessions go.
    pub pool: PoolId,
    /// Deadline of the whole first frame, counted from accept.
    pub preread_timeout: Duration,
    /// Most bytes to look at before a verdict, skipped ones included.
    pub preread_limit: usize,
    /// Most sessions at a time in this engine; beyond it the listener stops accepting.
    pub max_sessions: usize,
    /// Whether an unpack may name an address that is in no pool.
    pub allow_address: bool,
    /// How long a session may pass no byte at all; `None` for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a session whose one direction has ended may pass no byte the other way.
    pub half_close_timeout: Duration,
    /// Whether a backend that ends before its first byte costs the client nothing: while the client has sent no byte
    /// beyond the preface, the preface goes to the next owner (*first-frame replay*). How the last one ends that
    /// [`Failover::retries`] allow is passed on. The first frame may then be delivered twice, so it is only for protocols
    /// that bear it.
    pub replay: bool,
    /// Whether the kernel sends what it is given bit by bit, by a timer, as BBR has it do. Larger pieces would then only
    /// wait longer, so no source [rests](crate::duplex::Duplex::visit).
    pub paced: bool,
    /// After how many messages, read from either side, a session is offered to the kernel, and again after some more if
    /// that does not suit it; `None`: never.
    pub hand_off: Option<NonZeroU8>,
    /// How fast it accepts sessions; `None` as fast as they come. Shared by the engines of the process.
    pub admission: Option<Bucket>,
    /// Most live sessions of one client address, in the whole process; `None` for no limit.
    pub per_source: Option<Sources>,
}

impl Listener {
    /// Default of [`Listener::preread_timeout`].
    pub const PREREAD_TIMEOUT: Duration = Duration::from_secs(10);
    /// Default of [`Listener::preread_limit`].
    pub const PREREAD_LIMIT: usize = 64 * 1024;
    /// Default of [`Listener::half_close_timeout`].
    pub const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(300);
    /// Default of [`Listener::max_sessions`], for the whole process.
    pub const MAX_SESSIONS: usize = 1_000_000;

    /// A listener with every limit at its default.
    pub fn new(name: impl Into<String>, unpack: Option<Arc<dyn Unpack>>, pool: PoolId) -> Self {
        Self {
            name: name.into().into_boxed_str(),
            unpack,
            pool,
            preread_timeout: Self::PREREAD_TIMEOUT,
            preread_limit: Self::PREREAD_LIMIT,
            max_sessions: Self::MAX_SESSIONS,
            allow_address: false,
            idle_timeout: None,
            half_close_timeout: Self::HALF_CLOSE_TIMEOUT,
            replay: false,
            paced: false,
            hand_off: None,
            admission: None,
            per_source: None,
        }
    }
}

/// Limits of an engine as a whole.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most bytes that all prereads of this engine hold together.
    pub preread_memory: usize,
    /// How long a socket that must be reset is kept so that its peer gets what was written before.
    pub reset_timeout: Duration,
    /// Over how long the live sessions are closed when tlb stops.
    pub shutdown_timeout: Duration,
}

impl Limits {
    /// Default of [`Limits::preread_memory`], for the whole process.
    pub const PREREAD_MEMORY: usize = 256 * 1024 * 1024;
    /// Default of [`Limits::reset_timeout`].
    pub const RESET_TIMEOUT: Duration = Duration::from_secs(10);
    /// Default of [`Limits::shutdown_timeout`].
    pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            preread_memory: Self::PREREAD_MEMORY,
            reset_timeout: Self::RESET_TIMEOUT,
            shutdown_timeout: Self::SHUTDOWN_TIMEOUT,
        }
    }
}

/// How the sessions of one pool reach their backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// How long one connect attempt may take, until the kernel has taken the first byte of the preface.
    pub connect_timeout: Duration,
    /// How many attempts may follow the first.
    pub retries: u8,
    /// How many failures in a row eject a backend. At least 1.
    pub fall: u32,
    /// How long a backend is ejected the first time; doubles with each time it fails its trial, up to
    /// [`Passive::BACK_OFF_MAX`](crate::health::Passive::BACK_OFF_MAX).
    pub ejection: Duration,
    /// Most backends of the pool that may be ejected at a time, in per cent; one always may.
    pub max_ejected: u32,
    /// Whether a session that its backend resets before that has sent a byte counts as a failure, as a failed connect
    /// does, and a byte or an end of the backend's, instead of the connect, as a success. A client can bring such resets
    /// about by what it sends, so it is off by default.
    pub early_resets: bool,
    /// Whether the preface goes to the backend with the SYN (TCP Fast Open, RFC 7413) where the kernels can and the
    /// listener has [`Listener::replay`]: a SYN that is sent again brings it again.
    pub fast_open: bool,
    /// Connections that an engine keeps ready for each backend that sessions go to; zero keeps none, and
    /// [`Failover::MAX_WARM`] is the most. A backend must bear connections that are silent for
    /// [`WARM_FOR`](crate::engine::WARM_FOR).
    pub warm: u8,
    /// Of the backends that are neither draining nor in maintenance, in per cent: if fewer than this are up, health is
    /// not believed and all of them are used (*panic*). Zero never does.
    pub panic: u32,
}

impl Failover {
    /// Default of [`Failover::connect_timeout`].
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
    /// Default of [`Failover::retries`].
    pub const RETRIES: u8 = 3;
    /// Default of [`Failover::fall`].
    pub const FALL: u32 = 3;
    /// Default of [`Failover::ejection`].
    pub const EJECTION: Duration = Duration::from_secs(1);
    /// Default of [`Failover::max_ejected`]: a refused connect is no guess, and panic bounds what it may lead to.
    pub const MAX_EJECTED: u32 = 100;
    /// Most that [`Failover::warm`] may be.
    pub const MAX_WARM: u8 = 64;
    /// Default of [`Failover::panic`]: of up to ten backends the last one, so that health never empties a pool.
    pub const PANIC: u32 = 10;
}

impl Default for Failover {
    fn default() -> Self {
        Self {
            connect_timeout: Self::CONNECT_TIMEOUT,
            retries: Self::RETRIES,
            fall: Self::FALL,
            ejection: Self::EJECTION,
            max_ejected: Self::MAX_EJECTED,
            early_resets: false,
            fast_open: false,
            warm: 0,
            panic: Self::PANIC,
        }
    }
}
