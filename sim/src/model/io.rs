//! [`ModelIo`]: the calls that the engine's loop makes, on the model's kernel, done as `io-linux`
//! does them.

mod stores;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use bytes::Bytes;
use tlb_engine::api::{Close, Fault};
use tlb_engine::drive::{Accept, Connect, First, Flow, HandOff, Io, Outcome, Via};
use tlb_engine::ids::{Dir, ListenerId, SessionId, Side, SocketId, WarmId};

use self::stores::Store;
use super::kernel::{Kernel, Sock};
use super::ledger::{Call, Injected, Taken};

/// What a call on a socket gets that is not there. The driver makes no such call: it is a finding.
const GONE: Fault = Fault::Other(9);

/// What a worker's host is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scarcity {
    /// Most descriptors it may have; `None` for as many as it likes.
    pub descriptors: Option<usize>,
    /// No local port is left.
    pub ports: bool,
    /// No memory for another socket.
    pub memory: bool,
    /// The next so many connections are gone when they are accepted.
    pub gone: u32,
    /// The next so many sockets cannot be registered.
    pub register: u32,
}

/// The kernel as one worker uses it.
#[derive(Debug)]
pub struct ModelIo {
    kernel: Rc<RefCell<Kernel>>,
    worker: usize,
    sessions: Vec<Entry>,
    warm: BTreeMap<WarmId, Sock>,
    pipes: usize,
    /// What it is short of now.
    pub scarcity: Scarcity,
}

/// An accepted connection; dropping it closes it.
#[derive(Debug)]
pub struct Conn {
    kernel: Rc<RefCell<Kernel>>,
    worker: usize,
    sock: Option<Sock>,
    peer: SocketAddr,
}

impl Drop for Conn {
    fn drop(&mut self) {
        if let Some(sock) = self.sock {
            let mut kernel = self.kernel.borrow_mut();
            kernel.ledger.descriptors[self.worker] -= 1;
            kernel.close(sock, Close::Fin);
        }
    }
}

#[derive(Debug, Default)]
struct Entry {
    id: Option<SessionId>,
    sockets: [Option<Sock>; 2],
    stores: [Store; 2],
    /// Of a session that was handed off: what was reported, by direction, and whether its sockets are done.
    told: [u64; 2],
    gone: bool,
}

impl ModelIo {
    /// The kernel, as `worker` uses it.
    pub const fn new(kernel: Rc<RefCell<Kernel>>, worker: usize, scarcity: Scarcity) -> Self {
        Self {
            kernel,
            worker,
            sessions: Vec::new(),
            warm: BTreeMap::new(),
            pipes: 0,
            scarcity,
        }
    }

    /// Pipes that sessions hold.
    pub const fn pipes(&self) -> usize {
        self.pipes
    }

    /// What sessions hold, and what is held for those that may come: sockets and bytes.
    pub fn holdings(&self) -> (usize, usize) {
        let sockets = |entry: &Entry| entry.sockets.iter().flatten().count();
        let bytes = |entry: &Entry| entry.stores.iter().map(|store| store.held).sum::<usize>();
        let entries = self.sessions.iter();
        entries.fold((self.warm.len(), 0), |(s, b), entry| {
            (s + sockets(entry), b + bytes(entry))
        })
    }

    fn note(&self, call: Call) {
        let mut kernel = self.kernel.borrow_mut();
        let now = kernel.now();
        kernel.ledger.call(now, self.worker, call);
    }

    fn find(&self, what: String) {
        self.kernel.borrow_mut().ledger.find("calls", what);
    }

    fn is_short(&self, needed: usize) -> bool {
        let kernel = self.kernel.borrow();
        let open = kernel.ledger.descriptors[self.worker];
        self.scarcity
            .descriptors
            .is_some_and(|most| open + needed > most)
    }

    fn entry(&mut self, session: SessionId) -> Option<&mut Entry> {
        self.sessions
            .get_mut(session.index())
            .filter(|entry| entry.id == Some(session))
    }

    fn sock(&mut self, session: SessionId, side: Side) -> Option<Sock> {
        let sock = self
            .entry(session)
            .and_then(|entry| entry.sockets[side as usize]);
        if sock.is_none() {
            self.find(format!("{session} has no {side} socket"));
        }
        sock
    }

