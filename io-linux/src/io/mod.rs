//! [`LinuxIo`]: the kernel calls that the engine's loop asks for.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};

use bytes::Bytes;
use mio::unix::SourceFd;
use mio::{Interest, Registry};
use nix::errno::Errno;
use tlb_engine::api::{Close, Fault};
use tlb_engine::drive::{Accept, Connect, First, Flow, HandOff, Io, Outcome, Via};
use tlb_engine::ids::{Dir, ListenerId, SessionId, Side, SocketId, WarmId};
use tlb_engine::time::Timestamp;

use crate::hand_off::HandedOff;
use crate::pipe_pool::PipePool;
use crate::relay::{Store, copy};
use crate::socket::{self, Dial, EphemeralPorts, ListenerOptions, SessionOptions};
use crate::{fault, sys};

mod entry;
mod late;
mod stores;
pub(crate) mod token;
mod warm;

use entry::Sessions;
use late::Late;
use stores::Scratch;
use token::Source;
use warm::Warm;

#[cfg(test)]
mod tests;

/// What a call on a socket that is not there gets. The driver does not make such calls; if it did,
/// the session would end with this in the log.
const GONE: Fault = Fault::Other(Errno::EBADF as i32);

/// What a socket is registered for. While it [rests](tlb_engine::duplex), for room alone: the kernel would wake the worker
/// for urgent data with every segment, too.
const ALL: Interest = Interest::READABLE
    .add(Interest::WRITABLE)
    .add(Interest::PRIORITY);

/// The kernel, as one worker uses it: its listening sockets, the sockets of its sessions, and what
/// their directions hold.
///
/// Each socket is registered once, edge-triggered, for everything, and closing it is all it takes
/// to unregister it.
#[derive(Debug)]
pub(crate) struct LinuxIo {
    registry: Registry,
    listeners: Vec<Listener>,
    sessions: Sessions,
    scratch: Scratch,
    pipes: PipePool,
    ports: EphemeralPorts,
    late: Late,
    warm: Warm,
    /// `None`: no session is handed off.
    pub(crate) handed_off: Option<HandedOff>,
    /// Bytes read into a buffer, and into pipes.
    pub(crate) moved: [u64; 2],
}

#[derive(Debug)]
struct Listener {
    socket: Option<mio::net::TcpListener>,
    /// What the backends' sockets are to have; those of its clients have inherited it.
    session: SessionOptions,
}

/// An accepted connection that belongs to no session yet.
#[derive(Debug)]
pub(crate) struct Conn {
    socket: TcpStream,
    from: ListenerId,
}

impl LinuxIo {
    /// A worker's kernel side: listening sockets by [`ListenerId`], each with what its sessions'
    /// backends are to have, and at most `pipes` pipes.
    ///
    /// # Errors
    /// A listener that could not be registered.
    pub(crate) fn new(
        registry: Registry,
        listeners: Vec<(TcpListener, SessionOptions)>,
        pipes: usize,
    ) -> io::Result<Self> {
        let mut io = Self {
            registry,
            listeners: Vec::with_capacity(listeners.len()),
            sessions: Sessions::default(),
            scratch: Scratch::new(),
            pipes: PipePool::new(pipes),
            ports: EphemeralPorts::read(),
            late: Late::default(),
            warm: Warm::default(),
            handed_off: None,
            moved: [0; 2],
        };
        for (id, (socket, session)) in (0..).map(ListenerId).zip(listeners) {
            io.listen(id, socket, session)?;
        }
        Ok(io)
    }

    /// Accepts at one more listening socket, whose id is the next one.
    ///
    /// # Errors
    /// It could not be registered. The id is taken nevertheless, by a listener that accepts nothing.
    pub(crate) fn listen(
        &mut self,
        id: ListenerId,
        socket: TcpListener,
        session: SessionOptions,
    ) -> io::Result<()> {
        debug_assert_eq!(id.index(), self.listeners.len(), "ids are not left out");
        let mut socket = mio::net::TcpListener::from_std(socket);
        let token = Source::Listener(id).token();
        let registered = self
            .registry
            .register(&mut socket, token, Interest::READABLE);
        let socket = registered.is_ok().then_some(socket);
        self.listeners.push(Listener { socket, session });
        registered
    }

    /// Sessions that a listener accepts from now on have these.
    ///
    /// # Errors
    /// The kernel refuses an option.
    pub(crate) fn set_options(
        &mut self,
        id: ListenerId,
        options: ListenerOptions,
    ) -> io::Result<()> {
        let Some(listener) = self.listeners.get_mut(id.index()) else {
            return Ok(());
        };
        listener.session = options.session;
        let socket = listener.socket.as_ref();
        socket.map_or(Ok(()), |socket| socket::change_options(socket, options))
    }

