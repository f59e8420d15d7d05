//! The kernel: time, links, and what arrives. The system calls are in a module of their own.

mod bridge;
mod calls;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::SocketAddr;

use tlb_engine::api::{Close, Fault};
use tlb_engine::ids::{ListenerId, SessionId};
use tlb_engine::rng::Rng;
use tlb_engine::time::{Duration, Timestamp};

use super::ledger::{Injected, Ledger};
pub use super::socket::{Owner, Sock};
use super::socket::{Segment, Socket, State};
pub(super) use bridge::Bridge;
pub use bridge::Crossed;

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

/// What a probe of a backend would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its kernel takes connections.
    Answers,
    /// Its kernel refuses them.
    Refuses,
    /// The network says that there is no such host.
    Unreachable,
    /// Nothing.
    Silent,
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
    /// By worker: sessions of which a bridge has news.
    crossings: Vec<Vec<SessionId>>,
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
            crossings: vec![Vec::new(); workers],
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
    pub fn reach(&self, link: usize) -> Reach {
        if self.links[link].held {
            return Reach::Silent;
        }
        match self.backend_doors[link].hatch {
            Hatch::Open => Reach::Answers,
            Hatch::Refusing => Reach::Refuses,
            Hatch::Hanging => Reach::Silent,
            Hatch::Unreachable => Reach::Unreachable,
        }
    }

    /// What becomes of connects to a backend from now on.
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

    /// The host behind a link comes back without its connections. What tlb sends on them is
    /// answered by a reset, a keepalive probe at the latest.
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
            let ours =
                matches!(socket.owner, Owner::Worker(..)) && socket.open && socket.bridge.is_none();
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
        if self.crosses(at, &segment) {
            return;
        }
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
}

const fn refusal(hatch: Hatch) -> Fault {
    match hatch {
        Hatch::Unreachable => Fault::Unreachable,
        _ => Fault::Refused,
    }
}
