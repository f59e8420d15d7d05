//! The vocabulary: what goes into the engine, what comes out, and whose fault it was.

mod display;

use core::net::{IpAddr, SocketAddr};

use crate::ids::{Dir, Incarnation, ListenerId, PoolId, SessionId, Side, WarmId};
use crate::pace::Bucket;
use crate::time::Duration;
use crate::unpack::Reject;

/// What the kernel told us about a socket, or about ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Nobody listens there (`ECONNREFUSED`).
    Refused,
    /// No way there (`EHOSTUNREACH`, `ENETUNREACH`, `EHOSTDOWN`, `ENETDOWN`).
    Unreachable,
    /// No answer in the kernel's time (`ETIMEDOUT`): a connect, keepalive or user timeout.
    TimedOut,
    /// The peer reset the connection (`ECONNRESET`, `EPIPE`, `ECONNABORTED`).
    Reset,
    /// The backend ended its stream before its first byte, where that counts as a failure
    /// ([`Listener::replay`](crate::config::Listener::replay)).
    Closed,
    /// No local port or source address left (`EADDRNOTAVAIL`, `EADDRINUSE`): ours.
    LocalPorts,
    /// No descriptor left (`EMFILE`, `ENFILE`): ours.
    LocalDescriptors,
    /// No memory left (`ENOBUFS`, `ENOMEM`): ours.
    LocalMemory,
    /// This host's own rules forbid it (`EACCES`, `EPERM`): ours.
    Denied,
    /// Anything else, by its `errno`.
    Other(i32),
}

impl Fault {
    /// A stable word for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed-out",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::LocalPorts => "local-ports",
            Self::LocalDescriptors => "local-descriptors",
            Self::LocalMemory => "local-memory",
            Self::Denied => "denied",
            Self::Other(_) => "other",
        }
    }

    /// Whether this host is at fault: such a fault never counts against a backend.
    pub const fn is_local(self) -> bool {
        matches!(
            self,
            Self::LocalPorts | Self::LocalDescriptors | Self::LocalMemory | Self::Denied
        )
    }
}

/// Something happened to a session: what a driver reports to [`Engine::handle`](crate::Engine::handle).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Input<'a> {
    /// The client's next bytes, while its session is in preread. At most
    /// [`Engine::wants`](crate::Engine::wants) of them.
    Received {
        /// The session.
        session: SessionId,
        /// The bytes; copied before the call returns.
        bytes: &'a [u8],
    },
    /// The client's stream ended while its session is in preread.
    Ended {
        /// The session.
        session: SessionId,
    },
    /// The client's socket broke before the relay had begun.
    ClientBroken {
        /// The session.
        session: SessionId,
        /// How.
        fault: Fault,
    },
    /// A connect attempt succeeded, as far as the kernel says before any byte has passed.
    Connected {
        /// The session.
        session: SessionId,
        /// Which attempt.
        attempt: u8,
    },
    /// A connect attempt failed.
    ConnectFailed {
        /// The session.
        session: SessionId,
        /// Which attempt.
        attempt: u8,
        /// How.
        fault: Fault,
    },
    /// What a relay did in one turn.
    Relayed {
        /// The session.
        session: SessionId,
        /// Which attempt's relay.
        attempt: u8,
        /// What it did.
        report: Report,
        /// For how long neither peer has sent anything, where the kernel forwards the session and was asked.
        quiet: Option<Duration>,
    },
}

impl Input<'_> {
    /// The session it is about.
    pub const fn session(&self) -> SessionId {
        match *self {
            Self::Received { session, .. }
            | Self::Ended { session }
            | Self::ClientBroken { session, .. }
            | Self::Connected { session, .. }
            | Self::ConnectFailed { session, .. }
            | Self::Relayed { session, .. } => session,
        }
    }
}

/// What a relay did since its last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Bytes that the backend's kernel socket took.
    pub forward: u64,
    /// Bytes that the client's kernel socket took.
    pub back: u64,
    /// Directions that ended in order: the FIN was passed on after the last byte. By [`Dir`].
    pub ended: [bool; 2],
    /// The backend sent its first byte, or the client one beyond the preface, where that was waited for: from here
    /// on no other backend can take the preface.
    pub proven: bool,
    /// A socket broke, and how. Reported once, for the first of the two.
    pub broken: Option<(Side, Fault)>,
    /// The session was handed off.
    pub handed_off: bool,
    /// Where the relay stands now.
    pub standing: Standing,
}

/// Where a relay stands after a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It goes on.
    #[default]
    Open,
    /// Everything is written, but a peer's kernel has not acknowledged all of it, which a reset would destroy: look
    /// again in a while.
    Unacknowledged,
    /// Nothing is left to do but to close the sockets, each as told.
    Finished(Ends),
}

/// How the two sockets of a session are to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client's.
    pub client: Close,
    /// The backend's.
    pub backend: Close,
}