    /// It is `now`: does what had time until then.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        self.late.now = now;
        if let Some(handed_off) = &mut self.handed_off {
            handed_off.tick(now);
        }
        while let Some(session) = self.late.next() {
            let Some(entry) = self.sessions.get(session) else {
                continue;
            };
            if let (Some(backend), Some(listener)) =
                (&entry.backend, self.listeners.get(entry.listener().index()))
            {
                socket::set_keepalive(backend, listener.session);
            }
        }
    }

    /// When to call [`LinuxIo::tick`] at the latest; `None`: nothing waits for it.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        let over = self.handed_off.as_ref().and_then(HandedOff::due);
        self.late.due().into_iter().chain(over).min()
    }

    /// Whether nothing is left of any session.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.pipes.lent() == 0
            && self.warm.is_empty()
            && self.scratch.owner.is_none()
            && self.sessions.iter().all(|entry| {
                entry.client.is_none()
                    && entry.backend.is_none()
                    && entry
                        .stores
                        .iter()
                        .all(|store| matches!(store, Store::Empty))
            })
    }

    /// The session has a backend's connection from here on.
    fn adopt_backend(
        &mut self,
        session: SessionId,
        attempt: u8,
        backend: TcpStream,
    ) -> Result<&mut entry::Entry, Fault> {
        self.register(&backend, SocketId::backend(session, attempt))?;
        let entry = self.sessions.get_mut(session).ok_or(GONE)?;
        debug_assert!(
            entry.backend.is_none(),
            "an attempt is abandoned before the next one"
        );
        if self.listeners[entry.listener().index()]
            .session
            .idle
            .is_some()
        {
            self.late.add(session);
        }
        entry.connect(backend);
        Ok(entry)
    }

    fn register(&self, socket: &TcpStream, id: SocketId) -> Result<(), Fault> {
        let mut source = SourceFd(&socket.as_raw_fd());
        self.registry
            .register(&mut source, Source::Socket(id).token(), ALL)
            .map_err(|error| fault::of(&error))
    }
}

impl Io for LinuxIo {
    type Conn = Conn;

