//! The loop body that every driver shares, over the kernel calls that each driver makes in its own way.
//!
//! [`Io`] is what a driver implements: the kernel's calls, which decide nothing. [`Driver`] is what it runs: told
//! of events, it makes the calls that the [`Engine`](crate::Engine) and each session's
//! [`Duplex`](crate::duplex::Duplex) ask for, and says when it wants to be run again.

mod driver;
mod schedule;
#[cfg(test)]
mod tests;

pub use driver::Driver;

use bytes::Bytes;
use core::net::{IpAddr, SocketAddr};

use crate::api::{Close, Fault};
use crate::ids::{Dir, ListenerId, SessionId, Side, SocketId, WarmId};
use crate::time::{Duration, Timestamp};

/// The kernel as the engine's loop uses it: non-blocking calls, one each, that decide nothing.
///
/// A session has at most one client socket and one backend socket at a time. Every call names the session; the
/// implementation finds the sockets. No call blocks, and none calls back.
pub trait Io {
    /// An accepted connection that belongs to no session yet. Dropping it closes it.
    type Conn;

    /// Takes one waiting connection.
    fn accept(&mut self, listener: ListenerId) -> Accept<Self::Conn>;

    /// Closes a listening socket, whose queue has been accepted empty. The listener accepts nothing from now on.
    fn unlisten(&mut self, listener: ListenerId);

    /// Makes an accepted connection the client socket of `session`: sets its options and registers it for events
    /// named [`SocketId::client`](crate::ids::SocketId::client).
    ///
    /// # Errors
    /// The fault that kept it from being registered; the connection is closed.
    fn adopt(&mut self, session: SessionId, conn: Self::Conn) -> Result<(), Fault>;

    /// Reads from the client into `buf` (never empty), before any relay.
    fn recv(&mut self, session: SessionId, buf: &mut [u8]) -> Outcome;

    /// Opens a backend socket and begins to connect it; it is registered for events named
    /// `SocketId::backend(session, attempt)`.
    ///
    /// Where the backend is to be sent something at once ([`First::bytes`]), that write will prove the connection or tell
    /// that there is none, so an implementation that would have to ask need not: it may say [`Connect::Established`]
    /// untested. What it has sent already ([`First::in_syn`]) it answers the first [`Io::drain`] with, and it proves
    /// nothing.
    ///
    /// # Errors
    /// The fault, if it is known at once; no socket is left.
    fn connect(
        &mut self,
        session: SessionId,
        attempt: u8,
        to: SocketAddr,
        from: Option<IpAddr>,
        first: First<'_>,
    ) -> Result<Connect, Fault>;

    /// Opens a socket and begins to connect it, for a session that may come. No event of it is wanted. If that fails,
    /// there is nothing to [`Io::take`].
    fn warm(&mut self, warm: WarmId, to: SocketAddr, from: Option<IpAddr>);

    /// Makes a warm connection the backend socket of `session`, registered for events named
    /// `SocketId::backend(session, attempt)`. That it is still connecting, or has failed, may come out later: as with
    /// [`Io::connect`], [`Connect::Established`] may be said untested where the backend is to be sent something at once,
    /// and [`Connect::InProgress`] has an event follow in any case.
    ///
    /// `None`: it is not there, or its stream has ended already. Nothing is left of it.
    fn take(
        &mut self,
        session: SessionId,
        attempt: u8,
        warm: WarmId,
        first: First<'_>,
    ) -> Option<Connect>;

    /// Closes a warm connection, if it is there.
    fn cool(&mut self, warm: WarmId);

    /// Asked after an event on a socket that is connecting: how far is it?
    ///
    /// # Errors
    /// The fault by which the connect failed. The socket stays until it is closed.
    fn connected(&mut self, session: SessionId) -> Result<Connect, Fault>;

    /// Hands over the first bytes that [`Dir::Forward`] owes the backend: what [`Io::drain`] writes first.
    fn load(&mut self, session: SessionId, preface: Bytes);

    /// Moves bytes from the source socket of `dir` into that direction's store, once, through a buffer or a pipe.
    /// The store is empty.
    fn fill(&mut self, session: SessionId, dir: Dir, via: Via) -> Outcome;

    /// Moves bytes from the store of `dir` to its destination socket, once. When the store becomes empty, its
    /// buffer or pipe is given back.
    fn drain(&mut self, session: SessionId, dir: Dir) -> Outcome;

    /// Sends a FIN on that side, after everything written before.
    ///
    /// # Errors
    /// The fault that the socket has; it is then treated as broken.
    fn shutdown(&mut self, session: SessionId, side: Side) -> Result<(), Fault>;

    /// Takes the pending error of the socket (`SO_ERROR`), which clears it in the kernel.
    fn take_error(&mut self, session: SessionId, side: Side) -> Option<Fault>;

    /// Bytes written to the socket that its peer's kernel has not acknowledged yet (`SIOCOUTQ`).
    fn unacknowledged(&mut self, session: SessionId, side: Side) -> usize;

