//! turmoil's TCP streams as a kernel's non-blocking sockets: [`Net`] implements [`Io`].
//!
//! turmoil offers futures, the engine's loop wants calls that return at once and events that say
//! when to call again. Each socket owns two wakers, for reading and for writing, that only set a
//! bit in a [`Hub`] and wake the host's one future. What has come is taken in at once, into a
//! receive buffer like a kernel's, so that an end of stream or a reset shows although nobody reads.
//! As with an edge-triggered epoll, an event comes once, for something new.
//!
//! What turmoil's world shows and what it cannot:
//! - One write is one segment there, and a read never crosses segments. The receive buffer joins
//!   them, and a [`Chunker`] cuts reads and writes by seed, as if bytes had come, or room had, a
//!   moment later.
//! - A window counts segments, not bytes, and a FIN that finds it full is never delivered. So FINs
//!   wait here until there is room, and nothing here proves a bound on memory.
//! - Data that nobody had read makes a close a reset, as with a kernel. turmoil has no `SO_LINGER`
//!   either way: a reset of ours is noted in [`Resets`], and whoever reads the FIN in its place
//!   takes it for one, after all bytes before it. turmoil's own resets (a host that crashes, data
//!   for a closed socket) overtake what is on its way.
//! - As in a kernel, a reset is told once: whoever reads after that gets a clean end. One of
//!   turmoil's own that follows a FIN only shows in the next write; one behind a full receive
//!   buffer once somebody reads.
//! - Nothing is known about acknowledgements (always 0), there are no pipes (always
//!   [`Outcome::NoPipe`]), no urgent data and no choice of source address. The in-memory net is the
//!   place for these.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use tlb_engine::api::{Close, Fault};
use tlb_engine::drive::{Accept, Connect, First, Flow, HandOff, Io, Outcome, Readiness, Via};
use tlb_engine::ids::{Dir, ListenerId, SessionId, Side, SocketId, WarmId};
use tlb_engine::time::Timestamp;
use turmoil::net::{TcpListener, TcpStream};

use crate::trace::Trace;

mod chunk;
mod hub;
mod socket;

pub use chunk::{Chunker, Chunking};
pub use hub::Hub;
pub use socket::Resets;

use hub::Signal;
use socket::{Connecting, Socket, State};

/// Most bytes that one [`Io::fill`] reads.
pub const FILL: usize = 16 * 1024;

/// The time on this host, from the start of the simulation.
///
/// # Panics
/// Outside of a host of a turmoil simulation.
pub fn now() -> Timestamp {
    let elapsed = turmoil::sim_elapsed().expect("runs on a simulated host");
    Timestamp::ZERO + elapsed
}

type Accepting = Pin<Box<dyn Future<Output = io::Result<(TcpStream, SocketAddr)>>>>;

struct Door {
    listener: Rc<TcpListener>,
    /// Kept between calls: a dropped future takes its waker with it.
    accepting: Accepting,
    waker: Waker,
}

impl Door {
    fn accepting(listener: &Rc<TcpListener>) -> Accepting {
        let listener = Rc::clone(listener);
        Box::pin(async move { listener.accept().await })
    }
}

struct Slot {
    session: SessionId,
    sockets: [Option<Socket>; 2],
    stores: [Bytes; 2],
}

/// The sockets of one simulated host.
pub struct Net {
    host: Rc<str>,
    hub: Arc<Hub>,
    doors: Vec<Option<Door>>,
    slots: Vec<Option<Slot>>,
    warm: BTreeMap<WarmId, Connecting>,
    /// Closed sockets whose last segment waits for room.
    lingering: Vec<Socket>,
    chunks: Chunker,
    resets: Resets,
    trace: Trace,
    scratch: Box<[u8]>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("host", &self.host)
            .field("open", &self.open())
            .finish_non_exhaustive()
    }
}

impl Net {
    /// Listens on `ports`, one per listener.
    ///
    /// # Errors
    /// A port cannot be bound.
    pub async fn bind(
        host: Rc<str>,
        ports: &[u16],
        chunks: Chunker,
        resets: Resets,
        trace: Trace,
    ) -> io::Result<Self> {
        let hub = Arc::new(Hub::default());
        let mut doors = Vec::new();
        for (index, port) in ports.iter().enumerate() {
            let listener = Rc::new(TcpListener::bind(("0.0.0.0", *port)).await?);
            let signal = Signal::Accept(ListenerId(index as u32), Arc::clone(&hub));
            doors.push(Some(Door {
                accepting: Door::accepting(&listener),
                listener,
                waker: Waker::from(Arc::new(signal)),
            }));
        }
        Ok(Self {
            host,
            hub,
            doors,
            slots: Vec::new(),
            warm: BTreeMap::new(),
            lingering: Vec::new(),
            chunks,
            resets,
            trace,
            scratch: vec![0; FILL].into_boxed_slice(),
        })
    }

