//! The system calls, and what the event queue says.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::Bytes;
use tlb_engine::api::{Close, Fault};
use tlb_engine::drive::{Connect, Readiness};
use tlb_engine::ids::{ListenerId, SocketId};
use tlb_engine::time::Duration;

use super::{Door, Due, Hatch, Kernel, Owner, Sock, Wanted};
use crate::model::ledger::Injected;
use crate::model::socket::{Segment, State};

impl Kernel {
    /// Something happened to a socket: whoever registered it has an edge coming.
    pub fn signal(&mut self, sock: Sock) {
        let socket = &mut self.sockets[sock.index()];
        match socket.owner {
            _ if !socket.open => {}
            Owner::Worker(worker, Some(_)) if !socket.signalled => {
                socket.signalled = true;
                self.worker_ready[worker].push(sock);
            }
            Owner::Peer(peer) => self.peers_ready.push_back(peer),
            _ => {}
        }
    }

    /// Registers a worker's socket for events under a name.
    pub fn register(&mut self, sock: Sock, worker: usize, name: SocketId) {
        let socket = &mut self.sockets[sock.index()];
        socket.owner = Owner::Worker(worker, Some(name));
        if socket.poll() != Readiness::default() {
            self.signal(sock);
        }
    }

    /// Whether events are to say of a socket that it is readable.
    pub fn hear(&mut self, sock: Sock, on: bool) {
        let socket = &mut self.sockets[sock.index()];
        socket.muted = !on;
        // As `EPOLL_CTL_MOD` does, in either case.
        if socket.poll() != Readiness::default() {
            self.signal(sock);
        }
    }

    /// Whether a worker has events.
    pub fn has_events(&self, worker: usize) -> bool {
        !self.worker_ready[worker].is_empty()
            || !self.crossings[worker].is_empty()
            || self
                .tlb_doors
                .range((worker, 0)..=(worker, u32::MAX))
                .any(|(_, door)| door.signalled)
    }

    /// What `epoll_wait` says to a worker: each socket with all that is true of it now.
    pub fn take_events(&mut self, worker: usize, events: &mut Vec<(SocketId, Readiness)>) {
        let mut ready = core::mem::take(&mut self.worker_ready[worker]);
        for sock in ready.drain(..) {
            let socket = &mut self.sockets[sock.index()];
            socket.signalled = false;
            if let (true, Owner::Worker(_, Some(name))) = (socket.open, socket.owner) {
                let readiness = socket.poll();
                if readiness != Readiness::default() || !socket.muted {
                    events.push((name, readiness));
                }
            }
        }
        self.worker_ready[worker] = ready;
    }

    /// The listeners of a worker at which connections have come since last asked.
    pub fn take_accepts(&mut self, worker: usize, listeners: &mut Vec<ListenerId>) {
        for (&(_, listener), door) in self.tlb_doors.range_mut((worker, 0)..=(worker, u32::MAX)) {
            if core::mem::take(&mut door.signalled) {
                listeners.push(ListenerId(listener));
            }
        }
    }

    /// A worker listens.
    pub fn listen(&mut self, worker: usize, listener: ListenerId) {
        self.tlb_doors.insert((worker, listener.0), Door::default());
    }

    /// A listening socket is closed; who waits there is reset.
    pub fn unlisten(&mut self, worker: usize, listener: ListenerId) {
        if let Some(door) = self.tlb_doors.remove(&(worker, listener.0)) {
            for (sock, _) in door.queue {
                self.close(sock, Close::Reset);
            }
        }
    }

    /// Whether a connection waits at a worker's listener.
    pub fn is_waited_at(&self, worker: usize, listener: ListenerId) -> bool {
        self.tlb_doors
            .get(&(worker, listener.0))
            .is_some_and(|door| !door.queue.is_empty())
    }

    /// Takes a waiting connection.
    pub fn accept(&mut self, worker: usize, listener: ListenerId) -> Option<(Sock, SocketAddr)> {
        let door = self.tlb_doors.get_mut(&(worker, listener.0))?;
        let (sock, peer) = door.queue.pop_front()?;
        self.sockets[sock.index()].owner = Owner::Worker(worker, None);
        Some((sock, peer))
    }

    /// A client connects to a worker's listener, from `peer`.
    pub fn client_connect(
        &mut self,
        owner: usize,
        link: usize,
        worker: usize,
        listener: ListenerId,
        peer: SocketAddr,
    ) -> Sock {
        let socket = self.new_socket(Owner::Peer(owner), link);
        let sock = self.push(socket);
        self.wanted
            .insert(sock, Wanted::Tlb(worker, listener, peer));
        let transit = self.transit(link);
        self.at(self.now + transit, Due::Syn(sock));
        sock
    }