    fn accept(&mut self, from: ListenerId) -> Accept<Conn> {
        let Some(Listener {
            socket: Some(listener),
            ..
        }) = self.listeners.get(from.index())
        else {
            return Accept::WouldBlock;
        };
        loop {
            let error = match listener.accept() {
                Ok((conn, peer)) => {
                    let socket = OwnedFd::from(conn).into();
                    return Accept::Conn(Conn { socket, from }, peer);
                }
                Err(error) => error,
            };
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EINTR) => {}
                Some(Errno::EAGAIN) => return Accept::WouldBlock,
                // Linux passes pending errors of the new connection on as errors of accept(2).
                Some(
                    Errno::ECONNABORTED
                    | Errno::EPROTO
                    | Errno::ENOPROTOOPT
                    | Errno::ENETDOWN
                    | Errno::ENETUNREACH
                    | Errno::ENONET
                    | Errno::EHOSTDOWN
                    | Errno::EHOSTUNREACH
                    | Errno::EOPNOTSUPP
                    | Errno::ETIMEDOUT
                    | Errno::EPERM,
                ) => return Accept::Gone,
                // Of the rest nobody knows whether the connection is gone; it must not become a
                // busy loop.
                _ => return Accept::Exhausted(fault::of(&error)),
            }
        }
    }

    fn unlisten(&mut self, listener: ListenerId) {
        if let Some(listener) = self.listeners.get_mut(listener.index()) {
            listener.socket = None;
        }
    }

    fn adopt(&mut self, session: SessionId, conn: Conn) -> Result<(), Fault> {
        // Its options came with it from the listening socket.
        self.register(&conn.socket, SocketId::client(session))?;
        self.sessions.begin(session, conn.from, conn.socket);
        Ok(())
    }

    fn recv(&mut self, session: SessionId, buf: &mut [u8]) -> Outcome {
        match self
            .sessions
            .get(session)
            .and_then(|entry| entry.socket(Side::Client))
        {
            Some(client) => copy::recv(client, buf),
            None => Outcome::Broken(GONE),
        }
    }

    fn connect(
        &mut self,
        session: SessionId,
        attempt: u8,
        to: SocketAddr,
        from: Option<IpAddr>,
        first: First<'_>,
    ) -> Result<Connect, Fault> {
        let entry = self.sessions.get(session).ok_or(GONE)?;
        let options = self.listeners[entry.listener().index()].session;
        let dial = Dial {
            from,
            session: options,
            first,
        };
        let (backend, progress, sent) = socket::connect(to, dial, &self.ports)?;
        // Registered before it has begun to connect, it would report a hang-up.
        let entry = self.adopt_backend(session, attempt, backend)?;
        if sent > 0 {
            entry.stores[Dir::Forward as usize] = Store::Early { sent, rest: None };
        }
        Ok(progress)
    }

    fn warm(&mut self, warm: WarmId, to: SocketAddr, from: Option<IpAddr>) {
        let dial = Dial {
            from,
            ..Dial::default()
        };
        if let Ok((socket, ..)) = socket::connect(to, dial, &self.ports) {
            self.warm.put(warm, socket);
        }
    }

    fn take(
        &mut self,
        session: SessionId,
        attempt: u8,
        warm: WarmId,
        first: First<'_>,
    ) -> Option<Connect> {
        let socket = self.warm.take(warm)?;
        if socket::has_ended(&socket) {
            return None;
        }
        let listener = self.sessions.get(session)?.listener();
        socket::set_late(&socket, self.listeners[listener.index()].session).ok()?;
        self.adopt_backend(session, attempt, socket).ok()?;
        // The first event tells how far it is, a write as well.
        Some(if first.bytes.is_empty() {
            Connect::InProgress
        } else {
            Connect::Established
        })
    }

    fn cool(&mut self, warm: WarmId) {
        drop(self.warm.take(warm));
    }

    fn connected(&mut self, session: SessionId) -> Result<Connect, Fault> {
        let entry = self.sessions.get(session).ok_or(GONE)?;
        socket::connected(entry.backend.as_ref().ok_or(GONE)?)
    }

    fn load(&mut self, session: SessionId, preface: Bytes) {
        if preface.is_empty() {
            return;
        }
        if let Some(entry) = self.sessions.get_mut(session) {
            let store = &mut entry.stores[Dir::Forward as usize];
            if let Store::Early { sent, rest } = store {
                let sent = (*sent as usize).min(preface.len());
                let more = preface.slice(sent..);
                *rest = (!more.is_empty()).then(|| Box::new(more));
                return;
            }
            debug_assert!(matches!(store, Store::Empty), "the preface comes first");
            *store = Store::Own(Box::new(preface));
        }
    }

    fn fill(&mut self, session: SessionId, dir: Dir, via: Via) -> Outcome {
        self.fill_store(session, dir, via)
    }

    fn drain(&mut self, session: SessionId, dir: Dir) -> Outcome {
        self.drain_store(session, dir)
    }

    fn shutdown(&mut self, session: SessionId, side: Side) -> Result<(), Fault> {
        let entry = self.sessions.get(session).ok_or(GONE)?;
        let socket = entry.socket(side).ok_or(GONE)?;
        socket::finish(socket)?;
        if let Some(handed_off) = &mut self.handed_off {
            handed_off.ended(session, side.other().outgoing());
        }
        Ok(())
    }

    fn take_error(&mut self, session: SessionId, side: Side) -> Option<Fault> {
        let socket = self.sessions.get(session)?.socket(side)?;
        socket::take_error(socket)
    }

    fn unacknowledged(&mut self, session: SessionId, side: Side) -> usize {
        let socket = self
            .sessions
            .get(session)
            .and_then(|entry| entry.socket(side));
        socket.map_or(0, sys::unacknowledged)
    }

    fn waiting(&mut self, session: SessionId) -> bool {
        let entry = self.sessions.get(session);
        let socket = entry.and_then(|entry| entry.socket(Side::Client));
        socket.is_some_and(socket::has_unread)
    }

    fn hear(&mut self, id: SocketId, on: bool) -> Result<(), Fault> {
        let entry = self.sessions.get(id.session).ok_or(GONE)?;
        let socket = entry.socket(id.side).ok_or(GONE)?;
        let interest = if on { ALL } else { Interest::WRITABLE };
        let mut source = SourceFd(&socket.as_raw_fd());
        self.registry
            .reregister(&mut source, Source::Socket(id).token(), interest)
            .map_err(|error| fault::of(&error))
    }

    fn hand_off(&mut self, session: SessionId) -> HandOff {
        let sockets = self.sessions.get(session).and_then(entry::Entry::pair);
        match (&mut self.handed_off, sockets) {
            (Some(handed_off), Some(sockets)) => {
                handed_off.hand_off(self.late.now, session, sockets)
            }
            _ => HandOff::Never,
        }
    }

    fn flow(&mut self, session: SessionId) -> Flow {
        let entry = self.sessions.get_mut(session);
        let (Some(handed_off), Some(entry)) = (&mut self.handed_off, entry) else {
            return Flow::default();
        };
        let empty = entry
            .stores
            .iter()
            .all(|store| matches!(store, Store::Empty));
        let flow = handed_off.flow(self.late.now, session, entry.pair(), empty);
        if flow.gone
            && let Some(backend) = entry.backend.take()
        {
            entry.client = None;
            // It was there until now.
            let _ = self
                .registry
                .deregister(&mut SourceFd(&backend.as_raw_fd()));
            handed_off.keep_port(session, backend);
        }
        flow
    }

    fn close(&mut self, session: SessionId, side: Side, how: Close) {
        if let Some(handed_off) = &mut self.handed_off {
            handed_off.close(self.late.now, session, how == Close::Fin);
        }
        let Some(entry) = self.sessions.get_mut(session) else {
            return;
        };
        if let Some(socket) = entry.take_socket(side) {
            socket::close(socket, how);
        }
        for dir in Dir::BOTH {
            self.drop_store(session.index(), dir);
        }
    }
}