    fn adopt_backend(&mut self, session: SessionId, attempt: u8, sock: Sock) -> Result<(), Fault> {
        let Some(entry) = self.entry(session) else {
            self.find(format!("{session} connects without a client"));
            return Err(GONE);
        };
        if entry.sockets[Side::Backend as usize]
            .replace(sock)
            .is_some()
        {
            self.find(format!(
                "{session} connects before it has left its last backend"
            ));
        }
        let name = SocketId::backend(session, attempt);
        self.kernel.borrow_mut().register(sock, self.worker, name);
        Ok(())
    }

    fn close_warm(&self, sock: Sock) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.ledger.descriptors[self.worker] -= 1;
        kernel.close(sock, Close::Fin);
    }

    fn open_backend(&mut self, to: SocketAddr, speaks: bool) -> Result<(Sock, Connect), Fault> {
        let (fault, kind) = if self.is_short(1) {
            (Fault::LocalDescriptors, Injected::ConnectExhausted)
        } else if self.scarcity.ports {
            (Fault::LocalPorts, Injected::LocalPorts)
        } else if self.scarcity.memory {
            (Fault::LocalMemory, Injected::LocalMemory)
        } else {
            let mut kernel = self.kernel.borrow_mut();
            let (sock, progress) = kernel.connect(self.worker, to)?;
            // Where something is to be sent at once, a driver need not know yet.
            let untested = speaks && kernel.is_immediate();
            let progress = if untested {
                Connect::Established
            } else {
                progress
            };
            return Ok((sock, progress));
        };
        self.kernel.borrow_mut().ledger.inject(kind);
        Err(fault)
    }
}

impl Io for ModelIo {
    type Conn = Conn;

    fn accept(&mut self, listener: ListenerId) -> Accept<Conn> {
        let waiting = self.kernel.borrow().is_waited_at(self.worker, listener);
        let short = waiting && self.is_short(1);
        let mut kernel = self.kernel.borrow_mut();
        let (accept, taken) = if short {
            kernel.ledger.inject(Injected::AcceptExhausted);
            let fault = Fault::LocalDescriptors;
            (Accept::Exhausted(fault), Taken::Exhausted)
        } else if let Some((sock, peer)) = kernel.accept(self.worker, listener) {
            if self.scarcity.gone > 0 {
                self.scarcity.gone -= 1;
                kernel.ledger.inject(Injected::AcceptGone);
                kernel.close(sock, Close::Reset);
                (Accept::Gone, Taken::Gone)
            } else {
                kernel.ledger.descriptors[self.worker] += 1;
                let conn = Conn {
                    kernel: Rc::clone(&self.kernel),
                    worker: self.worker,
                    sock: Some(sock),
                    peer,
                };
                (Accept::Conn(conn, peer), Taken::One)
            }
        } else {
            (Accept::WouldBlock, Taken::None)
        };
        drop(kernel);
        self.note(Call::Accept(listener, taken));
        accept
    }

    fn unlisten(&mut self, listener: ListenerId) {
        self.note(Call::Unlisten(listener));
        self.kernel.borrow_mut().unlisten(self.worker, listener);
    }

    fn adopt(&mut self, session: SessionId, mut conn: Conn) -> Result<(), Fault> {
        let well = self.scarcity.register == 0;
        self.note(Call::Adopt(session, conn.peer, well));
        if self.sessions.len() <= session.index() {
            self.sessions
                .resize_with(session.index() + 1, Entry::default);
        }
        if !well {
            self.scarcity.register -= 1;
            self.kernel
                .borrow_mut()
                .ledger
                .inject(Injected::LocalMemory);
            return Err(Fault::LocalMemory);
        }
        let entry = &mut self.sessions[session.index()];
        if entry.sockets.iter().any(Option::is_some) {
            self.find(format!(
                "{session} begins before its slot's last session has closed"
            ));
        }
        let sock = conn.sock.take();
        let entry = &mut self.sessions[session.index()];
        *entry = Entry {
            id: Some(session),
            sockets: [sock, None],
            stores: Default::default(),
            ..Entry::default()
        };
        if let Some(sock) = sock {
            let name = SocketId::client(session);
            self.kernel.borrow_mut().register(sock, self.worker, name);
        }
        Ok(())
    }