    /// Where this host's events are left.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// How many sockets are open, listening ones not counted.
    pub fn open(&self) -> usize {
        let slots = self.slots.iter().flatten();
        slots
            .map(|slot| slot.sockets.iter().flatten().count())
            .sum()
    }

    /// The listeners at which connections may wait.
    pub fn take_acceptable(&mut self) -> Vec<ListenerId> {
        self.hub.take_listeners()
    }

    /// The events since the last call, in the order of their first causes. They are hints, as a
    /// kernel's are.
    pub fn take_ready(&mut self) -> Vec<(SocketId, Readiness)> {
        self.lingering.retain_mut(|socket| !socket.has_gone());
        let mut events = self.hub.take_sockets();
        for (id, readiness) in &mut events {
            let Some(socket) = self.socket(id.session, id.side).filter(|s| s.id == *id) else {
                continue;
            };
            *readiness = socket.look(*readiness);
        }
        events
    }

    fn socket(&mut self, session: SessionId, side: Side) -> Option<&mut Socket> {
        let slot = self.slots.get_mut(session.index())?.as_mut()?;
        if slot.session != session {
            return None;
        }
        slot.sockets[side as usize].as_mut()
    }

    /// The slot of a session that has a socket, with what moving its bytes needs.
    fn parts(&mut self, session: SessionId) -> (&mut Slot, &mut Chunker, &mut [u8]) {
        let slot = self.slots.get_mut(session.index()).and_then(Option::as_mut);
        let slot = slot.expect("the engine only names sessions that have a socket");
        assert_eq!(slot.session, session, "the session's id is dead");
        (slot, &mut self.chunks, &mut self.scratch)
    }

    fn tell(&self, session: SessionId, call: &str, result: impl fmt::Debug) {
        self.trace.mix(
            now(),
            &self.host,
            format_args!("{call} {session}: {result:?}"),
        );
    }
}

fn open(slot: &mut Slot, side: Side) -> &mut Socket {
    let session = slot.session;
    slot.sockets[side as usize]
        .as_mut()
        .unwrap_or_else(|| panic!("{session} has no {side} socket"))
}

impl Io for Net {
    type Conn = TcpStream;

    fn accept(&mut self, listener: ListenerId) -> Accept<TcpStream> {
        let Some(door) = &mut self.doors[listener.index()] else {
            return Accept::WouldBlock;
        };
        let mut cx = Context::from_waker(&door.waker);
        match door.accepting.as_mut().poll(&mut cx) {
            Poll::Pending => Accept::WouldBlock,
            Poll::Ready(result) => {
                door.accepting = Door::accepting(&door.listener);
                let (stream, peer) = result.expect("turmoil's accept never fails");
                Accept::Conn(stream, peer)
            }
        }
    }

    fn unlisten(&mut self, listener: ListenerId) {
        self.doors[listener.index()] = None;
    }

    fn adopt(&mut self, session: SessionId, conn: TcpStream) -> Result<(), Fault> {
        let index = session.index();
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        assert!(
            self.slots[index].is_none(),
            "{session} takes a slot in use: its predecessor's sockets were not closed"
        );
        let id = SocketId::client(session);
        let socket = Socket::new(id, State::Open(conn), &self.hub, &self.resets);
        self.slots[index] = Some(Slot {
            session,
            sockets: [Some(socket), None],
            stores: [Bytes::new(), Bytes::new()],
        });
        Ok(())
    }

    fn recv(&mut self, session: SessionId, buf: &mut [u8]) -> Outcome {
        assert!(!buf.is_empty(), "{session}: a read of nothing");
        let (slot, chunks, _) = self.parts(session);
        let outcome = open(slot, Side::Client).read(buf, chunks);
        self.tell(session, "recv", outcome);
        outcome
    }

    fn connect(
        &mut self,
        session: SessionId,
        attempt: u8,
        to: SocketAddr,
        _from: Option<IpAddr>,
        _first: First<'_>,
    ) -> Result<Connect, Fault> {
        let state = State::Connecting(Box::pin(TcpStream::connect(to)));
        let id = SocketId::backend(session, attempt);
        let mut socket = Socket::new(id, state, &self.hub, &self.resets);
        let (slot, ..) = self.parts(session);
        assert!(
            slot.sockets[Side::Backend as usize].is_none(),
            "{session} connects twice at a time"
        );
        let result = socket.connected();
        if result.is_ok() {
            slot.sockets[Side::Backend as usize] = Some(socket);
        }
        self.tell(session, "connect", result);
        result
    }

    fn warm(&mut self, warm: WarmId, to: SocketAddr, _from: Option<IpAddr>) {
        let mut connecting: Connecting = Box::pin(TcpStream::connect(to));
        let mut result = None;
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(ready) = connecting.as_mut().poll(&mut cx) {
            result = Some(ready.is_ok());
            connecting = Box::pin(std::future::ready(ready));
        }
        self.trace.mix(
            now(),
            &self.host,
            format_args!("{warm} to {to}: {result:?}"),
        );
        self.warm.insert(warm, connecting);
    }