    /// tlb connects to an address.
    ///
    /// # Errors
    /// The fault, if it is known at once.
    pub fn connect(&mut self, worker: usize, to: SocketAddr) -> Result<(Sock, Connect), Fault> {
        let link = self.addresses.get(&to).copied();
        let immediate = self.is_immediate();
        let hatch = link.map_or(Hatch::Refusing, |link| self.backend_doors[link].hatch);
        let held = link.is_some_and(|link| self.links[link].held);
        if matches!(hatch, Hatch::Refusing | Hatch::Unreachable) && immediate && !held {
            let fault = hatch.refusal();
            self.ledger.inject(if fault == Fault::Refused {
                Injected::Refused
            } else {
                Injected::Unreachable
            });
            return Err(fault);
        }
        let Some(link) = link else {
            // An address that no host has any more: its router refuses, a moment later.
            let socket = self.new_socket(Owner::Worker(worker, None), self.links.len() - 1);
            let sock = self.push(socket);
            self.fail_later(sock);
            return Ok((sock, Connect::InProgress));
        };
        let socket = self.new_socket(Owner::Worker(worker, None), link);
        let sock = self.push(socket);
        self.wanted.insert(sock, Wanted::Backend);
        let transit = self.transit(link);
        if immediate && hatch == Hatch::Open && !held && transit.is_zero() {
            self.syn(sock);
            let other = self.sockets[sock.index()].other;
            if other.is_some() {
                // The answer that is on the wire finds it established already.
                self.sockets[sock.index()].state = State::Established;
                return Ok((sock, Connect::Established));
            }
            return Ok((sock, Connect::InProgress));
        }
        self.at(self.now + transit, Due::Syn(sock));
        Ok((sock, Connect::InProgress))
    }

    /// Whether something that may be known at once is.
    pub fn is_immediate(&mut self) -> bool {
        self.chunking.below(256) < u64::from(self.tuning.immediate)
    }

    fn fail_later(&mut self, sock: Sock) {
        let socket = &mut self.sockets[sock.index()];
        let at = self.now + Duration::from_micros(100);
        socket.wire.push_back((at, Segment::Rst));
        self.ledger.inject(Injected::Refused);
        self.at(at, Due::Arrival(sock));
    }

    /// Whether a socket's stream has ended, or it is broken, and nothing is left to read.
    pub fn has_ended(&self, sock: Sock) -> bool {
        let socket = &self.sockets[sock.index()];
        socket.unread == 0 && (socket.ended || socket.state == State::Dead)
    }

    /// How far a connect is.
    ///
    /// # Errors
    /// How it failed.
    pub fn connected(&mut self, sock: Sock) -> Result<Connect, Fault> {
        let socket = &mut self.sockets[sock.index()];
        match socket.state {
            State::Established => Ok(Connect::Established),
            State::Connecting => Ok(Connect::InProgress),
            State::Dead => Err(socket.take_error().unwrap_or(Fault::Reset)),
        }
    }

    /// Reads up to `bytes` bytes in at most `segments` segments; `splice` does not get past urgent
    /// data.
    ///
    /// # Errors
    /// `None`: nothing now. Else how it broke.
    pub fn read(
        &mut self,
        sock: Sock,
        bytes: usize,
        segments: usize,
        splice: bool,
        into: &mut VecDeque<Bytes>,
    ) -> Result<usize, Option<Fault>> {
        let cut = self.chunking.below(256) < u64::from(self.tuning.partial);
        let socket = &mut self.sockets[sock.index()];
        let mut limit = bytes;
        if let Some(mark) = socket.mark {
            let before = usize::try_from(mark - socket.read).unwrap_or(usize::MAX);
            if before > 0 || splice {
                limit = limit.min(before);
            }
        }
        if cut && socket.unread > 1 {
            // The rest is taken to arrive a moment later, which is an edge.
            limit = limit.min(1 + self.chunking.below(socket.unread as u64 - 1) as usize);
        }
        let socket = &mut self.sockets[sock.index()];
        let mut moved = 0;
        let mut left = segments;
        while moved < limit && left > 0 {
            let Some(front) = socket.received.front_mut() else {
                break;
            };
            let take = front.len().min(limit - moved);
            into.push_back(front.split_to(take));
            if front.is_empty() {
                socket.received.pop_front();
            }
            moved += take;
            left -= 1;
        }
        if moved > 0 {
            socket.unread -= moved;
            socket.read += moved as u64;
            if socket.mark.is_some_and(|mark| socket.read > mark) {
                socket.mark = None;
            }
            let more = cut && socket.unread > 0;
            let alive = socket.state == State::Established;
            if alive {
                self.send_segment(sock, Segment::Window(moved));
            }
            if more {
                self.signal(sock);
            }
            return Ok(moved);
        }
        if socket.unread > 0 && (bytes == 0 || segments == 0) {
            return Err(None);
        }
        if let Some(fault) = socket.take_error() {
            return Err(Some(fault));
        }
        if socket.ended || socket.state == State::Dead {
            return Ok(0);
        }
        Err(None)
    }

