//! The kernel: links, connections, and the system calls on sockets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use tlb_engine::api::{Close, Fault};
use tlb_engine::drive::{Connect, Readiness};
use tlb_engine::ids::{ListenerId, SocketId};
use tlb_engine::rng::Rng;
use tlb_engine::time::{Duration, Timestamp};

use super::ledger::{Injected, Ledger};
pub use super::socket::{Owner, Sock};
use super::socket::{Segment, Socket, State};

/// A SYN that found no room in an accept queue is sent again after this.
const SYN_AGAIN: Duration = Duration::from_secs(1);

/// Sizes and habits of the kernel, drawn with the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Send buffer of every socket, in bytes.
    pub send_buffer: usize,
    /// Receive buffer of every socket, in bytes.
    pub receive_buffer: usize,
    /// Largest segment, in bytes.
    pub segment: usize,
    /// Size of the buffer that copies go through.
    pub copy_buffer: usize,
    /// Slots of a pipe.
    pub pipe_slots: usize,
    /// Pipes of a worker.
    pub pipes: usize,
    /// Connections that may wait at a listener.
    pub backlog: usize,
    /// Of 256 reads and writes, how many move less than they could.
    pub partial: u8,
    /// Of 256 connects and refusals that the loopback could answer at once, how many are.
    pub immediate: u8,
    /// How long a host may be gone before the kernel gives up its connections.
    pub user_timeout_ms: u64,
}

/// A way between tlb and one peer host, both directions alike.
#[derive(Clone, Copy, Debug)]
struct Link {
    latency: Duration,
    jitter_us: u64,
    held: bool,
}

/// How a host answers who wants to connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hatch {
    /// Somebody listens there.
    #[default]
    Open,
    /// Nobody does: refused.
    Refusing,
    /// No answer.
    Hanging,
    /// The network says that there is no such host.
    Unreachable,
}

/// A place where one listens.
#[derive(Debug, Default)]
struct Door {
    hatch: Hatch,
    queue: VecDeque<(Sock, SocketAddr)>,
    signalled: bool,
}

/// Something that is to be done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// Look at what has arrived at a socket.
    Arrival(Sock),
    /// A SYN reaches the host at a link.
    Syn(Sock),
    /// A peer asked to be run.
    Peer(usize),
    /// The owner of the kernel asked for it, with a number of its own.
    Note(u64),
}

/// What [`Kernel::advance`] stopped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A note of [`Kernel::note_at`] is due.
    Note(u64),
    /// Nothing more is due now.
    Idle,
}

/// The kernel of all hosts.
#[derive(Debug)]
pub struct Kernel {
    now: Timestamp,
    tuning: Tuning,
    sequence: u64,
    due: BinaryHeap<Reverse<(Timestamp, u64, Due)>>,
    sockets: Vec<Socket>,
    links: Vec<Link>,
    /// Where tlb's workers listen, by worker and listener.
    tlb_doors: BTreeMap<(usize, u32), Door>,
    /// Where backends listen: their doors, by link.
    backend_doors: Vec<Door>,
    /// Which link an address is at.
    addresses: BTreeMap<SocketAddr, usize>,
    /// Where a connecting socket wants to go.
    wanted: BTreeMap<Sock, Wanted>,
    worker_ready: Vec<Vec<Sock>>,
    peers_ready: VecDeque<usize>,
    accepting: VecDeque<usize>,
    network: Rng,
    chunking: Rng,
    /// What was done and what was injected.
    pub ledger: Ledger,
}

#[derive(Clone, Copy, Debug)]
enum Wanted {
    Backend,
    Tlb(usize, ListenerId, SocketAddr),
}

impl Kernel {
    /// A kernel with no socket. Links are numbered; backends have the first ones.
    pub fn new(tuning: Tuning, workers: usize, links: usize, network: Rng, chunking: Rng) -> Self {
        let link = Link {
            latency: Duration::ZERO,
            jitter_us: 0,
            held: false,
        };
        Self {
            now: Timestamp::ZERO,
            tuning,
            sequence: 0,
            due: BinaryHeap::new(),
            sockets: Vec::new(),
            links: vec![link; links],
            tlb_doors: BTreeMap::new(),
            backend_doors: (0..links).map(|_| Door::default()).collect(),
            addresses: BTreeMap::new(),
            wanted: BTreeMap::new(),
            worker_ready: vec![Vec::new(); workers],
            peers_ready: VecDeque::new(),
            accepting: VecDeque::new(),
            network,
            chunking,
            ledger: Ledger::new(workers),
        }
    }