    fn take(
        &mut self,
        session: SessionId,
        attempt: u8,
        warm: WarmId,
        _first: First<'_>,
    ) -> Option<Connect> {
        let state = State::Connecting(self.warm.remove(&warm)?);
        let id = SocketId::backend(session, attempt);
        let mut socket = Socket::new(id, state, &self.hub, &self.resets);
        let progress = socket.connected().ok().filter(|_| !socket.has_ended());
        self.tell(session, "take", progress);
        if progress.is_some() {
            let (slot, ..) = self.parts(session);
            slot.sockets[Side::Backend as usize] = Some(socket);
        } else {
            self.lingering.extend(socket.close(Close::Fin));
        }
        progress
    }

    fn cool(&mut self, warm: WarmId) {
        let Some(connecting) = self.warm.remove(&warm) else {
            return;
        };
        // It is nobody's: of its events nobody hears.
        let nobody = SessionId::new(SessionId::MAX_INDEX, warm.0);
        let (id, state) = (SocketId::backend(nobody, 0), State::Connecting(connecting));
        let socket = Socket::new(id, state, &self.hub, &self.resets);
        self.lingering.extend(socket.close(Close::Fin));
    }

    fn connected(&mut self, session: SessionId) -> Result<Connect, Fault> {
        let (slot, ..) = self.parts(session);
        let result = open(slot, Side::Backend).connected();
        self.tell(session, "connected", result);
        result
    }

    fn load(&mut self, session: SessionId, preface: Bytes) {
        let (slot, ..) = self.parts(session);
        slot.stores[Dir::Forward as usize] = preface;
    }

    fn fill(&mut self, session: SessionId, dir: Dir, via: Via) -> Outcome {
        let (slot, chunks, scratch) = self.parts(session);
        let outcome = match via {
            Via::Splice => Outcome::NoPipe,
            Via::Copy => {
                assert!(
                    slot.stores[dir as usize].is_empty(),
                    "{session} {dir}: a buffer is filled before it is empty"
                );
                let outcome = open(slot, dir.from()).read(scratch, chunks);
                if let Outcome::Moved { bytes, .. } = outcome {
                    slot.stores[dir as usize] = Bytes::copy_from_slice(&scratch[..bytes]);
                }
                outcome
            }
        };
        self.tell(session, "fill", (dir, outcome));
        outcome
    }

    fn drain(&mut self, session: SessionId, dir: Dir) -> Outcome {
        let (slot, chunks, _) = self.parts(session);
        let mut store = std::mem::take(&mut slot.stores[dir as usize]);
        assert!(!store.is_empty(), "{session} {dir}: a write of nothing");
        let outcome = open(slot, dir.to()).write(&store, chunks);
        if let Outcome::Moved { bytes, .. } = outcome {
            store.advance(bytes);
        }
        slot.stores[dir as usize] = store;
        self.tell(session, "drain", (dir, outcome));
        outcome
    }

    fn shutdown(&mut self, session: SessionId, side: Side) -> Result<(), Fault> {
        let (slot, ..) = self.parts(session);
        let result = open(slot, side).shutdown();
        self.tell(session, "shutdown", (side, result));
        result
    }

    fn take_error(&mut self, session: SessionId, side: Side) -> Option<Fault> {
        let socket = self.socket(session, side)?;
        let fault = socket.take_error();
        self.tell(session, "take_error", (side, fault));
        fault
    }

    fn unacknowledged(&mut self, _session: SessionId, _side: Side) -> usize {
        0
    }

    fn waiting(&mut self, session: SessionId) -> bool {
        let slot = self.slots.get_mut(session.index());
        let live = slot.and_then(Option::as_mut);
        let live = live.filter(|live| live.session == session);
        let socket = live.and_then(|live| live.sockets[Side::Client as usize].as_mut());
        socket.is_some_and(Socket::has_unread)
    }

    fn hear(&mut self, socket: SocketId, on: bool) -> Result<(), Fault> {
        let (slot, ..) = self.parts(socket.session);
        open(slot, socket.side).hear(on);
        self.tell(socket.session, "hear", (socket.side, on));
        Ok(())
    }

    fn hand_off(&mut self, _: SessionId) -> HandOff {
        HandOff::Never
    }

    fn flow(&mut self, _: SessionId) -> Flow {
        Flow::default()
    }

    fn close(&mut self, session: SessionId, side: Side, how: Close) {
        let Some(slot) = self.slots.get_mut(session.index()) else {
            return;
        };
        let Some(live) = slot.as_mut().filter(|slot| slot.session == session) else {
            return;
        };
        live.stores = [Bytes::new(), Bytes::new()];
        let Some(socket) = live.sockets[side as usize].take() else {
            return;
        };
        if live.sockets.iter().all(Option::is_none) {
            *slot = None;
        }
        self.lingering.extend(socket.close(how));
        self.tell(session, "close", (side, how));
    }
}