    fn recv(&mut self, session: SessionId, buf: &mut [u8]) -> Outcome {
        let outcome = match self.sock(session, Side::Client) {
            None => Outcome::Broken(GONE),
            Some(sock) => {
                let mut chunks = VecDeque::new();
                let mut kernel = self.kernel.borrow_mut();
                match kernel.read(sock, buf.len(), usize::MAX, false, &mut chunks) {
                    Ok(0) => Outcome::Eof,
                    Ok(bytes) => {
                        let mut rest = &mut buf[..bytes];
                        for chunk in chunks {
                            let (here, after) = rest.split_at_mut(chunk.len());
                            here.copy_from_slice(&chunk);
                            rest = after;
                        }
                        Outcome::Moved {
                            bytes,
                            short: bytes < buf.len(),
                        }
                    }
                    Err(None) => Outcome::WouldBlock,
                    Err(Some(fault)) => Outcome::Broken(fault),
                }
            }
        };
        self.note(Call::Recv(session, outcome));
        outcome
    }

    fn connect(
        &mut self,
        session: SessionId,
        attempt: u8,
        to: SocketAddr,
        _from: Option<IpAddr>,
        first: First<'_>,
    ) -> Result<Connect, Fault> {
        let result = self.open_backend(to, !first.bytes.is_empty());
        let progress = result.map(|(_, progress)| progress);
        self.note(Call::Connect(session, attempt, to, progress));
        let (sock, progress) = result?;
        self.kernel.borrow_mut().ledger.descriptors[self.worker] += 1;
        self.adopt_backend(session, attempt, sock)?;
        Ok(progress)
    }

    fn warm(&mut self, warm: WarmId, to: SocketAddr, _from: Option<IpAddr>) {
        let result = self.open_backend(to, false);
        self.note(Call::Warm(warm, to, result.map(|(_, progress)| progress)));
        if let Ok((sock, _)) = result {
            self.kernel.borrow_mut().ledger.descriptors[self.worker] += 1;
            if self.warm.insert(warm, sock).is_some() {
                self.find(format!("{warm} is there already"));
            }
        }
    }

    fn take(
        &mut self,
        session: SessionId,
        attempt: u8,
        warm: WarmId,
        first: First<'_>,
    ) -> Option<Connect> {
        let sock = self.warm.remove(&warm);
        let ended = sock.is_some_and(|sock| self.kernel.borrow().has_ended(sock));
        let progress = match sock {
            None => None,
            Some(_) if ended => None,
            Some(_) if first.bytes.is_empty() => Some(Connect::InProgress),
            Some(_) => Some(Connect::Established),
        };
        self.note(Call::Take(session, attempt, warm, progress));
        let sock = sock?;
        if ended {
            self.close_warm(sock);
        }
        let progress = progress?;
        self.adopt_backend(session, attempt, sock).ok()?;
        Some(progress)
    }

    fn cool(&mut self, warm: WarmId) {
        let sock = self.warm.remove(&warm);
        self.note(Call::Cool(warm, sock.is_some()));
        if let Some(sock) = sock {
            self.close_warm(sock);
        }
    }

    fn connected(&mut self, session: SessionId) -> Result<Connect, Fault> {
        let result = match self.sock(session, Side::Backend) {
            None => Err(GONE),
            Some(sock) => self.kernel.borrow_mut().connected(sock),
        };
        self.note(Call::Connected(session, result));
        result
    }

    fn load(&mut self, session: SessionId, preface: Bytes) {
        self.note(Call::Load(session, preface.len()));
        let Some(entry) = self.entry(session) else {
            return self.find(format!("{session} is loaded, but does not exist"));
        };
        let store = &mut entry.stores[Dir::Forward as usize];
        let was_empty = store.held == 0;
        store.held += preface.len();
        store.chunks.push_back(preface);
        if !was_empty {
            self.find(format!("{session}: the preface does not come first"));
        }
    }

    fn fill(&mut self, session: SessionId, dir: Dir, via: Via) -> Outcome {
        let outcome = self.fill_store(session, dir, via);
        self.note(Call::Fill(session, dir, via, outcome));
        outcome
    }

