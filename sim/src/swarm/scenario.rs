//! A scenario: a world and what is done to it, as data.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU32};
use std::sync::Arc;

use tlb_engine::api::TellHow;
use tlb_engine::balance::Policy;
use tlb_engine::config::{Config, Failover, Limits, Listener};
use tlb_engine::drive::Mode;
use tlb_engine::ids::PoolId;
use tlb_engine::pace::{Bucket, Sources};
use tlb_engine::time::Duration;
use tlb_engine::unpack::{
    Delimited, Endian, Fixed, FrameSize, Key, Length, LengthField, Spec, Unpack,
};

use super::frames::{self, Recorded};
use crate::model::Tuning;

/// Shortest frame of a client: all of its head, and two bytes of end.
pub const FRAME_MIN: u32 = 27;
/// Frames of [`Framing::Fixed`].
pub const FRAME_FIXED: u32 = 32;
/// Longest frame of [`Framing::Length`]; beyond it, a magic is garbage.
pub const FRAME_MAX: usize = 1 << 20;

/// A world, and what is done to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What the streams of chance are made from while it runs.
    pub seed: u64,
    /// Workers that share one roster.
    pub workers: usize,
    /// How relays move bytes.
    pub mode: Mode,
    /// A worker wakes up to so many microseconds after it could.
    pub lag_us: u64,
    /// When the faults end.
    pub heal_us: u64,
    /// The kernel.
    pub tuning: Tuning,
    /// Most bytes of all prereads.
    pub preread_memory: usize,
    /// How long a reset may wait.
    pub reset_ms: u64,
    /// Over how long sessions end when tlb stops.
    pub shutdown_ms: u64,
    /// How long a word of the control thread to a worker, or back, may take.
    pub control_us: u64,
    /// Where clients come in, at every worker.
    pub listeners: Vec<Door>,
    /// The pools.
    pub pools: Vec<Group>,
    /// The backends.
    pub backends: Vec<Backend>,
    /// The clients.
    pub clients: Vec<Client>,
    /// What happens, in order.
    pub faults: Vec<(u64, Trouble)>,
}

/// A listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// How frames look.
    pub framing: Framing,
    /// Where its sessions go.
    pub pool: usize,
    /// Deadline of the first frame.
    pub preread_ms: u64,
    /// Most bytes to look at.
    pub limit: usize,
    /// Most sessions.
    pub max_sessions: usize,
    /// Idle timeout, if any.
    pub idle_ms: Option<u64>,
    /// Half-close timeout.
    pub half_close_ms: u64,
    /// Sessions a second, and how many at once.
    pub admission: Option<(u32, u32)>,
    /// Most sessions of a client address.
    pub per_source: Option<u32>,
    /// What was read before the pick may go to another backend when one has ended without an answer.
    pub replay: bool,
}

/// How the first frame looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// None: routed at accept.
    None,
    /// A length field and a magic; garbage is skipped.
    Length,
    /// Ends with a delimiter.
    Delimited,
    /// Always of [`FRAME_FIXED`] bytes.
    Fixed,
    /// As a configuration describes it.
    Spec(Spec),
    /// Whatever an unpack finds that only its code describes.
    Recorded(&'static Recorded),
}

/// A pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// How it picks.
    pub policy: Policy,
    /// Bounded load, in per cent.
    pub bounded: Option<u32>,
    /// Connect timeout.
    pub connect_ms: u64,
    /// Attempts after the first.
    pub retries: u8,
    /// Failures that take a backend down.
    pub fall: u32,
    /// Connections that are kept ready to each backend.
    pub warm: u8,
    /// A reset before the first byte counts as a failure.
    pub early_resets: bool,
    /// What the fleet does with it.
    pub fleet: FleetRules,
}

/// What the fleet does with a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetRules {
    /// How its backends are probed.
    pub health: Option<Probing>,
    /// Below so many per cent of backends that are up, all are used.
    pub panic: u32,
    /// Most backends that are ejected at a time, in per cent.
    pub max_ejected: u32,
    /// What becomes of sessions whose backend goes away.
    pub on_down: Option<TellHow>,
    /// So many of them a second.
    pub tell_rate: u32,
    /// How long a backend that comes back takes to its whole share.
    pub ramp_ms: Option<u64>,
    /// New sessions of each backend a second, and how many at once.
    pub admission: Option<(u32, u32)>,
}

impl FleetRules {
    /// No health, no limits: sessions stay.
    pub const NONE: Self = Self {
        health: None,
        panic: 0,
        max_ejected: 100,
        on_down: None,
        tell_rate: 1000,
        ramp_ms: None,
        admission: None,
    };
}