    /// The time.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The sizes it was made with.
    pub const fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// When something is due next.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Sets the clock forward; nothing may be due before.
    pub fn set_time(&mut self, now: Timestamp) {
        debug_assert!(now >= self.now, "time goes forward");
        self.now = now;
    }

    /// Asks for a [`Stop::Note`].
    pub fn note_at(&mut self, at: Timestamp, note: u64) {
        self.at(at, Due::Note(note));
    }

    /// Asks for a peer to be run at a time.
    pub fn peer_at(&mut self, at: Timestamp, peer: usize) {
        self.at(at, Due::Peer(peer));
    }

    /// Does what is due by now, until a note.
    pub fn advance(&mut self) -> Stop {
        while let Some(Reverse((at, _, due))) = self.due.peek().copied() {
            if at > self.now {
                break;
            }
            self.due.pop();
            self.ledger.events += 1;
            match due {
                Due::Note(note) => return Stop::Note(note),
                Due::Peer(peer) => self.peers_ready.push_back(peer),
                Due::Syn(from) => self.syn(from),
                Due::Arrival(at) => self.arrive(at),
            }
        }
        Stop::Idle
    }

    /// The next peer that has something to do.
    pub fn ready_peer(&mut self) -> Option<usize> {
        self.peers_ready.pop_front()
    }

    /// The next link at whose backend a connection waits to be accepted.
    pub fn ready_backend(&mut self) -> Option<usize> {
        self.accepting.pop_front()
    }

    fn at(&mut self, at: Timestamp, due: Due) {
        self.sequence += 1;
        self.due
            .push(Reverse((at.max(self.now), self.sequence, due)));
    }

    // ---- Hosts and links.

    /// Sets how long a segment takes over a link, and how much longer it may.
    pub fn set_latency(&mut self, link: usize, latency: Duration, jitter_us: u64) {
        self.links[link].latency = latency;
        self.links[link].jitter_us = jitter_us;
    }

    /// Holds back everything on a link, or lets it go.
    pub fn hold(&mut self, link: usize, held: bool) {
        if core::mem::replace(&mut self.links[link].held, held) && !held {
            for index in 0..self.sockets.len() {
                if self.sockets[index].link == link && !self.sockets[index].wire.is_empty() {
                    self.at(self.now, Due::Arrival(Sock(index as u32)));
                }
            }
        }
    }

    /// How the host at a link answers connects from now on.
    pub fn set_hatch(&mut self, link: usize, hatch: Hatch) {
        self.backend_doors[link].hatch = hatch;
    }

    /// Gives the host at a link an address.
    pub fn set_address(&mut self, link: usize, address: SocketAddr) {
        self.addresses.insert(address, link);
    }

    /// Takes an address away: connects to it are refused.
    pub fn drop_address(&mut self, address: SocketAddr) {
        self.addresses.remove(&address);
    }

    /// Takes a waiting connection, for the peer of that number.
    pub fn backend_accept(&mut self, link: usize, peer: usize) -> Option<Sock> {
        let (sock, _) = self.backend_doors[link].queue.pop_front()?;
        self.sockets[sock.index()].owner = Owner::Peer(peer);
        self.peers_ready.push_back(peer);
        Some(sock)
    }

    /// Connections that wait at a link's backend.
    pub fn waiting(&self, link: usize) -> usize {
        self.backend_doors[link].queue.len()
    }

    /// Asks for the waiting connections of a link's backend to be accepted.
    pub fn accept_again(&mut self, link: usize) {
        for _ in 0..self.backend_doors[link].queue.len() {
            self.accepting.push_back(link);
        }
    }

    /// The process behind a link is killed: its kernel closes its sockets.
    pub fn crash(&mut self, link: usize) {
        while let Some((sock, _)) = self.backend_doors[link].queue.pop_front() {
            self.close(sock, Close::Reset);
        }
        for index in 0..self.sockets.len() {
            let socket = &self.sockets[index];
            if socket.link == link && socket.open && matches!(socket.owner, Owner::Peer(_)) {
                self.close(Sock(index as u32), Close::Fin);
            }
        }
    }

    /// The host behind a link comes back without its connections. What tlb sends on them is answered by a reset, a
    /// keepalive probe at the latest.
    pub fn reboot(&mut self, link: usize) {
        self.backend_doors[link].queue.clear();
        let probe = self.now + Duration::from_millis(self.tuning.user_timeout_ms);
        for index in 0..self.sockets.len() {
            let socket = &mut self.sockets[index];
            if socket.link == link && !matches!(socket.owner, Owner::Worker(..)) {
                socket.open = false;
                socket.kill(None);
                socket.wire.clear();
                if let Owner::Peer(peer) = socket.owner {
                    self.peers_ready.push_back(peer);
                }
                let other = socket.other;
                if let Some(other) = other {
                    let ours = &mut self.sockets[other.index()];
                    let at = probe.max(ours.last_arrival);
                    ours.last_arrival = at;
                    ours.wire.push_back((at, Segment::Rst));
                    self.at(at, Due::Arrival(other));
                }
            }
        }
    }