    fn drain(&mut self, session: SessionId, dir: Dir) -> Outcome {
        let (held, outcome) = self.drain_store(session, dir);
        self.note(Call::Drain(session, dir, held, outcome));
        outcome
    }

    fn shutdown(&mut self, session: SessionId, side: Side) -> Result<(), Fault> {
        let result = match self.sock(session, side) {
            None => Err(GONE),
            Some(sock) => self.kernel.borrow_mut().shutdown(sock),
        };
        self.note(Call::Shutdown(session, side, result));
        result
    }

    fn take_error(&mut self, session: SessionId, side: Side) -> Option<Fault> {
        let sock = self.sock(session, side)?;
        let fault = self.kernel.borrow_mut().take_error(sock);
        self.note(Call::TakeError(session, side, fault));
        fault
    }

    fn unacknowledged(&mut self, session: SessionId, side: Side) -> usize {
        let bytes = match self.sock(session, side) {
            None => 0,
            Some(sock) => self.kernel.borrow().unacknowledged(sock),
        };
        self.note(Call::Unacknowledged(session, side, bytes));
        bytes
    }

    fn waiting(&mut self, session: SessionId) -> bool {
        let sock = self.sock(session, Side::Client);
        sock.is_some_and(|sock| self.kernel.borrow().unread(sock) > 0)
    }

    fn hear(&mut self, socket: SocketId, on: bool) -> Result<(), Fault> {
        let sock = self.sock(socket.session, socket.side);
        self.note(Call::Hear(socket, on));
        self.kernel.borrow_mut().hear(sock.ok_or(GONE)?, on);
        Ok(())
    }

    fn hand_off(&mut self, session: SessionId) -> HandOff {
        let pair = Side::BOTH.map(|side| self.sock(session, side));
        let done = match pair {
            [Some(client), Some(backend)] => self.kernel.borrow_mut().bridge([client, backend]),
            _ => false,
        };
        if done && let Some(entry) = self.entry(session) {
            entry.told = [0; 2];
            entry.gone = false;
        }
        self.note(Call::HandOff(session, done));
        if done { HandOff::Done } else { HandOff::Later }
    }

    fn flow(&mut self, session: SessionId) -> Flow {
        let pair = Side::BOTH.map(|side| self.sock(session, side));
        let ([Some(client), Some(backend)], true) = (pair, self.entry(session).is_some()) else {
            return Flow::default();
        };
        let kernel = self.kernel.borrow();
        let now = kernel.now();
        // By the peer that acknowledges: the backend's is the one of what goes forward.
        let seen = [backend, client].map(|sock| kernel.crossed(sock));
        let own = kernel.unacknowledged(client) + kernel.unacknowledged(backend);
        drop(kernel);
        let [forward, back] = seen;
        let reset = match (back.reset, forward.reset) {
            (true, _) => Some(Side::Client),
            (false, true) => Some(Side::Backend),
            (false, false) => None,
        };
        let Some(entry) = self.entry(session) else {
            return Flow::default();
        };
        entry.gone |= own == 0;
        let gone = entry.gone;
        let moved = [0, 1].map(|dir| seen[dir].acked - entry.told[dir]);
        entry.told = seen.map(|seen| seen.acked);
        let flow = Flow {
            moved,
            ended: seen.map(|seen| gone && seen.fin_acked),
            broken: reset.map(|side| (side, Fault::Reset)),
            gone,
            quiet: now.since(forward.last.max(back.last)),
        };
        self.note(Call::Flow(session, flow));
        flow
    }

    fn close(&mut self, session: SessionId, side: Side, how: Close) {
        let sock = self
            .entry(session)
            .and_then(|entry| entry.sockets[side as usize].take());
        self.note(Call::Close(session, side, how, sock.is_some()));
        if let Some(sock) = sock {
            let mut kernel = self.kernel.borrow_mut();
            kernel.ledger.descriptors[self.worker] -= 1;
            kernel.close(sock, how);
        }
        if self.entry(session).is_some() {
            for dir in Dir::BOTH {
                self.drop_store(session, dir);
            }
        }
    }
}