/// Probes of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probing {
    /// From one to the next.
    pub interval_ms: u64,
    /// How long one may take.
    pub timeout_ms: u64,
    /// Successes that bring a backend up.
    pub rise: u32,
    /// Failures that take it down.
    pub fall: u32,
    /// A process must answer, not only its kernel.
    pub exchange: bool,
}

/// Whether a backend is in the first roster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It takes sessions.
    Member,
    /// It gets none.
    Draining,
    /// It is not there yet.
    Absent,
}

/// A backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// In which pool.
    pub pool: usize,
    /// Its weight.
    pub weight: u32,
    /// In the first roster.
    pub membership: Membership,
    /// Of its link.
    pub latency_us: u64,
    /// Of its link.
    pub jitter_us: u64,
    /// What it does with each connection.
    pub script: Script,
}

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// When it connects.
    pub at_us: u64,
    /// To which worker (`SO_REUSEPORT` decides that).
    pub worker: usize,
    /// To which listener.
    pub listener: usize,
    /// Its key.
    pub key: u16,
    /// Bytes of garbage before the frame.
    pub garbage: u32,
    /// Whether the garbage looks like a frame with an impossible length.
    pub evil: bool,
    /// Bytes of the frame.
    pub frame: u32,
    /// Which client host it comes from: 0 to 3.
    pub host: usize,
    /// What it does. `send` counts from the frame's start.
    pub script: Script,
}

/// What one end of a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Script {
    /// When it begins to send.
    pub start: Start,
    /// Bytes to send in all.
    pub send: u32,
    /// Most bytes of one write.
    pub chunk: u32,
    /// From one write to the next, at least.
    pub pause_us: u32,
    /// Whether each write ends with an urgent byte.
    pub urgent: bool,
    /// What it does when all is sent.
    pub then: Then,
    /// Most bytes of one read; 0 reads nothing until all is healed.
    pub read: u32,
    /// From one read to the next, at least.
    pub read_pause_us: u32,
    /// It leaves once so many bytes have come: by a reset, or by a close.
    pub quit: Option<(u32, Then)>,
}

/// When an end begins to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At once.
    Now,
    /// When so many bytes have come.
    Bytes(u32),
    /// When the other end has finished.
    End,
    /// As much as has come, as it comes.
    Echo,
}

/// What an end does when it has sent all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Sends a FIN, reads on to the end.
    Fin,
    /// Sends a FIN once the other end has.
    FinLast,
    /// Nothing, until all is healed.
    Hold,
    /// Resets the connection.
    Reset,
    /// Closes the socket.
    Close,
}

/// Something that happens. Numbers are of backends, where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Its process dies; its host refuses.
    Kill(usize),
    /// It is up again.
    Up(usize),
    /// Its host does not answer connects.
    Hang(usize),
    /// The network says that it is unreachable.
    Unreachable(usize),
    /// Its host is gone without a word.
    Vanish(usize),
    /// Its process is stopped: its kernel goes on.
    Freeze(usize),
    /// The link (backends, then four client hosts) passes nothing.
    Hold(usize),
    /// The link passes everything again.
    Release(usize),
    /// The link becomes slow: so many microseconds.
    Latency(usize, u64),
    /// A worker has so many descriptors left.
    Descriptors(usize, usize),
    /// A worker has no local ports left.
    Ports(usize),
    /// A worker has no socket memory left.
    Memory(usize),
    /// A worker has what it needs again.
    Plenty(usize),
    /// Of a worker, the next so many connections are gone when accepted.
    Gone(usize, u32),
    /// Of a worker, the next so many sockets cannot be registered.
    Unregistered(usize, u32),
    /// A worker gets events for no reason.
    Spurious(usize),
    /// A worker gets old events again.
    Late(usize),
    /// The roster no longer has it.
    Remove(usize),
    /// The roster has it (again).
    Add(usize),
    /// The roster says that it drains.
    Drain(usize),
    /// It moves to another address.
    Readdress(usize),
    /// An operator takes it into maintenance.
    Maint(usize),
    /// An operator wants it to serve.
    Ready(usize),
    /// All workers stop.
    Stop,
}

impl Scenario {
    /// Links: one of each backend, four of client hosts, and one that leads nowhere.
    pub fn links(&self) -> usize {
        self.backends.len() + 5
    }

    /// The link of a client.
    pub fn client_link(&self, client: &Client) -> usize {
        self.backends.len() + client.host % 4
    }