    /// The kernel gives up what tlb has sent over a link and nobody acknowledged.
    pub fn give_up(&mut self, link: usize) {
        for index in 0..self.sockets.len() {
            let socket = &mut self.sockets[index];
            let ours = matches!(socket.owner, Owner::Worker(..)) && socket.open;
            if socket.link == link && ours && socket.state == State::Established {
                socket.kill(Some(Fault::TimedOut));
                self.ledger.inject(Injected::TimedOut);
                self.signal(Sock(index as u32));
            }
        }
    }

    // ---- What arrives.

    fn transit(&mut self, link: usize) -> Duration {
        let Link {
            latency, jitter_us, ..
        } = self.links[link];
        latency + Duration::from_micros(self.network.below(jitter_us + 1))
    }

    fn send_segment(&mut self, from: Sock, segment: Segment) {
        let Some(to) = self.sockets[from.index()].other else {
            return;
        };
        let transit = self.transit(self.sockets[from.index()].link);
        let socket = &mut self.sockets[to.index()];
        let at = (self.now + transit).max(socket.last_arrival);
        socket.last_arrival = at;
        match (socket.wire.back_mut(), &segment) {
            (Some((when, Segment::Ack(sum))), Segment::Ack(more))
            | (Some((when, Segment::Window(sum))), Segment::Window(more))
                if *when == at =>
            {
                *sum += more;
                return;
            }
            _ => {}
        }
        socket.wire.push_back((at, segment));
        self.at(at, Due::Arrival(to));
    }

    fn arrive(&mut self, at: Sock) {
        if self.links[self.sockets[at.index()].link].held {
            return;
        }
        while let Some((when, _)) = self.sockets[at.index()].wire.front() {
            if *when > self.now {
                break;
            }
            if let Some((_, segment)) = self.sockets[at.index()].wire.pop_front() {
                self.deliver(at, segment);
            }
        }
    }

    fn deliver(&mut self, at: Sock, segment: Segment) {
        let socket = &mut self.sockets[at.index()];
        match segment {
            Segment::Rst => {
                if socket.state != State::Dead {
                    let refused = socket.state == State::Connecting;
                    socket.kill(Some(if refused {
                        Fault::Refused
                    } else {
                        Fault::Reset
                    }));
                    self.signal(at);
                }
            }
            Segment::Data(..) | Segment::SynAck if socket.state == State::Dead || !socket.open => {
                // Nobody will ever read it.
                socket.kill(None);
                self.send_segment(at, Segment::Rst);
            }
            _ if socket.state == State::Dead => {}
            Segment::SynAck => {
                socket.state = State::Established;
                self.signal(at);
            }
            Segment::Data(bytes, urgent) => {
                let len = bytes.len();
                socket.unread += len;
                if urgent {
                    socket.mark = Some(socket.read + socket.unread as u64 - 1);
                }
                socket.received.push_back(bytes);
                self.send_segment(at, Segment::Ack(len));
                self.signal(at);
            }
            Segment::Fin => {
                socket.ended = true;
                self.send_segment(at, Segment::FinAck);
                self.signal(at);
            }
            Segment::Ack(bytes) => {
                socket.unacknowledged -= bytes;
                if socket.no_space && socket.is_writable() {
                    socket.no_space = false;
                    self.signal(at);
                }
            }
            Segment::FinAck => socket.fin_acknowledged = true,
            Segment::Window(bytes) => {
                socket.credit += bytes;
                self.transmit(at);
            }
        }
    }

    /// Sends what the other end has room for, and then the FIN.
    fn transmit(&mut self, from: Sock) {
        loop {
            let socket = &mut self.sockets[from.index()];
            let Some((chunk, urgent)) = socket.unsent.front_mut() else {
                break;
            };
            let len = chunk.len().min(socket.credit).min(self.tuning.segment);
            if len == 0 {
                return;
            }
            let whole = len == chunk.len();
            let (bytes, urgent) = (chunk.split_to(len), *urgent && whole);
            if whole {
                socket.unsent.pop_front();
            }
            socket.unsent_bytes -= len;
            socket.unacknowledged += len;
            socket.credit -= len;
            self.send_segment(from, Segment::Data(bytes, urgent));
        }
        let socket = &mut self.sockets[from.index()];
        if socket.shut && !socket.fin_sent && socket.state == State::Established {
            socket.fin_sent = true;
            self.send_segment(from, Segment::Fin);
        }
    }