    /// Whether the client's socket has a byte that was not read. An end of its stream is none.
    fn waiting(&mut self, session: SessionId) -> bool;

    /// Has events say from now on that the socket is readable or has ended, and one for what is there already; or
    /// (`on` is false) has none say it any more. Events of room, of errors and of hang-ups come in any case.
    ///
    /// # Errors
    /// The fault that kept the kernel from it; the socket is then treated as broken.
    fn hear(&mut self, socket: SocketId, on: bool) -> Result<(), Fault>;

    /// Has the kernel forward what either peer sends from now on, if both sockets allow it. What they have received so
    /// far, and the stores hold (nothing, when it is called), is relayed as ever.
    fn hand_off(&mut self, session: SessionId) -> HandOff;

    /// How a session stands that was handed off. When its sockets have nothing more to do, it closes them, which neither
    /// peer notices; from then on nothing is asked of them.
    fn flow(&mut self, session: SessionId) -> Flow;

    /// Closes that side's socket, if it is open, and drops what the stores of both directions hold. Of a session that was
    /// handed off, the first side's decides for both: after [`Close::Fin`] its peers finish by themselves what they have
    /// agreed on; after [`Close::Reset`] both learn that it is over.
    fn close(&mut self, session: SessionId, side: Side, how: Close);
}

/// What [`Io::accept`] found.
#[derive(Debug)]
pub enum Accept<C> {
    /// A connection, and its peer.
    Conn(C, SocketAddr),
    /// The queue is empty: the next connection brings an event.
    WouldBlock,
    /// One connection was gone before it could be taken (`ECONNABORTED` and its like): ask again.
    Gone,
    /// This host has no descriptor or memory left, and no event will tell when it has: ask again later.
    Exhausted(Fault),
}

/// What a backend is to be sent as soon as it is connected.
#[derive(Clone, Copy, Debug, Default)]
pub struct First<'a> {
    /// The preface; may be empty. [`Io::load`] hands it over when the backend is connected.
    pub bytes: &'a [u8],
    /// Whether bytes may go with the SYN (TCP Fast Open, RFC 7413), so that the backend may get them twice.
    pub in_syn: bool,
}

/// How far a connect is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// Not yet; an event will tell.
    InProgress,
    /// Established, as far as this host knows, or near enough for a write to be tried.
    Established,
}

/// What one kernel call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It moved `bytes` (at least one). `short` says that the kernel had room or asked for more, so that nothing
    /// more is to be had until the next event: less came than the buffer could take, or less went than was there.
    Moved {
        /// How many.
        bytes: usize,
        /// Whether the kernel stopped on its own account.
        short: bool,
    },
    /// The stream has ended. Only where bytes are read.
    Eof,
    /// Nothing can be moved now. An event will tell.
    WouldBlock,
    /// The socket is broken. Where bytes are written, it is the destination.
    Broken(Fault),
    /// There is no pipe to be had now: use a buffer. Only from [`Io::fill`] through a pipe.
    NoPipe,
}

/// What came of [`Io::hand_off`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOff {
    /// The peers' packets go their own way from now on.
    Done,
    /// Not now, but perhaps later.
    Later,
    /// Not this session: its two connections do not match, or this kernel or this process may not.
    Never,
}

/// How a session that was handed off stands, and what was moved for it since that was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Bytes that the receiver of each direction has acknowledged, without those that the sockets sent themselves, by
    /// [`Dir`].
    pub moved: [u64; 2],
    /// Directions whose FIN is acknowledged, by [`Dir`]. Known once the sockets are gone.
    pub ended: [bool; 2],
    /// Which side broke, and how. The other one does not hear of it as long as the sockets have something for it.
    pub broken: Option<(Side, Fault)>,
    /// Whether the sockets are gone. Until then they may have something to relay, as ever.
    pub gone: bool,
    /// For how long neither peer has sent anything.
    pub quiet: Duration,
}

/// Through what a direction's bytes pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A buffer in user space: `read` and `write`.
    Copy,
    /// A pipe in the kernel: `splice`.
    Splice,
}

/// What an event queue said about a socket. Hints: only a call's outcome changes what is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There may be something to read.
    pub readable: bool,
    /// There may be room to write.
    pub writable: bool,
    /// The peer's stream may have ended (`EPOLLRDHUP`, `EPOLLHUP`).
    pub read_closed: bool,
    /// There may be an error (`EPOLLERR`).
    pub error: bool,
    /// There may be urgent data (`EPOLLPRI`).
    pub priority: bool,
}

/// Through what relays move their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Always a buffer.
    Copy,
    /// A pipe wherever one is to be had.
    Splice,
    /// A buffer for small messages, a pipe for large flows, by what is seen in each direction.
    #[default]
    Auto,
}

/// When a driver has to be run again: the result of [`Driver::turn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// At this time at the latest, if no event comes first. `None`: only an event can bring work.
    pub deadline: Option<Timestamp>,
    /// Work is left that waits for nothing: look for events without waiting, then run another turn.
    pub busy: bool,
}