impl Ends {
    /// Both in order.
    pub const FIN: Self = Self {
        client: Close::Fin,
        backend: Close::Fin,
    };
    /// Both by a reset.
    pub const RESET: Self = Self {
        client: Close::Reset,
        backend: Close::Reset,
    };

    /// That of `side`.
    pub const fn of(self, side: Side) -> Close {
        match side {
            Side::Client => self.client,
            Side::Backend => self.backend,
        }
    }
}

/// How one socket is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// In order (the kernel still sends a reset if there is data that nobody read).
    Fin,
    /// By a reset (`SO_LINGER` of zero), so that the peer knows that its stream is not complete.
    Reset,
}

/// What the driver must do next, from [`Engine::poll_action`](crate::Engine::poll_action).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Open a connection to a backend and report [`Input::Connected`] or [`Input::ConnectFailed`].
    Connect {
        /// The session.
        session: SessionId,
        /// Number of this attempt.
        attempt: u8,
        /// Where to.
        to: SocketAddr,
        /// The local address to use; `None` leaves it to the kernel.
        from: Option<IpAddr>,
        /// A connection to be taken instead of a new one, unless it has ended.
        warm: Option<WarmId>,
    },
    /// Open a connection to a backend, for a session that may come. What becomes of it is not reported.
    Warm {
        /// How it is called from here on.
        warm: WarmId,
        /// Where to.
        to: SocketAddr,
        /// The local address to use; `None` leaves it to the kernel.
        from: Option<IpAddr>,
    },
    /// Close a connection that no session took. Its id is dead from here on.
    Cool {
        /// Which.
        warm: WarmId,
    },
    /// Close the backend's socket of this attempt: it is given up.
    Abandon {
        /// The session.
        session: SessionId,
        /// Which attempt.
        attempt: u8,
    },
    /// Relay between client and backend, beginning with [`Engine::preface`](crate::Engine::preface).
    Relay {
        /// The session.
        session: SessionId,
        /// Which attempt's socket is the backend.
        attempt: u8,
    },
    /// Let the relay look again (see [`Standing::Unacknowledged`]).
    Look {
        /// The session.
        session: SessionId,
    },
    /// Take no more bytes, write out what is held, and finish: in order, or by a reset.
    Wind {
        /// The session.
        session: SessionId,
        /// How to end.
        how: Close,
    },
    /// Close whatever sockets the session still has. The session's id is dead from here on.
    Close {
        /// The session.
        session: SessionId,
        /// How.
        ends: Ends,
    },
}

impl Action {
    /// The session it is about, if it is about one.
    pub const fn session(&self) -> Option<SessionId> {
        match *self {
            Self::Connect { session, .. }
            | Self::Abandon { session, .. }
            | Self::Relay { session, .. }
            | Self::Look { session }
            | Self::Wind { session, .. }
            | Self::Close { session, .. } => Some(session),
            Self::Warm { .. } | Self::Cool { .. } => None,
        }
    }
}

/// Why a session ended: exactly one for each session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseReason {
    /// Both directions ended in order.
    Completed,
    /// The client reset its connection, or its kernel stopped answering.
    ClientBroken(Fault),
    /// The backend reset its connection, or its kernel stopped answering.
    BackendBroken(Fault),
    /// The client left in order before it had sent a byte.
    ClientLeft,
    /// The client did not send a whole frame header and key within `preread-timeout`.
    PrereadTimeout,
    /// `preread-limit` bytes brought no verdict.
    PrereadLimit,
    /// All prereads together hold `preread-memory` bytes.
    PrereadMemory,
    /// The unpack refused the client's bytes.
    Rejected(Reject),
    /// No backend of the pool may take a session now.
    NoBackend,
    /// Every permitted attempt failed; this is the last one's fault.
    ConnectFailed(Fault),
    /// Retries were left for this session, but the pool's retry budget is spent.
    RetryBudget,
    /// This host ran out of something while connecting.
    LocalFault(Fault),
    /// No byte passed for `idle-timeout`.
    IdleTimeout,
    /// One direction had ended, and no byte passed the other way for `half-close-timeout`.
    HalfCloseTimeout,
    /// tlb is stopping.
    Shutdown,
    /// Its backend went down, and the pool's `on-down` ends such sessions.
    BackendDown,
    /// Its backend was taken into maintenance.
    BackendMaint,
    /// Its backend was removed.
    BackendRemoved,
}

impl CloseReason {
    /// A stable word for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientBroken(Fault::Reset) => "client-reset",
            Self::ClientBroken(_) => "client-broken",
            Self::BackendBroken(Fault::Reset) => "backend-reset",
            Self::BackendBroken(_) => "backend-broken",
            Self::ClientLeft => "client-left",
            Self::PrereadTimeout => "preread-timeout",
            Self::PrereadLimit => "preread-limit",
            Self::PrereadMemory => "preread-memory",
            Self::Rejected(_) => "rejected",
            Self::NoBackend => "no-backend",
            Self::ConnectFailed(_) => "connect-failed",
            Self::RetryBudget => "retry-budget",
            Self::LocalFault(_) => "local-fault",
            Self::IdleTimeout => "idle-timeout",
            Self::HalfCloseTimeout => "half-close-timeout",
            Self::Shutdown => "shutdown",
            Self::BackendDown => "backend-down",
            Self::BackendMaint => "backend-maint",
            Self::BackendRemoved => "backend-removed",
        }
    }
}