    fn syn(&mut self, from: Sock) {
        let socket = &self.sockets[from.index()];
        let link = socket.link;
        if socket.state != State::Connecting || !socket.open {
            self.wanted.remove(&from);
            return;
        }
        if self.links[link].held {
            return self.at(self.now + SYN_AGAIN, Due::Syn(from));
        }
        match self.wanted.get(&from) {
            Some(Wanted::Backend) => match self.backend_doors[link].hatch {
                Hatch::Open => {
                    if self.backend_doors[link].queue.len() >= self.tuning.backlog {
                        self.ledger.inject(Injected::BackendBacklog);
                        return self.at(self.now + SYN_AGAIN, Due::Syn(from));
                    }
                    let other = self.establish(from, link);
                    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                    self.backend_doors[link].queue.push_back((other, nowhere));
                    self.accepting.push_back(link);
                }
                Hatch::Hanging => {
                    self.ledger.inject(Injected::Hanging);
                    self.at(self.now + SYN_AGAIN, Due::Syn(from));
                }
                hatch => self.fail_connect(from, hatch),
            },
            Some(&Wanted::Tlb(worker, listener, peer)) => {
                let Some(door) = self.tlb_doors.get(&(worker, listener.0)) else {
                    return self.fail_connect(from, Hatch::Refusing);
                };
                if door.queue.len() >= self.tuning.backlog {
                    self.ledger.inject(Injected::TlbBacklog);
                    return self.at(self.now + SYN_AGAIN, Due::Syn(from));
                }
                let other = self.establish(from, link);
                let Some(door) = self.tlb_doors.get_mut(&(worker, listener.0)) else {
                    return;
                };
                door.queue.push_back((other, peer));
                door.signalled = true;
            }
            None => {}
        }
    }

    /// The other end of a connect that reached a listener.
    fn establish(&mut self, from: Sock, link: usize) -> Sock {
        self.wanted.remove(&from);
        let mut socket = self.new_socket(Owner::Nobody, link);
        socket.state = State::Established;
        socket.other = Some(from);
        let sock = self.push(socket);
        self.sockets[from.index()].other = Some(sock);
        self.send_segment(sock, Segment::SynAck);
        sock
    }

    fn fail_connect(&mut self, from: Sock, hatch: Hatch) {
        self.wanted.remove(&from);
        let fault = refusal(hatch);
        self.ledger.inject(if fault == Fault::Refused {
            Injected::Refused
        } else {
            Injected::Unreachable
        });
        self.sockets[from.index()].kill(Some(fault));
        self.signal(from);
    }

    fn new_socket(&self, owner: Owner, link: usize) -> Socket {
        Socket::new(
            owner,
            link,
            self.tuning.send_buffer,
            self.tuning.receive_buffer,
        )
    }

    fn push(&mut self, socket: Socket) -> Sock {
        self.sockets.push(socket);
        Sock((self.sockets.len() - 1) as u32)
    }

    // ---- Readiness.

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

    /// Whether a worker has events.
    pub fn has_events(&self, worker: usize) -> bool {
        !self.worker_ready[worker].is_empty()
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
                events.push((name, socket.poll()));
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

    // ---- System calls.

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
        let immediate = self.chunking.below(256) < u64::from(self.tuning.immediate);
        let hatch = link.map_or(Hatch::Refusing, |link| self.backend_doors[link].hatch);
        let held = link.is_some_and(|link| self.links[link].held);
        if matches!(hatch, Hatch::Refusing | Hatch::Unreachable) && immediate && !held {
            let fault = refusal(hatch);
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

    fn fail_later(&mut self, sock: Sock) {
        let socket = &mut self.sockets[sock.index()];
        let at = self.now + Duration::from_micros(100);
        socket.wire.push_back((at, Segment::Rst));
        self.ledger.inject(Injected::Refused);
        self.at(at, Due::Arrival(sock));
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

    /// Reads up to `bytes` bytes in at most `segments` segments; `splice` does not get past urgent data.
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

    /// Closes a descriptor. What was written still goes out, unless by a reset or with something left unread.
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

const fn refusal(hatch: Hatch) -> Fault {
    match hatch {
        Hatch::Unreachable => Fault::Unreachable,
        _ => Fault::Refused,
    }
}