    /// Where a client comes from: no two alike.
    pub fn client_address(&self, client: usize) -> SocketAddr {
        let host = self.clients[client].host as u8;
        let [high, low] = ((client / 50_000) as u16).to_be_bytes();
        let ip = Ipv4Addr::new(10, 1 + host, high, low);
        SocketAddr::from((ip, 10_000 + (client % 50_000) as u16))
    }

    /// Which client comes from there.
    pub fn client_at(&self, peer: SocketAddr) -> Option<usize> {
        let SocketAddr::V4(peer) = peer else {
            return None;
        };
        let [_, _, high, low] = peer.ip().octets();
        let client = usize::from(u16::from_be_bytes([high, low])) * 50_000
            + usize::from(peer.port().checked_sub(10_000)?);
        (client < self.clients.len()).then_some(client)
    }

    /// Where a backend listens in its `move`th place.
    pub fn backend_address(backend: usize, place: u8) -> SocketAddr {
        SocketAddr::from(([10, 200, backend as u8, place], 7000))
    }

    /// The engine's configuration, for one of the workers.
    pub fn config(&self) -> Config {
        let limits = Limits {
            preread_memory: self.preread_memory,
            reset_timeout: Duration::from_millis(self.reset_ms),
            shutdown_timeout: Duration::from_millis(self.shutdown_ms),
        };
        Config::new(self.listeners.iter().map(Door::listener).collect(), limits)
    }
}

impl Door {
    fn listener(&self) -> Listener {
        let unpack = self.framing.unpack();
        Listener {
            preread_timeout: Duration::from_millis(self.preread_ms),
            preread_limit: self.limit,
            max_sessions: self.max_sessions,
            idle_timeout: self.idle_ms.map(Duration::from_millis),
            half_close_timeout: Duration::from_millis(self.half_close_ms),
            admission: self.admission.and_then(bucket),
            per_source: self.per_source.and_then(NonZeroU32::new).map(Sources::new),
            replay: self.replay,
            // As good as drawn.
            paced: self.pool % 2 == 1,
            hand_off: NonZeroU8::new((self.preread_ms % 5) as u8),
            ..Listener::new("l", unpack, PoolId(self.pool as u32))
        }
    }
}

impl Framing {
    /// Whether a client's frame may have so many bytes.
    pub fn takes(self, frame: u32) -> bool {
        match self {
            Self::None | Self::Length | Self::Delimited | Self::Fixed => frame >= FRAME_MIN,
            Self::Spec(spec) => frames::sizes(&spec, usize::MAX)
                .is_ok_and(|(least, most)| (least..=most).contains(&(frame as usize))),
            Self::Recorded(_) => true,
        }
    }

    /// The unpack, if there is one.
    pub fn unpack(self) -> Option<Arc<dyn Unpack>> {
        let key = Key {
            offset: 19,
            length: Some(4),
        };
        let length = Length {
            offset: 1,
            width: 4,
            endian: Endian::Big,
            adjust: 2,
        };
        let size = FrameSize {
            min: 0,
            max: Some(FRAME_MAX),
        };
        // Constants that are known to be a framing: the tests make each of them.
        match self {
            Self::None => None,
            Self::Length => {
                let unpack = LengthField::new(b"*", length, key, size);
                Some(Arc::new(unpack.expect("the framing is a framing")))
            }
            Self::Delimited => {
                let unpack = Delimited::new(b"\r\n", key, FrameSize::default());
                Some(Arc::new(unpack.expect("the framing is a framing")))
            }
            Self::Fixed => {
                let unpack = Fixed::new(FRAME_FIXED as usize, key);
                Some(Arc::new(unpack.expect("the framing is a framing")))
            }
            // It was built before, from the configuration or the text that brought it here.
            Self::Spec(spec) => Some(spec.build().expect("the framing is a framing")),
            Self::Recorded(recorded) => Some(Arc::clone(&recorded.unpack)),
        }
    }
}

fn bucket((rate, burst): (u32, u32)) -> Option<Bucket> {
    Some(Bucket::new(NonZeroU32::new(rate)?, NonZeroU32::new(burst)?))
}

impl Group {
    /// As the engine wants it.
    pub fn failover(&self) -> Failover {
        Failover {
            connect_timeout: Duration::from_millis(self.connect_ms),
            retries: self.retries,
            fall: self.fall,
            warm: self.warm,
            early_resets: self.early_resets,
            panic: self.fleet.panic,
            max_ejected: self.fleet.max_ejected,
            ..Failover::default()
        }
    }
}