/// A fact for logs, metrics and checkers, from [`Engine::poll_event`](crate::Engine::poll_event).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A session began.
    Accepted {
        /// The session.
        session: SessionId,
        /// Where it came in.
        listener: ListenerId,
        /// Who.
        peer: SocketAddr,
    },
    /// A backend was picked, and a connect to it begins.
    Picked {
        /// The session.
        session: SessionId,
        /// Number of the attempt.
        attempt: u8,
        /// The pool.
        pool: PoolId,
        /// The backend; `None` where the unpack named an address.
        backend: Option<Incarnation>,
        /// Where it is.
        to: SocketAddr,
    },
    /// An attempt failed; another one may follow.
    AttemptFailed {
        /// The session.
        session: SessionId,
        /// Number of the attempt.
        attempt: u8,
        /// The backend; `None` where the unpack named an address.
        backend: Option<Incarnation>,
        /// How.
        fault: Fault,
    },
    /// The backend took the first byte (or, with an empty preface, the connection): it is this session's.
    Established {
        /// The session.
        session: SessionId,
        /// The backend; `None` where the unpack named an address.
        backend: Option<Incarnation>,
    },
    /// The kernel forwards what its peers send, and tlb waits for the end.
    HandedOff {
        /// The session.
        session: SessionId,
    },
    /// A direction ended in order.
    HalfClosed {
        /// The session.
        session: SessionId,
        /// Which.
        dir: Dir,
    },
    /// It is a session's turn to go, because its backend went away.
    Told {
        /// The session.
        session: SessionId,
        /// The backend.
        backend: Incarnation,
        /// Why.
        why: Why,
    },
    /// A session ended.
    Closed(Closed),
    /// A backend failed `fall` times in a row and gets no new session until its back-off is over.
    BackendDown {
        /// The pool.
        pool: PoolId,
        /// The backend.
        backend: Incarnation,
        /// The last failure.
        fault: Fault,
    },
    /// This host ran out of something while accepting; the listener pauses for a moment.
    AcceptPaused {
        /// The listener.
        listener: ListenerId,
        /// What it ran out of.
        fault: Fault,
    },
    /// A backend that was down took a connection.
    BackendUp {
        /// The pool.
        pool: PoolId,
        /// The backend.
        backend: Incarnation,
    },
}

/// How a session went: the body of [`Event::Closed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The session.
    pub session: SessionId,
    /// Where it came in.
    pub listener: ListenerId,
    /// Who.
    pub peer: SocketAddr,
    /// Why it ended.
    pub reason: CloseReason,
    /// The last backend it was given to, if any.
    pub backend: Option<Incarnation>,
    /// That backend's address.
    pub to: Option<SocketAddr>,
    /// The key, cut to its first [`crate::session::KEY_LOGGED`] bytes, if one was found.
    pub key: Option<bytes::Bytes>,
    /// Bytes the backend took.
    pub forward: u64,
    /// Bytes the client took.
    pub back: u64,
    /// Bytes of garbage dropped before the first frame.
    pub skipped: u64,
    /// Connect attempts made.
    pub attempts: u8,
    /// From accept to the end.
    pub lasted: Duration,
}

/// Why a client was turned away at the door, before it became a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shed {
    /// The listener has its `max-sessions`.
    MaxSessions,
    /// tlb is stopping, or the listener was removed.
    Stopping,
    /// The client's address has its `max-sessions-per-source`.
    PerSource,
}

/// What the sessions of one backend are told, from [`FleetAction::Tell`](crate::fleet::FleetAction::Tell) to
/// [`Engine::tell`](crate::Engine::tell).
#[derive(Clone, Debug)]
pub struct Tell {
    /// Whose sessions.
    pub backend: Incarnation,
    /// Why.
    pub why: Why,
    /// How those that are established end; `None` keeps them. Those that still connect go elsewhere at once, whatever
    /// this says.
    pub how: Option<TellHow>,
    /// How fast they end: each takes its turn, and a jitter of up to the distance of two turns.
    pub pace: Bucket,
}

/// Why the sessions of a backend are told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its active health check says that it is down. Sessions whose turn has not come when it is up again stay.
    Down,
    /// An operator took it into maintenance.
    Maint,
    /// It is no longer in the configuration.
    Removed,
}

/// How a session is ended that was told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TellHow {
    /// As when tlb stops: in order if no byte has passed for a second, else by a reset, so that nobody takes a cut
    /// stream for a whole one.
    Close,
    /// By a reset.
    Reset,
}