    /// Bytes that wait to be read.
    pub fn unread(&self, sock: Sock) -> usize {
        self.sockets[sock.index()].unread
    }

    /// Whether there is something to read that a splice does not get at.
    pub fn is_at_mark(&self, sock: Sock) -> bool {
        let socket = &self.sockets[sock.index()];
        socket.mark == Some(socket.read)
    }

    /// Writes from the front of `from`; the last byte written may be marked urgent.
    ///
    /// # Errors
    /// `None`: no room now. Else how it broke.
    pub fn write(
        &mut self,
        sock: Sock,
        from: &mut VecDeque<Bytes>,
        urgent: bool,
    ) -> Result<usize, Option<Fault>> {
        let cut = self.chunking.below(256) < u64::from(self.tuning.partial);
        let socket = &mut self.sockets[sock.index()];
        match socket.state {
            State::Connecting => return Err(None),
            State::Established if !socket.shut => {}
            _ => return Err(Some(socket.take_error().unwrap_or(Fault::Reset))),
        }
        let free = socket.send_buffer.saturating_sub(socket.queued());
        let wanted: usize = from.iter().map(Bytes::len).sum();
        if free == 0 && wanted > 0 {
            socket.no_space = true;
            return Err(None);
        }
        let mut limit = free.min(wanted);
        if cut && limit > 1 {
            limit = 1 + self.chunking.below(limit as u64 - 1) as usize;
        }
        let mut moved = 0;
        while moved < limit {
            let Some(front) = from.front_mut() else {
                break;
            };
            let take = front.len().min(limit - moved);
            moved += take;
            let piece = front.split_to(take);
            if front.is_empty() {
                from.pop_front();
            }
            let last = urgent && moved == wanted;
            socket.unsent.push_back((piece, last));
        }
        socket.unsent_bytes += moved;
        socket.no_space |= moved < wanted;
        self.transmit(sock);
        Ok(moved)
    }

    /// `shutdown(SHUT_WR)`.
    ///
    /// # Errors
    /// It is not connected any more.
    pub fn shutdown(&mut self, sock: Sock) -> Result<(), Fault> {
        let socket = &mut self.sockets[sock.index()];
        if socket.state == State::Dead {
            return Err(socket.take_error().unwrap_or(Fault::Reset));
        }
        socket.shut = true;
        self.transmit(sock);
        Ok(())
    }

    /// `SO_ERROR`.
    pub fn take_error(&mut self, sock: Sock) -> Option<Fault> {
        self.sockets[sock.index()].take_error()
    }

    /// `SIOCOUTQ`.
    pub fn unacknowledged(&self, sock: Sock) -> usize {
        let socket = &self.sockets[sock.index()];
        let fin = socket.shut && !socket.fin_acknowledged;
        socket.queued() + usize::from(fin)
    }

    /// Closes a descriptor. What was written still goes out, unless by a reset or with something
    /// left unread.
    pub fn close(&mut self, sock: Sock, how: Close) {
        let socket = &mut self.sockets[sock.index()];
        if !core::mem::replace(&mut socket.open, false) {
            return;
        }
        if socket.signalled
            && let Owner::Worker(worker, _) = socket.owner
        {
            self.worker_ready[worker].retain(|&ready| ready != sock);
        }
        if self.close_bridged(sock, how) {
            return;
        }
        let socket = &mut self.sockets[sock.index()];
        match socket.state {
            State::Dead => {}
            State::Connecting => socket.kill(None),
            State::Established if how == Close::Reset || socket.unread > 0 => {
                socket.kill(None);
                socket.received.clear();
                self.send_segment(sock, Segment::Rst);
            }
            State::Established => {
                socket.shut = true;
                self.transmit(sock);
            }
        }
    }

    /// Whether a socket is still connecting.
    pub fn is_connecting(&self, sock: Sock) -> bool {
        self.sockets[sock.index()].state == State::Connecting
    }

    /// Whether the descriptor is closed, by whomever.
    pub fn is_closed(&self, sock: Sock) -> bool {
        !self.sockets[sock.index()].open
    }
}
